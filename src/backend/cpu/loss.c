/* Softmax along an axis and cross entropy over the last one. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

#define FTR__SOFTMAX_GRAIN 16384 /* elements of a task */
#define FTR__SOFTMAX_TILE 256    /* neighbouring columns that are handled together when the axis is not the last one */

typedef struct ftr__softmax_job {
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    int64_t n, inner, tiles, units, per_task; /* a unit is a row, or a tile of columns */
    bool log;
} ftr__softmax_job;

static void ftr__softmax_row(const ftr__softmax_job *job, int64_t row) {
    const ftr__simd_math *math = job->math;
    const float *x = (const float *)job->call->in[0].data + row * job->n;
    float *out = (float *)job->call->out[0].data + row * job->n;
    const float most = math->maximum(job->n, x);
    const double sum = math->exp_sum(job->n, x, most, job->log ? NULL : out);
    const float scale = (float)(1.0 / sum);
    if (job->log)
        math->subtract_twice(job->n, x, most, (float)log(sum), out);
    else
        math->binary[FTR__BINARY_MUL][FTR__OPERANDS_RIGHT_SCALAR](job->n, out, &scale, out);
}

static void ftr__softmax_columns(const ftr__softmax_job *job, int64_t offset, int64_t width) {
    const ftr__simd_math *math = job->math;
    const float *x = (const float *)job->call->in[0].data + offset;
    float *out = (float *)job->call->out[0].data + offset;
    float most[FTR__SOFTMAX_TILE], last[FTR__SOFTMAX_TILE], made[FTR__SOFTMAX_TILE];
    double sum[FTR__SOFTMAX_TILE] = {0};
    for (int64_t j = 0; j < width; j++) most[j] = -INFINITY;
    math->column_maximum(job->n, width, x, job->inner, most);
    for (int64_t r = 0; r < job->n; r++) {
        float *e = job->log ? made : out + r * job->inner;
        math->binary[FTR__BINARY_SUB][FTR__OPERANDS_ROWS](width, x + r * job->inner, most, e);
        math->unary[FTR__UNARY_EXP](width, e, e);
        for (int64_t j = 0; j < width; j++) sum[j] += (double)e[j];
    }
    for (int64_t j = 0; j < width; j++) last[j] = (float)(job->log ? log(sum[j]) : 1.0 / sum[j]);
    for (int64_t r = 0; r < job->n; r++) {
        float *to = out + r * job->inner;
        if (job->log) math->binary[FTR__BINARY_SUB][FTR__OPERANDS_ROWS](width, x + r * job->inner, most, to);
        math->binary[job->log ? FTR__BINARY_SUB : FTR__BINARY_MUL][FTR__OPERANDS_ROWS](width, to, last, to);
    }
}

static void ftr__softmax_grad_row(const ftr__softmax_job *job, int64_t row) {
    const float *dy = (const float *)job->call->in[0].data + row * job->n;
    const float *y = (const float *)job->call->in[1].data + row * job->n;
    float *dx = (float *)job->call->out[0].data + row * job->n;
    if (job->log)
        job->math->log_softmax_grad(job->n, dy, y, (float)job->math->sum(job->n, dy), dx);
    else
        job->math->softmax_grad(job->n, dy, y, (float)job->math->dot(job->n, dy, y), dx);
}

static void ftr__softmax_grad_columns(const ftr__softmax_job *job, int64_t offset, int64_t width) {
    const float *dy = (const float *)job->call->in[0].data + offset, *y = (const float *)job->call->in[1].data + offset;
    float *dx = (float *)job->call->out[0].data + offset, e[FTR__SOFTMAX_TILE];
    double sum[FTR__SOFTMAX_TILE] = {0};
    for (int64_t r = 0; r < job->n; r++)
        for (int64_t j = 0, at = r * job->inner; j < width; j++, at++)
            sum[j] += job->log ? (double)dy[at] : (double)dy[at] * (double)y[at];
    for (int64_t r = 0; r < job->n; r++) {
        const int64_t at = r * job->inner;
        if (job->log) {
            job->math->unary[FTR__UNARY_EXP](width, y + at, e);
            for (int64_t j = 0; j < width; j++) dx[at + j] = (float)((double)dy[at + j] - (double)e[j] * sum[j]);
        } else {
            for (int64_t j = 0; j < width; j++) dx[at + j] = (float)((double)y[at + j] * ((double)dy[at + j] - sum[j]));
        }
    }
}

static void ftr__softmax_task(void *arg, int64_t task, int32_t worker) {
    const ftr__softmax_job *job = arg;
    const bool gradient = job->call->op == FTR_OP_softmax_grad || job->call->op == FTR_OP_log_softmax_grad;
    const int64_t first = task * job->per_task;
    (void)worker;
    for (int64_t unit = first; unit < job->units && unit < first + job->per_task; unit++) {
        if (job->inner == 1) {
            (gradient ? ftr__softmax_grad_row : ftr__softmax_row)(job, unit);
            continue;
        }
        const int64_t column = unit % job->tiles * FTR__SOFTMAX_TILE, left = job->inner - column;
        const int64_t offset = unit / job->tiles * job->n * job->inner + column;
        (gradient ? ftr__softmax_grad_columns
                  : ftr__softmax_columns)(job, offset, left < FTR__SOFTMAX_TILE ? left : FTR__SOFTMAX_TILE);
    }
}

static ftr_status ftr__softmax_run(const ftr_kernel_call *call, bool log) {
    const ftr_view *x = &call->in[0];
    const int32_t axis = call->attr->axis.axis;
    if (x->count == 0) return FTR_OK;
    ftr__softmax_job job = {.call = call, .math = &ftr__cpu_of(call)->simd->math, .inner = 1, .log = log};
    job.n = x->shape.rank > 0 ? x->shape.dim[axis] : 1;
    for (int32_t d = axis + 1; d < x->shape.rank; d++) job.inner *= x->shape.dim[d];
    job.tiles = job.inner == 1 ? 1 : (job.inner + FTR__SOFTMAX_TILE - 1) / FTR__SOFTMAX_TILE;
    job.units = x->count / (job.n * job.inner) * job.tiles;
    const int64_t width = job.inner < FTR__SOFTMAX_TILE ? job.inner : FTR__SOFTMAX_TILE;
    job.per_task = 1 + FTR__SOFTMAX_GRAIN / (job.n * width);
    ftr__pool_run(ftr__cpu_of(call)->pool, (job.units + job.per_task - 1) / job.per_task, ftr__softmax_task, &job);
    return FTR_OK;
}

ftr_status ftr__cpu_softmax(const ftr_kernel_call *call) {
    return ftr__softmax_run(call, call->op == FTR_OP_log_softmax);
}

ftr_status ftr__cpu_softmax_grad(const ftr_kernel_call *call) {
    return ftr__softmax_run(call, call->op == FTR_OP_log_softmax_grad);
}

/* ------------------------------------------------------------------------------------------------- cross entropy -- */

/* What the rows of a task give. */
typedef struct ftr__loss_part {
    double loss, weight;
    int64_t bad_row; /* the first one whose label is outside the classes; -1 */
} ftr__loss_part;

typedef struct ftr__loss_job {
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    const ftr_view *logits, *labels;
    const float *class_weights, *mask; /* NULL where missing */
    int64_t classes, rows, rows_per_task, tasks, rows_per_mask;
    double smoothing, all_weights; /* all_weights: sum of the class weights */
    bool nll;                      /* the logits are log-probabilities already */
} ftr__loss_job;

/* The sizes; data pointers are not looked at. */
static ftr__loss_job ftr__loss_job_of(const ftr_kernel_call *call, const ftr_view *logits) {
    ftr__loss_job job = {.call = call, .logits = logits, .labels = logits + 1};
    job.classes = logits->shape.dim[logits->shape.rank - 1];
    job.rows = job.labels->count;
    job.rows_per_task = 1 + FTR__SOFTMAX_GRAIN / (job.classes > 0 ? job.classes : 1);
    job.tasks = (job.rows + job.rows_per_task - 1) / job.rows_per_task;
    job.smoothing = call->attr->cross_entropy.label_smoothing;
    job.nll = call->op == FTR_OP_nll || call->op == FTR_OP_nll_grad;
    return job;
}

static void ftr__loss_prepare(ftr__loss_job *job, const ftr_view *class_weights, const ftr_view *mask) {
    job->math = &ftr__cpu_of(job->call)->simd->math;
    job->class_weights = class_weights ? class_weights->data : NULL;
    job->mask = mask ? mask->data : NULL;
    job->rows_per_mask = mask && mask->count > 0 ? job->rows / mask->count : 1;
    job->all_weights = class_weights ? 0.0 : (double)job->classes;
    for (int64_t c = 0; class_weights && c < job->classes; c++) job->all_weights += (double)job->class_weights[c];
}

static int64_t ftr__loss_label(const ftr__loss_job *job, int64_t row) {
    return job->labels->dtype == FTR_I32 ? ((const int32_t *)job->labels->data)[row]
                                         : ((const int64_t *)job->labels->data)[row];
}

static double ftr__loss_mask(const ftr__loss_job *job, int64_t row) {
    return job->mask ? (double)job->mask[row / job->rows_per_mask] : 1.0;
}

static double ftr__loss_class_weight(const ftr__loss_job *job, int64_t label) {
    return job->class_weights ? (double)job->class_weights[label] : 1.0;
}

/* Sum over classes of weight * -log p, where log p = x - most - log_sum. */
static double ftr__loss_smooth_sum(const ftr__loss_job *job, const float *x, float most, double log_sum) {
    double sum = 0;
    for (int64_t c = 0; c < job->classes; c++)
        sum += ftr__loss_class_weight(job, c) * ((double)most - (double)x[c] + log_sum);
    return sum;
}

/* PyTorch's cross_entropy for one row: (1 - e) w[label] nll + e / C * sum of w[c] * -log p[c]. */
static void ftr__loss_row(const ftr__loss_job *job, int64_t row, ftr__loss_part *part) {
    const float *x = (const float *)job->logits->data + row * job->classes;
    const float most = job->nll ? 0.0f : job->math->maximum(job->classes, x);
    const double log_sum = job->nll ? 0.0 : log(job->math->exp_sum(job->classes, x, most, NULL));
    const int64_t label = ftr__loss_label(job, row);
    const double mask = ftr__loss_mask(job, row);
    double loss = 0, weight = 0;
    if (!job->nll) ((float *)job->call->out[1].data)[row] = (float)log_sum;
    if (mask != 0.0 && label != job->call->attr->cross_entropy.ignore_index) {
        if (label < 0 || label >= job->classes) {
            if (part->bad_row < 0) part->bad_row = row;
            return;
        }
        weight = mask * ftr__loss_class_weight(job, label);
        loss = (1.0 - job->smoothing) * weight * ((double)most - (double)x[label] + log_sum);
        if (job->smoothing > 0)
            loss += mask * job->smoothing / (double)job->classes * ftr__loss_smooth_sum(job, x, most, log_sum);
    }
    if (job->call->attr->cross_entropy.reduction == FTR_REDUCE_NONE)
        ((float *)job->call->out[0].data)[row] = (float)loss;
    part->loss += loss;
    part->weight += weight;
}

static void ftr__loss_task(void *arg, int64_t task, int32_t worker) {
    const ftr__loss_job *job = arg;
    const int64_t first = task * job->rows_per_task;
    ftr__loss_part part = {.bad_row = -1};
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++)
        ftr__loss_row(job, row, &part);
    ((ftr__loss_part *)job->call->workspace)[task] = part;
}

size_t ftr__cpu_cross_entropy_workspace(const ftr_kernel_call *call) {
    const ftr__loss_job job = ftr__loss_job_of(call, &call->in[0]);
    return (size_t)job.tasks * sizeof(ftr__loss_part);
}

ftr_status ftr__cpu_cross_entropy(const ftr_kernel_call *call) {
    ftr__loss_job job = ftr__loss_job_of(call, &call->in[0]);
    ftr__loss_prepare(&job, ftr__optional_input(call, 2), ftr__optional_input(call, 3));
    ftr__pool_run(ftr__cpu_of(call)->pool, job.tasks, ftr__loss_task, &job);
    double loss = 0, weight = 0;
    for (int64_t task = 0; task < job.tasks; task++) {
        const ftr__loss_part *part = (const ftr__loss_part *)call->workspace + task;
        if (part->bad_row >= 0)
            return ftr_backend_error(call, FTR_ERROR_DATA, "label %lld at row %lld is outside the %lld classes",
                                     (long long)ftr__loss_label(&job, part->bad_row), (long long)part->bad_row,
                                     (long long)job.classes);
        loss += part->loss;
        weight += part->weight;
    }
    const ftr_reduction reduction = call->attr->cross_entropy.reduction;
    if (reduction != FTR_REDUCE_NONE)
        *(float *)call->out[0].data = (float)(reduction == FTR_REDUCE_MEAN ? loss / weight : loss);
    *(float *)call->out[job.nll ? 1 : 2].data = (float)weight;
    return FTR_OK;
}

/* d loss / d x[c] = g ((1 - e) w[label] (p[c] - [c == label]) + e / C (p[c] sum of w - w[c])). */
static void ftr__loss_grad_row(const ftr__loss_job *job, int64_t row) {
    const ftr_kernel_call *call = job->call;
    const ftr_reduction reduction = call->attr->cross_entropy.reduction;
    const int64_t label = ftr__loss_label(job, row);
    const double mask = ftr__loss_mask(job, row);
    const float *x = (const float *)job->logits->data + row * job->classes, *dloss = call->in[0].data;
    float *dx = (float *)call->out[0].data + row * job->classes;
    if (mask == 0.0 || label == call->attr->cross_entropy.ignore_index || label < 0 || label >= job->classes) {
        memset(dx, 0, (size_t)job->classes * sizeof *dx);
        return;
    }
    double g = mask * (double)dloss[reduction == FTR_REDUCE_NONE ? row : 0];
    if (reduction == FTR_REDUCE_MEAN) g /= (double)*(const float *)call->in[job->nll ? 3 : 4].data;
    if (job->nll) {
        memset(dx, 0, (size_t)job->classes * sizeof *dx);
        dx[label] = (float)(-g * ftr__loss_class_weight(job, label));
        return;
    }
    const double at_label = g * (1.0 - job->smoothing) * ftr__loss_class_weight(job, label);
    const double at_each = job->smoothing > 0 ? g * job->smoothing / (double)job->classes : 0.0;
    const double sum = exp((double)((const float *)call->in[3].data)[row]);
    job->math->exp_scale_add(job->classes, x, job->math->maximum(job->classes, x),
                             (float)((at_label + at_each * job->all_weights) / sum),
                             job->class_weights ? 0.0f : (float)-at_each, dx);
    if (job->class_weights && job->smoothing > 0)
        job->math->axpy(job->classes, (float)-at_each, job->class_weights, dx);
    dx[label] -= (float)at_label;
}

static void ftr__loss_grad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__loss_job *job = arg;
    const int64_t first = task * job->rows_per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++) ftr__loss_grad_row(job, row);
}

ftr_status ftr__cpu_cross_entropy_grad(const ftr_kernel_call *call) {
    ftr__loss_job job = ftr__loss_job_of(call, &call->in[1]);
    const int32_t weights = job.nll ? 4 : 5;
    ftr__loss_prepare(&job, ftr__optional_input(call, weights), ftr__optional_input(call, weights + 1));
    ftr__pool_run(ftr__cpu_of(call)->pool, job.tasks, ftr__loss_grad_task, &job);
    return FTR_OK;
}
