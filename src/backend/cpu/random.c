/* Dropout and stochastic depth. An element's or a row's fate depends on its index and the stream alone. */
#include "backend/cpu/cpu.h"
#include "core/rng.h"

#include <string.h>

#define FTR__DROPOUT_GRAIN 16384 /* a multiple of 4, the numbers of a Philox block */

typedef struct ftr__dropout_job {
    const ftr__simd_math *math;
    const float *x;
    float *y;
    int64_t count;
    ftr__dropout_stream stream;
} ftr__dropout_job;

static void ftr__dropout_task(void *arg, int64_t task, int32_t worker) {
    const ftr__dropout_job *job = arg;
    const int64_t begin = task * FTR__DROPOUT_GRAIN;
    const int64_t n = job->count - begin < FTR__DROPOUT_GRAIN ? job->count - begin : FTR__DROPOUT_GRAIN;
    (void)worker;
    job->math->dropout(n, &job->stream, (uint64_t)begin / 4, job->x + begin, job->y + begin);
}

ftr_status ftr__cpu_dropout(const ftr_kernel_call *call) {
    const double p = call->attr->dropout.p;
    const ftr__rng rng = ftr__rng_make(call->seed, FTR__RNG_DROPOUT, call->attr->dropout.key, call->step);
    ftr__dropout_job job = {
        .math = &ftr__cpu_of(call)->simd->math,
        .x = call->in[0].data,
        .y = call->out[0].data,
        .count = call->out[0].count,
        .stream = {.key = {rng.key[0], rng.key[1]},
                   .counter = {rng.stream[0], rng.stream[1]},
                   .threshold = ftr__dropout_threshold(p),
                   .scale = p < 1.0 ? (float)(1.0 / (1.0 - p)) : 0.0f},
    };
    ftr__pool_run(ftr__cpu_of(call)->pool, (job.count + FTR__DROPOUT_GRAIN - 1) / FTR__DROPOUT_GRAIN, ftr__dropout_task,
                  &job);
    return FTR_OK;
}

/* ---------------------------------------------------------------------------------------------- stochastic depth -- */

typedef struct ftr__depth_job {
    const ftr__simd_math *math;
    const float *x;
    float *y;
    int64_t count, row; /* elements: all, and of a row */
    ftr__rng rng;
    uint64_t threshold;
    float scale;
} ftr__depth_job;

/* A task is a piece of the elements, of one row or of several. */
static void ftr__depth_task(void *arg, int64_t task, int32_t worker) {
    const ftr__depth_job *job = arg;
    const int64_t begin = task * FTR__DROPOUT_GRAIN;
    const int64_t end = job->count - begin < FTR__DROPOUT_GRAIN ? job->count : begin + FTR__DROPOUT_GRAIN;
    (void)worker;
    for (int64_t at = begin; at < end;) {
        const int64_t row = at / job->row, left = (row + 1) * job->row - at, n = left < end - at ? left : end - at;
        if (ftr__rng_at(&job->rng, (uint64_t)row) < job->threshold)
            memset(job->y + at, 0, (size_t)n * sizeof *job->y);
        else
            job->math->binary[FTR__BINARY_MUL][FTR__OPERANDS_RIGHT_SCALAR](n, job->x + at, &job->scale, job->y + at);
        at += n;
    }
}

ftr_status ftr__cpu_stochastic_depth(const ftr_kernel_call *call) {
    const double p = call->attr->dropout.p;
    const ftr_view *x = &call->in[0];
    if (x->count == 0) return FTR_OK;
    ftr__depth_job job = {
        .math = &ftr__cpu_of(call)->simd->math,
        .x = x->data,
        .y = call->out[0].data,
        .count = x->count,
        .row = x->count / x->shape.dim[0],
        .rng = ftr__rng_make(call->seed, FTR__RNG_DROPOUT, call->attr->dropout.key, call->step),
        .threshold = ftr__dropout_threshold(p),
        .scale = p < 1.0 ? (float)(1.0 / (1.0 - p)) : 0.0f,
    };
    ftr__pool_run(ftr__cpu_of(call)->pool, (job.count + FTR__DROPOUT_GRAIN - 1) / FTR__DROPOUT_GRAIN, ftr__depth_task,
                  &job);
    return FTR_OK;
}
