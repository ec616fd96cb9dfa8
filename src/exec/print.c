#include "graph/print.h"
#include "passes/plan.h"

#include <stdio.h>

static const char *ftr__place_name(ftr__place place) {
    switch (place) {
    case FTR__PLACE_NONE: return "none";
    case FTR__PLACE_VARIABLE: return "parameters";
    case FTR__PLACE_STATE: return "optimizer";
    case FTR__PLACE_ACTIVATION: return "activations";
    case FTR__PLACE_COUNT: break;
    }
    return "unknown";
}

/* Where the node's first result lies: "activations +4096", and whose memory it took over. */
static void ftr__memory_note(const void *arg, int32_t node_index, char text[64]) {
    const ftr_plan *plan = arg;
    const ftr__node *node = &plan->graph->nodes[node_index];
    text[0] = '\0';
    if (!node->out_count) return;
    const ftr__slot *slot = &plan->slots[node->first_out];
    const int n = snprintf(text, 64, "%s +%zu", ftr__place_name(slot->place), slot->offset);
    if (slot->root != node->first_out && n > 0 && n < 64) snprintf(text + n, 64 - (size_t)n, " over %%%d", slot->root);
}

/* What does not run in each step. */
static const char *ftr__stage_note(const ftr_plan *plan, const ftr__node *node) {
    if (node->stage == FTR__STAGE_SWAP) return "  [at an exchange]";
    return node->stage == FTR__STAGE_UPDATE && plan->accumulate > 1 ? "  [at a group's end]" : "";
}

static void ftr__print_memory(const ftr_plan *plan, ftr_write_fn write, void *user) {
    const ftr_memory m = ftr_plan_memory(plan);
    ftr__print(write, user,
               "memory: parameters %zu, gradients %zu, optimizer state %zu, activations %zu, workspace %zu, bookkeeping %zu, "
               "total %zu bytes\n",
               m.parameters, m.gradients, m.optimizer_state, m.activations, m.workspace, m.bookkeeping, m.total);
    if (m.recomputed_nodes)
        ftr__print(write, user, "recomputed: %d nodes, %lld multiply-adds, %lld bytes of results\n",
                   (int)m.recomputed_nodes, (long long)m.recomputed_multiply_adds, (long long)m.recomputed_bytes);
}

ftr_status ftr_plan_print(const ftr_plan *plan, ftr_graph_format format, ftr_write_fn write, void *user) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    if (!write || (format != FTR_GRAPH_TEXT && format != FTR_GRAPH_DOT))
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "plan_print: %s",
                          write ? "format is not one of ftr_graph_format" : "write is NULL");
    const ftr__printer printer = {plan->graph, write, user};
    if (format == FTR_GRAPH_DOT) {
        ftr__print_dot(&printer, ftr__memory_note, plan);
        return FTR_OK;
    }
    for (int32_t i = 0; i < plan->order_count; i++) {
        char text[64];
        ftr__print(write, user, "%4d  ", i);
        ftr__print_node(&printer, &plan->graph->nodes[plan->order[i]]);
        ftr__memory_note(plan, plan->order[i], text);
        ftr__print(write, user, "%s%s%s\n", text[0] ? "  @ " : "", text,
                   ftr__stage_note(plan, &plan->graph->nodes[plan->order[i]]));
    }
    ftr__print_memory(plan, write, user);
    return FTR_OK;
}
