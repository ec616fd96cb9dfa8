/* Reductions over axes: sum, mean, max, argmax. */
#include "ops/registry.h"

#include <stdio.h>
#include <string.h>

ftr_axes ftr_all_axes(void) {
    ftr_axes axes;
    memset(&axes, 0, sizeof axes);
    return axes;
}

bool ftr__axes_mask(const char *op, ftr_tensor x, const ftr_axes *axes, uint32_t *mask) {
    ftr_graph *graph = ftr__common_graph(op, &x, 1, 1);
    const ftr__value *value = graph != NULL ? ftr__value_of(x) : NULL;
    if (value == NULL) return false;
    char what[32];
    (void)snprintf(what, sizeof what, "%s of", op);
    int32_t rank = value->shape.rank;
    *mask = axes->count == 0 ? (1u << rank) - 1u : 0;
    if (axes->count < 0 || axes->count > FTR_MAX_RANK) {
        (void)ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, ftr_name_of(x), "%d axes, expected 0 to %d",
                                 (int)axes->count, FTR_MAX_RANK);
        return false;
    }
    for (int32_t i = 0; i < axes->count; i++) {
        int32_t axis = axes->axis[i];
        if (axis < -rank || axis >= rank) {
            (void)ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, ftr_name_of(x),
                                     "axis %d of a tensor of rank %d", (int)axis, (int)rank);
            return false;
        }
        uint32_t bit = 1u << (uint32_t)(axis < 0 ? axis + rank : axis);
        if ((*mask & bit) != 0) {
            (void)ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, ftr_name_of(x), "axis %d is there twice",
                                     (int)axis);
            return false;
        }
        *mask |= bit;
    }
    return true;
}

static ftr_tensor ftr__reduce(ftr_op op, ftr_tensor x, const ftr_axes *axes, bool keep) {
    ftr_op_attr attr = {.axes = {0, keep}};
    if (!ftr__axes_mask(ftr_op_name(op), x, axes, &attr.axes.mask)) return (ftr_tensor){NULL, 0};
    return ftr__emit_one(op, &attr, x);
}

ftr_tensor ftr_sum(ftr_tensor x, ftr_axes axes, bool keep) { return ftr__reduce(FTR_OP_sum, x, &axes, keep); }
ftr_tensor ftr_mean(ftr_tensor x, ftr_axes axes, bool keep) { return ftr__reduce(FTR_OP_mean, x, &axes, keep); }
ftr_tensor ftr_max(ftr_tensor x, ftr_axes axes, bool keep) { return ftr__reduce(FTR_OP_max, x, &axes, keep); }

ftr_tensor ftr_argmax(ftr_tensor x, int32_t axis) {
    ftr_axes axes = FTR_AXES(axis);
    return ftr__reduce(FTR_OP_argmax, x, &axes, false);
}

ftr_tensor ftr__sum_mask(ftr_tensor x, uint32_t mask, bool keep) {
    ftr_op_attr attr = {.axes = {mask, keep}};
    return ftr__emit_one(FTR_OP_sum, &attr, x);
}

ftr_tensor ftr__reduce_to(ftr_tensor x, const ftr_shape *shape) {
    if (!ftr_is_valid(x)) return x;
    ftr_shape from = ftr_shape_of(x);
    int32_t extra = from.rank - shape->rank;
    uint32_t mask = 0;
    for (int32_t i = 0; i < from.rank; i++) {
        int64_t size = i < extra ? 1 : shape->dim[i - extra];
        if (size == 1 && from.dim[i] != 1) mask |= 1u << (uint32_t)i;
    }
    if (mask != 0) x = ftr__sum_mask(x, mask, extra == 0);
    return ftr__reshape_to(x, shape);
}

/* ---- shapes and types */

ftr_shape ftr__kept_shape(const ftr_shape *shape, uint32_t mask) {
    ftr_shape kept = *shape;
    for (int32_t i = 0; i < kept.rank; i++)
        if ((mask >> i & 1u) != 0) kept.dim[i] = 1;
    return kept;
}

static ftr_status ftr__reduced_shape(ftr__infer *s, ftr_dtype dtype) {
    const ftr_shape *in = &s->in[0]->shape;
    uint32_t mask = s->node->attr.axes.mask;
    if (mask >> in->rank != 0)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "axes 0x%x of a tensor of rank %d", (unsigned)mask,
                                (int)in->rank);
    ftr_shape out = {0, {0}};
    for (int32_t i = 0; i < in->rank; i++) {
        bool reduced = (mask >> i & 1u) != 0;
        if (!reduced || s->node->attr.axes.keep) out.dim[out.rank++] = reduced ? 1 : in->dim[i];
    }
    return ftr__set_output(s, 0, dtype, &out);
}

/* The maximum of nothing is undefined. */
static ftr_status ftr__check_not_empty(ftr__infer *s) {
    const ftr_shape *in = &s->in[0]->shape;
    for (int32_t i = 0; i < in->rank; i++) {
        if ((s->node->attr.axes.mask >> i & 1u) == 0 || in->dim[i] != 0) continue;
        char text[FTR__SHAPE_TEXT];
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "axis %d of %s has size 0, expected 1 or more", (int)i,
                                ftr__shape_text(in, text));
    }
    return FTR_OK;
}

ftr_status ftr__infer_sum(ftr__infer *s) {
    ftr_status status = ftr__check_arithmetic(s, 0, "input");
    return status != FTR_OK ? status : ftr__reduced_shape(s, s->in[0]->dtype);
}

ftr_status ftr__infer_mean(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "input");
    return status != FTR_OK ? status : ftr__reduced_shape(s, s->in[0]->dtype);
}

ftr_status ftr__infer_max(ftr__infer *s) {
    ftr_status status = ftr__check_arithmetic(s, 0, "input");
    if (status == FTR_OK) status = ftr__check_not_empty(s);
    return status != FTR_OK ? status : ftr__reduced_shape(s, s->in[0]->dtype);
}

ftr_status ftr__infer_argmax(ftr__infer *s) {
    ftr_status status = ftr__check_arithmetic(s, 0, "input");
    if (status == FTR_OK) status = ftr__check_not_empty(s);
    uint32_t mask = s->node->attr.axes.mask;
    if (status == FTR_OK && (mask == 0 || (mask & (mask - 1u)) != 0))
        status = ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "axes 0x%x, expected one axis", (unsigned)mask);
    return status != FTR_OK ? status : ftr__reduced_shape(s, FTR_I64);
}

/* ---- gradients */

void ftr__grad_sum(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_shape shape = ftr_shape_of(s->in[0]);
    ftr_shape kept = ftr__kept_shape(&shape, s->node->attr.axes.mask);
    ftr_tensor dy = ftr__reshape_to(s->dout[0], &kept);
    s->din[0] = ftr_shape_equal(&shape, &kept) ? dy : ftr_expand(dy, shape);
}

void ftr__grad_mean(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_shape shape = ftr_shape_of(s->in[0]);
    ftr_shape kept = ftr__kept_shape(&shape, s->node->attr.axes.mask);
    if (ftr_shape_equal(&shape, &kept)) {
        s->din[0] = ftr__reshape_to(s->dout[0], &shape);
        return;
    }
    double count = 1.0;
    for (int32_t i = 0; i < shape.rank; i++)
        if ((s->node->attr.axes.mask >> i & 1u) != 0) count *= (double)shape.dim[i];
    ftr_tensor dy = ftr__reshape_to(s->dout[0], &kept);
    s->din[0] = ftr_expand(ftr_mul(dy, ftr__scalar_beside(dy, count > 0.0 ? 1.0 / count : 0.0)), shape);
}

/* Each of k equal maxima gets dy / k. NaN equals nothing: for a maximum of NaN all gradients are 0 / 0, as PyTorch's. */
void ftr__grad_max(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_shape shape = ftr_shape_of(s->in[0]);
    ftr_dtype dtype = ftr_dtype_of(s->dout[0]);
    uint32_t mask = s->node->attr.axes.mask;
    ftr_shape kept = ftr__kept_shape(&shape, mask);
    ftr_tensor dy = ftr__reshape_to(s->dout[0], &kept);
    if (ftr_shape_equal(&shape, &kept)) {
        s->din[0] = dy;
        return;
    }
    ftr_tensor at_max = ftr_eq(s->in[0], ftr__reshape_to(s->out[0], &kept));
    ftr_tensor ties = ftr__sum_mask(ftr_cast(at_max, dtype), mask, true);
    ftr_tensor zero = ftr_div(ftr_scalar(s->graph, dtype, 0.0), ties);
    s->din[0] = ftr_where(at_max, ftr_div(dy, ties), zero);
}
