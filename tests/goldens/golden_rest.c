/* Ops of rest.safetensors. */
#include "golden_cases.h"

static ftr_tensor build_stochastic_depth(golden_case *c) {
    c->mode = golden_i64(c, "training", 0) ? FTR_MODE_TRAIN : FTR_MODE_EVAL;
    return ftr_stochastic_depth(golden_in(c, "x"), golden_f64(c, "p", 0));
}

/* The equation is an attribute of character codes. */
static ftr_tensor build_einsum(golden_case *c) {
    char equation[64] = "";
    ftr_safetensors_entry entry = golden_get(c, "equation");
    for (int64_t i = 0; i < (int64_t)(entry.bytes / sizeof(int64_t)); i++) {
        equation[i] = (char)golden_i64(c, "equation", i);
    }
    ftr_tensor a = golden_in(c, "a");
    return ftr_einsum(equation, a, golden_in_if_there(c, "b"));
}

static const golden_op ops[] = {
    {"einsum", build_einsum},
    {"stochastic_depth", build_stochastic_depth},
};

const golden_family golden_rest = {ops, FTR_TEST_LENGTH(ops)};
