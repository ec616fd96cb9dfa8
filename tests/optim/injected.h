/* A backend that hands optimizers a grad_scale and a found_inf of the test's choice: everything else is the backend
 * that it was made from. */
#ifndef FTR_TESTS_OPTIM_INJECTED_H
#define FTR_TESTS_OPTIM_INJECTED_H

#include "ftr_test.h"

typedef struct injected {
    float grad_scale, found_inf;
} injected;

/* What the updates of the steps to come get, whichever backend runs them. */
extern injected inject;

/* The backend around `real`: the CPU's or the oracle's. */
const ftr_backend *injected_backend(const ftr_backend *real);

#endif
