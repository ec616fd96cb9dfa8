/* What the files of cases share: inputs with drawn data, outputs, and the table that cases are added to. A file
 * cases_<family>.c has its build functions and one `void add_<family>(table *t)`, which cases.c calls. */
#ifndef FTR_TESTS_OPS_CASE_TOOLS_H
#define FTR_TESTS_OPS_CASE_TOOLS_H

#include "cases.h"

typedef enum fill {
    FILL_UNIFORM,  /* low to high */
    FILL_AWAY,     /* low to high with a random sign: away from the kink at 0 */
    FILL_DISTINCT, /* all different, 1/8 apart, shuffled */
    FILL_INTEGER,  /* low to high */
    FILL_SPECIAL   /* NaN, infinities, zeros, large and small numbers, in turn */
} fill;

void draw(ftr_test_rng *rng, fill kind, double low, double high, double *values, int64_t count);

/* Gives an input of the graph drawn values. */
op_input *record(op_build *b, ftr_tensor tensor, fill kind, double low, double high);

/* A new input "x<number>" with drawn values. */
op_input *declare(op_build *b, ftr_dtype dtype, ftr_shape shape, fill kind, double low, double high);

/* A floating-point input whose gradient is checked; uniform_input() has values from -1 to 1. */
ftr_tensor real_input(op_build *b, ftr_shape shape, fill kind, double low, double high);
ftr_tensor uniform_input(op_build *b, ftr_shape shape);

/* A floating-point input without a gradient. */
ftr_tensor fixed_input(op_build *b, ftr_shape shape, fill kind, double low, double high);

/* The type of what goes with the case's real type but is not stored as f16 or bf16: parameters, statistics, the loss. */
ftr_dtype wide_type(const op_build *b);

/* A tensor of that type as one of the case's real type. */
ftr_tensor as_real(const op_build *b, ftr_tensor tensor);

/* real_input() of the wide type. */
ftr_tensor wide_input(op_build *b, ftr_shape shape, fill kind, double low, double high);

ftr_tensor integer_input(op_build *b, ftr_dtype dtype, ftr_shape shape, int64_t low, int64_t high);

/* The batch mask; row 0 and every row but those of `masked` bits count. */
void mask_input(op_build *b, int64_t batch, uint32_t masked);

/* Makes a tensor one of the case's results. */
void output(op_build *b, ftr_tensor tensor);

bool is_real(ftr_dtype dtype);
extern const ftr_dtype all_types[5]; /* the first, FTR_DTYPE_NONE, stands for the case's real type */
ftr_dtype type_of(const op_build *b, int32_t index);
const char *type_name(int32_t index);
ftr_shape random_shape(op_build *b, int32_t rank, int64_t largest);

typedef struct table {
    op_case *cases;
    int32_t count, capacity;
} table;

/* Adds a case; `format` and what follows make its name. */
op_case *add(table *t, void (*build)(op_build *), int flags, const char *format, ...);

/* The families in files of their own. */
void add_random(table *t);
void add_einsum(table *t);
void add_edges(table *t);
void add_half(table *t);

/* Sets the parameters of a case. */
#define WITH(added, ...) memcpy((added)->p, (int32_t[8]){__VA_ARGS__}, sizeof(int32_t[8]))
#define LENGTH(array) ((int32_t)FTR_TEST_LENGTH(array))

/* cases_attention.c */
void add_attention(table *t);
void add_updates(table *t); /* cases_updates.c */

/* cases_steps.c */
void add_steps(table *t);

/* cases_depthwise.c */
void add_depthwise(table *t);

/* cases_image.c */
void add_image(table *t);

/* cases_mix.c */
void add_mix(table *t);

#endif
