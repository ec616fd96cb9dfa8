/* Updates: they have no outputs; inference checks that states and values agree. */
#include "ops/registry.h"

#include <stdio.h>

/* Inputs past FTR__INFER_INPUTS are not seen here. */
static bool ftr__update_sees(const ftr__infer *s, int32_t input) {
    return input < s->in_count && input < FTR__INFER_INPUTS && s->in[input] != NULL;
}

static ftr_status ftr__check_update_scalar(ftr__infer *s, int32_t input, const char *what, bool floating) {
    const ftr__value *value = s->in[input];
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

ftr_status ftr__infer_count_update(ftr__infer *s) { return ftr__check_update_scalar(s, 0, "state", false); }

/* lr, step, then groups of `stride` inputs: the parameter, its gradient and its states. */
static ftr_status ftr__check_optimizer(ftr__infer *s, int32_t stride) {
    if ((s->in_count - 2) % stride != 0)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "%d inputs, expected 2 and %d a parameter",
                                (int)s->in_count, (int)stride);
    ftr_status status = ftr__check_update_scalar(s, 0, "lr", true);
    if (status == FTR_OK) status = ftr__check_update_scalar(s, 1, "step", false);
    for (int32_t i = 2; i < s->in_count && status == FTR_OK; i++) {
        int32_t parameter = i - (i - 2) % stride;
        if (i == parameter || !ftr__update_sees(s, i) || !ftr__update_sees(s, parameter)) continue;
        char what[32];
        (void)snprintf(what, sizeof what, "input %d", (int)i);
        status = ftr__check_same_type(s, parameter, i, "parameter", what);
        if (status == FTR_OK) status = ftr__check_same_shape(s, parameter, i, "parameter", what);
    }
    return status;
}

/* Without momentum there is no state. */
ftr_status ftr__infer_sgd_update(ftr__infer *s) {
    return ftr__check_optimizer(s, s->node->attr.optimizer.momentum != 0.0 ? 3 : 2);
}

ftr_status ftr__infer_adamw_update(ftr__infer *s) { return ftr__check_optimizer(s, 4); }
