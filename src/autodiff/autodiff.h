/* Reverse-mode differentiation of a graph: gradients are nodes of the same graph. */
#ifndef FTR_AUTODIFF_AUTODIFF_H
#define FTR_AUTODIFF_AUTODIFF_H

#include "graph/graph.h"

/* Emits the gradients of the scalar `loss` with respect to `count` values (ids). gradients[i] becomes the id of a value of
 * its own, of wrt[i]'s shape, or 0 when `loss` does not depend on wrt[i] through differentiable ops: that is an error if
 * `required`. Memory comes from `arena`.
 * Errors: FTR_ERROR_SHAPE and FTR_ERROR_DTYPE of the loss, FTR_ERROR_NOT_DIFFERENTIABLE, FTR_ERROR_OUT_OF_MEMORY. */
FTR_LIB ftr_status ftr__differentiate(ftr_graph *graph, ftr__arena *arena, int32_t loss, const int32_t *wrt, int32_t count,
                                      const bool *required, int32_t *gradients);

#endif
