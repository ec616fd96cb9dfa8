/* Reverse-mode differentiation of a graph: gradients are nodes of the same graph. */
#ifndef FTR_AUTODIFF_AUTODIFF_H
#define FTR_AUTODIFF_AUTODIFF_H

#include "graph/graph.h"

/* What is to be differentiated. */
typedef struct ftr__differentiation {
    int32_t loss;         /* scalar, f32 or f64 */
    const int32_t *wrt;   /* values (ids) */
    int32_t count;        /* of them */
    const bool *required; /* by index: it is an error if the loss does not depend on it */
    int32_t *gradients;   /* by index: filled in */
    int32_t seed;         /* f32 scalar that the loss's gradient starts from; 0: 1 */
    bool marks;           /* each gradient of a value passes a cast that names the value, see ftr__node.like */
} ftr__differentiation;

/* Emits the gradients of a loss. gradients[i] becomes the id of a value of its own, of wrt[i]'s type and shape, or 0 when the
 * loss does not depend on wrt[i] through differentiable ops. Memory comes from `arena`.
 * Errors: FTR_ERROR_SHAPE and FTR_ERROR_DTYPE of the loss, FTR_ERROR_NOT_DIFFERENTIABLE, FTR_ERROR_OUT_OF_MEMORY. */
FTR_LIB ftr_status ftr__differentiate(ftr_graph *graph, ftr__arena *arena, const ftr__differentiation *of);

#endif
