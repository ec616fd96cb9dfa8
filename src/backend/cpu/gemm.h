/* The driver of the matrix product: c[b] = a[b] * b[b] for each b of a batch, packed, blocked for the caches and cut into
 * tasks. Convolutions and their gradients are products whose operands are gathered while they are packed. Blocking as in
 * Goto, van de Geijn: Anatomy of High-Performance Matrix Multiplication, ACM TOMS 34(3), 2008; A read through pointers
 * as in Dukhan: The Indirect Convolution Algorithm, 2019. */
#ifndef FTR_BACKEND_CPU_GEMM_H
#define FTR_BACKEND_CPU_GEMM_H

#include "backend/cpu/cpu.h"

/* An operand: A has m "lines", its rows; B has n, its columns. Each line has k elements. `rows` or `pack` is set.
 *
 * rows  the elements of a line lie together, in runs of `segment` elements (a tap of a convolution, or the whole line):
 *       to[s * width + i] = where run first_segment + s of line first + i starts, for s < segments and i < count.
 *       B has one run, the whole line
 * pack  to[k' * width + i] = element k + k' of line first + i, for k' < depth and i < count; 0 for i >= count */
typedef struct ftr__gemm_operand {
    const void *source;
    int64_t segment;
    void (*rows)(const void *source, int64_t batch, int64_t first, int64_t count, int64_t first_segment,
                 int64_t segments, int64_t width, const float **to);
    void (*pack)(const void *source, int64_t batch, int64_t first, int64_t count, int64_t width, int64_t k,
                 int64_t depth, float *to);
    bool dense; /* of one run each, lines follow each other in memory */
    /* May be NULL: elements of k, lines first .. lie together here, those of k + 1 `stride` further on. Of pairs: the first of
     * pair k, and the second `stride` further on, if there is one: `elements` are all. */
    const void *(*at)(const void *source, int64_t batch, int64_t k, int64_t first);
    int64_t stride, elements;
    /* With `at`, not of pairs; NULL: nothing. What is done to elements k of `count` lines from `first` on while they are packed;
     * `to` may be `from`. */
    void (*change)(const void *source, int64_t k, int64_t first, int64_t count, const float *from, float *to);
    const void *change_source;
} ftr__gemm_operand;

typedef struct ftr__gemm {
    int64_t batch, m, n, k;
    ftr__gemm_operand a, b;

    /* Operands and result are bf16. An element of an operand is then a pair of neighbours of k, a word of 32 bits that lies where
     * a float would (simd_bf16.h), and k counts pairs. Sums are f32 and rounded once. Needs ftr__cpu.bf16; there is no `norm`
     * and nothing is `kept`. */
    bool pairs;

    /* The result: row i of batch b at c + b * c_batch + i * c_stride, or where c_row says. */
    void *c;
    int64_t c_batch, c_stride;
    void *(*c_row)(const void *source, int64_t batch, int64_t row);
    const void *c_source;

    /* Done to sums before they are stored: a batch norm, of batch * n columns; `mean` NULL: none. A residual, or NULL, is laid
     * out as c. */
    ftr__norm_apply norm;
    const float *residual;

    bool whole; /* B is packed as a whole for few rows too, so that it can be kept */

    /* B as it is packed, in memory of the caller's for the next time: ftr__gemm_kept(); NULL: it is packed each time. */
    void *kept;
    bool kept_is_made;

    const void *bias; /* n, or batch * n when there is one for each; NULL */
    bool bias_bf16;   /* not f32; of pairs */
    bool bias_batch;
    ftr_activation activation;
    bool
        split; /* k may be cut: the result is then dense (c_stride == n, c_batch == m * n), without bias and activation */
} ftr__gemm;

/* Bytes that ftr__gemm_run() needs. Depends on sizes, operand kinds and threads, not on data pointers. */
FTR_LIB size_t ftr__gemm_workspace(const ftr__cpu *cpu, const ftr__gemm *gemm);
/* Bytes of B packed as a whole; 0 if the product packs it piece by piece, or has pairs. */
FTR_LIB size_t ftr__gemm_kept(const ftr__cpu *cpu, const ftr__gemm *gemm);
FTR_LIB void ftr__gemm_run(const ftr__cpu *cpu, const ftr__gemm *gemm, void *workspace);

/* Operands in memory, as lines of k elements. */
typedef struct ftr__gemm_matrix {
    const void *data;
    int64_t batch;  /* elements from one matrix to the next */
    int64_t stride; /* elements from one line to the next (k together), or from one k to the next (lines together) */
    const int64_t *batch_offset; /* instead of `batch`, or NULL */
    int64_t elements;            /* of k; of pairs with lines together */
    const ftr__simd_bf16 *bf16;
} ftr__gemm_matrix;

FTR_LIB ftr__gemm_operand ftr__gemm_k_together(const ftr__gemm_matrix *matrix, int64_t k);
FTR_LIB ftr__gemm_operand ftr__gemm_lines_together(const ftr__gemm_matrix *matrix);
/* Of bf16, as pairs; k is the number of elements. With k together it is even, and so is the stride; with lines together the
 * matrix says how many there are, and which functions pack them. */
FTR_LIB ftr__gemm_operand ftr__gemm_pairs_k_together(const ftr__gemm_matrix *matrix, int64_t k);
FTR_LIB ftr__gemm_operand ftr__gemm_pairs_lines_together(const ftr__gemm_matrix *matrix);

/* For packing: to[k * width + i] = from[k * stride + i], or 0, for k < depth and i < count. */
FTR_LIB void ftr__gemm_copy(int64_t depth, int64_t count, int64_t width, const float *from, int64_t stride, float *to);
/* to[i * tile + j] = from[i * width + j] for i < count and j < width. */
FTR_LIB void ftr__gemm_scatter(int64_t count, int64_t width, const float *from, int64_t tile, float *to);
FTR_LIB void ftr__gemm_clear(int64_t depth, int64_t count, int64_t width, float *to);

/* Rounds a workspace part up, so that the next one is aligned. */
static inline size_t ftr__gemm_align(size_t bytes) {
    return (bytes + FTR__ALIGNMENT - 1) & ~(size_t)(FTR__ALIGNMENT - 1);
}

static inline int64_t ftr__gemm_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t ftr__gemm_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ftr__gemm_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

#endif
