/* Attention and rotary embedding. */
#include "case_tools.h"

enum { MASK_NONE, MASK_FULL, MASK_SHARED, MASK_KEYS, MASK_HEADS, MASK_ROWS, MASK_SCALAR, MASK_SAMPLES, MASKS };
static const char *const mask_names[MASKS] = {"",           " full mask", " mask",        " key mask",
                                              " head mask", " row mask",  " scalar mask", " sample mask"};

/* What is put into the mask beside numbers. */
enum { MASK_PLAIN, MASK_HOLES /* -inf here and there */, MASK_BLIND /* and in all of the first row */, MASK_FAR };

enum { WANT_ALL, WANT_QUERY, WANT_KEY, WANT_VALUE, WANT_MASK, WANTS };
static const char *const want_names[WANTS] = {"", " of query", " of key", " of value", " of mask"};

/* A tile has 64 queries, up to 96 if it is the last one, and 108 or 112 keys. */
static const struct {
    const char *name;
    int32_t n, tq, tk, heads, kv_heads, d, dv, flags;
} attention_cases[] = {
    {"small", 2, 5, 5, 2, 2, 4, 4, 0},
    {"one query", 1, 1, 7, 2, 1, 8, 8, 0},
    {"longer keys", 2, 3, 9, 4, 2, 3, 5, 0},
    {"longer queries", 1, 9, 4, 3, 1, 6, 2, 0},
    {"one", 1, 1, 1, 1, 1, 1, 1, 0},
    {"no samples", 0, 3, 4, 2, 1, 4, 4, 0},
    {"no queries", 2, 0, 4, 2, 1, 4, 4, 0},
    {"no keys", 2, 3, 0, 2, 1, 4, 4, 0},
    {"no heads", 2, 3, 4, 0, 1, 4, 4, 0},
    {"no width", 2, 3, 4, 2, 1, 0, 4, 0},
    {"no values", 2, 3, 4, 2, 1, 4, 0, 0},
    {"tile", 1, 64, 112, 2, 1, 64, 64, OP_LARGE},
    {"wide tile", 1, 95, 113, 1, 1, 33, 65, OP_LARGE},
    {"tiles", 2, 160, 224, 2, 2, 32, 32, OP_LARGE},
    {"odd tiles", 1, 231, 343, 2, 1, 20, 7, OP_LARGE},
    {"odd queries", 3, 197, 61, 3, 1, 16, 48, OP_LARGE},
    {"heads", 5, 33, 40, 8, 4, 24, 24, OP_LARGE},
};

enum { SEVERAL_TILES = 14 }; /* "odd tiles" */

/* p: case, causal, mask, percent of dropout, what is in the mask, what gradients are wanted. */
static void build_attention(op_build *b) {
    const int32_t *p = b->of->p;
    int64_t n = attention_cases[p[0]].n, tq = attention_cases[p[0]].tq, tk = attention_cases[p[0]].tk;
    int64_t heads = attention_cases[p[0]].heads, kv_heads = attention_cases[p[0]].kv_heads;
    int64_t d = attention_cases[p[0]].d, dv = attention_cases[p[0]].dv;
    ftr_attention_desc desc = ftr_attention_defaults();
    desc.causal = p[1];
    desc.dropout = p[3] / 100.0;
    const ftr_shape shapes[3] = {FTR_SHAPE(n, tq, heads, d), FTR_SHAPE(n, tk, kv_heads, d),
                                 FTR_SHAPE(n, tk, kv_heads, dv)};
    ftr_tensor in[3];
    for (int32_t i = 0; i < 3; i++) {
        op_input *input = declare(b, b->real, shapes[i], FILL_UNIFORM, -2, 2);
        input->wanted = p[5] == WANT_ALL || p[5] == WANT_QUERY + i;
        in[i] = input->tensor;
    }
    const ftr_shape masks[MASKS] = {ftr_scalar_shape(),     FTR_SHAPE(n, heads, tq, tk), FTR_SHAPE(tq, tk),
                                    FTR_SHAPE(n, 1, 1, tk), FTR_SHAPE(heads, 1, tk),     FTR_SHAPE(n, heads, tq, 1),
                                    ftr_scalar_shape(),     FTR_SHAPE(n, 1, tq, tk)};
    if (p[2] != MASK_NONE) {
        op_input *mask = declare(b, b->real, masks[p[2]], FILL_UNIFORM, -2, 2);
        /* what the elements of one row sum up to is 0: of many rows there is only rounding to compare */
        bool nothing = p[2] == MASK_SCALAR && b->of->flags & OP_LARGE;
        mask->wanted = (p[5] == WANT_ALL && !nothing) || p[5] == WANT_MASK;
        for (int64_t i = 0; i < mask->count && p[4] != MASK_PLAIN; i++) {
            bool hole = ftr_test_integer(&b->rng, 0, 3) == 0 || (p[4] == MASK_BLIND && i < tk);
            mask->values[i] = p[4] == MASK_FAR ? 16 * mask->values[i] : hole ? -INFINITY : mask->values[i];
        }
        desc.mask = mask->tensor;
    }
    output(b, ftr_attention(in[0], in[1], in[2], &desc));
}

/* One tensor as query, key and value; the description is left out. */
static void build_attention_self(op_build *b) {
    ftr_tensor x = uniform_input(b, FTR_SHAPE(2, 6, 3, 5));
    output(b, ftr_attention(x, x, x, NULL));
}

/* Query, key and value are thirds of the rows of one tensor, as in transformers, which the fuse pass reads and writes as it
 * lies. */
typedef enum packed_form {
    PACKED_ROWS,    /* rows of a matrix */
    PACKED_SAMPLES, /* [n, t, 3 heads d] */
    PACKED_DROPOUT, /* and a mask */
    PACKED_PIECES,  /* one head: tiles of keys are tasks of their own */
    PACKED_SHARED,  /* the thirds are read by something else too, and the tensor is */
    PACKED_SWAPPED, /* key and query change places: not what the pass looks for */
    PACKED_FORMS
} packed_form;

static const char *const packed_names[PACKED_FORMS] = {"rows", "samples", "dropout", "pieces", "shared", "swapped"};

/* p: packed_form, causal. */
static void build_attention_packed(op_build *b) {
    const int32_t *p = b->of->p;
    const int64_t n = p[0] == PACKED_PIECES ? 1 : 2, t = p[0] == PACKED_PIECES ? 250 : 9;
    const int64_t heads = p[0] == PACKED_PIECES ? 1 : 3, d = p[0] == PACKED_ROWS ? 16 : 5, width = heads * d;
    const bool matrix = p[0] == PACKED_ROWS || p[0] == PACKED_SWAPPED;
    ftr_tensor x = uniform_input(b, matrix ? FTR_SHAPE(n * t, 3 * width) : FTR_SHAPE(n, t, 3 * width));
    ftr_tensor rows = ftr_neg(x), part[3], heads_of[3];
    ftr_attention_desc desc = ftr_attention_defaults();
    desc.causal = p[1];
    if (p[0] == PACKED_DROPOUT) {
        desc.dropout = 0.25;
        desc.mask = uniform_input(b, FTR_SHAPE(t, t));
    }
    ftr_split(rows, -1, NULL, 3, part);
    for (int32_t i = 0; i < 3; i++) {
        heads_of[i] = ftr_reshape(part[i], FTR_SHAPE(n, t, heads, d));
    }
    int32_t first = p[0] == PACKED_SWAPPED ? 1 : 0;
    output(b, ftr_attention(heads_of[first], heads_of[1 - first], heads_of[2], &desc));
    if (p[0] == PACKED_SHARED) {
        output(b, ftr_exp(part[1]));
        output(b, ftr_exp(rows));
    }
}

/* p: tenths of the scale. */
static void build_attention_scale(op_build *b) {
    ftr_attention_desc desc = ftr_attention_defaults();
    desc.scale = b->of->p[0] / 10.0;
    output(b, ftr_attention(uniform_input(b, FTR_SHAPE(2, 6, 2, 9)), uniform_input(b, FTR_SHAPE(2, 7, 1, 9)),
                            uniform_input(b, FTR_SHAPE(2, 7, 1, 4)), &desc));
}

/* Two nodes drop different weights. */
static void build_attention_twice(op_build *b) {
    ftr_tensor x = uniform_input(b, FTR_SHAPE(2, 6, 3, 5));
    ftr_attention_desc desc = ftr_attention_defaults();
    desc.dropout = 0.5;
    ftr_tensor y = ftr_attention(x, x, x, &desc);
    output(b, y);
    output(b, ftr_attention(x, x, y, &desc));
}

/* p: what is not finite: 0 a query, 1 a key, 2 a value, 3 the mask; 0 NaN, 1 infinity. */
static void build_attention_special(op_build *b) {
    const int32_t *p = b->of->p;
    const ftr_shape shape = FTR_SHAPE(2, 40, 2, 16);
    ftr_attention_desc desc = ftr_attention_defaults();
    op_input *in[4];
    for (int32_t i = 0; i < 4; i++) {
        in[i] = declare(b, b->real, i < 3 ? shape : FTR_SHAPE(2, 1, 40, 40), FILL_UNIFORM, -1, 1);
    }
    in[p[0]]->values[16 * 2 * 40 + 16 * 2 * 7 + 3] = p[1] ? INFINITY : NAN;
    desc.mask = in[3]->tensor;
    output(b, ftr_attention(in[0]->tensor, in[1]->tensor, in[2]->tensor, &desc));
}

/* Scores of up to a thousand, which e^x has no number for, 20 and more apart: one key gets all. */
static void build_attention_far(op_build *b) {
    ftr_tensor q = real_input(b, FTR_SHAPE(1, 70, 1, 1), FILL_AWAY, 160, 160);
    ftr_tensor k = real_input(b, FTR_SHAPE(1, 130, 1, 1), FILL_DISTINCT, 0, 0);
    output(b, ftr_attention(q, k, uniform_input(b, FTR_SHAPE(1, 130, 1, 1)), NULL));
}

static const struct {
    const char *name;
    int32_t n, t, heads, d, dims, first, base, flags;
} rotary_cases[] = {
    {"small", 2, 5, 3, 8, 0, 0, 0, 0},           {"part", 1, 7, 2, 10, 6, 3, 100, 0},
    {"a pair", 1, 4, 1, 2, 0, -2, 0, 0},         {"no rows", 2, 0, 2, 4, 0, 0, 0, 0},
    {"no width", 2, 3, 2, 0, 0, 0, 0, 0},        {"far", 1, 9, 2, 66, 0, 1000000, 500000, 0},
    {"large", 3, 331, 4, 64, 0, 0, 0, OP_LARGE}, {"large part", 2, 203, 5, 80, 38, 17, 0, OP_LARGE},
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

/* Of a value that nothing else reads, so that it may happen in place, without a description. */
static void build_rotary_in_place(op_build *b) {
    output(b, ftr_rotary(ftr_neg(uniform_input(b, FTR_SHAPE(2, 6, 3, 12))), NULL));
}

static void add_attention_dropout(table *t, int32_t i) {
    static const int32_t percents[] = {15, 100};
    int flags = attention_cases[i].flags | OP_FRESH;
    for (int32_t p = 0; p < (i > 0 && i != SEVERAL_TILES ? 1 : 2); p++) {
        for (int32_t form = 0; form < 2; form++) {
            WITH(add(t, build_attention, flags | (form ? 0 : OP_STEPS), "attention %s dropout %d%%%s",
                     attention_cases[i].name, (int)percents[p], form ? " causal mask" : ""),
                 i, form, form ? MASK_SHARED : MASK_NONE, percents[p], MASK_HOLES);
        }
    }
}

static void add_attention_masks(table *t, int32_t i) {
    static const char *const contents[] = {"", " holes", " blind", " far"};
    for (int32_t mask = 1; mask < MASKS; mask++) {
        for (int32_t form = 0; form < 8; form++) {
            int32_t causal = form & 1, content = form / 2;
            /* across so large a range differences are not exact enough */
            int flags = attention_cases[i].flags | (content == MASK_FAR ? OP_NO_DIFFERENCE : 0);
            if (i > 0 && i != SEVERAL_TILES && (form + mask + i) % 4) {
                continue; /* every form of one case, and of one with several tiles; a quarter of the others */
            }
            WITH(add(t, build_attention, flags, "attention %s%s%s%s", attention_cases[i].name, causal ? " causal" : "",
                     mask_names[mask], contents[content]),
                 i, causal, mask, 0, content);
        }
    }
}

void add_attention(table *t) {
    for (int32_t i = 0; i < LENGTH(attention_cases); i++) {
        int flags = attention_cases[i].flags;
        for (int32_t causal = 0; causal < 2; causal++) {
            WITH(add(t, build_attention, flags, "attention %s%s", attention_cases[i].name, causal ? " causal" : ""), i,
                 causal);
        }
        add_attention_masks(t, i);
        add_attention_dropout(t, i);
    }
    for (int32_t i = 0; i <= SEVERAL_TILES; i += SEVERAL_TILES) {
        for (int32_t want = WANT_QUERY; want < WANTS; want++) {
            for (int32_t percent = 0; percent < 60; percent += 40) {
                WITH(add(t, build_attention, attention_cases[i].flags | OP_FRESH, "attention %s%s%s",
                         attention_cases[i].name, want_names[want], percent ? " dropout" : ""),
                     i, 1, want == WANT_MASK ? MASK_HEADS : MASK_NONE, percent, MASK_PLAIN, want);
            }
        }
        WITH(add(t, build_attention, attention_cases[i].flags | OP_EVAL, "attention %s dropout eval",
                 attention_cases[i].name),
             i, 0, MASK_NONE, 50);
    }
    for (int32_t form = 0; form < PACKED_FORMS; form++) {
        for (int32_t causal = 0; causal < 2; causal++) {
            WITH(add(t, build_attention_packed, form == PACKED_PIECES ? OP_LARGE : OP_FRESH, "attention packed %s%s",
                     packed_names[form], causal ? " causal" : ""),
                 form, causal);
        }
    }
    add(t, build_attention_self, 0, "attention of one tensor");
    add(t, build_attention_twice, OP_FRESH, "attention twice");
    add(t, build_attention_far, OP_NO_LOSS, "attention far scores"); /* f32 has no log-sum for the gradient */
    WITH(add(t, build_attention_scale, 0, "attention scale 0.7"), 7);
    WITH(add(t, build_attention_scale, 0, "attention scale -3"), -30);
    for (int32_t form = 0; form < 8; form++) {
        static const char *const operands[] = {"query", "key", "value", "mask"};
        WITH(add(t, build_attention_special, OP_NO_LOSS, "attention %s in a %s", form & 1 ? "infinity" : "NaN",
                 operands[form / 2]),
             form / 2, form & 1);
    }
    for (int32_t i = 0; i < LENGTH(rotary_cases); i++) {
        for (int32_t form = 0; form < 2; form++) {
            WITH(add(t, build_rotary, rotary_cases[i].flags, "rotary %s%s", rotary_cases[i].name,
                     form ? " interleaved" : ""),
                 i, form);
        }
    }
    add(t, build_rotary_in_place, 0, "rotary in place");
}
