/* Pointwise kernels. Shapes are brought to one form first: neighbouring dimensions that broadcast alike are merged,
 * so that the usual cases (equal shapes, a scalar, a vector per row) are one or two loops over long rows. */
#include "backend/cpu/cpu.h"

#include <math.h>

#define FTR__POINTWISE_GRAIN 16384 /* elements of a task */
#define FTR__POINTWISE_INPUTS 3
#define FTR__POINTWISE_PIECE 1024 /* elements of f16 or bf16 that go through f32 at a time */

/* Rows of `n` elements. Within a row an input's stride is 0 or 1; from row to row it follows the outer dimensions. */
typedef struct ftr__broadcast {
    int64_t n, rows;
    int64_t chunks;        /* of a row, if a row is longer than a task */
    int64_t rows_per_task; /* if it is shorter */
    int64_t tasks;
    int32_t inputs, outer;
    int64_t dim[FTR_MAX_RANK];
    int64_t stride[FTR__POINTWISE_INPUTS][FTR_MAX_RANK];
    int64_t inner[FTR__POINTWISE_INPUTS];
} ftr__broadcast;

/* Stride of each dimension of `shape` of an input, in the input: 0 where it is stretched. */
static void ftr__broadcast_strides(const ftr_view *in, const ftr_shape *shape, int64_t *stride) {
    int64_t step = 1;
    for (int32_t d = shape->rank - 1; d >= 0; d--) {
        const int32_t from = d - (shape->rank - in->shape.rank);
        const int64_t size = from >= 0 ? in->shape.dim[from] : 1;
        stride[d] = size == 1 ? 0 : step;
        step *= size;
    }
}

static void ftr__broadcast_tasks(ftr__broadcast *b) {
    b->rows = 1;
    for (int32_t d = 0; d < b->outer; d++) b->rows *= b->dim[d];
    b->chunks = b->n > FTR__POINTWISE_GRAIN ? (b->n + FTR__POINTWISE_GRAIN - 1) / FTR__POINTWISE_GRAIN : 1;
    b->rows_per_task = b->chunks > 1 || b->n == 0 ? 1 : FTR__POINTWISE_GRAIN / b->n;
    b->tasks = b->n == 0 ? 0 : (b->rows + b->rows_per_task - 1) / b->rows_per_task * b->chunks;
}

static void ftr__broadcast_plan(ftr__broadcast *b, const ftr_kernel_call *call) {
    const ftr_shape *shape = &call->out[0].shape;
    int64_t full[FTR__POINTWISE_INPUTS][FTR_MAX_RANK];
    int32_t count = 0;
    *b = (ftr__broadcast){.inputs = call->in_count};
    for (int32_t i = 0; i < b->inputs; i++) ftr__broadcast_strides(&call->in[i], shape, full[i]);
    for (int32_t d = 0; d < shape->rank; d++) {
        if (shape->dim[d] == 1) continue;
        bool merge = count > 0;
        for (int32_t i = 0; i < b->inputs && merge; i++) merge = b->stride[i][count - 1] == full[i][d] * shape->dim[d];
        if (!merge) count++;
        b->dim[count - 1] = merge ? b->dim[count - 1] * shape->dim[d] : shape->dim[d];
        for (int32_t i = 0; i < b->inputs; i++) b->stride[i][count - 1] = full[i][d];
    }
    b->n = count > 0 ? b->dim[count - 1] : 1;
    b->outer = count > 0 ? count - 1 : 0;
    for (int32_t i = 0; i < b->inputs; i++) b->inner[i] = count > 0 ? b->stride[i][count - 1] : 0;
    if (call->out[0].count == 0) b->n = 0;
    ftr__broadcast_tasks(b);
}

/* A row: its place in the outer dimensions, and where it begins in each input. */
typedef struct ftr__broadcast_at {
    int64_t at[FTR_MAX_RANK], offset[FTR__POINTWISE_INPUTS];
} ftr__broadcast_at;

static ftr__broadcast_at ftr__broadcast_row(const ftr__broadcast *b, int64_t row) {
    ftr__broadcast_at x = {.offset = {0}};
    for (int32_t d = b->outer - 1; d >= 0; d--) {
        x.at[d] = row % b->dim[d];
        row /= b->dim[d];
        for (int32_t i = 0; i < b->inputs; i++) x.offset[i] += x.at[d] * b->stride[i][d];
    }
    return x;
}

/* The row behind it, without a division: rows may be short. */
static void ftr__broadcast_next(const ftr__broadcast *b, ftr__broadcast_at *x) {
    for (int32_t d = b->outer - 1; d >= 0; d--) {
        for (int32_t i = 0; i < b->inputs; i++) x->offset[i] += b->stride[i][d];
        if (++x->at[d] < b->dim[d]) return;
        for (int32_t i = 0; i < b->inputs; i++) x->offset[i] -= b->dim[d] * b->stride[i][d];
        x->at[d] = 0;
    }
}

typedef struct ftr__pointwise_job ftr__pointwise_job;

/* Computes n elements; in[i] and out point at the first; in[i] is one element if its inner stride is 0. */
typedef void (*ftr__pointwise_row_fn)(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out);

struct ftr__pointwise_job {
    ftr__broadcast plan;
    const ftr_kernel_call *call;
    ftr__pointwise_row_fn row;
    const ftr__simd_math *math;
    size_t in_size[FTR__POINTWISE_INPUTS], out_size;
    bool pieces; /* `row` knows f32 only, and there are f16 or bf16 tensors */
};

/* Pieces of a row go through f32: short ones, which stay in the L1 cache. Of an input that is one element it is converted
 * each time. */
static void ftr__pointwise_pieces(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    float wide[FTR__POINTWISE_INPUTS][FTR__POINTWISE_PIECE], result[FTR__POINTWISE_PIECE];
    const ftr_view *to = &job->call->out[0];
    for (int64_t at = 0; at < n; at += FTR__POINTWISE_PIECE) {
        const int64_t count = n - at < FTR__POINTWISE_PIECE ? n - at : FTR__POINTWISE_PIECE;
        const void *from[FTR__POINTWISE_INPUTS];
        for (int32_t i = 0; i < job->plan.inputs; i++) {
            const int64_t stride = job->plan.inner[i];
            const ftr_dtype dtype = job->call->in[i].dtype;
            from[i] = (const char *)in[i] + (size_t)(at * stride) * job->in_size[i];
            if (!ftr__is_half(dtype)) continue;
            job->math->widen[ftr__half_index(dtype)](stride ? count : 1, from[i], wide[i]);
            from[i] = wide[i];
        }
        char *end = (char *)out + (size_t)at * job->out_size;
        job->row(job, count, from, ftr__is_half(to->dtype) ? (void *)result : (void *)end);
        if (ftr__is_half(to->dtype))
            job->math->narrow[ftr__half_index(to->dtype)](count, result, (uint16_t *)(void *)end);
    }
}

static void ftr__pointwise_part(const ftr__pointwise_job *job, int64_t row, const ftr__broadcast_at *at, int64_t begin,
                                int64_t n) {
    const ftr__broadcast *b = &job->plan;
    const void *in[FTR__POINTWISE_INPUTS];
    for (int32_t i = 0; i < b->inputs; i++)
        in[i] = (const char *)job->call->in[i].data + (size_t)(at->offset[i] + begin * b->inner[i]) * job->in_size[i];
    char *out = (char *)job->call->out[0].data + (size_t)(row * b->n + begin) * job->out_size;
    if (job->pieces)
        ftr__pointwise_pieces(job, n, in, out);
    else
        job->row(job, n, in, out);
}

static void ftr__pointwise_task(void *arg, int64_t task, int32_t worker) {
    const ftr__pointwise_job *job = arg;
    const ftr__broadcast *b = &job->plan;
    (void)worker;
    if (b->chunks > 1) {
        const int64_t begin = task % b->chunks * FTR__POINTWISE_GRAIN;
        const int64_t n = b->n - begin < FTR__POINTWISE_GRAIN ? b->n - begin : FTR__POINTWISE_GRAIN;
        const int64_t row = task / b->chunks;
        const ftr__broadcast_at at = ftr__broadcast_row(b, row);
        ftr__pointwise_part(job, row, &at, begin, n);
        return;
    }
    const int64_t first = task * b->rows_per_task;
    const int64_t last = b->rows - first < b->rows_per_task ? b->rows : first + b->rows_per_task;
    ftr__broadcast_at at = ftr__broadcast_row(b, first);
    for (int64_t row = first; row < last; row++) {
        ftr__pointwise_part(job, row, &at, 0, b->n);
        ftr__broadcast_next(b, &at);
    }
}

static ftr_status ftr__pointwise_start(const ftr_kernel_call *call, ftr__pointwise_row_fn row, bool pieces) {
    ftr__pointwise_job job = {.call = call, .row = row, .math = &ftr__cpu_of(call)->simd->math, .pieces = pieces};
    ftr__broadcast_plan(&job.plan, call);
    for (int32_t i = 0; i < call->in_count; i++) job.in_size[i] = ftr_dtype_size(call->in[i].dtype);
    job.out_size = ftr_dtype_size(call->out[0].dtype);
    ftr__pool_run(ftr__cpu_of(call)->pool, job.plan.tasks, ftr__pointwise_task, &job);
    return FTR_OK;
}

/* `row` takes the tensors as they are. */
static ftr_status ftr__pointwise_run(const ftr_kernel_call *call, ftr__pointwise_row_fn row) {
    return ftr__pointwise_start(call, row, false);
}

/* `row` computes in f32; the tensors may be f16 and bf16. */
static ftr_status ftr__pointwise_run_real(const ftr_kernel_call *call, ftr__pointwise_row_fn row) {
    bool half = ftr__is_half(call->out[0].dtype);
    for (int32_t i = 0; i < call->in_count; i++) half = half || ftr__is_half(call->in[i].dtype);
    return ftr__pointwise_start(call, row, half);
}

/* Whether kernels compute in f32. */
static bool ftr__pointwise_is_real(ftr_dtype dtype) { return dtype == FTR_F32 || ftr__is_half(dtype); }

static ftr_status ftr__pointwise_dtype_error(const ftr_kernel_call *call, ftr_dtype dtype) {
    return ftr_backend_error(call, FTR_ERROR_UNSUPPORTED, "the CPU backend has no kernel for %s",
                             ftr_dtype_name(dtype));
}

/* ---------------------------------------------------------------------------------------------------- arithmetic -- */

static void ftr__binary_row_f32(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const ftr__simd_operands operands = job->plan.inner[0] == job->plan.inner[1] ? FTR__OPERANDS_ROWS
                                        : job->plan.inner[1] == 0                ? FTR__OPERANDS_RIGHT_SCALAR
                                                                                 : FTR__OPERANDS_LEFT_SCALAR;
    ftr__simd_binary op;
    switch (job->call->op) {
    case FTR_OP_add: op = FTR__BINARY_ADD; break;
    case FTR_OP_sub: op = FTR__BINARY_SUB; break;
    case FTR_OP_mul: op = FTR__BINARY_MUL; break;
    case FTR_OP_div: op = FTR__BINARY_DIV; break;
    case FTR_OP_minimum: op = FTR__BINARY_MINIMUM; break;
    default: op = FTR__BINARY_MAXIMUM; break;
    }
    job->math->binary[op][operands](n, in[0], in[1], out);
}

static void ftr__pow_row(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const float *a = in[0], *b = in[1];
    const int64_t sa = job->plan.inner[0], sb = job->plan.inner[1];
    float *y = out;
    for (int64_t i = 0; i < n; i++) y[i] = powf(a[i * sa], b[i * sb]);
}

/* A loop for each op over integers; sums and products are computed unsigned, where overflow wraps. */
#define FTR__INTEGER_CASE(op, result)                                                                                  \
    case FTR_OP_##op:                                                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const type_t x = a[i * sa], z = b[i * sb];                                                                 \
            y[i] = result;                                                                                             \
        }                                                                                                              \
        break

static void ftr__binary_row_i32(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    typedef int32_t type_t;
    const type_t *a = in[0], *b = in[1];
    const int64_t sa = job->plan.inner[0], sb = job->plan.inner[1];
    type_t *y = out;
    switch (job->call->op) {
        FTR__INTEGER_CASE(add, (type_t)((uint32_t)x + (uint32_t)z));
        FTR__INTEGER_CASE(sub, (type_t)((uint32_t)x - (uint32_t)z));
        FTR__INTEGER_CASE(mul, (type_t)((uint32_t)x * (uint32_t)z));
        FTR__INTEGER_CASE(div, z == 0 ? 0 : z == -1 ? (type_t)(0u - (uint32_t)x) : x / z);
        FTR__INTEGER_CASE(maximum, x > z ? x : z);
        FTR__INTEGER_CASE(minimum, x < z ? x : z);
    default: break;
    }
}

static void ftr__binary_row_i64(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    typedef int64_t type_t;
    const type_t *a = in[0], *b = in[1];
    const int64_t sa = job->plan.inner[0], sb = job->plan.inner[1];
    type_t *y = out;
    switch (job->call->op) {
        FTR__INTEGER_CASE(add, (type_t)((uint64_t)x + (uint64_t)z));
        FTR__INTEGER_CASE(sub, (type_t)((uint64_t)x - (uint64_t)z));
        FTR__INTEGER_CASE(mul, (type_t)((uint64_t)x * (uint64_t)z));
        FTR__INTEGER_CASE(div, z == 0 ? 0 : z == -1 ? (type_t)(0u - (uint64_t)x) : x / z);
        FTR__INTEGER_CASE(maximum, x > z ? x : z);
        FTR__INTEGER_CASE(minimum, x < z ? x : z);
    default: break;
    }
}

ftr_status ftr__cpu_binary(const ftr_kernel_call *call) {
    const ftr_dtype dtype = call->in[0].dtype;
    if (ftr__pointwise_is_real(dtype))
        return ftr__pointwise_run_real(call, call->op == FTR_OP_pow ? ftr__pow_row : ftr__binary_row_f32);
    if (call->op != FTR_OP_pow) {
        if (dtype == FTR_I32) return ftr__pointwise_run(call, ftr__binary_row_i32);
        if (dtype == FTR_I64) return ftr__pointwise_run(call, ftr__binary_row_i64);
    }
    return ftr__pointwise_dtype_error(call, dtype);
}

/* --------------------------------------------------------------------------------------------------- comparisons -- */

#define FTR__COMPARE_CASE(op, relation)                                                                                \
    case FTR_OP_##op:                                                                                                  \
        for (int64_t i = 0; i < n; i++) y[i] = a[i * sa] relation b[i * sb];                                           \
        break

#define FTR__COMPARE_FUNCTION(name, type)                                                                              \
    static void name(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {                     \
        const type *a = in[0], *b = in[1];                                                                             \
        const int64_t sa = job->plan.inner[0], sb = job->plan.inner[1];                                                \
        uint8_t *y = out;                                                                                              \
        switch (job->call->op) {                                                                                       \
            FTR__COMPARE_CASE(eq, ==);                                                                                 \
            FTR__COMPARE_CASE(ne, !=);                                                                                 \
            FTR__COMPARE_CASE(lt, <);                                                                                  \
            FTR__COMPARE_CASE(le, <=);                                                                                 \
            FTR__COMPARE_CASE(gt, >);                                                                                  \
            FTR__COMPARE_CASE(ge, >=);                                                                                 \
        default: break;                                                                                                \
        }                                                                                                              \
    }

FTR__COMPARE_FUNCTION(ftr__compare_row_f32, float)
FTR__COMPARE_FUNCTION(ftr__compare_row_i32, int32_t)
FTR__COMPARE_FUNCTION(ftr__compare_row_i64, int64_t)
FTR__COMPARE_FUNCTION(ftr__compare_row_u8, uint8_t)

ftr_status ftr__cpu_compare(const ftr_kernel_call *call) {
    switch (call->in[0].dtype) {
    case FTR_F32:
    case FTR_F16:
    case FTR_BF16: return ftr__pointwise_run_real(call, ftr__compare_row_f32);
    case FTR_I32: return ftr__pointwise_run(call, ftr__compare_row_i32);
    case FTR_I64: return ftr__pointwise_run(call, ftr__compare_row_i64);
    case FTR_U8:
    case FTR_BOOL: return ftr__pointwise_run(call, ftr__compare_row_u8);
    default: return ftr__pointwise_dtype_error(call, call->in[0].dtype);
    }
}

/* -------------------------------------------------------------------------------------------------------- choice -- */

#define FTR__WHERE_FUNCTION(name, type)                                                                                \
    static void name(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {                     \
        const uint8_t *condition = in[0];                                                                              \
        const type *a = in[1], *b = in[2];                                                                             \
        const int64_t sc = job->plan.inner[0], sa = job->plan.inner[1], sb = job->plan.inner[2];                       \
        type *y = out;                                                                                                 \
        for (int64_t i = 0; i < n; i++) y[i] = condition[i * sc] ? a[i * sa] : b[i * sb];                              \
    }

FTR__WHERE_FUNCTION(ftr__where_row_1, uint8_t)
FTR__WHERE_FUNCTION(ftr__where_row_f32, float)
FTR__WHERE_FUNCTION(ftr__where_row_i32, int32_t)
FTR__WHERE_FUNCTION(ftr__where_row_i64, int64_t)

ftr_status ftr__cpu_where(const ftr_kernel_call *call) {
    switch (call->out[0].dtype) {
    case FTR_F32:
    case FTR_F16:
    case FTR_BF16: return ftr__pointwise_run_real(call, ftr__where_row_f32);
    case FTR_I32: return ftr__pointwise_run(call, ftr__where_row_i32);
    case FTR_I64: return ftr__pointwise_run(call, ftr__where_row_i64);
    case FTR_U8:
    case FTR_BOOL: return ftr__pointwise_run(call, ftr__where_row_1);
    default: return ftr__pointwise_dtype_error(call, call->out[0].dtype);
    }
}

/* --------------------------------------------------------------------------------------------------- one operand -- */

static void ftr__unary_row_f32(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    ftr__simd_unary op;
    switch (job->call->op) {
    case FTR_OP_neg: op = FTR__UNARY_NEG; break;
    case FTR_OP_exp: op = FTR__UNARY_EXP; break;
    case FTR_OP_log: op = FTR__UNARY_LOG; break;
    case FTR_OP_sqrt: op = FTR__UNARY_SQRT; break;
    case FTR_OP_rsqrt: op = FTR__UNARY_RSQRT; break;
    case FTR_OP_tanh: op = FTR__UNARY_TANH; break;
    case FTR_OP_sigmoid: op = FTR__UNARY_SIGMOID; break;
    default: op = FTR__UNARY_RELU; break;
    }
    job->math->unary[op](n, in[0], out);
}

static void ftr__integer_unary_row_i32(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const int32_t *x = in[0];
    int32_t *y = out;
    if (job->call->op == FTR_OP_neg)
        for (int64_t i = 0; i < n; i++) y[i] = (int32_t)(0u - (uint32_t)x[i]);
    else
        for (int64_t i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] : 0;
}

static void ftr__integer_unary_row_i64(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const int64_t *x = in[0];
    int64_t *y = out;
    if (job->call->op == FTR_OP_neg)
        for (int64_t i = 0; i < n; i++) y[i] = (int64_t)(UINT64_C(0) - (uint64_t)x[i]);
    else
        for (int64_t i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] : 0;
}

ftr_status ftr__cpu_unary(const ftr_kernel_call *call) {
    const ftr_dtype dtype = call->in[0].dtype;
    if (ftr__pointwise_is_real(dtype)) return ftr__pointwise_run_real(call, ftr__unary_row_f32);
    if (call->op == FTR_OP_neg || call->op == FTR_OP_relu) {
        if (dtype == FTR_I32) return ftr__pointwise_run(call, ftr__integer_unary_row_i32);
        if (dtype == FTR_I64) return ftr__pointwise_run(call, ftr__integer_unary_row_i64);
    }
    return ftr__pointwise_dtype_error(call, dtype);
}

static void ftr__activation_grad_row(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const ftr__simd_activation_grad op = job->call->op == FTR_OP_tanh_grad      ? FTR__GRAD_TANH
                                         : job->call->op == FTR_OP_sigmoid_grad ? FTR__GRAD_SIGMOID
                                                                                : FTR__GRAD_RELU;
    job->math->activation_grad[op](n, in[0], in[1], out);
}

ftr_status ftr__cpu_activation_grad(const ftr_kernel_call *call) {
    if (!ftr__pointwise_is_real(call->in[0].dtype)) return ftr__pointwise_dtype_error(call, call->in[0].dtype);
    return ftr__pointwise_run_real(call, ftr__activation_grad_row);
}

/* Functions that memory bounds, or that libm does better: a plain loop for each. */
#define FTR__PLAIN_CASE(op, result)                                                                                    \
    case FTR_OP_##op:                                                                                                  \
        for (int64_t i = 0; i < n; i++) y[i] = result;                                                                 \
        break

static void ftr__plain_row_f32(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const float *x = in[0];
    float *y = out;
    switch (job->call->op) {
        FTR__PLAIN_CASE(abs, fabsf(x[i]));
        FTR__PLAIN_CASE(sign, (float)((x[i] > 0.0f) - (x[i] < 0.0f)));
        FTR__PLAIN_CASE(sin, sinf(x[i]));
        FTR__PLAIN_CASE(cos, cosf(x[i]));
        FTR__PLAIN_CASE(floor, floorf(x[i]));
        FTR__PLAIN_CASE(round, rintf(x[i]));
    default: break;
    }
}

static void ftr__plain_row_i32(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const int32_t *x = in[0];
    int32_t *y = out;
    switch (job->call->op) {
        FTR__PLAIN_CASE(abs, x[i] < 0 ? (int32_t)(0u - (uint32_t)x[i]) : x[i]);
        FTR__PLAIN_CASE(sign, (x[i] > 0) - (x[i] < 0));
    default: break;
    }
}

static void ftr__plain_row_i64(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const int64_t *x = in[0];
    int64_t *y = out;
    switch (job->call->op) {
        FTR__PLAIN_CASE(abs, x[i] < 0 ? (int64_t)(UINT64_C(0) - (uint64_t)x[i]) : x[i]);
        FTR__PLAIN_CASE(sign, (x[i] > 0) - (x[i] < 0));
    default: break;
    }
}

ftr_status ftr__cpu_plain(const ftr_kernel_call *call) {
    const ftr_dtype dtype = call->in[0].dtype;
    if (ftr__pointwise_is_real(dtype)) return ftr__pointwise_run_real(call, ftr__plain_row_f32);
    if (call->op == FTR_OP_abs || call->op == FTR_OP_sign) {
        if (dtype == FTR_I32) return ftr__pointwise_run(call, ftr__plain_row_i32);
        if (dtype == FTR_I64) return ftr__pointwise_run(call, ftr__plain_row_i64);
    }
    return ftr__pointwise_dtype_error(call, dtype);
}

/* --------------------------------------------------------------------------------------------------- activations -- */

/* What computes an op, or the op of its gradient, and with which constants. */
typedef struct ftr__activation_call {
    ftr__simd_activation function;
    float a, b;
} ftr__activation_call;

static ftr__activation_call ftr__activation_function(const ftr_kernel_call *call) {
    const float a = (float)call->attr->pointwise.a, b = (float)call->attr->pointwise.b;
    switch (call->op) {
    case FTR_OP_gelu:
    case FTR_OP_gelu_grad: {
        const bool exact = call->attr->gelu.form == FTR_GELU_EXACT;
        return (ftr__activation_call){exact ? FTR__ACTIVATION_GELU : FTR__ACTIVATION_GELU_TANH, 0.0f, 0.0f};
    }
    case FTR_OP_silu:
    case FTR_OP_silu_grad: return (ftr__activation_call){FTR__ACTIVATION_SILU, 0.0f, 0.0f};
    case FTR_OP_hardswish:
    case FTR_OP_hardswish_grad: return (ftr__activation_call){FTR__ACTIVATION_HARDSWISH, 0.0f, 0.0f};
    case FTR_OP_hardsigmoid: return (ftr__activation_call){FTR__ACTIVATION_HARDSIGMOID, 0.0f, 0.0f};
    case FTR_OP_erf: return (ftr__activation_call){FTR__ACTIVATION_ERF, 0.0f, 0.0f};
    case FTR_OP_leaky_relu:
    case FTR_OP_leaky_relu_grad: return (ftr__activation_call){FTR__ACTIVATION_LEAKY_RELU, a, b};
    case FTR_OP_elu:
    case FTR_OP_elu_grad: return (ftr__activation_call){FTR__ACTIVATION_ELU, a, b};
    case FTR_OP_softplus:
    case FTR_OP_softplus_grad: return (ftr__activation_call){FTR__ACTIVATION_SOFTPLUS, a, b};
    default: return (ftr__activation_call){FTR__ACTIVATION_CLAMP, a, b};
    }
}

static void ftr__activation_row(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const ftr__activation_call use = ftr__activation_function(job->call);
    job->math->activation[use.function](n, in[0], use.a, use.b, out);
}

static void ftr__activation_slope_row(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const ftr__activation_call use = ftr__activation_function(job->call);
    job->math->activation_slope[use.function](n, in[0], in[1], use.a, use.b, out);
}

ftr_status ftr__cpu_activation(const ftr_kernel_call *call) {
    if (!ftr__pointwise_is_real(call->in[0].dtype)) return ftr__pointwise_dtype_error(call, call->in[0].dtype);
    return ftr__pointwise_run_real(call, ftr__activation_row);
}

ftr_status ftr__cpu_activation_slope(const ftr_kernel_call *call) {
    if (!ftr__pointwise_is_real(call->in[0].dtype)) return ftr__pointwise_dtype_error(call, call->in[0].dtype);
    return ftr__pointwise_run_real(call, ftr__activation_slope_row);
}

/* --------------------------------------------------------------------------------------------------- conversions -- */

/* Truncates toward 0, saturates, NaN gives 0. The upper bounds are the powers of two behind the largest values. */
static inline int32_t ftr__f32_to_i32(float x) {
    return x != x ? 0 : x >= 2147483648.0f ? INT32_MAX : x < -2147483648.0f ? INT32_MIN : (int32_t)x;
}

static inline int64_t ftr__f32_to_i64(float x) {
    return x != x ? 0 : x >= 9223372036854775808.0f ? INT64_MAX : x < -9223372036854775808.0f ? INT64_MIN : (int64_t)x;
}

static inline uint8_t ftr__f32_to_u8(float x) { return x >= 256.0f ? 255 : x > 0.0f ? (uint8_t)x : 0; }

/* f32 to f16 or bf16 and back. */
static void ftr__narrow_row(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    job->math->narrow[ftr__half_index(job->call->out[0].dtype)](n, in[0], out);
}

static void ftr__widen_row(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    job->math->widen[ftr__half_index(job->call->in[0].dtype)](n, in[0], out);
}

#define FTR__CAST_PART 256 /* elements that go through f32 at a time */

#define FTR__CAST_CASE(dtype, type, result)                                                                            \
    case dtype: {                                                                                                      \
        type *y = out;                                                                                                 \
        for (int64_t i = 0; i < n; i++) y[i] = result;                                                                 \
        break;                                                                                                         \
    }

/* Integers are narrowed modulo 2^bits, as C and PyTorch do; to f16 and bf16 they go through f32, as PyTorch's. */
#define FTR__CAST_FUNCTION(name, from, to_i32, to_i64, to_u8)                                                          \
    static void name(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {                     \
        const from *x = in[0];                                                                                         \
        switch (job->call->out[0].dtype) {                                                                             \
            FTR__CAST_CASE(FTR_F32, float, (float)x[i])                                                                \
            FTR__CAST_CASE(FTR_I32, int32_t, to_i32(x[i]))                                                             \
            FTR__CAST_CASE(FTR_I64, int64_t, to_i64(x[i]))                                                             \
            FTR__CAST_CASE(FTR_U8, uint8_t, to_u8(x[i]))                                                               \
            FTR__CAST_CASE(FTR_BOOL, uint8_t, x[i] != 0)                                                               \
        case FTR_F16:                                                                                                  \
        case FTR_BF16: {                                                                                               \
            float wide[FTR__CAST_PART];                                                                                \
            for (int64_t i = 0; i < n; i += FTR__CAST_PART) {                                                          \
                const int64_t some = n - i < FTR__CAST_PART ? n - i : FTR__CAST_PART;                                  \
                for (int64_t k = 0; k < some; k++) wide[k] = (float)x[i + k];                                          \
                ftr__narrow_row(job, some, (const void *[]){wide}, (uint16_t *)out + i);                               \
            }                                                                                                          \
            break;                                                                                                     \
        }                                                                                                              \
        default: break;                                                                                                \
        }                                                                                                              \
    }

FTR__CAST_FUNCTION(ftr__cast_row_f32, float, ftr__f32_to_i32, ftr__f32_to_i64, ftr__f32_to_u8)
FTR__CAST_FUNCTION(ftr__cast_row_i32, int32_t, (int32_t), (int64_t), (uint8_t))
FTR__CAST_FUNCTION(ftr__cast_row_i64, int64_t, (int32_t), (int64_t), (uint8_t))
FTR__CAST_FUNCTION(ftr__cast_row_u8, uint8_t, (int32_t), (int64_t), (uint8_t))

/* f16 or bf16 to any type, through f32. */
static void ftr__cast_row_half(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    float wide[FTR__CAST_PART];
    for (int64_t i = 0; i < n; i += FTR__CAST_PART) {
        const int64_t some = n - i < FTR__CAST_PART ? n - i : FTR__CAST_PART;
        ftr__widen_row(job, some, (const void *[]){(const uint16_t *)in[0] + i}, wide);
        ftr__cast_row_f32(job, some, (const void *[]){wide}, (char *)out + (size_t)i * job->out_size);
    }
}

ftr_status ftr__cpu_cast(const ftr_kernel_call *call) {
    const ftr_dtype to = call->out[0].dtype;
    if (to == FTR_F64 || to == FTR_DTYPE_NONE) return ftr__pointwise_dtype_error(call, to);
    switch (call->in[0].dtype) {
    case FTR_F32: return ftr__pointwise_run(call, ftr__is_half(to) ? ftr__narrow_row : ftr__cast_row_f32);
    case FTR_F16:
    case FTR_BF16: return ftr__pointwise_run(call, to == FTR_F32 ? ftr__widen_row : ftr__cast_row_half);
    case FTR_I32: return ftr__pointwise_run(call, ftr__cast_row_i32);
    case FTR_I64: return ftr__pointwise_run(call, ftr__cast_row_i64);
    case FTR_U8:
    case FTR_BOOL: return ftr__pointwise_run(call, ftr__cast_row_u8);
    default: return ftr__pointwise_dtype_error(call, call->in[0].dtype);
    }
}
