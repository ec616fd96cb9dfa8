#include "graph/print.h"

#include "graph/op.h"

#include <stdio.h>

static void ftr__print_window(const ftr__printer *p, const int32_t kernel[2], const int32_t stride[2],
                              const int32_t padding[4]) {
    ftr__print(p->write, p->user, " kernel %dx%d stride %dx%d padding %d,%d,%d,%d", kernel[0], kernel[1], stride[0],
               stride[1], padding[0], padding[1], padding[2], padding[3]);
}

static void ftr__print_activation(const ftr__printer *p, ftr_activation activation) {
    static const char *const words[] = {"", " relu", " relu6", " hardswish", " silu"};
    ftr__print(p->write, p->user, "%s", words[activation]);
}

static void ftr__print_axes(const ftr__printer *p, uint32_t mask) {
    ftr__print(p->write, p->user, " axes");
    for (int32_t i = 0; i < FTR_MAX_RANK; i++)
        if (mask >> i & 1u) ftr__print(p->write, p->user, " %d", i);
}

static void ftr__print_order(const ftr__printer *p, const ftr__node *node) {
    const int32_t rank = p->graph->values[node->first_out].shape.rank;
    ftr__print(p->write, p->user, " order");
    for (int32_t i = 0; i < rank; i++) ftr__print(p->write, p->user, " %d", node->attr.axes_order.order[i]);
}

/* What is not 0, from the fields that most optimizers have. */
static void ftr__print_optimizer(const ftr__printer *p, const ftr__node *node) {
    const ftr_op_attr *a = &node->attr;
    const struct {
        const char *name;
        double value;
    } fields[] = {{"clip_value", a->optimizer.clip_value},
                  {"weight_decay", a->optimizer.weight_decay},
                  {"momentum", a->optimizer.momentum},
                  {"alpha", a->optimizer.alpha},
                  {"beta1", a->optimizer.beta1},
                  {"beta2", a->optimizer.beta2},
                  {"eps", a->optimizer.eps}};
    if (a->optimizer.lr_scale != 1.0) ftr__print(p->write, p->user, " lr_scale %g", a->optimizer.lr_scale);
    for (int32_t i = 0; i < FTR__ARRAY_LENGTH(fields); i++)
        if (fields[i].value != 0.0) ftr__print(p->write, p->user, " %s %g", fields[i].name, fields[i].value);
}

static void ftr__print_average(const ftr__printer *p, const ftr__node *node) {
    const ftr_op_attr *a = &node->attr;
    if (a->average.copy) ftr__print(p->write, p->user, " copy");
    else if (a->average.equal) ftr__print(p->write, p->user, " equal");
    else ftr__print(p->write, p->user, " decay %g", a->average.decay);
    if (a->average.warmup_gamma > 0.0) ftr__print(p->write, p->user, " warmup_gamma %g", a->average.warmup_gamma);
    ftr__print(p->write, p->user, " start %lld every %lld", (long long)a->average.start, (long long)a->average.every);
}

static void ftr__print_pointwise(const ftr__printer *p, const ftr__node *node) {
    const double a = node->attr.pointwise.a, b = node->attr.pointwise.b;
    switch (node->op) {
    case FTR_OP_leaky_relu:
    case FTR_OP_leaky_relu_grad: ftr__print(p->write, p->user, " slope %g", a); break;
    case FTR_OP_elu:
    case FTR_OP_elu_grad: ftr__print(p->write, p->user, " alpha %g", a); break;
    case FTR_OP_softplus:
    case FTR_OP_softplus_grad: ftr__print(p->write, p->user, " beta %g threshold %g", a, b); break;
    default: ftr__print(p->write, p->user, " min %g max %g", a, b); break;
    }
}

static void ftr__print_random(const ftr__printer *p, const ftr__node *node) {
    const double a = (double)node->attr.random.a, b = (double)node->attr.random.b;
    ftr__print(p->write, p->user, node->op == FTR_OP_random_uniform ? " from %g to %g" : " mean %g std %g", a, b);
}

static void ftr__print_mix(const ftr__printer *p, const ftr__node *node) {
    const ftr_op_attr *a = &node->attr;
    if (node->op != FTR_OP_mix_draw)
        ftr__print(p->write, p->user, a->mix.targets ? " targets" : " images");
    else
        ftr__print(p->write, p->user, " mixup %g alpha %g cutmix %g alpha %g%s", a->mix.mixup, a->mix.mixup_alpha,
                   a->mix.cutmix, a->mix.cutmix_alpha, a->mix.pairs == FTR_MIX_PERMUTE ? " permuted" : "");
}

static void ftr__print_attr(const ftr__printer *p, const ftr__node *node) {
    const ftr_op_attr *a = &node->attr;
    switch (ftr__op_info_of(node->op)->attr) {
    case FTR__ATTR_none:
    case FTR__ATTR_cast: /* the results' types and shapes say it */
    case FTR__ATTR_shape: break;
    case FTR__ATTR_pointwise: ftr__print_pointwise(p, node); break;
    case FTR__ATTR_gelu: ftr__print(p->write, p->user, a->gelu.form == FTR_GELU_TANH ? " by tanh" : " exact"); break;
    case FTR__ATTR_axes: ftr__print_axes(p, a->axes.mask); break;
    case FTR__ATTR_matmul:
        ftr__print(p->write, p->user, "%s%s", a->matmul.transpose_a ? " transpose_a" : "",
                   a->matmul.transpose_b ? " transpose_b" : "");
        break;
    case FTR__ATTR_linear:
        if (a->linear.in_out) ftr__print(p->write, p->user, " weight [in, out]");
        ftr__print_activation(p, a->linear.activation);
        break;
    case FTR__ATTR_conv:
        ftr__print_window(p, a->conv.kernel, a->conv.stride, a->conv.padding);
        ftr__print(p->write, p->user, " dilation %dx%d groups %d", a->conv.dilation[0], a->conv.dilation[1], a->conv.groups);
        ftr__print_activation(p, a->conv.activation);
        break;
    case FTR__ATTR_norm:
        ftr__print(p->write, p->user, " %s eps %g", a->norm.training ? "batch statistics" : "running statistics", a->norm.eps);
        ftr__print_activation(p, a->norm.activation);
        break;
    case FTR__ATTR_row_norm:
        if (a->row_norm.groups) ftr__print(p->write, p->user, " groups %d", a->row_norm.groups);
        ftr__print(p->write, p->user, " eps %g", a->row_norm.eps);
        break;
    case FTR__ATTR_pool: ftr__print_window(p, a->pool.kernel, a->pool.stride, a->pool.padding); break;
    case FTR__ATTR_adaptive: break; /* the shapes say it */
    case FTR__ATTR_resize:
        ftr__print(p->write, p->user, "%s%s", a->resize.mode == FTR_RESIZE_BILINEAR ? " bilinear" : " nearest",
                   a->resize.align_corners ? " align_corners" : "");
        break;
    case FTR__ATTR_dropout: ftr__print(p->write, p->user, " p %g", a->dropout.p); break;
    case FTR__ATTR_random: ftr__print_random(p, node); break;
    case FTR__ATTR_mix: ftr__print_mix(p, node); break;
    case FTR__ATTR_attention:
        ftr__print(p->write, p->user, "%s scale %g", a->attention.causal ? " causal" : "", a->attention.scale);
        if (a->attention.packed) ftr__print(p->write, p->user, " packed");
        if (a->attention.dropout > 0.0) ftr__print(p->write, p->user, " dropout %g", a->attention.dropout);
        break;
    case FTR__ATTR_rotary:
        ftr__print(p->write, p->user, "%s%s base %g first %lld dims %d", a->rotary.inverse ? " inverse" : "",
                   a->rotary.interleaved ? " interleaved" : "", a->rotary.base, (long long)a->rotary.first,
                   a->rotary.dims);
        break;
    case FTR__ATTR_axes_order: ftr__print_order(p, node); break;
    case FTR__ATTR_axis: ftr__print(p->write, p->user, " axis %d", a->axis.axis); break;
    case FTR__ATTR_slice:
        ftr__print(p->write, p->user, " axis %d from %lld to %lld step %lld", a->slice.axis, (long long)a->slice.begin,
                   (long long)a->slice.end, (long long)a->slice.step);
        break;
    case FTR__ATTR_pad: ftr__print(p->write, p->user, " value %g", a->pad.value); break;
    case FTR__ATTR_cross_entropy:
        ftr__print(p->write, p->user, " smoothing %g ignore %lld", a->cross_entropy.label_smoothing,
                   (long long)a->cross_entropy.ignore_index);
        break;
    case FTR__ATTR_embedding: ftr__print(p->write, p->user, " rows %lld", (long long)a->embedding.rows); break;
    case FTR__ATTR_scatter: ftr__print(p->write, p->user, " axis %d", a->scatter.axis); break;
    case FTR__ATTR_one_hot: ftr__print(p->write, p->user, " classes %lld", (long long)a->one_hot.classes); break;
    case FTR__ATTR_topk: ftr__print(p->write, p->user, " k %lld", (long long)a->topk.k); break;
    case FTR__ATTR_cumsum:
        ftr__print(p->write, p->user, " axis %d%s", a->cumsum.axis, a->cumsum.reverse ? " reverse" : "");
        break;
    case FTR__ATTR_ema:
        if (a->ema.cumulative) ftr__print(p->write, p->user, " cumulative");
        else ftr__print(p->write, p->user, " weight %g", a->ema.weight);
        break;
    case FTR__ATTR_accumulate: ftr__print(p->write, p->user, " steps %lld", (long long)a->accumulate.steps); break;
    case FTR__ATTR_average: ftr__print_average(p, node); break;
    case FTR__ATTR_optimizer: ftr__print_optimizer(p, node); break;
    case FTR__ATTR_clip_scale: ftr__print(p->write, p->user, " max_norm %g", a->clip_scale.max_norm); break;
    case FTR__ATTR_grad_norm:
        if (a->grad_norm.max_norm > 0.0) ftr__print(p->write, p->user, " max_norm %g", a->grad_norm.max_norm);
        if (a->grad_norm.divisor > 1.0) ftr__print(p->write, p->user, " divisor %g", a->grad_norm.divisor);
        break;
    case FTR__ATTR_scale_update:
        ftr__print(p->write, p->user, " growth %g backoff %g interval %lld", a->scale_update.growth,
                   a->scale_update.backoff, (long long)a->scale_update.interval);
        break;
    }
}

void ftr__print_node(const ftr__printer *p, const ftr__node *node) {
    for (int32_t i = 0; i < node->out_count; i++)
        ftr__print(p->write, p->user, "%s%%%d", i ? ", " : "", node->first_out + i);
    ftr__print(p->write, p->user, "%s%s '%s'", node->out_count ? " = " : "", ftr_op_name(node->op), node->name);
    for (int32_t i = 0; i < node->in_count; i++) {
        ftr__print(p->write, p->user, i ? ", " : " (");
        if (node->in[i]) ftr__print(p->write, p->user, "%%%d", node->in[i]);
        else ftr__print(p->write, p->user, "-");
    }
    if (node->in_count) ftr__print(p->write, p->user, ")");
    ftr__print_attr(p, node);
    if (node->variable >= 0 && p->graph->variables[node->variable].frozen) ftr__print(p->write, p->user, " frozen");
    for (int32_t i = 0; i < node->out_count; i++) {
        const ftr__value *value = &p->graph->values[node->first_out + i];
        char text[FTR__SHAPE_TEXT];
        ftr__print(p->write, p->user, "%s%s %s", i ? ", " : " -> ", ftr_dtype_name(value->dtype),
                   ftr__shape_text(&value->shape, text));
    }
    if (node->fused) ftr__print(p->write, p->user, " [fused: %s]", node->fused);
    if (node->recomputed) ftr__print(p->write, p->user, " [recomputed]");
}

void ftr__print_dot(const ftr__printer *p, void (*note)(const void *arg, int32_t node, char text[64]), const void *arg) {
    const ftr_graph *graph = p->graph;
    ftr__print(p->write, p->user, "digraph fasttrain {\n  node [shape=box, fontname=\"sans-serif\", fontsize=10];\n");
    for (int32_t n = 0; n < graph->node_count; n++) {
        const ftr__node *node = &graph->nodes[n];
        if (node->dead) continue;
        char text[FTR__SHAPE_TEXT] = "", extra[64] = "";
        if (node->out_count) ftr__shape_text(&graph->values[node->first_out].shape, text);
        if (note) note(arg, n, extra);
        ftr__print(p->write, p->user, "  n%d [label=\"%s\\n%s\\n%s", n, ftr_op_name(node->op), node->name, text);
        ftr__print(p->write, p->user, "%s%s%s\"];\n", node->recomputed ? "\\nrecomputed" : "", extra[0] ? "\\n" : "", extra);
        for (int32_t i = 0; i < node->in_count; i++)
            if (node->in[i]) ftr__print(p->write, p->user, "  n%d -> n%d;\n", graph->values[node->in[i]].node, n);
    }
    ftr__print(p->write, p->user, "}\n");
}

ftr_status ftr_graph_print(const ftr_graph *graph, ftr_graph_format format, ftr_write_fn write, void *user) {
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    if (!write || (format != FTR_GRAPH_TEXT && format != FTR_GRAPH_DOT))
        return ftr__error(graph->context, FTR_ERROR_INVALID_ARGUMENT, "graph_print: %s",
                          write ? "format is not one of ftr_graph_format" : "write is NULL");
    const ftr__printer printer = {graph, write, user};
    if (format == FTR_GRAPH_DOT) {
        ftr__print_dot(&printer, NULL, NULL);
        return FTR_OK;
    }
    for (int32_t n = 0; n < graph->node_count; n++) {
        if (graph->nodes[n].dead) continue;
        ftr__print_node(&printer, &graph->nodes[n]);
        ftr__print(write, user, "\n");
    }
    return FTR_OK;
}
