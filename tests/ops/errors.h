/* Malformed ops and what they must be answered with. */
#ifndef FTR_TESTS_OPS_ERRORS_H
#define FTR_TESTS_OPS_ERRORS_H

#include "ftr_test.h"

int32_t op_error_count(void);
const char *op_error_name(int32_t index);
const void *op_error_state(int32_t index);

/* A test whose state is op_error_state(): builds, compiles, and compares status and sentence. */
void op_error_test(void **state);

#endif
