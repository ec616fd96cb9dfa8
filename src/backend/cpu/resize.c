/* Resizing of [n, h, w, c]: vectors run along the channels. A task is a number of rows of the result. Where each row
 * and column comes from is worked out once, in the workspace. The gradient gathers: each input pixel looks up the output
 * pixels that it went into, so that no two tasks write to one place. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <string.h>

#define FTR__RESIZE_GRAIN 16384
/* Pixels of fewer channels, such as colours, are not worth a call. */
#define FTR__RESIZE_VECTOR 8

/* Height or width: output i is (1 - share[i]) times input low[i] plus share[i] times input high[i]. low does not
 * decrease; first[k] is the first output whose low is k or more, up to k = in. */
typedef struct ftr__resize_axis {
    int64_t in, out;
    int64_t *low, *high, *first;
    double *share;
} ftr__resize_axis;

typedef struct ftr__resize_job {
    const float *x; /* of the gradient: dy */
    float *y;       /* dx */
    const ftr__simd_math *math;
    ftr__resize_axis axis[2]; /* height, width */
    int64_t channels;
    bool nearest;
    int64_t rows, rows_per_task; /* of what is computed, over all images */
} ftr__resize_job;

/* ----------------------------------------------------------------------------------------------- source of a row -- */

/* PyTorch's rule, with product and quotient in f32. */
static int64_t ftr__resize_nearest(int64_t at, int64_t in, int64_t out) {
    const int64_t low = (int64_t)floorf((float)at * ((float)in / (float)out));
    return low < in ? low : in - 1;
}

static double ftr__resize_position(int64_t at, int64_t in, int64_t out, bool align_corners) {
    if (align_corners) return out > 1 ? (double)(at * (in - 1)) / (double)(out - 1) : 0.0;
    const double position = ((double)at + 0.5) * ((double)in / (double)out) - 0.5;
    return position > 0.0 ? position : 0.0;
}

static void ftr__resize_fill(const ftr__resize_axis *axis, bool nearest, bool align_corners) {
    int64_t next = 0;
    for (int64_t i = 0; i < axis->out; i++) {
        const double position = nearest ? (double)ftr__resize_nearest(i, axis->in, axis->out)
                                        : ftr__resize_position(i, axis->in, axis->out, align_corners);
        const int64_t before = (int64_t)position, low = before < axis->in ? before : axis->in - 1;
        axis->low[i] = low;
        axis->high[i] = low + 1 < axis->in && !nearest ? low + 1 : low;
        axis->share[i] = axis->high[i] > low ? position - (double)low : 0.0;
        while (next <= low) axis->first[next++] = i;
    }
    while (next <= axis->in) axis->first[next++] = axis->out;
}

/* What output i takes of input k. */
static double ftr__resize_weight(const ftr__resize_axis *axis, int64_t i, int64_t k) {
    return (axis->low[i] == k ? 1.0 - axis->share[i] : 0.0) + (axis->high[i] == k ? axis->share[i] : 0.0);
}

/* The outputs that take of input k: from *begin to before *end. */
static void ftr__resize_takers(const ftr__resize_axis *axis, bool nearest, int64_t k, int64_t *begin, int64_t *end) {
    *begin = axis->first[k > 0 && !nearest ? k - 1 : k];
    *end = axis->first[k + 1];
}

/* ------------------------------------------------------------------------------------------------------- forward -- */

static void ftr__resize_mix(const ftr__resize_job *job, const float *const x[4], const float weight[4], float *y) {
    if (job->channels >= FTR__RESIZE_VECTOR) {
        job->math->mix(job->channels, x, weight, y);
        return;
    }
    for (int64_t c = 0; c < job->channels; c++)
        y[c] = weight[0] * x[0][c] + weight[1] * x[1][c] + weight[2] * x[2][c] + weight[3] * x[3][c];
}

static void ftr__resize_row(const ftr__resize_job *job, int64_t row) {
    const ftr__resize_axis *h = &job->axis[0], *w = &job->axis[1];
    const int64_t c = job->channels, oh = row % h->out, line = w->in * c;
    const float *image = job->x + row / h->out * h->in * line;
    const float *top = image + h->low[oh] * line, *bottom = image + h->high[oh] * line;
    float *y = job->y + row * w->out * c;
    for (int64_t ow = 0; ow < w->out; ow++, y += c) {
        const int64_t left = w->low[ow] * c, right = w->high[ow] * c;
        if (job->nearest) {
            memcpy(y, top + left, (size_t)c * sizeof *y);
            continue;
        }
        const double u = h->share[oh], v = w->share[ow];
        const float *const from[4] = {top + left, top + right, bottom + left, bottom + right};
        const float weight[4] = {(float)((1 - u) * (1 - v)), (float)((1 - u) * v), (float)(u * (1 - v)),
                                 (float)(u * v)};
        ftr__resize_mix(job, from, weight, y);
    }
}

static void ftr__resize_task(void *arg, int64_t task, int32_t worker) {
    const ftr__resize_job *job = arg;
    const int64_t first = task * job->rows_per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++) ftr__resize_row(job, row);
}

/* ------------------------------------------------------------------------------------------------------ gradient -- */

static void ftr__resize_add(const ftr__resize_job *job, float weight, const float *dy, float *dx) {
    if (job->channels >= FTR__RESIZE_VECTOR) {
        job->math->axpy(job->channels, weight, dy, dx);
        return;
    }
    for (int64_t c = 0; c < job->channels; c++) dx[c] += weight * dy[c];
}

static void ftr__resize_grad_row(const ftr__resize_job *job, int64_t row) {
    const ftr__resize_axis *h = &job->axis[0], *w = &job->axis[1];
    const int64_t c = job->channels, ih = row % h->in;
    const float *image = job->x + row / h->in * h->out * w->out * c;
    float *dx = job->y + row * w->in * c;
    int64_t top, bottom, left, right;
    memset(dx, 0, (size_t)(w->in * c) * sizeof *dx);
    ftr__resize_takers(h, job->nearest, ih, &top, &bottom);
    for (int64_t iw = 0; iw < w->in; iw++, dx += c) {
        ftr__resize_takers(w, job->nearest, iw, &left, &right);
        for (int64_t oh = top; oh < bottom; oh++) {
            const double share = ftr__resize_weight(h, oh, ih);
            for (int64_t ow = left; ow < right; ow++)
                ftr__resize_add(job, (float)(share * ftr__resize_weight(w, ow, iw)), image + (oh * w->out + ow) * c,
                                dx);
        }
    }
}

static void ftr__resize_grad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__resize_job *job = arg;
    const int64_t first = task * job->rows_per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++)
        ftr__resize_grad_row(job, row);
}

/* ------------------------------------------------------------------------------------------------------- kernels -- */

/* low, high, first and share, of 8 bytes each. */
static size_t ftr__resize_axis_bytes(int64_t in, int64_t out) { return (size_t)(3 * out + in + 1) * sizeof(int64_t); }

size_t ftr__cpu_resize2d_workspace(const ftr_kernel_call *call) {
    const int64_t *in = call->attr->resize.input, *out = call->attr->resize.output;
    return ftr__resize_axis_bytes(in[0], out[0]) + ftr__resize_axis_bytes(in[1], out[1]);
}

static ftr__resize_axis ftr__resize_axis_at(unsigned char *memory, int64_t in, int64_t out) {
    ftr__resize_axis axis = {.in = in, .out = out, .low = (int64_t *)(void *)memory};
    axis.high = axis.low + out;
    axis.first = axis.high + out;
    axis.share = (double *)(void *)(axis.first + in + 1);
    return axis;
}

static ftr_status ftr__resize_run(const ftr_kernel_call *call, ftr__task_fn task) {
    const int64_t *in = call->attr->resize.input, *out = call->attr->resize.output;
    const ftr_shape *result = &call->out[0].shape;
    unsigned char *memory = call->workspace;
    ftr__resize_job job = {
        .x = (const float *)call->in[0].data,
        .y = (float *)call->out[0].data,
        .math = &ftr__cpu_of(call)->simd->math,
        .axis = {ftr__resize_axis_at(memory, in[0], out[0]),
                 ftr__resize_axis_at(memory + ftr__resize_axis_bytes(in[0], out[0]), in[1], out[1])},
        .channels = result->dim[3],
        .nearest = call->attr->resize.mode == FTR_RESIZE_NEAREST,
        .rows = result->dim[0] * result->dim[1],
    };
    if (call->out[0].count == 0) return FTR_OK;
    for (int32_t i = 0; i < 2; i++) ftr__resize_fill(&job.axis[i], job.nearest, call->attr->resize.align_corners);
    const int64_t most = call->in[0].count > call->out[0].count ? call->in[0].count : call->out[0].count;
    job.rows_per_task = 1 + FTR__RESIZE_GRAIN / (1 + most / job.rows);
    ftr__pool_run(ftr__cpu_of(call)->pool, (job.rows + job.rows_per_task - 1) / job.rows_per_task, task, &job);
    return FTR_OK;
}

ftr_status ftr__cpu_resize2d(const ftr_kernel_call *call) { return ftr__resize_run(call, ftr__resize_task); }

ftr_status ftr__cpu_resize2d_grad(const ftr_kernel_call *call) { return ftr__resize_run(call, ftr__resize_grad_task); }
