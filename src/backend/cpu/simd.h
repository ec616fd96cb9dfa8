/* SIMD functions, one table an instruction set. They are written once, in simd_*.inc.h, with vector extensions, and
 * instantiated by simd.c. */
#ifndef FTR_BACKEND_CPU_SIMD_H
#define FTR_BACKEND_CPU_SIMD_H

#include "backend/cpu/simd_attention.h"
#include "backend/cpu/simd_depthwise.h"
#include "backend/cpu/simd_gemm.h"
#include "backend/cpu/simd_math.h"
#include "backend/cpu/simd_update.h"
#include "backend/cpu/simd_winograd.h"
#include "core/platform.h"

typedef struct ftr__simd {
    ftr__simd_gemm gemm; /* matrix product and convolution */
    ftr__simd_attention attention;
    ftr__simd_depthwise depthwise;
    ftr__simd_winograd winograd;
    ftr__simd_update update; /* steps of optimizers */
    ftr__simd_math math;     /* everything else */
} ftr__simd;

/* The table of a level that this build contains; NULL for one that it does not. */
FTR_LIB const ftr__simd *ftr__simd_table(ftr__simd_level level);

#endif
