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
    bool fits = floating ? ftr__is_float(value->dtype) : value->dtype == FTR_I64;
    if (!fits)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s is %s, expected %s", what, ftr_dtype_name(value->dtype),
                                floating ? "f32 or f64" : "i64");
    return ftr_shape_count(&value->shape) == 1
               ? FTR_OK
               : ftr__infer_error(s, FTR_ERROR_RANK, "%s has rank %d, expected a scalar", what, (int)value->shape.rank);
}

ftr_status ftr__infer_ema_update(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "state");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "state", "value");
    return status != FTR_OK ? status : ftr__check_same_shape(s, 0, 1, "state", "value");
}

ftr_status ftr__infer_count_update(ftr__infer *s) {
    ftr_status status = ftr__check_update_scalar(s, 0, "state", false);
    return status != FTR_OK ? status : ftr__check_update_scalar(s, 1, "found_inf", true);
}

/* Input `i` beside the parameter whose group it is in. */
static ftr_status ftr__check_update_group(ftr__infer *s, int32_t parameter, int32_t i) {
    const ftr__value *p = ftr__update_input(s, parameter), *value = ftr__update_input(s, i);
    if (!p || !value)
        return ftr__infer_error(s, FTR_ERROR_INVALID_TENSOR, "input %d is missing", (int)(p ? i : parameter));
    if (p->dtype != value->dtype)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "parameter is %s, input %d is %s: both must have one type",
                                ftr_dtype_name(p->dtype), (int)i, ftr_dtype_name(value->dtype));
    if (ftr_shape_equal(&p->shape, &value->shape)) return FTR_OK;
    char text_p[FTR__SHAPE_TEXT], text[FTR__SHAPE_TEXT];
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "parameter is %s, input %d is %s: both must have one shape",
                            ftr__shape_text(&p->shape, text_p), (int)i, ftr__shape_text(&value->shape, text));
}

/* Groups of `stride` inputs behind the common ones: the parameter, its gradient and its states. */
static ftr_status ftr__check_optimizer(ftr__infer *s, int32_t stride) {
    const int32_t first = FTR_UPDATE_FIRST_GROUP;
    if (s->in_count <= first || (s->in_count - first) % stride != 0)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "%d inputs, expected %d and %d a parameter",
                                (int)s->in_count, (int)first, (int)stride);
    ftr_status status = ftr__check_update_scalar(s, 0, "lr", true);
    if (status == FTR_OK) status = ftr__check_update_scalar(s, 1, "step", false);
    if (status == FTR_OK) status = ftr__check_update_scalar(s, 2, "grad_scale", true);
    if (status == FTR_OK) status = ftr__check_update_scalar(s, 3, "found_inf", true);
    for (int32_t i = first; i < s->in_count && status == FTR_OK; i++) {
        const int32_t parameter = i - (i - first) % stride;
        if (i != parameter) status = ftr__check_update_group(s, parameter, i);
    }
    return status;
}

/* Without momentum there is no state. */
ftr_status ftr__infer_sgd_update(ftr__infer *s) {
    return ftr__check_optimizer(s, s->node->attr.optimizer.momentum != 0.0 ? 3 : 2);
}

ftr_status ftr__infer_adamw_update(ftr__infer *s) { return ftr__check_optimizer(s, 4); }
