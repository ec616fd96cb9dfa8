/* Optimizers as graph builders. */
#ifndef FTR_OPTIM_OPTIM_H
#define FTR_OPTIM_OPTIM_H

#include "graph/graph.h"

/* Checks a description: cookies, ranges, and that each group's pattern fits a parameter of the graph. */
FTR_LIB ftr_status ftr__optimizer_check(const ftr_graph *graph, const ftr_optimizer *optimizer);

/* What is to be updated: ids of values. */
typedef struct ftr__trained {
    const int32_t *parameters, *gradients;
    int32_t count;
    int32_t grad_scale; /* f32 scalar that gradients are multiplied by; 0: none */
    int32_t found_inf;  /* f32 scalar; while it is not 0 nothing is updated or counted. 0: none */
} ftr__trained;

/* Emits the update of parameters by their gradients, with its state as buffers of the graph: one node for all
 * parameters that have the same settings. `lr` becomes the id of the learning rate, an f32 scalar buffer that the
 * plan fills, `step` that of the number of applied steps, an i64 scalar buffer. */
FTR_LIB ftr_status ftr__optimizer_emit(ftr_graph *graph, ftr__arena *arena, const ftr_optimizer *optimizer,
                                       const ftr__trained *trained, int32_t *lr, int32_t *step);

#endif
