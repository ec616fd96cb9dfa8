/* Rotary positions: pairs of elements of [n, t, heads, d] are turned by angles that grow with the position. */
#include "backend/cuda/vector.cuh"

struct ftr__rotary {
    int64_t t, heads, d, half, first; /* half: pairs of a head */
    double base;
    bool interleaved, inverse;
    float2 *turn; /* [t][half]: cosine, sine */
};

/* Angles are large numbers for late positions: they are computed in double, once for all heads and samples. */
FTR__KERNEL ftr__rotary_table(ftr__rotary p) {
    FTR__GRID_LOOP(i, p.t * p.half) {
        const int64_t position = i / p.half, pair = i - position * p.half;
        const double angle = (double)(p.first + position) * pow(p.base, -(double)pair / (double)p.half);
        float2 turn;
        turn.x = static_cast<float>(cos(angle));
        turn.y = static_cast<float>(p.inverse ? -sin(angle) : sin(angle));
        p.turn[i] = turn;
    }
}

/* A thread has a pair, then one of the elements that are not turned. y may be x. */
template <typename T> FTR__KERNEL ftr__rotary_turn(ftr__rotary p, int64_t count, const T *x, T *y) {
    const int64_t slots = p.d - p.half;
    FTR__GRID_LOOP(i, count) {
        const int64_t row = i / slots, slot = i - row * slots;
        const T *from = x + row * p.d;
        T *to = y + row * p.d;
        if (slot >= p.half) {
            to[slot + p.half] = from[slot + p.half];
            continue;
        }
        const float2 turn = p.turn[row / p.heads % p.t * p.half + slot];
        const int64_t first = p.interleaved ? 2 * slot : slot, second = first + (p.interleaved ? 1 : p.half);
        const float a = ftr__to_float(from[first]), b = ftr__to_float(from[second]);
        to[first] = ftr__from_float<T>(a * turn.x - b * turn.y);
        to[second] = ftr__from_float<T>(b * turn.x + a * turn.y);
    }
}

static ftr__rotary ftr__rotary_of(const ftr_kernel_call *call) {
    const ftr_shape *x = &call->in[0].shape;
    ftr__rotary p = {};
    p.t = x->dim[1];
    p.heads = x->dim[2];
    p.d = x->dim[3];
    p.half = call->attr->rotary.dims / 2;
    p.first = call->attr->rotary.first;
    p.base = call->attr->rotary.base;
    p.interleaved = call->attr->rotary.interleaved;
    p.inverse = call->attr->rotary.inverse;
    p.turn = static_cast<float2 *>(call->workspace);
    return p;
}

FTR__CUDA_LIB size_t ftr__cuda_rotary_workspace(const ftr_kernel_call *call) {
    const ftr__rotary p = ftr__rotary_of(call);
    return static_cast<size_t>(p.t * p.half) * sizeof(float2);
}

FTR__CUDA_LIB ftr_status ftr__cuda_rotary(const ftr_kernel_call *call) {
    const ftr__rotary p = ftr__rotary_of(call);
    if (call->out[0].count == 0) return FTR_OK;
    const ftr_status status = FTR_LAUNCH(call, ftr__rotary_table, ftr__cuda_blocks(p.t * p.half), FTR__CUDA_THREADS, p);
    if (status != FTR_OK) return status;
    const int64_t count = call->out[0].count / p.d * (p.d - p.half);
    return ftr__for_real(call, call->out[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        return FTR_LAUNCH(call, (ftr__rotary_turn<T>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count,
                          static_cast<const T *>(call->in[0].data), static_cast<T *>(call->out[0].data));
    });
}
