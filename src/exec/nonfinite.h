/* The search for infinities and NaNs that ftr_compile_desc.debug_nonfinite asks for. */
#ifndef FTR_EXEC_NONFINITE_H
#define FTR_EXEC_NONFINITE_H

#include "passes/plan.h"

/* Looks at the plan's inputs, parameters and buffers. FTR_ERROR_NONFINITE names the first element that is not finite. */
FTR_LIB ftr_status ftr__check_sources(const ftr_plan *plan);

/* Looks at the results of a node that has just run, as far as something uses them. */
FTR_LIB ftr_status ftr__check_results(const ftr_plan *plan, const ftr__node *node);

#endif
