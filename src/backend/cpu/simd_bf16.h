/* SIMD functions of products of bf16 tensors by dot products of pairs (the AVX512_BF16 instructions). Two neighbouring elements
 * of k are one word of 32 bits, as they lie in memory, the first in its lower half: a line of k elements is a line of k / 2
 * words, and what gathers and packs f32 does the same for pairs. */
#ifndef FTR_BACKEND_CPU_SIMD_BF16_H
#define FTR_BACKEND_CPU_SIMD_BF16_H

#include "backend/cpu/simd_gemm.h"
#include "core/platform.h"

typedef struct ftr__simd_bf16 {
    /* As in ftr__simd_gemm, for words: sums are f32, two products added at a time. Subnormal numbers count as 0. The tile has
     * 14 x 32 elements. */
    void (*tile)(int64_t depth, const float *a, int64_t a_stride, const float *b, int64_t b_stride,
                 const ftr__gemm_tile *tile);
    void (*tile_rows)(int64_t rows, int64_t segments, int64_t length, const float *const *a, const float *b,
                      int64_t b_stride, const ftr__gemm_tile *tile);

    /* to[i] = the word of x[i] and y[i]. y may be NULL: zeros. */
    void (*zip)(int64_t count, const uint16_t *x, const uint16_t *y, float *to);

    /* to[r][i] = from[r][i] in bf16, for r < rows and i < count. */
    void (*narrow)(int64_t rows, int64_t count, float *const *from, uint16_t *const *to);
} ftr__simd_bf16;

/* NULL if this build has none; the CPU must have the instructions (ftr__has_bf16()). */
FTR_LIB const ftr__simd_bf16 *ftr__simd_bf16_table(void);

#endif
