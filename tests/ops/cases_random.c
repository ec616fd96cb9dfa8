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
}
