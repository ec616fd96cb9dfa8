/* 2-D convolution over NHWC with OHWI weights. */
#include "ops/registry.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- builders */

static int32_t ftr__or_default(int32_t value, int32_t otherwise) { return value == 0 ? otherwise : value; }

static ftr_op_attr ftr__conv_attr(const ftr_conv2d_desc *desc) {
    ftr_conv2d_desc d;
    memset(&d, 0, sizeof d);
    if (desc != NULL) d = *desc;
    ftr_op_attr attr;
    memset(&attr, 0, sizeof attr);
    for (int32_t i = 0; i < 2; i++) {
        attr.conv.stride[i] = ftr__or_default(d.stride[i], 1);
        attr.conv.dilation[i] = ftr__or_default(d.dilation[i], 1);
    }
    for (int32_t i = 0; i < 4; i++) attr.conv.padding[i] = d.padding[i];
    attr.conv.groups = ftr__or_default(d.groups, 1);
    attr.conv.activation = FTR_ACT_NONE;
    return attr;
}

static ftr_tensor ftr__conv2d_named(ftr_tensor x, ftr_tensor weight, ftr_tensor bias, const ftr_conv2d_desc *desc,
                                    const char *name) {
    ftr_tensor in[3] = {x, weight, bias};
    ftr_op_attr attr = ftr__conv_attr(desc);
    ftr_tensor y = ftr__emit(x.graph != NULL ? x.graph : weight.graph, FTR_OP_conv2d, name, &attr, in, 3);
    if (!ftr_is_valid(y)) return y;
    const ftr__node *producer = ftr__producer(weight);
    if (producer != NULL && producer->variable >= 0) y.graph->variables[producer->variable].conv_weight = true;
    return y;
}

ftr_tensor ftr_conv2d_with(ftr_tensor x, ftr_tensor weight, ftr_tensor bias, const ftr_conv2d_desc *desc) {
    return ftr__conv2d_named(x, weight, bias, desc, NULL);
}

/* What the parameters' shapes depend on; the rest is checked with the node. */
static bool ftr__conv_layer_fits(ftr_graph *graph, const char *name, int64_t channels, int64_t out_channels,
                                 int32_t kernel, int32_t groups) {
    const ftr_status bad = FTR_ERROR_INVALID_ARGUMENT;
    if (out_channels < 1)
        (void)ftr__layer_error(graph, bad, "conv2d", name, "out_channels %lld, expected 1 or more",
                               (long long)out_channels);
    else if (kernel < 1)
        (void)ftr__layer_error(graph, bad, "conv2d", name, "kernel %d, expected 1 or more", (int)kernel);
    else if (groups < 1)
        (void)ftr__layer_error(graph, bad, "conv2d", name, "groups %d, expected 1 or more", (int)groups);
    else if (channels % groups != 0)
        (void)ftr__layer_error(graph, FTR_ERROR_SHAPE, "conv2d", name,
                               "input has %lld channels, which groups %d does not divide", (long long)channels,
                               (int)groups);
    else if (out_channels % groups != 0)
        (void)ftr__layer_error(graph, FTR_ERROR_SHAPE, "conv2d", name,
                               "weight has %lld output channels, which groups %d does not divide",
                               (long long)out_channels, (int)groups);
    else
        return true;
    return false;
}

ftr_tensor ftr_conv2d(ftr_tensor x, const char *name, int64_t out_channels, int32_t kernel,
                      const ftr_conv2d_desc *desc) {
    ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__layer_begin("conv2d", name, x, 4, 4, "n, h, w, c");
    if (graph == NULL) return none;
    ftr_dtype dtype = ftr_dtype_of(x);
    int64_t channels = ftr_shape_of(x).dim[3];
    int32_t groups = ftr__or_default(desc != NULL ? desc->groups : 0, 1);
    if (!ftr__conv_layer_fits(graph, name, channels, out_channels, kernel, groups)) return none;
    ftr_shape weight_shape = FTR_SHAPE(out_channels, kernel, kernel, channels / groups);
    ftr_shape bias_shape = FTR_SHAPE(out_channels);
    if (ftr_shape_count(&weight_shape) < 0) {
        char text[FTR__SHAPE_TEXT];
        return ftr__layer_error(graph, FTR_ERROR_SHAPE, "conv2d", name, "the weight %s has too many elements",
                                ftr__shape_text(&weight_shape, text));
    }
    int64_t fan_in = channels / groups * kernel * kernel;
    ftr_init init = ftr__init_or(desc != NULL ? &desc->weight_init : NULL,
                                 (ftr_init){FTR_INIT_KAIMING_UNIFORM, sqrt(5.0), 0.0});
    ftr_tensor weight = ftr__layer_variable(graph, "conv2d", name, "weight", true, dtype, &weight_shape, init);
    ftr_tensor bias = none;
    if (desc == NULL || !desc->no_bias)
        bias = ftr__layer_variable(graph, "conv2d", name, "bias", true, dtype, &bias_shape,
                                   ftr__init_or(desc != NULL ? &desc->bias_init : NULL, ftr__bias_init(fan_in)));
    return ftr__conv2d_named(x, weight, bias, desc, name);
}

/* ---- shapes and types */

static ftr_status ftr__check_conv_attr(ftr__infer *s) {
    const ftr_op_attr *attr = &s->node->attr;
    for (int32_t i = 0; i < 2; i++) {
        if (attr->conv.stride[i] < 1)
            return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "stride %d, expected 1 or more",
                                    (int)attr->conv.stride[i]);
        if (attr->conv.dilation[i] < 1)
            return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "dilation %d, expected 1 or more",
                                    (int)attr->conv.dilation[i]);
    }
    for (int32_t i = 0; i < 4; i++)
        if (attr->conv.padding[i] < 0)
            return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "padding %d, expected 0 or more",
                                    (int)attr->conv.padding[i]);
    if (attr->conv.groups < 1)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "groups %d, expected 1 or more", (int)attr->conv.groups);
    return FTR_OK;
}

static ftr_status ftr__check_conv_channels(ftr__infer *s, const ftr_shape *x, const ftr_shape *weight) {
    int64_t groups = s->node->attr.conv.groups;
    if (x->dim[3] % groups != 0)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "input has %lld channels, which groups %d does not divide",
                                (long long)x->dim[3], (int)groups);
    if (weight->dim[0] % groups != 0)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "weight has %lld output channels, which groups %d does not divide",
                                (long long)weight->dim[0], (int)groups);
    if (weight->dim[3] != x->dim[3] / groups) {
        int64_t expected = weight->dim[3] > INT64_MAX / groups ? INT64_MAX : weight->dim[3] * groups;
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "input has %lld channels, weight expects %lld (groups %d)",
                                (long long)x->dim[3], (long long)expected, (int)groups);
    }
    return FTR_OK;
}

static ftr_status ftr__conv_does_not_fit(ftr__infer *s, const int64_t padded[2]) {
    const ftr_op_attr *attr = &s->node->attr;
    char dilation[32];
    if (attr->conv.dilation[0] == attr->conv.dilation[1])
        (void)snprintf(dilation, sizeof dilation, "%d", (int)attr->conv.dilation[0]);
    else
        (void)snprintf(dilation, sizeof dilation, "%d x %d", (int)attr->conv.dilation[0], (int)attr->conv.dilation[1]);
    return ftr__infer_error(
        s, FTR_ERROR_SHAPE, "kernel %d x %d (dilation %s) does not fit the padded input of %lld x %lld",
        (int)attr->conv.kernel[0], (int)attr->conv.kernel[1], dilation, (long long)padded[0], (long long)padded[1]);
}

/* Completes the attributes with kernel and input size, and fills height and width of the result. */
static ftr_status ftr__conv_window(ftr__infer *s, const ftr_shape *x, const ftr_shape *weight, ftr_shape *out) {
    ftr_op_attr *attr = &s->node->attr;
    int64_t padded[2], span[2];
    for (int32_t i = 0; i < 2; i++) {
        if (weight->dim[1 + i] < 1 || weight->dim[1 + i] > INT32_MAX)
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "kernel %lld x %lld, expected 1 or more",
                                    (long long)weight->dim[1], (long long)weight->dim[2]);
        attr->conv.kernel[i] = (int32_t)weight->dim[1 + i];
        attr->conv.input[i] = x->dim[1 + i];
        int64_t padding = (int64_t)attr->conv.padding[2 * i] + attr->conv.padding[2 * i + 1];
        if (x->dim[1 + i] > INT64_MAX - padding)
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "the padded input has too many elements");
        padded[i] = x->dim[1 + i] + padding;
        span[i] = (int64_t)attr->conv.dilation[i] * (weight->dim[1 + i] - 1) + 1;
    }
    if (span[0] > padded[0] || span[1] > padded[1]) return ftr__conv_does_not_fit(s, padded);
    for (int32_t i = 0; i < 2; i++) out->dim[1 + i] = (padded[i] - span[i]) / attr->conv.stride[i] + 1;
    return FTR_OK;
}

ftr_status ftr__infer_conv2d(ftr__infer *s) {
    const ftr_shape *x = &s->in[0]->shape, *weight = &s->in[1]->shape;
    ftr_shape out = {4, {x->dim[0], 0, 0, weight->dim[0]}};
    ftr_status status = ftr__check_rank(s, 0, "input", 4, "n, h, w, c");
    if (status == FTR_OK) status = ftr__check_rank(s, 1, "weight", 4, "o, kh, kw, c / groups");
    if (status == FTR_OK) status = ftr__check_float(s, 0, "input");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "input", "weight");
    if (status == FTR_OK) status = ftr__check_conv_attr(s);
    if (status == FTR_OK) status = ftr__check_conv_channels(s, x, weight);
    if (status == FTR_OK && s->in_count > 2 && s->in[2] != NULL)
        status = ftr__check_vector(s, 2, "bias", weight->dim[0]);
    if (status == FTR_OK) status = ftr__conv_window(s, x, weight, &out);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

ftr_status ftr__infer_conv2d_grad_input(ftr__infer *s) {
    const ftr_shape *dy = &s->in[0]->shape, *weight = &s->in[1]->shape;
    ftr_status status = ftr__check_rank(s, 0, "dy", 4, "n, oh, ow, o");
    if (status == FTR_OK) status = ftr__check_rank(s, 1, "weight", 4, "o, kh, kw, c / groups");
    if (status == FTR_OK) status = ftr__check_float(s, 0, "dy");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dy", "weight");
    if (status != FTR_OK) return status;
    const ftr_op_attr *attr = &s->node->attr;
    ftr_shape dx = FTR_SHAPE(dy->dim[0], attr->conv.input[0], attr->conv.input[1], weight->dim[3] * attr->conv.groups);
    return ftr__set_output(s, 0, s->in[0]->dtype, &dx);
}

ftr_status ftr__infer_conv2d_grad_weight(ftr__infer *s) {
    const ftr_shape *dy = &s->in[0]->shape, *x = &s->in[1]->shape;
    ftr_status status = ftr__check_rank(s, 0, "dy", 4, "n, oh, ow, o");
    if (status == FTR_OK) status = ftr__check_rank(s, 1, "input", 4, "n, h, w, c");
    if (status == FTR_OK) status = ftr__check_float(s, 0, "dy");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dy", "input");
    if (status == FTR_OK) status = ftr__check_conv_attr(s);
    if (status != FTR_OK) return status;
    const ftr_op_attr *attr = &s->node->attr;
    ftr_shape dw = FTR_SHAPE(dy->dim[3], attr->conv.kernel[0], attr->conv.kernel[1], x->dim[3] / attr->conv.groups);
    return ftr__set_output(s, 0, s->in[0]->dtype, &dw);
}

/* ---- gradient */

void ftr__grad_conv2d(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    ftr_op_attr attr = s->node->attr;
    attr.conv.activation = FTR_ACT_NONE;
    ftr_tensor dy = s->dout[0];
    if (s->wanted[0]) s->din[0] = ftr__emit_two(FTR_OP_conv2d_grad_input, &attr, dy, s->in[1]);
    if (s->wanted[1]) s->din[1] = ftr__emit_two(FTR_OP_conv2d_grad_weight, &attr, dy, s->in[0]);
    if (s->node->in_count > 2 && s->wanted[2]) s->din[2] = ftr__sum_mask(dy, 0x7u, false);
}
