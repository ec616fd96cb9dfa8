/* SIMD functions of the matrix product and of convolution: one table an instruction set. */
#ifndef FTR_BACKEND_CPU_SIMD_GEMM_H
#define FTR_BACKEND_CPU_SIMD_GEMM_H

#include "backend/cpu/simd_math.h"

/* Bounds over all levels, for buffers on the stack. */
#define FTR__GEMM_MAX_MR 14
#define FTR__GEMM_MAX_NR 32

/* Where a tile of the result goes and what is done on the way: c = norm(relu(c * load + tile + bias)). All rows have nr
 * elements; the driver points rows that do not exist at a buffer of its own. */
typedef struct ftr__gemm_tile {
    float *c[FTR__GEMM_MAX_MR];
    const float *bias; /* nr of them, or NULL */
    const float
        *ahead; /* memory that is asked for on the way, `ahead_step` elements for each k: what the next tiles need */
    int64_t ahead_step;
    int64_t ask; /* elements from c to the result's memory that is asked for: the tile's own, or the next one's */
    bool asks;
    bool load; /* add to what is there */
    bool relu;
    bool narrow; /* only the first nr / 2 columns count; the others may be left as they are */

    /* What is done last; NULL: nothing. Only the first `columns` columns are then read and written, of all rows. */
    const ftr__norm_apply *norm;
    const float *residual[FTR__GEMM_MAX_MR]; /* laid out as c; that of row 0 is NULL if there is none */
    int64_t columns;
} ftr__gemm_tile;

typedef struct ftr__simd_gemm {
    int64_t mr, nr; /* size of a tile */

    /* Tile of A, a[k * a_stride + i], which is mr when A is packed, and B, b[k * b_stride + j]. */
    void (*tile)(int64_t depth, const float *a, int64_t a_stride, const float *b, int64_t b_stride,
                 const ftr__gemm_tile *tile);

    /* The same with A read in place: k runs over `segments` runs of `length` elements; run s of row i starts at
     * a[s * mr + i]. Only the first `rows` rows are needed. */
    void (*tile_rows)(int64_t rows, int64_t segments, int64_t length, const float *const *a, const float *b,
                      int64_t b_stride, const ftr__gemm_tile *tile);

    /* to[k * to_stride + i] = from[i][k] for i < width, k < depth. */
    void (*interleave)(int64_t width, int64_t depth, const float *const *from, float *to, int64_t to_stride);

    /* Rows of `count` runs of `width` elements as tiles, `tile` elements apart, of one run each row:
     * to[i * tile + k * width + j] = from[k * stride + i * width + j] for k < depth, i < count, j < width. */
    void (*spread)(int64_t depth, int64_t count, int64_t width, const float *from, int64_t stride, int64_t tile,
                   float *to);

    /* out[j] = sum over k of x[k] * y[j][k], four of them. */
    void (*dot4)(int64_t depth, const float *x, const float *const y[4], float out[4]);

    /* to[i][j] = from[i][j] for i < rows, j < columns, which are nr at most. */
    void (*copy_tile)(int64_t rows, int64_t columns, const float *const *from, float *const *to);

    /* y[i] += x[i]. */
    void (*accumulate)(int64_t count, const float *x, float *y);
} ftr__simd_gemm;

#endif
