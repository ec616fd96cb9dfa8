#include "backend/cpu/simd.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define FTR__SIMD_LEVEL 0
#include "backend/cpu/simd_pass.inc.h"
#undef FTR__SIMD_LEVEL

#if defined(__aarch64__)
#define FTR__SIMD_LEVEL 1
#include "backend/cpu/simd_pass.inc.h"
#undef FTR__SIMD_LEVEL
#endif

#if defined(__x86_64__)
#define FTR__SIMD_LEVEL 2
#include "backend/cpu/simd_pass.inc.h"
#undef FTR__SIMD_LEVEL
#define FTR__SIMD_LEVEL 3
#include "backend/cpu/simd_pass.inc.h"
#undef FTR__SIMD_LEVEL
#endif

const ftr__simd *ftr__simd_table(ftr__simd_level level) {
    switch (level) {
    case FTR__SIMD_PORTABLE: return &ftr__simd_portable;
#if defined(__aarch64__)
    case FTR__SIMD_NEON: return &ftr__simd_neon;
#endif
#if defined(__x86_64__)
    case FTR__SIMD_AVX2: return &ftr__simd_avx2;
    case FTR__SIMD_AVX512: return &ftr__simd_avx512;
#endif
    default: return NULL;
    }
}
