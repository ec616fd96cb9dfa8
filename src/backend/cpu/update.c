/* Updates: they change states among their inputs in place. An optimizer step is one job over all parameters: their
 * elements are numbered through, and a task is a range of numbers. */
#include "backend/cpu/update.h"

#include <math.h>
#include <string.h>

/* --------------------------------------------------------------------------------------------------- small ones -- */

typedef struct ftr__ema_job {
    const ftr_kernel_call *call;
    double weight;
} ftr__ema_job;

static void ftr__ema_task(void *arg, int64_t task, int32_t worker) {
    const ftr__ema_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const int64_t begin = task * FTR__UPDATE_GRAIN, left = call->in[0].count - begin;
    float *state = (float *)call->in[0].data + begin;
    const float *value = (const float *)call->in[1].data + begin;
    const int64_t n = left < FTR__UPDATE_GRAIN ? left : FTR__UPDATE_GRAIN;
    (void)worker;
    if (job->weight == 1.0)
        memcpy(state, value, (size_t)n * sizeof *state); /* whatever was there */
    else
        ftr__cpu_of(call)->simd->math.blend(n, (float)job->weight, value, state);
}

/* A scalar among the inputs; `missing` if it is not there. */
static float ftr__update_scalar(const ftr_kernel_call *call, int32_t input, float missing) {
    const ftr_view *view = ftr__optional_input(call, input);
    return view ? *(const float *)view->data : missing;
}

ftr_status ftr__cpu_ema_update(const ftr_kernel_call *call) {
    ftr__ema_job job = {call, call->attr->ema.weight};
    if (call->attr->ema.cumulative) job.weight = 1.0 / ((double)call->step + 1.0);
    if (ftr__update_scalar(call, 2, 0.0f) != 0.0f) return FTR_OK; /* the step is left out */
    ftr__pool_run(ftr__cpu_of(call)->pool, (call->in[0].count + FTR__UPDATE_GRAIN - 1) / FTR__UPDATE_GRAIN,
                  ftr__ema_task, &job);
    return FTR_OK;
}

ftr_status ftr__cpu_count_update(const ftr_kernel_call *call) {
    int64_t *state = call->in[0].data;
    if (ftr__update_scalar(call, 1, 0.0f) == 0.0f) *state = (int64_t)((uint64_t)*state + 1u);
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------- common inputs -- */

bool ftr__update_skipped(const ftr_kernel_call *call) { return ftr__update_scalar(call, 3, 0.0f) != 0.0f; }

double ftr__update_lr(const ftr_kernel_call *call) {
    return (double)*(const float *)call->in[0].data * call->attr->optimizer.lr_scale;
}

double ftr__update_number(const ftr_kernel_call *call) { return (double)*(const int64_t *)call->in[1].data + 1.0; }

ftr__update_step ftr__update_step_of(const ftr_kernel_call *call) {
    const double clip = call->attr->optimizer.clip_value;
    return (ftr__update_step){.scale = ftr__update_scalar(call, 2, 1.0f),
                              .clip = clip > 0.0 ? (float)clip : HUGE_VALF,
                              .lr = (float)ftr__update_lr(call),
                              .eps = (float)call->attr->optimizer.eps,
                              .trust = 1.0f};
}

/* The first momentum is the whole gradient. */
void ftr__update_fill_momentum(const ftr_kernel_call *call, ftr__update_step *step) {
    step->weight_decay = (float)call->attr->optimizer.weight_decay;
    step->momentum = (float)call->attr->optimizer.momentum;
    step->fall = (float)(1.0 - call->attr->optimizer.momentum);
    step->gradient = (float)(1.0 - call->attr->optimizer.dampening);
    step->nesterov = call->attr->optimizer.nesterov;
    step->first = ftr__update_number(call) == 1.0;
}

void ftr__update_fill_moments(const ftr_kernel_call *call, ftr__update_step *step) {
    const double beta1 = call->attr->optimizer.beta1, beta2 = call->attr->optimizer.beta2;
    const double t = ftr__update_number(call);
    step->fresh1 = (float)(1.0 - beta1);
    step->fresh2 = (float)(1.0 - beta2);
    step->debias1 = (float)(1.0 / (1.0 - pow(beta1, t)));
    step->debias2 = (float)(1.0 / sqrt(1.0 - pow(beta2, t)));
}

/* ----------------------------------------------------------------------------------------------------- one pass -- */

typedef struct ftr__update_job {
    const ftr_kernel_call *call;
    const ftr__update_step *step;
    ftr__update_kind kind;
    int32_t group;
} ftr__update_job;

ftr__update_run ftr__update_run_of(const ftr__update_chunk *chunk, int32_t states) {
    ftr__update_run run = {.n = chunk->n,
                           .p = (float *)chunk->in[0].data + chunk->begin,
                           .g = (const float *)chunk->in[1].data + chunk->begin};
    for (int32_t k = 0; k < states; k++) run.s[k] = (float *)chunk->in[2 + k].data + chunk->begin;
    return run;
}

/* Elements of a state that are widened at a time: they stay in the first cache. */
#define FTR__UPDATE_PART 1024

void ftr__update_parts(const ftr__simd *simd, const ftr__update_chunk *chunk, int32_t states, bool keep,
                       ftr__update_part_fn fn, void *arg) {
    if (states == 0 || chunk->in[2].dtype != FTR_BF16) {
        const ftr__update_run run = ftr__update_run_of(chunk, states);
        fn(arg, &run);
        return;
    }
    float wide[3][FTR__UPDATE_PART];
    const int32_t bf16 = ftr__half_index(FTR_BF16);
    for (int64_t at = chunk->begin, end = chunk->begin + chunk->n; at < end; at += FTR__UPDATE_PART) {
        const int64_t n = end - at < FTR__UPDATE_PART ? end - at : FTR__UPDATE_PART;
        const ftr__update_chunk part = {.in = chunk->in, .begin = at, .n = n};
        ftr__update_run run = ftr__update_run_of(&part, 0);
        for (int32_t k = 0; k < states; k++) {
            run.s[k] = wide[k];
            simd->math.widen[bf16](n, (const uint16_t *)chunk->in[2 + k].data + at, wide[k]);
        }
        fn(arg, &run);
        for (int32_t k = 0; k < states && keep; k++)
            simd->math.narrow[bf16](n, wide[k], (uint16_t *)chunk->in[2 + k].data + at);
    }
}

static void ftr__update_part(void *arg, const ftr__update_run *run) {
    const ftr__update_job *job = arg;
    ftr__cpu_of(job->call)->simd->update.row[job->kind](job->step, run);
}

static void ftr__update_task(void *arg, int64_t task, int32_t worker) {
    const ftr__update_job *job = arg;
    int64_t begin = task * FTR__UPDATE_GRAIN, left = FTR__UPDATE_GRAIN;
    (void)worker;
    for (int32_t i = FTR_UPDATE_FIRST_GROUP; i + job->group <= job->call->in_count && left > 0; i += job->group) {
        const ftr_view *in = &job->call->in[i];
        if (begin >= in->count) {
            begin -= in->count;
            continue;
        }
        const int64_t n = in->count - begin < left ? in->count - begin : left;
        const ftr__update_chunk chunk = {.in = in, .begin = begin, .n = n};
        ftr__update_parts(ftr__cpu_of(job->call)->simd, &chunk, job->group - 2, true, ftr__update_part, arg);
        left -= n;
        begin = 0;
    }
}

void ftr__update_rows(const ftr_kernel_call *call, ftr__update_kind kind, int32_t group, const ftr__update_step *step) {
    ftr__update_job job = {.call = call, .step = step, .kind = kind, .group = group};
    int64_t count = 0;
    for (int32_t i = FTR_UPDATE_FIRST_GROUP; i + group <= call->in_count; i += group) count += call->in[i].count;
    ftr__pool_run(ftr__cpu_of(call)->pool, (count + FTR__UPDATE_GRAIN - 1) / FTR__UPDATE_GRAIN, ftr__update_task, &job);
}

ftr_status ftr__cpu_sgd_update(const ftr_kernel_call *call) {
    if (ftr__update_skipped(call)) return FTR_OK;
    const bool momentum = call->attr->optimizer.momentum != 0.0;
    ftr__update_step step = ftr__update_step_of(call);
    ftr__update_fill_momentum(call, &step);
    ftr__update_rows(call, momentum ? FTR__UPDATE_SGD_MOMENTUM : FTR__UPDATE_SGD, momentum ? 3 : 2, &step);
    return FTR_OK;
}

/* Adam adds the weight decay to the gradient, AdamW takes it off the parameter. */
ftr_status ftr__cpu_adam_update(const ftr_kernel_call *call) {
    if (ftr__update_skipped(call)) return FTR_OK;
    const bool largest = call->attr->optimizer.amsgrad;
    const double lr = ftr__update_lr(call), decay = call->attr->optimizer.weight_decay;
    ftr__update_step step = ftr__update_step_of(call);
    ftr__update_fill_moments(call, &step);
    step.lr = (float)(lr / (1.0 - pow(call->attr->optimizer.beta1, ftr__update_number(call))));
    if (call->op == FTR_OP_adamw_update)
        step.decay = (float)(lr * decay);
    else
        step.weight_decay = (float)decay;
    ftr__update_rows(call, largest ? FTR__UPDATE_ADAM_MAX : FTR__UPDATE_ADAM, largest ? 5 : 4, &step);
    return FTR_OK;
}

ftr_status ftr__cpu_rmsprop_update(const ftr_kernel_call *call) {
    if (ftr__update_skipped(call)) return FTR_OK;
    const bool centered = call->attr->optimizer.centered, momentum = call->attr->optimizer.momentum != 0.0;
    const ftr__update_kind kinds[] = {FTR__UPDATE_RMSPROP, FTR__UPDATE_RMSPROP_MOMENTUM, FTR__UPDATE_RMSPROP_CENTERED,
                                      FTR__UPDATE_RMSPROP_CENTERED_MOMENTUM};
    ftr__update_step step = ftr__update_step_of(call);
    step.weight_decay = (float)call->attr->optimizer.weight_decay;
    step.fall = (float)(1.0 - call->attr->optimizer.momentum);
    step.fresh2 = (float)(1.0 - call->attr->optimizer.alpha);
    ftr__update_rows(call, kinds[(centered ? 2 : 0) + (momentum ? 1 : 0)], 3 + (centered ? 1 : 0) + (momentum ? 1 : 0),
                     &step);
    return FTR_OK;
}

ftr_status ftr__cpu_adagrad_update(const ftr_kernel_call *call) {
    if (ftr__update_skipped(call)) return FTR_OK;
    const double t = ftr__update_number(call);
    ftr__update_step step = ftr__update_step_of(call);
    step.lr = (float)(ftr__update_lr(call) / (1.0 + (t - 1.0) * call->attr->optimizer.lr_decay));
    step.weight_decay = (float)call->attr->optimizer.weight_decay;
    step.initial = (float)call->attr->optimizer.initial_accumulator;
    step.first = t == 1.0;
    ftr__update_rows(call, FTR__UPDATE_ADAGRAD, 3, &step);
    return FTR_OK;
}

ftr_status ftr__cpu_lion_update(const ftr_kernel_call *call) {
    if (ftr__update_skipped(call)) return FTR_OK;
    ftr__update_step step = ftr__update_step_of(call);
    step.decay = (float)(ftr__update_lr(call) * call->attr->optimizer.weight_decay);
    step.fresh1 = (float)(1.0 - call->attr->optimizer.beta1);
    step.fresh2 = (float)(1.0 - call->attr->optimizer.beta2);
    ftr__update_rows(call, FTR__UPDATE_LION, 3, &step);
    return FTR_OK;
}
