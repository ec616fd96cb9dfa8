#include "passes/plan.h"

#include <string.h>

/* Updates have no outputs; they are what a step is run for, if it trains. */
static bool ftr__is_update(const ftr__node *node) { return node->out_count == 0; }

static bool ftr__is_source(const ftr__node *node) {
    return node->op == FTR_OP_input || node->op == FTR_OP_parameter || node->op == FTR_OP_buffer ||
           node->op == FTR_OP_constant;
}

static void ftr__mark_value(const ftr_graph *graph, bool *needed, int32_t value) {
    if (value) needed[graph->values[value].node] = true;
}

/* Fusing may have made a node use a later one, so one sweep from the end is not always enough. */
static void ftr__close_needed(const ftr_graph *graph, bool *needed) {
    for (bool changed = true; changed;) {
        changed = false;
        for (int32_t n = graph->node_count - 1; n >= 0; n--) {
            const ftr__node *node = &graph->nodes[n];
            if (!needed[n] || node->dead) continue;
            for (int32_t i = 0; i < node->in_count; i++) {
                const int32_t producer = node->in[i] ? graph->values[node->in[i]].node : n;
                changed = changed || (!needed[producer] && producer > n);
                needed[producer] = true;
            }
        }
    }
}

ftr_status ftr__mark_needed(const ftr_plan *plan, bool *needed) {
    const ftr_graph *graph = plan->graph;
    memset(needed, 0, (size_t)graph->node_count);
    for (int32_t i = 0; i < plan->kept_count; i++) ftr__mark_value(graph, needed, plan->kept[i]);
    for (int32_t i = 0; i < plan->gradient_count; i++) ftr__mark_value(graph, needed, plan->gradients[i]);
    for (int32_t i = 0; i < plan->gradient_count; i++) ftr__mark_value(graph, needed, plan->wrt[i]);
    for (int32_t n = 0; n < graph->node_count; n++)
        if (ftr__is_update(&graph->nodes[n]) && !graph->nodes[n].dead) needed[n] = true;
    ftr__close_needed(graph, needed);
    return FTR_OK;
}

void ftr__plan_rename(ftr_plan *plan, int32_t from, int32_t to) {
    ftr__graph_replace(plan->graph, from, to);
    for (int32_t i = 0; i < plan->kept_count; i++)
        if (plan->kept[i] == from) plan->kept[i] = to;
    for (int32_t i = 0; i < plan->gradient_count; i++) {
        if (plan->gradients[i] == from) plan->gradients[i] = to;
        if (plan->wrt[i] == from) plan->wrt[i] = to;
    }
    for (int32_t i = 0; i < plan->renamed_count; i++)
        if (plan->renamed[i] == from) plan->renamed[i] = to;
    if (plan->loss == from) plan->loss = to;
}

typedef struct ftr__sorter {
    ftr_plan *plan;
    bool *placed;   /* nodes */
    int32_t *stack; /* nodes whose inputs are being placed */
    int32_t *next;  /* by node: the input to look at next */
} ftr__sorter;

/* Places a node after its inputs: a depth-first walk without recursion, for networks of any depth. */
static void ftr__place_node(ftr__sorter *s, int32_t node) {
    const ftr_graph *graph = s->plan->graph;
    int32_t depth = 0;
    if (s->placed[node]) return;
    s->stack[depth++] = node;
    while (depth > 0) {
        const int32_t top = s->stack[depth - 1];
        const ftr__node *n = &graph->nodes[top];
        int32_t waiting = -1;
        while (s->next[top] < n->in_count && waiting < 0) {
            const int32_t value = n->in[s->next[top]++];
            if (value && !s->placed[graph->values[value].node]) waiting = graph->values[value].node;
        }
        if (waiting >= 0) {
            s->stack[depth++] = waiting;
            continue;
        }
        depth--;
        if (s->placed[top]) continue;
        s->placed[top] = true;
        if (!ftr__is_source(n)) s->plan->order[s->plan->order_count++] = top;
    }
}

/* Which nodes of a stage are placed. */
typedef enum ftr__kind_of_node { FTR__NODES_VALUES, FTR__NODES_SUMS, FTR__NODES_UPDATES } ftr__kind_of_node;

static ftr__kind_of_node ftr__kind_of(const ftr__node *node) {
    if (node->op == FTR_OP_accumulate_update) return FTR__NODES_SUMS;
    return ftr__is_update(node) ? FTR__NODES_UPDATES : FTR__NODES_VALUES;
}

static void ftr__place_nodes(ftr__sorter *s, ftr__stage stage, ftr__kind_of_node kind) {
    const ftr_graph *graph = s->plan->graph;
    for (int32_t n = 0; n < graph->node_count; n++) {
        const ftr__node *node = &graph->nodes[n];
        if (!node->dead && node->stage == stage && ftr__kind_of(node) == kind) ftr__place_node(s, n);
    }
}

/* The node that makes what a sum adds. The reshapes and casts that autodiff and mixed precision put behind it, last of all
 * nodes, come with the sum. */
static int32_t ftr__maker_of(const ftr_graph *graph, const ftr__node *sum) {
    int32_t maker = graph->values[sum->in[1]].node;
    while (graph->nodes[maker].op == FTR_OP_reshape || graph->nodes[maker].op == FTR_OP_cast)
        maker = graph->values[graph->nodes[maker].in[0]].node;
    return maker;
}

/* Sums by the node that makes what they add: a list that begins at first[node] - 1 and goes on at next[sum] - 1. */
static void ftr__list_sums(const ftr_graph *graph, int32_t *first, int32_t *next) {
    for (int32_t n = graph->node_count - 1; n >= 0; n--) {
        const ftr__node *node = &graph->nodes[n];
        if (node->dead || node->op != FTR_OP_accumulate_update) continue;
        const int32_t maker = ftr__maker_of(graph, node);
        next[n] = first[maker];
        first[maker] = n + 1;
    }
}

/* Forward and backward. The sum of a gradient comes right behind the node that makes it; while infinities are looked for, at
 * the end: an error leaves all states as they are. */
static ftr_status ftr__place_values(ftr__sorter *s) {
    const ftr_graph *graph = s->plan->graph;
    const size_t bytes = (size_t)graph->node_count * sizeof(int32_t);
    int32_t *first = ftr__arena_alloc(&s->plan->arena, bytes), *next = ftr__arena_alloc(&s->plan->arena, bytes);
    if (!first || !next) return ftr__out_of_memory(s->plan->context, "schedule", bytes);
    if (!s->plan->debug_nonfinite) ftr__list_sums(graph, first, next);
    int32_t seen = 0; /* of the order */
    for (int32_t n = 0; n < graph->node_count; n++) {
        const ftr__node *node = &graph->nodes[n];
        if (node->dead || node->stage != FTR__STAGE_COMPUTE || ftr__kind_of(node) != FTR__NODES_VALUES) continue;
        ftr__place_node(s, n);
        const int32_t end = s->plan->order_count;
        for (; seen < end; seen++)
            for (int32_t sum = first[s->plan->order[seen]]; sum > 0; sum = next[sum - 1]) ftr__place_node(s, sum - 1);
        seen = s->plan->order_count;
    }
    return FTR_OK;
}

ftr_status ftr__pass_schedule(ftr_plan *plan) {
    ftr_graph *graph = plan->graph;
    const size_t count = (size_t)graph->node_count;
    bool *needed = ftr__arena_alloc(&plan->arena, count);
    ftr__sorter s = {.plan = plan};
    s.placed = ftr__arena_alloc(&plan->arena, count);
    s.stack = ftr__arena_alloc(&plan->arena, (count + 1) * sizeof *s.stack);
    s.next = ftr__arena_alloc(&plan->arena, count * sizeof *s.next);
    plan->order = ftr__arena_alloc(&plan->arena, count * sizeof *plan->order);
    if (!needed || !s.placed || !s.stack || !s.next || !plan->order)
        return ftr__out_of_memory(plan->context, "schedule", count * sizeof *plan->order);
    ftr_status status = ftr__mark_needed(plan, needed);
    if (status) return status;
    for (int32_t n = 0; n < graph->node_count; n++) graph->nodes[n].dead = graph->nodes[n].dead || !needed[n];
    status = ftr__place_values(&s);
    if (status) return status;
    ftr__place_nodes(&s, FTR__STAGE_COMPUTE, FTR__NODES_SUMS);
    ftr__place_nodes(&s, FTR__STAGE_MEASURE, FTR__NODES_VALUES);
    ftr__place_nodes(&s, FTR__STAGE_COMPUTE, FTR__NODES_UPDATES);
    ftr__place_nodes(&s, FTR__STAGE_UPDATE, FTR__NODES_VALUES);
    ftr__place_nodes(&s, FTR__STAGE_UPDATE, FTR__NODES_UPDATES);
    ftr__place_nodes(&s, FTR__STAGE_SWAP, FTR__NODES_UPDATES);
    return FTR_OK;
}
