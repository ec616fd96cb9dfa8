/* Attention and rotary embedding. */
#include "backend/cpu/cpu.h"
#include "core/rng.h"

#include <math.h>
#include <string.h>

/* Sizes and operands of an attention node or of its gradient. */
typedef struct ftr__attention {
    const ftr_kernel_call *call;
    int64_t n, tq, tk, heads, kv_heads, d, dv;
    const float *query, *key, *value, *mask;
    int64_t mask_stride[4]; /* over n, heads, tq, tk; 0 where it is broadcast */
    float scale;
    double p;
    ftr__rng rng;
    uint64_t threshold;
    float *scratch;
    int64_t scratch_size; /* floats, of a worker */
} ftr__attention;

static ftr__attention ftr__attention_of(const ftr_kernel_call *call, int32_t query, int32_t mask) {
    const ftr_view *q = &call->in[query], *k = &call->in[query + 1], *v = &call->in[query + 2];
    const ftr_view *m = ftr__optional_input(call, mask);
    ftr__attention a = {.call = call, .query = q->data, .key = k->data, .value = v->data, .mask = m ? m->data : NULL};
    a.n = q->shape.dim[0], a.tq = q->shape.dim[1], a.heads = q->shape.dim[2], a.d = q->shape.dim[3];
    a.tk = k->shape.dim[1], a.kv_heads = k->shape.dim[2], a.dv = v->shape.dim[3];
    a.scale = (float)call->attr->attention.scale;
    a.p = call->attr->attention.dropout;
    a.rng = ftr__rng_make(call->seed, FTR__RNG_DROPOUT, call->attr->attention.key, call->step);
    a.threshold = ftr__dropout_threshold(a.p);
    int64_t step = 1;
    for (int32_t i = 3; m && i >= 0; i--) {
        const int32_t own = i - (4 - m->shape.rank);
        const int64_t size = own >= 0 ? m->shape.dim[own] : 1;
        a.mask_stride[i] = size == 1 ? 0 : step;
        step *= size;
    }
    a.scratch = call->workspace;
    a.scratch_size = 2 * a.tk + 64;
    return a;
}

static const float *ftr__attention_key(const ftr__attention *a, int64_t b, int64_t h, int64_t j) {
    return a->key + ((b * a->tk + j) * a->kv_heads + h / (a->heads / a->kv_heads)) * a->d;
}

static const float *ftr__attention_value(const ftr__attention *a, int64_t b, int64_t h, int64_t j) {
    return a->value + ((b * a->tk + j) * a->kv_heads + h / (a->heads / a->kv_heads)) * a->dv;
}

static float ftr__attention_factor(const ftr__attention *a, int64_t b, int64_t h, int64_t i, int64_t j) {
    if (a->p <= 0.0) return 1.0f;
    const int64_t block = ((b * a->heads + h) * ((a->tk + 3) / 4) + j / 4) * a->tq + i;
    return ftr__rng_at(&a->rng, (uint64_t)(4 * block + j % 4)) < a->threshold ? 0.0f : (float)(1.0 / (1.0 - a->p));
}

static float ftr__attention_score(const ftr__attention *a, int64_t b, int64_t h, int64_t i, int64_t j) {
    const ftr__simd_math *math = &ftr__cpu_of(a->call)->simd->math;
    const float *q = a->query + ((b * a->tq + i) * a->heads + h) * a->d;
    const int64_t at = b * a->mask_stride[0] + h * a->mask_stride[1] + i * a->mask_stride[2] + j * a->mask_stride[3];
    if (a->call->attr->attention.causal && j > i) return -INFINITY;
    const float mask = a->mask ? a->mask[at] : 0.0f;
    return (float)math->dot(a->d, q, ftr__attention_key(a, b, h, j)) * a->scale + mask;
}

static void ftr__attention_task(void *arg, int64_t task, int32_t worker) {
    const ftr__attention *a = arg;
    const ftr__simd_math *math = &ftr__cpu_of(a->call)->simd->math;
    const int64_t b = task / a->heads, h = task % a->heads;
    float *s = a->scratch + worker * a->scratch_size, *log_sum = (float *)a->call->out[1].data + task * a->tq;
    for (int64_t i = 0; i < a->tq; i++) {
        float *y = (float *)a->call->out[0].data + ((b * a->tq + i) * a->heads + h) * a->dv;
        for (int64_t j = 0; j < a->tk; j++) s[j] = ftr__attention_score(a, b, h, i, j);
        const float most = math->maximum(a->tk, s), shift = most == -INFINITY ? 0.0f : most;
        const double sum = math->exp_sum(a->tk, s, shift, s);
        log_sum[i] = most == -INFINITY ? most : shift + (float)log(sum);
        for (int64_t e = 0; e < a->dv; e++) y[e] = 0.0f;
        for (int64_t j = 0; j < a->tk && most != -INFINITY; j++)
            math->axpy(a->dv, (float)(s[j] / sum) * ftr__attention_factor(a, b, h, i, j),
                       ftr__attention_value(a, b, h, j), y);
    }
}

size_t ftr__cpu_attention_workspace(const ftr_kernel_call *call) {
    const ftr__attention a = ftr__attention_of(call, 0, 3);
    return (size_t)(a.scratch_size * ftr__pool_threads(ftr__cpu_of(call)->pool)) * sizeof(float);
}

ftr_status ftr__cpu_attention(const ftr_kernel_call *call) {
    ftr__attention a = ftr__attention_of(call, 0, 3);
    ftr__pool_run(ftr__cpu_of(call)->pool, a.n * a.heads, ftr__attention_task, &a);
    return FTR_OK;
}

static void ftr__attention_grad_row(const ftr__attention *a, int64_t b, int64_t h, int64_t i, float *s, float *ds) {
    const ftr__simd_math *math = &ftr__cpu_of(a->call)->simd->math;
    const uint32_t wanted = a->call->attr->attention.wanted;
    const int64_t row = (b * a->tq + i) * a->heads + h;
    const float *dy = (const float *)a->call->in[0].data + row * a->dv;
    const float *y = (const float *)a->call->in[4].data + row * a->dv, *q = a->query + row * a->d;
    const float log_sum = ((const float *)a->call->in[5].data)[(b * a->heads + h) * a->tq + i];
    const float mean = (float)math->dot(a->dv, dy, y);
    if (log_sum == -INFINITY) return;
    for (int64_t j = 0; j < a->tk; j++) {
        const float *value = ftr__attention_value(a, b, h, j), *key = ftr__attention_key(a, b, h, j);
        const float factor = ftr__attention_factor(a, b, h, i, j);
        s[j] = expf(ftr__attention_score(a, b, h, i, j) - log_sum);
        ds[j] = s[j] * (factor * (float)math->dot(a->dv, dy, value) - mean);
        if (wanted & 1u) math->axpy(a->d, ds[j] * a->scale, key, (float *)a->call->out[0].data + row * a->d);
        if (wanted & 2u) math->axpy(a->d, ds[j] * a->scale, q, (float *)a->call->out[1].data + (key - a->key));
        if (wanted & 4u) math->axpy(a->dv, s[j] * factor, dy, (float *)a->call->out[2].data + (value - a->value));
        if (wanted & 8u)
            ((float *)a->call->out[3].data)[b * a->mask_stride[0] + h * a->mask_stride[1] + i * a->mask_stride[2] +
                                            j * a->mask_stride[3]] += ds[j];
    }
}

static void ftr__attention_grad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__attention *a = arg;
    float *s = a->scratch + worker * a->scratch_size;
    (void)task;
    for (int32_t o = 0; o < 4; o++) {
        if (a->call->out[o].count > 0) memset(a->call->out[o].data, 0, (size_t)a->call->out[o].count * sizeof(float));
    }
    for (int64_t b = 0; b < a->n; b++)
        for (int64_t h = 0; h < a->heads; h++)
            for (int64_t i = 0; i < a->tq; i++) ftr__attention_grad_row(a, b, h, i, s, s + a->tk);
}

size_t ftr__cpu_attention_grad_workspace(const ftr_kernel_call *call) {
    const ftr__attention a = ftr__attention_of(call, 1, 6);
    return (size_t)(a.scratch_size * ftr__pool_threads(ftr__cpu_of(call)->pool)) * sizeof(float);
}

ftr_status ftr__cpu_attention_grad(const ftr_kernel_call *call) {
    ftr__attention a = ftr__attention_of(call, 1, 6);
    ftr__pool_run(ftr__cpu_of(call)->pool, 1, ftr__attention_grad_task, &a);
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------------------- rotary -- */

size_t ftr__cpu_rotary_workspace(const ftr_kernel_call *call) {
    (void)call;
    return 0;
}

static void ftr__rotary_row(const ftr_kernel_call *call, int64_t row) {
    const ftr_shape *shape = &call->in[0].shape;
    const int64_t d = shape->dim[3], half = call->attr->rotary.dims / 2;
    const float *x = (const float *)call->in[0].data + row * d;
    float *y = (float *)call->out[0].data + row * d;
    const double position = (double)(call->attr->rotary.first + row / shape->dim[2] % shape->dim[1]);
    const int64_t step = call->attr->rotary.interleaved ? 2 : 1, apart = call->attr->rotary.interleaved ? 1 : half;
    for (int64_t i = 0; i < half; i++) {
        const double angle = position * pow(call->attr->rotary.base, -(double)i / (double)half);
        const float c = (float)cos(angle), s = (float)(call->attr->rotary.inverse ? -sin(angle) : sin(angle));
        const float u = x[i * step], v = x[i * step + apart];
        y[i * step] = u * c - v * s;
        y[i * step + apart] = v * c + u * s;
    }
    if (y != x && d > 2 * half) memcpy(y + 2 * half, x + 2 * half, (size_t)(d - 2 * half) * sizeof(float));
}

ftr_status ftr__cpu_rotary(const ftr_kernel_call *call) {
    const ftr_shape *shape = &call->in[0].shape;
    const int64_t rows = call->in[0].count > 0 ? shape->dim[0] * shape->dim[1] * shape->dim[2] : 0;
    for (int64_t row = 0; row < rows; row++) ftr__rotary_row(call, row);
    return FTR_OK;
}
