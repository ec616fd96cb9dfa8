/* A backend that runs each kernel on the CPU and, on copies of its inputs, on the oracle, and compares the two: results of f16
 * and bf16 may differ by one rounding of the type, others as in compare() of test_ops.c. So a case's every node is checked
 * with the very inputs that it got, which no comparison of whole graphs can do where results are rounded coarsely. */
#ifndef FTR_TESTS_OPS_SHADOW_H
#define FTR_TESTS_OPS_SHADOW_H

#include "ftr_test.h"

/* A difference makes ftr_step() fail with a sentence. `each`: tolerance relative to each element instead of the tensor's
 * largest. */
const ftr_backend *op_shadow_backend(bool each);

/* Kernels with an f16 or bf16 tensor that were compared since the start. */
int64_t op_shadow_count(void);

#endif
