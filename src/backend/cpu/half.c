/* f16 and bf16 on kernels that compute in f32: inputs are widened into the workspace, the kernel runs there, and its
 * results are rounded back. So every kernel takes these types, and none knows of them but those that only move elements. */
#include "backend/cpu/cpu.h"

#include "graph/op.h"

#define FTR__HALF_GRAIN 16384 /* elements of a task */

/* Copies between a call's f16 or bf16 tensors and their f32 counterparts; their elements are numbered through. */
typedef struct ftr__half_job {
    const ftr__simd_math *math;
    const ftr_view *half[FTR__CPU_HALF_VIEWS];
    float *wide[FTR__CPU_HALF_VIEWS];
    int32_t count;
    bool narrow; /* from wide to half */
} ftr__half_job;

static int64_t ftr__half_tasks(const ftr_view *view) { return (view->count + FTR__HALF_GRAIN - 1) / FTR__HALF_GRAIN; }

static void ftr__half_task(void *arg, int64_t task, int32_t worker) {
    const ftr__half_job *job = arg;
    int32_t i = 0;
    (void)worker;
    for (; task >= ftr__half_tasks(job->half[i]); i++) task -= ftr__half_tasks(job->half[i]);
    const ftr_view *view = job->half[i];
    const int64_t begin = task * FTR__HALF_GRAIN, left = view->count - begin;
    const int64_t n = left < FTR__HALF_GRAIN ? left : FTR__HALF_GRAIN;
    uint16_t *half = (uint16_t *)view->data + begin;
    float *wide = job->wide[i] + begin;
    const int32_t type = ftr__half_index(view->dtype);
    if (job->narrow)
        job->math->narrow[type](n, wide, half);
    else
        job->math->widen[type](n, half, wide);
}

/* Converts those of `count` tensors whose type is f16 or bf16. */
static void ftr__half_convert(const ftr_kernel_call *call, const ftr_view *half, const ftr_view *wide, int32_t count,
                              bool narrow) {
    ftr__half_job job = {.math = &ftr__cpu_of(call)->simd->math, .narrow = narrow};
    int64_t tasks = 0;
    for (int32_t i = 0; i < count; i++) {
        if (!ftr__is_half(half[i].dtype)) continue;
        job.half[job.count] = &half[i];
        job.wide[job.count++] = wide[i].data;
        tasks += ftr__half_tasks(&half[i]);
    }
    ftr__pool_run(ftr__cpu_of(call)->pool, tasks, ftr__half_task, &job);
}

/* A call as the f32 kernel sees it. */
typedef struct ftr__half_call {
    ftr_kernel_call call;
    ftr_view view[FTR__CPU_HALF_VIEWS];
    size_t bytes; /* of the f32 tensors */
} ftr__half_call;

static size_t ftr__half_align(size_t bytes) { return (bytes + FTR__ALIGNMENT - 1) / FTR__ALIGNMENT * FTR__ALIGNMENT; }

/* The input whose f32 counterpart the kernel may overwrite with output 0; -1 if there is none. */
static int32_t ftr__half_overwritten(const ftr_kernel_call *call) {
    const uint32_t overwritable = ftr__op_info_of(call->op)->overwritable;
    const ftr_view *out = call->out;
    for (int32_t i = 0; i < call->in_count && i < 31 && call->out_count > 0; i++)
        if ((overwritable >> i & 1u) && call->in[i].dtype == out->dtype && ftr__is_half(out->dtype) &&
            ftr_shape_equal(&call->in[i].shape, &out->shape))
            return i;
    return -1;
}

/* `memory` is where the f32 tensors are to lie; NULL while a plan is made. */
static void ftr__half_make(ftr__half_call *made, const ftr_kernel_call *call, unsigned char *memory) {
    const int32_t overwritten = ftr__half_overwritten(call);
    made->call = *call;
    made->call.in = made->view;
    made->call.out = made->view + call->in_count;
    made->bytes = 0;
    for (int32_t i = 0; i < call->in_count + call->out_count; i++) {
        ftr_view *view = &made->view[i];
        *view = i < call->in_count ? call->in[i] : call->out[i - call->in_count];
        if (!ftr__is_half(view->dtype)) continue;
        view->dtype = FTR_F32;
        if (i == call->in_count && overwritten >= 0) {
            view->data = made->view[overwritten].data;
            continue;
        }
        view->data = memory ? memory + made->bytes : NULL;
        made->bytes += ftr__half_align((size_t)view->count * sizeof(float));
    }
}

size_t ftr__cpu_half_workspace(const ftr_kernel_call *call, size_t (*workspace)(const ftr_kernel_call *call)) {
    ftr__half_call wide;
    ftr__half_make(&wide, call, NULL);
    return wide.bytes + (workspace ? workspace(&wide.call) : 0);
}

ftr_status ftr__cpu_half_run(const ftr_kernel_call *call, ftr_status (*run)(const ftr_kernel_call *call)) {
    ftr__half_call wide;
    ftr__half_make(&wide, call, call->workspace);
    wide.call.workspace = (unsigned char *)call->workspace + wide.bytes;
    ftr__half_convert(call, call->in, wide.call.in, call->in_count, false);
    const ftr_status status = run(&wide.call);
    if (status == FTR_OK) ftr__half_convert(call, call->out, wide.call.out, call->out_count, true);
    return status;
}
