/* What differs between operating systems and CPUs. */
#ifndef FTR_CORE_PLATFORM_H
#define FTR_CORE_PLATFORM_H

#include "core/core.h"

typedef enum ftr__simd_level {
    FTR__SIMD_PORTABLE = 0,
    FTR__SIMD_NEON,
    FTR__SIMD_AVX2,
    FTR__SIMD_AVX512
} ftr__simd_level;

/* The best level that this CPU and operating system run. */
FTR_LIB ftr__simd_level ftr__simd_detect(void);

/* Whether the CPU multiplies bf16 (AVX512_BF16), besides having AVX-512; and whether that is faster than to widen the numbers
 * and multiply f32. AMD's (Zen 4 and later) do as many of these instructions in a cycle as multiply-adds of f32. Intel's do half
 * of them at best (Cooper Lake), a quarter since Sapphire Rapids, which has other instructions for it. */
FTR_LIB bool ftr__has_bf16(void);
FTR_LIB bool ftr__has_fast_bf16(void);

/* A variable of the environment; "" if it is not set. */
FTR_LIB const char *ftr__environment(const char *name);

/* Asks the system to put memory, of whole large pages, on such pages; it need not. */
FTR_LIB void ftr__use_large_pages(void *memory, size_t size);

/* ftr__simd_detect(), lowered by FASTTRAIN_SIMD. Errors: an unknown word, a level that is not there. */
FTR_LIB ftr_status ftr__simd_choose(ftr_context *context, ftr__simd_level *level);

FTR_LIB const char *ftr__simd_level_name(ftr__simd_level level);

FTR_LIB bool ftr__stderr_is_terminal(void);

/* Bytes of memory that the process can still take without swapping: what the system has available, or less if a control
 * group limits it. 0: unknown. */
FTR_LIB size_t ftr__free_memory(void);

#endif
