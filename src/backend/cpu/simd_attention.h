/* SIMD functions of attention and rotary embedding. A tile of scores lies transposed: a row is a key, a column (a lane
 * of a vector) is a query, and rows are `stride` elements apart, a multiple of two vectors. Columns that fill up the
 * last vector are computed too, from whatever is there; none of them touches another. Scores are in units of log 2:
 * e^score is 2^(what lies in the tile). */
#ifndef FTR_BACKEND_CPU_SIMD_ATTENTION_H
#define FTR_BACKEND_CPU_SIMD_ATTENTION_H

#include "backend/cpu/simd_gemm.h"
#include "backend/cpu/simd_math.h"

/* Dropout of a tile whose first key is a multiple of 4: the weight of key k and column c has number k % 4 of block
 * first + k / 4 * step + c of the stream. */
typedef struct ftr__attention_dropout {
    ftr__dropout_stream stream;
    uint64_t first, step;
} ftr__attention_dropout;

typedef struct ftr__simd_attention {
    /* As `tile` of ftr__simd_gemm, A being a[k * a_stride + i]. Only the first `rows` rows are needed. */
    void (*tile_columns)(int64_t rows, int64_t depth, const float *a, int64_t a_stride, const float *b,
                         int64_t b_stride, const ftr__gemm_tile *tile);

    /* s[k][c] += factor * x[k * x_stride + c], or factor * x[k]. */
    void (*add_tile)(int64_t keys, int64_t columns, int64_t stride, float factor, const float *x, int64_t x_stride,
                     float *s);
    void (*add_keys)(int64_t keys, int64_t columns, int64_t stride, float factor, const float *x, float *s);

    /* One step of the softmax over tiles of keys: the maximum and the sum of 2^(score - maximum) of each column move
     * on, rescale[c] = 2^(old maximum - new), and s becomes 2^(score - maximum), after the sum with dropout if there is
     * one. A maximum of -inf counts as 0. */
    void (*softmax)(int64_t keys, int64_t columns, int64_t stride, const ftr__attention_dropout *dropout,
                    float *maximum, float *sum, float *rescale, float *s);
    /* Of all tiles together: log_sum[c] = ln(sum * 2^maximum), inverse[c] = 1 / sum; -inf and 0 where the sum is 0. */
    void (*softmax_end)(int64_t columns, const float *maximum, const float *sum, float *log_sum, float *inverse);
    /* The weights once more, and the gradient of the scores from that of the weights: p = e^(score - log_sum[c]), s =
     * p, ds = p * (ds - mean[c]); with dropout s = p * f and ds = p * (f * ds - mean[c]), f being 0 or the scale. */
    void (*softmax_grad)(int64_t keys, int64_t columns, int64_t stride, const ftr__attention_dropout *dropout,
                         const float *log_sum, const float *mean, float *s, float *ds);

    /* y = factor[r * factor_step] * x of each row r. */
    void (*scale_rows)(int64_t rows, int64_t columns, const float *factor, int64_t factor_step, const float *x,
                       int64_t x_stride, float *y, int64_t y_stride);

    /* Rotates pairs of a row of 2 * half elements by angles of cosine c[i] and sine s[i]: elements i and i + half, or 2
     * i and 2 i + 1; there c and s have each number twice, and s has the sign that the other element gets. */
    void (*rotate_halves)(int64_t half, const float *c, const float *s, const float *x, float *y);
    void (*rotate_pairs)(int64_t half, const float *c, const float *s, const float *x, float *y);
} ftr__simd_attention;

#endif
