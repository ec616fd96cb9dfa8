#include "oracle_tools.h"

double half_to_double(ftr_dtype dtype, uint16_t bits) {
    static double numbers[2][1 << 16];
    static bool filled;
    for (int32_t i = 0; !filled && i < 1 << 16; i++) {
        numbers[0][i] = half_by_definition(FTR_F16, (uint16_t)i);
        numbers[1][i] = half_by_definition(FTR_BF16, (uint16_t)i);
    }
    filled = true;
    return numbers[dtype == FTR_BF16][bits];
}

/* ----------------------------------------------------------------------------------------------------- pointwise -- */

static double binary_float(ftr_op op, double a, double b) {
    switch (op) {
    case FTR_OP_add: return a + b;
    case FTR_OP_sub: return a - b;
    case FTR_OP_mul: return a * b;
    case FTR_OP_div: return a / b;
    case FTR_OP_pow: return pow(a, b);
    case FTR_OP_minimum: return isnan(a) || isnan(b) ? NAN : a < b ? a : b;
    default: return isnan(a) || isnan(b) ? NAN : a > b ? a : b; /* maximum */
    }
}

/* Arithmetic modulo 2^64, of which set_int() keeps what fits. */
static int64_t binary_int(ftr_op op, int64_t a, int64_t b) {
    switch (op) {
    case FTR_OP_add: return (int64_t)((uint64_t)a + (uint64_t)b);
    case FTR_OP_sub: return (int64_t)((uint64_t)a - (uint64_t)b);
    case FTR_OP_mul: return (int64_t)((uint64_t)a * (uint64_t)b);
    case FTR_OP_div: return b == 0 ? 0 : b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
    case FTR_OP_minimum: return a < b ? a : b;
    default: return a > b ? a : b; /* maximum */
    }
}

static ftr_status oracle_binary(const ftr_kernel_call *call) {
    const ftr_view *a = &call->in[0], *b = &call->in[1], *y = &call->out[0];
    for (int64_t i = 0; i < y->count; i++) {
        int64_t ia = broadcast_index(&a->shape, &y->shape, i), ib = broadcast_index(&b->shape, &y->shape, i);
        if (is_float(y->dtype)) {
            set(y, i, binary_float(call->op, get(a, ia), get(b, ib)));
        } else {
            set_int(y, i, binary_int(call->op, get_int(a, ia), get_int(b, ib)));
        }
    }
    return FTR_OK;
}

/* -1, 0, 1 for a < b, a == b, a > b; 2 if they have no order (NaN). */
static int order_of(const ftr_view *a, int64_t ia, const ftr_view *b, int64_t ib) {
    if (is_float(a->dtype)) {
        double x = get(a, ia), y = get(b, ib);
        return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
    }
    int64_t x = get_int(a, ia), y = get_int(b, ib);
    return x < y ? -1 : x > y;
}

static ftr_status oracle_compare(const ftr_kernel_call *call) {
    const ftr_view *a = &call->in[0], *b = &call->in[1], *y = &call->out[0];
    for (int64_t i = 0; i < y->count; i++) {
        int order = order_of(a, broadcast_index(&a->shape, &y->shape, i), b, broadcast_index(&b->shape, &y->shape, i));
        bool result = false;
        switch (call->op) {
        case FTR_OP_eq: result = order == 0; break;
        case FTR_OP_ne: result = order != 0; break;
        case FTR_OP_lt: result = order == -1; break;
        case FTR_OP_le: result = order == -1 || order == 0; break;
        case FTR_OP_gt: result = order == 1; break;
        default: result = order == 1 || order == 0; break; /* ge */
        }
        set_int(y, i, result);
    }
    return FTR_OK;
}

static ftr_status oracle_where(const ftr_kernel_call *call) {
    const ftr_view *condition = &call->in[0], *y = &call->out[0];
    for (int64_t i = 0; i < y->count; i++) {
        bool first = get_int(condition, broadcast_index(&condition->shape, &y->shape, i)) != 0;
        const ftr_view *from = first ? &call->in[1] : &call->in[2];
        int64_t element = broadcast_index(&from->shape, &y->shape, i);
        if (from->dtype == y->dtype) {
            copy_element(y, i, from, element);
        } else { /* an f32 scalar beside a half type */
            set(y, i, get(from, element));
        }
    }
    return FTR_OK;
}

static double unary(ftr_op op, double x) {
    switch (op) {
    case FTR_OP_neg: return -x;
    case FTR_OP_exp: return exp(x);
    case FTR_OP_log: return log(x);
    case FTR_OP_sqrt: return sqrt(x);
    case FTR_OP_rsqrt: return 1.0 / sqrt(x);
    case FTR_OP_tanh: return tanh(x);
    case FTR_OP_sigmoid: return 1.0 / (1.0 + exp(-x));
    default: return x < 0 ? 0.0 : x; /* relu: NaN stays */
    }
}

static ftr_status oracle_unary(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *y = &call->out[0];
    for (int64_t i = 0; i < y->count; i++) {
        if (is_float(y->dtype)) {
            set(y, i, unary(call->op, get(x, i)));
        } else { /* of these ops only neg takes integers */
            set_int(y, i, (int64_t)(0 - (uint64_t)get_int(x, i)));
        }
    }
    return FTR_OK;
}

static int64_t truncate_into(double x, double low, double high) {
    if (isnan(x)) {
        return 0;
    }
    return x <= low ? (int64_t)low : x >= high ? (int64_t)high : (int64_t)x;
}

static int64_t float_to_int(double x, ftr_dtype dtype) {
    switch (dtype) {
    case FTR_I32: return truncate_into(x, INT32_MIN, INT32_MAX);
    case FTR_U8: return truncate_into(x, 0, UINT8_MAX);
    case FTR_BOOL: return x != 0;
    default: /* the largest i64 is no double, its successor 2^63 is */
        return isnan(x) ? 0 : x >= 0x1p63 ? INT64_MAX : x < -0x1p63 ? INT64_MIN : (int64_t)x;
    }
}

static ftr_status oracle_cast(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *y = &call->out[0];
    for (int64_t i = 0; i < y->count; i++) {
        if (is_half(y->dtype) && !is_float(x->dtype)) { /* through f32, as PyTorch */
            set(y, i, (double)(float)get_int(x, i));
        } else if (is_float(y->dtype)) {
            set(y, i, get(x, i));
        } else if (is_float(x->dtype)) {
            set_int(y, i, float_to_int(get(x, i), y->dtype));
        } else {
            set_int(y, i, y->dtype == FTR_BOOL ? get_int(x, i) != 0 : get_int(x, i));
        }
    }
    return FTR_OK;
}

/* Inputs dy and y = f(x). */
static ftr_status oracle_activation_grad(const ftr_kernel_call *call) {
    const ftr_view *dy = &call->in[0], *dx = &call->out[0];
    for (int64_t i = 0; i < dx->count; i++) {
        double y = get(&call->in[1], i);
        double slope = call->op == FTR_OP_tanh_grad ? 1 - y * y : call->op == FTR_OP_sigmoid_grad ? y * (1 - y) : 1;
        set(dx, i, call->op == FTR_OP_relu_grad && y <= 0 ? 0.0 : get(dy, i) * slope);
    }
    return FTR_OK;
}

/* With c = sqrt(2 / pi): u = c (x + 0.044715 x^3). */
static double gelu_u(double x) { return sqrt(2 / acos(-1.0)) * (x + 0.044715 * x * x * x); }

static double gelu(ftr_gelu_form form, double x) {
    return form == FTR_GELU_TANH ? x / (1 + exp(-2 * gelu_u(x))) : x * 0.5 * erfc(-x / sqrt(2.0));
}

static double hardsigmoid(double x) { return isnan(x) ? x : x <= -3 ? 0.0 : x >= 3 ? 1.0 : (x + 3) / 6; }

/* log(1 + e^(b x)) / b */
static double softplus(double x, double beta, double threshold) {
    double z = beta * x;
    return z > threshold ? x : ((z > 0 ? z : 0.0) + log1p(exp(-fabs(z)))) / beta;
}

static double activation(const ftr_kernel_call *call, double x) {
    double a = call->attr->pointwise.a, b = call->attr->pointwise.b;
    switch (call->op) {
    case FTR_OP_abs: return fabs(x);
    case FTR_OP_sign: return x > 0 ? 1.0 : x < 0 ? -1.0 : 0.0;
    case FTR_OP_sin: return sin(x);
    case FTR_OP_cos: return cos(x);
    case FTR_OP_erf: return erf(x);
    case FTR_OP_floor: return floor(x);
    case FTR_OP_round: return nearbyint(x);
    case FTR_OP_clamp: return x < a ? a : x > b ? b : x;
    case FTR_OP_gelu: return gelu(call->attr->gelu.form, x);
    case FTR_OP_silu: return x / (1 + exp(-x));
    case FTR_OP_hardswish: return x * hardsigmoid(x);
    case FTR_OP_hardsigmoid: return hardsigmoid(x);
    case FTR_OP_leaky_relu: return x > 0 ? x : a * x;
    case FTR_OP_elu: return x > 0 ? x : a * expm1(x);
    default: return softplus(x, a, b);
    }
}

static ftr_status oracle_activation(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *y = &call->out[0];
    for (int64_t i = 0; i < y->count; i++) {
        if (is_float(y->dtype)) {
            set(y, i, activation(call, get(x, i)));
        } else { /* of these ops only abs and sign take integers */
            int64_t v = get_int(x, i);
            set_int(y, i, call->op == FTR_OP_sign ? (v > 0) - (v < 0) : v < 0 ? (int64_t)(0 - (uint64_t)v) : v);
        }
    }
    return FTR_OK;
}

/* d gelu(x) / dx. Exact: Phi(x) + x phi(x). By tanh, with s = 1 / (1 + e^-2u): s + x s (1 - s) 2 du/dx. */
static double gelu_slope(ftr_gelu_form form, double x) {
    double pi = acos(-1.0);
    if (form == FTR_GELU_EXACT) {
        return 0.5 * erfc(-x / sqrt(2.0)) + x * exp(-x * x / 2) / sqrt(2 * pi);
    }
    double s = 1 / (1 + exp(-2 * gelu_u(x))), du = sqrt(2 / pi) * (1 + 3 * 0.044715 * x * x);
    return s + x * s / (1 + exp(2 * gelu_u(x))) * 2 * du;
}

static double activation_slope(const ftr_kernel_call *call, double x) {
    double a = call->attr->pointwise.a, b = call->attr->pointwise.b, s = 1 / (1 + exp(-x));
    switch (call->op) {
    case FTR_OP_clamp_grad: return x > a && x < b;
    case FTR_OP_gelu_grad: return gelu_slope(call->attr->gelu.form, x);
    case FTR_OP_silu_grad: return s + x * s * (1 - s);
    case FTR_OP_hardswish_grad: return x <= -3 ? 0.0 : x >= 3 ? 1.0 : x / 3 + 0.5;
    case FTR_OP_leaky_relu_grad: return x > 0 ? 1.0 : a;
    case FTR_OP_elu_grad: return x > 0 ? 1.0 : a * exp(x);
    default: return a * x > b ? 1.0 : 1 / (1 + exp(-a * x)); /* softplus_grad */
    }
}

/* Inputs dy and x. */
static ftr_status oracle_activation_slope(const ftr_kernel_call *call) {
    for (int64_t i = 0; i < call->out[0].count; i++) {
        double slope = activation_slope(call, get(&call->in[1], i));
        set(&call->out[0], i, slope == 0 ? 0.0 : get(&call->in[0], i) * slope);
    }
    return FTR_OK;
}

/* ---------------------------------------------------------------------------------------------------- reductions -- */

/* The reduced dimensions of x as a shape, to walk over, and its element count. */
static int64_t reduced_shape(const ftr_view *x, uint32_t mask, ftr_shape *shape) {
    shape->rank = 0;
    int64_t count = 1;
    for (int32_t d = 0; d < x->shape.rank; d++) {
        if (mask >> d & 1) {
            shape->dim[shape->rank++] = x->shape.dim[d];
            count *= x->shape.dim[d];
        }
    }
    return count;
}

/* Index into x of element r of the reduced dimensions, for element o of the others. */
static int64_t reduction_index(const ftr_view *x, uint32_t mask, const ftr_shape *reduced, int64_t r, int64_t o) {
    ftr_shape kept = {0};
    for (int32_t d = 0; d < x->shape.rank; d++) {
        if (!(mask >> d & 1)) {
            kept.dim[kept.rank++] = x->shape.dim[d];
        }
    }
    int64_t in_reduced[FTR_MAX_RANK], in_kept[FTR_MAX_RANK], coord[FTR_MAX_RANK];
    coordinates(reduced, r, in_reduced);
    coordinates(&kept, o, in_kept);
    for (int32_t d = 0, i = 0, j = 0; d < x->shape.rank; d++) {
        coord[d] = mask >> d & 1 ? in_reduced[i++] : in_kept[j++];
    }
    return index_of(&x->shape, coord);
}

static ftr_status oracle_sum(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *y = &call->out[0];
    ftr_shape reduced;
    int64_t count = reduced_shape(x, call->attr->axes.mask, &reduced);
    for (int64_t o = 0; o < y->count; o++) {
        double sum = 0;
        uint64_t int_sum = 0;
        for (int64_t r = 0; r < count; r++) {
            int64_t i = reduction_index(x, call->attr->axes.mask, &reduced, r, o);
            sum += get(x, i);
            int_sum += (uint64_t)get_int(x, i);
        }
        if (is_float(y->dtype)) {
            set(y, o, call->op == FTR_OP_mean ? sum / (double)count : sum);
        } else {
            set_int(y, o, (int64_t)int_sum);
        }
    }
    return FTR_OK;
}

/* Position of the first maximum among the reduced elements; NaN is larger than all. */
static int64_t first_maximum(const ftr_view *x, uint32_t mask, int64_t o) {
    ftr_shape reduced;
    int64_t count = reduced_shape(x, mask, &reduced), best = 0;
    for (int64_t r = 1; r < count; r++) {
        int64_t i = reduction_index(x, mask, &reduced, r, o), j = reduction_index(x, mask, &reduced, best, o);
        bool larger = is_float(x->dtype) ? get(x, i) > get(x, j) || isnan(get(x, i)) : get_int(x, i) > get_int(x, j);
        if (is_float(x->dtype) && isnan(get(x, j))) {
            return best;
        }
        if (larger) {
            best = r;
        }
    }
    return best;
}

static ftr_status oracle_max(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *y = &call->out[0];
    ftr_shape reduced;
    reduced_shape(x, call->attr->axes.mask, &reduced);
    for (int64_t o = 0; o < y->count; o++) {
        int64_t r = first_maximum(x, call->attr->axes.mask, o);
        copy_element(y, o, x, reduction_index(x, call->attr->axes.mask, &reduced, r, o));
    }
    return FTR_OK;
}

static ftr_status oracle_argmax(const ftr_kernel_call *call) {
    for (int64_t o = 0; o < call->out[0].count; o++) {
        set_int(&call->out[0], o, first_maximum(&call->in[0], call->attr->axes.mask, o));
    }
    return FTR_OK;
}

/* ----------------------------------------------------------------------------------------------- matrix products -- */

/* Element [row, column] of the matrix of x that broadcasting puts beside matrix `batch` of the result. */
static double matrix_at(const ftr_view *x, const ftr_shape *batches, int64_t batch, bool transpose, int64_t row,
                        int64_t column) {
    ftr_shape own = x->shape;
    own.rank -= 2;
    int64_t rows = x->shape.dim[own.rank], columns = x->shape.dim[own.rank + 1];
    int64_t base = broadcast_index(&own, batches, batch) * rows * columns;
    return get(x, base + (transpose ? column * columns + row : row * columns + column));
}

static ftr_status oracle_matmul(const ftr_kernel_call *call) {
    const ftr_view *a = &call->in[0], *b = &call->in[1], *y = &call->out[0];
    bool ta = call->attr->matmul.transpose_a, tb = call->attr->matmul.transpose_b;
    ftr_shape batches = y->shape;
    batches.rank -= 2;
    int64_t m = y->shape.dim[batches.rank], n = y->shape.dim[batches.rank + 1];
    int64_t k = a->shape.dim[a->shape.rank - (ta ? 2 : 1)];
    for (int64_t i = 0; i < y->count; i++) {
        int64_t batch = i / (m * n), row = i / n % m, column = i % n;
        double sum = 0;
        for (int64_t l = 0; l < k; l++) {
            sum += matrix_at(a, &batches, batch, ta, row, l) * matrix_at(b, &batches, batch, tb, l, column);
        }
        set(y, i, sum);
    }
    return FTR_OK;
}

static ftr_status oracle_linear(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *weight = &call->in[1], *bias = optional_input(call, 2), *y = &call->out[0];
    bool in_out = call->attr->linear.in_out;
    int64_t in = weight->shape.dim[in_out ? 0 : 1], out = weight->shape.dim[in_out ? 1 : 0];
    for (int64_t i = 0; i < y->count; i++) {
        int64_t row = i / out, o = i % out;
        double sum = bias ? get(bias, o) : 0;
        for (int64_t k = 0; k < in; k++) {
            sum += get(x, row * in + k) * get(weight, in_out ? k * out + o : o * in + k);
        }
        set(y, i, activate(call->attr->linear.activation, sum));
    }
    return FTR_OK;
}

/* --------------------------------------------------------------------------------------------------- convolution -- */

/* Calls `visit` for each product of a convolution: output element y[n, oh, ow, o], weight element w[o, kh, kw, c] and
 * input element x[n, ih, iw, c of the group]. */
typedef void (*conv_visit)(void *user, int64_t y, int64_t x, int64_t w);

static void conv_walk(const ftr_op_attr *attr, const ftr_shape *ys, const ftr_shape *xs, const ftr_shape *ws,
                      conv_visit visit, void *user) {
    int64_t count = ys->dim[0] * ys->dim[1] * ys->dim[2] * ys->dim[3];
    int64_t out_per_group = ws->dim[0] / attr->conv.groups;
    for (int64_t i = 0; i < count; i++) {
        int64_t p[FTR_MAX_RANK];
        coordinates(ys, i, p);
        int64_t first_channel = p[3] / out_per_group * ws->dim[3];
        for (int64_t kh = 0; kh < ws->dim[1]; kh++) {
            for (int64_t kw = 0; kw < ws->dim[2]; kw++) {
                int64_t h = p[1] * attr->conv.stride[0] - attr->conv.padding[0] + kh * attr->conv.dilation[0];
                int64_t w = p[2] * attr->conv.stride[1] - attr->conv.padding[2] + kw * attr->conv.dilation[1];
                if (h < 0 || h >= xs->dim[1] || w < 0 || w >= xs->dim[2]) {
                    continue;
                }
                for (int64_t c = 0; c < ws->dim[3]; c++) {
                    visit(user, i, at4(xs, p[0], h, w, first_channel + c), at4(ws, p[3], kh, kw, c));
                }
            }
        }
    }
}

typedef struct conv_sum {
    const ftr_view *a, *b;
    double *sum; /* one for each element of the result */
    const ftr_kernel_call *call;
} conv_sum;

static void conv_forward(void *user, int64_t y, int64_t x, int64_t w) {
    conv_sum *s = (conv_sum *)user;
    s->sum[y] += get(s->a, x) * get(s->b, w);
}

static void conv_to_input(void *user, int64_t y, int64_t x, int64_t w) {
    conv_sum *s = (conv_sum *)user;
    s->sum[x] += get(s->a, y) * get(s->b, w);
}

/* The input of a convolution, of a call of its weight's gradient: after what was done to x before. */
static double conv_input(const ftr_kernel_call *call, int64_t x) {
    const ftr_view *gamma = optional_input(call, 2), *factors = optional_input(call, 6);
    const ftr_shape *shape = &call->in[1].shape;
    const int64_t c = x % shape->dim[3], n = x / (shape->dim[1] * shape->dim[2] * shape->dim[3]);
    double value = get(&call->in[1], x);
    if (gamma) {
        value = (value - get(&call->in[4], c)) * get(&call->in[5], c) * get(gamma, c) + get(&call->in[3], c);
        value = activate(call->attr->conv.activation, value);
    }
    return factors ? value * get(factors, n * shape->dim[3] + c) : value;
}

static void conv_to_weight(void *user, int64_t y, int64_t x, int64_t w) {
    conv_sum *s = (conv_sum *)user;
    s->sum[w] += get(s->a, y) * conv_input(s->call, x);
}

static size_t conv_workspace(const ftr_kernel_call *call) { return (size_t)call->out[0].count * sizeof(double); }

static ftr_status oracle_conv2d(const ftr_kernel_call *call) {
    const ftr_view *bias = optional_input(call, 2), *out = &call->out[0];
    conv_sum s = {&call->in[0], &call->in[1], (double *)call->workspace, call};
    for (int64_t i = 0; i < out->count; i++) {
        s.sum[i] = bias ? get(bias, i % out->shape.dim[3]) : 0.0;
    }
    conv_walk(call->attr, &out->shape, &call->in[0].shape, &call->in[1].shape, conv_forward, &s);
    const ftr_view *gamma = optional_input(call, 3), *residual = optional_input(call, 7); /* of a joined batch norm */
    for (int64_t i = 0; i < out->count; i++) {
        const int64_t c = i % out->shape.dim[3];
        if (gamma) {
            const double centered = s.sum[i] - get(&call->in[5], c);
            s.sum[i] = centered / sqrt(get(&call->in[6], c) + call->attr->conv.eps) * get(gamma, c) + get(&call->in[4], c);
            s.sum[i] += residual ? get(residual, i) : 0.0;
        }
        set(out, i, activate(call->attr->conv.activation, s.sum[i]));
    }
    return FTR_OK;
}

/* dL/dx[.] = sum of dy[.] w[.] over the products that x[.] takes part in; likewise for the weight. */
static ftr_status oracle_conv2d_grad(const ftr_kernel_call *call) {
    bool to_input = call->op == FTR_OP_conv2d_grad_input;
    const ftr_view *dy = &call->in[0], *other = &call->in[1], *out = &call->out[0];
    conv_sum s = {dy, other, (double *)call->workspace, call};
    for (int64_t i = 0; i < out->count; i++) {
        s.sum[i] = 0;
    }
    const ftr_shape *xs = to_input ? &out->shape : &other->shape, *ws = to_input ? &other->shape : &out->shape;
    conv_walk(call->attr, &dy->shape, xs, ws, to_input ? conv_to_input : conv_to_weight, &s);
    for (int64_t i = 0; i < out->count; i++) {
        set(out, i, s.sum[i]);
    }
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------- normalization -- */

/* Whether position r (of all dimensions but the last) counts: its row of the batch is not masked out. */
static bool counts(const ftr_view *mask, int64_t r, int64_t positions) {
    return !mask || get(mask, r * mask->count / positions) != 0;
}

static ftr_status oracle_batch_norm(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *gamma = &call->in[1], *beta = &call->in[2], *y = &call->out[0];
    const ftr_view *mask = optional_input(call, 5), *residual = optional_input(call, 6);
    int64_t channels = gamma->count, positions = channels ? x->count / channels : 0;
    for (int64_t c = 0; c < channels; c++) {
        double mean = get(&call->in[3], c), biased = get(&call->in[4], c), unbiased = biased;
        if (call->attr->norm.training) {
            double n = 0, sum = 0, squares = 0;
            for (int64_t r = 0; r < positions; r++) {
                n += counts(mask, r, positions);
                sum += counts(mask, r, positions) ? get(x, r * channels + c) : 0.0;
            }
            mean = sum / n;
            for (int64_t r = 0; r < positions; r++) {
                double d = get(x, r * channels + c) - mean;
                squares += counts(mask, r, positions) ? d * d : 0.0;
            }
            biased = squares / n;
            unbiased = squares / (n - 1);
        }
        double inverse = 1.0 / sqrt(biased + call->attr->norm.eps);
        for (int64_t r = 0; r < positions; r++) {
            int64_t i = r * channels + c;
            double value = (get(x, i) - mean) * inverse * get(gamma, c) + get(beta, c);
            set(y, i, activate(call->attr->norm.activation, value + (residual ? get(residual, i) : 0.0)));
        }
        set(&call->out[1], c, mean);
        set(&call->out[2], c, unbiased);
        set(&call->out[3], c, inverse);
    }
    return FTR_OK;
}

/* With z = (x - mean) s, y = gamma z + beta: every position's y depends on mean and s, which depend on the n positions
 * that count:  dx = gamma s (dy - [counts] (sum dy + z sum(dy z)) / n). Without batch statistics dx = gamma s dy. */
static ftr_status oracle_batch_norm_grad(const ftr_kernel_call *call) {
    const ftr_view *dy = &call->in[0], *x = &call->in[1], *gamma = &call->in[2];
    const ftr_view *mask = optional_input(call, 5), *y = optional_input(call, 6), *beta = optional_input(call, 7);
    const ftr_view *dx = &call->out[0];
    const ftr_activation activation = call->attr->norm.activation;
    int64_t channels = gamma->count, positions = channels ? x->count / channels : 0;
    for (int64_t c = 0; c < channels; c++) {
        double mean = get(&call->in[3], c), s = get(&call->in[4], c), n = 0, sum = 0, product = 0;
        for (int64_t r = 0; r < positions; r++) {
            int64_t i = r * channels + c;
            double z = (get(x, i) - mean) * s, before = z * get(gamma, c) + (beta ? get(beta, c) : 0.0);
            double slope = y ? get(y, i) > 0 : beta ? activate_slope(activation, before) : 1.0;
            double d = slope * get(dy, i); /* through the fused activation */
            n += counts(mask, r, positions);
            sum += d;
            product += d * z;
        }
        for (int64_t r = 0; r < positions; r++) {
            int64_t i = r * channels + c;
            double z = (get(x, i) - mean) * s, before = z * get(gamma, c) + (beta ? get(beta, c) : 0.0);
            double slope = y ? get(y, i) > 0 : beta ? activate_slope(activation, before) : 1.0;
            double d = slope * get(dy, i);
            double through = call->attr->norm.training && counts(mask, r, positions) ? (sum + z * product) / n : 0.0;
            set(dx, i, get(gamma, c) * s * (d - through));
        }
        set(&call->out[1], c, product);
        set(&call->out[2], c, sum);
    }
    return FTR_OK;
}

/* One set of elements with statistics of its own: a row of layer norm or RMS norm, a group of group norm. */
typedef struct norm_set {
    int64_t count, first, width, stride; /* element k is at first + k / width * stride + k % width */
    int64_t parameter;                   /* gamma's element of the first one; */
    int64_t period;                      /* and of element k: parameter + k % period */
} norm_set;

static int64_t norm_set_count(const ftr_kernel_call *call, const ftr_view *x, int64_t *row) {
    const ftr_op_attr *attr = call->attr;
    int64_t sets = 1;
    *row = 1;
    for (int32_t d = 0; d < x->shape.rank; d++) {
        *(d < x->shape.rank - attr->row_norm.dims ? &sets : row) *= x->shape.dim[d];
    }
    return attr->row_norm.groups ? x->shape.dim[0] * attr->row_norm.groups : sets;
}

static norm_set norm_set_at(const ftr_kernel_call *call, const ftr_view *x, int64_t index) {
    int64_t row, groups = call->attr->row_norm.groups;
    (void)norm_set_count(call, x, &row);
    if (!groups) {
        return (norm_set){row, index * row, row ? row : 1, row, 0, row};
    }
    int64_t width = row / groups, sample = x->count / x->shape.dim[0], first = index % groups * width;
    return (norm_set){sample / groups, index / groups * sample + first, width, row, first, width};
}

static int64_t norm_element(norm_set s, int64_t k) { return s.first + k / s.width * s.stride + k % s.width; }

static double norm_gamma(const ftr_view *gamma, norm_set s, int64_t k) {
    return gamma ? get(gamma, s.parameter + k % s.period) : 1.0;
}

/* y = (x - mean) / sqrt(variance + eps) gamma + beta; RMS norm: y = x / sqrt(mean of x^2 + eps) gamma. */
static ftr_status oracle_row_norm(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *gamma = optional_input(call, 1), *beta = optional_input(call, 2);
    bool rms = call->op == FTR_OP_rms_norm;
    int64_t row, sets = norm_set_count(call, x, &row);
    for (int64_t i = 0; i < sets; i++) {
        norm_set s = norm_set_at(call, x, i);
        double mean = 0, squares = 0;
        for (int64_t k = 0; k < s.count && !rms; k++) {
            mean += get(x, norm_element(s, k)) / (double)s.count;
        }
        for (int64_t k = 0; k < s.count; k++) {
            squares += pow(get(x, norm_element(s, k)) - mean, 2);
        }
        double inverse = 1.0 / sqrt(squares / (double)s.count + call->attr->row_norm.eps);
        for (int64_t k = 0; k < s.count; k++) {
            int64_t at = norm_element(s, k);
            double shift = beta ? get(beta, s.parameter + k % s.period) : 0.0;
            set(&call->out[0], at, (get(x, at) - mean) * inverse * norm_gamma(gamma, s, k) + shift);
        }
        if (!rms) {
            set(&call->out[1], i, s.count ? mean : NAN);
        }
        set(&call->out[rms ? 1 : 2], i, inverse);
    }
    return FTR_OK;
}

/* With z = (x - mean) s and u = dy gamma: dx = s (u - mean of u - z mean of u z); RMS norm has no mean of u.
 * dgamma = sum of dy z, dbeta = sum of dy. */
static ftr_status oracle_row_norm_grad(const ftr_kernel_call *call) {
    bool rms = call->op == FTR_OP_rms_norm_grad;
    const ftr_view *dy = &call->in[0], *x = &call->in[1], *gamma = optional_input(call, rms ? 3 : 4);
    int64_t row, sets = norm_set_count(call, x, &row);
    double *sums = calloc((size_t)(2 * row + 1), sizeof *sums);
    for (int64_t i = 0; i < sets; i++) {
        norm_set s = norm_set_at(call, x, i);
        double mean = rms ? 0.0 : get(&call->in[2], i), inverse = get(&call->in[rms ? 2 : 3], i), sum = 0, product = 0;
        for (int64_t k = 0; k < s.count; k++) {
            int64_t at = norm_element(s, k), p = s.parameter + k % s.period;
            double z = (get(x, at) - mean) * inverse, u = get(dy, at) * norm_gamma(gamma, s, k);
            sum += rms ? 0.0 : u / (double)s.count;
            product += u * z / (double)s.count;
            sums[p] += get(dy, at) * z;
            sums[row + p] += get(dy, at);
        }
        for (int64_t k = 0; k < s.count; k++) {
            int64_t at = norm_element(s, k);
            double z = (get(x, at) - mean) * inverse;
            set(&call->out[0], at, inverse * (get(dy, at) * norm_gamma(gamma, s, k) - sum - z * product));
        }
    }
    for (int64_t p = 0; p < row && call->attr->row_norm.sums; p++) {
        set(&call->out[1], p, sums[p]);
        if (!rms) {
            set(&call->out[2], p, sums[row + p]);
        }
    }
    free(sums);
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------- pooling -- */

/* Rows [begin, end) of the input under a window, along height (axis 0) or width (1). */
static void window(const ftr_op_attr *attr, int axis, int64_t out, int64_t *begin, int64_t *end) {
    int64_t first = out * attr->pool.stride[axis] - attr->pool.padding[2 * axis],
            last = first + attr->pool.kernel[axis];
    *begin = first < 0 ? 0 : first;
    *end = last > attr->pool.input[axis] ? attr->pool.input[axis] : last;
}

static ftr_status oracle_max_pool2d(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *y = &call->out[0];
    for (int64_t i = 0; i < y->count; i++) {
        int64_t p[FTR_MAX_RANK], h0, h1, w0, w1;
        coordinates(&y->shape, i, p);
        window(call->attr, 0, p[1], &h0, &h1);
        window(call->attr, 1, p[2], &w0, &w1);
        int64_t best_h = h0, best_w = w0;
        for (int64_t h = h0; h < h1; h++) {
            for (int64_t w = w0; w < w1; w++) {
                double best = get(x, at4(&x->shape, p[0], best_h, best_w, p[3]));
                double value = get(x, at4(&x->shape, p[0], h, w, p[3]));
                if (value > best || (isnan(value) && !isnan(best))) {
                    best_h = h;
                    best_w = w;
                }
            }
        }
        set(y, i, get(x, at4(&x->shape, p[0], best_h, best_w, p[3])));
        set_int(&call->out[1], i, best_h * call->attr->pool.input[1] + best_w);
    }
    return FTR_OK;
}

static size_t pool_workspace(const ftr_kernel_call *call) { return (size_t)call->out[0].count * sizeof(double); }

static ftr_status oracle_max_pool2d_grad(const ftr_kernel_call *call) {
    const ftr_view *dy = &call->in[0], *index = &call->in[1], *dx = &call->out[0];
    double *sum = (double *)call->workspace;
    for (int64_t i = 0; i < dx->count; i++) {
        sum[i] = 0;
    }
    int64_t width = call->attr->pool.input[1];
    for (int64_t i = 0; i < dy->count; i++) {
        int64_t p[FTR_MAX_RANK];
        coordinates(&dy->shape, i, p);
        int64_t position = get_int(index, i);
        sum[at4(&dx->shape, p[0], position / width, position % width, p[3])] += get(dy, i);
    }
    for (int64_t i = 0; i < dx->count; i++) {
        set(dx, i, sum[i]);
    }
    return FTR_OK;
}

static double pool_divisor(const ftr_op_attr *attr, int64_t h0, int64_t h1, int64_t w0, int64_t w1) {
    return attr->pool.exclude_padding ? (double)((h1 - h0) * (w1 - w0))
                                      : (double)attr->pool.kernel[0] * (double)attr->pool.kernel[1];
}

static ftr_status oracle_avg_pool2d(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *y = &call->out[0];
    for (int64_t i = 0; i < y->count; i++) {
        int64_t p[FTR_MAX_RANK], h0, h1, w0, w1;
        coordinates(&y->shape, i, p);
        window(call->attr, 0, p[1], &h0, &h1);
        window(call->attr, 1, p[2], &w0, &w1);
        double sum = 0;
        for (int64_t h = h0; h < h1; h++) {
            for (int64_t w = w0; w < w1; w++) {
                sum += get(x, at4(&x->shape, p[0], h, w, p[3]));
            }
        }
        set(y, i, sum / pool_divisor(call->attr, h0, h1, w0, w1));
    }
    return FTR_OK;
}

static ftr_status oracle_avg_pool2d_grad(const ftr_kernel_call *call) {
    const ftr_view *dy = &call->in[0], *dx = &call->out[0];
    double *sum = (double *)call->workspace;
    for (int64_t i = 0; i < dx->count; i++) {
        sum[i] = 0;
    }
    for (int64_t i = 0; i < dy->count; i++) {
        int64_t p[FTR_MAX_RANK], h0, h1, w0, w1;
        coordinates(&dy->shape, i, p);
        window(call->attr, 0, p[1], &h0, &h1);
        window(call->attr, 1, p[2], &w0, &w1);
        for (int64_t h = h0; h < h1; h++) {
            for (int64_t w = w0; w < w1; w++) {
                sum[at4(&dx->shape, p[0], h, w, p[3])] += get(dy, i) / pool_divisor(call->attr, h0, h1, w0, w1);
            }
        }
    }
    for (int64_t i = 0; i < dx->count; i++) {
        set(dx, i, sum[i]);
    }
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------------------- random -- */

/* Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011, section 3.3): two
 * multiplications a round; the key is bumped by the Weyl constants between rounds. */
void ftr_test_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = UINT64_C(0xD2511F53) * c0, p1 = UINT64_C(0xCD9E8D57) * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += UINT32_C(0x9E3779B9);
        k1 += UINT32_C(0xBB67AE85);
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static ftr_status oracle_dropout(const ftr_kernel_call *call) {
    double p = call->attr->dropout.p;
    for (int64_t i = 0; i < call->out[0].count; i++) {
        uint32_t number = dropout_number(call, call->attr->dropout.key, (uint64_t)i);
        bool dropped = number < floor(p * 0x1p32);
        set(&call->out[0], i, dropped ? 0.0 : get(&call->in[0], i) / (1 - p));
    }
    return FTR_OK;
}

/* --------------------------------------------------------------------------------------------------------- shape -- */

static ftr_status oracle_reshape(const ftr_kernel_call *call) {
    for (int64_t i = 0; i < call->out[0].count; i++) {
        copy_element(&call->out[0], i, &call->in[0], i);
    }
    return FTR_OK;
}

static ftr_status oracle_expand(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *y = &call->out[0];
    for (int64_t i = 0; i < y->count; i++) {
        copy_element(y, i, x, broadcast_index(&x->shape, &y->shape, i));
    }
    return FTR_OK;
}

static ftr_status oracle_transpose(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *y = &call->out[0];
    for (int64_t i = 0; i < y->count; i++) {
        int64_t coord[FTR_MAX_RANK], from[FTR_MAX_RANK];
        coordinates(&y->shape, i, coord);
        for (int32_t d = 0; d < y->shape.rank; d++) {
            from[call->attr->axes_order.order[d]] = coord[d];
        }
        copy_element(y, i, x, index_of(&x->shape, from));
    }
    return FTR_OK;
}

static ftr_status oracle_concat(const ftr_kernel_call *call) {
    const ftr_view *y = &call->out[0];
    int32_t axis = call->attr->axis.axis;
    for (int64_t i = 0; i < y->count; i++) {
        int64_t coord[FTR_MAX_RANK];
        coordinates(&y->shape, i, coord);
        int32_t part = 0;
        while (coord[axis] >= call->in[part].shape.dim[axis]) {
            coord[axis] -= call->in[part++].shape.dim[axis];
        }
        copy_element(y, i, &call->in[part], index_of(&call->in[part].shape, coord));
    }
    return FTR_OK;
}

static ftr_status oracle_slice(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *y = &call->out[0];
    for (int64_t i = 0; i < y->count; i++) {
        int64_t coord[FTR_MAX_RANK];
        coordinates(&y->shape, i, coord);
        int32_t axis = call->attr->slice.axis;
        coord[axis] = call->attr->slice.begin + coord[axis] * call->attr->slice.step;
        copy_element(y, i, x, index_of(&x->shape, coord));
    }
    return FTR_OK;
}

static ftr_status oracle_slice_grad(const ftr_kernel_call *call) {
    const ftr_view *dy = &call->in[0], *dx = &call->out[0];
    int32_t axis = call->attr->slice.axis;
    for (int64_t i = 0; i < dx->count; i++) {
        int64_t coord[FTR_MAX_RANK];
        coordinates(&dx->shape, i, coord);
        int64_t offset = coord[axis] - call->attr->slice.begin;
        bool taken = offset >= 0 && offset % call->attr->slice.step == 0 && coord[axis] < call->attr->slice.end;
        coord[axis] = offset / call->attr->slice.step;
        set(dx, i, taken ? get(dy, index_of(&dy->shape, coord)) : 0.0);
    }
    return FTR_OK;
}

static ftr_status oracle_pad(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *y = &call->out[0];
    for (int64_t i = 0; i < y->count; i++) {
        int64_t coord[FTR_MAX_RANK];
        coordinates(&y->shape, i, coord);
        bool inside = true;
        for (int32_t d = 0; d < y->shape.rank; d++) {
            coord[d] -= call->attr->pad.before[d];
            inside = inside && coord[d] >= 0 && coord[d] < x->shape.dim[d];
        }
        if (inside) {
            copy_element(y, i, x, index_of(&x->shape, coord));
        } else if (is_float(y->dtype)) {
            set(y, i, call->attr->pad.value);
        } else {
            set_int(y, i, float_to_int(call->attr->pad.value, y->dtype));
        }
    }
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------- softmax and losses -- */

/* A line of x along an axis: its first element, the distance of its elements, their number. */
typedef struct line {
    int64_t first, stride, count;
} line;

static int64_t line_count(const ftr_view *x, int32_t axis) {
    return x->shape.dim[axis] ? x->count / x->shape.dim[axis] : 0;
}

static line line_at(const ftr_view *x, int32_t axis, int64_t number) {
    int64_t stride = 1;
    for (int32_t d = axis + 1; d < x->shape.rank; d++) {
        stride *= x->shape.dim[d];
    }
    return (line){number / stride * stride * x->shape.dim[axis] + number % stride, stride, x->shape.dim[axis]};
}

static double line_largest(const ftr_view *x, line l) {
    double largest = -INFINITY;
    for (int64_t k = 0; k < l.count; k++) {
        largest = fmax(largest, get(x, l.first + k * l.stride));
    }
    return largest;
}

static double log_sum_exp(const ftr_view *x, line l) {
    double largest = line_largest(x, l), sum = 0;
    for (int64_t k = 0; k < l.count; k++) {
        sum += exp(get(x, l.first + k * l.stride) - largest);
    }
    return largest + log(sum);
}

static ftr_status oracle_softmax(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *y = &call->out[0];
    for (int64_t r = 0; r < line_count(x, call->attr->axis.axis); r++) {
        line l = line_at(x, call->attr->axis.axis, r);
        double lse = log_sum_exp(x, l);
        for (int64_t k = 0; k < l.count; k++) {
            double log_p = get(x, l.first + k * l.stride) - lse;
            set(y, l.first + k * l.stride, call->op == FTR_OP_softmax ? exp(log_p) : log_p);
        }
    }
    return FTR_OK;
}

/* softmax: dx = y (dy - sum(dy y)); log_softmax: dx = dy - e^y sum(dy). */
static ftr_status oracle_softmax_grad(const ftr_kernel_call *call) {
    const ftr_view *dy = &call->in[0], *y = &call->in[1], *dx = &call->out[0];
    bool log_form = call->op == FTR_OP_log_softmax_grad;
    for (int64_t r = 0; r < line_count(y, call->attr->axis.axis); r++) {
        line l = line_at(y, call->attr->axis.axis, r);
        double sum = 0;
        for (int64_t k = 0; k < l.count; k++) {
            int64_t i = l.first + k * l.stride;
            sum += log_form ? get(dy, i) : get(dy, i) * get(y, i);
        }
        for (int64_t k = 0; k < l.count; k++) {
            int64_t i = l.first + k * l.stride;
            set(dx, i, log_form ? get(dy, i) - exp(get(y, i)) * sum : get(y, i) * (get(dy, i) - sum));
        }
    }
    return FTR_OK;
}

static double class_weight(const ftr_view *weights, int64_t c) { return weights ? get(weights, c) : 1.0; }

/* Whether row r has a loss: neither masked out nor ignored. */
static bool has_loss(const ftr_op_attr *attr, const ftr_view *labels, const ftr_view *mask, int64_t r) {
    return counts(mask, r, labels->count) && get_int(labels, r) != attr->cross_entropy.ignore_index;
}

/* PyTorch's definition: a row's loss is (1 - s) w[t] (-log p[t]) + s / C sum_c w[c] (-log p[c]) for label t and
 * smoothing s; the mean divides by the sum of w[t]. nll is given log p instead of logits, and has no smoothing. */
static ftr_status oracle_cross_entropy(const ftr_kernel_call *call) {
    const ftr_view *logits = &call->in[0], *labels = &call->in[1];
    const ftr_view *weights = optional_input(call, 2), *mask = optional_input(call, 3);
    int64_t classes = logits->shape.dim[logits->shape.rank - 1];
    double smoothing = call->attr->cross_entropy.label_smoothing, total = 0, weight_sum = 0;
    bool each = call->attr->cross_entropy.reduction == FTR_REDUCE_NONE, nll = call->op == FTR_OP_nll;
    for (int64_t r = 0; r < labels->count; r++) {
        line l = {r * classes, 1, classes};
        double lse = nll ? 0.0 : log_sum_exp(logits, l), loss = 0;
        if (has_loss(call->attr, labels, mask, r)) {
            int64_t label = get_int(labels, r);
            if (label < 0 || label >= classes) {
                return ftr_backend_error(call, FTR_ERROR_DATA, "label %lld of row %lld is outside 0 to %lld",
                                         (long long)label, (long long)r, (long long)classes - 1);
            }
            double w = class_weight(weights, label);
            loss = (1 - smoothing) * w * (lse - get(logits, r * classes + label));
            for (int64_t c = 0; c < classes && smoothing > 0; c++) {
                loss += smoothing / (double)classes * class_weight(weights, c) * (lse - get(logits, r * classes + c));
            }
            weight_sum += w;
        }
        total += loss;
        if (!nll) {
            set(&call->out[1], r, lse - line_largest(logits, l));
        }
        if (each) {
            set(&call->out[0], r, loss);
        }
    }
    set(&call->out[nll ? 1 : 2], 0, weight_sum);
    if (!each) {
        set(&call->out[0], 0, call->attr->cross_entropy.reduction == FTR_REDUCE_MEAN ? total / weight_sum : total);
    }
    return FTR_OK;
}

/* d loss[r] / d logit[j] = (1 - s) w[t] (p[j] - [j = t]) + s / C (p[j] sum_c w[c] - w[j]). */
static ftr_status oracle_cross_entropy_grad(const ftr_kernel_call *call) {
    const ftr_view *dloss = &call->in[0], *logits = &call->in[1], *labels = &call->in[2], *log_sums = &call->in[3];
    const ftr_view *weights = optional_input(call, 5), *mask = optional_input(call, 6), *dx = &call->out[0];
    int64_t classes = logits->shape.dim[logits->shape.rank - 1];
    double s = call->attr->cross_entropy.label_smoothing, all_weights = 0, largest = 0;
    for (int64_t c = 0; c < classes; c++) {
        all_weights += class_weight(weights, c);
    }
    for (int64_t i = 0; i < dx->count; i++) {
        int64_t r = i / classes, j = i % classes;
        double d = 0;
        if (j == 0) { /* dx may lie over the logits */
            line l = {r * classes, 1, classes};
            largest = line_largest(logits, l);
        }
        if (has_loss(call->attr, labels, mask, r)) {
            double p = exp(get(logits, i) - largest - get(log_sums, r));
            int64_t label = get_int(labels, r);
            d = (1 - s) * class_weight(weights, label) * (p - (j == label)) +
                s / (double)classes * (p * all_weights - class_weight(weights, j));
            d *= get(dloss, call->attr->cross_entropy.reduction == FTR_REDUCE_NONE ? r : 0);
            if (call->attr->cross_entropy.reduction == FTR_REDUCE_MEAN) {
                d /= get(&call->in[4], 0);
            }
        }
        set(dx, i, d);
    }
    return FTR_OK;
}

/* d loss[r] / d log p[j] = -w[t] [j = t]. */
static ftr_status oracle_nll_grad(const ftr_kernel_call *call) {
    const ftr_view *dloss = &call->in[0], *labels = &call->in[2], *dx = &call->out[0];
    const ftr_view *weights = optional_input(call, 4), *mask = optional_input(call, 5);
    int64_t classes = dx->shape.dim[dx->shape.rank - 1];
    ftr_reduction reduction = call->attr->cross_entropy.reduction;
    for (int64_t i = 0; i < dx->count; i++) {
        int64_t r = i / classes, label = get_int(labels, r);
        double d = 0;
        if (has_loss(call->attr, labels, mask, r) && label == i % classes) {
            d = -class_weight(weights, label) * get(dloss, reduction == FTR_REDUCE_NONE ? r : 0);
            d /= reduction == FTR_REDUCE_MEAN ? get(&call->in[3], 0) : 1.0;
        }
        set(dx, i, d);
    }
    return FTR_OK;
}

/* --------------------------------------------------------------------------------------------- indices and scans -- */

/* Whether every index is in 0 to limit - 1; the first other one is reported. */
static ftr_status check_indices(const ftr_kernel_call *call, const ftr_view *index, int64_t limit) {
    for (int64_t i = 0; i < index->count; i++) {
        if (get_int(index, i) < 0 || get_int(index, i) >= limit) {
            return ftr_backend_error(call, FTR_ERROR_DATA, "index %lld at position %lld is not below %lld",
                                     (long long)get_int(index, i), (long long)i, (long long)limit);
        }
    }
    return FTR_OK;
}

static ftr_status oracle_embedding(const ftr_kernel_call *call) {
    const ftr_view *weight = &call->in[0], *index = &call->in[1], *y = &call->out[0];
    int64_t width = weight->shape.dim[1];
    ftr_status status = check_indices(call, index, weight->shape.dim[0]);
    for (int64_t i = 0; i < y->count && status == FTR_OK; i++) {
        copy_element(y, i, weight, get_int(index, i / width) * width + i % width);
    }
    return status;
}

/* Sums of what comes to each element of the result, in double whatever the result's type. */
static size_t index_workspace(const ftr_kernel_call *call) { return (size_t)call->out[0].count * sizeof(double); }

static ftr_status oracle_embedding_grad(const ftr_kernel_call *call) {
    const ftr_view *dy = &call->in[0], *index = &call->in[1], *dw = &call->out[0];
    int64_t rows = dw->shape.dim[0], width = dw->shape.dim[1];
    double *sum = (double *)call->workspace;
    for (int64_t i = 0; i < dw->count; i++) {
        sum[i] = 0;
    }
    ftr_status status = check_indices(call, index, rows);
    for (int64_t i = 0; i < dy->count && status == FTR_OK; i++) {
        sum[get_int(index, i / width) * width + i % width] += get(dy, i);
    }
    for (int64_t i = 0; i < dw->count; i++) {
        set(dw, i, sum[i]);
    }
    return status;
}

/* Index of the element of x that element i of the index names: its own coordinates, but for the axis. */
static int64_t indexed(const ftr_view *index, int64_t i, const ftr_shape *x, int32_t axis) {
    int64_t coord[FTR_MAX_RANK];
    coordinates(&index->shape, i, coord);
    coord[axis] = get_int(index, i);
    return index_of(x, coord);
}

static ftr_status oracle_gather(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *index = &call->in[1];
    int32_t axis = call->attr->axis.axis;
    ftr_status status = check_indices(call, index, x->shape.dim[axis]);
    for (int64_t i = 0; i < index->count && status == FTR_OK; i++) {
        copy_element(&call->out[0], i, x, indexed(index, i, &x->shape, axis));
    }
    return status;
}

static ftr_status oracle_scatter_add(const ftr_kernel_call *call) {
    const ftr_view *index = &call->in[0], *source = &call->in[1], *x = optional_input(call, 2), *y = &call->out[0];
    int32_t axis = call->attr->scatter.axis;
    double *sum = (double *)call->workspace;
    memset(y->data, 0, (size_t)y->count * ftr_dtype_size(y->dtype));
    for (int64_t i = 0; i < y->count; i++) {
        sum[i] = x ? get(x, i) : 0;
    }
    for (int64_t i = 0; x && i < y->count; i++) {
        copy_element(y, i, x, i);
    }
    ftr_status status = check_indices(call, index, y->shape.dim[axis]);
    for (int64_t i = 0; i < index->count && status == FTR_OK; i++) {
        int64_t coord[FTR_MAX_RANK], to = indexed(index, i, &y->shape, axis);
        coordinates(&index->shape, i, coord);
        int64_t from = index_of(&source->shape, coord);
        if (is_float(y->dtype)) {
            sum[to] += get(source, from);
        } else {
            set_int(y, to, binary_int(FTR_OP_add, get_int(y, to), get_int(source, from)));
        }
    }
    for (int64_t i = 0; is_float(y->dtype) && i < y->count; i++) {
        set(y, i, sum[i]);
    }
    return status;
}

static ftr_status oracle_one_hot(const ftr_kernel_call *call) {
    const ftr_view *index = &call->in[0], *y = &call->out[0];
    int64_t classes = call->attr->one_hot.classes;
    for (int64_t i = 0; i < y->count; i++) {
        bool hot = get_int(index, i / classes) == i % classes;
        if (is_float(y->dtype)) {
            set(y, i, hot);
        } else {
            set_int(y, i, hot);
        }
    }
    return check_indices(call, index, classes);
}

/* Whether element i comes before element j in descending order: NaN first, then larger ones, then by position. */
static bool comes_before(const ftr_view *x, int64_t i, int64_t j) {
    bool nan_i = is_float(x->dtype) && isnan(get(x, i)), nan_j = is_float(x->dtype) && isnan(get(x, j));
    if (nan_i || nan_j) {
        return nan_i && (!nan_j || i < j);
    }
    int order = order_of(x, i, x, j);
    return order == 1 || (order == 0 && i < j);
}

/* An element's rank is the number of those before it. */
static ftr_status oracle_topk(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0];
    int64_t n = x->shape.dim[x->shape.rank - 1], k = call->attr->topk.k;
    for (int64_t i = 0; i < x->count; i++) {
        int64_t row = i / n, rank = 0;
        for (int64_t j = row * n; j < (row + 1) * n; j++) {
            rank += j != i && comes_before(x, j, i);
        }
        if (rank < k) {
            copy_element(&call->out[0], row * k + rank, x, i);
            set_int(&call->out[1], row * k + rank, i % n);
        }
    }
    return FTR_OK;
}

static ftr_status oracle_cumsum(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *y = &call->out[0];
    for (int64_t r = 0; r < line_count(x, call->attr->cumsum.axis); r++) {
        line l = line_at(x, call->attr->cumsum.axis, r);
        double sum = 0;
        uint64_t int_sum = 0;
        for (int64_t k = 0; k < l.count; k++) {
            int64_t i = l.first + (call->attr->cumsum.reverse ? l.count - 1 - k : k) * l.stride;
            sum += get(x, i);
            int_sum += (uint64_t)get_int(x, i);
            if (is_float(y->dtype)) {
                set(y, i, sum);
            } else {
                set_int(y, i, (int64_t)int_sum);
            }
        }
    }
    return FTR_OK;
}

/* The product of a line without its element `but`; -1: of all. */
static double line_product(const ftr_view *x, line l, int64_t but) {
    double product = 1;
    for (int64_t k = 0; k < l.count; k++) {
        product *= k == but ? 1.0 : get(x, l.first + k * l.stride);
    }
    return product;
}

static ftr_status oracle_prod(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *y = &call->out[0];
    for (int64_t r = 0; r < y->count; r++) {
        line l = line_at(x, call->attr->axis.axis, r);
        int64_t product = 1;
        for (int64_t k = 0; k < l.count && !is_float(x->dtype); k++) {
            product = binary_int(FTR_OP_mul, product, get_int(x, l.first + k * l.stride));
        }
        if (is_float(y->dtype)) {
            set(y, r, line_product(x, l, -1));
        } else {
            set_int(y, r, product);
        }
    }
    return FTR_OK;
}

static ftr_status oracle_prod_grad(const ftr_kernel_call *call) {
    const ftr_view *dy = &call->in[0], *x = &call->in[1];
    for (int64_t r = 0; r < line_count(x, call->attr->axis.axis); r++) {
        line l = line_at(x, call->attr->axis.axis, r);
        for (int64_t k = 0; k < l.count; k++) {
            set(&call->out[0], l.first + k * l.stride, get(dy, r) * line_product(x, l, k));
        }
    }
    return FTR_OK;
}

/* Infinite elements are not subtracted from each other. */
static double line_logsumexp(const ftr_view *x, line l) {
    double largest = line_largest(x, l), sum = 0;
    largest = isinf(largest) ? 0 : largest;
    for (int64_t k = 0; k < l.count; k++) {
        sum += exp(get(x, l.first + k * l.stride) - largest);
    }
    return largest + log(sum);
}

static ftr_status oracle_logsumexp(const ftr_kernel_call *call) {
    for (int64_t r = 0; r < call->out[0].count; r++) {
        set(&call->out[0], r, line_logsumexp(&call->in[0], line_at(&call->in[0], call->attr->axis.axis, r)));
    }
    return FTR_OK;
}

/* dx = dy e^(x - y) */
static ftr_status oracle_logsumexp_grad(const ftr_kernel_call *call) {
    const ftr_view *dy = &call->in[0], *x = &call->in[1];
    for (int64_t r = 0; r < line_count(x, call->attr->axis.axis); r++) {
        line l = line_at(x, call->attr->axis.axis, r);
        double y = line_logsumexp(x, l);
        for (int64_t k = 0; k < l.count; k++) {
            int64_t i = l.first + k * l.stride;
            set(&call->out[0], i, get(dy, r) * exp(get(x, i) - y));
        }
    }
    return FTR_OK;
}

/* --------------------------------------------------------------------------------------------------- the backend -- */

static const ftr_kernel kernels[FTR_OP_COUNT] = {
    [FTR_OP_add] = {.run = oracle_binary},
    [FTR_OP_sub] = {.run = oracle_binary},
    [FTR_OP_mul] = {.run = oracle_binary},
    [FTR_OP_div] = {.run = oracle_binary},
    [FTR_OP_pow] = {.run = oracle_binary},
    [FTR_OP_maximum] = {.run = oracle_binary},
    [FTR_OP_eq] = {.run = oracle_compare},
    [FTR_OP_ne] = {.run = oracle_compare},
    [FTR_OP_lt] = {.run = oracle_compare},
    [FTR_OP_le] = {.run = oracle_compare},
    [FTR_OP_gt] = {.run = oracle_compare},
    [FTR_OP_ge] = {.run = oracle_compare},
    [FTR_OP_where] = {.run = oracle_where},
    [FTR_OP_neg] = {.run = oracle_unary},
    [FTR_OP_exp] = {.run = oracle_unary},
    [FTR_OP_log] = {.run = oracle_unary},
    [FTR_OP_sqrt] = {.run = oracle_unary},
    [FTR_OP_rsqrt] = {.run = oracle_unary},
    [FTR_OP_tanh] = {.run = oracle_unary},
    [FTR_OP_sigmoid] = {.run = oracle_unary},
    [FTR_OP_relu] = {.run = oracle_unary},
    [FTR_OP_cast] = {.run = oracle_cast},
    [FTR_OP_tanh_grad] = {.run = oracle_activation_grad},
    [FTR_OP_sigmoid_grad] = {.run = oracle_activation_grad},
    [FTR_OP_relu_grad] = {.run = oracle_activation_grad},
    [FTR_OP_minimum] = {.run = oracle_binary},
    [FTR_OP_abs] = {.run = oracle_activation},
    [FTR_OP_sign] = {.run = oracle_activation},
    [FTR_OP_sin] = {.run = oracle_activation},
    [FTR_OP_cos] = {.run = oracle_activation},
    [FTR_OP_erf] = {.run = oracle_activation},
    [FTR_OP_floor] = {.run = oracle_activation},
    [FTR_OP_round] = {.run = oracle_activation},
    [FTR_OP_clamp] = {.run = oracle_activation},
    [FTR_OP_gelu] = {.run = oracle_activation},
    [FTR_OP_silu] = {.run = oracle_activation},
    [FTR_OP_hardswish] = {.run = oracle_activation},
    [FTR_OP_hardsigmoid] = {.run = oracle_activation},
    [FTR_OP_leaky_relu] = {.run = oracle_activation},
    [FTR_OP_elu] = {.run = oracle_activation},
    [FTR_OP_softplus] = {.run = oracle_activation},
    [FTR_OP_clamp_grad] = {.run = oracle_activation_slope},
    [FTR_OP_gelu_grad] = {.run = oracle_activation_slope},
    [FTR_OP_silu_grad] = {.run = oracle_activation_slope},
    [FTR_OP_hardswish_grad] = {.run = oracle_activation_slope},
    [FTR_OP_leaky_relu_grad] = {.run = oracle_activation_slope},
    [FTR_OP_elu_grad] = {.run = oracle_activation_slope},
    [FTR_OP_softplus_grad] = {.run = oracle_activation_slope},
    [FTR_OP_stop_gradient] = {.run = oracle_reshape},
    [FTR_OP_sum] = {.run = oracle_sum},
    [FTR_OP_mean] = {.run = oracle_sum},
    [FTR_OP_max] = {.run = oracle_max},
    [FTR_OP_argmax] = {.run = oracle_argmax},
    [FTR_OP_matmul] = {.run = oracle_matmul},
    [FTR_OP_linear] = {.run = oracle_linear},
    [FTR_OP_conv2d] = {.run = oracle_conv2d, .workspace = conv_workspace},
    [FTR_OP_conv2d_grad_input] = {.run = oracle_conv2d_grad, .workspace = conv_workspace},
    [FTR_OP_conv2d_grad_weight] = {.run = oracle_conv2d_grad, .workspace = conv_workspace},
    [FTR_OP_batch_norm] = {.run = oracle_batch_norm},
    [FTR_OP_batch_norm_grad] = {.run = oracle_batch_norm_grad},
    [FTR_OP_layer_norm] = {.run = oracle_row_norm},
    [FTR_OP_layer_norm_grad] = {.run = oracle_row_norm_grad},
    [FTR_OP_rms_norm] = {.run = oracle_row_norm},
    [FTR_OP_rms_norm_grad] = {.run = oracle_row_norm_grad},
    [FTR_OP_group_norm] = {.run = oracle_row_norm},
    [FTR_OP_group_norm_grad] = {.run = oracle_row_norm_grad},
    [FTR_OP_max_pool2d] = {.run = oracle_max_pool2d},
    [FTR_OP_max_pool2d_grad] = {.run = oracle_max_pool2d_grad, .workspace = pool_workspace},
    [FTR_OP_avg_pool2d] = {.run = oracle_avg_pool2d},
    [FTR_OP_avg_pool2d_grad] = {.run = oracle_avg_pool2d_grad, .workspace = pool_workspace},
    [FTR_OP_adaptive_avg_pool2d] = {.run = oracle_adaptive_avg_pool2d, .workspace = oracle_image_workspace},
    [FTR_OP_adaptive_avg_pool2d_grad] = {.run = oracle_adaptive_avg_pool2d_grad, .workspace = oracle_image_workspace},
    [FTR_OP_resize2d] = {.run = oracle_resize2d, .workspace = oracle_image_workspace},
    [FTR_OP_resize2d_grad] = {.run = oracle_resize2d_grad, .workspace = oracle_image_workspace},
    [FTR_OP_dropout] = {.run = oracle_dropout},
    [FTR_OP_stochastic_depth] = {.run = oracle_stochastic_depth},
    [FTR_OP_random_uniform] = {.run = oracle_random_uniform},
    [FTR_OP_random_normal] = {.run = oracle_random_normal},
    [FTR_OP_mix_draw] = {.run = oracle_mix_draw, .workspace = oracle_mix_draw_workspace},
    [FTR_OP_mix] = {.run = oracle_mix},
    [FTR_OP_mix_grad] = {.run = oracle_mix_grad, .workspace = oracle_mix_grad_workspace},
    [FTR_OP_attention] = {.run = oracle_attention},
    [FTR_OP_attention_grad] = {.run = oracle_attention_grad},
    [FTR_OP_rotary] = {.run = oracle_rotary},
    [FTR_OP_reshape] = {.run = oracle_reshape},
    [FTR_OP_expand] = {.run = oracle_expand},
    [FTR_OP_transpose] = {.run = oracle_transpose},
    [FTR_OP_concat] = {.run = oracle_concat},
    [FTR_OP_slice] = {.run = oracle_slice},
    [FTR_OP_slice_grad] = {.run = oracle_slice_grad},
    [FTR_OP_pad] = {.run = oracle_pad},
    [FTR_OP_softmax] = {.run = oracle_softmax},
    [FTR_OP_softmax_grad] = {.run = oracle_softmax_grad},
    [FTR_OP_log_softmax] = {.run = oracle_softmax},
    [FTR_OP_log_softmax_grad] = {.run = oracle_softmax_grad},
    [FTR_OP_cross_entropy] = {.run = oracle_cross_entropy},
    [FTR_OP_cross_entropy_grad] = {.run = oracle_cross_entropy_grad},
    [FTR_OP_nll] = {.run = oracle_cross_entropy},
    [FTR_OP_nll_grad] = {.run = oracle_nll_grad},
    [FTR_OP_embedding] = {.run = oracle_embedding},
    [FTR_OP_embedding_grad] = {.run = oracle_embedding_grad, .workspace = index_workspace},
    [FTR_OP_gather] = {.run = oracle_gather},
    [FTR_OP_scatter_add] = {.run = oracle_scatter_add, .workspace = index_workspace},
    [FTR_OP_one_hot] = {.run = oracle_one_hot},
    [FTR_OP_topk] = {.run = oracle_topk},
    [FTR_OP_cumsum] = {.run = oracle_cumsum},
    [FTR_OP_prod] = {.run = oracle_prod},
    [FTR_OP_prod_grad] = {.run = oracle_prod_grad},
    [FTR_OP_logsumexp] = {.run = oracle_logsumexp},
    [FTR_OP_logsumexp_grad] = {.run = oracle_logsumexp_grad},
    [FTR_OP_grad_norm] = {.run = oracle_grad_norm},
    [FTR_OP_scale_update] = {.run = oracle_scale_update},
    [FTR_OP_ema_update] = {.run = oracle_ema_update},
    [FTR_OP_count_update] = {.run = oracle_count_update},
    [FTR_OP_accumulate_update] = {.run = oracle_accumulate_update},
    [FTR_OP_average_update] = {.run = oracle_average_update},
    [FTR_OP_swap_update] = {.run = oracle_swap_update},
    [FTR_OP_sgd_update] = {.run = oracle_sgd_update},
    [FTR_OP_adamw_update] = {.run = oracle_adam_update},
    [FTR_OP_adam_update] = {.run = oracle_adam_update},
    [FTR_OP_rmsprop_update] = {.run = oracle_rmsprop_update},
    [FTR_OP_adagrad_update] = {.run = oracle_adagrad_update},
    [FTR_OP_lamb_update] = {.run = oracle_lamb_update},
    [FTR_OP_lars_update] = {.run = oracle_lars_update},
    [FTR_OP_lion_update] = {.run = oracle_lion_update},
    [FTR_OP_adafactor_update] = {.run = oracle_adafactor_update},
    [FTR_OP_muon_update] = {.run = oracle_muon_update},
    [FTR_OP_clip_scale] = {.run = oracle_clip_scale},
};

static ftr_status oracle_open(ftr_context *context, int32_t threads, int32_t device, void **state) {
    (void)device;
    (void)context;
    (void)threads;
    *state = NULL;
    return FTR_OK;
}

static void oracle_close(ftr_context *context, void *state) {
    (void)context;
    (void)state;
}

static void *oracle_allocate(ftr_context *context, void *state, size_t size) {
    (void)state;
    return ftr_backend_allocate(context, size);
}

static void oracle_release(ftr_context *context, void *state, void *memory, size_t size) {
    (void)state;
    ftr_backend_release(context, memory, size);
}

static ftr_status oracle_copy(ftr_context *context, void *state, void *to, const void *from, size_t size) {
    (void)context;
    (void)state;
    if (size) {
        memcpy(to, from, size);
    }
    return FTR_OK;
}

static const ftr_backend backend = {
    .version = FTR_BACKEND_VERSION,
    .name = "oracle",
    .host_memory = true,
    .open = oracle_open,
    .close = oracle_close,
    .allocate = oracle_allocate,
    .release = oracle_release,
    .upload = oracle_copy,
    .download = oracle_copy,
    .kernels = kernels,
};

const ftr_backend *ftr_test_oracle_backend(void) { return &backend; }
