/* Text of a node, shared by the printouts of graphs and plans. */
#ifndef FTR_GRAPH_PRINT_H
#define FTR_GRAPH_PRINT_H

#include "graph/graph.h"

/* One printout: where it goes, and the graph. */
typedef struct ftr__printer {
    const ftr_graph *graph;
    ftr_write_fn write;
    void *user;
} ftr__printer;

/* "%12 = conv2d 'conv1' (%3, %4, %5) stride 1x1 -> f32 [64, 8, 8, 16]", without a line end. */
FTR_LIB void ftr__print_node(const ftr__printer *printer, const ftr__node *node);

/* A Graphviz digraph of the live nodes. `note` (may be NULL) adds a line to a node's label. */
FTR_LIB void ftr__print_dot(const ftr__printer *printer, void (*note)(const void *arg, int32_t node, char text[64]),
                            const void *arg);

#endif
