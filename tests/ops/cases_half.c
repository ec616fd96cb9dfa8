#include "case_tools.h"

/* Casts between f16, bf16 and all other types, scalars beside tensors of a half type, loss scaling and clipping. That every
 * other case runs in f16 and bf16 as well is the mode "half" of test_ops.c. */

static const ftr_dtype halves[] = {FTR_F16, FTR_BF16};
static const char *const half_names[] = {"f16", "bf16"};

/* p: half type, other type (of all_types; 5 and 6: the half types), from the half type, special values */
static void build_half_cast(op_build *b) {
    const int32_t *p = b->of->p;
    ftr_dtype half = halves[p[0]], other = p[1] < 5 ? type_of(b, p[1]) : halves[p[1] - 5];
    ftr_shape shape = p[3] ? FTR_SHAPE(27) : FTR_SHAPE(3, 17);
    ftr_tensor x;
    if (p[2] || is_real(other)) {
        ftr_dtype from = p[2] ? half : other;
        x = declare(b, from, shape, p[3] ? FILL_SPECIAL : FILL_UNIFORM, -300, 600)->tensor;
    } else {
        x = integer_input(b, other, shape, other == FTR_BOOL || other == FTR_U8 ? 0 : -70000,
                          other == FTR_BOOL ? 1
                          : other == FTR_U8 ? 255
                                            : 70000);
    }
    output(b, ftr_cast(x, p[2] ? other : half));
}

/* Results that both types hold exactly. p: half type */
static void build_half_scalars(op_build *b) {
    ftr_dtype half = halves[b->of->p[0]];
    ftr_tensor x = ftr_cast(integer_input(b, FTR_I32, FTR_SHAPE(4, 9), -8, 8), half);
    ftr_tensor three = ftr_scalar(b->graph, FTR_F32, 3), quarter = ftr_scalar(b->graph, FTR_F32, 0.25);
    output(b, ftr_add(ftr_mul(three, x), ftr_div(x, ftr_scalar(b->graph, FTR_F32, 4))));
    output(b, ftr_maximum(quarter, ftr_sub(x, quarter)));
    output(b, ftr_where(ftr_le(x, three), three, x));
    output(b, ftr_where(ftr_ne(quarter, x), x, quarter));
}

/* p: AdamW, clipping (in eighths; 0: none), loss scaling, first scale (a power of 2), large */
static void build_scaled_step(op_build *b) {
    const int32_t *p = b->of->p;
    b->optimizer = p[0] ? ftr_adamw(0.02f) : ftr_sgd(0.05f);
    b->optimizer.clip_norm = p[1] / 8.0;
    b->optimize = true;
    b->scaler = ftr_scaler_defaults();
    b->scaler.scaling = (ftr_scaling)p[2];
    b->scaler.init_scale = ldexp(1, p[3]);
    b->scaler.growth_interval = 2;
    int64_t in = p[4] ? 300 : 5, hidden = p[4] ? 250 : 9;
    ftr_linear_desc no_bias = {.no_bias = true}; /* its gradient would be 0, and AdamW would divide noise by noise */
    ftr_tensor h = ftr_linear(uniform_input(b, FTR_SHAPE(7, in)), "fc1", hidden, &no_bias);
    h = ftr_batch_norm(h, "bn", NULL); /* its statistics wait for finite gradients */
    output(b, ftr_linear(ftr_tanh(h), "fc2", 3, NULL));
}

void add_half(table *t) {
    for (int32_t i = 0; i < 2; i++) {
        for (int32_t k = 0; k < 7; k++) {
            const char *other = k < 5 ? type_name(k) : half_names[k - 5];
            int flags = OP_NO_DIFFERENCE | OP_NO_LOSS;
            WITH(add(t, build_half_cast, flags, "cast %s to %s", half_names[i], other), i, k, 1, 0);
            WITH(add(t, build_half_cast, flags | OP_EACH, "cast %s to %s special values", half_names[i], other), i, k,
                 1, 1);
            WITH(add(t, build_half_cast, flags, "cast %s to %s from it", other, half_names[i]), i, k, 0, 0);
            if (k == 0 || k > 4) {
                WITH(add(t, build_half_cast, flags | OP_EACH, "cast %s to %s special values from it", other,
                         half_names[i]),
                     i, k, 0, 1);
            }
        }
        WITH(add(t, build_half_scalars, OP_NO_LOSS, "f32 scalars beside %s", half_names[i]), i);
    }
    static const struct {
        const char *name;
        int32_t p[5];
    } steps[] = {
        {"sgd clip_norm", {0, 2, FTR_SCALING_AUTO, 0, 0}},
        {"sgd clip_norm far", {0, 8000, FTR_SCALING_AUTO, 0, 0}},
        {"adamw clip_norm", {1, 3, FTR_SCALING_AUTO, 0, 0}},
        {"sgd scaled", {0, 0, FTR_SCALING_DYNAMIC, 10, 0}},
        {"sgd scale fixed", {0, 0, FTR_SCALING_FIXED, -3, 0}},
        {"adamw scaled clip_norm", {1, 2, FTR_SCALING_DYNAMIC, 16, 0}},
        {"sgd scaled large", {0, 2, FTR_SCALING_DYNAMIC, 8, 1}},
    };
    for (int32_t i = 0; i < LENGTH(steps); i++) {
        const int32_t *p = steps[i].p;
        WITH(add(t, build_scaled_step, OP_STEPS | OP_NO_DIFFERENCE | (p[4] ? OP_LARGE : 0), "%s", steps[i].name), p[0],
             p[1], p[2], p[3], p[4]);
    }
}
