/* What the table of cases has to have of each row of ops.def. */
#ifndef FTR_TESTS_OPS_COVERAGE_H
#define FTR_TESTS_OPS_COVERAGE_H

#include "cases.h"

/* What ops.def says of a row. */
typedef struct op_facts {
    const char *name;
    bool has_gradient; /* a D row */
    int32_t max_in;
    uint32_t differentiable;
} op_facts;

/* Of a row that FTR_OP_NONE < op < FTR_OP_COUNT names. */
const op_facts *op_facts_of(int32_t op);

/* The inputs of a row that get a gradient, as bits; of any number of inputs the first 16. */
uint32_t op_differentiable_inputs(int32_t op);

/* Reads a graph as ftr_graph_print() writes it. Sets bit i of covered[op] where input i of a node of `op` depends on one of
 * the `wanted` tensors that has elements, and the loss on the node: comparing these tensors' gradients with differences
 * checks that input's gradient. */
void op_add_gradients(const ftr_graph *graph, ftr_tensor loss, const ftr_tensor *wanted, int32_t count,
                      uint32_t covered[FTR_OP_COUNT]);

/* Sets seen[op] for the ops of a graph. */
void op_add_ops(const ftr_graph *graph, bool seen[FTR_OP_COUNT]);

/* Why no case can be malformed; NULL for a row that must have one. */
const char *op_cannot_be_malformed(int32_t op);

#endif
