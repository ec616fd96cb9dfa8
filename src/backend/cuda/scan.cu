/* Ops along an axis: cumulative sum, product, log-sum-exp, and their gradients. A block has a row if the axis is the last one;
 * otherwise a thread has a line. Sums and products are kept in double. */
#include "backend/cuda/rows.cuh"

/* Calls f with a value of the element type, also i32 or i64. */
template <typename F> static ftr_status ftr__for_number(const ftr_kernel_call *call, ftr_dtype dtype, F f) {
    if (dtype == FTR_I32) return f(int32_t());
    if (dtype == FTR_I64) return f(int64_t());
    return ftr__for_real(call, dtype, f);
}

/* What elements of type T are added and multiplied as: integers wrap. */
template <typename T> struct ftr__wide {
    using type = double;
    static __device__ __forceinline__ double from(T x) { return ftr__to_float(x); }
    static __device__ __forceinline__ T to(double x) { return ftr__from_float<T>(static_cast<float>(x)); }
};
template <> struct ftr__wide<int32_t> {
    using type = unsigned long long;
    static __device__ __forceinline__ type from(int32_t x) { return static_cast<type>(static_cast<int64_t>(x)); }
    static __device__ __forceinline__ int32_t to(type x) { return static_cast<int32_t>(static_cast<uint32_t>(x)); }
};
template <> struct ftr__wide<int64_t> {
    using type = unsigned long long;
    static __device__ __forceinline__ type from(int64_t x) { return static_cast<type>(x); }
    static __device__ __forceinline__ int64_t to(type x) { return static_cast<int64_t>(x); }
};

/* -------------------------------------------------------------------------------------------------- cumulative sum -- */

/* A block a row, of which it takes 256 elements at a time. y may be x. */
template <typename T> FTR__KERNEL ftr__cumsum_rows(const T *x, T *y, int64_t rows, int64_t n, bool reverse) {
    using W = ftr__wide<T>;
    using S = typename W::type;
    FTR_SHARED(S, of_warp, FTR__CUDA_THREADS / FTR__CUDA_WARP);
    const int warp = (int)threadIdx.x / FTR__CUDA_WARP, lane = (int)threadIdx.x % FTR__CUDA_WARP;
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        S before = 0;
        for (int64_t first = 0; first < n; first += FTR__CUDA_THREADS) {
            const int64_t r = first + threadIdx.x, at = row * n + (reverse ? n - 1 - r : r);
            S sum = r < n ? W::from(x[at]) : (S)0;
            for (int by = 1; by < FTR__CUDA_WARP; by *= 2) {
                const S left = __shfl_up_sync(FTR__CUDA_FULL, sum, by);
                if (lane >= by) sum += left;
            }
            if (lane == FTR__CUDA_WARP - 1) of_warp[warp] = sum;
            __syncthreads();
            S all = before;
            for (int w = 0; w < FTR__CUDA_THREADS / FTR__CUDA_WARP; w++) {
                if (w == warp) sum += all;
                all += of_warp[w];
            }
            before = all;
            if (r < n) y[at] = W::to(sum);
            __syncthreads();
        }
    }
}

template <typename T> FTR__KERNEL ftr__cumsum_columns(const T *x, T *y, ftr__lines lines, bool reverse) {
    using W = ftr__wide<T>;
    FTR__GRID_LOOP(i, lines.outer * lines.inner) {
        const int64_t begin = ftr__line_begin(lines, i);
        typename W::type sum = 0;
        for (int64_t r = 0; r < lines.n; r++) {
            const int64_t at = begin + (reverse ? lines.n - 1 - r : r) * lines.inner;
            sum += W::from(x[at]);
            y[at] = W::to(sum);
        }
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_cumsum(const ftr_kernel_call *call) {
    const ftr__lines lines = ftr__lines_of(&call->in[0].shape, call->attr->cumsum.axis);
    const bool reverse = call->attr->cumsum.reverse;
    if (call->out[0].count == 0) return FTR_OK;
    return ftr__for_number(call, call->in[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        const T *x = static_cast<const T *>(call->in[0].data);
        T *y = static_cast<T *>(call->out[0].data);
        if (lines.inner > 1)
            return FTR_LAUNCH(call, (ftr__cumsum_columns<T>), ftr__cuda_blocks(lines.outer * lines.inner), FTR__CUDA_THREADS, x,
                              y, lines, reverse);
        return FTR_LAUNCH(call, (ftr__cumsum_rows<T>), ftr__cuda_blocks(lines.outer, 1), FTR__CUDA_THREADS, x, y, lines.outer,
                          lines.n, reverse);
    });
}

/* --------------------------------------------------------------------------------------------------------- product -- */

/* Of a block, in a fixed order. `room`: shared memory of 32 elements. */
template <typename S> static __device__ __forceinline__ S ftr__block_product(S x, S *room) {
    const int warp = (int)threadIdx.x / FTR__CUDA_WARP, lane = (int)threadIdx.x % FTR__CUDA_WARP;
    for (int bits = 16; bits > 0; bits /= 2) x *= __shfl_xor_sync(FTR__CUDA_FULL, x, bits);
    if (lane == 0) room[warp] = x;
    __syncthreads();
    x = 1;
    for (int w = 0; w < FTR__CUDA_THREADS / FTR__CUDA_WARP; w++) x *= room[w];
    __syncthreads();
    return x;
}

template <typename T> FTR__KERNEL ftr__prod_rows(const T *x, T *y, int64_t rows, int64_t n) {
    using W = ftr__wide<T>;
    FTR_SHARED(typename W::type, room, 32);
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        typename W::type product = 1;
        for (int64_t r = threadIdx.x; r < n; r += blockDim.x) product *= W::from(x[row * n + r]);
        product = ftr__block_product(product, room);
        if (threadIdx.x == 0) y[row] = W::to(product);
    }
}

template <typename T> FTR__KERNEL ftr__prod_columns(const T *x, T *y, ftr__lines lines) {
    using W = ftr__wide<T>;
    FTR__GRID_LOOP(i, lines.outer * lines.inner) {
        const int64_t begin = ftr__line_begin(lines, i);
        typename W::type product = 1;
        for (int64_t r = 0; r < lines.n; r++) product *= W::from(x[begin + r * lines.inner]);
        y[i] = W::to(product);
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_prod(const ftr_kernel_call *call) {
    const ftr__lines lines = ftr__lines_of(&call->in[0].shape, call->attr->axis.axis);
    return ftr__for_number(call, call->in[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        const T *x = static_cast<const T *>(call->in[0].data);
        T *y = static_cast<T *>(call->out[0].data);
        if (lines.inner != 1)
            return FTR_LAUNCH(call, (ftr__prod_columns<T>), ftr__cuda_blocks(lines.outer * lines.inner), FTR__CUDA_THREADS, x, y,
                              lines);
        return FTR_LAUNCH(call, (ftr__prod_rows<T>), ftr__cuda_blocks(lines.outer, 1), FTR__CUDA_THREADS, x, y, lines.outer,
                          lines.n);
    });
}

/* The gradient of element x of a line: dy times the product of the others, of those that are not 0 the `product`. */
static __device__ __forceinline__ float ftr__prod_slope(float dy, float x, double product, int64_t zeros) {
    double others = 0.0;
    if (zeros == 0)
        others = product / (double)x;
    else if (zeros == 1 && x == 0.0f)
        others = product;
    return static_cast<float>((double)dy * others);
}

template <typename T> FTR__KERNEL ftr__prod_grad_rows(const T *dy, const T *x, T *dx, int64_t rows, int64_t n) {
    FTR_SHARED(double, room, 32);
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        double product = 1.0, zeros = 0.0;
        for (int64_t r = threadIdx.x; r < n; r += blockDim.x) {
            const float value = ftr__to_float(x[row * n + r]);
            product *= value == 0.0f ? 1.0 : (double)value;
            zeros += value == 0.0f ? 1.0 : 0.0;
        }
        product = ftr__block_product(product, room);
        zeros = ftr__block_sum(zeros, room);
        for (int64_t r = threadIdx.x; r < n; r += blockDim.x)
            dx[row * n + r] = ftr__from_float<T>(
                ftr__prod_slope(ftr__to_float(dy[row]), ftr__to_float(x[row * n + r]), product, (int64_t)zeros));
    }
}

template <typename T> FTR__KERNEL ftr__prod_grad_columns(const T *dy, const T *x, T *dx, ftr__lines lines) {
    FTR__GRID_LOOP(i, lines.outer * lines.inner) {
        const int64_t begin = ftr__line_begin(lines, i);
        double product = 1.0;
        int64_t zeros = 0;
        for (int64_t r = 0; r < lines.n; r++) {
            const float value = ftr__to_float(x[begin + r * lines.inner]);
            if (value == 0.0f)
                zeros++;
            else
                product *= (double)value;
        }
        for (int64_t r = 0; r < lines.n; r++) {
            const int64_t at = begin + r * lines.inner;
            dx[at] = ftr__from_float<T>(ftr__prod_slope(ftr__to_float(dy[i]), ftr__to_float(x[at]), product, zeros));
        }
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_prod_grad(const ftr_kernel_call *call) {
    const ftr__lines lines = ftr__lines_of(&call->in[1].shape, call->attr->axis.axis);
    if (call->out[0].count == 0) return FTR_OK;
    return ftr__for_real(call, call->in[1].dtype, [&](auto tag) {
        using T = decltype(tag);
        const T *dy = static_cast<const T *>(call->in[0].data), *x = static_cast<const T *>(call->in[1].data);
        T *dx = static_cast<T *>(call->out[0].data);
        if (lines.inner > 1)
            return FTR_LAUNCH(call, (ftr__prod_grad_columns<T>), ftr__cuda_blocks(lines.outer * lines.inner), FTR__CUDA_THREADS,
                              dy, x, dx, lines);
        return FTR_LAUNCH(call, (ftr__prod_grad_rows<T>), ftr__cuda_blocks(lines.outer, 1), FTR__CUDA_THREADS, dy, x, dx,
                          lines.outer, lines.n);
    });
}

/* ----------------------------------------------------------------------------------------------------- log-sum-exp -- */

/* An infinite largest element is the result. */
static __device__ __forceinline__ float ftr__logsumexp_of(ftr__exp_sum s) {
    return fabsf(s.most) == INFINITY ? s.most : s.most + logf(s.sum);
}

template <typename R> FTR__KERNEL ftr__logsumexp_rows(const typename R::T *x, typename R::T *y, int64_t rows, int64_t n, bool packed) {
    FTR_SHARED(float, room, 32);
    constexpr int threads = FTR__CUDA_THREADS / R::a_block;
    float v[R::size];
    for (int64_t base = (int64_t)blockIdx.x * R::a_block; base < rows; base += (int64_t)gridDim.x * R::a_block) {
        const int64_t row = base + threadIdx.x / threads;
        const ftr__exp_sum s = ftr__row_exp_sum<R>(v, x + row * n, row < rows ? n : 0, packed, room);
        if (row < rows && threadIdx.x % threads == 0) y[row] = ftr__from_float<typename R::T>(ftr__logsumexp_of(s));
    }
}

template <typename T> FTR__KERNEL ftr__logsumexp_columns(const T *x, T *y, ftr__lines lines) {
    FTR__GRID_LOOP(i, lines.outer * lines.inner)
    y[i] = ftr__from_float<T>(ftr__logsumexp_of(ftr__line_exp_sum(x + ftr__line_begin(lines, i), lines.n, lines.inner)));
}

FTR__CUDA_LIB ftr_status ftr__cuda_logsumexp(const ftr_kernel_call *call) {
    const ftr__lines lines = ftr__lines_of(&call->in[0].shape, call->attr->axis.axis);
    return ftr__for_real(call, call->in[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        const T *x = static_cast<const T *>(call->in[0].data);
        T *y = static_cast<T *>(call->out[0].data);
        if (lines.inner != 1)
            return FTR_LAUNCH(call, (ftr__logsumexp_columns<T>), ftr__cuda_blocks(lines.outer * lines.inner), FTR__CUDA_THREADS,
                              x, y, lines);
        return ftr__for_row<T>(lines.n, [&](auto kind) {
            using R = decltype(kind);
            return FTR_LAUNCH(call, (ftr__logsumexp_rows<R>), ftr__cuda_blocks(lines.outer, R::a_block), FTR__CUDA_THREADS, x, y,
                              lines.outer, lines.n, ftr__rows_are_packed<T>(lines.n, x, x));
        });
    });
}

/* dx = dy e^(x - most) / sum. Where the largest is inf, y is too: dy e^(x - y) is NaN for the infinite x, else 0. */
static __device__ __forceinline__ float ftr__logsumexp_scale(float dy, ftr__exp_sum s) {
    return s.most == INFINITY ? dy : dy / s.sum;
}

/* dx may lie over x. */
template <typename R>
FTR__KERNEL ftr__logsumexp_grad_rows(const typename R::T *dy, const typename R::T *x, typename R::T *dx, int64_t rows, int64_t n,
                                     bool packed) {
    FTR_SHARED(float, room, 32);
    float v[R::size];
    for (int64_t base = (int64_t)blockIdx.x * R::a_block; base < rows; base += (int64_t)gridDim.x * R::a_block) {
        const int64_t row = base + threadIdx.x / (FTR__CUDA_THREADS / R::a_block), count = row < rows ? n : 0;
        const ftr__exp_sum s = ftr__row_exp_sum<R>(v, x + row * n, count, packed, room);
        const float scale = count > 0 ? ftr__logsumexp_scale(ftr__to_float(dy[row]), s) : 0.0f;
        for (int64_t first = 0; first < count; first += R::tile) {
            if (n > R::tile) R::load(v, x + row * n, first, count, packed, -INFINITY);
            FTR__UNROLL
            for (int i = 0; i < R::size; i++) v[i] = expf(v[i] - s.most) * scale;
            R::store(v, dx + row * n, first, count, packed);
        }
    }
}

template <typename T> FTR__KERNEL ftr__logsumexp_grad_columns(const T *dy, const T *x, T *dx, ftr__lines lines) {
    FTR__GRID_LOOP(i, lines.outer * lines.inner) {
        const int64_t begin = ftr__line_begin(lines, i);
        const ftr__exp_sum s = ftr__line_exp_sum(x + begin, lines.n, lines.inner);
        const float scale = ftr__logsumexp_scale(ftr__to_float(dy[i]), s);
        FTR__NO_UNROLL
        for (int64_t r = 0; r < lines.n; r++) {
            const int64_t at = begin + r * lines.inner;
            dx[at] = ftr__from_float<T>(expf(ftr__to_float(x[at]) - s.most) * scale);
        }
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_logsumexp_grad(const ftr_kernel_call *call) {
    const ftr__lines lines = ftr__lines_of(&call->in[1].shape, call->attr->axis.axis);
    if (call->out[0].count == 0) return FTR_OK;
    return ftr__for_real(call, call->in[1].dtype, [&](auto tag) {
        using T = decltype(tag);
        const T *dy = static_cast<const T *>(call->in[0].data), *x = static_cast<const T *>(call->in[1].data);
        T *dx = static_cast<T *>(call->out[0].data);
        if (lines.inner > 1)
            return FTR_LAUNCH(call, (ftr__logsumexp_grad_columns<T>), ftr__cuda_blocks(lines.outer * lines.inner),
                              FTR__CUDA_THREADS, dy, x, dx, lines);
        return ftr__for_row<T>(lines.n, [&](auto kind) {
            using R = decltype(kind);
            return FTR_LAUNCH(call, (ftr__logsumexp_grad_rows<R>), ftr__cuda_blocks(lines.outer, R::a_block), FTR__CUDA_THREADS,
                              dy, x, dx, lines.outer, lines.n, ftr__rows_are_packed<T>(lines.n, x, dx));
        });
    });
}
