/* Pooling over [n, h, w, c]: a thread has a vector of channels of one pixel of the result. The gradients gather: each input
 * pixel looks up the windows that cover it. */
#include "backend/cuda/vector.cuh"

struct ftr__pool2d {
    int64_t images, channels;
    int64_t in[2], out[2];                    /* height, width of the forward input and output */
    int64_t kernel[2], stride[2], padding[2]; /* padding: top, left. Stride 0: adaptive windows */
    bool exclude_padding;
};

/* A range, begin to end, end not included. */
struct ftr__pool_range {
    int64_t begin, end;
};

static __device__ __forceinline__ ftr__pool_range ftr__adaptive_window(int64_t at, int64_t size, int64_t windows) {
    return {at * size / windows, ((at + 1) * size + windows - 1) / windows};
}

/* The input positions of the window of output `at` along dimension d. */
static __device__ __forceinline__ ftr__pool_range ftr__pool_window(const ftr__pool2d &p, int d, int64_t at) {
    if (p.stride[d] == 0) return ftr__adaptive_window(at, p.in[d], p.out[d]);
    const int64_t begin = at * p.stride[d] - p.padding[d], end = begin + p.kernel[d];
    return {begin > 0 ? begin : 0, end < p.in[d] ? end : p.in[d]};
}

/* The output positions whose windows cover input `at`. Of adaptive windows, these are the windows over the output. */
static __device__ __forceinline__ ftr__pool_range ftr__pool_covering(const ftr__pool2d &p, int d, int64_t at) {
    if (p.stride[d] == 0) return ftr__adaptive_window(at, p.out[d], p.in[d]);
    const int64_t last = (at + p.padding[d]) / p.stride[d], before = at + p.padding[d] - p.kernel[d];
    const int64_t first = before >= 0 ? before / p.stride[d] + 1 : 0;
    return {first, last + 1 < p.out[d] ? last + 1 : p.out[d]};
}

/* What the mean over a window is divided by. */
static __device__ __forceinline__ float ftr__pool_divisor(const ftr__pool2d &p, ftr__pool_range h, ftr__pool_range w) {
    if (p.stride[0] != 0 && !p.exclude_padding) return static_cast<float>(p.kernel[0] * p.kernel[1]);
    const int64_t area = (h.end - h.begin) * (w.end - w.begin);
    return static_cast<float>(area > 0 ? area : 1);
}

/* Vector i of [images, height, width, channels]. */
struct ftr__pool_place {
    int64_t image, row, column, channel;
};

template <int V>
static __device__ __forceinline__ ftr__pool_place ftr__pool_place_of(const ftr__pool2d &p, const int64_t (&size)[2],
                                                                     int64_t i) {
    const int64_t packs = p.channels / V, pixel = i / packs, line = pixel / size[1];
    ftr__pool_place at;
    at.channel = (i - pixel * packs) * V;
    at.column = pixel - line * size[1];
    at.image = line / size[0];
    at.row = line - at.image * size[0];
    return at;
}

/* ---------------------------------------------------------------------------------------------------------- forward -- */

/* The first maximum wins, NaN is the largest. */
template <typename T, int V>
FTR__ROOMY_KERNEL ftr__max_pool2d(ftr__pool2d p, int64_t count, const T *x, T *y, int32_t *index) {
    FTR__GRID_LOOP(i, count) {
        const ftr__pool_place at = ftr__pool_place_of<V>(p, p.out, i);
        const ftr__pool_range h = ftr__pool_window(p, 0, at.row), w = ftr__pool_window(p, 1, at.column);
        const T *image = x + at.image * p.in[0] * p.in[1] * p.channels + at.channel;
        const int32_t first = static_cast<int32_t>(h.begin * p.in[1] + w.begin);
        float best[V];
        ftr__vector<int32_t, V> where;
        FTR__UNROLL
        for (int k = 0; k < V; k++) {
            best[k] = -INFINITY;
            where.of[k] = first;
        }
        for (int64_t r = h.begin; r < h.end; r++)
            for (int64_t c = w.begin; c < w.end; c++) {
                const int64_t pixel = r * p.in[1] + c;
                float v[V];
                ftr__load_vector<T, V>(image + pixel * p.channels, v);
                FTR__UNROLL
                for (int k = 0; k < V; k++) {
                    if (!(v[k] > best[k]) && !(v[k] != v[k] && best[k] == best[k])) continue;
                    best[k] = v[k];
                    where.of[k] = static_cast<int32_t>(pixel);
                }
            }
        ftr__store_vector<T, V>(y + i * V, best);
        *reinterpret_cast<ftr__vector<int32_t, V> *>(index + i * V) = where;
    }
}

template <typename T, int V> FTR__ROOMY_KERNEL ftr__mean_pool2d(ftr__pool2d p, int64_t count, const T *x, T *y) {
    FTR__GRID_LOOP(i, count) {
        const ftr__pool_place at = ftr__pool_place_of<V>(p, p.out, i);
        const ftr__pool_range h = ftr__pool_window(p, 0, at.row), w = ftr__pool_window(p, 1, at.column);
        const T *image = x + at.image * p.in[0] * p.in[1] * p.channels + at.channel;
        float sum[V] = {};
        for (int64_t r = h.begin; r < h.end; r++)
            for (int64_t c = w.begin; c < w.end; c++) {
                float v[V];
                ftr__load_vector<T, V>(image + (r * p.in[1] + c) * p.channels, v);
                FTR__UNROLL
                for (int k = 0; k < V; k++) sum[k] += v[k];
            }
        const float divisor = ftr__pool_divisor(p, h, w);
        FTR__UNROLL
        for (int k = 0; k < V; k++) sum[k] /= divisor;
        ftr__store_vector<T, V>(y + i * V, sum);
    }
}

/* The mean of large windows that are few, such as whole images: a block has a vector for each of `lanes` threads, the others
 * go over the pixels side by side. */
template <typename T, int V>
FTR__KERNEL ftr__mean_pool2d_wide(ftr__pool2d p, int lanes, int64_t tiles, int64_t tasks, const T *x, T *y) {
    FTR_SHARED(float, sums, V *FTR__CUDA_THREADS);
    const int me = (int)threadIdx.x, lane = me & (lanes - 1), line = me / lanes, lines = FTR__CUDA_THREADS / lanes;
    for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
        const int64_t pixel = task / tiles, channel = (task % tiles * lanes + lane) * V;
        const int64_t row = pixel / p.out[1], image = row / p.out[0];
        const ftr__pool_range h = ftr__pool_window(p, 0, row % p.out[0]), w = ftr__pool_window(p, 1, pixel % p.out[1]);
        const T *from = x + image * p.in[0] * p.in[1] * p.channels + channel;
        const int64_t columns = w.end - w.begin, area = (h.end - h.begin) * columns;
        float sum[V] = {};
        for (int64_t i = line; i < area && channel < p.channels; i += lines) {
            float v[V];
            ftr__load_vector<T, V>(from + ((h.begin + i / columns) * p.in[1] + w.begin + i % columns) * p.channels, v);
            FTR__UNROLL
            for (int k = 0; k < V; k++) sum[k] += v[k];
        }
        FTR__UNROLL
        for (int k = 0; k < V; k++) sums[k * FTR__CUDA_THREADS + me] = sum[k];
        for (int step = lines / 2; step > 0; step /= 2) {
            __syncthreads();
            if (line >= step) continue;
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                const int o = k * FTR__CUDA_THREADS + me;
                sums[o] = sum[k] += sums[o + step * lanes];
            }
        }
        if (line == 0 && channel < p.channels) {
            const float divisor = ftr__pool_divisor(p, h, w);
            FTR__UNROLL
            for (int k = 0; k < V; k++) sum[k] /= divisor;
            ftr__store_vector<T, V>(y + pixel * p.channels + channel, sum);
        }
        __syncthreads();
    }
}

/* --------------------------------------------------------------------------------------------------------- gradient -- */

template <typename T, int V>
FTR__ROOMY_KERNEL ftr__max_pool2d_grad(ftr__pool2d p, int64_t count, const T *dy, const int32_t *index, T *dx) {
    FTR__GRID_LOOP(i, count) {
        const ftr__pool_place at = ftr__pool_place_of<V>(p, p.in, i);
        const ftr__pool_range h = ftr__pool_covering(p, 0, at.row), w = ftr__pool_covering(p, 1, at.column);
        const int32_t pixel = static_cast<int32_t>(at.row * p.in[1] + at.column);
        float sum[V] = {};
        for (int64_t r = h.begin; r < h.end; r++)
            for (int64_t c = w.begin; c < w.end; c++) {
                const int64_t from = ((at.image * p.out[0] + r) * p.out[1] + c) * p.channels + at.channel;
                const ftr__vector<int32_t, V> where = *reinterpret_cast<const ftr__vector<int32_t, V> *>(index + from);
                float d[V];
                ftr__load_vector<T, V>(dy + from, d);
                FTR__UNROLL
                for (int k = 0; k < V; k++) sum[k] += where.of[k] == pixel ? d[k] : 0.0f;
            }
        ftr__store_vector<T, V>(dx + i * V, sum);
    }
}

template <typename T, int V> FTR__ROOMY_KERNEL ftr__mean_pool2d_grad(ftr__pool2d p, int64_t count, const T *dy, T *dx) {
    FTR__GRID_LOOP(i, count) {
        const ftr__pool_place at = ftr__pool_place_of<V>(p, p.in, i);
        const ftr__pool_range h = ftr__pool_covering(p, 0, at.row), w = ftr__pool_covering(p, 1, at.column);
        float sum[V] = {};
        for (int64_t r = h.begin; r < h.end; r++)
            for (int64_t c = w.begin; c < w.end; c++) {
                const int64_t from = ((at.image * p.out[0] + r) * p.out[1] + c) * p.channels + at.channel;
                const float divisor = ftr__pool_divisor(p, ftr__pool_window(p, 0, r), ftr__pool_window(p, 1, c));
                const float factor = 1.0f / divisor;
                float d[V];
                ftr__load_vector<T, V>(dy + from, d);
                FTR__UNROLL
                for (int k = 0; k < V; k++) sum[k] = fmaf(factor, d[k], sum[k]);
            }
        ftr__store_vector<T, V>(dx + i * V, sum);
    }
}

/* ---------------------------------------------------------------------------------------------------------- running -- */

/* `output`: the shape of the forward output. */
static ftr__pool2d ftr__pool2d_of(const ftr_kernel_call *call, const ftr_shape *output, bool adaptive) {
    ftr__pool2d p = {};
    p.images = output->dim[0];
    p.channels = output->dim[3];
    for (int d = 0; d < 2; d++) {
        p.in[d] = adaptive ? call->attr->adaptive.input[d] : call->attr->pool.input[d];
        p.out[d] = output->dim[1 + d];
        if (adaptive) continue;
        p.kernel[d] = call->attr->pool.kernel[d];
        p.stride[d] = call->attr->pool.stride[d];
        p.padding[d] = call->attr->pool.padding[2 * d];
    }
    p.exclude_padding = !adaptive && call->attr->pool.exclude_padding;
    return p;
}

FTR__CUDA_LIB ftr_status ftr__cuda_max_pool2d(const ftr_kernel_call *call) {
    const ftr__pool2d p = ftr__pool2d_of(call, &call->out[0].shape, false);
    return ftr__for_channels(call, &call->in[0], [&](auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const int64_t count = call->out[0].count / V;
        return FTR_LAUNCH(call, (ftr__max_pool2d<T, V>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count,
                          static_cast<const T *>(call->in[0].data), static_cast<T *>(call->out[0].data),
                          static_cast<int32_t *>(call->out[1].data));
    });
}

#define FTR__POOL_WIDE 32 /* pixels of a window from which more than one thread sums them */

static ftr_status ftr__mean_pool2d_run(const ftr_kernel_call *call, bool adaptive) {
    const ftr__pool2d p = ftr__pool2d_of(call, &call->out[0].shape, adaptive);
    return ftr__for_channels(call, &call->in[0], [&](auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const T *x = static_cast<const T *>(call->in[0].data);
        T *y = static_cast<T *>(call->out[0].data);
        const int64_t count = call->out[0].count / V, windows = p.out[0] * p.out[1];
        const int64_t area = adaptive && windows > 0 ? p.in[0] * p.in[1] / windows : p.kernel[0] * p.kernel[1];
        if (count == 0) return FTR_OK;
        if (area < FTR__POOL_WIDE)
            return FTR_LAUNCH(call, (ftr__mean_pool2d<T, V>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count, x,
                              y);
        int lanes = 1;
        while (lanes < p.channels / V && lanes < FTR__CUDA_WARP) lanes *= 2;
        const int64_t tiles = (p.channels / V + lanes - 1) / lanes, tasks = tiles * p.images * windows;
        return FTR_LAUNCH(call, (ftr__mean_pool2d_wide<T, V>), ftr__cuda_blocks(tasks, 1), FTR__CUDA_THREADS, p, lanes,
                          tiles, tasks, x, y);
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_avg_pool2d(const ftr_kernel_call *call) { return ftr__mean_pool2d_run(call, false); }

FTR__CUDA_LIB ftr_status ftr__cuda_adaptive_avg_pool2d(const ftr_kernel_call *call) {
    return ftr__mean_pool2d_run(call, true);
}

FTR__CUDA_LIB ftr_status ftr__cuda_max_pool2d_grad(const ftr_kernel_call *call) {
    const ftr__pool2d p = ftr__pool2d_of(call, &call->in[0].shape, false);
    return ftr__for_channels(call, &call->in[0], [&](auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const int64_t count = call->out[0].count / V;
        return FTR_LAUNCH(call, (ftr__max_pool2d_grad<T, V>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count,
                          static_cast<const T *>(call->in[0].data), static_cast<const int32_t *>(call->in[1].data),
                          static_cast<T *>(call->out[0].data));
    });
}

static ftr_status ftr__mean_pool2d_grad_run(const ftr_kernel_call *call, bool adaptive) {
    const ftr__pool2d p = ftr__pool2d_of(call, &call->in[0].shape, adaptive);
    return ftr__for_channels(call, &call->in[0], [&](auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const int64_t count = call->out[0].count / V;
        return FTR_LAUNCH(call, (ftr__mean_pool2d_grad<T, V>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count,
                          static_cast<const T *>(call->in[0].data), static_cast<T *>(call->out[0].data));
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_avg_pool2d_grad(const ftr_kernel_call *call) {
    return ftr__mean_pool2d_grad_run(call, false);
}

FTR__CUDA_LIB ftr_status ftr__cuda_adaptive_avg_pool2d_grad(const ftr_kernel_call *call) {
    return ftr__mean_pool2d_grad_run(call, true);
}
