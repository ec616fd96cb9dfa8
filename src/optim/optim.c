#include "optim/optim.h"

#include <math.h>
#include <stdio.h>

#define FTR__COOKIE_OPTIMIZER 0x6f707431u

ftr_optimizer ftr_sgd(double lr) {
    const ftr_optimizer sgd = {.cookie = FTR__COOKIE_OPTIMIZER, .kind = FTR_OPTIMIZER_SGD, .lr = lr};
    return sgd;
}

ftr_optimizer ftr_adamw(double lr) {
    const ftr_optimizer adamw = {.cookie = FTR__COOKIE_OPTIMIZER,
                                 .kind = FTR_OPTIMIZER_ADAMW,
                                 .lr = lr,
                                 .weight_decay = 0.01,
                                 .beta1 = 0.9,
                                 .beta2 = 0.999,
                                 .eps = 1e-8};
    return adamw;
}

typedef struct ftr__range {
    const char *field;
    double value, low, high; /* low <= value < high */
} ftr__range;

ftr_status ftr__optimizer_check(ftr_context *context, const ftr_optimizer *o) {
    if (o->cookie != FTR__COOKIE_OPTIMIZER)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "optimizer: the description was not made by ftr_sgd() or ftr_adamw()");
    if (o->kind != FTR_OPTIMIZER_SGD && o->kind != FTR_OPTIMIZER_ADAMW)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "optimizer: kind is %d, expected one of ftr_optimizer_kind", (int)o->kind);
    const ftr__range ranges[] = {{"lr", o->lr, 0.0, HUGE_VAL},
                                 {"clip_value", o->clip_value, 0.0, HUGE_VAL},
                                 {"weight_decay", o->weight_decay, 0.0, HUGE_VAL},
                                 {"momentum", o->momentum, 0.0, HUGE_VAL},
                                 {"dampening", o->dampening, -HUGE_VAL, HUGE_VAL},
                                 {"beta1", o->beta1, 0.0, 1.0},
                                 {"beta2", o->beta2, 0.0, 1.0},
                                 {"eps", o->eps, 0.0, HUGE_VAL}};
    for (int32_t i = 0; i < FTR__ARRAY_LENGTH(ranges); i++) {
        const ftr__range *r = &ranges[i];
        if (!(r->value >= r->low && r->value < r->high))
            return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                              "optimizer: %s is %g, expected at least %g and below %g", r->field, r->value, r->low,
                              r->high);
    }
    if (o->nesterov && (o->momentum <= 0.0 || o->dampening != 0.0))
        return ftr__error(
            context, FTR_ERROR_INVALID_ARGUMENT,
            "optimizer: nesterov with momentum %g and dampening %g, expected momentum above 0 and dampening 0",
            o->momentum, o->dampening);
    return FTR_OK;
}

static ftr_tensor ftr__handle(ftr_graph *graph, int32_t value) {
    return value ? (ftr_tensor){graph, value} : (ftr_tensor){NULL, 0};
}

static ftr_tensor ftr__optimizer_state(ftr_graph *graph, int32_t parameter, const char *what) {
    const ftr__value value = graph->values[parameter];
    char name[320];
    snprintf(name, sizeof name, "%.250s.%s", graph->nodes[value.node].name, what);
    return ftr__add_source(graph, FTR_OP_buffer, name, value.dtype, value.shape);
}

ftr_status ftr__optimizer_emit(ftr_graph *graph, ftr__arena *arena, const ftr_optimizer *o, const ftr__trained *trained,
                               int32_t *lr) {
    static const char *const sgd_states[] = {"momentum_buffer"};
    static const char *const adamw_states[] = {"exp_avg", "exp_avg_sq"};
    const bool sgd = o->kind == FTR_OPTIMIZER_SGD;
    const char *const *states = sgd ? sgd_states : adamw_states;
    const int32_t state_count = sgd ? (o->momentum != 0.0 ? 1 : 0) : 2, first = FTR_UPDATE_FIRST_GROUP;
    const int32_t stride = 2 + state_count, total = first + stride * trained->count;
    ftr_tensor *in = ftr__arena_alloc(arena, (size_t)total * sizeof *in);
    if (!in) return ftr__out_of_memory(graph->context, "optimizer", (size_t)total * sizeof *in);
    in[0] = ftr__add_source(graph, FTR_OP_buffer, "optimizer.lr", FTR_F32, ftr_scalar_shape());
    in[1] = ftr__add_source(graph, FTR_OP_buffer, "optimizer.step", FTR_I64, ftr_scalar_shape());
    in[2] = ftr__handle(graph, trained->grad_scale);
    in[3] = ftr__handle(graph, trained->found_inf);
    for (int32_t i = 0; i < trained->count; i++) {
        in[first + stride * i] = ftr__handle(graph, trained->parameters[i]);
        in[first + stride * i + 1] = ftr__handle(graph, trained->gradients[i]);
    }
    /* One kind of state after the other, each in the order of the parameters: flat arrays parallel to theirs. */
    for (int32_t k = 0; k < state_count; k++)
        for (int32_t i = 0; i < trained->count; i++)
            in[first + stride * i + 2 + k] = ftr__optimizer_state(graph, trained->parameters[i], states[k]);
    const ftr_op_attr attr = {.optimizer = {.clip_value = o->clip_value,
                                            .weight_decay = o->weight_decay,
                                            .momentum = o->momentum,
                                            .dampening = o->dampening,
                                            .beta1 = o->beta1,
                                            .beta2 = o->beta2,
                                            .eps = o->eps,
                                            .nesterov = o->nesterov}};
    ftr__emit(graph, sgd ? FTR_OP_sgd_update : FTR_OP_adamw_update, "optimizer", &attr, in, total);
    const ftr_tensor count[2] = {in[1], in[3]};
    ftr__emit(graph, FTR_OP_count_update, "optimizer.count", NULL, count, 2);
    *lr = in[0].id;
    return graph->status;
}
