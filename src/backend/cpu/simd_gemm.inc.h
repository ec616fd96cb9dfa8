/* Micro-kernels of the matrix product, and what convolution needs beside them. Included once a level. */
#undef FTR__SIMD_GEMM_FUNCTIONS

#undef FTR__SPREAD_AHEAD
#undef FTR__ROWS_AHEAD
#define FTR__ROWS_AHEAD 64  /* elements of a row that interleaving asks for before it needs them */
#define FTR__SPREAD_AHEAD 8 /* rows that packing asks for before it needs them */

/* Rows of a tile: as many as leave registers for two vectors of B and one of A. */
#if FTR__SIMD_LEVEL == 3
#define FTR__MR 14
#define FTR__ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13)
#elif FTR__SIMD_LEVEL == 1
#define FTR__MR 8
#define FTR__ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#else
#define FTR__MR 6
#define FTR__ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5)
#endif

/* The result's memory is asked for before the sums are made. */
#define FTR__TILE_ASK(i)                                                                                               \
    if (i < rows) __builtin_prefetch(tile->c[i] + tile->ask, 1);                                                       \
    if (i < rows && FTR__W == 16 && !narrow) __builtin_prefetch(tile->c[i] + tile->ask + FTR__W, 1);

/* `rows` and `narrow` are constants where these two are used, so that what is not needed falls away. */
#define FTR__TILE_ZERO(i) FTR__VF lo##i = {0}, hi##i = {0};
#define FTR__TILE_LOAD(i)                                                                                              \
    if (i < rows) {                                                                                                    \
        lo##i += whole_lo ? FTR__LOAD(tile->c[i]) : FTR__S(load_lanes)(tile->c[i], lanes_lo);                          \
        if (!narrow)                                                                                                   \
            hi##i += whole_hi ? FTR__LOAD(tile->c[i] + FTR__W) : FTR__S(load_lanes)(tile->c[i] + FTR__W, lanes_hi);    \
    }
#define FTR__TILE_BIAS(i)                                                                                              \
    if (i < rows) {                                                                                                    \
        lo##i += FTR__LOAD(tile->bias);                                                                                \
        if (!narrow) hi##i += FTR__LOAD(tile->bias + FTR__W);                                                          \
    }
#define FTR__TILE_RELU(i)                                                                                              \
    if (i < rows) {                                                                                                    \
        lo##i = FTR__SELECT(lo##i < (FTR__VF){0}, (FTR__VF){0}, lo##i);                                                \
        if (!narrow) hi##i = FTR__SELECT(hi##i < (FTR__VF){0}, (FTR__VF){0}, hi##i);                                   \
    }
#define FTR__TILE_NORM_LO(i)                                                                                           \
    if (i < rows) lo##i = FTR__FMA(lo##i - mean, scale, shift);
#define FTR__TILE_NORM_HI(i)                                                                                           \
    if (i < rows) hi##i = FTR__FMA(hi##i - mean, scale, shift);
#define FTR__TILE_RESIDUAL(i)                                                                                          \
    if (i < rows) {                                                                                                    \
        lo##i += FTR__S(load_lanes)(tile->residual[i], lanes_lo);                                                      \
        if (!narrow) hi##i += FTR__S(load_lanes)(tile->residual[i] + FTR__W, lanes_hi);                                \
    }
#define FTR__TILE_ACTIVATE(i, kind)                                                                                    \
    if (i < rows) {                                                                                                    \
        lo##i = FTR__S(norm_activate)(kind, lo##i);                                                                    \
        if (!narrow) hi##i = FTR__S(norm_activate)(kind, hi##i);                                                       \
    }
#define FTR__TILE_NORM_RELU(i) FTR__TILE_ACTIVATE(i, FTR_ACT_RELU)
#define FTR__TILE_NORM_RELU6(i) FTR__TILE_ACTIVATE(i, FTR_ACT_RELU6)
#define FTR__TILE_NORM_HARDSWISH(i) FTR__TILE_ACTIVATE(i, FTR_ACT_HARDSWISH)
#define FTR__TILE_NORM_SILU(i) FTR__TILE_ACTIVATE(i, FTR_ACT_SILU)
#define FTR__TILE_STORE(i)                                                                                             \
    if (i < rows) {                                                                                                    \
        FTR__STORE(tile->c[i], lo##i);                                                                                 \
        if (!narrow) FTR__STORE(tile->c[i] + FTR__W, hi##i);                                                           \
    }
#define FTR__TILE_STORE_LANES(i)                                                                                       \
    if (i < rows) {                                                                                                    \
        FTR__S(store_lanes)(tile->c[i], lo##i, lanes_lo);                                                              \
        if (!narrow) FTR__S(store_lanes)(tile->c[i] + FTR__W, hi##i, lanes_hi);                                        \
    }
/* What is done to sums in registers on their way to memory. */
#define FTR__TILE_END                                                                                                  \
    const ftr__norm_apply *const norm = tile->norm;                                                                    \
    const int64_t left_lo = norm ? tile->columns : FTR__W, left_hi = norm ? tile->columns - FTR__W : FTR__W;           \
    const bool whole_lo = left_lo >= FTR__W, whole_hi = left_hi >= FTR__W;                                             \
    const FTR__LANES lanes_lo = FTR__S(lanes)(left_lo), lanes_hi = FTR__S(lanes)(left_hi > 0 ? left_hi : 0);           \
    (void)lanes_hi;                                                                                                    \
    if (tile->load) {                                                                                                  \
        FTR__ROWS(FTR__TILE_LOAD)                                                                                      \
    }                                                                                                                  \
    if (tile->bias) {                                                                                                  \
        FTR__ROWS(FTR__TILE_BIAS)                                                                                      \
    }                                                                                                                  \
    if (tile->relu) {                                                                                                  \
        FTR__ROWS(FTR__TILE_RELU)                                                                                      \
    }                                                                                                                  \
    if (norm) {                                                                                                        \
        FTR__VF mean = FTR__S(load_lanes)(norm->mean, lanes_lo), scale = FTR__S(load_lanes)(norm->scale, lanes_lo);    \
        FTR__VF shift = FTR__S(load_lanes)(norm->shift, lanes_lo);                                                     \
        FTR__ROWS(FTR__TILE_NORM_LO)                                                                                   \
        if (!narrow) {                                                                                                 \
            mean = FTR__S(load_lanes)(norm->mean + FTR__W, lanes_hi);                                                  \
            scale = FTR__S(load_lanes)(norm->scale + FTR__W, lanes_hi);                                                \
            shift = FTR__S(load_lanes)(norm->shift + FTR__W, lanes_hi);                                                \
            FTR__ROWS(FTR__TILE_NORM_HI)                                                                               \
        }                                                                                                              \
        if (tile->residual[0]) {                                                                                       \
            FTR__ROWS(FTR__TILE_RESIDUAL)                                                                              \
        }                                                                                                              \
        switch (norm->activation) {                                                                                    \
        case FTR_ACT_RELU: FTR__ROWS(FTR__TILE_NORM_RELU) break;                                                       \
        case FTR_ACT_RELU6: FTR__ROWS(FTR__TILE_NORM_RELU6) break;                                                     \
        case FTR_ACT_HARDSWISH: FTR__ROWS(FTR__TILE_NORM_HARDSWISH) break;                                             \
        case FTR_ACT_SILU: FTR__ROWS(FTR__TILE_NORM_SILU) break;                                                       \
        default: break;                                                                                                \
        }                                                                                                              \
    }                                                                                                                  \
    if (whole_lo && (narrow || whole_hi)) {                                                                            \
        FTR__ROWS(FTR__TILE_STORE)                                                                                     \
    } else {                                                                                                           \
        FTR__ROWS(FTR__TILE_STORE_LANES)                                                                               \
    }

FTR__INLINE void FTR__S(gemm_packed)(bool narrow, int64_t depth, const float *a, int64_t a_stride, const float *b,
                                     int64_t b_stride, const ftr__gemm_tile *tile) {
    const int32_t rows = FTR__MR;
    const float *ahead = tile->ahead;
    const int64_t ahead_step = tile->ahead_step;
    if (tile->asks) {
        FTR__ROWS(FTR__TILE_ASK)
    }
    FTR__ROWS(FTR__TILE_ZERO)
    for (int64_t k = 0; k < depth; k++) {
        const FTR__VF b0 = FTR__LOAD(b), b1 = narrow ? (FTR__VF){0} : FTR__LOAD(b + FTR__W);
        __builtin_prefetch(ahead, 0, 2);
        ahead += ahead_step;
#define FTR__TILE_STEP(i)                                                                                              \
    {                                                                                                                  \
        const FTR__VF x = FTR__SPLAT(a[i]);                                                                            \
        lo##i = FTR__FMA(x, b0, lo##i);                                                                                \
        if (!narrow) hi##i = FTR__FMA(x, b1, hi##i);                                                                   \
    }
        FTR__ROWS(FTR__TILE_STEP)
#undef FTR__TILE_STEP
        a += a_stride;
        b += b_stride;
    }
    FTR__TILE_END
}

FTR__INLINE void FTR__S(gemm_in_place)(int32_t rows, bool narrow, int64_t segments, int64_t length,
                                       const float *const *a, const float *b, int64_t b_stride,
                                       const ftr__gemm_tile *tile) {
    const float *ahead = tile->ahead;
    const int64_t ahead_step = tile->ahead_step;
    if (tile->asks) {
        FTR__ROWS(FTR__TILE_ASK)
    }
    FTR__ROWS(FTR__TILE_ZERO)
    for (int64_t s = 0; s < segments; s++, a += FTR__MR) {
#define FTR__TILE_POINTER(i) const float *const a##i = a[i];
        FTR__ROWS(FTR__TILE_POINTER)
#undef FTR__TILE_POINTER
        for (int64_t k = 0; k < length; k++) {
            const FTR__VF b0 = FTR__LOAD(b), b1 = narrow ? (FTR__VF){0} : FTR__LOAD(b + FTR__W);
            __builtin_prefetch(ahead, 0, 2);
            ahead += ahead_step;
#define FTR__TILE_STEP(i)                                                                                              \
    if (i < rows) {                                                                                                    \
        const FTR__VF x = FTR__SPLAT(a##i[k]);                                                                         \
        lo##i = FTR__FMA(x, b0, lo##i);                                                                                \
        if (!narrow) hi##i = FTR__FMA(x, b1, hi##i);                                                                   \
    }
            FTR__ROWS(FTR__TILE_STEP)
#undef FTR__TILE_STEP
            b += b_stride;
        }
    }
    FTR__TILE_END
}

static void FTR__S(gemm_tile)(int64_t depth, const float *a, int64_t a_stride, const float *b, int64_t b_stride,
                              const ftr__gemm_tile *tile) {
    if (tile->narrow)
        FTR__S(gemm_packed)(true, depth, a, a_stride, b, b_stride, tile);
    else
        FTR__S(gemm_packed)(false, depth, a, a_stride, b, b_stride, tile);
}

static void FTR__S(gemm_tile_rows)(int64_t rows, int64_t segments, int64_t length, const float *const *a,
                                   const float *b, int64_t b_stride, const ftr__gemm_tile *tile) {
    if (rows <= 1)
        FTR__S(gemm_in_place)(1, false, segments, length, a, b, b_stride, tile);
    else if (rows <= 2)
        FTR__S(gemm_in_place)(2, false, segments, length, a, b, b_stride, tile);
    else if (rows <= 4)
        FTR__S(gemm_in_place)(4, false, segments, length, a, b, b_stride, tile);
#if FTR__MR > 8
    else if (rows <= 8)
        FTR__S(gemm_in_place)(8, false, segments, length, a, b, b_stride, tile);
#endif
    else if (tile->narrow)
        FTR__S(gemm_in_place)(FTR__MR, true, segments, length, a, b, b_stride, tile);
    else
        FTR__S(gemm_in_place)(FTR__MR, false, segments, length, a, b, b_stride, tile);
}
#undef FTR__TILE_ASK
#undef FTR__TILE_ZERO
#undef FTR__TILE_LOAD
#undef FTR__TILE_BIAS
#undef FTR__TILE_RELU
#undef FTR__TILE_NORM_LO
#undef FTR__TILE_NORM_HI
#undef FTR__TILE_RESIDUAL
#undef FTR__TILE_ACTIVATE
#undef FTR__TILE_NORM_RELU
#undef FTR__TILE_NORM_RELU6
#undef FTR__TILE_NORM_HARDSWISH
#undef FTR__TILE_NORM_SILU
#undef FTR__TILE_STORE
#undef FTR__TILE_STORE_LANES
#undef FTR__TILE_END

/* Transposes 4 x 4 blocks in 16-byte vectors, which every level has. */
typedef float FTR__S(v4) __attribute__((vector_size(16)));
#ifdef __clang__
#define FTR__SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t FTR__S(v4i) __attribute__((vector_size(16)));
#define FTR__SHUFFLE4(a, b, i, j, k, l) __builtin_shuffle(a, b, (FTR__S(v4i)){i, j, k, l})
#endif

FTR__INLINE void FTR__S(transpose4)(const float *const *from, int64_t k, float *to, int64_t stride) {
    FTR__S(v4) r[4];
    for (int32_t i = 0; i < 4; i++) __builtin_memcpy(&r[i], from[i] + k, 16);
    const FTR__S(v4) a = FTR__SHUFFLE4(r[0], r[1], 0, 4, 1, 5), b = FTR__SHUFFLE4(r[2], r[3], 0, 4, 1, 5);
    const FTR__S(v4) c = FTR__SHUFFLE4(r[0], r[1], 2, 6, 3, 7), d = FTR__SHUFFLE4(r[2], r[3], 2, 6, 3, 7);
    const FTR__S(v4) t0 = FTR__SHUFFLE4(a, b, 0, 1, 4, 5), t1 = FTR__SHUFFLE4(a, b, 2, 3, 6, 7);
    const FTR__S(v4) t2 = FTR__SHUFFLE4(c, d, 0, 1, 4, 5), t3 = FTR__SHUFFLE4(c, d, 2, 3, 6, 7);
    __builtin_memcpy(to, &t0, 16);
    __builtin_memcpy(to + stride, &t1, 16);
    __builtin_memcpy(to + 2 * stride, &t2, 16);
    __builtin_memcpy(to + 3 * stride, &t3, 16);
}
#undef FTR__SHUFFLE4

#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
/* Four elements of rows i, i + 4, i + 8 and i + 12, each in a part of its own. */
FTR__INLINE __m512 FTR__S(load_parts)(const float *const rows[16], int32_t i, int64_t k) {
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(rows[i] + k));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(rows[i + 4] + k), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(rows[i + 8] + k), 2);
    return _mm512_insertf32x4(v, _mm_loadu_ps(rows[i + 12] + k), 3);
}

/* Up to 16 rows: 4 x 4 blocks are transposed in all four parts of a vector at once. */
static void FTR__S(interleave_rows)(int64_t width, int64_t depth, const float *const *from, float *to, int64_t stride) {
    const __mmask16 some = (__mmask16)((1u << width) - 1u);
    const float *rows[16];
    int64_t k = 0;
    for (int32_t i = 0; i < 16; i++) rows[i] = from[i < width ? i : 0];
    for (; k + 4 <= depth; k += 4, to += 4 * stride) {
        for (int32_t i = 0; i < 4; i++) /* of each row a line, in four steps: machines do not follow 16 of them */
            __builtin_prefetch(rows[(k & 12) + i] + k + FTR__ROWS_AHEAD);
        const __m512 r0 = FTR__S(load_parts)(rows, 0, k), r1 = FTR__S(load_parts)(rows, 1, k);
        const __m512 r2 = FTR__S(load_parts)(rows, 2, k), r3 = FTR__S(load_parts)(rows, 3, k);
        const __m512d a = (__m512d)_mm512_unpacklo_ps(r0, r1), b = (__m512d)_mm512_unpacklo_ps(r2, r3);
        const __m512d c = (__m512d)_mm512_unpackhi_ps(r0, r1), d = (__m512d)_mm512_unpackhi_ps(r2, r3);
        _mm512_mask_storeu_ps(to, some, (__m512)_mm512_unpacklo_pd(a, b));
        _mm512_mask_storeu_ps(to + stride, some, (__m512)_mm512_unpackhi_pd(a, b));
        _mm512_mask_storeu_ps(to + 2 * stride, some, (__m512)_mm512_unpacklo_pd(c, d));
        _mm512_mask_storeu_ps(to + 3 * stride, some, (__m512)_mm512_unpackhi_pd(c, d));
    }
    for (; k < depth; k++, to += stride)
        for (int64_t i = 0; i < width; i++) to[i] = rows[i][k];
}

static void FTR__S(gemm_interleave)(int64_t width, int64_t depth, const float *const *from, float *to,
                                    int64_t to_stride) {
    for (int64_t i = 0; i < width; i += 16)
        FTR__S(interleave_rows)(width - i < 16 ? width - i : 16, depth, from + i, to + i, to_stride);
}
#else
static void FTR__S(gemm_interleave)(int64_t width, int64_t depth, const float *const *from, float *to,
                                    int64_t to_stride) {
    const int64_t whole = width < 4 ? 0 : depth - depth % 4;
    for (int64_t k = 0; k < whole; k += 4) {
        for (int64_t i = 0; i < width; i += 4) {
            const int64_t at = i + 4 <= width ? i : width - 4; /* the last block may overlap the one before */
            FTR__S(transpose4)(from + at, k, to + k * to_stride + at, to_stride);
        }
    }
    for (int64_t k = whole; k < depth; k++) {
        for (int64_t i = 0; i < width; i++) to[k * to_stride + i] = from[i][k];
    }
}
#endif

/* `width` is a constant where this is used. */
FTR__INLINE void FTR__S(spread_rows)(int64_t depth, int64_t count, int64_t width, const float *from, int64_t stride,
                                     int64_t tile, float *to) {
    for (int64_t k = 0; k < depth; k++, from += stride, to += width) {
        for (int64_t i = 0; i < count * width; i += 16) __builtin_prefetch(from + FTR__SPREAD_AHEAD * stride + i);
        for (int64_t i = 0; i < count; i++) {
            FTR__UNROLL
            for (int64_t j = 0; j < width; j += FTR__W)
                FTR__STORE_SOME(to + i * tile + j, FTR__LOAD_SOME(from + i * width + j, width - j), width - j);
        }
    }
}

static void FTR__S(gemm_spread)(int64_t depth, int64_t count, int64_t width, const float *from, int64_t stride,
                                int64_t tile, float *to) {
    if (width == FTR__MR)
        FTR__S(spread_rows)(depth, count, FTR__MR, from, stride, tile, to);
    else if (width == 2 * FTR__W)
        FTR__S(spread_rows)(depth, count, 2 * FTR__W, from, stride, tile, to);
    else
        FTR__S(spread_rows)(depth, count, width, from, stride, tile, to);
}

FTR__INLINE float FTR__S(gemm_lanes)(FTR__VF v) {
    float lane[FTR__W], sum = 0;
    FTR__STORE(lane, v);
    for (int32_t i = 0; i < FTR__W; i++) sum += lane[i];
    return sum;
}

static void FTR__S(gemm_dot4)(int64_t depth, const float *x, const float *const y[4], float out[4]) {
    const float *const y0 = y[0], *const y1 = y[1], *const y2 = y[2], *const y3 = y[3];
    const int64_t next = y3 - y0 + (y1 - y0); /* to the four after these */
    FTR__VF s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    int64_t k = 0;
    for (; k + FTR__W <= depth; k += FTR__W) {
        const FTR__VF v = FTR__LOAD(x + k);
        __builtin_prefetch(y0 + (k + next), 0, 2);
        __builtin_prefetch(y1 + (k + next), 0, 2);
        __builtin_prefetch(y2 + (k + next), 0, 2);
        __builtin_prefetch(y3 + (k + next), 0, 2);
        s0 = FTR__FMA(v, FTR__LOAD(y0 + k), s0);
        s1 = FTR__FMA(v, FTR__LOAD(y1 + k), s1);
        s2 = FTR__FMA(v, FTR__LOAD(y2 + k), s2);
        s3 = FTR__FMA(v, FTR__LOAD(y3 + k), s3);
    }
    out[0] = FTR__S(gemm_lanes)(s0);
    out[1] = FTR__S(gemm_lanes)(s1);
    out[2] = FTR__S(gemm_lanes)(s2);
    out[3] = FTR__S(gemm_lanes)(s3);
    for (; k < depth; k++) {
        for (int32_t j = 0; j < 4; j++) out[j] += x[k] * y[j][k];
    }
}

static void FTR__S(gemm_copy_tile)(int64_t rows, int64_t columns, const float *const *from, float *const *to) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j += FTR__W)
            FTR__STORE_SOME(to[i] + j, FTR__LOAD_SOME(from[i] + j, columns - j), columns - j);
}

static void FTR__S(gemm_accumulate)(int64_t count, const float *x, float *y) {
    int64_t i = 0;
    for (; i + FTR__W <= count; i += FTR__W) FTR__STORE(y + i, FTR__LOAD(y + i) + FTR__LOAD(x + i));
    for (; i < count; i++) y[i] += x[i];
}

#define FTR__SIMD_GEMM_FUNCTIONS                                                                                       \
    {                                                                                                                  \
        .mr = FTR__SIMD_GEMM_MR, .nr = 2 * FTR__W, .tile = FTR__S(gemm_tile), .tile_rows = FTR__S(gemm_tile_rows),     \
        .interleave = FTR__S(gemm_interleave), .dot4 = FTR__S(gemm_dot4), .copy_tile = FTR__S(gemm_copy_tile),         \
        .accumulate = FTR__S(gemm_accumulate), .spread = FTR__S(gemm_spread),                                          \
    }
#undef FTR__SIMD_GEMM_MR
#if FTR__MR == 14
#define FTR__SIMD_GEMM_MR 14
#elif FTR__MR == 8
#define FTR__SIMD_GEMM_MR 8
#else
#define FTR__SIMD_GEMM_MR 6
#endif
