#ifndef FTR_API_OPS_H
#define FTR_API_OPS_H

#include "api/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Ops. Each adds one node (or a few) and returns its value. All report through the graph's sticky error and return an
 * invalid handle on a mistake. Images are NHWC, convolution weights OHWI (out, height, width, in / groups), linear weights
 * [out, in]. Binary ops broadcast as NumPy does: shapes are aligned at the last dimension, a size of 1 stretches. Both
 * operands have one type; nothing is converted silently. */

/* Pointwise arithmetic on f32, f64, i32 and i64. Integer division truncates. */
FTR_API ftr_tensor ftr_add(ftr_tensor a, ftr_tensor b);
/* a - b, as ftr_add(). */
FTR_API ftr_tensor ftr_sub(ftr_tensor a, ftr_tensor b);
/* a * b, as ftr_add(). */
FTR_API ftr_tensor ftr_mul(ftr_tensor a, ftr_tensor b);
/* a / b, as ftr_add(). An integer divided by zero gives 0. */
FTR_API ftr_tensor ftr_div(ftr_tensor a, ftr_tensor b);
/* a to the power b, floating point only. Gradient as PyTorch's: d/da is 0 where b is 0, d/db is 0 where a is 0 and b >= 0. */
FTR_API ftr_tensor ftr_pow(ftr_tensor a, ftr_tensor b);
/* The larger of a and b; a NaN in either gives NaN. Where both are equal the gradient is split in halves, as PyTorch's. */
FTR_API ftr_tensor ftr_maximum(ftr_tensor a, ftr_tensor b);

/* Comparisons on numbers (and bool for eq and ne); the result is bool. */
FTR_API ftr_tensor ftr_eq(ftr_tensor a, ftr_tensor b);
/* a != b. */
FTR_API ftr_tensor ftr_ne(ftr_tensor a, ftr_tensor b);
/* a < b. */
FTR_API ftr_tensor ftr_lt(ftr_tensor a, ftr_tensor b);
/* a <= b. */
FTR_API ftr_tensor ftr_le(ftr_tensor a, ftr_tensor b);
/* a > b. */
FTR_API ftr_tensor ftr_gt(ftr_tensor a, ftr_tensor b);
/* a >= b. */
FTR_API ftr_tensor ftr_ge(ftr_tensor a, ftr_tensor b);

/* condition ? a : b, element by element; `condition` is bool; all three broadcast. */
FTR_API ftr_tensor ftr_where(ftr_tensor condition, ftr_tensor a, ftr_tensor b);

/* -x. */
FTR_API ftr_tensor ftr_neg(ftr_tensor x);
/* e to the x, floating point only, as the following. */
FTR_API ftr_tensor ftr_exp(ftr_tensor x);
/* Natural logarithm. */
FTR_API ftr_tensor ftr_log(ftr_tensor x);
/* Square root. Its gradient at 0 is infinite, as PyTorch's. */
FTR_API ftr_tensor ftr_sqrt(ftr_tensor x);
/* 1 / sqrt(x). */
FTR_API ftr_tensor ftr_rsqrt(ftr_tensor x);
/* Hyperbolic tangent. */
FTR_API ftr_tensor ftr_tanh(ftr_tensor x);
/* 1 / (1 + e^-x). */
FTR_API ftr_tensor ftr_sigmoid(ftr_tensor x);
/* max(x, 0); NaN stays NaN; gradient 0 at 0. */
FTR_API ftr_tensor ftr_relu(ftr_tensor x);

/* The smaller of a and b, otherwise as ftr_maximum(). */
FTR_API ftr_tensor ftr_minimum(ftr_tensor a, ftr_tensor b);
/* |x| of f32, f64, i32 and i64. Gradient 0 at 0. */
FTR_API ftr_tensor ftr_abs(ftr_tensor x);
/* -1, 0 or 1 by the sign of x (f32, f64, i32, i64); 0 for NaN, as PyTorch. The gradient is 0 everywhere. */
FTR_API ftr_tensor ftr_sign(ftr_tensor x);
/* Sine of x radians; floating point only, as the following. */
FTR_API ftr_tensor ftr_sin(ftr_tensor x);
/* Cosine of x radians. */
FTR_API ftr_tensor ftr_cos(ftr_tensor x);
/* Error function, 2 / sqrt(pi) times the integral of e^-t^2 from 0 to x. */
FTR_API ftr_tensor ftr_erf(ftr_tensor x);
/* Largest whole number that is not above x. The gradient is 0 everywhere. */
FTR_API ftr_tensor ftr_floor(ftr_tensor x);
/* Nearest whole number; halves go to the even one. The gradient is 0 everywhere. */
FTR_API ftr_tensor ftr_round(ftr_tensor x);
/* x limited to min..max; either may be infinite, min <= max. NaN stays NaN. The gradient passes strictly between the
 * bounds and is 0 on them, as PyTorch 2.15's. */
FTR_API ftr_tensor ftr_clamp(ftr_tensor x, double min, double max);
/* ftr_clamp() to 0..6. */
FTR_API ftr_tensor ftr_relu6(ftr_tensor x);

/* How ftr_gelu() is computed: x Phi(x) with the normal distribution's Phi, or its approximation by a hyperbolic
 * tangent, x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 (Hendrycks and Gimpel, arXiv:1606.08415), as GPT-2
 * has it. */
typedef enum ftr_gelu_form { FTR_GELU_EXACT = 0, FTR_GELU_TANH } ftr_gelu_form;

/* Gaussian error linear unit. */
FTR_API ftr_tensor ftr_gelu(ftr_tensor x, ftr_gelu_form form);
/* x / (1 + e^-x), also called swish. */
FTR_API ftr_tensor ftr_silu(ftr_tensor x);
/* x min(max(x + 3, 0), 6) / 6. Gradient 0 at -3 and 1 at 3, as PyTorch's. */
FTR_API ftr_tensor ftr_hardswish(ftr_tensor x);
/* min(max(x + 3, 0), 6) / 6. Gradient 0 at -3 and 3. */
FTR_API ftr_tensor ftr_hardsigmoid(ftr_tensor x);
/* x where x > 0, slope * x elsewhere. PyTorch's default slope is 0.01. */
FTR_API ftr_tensor ftr_leaky_relu(ftr_tensor x, double slope);
/* x where x > 0, alpha (e^x - 1) elsewhere. PyTorch's default alpha is 1. */
FTR_API ftr_tensor ftr_elu(ftr_tensor x, double alpha);
/* log(1 + e^(beta x)) / beta, and x where beta x > threshold; beta > 0. PyTorch's defaults are 1 and 20. */
FTR_API ftr_tensor ftr_softplus(ftr_tensor x, double beta, double threshold);
/* x, of any type, as a constant: no gradient flows to what it was computed from. */
FTR_API ftr_tensor ftr_stop_gradient(ftr_tensor x);

/* Converts between element types. Floating to integer truncates toward zero (out of range saturates, NaN gives 0); to bool
 * is x != 0. Differentiable between floating types. */
FTR_API ftr_tensor ftr_cast(ftr_tensor x, ftr_dtype dtype);

/* Axes: FTR_AXES(1, 2); a negative one counts from the end. No axes at all, as ftr_all_axes() gives, mean all of them. */
typedef struct ftr_axes {
    int32_t count;
    int32_t axis[FTR_MAX_RANK];
} ftr_axes;

/* FTR_AXES(0, -1): a list of axes, as an argument of ftr_sum() and its kin. */
#ifdef __cplusplus
#define FTR_AXES(...) (ftr_axes{FTR__COUNT_ARGS(__VA_ARGS__), {__VA_ARGS__}})
#else
#define FTR_AXES(...) ((ftr_axes){FTR__COUNT_ARGS(__VA_ARGS__), {__VA_ARGS__}})
#endif

/* All axes of a tensor of any rank. */
FTR_API ftr_axes ftr_all_axes(void);

/* Sum over axes; with `keep` they stay as size 1. f32, f64, i32, i64. The order of additions is fixed. Over nothing: 0. */
FTR_API ftr_tensor ftr_sum(ftr_tensor x, ftr_axes axes, bool keep);
/* Mean over axes, floating point only. Over nothing: NaN. */
FTR_API ftr_tensor ftr_mean(ftr_tensor x, ftr_axes axes, bool keep);
/* Maximum over axes; NaN wins. The gradient is shared evenly among equal maxima, as PyTorch's amax. A reduction over
 * nothing is an error. */
FTR_API ftr_tensor ftr_max(ftr_tensor x, ftr_axes axes, bool keep);
/* Index (i64) of the first maximum along one axis; NaN counts as the largest. The axis goes away. No gradient. f32, f64, i32,
 * i64. */
FTR_API ftr_tensor ftr_argmax(ftr_tensor x, int32_t axis);

/* Matrix product over the last two dimensions, [.., m, k] x [.., k, n]; the leading ones broadcast. `transpose_a` takes
 * a as [.., k, m], `transpose_b` takes b as [.., n, k]. Rank 2 or more. f32, f64. */
FTR_API ftr_tensor ftr_matmul(ftr_tensor a, ftr_tensor b, bool transpose_a, bool transpose_b);

/* Same elements in another shape. One dimension may be -1: it follows from the others. */
FTR_API ftr_tensor ftr_reshape(ftr_tensor x, ftr_shape shape);
/* Joins all dimensions from `axis` on into one. */
FTR_API ftr_tensor ftr_flatten(ftr_tensor x, int32_t axis);
/* Permutes dimensions: dimension i of the result is dimension order[i] of x. order has the rank of x. */
FTR_API ftr_tensor ftr_transpose(ftr_tensor x, ftr_axes order);
/* Repeats dimensions of size 1 to reach a shape, aligned at the last dimension. */
FTR_API ftr_tensor ftr_expand(ftr_tensor x, ftr_shape shape);
/* Joins 1 to 16 tensors along an axis; the other dimensions are equal. */
FTR_API ftr_tensor ftr_concat(const ftr_tensor *tensors, int32_t count, int32_t axis);
/* Elements begin, begin + step, ... below end along one axis; negative begin and end count from the size; both are clamped
 * to it as in Python; step is 1 or more. */
FTR_API ftr_tensor ftr_slice(ftr_tensor x, int32_t axis, int64_t begin, int64_t end, int64_t step);
/* Adds before[i] and after[i] (0 or more) elements of `value` along dimension i. Both shapes have the rank of x. */
FTR_API ftr_tensor ftr_pad(ftr_tensor x, ftr_shape before, ftr_shape after, double value);

/* exp(x) / sum exp(x) along an axis. */
FTR_API ftr_tensor ftr_softmax(ftr_tensor x, int32_t axis);
/* log of ftr_softmax(), computed stably. */
FTR_API ftr_tensor ftr_log_softmax(ftr_tensor x, int32_t axis);

/* While training: sets elements to 0 with probability p and scales the others by 1 / (1 - p). In evaluation: x. The mask
 * is a pure function of (seed, node, step, element). 0 <= p <= 1. */
FTR_API ftr_tensor ftr_dropout(ftr_tensor x, double p);

/* --------------------------------------------------------------------------------------------------- convolution -- */

/* 0 in a field means its default. */
typedef struct ftr_conv2d_desc {
    int32_t stride[2];   /* height, width; default 1 */
    int32_t padding[4];  /* zeros added at top, bottom, left, right; default 0 */
    int32_t dilation[2]; /* default 1 */
    int32_t groups;      /* default 1; divides both channel counts */
    bool no_bias;        /* leave the bias out (the layer form only) */
} ftr_conv2d_desc;

/* 2-D convolution (cross-correlation, as PyTorch's) of x [n, h, w, c] with weight [o, kh, kw, c / groups] and bias [o],
 * which may be a null handle. Result [n, oh, ow, o], oh = (h + top + bottom - dilation * (kh - 1) - 1) / stride + 1.
 * `desc` may be NULL. */
FTR_API ftr_tensor ftr_conv2d_with(ftr_tensor x, ftr_tensor weight, ftr_tensor bias, const ftr_conv2d_desc *desc);

/* Layer: ftr_conv2d_with() on parameters "name.weight" [out_channels, kernel, kernel, c / groups] and "name.bias", with
 * PyTorch's default initialization. */
FTR_API ftr_tensor ftr_conv2d(ftr_tensor x, const char *name, int64_t out_channels, int32_t kernel,
                              const ftr_conv2d_desc *desc);

/* 0 in a field means its default. */
typedef struct ftr_pool2d_desc {
    int32_t stride[2];      /* default: the window */
    int32_t padding[4];     /* top, bottom, left, right; default 0, at most half the window */
    bool exclude_padding;   /* average only: divide by the number of real elements, not by the window */
} ftr_pool2d_desc;

/* Maximum over windows of [n, h, w, c]; the first of equal elements gets the gradient; padding never wins. */
FTR_API ftr_tensor ftr_max_pool2d(ftr_tensor x, int32_t kernel_h, int32_t kernel_w, const ftr_pool2d_desc *desc);
/* Mean over windows of [n, h, w, c]; padding counts as zeros unless exclude_padding is set. */
FTR_API ftr_tensor ftr_avg_pool2d(ftr_tensor x, int32_t kernel_h, int32_t kernel_w, const ftr_pool2d_desc *desc);
/* Mean over height and width: [n, h, w, c] to [n, c]. */
FTR_API ftr_tensor ftr_global_avg_pool(ftr_tensor x);

/* ----------------------------------------------------------------------------------------------- linear and norm -- */

/* x weight^T + bias: x [.., in], weight [out, in], bias [out] or a null handle. */
FTR_API ftr_tensor ftr_linear_with(ftr_tensor x, ftr_tensor weight, ftr_tensor bias);

/* 0 in a field means its default. */
typedef struct ftr_linear_desc {
    bool no_bias;
} ftr_linear_desc;

/* Layer: ftr_linear_with() on parameters "name.weight" and "name.bias" with PyTorch's default initialization. */
FTR_API ftr_tensor ftr_linear(ftr_tensor x, const char *name, int64_t out_features, const ftr_linear_desc *desc);

/* From ftr_batch_norm_defaults(). */
typedef struct ftr_batch_norm_desc {
    uint32_t cookie;
    double eps;      /* added to the variance; 1e-5 */
    double momentum; /* weight of the new batch in the running statistics; 0.1 */
} ftr_batch_norm_desc;

/* eps 1e-5, momentum 0.1. */
FTR_API ftr_batch_norm_desc ftr_batch_norm_defaults(void);

/* Normalizes each channel (the last dimension of x, rank 2 or more) by its statistics over all other dimensions, then
 * scales by gamma and adds beta (each [c]). In a training plan the batch's statistics are used (biased variance) and the
 * running ones move by momentum (unbiased variance, as PyTorch); in an evaluation plan the running ones are used. */
FTR_API ftr_tensor ftr_batch_norm_with(ftr_tensor x, ftr_tensor gamma, ftr_tensor beta, ftr_tensor running_mean,
                                       ftr_tensor running_var, const ftr_batch_norm_desc *desc);

/* Layer: parameters "name.weight" (1), "name.bias" (0), buffers "name.running_mean" (0), "name.running_var" (1). */
FTR_API ftr_tensor ftr_batch_norm(ftr_tensor x, const char *name, const ftr_batch_norm_desc *desc);

/* -------------------------------------------------------------------------------------------- losses and metrics -- */

typedef enum ftr_reduction { FTR_REDUCE_MEAN = 0, FTR_REDUCE_SUM, FTR_REDUCE_NONE } ftr_reduction;

/* From ftr_cross_entropy_defaults(). */
typedef struct ftr_cross_entropy_desc {
    uint32_t cookie;
    double label_smoothing;   /* 0 to 1; 0 */
    int64_t ignore_index;     /* rows with this label count for nothing; -100 */
    ftr_tensor class_weights; /* [classes]; a null handle is 1 for each. The mean divides by the sum of the rows' weights */
    ftr_reduction reduction;  /* FTR_REDUCE_NONE gives one loss a row, 0 for ignored ones */
} ftr_cross_entropy_desc;

/* No smoothing, ignore_index -100, no weights, mean. */
FTR_API ftr_cross_entropy_desc ftr_cross_entropy_defaults(void);

/* Cross entropy of softmax(logits) [.., classes] against labels [..] (i32 or i64), as PyTorch's cross_entropy. A label
 * outside the classes that is not ignore_index fails the step with FTR_ERROR_DATA and changes no parameter. The mean over
 * no rows at all is NaN. `desc` may be NULL. */
FTR_API ftr_tensor ftr_cross_entropy(ftr_tensor logits, ftr_tensor labels, const ftr_cross_entropy_desc *desc);

/* Mean (or sum, or each) of (prediction - target)^2; equal shapes. */
FTR_API ftr_tensor ftr_mse(ftr_tensor prediction, ftr_tensor target, ftr_reduction reduction);

/* Share of rows whose largest logit is at the label: a scalar, without a gradient. logits [.., classes], labels [..]. */
FTR_API ftr_tensor ftr_accuracy(ftr_tensor logits, ftr_tensor labels);

#ifdef __cplusplus
}
#endif

#endif
