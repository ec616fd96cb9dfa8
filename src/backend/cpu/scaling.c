/* The norm of all gradients, and the loss scale. The gradients' elements are numbered through and a task is a range of
 * numbers, so the order of the sum is that of the gradients, whatever the number of threads. */
#include "backend/cpu/cpu.h"

#include <math.h>

#define FTR__GRAD_NORM_GRAIN 16384 /* elements of a task */

typedef struct ftr__grad_norm_job {
    const ftr_kernel_call *call;
    double *sums; /* of a task */
} ftr__grad_norm_job;

static int64_t ftr__grad_norm_tasks(const ftr_kernel_call *call) {
    int64_t count = 0;
    for (int32_t i = 1; i < call->in_count; i++) count += call->in[i].count;
    return (count + FTR__GRAD_NORM_GRAIN - 1) / FTR__GRAD_NORM_GRAIN;
}

static void ftr__grad_norm_task(void *arg, int64_t task, int32_t worker) {
    const ftr__grad_norm_job *job = arg;
    const ftr__simd_math *math = &ftr__cpu_of(job->call)->simd->math;
    int64_t begin = task * FTR__GRAD_NORM_GRAIN, left = FTR__GRAD_NORM_GRAIN;
    double sum = 0.0;
    (void)worker;
    for (int32_t i = 1; i < job->call->in_count && left > 0; i++) {
        const ftr_view *gradient = &job->call->in[i];
        if (begin >= gradient->count) {
            begin -= gradient->count;
            continue;
        }
        const int64_t rest = gradient->count - begin, n = rest < left ? rest : left;
        sum += math->sum_squares(n, (const float *)gradient->data + begin);
        left -= n;
        begin = 0;
    }
    job->sums[task] = sum;
}

size_t ftr__cpu_grad_norm_workspace(const ftr_kernel_call *call) {
    return (size_t)ftr__grad_norm_tasks(call) * sizeof(double);
}

/* Squares of f32 do not overflow in double, nor do their sums: the sum is finite if all gradients are. The order is
 * GradScaler's and then clip_grad_norm_'s (torch.amp, torch.nn.utils): the inverse of the scale is rounded to f32, the norm
 * is that of the gradients without the scale. */
ftr_status ftr__cpu_grad_norm(const ftr_kernel_call *call) {
    ftr__grad_norm_job job = {.call = call, .sums = call->workspace};
    const int64_t tasks = ftr__grad_norm_tasks(call);
    ftr__pool_run(ftr__cpu_of(call)->pool, tasks, ftr__grad_norm_task, &job);
    double sum = 0.0;
    for (int64_t task = 0; task < tasks; task++) sum += job.sums[task];
    const ftr_view *scale = ftr__optional_input(call, 0);
    const float used = scale ? *(const float *)scale->data : 1.0f;
    const float inverse = (float)(1.0 / ((double)used * call->attr->grad_norm.divisor));
    const float norm = (float)(sqrt(sum) * (double)inverse);
    const double max_norm = call->attr->grad_norm.max_norm;
    const float clip = max_norm > 0.0 ? (float)max_norm / (norm + 1e-6f) : 1.0f;
    *(float *)call->out[0].data = norm;
    *(float *)call->out[1].data = isfinite(sum) ? 0.0f : 1.0f;
    *(float *)call->out[2].data = clip > 1.0f ? inverse : clip * inverse; /* NaN stays NaN */
    *(float *)call->out[3].data = used;
    return FTR_OK;
}

/* As _amp_update_scale_ of PyTorch; products in double. */
ftr_status ftr__cpu_scale_update(const ftr_kernel_call *call) {
    float *scale = call->in[0].data;
    int64_t *steps = call->in[1].data;
    if (*(const float *)call->in[2].data != 0.0f) {
        *scale = (float)((double)*scale * call->attr->scale_update.backoff);
        *steps = 0;
        return FTR_OK;
    }
    if (++*steps < call->attr->scale_update.interval) return FTR_OK;
    const float grown = (float)((double)*scale * call->attr->scale_update.growth);
    if (isfinite(grown)) *scale = grown;
    *steps = 0;
    return FTR_OK;
}
