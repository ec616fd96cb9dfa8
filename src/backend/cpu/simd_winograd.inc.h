/* ftr__simd_winograd of one instruction set. Included once a level.
 *
 * The points are 0, a, -a, b, -b and infinity with a = 5/8 and b = 3/2. With them an f32 convolution's error is about twice
 * that of the direct sum; with the usual 1 and 2 it is five times that. */
#undef FTR__SIMD_WINOGRAD_FUNCTIONS

#define FTR__WA 0.625f               /* a */
#define FTR__WB 1.5f                 /* b */
#define FTR__WA2 (FTR__WA * FTR__WA) /* squares and cubes */
#define FTR__WB2 (FTR__WB * FTR__WB)
#define FTR__WA3 (FTR__WA2 * FTR__WA)
#define FTR__WB3 (FTR__WB2 * FTR__WB)
#define FTR__WSUM (FTR__WA2 + FTR__WB2)
#define FTR__WPRODUCT (FTR__WA2 * FTR__WB2)
#define FTR__WFA                                                                                                       \
    (1.0f / (2.0f * FTR__WA2 * (FTR__WA2 - FTR__WB2))) /* what the filter's values at +-a, +-b, 0 are scaled by */
#define FTR__WFB (1.0f / (2.0f * FTR__WB2 * (FTR__WB2 - FTR__WA2)))
#define FTR__WF0 (1.0f / FTR__WPRODUCT)

/* The loops over the sides of tiles are written out. */
#if defined(__clang__)
#define FTR__WUNROLL _Pragma("clang loop unroll(full)")
#else
#define FTR__WUNROLL _Pragma("GCC unroll 8")
#endif

#define FTR__WFMA(x, y, z) FTR__FMA(FTR__SPLAT(x), y, z)

/* Six values to six: those of the input. */
FTR__INLINE void FTR__S(winograd_b)(const FTR__VF *d, int32_t step, FTR__VF t[6]) {
    const FTR__VF d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
    const FTR__VF ea = FTR__WFMA(-FTR__WB2, d2, d4), oa = FTR__WFMA(-FTR__WB2, d1, d3);
    const FTR__VF eb = FTR__WFMA(-FTR__WA2, d2, d4), ob = FTR__WFMA(-FTR__WA2, d1, d3);
    t[0] = FTR__WFMA(FTR__WPRODUCT, d0, FTR__WFMA(-FTR__WSUM, d2, d4));
    t[1] = FTR__WFMA(FTR__WA, oa, ea);
    t[2] = FTR__WFMA(-FTR__WA, oa, ea);
    t[3] = FTR__WFMA(FTR__WB, ob, eb);
    t[4] = FTR__WFMA(-FTR__WB, ob, eb);
    t[5] = FTR__WFMA(FTR__WPRODUCT, d1, FTR__WFMA(-FTR__WSUM, d3, d5));
}

/* Six to four: the output. */
FTR__INLINE void FTR__S(winograd_a)(const FTR__VF *m, int32_t step, FTR__VF y[4]) {
    const FTR__VF m1 = m[step], m2 = m[2 * step], m3 = m[3 * step], m4 = m[4 * step];
    const FTR__VF ea = m1 + m2, oa = m1 - m2, eb = m3 + m4, ob = m3 - m4;
    y[0] = m[0] + ea + eb;
    y[1] = FTR__WFMA(FTR__WA, oa, FTR__SPLAT(FTR__WB) * ob);
    y[2] = FTR__WFMA(FTR__WA2, ea, FTR__SPLAT(FTR__WB2) * eb);
    y[3] = FTR__WFMA(FTR__WA3, oa, FTR__WFMA(FTR__WB3, ob, m[5 * step]));
}

/* Four to six: the transpose of that. */
FTR__INLINE void FTR__S(winograd_at)(const FTR__VF *y, int32_t step, FTR__VF t[6]) {
    const FTR__VF y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
    const FTR__VF ea = FTR__WFMA(FTR__WA2, y2, y0), oa = FTR__WFMA(FTR__WA3, y3, FTR__SPLAT(FTR__WA) * y1);
    const FTR__VF eb = FTR__WFMA(FTR__WB2, y2, y0), ob = FTR__WFMA(FTR__WB3, y3, FTR__SPLAT(FTR__WB) * y1);
    t[0] = y0;
    t[1] = ea + oa;
    t[2] = ea - oa;
    t[3] = eb + ob;
    t[4] = eb - ob;
    t[5] = y3;
}

/* Three to six: the filter. */
FTR__INLINE void FTR__S(winograd_g)(const FTR__VF *g, int32_t step, FTR__VF u[6]) {
    const FTR__VF g0 = g[0], g1 = g[step], g2 = g[2 * step];
    const FTR__VF ea = FTR__SPLAT(FTR__WFA) * FTR__WFMA(FTR__WA2, g2, g0), oa = FTR__SPLAT(FTR__WFA * FTR__WA) * g1;
    const FTR__VF eb = FTR__SPLAT(FTR__WFB) * FTR__WFMA(FTR__WB2, g2, g0), ob = FTR__SPLAT(FTR__WFB * FTR__WB) * g1;
    u[0] = FTR__SPLAT(FTR__WF0) * g0;
    u[1] = ea + oa;
    u[2] = ea - oa;
    u[3] = eb + ob;
    u[4] = eb - ob;
    u[5] = g2;
}

/* Six to three: the transpose of that. */
FTR__INLINE void FTR__S(winograd_gt)(const FTR__VF *u, int32_t step, FTR__VF g[3]) {
    const FTR__VF u1 = u[step], u2 = u[2 * step], u3 = u[3 * step], u4 = u[4 * step];
    const FTR__VF ea = FTR__SPLAT(FTR__WFA) * (u1 + u2), oa = FTR__SPLAT(FTR__WFA * FTR__WA) * (u1 - u2);
    const FTR__VF eb = FTR__SPLAT(FTR__WFB) * (u3 + u4), ob = FTR__SPLAT(FTR__WFB * FTR__WB) * (u3 - u4);
    g[0] = FTR__WFMA(FTR__WF0, u[0], ea + eb);
    g[1] = oa + ob;
    g[2] = FTR__WFMA(FTR__WA2, ea, FTR__WFMA(FTR__WB2, eb, u[5 * step]));
}

/* Columns first, into `half`; then rows, each of which is complete. */
FTR__INLINE void FTR__S(winograd_input_vector)(bool whole, int64_t c, int64_t channels,
                                               const ftr__winograd_window *from, const ftr__winograd_place *place) {
    const int64_t n = whole ? FTR__W : channels - c;
    FTR__VF half[36], d[6], t[6];
    int64_t at = c;
    FTR__WUNROLL
    for (int32_t x = 0; x < 6; x++) {
        if (x >= from->first && x < from->last) {
            FTR__WUNROLL
            for (int32_t y = 0; y < 6; y++) d[y] = FTR__S(load_some)(from->row[y] + at, n);
            FTR__WUNROLL
            for (int32_t y = 2; y < 6; y++) __builtin_prefetch(from->row[y] + at + from->ahead, 0, 2);
            FTR__S(winograd_b)(d, 1, t);
            at += channels;
        } else {
            FTR__WUNROLL
            for (int32_t y = 0; y < 6; y++) t[y] = (FTR__VF){0};
        }
        FTR__WUNROLL
        for (int32_t y = 0; y < 6; y++) half[6 * y + x] = t[y];
    }
    float *to = place->to + c / FTR__W * place->panel;
    FTR__WUNROLL
    for (int32_t y = 0; y < 6; y++) {
        FTR__S(winograd_b)(half + 6 * y, 1, t);
        FTR__WUNROLL
        for (int32_t x = 0; x < 6; x++) FTR__STORE(to + (6 * y + x) * place->plane, t[x]);
    }
}

static void FTR__S(winograd_input)(int64_t channels, const ftr__winograd_window *from,
                                   const ftr__winograd_place *place) {
    int64_t c = 0;
    for (; c + FTR__W <= channels; c += FTR__W) FTR__S(winograd_input_vector)(true, c, channels, from, place);
    if (c < channels) FTR__S(winograd_input_vector)(false, c, channels, from, place);
}

FTR__INLINE void FTR__S(winograd_gradient_vector)(bool whole, int64_t c, int64_t channels,
                                                  const ftr__winograd_window *from, const ftr__winograd_place *place) {
    const int64_t n = whole ? FTR__W : channels - c;
    FTR__VF half[24], d[4], t[6];
    int64_t at = c;
    FTR__WUNROLL
    for (int32_t x = 0; x < 4; x++) {
        if (x >= from->first && x < from->last) {
            FTR__WUNROLL
            for (int32_t y = 0; y < 4; y++) d[y] = FTR__S(load_some)(from->row[y] + at, n);
            FTR__WUNROLL
            for (int32_t y = 0; y < 4; y++) __builtin_prefetch(from->row[y] + at + from->ahead, 0, 2);
            FTR__S(winograd_at)(d, 1, t);
            at += channels;
        } else {
            FTR__WUNROLL
            for (int32_t y = 0; y < 6; y++) t[y] = (FTR__VF){0};
        }
        FTR__WUNROLL
        for (int32_t y = 0; y < 6; y++) half[4 * y + x] = t[y];
    }
    float *to = place->to + c / FTR__W * place->panel;
    FTR__WUNROLL
    for (int32_t y = 0; y < 6; y++) {
        FTR__S(winograd_at)(half + 4 * y, 1, t);
        FTR__WUNROLL
        for (int32_t x = 0; x < 6; x++) FTR__STORE(to + (6 * y + x) * place->plane, t[x]);
    }
}

static void FTR__S(winograd_gradient)(int64_t channels, const ftr__winograd_window *from,
                                      const ftr__winograd_place *place) {
    int64_t c = 0;
    for (; c + FTR__W <= channels; c += FTR__W) FTR__S(winograd_gradient_vector)(true, c, channels, from, place);
    if (c < channels) FTR__S(winograd_gradient_vector)(false, c, channels, from, place);
}

FTR__INLINE void FTR__S(winograd_output_vector)(bool whole, int64_t c, int64_t channels, const float *from,
                                                int64_t plane, const float *bias, bool relu,
                                                const ftr__winograd_patch *patch) {
    const int64_t n = whole ? FTR__W : channels - c;
    const FTR__VF add = bias ? FTR__S(load_some)(bias + c, n) : (FTR__VF){0};
    FTR__VF half[24], m[6], t[4];
    from += c;
    FTR__WUNROLL
    for (int32_t y = 0; y < 6; y++) {
        FTR__WUNROLL
        for (int32_t x = 0; x < 6; x++) m[x] = FTR__LOAD(from + x * plane);
        from += 6 * plane;
        FTR__S(winograd_a)(m, 1, t);
        FTR__WUNROLL
        for (int32_t x = 0; x < 4; x++) half[6 * x + y] = t[x];
    }
    FTR__WUNROLL
    for (int32_t x = 0; x < 4; x++) {
        float *to = patch->to + x * patch->pixel + c;
        if (x >= patch->columns) break;
        FTR__S(winograd_a)(half + 6 * x, 1, t);
        FTR__WUNROLL
        for (int32_t y = 0; y < 4; y++) {
            FTR__VF v = t[y] + add;
            if (relu) v = FTR__SELECT(v < (FTR__VF){0}, (FTR__VF){0}, v);
            if (y < patch->rows) FTR__S(store_some)(to + y * patch->row, v, n);
        }
    }
}

static void FTR__S(winograd_output)(int64_t channels, const float *from, int64_t plane, const float *bias, bool relu,
                                    const ftr__winograd_patch *to) {
    int64_t c = 0;
    for (; c + FTR__W <= channels; c += FTR__W)
        FTR__S(winograd_output_vector)(true, c, channels, from, plane, bias, relu, to);
    if (c < channels) FTR__S(winograd_output_vector)(false, c, channels, from, plane, bias, relu, to);
}

FTR__INLINE void FTR__S(winograd_filter_vector)(bool whole, int64_t c, int64_t channels, const float *from, int64_t tap,
                                                float *to, int64_t plane) {
    const int64_t n = whole ? FTR__W : channels - c;
    FTR__VF half[18], g[3], t[6];
    FTR__WUNROLL
    for (int32_t x = 0; x < 3; x++) {
        FTR__WUNROLL
        for (int32_t y = 0; y < 3; y++) g[y] = FTR__S(load_some)(from + (3 * y + x) * tap + c, n);
        FTR__S(winograd_g)(g, 1, t);
        FTR__WUNROLL
        for (int32_t y = 0; y < 6; y++) half[3 * y + x] = t[y];
    }
    FTR__WUNROLL
    for (int32_t y = 0; y < 6; y++) {
        FTR__S(winograd_g)(half + 3 * y, 1, t);
        FTR__WUNROLL
        for (int32_t x = 0; x < 6; x++) FTR__S(store_some)(to + (6 * y + x) * plane + c, t[x], n);
    }
}

static void FTR__S(winograd_filter)(int64_t channels, const float *from, int64_t tap, float *to, int64_t plane) {
    int64_t c = 0;
    for (; c + FTR__W <= channels; c += FTR__W) FTR__S(winograd_filter_vector)(true, c, channels, from, tap, to, plane);
    if (c < channels) FTR__S(winograd_filter_vector)(false, c, channels, from, tap, to, plane);
}

FTR__INLINE void FTR__S(winograd_filter_gradient_vector)(bool whole, int64_t c, int64_t channels, const float *from,
                                                         int64_t plane, float *to, int64_t tap) {
    const int64_t n = whole ? FTR__W : channels - c;
    FTR__VF half[18], u[6], t[3];
    FTR__WUNROLL
    for (int32_t x = 0; x < 6; x++) {
        FTR__WUNROLL
        for (int32_t y = 0; y < 6; y++) u[y] = FTR__S(load_some)(from + (6 * y + x) * plane + c, n);
        FTR__S(winograd_gt)(u, 1, t);
        FTR__WUNROLL
        for (int32_t y = 0; y < 3; y++) half[6 * y + x] = t[y];
    }
    FTR__WUNROLL
    for (int32_t y = 0; y < 3; y++) {
        FTR__S(winograd_gt)(half + 6 * y, 1, t);
        FTR__WUNROLL
        for (int32_t x = 0; x < 3; x++) FTR__S(store_some)(to + (3 * y + x) * tap + c, t[x], n);
    }
}

static void FTR__S(winograd_filter_gradient)(int64_t channels, const float *from, int64_t plane, float *to,
                                             int64_t tap) {
    int64_t c = 0;
    for (; c + FTR__W <= channels; c += FTR__W)
        FTR__S(winograd_filter_gradient_vector)(true, c, channels, from, plane, to, tap);
    if (c < channels) FTR__S(winograd_filter_gradient_vector)(false, c, channels, from, plane, to, tap);
}

/* Tiles of `products` are those of the matrix product: rows and vectors. `rows` and `narrow` are constants where this is used. */
#define FTR__WZERO(i) FTR__VF lo##i = {0}, hi##i = {0};
#define FTR__WSTEP(i)                                                                                                  \
    if (i < rows) {                                                                                                    \
        const FTR__VF x = FTR__SPLAT(from[(i)*FTR__W]);                                                                \
        lo##i = FTR__FMA(x, b0, lo##i);                                                                                \
        if (!narrow) hi##i = FTR__FMA(x, b1, hi##i);                                                                   \
    }
#define FTR__WEND(i)                                                                                                   \
    if (i < rows) {                                                                                                    \
        float *to = c + (i)*c_stride;                                                                                  \
        if (load) lo##i += FTR__LOAD(to);                                                                              \
        FTR__STORE(to, lo##i);                                                                                         \
        if (!narrow && load) hi##i += FTR__LOAD(to + FTR__W);                                                          \
        if (!narrow) FTR__STORE(to + FTR__W, hi##i);                                                                   \
    }

FTR__INLINE void FTR__S(winograd_products_rows)(int32_t rows, bool narrow, int64_t depth, const float *a, int64_t panel,
                                                const float *b, bool load, float *c, int64_t c_stride) {
    FTR__ROWS(FTR__WZERO)
    for (; depth > 0; depth -= FTR__W, a += panel) {
        const float *from = a, *const end = a + (depth < FTR__W ? depth : FTR__W);
        for (; from < end; from++, b += 2 * FTR__W) {
            const FTR__VF b0 = FTR__LOAD(b), b1 = narrow ? (FTR__VF){0} : FTR__LOAD(b + FTR__W);
            FTR__ROWS(FTR__WSTEP)
        }
    }
    FTR__ROWS(FTR__WEND)
}

static void FTR__S(winograd_products)(int64_t rows, bool narrow, int64_t depth, const float *a, int64_t panel,
                                      const float *b, bool load, float *c, int64_t c_stride) {
#define FTR__WROWS(count)                                                                                              \
    if (narrow)                                                                                                        \
        FTR__S(winograd_products_rows)(count, true, depth, a, panel, b, load, c, c_stride);                            \
    else                                                                                                               \
        FTR__S(winograd_products_rows)(count, false, depth, a, panel, b, load, c, c_stride);
    if (rows <= 1) {
        FTR__WROWS(1)
    } else if (rows <= 2) {
        FTR__WROWS(2)
    } else if (rows <= 4) {
        FTR__WROWS(4)
#if FTR__MR > 8
    } else if (rows <= 8) {
        FTR__WROWS(8)
#endif
    } else {
        FTR__WROWS(FTR__MR)
    }
#undef FTR__WROWS
}

/* Of `sums`: as many rows as divide a vector and leave registers for two vectors of B and one of A, or a vector of rows. */
#if FTR__W == 16
#define FTR__WTALL 8
#define FTR__WLIST(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#elif FTR__W == 8
#define FTR__WTALL 4
#define FTR__WLIST(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#else
#define FTR__WTALL 4
#define FTR__WLIST(X) X(0) X(1) X(2) X(3)
#endif
#define FTR__WADD(i)                                                                                                   \
    if (i < rows) {                                                                                                    \
        const FTR__VF x = FTR__SPLAT(a[i]);                                                                            \
        lo##i = FTR__FMA(x, b0, lo##i);                                                                                \
        if (!narrow) hi##i = FTR__FMA(x, b1, hi##i);                                                                   \
    }

FTR__INLINE void FTR__S(winograd_sums_rows)(int32_t rows, bool narrow, int64_t depth, const float *a, int64_t a_stride,
                                            const float *b, const float *b_second, int64_t b_stride, bool load,
                                            float *c, int64_t c_stride) {
    FTR__WLIST(FTR__WZERO)
    for (int64_t k = 0; k < depth; k++, a += a_stride, b += b_stride) {
        const FTR__VF b0 = FTR__LOAD(b), b1 = narrow ? (FTR__VF){0} : FTR__LOAD(b_second);
        if (!narrow) b_second += b_stride;
        FTR__WLIST(FTR__WADD)
    }
    FTR__WLIST(FTR__WEND)
}

static void FTR__S(winograd_sums)(int64_t depth, const float *a, int64_t a_stride, const float *b,
                                  const float *b_second, int64_t b_stride, bool load, float *c, int64_t c_stride) {
    if (b_second)
        FTR__S(winograd_sums_rows)(FTR__WTALL, false, depth, a, a_stride, b, b_second, b_stride, load, c, c_stride);
    else
        FTR__S(winograd_sums_rows)(FTR__W, true, depth, a, a_stride, b, b_second, b_stride, load, c, c_stride);
}
#undef FTR__WLIST
#undef FTR__WZERO
#undef FTR__WSTEP
#undef FTR__WADD
#undef FTR__WEND

#undef FTR__SIMD_WINOGRAD_TALL
#if FTR__WTALL == 8
#define FTR__SIMD_WINOGRAD_TALL 8
#else
#define FTR__SIMD_WINOGRAD_TALL 4
#endif
#undef FTR__WTALL

#define FTR__SIMD_WINOGRAD_FUNCTIONS                                                                                   \
    {                                                                                                                  \
        .lanes = FTR__W, .tall = FTR__SIMD_WINOGRAD_TALL, .input = FTR__S(winograd_input),                             \
        .gradient = FTR__S(winograd_gradient), .output = FTR__S(winograd_output), .filter = FTR__S(winograd_filter),   \
        .filter_gradient = FTR__S(winograd_filter_gradient), .products = FTR__S(winograd_products),                    \
        .sums = FTR__S(winograd_sums),                                                                                 \
    }

#undef FTR__WUNROLL
#undef FTR__WA
#undef FTR__WB
#undef FTR__WA2
#undef FTR__WB2
#undef FTR__WA3
#undef FTR__WB3
#undef FTR__WSUM
#undef FTR__WPRODUCT
#undef FTR__WFA
#undef FTR__WFB
#undef FTR__WF0
#undef FTR__WFMA
