/* ftr__simd_attention of one instruction set. Included once a level, after simd_math.inc.h and simd_gemm.inc.h. */
#undef FTR__SIMD_ATTENTION_FUNCTIONS

/* ----------------------------------------------------------------------------------------------- matrix products -- */

#define FTR__TILE_ZERO(i) FTR__VF lo##i = {0}, hi##i = {0};
#define FTR__TILE_STEP(i)                                                                                              \
    if (i < rows) {                                                                                                    \
        const FTR__VF x = FTR__SPLAT(a[i]);                                                                            \
        lo##i = FTR__FMA(x, b0, lo##i);                                                                                \
        if (!narrow) hi##i = FTR__FMA(x, b1, hi##i);                                                                   \
    }
#define FTR__TILE_STORE(i)                                                                                             \
    if (i < rows) {                                                                                                    \
        FTR__S(attention_store)(tile, i, 0, lo##i);                                                                    \
        if (!narrow) FTR__S(attention_store)(tile, i, 1, hi##i);                                                       \
    }

/* A row of vectors on its way to memory. */
FTR__INLINE void FTR__S(attention_store)(const ftr__gemm_tile *tile, int32_t row, int32_t part, FTR__VF sum) {
    float *c = tile->c[row] + part * FTR__W;
    if (tile->load) sum += FTR__LOAD(c);
    FTR__STORE(c, sum);
}

/* `rows` and `narrow` are constants where this is used. */
FTR__INLINE void FTR__S(attention_columns)(int32_t rows, bool narrow, int64_t depth, const float *a, int64_t a_stride,
                                           const float *b, int64_t b_stride, const ftr__gemm_tile *tile) {
    FTR__ROWS(FTR__TILE_ZERO)
    for (int64_t k = 0; k < depth; k++) {
        const FTR__VF b0 = FTR__LOAD(b), b1 = narrow ? (FTR__VF){0} : FTR__LOAD(b + FTR__W);
        FTR__ROWS(FTR__TILE_STEP)
        a += a_stride;
        b += b_stride;
    }
    FTR__ROWS(FTR__TILE_STORE)
}
#undef FTR__TILE_ZERO
#undef FTR__TILE_STEP
#undef FTR__TILE_STORE

static void FTR__S(attention_tile_columns)(int64_t rows, int64_t depth, const float *a, int64_t a_stride,
                                           const float *b, int64_t b_stride, const ftr__gemm_tile *tile) {
    if (rows <= 4) FTR__S(attention_columns)(4, false, depth, a, a_stride, b, b_stride, tile);
#if FTR__MR > 8
    else if (rows <= 8)
        FTR__S(attention_columns)(8, false, depth, a, a_stride, b, b_stride, tile);
#endif
    else if (tile->narrow)
        FTR__S(attention_columns)(FTR__MR, true, depth, a, a_stride, b, b_stride, tile);
    else
        FTR__S(attention_columns)(FTR__MR, false, depth, a, a_stride, b, b_stride, tile);
}

/* ------------------------------------------------------------------------------------------------------- softmax -- */

/* a if it is larger, otherwise b: also if one of them is NaN. */
FTR__INLINE FTR__VF FTR__S(larger)(FTR__VF a, FTR__VF b) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (FTR__VF)_mm512_max_ps((__m512)a, (__m512)b);
#elif FTR__SIMD_LEVEL == 2
    return (FTR__VF)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return FTR__SELECT(a > b, a, b);
#endif
}

/* 2^x for x <= 0 and NaN; below 2^-126 it is 0. x = n + r with |r| <= 1/2; 2^r = 1 + r P(r), P a minimax polynomial
 * (relative error 1e-7); n is added to the exponent. */
FTR__INLINE FTR__VF FTR__S(power_of_two)(FTR__VF x) {
    const FTR__VF round = FTR__SPLAT(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    const FTR__VF shifted = x + round;
    const FTR__VF r = x - (shifted - round);
    FTR__VF p = FTR__SPLAT(0.00132647273f);
    p = FTR__FMA(p, r, FTR__SPLAT(0.00967151299f));
    p = FTR__FMA(p, r, FTR__SPLAT(0.0555073358f));
    p = FTR__FMA(p, r, FTR__SPLAT(0.240222424f));
    p = FTR__FMA(p, r, FTR__SPLAT(0.693147004f));
    p = FTR__FMA(p, r, FTR__SPLAT(1.0f));
    p = (FTR__VF)((FTR__VU)p + ((FTR__VU)shifted << 23));
    return (FTR__VF)((FTR__VI)p & ~(x < -126.0f));
}

/* What the weights of keys k to k + 3 are multiplied by: 0 or the scale. */
FTR__INLINE void FTR__S(dropout_factors)(const ftr__attention_dropout *dropout, int64_t k, int64_t column,
                                         FTR__VF factor[4]) {
    const uint64_t all = 0xffffffffu, threshold = dropout->stream.threshold;
    const uint32_t limit = (uint32_t)(threshold < all ? threshold : all); /* p = 1: the scale is 0 */
    FTR__VU numbers[4];
    FTR__S(philox)
    (dropout->stream.key, dropout->stream.counter,
     dropout->first + (uint64_t)(k / 4) * dropout->step + (uint64_t)column, numbers);
    FTR__UNROLL
    for (int32_t i = 0; i < 4; i++)
        factor[i] = (FTR__VF)((FTR__VI)FTR__SPLAT(dropout->stream.scale) & (FTR__VI)(numbers[i] >= limit));
}

static void FTR__S(attention_add_tile)(int64_t keys, int64_t columns, int64_t stride, float factor, const float *x,
                                       int64_t x_stride, float *s) {
    for (int64_t k = 0; k < keys; k++, x += x_stride, s += stride) {
        for (int64_t c = 0; c < columns; c += FTR__W)
            FTR__STORE(s + c, FTR__FMA(FTR__LOAD(x + c), FTR__SPLAT(factor), FTR__LOAD(s + c)));
    }
}

static void FTR__S(attention_add_keys)(int64_t keys, int64_t columns, int64_t stride, float factor, const float *x,
                                       float *s) {
    for (int64_t k = 0; k < keys; k++, s += stride) {
        const FTR__VF add = FTR__SPLAT(factor * x[k]);
        for (int64_t c = 0; c < columns; c += FTR__W) FTR__STORE(s + c, FTR__LOAD(s + c) + add);
    }
}

/* One vector of columns; four rows are on their way at a time. */
FTR__INLINE FTR__VF FTR__S(column_maxima)(int64_t keys, int64_t stride, const float *s, FTR__VF most) {
    FTR__VF m0 = most, m1 = most, m2 = most, m3 = most;
    int64_t k = 0;
    for (; k + 4 <= keys; k += 4, s += 4 * stride) {
        m0 = FTR__S(larger)(FTR__LOAD(s), m0);
        m1 = FTR__S(larger)(FTR__LOAD(s + stride), m1);
        m2 = FTR__S(larger)(FTR__LOAD(s + 2 * stride), m2);
        m3 = FTR__S(larger)(FTR__LOAD(s + 3 * stride), m3);
    }
    for (; k < keys; k++, s += stride) m0 = FTR__S(larger)(FTR__LOAD(s), m0);
    return FTR__S(larger)(FTR__S(larger)(m0, m1), FTR__S(larger)(m2, m3));
}

FTR__INLINE FTR__VF FTR__S(column_weights)(int64_t keys, int64_t stride, FTR__VF shift,
                                           const ftr__attention_dropout *dropout, int64_t column, float *s) {
    FTR__VF sum[4] = {{0}, {0}, {0}, {0}}, factor[4];
    int64_t k = 0;
    for (; k + 4 <= keys; k += 4, s += 4 * stride) {
        if (dropout) FTR__S(dropout_factors)(dropout, k, column, factor);
        FTR__UNROLL
        for (int32_t i = 0; i < 4; i++) {
            const FTR__VF p = FTR__S(power_of_two)(FTR__LOAD(s + i * stride) - shift);
            sum[i] += p;
            FTR__STORE(s + i * stride, dropout ? p * factor[i] : p);
        }
    }
    if (dropout && k < keys) FTR__S(dropout_factors)(dropout, k, column, factor);
    for (int32_t i = 0; k + i < keys; i++, s += stride) {
        const FTR__VF p = FTR__S(power_of_two)(FTR__LOAD(s) - shift);
        sum[0] += p;
        FTR__STORE(s, dropout ? p * factor[i] : p);
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static void FTR__S(attention_softmax)(int64_t keys, int64_t columns, int64_t stride,
                                      const ftr__attention_dropout *dropout, float *maximum, float *sum, float *rescale,
                                      float *s) {
    for (int64_t c = 0; c < columns; c += FTR__W) {
        const FTR__VF before = FTR__LOAD(maximum + c), most = FTR__S(column_maxima)(keys, stride, s + c, before);
        const FTR__VF shift = FTR__SELECT(most == -__builtin_inff(), FTR__SPLAT(0.0f), most);
        const FTR__VF factor = FTR__S(power_of_two)(before - shift);
        const FTR__VF more = dropout ? FTR__S(column_weights)(keys, stride, shift, dropout, c, s + c)
                                     : FTR__S(column_weights)(keys, stride, shift, NULL, c, s + c);
        FTR__STORE(maximum + c, most);
        FTR__STORE(rescale + c, factor);
        FTR__STORE(sum + c, FTR__FMA(FTR__LOAD(sum + c), factor, more));
    }
}

static void FTR__S(attention_softmax_end)(int64_t columns, const float *maximum, const float *sum, float *log_sum,
                                          float *inverse) {
    for (int64_t c = 0; c < columns; c += FTR__W) {
        const FTR__VF total = FTR__LOAD(sum + c), most = FTR__LOAD(maximum + c);
        const FTR__VI none = total == 0.0f;
        const FTR__VF log = FTR__FMA(most, FTR__SPLAT(0.693147181f), FTR__S(logarithm)(total));
        FTR__STORE(log_sum + c, FTR__SELECT(none, FTR__SPLAT(-__builtin_inff()), log));
        FTR__STORE(inverse + c, FTR__SELECT(none, FTR__SPLAT(0.0f), 1.0f / total));
    }
}

/* One element; `factor` is NULL without dropout. The product with log2(e) is not rounded before the difference: both
 * are large where scores are. */
FTR__INLINE void FTR__S(attention_slope)(FTR__VF log_sum, FTR__VF mean, const FTR__VF *factor, float *s, float *ds) {
    const FTR__VF p = FTR__S(power_of_two)(FTR__FMA(log_sum, FTR__SPLAT(-1.44269504f), FTR__LOAD(s)));
    FTR__VF d = FTR__LOAD(ds);
    if (factor) d *= *factor;
    FTR__STORE(ds, p * (d - mean));
    FTR__STORE(s, factor ? p * *factor : p);
}

FTR__INLINE void FTR__S(column_slopes)(int64_t keys, int64_t stride, FTR__VF log_sum, FTR__VF mean,
                                       const ftr__attention_dropout *dropout, int64_t column, float *s, float *ds) {
    FTR__VF factor[4];
    int64_t k = 0;
    for (; k + 4 <= keys; k += 4, s += 4 * stride, ds += 4 * stride) {
        if (dropout) FTR__S(dropout_factors)(dropout, k, column, factor);
        FTR__UNROLL
        for (int32_t i = 0; i < 4; i++)
            FTR__S(attention_slope)(log_sum, mean, dropout ? &factor[i] : NULL, s + i * stride, ds + i * stride);
    }
    if (dropout && k < keys) FTR__S(dropout_factors)(dropout, k, column, factor);
    for (int32_t i = 0; k + i < keys; i++, s += stride, ds += stride)
        FTR__S(attention_slope)(log_sum, mean, dropout ? &factor[i] : NULL, s, ds);
}

static void FTR__S(attention_softmax_grad)(int64_t keys, int64_t columns, int64_t stride,
                                           const ftr__attention_dropout *dropout, const float *log_sum,
                                           const float *mean, float *s, float *ds) {
    for (int64_t c = 0; c < columns; c += FTR__W) {
        const FTR__VF natural = FTR__LOAD(log_sum + c), average = FTR__LOAD(mean + c);
        /* Where no key is seen all weights are 0. */
        const FTR__VF log = FTR__SELECT(natural == -__builtin_inff(), FTR__SPLAT(__builtin_inff()), natural);
        if (dropout)
            FTR__S(column_slopes)(keys, stride, log, average, dropout, c, s + c, ds + c);
        else
            FTR__S(column_slopes)(keys, stride, log, average, NULL, c, s + c, ds + c);
    }
}

static void FTR__S(attention_scale_rows)(int64_t rows, int64_t columns, const float *factor, int64_t factor_step,
                                         const float *x, int64_t x_stride, float *y, int64_t y_stride) {
    for (int64_t r = 0; r < rows; r++, factor += factor_step, x += x_stride, y += y_stride) {
        const FTR__VF scale = FTR__SPLAT(*factor);
        int64_t c = *factor == 1.0f && x == y ? columns : 0;
        for (int64_t i = 0; i < columns && x != y && r + 6 < rows; i += 16) /* rows that are written lie far apart */
            __builtin_prefetch(y + 6 * y_stride + i, 1);
        for (; c + FTR__W <= columns; c += FTR__W) FTR__STORE(y + c, FTR__LOAD(x + c) * scale);
        for (; c < columns; c++) y[c] = x[c] * *factor;
    }
}

/* -------------------------------------------------------------------------------------------------------- rotary -- */

static void FTR__S(rotate_halves)(int64_t half, const float *c, const float *s, const float *x, float *y) {
    for (int64_t i = 0; i < half; i += FTR__W) {
        const int64_t left = half - i;
        const FTR__VF cosine = FTR__S(load_some)(c + i, left), sine = FTR__S(load_some)(s + i, left);
        const FTR__VF a = FTR__S(load_some)(x + i, left), b = FTR__S(load_some)(x + half + i, left);
        FTR__S(store_some)(y + i, FTR__FMA(a, cosine, -(b * sine)), left);
        FTR__S(store_some)(y + half + i, FTR__FMA(b, cosine, a * sine), left);
    }
}

static void FTR__S(rotate_pairs)(int64_t half, const float *c, const float *s, const float *x, float *y) {
    typedef uint64_t pair __attribute__((vector_size(4 * FTR__W)));
    for (int64_t i = 0; i < 2 * half; i += FTR__W) {
        const int64_t left = 2 * half - i;
        const FTR__VF a = FTR__S(load_some)(x + i, left);
        const FTR__VF other = (FTR__VF)(((pair)a << 32) | ((pair)a >> 32));
        const FTR__VF turned = other * FTR__S(load_some)(s + i, left);
        FTR__S(store_some)(y + i, FTR__FMA(a, FTR__S(load_some)(c + i, left), turned), left);
    }
}

#define FTR__SIMD_ATTENTION_FUNCTIONS                                                                                  \
    {                                                                                                                  \
        .tile_columns = FTR__S(attention_tile_columns), .add_tile = FTR__S(attention_add_tile),                        \
        .add_keys = FTR__S(attention_add_keys), .softmax = FTR__S(attention_softmax),                                  \
        .softmax_end = FTR__S(attention_softmax_end), .softmax_grad = FTR__S(attention_softmax_grad),                  \
        .scale_rows = FTR__S(attention_scale_rows), .rotate_halves = FTR__S(rotate_halves),                            \
        .rotate_pairs = FTR__S(rotate_pairs),                                                                          \
    }
