/* EfficientNet (Tan, Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019) as
 * torchvision's, and its Lite0 as TensorFlow's. */
#include "models/blocks.h"

#include <math.h>

#define FTR__COOKIE_EFFICIENTNET 0x45464e54u
#define FTR__COOKIE_EFFICIENTNET_LITE0 0x45464c30u

/* Table 1 of the paper: the stages of B0. */
typedef struct ftr__efficientnet_stage {
    int32_t expansion, kernel, stride, channels, blocks;
} ftr__efficientnet_stage;

#define FTR__EFFICIENTNET_STAGES 7

static const ftr__efficientnet_stage ftr__efficientnet_stages[FTR__EFFICIENTNET_STAGES] = {
    {1, 3, 1, 16, 1},  {6, 3, 2, 24, 2},  {6, 5, 2, 40, 2}, {6, 3, 2, 80, 3},
    {6, 5, 1, 112, 3}, {6, 5, 2, 192, 4}, {6, 3, 1, 320, 1}};

/* ---- B0 to B2 */

typedef struct ftr__efficientnet_scale {
    double width, depth, dropout;
} ftr__efficientnet_scale;

#define FTR__EFFICIENTNET_VARIANTS 3

static ftr__efficientnet_scale ftr__efficientnet_scale_of(int32_t variant) {
    static const ftr__efficientnet_scale scales[FTR__EFFICIENTNET_VARIANTS] = {
        {1.0, 1.0, 0.2}, {1.0, 1.1, 0.2}, {1.1, 1.2, 0.3}};
    return scales[variant >= 0 && variant < FTR__EFFICIENTNET_VARIANTS ? variant : 0];
}

ftr_efficientnet_desc ftr_efficientnet_defaults(int32_t variant) {
    return (ftr_efficientnet_desc){.cookie = FTR__COOKIE_EFFICIENTNET,
                                   .variant = variant,
                                   .classes = 1000,
                                   .dropout = ftr__efficientnet_scale_of(variant).dropout,
                                   .stochastic_depth = 0.2};
}

static int32_t ftr__efficientnet_blocks(const ftr__efficientnet_stage *stage, double depth) {
    return (int32_t)ceil(stage->blocks * depth);
}

static ftr_tensor ftr__efficientnet_features(ftr_tensor x, ftr__efficientnet_scale scale, double stochastic_depth) {
    const ftr__conv_norm_act stem = {ftr__divisible_channels(32.0 * scale.width), 3, 2, false, NULL, ftr_silu};
    x = ftr__conv_norm(x, "features.0", &stem);
    int32_t total = 0, number = 0;
    for (int32_t s = 0; s < FTR__EFFICIENTNET_STAGES; s++)
        total += ftr__efficientnet_blocks(&ftr__efficientnet_stages[s], scale.depth);
    for (int32_t s = 0; s < FTR__EFFICIENTNET_STAGES; s++) {
        const ftr__efficientnet_stage *stage = &ftr__efficientnet_stages[s];
        for (int32_t i = 0; i < ftr__efficientnet_blocks(stage, scale.depth); i++) {
            const int64_t channels = ftr_shape_of(x).dim[3];
            const ftr__inverted_residual block = {.expanded =
                                                      ftr__divisible_channels((double)(channels * stage->expansion)),
                                                  .channels = ftr__divisible_channels(stage->channels * scale.width),
                                                  .squeezed = channels / 4,
                                                  .kernel = stage->kernel,
                                                  .stride = i == 0 ? stage->stride : 1,
                                                  .activation = ftr_silu,
                                                  .squeeze_activation = ftr_silu,
                                                  .gate = ftr_sigmoid,
                                                  .stochastic_depth = stochastic_depth * number++ / total};
            ftr__model_scope(x.graph, "features.%d.%d", (int)s + 1, (int)i);
            x = ftr__inverted_residual_block(x, &block);
            ftr_scope_pop(x.graph);
        }
    }
    const ftr__conv_norm_act head = {4 * ftr_shape_of(x).dim[3], 1, 1, false, NULL, ftr_silu};
    return ftr__conv_norm(x, "features.8", &head);
}

ftr_tensor ftr_efficientnet(ftr_tensor image, const ftr_efficientnet_desc *desc) {
    const ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__model_image("efficientnet", image, 1);
    if (graph == NULL) return none;
    const ftr_efficientnet_desc d = desc != NULL ? *desc : ftr_efficientnet_defaults(0);
    if (!ftr__model_cookie(graph, "efficientnet", d.cookie == FTR__COOKIE_EFFICIENTNET)) return none;
    if (d.variant < 0 || d.variant >= FTR__EFFICIENTNET_VARIANTS)
        return ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "efficientnet", NULL,
                              "variant is %d, expected 0 to %d", (int)d.variant, FTR__EFFICIENTNET_VARIANTS - 1);
    const int64_t classes = ftr__model_classes(graph, "efficientnet", d.classes, 1000);
    if (classes == 0 || !ftr__model_probability(graph, "efficientnet", "dropout", d.dropout) ||
        !ftr__model_probability(graph, "efficientnet", "stochastic_depth", d.stochastic_depth))
        return none;
    ftr_tensor x = ftr__efficientnet_features(image, ftr__efficientnet_scale_of(d.variant), d.stochastic_depth);
    x = ftr_global_avg_pool(x);
    if (d.features_only) return x;
    const double bound = 1.0 / sqrt((double)classes);
    const ftr_linear_desc linear = {.weight_init = {FTR_INIT_UNIFORM, -bound, bound},
                                    .bias_init = {FTR_INIT_ZEROS, 0.0, 0.0}};
    return ftr_linear(ftr_dropout(x, d.dropout), "classifier.1", classes, &linear);
}

/* ---- Lite0 */

ftr_efficientnet_lite0_desc ftr_efficientnet_lite0_defaults(void) {
    return (ftr_efficientnet_lite0_desc){
        .cookie = FTR__COOKIE_EFFICIENTNET_LITE0, .classes = 1000, .dropout = 0.2, .stochastic_depth = 0.2};
}

/* Zeros in front of and behind `size` elements, such that a stride gives ceil(size / stride) of them. */
static void ftr__lite0_padding(int64_t size, int32_t kernel, int32_t stride, int32_t padding[2]) {
    const int64_t results = (size + stride - 1) / stride, missing = (results - 1) * stride + kernel - size;
    const int32_t total = missing > 0 ? (int32_t)missing : 0;
    padding[0] = total / 2;
    padding[1] = total - total / 2;
}

static ftr_tensor ftr__lite0_conv(ftr_tensor x, const char *name, const char *norm_name, int64_t channels,
                                  int32_t kernel, int32_t stride, bool depthwise) {
    ftr_conv2d_desc conv = {.stride = {stride, stride}, .groups = depthwise ? (int32_t)channels : 1, .no_bias = true};
    const ftr_shape shape = ftr_shape_of(x);
    for (int32_t i = 0; i < 2; i++) ftr__lite0_padding(shape.dim[1 + i], kernel, stride, conv.padding + 2 * i);
    ftr_batch_norm_desc norm = ftr_batch_norm_defaults();
    norm.eps = 1e-3;
    norm.momentum = 0.01;
    return ftr_batch_norm(ftr_conv2d(x, name, channels, kernel, &conv), norm_name, &norm);
}

static ftr_tensor ftr__lite0_block(ftr_tensor x, const ftr__efficientnet_stage *stage, int32_t stride,
                                   double stochastic_depth) {
    const ftr_tensor input = x;
    const int64_t channels = ftr_shape_of(x).dim[3], expanded = channels * stage->expansion;
    if (stage->expansion != 1) x = ftr_relu6(ftr__lite0_conv(x, "_expand_conv", "_bn0", expanded, 1, 1, false));
    x = ftr_relu6(ftr__lite0_conv(x, "_depthwise_conv", "_bn1", expanded, stage->kernel, stride, true));
    x = ftr__lite0_conv(x, "_project_conv", "_bn2", stage->channels, 1, 1, false);
    return stride == 1 && channels == stage->channels ? ftr_add(ftr_stochastic_depth(x, stochastic_depth), input) : x;
}

ftr_tensor ftr_efficientnet_lite0(ftr_tensor image, const ftr_efficientnet_lite0_desc *desc) {
    const ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__model_image("efficientnet_lite0", image, 1);
    if (graph == NULL) return none;
    const ftr_efficientnet_lite0_desc d = desc != NULL ? *desc : ftr_efficientnet_lite0_defaults();
    if (!ftr__model_cookie(graph, "efficientnet_lite0", d.cookie == FTR__COOKIE_EFFICIENTNET_LITE0)) return none;
    const int64_t classes = ftr__model_classes(graph, "efficientnet_lite0", d.classes, 1000);
    if (classes == 0 || !ftr__model_probability(graph, "efficientnet_lite0", "dropout", d.dropout) ||
        !ftr__model_probability(graph, "efficientnet_lite0", "stochastic_depth", d.stochastic_depth))
        return none;
    ftr_tensor x = ftr_relu6(ftr__lite0_conv(image, "_conv_stem", "_bn0", 32, 3, 2, false));
    int32_t number = 0;
    for (int32_t s = 0; s < FTR__EFFICIENTNET_STAGES; s++) {
        const ftr__efficientnet_stage *stage = &ftr__efficientnet_stages[s];
        for (int32_t i = 0; i < stage->blocks; i++, number++) {
            ftr__model_scope(graph, "_blocks.%d", (int)number);
            x = ftr__lite0_block(x, stage, i == 0 ? stage->stride : 1, d.stochastic_depth * number / 16.0);
            ftr_scope_pop(graph);
        }
    }
    x = ftr_global_avg_pool(ftr_relu6(ftr__lite0_conv(x, "_conv_head", "_bn1", 1280, 1, 1, false)));
    return d.features_only ? x : ftr_linear(ftr_dropout(x, d.dropout), "_fc", classes, NULL);
}
