/* MobileNetV2 (Sandler et al., CVPR 2018) and MobileNetV3 (Howard et al., ICCV 2019), as torchvision's. */
#include "models/blocks.h"

#define FTR__COOKIE_MOBILENET_V2 0x4d4e5632u
#define FTR__COOKIE_MOBILENET_V3 0x4d4e5633u

/* Linear layer whose weight is normal with deviation 0.01 and whose bias is 0. */
static ftr_tensor ftr__mobilenet_linear(ftr_tensor x, const char *name, int64_t size) {
    const ftr_linear_desc desc = {.weight_init = {FTR_INIT_NORMAL, 0.0, 0.01}, .bias_init = {FTR_INIT_ZEROS, 0.0, 0.0}};
    return ftr_linear(x, name, size, &desc);
}

static bool ftr__mobilenet_options_are_valid(ftr_graph *graph, const char *model, double width, double dropout) {
    if (width > 0.0 && width <= 16.0) return ftr__model_probability(graph, model, "dropout", dropout);
    (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, model, NULL, "width is %g, expected above 0 to 16", width);
    return false;
}

/* ---- V2 */

ftr_mobilenet_v2_desc ftr_mobilenet_v2_defaults(void) {
    return (ftr_mobilenet_v2_desc){.cookie = FTR__COOKIE_MOBILENET_V2, .classes = 1000, .width = 1.0, .dropout = 0.2};
}

/* In the scope "conv": 1x1 expansion if there is one, depthwise convolution, 1x1 projection; plus x where shapes allow. */
static ftr_tensor ftr__mobilenet_v2_block(ftr_tensor x, int32_t expansion, int64_t channels, int32_t stride) {
    const ftr_tensor input = x;
    const int64_t in_channels = ftr_shape_of(x).dim[3];
    const ftr_conv2d_desc project = {.no_bias = true, .weight_init = {FTR_INIT_KAIMING_NORMAL_FAN_OUT, 0.0, 0.0}};
    ftr__conv_norm_act layer = {in_channels * expansion, 1, 1, false, NULL, ftr_relu6};
    const bool expands = expansion != 1;
    ftr_scope_push(x.graph, "conv");
    if (expands) x = ftr__conv_norm(x, "0", &layer);
    layer.kernel = 3;
    layer.stride = stride;
    layer.depthwise = true;
    x = ftr__conv_norm(x, expands ? "1" : "0", &layer);
    x = ftr_conv2d(x, expands ? "2" : "1", channels, 1, &project);
    x = ftr_batch_norm(x, expands ? "3" : "2", NULL);
    ftr_scope_pop(x.graph);
    return stride == 1 && in_channels == channels ? ftr_add(x, input) : x;
}

/* The features: block number i in the scope "features.i". */
static ftr_tensor ftr__mobilenet_v2_features(ftr_tensor x, double width) {
    static const struct {
        int32_t expansion, channels, blocks, stride;
    } stages[] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
                  {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};
    const ftr__conv_norm_act stem = {ftr__divisible_channels(32.0 * width), 3, 2, false, NULL, ftr_relu6};
    const double last_width = width < 1.0 ? 1.0 : width;
    const ftr__conv_norm_act head = {ftr__divisible_channels(1280.0 * last_width), 1, 1, false, NULL, ftr_relu6};
    int32_t number = 1;
    x = ftr__conv_norm(x, "features.0", &stem);
    for (size_t s = 0; s < sizeof stages / sizeof stages[0]; s++) {
        for (int32_t i = 0; i < stages[s].blocks; i++) {
            ftr__model_scope(x.graph, "features.%d", (int)number++);
            x = ftr__mobilenet_v2_block(x, stages[s].expansion, ftr__divisible_channels(stages[s].channels * width),
                                        i == 0 ? stages[s].stride : 1);
            ftr_scope_pop(x.graph);
        }
    }
    return ftr__conv_norm(x, "features.18", &head);
}

ftr_tensor ftr_mobilenet_v2(ftr_tensor image, const ftr_mobilenet_v2_desc *desc) {
    const ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__model_image("mobilenet_v2", image, 1);
    if (graph == NULL) return none;
    const ftr_mobilenet_v2_desc d = desc != NULL ? *desc : ftr_mobilenet_v2_defaults();
    if (!ftr__model_cookie(graph, "mobilenet_v2", d.cookie == FTR__COOKIE_MOBILENET_V2) ||
        !ftr__mobilenet_options_are_valid(graph, "mobilenet_v2", d.width, d.dropout))
        return none;
    const int64_t classes = ftr__model_classes(graph, "mobilenet_v2", d.classes, 1000);
    if (classes == 0) return none;
    const ftr_tensor x = ftr_global_avg_pool(ftr__mobilenet_v2_features(image, d.width));
    return d.features_only ? x : ftr__mobilenet_linear(ftr_dropout(x, d.dropout), "classifier.1", classes);
}

/* ---- V3 */

ftr_mobilenet_v3_desc ftr_mobilenet_v3_defaults(void) {
    return (ftr_mobilenet_v3_desc){.cookie = FTR__COOKIE_MOBILENET_V3, .classes = 1000, .width = 1.0, .dropout = 0.2};
}

/* Tables 1 and 2 of the paper: kernel, expanded size, result, squeeze-excite, hardswish (otherwise ReLU), stride. */
typedef struct ftr__mobilenet_v3_row {
    int32_t kernel, expanded, channels;
    bool squeeze, hardswish;
    int32_t stride;
} ftr__mobilenet_v3_row;

static const ftr__mobilenet_v3_row ftr__mobilenet_v3_large[] = {
    {3, 16, 16, false, false, 1}, {3, 64, 24, false, false, 2}, {3, 72, 24, false, false, 1},
    {5, 72, 40, true, false, 2},  {5, 120, 40, true, false, 1}, {5, 120, 40, true, false, 1},
    {3, 240, 80, false, true, 2}, {3, 200, 80, false, true, 1}, {3, 184, 80, false, true, 1},
    {3, 184, 80, false, true, 1}, {3, 480, 112, true, true, 1}, {3, 672, 112, true, true, 1},
    {5, 672, 160, true, true, 2}, {5, 960, 160, true, true, 1}, {5, 960, 160, true, true, 1}};

static const ftr__mobilenet_v3_row ftr__mobilenet_v3_small[] = {
    {3, 16, 16, true, false, 2}, {3, 72, 24, false, false, 2}, {3, 88, 24, false, false, 1},
    {5, 96, 40, true, true, 2},  {5, 240, 40, true, true, 1},  {5, 240, 40, true, true, 1},
    {5, 120, 48, true, true, 1}, {5, 144, 48, true, true, 1},  {5, 288, 96, true, true, 2},
    {5, 576, 96, true, true, 1}, {5, 576, 96, true, true, 1}};

static ftr_tensor ftr__mobilenet_v3_block(ftr_tensor x, const ftr__mobilenet_v3_row *row, double width,
                                          const ftr_batch_norm_desc *norm) {
    const int64_t expanded = ftr__divisible_channels(row->expanded * width);
    const ftr__inverted_residual block = {.expanded = expanded,
                                          .channels = ftr__divisible_channels(row->channels * width),
                                          .squeezed =
                                              row->squeeze ? ftr__divisible_channels((double)(expanded / 4)) : 0,
                                          .kernel = row->kernel,
                                          .stride = row->stride,
                                          .norm = norm,
                                          .activation = row->hardswish ? ftr_hardswish : ftr_relu,
                                          .squeeze_activation = ftr_relu,
                                          .gate = ftr_hardsigmoid};
    return ftr__inverted_residual_block(x, &block);
}

static ftr_tensor ftr__mobilenet_v3_features(ftr_tensor x, bool small, double width) {
    const ftr__mobilenet_v3_row *rows = small ? ftr__mobilenet_v3_small : ftr__mobilenet_v3_large;
    const int32_t count = small ? 11 : 15;
    ftr_batch_norm_desc norm = ftr_batch_norm_defaults();
    norm.eps = 1e-3;
    norm.momentum = 0.01;
    ftr__conv_norm_act layer = {ftr__divisible_channels(16.0 * width), 3, 2, false, &norm, ftr_hardswish};
    x = ftr__conv_norm(x, "features.0", &layer);
    for (int32_t i = 0; i < count; i++) {
        ftr__model_scope(x.graph, "features.%d", (int)i + 1);
        x = ftr__mobilenet_v3_block(x, &rows[i], width, &norm);
        ftr_scope_pop(x.graph);
    }
    layer = (ftr__conv_norm_act){6 * ftr_shape_of(x).dim[3], 1, 1, false, &norm, ftr_hardswish};
    return ftr__conv_norm(x, small ? "features.12" : "features.16", &layer);
}

ftr_tensor ftr_mobilenet_v3(ftr_tensor image, const ftr_mobilenet_v3_desc *desc) {
    const ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__model_image("mobilenet_v3", image, 1);
    if (graph == NULL) return none;
    const ftr_mobilenet_v3_desc d = desc != NULL ? *desc : ftr_mobilenet_v3_defaults();
    if (!ftr__model_cookie(graph, "mobilenet_v3", d.cookie == FTR__COOKIE_MOBILENET_V3) ||
        !ftr__mobilenet_options_are_valid(graph, "mobilenet_v3", d.width, d.dropout))
        return none;
    const int64_t classes = ftr__model_classes(graph, "mobilenet_v3", d.classes, 1000);
    if (classes == 0) return none;
    ftr_tensor x = ftr_global_avg_pool(ftr__mobilenet_v3_features(image, d.small, d.width));
    if (d.features_only) return x;
    const int64_t hidden = ftr__divisible_channels((d.small ? 1024.0 : 1280.0) * d.width);
    x = ftr_hardswish(ftr__mobilenet_linear(x, "classifier.0", hidden));
    return ftr__mobilenet_linear(ftr_dropout(x, d.dropout), "classifier.3", classes);
}
