/* Mixed precision as PyTorch's autocast: each node gets its inputs in the type that its op's class asks for (ops.def), through
 * casts, and its results follow from that by inference. Runs behind autodiff, on forward and backward alike: a gradient
 * has the type of what it is the gradient of, where autodiff left a cast as a mark (ftr__node.like). The list of nodes is
 * written anew, in the same order, with the casts in front of their first users. */
#include "passes/plan.h"

#include "graph/op.h"

#include <stdio.h>
#include <string.h>

enum { FTR__AMP_KINDS = 3 }; /* f32, f16, bf16 */

typedef struct ftr__amp_pass {
    ftr_plan *plan;
    ftr_graph *graph;
    ftr_dtype half;
    int32_t count, capacity;          /* of values: before the pass, and with all casts that may come */
    ftr_dtype *declared;              /* by value: its type before the pass */
    int32_t *now;                     /* by value: what its users take in its place */
    int32_t (*casts)[FTR__AMP_KINDS]; /* by value: its casts; 0: none yet */
    int32_t *made_of;                 /* by value: what this pass made it of, with another type; 0: not by this pass */
    bool backward;                    /* of the node in hand */
} ftr__amp_pass;

/* Place of a type in `casts`; -1 for others. */
static int32_t ftr__amp_kind(ftr_dtype dtype) {
    return dtype == FTR_F32 ? 0 : dtype == FTR_F16 ? 1 : dtype == FTR_BF16 ? 2 : -1;
}

static ftr_status ftr__amp_error(const ftr__amp_pass *a) {
    return ftr__error(a->plan->context, a->graph->status, "%s", a->graph->message);
}

static ftr_dtype ftr__amp_type(const ftr__amp_pass *a, int32_t value) { return a->graph->values[value].dtype; }

static const ftr__node *ftr__amp_producer(const ftr__amp_pass *a, int32_t value) {
    return &a->graph->nodes[a->graph->values[value].node];
}

/* --------------------------------------------------------------------------------------------------------- casts -- */

static const char *ftr__amp_name(const ftr__node *producer, ftr_dtype dtype, char name[320]) {
    snprintf(name, 320, "%.300s.%s", producer->name, ftr_dtype_name(dtype));
    return name;
}

/* A constant is converted here, once. */
static ftr_tensor ftr__amp_constant(ftr__amp_pass *a, const ftr__node *constant, int32_t value, ftr_dtype dtype) {
    const ftr_shape shape = a->graph->values[value].shape;
    const int64_t count = ftr_shape_count(&shape);
    void *data = ftr__arena_alloc(&a->plan->arena, (size_t)count * ftr_dtype_size(dtype));
    if (!data)
        return ftr__builder_error(a->graph, FTR_ERROR_OUT_OF_MEMORY, "constant", constant->name,
                                  "it could not be allocated");
    ftr_convert(ftr__amp_type(a, value), constant->constant, dtype, data, count);
    return ftr_constant(a->graph, dtype, shape, data);
}

static int32_t ftr__amp_cast(ftr__amp_pass *a, int32_t value, ftr_dtype dtype);

/* A cast to a smaller type is done before its operand is stretched, once: what is stretched twice is cast as it is. */
static bool ftr__amp_is_stretched(const ftr__amp_pass *a, const ftr__node *producer, ftr_dtype dtype) {
    return producer->op == FTR_OP_expand && ftr__is_half(dtype) &&
           ftr__amp_producer(a, producer->in[0])->op != FTR_OP_expand;
}

static ftr_tensor ftr__amp_expand(ftr__amp_pass *a, const ftr__node *expand, ftr_dtype dtype) {
    const ftr_op_attr attr = expand->attr;
    char name[320];
    ftr__amp_name(expand, dtype, name);
    const ftr_tensor in = {a->graph, ftr__amp_cast(a, expand->in[0], dtype)};
    return ftr__emit(a->graph, FTR_OP_expand, name, &attr, &in, 1);
}

/* The value that this one is a copy of in another type, if that type is `dtype`; 0 otherwise. f16 or bf16 to f32 and back is
 * exact, so the value before is meant. From f32 there and back it is not, but where this pass put the rounding in, leaving it
 * out is as good. */
static int32_t ftr__amp_before_cast(const ftr__amp_pass *a, int32_t value, ftr_dtype dtype) {
    const ftr__node *producer = ftr__amp_producer(a, value);
    const int32_t before = a->made_of[value];
    if (before && ftr__amp_type(a, before) == dtype) return before;
    const bool exact = ftr__is_half(dtype) && ftr__amp_type(a, value) == FTR_F32;
    return exact && producer->op == FTR_OP_cast && ftr__amp_type(a, producer->in[0]) == dtype ? producer->in[0] : 0;
}

static ftr_tensor ftr__amp_make_cast(ftr__amp_pass *a, int32_t value, ftr_dtype dtype) {
    const ftr__node producer = *ftr__amp_producer(a, value);
    if (producer.op == FTR_OP_constant) return ftr__amp_constant(a, &producer, value, dtype);
    if (ftr__amp_is_stretched(a, &producer, dtype)) return ftr__amp_expand(a, &producer, dtype);
    const ftr_op_attr attr = {.cast = {dtype}};
    const ftr_tensor in = {a->graph, value};
    char name[320];
    return ftr__emit(a->graph, FTR_OP_cast, ftr__amp_name(&producer, dtype, name), &attr, &in, 1);
}

/* The value as one of type f32, f16 or bf16. After an error of the graph, which ends the pass, the value itself. */
static int32_t ftr__amp_cast(ftr__amp_pass *a, int32_t value, ftr_dtype dtype) {
    if (ftr__amp_type(a, value) == dtype) return value;
    const int32_t before = ftr__amp_before_cast(a, value, dtype), kind = ftr__amp_kind(dtype);
    if (before || a->casts[value][kind]) return before ? before : a->casts[value][kind];
    const ftr_tensor cast = ftr__amp_make_cast(a, value, dtype);
    if (!ftr_is_valid(cast)) return value;
    a->graph->nodes[a->graph->values[cast.id].node].backward = a->backward;
    a->made_of[cast.id] = value;
    a->casts[value][kind] = cast.id;
    return cast.id;
}

/* --------------------------------------------------------------------------------------------------------- nodes -- */

static ftr__amp_class ftr__amp_class_of(const ftr__node *node) {
    return node->keep_f32 ? FTR__AMP_F32 : ftr__op_info_of(node->op)->amp;
}

/* The first floating-point input; 0 if there is none, or if one is f64, which nothing is done to. */
static int32_t ftr__amp_first(const ftr__amp_pass *a, const ftr__node *node) {
    int32_t first = 0;
    for (int32_t i = 0; i < node->in_count; i++) {
        const ftr_dtype dtype = ftr__amp_type(a, node->in[i]);
        if (!node->in[i] || !ftr__is_float(dtype)) continue;
        if (dtype == FTR_F64) return 0;
        if (!first) first = node->in[i];
    }
    return first;
}

static bool ftr__amp_is_scalar(const ftr__amp_pass *a, int32_t value) {
    return a->graph->values[value].shape.rank == 0;
}

/* Two different half types meet in f32. */
static ftr_dtype ftr__amp_widest(const ftr__amp_pass *a, const ftr__node *node) {
    ftr_dtype widest[2] = {FTR_DTYPE_NONE, FTR_DTYPE_NONE}; /* of tensors, of scalars */
    for (int32_t i = 0; i < node->in_count; i++) {
        const ftr_dtype dtype = ftr__amp_type(a, node->in[i]);
        if (!node->in[i] || !ftr__is_float(dtype)) continue;
        ftr_dtype *w = &widest[ftr__amp_is_scalar(a, node->in[i])];
        *w = *w == FTR_DTYPE_NONE || *w == dtype ? dtype : FTR_F32;
    }
    return widest[0] != FTR_DTYPE_NONE ? widest[0] : widest[1];
}

/* What a forward op gives beside its result, statistics of rows for instance, goes to its gradient as it is. */
static bool ftr__amp_is_statistic(const ftr__amp_pass *a, const ftr__node *node, int32_t value) {
    return node->backward && a->graph->values[value].output > 0 && !ftr__amp_producer(a, value)->backward;
}

/* Casts the floating-point inputs to `dtype`. */
static void ftr__amp_cast_inputs(ftr__amp_pass *a, ftr__node *node, ftr_dtype dtype) {
    for (int32_t i = 0; i < node->in_count; i++)
        if (node->in[i] && ftr__is_float(ftr__amp_type(a, node->in[i])) && !ftr__amp_is_statistic(a, node, node->in[i]))
            node->in[i] = ftr__amp_cast(a, node->in[i], dtype);
}

/* Tensors in their widest type, f32 scalars beside tensors of a half type as they are; if the op does not take such a pair,
 * all in f32. */
static void ftr__amp_cast_to_widest(ftr__amp_pass *a, ftr__node *node) {
    const ftr_dtype widest = ftr__amp_widest(a, node);
    ftr_dtype types[FTR__MAX_OUTPUTS];
    bool mixed = false;
    for (int32_t i = 0; i < node->in_count; i++) {
        const int32_t in = node->in[i];
        if (!in || !ftr__is_float(ftr__amp_type(a, in))) continue;
        const bool stays = ftr__is_half(widest) && ftr__amp_is_scalar(a, in) && ftr__amp_type(a, in) == FTR_F32;
        mixed = mixed || stays;
        if (!stays) node->in[i] = ftr__amp_cast(a, in, widest);
    }
    if (mixed && !ftr__infer_types(a->graph, node, true, types)) ftr__amp_cast_inputs(a, node, FTR_F32);
}

static void ftr__amp_cast_norm(ftr__amp_pass *a, ftr__node *node, int32_t first) {
    const ftr_dtype dtype = ftr__amp_type(a, first);
    const ftr_shape shape = a->graph->values[first].shape;
    for (int32_t i = 0; i < node->in_count; i++) {
        const int32_t in = node->in[i];
        if (!in || !ftr__is_float(ftr__amp_type(a, in))) continue;
        const bool follows = ftr_shape_equal(&a->graph->values[in].shape, &shape);
        node->in[i] = ftr__amp_cast(a, in, follows ? dtype : FTR_F32);
    }
}

/* The inputs' types as they were declared. `in` are the inputs before the pass. */
static void ftr__amp_cast_declared(ftr__amp_pass *a, ftr__node *node, const int32_t *in) {
    for (int32_t i = 0; i < node->in_count; i++)
        if (in[i] && ftr__is_float(a->declared[in[i]])) node->in[i] = ftr__amp_cast(a, node->in[i], a->declared[in[i]]);
}

static void ftr__amp_cast_by_class(ftr__amp_pass *a, ftr__node *node, const int32_t *in) {
    const int32_t first = ftr__amp_first(a, node);
    if (node->op == FTR_OP_cast) return; /* takes any type */
    switch (first ? ftr__amp_class_of(node) : FTR__AMP_NONE) {
    case FTR__AMP_LOW: ftr__amp_cast_inputs(a, node, a->half); break;
    case FTR__AMP_F32: ftr__amp_cast_inputs(a, node, FTR_F32); break;
    case FTR__AMP_WIDEST: ftr__amp_cast_to_widest(a, node); break;
    case FTR__AMP_ANY: ftr__amp_cast_inputs(a, node, ftr__amp_type(a, first)); break;
    case FTR__AMP_NORM: ftr__amp_cast_norm(a, node, first); break;
    case FTR__AMP_NONE: ftr__amp_cast_declared(a, node, in); break;
    }
}

/* Puts a node into the new list. */
static ftr__node *ftr__amp_append(ftr__amp_pass *a, const ftr__node *node) {
    ftr_graph *graph = a->graph;
    for (int32_t i = 0; i < node->out_count; i++) graph->values[node->first_out + i].node = graph->node_count;
    graph->nodes[graph->node_count] = *node;
    return &graph->nodes[graph->node_count++];
}

/* What takes the place of a cast of the graph's own to its type; 0: it stays. */
static int32_t ftr__amp_instead_of_cast(ftr__amp_pass *a, int32_t in, ftr_dtype dtype) {
    const int32_t kind = ftr__amp_kind(dtype);
    if (ftr__amp_type(a, in) == dtype) return in;
    if (kind < 0) return 0;
    const int32_t before = ftr__amp_before_cast(a, in, dtype), same = a->casts[in][kind];
    if (same) a->made_of[same] = 0; /* the graph asks for its rounding */
    return before ? before : same;
}

/* Whether a node is a cast that something else replaces: a mark of autodiff, or one that is not needed. */
static bool ftr__amp_resolve_cast(ftr__amp_pass *a, ftr__node *node) {
    const int32_t in = node->in[0];
    if (node->op != FTR_OP_cast) return false;
    const ftr_dtype like = node->like ? ftr__amp_type(a, a->now[node->like]) : FTR_DTYPE_NONE;
    const int32_t instead =
        ftr__amp_kind(like) >= 0 ? ftr__amp_cast(a, in, like) : ftr__amp_instead_of_cast(a, in, node->attr.cast.dtype);
    if (instead) a->now[node->first_out] = instead;
    return instead != 0;
}

static ftr_status ftr__amp_node(ftr__amp_pass *a, ftr__node node, bool needed) {
    ftr_graph *graph = a->graph;
    ftr_dtype types[FTR__MAX_OUTPUTS];
    int32_t *in = ftr__arena_alloc(&a->plan->arena, (size_t)node.in_count * sizeof *in);
    if (!in) return ftr__out_of_memory(a->plan->context, "amp", (size_t)node.in_count * sizeof *in);
    for (int32_t i = 0; i < node.in_count; i++) {
        in[i] = node.in[i];
        node.in[i] = a->now[in[i]];
    }
    a->backward = node.backward;
    if (needed && node.in_count > 0) {
        if (ftr__amp_resolve_cast(a, &node))
            needed = false;
        else
            ftr__amp_cast_by_class(a, &node, in);
    }
    if (graph->status) return ftr__amp_error(a);
    node.dead = node.dead || !needed;
    ftr__amp_append(a, &node);
    if (node.dead || node.in_count == 0 || node.out_count == 0) return FTR_OK;
    if (!ftr__infer_types(graph, &node, false, types)) return ftr__amp_error(a);
    for (int32_t i = 0; i < node.out_count; i++) graph->values[node.first_out + i].dtype = types[i];
    if (node.op == FTR_OP_cast && ftr__amp_kind(types[0]) >= 0) /* one of the graph's own serves others too */
        a->casts[node.in[0]][ftr__amp_kind(types[0])] = node.first_out;
    return FTR_OK;
}

/* ----------------------------------------------------------------------------------------------- what can be read -- */

/* What the caller reads, and the gradients, get their declared types. */
static int32_t ftr__amp_restore(ftr__amp_pass *a, int32_t value) {
    const int32_t now = a->now[value];
    return ftr__is_float(a->declared[value]) ? ftr__amp_cast(a, now, a->declared[value]) : now;
}

static void ftr__amp_restore_all(ftr__amp_pass *a) {
    ftr_plan *plan = a->plan;
    a->backward = false;
    for (int32_t i = 0; i < plan->kept_count; i++) {
        const int32_t kept = plan->kept[i];
        if (kept >= a->count) continue; /* done with an equal one before it */
        const int32_t restored = ftr__amp_restore(a, kept);
        for (int32_t k = 0; k < plan->renamed_count; k++)
            if (plan->renamed[k] == kept) plan->renamed[k] = restored;
        for (int32_t k = 0; k < plan->gradient_count; k++)
            if (plan->wrt[k] == kept) plan->wrt[k] = restored;
        if (plan->loss == kept) plan->loss = restored;
        for (int32_t k = plan->kept_count - 1; k >= i; k--)
            if (plan->kept[k] == kept) plan->kept[k] = restored;
    }
    a->backward = true;
    for (int32_t i = 0; i < plan->gradient_count; i++)
        if (plan->gradients[i]) plan->gradients[i] = ftr__amp_restore(a, plan->gradients[i]);
}

/* ---------------------------------------------------------------------------------------------------------- pass -- */

static ftr_status ftr__amp_open(ftr__amp_pass *a, ftr_plan *plan) {
    ftr_graph *graph = a->graph;
    /* An input may be cast, and in vain, through a node that stretches it. */
    int32_t casts = 4 * (plan->kept_count + plan->gradient_count);
    for (int32_t n = 0; n < graph->node_count; n++) casts += 4 * graph->nodes[n].in_count;
    a->count = graph->value_count;
    a->capacity = graph->value_count + casts;
    const size_t values = (size_t)a->capacity;
    a->declared = ftr__arena_alloc(&plan->arena, values * sizeof *a->declared);
    a->now = ftr__arena_alloc(&plan->arena, values * sizeof *a->now);
    a->casts = ftr__arena_alloc(&plan->arena, values * sizeof *a->casts);
    a->made_of = ftr__arena_alloc(&plan->arena, values * sizeof *a->made_of);
    if (!a->declared || !a->now || !a->casts || !a->made_of)
        return ftr__out_of_memory(plan->context, "amp", values * sizeof *a->casts);
    for (int32_t v = 0; v < graph->value_count; v++) {
        a->declared[v] = graph->values[v].dtype;
        a->now[v] = v;
    }
    graph->node_capacity = graph->node_count + casts;
    graph->nodes = ftr__arena_alloc(&graph->arena, (size_t)graph->node_capacity * sizeof *graph->nodes);
    return graph->nodes ? FTR_OK
                        : ftr__out_of_memory(plan->context, "amp", (size_t)graph->node_capacity * sizeof *graph->nodes);
}

ftr_status ftr__pass_amp(ftr_plan *plan, ftr_amp amp) {
    ftr_graph *graph = plan->graph;
    const int32_t count = graph->node_count;
    const ftr__node *nodes = graph->nodes; /* the arena keeps them */
    ftr__amp_pass a = {.plan = plan, .graph = graph, .half = amp == FTR_AMP_FP16 ? FTR_F16 : FTR_BF16};
    bool *needed = ftr__arena_alloc(&plan->arena, (size_t)count);
    if (!needed) return ftr__out_of_memory(plan->context, "amp", (size_t)count);
    ftr_status status = ftr__mark_needed(plan, needed);
    if (!status) status = ftr__amp_open(&a, plan);
    if (status) return status;
    graph->node_count = 0;
    for (int32_t n = 0; n < count && !status; n++) status = ftr__amp_node(&a, nodes[n], needed[n]);
    if (status) return status;
    ftr__amp_restore_all(&a);
    return graph->status ? ftr__amp_error(&a) : FTR_OK;
}
