/* Ops of rest.safetensors. */
#include "golden_cases.h"

static ftr_tensor build_stochastic_depth(golden_case *c) {
    c->mode = golden_i64(c, "training", 0) ? FTR_MODE_TRAIN : FTR_MODE_EVAL;
    return ftr_stochastic_depth(golden_in(c, "x"), golden_f64(c, "p", 0));
}

static const golden_op ops[] = {
    {"stochastic_depth", build_stochastic_depth},
};

const golden_family golden_rest = {ops, FTR_TEST_LENGTH(ops)};
