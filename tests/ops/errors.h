/* Malformed ops and what they must be answered with. */
#ifndef FTR_TESTS_OPS_ERRORS_H
#define FTR_TESTS_OPS_ERRORS_H

#include "ftr_test.h"

/* A builder that must fail, with its status and exact sentence. */
typedef struct op_error {
    const char *name;
    ftr_tensor (*build)(ftr_graph *g);
    ftr_status status;
    const char *message;
} op_error;

/* The rows of one file; errors.c lists the files. */
typedef struct op_error_family {
    const op_error *rows;
    int32_t count;
} op_error_family;

extern const op_error_family rest_errors;

/* Whether a builder's sentence begins with this op. */
bool op_error_names(const char *op);
extern const op_error_family attention_errors; /* errors_attention.c */
extern const op_error_family image_errors;     /* errors_image.c */
extern const op_error_family mix_errors;       /* errors_mix.c */

int32_t op_error_count(void);
const char *op_error_name(int32_t index);
const void *op_error_state(int32_t index);

/* A test whose state is op_error_state(): builds, compiles, and compares status and sentence. */
void op_error_test(void **state);

#endif
