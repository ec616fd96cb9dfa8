#include "errors.h"

static ftr_tensor input(ftr_graph *g, const char *name, ftr_dtype dtype, ftr_shape shape) {
    return ftr_input(g, name, dtype, shape);
}

static ftr_tensor twice(ftr_graph *g, const char *name) {
    ftr_random_normal(g, name, FTR_SHAPE(3), 0, 1);
    return ftr_random_uniform(g, name, FTR_SHAPE(3), 0, 1);
}

/* The name that a node gave itself. */
static ftr_tensor scoped_twice(ftr_graph *g) {
    ftr_scope_push(g, "block");
    ftr_random_normal(g, NULL, FTR_SHAPE(3), 0, 1);
    return ftr_random_uniform(g, "random_normal_0", FTR_SHAPE(3), 0, 1);
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
      ftr_stochastic_depth(A_AS(FTR_I32, 3), 0.5)) \
    X(random_uniform_order, FTR_ERROR_INVALID_ARGUMENT, \
      "random_uniform 'noise': low 1, high 0: expected low <= high and a difference that f32 holds", \
      ftr_random_uniform(g, "noise", FTR_SHAPE(3), 1, 0)) \
    X(random_uniform_nan, FTR_ERROR_INVALID_ARGUMENT, \
      "random_uniform 'random_uniform_0': low nan, high 1: expected low <= high and a difference that f32 holds", \
      ftr_random_uniform(g, NULL, FTR_SHAPE(3), fabs((double)NAN), 1)) \
    X(random_uniform_range, FTR_ERROR_INVALID_ARGUMENT, \
      "random_uniform 'noise': low -3e+38, high 3e+38: expected low <= high and a difference that f32 holds", \
      ftr_random_uniform(g, "noise", FTR_SHAPE(3), -3e38, 3e38)) \
    X(random_uniform_name, FTR_ERROR_NAME, "random_uniform: the name is empty", \
      ftr_random_uniform(g, "", FTR_SHAPE(3), 0, 1)) \
    X(random_uniform_twice, FTR_ERROR_NAME, "random_uniform 'noise': the name is used by another random tensor", \
      twice(g, "noise")) \
    X(random_uniform_twice_scoped, FTR_ERROR_NAME, \
      "random_uniform 'block.random_normal_0': the name is used by another random tensor", scoped_twice(g)) \
    X(random_uniform_shape, FTR_ERROR_SHAPE, \
      "random_uniform 'noise': shape [2, -1] has a negative or too large size", \
      ftr_random_uniform(g, "noise", FTR_SHAPE(2, -1), 0, 1)) \
    X(random_normal_rank, FTR_ERROR_RANK, "random_normal 'noise': rank is 7, expected 0 to 6", \
      ftr_random_normal(g, "noise", (ftr_shape){.rank = 7}, 0, 1)) \
    X(random_normal_std, FTR_ERROR_INVALID_ARGUMENT, \
      "random_normal 'noise': mean 0, std -1: expected finite numbers, std of 0 or more", \
      ftr_random_normal(g, "noise", FTR_SHAPE(3), 0, -1)) \
    X(random_normal_mean, FTR_ERROR_INVALID_ARGUMENT, \
      "random_normal 'noise': mean inf, std 1: expected finite numbers, std of 0 or more", \
      ftr_random_normal(g, "noise", FTR_SHAPE(3), 1e39, 1))
/* clang-format on */

#define BUILDER(name, code, sentence, expression)                                                                      \
    static ftr_tensor build_##name(ftr_graph *g) { return expression; }
OP_ERRORS(BUILDER)

#define ROW(name, code, sentence, expression) {#name, build_##name, code, sentence},
static const op_error errors[] = {OP_ERRORS(ROW)};

const op_error_family rest_errors = {errors, FTR_TEST_LENGTH(errors)};
