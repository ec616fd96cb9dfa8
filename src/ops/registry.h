/* What the library knows of an op besides its kernels: made from ops.def. */
#ifndef FTR_OPS_REGISTRY_H
#define FTR_OPS_REGISTRY_H

#include "graph/op.h"

/* Records "op 'name': sentence" on the graph and returns `status`. */
FTR_LIB ftr_status ftr__infer_error(ftr__infer *infer, ftr_status status, const char *format, ...) FTR__PRINTF(3, 4);

#define FTR__DECLARE_INFER_GRAD(op, attr, min_in, max_in, out, differentiable, overwritable, amp) \
    FTR_LIB ftr_status ftr__infer_##op(ftr__infer *s);                                             \
    FTR_LIB void ftr__grad_##op(ftr__grad *s);
#define FTR__DECLARE_INFER(op, attr, min_in, max_in, out, differentiable, overwritable, amp) \
    FTR_LIB ftr_status ftr__infer_##op(ftr__infer *s);
FTR_OPS(FTR__DECLARE_INFER_GRAD, FTR__DECLARE_INFER)

/* What the op files share. Checks record the failure with the node's name; `what` names the input in the sentence. */
FTR_LIB ftr_status ftr__check_float(ftr__infer *s, int32_t input, const char *what);
FTR_LIB ftr_status ftr__check_arithmetic(ftr__infer *s, int32_t input, const char *what); /* f32, f64, i32, i64 */
FTR_LIB ftr_status ftr__check_same_type(ftr__infer *s, int32_t a, int32_t b, const char *what_a, const char *what_b);
FTR_LIB ftr_status ftr__check_same_shape(ftr__infer *s, int32_t a, int32_t b, const char *what_a, const char *what_b);
FTR_LIB ftr_status ftr__check_rank(ftr__infer *s, int32_t input, const char *what, int32_t rank, const char *layout);
/* Shape [size] and the type of input 0. */
FTR_LIB ftr_status ftr__check_vector(ftr__infer *s, int32_t input, const char *what, int64_t size);
/* The same, but f32 beside an input 0 of f16 or bf16. */
FTR_LIB ftr_status ftr__check_wide_vector(ftr__infer *s, int32_t input, const char *what, int64_t size);
/* Input 0 is an image [n, h, w, c], floating point; its size and the result's, height and width, are 1 to INT32_MAX. */
FTR_LIB ftr_status ftr__check_image_sizes(ftr__infer *s, const int64_t output[2]);
/* Turns a negative axis into the one it means. */
FTR_LIB ftr_status ftr__check_axis(ftr__infer *s, int32_t *axis, int32_t rank);
/* Sets an output; fails if its elements cannot be counted. */
FTR_LIB ftr_status ftr__set_output(ftr__infer *s, int32_t output, ftr_dtype dtype, const ftr_shape *shape);
/* The shape that two shapes broadcast to; false if there is none. */
FTR_LIB bool ftr__broadcast_shape(const ftr_shape *a, const ftr_shape *b, ftr_shape *out);

/* A layer's failure before its node exists: as ftr__builder_error(), the name put behind the scope. */
FTR_LIB ftr_tensor ftr__layer_error(ftr_graph *graph, ftr_status status, const char *what, const char *name,
                                    const char *format, ...) FTR__PRINTF(5, 6);
/* The graph of a layer's input x, or NULL with the error recorded: x is floating point and of rank min_rank to
 * max_rank, the layer has a name. */
FTR_LIB ftr_graph *ftr__layer_begin(const char *what, const char *name, ftr_tensor x, int32_t min_rank,
                                    int32_t max_rank, const char *layout);
/* Parameter or buffer "layer.field", as a value of `dtype`; of f16 or bf16 it is a cast of an f32 one. */
FTR_LIB ftr_tensor ftr__layer_variable(ftr_graph *graph, const char *what, const char *layer, const char *field,
                                       bool trainable, ftr_dtype dtype, const ftr_shape *shape, ftr_init init);
/* What a layer's description asks for; `otherwise` if it says nothing. */
FTR_LIB ftr_init ftr__init_or(const ftr_init *asked, ftr_init otherwise);
/* PyTorch's bound of a bias: 1 / sqrt(fan_in) to either side. */
FTR_LIB ftr_init ftr__bias_init(int64_t fan_in);

FTR_LIB bool ftr__has_gradient(const ftr__grad *s); /* of output 0 */
FTR_LIB ftr_tensor ftr__emit_one(ftr_op op, const ftr_op_attr *attr, ftr_tensor x);
FTR_LIB ftr_tensor ftr__emit_two(ftr_op op, const ftr_op_attr *attr, ftr_tensor a, ftr_tensor b);
/* A scalar that goes with x in arithmetic without being rounded to f16 or bf16. */
FTR_LIB ftr_tensor ftr__scalar_beside(ftr_tensor x, double value);
/* x itself if it has the type or shape already. An invalid x is handed on. */
FTR_LIB ftr_tensor ftr__cast_to(ftr_tensor x, ftr_dtype dtype);
FTR_LIB ftr_tensor ftr__reshape_to(ftr_tensor x, const ftr_shape *shape);
/* Composites that mixed precision leaves in f32, as autocast its losses and norms: the nodes from number `first` on. Returns
 * the result, y. */
FTR_LIB ftr_tensor ftr__keep_f32(ftr_tensor y, int32_t first);
/* Nodes of the graph of x, so far; 0 for an invalid x. */
FTR_LIB int32_t ftr__node_count(ftr_tensor x);
/* Sum over the axes in which `shape` was broadcast to that of x: the gradient of broadcasting. */
FTR_LIB ftr_tensor ftr__reduce_to(ftr_tensor x, const ftr_shape *shape);
FTR_LIB ftr_tensor ftr__sum_mask(ftr_tensor x, uint32_t mask, bool keep);
/* The bits of a list of axes of x; no list is all of them. False, with the error recorded, if one is out of range or
 * twice. */
FTR_LIB bool ftr__axes_mask(const char *op, ftr_tensor x, const ftr_axes *axes, uint32_t *mask);
/* The shape with the axes of `mask` as size 1. */
FTR_LIB ftr_shape ftr__kept_shape(const ftr_shape *shape, uint32_t mask);
/* The graph's batch mask, of a type, if `shape` has its leading dimension; otherwise a null handle. */
FTR_LIB ftr_tensor ftr__row_mask(ftr_graph *graph, const ftr_shape *shape, ftr_dtype dtype);

#endif
