#include "optimizer_cases.h"

#include <stdlib.h>
#include <string.h>

const optimizer_parameter optimizer_parameters[OPTIMIZER_PARAMETERS] = {
    {"scalar", {0, {0}}},   {"norm.weight", {1, {7}}},          {"fc.weight", {2, {13, 10}}},
    {"fc.bias", {1, {13}}}, {"conv.weight", {4, {6, 3, 3, 4}}}, {"tall.weight", {2, {23, 6}}}};

float optimizer_number(int tensor, int step, int64_t i) {
    uint32_t h = (uint32_t)i * 2654435769u + (uint32_t)tensor * 40503u + (uint32_t)step * 2246822519u;
    h = (h ^ h >> 16) * 2146121005u;
    h = (h ^ h >> 15) * 2221713035u;
    h ^= h >> 16;
    return (float)(h >> 8) / 8388608.0f - 1.0f;
}

static ftr_param_group groups[2];

/* What "... groups" has in make_optimizers.py. */
static void with_groups(ftr_optimizer *o) {
    groups[0] = groups[1] = ftr_param_group_defaults();
    groups[0].pattern = "fc.*", groups[0].lr_scale = 0.1, groups[0].weight_decay = 0.2;
    groups[1].pattern = "*.bias", groups[1].weight_decay = 7; /* shadowed by the first */
    o->no_decay_norms_biases = true;
    o->groups = groups;
    o->group_count = 2;
}

static void sgd_momentum(ftr_optimizer *o) { o->momentum = 0.9, o->dampening = 0.25, o->weight_decay = 0.01; }
static void sgd_nesterov(ftr_optimizer *o) { o->momentum = 0.95, o->nesterov = true, o->weight_decay = 5e-4; }
static void adam_decay(ftr_optimizer *o) { o->beta1 = 0.8, o->beta2 = 0.95, o->eps = 1e-6, o->weight_decay = 0.1; }
static void adam_amsgrad(ftr_optimizer *o) { o->beta2 = 0.9, o->amsgrad = true, o->weight_decay = 0.01; }
static void adamw_amsgrad(ftr_optimizer *o) { o->beta2 = 0.9, o->amsgrad = true, o->weight_decay = 0.1; }
static void rms_momentum(ftr_optimizer *o) { o->alpha = 0.9, o->momentum = 0.9, o->weight_decay = 0.01; }
static void rms_centered(ftr_optimizer *o) { o->alpha = 0.95, o->centered = true; }
static void rms_both(ftr_optimizer *o) { o->eps = 1e-4, o->momentum = 0.5, o->centered = true; }
static void rms_skip(ftr_optimizer *o) { o->alpha = 0.9, o->momentum = 0.9, o->centered = true; }
static void adagrad_skip(ftr_optimizer *o) { o->lr_decay = 0.01, o->initial_accumulator = 0.1; }
static void adagrad_all(ftr_optimizer *o) { adagrad_skip(o), o->weight_decay = 0.01, o->eps = 1e-6; }
static void lamb_free(ftr_optimizer *o) { o->max_grad_norm = 0, o->beta1 = 0.8, o->beta2 = 0.95, o->trust_clip = true; }
static void lamb_always(ftr_optimizer *o) { o->weight_decay = 0, o->always_adapt = true, o->max_grad_norm = 0.5; }
static void lars_plain(ftr_optimizer *o) { o->momentum = 0.9, o->weight_decay = 1e-2; }
static void lars_nesterov(ftr_optimizer *o) { lars_plain(o), o->nesterov = o->trust_clip = true; }
static void lars_always(ftr_optimizer *o) {
    o->momentum = 0.5, o->dampening = 0.5, o->trust_coefficient = 0.02, o->always_adapt = true;
}
static void lion_decay(ftr_optimizer *o) { o->beta1 = 0.95, o->beta2 = 0.98, o->weight_decay = 0.1; }
static void lion_skip(ftr_optimizer *o) { o->weight_decay = 0.1; }
static void adafactor_decay(ftr_optimizer *o) {
    o->beta2_decay = -0.5, o->eps = 1e-4, o->parameter_eps = 1e-2, o->clip_threshold = 1.5, o->weight_decay = 0.01;
}
static void muon_plain(ftr_optimizer *o) {
    o->momentum = 0.9, o->nesterov = false, o->weight_decay = 0.01, o->rate = FTR_MUON_RATE_MATCH_RMS_ADAMW;
}
static void muon_spectral(ftr_optimizer *o) {
    o->ns_coefficients[0] = 3.0, o->ns_coefficients[1] = -3.2, o->ns_coefficients[2] = 1.2;
    o->ns_steps = 4, o->rate = FTR_MUON_RATE_SPECTRAL;
}
static void sgd_groups(ftr_optimizer *o) { with_groups(o), o->momentum = 0.9, o->weight_decay = 0.01; }
static void decay_groups(ftr_optimizer *o) { with_groups(o), o->weight_decay = 0.05; }
static void muon_groups(ftr_optimizer *o) {
    groups[0] = ftr_param_group_defaults();
    groups[0].pattern = "tall.weight", groups[0].kind = FTR_OPTIMIZER_ADAMW;
    o->adamw_lr_scale = 0.5, o->groups = groups, o->group_count = 1;
}
static void momentum(ftr_optimizer *o) { o->momentum = 0.9; }
static void sgd_skip(ftr_optimizer *o) { o->momentum = 0.9, o->dampening = 0.25; }
static void sgd_bf16(ftr_optimizer *o) { o->momentum = 0.9, o->nesterov = true, o->weight_decay = 0.01; }
static void beta2_98(ftr_optimizer *o) { o->beta2 = 0.98; }
static void rms_bf16(ftr_optimizer *o) { o->alpha = 0.9, o->eps = 1e-4, o->momentum = 0.5, o->centered = true; }
static void nothing(ftr_optimizer *o) { (void)o; }

const optimizer_case optimizer_cases[OPTIMIZER_CASES] = {
    {"sgd", ftr_sgd, 0.05, nothing},
    {"sgd momentum", ftr_sgd, 0.02, sgd_momentum},
    {"sgd nesterov", ftr_sgd, 0.01, sgd_nesterov},
    {"adam", ftr_adam, 1e-3, nothing},
    {"adam decay", ftr_adam, 1e-2, adam_decay},
    {"adam amsgrad", ftr_adam, 3e-3, adam_amsgrad},
    {"adamw", ftr_adamw, 1e-3, nothing},
    {"adamw amsgrad", ftr_adamw, 1e-2, adamw_amsgrad},
    {"rmsprop", ftr_rmsprop, 1e-3, nothing},
    {"rmsprop momentum", ftr_rmsprop, 1e-3, rms_momentum},
    {"rmsprop centered", ftr_rmsprop, 1e-3, rms_centered},
    {"rmsprop both", ftr_rmsprop, 1e-3, rms_both},
    {"adagrad", ftr_adagrad, 1e-2, nothing},
    {"adagrad all", ftr_adagrad, 0.05, adagrad_all},
    {"lamb", ftr_lamb, 1e-2, nothing},
    {"lamb no limit", ftr_lamb, 1e-2, lamb_free},
    {"lamb always", ftr_lamb, 5e-3, lamb_always},
    {"lars", ftr_lars, 1.0, lars_plain},
    {"lars nesterov", ftr_lars, 0.5, lars_nesterov},
    {"lars always", ftr_lars, 0.5, lars_always},
    {"lion", ftr_lion, 1e-3, nothing},
    {"lion decay", ftr_lion, 1e-3, lion_decay},
    {"adafactor", ftr_adafactor, 1e-2, nothing},
    {"adafactor decay", ftr_adafactor, 0.2, adafactor_decay},
    {"muon", ftr_muon, 0.02, nothing},
    {"muon adamw rate", ftr_muon, 3e-3, muon_plain},
    {"muon spectral", ftr_muon, 0.02, muon_spectral},
    {"sgd groups", ftr_sgd, 0.05, sgd_groups},
    {"adamw groups", ftr_adamw, 1e-2, decay_groups},
    {"lamb groups", ftr_lamb, 1e-2, decay_groups},
    {"adafactor groups", ftr_adafactor, 1e-2, decay_groups},
    {"muon groups", ftr_muon, 0.02, muon_groups},
    {"sgd clip 0.01", ftr_sgd, 0.05, momentum},
    {"adam clip 0.02", ftr_adam, 1e-3, nothing},
    {"lars clip 0.01", ftr_lars, 1.0, lars_plain},
    {"lion clip 0.01", ftr_lion, 1e-3, nothing},
    {"adafactor clip 0.01", ftr_adafactor, 1e-2, nothing},
    {"muon clip 0.01", ftr_muon, 0.02, nothing},
    {"sgd skip", ftr_sgd, 0.02, sgd_skip},
    {"adamw skip", ftr_adamw, 1e-3, nothing},
    {"rmsprop skip", ftr_rmsprop, 1e-3, rms_skip},
    {"adagrad skip", ftr_adagrad, 0.05, adagrad_skip},
    {"lamb skip", ftr_lamb, 1e-2, nothing},
    {"lars skip", ftr_lars, 1.0, lars_plain},
    {"lion skip", ftr_lion, 1e-3, lion_skip},
    {"adafactor skip", ftr_adafactor, 1e-2, nothing},
    {"muon skip", ftr_muon, 0.02, nothing},
    {"sgd bf16", ftr_sgd, 0.02, sgd_bf16},
    {"adam bf16", ftr_adam, 3e-3, adam_amsgrad},
    {"adamw bf16", ftr_adamw, 1e-3, beta2_98},
    {"rmsprop bf16", ftr_rmsprop, 1e-3, rms_bf16},
    {"adagrad bf16", ftr_adagrad, 1e-2, nothing},
    {"lamb bf16", ftr_lamb, 1e-2, beta2_98},
    {"lars bf16", ftr_lars, 1.0, lars_plain},
    {"lion bf16", ftr_lion, 1e-3, nothing},
    {"muon bf16", ftr_muon, 0.02, nothing},
};

bool optimizer_case_is_bf16(const optimizer_case *c) { return strstr(c->name, "bf16") != NULL; }

ftr_optimizer optimizer_of_case(const optimizer_case *c) {
    ftr_optimizer o = c->make(c->lr);
    c->adjust(&o);
    const char *clip = strstr(c->name, "clip ");
    o.clip_value = clip ? strtod(clip + 5, NULL) : 0;
    o.state_dtype = optimizer_case_is_bf16(c) ? FTR_BF16 : FTR_F32;
    return o;
}
