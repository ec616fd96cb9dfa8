/* SIMD functions of convolutions that work channel by channel: vectors run along the channels, pixels are blocked in
 * registers. One table an instruction set. Places and steps are in elements. */
#ifndef FTR_BACKEND_CPU_SIMD_DEPTHWISE_H
#define FTR_BACKEND_CPU_SIMD_DEPTHWISE_H

#include "backend/cpu/simd_math.h"

#define FTR__DEPTHWISE_BLOCK 6 /* pixels or rows of the result, at most, that are computed at once */
#define FTR__DEPTHWISE_TAPS 5  /* neighbouring taps, at most, whose sums are computed at once */

/* Up to FTR__DEPTHWISE_BLOCK rows of the result, or pixels of a row, that have the same taps: x, w and y say where
 * their first one and its first tap are; those of a row and a pixel are added. */
typedef struct ftr__depthwise_span {
    int64_t x, w, y, count, taps;
} ftr__depthwise_span;

/* For each pair of a row and a pixel:
 * y[c] = norm(relu(bias[c] + sum over planes, the row's taps, the pixel's taps of x[tap][c] * w[tap][c])). */
typedef struct ftr__depthwise_run {
    int64_t channels;
    int64_t chunk; /* channels that go through all rows together */
    int64_t planes, row_span_count, pixel_span_count;
    const ftr__depthwise_span *row_spans, *pixel_spans;
    int64_t x_row, y_row, x_pixel, y_pixel; /* from one of a span to the next */
    const float *x;
    int64_t x_plane, x_tap_row, x_tap;
    const float *w;
    int64_t w_plane, w_tap_row, w_tap;
    const float *bias; /* NULL: none */
    bool relu;
    const ftr__norm_apply *norm; /* NULL: none */
    bool fetch; /* ask for what the next pixels are written to: they are apart, which the hardware does not foresee */
    float *y;
} ftr__depthwise_run;

/* What some taps get from rows of dy that all rows of these taps meet x in; column t of the taps meets it from pixel
 * first[t] up to, not including, last[t]:
 * sum[s][t][c] += sum over rows and pixels of dy[pixel][c] * x[at + tap (s, t) + pixel][c]. */
typedef struct ftr__depthwise_sums {
    int64_t channels, rows;
    int64_t tap_rows, taps; /* taps: 1, 3 or FTR__DEPTHWISE_TAPS */
    int64_t first[FTR__DEPTHWISE_TAPS], last[FTR__DEPTHWISE_TAPS];
    const float *dy;
    int64_t dy_row, dy_pixel;
    const float *x;
    int64_t at; /* of pixel 0 of the first tap; may lie in front of x */
    int64_t x_row, x_pixel, x_tap_row, x_tap;
    float *sum;
    int64_t sum_tap_row, sum_tap;
} ftr__depthwise_sums;

typedef struct ftr__simd_depthwise {
    void (*run)(const ftr__depthwise_run *run);
    void (*sums)(const ftr__depthwise_sums *sums);
} ftr__simd_depthwise;

#endif
