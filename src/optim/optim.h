/* Optimizers as graph builders. */
#ifndef FTR_OPTIM_OPTIM_H
#define FTR_OPTIM_OPTIM_H

#include "graph/graph.h"

/* Checks a description: cookie and ranges. */
FTR_LIB ftr_status ftr__optimizer_check(ftr_context *context, const ftr_optimizer *optimizer);

/* Emits the update of `count` parameters by their gradients (ids of values), with its state as buffers of the graph.
 * `lr` becomes the id of the learning rate, an f32 scalar buffer that the plan fills. */
FTR_LIB ftr_status ftr__optimizer_emit(ftr_graph *graph, ftr__arena *arena, const ftr_optimizer *optimizer,
                                       const int32_t *parameters, const int32_t *gradients, int32_t count, int32_t *lr);

#endif
