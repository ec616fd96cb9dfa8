#include "backend/cpu/gemm.h"

/* Batches and sizes of a matmul node. */
typedef struct ftr__matmul {
    int64_t batch, m, n, k;
    ftr__gemm_matrix a, b;
} ftr__matmul;

/* Elements of one operand's matrix for result batch `index`, with broadcasting (aligned at the last dimension). */
static int64_t ftr__matmul_offset(const ftr_shape *x, const ftr_shape *out, int64_t index) {
    int64_t offset = 0, step = x->dim[x->rank - 1] * x->dim[x->rank - 2];
    for (int32_t d = out->rank - 3; d >= 0; d--) {
        const int64_t at = index % out->dim[d];
        const int32_t own = d - (out->rank - x->rank);
        index /= out->dim[d];
        if (own < 0) continue;
        if (x->dim[own] != 1) offset += at * step;
        step *= x->dim[own];
    }
    return offset;
}

static int64_t ftr__matmul_batches(const ftr_shape *shape) {
    int64_t count = 1;
    for (int32_t d = 0; d < shape->rank - 2; d++) count *= shape->dim[d];
    return count;
}

static ftr__matmul ftr__matmul_make(const ftr_kernel_call *call) {
    const ftr_shape *a = &call->in[0].shape, *b = &call->in[1].shape, *c = &call->out[0].shape;
    const bool ta = call->attr->matmul.transpose_a, tb = call->attr->matmul.transpose_b;
    ftr__matmul x = {.batch = ftr__matmul_batches(c), .m = c->dim[c->rank - 2], .n = c->dim[c->rank - 1]};
    x.k = a->dim[a->rank - (ta ? 2 : 1)];
    /* One B for all of them: the batch is more rows. */
    if (!ta && ftr__matmul_batches(b) == 1 && ftr__matmul_batches(a) == x.batch) {
        x.m *= x.batch;
        x.batch = 1;
    }
    const ftr__simd_bf16 *bf16 = ftr__cpu_of(call)->bf16;
    x.a = (ftr__gemm_matrix){.data = call->in[0].data, .stride = ta ? x.m : x.k, .elements = x.k, .bf16 = bf16};
    x.b = (ftr__gemm_matrix){.data = call->in[1].data, .stride = tb ? x.k : x.n, .elements = x.k, .bf16 = bf16};
    return x;
}

/* Lines that lie one behind the other are read as pairs, which must not go over their ends. A weight as [in, out] comes in f32
 * alone. */
bool ftr__cpu_matmul_takes_bf16(const ftr_kernel_call *call) {
    if (!ftr__cpu_of(call)->bf16 || call->in[0].dtype != FTR_BF16 || call->in[1].dtype != FTR_BF16 ||
        call->out[0].dtype != FTR_BF16)
        return false;
    const ftr_shape *a = &call->in[0].shape;
    const bool linear = call->op == FTR_OP_linear;
    if (linear && call->attr->linear.in_out) return false;
    const bool ta = !linear && call->attr->matmul.transpose_a, tb = linear || call->attr->matmul.transpose_b;
    return a->dim[a->rank - (ta ? 2 : 1)] % 2 == 0 || (ta && !tb);
}

static ftr__gemm_operand ftr__matmul_operand(const ftr__gemm_matrix *x, int64_t k, bool k_together, bool pairs) {
    if (pairs) return k_together ? ftr__gemm_pairs_k_together(x, k) : ftr__gemm_pairs_lines_together(x);
    return k_together ? ftr__gemm_k_together(x, k) : ftr__gemm_lines_together(x);
}

static ftr__gemm ftr__matmul_gemm(const ftr_kernel_call *call, const ftr__matmul *x) {
    const bool ta = call->attr->matmul.transpose_a, tb = call->attr->matmul.transpose_b;
    const bool pairs = call->in[0].dtype == FTR_BF16;
    return (ftr__gemm){.batch = x->batch,
                       .m = x->m,
                       .n = x->n,
                       .k = pairs ? ftr__gemm_ceil(x->k, 2) : x->k,
                       .a = ftr__matmul_operand(&x->a, x->k, !ta, pairs),
                       .b = ftr__matmul_operand(&x->b, x->k, tb, pairs),
                       .pairs = pairs,
                       .c = call->out[0].data,
                       .c_batch = x->m * x->n,
                       .c_stride = x->n,
                       .split = x->k >= 4096 && ta};
}

/* A product with at most 8 rows or columns: dot products, nothing is packed. */
typedef struct ftr__skinny {
    const ftr__simd_gemm *simd;
    const float *x, *y; /* lines of k elements; c[i * c_x + j * c_y] = x[i] . y[j] */
    int64_t count_x, count_y, k, chunk;
    int64_t c_x, c_y;
    float *c;
    const float *bias; /* of y's lines if bias_y, otherwise of x's; NULL */
    bool bias_y, relu;
} ftr__skinny;

#define FTR__SKINNY_LINES 8

static void ftr__skinny_put(const ftr__skinny *s, int64_t i, int64_t j, float value) {
    if (s->bias) value += s->bias[s->bias_y ? j : i];
    s->c[i * s->c_x + j * s->c_y] = s->relu && value < 0 ? 0 : value;
}

/* A chunk of y's lines against the few of x. */
static void ftr__skinny_task(void *arg, int64_t task, int32_t worker) {
    const ftr__skinny *s = (const ftr__skinny *)arg;
    const int64_t end = ftr__gemm_min((task + 1) * s->chunk, s->count_y);
    (void)worker;
    for (int64_t j = task * s->chunk; j < end; j += 4) {
        const int64_t count = ftr__gemm_min(4, end - j);
        const float *y[4];
        for (int64_t r = 0; r < 4; r++) y[r] = s->y + (j + (r < count ? r : 0)) * s->k;
        for (int64_t i = 0; i < s->count_x; i++) {
            float out[4];
            s->simd->dot4(s->k, s->x + i * s->k, y, out);
            for (int64_t r = 0; r < count; r++) ftr__skinny_put(s, i, j + r, out[r]);
        }
    }
}

/* Whether one of the two has so few rows that it is worth it. */
static bool ftr__skinny_fits(int64_t m, int64_t n, int64_t k) {
    return k >= 8 && (m <= FTR__SKINNY_LINES || n <= FTR__SKINNY_LINES);
}

/* Rows of a [m, k] against rows of b [n, k], one of which has few. */
static void ftr__skinny_run(const ftr__cpu *cpu, const float *a, const float *b, int64_t m, int64_t n, int64_t k,
                            const float *bias, bool relu, float *c) {
    ftr__skinny s = {.simd = &cpu->simd->gemm, .k = k, .bias = bias, .relu = relu, .c = c};
    if (m == 0 || n == 0) return;
    if (m <= FTR__SKINNY_LINES) {
        s.x = a, s.y = b, s.count_x = m, s.count_y = n, s.c_x = n, s.c_y = 1, s.bias_y = true;
    } else {
        s.x = b, s.y = a, s.count_x = n, s.count_y = m, s.c_x = 1, s.c_y = n;
    }
    const int64_t lines = (1 << 16) / (k * s.count_x) + 4; /* of work worth a task */
    s.chunk = ftr__gemm_max(lines / 4 * 4, ftr__gemm_ceil(s.count_y, 256) * 4);
    ftr__pool_run(cpu->pool, ftr__gemm_ceil(s.count_y, s.chunk), ftr__skinny_task, &s);
}

static size_t ftr__matmul_offset_bytes(const ftr__matmul *x) {
    return x->batch > 1 ? ftr__gemm_align((size_t)(2 * x->batch) * sizeof(int64_t)) : 0;
}

size_t ftr__cpu_matmul_workspace(const ftr_kernel_call *call) {
    const ftr__matmul x = ftr__matmul_make(call);
    const ftr__gemm g = ftr__matmul_gemm(call, &x);
    return ftr__matmul_offset_bytes(&x) + ftr__gemm_workspace(ftr__cpu_of(call), &g);
}

ftr_status ftr__cpu_matmul(const ftr_kernel_call *call) {
    const ftr__cpu *cpu = ftr__cpu_of(call);
    ftr__matmul x = ftr__matmul_make(call);
    const bool ta = call->attr->matmul.transpose_a, tb = call->attr->matmul.transpose_b;
    if (call->out[0].count == 0) return FTR_OK;
    const bool a_lines = !ta || x.m == 1, b_lines = tb || x.n == 1;
    if (call->in[0].dtype == FTR_F32 && x.batch == 1 && a_lines && b_lines && ftr__skinny_fits(x.m, x.n, x.k)) {
        ftr__skinny_run(cpu, x.a.data, x.b.data, x.m, x.n, x.k, NULL, false, (float *)call->out[0].data);
        return FTR_OK;
    }
    unsigned char *workspace = (unsigned char *)call->workspace;
    if (x.batch > 1) {
        int64_t *offset = (int64_t *)(void *)workspace;
        for (int64_t i = 0; i < x.batch; i++) {
            offset[i] = ftr__matmul_offset(&call->in[0].shape, &call->out[0].shape, i);
            offset[x.batch + i] = ftr__matmul_offset(&call->in[1].shape, &call->out[0].shape, i);
        }
        x.a.batch_offset = offset;
        x.b.batch_offset = offset + x.batch;
        workspace += ftr__matmul_offset_bytes(&x);
    }
    const ftr__gemm g = ftr__matmul_gemm(call, &x);
    ftr__gemm_run(cpu, &g, workspace);
    return FTR_OK;
}

/* The operands' descriptions must outlive the product's, so they are the caller's. */
static ftr__gemm ftr__linear_gemm(const ftr_kernel_call *call, ftr__gemm_matrix *x, ftr__gemm_matrix *weight) {
    const ftr_shape *w = &call->in[1].shape, *y = &call->out[0].shape;
    const bool in_out = call->attr->linear.in_out;
    const int64_t n = w->dim[in_out ? 1 : 0], k = w->dim[in_out ? 0 : 1];
    int64_t m = 1;
    for (int32_t d = 0; d < y->rank - 1; d++) m *= y->dim[d];
    const bool pairs = call->in[0].dtype == FTR_BF16;
    const ftr_view *bias = ftr__optional_input(call, 2);
    *x = (ftr__gemm_matrix){.data = call->in[0].data, .stride = k};
    *weight = (ftr__gemm_matrix){.data = call->in[1].data, .stride = in_out ? n : k};
    return (ftr__gemm){.batch = 1,
                       .m = m,
                       .n = n,
                       .k = pairs ? k / 2 : k,
                       .a = ftr__matmul_operand(x, k, true, pairs),
                       .b = in_out ? ftr__gemm_lines_together(weight) : ftr__matmul_operand(weight, k, true, pairs),
                       .pairs = pairs,
                       .c = call->out[0].data,
                       .c_stride = n,
                       .bias = bias ? bias->data : NULL,
                       .bias_bf16 = bias && bias->dtype == FTR_BF16,
                       .activation = call->attr->linear.activation,
                       .whole = !in_out};
}

/* Rows of x and of the weight, few of one of them; of f32. */
static bool ftr__linear_is_skinny(const ftr_kernel_call *call, const ftr__gemm *g) {
    return !g->pairs && (!call->attr->linear.in_out || g->n == 1) && ftr__skinny_fits(g->m, g->n, g->k);
}

size_t ftr__cpu_linear_workspace(const ftr_kernel_call *call) {
    ftr__gemm_matrix x, weight;
    const ftr__gemm g = ftr__linear_gemm(call, &x, &weight);
    return ftr__gemm_workspace(ftr__cpu_of(call), &g);
}

size_t ftr__cpu_linear_kept(const ftr_kernel_call *call) {
    ftr__gemm_matrix x, weight;
    const ftr__gemm g = ftr__linear_gemm(call, &x, &weight);
    return ftr__linear_is_skinny(call, &g) ? 0 : ftr__gemm_kept(ftr__cpu_of(call), &g);
}

ftr_status ftr__cpu_linear(const ftr_kernel_call *call) {
    const ftr__cpu *cpu = ftr__cpu_of(call);
    ftr__gemm_matrix x, weight;
    ftr__gemm g = ftr__linear_gemm(call, &x, &weight);
    g.kept = call->kept;
    g.kept_is_made = call->kept_is_made;
    if (ftr__linear_is_skinny(call, &g))
        ftr__skinny_run(cpu, x.data, weight.data, g.m, g.n, g.k, g.bias, g.activation == FTR_ACT_RELU, g.c);
    else
        ftr__gemm_run(cpu, &g, call->workspace);
    return FTR_OK;
}
