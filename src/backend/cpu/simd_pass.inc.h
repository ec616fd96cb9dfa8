/* One instantiation of all SIMD functions, for the instruction set FTR__SIMD_LEVEL (0 portable, 1 NEON, 2 AVX2 with FMA,
 * 3 AVX-512). Names end in the level: FTR__S(axpy) is ftr__axpy_avx2. No include guard: it is included once a level. */
#include "backend/cpu/simd_begin.inc.h"
#include "backend/cpu/simd_math.inc.h"
#include "backend/cpu/simd_gemm.inc.h"
#include "backend/cpu/simd_attention.inc.h"
#include "backend/cpu/simd_depthwise.inc.h"
#include "backend/cpu/simd_update.inc.h"
#include "backend/cpu/simd_winograd.inc.h"

static const ftr__simd FTR__S(simd) = {
    .gemm = FTR__SIMD_GEMM_FUNCTIONS,
    .depthwise = FTR__SIMD_DEPTHWISE_FUNCTIONS,
    .winograd = FTR__SIMD_WINOGRAD_FUNCTIONS,
    .math = FTR__SIMD_MATH_FUNCTIONS,
    .attention = FTR__SIMD_ATTENTION_FUNCTIONS,
    .update = FTR__SIMD_UPDATE_FUNCTIONS,
};

#include "backend/cpu/simd_end.inc.h"
