#include "passes/plan.h"

static ftr_status ftr__lower_error(const ftr_plan *plan) {
    return ftr__error(plan->context, plan->graph->status, "%s", plan->graph->message);
}

/* The running statistics follow the batch's: running += momentum * (batch - running); or are the mean of all batches. */
static void ftr__emit_statistics_update(ftr_graph *graph, const ftr__node *node, bool cumulative) {
    for (int32_t k = 0; k < 2; k++) {
        const int32_t running = node->in[3 + k];
        const ftr_op source = graph->nodes[graph->values[running].node].op;
        if (source != FTR_OP_buffer && source != FTR_OP_parameter) continue; /* a constant: nothing to update */
        const ftr_op_attr attr = {.ema = {.weight = node->attr.norm.momentum, .cumulative = cumulative}};
        const ftr_tensor in[2] = {{graph, running}, {graph, node->first_out + 1 + k}};
        ftr__emit(graph, FTR_OP_ema_update, NULL, &attr, in, 2);
    }
}

/* Whether a batch norm was frozen together with its statistics. */
static bool ftr__is_norm_frozen(const ftr_graph *graph, const ftr__node *node) {
    const int32_t gamma = graph->nodes[graph->values[node->in[1]].node].variable;
    return gamma >= 0 && graph->variables[gamma].frozen && graph->variables[gamma].norm_eval;
}

static void ftr__lower_node(ftr_plan *plan, int32_t index) {
    ftr_graph *graph = plan->graph;
    ftr__node *node = &graph->nodes[index];
    const bool training = plan->mode == FTR_MODE_TRAIN;
    if (node->op == FTR_OP_batch_norm) {
        node->attr.norm.training = training && !ftr__is_norm_frozen(graph, node);
        const ftr__node copy = *node;
        if (copy.attr.norm.training) ftr__emit_statistics_update(graph, &copy, plan->cumulative_statistics);
        else if (node->in_count > 5) node->in[5] = 0; /* running statistics leave no row out: the mask need not be fed */
    } else if (node->op == FTR_OP_dropout || node->op == FTR_OP_stochastic_depth) {
        if (!training || node->attr.dropout.p <= 0.0) ftr__plan_rename(plan, node->first_out, node->in[0]);
    } else if (node->op == FTR_OP_mix && !training) {
        ftr__plan_rename(plan, node->first_out, node->in[0]);
    } else if (node->op == FTR_OP_attention && !training) {
        node->attr.attention.dropout = 0.0;
    }
}

ftr_status ftr__pass_lower(ftr_plan *plan) {
    ftr_graph *graph = plan->graph;
    const int32_t count = graph->node_count;
    bool *needed = ftr__arena_alloc(&plan->arena, (size_t)count);
    if (!needed) return ftr__out_of_memory(plan->context, "lower", (size_t)count);
    const ftr_status status = ftr__mark_needed(plan, needed);
    if (status) return status;
    for (int32_t i = 0; i < count; i++)
        if (needed[i]) ftr__lower_node(plan, i);
    return graph->status ? ftr__lower_error(plan) : FTR_OK;
}
