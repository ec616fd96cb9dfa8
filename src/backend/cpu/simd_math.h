/* SIMD functions for everything but matrix products: inner loops over contiguous rows. Unless said otherwise an
 * output may be the same pointer as an input, and an element's result does not depend on where in a row it stands or
 * how rows are cut. */
#ifndef FTR_BACKEND_CPU_SIMD_MATH_H
#define FTR_BACKEND_CPU_SIMD_MATH_H

#include "core/core.h"

typedef enum ftr__simd_binary {
    FTR__BINARY_ADD = 0,
    FTR__BINARY_SUB,
    FTR__BINARY_MUL,
    FTR__BINARY_DIV,
    FTR__BINARY_MAXIMUM, /* NaN wins */
    FTR__BINARY_MINIMUM,
    FTR__BINARY_COUNT
} ftr__simd_binary;

typedef enum ftr__simd_unary {
    FTR__UNARY_NEG = 0,
    FTR__UNARY_EXP,
    FTR__UNARY_LOG,
    FTR__UNARY_SQRT,
    FTR__UNARY_RSQRT,
    FTR__UNARY_TANH,
    FTR__UNARY_SIGMOID,
    FTR__UNARY_RELU,
    FTR__UNARY_COUNT
} ftr__simd_unary;

typedef enum ftr__simd_activation_grad {
    FTR__GRAD_TANH = 0,
    FTR__GRAD_SIGMOID,
    FTR__GRAD_RELU,
    FTR__GRAD_COUNT
} ftr__simd_activation_grad;

/* Functions of x and up to two constants, a and b. */
typedef enum ftr__simd_activation {
    FTR__ACTIVATION_CLAMP = 0,  /* a: min, b: max */
    FTR__ACTIVATION_LEAKY_RELU, /* a: slope */
    FTR__ACTIVATION_ELU,        /* a: alpha */
    FTR__ACTIVATION_SOFTPLUS,   /* a: beta, b: threshold */
    FTR__ACTIVATION_HARDSWISH,
    FTR__ACTIVATION_SILU,
    FTR__ACTIVATION_GELU,
    FTR__ACTIVATION_GELU_TANH,
    FTR__ACTIVATION_SLOPES, /* those above have a function for the gradient */
    FTR__ACTIVATION_HARDSIGMOID = FTR__ACTIVATION_SLOPES,
    FTR__ACTIVATION_ERF,
    FTR__ACTIVATION_COUNT
} ftr__simd_activation;

/* Which operand of a binary function is one element. */
typedef enum ftr__simd_operands {
    FTR__OPERANDS_ROWS = 0,
    FTR__OPERANDS_RIGHT_SCALAR,
    FTR__OPERANDS_LEFT_SCALAR,
    FTR__OPERANDS_COUNT
} ftr__simd_operands;

/* A Philox stream (core/rng.h) and dropout's rule. */
typedef struct ftr__dropout_stream {
    uint32_t key[2], counter[2]; /* counter: its upper half */
    uint64_t threshold;          /* an element with a number below it is dropped */
    float scale;                 /* of the others */
} ftr__dropout_stream;

/* A Philox stream and the distribution that is drawn from it: offset + scale u, at most `most`, or offset + scale z. */
typedef struct ftr__random_stream {
    uint32_t key[2], counter[2];
    float offset, scale, most;
} ftr__random_stream;

/* Channels, at most, whose statistics are computed at once. */
#define FTR__NORM_TILE 256

/* A batch norm with running statistics and what follows it, for results in registers:
 * activation((x - mean) * scale + shift + residual). */
typedef struct ftr__norm_apply {
    const float *mean, *scale, *shift; /* of the first channel of the results */
    ftr_activation activation;
} ftr__norm_apply;

/* How dy gets through the activation behind a batch norm: times the slope at (x - mean) * scale + shift, or, for ReLU with y,
 * where y is positive. */
typedef struct ftr__norm_gate {
    ftr_activation activation;
    const float *y; /* laid out as dy, or NULL */
    const float *scale, *shift;
    float *to; /* where the sums leave g, laid out as dy, which it may overwrite; NULL: nowhere */
} ftr__norm_gate;

typedef struct ftr__simd_math {
    void (*binary[FTR__BINARY_COUNT][FTR__OPERANDS_COUNT])(int64_t n, const float *a, const float *b, float *out);
    void (*unary[FTR__UNARY_COUNT])(int64_t n, const float *x, float *out);
    void (*activation_grad[FTR__GRAD_COUNT])(int64_t n, const float *dy, const float *y, float *dx);
    void (*activation[FTR__ACTIVATION_COUNT])(int64_t n, const float *x, float a, float b, float *out);
    void (*activation_slope[FTR__ACTIVATION_SLOPES])(int64_t n, const float *dy, const float *x, float a, float b,
                                                     float *dx);

    /* Of a row; sums of blocks are in f32 with many partial sums, blocks are added in double. */
    double (*sum)(int64_t n, const float *x);
    double (*dot)(int64_t n, const float *a, const float *b);
    /* Sum of x^2 in double, the same bits at every level; not finite exactly if an element is not. */
    double (*sum_squares)(int64_t n, const float *x);
    float (*maximum)(int64_t n, const float *x); /* -inf over nothing; NaN wins */

    /* Of the columns of a matrix, `stride` elements from row to row: out[j] += sum over rows of x, of x - center[j],
     * or of (x - center[j] - mean[j])^2; or out[j] = max(out[j], x). */
    void (*column_sum)(int64_t rows, int64_t columns, const float *x, int64_t stride, float *out);
    void (*column_centered_sum)(int64_t rows, int64_t columns, const float *x, int64_t stride, const float *center,
                                float *out);
    void (*column_deviation)(int64_t rows, int64_t columns, const float *x, int64_t stride, const float *center,
                             const float *mean, float *out);
    void (*column_maximum)(int64_t rows, int64_t columns, const float *x, int64_t stride, float *out);

    /* y = activation((x - mean) * scale + shift), with a residual added before if there is one, which none but ReLU may
     * follow. Rows are dense. */
    void (*norm_apply)(int64_t rows, int64_t columns, const float *x, const float *mean, const float *scale,
                       const float *shift, const float *residual, ftr_activation activation, float *y);
    /* The same of rows that lie apart: y[r][j] = activation((x[r][j] - mean[j]) * scale[j] + shift[j] + residual[r][j]). Rows of x
     * may be those of y. `residual` may be NULL. */
    void (*norm_tile)(int64_t rows, int64_t columns, const float *const *x, float *const *y,
                      const float *const *residual, const float *mean, const float *scale, const float *shift,
                      ftr_activation activation);
    /* Of FTR__NORM_TILE columns at most: sum[j] += sum of x - center[j], squares[j] += sum of its square. Rows are `stride`
     * apart. */
    void (*norm_moments)(int64_t rows, int64_t columns, const float *x, int64_t stride, const float *center, float *sum,
                         float *squares);
    /* Of FTR__NORM_TILE columns at most, g of the gate: sum[j] += sum of g, product[j] += sum of g * (x - mean[j]). Rows are
     * `stride` apart. */
    void (*norm_grad_sums)(int64_t rows, int64_t columns, int64_t stride, const float *dy, const float *x,
                           const ftr__norm_gate *gate, const float *mean, float *sum, float *product);
    /* dx = g * a[j] + (x - mean[j]) * b[j] + c[j]. Rows are dense. */
    void (*norm_grad_apply)(int64_t rows, int64_t columns, const float *dy, const float *x, const ftr__norm_gate *gate,
                            const float *mean, const float *a, const float *b, const float *c, float *dx);

    /* u = dy * gamma, just dy if gamma is NULL, x - mean if dy is NULL: sums[0] = sum of u, sums[1] = sum of u * (x -
     * mean), added as `sum` does. */
    void (*row_moments)(int64_t n, const float *x, float mean, const float *dy, const float *gamma, double sums[2]);
    /* y = ((x - mean) * scale + shift) * gamma + beta; gamma and beta may be NULL. */
    void (*row_norm)(int64_t n, const float *x, float mean, float scale, float shift, const float *gamma,
                     const float *beta, float *y);
    /* dx = (dy * gamma + (x - mean) * b + c) * a; gamma may be NULL. */
    void (*row_norm_grad)(int64_t n, const float *dy, const float *x, float mean, const float *gamma, float a, float b,
                          float c, float *dx);
    /* sum += dy; product += dy * (x - mean) * scale. */
    void (*row_norm_sums)(int64_t n, const float *dy, const float *x, float mean, float scale, float *sum,
                          float *product);

    /* out = e^(x - shift), which is not stored if out is NULL; returns the sum as `sum` does. */
    double (*exp_sum)(int64_t n, const float *x, float shift, float *out);
    /* out = scale * e^(x - shift) + add. */
    void (*exp_scale_add)(int64_t n, const float *x, float shift, float scale, float add, float *out);
    /* out = (x - a) - b. */
    void (*subtract_twice)(int64_t n, const float *x, float a, float b, float *out);
    /* dx = y * (dy - sum), and dx = dy - e^y * sum. */
    void (*softmax_grad)(int64_t n, const float *dy, const float *y, float sum, float *dx);
    void (*log_softmax_grad)(int64_t n, const float *dy, const float *y, float sum, float *dx);
    /* y += a * x; and y += a * (x - y). */
    void (*axpy)(int64_t n, float a, const float *x, float *y);
    void (*blend)(int64_t n, float a, const float *x, float *y);
    /* y = sum of weight[i] * x[i], i from 0 to 3. */
    void (*mix)(int64_t n, const float *const x[4], const float weight[4], float *y);

    /* Maximum over a window of rows x columns pixels of `channels` each, from x on; `width` pixels are in an image
     * row. The first maximum wins, NaN is the largest. index = first_index + row * width + column. */
    void (*window_maximum)(int64_t channels, const float *x, int64_t rows, int64_t columns, int64_t width,
                           int32_t first_index, float *out, int32_t *index);
    /* out = sum over the window / divisor. */
    void (*window_mean)(int64_t channels, const float *x, int64_t rows, int64_t columns, int64_t width, float divisor,
                        float *out);
    /* dx += dy where index is `pixel`. */
    void (*scatter_add)(int64_t channels, const float *dy, const int32_t *index, int32_t pixel, float *dx);

    /* Element i uses number i of the stream from its block `block` on. */
    void (*dropout)(int64_t n, const ftr__dropout_stream *stream, uint64_t block, const float *x, float *y);
    /* The rules of core/rng.h; out begins with the first element of block `block`. */
    void (*random_uniform)(int64_t n, const ftr__random_stream *stream, uint64_t block, float *out);
    void (*random_normal)(int64_t n, const ftr__random_stream *stream, uint64_t block, float *out);

    /* Between f32 and f16 or bf16, [0] and [1], as ftr__half_value() and ftr__half_bits(). x and out do not overlap. */
    void (*widen[2])(int64_t n, const uint16_t *x, float *out);
    void (*narrow[2])(int64_t n, const float *x, uint16_t *out);

    /* Copies bytes past the caches where the instruction set can: for what is not needed again soon. */
    void (*stream)(size_t bytes, const unsigned char *x, unsigned char *out);
} ftr__simd_math;

#endif
