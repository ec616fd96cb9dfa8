/* Adafactor. A factored parameter is seen as [outer, a, b, inner] in memory, a and b being the two axes that its
 * second moment is factored over; a slice is what belongs to one index of outer and a. The passes are: means over b,
 * means over a, sums of squares of p and of the update, then p. */
#include "backend/cpu/update.h"

#include <math.h>
#include <string.h>

#define FTR__FACTORED_STRIP 256 /* columns whose squares are added up at a time */
#define FTR__FACTORED_ROWS 64   /* rows that are added up in single precision */

typedef struct ftr__factored {
    int64_t outer, a, b, inner;
    float *p;
    const float *g;
    float *over_b;                 /* moments summed over b: [outer, a, inner] */
    float *over_a;                 /* moments summed over a: [outer, b, inner] */
    float *scaled;                 /* over_b over the mean along the rows' axis: [outer, a, inner] */
    int64_t slices, slices_a_task; /* of the passes over slices */
    int64_t outers_a_task;         /* of the pass over indices of outer */
    int64_t strips, units_a_task;  /* strips in a matrix; a unit of the pass over columns is a strip */
} ftr__factored;

typedef struct ftr__adafactor_job {
    const ftr_kernel_call *call;
    const ftr__simd *simd;
    ftr__update_step step;
    float fresh;     /* weight of the new squares in the moments: t^beta2_decay */
    bool rows_first; /* the rows' axis is a */
    ftr__update_chunks chunks;
    ftr__factored *parameters;
    int64_t *slice_first, *outer_first, *unit_first; /* number of each parameter's first task; one more */
    double *squares;                                 /* of the update, a task over slices */
    float *rates;                                    /* a parameter */
} ftr__adafactor_job;

static bool ftr__adafactor_factored(const ftr_kernel_call *call) {
    return call->attr->optimizer.row_axis != call->attr->optimizer.column_axis;
}

static int64_t ftr__adafactor_ceil(int64_t a, int64_t b) { return b > 0 ? (a + b - 1) / b : 0; }

static int64_t ftr__at_least_one(int64_t x) { return x > 1 ? x : 1; }

static ftr__factored ftr__factored_of(const ftr_kernel_call *call, const ftr_view *in) {
    const int32_t row = call->attr->optimizer.row_axis, column = call->attr->optimizer.column_axis;
    const int32_t first = row < column ? row : column;
    ftr__factored f = {.outer = 1, .inner = 1};
    for (int32_t d = 0; d < first; d++) f.outer *= in[0].shape.dim[d];
    f.a = in[0].shape.dim[first];
    f.b = in[0].shape.dim[first + 1];
    for (int32_t d = first + 2; d < in[0].shape.rank; d++) f.inner *= in[0].shape.dim[d];
    f.p = in[0].data;
    f.g = in[1].data;
    f.over_b = in[row < column ? 2 : 3].data;
    f.over_a = in[row < column ? 3 : 2].data;
    const int64_t width = f.b * f.inner;
    f.slices = in[0].count > 0 ? f.outer * f.a : 0;
    f.slices_a_task = ftr__at_least_one(FTR__UPDATE_GRAIN / ftr__at_least_one(width));
    f.outers_a_task = ftr__at_least_one(FTR__UPDATE_GRAIN / ftr__at_least_one(f.a * f.inner));
    f.strips = ftr__adafactor_ceil(width, FTR__FACTORED_STRIP);
    f.units_a_task = ftr__at_least_one(FTR__UPDATE_GRAIN / ftr__at_least_one(f.a * FTR__FACTORED_STRIP));
    return f;
}

static int64_t ftr__factored_slice_tasks(const ftr__factored *f) {
    return ftr__adafactor_ceil(f->slices, f->slices_a_task);
}

static int64_t ftr__factored_outer_tasks(const ftr__factored *f) {
    return f->slices > 0 ? ftr__adafactor_ceil(f->outer, f->outers_a_task) : 0;
}

static int64_t ftr__factored_unit_tasks(const ftr__factored *f) {
    return f->slices > 0 ? ftr__adafactor_ceil(f->outer * f->strips, f->units_a_task) : 0;
}

/* -------------------------------------------------------------------------------------------------------- passes -- */

/* Slices of a task: parameter, first slice, the slice behind the last. */
static const ftr__factored *ftr__factored_slices(const ftr__adafactor_job *job, int64_t task, int64_t *begin,
                                                 int64_t *end) {
    const int32_t j = ftr__update_find(job->slice_first, job->chunks.count, task);
    const ftr__factored *f = &job->parameters[j];
    *begin = (task - job->slice_first[j]) * f->slices_a_task;
    *end = *begin + f->slices_a_task < f->slices ? *begin + f->slices_a_task : f->slices;
    return f;
}

/* Means over b; `scaled` serves as scratch. */
static void ftr__factored_over_b_task(void *arg, int64_t task, int32_t worker) {
    const ftr__adafactor_job *job = arg;
    int64_t begin, end;
    const ftr__factored *f = ftr__factored_slices(job, task, &begin, &end);
    (void)worker;
    for (int64_t s = begin; s < end; s++) {
        const float *g = f->g + s * f->b * f->inner;
        float *sum = f->scaled + s * f->inner;
        if (f->inner == 1) {
            *sum = (float)job->simd->update.squares(&job->step, f->b, g);
        } else {
            memset(sum, 0, (size_t)f->inner * sizeof *sum);
            for (int64_t b = 0; b < f->b; b++)
                job->simd->update.add_squares(&job->step, f->inner, g + b * f->inner, sum);
        }
        for (int64_t i = 0; i < f->inner; i++) {
            float *v = &f->over_b[s * f->inner + i];
            *v += job->fresh * (sum[i] / (float)f->b - *v);
        }
    }
}

/* Means over a, a strip of columns of one matrix at a time. */
static void ftr__factored_strip(const ftr__adafactor_job *job, const ftr__factored *f, int64_t unit) {
    const int64_t outer = unit / f->strips, first = unit % f->strips * FTR__FACTORED_STRIP, width = f->b * f->inner;
    const int64_t n = width - first < FTR__FACTORED_STRIP ? width - first : FTR__FACTORED_STRIP;
    double total[FTR__FACTORED_STRIP] = {0.0};
    for (int64_t from = 0; from < f->a; from += FTR__FACTORED_ROWS) {
        float sum[FTR__FACTORED_STRIP] = {0.0f};
        for (int64_t a = from; a < f->a && a < from + FTR__FACTORED_ROWS; a++)
            job->simd->update.add_squares(&job->step, n, f->g + (outer * f->a + a) * width + first, sum);
        for (int64_t i = 0; i < n; i++) total[i] += (double)sum[i];
    }
    float *over_a = f->over_a + outer * width + first;
    for (int64_t i = 0; i < n; i++) over_a[i] += job->fresh * ((float)(total[i] / (double)f->a) - over_a[i]);
}

static void ftr__factored_over_a_task(void *arg, int64_t task, int32_t worker) {
    const ftr__adafactor_job *job = arg;
    const int32_t j = ftr__update_find(job->unit_first, job->chunks.count, task);
    const ftr__factored *f = &job->parameters[j];
    const int64_t begin = (task - job->unit_first[j]) * f->units_a_task, units = f->outer * f->strips;
    (void)worker;
    for (int64_t u = begin; u < units && u < begin + f->units_a_task; u++) ftr__factored_strip(job, f, u);
}

/* The mean of the rows' moments, and with it `scaled`, for one index of outer, a strip of the inner axis at a time. */
static void ftr__factored_scale(const ftr__adafactor_job *job, const ftr__factored *f, int64_t outer) {
    const int64_t count = job->rows_first ? f->a : f->b;
    const float *rows = (job->rows_first ? f->over_b : f->over_a) + outer * count * f->inner;
    const float *over_b = f->over_b + outer * f->a * f->inner;
    float *scaled = f->scaled + outer * f->a * f->inner;
    const double least = job->call->attr->optimizer.eps;
    for (int64_t first = 0; first < f->inner; first += FTR__FACTORED_STRIP) {
        const int64_t n = f->inner - first < FTR__FACTORED_STRIP ? f->inner - first : FTR__FACTORED_STRIP;
        double mean[FTR__FACTORED_STRIP] = {0.0};
        float by[FTR__FACTORED_STRIP];
        for (int64_t r = 0; r < count; r++)
            for (int64_t i = 0; i < n; i++) mean[i] += (double)rows[r * f->inner + first + i];
        for (int64_t i = 0; i < n; i++) mean[i] /= (double)count;
        for (int64_t i = 0; i < n; i++) by[i] = (float)(1.0 / (mean[i] < least ? least : mean[i]));
        for (int64_t a = 0; a < f->a; a++)
            for (int64_t i = 0; i < n; i++) scaled[a * f->inner + first + i] = over_b[a * f->inner + first + i] * by[i];
    }
}

static void ftr__factored_scale_task(void *arg, int64_t task, int32_t worker) {
    const ftr__adafactor_job *job = arg;
    const int32_t j = ftr__update_find(job->outer_first, job->chunks.count, task);
    const ftr__factored *f = &job->parameters[j];
    const int64_t begin = (task - job->outer_first[j]) * f->outers_a_task;
    (void)worker;
    for (int64_t o = begin; o < f->outer && o < begin + f->outers_a_task; o++) ftr__factored_scale(job, f, o);
}

static void ftr__factored_squares_task(void *arg, int64_t task, int32_t worker) {
    const ftr__adafactor_job *job = arg;
    int64_t begin, end;
    const ftr__factored *f = ftr__factored_slices(job, task, &begin, &end);
    const bool single = f->inner == 1;
    const int64_t runs = single ? 1 : f->b, n = single ? f->b : f->inner;
    double sum = 0.0;
    (void)worker;
    for (int64_t s = begin; s < end; s++)
        for (int64_t r = 0; r < runs; r++)
            sum +=
                job->simd->update.factored_squares(&job->step, n, f->g + (s * runs + r) * n, f->scaled + s * f->inner,
                                                   single, f->over_a + (s / f->a * runs + r) * n);
    job->squares[task] = sum;
}

static void ftr__factored_apply_task(void *arg, int64_t task, int32_t worker) {
    const ftr__adafactor_job *job = arg;
    int64_t begin, end;
    const ftr__factored *f = ftr__factored_slices(job, task, &begin, &end);
    const bool single = f->inner == 1;
    const int64_t runs = single ? 1 : f->b, n = single ? f->b : f->inner;
    (void)worker;
    for (int64_t s = begin; s < end; s++)
        for (int64_t r = 0; r < runs; r++)
            job->simd->update.factored_apply(&job->step, n, f->g + (s * runs + r) * n, f->scaled + s * f->inner, single,
                                             f->over_a + (s / f->a * runs + r) * n, job->rates[f - job->parameters],
                                             f->p + (s * runs + r) * n);
}

/* Sum of squares of a chunk of a parameter. */
static void ftr__adafactor_norm_task(void *arg, int64_t task, int32_t worker) {
    const ftr__adafactor_job *job = arg;
    const ftr__update_chunk chunk = ftr__update_chunk_at(&job->chunks, task);
    const float *p = (const float *)chunk.in[0].data + chunk.begin;
    (void)worker;
    job->chunks.sums[2 * task] = job->simd->math.dot(chunk.n, p, p);
    job->chunks.sums[2 * task + 1] = 0.0;
}

/* The same, with the second moment kept whole and the sum of squares of the update. */
static void ftr__adafactor_whole_task(void *arg, int64_t task, int32_t worker) {
    const ftr__adafactor_job *job = arg;
    const ftr__update_chunk chunk = ftr__update_chunk_at(&job->chunks, task);
    const ftr__update_run run = ftr__update_run_of(&chunk, 1);
    const float one = 1.0f;
    (void)worker;
    job->simd->update.blend_squares(&job->step, run.n, job->fresh, run.g, run.s[0]);
    job->chunks.sums[2 * task] = job->simd->math.dot(run.n, run.p, run.p);
    job->chunks.sums[2 * task + 1] = job->simd->update.factored_squares(&job->step, run.n, run.g, &one, true, run.s[0]);
}

static void ftr__adafactor_whole_apply_task(void *arg, int64_t task, int32_t worker) {
    const ftr__adafactor_job *job = arg;
    const ftr__update_chunk chunk = ftr__update_chunk_at(&job->chunks, task);
    const ftr__update_run run = ftr__update_run_of(&chunk, 1);
    const float one = 1.0f;
    (void)worker;
    job->simd->update.factored_apply(&job->step, run.n, run.g, &one, true, run.s[0], job->rates[chunk.parameter],
                                     run.p);
}

/* ------------------------------------------------------------------------------------------------------- the step
 * -- */

static int32_t ftr__adafactor_group(const ftr_kernel_call *call) { return ftr__adafactor_factored(call) ? 4 : 3; }

/* What the factored form needs behind the chunks and the rates. */
static size_t ftr__factored_bytes(const ftr_kernel_call *call) {
    const int32_t group = ftr__adafactor_group(call);
    size_t count = 0, tasks = 0, floats = 0;
    for (int32_t i = FTR_UPDATE_FIRST_GROUP; i + group <= call->in_count; i += group) {
        const ftr__factored f = ftr__factored_of(call, &call->in[i]);
        count++;
        tasks += (size_t)ftr__factored_slice_tasks(&f);
        floats += (size_t)(f.slices * f.inner);
    }
    return ftr__update_align(count * sizeof(ftr__factored)) + ftr__update_align(3 * (count + 1) * sizeof(int64_t)) +
           ftr__update_align(tasks * sizeof(double)) + ftr__update_align(floats * sizeof(float));
}

size_t ftr__cpu_adafactor_update_workspace(const ftr_kernel_call *call) {
    const int32_t group = ftr__adafactor_group(call);
    const size_t count = (size_t)((call->in_count - FTR_UPDATE_FIRST_GROUP) / group);
    return ftr__update_chunks_bytes(call, FTR_UPDATE_FIRST_GROUP, group) + ftr__update_align(count * sizeof(float)) +
           (ftr__adafactor_factored(call) ? ftr__factored_bytes(call) : 0);
}

static void ftr__factored_open(ftr__adafactor_job *job, unsigned char *workspace) {
    const size_t count = (size_t)job->chunks.count;
    job->parameters = (ftr__factored *)(void *)workspace;
    workspace += ftr__update_align(count * sizeof *job->parameters);
    job->slice_first = (int64_t *)(void *)workspace;
    job->outer_first = job->slice_first + count + 1;
    job->unit_first = job->outer_first + count + 1;
    workspace += ftr__update_align(3 * (count + 1) * sizeof(int64_t));
    job->slice_first[0] = job->outer_first[0] = job->unit_first[0] = 0;
    for (size_t j = 0; j < count; j++) {
        ftr__factored *f = &job->parameters[j];
        *f = ftr__factored_of(job->call, &job->call->in[FTR_UPDATE_FIRST_GROUP + 4 * (int64_t)j]);
        job->slice_first[j + 1] = job->slice_first[j] + ftr__factored_slice_tasks(f);
        job->outer_first[j + 1] = job->outer_first[j] + ftr__factored_outer_tasks(f);
        job->unit_first[j + 1] = job->unit_first[j] + ftr__factored_unit_tasks(f);
    }
    job->squares = (double *)(void *)workspace;
    workspace += ftr__update_align((size_t)job->slice_first[count] * sizeof *job->squares);
    float *scaled = (float *)(void *)workspace;
    for (size_t j = 0; j < count; j++) {
        job->parameters[j].scaled = scaled;
        scaled += job->parameters[j].slices * job->parameters[j].inner;
    }
}

/* The rate of each parameter, from the sums of squares of p and of the update. */
static void ftr__adafactor_rates(ftr__adafactor_job *job) {
    const ftr_kernel_call *call = job->call;
    const double lr = ftr__update_lr(call), slow = 1.0 / sqrt(ftr__update_number(call));
    for (int32_t j = 0; j < job->chunks.count; j++) {
        const double root = sqrt((double)call->in[job->chunks.first_in + j * job->chunks.group].count);
        const double size = sqrt(job->chunks.totals[2 * j]) / root, update = sqrt(job->chunks.totals[2 * j + 1]) / root;
        const double least = call->attr->optimizer.parameter_eps, over = update / call->attr->optimizer.clip_threshold;
        const double alpha = (size > least ? size : least) * (lr < slow ? lr : slow);
        job->rates[j] = (float)(over > 1.0 ? alpha / over : alpha);
    }
}

static void ftr__adafactor_run_whole(ftr__adafactor_job *job) {
    ftr__update_chunks_sum(&job->chunks, ftr__adafactor_whole_task, job);
    ftr__adafactor_rates(job);
    ftr__pool_run(ftr__cpu_of(job->call)->pool, job->chunks.first[job->chunks.count], ftr__adafactor_whole_apply_task,
                  job);
}

static void ftr__adafactor_run_factored(ftr__adafactor_job *job) {
    ftr__pool *pool = ftr__cpu_of(job->call)->pool;
    const int64_t slices = job->slice_first[job->chunks.count];
    ftr__update_chunks_sum(&job->chunks, ftr__adafactor_norm_task, job);
    ftr__pool_run(pool, slices, ftr__factored_over_b_task, job);
    ftr__pool_run(pool, job->unit_first[job->chunks.count], ftr__factored_over_a_task, job);
    ftr__pool_run(pool, job->outer_first[job->chunks.count], ftr__factored_scale_task, job);
    ftr__pool_run(pool, slices, ftr__factored_squares_task, job);
    for (int32_t j = 0; j < job->chunks.count; j++) {
        double sum = 0.0;
        for (int64_t s = job->slice_first[j]; s < job->slice_first[j + 1]; s++) sum += job->squares[s];
        job->chunks.totals[2 * j + 1] = sum;
    }
    ftr__adafactor_rates(job);
    ftr__pool_run(pool, slices, ftr__factored_apply_task, job);
}

ftr_status ftr__cpu_adafactor_update(const ftr_kernel_call *call) {
    if (ftr__update_skipped(call)) return FTR_OK;
    const double eps = call->attr->optimizer.eps;
    ftr__adafactor_job job = {.call = call, .simd = ftr__cpu_of(call)->simd};
    job.step = ftr__update_step_of(call);
    job.step.eps = (float)(eps * eps);
    job.step.decay = (float)(ftr__update_lr(call) * call->attr->optimizer.weight_decay);
    job.fresh = (float)pow(ftr__update_number(call), call->attr->optimizer.beta2_decay);
    job.rows_first = call->attr->optimizer.row_axis < call->attr->optimizer.column_axis;
    unsigned char *rest =
        ftr__update_chunks_open(&job.chunks, call, FTR_UPDATE_FIRST_GROUP, ftr__adafactor_group(call), call->workspace);
    job.rates = (float *)(void *)rest;
    rest += ftr__update_align((size_t)job.chunks.count * sizeof *job.rates);
    if (ftr__adafactor_factored(call)) {
        ftr__factored_open(&job, rest);
        ftr__adafactor_run_factored(&job);
    } else {
        ftr__adafactor_run_whole(&job);
    }
    return FTR_OK;
}
