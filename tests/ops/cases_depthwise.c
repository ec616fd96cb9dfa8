/* Convolutions with few channels a group. */
#include "case_tools.h"

/* ------------------------------------------------------------------------------------------------ few channels a group */

typedef struct grouped_case {
    const char *name;
    int64_t x[4], out, kernel[2];
    ftr_conv2d_desc desc;
    int flags;
} grouped_case;

#define PAD(n) .padding = {n, n, n, n}

/* What decides which code runs: channels that fill no vector, one, two, and more than one chunk; columns of taps 1 to 7;
 * images narrower than the kernel; strides and dilations with and without a common factor; planes. */
static const grouped_case grouped_cases[] = {
    {"1 channel", {2, 4, 5, 1}, 1, {3, 3}, {.groups = 1, PAD(1)}, 0},
    {"4 channels 5x5", {1, 6, 7, 4}, 4, {5, 5}, {.groups = 4, PAD(2)}, 0},
    {"9 channels 1x5", {1, 3, 8, 9}, 9, {1, 5}, {.groups = 9, .padding = {0, 0, 2, 2}}, 0},
    {"3 channels 5x1", {1, 8, 3, 3}, 3, {5, 1}, {.groups = 3, .padding = {2, 2, 0, 0}}, 0},
    {"5 channels 2x4", {2, 5, 6, 5}, 5, {2, 4}, {.groups = 5, .padding = {1, 0, 2, 1}}, 0},
    {"kernel over image", {2, 2, 3, 6}, 6, {5, 5}, {.groups = 6, PAD(2)}, 0},
    {"padding over image", {1, 2, 2, 3}, 3, {2, 3}, {.groups = 3, PAD(4)}, 0},
    {"stride 2 5x5", {1, 9, 8, 3}, 3, {5, 5}, {.groups = 3, .stride = {2, 2}, PAD(2)}, 0},
    {"stride 3x2 dilation 2x3", {1, 11, 10, 2}, 2, {3, 3}, {.groups = 2, .stride = {3, 2}, .dilation = {2, 3}, PAD(2)}, 0},
    {"stride 4 dilation 2", {1, 12, 13, 2}, 2, {3, 3}, {.groups = 2, .stride = {4, 4}, .dilation = {2, 2}, PAD(1)}, 0},
    {"stride over kernel", {1, 9, 10, 3}, 3, {2, 2}, {.groups = 3, .stride = {3, 4}}, 0},
    {"multiplier 3 stride 2", {1, 7, 6, 2}, 6, {3, 3}, {.groups = 2, .stride = {2, 2}, PAD(1)}, 0},
    {"multiplier 2 5x5", {1, 5, 6, 3}, 6, {5, 5}, {.groups = 3, PAD(2)}, 0},
    {"2 to 1 a group", {1, 5, 5, 6}, 3, {3, 3}, {.groups = 3, PAD(1)}, 0},
    {"3 to 2 a group dilated", {1, 7, 8, 6}, 4, {3, 2}, {.groups = 2, .dilation = {2, 3}, PAD(1)}, 0},
    {"4 to 4 a group stride 2", {1, 6, 7, 8}, 8, {3, 3}, {.groups = 2, .stride = {2, 2}, PAD(1)}, 0},
    {"9 a group", {1, 4, 4, 18}, 18, {3, 3}, {.groups = 2, PAD(1)}, 0},
    {"batch 0", {0, 5, 5, 4}, 4, {3, 3}, {.groups = 4, PAD(1)}, 0},
    {"large 32 channels", {2, 15, 14, 32}, 32, {3, 3}, {.groups = 32, PAD(1)}, OP_LARGE},
    {"large 5x5", {2, 14, 14, 83}, 83, {5, 5}, {.groups = 83, PAD(2)}, OP_LARGE},
    {"large 5x5 stride 2", {3, 19, 18, 48}, 48, {5, 5}, {.groups = 48, .stride = {2, 2}, PAD(2)}, OP_LARGE},
    {"large stride 2", {2, 33, 32, 40}, 40, {3, 3}, {.groups = 40, .stride = {2, 2}, PAD(1)}, OP_LARGE},
    {"large 7x7 narrow", {2, 7, 7, 150}, 150, {7, 7}, {.groups = 150, PAD(3)}, OP_LARGE},
    {"large channels", {1, 7, 6, 407}, 407, {3, 3}, {.groups = 407, PAD(1)}, OP_LARGE},
    {"large image", {1, 90, 91, 24}, 24, {3, 3}, {.groups = 24, PAD(1)}, OP_LARGE},
    {"large multiplier 2", {2, 20, 21, 34}, 68, {3, 3}, {.groups = 34, PAD(1)}, OP_LARGE},
    {"large 4 a group", {2, 26, 27, 96}, 96, {3, 3}, {.groups = 24, PAD(1)}, OP_LARGE},
    {"large 8 a group stride 2", {2, 27, 28, 64}, 64, {3, 3}, {.groups = 8, .stride = {2, 2}, PAD(1)}, OP_LARGE},
    {"large 3 to 5 a group", {2, 19, 22, 36}, 60, {3, 3}, {.groups = 12, PAD(1)}, OP_LARGE},
};

/* p: case, bias and relu */
static void build_grouped(op_build *b) {
    const grouped_case *c = &grouped_cases[b->of->p[0]];
    ftr_tensor x = uniform_input(b, FTR_SHAPE(c->x[0], c->x[1], c->x[2], c->x[3]));
    ftr_tensor weight = uniform_input(b, FTR_SHAPE(c->out, c->kernel[0], c->kernel[1], c->x[3] / c->desc.groups));
    ftr_tensor bias = b->of->p[1] ? uniform_input(b, FTR_SHAPE(c->out)) : (ftr_tensor){0};
    ftr_tensor y = ftr_conv2d_with(x, weight, bias, &c->desc);
    output(b, b->of->p[1] ? ftr_relu(y) : y);
}

/* A depthwise or grouped configuration drawn at random. */
static void build_grouped_random(op_build *b) {
    ftr_test_rng *rng = &b->rng;
    int64_t groups = ftr_test_integer(rng, 2, 7), in = ftr_test_integer(rng, 1, 2), out = ftr_test_integer(rng, 1, 3);
    ftr_conv2d_desc desc = {.groups = (int32_t)groups};
    int64_t size[2], kernel[2];
    for (int d = 0; d < 2; d++) {
        kernel[d] = ftr_test_integer(rng, 1, 5);
        desc.stride[d] = (int32_t)ftr_test_integer(rng, 1, 3);
        desc.dilation[d] = (int32_t)ftr_test_integer(rng, 1, 3);
        desc.padding[2 * d] = (int32_t)ftr_test_integer(rng, 0, 3);
        desc.padding[2 * d + 1] = (int32_t)ftr_test_integer(rng, 0, 3);
        int64_t span = desc.dilation[d] * (kernel[d] - 1) + 1 - desc.padding[2 * d] - desc.padding[2 * d + 1];
        size[d] = (span > 0 ? span : 1) + ftr_test_integer(rng, 0, 5);
    }
    ftr_tensor x = uniform_input(b, FTR_SHAPE(ftr_test_integer(rng, 1, 2), size[0], size[1], groups * in));
    ftr_tensor weight = uniform_input(b, FTR_SHAPE(groups * out, kernel[0], kernel[1], in));
    output(b, ftr_conv2d_with(x, weight, uniform_input(b, FTR_SHAPE(groups * out)), &desc));
}

static void add_grouped(table *t) {
    for (int32_t i = 0; i < LENGTH(grouped_cases); i++) {
        const grouped_case *c = &grouped_cases[i];
        WITH(add(t, build_grouped, c->flags, "conv2d grouped %s", c->name), i, 0);
        WITH(add(t, build_grouped, c->flags, "conv2d grouped %s bias relu", c->name), i, 1);
    }
    for (int32_t i = 0; i < 24; i++) {
        add(t, build_grouped_random, 0, "conv2d grouped random %d", (int)i);
    }
}

/* --------------------------------------------------------------------------------------------------------- table -- */

void add_depthwise(table *t) { add_grouped(t); }
