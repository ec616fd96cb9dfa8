/* Ops along a line of elements: cumulative sum, product, log-sum-exp; variance and norms, made of other ops. */
#include "ops/registry.h"

#include <math.h>
#include <string.h>

/* ---- builders */

ftr_tensor ftr_cumsum(ftr_tensor x, int32_t axis, bool reverse) {
    ftr_op_attr attr = {.cumsum = {axis, reverse}};
    return ftr__emit_one(FTR_OP_cumsum, &attr, x);
}

/* x with the axes of `mask` joined into one: in their place if they are neighbours, otherwise at the end. */
static ftr_tensor ftr__join_axes(ftr_tensor x, uint32_t mask, int32_t *axis) {
    ftr_shape shape = ftr_shape_of(x), joined = {0, {0}};
    ftr_axes order = {0, {0}};
    int64_t size = 1;
    int32_t reduced = 0, first = shape.rank;
    for (int32_t i = 0; i < shape.rank; i++) {
        if ((mask >> i & 1u) == 0) {
            order.axis[order.count++] = i;
            continue;
        }
        if (reduced++ == 0) first = i;
        size *= shape.dim[i];
    }
    bool neighbours = mask == ((1u << reduced) - 1u) << first;
    *axis = neighbours ? first : order.count;
    for (int32_t i = 0; i < order.count; i++) {
        if (i == *axis) joined.dim[joined.rank++] = size;
        joined.dim[joined.rank++] = shape.dim[order.axis[i]];
    }
    if (*axis == order.count) joined.dim[joined.rank++] = size;
    if (!neighbours) {
        for (int32_t i = 0; i < shape.rank; i++)
            if ((mask >> i & 1u) != 0) order.axis[order.count++] = i;
        x = ftr_transpose(x, order);
    }
    return ftr__reshape_to(x, &joined);
}

/* An op that reduces one axis, over any. */
static ftr_tensor ftr__reduce_line(ftr_op op, ftr_tensor x, const ftr_axes *axes, bool keep) {
    uint32_t mask;
    if (!ftr__axes_mask(ftr_op_name(op), x, axes, &mask)) return (ftr_tensor){NULL, 0};
    ftr_shape shape = ftr_shape_of(x), kept = ftr__kept_shape(&shape, mask);
    ftr_op_attr attr;
    memset(&attr, 0, sizeof attr);
    ftr_tensor y = ftr__emit_one(op, &attr, ftr__join_axes(x, mask, &attr.axis.axis));
    return keep ? ftr__reshape_to(y, &kept) : y;
}

ftr_tensor ftr_prod(ftr_tensor x, ftr_axes axes, bool keep) { return ftr__reduce_line(FTR_OP_prod, x, &axes, keep); }

ftr_tensor ftr_logsumexp(ftr_tensor x, ftr_axes axes, bool keep) {
    return ftr__reduce_line(FTR_OP_logsumexp, x, &axes, keep);
}

/* The elements that are reduced, x being floating point; -1, with the error recorded, if something is wrong. */
static int64_t ftr__count_reduced(const char *op, const char *what, ftr_tensor x, const ftr_axes *axes) {
    uint32_t mask;
    if (!ftr__axes_mask(op, x, axes, &mask)) return -1;
    ftr_shape shape = ftr_shape_of(x);
    if (!ftr__is_float(ftr_dtype_of(x))) {
        (void)ftr__builder_error(x.graph, FTR_ERROR_DTYPE, what, ftr_name_of(x), "input is %s, expected floating point",
                                 ftr_dtype_name(ftr_dtype_of(x)));
        return -1;
    }
    int64_t count = 1;
    for (int32_t i = 0; i < shape.rank; i++)
        if ((mask >> i & 1u) != 0) count *= shape.dim[i];
    return count;
}

static ftr_tensor ftr__var_nodes(ftr_tensor x, ftr_axes axes, int32_t correction, bool keep) {
    ftr_tensor none = {NULL, 0};
    int64_t count = ftr__count_reduced("var", "var of", x, &axes);
    if (count < 0) return none;
    if (correction != 0 && correction != 1)
        return ftr__builder_error(x.graph, FTR_ERROR_INVALID_ARGUMENT, "var of", ftr_name_of(x),
                                  "correction %d, expected 0 or 1", (int)correction);
    /* The gradient through the mean is 0, the differences from it adding up to 0. */
    ftr_tensor difference = ftr_sub(x, ftr_stop_gradient(ftr_mean(x, axes, true)));
    double divisor = count > correction ? (double)(count - correction) : 0.0;
    ftr_tensor sum = ftr_sum(ftr_mul(difference, difference), axes, keep);
    return ftr_div(sum, ftr__scalar_beside(sum, divisor));
}

ftr_tensor ftr_var(ftr_tensor x, ftr_axes axes, int32_t correction, bool keep) {
    const int32_t first = ftr__node_count(x);
    return ftr__keep_f32(ftr__var_nodes(x, axes, correction, keep), first);
}

/* At 0 the two operands of maximum are equal and their gradients cancel; the square root is taken of 1 instead of 0. */
static ftr_tensor ftr__norm_nodes(ftr_tensor x, double p, ftr_axes axes, bool keep) {
    ftr_tensor none = {NULL, 0};
    if (ftr__count_reduced("norm", "norm of", x, &axes) < 0) return none;
    if (p != 1.0 && p != 2.0 && !(isinf(p) && p > 0.0))
        return ftr__builder_error(x.graph, FTR_ERROR_INVALID_ARGUMENT, "norm of", ftr_name_of(x),
                                  "p %g, expected 1, 2 or INFINITY", p);
    if (p == 1.0) return ftr_sum(ftr_maximum(x, ftr_neg(x)), axes, keep);
    if (p != 2.0) return ftr_max(ftr_maximum(x, ftr_neg(x)), axes, keep);
    ftr_dtype dtype = ftr_dtype_of(x);
    ftr_tensor sum = ftr_sum(ftr_mul(x, x), axes, keep), zero = ftr_scalar(x.graph, dtype, 0.0);
    ftr_tensor at_zero = ftr_eq(sum, zero);
    return ftr_where(at_zero, zero, ftr_sqrt(ftr_where(at_zero, ftr_scalar(x.graph, dtype, 1.0), sum)));
}

ftr_tensor ftr_norm(ftr_tensor x, double p, ftr_axes axes, bool keep) {
    const int32_t first = ftr__node_count(x);
    return ftr__keep_f32(ftr__norm_nodes(x, p, axes, keep), first);
}

/* ---- shapes and types */

ftr_status ftr__infer_cumsum(ftr__infer *s) {
    ftr_status status = ftr__check_arithmetic(s, 0, "input");
    if (status == FTR_OK) status = ftr__check_axis(s, &s->node->attr.cumsum.axis, s->in[0]->shape.rank);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
}

static ftr_status ftr__infer_line(ftr__infer *s) {
    const ftr_shape *in = &s->in[0]->shape;
    int32_t *axis = &s->node->attr.axis.axis;
    ftr_status status = ftr__check_axis(s, axis, in->rank);
    if (status != FTR_OK) return status;
    ftr_shape out = {0, {0}};
    for (int32_t i = 0; i < in->rank; i++)
        if (i != *axis) out.dim[out.rank++] = in->dim[i];
    return ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

ftr_status ftr__infer_prod(ftr__infer *s) {
    ftr_status status = ftr__check_arithmetic(s, 0, "input");
    return status != FTR_OK ? status : ftr__infer_line(s);
}

ftr_status ftr__infer_logsumexp(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "input");
    return status != FTR_OK ? status : ftr__infer_line(s);
}

static ftr_status ftr__infer_line_grad(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "dy");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dy", "x");
    if (status == FTR_OK) status = ftr__check_axis(s, &s->node->attr.axis.axis, s->in[1]->shape.rank);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[1]->dtype, &s->in[1]->shape);
}

ftr_status ftr__infer_prod_grad(ftr__infer *s) { return ftr__infer_line_grad(s); }
ftr_status ftr__infer_logsumexp_grad(ftr__infer *s) { return ftr__infer_line_grad(s); }

/* ---- gradients */

void ftr__grad_cumsum(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr_cumsum(s->dout[0], s->node->attr.cumsum.axis, !s->node->attr.cumsum.reverse);
}

void ftr__grad_prod(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_two(FTR_OP_prod_grad, &s->node->attr, s->dout[0], s->in[0]);
}

/* dx = dy e^(x - y), computed as dy softmax(x), for y is rounded, which e^ makes a large error where y is large. The two
 * differ where an x is infinite, so that softmax itself will not do. */
void ftr__grad_logsumexp(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_two(FTR_OP_logsumexp_grad, &s->node->attr, s->dout[0], s->in[0]);
}
