/* Muon: momentum, then Newton-Schulz iterations toward the nearest orthogonal matrix. One matrix after the other;
 * the products and passes of each are cut into tasks. Of a matrix of R rows and C columns the smaller of the two
 * Gram matrices is used: x x^T x = x (x^T x). */
#include "backend/cpu/gemm.h"
#include "backend/cpu/update.h"

#include <math.h>

/* Workspace of the largest matrix, and of the largest product. */
typedef struct ftr__muon_sizes {
    int64_t elements, gram; /* floats */
    size_t gemm;
} ftr__muon_sizes;

typedef struct ftr__muon_job {
    const ftr_kernel_call *call;
    const ftr__cpu *cpu;
    ftr__update_step step;
    const ftr_view *in;
    int64_t rows, columns, side; /* side: the smaller */
    float *x, *product;          /* rows x columns */
    float *gram, *square;        /* side x side */
    double *sums;
    void *gemm;
    /* of the pass at work */
    int64_t n;
    float a, b;
    const float *u, *v;
    float *out;
} ftr__muon_job;

static void ftr__muon_shape(const ftr_view *p, int64_t *rows, int64_t *columns) {
    *rows = p->shape.dim[0];
    *columns = *rows > 0 ? p->count / *rows : 0;
}

/* x^T x or x x^T, and its square. Matrices outlive the product: they are the caller's. */
static ftr__gemm ftr__muon_gram(const float *x, int64_t rows, int64_t columns, ftr__gemm_matrix *m, float *c) {
    const int64_t side = rows <= columns ? rows : columns, k = rows <= columns ? columns : rows;
    *m = (ftr__gemm_matrix){.data = x, .stride = columns};
    const ftr__gemm_operand lines = rows <= columns ? ftr__gemm_k_together(m, k) : ftr__gemm_lines_together(m);
    return (ftr__gemm){.batch = 1,
                       .m = side,
                       .n = side,
                       .k = k,
                       .a = lines,
                       .b = lines,
                       .c = c,
                       .c_batch = side * side,
                       .c_stride = side,
                       .split = k >= 4096};
}

/* u x, or x u on the other side; u is symmetric. */
static ftr__gemm ftr__muon_product(const float *x, const float *u, int64_t rows, int64_t columns, ftr__gemm_matrix m[2],
                                   float *c) {
    const bool left = rows <= columns;
    const int64_t side = left ? rows : columns;
    m[0] = (ftr__gemm_matrix){.data = left ? u : x, .stride = side};
    m[1] = (ftr__gemm_matrix){.data = left ? x : u, .stride = columns};
    return (ftr__gemm){.batch = 1,
                       .m = rows,
                       .n = columns,
                       .k = side,
                       .a = ftr__gemm_k_together(&m[0], side),
                       .b = ftr__gemm_lines_together(&m[1]),
                       .c = c,
                       .c_batch = rows * columns,
                       .c_stride = columns};
}

static size_t ftr__muon_larger(size_t a, size_t b) { return a > b ? a : b; }

static ftr__muon_sizes ftr__muon_sizes_of(const ftr_kernel_call *call) {
    const ftr__cpu *cpu = ftr__cpu_of(call);
    ftr__muon_sizes sizes = {0, 0, 0};
    for (int32_t i = FTR_UPDATE_FIRST_GROUP; i + 3 <= call->in_count; i += 3) {
        int64_t rows, columns;
        ftr__gemm_matrix m[2];
        ftr__muon_shape(&call->in[i], &rows, &columns);
        const int64_t side = rows <= columns ? rows : columns;
        const ftr__gemm gram = ftr__muon_gram(NULL, rows, columns, &m[0], NULL);
        sizes.gemm = ftr__muon_larger(sizes.gemm, ftr__gemm_workspace(cpu, &gram));
        const ftr__gemm square = ftr__muon_gram(NULL, side, side, &m[0], NULL);
        sizes.gemm = ftr__muon_larger(sizes.gemm, ftr__gemm_workspace(cpu, &square));
        const ftr__gemm product = ftr__muon_product(NULL, NULL, rows, columns, m, NULL);
        sizes.gemm = ftr__muon_larger(sizes.gemm, ftr__gemm_workspace(cpu, &product));
        sizes.elements = rows * columns > sizes.elements ? rows * columns : sizes.elements;
        sizes.gram = side * side > sizes.gram ? side * side : sizes.gram;
    }
    return sizes;
}

static int64_t ftr__muon_chunks(int64_t count) { return (count + FTR__UPDATE_GRAIN - 1) / FTR__UPDATE_GRAIN; }

size_t ftr__cpu_muon_update_workspace(const ftr_kernel_call *call) {
    const ftr__muon_sizes sizes = ftr__muon_sizes_of(call);
    return 2 * ftr__update_align((size_t)sizes.elements * sizeof(float)) +
           2 * ftr__update_align((size_t)sizes.gram * sizeof(float)) +
           ftr__update_align((size_t)ftr__muon_chunks(sizes.elements) * sizeof(double)) + ftr__update_align(sizes.gemm);
}

static void ftr__muon_open(ftr__muon_job *job) {
    const ftr__muon_sizes sizes = ftr__muon_sizes_of(job->call);
    unsigned char *at = job->call->workspace;
    float **const parts[] = {&job->x, &job->product, &job->gram, &job->square};
    for (int32_t i = 0; i < 4; i++) {
        *parts[i] = (float *)(void *)at;
        at += ftr__update_align((size_t)(i < 2 ? sizes.elements : sizes.gram) * sizeof(float));
    }
    job->sums = (double *)(void *)at;
    job->gemm = at + ftr__update_align((size_t)ftr__muon_chunks(sizes.elements) * sizeof(double));
}

typedef struct ftr__muon_part {
    const ftr__muon_job *job;
    double sum;
} ftr__muon_part;

static void ftr__muon_momentum_part(void *arg, const ftr__update_run *run) {
    ftr__muon_part *part = arg;
    float *x = part->job->x + (run->p - (const float *)part->job->in[0].data);
    part->sum += part->job->cpu->simd->update.muon_momentum(&part->job->step, run->n, run->g, run->s[0], x);
}

static void ftr__muon_momentum_task(void *arg, int64_t task, int32_t worker) {
    const ftr__muon_job *job = arg;
    const int64_t begin = task * FTR__UPDATE_GRAIN, left = job->in[0].count - begin;
    const ftr__update_chunk chunk = {
        .in = job->in, .begin = begin, .n = left < FTR__UPDATE_GRAIN ? left : FTR__UPDATE_GRAIN};
    ftr__muon_part part = {.job = job, .sum = 0.0};
    (void)worker;
    ftr__update_parts(job->cpu->simd, &chunk, 1, true, ftr__muon_momentum_part, &part);
    job->sums[task] = part.sum;
}

static void ftr__muon_combine_task(void *arg, int64_t task, int32_t worker) {
    const ftr__muon_job *job = arg;
    const int64_t begin = task * FTR__UPDATE_GRAIN, left = job->n - begin;
    (void)worker;
    job->cpu->simd->update.combine(left < FTR__UPDATE_GRAIN ? left : FTR__UPDATE_GRAIN, job->a, job->u + begin, job->b,
                                   job->v + begin, job->out + begin);
}

/* out = a * u + b * v. */
static void ftr__muon_combine(ftr__muon_job *job, int64_t n, float a, const float *u, float b, const float *v,
                              float *out) {
    job->n = n, job->a = a, job->b = b, job->u = u, job->v = v, job->out = out;
    ftr__pool_run(job->cpu->pool, ftr__muon_chunks(n), ftr__muon_combine_task, job);
}

static void ftr__muon_iterate(ftr__muon_job *job) {
    const double *c = job->call->attr->optimizer.ns_coefficients;
    ftr__gemm_matrix m[2];
    const ftr__gemm gram = ftr__muon_gram(job->x, job->rows, job->columns, &m[0], job->gram);
    ftr__gemm_run(job->cpu, &gram, job->gemm);
    const ftr__gemm square = ftr__muon_gram(job->gram, job->side, job->side, &m[0], job->square);
    ftr__gemm_run(job->cpu, &square, job->gemm);
    ftr__muon_combine(job, job->side * job->side, (float)c[1], job->gram, (float)c[2], job->square, job->gram);
    const ftr__gemm product = ftr__muon_product(job->x, job->gram, job->rows, job->columns, m, job->product);
    ftr__gemm_run(job->cpu, &product, job->gemm);
    ftr__muon_combine(job, job->rows * job->columns, (float)c[0], job->x, 1.0f, job->product, job->x);
}

static double ftr__muon_factor(ftr_muon_rate rate, double rows, double columns) {
    switch (rate) {
    case FTR_MUON_RATE_MATCH_RMS_ADAMW: return 0.2 * sqrt(rows > columns ? rows : columns);
    case FTR_MUON_RATE_SPECTRAL: return sqrt(rows / columns);
    case FTR_MUON_RATE_ORIGINAL: break;
    }
    return sqrt(rows > columns ? rows / columns : 1.0);
}

/* `a` is the rate. */
static void ftr__muon_apply_task(void *arg, int64_t task, int32_t worker) {
    const ftr__muon_job *job = arg;
    const int64_t begin = task * FTR__UPDATE_GRAIN, left = job->in[0].count - begin;
    (void)worker;
    job->cpu->simd->update.muon_apply(left < FTR__UPDATE_GRAIN ? left : FTR__UPDATE_GRAIN, job->step.decay, job->a,
                                      job->x + begin, (float *)job->in[0].data + begin);
}

static void ftr__muon_parameter(ftr__muon_job *job, double lr) {
    const int64_t count = job->in[0].count;
    ftr__pool_run(job->cpu->pool, ftr__muon_chunks(count), ftr__muon_momentum_task, job);
    double squares = 0.0;
    for (int64_t c = 0; c < ftr__muon_chunks(count); c++) squares += job->sums[c];
    const double norm = sqrt(squares), least = job->call->attr->optimizer.ns_eps;
    ftr__muon_combine(job, count, (float)(1.0 / (norm < least ? least : norm)), job->x, 0.0f, job->x, job->x);
    for (int32_t i = 0; i < job->call->attr->optimizer.ns_steps; i++) ftr__muon_iterate(job);
    const double factor = ftr__muon_factor(job->call->attr->optimizer.rate, (double)job->rows, (double)job->columns);
    job->a = (float)(lr * factor);
    ftr__pool_run(job->cpu->pool, ftr__muon_chunks(count), ftr__muon_apply_task, job);
}

ftr_status ftr__cpu_muon_update(const ftr_kernel_call *call) {
    if (ftr__update_skipped(call)) return FTR_OK;
    const double lr = ftr__update_lr(call);
    ftr__muon_job job = {.call = call, .cpu = ftr__cpu_of(call)};
    job.step = ftr__update_step_of(call);
    job.step.decay = (float)(lr * call->attr->optimizer.weight_decay);
    job.step.momentum = (float)call->attr->optimizer.momentum;
    job.step.gradient = (float)(1.0 - call->attr->optimizer.momentum);
    job.step.nesterov = call->attr->optimizer.nesterov;
    ftr__muon_open(&job);
    for (int32_t i = FTR_UPDATE_FIRST_GROUP; i + 3 <= call->in_count; i += 3) {
        job.in = &call->in[i];
        if (job.in[0].count == 0) continue;
        ftr__muon_shape(&job.in[0], &job.rows, &job.columns);
        job.side = job.rows <= job.columns ? job.rows : job.columns;
        ftr__muon_parameter(&job, lr);
    }
    return FTR_OK;
}
