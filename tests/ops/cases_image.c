/* Transposed convolution, convolution of one dimension, adaptive pooling, resizing. */
#include "case_tools.h"

/* ---------------------------------------------------------------------------------------- transposed convolution -- */

static const struct {
    const char *name;
    int64_t x[4], out, kernel[2];
    ftr_conv_transpose2d_desc desc;
    bool no_bias;
    int flags;
} transposed_cases[] = {
    {"3x3", {2, 4, 5, 3}, 4, {3, 3}, {.groups = 0}, false, 0},
    {"1x1", {2, 3, 4, 5}, 6, {1, 1}, {.groups = 0}, true, 0},
    {"1 pixel", {3, 1, 1, 4}, 2, {2, 3}, {.groups = 0}, false, 0},
    {"2x2 stride 2", {2, 3, 4, 3}, 2, {2, 2}, {.stride = {2, 2}}, true, 0},
    {"padded", {1, 5, 4, 2}, 3, {3, 3}, {.padding = {1, 1, 1, 1}}, false, 0},
    {"4x4 stride 2 padded", {1, 4, 3, 2}, 3, {4, 4}, {.stride = {2, 2}, .padding = {1, 1, 1, 1}}, false, 0},
    {"asymmetric padding", {2, 4, 5, 2}, 2, {3, 4}, {.stride = {1, 2}, .padding = {0, 2, 1, 0}}, true, 0},
    {"padding over kernel", {1, 6, 7, 2}, 2, {2, 1}, {.padding = {2, 2, 1, 3}}, false, 0},
    {"output padding",
     {1, 4, 4, 2},
     3,
     {3, 3},
     {.stride = {2, 3}, .padding = {1, 1, 1, 1}, .output_padding = {1, 2}},
     false,
     0},
    {"stride over kernel", {1, 3, 4, 2}, 2, {2, 2}, {.stride = {3, 4}}, true, 0},
    {"dilation", {1, 4, 5, 2}, 3, {3, 2}, {.dilation = {2, 3}}, false, 0},
    {"dilation stride",
     {1, 4, 3, 2},
     2,
     {3, 3},
     {.stride = {2, 3}, .dilation = {3, 2}, .padding = {2, 1, 0, 3}},
     false,
     0},
    {"output padding over stride",
     {1, 3, 4, 2},
     2,
     {2, 3},
     {.stride = {1, 2}, .dilation = {3, 5}, .output_padding = {2, 4}},
     false,
     0},
    {"output padding over stride depthwise",
     {2, 3, 4, 3},
     3,
     {2, 3},
     {.dilation = {4, 3}, .padding = {3, 0, 1, 1}, .output_padding = {3, 2}, .groups = 3},
     true,
     0},
    {"groups 2", {2, 3, 4, 4}, 6, {3, 3}, {.groups = 2}, false, 0},
    {"groups stride", {1, 3, 3, 6}, 3, {3, 2}, {.groups = 3, .stride = {2, 1}, .output_padding = {1, 0}}, true, 0},
    {"depthwise", {1, 4, 3, 5}, 5, {3, 3}, {.groups = 5, .stride = {2, 2}, .padding = {1, 1, 1, 1}}, false, 0},
    {"depthwise multiplier 2", {1, 3, 3, 3}, 6, {2, 2}, {.groups = 3}, false, 0},
    {"17 to 18 channels", {1, 2, 3, 17}, 18, {2, 2}, {.groups = 0}, false, 0},
    {"batch 0", {0, 3, 3, 2}, 3, {3, 3}, {.groups = 0}, false, 0},
    {"one row", {1, 1, 6, 2}, 2, {1, 3}, {.stride = {1, 2}}, true, 0},
    {"large", {2, 9, 11, 24}, 17, {3, 3}, {.stride = {2, 2}, .padding = {1, 1, 1, 1}}, false, OP_LARGE},
    {"large groups", {2, 12, 9, 20}, 24, {4, 4}, {.groups = 4, .padding = {2, 1, 1, 2}}, false, OP_LARGE},
    {"large depthwise", {2, 9, 10, 35}, 35, {3, 3}, {.groups = 35, .stride = {2, 2}}, false, OP_LARGE},
};

/* p: case */
static void build_transposed(op_build *b) {
    const int32_t i = b->of->p[0];
    const int64_t *d = transposed_cases[i].x, *kernel = transposed_cases[i].kernel, out = transposed_cases[i].out;
    int64_t groups = transposed_cases[i].desc.groups ? transposed_cases[i].desc.groups : 1;
    ftr_tensor x = uniform_input(b, FTR_SHAPE(d[0], d[1], d[2], d[3]));
    ftr_tensor weight = uniform_input(b, FTR_SHAPE(d[3], kernel[0], kernel[1], out / groups));
    ftr_tensor bias = transposed_cases[i].no_bias ? (ftr_tensor){0} : uniform_input(b, FTR_SHAPE(out));
    output(b, ftr_conv_transpose2d_with(x, weight, bias, &transposed_cases[i].desc));
}

/* p: no bias, groups */
static void build_transposed_layer(op_build *b) {
    const ftr_conv_transpose2d_desc desc = {.stride = {2, 2}, .groups = b->of->p[1], .no_bias = b->of->p[0]};
    output(b, ftr_conv_transpose2d(uniform_input(b, FTR_SHAPE(2, 3, 4, 4)), "up", 6, 3, &desc));
}

/* Down and up again, as in an autoencoder: the transposed node stands behind a convolution and before a relu. */
static void build_transposed_chain(op_build *b) {
    const ftr_conv2d_desc down = {.stride = {2, 2}, .padding = {1, 1, 1, 1}};
    const ftr_conv_transpose2d_desc up = {
        .stride = {2, 2}, .padding = {1, 1, 1, 1}, .output_padding = {1, 1}, .no_bias = true};
    ftr_tensor x = uniform_input(b, FTR_SHAPE(1, 6, 6, 2));
    ftr_tensor h = ftr_conv_transpose2d(ftr_tanh(ftr_conv2d(x, "down", 3, 3, &down)), "up", 2, 3, &up);
    output(b, ftr_mul(ftr_tanh(h), x));
}

/* ----------------------------------------------------------------------------------------------- one-dimensional -- */

static const struct {
    const char *name;
    int64_t x[3], out, kernel;
    ftr_conv1d_desc desc;
    bool no_bias;
    int flags;
} line_cases[] = {
    {"3", {2, 7, 3}, 4, 3, {.groups = 0}, false, 0},
    {"1", {2, 5, 4}, 3, 1, {.groups = 0}, true, 0},
    {"kernel = input", {2, 4, 2}, 3, 4, {.groups = 0}, false, 0},
    {"same", {1, 6, 2}, 3, 5, {.padding = {2, 2}}, false, 0},
    {"causal", {1, 6, 3}, 3, 3, {.padding = {2, 0}}, true, 0},
    {"stride 2", {2, 9, 2}, 3, 3, {.stride = 2}, false, 0},
    {"stride over kernel", {1, 9, 2}, 2, 2, {.stride = 3}, true, 0},
    {"dilation 3", {1, 9, 2}, 3, 3, {.dilation = 3, .padding = {1, 2}}, false, 0},
    {"groups 2", {2, 6, 4}, 6, 3, {.groups = 2}, false, 0},
    {"depthwise", {2, 7, 5}, 5, 3, {.groups = 5, .padding = {1, 1}}, false, 0},
    {"depthwise stride", {1, 8, 3}, 3, 4, {.groups = 3, .stride = 2}, true, 0},
    {"batch 0", {0, 5, 2}, 3, 3, {.groups = 0}, false, 0},
    {"large", {3, 201, 16}, 24, 5, {.padding = {2, 2}}, false, OP_LARGE},
    {"large depthwise", {2, 301, 35}, 35, 7, {.groups = 35, .padding = {6, 0}}, false, OP_LARGE},
};

/* p: case */
static void build_line(op_build *b) {
    const int32_t i = b->of->p[0];
    const int64_t *d = line_cases[i].x, out = line_cases[i].out;
    int64_t groups = line_cases[i].desc.groups ? line_cases[i].desc.groups : 1;
    ftr_tensor x = uniform_input(b, FTR_SHAPE(d[0], d[1], d[2]));
    ftr_tensor weight = uniform_input(b, FTR_SHAPE(out, line_cases[i].kernel, d[2] / groups));
    ftr_tensor bias = line_cases[i].no_bias ? (ftr_tensor){0} : uniform_input(b, FTR_SHAPE(out));
    output(b, ftr_conv1d_with(x, weight, bias, &line_cases[i].desc));
}

/* p: no bias, groups */
static void build_line_layer(op_build *b) {
    const ftr_conv1d_desc desc = {.padding = {1, 1}, .groups = b->of->p[1], .no_bias = b->of->p[0]};
    output(b, ftr_relu(ftr_conv1d(uniform_input(b, FTR_SHAPE(2, 7, 4)), "conv", 6, 3, &desc)));
}

/* ----------------------------------------------------------------------------------------------------- new sizes -- */

static const struct {
    const char *name;
    int64_t x[4], out[2];
    int flags;
} size_cases[] = {
    {"same", {1, 4, 5, 2}, {4, 5}, 0},
    {"half", {2, 6, 4, 3}, {3, 2}, 0},
    {"double", {2, 3, 4, 3}, {6, 8}, 0},
    {"7x6 to 3x4", {1, 7, 6, 2}, {3, 4}, 0},
    {"3x5 to 7x6", {1, 3, 5, 2}, {7, 6}, 0},
    {"5x4 to 9x3", {1, 5, 4, 2}, {9, 3}, 0},
    {"to 1x1", {2, 5, 3, 4}, {1, 1}, 0},
    {"1 pixel", {2, 1, 1, 3}, {3, 4}, 0},
    {"1 row", {1, 1, 7, 2}, {2, 5}, 0},
    {"11 to 10", {1, 11, 10, 1}, {10, 11}, 0},
    {"19 channels", {1, 4, 3, 19}, {3, 5}, 0},
    {"batch 0", {0, 4, 4, 2}, {2, 6}, 0},
    {"no channels", {2, 4, 4, 0}, {2, 6}, 0},
    {"large up", {2, 17, 19, 21}, {41, 33}, OP_LARGE},
    {"large down", {3, 41, 37, 18}, {16, 15}, OP_LARGE},
    {"large one channel", {1, 90, 101, 1}, {203, 77}, OP_LARGE},
};

enum { SIZED_ADAPTIVE, SIZED_NEAREST, SIZED_BILINEAR, SIZED_ALIGNED, SIZED_OPS };
static const char *const sized_names[SIZED_OPS] = {"adaptive_avg_pool2d", "resize2d nearest", "resize2d bilinear",
                                                   "resize2d aligned"};

static ftr_tensor sized(ftr_tensor x, int32_t op, int64_t height, int64_t width) {
    const ftr_resize2d_desc desc = {.mode = op == SIZED_NEAREST ? FTR_RESIZE_NEAREST : FTR_RESIZE_BILINEAR,
                                    .align_corners = op == SIZED_ALIGNED};
    return op == SIZED_ADAPTIVE ? ftr_adaptive_avg_pool2d(x, height, width) : ftr_resize2d(x, height, width, &desc);
}

/* p: op, case */
static void build_sized(op_build *b) {
    const int32_t *p = b->of->p;
    const int64_t *d = size_cases[p[1]].x, *out = size_cases[p[1]].out;
    output(b, sized(uniform_input(b, FTR_SHAPE(d[0], d[1], d[2], d[3])), p[0], out[0], out[1]));
}

/* NaN and infinities stay where they belong. p: op */
static void build_sized_special(op_build *b) {
    ftr_tensor x = fixed_input(b, FTR_SHAPE(1, 9, 9, 1), FILL_SPECIAL, 0, 0);
    output(b, sized(x, b->of->p[0], 5, 13));
}

/* Two sizes of one image, joined: both gradients meet. */
static void build_pyramid(op_build *b) {
    ftr_tensor x = uniform_input(b, FTR_SHAPE(1, 6, 5, 2));
    ftr_tensor parts[4];
    for (int32_t op = 0; op < SIZED_OPS; op++) {
        parts[op] = sized(sized(x, op, 3, 4), SIZED_NEAREST, 6, 5);
    }
    output(b, ftr_concat(parts, SIZED_OPS, 3));
}

/* No description: nearest. */
static void build_resize_default(op_build *b) {
    output(b, ftr_resize2d(uniform_input(b, FTR_SHAPE(1, 3, 2, 2)), 5, 4, NULL));
}

void add_image(table *t) {
    for (int32_t i = 0; i < LENGTH(transposed_cases); i++) {
        WITH(add(t, build_transposed, transposed_cases[i].flags, "conv_transpose2d %s", transposed_cases[i].name), i);
    }
    WITH(add(t, build_transposed_layer, 0, "conv_transpose2d layer"), 0, 1);
    WITH(add(t, build_transposed_layer, 0, "conv_transpose2d layer groups no bias"), 1, 2);
    add(t, build_transposed_chain, 0, "conv_transpose2d chain");
    for (int32_t i = 0; i < LENGTH(line_cases); i++) {
        WITH(add(t, build_line, line_cases[i].flags, "conv1d %s", line_cases[i].name), i);
    }
    WITH(add(t, build_line_layer, 0, "conv1d layer"), 0, 1);
    WITH(add(t, build_line_layer, 0, "conv1d layer groups no bias"), 1, 2);
    for (int32_t op = 0; op < SIZED_OPS; op++) {
        for (int32_t i = 0; i < LENGTH(size_cases); i++) {
            WITH(add(t, build_sized, size_cases[i].flags, "%s %s", sized_names[op], size_cases[i].name), op, i);
        }
    }
    WITH(add(t, build_sized_special, OP_NO_LOSS, "adaptive_avg_pool2d special values"), SIZED_ADAPTIVE);
    WITH(add(t, build_sized_special, OP_NO_LOSS | OP_EACH, "resize2d nearest special values"), SIZED_NEAREST);
    add(t, build_pyramid, 0, "resize2d pyramid");
    add(t, build_resize_default, 0, "resize2d default");
}
