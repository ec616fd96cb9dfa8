/* Attention and rotary embedding. */
#include "oracle_tools.h"

/* ----------------------------------------------------------------------------------------------------- attention -- */

/* Query i of head h of sample b, and its weights. */
typedef struct attention_row {
    const ftr_kernel_call *call;
    const ftr_view *query, *key, *value, *mask; /* mask: NULL if there is none */
    int64_t tq, heads, d, tk, kv_heads, dv;
    int64_t b, h, i, g; /* g: the head of key and value */
    double *weight;     /* tk: softmax of the scores; all 0 if no key is seen */
    double *kept;       /* tk: the same after dropout */
    double log_sum;
} attention_row;

static attention_row attention_rows(const ftr_kernel_call *call, int32_t query, int32_t mask) {
    attention_row r = {.call = call, .query = &call->in[query], .key = &call->in[query + 1]};
    r.value = &call->in[query + 2];
    r.mask = optional_input(call, mask);
    r.tq = r.query->shape.dim[1], r.heads = r.query->shape.dim[2], r.d = r.query->shape.dim[3];
    r.tk = r.key->shape.dim[1], r.kv_heads = r.key->shape.dim[2], r.dv = r.value->shape.dim[3];
    r.weight = malloc((size_t)(2 * r.tk + 1) * sizeof(double));
    r.kept = r.weight + r.tk;
    return r;
}

static int64_t mask_index(const attention_row *r, int64_t j) {
    ftr_shape scores = {.rank = 4, .dim = {r->query->shape.dim[0], r->heads, r->tq, r->tk}};
    return broadcast_index(&r->mask->shape, &scores, ((r->b * r->heads + r->h) * r->tq + r->i) * r->tk + j);
}

/* What the keys' number j is divided by after dropout; 0 if it is dropped. */
static double dropout_factor(const attention_row *r, int64_t j) {
    double p = r->call->attr->attention.dropout;
    uint64_t group = (uint64_t)((r->b * r->heads + r->h) * ((r->tk + 3) / 4) + j / 4);
    uint64_t block = group * (uint64_t)r->tq + (uint64_t)r->i;
    if (p == 0) {
        return 1;
    }
    uint32_t number = dropout_number(r->call, r->call->attr->attention.key, 4 * block + (uint64_t)j % 4);
    return number < floor(p * 0x1p32) ? 0.0 : 1 / (1 - p);
}

static double score(const attention_row *r, int64_t j) {
    double dot = 0;
    if (r->call->attr->attention.causal && j > r->i) {
        return -INFINITY;
    }
    for (int64_t e = 0; e < r->d; e++) {
        dot += get(r->query, at4(&r->query->shape, r->b, r->i, r->h, e)) *
               get(r->key, at4(&r->key->shape, r->b, j, r->g, e));
    }
    return dot * r->call->attr->attention.scale + (r->mask ? get(r->mask, mask_index(r, j)) : 0);
}

static void attend(attention_row *r, int64_t row) {
    r->i = row % r->tq;
    r->h = row / r->tq % r->heads;
    r->b = row / r->tq / r->heads;
    r->g = r->h / (r->heads / r->kv_heads);
    double largest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < r->tk; j++) {
        r->weight[j] = score(r, j);
        largest = isnan(r->weight[j]) || r->weight[j] > largest ? r->weight[j] : largest;
    }
    bool nothing = largest == -INFINITY;
    for (int64_t j = 0; j < r->tk; j++) {
        r->weight[j] = nothing ? 0 : exp(r->weight[j] - largest);
        sum += r->weight[j];
    }
    r->log_sum = largest + log(nothing ? 1 : sum);
    for (int64_t j = 0; j < r->tk; j++) {
        r->weight[j] /= nothing ? 1 : sum;
        double factor = dropout_factor(r, j);
        r->kept[j] = factor != 0 ? r->weight[j] * factor : 0;
    }
}

ftr_status oracle_attention(const ftr_kernel_call *call) {
    const ftr_view *y = &call->out[0], *log_sum = &call->out[1];
    attention_row r = attention_rows(call, 0, 3);
    for (int64_t row = 0; row < log_sum->count; row++) {
        attend(&r, row);
        set(log_sum, row, r.log_sum);
        for (int64_t e = 0; e < r.dv; e++) {
            double sum = 0;
            for (int64_t j = 0; j < r.tk; j++) {
                sum += r.kept[j] * get(r.value, at4(&r.value->shape, r.b, j, r.g, e));
            }
            set(y, at4(&y->shape, r.b, r.i, r.h, e), sum);
        }
    }
    free(r.weight);
    return FTR_OK;
}

/* Room for sums in double, whatever the result's type. */
static double *zeros(const ftr_view *v) { return calloc((size_t)v->count + 1, sizeof(double)); }

ftr_status oracle_attention_grad(const ftr_kernel_call *call) {
    const ftr_view *dy = &call->in[0];
    double *dq = zeros(&call->out[0]), *dk = zeros(&call->out[1]), *dv = zeros(&call->out[2]);
    double *dmask = zeros(&call->out[3]), *sums[] = {dq, dk, dv, dmask};
    uint32_t wanted = call->attr->attention.wanted;
    attention_row r = attention_rows(call, 1, 6);
    double scale = call->attr->attention.scale, *dweight = malloc((size_t)(r.tk + 1) * sizeof(double));
    for (int64_t row = 0; row < call->in[5].count; row++) {
        attend(&r, row);
        double mean = 0; /* of the weights' gradients, by the weights: the sum of dy y, y as it was stored */
        for (int64_t e = 0; e < r.dv; e++) {
            mean += get(dy, at4(&dy->shape, r.b, r.i, r.h, e)) * get(&call->in[4], at4(&dy->shape, r.b, r.i, r.h, e));
        }
        for (int64_t j = 0; j < r.tk; j++) {
            double sum = 0;
            for (int64_t e = 0; e < r.dv; e++) {
                double g = get(dy, at4(&dy->shape, r.b, r.i, r.h, e));
                int64_t at = at4(&r.value->shape, r.b, j, r.g, e);
                sum += g * get(r.value, at);
                if (wanted & 4) {
                    dv[at] += r.kept[j] * g;
                }
            }
            dweight[j] = dropout_factor(&r, j) * sum;
        }
        for (int64_t j = 0; j < r.tk; j++) {
            double dscore = r.weight[j] * (dweight[j] - mean);
            if (wanted & 8) {
                dmask[mask_index(&r, j)] += dscore;
            }
            for (int64_t e = 0; e < r.d; e++) {
                int64_t in_query = at4(&r.query->shape, r.b, r.i, r.h, e), in_key = at4(&r.key->shape, r.b, j, r.g, e);
                if (wanted & 1) {
                    dq[in_query] += scale * dscore * get(r.key, in_key);
                }
                if (wanted & 2) {
                    dk[in_key] += scale * dscore * get(r.query, in_query);
                }
            }
        }
    }
    for (int32_t o = 0; o < 4; o++) {
        for (int64_t i = 0; i < call->out[o].count; i++) {
            set(&call->out[o], i, sums[o][i]);
        }
        free(sums[o]);
    }
    free(dweight);
    free(r.weight);
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------------------- rotary -- */

ftr_status oracle_rotary(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *y = &call->out[0];
    int64_t dims = call->attr->rotary.dims, d = x->shape.dim[3];
    bool interleaved = call->attr->rotary.interleaved;
    for (int64_t at = 0; at < x->count; at += d) {
        double position = (double)(call->attr->rotary.first + at / d / x->shape.dim[2] % x->shape.dim[1]);
        for (int64_t i = 0; i < dims / 2; i++) {
            int64_t first = at + (interleaved ? 2 * i : i), second = first + (interleaved ? 1 : dims / 2);
            double angle = position * pow(call->attr->rotary.base, -2.0 * (double)i / (double)dims);
            double c = cos(angle), s = call->attr->rotary.inverse ? -sin(angle) : sin(angle);
            double a = get(x, first), b = get(x, second);
            set(y, first, a * c - b * s);
            set(y, second, b * c + a * s);
        }
        for (int64_t i = dims; i < d; i++) {
            set(y, at + i, get(x, at + i));
        }
    }
    return FTR_OK;
}
