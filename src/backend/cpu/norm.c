/* Batch normalization. Statistics: each chunk of rows gives a mean and a sum of squared deviations from it; chunks
 * are combined in order, in double (Chan, Golub, LeVeque: Updating Formulae and a Pairwise Algorithm for Computing
 * Sample Variances, 1979). All of it is relative to the first row that counts, so that a mean far from 0 costs no
 * precision. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

#define FTR__NORM_CHUNK 32768 /* elements of such a task */
#define FTR__NORM_GRAIN 16384 /* elements of a task that computes results */
#define FTR__NORM_WIDE 3      /* tensors of f16 or bf16 that a task has widened at once */

typedef struct ftr__norm_job {
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    int64_t rows, channels, tiles, chunks, rows_per_chunk, rows_per_task;
    const float *mask;       /* NULL: all rows count */
    int64_t rows_per_sample; /* a sample has one element of the mask */
    int64_t center;          /* the first row that counts */
    float *partial;          /* [chunks][2][channels] */
    float *coefficients;     /* [4][channels]; forward: scale and shift; gradient: a, b, c, zeros */
    ftr__norm_gate gate;     /* of the gradient; its y is set by tasks */
    const void *y;
    /* Tensors laid out as x, and the gradient's, may be f16 or bf16: a task widens its part into its worker's scratch. */
    ftr_dtype dtype;
    int64_t wide;   /* floats of a widened part */
    float *scratch; /* [threads][FTR__NORM_WIDE][wide] */
    float *first;   /* the first row that counts, as f32 */
} ftr__norm_job;

/* The sizes; data pointers are not looked at. */
static ftr__norm_job ftr__norm_job_of(const ftr_kernel_call *call, const ftr_view *x) {
    ftr__norm_job job = {.call = call, .channels = x->shape.dim[x->shape.rank - 1]};
    job.rows = job.channels > 0 ? x->count / job.channels : 0;
    const int64_t width = job.channels < FTR__NORM_TILE ? job.channels : FTR__NORM_TILE;
    job.tiles = (job.channels + FTR__NORM_TILE - 1) / FTR__NORM_TILE;
    job.rows_per_chunk = width > 0 ? FTR__NORM_CHUNK / width : 1;
    job.chunks = (job.rows + job.rows_per_chunk - 1) / job.rows_per_chunk;
    job.rows_per_task = 1 + FTR__NORM_GRAIN / (job.channels > 0 ? job.channels : 1);
    job.rows_per_sample = x->shape.dim[0] > 0 ? job.rows / x->shape.dim[0] : 1;
    job.dtype = x->dtype;
    const int64_t chunk = job.rows_per_chunk * width, task = job.rows_per_task * job.channels;
    job.wide = ftr__is_half(x->dtype) ? (chunk > task ? chunk : task) : 0;
    return job;
}

static size_t ftr__norm_workspace(const ftr__norm_job *job) {
    const int64_t threads = ftr__pool_threads(ftr__cpu_of(job->call)->pool);
    return (size_t)((job->chunks * 2 + 5) * job->channels + threads * FTR__NORM_WIDE * job->wide) * sizeof(float);
}

/* `rows` rows of `width` elements from element `at` of a tensor laid out as x, as f32: where they lie, or widened into part
 * `part` of a worker's scratch. *stride: from row to row. */
static const float *ftr__norm_load(const ftr__norm_job *job, const void *data, int64_t at, int64_t rows, int64_t width,
                                   int32_t worker, int32_t part, int64_t *stride) {
    *stride = job->channels;
    if (!ftr__is_half(job->dtype)) return (const float *)data + at;
    const uint16_t *from = (const uint16_t *)data + at;
    float *to = job->scratch + (worker * FTR__NORM_WIDE + part) * job->wide;
    *stride = width;
    const int64_t pieces = width == job->channels ? 1 : rows, n = width == job->channels ? rows * width : width;
    for (int64_t i = 0; i < pieces; i++)
        job->math->widen[ftr__half_index(job->dtype)](n, from + i * job->channels, to + i * width);
    return to;
}

/* Where a task's dense results go: the tensor, or part 0 of the scratch, which ftr__norm_store() then rounds. It may be an
 * input's. */
static float *ftr__norm_target(const ftr__norm_job *job, void *data, int64_t at, int32_t worker) {
    return ftr__is_half(job->dtype) ? job->scratch + worker * FTR__NORM_WIDE * job->wide : (float *)data + at;
}

static void ftr__norm_store(const ftr__norm_job *job, void *data, int64_t at, int64_t count, const float *from) {
    if (ftr__is_half(job->dtype)) job->math->narrow[ftr__half_index(job->dtype)](count, from, (uint16_t *)data + at);
}

static void ftr__norm_prepare(ftr__norm_job *job, const ftr_view *mask) {
    job->math = &ftr__cpu_of(job->call)->simd->math;
    job->partial = job->call->workspace;
    job->coefficients = job->partial + job->chunks * 2 * job->channels;
    job->first = job->coefficients + 4 * job->channels;
    job->scratch = job->first + job->channels;
    job->mask = mask ? mask->data : NULL;
}

/* The end of the run of rows from `row` on that all count or all do not count; *counts says which. */
static int64_t ftr__norm_run(const ftr__norm_job *job, int64_t row, int64_t end, bool *counts) {
    *counts = true;
    if (!job->mask) return end;
    int64_t sample = row / job->rows_per_sample;
    *counts = job->mask[sample] != 0.0f;
    while (row < end && (job->mask[sample] != 0.0f) == *counts) row = ++sample * job->rows_per_sample;
    return row < end ? row : end;
}

static int64_t ftr__norm_chunk_end(const ftr__norm_job *job, int64_t begin) {
    return job->rows - begin < job->rows_per_chunk ? job->rows : begin + job->rows_per_chunk;
}

static int64_t ftr__norm_tile_width(const ftr__norm_job *job, int64_t column) {
    return job->channels - column < FTR__NORM_TILE ? job->channels - column : FTR__NORM_TILE;
}

/* Rows of a chunk that count. */
static int64_t ftr__norm_count(const ftr__norm_job *job, int64_t chunk) {
    const int64_t begin = chunk * job->rows_per_chunk, end = ftr__norm_chunk_end(job, begin);
    int64_t count = 0;
    for (int64_t row = begin; row < end;) {
        bool counts;
        const int64_t stop = ftr__norm_run(job, row, end, &counts);
        if (counts) count += stop - row;
        row = stop;
    }
    return count;
}

/* ------------------------------------------------------------------------------------------------------- forward -- */

/* Mean and squared deviations of one chunk and tile: two passes over data that fit the cache. */
static void ftr__norm_statistics_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const int64_t chunk = task / job->tiles, column = task % job->tiles * FTR__NORM_TILE;
    const int64_t begin = chunk * job->rows_per_chunk, end = ftr__norm_chunk_end(job, begin);
    const int64_t width = ftr__norm_tile_width(job, column);
    int64_t stride;
    const float *x = ftr__norm_load(job, job->call->in[0].data, begin * job->channels + column, end - begin, width,
                                    worker, 0, &stride);
    const float *center = job->first + column;
    float *mean = job->partial + chunk * 2 * job->channels + column, *deviation = mean + job->channels;
    for (int64_t j = 0; j < width; j++) mean[j] = deviation[j] = 0.0f;
    const int64_t count = ftr__norm_count(job, chunk);
    if (count == 0) return;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t row = begin; row < end;) {
            bool counts;
            const int64_t stop = ftr__norm_run(job, row, end, &counts);
            if (counts && pass == 0)
                job->math->column_centered_sum(stop - row, width, x + (row - begin) * stride, stride, center, mean);
            if (counts && pass == 1)
                job->math->column_deviation(stop - row, width, x + (row - begin) * stride, stride, center, mean,
                                            deviation);
            row = stop;
        }
        if (pass == 0)
            for (int64_t j = 0; j < width; j++) mean[j] /= (float)count;
    }
}

/* Fills mean, unbiased variance, 1 / std, and scale and shift of one channel. The shift makes up for the mean's
 * rounding. */
static void ftr__norm_finish(const ftr__norm_job *job, int64_t channel, double mean, double biased, double unbiased) {
    const ftr_kernel_call *call = job->call;
    const double invstd = 1.0 / sqrt(biased + call->attr->norm.eps);
    const double scale = (double)((const float *)call->in[1].data)[channel] * invstd;
    const float rounded = (float)mean;
    ((float *)call->out[1].data)[channel] = rounded;
    ((float *)call->out[2].data)[channel] = (float)unbiased;
    ((float *)call->out[3].data)[channel] = (float)invstd;
    job->coefficients[channel] = (float)scale;
    job->coefficients[job->channels + channel] =
        (float)((double)((const float *)call->in[2].data)[channel] + ((double)rounded - mean) * scale);
}

/* The running statistics stand in where they are asked for, and in training where no row counts. */
static void ftr__norm_use_running(const ftr__norm_job *job, int64_t column, int64_t width) {
    const float *mean = job->call->in[3].data, *variance = job->call->in[4].data;
    for (int64_t c = column; c < column + width; c++)
        ftr__norm_finish(job, c, (double)mean[c], (double)variance[c], (double)variance[c]);
}

/* Combines the chunks of one tile. */
static void ftr__norm_combine_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const int64_t column = task * FTR__NORM_TILE, width = ftr__norm_tile_width(job, column);
    double mean[FTR__NORM_TILE] = {0}, deviation[FTR__NORM_TILE] = {0}, total = 0;
    (void)worker;
    for (int64_t chunk = 0; chunk < job->chunks; chunk++) {
        const double count = (double)ftr__norm_count(job, chunk);
        if (count == 0) continue;
        const float *chunk_mean = job->partial + chunk * 2 * job->channels + column;
        const float *chunk_deviation = chunk_mean + job->channels;
        const double share = count / (total + count), between = total * share;
        for (int64_t j = 0; j < width; j++) {
            const double apart = (double)chunk_mean[j] - mean[j];
            mean[j] += apart * share;
            deviation[j] += (double)chunk_deviation[j] + apart * apart * between;
        }
        total += count;
    }
    if (total == 0) {
        ftr__norm_use_running(job, column, width);
        return;
    }
    const float *center = job->first + column;
    for (int64_t j = 0; j < width; j++)
        ftr__norm_finish(job, column + j, (double)center[j] + mean[j], deviation[j] / total,
                         deviation[j] / (total > 1 ? total - 1 : 1));
}

static void ftr__norm_apply_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const ftr_view *residual = ftr__optional_input(call, 6);
    const int64_t first = task * job->rows_per_task, at = first * job->channels;
    const int64_t rows = job->rows - first < job->rows_per_task ? job->rows - first : job->rows_per_task;
    int64_t stride;
    const float *x = ftr__norm_load(job, call->in[0].data, at, rows, job->channels, worker, 0, &stride);
    const float *more =
        residual ? ftr__norm_load(job, residual->data, at, rows, job->channels, worker, 1, &stride) : NULL;
    float *y = ftr__norm_target(job, call->out[0].data, at, worker);
    job->math->norm_apply(rows, job->channels, x, call->out[1].data, job->coefficients,
                          job->coefficients + job->channels, more, call->attr->norm.activation, y);
    ftr__norm_store(job, call->out[0].data, at, rows * job->channels, y);
}

/* What is laid out as x has x's type, everything else is f32. */
bool ftr__cpu_batch_norm_takes_half(const ftr_kernel_call *call) {
    const ftr_view *x = call->op == FTR_OP_batch_norm ? &call->in[0] : &call->in[1];
    for (int32_t i = 0; i < call->in_count + call->out_count; i++) {
        const ftr_view *view = i < call->in_count ? &call->in[i] : &call->out[i - call->in_count];
        if (view->dtype == FTR_DTYPE_NONE) continue;
        if (view->dtype != (ftr_shape_equal(&view->shape, &x->shape) ? x->dtype : FTR_F32)) return false;
    }
    return true;
}

size_t ftr__cpu_batch_norm_workspace(const ftr_kernel_call *call) {
    const ftr__norm_job job = ftr__norm_job_of(call, &call->in[0]);
    return ftr__norm_workspace(&job);
}

ftr_status ftr__cpu_batch_norm(const ftr_kernel_call *call) {
    ftr__pool *pool = ftr__cpu_of(call)->pool;
    ftr__norm_job job = ftr__norm_job_of(call, &call->in[0]);
    ftr__norm_prepare(&job, ftr__optional_input(call, 5));
    if (call->attr->norm.training) {
        bool counts = true;
        const int64_t stop = ftr__norm_run(&job, 0, job.rows, &counts);
        job.center = counts || stop == job.rows ? 0 : stop;
        const int64_t at = job.center * job.channels;
        if (job.rows == 0)
            memset(job.first, 0, (size_t)job.channels * sizeof(float));
        else if (ftr__is_half(job.dtype))
            job.math->widen[ftr__half_index(job.dtype)](job.channels, (const uint16_t *)call->in[0].data + at,
                                                        job.first);
        else
            memcpy(job.first, (const float *)call->in[0].data + at, (size_t)job.channels * sizeof(float));
        ftr__pool_run(pool, job.chunks * job.tiles, ftr__norm_statistics_task, &job);
        ftr__pool_run(pool, job.tiles, ftr__norm_combine_task, &job);
    } else {
        ftr__norm_use_running(&job, 0, job.channels);
    }
    ftr__pool_run(pool, (job.rows + job.rows_per_task - 1) / job.rows_per_task, ftr__norm_apply_task, &job);
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------ gradient -- */

/* What the sums need besides dy and x: the gate, whose scale is a. */
static void ftr__norm_grad_prepare(ftr__norm_job *job) {
    const ftr_kernel_call *call = job->call;
    const ftr_view *y = ftr__optional_input(call, 6), *beta = ftr__optional_input(call, 7);
    const float *gamma = call->in[2].data, *invstd = call->in[4].data;
    for (int64_t c = 0; c < job->channels; c++) job->coefficients[c] = (float)((double)gamma[c] * (double)invstd[c]);
    job->y = y ? y->data : NULL;
    job->gate = (ftr__norm_gate){
        .activation = call->attr->norm.activation, .scale = job->coefficients, .shift = beta ? beta->data : NULL};
    if (job->gate.activation == FTR_ACT_SILU && job->dtype == FTR_F32)
        job->gate.to = call->out[0].data; /* its slope is not computed twice */
    if (!y && job->gate.activation == FTR_ACT_RELU) job->gate.activation = FTR_ACT_NONE;
}

/* What a task of the gradient reads: rows of dy and x, and the gate there. */
typedef struct ftr__norm_grad_part {
    const float *dy, *x;
    int64_t stride;
    ftr__norm_gate gate;
} ftr__norm_grad_part;

/* `rows` rows of `width` channels from row `row` and channel `column` on. dy is `from`. */
static ftr__norm_grad_part ftr__norm_grad_load(const ftr__norm_job *job, const void *from, int64_t row, int64_t rows,
                                               int64_t column, int64_t width, int32_t worker) {
    const int64_t at = row * job->channels + column;
    ftr__norm_grad_part part = {.gate = job->gate};
    part.dy = ftr__norm_load(job, from, at, rows, width, worker, 0, &part.stride);
    part.x = ftr__norm_load(job, job->call->in[1].data, at, rows, width, worker, 1, &part.stride);
    if (job->y && job->gate.activation == FTR_ACT_RELU)
        part.gate.y = ftr__norm_load(job, job->y, at, rows, width, worker, 2, &part.stride);
    if (part.gate.to) part.gate.to += at;
    /* The sums of SiLU leave g somewhere: in place of the widened dy, which is read no more. */
    if (ftr__is_half(job->dtype)) part.gate.to = ftr__norm_target(job, NULL, at, worker);
    part.gate.scale += column;
    if (part.gate.shift) part.gate.shift += column;
    return part;
}

static void ftr__norm_grad_sums_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const int64_t chunk = task / job->tiles, column = task % job->tiles * FTR__NORM_TILE;
    const int64_t begin = chunk * job->rows_per_chunk, end = ftr__norm_chunk_end(job, begin);
    const int64_t width = ftr__norm_tile_width(job, column);
    const float *mean = (const float *)call->in[3].data + column;
    float *sum = job->partial + chunk * 2 * job->channels + column, *product = sum + job->channels;
    for (int64_t j = 0; j < width; j++) sum[j] = product[j] = 0.0f;
    const ftr__norm_grad_part part =
        ftr__norm_grad_load(job, call->in[0].data, begin, end - begin, column, width, worker);
    job->math->norm_grad_sums(end - begin, width, part.stride, part.dy, part.x, &part.gate, mean, sum, product);
}

/* dgamma and dbeta of one tile, and the coefficients of dx = g a + (x - mean) b + c. In training
 * dx = gamma / std * (g - dbeta / n - xhat * dgamma / n) over the n rows that count (Ioffe, Szegedy, 2015). Rows that do not
 * count are normalized by the others' statistics: they give to dgamma and dbeta, and for their own dx b and c are 0. */
static void ftr__norm_grad_combine_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const int64_t column = task * FTR__NORM_TILE, width = ftr__norm_tile_width(job, column);
    double sum[FTR__NORM_TILE] = {0}, product[FTR__NORM_TILE] = {0}, total = 0;
    (void)worker;
    for (int64_t chunk = 0; chunk < job->chunks; chunk++) {
        const float *chunk_sum = job->partial + chunk * 2 * job->channels + column;
        for (int64_t j = 0; j < width; j++) sum[j] += (double)chunk_sum[j];
        for (int64_t j = 0; j < width; j++) product[j] += (double)chunk_sum[job->channels + j];
        total += (double)ftr__norm_count(job, chunk);
    }
    const double share = call->attr->norm.training && total > 0 ? 1.0 / total : 0.0;
    for (int64_t j = 0; j < width; j++) {
        const int64_t c = column + j;
        const double invstd = (double)((const float *)call->in[4].data)[c], dgamma = product[j] * invstd;
        const double a = (double)((const float *)call->in[2].data)[c] * invstd; /* the gate has it already */
        ((float *)call->out[1].data)[c] = (float)dgamma;
        ((float *)call->out[2].data)[c] = (float)sum[j];
        job->coefficients[job->channels + c] = (float)(-a * invstd * dgamma * share);
        job->coefficients[2 * job->channels + c] = (float)(-a * sum[j] * share);
        job->coefficients[3 * job->channels + c] = 0.0f;
    }
}

static void ftr__norm_grad_apply_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const int64_t begin = task * job->rows_per_task, channels = job->channels;
    const int64_t end = job->rows - begin < job->rows_per_task ? job->rows : begin + job->rows_per_task;
    const void *dy = job->gate.to ? job->gate.to : call->in[0].data;
    const float *a = job->coefficients, *zeros = a + 3 * channels;
    for (int64_t row = begin; row < end;) {
        bool counts;
        const int64_t stop = ftr__norm_run(job, row, end, &counts), at = row * channels;
        const ftr__norm_grad_part part = ftr__norm_grad_load(job, dy, row, stop - row, 0, channels, worker);
        float *dx = ftr__norm_target(job, call->out[0].data, at, worker);
        job->math->norm_grad_apply(stop - row, channels, part.dy, part.x, &part.gate, call->in[3].data, a,
                                   counts ? a + channels : zeros, counts ? a + 2 * channels : zeros, dx);
        ftr__norm_store(job, call->out[0].data, at, (stop - row) * channels, dx);
        row = stop;
    }
}

size_t ftr__cpu_batch_norm_grad_workspace(const ftr_kernel_call *call) {
    const ftr__norm_job job = ftr__norm_job_of(call, &call->in[1]);
    return ftr__norm_workspace(&job);
}

ftr_status ftr__cpu_batch_norm_grad(const ftr_kernel_call *call) {
    ftr__pool *pool = ftr__cpu_of(call)->pool;
    ftr__norm_job job = ftr__norm_job_of(call, &call->in[1]);
    /* With running statistics rows do not depend on each other, and the mask has no say. */
    ftr__norm_prepare(&job, call->attr->norm.training ? ftr__optional_input(call, 5) : NULL);
    ftr__norm_grad_prepare(&job);
    ftr__pool_run(pool, job.chunks * job.tiles, ftr__norm_grad_sums_task, &job);
    ftr__pool_run(pool, job.tiles, ftr__norm_grad_combine_task, &job);
    if (job.gate.to) job.gate.activation = FTR_ACT_NONE; /* dy is g by now */
    ftr__pool_run(pool, (job.rows + job.rows_per_task - 1) / job.rows_per_task, ftr__norm_grad_apply_task, &job);
    return FTR_OK;
}
