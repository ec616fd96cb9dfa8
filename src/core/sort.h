/* Sorting without memory of its own: the C library's qsort() may allocate behind the hook and fixes no order. */
#ifndef FTR_CORE_SORT_H
#define FTR_CORE_SORT_H

#include "core/core.h"

/* Negative, 0 or positive, as strcmp(). */
typedef int (*ftr__compare_fn)(const void *a, const void *b);

/* Sorts pointers in place, ascending; n log n steps in the worst case. Not stable: the order must be a total one. */
FTR_LIB void ftr__sort(const void **items, int64_t count, ftr__compare_fn compare);

#endif
