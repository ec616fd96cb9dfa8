/* Batch normalization. Statistics: each chunk of rows gives a mean and a sum of squared deviations from it; chunks
 * are combined in order, in double (Chan, Golub, LeVeque: Updating Formulae and a Pairwise Algorithm for Computing
 * Sample Variances, 1979). All of it is relative to a center, the first row that counts or the mean of a chunk's first rows, so
 * that a mean far from 0 costs no precision. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

#define FTR__NORM_CHUNK 32768 /* elements of such a task */
#define FTR__NORM_GRAIN 16384 /* elements of a task that computes results */
#define FTR__NORM_FIRST 8     /* rows whose mean is a chunk's center */
#define FTR__NORM_LANES 16    /* channels that every vector divides */
#define FTR__NORM_WIDE 128    /* columns from which rows are long enough */

/* Rows of few channels, or of a number that leaves vectors partly empty, are taken `fold` at a time: as rows of fold * channels
 * columns, whose coefficients repeat. */
typedef struct ftr__norm_job {
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    int64_t channels, fold;
    int64_t rows, columns, tiles, chunks, rows_per_chunk, rows_per_task; /* folded */
    const float *mask;                                                   /* NULL: all rows count */
    int64_t rows_per_sample;                                             /* a sample has one element of the mask */
    float *partial;                                                      /* [chunks][2][columns] */
    float *coefficients;                                                 /* [6][columns]: see below */
    ftr__norm_gate gate;                                                 /* of the gradient */
} ftr__norm_job;

/* The coefficients' places. */
enum {
    FTR__NORM_MEAN,
    FTR__NORM_SCALE, /* of the forward pass */
    FTR__NORM_SHIFT,
    FTR__NORM_CENTER,              /* the first row that counts */
    FTR__NORM_A = FTR__NORM_SCALE, /* of the gradient */
    FTR__NORM_B,
    FTR__NORM_C,
    FTR__NORM_ZEROS,
    FTR__NORM_BETA,
    FTR__NORM_COEFFICIENTS
};

static int64_t ftr__norm_fold(int64_t channels, int64_t rows_per_sample) {
    int64_t fold = 1;
    if (channels <= 0) return fold;
    while (rows_per_sample % (2 * fold) == 0 &&
           ((fold < FTR__NORM_LANES && channels * fold % FTR__NORM_LANES) || channels * fold < FTR__NORM_WIDE))
        fold *= 2;
    return fold;
}

/* The sizes; data pointers are not looked at. */
static ftr__norm_job ftr__norm_job_of(const ftr_kernel_call *call, const ftr_view *x) {
    ftr__norm_job job = {.call = call, .channels = x->shape.dim[x->shape.rank - 1]};
    const int64_t rows = job.channels > 0 ? x->count / job.channels : 0;
    const int64_t rows_per_sample = x->shape.dim[0] > 0 ? rows / x->shape.dim[0] : 1;
    job.fold = rows_per_sample > 0 ? ftr__norm_fold(job.channels, rows_per_sample) : 1;
    job.rows = rows / job.fold;
    job.columns = job.channels * job.fold;
    job.rows_per_sample = rows_per_sample / job.fold;
    const int64_t width = job.columns < FTR__NORM_TILE ? job.columns : FTR__NORM_TILE;
    job.tiles = (job.columns + FTR__NORM_TILE - 1) / FTR__NORM_TILE;
    job.rows_per_chunk = width > 0 ? FTR__NORM_CHUNK / width : 1;
    job.chunks = (job.rows + job.rows_per_chunk - 1) / job.rows_per_chunk;
    job.rows_per_task = 1 + FTR__NORM_GRAIN / (job.columns > 0 ? job.columns : 1);
    return job;
}

static size_t ftr__norm_workspace(const ftr__norm_job *job) {
    return (size_t)((job->chunks * 2 + FTR__NORM_COEFFICIENTS) * job->columns) * sizeof(float);
}

static void ftr__norm_prepare(ftr__norm_job *job, const ftr_view *mask) {
    job->math = &ftr__cpu_of(job->call)->simd->math;
    job->partial = job->call->workspace;
    job->coefficients = job->partial + job->chunks * 2 * job->columns;
    job->mask = mask ? mask->data : NULL;
}

static float *ftr__norm_coefficient(const ftr__norm_job *job, int64_t which) {
    return job->coefficients + which * job->columns;
}

/* A coefficient of one channel, for each of its columns. */
static void ftr__norm_set(const ftr__norm_job *job, int64_t which, int64_t channel, float value) {
    float *to = ftr__norm_coefficient(job, which) + channel;
    for (int64_t i = 0; i < job->fold; i++) to[i * job->channels] = value;
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

/* Of `count` columns or channels, those of the tile that begins at one. */
static int64_t ftr__norm_tile_width(int64_t count, int64_t column) {
    return count - column < FTR__NORM_TILE ? count - column : FTR__NORM_TILE;
}

static int64_t ftr__norm_channel_tiles(const ftr__norm_job *job) {
    return (job->channels + FTR__NORM_TILE - 1) / FTR__NORM_TILE;
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

/* The center of a chunk and tile: the mean, about, of its first rows that count. */
static void ftr__norm_chunk_center(const ftr__norm_job *job, int64_t begin, int64_t end, int64_t column, int64_t width,
                                   float *center) {
    const float *x = (const float *)job->call->in[0].data + column;
    const float *common = ftr__norm_coefficient(job, FTR__NORM_CENTER) + column;
    float sum[FTR__NORM_TILE] = {0};
    int64_t count = 0;
    for (int64_t row = begin; row < end && count < FTR__NORM_FIRST;) {
        bool counts;
        const int64_t stop = ftr__norm_run(job, row, end, &counts);
        const int64_t some = stop - row < FTR__NORM_FIRST - count ? stop - row : FTR__NORM_FIRST - count;
        if (counts) {
            job->math->column_centered_sum(some, width, x + row * job->columns, job->columns, common, sum);
            count += some;
        }
        row = stop;
    }
    for (int64_t j = 0; j < width; j++) center[j] = common[j] + sum[j] / (float)(count > 0 ? count : 1);
}

/* Mean, less the common center, and squared deviations of one chunk and tile. The chunk's center is near its mean, so that little
 * is lost when the square of the sum is taken off. */
static void ftr__norm_statistics_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const int64_t chunk = task / job->tiles, column = task % job->tiles * FTR__NORM_TILE;
    const int64_t begin = chunk * job->rows_per_chunk, end = ftr__norm_chunk_end(job, begin), stride = job->columns;
    const int64_t width = ftr__norm_tile_width(job->columns, column), count = ftr__norm_count(job, chunk);
    const float *x = (const float *)job->call->in[0].data + column;
    const float *common = ftr__norm_coefficient(job, FTR__NORM_CENTER) + column;
    float *mean = job->partial + chunk * 2 * stride + column, *deviation = mean + stride, center[FTR__NORM_TILE];
    (void)worker;
    for (int64_t j = 0; j < width; j++) mean[j] = deviation[j] = 0.0f;
    if (count == 0) return;
    ftr__norm_chunk_center(job, begin, end, column, width, center);
    for (int64_t row = begin; row < end;) {
        bool counts;
        const int64_t stop = ftr__norm_run(job, row, end, &counts);
        if (counts) job->math->norm_moments(stop - row, width, x + row * stride, stride, center, mean, deviation);
        row = stop;
    }
    for (int64_t j = 0; j < width; j++) {
        const float shift = mean[j] / (float)count, rest = deviation[j] - mean[j] * shift;
        mean[j] = (center[j] - common[j]) + shift;
        deviation[j] = rest < 0.0f ? 0.0f : rest; /* NaN stays */
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
    const double shift = (double)((const float *)call->in[2].data)[channel] + ((double)rounded - mean) * scale;
    ftr__norm_set(job, FTR__NORM_MEAN, channel, rounded);
    ftr__norm_set(job, FTR__NORM_SCALE, channel, (float)scale);
    ftr__norm_set(job, FTR__NORM_SHIFT, channel, (float)shift);
}

/* The running statistics stand in where they are asked for, and in training where no row counts. */
static void ftr__norm_use_running(const ftr__norm_job *job, int64_t column, int64_t width) {
    const float *mean = job->call->in[3].data, *variance = job->call->in[4].data;
    for (int64_t c = column; c < column + width; c++)
        ftr__norm_finish(job, c, (double)mean[c], (double)variance[c], (double)variance[c]);
}

/* Combines the chunks of one tile of channels. */
static void ftr__norm_combine_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const int64_t channel = task * FTR__NORM_TILE, width = ftr__norm_tile_width(job->channels, channel);
    double mean[FTR__NORM_TILE] = {0}, deviation[FTR__NORM_TILE] = {0}, total = 0;
    (void)worker;
    for (int64_t part = 0; part < job->chunks * job->fold; part++) {
        const int64_t chunk = part / job->fold, column = part % job->fold * job->channels + channel;
        const double count = (double)ftr__norm_count(job, chunk);
        if (count == 0) continue;
        const float *chunk_mean = job->partial + chunk * 2 * job->columns + column;
        const float *chunk_deviation = chunk_mean + job->columns;
        const double share = count / (total + count), between = total * share;
        for (int64_t j = 0; j < width; j++) {
            const double apart = (double)chunk_mean[j] - mean[j];
            mean[j] += apart * share;
            deviation[j] += (double)chunk_deviation[j] + apart * apart * between;
        }
        total += count;
    }
    if (total == 0) {
        ftr__norm_use_running(job, channel, width);
        return;
    }
    const float *center = ftr__norm_coefficient(job, FTR__NORM_CENTER) + channel;
    for (int64_t j = 0; j < width; j++)
        ftr__norm_finish(job, channel + j, (double)center[j] + mean[j], deviation[j] / total,
                         deviation[j] / (total > 1 ? total - 1 : 1));
}

/* What comes last is still in a cache, when the pass before ended there: results are computed from the end on. */
static int64_t ftr__norm_from_end(const ftr__norm_job *job, int64_t task) {
    return ((job->rows - 1) / job->rows_per_task - task) * job->rows_per_task;
}

static void ftr__norm_apply_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const ftr_view *residual = ftr__optional_input(call, 6);
    const int64_t first = ftr__norm_from_end(job, task), at = first * job->columns;
    const int64_t rows = job->rows - first < job->rows_per_task ? job->rows - first : job->rows_per_task;
    (void)worker;
    job->math->norm_apply(rows, job->columns, (const float *)call->in[0].data + at,
                          ftr__norm_coefficient(job, FTR__NORM_MEAN), ftr__norm_coefficient(job, FTR__NORM_SCALE),
                          ftr__norm_coefficient(job, FTR__NORM_SHIFT),
                          residual ? (const float *)residual->data + at : NULL, call->attr->norm.activation,
                          (float *)call->out[0].data + at);
}

/* The common center: the first row that counts. */
static void ftr__norm_set_center(const ftr__norm_job *job) {
    bool counts = true;
    const int64_t stop = ftr__norm_run(job, 0, job->rows, &counts);
    const float *x = (const float *)job->call->in[0].data + (counts || stop == job->rows ? 0 : stop) * job->columns;
    for (int64_t c = 0; c < job->channels && job->rows > 0; c++) ftr__norm_set(job, FTR__NORM_CENTER, c, x[c]);
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
        ftr__norm_set_center(&job);
        ftr__pool_run(pool, job.chunks * job.tiles, ftr__norm_statistics_task, &job);
        ftr__pool_run(pool, ftr__norm_channel_tiles(&job), ftr__norm_combine_task, &job);
    } else {
        ftr__norm_use_running(&job, 0, job.channels);
    }
    ftr__pool_run(pool, (job.rows + job.rows_per_task - 1) / job.rows_per_task, ftr__norm_apply_task, &job);
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------ gradient -- */

/* What the sums need besides dy and x: the mean, and the gate, whose scale is a. */
static void ftr__norm_grad_prepare(ftr__norm_job *job) {
    const ftr_kernel_call *call = job->call;
    const ftr_view *y = ftr__optional_input(call, 6), *beta = ftr__optional_input(call, 7);
    const float *gamma = call->in[2].data, *mean = call->in[3].data, *invstd = call->in[4].data;
    for (int64_t c = 0; c < job->channels; c++) {
        ftr__norm_set(job, FTR__NORM_MEAN, c, mean[c]);
        ftr__norm_set(job, FTR__NORM_A, c, (float)((double)gamma[c] * (double)invstd[c]));
        ftr__norm_set(job, FTR__NORM_ZEROS, c, 0.0f);
        if (beta) ftr__norm_set(job, FTR__NORM_BETA, c, ((const float *)beta->data)[c]);
    }
    job->gate = (ftr__norm_gate){.activation = call->attr->norm.activation,
                                 .y = y ? y->data : NULL,
                                 .scale = ftr__norm_coefficient(job, FTR__NORM_A),
                                 .shift = ftr__norm_coefficient(job, FTR__NORM_BETA)};
    if (job->gate.activation == FTR_ACT_SILU) job->gate.to = call->out[0].data; /* its slope is not computed twice */
    if (!y && !beta) job->gate.activation = FTR_ACT_NONE;
}

/* The gate at an element of dy. */
static ftr__norm_gate ftr__norm_gate_at(const ftr__norm_job *job, int64_t at, int64_t column) {
    ftr__norm_gate gate = job->gate;
    if (gate.y) gate.y += at;
    if (gate.to) gate.to += at;
    gate.scale += column;
    gate.shift += column;
    return gate;
}

static void ftr__norm_grad_sums_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const int64_t chunk = task / job->tiles, column = task % job->tiles * FTR__NORM_TILE, stride = job->columns;
    const int64_t begin = chunk * job->rows_per_chunk, end = ftr__norm_chunk_end(job, begin);
    const int64_t width = ftr__norm_tile_width(stride, column);
    const float *dy = (const float *)call->in[0].data + column, *x = (const float *)call->in[1].data + column;
    float *sum = job->partial + chunk * 2 * stride + column, *product = sum + stride;
    (void)worker;
    for (int64_t j = 0; j < width; j++) sum[j] = product[j] = 0.0f;
    const int64_t at = begin * stride;
    const ftr__norm_gate gate = ftr__norm_gate_at(job, at + column, column);
    job->math->norm_grad_sums(end - begin, width, stride, dy + at, x + at, &gate,
                              ftr__norm_coefficient(job, FTR__NORM_MEAN) + column, sum, product);
}

/* dgamma and dbeta of one tile of channels, and the coefficients of dx = g a + (x - mean) b + c. In training
 * dx = gamma / std * (g - dbeta / n - xhat * dgamma / n) over the n rows that count (Ioffe, Szegedy, 2015). Rows that do not
 * count are normalized by the others' statistics: they give to dgamma and dbeta, and for their own dx b and c are 0. */
static void ftr__norm_grad_combine_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const int64_t channel = task * FTR__NORM_TILE, width = ftr__norm_tile_width(job->channels, channel);
    double sum[FTR__NORM_TILE] = {0}, product[FTR__NORM_TILE] = {0}, total = 0;
    (void)worker;
    for (int64_t part = 0; part < job->chunks * job->fold; part++) {
        const int64_t chunk = part / job->fold, column = part % job->fold * job->channels + channel;
        const float *chunk_sum = job->partial + chunk * 2 * job->columns + column;
        for (int64_t j = 0; j < width; j++) sum[j] += (double)chunk_sum[j];
        for (int64_t j = 0; j < width; j++) product[j] += (double)chunk_sum[job->columns + j];
        total += (double)ftr__norm_count(job, chunk);
    }
    const double share = call->attr->norm.training && total > 0 ? 1.0 / total : 0.0;
    for (int64_t j = 0; j < width; j++) {
        const int64_t c = channel + j;
        const double invstd = (double)((const float *)call->in[4].data)[c], dgamma = product[j] * invstd;
        const double a = (double)((const float *)call->in[2].data)[c] * invstd; /* the gate has it already */
        ((float *)call->out[1].data)[c] = (float)dgamma;
        ((float *)call->out[2].data)[c] = (float)sum[j];
        ftr__norm_set(job, FTR__NORM_B, c, (float)(-a * invstd * dgamma * share));
        ftr__norm_set(job, FTR__NORM_C, c, (float)(-a * sum[j] * share));
    }
}

static void ftr__norm_grad_apply_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const int64_t begin = ftr__norm_from_end(job, task), columns = job->columns;
    const int64_t end = job->rows - begin < job->rows_per_task ? job->rows : begin + job->rows_per_task;
    const float *dy = job->gate.to ? job->gate.to : call->in[0].data, *x = call->in[1].data;
    float *dx = call->out[0].data;
    (void)worker;
    for (int64_t row = begin; row < end;) {
        bool counts;
        const int64_t stop = ftr__norm_run(job, row, end, &counts), at = row * columns;
        const ftr__norm_gate gate = ftr__norm_gate_at(job, at, 0);
        job->math->norm_grad_apply(stop - row, columns, dy + at, x + at, &gate,
                                   ftr__norm_coefficient(job, FTR__NORM_MEAN), ftr__norm_coefficient(job, FTR__NORM_A),
                                   ftr__norm_coefficient(job, counts ? FTR__NORM_B : FTR__NORM_ZEROS),
                                   ftr__norm_coefficient(job, counts ? FTR__NORM_C : FTR__NORM_ZEROS), dx + at);
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
    ftr__pool_run(pool, ftr__norm_channel_tiles(&job), ftr__norm_grad_combine_task, &job);
    if (job.gate.to) job.gate.activation = FTR_ACT_NONE; /* dy is g by now */
    ftr__pool_run(pool, (job.rows + job.rows_per_task - 1) / job.rows_per_task, ftr__norm_grad_apply_task, &job);
    return FTR_OK;
}
