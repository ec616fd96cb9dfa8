/* What stands around the optimizer's step: sums of gradients in front of it, averages of weights behind it. */
#ifndef FTR_OPTIM_AVERAGE_H
#define FTR_OPTIM_AVERAGE_H

#include "graph/graph.h"

/* Emits "NAME.grad_sum" for each of `count` parameters: a state that takes up the gradient of each micro-batch, the first of
 * a group of `micro_batches` in place of what was there. gradients[i] becomes the sum. */
FTR_LIB ftr_status ftr__accumulation_emit(ftr_graph *graph, ftr__arena *arena, const int32_t *parameters,
                                          int32_t *gradients, int32_t count, int64_t micro_batches);

/* Checks a description: cookie and ranges. */
FTR_LIB ftr_status ftr__average_check(ftr_context *context, const ftr_average_desc *average);

/* What is averaged when. */
typedef struct ftr__averaged {
    const int32_t *parameters; /* those that are trained */
    int32_t count;
    int32_t applied;   /* the optimizer's count of applied steps */
    int32_t found_inf; /* 0: none */
} ftr__averaged;

/* Emits "NAME.average" for each trained parameter and each running statistic that the graph updates, the nodes that keep
 * them, and the one that exchanges them with the variables. `taken` becomes the id of "average.count". */
FTR_LIB ftr_status ftr__average_emit(ftr_graph *graph, ftr__arena *arena, const ftr_average_desc *desc,
                                     const ftr__averaged *of, int32_t *taken);

#endif
