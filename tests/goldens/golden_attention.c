/* Ops of attention.safetensors. */
#include "golden_cases.h"

static ftr_tensor build_attention(golden_case *c) {
    ftr_attention_desc desc = ftr_attention_defaults();
    desc.causal = golden_i64(c, "causal", 0) != 0;
    desc.scale = golden_f64(c, "scale", 0);
    ftr_tensor query = golden_in(c, "query"), key = golden_in(c, "key"), value = golden_in(c, "value");
    desc.mask = golden_in_if_there(c, "mask");
    return ftr_attention(query, key, value, &desc);
}

static ftr_tensor build_rotary(golden_case *c) {
    ftr_rotary_desc desc = ftr_rotary_defaults();
    desc.base = golden_f64(c, "base", 0);
    desc.first = golden_i64(c, "first", 0);
    desc.dims = (int32_t)golden_i64(c, "dims", 0);
    desc.interleaved = golden_i64(c, "interleaved", 0) != 0;
    return ftr_rotary(golden_in(c, "x"), &desc);
}

static const golden_op ops[] = {{"attention", build_attention}, {"rotary", build_rotary}};

const golden_family golden_attention = {ops, FTR_TEST_LENGTH(ops)};
