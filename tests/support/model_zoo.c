#include "model_zoo.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -------------------------------------------------------------------------------------------------------- models -- */

static ftr_tensor zoo_mlp_of(ftr_tensor x, const zoo_options *options, ftr_mlp_desc desc) {
    static const int64_t hidden[] = {64, 32};
    desc.hidden = hidden;
    desc.hidden_count = 2;
    desc.classes = options->classes;
    desc.features_only = options->features_only;
    return ftr_mlp(x, &desc);
}

static ftr_tensor zoo_mlp(ftr_tensor x, const zoo_options *options) {
    return zoo_mlp_of(x, options, (ftr_mlp_desc){.activation = ftr_silu});
}

static ftr_tensor zoo_mnist_cnn(ftr_tensor image, const zoo_options *options) {
    ftr_mnist_cnn_desc desc = ftr_mnist_cnn_defaults();
    desc.classes = options->classes;
    desc.features_only = options->features_only;
    if (!options->random) desc.dropout1 = desc.dropout2 = 0.0;
    return ftr_mnist_cnn(image, &desc);
}

static ftr_tensor zoo_vit(ftr_tensor image, const zoo_options *options, ftr_vit_size size) {
    ftr_vit_desc desc = ftr_vit_defaults(size);
    if (options->classes > 0) desc.classes = options->classes;
    desc.features_only = options->features_only;
    if (options->random) desc.dropout = desc.attention_dropout = 0.1;
    return ftr_vit(image, &desc);
}

static ftr_tensor zoo_vit_tiny(ftr_tensor image, const zoo_options *options) {
    return zoo_vit(image, options, FTR_VIT_TINY);
}
static ftr_tensor zoo_vit_small(ftr_tensor image, const zoo_options *options) {
    return zoo_vit(image, options, FTR_VIT_SMALL);
}
static ftr_tensor zoo_vit_base(ftr_tensor image, const zoo_options *options) {
    return zoo_vit(image, options, FTR_VIT_BASE);
}

static ftr_tensor zoo_gpt(ftr_tensor tokens, const zoo_options *options, ftr_gpt_desc desc) {
    if (options->classes > 0) desc.vocabulary = options->classes;
    desc.features_only = options->features_only;
    const double p = options->random ? 0.1 : 0.0;
    desc.embedding_dropout = desc.attention_dropout = desc.residual_dropout = p;
    return ftr_gpt(tokens, &desc);
}

static ftr_tensor zoo_gpt2(ftr_tensor tokens, const zoo_options *options) {
    return zoo_gpt(tokens, options, ftr_gpt_defaults(FTR_GPT2));
}
static ftr_tensor zoo_gpt_chars(ftr_tensor tokens, const zoo_options *options) {
    return zoo_gpt(tokens, options, ftr_gpt_defaults(FTR_GPT_CHARS));
}

/* The other names of GPT-2, and a matrix of its own for the logits. */
static ftr_tensor zoo_gpt_untied(ftr_tensor tokens, const zoo_options *options) {
    ftr_gpt_desc desc = ftr_gpt_defaults(FTR_GPT_CHARS);
    desc.mlp_width = 200;
    desc.bare_names = desc.untied = true;
    return zoo_gpt(tokens, options, desc);
}

static ftr_tensor zoo_resnet_of(ftr_tensor image, const zoo_options *options, ftr_resnet_desc desc) {
    desc.classes = options->classes;
    desc.features_only = options->features_only;
    return ftr_resnet(image, &desc);
}

static ftr_tensor zoo_resnet18(ftr_tensor image, const zoo_options *options) {
    return zoo_resnet_of(image, options, (ftr_resnet_desc){.depth = 18});
}

static ftr_tensor zoo_resnet18_small_images(ftr_tensor image, const zoo_options *options) {
    return zoo_resnet_of(image, options,
                         (ftr_resnet_desc){.depth = 18, .small_images = true, .zero_init_residual = true});
}

static ftr_tensor zoo_resnet34(ftr_tensor image, const zoo_options *options) {
    return zoo_resnet_of(image, options, (ftr_resnet_desc){.depth = 34});
}

static ftr_tensor zoo_resnet50(ftr_tensor image, const zoo_options *options) {
    return zoo_resnet_of(image, options, (ftr_resnet_desc){.depth = 0, .zero_init_residual = true});
}

static ftr_tensor zoo_resnet101(ftr_tensor image, const zoo_options *options) {
    return zoo_resnet_of(image, options, (ftr_resnet_desc){.depth = 101});
}

static ftr_tensor zoo_resnet152(ftr_tensor image, const zoo_options *options) {
    return zoo_resnet_of(image, options, (ftr_resnet_desc){.depth = 152});
}

static ftr_tensor zoo_resnet_cifar_of(ftr_tensor image, const zoo_options *options, int32_t depth) {
    return ftr_resnet_cifar(image, &(ftr_resnet_cifar_desc){depth, options->classes, options->features_only});
}

static ftr_tensor zoo_resnet20(ftr_tensor image, const zoo_options *options) {
    return zoo_resnet_cifar_of(image, options, 0);
}

static ftr_tensor zoo_resnet56(ftr_tensor image, const zoo_options *options) {
    return zoo_resnet_cifar_of(image, options, 56);
}

static ftr_tensor zoo_mobilenet_v2_of(ftr_tensor image, const zoo_options *options, double width) {
    ftr_mobilenet_v2_desc desc = ftr_mobilenet_v2_defaults();
    if (options->classes) desc.classes = options->classes;
    desc.width = width;
    desc.features_only = options->features_only;
    if (!options->random) desc.dropout = 0.0;
    return ftr_mobilenet_v2(image, &desc);
}

static ftr_tensor zoo_mobilenet_v2(ftr_tensor image, const zoo_options *options) {
    return zoo_mobilenet_v2_of(image, options, 1.0);
}

static ftr_tensor zoo_mobilenet_v2_half(ftr_tensor image, const zoo_options *options) {
    return zoo_mobilenet_v2_of(image, options, 0.5);
}

static ftr_tensor zoo_mobilenet_v3_of(ftr_tensor image, const zoo_options *options, bool small, double width) {
    ftr_mobilenet_v3_desc desc = ftr_mobilenet_v3_defaults();
    desc.small = small;
    if (options->classes) desc.classes = options->classes;
    desc.width = width;
    desc.features_only = options->features_only;
    if (!options->random) desc.dropout = 0.0;
    return ftr_mobilenet_v3(image, &desc);
}

static ftr_tensor zoo_mobilenet_v3_small(ftr_tensor image, const zoo_options *options) {
    return zoo_mobilenet_v3_of(image, options, true, 1.0);
}

static ftr_tensor zoo_mobilenet_v3_small_half(ftr_tensor image, const zoo_options *options) {
    return zoo_mobilenet_v3_of(image, options, true, 0.5);
}

static ftr_tensor zoo_mobilenet_v3_large(ftr_tensor image, const zoo_options *options) {
    return zoo_mobilenet_v3_of(image, options, false, 1.0);
}

static ftr_tensor zoo_efficientnet_of(ftr_tensor image, const zoo_options *options, int32_t variant) {
    ftr_efficientnet_desc desc = ftr_efficientnet_defaults(variant);
    if (options->classes) desc.classes = options->classes;
    desc.features_only = options->features_only;
    if (!options->random) desc.dropout = desc.stochastic_depth = 0.0;
    return ftr_efficientnet(image, &desc);
}

static ftr_tensor zoo_efficientnet_b0(ftr_tensor image, const zoo_options *options) {
    return zoo_efficientnet_of(image, options, 0);
}

static ftr_tensor zoo_efficientnet_b1(ftr_tensor image, const zoo_options *options) {
    return zoo_efficientnet_of(image, options, 1);
}

static ftr_tensor zoo_efficientnet_b2(ftr_tensor image, const zoo_options *options) {
    return zoo_efficientnet_of(image, options, 2);
}

static ftr_tensor zoo_efficientnet_lite0(ftr_tensor image, const zoo_options *options) {
    ftr_efficientnet_lite0_desc desc = ftr_efficientnet_lite0_defaults();
    if (options->classes) desc.classes = options->classes;
    desc.features_only = options->features_only;
    if (!options->random) desc.dropout = desc.stochastic_depth = 0.0;
    return ftr_efficientnet_lite0(image, &desc);
}

#define ZOO_IMAGE(size)                                                                                                \
    {                                                                                                                  \
        4, { 1, size, size, 3 }                                                                                        \
    }

static const zoo_model zoo_models[] = {
    {"mlp", FTR_F32, {2, {1, 20}}, zoo_mlp},
    {"mnist_cnn", FTR_F32, {4, {1, 28, 28, 1}}, zoo_mnist_cnn},
    {"resnet18", FTR_F32, ZOO_IMAGE(224), zoo_resnet18},
    {"resnet34", FTR_F32, ZOO_IMAGE(224), zoo_resnet34},
    {"resnet50", FTR_F32, ZOO_IMAGE(224), zoo_resnet50},
    {"resnet101", FTR_F32, ZOO_IMAGE(224), zoo_resnet101},
    {"resnet152", FTR_F32, ZOO_IMAGE(224), zoo_resnet152},
    {"resnet18_small_images", FTR_F32, ZOO_IMAGE(32), zoo_resnet18_small_images},
    {"resnet20", FTR_F32, ZOO_IMAGE(32), zoo_resnet20},
    {"resnet56", FTR_F32, ZOO_IMAGE(32), zoo_resnet56},
    {"mobilenet_v2", FTR_F32, ZOO_IMAGE(224), zoo_mobilenet_v2},
    {"mobilenet_v2_half", FTR_F32, ZOO_IMAGE(224), zoo_mobilenet_v2_half},
    {"mobilenet_v3_small", FTR_F32, ZOO_IMAGE(224), zoo_mobilenet_v3_small},
    {"mobilenet_v3_small_half", FTR_F32, ZOO_IMAGE(224), zoo_mobilenet_v3_small_half},
    {"mobilenet_v3_large", FTR_F32, ZOO_IMAGE(224), zoo_mobilenet_v3_large},
    {"efficientnet_b0", FTR_F32, ZOO_IMAGE(224), zoo_efficientnet_b0},
    {"efficientnet_b1", FTR_F32, ZOO_IMAGE(240), zoo_efficientnet_b1},
    {"efficientnet_b2", FTR_F32, ZOO_IMAGE(288), zoo_efficientnet_b2},
    {"efficientnet_lite0", FTR_F32, ZOO_IMAGE(224), zoo_efficientnet_lite0},
    {"vit_ti_16", FTR_F32, {4, {1, 48, 48, 3}}, zoo_vit_tiny},
    {"vit_s_16", FTR_F32, {4, {1, 64, 64, 3}}, zoo_vit_small},
    {"vit_b_16", FTR_F32, {4, {1, 64, 64, 3}}, zoo_vit_base},
    {"gpt2", FTR_I32, {2, {1, 16}}, zoo_gpt2},
    {"gpt_chars", FTR_I32, {2, {1, 64}}, zoo_gpt_chars},
    {"gpt_untied", FTR_I32, {2, {1, 64}}, zoo_gpt_untied},
};

const zoo_model *zoo_at(int32_t index) {
    const int32_t count = (int32_t)(sizeof zoo_models / sizeof zoo_models[0]);
    return index >= 0 && index < count ? &zoo_models[index] : NULL;
}

bool zoo_is_wanted(const char *name) {
    const char *list = getenv("FTR_TEST_MODELS");
    const size_t length = strlen(name);
    for (const char *at = list; at && *at; at += strcspn(at, " ")) {
        at += strspn(at, " ");
        if (strcspn(at, " ") == length && strncmp(at, name, length) == 0) return true;
    }
    return !list;
}

const zoo_model *zoo_find(const char *name) {
    for (int32_t i = 0; zoo_at(i); i++)
        if (strcmp(zoo_at(i)->name, name) == 0) return zoo_at(i);
    return NULL;
}

/* ------------------------------------------------------------------------------------------------------ networks -- */

zoo_network zoo_build(ftr_graph *graph, const zoo_model *model, ftr_shape input, const zoo_options *options) {
    zoo_network net;
    net.x = ftr_input(graph, "x", model->input_dtype, input);
    net.logits = model->build(net.x, options);
    ftr_shape labels = ftr_shape_of(net.logits);
    labels.rank = labels.rank > 0 ? labels.rank - 1 : 0;
    net.y = ftr_input(graph, "y", FTR_I32, labels);
    net.loss = ftr_cross_entropy(net.logits, net.y, NULL);
    return net;
}

ftr_tensor *zoo_parameters(ftr_graph *graph, int32_t *count) {
    const int32_t all = ftr_variable_count(graph);
    ftr_tensor *parameters = malloc(((size_t)all + 1) * sizeof *parameters);
    *count = 0;
    for (int32_t i = 0; i < all && parameters; i++)
        if (ftr_is_parameter(ftr_variable_at(graph, i))) parameters[(*count)++] = ftr_variable_at(graph, i);
    return parameters;
}

size_t zoo_bytes(ftr_tensor tensor) {
    const ftr_shape shape = ftr_shape_of(tensor);
    return (size_t)ftr_shape_count(&shape) * ftr_dtype_size(ftr_dtype_of(tensor));
}

/* ------------------------------------------------------------------------------------------------------- weights -- */

int64_t zoo_file_index(const ftr_shape *shape, int64_t index) {
    if (shape->rank != 4) return index;
    const int64_t pixels = shape->dim[1] * shape->dim[2], in = shape->dim[3];
    const int64_t out = index / (pixels * in), pixel = index / in % pixels, channel = index % in;
    return (out * in + channel) * pixels + pixel;
}

uint64_t zoo_hash(const char *name) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
    return hash;
}

uint64_t zoo_bits(uint64_t hash, int64_t index) {
    uint64_t z = hash + (uint64_t)(index + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static double zoo_unit(uint64_t bits) { return (double)(bits >> 40) * 0x1p-24; }

double zoo_uniform(const char *name, int64_t index) { return zoo_unit(zoo_bits(zoo_hash(name), index)); }

static bool zoo_ends_with(const char *name, const char *end) {
    const size_t length = strlen(name), size = strlen(end);
    return length >= size && strcmp(name + length - size, end) == 0;
}

/* Whether a variable belongs to a normalization: the weight of its layer is a vector. */
static bool zoo_is_norm(ftr_graph *graph, const char *name) {
    char weight[300];
    const char *dot = strrchr(name, '.');
    const int length = dot ? (int)(dot - name) : 0;
    snprintf(weight, sizeof weight, "%.*s.weight", length, name);
    const ftr_tensor found = ftr_variable_find(graph, weight);
    return ftr_is_valid(found) && ftr_shape_of(found).rank == 1;
}

/* Both are rounded to f32 first: the product is exact then, and the sum rounds once, on any machine and in Python. */
static float zoo_spread(double u, double low, double width) {
    return (float)((double)(float)low + (double)(float)width * u);
}

/* What a variable's values are: low + width * u, u from zoo_uniform(). */
typedef struct zoo_range {
    double low, width;
} zoo_range;

static zoo_range zoo_range_of(ftr_graph *graph, const char *name, const ftr_shape *shape) {
    if (zoo_ends_with(name, "running_var")) return (zoo_range){0.5, 1.0};
    if (zoo_ends_with(name, "running_mean")) return (zoo_range){-0.1, 0.2};
    if (shape->rank >= 2) {
        const double bound = sqrt(6.0 * (double)shape->dim[0] / (double)ftr_shape_count(shape));
        return (zoo_range){-bound, 2.0 * bound};
    }
    return zoo_is_norm(graph, name) ? (zoo_range){0.5, 0.5} : (zoo_range){-0.1, 0.2};
}

static float zoo_norm_bias(double u, double bias, bool positive) {
    if (positive) return zoo_spread(u, 0.75 * bias, 0.25 * bias);
    return u < 0.5 ? zoo_spread(u, -0.75 * bias, -0.5 * bias) : zoo_spread(u, 0.5 * bias, 0.5 * bias);
}

static ftr_status zoo_fill_variable(ftr_tensor variable, double bias, bool positive) {
    const char *name = ftr_name_of(variable);
    const ftr_shape shape = ftr_shape_of(variable);
    const zoo_range range = zoo_range_of(variable.graph, name, &shape);
    const bool norm_bias = shape.rank == 1 && zoo_ends_with(name, ".bias") && zoo_is_norm(variable.graph, name);
    const uint64_t hash = zoo_hash(name);
    const int64_t count = ftr_shape_count(&shape);
    float *data = malloc((size_t)count * sizeof *data);
    if (!data) return FTR_ERROR_OUT_OF_MEMORY;
    for (int64_t i = 0; i < count; i++) {
        const double u = zoo_unit(zoo_bits(hash, zoo_file_index(&shape, i)));
        data[i] = norm_bias ? zoo_norm_bias(u, bias, positive) : zoo_spread(u, range.low, range.width);
    }
    const ftr_status status = ftr_variable_write(variable, data, (size_t)count * sizeof *data);
    free(data);
    return status;
}

ftr_status zoo_fill_weights(ftr_graph *graph, double bias, bool positive) {
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < ftr_variable_count(graph) && status == FTR_OK; i++)
        status = zoo_fill_variable(ftr_variable_at(graph, i), bias, positive);
    return status;
}

/* -------------------------------------------------------------------------------------------------------- inputs -- */

static void zoo_fill_input(const char *name, void *data, ftr_dtype dtype, int64_t count, int64_t classes) {
    const uint64_t hash = zoo_hash(name);
    const double bound = sqrt(3.0);
    for (int64_t i = 0; i < count; i++) {
        const double u = zoo_unit(zoo_bits(hash, i));
        if (dtype == FTR_F32)
            ((float *)data)[i] = zoo_spread(u, -bound, 2.0 * bound);
        else
            ((int32_t *)data)[i] = (int32_t)(u * (double)classes);
    }
}

ftr_status zoo_feed(ftr_plan *plan, const zoo_network *net, const char *prefix) {
    const ftr_shape logits = ftr_shape_of(net->logits);
    const int64_t classes = logits.rank > 0 ? logits.dim[logits.rank - 1] : 1;
    const ftr_tensor inputs[2] = {net->x, net->y};
    ftr_status status = FTR_OK;
    for (int i = 0; i < 2 && status == FTR_OK; i++) {
        char name[256];
        const ftr_shape shape = ftr_shape_of(inputs[i]);
        snprintf(name, sizeof name, "%s/%c", prefix, "xy"[i]);
        void *data = malloc(zoo_bytes(inputs[i]) + 1);
        if (!data) return FTR_ERROR_OUT_OF_MEMORY;
        zoo_fill_input(name, data, ftr_dtype_of(inputs[i]), ftr_shape_count(&shape), classes);
        status = ftr_feed(plan, inputs[i], data, zoo_bytes(inputs[i]));
        free(data);
    }
    return status;
}
