/* SIMD functions of 3x3 convolutions in Winograd's form F(4x4, 3x3): tiles of 6x6 of the input, in steps of 4, give 4x4 of
 * the output by 36 products instead of 144 (Lavin, Gray: Fast Algorithms for Convolutional Neural Networks, CVPR 2016). Each
 * transform is a small matrix from the left and its transpose from the right, vectors run along the channels. One table an
 * instruction set. */
#ifndef FTR_BACKEND_CPU_SIMD_WINOGRAD_H
#define FTR_BACKEND_CPU_SIMD_WINOGRAD_H

#include <stdbool.h>
#include <stdint.h>

#define FTR__WINOGRAD_IN 6      /* side of an input tile */
#define FTR__WINOGRAD_OUT 4     /* side of an output tile */
#define FTR__WINOGRAD_POINTS 36 /* elements of a transformed tile */

/* Where a transformed tile goes: point p of channel c at to[p * plane + c / lanes * panel + c % lanes]. Vectors are written whole,
 * channels that do not exist included. */
typedef struct ftr__winograd_place {
    float *to;
    int64_t plane, panel;
} ftr__winograd_place;

/* Pixels of a tile. Those of row y and columns first to last - 1 lie one behind the other from row[y] on, the others are 0. */
typedef struct ftr__winograd_window {
    const float *row[FTR__WINOGRAD_IN];
    int64_t first, last;
    int64_t ahead; /* elements from a pixel to one that will be needed soon */
} ftr__winograd_window;

/* Pixels of an output tile: `rows` rows of `columns`, up to four each. */
typedef struct ftr__winograd_patch {
    float *to;
    int64_t row, pixel; /* elements from one to the next */
    int64_t rows, columns;
} ftr__winograd_patch;

typedef struct ftr__simd_winograd {
    int64_t lanes; /* of a vector */
    int64_t tall;  /* rows of a tile of `sums`, which divide a vector; narrow ones have `lanes` rows */

    /* An input tile, 6x6. */
    void (*input)(int64_t channels, const ftr__winograd_window *from, const ftr__winograd_place *place);

    /* A tile of the output's gradient, 4x4: the transpose of `output`. */
    void (*gradient)(int64_t channels, const ftr__winograd_window *from, const ftr__winograd_place *place);

    /* A transformed output tile, point p of channel c at from[p * plane + c], to its pixels. */
    void (*output)(int64_t channels, const float *from, int64_t plane, const float *bias, bool relu,
                   const ftr__winograd_patch *to);

    /* The nine taps of a filter, tap t of channel c at from[t * tap + c], to to[p * plane + c]. */
    void (*filter)(int64_t channels, const float *from, int64_t tap, float *to, int64_t plane);

    /* The transpose of `filter`: from[p * plane + c] to to[t * tap + c]. */
    void (*filter_gradient)(int64_t channels, const float *from, int64_t plane, float *to, int64_t tap);

    /* c[i * c_stride + j] = c * load + sum over k < depth of a[k / lanes * panel + i * lanes + k % lanes] * b[k * nr + j], for
     * i < rows, j < nr, or nr / 2 of them if `narrow`: nr is that of the matrix product. Up to its mr rows are written: `rows`
     * is how many are needed. */
    void (*products)(int64_t rows, bool narrow, int64_t depth, const float *a, int64_t panel, const float *b, bool load,
                     float *c, int64_t c_stride);

    /* c[i * c_stride + j] = c * load + sum over k < depth of a[k * a_stride + i] * b[k * b_stride + j], for i < tall and
     * j < 2 lanes, the second half of b being at `b_second`; or, if that is NULL, for i < lanes and j < lanes. */
    void (*sums)(int64_t depth, const float *a, int64_t a_stride, const float *b, const float *b_second,
                 int64_t b_stride, bool load, float *c, int64_t c_stride);
} ftr__simd_winograd;

#endif
