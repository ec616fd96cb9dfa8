/* Scaled dot-product attention and rotary position embedding. */
#include "core/rng.h"
#include "ops/registry.h"

#include <math.h>

#define FTR__COOKIE_ATTENTION 0x4154544eu
#define FTR__COOKIE_ROTARY 0x524f5445u

/* ---- builders */

ftr_attention_desc ftr_attention_defaults(void) {
    ftr_attention_desc desc = {FTR__COOKIE_ATTENTION, false, {NULL, 0}, 0.0, 0.0};
    return desc;
}

ftr_tensor ftr_attention(ftr_tensor query, ftr_tensor key, ftr_tensor value, const ftr_attention_desc *desc) {
    const ftr_attention_desc d = desc != NULL ? *desc : ftr_attention_defaults();
    const bool known = d.cookie == FTR__COOKIE_ATTENTION;
    const ftr_tensor none = {NULL, 0}, in[4] = {query, key, value, known ? d.mask : none};
    ftr_graph *graph = ftr__common_graph("attention", in, 4, 3);
    if (graph == NULL) return none;
    if (!known)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "attention", NULL,
                                  "desc was not made by ftr_attention_defaults()");
    const ftr_op_attr attr = {.attention = {.scale = d.scale, .dropout = d.dropout, .causal = d.causal}};
    return ftr__emit(graph, FTR_OP_attention, NULL, &attr, in, 4);
}

ftr_rotary_desc ftr_rotary_defaults(void) {
    ftr_rotary_desc desc = {FTR__COOKIE_ROTARY, 10000.0, 0, 0, false};
    return desc;
}

ftr_tensor ftr_rotary(ftr_tensor x, const ftr_rotary_desc *desc) {
    const ftr_rotary_desc d = desc != NULL ? *desc : ftr_rotary_defaults();
    ftr_graph *graph = ftr__common_graph("rotary", &x, 1, 1);
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    if (d.cookie != FTR__COOKIE_ROTARY)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "rotary", NULL,
                                  "desc was not made by ftr_rotary_defaults()");
    const ftr_op_attr attr = {
        .rotary = {.base = d.base, .first = d.first, .dims = d.dims, .interleaved = d.interleaved}};
    return ftr__emit_one(FTR_OP_rotary, &attr, x);
}

/* ---- shapes and types */

/* Input `index`, and the two after it, are query, key and value that fit together. */
static ftr_status ftr__attention_check(ftr__infer *s, int32_t index) {
    static const char *const what[3] = {"query", "key", "value"};
    static const char *const layout[3] = {"n, tq, heads, d", "n, tk, kv_heads, d", "n, tk, kv_heads, dv"};
    ftr_status status = ftr__check_float(s, index, what[0]);
    for (int32_t i = 0; i < 3 && status == FTR_OK; i++) {
        status = ftr__check_rank(s, index + i, what[i], 4, layout[i]);
        if (status == FTR_OK && i > 0) status = ftr__check_same_type(s, index, index + i, what[0], what[i]);
    }
    if (status != FTR_OK) return status;
    const ftr_shape *q = &s->in[index]->shape, *k = &s->in[index + 1]->shape, *v = &s->in[index + 2]->shape;
    char text_a[FTR__SHAPE_TEXT], text_b[FTR__SHAPE_TEXT];
    if (q->dim[0] != k->dim[0] || q->dim[3] != k->dim[3])
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "query is %s, key is %s: both must have one n and one d",
                                ftr__shape_text(q, text_a), ftr__shape_text(k, text_b));
    if (k->dim[0] != v->dim[0] || k->dim[1] != v->dim[1] || k->dim[2] != v->dim[2])
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "key is %s, value is %s: both must have one n, tk and kv_heads",
                                ftr__shape_text(k, text_a), ftr__shape_text(v, text_b));
    if (k->dim[2] < 1 || q->dim[2] % k->dim[2] != 0)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "query has %lld heads, which the %lld of key do not divide",
                                (long long)q->dim[2], (long long)k->dim[2]);
    return FTR_OK;
}

/* The mask, if it is given, has the queries' type and broadcasts to the scores. */
static ftr_status ftr__attention_mask(ftr__infer *s, int32_t query, int32_t mask) {
    if (mask >= s->in_count || s->in[mask] == NULL) return FTR_OK;
    const ftr_shape *q = &s->in[query]->shape, *m = &s->in[mask]->shape;
    const ftr_shape scores = FTR_SHAPE(q->dim[0], q->dim[2], q->dim[1], s->in[query + 1]->shape.dim[1]);
    ftr_shape both;
    char text[FTR__SHAPE_TEXT], expected[FTR__SHAPE_TEXT];
    const ftr_status status = ftr__check_same_type(s, query, mask, "query", "mask");
    if (status != FTR_OK) return status;
    if (ftr__broadcast_shape(m, &scores, &both) && ftr_shape_equal(&both, &scores)) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "mask is %s, which does not broadcast to %s (n, heads, tq, tk)",
                            ftr__shape_text(m, text), ftr__shape_text(&scores, expected));
}

/* [n, heads, tq] */
static ftr_shape ftr__attention_rows(const ftr_shape *query) {
    return FTR_SHAPE(query->dim[0], query->dim[2], query->dim[1]);
}

/* Completes the attributes: the scale, and the stream of a dropout (as ftr__infer_dropout() makes it). */
static ftr_status ftr__attention_attributes(ftr__infer *s) {
    const double scale = s->node->attr.attention.scale, p = s->node->attr.attention.dropout;
    const int64_t d = s->in[0]->shape.dim[3];
    if (!isfinite(scale))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "scale %g, expected a finite number", scale);
    if (!(p >= 0.0 && p <= 1.0))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "dropout %g, expected 0 to 1", p);
    if (scale == 0.0) s->node->attr.attention.scale = d > 0 ? 1.0 / sqrt((double)d) : 1.0;
    const uint64_t key = ftr__hash(s->node->name);
    s->node->attr.attention.key = key != 0 ? key : 1;
    return FTR_OK;
}

ftr_status ftr__infer_attention(ftr__infer *s) {
    ftr_status status = ftr__attention_check(s, 0);
    if (status == FTR_OK) status = ftr__attention_mask(s, 0, 3);
    if (status == FTR_OK) status = ftr__attention_attributes(s);
    if (status != FTR_OK) return status;
    ftr_shape y = s->in[0]->shape;
    const ftr_shape rows = ftr__attention_rows(&y);
    y.dim[3] = s->in[2]->shape.dim[3];
    status = ftr__set_output(s, 0, s->in[0]->dtype, &y);
    return status == FTR_OK ? ftr__set_output(s, 1, ftr__wide_type(s->in[0]->dtype), &rows) : status;
}

ftr_status ftr__infer_attention_grad(ftr__infer *s) {
    ftr_status status = ftr__attention_check(s, 1);
    if (status == FTR_OK) status = ftr__attention_mask(s, 1, 6);
    if (status == FTR_OK) status = ftr__check_same_shape(s, 0, 4, "dy", "y");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dy", "query");
    if (status != FTR_OK) return status;
    const ftr_shape nothing = FTR_SHAPE(0);
    for (int32_t i = 0; i < 4 && status == FTR_OK; i++) {
        const int32_t input = i < 3 ? 1 + i : 6;
        const bool wanted = (s->node->attr.attention.wanted >> i & 1u) != 0 && input < s->in_count && s->in[input];
        status = ftr__set_output(s, i, s->in[1]->dtype, wanted ? &s->in[input]->shape : &nothing);
    }
    return status;
}

ftr_status ftr__infer_rotary(ftr__infer *s) {
    const int32_t dims = s->node->attr.rotary.dims;
    const double base = s->node->attr.rotary.base;
    ftr_status status = ftr__check_float(s, 0, "input");
    if (status == FTR_OK) status = ftr__check_rank(s, 0, "input", 4, "n, t, heads, d");
    if (status != FTR_OK) return status;
    const int64_t d = s->in[0]->shape.dim[3], rotated = dims != 0 ? dims : d;
    if (!(base > 0.0) || !isfinite(base))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "base %g, expected a finite number above 0", base);
    if (rotated < 0 || rotated > d || rotated % 2 != 0 || rotated > INT32_MAX)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "dims %lld of rows of %lld, expected an even number up to that",
                                (long long)rotated, (long long)d);
    s->node->attr.rotary.dims = (int32_t)rotated;
    return ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
}

/* ---- gradients */

void ftr__grad_attention(ftr__grad *s) {
    ftr_op_attr attr = s->node->attr;
    attr.attention.wanted = 0;
    for (int32_t i = 0; i < s->node->in_count; i++)
        if (ftr_is_valid(s->in[i]) && s->wanted[i]) attr.attention.wanted |= 1u << i;
    if (!ftr__has_gradient(s) || attr.attention.wanted == 0) return;
    const ftr_tensor in[7] = {s->dout[0], s->in[0], s->in[1], s->in[2], s->out[0], s->out[1], s->in[3]};
    const ftr_tensor first = ftr__emit(s->graph, FTR_OP_attention_grad, NULL, &attr, in, 7);
    for (int32_t i = 0; i < s->node->in_count && ftr_is_valid(first); i++)
        if (attr.attention.wanted >> i & 1u) s->din[i] = ftr__output(first, i);
}

void ftr__grad_rotary(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_op_attr attr = s->node->attr;
    attr.rotary.inverse = !attr.rotary.inverse;
    s->din[0] = ftr__emit_one(FTR_OP_rotary, &attr, s->dout[0]);
}
