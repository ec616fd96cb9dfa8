#include "case_tools.h"

/* ---------------------------------------------------------------------------------------------- stochastic depth -- */

static const struct {
    const char *name;
    ftr_shape x;
    int flags;
} depth_shapes[] = {
    {"vector", {1, {7}}, 0},
    {"rank 4", {4, {5, 2, 3, 2}}, 0},
    {"no rows", {2, {0, 4}}, 0},
    {"empty rows", {3, {4, 0, 2}}, 0},
    {"one row", {2, {1, 9}}, 0},
    {"large", {4, {37, 9, 11, 31}}, OP_LARGE},
    {"long rows", {2, {5, 20011}}, OP_LARGE},
};

/* p: percent, shape */
static void build_depth(op_build *b) {
    output(b, ftr_stochastic_depth(uniform_input(b, depth_shapes[b->of->p[1]].x), b->of->p[0] / 100.0));
}

/* A residual block, twice: two nodes have two masks. */
static void build_depth_residual(op_build *b) {
    ftr_tensor x = uniform_input(b, FTR_SHAPE(9, 3));
    for (int i = 0; i < 2; i++) {
        x = ftr_add(x, ftr_stochastic_depth(ftr_tanh(x), 0.5));
    }
    output(b, x);
}

/* ------------------------------------------------------------------------------------------------ random tensors -- */

static const struct {
    const char *name;
    bool normal;
    ftr_shape shape;
    double a, b;
    int flags;
} tensor_cases[] = {
    {"uniform 0 to 1", false, {1, {9}}, 0, 1, 0},
    {"uniform -3 to 5", false, {3, {3, 5, 2}}, -3, 5, 0},
    {"uniform at 1e6", false, {1, {300}}, 1e6, 1e6 + 1, 0},
    {"uniform of one value", false, {1, {5}}, 0.3, 0.3, 0},
    {"uniform two values", false, {1, {70}}, 16777216, 16777218, 0},
    {"uniform scalar", false, {0, {0}}, -1, 1, 0},
    {"uniform empty", false, {2, {3, 0}}, 0, 1, 0},
    {"uniform large", false, {2, {301, 233}}, -1, 2, OP_LARGE},
    {"normal", true, {1, {9}}, 0, 1, 0},
    {"normal rank 4", true, {4, {2, 3, 2, 3}}, -3, 0.5, 0},
    {"normal without deviation", true, {1, {5}}, 2.5, 0, 0},
    {"normal scalar", true, {0, {0}}, 1, 2, 0},
    {"normal empty", true, {2, {0, 3}}, 0, 1, 0},
    {"normal large", true, {2, {301, 233}}, 1, 3, OP_LARGE},
};

/* What a layer does with noise: x + noise, and the noise itself. p: case, named */
static void build_tensor(op_build *b) {
    const int32_t i = b->of->p[0];
    ftr_shape shape = tensor_cases[i].shape;
    const char *name = b->of->p[1] ? "noise" : NULL;
    ftr_tensor noise = tensor_cases[i].normal
                           ? ftr_random_normal(b->graph, name, shape, tensor_cases[i].a, tensor_cases[i].b)
                           : ftr_random_uniform(b->graph, name, shape, tensor_cases[i].a, tensor_cases[i].b);
    noise = ftr_cast(noise, b->real);
    output(b, noise);
    output(b, ftr_mul(uniform_input(b, shape), noise));
}

void add_random(table *t) {
    static const int32_t percents[] = {0, 20, 50, 100};
    for (int32_t i = 0; i < LENGTH(percents); i++) {
        for (int32_t s = i % 2; s < LENGTH(depth_shapes); s += i == 2 ? 1 : 2) {
            WITH(add(t, build_depth, OP_FRESH | OP_STEPS | depth_shapes[s].flags, "stochastic_depth %d%% %s",
                     (int)percents[i], depth_shapes[s].name),
                 percents[i], s);
        }
    }
    WITH(add(t, build_depth, OP_EVAL, "stochastic_depth eval"), 50, 1);
    add(t, build_depth_residual, OP_FRESH, "stochastic_depth residual");
    for (int32_t i = 0; i < LENGTH(tensor_cases); i++) {
        WITH(add(t, build_tensor, OP_FRESH | OP_STEPS | tensor_cases[i].flags, "random %s", tensor_cases[i].name), i,
             i % 2);
    }
    WITH(add(t, build_tensor, OP_FRESH | OP_EVAL, "random uniform eval"), 0, 1);
    WITH(add(t, build_tensor, OP_FRESH | OP_EVAL, "random normal eval"), 8, 0);
}
