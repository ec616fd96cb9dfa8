#include "oracle_tools.h"

/* Inputs: the loss scale (1 if missing), then gradients that are multiples of it and of the divisor; the product of both is
 * called the scale here, but for the last result, the loss scale alone. With g the gradients without the scale, as
 * torch.amp.GradScaler takes it out, and norm the square root of the sum of all g^2: the norm, whether a gradient is not
 * finite, min(1, max_norm / (norm + 1e-6)) / scale (torch.nn.utils.clip_grad_norm_), the scale. */
ftr_status oracle_grad_norm(const ftr_kernel_call *call) {
    const ftr_view *given = optional_input(call, 0);
    double used = given ? get(given, 0) : 1, scale = used * call->attr->grad_norm.divisor,
           max_norm = call->attr->grad_norm.max_norm, sum = 0;
    bool found_inf = false;
    for (int32_t k = 1; k < call->in_count; k++) {
        for (int64_t i = 0; i < call->in[k].count; i++) {
            double g = get(&call->in[k], i);
            found_inf = found_inf || !isfinite(g);
            sum += g / scale * (g / scale);
        }
    }
    double norm = sqrt(sum), clip = max_norm / (norm + 1e-6);
    set(&call->out[0], 0, norm);
    set(&call->out[1], 0, found_inf);
    set(&call->out[2], 0, (max_norm > 0 && !(clip > 1) ? clip : 1) / scale);
    set(&call->out[3], 0, used);
    return FTR_OK;
}

/* torch.amp.GradScaler.update(). Inputs: the scale, steps since it changed, found_inf. A scale that would overflow stays. */
ftr_status oracle_scale_update(const ftr_kernel_call *call) {
    const ftr_view *scale = &call->in[0], *steps = &call->in[1];
    if (get(&call->in[2], 0) != 0) {
        set(scale, 0, get(scale, 0) * call->attr->scale_update.backoff);
        set_int(steps, 0, 0);
        return FTR_OK;
    }
    set_int(steps, 0, get_int(steps, 0) + 1);
    if (get_int(steps, 0) == call->attr->scale_update.interval) {
        double grown = get(scale, 0) * call->attr->scale_update.growth;
        set(scale, 0, isfinite((float)grown) ? grown : get(scale, 0));
        set_int(steps, 0, 0);
    }
    return FTR_OK;
}
