/* ftr__simd_depthwise of one instruction set. Included once a level. Channels that do not fill two vectors go one vector
 * at a time, of which only the lanes that exist are read and written. */
#undef FTR__SIMD_DEPTHWISE_FUNCTIONS

/* Pixels of the result, side by side or one below the other, that have the same taps: the lists below hold up to
 * FTR__DEPTHWISE_BLOCK of them. `pixels` and `two` are constants where it is used. */
#define FTR__PIXELS(X) X(0) X(1) X(2) X(3) X(4) X(5)
#define FTR__PIXEL_START(i)                                                                                            \
    const float *const x##i = x + (i < pixels ? i : 0) * x_step;                                                       \
    FTR__VF lo##i = bias0, hi##i = bias1;
#define FTR__PIXEL_FETCH(i)                                                                                            \
    if (i < pixels) __builtin_prefetch(y + (pixels + i) * y_step, 1);                                                  \
    if (i < pixels && FTR__W > 8) __builtin_prefetch(y + (pixels + i) * y_step + FTR__W, 1);
#define FTR__PIXEL_STEP(i)                                                                                             \
    if (i < pixels) {                                                                                                  \
        lo##i = FTR__FMA(two ? FTR__LOAD(x##i + at) : FTR__S(load_lanes)(x##i + at, lanes), w0, lo##i);                \
        if (two) hi##i = FTR__FMA(FTR__LOAD(x##i + at + FTR__W), w1, hi##i);                                           \
    }
#define FTR__PIXEL_RELU(i)                                                                                             \
    if (i < pixels) lo##i = FTR__SELECT(lo##i < (FTR__VF){0}, (FTR__VF){0}, lo##i);                                    \
    if (i < pixels && two) hi##i = FTR__SELECT(hi##i < (FTR__VF){0}, (FTR__VF){0}, hi##i);
#define FTR__PIXEL_NORM(i)                                                                                             \
    if (i < pixels) lo##i = FTR__FMA(lo##i - mean0, scale0, shift0);                                                   \
    if (i < pixels && two) hi##i = FTR__FMA(hi##i - mean1, scale1, shift1);
#define FTR__PIXEL_ACTIVATE(i, kind)                                                                                   \
    if (i < pixels) lo##i = FTR__S(norm_activate)(kind, lo##i);                                                        \
    if (i < pixels && two) hi##i = FTR__S(norm_activate)(kind, hi##i);
#define FTR__PIXEL_NORM_RELU(i) FTR__PIXEL_ACTIVATE(i, FTR_ACT_RELU)
#define FTR__PIXEL_NORM_RELU6(i) FTR__PIXEL_ACTIVATE(i, FTR_ACT_RELU6)
#define FTR__PIXEL_NORM_HARDSWISH(i) FTR__PIXEL_ACTIVATE(i, FTR_ACT_HARDSWISH)
#define FTR__PIXEL_NORM_SILU(i) FTR__PIXEL_ACTIVATE(i, FTR_ACT_SILU)
#define FTR__PIXEL_END(i)                                                                                              \
    if (i < pixels) {                                                                                                  \
        if (two) FTR__STORE(y, lo##i);                                                                                 \
        if (two) FTR__STORE(y + FTR__W, hi##i);                                                                        \
        if (!two) FTR__S(store_lanes)(y, lo##i, lanes);                                                                \
        y += y_step;                                                                                                   \
    }

FTR__INLINE void FTR__S(depthwise_block)(int32_t pixels, bool two, const ftr__depthwise_run *r, int64_t c,
                                         int64_t tap_rows, int64_t taps, int64_t x_step, int64_t y_step, const float *x,
                                         const float *w, float *y) {
    const FTR__LANES lanes = FTR__S(lanes)(r->channels - c);
    const int64_t x_tap = r->x_tap, w_tap = r->w_tap;
    FTR__VF bias0 = {0}, bias1 = {0};
    if (r->bias) bias0 = two ? FTR__LOAD(r->bias + c) : FTR__S(load_lanes)(r->bias + c, lanes);
    if (r->bias && two) bias1 = FTR__LOAD(r->bias + c + FTR__W);
    FTR__PIXELS(FTR__PIXEL_START)
    if (two && r->fetch) {
        FTR__PIXELS(FTR__PIXEL_FETCH)
    }
    for (int64_t p = 0; p < r->planes; p++) {
        for (int64_t s = 0; s < tap_rows; s++) {
            const float *wt = w + p * r->w_plane + s * r->w_tap_row;
            int64_t at = p * r->x_plane + s * r->x_tap_row;
            for (int64_t t = 0; t < taps; t++, at += x_tap, wt += w_tap) {
                const FTR__VF w0 = two ? FTR__LOAD(wt) : FTR__S(load_lanes)(wt, lanes);
                const FTR__VF w1 = two ? FTR__LOAD(wt + FTR__W) : (FTR__VF){0};
                FTR__PIXELS(FTR__PIXEL_STEP)
            }
        }
    }
    if (r->relu) {
        FTR__PIXELS(FTR__PIXEL_RELU)
    }
    const ftr__norm_apply *const norm = r->norm;
    if (norm) {
        const FTR__VF mean0 = FTR__S(load_lanes)(norm->mean + c, lanes);
        const FTR__VF scale0 = FTR__S(load_lanes)(norm->scale + c, lanes);
        const FTR__VF shift0 = FTR__S(load_lanes)(norm->shift + c, lanes);
        const FTR__VF mean1 = two ? FTR__LOAD(norm->mean + c + FTR__W) : (FTR__VF){0};
        const FTR__VF scale1 = two ? FTR__LOAD(norm->scale + c + FTR__W) : (FTR__VF){0};
        const FTR__VF shift1 = two ? FTR__LOAD(norm->shift + c + FTR__W) : (FTR__VF){0};
        FTR__PIXELS(FTR__PIXEL_NORM)
        switch (norm->activation) {
        case FTR_ACT_RELU: FTR__PIXELS(FTR__PIXEL_NORM_RELU) break;
        case FTR_ACT_RELU6: FTR__PIXELS(FTR__PIXEL_NORM_RELU6) break;
        case FTR_ACT_HARDSWISH: FTR__PIXELS(FTR__PIXEL_NORM_HARDSWISH) break;
        case FTR_ACT_SILU: FTR__PIXELS(FTR__PIXEL_NORM_SILU) break;
        default: break;
        }
    }
    FTR__PIXELS(FTR__PIXEL_END)
}
#undef FTR__PIXELS
#undef FTR__PIXEL_START
#undef FTR__PIXEL_FETCH
#undef FTR__PIXEL_STEP
#undef FTR__PIXEL_RELU
#undef FTR__PIXEL_NORM
#undef FTR__PIXEL_ACTIVATE
#undef FTR__PIXEL_NORM_RELU
#undef FTR__PIXEL_NORM_RELU6
#undef FTR__PIXEL_NORM_HARDSWISH
#undef FTR__PIXEL_NORM_SILU
#undef FTR__PIXEL_END

/* Channels c to end - 1 of such pixels. */
typedef struct FTR__S(depthwise_pixels) {
    int64_t c, end, x_step, y_step, tap_rows, taps;
    const float *x, *w;
    float *y;
} FTR__S(depthwise_pixels);

FTR__INLINE void FTR__S(depthwise_channels)(int32_t pixels, const ftr__depthwise_run *r,
                                            const FTR__S(depthwise_pixels) * p) {
    int64_t c = p->c;
    for (; c + 2 * FTR__W <= p->end; c += 2 * FTR__W) FTR__S(depthwise_block)
    (pixels, true, r, c, p->tap_rows, p->taps, p->x_step, p->y_step, p->x + c, p->w + c, p->y + c);
    for (; c < p->end; c += FTR__W) FTR__S(depthwise_block)
    (pixels, false, r, c, p->tap_rows, p->taps, p->x_step, p->y_step, p->x + c, p->w + c, p->y + c);
}

static void FTR__S(depthwise_any)(int64_t pixels, const ftr__depthwise_run *r, const FTR__S(depthwise_pixels) * p) {
    switch (pixels) {
    case 1: FTR__S(depthwise_channels)(1, r, p); break;
    case 2: FTR__S(depthwise_channels)(2, r, p); break;
    case 3: FTR__S(depthwise_channels)(3, r, p); break;
    case 4: FTR__S(depthwise_channels)(4, r, p); break;
    case 5: FTR__S(depthwise_channels)(5, r, p); break;
    default: FTR__S(depthwise_channels)(6, r, p);
    }
}

/* A span of rows by a span of pixels, in blocks along the longer of the two. */
FTR__INLINE void FTR__S(depthwise_spans)(const ftr__depthwise_run *r, const ftr__depthwise_span *row,
                                         const ftr__depthwise_span *pixel, int64_t c, int64_t end) {
    FTR__S(depthwise_pixels) p = {.c = c, .end = end, .tap_rows = row->taps, .taps = pixel->taps};
    const bool along = pixel->count >= row->count;
    p.x_step = along ? r->x_pixel : r->x_row;
    p.y_step = along ? r->y_pixel : r->y_row;
    p.x = r->x + row->x + pixel->x;
    p.w = r->w + row->w + pixel->w;
    p.y = r->y + row->y + pixel->y;
    for (int64_t i = 0; i < (along ? row->count : pixel->count); i++) {
        FTR__S(depthwise_any)(along ? pixel->count : row->count, r, &p);
        p.x += along ? r->x_row : r->x_pixel;
        p.y += along ? r->y_row : r->y_pixel;
    }
}

static void FTR__S(depthwise_run)(const ftr__depthwise_run *r) {
    for (int64_t c = 0; c < r->channels; c += r->chunk) {
        const int64_t end = c + r->chunk < r->channels ? c + r->chunk : r->channels;
        for (int64_t i = 0; i < r->row_span_count; i++)
            for (int64_t k = 0; k < r->pixel_span_count; k++)
                FTR__S(depthwise_spans)(r, &r->row_spans[i], &r->pixel_spans[k], c, end);
    }
}

/* Shapes of taps whose sums are in registers while the pixels go by: rows by columns. */
/* clang-format off */
#define FTR__TAPS_1X1(X) X(0, 0)
#define FTR__TAPS_1X3(X) X(0, 0) X(0, 1) X(0, 2)
#define FTR__TAPS_2X3(X) FTR__TAPS_1X3(X) X(1, 0) X(1, 1) X(1, 2)
#define FTR__TAPS_3X3(X) FTR__TAPS_2X3(X) X(2, 0) X(2, 1) X(2, 2)
#define FTR__TAPS_1X5(X) X(0, 0) X(0, 1) X(0, 2) X(0, 3) X(0, 4)
#define FTR__TAPS_2X5(X) FTR__TAPS_1X5(X) X(1, 0) X(1, 1) X(1, 2) X(1, 3) X(1, 4)
#define FTR__TAPS_5X5(X) FTR__TAPS_2X5(X) \
    X(2, 0) X(2, 1) X(2, 2) X(2, 3) X(2, 4) \
    X(3, 0) X(3, 1) X(3, 2) X(3, 3) X(3, 4) \
    X(4, 0) X(4, 1) X(4, 2) X(4, 3) X(4, 4)
/* clang-format on */

/* The pixels that some columns of taps meet x from, and those that all do. */
typedef struct FTR__S(depthwise_range) {
    int64_t begin, inner_begin, inner_end, end;
} FTR__S(depthwise_range);

FTR__INLINE FTR__S(depthwise_range) FTR__S(depthwise_range_of)(const ftr__depthwise_sums *r) {
    FTR__S(depthwise_range) all = {r->first[0], r->first[0], r->last[0], r->last[0]};
    for (int64_t t = 1; t < r->taps; t++) {
        all.begin = r->first[t] < all.begin ? r->first[t] : all.begin;
        all.end = r->last[t] > all.end ? r->last[t] : all.end;
        all.inner_begin = r->first[t] > all.inner_begin ? r->first[t] : all.inner_begin;
        all.inner_end = r->last[t] < all.inner_end ? r->last[t] : all.inner_end;
    }
    if (all.inner_end < all.inner_begin) all.inner_begin = all.inner_end = all.end;
    return all;
}

#define FTR__TAP_AHEAD 16 /* pixels of dy and of the last row of taps that are asked for before they are needed */
#define FTR__TAP_LOAD(p) (whole ? FTR__LOAD(p) : FTR__S(load_lanes)(p, lanes))
#define FTR__TAP_START(s, t) FTR__VF sum##s##t = {0}, more##s##t = {0};
#define FTR__TAP_STEP(s, t)                                                                                            \
    {                                                                                                                  \
        const float *const xt = x##s + (at + t * x_tap);                                                               \
        sum##s##t = FTR__FMA(d, FTR__TAP_LOAD(xt), sum##s##t);                                                         \
        if (two) more##s##t = FTR__FMA(e, FTR__LOAD(xt + FTR__W), more##s##t);                                         \
    }
#define FTR__TAP_EDGE(s, t)                                                                                            \
    if (i >= r->first[t] && i < r->last[t]) FTR__TAP_STEP(s, t)
#define FTR__TAP_END(s, t)                                                                                             \
    {                                                                                                                  \
        float *const to = r->sum + (row + s) * r->sum_tap_row + t * r->sum_tap + c;                                    \
        if (whole)                                                                                                     \
            FTR__STORE(to, FTR__LOAD(to) + sum##s##t);                                                                 \
        else                                                                                                           \
            FTR__S(store_lanes)(to, FTR__TAP_LOAD(to) + sum##s##t, lanes);                                             \
        if (two) FTR__STORE(to + FTR__W, FTR__LOAD(to + FTR__W) + more##s##t);                                         \
    }
#define FTR__TAP_PIXELS(taps, step, end)                                                                               \
    for (; i < (end); i++, dy += dy_pixel, at += x_pixel) {                                                            \
        const FTR__VF d = FTR__TAP_LOAD(dy), e = two ? FTR__LOAD(dy + FTR__W) : (FTR__VF){0};                          \
        (void)e;                                                                                                       \
        __builtin_prefetch(dy + FTR__TAP_AHEAD * dy_pixel);                                                            \
        __builtin_prefetch(below + at + FTR__TAP_AHEAD * x_pixel);                                                     \
        if (two) __builtin_prefetch(dy + FTR__W + FTR__TAP_AHEAD * dy_pixel);                                          \
        if (two) __builtin_prefetch(below + FTR__W + at + FTR__TAP_AHEAD * x_pixel);                                   \
        taps(step)                                                                                                     \
    }
/* A function for one shape, whose first row is row `row` of all taps. For two vectors of channels, a whole one, or the
 * lanes that there are: `two` and `whole` are constants where it is used. */
#define FTR__TAP_SUMS(name, taps)                                                                                      \
    FTR__INLINE void FTR__S(name)(bool two, bool whole, const ftr__depthwise_sums *r,                                  \
                                  const FTR__S(depthwise_range) * all, int64_t row, int64_t c) {                       \
        const FTR__LANES lanes = FTR__S(lanes)(r->channels - c);                                                       \
        const int64_t dy_pixel = r->dy_pixel, x_pixel = r->x_pixel, x_tap = r->x_tap, next = r->x_tap_row;             \
        const float *const x0 = r->x, *const x1 = x0 + next, *const x2 = x1 + next, *const x3 = x2 + next;             \
        const float *const x4 = x3 + next, *const below = x0 + (r->tap_rows - 1 - row) * next;                         \
        (void)x1, (void)x2, (void)x3, (void)x4;                                                                        \
        taps(FTR__TAP_START);                                                                                          \
        for (int64_t k = 0; k < r->rows; k++) {                                                                        \
            int64_t i = all->begin, at = r->at + k * r->x_row + row * next + c + i * x_pixel;                          \
            const float *dy = r->dy + k * r->dy_row + c + i * dy_pixel;                                                \
            FTR__TAP_PIXELS(taps, FTR__TAP_EDGE, all->inner_begin)                                                     \
            FTR__TAP_PIXELS(taps, FTR__TAP_STEP, all->inner_end)                                                       \
            FTR__TAP_PIXELS(taps, FTR__TAP_EDGE, all->end)                                                             \
        }                                                                                                              \
        taps(FTR__TAP_END)                                                                                             \
    }
FTR__TAP_SUMS(depthwise_sums_1x1, FTR__TAPS_1X1)
FTR__TAP_SUMS(depthwise_sums_1x3, FTR__TAPS_1X3)
FTR__TAP_SUMS(depthwise_sums_1x5, FTR__TAPS_1X5)
FTR__TAP_SUMS(depthwise_sums_2x5, FTR__TAPS_2X5)
#if FTR__SIMD_LEVEL == 1 || FTR__SIMD_LEVEL == 3 /* 32 registers */
FTR__TAP_SUMS(depthwise_sums_3x3, FTR__TAPS_3X3)
FTR__TAP_SUMS(depthwise_sums_5x5, FTR__TAPS_5X5)
#else
FTR__TAP_SUMS(depthwise_sums_2x3, FTR__TAPS_2X3)
FTR__TAP_SUMS(depthwise_sums_3x3, FTR__TAPS_3X3)
#endif
#undef FTR__TAP_LOAD
#undef FTR__TAP_AHEAD
#undef FTR__TAP_START
#undef FTR__TAP_STEP
#undef FTR__TAP_EDGE
#undef FTR__TAP_END
#undef FTR__TAP_PIXELS
#undef FTR__TAP_SUMS
#undef FTR__TAPS_1X1
#undef FTR__TAPS_1X3
#undef FTR__TAPS_2X3
#undef FTR__TAPS_3X3
#undef FTR__TAPS_1X5
#undef FTR__TAPS_2X5
#undef FTR__TAPS_5X5

/* The sums of one vector of channels, as many taps at once as there is a shape for. */
FTR__INLINE void FTR__S(depthwise_sums_one)(bool whole, const ftr__depthwise_sums *r,
                                            const FTR__S(depthwise_range) * all, int64_t row, int64_t c) {
#if FTR__SIMD_LEVEL == 1 || FTR__SIMD_LEVEL == 3
    for (; r->taps == 5 && row + 5 <= r->tap_rows; row += 5) FTR__S(depthwise_sums_5x5)(false, whole, r, all, row, c);
#endif
    for (; r->taps == 5 && row + 2 <= r->tap_rows; row += 2) FTR__S(depthwise_sums_2x5)(false, whole, r, all, row, c);
    for (; r->taps == 3 && row + 3 <= r->tap_rows; row += 3) FTR__S(depthwise_sums_3x3)(false, whole, r, all, row, c);
    for (; row < r->tap_rows; row++) {
        if (r->taps == 5)
            FTR__S(depthwise_sums_1x5)(false, whole, r, all, row, c);
        else if (r->taps == 3)
            FTR__S(depthwise_sums_1x3)(false, whole, r, all, row, c);
        else
            FTR__S(depthwise_sums_1x1)(false, whole, r, all, row, c);
    }
}

/* Three columns of taps for two vectors at once, so that a pixel's lines of the cache are read in one go. */
FTR__INLINE void FTR__S(depthwise_sums_two)(const ftr__depthwise_sums *r, const FTR__S(depthwise_range) * all,
                                            int64_t c) {
    int64_t row = 0;
#if FTR__SIMD_LEVEL == 1 || FTR__SIMD_LEVEL == 3
    for (; row + 3 <= r->tap_rows; row += 3) FTR__S(depthwise_sums_3x3)(true, true, r, all, row, c);
#else
    for (; row + 2 <= r->tap_rows; row += 2) FTR__S(depthwise_sums_2x3)(true, true, r, all, row, c);
#endif
    for (; row < r->tap_rows; row++) FTR__S(depthwise_sums_1x3)(true, true, r, all, row, c);
}

static void FTR__S(depthwise_sums)(const ftr__depthwise_sums *r) {
    const FTR__S(depthwise_range) all = FTR__S(depthwise_range_of)(r);
    int64_t c = 0;
    for (; r->taps == 3 && c + 2 * FTR__W <= r->channels; c += 2 * FTR__W) FTR__S(depthwise_sums_two)(r, &all, c);
    for (; c + FTR__W <= r->channels; c += FTR__W) FTR__S(depthwise_sums_one)(true, r, &all, 0, c);
    if (c < r->channels) FTR__S(depthwise_sums_one)(false, r, &all, 0, c);
}

#define FTR__SIMD_DEPTHWISE_FUNCTIONS                                                                                  \
    { .run = FTR__S(depthwise_run), .sums = FTR__S(depthwise_sums) }
