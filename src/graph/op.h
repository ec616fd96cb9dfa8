/* What a graph asks of an op: its facts, its shape inference and its gradient. ops/ answers. */
#ifndef FTR_GRAPH_OP_H
#define FTR_GRAPH_OP_H

#include "graph/graph.h"

#define FTR__INFER_INPUTS 16

/* Shape inference: reads op, name, attr (which it may complete) and inputs; fills dtype and shape of each output. */
typedef struct ftr__infer {
    ftr_graph *graph;
    ftr__node *node;
    const ftr__value *in[FTR__INFER_INPUTS]; /* NULL where missing; of an update's inputs only the first ones */
    int32_t in_count;
    ftr_dtype out_dtype[FTR__MAX_OUTPUTS];
    ftr_shape out_shape[FTR__MAX_OUTPUTS];
} ftr__infer;

/* Gradient: emits nodes that turn the outputs' gradients into the inputs'. `node` is a copy, so emitting is safe.
 * wanted[i] says whether input i's gradient is used; dout[i] is null where no gradient arrives. Leave din[i] null for 0. */
typedef struct ftr__grad {
    ftr_graph *graph;
    const ftr__node *node;
    const ftr_tensor *in;
    const ftr_tensor *out;
    const ftr_tensor *dout;
    const bool *wanted;
    ftr_tensor *din;
} ftr__grad;

typedef enum ftr__amp_class {
    FTR__AMP_NONE = 0,
    FTR__AMP_LOW,
    FTR__AMP_F32,
    FTR__AMP_WIDEST,
    FTR__AMP_ANY,
    FTR__AMP_NORM
} ftr__amp_class;

typedef enum ftr__attr_kind {
    FTR__ATTR_none,
    FTR__ATTR_cast,
    FTR__ATTR_pointwise,
    FTR__ATTR_gelu,
    FTR__ATTR_axes,
    FTR__ATTR_matmul,
    FTR__ATTR_linear,
    FTR__ATTR_conv,
    FTR__ATTR_norm,
    FTR__ATTR_row_norm,
    FTR__ATTR_pool,
    FTR__ATTR_adaptive,
    FTR__ATTR_resize,
    FTR__ATTR_dropout,
    FTR__ATTR_random,
    FTR__ATTR_mix,
    FTR__ATTR_attention,
    FTR__ATTR_rotary,
    FTR__ATTR_shape,
    FTR__ATTR_axes_order,
    FTR__ATTR_axis,
    FTR__ATTR_slice,
    FTR__ATTR_pad,
    FTR__ATTR_cross_entropy,
    FTR__ATTR_embedding,
    FTR__ATTR_scatter,
    FTR__ATTR_one_hot,
    FTR__ATTR_topk,
    FTR__ATTR_cumsum,
    FTR__ATTR_ema,
    FTR__ATTR_accumulate,
    FTR__ATTR_average,
    FTR__ATTR_optimizer,
    FTR__ATTR_clip_scale,
    FTR__ATTR_grad_norm,
    FTR__ATTR_scale_update
} ftr__attr_kind;

typedef struct ftr__op_info {
    const char *name;
    ftr__attr_kind attr;
    int32_t min_in, max_in, out_count;
    uint32_t differentiable, overwritable;
    ftr__amp_class amp;
    ftr_status (*infer)(ftr__infer *);
    void (*grad)(ftr__grad *); /* NULL: not differentiable */
} ftr__op_info;

FTR_LIB const ftr__op_info *ftr__op_info_of(ftr_op op);

#endif
