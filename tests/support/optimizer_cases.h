/* Optimizers, parameters and gradients that tests/goldens/make_optimizers.py has in Python too. */
#ifndef FTR_TESTS_SUPPORT_OPTIMIZER_CASES_H
#define FTR_TESTS_SUPPORT_OPTIMIZER_CASES_H

#include "fasttrain.h"

enum { OPTIMIZER_CASES = 56, OPTIMIZER_PARAMETERS = 6 };

typedef struct optimizer_case {
    const char *name;
    ftr_optimizer (*make)(double lr);
    double lr;
    void (*adjust)(ftr_optimizer *o);
} optimizer_case;

extern const optimizer_case optimizer_cases[OPTIMIZER_CASES];

typedef struct optimizer_parameter {
    const char *name;
    ftr_shape shape;
} optimizer_parameter;

extern const optimizer_parameter optimizer_parameters[OPTIMIZER_PARAMETERS];

/* Element i of parameter number `tensor`'s gradient at a step, before it gets its size; step 0: twice its first value. */
float optimizer_number(int tensor, int step, int64_t i);

/* Its description; groups are valid until the next call. */
ftr_optimizer optimizer_of_case(const optimizer_case *c);

/* Whether momenta and moments are bf16. */
bool optimizer_case_is_bf16(const optimizer_case *c);

#endif
