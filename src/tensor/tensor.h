/* What the implementation asks of element types beside the public functions. */
#ifndef FTR_TENSOR_TENSOR_H
#define FTR_TENSOR_TENSOR_H

#include "core/core.h"

/* Types that can have a gradient. */
FTR_LIB bool ftr__is_float(ftr_dtype dtype);

/* f16 and bf16: types of storage; what is computed with them is computed in f32. */
FTR_LIB bool ftr__is_half(ftr_dtype dtype);

/* f32 and f64: types of parameters, states and losses. */
FTR_LIB bool ftr__is_wide(ftr_dtype dtype);

/* f32 for f16 and bf16, otherwise the type itself: what belongs to a value but is not stored as coarsely. */
FTR_LIB ftr_dtype ftr__wide_type(ftr_dtype dtype);

/* The f16 or bf16 nearest to a number, ties to even; beyond the largest infinity; NaN stays NaN, quiet, with its sign and
 * the upper bits of its payload. */
FTR_LIB uint16_t ftr__half_bits(ftr_dtype dtype, double value);

/* The number that an f16 or bf16 stands for. */
FTR_LIB float ftr__half_value(ftr_dtype dtype, uint16_t bits);

/* Element `index` of data of any type as a double; i64 beyond 2^53 is rounded. The data need not be aligned. */
FTR_LIB double ftr__element(ftr_dtype dtype, const void *data, int64_t index);

/* Stores a number that the type can hold; floating types round it once. */
FTR_LIB void ftr__set_element(ftr_dtype dtype, void *data, int64_t index, double value);

#endif
