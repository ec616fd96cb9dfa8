/* Convolution over NHWC with OHWI weights: of two dimensions; of one, and transposed, which are made of that. */
#include "ops/registry.h"

#include <math.h>
#include <stdarg.h>
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

/* Tells io/ how the weight lies in files. */
static void ftr__conv_mark_weight(ftr_tensor weight) {
    const ftr__node *producer = ftr__producer(weight);
    if (producer != NULL && producer->op == FTR_OP_cast)
        producer = ftr__producer((ftr_tensor){weight.graph, producer->in[0]});
    if (producer != NULL && producer->variable >= 0) weight.graph->variables[producer->variable].conv_weight = true;
}

static ftr_tensor ftr__conv2d_named(ftr_tensor x, ftr_tensor weight, ftr_tensor bias, const ftr_conv2d_desc *desc,
                                    const char *name) {
    ftr_tensor in[3] = {x, weight, bias};
    ftr_op_attr attr = ftr__conv_attr(desc);
    ftr_tensor y = ftr__emit(x.graph != NULL ? x.graph : weight.graph, FTR_OP_conv2d, name, &attr, in, 3);
    if (ftr_is_valid(y)) ftr__conv_mark_weight(weight);
    return y;
}

ftr_tensor ftr_conv2d_with(ftr_tensor x, ftr_tensor weight, ftr_tensor bias, const ftr_conv2d_desc *desc) {
    return ftr__conv2d_named(x, weight, bias, desc, NULL);
}

/* What the layer forms have in common. */
typedef struct ftr__conv_layer {
    const char *what, *name;
    int64_t channels, out_channels;
    int32_t kernel, groups;
    bool no_bias;
    ftr_init weight_init, bias_init; /* as asked for */
} ftr__conv_layer;

/* What the parameters' shapes depend on; the rest is checked with the node. */
static bool ftr__conv_layer_fits(ftr_graph *graph, const ftr__conv_layer *l) {
    const ftr_status bad = FTR_ERROR_INVALID_ARGUMENT;
    if (l->out_channels < 1)
        (void)ftr__layer_error(graph, bad, l->what, l->name, "out_channels %lld, expected 1 or more",
                               (long long)l->out_channels);
    else if (l->kernel < 1)
        (void)ftr__layer_error(graph, bad, l->what, l->name, "kernel %d, expected 1 or more", (int)l->kernel);
    else if (l->groups < 1)
        (void)ftr__layer_error(graph, bad, l->what, l->name, "groups %d, expected 1 or more", (int)l->groups);
    else if (l->channels % l->groups != 0)
        (void)ftr__layer_error(graph, FTR_ERROR_SHAPE, l->what, l->name,
                               "input has %lld channels, which groups %d does not divide", (long long)l->channels,
                               (int)l->groups);
    else if (l->out_channels % l->groups != 0)
        (void)ftr__layer_error(graph, FTR_ERROR_SHAPE, l->what, l->name,
                               "weight has %lld output channels, which groups %d does not divide",
                               (long long)l->out_channels, (int)l->groups);
    else
        return true;
    return false;
}

/* Makes the parameters of a layer with PyTorch's initialization: the fan-in is the number of elements behind the
 * weight's first dimension, also of a transposed convolution. False, with the error recorded, if one cannot be. */
static bool ftr__conv_layer_variables(ftr_graph *graph, const ftr__conv_layer *l, ftr_dtype dtype,
                                      const ftr_shape *weight_shape, ftr_tensor *weight, ftr_tensor *bias) {
    const ftr_shape bias_shape = FTR_SHAPE(l->out_channels);
    *bias = (ftr_tensor){NULL, 0};
    const int64_t count = ftr_shape_count(weight_shape);
    if (count < 0) {
        char text[FTR__SHAPE_TEXT];
        (void)ftr__layer_error(graph, FTR_ERROR_SHAPE, l->what, l->name, "the weight %s has too many elements",
                               ftr__shape_text(weight_shape, text));
        return false;
    }
    const int64_t fan_in = weight_shape->dim[0] > 0 ? count / weight_shape->dim[0] : 0;
    *weight = ftr__layer_variable(graph, l->what, l->name, "weight", true, dtype, weight_shape,
                                  ftr__init_or(&l->weight_init, (ftr_init){FTR_INIT_KAIMING_UNIFORM, sqrt(5.0), 0.0}));
    if (!l->no_bias)
        *bias = ftr__layer_variable(graph, l->what, l->name, "bias", true, dtype, &bias_shape,
                                    ftr__init_or(&l->bias_init, ftr__bias_init(fan_in)));
    return ftr_is_valid(*weight) && (l->no_bias || ftr_is_valid(*bias));
}

ftr_tensor ftr_conv2d(ftr_tensor x, const char *name, int64_t out_channels, int32_t kernel,
                      const ftr_conv2d_desc *desc) {
    const ftr_conv2d_desc d = desc != NULL ? *desc : (ftr_conv2d_desc){.groups = 0};
    ftr_graph *graph = ftr__layer_begin("conv2d", name, x, 4, 4, "n, h, w, c");
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    const ftr__conv_layer l = {"conv2d",     name,          ftr_shape_of(x).dim[3],
                               out_channels, kernel,        ftr__or_default(d.groups, 1),
                               d.no_bias,    d.weight_init, d.bias_init};
    if (!ftr__conv_layer_fits(graph, &l)) return (ftr_tensor){NULL, 0};
    const ftr_shape shape = FTR_SHAPE(out_channels, kernel, kernel, l.channels / l.groups);
    ftr_tensor weight, bias;
    if (!ftr__conv_layer_variables(graph, &l, ftr_dtype_of(x), &shape, &weight, &bias)) return (ftr_tensor){NULL, 0};
    return ftr__conv2d_named(x, weight, bias, desc, name);
}

/* ---- builders of what is made of conv2d and its gradients: they check all, so errors tell of what was asked for */

/* An op being built: `name` is a layer's, NULL for one without parameters of its own. */
typedef struct ftr__conv_site {
    ftr_graph *graph;
    const char *what, *name;
    ftr_tensor x, weight, bias;
    ftr_op_attr attr;
} ftr__conv_site;

/* Records "what 'layer': sentence" or "what of 'x': sentence"; returns false. */
static bool ftr__conv_refuse(const ftr__conv_site *site, ftr_status status, const char *format, ...) FTR__PRINTF(3, 4);

static bool ftr__conv_refuse(const ftr__conv_site *site, ftr_status status, const char *format, ...) {
    char sentence[FTR__MESSAGE_SIZE], of[64];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    (void)snprintf(of, sizeof of, "%s of", site->what);
    if (site->name != NULL)
        (void)ftr__layer_error(site->graph, status, site->what, site->name, "%s", sentence);
    else
        (void)ftr__builder_error(site->graph, status, of, ftr_name_of(site->x), "%s", sentence);
    return false;
}

static bool ftr__conv_site_rank(const ftr__conv_site *site, ftr_tensor tensor, const char *what, int32_t rank,
                                const char *layout) {
    const int32_t found = ftr_shape_of(tensor).rank;
    return found == rank || ftr__conv_refuse(site, FTR_ERROR_RANK, "%s has rank %d, expected %d (%s)", what, (int)found,
                                             (int)rank, layout);
}

static bool ftr__conv_site_type(const ftr__conv_site *site, ftr_tensor tensor, const char *what) {
    const ftr_dtype x = ftr_dtype_of(site->x), found = ftr_dtype_of(tensor);
    if (!ftr__is_float(x))
        return ftr__conv_refuse(site, FTR_ERROR_DTYPE, "input is %s, expected floating point", ftr_dtype_name(x));
    return found == x || ftr__conv_refuse(site, FTR_ERROR_DTYPE, "input is %s, %s is %s: both must have one type",
                                          ftr_dtype_name(x), what, ftr_dtype_name(found));
}

static bool ftr__conv_site_bias(const ftr__conv_site *site, int64_t size) {
    if (!ftr_is_valid(site->bias)) return true;
    const ftr_shape shape = ftr_shape_of(site->bias);
    char text[FTR__SHAPE_TEXT];
    if (!ftr__conv_site_type(site, site->bias, "bias")) return false;
    return (shape.rank == 1 && shape.dim[0] == size) ||
           ftr__conv_refuse(site, FTR_ERROR_SHAPE, "bias is %s, expected [%lld]", ftr__shape_text(&shape, text),
                            (long long)size);
}

/* The attributes' numbers by themselves. */
static bool ftr__conv_site_attr(const ftr__conv_site *site) {
    const ftr_op_attr *attr = &site->attr;
    const ftr_status bad = FTR_ERROR_INVALID_ARGUMENT;
    for (int32_t i = 0; i < 2; i++) {
        if (attr->conv.stride[i] < 1)
            return ftr__conv_refuse(site, bad, "stride %d, expected 1 or more", (int)attr->conv.stride[i]);
        if (attr->conv.dilation[i] < 1)
            return ftr__conv_refuse(site, bad, "dilation %d, expected 1 or more", (int)attr->conv.dilation[i]);
    }
    for (int32_t i = 0; i < 4; i++)
        if (attr->conv.padding[i] < 0)
            return ftr__conv_refuse(site, bad, "padding %d, expected 0 or more", (int)attr->conv.padding[i]);
    return attr->conv.groups > 0 ||
           ftr__conv_refuse(site, bad, "groups %d, expected 1 or more", (int)attr->conv.groups);
}

/* `channels` of the input, of which the weight takes `expected`; both, and the weight's `out`, in groups. */
static bool ftr__conv_site_channels(const ftr__conv_site *site, int64_t channels, int64_t expected, int64_t out) {
    const int64_t groups = site->attr.conv.groups;
    if (channels < 1) return ftr__conv_refuse(site, FTR_ERROR_SHAPE, "input has 0 channels, expected 1 or more");
    if (channels % groups != 0)
        return ftr__conv_refuse(site, FTR_ERROR_SHAPE, "input has %lld channels, which groups %d does not divide",
                                (long long)channels, (int)groups);
    if (out % groups != 0)
        return ftr__conv_refuse(site, FTR_ERROR_SHAPE,
                                "weight has %lld output channels, which groups %d does not divide", (long long)out,
                                (int)groups);
    return channels == expected ||
           ftr__conv_refuse(site, FTR_ERROR_SHAPE, "input has %lld channels, weight expects %lld (groups %d)",
                            (long long)channels, (long long)expected, (int)groups);
}

/* ---- transposed */

/* Fills the attributes' kernel and input, which is the size of the result. */
static bool ftr__conv_transpose_window(ftr__conv_site *site, const int32_t output_padding[2]) {
    const ftr_shape x = ftr_shape_of(site->x), weight = ftr_shape_of(site->weight);
    ftr_op_attr *attr = &site->attr;
    for (int32_t i = 0; i < 2; i++) {
        const int64_t size = x.dim[1 + i], kernel = weight.dim[1 + i];
        if (kernel < 1 || kernel > INT32_MAX)
            return ftr__conv_refuse(site, FTR_ERROR_SHAPE, "kernel %lld x %lld, expected 1 or more",
                                    (long long)weight.dim[1], (long long)weight.dim[2]);
        if (size < 1 || size > INT32_MAX)
            return ftr__conv_refuse(site, FTR_ERROR_SHAPE, "input is %lld x %lld, expected 1 to %d",
                                    (long long)x.dim[1], (long long)x.dim[2], (int)INT32_MAX);
        if (output_padding[i] < 0 ||
            (output_padding[i] >= attr->conv.stride[i] && output_padding[i] >= attr->conv.dilation[i]))
            return ftr__conv_refuse(site, FTR_ERROR_INVALID_ARGUMENT,
                                    "output_padding %d, expected 0 or more and below the stride %d or the dilation %d",
                                    (int)output_padding[i], (int)attr->conv.stride[i], (int)attr->conv.dilation[i]);
        attr->conv.kernel[i] = (int32_t)kernel;
        attr->conv.input[i] = (size - 1) * attr->conv.stride[i] - attr->conv.padding[2 * i] -
                              attr->conv.padding[2 * i + 1] + attr->conv.dilation[i] * (kernel - 1) +
                              output_padding[i] + 1;
    }
    return (attr->conv.input[0] > 0 && attr->conv.input[1] > 0) ||
           ftr__conv_refuse(site, FTR_ERROR_SHAPE, "the result would be %lld x %lld, expected 1 or more",
                            (long long)attr->conv.input[0], (long long)attr->conv.input[1]);
}

static bool ftr__conv_transpose_fits(ftr__conv_site *site, const int32_t output_padding[2]) {
    if (!ftr__conv_site_rank(site, site->x, "input", 4, "n, h, w, c") ||
        !ftr__conv_site_rank(site, site->weight, "weight", 4, "c, kh, kw, o / groups") ||
        !ftr__conv_site_type(site, site->weight, "weight") || !ftr__conv_site_attr(site))
        return false;
    const ftr_shape x = ftr_shape_of(site->x), weight = ftr_shape_of(site->weight);
    const int64_t groups = site->attr.conv.groups;
    if (weight.dim[3] < 1 || weight.dim[3] > INT64_MAX / groups)
        return ftr__conv_refuse(site, FTR_ERROR_SHAPE, "weight has %lld output channels a group, expected 1 or more",
                                (long long)weight.dim[3]);
    if (!ftr__conv_site_channels(site, x.dim[3], weight.dim[0], weight.dim[3] * groups) ||
        !ftr__conv_site_bias(site, weight.dim[3] * groups) || !ftr__conv_transpose_window(site, output_padding))
        return false;
    const ftr_shape y = FTR_SHAPE(x.dim[0], site->attr.conv.input[0], site->attr.conv.input[1], weight.dim[3] * groups);
    char text[FTR__SHAPE_TEXT];
    return ftr_shape_count(&y) >= 0 ||
           ftr__conv_refuse(site, FTR_ERROR_SHAPE, "the result %s has too many elements", ftr__shape_text(&y, text));
}

/* What a transposed convolution does to x, a convolution with the same weight does to its result's gradient. */
static ftr_tensor ftr__conv_transpose2d_named(ftr_tensor x, ftr_tensor weight, ftr_tensor bias,
                                              const ftr_conv_transpose2d_desc *desc, const char *name) {
    const ftr_conv_transpose2d_desc d = desc != NULL ? *desc : (ftr_conv_transpose2d_desc){.groups = 0};
    const ftr_tensor in[3] = {x, weight, bias};
    ftr__conv_site site = {ftr__common_graph("conv_transpose2d", in, 3, 2),
                           "conv_transpose2d",
                           name,
                           x,
                           weight,
                           bias,
                           {.conv = {.groups = 0}}};
    if (site.graph == NULL) return (ftr_tensor){NULL, 0};
    ftr_conv2d_desc same = {.groups = d.groups};
    memcpy(same.stride, d.stride, sizeof same.stride);
    memcpy(same.padding, d.padding, sizeof same.padding);
    memcpy(same.dilation, d.dilation, sizeof same.dilation);
    site.attr = ftr__conv_attr(&same);
    if (!ftr__conv_transpose_fits(&site, d.output_padding)) return (ftr_tensor){NULL, 0};
    ftr_tensor y = ftr__emit(site.graph, FTR_OP_conv2d_grad_input, name, &site.attr, in, 2);
    if (!ftr_is_valid(y)) return y;
    ftr__conv_mark_weight(weight);
    return ftr_is_valid(bias) ? ftr_add(y, bias) : y;
}

ftr_tensor ftr_conv_transpose2d_with(ftr_tensor x, ftr_tensor weight, ftr_tensor bias,
                                     const ftr_conv_transpose2d_desc *desc) {
    return ftr__conv_transpose2d_named(x, weight, bias, desc, NULL);
}

ftr_tensor ftr_conv_transpose2d(ftr_tensor x, const char *name, int64_t out_channels, int32_t kernel,
                                const ftr_conv_transpose2d_desc *desc) {
    const ftr_conv_transpose2d_desc d = desc != NULL ? *desc : (ftr_conv_transpose2d_desc){.groups = 0};
    ftr_graph *graph = ftr__layer_begin("conv_transpose2d", name, x, 4, 4, "n, h, w, c");
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    const ftr__conv_layer l = {"conv_transpose2d",           name,      ftr_shape_of(x).dim[3], out_channels, kernel,
                               ftr__or_default(d.groups, 1), d.no_bias, d.weight_init,          d.bias_init};
    if (!ftr__conv_layer_fits(graph, &l)) return (ftr_tensor){NULL, 0};
    const ftr_shape shape = FTR_SHAPE(l.channels, kernel, kernel, out_channels / l.groups);
    ftr_tensor weight, bias;
    if (!ftr__conv_layer_variables(graph, &l, ftr_dtype_of(x), &shape, &weight, &bias)) return (ftr_tensor){NULL, 0};
    return ftr__conv_transpose2d_named(x, weight, bias, desc, name);
}

/* ---- of one dimension */

static bool ftr__conv1d_fits(const ftr__conv_site *site) {
    if (!ftr__conv_site_rank(site, site->x, "input", 3, "n, l, c") ||
        !ftr__conv_site_rank(site, site->weight, "weight", 3, "o, k, c / groups") ||
        !ftr__conv_site_type(site, site->weight, "weight") || !ftr__conv_site_attr(site))
        return false;
    const ftr_shape x = ftr_shape_of(site->x), weight = ftr_shape_of(site->weight);
    const ftr_op_attr *attr = &site->attr;
    const int64_t groups = attr->conv.groups, kernel = weight.dim[1];
    const int64_t expected = weight.dim[2] > INT64_MAX / groups ? INT64_MAX : weight.dim[2] * groups;
    if (!ftr__conv_site_channels(site, x.dim[2], expected, weight.dim[0]) || !ftr__conv_site_bias(site, weight.dim[0]))
        return false;
    if (kernel < 1 || kernel > INT32_MAX)
        return ftr__conv_refuse(site, FTR_ERROR_SHAPE, "kernel %lld, expected 1 or more", (long long)kernel);
    const int64_t padding = (int64_t)attr->conv.padding[2] + attr->conv.padding[3];
    if (x.dim[1] > INT64_MAX - padding)
        return ftr__conv_refuse(site, FTR_ERROR_SHAPE, "the padded input has too many elements");
    return attr->conv.dilation[1] * (kernel - 1) < x.dim[1] + padding ||
           ftr__conv_refuse(site, FTR_ERROR_SHAPE, "kernel %lld (dilation %d) does not fit the padded input of %lld",
                            (long long)kernel, (int)attr->conv.dilation[1], (long long)(x.dim[1] + padding));
}

/* Images of one row. */
static ftr_tensor ftr__conv1d_named(ftr_tensor x, ftr_tensor weight, ftr_tensor bias, const ftr_conv1d_desc *desc,
                                    const char *name) {
    const ftr_conv1d_desc d = desc != NULL ? *desc : (ftr_conv1d_desc){.groups = 0};
    const ftr_conv2d_desc row = {.stride = {1, d.stride},
                                 .padding = {0, 0, d.padding[0], d.padding[1]},
                                 .dilation = {1, d.dilation},
                                 .groups = d.groups};
    const ftr_tensor in[3] = {x, weight, bias};
    const ftr__conv_site site = {
        ftr__common_graph("conv1d", in, 3, 2), "conv1d", name, x, weight, bias, ftr__conv_attr(&row)};
    if (site.graph == NULL || !ftr__conv1d_fits(&site)) return (ftr_tensor){NULL, 0};
    const ftr_shape xs = ftr_shape_of(x), ws = ftr_shape_of(weight);
    const ftr_tensor image = ftr_reshape(x, FTR_SHAPE(xs.dim[0], 1, xs.dim[1], xs.dim[2]));
    const ftr_tensor kernel = ftr_reshape(weight, FTR_SHAPE(ws.dim[0], 1, ws.dim[1], ws.dim[2]));
    const ftr_tensor y = ftr__conv2d_named(image, kernel, bias, &row, name);
    if (!ftr_is_valid(y)) return y;
    ftr__conv_mark_weight(weight);
    const ftr_shape ys = ftr_shape_of(y);
    return ftr_reshape(y, FTR_SHAPE(ys.dim[0], ys.dim[2], ys.dim[3]));
}

ftr_tensor ftr_conv1d_with(ftr_tensor x, ftr_tensor weight, ftr_tensor bias, const ftr_conv1d_desc *desc) {
    return ftr__conv1d_named(x, weight, bias, desc, NULL);
}

ftr_tensor ftr_conv1d(ftr_tensor x, const char *name, int64_t out_channels, int32_t kernel,
                      const ftr_conv1d_desc *desc) {
    const ftr_conv1d_desc d = desc != NULL ? *desc : (ftr_conv1d_desc){.groups = 0};
    ftr_graph *graph = ftr__layer_begin("conv1d", name, x, 3, 3, "n, l, c");
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    const ftr__conv_layer l = {"conv1d",     name,          ftr_shape_of(x).dim[2],
                               out_channels, kernel,        ftr__or_default(d.groups, 1),
                               d.no_bias,    d.weight_init, d.bias_init};
    if (!ftr__conv_layer_fits(graph, &l)) return (ftr_tensor){NULL, 0};
    const ftr_shape shape = FTR_SHAPE(out_channels, kernel, l.channels / l.groups);
    ftr_tensor weight, bias;
    if (!ftr__conv_layer_variables(graph, &l, ftr_dtype_of(x), &shape, &weight, &bias)) return (ftr_tensor){NULL, 0};
    return ftr__conv1d_named(x, weight, bias, desc, name);
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
    static const char *const words[] = {"gamma", "beta", "running mean", "running variance"};
    for (int32_t i = 3; i < 7 && i < s->in_count && status == FTR_OK; i++)
        if (s->in[i] != NULL) status = ftr__check_wide_vector(s, i, words[i - 3], weight->dim[0]);
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

/* What was done to x before the convolution: inputs 2 to 5 are a batch norm's, input 6 scales each image's channels. */
static ftr_status ftr__check_conv_input(ftr__infer *s, const ftr_shape *x) {
    static const char *const words[] = {"gamma", "beta", "mean", "1/std"};
    const ftr_op_attr *attr = &s->node->attr;
    const int64_t channels = x->dim[3];
    ftr_status status = FTR_OK;
    int32_t vectors = 0;
    for (int32_t i = 2; i < 6 && i < s->in_count && status == FTR_OK; i++) {
        if (s->in[i] == NULL) continue;
        status = ftr__check_wide_vector(s, i, words[i - 2], channels);
        vectors++;
    }
    const bool scaled = s->in_count > 6 && s->in[6] != NULL;
    if (status != FTR_OK || (vectors == 0 && !scaled)) return status;
    if (vectors != 0 && vectors != 4)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT,
                                "%d of a batch norm's gamma, beta, mean and 1/std, expected all", (int)vectors);
    for (int32_t i = 0; i < 2; i++)
        if (attr->conv.kernel[i] != 1 || attr->conv.stride[i] != 1 || attr->conv.padding[2 * i] != 0 ||
            attr->conv.groups != 1)
            return ftr__infer_error(
                s, FTR_ERROR_UNSUPPORTED,
                "the input is computed anew for a 1x1 convolution of stride 1 without padding and groups alone");
    const ftr_shape factors = FTR_SHAPE(x->dim[0], 1, 1, channels);
    if (scaled && !ftr_shape_equal(&s->in[6]->shape, &factors))
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "factors must have the shape [n, 1, 1, c] of the input");
    return scaled ? ftr__check_same_type(s, 1, 6, "input", "factors") : FTR_OK;
}

ftr_status ftr__infer_conv2d_grad_weight(ftr__infer *s) {
    const ftr_shape *dy = &s->in[0]->shape, *x = &s->in[1]->shape;
    ftr_status status = ftr__check_rank(s, 0, "dy", 4, "n, oh, ow, o");
    if (status == FTR_OK) status = ftr__check_rank(s, 1, "input", 4, "n, h, w, c");
    if (status == FTR_OK) status = ftr__check_float(s, 0, "dy");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dy", "input");
    if (status == FTR_OK) status = ftr__check_conv_attr(s);
    if (status == FTR_OK) status = ftr__check_conv_input(s, x);
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

/* The gradient of a convolution's gradient, which is linear in dy and in the weight. Rows and columns that conv2d gives
 * and dy lacks are cut off. */
void ftr__grad_conv2d_grad_input(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    const ftr_op_attr *attr = &s->node->attr;
    ftr_tensor g = s->dout[0];
    if (s->wanted[1]) s->din[1] = ftr__emit_two(FTR_OP_conv2d_grad_weight, attr, s->in[0], g);
    if (!s->wanted[0]) return;
    ftr_tensor d = ftr__emit_two(FTR_OP_conv2d, attr, g, s->in[1]);
    const ftr_shape dy = ftr_shape_of(s->in[0]), all = ftr_shape_of(d);
    for (int32_t i = 1; i < 3; i++)
        if (all.dim[i] > dy.dim[i]) d = ftr_slice(d, i, 0, dy.dim[i], 1);
    s->din[0] = d;
}
