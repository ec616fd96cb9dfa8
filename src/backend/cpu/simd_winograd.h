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

/* Where a transformed tile goes: point p of channel c at to[p * plane + c / panel * panel_stride + c % panel]. The vectors of a
 * panel are written whole, channels that do not exist included. */
typedef struct ftr__winograd_place {
    float *to;
    int64_t plane, panel, panel_stride;
} ftr__winograd_place;

typedef struct ftr__simd_winograd {
    int64_t rows;  /* of a tile of `products`; they divide a vector */
    int64_t lanes; /* of a vector */

    /* An input tile, row-major: from[i] is where pixel i's channels lie. */
    void (*input)(int64_t channels, const float *const from[36], const ftr__winograd_place *place);

    /* A tile of the output's gradient, from[16]: the transpose of `output`. */
    void (*gradient)(int64_t channels, const float *const from[16], const ftr__winograd_place *place);

    /* A transformed output tile, point p of channel c at from[p * plane + c], to pixels; to[i] may be NULL. */
    void (*output)(int64_t channels, const float *from, int64_t plane, const float *bias, bool relu,
                   float *const to[16]);

    /* The nine taps of a filter, tap t of channel c at from[t * tap + c], to to[p * plane + c]. */
    void (*filter)(int64_t channels, const float *from, int64_t tap, float *to, int64_t plane);

    /* The transpose of `filter`: from[p * plane + c] to to[t * tap + c]. */
    void (*filter_gradient)(int64_t channels, const float *from, int64_t plane, float *to, int64_t tap);

    /* c[i * c_stride + j] = c * load + sum over k < depth of a[k * lanes + i] * b[k * nr + j], for i < rows, j < nr: nr is that of
     * the matrix product. */
    void (*products)(int64_t depth, const float *a, const float *b, bool load, float *c, int64_t c_stride);
} ftr__simd_winograd;

#endif
