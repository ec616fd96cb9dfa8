#include "passes/plan.h"

#include "core/platform.h"

#include <string.h>

typedef struct ftr__fuser {
    ftr_plan *plan;
    ftr_graph *graph;
    uint32_t off;  /* fusions that are left out */
    int32_t *uses; /* of each value; one more if it is kept */
    bool *needed;  /* nodes */
} ftr__fuser;

static bool ftr__may(const ftr__fuser *f, ftr_fusion fusion) { return (f->off & (uint32_t)fusion) == 0; }

static void ftr__count_uses(ftr__fuser *f) {
    for (int32_t v = 0; v < f->graph->value_count; v++) f->uses[v] = 0;
    for (int32_t n = 0; n < f->graph->node_count; n++) {
        const ftr__node *node = &f->graph->nodes[n];
        for (int32_t i = 0; f->needed[n] && i < node->in_count; i++) f->uses[node->in[i]]++;
    }
    for (int32_t i = 0; i < f->plan->kept_count; i++) f->uses[f->plan->kept[i]]++;
    for (int32_t i = 0; i < f->plan->gradient_count; i++) f->uses[f->plan->gradients[i]]++;
}

/* The live node that produces a value which only one other node uses; NULL otherwise. */
static ftr__node *ftr__only_for_next(const ftr__fuser *f, int32_t value) {
    if (value == 0 || f->uses[value] != 1) return NULL;
    ftr__node *node = &f->graph->nodes[f->graph->values[value].node];
    return node->dead || node->first_out != value ? NULL : node;
}

static void ftr__remove(ftr__fuser *f, ftr__node *node, int32_t replacement) {
    node->dead = true;
    f->uses[replacement] += f->uses[node->first_out] - 1; /* minus the removed node's own use */
    ftr__plan_rename(f->plan, node->first_out, replacement);
}

static ftr_activation *ftr__activation_of(ftr__node *node) {
    switch (node->op) {
    case FTR_OP_linear: return &node->attr.linear.activation;
    case FTR_OP_conv2d: return &node->attr.conv.activation;
    case FTR_OP_batch_norm: return &node->attr.norm.activation;
    default: return NULL;
    }
}

/* Of one type and shape. */
static bool ftr__same_kind(const ftr_graph *graph, int32_t a, int32_t b) {
    return graph->values[a].dtype == graph->values[b].dtype &&
           ftr_shape_equal(&graph->values[a].shape, &graph->values[b].shape);
}

/* Copies the node's inputs into an array with room for `count`. False when memory is short. */
static bool ftr__widen_inputs(ftr__fuser *f, ftr__node *node, int32_t count) {
    int32_t *in = ftr__arena_alloc(&f->graph->arena, (size_t)count * sizeof *in);
    if (!in) return false;
    for (int32_t i = 0; i < count; i++) in[i] = i < node->in_count ? node->in[i] : 0;
    node->in = in;
    node->in_count = count;
    return true;
}

/* batch_norm(x) + residual, the residual being the sum's other operand. It cannot depend on the batch norm, whose only user
 * is the sum; it may come from a later node, which the schedule takes care of. */
static void ftr__fuse_residual(ftr__fuser *f, ftr__node *add) {
    for (int32_t k = 0; k < 2; k++) {
        ftr__node *norm = ftr__only_for_next(f, add->in[k]);
        const int32_t residual = add->in[1 - k];
        if (!norm || norm->op != FTR_OP_batch_norm || norm->attr.norm.activation != FTR_ACT_NONE) continue;
        if (norm->in_count == 7 && norm->in[6]) continue;
        if (!ftr__same_kind(f->graph, residual, add->first_out) || !ftr__same_kind(f->graph, add->in[k], residual))
            continue;
        if (!ftr__widen_inputs(f, norm, 7)) return;
        norm->in[6] = residual;
        norm->fused = "add";
        ftr__remove(f, add, norm->first_out);
        return;
    }
}

/* x [.., in] w + bias with a matrix w, [in, out] or, transposed, [out, in], as a linear layer. In f32 alone: mixed precision
 * has cast the products by then, not the sums. */
static void ftr__fuse_bias(ftr__fuser *f, ftr__node *add) {
    const ftr__value *values = f->graph->values;
    for (int32_t k = 0; k < 2; k++) {
        ftr__node *product = ftr__only_for_next(f, add->in[k]);
        const ftr__value *bias = &values[add->in[1 - k]];
        if (!product || product->op != FTR_OP_matmul || product->attr.matmul.transpose_a) continue;
        const ftr__value *y = &values[product->first_out];
        if (y->dtype != FTR_F32 || values[product->in[1]].shape.rank != 2 || bias->shape.rank != 1 ||
            bias->shape.dim[0] != y->shape.dim[y->shape.rank - 1] ||
            !ftr__same_kind(f->graph, product->first_out, add->first_out))
            continue;
        const bool in_out = !product->attr.matmul.transpose_b;
        if (!ftr__widen_inputs(f, product, 3)) return;
        product->op = FTR_OP_linear;
        product->attr = (ftr_op_attr){.linear = {.activation = FTR_ACT_NONE, .in_out = in_out}};
        product->in[2] = add->in[1 - k];
        product->fused = "matmul, add";
        ftr__remove(f, add, product->first_out);
        return;
    }
}

/* relu(f(x)) and relu(batch_norm(x) + residual). */
static void ftr__fuse_relu(ftr__fuser *f, ftr__node *relu) {
    ftr__node *producer = ftr__only_for_next(f, relu->in[0]);
    ftr_activation *activation = producer ? ftr__activation_of(producer) : NULL;
    if (!activation || *activation != FTR_ACT_NONE) return;
    *activation = FTR_ACT_RELU;
    const bool with_more = producer->fused != NULL;
    producer->fused = !with_more ? "relu" : producer->op == FTR_OP_linear ? "matmul, add, relu" : "add, relu";
    ftr__remove(f, relu, producer->first_out);
}

/* An activation that batch norm can take over, and the op of its gradient. */
typedef struct ftr__smooth {
    ftr_activation activation; /* FTR_ACT_NONE: the node is no such */
    ftr_op gradient;
    bool by_result; /* the gradient's second input is the activation's result, otherwise what went into it */
} ftr__smooth;

static ftr__smooth ftr__smooth_of(const ftr__node *node) {
    switch (node->op) {
    case FTR_OP_silu: return (ftr__smooth){FTR_ACT_SILU, FTR_OP_silu_grad, false};
    case FTR_OP_hardswish: return (ftr__smooth){FTR_ACT_HARDSWISH, FTR_OP_hardswish_grad, false};
    case FTR_OP_clamp:
        if (node->attr.pointwise.a != 0.0 || node->attr.pointwise.b != 6.0) break;
        return (ftr__smooth){FTR_ACT_RELU6, FTR_OP_clamp_grad, true};
    default: break;
    }
    return (ftr__smooth){FTR_ACT_NONE, node->op, false};
}

/* The only live node of an op that takes `value` as input number `input`; NULL if there is none, or more. */
static ftr__node *ftr__user_of(const ftr__fuser *f, ftr_op op, int32_t value, int32_t input) {
    ftr__node *user = NULL;
    for (int32_t n = 0; n < f->graph->node_count; n++) {
        ftr__node *node = &f->graph->nodes[n];
        if (!f->needed[n] || node->dead || node->op != op || node->in[input] != value) continue;
        if (user) return NULL;
        user = node;
    }
    return user;
}

/* Has batch norm's gradient do what `slope`, the activation's, does. False if it cannot. */
static bool ftr__fuse_slope(ftr__fuser *f, const ftr__node *norm, ftr_activation activation, ftr__node *slope) {
    const int32_t dy = slope->in[0];
    ftr__node *grad = ftr__user_of(f, FTR_OP_batch_norm_grad, slope->first_out, 0);
    if (!grad || f->uses[slope->first_out] != 1 || grad->in[1] != norm->in[0] || grad->in[2] != norm->in[1] ||
        grad->attr.norm.activation != FTR_ACT_NONE || !ftr__same_kind(f->graph, dy, grad->in[1]) ||
        !ftr__widen_inputs(f, grad, 8))
        return false;
    grad->in[7] = norm->in[2];
    grad->attr.norm.activation = activation;
    grad->fused = ftr_op_name(slope->op);
    f->uses[slope->in[1]]--;
    ftr__remove(f, slope, dy);
    return true;
}

/* act(batch_norm(x)) and batch_norm_grad(act_grad(dy, .), x): the gradient computes what goes into the activation from x
 * again, so that it need not be kept. Both or, where there is no gradient, the first alone. */
static void ftr__fuse_smooth(ftr__fuser *f, ftr__node *act) {
    const ftr__smooth smooth = ftr__smooth_of(act);
    const int32_t before = act->in[0];
    ftr__node *norm = &f->graph->nodes[f->graph->values[before].node];
    if (norm->op != FTR_OP_batch_norm || norm->dead || norm->first_out != before ||
        norm->attr.norm.activation != FTR_ACT_NONE || (norm->in_count > 6 && norm->in[6]))
        return;
    ftr__node *slope = ftr__user_of(f, smooth.gradient, smooth.by_result ? act->first_out : before, 1);
    if (f->uses[before] != (slope && !smooth.by_result ? 2 : 1)) return;
    if (slope && !ftr__fuse_slope(f, norm, smooth.activation, slope)) return;
    norm->attr.norm.activation = smooth.activation;
    norm->fused = ftr_op_name(act->op);
    ftr__remove(f, act, before);
}

/* batch_norm_grad(relu_grad(dy, y)): the gradient masks dy itself. Where y is relu(batch_norm(x)) and no more, it computes what
 * went into the ReLU from x again, which it reads anyway. */
static void ftr__fuse_relu_grad(ftr__fuser *f, ftr__node *grad) {
    ftr__node *mask = ftr__only_for_next(f, grad->in[0]);
    if (!mask || mask->op != FTR_OP_relu_grad || grad->attr.norm.activation != FTR_ACT_NONE) return;
    const int32_t dy = mask->in[0], y = mask->in[1];
    if (!ftr__same_kind(f->graph, dy, grad->in[1]) || !ftr__widen_inputs(f, grad, 8)) return;
    const ftr__node *norm = &f->graph->nodes[f->graph->values[y].node];
    const bool from_x = norm->op == FTR_OP_batch_norm && !norm->dead && norm->first_out == y &&
                        norm->attr.norm.activation == FTR_ACT_RELU && !(norm->in_count > 6 && norm->in[6]) &&
                        norm->in[0] == grad->in[1] && norm->in[1] == grad->in[2];
    if (from_x)
        grad->in[7] = norm->in[2], f->uses[norm->in[2]]++, f->uses[y]--;
    else
        grad->in[6] = y;
    grad->attr.norm.activation = FTR_ACT_RELU;
    grad->fused = "relu_grad";
    ftr__remove(f, mask, dy);
}

/* batch_norm with running statistics, and all that it has taken over, behind a convolution: one node, so that the
 * convolution's result is touched once. */
static void ftr__fuse_conv_norm(ftr__fuser *f, ftr__node *norm) {
    ftr__node *conv = ftr__only_for_next(f, norm->in[0]);
    if (norm->attr.norm.training || !conv || conv->op != FTR_OP_conv2d || conv->in_count > 3 ||
        conv->attr.conv.activation != FTR_ACT_NONE)
        return;
    for (int32_t i = 1; i < norm->out_count; i++)
        if (f->uses[norm->first_out + i]) return;
    if (!ftr__widen_inputs(f, conv, 8)) return;
    for (int32_t i = 1; i < 5; i++) conv->in[i + 2] = norm->in[i];
    conv->in[7] = norm->in_count > 6 ? norm->in[6] : 0;
    conv->attr.conv.activation = norm->attr.norm.activation;
    conv->attr.conv.eps = norm->attr.norm.eps;
    conv->fused = norm->fused ? "batch_norm and what followed it" : "batch_norm";
    ftr__remove(f, norm, conv->first_out);
}

/* Whether the backward pass reads a value as any node but `except` does. */
static bool ftr__is_read_backward(const ftr__fuser *f, int32_t value, const ftr__node *except) {
    for (int32_t n = 0; n < f->graph->node_count; n++) {
        const ftr__node *node = &f->graph->nodes[n];
        if (!f->needed[n] || node->dead || !node->backward || node == except) continue;
        for (int32_t i = 0; i < node->in_count; i++)
            if (node->in[i] == value) return true;
    }
    return false;
}

/* x * factors [n, 1, 1, c]: the inputs by number; false if the node is no such. */
static bool ftr__is_channel_scale(const ftr_graph *graph, const ftr__node *node, int32_t *x, int32_t *factors) {
    if (node->op != FTR_OP_mul) return false;
    const ftr_shape *out = &graph->values[node->first_out].shape;
    for (int32_t k = 0; k < 2 && out->rank == 4; k++) {
        const ftr_shape expected = FTR_SHAPE(out->dim[0], 1, 1, out->dim[3]);
        *x = node->in[k];
        *factors = node->in[1 - k];
        if (ftr_shape_equal(&graph->values[*x].shape, out) &&
            ftr_shape_equal(&graph->values[*factors].shape, &expected))
            return true;
    }
    return false;
}

/* relu(batch_norm(x)) of this batch's statistics, and no more. */
static bool ftr__is_norm_relu(const ftr__node *norm, int32_t value) {
    return norm->op == FTR_OP_batch_norm && norm->first_out == value && norm->attr.norm.training &&
           norm->attr.norm.activation == FTR_ACT_RELU && !(norm->in_count > 6 && norm->in[6]);
}

/* conv2d_grad_weight(dy, relu(batch_norm(x))) and conv2d_grad_weight(dy, x * factors) of 1x1 convolutions in f32: what is kept
 * for the gradient is x, which other gradients read too, and what was done to it is done again. */
static void ftr__fuse_input(ftr__fuser *f, ftr__node *grad) {
    const ftr_op_attr *attr = &grad->attr;
    const int32_t value = grad->in[1];
    const ftr__node *maker = &f->graph->nodes[f->graph->values[value].node];
    int32_t x = maker->in_count > 0 ? maker->in[0] : 0, factors = 0;
    for (int32_t d = 0; d < 2; d++)
        if (attr->conv.kernel[d] != 1 || attr->conv.stride[d] != 1 || attr->conv.padding[2 * d] != 0 ||
            attr->conv.padding[2 * d + 1] != 0)
            return;
    const bool norm = ftr__is_norm_relu(maker, value);
    if (attr->conv.groups != 1 || grad->in_count > 2 || f->graph->values[value].dtype != FTR_F32 || maker->dead ||
        maker->backward || (!norm && !ftr__is_channel_scale(f->graph, maker, &x, &factors)) ||
        f->graph->values[x].dtype != FTR_F32 || ftr__is_read_backward(f, value, grad) ||
        !ftr__is_read_backward(f, x, grad) || !ftr__widen_inputs(f, grad, 7))
        return;
    grad->in[1] = x;
    grad->in[6] = factors;
    if (norm) {
        grad->in[2] = maker->in[1];
        grad->in[3] = maker->in[2];
        grad->in[4] = maker->first_out + 1;
        grad->in[5] = maker->first_out + 3;
        grad->attr.conv.activation = FTR_ACT_RELU;
    }
    for (int32_t i = 1; i < 7; i++) f->uses[grad->in[i]]++;
    f->uses[value]--;
    grad->fused = norm ? "batch_norm, relu" : "mul";
}

/* Whether a slice or its gradient is about number `index` of three equal parts of the last dimension of x. */
static bool ftr__is_third(const ftr__node *node, const ftr_shape *x, int32_t index) {
    const int64_t width = x->rank > 0 ? x->dim[x->rank - 1] / 3 : 0;
    return width > 0 && node->attr.slice.axis == x->rank - 1 && node->attr.slice.size == 3 * width &&
           node->attr.slice.step == 1 && node->attr.slice.begin == index * width &&
           node->attr.slice.end == (index + 1) * width;
}

/* The tensor that `value` is a third of, perhaps in another shape; 0 if it is not. */
static int32_t ftr__third_of(const ftr_graph *graph, int32_t value, int32_t index) {
    const ftr__node *node = &graph->nodes[graph->values[value].node];
    if (node->op == FTR_OP_reshape) node = &graph->nodes[graph->values[node->in[0]].node];
    if (node->op != FTR_OP_slice) return 0;
    return ftr__is_third(node, &graph->values[node->in[0]].shape, index) ? node->in[0] : 0;
}

/* The tensor in whose rows a node's query, key and value lie one behind the other; 0 if there is none. Kernels read it so in
 * f32 alone. */
static int32_t ftr__packed_source(const ftr_graph *graph, const ftr__node *node, int32_t query) {
    const int32_t x = ftr__third_of(graph, node->in[query], 0);
    const ftr_shape *shape = &graph->values[node->in[query]].shape, *rows = &graph->values[x].shape;
    if (!x || graph->values[x].dtype != FTR_F32) return 0;
    for (int32_t i = 1; i < 3; i++)
        if (ftr__third_of(graph, node->in[query + i], i) != x ||
            !ftr_shape_equal(&graph->values[node->in[query + i]].shape, shape))
            return 0;
    return rows->dim[rows->rank - 1] == 3 * shape->dim[2] * shape->dim[3] ? x : 0;
}

/* attention(slice(x), slice(x), slice(x)) reads x. */
static void ftr__read_packed(ftr__fuser *f, ftr__node *node, int32_t query, int32_t x) {
    for (int32_t i = query; i < query + 3; i++) {
        f->uses[node->in[i]]--;
        node->in[i] = x;
    }
    f->uses[x] += 3;
    node->attr.attention.packed = true;
}

static void ftr__fuse_attention(ftr__fuser *f, ftr__node *node) {
    const int32_t x = node->attr.attention.packed ? 0 : ftr__packed_source(f->graph, node, 0);
    if (!x) return;
    ftr__read_packed(f, node, 0, x);
    node->fused = "slice";
}

/* The sum a + b, the only use of both; NULL if there is none. */
static ftr__node *ftr__sum_of(const ftr__fuser *f, int32_t a, int32_t b) {
    ftr__node *add = ftr__user_of(f, FTR_OP_add, a, 0);
    if (!add) add = ftr__user_of(f, FTR_OP_add, a, 1);
    if (!add || f->uses[a] != 1 || f->uses[b] != 1) return NULL;
    return (add->in[0] == a && add->in[1] == b) || (add->in[0] == b && add->in[1] == a) ? add : NULL;
}

/* The nodes that put the gradients of a third each into one of x. */
typedef struct ftr__thirds {
    ftr__node *node[8]; /* reshapes, slice_grads, two sums; the second sum is the last */
    int32_t count;
} ftr__thirds;

/* Follows output `index` of attention's gradient to the result of its slice_grad; 0 if something else uses it. */
static int32_t ftr__follow_third(const ftr__fuser *f, int32_t value, int32_t index, const ftr_shape *x,
                                 ftr__thirds *thirds) {
    ftr__node *reshape = ftr__user_of(f, FTR_OP_reshape, value, 0);
    if (f->uses[value] != 1) return 0;
    if (reshape) {
        value = reshape->first_out;
        thirds->node[thirds->count++] = reshape;
    }
    ftr__node *grad = ftr__user_of(f, FTR_OP_slice_grad, value, 0);
    if (!grad || f->uses[value] != 1 || !ftr__is_third(grad, x, index) ||
        !ftr_shape_equal(&f->graph->values[grad->first_out].shape, x))
        return 0;
    thirds->node[thirds->count++] = grad;
    return grad->first_out;
}

/* Finds all of them, whichever two parts were added first. */
static bool ftr__find_thirds(const ftr__fuser *f, const ftr__node *attention, const ftr_shape *x, ftr__thirds *thirds) {
    int32_t part[3];
    for (int32_t i = 0; i < 3; i++) {
        part[i] = ftr__follow_third(f, attention->first_out + i, i, x, thirds);
        if (!part[i]) return false;
    }
    for (int32_t i = 0; i < 3; i++) {
        ftr__node *two = ftr__sum_of(f, part[i], part[(i + 1) % 3]);
        ftr__node *all = two ? ftr__sum_of(f, two->first_out, part[(i + 2) % 3]) : NULL;
        if (!all) continue;
        thirds->node[thirds->count++] = two;
        thirds->node[thirds->count++] = all;
        return true;
    }
    return false;
}

/* The same of the gradient, which then writes that of x: no slices, no sum of their gradients. */
static void ftr__fuse_attention_grad(ftr__fuser *f, ftr__node *grad) {
    ftr_graph *graph = f->graph;
    if (grad->attr.attention.packed || grad->attr.attention.wanted != 7u) return;
    const int32_t x = ftr__packed_source(graph, grad, 1);
    ftr__thirds thirds = {.count = 0};
    if (!x || !ftr__find_thirds(f, grad, &graph->values[x].shape, &thirds)) return;
    const int32_t sum = thirds.node[thirds.count - 1]->first_out;
    for (int32_t i = 0; i < thirds.count; i++) thirds.node[i]->dead = true;
    ftr__read_packed(f, grad, 1, x);
    graph->values[grad->first_out].shape = graph->values[x].shape;
    graph->values[grad->first_out + 1].shape = graph->values[grad->first_out + 2].shape = FTR_SHAPE(0);
    grad->fused = "slice_grad, add";
    f->uses[grad->first_out] = f->uses[sum];
    f->uses[grad->first_out + 1] = f->uses[grad->first_out + 2] = 0;
    ftr__plan_rename(f->plan, sum, grad->first_out);
}

/* Adds the fusions that FASTTRAIN_NO_FUSE names to *off. */
static ftr_status ftr__fusions_off(ftr_context *context, uint32_t *off) {
    static const char *const names[] = {"bias",       "relu",      "residual",  "relu_grad",
                                        "activation", "conv_norm", "attention", "input"};
    for (const char *word = ftr__environment("FASTTRAIN_NO_FUSE"); *word;) {
        const size_t length = strcspn(word, " ");
        uint32_t found = length == 3 && strncmp(word, "all", 3) == 0 ? FTR_FUSE_ALL : 0;
        for (int32_t i = 0; i < FTR__ARRAY_LENGTH(names); i++)
            if (strlen(names[i]) == length && strncmp(word, names[i], length) == 0) found = 1u << i;
        if (!found && length > 0)
            return ftr__error(
                context, FTR_ERROR_NAME,
                "compile: FASTTRAIN_NO_FUSE has '%.*s', expected all, bias, relu, residual, relu_grad, activation, "
                "conv_norm, attention or input",
                (int)length, word);
        *off |= found;
        word += length + (word[length] == ' ');
    }
    return FTR_OK;
}

static void ftr__fuse_node(ftr__fuser *f, ftr__node *node) {
    switch (node->op) {
    case FTR_OP_relu:
        if (ftr__may(f, FTR_FUSE_RELU)) ftr__fuse_relu(f, node);
        break;
    case FTR_OP_batch_norm_grad:
        if (ftr__may(f, FTR_FUSE_RELU_GRAD)) ftr__fuse_relu_grad(f, node);
        break;
    case FTR_OP_add:
        if (ftr__may(f, FTR_FUSE_BIAS)) ftr__fuse_bias(f, node);
        if (ftr__may(f, FTR_FUSE_RESIDUAL) && !node->dead) ftr__fuse_residual(f, node);
        break;
    case FTR_OP_attention:
        if (ftr__may(f, FTR_FUSE_ATTENTION)) ftr__fuse_attention(f, node);
        break;
    case FTR_OP_attention_grad:
        if (ftr__may(f, FTR_FUSE_ATTENTION)) ftr__fuse_attention_grad(f, node);
        break;
    default:
        if (!node->backward && ftr__may(f, FTR_FUSE_ACTIVATION) && ftr__smooth_of(node).activation != FTR_ACT_NONE)
            ftr__fuse_smooth(f, node);
        break;
    }
}

ftr_status ftr__pass_fuse(ftr_plan *plan, uint32_t no_fuse) {
    ftr_graph *graph = plan->graph;
    const size_t values = (size_t)graph->value_count, nodes = (size_t)graph->node_count;
    ftr__fuser f = {.plan = plan, .graph = graph, .off = no_fuse};
    ftr_status status = ftr__fusions_off(plan->context, &f.off);
    if (status) return status;
    f.uses = ftr__arena_alloc(&plan->arena, values * sizeof *f.uses);
    f.needed = ftr__arena_alloc(&plan->arena, nodes);
    if (!f.uses || !f.needed) return ftr__out_of_memory(plan->context, "fuse", values * sizeof *f.uses);
    status = ftr__mark_needed(plan, f.needed);
    if (status) return status;
    ftr__count_uses(&f);
    for (int32_t n = 0; n < graph->node_count; n++)
        if (f.needed[n] && !graph->nodes[n].dead) ftr__fuse_node(&f, &graph->nodes[n]);
    for (int32_t n = 0; n < graph->node_count; n++) /* after everything that a batch norm takes over */
        if (f.needed[n] && !graph->nodes[n].dead && graph->nodes[n].op == FTR_OP_batch_norm &&
            ftr__may(&f, FTR_FUSE_CONV_NORM))
            ftr__fuse_conv_norm(&f, &graph->nodes[n]);
    for (int32_t n = 0; n < graph->node_count; n++) /* after the gradients of what they compute again */
        if (f.needed[n] && !graph->nodes[n].dead && graph->nodes[n].op == FTR_OP_conv2d_grad_weight &&
            ftr__may(&f, FTR_FUSE_INPUT))
            ftr__fuse_input(&f, &graph->nodes[n]);
    return FTR_OK;
}
