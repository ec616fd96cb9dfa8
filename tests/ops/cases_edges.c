/* Edges: values and gradients of NaN, infinities, ties, zeros and empty tensors. What they are is PyTorch's
 * (tests/goldens, `edges` in make_goldens.py); here every instruction set must agree with the oracle. */
#include "case_tools.h"

enum { LINES = 8, WIDTH = 3 };

static const double odd_lines[LINES][WIDTH] = {
    {1, NAN, 3}, {NAN, NAN, 2}, {INFINITY, INFINITY, 3}, {-INFINITY, -INFINITY, -INFINITY},
    {2, 2, 2},   {0, 0, 0},     {-INFINITY, 0, 1},       {INFINITY, -INFINITY, 0},
};

/* An input of lines along an axis, the other one as long as `repeat` times the lines: wider than a vector. */
static ftr_tensor lines_input(op_build *b, int32_t axis, int32_t repeat, bool finite) {
    int64_t count = LINES * repeat;
    ftr_tensor x = uniform_input(b, axis ? FTR_SHAPE(count, WIDTH) : FTR_SHAPE(WIDTH, count));
    double *values = b->inputs[b->input_count - 1].values;
    for (int64_t l = 0; l < count; l++) {
        for (int64_t k = 0; k < WIDTH; k++) {
            double value = odd_lines[l % LINES][k];
            values[axis ? l * WIDTH + k : k * count + l] = finite && !isfinite(value) ? (double)(l % 3) - 1 : value;
        }
    }
    return x;
}

enum {
    EDGE_SUM,
    EDGE_MEAN,
    EDGE_MAX,
    EDGE_LOGSUMEXP,
    EDGE_VAR,
    EDGE_NORM1,
    EDGE_NORM2,
    EDGE_NORM_INF,
    EDGE_SOFTMAX,
    EDGE_LOG_SOFTMAX,
    EDGE_CUMSUM,
    EDGE_PROD,
    EDGE_ARGMAX
};
static const char *const line_edges[] = {"sum",      "mean",    "max",         "logsumexp", "var",  "norm 1", "norm 2",
                                         "norm inf", "softmax", "log_softmax", "cumsum",    "prod", "argmax"};

static ftr_tensor line_edge(int32_t op, ftr_tensor x, int32_t axis) {
    ftr_axes axes = FTR_AXES(axis);
    switch (op) {
    case EDGE_SUM: return ftr_sum(x, axes, false);
    case EDGE_MEAN: return ftr_mean(x, axes, false);
    case EDGE_MAX: return ftr_max(x, axes, false);
    case EDGE_LOGSUMEXP: return ftr_logsumexp(x, axes, false);
    case EDGE_VAR: return ftr_var(x, axes, 1, false);
    case EDGE_NORM1: return ftr_norm(x, 1, axes, false);
    case EDGE_NORM2: return ftr_norm(x, 2, axes, false);
    case EDGE_NORM_INF: return ftr_norm(x, INFINITY, axes, false);
    case EDGE_SOFTMAX: return ftr_softmax(x, axis);
    case EDGE_LOG_SOFTMAX: return ftr_log_softmax(x, axis);
    case EDGE_CUMSUM: return ftr_cumsum(x, axis, false);
    case EDGE_PROD: return ftr_prod(x, axes, false);
    default: return ftr_argmax(x, axis);
    }
}

/* p: op, axis, repeat. Of infinities and NaN the product's gradient is not defined by the products of the others alone. */
static void build_line_edge(op_build *b) {
    const int32_t *p = b->of->p;
    output(b, line_edge(p[0], lines_input(b, p[1], p[2], p[0] == EDGE_PROD), p[1]));
}

/* p: op, axis. Along an axis of size 0. */
static void build_line_of_nothing(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_tensor x = uniform_input(b, p[1] ? FTR_SHAPE(4, 0) : FTR_SHAPE(0, 4));
    output(b, line_edge(p[0], x, p[1]));
}

/* p: rows, k */
static void build_topk_edge(op_build *b) {
    ftr_tensor indices, values = ftr_topk(lines_input(b, 1, b->of->p[0], false), b->of->p[1], &indices);
    output(b, values);
    output(b, indices);
}

static const double first_operands[] = {NAN, 1, NAN, 1, -0.0, INFINITY, -INFINITY, 0, 2, INFINITY};
static const double second_operands[] = {1, NAN, NAN, 1, 0.0, INFINITY, INFINITY, -1, 0, -INFINITY};

typedef ftr_tensor (*two_operands)(ftr_tensor, ftr_tensor);
static const struct {
    const char *name;
    two_operands op;
} binary_edges[] = {{"maximum", ftr_maximum}, {"minimum", ftr_minimum}, {"div", ftr_div}, {"mul", ftr_mul}};

/* p: op */
static void build_binary_edge(op_build *b) {
    ftr_tensor x = uniform_input(b, FTR_SHAPE(10, 7)), y = uniform_input(b, FTR_SHAPE(10, 1));
    for (int64_t i = 0; i < 70; i++) {
        b->inputs[0].values[i] = first_operands[i / 7];
        b->inputs[1].values[i / 7] = second_operands[i / 7];
    }
    output(b, binary_edges[b->of->p[0]].op(x, y));
}

typedef ftr_tensor (*one_operand)(ftr_tensor);
static const struct {
    const char *name;
    one_operand op;
} unary_edges[] = {{"sqrt", ftr_sqrt}, {"rsqrt", ftr_rsqrt}, {"log", ftr_log}, {"exp", ftr_exp},  {"abs", ftr_abs},
                   {"relu", ftr_relu}, {"sign", ftr_sign},   {"erf", ftr_erf}, {"tanh", ftr_tanh}};

/* p: op */
static void build_unary_edge(op_build *b) {
    static const double values[] = {NAN, INFINITY, -INFINITY, 0, -0.0, -1, 1};
    ftr_tensor x = uniform_input(b, FTR_SHAPE(3, 7));
    for (int64_t i = 0; i < 21; i++) {
        b->inputs[0].values[i] = values[i % 7];
    }
    output(b, unary_edges[b->of->p[0]].op(x));
}

/* Sure and right: the loss is as small as e^-|x|. p: reduction, weights */
static void build_small_bce(op_build *b) {
    ftr_tensor x = uniform_input(b, FTR_SHAPE(4, 17)), target = uniform_input(b, FTR_SHAPE(4, 17));
    for (int64_t i = 0; i < 68; i++) {
        b->inputs[0].values[i] = 16 + (double)i;
        b->inputs[1].values[i] = 1;
    }
    ftr_bce_desc desc = {.reduction = FTR_REDUCE_NONE};
    if (b->of->p[0]) {
        desc.pos_weight = fixed_input(b, FTR_SHAPE(17), FILL_UNIFORM, 0.5, 3);
    }
    output(b, ftr_bce_with_logits(x, target, &desc));
}

/* Rows of infinite logits; rows that are ignored. p: reduction */
static void build_infinite_logits(op_build *b) {
    static const double logits[5][3] = {
        {-INFINITY, 2, 1}, {3, -INFINITY, 1}, {1, -INFINITY, 1}, {NAN, 1, 2}, {INFINITY, 0, 1}};
    static const double labels[5] = {0, 1, 0, -100, -100};
    ftr_tensor x = uniform_input(b, FTR_SHAPE(5, 3)), y = integer_input(b, FTR_I32, FTR_SHAPE(5), 0, 2);
    memcpy(b->inputs[0].values, logits, sizeof logits);
    memcpy(b->inputs[1].values, labels, sizeof labels);
    ftr_cross_entropy_desc desc = ftr_cross_entropy_defaults();
    desc.reduction = (ftr_reduction)b->of->p[0];
    output(b, ftr_cross_entropy(x, y, &desc));
}

/* p: reduction, log-probabilities */
static void build_all_ignored(op_build *b) {
    ftr_tensor x = uniform_input(b, FTR_SHAPE(4, 3)), y = integer_input(b, FTR_I64, FTR_SHAPE(4), -100, -100);
    ftr_cross_entropy_desc desc = ftr_cross_entropy_defaults();
    desc.reduction = (ftr_reduction)b->of->p[0];
    output(b, b->of->p[1] ? ftr_nll(x, y, &desc) : ftr_cross_entropy(x, y, &desc));
}

void add_edges(table *t) {
    static const char *const reductions[] = {"mean", "sum", "none"};
    for (int32_t op = 0; op < LENGTH(line_edges); op++) {
        for (int32_t axis = 0; axis < 2; axis++) {
            for (int32_t repeat = 1; repeat < 12; repeat += 10) {
                WITH(add(t, build_line_edge, OP_NO_DIFFERENCE, "edges of %s axis %d, %d lines", line_edges[op],
                         (int)axis, LINES * repeat),
                     op, axis, repeat);
            }
            bool defined = op != EDGE_MAX && op != EDGE_ARGMAX && op != EDGE_NORM_INF;
            if (defined) {
                WITH(add(t, build_line_of_nothing, OP_NO_DIFFERENCE, "edges of %s of nothing axis %d", line_edges[op],
                         (int)axis),
                     op, axis);
            }
        }
    }
    for (int32_t k = 0; k <= WIDTH; k++) {
        WITH(add(t, build_topk_edge, OP_NO_DIFFERENCE, "edges of topk %d", (int)k), 1 + k, k);
    }
    for (int32_t op = 0; op < LENGTH(binary_edges); op++) {
        WITH(add(t, build_binary_edge, OP_NO_DIFFERENCE, "edges of %s", binary_edges[op].name), op);
    }
    for (int32_t op = 0; op < LENGTH(unary_edges); op++) {
        WITH(add(t, build_unary_edge, OP_NO_DIFFERENCE, "edges of %s", unary_edges[op].name), op);
    }
    WITH(add(t, build_small_bce, OP_EACH | OP_NO_DIFFERENCE, "edges of bce_with_logits small"), 0);
    WITH(add(t, build_small_bce, OP_EACH | OP_NO_DIFFERENCE, "edges of bce_with_logits small, weights"), 1);
    for (int32_t r = 0; r < LENGTH(reductions); r++) {
        WITH(add(t, build_infinite_logits, OP_NO_DIFFERENCE, "edges of cross_entropy %s", reductions[r]), r);
        WITH(add(t, build_all_ignored, OP_NO_DIFFERENCE, "edges of cross_entropy %s all ignored", reductions[r]), r, 0);
        WITH(add(t, build_all_ignored, OP_NO_DIFFERENCE, "edges of nll %s all ignored", reductions[r]), r, 1);
    }
}
