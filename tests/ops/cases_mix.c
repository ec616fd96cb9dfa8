#include "case_tools.h"

/* Mixing of a batch, and cross entropy of class probabilities. */

enum { MIX_MASK = 1, MIX_PERMUTE = 2, MIX_NAMED = 4, MIX_VECTORS = 8 };

static const struct {
    const char *name;
    double mixup, cutmix, mixup_alpha, cutmix_alpha;
} ways[] = {
    {"mixup", 1, 0, 0.2, 1},        {"mixup of a tiny alpha", 1, 0, 1e-3, 1},
    {"mixup alpha 4", 1, 0, 4, 1},  {"cutmix", 0, 1, 1, 1},
    {"cutmix alpha 8", 0, 1, 1, 8}, {"either", 0.5, 0.5, 0.2, 1},
    {"seldom", 0.25, 0.25, 1, 1},   {"never", 0, 0, 1, 1},
};

static const struct {
    const char *name;
    ftr_shape x;
    int flags;
} mix_shapes[] = {
    {"image", {4, {5, 6, 4, 3}}, 0},           {"two rows", {3, {2, 7, 5}}, 0},
    {"one row", {4, {1, 4, 4, 2}}, 0},         {"a pixel", {4, {3, 1, 1, 2}}, 0},
    {"volume", {5, {3, 4, 3, 2, 2}}, 0},       {"no rows", {4, {0, 3, 3, 1}}, 0},
    {"no channels", {4, {3, 3, 3, 0}}, 0},     {"large", {4, {9, 33, 41, 7}}, OP_LARGE},
    {"one line", {3, {12, 1, 300}}, OP_LARGE},
};

/* p: way, shape, switches. What a user writes, and what was drawn. */
static void build_mix(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_shape shape = mix_shapes[p[1]].x;
    ftr_mix_desc desc = ftr_mix_defaults();
    desc.mixup = ways[p[0]].mixup;
    desc.cutmix = ways[p[0]].cutmix;
    desc.mixup_alpha = ways[p[0]].mixup_alpha;
    desc.cutmix_alpha = ways[p[0]].cutmix_alpha;
    desc.pairs = p[2] & MIX_PERMUTE ? FTR_MIX_PERMUTE : FTR_MIX_ROLL;
    if (p[2] & MIX_MASK && shape.dim[0] > 0) {
        mask_input(b, shape.dim[0], 0x6);
    }
    if (p[2] & MIX_VECTORS) {
        shape = FTR_SHAPE(shape.dim[0], 5);
    }
    ftr_tensor x = uniform_input(b, shape), t = uniform_input(b, FTR_SHAPE(shape.dim[0], 3));
    ftr_mix mix = ftr_mix_draw(x, p[2] & MIX_NAMED ? "mix" : NULL, &desc);
    output(b, ftr_mix_images(x, mix));
    output(b, ftr_mix_targets(t, mix));
    output(b, mix.partners);
    output(b, ftr_cast(mix.weights, b->real));
}

static const struct {
    const char *name;
    ftr_shape x;
    double weights[2];
    int32_t partners[4], box[4];
    bool no_box;
} given[] = {
    {"box", {4, {4, 5, 6, 2}}, {1, 0}, {3, 0, 1, 2}, {1, 2, 4, 5}, false},
    {"box and weights", {4, {4, 5, 6, 2}}, {0.75, 0.25}, {3, 0, 1, 2}, {0, 2, 4, 6}, false},
    {"one partner for all", {4, {4, 3, 3, 2}}, {0.25, 0.75}, {2, 2, 2, 2}, {1, 1, 2, 3}, false},
    {"itself", {4, {4, 3, 3, 2}}, {0.5, 0.25}, {0, 1, 2, 3}, {0, 0, 2, 1}, false},
    {"whole box", {3, {4, 3, 3}}, {0.5, 0.25}, {1, 1, 3, 0}, {0, 0, 3, 3}, false},
    {"empty box", {3, {4, 3, 3}}, {0, 1}, {1, 1, 3, 0}, {3, 1, 3, 2}, false},
    {"flat box", {3, {4, 3, 3}}, {0, 1}, {1, 1, 3, 0}, {0, 3, 2, 3}, false},
    {"nothing", {2, {4, 3}}, {0, 0}, {1, 0, 3, 2}, {0}, true},
    {"vectors", {2, {4, 3}}, {0.625, 0.5}, {1, 1, 0, 2}, {0}, true},
};

/* p: case. Weights, partners and box of the caller's own. */
static void build_given(op_build *b) {
    const int32_t i = b->of->p[0];
    ftr_tensor x = uniform_input(b, given[i].x);
    op_input *weights = declare(b, FTR_F32, FTR_SHAPE(4), FILL_UNIFORM, 0, 1);
    weights->values[0] = weights->values[2] = given[i].weights[0];
    weights->values[1] = weights->values[3] = given[i].weights[1];
    ftr_mix mix = {.weights = weights->tensor};
    mix.partners = ftr_constant(b->graph, FTR_I32, FTR_SHAPE(4), given[i].partners);
    if (!given[i].no_box) {
        mix.box = ftr_constant(b->graph, FTR_I32, FTR_SHAPE(4), given[i].box);
    }
    ftr_tensor y = ftr_mix_images(x, mix);
    output(b, y);
    output(b, ftr_mix_targets(ftr_tanh(ftr_mul(y, x)), mix)); /* a learned layer in front */
}

/* A step of training as the manual has it. p: mask */
static void build_mixed_loss(op_build *b) {
    if (b->of->p[0]) {
        mask_input(b, 6, 0x30);
    }
    ftr_tensor x = uniform_input(b, FTR_SHAPE(6, 4, 4, 2)), y = integer_input(b, FTR_I32, FTR_SHAPE(6), 0, 2);
    ftr_tensor one_hot = ftr_one_hot(y, 3, b->real);
    ftr_mix mix = ftr_mix_draw(x, NULL, NULL);
    ftr_tensor target = ftr_mix_targets(one_hot, mix), mixed = ftr_mix_images(x, mix);
    ftr_tensor logits = ftr_linear(ftr_flatten(ftr_tanh(mixed), 1), "fc", 3, NULL);
    output(b, ftr_cross_entropy(logits, target, NULL));
}

enum {
    SOFT_WEIGHTS = 1,
    SOFT_SMOOTHING = 2,
    SOFT_MASK = 4,
    SOFT_RANK3 = 8,
    SOFT_ONE = 16,
    SOFT_BIG = 32,
    SOFT_EMPTY = 64
};

/* p: reduction, switches */
static void build_soft_cross_entropy(op_build *b) {
    const int32_t s = b->of->p[1];
    const int64_t batch = s & SOFT_BIG ? 701 : s & SOFT_EMPTY ? 0 : 6, classes = s & SOFT_BIG ? 37 : 5;
    if (s & SOFT_MASK) {
        mask_input(b, batch, 0x14);
    }
    ftr_shape shape = s & SOFT_ONE     ? FTR_SHAPE(classes)
                      : s & SOFT_RANK3 ? FTR_SHAPE(batch, 3, classes)
                                       : FTR_SHAPE(batch, classes);
    ftr_tensor logits = uniform_input(b, shape), targets = real_input(b, shape, FILL_UNIFORM, 0, 1);
    ftr_cross_entropy_desc desc = ftr_cross_entropy_defaults();
    desc.reduction = (ftr_reduction)b->of->p[0];
    desc.label_smoothing = s & SOFT_SMOOTHING ? 0.125 : 0;
    if (s & SOFT_WEIGHTS) {
        desc.class_weights = fixed_input(b, FTR_SHAPE(classes), FILL_UNIFORM, 0.25, 2);
    }
    output(b, ftr_cross_entropy(logits, targets, &desc));
}

void add_mix(table *t) {
    for (int32_t w = 0; w < LENGTH(ways); w++) {
        for (int32_t s = 0; s < LENGTH(mix_shapes); s++) {
            int32_t switches = (w + s) % 8;
            if (switches & MIX_NAMED && s % 2) {
                switches &= ~MIX_NAMED;
            }
            WITH(add(t, build_mix, OP_FRESH | OP_STEPS | mix_shapes[s].flags, "mix %s %s %d", ways[w].name,
                     mix_shapes[s].name, (int)switches),
                 w, s, switches);
        }
    }
    WITH(add(t, build_mix, OP_FRESH | OP_STEPS, "mix mixup vectors"), 0, 0, MIX_VECTORS);
    WITH(add(t, build_mix, OP_FRESH | OP_STEPS, "mix mixup vectors mask"), 2, 0, MIX_VECTORS | MIX_MASK | MIX_PERMUTE);
    WITH(add(t, build_mix, OP_FRESH | OP_EVAL, "mix eval"), 5, 0, MIX_MASK);
    for (int32_t i = 0; i < LENGTH(given); i++) {
        WITH(add(t, build_given, 0, "mix given %s", given[i].name), i);
    }
    for (int32_t i = 0; i < 2; i++) {
        WITH(add(t, build_mixed_loss, OP_FRESH | OP_STEPS, "mix and cross_entropy%s", i ? " mask" : ""), i);
    }
    static const char *const reductions[] = {"mean", "sum", "none"};
    for (int32_t r = 0; r < LENGTH(reductions); r++) {
        for (int32_t s = 0; s < SOFT_ONE; s++) {
            WITH(add(t, build_soft_cross_entropy, 0, "cross_entropy soft %s %d", reductions[r], (int)s), r, s);
        }
        WITH(add(t, build_soft_cross_entropy, 0, "cross_entropy soft %s one row", reductions[r]), r,
             SOFT_ONE | SOFT_SMOOTHING);
        WITH(add(t, build_soft_cross_entropy, OP_LARGE, "cross_entropy soft %s large", reductions[r]), r,
             SOFT_BIG | SOFT_MASK | SOFT_SMOOTHING);
        WITH(add(t, build_soft_cross_entropy, OP_NO_LOSS, "cross_entropy soft %s no rows", reductions[r]), r,
             SOFT_EMPTY);
    }
}
