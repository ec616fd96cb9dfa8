/* Reductions over any set of axes. Neighbouring axes of one kind are merged; what remains is, for each outer kept
 * index, a set of rows of `columns` neighbouring elements (1 if the last axis is reduced) that are combined column
 * by column. Long sets are cut into chunks whose partial results are combined in order, in double. */
#include "backend/cpu/cpu.h"

#include <math.h>

#define FTR__REDUCE_TILE 256    /* columns of a task */
#define FTR__REDUCE_CHUNK 32768 /* elements of a chunk */
#define FTR__REDUCE_SPAN 2048   /* rows that are added in f32 at most */
#define FTR__REDUCE_GRAIN 16384

typedef union ftr__reduce_cell {
    double real;
    int64_t whole;
} ftr__reduce_cell;

typedef struct ftr__reduce_dim {
    int64_t size, stride;
} ftr__reduce_dim;

typedef struct ftr__reduce_plan {
    ftr__reduce_dim kept[FTR_MAX_RANK], reduced[FTR_MAX_RANK]; /* the outer ones */
    int32_t kept_count, reduced_count;
    int64_t outer;     /* product of the kept ones */
    int64_t neighbors; /* rows that follow each other in memory */
    int64_t rows;      /* combined into one */
    int64_t columns, tiles;
    int64_t chunks, rows_per_chunk;
    int64_t units_per_task; /* a unit is a tile of an outer index; more than 1 only without chunks */
} ftr__reduce_plan;

typedef struct ftr__reduce_job {
    ftr__reduce_plan plan;
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    ftr__reduce_cell *partial; /* [outer][chunks][columns] */
    bool maximum;
} ftr__reduce_job;

static void ftr__reduce_cut(ftr__reduce_plan *p) {
    const int64_t width = p->columns < FTR__REDUCE_TILE ? p->columns : FTR__REDUCE_TILE;
    p->tiles = (p->columns + FTR__REDUCE_TILE - 1) / FTR__REDUCE_TILE;
    p->rows_per_chunk = width > 0 ? FTR__REDUCE_CHUNK / width : 1;
    p->chunks = p->rows > 2 * p->rows_per_chunk ? (p->rows + p->rows_per_chunk - 1) / p->rows_per_chunk : 1;
    if (p->chunks == 1) p->rows_per_chunk = p->rows;
    p->units_per_task = 1;
    if (p->chunks == 1 && p->rows * width < FTR__REDUCE_GRAIN)
        p->units_per_task = FTR__REDUCE_GRAIN / (p->rows * width > 0 ? p->rows * width : 1);
}

static void ftr__reduce_make_plan(ftr__reduce_plan *p, const ftr_shape *shape, uint32_t mask) {
    ftr__reduce_dim merged[FTR_MAX_RANK];
    bool is_reduced[FTR_MAX_RANK];
    int32_t count = 0; /* innermost first */
    int64_t stride = 1;
    *p = (ftr__reduce_plan){.outer = 1, .neighbors = 1, .rows = 1, .columns = 1};
    for (int32_t d = shape->rank - 1; d >= 0; d--) {
        const bool reduced = (mask >> d & 1u) != 0;
        if (shape->dim[d] == 1) continue;
        if (count > 0 && is_reduced[count - 1] == reduced) {
            merged[count - 1].size *= shape->dim[d];
        } else {
            merged[count] = (ftr__reduce_dim){shape->dim[d], stride};
            is_reduced[count++] = reduced;
        }
        stride *= shape->dim[d];
    }
    int32_t at = 0;
    if (at < count && !is_reduced[at]) p->columns = merged[at++].size;
    if (at < count && is_reduced[at]) p->neighbors = merged[at++].size;
    p->rows = p->neighbors;
    for (; at < count; at++) {
        if (is_reduced[at]) {
            p->reduced[p->reduced_count++] = merged[at];
            p->rows *= merged[at].size;
        } else {
            p->kept[p->kept_count++] = merged[at];
            p->outer *= merged[at].size;
        }
    }
    ftr__reduce_cut(p);
}

static int64_t ftr__reduce_offset(const ftr__reduce_dim *dims, int32_t count, int64_t index) {
    int64_t offset = 0;
    for (int32_t i = 0; i < count; i++) {
        offset += index % dims[i].size * dims[i].stride;
        index /= dims[i].size;
    }
    return offset;
}

static void ftr__reduce_combine(const ftr__reduce_job *job, ftr__reduce_cell *into, ftr__reduce_cell value) {
    if (job->call->in[0].dtype == FTR_F32) {
        if (!job->maximum)
            into->real += value.real;
        else if (value.real > into->real || isnan(value.real))
            into->real = value.real;
    } else {
        if (!job->maximum)
            into->whole = (int64_t)((uint64_t)into->whole + (uint64_t)value.whole);
        else if (value.whole > into->whole)
            into->whole = value.whole;
    }
}

static ftr__reduce_cell ftr__reduce_identity(const ftr__reduce_job *job) {
    ftr__reduce_cell cell;
    if (job->call->in[0].dtype == FTR_F32)
        cell.real = job->maximum ? -(double)INFINITY : 0.0;
    else
        cell.whole = job->maximum ? INT64_MIN : 0;
    return cell;
}

/* Combines rows of `width` neighbouring columns, `columns` apart, into cells. */
static void ftr__reduce_span_f32(const ftr__reduce_job *job, int64_t offset, int64_t rows, int64_t width,
                                 ftr__reduce_cell *cells) {
    const float *x = (const float *)job->call->in[0].data + offset;
    float tile[FTR__REDUCE_TILE];
    if (job->plan.columns == 1) {
        const ftr__reduce_cell value = {.real = job->maximum ? (double)job->math->maximum(rows, x)
                                                             : job->math->sum(rows, x)};
        ftr__reduce_combine(job, cells, value);
        return;
    }
    while (rows > 0) {
        const int64_t part = rows < FTR__REDUCE_SPAN ? rows : FTR__REDUCE_SPAN;
        for (int64_t j = 0; j < width; j++) tile[j] = job->maximum ? -INFINITY : 0.0f;
        if (job->maximum)
            job->math->column_maximum(part, width, x, job->plan.columns, tile);
        else
            job->math->column_sum(part, width, x, job->plan.columns, tile);
        for (int64_t j = 0; j < width; j++)
            ftr__reduce_combine(job, &cells[j], (ftr__reduce_cell){.real = (double)tile[j]});
        x += part * job->plan.columns;
        rows -= part;
    }
}

static void ftr__reduce_span(const ftr__reduce_job *job, int64_t offset, int64_t rows, int64_t width,
                             ftr__reduce_cell *cells) {
    const ftr_view *in = &job->call->in[0];
    if (in->dtype == FTR_F32) {
        ftr__reduce_span_f32(job, offset, rows, width, cells);
        return;
    }
    for (int64_t r = 0; r < rows; r++, offset += job->plan.columns)
        for (int64_t j = 0; j < width; j++) {
            const int64_t value = in->dtype == FTR_I32 ? ((const int32_t *)in->data)[offset + j]
                                                       : ((const int64_t *)in->data)[offset + j];
            ftr__reduce_combine(job, &cells[j], (ftr__reduce_cell){.whole = value});
        }
}

/* Rows first to last (not included) of an outer index, a tile of columns from `column` on. */
static void ftr__reduce_rows(const ftr__reduce_job *job, int64_t outer, int64_t column, int64_t width, int64_t first,
                             int64_t last, ftr__reduce_cell *cells) {
    const ftr__reduce_plan *p = &job->plan;
    const int64_t base = ftr__reduce_offset(p->kept, p->kept_count, outer) + column;
    for (int64_t j = 0; j < width; j++) cells[j] = ftr__reduce_identity(job);
    while (first < last) {
        const int64_t inside = first % p->neighbors;
        const int64_t rows = p->neighbors - inside < last - first ? p->neighbors - inside : last - first;
        const int64_t offset = ftr__reduce_offset(p->reduced, p->reduced_count, first / p->neighbors);
        ftr__reduce_span(job, base + offset + inside * p->columns, rows, width, cells);
        first += rows;
    }
}

static void ftr__reduce_store(const ftr__reduce_job *job, int64_t at, ftr__reduce_cell cell) {
    const ftr_view *out = &job->call->out[0];
    if (job->call->op == FTR_OP_mean) cell.real /= (double)job->plan.rows;
    switch (out->dtype) {
    case FTR_F32: ((float *)out->data)[at] = (float)cell.real; break;
    case FTR_I32: ((int32_t *)out->data)[at] = (int32_t)cell.whole; break;
    default: ((int64_t *)out->data)[at] = cell.whole; break;
    }
}

static inline int64_t ftr__reduce_width(const ftr__reduce_plan *p, int64_t column) {
    return p->columns - column < FTR__REDUCE_TILE ? p->columns - column : FTR__REDUCE_TILE;
}

static void ftr__reduce_task(void *arg, int64_t task, int32_t worker) {
    const ftr__reduce_job *job = arg;
    const ftr__reduce_plan *p = &job->plan;
    ftr__reduce_cell cells[FTR__REDUCE_TILE];
    (void)worker;
    if (p->chunks > 1) {
        const int64_t chunk = task % p->chunks, unit = task / p->chunks;
        const int64_t outer = unit / p->tiles, column = unit % p->tiles * FTR__REDUCE_TILE;
        const int64_t first = chunk * p->rows_per_chunk;
        const int64_t last = p->rows - first < p->rows_per_chunk ? p->rows : first + p->rows_per_chunk;
        const int64_t width = ftr__reduce_width(p, column);
        ftr__reduce_rows(job, outer, column, width, first, last, cells);
        ftr__reduce_cell *to = job->partial + (outer * p->chunks + chunk) * p->columns + column;
        for (int64_t j = 0; j < width; j++) to[j] = cells[j];
        return;
    }
    const int64_t units = p->outer * p->tiles, begin = task * p->units_per_task;
    for (int64_t unit = begin; unit < units && unit < begin + p->units_per_task; unit++) {
        const int64_t outer = unit / p->tiles, column = unit % p->tiles * FTR__REDUCE_TILE;
        const int64_t width = ftr__reduce_width(p, column);
        ftr__reduce_rows(job, outer, column, width, 0, p->rows, cells);
        for (int64_t j = 0; j < width; j++) ftr__reduce_store(job, outer * p->columns + column + j, cells[j]);
    }
}

/* Combines the chunks of one tile, in order. */
static void ftr__reduce_combine_task(void *arg, int64_t task, int32_t worker) {
    const ftr__reduce_job *job = arg;
    const ftr__reduce_plan *p = &job->plan;
    const int64_t outer = task / p->tiles, column = task % p->tiles * FTR__REDUCE_TILE;
    const int64_t width = ftr__reduce_width(p, column);
    ftr__reduce_cell cells[FTR__REDUCE_TILE];
    (void)worker;
    for (int64_t j = 0; j < width; j++) cells[j] = ftr__reduce_identity(job);
    for (int64_t chunk = 0; chunk < p->chunks; chunk++) {
        const ftr__reduce_cell *from = job->partial + (outer * p->chunks + chunk) * p->columns + column;
        for (int64_t j = 0; j < width; j++) ftr__reduce_combine(job, &cells[j], from[j]);
    }
    for (int64_t j = 0; j < width; j++) ftr__reduce_store(job, outer * p->columns + column + j, cells[j]);
}

size_t ftr__cpu_reduce_workspace(const ftr_kernel_call *call) {
    ftr__reduce_plan p;
    ftr__reduce_make_plan(&p, &call->in[0].shape, call->attr->axes.mask);
    return p.chunks > 1 ? (size_t)(p.outer * p.chunks * p.columns) * sizeof(ftr__reduce_cell) : 0;
}

ftr_status ftr__cpu_reduce(const ftr_kernel_call *call) {
    if (call->out[0].count == 0) return FTR_OK;
    ftr__reduce_job job = {.call = call, .math = &ftr__cpu_of(call)->simd->math, .partial = call->workspace};
    ftr__reduce_make_plan(&job.plan, &call->in[0].shape, call->attr->axes.mask);
    job.maximum = call->op == FTR_OP_max;
    const ftr__reduce_plan *p = &job.plan;
    const int64_t units = p->outer * p->tiles;
    const int64_t tasks = p->chunks > 1 ? units * p->chunks : (units + p->units_per_task - 1) / p->units_per_task;
    ftr__pool_run(ftr__cpu_of(call)->pool, tasks, ftr__reduce_task, &job);
    if (p->chunks > 1) ftr__pool_run(ftr__cpu_of(call)->pool, units, ftr__reduce_combine_task, &job);
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------------------- argmax -- */

typedef struct ftr__argmax_job {
    const ftr_kernel_call *call;
    int64_t size, inner, count, per_task;
} ftr__argmax_job;

static int64_t ftr__argmax_f32(const float *x, int64_t size, int64_t stride) {
    int64_t best = 0;
    for (int64_t i = 1; i < size; i++) {
        const float value = x[i * stride], most = x[best * stride];
        if (value > most || (isnan(value) && !isnan(most))) best = i;
    }
    return best;
}

#define FTR__ARGMAX_FUNCTION(name, type)                                                                               \
    static int64_t name(const type *x, int64_t size, int64_t stride) {                                                 \
        int64_t best = 0;                                                                                              \
        for (int64_t i = 1; i < size; i++)                                                                             \
            if (x[i * stride] > x[best * stride]) best = i;                                                            \
        return best;                                                                                                   \
    }

FTR__ARGMAX_FUNCTION(ftr__argmax_i32, int32_t)
FTR__ARGMAX_FUNCTION(ftr__argmax_i64, int64_t)

static void ftr__argmax_task(void *arg, int64_t task, int32_t worker) {
    const ftr__argmax_job *job = arg;
    const ftr_view *in = &job->call->in[0];
    int64_t *out = job->call->out[0].data;
    const int64_t first = task * job->per_task;
    const int64_t last = job->count - first < job->per_task ? job->count : first + job->per_task;
    (void)worker;
    for (int64_t i = first; i < last; i++) {
        const int64_t at = i / job->inner * job->size * job->inner + i % job->inner;
        switch (in->dtype) {
        case FTR_F32: out[i] = ftr__argmax_f32((const float *)in->data + at, job->size, job->inner); break;
        case FTR_I32: out[i] = ftr__argmax_i32((const int32_t *)in->data + at, job->size, job->inner); break;
        default: out[i] = ftr__argmax_i64((const int64_t *)in->data + at, job->size, job->inner); break;
        }
    }
}

ftr_status ftr__cpu_argmax(const ftr_kernel_call *call) {
    const ftr_view *in = &call->in[0];
    int32_t axis = 0;
    while (axis < in->shape.rank - 1 && (call->attr->axes.mask >> axis & 1u) == 0) axis++;
    ftr__argmax_job job = {.call = call, .size = 1, .inner = 1, .count = call->out[0].count};
    if (axis < in->shape.rank) job.size = in->shape.dim[axis];
    for (int32_t d = axis + 1; d < in->shape.rank; d++) job.inner *= in->shape.dim[d];
    if (job.count == 0) return FTR_OK;
    job.per_task = 1 + FTR__REDUCE_GRAIN / (job.size > 0 ? job.size : 1);
    ftr__pool_run(ftr__cpu_of(call)->pool, (job.count + job.per_task - 1) / job.per_task, ftr__argmax_task, &job);
    return FTR_OK;
}
