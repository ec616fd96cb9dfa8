/* Pooling over windows of NHWC images. */
#include "ops/registry.h"

#include <string.h>

/* ---- builders */

static ftr_tensor ftr__pool2d(ftr_op op, ftr_tensor x, int32_t kernel_h, int32_t kernel_w,
                              const ftr_pool2d_desc *desc) {
    ftr_op_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.pool.kernel[0] = kernel_h;
    attr.pool.kernel[1] = kernel_w;
    for (int32_t i = 0; i < 2; i++) {
        int32_t stride = desc != NULL ? desc->stride[i] : 0;
        attr.pool.stride[i] = stride == 0 ? attr.pool.kernel[i] : stride;
    }
    for (int32_t i = 0; i < 4; i++) attr.pool.padding[i] = desc != NULL ? desc->padding[i] : 0;
    attr.pool.exclude_padding = desc != NULL && desc->exclude_padding;
    return ftr__emit_one(op, &attr, x);
}

ftr_tensor ftr_max_pool2d(ftr_tensor x, int32_t kernel_h, int32_t kernel_w, const ftr_pool2d_desc *desc) {
    return ftr__pool2d(FTR_OP_max_pool2d, x, kernel_h, kernel_w, desc);
}

ftr_tensor ftr_avg_pool2d(ftr_tensor x, int32_t kernel_h, int32_t kernel_w, const ftr_pool2d_desc *desc) {
    return ftr__pool2d(FTR_OP_avg_pool2d, x, kernel_h, kernel_w, desc);
}

ftr_tensor ftr_global_avg_pool(ftr_tensor x) {
    ftr_graph *graph = ftr__common_graph("global_avg_pool", &x, 1, 1);
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    int32_t rank = ftr_shape_of(x).rank;
    if (rank != 4)
        return ftr__builder_error(graph, FTR_ERROR_RANK, "global_avg_pool of", ftr_name_of(x),
                                  "input has rank %d, expected 4 (n, h, w, c)", (int)rank);
    return ftr_mean(x, FTR_AXES(1, 2), false);
}

ftr_tensor ftr_adaptive_avg_pool2d(ftr_tensor x, int64_t out_h, int64_t out_w) {
    const ftr_op_attr attr = {.adaptive = {.output = {out_h, out_w}}};
    return ftr__emit_one(FTR_OP_adaptive_avg_pool2d, &attr, x);
}

/* ---- shapes and types */

static ftr_status ftr__check_pool_attr(ftr__infer *s) {
    const ftr_op_attr *attr = &s->node->attr;
    const int32_t *kernel = attr->pool.kernel;
    if (kernel[0] < 1 || kernel[1] < 1)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "window %d x %d, expected 1 or more", (int)kernel[0],
                                (int)kernel[1]);
    for (int32_t i = 0; i < 2; i++)
        if (attr->pool.stride[i] < 1)
            return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "stride %d, expected 1 or more",
                                    (int)attr->pool.stride[i]);
    for (int32_t i = 0; i < 4; i++)
        if (attr->pool.padding[i] < 0 || attr->pool.padding[i] > kernel[i / 2] / 2)
            return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "padding %d, expected 0 to %d (half the window)",
                                    (int)attr->pool.padding[i], (int)(kernel[i / 2] / 2));
    return FTR_OK;
}

/* Completes the attributes with the input size and fills the result's shape. */
static ftr_status ftr__pooled_shape(ftr__infer *s, ftr_shape *out) {
    const ftr_shape *x = &s->in[0]->shape;
    ftr_op_attr *attr = &s->node->attr;
    ftr_status status = ftr__check_rank(s, 0, "input", 4, "n, h, w, c");
    if (status == FTR_OK) status = ftr__check_float(s, 0, "input");
    if (status == FTR_OK) status = ftr__check_pool_attr(s);
    if (status != FTR_OK) return status;
    if (x->dim[1] < 1 || x->dim[2] < 1 || x->dim[1] > INT32_MAX / x->dim[2])
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "input is %lld x %lld, expected 1 to %d elements",
                                (long long)x->dim[1], (long long)x->dim[2], (int)INT32_MAX);
    int64_t padded[2];
    for (int32_t i = 0; i < 2; i++) {
        attr->pool.input[i] = x->dim[1 + i];
        padded[i] = x->dim[1 + i] + attr->pool.padding[2 * i] + attr->pool.padding[2 * i + 1];
    }
    if (attr->pool.kernel[0] > padded[0] || attr->pool.kernel[1] > padded[1])
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "window %d x %d does not fit the padded input of %lld x %lld",
                                (int)attr->pool.kernel[0], (int)attr->pool.kernel[1], (long long)padded[0],
                                (long long)padded[1]);
    *out = *x;
    for (int32_t i = 0; i < 2; i++) out->dim[1 + i] = (padded[i] - attr->pool.kernel[i]) / attr->pool.stride[i] + 1;
    return FTR_OK;
}

ftr_status ftr__infer_max_pool2d(ftr__infer *s) {
    ftr_shape out;
    ftr_status status = ftr__pooled_shape(s, &out);
    if (status == FTR_OK) status = ftr__set_output(s, 0, s->in[0]->dtype, &out);
    return status != FTR_OK ? status : ftr__set_output(s, 1, FTR_I32, &out);
}

ftr_status ftr__infer_avg_pool2d(ftr__infer *s) {
    ftr_shape out;
    ftr_status status = ftr__pooled_shape(s, &out);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

static ftr_status ftr__pool_grad_shape(ftr__infer *s) {
    ftr_status status = ftr__check_rank(s, 0, "dy", 4, "n, oh, ow, c");
    if (status == FTR_OK) status = ftr__check_float(s, 0, "dy");
    if (status != FTR_OK) return status;
    ftr_shape dx = s->in[0]->shape;
    for (int32_t i = 0; i < 2; i++) dx.dim[1 + i] = s->node->attr.pool.input[i];
    return ftr__set_output(s, 0, s->in[0]->dtype, &dx);
}

ftr_status ftr__infer_avg_pool2d_grad(ftr__infer *s) { return ftr__pool_grad_shape(s); }

ftr_status ftr__infer_max_pool2d_grad(ftr__infer *s) {
    if (s->in[1]->dtype != FTR_I32)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "index is %s, expected i32", ftr_dtype_name(s->in[1]->dtype));
    ftr_status status = ftr__check_same_shape(s, 0, 1, "dy", "index");
    return status != FTR_OK ? status : ftr__pool_grad_shape(s);
}

ftr_status ftr__check_image_sizes(ftr__infer *s, const int64_t output[2]) {
    const ftr_shape *x = &s->in[0]->shape;
    ftr_status status = ftr__check_rank(s, 0, "input", 4, "n, h, w, c");
    if (status == FTR_OK) status = ftr__check_float(s, 0, "input");
    if (status != FTR_OK) return status;
    for (int32_t i = 0; i < 2; i++) {
        if (x->dim[1 + i] < 1 || x->dim[1 + i] > INT32_MAX)
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "input is %lld x %lld, expected 1 to %d", (long long)x->dim[1],
                                    (long long)x->dim[2], (int)INT32_MAX);
        if (output[i] < 1 || output[i] > INT32_MAX)
            return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "the new size is %lld x %lld, expected 1 to %d",
                                    (long long)output[0], (long long)output[1], (int)INT32_MAX);
    }
    return FTR_OK;
}

ftr_status ftr__infer_adaptive_avg_pool2d(ftr__infer *s) {
    ftr_op_attr *attr = &s->node->attr;
    ftr_shape y = s->in[0]->shape;
    const ftr_status status = ftr__check_image_sizes(s, attr->adaptive.output);
    if (status != FTR_OK) return status;
    for (int32_t i = 0; i < 2; i++) {
        attr->adaptive.input[i] = y.dim[1 + i];
        y.dim[1 + i] = attr->adaptive.output[i];
    }
    return ftr__set_output(s, 0, s->in[0]->dtype, &y);
}

ftr_status ftr__infer_adaptive_avg_pool2d_grad(ftr__infer *s) {
    const ftr_op_attr *attr = &s->node->attr;
    const ftr_status status = ftr__check_image_sizes(s, attr->adaptive.input);
    ftr_shape dx = s->in[0]->shape;
    for (int32_t i = 0; i < 2; i++) dx.dim[1 + i] = attr->adaptive.input[i];
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &dx);
}

/* ---- gradients */

void ftr__grad_max_pool2d(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_two(FTR_OP_max_pool2d_grad, &s->node->attr, s->dout[0], s->out[1]);
}

void ftr__grad_avg_pool2d(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_one(FTR_OP_avg_pool2d_grad, &s->node->attr, s->dout[0]);
}

void ftr__grad_adaptive_avg_pool2d(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_one(FTR_OP_adaptive_avg_pool2d_grad, &s->node->attr, s->dout[0]);
}
