/* Loss scaling and the norm of all gradients. */
#include "ops/registry.h"

/* Input `input` is a scalar of a type. */
static ftr_status ftr__check_scaling_scalar(ftr__infer *s, int32_t input, const char *what, ftr_dtype dtype) {
    const ftr__value *value = s->in[input];
    if (value->dtype != dtype)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s is %s, expected %s", what, ftr_dtype_name(value->dtype),
                                ftr_dtype_name(dtype));
    if (value->shape.rank == 0) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_RANK, "%s has rank %d, expected a scalar", what, (int)value->shape.rank);
}

/* Any number of gradients, so they are looked up in the graph. */
ftr_status ftr__infer_grad_norm(ftr__infer *s) {
    const ftr_shape scalar = ftr_scalar_shape();
    ftr_status status = FTR_OK;
    if (s->in_count < 2)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT,
                                "%d inputs, expected the loss scale and 1 gradient or more", (int)s->in_count);
    if (s->in[0] != NULL) status = ftr__check_scaling_scalar(s, 0, "loss scale", FTR_F32);
    for (int32_t i = 1; i < s->in_count && status == FTR_OK; i++) {
        const int32_t id = s->node->in[i];
        if (id == 0) return ftr__infer_error(s, FTR_ERROR_INVALID_TENSOR, "input %d is a null tensor", (int)i);
        if (!ftr__is_wide(s->graph->values[id].dtype))
            status = ftr__infer_error(s, FTR_ERROR_DTYPE, "gradient %d is %s, expected f32 or f64", (int)i - 1,
                                      ftr_dtype_name(s->graph->values[id].dtype));
    }
    for (int32_t i = 0; i < 4 && status == FTR_OK; i++) status = ftr__set_output(s, i, FTR_F32, &scalar);
    return status;
}

ftr_status ftr__infer_scale_update(ftr__infer *s) {
    ftr_status status = ftr__check_scaling_scalar(s, 0, "loss scale", FTR_F32);
    if (status == FTR_OK) status = ftr__check_scaling_scalar(s, 1, "steps", FTR_I64);
    return status != FTR_OK ? status : ftr__check_scaling_scalar(s, 2, "found_inf", FTR_F32);
}
