/* The recompute pass's model of a plan: what a schedule with recomputed values costs and how much memory is live in it. It
 * follows schedule.c (copies just before their first user) and memplan.c (aliases, results in place). */
#include "passes/recompute.h"

#include "graph/cost.h"
#include "graph/op.h"

#include <string.h>

/* ---------------------------------------------------------------------------------------------------------- cost -- */

/* Memory moves at about an eighth of the rate of arithmetic: a byte counts as 8 multiply-adds. */
static double ftr__recompute_cost(const ftr_graph *graph, const ftr__node *node) {
    if (node->op == FTR_OP_reshape) return 0.0; /* a view */
    return (double)ftr__node_multiply_adds(graph, node) + 8.0 * (double)ftr__node_bytes(graph, node);
}

/* Of the copy of a node, in the graph, in the order and in the list of steps. */
static size_t ftr__bookkeeping(const ftr__node *node) {
    const size_t in = (size_t)node->in_count, out = (size_t)node->out_count;
    return sizeof(ftr__node) + sizeof(ftr__step) + in * sizeof(int32_t) + (in + out) * sizeof(ftr_view) +
           out * (sizeof(ftr__value) + sizeof(ftr__slot));
}

/* ---------------------------------------------------------------------------------------------------------- open -- */

static bool ftr__recompute_allocate(ftr__recompute *r) {
    const size_t values = (size_t)r->values, nodes = (size_t)r->nodes;
    r->anchor = ftr__arena_alloc(r->arena, values * sizeof *r->anchor);
    r->made = ftr__arena_alloc(r->arena, values * sizeof *r->made);
    r->early = ftr__arena_alloc(r->arena, values * sizeof *r->early);
    r->used_late = ftr__arena_alloc(r->arena, values);
    r->free_to_drop = ftr__arena_alloc(r->arena, values);
    r->by_hand = ftr__arena_alloc(r->arena, values);
    r->dropped = ftr__arena_alloc(r->arena, values);
    r->bytes = ftr__arena_alloc(r->arena, values * sizeof *r->bytes);
    r->pinned = ftr__arena_alloc(r->arena, values);
    r->cost = ftr__arena_alloc(r->arena, nodes * sizeof *r->cost);
    r->in_place = ftr__arena_alloc(r->arena, nodes * sizeof *r->in_place);
    r->sequence = ftr__arena_alloc(r->arena, 2 * nodes * sizeof *r->sequence);
    r->copied = ftr__arena_alloc(r->arena, nodes);
    r->first = ftr__arena_alloc(r->arena, 2 * values * sizeof *r->first);
    r->last = ftr__arena_alloc(r->arena, 2 * values * sizeof *r->last);
    r->root = ftr__arena_alloc(r->arena, 2 * values * sizeof *r->root);
    r->kept = ftr__arena_alloc(r->arena, 2 * values);
    r->stack = ftr__arena_alloc(r->arena, nodes * sizeof *r->stack);
    r->next = ftr__arena_alloc(r->arena, nodes * sizeof *r->next);
    r->change = ftr__arena_alloc(r->arena, (2 * nodes + 2) * sizeof *r->change);
    return r->anchor && r->made && r->early && r->used_late && r->free_to_drop && r->by_hand && r->dropped &&
           r->bytes && r->pinned && r->cost && r->in_place && r->sequence && r->copied && r->first && r->last &&
           r->root && r->kept && r->stack && r->next && r->change;
}

static void ftr__find_late(ftr__recompute *r) {
    r->late = r->order_count;
    for (int32_t s = r->order_count - 1; s >= 0; s--)
        if (r->graph->nodes[r->order[s]].backward || r->graph->nodes[r->order[s]].out_count == 0) r->late = s;
}

static void ftr__describe_values(ftr__recompute *r) {
    const ftr_plan *plan = r->plan;
    for (int32_t v = 0; v < r->values; v++) {
        const ftr__slot *slot = &plan->slots[v];
        const bool activation = slot->place == FTR__PLACE_ACTIVATION;
        r->anchor[v] = v;
        r->made[v] = r->early[v] = -1;
        r->bytes[v] = activation ? (slot->bytes + FTR__ALIGNMENT - 1) / FTR__ALIGNMENT * FTR__ALIGNMENT : 0;
        if (!v || !activation) continue;
        const ftr_op op = r->graph->nodes[r->graph->values[v].node].op;
        r->pinned[v] = op == FTR_OP_input || op == FTR_OP_constant;
    }
    for (int32_t i = 0; i < plan->kept_count; i++) r->pinned[plan->kept[i]] = true;
}

static void ftr__describe_node(ftr__recompute *r, int32_t n) {
    const ftr_graph *graph = r->graph;
    const ftr__node *node = &graph->nodes[n];
    const uint32_t overwritable = ftr__op_info_of(node->op)->overwritable;
    r->cost[n] = ftr__recompute_cost(graph, node);
    for (int32_t i = 0; i < node->in_count && i < 31 && node->out_count > 0; i++) {
        const ftr__value *a = &graph->values[node->in[i]], *b = &graph->values[node->first_out];
        if ((overwritable >> i & 1u) && node->in[i] && a->dtype == b->dtype && ftr_shape_equal(&a->shape, &b->shape))
            r->in_place[n] |= 1u << i;
    }
}

static void ftr__describe_uses(ftr__recompute *r) {
    for (int32_t s = 0; s < r->order_count; s++) {
        const ftr__node *node = &r->graph->nodes[r->order[s]];
        const bool update = node->out_count == 0 || node->stage != FTR__STAGE_COMPUTE;
        for (int32_t i = 0; i < node->in_count; i++) {
            const int32_t a = r->anchor[node->in[i]];
            if (s < r->late)
                r->early[a] = s;
            else if (node->in[i])
                r->used_late[a] = true;
            if (update) r->free_to_drop[a] = false; /* nothing is recomputed once states change */
        }
        for (int32_t i = 0; i < node->out_count && s < r->late; i++) {
            const int32_t v = node->first_out + i;
            if (node->op == FTR_OP_reshape)
                r->anchor[v] = r->anchor[node->in[0]];
            else
                r->made[v] = s;
            r->free_to_drop[v] = node->op != FTR_OP_reshape && r->bytes[v] > 0;
        }
    }
}

/* What lies in memory that stays is not worth dropping, nor is what is small beside the largest value. Small values are
 * stored even where only copies use them: they end the recomputation there. */
static void ftr__exclude_values(ftr__recompute *r) {
    size_t largest = 0;
    for (int32_t v = 1; v < r->values; v++)
        if (r->free_to_drop[v] && r->bytes[v] > largest) largest = r->bytes[v];
    for (int32_t v = 1; v < r->values; v++) {
        const ftr__slot *root = &r->plan->slots[r->plan->slots[v].root];
        const bool stays = root->kept || root->last == r->order_count || r->pinned[v];
        if (stays || r->bytes[v] < largest / 2048) r->free_to_drop[v] = false;
    }
    for (int32_t v = 1; v < r->values; v++) r->dropped[v] = r->free_to_drop[v] && !r->used_late[v];
}

bool ftr__recompute_open(ftr__recompute *r) {
    r->graph = r->plan->graph;
    r->order = r->plan->order;
    r->order_count = r->plan->order_count;
    r->values = r->graph->value_count;
    r->nodes = r->graph->node_count;
    if (!ftr__recompute_allocate(r)) return false;
    ftr__find_late(r);
    ftr__describe_values(r);
    for (int32_t s = 0; s < r->order_count; s++) ftr__describe_node(r, r->order[s]);
    ftr__describe_uses(r);
    ftr__exclude_values(r);
    return true;
}

/* ------------------------------------------------------------------------------------------------------- measure -- */

bool ftr__is_dropped(const ftr__recompute *r, int32_t value) { return r->dropped[r->anchor[value]]; }

/* Puts a node's copy into the sequence, the copies that it needs before it. */
static void ftr__place_copy(ftr__recompute *r, int32_t node) {
    int32_t depth = 0;
    r->stack[depth++] = node;
    r->copied[node] = true;
    r->next[node] = 0;
    while (depth > 0) {
        const int32_t top = r->stack[depth - 1];
        const ftr__node *n = &r->graph->nodes[top];
        int32_t waiting = -1;
        while (r->next[top] < n->in_count && waiting < 0) {
            const int32_t value = n->in[r->next[top]++], maker = r->graph->values[value].node;
            if (ftr__is_dropped(r, value) && !r->copied[maker]) waiting = maker;
        }
        if (waiting >= 0) {
            r->copied[waiting] = true;
            r->next[waiting] = 0;
            r->stack[depth++] = waiting;
            continue;
        }
        depth--;
        r->sequence[r->length++] = top + r->nodes;
        r->total_cost += r->cost[top];
        r->overhead += ftr__bookkeeping(n);
    }
}

static void ftr__place_all(ftr__recompute *r) {
    memset(r->copied, 0, (size_t)r->nodes);
    r->length = 0;
    r->total_cost = 0.0;
    r->overhead = 0;
    for (int32_t s = 0; s < r->order_count; s++) {
        const ftr__node *node = &r->graph->nodes[r->order[s]];
        for (int32_t i = 0; i < node->in_count && s >= r->late; i++) {
            const int32_t maker = r->graph->values[node->in[i]].node;
            if (ftr__is_dropped(r, node->in[i]) && !r->copied[maker]) ftr__place_copy(r, maker);
        }
        r->sequence[r->length++] = r->order[s];
    }
}

/* The node at a step of the sequence, and what is to be added to the numbers of its results. */
static const ftr__node *ftr__sequence_node(const ftr__recompute *r, int32_t step, int32_t *shift) {
    const int32_t n = r->sequence[step];
    *shift = n >= r->nodes ? r->values : 0;
    return &r->graph->nodes[n >= r->nodes ? n - r->nodes : n];
}

static int32_t ftr__reads(const ftr__recompute *r, int32_t step, int32_t value) {
    return step >= r->late && ftr__is_dropped(r, value) ? value + r->values : value;
}

static size_t ftr__live_bytes(const ftr__recompute *r, int32_t value) {
    return r->bytes[value >= r->values ? value - r->values : value];
}

static void ftr__measure_lifetimes(ftr__recompute *r) {
    for (int32_t v = 0; v < 2 * r->values; v++) {
        r->first[v] = r->last[v] = -1;
        r->root[v] = v;
        r->kept[v] = v < r->values && r->pinned[v];
    }
    for (int32_t s = 0; s < r->length; s++) {
        int32_t shift;
        const ftr__node *node = ftr__sequence_node(r, s, &shift);
        for (int32_t i = 0; i < node->out_count; i++)
            r->first[node->first_out + i + shift] = r->last[node->first_out + i + shift] = s;
        for (int32_t i = 0; i < node->in_count; i++) r->last[ftr__reads(r, s, node->in[i])] = s;
    }
    for (int32_t i = 0; i < r->plan->gradient_count; i++) r->last[r->plan->gradients[i]] = r->length;
}

static void ftr__measure_share(ftr__recompute *r, int32_t value, int32_t root) {
    r->root[value] = root;
    if (r->last[value] > r->last[root]) r->last[root] = r->last[value];
    r->kept[root] = r->kept[root] || r->kept[value];
}

static void ftr__measure_in_place(ftr__recompute *r, const ftr__node *node, uint32_t mask, int32_t out, int32_t step) {
    for (int32_t i = 0; i < node->in_count && i < 31; i++) {
        if (!(mask >> i & 1u)) continue;
        const int32_t in = ftr__reads(r, step, node->in[i]), root = r->root[in];
        if (!ftr__live_bytes(r, root) || r->kept[root] || r->last[root] != step) continue;
        bool alone = true;
        for (int32_t k = 0; k < node->in_count && alone; k++) {
            const int32_t other = ftr__reads(r, step, node->in[k]);
            alone = k == i || !other || other == in || r->root[other] != root;
        }
        if (!alone) continue;
        ftr__measure_share(r, out, root);
        return;
    }
}

static void ftr__measure_sharing(ftr__recompute *r) {
    for (int32_t s = 0; s < r->length; s++) {
        int32_t shift;
        const ftr__node *node = ftr__sequence_node(r, s, &shift);
        if (node->out_count == 0) continue;
        const int32_t out = node->first_out + shift, n = r->graph->values[node->first_out].node;
        if (!ftr__live_bytes(r, out)) continue;
        if (node->op != FTR_OP_reshape) {
            ftr__measure_in_place(r, node, r->in_place[n], out, s);
            continue;
        }
        const int32_t root = r->root[ftr__reads(r, s, node->in[0])];
        if (ftr__live_bytes(r, root)) ftr__measure_share(r, out, root);
    }
}

void ftr__recompute_measure(ftr__recompute *r) {
    ftr__place_all(r);
    ftr__measure_lifetimes(r);
    ftr__measure_sharing(r);
    memset(r->change, 0, ((size_t)r->length + 2) * sizeof *r->change);
    int64_t live = 0, most = 0;
    for (int32_t v = 1; v < 2 * r->values; v++) {
        const int64_t bytes = (int64_t)ftr__live_bytes(r, v);
        if (r->root[v] != v || !bytes || (r->first[v] < 0 && !r->kept[v])) continue;
        if (r->kept[v]) {
            live += bytes;
        } else {
            r->change[r->first[v]] += bytes;
            r->change[r->last[v] + 1] -= bytes;
        }
    }
    for (int32_t s = 0; s <= r->length; s++) {
        live += r->change[s];
        if (live > most) most = live;
    }
    r->peak = (size_t)most + r->overhead;
}
