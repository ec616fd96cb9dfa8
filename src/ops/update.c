/* Updates: they have no outputs; inference checks that states and values agree. */
#include "ops/registry.h"

#include <stdio.h>

/* Optimizers have any number of inputs, so they are looked up in the graph. NULL: missing. */
static const ftr__value *ftr__update_input(const ftr__infer *s, int32_t input) {
    const int32_t id = input < s->in_count ? s->node->in[input] : 0;
    return id ? &s->graph->values[id] : NULL;
}

static ftr_status ftr__check_update_scalar(ftr__infer *s, int32_t input, const char *what, bool floating) {
    const ftr__value *value = ftr__update_input(s, input);
    if (!value) return FTR_OK;
    bool fits = floating ? ftr__is_wide(value->dtype) : value->dtype == FTR_I64;
    if (!fits)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s is %s, expected %s", what, ftr_dtype_name(value->dtype),
                                floating ? "f32 or f64" : "i64");
    return ftr_shape_count(&value->shape) == 1
               ? FTR_OK
               : ftr__infer_error(s, FTR_ERROR_RANK, "%s has rank %d, expected a scalar", what, (int)value->shape.rank);
}

ftr_status ftr__infer_ema_update(ftr__infer *s) {
    if (!ftr__is_wide(s->in[0]->dtype))
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "state is %s, expected f32 or f64",
                                ftr_dtype_name(s->in[0]->dtype));
    ftr_status status = ftr__check_same_type(s, 0, 1, "state", "value");
    if (status == FTR_OK) status = ftr__check_same_shape(s, 0, 1, "state", "value");
    return status != FTR_OK ? status : ftr__check_update_scalar(s, 2, "found_inf", true);
}

ftr_status ftr__infer_count_update(ftr__infer *s) {
    ftr_status status = ftr__check_update_scalar(s, 0, "state", false);
    return status != FTR_OK ? status : ftr__check_update_scalar(s, 1, "found_inf", true);
}

/* Pairs of tensors of one shape and type from input `first` on. */
static ftr_status ftr__check_pairs(ftr__infer *s, int32_t first) {
    char text[2][FTR__SHAPE_TEXT];
    if (s->in_count < first + 2 || (s->in_count - first) % 2 != 0)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "%d inputs, expected %d and 2 a pair", (int)s->in_count,
                                (int)first);
    for (int32_t i = first; i < s->in_count; i += 2) {
        const ftr__value *state = ftr__update_input(s, i), *value = ftr__update_input(s, i + 1);
        if (!state || !value)
            return ftr__infer_error(s, FTR_ERROR_INVALID_TENSOR, "input %d is missing", (int)(state ? i + 1 : i));
        if (!ftr__is_wide(state->dtype) || state->dtype != value->dtype)
            return ftr__infer_error(s, FTR_ERROR_DTYPE, "input %d is %s, input %d is %s, expected f32 or f64 for both",
                                    (int)i, ftr_dtype_name(state->dtype), (int)i + 1, ftr_dtype_name(value->dtype));
        if (!ftr_shape_equal(&state->shape, &value->shape))
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "input %d is %s, input %d is %s: both must have one shape",
                                    (int)i, ftr__shape_text(&state->shape, text[0]), (int)i + 1,
                                    ftr__shape_text(&value->shape, text[1]));
    }
    return FTR_OK;
}

ftr_status ftr__infer_accumulate_update(ftr__infer *s) {
    if (s->node->attr.accumulate.steps < 1)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "steps is %lld, expected 1 or more",
                                (long long)s->node->attr.accumulate.steps);
    return ftr__check_pairs(s, 0);
}

ftr_status ftr__infer_average_update(ftr__infer *s) {
    ftr_status status = ftr__check_update_scalar(s, 0, "count", false);
    if (status == FTR_OK) status = ftr__check_update_scalar(s, 1, "step", false);
    if (status == FTR_OK) status = ftr__check_update_scalar(s, 2, "found_inf", true);
    return status == FTR_OK ? ftr__check_pairs(s, FTR_AVERAGE_FIRST_PAIR) : status;
}

ftr_status ftr__infer_swap_update(ftr__infer *s) { return ftr__check_pairs(s, 0); }

/* Types of a parameter's group: p and its gradient are wide and the same; a state is as they are, or in bf16 if the op
 * can keep it so, all states of a node alike. */
static ftr_status ftr__check_update_type(ftr__infer *s, const ftr__value *p, int32_t i, int32_t kind) {
    const ftr__value *value = ftr__update_input(s, i);
    const ftr__value *first = kind >= 2 ? ftr__update_input(s, FTR_UPDATE_FIRST_GROUP + 2) : p;
    const bool may_be_bf16 = kind >= 2 && s->node->op != FTR_OP_adafactor_update;
    if (!ftr__is_wide(p->dtype))
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "parameter is %s, expected f32 or f64", ftr_dtype_name(p->dtype));
    if (value->dtype != p->dtype && !(may_be_bf16 && value->dtype == FTR_BF16))
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "parameter is %s, input %d is %s: both must have one type",
                                ftr_dtype_name(p->dtype), (int)i, ftr_dtype_name(value->dtype));
    if (first && first->dtype != value->dtype)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "input %d is %s, input %d is %s: all states must have one type",
                                (int)FTR_UPDATE_FIRST_GROUP + 2, ftr_dtype_name(first->dtype), (int)i,
                                ftr_dtype_name(value->dtype));
    return FTR_OK;
}

/* Input `i`, number `kind` of its parameter's group, has the parameter's shape, but is 1 long in axis `summed`; -1: no
 * axis is. */
static ftr_status ftr__check_update_group(ftr__infer *s, int32_t i, int32_t kind, int32_t summed) {
    const ftr__value *p = ftr__update_input(s, i - kind), *value = ftr__update_input(s, i);
    if (!p || !value)
        return ftr__infer_error(s, FTR_ERROR_INVALID_TENSOR, "input %d is missing", (int)(p ? i : i - kind));
    const ftr_status status = ftr__check_update_type(s, p, i, kind);
    if (status != FTR_OK) return status;
    ftr_shape expected = p->shape;
    if (summed >= 0) expected.dim[summed] = 1;
    if (ftr_shape_equal(&expected, &value->shape)) return FTR_OK;
    char text_p[FTR__SHAPE_TEXT], text_expected[FTR__SHAPE_TEXT], text[FTR__SHAPE_TEXT];
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "parameter is %s, input %d is %s, expected %s",
                            ftr__shape_text(&p->shape, text_p), (int)i, ftr__shape_text(&value->shape, text),
                            ftr__shape_text(&expected, text_expected));
}

static ftr_status ftr__check_factored(ftr__infer *s, const ftr__value *p) {
    const int32_t row = s->node->attr.optimizer.row_axis, column = s->node->attr.optimizer.column_axis;
    if (row >= 0 && column >= 0 && p && row < p->shape.rank && column < p->shape.rank &&
        (row == column + 1 || column == row + 1))
        return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT,
                            "row_axis is %d, column_axis is %d, expected neighbouring axes of a parameter of rank %d",
                            (int)row, (int)column, p ? (int)p->shape.rank : 0);
}

/* Groups of a parameter, its gradient and its states behind the common inputs. */
static ftr_status ftr__check_optimizer(ftr__infer *s, int32_t states) {
    const int32_t first = FTR_UPDATE_FIRST_GROUP, stride = 2 + states;
    const int32_t row = s->node->attr.optimizer.row_axis, column = s->node->attr.optimizer.column_axis;
    const bool factored = s->node->op == FTR_OP_adafactor_update && row != column;
    if (s->in_count <= first || (s->in_count - first) % stride != 0)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "%d inputs, expected %d and %d a parameter",
                                (int)s->in_count, (int)first, (int)stride);
    ftr_status status = ftr__check_update_scalar(s, 0, "lr", true);
    if (status == FTR_OK) status = ftr__check_update_scalar(s, 1, "step", false);
    if (status == FTR_OK) status = ftr__check_update_scalar(s, 2, "grad_scale", true);
    if (status == FTR_OK) status = ftr__check_update_scalar(s, 3, "found_inf", true);
    for (int32_t i = first; i < s->in_count && status == FTR_OK; i++) {
        const int32_t kind = (i - first) % stride;
        if (kind == 0 && factored) status = ftr__check_factored(s, ftr__update_input(s, i));
        const int32_t summed = !factored || kind < 2 ? -1 : kind == 2 ? column : row;
        if (kind != 0) status = ftr__check_update_group(s, i, kind, summed);
    }
    return status;
}

/* Without momentum there is no state. */
ftr_status ftr__infer_sgd_update(ftr__infer *s) {
    return ftr__check_optimizer(s, s->node->attr.optimizer.momentum != 0.0 ? 1 : 0);
}

ftr_status ftr__infer_lars_update(ftr__infer *s) { return ftr__infer_sgd_update(s); }

ftr_status ftr__infer_adamw_update(ftr__infer *s) {
    return ftr__check_optimizer(s, s->node->attr.optimizer.amsgrad ? 3 : 2);
}

ftr_status ftr__infer_adam_update(ftr__infer *s) { return ftr__infer_adamw_update(s); }

ftr_status ftr__infer_rmsprop_update(ftr__infer *s) {
    return ftr__check_optimizer(s, 1 + (s->node->attr.optimizer.centered ? 1 : 0) +
                                       (s->node->attr.optimizer.momentum != 0.0 ? 1 : 0));
}

ftr_status ftr__infer_adagrad_update(ftr__infer *s) { return ftr__check_optimizer(s, 1); }

ftr_status ftr__infer_lamb_update(ftr__infer *s) { return ftr__check_optimizer(s, 2); }

ftr_status ftr__infer_lion_update(ftr__infer *s) { return ftr__check_optimizer(s, 1); }

ftr_status ftr__infer_adafactor_update(ftr__infer *s) {
    return ftr__check_optimizer(s, s->node->attr.optimizer.row_axis != s->node->attr.optimizer.column_axis ? 2 : 1);
}

ftr_status ftr__infer_muon_update(ftr__infer *s) {
    ftr_status status = ftr__check_optimizer(s, 1);
    for (int32_t i = FTR_UPDATE_FIRST_GROUP; i < s->in_count && status == FTR_OK; i += 3)
        if (ftr__update_input(s, i)->shape.rank < 2)
            status = ftr__infer_error(s, FTR_ERROR_RANK, "parameter has rank %d, expected a matrix",
                                      (int)ftr__update_input(s, i)->shape.rank);
    return status;
}

ftr_status ftr__infer_clip_scale(ftr__infer *s) {
    ftr_status status = ftr__check_update_scalar(s, 0, "grad_scale", true);
    const ftr__value *first = ftr__update_input(s, 1);
    for (int32_t i = 1; i < s->in_count && status == FTR_OK; i++) {
        const ftr__value *value = ftr__update_input(s, i);
        if (!value)
            status = ftr__infer_error(s, FTR_ERROR_INVALID_TENSOR, "input %d is missing", (int)i);
        else if (!ftr__is_wide(value->dtype))
            status = ftr__infer_error(s, FTR_ERROR_DTYPE, "input %d is %s, expected f32 or f64", (int)i,
                                      ftr_dtype_name(value->dtype));
    }
    if (status == FTR_OK && !first) status = ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "there are no gradients");
    const ftr_shape scalar = ftr_scalar_shape();
    return status != FTR_OK ? status : ftr__set_output(s, 0, first->dtype, &scalar);
}
