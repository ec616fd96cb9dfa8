/* Gradient accumulation, and averages of weights: exponential ones (PyTorch's get_ema_multi_avg_fn, timm's ModelEmaV3) and
 * equal ones (Izmailov et al.: Averaging Weights Leads to Wider Optima and Better Generalization, 2018). All of it is nodes
 * of the graph: a step asks the host for nothing. */
#include "optim/average.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define FTR__COOKIE_AVERAGE 0x61766572u

/* "fc1.weight.average": a state beside a variable. */
static ftr_tensor ftr__state_beside(ftr_graph *graph, ftr__arena *arena, int32_t value, const char *what) {
    const ftr__value of = graph->values[value];
    const char *owner = graph->nodes[of.node].name;
    const size_t size = strlen(owner) + strlen(what) + 2;
    char *name = ftr__arena_alloc(arena, size);
    if (!name) {
        ftr__out_of_memory(graph->context, what, size);
        return (ftr_tensor){NULL, 0};
    }
    snprintf(name, size, "%s.%s", owner, what);
    return ftr__add_source(graph, FTR_OP_buffer, name, of.dtype, of.shape);
}

static ftr_status ftr__state_status(const ftr_graph *graph) {
    return graph->status ? graph->status : FTR_ERROR_OUT_OF_MEMORY;
}

/* ------------------------------------------------------------------------------------------------- accumulation -- */

ftr_status ftr__accumulation_emit(ftr_graph *graph, ftr__arena *arena, const int32_t *parameters, int32_t *gradients,
                                  int32_t count, int64_t micro_batches) {
    const ftr_op_attr attr = {.accumulate = {.steps = micro_batches}};
    for (int32_t i = 0; i < count; i++) {
        const ftr_tensor in[2] = {ftr__state_beside(graph, arena, parameters[i], "grad_sum"), {graph, gradients[i]}};
        if (!ftr_is_valid(in[0])) return ftr__state_status(graph);
        ftr__emit(graph, FTR_OP_accumulate_update, NULL, &attr, in, 2);
        if (graph->status) return graph->status;
        gradients[i] = in[0].id;
    }
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------ averages -- */

ftr_average_desc ftr_average_defaults(void) {
    const ftr_average_desc average = {.cookie = FTR__COOKIE_AVERAGE,
                                      .kind = FTR_AVERAGE_NONE,
                                      .decay = 0.999,
                                      .warmup_gamma = 1.0,
                                      .warmup_power = 2.0 / 3.0,
                                      .every = 1};
    return average;
}

static bool ftr__is_share(double x) { return x >= 0.0 && x <= 1.0; }

ftr_status ftr__average_check(ftr_context *context, const ftr_average_desc *average) {
    const ftr_status bad = FTR_ERROR_INVALID_ARGUMENT;
    if (average->cookie != FTR__COOKIE_AVERAGE)
        return ftr__error(context, bad, "average: the description was not made by ftr_average_defaults()");
    if ((int)average->kind < (int)FTR_AVERAGE_NONE || average->kind > FTR_AVERAGE_SWA)
        return ftr__error(context, bad, "average: kind is %d, expected one of ftr_average_kind", (int)average->kind);
    if (!ftr__is_share(average->decay))
        return ftr__error(context, bad, "average: decay is %g, expected 0 to 1", average->decay);
    if (!ftr__is_share(average->min_decay))
        return ftr__error(context, bad, "average: min_decay is %g, expected 0 to 1", average->min_decay);
    if (!(average->warmup_gamma > 0.0) || !isfinite(average->warmup_gamma))
        return ftr__error(context, bad, "average: warmup_gamma is %g, expected a finite number above 0",
                          average->warmup_gamma);
    if (!(average->warmup_power > 0.0) || !isfinite(average->warmup_power))
        return ftr__error(context, bad, "average: warmup_power is %g, expected a finite number above 0",
                          average->warmup_power);
    if (average->start < 0)
        return ftr__error(context, bad, "average: start is %lld, expected 0 or more", (long long)average->start);
    if (average->every < 1)
        return ftr__error(context, bad, "average: every is %lld, expected 1 or more", (long long)average->every);
    return FTR_OK;
}

typedef struct ftr__averaging {
    ftr_graph *graph;
    ftr__arena *arena;
    const ftr_average_desc *desc;
    const ftr__averaged *of;
    ftr_tensor *in;           /* the common inputs, then a pair for each parameter, then for each running statistic */
    int32_t used, statistics; /* inputs in all; where those of the statistics begin */
} ftr__averaging;

static ftr_status ftr__average_pair(ftr__averaging *a, int32_t value) {
    const ftr_tensor average = ftr__state_beside(a->graph, a->arena, value, "average");
    if (!ftr_is_valid(average)) return ftr__state_status(a->graph);
    a->in[a->used++] = average;
    a->in[a->used++] = (ftr_tensor){a->graph, value};
    return FTR_OK;
}

/* A running statistic that several nodes share has one average. */
static bool ftr__has_pair(const ftr__averaging *a, int32_t value) {
    for (int32_t i = FTR_AVERAGE_FIRST_PAIR + 1; i < a->used; i += 2)
        if (a->in[i].id == value) return true;
    return false;
}

static ftr_status ftr__average_pairs(ftr__averaging *a) {
    const ftr_graph *graph = a->graph;
    const int32_t nodes = graph->node_count; /* those made here are no statistics */
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < a->of->count && !status; i++) status = ftr__average_pair(a, a->of->parameters[i]);
    a->statistics = a->used;
    for (int32_t n = 0; n < nodes && !status; n++) {
        const ftr__node *node = &graph->nodes[n];
        if (node->op != FTR_OP_ema_update || node->dead || ftr__has_pair(a, node->in[0])) continue;
        status = ftr__average_pair(a, node->in[0]);
    }
    return status;
}

static ftr_op_attr ftr__average_attr(const ftr_average_desc *desc) {
    const bool warms_up = desc->kind == FTR_AVERAGE_EMA && desc->warmup;
    return (ftr_op_attr){.average = {.decay = desc->decay,
                                     .min_decay = warms_up ? desc->min_decay : 0.0,
                                     .warmup_gamma = warms_up ? desc->warmup_gamma : 0.0,
                                     .warmup_power = warms_up ? desc->warmup_power : 0.0,
                                     .start = desc->start,
                                     .every = desc->every,
                                     .equal = desc->kind == FTR_AVERAGE_SWA}};
}

/* Copied statistics have a node of their own. */
static ftr_status ftr__average_nodes(ftr__averaging *a) {
    ftr_graph *graph = a->graph;
    ftr_op_attr attr = ftr__average_attr(a->desc);
    const int32_t end = a->desc->copy_buffers ? a->statistics : a->used;
    ftr__emit(graph, FTR_OP_average_update, "average", &attr, a->in, end);
    const int32_t pairs = a->used - FTR_AVERAGE_FIRST_PAIR;
    ftr__emit(graph, FTR_OP_swap_update, "average.swap", NULL, a->in + FTR_AVERAGE_FIRST_PAIR, pairs);
    if (!graph->status) graph->nodes[graph->node_count - 1].stage = FTR__STAGE_SWAP;
    if (end == a->used) return graph->status;
    ftr_tensor *in = a->in + a->statistics - FTR_AVERAGE_FIRST_PAIR; /* over pairs that are no longer needed */
    memmove(in, a->in, FTR_AVERAGE_FIRST_PAIR * sizeof *in);
    attr.average.copy = true;
    ftr__emit(graph, FTR_OP_average_update, "average.buffers", &attr, in,
              FTR_AVERAGE_FIRST_PAIR + a->used - a->statistics);
    return graph->status;
}

ftr_status ftr__average_emit(ftr_graph *graph, ftr__arena *arena, const ftr_average_desc *desc, const ftr__averaged *of,
                             int32_t *taken) {
    const size_t most = FTR_AVERAGE_FIRST_PAIR + 2 * ((size_t)of->count + (size_t)graph->node_count);
    ftr__averaging a = {.graph = graph, .arena = arena, .desc = desc, .of = of, .used = FTR_AVERAGE_FIRST_PAIR};
    a.in = ftr__arena_alloc(arena, most * sizeof *a.in);
    if (!a.in) return ftr__out_of_memory(graph->context, "average", most * sizeof *a.in);
    a.in[0] = ftr__add_source(graph, FTR_OP_buffer, "average.count", FTR_I64, ftr_scalar_shape());
    a.in[1] = (ftr_tensor){graph, of->applied};
    if (of->found_inf) a.in[2] = (ftr_tensor){graph, of->found_inf};
    *taken = a.in[0].id;
    const ftr_status status = graph->status ? graph->status : ftr__average_pairs(&a);
    return status ? status : ftr__average_nodes(&a);
}
