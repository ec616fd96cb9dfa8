/* Lines of a tensor along an axis. Where the axis is the last one a line is a row, which a group of threads works on; otherwise
 * a thread has a line and neighbours read neighbouring elements. */
#ifndef FTR_BACKEND_CUDA_ROWS_CUH
#define FTR_BACKEND_CUDA_ROWS_CUH

#include "backend/cuda/cuda.cuh"

/* outer x n x inner elements: a line has n of them, `inner` apart. */
struct ftr__lines {
    int64_t outer, n, inner;
};

static inline ftr__lines ftr__lines_of(const ftr_shape *shape, int32_t axis) {
    ftr__lines lines = {1, shape->rank > 0 ? shape->dim[axis] : 1, 1};
    for (int32_t d = 0; d < axis; d++) lines.outer *= shape->dim[d];
    for (int32_t d = axis + 1; d < shape->rank; d++) lines.inner *= shape->dim[d];
    return lines;
}

/* Line i's first element. */
static __device__ __forceinline__ int64_t ftr__line_begin(const ftr__lines &lines, int64_t i) {
    const int64_t outer = i / lines.inner;
    return outer * lines.n * lines.inner + (i - outer * lines.inner);
}

/* A row of type T in the hands of G threads, 8 or 32 of a warp, or a whole block. It is read in tiles, of which a thread holds K
 * times 16 bytes as f32; a row that fits into one tile is read once. Which thread has which elements, and so the order of sums,
 * depends on the row's size alone. */
template <typename Element, int G, int K> struct ftr__row {
    using T = Element;
    static constexpr int pack = 16 / (int)sizeof(T), size = K * pack, tile = G * size, a_block = FTR__CUDA_THREADS / G;

    /* Place in the row of the thread's value i of the tile that begins at `first`. */
    static __device__ __forceinline__ int64_t place(int64_t first, int i) {
        return first + ((int64_t)(i / pack) * G + threadIdx.x % G) * pack + i % pack;
    }

    /* `packed`: rows begin at multiples of 16 bytes. Values behind the row are `none`. */
    static __device__ __forceinline__ void load(float *x, const T *row, int64_t first, int64_t n, bool packed, float none) {
        FTR__UNROLL
        for (int k = 0; k < K; k++) {
            const int64_t at = place(first, k * pack);
            if (packed && at < n) {
                const ftr__pack<T> p = *reinterpret_cast<const ftr__pack<T> *>(row + at);
                FTR__UNROLL
                for (int w = 0; w < pack; w++) x[k * pack + w] = ftr__to_float(p.of[w]);
            } else {
                FTR__UNROLL
                for (int w = 0; w < pack; w++) x[k * pack + w] = at + w < n ? ftr__to_float(row[at + w]) : none;
            }
        }
    }

    static __device__ __forceinline__ void store(const float *x, T *row, int64_t first, int64_t n, bool packed) {
        FTR__UNROLL
        for (int k = 0; k < K; k++) {
            const int64_t at = place(first, k * pack);
            if (packed && at < n) {
                ftr__pack<T> p;
                FTR__UNROLL
                for (int w = 0; w < pack; w++) p.of[w] = ftr__from_float<T>(x[k * pack + w]);
                *reinterpret_cast<ftr__pack<T> *>(row + at) = p;
            } else {
                FTR__UNROLL
                for (int w = 0; w < pack; w++)
                    if (at + w < n) row[at + w] = ftr__from_float<T>(x[k * pack + w]);
            }
        }
    }

    /* Over the group; all threads of the block call them. `room`: shared memory of 32 floats. */
    static __device__ __forceinline__ float sum(float x, float *room) {
        if constexpr (G > FTR__CUDA_WARP) {
            x = ftr__block_sum(x, room);
        } else {
            (void)room;
            for (int bits = G / 2; bits > 0; bits /= 2) x += __shfl_xor_sync(FTR__CUDA_FULL, x, bits);
        }
        return x;
    }

    static __device__ __forceinline__ float maximum(float x, float *room) {
        if constexpr (G > FTR__CUDA_WARP) {
            x = ftr__block_maximum(x, room);
        } else {
            (void)room;
            for (int bits = G / 2; bits > 0; bits /= 2) x = ftr__maximum(x, __shfl_xor_sync(FTR__CUDA_FULL, x, bits));
        }
        return x;
    }
};

/* Calls f with the kind of row that suits n elements of type T. */
template <typename T, typename F> static ftr_status ftr__for_row(int64_t n, F f) {
    constexpr int pack = 16 / (int)sizeof(T);
    if (n <= 8 * pack) return f(ftr__row<T, 8, 1>());
    if (n <= 32 * pack) return f(ftr__row<T, 32, 1>());
    if (n <= 128 * pack) return f(ftr__row<T, 32, 4>());
    if (n <= 256 * pack) return f(ftr__row<T, FTR__CUDA_THREADS, 1>());
    return f(ftr__row<T, FTR__CUDA_THREADS, 4>());
}

template <typename T> static inline bool ftr__rows_are_packed(int64_t n, const void *a, const void *b) {
    return n * (int64_t)sizeof(T) % 16 == 0 && reinterpret_cast<uintptr_t>(a) % 16 == 0 &&
           reinterpret_cast<uintptr_t>(b) % 16 == 0;
}

/* ------------------------------------------------------------------------------------------------ sums of exponentials -- */

/* The largest element, and the sum of e^(x - largest). With an infinite largest element the sum is NaN. */
struct ftr__exp_sum {
    float most, sum;
};

static __device__ __forceinline__ ftr__exp_sum ftr__exp_sum_none() { return {-INFINITY, 0.0f}; }

/* The sum for a larger largest element. -inf: nothing was added yet. */
static __device__ __forceinline__ float ftr__exp_sum_scaled(ftr__exp_sum s, float most) {
    return s.most == most ? s.sum : s.sum * expf(s.most - most);
}

static __device__ __forceinline__ float ftr__exp_term(float x, float most) {
    return x == -INFINITY ? 0.0f : expf(x - most);
}

static __device__ __forceinline__ void ftr__exp_sum_add(ftr__exp_sum &s, float x) {
    const float most = ftr__maximum(s.most, x);
    s.sum = ftr__exp_sum_scaled(s, most) + ftr__exp_term(x, most);
    s.most = most;
}

static __device__ __forceinline__ ftr__exp_sum ftr__exp_sum_end(ftr__exp_sum s) {
    if (fabsf(s.most) == INFINITY) s.sum = NAN;
    return s;
}

/* Of a row; x holds its last tile then. */
template <typename R>
static __device__ __forceinline__ ftr__exp_sum ftr__row_exp_sum(float *x, const typename R::T *row, int64_t n, bool packed,
                                                                float *room) {
    ftr__exp_sum s = ftr__exp_sum_none();
    for (int64_t first = 0; first < n; first += R::tile) {
        R::load(x, row, first, n, packed, -INFINITY);
        float most = s.most, part = 0.0f;
        FTR__UNROLL
        for (int i = 0; i < R::size; i++) most = ftr__maximum(most, x[i]);
        FTR__UNROLL
        for (int i = 0; i < R::size; i++) part += ftr__exp_term(x[i], most);
        s.sum = ftr__exp_sum_scaled(s, most) + part;
        s.most = most;
    }
    const float most = R::maximum(s.most, room);
    return ftr__exp_sum_end({most, R::sum(ftr__exp_sum_scaled(s, most), room)});
}

/* Of a line whose elements are `stride` apart. */
template <typename T>
static __device__ __forceinline__ ftr__exp_sum ftr__line_exp_sum(const T *line, int64_t n, int64_t stride) {
    ftr__exp_sum s = ftr__exp_sum_none();
    FTR__NO_UNROLL
    for (int64_t r = 0; r < n; r++) ftr__exp_sum_add(s, ftr__to_float(line[r * stride]));
    return ftr__exp_sum_end(s);
}

#endif
