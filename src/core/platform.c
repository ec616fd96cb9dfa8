#include "core/platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

double ftr_time_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

bool ftr__stderr_is_terminal(void) { return isatty(fileno(stderr)) == 1; }

const char *ftr__simd_level_name(ftr__simd_level level) {
    switch (level) {
    case FTR__SIMD_PORTABLE: return "portable";
    case FTR__SIMD_NEON: return "neon";
    case FTR__SIMD_AVX2: return "avx2";
    case FTR__SIMD_AVX512: return "avx512";
    }
    return "unknown";
}

#if defined(__x86_64__)
/* Conversions between f16 and f32; every CPU with AVX2 has them, a virtual machine may hide them. */
static bool ftr__has_f16c(void) {
    unsigned a, b, c, d;
    __cpuid(1, a, b, c, d);
    return c >> 29 & 1u;
}
#endif

/* With FASTTRAIN_EMULATE_AVX512 the 16-wide code is built from AVX2 instructions, so AVX2 is all that it needs. */
ftr__simd_level ftr__simd_detect(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && ftr__has_f16c();
#ifdef FASTTRAIN_EMULATE_AVX512
    return avx2 ? FTR__SIMD_AVX512 : FTR__SIMD_PORTABLE;
#else
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    return avx2 && avx512 ? FTR__SIMD_AVX512 : avx2 ? FTR__SIMD_AVX2 : FTR__SIMD_PORTABLE;
#endif
#elif defined(__aarch64__)
    return FTR__SIMD_NEON;
#else
    return FTR__SIMD_PORTABLE;
#endif
}

const char *ftr__environment(const char *name) {
    const char *word = getenv(name);
    return word ? word : "";
}

/* AVX-512 includes AVX2, and everything includes portable C. */
static bool ftr__simd_includes(ftr__simd_level best, ftr__simd_level level) {
    return level == best || level == FTR__SIMD_PORTABLE || (best == FTR__SIMD_AVX512 && level == FTR__SIMD_AVX2);
}

ftr_status ftr__simd_choose(ftr_context *context, ftr__simd_level *level) {
    const ftr__simd_level best = ftr__simd_detect();
    *level = best;
    const char *word = ftr__environment("FASTTRAIN_SIMD");
    if (!*word) return FTR_OK;
    for (int i = FTR__SIMD_PORTABLE; i <= FTR__SIMD_AVX512; i++) {
        const ftr__simd_level candidate = (ftr__simd_level)i;
        if (strcmp(word, ftr__simd_level_name(candidate)) != 0) continue;
        if (!ftr__simd_includes(best, candidate))
            return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "FASTTRAIN_SIMD is '%s', but this CPU has '%s'", word,
                              ftr__simd_level_name(best));
        *level = candidate;
        return FTR_OK;
    }
    return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                      "FASTTRAIN_SIMD is '%s', expected portable, neon, avx2 or avx512", word);
}
