#include "graph/cost.h"

static int64_t ftr__cost_count(const ftr_graph *graph, int32_t value) {
    const int64_t count = ftr_shape_count(&graph->values[value].shape);
    return count > 0 ? count : 0;
}

/* Queries times keys times the width of a head, for each of the `products` over them: half of it with a causal mask, which
 * leaves half of the pairs out. The inputs are [n, t, heads, width]; if they are packed, y or its gradient is. */
static int64_t ftr__attention_multiply_adds(const ftr_graph *graph, const ftr__node *node, int32_t query,
                                            int64_t products) {
    const int32_t alike = query > 0 ? node->in[0] : node->first_out;
    const bool packed = node->attr.attention.packed;
    const int64_t rows = ftr__cost_count(graph, packed ? alike : node->in[query]);
    const int64_t keys = graph->values[packed ? alike : node->in[query + 1]].shape.dim[1];
    return rows * keys * products / (node->attr.attention.causal ? 2 : 1);
}

int64_t ftr__node_multiply_adds(const ftr_graph *graph, const ftr__node *node) {
    const int64_t out = node->out_count > 0 ? ftr__cost_count(graph, node->first_out) : 0;
    const ftr_shape *first = node->in_count > 0 ? &graph->values[node->in[0]].shape : NULL;
    const ftr_shape *second = node->in_count > 1 ? &graph->values[node->in[1]].shape : NULL;
    switch (node->op) {
    case FTR_OP_matmul: return out * first->dim[first->rank - (node->attr.matmul.transpose_a ? 2 : 1)];
    case FTR_OP_linear: return out * second->dim[node->attr.linear.in_out ? 0 : 1];
    case FTR_OP_conv2d: return out * second->dim[1] * second->dim[2] * second->dim[3];
    /* a gradient of y [n, h, w, o] with a weight [o, kh, kw, c] */
    case FTR_OP_conv2d_grad_input:
        return ftr__cost_count(graph, node->in[0]) * second->dim[1] * second->dim[2] * second->dim[3];
    case FTR_OP_conv2d_grad_weight:
        return ftr__cost_count(graph, node->in[0]) * (out / (first->dim[3] > 0 ? first->dim[3] : 1));
    case FTR_OP_attention: return ftr__attention_multiply_adds(graph, node, 0, 2);
    case FTR_OP_attention_grad: return ftr__attention_multiply_adds(graph, node, 1, 5);
    default: return 0;
    }
}

int64_t ftr__node_bytes(const ftr_graph *graph, const ftr__node *node) {
    int64_t bytes = 0;
    for (int32_t i = 0; i < node->in_count; i++)
        if (node->in[i])
            bytes += ftr__cost_count(graph, node->in[i]) * (int64_t)ftr_dtype_size(graph->values[node->in[i]].dtype);
    for (int32_t i = 0; i < node->out_count; i++)
        bytes += ftr__cost_count(graph, node->first_out + i) *
                 (int64_t)ftr_dtype_size(graph->values[node->first_out + i].dtype);
    return bytes;
}
