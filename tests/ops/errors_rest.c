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
#define B(...) input(g, "b", FTR_F32, FTR_SHAPE(__VA_ARGS__))
#define NOTHING ((ftr_tensor){0})
#define A_AS(dtype, ...) input(g, "a", dtype, FTR_SHAPE(__VA_ARGS__))

/* X(name, status, sentence, what is built) */
/* clang-format off */
#define OP_ERRORS(X) \
    X(input_name, FTR_ERROR_NAME, "input: the name is empty", ftr_input(g, "", FTR_F32, FTR_SHAPE(3))) \
    X(input_dtype, FTR_ERROR_DTYPE, "input 'x': dtype is 42, expected one of ftr_dtype", \
      ftr_input(g, "x", (ftr_dtype)42, FTR_SHAPE(3))) \
    X(parameter_rank, FTR_ERROR_RANK, "parameter 'w': rank is 7, expected 0 to 6", \
      ftr_parameter(g, "w", FTR_F32, (ftr_shape){.rank = 7}, (ftr_init){0})) \
    X(buffer_shape, FTR_ERROR_SHAPE, "buffer 'b': shape [3, -1] has a negative or too large size", \
      ftr_buffer(g, "b", FTR_F32, FTR_SHAPE(3, -1), (ftr_init){0})) \
    X(constant_data, FTR_ERROR_INVALID_ARGUMENT, "constant: data is NULL, expected 12 bytes", \
      ftr_constant(g, FTR_F32, FTR_SHAPE(3), NULL)) \
    X(stochastic_depth_p, FTR_ERROR_INVALID_ARGUMENT, "stochastic_depth 'stochastic_depth_1': p 1.5, expected 0 to 1", \
      ftr_stochastic_depth(A(3), 1.5)) \
    X(stochastic_depth_nan, FTR_ERROR_INVALID_ARGUMENT, "stochastic_depth 'stochastic_depth_1': p nan, expected 0 to 1", \
      ftr_stochastic_depth(A(3), (double)NAN)) \
    X(stochastic_depth_rank, FTR_ERROR_RANK, \
      "stochastic_depth 'stochastic_depth_1': input has rank 0, expected 1 or more (n, ...)", \
      ftr_stochastic_depth(input(g, "a", FTR_F32, ftr_scalar_shape()), 0.5)) \
    X(stochastic_depth_dtype, FTR_ERROR_DTYPE, \
      "stochastic_depth 'stochastic_depth_1': input is i32, expected floating point", \
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
      ftr_random_normal(g, "noise", FTR_SHAPE(3), 1e39, 1)) \
    X(einsum_null_equation, FTR_ERROR_INVALID_ARGUMENT, "einsum: the equation is NULL", ftr_einsum(NULL, A(3), B(3))) \
    X(einsum_null, FTR_ERROR_INVALID_TENSOR, "einsum: input 0 is a null tensor", ftr_einsum("i,i", NOTHING, B(3))) \
    X(einsum_character, FTR_ERROR_INVALID_ARGUMENT, \
      "einsum 'ij,j1->i': '1' at position 4, expected letters, '...', ',' between operands, one '->'", \
      ftr_einsum("ij,j1->i", A(3, 4), B(4, 5))) \
    X(einsum_bytes, FTR_ERROR_INVALID_ARGUMENT, \
      "einsum 'i\n': '?' at position 1, expected letters, '...', ',' between operands, one '->'", \
      ftr_einsum("i\n", A(3), NOTHING)) \
    X(einsum_arrow, FTR_ERROR_INVALID_ARGUMENT, \
      "einsum 'ij- >i': '-' at position 2, expected letters, '...', ',' between operands, one '->'", \
      ftr_einsum("ij- >i", A(3, 4), NOTHING)) \
    X(einsum_two_arrows, FTR_ERROR_INVALID_ARGUMENT, \
      "einsum 'i->i->i': '-' at position 4, expected letters, '...', ',' between operands, one '->'", \
      ftr_einsum("i->i->i", A(3), NOTHING)) \
    X(einsum_comma_in_result, FTR_ERROR_INVALID_ARGUMENT, \
      "einsum 'ij->i,j': ',' at position 5, expected letters, '...', ',' between operands, one '->'", \
      ftr_einsum("ij->i,j", A(3, 4), NOTHING)) \
    X(einsum_dots, FTR_ERROR_INVALID_ARGUMENT, \
      "einsum 'i..j': '.' at position 1, expected letters, '...', ',' between operands, one '->'", \
      ftr_einsum("i..j", A(3, 4), NOTHING)) \
    X(einsum_dots_twice, FTR_ERROR_INVALID_ARGUMENT, "einsum 'i,...j...': operand 1 has '...' twice", \
      ftr_einsum("i,...j...", A(3), B(3, 4))) \
    X(einsum_dots_twice_in_result, FTR_ERROR_INVALID_ARGUMENT, "einsum '...j->......': the result has '...' twice", \
      ftr_einsum("...j->......", A(3, 4), NOTHING)) \
    X(einsum_three, FTR_ERROR_INVALID_ARGUMENT, "einsum 'i,i,i->i': 3 operands, expected 1 or 2", \
      ftr_einsum("i,i,i->i", A(3), B(3))) \
    X(einsum_missing, FTR_ERROR_INVALID_ARGUMENT, \
      "einsum 'i,i->i': 2 in the equation, 1 given: operands must be as many", ftr_einsum("i,i->i", A(3), NOTHING)) \
    X(einsum_too_many, FTR_ERROR_INVALID_ARGUMENT, \
      "einsum 'i->i': 1 in the equation, 2 given: operands must be as many", ftr_einsum("i->i", A(3), B(3))) \
    X(einsum_rank, FTR_ERROR_RANK, "einsum 'ij,jk->ik': operand 1 has 2 indices, its tensor is [4]", \
      ftr_einsum("ij,jk->ik", A(3, 4), B(4))) \
    X(einsum_rank_over, FTR_ERROR_RANK, "einsum 'i->i': operand 0 has 1 index, its tensor is [3, 4]", \
      ftr_einsum("i->i", A(3, 4), NOTHING)) \
    X(einsum_rank_dots, FTR_ERROR_RANK, "einsum '...ijk': operand 0 has 3 indices beside '...', its tensor is [3, 4]", \
      ftr_einsum("...ijk", A(3, 4), NOTHING)) \
    X(einsum_many_letters, FTR_ERROR_RANK, "einsum 'abcdefgh': operand 0 has 8 indices, its tensor is [3]", \
      ftr_einsum("abcdefgh", A(3), NOTHING)) \
    X(einsum_sizes, FTR_ERROR_SHAPE, "einsum 'ij,jk->ik': index 'j' is 4 in operand 0 and 5 in operand 1", \
      ftr_einsum("ij,jk->ik", A(3, 4), B(5, 6))) \
    X(einsum_sizes_of_dots, FTR_ERROR_SHAPE, "einsum '...i,...i': index '...' is 2 in operand 0 and 4 in operand 1", \
      ftr_einsum("...i,...i", A(2, 3), B(4, 3))) \
    X(einsum_diagonal, FTR_ERROR_SHAPE, "einsum 'ii->i': index 'i' is 1 and 3 in operand 0", \
      ftr_einsum("ii->i", A(1, 3), NOTHING)) \
    X(einsum_unknown, FTR_ERROR_INVALID_ARGUMENT, "einsum 'ij->ik': index 'k' of the result is in no operand", \
      ftr_einsum("ij->ik", A(3, 4), NOTHING)) \
    X(einsum_result_twice, FTR_ERROR_INVALID_ARGUMENT, "einsum 'ij->ii': index 'i' is twice in the result", \
      ftr_einsum("ij->ii", A(3, 4), NOTHING)) \
    X(einsum_result_rank, FTR_ERROR_RANK, "einsum 'abcd,efgh->abcdefgh': the result has rank 8, expected 6 or less", \
      ftr_einsum("abcd,efgh->abcdefgh", A(1, 1, 1, 1), B(1, 1, 1, 1))) \
    X(einsum_implied_rank, FTR_ERROR_RANK, "einsum 'abc,...': the result has rank 7, expected 6 or less", \
      ftr_einsum("abc,...", A(1, 1, 1), B(1, 1, 1, 1))) \
    X(einsum_bool, FTR_ERROR_DTYPE, "einsum 'i->': operand 0 is bool, expected floating point, i32 or i64", \
      ftr_einsum("i->", A_AS(FTR_BOOL, 3), NOTHING)) \
    X(einsum_types, FTR_ERROR_DTYPE, "einsum 'i,i': operand 0 is f32, operand 1 is i32: both must have one type", \
      ftr_einsum("i,i", A(3), input(g, "b", FTR_I32, FTR_SHAPE(3))))
/* clang-format on */

#define BUILDER(name, code, sentence, expression)                                                                      \
    static ftr_tensor build_##name(ftr_graph *g) {                                                                     \
        (void)g;                                                                                                       \
        return expression;                                                                                             \
    }
OP_ERRORS(BUILDER)

#define ROW(name, code, sentence, expression) {#name, build_##name, code, sentence},
static const op_error errors[] = {OP_ERRORS(ROW)};

const op_error_family rest_errors = {errors, FTR_TEST_LENGTH(errors)};
