/* Pointwise ops: arithmetic, comparisons, where, functions of one value, cast. */
#include "ops/registry.h"

#include <math.h>

/* ---- builders */

ftr_tensor ftr_add(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_add, NULL, a, b); }
ftr_tensor ftr_sub(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_sub, NULL, a, b); }
ftr_tensor ftr_mul(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_mul, NULL, a, b); }
ftr_tensor ftr_div(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_div, NULL, a, b); }
ftr_tensor ftr_pow(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_pow, NULL, a, b); }
ftr_tensor ftr_maximum(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_maximum, NULL, a, b); }
ftr_tensor ftr_eq(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_eq, NULL, a, b); }
ftr_tensor ftr_ne(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_ne, NULL, a, b); }
ftr_tensor ftr_lt(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_lt, NULL, a, b); }
ftr_tensor ftr_le(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_le, NULL, a, b); }
ftr_tensor ftr_gt(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_gt, NULL, a, b); }
ftr_tensor ftr_ge(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_ge, NULL, a, b); }

ftr_tensor ftr_where(ftr_tensor condition, ftr_tensor a, ftr_tensor b) {
    ftr_tensor in[3] = {condition, a, b};
    ftr_graph *graph = condition.graph != NULL ? condition.graph : a.graph != NULL ? a.graph : b.graph;
    return ftr__emit(graph, FTR_OP_where, NULL, NULL, in, 3);
}

ftr_tensor ftr_neg(ftr_tensor x) { return ftr__emit_one(FTR_OP_neg, NULL, x); }
ftr_tensor ftr_exp(ftr_tensor x) { return ftr__emit_one(FTR_OP_exp, NULL, x); }
ftr_tensor ftr_log(ftr_tensor x) { return ftr__emit_one(FTR_OP_log, NULL, x); }
ftr_tensor ftr_sqrt(ftr_tensor x) { return ftr__emit_one(FTR_OP_sqrt, NULL, x); }
ftr_tensor ftr_rsqrt(ftr_tensor x) { return ftr__emit_one(FTR_OP_rsqrt, NULL, x); }
ftr_tensor ftr_tanh(ftr_tensor x) { return ftr__emit_one(FTR_OP_tanh, NULL, x); }
ftr_tensor ftr_sigmoid(ftr_tensor x) { return ftr__emit_one(FTR_OP_sigmoid, NULL, x); }
ftr_tensor ftr_relu(ftr_tensor x) { return ftr__emit_one(FTR_OP_relu, NULL, x); }

ftr_tensor ftr_minimum(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_minimum, NULL, a, b); }
ftr_tensor ftr_abs(ftr_tensor x) { return ftr__emit_one(FTR_OP_abs, NULL, x); }
ftr_tensor ftr_sign(ftr_tensor x) { return ftr__emit_one(FTR_OP_sign, NULL, x); }
ftr_tensor ftr_sin(ftr_tensor x) { return ftr__emit_one(FTR_OP_sin, NULL, x); }
ftr_tensor ftr_cos(ftr_tensor x) { return ftr__emit_one(FTR_OP_cos, NULL, x); }
ftr_tensor ftr_erf(ftr_tensor x) { return ftr__emit_one(FTR_OP_erf, NULL, x); }
ftr_tensor ftr_floor(ftr_tensor x) { return ftr__emit_one(FTR_OP_floor, NULL, x); }
ftr_tensor ftr_round(ftr_tensor x) { return ftr__emit_one(FTR_OP_round, NULL, x); }
ftr_tensor ftr_silu(ftr_tensor x) { return ftr__emit_one(FTR_OP_silu, NULL, x); }
ftr_tensor ftr_hardswish(ftr_tensor x) { return ftr__emit_one(FTR_OP_hardswish, NULL, x); }
ftr_tensor ftr_hardsigmoid(ftr_tensor x) { return ftr__emit_one(FTR_OP_hardsigmoid, NULL, x); }
ftr_tensor ftr_stop_gradient(ftr_tensor x) { return ftr__emit_one(FTR_OP_stop_gradient, NULL, x); }

static ftr_tensor ftr__with_parameters(ftr_op op, ftr_tensor x, double a, double b) {
    const ftr_op_attr attr = {.pointwise = {a, b}};
    return ftr__emit_one(op, &attr, x);
}

ftr_tensor ftr_clamp(ftr_tensor x, double min, double max) { return ftr__with_parameters(FTR_OP_clamp, x, min, max); }
ftr_tensor ftr_relu6(ftr_tensor x) { return ftr_clamp(x, 0.0, 6.0); }
ftr_tensor ftr_leaky_relu(ftr_tensor x, double slope) { return ftr__with_parameters(FTR_OP_leaky_relu, x, slope, 0.0); }
ftr_tensor ftr_elu(ftr_tensor x, double alpha) { return ftr__with_parameters(FTR_OP_elu, x, alpha, 0.0); }

ftr_tensor ftr_softplus(ftr_tensor x, double beta, double threshold) {
    return ftr__with_parameters(FTR_OP_softplus, x, beta, threshold);
}

ftr_tensor ftr_gelu(ftr_tensor x, ftr_gelu_form form) {
    const ftr_op_attr attr = {.gelu = {form}};
    return ftr__emit_one(FTR_OP_gelu, &attr, x);
}

ftr_tensor ftr_cast(ftr_tensor x, ftr_dtype dtype) {
    ftr_op_attr attr = {.cast = {dtype}};
    return ftr__emit_one(FTR_OP_cast, &attr, x);
}

ftr_tensor ftr__cast_to(ftr_tensor x, ftr_dtype dtype) {
    return !ftr_is_valid(x) || ftr_dtype_of(x) == dtype ? x : ftr_cast(x, dtype);
}

ftr_tensor ftr__scalar_beside(ftr_tensor x, double value) {
    const ftr_dtype dtype = ftr_dtype_of(x);
    return ftr_scalar(x.graph, ftr_shape_of(x).rank > 0 ? ftr__wide_type(dtype) : dtype, value);
}

/* ---- shapes and types */

/* An f32 scalar beside an f16 or bf16 tensor is read as it is, and the result has the tensor's type, as with Python's
 * numbers in PyTorch: rounding the scalar would lose what it says (1e-8, 65536). */
static bool ftr__is_scalar_beside(const ftr__value *scalar, const ftr__value *tensor) {
    return scalar->dtype == FTR_F32 && scalar->shape.rank == 0 && ftr__is_half(tensor->dtype) && tensor->shape.rank > 0;
}

/* The type of what is made of inputs a and b. */
static ftr_status ftr__common_type(ftr__infer *s, int32_t a, int32_t b, ftr_dtype *dtype) {
    *dtype = s->in[ftr__is_scalar_beside(s->in[a], s->in[b]) ? b : a]->dtype;
    if (*dtype != s->in[a]->dtype || ftr__is_scalar_beside(s->in[b], s->in[a])) return FTR_OK;
    return ftr__check_same_type(s, a, b, "a", "b");
}

/* `result` FTR_DTYPE_NONE: that of the operands. */
static ftr_status ftr__binary_shape(ftr__infer *s, ftr_dtype result) {
    ftr_dtype common;
    ftr_status status = ftr__common_type(s, 0, 1, &common);
    if (status != FTR_OK) return status;
    if (result == FTR_DTYPE_NONE) result = common;
    const ftr_shape *a = &s->in[0]->shape, *b = &s->in[1]->shape;
    ftr_shape out;
    if (ftr__broadcast_shape(a, b, &out)) return ftr__set_output(s, 0, result, &out);
    char text_a[FTR__SHAPE_TEXT], text_b[FTR__SHAPE_TEXT];
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "shapes %s and %s do not broadcast", ftr__shape_text(a, text_a),
                            ftr__shape_text(b, text_b));
}

static ftr_status ftr__infer_arithmetic(ftr__infer *s) {
    ftr_status status = ftr__check_arithmetic(s, 0, "a");
    if (status == FTR_OK) status = ftr__check_arithmetic(s, 1, "b");
    return status != FTR_OK ? status : ftr__binary_shape(s, FTR_DTYPE_NONE);
}

ftr_status ftr__infer_add(ftr__infer *s) { return ftr__infer_arithmetic(s); }
ftr_status ftr__infer_sub(ftr__infer *s) { return ftr__infer_arithmetic(s); }
ftr_status ftr__infer_mul(ftr__infer *s) { return ftr__infer_arithmetic(s); }
ftr_status ftr__infer_div(ftr__infer *s) { return ftr__infer_arithmetic(s); }
ftr_status ftr__infer_maximum(ftr__infer *s) { return ftr__infer_arithmetic(s); }

ftr_status ftr__infer_pow(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "a");
    if (status == FTR_OK) status = ftr__check_float(s, 1, "b");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "a", "b");
    return status != FTR_OK ? status : ftr__binary_shape(s, FTR_DTYPE_NONE);
}

static ftr_status ftr__infer_order(ftr__infer *s) {
    for (int32_t i = 0; i < 2; i++)
        if (s->in[i]->dtype == FTR_BOOL)
            return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s is bool, expected numbers", i == 0 ? "a" : "b");
    return ftr__binary_shape(s, FTR_BOOL);
}

ftr_status ftr__infer_eq(ftr__infer *s) { return ftr__binary_shape(s, FTR_BOOL); }
ftr_status ftr__infer_ne(ftr__infer *s) { return ftr__binary_shape(s, FTR_BOOL); }
ftr_status ftr__infer_lt(ftr__infer *s) { return ftr__infer_order(s); }
ftr_status ftr__infer_le(ftr__infer *s) { return ftr__infer_order(s); }
ftr_status ftr__infer_gt(ftr__infer *s) { return ftr__infer_order(s); }
ftr_status ftr__infer_ge(ftr__infer *s) { return ftr__infer_order(s); }

ftr_status ftr__infer_where(ftr__infer *s) {
    if (s->in[0]->dtype != FTR_BOOL)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "condition is %s, expected bool", ftr_dtype_name(s->in[0]->dtype));
    ftr_dtype dtype;
    ftr_status status = ftr__common_type(s, 1, 2, &dtype);
    if (status != FTR_OK) return status;
    ftr_shape values, out;
    if (ftr__broadcast_shape(&s->in[1]->shape, &s->in[2]->shape, &values) &&
        ftr__broadcast_shape(&s->in[0]->shape, &values, &out))
        return ftr__set_output(s, 0, dtype, &out);
    char text[3][FTR__SHAPE_TEXT];
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "shapes %s, %s and %s do not broadcast",
                            ftr__shape_text(&s->in[0]->shape, text[0]), ftr__shape_text(&s->in[1]->shape, text[1]),
                            ftr__shape_text(&s->in[2]->shape, text[2]));
}

static ftr_status ftr__infer_float_unary(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "input");
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
}

ftr_status ftr__infer_neg(ftr__infer *s) {
    ftr_status status = ftr__check_arithmetic(s, 0, "input");
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
}

ftr_status ftr__infer_exp(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_log(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_sqrt(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_rsqrt(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_tanh(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_sigmoid(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_relu(ftr__infer *s) { return ftr__infer_float_unary(s); }

ftr_status ftr__infer_minimum(ftr__infer *s) { return ftr__infer_arithmetic(s); }
ftr_status ftr__infer_abs(ftr__infer *s) { return ftr__infer_neg(s); }
ftr_status ftr__infer_sign(ftr__infer *s) { return ftr__infer_neg(s); }
ftr_status ftr__infer_sin(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_cos(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_erf(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_floor(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_round(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_silu(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_hardswish(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_hardsigmoid(ftr__infer *s) { return ftr__infer_float_unary(s); }

ftr_status ftr__infer_stop_gradient(ftr__infer *s) { return ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape); }

ftr_status ftr__infer_clamp(ftr__infer *s) {
    const double min = s->node->attr.pointwise.a, max = s->node->attr.pointwise.b;
    if (!(min <= max))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "min %g, max %g: expected min <= max", min, max);
    return ftr__infer_float_unary(s);
}

ftr_status ftr__infer_leaky_relu(ftr__infer *s) {
    const double slope = s->node->attr.pointwise.a;
    if (!isfinite(slope))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "slope %g, expected a finite number", slope);
    return ftr__infer_float_unary(s);
}

ftr_status ftr__infer_elu(ftr__infer *s) {
    const double alpha = s->node->attr.pointwise.a;
    if (!isfinite(alpha))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "alpha %g, expected a finite number", alpha);
    return ftr__infer_float_unary(s);
}

ftr_status ftr__infer_softplus(ftr__infer *s) {
    const double beta = s->node->attr.pointwise.a, threshold = s->node->attr.pointwise.b;
    if (!isfinite(beta) || beta <= 0.0)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "beta %g, expected a finite number above 0", beta);
    if (isnan(threshold))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "threshold %g, expected a number", threshold);
    return ftr__infer_float_unary(s);
}

ftr_status ftr__infer_gelu(ftr__infer *s) {
    const ftr_gelu_form form = s->node->attr.gelu.form;
    if (form != FTR_GELU_EXACT && form != FTR_GELU_TANH)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "form %d, expected FTR_GELU_EXACT or FTR_GELU_TANH",
                                (int)form);
    return ftr__infer_float_unary(s);
}

ftr_status ftr__infer_cast(ftr__infer *s) {
    ftr_dtype dtype = s->node->attr.cast.dtype;
    if ((int)dtype <= (int)FTR_DTYPE_NONE || (int)dtype >= (int)FTR_DTYPE_COUNT)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "dtype %d, expected one of ftr_dtype", (int)dtype);
    return ftr__set_output(s, 0, dtype, &s->in[0]->shape);
}

static ftr_status ftr__infer_activation_grad(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "dy");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dy", "y");
    if (status == FTR_OK) status = ftr__check_same_shape(s, 0, 1, "dy", "y");
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
}

ftr_status ftr__infer_tanh_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }
ftr_status ftr__infer_sigmoid_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }
ftr_status ftr__infer_relu_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }

ftr_status ftr__infer_clamp_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }
ftr_status ftr__infer_gelu_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }
ftr_status ftr__infer_silu_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }
ftr_status ftr__infer_hardswish_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }
ftr_status ftr__infer_leaky_relu_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }
ftr_status ftr__infer_elu_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }
ftr_status ftr__infer_softplus_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }

/* ---- gradients */

/* Gives input i the gradient `d`, which has the shape of the result. */
static void ftr__give(ftr__grad *s, int32_t i, ftr_tensor d) {
    ftr_shape shape = ftr_shape_of(s->in[i]);
    s->din[i] = ftr__reduce_to(d, &shape);
}

static ftr_tensor ftr__like(const ftr__grad *s, double value) {
    return ftr_scalar(s->graph, ftr_dtype_of(s->dout[0]), value);
}

void ftr__grad_add(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    if (s->wanted[0]) ftr__give(s, 0, s->dout[0]);
    if (s->wanted[1]) ftr__give(s, 1, s->dout[0]);
}

void ftr__grad_sub(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    if (s->wanted[0]) ftr__give(s, 0, s->dout[0]);
    if (!s->wanted[1]) return;
    ftr__give(s, 1, s->dout[0]);
    s->din[1] = ftr_neg(s->din[1]); /* after the sum, where it is smaller */
}

void ftr__grad_mul(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    if (s->wanted[0]) ftr__give(s, 0, ftr_mul(s->dout[0], s->in[1]));
    if (s->wanted[1]) ftr__give(s, 1, ftr_mul(s->dout[0], s->in[0]));
}

/* d(a / b) = da / b - y db / b */
void ftr__grad_div(ftr__grad *s) {
    if (!ftr__has_gradient(s) || (!s->wanted[0] && !s->wanted[1])) return;
    ftr_tensor quotient = ftr_div(s->dout[0], s->in[1]);
    if (s->wanted[0]) ftr__give(s, 0, quotient);
    if (!s->wanted[1]) return;
    ftr__give(s, 1, ftr_mul(quotient, s->out[0]));
    s->din[1] = ftr_neg(s->din[1]);
}

/* d/da = b a^(b-1), 0 where b is 0;  d/db = a^b log a, 0 where a is 0 and b >= 0. */
void ftr__grad_pow(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    ftr_tensor a = s->in[0], b = s->in[1], dy = s->dout[0], zero = ftr__like(s, 0.0);
    if (s->wanted[0]) {
        ftr_tensor slope = ftr_mul(b, ftr_pow(a, ftr_sub(b, ftr__like(s, 1.0))));
        ftr__give(s, 0, ftr_where(ftr_eq(b, zero), zero, ftr_mul(dy, slope)));
    }
    if (s->wanted[1]) {
        ftr_tensor d = ftr_mul(dy, ftr_mul(s->out[0], ftr_log(a)));
        ftr__give(s, 1, ftr_where(ftr_eq(a, zero), ftr_where(ftr_ge(b, zero), zero, d), d));
    }
}

void ftr__grad_maximum(ftr__grad *s) {
    if (!ftr__has_gradient(s) || (!s->wanted[0] && !s->wanted[1])) return;
    ftr_tensor a = s->in[0], b = s->in[1], dy = s->dout[0], zero = ftr__like(s, 0.0);
    ftr_tensor shared = ftr_where(ftr_eq(a, b), ftr_mul(dy, ftr__like(s, 0.5)), dy);
    if (s->wanted[0]) ftr__give(s, 0, ftr_where(ftr_lt(a, b), zero, shared));
    if (s->wanted[1]) ftr__give(s, 1, ftr_where(ftr_lt(b, a), zero, shared));
}

void ftr__grad_where(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    ftr_tensor dy = s->dout[0];
    if (s->wanted[1]) ftr__give(s, 1, ftr_where(s->in[0], dy, ftr__like(s, 0.0)));
    if (s->wanted[2]) ftr__give(s, 2, ftr_where(s->in[0], ftr__like(s, 0.0), dy));
}

static bool ftr__grad_of_one(const ftr__grad *s) { return ftr__has_gradient(s) && s->wanted[0]; }

void ftr__grad_neg(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr_neg(s->dout[0]);
}

void ftr__grad_exp(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr_mul(s->dout[0], s->out[0]);
}

void ftr__grad_log(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr_div(s->dout[0], s->in[0]);
}

/* dy / (2 y) */
void ftr__grad_sqrt(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr_div(ftr_mul(s->dout[0], ftr__like(s, 0.5)), s->out[0]);
}

/* -dy y^3 / 2 */
void ftr__grad_rsqrt(ftr__grad *s) {
    if (!ftr__grad_of_one(s)) return;
    ftr_tensor y = s->out[0];
    s->din[0] = ftr_mul(ftr_mul(s->dout[0], ftr__like(s, -0.5)), ftr_mul(y, ftr_mul(y, y)));
}

void ftr__grad_tanh(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr__emit_two(FTR_OP_tanh_grad, NULL, s->dout[0], s->out[0]);
}

void ftr__grad_sigmoid(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr__emit_two(FTR_OP_sigmoid_grad, NULL, s->dout[0], s->out[0]);
}

void ftr__grad_relu(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr__emit_two(FTR_OP_relu_grad, NULL, s->dout[0], s->out[0]);
}

void ftr__grad_minimum(ftr__grad *s) {
    if (!ftr__has_gradient(s) || (!s->wanted[0] && !s->wanted[1])) return;
    ftr_tensor a = s->in[0], b = s->in[1], dy = s->dout[0], zero = ftr__like(s, 0.0);
    ftr_tensor shared = ftr_where(ftr_eq(a, b), ftr_mul(dy, ftr__like(s, 0.5)), dy);
    if (s->wanted[0]) ftr__give(s, 0, ftr_where(ftr_gt(a, b), zero, shared));
    if (s->wanted[1]) ftr__give(s, 1, ftr_where(ftr_gt(b, a), zero, shared));
}

void ftr__grad_abs(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr_mul(s->dout[0], ftr_sign(s->in[0]));
}

void ftr__grad_sin(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr_mul(s->dout[0], ftr_cos(s->in[0]));
}

void ftr__grad_cos(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr_neg(ftr_mul(s->dout[0], ftr_sin(s->in[0])));
}

/* dy 2 / sqrt(pi) e^(-x^2) */
void ftr__grad_erf(ftr__grad *s) {
    if (!ftr__grad_of_one(s)) return;
    ftr_tensor bell = ftr_exp(ftr_neg(ftr_mul(s->in[0], s->in[0])));
    s->din[0] = ftr_mul(ftr_mul(s->dout[0], ftr__scalar_beside(s->dout[0], 1.1283791670955126)), bell);
}

/* Of a function that is constant between its steps: zeros, not a missing gradient, so that training can go on. */
static void ftr__grad_of_steps(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr_expand(ftr__like(s, 0.0), ftr_shape_of(s->in[0]));
}

void ftr__grad_floor(ftr__grad *s) { ftr__grad_of_steps(s); }
void ftr__grad_round(ftr__grad *s) { ftr__grad_of_steps(s); }
void ftr__grad_sign(ftr__grad *s) { ftr__grad_of_steps(s); }

/* By an op of its own that takes dy, x and the forward node's attributes. */
static void ftr__grad_by_op(ftr__grad *s, ftr_op op, ftr_tensor x) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr__emit_two(op, &s->node->attr, s->dout[0], x);
}

/* The result is strictly between the bounds where x is, and its memory may be that of x. */
void ftr__grad_clamp(ftr__grad *s) { ftr__grad_by_op(s, FTR_OP_clamp_grad, s->out[0]); }
void ftr__grad_gelu(ftr__grad *s) { ftr__grad_by_op(s, FTR_OP_gelu_grad, s->in[0]); }
void ftr__grad_silu(ftr__grad *s) { ftr__grad_by_op(s, FTR_OP_silu_grad, s->in[0]); }
void ftr__grad_hardswish(ftr__grad *s) { ftr__grad_by_op(s, FTR_OP_hardswish_grad, s->in[0]); }
void ftr__grad_leaky_relu(ftr__grad *s) { ftr__grad_by_op(s, FTR_OP_leaky_relu_grad, s->in[0]); }
void ftr__grad_elu(ftr__grad *s) { ftr__grad_by_op(s, FTR_OP_elu_grad, s->in[0]); }
void ftr__grad_softplus(ftr__grad *s) { ftr__grad_by_op(s, FTR_OP_softplus_grad, s->in[0]); }

/* dy / 6 for x strictly between -3 and 3 */
void ftr__grad_hardsigmoid(ftr__grad *s) {
    if (!ftr__grad_of_one(s)) return;
    const ftr_op_attr attr = {.pointwise = {-3.0, 3.0}};
    s->din[0] = ftr_mul(ftr__emit_two(FTR_OP_clamp_grad, &attr, s->dout[0], s->in[0]),
                        ftr__scalar_beside(s->dout[0], 1.0 / 6.0));
}

void ftr__grad_cast(ftr__grad *s) {
    ftr_dtype dtype = ftr_dtype_of(s->in[0]);
    if (!ftr__grad_of_one(s) || !ftr__is_float(dtype) || !ftr__is_float(ftr_dtype_of(s->dout[0]))) return;
    s->din[0] = ftr_cast(s->dout[0], dtype);
}
