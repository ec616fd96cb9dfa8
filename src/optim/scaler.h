/* Loss scaling and the norm of gradients as graph builders. */
#ifndef FTR_OPTIM_SCALER_H
#define FTR_OPTIM_SCALER_H

#include "graph/graph.h"

/* Ids of values; 0 for what is not there. */
typedef struct ftr__scaler {
    int32_t scale;                         /* state, f32 scalar: the loss's gradient starts from it */
    int32_t norm, found_inf, factor, used; /* results of grad_norm */
} ftr__scaler;

/* Checks a description: cookie and ranges. */
FTR_LIB ftr_status ftr__scaler_check(ftr_context *context, const ftr_scaler_desc *scaler);

/* Declares the scale. Its first value is the plan's to write. */
FTR_LIB void ftr__scaler_begin(ftr_graph *graph, ftr__scaler *scaler);

/* Emits the norm of all gradients, with or without a scale. `attr` is that of grad_norm. */
FTR_LIB ftr_status ftr__scaler_measure(ftr_graph *graph, ftr__arena *arena, ftr__scaler *scaler,
                                       const int32_t *gradients, int32_t count, const ftr_op_attr *attr);

/* Emits the update of the scale, after those of the optimizer, and makes running statistics wait for finite gradients. */
FTR_LIB ftr_status ftr__scaler_end(ftr_graph *graph, const ftr__scaler *scaler, const ftr_scaler_desc *desc);

#endif
