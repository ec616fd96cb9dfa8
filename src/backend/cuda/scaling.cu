/* The loss scale. */
#include "backend/cuda/update.cuh"

#include <cfloat>

struct ftr__scaling {
    float *scale;
    int64_t *steps; /* since it changed */
    ftr__update_scalar found_inf;
    double growth, backoff;
    int64_t interval;
};

/* As _amp_update_scale_ of PyTorch; products in double. A scale that would overflow stays. */
FTR__KERNEL ftr__scale_kernel(ftr__scaling p) {
    if (threadIdx.x != 0) return;
    const double scale = *p.scale;
    if (ftr__update_skipped(p.found_inf)) {
        *p.scale = static_cast<float>(scale * p.backoff);
        *p.steps = 0;
        return;
    }
    const int64_t steps = *p.steps + 1, left = p.interval - steps;
    *p.steps = left > 0 ? steps : 0;
    if (left > 0) return;
    const float grown = static_cast<float>(scale * p.growth);
    if (fabsf(grown) <= FLT_MAX) *p.scale = grown;
}

FTR__CUDA_LIB ftr_status ftr__cuda_scale_update(const ftr_kernel_call *call) {
    const ftr__scaling p = {static_cast<float *>(call->in[0].data), static_cast<int64_t *>(call->in[1].data),
                            ftr__update_scalar_of(call, 2),         call->attr->scale_update.growth,
                            call->attr->scale_update.backoff,       call->attr->scale_update.interval};
    return FTR_LAUNCH(call, ftr__scale_kernel, 1u, FTR__CUDA_WARP, p);
}
