/* What stands around an optimizer's step: gradients of several steps added up, averages of weights. Three steps, whose
 * gradients differ by dropout. Parameters, running statistics and all of the plan's state are compared. */
#include "case_tools.h"

typedef struct around {
    const char *name;
    ftr_optimizer (*make)(double lr);
    int64_t accumulate;
    ftr_scaling scaling;
    double clip_norm, clip_value;
    ftr_average_kind average;
    double decay;
    bool warmup, copy_buffers, swap;
    int64_t start, every;
} around;

/* clang-format off */
static const around arounds[] = {
    {.name = "accumulate 1", .make = ftr_adamw, .accumulate = 1},
    {.name = "accumulate 2", .make = ftr_adamw, .accumulate = 2},
    {.name = "accumulate 3", .make = ftr_sgd, .accumulate = 3},
    {.name = "accumulate 4 of 3", .make = ftr_sgd, .accumulate = 4},
    {.name = "accumulate 2 clip", .make = ftr_sgd, .accumulate = 2, .clip_norm = 0.25},
    {.name = "accumulate 3 clip both", .make = ftr_adamw, .accumulate = 3, .clip_norm = 0.25, .clip_value = 0.03125},
    {.name = "accumulate 3 scaled", .make = ftr_adamw, .accumulate = 3, .scaling = FTR_SCALING_DYNAMIC},
    {.name = "accumulate 2 scaled clip", .make = ftr_sgd, .accumulate = 2, .scaling = FTR_SCALING_FIXED, .clip_norm = 0.25},
    {.name = "accumulate 3 lamb", .make = ftr_lamb, .accumulate = 3},
    {.name = "accumulate 2 muon", .make = ftr_muon, .accumulate = 2},
    {.name = "accumulate 3 adafactor", .make = ftr_adafactor, .accumulate = 3},
    {.name = "ema", .make = ftr_adamw, .average = FTR_AVERAGE_EMA, .decay = 0.75},
    {.name = "ema swapped", .make = ftr_adamw, .average = FTR_AVERAGE_EMA, .decay = 0.75, .swap = true},
    {.name = "ema warm-up", .make = ftr_sgd, .average = FTR_AVERAGE_EMA, .decay = 0.9375, .warmup = true},
    {.name = "ema copied buffers", .make = ftr_sgd, .average = FTR_AVERAGE_EMA, .decay = 0.5, .copy_buffers = true, .swap = true},
    {.name = "ema start 2", .make = ftr_adamw, .average = FTR_AVERAGE_EMA, .decay = 0.75, .start = 2},
    {.name = "ema every 2", .make = ftr_adamw, .average = FTR_AVERAGE_EMA, .decay = 0.75, .every = 2},
    {.name = "ema scaled", .make = ftr_adamw, .average = FTR_AVERAGE_EMA, .decay = 0.75, .scaling = FTR_SCALING_DYNAMIC},
    {.name = "swa", .make = ftr_sgd, .average = FTR_AVERAGE_SWA},
    {.name = "swa swapped", .make = ftr_sgd, .average = FTR_AVERAGE_SWA, .copy_buffers = true, .swap = true},
    {.name = "swa start 1 every 2", .make = ftr_sgd, .average = FTR_AVERAGE_SWA, .start = 1, .every = 2},
    {.name = "accumulate 2 swa", .make = ftr_sgd, .accumulate = 2, .average = FTR_AVERAGE_SWA, .swap = true},
};
/* clang-format on */

static const ftr_shape few[] = {{2, {7, 5}}, {1, {11}}, {2, {3, 18}}, {0, {0}}, {2, {0, 4}}};
static const ftr_shape large[] = {{2, {301, 233}}, {1, {20001}}, {4, {70, 3, 3, 33}}, {1, {3}}};

/* The sum of dropout(x) p over a parameter p. */
static ftr_tensor noisy_product(op_build *b, int32_t index, ftr_shape shape) {
    char name[8];
    snprintf(name, sizeof name, "p%d", (int)index);
    ftr_tensor p = ftr_parameter(b->graph, name, wide_type(b), shape, (ftr_init){FTR_INIT_NORMAL, 0, 0.5});
    ftr_tensor x = ftr_dropout(fixed_input(b, shape, FILL_UNIFORM, -1, 1), 0.25);
    return ftr_sum(ftr_mul(as_real(b, p), x), ftr_all_axes(), false);
}

/* p: row of arounds, large */
static void build_around(op_build *b) {
    const around *a = &arounds[b->of->p[0]];
    const ftr_shape *shapes = b->of->p[1] ? large : few;
    const int32_t count = b->of->p[1] ? LENGTH(large) : LENGTH(few);
    b->optimizer = a->make(0.05);
    b->optimizer.momentum = a->make == ftr_sgd ? 0.875 : b->optimizer.momentum;
    b->optimizer.clip_norm = a->clip_norm;
    b->optimizer.clip_value = a->clip_value;
    b->optimize = true;
    b->accumulate = a->accumulate;
    b->average = ftr_average_defaults();
    b->average.kind = a->average;
    b->average.decay = a->decay;
    b->average.warmup = a->warmup;
    b->average.copy_buffers = a->copy_buffers;
    b->average.start = a->start;
    b->average.every = a->every ? a->every : 1;
    b->swap_average = a->swap;
    if (a->scaling) {
        b->scaler = ftr_scaler_defaults();
        b->scaler.scaling = a->scaling;
        b->scaler.init_scale = 64;
        b->scaler.growth_interval = 1;
    }
    ftr_tensor sum = {NULL, 0};
    for (int32_t i = 0; i < count; i++) {
        ftr_tensor one = noisy_product(b, i, shapes[i]);
        sum = i > 0 ? ftr_add(sum, one) : one;
    }
    output(b, sum);
    ftr_tensor x = ftr_dropout(fixed_input(b, FTR_SHAPE(4, 6), FILL_UNIFORM, -1, 1), 0.25);
    output(b, ftr_batch_norm(x, "bn", NULL));
}

void add_steps(table *t) {
    for (int32_t i = 0; i < LENGTH(arounds); i++) {
        WITH(add(t, build_around, OP_STEPS | OP_FRESH | OP_NO_DIFFERENCE, "%s", arounds[i].name), i, 0);
        if (i % 3 == 0) {
            WITH(add(t, build_around, OP_STEPS | OP_FRESH | OP_LARGE, "%s large", arounds[i].name), i, 1);
        }
    }
}
