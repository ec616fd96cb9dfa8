/* Ops of mix.safetensors: torchvision's MixUp and CutMix with given parameters, cross entropy of class probabilities. */
#include "golden_cases.h"

static ftr_mix golden_mixing(golden_case *c) {
    ftr_mix mix = {.weights = golden_in(c, "weights"), .partners = golden_in(c, "partners")};
    mix.box = golden_in_if_there(c, "box");
    return mix;
}

static ftr_tensor build_mix_images(golden_case *c) {
    ftr_tensor x = golden_in(c, "x");
    return ftr_mix_images(x, golden_mixing(c));
}

static ftr_tensor build_mix_targets(golden_case *c) {
    ftr_tensor x = golden_in(c, "x");
    return ftr_mix_targets(x, golden_mixing(c));
}

static ftr_tensor build_cross_entropy_soft(golden_case *c) {
    ftr_cross_entropy_desc desc = ftr_cross_entropy_defaults();
    desc.label_smoothing = golden_f64(c, "label_smoothing", 0);
    desc.reduction = (ftr_reduction)golden_i64(c, "reduction", 0);
    ftr_tensor x = golden_in(c, "x"), target = golden_in(c, "target");
    desc.class_weights = golden_in_if_there(c, "class_weights");
    return ftr_cross_entropy(x, target, &desc);
}

static const golden_op ops[] = {
    {"mix_images", build_mix_images},
    {"mix_targets", build_mix_targets},
    {"cross_entropy_soft", build_cross_entropy_soft},
};

const golden_family golden_mix = {ops, FTR_TEST_LENGTH(ops)};
