/* What a node takes to compute: counts that follow from shapes alone. */
#ifndef FTR_GRAPH_COST_H
#define FTR_GRAPH_COST_H

#include "graph/graph.h"

/* Multiply-adds of matrix products, convolutions, attention and their gradients, as a direct computation needs them; those at
 * padding are counted too. 0 for other nodes. */
FTR_LIB int64_t ftr__node_multiply_adds(const ftr_graph *graph, const ftr__node *node);

/* Bytes of a node's inputs and results, each once. */
FTR_LIB int64_t ftr__node_bytes(const ftr_graph *graph, const ftr__node *node);

#endif
