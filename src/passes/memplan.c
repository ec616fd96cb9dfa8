/* Memory by lifetime. Results that are readable after a step, inputs and constants live for the whole step; gradients from
 * the node that makes them to the end of the step; other values from the node that makes them to their last user; large
 * scratch for its node alone. A reshape is an alias of its input. A result may take over its input's memory
 * where ops.def allows and nothing uses the input later. The rest are placed largest first, each at the lowest offset that
 * is free during its lifetime (the greedy-by-size method of Pisarchyk and Lee, 2020, arXiv:2001.03288). */
#include "passes/plan.h"

#include "core/sort.h"
#include "graph/op.h"

static size_t ftr__align(size_t bytes) { return (bytes + FTR__ALIGNMENT - 1) / FTR__ALIGNMENT * FTR__ALIGNMENT; }

static size_t ftr__value_bytes(const ftr__value *value) {
    return (size_t)ftr_shape_count(&value->shape) * ftr_dtype_size(value->dtype);
}

static ftr__slot *ftr__root_slot(ftr_plan *plan, int32_t value) { return &plan->slots[plan->slots[value].root]; }

/* A slot for each value that the schedule touches, in memory of its own. */
static void ftr__open_slots(ftr_plan *plan) {
    const ftr_graph *graph = plan->graph;
    for (int32_t n = 0; n < graph->node_count; n++) {
        const ftr__node *node = &graph->nodes[n];
        for (int32_t i = 0; i < node->out_count && !node->dead; i++) {
            const int32_t value = node->first_out + i;
            ftr__slot *slot = &plan->slots[value];
            *slot = (ftr__slot){.root = value, .place = FTR__PLACE_ACTIVATION, .first = -1, .last = -1};
            slot->bytes = ftr__value_bytes(&graph->values[value]);
            if (node->variable >= 0) {
                slot->place = FTR__PLACE_VARIABLE;
                slot->offset = plan->source->variables[node->variable].offset;
            } else if (node->op == FTR_OP_buffer) {
                slot->place = FTR__PLACE_STATE;
            }
            slot->kept = node->op == FTR_OP_input || node->op == FTR_OP_constant;
        }
    }
    for (int32_t i = 0; i < plan->kept_count; i++) plan->slots[plan->kept[i]].kept = true;
}

static void ftr__find_lifetimes(ftr_plan *plan) {
    const ftr_graph *graph = plan->graph;
    for (int32_t s = 0; s < plan->order_count; s++) {
        const ftr__node *node = &graph->nodes[plan->order[s]];
        for (int32_t i = 0; i < node->out_count; i++) {
            plan->slots[node->first_out + i].first = s;
            plan->slots[node->first_out + i].last = s;
        }
        for (int32_t i = 0; i < node->in_count; i++)
            if (node->in[i]) plan->slots[node->in[i]].last = s;
    }
    for (int32_t i = 0; i < plan->gradient_count; i++) /* readable after the step */
        if (plan->gradients[i]) plan->slots[plan->gradients[i]].last = plan->order_count;
}

static void ftr__share(ftr_plan *plan, int32_t value, int32_t root) {
    ftr__slot *slot = &plan->slots[value], *shared = &plan->slots[root];
    slot->root = root;
    if (slot->last > shared->last) shared->last = slot->last;
    shared->kept = shared->kept || slot->kept;
}

/* A reshape shares its input's memory, unless it must stay readable while its input is a variable that an update changes or,
 * for a gradient, an input that is fed again. It then runs as a copy. */
static void ftr__alias_reshape(ftr_plan *plan, const ftr__node *node) {
    const int32_t out = node->first_out, root = plan->slots[node->in[0]].root;
    const ftr__slot *slot = &plan->slots[out], *shared = &plan->slots[root];
    const bool gradient = slot->last == plan->order_count, movable = shared->place == FTR__PLACE_ACTIVATION;
    if (gradient ? !movable || shared->kept : slot->kept && !movable) return;
    ftr__share(plan, out, root);
}

/* Output 0 over an input that ends here. */
static void ftr__try_in_place(ftr_plan *plan, const ftr__node *node, int32_t step) {
    const uint32_t overwritable = ftr__op_info_of(node->op)->overwritable;
    const ftr_graph *graph = plan->graph;
    const int32_t out = node->first_out;
    if (plan->slots[out].place != FTR__PLACE_ACTIVATION) return;
    for (int32_t i = 0; i < node->in_count && i < 31; i++) {
        const int32_t in = node->in[i];
        if (!(overwritable >> i & 1u) || !in) continue;
        const ftr__slot *root = ftr__root_slot(plan, in);
        if (root->place != FTR__PLACE_ACTIVATION || root->kept || root->last != step) continue;
        const ftr__value *a = &graph->values[in], *b = &graph->values[out];
        if (a->dtype != b->dtype || !ftr_shape_equal(&a->shape, &b->shape)) continue;
        bool alone = true; /* another view of the same memory would be read in another order */
        for (int32_t k = 0; k < node->in_count; k++)
            alone =
                alone && (k == i || !node->in[k] || node->in[k] == in || plan->slots[node->in[k]].root != root->root);
        if (!alone) continue;
        ftr__share(plan, out, root->root);
        return;
    }
}

static void ftr__share_memory(ftr_plan *plan) {
    for (int32_t s = 0; s < plan->order_count; s++) {
        const ftr__node *node = &plan->graph->nodes[plan->order[s]];
        if (node->op == FTR_OP_reshape)
            ftr__alias_reshape(plan, node);
        else if (node->out_count > 0)
            ftr__try_in_place(plan, node, s);
    }
}

/* The memory of a value, or the scratch of a step. */
typedef struct ftr__lease {
    int32_t value, step, first, last; /* value 0: none */
    size_t bytes, offset;
} ftr__lease;

static int ftr__larger_first(const void *a, const void *b) {
    const ftr__lease *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
    return x->value != y->value ? (x->value < y->value ? -1 : 1) : x->step < y->step ? -1 : 1;
}

static bool ftr__overlaps(const ftr__lease *a, const ftr__lease *b) {
    return a->first <= b->last && b->first <= a->last;
}

/* The lowest offset where `lease` fits beside the placed ones that live at the same time: start at 0 and step over every
 * one in the way until none is. */
static size_t ftr__lowest_offset(const void *const *placed, int32_t count, const ftr__lease *lease) {
    size_t offset = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int32_t i = 0; i < count; i++) {
            const ftr__lease *other = placed[i];
            const bool in_way = offset < other->offset + other->bytes && other->offset < offset + lease->bytes;
            if (!in_way || !ftr__overlaps(other, lease)) continue;
            offset = other->offset + other->bytes;
            moved = true;
        }
    }
    return offset;
}

static int32_t ftr__lease_values(const ftr_plan *plan, ftr__lease *leases) {
    int32_t count = 0;
    for (int32_t v = 1; v < plan->graph->value_count; v++) {
        const ftr__slot *slot = &plan->slots[v];
        if (slot->place != FTR__PLACE_ACTIVATION || slot->root != v) continue;
        leases[count++] = (ftr__lease){.value = v,
                                       .first = slot->kept ? -1 : slot->first,
                                       .last = slot->kept ? plan->order_count : slot->last,
                                       .bytes = ftr__align(slot->bytes)};
    }
    return count;
}

static int32_t ftr__lease_scratch(const ftr_plan *plan, ftr__lease *leases) {
    int32_t count = 0;
    for (int32_t s = 0; plan->scratch && s < plan->order_count; s++)
        if (plan->scratch[s].bytes > FTR__SCRATCH_SHARED)
            leases[count++] =
                (ftr__lease){.step = s, .first = s, .last = s, .bytes = ftr__align(plan->scratch[s].bytes)};
    return count;
}

static ftr_status ftr__place_activations(ftr_plan *plan) {
    const size_t most = (size_t)plan->graph->value_count + (size_t)plan->order_count;
    ftr__lease *leases = ftr__arena_alloc(&plan->arena, most * sizeof *leases);
    const void **order = ftr__arena_alloc(&plan->arena, most * sizeof *order);
    if (!leases || !order) return ftr__out_of_memory(plan->context, "memplan", most * sizeof *leases);
    int32_t count = ftr__lease_values(plan, leases);
    count += ftr__lease_scratch(plan, leases + count);
    for (int32_t i = 0; i < count; i++) order[i] = &leases[i];
    ftr__sort(order, count, ftr__larger_first);
    size_t top = 0;
    for (int32_t i = 0; i < count; i++) {
        ftr__lease *lease = &leases[(const ftr__lease *)order[i] - leases];
        lease->offset = ftr__lowest_offset(order, i, lease);
        *(lease->value ? &plan->slots[lease->value].offset : &plan->scratch[lease->step].offset) = lease->offset;
        if (lease->offset + lease->bytes > top) top = lease->offset + lease->bytes;
    }
    plan->bytes[FTR__PLACE_ACTIVATION] = top;
    return FTR_OK;
}

/* State lies in the order of its declaration: flat arrays for the optimizer. */
static void ftr__place_state(ftr_plan *plan) {
    size_t top = 0;
    for (int32_t v = 1; v < plan->graph->value_count; v++) {
        ftr__slot *slot = &plan->slots[v];
        if (slot->place != FTR__PLACE_STATE) continue;
        slot->offset = top;
        top += ftr__align(slot->bytes);
    }
    plan->bytes[FTR__PLACE_STATE] = top;
}

/* Whether a gradient of a parameter lies among the activations, in memory that no gradient before it has. */
static bool ftr__adds_gradient(const ftr_plan *plan, int32_t index) {
    const int32_t gradient = plan->gradients[index];
    if (!gradient || plan->slots[plan->wrt[index]].place != FTR__PLACE_VARIABLE) return false;
    const int32_t root = plan->slots[gradient].root;
    for (int32_t i = 0; i < index; i++)
        if (plan->gradients[i] && plan->slots[plan->gradients[i]].root == root) return false;
    return plan->slots[root].place == FTR__PLACE_ACTIVATION;
}

/* Of the activations' memory, what gradients of parameters have at the end of a step. */
static void ftr__count_gradients(ftr_plan *plan) {
    plan->gradient_bytes = 0;
    for (int32_t i = 0; i < plan->gradient_count; i++)
        if (ftr__adds_gradient(plan, i)) plan->gradient_bytes += ftr__align(plan->slots[plan->gradients[i]].bytes);
}

ftr_status ftr__pass_memplan(ftr_plan *plan) {
    const size_t values = (size_t)plan->graph->value_count;
    plan->slots = ftr__arena_alloc(&plan->arena, values * sizeof *plan->slots);
    if (!plan->slots) return ftr__out_of_memory(plan->context, "memplan", values * sizeof *plan->slots);
    ftr__open_slots(plan);
    ftr__find_lifetimes(plan);
    ftr__share_memory(plan);
    const ftr_status status = ftr__place_activations(plan);
    if (status) return status;
    ftr__place_state(plan);
    ftr__count_gradients(plan);
    for (int32_t v = 1; v < plan->graph->value_count; v++) {
        ftr__slot *slot = &plan->slots[v];
        if (slot->place == FTR__PLACE_NONE) continue;
        const ftr__slot *root = ftr__root_slot(plan, v);
        slot->place = root->place;
        slot->offset = root->offset;
    }
    return FTR_OK;
}
