/* Descriptions of optimizers: defaults and ranges. */
#include "optim/optim.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>

#define FTR__COOKIE_OPTIMIZER 0x6f707431u
#define FTR__COOKIE_PARAM_GROUP 0x67727031u

ftr_param_group ftr_param_group_defaults(void) {
    const double inherit = (double)NAN;
    return (ftr_param_group){.cookie = FTR__COOKIE_PARAM_GROUP,
                             .lr_scale = 1.0,
                             .weight_decay = inherit,
                             .momentum = inherit,
                             .beta1 = inherit,
                             .beta2 = inherit,
                             .eps = inherit};
}

static ftr_optimizer ftr__optimizer_of(ftr_optimizer_kind kind, double lr) {
    return (ftr_optimizer){.cookie = FTR__COOKIE_OPTIMIZER, .kind = kind, .lr = lr, .state_dtype = FTR_F32};
}

ftr_optimizer ftr_sgd(double lr) { return ftr__optimizer_of(FTR_OPTIMIZER_SGD, lr); }

ftr_optimizer ftr_adam(double lr) {
    ftr_optimizer o = ftr__optimizer_of(FTR_OPTIMIZER_ADAM, lr);
    o.beta1 = 0.9, o.beta2 = 0.999, o.eps = 1e-8;
    return o;
}

ftr_optimizer ftr_adamw(double lr) {
    ftr_optimizer o = ftr__optimizer_of(FTR_OPTIMIZER_ADAMW, lr);
    o.weight_decay = 0.01, o.beta1 = 0.9, o.beta2 = 0.999, o.eps = 1e-8;
    return o;
}

ftr_optimizer ftr_rmsprop(double lr) {
    ftr_optimizer o = ftr__optimizer_of(FTR_OPTIMIZER_RMSPROP, lr);
    o.alpha = 0.99, o.eps = 1e-8;
    return o;
}

ftr_optimizer ftr_adagrad(double lr) {
    ftr_optimizer o = ftr__optimizer_of(FTR_OPTIMIZER_ADAGRAD, lr);
    o.eps = 1e-10;
    return o;
}

ftr_optimizer ftr_lamb(double lr) {
    ftr_optimizer o = ftr__optimizer_of(FTR_OPTIMIZER_LAMB, lr);
    o.weight_decay = 0.01, o.beta1 = 0.9, o.beta2 = 0.999, o.eps = 1e-6, o.max_grad_norm = 1.0;
    return o;
}

ftr_optimizer ftr_lars(double lr) {
    ftr_optimizer o = ftr__optimizer_of(FTR_OPTIMIZER_LARS, lr);
    o.trust_coefficient = 0.001, o.eps = 1e-8;
    return o;
}

ftr_optimizer ftr_lion(double lr) {
    ftr_optimizer o = ftr__optimizer_of(FTR_OPTIMIZER_LION, lr);
    o.beta1 = 0.9, o.beta2 = 0.99;
    return o;
}

ftr_optimizer ftr_adafactor(double lr) {
    ftr_optimizer o = ftr__optimizer_of(FTR_OPTIMIZER_ADAFACTOR, lr);
    o.beta2_decay = -0.8, o.eps = 0x1p-23, o.parameter_eps = 1e-3, o.clip_threshold = 1.0;
    return o;
}

ftr_optimizer ftr_muon(double lr) {
    ftr_optimizer o = ftr__optimizer_of(FTR_OPTIMIZER_MUON, lr);
    o.weight_decay = 0.1, o.momentum = 0.95, o.nesterov = true;
    o.ns_coefficients[0] = 3.4445, o.ns_coefficients[1] = -4.775, o.ns_coefficients[2] = 2.0315;
    o.ns_eps = 1e-7, o.ns_steps = 5;
    o.beta1 = 0.9, o.beta2 = 0.999, o.eps = 1e-8, o.adamw_lr_scale = 1.0;
    return o;
}

/* -------------------------------------------------------------------------------------------------------- ranges -- */

#define FTR__KIND(name) (1u << FTR_OPTIMIZER_##name)
#define FTR__ALL_KINDS 0xffffffffu

/* low <= value < high. */
typedef struct ftr__range {
    const char *field;
    size_t offset;
    double low, high;
    uint32_t kinds; /* of optimizers that use the field */
} ftr__range;

#define FTR__OPTIMIZER_RANGE(field, low, high, kinds)                                                                  \
    { #field, offsetof(ftr_optimizer, field), low, high, kinds }

static const ftr__range ftr__optimizer_ranges[] = {
    FTR__OPTIMIZER_RANGE(lr, 0.0, HUGE_VAL, FTR__ALL_KINDS),
    FTR__OPTIMIZER_RANGE(clip_norm, 0.0, HUGE_VAL, FTR__ALL_KINDS),
    FTR__OPTIMIZER_RANGE(clip_value, 0.0, HUGE_VAL, FTR__ALL_KINDS),
    FTR__OPTIMIZER_RANGE(weight_decay, 0.0, HUGE_VAL, FTR__ALL_KINDS),
    FTR__OPTIMIZER_RANGE(momentum, 0.0, HUGE_VAL, FTR__KIND(SGD) | FTR__KIND(RMSPROP) | FTR__KIND(LARS)),
    FTR__OPTIMIZER_RANGE(momentum, 0.0, 1.0, FTR__KIND(MUON)),
    FTR__OPTIMIZER_RANGE(dampening, -HUGE_VAL, HUGE_VAL, FTR__KIND(SGD) | FTR__KIND(LARS)),
    FTR__OPTIMIZER_RANGE(beta1, 0.0, 1.0, FTR__ALL_KINDS),
    FTR__OPTIMIZER_RANGE(beta2, 0.0, 1.0, FTR__ALL_KINDS),
    FTR__OPTIMIZER_RANGE(eps, 0.0, HUGE_VAL, FTR__ALL_KINDS),
    FTR__OPTIMIZER_RANGE(alpha, 0.0, 1.0, FTR__KIND(RMSPROP)),
    FTR__OPTIMIZER_RANGE(lr_decay, 0.0, HUGE_VAL, FTR__KIND(ADAGRAD)),
    FTR__OPTIMIZER_RANGE(initial_accumulator, 0.0, HUGE_VAL, FTR__KIND(ADAGRAD)),
    FTR__OPTIMIZER_RANGE(max_grad_norm, 0.0, HUGE_VAL, FTR__KIND(LAMB)),
    FTR__OPTIMIZER_RANGE(trust_coefficient, 0.0, HUGE_VAL, FTR__KIND(LARS)),
    FTR__OPTIMIZER_RANGE(parameter_eps, 0.0, HUGE_VAL, FTR__KIND(ADAFACTOR)),
    FTR__OPTIMIZER_RANGE(clip_threshold, 1.0, HUGE_VAL, FTR__KIND(ADAFACTOR)),
    FTR__OPTIMIZER_RANGE(ns_coefficients[0], -HUGE_VAL, HUGE_VAL, FTR__KIND(MUON)),
    FTR__OPTIMIZER_RANGE(ns_coefficients[1], -HUGE_VAL, HUGE_VAL, FTR__KIND(MUON)),
    FTR__OPTIMIZER_RANGE(ns_coefficients[2], -HUGE_VAL, HUGE_VAL, FTR__KIND(MUON)),
    FTR__OPTIMIZER_RANGE(ns_eps, 0.0, HUGE_VAL, FTR__KIND(MUON)),
    FTR__OPTIMIZER_RANGE(adamw_lr_scale, 0.0, HUGE_VAL, FTR__KIND(MUON)),
};

static ftr_status ftr__range_error(ftr_context *context, const char *what, const char *field, double value, double low,
                                   double high) {
    return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "optimizer: %s%s is %g, expected at least %g and below %g",
                      what, field, value, low, high);
}

/* -HUGE_VAL is no value. */
static bool ftr__in_range(double value, double low, double high) {
    return value >= low && value < high && value > -HUGE_VAL;
}

static ftr_status ftr__check_ranges(ftr_context *context, const ftr_optimizer *o) {
    for (int32_t i = 0; i < FTR__ARRAY_LENGTH(ftr__optimizer_ranges); i++) {
        const ftr__range *r = &ftr__optimizer_ranges[i];
        const double value = *(const double *)(const void *)((const char *)o + r->offset);
        if ((r->kinds >> o->kind & 1u) && !ftr__in_range(value, r->low, r->high))
            return ftr__range_error(context, "", r->field, value, r->low, r->high);
    }
    if (o->kind == FTR_OPTIMIZER_ADAFACTOR && !(o->beta2_decay <= 0.0 && o->beta2_decay > -HUGE_VAL))
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "optimizer: beta2_decay is %g, expected a finite number of 0 or less", o->beta2_decay);
    if (o->kind == FTR_OPTIMIZER_MUON && (o->ns_steps < 1 || o->ns_steps > 99))
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "optimizer: ns_steps is %d, expected 1 to 99",
                          (int)o->ns_steps);
    if (o->kind == FTR_OPTIMIZER_MUON && ((int)o->rate < 0 || o->rate > FTR_MUON_RATE_SPECTRAL))
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "optimizer: rate is %d, expected one of ftr_muon_rate",
                          (int)o->rate);
    return FTR_OK;
}

/* A mean that moves by 1 - beta of the way falls by at most that share of itself; half of bf16's last place is 2^-8 of
 * a number just above a power of two. */
static void ftr__warn_of_stuck_moments(ftr_context *context, const ftr_optimizer *o) {
    const uint32_t moments = FTR__KIND(ADAM) | FTR__KIND(ADAMW) | FTR__KIND(LAMB) | FTR__KIND(MUON);
    const bool mean = moments >> o->kind & 1u, square = o->kind == FTR_OPTIMIZER_RMSPROP;
    const double beta = square ? o->alpha : o->beta2;
    if ((mean || square) && 1.0 - beta < 0x1p-8)
        ftr__log(
            context, FTR_LOG_WARNING,
            "optimizer: state_dtype is bf16 and %s %g: rounding keeps the second moment from falling; it falls with "
            "0.996 or less",
            square ? "alpha" : "beta2", beta);
}

static ftr_status ftr__check_state_dtype(ftr_context *context, const ftr_optimizer *o) {
    if (o->state_dtype == FTR_F32 || o->state_dtype == FTR_DTYPE_NONE) return FTR_OK;
    if (o->state_dtype != FTR_BF16)
        return ftr__error(context, FTR_ERROR_DTYPE, "optimizer: state_dtype is %s, expected f32 or bf16",
                          ftr_dtype_name(o->state_dtype));
    ftr__warn_of_stuck_moments(context, o);
    if (o->kind != FTR_OPTIMIZER_ADAFACTOR) return FTR_OK;
    return ftr__error(context, FTR_ERROR_UNSUPPORTED,
                      "optimizer: state_dtype is bf16, expected f32: Adafactor's state is not elementwise");
}

/* Nesterov's correction of a momentum that is a sum. `momentum` is the optimizer's or a group's. */
static ftr_status ftr__check_nesterov(ftr_context *context, const ftr_optimizer *o, double momentum) {
    if (!o->nesterov || (o->kind != FTR_OPTIMIZER_SGD && o->kind != FTR_OPTIMIZER_LARS)) return FTR_OK;
    if (momentum > 0.0 && o->dampening == 0.0) return FTR_OK;
    return ftr__error(
        context, FTR_ERROR_INVALID_ARGUMENT,
        "optimizer: nesterov with momentum %g and dampening %g, expected momentum above 0 and dampening 0", momentum,
        o->dampening);
}

static ftr_status ftr__check_group(const ftr_graph *graph, const ftr_optimizer *o, int32_t index) {
    ftr_context *context = graph->context;
    const ftr_param_group *group = &o->groups[index];
    if (group->cookie != FTR__COOKIE_PARAM_GROUP)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "optimizer: groups[%d] was not made by ftr_param_group_defaults()", (int)index);
    if (!group->pattern)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "optimizer: groups[%d].pattern is NULL", (int)index);
    char what[48];
    snprintf(what, sizeof what, "groups[%d].", (int)index);
    const double momentum_end = o->kind == FTR_OPTIMIZER_MUON ? 1.0 : HUGE_VAL;
    const struct {
        const char *field;
        double value, high;
    } fields[] = {{"lr_scale", group->lr_scale, HUGE_VAL},
                  {"weight_decay", group->weight_decay, HUGE_VAL},
                  {"momentum", group->momentum, momentum_end},
                  {"beta1", group->beta1, 1.0},
                  {"beta2", group->beta2, 1.0},
                  {"eps", group->eps, HUGE_VAL}};
    for (int32_t i = 0; i < FTR__ARRAY_LENGTH(fields); i++) {
        const bool inherits = i > 0 && isnan(fields[i].value);
        if (!inherits && !ftr__in_range(fields[i].value, 0.0, fields[i].high))
            return ftr__range_error(context, what, fields[i].field, fields[i].value, 0.0, fields[i].high);
    }
    if (group->kind != FTR_OPTIMIZER_NONE && (o->kind != FTR_OPTIMIZER_MUON || group->kind != FTR_OPTIMIZER_ADAMW))
        return ftr__error(
            context, FTR_ERROR_INVALID_ARGUMENT,
            "optimizer: %skind is %d, expected FTR_OPTIMIZER_NONE, or FTR_OPTIMIZER_ADAMW under ftr_muon()", what,
            (int)group->kind);
    int32_t parameters = 0, matches = 0;
    for (int32_t i = 0; i < graph->variable_count; i++) {
        if (!graph->variables[i].trainable) continue;
        parameters++;
        const int32_t node = graph->values[graph->variables[i].value].node;
        matches += ftr__glob_match(group->pattern, graph->nodes[node].name);
    }
    if (matches == 0)
        return ftr__error(context, FTR_ERROR_NAME,
                          "optimizer: groups[%d].pattern '%.100s' fits none of the graph's %d parameters", (int)index,
                          group->pattern, (int)parameters);
    return isnan(group->momentum) ? FTR_OK : ftr__check_nesterov(context, o, group->momentum);
}

ftr_status ftr__optimizer_check(const ftr_graph *graph, const ftr_optimizer *o) {
    ftr_context *context = graph->context;
    if (o->cookie != FTR__COOKIE_OPTIMIZER)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "optimizer: the description was not made by ftr_sgd(), ftr_adamw() or another of them");
    if (o->kind <= FTR_OPTIMIZER_NONE || o->kind > FTR_OPTIMIZER_MUON)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "optimizer: kind is %d, expected one of ftr_optimizer_kind", (int)o->kind);
    ftr_status status = ftr__check_ranges(context, o);
    if (!status) status = ftr__check_state_dtype(context, o);
    if (!status) status = ftr__check_nesterov(context, o, o->momentum);
    if (!status && o->kind == FTR_OPTIMIZER_LAMB && o->max_grad_norm > 0.0 && o->clip_value > 0.0)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "optimizer: max_grad_norm is %g and clip_value is %g, expected one of them to be 0 (off)",
                          o->max_grad_norm, o->clip_value);
    if (!status && (o->group_count < 0 || (o->group_count > 0 && !o->groups)))
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "optimizer: groups is %s with a group_count of %d",
                          o->groups ? "given" : "NULL", (int)o->group_count);
    for (int32_t i = 0; i < o->group_count && !status; i++) status = ftr__check_group(graph, o, i);
    return status;
}
