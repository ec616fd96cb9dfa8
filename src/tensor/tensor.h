/* What the implementation asks of element types beside the public functions. */
#ifndef FTR_TENSOR_TENSOR_H
#define FTR_TENSOR_TENSOR_H

#include "core/core.h"

/* Types that can have a gradient. */
FTR_LIB bool ftr__is_float(ftr_dtype dtype);

#endif
