/* Steps that need a norm of each parameter, or of all gradients: LAMB, LARS, and the limit of a norm. */
#include "backend/cpu/update.h"

#include <math.h>

/* ------------------------------------------------------------------------------------------------------- chunks -- */

static int32_t ftr__update_parameters(const ftr_kernel_call *call, int32_t first_in, int32_t group) {
    return call->in_count > first_in ? (call->in_count - first_in) / group : 0;
}

static int64_t ftr__update_chunks_of(int64_t count) { return (count + FTR__UPDATE_GRAIN - 1) / FTR__UPDATE_GRAIN; }

static int64_t ftr__update_chunk_count(const ftr_kernel_call *call, int32_t first_in, int32_t group) {
    int64_t chunks = 0;
    for (int32_t i = first_in; i + group <= call->in_count; i += group)
        chunks += ftr__update_chunks_of(call->in[i].count);
    return chunks;
}

size_t ftr__update_chunks_bytes(const ftr_kernel_call *call, int32_t first_in, int32_t group) {
    const size_t count = (size_t)ftr__update_parameters(call, first_in, group);
    const size_t chunks = (size_t)ftr__update_chunk_count(call, first_in, group);
    return ftr__update_align((count + 1) * sizeof(int64_t)) + ftr__update_align(2 * (chunks + count) * sizeof(double));
}

unsigned char *ftr__update_chunks_open(ftr__update_chunks *chunks, const ftr_kernel_call *call, int32_t first_in,
                                       int32_t group, unsigned char *workspace) {
    const int32_t count = ftr__update_parameters(call, first_in, group);
    *chunks = (ftr__update_chunks){.call = call, .first_in = first_in, .group = group, .count = count};
    chunks->first = (int64_t *)(void *)workspace;
    chunks->totals = (double *)(void *)(workspace + ftr__update_align(((size_t)count + 1) * sizeof(int64_t)));
    chunks->sums = chunks->totals + 2 * (int64_t)count;
    chunks->first[0] = 0;
    for (int32_t j = 0; j < count; j++)
        chunks->first[j + 1] = chunks->first[j] + ftr__update_chunks_of(call->in[first_in + j * group].count);
    return workspace + ftr__update_chunks_bytes(call, first_in, group);
}

int32_t ftr__update_find(const int64_t *first, int32_t count, int64_t number) {
    int32_t low = 0, high = count;
    while (high - low > 1) {
        const int32_t middle = low + (high - low) / 2;
        if (first[middle] <= number)
            low = middle;
        else
            high = middle;
    }
    return low;
}

ftr__update_chunk ftr__update_chunk_at(const ftr__update_chunks *chunks, int64_t task) {
    const int32_t parameter = ftr__update_find(chunks->first, chunks->count, task);
    const ftr_view *in = &chunks->call->in[chunks->first_in + parameter * chunks->group];
    const int64_t begin = (task - chunks->first[parameter]) * FTR__UPDATE_GRAIN, left = in->count - begin;
    return (ftr__update_chunk){parameter, in, begin, left < FTR__UPDATE_GRAIN ? left : FTR__UPDATE_GRAIN};
}

void ftr__update_chunks_sum(const ftr__update_chunks *chunks, ftr__task_fn fn, void *arg) {
    ftr__pool_run(ftr__cpu_of(chunks->call)->pool, chunks->first[chunks->count], fn, arg);
    for (int32_t j = 0; j < chunks->count; j++) {
        double a = 0.0, b = 0.0;
        for (int64_t c = chunks->first[j]; c < chunks->first[j + 1]; c++) {
            a += chunks->sums[2 * c];
            b += chunks->sums[2 * c + 1];
        }
        chunks->totals[2 * j] = a;
        chunks->totals[2 * j + 1] = b;
    }
}

/* ------------------------------------------------------------------------------------------------ LAMB and LARS -- */

typedef struct ftr__trust_job {
    ftr__update_chunks chunks;
    ftr__update_step step;
    ftr__update_kind kind;
    double lr;
    bool lamb;
} ftr__trust_job;

size_t ftr__cpu_lamb_update_workspace(const ftr_kernel_call *call) {
    return ftr__update_chunks_bytes(call, FTR_UPDATE_FIRST_GROUP, 4);
}

size_t ftr__cpu_lars_update_workspace(const ftr_kernel_call *call) {
    return ftr__update_chunks_bytes(call, FTR_UPDATE_FIRST_GROUP, call->attr->optimizer.momentum != 0.0 ? 3 : 2);
}

/* A part of a chunk of the first or the second pass. */
typedef struct ftr__trust_part {
    const ftr__trust_job *job;
    ftr__update_step step;
    double sums[2]; /* of all parts so far */
    bool bf16;      /* the states are */
} ftr__trust_part;

static const ftr__simd *ftr__trust_simd(const ftr__trust_job *job) { return ftr__cpu_of(job->chunks.call)->simd; }

static bool ftr__trust_is_bf16(const ftr__update_chunk *chunk, int32_t states) {
    return states > 0 && chunk->in[2].dtype == FTR_BF16;
}

static void ftr__lamb_part(void *arg, const ftr__update_run *run) {
    ftr__trust_part *part = arg;
    double sums[2];
    ftr__trust_simd(part->job)->update.lamb_moments(&part->step, run, sums);
    part->sums[0] += sums[0];
    part->sums[1] += sums[1];
}

/* Moments in bf16 are left as they are until the second pass, which computes the new ones again: between the passes
 * they would have to be kept in f32. */
static void ftr__lamb_task(void *arg, int64_t task, int32_t worker) {
    const ftr__trust_job *job = arg;
    const ftr__update_chunk chunk = ftr__update_chunk_at(&job->chunks, task);
    ftr__trust_part part = {.job = job, .step = job->step};
    (void)worker;
    ftr__update_parts(ftr__trust_simd(job), &chunk, 2, false, ftr__lamb_part, &part);
    job->chunks.sums[2 * task] = part.sums[0];
    job->chunks.sums[2 * task + 1] = part.sums[1];
}

static void ftr__lars_task(void *arg, int64_t task, int32_t worker) {
    const ftr__trust_job *job = arg;
    const ftr__simd *simd = ftr__cpu_of(job->chunks.call)->simd;
    const ftr__update_chunk chunk = ftr__update_chunk_at(&job->chunks, task);
    const ftr__update_run run = ftr__update_run_of(&chunk, 0);
    (void)worker;
    job->chunks.sums[2 * task] = simd->math.dot(run.n, run.p, run.p);
    job->chunks.sums[2 * task + 1] = simd->update.squares(&job->step, run.n, run.g);
}

static void ftr__trust_apply_part(void *arg, const ftr__update_run *run) {
    ftr__trust_part *part = arg;
    if (part->job->lamb && part->bf16) ftr__lamb_part(arg, run);
    ftr__trust_simd(part->job)->update.row[part->job->kind](&part->step, run);
}

/* The second pass: totals[2 * j] holds parameter j's factor, of lr for LAMB, of the gradient for LARS. */
static void ftr__trust_task(void *arg, int64_t task, int32_t worker) {
    const ftr__trust_job *job = arg;
    const ftr__update_chunk chunk = ftr__update_chunk_at(&job->chunks, task);
    const int32_t states = job->chunks.group - 2;
    const double trust = job->chunks.totals[2 * chunk.parameter];
    ftr__trust_part part = {.job = job, .step = job->step, .bf16 = ftr__trust_is_bf16(&chunk, states)};
    (void)worker;
    if (job->lamb)
        part.step.lr = (float)(job->lr * trust);
    else
        part.step.trust = (float)trust;
    ftr__update_parts(ftr__trust_simd(job), &chunk, states, true, ftr__trust_apply_part, &part);
}

static void ftr__trust_apply(ftr__trust_job *job) {
    ftr__pool_run(ftr__cpu_of(job->chunks.call)->pool, job->chunks.first[job->chunks.count], ftr__trust_task, job);
}

ftr_status ftr__cpu_lamb_update(const ftr_kernel_call *call) {
    if (ftr__update_skipped(call)) return FTR_OK;
    ftr__trust_job job = {.lamb = true, .kind = FTR__UPDATE_LAMB, .lr = ftr__update_lr(call)};
    job.step = ftr__update_step_of(call);
    job.step.weight_decay = (float)call->attr->optimizer.weight_decay;
    ftr__update_fill_moments(call, &job.step);
    ftr__update_chunks_open(&job.chunks, call, FTR_UPDATE_FIRST_GROUP, 4, call->workspace);
    ftr__update_chunks_sum(&job.chunks, ftr__lamb_task, &job);
    for (int32_t j = 0; j < job.chunks.count; j++) {
        const double p = sqrt(job.chunks.totals[2 * j]), u = sqrt(job.chunks.totals[2 * j + 1]);
        double trust = call->attr->optimizer.adapt && p > 0.0 && u > 0.0 ? p / u : 1.0;
        if (call->attr->optimizer.trust_clip && trust > 1.0) trust = 1.0;
        job.chunks.totals[2 * j] = trust;
    }
    ftr__trust_apply(&job);
    return FTR_OK;
}

static double ftr__lars_trust(const ftr_kernel_call *call, double lr, double p, double g) {
    const double coefficient = call->attr->optimizer.trust_coefficient;
    const double below = g + p * call->attr->optimizer.weight_decay + call->attr->optimizer.eps;
    if (!call->attr->optimizer.adapt) return 1.0;
    const double trust = p > 0.0 && g > 0.0 ? coefficient * p / below : 1.0;
    return call->attr->optimizer.trust_clip ? fmin(trust / lr, 1.0) : trust;
}

ftr_status ftr__cpu_lars_update(const ftr_kernel_call *call) {
    if (ftr__update_skipped(call)) return FTR_OK;
    const bool momentum = call->attr->optimizer.momentum != 0.0;
    ftr__trust_job job = {.kind = momentum ? FTR__UPDATE_SGD_MOMENTUM : FTR__UPDATE_SGD, .lr = ftr__update_lr(call)};
    job.step = ftr__update_step_of(call);
    ftr__update_fill_momentum(call, &job.step);
    ftr__update_chunks_open(&job.chunks, call, FTR_UPDATE_FIRST_GROUP, momentum ? 3 : 2, call->workspace);
    ftr__update_chunks_sum(&job.chunks, ftr__lars_task, &job);
    for (int32_t j = 0; j < job.chunks.count; j++)
        job.chunks.totals[2 * j] =
            ftr__lars_trust(call, job.lr, sqrt(job.chunks.totals[2 * j]), sqrt(job.chunks.totals[2 * j + 1]));
    ftr__trust_apply(&job);
    return FTR_OK;
}

/* ----------------------------------------------------------------------------------------------- limit of a norm -- */

size_t ftr__cpu_clip_scale_workspace(const ftr_kernel_call *call) { return ftr__update_chunks_bytes(call, 1, 1); }

static void ftr__clip_scale_task(void *arg, int64_t task, int32_t worker) {
    const ftr__update_chunks *chunks = arg;
    const ftr__update_chunk chunk = ftr__update_chunk_at(chunks, task);
    const float *g = (const float *)chunk.in[0].data + chunk.begin;
    (void)worker;
    chunks->sums[2 * task] = ftr__cpu_of(chunks->call)->simd->math.dot(chunk.n, g, g);
    chunks->sums[2 * task + 1] = 0.0;
}

ftr_status ftr__cpu_clip_scale(const ftr_kernel_call *call) {
    const ftr_view *given = ftr__optional_input(call, 0);
    const double scale = given ? (double)*(const float *)given->data : 1.0;
    const double most = call->attr->clip_scale.max_norm;
    ftr__update_chunks chunks;
    ftr__update_chunks_open(&chunks, call, 1, 1, call->workspace);
    ftr__update_chunks_sum(&chunks, ftr__clip_scale_task, &chunks);
    double squares = 0.0;
    for (int32_t j = 0; j < chunks.count; j++) squares += chunks.totals[2 * j];
    const double norm = sqrt(squares) * fabs(scale) + call->attr->clip_scale.eps;
    *(float *)call->out[0].data = (float)(norm <= most ? scale : scale * (most / norm)); /* NaN stays NaN */
    return FTR_OK;
}
