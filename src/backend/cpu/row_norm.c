/* Layer norm, RMS norm and group norm. Statistics take two passes: sums of x - x0 give the mean, sums of x - mean and
 * of their squares the variance, with what the rounding of the mean left over. Sums for gamma and beta are in f32
 * within a chunk of rows; chunks are added in order, in double. */
#include "backend/cpu/cpu.h"

#include <math.h>

#define FTR__ROW_NORM_GRAIN 16384 /* elements of a task that computes rows */
#define FTR__ROW_NORM_TILE 512    /* columns of a task that adds up dgamma and dbeta */
#define FTR__ROW_NORM_CHUNK 32768 /* elements of a task that computes a gradient with its share of them */
#define FTR__ROW_NORM_ROWS 256    /* rows of such a task, at most */

typedef struct ftr__row_norm_job {
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    const float *gamma, *mean, *invstd; /* NULL where missing */
    int64_t n, rows, rows_per_task, tiles, chunks, rows_per_chunk;
    bool rms;
    float *partial; /* [chunks][2][n] */
} ftr__row_norm_job;

/* The sizes; data pointers are not looked at. */
static ftr__row_norm_job ftr__row_norm_job_of(const ftr_kernel_call *call, const ftr_view *x) {
    ftr__row_norm_job job = {.call = call, .n = 1, .rows = 1};
    const int32_t leading = x->shape.rank - call->attr->row_norm.dims;
    for (int32_t d = 0; d < x->shape.rank; d++) *(d < leading ? &job.rows : &job.n) *= x->shape.dim[d];
    job.rms = call->op == FTR_OP_rms_norm || call->op == FTR_OP_rms_norm_grad;
    job.rows_per_task = 1 + FTR__ROW_NORM_GRAIN / (job.n > 0 ? job.n : 1);
    const int64_t width = job.n < FTR__ROW_NORM_TILE ? job.n : FTR__ROW_NORM_TILE;
    job.rows_per_chunk = width > 0 ? FTR__ROW_NORM_CHUNK / width : 1;
    if (job.rows_per_chunk > FTR__ROW_NORM_ROWS) job.rows_per_chunk = FTR__ROW_NORM_ROWS;
    job.tiles = (job.n + FTR__ROW_NORM_TILE - 1) / FTR__ROW_NORM_TILE;
    job.chunks = (job.rows + job.rows_per_chunk - 1) / job.rows_per_chunk;
    return job;
}

static const float *ftr__row_norm_data(const ftr_kernel_call *call, int32_t input) {
    const ftr_view *view = ftr__optional_input(call, input);
    return view ? view->data : NULL;
}

static int64_t ftr__row_norm_end(int64_t begin, int64_t some, int64_t end) {
    return end - begin < some ? end : begin + some;
}

/* --------------------------------------------------------------------------------------------layer and RMS norm -- */

static void ftr__row_norm_row(const ftr__row_norm_job *job, int64_t row, const float *beta) {
    const ftr_kernel_call *call = job->call;
    const double n = (double)job->n;
    const float *x = (const float *)call->in[0].data + row * job->n;
    float *statistics = (float *)call->out[1].data + row, rounded = 0.0f;
    double sums[2] = {0, 0}, left = 0;
    if (!job->rms) {
        const float first = job->n > 0 ? x[0] : 0.0f;
        job->math->row_moments(job->n, x, first, NULL, NULL, sums);
        rounded = (float)((double)first + sums[0] / n);
        *statistics = rounded;
        statistics = (float *)call->out[2].data + row;
    }
    job->math->row_moments(job->n, x, rounded, NULL, NULL, sums);
    if (!job->rms) left = sums[0] / n;
    const double variance = sums[1] / n - left * left;
    const double invstd = 1.0 / sqrt((variance > 0 || isnan(variance) ? variance : 0.0) + call->attr->row_norm.eps);
    *statistics = (float)invstd;
    job->math->row_norm(job->n, x, rounded, (float)invstd, (float)(-left * invstd), job->gamma, beta,
                        (float *)call->out[0].data + row * job->n);
}

static void ftr__row_norm_task(void *arg, int64_t task, int32_t worker) {
    const ftr__row_norm_job *job = arg;
    const int64_t begin = task * job->rows_per_task, end = ftr__row_norm_end(begin, job->rows_per_task, job->rows);
    const float *beta = ftr__row_norm_data(job->call, 2);
    (void)worker;
    for (int64_t row = begin; row < end; row++) ftr__row_norm_row(job, row, beta);
}

ftr_status ftr__cpu_row_norm(const ftr_kernel_call *call) {
    ftr__row_norm_job job = ftr__row_norm_job_of(call, &call->in[0]);
    job.math = &ftr__cpu_of(call)->simd->math;
    job.gamma = ftr__row_norm_data(call, 1);
    ftr__pool_run(ftr__cpu_of(call)->pool, (job.rows + job.rows_per_task - 1) / job.rows_per_task, ftr__row_norm_task,
                  &job);
    return FTR_OK;
}

/* With u = dy gamma and z = (x - mean) / std: dx = (u - mean of u - z mean of u z) / std; RMS norm has no mean of u. */
static void ftr__row_norm_grad_row(const ftr__row_norm_job *job, int64_t row, float *sum, float *product) {
    const ftr_kernel_call *call = job->call;
    const int64_t at = row * job->n;
    const float *dy = (const float *)call->in[0].data + at, *x = (const float *)call->in[1].data + at;
    const float mean = job->rms ? 0.0f : job->mean[row];
    const double invstd = (double)job->invstd[row], n = (double)job->n;
    double sums[2];
    /* First, for dx may lie in dy's memory. */
    if (sum) job->math->row_norm_sums(job->n, dy, x, mean, job->invstd[row], sum, product);
    job->math->row_moments(job->n, x, mean, dy, job->gamma, sums);
    const double b = -invstd * invstd * sums[1] / n, c = job->rms ? 0.0 : -sums[0] / n;
    job->math->row_norm_grad(job->n, dy, x, mean, job->gamma, (float)invstd, (float)b, (float)c,
                             (float *)call->out[0].data + at);
}

static void ftr__row_norm_grad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__row_norm_job *job = arg;
    const int64_t begin = task * job->rows_per_task, end = ftr__row_norm_end(begin, job->rows_per_task, job->rows);
    (void)worker;
    for (int64_t row = begin; row < end; row++) ftr__row_norm_grad_row(job, row, NULL, NULL);
}

/* The same of a chunk of rows, with its share of dgamma and dbeta. */
static void ftr__row_norm_grad_chunk_task(void *arg, int64_t chunk, int32_t worker) {
    const ftr__row_norm_job *job = arg;
    const int64_t begin = chunk * job->rows_per_chunk, end = ftr__row_norm_end(begin, job->rows_per_chunk, job->rows);
    float *sum = job->partial + chunk * 2 * job->n, *product = sum + job->n;
    (void)worker;
    for (int64_t j = 0; j < 2 * job->n; j++) sum[j] = 0.0f;
    for (int64_t row = begin; row < end; row++) ftr__row_norm_grad_row(job, row, sum, product);
}

static void ftr__row_norm_combine_task(void *arg, int64_t task, int32_t worker) {
    const ftr__row_norm_job *job = arg;
    const int64_t column = task * FTR__ROW_NORM_TILE;
    const int64_t width = ftr__row_norm_end(column, FTR__ROW_NORM_TILE, job->n) - column;
    double sum[FTR__ROW_NORM_TILE] = {0}, product[FTR__ROW_NORM_TILE] = {0};
    (void)worker;
    for (int64_t chunk = 0; chunk < job->chunks; chunk++) {
        const float *from = job->partial + chunk * 2 * job->n + column;
        for (int64_t j = 0; j < width; j++) sum[j] += (double)from[j];
        for (int64_t j = 0; j < width; j++) product[j] += (double)from[job->n + j];
    }
    for (int64_t j = 0; j < width; j++) ((float *)job->call->out[1].data)[column + j] = (float)product[j];
    for (int64_t j = 0; j < width && !job->rms; j++) ((float *)job->call->out[2].data)[column + j] = (float)sum[j];
}

size_t ftr__cpu_row_norm_grad_workspace(const ftr_kernel_call *call) {
    const ftr__row_norm_job job = ftr__row_norm_job_of(call, &call->in[1]);
    return call->attr->row_norm.sums ? (size_t)(job.chunks * 2 * job.n) * sizeof(float) : 0;
}

ftr_status ftr__cpu_row_norm_grad(const ftr_kernel_call *call) {
    ftr__pool *pool = ftr__cpu_of(call)->pool;
    ftr__row_norm_job job = ftr__row_norm_job_of(call, &call->in[1]);
    job.math = &ftr__cpu_of(call)->simd->math;
    job.mean = job.rms ? NULL : call->in[2].data;
    job.invstd = call->in[job.rms ? 2 : 3].data;
    job.gamma = ftr__row_norm_data(call, job.rms ? 3 : 4);
    job.partial = call->workspace;
    if (call->attr->row_norm.sums) {
        ftr__pool_run(pool, job.chunks, ftr__row_norm_grad_chunk_task, &job);
        ftr__pool_run(pool, job.tiles, ftr__row_norm_combine_task, &job);
        return FTR_OK;
    }
    ftr__pool_run(pool, (job.rows + job.rows_per_task - 1) / job.rows_per_task, ftr__row_norm_grad_task, &job);
    return FTR_OK;
}

/* ----------------------------------------------------------------------------------------------------group norm -- */

/* Sums of a channel over chunks of a sample's positions; then of a group over its channels, in double. */
typedef struct ftr__group_norm_job {
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    const float *gamma;                          /* NULL where missing */
    int64_t samples, positions, channels, width; /* width: channels of a group */
    int64_t chunks, positions_per_chunk;         /* of a sample */
    float *partial;                              /* [samples][chunks][2][channels] */
    float *coefficients; /* [samples][4][channels]; forward: mean, scale, shift; gradient: mean, a, b, c */
} ftr__group_norm_job;

/* The sizes; data pointers are not looked at. */
static ftr__group_norm_job ftr__group_norm_job_of(const ftr_kernel_call *call, const ftr_view *x) {
    ftr__group_norm_job job = {.call = call, .samples = x->shape.dim[0], .positions = 1};
    job.channels = x->shape.dim[x->shape.rank - 1];
    job.width = job.channels / call->attr->row_norm.groups;
    for (int32_t d = 1; d < x->shape.rank - 1; d++) job.positions *= x->shape.dim[d];
    job.positions_per_chunk = 1 + FTR__ROW_NORM_CHUNK / (job.channels > 0 ? job.channels : 1);
    job.chunks = (job.positions + job.positions_per_chunk - 1) / job.positions_per_chunk;
    return job;
}

static size_t ftr__group_norm_workspace(const ftr__group_norm_job *job) {
    return (size_t)(job->samples * (job->chunks * 2 + 4) * job->channels) * sizeof(float);
}

static void ftr__group_norm_prepare(ftr__group_norm_job *job, int32_t gamma) {
    job->math = &ftr__cpu_of(job->call)->simd->math;
    job->gamma = ftr__row_norm_data(job->call, gamma);
    job->partial = job->call->workspace;
    job->coefficients = job->partial + job->samples * job->chunks * 2 * job->channels;
}

/* Positions of a chunk, which begin at element *at; its partial sums are set to 0. */
static int64_t ftr__group_norm_chunk(const ftr__group_norm_job *job, int64_t task, int64_t *at, float **partial) {
    const int64_t begin = task % job->chunks * job->positions_per_chunk;
    *at = (task / job->chunks * job->positions + begin) * job->channels;
    *partial = job->partial + task * 2 * job->channels;
    for (int64_t j = 0; j < 2 * job->channels; j++) (*partial)[j] = 0.0f;
    return ftr__row_norm_end(begin, job->positions_per_chunk, job->positions) - begin;
}

/* Each channel's mean, relative to the sample's first position, and its squared deviations from it. */
static void ftr__group_norm_statistics_task(void *arg, int64_t task, int32_t worker) {
    const ftr__group_norm_job *job = arg;
    const float *data = job->call->in[0].data, *center = data + task / job->chunks * job->positions * job->channels;
    int64_t at;
    float *mean;
    (void)worker;
    const int64_t count = ftr__group_norm_chunk(job, task, &at, &mean);
    job->math->column_centered_sum(count, job->channels, data + at, job->channels, center, mean);
    for (int64_t j = 0; j < job->channels; j++) mean[j] /= (float)count;
    job->math->column_deviation(count, job->channels, data + at, job->channels, center, mean, mean + job->channels);
}

/* Combines what has been counted with another part's mean and squared deviations. */
static void ftr__group_norm_merge(double *count, double *mean, double *deviation, double other_count, double other_mean,
                                  double other_deviation) {
    const double apart = other_mean - *mean, share = other_count / (*count + other_count);
    *deviation += other_deviation + apart * apart * *count * share;
    *mean += apart * share;
    *count += other_count;
}

static void ftr__group_norm_combine_task(void *arg, int64_t sample, int32_t worker) {
    const ftr__group_norm_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const int64_t channels = job->channels, groups = call->attr->row_norm.groups;
    const float *center = (const float *)call->in[0].data + sample * job->positions * channels;
    const float *partial = job->partial + sample * job->chunks * 2 * channels, *beta = ftr__row_norm_data(call, 2);
    float *coefficients = job->coefficients + sample * 4 * channels;
    (void)worker;
    for (int64_t g = 0; g < groups; g++) {
        double count = 0, mean = 0, deviation = 0;
        for (int64_t c = g * job->width; c < (g + 1) * job->width; c++)
            for (int64_t chunk = 0; chunk < job->chunks; chunk++) {
                const int64_t begin = chunk * job->positions_per_chunk;
                const int64_t end = ftr__row_norm_end(begin, job->positions_per_chunk, job->positions);
                const float *part = partial + chunk * 2 * channels + c;
                ftr__group_norm_merge(&count, &mean, &deviation, (double)(end - begin),
                                      (double)center[c] + (double)part[0], (double)part[channels]);
            }
        const double invstd = 1.0 / sqrt(deviation / count + call->attr->row_norm.eps);
        const float rounded = (float)(count > 0 ? mean : NAN);
        ((float *)call->out[1].data)[sample * groups + g] = rounded;
        ((float *)call->out[2].data)[sample * groups + g] = (float)invstd;
        for (int64_t c = g * job->width; c < (g + 1) * job->width; c++) {
            const double scale = job->gamma ? (double)job->gamma[c] * invstd : invstd;
            coefficients[c] = rounded;
            coefficients[channels + c] = (float)scale;
            coefficients[2 * channels + c] = (float)((beta ? (double)beta[c] : 0.0) + ((double)rounded - mean) * scale);
        }
    }
}

static void ftr__group_norm_apply_task(void *arg, int64_t task, int32_t worker) {
    const ftr__group_norm_job *job = arg;
    const int64_t sample = task / job->chunks, begin = task % job->chunks * job->positions_per_chunk;
    const int64_t count = ftr__row_norm_end(begin, job->positions_per_chunk, job->positions) - begin;
    const int64_t at = (sample * job->positions + begin) * job->channels;
    const float *mean = job->coefficients + sample * 4 * job->channels, *scale = mean + job->channels;
    (void)worker;
    job->math->norm_apply(count, job->channels, (const float *)job->call->in[0].data + at, mean, scale,
                          scale + job->channels, NULL, false, (float *)job->call->out[0].data + at);
}

size_t ftr__cpu_group_norm_workspace(const ftr_kernel_call *call) {
    const ftr__group_norm_job job = ftr__group_norm_job_of(call, &call->in[0]);
    return ftr__group_norm_workspace(&job);
}

ftr_status ftr__cpu_group_norm(const ftr_kernel_call *call) {
    ftr__pool *pool = ftr__cpu_of(call)->pool;
    ftr__group_norm_job job = ftr__group_norm_job_of(call, &call->in[0]);
    ftr__group_norm_prepare(&job, 1);
    ftr__pool_run(pool, job.samples * job.chunks, ftr__group_norm_statistics_task, &job);
    ftr__pool_run(pool, job.samples, ftr__group_norm_combine_task, &job);
    ftr__pool_run(pool, job.samples * job.chunks, ftr__group_norm_apply_task, &job);
    return FTR_OK;
}

/* A channel has the mean of its group. */
static void ftr__group_norm_mean_task(void *arg, int64_t sample, int32_t worker) {
    const ftr__group_norm_job *job = arg;
    const float *mean = (const float *)job->call->in[2].data + sample * job->call->attr->row_norm.groups;
    (void)worker;
    for (int64_t c = 0; c < job->channels; c++)
        job->coefficients[sample * 4 * job->channels + c] = mean[c / job->width];
}

static void ftr__group_norm_grad_sums_task(void *arg, int64_t task, int32_t worker) {
    const ftr__group_norm_job *job = arg;
    const float *mean = job->coefficients + task / job->chunks * 4 * job->channels;
    const ftr__norm_gate open = {.activation = FTR_ACT_NONE};
    int64_t at;
    float *sum;
    (void)worker;
    const int64_t count = ftr__group_norm_chunk(job, task, &at, &sum), channels = job->channels;
    const float *dy = (const float *)job->call->in[0].data + at, *x = (const float *)job->call->in[1].data + at;
    for (int64_t c = 0; c < channels; c += FTR__NORM_TILE) {
        const int64_t width = channels - c < FTR__NORM_TILE ? channels - c : FTR__NORM_TILE;
        job->math->norm_grad_sums(count, width, channels, dy + c, x + c, &open, mean + c, sum + c, sum + channels + c);
    }
}

/* Sums of dy and of dy (x - mean) of one channel of a sample. */
static void ftr__group_norm_channel(const ftr__group_norm_job *job, int64_t sample, int64_t c, double sums[2]) {
    sums[0] = sums[1] = 0;
    for (int64_t chunk = 0; chunk < job->chunks; chunk++) {
        const float *part = job->partial + (sample * job->chunks + chunk) * 2 * job->channels + c;
        sums[0] += (double)part[0];
        sums[1] += (double)part[job->channels];
    }
}

/* The coefficients of dx = dy a + (x - mean) b + c; as a row of layer norm. */
static void ftr__group_norm_grad_combine_task(void *arg, int64_t sample, int32_t worker) {
    const ftr__group_norm_job *job = arg;
    const int64_t channels = job->channels, groups = job->call->attr->row_norm.groups;
    float *a = job->coefficients + (sample * 4 + 1) * channels;
    (void)worker;
    for (int64_t g = 0; g < groups; g++) {
        const double invstd = (double)((const float *)job->call->in[3].data)[sample * groups + g];
        const double share = invstd / (double)(job->positions * job->width);
        double sum = 0, product = 0;
        for (int64_t c = g * job->width; c < (g + 1) * job->width; c++) {
            const double gamma = job->gamma ? (double)job->gamma[c] : 1.0;
            double sums[2];
            ftr__group_norm_channel(job, sample, c, sums);
            sum += gamma * sums[0];
            product += gamma * sums[1];
            a[c] = (float)(gamma * invstd);
        }
        for (int64_t c = g * job->width; c < (g + 1) * job->width; c++) {
            a[channels + c] = (float)(-invstd * invstd * share * product);
            a[2 * channels + c] = (float)(-share * sum);
        }
    }
}

static void ftr__group_norm_parameters_task(void *arg, int64_t task, int32_t worker) {
    const ftr__group_norm_job *job = arg;
    const int64_t begin = task * FTR__ROW_NORM_TILE, groups = job->call->attr->row_norm.groups;
    const int64_t end = ftr__row_norm_end(begin, FTR__ROW_NORM_TILE, job->channels);
    (void)worker;
    for (int64_t c = begin; c < end; c++) {
        double dgamma = 0, dbeta = 0, sums[2];
        for (int64_t sample = 0; sample < job->samples && job->chunks > 0; sample++) {
            ftr__group_norm_channel(job, sample, c, sums);
            dgamma += sums[1] * (double)((const float *)job->call->in[3].data)[sample * groups + c / job->width];
            dbeta += sums[0];
        }
        ((float *)job->call->out[1].data)[c] = (float)dgamma;
        ((float *)job->call->out[2].data)[c] = (float)dbeta;
    }
}

static void ftr__group_norm_grad_apply_task(void *arg, int64_t task, int32_t worker) {
    const ftr__group_norm_job *job = arg;
    const int64_t sample = task / job->chunks, begin = task % job->chunks * job->positions_per_chunk;
    const int64_t count = ftr__row_norm_end(begin, job->positions_per_chunk, job->positions) - begin;
    const int64_t at = (sample * job->positions + begin) * job->channels, channels = job->channels;
    const float *mean = job->coefficients + sample * 4 * channels, *a = mean + channels;
    const ftr__norm_gate open = {.activation = FTR_ACT_NONE};
    (void)worker;
    job->math->norm_grad_apply(count, channels, (const float *)job->call->in[0].data + at,
                               (const float *)job->call->in[1].data + at, &open, mean, a, a + channels,
                               a + 2 * channels, (float *)job->call->out[0].data + at);
}

size_t ftr__cpu_group_norm_grad_workspace(const ftr_kernel_call *call) {
    const ftr__group_norm_job job = ftr__group_norm_job_of(call, &call->in[1]);
    return ftr__group_norm_workspace(&job);
}

ftr_status ftr__cpu_group_norm_grad(const ftr_kernel_call *call) {
    ftr__pool *pool = ftr__cpu_of(call)->pool;
    ftr__group_norm_job job = ftr__group_norm_job_of(call, &call->in[1]);
    ftr__group_norm_prepare(&job, 4);
    ftr__pool_run(pool, job.samples, ftr__group_norm_mean_task, &job);
    ftr__pool_run(pool, job.samples * job.chunks, ftr__group_norm_grad_sums_task, &job);
    ftr__pool_run(pool, job.samples, ftr__group_norm_grad_combine_task, &job);
    if (call->attr->row_norm.sums)
        ftr__pool_run(pool, (job.channels + FTR__ROW_NORM_TILE - 1) / FTR__ROW_NORM_TILE,
                      ftr__group_norm_parameters_task, &job);
    ftr__pool_run(pool, job.samples * job.chunks, ftr__group_norm_grad_apply_task, &job);
    return FTR_OK;
}
