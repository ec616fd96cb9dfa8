/* Updates: they change states among their inputs in place. An optimizer step is one job over all parameters: their
 * elements are numbered through, and a task is a range of numbers. */
#include "backend/cpu/cpu.h"

#include <math.h>

#define FTR__UPDATE_GRAIN 16384 /* elements of a task */

typedef struct ftr__update_job {
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    int32_t first_in, group; /* inputs from first_in on come in groups, one a parameter */
    int64_t count;           /* elements of all parameters */
    ftr__sgd_step sgd;
    ftr__adamw_step adamw;
} ftr__update_job;

/* Elements `begin` to `begin + n` of the parameter whose group of inputs starts at `in`. */
static void ftr__update_part(const ftr__update_job *job, const ftr_view *in, int64_t begin, int64_t n) {
    float *p = (float *)in[0].data + begin;
    const float *g = (const float *)in[1].data + begin;
    switch (job->call->op) {
    case FTR_OP_ema_update: job->math->blend(n, (float)job->call->attr->ema.weight, g, p); break;
    case FTR_OP_sgd_update:
        if (job->group == 3)
            job->math->sgd_momentum(n, &job->sgd, p, g, (float *)in[2].data + begin);
        else
            job->math->sgd(n, &job->sgd, p, g);
        break;
    default: job->math->adamw(n, &job->adamw, p, g, (float *)in[2].data + begin, (float *)in[3].data + begin); break;
    }
}

static void ftr__update_task(void *arg, int64_t task, int32_t worker) {
    const ftr__update_job *job = arg;
    int64_t begin = task * FTR__UPDATE_GRAIN, left = FTR__UPDATE_GRAIN;
    (void)worker;
    for (int32_t i = job->first_in; i + job->group <= job->call->in_count && left > 0; i += job->group) {
        const ftr_view *in = &job->call->in[i];
        if (begin < in->count) {
            const int64_t n = in->count - begin < left ? in->count - begin : left;
            ftr__update_part(job, in, begin, n);
            left -= n;
            begin = 0;
        } else {
            begin -= in->count;
        }
    }
}

static ftr_status ftr__update_run(const ftr_kernel_call *call, ftr__update_job *job, int32_t first_in, int32_t group) {
    job->call = call;
    job->math = &ftr__cpu_of(call)->simd->math;
    job->first_in = first_in;
    job->group = group;
    for (int32_t i = first_in; i + group <= call->in_count; i += group) job->count += call->in[i].count;
    ftr__pool_run(ftr__cpu_of(call)->pool, (job->count + FTR__UPDATE_GRAIN - 1) / FTR__UPDATE_GRAIN, ftr__update_task,
                  job);
    return FTR_OK;
}

ftr_status ftr__cpu_ema_update(const ftr_kernel_call *call) {
    ftr__update_job job = {.count = 0};
    return ftr__update_run(call, &job, 0, 2);
}

/* A scalar among an optimizer's common inputs; `missing` if it is not there. */
static float ftr__update_scalar(const ftr_kernel_call *call, int32_t input, float missing) {
    const ftr_view *view = ftr__optional_input(call, input);
    return view ? *(const float *)view->data : missing;
}

/* Gradients that hold an infinity or NaN are not applied. */
static bool ftr__update_skipped(const ftr_kernel_call *call, int32_t found_inf) {
    return ftr__update_scalar(call, found_inf, 0.0f) != 0.0f;
}

static ftr__gradient_reading ftr__update_reading(const ftr_kernel_call *call) {
    const double clip = call->attr->optimizer.clip_value;
    return (ftr__gradient_reading){ftr__update_scalar(call, 2, 1.0f), clip > 0.0 ? (float)clip : HUGE_VALF};
}

ftr_status ftr__cpu_count_update(const ftr_kernel_call *call) {
    int64_t *state = call->in[0].data;
    if (!ftr__update_skipped(call, 1)) *state = (int64_t)((uint64_t)*state + 1u);
    return FTR_OK;
}

/* torch.optim.SGD: the first momentum is the whole gradient. */
ftr_status ftr__cpu_sgd_update(const ftr_kernel_call *call) {
    if (ftr__update_skipped(call, 3)) return FTR_OK;
    const float lr = *(const float *)call->in[0].data;
    const bool first = *(const int64_t *)call->in[1].data == 0;
    const double momentum = call->attr->optimizer.momentum;
    ftr__update_job job = {
        .sgd = {.read = ftr__update_reading(call),
                .lr = lr,
                .weight_decay = (float)call->attr->optimizer.weight_decay,
                .momentum = (float)momentum,
                .gradient = (float)(1.0 - call->attr->optimizer.dampening),
                .nesterov = call->attr->optimizer.nesterov,
                .first = first},
    };
    return ftr__update_run(call, &job, FTR_UPDATE_FIRST_GROUP, momentum != 0.0 ? 3 : 2);
}

/* torch.optim.AdamW (Loshchilov, Hutter: Decoupled Weight Decay Regularization, 2019). */
ftr_status ftr__cpu_adamw_update(const ftr_kernel_call *call) {
    if (ftr__update_skipped(call, 3)) return FTR_OK;
    const double lr = (double)*(const float *)call->in[0].data, t = (double)*(const int64_t *)call->in[1].data + 1.0;
    const double beta1 = call->attr->optimizer.beta1, beta2 = call->attr->optimizer.beta2;
    ftr__update_job job = {
        .adamw = {.read = ftr__update_reading(call),
                  .decay = (float)(1.0 - lr * call->attr->optimizer.weight_decay),
                  .beta1 = (float)beta1,
                  .one_minus_beta1 = (float)(1.0 - beta1),
                  .beta2 = (float)beta2,
                  .one_minus_beta2 = (float)(1.0 - beta2),
                  .rate = (float)(lr / (1.0 - pow(beta1, t))),
                  .second = (float)(1.0 / sqrt(1.0 - pow(beta2, t))),
                  .eps = (float)call->attr->optimizer.eps},
    };
    return ftr__update_run(call, &job, FTR_UPDATE_FIRST_GROUP, 4);
}
