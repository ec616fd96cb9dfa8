/* Resizing of [n, h, w, c]: a thread has a vector of channels of one pixel of the result. Where each row and column comes from is
 * worked out first, in the workspace. The gradient gathers: each input pixel looks up the output pixels that it went into. */
#include "backend/cuda/vector.cuh"

/* Height or width: output i is (1 - share[i]) times input low[i] plus share[i] times input high[i]. low does not decrease;
 * first[k] is the first output whose low is k or more, up to k = in. */
struct ftr__resize_axis {
    int64_t in, out;
    int64_t *low, *high, *first;
    float *share;
};

struct ftr__resize2d {
    ftr__resize_axis axis[2]; /* height, width */
    int64_t channels;
    bool nearest, align_corners;
};

/* ----------------------------------------------------------------------------------------------- source of a row -- */

/* PyTorch's rules; of the nearest pixel with product and quotient in f32. */
static __device__ __forceinline__ double ftr__resize_position(const ftr__resize2d &p, int64_t at, int64_t in,
                                                              int64_t out) {
    if (p.nearest) return (double)floorf(__fmul_rn((float)at, (float)in / (float)out));
    if (p.align_corners) return out > 1 ? (double)(at * (in - 1)) / (double)(out - 1) : 0.0;
    const double position = __dadd_rn(__dmul_rn((double)at + 0.5, (double)in / (double)out), -0.5);
    return position > 0.0 ? position : 0.0;
}

static __device__ __forceinline__ int64_t ftr__resize_low(const ftr__resize2d &p, int64_t at, int64_t in, int64_t out) {
    const int64_t low = (int64_t)ftr__resize_position(p, at, in, out);
    return low < in ? low : in - 1;
}

/* Element i of an axis' tables: low, high and share of an output, then first of an input. */
static __device__ __forceinline__ void ftr__resize_fill(const ftr__resize2d &p, const ftr__resize_axis &axis,
                                                        int64_t i) {
    if (i < axis.out) {
        const int64_t low = ftr__resize_low(p, i, axis.in, axis.out);
        const int64_t high = low + 1 < axis.in && !p.nearest ? low + 1 : low;
        axis.low[i] = low;
        axis.high[i] = high;
        axis.share[i] =
            high > low ? static_cast<float>(ftr__resize_position(p, i, axis.in, axis.out) - (double)low) : 0.0f;
        return;
    }
    const int64_t k = i - axis.out;
    int64_t begin = 0, end = axis.out;
    while (begin < end) {
        const int64_t middle = begin + (end - begin) / 2;
        if (ftr__resize_low(p, middle, axis.in, axis.out) < k)
            begin = middle + 1;
        else
            end = middle;
    }
    axis.first[k] = begin;
}

FTR__KERNEL ftr__resize_tables(ftr__resize2d p) {
    const int64_t rows = p.axis[0].out + p.axis[0].in + 1, columns = p.axis[1].out + p.axis[1].in + 1;
    FTR__GRID_LOOP(i, rows + columns) {
        if (i < rows)
            ftr__resize_fill(p, p.axis[0], i);
        else
            ftr__resize_fill(p, p.axis[1], i - rows);
    }
}

/* What output i takes of input k. */
static __device__ __forceinline__ float ftr__resize_weight(const ftr__resize_axis &axis, int64_t i, int64_t k) {
    return (axis.low[i] == k ? 1.0f - axis.share[i] : 0.0f) + (axis.high[i] == k ? axis.share[i] : 0.0f);
}

/* ---------------------------------------------------------------------------------------------------------- kernels -- */

template <typename T, int V> FTR__KERNEL ftr__resize_forward(ftr__resize2d p, int64_t count, const T *x, T *y) {
    const ftr__resize_axis &h = p.axis[0], &w = p.axis[1];
    const int64_t packs = p.channels / V;
    FTR__GRID_LOOP(i, count) {
        const int64_t pixel = i / packs, row = pixel / w.out, column = pixel - row * w.out, image = row / h.out;
        const int64_t oh = row - image * h.out;
        const T *from = x + image * h.in * w.in * p.channels + (i - pixel * packs) * V;
        const int64_t top = h.low[oh] * w.in, left = w.low[column];
        float v[V];
        ftr__load_vector<T, V>(from + (top + left) * p.channels, v);
        if (!p.nearest) {
            const int64_t bottom = h.high[oh] * w.in, right = w.high[column];
            const float down = h.share[oh], across = w.share[column];
            float b[V], c[V], d[V];
            ftr__load_vector<T, V>(from + (top + right) * p.channels, b);
            ftr__load_vector<T, V>(from + (bottom + left) * p.channels, c);
            ftr__load_vector<T, V>(from + (bottom + right) * p.channels, d);
            const float weight[4] = {(1.0f - down) * (1.0f - across), (1.0f - down) * across, down * (1.0f - across),
                                     down * across};
            FTR__UNROLL
            for (int k = 0; k < V; k++)
                v[k] = weight[0] * v[k] + weight[1] * b[k] + weight[2] * c[k] + weight[3] * d[k];
        }
        ftr__store_vector<T, V>(y + i * V, v);
    }
}

template <typename T, int V> FTR__KERNEL ftr__resize_backward(ftr__resize2d p, int64_t count, const T *dy, T *dx) {
    const ftr__resize_axis &h = p.axis[0], &w = p.axis[1];
    const int64_t packs = p.channels / V, before = p.nearest ? 0 : 1;
    FTR__GRID_LOOP(i, count) {
        const int64_t pixel = i / packs, row = pixel / w.in, iw = pixel - row * w.in, image = row / h.in;
        const int64_t ih = row - image * h.in;
        const T *from = dy + image * h.out * w.out * p.channels + (i - pixel * packs) * V;
        const int64_t top = h.first[ih > 0 ? ih - before : 0], bottom = h.first[ih + 1];
        const int64_t left = w.first[iw > 0 ? iw - before : 0], right = w.first[iw + 1];
        float sum[V] = {};
        for (int64_t oh = top; oh < bottom; oh++) {
            const float share = ftr__resize_weight(h, oh, ih);
            for (int64_t ow = left; ow < right; ow++) {
                const float weight = share * ftr__resize_weight(w, ow, iw);
                float d[V];
                ftr__load_vector<T, V>(from + (oh * w.out + ow) * p.channels, d);
                FTR__UNROLL
                for (int k = 0; k < V; k++) sum[k] = fmaf(weight, d[k], sum[k]);
            }
        }
        ftr__store_vector<T, V>(dx + i * V, sum);
    }
}

/* ---------------------------------------------------------------------------------------------------------- running -- */

static size_t ftr__resize_axis_bytes(int64_t in, int64_t out) {
    return static_cast<size_t>(2 * out + in + 1) * sizeof(int64_t) + static_cast<size_t>(out) * sizeof(double);
}

FTR__CUDA_LIB size_t ftr__cuda_resize2d_workspace(const ftr_kernel_call *call) {
    const int64_t *in = call->attr->resize.input, *out = call->attr->resize.output;
    return ftr__resize_axis_bytes(in[0], out[0]) + ftr__resize_axis_bytes(in[1], out[1]);
}

static ftr__resize_axis ftr__resize_axis_at(unsigned char *memory, int64_t in, int64_t out) {
    ftr__resize_axis axis = {};
    axis.in = in;
    axis.out = out;
    axis.low = reinterpret_cast<int64_t *>(memory);
    axis.high = axis.low + out;
    axis.first = axis.high + out;
    axis.share = reinterpret_cast<float *>(axis.first + in + 1);
    return axis;
}

template <typename F> static ftr_status ftr__resize_run(const ftr_kernel_call *call, F f) {
    const int64_t *in = call->attr->resize.input, *out = call->attr->resize.output;
    unsigned char *memory = static_cast<unsigned char *>(call->workspace);
    ftr__resize2d p = {};
    if (call->out[0].count == 0) return FTR_OK;
    p.axis[0] = ftr__resize_axis_at(memory, in[0], out[0]);
    p.axis[1] = ftr__resize_axis_at(memory + ftr__resize_axis_bytes(in[0], out[0]), in[1], out[1]);
    p.channels = call->out[0].shape.dim[3];
    p.nearest = call->attr->resize.mode == FTR_RESIZE_NEAREST;
    p.align_corners = call->attr->resize.align_corners;
    const ftr_status status = FTR_LAUNCH(call, ftr__resize_tables,
                                         ftr__cuda_blocks(in[0] + out[0] + in[1] + out[1] + 2), FTR__CUDA_THREADS, p);
    if (status != FTR_OK) return status;
    return ftr__for_channels(call, &call->out[0], [&](auto tag, auto width) { return f(p, tag, width); });
}

FTR__CUDA_LIB ftr_status ftr__cuda_resize2d(const ftr_kernel_call *call) {
    return ftr__resize_run(call, [&](const ftr__resize2d &p, auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const int64_t count = call->out[0].count / V;
        return FTR_LAUNCH(call, (ftr__resize_forward<T, V>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count,
                          static_cast<const T *>(call->in[0].data), static_cast<T *>(call->out[0].data));
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_resize2d_grad(const ftr_kernel_call *call) {
    return ftr__resize_run(call, [&](const ftr__resize2d &p, auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const int64_t count = call->out[0].count / V;
        return FTR_LAUNCH(call, (ftr__resize_backward<T, V>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count,
                          static_cast<const T *>(call->in[0].data), static_cast<T *>(call->out[0].data));
    });
}
