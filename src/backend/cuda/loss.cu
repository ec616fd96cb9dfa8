/* Softmax along an axis, cross entropy and negative log-likelihood over the last one. */
#include "backend/cuda/rows.cuh"

/* --------------------------------------------------------------------------------------------------------- softmax -- */

/* The result from an element and its line's sum. */
template <bool LOG> static __device__ __forceinline__ float ftr__softmax_of(float x, ftr__exp_sum s, float last) {
    return LOG ? x - s.most - last : expf(x - s.most) * last;
}

/* What all elements of a line need, beside the largest one. */
template <bool LOG> static __device__ __forceinline__ float ftr__softmax_last(ftr__exp_sum s) {
    return LOG ? logf(s.sum) : 1.0f / s.sum;
}

template <typename R, bool LOG>
FTR__KERNEL ftr__softmax_rows(const typename R::T *x, typename R::T *y, int64_t rows, int64_t n, bool packed) {
    FTR_SHARED(float, room, 32);
    float v[R::size];
    for (int64_t base = (int64_t)blockIdx.x * R::a_block; base < rows; base += (int64_t)gridDim.x * R::a_block) {
        const int64_t row = base + threadIdx.x / (FTR__CUDA_THREADS / R::a_block), count = row < rows ? n : 0;
        const ftr__exp_sum s = ftr__row_exp_sum<R>(v, x + row * n, count, packed, room);
        const float last = ftr__softmax_last<LOG>(s);
        for (int64_t first = 0; first < count; first += R::tile) {
            if (n > R::tile) R::load(v, x + row * n, first, count, packed, -INFINITY);
            FTR__UNROLL
            for (int i = 0; i < R::size; i++) v[i] = ftr__softmax_of<LOG>(v[i], s, last);
            R::store(v, y + row * n, first, count, packed);
        }
    }
}

template <typename T, bool LOG> FTR__KERNEL ftr__softmax_columns(const T *x, T *y, ftr__lines lines) {
    FTR__GRID_LOOP(i, lines.outer * lines.inner) {
        const int64_t begin = ftr__line_begin(lines, i);
        const ftr__exp_sum s = ftr__line_exp_sum(x + begin, lines.n, lines.inner);
        const float last = ftr__softmax_last<LOG>(s);
        FTR__NO_UNROLL
        for (int64_t r = 0; r < lines.n; r++) {
            const int64_t at = begin + r * lines.inner;
            y[at] = ftr__from_float<T>(ftr__softmax_of<LOG>(ftr__to_float(x[at]), s, last));
        }
    }
}

/* softmax: y (dy - sum of dy y); log_softmax: dy - e^y sum of dy. */
template <bool LOG> static __device__ __forceinline__ float ftr__softmax_slope(float dy, float y, float sum) {
    return LOG ? dy - expf(y) * sum : y * (dy - sum);
}

template <typename R, bool LOG>
FTR__KERNEL ftr__softmax_grad_rows(const typename R::T *dy, const typename R::T *y, typename R::T *dx, int64_t rows, int64_t n,
                                   bool packed) {
    FTR_SHARED(float, room, 32);
    float v[R::size], w[R::size];
    for (int64_t base = (int64_t)blockIdx.x * R::a_block; base < rows; base += (int64_t)gridDim.x * R::a_block) {
        const int64_t row = base + threadIdx.x / (FTR__CUDA_THREADS / R::a_block), count = row < rows ? n : 0;
        float sum = 0.0f;
        for (int64_t first = 0; first < count; first += R::tile) {
            R::load(v, dy + row * n, first, count, packed, 0.0f);
            R::load(w, y + row * n, first, count, packed, 0.0f);
            FTR__UNROLL
            for (int i = 0; i < R::size; i++) sum += LOG ? v[i] : v[i] * w[i];
        }
        sum = R::sum(sum, room);
        for (int64_t first = 0; first < count; first += R::tile) {
            if (n > R::tile) {
                R::load(v, dy + row * n, first, count, packed, 0.0f);
                R::load(w, y + row * n, first, count, packed, 0.0f);
            }
            FTR__UNROLL
            for (int i = 0; i < R::size; i++) v[i] = ftr__softmax_slope<LOG>(v[i], w[i], sum);
            R::store(v, dx + row * n, first, count, packed);
        }
    }
}

template <typename T, bool LOG> FTR__KERNEL ftr__softmax_grad_columns(const T *dy, const T *y, T *dx, ftr__lines lines) {
    FTR__GRID_LOOP(i, lines.outer * lines.inner) {
        const int64_t begin = ftr__line_begin(lines, i);
        float sum = 0.0f;
        for (int64_t r = 0; r < lines.n; r++) {
            const int64_t at = begin + r * lines.inner;
            sum += LOG ? ftr__to_float(dy[at]) : ftr__to_float(dy[at]) * ftr__to_float(y[at]);
        }
        for (int64_t r = 0; r < lines.n; r++) {
            const int64_t at = begin + r * lines.inner;
            dx[at] = ftr__from_float<T>(ftr__softmax_slope<LOG>(ftr__to_float(dy[at]), ftr__to_float(y[at]), sum));
        }
    }
}

template <typename T, bool LOG> static ftr_status ftr__softmax_run(const ftr_kernel_call *call) {
    const ftr__lines lines = ftr__lines_of(&call->in[0].shape, call->attr->axis.axis);
    const T *x = static_cast<const T *>(call->in[0].data);
    T *y = static_cast<T *>(call->out[0].data);
    if (call->out[0].count == 0) return FTR_OK;
    if (lines.inner > 1)
        return FTR_LAUNCH(call, (ftr__softmax_columns<T, LOG>), ftr__cuda_blocks(lines.outer * lines.inner), FTR__CUDA_THREADS,
                          x, y, lines);
    return ftr__for_row<T>(lines.n, [&](auto tag) {
        using R = decltype(tag);
        return FTR_LAUNCH(call, (ftr__softmax_rows<R, LOG>), ftr__cuda_blocks(lines.outer, R::a_block), FTR__CUDA_THREADS, x, y,
                          lines.outer, lines.n, ftr__rows_are_packed<T>(lines.n, x, y));
    });
}

template <typename T, bool LOG> static ftr_status ftr__softmax_grad_run(const ftr_kernel_call *call) {
    const ftr__lines lines = ftr__lines_of(&call->in[0].shape, call->attr->axis.axis);
    const T *dy = static_cast<const T *>(call->in[0].data), *y = static_cast<const T *>(call->in[1].data);
    T *dx = static_cast<T *>(call->out[0].data);
    if (call->out[0].count == 0) return FTR_OK;
    if (lines.inner > 1)
        return FTR_LAUNCH(call, (ftr__softmax_grad_columns<T, LOG>), ftr__cuda_blocks(lines.outer * lines.inner),
                          FTR__CUDA_THREADS, dy, y, dx, lines);
    return ftr__for_row<T>(lines.n, [&](auto tag) {
        using R = decltype(tag);
        const bool packed = ftr__rows_are_packed<T>(lines.n, dy, dx) && ftr__rows_are_packed<T>(lines.n, y, y);
        return FTR_LAUNCH(call, (ftr__softmax_grad_rows<R, LOG>), ftr__cuda_blocks(lines.outer, R::a_block), FTR__CUDA_THREADS,
                          dy, y, dx, lines.outer, lines.n, packed);
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_softmax(const ftr_kernel_call *call) {
    return ftr__for_real(call, call->in[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        return call->op == FTR_OP_log_softmax ? ftr__softmax_run<T, true>(call) : ftr__softmax_run<T, false>(call);
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_softmax_grad(const ftr_kernel_call *call) {
    return ftr__for_real(call, call->in[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        return call->op == FTR_OP_log_softmax_grad ? ftr__softmax_grad_run<T, true>(call)
                                                   : ftr__softmax_grad_run<T, false>(call);
    });
}

/* ---------------------------------------------------------------------------------------------------------- losses -- */

#define FTR__LOSS_PARTS 2048 /* blocks that have sums of their own */

struct ftr__loss {
    const void *logits, *labels, *class_weights, *mask; /* the last two: NULL if missing */
    ftr_dtype dtype, label_dtype;
    ftr_reduction reduction;
    int64_t rows, classes, rows_per_mask, ignore;
    float smoothing, share; /* share: smoothing by the number of classes */
    bool packed;
};

/* Inputs: logits, labels; class weights and row mask are input `weights` and the next one. */
static ftr__loss ftr__loss_of(const ftr_kernel_call *call, const ftr_view *logits, int32_t weights) {
    const ftr_view *labels = logits + 1, *mask = weights + 1 < call->in_count ? &call->in[weights + 1] : nullptr;
    ftr__loss p = {};
    p.logits = logits->data;
    p.labels = labels->data;
    p.dtype = logits->dtype;
    p.label_dtype = labels->dtype;
    p.class_weights = weights < call->in_count ? call->in[weights].data : nullptr;
    p.mask = mask ? mask->data : nullptr;
    p.reduction = call->attr->cross_entropy.reduction;
    p.rows = labels->count;
    p.classes = logits->shape.dim[logits->shape.rank - 1];
    p.rows_per_mask = mask && mask->count > 0 ? p.rows / mask->count : 1;
    p.ignore = call->attr->cross_entropy.ignore_index;
    p.smoothing = static_cast<float>(call->attr->cross_entropy.label_smoothing);
    p.share = p.smoothing / static_cast<float>(p.classes);
    return p;
}

static __device__ __forceinline__ float ftr__loss_class_weight(const ftr__loss &p, int64_t label) {
    return p.class_weights ? ftr__load_real(p.class_weights, p.dtype, label) : 1.0f;
}

/* The same of a type that is known. */
template <typename T> static __device__ __forceinline__ float ftr__loss_class_weight_of(const ftr__loss &p, int64_t label) {
    return p.class_weights ? ftr__to_float(static_cast<const T *>(p.class_weights)[label]) : 1.0f;
}

/* The row's label, and its mask's value, which is 0 if it has no loss. `position` of the fault that a label outside of the
 * classes is; none is reported without `report`. */
struct ftr__loss_row {
    int64_t label;
    float mask;
};

static __device__ __forceinline__ ftr__loss_row ftr__loss_row_at(const ftr__loss &p, ftr__cuda_reporter to, int64_t row,
                                                                 bool report) {
    ftr__loss_row r = {ftr__load_integer(p.labels, p.label_dtype, row), 1.0f};
    if (p.mask) r.mask = ftr__load_real(p.mask, p.dtype, row / p.rows_per_mask);
    if (r.label == p.ignore) r.mask = 0.0f;
    if (r.mask == 0.0f || (r.label >= 0 && r.label < p.classes)) return r;
    if (report) ftr__in_range(to, FTR__CUDA_FAULT_LABEL, r.label, row, p.classes);
    r.mask = 0.0f;
    return r;
}

/* Of a block: what its threads added up. `room`: shared memory of 32 doubles. */
static __device__ __forceinline__ void ftr__loss_part(double loss, double weight, double *partial, double *room) {
    loss = ftr__block_sum(loss, room);
    weight = ftr__block_sum(weight, room);
    if (threadIdx.x != 0) return;
    partial[2 * (int64_t)blockIdx.x] = loss;
    partial[2 * (int64_t)blockIdx.x + 1] = weight;
}

/* One block. */
FTR__KERNEL ftr__loss_finish(const double *partial, int64_t parts, ftr_reduction reduction, ftr_dtype dtype, void *loss_out,
                             void *weight_out) {
    FTR_SHARED(double, room, 32);
    double loss = 0.0, weight = 0.0;
    for (int64_t i = threadIdx.x; i < parts; i += blockDim.x) {
        loss += partial[2 * i];
        weight += partial[2 * i + 1];
    }
    loss = ftr__block_sum(loss, room);
    weight = ftr__block_sum(weight, room);
    if (threadIdx.x != 0) return;
    if (reduction != FTR_REDUCE_NONE)
        ftr__store_real(loss_out, dtype, 0, static_cast<float>(reduction == FTR_REDUCE_MEAN ? loss / weight : loss));
    ftr__store_real(weight_out, dtype, 0, static_cast<float>(weight));
}

static unsigned ftr__loss_blocks(int64_t rows, int64_t a_block) {
    const int64_t blocks = (rows + a_block - 1) / a_block;
    return static_cast<unsigned>(blocks < FTR__LOSS_PARTS ? blocks : FTR__LOSS_PARTS);
}

FTR__CUDA_LIB size_t ftr__cuda_loss_workspace(const ftr_kernel_call *call) {
    return 2 * sizeof(double) * ftr__loss_blocks(call->in[1].count, 1);
}

/* A row's loss: (1 - e) w[label] (-log p[label]) + e / C * sum of w[c] (-log p[c]), with -log p = most - x + log_sum. */
template <typename R>
FTR__ROOMY_KERNEL ftr__cross_entropy_rows(ftr__loss p, ftr__cuda_reporter to, typename R::T *losses, typename R::T *log_sums,
                                    double *partial) {
    using T = typename R::T;
    FTR_SHARED(float, room, 32);
    FTR_SHARED(double, wide_room, 32);
    constexpr int threads = FTR__CUDA_THREADS / R::a_block;
    float v[R::size];
    double all_loss = 0.0, all_weight = 0.0;
    for (int64_t base = (int64_t)blockIdx.x * R::a_block; base < p.rows; base += (int64_t)gridDim.x * R::a_block) {
        const int64_t row = base + threadIdx.x / threads, count = row < p.rows ? p.classes : 0;
        const T *x = static_cast<const T *>(p.logits) + row * p.classes;
        const bool first_lane = threadIdx.x % threads == 0 && count > 0;
        ftr__loss_row r = {0, 0.0f};
        if (first_lane) r = ftr__loss_row_at(p, to, row, true);
        const ftr__exp_sum s = ftr__row_exp_sum<R>(v, x, count, p.packed, room);
        const float log_sum = logf(s.sum);
        float smooth = 0.0f;
        if (p.smoothing > 0.0f) {
            for (int64_t first = 0; first < count; first += R::tile) {
                if (count > R::tile) R::load(v, x, first, count, p.packed, 0.0f);
                FTR__UNROLL
                for (int i = 0; i < R::size; i++) {
                    const int64_t c = R::place(first, i);
                    if (c < count) smooth += ftr__loss_class_weight_of<T>(p, c) * (s.most - v[i] + log_sum);
                }
            }
            smooth = R::sum(smooth, room);
        }
        if (first_lane) {
            float loss = 0.0f, weight = 0.0f;
            if (r.mask != 0.0f) {
                weight = r.mask * ftr__loss_class_weight_of<T>(p, r.label);
                loss = (1.0f - p.smoothing) * weight * (s.most - ftr__to_float(x[r.label]) + log_sum);
                if (p.smoothing > 0.0f) loss += r.mask * p.share * smooth;
            }
            if (p.reduction == FTR_REDUCE_NONE) losses[row] = ftr__from_float<T>(loss);
            log_sums[row] = ftr__from_float<T>(log_sum);
            all_loss += (double)loss;
            all_weight += (double)weight;
        }
    }
    ftr__loss_part(all_loss, all_weight, partial, wide_room);
}

template <typename T> static ftr_status ftr__cross_entropy_run(const ftr_kernel_call *call) {
    ftr__loss p = ftr__loss_of(call, &call->in[0], 2);
    double *partial = static_cast<double *>(call->workspace);
    p.packed = ftr__rows_are_packed<T>(p.classes, p.logits, p.logits);
    unsigned blocks = 0;
    const ftr_status status = ftr__for_row<T>(p.classes, [&](auto tag) {
        using R = decltype(tag);
        blocks = ftr__loss_blocks(p.rows, R::a_block);
        return FTR_LAUNCH(call, (ftr__cross_entropy_rows<R>), blocks, FTR__CUDA_THREADS, p, ftr__cuda_reporter_of(call),
                          static_cast<T *>(call->out[0].data), static_cast<T *>(call->out[1].data), partial);
    });
    if (status) return status;
    return FTR_LAUNCH(call, ftr__loss_finish, 1, FTR__CUDA_THREADS, partial, blocks, p.reduction, p.dtype, call->out[0].data,
                      call->out[2].data);
}

FTR__CUDA_LIB ftr_status ftr__cuda_cross_entropy(const ftr_kernel_call *call) {
    return ftr__for_real(call, call->in[0].dtype, [&](auto tag) { return ftr__cross_entropy_run<decltype(tag)>(call); });
}

/* What the row's gradient is a multiple of: dloss, by the sum of weights if the loss is their mean. */
static __device__ __forceinline__ float ftr__loss_factor(const ftr__loss &p, const void *dloss, const void *weight_sum,
                                                         int64_t row) {
    const float g = ftr__load_real(dloss, p.dtype, p.reduction == FTR_REDUCE_NONE ? row : 0);
    return p.reduction == FTR_REDUCE_MEAN ? g / ftr__load_real(weight_sum, p.dtype, 0) : g;
}

/* d loss / d x[c] = g ((1 - e) w[label] (p[c] - [c == label]) + e / C (p[c] sum of w - w[c])), p[c] = e^(x[c] - most - log_sum).
 * dx may lie over x. */
template <typename R>
FTR__ROOMY_KERNEL ftr__cross_entropy_grad_rows(ftr__loss p, ftr__cuda_reporter to, const void *dloss, const typename R::T *log_sums,
                                         const void *weight_sum, typename R::T *out) {
    using T = typename R::T;
    FTR_SHARED(float, room, 32);
    constexpr int threads = FTR__CUDA_THREADS / R::a_block;
    float v[R::size];
    for (int64_t base = (int64_t)blockIdx.x * R::a_block; base < p.rows; base += (int64_t)gridDim.x * R::a_block) {
        const int64_t row = base + threadIdx.x / threads, count = row < p.rows ? p.classes : 0;
        const T *x = static_cast<const T *>(p.logits) + row * p.classes;
        T *dx = out + row * p.classes;
        ftr__loss_row r = {0, 0.0f};
        if (count > 0) r = ftr__loss_row_at(p, to, row, false);
        float at_label = 0.0f, at_each = 0.0f, inverse = 0.0f;
        if (r.mask != 0.0f) {
            const float g = r.mask * ftr__loss_factor(p, dloss, weight_sum, row);
            at_label = g * (1.0f - p.smoothing) * ftr__loss_class_weight_of<T>(p, r.label);
            at_each = g * p.share;
            inverse = expf(-ftr__to_float(log_sums[row]));
        }
        float most = -INFINITY, all_weights = 0.0f;
        for (int64_t first = 0; first < count; first += R::tile) {
            R::load(v, x, first, count, p.packed, -INFINITY);
            FTR__UNROLL
            for (int i = 0; i < R::size; i++) most = ftr__maximum(most, v[i]);
            if (p.smoothing > 0.0f && p.class_weights) {
                FTR__UNROLL
                for (int i = 0; i < R::size; i++) {
                    const int64_t c = R::place(first, i);
                    if (c < count) all_weights += ftr__loss_class_weight_of<T>(p, c);
                }
            }
        }
        most = R::maximum(most, room);
        all_weights = p.class_weights ? R::sum(all_weights, room) : (float)p.classes;
        const float scale = (at_label + at_each * all_weights) * inverse;
        for (int64_t first = 0; first < count; first += R::tile) {
            if (count > R::tile) R::load(v, x, first, count, p.packed, -INFINITY);
            FTR__UNROLL
            for (int i = 0; i < R::size; i++) {
                const int64_t c = R::place(first, i);
                float d = r.mask != 0.0f ? scale * expf(v[i] - most) : 0.0f;
                if (at_each != 0.0f && c < count) d -= at_each * ftr__loss_class_weight_of<T>(p, c);
                v[i] = c == r.label ? d - at_label : d;
            }
            R::store(v, dx, first, count, p.packed);
        }
    }
}

template <typename T> static ftr_status ftr__cross_entropy_grad_run(const ftr_kernel_call *call) {
    ftr__loss p = ftr__loss_of(call, &call->in[1], 5);
    T *dx = static_cast<T *>(call->out[0].data);
    p.packed = ftr__rows_are_packed<T>(p.classes, p.logits, dx);
    return ftr__for_row<T>(p.classes, [&](auto tag) {
        using R = decltype(tag);
        return FTR_LAUNCH(call, (ftr__cross_entropy_grad_rows<R>), ftr__cuda_blocks(p.rows, R::a_block), FTR__CUDA_THREADS, p,
                          ftr__cuda_reporter_of(call), call->in[0].data, static_cast<const T *>(call->in[3].data),
                          call->in[4].data, dx);
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_cross_entropy_grad(const ftr_kernel_call *call) {
    return ftr__for_real(call, call->in[1].dtype,
                         [&](auto tag) { return ftr__cross_entropy_grad_run<decltype(tag)>(call); });
}

FTR__KERNEL ftr__nll_rows(ftr__loss p, ftr__cuda_reporter to, void *losses, double *partial) {
    FTR_SHARED(double, room, 32);
    double all_loss = 0.0, all_weight = 0.0;
    FTR__GRID_LOOP(row, p.rows) {
        const ftr__loss_row r = ftr__loss_row_at(p, to, row, true);
        float loss = 0.0f, weight = 0.0f;
        if (r.mask != 0.0f) {
            weight = r.mask * ftr__loss_class_weight(p, r.label);
            loss = -weight * ftr__load_real(p.logits, p.dtype, row * p.classes + r.label);
        }
        if (p.reduction == FTR_REDUCE_NONE) ftr__store_real(losses, p.dtype, row, loss);
        all_loss += (double)loss;
        all_weight += (double)weight;
    }
    ftr__loss_part(all_loss, all_weight, partial, room);
}

FTR__CUDA_LIB ftr_status ftr__cuda_nll(const ftr_kernel_call *call) {
    const ftr__loss p = ftr__loss_of(call, &call->in[0], 2);
    double *partial = static_cast<double *>(call->workspace);
    const unsigned blocks = ftr__loss_blocks(p.rows, FTR__CUDA_THREADS);
    const ftr_status status = FTR_LAUNCH(call, ftr__nll_rows, blocks, FTR__CUDA_THREADS, p, ftr__cuda_reporter_of(call),
                                         call->out[0].data, partial);
    if (status) return status;
    return FTR_LAUNCH(call, ftr__loss_finish, 1, FTR__CUDA_THREADS, partial, blocks, p.reduction, p.dtype, call->out[0].data,
                      call->out[1].data);
}

/* Over zeros. */
FTR__KERNEL ftr__nll_grad_rows(ftr__loss p, ftr__cuda_reporter to, const void *dloss, const void *weight_sum, void *dx) {
    FTR__GRID_LOOP(row, p.rows) {
        const ftr__loss_row r = ftr__loss_row_at(p, to, row, false);
        if (r.mask == 0.0f) continue;
        const float g = r.mask * ftr__loss_factor(p, dloss, weight_sum, row);
        ftr__store_real(dx, p.dtype, row * p.classes + r.label, -g * ftr__loss_class_weight(p, r.label));
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_nll_grad(const ftr_kernel_call *call) {
    const ftr_view *out = &call->out[0];
    const ftr__loss p = ftr__loss_of(call, &call->in[1], 4);
    const ftr_status status =
        ftr__cuda_clear(call, out->data, static_cast<size_t>(out->count) * ftr_dtype_size(out->dtype));
    if (status) return status;
    return FTR_LAUNCH(call, ftr__nll_grad_rows, ftr__cuda_blocks(p.rows), FTR__CUDA_THREADS, p, ftr__cuda_reporter_of(call),
                      call->in[0].data, call->in[3].data, out->data);
}
