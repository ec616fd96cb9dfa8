/* Sums of gradients, averages of weights, and their exchange: pairs of tensors of one shape. The elements of all pairs are
 * numbered through, and a task is a range of numbers. */
#include "backend/cpu/update.h"

#include <math.h>
#include <string.h>

#define FTR__SWAP_PART 1024 /* elements that are copied at a time */

typedef struct ftr__pairs_job ftr__pairs_job;
struct ftr__pairs_job {
    const ftr_kernel_call *call;
    int32_t first; /* input of the first pair */
    float weight;
    void (*run)(const ftr__pairs_job *job, int64_t n, float *state, float *value);
};

static void ftr__pairs_task(void *arg, int64_t task, int32_t worker) {
    const ftr__pairs_job *job = arg;
    int64_t begin = task * FTR__UPDATE_GRAIN, left = FTR__UPDATE_GRAIN;
    (void)worker;
    for (int32_t i = job->first; i + 2 <= job->call->in_count && left > 0; i += 2) {
        const ftr_view *in = &job->call->in[i];
        if (begin >= in->count) {
            begin -= in->count;
            continue;
        }
        const int64_t n = in->count - begin < left ? in->count - begin : left;
        job->run(job, n, (float *)in[0].data + begin, (float *)in[1].data + begin);
        left -= n;
        begin = 0;
    }
}

static void ftr__pairs_run(ftr__pairs_job *job) {
    int64_t count = 0;
    for (int32_t i = job->first; i + 2 <= job->call->in_count; i += 2) count += job->call->in[i].count;
    ftr__pool_run(ftr__cpu_of(job->call)->pool, (count + FTR__UPDATE_GRAIN - 1) / FTR__UPDATE_GRAIN, ftr__pairs_task,
                  job);
}

static void ftr__pair_copy(const ftr__pairs_job *job, int64_t n, float *state, float *value) {
    (void)job;
    memcpy(state, value, (size_t)n * sizeof *state);
}

static void ftr__pair_add(const ftr__pairs_job *job, int64_t n, float *state, float *value) {
    ftr__cpu_of(job->call)->simd->math.binary[FTR__BINARY_ADD][FTR__OPERANDS_ROWS](n, state, value, state);
}

static void ftr__pair_blend(const ftr__pairs_job *job, int64_t n, float *state, float *value) {
    ftr__cpu_of(job->call)->simd->math.blend(n, job->weight, value, state);
}

static void ftr__pair_swap(const ftr__pairs_job *job, int64_t n, float *state, float *value) {
    float part[FTR__SWAP_PART];
    (void)job;
    for (int64_t done = 0; done < n; done += FTR__SWAP_PART) {
        const size_t bytes = (size_t)(n - done < FTR__SWAP_PART ? n - done : FTR__SWAP_PART) * sizeof *part;
        memcpy(part, state + done, bytes);
        memcpy(state + done, value + done, bytes);
        memcpy(value + done, part, bytes);
    }
}

ftr_status ftr__cpu_accumulate_update(const ftr_kernel_call *call) {
    const bool first = call->step % (uint64_t)call->attr->accumulate.steps == 0;
    ftr__pairs_job job = {.call = call, .run = first ? ftr__pair_copy : ftr__pair_add};
    ftr__pairs_run(&job);
    return FTR_OK;
}

static bool ftr__average_is_due(const ftr_kernel_call *call) {
    const ftr_view *found_inf = ftr__optional_input(call, 2);
    const int64_t applied = *(const int64_t *)call->in[1].data, after = applied - call->attr->average.start;
    if (found_inf && *(const float *)found_inf->data != 0.0f) return false;
    return applied > 0 && after >= 0 && after % call->attr->average.every == 0;
}

/* The weight of the new value; `taken` are the averages before. */
static double ftr__average_weight(const ftr_op_attr *attr, int64_t taken) {
    const double n = (double)taken;
    if (attr->average.copy || taken <= 0) return 1.0;
    if (attr->average.equal) return 1.0 / (n + 1.0);
    if (!(attr->average.warmup_gamma > 0.0)) return 1.0 - attr->average.decay;
    double decay = 1.0 - pow(1.0 + n / attr->average.warmup_gamma, -attr->average.warmup_power);
    if (decay > attr->average.decay) decay = attr->average.decay;
    return 1.0 - (decay < attr->average.min_decay ? attr->average.min_decay : decay);
}

ftr_status ftr__cpu_average_update(const ftr_kernel_call *call) {
    int64_t *taken = call->in[0].data;
    if (!ftr__average_is_due(call)) return FTR_OK;
    const double weight = ftr__average_weight(call->attr, *taken);
    ftr__pairs_job job = {.call = call,
                          .first = FTR_AVERAGE_FIRST_PAIR,
                          .weight = (float)weight,
                          .run = weight == 1.0 ? ftr__pair_copy : ftr__pair_blend};
    ftr__pairs_run(&job);
    if (!call->attr->average.copy) *taken = (int64_t)((uint64_t)*taken + 1u);
    return FTR_OK;
}

ftr_status ftr__cpu_swap_update(const ftr_kernel_call *call) {
    ftr__pairs_job job = {.call = call, .run = ftr__pair_swap};
    ftr__pairs_run(&job);
    return FTR_OK;
}
