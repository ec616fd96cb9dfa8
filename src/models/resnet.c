/* Residual networks (He et al.: Deep Residual Learning for Image Recognition, CVPR 2016). */
#include "models/blocks.h"

/* ---- as torchvision's */

typedef struct ftr__resnet_kind {
    int32_t depth;
    bool bottleneck;
    int32_t blocks[4]; /* of each layer */
} ftr__resnet_kind;

static const ftr__resnet_kind *ftr__resnet_kind_of(int32_t depth) {
    static const ftr__resnet_kind kinds[] = {{18, false, {2, 2, 2, 2}},
                                             {34, false, {3, 4, 6, 3}},
                                             {50, true, {3, 4, 6, 3}},
                                             {101, true, {3, 4, 23, 3}},
                                             {152, true, {3, 8, 36, 3}}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (kinds[i].depth == depth) return &kinds[i];
    return NULL;
}

/* Convolution without bias that keeps the size but for its stride. */
static ftr_tensor ftr__resnet_conv(ftr_tensor x, const char *name, int64_t channels, int32_t kernel, int32_t stride,
                                   ftr_init_kind init) {
    const int32_t pad = kernel / 2;
    const ftr_conv2d_desc desc = {
        .stride = {stride, stride}, .padding = {pad, pad, pad, pad}, .no_bias = true, .weight_init = {init, 0.0, 0.0}};
    return ftr_conv2d(x, name, channels, kernel, &desc);
}

static ftr_tensor ftr__resnet_conv_fan_out(ftr_tensor x, const char *name, int64_t channels, int32_t kernel,
                                           int32_t stride) {
    return ftr__resnet_conv(x, name, channels, kernel, stride, FTR_INIT_KAIMING_NORMAL_FAN_OUT);
}

/* The last batch norm of a block. */
static ftr_tensor ftr__resnet_last_norm(ftr_tensor x, const char *name, bool zero) {
    ftr_batch_norm_desc desc = ftr_batch_norm_defaults();
    if (zero) desc.weight_init.kind = FTR_INIT_ZEROS;
    return ftr_batch_norm(x, name, &desc);
}

static ftr_tensor ftr__resnet_basic(ftr_tensor x, int64_t channels, int32_t stride, bool zero) {
    x = ftr_relu(ftr_batch_norm(ftr__resnet_conv_fan_out(x, "conv1", channels, 3, stride), "bn1", NULL));
    return ftr__resnet_last_norm(ftr__resnet_conv_fan_out(x, "conv2", channels, 3, 1), "bn2", zero);
}

static ftr_tensor ftr__resnet_bottleneck(ftr_tensor x, int64_t channels, int32_t stride, bool zero) {
    x = ftr_relu(ftr_batch_norm(ftr__resnet_conv_fan_out(x, "conv1", channels / 4, 1, 1), "bn1", NULL));
    x = ftr_relu(ftr_batch_norm(ftr__resnet_conv_fan_out(x, "conv2", channels / 4, 3, stride), "bn2", NULL));
    return ftr__resnet_last_norm(ftr__resnet_conv_fan_out(x, "conv3", channels, 1, 1), "bn3", zero);
}

static ftr_tensor ftr__resnet_block(ftr_tensor x, int64_t channels, int32_t stride, bool bottleneck, bool zero) {
    ftr_tensor shortcut = x;
    x = bottleneck ? ftr__resnet_bottleneck(x, channels, stride, zero) : ftr__resnet_basic(x, channels, stride, zero);
    if (stride != 1 || ftr_shape_of(shortcut).dim[3] != channels) {
        shortcut = ftr__resnet_conv_fan_out(shortcut, "downsample.0", channels, 1, stride);
        shortcut = ftr_batch_norm(shortcut, "downsample.1", NULL);
    }
    return ftr_relu(ftr_add(x, shortcut));
}

static ftr_tensor ftr__resnet_stem(ftr_tensor x, bool small_images) {
    const ftr_pool2d_desc pool = {.stride = {2, 2}, .padding = {1, 1, 1, 1}};
    x = small_images ? ftr__resnet_conv_fan_out(x, "conv1", 64, 3, 1) : ftr__resnet_conv_fan_out(x, "conv1", 64, 7, 2);
    x = ftr_relu(ftr_batch_norm(x, "bn1", NULL));
    return small_images ? x : ftr_max_pool2d(x, 3, 3, &pool);
}

ftr_tensor ftr_resnet(ftr_tensor image, const ftr_resnet_desc *desc) {
    const ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__model_image("resnet", image, 1);
    if (graph == NULL) return none;
    const ftr_resnet_desc d = desc != NULL ? *desc : (ftr_resnet_desc){.depth = 50};
    const ftr__resnet_kind *kind = ftr__resnet_kind_of(d.depth == 0 ? 50 : d.depth);
    if (kind == NULL)
        return ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "resnet", NULL,
                              "depth is %d, expected 18, 34, 50, 101 or 152", (int)d.depth);
    const int64_t classes = ftr__model_classes(graph, "resnet", d.classes, 1000);
    if (classes == 0) return none;
    ftr_tensor x = ftr__resnet_stem(image, d.small_images);
    for (int32_t layer = 0; layer < 4; layer++) {
        const int64_t channels = (int64_t)(kind->bottleneck ? 256 : 64) << layer;
        for (int32_t i = 0; i < kind->blocks[layer]; i++) {
            ftr__model_scope(graph, "layer%d.%d", (int)layer + 1, (int)i);
            x = ftr__resnet_block(x, channels, layer > 0 && i == 0 ? 2 : 1, kind->bottleneck, d.zero_init_residual);
            ftr_scope_pop(graph);
        }
    }
    x = ftr_global_avg_pool(x);
    return d.features_only ? x : ftr_linear(x, "fc", classes, NULL);
}

/* ---- for CIFAR, section 4.2 */

static ftr_tensor ftr__resnet_cifar_shortcut(ftr_tensor x, int64_t channels, int32_t stride) {
    const int64_t missing = channels - ftr_shape_of(x).dim[3];
    if (stride != 1)
        for (int32_t axis = 1; axis <= 2; axis++) x = ftr_slice(x, axis, 0, INT64_MAX, stride);
    if (missing == 0) return x;
    return ftr_pad(x, FTR_SHAPE(0, 0, 0, missing / 2), FTR_SHAPE(0, 0, 0, missing - missing / 2), 0.0);
}

static ftr_tensor ftr__resnet_cifar_block(ftr_tensor x, int64_t channels, int32_t stride) {
    const ftr_tensor shortcut = ftr__resnet_cifar_shortcut(x, channels, stride);
    x = ftr_batch_norm(ftr__resnet_conv(x, "conv1", channels, 3, stride, FTR_INIT_KAIMING_NORMAL), "bn1", NULL);
    x = ftr__resnet_conv(ftr_relu(x), "conv2", channels, 3, 1, FTR_INIT_KAIMING_NORMAL);
    return ftr_relu(ftr_add(ftr_batch_norm(x, "bn2", NULL), shortcut));
}

ftr_tensor ftr_resnet_cifar(ftr_tensor image, const ftr_resnet_cifar_desc *desc) {
    const ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__model_image("resnet_cifar", image, 1);
    if (graph == NULL) return none;
    const ftr_resnet_cifar_desc d = desc != NULL ? *desc : (ftr_resnet_cifar_desc){.depth = 20};
    const int32_t depth = d.depth == 0 ? 20 : d.depth;
    if (depth < 8 || depth % 6 != 2)
        return ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "resnet_cifar", NULL,
                              "depth is %d, expected 6 n + 2: 8, 14, 20, 26 ...", (int)depth);
    const int64_t classes = ftr__model_classes(graph, "resnet_cifar", d.classes, 10);
    if (classes == 0) return none;
    ftr_tensor x = ftr__resnet_conv(image, "conv1", 16, 3, 1, FTR_INIT_KAIMING_NORMAL);
    x = ftr_relu(ftr_batch_norm(x, "bn1", NULL));
    for (int32_t layer = 0; layer < 3; layer++) {
        for (int32_t i = 0; i < (depth - 2) / 6; i++) {
            ftr__model_scope(graph, "layer%d.%d", (int)layer + 1, (int)i);
            x = ftr__resnet_cifar_block(x, (int64_t)16 << layer, layer > 0 && i == 0 ? 2 : 1);
            ftr_scope_pop(graph);
        }
    }
    x = ftr_global_avg_pool(x);
    const ftr_linear_desc linear = {.weight_init = {FTR_INIT_KAIMING_NORMAL, 0.0, 0.0}};
    return d.features_only ? x : ftr_linear(x, "linear", classes, &linear);
}
