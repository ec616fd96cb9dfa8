/* Vision transformer. */
#include "models/transformer.h"

#include <math.h>
#include <stdio.h>

#define FTR__COOKIE_VIT 0x56495431u

ftr_vit_desc ftr_vit_defaults(ftr_vit_size size) {
    static const int32_t widths[] = {192, 384, 768};
    if (size < FTR_VIT_TINY || size > FTR_VIT_BASE) return (ftr_vit_desc){.cookie = 0};
    return (ftr_vit_desc){.cookie = FTR__COOKIE_VIT,
                          .classes = 1000,
                          .patch = 16,
                          .width = widths[size],
                          .layers = 12,
                          .heads = widths[size] / 64};
}

/* The options; the image was checked before. */
static bool ftr__vit_is_valid(ftr_graph *graph, ftr_shape image, const ftr_vit_desc *d) {
    if (d->cookie != FTR__COOKIE_VIT)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "vit", NULL, "desc was not made by ftr_vit_defaults()");
    else if (d->classes < 1 && !d->features_only)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "vit", NULL, "classes is %lld, expected 1 or more",
                             (long long)d->classes);
    else if (d->patch < 1 || d->patch > INT32_MAX)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "vit", NULL, "patch is %lld, expected 1 or more",
                             (long long)d->patch);
    else if (image.dim[1] % d->patch != 0 || image.dim[2] % d->patch != 0)
        (void)ftr_graph_fail(graph, FTR_ERROR_SHAPE, "vit", NULL,
                             "the image has %lld x %lld pixels, expected multiples of the patch, %lld",
                             (long long)image.dim[1], (long long)image.dim[2], (long long)d->patch);
    else
        return ftr__transformer_is_valid(graph, "vit",
                                         (ftr__transformer_size){d->width, d->mlp_width, d->layers, d->heads}) &&
               ftr__model_probability(graph, "vit", "dropout", d->dropout) &&
               ftr__model_probability(graph, "vit", "attention_dropout", d->attention_dropout);
    return false;
}

static ftr_tensor ftr__vit_norm(ftr_tensor x, const char *name) {
    ftr_layer_norm_desc desc = ftr_layer_norm_defaults();
    desc.eps = 1e-6;
    return ftr_layer_norm(x, name, &desc);
}

/* Multi-head attention of x [n, t, width] with itself, as nn.MultiheadAttention: one matrix makes queries, keys and
 * values, one after another in its rows. */
static ftr_tensor ftr__vit_attention(ftr_tensor x, const ftr_vit_desc *d) {
    ftr_graph *graph = x.graph;
    const ftr_shape shape = ftr_shape_of(x);
    const ftr_dtype dtype = ftr_dtype_of(x);
    ftr_scope_push(graph, "self_attention");
    const ftr_tensor weight = ftr_parameter(graph, "in_proj_weight", dtype, FTR_SHAPE(3 * d->width, d->width),
                                            (ftr_init){FTR_INIT_XAVIER_UNIFORM, 0.0, 0.0});
    const ftr_tensor bias =
        ftr_parameter(graph, "in_proj_bias", dtype, FTR_SHAPE(3 * d->width), (ftr_init){FTR_INIT_ZEROS, 0.0, 0.0});
    ftr_attention_desc attention = ftr_attention_defaults();
    attention.dropout = d->attention_dropout;
    x = ftr__transformer_attention(ftr_linear_with(x, weight, bias), shape.dim[0], shape.dim[1], d->heads, &attention);
    x = ftr_reshape(x, shape);
    x = ftr_linear(x, "out_proj", d->width, &(ftr_linear_desc){.bias_init = {FTR_INIT_ZEROS, 0.0, 0.0}});
    ftr_scope_pop(graph);
    return ftr_dropout(x, d->dropout);
}

static ftr_tensor ftr__vit_mlp(ftr_tensor x, const ftr_vit_desc *d) {
    const ftr_linear_desc linear = {.weight_init = {FTR_INIT_XAVIER_UNIFORM, 0.0, 0.0},
                                    .bias_init = {FTR_INIT_NORMAL, 0.0, 1e-6}};
    ftr_graph *graph = x.graph;
    ftr_scope_push(graph, "mlp");
    x = ftr_linear(x, "0", d->mlp_width > 0 ? d->mlp_width : 4 * d->width, &linear);
    x = ftr_dropout(ftr_gelu(x, FTR_GELU_EXACT), d->dropout);
    x = ftr_linear(x, "3", d->width, &linear);
    ftr_scope_pop(graph);
    return ftr_dropout(x, d->dropout);
}

static ftr_tensor ftr__vit_block(ftr_tensor x, int32_t index, const ftr_vit_desc *d) {
    ftr_graph *graph = x.graph;
    char name[32];
    (void)snprintf(name, sizeof name, "encoder_layer_%d", (int)index);
    ftr_scope_push(graph, name);
    x = ftr_add(x, ftr__vit_attention(ftr__vit_norm(x, "ln_1"), d));
    x = ftr_add(x, ftr__vit_mlp(ftr__vit_norm(x, "ln_2"), d));
    ftr_scope_pop(graph);
    return x;
}

/* The class token and the patches: [n, 1 + patches, width]. */
static ftr_tensor ftr__vit_tokens(ftr_tensor image, const ftr_vit_desc *d) {
    ftr_graph *graph = image.graph;
    const ftr_shape shape = ftr_shape_of(image);
    const int64_t n = shape.dim[0], patches = shape.dim[1] / d->patch * (shape.dim[2] / d->patch);
    const int32_t patch = (int32_t)d->patch;
    const ftr_conv2d_desc conv = {
        .stride = {patch, patch},
        .weight_init = {FTR_INIT_TRUNCATED_NORMAL, 0.0, sqrt(1.0 / (double)(shape.dim[3] * d->patch * d->patch))},
        .bias_init = {FTR_INIT_ZEROS, 0.0, 0.0}};
    const ftr_tensor token = ftr_parameter(graph, "class_token", ftr_dtype_of(image), FTR_SHAPE(1, 1, d->width),
                                           (ftr_init){FTR_INIT_ZEROS, 0.0, 0.0});
    const ftr_tensor x = ftr_conv2d(image, "conv_proj", d->width, patch, &conv);
    const ftr_tensor part[2] = {ftr_expand(token, FTR_SHAPE(n, 1, d->width)),
                                ftr_reshape(x, FTR_SHAPE(n, patches, d->width))};
    return ftr_concat(part, 2, 1);
}

/* [n, t, width] to the class token's row, [n, width]. The last norm is over that row alone: the result is that of a
 * norm over all rows and taking the first. */
static ftr_tensor ftr__vit_encoder(ftr_tensor x, const ftr_vit_desc *d) {
    ftr_graph *graph = x.graph;
    const ftr_shape shape = ftr_shape_of(x);
    ftr_scope_push(graph, "encoder");
    const ftr_tensor position =
        ftr_parameter(graph, "pos_embedding", ftr_dtype_of(x), FTR_SHAPE(1, shape.dim[1], d->width),
                      (ftr_init){FTR_INIT_NORMAL, 0.0, 0.02});
    x = ftr_dropout(ftr_add(x, position), d->dropout);
    ftr_scope_push(graph, "layers");
    for (int32_t i = 0; i < d->layers; i++) x = ftr__vit_block(x, i, d);
    ftr_scope_pop(graph);
    x = ftr_reshape(ftr_slice(x, 1, 0, 1, 1), FTR_SHAPE(shape.dim[0], d->width));
    x = ftr__vit_norm(x, "ln");
    ftr_scope_pop(graph);
    return x;
}

ftr_tensor ftr_vit(ftr_tensor image, const ftr_vit_desc *desc) {
    ftr_graph *graph = ftr__model_image("vit", image, 1);
    const ftr_vit_desc d = desc != NULL ? *desc : ftr_vit_defaults(FTR_VIT_BASE);
    if (graph == NULL || !ftr__vit_is_valid(graph, ftr_shape_of(image), &d)) return (ftr_tensor){NULL, 0};
    ftr_tensor x = ftr__vit_encoder(ftr__vit_tokens(image, &d), &d);
    if (d.features_only) return x;
    const ftr_linear_desc zeros = {.weight_init = {FTR_INIT_ZEROS, 0.0, 0.0}, .bias_init = {FTR_INIT_ZEROS, 0.0, 0.0}};
    ftr_scope_push(graph, "heads");
    x = ftr_linear(x, "head", d.classes, &zeros);
    ftr_scope_pop(graph);
    return x;
}
