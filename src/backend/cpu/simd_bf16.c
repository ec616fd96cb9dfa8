#include "backend/cpu/simd_bf16.h"

#if defined(__x86_64__) && !defined(FASTTRAIN_EMULATE_AVX512)
#include <immintrin.h>
#include <string.h>

#define FTR__BF16_TARGET __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma,f16c")))
#define FTR__BF16_INLINE static inline __attribute__((always_inline)) FTR__BF16_TARGET
#define FTR__BF16_MR 14
#define FTR__BF16_ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13)

/* Sixteen pairs, and one for all of them. */
FTR__BF16_INLINE __m512bh ftr__bf16_load(const float *p) { return (__m512bh)_mm512_loadu_si512((const void *)p); }

FTR__BF16_INLINE __m512bh ftr__bf16_splat(const float *p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}

FTR__BF16_INLINE void ftr__bf16_store(const ftr__gemm_tile *tile, int32_t row, int32_t part, __m512 sum) {
    float *c = tile->c[row] + part * 16;
    if (tile->load) sum = _mm512_add_ps(sum, _mm512_loadu_ps(c));
    if (tile->bias) sum = _mm512_add_ps(sum, _mm512_loadu_ps(tile->bias + part * 16));
    if (tile->relu) { /* NaN stays */
        const __mmask16 negative = _mm512_cmp_ps_mask(sum, _mm512_setzero_ps(), _CMP_LT_OQ);
        sum = _mm512_mask_mov_ps(sum, negative, _mm512_setzero_ps());
    }
    _mm512_storeu_ps(c, sum);
}

/* As in simd_gemm.inc.h: `rows` and `narrow` are constants where these are used. */
#define FTR__BF16_ZERO(i) __m512 lo##i = _mm512_setzero_ps(), hi##i = _mm512_setzero_ps();
#define FTR__BF16_STORE(i)                                                                                             \
    if (i < rows) {                                                                                                    \
        ftr__bf16_store(tile, i, 0, lo##i);                                                                            \
        if (!narrow) ftr__bf16_store(tile, i, 1, hi##i);                                                               \
    }

FTR__BF16_INLINE void ftr__bf16_packed(bool narrow, int64_t depth, const float *a, int64_t a_stride, const float *b,
                                       int64_t b_stride, const ftr__gemm_tile *tile) {
    const int32_t rows = FTR__BF16_MR;
    const float *ahead = tile->ahead;
    FTR__BF16_ROWS(FTR__BF16_ZERO)
    for (int64_t k = 0; k < depth; k++) {
        const __m512bh b0 = ftr__bf16_load(b), b1 = narrow ? b0 : ftr__bf16_load(b + 16);
        __builtin_prefetch(ahead, 0, 2);
        ahead += tile->ahead_step;
#define FTR__BF16_STEP(i)                                                                                              \
    {                                                                                                                  \
        const __m512bh x = ftr__bf16_splat(a + i);                                                                     \
        lo##i = _mm512_dpbf16_ps(lo##i, x, b0);                                                                        \
        if (!narrow) hi##i = _mm512_dpbf16_ps(hi##i, x, b1);                                                           \
    }
        FTR__BF16_ROWS(FTR__BF16_STEP)
#undef FTR__BF16_STEP
        a += a_stride;
        b += b_stride;
    }
    FTR__BF16_ROWS(FTR__BF16_STORE)
}

FTR__BF16_INLINE void ftr__bf16_in_place(int32_t rows, bool narrow, int64_t segments, int64_t length,
                                         const float *const *a, const float *b, int64_t b_stride,
                                         const ftr__gemm_tile *tile) {
    const float *ahead = tile->ahead;
    FTR__BF16_ROWS(FTR__BF16_ZERO)
    for (int64_t s = 0; s < segments; s++, a += FTR__BF16_MR) {
#define FTR__BF16_POINTER(i) const float *const a##i = a[i];
        FTR__BF16_ROWS(FTR__BF16_POINTER)
#undef FTR__BF16_POINTER
        for (int64_t k = 0; k < length; k++) {
            const __m512bh b0 = ftr__bf16_load(b), b1 = narrow ? b0 : ftr__bf16_load(b + 16);
            __builtin_prefetch(ahead, 0, 2);
            ahead += tile->ahead_step;
#define FTR__BF16_STEP(i)                                                                                              \
    if (i < rows) {                                                                                                    \
        const __m512bh x = ftr__bf16_splat(a##i + k);                                                                  \
        lo##i = _mm512_dpbf16_ps(lo##i, x, b0);                                                                        \
        if (!narrow) hi##i = _mm512_dpbf16_ps(hi##i, x, b1);                                                           \
    }
            FTR__BF16_ROWS(FTR__BF16_STEP)
#undef FTR__BF16_STEP
            b += b_stride;
        }
    }
    FTR__BF16_ROWS(FTR__BF16_STORE)
}

FTR__BF16_TARGET static void ftr__bf16_tile(int64_t depth, const float *a, int64_t a_stride, const float *b,
                                            int64_t b_stride, const ftr__gemm_tile *tile) {
    if (tile->narrow)
        ftr__bf16_packed(true, depth, a, a_stride, b, b_stride, tile);
    else
        ftr__bf16_packed(false, depth, a, a_stride, b, b_stride, tile);
}

FTR__BF16_TARGET static void ftr__bf16_tile_rows(int64_t rows, int64_t segments, int64_t length, const float *const *a,
                                                 const float *b, int64_t b_stride, const ftr__gemm_tile *tile) {
    if (rows <= 1)
        ftr__bf16_in_place(1, false, segments, length, a, b, b_stride, tile);
    else if (rows <= 4)
        ftr__bf16_in_place(4, false, segments, length, a, b, b_stride, tile);
    else if (rows <= 8)
        ftr__bf16_in_place(8, false, segments, length, a, b, b_stride, tile);
    else if (tile->narrow)
        ftr__bf16_in_place(FTR__BF16_MR, true, segments, length, a, b, b_stride, tile);
    else
        ftr__bf16_in_place(FTR__BF16_MR, false, segments, length, a, b, b_stride, tile);
}
#undef FTR__BF16_ZERO
#undef FTR__BF16_STORE

FTR__BF16_INLINE __mmask16 ftr__bf16_mask(int64_t left) {
    return left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1u);
}

FTR__BF16_TARGET static void ftr__bf16_zip(int64_t count, const uint16_t *x, const uint16_t *y, float *to) {
    for (int64_t i = 0; i < count; i += 16) {
        const __mmask16 mask = ftr__bf16_mask(count - i);
        __m512i pair = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, x + i));
        if (y) {
            const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, y + i));
            pair = _mm512_or_si512(pair, _mm512_slli_epi32(high, 16));
        }
        _mm512_mask_storeu_epi32(to + i, mask, pair);
    }
}

FTR__BF16_TARGET static void ftr__bf16_narrow(int64_t rows, int64_t count, float *const *from, uint16_t *const *to) {
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t i = 0; i < count; i += 16) {
            const __mmask16 mask = ftr__bf16_mask(count - i);
            const __m256bh half = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, from[r] + i));
            _mm256_mask_storeu_epi16(to[r] + i, mask, (__m256i)half);
        }
    }
}

static const ftr__simd_bf16 ftr__simd_bf16_functions = {
    .tile = ftr__bf16_tile, .tile_rows = ftr__bf16_tile_rows, .zip = ftr__bf16_zip, .narrow = ftr__bf16_narrow};

const ftr__simd_bf16 *ftr__simd_bf16_table(void) { return &ftr__simd_bf16_functions; }
#else
const ftr__simd_bf16 *ftr__simd_bf16_table(void) { return NULL; }
#endif
