#include "errors.h"

static ftr_tensor input(ftr_graph *g, const char *name, ftr_dtype dtype, ftr_shape shape) {
    return ftr_input(g, name, dtype, shape);
}

#define A(...) input(g, "a", FTR_F32, FTR_SHAPE(__VA_ARGS__))
#define A_AS(dtype, ...) input(g, "a", dtype, FTR_SHAPE(__VA_ARGS__))

/* X(name, status, sentence, what is built) */
/* clang-format off */
#define OP_ERRORS(X) \
    X(stochastic_depth_p, FTR_ERROR_INVALID_ARGUMENT, "stochastic_depth 'stochastic_depth_1': p 1.5, expected 0 to 1", \
      ftr_stochastic_depth(A(3), 1.5)) \
    X(stochastic_depth_nan, FTR_ERROR_INVALID_ARGUMENT, "stochastic_depth 'stochastic_depth_1': p nan, expected 0 to 1", \
      ftr_stochastic_depth(A(3), (double)NAN)) \
    X(stochastic_depth_rank, FTR_ERROR_RANK, \
      "stochastic_depth 'stochastic_depth_1': input has rank 0, expected 1 or more (n, ...)", \
      ftr_stochastic_depth(input(g, "a", FTR_F32, ftr_scalar_shape()), 0.5)) \
    X(stochastic_depth_dtype, FTR_ERROR_DTYPE, \
      "stochastic_depth 'stochastic_depth_1': input is i32, expected f32 or f64", \
      ftr_stochastic_depth(A_AS(FTR_I32, 3), 0.5))
/* clang-format on */

#define BUILDER(name, code, sentence, expression)                                                                      \
    static ftr_tensor build_##name(ftr_graph *g) { return expression; }
OP_ERRORS(BUILDER)

#define ROW(name, code, sentence, expression) {#name, build_##name, code, sentence},
static const op_error errors[] = {OP_ERRORS(ROW)};

const op_error_family rest_errors = {errors, FTR_TEST_LENGTH(errors)};
