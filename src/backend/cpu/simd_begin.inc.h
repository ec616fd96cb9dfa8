/* Opens an instantiation: target, vector types and the few operations that the vector extensions lack.
 *
 *   FTR__W        floats in a vector
 *   FTR__VF       vector of float, FTR__VI of int32_t, FTR__VU of uint32_t
 *   FTR__FMA      a * b + c
 *   FTR__S(x)     the level's name of x
 *
 * Arithmetic and comparison operators work on vectors directly; a comparison gives FTR__VI, -1 where true. */
#if FTR__SIMD_LEVEL == 0
#define FTR__S(name) ftr__##name##_portable
#define FTR__W 4
#elif FTR__SIMD_LEVEL == 1
#define FTR__S(name) ftr__##name##_neon
#define FTR__W 4
#elif FTR__SIMD_LEVEL == 2
#define FTR__S(name) ftr__##name##_avx2
#define FTR__W 8
#define FTR__TARGET "avx2,fma,f16c"
#elif FTR__SIMD_LEVEL == 3
#define FTR__S(name) ftr__##name##_avx512
#define FTR__W 16
/* FASTTRAIN_EMULATE_AVX512 runs the 16-wide code on an AVX2 machine: for tests of its logic. */
#ifdef FASTTRAIN_EMULATE_AVX512
#define FTR__TARGET "avx2,fma,f16c"
#else
#define FTR__TARGET "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c"
#endif
#endif

#ifdef FTR__TARGET
#if defined(__clang__)
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c"))),              \
                             apply_to = function)
#else
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#endif
#else
#pragma GCC push_options
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#endif
#endif

typedef float FTR__S(vf) __attribute__((vector_size(4 * FTR__W)));
typedef int32_t FTR__S(vi) __attribute__((vector_size(4 * FTR__W)));
typedef uint32_t FTR__S(vu) __attribute__((vector_size(4 * FTR__W)));
#define FTR__VF FTR__S(vf)
#define FTR__VI FTR__S(vi)
#define FTR__VU FTR__S(vu)

#define FTR__INLINE static inline __attribute__((always_inline))

/* Unaligned. */
FTR__INLINE FTR__VF FTR__S(load)(const float *p) {
    FTR__VF v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

FTR__INLINE void FTR__S(store)(float *p, FTR__VF v) { __builtin_memcpy(p, &v, sizeof v); }

FTR__INLINE FTR__VF FTR__S(splat)(float x) { return x - (FTR__VF){0}; }

FTR__INLINE FTR__VF FTR__S(fma)(FTR__VF a, FTR__VF b, FTR__VF c) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (FTR__VF)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif FTR__SIMD_LEVEL == 2
    return (FTR__VF)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif FTR__SIMD_LEVEL == 1
    return (FTR__VF)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

/* mask ? a : b, the mask being a comparison's result. */
FTR__INLINE FTR__VF FTR__S(select)(FTR__VI mask, FTR__VF a, FTR__VF b) {
    return (FTR__VF)((mask & (FTR__VI)a) | (~mask & (FTR__VI)b));
}

#define FTR__LOAD FTR__S(load)
#define FTR__STORE FTR__S(store)
#define FTR__SPLAT FTR__S(splat)
#define FTR__FMA FTR__S(fma)
#define FTR__SELECT FTR__S(select)

/* Which lanes of a vector are there. */
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
#define FTR__LANES __mmask16
#elif FTR__SIMD_LEVEL == 2
#define FTR__LANES __m256i
#else
#define FTR__LANES int64_t
#endif

/* The first n lanes, all of them if there are more. */
FTR__INLINE FTR__LANES FTR__S(lanes)(int64_t n) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (__mmask16)(n >= FTR__W ? 0xffffu : (1u << n) - 1u);
#elif FTR__SIMD_LEVEL == 2
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n >= FTR__W ? FTR__W : (int32_t)n),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
#else
    return n >= FTR__W ? FTR__W : n;
#endif
}

/* 0 in the lanes that are not there. */
FTR__INLINE FTR__VF FTR__S(load_lanes)(const float *p, FTR__LANES lanes) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (FTR__VF)_mm512_maskz_loadu_ps(lanes, p);
#elif FTR__SIMD_LEVEL == 2
    return (FTR__VF)_mm256_maskload_ps(p, lanes);
#else
    float all[FTR__W] = {0};
    if (lanes >= FTR__W) return FTR__LOAD(p);
    for (int64_t i = 0; i < lanes; i++) all[i] = p[i];
    return FTR__LOAD(all);
#endif
}

FTR__INLINE void FTR__S(store_lanes)(float *p, FTR__VF v, FTR__LANES lanes) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    _mm512_mask_storeu_ps(p, lanes, (__m512)v);
#elif FTR__SIMD_LEVEL == 2
    _mm256_maskstore_ps(p, lanes, (__m256)v);
#else
    float all[FTR__W];
    FTR__STORE(all, v);
    if (lanes >= FTR__W) FTR__STORE(p, v);
    for (int64_t i = 0; i < lanes && lanes < FTR__W; i++) p[i] = all[i];
#endif
}

/* The first n elements of a vector, and a vector, or its first n elements if n is less than a vector. */
FTR__INLINE FTR__VF FTR__S(load_part)(const float *p, int64_t n) { return FTR__S(load_lanes)(p, FTR__S(lanes)(n)); }

FTR__INLINE void FTR__S(store_part)(float *p, FTR__VF v, int64_t n) { FTR__S(store_lanes)(p, v, FTR__S(lanes)(n)); }

FTR__INLINE FTR__VF FTR__S(load_some)(const float *p, int64_t n) {
    return n >= FTR__W ? FTR__LOAD(p) : FTR__S(load_part)(p, n);
}

FTR__INLINE void FTR__S(store_some)(float *p, FTR__VF v, int64_t n) {
    if (n >= FTR__W)
        FTR__STORE(p, v);
    else
        FTR__S(store_part)(p, v, n);
}

#define FTR__LOAD_SOME FTR__S(load_some)
#define FTR__STORE_SOME FTR__S(store_some)
