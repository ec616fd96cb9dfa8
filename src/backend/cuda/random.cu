/* Dropout, stochastic depth, random tensors. An element's or a row's fate depends on its index and the stream alone. */
#include "backend/cuda/random.cuh"
#include "backend/cuda/vector.cuh"

#include <math.h>

#define FTR__RANDOM_BLOCK 4 /* elements of a Philox block */

/* A thread has the elements of a Philox block at a time: as a vector (V is that), or one by one (V is 1). y may be x. */
template <typename T, int V>
FTR__KERNEL ftr__dropout(ftr__cuda_stream_name name, ftr__cuda_dropout_rule rule, int64_t count, const T *x, T *y) {
    const ftr__cuda_rng rng = ftr__cuda_rng_of(name);
    FTR__GRID_LOOP(i, (count + FTR__RANDOM_BLOCK - 1) / FTR__RANDOM_BLOCK) {
        const ftr__philox_block numbers = ftr__cuda_rng_block(rng, (uint64_t)i);
        const int64_t at = i * FTR__RANDOM_BLOCK;
        if (V > 1 && at + V <= count) {
            float v[V];
            ftr__load_vector<T, V>(x + at, v);
            FTR__UNROLL
            for (int k = 0; k < V; k++) v[k] = numbers.of[k] < rule.threshold ? 0.0f : v[k] * rule.scale;
            ftr__store_vector<T, V>(y + at, v);
            continue;
        }
        FTR__UNROLL
        for (int k = 0; k < FTR__RANDOM_BLOCK; k++)
            if (at + k < count)
                y[at + k] =
                    ftr__from_float<T>(numbers.of[k] < rule.threshold ? 0.0f : ftr__to_float(x[at + k]) * rule.scale);
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_dropout(const ftr_kernel_call *call) {
    const ftr__cuda_stream_name name = ftr__cuda_stream_of(call, FTR__CUDA_RNG_DROPOUT, call->attr->dropout.key);
    const ftr__cuda_dropout_rule rule = ftr__cuda_dropout_rule_of(call->attr->dropout.p);
    const int64_t count = call->out[0].count;
    const unsigned blocks = ftr__cuda_blocks((count + FTR__RANDOM_BLOCK - 1) / FTR__RANDOM_BLOCK);
    return ftr__for_real(call, call->out[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        const T *x = static_cast<const T *>(call->in[0].data);
        T *y = static_cast<T *>(call->out[0].data);
        if (ftr__all_aligned(call))
            return FTR_LAUNCH(call, (ftr__dropout<T, FTR__RANDOM_BLOCK>), blocks, FTR__CUDA_THREADS, name, rule, count,
                              x, y);
        return FTR_LAUNCH(call, (ftr__dropout<T, 1>), blocks, FTR__CUDA_THREADS, name, rule, count, x, y);
    });
}

/* V elements are of one row. y may be x. */
template <typename T, int V>
FTR__KERNEL ftr__stochastic_depth(ftr__cuda_stream_name name, ftr__cuda_dropout_rule rule, int64_t packs, int64_t a_row,
                                  const T *x, T *y) {
    const ftr__cuda_rng rng = ftr__cuda_rng_of(name);
    FTR__GRID_LOOP(i, packs) {
        const bool dropped = ftr__cuda_rng_at(rng, (uint64_t)(i / a_row)) < rule.threshold;
        float v[V] = {};
        if (!dropped) ftr__load_vector<T, V>(x + i * V, v);
        FTR__UNROLL
        for (int k = 0; k < V; k++) v[k] = dropped ? 0.0f : v[k] * rule.scale;
        ftr__store_vector<T, V>(y + i * V, v);
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_stochastic_depth(const ftr_kernel_call *call) {
    const ftr__cuda_stream_name name = ftr__cuda_stream_of(call, FTR__CUDA_RNG_DROPOUT, call->attr->dropout.key);
    const ftr__cuda_dropout_rule rule = ftr__cuda_dropout_rule_of(call->attr->dropout.p);
    const int64_t count = call->out[0].count;
    if (count == 0) return FTR_OK;
    const int64_t row = count / call->out[0].shape.dim[0];
    return ftr__for_real(call, call->out[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        constexpr int width = ftr__vector_width<T>();
        const T *x = static_cast<const T *>(call->in[0].data);
        T *y = static_cast<T *>(call->out[0].data);
        if (row % width == 0 && ftr__all_aligned(call))
            return FTR_LAUNCH(call, (ftr__stochastic_depth<T, width>), ftr__cuda_blocks(count / width),
                              FTR__CUDA_THREADS, name, rule, count / width, row / width, x, y);
        return FTR_LAUNCH(call, (ftr__stochastic_depth<T, 1>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, name, rule,
                          count, row, x, y);
    });
}

/* --------------------------------------------------------------------------------------------------- random tensors -- */

/* The rules are in core/rng.h. uniform: a + b u, at most `most`; normal: a + b z. */
FTR__KERNEL ftr__random_tensor(ftr__cuda_stream_name name, bool uniform, float a, float b, float most, int64_t count,
                               float *out) {
    const ftr__cuda_rng rng = ftr__cuda_rng_of(name);
    FTR__GRID_LOOP(i, (count + FTR__RANDOM_BLOCK - 1) / FTR__RANDOM_BLOCK) {
        const ftr__philox_block numbers = ftr__cuda_rng_block(rng, (uint64_t)i);
        float made[FTR__RANDOM_BLOCK];
        if (uniform) {
            FTR__UNROLL
            for (int k = 0; k < FTR__RANDOM_BLOCK; k++)
                made[k] = fminf(__fmaf_rn(b, ftr__cuda_rng_unit(numbers.of[k]), a), most);
        } else {
            FTR__UNROLL
            for (int k = 0; k < FTR__RANDOM_BLOCK; k += 2) {
                const float radius = b * sqrtf(-2.0f * logf(1.0f - ftr__cuda_rng_unit(numbers.of[k])));
                float sine, cosine;
                sincospif(2.0f * ftr__cuda_rng_unit(numbers.of[k + 1]), &sine, &cosine);
                made[k] = __fmaf_rn(radius, cosine, a);
                made[k + 1] = __fmaf_rn(radius, sine, a);
            }
        }
        const int64_t at = i * FTR__RANDOM_BLOCK;
        FTR__UNROLL
        for (int k = 0; k < FTR__RANDOM_BLOCK; k++)
            if (at + k < count) out[at + k] = made[k];
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_random(const ftr_kernel_call *call) {
    const float a = call->attr->random.a, b = call->attr->random.b;
    const bool uniform = call->op == FTR_OP_random_uniform;
    const float most = uniform && a < b ? nextafterf(b, a) : b;
    const int64_t count = call->out[0].count;
    return FTR_LAUNCH(call, ftr__random_tensor, ftr__cuda_blocks((count + FTR__RANDOM_BLOCK - 1) / FTR__RANDOM_BLOCK),
                      FTR__CUDA_THREADS, ftr__cuda_stream_of(call, FTR__CUDA_RNG_TENSOR, call->attr->random.key),
                      uniform, a, uniform ? b - a : b, most, count, static_cast<float *>(call->out[0].data));
}
