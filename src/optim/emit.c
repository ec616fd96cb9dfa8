/* The step of an optimizer as nodes. Parameters with one rule (the same op and the same settings) share a node. */
#include "optim/optim.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define FTR__MAX_STATES 3

/* How a parameter is updated. */
typedef struct ftr__update_rule {
    ftr_op op;
    ftr_op_attr attr; /* .optimizer; cleared before it is filled, so that equal ones have equal bytes */
    int32_t states;
    const char *state_names[FTR__MAX_STATES]; /* behind the parameter's name; as PyTorch's optimizers name them */
    int32_t members;
} ftr__update_rule;

typedef struct ftr__emission {
    ftr_graph *graph;
    const ftr_optimizer *optimizer;
    const ftr__trained *trained;
    ftr__update_rule *rules;
    int32_t rule_count;
    int32_t *rule_of;   /* by parameter */
    ftr_tensor *states; /* FTR__MAX_STATES a parameter */
} ftr__emission;

static const char *ftr__parameter_name(const ftr_graph *graph, int32_t value) {
    return graph->nodes[graph->values[value].node].name;
}

static bool ftr__is_conv_weight(const ftr_graph *graph, int32_t value) {
    const int32_t variable = graph->nodes[graph->values[value].node].variable;
    return variable >= 0 && graph->variables[variable].conv_weight;
}

/* The first group that fits; NULL if none does. */
static const ftr_param_group *ftr__group_of(const ftr_optimizer *o, const char *name) {
    for (int32_t i = 0; i < o->group_count; i++)
        if (ftr__glob_match(o->groups[i].pattern, name)) return &o->groups[i];
    return NULL;
}

/* The optimizer as it is for one parameter. */
static ftr_optimizer ftr__optimizer_for(const ftr__emission *e, int32_t value, double *lr_scale) {
    ftr_optimizer o = *e->optimizer;
    const int32_t rank = e->graph->values[value].shape.rank;
    const ftr_param_group *group = ftr__group_of(e->optimizer, ftr__parameter_name(e->graph, value));
    *lr_scale = group ? group->lr_scale : 1.0;
    if (o.no_decay_norms_biases && rank <= 1) o.weight_decay = 0.0;
    if (group && !isnan(group->weight_decay)) o.weight_decay = group->weight_decay;
    if (group && !isnan(group->momentum)) o.momentum = group->momentum;
    if (group && !isnan(group->beta1)) o.beta1 = group->beta1;
    if (group && !isnan(group->beta2)) o.beta2 = group->beta2;
    if (group && !isnan(group->eps)) o.eps = group->eps;
    const bool matrix = rank == 2 || ftr__is_conv_weight(e->graph, value);
    if (o.kind == FTR_OPTIMIZER_MUON && (!matrix || (group && group->kind == FTR_OPTIMIZER_ADAMW))) {
        o.kind = FTR_OPTIMIZER_ADAMW;
        *lr_scale *= o.adamw_lr_scale;
    }
    return o;
}

static void ftr__add_state(ftr__update_rule *rule, const char *name) { rule->state_names[rule->states++] = name; }

/* The last two axes; of a convolution's weight (OHWI, OWI) those that are last in PyTorch's order (OIHW, OIW). */
static void ftr__factor_axes(const ftr_graph *graph, int32_t value, int32_t *row, int32_t *column) {
    const int32_t rank = graph->values[value].shape.rank;
    const bool conv = ftr__is_conv_weight(graph, value);
    if (rank < 2) return;
    *row = conv && rank == 4 ? 1 : conv && rank == 3 ? 2 : rank - 2;
    *column = conv && rank == 4 ? 2 : conv && rank == 3 ? 1 : rank - 1;
}

/* Momentum as a sum: SGD and LARS. */
static void ftr__fill_momentum(const ftr_optimizer *o, ftr_op op, ftr__update_rule *rule) {
    rule->op = op;
    rule->attr.optimizer.momentum = o->momentum;
    rule->attr.optimizer.dampening = o->dampening;
    rule->attr.optimizer.nesterov = o->nesterov;
    if (o->momentum != 0.0) ftr__add_state(rule, "momentum_buffer");
}

/* Two moments: Adam, AdamW and LAMB. */
static void ftr__fill_moments(const ftr_optimizer *o, ftr_op op, bool amsgrad, ftr__update_rule *rule) {
    rule->op = op;
    rule->attr.optimizer.beta1 = o->beta1;
    rule->attr.optimizer.beta2 = o->beta2;
    rule->attr.optimizer.amsgrad = amsgrad;
    ftr__add_state(rule, "exp_avg");
    ftr__add_state(rule, "exp_avg_sq");
    if (amsgrad) ftr__add_state(rule, "max_exp_avg_sq");
}

static void ftr__fill_rmsprop(const ftr_optimizer *o, ftr__update_rule *rule) {
    rule->op = FTR_OP_rmsprop_update;
    rule->attr.optimizer.alpha = o->alpha;
    rule->attr.optimizer.momentum = o->momentum;
    rule->attr.optimizer.centered = o->centered;
    ftr__add_state(rule, "square_avg");
    if (o->centered) ftr__add_state(rule, "grad_avg");
    if (o->momentum != 0.0) ftr__add_state(rule, "momentum_buffer");
}

static void ftr__fill_adagrad(const ftr_optimizer *o, ftr__update_rule *rule) {
    rule->op = FTR_OP_adagrad_update;
    rule->attr.optimizer.lr_decay = o->lr_decay;
    rule->attr.optimizer.initial_accumulator = o->initial_accumulator;
    ftr__add_state(rule, "sum");
}

/* LAMB and LARS. */
static void ftr__fill_trust(const ftr_optimizer *o, ftr__update_rule *rule) {
    rule->attr.optimizer.trust_coefficient = o->kind == FTR_OPTIMIZER_LARS ? o->trust_coefficient : 1.0;
    rule->attr.optimizer.trust_clip = o->trust_clip;
    rule->attr.optimizer.adapt = o->weight_decay != 0.0 || o->always_adapt;
}

static void ftr__fill_lion(const ftr_optimizer *o, ftr__update_rule *rule) {
    rule->op = FTR_OP_lion_update;
    rule->attr.optimizer.beta1 = o->beta1;
    rule->attr.optimizer.beta2 = o->beta2;
    ftr__add_state(rule, "exp_avg");
}

static void ftr__fill_adafactor(const ftr_graph *graph, int32_t value, const ftr_optimizer *o, ftr__update_rule *rule) {
    rule->op = FTR_OP_adafactor_update;
    rule->attr.optimizer.beta2_decay = o->beta2_decay;
    rule->attr.optimizer.parameter_eps = o->parameter_eps;
    rule->attr.optimizer.clip_threshold = o->clip_threshold;
    ftr__factor_axes(graph, value, &rule->attr.optimizer.row_axis, &rule->attr.optimizer.column_axis);
    const bool factored = rule->attr.optimizer.row_axis != rule->attr.optimizer.column_axis;
    ftr__add_state(rule, factored ? "row_var" : "variance");
    if (factored) ftr__add_state(rule, "col_var");
}

static void ftr__fill_muon(const ftr_optimizer *o, ftr__update_rule *rule) {
    rule->op = FTR_OP_muon_update;
    rule->attr.optimizer.momentum = o->momentum;
    rule->attr.optimizer.nesterov = o->nesterov;
    memcpy(rule->attr.optimizer.ns_coefficients, o->ns_coefficients, sizeof o->ns_coefficients);
    rule->attr.optimizer.ns_eps = o->ns_eps;
    rule->attr.optimizer.ns_steps = o->ns_steps;
    rule->attr.optimizer.rate = o->rate;
    ftr__add_state(rule, "momentum_buffer");
}

/* Op, states, and the attributes that the op uses. */
static void ftr__fill_rule(const ftr__emission *e, int32_t value, ftr__update_rule *rule) {
    double lr_scale;
    const ftr_optimizer o = ftr__optimizer_for(e, value, &lr_scale);
    memset(rule, 0, sizeof *rule);
    rule->attr.optimizer.lr_scale = lr_scale;
    rule->attr.optimizer.clip_value = o.clip_value;
    rule->attr.optimizer.weight_decay = o.weight_decay;
    rule->attr.optimizer.eps = o.eps;
    switch (o.kind) {
    case FTR_OPTIMIZER_SGD: ftr__fill_momentum(&o, FTR_OP_sgd_update, rule); break;
    case FTR_OPTIMIZER_ADAM: ftr__fill_moments(&o, FTR_OP_adam_update, o.amsgrad, rule); break;
    case FTR_OPTIMIZER_RMSPROP: ftr__fill_rmsprop(&o, rule); break;
    case FTR_OPTIMIZER_ADAGRAD: ftr__fill_adagrad(&o, rule); break;
    case FTR_OPTIMIZER_LAMB:
        ftr__fill_moments(&o, FTR_OP_lamb_update, false, rule);
        ftr__fill_trust(&o, rule);
        break;
    case FTR_OPTIMIZER_LARS:
        ftr__fill_momentum(&o, FTR_OP_lars_update, rule);
        ftr__fill_trust(&o, rule);
        break;
    case FTR_OPTIMIZER_LION: ftr__fill_lion(&o, rule); break;
    case FTR_OPTIMIZER_ADAFACTOR: ftr__fill_adafactor(e->graph, value, &o, rule); break;
    case FTR_OPTIMIZER_MUON: ftr__fill_muon(&o, rule); break;
    case FTR_OPTIMIZER_NONE: /* ftr__optimizer_check() refuses it */
    case FTR_OPTIMIZER_ADAMW: ftr__fill_moments(&o, FTR_OP_adamw_update, o.amsgrad, rule); break;
    }
}

static void ftr__assign_rules(ftr__emission *e) {
    for (int32_t i = 0; i < e->trained->count; i++) {
        ftr__update_rule *rule = &e->rules[e->rule_count];
        ftr__fill_rule(e, e->trained->parameters[i], rule);
        int32_t same = 0;
        while (same < e->rule_count &&
               (e->rules[same].op != rule->op || memcmp(&e->rules[same].attr, &rule->attr, sizeof rule->attr) != 0))
            same++;
        if (same == e->rule_count) e->rule_count++;
        e->rules[same].members++;
        e->rule_of[i] = same;
    }
}

/* State number `index` of a parameter: of its shape, but for the factors of a second moment, and of its type, or
 * bf16. */
static ftr_tensor ftr__emit_state(ftr__emission *e, ftr__arena *arena, int32_t parameter, int32_t index) {
    ftr_graph *graph = e->graph;
    const ftr__update_rule *rule = &e->rules[e->rule_of[parameter]];
    const int32_t row = rule->attr.optimizer.row_axis, column = rule->attr.optimizer.column_axis;
    const ftr__value value = graph->values[e->trained->parameters[parameter]];
    const char *owner = graph->nodes[value.node].name, *what = rule->state_names[index];
    const size_t size = strlen(owner) + strlen(what) + 2;
    char *name = ftr__arena_alloc(arena, size);
    if (!name) {
        ftr__out_of_memory(graph->context, "optimizer", size);
        return (ftr_tensor){NULL, 0};
    }
    snprintf(name, size, "%s.%s", owner, what);
    ftr_shape shape = value.shape;
    if (row != column) shape.dim[index == 0 ? column : row] = 1;
    const ftr_dtype dtype = e->optimizer->state_dtype == FTR_BF16 ? FTR_BF16 : value.dtype;
    return ftr__add_source(graph, FTR_OP_buffer, name, dtype, shape);
}

/* One kind of state after the other, each in the order of the parameters: flat arrays parallel to theirs. */
static ftr_status ftr__emit_states(ftr__emission *e, ftr__arena *arena) {
    for (int32_t k = 0; k < FTR__MAX_STATES; k++)
        for (int32_t i = 0; i < e->trained->count; i++) {
            if (k >= e->rules[e->rule_of[i]].states) continue;
            ftr_tensor state = ftr__emit_state(e, arena, i, k);
            if (!ftr_is_valid(state)) return e->graph->status ? e->graph->status : FTR_ERROR_OUT_OF_MEMORY;
            e->states[FTR__MAX_STATES * i + k] = state;
        }
    return FTR_OK;
}

static ftr_tensor ftr__handle(ftr_graph *graph, int32_t value) {
    return value ? (ftr_tensor){graph, value} : (ftr_tensor){NULL, 0};
}

/* `common`: the inputs before the groups. */
static ftr_status ftr__emit_rule(ftr__emission *e, ftr__arena *arena, int32_t index,
                                 const ftr_tensor common[FTR_UPDATE_FIRST_GROUP]) {
    const ftr__update_rule *rule = &e->rules[index];
    const int32_t total = FTR_UPDATE_FIRST_GROUP + (2 + rule->states) * rule->members;
    ftr_tensor *in = ftr__arena_alloc(arena, (size_t)total * sizeof *in);
    if (!in) return ftr__out_of_memory(e->graph->context, "optimizer", (size_t)total * sizeof *in);
    memcpy(in, common, FTR_UPDATE_FIRST_GROUP * sizeof *in);
    int32_t used = FTR_UPDATE_FIRST_GROUP;
    for (int32_t i = 0; i < e->trained->count; i++) {
        if (e->rule_of[i] != index) continue;
        in[used++] = ftr__handle(e->graph, e->trained->parameters[i]);
        in[used++] = ftr__handle(e->graph, e->trained->gradients[i]);
        for (int32_t k = 0; k < rule->states; k++) in[used++] = e->states[FTR__MAX_STATES * i + k];
    }
    char name[32] = "optimizer";
    if (index > 0) snprintf(name, sizeof name, "optimizer_%d", (int)index + 1);
    ftr__emit(e->graph, rule->op, name, &rule->attr, in, total);
    return e->graph->status;
}

/* LAMB limits the norm of all gradients together. */
static ftr_tensor ftr__emit_clip_scale(ftr__emission *e, ftr__arena *arena, ftr_tensor grad_scale) {
    const int32_t count = e->trained->count + 1;
    ftr_tensor *in = ftr__arena_alloc(arena, (size_t)count * sizeof *in);
    if (!in) {
        ftr__out_of_memory(e->graph->context, "optimizer", (size_t)count * sizeof *in);
        return (ftr_tensor){NULL, 0};
    }
    in[0] = grad_scale;
    for (int32_t i = 1; i < count; i++) in[i] = ftr__handle(e->graph, e->trained->gradients[i - 1]);
    const ftr_op_attr attr = {.clip_scale = {.max_norm = e->optimizer->max_grad_norm, .eps = 0.0}};
    return ftr__emit(e->graph, FTR_OP_clip_scale, "optimizer.clip_scale", &attr, in, count);
}

static ftr_status ftr__emit_nodes(ftr__emission *e, ftr__arena *arena, int32_t *lr, int32_t *step) {
    ftr_graph *graph = e->graph;
    ftr_tensor common[FTR_UPDATE_FIRST_GROUP];
    common[0] = ftr__add_source(graph, FTR_OP_buffer, "optimizer.lr", FTR_F32, ftr_scalar_shape());
    common[1] = ftr__add_source(graph, FTR_OP_buffer, "optimizer.step", FTR_I64, ftr_scalar_shape());
    common[2] = ftr__handle(graph, e->trained->grad_scale);
    common[3] = ftr__handle(graph, e->trained->found_inf);
    *lr = common[0].id;
    *step = common[1].id;
    ftr_status status = graph->status ? graph->status : ftr__emit_states(e, arena);
    if (status) return status;
    if (e->optimizer->kind == FTR_OPTIMIZER_LAMB && e->optimizer->max_grad_norm > 0.0) {
        common[2] = ftr__emit_clip_scale(e, arena, common[2]);
        if (!ftr_is_valid(common[2])) return graph->status ? graph->status : FTR_ERROR_OUT_OF_MEMORY;
    }
    for (int32_t i = 0; i < e->rule_count && !status; i++) status = ftr__emit_rule(e, arena, i, common);
    const ftr_tensor count[2] = {common[1], common[3]};
    if (!status) ftr__emit(graph, FTR_OP_count_update, "optimizer.count", NULL, count, 2);
    return status ? status : graph->status;
}

ftr_status ftr__optimizer_emit(ftr_graph *graph, ftr__arena *arena, const ftr_optimizer *optimizer,
                               const ftr__trained *trained, int32_t *lr, int32_t *step) {
    const size_t count = (size_t)trained->count, bytes = (count + 1) * sizeof(ftr__update_rule);
    ftr__emission e = {.graph = graph, .optimizer = optimizer, .trained = trained};
    e.rules = ftr__arena_alloc(arena, bytes);
    e.rule_of = ftr__arena_alloc(arena, count * sizeof *e.rule_of);
    e.states = ftr__arena_alloc(arena, count * FTR__MAX_STATES * sizeof *e.states);
    if (!e.rules || !e.rule_of || !e.states) return ftr__out_of_memory(graph->context, "optimizer", bytes);
    ftr__assign_rules(&e);
    return ftr__emit_nodes(&e, arena, lr, step);
}
