/* Kernels that move elements. They look at the size of an element only. */
#include "backend/cpu/cpu.h"

#include <string.h>

#define FTR__MOVE_GRAIN 16384 /* elements of a task */
#define FTR__MOVE_BLOCK 32    /* side of a square that is transposed at once */

/* Copies n elements of 1, 2, 4 or 8 bytes that are `stride` elements apart to a row. */
static void ftr__gather_elements(size_t size, char *out, const char *in, int64_t n, int64_t stride) {
    if (stride == 1) {
        memcpy(out, in, (size_t)n * size);
    } else if (size == 4) {
        uint32_t value;
        for (int64_t i = 0; i < n; i++, in += 4 * stride, out += 4) {
            memcpy(&value, in, 4);
            memcpy(out, &value, 4);
        }
    } else if (size == 8) {
        uint64_t value;
        for (int64_t i = 0; i < n; i++, in += 8 * stride, out += 8) {
            memcpy(&value, in, 8);
            memcpy(out, &value, 8);
        }
    } else if (size == 2) {
        uint16_t value;
        for (int64_t i = 0; i < n; i++, in += 2 * stride, out += 2) {
            memcpy(&value, in, 2);
            memcpy(out, &value, 2);
        }
    } else {
        for (int64_t i = 0; i < n; i++, in += stride) out[i] = *in;
    }
}

/* The result is dense with these dimensions; from element to element the source moves by the strides. */
typedef struct ftr__move_job {
    size_t size; /* of an element */
    const char *in;
    char *out;
    int32_t rank;
    int64_t dim[FTR_MAX_RANK], stride[FTR_MAX_RANK];
    int64_t rows, chunks, rows_per_task;
    int32_t across;     /* dimension along which the source is dense while the result is not; -1 for none */
    int64_t blocks;     /* of that dimension */
    int64_t across_out; /* its stride in the result */
} ftr__move_job;

static void ftr__move_add_dim(ftr__move_job *job, int64_t size, int64_t stride) {
    const int32_t last = job->rank - 1;
    if (size == 1) return;
    if (job->rank > 0 && job->stride[last] == stride * size) {
        job->dim[last] *= size;
        job->stride[last] = stride;
        return;
    }
    job->dim[job->rank] = size;
    job->stride[job->rank++] = stride;
}

static void ftr__move_task(void *arg, int64_t task, int32_t worker) {
    const ftr__move_job *job = arg;
    const int32_t last = job->rank - 1;
    const int64_t begin = task % job->chunks * FTR__MOVE_GRAIN;
    const int64_t left = job->dim[last] - begin, n = job->chunks > 1 && left > FTR__MOVE_GRAIN ? FTR__MOVE_GRAIN : left;
    const int64_t first = task / job->chunks * job->rows_per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++) {
        int64_t from = begin * job->stride[last];
        for (int64_t d = last - 1, rest = row; d >= 0; rest /= job->dim[d--])
            from += rest % job->dim[d] * job->stride[d];
        ftr__gather_elements(job->size, job->out + (size_t)(row * job->dim[last] + begin) * job->size,
                             job->in + from * (int64_t)job->size, n, job->stride[last]);
    }
}

/* One strip: FTR__MOVE_BLOCK indices of the `across` dimension, all of the last one, block by block, so that both
 * sides stay in cache lines that are used completely. */
static void ftr__move_strip(const ftr__move_job *job, int64_t unit) {
    const int32_t last = job->rank - 1;
    const int64_t a0 = unit % job->blocks * FTR__MOVE_BLOCK, stride = job->stride[last];
    const int64_t a1 = job->dim[job->across] - a0 < FTR__MOVE_BLOCK ? job->dim[job->across] : a0 + FTR__MOVE_BLOCK;
    int64_t from = 0, to = 0, step = 1, rest = unit / job->blocks;
    for (int32_t d = last; d >= 0; step *= job->dim[d--]) {
        if (d == last || d == job->across) continue;
        from += rest % job->dim[d] * job->stride[d];
        to += rest % job->dim[d] * step;
        rest /= job->dim[d];
    }
    for (int64_t k = 0; k < job->dim[last]; k += FTR__MOVE_BLOCK) {
        const int64_t n = job->dim[last] - k < FTR__MOVE_BLOCK ? job->dim[last] - k : FTR__MOVE_BLOCK;
        for (int64_t a = a0; a < a1; a++)
            ftr__gather_elements(job->size, job->out + (size_t)(to + a * job->across_out + k) * job->size,
                                 job->in + (from + a + k * stride) * (int64_t)job->size, n, stride);
    }
}

static void ftr__move_strip_task(void *arg, int64_t task, int32_t worker) {
    const ftr__move_job *job = arg;
    const int64_t first = task * job->rows_per_task;
    (void)worker;
    for (int64_t unit = first; unit < job->rows && unit < first + job->rows_per_task; unit++)
        ftr__move_strip(job, unit);
}

static void ftr__move_cut_strips(ftr__move_job *job) {
    job->blocks = (job->dim[job->across] + FTR__MOVE_BLOCK - 1) / FTR__MOVE_BLOCK;
    job->across_out = 1;
    for (int32_t d = job->across + 1; d < job->rank; d++) job->across_out *= job->dim[d];
    job->rows = job->blocks;
    for (int32_t d = 0; d < job->rank - 1; d++)
        if (d != job->across) job->rows *= job->dim[d];
    job->rows_per_task = 1 + FTR__MOVE_GRAIN / (FTR__MOVE_BLOCK * job->dim[job->rank - 1]);
}

/* The job's dimensions were added, outermost first; none of them is 0. */
static void ftr__move_run(const ftr_kernel_call *call, ftr__move_job *job) {
    ftr__pool *pool = ftr__cpu_of(call)->pool;
    if (job->rank == 0) {
        job->dim[0] = job->stride[0] = 1;
        job->rank = 1;
    }
    const int32_t last = job->rank - 1;
    job->across = -1;
    for (int32_t d = 0; d < last; d++)
        if (job->stride[d] == 1 && job->stride[last] > 1) job->across = d;
    if (job->across >= 0) {
        ftr__move_cut_strips(job);
        ftr__pool_run(pool, (job->rows + job->rows_per_task - 1) / job->rows_per_task, ftr__move_strip_task, job);
        return;
    }
    job->rows = 1;
    for (int32_t d = 0; d < last; d++) job->rows *= job->dim[d];
    job->chunks = (job->dim[last] + FTR__MOVE_GRAIN - 1) / FTR__MOVE_GRAIN;
    job->rows_per_task = job->chunks > 1 ? 1 : 1 + FTR__MOVE_GRAIN / job->dim[last];
    const int64_t groups = (job->rows + job->rows_per_task - 1) / job->rows_per_task;
    ftr__pool_run(pool, groups * job->chunks, ftr__move_task, job);
}

/* Strides of a dense tensor. */
static void ftr__dense_strides(const ftr_shape *shape, int64_t *stride) {
    int64_t step = 1;
    for (int32_t d = shape->rank - 1; d >= 0; d--) {
        stride[d] = step;
        step *= shape->dim[d];
    }
}

static ftr__move_job ftr__move_job_of(const ftr_kernel_call *call) {
    return (ftr__move_job){
        .size = ftr_dtype_size(call->out[0].dtype), .in = call->in[0].data, .out = call->out[0].data};
}

ftr_status ftr__cpu_reshape(const ftr_kernel_call *call) {
    ftr__move_job job = ftr__move_job_of(call);
    if (call->out[0].count == 0 || job.in == job.out) return FTR_OK;
    ftr__move_add_dim(&job, call->out[0].count, 1);
    ftr__move_run(call, &job);
    return FTR_OK;
}

ftr_status ftr__cpu_expand(const ftr_kernel_call *call) {
    const ftr_shape *shape = &call->out[0].shape, *from = &call->in[0].shape;
    ftr__move_job job = ftr__move_job_of(call);
    int64_t stride[FTR_MAX_RANK];
    if (call->out[0].count == 0) return FTR_OK;
    ftr__dense_strides(from, stride);
    for (int32_t d = 0; d < shape->rank; d++) {
        const int32_t source = d - (shape->rank - from->rank);
        ftr__move_add_dim(&job, shape->dim[d], source < 0 || from->dim[source] == 1 ? 0 : stride[source]);
    }
    ftr__move_run(call, &job);
    return FTR_OK;
}

ftr_status ftr__cpu_transpose(const ftr_kernel_call *call) {
    const ftr_shape *shape = &call->out[0].shape;
    ftr__move_job job = ftr__move_job_of(call);
    int64_t stride[FTR_MAX_RANK];
    if (call->out[0].count == 0) return FTR_OK;
    ftr__dense_strides(&call->in[0].shape, stride);
    for (int32_t d = 0; d < shape->rank; d++)
        ftr__move_add_dim(&job, shape->dim[d], stride[call->attr->axes_order.order[d]]);
    ftr__move_run(call, &job);
    return FTR_OK;
}

ftr_status ftr__cpu_slice(const ftr_kernel_call *call) {
    const ftr_shape *shape = &call->out[0].shape;
    const int32_t axis = call->attr->slice.axis;
    ftr__move_job job = ftr__move_job_of(call);
    int64_t stride[FTR_MAX_RANK];
    if (call->out[0].count == 0) return FTR_OK;
    ftr__dense_strides(&call->in[0].shape, stride);
    job.in += call->attr->slice.begin * stride[axis] * (int64_t)job.size;
    for (int32_t d = 0; d < shape->rank; d++)
        ftr__move_add_dim(&job, shape->dim[d], d == axis ? stride[d] * call->attr->slice.step : stride[d]);
    ftr__move_run(call, &job);
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------------------- concat -- */

/* Blocks of bytes from dense to `out_stride` apart. */
typedef struct ftr__place_job {
    const char *in;
    char *out;
    int64_t rows, row_bytes, out_stride;
    int64_t chunks, rows_per_task;
} ftr__place_job;

#define FTR__PLACE_GRAIN (4 * FTR__MOVE_GRAIN) /* bytes of a task */

static void ftr__place_task(void *arg, int64_t task, int32_t worker) {
    const ftr__place_job *job = arg;
    const int64_t begin = task % job->chunks * FTR__PLACE_GRAIN, first = task / job->chunks * job->rows_per_task;
    const int64_t left = job->row_bytes - begin, bytes = left < FTR__PLACE_GRAIN ? left : FTR__PLACE_GRAIN;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++)
        memcpy(job->out + row * job->out_stride + begin, job->in + row * job->row_bytes + begin, (size_t)bytes);
}

ftr_status ftr__cpu_concat(const ftr_kernel_call *call) {
    const ftr_view *out = &call->out[0];
    const int32_t axis = call->attr->axis.axis;
    int64_t outer = 1, inner_bytes = (int64_t)ftr_dtype_size(out->dtype), offset = 0;
    for (int32_t d = 0; d < axis; d++) outer *= out->shape.dim[d];
    for (int32_t d = axis + 1; d < out->shape.rank; d++) inner_bytes *= out->shape.dim[d];
    for (int32_t i = 0; i < call->in_count; i++) {
        const ftr_view *in = &call->in[i];
        if (in->count == 0) continue;
        ftr__place_job job = {.in = in->data, .out = (char *)out->data + offset, .rows = outer};
        job.row_bytes = in->shape.dim[axis] * inner_bytes;
        job.out_stride = out->shape.dim[axis] * inner_bytes;
        job.chunks = (job.row_bytes + FTR__PLACE_GRAIN - 1) / FTR__PLACE_GRAIN;
        job.rows_per_task = job.chunks > 1 ? 1 : 1 + FTR__PLACE_GRAIN / job.row_bytes;
        const int64_t groups = (outer + job.rows_per_task - 1) / job.rows_per_task;
        ftr__pool_run(ftr__cpu_of(call)->pool, groups * job.chunks, ftr__place_task, &job);
        offset += job.row_bytes;
    }
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------- padding -- */

typedef union ftr__pad_value {
    float f32;
    int32_t i32;
    int64_t i64;
    uint8_t u8;
    uint16_t half;
    char bytes[8];
} ftr__pad_value;

/* The result's dimensions; unpadded ones are part of the one before them. */
typedef struct ftr__pad_job {
    size_t size;
    const char *in;
    char *out;
    int32_t rank;
    int64_t dim[FTR_MAX_RANK], before[FTR_MAX_RANK], inside[FTR_MAX_RANK];
    int64_t rows, rows_per_task;
    ftr__pad_value value;
} ftr__pad_job;

static void ftr__pad_add_dim(ftr__pad_job *job, int64_t inside, int64_t before, int64_t after) {
    const int32_t last = job->rank - 1;
    if (before == 0 && after == 0 && job->rank > 0) {
        job->dim[last] *= inside;
        job->before[last] *= inside;
        job->inside[last] *= inside;
        return;
    }
    job->dim[job->rank] = before + inside + after;
    job->before[job->rank] = before;
    job->inside[job->rank++] = inside;
}

static void ftr__pad_fill(const ftr__pad_job *job, char *out, int64_t n) {
    if (job->value.i64 == 0) {
        memset(out, 0, (size_t)n * job->size);
        return;
    }
    for (int64_t i = 0; i < n; i++, out += job->size) memcpy(out, job->value.bytes, job->size);
}

static void ftr__pad_row(const ftr__pad_job *job, int64_t row) {
    const int32_t last = job->rank - 1;
    const int64_t n = job->dim[last], before = job->before[last], inside = job->inside[last];
    char *out = job->out + (size_t)(row * n) * job->size;
    int64_t from = 0, step = inside;
    bool covered = inside > 0;
    for (int32_t d = last - 1; d >= 0; d--) {
        const int64_t at = row % job->dim[d] - job->before[d];
        row /= job->dim[d];
        covered = covered && at >= 0 && at < job->inside[d];
        from += at * step;
        step *= job->inside[d];
    }
    if (!covered) {
        ftr__pad_fill(job, out, n);
        return;
    }
    ftr__pad_fill(job, out, before);
    memcpy(out + (size_t)before * job->size, job->in + from * (int64_t)job->size, (size_t)inside * job->size);
    ftr__pad_fill(job, out + (size_t)(before + inside) * job->size, n - before - inside);
}

static void ftr__pad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__pad_job *job = arg;
    const int64_t first = task * job->rows_per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++) ftr__pad_row(job, row);
}

static void ftr__pad_run(const ftr_kernel_call *call, ftr__pad_job *job) {
    if (call->out[0].count == 0) return;
    if (job->rank == 0) ftr__pad_add_dim(job, 1, 0, 0);
    job->rows = 1;
    for (int32_t d = 0; d < job->rank - 1; d++) job->rows *= job->dim[d];
    job->rows_per_task = 1 + FTR__MOVE_GRAIN / job->dim[job->rank - 1];
    ftr__pool_run(ftr__cpu_of(call)->pool, (job->rows + job->rows_per_task - 1) / job->rows_per_task, ftr__pad_task,
                  job);
}

/* `value` in the element type: truncated and saturated, NaN as 0 for integers. */
static ftr__pad_value ftr__pad_value_of(ftr_dtype dtype, double value) {
    ftr__pad_value made = {.i64 = 0};
    const double whole = value != value ? 0.0 : value;
    switch (dtype) {
    case FTR_F32: made.f32 = (float)value; break;
    case FTR_I32:
        made.i32 = whole >= 2147483647.0 ? INT32_MAX : whole <= -2147483648.0 ? INT32_MIN : (int32_t)whole;
        break;
    case FTR_I64:
        made.i64 = whole >= 9223372036854775808.0    ? INT64_MAX
                   : whole <= -9223372036854775808.0 ? INT64_MIN
                                                     : (int64_t)whole;
        break;
    case FTR_F16:
    case FTR_BF16: made.half = ftr__half_bits(dtype, value); break;
    case FTR_U8: made.u8 = whole >= 255.0 ? 255 : whole > 0.0 ? (uint8_t)whole : 0; break;
    default: made.u8 = value != 0.0; break;
    }
    return made;
}

ftr_status ftr__cpu_pad(const ftr_kernel_call *call) {
    const ftr_view *in = &call->in[0];
    ftr__pad_job job = {.size = ftr_dtype_size(in->dtype), .in = in->data, .out = call->out[0].data};
    job.value = ftr__pad_value_of(in->dtype, call->attr->pad.value);
    for (int32_t d = 0; d < in->shape.rank; d++)
        ftr__pad_add_dim(&job, in->shape.dim[d], call->attr->pad.before[d], call->attr->pad.after[d]);
    ftr__pad_run(call, &job);
    return FTR_OK;
}

/* --------------------------------------------------------------------------------------------- gradient of slice -- */

/* A slice with a step: lines of `inner` bytes; those of the slice are copied, the others are 0. */
typedef struct ftr__spread_job {
    const ftr_kernel_call *call;
    int64_t lines, lines_per_task, size, taken, inner;
} ftr__spread_job;

static void ftr__spread_task(void *arg, int64_t task, int32_t worker) {
    const ftr__spread_job *job = arg;
    const int64_t first = task * job->lines_per_task, begin = job->call->attr->slice.begin;
    const int64_t step = job->call->attr->slice.step;
    char *out = job->call->out[0].data;
    (void)worker;
    for (int64_t line = first; line < job->lines && line < first + job->lines_per_task; line++) {
        const int64_t at = line % job->size - begin, which = at / step;
        if (at >= 0 && at % step == 0 && which < job->taken)
            memcpy(out + line * job->inner,
                   (const char *)job->call->in[0].data + (line / job->size * job->taken + which) * job->inner,
                   (size_t)job->inner);
        else
            memset(out + line * job->inner, 0, (size_t)job->inner);
    }
}

ftr_status ftr__cpu_slice_grad(const ftr_kernel_call *call) {
    const ftr_view *in = &call->in[0], *out = &call->out[0];
    const int32_t axis = call->attr->slice.axis;
    const int64_t begin = call->attr->slice.begin;
    if (out->count == 0) return FTR_OK;
    if (call->attr->slice.step == 1) {
        ftr__pad_job job = {.size = ftr_dtype_size(out->dtype), .in = in->data, .out = out->data, .value = {.i64 = 0}};
        for (int32_t d = 0; d < out->shape.rank; d++) {
            const int64_t extra = out->shape.dim[d] - in->shape.dim[d];
            ftr__pad_add_dim(&job, in->shape.dim[d], d == axis && extra > 0 ? begin : 0,
                             d == axis && extra > 0 ? extra - begin : 0);
        }
        ftr__pad_run(call, &job);
        return FTR_OK;
    }
    ftr__spread_job job = {.call = call, .size = out->shape.dim[axis], .taken = in->shape.dim[axis]};
    job.inner = (int64_t)ftr_dtype_size(out->dtype);
    for (int32_t d = axis + 1; d < out->shape.rank; d++) job.inner *= out->shape.dim[d];
    job.lines = out->count * (int64_t)ftr_dtype_size(out->dtype) / job.inner;
    job.lines_per_task = 1 + FTR__PLACE_GRAIN / job.inner;
    ftr__pool_run(ftr__cpu_of(call)->pool, (job.lines + job.lines_per_task - 1) / job.lines_per_task, ftr__spread_task,
                  &job);
    return FTR_OK;
}
