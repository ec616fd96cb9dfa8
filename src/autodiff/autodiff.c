#include "autodiff/autodiff.h"

#include "graph/op.h"

#include <string.h>

typedef struct ftr__tape {
    ftr_graph *graph;
    ftr__arena *arena;
    int32_t values;       /* of the forward graph */
    bool *depends;        /* value: differentiably depends on something of wrt */
    ftr_tensor *gradient; /* value: gradient of the loss, as far as it is known */
    bool marks;
} ftr__tape;

/* Whether a gradient flows from the node to its input number `index`. */
static bool ftr__flows_to(const ftr__node *node, const ftr__op_info *info, int32_t index) {
    return node->in[index] != 0 && info->grad && (info->differentiable >> (index < 31 ? index : 31) & 1u);
}

static void ftr__mark_dependent(ftr__tape *tape, const int32_t *wrt, int32_t count) {
    for (int32_t i = 0; i < count; i++) tape->depends[wrt[i]] = true;
    for (int32_t n = 0; n < tape->graph->node_count; n++) {
        const ftr__node *node = &tape->graph->nodes[n];
        const ftr__op_info *info = ftr__op_info_of(node->op);
        bool depends = false;
        for (int32_t i = 0; i < node->in_count && !depends; i++)
            depends = ftr__flows_to(node, info, i) && tape->depends[node->in[i]];
        for (int32_t i = 0; depends && i < node->out_count; i++)
            if (ftr__is_float(tape->graph->values[node->first_out + i].dtype))
                tape->depends[node->first_out + i] = true;
    }
}

/* The gradient as one of the value's type; with a mark also if it has that now, for mixed precision may change it. */
static ftr_tensor ftr__gradient_like(const ftr__tape *tape, int32_t value, ftr_tensor gradient) {
    ftr_graph *graph = tape->graph;
    const ftr_op_attr attr = {.cast = {graph->values[value].dtype}};
    if (!tape->marks && ftr_dtype_of(gradient) == attr.cast.dtype) return gradient;
    const ftr_tensor cast = ftr__emit(graph, FTR_OP_cast, NULL, &attr, &gradient, 1);
    if (tape->marks && ftr_is_valid(cast)) graph->nodes[graph->values[cast.id].node].like = value;
    return cast;
}

static void ftr__accumulate(ftr__tape *tape, int32_t value, ftr_tensor gradient) {
    ftr_tensor *sum = &tape->gradient[value];
    gradient = ftr__gradient_like(tape, value, gradient);
    *sum = ftr_is_valid(*sum) ? ftr_add(*sum, gradient) : gradient;
}

/* Emits the gradient of one node. The arrays that the grad function sees are copies: emitting moves the graph's own. */
static ftr_status ftr__differentiate_node(ftr__tape *tape, int32_t index) {
    ftr_graph *graph = tape->graph;
    const ftr__node node = graph->nodes[index];
    const ftr__op_info *info = ftr__op_info_of(node.op);
    bool arrives = false;
    for (int32_t i = 0; i < node.out_count; i++) arrives = arrives || ftr_is_valid(tape->gradient[node.first_out + i]);
    if (!arrives || !info->grad) return FTR_OK;
    const size_t count = (size_t)node.in_count;
    ftr_tensor *in = ftr__arena_alloc(tape->arena, count * sizeof *in);
    ftr_tensor *din = ftr__arena_alloc(tape->arena, count * sizeof *din);
    bool *wanted = ftr__arena_alloc(tape->arena, count * sizeof *wanted);
    if (!in || !din || !wanted) return ftr__out_of_memory(graph->context, "autodiff", count * sizeof *in);
    bool any = false;
    for (int32_t i = 0; i < node.in_count; i++) {
        if (node.in[i]) in[i] = (ftr_tensor){graph, node.in[i]};
        wanted[i] = ftr__flows_to(&node, info, i) && tape->depends[node.in[i]];
        any = any || wanted[i];
    }
    if (!any) return FTR_OK;
    ftr_tensor out[FTR__MAX_OUTPUTS] = {{NULL, 0}};
    for (int32_t i = 0; i < node.out_count; i++) out[i] = (ftr_tensor){graph, node.first_out + i};
    ftr__grad grad = {.graph = graph,
                      .node = &node,
                      .in = in,
                      .out = out,
                      .dout = &tape->gradient[node.first_out],
                      .wanted = wanted,
                      .din = din};
    info->grad(&grad);
    for (int32_t i = 0; i < node.in_count && !graph->status; i++)
        if (wanted[i] && ftr_is_valid(din[i])) ftr__accumulate(tape, node.in[i], din[i]);
    return graph->status ? ftr__error(graph->context, graph->status, "%s", graph->message) : FTR_OK;
}

/* Names what stands between a tensor and the loss. */
static ftr_status ftr__not_differentiable(const ftr__tape *tape, int32_t wrt, int32_t loss) {
    const ftr_graph *graph = tape->graph;
    const char *name = graph->nodes[graph->values[wrt].node].name;
    bool *reached = ftr__arena_alloc(tape->arena, (size_t)tape->values);
    if (!reached) return ftr__out_of_memory(graph->context, "autodiff", (size_t)tape->values);
    reached[wrt] = true;
    const ftr__node *barrier = NULL;
    for (int32_t n = 0; n < graph->node_count && graph->nodes[n].first_out < tape->values; n++) {
        const ftr__node *node = &graph->nodes[n];
        for (int32_t i = 0; i < node->in_count; i++) {
            if (!node->in[i] || !reached[node->in[i]]) continue;
            if (!ftr__flows_to(node, ftr__op_info_of(node->op), i) && !barrier) barrier = node;
            for (int32_t k = 0; k < node->out_count; k++) reached[node->first_out + k] = true;
        }
    }
    if (reached[loss] && barrier)
        return ftr__error(graph->context, FTR_ERROR_NOT_DIFFERENTIABLE,
                          "gradient of '%s': the loss depends on it only through %s '%s', which has no gradient", name,
                          ftr_op_name(barrier->op), barrier->name);
    return ftr__error(graph->context, FTR_ERROR_NOT_DIFFERENTIABLE, "gradient of '%s': the loss does not depend on it",
                      name);
}

static ftr_status ftr__check_loss(const ftr_graph *graph, int32_t loss) {
    const ftr__value *value = &graph->values[loss];
    const char *name = graph->nodes[value->node].name;
    char text[FTR__SHAPE_TEXT];
    if (ftr_shape_count(&value->shape) != 1)
        return ftr__error(graph->context, FTR_ERROR_SHAPE, "loss '%s': shape is %s, expected a scalar", name,
                          ftr__shape_text(&value->shape, text));
    if (!ftr__is_wide(value->dtype))
        return ftr__error(graph->context, FTR_ERROR_DTYPE, "loss '%s': dtype is %s, expected f32 or f64", name,
                          ftr_dtype_name(value->dtype));
    return FTR_OK;
}

/* The gradient of the loss with respect to itself. */
static ftr_tensor ftr__first_gradient(ftr_graph *graph, const ftr__differentiation *of) {
    const ftr__value value = graph->values[of->loss];
    ftr_tensor one = {graph, of->seed};
    if (of->seed == 0)
        one = ftr_scalar(graph, value.dtype, 1.0);
    else if (ftr_dtype_of(one) != value.dtype)
        one = ftr_cast(one, value.dtype);
    return ftr_expand(one, value.shape);
}

ftr_status ftr__differentiate(ftr_graph *graph, ftr__arena *arena, const ftr__differentiation *of) {
    const int32_t loss = of->loss;
    ftr_status status = ftr__check_loss(graph, loss);
    if (status) return status;
    ftr__tape tape = {.graph = graph, .arena = arena, .values = graph->value_count, .marks = of->marks};
    tape.depends = ftr__arena_alloc(arena, (size_t)tape.values * sizeof *tape.depends);
    tape.gradient = ftr__arena_alloc(arena, (size_t)tape.values * sizeof *tape.gradient);
    if (!tape.depends || !tape.gradient)
        return ftr__out_of_memory(graph->context, "autodiff", (size_t)tape.values * sizeof *tape.gradient);
    ftr__mark_dependent(&tape, of->wrt, of->count);
    for (int32_t i = 0; i < of->count; i++) of->gradients[i] = 0;
    if (tape.depends[loss]) {
        tape.gradient[loss] = ftr__first_gradient(graph, of); /* without a mark: a scale may be too large for f16 */
        for (int32_t n = graph->values[loss].node; n >= 0 && !status; n--) status = ftr__differentiate_node(&tape, n);
    }
    for (int32_t i = 0; i < of->count && !status; i++) {
        const int32_t wrt = of->wrt[i];
        const ftr_tensor gradient = tape.gradient[wrt];
        if (!ftr_is_valid(gradient)) {
            if (of->required[i]) status = ftr__not_differentiable(&tape, wrt, loss);
            continue;
        }
        /* A value of its own, even if two tensors share their gradient. Where it can, the memory plan makes it an alias. */
        of->gradients[i] = ftr_reshape(gradient, graph->values[wrt].shape).id;
    }
    if (!status && graph->status) status = ftr__error(graph->context, graph->status, "%s", graph->message);
    return status;
}
