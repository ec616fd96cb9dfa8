/* Ops on indices. Before anything is read or written through an index, all of them are checked. Tasks own what they
 * write, and add in the order of the indices: the same bits on any number of threads. */
#include "backend/cpu/cpu.h"

#include <string.h>

#define FTR__INDEX_GRAIN 16384 /* elements of a task */
#define FTR__INDEX_TILE 256    /* columns of a row that are summed together */
#define FTR__INDEX_SPAN 2048   /* rows that are added in f32 at most */

static inline int64_t ftr__index_at(const ftr_view *index, int64_t i) {
    return index->dtype == FTR_I32 ? ((const int32_t *)index->data)[i] : ((const int64_t *)index->data)[i];
}

static inline int64_t ftr__index_tasks(int64_t units, int64_t per_task) { return (units + per_task - 1) / per_task; }

/* ------------------------------------------------------------------------------------------------------ checking -- */

typedef struct ftr__index_check {
    const ftr_view *index;
    int64_t limit;
    int64_t *bad; /* of a task: the first position that is out of range, or -1 */
} ftr__index_check;

static void ftr__index_check_task(void *arg, int64_t task, int32_t worker) {
    const ftr__index_check *job = arg;
    const int64_t first = task * FTR__INDEX_GRAIN, left = job->index->count - first;
    const int64_t last = first + (left < FTR__INDEX_GRAIN ? left : FTR__INDEX_GRAIN);
    (void)worker;
    job->bad[task] = -1;
    for (int64_t i = last - 1; i >= first; i--)
        if ((uint64_t)ftr__index_at(job->index, i) >= (uint64_t)job->limit) job->bad[task] = i;
}

static size_t ftr__index_check_bytes(const ftr_view *index) {
    return (size_t)ftr__index_tasks(index->count, FTR__INDEX_GRAIN) * sizeof(int64_t);
}

/* The first position whose index is not in 0 to limit - 1; -1 if there is none. Uses the head of the workspace. */
static int64_t ftr__index_first_bad(const ftr_kernel_call *call, const ftr_view *index, int64_t limit) {
    ftr__index_check job = {.index = index, .limit = limit, .bad = call->workspace};
    const int64_t tasks = ftr__index_tasks(index->count, FTR__INDEX_GRAIN);
    ftr__pool_run(ftr__cpu_of(call)->pool, tasks, ftr__index_check_task, &job);
    for (int64_t task = 0; task < tasks; task++)
        if (job.bad[task] >= 0) return job.bad[task];
    return -1;
}

/* ----------------------------------------------------------------------------------------------------- embedding -- */

typedef struct ftr__embedding_job {
    const ftr_kernel_call *call;
    int64_t rows, width, count, per_task; /* of the weight; indices */
    int64_t tiles;
    const int64_t *ends, *order; /* positions, sorted by their index: those of row r end at ends[r] */
} ftr__embedding_job;

static ftr_status ftr__embedding_check(const ftr_kernel_call *call, int64_t rows) {
    const ftr_view *index = &call->in[1];
    const int64_t bad = ftr__index_first_bad(call, index, rows);
    if (bad < 0) return FTR_OK;
    return ftr_backend_error(call, FTR_ERROR_DATA, "index %lld at position %lld is outside the %lld rows",
                             (long long)ftr__index_at(index, bad), (long long)bad, (long long)rows);
}

static void ftr__embedding_task(void *arg, int64_t task, int32_t worker) {
    const ftr__embedding_job *job = arg;
    const float *weight = job->call->in[0].data;
    float *out = job->call->out[0].data;
    const int64_t first = task * job->per_task;
    (void)worker;
    for (int64_t i = first; i < job->count && i < first + job->per_task; i++)
        memcpy(out + i * job->width, weight + ftr__index_at(&job->call->in[1], i) * job->width,
               (size_t)job->width * sizeof *out);
}

size_t ftr__cpu_embedding_workspace(const ftr_kernel_call *call) { return ftr__index_check_bytes(&call->in[1]); }

ftr_status ftr__cpu_embedding(const ftr_kernel_call *call) {
    ftr__embedding_job job = {.call = call, .rows = call->in[0].shape.dim[0], .width = call->in[0].shape.dim[1]};
    job.count = call->in[1].count;
    const ftr_status status = ftr__embedding_check(call, job.rows);
    if (status || call->out[0].count == 0) return status;
    job.per_task = 1 + FTR__INDEX_GRAIN / job.width;
    ftr__pool_run(ftr__cpu_of(call)->pool, ftr__index_tasks(job.count, job.per_task), ftr__embedding_task, &job);
    return FTR_OK;
}

/* A tile of one row: the sum of the gradients at its positions; spans of them are added in double. */
static void ftr__embedding_grad_row(const ftr__embedding_job *job, int64_t row, int64_t column, int64_t width) {
    const float *dy = (const float *)job->call->in[0].data + column;
    float *out = (float *)job->call->out[0].data + row * job->width + column;
    int64_t at = row > 0 ? job->ends[row - 1] : 0;
    const int64_t end = job->ends[row];
    const bool spans = end - at > FTR__INDEX_SPAN;
    double total[FTR__INDEX_TILE];
    memset(out, 0, (size_t)width * sizeof *out);
    if (spans) memset(total, 0, sizeof total);
    while (at < end) {
        const int64_t last = end - at < FTR__INDEX_SPAN ? end : at + FTR__INDEX_SPAN;
        for (; at < last; at++)
            ftr__cpu_of(job->call)->simd->math.axpy(width, 1.0f, dy + job->order[at] * job->width, out);
        for (int64_t j = 0; spans && j < width; j++) {
            total[j] += (double)out[j];
            out[j] = at < end ? 0.0f : (float)total[j];
        }
    }
}

static void ftr__embedding_grad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__embedding_job *job = arg;
    const int64_t column = task % job->tiles * FTR__INDEX_TILE, left = job->width - column;
    const int64_t first = task / job->tiles * job->per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->per_task; row++)
        ftr__embedding_grad_row(job, row, column, left < FTR__INDEX_TILE ? left : FTR__INDEX_TILE);
}

/* The check's cells, then ends and order. */
size_t ftr__cpu_embedding_grad_workspace(const ftr_kernel_call *call) {
    return ftr__index_check_bytes(&call->in[1]) +
           (size_t)(call->out[0].shape.dim[0] + call->in[1].count) * sizeof(int64_t);
}

ftr_status ftr__cpu_embedding_grad(const ftr_kernel_call *call) {
    const ftr_view *index = &call->in[1];
    ftr__embedding_job job = {.call = call, .rows = call->out[0].shape.dim[0], .width = call->out[0].shape.dim[1]};
    job.count = index->count;
    const ftr_status status = ftr__embedding_check(call, job.rows);
    if (status || call->out[0].count == 0) return status;
    int64_t *ends = (int64_t *)call->workspace + ftr__index_tasks(job.count, FTR__INDEX_GRAIN);
    int64_t *order = ends + job.rows, begin = 0;
    memset(ends, 0, (size_t)job.rows * sizeof *ends);
    for (int64_t i = 0; i < job.count; i++) ends[ftr__index_at(index, i)]++;
    for (int64_t row = 0; row < job.rows; row++) { /* where the row begins; filling moves it to its end */
        const int64_t size = ends[row];
        ends[row] = begin;
        begin += size;
    }
    for (int64_t i = 0; i < job.count; i++) order[ends[ftr__index_at(index, i)]++] = i;
    job.ends = ends;
    job.order = order;
    job.tiles = ftr__index_tasks(job.width, FTR__INDEX_TILE);
    const int64_t width = job.width < FTR__INDEX_TILE ? job.width : FTR__INDEX_TILE;
    job.per_task = 1 + FTR__INDEX_GRAIN / ((1 + job.count / job.rows) * width);
    ftr__pool_run(ftr__cpu_of(call)->pool, ftr__index_tasks(job.rows, job.per_task) * job.tiles,
                  ftr__embedding_grad_task, &job);
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------- gather and scatter -- */

/* The index as blocks of rows x columns elements: rows run along the axis, columns along the last dimension; if that is
 * the axis there is one row. A block has a place in the index, in x (the gathered or the scattered-to tensor) and in
 * the dense partner (gather's result, scatter's source). */
typedef struct ftr__gather_job {
    const ftr_kernel_call *call;
    const ftr_view *index;
    const char *from; /* gather: x; scatter: the source */
    char *to;         /* gather: the result; scatter: x and more */
    int32_t outer_rank;
    int64_t outer[FTR_MAX_RANK], index_stride[FTR_MAX_RANK], x_stride[FTR_MAX_RANK], partner_stride[FTR_MAX_RANK];
    int64_t blocks, rows, columns;
    int64_t index_row, partner_row; /* from row to row */
    int64_t x_step;                 /* from index to index */
    int64_t x_column;               /* from column to column: 0 if the last dimension is the axis */
    int64_t row_cut, column_cut, row_cuts, column_cuts, per_task;
} ftr__gather_job;

/* A piece of a block. */
typedef struct ftr__gather_piece {
    int64_t index, x, partner; /* offsets of its first row and column */
    int64_t rows, columns;
} ftr__gather_piece;

static void ftr__gather_plan(ftr__gather_job *job, const ftr_shape *x, const ftr_shape *partner, int32_t axis) {
    const ftr_shape *index = &job->index->shape;
    const int32_t last = index->rank - 1;
    int64_t index_stride = 1, x_stride = 1, partner_stride = 1;
    job->blocks = job->rows = 1;
    for (int32_t d = last; d >= 0; d--) {
        if (d == axis) job->x_step = x_stride;
        if (d == last) {
            job->columns = index->dim[d];
            job->x_column = d == axis ? 0 : 1;
        } else if (d == axis) {
            job->rows = index->dim[d];
            job->index_row = index_stride;
            job->partner_row = partner_stride;
        } else {
            const int32_t at = job->outer_rank++;
            job->outer[at] = index->dim[d];
            job->index_stride[at] = index_stride;
            job->x_stride[at] = x_stride;
            job->partner_stride[at] = partner_stride;
            job->blocks *= index->dim[d];
        }
        index_stride *= index->dim[d];
        x_stride *= x->dim[d];
        partner_stride *= partner->dim[d];
    }
}

/* Cuts blocks into pieces; returns the number of tasks. */
static int64_t ftr__gather_cut(ftr__gather_job *job, int64_t row_cut, int64_t column_cut) {
    job->row_cut = row_cut < job->rows ? row_cut : job->rows;
    job->column_cut = column_cut < job->columns ? column_cut : job->columns;
    job->row_cuts = ftr__index_tasks(job->rows, job->row_cut);
    job->column_cuts = ftr__index_tasks(job->columns, job->column_cut);
    job->per_task = 1 + FTR__INDEX_GRAIN / (job->row_cut * job->column_cut);
    return ftr__index_tasks(job->blocks * job->row_cuts * job->column_cuts, job->per_task);
}

static ftr__gather_piece ftr__gather_piece_at(const ftr__gather_job *job, int64_t number) {
    const int64_t column = number % job->column_cuts * job->column_cut;
    const int64_t row = number / job->column_cuts % job->row_cuts * job->row_cut;
    int64_t block = number / job->column_cuts / job->row_cuts;
    ftr__gather_piece piece = {row * job->index_row + column, column * job->x_column, row * job->partner_row + column,
                               job->rows - row, job->columns - column};
    if (piece.rows > job->row_cut) piece.rows = job->row_cut;
    if (piece.columns > job->column_cut) piece.columns = job->column_cut;
    for (int32_t i = 0; i < job->outer_rank; i++) {
        const int64_t at = block % job->outer[i];
        block /= job->outer[i];
        piece.index += at * job->index_stride[i];
        piece.x += at * job->x_stride[i];
        piece.partner += at * job->partner_stride[i];
    }
    return piece;
}

/* Called with a constant size. */
static inline void ftr__gather_copy(const ftr__gather_job *job, ftr__gather_piece piece, int64_t size) {
    for (int64_t r = 0; r < piece.rows; r++)
        for (int64_t j = 0; j < piece.columns; j++) {
            const int64_t k = ftr__index_at(job->index, piece.index + r * job->index_row + j);
            memcpy(job->to + (piece.partner + r * job->partner_row + j) * size,
                   job->from + (piece.x + k * job->x_step + j * job->x_column) * size, (size_t)size);
        }
}

static void ftr__gather_task(void *arg, int64_t task, int32_t worker) {
    const ftr__gather_job *job = arg;
    const int64_t first = task * job->per_task, pieces = job->blocks * job->row_cuts * job->column_cuts;
    (void)worker;
    for (int64_t i = first; i < pieces && i < first + job->per_task; i++) {
        const ftr__gather_piece piece = ftr__gather_piece_at(job, i);
        switch (ftr_dtype_size(job->call->out[0].dtype)) {
        case 1: ftr__gather_copy(job, piece, 1); break;
        case 4: ftr__gather_copy(job, piece, 4); break;
        default: ftr__gather_copy(job, piece, 8); break;
        }
    }
}

static ftr_status ftr__gather_check(const ftr_kernel_call *call, const ftr_view *index, const ftr_shape *x,
                                    int32_t axis) {
    const int64_t bad = ftr__index_first_bad(call, index, x->dim[axis]);
    if (bad < 0) return FTR_OK;
    return ftr_backend_error(
        call, FTR_ERROR_DATA, "index %lld at position %lld is outside axis %d, which has size %lld",
        (long long)ftr__index_at(index, bad), (long long)bad, (int)axis, (long long)x->dim[axis]);
}

size_t ftr__cpu_gather_workspace(const ftr_kernel_call *call) { return ftr__index_check_bytes(&call->in[1]); }

ftr_status ftr__cpu_gather(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *index = &call->in[1];
    const int32_t axis = call->attr->axis.axis;
    const ftr_status status = ftr__gather_check(call, index, &x->shape, axis);
    if (status || index->count == 0) return status;
    ftr__gather_job job = {.call = call, .index = index, .from = x->data, .to = call->out[0].data};
    ftr__gather_plan(&job, &x->shape, &index->shape, axis);
    const int64_t cut = job.columns < FTR__INDEX_GRAIN ? FTR__INDEX_GRAIN / job.columns : 1;
    ftr__pool_run(ftr__cpu_of(call)->pool, ftr__gather_cut(&job, cut, FTR__INDEX_GRAIN), ftr__gather_task, &job);
    return FTR_OK;
}

/* Adds in the order of the index; `through` is unsigned for integers, whose sums wrap. */
#define FTR__SCATTER_FUNCTION(name, type, through)                                                                     \
    static void name(const ftr__gather_job *job, ftr__gather_piece piece) {                                            \
        const type *from = (const type *)(const void *)job->from + piece.partner;                                      \
        type *to = (type *)(void *)job->to + piece.x;                                                                  \
        for (int64_t r = 0; r < piece.rows; r++)                                                                       \
            for (int64_t j = 0; j < piece.columns; j++) {                                                              \
                const int64_t k = ftr__index_at(job->index, piece.index + r * job->index_row + j);                     \
                type *cell = to + k * job->x_step + j * job->x_column;                                                 \
                *cell = (type)((through)*cell + (through)from[r * job->partner_row + j]);                              \
            }                                                                                                          \
    }

FTR__SCATTER_FUNCTION(ftr__scatter_f32, float, float)
FTR__SCATTER_FUNCTION(ftr__scatter_i32, int32_t, uint32_t)
FTR__SCATTER_FUNCTION(ftr__scatter_i64, int64_t, uint64_t)

static void ftr__scatter_task(void *arg, int64_t task, int32_t worker) {
    const ftr__gather_job *job = arg;
    const int64_t first = task * job->per_task, pieces = job->blocks * job->column_cuts;
    (void)worker;
    for (int64_t i = first; i < pieces && i < first + job->per_task; i++) {
        const ftr__gather_piece piece = ftr__gather_piece_at(job, i);
        switch (job->call->out[0].dtype) {
        case FTR_F32: ftr__scatter_f32(job, piece); break;
        case FTR_I32: ftr__scatter_i32(job, piece); break;
        default: ftr__scatter_i64(job, piece); break;
        }
    }
}

/* The result before anything is added: x, or zeros. */
static void ftr__scatter_start_task(void *arg, int64_t task, int32_t worker) {
    const ftr_kernel_call *call = arg;
    const ftr_view *x = ftr__optional_input(call, 2), *out = &call->out[0];
    const int64_t size = (int64_t)ftr_dtype_size(out->dtype), begin = task * 4 * FTR__INDEX_GRAIN;
    const int64_t left = out->count * size - begin, bytes = left < 4 * FTR__INDEX_GRAIN ? left : 4 * FTR__INDEX_GRAIN;
    (void)worker;
    if (x)
        memcpy((char *)out->data + begin, (const char *)x->data + begin, (size_t)bytes);
    else
        memset((char *)out->data + begin, 0, (size_t)bytes);
}

size_t ftr__cpu_scatter_add_workspace(const ftr_kernel_call *call) { return ftr__index_check_bytes(&call->in[0]); }

ftr_status ftr__cpu_scatter_add(const ftr_kernel_call *call) {
    const ftr_view *index = &call->in[0], *source = &call->in[1], *out = &call->out[0];
    const int32_t axis = call->attr->scatter.axis;
    const ftr_status status = ftr__gather_check(call, index, &out->shape, axis);
    if (status || out->count == 0) return status;
    const int64_t bytes = out->count * (int64_t)ftr_dtype_size(out->dtype);
    ftr_kernel_call copy = *call;
    ftr__pool_run(ftr__cpu_of(call)->pool, ftr__index_tasks(bytes, 4 * FTR__INDEX_GRAIN), ftr__scatter_start_task,
                  &copy);
    if (index->count == 0) return FTR_OK;
    ftr__gather_job job = {.call = call, .index = index, .from = source->data, .to = out->data};
    ftr__gather_plan(&job, &out->shape, &source->shape, axis);
    /* Two rows may add to one element, so a task has all rows of a block; and all columns, if they are along the axis. */
    const int64_t cut = job.x_column == 0 ? job.columns : FTR__INDEX_TILE;
    ftr__pool_run(ftr__cpu_of(call)->pool, ftr__gather_cut(&job, job.rows, cut), ftr__scatter_task, &job);
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------- one hot -- */

typedef struct ftr__one_hot_job {
    const ftr_kernel_call *call;
    int64_t row_bytes, per_task;
} ftr__one_hot_job;

static void ftr__one_hot_task(void *arg, int64_t task, int32_t worker) {
    const ftr__one_hot_job *job = arg;
    const ftr_view *index = &job->call->in[0], *out = &job->call->out[0];
    const int64_t first = task * job->per_task;
    (void)worker;
    for (int64_t i = first; i < index->count && i < first + job->per_task; i++) {
        char *row = (char *)out->data + i * job->row_bytes;
        const int64_t at = ftr__index_at(index, i);
        memset(row, 0, (size_t)job->row_bytes);
        switch (out->dtype) {
        case FTR_F32: ((float *)(void *)row)[at] = 1.0f; break;
        case FTR_I32: ((int32_t *)(void *)row)[at] = 1; break;
        case FTR_I64: ((int64_t *)(void *)row)[at] = 1; break;
        default: row[at] = 1; break;
        }
    }
}

size_t ftr__cpu_one_hot_workspace(const ftr_kernel_call *call) { return ftr__index_check_bytes(&call->in[0]); }

ftr_status ftr__cpu_one_hot(const ftr_kernel_call *call) {
    const ftr_view *index = &call->in[0];
    const int64_t classes = call->attr->one_hot.classes, bad = ftr__index_first_bad(call, index, classes);
    if (bad >= 0)
        return ftr_backend_error(call, FTR_ERROR_DATA, "index %lld at position %lld is outside the %lld classes",
                                 (long long)ftr__index_at(index, bad), (long long)bad, (long long)classes);
    ftr__one_hot_job job = {.call = call, .row_bytes = classes * (int64_t)ftr_dtype_size(call->out[0].dtype)};
    job.per_task = 1 + 4 * FTR__INDEX_GRAIN / job.row_bytes;
    ftr__pool_run(ftr__cpu_of(call)->pool, ftr__index_tasks(index->count, job.per_task), ftr__one_hot_task, &job);
    return FTR_OK;
}

/* --------------------------------------------------------------------------------------------------------- top k -- */

typedef struct ftr__topk_job {
    const ftr_kernel_call *call;
    int64_t rows, n, k, per_task;
} ftr__topk_job;

/* A number that is larger for larger elements: NaN is the largest, -0 is 0. */
static inline int64_t ftr__topk_key(const ftr_view *x, int64_t i) {
    if (x->dtype == FTR_I32) return ((const int32_t *)x->data)[i];
    if (x->dtype == FTR_I64) return ((const int64_t *)x->data)[i];
    const float value = ((const float *)x->data)[i];
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const int64_t size = (int64_t)(bits & 0x7fffffffu);
    if (size > 0x7f800000) return INT64_MAX;
    return bits >> 31 ? -size : size;
}

/* Whether position i of the row at `base` comes before position j. */
static inline bool ftr__topk_before(const ftr_view *x, int64_t base, int64_t i, int64_t j) {
    const int64_t a = ftr__topk_key(x, base + i), b = ftr__topk_key(x, base + j);
    return a > b || (a == b && i < j);
}

/* Restores a heap whose root is the last of its positions. */
static void ftr__topk_sift(const ftr_view *x, int64_t base, int64_t *heap, int64_t count, int64_t at) {
    const int64_t moved = heap[at];
    for (int64_t child = 2 * at + 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && ftr__topk_before(x, base, heap[child], heap[child + 1])) child++;
        if (ftr__topk_before(x, base, heap[child], moved)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

/* A heap of the best k, in the result's own memory, which is sorted in the end. */
static void ftr__topk_row(const ftr__topk_job *job, int64_t row) {
    const ftr_view *x = &job->call->in[0];
    const int64_t base = row * job->n, size = (int64_t)ftr_dtype_size(x->dtype);
    int64_t *heap = (int64_t *)job->call->out[1].data + row * job->k;
    char *values = (char *)job->call->out[0].data + row * job->k * size;
    for (int64_t i = 0; i < job->k; i++) heap[i] = i;
    for (int64_t i = job->k / 2; i-- > 0;) ftr__topk_sift(x, base, heap, job->k, i);
    for (int64_t i = job->k; i < job->n; i++) {
        if (!ftr__topk_before(x, base, i, heap[0])) continue;
        heap[0] = i;
        ftr__topk_sift(x, base, heap, job->k, 0);
    }
    for (int64_t end = job->k - 1; end > 0; end--) {
        const int64_t worst = heap[0];
        heap[0] = heap[end];
        heap[end] = worst;
        ftr__topk_sift(x, base, heap, end, 0);
    }
    for (int64_t i = 0; i < job->k; i++)
        memcpy(values + i * size, (const char *)x->data + (base + heap[i]) * size, (size_t)size);
}

static void ftr__topk_task(void *arg, int64_t task, int32_t worker) {
    const ftr__topk_job *job = arg;
    const int64_t first = task * job->per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->per_task; row++) ftr__topk_row(job, row);
}

ftr_status ftr__cpu_topk(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0];
    ftr__topk_job job = {.call = call, .n = x->shape.dim[x->shape.rank - 1], .k = call->attr->topk.k};
    if (call->out[0].count == 0) return FTR_OK;
    job.rows = x->count / job.n;
    job.per_task = 1 + FTR__INDEX_GRAIN / job.n;
    ftr__pool_run(ftr__cpu_of(call)->pool, ftr__index_tasks(job.rows, job.per_task), ftr__topk_task, &job);
    return FTR_OK;
}
