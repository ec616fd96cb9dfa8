#include "models/blocks.h"

#include <stdarg.h>
#include <stdio.h>

/* ---- options */

static void ftr__check_model_image(ftr_graph *graph, const char *model, const ftr_shape *shape, ftr_dtype dtype,
                                   int64_t min_size) {
    if (shape->rank != 4)
        (void)ftr_graph_fail(graph, FTR_ERROR_RANK, model, NULL, "the image has rank %d, expected 4 (n, h, w, c)",
                             (int)shape->rank);
    else if (dtype != FTR_F32 && dtype != FTR_F64)
        (void)ftr_graph_fail(graph, FTR_ERROR_DTYPE, model, NULL, "the image is %s, expected f32 or f64",
                             ftr_dtype_name(dtype));
    else if (shape->dim[1] < min_size || shape->dim[2] < min_size)
        (void)ftr_graph_fail(graph, FTR_ERROR_SHAPE, model, NULL,
                             "the image has %lld x %lld pixels, expected %lld x %lld or more", (long long)shape->dim[1],
                             (long long)shape->dim[2], (long long)min_size, (long long)min_size);
    else if (shape->dim[3] < 1)
        (void)ftr_graph_fail(graph, FTR_ERROR_SHAPE, model, NULL, "the image has 0 channels, expected 1 or more");
}

ftr_graph *ftr__model_image(const char *model, ftr_tensor image, int64_t min_size) {
    ftr_graph *graph = image.graph;
    if (ftr_graph_status(graph) != FTR_OK) return NULL;
    const ftr_shape shape = ftr_shape_of(image);
    if (!ftr_is_valid(image))
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_TENSOR, model, NULL, "the image is a null tensor");
    else
        ftr__check_model_image(graph, model, &shape, ftr_dtype_of(image), min_size);
    return ftr_graph_status(graph) == FTR_OK ? graph : NULL;
}

bool ftr__model_probability(ftr_graph *graph, const char *model, const char *option, double p) {
    if (p >= 0.0 && p <= 1.0) return true;
    (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, model, NULL, "%s is %g, expected 0 to 1", option, p);
    return false;
}

bool ftr__model_cookie(ftr_graph *graph, const char *model, bool right) {
    if (!right)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, model, NULL, "desc was not made by ftr_%s_defaults()",
                             model);
    return right;
}

int64_t ftr__model_classes(ftr_graph *graph, const char *model, int64_t asked, int64_t otherwise) {
    if (asked >= 0) return asked == 0 ? otherwise : asked;
    (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, model, NULL, "classes is %lld, expected 1 or more",
                         (long long)asked);
    return 0;
}

int64_t ftr__divisible_channels(double channels) {
    const int64_t nearest = (int64_t)(channels + 4.0) / 8 * 8, rounded = nearest < 8 ? 8 : nearest;
    return (double)rounded < 0.9 * channels ? rounded + 8 : rounded;
}

/* ---- blocks */

void ftr__model_scope(ftr_graph *graph, const char *format, ...) {
    char name[64];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(name, sizeof name, format, args);
    va_end(args);
    ftr_scope_push(graph, name);
}

ftr_tensor ftr__conv_norm(ftr_tensor x, const char *scope, const ftr__conv_norm_act *layer) {
    const int32_t pad = (layer->kernel - 1) / 2;
    const ftr_conv2d_desc conv = {.stride = {layer->stride, layer->stride},
                                  .padding = {pad, pad, pad, pad},
                                  .groups = layer->depthwise ? (int32_t)layer->channels : 1,
                                  .no_bias = true,
                                  .weight_init = {FTR_INIT_KAIMING_NORMAL_FAN_OUT, 0.0, 0.0}};
    ftr_scope_push(x.graph, scope);
    x = ftr_batch_norm(ftr_conv2d(x, "0", layer->channels, layer->kernel, &conv), "1", layer->norm);
    if (layer->activation != NULL) x = layer->activation(x);
    ftr_scope_pop(x.graph);
    return x;
}

ftr_tensor ftr__squeeze_excite(ftr_tensor x, const char *scope, int64_t squeezed, ftr__activation_fn activation,
                               ftr__activation_fn gate) {
    const ftr_conv2d_desc conv = {.weight_init = {FTR_INIT_KAIMING_NORMAL_FAN_OUT, 0.0, 0.0},
                                  .bias_init = {FTR_INIT_ZEROS, 0.0, 0.0}};
    ftr_scope_push(x.graph, scope);
    ftr_tensor scale = ftr_mean(x, FTR_AXES(1, 2), true);
    scale = activation(ftr_conv2d(scale, "fc1", squeezed, 1, &conv));
    scale = gate(ftr_conv2d(scale, "fc2", ftr_shape_of(x).dim[3], 1, &conv));
    x = ftr_mul(x, scale);
    ftr_scope_pop(x.graph);
    return x;
}

static const char *ftr__number_text(int32_t number, char text[16]) {
    (void)snprintf(text, 16, "%d", (int)number);
    return text;
}

ftr_tensor ftr__inverted_residual_block(ftr_tensor x, const ftr__inverted_residual *block) {
    char number[16];
    int32_t member = 0;
    const ftr_tensor input = x;
    const int64_t channels = ftr_shape_of(x).dim[3];
    ftr__conv_norm_act layer = {block->expanded, 1, 1, false, block->norm, block->activation};
    ftr_scope_push(x.graph, "block");
    if (block->expanded != channels) x = ftr__conv_norm(x, ftr__number_text(member++, number), &layer);
    layer.depthwise = true;
    layer.kernel = block->kernel;
    layer.stride = block->stride;
    x = ftr__conv_norm(x, ftr__number_text(member++, number), &layer);
    if (block->squeezed > 0)
        x = ftr__squeeze_excite(x, ftr__number_text(member++, number), block->squeezed, block->squeeze_activation,
                                block->gate);
    x = ftr__conv_norm(x, ftr__number_text(member, number),
                       &(ftr__conv_norm_act){block->channels, 1, 1, false, block->norm, NULL});
    ftr_scope_pop(x.graph);
    if (block->stride != 1 || block->channels != channels) return x;
    return ftr_add(ftr_stochastic_depth(x, block->stochastic_depth), input);
}
