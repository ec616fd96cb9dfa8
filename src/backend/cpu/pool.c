/* Pooling over [n, h, w, c]: vectors run along the channels. A task is a number of rows of the result. The gradients
 * gather: each input pixel looks up the windows that cover it, so that no two tasks write to one place. */
#include "backend/cpu/cpu.h"

#include <string.h>

#define FTR__POOL_GRAIN 16384

typedef struct ftr__pool2d_job {
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    int64_t channels, in_h, in_w, out_h, out_w;
    int64_t kernel_h, kernel_w, stride_h, stride_w, top, left;
    int64_t rows, rows_per_task; /* of what is computed, over all images */
    bool maximum;
} ftr__pool2d_job;

/* A range, begin to end, end not included. */
typedef struct ftr__pool_range {
    int64_t begin, end;
} ftr__pool_range;

/* The input positions of a window: output `at` along one dimension. */
static ftr__pool_range ftr__pool_window(int64_t at, int64_t stride, int64_t padding, int64_t kernel, int64_t size) {
    const int64_t begin = at * stride - padding, end = begin + kernel;
    return (ftr__pool_range){begin > 0 ? begin : 0, end < size ? end : size};
}

/* The output positions whose windows cover input `at` along one dimension. */
static ftr__pool_range ftr__pool_covering(int64_t at, int64_t stride, int64_t padding, int64_t kernel, int64_t size) {
    const int64_t last = (at + padding) / stride, before = at + padding - kernel;
    const int64_t first = before >= 0 ? before / stride + 1 : 0;
    return (ftr__pool_range){first, last + 1 < size ? last + 1 : size};
}

static ftr__pool2d_job ftr__pool2d_job_of(const ftr_kernel_call *call, const ftr_shape *output, bool gradient) {
    ftr__pool2d_job job = {
        .call = call,
        .math = &ftr__cpu_of(call)->simd->math,
        .channels = output->dim[3],
        .in_h = call->attr->pool.input[0],
        .in_w = call->attr->pool.input[1],
        .out_h = output->dim[1],
        .out_w = output->dim[2],
        .kernel_h = call->attr->pool.kernel[0],
        .kernel_w = call->attr->pool.kernel[1],
        .stride_h = call->attr->pool.stride[0],
        .stride_w = call->attr->pool.stride[1],
        .top = call->attr->pool.padding[0],
        .left = call->attr->pool.padding[2],
    };
    const int64_t width = (gradient ? job.in_w : job.out_w) * job.channels;
    job.rows = output->dim[0] * (gradient ? job.in_h : job.out_h);
    job.rows_per_task = 1 + FTR__POOL_GRAIN / (width > 0 ? width : 1);
    return job;
}

static ftr_status ftr__pool2d_run(ftr__pool2d_job *job, ftr__task_fn task) {
    if (job->call->out[0].count == 0) return FTR_OK;
    ftr__pool_run(ftr__cpu_of(job->call)->pool, (job->rows + job->rows_per_task - 1) / job->rows_per_task, task, job);
    return FTR_OK;
}

/* What the mean over a window is divided by. */
static float ftr__pool_divisor(const ftr__pool2d_job *job, ftr__pool_range h, ftr__pool_range w) {
    if (!job->call->attr->pool.exclude_padding) return (float)(job->kernel_h * job->kernel_w);
    const int64_t area = (h.end - h.begin) * (w.end - w.begin);
    return (float)(area > 0 ? area : 1);
}

/* ------------------------------------------------------------------------------------------------------- forward -- */

static void ftr__pool2d_row(const ftr__pool2d_job *job, int64_t row) {
    const int64_t image = row / job->out_h;
    const ftr__pool_range h = ftr__pool_window(row % job->out_h, job->stride_h, job->top, job->kernel_h, job->in_h);
    const float *x = (const float *)job->call->in[0].data + image * job->in_h * job->in_w * job->channels;
    for (int64_t ow = 0; ow < job->out_w; ow++) {
        const ftr__pool_range w = ftr__pool_window(ow, job->stride_w, job->left, job->kernel_w, job->in_w);
        const int64_t pixel = h.begin * job->in_w + w.begin, at = (row * job->out_w + ow) * job->channels;
        const float *window = x + pixel * job->channels;
        float *y = (float *)job->call->out[0].data + at;
        if (job->maximum)
            job->math->window_maximum(job->channels, window, h.end - h.begin, w.end - w.begin, job->in_w,
                                      (int32_t)pixel, y, (int32_t *)job->call->out[1].data + at);
        else
            job->math->window_mean(job->channels, window, h.end - h.begin, w.end - w.begin, job->in_w,
                                   ftr__pool_divisor(job, h, w), y);
    }
}

static void ftr__pool2d_task(void *arg, int64_t task, int32_t worker) {
    const ftr__pool2d_job *job = arg;
    const int64_t first = task * job->rows_per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++) ftr__pool2d_row(job, row);
}

ftr_status ftr__cpu_max_pool2d(const ftr_kernel_call *call) {
    ftr__pool2d_job job = ftr__pool2d_job_of(call, &call->out[0].shape, false);
    job.maximum = true;
    return ftr__pool2d_run(&job, ftr__pool2d_task);
}

ftr_status ftr__cpu_avg_pool2d(const ftr_kernel_call *call) {
    ftr__pool2d_job job = ftr__pool2d_job_of(call, &call->out[0].shape, false);
    return ftr__pool2d_run(&job, ftr__pool2d_task);
}

/* ------------------------------------------------------------------------------------------------------ gradient -- */

/* Adds to the gradient of one input pixel what comes from one output pixel. */
static void ftr__pool2d_grad_add(const ftr__pool2d_job *job, int64_t image, int64_t oh, int64_t ow, int64_t pixel,
                                 float *dx) {
    const int64_t at = ((image * job->out_h + oh) * job->out_w + ow) * job->channels;
    const float *dy = (const float *)job->call->in[0].data + at;
    if (job->maximum) {
        const int32_t *index = (const int32_t *)job->call->in[1].data + at;
        job->math->scatter_add(job->channels, dy, index, (int32_t)pixel, dx);
        return;
    }
    const ftr__pool_range h = ftr__pool_window(oh, job->stride_h, job->top, job->kernel_h, job->in_h);
    const ftr__pool_range w = ftr__pool_window(ow, job->stride_w, job->left, job->kernel_w, job->in_w);
    job->math->axpy(job->channels, 1.0f / ftr__pool_divisor(job, h, w), dy, dx);
}

static void ftr__pool2d_grad_row(const ftr__pool2d_job *job, int64_t row) {
    const int64_t image = row / job->in_h, ih = row % job->in_h;
    const ftr__pool_range h = ftr__pool_covering(ih, job->stride_h, job->top, job->kernel_h, job->out_h);
    float *dx = (float *)job->call->out[0].data + row * job->in_w * job->channels;
    memset(dx, 0, (size_t)(job->in_w * job->channels) * sizeof *dx);
    for (int64_t iw = 0; iw < job->in_w; iw++, dx += job->channels) {
        const ftr__pool_range w = ftr__pool_covering(iw, job->stride_w, job->left, job->kernel_w, job->out_w);
        for (int64_t oh = h.begin; oh < h.end; oh++)
            for (int64_t ow = w.begin; ow < w.end; ow++)
                ftr__pool2d_grad_add(job, image, oh, ow, ih * job->in_w + iw, dx);
    }
}

static void ftr__pool2d_grad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__pool2d_job *job = arg;
    const int64_t first = task * job->rows_per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++)
        ftr__pool2d_grad_row(job, row);
}

ftr_status ftr__cpu_max_pool2d_grad(const ftr_kernel_call *call) {
    ftr__pool2d_job job = ftr__pool2d_job_of(call, &call->in[0].shape, true);
    job.maximum = true;
    return ftr__pool2d_run(&job, ftr__pool2d_grad_task);
}

ftr_status ftr__cpu_avg_pool2d_grad(const ftr_kernel_call *call) {
    ftr__pool2d_job job = ftr__pool2d_job_of(call, &call->in[0].shape, true);
    return ftr__pool2d_run(&job, ftr__pool2d_grad_task);
}

/* ------------------------------------------------------------------------------------------------------ adaptive -- */

typedef struct ftr__adaptive_job {
    const float *x; /* of the gradient: dy */
    float *y;       /* dx */
    const ftr__simd_math *math;
    const int64_t *in, *out; /* height, width of the forward input and output */
    int64_t channels;
    int64_t rows, rows_per_task; /* of what is computed, over all images */
} ftr__adaptive_job;

/* The input positions of window `at` of `windows` over `size`. Read the other way round, windows and positions
 * exchanged, these are the windows that cover a position. */
static ftr__pool_range ftr__adaptive_window(int64_t at, int64_t size, int64_t windows) {
    return (ftr__pool_range){at * size / windows, ((at + 1) * size + windows - 1) / windows};
}

static int64_t ftr__adaptive_length(ftr__pool_range range) { return range.end - range.begin; }

static void ftr__adaptive_row(const ftr__adaptive_job *job, int64_t row) {
    const ftr__pool_range h = ftr__adaptive_window(row % job->out[0], job->in[0], job->out[0]);
    const int64_t image = row / job->out[0] * job->in[0], c = job->channels;
    for (int64_t ow = 0; ow < job->out[1]; ow++) {
        const ftr__pool_range w = ftr__adaptive_window(ow, job->in[1], job->out[1]);
        const int64_t area = ftr__adaptive_length(h) * ftr__adaptive_length(w);
        job->math->window_mean(c, job->x + ((image + h.begin) * job->in[1] + w.begin) * c, ftr__adaptive_length(h),
                               ftr__adaptive_length(w), job->in[1], (float)area, job->y + (row * job->out[1] + ow) * c);
    }
}

static void ftr__adaptive_grad_row(const ftr__adaptive_job *job, int64_t row) {
    const ftr__pool_range h = ftr__adaptive_window(row % job->in[0], job->out[0], job->in[0]);
    const int64_t image = row / job->in[0] * job->out[0], c = job->channels;
    float *dx = job->y + row * job->in[1] * c;
    memset(dx, 0, (size_t)(job->in[1] * c) * sizeof *dx);
    for (int64_t iw = 0; iw < job->in[1]; iw++, dx += c) {
        const ftr__pool_range w = ftr__adaptive_window(iw, job->out[1], job->in[1]);
        for (int64_t oh = h.begin; oh < h.end; oh++) {
            const int64_t height = ftr__adaptive_length(ftr__adaptive_window(oh, job->in[0], job->out[0]));
            for (int64_t ow = w.begin; ow < w.end; ow++) {
                const int64_t area = height * ftr__adaptive_length(ftr__adaptive_window(ow, job->in[1], job->out[1]));
                job->math->axpy(c, 1.0f / (float)area, job->x + ((image + oh) * job->out[1] + ow) * c, dx);
            }
        }
    }
}

static void ftr__adaptive_task(void *arg, int64_t task, int32_t worker) {
    const ftr__adaptive_job *job = arg;
    const int64_t first = task * job->rows_per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++) ftr__adaptive_row(job, row);
}

static void ftr__adaptive_grad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__adaptive_job *job = arg;
    const int64_t first = task * job->rows_per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++)
        ftr__adaptive_grad_row(job, row);
}

static ftr_status ftr__adaptive_run(const ftr_kernel_call *call, ftr__task_fn task) {
    const ftr_shape *result = &call->out[0].shape;
    ftr__adaptive_job job = {
        .x = (const float *)call->in[0].data,
        .y = (float *)call->out[0].data,
        .math = &ftr__cpu_of(call)->simd->math,
        .in = call->attr->adaptive.input,
        .out = call->attr->adaptive.output,
        .channels = result->dim[3],
        .rows = result->dim[0] * result->dim[1],
    };
    if (call->out[0].count == 0) return FTR_OK;
    const int64_t most = call->in[0].count > call->out[0].count ? call->in[0].count : call->out[0].count;
    job.rows_per_task = 1 + FTR__POOL_GRAIN / (1 + most / job.rows);
    ftr__pool_run(ftr__cpu_of(call)->pool, (job.rows + job.rows_per_task - 1) / job.rows_per_task, task, &job);
    return FTR_OK;
}

ftr_status ftr__cpu_adaptive_avg_pool2d(const ftr_kernel_call *call) {
    return ftr__adaptive_run(call, ftr__adaptive_task);
}

ftr_status ftr__cpu_adaptive_avg_pool2d_grad(const ftr_kernel_call *call) {
    return ftr__adaptive_run(call, ftr__adaptive_grad_task);
}
