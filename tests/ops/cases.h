/* The table of op cases. A case builds a small graph; the modes in test_ops.c run it: against the oracle, against
 * central differences, and for equal bits on any number of threads. A case draws its shapes and data from its name
 * alone, so every build of it is the same, in f32 as in f64. */
#ifndef FTR_TESTS_OPS_CASES_H
#define FTR_TESTS_OPS_CASES_H

#include "ftr_test.h"

#define OP_MAX_INPUTS 24
#define OP_MAX_OUTPUTS 4

struct op_case;

/* Data that a case feeds. The values are exact in f32. */
typedef struct op_input {
    ftr_tensor tensor;
    bool wanted; /* its gradient is checked */
    int64_t count;
    double *values;
} op_input;

/* A case being built. */
typedef struct op_build {
    const struct op_case *of;
    ftr_graph *graph;
    ftr_dtype real; /* FTR_F32, FTR_F64, FTR_F16 or FTR_BF16: the type of floating-point inputs */
    ftr_test_rng rng;
    op_input inputs[OP_MAX_INPUTS];
    int32_t input_count;
    ftr_tensor outputs[OP_MAX_OUTPUTS];
    int32_t output_count;
    ftr_tensor loss;      /* null: no floating-point output */
    int32_t first_weight; /* inputs from here on are the weights of the loss, one an output that is in it */
    ftr_optimizer optimizer;
    bool optimize;
    ftr_scaler_desc scaler; /* of a cookie 0: none is given */
    int64_t accumulate;
    ftr_average_desc average; /* of a cookie 0: none is given */
    bool swap_average;        /* after the last step */
} op_build;

/* Switches of a case. */
enum {
    OP_EVAL = 1,          /* compile for evaluation */
    OP_LARGE = 2,         /* large enough to be cut into tasks: not for central differences */
    OP_NO_DIFFERENCE = 4, /* at a point where the gradient is a convention (ties, kinks): not for central differences */
    OP_NO_LOSS = 8,       /* forward only: values that are not finite */
    OP_EACH = 16,         /* tolerance relative to each element instead of the tensor's largest */
    OP_FRESH = 32,        /* the result depends on the plan's step */
    OP_STEPS = 64         /* three steps instead of one */
};

typedef struct op_case {
    char name[96];
    void (*build)(op_build *b);
    int32_t p[8]; /* parameters: their meaning is the build function's */
    int flags;
} op_case;

/* All cases. The caller frees the array. */
op_case *op_cases(int32_t *count);

/* Builds a case: graph, inputs with their data, outputs, loss = sum of outputs times fixed weights. The test fails if a
 * builder does. `b` is freed with op_build_free(). */
void op_build_case(const op_case *of, ftr_context *context, ftr_dtype real, op_build *b);
void op_build_free(op_build *b);

/* Feeds input i, with values that may differ from those drawn. */
ftr_status op_feed(ftr_plan *plan, const op_build *b, int32_t i, const double *values);

/* Writes data of any type into doubles and back. */
void op_to_double(ftr_dtype dtype, const void *data, int64_t count, double *values);
void op_from_double(ftr_dtype dtype, const double *values, int64_t count, void *data);

#endif
