/* Convolutions: cuDNN's plans, with bias, folded batch norm, residual and ReLU as their epilogue; where cuDNN refuses that, its
 * plain convolution and a pass over the result; and where it refuses that too, direct kernels, a thread an element.
 *
 * All are NHWC, weights [out, h, w, in of a group]. */
#include "backend/cuda/cudnn.cuh"

#include <cstring>

/* What stands behind a convolution, and the tensors' ids in cuDNN's graphs. */
enum { FTR__CONV_SCALE = 1, FTR__CONV_SHIFT = 2, FTR__CONV_RESIDUAL = 4, FTR__CONV_RELU = 8, FTR__CONV_WIDE = 16 };
enum { FTR__CONV_X = 1, FTR__CONV_W, FTR__CONV_Y, FTR__CONV_SCALES, FTR__CONV_SHIFTS, FTR__CONV_RESIDUALS, FTR__CONV_VIRTUAL };

/* y = activation(y * scale + shift + residual), per channel; nullptr: without. */
struct ftr__conv_finish {
    const float *scale;
    const void *shift;
    ftr_dtype shift_dtype;
    const void *residual;
    ftr_dtype residual_dtype;
    ftr_activation activation;
};

struct ftr__conv {
    const void *x, *w, *y; /* one of them is the result */
    ftr_dtype x_dtype, w_dtype, y_dtype;
    int64_t n, h, w_in, c, oh, ow, k; /* oh, ow: of y, whose rows and columns may be fewer than the convolution gives */
    int32_t kh, kw, stride[2], top, left, dilation[2];
    int64_t group_in, group_out; /* channels of a group */
};

static __device__ __forceinline__ float ftr__activate(ftr_activation activation, float x) {
    switch (activation) {
    case FTR_ACT_RELU: return x < 0.0f ? 0.0f : x;
    case FTR_ACT_RELU6: return x < 0.0f ? 0.0f : x > 6.0f ? 6.0f : x;
    case FTR_ACT_HARDSWISH: return x <= -3.0f ? 0.0f : x >= 3.0f ? x : x * (x + 3.0f) * (1.0f / 6.0f);
    case FTR_ACT_SILU: return x / (1.0f + expf(-x));
    default: return x;
    }
}

static __device__ __forceinline__ float ftr__conv_finished(const ftr__conv_finish &f, float x, int64_t i, int64_t channel) {
    if (f.scale) x *= f.scale[channel];
    if (f.shift) x += ftr__load_real(f.shift, f.shift_dtype, channel);
    if (f.residual) x += ftr__load_real(f.residual, f.residual_dtype, i);
    return ftr__activate(f.activation, x);
}

/* ------------------------------------------------------------------------------------------------------ direct kernels -- */

FTR__KERNEL ftr__conv_forward(ftr__conv p, ftr__conv_finish f, void *out) {
    FTR__GRID_LOOP(i, p.n * p.oh * p.ow * p.k) {
        const int64_t k = i % p.k, ox = i / p.k % p.ow, oy = i / p.k / p.ow % p.oh, n = i / p.k / p.ow / p.oh;
        const int64_t first = k / p.group_out * p.group_in;
        double sum = 0.0;
        for (int32_t a = 0; a < p.kh; a++) {
            const int64_t iy = oy * p.stride[0] - p.top + (int64_t)a * p.dilation[0];
            if (iy < 0 || iy >= p.h) continue;
            for (int32_t b = 0; b < p.kw; b++) {
                const int64_t ix = ox * p.stride[1] - p.left + (int64_t)b * p.dilation[1];
                if (ix < 0 || ix >= p.w_in) continue;
                const int64_t x = ((n * p.h + iy) * p.w_in + ix) * p.c + first, w = ((k * p.kh + a) * p.kw + b) * p.group_in;
                float part = 0.0f;
                for (int64_t c = 0; c < p.group_in; c++)
                    part = fmaf(ftr__load_real(p.x, p.x_dtype, x + c), ftr__load_real(p.w, p.w_dtype, w + c), part);
                sum += (double)part;
            }
        }
        ftr__store_real(out, p.y_dtype, i, ftr__conv_finished(f, (float)sum, i, k));
    }
}

FTR__KERNEL ftr__conv_grad_input(ftr__conv p, void *out) {
    FTR__GRID_LOOP(i, p.n * p.h * p.w_in * p.c) {
        const int64_t c = i % p.c, ix = i / p.c % p.w_in, iy = i / p.c / p.w_in % p.h, n = i / p.c / p.w_in / p.h;
        const int64_t first = c / p.group_in * p.group_out, inside = c % p.group_in;
        double sum = 0.0;
        for (int32_t a = 0; a < p.kh; a++) {
            const int64_t ty = iy + p.top - (int64_t)a * p.dilation[0], oy = ty / p.stride[0];
            if (ty < 0 || ty % p.stride[0] || oy >= p.oh) continue;
            for (int32_t b = 0; b < p.kw; b++) {
                const int64_t tx = ix + p.left - (int64_t)b * p.dilation[1], ox = tx / p.stride[1];
                if (tx < 0 || tx % p.stride[1] || ox >= p.ow) continue;
                const int64_t y = ((n * p.oh + oy) * p.ow + ox) * p.k + first;
                float part = 0.0f;
                for (int64_t k = 0; k < p.group_out; k++)
                    part = fmaf(ftr__load_real(p.y, p.y_dtype, y + k),
                                ftr__load_real(p.w, p.w_dtype, (((first + k) * p.kh + a) * p.kw + b) * p.group_in + inside), part);
                sum += (double)part;
            }
        }
        ftr__store_real(out, p.x_dtype, i, (float)sum);
    }
}

/* A block an element of the weight. */
FTR__KERNEL ftr__conv_grad_weight(ftr__conv p, void *out) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    for (int64_t i = blockIdx.x; i < p.k * p.kh * p.kw * p.group_in; i += gridDim.x) {
        const int64_t inside = i % p.group_in, b = i / p.group_in % p.kw, a = i / p.group_in / p.kw % p.kh,
                      k = i / p.group_in / p.kw / p.kh;
        const int64_t c = k / p.group_out * p.group_in + inside;
        double sum = 0.0;
        for (int64_t o = threadIdx.x; o < p.n * p.oh * p.ow; o += blockDim.x) {
            const int64_t ox = o % p.ow, oy = o / p.ow % p.oh, n = o / p.ow / p.oh;
            const int64_t iy = oy * p.stride[0] - p.top + a * p.dilation[0], ix = ox * p.stride[1] - p.left + b * p.dilation[1];
            if (iy < 0 || iy >= p.h || ix < 0 || ix >= p.w_in) continue;
            sum += (double)(ftr__load_real(p.y, p.y_dtype, o * p.k + k) *
                            ftr__load_real(p.x, p.x_dtype, ((n * p.h + iy) * p.w_in + ix) * p.c + c));
        }
        sum = ftr__block_sum(sum, room);
        if (threadIdx.x == 0) ftr__store_real(out, p.w_dtype, i, (float)sum);
    }
}

/* ---------------------------------------------------------------------------------------------------------- epilogues -- */

FTR__KERNEL ftr__conv_finish_all(ftr__conv_finish f, const void *in, ftr_dtype in_dtype, void *out, ftr_dtype out_dtype,
                                 int64_t count, int64_t channels) {
    FTR__GRID_LOOP(i, count) {
        ftr__store_real(out, out_dtype, i, ftr__conv_finished(f, ftr__load_real(in, in_dtype, i), i, i % channels));
    }
}

/* What was done to a 1x1 convolution's input before: batch norm and an activation, then a factor for each image's channel. */
struct ftr__conv_again {
    const void *of[5]; /* gamma, beta, mean, 1/std; factors: nullptr where there is none */
    ftr_dtype dtype[5];
    ftr_activation activation;
};

FTR__KERNEL ftr__conv_input_again(ftr__conv_again a, const void *x, ftr_dtype dtype, void *out, int64_t count, int64_t channels,
                                  int64_t image) {
    FTR__GRID_LOOP(i, count) {
        const int64_t c = i % channels;
        float value = ftr__load_real(x, dtype, i);
        if (a.of[0]) {
            const float factor = ftr__load_real(a.of[0], a.dtype[0], c) * ftr__load_real(a.of[3], a.dtype[3], c);
            value = (value - ftr__load_real(a.of[2], a.dtype[2], c)) * factor + ftr__load_real(a.of[1], a.dtype[1], c);
            value = ftr__activate(a.activation, value);
        }
        if (a.of[4]) value *= ftr__load_real(a.of[4], a.dtype[4], i / image * channels + c);
        ftr__store_real(out, dtype, i, value);
    }
}

/* A batch norm with its running statistics, and a bias before it, as one multiplication and one addition. */
struct ftr__conv_fold {
    const void *of[5]; /* bias, gamma, beta, mean, variance; bias may be nullptr */
    ftr_dtype dtype[5];
    double eps;
};

FTR__KERNEL ftr__conv_fold_channels(ftr__conv_fold f, int64_t channels, float *scale, float *shift) {
    FTR__GRID_LOOP(c, channels) {
        const double bias = f.of[0] ? (double)ftr__load_real(f.of[0], f.dtype[0], c) : 0.0;
        const double factor = (double)ftr__load_real(f.of[1], f.dtype[1], c) /
                              sqrt((double)ftr__load_real(f.of[4], f.dtype[4], c) + f.eps);
        scale[c] = (float)factor;
        shift[c] = (float)((double)ftr__load_real(f.of[2], f.dtype[2], c) +
                           (bias - (double)ftr__load_real(f.of[3], f.dtype[3], c)) * factor);
    }
}

/* -------------------------------------------------------------------------------------------------------------- plans -- */

static const ftr_view *ftr__conv_input(const ftr_kernel_call *call, int32_t index) {
    return index < call->in_count && call->in[index].dtype != FTR_DTYPE_NONE ? &call->in[index] : nullptr;
}

/* x, w and y of a convolution or one of its gradients. */
static void ftr__conv_views(const ftr_kernel_call *call, const ftr_view **x, const ftr_view **w, const ftr_view **y) {
    const bool to_input = call->op == FTR_OP_conv2d_grad_input, to_weight = call->op == FTR_OP_conv2d_grad_weight;
    *x = to_input ? &call->out[0] : to_weight ? &call->in[1] : &call->in[0];
    *w = to_weight ? &call->out[0] : &call->in[1];
    *y = to_input || to_weight ? &call->in[0] : &call->out[0];
}

static ftr__conv ftr__conv_of(const ftr_kernel_call *call) {
    const ftr_view *x, *w, *y;
    ftr__conv_views(call, &x, &w, &y);
    ftr__conv p = {};
    p.x = x->data, p.w = w->data, p.y = y->data;
    p.x_dtype = x->dtype, p.w_dtype = w->dtype, p.y_dtype = y->dtype;
    p.n = x->shape.dim[0], p.h = x->shape.dim[1], p.w_in = x->shape.dim[2], p.c = x->shape.dim[3];
    p.oh = y->shape.dim[1], p.ow = y->shape.dim[2], p.k = y->shape.dim[3];
    p.kh = static_cast<int32_t>(w->shape.dim[1]), p.kw = static_cast<int32_t>(w->shape.dim[2]);
    p.top = call->attr->conv.padding[0], p.left = call->attr->conv.padding[2];
    for (int32_t d = 0; d < 2; d++) p.stride[d] = call->attr->conv.stride[d], p.dilation[d] = call->attr->conv.dilation[d];
    p.group_in = w->shape.dim[3];
    p.group_out = p.k / call->attr->conv.groups;
    return p;
}

/* What is to be done behind the convolution itself. */
static int32_t ftr__conv_epilogue(const ftr_kernel_call *call) {
    if (call->op != FTR_OP_conv2d) return 0;
    int32_t epilogue = 0;
    if (ftr__conv_input(call, 3)) epilogue |= FTR__CONV_SCALE | FTR__CONV_SHIFT;
    if (ftr__conv_input(call, 2)) epilogue |= FTR__CONV_SHIFT;
    if (ftr__conv_input(call, 7)) epilogue |= FTR__CONV_RESIDUAL;
    if (call->attr->conv.activation == FTR_ACT_RELU) epilogue |= FTR__CONV_RELU;
    return epilogue;
}

/* cuDNN's convolutions give all rows and columns. */
static bool ftr__conv_is_whole(const ftr_kernel_call *call, const ftr__conv *p) {
    const int32_t *pad = call->attr->conv.padding;
    const int64_t reach[2] = {(int64_t)p->dilation[0] * (p->kh - 1) + 1, (int64_t)p->dilation[1] * (p->kw - 1) + 1};
    return (p->h + pad[0] + pad[1] - reach[0]) / p->stride[0] + 1 == p->oh &&
           (p->w_in + pad[2] + pad[3] - reach[1]) / p->stride[1] + 1 == p->ow;
}

/* `pattern`: FTR__CONV_ bits of the epilogue; FTR__CONV_WIDE: the result is f32 whatever y is. */
static void ftr__conv_build(ftr__dnn_graph *graph, const ftr_kernel_call *call, int32_t pattern) {
    const ftr_view *x, *w, *y;
    ftr__conv_views(call, &x, &w, &y);
    const cudnnBackendDescriptor_t dx = ftr__dnn_image(graph, FTR__CONV_X, x->dtype, &x->shape, false);
    const cudnnBackendDescriptor_t dw = ftr__dnn_image(graph, FTR__CONV_W, w->dtype, &w->shape, false);
    const int64_t channels = y->shape.dim[3];
    const ftr_dtype result = pattern & FTR__CONV_WIDE ? FTR_F32 : y->dtype;
    struct step {
        int32_t bit;
        cudnnPointwiseMode_t mode;
        int64_t id;
    };
    static const step steps[] = {{FTR__CONV_SCALE, CUDNN_POINTWISE_MUL, FTR__CONV_SCALES},
                                 {FTR__CONV_SHIFT, CUDNN_POINTWISE_ADD, FTR__CONV_SHIFTS},
                                 {FTR__CONV_RESIDUAL, CUDNN_POINTWISE_ADD, FTR__CONV_RESIDUALS},
                                 {FTR__CONV_RELU, CUDNN_POINTWISE_RELU_FWD, 0}};
    int32_t left = 0;
    for (const step &s : steps) left += (pattern & s.bit) != 0;
    int64_t id = FTR__CONV_VIRTUAL;
    cudnnBackendDescriptor_t at = left ? ftr__dnn_image(graph, id++, FTR_F32, &y->shape, true)
                                       : ftr__dnn_image(graph, FTR__CONV_Y, result, &y->shape, false);
    const ftr__dnn_convolution_kind kind = call->op == FTR_OP_conv2d              ? FTR__DNN_FORWARD
                                           : call->op == FTR_OP_conv2d_grad_input ? FTR__DNN_GRAD_INPUT
                                                                                  : FTR__DNN_GRAD_WEIGHT;
    ftr__dnn_convolution(graph, kind, call->attr, dx, dw, at);
    for (const step &s : steps) {
        if (!(pattern & s.bit)) continue;
        cudnnBackendDescriptor_t b = nullptr;
        if (s.bit == FTR__CONV_RESIDUAL) {
            b = ftr__dnn_image(graph, s.id, ftr__conv_input(call, 7)->dtype, &y->shape, false);
        } else if (s.id) {
            const ftr_view *bias = ftr__conv_input(call, 2);
            const bool folded = (pattern & FTR__CONV_SCALE) != 0;
            b = ftr__dnn_channels(graph, s.id, folded || !bias ? FTR_F32 : bias->dtype, channels);
        }
        left--;
        const cudnnBackendDescriptor_t next = left ? ftr__dnn_image(graph, id++, FTR_F32, &y->shape, true)
                                                   : ftr__dnn_image(graph, FTR__CONV_Y, result, &y->shape, false);
        ftr__dnn_pointwise(graph, s.mode, at, b, next);
        at = next;
    }
}

/* The plan of a pattern; nullptr if cuDNN refuses it, or if there is no memory. */
static const ftr__dnn_plan *ftr__conv_plan(const ftr_kernel_call *call, int32_t pattern) {
    const ftr_view *x, *w, *y;
    ftr__conv_views(call, &x, &w, &y);
    const ftr_op_attr *attr = call->attr;
    ftr__dnn_key key;
    memset(&key, 0, sizeof key);
    key.op = call->op;
    key.pattern = pattern;
    const int32_t numbers[] = {attr->conv.stride[0],  attr->conv.stride[1],   attr->conv.padding[0],  attr->conv.padding[1],
                               attr->conv.padding[2], attr->conv.padding[3],  attr->conv.dilation[0], attr->conv.dilation[1],
                               attr->conv.groups};
    memcpy(key.numbers, numbers, sizeof numbers);
    const ftr_view *views[4] = {x, w, y, ftr__conv_input(call, pattern & FTR__CONV_SCALE || call->op != FTR_OP_conv2d ? 7 : 2)};
    for (int32_t i = 0; i < 4 && views[i]; i++) {
        key.dtypes[i] = views[i]->dtype;
        key.shapes[i].rank = views[i]->shape.rank;
        for (int32_t d = 0; d < views[i]->shape.rank; d++) key.shapes[i].dim[d] = views[i]->shape.dim[d];
    }
    const char *words = call->op == FTR_OP_conv2d_grad_input    ? "convolution, gradient of x"
                        : call->op == FTR_OP_conv2d_grad_weight ? "convolution, gradient of w"
                        : pattern & ~FTR__CONV_WIDE             ? "convolution and epilogue"
                                                                : "convolution";
    const ftr__dnn_plan *plan = ftr__dnn_plan_of(call, &key, words, ftr__conv_build);
    return plan && plan->made ? plan : nullptr;
}

/* How a call is computed. */
struct ftr__conv_way {
    const ftr__dnn_plan *plan; /* nullptr: a direct kernel */
    int32_t pattern;           /* what the plan does */
    bool separate;             /* the epilogue is a pass of its own */
};

static ftr__conv_way ftr__conv_choose(const ftr_kernel_call *call) {
    const ftr__conv p = ftr__conv_of(call);
    const int32_t epilogue = ftr__conv_epilogue(call);
    const ftr_activation activation = call->op == FTR_OP_conv2d ? call->attr->conv.activation : FTR_ACT_NONE;
    ftr__conv_way way = {};
    if (call->out[0].count == 0 || call->in[0].count == 0 || !ftr__conv_is_whole(call, &p)) return way;
    if (activation == FTR_ACT_NONE || activation == FTR_ACT_RELU) {
        way.plan = ftr__conv_plan(call, epilogue);
        way.pattern = epilogue;
        if (way.plan || !epilogue) return way;
    }
    /* A result that is rounded before its epilogue would be less exact than one pass. */
    way.pattern = ftr__cuda_is_half(call->out[0].dtype) ? FTR__CONV_WIDE : 0;
    way.plan = ftr__conv_plan(call, way.pattern);
    way.separate = true;
    return way;
}

/* ------------------------------------------------------------------------------------------------------------ running -- */

/* Whether the input of a weight's gradient is to be computed again. */
static bool ftr__conv_is_again(const ftr_kernel_call *call) {
    return call->op == FTR_OP_conv2d_grad_weight && (ftr__conv_input(call, 2) || ftr__conv_input(call, 6));
}

/* The workspace: cuDNN's, a result in f32, scales and shifts; an input that is computed again. */
struct ftr__conv_room {
    size_t result, scale, shift, input, all;
};

static ftr__conv_room ftr__conv_room_of(const ftr_kernel_call *call, const ftr__conv_way *way) {
    ftr__conv_room room = {};
    size_t at = way->plan ? (way->plan->workspace + 255) / 256 * 256 : 0;
    room.result = at;
    if (way->plan && way->pattern & FTR__CONV_WIDE) at += (static_cast<size_t>(call->out[0].count) * 4 + 255) / 256 * 256;
    const size_t channels = static_cast<size_t>(call->out[0].shape.dim[call->out[0].shape.rank - 1]);
    const bool folded = ftr__conv_epilogue(call) & FTR__CONV_SCALE;
    room.scale = at;
    room.shift = room.scale + (folded ? (channels * 4 + 255) / 256 * 256 : 0);
    room.input = room.shift + (folded ? (channels * 4 + 255) / 256 * 256 : 0);
    room.all = room.input;
    if (ftr__conv_is_again(call)) room.all += static_cast<size_t>(call->in[1].count) * ftr_dtype_size(call->in[1].dtype);
    return room;
}

FTR__CUDA_LIB size_t ftr__cuda_conv2d_workspace(const ftr_kernel_call *call) {
    const ftr__conv_way way = ftr__conv_choose(call);
    return ftr__conv_room_of(call, &way).all;
}

FTR__CUDA_LIB const char *ftr__cuda_conv2d_algorithm(const ftr_kernel_call *call) {
    const ftr__conv_way way = ftr__conv_choose(call);
    if (!way.plan) return "direct";
    if (way.separate) return "cudnn, epilogue separate";
    return way.pattern ? "cudnn with epilogue" : "cudnn";
}

/* Scales and shifts of the channels, as the epilogue reads them. */
static ftr_status ftr__conv_fold_run(const ftr_kernel_call *call, const ftr__conv_room *room, ftr__conv_finish *finish) {
    const ftr_view *bias = ftr__conv_input(call, 2), *residual = ftr__conv_input(call, 7);
    finish->activation = call->attr->conv.activation;
    if (residual) finish->residual = residual->data, finish->residual_dtype = residual->dtype;
    if (bias) finish->shift = bias->data, finish->shift_dtype = bias->dtype;
    if (!ftr__conv_input(call, 3)) return FTR_OK;
    ftr__conv_fold fold = {};
    fold.eps = call->attr->conv.eps;
    for (int32_t i = 0; i < 5; i++) {
        const ftr_view *view = ftr__conv_input(call, 2 + i);
        if (view) fold.of[i] = view->data, fold.dtype[i] = view->dtype;
    }
    float *scale = reinterpret_cast<float *>(static_cast<char *>(call->workspace) + room->scale);
    float *shift = reinterpret_cast<float *>(static_cast<char *>(call->workspace) + room->shift);
    finish->scale = scale;
    finish->shift = shift;
    finish->shift_dtype = FTR_F32;
    const int64_t channels = call->out[0].shape.dim[3];
    return FTR_LAUNCH(call, ftr__conv_fold_channels, ftr__cuda_blocks(channels), FTR__CUDA_THREADS, fold, channels, scale, shift);
}

static ftr_status ftr__conv_run_plan(const ftr_kernel_call *call, const ftr__conv_way *way, const ftr__conv_finish *finish,
                                     void *result) {
    const ftr_view *x, *w, *y;
    ftr__conv_views(call, &x, &w, &y);
    int64_t ids[6] = {FTR__CONV_X, FTR__CONV_W, FTR__CONV_Y};
    void *data[6] = {x->data, w->data, y->data};
    int32_t count = 3;
    if (result) data[2] = result;
    if (way->pattern & FTR__CONV_SCALE) ids[count] = FTR__CONV_SCALES, data[count++] = const_cast<float *>(finish->scale);
    if (way->pattern & FTR__CONV_SHIFT) ids[count] = FTR__CONV_SHIFTS, data[count++] = const_cast<void *>(finish->shift);
    if (way->pattern & FTR__CONV_RESIDUAL) ids[count] = FTR__CONV_RESIDUALS, data[count++] = const_cast<void *>(finish->residual);
    return ftr__dnn_run(call, way->plan, count, ids, data, call->workspace);
}

FTR__CUDA_LIB ftr_status ftr__cuda_conv2d(const ftr_kernel_call *call) {
    if (call->out[0].count == 0) return FTR_OK;
    const ftr__conv_way way = ftr__conv_choose(call);
    const ftr__conv_room room = ftr__conv_room_of(call, &way);
    ftr__conv_finish finish = {};
    const ftr_view *y = &call->out[0];
    ftr_status status = ftr__conv_fold_run(call, &room, &finish);
    if (status) return status;
    if (!way.plan)
        return FTR_LAUNCH(call, ftr__conv_forward, ftr__cuda_blocks(y->count), FTR__CUDA_THREADS, ftr__conv_of(call), finish, y->data);
    void *wide = way.pattern & FTR__CONV_WIDE ? static_cast<char *>(call->workspace) + room.result : nullptr;
    status = ftr__conv_run_plan(call, &way, &finish, wide);
    if (status || !way.separate) return status;
    return FTR_LAUNCH(call, ftr__conv_finish_all, ftr__cuda_blocks(y->count), FTR__CUDA_THREADS, finish, wide ? wide : y->data,
                      wide ? FTR_F32 : y->dtype, y->data, y->dtype, y->count, y->shape.dim[3]);
}

/* Computes the input of a weight's gradient again, into the workspace; `x` becomes a view of it. */
static ftr_status ftr__conv_run_again(const ftr_kernel_call *call, const ftr__conv_way *way, ftr_view *x) {
    ftr__conv_again again = {};
    again.activation = call->attr->conv.activation;
    for (int32_t i = 0; i < 5; i++) {
        const ftr_view *view = ftr__conv_input(call, 2 + i);
        if (view) again.of[i] = view->data, again.dtype[i] = view->dtype;
    }
    const void *from = x->data;
    x->data = static_cast<char *>(call->workspace) + ftr__conv_room_of(call, way).input;
    const int64_t channels = x->shape.dim[3];
    return FTR_LAUNCH(call, ftr__conv_input_again, ftr__cuda_blocks(x->count), FTR__CUDA_THREADS, again, from, x->dtype, x->data,
                      x->count, channels, x->shape.dim[1] * x->shape.dim[2] * channels);
}

FTR__CUDA_LIB ftr_status ftr__cuda_conv2d_grad(const ftr_kernel_call *node) {
    const ftr_view *out = &node->out[0];
    const ftr__conv_way way = ftr__conv_choose(node);
    if (out->count == 0) return FTR_OK;
    ftr_kernel_call again = *node;
    ftr_view in[2] = {node->in[0], node->in[1]};
    const ftr_kernel_call *call = node;
    if (ftr__conv_is_again(node)) {
        const ftr_status status = ftr__conv_run_again(node, &way, &in[1]);
        if (status) return status;
        again.in = in;
        again.in_count = 2;
        call = &again;
    }
    if (way.plan) return ftr__conv_run_plan(call, &way, nullptr, nullptr);
    if (call->op == FTR_OP_conv2d_grad_input)
        return FTR_LAUNCH(call, ftr__conv_grad_input, ftr__cuda_blocks(out->count), FTR__CUDA_THREADS, ftr__conv_of(call), out->data);
    return FTR_LAUNCH(call, ftr__conv_grad_weight, ftr__cuda_blocks(out->count, 1), FTR__CUDA_THREADS, ftr__conv_of(call), out->data);
}
