/* Attention and rotary embedding. */
#include "case_tools.h"

enum { MASK_NONE, MASK_FULL, MASK_SHARED, MASK_KEYS, MASK_HEADS, MASK_ROWS, MASK_SCALAR, MASK_SAMPLES };
static const char *const mask_names[] = {"",           " full mask", " mask",        " key mask",
                                         " head mask", " row mask",  " scalar mask", " sample mask"};

static const struct {
    const char *name;
    int32_t n, tq, tk, heads, kv_heads, d, dv, flags;
} attention_cases[] = {
    {"small", 2, 5, 5, 2, 2, 4, 4, 0},       {"one query", 1, 1, 7, 2, 1, 8, 8, 0},
    {"longer keys", 2, 3, 9, 4, 2, 3, 5, 0}, {"longer queries", 1, 9, 4, 3, 1, 6, 2, 0},
    {"one", 1, 1, 1, 1, 1, 1, 1, 0},
};

/* p: case, causal, mask, percent of dropout, -inf among the mask. */
static void build_attention(op_build *b) {
    const int32_t *p = b->of->p;
    int64_t n = attention_cases[p[0]].n, tq = attention_cases[p[0]].tq, tk = attention_cases[p[0]].tk;
    int64_t heads = attention_cases[p[0]].heads, kv_heads = attention_cases[p[0]].kv_heads;
    int64_t d = attention_cases[p[0]].d, dv = attention_cases[p[0]].dv;
    ftr_tensor q = uniform_input(b, FTR_SHAPE(n, tq, heads, d)), k = uniform_input(b, FTR_SHAPE(n, tk, kv_heads, d));
    ftr_tensor v = uniform_input(b, FTR_SHAPE(n, tk, kv_heads, dv));
    ftr_attention_desc desc = ftr_attention_defaults();
    desc.causal = p[1];
    desc.dropout = p[3] / 100.0;
    const ftr_shape masks[] = {ftr_scalar_shape(),     FTR_SHAPE(n, heads, tq, tk), FTR_SHAPE(tq, tk),
                               FTR_SHAPE(n, 1, 1, tk), FTR_SHAPE(heads, 1, tk),     FTR_SHAPE(n, heads, tq, 1),
                               ftr_scalar_shape(),     FTR_SHAPE(n, 1, tq, tk)};
    if (p[2] != MASK_NONE) {
        op_input *mask = declare(b, b->real, masks[p[2]], FILL_UNIFORM, -2, 2);
        mask->wanted = true;
        for (int64_t i = 0; i < mask->count && p[4]; i++) {
            mask->values[i] = ftr_test_integer(&b->rng, 0, 3) ? mask->values[i] : -INFINITY;
        }
        desc.mask = mask->tensor;
    }
    output(b, ftr_attention(q, k, v, &desc));
}

static const struct {
    const char *name;
    int32_t n, t, heads, d, dims, first, base;
} rotary_cases[] = {
    {"small", 2, 5, 3, 8, 0, 0, 0},
    {"part", 1, 7, 2, 10, 6, 3, 100},
    {"no rows", 2, 0, 2, 4, 0, 0, 0},
};

/* p: case, interleaved. */
static void build_rotary(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_rotary_desc desc = ftr_rotary_defaults();
    desc.interleaved = p[1];
    desc.dims = rotary_cases[p[0]].dims;
    desc.first = rotary_cases[p[0]].first;
    desc.base = rotary_cases[p[0]].base ? rotary_cases[p[0]].base : desc.base;
    ftr_shape shape =
        FTR_SHAPE(rotary_cases[p[0]].n, rotary_cases[p[0]].t, rotary_cases[p[0]].heads, rotary_cases[p[0]].d);
    output(b, ftr_rotary(uniform_input(b, shape), &desc));
}

void add_attention(table *t) {
    for (int32_t i = 0; i < LENGTH(attention_cases); i++) {
        for (int32_t mask = 0; mask < LENGTH(mask_names); mask++) {
            for (int32_t causal = 0; causal < 2; causal++) {
                WITH(add(t, build_attention, attention_cases[i].flags, "attention %s%s%s", attention_cases[i].name,
                         causal ? " causal" : "", mask_names[mask]),
                     i, causal, mask, 0, 0);
            }
        }
        WITH(add(t, build_attention, attention_cases[i].flags | OP_FRESH | OP_STEPS, "attention %s dropout",
                 attention_cases[i].name),
             i, 0, 0, 40, 0);
    }
    for (int32_t i = 0; i < LENGTH(rotary_cases); i++) {
        for (int32_t form = 0; form < 2; form++) {
            WITH(add(t, build_rotary, 0, "rotary %s%s", rotary_cases[i].name, form ? " interleaved" : ""), i, form);
        }
    }
}
