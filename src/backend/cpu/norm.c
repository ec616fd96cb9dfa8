/* Batch normalization. Statistics: each chunk of rows gives a mean and a sum of squared deviations from it; chunks
 * are combined in order, in double (Chan, Golub, LeVeque: Updating Formulae and a Pairwise Algorithm for Computing
 * Sample Variances, 1979). All of it is relative to the first row that counts, so that a mean far from 0 costs no
 * precision. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

#define FTR__NORM_CHUNK 32768 /* elements of such a task */
#define FTR__NORM_GRAIN 16384 /* elements of a task that computes results */

typedef struct ftr__norm_job {
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    int64_t rows, channels, tiles, chunks, rows_per_chunk, rows_per_task;
    const float *mask;       /* NULL: all rows count */
    int64_t rows_per_sample; /* a sample has one element of the mask */
    int64_t center;          /* the first row that counts */
    float *partial;          /* [chunks][2][channels] */
    float *coefficients;     /* [4][channels]; forward: scale and shift; gradient: a, b, c, zeros */
    ftr__norm_gate gate;     /* of the gradient */
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
    return job;
}

static size_t ftr__norm_workspace(const ftr__norm_job *job) {
    return (size_t)((job->chunks * 2 + 4) * job->channels) * sizeof(float);
}

static void ftr__norm_prepare(ftr__norm_job *job, const ftr_view *mask) {
    job->math = &ftr__cpu_of(job->call)->simd->math;
    job->partial = job->call->workspace;
    job->coefficients = job->partial + job->chunks * 2 * job->channels;
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
    const int64_t width = ftr__norm_tile_width(job, column), stride = job->channels;
    const float *x = (const float *)job->call->in[0].data + column, *center = x + job->center * stride;
    float *mean = job->partial + chunk * 2 * job->channels + column, *deviation = mean + job->channels;
    (void)worker;
    for (int64_t j = 0; j < width; j++) mean[j] = deviation[j] = 0.0f;
    const int64_t count = ftr__norm_count(job, chunk);
    if (count == 0) return;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t row = begin; row < end;) {
            bool counts;
            const int64_t stop = ftr__norm_run(job, row, end, &counts);
            if (counts && pass == 0)
                job->math->column_centered_sum(stop - row, width, x + row * stride, stride, center, mean);
            if (counts && pass == 1)
                job->math->column_deviation(stop - row, width, x + row * stride, stride, center, mean, deviation);
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
    const float *center = (const float *)job->call->in[0].data + job->center * job->channels + column;
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
    (void)worker;
    job->math->norm_apply(rows, job->channels, (const float *)call->in[0].data + at, call->out[1].data,
                          job->coefficients, job->coefficients + job->channels,
                          residual ? (const float *)residual->data + at : NULL, call->attr->norm.activation,
                          (float *)call->out[0].data + at);
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
    job->gate = (ftr__norm_gate){.activation = call->attr->norm.activation,
                                 .y = y ? y->data : NULL,
                                 .scale = job->coefficients,
                                 .shift = beta ? beta->data : NULL};
    if (job->gate.activation == FTR_ACT_SILU) job->gate.to = call->out[0].data; /* its slope is not computed twice */
    if (!y && job->gate.activation == FTR_ACT_RELU) job->gate.activation = FTR_ACT_NONE;
}

/* The gate at an element of dy. */
static ftr__norm_gate ftr__norm_gate_at(const ftr__norm_job *job, int64_t at, int64_t column) {
    ftr__norm_gate gate = job->gate;
    if (gate.y) gate.y += at;
    if (gate.to) gate.to += at;
    gate.scale += column;
    if (gate.shift) gate.shift += column;
    return gate;
}

static void ftr__norm_grad_sums_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const int64_t chunk = task / job->tiles, column = task % job->tiles * FTR__NORM_TILE;
    const int64_t begin = chunk * job->rows_per_chunk, end = ftr__norm_chunk_end(job, begin);
    const int64_t width = ftr__norm_tile_width(job, column), stride = job->channels;
    const float *dy = (const float *)call->in[0].data + column, *x = (const float *)call->in[1].data + column;
    const float *mean = (const float *)call->in[3].data + column;
    float *sum = job->partial + chunk * 2 * job->channels + column, *product = sum + job->channels;
    (void)worker;
    for (int64_t j = 0; j < width; j++) sum[j] = product[j] = 0.0f;
    const int64_t at = begin * stride;
    const ftr__norm_gate gate = ftr__norm_gate_at(job, at + column, column);
    job->math->norm_grad_sums(end - begin, width, stride, dy + at, x + at, &gate, mean, sum, product);
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
    const float *dy = job->gate.to ? job->gate.to : call->in[0].data, *x = call->in[1].data, *a = job->coefficients;
    const float *zeros = a + 3 * channels;
    float *dx = call->out[0].data;
    (void)worker;
    for (int64_t row = begin; row < end;) {
        bool counts;
        const int64_t stop = ftr__norm_run(job, row, end, &counts), at = row * channels;
        const ftr__norm_gate gate = ftr__norm_gate_at(job, at, 0);
        job->math->norm_grad_apply(stop - row, channels, dy + at, x + at, &gate, call->in[3].data, a,
                                   counts ? a + channels : zeros, counts ? a + 2 * channels : zeros, dx + at);
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
