/* Steps of optimizers: three of them, on networks whose parameters have several shapes. Parameters and the
 * optimizer's state are compared. */
#include "case_tools.h"

typedef void (*adjust)(ftr_optimizer *o);

static void momentum(ftr_optimizer *o) { o->momentum = 0.875; }
static void nesterov(ftr_optimizer *o) { o->momentum = 0.875, o->nesterov = true; }
static void decay(ftr_optimizer *o) { o->weight_decay = 0.125; }
static void dampening(ftr_optimizer *o) { o->momentum = 0.875, o->dampening = 0.25; }
static void all_of_sgd(ftr_optimizer *o) { nesterov(o), decay(o); }
static void no_decay(ftr_optimizer *o) { o->weight_decay = 0; }
static void betas(ftr_optimizer *o) { o->beta1 = 0.5, o->beta2 = 0.75, o->eps = 0.01; }
static void amsgrad(ftr_optimizer *o) { betas(o), o->amsgrad = true, o->weight_decay = 0.125; }
static void clipped(ftr_optimizer *o) { o->clip_value = 0.0625; }
static void centered(ftr_optimizer *o) { o->centered = true, o->alpha = 0.5; }
static void both(ftr_optimizer *o) { momentum(o), centered(o), decay(o), o->eps = 0.01; }
static void adagrad_all(ftr_optimizer *o) { decay(o), o->lr_decay = 0.5, o->initial_accumulator = 0.25; }
static void norm_limit(ftr_optimizer *o) { o->max_grad_norm = 0.125; }
static void no_norm_limit(ftr_optimizer *o) { o->max_grad_norm = 0, o->trust_clip = true; }
static void adapt(ftr_optimizer *o) { no_decay(o), o->always_adapt = true; }
static void lars_decay(ftr_optimizer *o) { decay(o), o->trust_coefficient = 0.5; }
static void lars_all(ftr_optimizer *o) { nesterov(o), lars_decay(o), o->trust_clip = true; }
static void lars_dampening(ftr_optimizer *o) { dampening(o), adapt(o); }
static void adafactor_all(ftr_optimizer *o) { decay(o), o->clip_threshold = 1.25, o->beta2_decay = -0.5; }
static void adafactor_large(ftr_optimizer *o) { o->lr = 2, o->parameter_eps = 0.5, o->eps = 0.01; }
static void muon_plain(ftr_optimizer *o) {
    o->nesterov = false, o->ns_steps = 3, o->rate = FTR_MUON_RATE_MATCH_RMS_ADAMW;
}
static void muon_spectral(ftr_optimizer *o) { o->rate = FTR_MUON_RATE_SPECTRAL, o->adamw_lr_scale = 0.25; }
static void no_norm_decay(ftr_optimizer *o) { decay(o), o->no_decay_norms_biases = true; }

static const struct {
    const char *name;
    ftr_optimizer (*make)(double lr);
    double lr;
    adjust adjust;
} optimizers[] = {
    {"sgd", ftr_sgd, 0.05, NULL},
    {"sgd momentum", ftr_sgd, 0.05, momentum},
    {"sgd nesterov", ftr_sgd, 0.05, nesterov},
    {"sgd weight decay", ftr_sgd, 0.05, decay},
    {"sgd dampening", ftr_sgd, 0.05, dampening},
    {"sgd all of it", ftr_sgd, 0.05, all_of_sgd},
    {"sgd clip", ftr_sgd, 0.05, clipped},
    {"adamw", ftr_adamw, 0.02, NULL},
    {"adamw no decay", ftr_adamw, 0.02, no_decay},
    {"adamw betas", ftr_adamw, 0.02, betas},
    {"adamw amsgrad", ftr_adamw, 0.02, amsgrad},
    {"adamw clip", ftr_adamw, 0.02, clipped},
    {"adamw no norm decay", ftr_adamw, 0.02, no_norm_decay},
    {"adam", ftr_adam, 0.02, NULL},
    {"adam decay", ftr_adam, 0.02, decay},
    {"adam amsgrad", ftr_adam, 0.02, amsgrad},
    {"rmsprop", ftr_rmsprop, 0.02, NULL},
    {"rmsprop momentum", ftr_rmsprop, 0.02, momentum},
    {"rmsprop centered", ftr_rmsprop, 0.02, centered},
    {"rmsprop both", ftr_rmsprop, 0.02, both},
    {"adagrad", ftr_adagrad, 0.05, NULL},
    {"adagrad all of it", ftr_adagrad, 0.05, adagrad_all},
    {"lamb", ftr_lamb, 0.05, NULL},
    {"lamb norm limit", ftr_lamb, 0.05, norm_limit},
    {"lamb no norm limit", ftr_lamb, 0.05, no_norm_limit},
    {"lamb no decay", ftr_lamb, 0.05, no_decay},
    {"lamb always adapt", ftr_lamb, 0.05, adapt},
    {"lars", ftr_lars, 0.05, NULL},
    {"lars decay", ftr_lars, 0.5, lars_decay},
    {"lars all of it", ftr_lars, 0.5, lars_all},
    {"lars dampening", ftr_lars, 0.5, lars_dampening},
    {"lion", ftr_lion, 0.01, NULL},
    {"lion decay", ftr_lion, 0.01, decay},
    {"adafactor", ftr_adafactor, 0.05, NULL},
    {"adafactor all of it", ftr_adafactor, 0.05, adafactor_all},
    {"adafactor large rate", ftr_adafactor, 0.05, adafactor_large},
    {"muon", ftr_muon, 0.05, NULL},
    {"muon plain", ftr_muon, 0.05, muon_plain},
    {"muon spectral", ftr_muon, 0.05, muon_spectral},
};

static const char *const networks[] = {"", " conv", " shapes", " large"};
enum { FEW, CONV, MANY, LARGE };

/* The sum of p * x, x being an input: x is p's gradient but for a factor. Steps divide by small gradients, so those
 * should not be small by cancellation. */
static ftr_tensor product(op_build *b, const char *name, ftr_shape shape) {
    ftr_tensor p = ftr_parameter(b->graph, name, wide_type(b), shape, (ftr_init){FTR_INIT_NORMAL, 0, 0.5});
    return ftr_sum(ftr_mul(as_real(b, p), fixed_input(b, shape, FILL_UNIFORM, -1, 1)), ftr_all_axes(), false);
}

/* The sum of products of a list of shapes. */
static ftr_tensor products(op_build *b, const ftr_shape *shapes, int32_t count) {
    ftr_tensor sum = {NULL, 0};
    for (int32_t i = 0; i < count; i++) {
        char name[8];
        snprintf(name, sizeof name, "p%d", (int)i);
        ftr_tensor one = product(b, name, shapes[i]);
        sum = i > 0 ? ftr_add(sum, one) : one;
    }
    return sum;
}

/* A network with parameters of a kind. The parameter q, which is a factor of all gradients, makes them change from step
 * to step. */
static ftr_tensor network(op_build *b, int32_t kind) {
    static const ftr_shape few[] = {{2, {7, 5}}, {1, {11}}, {2, {3, 18}}};
    static const ftr_shape many[] = {{0, {0}},
                                     {1, {19}},
                                     {2, {1, 5}},
                                     {2, {7, 1}},
                                     {3, {2, 3, 17}},
                                     {4, {2, 1, 4, 3}},
                                     {5, {2, 2, 1, 3, 5}},
                                     {2, {0, 4}},
                                     {6, {1, 2, 1, 2, 2, 3}}};
    static const ftr_shape large[] = {{2, {301, 233}}, {1, {20001}}, {2, {70, 600}}, {4, {70, 3, 3, 33}}, {1, {3}}};
    if (kind == LARGE) { /* the gradient of q would be a sum of much that cancels */
        output(b, ftr_conv2d(fixed_input(b, FTR_SHAPE(1, 3, 3, 40), FILL_UNIFORM, -1, 1), "conv", 70, 3, NULL));
        return products(b, large, LENGTH(large));
    }
    ftr_init quarter = {FTR_INIT_CONSTANT, 0.25, 0};
    ftr_tensor q = as_real(b, ftr_parameter(b->graph, "q", wide_type(b), ftr_scalar_shape(), quarter));
    q = ftr_add(ftr_tanh(q), ftr_scalar(b->graph, b->real, 1.5));
    if (kind == CONV) {
        ftr_tensor h = ftr_conv2d(fixed_input(b, FTR_SHAPE(1, 3, 4, 3), FILL_UNIFORM, -1, 1), "conv1", 8, 3, NULL);
        ftr_tensor y = ftr_conv2d(fixed_input(b, FTR_SHAPE(1, 3, 2, 4), FILL_UNIFORM, -1, 1), "conv2", 5, 1, NULL);
        output(b, ftr_mul(h, q));
        return ftr_mul(y, q);
    }
    return ftr_mul(q, kind == FEW ? products(b, few, LENGTH(few)) : products(b, many, LENGTH(many)));
}

/* p: optimizer, network */
static void build_optimizer(op_build *b) {
    const int32_t *p = b->of->p;
    b->optimizer = optimizers[p[0]].make(optimizers[p[0]].lr);
    b->optimize = true;
    if (optimizers[p[0]].adjust) {
        optimizers[p[0]].adjust(&b->optimizer);
    }
    output(b, network(b, p[1]));
}

/* Groups: each of their fields, the first that fits, and one optimizer's step in several nodes. p: optimizer */
static void build_groups(op_build *b) {
    static ftr_param_group groups[3];
    for (int32_t i = 0; i < LENGTH(groups); i++) {
        groups[i] = ftr_param_group_defaults();
    }
    groups[0].pattern = "fc1.bias", groups[0].lr_scale = 0.5, groups[0].weight_decay = 0.25, groups[0].momentum = 0;
    groups[1].pattern = "fc?.*", groups[1].lr_scale = 2, groups[1].beta1 = 0.75, groups[1].beta2 = 0.5;
    groups[2].pattern = "*bias", groups[2].lr_scale = 0, groups[2].eps = 0.125;
    b->optimizer = optimizers[b->of->p[0]].make(optimizers[b->of->p[0]].lr);
    b->optimizer.groups = groups;
    b->optimizer.group_count = LENGTH(groups);
    b->optimize = true;
    ftr_tensor sum = ftr_add(product(b, "fc1.weight", FTR_SHAPE(9, 5)), product(b, "fc1.bias", FTR_SHAPE(9)));
    sum = ftr_add(sum, ftr_add(product(b, "fc2.weight", FTR_SHAPE(4, 9)), product(b, "fc2.bias", FTR_SHAPE(4))));
    output(b, ftr_add(sum, ftr_add(product(b, "head.weight", FTR_SHAPE(3, 4)), product(b, "head.bias", FTR_SHAPE(3)))));
}

/* Muon's groups of matrices that AdamW trains. */
static void build_muon_groups(op_build *b) {
    static ftr_param_group head;
    head = ftr_param_group_defaults();
    head.pattern = "head.*", head.kind = FTR_OPTIMIZER_ADAMW, head.weight_decay = 0;
    b->optimizer = ftr_muon(0.05);
    b->optimizer.groups = &head;
    b->optimizer.group_count = 1;
    b->optimize = true;
    output(b, ftr_add(product(b, "fc1.weight", FTR_SHAPE(9, 5)), product(b, "head.weight", FTR_SHAPE(3, 9))));
}

void add_updates(table *t) {
    for (int32_t i = 0; i < LENGTH(optimizers); i++) {
        for (int32_t n = 0; n < LENGTH(networks); n++) {
            int flags = OP_STEPS | (n == LARGE ? OP_LARGE : OP_NO_DIFFERENCE);
            WITH(add(t, build_optimizer, flags, "%s%s", optimizers[i].name, networks[n]), i, n);
        }
        if (i % 3 == 0) {
            WITH(add(t, build_groups, OP_STEPS | OP_NO_DIFFERENCE, "%s groups", optimizers[i].name), i);
        }
    }
    add(t, build_muon_groups, OP_STEPS | OP_NO_DIFFERENCE, "muon groups of adamw");
}
