/* Attention by tiles of queries and keys, with an online softmax (Milakov, Gimelshein: Online normalizer calculation
 * for softmax, 2018; Dao et al.: FlashAttention, 2022): the scores of all queries and keys are never in memory. A tile
 * of scores lies transposed, queries along a row, so that all of the softmax goes across rows of vectors, and both
 * products with it read it as it lies. Tasks are cut, and sums ordered, by the problem alone. */
#include "backend/cpu/gemm.h"
#include "core/rng.h"

#include <math.h>
#include <string.h>

#define FTR__ATTENTION_QUERIES 64    /* of a tile; the last one takes up to half as many more */
#define FTR__ATTENTION_KEYS 112      /* of a tile, at most */
#define FTR__ATTENTION_AHEAD 6       /* rows that copying asks for before it needs them */
#define FTR__ATTENTION_TASKS 32      /* wanted of the forward pass */
#define FTR__ATTENTION_GRAD_TASKS 16 /* wanted of the gradient: more cost memory */

static const float ftr__attention_log2_e = 1.44269504f;

/* Sizes and operands of an attention node or of its gradient. */
typedef struct ftr__attention {
    const ftr_kernel_call *call;
    const ftr__simd *simd;
    int64_t n, tq, tk, heads, kv_heads, group, d, dv; /* group: query heads of one head of key and value */
    const float *query, *key, *value, *mask;
    bool masked;                              /* there is a mask, also while a plan is made */
    int64_t query_step, key_step, value_step; /* floats from one place to the next */
    const float *dy, *y, *log_sum;            /* gradient */
    float *dquery, *dkey, *dvalue;
    int64_t mask_step[4]; /* over n, heads, tq, tk; 0 where it is broadcast */
    bool causal;
    float scale;
    double p;
    ftr__attention_dropout dropout;

    int64_t query_tiles, key_tiles;
    int64_t stride; /* of a row of scores: the widest tile's queries, padded */
    int64_t keys;   /* of a tile */
    int64_t d_pad, dv_pad;
    int64_t pieces;      /* tasks that share a head of key and value */
    int64_t piece_tiles; /* gradient: tiles of keys of one piece, at most */
    bool grad;

    unsigned char *scratch; /* of worker 0 */
    size_t scratch_bytes;   /* of a worker */
    float *partial;         /* gradient of the queries: one of each piece, if there are several */
} ftr__attention;

/* A worker's memory. */
typedef struct ftr__attention_memory {
    float *query_panels, *dy_panels; /* [panel][element][nr]: the B operands of products with keys and values */
    float *queries, *dy;             /* rows of d_pad, dv_pad */
    float *keys, *values;            /* the same, of the keys of the task */
    float *dkeys, *dvalues;
    float *scores, *dscores, *mask, *dmask;                    /* [keys][stride] */
    float *result;                                             /* y, or the gradient of the queries */
    float *maximum, *sum, *rescale, *inverse, *log_sum, *mean; /* of each query */
    float *none;                                               /* where rows go that do not exist */
    const float **rows;                                        /* pointers to rows of an A operand */
} ftr__attention_memory;

/* A tile of scores. */
typedef struct ftr__attention_tile {
    int64_t b, h, q0, queries, k0, keys;
    bool diagonal; /* some of its keys are hidden from some of its queries */
    bool first;    /* gradient: nothing was added to that of the keys and values yet */
} ftr__attention_tile;

/* --------------------------------------------------------------------------------------------------- the problem -- */

static int64_t ftr__attention_pad(int64_t size, int64_t multiple) { return ftr__gemm_ceil(size, multiple) * multiple; }

static bool ftr__attention_wants(const ftr__attention *a, int32_t output) {
    return (a->call->attr->attention.wanted >> output & 1u) != 0;
}

static void ftr__attention_set_mask(ftr__attention *a, const ftr_view *mask) {
    if (!mask) return;
    a->mask = (const float *)mask->data;
    a->masked = true;
    int64_t step = 1;
    for (int32_t i = 3; i >= 0; i--) {
        const int32_t own = i - (4 - mask->shape.rank);
        const int64_t size = own >= 0 ? mask->shape.dim[own] : 1;
        a->mask_step[i] = size == 1 ? 0 : step;
        step *= size;
    }
}

static void ftr__attention_set_dropout(ftr__attention *a) {
    const ftr_kernel_call *call = a->call;
    a->p = call->attr->attention.dropout;
    if (a->p <= 0.0) return;
    const ftr__rng rng = ftr__rng_make(call->seed, FTR__RNG_DROPOUT, call->attr->attention.key, call->step);
    a->dropout.stream = (ftr__dropout_stream){.key = {rng.key[0], rng.key[1]},
                                              .counter = {rng.stream[0], rng.stream[1]},
                                              .threshold = ftr__dropout_threshold(a->p),
                                              .scale = a->p < 1.0 ? (float)(1.0 / (1.0 - a->p)) : 0.0f};
    a->dropout.step = (uint64_t)a->tq;
}

/* Tiles, and how the work on a head of key and value is cut. */
static void ftr__attention_cut(ftr__attention *a) {
    const int64_t mr = a->simd->gemm.mr, nr = a->simd->gemm.nr, heads = ftr__gemm_max(a->n * a->kv_heads, 1);
    const int64_t rest = FTR__ATTENTION_QUERIES / 2 - 1;
    a->query_tiles = ftr__gemm_max((a->tq + rest) / FTR__ATTENTION_QUERIES, 1);
    a->stride = ftr__attention_pad(a->tq - (a->query_tiles - 1) * FTR__ATTENTION_QUERIES, nr);
    if (a->query_tiles > 1) a->stride = ftr__gemm_max(a->stride, FTR__ATTENTION_QUERIES);
    a->keys = FTR__ATTENTION_KEYS / (2 * mr) * (2 * mr);
    a->key_tiles = ftr__gemm_ceil(a->tk, a->keys);
    a->d_pad = ftr__attention_pad(a->d, nr);
    a->dv_pad = ftr__attention_pad(a->dv, nr);
    const int64_t tiles = a->grad ? a->key_tiles : a->query_tiles * a->group;
    const int64_t wanted = a->grad ? FTR__ATTENTION_GRAD_TASKS : FTR__ATTENTION_TASKS;
    a->pieces = ftr__gemm_max(ftr__gemm_min(wanted / heads, tiles), 1);
    a->piece_tiles = ftr__gemm_ceil(a->key_tiles, a->pieces);
}

/* Operands that lie in one tensor [n, t, 3 heads d], one behind the other in each row. */
static void ftr__attention_set_packed(ftr__attention *a) {
    const int64_t width = a->heads * a->d;
    a->query_step = a->key_step = a->value_step = 3 * width;
    if (!a->query) return; /* a plan is being made */
    a->key = a->query + width;
    a->value = a->query + 2 * width;
    if (!a->dquery) return;
    a->dkey = a->dquery + width;
    a->dvalue = a->dquery + 2 * width;
}

static ftr__attention ftr__attention_of(const ftr_kernel_call *call) {
    const bool grad = call->op == FTR_OP_attention_grad;
    const bool packed = call->attr->attention.packed;
    const ftr_view *q = &call->in[grad ? 1 : 0], *k = q + 1, *v = q + 2;
    ftr__attention a = {.call = call, .simd = ftr__cpu_of(call)->simd, .grad = grad};
    a.query = (const float *)q->data, a.key = (const float *)k->data, a.value = (const float *)v->data;
    if (packed) q = k = v = grad ? &call->in[0] : &call->out[0]; /* for their shape */
    a.n = q->shape.dim[0], a.tq = q->shape.dim[1], a.heads = q->shape.dim[2], a.d = q->shape.dim[3];
    a.tk = k->shape.dim[1], a.kv_heads = k->shape.dim[2], a.dv = v->shape.dim[3];
    a.group = a.heads / a.kv_heads;
    a.causal = call->attr->attention.causal;
    a.scale = (float)call->attr->attention.scale;
    if (grad) {
        a.dy = (const float *)call->in[0].data;
        a.y = (const float *)call->in[4].data;
        a.log_sum = (const float *)call->in[5].data;
        a.dquery = (float *)call->out[0].data;
        a.dkey = (float *)call->out[1].data;
        a.dvalue = (float *)call->out[2].data;
    }
    a.query_step = a.heads * a.d, a.key_step = a.kv_heads * a.d, a.value_step = a.kv_heads * a.dv;
    if (packed) ftr__attention_set_packed(&a);
    ftr__attention_set_mask(&a, ftr__optional_input(call, grad ? 6 : 3));
    ftr__attention_set_dropout(&a);
    ftr__attention_cut(&a);
    return a;
}

/* Takes `floats` from memory at *offset, which may be NULL. */
static float *ftr__attention_take(unsigned char *memory, size_t *offset, int64_t floats) {
    float *taken = memory ? (float *)(void *)(memory + *offset) : NULL;
    *offset += ftr__gemm_align((size_t)floats * sizeof(float));
    return taken;
}

/* Divides a worker's scratch; returns the bytes. `scratch` is NULL while a plan is made. */
static size_t ftr__attention_divide(const ftr__attention *a, unsigned char *scratch, ftr__attention_memory *m) {
    const int64_t nr = a->simd->gemm.nr, columns = a->stride, tile = a->keys * a->stride;
    const int64_t keys = a->grad ? a->piece_tiles * a->keys : a->tk;
    size_t bytes = 0;
    memset(m, 0, sizeof *m);
    m->query_panels = ftr__attention_take(scratch, &bytes, columns * a->d);
    m->queries = ftr__attention_take(scratch, &bytes, columns * a->d_pad);
    m->scores = ftr__attention_take(scratch, &bytes, tile);
    m->result = ftr__attention_take(scratch, &bytes, columns * (a->grad ? a->d_pad : a->dv_pad));
    m->keys = ftr__attention_take(scratch, &bytes, keys * a->d_pad);
    m->values = ftr__attention_take(scratch, &bytes, keys * a->dv_pad);
    m->log_sum = ftr__attention_take(scratch, &bytes, columns);
    m->none = ftr__attention_take(scratch, &bytes, nr);
    if (a->masked) m->mask = ftr__attention_take(scratch, &bytes, tile);
    if (a->grad) {
        m->dy_panels = ftr__attention_take(scratch, &bytes, columns * a->dv);
        m->dscores = ftr__attention_take(scratch, &bytes, tile);
        m->dy = ftr__attention_take(scratch, &bytes, columns * a->dv_pad);
        m->dkeys = ftr__attention_take(scratch, &bytes, keys * a->d_pad);
        m->dvalues = ftr__attention_take(scratch, &bytes, keys * a->dv_pad);
        m->mean = ftr__attention_take(scratch, &bytes, columns);
        if (ftr__attention_wants(a, 3)) m->dmask = ftr__attention_take(scratch, &bytes, tile);
    } else {
        m->maximum = ftr__attention_take(scratch, &bytes, columns);
        m->sum = ftr__attention_take(scratch, &bytes, columns);
        m->rescale = ftr__attention_take(scratch, &bytes, columns);
        m->inverse = ftr__attention_take(scratch, &bytes, columns);
    }
    if (scratch) m->rows = (const float **)(void *)(scratch + bytes);
    return bytes + ftr__gemm_align((size_t)(a->keys + a->stride + nr) * sizeof(float *));
}

/* Sizes the scratch of a worker; the bytes of all of them. */
static size_t ftr__attention_scratch(ftr__attention *a) {
    ftr__attention_memory m;
    a->scratch_bytes = ftr__attention_divide(a, NULL, &m);
    return a->scratch_bytes * (size_t)ftr__pool_threads(ftr__cpu_of(a->call)->pool);
}

/* ------------------------------------------------------------------------------------------------------ products -- */

static void ftr__attention_point(const float **rows, const float *first, int64_t stride, int64_t count, int64_t mr) {
    for (int64_t i = 0; i < count; i++) rows[i] = first + i * stride;
    for (int64_t i = count; i < ftr__attention_pad(count, mr); i++) rows[i] = first;
}

static void ftr__attention_result(ftr__gemm_tile *tile, int64_t mr, int64_t rows, float *c, int64_t stride,
                                  float *none) {
    for (int64_t r = 0; r < mr; r++) tile->c[r] = r < rows ? c + r * stride : none;
}

/* out[k][q] = x[k] . panel's column q: the scores, or the gradient of the weights. What is hidden may be left out. */
static void ftr__attention_against_panels(const ftr__attention *a, const ftr__attention_memory *m,
                                          const ftr__attention_tile *t, const float *x, int64_t x_stride, int64_t depth,
                                          const float *panels, float *out) {
    const int64_t mr = a->simd->gemm.mr, nr = a->simd->gemm.nr;
    ftr__attention_point(m->rows, x, x_stride, t->keys, mr);
    for (int64_t k = 0; k < t->keys; k += mr) {
        const int64_t rows = ftr__gemm_min(mr, t->keys - k);
        for (int64_t q = 0; q < t->queries; q += nr) {
            if (t->diagonal && t->k0 + k > t->q0 + q + nr - 1) continue;
            ftr__gemm_tile tile = {.ahead = panels + q * depth, .narrow = t->queries - q <= nr / 2};
            ftr__attention_result(&tile, mr, rows, out + k * a->stride + q, a->stride, m->none);
            a->simd->gemm.tile_rows(rows, 1, depth, m->rows + k, panels + q * depth, nr, &tile);
        }
    }
}

/* out[q] (+)= sum over k of s[k][q] x[k]: the values by the weights, or the keys by the gradient of the scores. */
static void ftr__attention_sum_keys(const ftr__attention *a, const ftr__attention_memory *m,
                                    const ftr__attention_tile *t, const float *s, const float *x, int64_t width,
                                    bool load, float *out) {
    const int64_t mr = a->simd->gemm.mr, nr = a->simd->gemm.nr, x_stride = ftr__attention_pad(width, nr);
    for (int64_t e = 0; e < width; e += nr) {
        for (int64_t q = 0; q < t->queries; q += mr) {
            const int64_t rows = ftr__gemm_min(mr, t->queries - q);
            const int64_t depth = t->diagonal ? ftr__gemm_min(t->keys, t->q0 + q + rows - t->k0) : t->keys;
            if (load && depth <= 0) continue;
            ftr__gemm_tile tile = {.ahead = x + e, .load = load, .narrow = width - e <= nr / 2};
            ftr__attention_result(&tile, mr, rows, out + q * x_stride + e, x_stride, m->none);
            a->simd->attention.tile_columns(rows, depth, s + q, a->stride, x + e, x_stride, &tile);
        }
    }
}

/* out[k] (+)= sum over q of s[k][q] x[q]: the gradients of values and keys. */
static void ftr__attention_sum_queries(const ftr__attention *a, const ftr__attention_memory *m,
                                       const ftr__attention_tile *t, const float *s, const float *x, int64_t width,
                                       float *out) {
    const int64_t mr = a->simd->gemm.mr, nr = a->simd->gemm.nr, x_stride = ftr__attention_pad(width, nr);
    for (int64_t k = 0; k < t->keys; k += mr) {
        const int64_t rows = ftr__gemm_min(mr, t->keys - k);
        const int64_t first = t->diagonal ? ftr__gemm_max(t->k0 + k - t->q0, 0) : 0;
        if (first >= t->queries) continue;
        ftr__attention_point(m->rows, s + k * a->stride + first, a->stride, rows, mr);
        for (int64_t e = 0; e < width; e += nr) {
            ftr__gemm_tile tile = {.ahead = x + e, .load = !t->first, .narrow = width - e <= nr / 2};
            ftr__attention_result(&tile, mr, rows, out + k * x_stride + e, x_stride, m->none);
            a->simd->gemm.tile_rows(rows, 1, t->queries - first, m->rows, x + first * x_stride + e, x_stride, &tile);
        }
    }
}

/* Padded rows as panels [panel][element][nr], multiplied. Columns that fill up the last panel are 0. */
static void ftr__attention_pack(const ftr__attention *a, const ftr__attention_memory *m, const float *x, int64_t count,
                                int64_t depth, float factor, float *to) {
    const int64_t nr = a->simd->gemm.nr, stride = ftr__attention_pad(depth, nr);
    for (int64_t i = 0; i < count; i += nr, to += nr * depth) {
        const int64_t some = ftr__gemm_min(nr, count - i);
        for (int64_t r = 0; r < some; r++) m->rows[r] = x + (i + r) * stride;
        a->simd->gemm.interleave(some, depth, m->rows, to, nr);
        ftr__gemm_clear(depth, nr - some, nr, to + some);
        if (factor != 1.0f) a->simd->attention.scale_rows(1, depth * nr, &factor, 0, to, 0, to, 0);
    }
}

/* Rows one after another, padded to a multiple of nr with 0. */
static void ftr__attention_copy(const ftr__attention *a, const float *x, int64_t stride, int64_t count, int64_t width,
                                float *to) {
    const int64_t padded = ftr__attention_pad(width, a->simd->gemm.nr);
    if (width == 0) return;
    /* Rows of a head lie far apart; the machine does not see by itself which come next. */
    for (int64_t r = 0; r < count; r++) {
        const float *from = x + r * stride, *ahead = from + FTR__ATTENTION_AHEAD * stride;
        for (int64_t i = 0; i < width && r + FTR__ATTENTION_AHEAD < count; i += 16) __builtin_prefetch(ahead + i);
        memcpy(to + r * padded, from, (size_t)width * sizeof(float));
    }
    ftr__gemm_clear(count, padded - width, padded, to + width);
}

/* -------------------------------------------------------------------------------------------------------- a tile -- */

static ftr__attention_tile ftr__attention_query_tile(const ftr__attention *a, int64_t b, int64_t h, int64_t index) {
    ftr__attention_tile t = {.b = b, .h = h, .q0 = index * FTR__ATTENTION_QUERIES};
    t.queries = index + 1 == a->query_tiles ? a->tq - t.q0 : FTR__ATTENTION_QUERIES;
    return t;
}

/* Moves on to a tile of keys; false if the queries see none of them. */
static bool ftr__attention_key_tile(const ftr__attention *a, int64_t index, ftr__attention_tile *t) {
    t->k0 = index * a->keys;
    t->keys = ftr__gemm_min(a->keys, a->tk - t->k0);
    if (!a->causal) return t->keys > 0;
    t->keys = ftr__gemm_min(t->keys, t->q0 + t->queries - t->k0);
    t->diagonal = t->k0 + t->keys - 1 > t->q0;
    return t->keys > 0;
}

/* Key and value of place k, in head g of them. */
static const float *ftr__attention_key(const ftr__attention *a, int64_t b, int64_t k, int64_t g) {
    return a->key + (b * a->tk + k) * a->key_step + g * a->d;
}

static const float *ftr__attention_value(const ftr__attention *a, int64_t b, int64_t k, int64_t g) {
    return a->value + (b * a->tk + k) * a->value_step + g * a->dv;
}

static int64_t ftr__attention_row(const ftr__attention *a, const ftr__attention_tile *t) {
    return (t->b * a->tq + t->q0) * a->heads + t->h;
}

/* Adds the mask to a tile of scores. */
static void ftr__attention_add_mask(const ftr__attention *a, const ftr__attention_memory *m,
                                    const ftr__attention_tile *t) {
    const int64_t *step = a->mask_step, nr = a->simd->gemm.nr;
    const float *mask = a->mask + t->b * step[0] + t->h * step[1] + t->q0 * step[2] + t->k0 * step[3];
    if (step[2] == 0) {
        for (int64_t k = 0; k < t->keys; k++) m->mask[k] = mask[k * step[3]];
        a->simd->attention.add_keys(t->keys, t->queries, a->stride, ftr__attention_log2_e, m->mask, m->scores);
        return;
    }
    if (step[3] == 0) {
        for (int64_t q = 0; q < t->queries; q++) m->mask[q] = mask[q * step[2]];
        a->simd->attention.add_tile(t->keys, t->queries, a->stride, ftr__attention_log2_e, m->mask, 0, m->scores);
        return;
    }
    for (int64_t q = 0; q < t->queries; q += nr) {
        const int64_t some = ftr__gemm_min(nr, t->queries - q);
        for (int64_t i = 0; i < some; i++) m->rows[i] = mask + (q + i) * step[2];
        a->simd->gemm.interleave(some, t->keys, m->rows, m->mask + q, a->stride);
    }
    a->simd->attention.add_tile(t->keys, t->queries, a->stride, ftr__attention_log2_e, m->mask, a->stride, m->scores);
}

/* Sets the elements of hidden keys. */
static void ftr__attention_hide(const ftr__attention *a, const ftr__attention_tile *t, float value, float *s) {
    for (int64_t k = ftr__gemm_max(t->q0 - t->k0, 0); k < t->keys; k++) {
        const int64_t hidden = ftr__gemm_min(t->k0 + k - t->q0, t->queries);
        for (int64_t q = 0; q < hidden; q++) s[k * a->stride + q] = value;
    }
}

/* The scores of a tile; `keys` are its keys. */
static void ftr__attention_scores(const ftr__attention *a, const ftr__attention_memory *m, const ftr__attention_tile *t,
                                  const float *keys) {
    ftr__attention_against_panels(a, m, t, keys, a->d_pad, a->d, m->query_panels, m->scores);
    if (a->masked) ftr__attention_add_mask(a, m, t);
    if (t->diagonal) ftr__attention_hide(a, t, -INFINITY, m->scores);
}

/* The tile's dropout, in *to; NULL if there is none. */
static const ftr__attention_dropout *ftr__attention_dropout_of(const ftr__attention *a, const ftr__attention_tile *t,
                                                               ftr__attention_dropout *to) {
    if (a->p <= 0.0) return NULL;
    const int64_t group = (t->b * a->heads + t->h) * ftr__gemm_ceil(a->tk, 4) + t->k0 / 4;
    *to = a->dropout;
    to->first = (uint64_t)(group * a->tq + t->q0);
    return to;
}

/* Queries, as rows and as panels. The panels are multiplied by the scale and by log2(e), so that the products are
 * scores in units of log 2. */
static void ftr__attention_load_queries(const ftr__attention *a, const ftr__attention_memory *m,
                                        const ftr__attention_tile *t) {
    const float *query = a->query + (t->b * a->tq + t->q0) * a->query_step + t->h * a->d;
    ftr__attention_copy(a, query, a->query_step, t->queries, a->d, m->queries);
    ftr__attention_pack(a, m, m->queries, t->queries, a->d, a->scale * ftr__attention_log2_e, m->query_panels);
}

/* ------------------------------------------------------------------------------------------------------- forward -- */

static void ftr__attention_forward_tile(const ftr__attention *a, const ftr__attention_memory *m,
                                        ftr__attention_tile *t) {
    const ftr__simd_attention *simd = &a->simd->attention;
    bool begun = false;
    for (int64_t q = 0; q < a->stride; q++) m->maximum[q] = -INFINITY, m->sum[q] = 0.0f;
    ftr__attention_load_queries(a, m, t);
    for (int64_t i = 0; i < a->key_tiles && ftr__attention_key_tile(a, i, t); i++) {
        ftr__attention_dropout dropout;
        ftr__attention_scores(a, m, t, m->keys + t->k0 * a->d_pad);
        simd->softmax(t->keys, t->queries, a->stride, ftr__attention_dropout_of(a, t, &dropout), m->maximum, m->sum,
                      m->rescale, m->scores);
        if (begun) simd->scale_rows(t->queries, a->dv_pad, m->rescale, 1, m->result, a->dv_pad, m->result, a->dv_pad);
        ftr__attention_sum_keys(a, m, t, m->scores, m->values + t->k0 * a->dv_pad, a->dv, begun, m->result);
        begun = true;
    }
    if (!begun) ftr__gemm_clear(t->queries, a->dv_pad, a->dv_pad, m->result);
    float *y = (float *)a->call->out[0].data + ftr__attention_row(a, t) * a->dv;
    float *log_sum = (float *)a->call->out[1].data + (t->b * a->heads + t->h) * a->tq + t->q0;
    simd->softmax_end(t->queries, m->maximum, m->sum, m->log_sum, m->inverse);
    memcpy(log_sum, m->log_sum, (size_t)t->queries * sizeof(float));
    simd->scale_rows(t->queries, a->dv, m->inverse, 1, m->result, a->dv_pad, y, a->heads * a->dv);
}

/* Some of the tiles of queries of one head of key and value. */
static void ftr__attention_task(void *arg, int64_t task, int32_t worker) {
    const ftr__attention *a = (const ftr__attention *)arg;
    const int64_t piece = task % a->pieces, g = task / a->pieces % a->kv_heads, b = task / a->pieces / a->kv_heads;
    ftr__attention_memory m;
    ftr__attention_divide(a, a->scratch + (size_t)worker * a->scratch_bytes, &m);
    const int64_t seen = a->causal ? ftr__gemm_min(a->tq, a->tk) : a->tk;
    ftr__attention_copy(a, ftr__attention_key(a, b, 0, g), a->key_step, seen, a->d, m.keys);
    ftr__attention_copy(a, ftr__attention_value(a, b, 0, g), a->value_step, seen, a->dv, m.values);
    for (int64_t i = piece; i < a->group * a->query_tiles; i += a->pieces) {
        ftr__attention_tile t = ftr__attention_query_tile(a, b, g * a->group + i / a->query_tiles, i % a->query_tiles);
        ftr__attention_forward_tile(a, &m, &t);
    }
}

size_t ftr__cpu_attention_workspace(const ftr_kernel_call *call) {
    ftr__attention a = ftr__attention_of(call);
    return ftr__attention_scratch(&a);
}

ftr_status ftr__cpu_attention(const ftr_kernel_call *call) {
    ftr__attention a = ftr__attention_of(call);
    if (call->out[1].count == 0) return FTR_OK;
    (void)ftr__attention_scratch(&a);
    a.scratch = (unsigned char *)call->workspace;
    ftr__pool_run(ftr__cpu_of(call)->pool, a.n * a.kv_heads * a.pieces, ftr__attention_task, &a);
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------ gradient -- */

/* Queries, gradient of y, log-sums, and the mean of the weights' gradients, which is y . dy. */
static void ftr__attention_load_rows(const ftr__attention *a, const ftr__attention_memory *m,
                                     const ftr__attention_tile *t) {
    const int64_t row = ftr__attention_row(a, t), stride = a->heads * a->dv;
    const float *dy = a->dy + row * a->dv, *y = a->y + row * a->dv;
    ftr__attention_load_queries(a, m, t);
    ftr__attention_copy(a, dy, stride, t->queries, a->dv, m->dy);
    ftr__attention_pack(a, m, m->dy, t->queries, a->dv, 1.0f, m->dy_panels);
    memcpy(m->log_sum, a->log_sum + (t->b * a->heads + t->h) * a->tq + t->q0, (size_t)t->queries * sizeof(float));
    for (int64_t q = 0; q < t->queries; q++) {
        const float *ahead = y + (q + FTR__ATTENTION_AHEAD) * stride;
        for (int64_t i = 0; i < a->dv && q + FTR__ATTENTION_AHEAD < t->queries; i += 16) __builtin_prefetch(ahead + i);
        m->mean[q] = (float)a->simd->math.dot(a->dv, m->dy + q * a->dv_pad, y + q * stride);
    }
}

/* The weights of a tile, and the gradient of its scores. */
static void ftr__attention_slopes(const ftr__attention *a, const ftr__attention_memory *m, const ftr__attention_tile *t,
                                  const float *keys, const float *values) {
    ftr__attention_dropout dropout;
    ftr__attention_scores(a, m, t, keys);
    ftr__attention_against_panels(a, m, t, values, a->dv_pad, a->dv, m->dy_panels, m->dscores);
    if (t->diagonal) ftr__attention_hide(a, t, 0.0f, m->dscores);
    a->simd->attention.softmax_grad(t->keys, t->queries, a->stride, ftr__attention_dropout_of(a, t, &dropout),
                                    m->log_sum, m->mean, m->scores, m->dscores);
}

/* A tile of queries against the keys of a piece. */
static void ftr__attention_backward_tile(const ftr__attention *a, const ftr__attention_memory *m, int64_t piece,
                                         ftr__attention_tile *t) {
    const int64_t row = ftr__attention_row(a, t), size = a->n * a->tq * a->heads * a->d;
    bool begun = false;
    ftr__attention_load_rows(a, m, t);
    for (int64_t i = piece; i < a->key_tiles && ftr__attention_key_tile(a, i, t); i += a->pieces) {
        const int64_t first = i / a->pieces * a->keys;
        const float *keys = m->keys + first * a->d_pad, *values = m->values + first * a->dv_pad;
        ftr__attention_slopes(a, m, t, keys, values);
        if (ftr__attention_wants(a, 2))
            ftr__attention_sum_queries(a, m, t, m->scores, m->dy, a->dv, m->dvalues + first * a->dv_pad);
        if (ftr__attention_wants(a, 1))
            ftr__attention_sum_queries(a, m, t, m->dscores, m->queries, a->d, m->dkeys + first * a->d_pad);
        if (ftr__attention_wants(a, 0)) ftr__attention_sum_keys(a, m, t, m->dscores, keys, a->d, begun, m->result);
        begun = true;
    }
    if (!ftr__attention_wants(a, 0)) return;
    if (!begun) ftr__gemm_clear(t->queries, a->d_pad, a->d_pad, m->result);
    float *dquery = a->partial + piece * size + row * a->d;
    int64_t step = a->heads * a->d;
    if (a->pieces == 1) step = a->query_step, dquery = a->dquery + (t->b * a->tq + t->q0) * step + t->h * a->d;
    a->simd->attention.scale_rows(t->queries, a->d, &a->scale, 0, m->result, a->d_pad, dquery, step);
}

/* Some of the keys of one head, against all queries. */
static void ftr__attention_grad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__attention *a = (const ftr__attention *)arg;
    const int64_t piece = task % a->pieces, g = task / a->pieces % a->kv_heads, b = task / a->pieces / a->kv_heads;
    const int64_t keys = a->piece_tiles * a->keys;
    ftr__attention_memory m;
    ftr__attention_divide(a, a->scratch + (size_t)worker * a->scratch_bytes, &m);
    /* Otherwise the first tile of queries reaches all keys. */
    const bool clear = a->causal || a->tq == 0 || a->heads == 0;
    if (clear) {
        ftr__gemm_clear(keys, a->d_pad, a->d_pad, m.dkeys);
        ftr__gemm_clear(keys, a->dv_pad, a->dv_pad, m.dvalues);
    }
    for (int64_t i = piece; i < a->key_tiles; i += a->pieces) {
        const int64_t k0 = i * a->keys, count = ftr__gemm_min(a->keys, a->tk - k0), to = i / a->pieces * a->keys;
        const float *key = ftr__attention_key(a, b, k0, g), *value = ftr__attention_value(a, b, k0, g);
        ftr__attention_copy(a, key, a->key_step, count, a->d, m.keys + to * a->d_pad);
        ftr__attention_copy(a, value, a->value_step, count, a->dv, m.values + to * a->dv_pad);
    }
    for (int64_t i = 0; i < a->group * a->query_tiles; i++) {
        ftr__attention_tile t = ftr__attention_query_tile(a, b, g * a->group + i / a->query_tiles, i % a->query_tiles);
        t.first = !clear && i == 0;
        if (t.queries > 0) ftr__attention_backward_tile(a, &m, piece, &t);
    }
    for (int64_t i = piece; i < a->key_tiles; i += a->pieces) {
        const int64_t k0 = i * a->keys, count = ftr__gemm_min(a->keys, a->tk - k0), from = i / a->pieces * a->keys;
        const int64_t row = b * a->tk + k0;
        const float one = 1.0f;
        if (ftr__attention_wants(a, 1))
            a->simd->attention.scale_rows(count, a->d, &a->scale, 0, m.dkeys + from * a->d_pad, a->d_pad,
                                          a->dkey + row * a->key_step + g * a->d, a->key_step);
        if (ftr__attention_wants(a, 2))
            a->simd->attention.scale_rows(count, a->dv, &one, 0, m.dvalues + from * a->dv_pad, a->dv_pad,
                                          a->dvalue + row * a->value_step + g * a->dv, a->value_step);
    }
}

#define FTR__ATTENTION_SUM_ROWS 16

/* Adds the pieces of the queries' gradient in their order. */
static void ftr__attention_sum_task(void *arg, int64_t task, int32_t worker) {
    const ftr__attention *a = (const ftr__attention *)arg;
    const int64_t width = a->heads * a->d, rows = a->n * a->tq, first = task * FTR__ATTENTION_SUM_ROWS;
    const int64_t end = ftr__gemm_min(first + FTR__ATTENTION_SUM_ROWS, rows);
    (void)worker;
    for (int64_t row = first; row < end; row++) {
        const float *from = a->partial + row * width;
        float *to = a->dquery + row * a->query_step;
        memcpy(to, from, (size_t)width * sizeof(float));
        for (int64_t p = 1; p < a->pieces; p++) a->simd->gemm.accumulate(width, from + p * rows * width, to);
    }
}

/* A part of the mask: of one sample and head, or all of them, and of a tile of queries and keys, or all tiles, as the
 * mask was broadcast. */
typedef struct ftr__attention_part {
    int64_t begin[4], end[4]; /* samples, heads, tiles of queries, tiles of keys */
} ftr__attention_part;

static ftr__attention_part ftr__attention_part_of(const ftr__attention *a, int64_t task) {
    const int64_t size[4] = {a->n, a->heads, a->query_tiles, a->key_tiles};
    ftr__attention_part part;
    for (int32_t i = 3; i >= 0; i--) {
        const bool one = a->mask_step[i] != 0;
        part.begin[i] = one ? task % size[i] : 0;
        part.end[i] = one ? part.begin[i] + 1 : size[i];
        if (one) task /= size[i];
    }
    return part;
}

static int64_t ftr__attention_part_count(const ftr__attention *a) {
    const int64_t size[4] = {a->n, a->heads, a->query_tiles, a->key_tiles};
    int64_t count = 1;
    for (int32_t i = 0; i < 4; i++) count *= a->mask_step[i] ? size[i] : 1;
    return count;
}

/* Adds the gradients of all scores that a tile of queries has in a part. */
static void ftr__attention_mask_tile(const ftr__attention *a, const ftr__attention_memory *m,
                                     const ftr__attention_part *part, ftr__attention_tile *t) {
    ftr__attention_load_rows(a, m, t);
    for (int64_t j = part->begin[3]; j < part->end[3] && ftr__attention_key_tile(a, j, t); j++) {
        const int64_t g = t->h / a->group;
        ftr__attention_copy(a, ftr__attention_key(a, t->b, t->k0, g), a->key_step, t->keys, a->d, m->keys);
        ftr__attention_copy(a, ftr__attention_value(a, t->b, t->k0, g), a->value_step, t->keys, a->dv, m->values);
        ftr__attention_slopes(a, m, t, m->keys, m->values);
        for (int64_t k = 0; k < t->keys; k++)
            a->simd->gemm.accumulate(t->queries, m->dscores + k * a->stride, m->dmask + k * a->stride);
    }
}

/* Of the tile of sums, what one element of the mask was added to; q or k is -1 for all of them. */
static float ftr__attention_mask_sum(const ftr__attention *a, const float *tile, int64_t q, int64_t k) {
    const int64_t q0 = q < 0 ? 0 : q, q1 = q < 0 ? a->stride : q + 1, k0 = k < 0 ? 0 : k, k1 = k < 0 ? a->keys : k + 1;
    double sum = 0.0;
    for (int64_t i = k0; i < k1; i++)
        for (int64_t j = q0; j < q1; j++) sum += (double)tile[i * a->stride + j];
    return (float)sum;
}

static void ftr__attention_mask_task(void *arg, int64_t task, int32_t worker) {
    const ftr__attention *a = (const ftr__attention *)arg;
    const ftr__attention_part part = ftr__attention_part_of(a, task);
    const int64_t *step = a->mask_step;
    ftr__attention_memory m;
    ftr__attention_divide(a, a->scratch + (size_t)worker * a->scratch_bytes, &m);
    ftr__gemm_clear(a->keys, a->stride, a->stride, m.dmask);
    for (int64_t b = part.begin[0]; b < part.end[0]; b++)
        for (int64_t h = part.begin[1]; h < part.end[1]; h++)
            for (int64_t i = part.begin[2]; i < part.end[2]; i++) {
                ftr__attention_tile t = ftr__attention_query_tile(a, b, h, i);
                if (t.queries > 0) ftr__attention_mask_tile(a, &m, &part, &t);
            }
    const ftr__attention_tile t = ftr__attention_query_tile(a, part.begin[0], part.begin[1], part.begin[2]);
    const int64_t k0 = part.begin[3] * a->keys, keys = step[3] ? ftr__gemm_min(a->keys, a->tk - k0) : 1;
    const int64_t queries = step[2] ? t.queries : 1;
    float *to = (float *)a->call->out[3].data + t.b * step[0] + t.h * step[1] + t.q0 * step[2] + k0 * step[3];
    for (int64_t q = 0; q < queries; q++)
        for (int64_t k = 0; k < keys; k++)
            to[q * step[2] + k * step[3]] = ftr__attention_mask_sum(a, m.dmask, step[2] ? q : -1, step[3] ? k : -1);
}

static size_t ftr__attention_partial_bytes(const ftr__attention *a) {
    if (a->pieces == 1 || !ftr__attention_wants(a, 0)) return 0;
    return (size_t)(a->pieces * a->n * a->tq * a->heads * a->d) * sizeof(float);
}

size_t ftr__cpu_attention_grad_workspace(const ftr_kernel_call *call) {
    ftr__attention a = ftr__attention_of(call);
    return ftr__attention_scratch(&a) + ftr__attention_partial_bytes(&a);
}

ftr_status ftr__cpu_attention_grad(const ftr_kernel_call *call) {
    ftr__attention a = ftr__attention_of(call);
    ftr__pool *pool = ftr__cpu_of(call)->pool;
    const size_t scratch = ftr__attention_scratch(&a);
    a.scratch = (unsigned char *)call->workspace;
    a.partial = (float *)(void *)(a.scratch + scratch);
    if ((call->attr->attention.wanted & 7u) != 0)
        ftr__pool_run(pool, a.n * a.kv_heads * a.pieces, ftr__attention_grad_task, &a);
    if (ftr__attention_partial_bytes(&a) > 0)
        ftr__pool_run(pool, ftr__gemm_ceil(a.n * a.tq, FTR__ATTENTION_SUM_ROWS), ftr__attention_sum_task, &a);
    if (call->out[3].count > 0) ftr__pool_run(pool, ftr__attention_part_count(&a), ftr__attention_mask_task, &a);
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------------------- rotary -- */

#define FTR__ROTARY_GRAIN 65536 /* elements of a task */

typedef struct ftr__rotary {
    const ftr_kernel_call *call;
    const ftr__simd_attention *simd;
    int64_t n, t, heads, d, half, rows_per_task;
    double *scratch;
    int64_t scratch_size; /* doubles, of a worker */
} ftr__rotary;

static ftr__rotary ftr__rotary_of(const ftr_kernel_call *call) {
    const ftr_shape *x = &call->in[0].shape;
    ftr__rotary r = {.call = call, .simd = &ftr__cpu_of(call)->simd->attention, .half = call->attr->rotary.dims / 2};
    r.n = x->dim[0], r.t = x->dim[1], r.heads = x->dim[2], r.d = x->dim[3];
    r.rows_per_task = 1 + FTR__ROTARY_GRAIN / ftr__gemm_max(r.n * r.heads * r.d, 1);
    r.scratch_size = 6 * r.half + FTR__ALIGNMENT / (int64_t)sizeof(double);
    r.scratch = (double *)call->workspace;
    return r;
}

/* Cosines and sines as the SIMD functions read them. */
static void ftr__rotary_row(const ftr__rotary *r, const double *turn, float *c, float *s) {
    const bool pairs = r->call->attr->rotary.interleaved, inverse = r->call->attr->rotary.inverse;
    for (int64_t i = 0; i < r->half; i++) {
        const float cosine = (float)turn[2 * i], sine = (float)(inverse ? -turn[2 * i + 1] : turn[2 * i + 1]);
        if (pairs) {
            c[2 * i] = c[2 * i + 1] = cosine;
            s[2 * i] = -sine;
            s[2 * i + 1] = sine;
        } else {
            c[i] = cosine;
            s[i] = sine;
        }
    }
}

/* Some positions, of all samples. From one position to the next angles grow by a constant: their cosines and sines
 * follow from the first ones by the addition theorem, in double. */
static void ftr__rotary_task(void *arg, int64_t task, int32_t worker) {
    const ftr__rotary *r = (const ftr__rotary *)arg;
    const int64_t begin = task * r->rows_per_task, end = ftr__gemm_min(begin + r->rows_per_task, r->t);
    double *turn = r->scratch + worker * r->scratch_size, *step = turn + 2 * r->half;
    float *c = (float *)(void *)(step + 2 * r->half), *s = c + 2 * r->half;
    for (int64_t i = 0; i < r->half; i++) {
        const double angle = pow(r->call->attr->rotary.base, -(double)i / (double)r->half);
        const double first = (double)(r->call->attr->rotary.first + begin) * angle;
        turn[2 * i] = cos(first), turn[2 * i + 1] = sin(first);
        step[2 * i] = cos(angle), step[2 * i + 1] = sin(angle);
    }
    for (int64_t p = begin; p < end; p++) {
        ftr__rotary_row(r, turn, c, s);
        for (int64_t i = 0; i < r->n * r->heads; i++) {
            const int64_t at = ((i / r->heads * r->t + p) * r->heads + i % r->heads) * r->d, rest = r->d - 2 * r->half;
            const float *x = (const float *)r->call->in[0].data + at;
            float *y = (float *)r->call->out[0].data + at;
            if (r->call->attr->rotary.interleaved)
                r->simd->rotate_pairs(r->half, c, s, x, y);
            else
                r->simd->rotate_halves(r->half, c, s, x, y);
            if (rest > 0 && x != y) memcpy(y + 2 * r->half, x + 2 * r->half, (size_t)rest * sizeof(float));
        }
        for (int64_t i = 0; i < r->half; i++) {
            const double cosine = turn[2 * i], sine = turn[2 * i + 1];
            turn[2 * i] = cosine * step[2 * i] - sine * step[2 * i + 1];
            turn[2 * i + 1] = sine * step[2 * i] + cosine * step[2 * i + 1];
        }
    }
}

size_t ftr__cpu_rotary_workspace(const ftr_kernel_call *call) {
    const ftr__rotary r = ftr__rotary_of(call);
    return (size_t)(r.scratch_size * ftr__pool_threads(ftr__cpu_of(call)->pool)) * sizeof(double);
}

ftr_status ftr__cpu_rotary(const ftr_kernel_call *call) {
    ftr__rotary r = ftr__rotary_of(call);
    if (call->out[0].count == 0) return FTR_OK;
    ftr__pool_run(ftr__cpu_of(call)->pool, ftr__gemm_ceil(r.t, r.rows_per_task), ftr__rotary_task, &r);
    return FTR_OK;
}
