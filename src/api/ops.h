#ifndef FTR_API_OPS_H
#define FTR_API_OPS_H

#include "api/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Ops. Each adds one node (or a few) and returns its value. All report through the graph's sticky error and return an
 * invalid handle on a mistake. Images are NHWC, convolution weights OHWI (out, height, width, in / groups; of a
 * transposed convolution in, height, width, out / groups), linear weights [out, in]. Binary ops broadcast as NumPy does:
 * shapes are aligned at the last dimension, a size of 1 stretches. Both operands have one type; nothing is converted
 * silently. "Floating point" is f32, f64, f16 and bf16. Each op on f16 or bf16 computes in f32 and rounds its result
 * once, to the nearest, ties to even. Beside them scalars (rank 0) of arithmetic and comparisons, and the parameters and
 * statistics of norms, may be f32: the result has the type of the other operand. Layers on f16 or bf16 have f32
 * parameters, which they cast. Mixed precision (ftr_compile_desc.amp) does all this to a graph written in f32. */

/* Pointwise arithmetic on floating point, i32 and i64. Integer division truncates. */
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
/* |x| of floating point, i32 and i64. Gradient 0 at 0. */
FTR_API ftr_tensor ftr_abs(ftr_tensor x);
/* -1, 0 or 1 by the sign of x (floating point, i32, i64); 0 for NaN, as PyTorch. The gradient is 0 everywhere. */
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
 * is x != 0. To a floating type that is too narrow: the nearest value, ties to even, what is too large infinity; NaN stays
 * NaN. Integers become f16 or bf16 by way of f32. Differentiable between floating types. */
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

/* Sum over axes; with `keep` they stay as size 1. Floating point, i32, i64. The order of additions is fixed. Over
 * nothing: 0. */
FTR_API ftr_tensor ftr_sum(ftr_tensor x, ftr_axes axes, bool keep);
/* Mean over axes, floating point only. Over nothing: NaN. */
FTR_API ftr_tensor ftr_mean(ftr_tensor x, ftr_axes axes, bool keep);
/* Maximum over axes; NaN wins. The gradient is shared evenly among equal maxima, as PyTorch's amax; where the maximum is NaN
 * it is NaN for all. A reduction over nothing is an error. */
FTR_API ftr_tensor ftr_max(ftr_tensor x, ftr_axes axes, bool keep);
/* Index (i64) of the first maximum along one axis; NaN counts as the largest. The axis goes away. No gradient. Floating
 * point, i32, i64. */
FTR_API ftr_tensor ftr_argmax(ftr_tensor x, int32_t axis);

/* Matrix product over the last two dimensions, [.., m, k] x [.., k, n]; the leading ones broadcast. `transpose_a` takes
 * a as [.., k, m], `transpose_b` takes b as [.., n, k]. Rank 2 or more. Floating point. */
FTR_API ftr_tensor ftr_matmul(ftr_tensor a, ftr_tensor b, bool transpose_a, bool transpose_b);
/* Einstein summation of two tensors, or of one if b is a null handle, as torch.einsum: "bij,bjk->bik" names each dimension
 * by a letter; what the result lacks is summed over. A letter twice in one operand is its diagonal. "..." stands for
 * dimensions without a name, which broadcast. Of one letter a size of 1 stretches to the other operand's. Without "->" the
 * result has the dimensions of "...", then the letters that are there once, in the order of ASCII. Spaces do not count.
 * Floating point, i32, i64. It becomes sums, transposes and one matmul, or mul if there is nothing to sum over
 * together. */
FTR_API ftr_tensor ftr_einsum(const char *equation, ftr_tensor a, ftr_tensor b);

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
/* ftr_dropout() of whole samples, as torchvision's stochastic_depth in mode "row": while training each row of the leading
 * dimension is set to 0 with probability p, the others are scaled by 1 / (1 - p). The mask is a pure function of (seed,
 * node, step, row). x of rank 1 or more. A residual block that is left out for some samples (Huang et al., ECCV 2016):
 * ftr_add(x, ftr_stochastic_depth(block, p)). */
FTR_API ftr_tensor ftr_stochastic_depth(ftr_tensor x, double p);

/* An f32 tensor of random numbers from low to high (not included, unless it equals low), new ones in each step, while
 * training and in evaluation. The numbers are a pure function of (seed, full name, step, element): with a name, which no
 * other random tensor has, the rest of the graph does not change them. With NULL the name is "random_uniform_" and the
 * node's number, which depends on the nodes before it. */
FTR_API ftr_tensor ftr_random_uniform(ftr_graph *graph, const char *name, ftr_shape shape, double low, double high);
/* The same, normally distributed with a mean and a standard deviation of 0 or more. No number is further than 5.8 deviations
 * from the mean. */
FTR_API ftr_tensor ftr_random_normal(ftr_graph *graph, const char *name, ftr_shape shape, double mean, double std);

/* ------------------------------------------------------------------------------------------------------- mixing -- */

/* Who a sample of a batch is mixed with. */
typedef enum ftr_mix_pairs {
    FTR_MIX_ROLL = 0, /* the sample before it, the first with the last, as torchvision */
    FTR_MIX_PERMUTE   /* the one that a random permutation puts in its place, which may be itself */
} ftr_mix_pairs;

/* From ftr_mix_defaults(). */
typedef struct ftr_mix_desc {
    uint32_t cookie;
    double mixup, cutmix; /* probabilities of each for a batch; the rest of the batches stay as they are; 0.5, 0.5 */
    double mixup_alpha;   /* lambda comes from Beta(alpha, alpha); 0.2 */
    double cutmix_alpha;  /* 1 */
    ftr_mix_pairs pairs;
} ftr_mix_desc;

/* One of mixup with alpha 0.2 and cutmix with alpha 1, as torchvision's references have them; FTR_MIX_ROLL. */
FTR_API ftr_mix_desc ftr_mix_defaults(void);

/* How a batch is mixed: from ftr_mix_draw(), or of the caller's own tensors. */
typedef struct ftr_mix {
    ftr_tensor weights;  /* f32 [4]: an image's own and its partner's, a target's own and its partner's */
    ftr_tensor partners; /* i32 [n]: the row of each row's partner */
    ftr_tensor box;      /* i32 [4]: top, left, bottom, right (not included); inside it an image is its partner. A null
                          * handle: none */
} ftr_mix;

/* Draws how each batch is mixed: by mixup (Zhang et al., ICLR 2018), by cutmix (Yun et al., ICCV 2019), or not at all. Two
 * lines between input and model, and a loss of class probabilities:
 *
 *     ftr_mix mix = ftr_mix_draw(images, NULL, NULL);
 *     ftr_tensor x = ftr_mix_images(images, mix), target = ftr_mix_targets(ftr_one_hot(labels, 10, FTR_F32), mix);
 *     ... ftr_cross_entropy(model(x), target, NULL) ...
 *
 * Mixup weights images and targets by lambda and 1 - lambda. Cutmix puts a box of the partner into each image, with the
 * middle drawn evenly, its sides sqrt(1 - lambda) of the image's, cut off at the edges; the targets are weighted by what
 * is left of each. One lambda and one box a batch, all as torchvision.transforms.v2's MixUp and CutMix. Only the batch's size
 * and, for cutmix, height and width of `images` [n, h, w, ..] count. Rows that ftr_batch_mask() leaves out, if it is declared
 * before, are mixed with nothing. Numbers come from ftr_seeds.augment, the full name (of which no other draw may be; NULL:
 * "mix_draw_" and the node's number) and the step: the same on any machine, for any number of threads, and when a run is
 * resumed. `desc` may be NULL. The handles are invalid on an error. */
FTR_API ftr_mix ftr_mix_draw(ftr_tensor images, const char *name, const ftr_mix_desc *desc);

/* While training: w0 x + w1 x[partner] outside the box, x[partner] inside; a term of weight 0 is left out. In evaluation: x.
 * x [n, h, w, ..] of the size that was drawn for, rank 3 or more; without a box [n, ..], rank 2 or more. Floating point. A
 * partner or a box outside of x fails the step with FTR_ERROR_DATA. */
FTR_API ftr_tensor ftr_mix_images(ftr_tensor x, ftr_mix mix);

/* While training: w2 t + w3 t[partner]. In evaluation: t. Class probabilities [n, ..], rank 2 or more, floating point; labels
 * become them by ftr_one_hot(). */
FTR_API ftr_tensor ftr_mix_targets(ftr_tensor targets, ftr_mix mix);

/* --------------------------------------------------------------------------------------------------- attention -- */

/* From ftr_attention_defaults(). */
typedef struct ftr_attention_desc {
    uint32_t cookie;
    bool causal;     /* query i sees the keys 0 to i, whatever tq and tk are, as PyTorch's is_causal; false */
    ftr_tensor mask; /* added to the scores; broadcasts to [n, heads, tq, tk]; -inf excludes a key. A null handle: none */
    double scale;    /* of the scores; 0 is 1 / sqrt(d); 0 */
    double dropout;  /* while training: probability that a weight is set to 0; the others are scaled; 0 */
} ftr_attention_desc;

/* No mask, scale 1 / sqrt(d), no dropout. */
FTR_API ftr_attention_desc ftr_attention_defaults(void);

/* Scaled dot-product attention (Vaswani et al.: Attention Is All You Need, 2017): softmax over the keys of
 * scale * query . key + mask, times the values. query [n, tq, heads, d], key [n, tk, kv_heads, d], value [n, tk,
 * kv_heads, dv] give [n, tq, heads, dv]; kv_heads divides heads, and heads / kv_heads neighbouring query heads share
 * one of key and value (grouped-query attention, Ainslie et al. 2023). Causal and a mask both apply if both are given.
 * A query that sees no key gives 0, with gradient 0, as PyTorch's. The matrix of scores is never in memory: it is
 * computed by tiles, in the gradient once more (Dao et al.: FlashAttention, 2022). Floating point, all of one type. The
 * mask has a gradient. `desc` may be NULL. */
FTR_API ftr_tensor ftr_attention(ftr_tensor query, ftr_tensor key, ftr_tensor value, const ftr_attention_desc *desc);

/* From ftr_rotary_defaults(). */
typedef struct ftr_rotary_desc {
    uint32_t cookie;
    double base;      /* 10000 */
    int64_t first;    /* position of row 0; 0 */
    int32_t dims;     /* how many of the d elements are rotated, the first ones; even; 0 is all; 0 */
    bool interleaved; /* a pair is elements 2 i and 2 i + 1, as in GPT-J, instead of i and i + dims / 2, as in GPT-NeoX
                       * and Llama; false */
} ftr_rotary_desc;

/* Base 10000, from position 0, all of d, pairs of halves. */
FTR_API ftr_rotary_desc ftr_rotary_defaults(void);

/* Rotary position embedding (Su et al.: RoFormer, 2021) of queries or keys [n, t, heads, d]: pair i of row p is rotated
 * by the angle (first + p) * base^(-2 i / dims). Elements from `dims` on stay. `desc` may be NULL. */
FTR_API ftr_tensor ftr_rotary(ftr_tensor x, const ftr_rotary_desc *desc);

/* ------------------------------------------------------------------------------------------- indices and scans -- */

/* Rows of weight [rows, width]: indices [..] (i32 or i64) to [.., width]. An index outside 0 to rows - 1 fails the step
 * with FTR_ERROR_DATA and changes no parameter. Rows that come up several times get the sum of their gradients, added
 * in the order of the indices. */
FTR_API ftr_tensor ftr_embedding_with(ftr_tensor weight, ftr_tensor indices);

/* 0 in a field means its default. */
typedef struct ftr_embedding_desc {
    ftr_dtype dtype; /* of the weight; default FTR_F32 */
    ftr_init weight_init;
} ftr_embedding_desc;

/* Layer: ftr_embedding_with() on the parameter "name.weight" [rows, width], normal with mean 0 and deviation 1 as
 * PyTorch's. `desc` may be NULL. */
FTR_API ftr_tensor ftr_embedding(ftr_tensor indices, const char *name, int64_t rows, int64_t width,
                                 const ftr_embedding_desc *desc);

/* Picks elements along an axis, as torch.gather: result[i][j][k] = x[i][index[i][j][k]][k] for axis 1. `index` (i32 or
 * i64) has the rank of x and is in no other dimension larger; the result has its shape. Any element type. An index
 * outside the axis fails the step with FTR_ERROR_DATA. */
FTR_API ftr_tensor ftr_gather(ftr_tensor x, int32_t axis, ftr_tensor index);
/* x with elements of `source` added along an axis, as torch.scatter_add: for axis 1 source[i][j][k] is added to
 * result[i][index[i][j][k]][k], in the order of j. `index` (i32 or i64) has the rank of x and `source`, is in no
 * dimension larger than `source` and in none but the axis larger than x. Floating point, i32, i64. An index outside the
 * axis fails the step with FTR_ERROR_DATA. */
FTR_API ftr_tensor ftr_scatter_add(ftr_tensor x, int32_t axis, ftr_tensor index, ftr_tensor source);
/* indices [..] (i32 or i64) to [.., classes] of a type: 1 at the index, 0 elsewhere. An index outside 0 to classes - 1
 * fails the step with FTR_ERROR_DATA. No gradient. */
FTR_API ftr_tensor ftr_one_hot(ftr_tensor indices, int64_t classes, ftr_dtype dtype);
/* The k largest elements along the last axis, in descending order; of equal ones the first come first, NaN is larger
 * than all. `indices` (may be NULL) gets their positions, i64. Floating point, i32, i64; 0 <= k <= size of the axis. */
FTR_API ftr_tensor ftr_topk(ftr_tensor x, int64_t k, ftr_tensor *indices);

/* Sums of the elements up to each along an axis; with `reverse`, of those from each on. Floating point, i32, i64. */
FTR_API ftr_tensor ftr_cumsum(ftr_tensor x, int32_t axis, bool reverse);
/* Product over axes, as ftr_sum(); its gradient is right with zeros too. Floating point, i32, i64. Over nothing: 1. */
FTR_API ftr_tensor ftr_prod(ftr_tensor x, ftr_axes axes, bool keep);
/* log of the sum of e^x over axes, computed stably, floating point only. Over nothing, or where all are -inf: -inf. The
 * gradient is e^(x - result), which is softmax(x); where the result is inf, it is NaN for an infinite x, 0 for the others. */
FTR_API ftr_tensor ftr_logsumexp(ftr_tensor x, ftr_axes axes, bool keep);
/* Variance over axes: sum of (x - mean)^2 / (n - correction) for n elements; correction 0 (biased) or 1 (unbiased).
 * Floating point only. NaN where n - correction is not positive. */
FTR_API ftr_tensor ftr_var(ftr_tensor x, ftr_axes axes, int32_t correction, bool keep);
/* Norm over axes, floating point only: p = 1 (sum of |x|), 2 (square root of the sum of squares) or INFINITY (largest
 * |x|, over nothing an error). The gradient at 0 is 0, as PyTorch's; for INFINITY equal maxima share it. */
FTR_API ftr_tensor ftr_norm(ftr_tensor x, double p, ftr_axes axes, bool keep);

/* Cuts x along an axis into `count` parts of the given sizes, which add up to the axis, or into equal ones if `sizes`
 * is NULL. On a mistake all parts are invalid. */
FTR_API void ftr_split(ftr_tensor x, int32_t axis, const int64_t *sizes, int32_t count, ftr_tensor *parts);
/* Joins 1 to 16 tensors of one shape along a new axis: -1 puts it last, 0 first. */
FTR_API ftr_tensor ftr_stack(const ftr_tensor *tensors, int32_t count, int32_t axis);

/* --------------------------------------------------------------------------------------------------- convolution -- */

/* 0 in a field means its default. */
typedef struct ftr_conv2d_desc {
    int32_t stride[2];   /* height, width; default 1 */
    int32_t padding[4];  /* zeros added at top, bottom, left, right; default 0 */
    int32_t dilation[2]; /* default 1 */
    int32_t groups;      /* default 1; divides both channel counts */
    bool no_bias;        /* the layer form only, as the following: leave the bias out */
    ftr_init weight_init, bias_init;
} ftr_conv2d_desc;

/* 2-D convolution (cross-correlation, as PyTorch's) of x [n, h, w, c] with weight [o, kh, kw, c / groups] and bias [o],
 * which may be a null handle. Result [n, oh, ow, o], oh = (h + top + bottom - dilation * (kh - 1) - 1) / stride + 1.
 * `desc` may be NULL. */
FTR_API ftr_tensor ftr_conv2d_with(ftr_tensor x, ftr_tensor weight, ftr_tensor bias, const ftr_conv2d_desc *desc);

/* Layer: ftr_conv2d_with() on parameters "name.weight" [out_channels, kernel, kernel, c / groups] and "name.bias", with
 * PyTorch's default initialization unless the description has another. */
FTR_API ftr_tensor ftr_conv2d(ftr_tensor x, const char *name, int64_t out_channels, int32_t kernel,
                              const ftr_conv2d_desc *desc);

/* 0 in a field means its default. */
typedef struct ftr_conv_transpose2d_desc {
    int32_t stride[2];         /* height, width; default 1 */
    int32_t padding[4];        /* cut off at top, bottom, left, right; default 0 */
    int32_t output_padding[2]; /* added at bottom and right; below the stride or the dilation; default 0 */
    int32_t dilation[2];       /* default 1 */
    int32_t groups;            /* default 1; divides both channel counts */
    bool no_bias;              /* the layer form only, as the following: leave the bias out */
    ftr_init weight_init, bias_init;
} ftr_conv_transpose2d_desc;

/* 2-D transposed convolution, as PyTorch's conv_transpose2d: the gradient of ftr_conv2d_with() with respect to its
 * input, plus a bias. x [n, h, w, c] with weight [c, kh, kw, o / groups] and bias [o], which may be a null handle, give
 * [n, oh, ow, o], oh = (h - 1) * stride - top - bottom + dilation * (kh - 1) + output_padding + 1. `desc` may be
 * NULL. */
FTR_API ftr_tensor ftr_conv_transpose2d_with(ftr_tensor x, ftr_tensor weight, ftr_tensor bias,
                                             const ftr_conv_transpose2d_desc *desc);

/* Layer: ftr_conv_transpose2d_with() on parameters "name.weight" [c, kernel, kernel, out_channels / groups], in files
 * [c, out_channels / groups, kernel, kernel], and "name.bias", with PyTorch's default initialization unless the
 * description has another. */
FTR_API ftr_tensor ftr_conv_transpose2d(ftr_tensor x, const char *name, int64_t out_channels, int32_t kernel,
                                        const ftr_conv_transpose2d_desc *desc);

/* 0 in a field means its default. */
typedef struct ftr_conv1d_desc {
    int32_t stride;     /* default 1 */
    int32_t padding[2]; /* zeros added at the beginning, the end; default 0 */
    int32_t dilation;   /* default 1 */
    int32_t groups;     /* default 1; divides both channel counts */
    bool no_bias;       /* the layer form only, as the following: leave the bias out */
    ftr_init weight_init, bias_init;
} ftr_conv1d_desc;

/* 1-D convolution of x [n, l, c] with weight [o, k, c / groups] and bias [o], which may be a null handle: as
 * ftr_conv2d_with() of images of one row. Result [n, ol, o]. `desc` may be NULL. */
FTR_API ftr_tensor ftr_conv1d_with(ftr_tensor x, ftr_tensor weight, ftr_tensor bias, const ftr_conv1d_desc *desc);

/* Layer: ftr_conv1d_with() on parameters "name.weight" [out_channels, kernel, c / groups], in files [out_channels,
 * c / groups, kernel], and "name.bias", with PyTorch's default initialization unless the description has another. */
FTR_API ftr_tensor ftr_conv1d(ftr_tensor x, const char *name, int64_t out_channels, int32_t kernel,
                              const ftr_conv1d_desc *desc);

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
/* Mean over out_h x out_w windows that cover [n, h, w, c], as PyTorch's adaptive_avg_pool2d: window i goes from row
 * floor(i * h / out_h) to ceil((i + 1) * h / out_h), columns likewise. out_h and out_w are 1 or more, also above h and
 * w. */
FTR_API ftr_tensor ftr_adaptive_avg_pool2d(ftr_tensor x, int64_t out_h, int64_t out_w);

/* How ftr_resize2d() makes a pixel: a copy of one, or a mean of four by their distances. */
typedef enum ftr_resize_mode { FTR_RESIZE_NEAREST = 0, FTR_RESIZE_BILINEAR } ftr_resize_mode;

/* 0 in a field means its default. */
typedef struct ftr_resize2d_desc {
    ftr_resize_mode mode; /* default FTR_RESIZE_NEAREST */
    bool align_corners;   /* bilinear only: the centres of the corner pixels stay where they are; false */
} ftr_resize2d_desc;

/* Resizes images [n, h, w, c] to [n, out_h, out_w, c], as PyTorch's interpolate(size=(out_h, out_w)) without
 * antialiasing. Row i comes from row floor(i * s) for nearest, s = h / out_h, product and quotient in f32; for bilinear
 * from position max((i + 1/2) * s - 1/2, 0), or i * (h - 1) / (out_h - 1) with align_corners, between its two
 * neighbours; columns likewise. out_h and out_w are 1 or more. `desc` may be NULL. */
FTR_API ftr_tensor ftr_resize2d(ftr_tensor x, int64_t out_h, int64_t out_w, const ftr_resize2d_desc *desc);

/* ----------------------------------------------------------------------------------------------- linear and norm -- */

/* x weight^T + bias: x [.., in], weight [out, in], bias [out] or a null handle. */
FTR_API ftr_tensor ftr_linear_with(ftr_tensor x, ftr_tensor weight, ftr_tensor bias);

/* 0 in a field means its default. */
typedef struct ftr_linear_desc {
    bool no_bias;
    ftr_init weight_init, bias_init;
} ftr_linear_desc;

/* Layer: ftr_linear_with() on parameters "name.weight" and "name.bias" with PyTorch's default initialization
 * unless the description has another. */
FTR_API ftr_tensor ftr_linear(ftr_tensor x, const char *name, int64_t out_features, const ftr_linear_desc *desc);

/* From ftr_batch_norm_defaults(). */
typedef struct ftr_batch_norm_desc {
    uint32_t cookie;
    double eps;      /* added to the variance; 1e-5 */
    double momentum; /* weight of the new batch in the running statistics; 0.1 */
    ftr_init weight_init, bias_init; /* the layer form only; FTR_INIT_DEFAULT: 1 and 0 */
} ftr_batch_norm_desc;

/* eps 1e-5, momentum 0.1. */
FTR_API ftr_batch_norm_desc ftr_batch_norm_defaults(void);

/* Normalizes each channel (the last dimension of x, rank 2 or more) by its statistics over all other dimensions, then
 * scales by gamma and adds beta (each [c]). In a training plan the batch's statistics are used (biased variance) and the
 * running ones move by momentum (unbiased variance, as PyTorch); in an evaluation plan the running ones are used. */
FTR_API ftr_tensor ftr_batch_norm_with(ftr_tensor x, ftr_tensor gamma, ftr_tensor beta, ftr_tensor running_mean,
                                       ftr_tensor running_var, const ftr_batch_norm_desc *desc);

/* Layer: parameters "name.weight" (1) and "name.bias" (0), unless the description has another initialization; buffers
 * "name.running_mean" (0) and "name.running_var" (1). */
FTR_API ftr_tensor ftr_batch_norm(ftr_tensor x, const char *name, const ftr_batch_norm_desc *desc);

/* From ftr_layer_norm_defaults(). */
typedef struct ftr_layer_norm_desc {
    uint32_t cookie;
    double eps;   /* added to the variance; 1e-5 */
    int32_t dims; /* dimensions of a row, the last ones; 0 is gamma's rank (or beta's), 1 without both; 0 */
    bool no_bias; /* leave the bias out (the layer form only) */
} ftr_layer_norm_desc;

/* eps 1e-5, rows as gamma has them, a bias. */
FTR_API ftr_layer_norm_desc ftr_layer_norm_defaults(void);

/* Normalizes each row of x, its last `dims` dimensions, by the row's mean and biased variance, then multiplies by gamma
 * and adds beta, as PyTorch's layer_norm. gamma and beta have the shape of a row; each may be a null handle. (Ba,
 * Kiros, Hinton: Layer Normalization, 2016.) `desc` may be NULL. */
FTR_API ftr_tensor ftr_layer_norm_with(ftr_tensor x, ftr_tensor gamma, ftr_tensor beta,
                                       const ftr_layer_norm_desc *desc);

/* Layer over the last dimension: parameters "name.weight" (1) and "name.bias" (0). */
FTR_API ftr_tensor ftr_layer_norm(ftr_tensor x, const char *name, const ftr_layer_norm_desc *desc);

/* From ftr_rms_norm_defaults(). */
typedef struct ftr_rms_norm_desc {
    uint32_t cookie;
    double eps; /* added to the mean square; 2^-23, which is PyTorch's default for f32 */
} ftr_rms_norm_desc;

/* eps 2^-23. */
FTR_API ftr_rms_norm_desc ftr_rms_norm_defaults(void);

/* x / sqrt(mean of x^2 + eps) over the last dimension, times gamma [size of it], which may be a null handle. (Zhang,
 * Sennrich: Root Mean Square Layer Normalization, 2019.) `desc` may be NULL. */
FTR_API ftr_tensor ftr_rms_norm_with(ftr_tensor x, ftr_tensor gamma, const ftr_rms_norm_desc *desc);

/* Layer: parameter "name.weight" (1). */
FTR_API ftr_tensor ftr_rms_norm(ftr_tensor x, const char *name, const ftr_rms_norm_desc *desc);

/* From ftr_group_norm_defaults(). */
typedef struct ftr_group_norm_desc {
    uint32_t cookie;
    double eps; /* added to the variance; 1e-5 */
} ftr_group_norm_desc;

/* eps 1e-5. */
FTR_API ftr_group_norm_desc ftr_group_norm_defaults(void);

/* Normalizes x [n, .., c] by the mean and biased variance of each sample's groups of c / groups neighbouring channels,
 * then scales by gamma and adds beta, each [c] or a null handle. As PyTorch's group_norm, but that the channels are the
 * last dimension. (Wu, He: Group Normalization, 2018.) `desc` may be NULL. */
FTR_API ftr_tensor ftr_group_norm_with(ftr_tensor x, int32_t groups, ftr_tensor gamma, ftr_tensor beta,
                                       const ftr_group_norm_desc *desc);

/* Layer: parameters "name.weight" (1) and "name.bias" (0). */
FTR_API ftr_tensor ftr_group_norm(ftr_tensor x, const char *name, int32_t groups, const ftr_group_norm_desc *desc);

/* -------------------------------------------------------------------------------------------- losses and metrics -- */

typedef enum ftr_reduction {
    FTR_REDUCE_MEAN = 0,
    FTR_REDUCE_SUM,
    FTR_REDUCE_NONE,
    FTR_REDUCE_BATCH_MEAN /* the sum divided by the number of rows; ftr_kl_div() only */
} ftr_reduction;

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

/* Cross entropy of softmax(logits) [.., classes] against labels [..] (i32 or i64), or against class probabilities
 * [.., classes] of the logits' type (soft targets), as PyTorch's cross_entropy. Probabilities have a gradient too, are not
 * looked at whether they add up to 1, and their mean is over the rows, whatever the class weights; ignore_index must then be
 * below 0. Rows that ftr_batch_mask() leaves out do not count. A label outside the classes that is not ignore_index fails the step with FTR_ERROR_DATA and changes no parameter. The mean over
 * no rows at all is NaN. `desc` may be NULL. */
FTR_API ftr_tensor ftr_cross_entropy(ftr_tensor logits, ftr_tensor labels, const ftr_cross_entropy_desc *desc);

/* Mean (or sum, or each) of (prediction - target)^2; equal shapes. */
FTR_API ftr_tensor ftr_mse(ftr_tensor prediction, ftr_tensor target, ftr_reduction reduction);

/* Negative log-likelihood: as ftr_cross_entropy(), of log-probabilities [.., classes] (ftr_log_softmax()) instead of
 * logits. desc->label_smoothing must be 0. `desc` may be NULL. */
FTR_API ftr_tensor ftr_nll(ftr_tensor log_probabilities, ftr_tensor labels, const ftr_cross_entropy_desc *desc);

/* 0 in a field means its default. */
typedef struct ftr_bce_desc {
    ftr_tensor pos_weight;   /* factor of the positive targets' term; broadcasts to the logits; default 1 */
    ftr_reduction reduction; /* default: mean */
} ftr_bce_desc;

/* Binary cross entropy of sigmoid(logits) against targets from 0 to 1, computed stably; equal shapes. As PyTorch's
 * binary_cross_entropy_with_logits. `desc` may be NULL. */
FTR_API ftr_tensor ftr_bce_with_logits(ftr_tensor logits, ftr_tensor target, const ftr_bce_desc *desc);

/* Kullback-Leibler divergence, target * (log target - input), of log-probabilities `input` from probabilities `target`,
 * or from log-probabilities with log_target; equal shapes. A target of 0 gives 0, and -input as its gradient. The mean
 * is over all elements, as PyTorch's kl_div; FTR_REDUCE_BATCH_MEAN is the mathematical one. */
FTR_API ftr_tensor ftr_kl_div(ftr_tensor input, ftr_tensor target, bool log_target, ftr_reduction reduction);

/* Of the differences d: d^2 / (2 beta) where |d| < beta, |d| - beta / 2 elsewhere; equal shapes. beta is 0 or more; 0
 * is the absolute error, whose gradient at 0 is 0. */
FTR_API ftr_tensor ftr_smooth_l1(ftr_tensor prediction, ftr_tensor target, double beta, ftr_reduction reduction);

/* Share of rows whose largest logit is at the label: a scalar, without a gradient. logits [.., classes], labels [..]. */
FTR_API ftr_tensor ftr_accuracy(ftr_tensor logits, ftr_tensor labels);

#ifdef __cplusplus
}
#endif

#endif
