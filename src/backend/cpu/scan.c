/* Ops along an axis: cumulative sum, product, log-sum-exp, and their gradients. A unit is a tile of neighbouring columns
 * (one if the axis is the last one), which are handled together; sums and products are kept in double. */
#include "backend/cpu/cpu.h"

#include <math.h>

#define FTR__SCAN_GRAIN 16384 /* elements of a task */
#define FTR__SCAN_TILE 256    /* columns of a unit */

typedef struct ftr__scan_job ftr__scan_job;

struct ftr__scan_job {
    const ftr_kernel_call *call;
    int64_t n, inner, tiles, units, per_task;
    void (*unit)(const ftr__scan_job *job, int64_t outer, int64_t column, int64_t width);
};

static void ftr__scan_task(void *arg, int64_t task, int32_t worker) {
    const ftr__scan_job *job = arg;
    const int64_t first = task * job->per_task;
    (void)worker;
    for (int64_t unit = first; unit < job->units && unit < first + job->per_task; unit++) {
        const int64_t column = unit % job->tiles * FTR__SCAN_TILE, left = job->inner - column;
        job->unit(job, unit / job->tiles, column, left < FTR__SCAN_TILE ? left : FTR__SCAN_TILE);
    }
}

/* Runs over x, the input whose lines along `axis` are worked on. */
static void ftr__scan_run(ftr__scan_job *job, const ftr_view *x, int32_t axis) {
    int64_t outer = 1;
    job->n = x->shape.dim[axis];
    job->inner = 1;
    for (int32_t d = 0; d < axis; d++) outer *= x->shape.dim[d];
    for (int32_t d = axis + 1; d < x->shape.rank; d++) job->inner *= x->shape.dim[d];
    if (outer == 0 || job->inner == 0) return;
    const int64_t width = job->inner < FTR__SCAN_TILE ? job->inner : FTR__SCAN_TILE;
    job->tiles = (job->inner + FTR__SCAN_TILE - 1) / FTR__SCAN_TILE;
    job->units = outer * job->tiles;
    job->per_task = 1 + FTR__SCAN_GRAIN / ((job->n > 0 ? job->n : 1) * width);
    ftr__pool_run(ftr__cpu_of(job->call)->pool, (job->units + job->per_task - 1) / job->per_task, ftr__scan_task, job);
}

/* Integers wrap: they are added and multiplied as unsigned ones. */
static inline uint64_t ftr__scan_whole(const ftr_view *x, int64_t i) {
    return x->dtype == FTR_I32 ? (uint64_t)((const int32_t *)x->data)[i] : (uint64_t)((const int64_t *)x->data)[i];
}

static inline void ftr__scan_store(const ftr_view *y, int64_t i, uint64_t value) {
    if (y->dtype == FTR_I32)
        ((int32_t *)y->data)[i] = (int32_t)(uint32_t)value;
    else
        ((int64_t *)y->data)[i] = (int64_t)value;
}

/* ------------------------------------------------------------------------------------------------ cumulative sum -- */

static void ftr__cumsum_unit(const ftr__scan_job *job, int64_t outer, int64_t column, int64_t width) {
    const ftr_view *x = &job->call->in[0], *y = &job->call->out[0];
    const bool reverse = job->call->attr->cumsum.reverse, real = x->dtype == FTR_F32;
    double sum[FTR__SCAN_TILE];
    uint64_t whole[FTR__SCAN_TILE];
    for (int64_t j = 0; j < width; j++) {
        sum[j] = 0.0;
        whole[j] = 0;
    }
    for (int64_t r = 0; r < job->n; r++) {
        const int64_t at = (outer * job->n + (reverse ? job->n - 1 - r : r)) * job->inner + column;
        if (real) {
            const float *from = (const float *)x->data + at;
            float *to = (float *)y->data + at;
            for (int64_t j = 0; j < width; j++) {
                sum[j] += (double)from[j];
                to[j] = (float)sum[j];
            }
        } else {
            for (int64_t j = 0; j < width; j++) {
                whole[j] += ftr__scan_whole(x, at + j);
                ftr__scan_store(y, at + j, whole[j]);
            }
        }
    }
}

ftr_status ftr__cpu_cumsum(const ftr_kernel_call *call) {
    ftr__scan_job job = {.call = call, .unit = ftr__cumsum_unit};
    ftr__scan_run(&job, &call->in[0], call->attr->cumsum.axis);
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------- product -- */

static void ftr__prod_unit(const ftr__scan_job *job, int64_t outer, int64_t column, int64_t width) {
    const ftr_view *x = &job->call->in[0], *y = &job->call->out[0];
    const int64_t base = outer * job->n * job->inner + column, to = outer * job->inner + column;
    double real[FTR__SCAN_TILE];
    uint64_t whole[FTR__SCAN_TILE];
    for (int64_t j = 0; j < width; j++) {
        real[j] = 1.0;
        whole[j] = 1;
    }
    for (int64_t r = 0; r < job->n; r++) {
        const int64_t at = base + r * job->inner;
        for (int64_t j = 0; j < width; j++) {
            if (x->dtype == FTR_F32)
                real[j] *= (double)((const float *)x->data)[at + j];
            else
                whole[j] *= ftr__scan_whole(x, at + j);
        }
    }
    for (int64_t j = 0; j < width; j++) {
        if (y->dtype == FTR_F32)
            ((float *)y->data)[to + j] = (float)real[j];
        else
            ftr__scan_store(y, to + j, whole[j]);
    }
}

/* The product of the elements that are not 0, and how many are 0: a single one alone has a gradient; of two, none. */
static void ftr__prod_grad_unit(const ftr__scan_job *job, int64_t outer, int64_t column, int64_t width) {
    const float *dy = (const float *)job->call->in[0].data + outer * job->inner + column;
    const int64_t base = outer * job->n * job->inner + column;
    const float *x = (const float *)job->call->in[1].data + base;
    float *dx = (float *)job->call->out[0].data + base;
    double product[FTR__SCAN_TILE];
    int64_t zeros[FTR__SCAN_TILE];
    for (int64_t j = 0; j < width; j++) {
        product[j] = 1.0;
        zeros[j] = 0;
    }
    for (int64_t r = 0; r < job->n; r++)
        for (int64_t j = 0; j < width; j++) {
            const float value = x[r * job->inner + j];
            if (value == 0.0f)
                zeros[j]++;
            else
                product[j] *= (double)value;
        }
    for (int64_t r = 0; r < job->n; r++)
        for (int64_t j = 0; j < width; j++) {
            const int64_t at = r * job->inner + j;
            double others = 0.0;
            if (zeros[j] == 0)
                others = product[j] / (double)x[at];
            else if (zeros[j] == 1 && x[at] == 0.0f)
                others = product[j];
            dx[at] = (float)((double)dy[j] * others);
        }
}

ftr_status ftr__cpu_prod(const ftr_kernel_call *call) {
    ftr__scan_job job = {.call = call, .unit = ftr__prod_unit};
    ftr__scan_run(&job, &call->in[0], call->attr->axis.axis);
    return FTR_OK;
}

ftr_status ftr__cpu_prod_grad(const ftr_kernel_call *call) {
    ftr__scan_job job = {.call = call, .unit = ftr__prod_grad_unit};
    ftr__scan_run(&job, &call->in[1], call->attr->axis.axis);
    return FTR_OK;
}

/* --------------------------------------------------------------------------------------------------- log-sum-exp -- */

/* x - most is NaN where both are infinite: then nothing is taken off. */
static inline float ftr__logsumexp_shift(float most) { return isinf(most) ? 0.0f : most; }

static void ftr__logsumexp_unit(const ftr__scan_job *job, int64_t outer, int64_t column, int64_t width) {
    const ftr__simd_math *math = &ftr__cpu_of(job->call)->simd->math;
    const float *x = (const float *)job->call->in[0].data + outer * job->n * job->inner + column;
    float *y = (float *)job->call->out[0].data + outer * job->inner + column;
    float most[FTR__SCAN_TILE], made[FTR__SCAN_TILE];
    double sum[FTR__SCAN_TILE] = {0};
    if (job->inner == 1) {
        most[0] = ftr__logsumexp_shift(math->maximum(job->n, x));
        *y = (float)((double)most[0] + log(math->exp_sum(job->n, x, most[0], NULL)));
        return;
    }
    for (int64_t j = 0; j < width; j++) most[j] = -INFINITY;
    math->column_maximum(job->n, width, x, job->inner, most);
    for (int64_t j = 0; j < width; j++) most[j] = ftr__logsumexp_shift(most[j]);
    for (int64_t r = 0; r < job->n; r++) {
        math->binary[FTR__BINARY_SUB][FTR__OPERANDS_ROWS](width, x + r * job->inner, most, made);
        math->unary[FTR__UNARY_EXP](width, made, made);
        for (int64_t j = 0; j < width; j++) sum[j] += (double)made[j];
    }
    for (int64_t j = 0; j < width; j++) y[j] = (float)((double)most[j] + log(sum[j]));
}

ftr_status ftr__cpu_logsumexp(const ftr_kernel_call *call) {
    ftr__scan_job job = {.call = call, .unit = ftr__logsumexp_unit};
    ftr__scan_run(&job, &call->in[0], call->attr->axis.axis);
    return FTR_OK;
}

/* dx = dy e^(x - most) / sum. Where the largest is inf, y is too: dy e^(x - y) is NaN for the infinite x, else 0. */
static inline float ftr__logsumexp_scale(float dy, float most, double sum) {
    return isinf(most) && most > 0.0f ? dy : (float)((double)dy / sum);
}

static void ftr__logsumexp_grad_unit(const ftr__scan_job *job, int64_t outer, int64_t column, int64_t width) {
    const ftr__simd_math *math = &ftr__cpu_of(job->call)->simd->math;
    const int64_t base = outer * job->n * job->inner + column;
    const float *dy = (const float *)job->call->in[0].data + outer * job->inner + column;
    const float *x = (const float *)job->call->in[1].data + base;
    float *dx = (float *)job->call->out[0].data + base, most[FTR__SCAN_TILE], scale[FTR__SCAN_TILE];
    double sum[FTR__SCAN_TILE] = {0};
    if (job->inner == 1) {
        most[0] = math->maximum(job->n, x);
        scale[0] = ftr__logsumexp_scale(*dy, most[0], math->exp_sum(job->n, x, most[0], dx));
        math->binary[FTR__BINARY_MUL][FTR__OPERANDS_RIGHT_SCALAR](job->n, dx, scale, dx);
        return;
    }
    for (int64_t j = 0; j < width; j++) most[j] = -INFINITY;
    math->column_maximum(job->n, width, x, job->inner, most);
    for (int64_t r = 0; r < job->n; r++) {
        float *e = dx + r * job->inner;
        math->binary[FTR__BINARY_SUB][FTR__OPERANDS_ROWS](width, x + r * job->inner, most, e);
        math->unary[FTR__UNARY_EXP](width, e, e);
        for (int64_t j = 0; j < width; j++) sum[j] += (double)e[j];
    }
    for (int64_t j = 0; j < width; j++) scale[j] = ftr__logsumexp_scale(dy[j], most[j], sum[j]);
    for (int64_t r = 0; r < job->n; r++)
        math->binary[FTR__BINARY_MUL][FTR__OPERANDS_ROWS](width, dx + r * job->inner, scale, dx + r * job->inner);
}

ftr_status ftr__cpu_logsumexp_grad(const ftr_kernel_call *call) {
    ftr__scan_job job = {.call = call, .unit = ftr__logsumexp_grad_unit};
    ftr__scan_run(&job, &call->in[1], call->attr->axis.axis);
    return FTR_OK;
}
