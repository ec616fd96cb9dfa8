#include "case_tools.h"

/* ----------------------------------------------------------------------------------------------------- pointwise -- */

enum { POINTWISE_SHAPES = 5, POINTWISE_LARGE = 5 };

static ftr_shape pointwise_shape(op_build *b, int32_t variant) {
    switch (variant) {
    case 0: return random_shape(b, 3, 5);
    case 1: return ftr_scalar_shape();
    case 2: return FTR_SHAPE(3, 0, 2);
    case 3: return FTR_SHAPE(5, 37);
    case 4: return FTR_SHAPE(1, 2, 1, 1, 1, 3);
    default: return FTR_SHAPE(70001);
    }
}

static const struct {
    const char *name;
    ftr_tensor (*op)(ftr_tensor);
    fill kind;
    double low, high;
} unary_ops[] = {
    {"neg", ftr_neg, FILL_UNIFORM, -2, 2},         {"exp", ftr_exp, FILL_UNIFORM, -3, 3},
    {"log", ftr_log, FILL_UNIFORM, 0.3, 4},        {"sqrt", ftr_sqrt, FILL_UNIFORM, 0.3, 4},
    {"rsqrt", ftr_rsqrt, FILL_UNIFORM, 0.3, 4},    {"tanh", ftr_tanh, FILL_UNIFORM, -3, 3},
    {"sigmoid", ftr_sigmoid, FILL_UNIFORM, -4, 4}, {"relu", ftr_relu, FILL_AWAY, 0.1, 2},
};

/* p: op, shape */
static void build_unary(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_tensor x =
        real_input(b, pointwise_shape(b, p[1]), unary_ops[p[0]].kind, unary_ops[p[0]].low, unary_ops[p[0]].high);
    output(b, unary_ops[p[0]].op(x));
}

/* p: op */
static void build_unary_special(op_build *b) {
    output(b, unary_ops[b->of->p[0]].op(fixed_input(b, FTR_SHAPE(3, 27), FILL_SPECIAL, 0, 0)));
}

/* p: type */
static void build_neg_integer(op_build *b) {
    output(b, ftr_neg(integer_input(b, all_types[b->of->p[0]], FTR_SHAPE(3, 11), -1000, 1000)));
}

enum { BROADCAST_PAIRS = 9, BROADCAST_LARGE = 9, BROADCAST_LARGE_COUNT = 4 };

/* Two shapes that broadcast. */
static void broadcast_pair(op_build *b, int32_t variant, ftr_shape *x, ftr_shape *y) {
    switch (variant) {
    case 0: *x = *y = random_shape(b, 3, 5); break;
    case 1: *x = FTR_SHAPE(3, 5), *y = ftr_scalar_shape(); break;
    case 2: *x = ftr_scalar_shape(), *y = FTR_SHAPE(2, 3); break;
    case 3: *x = FTR_SHAPE(3, 1, 5), *y = FTR_SHAPE(4, 1); break;
    case 4: *x = FTR_SHAPE(2, 0, 3), *y = FTR_SHAPE(1, 3); break;
    case 5: *x = FTR_SHAPE(4, 19), *y = FTR_SHAPE(19); break;
    case 6: *x = FTR_SHAPE(5, 18), *y = FTR_SHAPE(5, 1); break;
    case 7: *x = FTR_SHAPE(1, 3, 1, 2, 1, 2), *y = FTR_SHAPE(2, 1, 2, 1, 2, 1); break;
    case 8: *x = FTR_SHAPE(1), *y = FTR_SHAPE(1, 1, 1); break;
    case 9: *x = *y = FTR_SHAPE(301, 233); break;
    case 10: *x = FTR_SHAPE(501, 129), *y = FTR_SHAPE(129); break;
    case 11: *x = FTR_SHAPE(501, 1), *y = FTR_SHAPE(501, 129); break;
    default: *x = FTR_SHAPE(33, 1, 65), *y = FTR_SHAPE(33, 31, 1); break;
    }
}

static const struct {
    const char *name;
    ftr_tensor (*op)(ftr_tensor, ftr_tensor);
} binary_ops[] = {{"add", ftr_add}, {"sub", ftr_sub},         {"mul", ftr_mul},        {"div", ftr_div},
                  {"pow", ftr_pow}, {"maximum", ftr_maximum}, {"minimum", ftr_minimum}};
enum { BINARY_DIV = 3, BINARY_POW = 4, BINARY_MAXIMUM = 5 /* and minimum */ };

/* p: op, pair of shapes */
static void build_binary(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_shape sx, sy;
    broadcast_pair(b, p[1], &sx, &sy);
    ftr_tensor x, y;
    if (p[0] == BINARY_POW) {
        x = real_input(b, sx, FILL_UNIFORM, 0.3, 2);
        y = real_input(b, sy, FILL_UNIFORM, -2, 2);
    } else if (p[0] >= BINARY_MAXIMUM) { /* odd and even multiples of 1/16: never equal */
        x = real_input(b, sx, FILL_DISTINCT, 0, 0);
        y = real_input(b, sy, FILL_DISTINCT, 0, 0);
        op_input *last = &b->inputs[b->input_count - 1];
        for (int64_t i = 0; i < last->count; i++) {
            last->values[i] += 0.0625;
        }
    } else {
        x = real_input(b, sx, FILL_UNIFORM, -2, 2);
        y = real_input(b, sy, FILL_AWAY, 0.5, 2);
    }
    output(b, binary_ops[p[0]].op(x, y));
}

/* p: op, type, pair of shapes */
static void build_binary_integer(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_shape sx, sy;
    broadcast_pair(b, p[2], &sx, &sy);
    ftr_tensor x = integer_input(b, all_types[p[1]], sx, -1000, 1000);
    ftr_tensor y = integer_input(b, all_types[p[1]], sy, -3, 3); /* div: by 0 too */
    output(b, binary_ops[p[0]].op(x, y));
}

/* p: op. Every special value against every other. */
static void build_binary_special(op_build *b) {
    ftr_tensor x = fixed_input(b, FTR_SHAPE(27, 1), FILL_SPECIAL, 0, 0);
    ftr_tensor y = fixed_input(b, FTR_SHAPE(27), FILL_SPECIAL, 0, 0);
    output(b, binary_ops[b->of->p[0]].op(x, y));
}

/* The same tensor twice: both gradients meet. p: op */
static void build_binary_self(op_build *b) {
    ftr_tensor x = real_input(b, FTR_SHAPE(4, 5), FILL_UNIFORM, 0.4, 2);
    output(b, binary_ops[b->of->p[0]].op(x, x));
}

/* Any base to whole powers: the exponent has no gradient. */
static void build_pow_whole(op_build *b) {
    ftr_tensor x = real_input(b, FTR_SHAPE(6, 7), FILL_AWAY, 0.3, 2);
    output(b, ftr_pow(x, fixed_input(b, FTR_SHAPE(7), FILL_INTEGER, -3, 3)));
}

/* 0 to the power 0, 1, 2, ... */
static void build_pow_zero(op_build *b) {
    ftr_tensor x = real_input(b, FTR_SHAPE(4, 5), FILL_INTEGER, 0, 1);
    output(b, ftr_pow(x, real_input(b, FTR_SHAPE(4, 5), FILL_INTEGER, 0, 3)));
}

/* Few values, so that many are equal. */
static void build_maximum_ties(op_build *b) {
    ftr_tensor x = real_input(b, FTR_SHAPE(6, 7), FILL_INTEGER, 0, 2);
    output(b, ftr_maximum(x, real_input(b, FTR_SHAPE(7), FILL_INTEGER, 0, 2)));
}

static void build_relu_zero(op_build *b) { output(b, ftr_relu(real_input(b, FTR_SHAPE(5, 9), FILL_INTEGER, -1, 1))); }

static const struct {
    const char *name;
    ftr_tensor (*op)(ftr_tensor, ftr_tensor);
} compare_ops[] = {{"eq", ftr_eq}, {"ne", ftr_ne}, {"lt", ftr_lt}, {"le", ftr_le}, {"gt", ftr_gt}, {"ge", ftr_ge}};

/* p: op, type, pair of shapes */
static void build_compare(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_shape sx, sy;
    broadcast_pair(b, p[2], &sx, &sy);
    ftr_dtype type = type_of(b, p[1]);
    int64_t low = type == FTR_U8 || type == FTR_BOOL ? 0 : -1;
    ftr_tensor x = integer_input(b, type, sx, low, 1), y = integer_input(b, type, sy, low, 1);
    output(b, compare_ops[p[0]].op(x, y));
}

/* p: op */
static void build_compare_special(op_build *b) {
    ftr_tensor x = fixed_input(b, FTR_SHAPE(27, 1), FILL_SPECIAL, 0, 0);
    output(b, compare_ops[b->of->p[0]].op(x, fixed_input(b, FTR_SHAPE(27), FILL_SPECIAL, 0, 0)));
}

/* p: variant */
static void build_where(op_build *b) {
    static const struct {
        int32_t rank[3];
        int64_t dim[3][3];
    } shapes[] = {
        {{2, 2, 2}, {{3, 7}, {3, 7}, {3, 7}}},      {{1, 2, 0}, {{5}, {4, 1}, {0}}},
        {{3, 1, 2}, {{2, 1, 3}, {3}, {4, 1}}},      {{2, 2, 2}, {{0, 3}, {1, 3}, {1, 1}}},
        {{2, 2, 1}, {{301, 233}, {301, 1}, {233}}},
    };
    ftr_shape s[3] = {{0}};
    for (int i = 0; i < 3; i++) {
        s[i].rank = shapes[b->of->p[0]].rank[i];
        memcpy(s[i].dim, shapes[b->of->p[0]].dim[i], sizeof shapes[0].dim[0]);
    }
    ftr_tensor condition = integer_input(b, FTR_BOOL, s[0], 0, 1);
    ftr_tensor x = uniform_input(b, s[1]), y = uniform_input(b, s[2]);
    output(b, ftr_where(condition, x, y));
}

/* p: type */
static void build_where_integer(op_build *b) {
    ftr_dtype type = all_types[b->of->p[0]];
    ftr_tensor condition = integer_input(b, FTR_BOOL, FTR_SHAPE(3, 1), 0, 1);
    ftr_tensor x = integer_input(b, type, FTR_SHAPE(3, 5), 0, 1), y = integer_input(b, type, FTR_SHAPE(5), 0, 1);
    output(b, ftr_where(condition, x, y));
}

/* p: from, to */
static void build_cast(op_build *b) {
    ftr_dtype from = type_of(b, b->of->p[0]);
    ftr_tensor x;
    if (from == b->real) {
        x = b->of->p[1] ? fixed_input(b, FTR_SHAPE(3, 17), FILL_UNIFORM, -300, 600)
                        : uniform_input(b, FTR_SHAPE(3, 17));
    } else {
        bool is_unsigned = from == FTR_U8 || from == FTR_BOOL;
        x = integer_input(b, from, FTR_SHAPE(3, 17), is_unsigned ? 0 : -70000,
                          from == FTR_BOOL ? 1
                          : is_unsigned    ? 255
                                           : 70000);
    }
    output(b, ftr_cast(x, type_of(b, b->of->p[1])));
}

/* p: to */
static void build_cast_special(op_build *b) {
    output(b, ftr_cast(fixed_input(b, FTR_SHAPE(27), FILL_SPECIAL, 0, 0), type_of(b, b->of->p[0])));
}

static ftr_tensor gelu_exact(ftr_tensor x) { return ftr_gelu(x, FTR_GELU_EXACT); }
static ftr_tensor gelu_tanh(ftr_tensor x) { return ftr_gelu(x, FTR_GELU_TANH); }
static ftr_tensor clamp_both(ftr_tensor x) { return ftr_clamp(x, -0.75, 1.5); }
static ftr_tensor clamp_below(ftr_tensor x) { return ftr_clamp(x, -0.5, INFINITY); }
static ftr_tensor clamp_above(ftr_tensor x) { return ftr_clamp(x, -INFINITY, 0.25); }
static ftr_tensor clamp_nothing(ftr_tensor x) { return ftr_clamp(x, -INFINITY, INFINITY); }
static ftr_tensor clamp_to_point(ftr_tensor x) { return ftr_clamp(x, 0.5, 0.5); }
static ftr_tensor leaky_relu(ftr_tensor x) { return ftr_leaky_relu(x, 0.01); }
static ftr_tensor leaky_relu_negative(ftr_tensor x) { return ftr_leaky_relu(x, -0.5); }
static ftr_tensor elu(ftr_tensor x) { return ftr_elu(x, 1.0); }
static ftr_tensor elu_steep(ftr_tensor x) { return ftr_elu(x, 2.5); }
static ftr_tensor softplus(ftr_tensor x) { return ftr_softplus(x, 1.0, 20.0); }
static ftr_tensor softplus_steep(ftr_tensor x) { return ftr_softplus(x, 2.0, 30.0); }
static ftr_tensor softplus_short(ftr_tensor x) { return ftr_softplus(x, 0.5, 1.0); }
static ftr_tensor softplus_long(ftr_tensor x) { return ftr_softplus(x, 1.0, INFINITY); }
static ftr_tensor softplus_none(ftr_tensor x) { return ftr_softplus(x, 1.0, -INFINITY); }

/* Random values stay away from kinks and steps. */
static const struct {
    const char *name;
    ftr_tensor (*op)(ftr_tensor);
    fill kind;
    double low, high;
    double at[4]; /* kinks, and a point beside them */
} activations[] = {
    {"abs", ftr_abs, FILL_AWAY, 0.1, 2, {0, -0.0, 1, -1}},
    {"sign", ftr_sign, FILL_AWAY, 0.1, 2, {0, -0.0, 1, -1}},
    {"sin", ftr_sin, FILL_UNIFORM, -7, 7, {0}},
    {"cos", ftr_cos, FILL_UNIFORM, -7, 7, {0}},
    {"erf", ftr_erf, FILL_UNIFORM, -3, 3, {0, 1, -1, 0.99}},
    {"floor", ftr_floor, FILL_AWAY, 0.1, 0.9, {0, -0.0, 1, -2}},
    {"round", ftr_round, FILL_AWAY, 0.6, 1.4, {0.5, 1.5, -0.5, 2.5}},
    {"clamp", clamp_both, FILL_AWAY, 0.76, 1.49, {-0.75, 1.5, 0, 2}},
    {"clamp wide", clamp_both, FILL_AWAY, 1.51, 4, {-0.75, 1.5, 0, -1}},
    {"clamp below", clamp_below, FILL_AWAY, 0.51, 4, {-0.5, 1.5, 0, -1}},
    {"clamp above", clamp_above, FILL_AWAY, 0.26, 4, {0.25, 1.5, 0, -1}},
    {"clamp without bounds", clamp_nothing, FILL_UNIFORM, -4, 4, {0, 1, -1, 3}},
    {"clamp to a point", clamp_to_point, FILL_AWAY, 0.51, 4, {0.5, 1, 0, -1}},
    {"relu6", ftr_relu6, FILL_AWAY, 0.1, 5.9, {0, 6, 3, 7}},
    {"relu6 wide", ftr_relu6, FILL_AWAY, 6.1, 9, {0, 6, -0.0, 7}},
    {"gelu", gelu_exact, FILL_UNIFORM, -5, 5, {0, -0.0, 1, -1}},
    {"gelu tail", gelu_exact, FILL_UNIFORM, -12, -4, {-5, -8, -11, -12.5}},
    {"gelu by tanh", gelu_tanh, FILL_UNIFORM, -5, 5, {0, -0.0, 1, -1}},
    {"silu", ftr_silu, FILL_UNIFORM, -6, 6, {0, -0.0, 1, -1}},
    {"hardswish", ftr_hardswish, FILL_AWAY, 0.1, 2.9, {-3, 3, 0, 4}},
    {"hardswish wide", ftr_hardswish, FILL_AWAY, 3.1, 6, {-3, 3, 0, -4}},
    {"hardsigmoid", ftr_hardsigmoid, FILL_AWAY, 0.1, 2.9, {-3, 3, 0, 4}},
    {"hardsigmoid wide", ftr_hardsigmoid, FILL_AWAY, 3.1, 6, {-3, 3, 0, -4}},
    {"leaky_relu", leaky_relu, FILL_AWAY, 0.1, 3, {0, -0.0, 1, -1}},
    {"leaky_relu negative slope", leaky_relu_negative, FILL_AWAY, 0.1, 3, {0, -0.0, 1, -1}},
    {"elu", elu, FILL_AWAY, 0.1, 4, {0, -0.0, -0.34657, -0.34658}},
    {"elu alpha 2.5", elu_steep, FILL_AWAY, 0.1, 4, {0, -0.0, -1e-6, 1e-6}},
    {"softplus", softplus, FILL_UNIFORM, -6, 6, {20, 20.5, 19.5, 0}},
    {"softplus beta 2", softplus_steep, FILL_UNIFORM, -6, 6, {15, 15.5, -40, 0}},
    {"softplus threshold 1", softplus_short, FILL_AWAY, 2.1, 6, {2, 2.5, 1.5, 0}},
    {"softplus no threshold", softplus_long, FILL_UNIFORM, -6, 6, {20, 50, 19.5, 0}},
    {"softplus all above", softplus_none, FILL_UNIFORM, -6, 6, {20, 50, -5, 0}},
};

/* p: function, shape */
static void build_activation(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_shape shape = pointwise_shape(b, p[1]);
    output(b, activations[p[0]].op(
                  real_input(b, shape, activations[p[0]].kind, activations[p[0]].low, activations[p[0]].high)));
}

/* p: function */
static void build_activation_special(op_build *b) {
    output(b, activations[b->of->p[0]].op(fixed_input(b, FTR_SHAPE(3, 27), FILL_SPECIAL, 0, 0)));
}

/* On the kinks. p: function */
static void build_activation_kinks(op_build *b) {
    ftr_tensor x = uniform_input(b, FTR_SHAPE(3, 4));
    for (int64_t i = 0; i < 12; i++) {
        b->inputs[0].values[i] = (float)activations[b->of->p[0]].at[i % 4];
    }
    output(b, activations[b->of->p[0]].op(x));
}

/* Very small values: f32's relative precision must last there. p: function */
static void build_activation_small(op_build *b) {
    ftr_tensor x = fixed_input(b, FTR_SHAPE(50), FILL_AWAY, 1, 2);
    for (int64_t i = 0; i < 50; i++) {
        b->inputs[0].values[i] = (float)ldexp(b->inputs[0].values[i], (int)-i);
    }
    output(b, activations[b->of->p[0]].op(x));
}

/* p: abs or sign, type */
static void build_integer_activation(op_build *b) {
    ftr_tensor x = integer_input(b, all_types[b->of->p[1]], FTR_SHAPE(3, 11), -3, 3);
    output(b, b->of->p[0] ? ftr_sign(x) : ftr_abs(x));
}

/* Many are equal. */
static void build_minimum_ties(op_build *b) {
    ftr_tensor x = real_input(b, FTR_SHAPE(6, 7), FILL_INTEGER, 0, 2);
    output(b, ftr_minimum(x, real_input(b, FTR_SHAPE(7), FILL_INTEGER, 0, 2)));
}

/* y stop(x^2) + x: the gradient of x is that of its other way. */
static void build_stop_gradient(op_build *b) {
    ftr_shape shape = pointwise_shape(b, b->of->p[0]);
    ftr_tensor x = real_input(b, shape, FILL_UNIFORM, -1, 1), y = real_input(b, shape, FILL_UNIFORM, -1, 1);
    output(b, ftr_add(ftr_mul(y, ftr_stop_gradient(ftr_mul(x, x))), x));
}

/* Nothing that wants a gradient is behind it, and central differences agree. */
static void build_stop_gradient_input(op_build *b) {
    ftr_tensor x = fixed_input(b, FTR_SHAPE(4, 9), FILL_UNIFORM, -1, 1);
    output(b, ftr_mul(uniform_input(b, FTR_SHAPE(4, 9)), ftr_stop_gradient(ftr_exp(x))));
}

/* p: type */
static void build_stop_gradient_integer(op_build *b) {
    output(b, ftr_stop_gradient(integer_input(b, all_types[b->of->p[0]], FTR_SHAPE(3, 11), 0, 1)));
}

/* ---------------------------------------------------------------------------------------------------- reductions -- */

typedef ftr_tensor (*reduce_op)(ftr_tensor, ftr_axes, bool);
static const struct {
    const char *name;
    reduce_op op;
} reduce_ops[] = {{"sum", ftr_sum}, {"mean", ftr_mean}, {"max", ftr_max}};
enum { REDUCE_SUM_OP, REDUCE_MEAN_OP, REDUCE_MAX_OP };

static ftr_axes axes_of(uint32_t mask, int32_t rank, bool negative) {
    ftr_axes axes = {0};
    for (int32_t d = 0; d < rank; d++) {
        if (mask >> d & 1) {
            axes.axis[axes.count++] = negative ? d - rank : d;
        }
    }
    return axes;
}

/* p: op, rank, mask (0: all axes), keep */
static void build_reduce(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_shape shape = random_shape(b, p[1], 4);
    if (p[1] == 2) {
        shape = FTR_SHAPE(7, 21);
    }
    ftr_tensor x = real_input(b, shape, p[0] == REDUCE_MAX_OP ? FILL_DISTINCT : FILL_UNIFORM, -1, 1);
    ftr_axes axes = p[2] ? axes_of((uint32_t)p[2], p[1], p[3]) : ftr_all_axes();
    output(b, reduce_ops[p[0]].op(x, axes, p[3]));
}

/* p: op, axis (2: both), first dimension, second */
static void build_reduce_matrix(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_tensor x = real_input(b, FTR_SHAPE(p[2], p[3]), p[0] == REDUCE_MAX_OP ? FILL_DISTINCT : FILL_UNIFORM, -1, 1);
    output(b, reduce_ops[p[0]].op(x, p[1] == 2 ? ftr_all_axes() : FTR_AXES(p[1]), false));
}

/* p: op, mask */
static void build_reduce_middle(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_tensor x = real_input(b, FTR_SHAPE(9, 40, 31, 7), p[0] == REDUCE_MAX_OP ? FILL_DISTINCT : FILL_UNIFORM, -1, 1);
    output(b, reduce_ops[p[0]].op(x, axes_of((uint32_t)p[1], 4, false), true));
}

/* p: op, type, mask */
static void build_reduce_integer(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_tensor x = integer_input(b, all_types[p[1]], FTR_SHAPE(3, 4, 5), -1000, 1000);
    output(b, reduce_ops[p[0]].op(x, axes_of((uint32_t)p[2], 3, false), false));
}

static void build_max_ties(op_build *b) {
    output(b, ftr_max(real_input(b, FTR_SHAPE(4, 9, 3), FILL_INTEGER, 0, 2), FTR_AXES(1), false));
}

/* p: op, axis. NaN and infinities. */
static void build_reduce_special(op_build *b) {
    ftr_tensor x = fixed_input(b, FTR_SHAPE(9, 3), FILL_SPECIAL, 0, 0);
    output(b, reduce_ops[b->of->p[0]].op(x, FTR_AXES(b->of->p[1]), false));
}

/* p: axis, type, number of values */
static void build_argmax(op_build *b) {
    const int32_t *p = b->of->p;
    output(b, ftr_argmax(integer_input(b, type_of(b, p[1]), FTR_SHAPE(3, 6, 5), 0, p[2]), p[0]));
}

static void build_argmax_special(op_build *b) {
    output(b, ftr_argmax(fixed_input(b, FTR_SHAPE(9, 3), FILL_SPECIAL, 0, 0), b->of->p[0]));
}

static void build_argmax_large(op_build *b) {
    output(b, ftr_argmax(fixed_input(b, FTR_SHAPE(700, 103), FILL_UNIFORM, -1, 1), b->of->p[0]));
}

/* ----------------------------------------------------------------------------------------------- matrix products -- */

static const struct {
    const char *name;
    int32_t rank_a, rank_b;
    int64_t batch_a[3], batch_b[3];
    int64_t m, k, n;
    int flags;
} matmul_cases[] = {
    {"5x7x3", 2, 2, {0}, {0}, 5, 7, 3, 0},
    {"1x1x1", 2, 2, {0}, {0}, 1, 1, 1, 0},
    {"1x9x4", 2, 2, {0}, {0}, 1, 9, 4, 0},
    {"6x1x5", 2, 2, {0}, {0}, 6, 1, 5, 0},
    {"9x5x1", 2, 2, {0}, {0}, 9, 5, 1, 0},
    {"k 0", 2, 2, {0}, {0}, 3, 0, 4, 0},
    {"m 0", 2, 2, {0}, {0}, 0, 3, 4, 0},
    {"batched", 3, 3, {3}, {3}, 4, 5, 6, 0},
    {"batch broadcast", 4, 3, {2, 1}, {3}, 3, 2, 4, 0},
    {"batch of the right", 2, 3, {0}, {3}, 3, 4, 2, 0},
    {"batch of the left", 4, 2, {2, 2}, {0}, 3, 4, 5, 0},
    {"batch 0", 3, 3, {0}, {0}, 3, 2, 4, 0},
    {"large", 2, 2, {0}, {0}, 131, 257, 67, OP_LARGE},
    {"tall", 2, 2, {0}, {0}, 1031, 19, 17, OP_LARGE},
    {"deep", 2, 2, {0}, {0}, 9, 2050, 13, OP_LARGE},
    {"large batched", 3, 3, {5}, {5}, 37, 65, 50, OP_LARGE},
    {"deep and wide", 2, 2, {0}, {0}, 35, 1102, 550, OP_LARGE},
    {"in pieces", 2, 2, {0}, {0}, 17, 8195, 34, OP_LARGE},
};

static ftr_shape matrix_shape(int32_t rank, const int64_t *batch, int64_t rows, int64_t columns) {
    ftr_shape shape = {.rank = rank};
    for (int32_t d = 0; d < rank - 2; d++) {
        shape.dim[d] = batch[d];
    }
    shape.dim[rank - 2] = rows;
    shape.dim[rank - 1] = columns;
    return shape;
}

/* p: case, transpose a, transpose b */
static void build_matmul(op_build *b) {
    const int32_t *p = b->of->p;
    int64_t m = matmul_cases[p[0]].m, k = matmul_cases[p[0]].k, n = matmul_cases[p[0]].n;
    ftr_shape sa = matrix_shape(matmul_cases[p[0]].rank_a, matmul_cases[p[0]].batch_a, p[1] ? k : m, p[1] ? m : k);
    ftr_shape sb = matrix_shape(matmul_cases[p[0]].rank_b, matmul_cases[p[0]].batch_b, p[2] ? n : k, p[2] ? k : n);
    ftr_tensor x = uniform_input(b, sa), y = uniform_input(b, sb);
    output(b, ftr_matmul(x, y, p[1], p[2]));
}

static void build_matmul_self(op_build *b) {
    ftr_tensor x = uniform_input(b, FTR_SHAPE(5, 4));
    output(b, ftr_matmul(x, x, true, false));
}

static const struct {
    const char *name;
    ftr_shape x;
    int64_t out;
    int flags;
} linear_cases[] = {
    {"rank 2", {2, {5, 7}}, 3, 0},  {"1 feature", {2, {4, 1}}, 1, 0},         {"batch 1", {2, {1, 19}}, 33, 0},
    {"batch 0", {2, {0, 3}}, 4, 0}, {"rank 3", {3, {2, 3, 5}}, 4, 0},         {"rank 4", {4, {2, 1, 3, 4}}, 2, 0},
    {"rank 1", {1, {6}}, 3, 0},     {"large", {2, {129, 200}}, 75, OP_LARGE}, {"wide", {2, {3, 70}}, 1030, OP_LARGE},
};

/* p: case, bias, relu */
static void build_linear(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_shape x = linear_cases[p[0]].x;
    int64_t in = x.dim[x.rank - 1], out = linear_cases[p[0]].out;
    ftr_tensor input = uniform_input(b, x), weight = uniform_input(b, FTR_SHAPE(out, in));
    ftr_tensor bias = p[1] ? uniform_input(b, FTR_SHAPE(out)) : (ftr_tensor){0};
    ftr_tensor y = ftr_linear_with(input, weight, bias);
    output(b, p[2] ? ftr_relu(y) : y);
}

/* The same as a sum, which the fuse pass joins. p: case, weight as [in, out], relu, bias first */
static void build_linear_sum(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_shape x = linear_cases[p[0]].x;
    int64_t in = x.dim[x.rank - 1], out = linear_cases[p[0]].out;
    ftr_tensor input = uniform_input(b, x), weight = uniform_input(b, p[1] ? FTR_SHAPE(in, out) : FTR_SHAPE(out, in));
    ftr_tensor bias = uniform_input(b, FTR_SHAPE(out)), product = ftr_matmul(input, weight, false, !p[1]);
    ftr_tensor y = p[3] ? ftr_add(bias, product) : ftr_add(product, bias);
    output(b, p[2] ? ftr_relu(y) : y);
}

/* p: no bias */
static void build_linear_layer(op_build *b) {
    ftr_linear_desc desc = {.no_bias = b->of->p[0]};
    output(b, ftr_linear(uniform_input(b, FTR_SHAPE(3, 5)), "fc", 4, &desc));
}

/* --------------------------------------------------------------------------------------------------- convolution -- */

typedef struct conv_case {
    const char *name;
    int64_t x[4], out, kernel[2];
    ftr_conv2d_desc desc;
    int flags;
} conv_case;

static const conv_case conv_cases[] = {
    {"3x3", {2, 5, 6, 3}, 4, {3, 3}, {.groups = 0}, 0},
    {"1x1", {2, 3, 4, 5}, 6, {1, 1}, {.groups = 0}, 0},
    {"1x1 one channel", {1, 3, 3, 1}, 1, {1, 1}, {.groups = 0}, 0},
    {"kernel = input", {2, 3, 4, 2}, 3, {3, 4}, {.groups = 0}, 0},
    {"1 pixel", {3, 1, 1, 4}, 5, {1, 1}, {.groups = 0}, 0},
    {"padded 1 pixel", {2, 1, 1, 3}, 2, {3, 3}, {.padding = {1, 1, 1, 1}}, 0},
    {"same", {1, 5, 5, 2}, 3, {3, 3}, {.padding = {1, 1, 1, 1}}, 0},
    {"5x5 same", {1, 6, 5, 2}, 2, {5, 5}, {.padding = {2, 2, 2, 2}}, 0},
    {"stride 2", {2, 7, 7, 3}, 4, {3, 3}, {.stride = {2, 2}}, 0},
    {"stride 2 padded", {1, 8, 8, 2}, 3, {3, 3}, {.stride = {2, 2}, .padding = {1, 1, 1, 1}}, 0},
    {"stride 3x1", {1, 8, 5, 2}, 3, {2, 3}, {.stride = {3, 1}}, 0},
    {"stride 1x2 padded", {1, 4, 7, 3}, 2, {3, 2}, {.stride = {1, 2}, .padding = {0, 1, 1, 0}}, 0},
    {"stride over kernel", {1, 9, 9, 2}, 2, {2, 2}, {.stride = {3, 4}}, 0},
    {"1x1 stride 2", {2, 5, 6, 4}, 3, {1, 1}, {.stride = {2, 2}}, 0},
    {"1x1 padded", {1, 3, 3, 2}, 2, {1, 1}, {.padding = {1, 0, 0, 1}}, 0},
    {"asymmetric padding", {1, 4, 5, 2}, 3, {3, 3}, {.padding = {0, 2, 1, 0}}, 0},
    {"padding over kernel", {1, 3, 3, 1}, 2, {2, 2}, {.padding = {3, 2, 2, 3}}, 0},
    {"dilation 2", {1, 7, 7, 2}, 3, {3, 3}, {.dilation = {2, 2}}, 0},
    {"dilation 3x1", {1, 8, 4, 2}, 2, {3, 2}, {.dilation = {3, 1}}, 0},
    {"dilation 1x2 padded", {1, 4, 6, 2}, 2, {3, 3}, {.dilation = {1, 2}, .padding = {1, 1, 2, 2}}, 0},
    {"dilation 2 stride 2",
     {1, 9, 9, 2},
     2,
     {3, 3},
     {.dilation = {2, 2}, .stride = {2, 2}, .padding = {2, 1, 1, 2}},
     0},
    {"groups 2", {2, 4, 4, 4}, 6, {3, 3}, {.groups = 2}, 0},
    {"groups 3 padded", {1, 4, 5, 6}, 3, {3, 3}, {.groups = 3, .padding = {1, 1, 1, 1}}, 0},
    {"groups 1x1", {2, 3, 3, 6}, 4, {1, 1}, {.groups = 2}, 0},
    {"groups stride dilation", {1, 9, 8, 4}, 4, {3, 3}, {.groups = 2, .stride = {2, 1}, .dilation = {1, 2}}, 0},
    {"depthwise", {2, 5, 5, 5}, 5, {3, 3}, {.groups = 5, .padding = {1, 1, 1, 1}}, 0},
    {"depthwise stride 2", {1, 6, 7, 3}, 3, {3, 3}, {.groups = 3, .stride = {2, 2}, .padding = {1, 1, 1, 1}}, 0},
    {"depthwise dilated", {1, 7, 7, 2}, 2, {3, 3}, {.groups = 2, .dilation = {2, 2}}, 0},
    {"depthwise multiplier 2", {1, 4, 4, 3}, 6, {3, 3}, {.groups = 3}, 0},
    {"depthwise 19 channels", {1, 3, 3, 19}, 19, {2, 2}, {.groups = 19}, 0},
    {"17 to 18 channels", {1, 3, 4, 17}, 18, {2, 2}, {.groups = 0}, 0},
    {"batch 0", {0, 4, 4, 2}, 3, {3, 3}, {.groups = 0}, 0},
    {"one row", {1, 1, 9, 2}, 2, {1, 3}, {.groups = 0}, 0},
    {"one column", {1, 9, 1, 2}, 2, {3, 1}, {.stride = {2, 1}}, 0},
    {"large 3x3", {3, 17, 19, 16}, 24, {3, 3}, {.padding = {1, 1, 1, 1}}, OP_LARGE},
    {"large stride 2", {2, 23, 21, 9}, 33, {3, 3}, {.stride = {2, 2}, .padding = {1, 1, 1, 1}}, OP_LARGE},
    {"large 1x1", {2, 14, 15, 40}, 35, {1, 1}, {.groups = 0}, OP_LARGE},
    {"large 1x1, 16 to 20", {2, 14, 15, 16}, 20, {1, 1}, {.groups = 0}, OP_LARGE},
    {"large 1x1, 24 to 41", {2, 14, 15, 24}, 41, {1, 1}, {.groups = 0}, OP_LARGE},
    {"large 1x1, 48 to 17", {2, 21, 20, 48}, 17, {1, 1}, {.groups = 0}, OP_LARGE},
    {"large 7x7", {2, 21, 20, 3}, 16, {7, 7}, {.stride = {2, 2}, .padding = {3, 3, 3, 3}}, OP_LARGE},
    {"large depthwise", {2, 17, 16, 35}, 35, {3, 3}, {.groups = 35, .padding = {1, 1, 1, 1}}, OP_LARGE},
    {"large 3x3, 32 to 32", {1, 16, 16, 32}, 32, {3, 3}, {.padding = {1, 1, 1, 1}}, OP_LARGE},
    {"large groups", {2, 13, 14, 24}, 20, {3, 3}, {.groups = 4, .padding = {1, 1, 1, 1}}, OP_LARGE},
    {"large deep", {1, 6, 7, 130}, 70, {3, 3}, {.padding = {1, 1, 1, 1}}, OP_LARGE},
    {"large 3x3, 16 to 16", {9, 16, 17, 16}, 16, {3, 3}, {.padding = {1, 1, 1, 1}}, OP_LARGE},
    {"large 3x3, 40 to 24", {5, 23, 24, 40}, 24, {3, 3}, {.padding = {1, 1, 1, 1}}, OP_LARGE},
    {"large stride 2, 16 to 32", {3, 17, 18, 16}, 32, {3, 3}, {.stride = {2, 2}, .padding = {1, 1, 1, 1}}, OP_LARGE},
    {"large stride 2, 32 to 64", {2, 16, 17, 32}, 64, {3, 3}, {.stride = {2, 2}, .padding = {1, 1, 1, 1}}, OP_LARGE},
    {"large 2x3, 48 to 16",
     {2, 12, 20, 48},
     16,
     {2, 3},
     {.stride = {1, 2}, .dilation = {2, 1}, .padding = {0, 1, 3, 1}},
     OP_LARGE},
    {"large 3 to 32", {3, 9, 10, 3}, 32, {3, 3}, {.padding = {1, 1, 1, 1}}, OP_LARGE},
    {"large 5 to 16", {17, 11, 9, 5}, 16, {3, 3}, {.dilation = {2, 1}, .padding = {1, 2, 1, 0}}, OP_LARGE},
    {"large dilated", {1, 25, 24, 8}, 17, {3, 3}, {.dilation = {3, 2}, .padding = {2, 3, 2, 1}}, OP_LARGE},
};

static void conv_from(op_build *b, const conv_case *c, bool bias, bool relu) {
    int64_t groups = c->desc.groups ? c->desc.groups : 1;
    ftr_tensor x = uniform_input(b, FTR_SHAPE(c->x[0], c->x[1], c->x[2], c->x[3]));
    ftr_tensor weight = uniform_input(b, FTR_SHAPE(c->out, c->kernel[0], c->kernel[1], c->x[3] / groups));
    ftr_tensor beta = bias ? uniform_input(b, FTR_SHAPE(c->out)) : (ftr_tensor){0};
    ftr_tensor y = ftr_conv2d_with(x, weight, beta, &c->desc);
    output(b, relu ? ftr_relu(y) : y);
}

/* p: case, bias, relu */
static void build_conv(op_build *b) { conv_from(b, &conv_cases[b->of->p[0]], b->of->p[1], b->of->p[2]); }

/* A configuration drawn at random. */
static void build_conv_random(op_build *b) {
    ftr_test_rng *rng = &b->rng;
    int64_t groups = ftr_test_integer(rng, 1, 3);
    conv_case c = {.out = groups * ftr_test_integer(rng, 1, 5)};
    c.desc.groups = (int32_t)groups;
    c.x[0] = ftr_test_integer(rng, 1, 3);
    c.x[3] = groups * ftr_test_integer(rng, 1, 4);
    for (int d = 0; d < 2; d++) {
        c.kernel[d] = ftr_test_integer(rng, 1, 4);
        c.desc.stride[d] = (int32_t)ftr_test_integer(rng, 1, 3);
        c.desc.dilation[d] = (int32_t)ftr_test_integer(rng, 1, 2);
        c.desc.padding[2 * d] = (int32_t)ftr_test_integer(rng, 0, 2);
        c.desc.padding[2 * d + 1] = (int32_t)ftr_test_integer(rng, 0, 2);
        c.x[1 + d] = c.desc.dilation[d] * (c.kernel[d] - 1) + ftr_test_integer(rng, 1, 4);
    }
    conv_from(b, &c, ftr_test_integer(rng, 0, 1), false);
}

/* p: no bias, kernel, stride, padding, groups, relu */
static void build_conv_layer(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_conv2d_desc desc = {
        .stride = {p[2], p[2]}, .padding = {p[3], p[3], p[3], p[3]}, .groups = p[4], .no_bias = p[0]};
    ftr_tensor y = ftr_conv2d(uniform_input(b, FTR_SHAPE(2, 6, 5, 4)), "conv", 6, p[1], &desc);
    output(b, p[5] ? ftr_relu(y) : y);
}

/* ------------------------------------------------------------------------------------------------- normalization -- */

static const struct {
    const char *name;
    ftr_shape x;
    int flags;
} norm_cases[] = {
    {"rank 2", {2, {7, 3}}, 0},          {"rank 4", {4, {4, 3, 2, 5}}, 0},
    {"rank 3", {3, {4, 5, 2}}, 0},       {"19 channels", {2, {6, 19}}, 0},
    {"1 channel", {4, {4, 2, 3, 1}}, 0}, {"large", {4, {13, 16, 15, 35}}, OP_LARGE},
    {"tall", {2, {3001, 9}}, OP_LARGE},  {"wide", {4, {5, 4, 6, 272}}, OP_LARGE},
};

/* Behind a batch norm, for the fusion of both. */
enum { NORM_RELU = 1, NORM_RELU6, NORM_HARDSWISH, NORM_SILU };

static ftr_tensor norm_activation(int32_t which, ftr_tensor y) {
    switch (which) {
    case NORM_RELU: return ftr_relu(y);
    case NORM_RELU6: return ftr_relu6(y);
    case NORM_HARDSWISH: return ftr_hardswish(y);
    case NORM_SILU: return ftr_silu(y);
    default: return y;
    }
}

/* p: case, batch mask, activation, residual */
static void build_norm(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_shape shape = norm_cases[p[0]].x, channels = FTR_SHAPE(shape.dim[shape.rank - 1]);
    if (p[1]) {
        mask_input(b, shape.dim[0], 0xa); /* rows 1 and 3, and the same of every 32 */
    }
    ftr_tensor x = real_input(b, shape, FILL_UNIFORM, -2, 2);
    ftr_tensor gamma = wide_input(b, channels, FILL_UNIFORM, 0.5, 2);
    ftr_tensor beta = wide_input(b, channels, FILL_UNIFORM, -1, 1);
    ftr_tensor mean = ftr_buffer(b->graph, "running_mean", wide_type(b), channels, (ftr_init){0});
    ftr_tensor var = ftr_buffer(b->graph, "running_var", wide_type(b), channels, (ftr_init){FTR_INIT_CONSTANT, 1, 0});
    ftr_tensor y = ftr_batch_norm_with(x, gamma, beta, mean, var, NULL);
    if (p[3]) {
        y = ftr_add(y, uniform_input(b, shape));
    }
    output(b, norm_activation(p[2], y));
}

/* Convolutions that a batch norm with running statistics is joined to. */
static const struct {
    const char *name;
    ftr_shape x;
    int64_t out;
    int32_t kernel, stride, groups;
} conv_norm_cases[] = {
    {"3x3", {4, {2, 9, 7, 6}}, 5, 3, 1, 1},           {"3x3 wide", {4, {2, 13, 12, 33}}, 37, 3, 1, 1},
    {"1x1", {4, {2, 5, 6, 7}}, 19, 1, 1, 1},          {"1x1 wide", {4, {3, 9, 8, 40}}, 70, 1, 1, 1},
    {"3x3 stride 2", {4, {2, 9, 8, 5}}, 18, 3, 2, 1}, {"groups", {4, {2, 6, 5, 24}}, 36, 3, 1, 2},
    {"depthwise", {4, {2, 7, 9, 21}}, 21, 3, 1, 21},  {"depthwise 5x5 stride 2", {4, {2, 11, 9, 35}}, 35, 5, 2, 35},
};

/* p: case, bias, activation, residual */
static void build_conv_norm(op_build *b) {
    const int32_t *p = b->of->p, kernel = conv_norm_cases[p[0]].kernel, pad = kernel / 2;
    const int64_t out = conv_norm_cases[p[0]].out, groups = conv_norm_cases[p[0]].groups;
    const ftr_shape shape = conv_norm_cases[p[0]].x, channels = FTR_SHAPE(out);
    ftr_conv2d_desc desc = {.stride = {conv_norm_cases[p[0]].stride, conv_norm_cases[p[0]].stride},
                            .padding = {pad, pad, pad, pad},
                            .groups = (int32_t)groups};
    ftr_tensor x = real_input(b, shape, FILL_UNIFORM, -1, 1);
    ftr_tensor weight = real_input(b, FTR_SHAPE(out, kernel, kernel, shape.dim[3] / groups), FILL_UNIFORM, -0.5, 0.5);
    ftr_tensor bias = p[1] ? real_input(b, channels, FILL_UNIFORM, -1, 1) : (ftr_tensor){NULL, 0};
    ftr_tensor y = ftr_conv2d_with(x, weight, bias, &desc);
    ftr_tensor gamma = wide_input(b, channels, FILL_UNIFORM, 0.5, 2);
    ftr_tensor beta = wide_input(b, channels, FILL_UNIFORM, -1, 1);
    ftr_tensor mean = ftr_buffer(b->graph, "running_mean", wide_type(b), channels, (ftr_init){FTR_INIT_UNIFORM, -1, 1});
    ftr_tensor var = ftr_buffer(b->graph, "running_var", wide_type(b), channels, (ftr_init){FTR_INIT_UNIFORM, 0.5, 2});
    y = ftr_batch_norm_with(y, gamma, beta, mean, var, NULL);
    if (p[3]) {
        y = ftr_add(y, uniform_input(b, ftr_shape_of(y)));
    }
    output(b, norm_activation(p[2], y));
}

/* What the weight's gradient of a 1x1 convolution computes again. p: channels, results, batch norm and ReLU instead of factors */
static void build_conv_input(op_build *b) {
    const int32_t *p = b->of->p;
    const ftr_shape shape = FTR_SHAPE(3, 5, 7, p[0]), channels = FTR_SHAPE(p[0]);
    ftr_tensor h = real_input(b, shape, FILL_UNIFORM, -1, 1);
    if (p[2]) {
        ftr_tensor gamma = wide_input(b, channels, FILL_UNIFORM, 0.5, 2);
        ftr_tensor beta = wide_input(b, channels, FILL_UNIFORM, -1, 1);
        ftr_tensor mean =
            ftr_buffer(b->graph, "running_mean", wide_type(b), channels, (ftr_init){FTR_INIT_ZEROS, 0, 0});
        ftr_tensor var =
            ftr_buffer(b->graph, "running_var", wide_type(b), channels, (ftr_init){FTR_INIT_UNIFORM, 0.5, 2});
        h = ftr_relu(ftr_batch_norm_with(h, gamma, beta, mean, var, NULL));
    } else {
        h = ftr_mul(h, real_input(b, FTR_SHAPE(3, 1, 1, p[0]), FILL_UNIFORM, 0.2, 1));
    }
    const ftr_tensor weight = real_input(b, FTR_SHAPE(p[1], 1, 1, p[0]), FILL_UNIFORM, -0.5, 0.5);
    output(b, ftr_conv2d_with(h, weight, (ftr_tensor){NULL, 0}, &(ftr_conv2d_desc){.groups = 1}));
}

/* p: rank 4 */
static void build_norm_layer(op_build *b) {
    ftr_batch_norm_desc desc = ftr_batch_norm_defaults();
    desc.eps = 1e-3;
    desc.momentum = 0.3;
    ftr_shape shape = b->of->p[0] ? FTR_SHAPE(3, 2, 4, 5) : FTR_SHAPE(8, 5);
    output(b, ftr_batch_norm(real_input(b, shape, FILL_UNIFORM, -2, 2), "bn", &desc));
}

enum { ROW_LAYER, ROW_RMS, ROW_GROUP };

static const char *const row_norms[] = {"layer_norm", "rms_norm", "group_norm"};

/* dims: of a row, or the number of groups. `offset`: of the data's mean from 0. */
static const struct {
    const char *name;
    int32_t op, dims;
    ftr_shape x;
    double offset;
    int flags;
} row_norm_cases[] = {
    {"rank 2", ROW_LAYER, 1, {2, {7, 5}}, 0, 0},
    {"rank 1", ROW_LAYER, 1, {1, {19}}, 0, 0},
    {"2 dims", ROW_LAYER, 2, {4, {3, 2, 4, 9}}, 0, 0},
    {"all dims", ROW_LAYER, 2, {2, {5, 4}}, 0, 0},
    {"one element", ROW_LAYER, 1, {2, {4, 1}}, 0, OP_NO_DIFFERENCE},
    {"no rows", ROW_LAYER, 1, {2, {0, 6}}, 0, 0},
    {"far from 0", ROW_LAYER, 1, {2, {6, 37}}, 64, OP_NO_DIFFERENCE},
    {"large", ROW_LAYER, 1, {3, {17, 61, 77}}, 0, OP_LARGE},
    {"tall", ROW_LAYER, 1, {2, {5003, 9}}, 0, OP_LARGE},
    {"wide", ROW_LAYER, 2, {3, {5, 131, 61}}, 0, OP_LARGE},
    {"rank 2", ROW_RMS, 1, {2, {7, 5}}, 0, 0},
    {"rank 1", ROW_RMS, 1, {1, {35}}, 0, 0},
    {"rank 4", ROW_RMS, 1, {4, {3, 2, 2, 17}}, 0, 0},
    {"one element", ROW_RMS, 1, {2, {4, 1}}, 2, 0},
    {"no rows", ROW_RMS, 1, {3, {2, 0, 6}}, 0, 0},
    {"far from 0", ROW_RMS, 1, {2, {6, 37}}, 64, 0},
    {"large", ROW_RMS, 1, {3, {17, 61, 77}}, 0, OP_LARGE},
    {"wide", ROW_RMS, 1, {2, {9, 5003}}, 0, OP_LARGE},
    {"rank 2", ROW_GROUP, 2, {2, {5, 8}}, 0, 0},
    {"rank 4", ROW_GROUP, 3, {4, {3, 2, 3, 12}}, 0, 0},
    {"one group", ROW_GROUP, 1, {3, {3, 4, 5}}, 0, 0},
    {"group a channel", ROW_GROUP, 5, {4, {2, 3, 2, 5}}, 0, 0},
    {"no samples", ROW_GROUP, 2, {3, {0, 3, 4}}, 0, 0},
    {"no positions", ROW_GROUP, 2, {3, {2, 0, 4}}, 0, 0},
    {"far from 0", ROW_GROUP, 2, {3, {3, 7, 6}}, 64, OP_NO_DIFFERENCE},
    {"large", ROW_GROUP, 6, {4, {3, 31, 33, 42}}, 0, OP_LARGE},
    {"many channels", ROW_GROUP, 32, {3, {7, 5, 1056}}, 0, OP_LARGE},
};

/* p: case, gamma, beta */
static void build_row_norm(op_build *b) {
    const int32_t *p = b->of->p;
    int32_t op = row_norm_cases[p[0]].op, dims = row_norm_cases[p[0]].dims;
    ftr_shape shape = row_norm_cases[p[0]].x, row = {.rank = op == ROW_LAYER ? dims : 1};
    for (int32_t d = 0; d < row.rank; d++) {
        row.dim[d] = shape.dim[shape.rank - row.rank + d];
    }
    double offset = row_norm_cases[p[0]].offset;
    ftr_tensor x = real_input(b, shape, FILL_UNIFORM, offset - 2, offset + 2), gamma = {0}, beta = {0};
    if (p[1]) {
        gamma = wide_input(b, row, FILL_UNIFORM, 0.5, 2);
    }
    if (p[2]) {
        beta = wide_input(b, row, FILL_UNIFORM, -1, 1);
    }
    ftr_layer_norm_desc desc = ftr_layer_norm_defaults();
    desc.dims = p[1] || p[2] ? 0 : dims;
    output(b, op == ROW_LAYER ? ftr_layer_norm_with(x, gamma, beta, &desc)
              : op == ROW_RMS ? ftr_rms_norm_with(x, gamma, NULL)
                              : ftr_group_norm_with(x, dims, gamma, beta, NULL));
}

/* p: op, which gradients are wanted: 0 all, 1 of gamma and beta alone, 2 of x alone */
static void build_row_norm_layer(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_shape shape = FTR_SHAPE(4, 3, 6);
    ftr_tensor x = p[1] == 1 ? fixed_input(b, shape, FILL_UNIFORM, -2, 2) : real_input(b, shape, FILL_UNIFORM, -2, 2);
    if (p[1] == 2) {
        ftr_tensor gamma = declare(b, wide_type(b), FTR_SHAPE(6), FILL_UNIFORM, 0.5, 2)->tensor;
        output(b, p[0] == ROW_LAYER ? ftr_layer_norm_with(x, gamma, gamma, NULL)
                  : p[0] == ROW_RMS ? ftr_rms_norm_with(x, gamma, NULL)
                                    : ftr_group_norm_with(x, 3, gamma, gamma, NULL));
        return;
    }
    ftr_layer_norm_desc layer = ftr_layer_norm_defaults();
    ftr_rms_norm_desc rms = ftr_rms_norm_defaults();
    ftr_group_norm_desc group = ftr_group_norm_defaults();
    layer.eps = rms.eps = group.eps = 0.25;
    layer.no_bias = p[1] != 0;
    output(b, p[0] == ROW_LAYER ? ftr_layer_norm(x, "norm", &layer)
              : p[0] == ROW_RMS ? ftr_rms_norm(x, "norm", &rms)
                                : ftr_group_norm(x, "norm", 2, &group));
}

/* ------------------------------------------------------------------------------------------------------- pooling -- */

static const struct {
    const char *name;
    int64_t x[4];
    int32_t kernel[2];
    ftr_pool2d_desc desc;
    int flags;
} pool_cases[] = {
    {"2x2", {2, 4, 6, 3}, {2, 2}, {.exclude_padding = false}, 0},
    {"2x2 odd", {2, 5, 7, 2}, {2, 2}, {.exclude_padding = false}, 0},
    {"1x1", {1, 3, 3, 2}, {1, 1}, {.exclude_padding = false}, 0},
    {"3x3 stride 2 padded", {1, 7, 8, 3}, {3, 3}, {.stride = {2, 2}, .padding = {1, 1, 1, 1}}, 0},
    {"overlapping", {2, 6, 5, 2}, {3, 2}, {.stride = {1, 1}}, 0},
    {"window = input", {2, 3, 5, 4}, {3, 5}, {.exclude_padding = false}, 0},
    {"asymmetric padding", {1, 5, 4, 2}, {3, 2}, {.stride = {2, 1}, .padding = {0, 1, 1, 0}}, 0},
    {"stride over window", {1, 7, 8, 2}, {2, 2}, {.stride = {3, 4}}, 0},
    {"19 channels", {1, 4, 4, 19}, {2, 2}, {.exclude_padding = false}, 0},
    {"batch 0", {0, 4, 4, 2}, {2, 2}, {.exclude_padding = false}, 0},
    {"large", {3, 31, 33, 17}, {3, 3}, {.stride = {2, 2}, .padding = {1, 1, 1, 1}}, OP_LARGE},
};

/* p: case, average, exclude padding */
static void build_pool(op_build *b) {
    const int32_t *p = b->of->p;
    const int64_t *d = pool_cases[p[0]].x;
    ftr_pool2d_desc desc = pool_cases[p[0]].desc;
    desc.exclude_padding = p[2];
    ftr_tensor x = real_input(b, FTR_SHAPE(d[0], d[1], d[2], d[3]), p[1] ? FILL_UNIFORM : FILL_DISTINCT, -1, 1);
    int32_t kh = pool_cases[p[0]].kernel[0], kw = pool_cases[p[0]].kernel[1];
    output(b, p[1] ? ftr_avg_pool2d(x, kh, kw, &desc) : ftr_max_pool2d(x, kh, kw, &desc));
}

static void build_max_pool_ties(op_build *b) {
    output(b, ftr_max_pool2d(real_input(b, FTR_SHAPE(2, 6, 6, 3), FILL_INTEGER, 0, 1), 3, 3, NULL));
}

/* p: height, width, channels */
static void build_global_pool(op_build *b) {
    const int32_t *p = b->of->p;
    output(b, ftr_global_avg_pool(uniform_input(b, FTR_SHAPE(2, p[0], p[1], p[2]))));
}

/* -------------------------------------------------------------------------------------------------------- random -- */

/* p: percent, shape */
static void build_dropout(op_build *b) {
    output(b, ftr_dropout(uniform_input(b, pointwise_shape(b, b->of->p[1])), b->of->p[0] / 100.0));
}

/* Two nodes have two masks. */
static void build_dropout_twice(op_build *b) {
    ftr_tensor x = uniform_input(b, FTR_SHAPE(4, 9));
    output(b, ftr_dropout(x, 0.5));
    output(b, ftr_dropout(ftr_dropout(x, 0.25), 0.25));
}

/* --------------------------------------------------------------------------------------------------------- shape -- */

/* p: case */
static void build_reshape(op_build *b) {
    switch (b->of->p[0]) {
    case 0: output(b, ftr_reshape(uniform_input(b, FTR_SHAPE(2, 3, 4)), FTR_SHAPE(6, 4))); break;
    case 1: output(b, ftr_reshape(uniform_input(b, FTR_SHAPE(2, 3, 4)), FTR_SHAPE(4, -1))); break;
    case 2: output(b, ftr_reshape(uniform_input(b, FTR_SHAPE(1, 1)), ftr_scalar_shape())); break;
    case 3: output(b, ftr_reshape(uniform_input(b, FTR_SHAPE(0, 3)), FTR_SHAPE(5, 0))); break;
    case 4: output(b, ftr_flatten(uniform_input(b, FTR_SHAPE(2, 3, 4, 2)), 1)); break;
    case 5: output(b, ftr_flatten(uniform_input(b, FTR_SHAPE(2, 3)), 0)); break;
    case 6: output(b, ftr_flatten(uniform_input(b, FTR_SHAPE(2, 3, 4)), -1)); break;
    case 7: output(b, ftr_reshape(integer_input(b, FTR_I64, FTR_SHAPE(6), -9, 9), FTR_SHAPE(3, 2))); break;
    case 8: { /* between two computations, and used twice */
        ftr_tensor r = ftr_reshape(ftr_exp(uniform_input(b, FTR_SHAPE(3, 4))), FTR_SHAPE(12));
        output(b, ftr_mul(r, r));
        break;
    }
    default: { /* a view of an input, and the input itself */
        ftr_tensor x = uniform_input(b, FTR_SHAPE(3, 4));
        output(b, ftr_neg(ftr_reshape(x, FTR_SHAPE(2, 6))));
        output(b, ftr_relu(ftr_reshape(ftr_neg(x), FTR_SHAPE(4, 3))));
        break;
    }
    }
}
enum { RESHAPES = 10 };

static const struct {
    ftr_shape x;
    ftr_axes order;
    int flags;
} transpose_cases[] = {
    {{1, {5}}, {1, {0}}, 0},
    {{2, {3, 17}}, {2, {1, 0}}, 0},
    {{3, {2, 3, 4}}, {3, {0, 2, 1}}, 0},
    {{3, {2, 3, 4}}, {3, {2, 0, 1}}, 0},
    {{3, {2, 3, 4}}, {3, {1, 0, 2}}, 0},
    {{3, {2, 3, 4}}, {3, {2, 1, 0}}, 0},
    {{4, {2, 3, 4, 5}}, {4, {0, 3, 1, 2}}, 0},
    {{4, {2, 3, 4, 5}}, {4, {0, 2, 3, 1}}, 0},
    {{4, {2, 1, 4, 3}}, {4, {3, 2, 1, 0}}, 0},
    {{6, {2, 1, 2, 3, 1, 2}}, {6, {5, 3, 0, 1, 4, 2}}, 0},
    {{2, {0, 3}}, {2, {1, 0}}, 0},
    {{3, {2, 3, 4}}, {3, {0, 1, 2}}, 0},
    {{2, {251, 307}}, {2, {1, 0}}, OP_LARGE},
    {{4, {5, 31, 30, 17}}, {4, {0, 3, 1, 2}}, OP_LARGE},
};

/* p: case */
static void build_transpose(op_build *b) {
    output(b, ftr_transpose(uniform_input(b, transpose_cases[b->of->p[0]].x), transpose_cases[b->of->p[0]].order));
}

static void build_transpose_integer(op_build *b) {
    ftr_dtype type = all_types[b->of->p[0]];
    output(b, ftr_transpose(integer_input(b, type, FTR_SHAPE(3, 4, 5), 0, 1), FTR_AXES(2, 0, 1)));
}

static const struct {
    ftr_shape from, to;
    int flags;
} expand_cases[] = {
    {{2, {3, 1}}, {2, {3, 5}}, 0},
    {{0, {0}}, {2, {2, 3}}, 0},
    {{1, {4}}, {3, {2, 3, 4}}, 0},
    {{3, {1, 3, 1}}, {4, {2, 4, 3, 2}}, 0},
    {{2, {1, 3}}, {2, {0, 3}}, 0},
    {{2, {2, 3}}, {2, {2, 3}}, 0},
    {{2, {301, 1}}, {2, {301, 233}}, OP_LARGE},
    {{1, {233}}, {2, {301, 233}}, OP_LARGE},
};

/* p: case */
static void build_expand(op_build *b) {
    output(b, ftr_expand(uniform_input(b, expand_cases[b->of->p[0]].from), expand_cases[b->of->p[0]].to));
}

/* p: case */
static void build_concat(op_build *b) {
    ftr_tensor t[16];
    switch (b->of->p[0]) {
    case 0: /* first axis */
        t[0] = uniform_input(b, FTR_SHAPE(2, 3));
        t[1] = uniform_input(b, FTR_SHAPE(4, 3));
        output(b, ftr_concat(t, 2, 0));
        break;
    case 1: /* last axis, of odd sizes */
        t[0] = uniform_input(b, FTR_SHAPE(3, 5));
        t[1] = uniform_input(b, FTR_SHAPE(3, 1));
        t[2] = uniform_input(b, FTR_SHAPE(3, 17));
        output(b, ftr_concat(t, 3, -1));
        break;
    case 2: /* middle axis */
        t[0] = uniform_input(b, FTR_SHAPE(2, 3, 2));
        t[1] = uniform_input(b, FTR_SHAPE(2, 1, 2));
        output(b, ftr_concat(t, 2, 1));
        break;
    case 3: /* one tensor */
        t[0] = uniform_input(b, FTR_SHAPE(2, 3));
        output(b, ftr_concat(t, 1, 0));
        break;
    case 4: /* an empty piece */
        t[0] = uniform_input(b, FTR_SHAPE(2, 0, 2));
        t[1] = uniform_input(b, FTR_SHAPE(2, 3, 2));
        output(b, ftr_concat(t, 2, 1));
        break;
    case 5: /* as many as there may be */
        for (int i = 0; i < 16; i++) {
            t[i] = uniform_input(b, FTR_SHAPE(2, 1 + i % 3));
        }
        output(b, ftr_concat(t, 16, 1));
        break;
    case 6: /* the same tensor twice */
        t[0] = t[1] = uniform_input(b, FTR_SHAPE(3, 2));
        output(b, ftr_concat(t, 2, 0));
        break;
    case 7: /* integers */
        t[0] = integer_input(b, FTR_I64, FTR_SHAPE(2, 3), -9, 9);
        t[1] = integer_input(b, FTR_I64, FTR_SHAPE(2, 2), -9, 9);
        output(b, ftr_concat(t, 2, 1));
        break;
    case 8: /* bytes */
        t[0] = integer_input(b, FTR_U8, FTR_SHAPE(2, 3), 0, 255);
        t[1] = integer_input(b, FTR_U8, FTR_SHAPE(1, 3), 0, 255);
        output(b, ftr_concat(t, 2, 0));
        break;
    default: /* large */
        t[0] = uniform_input(b, FTR_SHAPE(301, 100));
        t[1] = uniform_input(b, FTR_SHAPE(301, 133));
        output(b, ftr_concat(t, 2, 1));
        break;
    }
}
enum { CONCATS = 10 };

static const struct {
    ftr_shape x;
    int32_t axis;
    int64_t begin, end, step;
    int flags;
} slice_cases[] = {
    {{1, {9}}, 0, 2, 7, 1, 0},
    {{1, {9}}, 0, 0, 9, 2, 0},
    {{1, {9}}, 0, 1, 9, 3, 0},
    {{2, {4, 5}}, 0, 1, 3, 1, 0},
    {{2, {4, 5}}, 1, 0, 4, 3, 0},
    {{2, {4, 5}}, -1, -3, -1, 1, 0},
    {{2, {4, 5}}, 1, -100, 100, 2, 0},
    {{2, {4, 5}}, 1, 3, 3, 1, 0},
    {{2, {4, 5}}, 0, 3, 1, 1, 0},
    {{3, {3, 7, 2}}, 1, 2, 7, 2, 0},
    {{3, {3, 7, 2}}, 0, 2, 3, 1, 0},
    {{3, {3, 7, 2}}, 2, 1, 2, 100, 0},
    {{2, {0, 5}}, 1, 1, 4, 1, 0},
    {{2, {400, 301}}, 1, 3, 290, 2, OP_LARGE},
    {{2, {601, 201}}, 0, 1, 590, 3, OP_LARGE},
};

/* p: case */
static void build_slice(op_build *b) {
    int32_t i = b->of->p[0];
    ftr_tensor x = uniform_input(b, slice_cases[i].x);
    output(b, ftr_slice(x, slice_cases[i].axis, slice_cases[i].begin, slice_cases[i].end, slice_cases[i].step));
}

/* Two slices of one tensor that overlap. */
static void build_slice_overlap(op_build *b) {
    ftr_tensor x = uniform_input(b, FTR_SHAPE(3, 7));
    output(b, ftr_slice(x, 1, 0, 5, 1));
    output(b, ftr_slice(x, 1, 3, 7, 2));
}

static void build_slice_integer(op_build *b) {
    output(b, ftr_slice(integer_input(b, all_types[b->of->p[0]], FTR_SHAPE(3, 8), 0, 1), 1, 1, 7, 2));
}

static const struct {
    ftr_shape x, before, after;
    double value;
    int flags;
} pad_cases[] = {
    {{1, {3}}, {1, {2}}, {1, {1}}, 0, 0},
    {{2, {3, 4}}, {2, {0, 1}}, {2, {2, 0}}, 0.5, 0},
    {{2, {3, 4}}, {2, {0, 0}}, {2, {0, 0}}, 9, 0},
    {{3, {2, 3, 2}}, {3, {1, 0, 2}}, {3, {0, 2, 1}}, -1, 0},
    {{4, {1, 3, 3, 2}}, {4, {0, 1, 1, 0}}, {4, {0, 1, 1, 0}}, 0, 0},
    {{2, {0, 3}}, {2, {1, 1}}, {2, {1, 0}}, 2, 0},
    {{4, {3, 33, 31, 17}}, {4, {0, 1, 1, 0}}, {4, {0, 1, 2, 0}}, 0.25, OP_LARGE},
};

/* p: case */
static void build_pad(op_build *b) {
    int32_t i = b->of->p[0];
    output(b, ftr_pad(uniform_input(b, pad_cases[i].x), pad_cases[i].before, pad_cases[i].after, pad_cases[i].value));
}

static void build_pad_integer(op_build *b) {
    ftr_tensor x = integer_input(b, all_types[b->of->p[0]], FTR_SHAPE(2, 3), 0, 1);
    output(b, ftr_pad(x, FTR_SHAPE(1, 0), FTR_SHAPE(0, 2), 1));
}

/* -------------------------------------------------------------------------------------------- softmax and losses -- */

static const struct {
    const char *name;
    ftr_shape x;
    int32_t axis;
    double largest;
    int flags;
} softmax_cases[] = {
    {"rank 1", {1, {5}}, 0, 2, 0},
    {"last axis", {2, {4, 7}}, -1, 2, 0},
    {"first axis", {2, {4, 7}}, 0, 2, 0},
    {"middle axis", {3, {2, 5, 3}}, 1, 2, 0},
    {"size 1", {2, {4, 1}}, 1, 2, 0},
    {"33 wide", {2, {3, 33}}, 1, 2, 0},
    {"empty batch", {2, {0, 4}}, 1, 2, 0},
    {"large logits", {2, {5, 9}}, 1, 1000, OP_NO_DIFFERENCE},
    {"large", {2, {701, 101}}, 1, 2, OP_LARGE},
    {"large first axis", {2, {53, 1003}}, 0, 2, OP_LARGE},
};

/* p: case, log */
static void build_softmax(op_build *b) {
    int32_t i = b->of->p[0];
    double largest = softmax_cases[i].largest;
    ftr_tensor x = real_input(b, softmax_cases[i].x, FILL_UNIFORM, -largest, largest);
    output(b, b->of->p[1] ? ftr_log_softmax(x, softmax_cases[i].axis) : ftr_softmax(x, softmax_cases[i].axis));
}

enum {
    CE_WEIGHTS = 1,
    CE_SMOOTHING = 2,
    CE_IGNORE = 4,
    CE_I64 = 8,
    CE_RANK3 = 16,
    CE_MASK = 32,
    CE_BIG = 64,
    CE_ALL = 128,
    CE_FAR = 256,
    CE_ONE = 512,
    CE_EMPTY = 1024
};

/* p: reduction, switches */
static void build_cross_entropy(op_build *b) {
    int32_t s = b->of->p[1];
    int64_t batch = s & CE_BIG ? 1001 : s & CE_EMPTY ? 0 : 6, classes = s & CE_BIG ? 37 : 5;
    double largest = s & CE_FAR ? 1000 : 3;
    if (s & CE_MASK) {
        mask_input(b, batch, 0x14);
    }
    ftr_shape rows = s & CE_RANK3 ? FTR_SHAPE(batch, 3) : FTR_SHAPE(batch);
    ftr_shape shape = s & CE_RANK3 ? FTR_SHAPE(batch, 3, classes) : FTR_SHAPE(batch, classes);
    if (s & CE_ONE) { /* logits of one row alone */
        rows = ftr_scalar_shape();
        shape = FTR_SHAPE(classes);
    }
    ftr_tensor logits = real_input(b, shape, FILL_UNIFORM, -largest, largest);
    ftr_tensor labels = integer_input(b, s & CE_I64 ? FTR_I64 : FTR_I32, rows, 0, classes - 1);
    op_input *input = &b->inputs[b->input_count - 1];
    ftr_cross_entropy_desc desc = ftr_cross_entropy_defaults();
    desc.reduction = (ftr_reduction)b->of->p[0];
    desc.label_smoothing = s & CE_SMOOTHING ? 0.125 : 0;
    for (int64_t i = 0; i < input->count && s & (CE_IGNORE | CE_ALL); i++) {
        if (i % 3 == 1 || s & CE_ALL) {
            input->values[i] = s & CE_I64 ? 2 : -100; /* a real class can be ignored too */
        }
    }
    desc.ignore_index = s & CE_IGNORE && s & CE_I64 ? 2 : -100;
    if (s & CE_WEIGHTS) {
        desc.class_weights = fixed_input(b, FTR_SHAPE(classes), FILL_UNIFORM, 0.25, 2);
    }
    output(b, ftr_cross_entropy(logits, labels, &desc));
}

/* p: reduction, mask, rank 3 */
static void build_mse(op_build *b) {
    const int32_t *p = b->of->p;
    if (p[1]) {
        mask_input(b, 5, 0x14);
    }
    ftr_shape shape = p[2] ? FTR_SHAPE(5, 2, 3) : FTR_SHAPE(5, 3);
    ftr_tensor prediction = uniform_input(b, shape), target = uniform_input(b, shape);
    output(b, ftr_mse(prediction, target, (ftr_reduction)p[0]));
}

enum { NLL_WEIGHTS = 1, NLL_IGNORE = 2, NLL_I64 = 4, NLL_RANK3 = 8, NLL_MASK = 16, NLL_BIG = 32, NLL_ALL = 64 };

/* p: reduction, switches */
static void build_nll(op_build *b) {
    int32_t s = b->of->p[1];
    int64_t batch = s & NLL_BIG ? 4001 : 6, classes = s & NLL_BIG ? 37 : 5;
    if (s & NLL_MASK) {
        mask_input(b, batch, 0x14);
    }
    ftr_shape rows = s & NLL_RANK3 ? FTR_SHAPE(batch, 3) : FTR_SHAPE(batch);
    ftr_shape shape = s & NLL_RANK3 ? FTR_SHAPE(batch, 3, classes) : FTR_SHAPE(batch, classes);
    ftr_tensor x = real_input(b, shape, FILL_UNIFORM, -5, 0);
    ftr_tensor labels = integer_input(b, s & NLL_I64 ? FTR_I64 : FTR_I32, rows, 0, classes - 1);
    op_input *input = &b->inputs[b->input_count - 1];
    for (int64_t i = 0; i < input->count && s & (NLL_IGNORE | NLL_ALL); i++) {
        input->values[i] = i % 3 == 1 || s & NLL_ALL ? 7 : input->values[i];
    }
    ftr_cross_entropy_desc desc = ftr_cross_entropy_defaults();
    desc.reduction = (ftr_reduction)b->of->p[0];
    desc.ignore_index = s & (NLL_IGNORE | NLL_ALL) ? 7 : -100;
    if (s & NLL_WEIGHTS) {
        desc.class_weights = fixed_input(b, FTR_SHAPE(classes), FILL_UNIFORM, 0.25, 2);
    }
    output(b, ftr_nll(x, labels, &desc));
}

/* p: reduction, mask, weight (1 of classes, 2 of elements, 3 one), data (1 logits of 0, 2 far logits) */
static void build_bce(op_build *b) {
    const int32_t *p = b->of->p;
    if (p[1]) {
        mask_input(b, 5, 0x14);
    }
    double far = p[3] == 1 ? 0 : p[3] == 2 ? 300 : 4;
    ftr_tensor logits = real_input(b, FTR_SHAPE(5, 7), FILL_UNIFORM, -far, far);
    ftr_tensor target = real_input(b, FTR_SHAPE(5, 7), p[3] ? FILL_INTEGER : FILL_UNIFORM, 0, 1);
    ftr_bce_desc desc = {.reduction = (ftr_reduction)p[0]};
    if (p[2]) {
        ftr_shape shape = p[2] == 1 ? FTR_SHAPE(7) : p[2] == 2 ? FTR_SHAPE(5, 7) : ftr_scalar_shape();
        desc.pos_weight = real_input(b, shape, FILL_UNIFORM, 0.5, 3);
    }
    output(b, ftr_bce_with_logits(logits, target, &desc));
}

/* p: reduction, mask, log target, zeros among the targets */
static void build_kl_div(op_build *b) {
    const int32_t *p = b->of->p;
    if (p[1]) {
        mask_input(b, 5, 0x14);
    }
    ftr_tensor x = real_input(b, FTR_SHAPE(5, 2, 3), FILL_UNIFORM, -4, 0);
    double low = p[2] ? -4 : 0.05, high = p[2] ? 0 : 1;
    ftr_tensor target = real_input(b, FTR_SHAPE(5, 2, 3), FILL_UNIFORM, low, high);
    for (int64_t i = 0; i < 30 && p[3]; i += 4) {
        b->inputs[b->input_count - 1].values[i] = 0;
    }
    output(b, ftr_kl_div(x, target, p[2], (ftr_reduction)p[0]));
}

/* p: reduction, mask, beta in eighths, equal elements */
static void build_smooth_l1(op_build *b) {
    const int32_t *p = b->of->p;
    if (p[1]) {
        mask_input(b, 5, 0x14);
    }
    ftr_tensor x = real_input(b, FTR_SHAPE(5, 7), FILL_UNIFORM, -2, 2);
    ftr_tensor target = real_input(b, FTR_SHAPE(5, 7), FILL_UNIFORM, -2, 2);
    for (int64_t i = 0; i < 35 && p[3]; i++) { /* differences of 0, and of beta */
        op_input *last = &b->inputs[b->input_count - 1];
        last[-1].values[i] = (double)(i % 4);
        last->values[i] = last[-1].values[i] + (i % 3 - 1) * (p[2] / 8.0);
    }
    output(b, ftr_smooth_l1(x, target, p[2] / 8.0, (ftr_reduction)p[0]));
}

/* p: mask, i64, rank 3, classes */
static void build_accuracy(op_build *b) {
    const int32_t *p = b->of->p;
    if (p[0]) {
        mask_input(b, 8, 0x2c);
    }
    ftr_tensor logits = fixed_input(b, p[2] ? FTR_SHAPE(8, 2, p[3]) : FTR_SHAPE(8, p[3]), FILL_DISTINCT, 0, 0);
    ftr_shape rows = p[2] ? FTR_SHAPE(8, 2) : FTR_SHAPE(8);
    output(b, ftr_accuracy(logits, integer_input(b, p[1] ? FTR_I64 : FTR_I32, rows, 0, p[3] - 1)));
}

/* --------------------------------------------------------------------------------------------- indices and scans -- */

static const struct {
    const char *name;
    int64_t rows, width;
    ftr_shape indices;
    int flags;
} embedding_cases[] = {
    {"7x5", 7, 5, {1, {4}}, 0},
    {"one row", 1, 3, {2, {2, 3}}, 0},
    {"one column", 11, 1, {3, {5, 2, 2}}, 0},
    {"scalar index", 4, 6, {0, {0}}, 0},
    {"no indices", 5, 3, {1, {0}}, 0},
    {"rank 5", 3, 2, {5, {1, 2, 1, 3, 2}}, 0},
    {"large", 503, 70, {2, {60, 40}}, OP_LARGE},
    {"wide", 97, 515, {1, {333}}, OP_LARGE},
    {"often", 2, 300, {1, {5003}}, OP_LARGE},
    {"rows of many", 20011, 3, {1, {40000}}, OP_LARGE},
};

/* p: case, type of the indices */
static void build_embedding(op_build *b) {
    const int32_t i = b->of->p[0];
    ftr_tensor weight = uniform_input(b, FTR_SHAPE(embedding_cases[i].rows, embedding_cases[i].width));
    ftr_dtype type = b->of->p[1] ? FTR_I64 : FTR_I32;
    output(b, ftr_embedding_with(weight,
                                 integer_input(b, type, embedding_cases[i].indices, 0, embedding_cases[i].rows - 1)));
}

/* The layer, its weight used again as the last linear layer's. */
static void build_embedding_layer(op_build *b) {
    ftr_embedding_desc desc = {.dtype = b->real};
    ftr_tensor h = ftr_embedding(integer_input(b, FTR_I32, FTR_SHAPE(3, 4), 0, 6), "emb", 7, 5, &desc);
    output(b, ftr_linear_with(ftr_tanh(h), as_real(b, ftr_variable_find(b->graph, "emb.weight")), (ftr_tensor){0}));
}

static const struct {
    const char *name;
    ftr_shape x, index, source;
    int32_t axis;
    int flags;
} gather_cases[] = {
    {"5 by 7", {1, {5}}, {1, {7}}, {1, {7}}, 0, 0},
    {"columns", {2, {3, 4}}, {2, {3, 6}}, {2, {3, 6}}, 1, 0},
    {"rows", {2, {3, 4}}, {2, {5, 4}}, {2, {6, 4}}, 0, 0},
    {"fewer rows", {2, {3, 4}}, {2, {2, 3}}, {2, {2, 5}}, -1, 0},
    {"middle", {3, {4, 3, 5}}, {3, {4, 6, 5}}, {3, {4, 6, 5}}, 1, 0},
    {"first of rank 3", {3, {4, 3, 5}}, {3, {2, 2, 4}}, {3, {3, 2, 4}}, 0, 0},
    {"last of rank 4", {4, {2, 3, 4, 5}}, {4, {1, 3, 2, 7}}, {4, {1, 3, 2, 7}}, 3, 0},
    {"second of rank 4", {4, {2, 3, 4, 5}}, {4, {2, 2, 3, 4}}, {4, {2, 3, 4, 5}}, -3, 0},
    {"nothing", {2, {3, 4}}, {2, {3, 0}}, {2, {3, 2}}, 1, 0},
    {"one", {1, {1}}, {1, {1}}, {1, {1}}, 0, 0},
    {"large columns", {2, {301, 233}}, {2, {301, 150}}, {2, {301, 150}}, 1, OP_LARGE},
    {"large rows", {2, {301, 533}}, {2, {200, 533}}, {2, {200, 533}}, 0, OP_LARGE},
    {"large middle", {3, {31, 40, 70}}, {3, {31, 25, 65}}, {3, {31, 26, 65}}, 1, OP_LARGE},
    {"long", {1, {1000}}, {1, {40000}}, {1, {40000}}, 0, OP_LARGE},
};

static ftr_tensor gather_index(op_build *b, int32_t i, ftr_dtype type) {
    int32_t axis = gather_cases[i].axis < 0 ? gather_cases[i].axis + gather_cases[i].x.rank : gather_cases[i].axis;
    return integer_input(b, type, gather_cases[i].index, 0, gather_cases[i].x.dim[axis] - 1);
}

/* p: case, type of the index */
static void build_gather(op_build *b) {
    int32_t i = b->of->p[0];
    ftr_tensor x = uniform_input(b, gather_cases[i].x);
    output(b, ftr_gather(x, gather_cases[i].axis, gather_index(b, i, b->of->p[1] ? FTR_I64 : FTR_I32)));
}

/* p: case, type */
static void build_gather_integer(op_build *b) {
    int32_t i = b->of->p[0];
    ftr_tensor x = integer_input(b, all_types[b->of->p[1]], gather_cases[i].x, 0, 1);
    output(b, ftr_gather(x, gather_cases[i].axis, gather_index(b, i, FTR_I64)));
}

/* p: case, type of the index */
static void build_scatter_add(op_build *b) {
    int32_t i = b->of->p[0];
    ftr_tensor x = uniform_input(b, gather_cases[i].x), source = uniform_input(b, gather_cases[i].source);
    ftr_tensor index = gather_index(b, i, b->of->p[1] ? FTR_I64 : FTR_I32);
    output(b, ftr_scatter_add(x, gather_cases[i].axis, index, source));
}

/* p: case, type */
static void build_scatter_add_integer(op_build *b) {
    int32_t i = b->of->p[0];
    ftr_dtype type = all_types[b->of->p[1]];
    ftr_tensor x = integer_input(b, type, gather_cases[i].x, -900, 900);
    ftr_tensor source = integer_input(b, type, gather_cases[i].source, -900, 900);
    output(b, ftr_scatter_add(x, gather_cases[i].axis, gather_index(b, i, FTR_I32), source));
}

/* A tensor that is added to itself, and used before and after. */
static void build_scatter_add_self(op_build *b) {
    ftr_tensor x = ftr_exp(uniform_input(b, FTR_SHAPE(4, 5)));
    ftr_tensor index = integer_input(b, FTR_I32, FTR_SHAPE(4, 5), 0, 4);
    output(b, ftr_scatter_add(x, 1, index, x));
    output(b, ftr_gather(x, 1, index));
}

/* p: type of the result, shape */
static void build_one_hot(op_build *b) {
    static const ftr_shape shapes[] = {{1, {7}}, {0, {0}}, {2, {3, 2}}, {1, {0}}, {2, {301, 40}}};
    int64_t classes = b->of->p[1] == 4 ? 11 : 5;
    ftr_dtype index = b->of->p[0] % 2 ? FTR_I64 : FTR_I32;
    ftr_tensor indices = integer_input(b, index, shapes[b->of->p[1]], 0, classes - 1);
    output(b, ftr_one_hot(indices, classes, type_of(b, b->of->p[0])));
}

enum { TOPK_DISTINCT, TOPK_TIES, TOPK_SPECIAL, TOPK_I32, TOPK_I64 };

/* p: rows, columns, k, kind of values */
static void build_topk(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_shape shape = p[0] ? FTR_SHAPE(2, p[0], p[1]) : FTR_SHAPE(p[1]);
    ftr_tensor indices, x;
    switch (p[3]) {
    case TOPK_DISTINCT: x = real_input(b, shape, FILL_DISTINCT, 0, 0); break;
    case TOPK_TIES: x = real_input(b, shape, FILL_INTEGER, -1, 2); break;
    case TOPK_SPECIAL: x = fixed_input(b, shape, FILL_SPECIAL, 0, 0); break;
    default: x = integer_input(b, p[3] == TOPK_I32 ? FTR_I32 : FTR_I64, shape, -4, 4);
    }
    output(b, ftr_topk(x, p[2], &indices));
    output(b, indices);
}

/* Only the positions are used. */
static void build_topk_indices(op_build *b) {
    ftr_tensor x = uniform_input(b, FTR_SHAPE(3, 6)), indices;
    ftr_topk(ftr_mul(x, x), 2, &indices);
    output(b, ftr_gather(x, 1, indices));
}

static const struct {
    const char *name;
    ftr_shape shape;
    int flags;
} scan_shapes[] = {
    {"vector", {1, {9}}, 0},
    {"rank 3", {3, {3, 5, 4}}, 0},
    {"size 1", {3, {1, 1, 1}}, 0},
    {"empty", {3, {2, 0, 3}}, 0},
    {"rank 4", {4, {2, 3, 2, 3}}, 0},
    {"large", {3, {19, 40, 31}}, OP_LARGE},
    {"wide", {2, {13, 4099}}, OP_LARGE},
};

/* p: shape, axis, reverse, type */
static void build_cumsum(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_tensor x = p[3] ? integer_input(b, all_types[p[3]], scan_shapes[p[0]].shape, -1000, 1000)
                        : uniform_input(b, scan_shapes[p[0]].shape);
    output(b, ftr_cumsum(x, p[1], p[2]));
}

enum { REDUCE_PROD, REDUCE_LOGSUMEXP, REDUCE_VAR, REDUCE_VAR_BIASED, REDUCE_NORM1, REDUCE_NORM2, REDUCE_NORM_INF };
static const char *const line_names[] = {"prod", "logsumexp", "var", "var biased", "norm 1", "norm 2", "norm inf"};

static ftr_tensor reduce_line(int32_t op, ftr_tensor x, ftr_axes axes, bool keep) {
    switch (op) {
    case REDUCE_PROD: return ftr_prod(x, axes, keep);
    case REDUCE_LOGSUMEXP: return ftr_logsumexp(x, axes, keep);
    case REDUCE_VAR: return ftr_var(x, axes, 1, keep);
    case REDUCE_VAR_BIASED: return ftr_var(x, axes, 0, keep);
    case REDUCE_NORM1: return ftr_norm(x, 1, axes, keep);
    case REDUCE_NORM2: return ftr_norm(x, 2, axes, keep);
    default: return ftr_norm(x, INFINITY, axes, keep);
    }
}

/* p: op, shape, mask (0: all axes), keep */
static void build_line(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_shape shape = scan_shapes[p[1]].shape;
    ftr_tensor x = p[0] == REDUCE_PROD ? real_input(b, shape, FILL_AWAY, 0.7, 1.4) : uniform_input(b, shape);
    output(b, reduce_line(p[0], x, p[2] ? axes_of((uint32_t)p[2], shape.rank, p[3]) : ftr_all_axes(), p[3]));
}

/* p: op, axis (2: both), low, high. Whole numbers: zeros, ties, and far from 0. */
static void build_line_whole(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_tensor x = real_input(b, FTR_SHAPE(6, 5), FILL_INTEGER, p[2], p[3]);
    op_input *input = &b->inputs[b->input_count - 1];
    for (int64_t i = 0; i < 5 && p[2] <= 0; i++) {
        input->values[i] = 0; /* a row of zeros, and one with a single zero */
        input->values[5 + i] = i == 2 ? 0 : 1 + (double)i / 4;
    }
    output(b, reduce_line(p[0], x, p[1] == 2 ? ftr_all_axes() : FTR_AXES(p[1]), false));
}

/* p: op. One number. */
static void build_line_scalar(op_build *b) {
    output(b, reduce_line(b->of->p[0], real_input(b, ftr_scalar_shape(), FILL_AWAY, 0.5, 2), ftr_all_axes(), true));
}

/* p: op, axis. NaN and infinities; a row of -inf alone. */
static void build_line_special(op_build *b) {
    ftr_tensor x = fixed_input(b, FTR_SHAPE(9, 3), FILL_SPECIAL, 0, 0);
    for (int64_t i = 12; i < 15; i++) {
        b->inputs[b->input_count - 1].values[i] = -INFINITY;
    }
    output(b, reduce_line(b->of->p[0], x, FTR_AXES(b->of->p[1]), false));
}

/* p: type, axis (2: both) */
static void build_prod_integer(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_tensor x = integer_input(b, all_types[p[0]], FTR_SHAPE(4, 13), -300, 300);
    output(b, ftr_prod(x, p[1] == 2 ? ftr_all_axes() : FTR_AXES(p[1]), false));
}

/* p: axis, sizes given. The parts come out again in another order. */
static void build_split(op_build *b) {
    static const int64_t sizes[] = {1, 0, 3};
    ftr_tensor x = uniform_input(b, b->of->p[1] ? FTR_SHAPE(4, 4, 4) : FTR_SHAPE(6, 3, 9)), parts[3];
    ftr_split(x, b->of->p[0], b->of->p[1] ? sizes : NULL, 3, parts);
    output(b, parts[0]);
    output(b, ftr_concat((ftr_tensor[]){parts[2], parts[1], parts[0]}, 3, b->of->p[0]));
}

/* p: axis, rank, count */
static void build_stack(op_build *b) {
    ftr_shape shape = random_shape(b, b->of->p[1], 4);
    ftr_tensor parts[4];
    for (int32_t i = 0; i < b->of->p[2]; i++) {
        parts[i] = uniform_input(b, shape);
    }
    output(b, ftr_stack(parts, b->of->p[2], b->of->p[0]));
}

/* ------------------------------------------------------------------------------------------------ several layers -- */

static ftr_tensor norm_layer(ftr_tensor x, const char *name) { return ftr_batch_norm(x, name, NULL); }

/* p: network */
static void build_network(op_build *b) {
    ftr_conv2d_desc same = {.padding = {1, 1, 1, 1}, .no_bias = true}, half = {.stride = {2, 2}, .no_bias = true};
    switch (b->of->p[0]) {
    case 0: { /* two linear layers */
        ftr_tensor h = ftr_relu(ftr_linear(uniform_input(b, FTR_SHAPE(7, 5)), "fc1", 9, NULL));
        output(b, ftr_linear(h, "fc2", 3, NULL));
        break;
    }
    case 1: { /* convolution, normalization, relu, pooling, linear, loss */
        ftr_tensor x = uniform_input(b, FTR_SHAPE(4, 6, 6, 2)), y = integer_input(b, FTR_I32, FTR_SHAPE(4), 0, 2);
        ftr_tensor h = ftr_relu(norm_layer(ftr_conv2d(x, "conv1", 4, 3, &same), "bn1"));
        h = ftr_flatten(ftr_avg_pool2d(h, 2, 2, NULL), 1);
        output(b, ftr_cross_entropy(ftr_linear(h, "fc", 3, NULL), y, NULL));
        break;
    }
    case 2: { /* a residual block with a shortcut of its own */
        ftr_tensor x = uniform_input(b, FTR_SHAPE(3, 5, 5, 3));
        ftr_conv2d_desc down = {.stride = {2, 2}, .padding = {1, 1, 1, 1}, .no_bias = true};
        ftr_tensor h = ftr_relu(norm_layer(ftr_conv2d(x, "conv1", 4, 3, &down), "bn1"));
        h = norm_layer(ftr_conv2d(h, "conv2", 4, 3, &same), "bn2");
        ftr_tensor shortcut = norm_layer(ftr_conv2d(x, "down", 4, 1, &half), "bn3");
        output(b, ftr_global_avg_pool(ftr_relu(ftr_add(h, shortcut))));
        break;
    }
    case 3: { /* one layer's weights used twice */
        ftr_tensor w = ftr_parameter(b->graph, "w", wide_type(b), FTR_SHAPE(5, 5), (ftr_init){0});
        w = as_real(b, w);
        ftr_tensor h = ftr_tanh(ftr_linear_with(uniform_input(b, FTR_SHAPE(3, 5)), w, (ftr_tensor){0}));
        output(b, ftr_linear_with(h, w, (ftr_tensor){0}));
        break;
    }
    default: { /* a value with many uses */
        ftr_tensor x = uniform_input(b, FTR_SHAPE(4, 6)), e = ftr_exp(x);
        output(b, ftr_add(ftr_mul(e, x), ftr_div(ftr_sigmoid(e), e)));
        output(b, ftr_mean(ftr_mul(e, e), FTR_AXES(0), false));
        break;
    }
    }
}
enum { NETWORKS = 5 };

/* --------------------------------------------------------------------------------------------------------- table -- */

static void add_pointwise(table *t) {
    static const char *const shapes[] = {"random", "scalar", "empty", "5x37", "rank 6", "large"};
    for (int32_t op = 0; op < LENGTH(unary_ops); op++) {
        for (int32_t s = 0; s < POINTWISE_SHAPES + 1; s++) {
            WITH(add(t, build_unary, s == POINTWISE_LARGE ? OP_LARGE : 0, "%s %s", unary_ops[op].name, shapes[s]), op,
                 s);
        }
        WITH(add(t, build_unary_special, OP_NO_LOSS | OP_EACH, "%s special values", unary_ops[op].name), op);
    }
    WITH(add(t, build_neg_integer, 0, "neg i32"), 1);
    WITH(add(t, build_neg_integer, 0, "neg i64"), 2);
    add(t, build_relu_zero, OP_NO_DIFFERENCE, "relu at 0");
    for (int32_t op = 0; op < LENGTH(binary_ops); op++) {
        for (int32_t s = 0; s < BROADCAST_PAIRS; s++) {
            WITH(add(t, build_binary, 0, "%s broadcast %d", binary_ops[op].name, (int)s), op, s);
        }
        for (int32_t s = 0; s < BROADCAST_LARGE_COUNT; s++) {
            WITH(add(t, build_binary, OP_LARGE, "%s large %d", binary_ops[op].name, (int)s), op, BROADCAST_LARGE + s);
        }
        WITH(add(t, build_binary_special, OP_NO_LOSS | OP_EACH, "%s special values", binary_ops[op].name), op);
        int kink = op >= BINARY_MAXIMUM ? OP_NO_DIFFERENCE : 0;
        WITH(add(t, build_binary_self, kink, "%s of one tensor", binary_ops[op].name), op);
        for (int32_t type = 1; type <= 2 && op != BINARY_POW; type++) {
            for (int32_t s = 0; s < 4; s++) {
                const char *name = binary_ops[op].name;
                WITH(add(t, build_binary_integer, 0, "%s %s %d", name, type_name(type), (int)s), op, type, 2 * s);
            }
        }
    }
    add(t, build_pow_whole, 0, "pow whole exponents");
    add(t, build_pow_zero, OP_NO_DIFFERENCE, "pow at 0");
    add(t, build_maximum_ties, OP_NO_DIFFERENCE, "maximum ties");
    for (int32_t op = 0; op < LENGTH(compare_ops); op++) {
        for (int32_t type = 0; type < (op < 2 ? 5 : 4); type++) {
            WITH(add(t, build_compare, 0, "%s %s", compare_ops[op].name, type_name(type)), op, type, type);
        }
        WITH(add(t, build_compare, 0, "%s columns", compare_ops[op].name), op, 0, 6);
        WITH(add(t, build_compare, OP_LARGE, "%s large", compare_ops[op].name), op, 0, BROADCAST_LARGE + op % 4);
        WITH(add(t, build_compare_special, OP_NO_LOSS, "%s special values", compare_ops[op].name), op);
    }
    for (int32_t i = 0; i < 5; i++) {
        WITH(add(t, build_where, i == 4 ? OP_LARGE : 0, "where %d", (int)i), i);
    }
    for (int32_t type = 1; type < 5; type++) {
        WITH(add(t, build_where_integer, 0, "where %s", type_name(type)), type);
    }
    for (int32_t from = 0; from < 5; from++) {
        for (int32_t to = 0; to < 5; to++) {
            WITH(add(t, build_cast, 0, "cast %s to %s", type_name(from), type_name(to)), from, to);
        }
    }
    for (int32_t to = 0; to < 5; to++) {
        WITH(add(t, build_cast_special, OP_NO_LOSS | OP_EACH, "cast special values to %s", type_name(to)), to);
    }
}

static void add_activations(table *t) {
    static const char *const shapes[] = {"random", "scalar", "empty", "5x37", "rank 6", "large"};
    for (int32_t op = 0; op < LENGTH(activations); op++) {
        const char *name = activations[op].name;
        for (int32_t s = 0; s < POINTWISE_SHAPES + 1; s++) {
            WITH(add(t, build_activation, s == POINTWISE_LARGE ? OP_LARGE : 0, "%s %s", name, shapes[s]), op, s);
        }
        WITH(add(t, build_activation_special, OP_NO_LOSS | OP_EACH, "%s special values", name), op);
        WITH(add(t, build_activation_small, OP_NO_LOSS | OP_EACH, "%s small values", name), op);
        WITH(add(t, build_activation_kinks, OP_NO_DIFFERENCE, "%s kinks", name), op);
    }
    for (int32_t type = 1; type <= 2; type++) {
        WITH(add(t, build_integer_activation, 0, "abs %s", type_name(type)), 0, type);
        WITH(add(t, build_integer_activation, 0, "sign %s", type_name(type)), 1, type);
    }
    add(t, build_minimum_ties, OP_NO_DIFFERENCE, "minimum ties");
    for (int32_t s = 0; s < POINTWISE_SHAPES + 1; s++) {
        int flags = s == POINTWISE_LARGE ? OP_LARGE : OP_NO_DIFFERENCE;
        WITH(add(t, build_stop_gradient, flags, "stop_gradient %s", shapes[s]), s);
    }
    add(t, build_stop_gradient_input, 0, "stop_gradient of an input");
    for (int32_t type = 1; type < 5; type++) {
        WITH(add(t, build_stop_gradient_integer, 0, "stop_gradient %s", type_name(type)), type);
    }
}

static void add_reductions(table *t) {
    for (int32_t op = 0; op < LENGTH(reduce_ops); op++) {
        const char *name = reduce_ops[op].name;
        for (int32_t rank = 1; rank <= 4; rank++) {
            for (int32_t mask = 1; mask < 1 << rank; mask++) {
                int32_t keep = (mask + rank + op) & 1;
                WITH(add(t, build_reduce, 0, "%s rank %d axes %x%s", name, (int)rank, (unsigned)mask,
                         keep ? " keep" : ""),
                     op, rank, mask, keep);
            }
        }
        WITH(add(t, build_reduce, 0, "%s scalar", name), op, 0, 0, 0);
        WITH(add(t, build_reduce, 0, "%s all axes keep", name), op, 3, 0, 1);
        WITH(add(t, build_reduce_matrix, 0, "%s no rows", name), op, 1, 0, 5);
        for (int32_t axis = 0; axis < 3; axis++) {
            WITH(add(t, build_reduce_matrix, OP_LARGE, "%s large axis %d", name, (int)axis), op, axis, 701, 103);
            WITH(add(t, build_reduce_matrix, OP_LARGE, "%s long axis %d", name, (int)axis), op, axis, 3, 20011);
            WITH(add(t, build_reduce_matrix, OP_LARGE, "%s tall axis %d", name, (int)axis), op, axis, 20011, 3);
        }
        for (int32_t mask = 2; mask < 15; mask += 3) {
            WITH(add(t, build_reduce_middle, OP_LARGE, "%s large rank 4 axes %x", name, (unsigned)mask), op, mask);
        }
        for (int32_t axis = 0; axis < 2; axis++) {
            WITH(add(t, build_reduce_special, OP_NO_LOSS | OP_EACH, "%s special values axis %d", name, (int)axis), op,
                 axis);
        }
        for (int32_t type = 1; type <= 2 && op != REDUCE_MEAN_OP; type++) {
            WITH(add(t, build_reduce_integer, 0, "%s %s axes 2", name, type_name(type)), op, type, 2);
            WITH(add(t, build_reduce_integer, 0, "%s %s axes 5", name, type_name(type)), op, type, 5);
            WITH(add(t, build_reduce_integer, 0, "%s %s axes 7", name, type_name(type)), op, type, 7);
        }
    }
    WITH(add(t, build_reduce_matrix, 0, "sum over nothing"), REDUCE_SUM_OP, 0, 0, 5);
    WITH(add(t, build_reduce_matrix, OP_NO_LOSS, "mean over nothing"), REDUCE_MEAN_OP, 0, 0, 5);
    add(t, build_max_ties, OP_NO_DIFFERENCE, "max ties");
    for (int32_t axis = 0; axis < 3; axis++) {
        WITH(add(t, build_argmax, 0, "argmax axis %d", (int)axis), axis, 0, 1000);
        WITH(add(t, build_argmax, 0, "argmax ties axis %d", (int)axis), axis - 3, 0, 2);
    }
    for (int32_t axis = 0; axis < 2; axis++) {
        WITH(add(t, build_argmax, 0, "argmax %s", type_name(axis + 1)), axis, axis + 1, 9);
        WITH(add(t, build_argmax_special, OP_NO_LOSS, "argmax special values axis %d", (int)axis), axis);
        WITH(add(t, build_argmax_large, OP_LARGE, "argmax large axis %d", (int)axis), axis);
    }
}

static void add_products(table *t) {
    for (int32_t i = 0; i < LENGTH(matmul_cases); i++) {
        for (int32_t transposes = 0; transposes < 4; transposes++) {
            WITH(add(t, build_matmul, matmul_cases[i].flags, "matmul %s%s%s", matmul_cases[i].name,
                     transposes & 1 ? " ta" : "", transposes & 2 ? " tb" : ""),
                 i, transposes & 1, transposes >> 1);
        }
    }
    add(t, build_matmul_self, 0, "matmul of one tensor");
    for (int32_t i = 0; i < LENGTH(linear_cases); i++) {
        for (int32_t form = 0; form < 3; form++) {
            static const char *const forms[] = {"no bias", "bias", "bias relu"};
            WITH(add(t, build_linear, linear_cases[i].flags, "linear %s %s", linear_cases[i].name, forms[form]), i,
                 form > 0, form > 1);
        }
    }
    for (int32_t i = 0; i < LENGTH(linear_cases); i++) {
        for (int32_t form = 0; form < 4 && linear_cases[i].x.rank > 1; form++) {
            WITH(add(t, build_linear_sum, linear_cases[i].flags, "linear %s sum%s%s", linear_cases[i].name,
                     form & 1 ? " in out" : "", form > 1 ? " relu" : ""),
                 i, form & 1, form > 1, i & 1);
        }
    }
    WITH(add(t, build_linear_layer, 0, "linear layer"), 0);
    WITH(add(t, build_linear_layer, 0, "linear layer no bias"), 1);
}

static void add_convolutions(table *t) {
    for (int32_t i = 0; i < LENGTH(conv_cases); i++) {
        int32_t relu = i % 3 == 1;
        WITH(add(t, build_conv, conv_cases[i].flags, "conv2d %s no bias", conv_cases[i].name), i, 0, 0);
        WITH(add(t, build_conv, conv_cases[i].flags, "conv2d %s bias%s", conv_cases[i].name, relu ? " relu" : ""), i, 1,
             relu);
    }
    for (int32_t i = 0; i < 24; i++) {
        add(t, build_conv_random, 0, "conv2d random %d", (int)i);
    }
    WITH(add(t, build_conv_layer, 0, "conv2d layer"), 0, 3, 1, 1, 1, 0);
    WITH(add(t, build_conv_layer, 0, "conv2d layer relu"), 0, 3, 2, 0, 2, 1);
    WITH(add(t, build_conv_layer, 0, "conv2d layer no bias"), 1, 1, 0, 0, 0, 0);
}

static void add_norms(table *t) {
    for (int32_t i = 0; i < LENGTH(norm_cases); i++) {
        for (int32_t form = 0; form < 16; form++) {
            int32_t eval = form & 1, mask = form >> 1 & 1, relu = form >> 2 & 1, residual = form >> 3 & 1;
            if (i > 1 && (form * 5 + i) % 3) {
                continue; /* every form for rank 2 and 4, a third of them elsewhere */
            }
            WITH(add(t, build_norm, norm_cases[i].flags | (eval ? OP_EVAL : 0), "batch_norm %s%s%s%s%s",
                     norm_cases[i].name, eval ? " eval" : " train", mask ? " mask" : "", residual ? " residual" : "",
                     relu ? " relu" : ""),
                 i, mask, relu, residual);
        }
    }
    for (int32_t i = 0; i < LENGTH(norm_cases); i++) {
        for (int32_t activation = NORM_RELU6; activation <= NORM_SILU; activation++) {
            static const char *const words[] = {"relu6", "hardswish", "silu"};
            int32_t eval = (i + activation) % 3 == 0, mask = (i + activation) % 4 == 1;
            WITH(add(t, build_norm, norm_cases[i].flags | (eval ? OP_EVAL : 0), "batch_norm %s%s%s %s",
                     norm_cases[i].name, eval ? " eval" : " train", mask ? " mask" : "",
                     words[activation - NORM_RELU6]),
                 i, mask, activation, 0);
        }
    }
    for (int32_t norm = 0; norm < 2; norm++) {
        static const int32_t sizes[][2] = {{1, 1}, {5, 3}, {16, 40}, {70, 9}, {37, 33}, {500, 20}};
        for (int32_t i = 0; i < LENGTH(sizes); i++)
            WITH(add(t, build_conv_input, norm ? OP_NO_DIFFERENCE : 0, "conv2d input again %s %d to %d",
                     norm ? "norm relu" : "factors", (int)sizes[i][0], (int)sizes[i][1]),
                 sizes[i][0], sizes[i][1], norm, 0);
    }
    for (int32_t i = 0; i < LENGTH(conv_norm_cases); i++) {
        for (int32_t form = 0; form < 6; form++) {
            static const char *const words[] = {"", " relu", " relu6", " hardswish", " silu", " residual relu"};
            int32_t bias = (i + form) & 1, residual = form == 5, activation = residual ? NORM_RELU : form;
            WITH(add(t, build_conv_norm, OP_EVAL | OP_NO_LOSS, "conv2d batch_norm %s%s%s", conv_norm_cases[i].name,
                     bias ? " bias" : "", words[form]),
                 i, bias, activation, residual);
        }
    }
    for (int32_t form = 0; form < 4; form++) {
        WITH(add(t, build_norm_layer, form & 1 ? OP_EVAL : OP_STEPS, "batch_norm layer rank %d%s", form & 2 ? 4 : 2,
                 form & 1 ? " eval" : ""),
             form & 2);
    }
}

static void add_row_norms(table *t) {
    static const char *const wanted[] = {"", " of parameters", " of x"};
    for (int32_t i = 0; i < LENGTH(row_norm_cases); i++) {
        for (int32_t form = 0; form < (row_norm_cases[i].op == ROW_RMS ? 2 : 4); form++) {
            WITH(add(t, build_row_norm, row_norm_cases[i].flags, "%s %s%s%s", row_norms[row_norm_cases[i].op],
                     row_norm_cases[i].name, form & 1 ? "" : " gamma", form & 2 ? " beta" : ""),
                 i, !(form & 1), form & 2);
        }
    }
    for (int32_t form = 0; form < 9; form++) {
        WITH(add(t, build_row_norm_layer, 0, "%s layer%s", row_norms[form / 3], wanted[form % 3]), form / 3, form % 3);
    }
}

static void add_pools(table *t) {
    for (int32_t i = 0; i < LENGTH(pool_cases); i++) {
        WITH(add(t, build_pool, pool_cases[i].flags, "max_pool2d %s", pool_cases[i].name), i, 0, 0);
        WITH(add(t, build_pool, pool_cases[i].flags, "avg_pool2d %s", pool_cases[i].name), i, 1, 0);
        WITH(add(t, build_pool, pool_cases[i].flags, "avg_pool2d %s exclude", pool_cases[i].name), i, 1, 1);
    }
    add(t, build_max_pool_ties, OP_NO_DIFFERENCE, "max_pool2d ties");
    WITH(add(t, build_global_pool, 0, "global_avg_pool 3x4"), 3, 4, 5);
    WITH(add(t, build_global_pool, 0, "global_avg_pool 1x1"), 1, 1, 3);
    WITH(add(t, build_global_pool, OP_LARGE, "global_avg_pool 17x19"), 17, 19, 64);
}

static void add_shapes(table *t) {
    for (int32_t i = 0; i < RESHAPES; i++) {
        WITH(add(t, build_reshape, i == 9 ? OP_NO_DIFFERENCE : 0, "reshape %d", (int)i), i);
    }
    for (int32_t i = 0; i < LENGTH(transpose_cases); i++) {
        WITH(add(t, build_transpose, transpose_cases[i].flags, "transpose %d", (int)i), i);
    }
    for (int32_t i = 0; i < LENGTH(expand_cases); i++) {
        WITH(add(t, build_expand, expand_cases[i].flags, "expand %d", (int)i), i);
    }
    for (int32_t i = 0; i < CONCATS; i++) {
        WITH(add(t, build_concat, i == 9 ? OP_LARGE : 0, "concat %d", (int)i), i);
    }
    for (int32_t i = 0; i < LENGTH(slice_cases); i++) {
        WITH(add(t, build_slice, slice_cases[i].flags, "slice %d", (int)i), i);
    }
    add(t, build_slice_overlap, 0, "slice overlapping");
    for (int32_t i = 0; i < LENGTH(pad_cases); i++) {
        WITH(add(t, build_pad, pad_cases[i].flags, "pad %d", (int)i), i);
    }
    for (int32_t type = 1; type < 5; type++) {
        WITH(add(t, build_transpose_integer, 0, "transpose %s", type_name(type)), type);
        WITH(add(t, build_slice_integer, 0, "slice %s", type_name(type)), type);
        WITH(add(t, build_pad_integer, 0, "pad %s", type_name(type)), type);
    }
}

static void add_losses(table *t) {
    static const char *const reductions[] = {"mean", "sum", "none"};
    for (int32_t i = 0; i < LENGTH(softmax_cases); i++) {
        WITH(add(t, build_softmax, softmax_cases[i].flags, "softmax %s", softmax_cases[i].name), i, 0);
        WITH(add(t, build_softmax, softmax_cases[i].flags, "log_softmax %s", softmax_cases[i].name), i, 1);
    }
    for (int32_t r = 0; r < 3; r++) {
        for (int32_t s = 0; s < 64; s++) {
            if (s >= 8 && (s * 7 + r) % 3) {
                continue; /* all of weights, smoothing, ignore; a third of the rest */
            }
            WITH(add(t, build_cross_entropy, 0, "cross_entropy %s%s%s%s%s%s%s", reductions[r],
                     s & CE_WEIGHTS ? " weights" : "", s & CE_SMOOTHING ? " smoothing" : "",
                     s & CE_IGNORE ? " ignore" : "", s & CE_I64 ? " i64" : "", s & CE_RANK3 ? " rank3" : "",
                     s & CE_MASK ? " mask" : ""),
                 r, s);
        }
        WITH(add(t, build_cross_entropy, OP_LARGE, "cross_entropy %s large", reductions[r]), r,
             CE_BIG | CE_MASK | CE_WEIGHTS);
        WITH(add(t, build_cross_entropy, OP_NO_LOSS, "cross_entropy %s all ignored", reductions[r]), r, CE_ALL);
        WITH(add(t, build_cross_entropy, OP_NO_DIFFERENCE, "cross_entropy %s far logits", reductions[r]), r, CE_FAR);
        WITH(add(t, build_cross_entropy, 0, "cross_entropy %s one row", reductions[r]), r, CE_ONE | CE_SMOOTHING);
        WITH(add(t, build_cross_entropy, OP_NO_LOSS, "cross_entropy %s no rows", reductions[r]), r, CE_EMPTY);
        for (int32_t form = 0; form < 4; form++) {
            WITH(add(t, build_mse, 0, "mse %s%s%s", reductions[r], form & 1 ? " mask" : "", form & 2 ? " rank 3" : ""),
                 r, form & 1, form & 2);
        }
    }
    for (int32_t form = 0; form < 8; form++) {
        WITH(add(t, build_accuracy, 0, "accuracy%s%s%s", form & 1 ? " mask" : "", form & 2 ? " i64" : "",
                 form & 4 ? " rank 3" : ""),
             form & 1, form & 2, form & 4, 2 + form % 3);
    }
}

static void add_more_losses(table *t) {
    static const char *const reductions[] = {"mean", "sum", "none", "batch mean"};
    for (int32_t r = 0; r < 3; r++) {
        for (int32_t s = 0; s < 32; s++) {
            if (s < 4 || (s + r) % 3 == 0) {
                WITH(add(t, build_nll, 0, "nll %s%s%s%s%s%s", reductions[r], s & NLL_WEIGHTS ? " weights" : "",
                         s & NLL_IGNORE ? " ignore" : "", s & NLL_I64 ? " i64" : "", s & NLL_RANK3 ? " rank3" : "",
                         s & NLL_MASK ? " mask" : ""),
                     r, s);
            }
        }
        WITH(add(t, build_nll, OP_LARGE, "nll %s large", reductions[r]), r, NLL_BIG | NLL_MASK | NLL_WEIGHTS);
        WITH(add(t, build_nll, OP_NO_LOSS, "nll %s all ignored", reductions[r]), r, NLL_ALL);
        for (int32_t form = 0; form < 8; form++) {
            static const char *const weights[] = {"", " class weights", " weights", " one weight"};
            WITH(add(t, build_bce, 0, "bce_with_logits %s%s%s", reductions[r], weights[form / 2],
                     form & 1 ? " mask" : ""),
                 r, form & 1, form / 2, 0);
        }
        for (int32_t form = 0; form < 4; form++) {
            WITH(add(t, build_bce, 0, "bce_with_logits %s%s %s", reductions[r], form & 1 ? " class weights" : "",
                     form & 2 ? "far" : "at 0"),
                 r, 0, form & 1, 1 + form / 2);
            WITH(add(t, build_smooth_l1, 0, "smooth_l1 %s%s%s", reductions[r], form & 1 ? " mask" : "",
                     form & 2 ? "" : " beta 0"),
                 r, form & 1, form & 2 ? 8 : 0, 0);
        }
        WITH(add(t, build_smooth_l1, 0, "smooth_l1 %s beta 1/4", reductions[r]), r, 0, 2, 0);
        WITH(add(t, build_smooth_l1, OP_NO_DIFFERENCE, "smooth_l1 %s at beta", reductions[r]), r, 0, 4, 1);
        WITH(add(t, build_smooth_l1, OP_NO_DIFFERENCE, "smooth_l1 %s at 0", reductions[r]), r, 0, 0, 1);
    }
    for (int32_t r = 0; r < 4; r++) {
        for (int32_t form = 0; form < 4; form++) {
            WITH(add(t, build_kl_div, 0, "kl_div %s%s%s", reductions[r], form & 1 ? " mask" : "",
                     form & 2 ? " log target" : ""),
                 r, form & 1, form & 2, 0);
        }
        WITH(add(t, build_kl_div, OP_NO_DIFFERENCE, "kl_div %s zeros", reductions[r]), r, 0, 0, 1);
    }
}

static void add_rest(table *t) {
    static const int32_t percents[] = {0, 10, 50, 100};
    for (int32_t i = 0; i < LENGTH(percents); i++) {
        for (int32_t s = 0; s <= POINTWISE_LARGE; s += i == 2 ? 1 : 3) {
            WITH(add(t, build_dropout, OP_FRESH | OP_STEPS | (s == POINTWISE_LARGE ? OP_LARGE : 0),
                     "dropout %d%% shape %d", (int)percents[i], (int)s),
                 percents[i], s);
        }
    }
    WITH(add(t, build_dropout, OP_EVAL, "dropout eval"), 50, 3);
    WITH(add(t, build_dropout, OP_FRESH | OP_LARGE, "dropout 30%% large"), 30, POINTWISE_LARGE);
    add(t, build_dropout_twice, OP_FRESH, "dropout twice");
    for (int32_t i = 0; i < NETWORKS; i++) {
        WITH(add(t, build_network, 0, "network %d", (int)i), i);
        WITH(add(t, build_network, OP_EVAL, "network %d eval", (int)i), i);
    }
}

static void add_indices(table *t) {
    for (int32_t wide = 0; wide < 2; wide++) {
        const char *type = wide ? "i64" : "i32";
        for (int32_t i = 0; i < LENGTH(embedding_cases); i++) {
            WITH(add(t, build_embedding, embedding_cases[i].flags, "embedding %s %s", embedding_cases[i].name, type), i,
                 wide);
        }
        for (int32_t i = 0; i < LENGTH(gather_cases); i++) {
            WITH(add(t, build_gather, gather_cases[i].flags, "gather %s %s", gather_cases[i].name, type), i, wide);
            WITH(add(t, build_scatter_add, gather_cases[i].flags, "scatter_add %s %s", gather_cases[i].name, type), i,
                 wide);
        }
    }
    add(t, build_embedding_layer, 0, "embedding layer");
    for (int32_t type = 1; type < 5; type++) {
        WITH(add(t, build_gather_integer, 0, "gather of %s rows", type_name(type)), 2, type);
        WITH(add(t, build_gather_integer, 0, "gather of %s", type_name(type)), 6, type);
    }
    for (int32_t type = 1; type < 3; type++) {
        WITH(add(t, build_scatter_add_integer, 0, "scatter_add of %s rows", type_name(type)), 2, type);
        WITH(add(t, build_scatter_add_integer, 0, "scatter_add of %s", type_name(type)), 6, type);
    }
    add(t, build_scatter_add_self, 0, "scatter_add of one tensor");
    for (int32_t type = 0; type < 5; type++) {
        for (int32_t s = 0; s < 5; s++) {
            WITH(add(t, build_one_hot, s == 4 ? OP_LARGE : 0, "one_hot %s %d", type_name(type), (int)s), type, s);
        }
    }
    for (int32_t k = 0; k <= 7; k++) {
        WITH(add(t, build_topk, 0, "topk %d of 7", (int)k), 3, 7, k, TOPK_DISTINCT);
        WITH(add(t, build_topk, OP_NO_DIFFERENCE, "topk %d of 7 ties", (int)k), 3, 7, k, TOPK_TIES);
    }
    WITH(add(t, build_topk, 0, "topk of a vector"), 0, 9, 4, TOPK_DISTINCT);
    WITH(add(t, build_topk, 0, "topk i32"), 2, 11, 5, TOPK_I32);
    WITH(add(t, build_topk, 0, "topk i64"), 2, 11, 5, TOPK_I64);
    WITH(add(t, build_topk, OP_NO_LOSS, "topk special values"), 1, 54, 20, TOPK_SPECIAL);
    WITH(add(t, build_topk, OP_NO_LOSS, "topk all special values"), 1, 54, 54, TOPK_SPECIAL);
    WITH(add(t, build_topk, OP_LARGE, "topk large"), 50, 503, 17, TOPK_DISTINCT);
    WITH(add(t, build_topk, OP_LARGE, "topk large ties"), 50, 203, 203, TOPK_TIES);
    add(t, build_topk_indices, 0, "topk positions alone");
}

static void add_scans(table *t) {
    for (int32_t s = 0; s < LENGTH(scan_shapes); s++) {
        int32_t rank = scan_shapes[s].shape.rank;
        for (int32_t axis = 0; axis < rank; axis++) {
            int32_t reverse = (axis + s) & 1;
            WITH(add(t, build_cumsum, scan_shapes[s].flags, "cumsum %s axis %d", scan_shapes[s].name, (int)axis), s,
                 reverse ? axis - rank : axis, reverse);
        }
    }
    for (int32_t type = 1; type < 3; type++) {
        WITH(add(t, build_cumsum, 0, "cumsum %s", type_name(type)), 1, 1, 0, type);
        WITH(add(t, build_cumsum, 0, "cumsum %s last axis reverse", type_name(type)), 1, 2, 1, type);
        for (int32_t axis = 0; axis < 3; axis++) {
            WITH(add(t, build_prod_integer, 0, "prod %s axis %d", type_name(type), (int)axis), type, axis);
        }
    }
    for (int32_t op = 0; op < LENGTH(line_names); op++) {
        const char *name = line_names[op];
        for (int32_t s = 0; s < LENGTH(scan_shapes); s++) {
            /* nothing: the largest is an error, the mean is NaN; one element: the variance is NaN */
            int nothing = op > REDUCE_LOGSUMEXP && s == 3, single = op == REDUCE_VAR && s == 2;
            for (int32_t mask = 0; mask < 1 << scan_shapes[s].shape.rank; mask++) {
                int keep = (mask + s) & 1, flags = scan_shapes[s].flags;
                bool large_prod = op == REDUCE_PROD && flags;
                if (nothing || (large_prod && (mask == 0 || mask == 7)) || (flags && mask % 3 == 2)) {
                    continue;
                }
                flags |= single || (s == 3 && op == REDUCE_LOGSUMEXP) ? OP_NO_LOSS : 0;
                WITH(add(t, build_line, flags, "%s %s axes %x%s", name, scan_shapes[s].name, (unsigned)mask,
                         keep ? " keep" : ""),
                     op, s, mask, keep);
            }
        }
        for (int32_t axis = 0; axis < 3; axis++) {
            int kinks = op >= REDUCE_NORM1 ? OP_NO_DIFFERENCE : 0;
            WITH(add(t, build_line_whole, kinks, "%s zeros axis %d", name, (int)axis), op, axis, -1, 1);
            WITH(add(t, build_line_whole, kinks, "%s far axis %d", name, (int)axis), op, axis, 40, 99);
        }
        WITH(add(t, build_line_scalar, op == REDUCE_VAR ? OP_NO_LOSS : 0, "%s scalar", name), op);
    }
    for (int32_t axis = 0; axis < 2; axis++) {
        WITH(add(t, build_line_special, OP_NO_LOSS | OP_EACH, "prod special values axis %d", (int)axis), REDUCE_PROD,
             axis);
        WITH(add(t, build_line_special, OP_NO_LOSS | OP_EACH, "logsumexp special values axis %d", (int)axis),
             REDUCE_LOGSUMEXP, axis);
        WITH(add(t, build_line_special, OP_NO_LOSS | OP_EACH, "norm 1 special values axis %d", (int)axis), REDUCE_NORM1,
             axis);
    }
    for (int32_t axis = 0; axis < 3; axis++) {
        WITH(add(t, build_split, 0, "split axis %d", (int)axis), axis - 3, 0);
        WITH(add(t, build_split, 0, "split sizes axis %d", (int)axis), axis, 1);
        for (int32_t rank = axis; rank < 4; rank++) {
            WITH(add(t, build_stack, 0, "stack rank %d axis %d", (int)rank, (int)axis),
                 axis % 2 ? axis - rank - 1 : axis, rank, 1 + rank);
        }
    }
}

op_case *op_cases(int32_t *count) {
    table t = {0};
    add_pointwise(&t);
    add_activations(&t);
    add_reductions(&t);
    add_products(&t);
    add_convolutions(&t);
    add_norms(&t);
    add_row_norms(&t);
    add_pools(&t);
    add_shapes(&t);
    add_losses(&t);
    add_more_losses(&t);
    add_indices(&t);
    add_scans(&t);
    add_attention(&t);
    add_depthwise(&t);
    add_image(&t);
    add_rest(&t);
    add_random(&t);
    add_mix(&t);
    add_einsum(&t);
    add_edges(&t);
    add_updates(&t);
    add_steps(&t);
    add_half(&t);
    *count = t.count;
    return t.cases;
}
