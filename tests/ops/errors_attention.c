/* Malformed attention and rotary embedding. */
#include "errors.h"

static ftr_tensor real(ftr_graph *g, const char *name, ftr_shape shape) { return ftr_input(g, name, FTR_F32, shape); }

/* Query [2, 3, 4, 8], key and value [2, 5, 2, 8], a description with one field changed. */
static ftr_tensor described(ftr_graph *g, const ftr_attention_desc *desc) {
    return ftr_attention(real(g, "q", FTR_SHAPE(2, 3, 4, 8)), real(g, "k", FTR_SHAPE(2, 5, 2, 8)),
                         real(g, "v", FTR_SHAPE(2, 5, 2, 8)), desc);
}

static ftr_tensor masked(ftr_graph *g, ftr_dtype dtype, ftr_shape shape) {
    ftr_attention_desc desc = ftr_attention_defaults();
    desc.mask = ftr_input(g, "m", dtype, shape);
    return described(g, &desc);
}

static ftr_tensor scaled(ftr_graph *g, double scale, double dropout) {
    ftr_attention_desc desc = ftr_attention_defaults();
    desc.scale = scale;
    desc.dropout = dropout;
    return described(g, &desc);
}

static ftr_tensor foreign_mask(ftr_graph *g) {
    ftr_context *context = ftr_test_context();
    ftr_graph *other = ftr_graph_create(context);
    ftr_attention_desc desc = ftr_attention_defaults();
    desc.mask = real(other, "m", FTR_SHAPE(3, 5));
    ftr_tensor result = described(g, &desc);
    ftr_graph_destroy(other);
    ftr_context_destroy(context);
    return result;
}

static ftr_tensor not_made(ftr_graph *g) {
    ftr_attention_desc desc = {.causal = true};
    return described(g, &desc);
}

static ftr_tensor rotated(ftr_graph *g, int64_t d, int32_t dims, double base) {
    ftr_rotary_desc desc = ftr_rotary_defaults();
    desc.dims = dims;
    desc.base = base;
    return ftr_rotary(real(g, "x", FTR_SHAPE(2, 3, 4, d)), &desc);
}

static ftr_tensor rotary_not_made(ftr_graph *g) {
    ftr_rotary_desc desc = {.base = 10000};
    return ftr_rotary(real(g, "x", FTR_SHAPE(2, 3, 4, 8)), &desc);
}

/* Inputs "q", "k", "v" of graph g. */
#define INPUT(name, dtype, ...) ftr_input(g, name, dtype, FTR_SHAPE(__VA_ARGS__))
#define Q(...) INPUT("q", FTR_F32, __VA_ARGS__)
#define K(...) INPUT("k", FTR_F32, __VA_ARGS__)
#define V(...) INPUT("v", FTR_F32, __VA_ARGS__)
#define NOTHING ((ftr_tensor){0})

/* X(name, status, sentence, what is built) */
/* clang-format off */
#define ATTENTION_ERRORS(X) \
    X(attention_null_query, FTR_ERROR_INVALID_TENSOR, "attention: input 0 is a null tensor", \
      ftr_attention(NOTHING, K(2, 5, 2, 8), V(2, 5, 2, 8), NULL)) \
    X(attention_null_value, FTR_ERROR_INVALID_TENSOR, "attention: input 2 is a null tensor", \
      ftr_attention(Q(2, 3, 4, 8), K(2, 5, 2, 8), NOTHING, NULL)) \
    X(attention_foreign_mask, FTR_ERROR_INVALID_TENSOR, "attention: input 3 belongs to another graph", \
      foreign_mask(g)) \
    X(attention_desc, FTR_ERROR_INVALID_ARGUMENT, "attention: desc was not made by ftr_attention_defaults()", \
      not_made(g)) \
    X(attention_integers, FTR_ERROR_DTYPE, "attention 'attention_3': query is i32, expected floating point", \
      ftr_attention(INPUT("q", FTR_I32, 2, 3, 4, 8), K(2, 5, 2, 8), V(2, 5, 2, 8), NULL)) \
    X(attention_dtypes, FTR_ERROR_DTYPE, \
      "attention 'attention_3': query is f32, value is f64: both must have one type", \
      ftr_attention(Q(2, 3, 4, 8), K(2, 5, 2, 8), INPUT("v", FTR_F64, 2, 5, 2, 8), NULL)) \
    X(attention_query_rank, FTR_ERROR_RANK, \
      "attention 'attention_3': query has rank 3, expected 4 (n, tq, heads, d)", \
      ftr_attention(Q(3, 4, 8), K(2, 5, 2, 8), V(2, 5, 2, 8), NULL)) \
    X(attention_key_rank, FTR_ERROR_RANK, \
      "attention 'attention_3': key has rank 5, expected 4 (n, tk, kv_heads, d)", \
      ftr_attention(Q(2, 3, 4, 8), K(1, 2, 5, 2, 8), V(2, 5, 2, 8), NULL)) \
    X(attention_value_rank, FTR_ERROR_RANK, \
      "attention 'attention_3': value has rank 2, expected 4 (n, tk, kv_heads, dv)", \
      ftr_attention(Q(2, 3, 4, 8), K(2, 5, 2, 8), V(5, 8), NULL)) \
    X(attention_samples, FTR_ERROR_SHAPE, \
      "attention 'attention_3': query is [2, 3, 4, 8], key is [1, 5, 2, 8]: both must have one n and one d", \
      ftr_attention(Q(2, 3, 4, 8), K(1, 5, 2, 8), V(1, 5, 2, 8), NULL)) \
    X(attention_width, FTR_ERROR_SHAPE, \
      "attention 'attention_3': query is [2, 3, 4, 8], key is [2, 5, 2, 16]: both must have one n and one d", \
      ftr_attention(Q(2, 3, 4, 8), K(2, 5, 2, 16), V(2, 5, 2, 8), NULL)) \
    X(attention_values, FTR_ERROR_SHAPE, \
      "attention 'attention_3': key is [2, 5, 2, 8], value is [2, 6, 2, 8]: both must have one n, tk and kv_heads", \
      ftr_attention(Q(2, 3, 4, 8), K(2, 5, 2, 8), V(2, 6, 2, 8), NULL)) \
    X(attention_heads, FTR_ERROR_SHAPE, \
      "attention 'attention_3': query has 4 heads, which the 3 of key do not divide", \
      ftr_attention(Q(2, 3, 4, 8), K(2, 5, 3, 8), V(2, 5, 3, 8), NULL)) \
    X(attention_no_heads, FTR_ERROR_SHAPE, \
      "attention 'attention_3': query has 4 heads, which the 0 of key do not divide", \
      ftr_attention(Q(2, 3, 4, 8), K(2, 5, 0, 8), V(2, 5, 0, 8), NULL)) \
    X(attention_mask_dtype, FTR_ERROR_DTYPE, \
      "attention 'attention_4': query is f32, mask is bool: both must have one type", \
      masked(g, FTR_BOOL, FTR_SHAPE(3, 5))) \
    X(attention_mask_shape, FTR_ERROR_SHAPE, \
      "attention 'attention_4': mask is [5, 3], which does not broadcast to [2, 4, 3, 5] (n, heads, tq, tk)", \
      masked(g, FTR_F32, FTR_SHAPE(5, 3))) \
    X(attention_mask_rank, FTR_ERROR_SHAPE, \
      "attention 'attention_4': mask is [1, 2, 4, 3, 5], which does not broadcast to [2, 4, 3, 5] (n, heads, tq, tk)", \
      masked(g, FTR_F32, FTR_SHAPE(1, 2, 4, 3, 5))) \
    X(attention_scale, FTR_ERROR_INVALID_ARGUMENT, "attention 'attention_3': scale inf, expected a finite number", \
      scaled(g, INFINITY, 0)) \
    X(attention_dropout, FTR_ERROR_INVALID_ARGUMENT, "attention 'attention_3': dropout 1.5, expected 0 to 1", \
      scaled(g, 0, 1.5)) \
    X(attention_dropout_nan, FTR_ERROR_INVALID_ARGUMENT, "attention 'attention_3': dropout nan, expected 0 to 1", \
      scaled(g, 0, NAN)) \
    X(rotary_desc, FTR_ERROR_INVALID_ARGUMENT, "rotary: desc was not made by ftr_rotary_defaults()", \
      rotary_not_made(g)) \
    X(rotary_integers, FTR_ERROR_DTYPE, "rotary 'rotary_1': input is i64, expected floating point", \
      ftr_rotary(INPUT("x", FTR_I64, 2, 3, 4, 8), NULL)) \
    X(rotary_rank, FTR_ERROR_RANK, "rotary 'rotary_1': input has rank 3, expected 4 (n, t, heads, d)", \
      ftr_rotary(Q(3, 4, 8), NULL)) \
    X(rotary_odd, FTR_ERROR_SHAPE, "rotary 'rotary_1': dims 7 of rows of 7, expected an even number up to that", \
      rotated(g, 7, 0, 10000)) \
    X(rotary_odd_dims, FTR_ERROR_SHAPE, "rotary 'rotary_1': dims 5 of rows of 8, expected an even number up to that", \
      rotated(g, 8, 5, 10000)) \
    X(rotary_dims, FTR_ERROR_SHAPE, "rotary 'rotary_1': dims 10 of rows of 8, expected an even number up to that", \
      rotated(g, 8, 10, 10000)) \
    X(rotary_negative, FTR_ERROR_SHAPE, "rotary 'rotary_1': dims -2 of rows of 8, expected an even number up to that", \
      rotated(g, 8, -2, 10000)) \
    X(rotary_base, FTR_ERROR_INVALID_ARGUMENT, "rotary 'rotary_1': base 0, expected a finite number above 0", \
      rotated(g, 8, 0, 0))
/* clang-format on */

#define FUNCTION(name, status, message, expression)                                                                    \
    static ftr_tensor build_##name(ftr_graph *g) { return expression; }
#define ROW(name, status, message, expression) {#name, build_##name, status, message},

ATTENTION_ERRORS(FUNCTION)
static const op_error errors[] = {ATTENTION_ERRORS(ROW)};
const op_error_family attention_errors = {errors, FTR_TEST_LENGTH(errors)};
