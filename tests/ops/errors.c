#include "errors.h"

/* ---------------------------------------------------------------------------------------- what the rows are made of */

static ftr_tensor real(ftr_graph *g, const char *name, ftr_shape shape) { return ftr_input(g, name, FTR_F32, shape); }

static ftr_tensor scalar(ftr_graph *g) { return real(g, "a", ftr_scalar_shape()); }

static ftr_tensor norm(ftr_tensor x, int64_t channels, double eps, double momentum) {
    ftr_batch_norm_desc desc = ftr_batch_norm_defaults();
    desc.eps = eps;
    desc.momentum = momentum;
    ftr_tensor v[4];
    static const char *const names[4] = {"gamma", "beta", "mean", "var"};
    for (int i = 0; i < 4; i++) {
        v[i] = ftr_buffer(x.graph, names[i], FTR_F32, FTR_SHAPE(channels), (ftr_init){.kind = FTR_INIT_ZEROS});
    }
    return ftr_batch_norm_with(x, v[0], v[1], v[2], v[3], &desc);
}

static ftr_tensor rms_norm_of(ftr_tensor x, double eps) {
    ftr_rms_norm_desc desc = ftr_rms_norm_defaults();
    desc.eps = eps;
    return ftr_rms_norm_with(x, (ftr_tensor){0}, &desc);
}

static ftr_tensor concat_of(ftr_graph *g, int32_t count, int32_t axis) {
    ftr_tensor parts[17];
    for (int32_t i = 0; i < 17; i++) {
        char name[16];
        snprintf(name, sizeof name, "x%d", (int)i);
        parts[i] = real(g, name, FTR_SHAPE(2, 3));
    }
    return ftr_concat(parts, count, axis);
}

static ftr_tensor weighted_loss(ftr_tensor logits, ftr_tensor labels, ftr_tensor weights) {
    ftr_cross_entropy_desc desc = ftr_cross_entropy_defaults();
    desc.class_weights = weights;
    return ftr_cross_entropy(logits, labels, &desc);
}

static ftr_tensor smoothed_loss(ftr_tensor logits, ftr_tensor labels, double smoothing) {
    ftr_cross_entropy_desc desc = ftr_cross_entropy_defaults();
    desc.label_smoothing = smoothing;
    return ftr_cross_entropy(logits, labels, &desc);
}

static ftr_tensor smoothed_nll(ftr_tensor log_probabilities, ftr_tensor labels) {
    ftr_cross_entropy_desc desc = ftr_cross_entropy_defaults();
    desc.label_smoothing = 0.5;
    return ftr_nll(log_probabilities, labels, &desc);
}

static ftr_tensor reduced_loss(ftr_tensor logits, ftr_tensor labels, ftr_reduction reduction) {
    ftr_cross_entropy_desc desc = ftr_cross_entropy_defaults();
    desc.reduction = reduction;
    return ftr_cross_entropy(logits, labels, &desc);
}

/* Operands of two graphs; the other graph is gone when this returns, the error stays. */
static ftr_tensor two_graphs(ftr_graph *g) {
    ftr_context *context = ftr_test_context();
    ftr_graph *other = ftr_graph_create(context);
    ftr_tensor result = ftr_add(real(g, "a", FTR_SHAPE(2)), real(other, "b", FTR_SHAPE(2)));
    ftr_graph_destroy(other);
    ftr_context_destroy(context);
    return result;
}

/* The sentence has the layer's full name. */
static ftr_tensor scoped_layer(ftr_graph *g) {
    ftr_scope_push(g, "block");
    ftr_scope_push(g, "1");
    return ftr_conv2d(real(g, "a", FTR_SHAPE(1, 2, 2, 4)), "conv1", 8, 3, NULL);
}

static ftr_tensor split_of(ftr_tensor x, int32_t axis, const int64_t *sizes, int32_t count) {
    ftr_tensor parts[4];
    ftr_split(x, axis, sizes, count, parts);
    return parts[0];
}

static const int64_t three_four[] = {3, 4}, minus_one[] = {-1, 4, 3};

static ftr_tensor stack_of(ftr_tensor x, ftr_tensor y, int32_t axis) {
    return ftr_stack((ftr_tensor[]){x, y}, 2, axis);
}

/* --------------------------------------------------------------------------------------------------------- the rows */

/* Inputs "a", "b", "c" of graph g: A(2, 3) is f32, A_AS(FTR_I32, 2, 3) of a type. */
#define INPUT(name, dtype, ...) ftr_input(g, name, dtype, FTR_SHAPE(__VA_ARGS__))
#define A(...) INPUT("a", FTR_F32, __VA_ARGS__)
#define B(...) INPUT("b", FTR_F32, __VA_ARGS__)
#define C(...) INPUT("c", FTR_F32, __VA_ARGS__)
#define A_AS(...) INPUT("a", __VA_ARGS__)
#define B_AS(...) INPUT("b", __VA_ARGS__)
#define C_AS(...) INPUT("c", __VA_ARGS__)
#define NOTHING ((ftr_tensor){0})

/* X(name, status, sentence, what is built) */
/* clang-format off */
#define OP_ERRORS(X) \
    X(add_shapes, FTR_ERROR_SHAPE, "add 'add_2': shapes [2, 3] and [4] do not broadcast", ftr_add(A(2, 3), B(4))) \
    X(add_dtypes, FTR_ERROR_DTYPE, "add 'add_2': a is f32, b is i32: both must have one type", \
      ftr_add(A(2, 3), B_AS(FTR_I32, 2, 3))) \
    X(add_bool, FTR_ERROR_DTYPE, "add 'add_2': a is bool, expected floating point, i32 or i64", \
      ftr_add(A_AS(FTR_BOOL, 3), B_AS(FTR_BOOL, 3))) \
    X(add_u8, FTR_ERROR_DTYPE, "add 'add_2': a is u8, expected floating point, i32 or i64", \
      ftr_add(A_AS(FTR_U8, 3), B_AS(FTR_U8, 3))) \
    X(add_null, FTR_ERROR_INVALID_TENSOR, "add: input 0 is a null tensor", ftr_add(NOTHING, B(4))) \
    X(add_null_right, FTR_ERROR_INVALID_TENSOR, "add: input 1 is a null tensor", ftr_add(A(4), NOTHING)) \
    X(sub_shapes, FTR_ERROR_SHAPE, "sub 'sub_2': shapes [2, 0] and [2, 3] do not broadcast", \
      ftr_sub(A(2, 0), B(2, 3))) \
    X(mul_dtypes, FTR_ERROR_DTYPE, "mul 'mul_2': a is i32, b is i64: both must have one type", \
      ftr_mul(A_AS(FTR_I32, 2), B_AS(FTR_I64, 2))) \
    X(div_shapes, FTR_ERROR_SHAPE, "div 'div_2': shapes [2, 3, 4] and [2, 4] do not broadcast", \
      ftr_div(A(2, 3, 4), B(2, 4))) \
    X(pow_integers, FTR_ERROR_DTYPE, "pow 'pow_2': a is i32, expected floating point", \
      ftr_pow(A_AS(FTR_I32, 3), B_AS(FTR_I32, 3))) \
    X(pow_shapes, FTR_ERROR_SHAPE, "pow 'pow_2': shapes [3] and [2] do not broadcast", ftr_pow(A(3), B(2))) \
    X(maximum_bool, FTR_ERROR_DTYPE, "maximum 'maximum_2': a is bool, expected floating point, i32 or i64", \
      ftr_maximum(A_AS(FTR_BOOL, 3), B_AS(FTR_BOOL, 3))) \
    X(maximum_shapes, FTR_ERROR_SHAPE, "maximum 'maximum_2': shapes [3, 2] and [3] do not broadcast", \
      ftr_maximum(A(3, 2), B(3))) \
    X(eq_dtypes, FTR_ERROR_DTYPE, "eq 'eq_2': a is f32, b is i64: both must have one type", \
      ftr_eq(A(3), B_AS(FTR_I64, 3))) \
    X(eq_shapes, FTR_ERROR_SHAPE, "eq 'eq_2': shapes [3] and [2] do not broadcast", ftr_eq(A(3), B(2))) \
    X(ne_shapes, FTR_ERROR_SHAPE, "ne 'ne_2': shapes [2, 3] and [3, 2] do not broadcast", ftr_ne(A(2, 3), B(3, 2))) \
    X(lt_bool, FTR_ERROR_DTYPE, "lt 'lt_2': a is bool, expected numbers", \
      ftr_lt(A_AS(FTR_BOOL, 3), B_AS(FTR_BOOL, 3))) \
    X(le_dtypes, FTR_ERROR_DTYPE, "le 'le_2': a is u8, b is i32: both must have one type", \
      ftr_le(A_AS(FTR_U8, 3), B_AS(FTR_I32, 3))) \
    X(gt_bool, FTR_ERROR_DTYPE, "gt 'gt_2': a is bool, expected numbers", \
      ftr_gt(A_AS(FTR_BOOL, 3), B_AS(FTR_BOOL, 3))) \
    X(ge_shapes, FTR_ERROR_SHAPE, "ge 'ge_2': shapes [5] and [4] do not broadcast", ftr_ge(A(5), B(4))) \
    X(where_condition, FTR_ERROR_DTYPE, "where 'where_3': condition is f32, expected bool", \
      ftr_where(A(3), B(3), C(3))) \
    X(where_dtypes, FTR_ERROR_DTYPE, "where 'where_3': a is f32, b is i32: both must have one type", \
      ftr_where(A_AS(FTR_BOOL, 3), B(3), C_AS(FTR_I32, 3))) \
    X(where_shapes, FTR_ERROR_SHAPE, "where 'where_3': shapes [2], [3] and [3] do not broadcast", \
      ftr_where(A_AS(FTR_BOOL, 2), B(3), C(3))) \
    X(neg_bool, FTR_ERROR_DTYPE, "neg 'neg_1': input is bool, expected floating point, i32 or i64", \
      ftr_neg(A_AS(FTR_BOOL, 3))) \
    X(exp_integers, FTR_ERROR_DTYPE, "exp 'exp_1': input is i32, expected floating point", ftr_exp(A_AS(FTR_I32, 3))) \
    X(log_integers, FTR_ERROR_DTYPE, "log 'log_1': input is i32, expected floating point", ftr_log(A_AS(FTR_I32, 3))) \
    X(sqrt_integers, FTR_ERROR_DTYPE, "sqrt 'sqrt_1': input is i32, expected floating point", ftr_sqrt(A_AS(FTR_I32, 3))) \
    X(rsqrt_integers, FTR_ERROR_DTYPE, "rsqrt 'rsqrt_1': input is i32, expected floating point", \
      ftr_rsqrt(A_AS(FTR_I32, 3))) \
    X(tanh_integers, FTR_ERROR_DTYPE, "tanh 'tanh_1': input is i32, expected floating point", ftr_tanh(A_AS(FTR_I32, 3))) \
    X(sigmoid_integers, FTR_ERROR_DTYPE, "sigmoid 'sigmoid_1': input is i32, expected floating point", \
      ftr_sigmoid(A_AS(FTR_I32, 3))) \
    X(relu_integers, FTR_ERROR_DTYPE, "relu 'relu_1': input is u8, expected floating point", ftr_relu(A_AS(FTR_U8, 3))) \
    X(minimum_shapes, FTR_ERROR_SHAPE, "minimum 'minimum_2': shapes [3, 2] and [3] do not broadcast", \
      ftr_minimum(A(3, 2), B(3))) \
    X(minimum_dtypes, FTR_ERROR_DTYPE, "minimum 'minimum_2': a is f32, b is i32: both must have one type", \
      ftr_minimum(A(3), B_AS(FTR_I32, 3))) \
    X(abs_bool, FTR_ERROR_DTYPE, "abs 'abs_1': input is bool, expected floating point, i32 or i64", \
      ftr_abs(A_AS(FTR_BOOL, 3))) \
    X(sign_u8, FTR_ERROR_DTYPE, "sign 'sign_1': input is u8, expected floating point, i32 or i64", \
      ftr_sign(A_AS(FTR_U8, 3))) \
    X(sin_integers, FTR_ERROR_DTYPE, "sin 'sin_1': input is i32, expected floating point", ftr_sin(A_AS(FTR_I32, 3))) \
    X(cos_integers, FTR_ERROR_DTYPE, "cos 'cos_1': input is i64, expected floating point", ftr_cos(A_AS(FTR_I64, 3))) \
    X(erf_integers, FTR_ERROR_DTYPE, "erf 'erf_1': input is i32, expected floating point", ftr_erf(A_AS(FTR_I32, 3))) \
    X(floor_integers, FTR_ERROR_DTYPE, "floor 'floor_1': input is i32, expected floating point", \
      ftr_floor(A_AS(FTR_I32, 3))) \
    X(round_bool, FTR_ERROR_DTYPE, "round 'round_1': input is bool, expected floating point", \
      ftr_round(A_AS(FTR_BOOL, 3))) \
    X(clamp_integers, FTR_ERROR_DTYPE, "clamp 'clamp_1': input is i32, expected floating point", \
      ftr_clamp(A_AS(FTR_I32, 3), 0, 1)) \
    X(clamp_order, FTR_ERROR_INVALID_ARGUMENT, "clamp 'clamp_1': min 2, max 1.5: expected min <= max", \
      ftr_clamp(A(3), 2, 1.5)) \
    X(clamp_nan, FTR_ERROR_INVALID_ARGUMENT, "clamp 'clamp_1': min 0, max nan: expected min <= max", \
      ftr_clamp(A(3), 0, fabs((double)NAN))) \
    X(relu6_integers, FTR_ERROR_DTYPE, "clamp 'clamp_1': input is u8, expected floating point", \
      ftr_relu6(A_AS(FTR_U8, 3))) \
    X(gelu_form, FTR_ERROR_INVALID_ARGUMENT, "gelu 'gelu_1': form 7, expected FTR_GELU_EXACT or FTR_GELU_TANH", \
      ftr_gelu(A(3), (ftr_gelu_form)7)) \
    X(gelu_integers, FTR_ERROR_DTYPE, "gelu 'gelu_1': input is i32, expected floating point", \
      ftr_gelu(A_AS(FTR_I32, 3), FTR_GELU_TANH)) \
    X(silu_bool, FTR_ERROR_DTYPE, "silu 'silu_1': input is bool, expected floating point", ftr_silu(A_AS(FTR_BOOL, 3))) \
    X(hardswish_integers, FTR_ERROR_DTYPE, "hardswish 'hardswish_1': input is i32, expected floating point", \
      ftr_hardswish(A_AS(FTR_I32, 3))) \
    X(hardsigmoid_integers, FTR_ERROR_DTYPE, "hardsigmoid 'hardsigmoid_1': input is i32, expected floating point", \
      ftr_hardsigmoid(A_AS(FTR_I32, 3))) \
    X(leaky_relu_slope, FTR_ERROR_INVALID_ARGUMENT, "leaky_relu 'leaky_relu_1': slope inf, expected a finite number", \
      ftr_leaky_relu(A(3), INFINITY)) \
    X(leaky_relu_integers, FTR_ERROR_DTYPE, "leaky_relu 'leaky_relu_1': input is i64, expected floating point", \
      ftr_leaky_relu(A_AS(FTR_I64, 3), 0.1)) \
    X(elu_alpha, FTR_ERROR_INVALID_ARGUMENT, "elu 'elu_1': alpha -inf, expected a finite number", \
      ftr_elu(A(3), -INFINITY)) \
    X(elu_integers, FTR_ERROR_DTYPE, "elu 'elu_1': input is i32, expected floating point", \
      ftr_elu(A_AS(FTR_I32, 3), 1)) \
    X(softplus_beta, FTR_ERROR_INVALID_ARGUMENT, "softplus 'softplus_1': beta 0, expected a finite number above 0", \
      ftr_softplus(A(3), 0, 20)) \
    X(softplus_threshold, FTR_ERROR_INVALID_ARGUMENT, "softplus 'softplus_1': threshold nan, expected a number", \
      ftr_softplus(A(3), 1, fabs((double)NAN))) \
    X(softplus_integers, FTR_ERROR_DTYPE, "softplus 'softplus_1': input is i32, expected floating point", \
      ftr_softplus(A_AS(FTR_I32, 3), 1, 20)) \
    X(cast_unknown, FTR_ERROR_INVALID_ARGUMENT, "cast 'cast_1': dtype 42, expected one of ftr_dtype", \
      ftr_cast(A(3), (ftr_dtype)42)) \
    X(cast_none, FTR_ERROR_INVALID_ARGUMENT, "cast 'cast_1': dtype 0, expected one of ftr_dtype", \
      ftr_cast(A(3), FTR_DTYPE_NONE)) \
    X(sum_axis, FTR_ERROR_INVALID_ARGUMENT, "sum of 'a': axis 2 of a tensor of rank 2", \
      ftr_sum(A(2, 3), FTR_AXES(2), false)) \
    X(sum_twice, FTR_ERROR_INVALID_ARGUMENT, "sum of 'a': axis -1 is there twice", \
      ftr_sum(A(2, 3), FTR_AXES(1, -1), false)) \
    X(sum_bool, FTR_ERROR_DTYPE, "sum 'sum_1': input is bool, expected floating point, i32 or i64", \
      ftr_sum(A_AS(FTR_BOOL, 3), ftr_all_axes(), false)) \
    X(sum_count, FTR_ERROR_INVALID_ARGUMENT, "sum of 'a': 9 axes, expected 0 to 6", \
      ftr_sum(A(3), (ftr_axes){.count = 9}, false)) \
    X(mean_integers, FTR_ERROR_DTYPE, "mean 'mean_1': input is i32, expected floating point", \
      ftr_mean(A_AS(FTR_I32, 3), ftr_all_axes(), false)) \
    X(mean_axis, FTR_ERROR_INVALID_ARGUMENT, "mean of 'a': axis -3 of a tensor of rank 2", \
      ftr_mean(A(2, 3), FTR_AXES(-3), true)) \
    X(max_nothing, FTR_ERROR_SHAPE, "max 'max_1': axis 1 of [2, 0] has size 0, expected 1 or more", \
      ftr_max(A(2, 0), FTR_AXES(1), false)) \
    X(max_bool, FTR_ERROR_DTYPE, "max 'max_1': input is bool, expected floating point, i32 or i64", \
      ftr_max(A_AS(FTR_BOOL, 3), ftr_all_axes(), false)) \
    X(max_scalar_axis, FTR_ERROR_INVALID_ARGUMENT, "max of 'a': axis 0 of a tensor of rank 0", \
      ftr_max(scalar(g), FTR_AXES(0), false)) \
    X(argmax_axis, FTR_ERROR_INVALID_ARGUMENT, "argmax of 'a': axis 5 of a tensor of rank 2", ftr_argmax(A(2, 3), 5)) \
    X(argmax_nothing, FTR_ERROR_SHAPE, "argmax 'argmax_1': axis 1 of [2, 0] has size 0, expected 1 or more", \
      ftr_argmax(A(2, 0), 1)) \
    X(argmax_bool, FTR_ERROR_DTYPE, "argmax 'argmax_1': input is bool, expected floating point, i32 or i64", \
      ftr_argmax(A_AS(FTR_BOOL, 3), 0)) \
    X(matmul_inner, FTR_ERROR_SHAPE, "matmul 'matmul_2': a is [2, 3], b is [4, 5]: inner sizes 3 and 4 differ", \
      ftr_matmul(A(2, 3), B(4, 5), false, false)) \
    X(matmul_inner_transposed, FTR_ERROR_SHAPE, \
      "matmul 'matmul_2': a is [2, 3] transposed, b is [3, 5]: inner sizes 2 and 3 differ", \
      ftr_matmul(A(2, 3), B(3, 5), true, false)) \
    X(matmul_rank, FTR_ERROR_RANK, "matmul 'matmul_2': a has rank 1, expected 2 or more", \
      ftr_matmul(A(3), B(3, 5), false, false)) \
    X(matmul_rank_right, FTR_ERROR_RANK, "matmul 'matmul_2': b has rank 1, expected 2 or more", \
      ftr_matmul(A(2, 3), B(3), false, false)) \
    X(matmul_batch, FTR_ERROR_SHAPE, \
      "matmul 'matmul_2': a is [2, 3, 4], b is [3, 4, 5]: the leading dimensions do not broadcast", \
      ftr_matmul(A(2, 3, 4), B(3, 4, 5), false, false)) \
    X(matmul_integers, FTR_ERROR_DTYPE, "matmul 'matmul_2': a is i32, expected floating point", \
      ftr_matmul(A_AS(FTR_I32, 2, 3), B_AS(FTR_I32, 3, 4), false, false)) \
    X(matmul_dtypes, FTR_ERROR_DTYPE, "matmul 'matmul_2': a is f32, b is f64: both must have one type", \
      ftr_matmul(A(2, 3), B_AS(FTR_F64, 3, 4), false, false)) \
    X(linear_features, FTR_ERROR_SHAPE, "linear 'linear_2': input has 3 features, weight expects 5", \
      ftr_linear_with(A(2, 3), B(4, 5), NOTHING)) \
    X(linear_weight_rank, FTR_ERROR_RANK, "linear 'linear_2': weight has rank 1, expected 2 (out, in)", \
      ftr_linear_with(A(2, 3), B(3), NOTHING)) \
    X(linear_bias, FTR_ERROR_SHAPE, "linear 'linear_3': bias is [3], expected [4]", \
      ftr_linear_with(A(2, 3), B(4, 3), C(3))) \
    X(linear_input_rank, FTR_ERROR_RANK, "linear 'linear_2': input has rank 0, expected 1 or more (..., in)", \
      ftr_linear_with(scalar(g), B(4, 3), NOTHING)) \
    X(linear_dtype, FTR_ERROR_DTYPE, "linear 'linear_2': input is i32, expected floating point", \
      ftr_linear_with(A_AS(FTR_I32, 2, 3), B(4, 3), NOTHING)) \
    X(linear_layer_features, FTR_ERROR_INVALID_ARGUMENT, "linear 'fc': out_features 0, expected 1 or more", \
      ftr_linear(A(2, 3), "fc", 0, NULL)) \
    X(linear_layer_name, FTR_ERROR_NAME, "linear: the layer has no name", ftr_linear(A(2, 3), "", 4, NULL)) \
    X(linear_layer_null_name, FTR_ERROR_NAME, "linear: the layer has no name", ftr_linear(A(2, 3), NULL, 4, NULL)) \
    X(linear_layer_twice, FTR_ERROR_NAME, "parameter 'fc.weight': the name is used by another parameter or buffer", \
      ftr_linear(ftr_linear(A(2, 3), "fc", 4, NULL), "fc", 4, NULL)) \
    X(linear_layer_dtype, FTR_ERROR_DTYPE, "linear 'fc': input is i64, expected floating point", \
      ftr_linear(A_AS(FTR_I64, 2, 3), "fc", 4, NULL)) \
    X(conv_channels, FTR_ERROR_SHAPE, "conv2d 'conv2d_2': input has 4 channels, weight expects 3 (groups 1)", \
      ftr_conv2d_with(A(1, 5, 5, 4), B(2, 3, 3, 3), NOTHING, NULL)) \
    X(conv_group_channels, FTR_ERROR_SHAPE, "conv2d 'conv2d_2': input has 4 channels, weight expects 6 (groups 2)", \
      ftr_conv2d_with(A(1, 5, 5, 4), B(2, 3, 3, 3), NOTHING, &(ftr_conv2d_desc){.groups = 2})) \
    X(conv_groups_input, FTR_ERROR_SHAPE, "conv2d 'conv2d_2': input has 4 channels, which groups 3 does not divide", \
      ftr_conv2d_with(A(1, 5, 5, 4), B(3, 3, 3, 1), NOTHING, &(ftr_conv2d_desc){.groups = 3})) \
    X(conv_groups_output, FTR_ERROR_SHAPE, \
      "conv2d 'conv2d_2': weight has 3 output channels, which groups 2 does not divide", \
      ftr_conv2d_with(A(1, 5, 5, 4), B(3, 3, 3, 2), NOTHING, &(ftr_conv2d_desc){.groups = 2})) \
    X(conv_negative_groups, FTR_ERROR_INVALID_ARGUMENT, "conv2d 'conv2d_2': groups -1, expected 1 or more", \
      ftr_conv2d_with(A(1, 5, 5, 4), B(3, 3, 3, 2), NOTHING, &(ftr_conv2d_desc){.groups = -1})) \
    X(conv_stride, FTR_ERROR_INVALID_ARGUMENT, "conv2d 'conv2d_2': stride -2, expected 1 or more", \
      ftr_conv2d_with(A(1, 5, 5, 4), B(3, 3, 3, 4), NOTHING, &(ftr_conv2d_desc){.stride = {1, -2}})) \
    X(conv_padding, FTR_ERROR_INVALID_ARGUMENT, "conv2d 'conv2d_2': padding -1, expected 0 or more", \
      ftr_conv2d_with(A(1, 5, 5, 4), B(3, 3, 3, 4), NOTHING, &(ftr_conv2d_desc){.padding = {0, 0, -1, 0}})) \
    X(conv_dilation, FTR_ERROR_INVALID_ARGUMENT, "conv2d 'conv2d_2': dilation -1, expected 1 or more", \
      ftr_conv2d_with(A(1, 5, 5, 4), B(3, 3, 3, 4), NOTHING, &(ftr_conv2d_desc){.dilation = {-1, 1}})) \
    X(conv_rank, FTR_ERROR_RANK, "conv2d 'conv2d_2': input has rank 3, expected 4 (n, h, w, c)", \
      ftr_conv2d_with(A(5, 5, 4), B(3, 3, 3, 4), NOTHING, NULL)) \
    X(conv_weight_rank, FTR_ERROR_RANK, "conv2d 'conv2d_2': weight has rank 3, expected 4 (o, kh, kw, c / groups)", \
      ftr_conv2d_with(A(1, 5, 5, 4), B(3, 3, 4), NOTHING, NULL)) \
    X(conv_bias, FTR_ERROR_SHAPE, "conv2d 'conv2d_3': bias is [4], expected [3]", \
      ftr_conv2d_with(A(1, 5, 5, 4), B(3, 3, 3, 4), C(4), NULL)) \
    X(conv_too_small, FTR_ERROR_SHAPE, \
      "conv2d 'conv2d_2': kernel 3 x 3 (dilation 1) does not fit the padded input of 2 x 5", \
      ftr_conv2d_with(A(1, 2, 5, 4), B(3, 3, 3, 4), NOTHING, NULL)) \
    X(conv_too_small_dilated, FTR_ERROR_SHAPE, \
      "conv2d 'conv2d_2': kernel 3 x 3 (dilation 2) does not fit the padded input of 5 x 4", \
      ftr_conv2d_with(A(1, 5, 4, 4), B(3, 3, 3, 4), NOTHING, &(ftr_conv2d_desc){.dilation = {2, 2}})) \
    X(conv_dtype, FTR_ERROR_DTYPE, "conv2d 'conv2d_2': input is u8, expected floating point", \
      ftr_conv2d_with(A_AS(FTR_U8, 1, 5, 5, 4), B(3, 3, 3, 4), NOTHING, NULL)) \
    X(conv_weight_dtype, FTR_ERROR_DTYPE, "conv2d 'conv2d_2': input is f32, weight is f64: both must have one type", \
      ftr_conv2d_with(A(1, 5, 5, 4), B_AS(FTR_F64, 3, 3, 3, 4), NOTHING, NULL)) \
    X(conv_no_kernel, FTR_ERROR_SHAPE, "conv2d 'conv2d_2': kernel 0 x 3, expected 1 or more", \
      ftr_conv2d_with(A(1, 5, 5, 4), B(3, 0, 3, 4), NOTHING, NULL)) \
    X(conv_layer_channels, FTR_ERROR_INVALID_ARGUMENT, "conv2d 'conv1': out_channels 0, expected 1 or more", \
      ftr_conv2d(A(1, 5, 5, 4), "conv1", 0, 3, NULL)) \
    X(conv_layer_kernel, FTR_ERROR_INVALID_ARGUMENT, "conv2d 'conv1': kernel 0, expected 1 or more", \
      ftr_conv2d(A(1, 5, 5, 4), "conv1", 8, 0, NULL)) \
    X(conv_layer_groups, FTR_ERROR_SHAPE, "conv2d 'conv1': input has 4 channels, which groups 3 does not divide", \
      ftr_conv2d(A(1, 5, 5, 4), "conv1", 9, 3, &(ftr_conv2d_desc){.groups = 3})) \
    X(conv_layer_rank, FTR_ERROR_RANK, "conv2d 'conv1': input has rank 2, expected 4 (n, h, w, c)", \
      ftr_conv2d(A(5, 4), "conv1", 8, 3, NULL)) \
    X(conv_layer_too_small, FTR_ERROR_SHAPE, \
      "conv2d 'conv1': kernel 3 x 3 (dilation 1) does not fit the padded input of 2 x 2", \
      ftr_conv2d(A(1, 2, 2, 4), "conv1", 8, 3, NULL)) \
    X(norm_rank, FTR_ERROR_RANK, "batch_norm 'batch_norm_5': input has rank 1, expected 2 or more (n, ..., c)", \
      norm(A(3), 3, 1e-5, 0.1)) \
    X(norm_channels, FTR_ERROR_SHAPE, "batch_norm 'batch_norm_5': gamma is [5], expected [3]", \
      norm(A(4, 3), 5, 1e-5, 0.1)) \
    X(norm_dtype, FTR_ERROR_DTYPE, "batch_norm 'batch_norm_5': input is i32, expected floating point", \
      norm(A_AS(FTR_I32, 4, 3), 3, 1e-5, 0.1)) \
    X(norm_eps, FTR_ERROR_INVALID_ARGUMENT, \
      "batch_norm 'batch_norm_5': eps -1, expected a finite number of 0 or more", norm(A(4, 3), 3, -1, 0.1)) \
    X(norm_momentum, FTR_ERROR_INVALID_ARGUMENT, "batch_norm 'batch_norm_5': momentum 1.5, expected 0 to 1", \
      norm(A(4, 3), 3, 1e-5, 1.5)) \
    X(norm_cookie, FTR_ERROR_INVALID_ARGUMENT, "batch_norm 'bn': desc was not made by ftr_batch_norm_defaults()", \
      ftr_batch_norm(A(4, 3), "bn", &(ftr_batch_norm_desc){.eps = 1e-5})) \
    X(norm_layer_rank, FTR_ERROR_RANK, "batch_norm 'bn': input has rank 1, expected 2 or more (n, ..., c)", \
      ftr_batch_norm(A(4), "bn", NULL)) \
    X(norm_null, FTR_ERROR_INVALID_TENSOR, "batch_norm: input 2 is a null tensor", \
      ftr_batch_norm_with(A(4, 3), B(3), NOTHING, NOTHING, NOTHING, NULL)) \
    X(layer_norm_gamma, FTR_ERROR_SHAPE, "layer_norm 'layer_norm_2': gamma is [3, 4], expected [4, 3]", \
      ftr_layer_norm_with(A(2, 4, 3), B(3, 4), NOTHING, NULL)) \
    X(layer_norm_beta, FTR_ERROR_DTYPE, "layer_norm 'layer_norm_2': beta is f64, expected f32", \
      ftr_layer_norm_with(A(2, 3), NOTHING, B_AS(FTR_F64, 3), NULL)) \
    X(layer_norm_rank, FTR_ERROR_RANK, "layer_norm 'layer_norm_2': input has rank 1, expected 2 or more", \
      ftr_layer_norm_with(A(3), B(2, 3), NOTHING, NULL)) \
    X(layer_norm_dtype, FTR_ERROR_DTYPE, "layer_norm 'layer_norm_1': input is i32, expected floating point", \
      ftr_layer_norm_with(A_AS(FTR_I32, 2, 3), NOTHING, NOTHING, NULL)) \
    X(layer_norm_cookie, FTR_ERROR_INVALID_ARGUMENT, \
      "layer_norm 'ln': desc was not made by ftr_layer_norm_defaults()", \
      ftr_layer_norm(A(4, 3), "ln", &(ftr_layer_norm_desc){.eps = 1e-5})) \
    X(layer_norm_dims, FTR_ERROR_INVALID_ARGUMENT, "layer_norm 'layer_norm_2': dims 0, expected 1 or more", \
      ftr_layer_norm_with(real(g, "x", FTR_SHAPE(2, 3)), scalar(g), NOTHING, NULL)) \
    X(layer_norm_layer, FTR_ERROR_RANK, "layer_norm 'ln': input has rank 0, expected 1 or more (..., features)", \
      ftr_layer_norm(scalar(g), "ln", NULL)) \
    X(rms_norm_gamma, FTR_ERROR_SHAPE, "rms_norm 'rms_norm_2': gamma is [4], expected [3]", \
      ftr_rms_norm_with(A(4, 3), B(4), NULL)) \
    X(rms_norm_eps, FTR_ERROR_INVALID_ARGUMENT, \
      "rms_norm 'rms_norm_1': eps -1, expected a finite number of 0 or more", \
      rms_norm_of(A(4, 3), -1)) \
    X(rms_norm_null, FTR_ERROR_INVALID_TENSOR, "rms_norm: input 0 is a null tensor", \
      ftr_rms_norm_with(NOTHING, B(4), NULL)) \
    X(rms_norm_name, FTR_ERROR_NAME, "rms_norm: the layer has no name", ftr_rms_norm(A(4, 3), "", NULL)) \
    X(group_norm_groups, FTR_ERROR_SHAPE, \
      "group_norm 'group_norm_1': input has 6 channels, which groups 4 does not divide", \
      ftr_group_norm_with(A(2, 5, 6), 4, NOTHING, NOTHING, NULL)) \
    X(group_norm_no_groups, FTR_ERROR_SHAPE, \
      "group_norm 'gn': input has 6 channels, which groups 0 does not divide", ftr_group_norm(A(2, 6), "gn", 0, NULL)) \
    X(group_norm_rank, FTR_ERROR_RANK, "group_norm 'group_norm_1': input has rank 1, expected 2 or more (n, ..., c)", \
      ftr_group_norm_with(A(6), 2, NOTHING, NOTHING, NULL)) \
    X(group_norm_cookie, FTR_ERROR_INVALID_ARGUMENT, "group_norm: desc was not made by ftr_group_norm_defaults()", \
      ftr_group_norm_with(A(2, 6), 2, NOTHING, NOTHING, &(ftr_group_norm_desc){0})) \
    X(max_pool_rank, FTR_ERROR_RANK, "max_pool2d 'max_pool2d_1': input has rank 3, expected 4 (n, h, w, c)", \
      ftr_max_pool2d(A(4, 4, 2), 2, 2, NULL)) \
    X(max_pool_window, FTR_ERROR_SHAPE, \
      "max_pool2d 'max_pool2d_1': window 5 x 2 does not fit the padded input of 4 x 4", \
      ftr_max_pool2d(A(1, 4, 4, 2), 5, 2, NULL)) \
    X(max_pool_no_window, FTR_ERROR_INVALID_ARGUMENT, "max_pool2d 'max_pool2d_1': window 0 x 2, expected 1 or more", \
      ftr_max_pool2d(A(1, 4, 4, 2), 0, 2, NULL)) \
    X(max_pool_padding, FTR_ERROR_INVALID_ARGUMENT, \
      "max_pool2d 'max_pool2d_1': padding 2, expected 0 to 1 (half the window)", \
      ftr_max_pool2d(A(1, 4, 4, 2), 2, 2, &(ftr_pool2d_desc){.padding = {2, 0, 0, 0}})) \
    X(max_pool_dtype, FTR_ERROR_DTYPE, "max_pool2d 'max_pool2d_1': input is i32, expected floating point", \
      ftr_max_pool2d(A_AS(FTR_I32, 1, 4, 4, 2), 2, 2, NULL)) \
    X(avg_pool_stride, FTR_ERROR_INVALID_ARGUMENT, "avg_pool2d 'avg_pool2d_1': stride -1, expected 1 or more", \
      ftr_avg_pool2d(A(1, 4, 4, 2), 2, 2, &(ftr_pool2d_desc){.stride = {-1, 1}})) \
    X(avg_pool_empty, FTR_ERROR_SHAPE, \
      "avg_pool2d 'avg_pool2d_1': input is 0 x 4, expected 1 to 2147483647 elements", \
      ftr_avg_pool2d(A(1, 0, 4, 2), 1, 1, NULL)) \
    X(avg_pool_rank, FTR_ERROR_RANK, "avg_pool2d 'avg_pool2d_1': input has rank 5, expected 4 (n, h, w, c)", \
      ftr_avg_pool2d(A(1, 4, 4, 2, 1), 2, 2, NULL)) \
    X(global_pool_rank, FTR_ERROR_RANK, "global_avg_pool of 'a': input has rank 2, expected 4 (n, h, w, c)", \
      ftr_global_avg_pool(A(4, 2))) \
    X(dropout_p, FTR_ERROR_INVALID_ARGUMENT, "dropout 'dropout_1': p 1.5, expected 0 to 1", ftr_dropout(A(3), 1.5)) \
    X(dropout_negative, FTR_ERROR_INVALID_ARGUMENT, "dropout 'dropout_1': p -0.1, expected 0 to 1", \
      ftr_dropout(A(3), -0.1)) \
    X(dropout_nan, FTR_ERROR_INVALID_ARGUMENT, "dropout 'dropout_1': p nan, expected 0 to 1", \
      ftr_dropout(A(3), (double)NAN)) \
    X(dropout_dtype, FTR_ERROR_DTYPE, "dropout 'dropout_1': input is i32, expected floating point", \
      ftr_dropout(A_AS(FTR_I32, 3), 0.5)) \
    X(reshape_count, FTR_ERROR_SHAPE, "reshape 'reshape_1': [2, 3] has 6 elements, [4] has 4", \
      ftr_reshape(A(2, 3), FTR_SHAPE(4))) \
    X(reshape_two_open, FTR_ERROR_SHAPE, "reshape 'reshape_1': [-1, -1] has more than one -1", \
      ftr_reshape(A(2, 3), FTR_SHAPE(-1, -1))) \
    X(reshape_open, FTR_ERROR_SHAPE, "reshape 'reshape_1': [2, 3] has 6 elements, which do not fit [4, -1]", \
      ftr_reshape(A(2, 3), FTR_SHAPE(4, -1))) \
    X(reshape_negative, FTR_ERROR_SHAPE, \
      "reshape 'reshape_1': dimension 0 of the new shape is -2, expected -1 or more", \
      ftr_reshape(A(2, 3), FTR_SHAPE(-2, -3))) \
    X(reshape_rank, FTR_ERROR_RANK, "reshape 'reshape_1': the new shape has rank 7, expected 0 to 6", \
      ftr_reshape(A(2, 3), (ftr_shape){.rank = 7})) \
    X(flatten_axis, FTR_ERROR_INVALID_ARGUMENT, "flatten of 'a': axis 2 of a tensor of rank 2", \
      ftr_flatten(A(2, 3), 2)) \
    X(transpose_count, FTR_ERROR_INVALID_ARGUMENT, "transpose of 'a': order has 3 axes, expected 2", \
      ftr_transpose(A(2, 3), FTR_AXES(0, 1, 2))) \
    X(transpose_twice, FTR_ERROR_INVALID_ARGUMENT, "transpose 'transpose_1': axis 1 is there twice", \
      ftr_transpose(A(2, 3), FTR_AXES(1, 1))) \
    X(transpose_axis, FTR_ERROR_INVALID_ARGUMENT, "transpose 'transpose_1': axis 2 of a tensor of rank 2", \
      ftr_transpose(A(2, 3), FTR_AXES(0, 2))) \
    X(expand_shape, FTR_ERROR_SHAPE, "expand 'expand_1': [2, 3] does not expand to [2, 4]", \
      ftr_expand(A(2, 3), FTR_SHAPE(2, 4))) \
    X(expand_rank, FTR_ERROR_SHAPE, "expand 'expand_1': [2, 3] does not expand to [3]", \
      ftr_expand(A(2, 3), FTR_SHAPE(3))) \
    X(expand_negative, FTR_ERROR_SHAPE, "expand 'expand_1': dimension 0 of the new shape is -1, expected 0 or more", \
      ftr_expand(A(1, 3), FTR_SHAPE(-1, 3))) \
    X(concat_many, FTR_ERROR_INVALID_ARGUMENT, "concat: 17 tensors, expected 1 to 16", concat_of(g, 17, 0)) \
    X(concat_axis, FTR_ERROR_INVALID_ARGUMENT, "concat 'concat_17': axis 2 of a tensor of rank 2", \
      concat_of(g, 2, 2)) \
    X(concat_shapes, FTR_ERROR_SHAPE, "concat 'concat_2': input 0 is [2, 3], input 1 is [2, 4]: dimension 1 differs", \
      ftr_concat((ftr_tensor[]){A(2, 3), B(2, 4)}, 2, 0)) \
    X(concat_ranks, FTR_ERROR_RANK, "concat 'concat_2': input 0 has rank 2, input 1 has rank 1", \
      ftr_concat((ftr_tensor[]){A(2, 3), B(2)}, 2, 0)) \
    X(concat_dtypes, FTR_ERROR_DTYPE, "concat 'concat_2': input 0 is f32, input 1 is i32: all must have one type", \
      ftr_concat((ftr_tensor[]){A(2), B_AS(FTR_I32, 2)}, 2, 0)) \
    X(concat_null, FTR_ERROR_INVALID_TENSOR, "concat: input 1 is a null tensor", \
      ftr_concat((ftr_tensor[]){A(2), NOTHING}, 2, 0)) \
    X(slice_axis, FTR_ERROR_INVALID_ARGUMENT, "slice 'slice_1': axis 2 of a tensor of rank 2", \
      ftr_slice(A(2, 3), 2, 0, 1, 1)) \
    X(slice_step, FTR_ERROR_INVALID_ARGUMENT, "slice 'slice_1': step 0, expected 1 or more", \
      ftr_slice(A(2, 3), 0, 0, 1, 0)) \
    X(slice_negative_step, FTR_ERROR_INVALID_ARGUMENT, "slice 'slice_1': step -1, expected 1 or more", \
      ftr_slice(A(2, 3), 0, 1, 0, -1)) \
    X(pad_rank, FTR_ERROR_RANK, "pad of 'a': before has rank 1, after has rank 2, expected 2", \
      ftr_pad(A(2, 3), FTR_SHAPE(1), FTR_SHAPE(1, 1), 0)) \
    X(pad_negative, FTR_ERROR_INVALID_ARGUMENT, "pad 'pad_1': dimension 1 is padded by -1 and 1, expected 0 or more", \
      ftr_pad(A(2, 3), FTR_SHAPE(0, -1), FTR_SHAPE(1, 1), 0)) \
    X(softmax_axis, FTR_ERROR_INVALID_ARGUMENT, "softmax 'softmax_1': axis 2 of a tensor of rank 2", \
      ftr_softmax(A(2, 3), 2)) \
    X(softmax_dtype, FTR_ERROR_DTYPE, "softmax 'softmax_1': input is i32, expected floating point", \
      ftr_softmax(A_AS(FTR_I32, 2, 3), 1)) \
    X(softmax_scalar, FTR_ERROR_INVALID_ARGUMENT, "softmax 'softmax_1': axis 0 of a tensor of rank 0", \
      ftr_softmax(scalar(g), 0)) \
    X(log_softmax_axis, FTR_ERROR_INVALID_ARGUMENT, "log_softmax 'log_softmax_1': axis -3 of a tensor of rank 2", \
      ftr_log_softmax(A(2, 3), -3)) \
    X(loss_labels_shape, FTR_ERROR_SHAPE, \
      "cross_entropy 'cross_entropy_2': labels are [5], expected [4] for logits [4, 3]", \
      ftr_cross_entropy(A(4, 3), B_AS(FTR_I32, 5), NULL)) \
    X(loss_labels_dtype, FTR_ERROR_DTYPE, "cross_entropy 'cross_entropy_2': labels are f32, expected i32 or i64", \
      ftr_cross_entropy(A(4, 3), B(4), NULL)) \
    X(loss_labels_rank, FTR_ERROR_SHAPE, \
      "cross_entropy 'cross_entropy_2': labels are [4, 1], expected [4] for logits [4, 3]", \
      ftr_cross_entropy(A(4, 3), B_AS(FTR_I32, 4, 1), NULL)) \
    X(loss_logits_dtype, FTR_ERROR_DTYPE, "cross_entropy 'cross_entropy_2': logits is i32, expected floating point", \
      ftr_cross_entropy(A_AS(FTR_I32, 4, 3), B_AS(FTR_I32, 4), NULL)) \
    X(loss_logits_rank, FTR_ERROR_RANK, \
      "cross_entropy 'cross_entropy_2': logits have rank 0, expected 1 or more (..., classes)", \
      ftr_cross_entropy(scalar(g), B_AS(FTR_I32, 4), NULL)) \
    X(loss_no_classes, FTR_ERROR_SHAPE, "cross_entropy 'cross_entropy_2': logits [4, 0] have no classes", \
      ftr_cross_entropy(A(4, 0), B_AS(FTR_I32, 4), NULL)) \
    X(loss_weights, FTR_ERROR_SHAPE, "cross_entropy 'cross_entropy_3': class weights is [4], expected [3]", \
      weighted_loss(A(4, 3), B_AS(FTR_I32, 4), C(4))) \
    X(loss_weights_dtype, FTR_ERROR_DTYPE, "cross_entropy 'cross_entropy_3': class weights is i32, expected f32", \
      weighted_loss(A(4, 3), B_AS(FTR_I32, 4), C_AS(FTR_I32, 3))) \
    X(loss_smoothing, FTR_ERROR_INVALID_ARGUMENT, \
      "cross_entropy 'cross_entropy_2': label_smoothing 1.5, expected 0 to 1", \
      smoothed_loss(A(4, 3), B_AS(FTR_I32, 4), 1.5)) \
    X(loss_cookie, FTR_ERROR_INVALID_ARGUMENT, "cross_entropy: desc was not made by ftr_cross_entropy_defaults()", \
      ftr_cross_entropy(A(4, 3), B_AS(FTR_I32, 4), &(ftr_cross_entropy_desc){0})) \
    X(loss_reduction, FTR_ERROR_INVALID_ARGUMENT, "cross_entropy 'cross_entropy_2': reduction 7, expected 0 to 2", \
      reduced_loss(A(4, 3), B_AS(FTR_I32, 4), (ftr_reduction)7)) \
    X(mse_shapes, FTR_ERROR_SHAPE, "mse: prediction is [4, 1], target is [4]: both must have one shape", \
      ftr_mse(A(4, 1), B(4), FTR_REDUCE_MEAN)) \
    X(mse_dtypes, FTR_ERROR_DTYPE, "mse: prediction is f32, target is f64: both must have one type", \
      ftr_mse(A(4), B_AS(FTR_F64, 4), FTR_REDUCE_MEAN)) \
    X(mse_integers, FTR_ERROR_DTYPE, "mse: prediction is i32, expected floating point", \
      ftr_mse(A_AS(FTR_I32, 4), B_AS(FTR_I32, 4), FTR_REDUCE_MEAN)) \
    X(mse_reduction, FTR_ERROR_INVALID_ARGUMENT, "mse: reduction -1, expected 0 to 2", \
      ftr_mse(A(4), B(4), (ftr_reduction)-1)) \
    X(nll_labels, FTR_ERROR_SHAPE, "nll 'nll_2': labels are [5], expected [4] for log-probabilities [4, 3]", \
      ftr_nll(A(4, 3), B_AS(FTR_I32, 5), NULL)) \
    X(nll_dtype, FTR_ERROR_DTYPE, "nll 'nll_2': log-probabilities is i32, expected floating point", \
      ftr_nll(A_AS(FTR_I32, 4, 3), B_AS(FTR_I32, 4), NULL)) \
    X(nll_cookie, FTR_ERROR_INVALID_ARGUMENT, "nll: desc was not made by ftr_cross_entropy_defaults()", \
      ftr_nll(A(4, 3), B_AS(FTR_I32, 4), &(ftr_cross_entropy_desc){0})) \
    X(nll_smoothing, FTR_ERROR_INVALID_ARGUMENT, "nll: label_smoothing 0.5, expected 0", \
      smoothed_nll(A(4, 3), B_AS(FTR_I32, 4))) \
    X(bce_shapes, FTR_ERROR_SHAPE, "bce_with_logits: logits is [4, 1], target is [4]: both must have one shape", \
      ftr_bce_with_logits(A(4, 1), B(4), NULL)) \
    X(bce_weight, FTR_ERROR_SHAPE, "bce_with_logits: pos_weight [4] does not broadcast to logits [4, 3]", \
      ftr_bce_with_logits(A(4, 3), B(4, 3), &(ftr_bce_desc){.pos_weight = C(4)})) \
    X(bce_weight_larger, FTR_ERROR_SHAPE, "bce_with_logits: pos_weight [4, 3] does not broadcast to logits [3]", \
      ftr_bce_with_logits(A(3), B(3), &(ftr_bce_desc){.pos_weight = C(4, 3)})) \
    X(bce_weight_dtype, FTR_ERROR_DTYPE, "bce_with_logits: pos_weight is f64, expected f32", \
      ftr_bce_with_logits(A(3), B(3), &(ftr_bce_desc){.pos_weight = C_AS(FTR_F64, 3)})) \
    X(bce_reduction, FTR_ERROR_INVALID_ARGUMENT, "bce_with_logits: reduction 3, expected 0 to 2", \
      ftr_bce_with_logits(A(3), B(3), &(ftr_bce_desc){.reduction = FTR_REDUCE_BATCH_MEAN})) \
    X(kl_div_dtypes, FTR_ERROR_DTYPE, "kl_div: input is f32, target is i32: both must have one type", \
      ftr_kl_div(A(4), B_AS(FTR_I32, 4), false, FTR_REDUCE_MEAN)) \
    X(kl_div_reduction, FTR_ERROR_INVALID_ARGUMENT, "kl_div: reduction 4, expected 0 to 3", \
      ftr_kl_div(A(4), B(4), false, (ftr_reduction)4)) \
    X(kl_div_batch, FTR_ERROR_RANK, "kl_div: input has rank 0, a batch mean needs 1 or more", \
      ftr_kl_div(scalar(g), real(g, "b", ftr_scalar_shape()), false, FTR_REDUCE_BATCH_MEAN)) \
    X(smooth_l1_beta, FTR_ERROR_INVALID_ARGUMENT, "smooth_l1: beta -1, expected a finite number of 0 or more", \
      ftr_smooth_l1(A(4), B(4), -1, FTR_REDUCE_MEAN)) \
    X(smooth_l1_null, FTR_ERROR_INVALID_TENSOR, "smooth_l1: input 1 is a null tensor", \
      ftr_smooth_l1(A(4), NOTHING, 1, FTR_REDUCE_MEAN)) \
    X(accuracy_shape, FTR_ERROR_SHAPE, "accuracy: labels are [3], expected [4] for logits [4, 3]", \
      ftr_accuracy(A(4, 3), B_AS(FTR_I32, 3))) \
    X(accuracy_labels, FTR_ERROR_DTYPE, "accuracy: labels are f32, expected i32 or i64", ftr_accuracy(A(4, 3), B(4))) \
    X(accuracy_logits, FTR_ERROR_DTYPE, "accuracy: logits are i32, expected floating point", \
      ftr_accuracy(A_AS(FTR_I32, 4, 3), B_AS(FTR_I32, 4))) \
    X(accuracy_rank, FTR_ERROR_RANK, "accuracy: logits have rank 0, expected 1 or more (..., classes)", \
      ftr_accuracy(scalar(g), B_AS(FTR_I32, 4))) \
    X(embedding_indices, FTR_ERROR_DTYPE, "embedding 'embedding_2': indices are f32, expected i32 or i64", \
      ftr_embedding_with(A(5, 3), B(4))) \
    X(embedding_weight, FTR_ERROR_RANK, "embedding 'embedding_2': weight has rank 3, expected 2 (rows, width)", \
      ftr_embedding_with(A(5, 3, 1), B_AS(FTR_I32, 4))) \
    X(embedding_weight_type, FTR_ERROR_DTYPE, "embedding 'embedding_2': weight is i32, expected floating point", \
      ftr_embedding_with(A_AS(FTR_I32, 5, 3), B_AS(FTR_I32, 4))) \
    X(embedding_rank, FTR_ERROR_RANK, "embedding 'embedding_2': indices have rank 6, expected 5 or less", \
      ftr_embedding_with(A(5, 3), B_AS(FTR_I32, 1, 1, 1, 1, 1, 2))) \
    X(embedding_name, FTR_ERROR_NAME, "embedding: the layer has no name", \
      ftr_embedding(A_AS(FTR_I32, 4), "", 5, 3, NULL)) \
    X(embedding_rows, FTR_ERROR_INVALID_ARGUMENT, "embedding 'emb': rows 0, width 3, expected 1 or more", \
      ftr_embedding(A_AS(FTR_I32, 4), "emb", 0, 3, NULL)) \
    X(embedding_layer_indices, FTR_ERROR_DTYPE, "embedding 'emb': indices are f32, expected i32 or i64", \
      ftr_embedding(A(4), "emb", 5, 3, NULL)) \
    X(gather_index, FTR_ERROR_DTYPE, "gather 'gather_2': index is bool, expected i32 or i64", \
      ftr_gather(A(5, 3), 0, B_AS(FTR_BOOL, 5, 3))) \
    X(gather_rank, FTR_ERROR_RANK, \
      "gather 'gather_2': index has rank 1, x has rank 2, expected one rank of 1 or more", \
      ftr_gather(A(5, 3), 0, B_AS(FTR_I32, 5))) \
    X(gather_larger, FTR_ERROR_SHAPE, "gather 'gather_2': index is [9, 4], x is [5, 3]: dimension 1 is larger", \
      ftr_gather(A(5, 3), 0, B_AS(FTR_I32, 9, 4))) \
    X(gather_axis, FTR_ERROR_INVALID_ARGUMENT, "gather 'gather_2': axis 2 of a tensor of rank 2", \
      ftr_gather(A(5, 3), 2, B_AS(FTR_I32, 5, 3))) \
    X(scatter_source, FTR_ERROR_SHAPE, \
      "scatter_add 'scatter_add_3': index is [5, 3], source is [4, 3]: dimension 0 is larger", \
      ftr_scatter_add(A(9, 3), 0, B_AS(FTR_I32, 5, 3), C(4, 3))) \
    X(scatter_types, FTR_ERROR_DTYPE, "scatter_add 'scatter_add_3': x is f32, source is i32: both must have one type", \
      ftr_scatter_add(A(9, 3), 0, B_AS(FTR_I32, 5, 3), C_AS(FTR_I32, 5, 3))) \
    X(scatter_bool, FTR_ERROR_DTYPE, "scatter_add 'scatter_add_3': source is bool, expected floating point, i32 or i64", \
      ftr_scatter_add(A_AS(FTR_BOOL, 9), 0, B_AS(FTR_I32, 5), C_AS(FTR_BOOL, 5))) \
    X(scatter_axis, FTR_ERROR_INVALID_ARGUMENT, "scatter_add 'scatter_add_3': axis -3 of a tensor of rank 2", \
      ftr_scatter_add(A(9, 3), -3, B_AS(FTR_I32, 5, 3), C(5, 3))) \
    X(one_hot_indices, FTR_ERROR_DTYPE, "one_hot 'one_hot_1': indices are u8, expected i32 or i64", \
      ftr_one_hot(A_AS(FTR_U8, 4), 3, FTR_F32)) \
    X(one_hot_classes, FTR_ERROR_INVALID_ARGUMENT, "one_hot 'one_hot_1': classes 0, expected 1 or more", \
      ftr_one_hot(A_AS(FTR_I32, 4), 0, FTR_F32)) \
    X(one_hot_type, FTR_ERROR_INVALID_ARGUMENT, \
      "one_hot 'one_hot_1': dtype 42, expected one of ftr_dtype", \
      ftr_one_hot(A_AS(FTR_I32, 4), 3, (ftr_dtype)42)) \
    X(topk_k, FTR_ERROR_INVALID_ARGUMENT, "topk 'topk_1': k 4, expected 0 to 3", ftr_topk(A(2, 3), 4, NULL)) \
    X(topk_rank, FTR_ERROR_RANK, "topk 'topk_1': input has rank 0, expected 1 or more", ftr_topk(scalar(g), 1, NULL)) \
    X(topk_bool, FTR_ERROR_DTYPE, "topk 'topk_1': input is bool, expected floating point, i32 or i64", \
      ftr_topk(A_AS(FTR_BOOL, 3), 1, NULL)) \
    X(cumsum_axis, FTR_ERROR_INVALID_ARGUMENT, "cumsum 'cumsum_1': axis 0 of a tensor of rank 0", \
      ftr_cumsum(scalar(g), 0, false)) \
    X(cumsum_bool, FTR_ERROR_DTYPE, "cumsum 'cumsum_1': input is bool, expected floating point, i32 or i64", \
      ftr_cumsum(A_AS(FTR_BOOL, 3), 0, false)) \
    X(prod_axis, FTR_ERROR_INVALID_ARGUMENT, "prod of 'a': axis -3 of a tensor of rank 2", \
      ftr_prod(A(2, 3), FTR_AXES(-3), false)) \
    X(prod_bool, FTR_ERROR_DTYPE, "prod 'prod_1': input is bool, expected floating point, i32 or i64", \
      ftr_prod(A_AS(FTR_BOOL, 3), ftr_all_axes(), false)) \
    X(logsumexp_twice, FTR_ERROR_INVALID_ARGUMENT, "logsumexp of 'a': axis 1 is there twice", \
      ftr_logsumexp(A(2, 3), FTR_AXES(-1, 1), false)) \
    X(logsumexp_integers, FTR_ERROR_DTYPE, "logsumexp 'logsumexp_1': input is i32, expected floating point", \
      ftr_logsumexp(A_AS(FTR_I32, 3), ftr_all_axes(), false)) \
    X(var_correction, FTR_ERROR_INVALID_ARGUMENT, "var of 'a': correction 2, expected 0 or 1", \
      ftr_var(A(2, 3), FTR_AXES(0), 2, false)) \
    X(var_integers, FTR_ERROR_DTYPE, "var of 'a': input is i64, expected floating point", \
      ftr_var(A_AS(FTR_I64, 3), ftr_all_axes(), 0, false)) \
    X(norm_p, FTR_ERROR_INVALID_ARGUMENT, "norm of 'a': p 3, expected 1, 2 or INFINITY", \
      ftr_norm(A(2, 3), 3, FTR_AXES(0), false)) \
    X(norm_axis, FTR_ERROR_INVALID_ARGUMENT, "norm of 'a': axis 2 of a tensor of rank 2", \
      ftr_norm(A(2, 3), 2, FTR_AXES(2), false)) \
    X(norm_of_nothing, FTR_ERROR_SHAPE, "max 'max_3': axis 0 of [0] has size 0, expected 1 or more", \
      ftr_norm(A(0), INFINITY, ftr_all_axes(), false)) \
    X(split_equal, FTR_ERROR_SHAPE, "split of 'a': 3 equal parts of an axis of size 8", split_of(A(2, 8), 1, NULL, 3)) \
    X(split_sizes, FTR_ERROR_SHAPE, "split of 'a': the sizes of the 2 parts do not add up to 8, the size of axis -1", \
      split_of(A(2, 8), -1, three_four, 2)) \
    X(split_negative, FTR_ERROR_SHAPE, \
      "split of 'a': the sizes of the 3 parts do not add up to 6, the size of axis 0", \
      split_of(A(6), 0, minus_one, 3)) \
    X(split_axis, FTR_ERROR_INVALID_ARGUMENT, "split of 'a': axis 1 of a tensor of rank 1", \
      split_of(A(6), 1, NULL, 3)) \
    X(stack_shapes, FTR_ERROR_SHAPE, "stack: input 0 is [2, 3], input 1 is [3, 2]: all must have one shape", \
      stack_of(A(2, 3), B(3, 2), 0)) \
    X(stack_axis, FTR_ERROR_INVALID_ARGUMENT, "stack: new axis 3 for tensors of rank 2", \
      stack_of(A(2, 3), B(2, 3), 3)) \
    X(stack_rank, FTR_ERROR_RANK, "stack: tensors have rank 6, expected 5 or less", \
      stack_of(A(1, 1, 1, 1, 1, 1), B(1, 1, 1, 1, 1, 1), 0)) \
    X(two_graphs, FTR_ERROR_INVALID_TENSOR, "add: input 1 belongs to another graph", two_graphs(g)) \
    X(scoped_layer, FTR_ERROR_SHAPE, \
      "conv2d 'block.1.conv1': kernel 3 x 3 (dilation 1) does not fit the padded input of 2 x 2", scoped_layer(g))
/* clang-format on */

#define BUILDER(name, code, sentence, expression)                                                                      \
    static ftr_tensor build_##name(ftr_graph *g) {                                                                     \
        (void)g;                                                                                                       \
        return expression;                                                                                             \
    }
OP_ERRORS(BUILDER)

#define ROW(name, code, sentence, expression) {#name, build_##name, code, sentence},
static const op_error errors[] = {OP_ERRORS(ROW)};

/* ----------------------------------------------------------------------------------------------- labels of the data */

/* Labels are data: they fail the step, on every row that counts, and nothing is updated. */
typedef struct label_error {
    const char *name;
    int64_t labels[4];
    bool i64, masked; /* masked: row 3 is padding */
    ftr_status status;
    const char *message;
} label_error;

static const label_error label_errors[] = {
    {"label_above",
     {0, 1, 3, 2},
     false,
     false,
     FTR_ERROR_DATA,
     "cross_entropy 'cross_entropy_5': label 3 at row 2 is outside the 3 classes"},
    {"label_negative",
     {0, -1, 2, 2},
     false,
     false,
     FTR_ERROR_DATA,
     "cross_entropy 'cross_entropy_5': label -1 at row 1 is outside the 3 classes"},
    {"label_i64",
     {0, 1, 2, INT64_C(4294967296)},
     true,
     false,
     FTR_ERROR_DATA,
     "cross_entropy 'cross_entropy_5': label 4294967296 at row 3 is outside the 3 classes"},
    {"label_first_of_two",
     {7, 1, 2, 8},
     true,
     false,
     FTR_ERROR_DATA,
     "cross_entropy 'cross_entropy_5': label 7 at row 0 is outside the 3 classes"},
    {"label_nll", {0, 1, 2, 3}, false, false, FTR_ERROR_DATA, "nll 'nll_6': label 3 at row 3 is outside the 3 classes"},
    {"label_ignored", {0, -100, 2, 2}, false, false, FTR_OK, ""},
    {"label_of_padding", {0, 1, 2, 99}, false, true, FTR_OK, ""},
};

static void test_label(const label_error *e) {
    ftr_context *context = ftr_test_context();
    ftr_graph *g = ftr_graph_create(context);
    ftr_tensor mask = {0};
    if (e->masked) {
        mask = ftr_batch_mask(g, 4);
    }
    ftr_tensor x = real(g, "x", FTR_SHAPE(4, 2)), y = ftr_input(g, "y", e->i64 ? FTR_I64 : FTR_I32, FTR_SHAPE(4));
    ftr_tensor logits = ftr_linear(x, "fc", 3, NULL);
    ftr_tensor loss =
        strstr(e->name, "nll") ? ftr_nll(ftr_log_softmax(logits, -1), y, NULL) : ftr_cross_entropy(logits, y, NULL);
    ftr_optimizer sgd = ftr_sgd(0.5);
    ftr_plan *plan = NULL;
    FTR_TEST_OK(context, ftr_compile(g, &(ftr_compile_desc){.loss = loss, .optimizer = &sgd}, &plan));
    const float data[8] = {1, 2, 3, 4, 5, 6, 7, 8}, rows[4] = {1, 1, 1, 0};
    int32_t narrow[4];
    for (int i = 0; i < 4; i++) {
        narrow[i] = (int32_t)e->labels[i];
    }
    FTR_TEST_OK(context, ftr_feed(plan, x, data, sizeof data));
    FTR_TEST_OK(context, ftr_feed(plan, y, e->i64 ? (const void *)e->labels : narrow, e->i64 ? 32 : 16));
    if (e->masked) {
        FTR_TEST_OK(context, ftr_feed(plan, mask, rows, sizeof rows));
    }
    float before[6], after[6];
    ftr_tensor weight = ftr_variable_find(g, "fc.weight");
    FTR_TEST_OK(context, ftr_variable_read(weight, before, sizeof before));
    ftr_status status = ftr_step(plan, NULL);
    FTR_TEST_OK(context, ftr_variable_read(weight, after, sizeof after));
    assert_string_equal(ftr_error_message(context), e->message);
    assert_int_equal(status, e->status);
    if (status != FTR_OK) {
        assert_memory_equal(before, after, sizeof before);
        assert_int_equal(ftr_plan_steps(plan), 0);
    }
    ftr_plan_destroy(plan);
    ftr_graph_destroy(g);
    ftr_context_destroy(context);
}

/* ---------------------------------------------------------------------------------------------- indices of the data */

static ftr_tensor use_embedding(ftr_tensor weight, ftr_tensor index) { return ftr_embedding_with(weight, index); }

static ftr_tensor use_gather(ftr_tensor weight, ftr_tensor index) {
    return ftr_gather(ftr_reshape(weight, FTR_SHAPE(6)), 0, index);
}

static ftr_tensor use_scatter(ftr_tensor weight, ftr_tensor index) {
    ftr_tensor source = ftr_slice(ftr_reshape(weight, FTR_SHAPE(6)), 0, 0, 4, 1);
    return ftr_scatter_add(ftr_reshape(weight, FTR_SHAPE(6)), 0, index, source);
}

static ftr_tensor use_one_hot(ftr_tensor weight, ftr_tensor index) {
    ftr_tensor hot = ftr_one_hot(index, 3, FTR_F32);
    return ftr_matmul(hot, weight, false, false);
}

/* Like labels, indices are data. The weight is [3, 2]. */
typedef struct index_error {
    const char *name;
    ftr_tensor (*use)(ftr_tensor weight, ftr_tensor index);
    int64_t indices[4];
    bool i64;
    ftr_status status;
    const char *message;
} index_error;

static const index_error index_errors[] = {
    {"index_good", use_embedding, {0, 2, 2, 1}, false, FTR_OK, ""},
    {"index_above",
     use_embedding,
     {0, 1, 3, 7},
     false,
     FTR_ERROR_DATA,
     "embedding 'embedding_2': index 3 at position 2 is outside the 3 rows"},
    {"index_negative",
     use_embedding,
     {0, -1, 2, 2},
     true,
     FTR_ERROR_DATA,
     "embedding 'embedding_2': index -1 at position 1 is outside the 3 rows"},
    {"index_i64",
     use_embedding,
     {0, 1, 2, INT64_C(4294967296)},
     true,
     FTR_ERROR_DATA,
     "embedding 'embedding_2': index 4294967296 at position 3 is outside the 3 rows"},
    {"index_gather",
     use_gather,
     {0, 5, 6, 2},
     false,
     FTR_ERROR_DATA,
     "gather 'gather_3': index 6 at position 2 is outside axis 0, which has size 6"},
    {"index_scatter_add",
     use_scatter,
     {-2, 5, 6, 2},
     true,
     FTR_ERROR_DATA,
     "scatter_add 'scatter_add_5': index -2 at position 0 is outside axis 0, which has size 6"},
    {"index_one_hot",
     use_one_hot,
     {0, 1, 2, 3},
     false,
     FTR_ERROR_DATA,
     "one_hot 'one_hot_2': index 3 at position 3 is outside the 3 classes"},
};

static void test_index(const index_error *e) {
    ftr_context *context = ftr_test_context();
    ftr_graph *g = ftr_graph_create(context);
    ftr_tensor weight = ftr_parameter(g, "w", FTR_F32, FTR_SHAPE(3, 2), (ftr_init){FTR_INIT_UNIFORM, -1, 1});
    ftr_tensor index = ftr_input(g, "i", e->i64 ? FTR_I64 : FTR_I32, FTR_SHAPE(4));
    ftr_tensor y = e->use(weight, index);
    ftr_optimizer sgd = ftr_sgd(0.5);
    ftr_plan *plan = NULL;
    ftr_tensor loss = ftr_sum(ftr_mul(y, y), ftr_all_axes(), false);
    FTR_TEST_OK(context, ftr_compile(g, &(ftr_compile_desc){.loss = loss, .optimizer = &sgd}, &plan));
    int32_t narrow[4];
    for (int i = 0; i < 4; i++) {
        narrow[i] = (int32_t)e->indices[i];
    }
    FTR_TEST_OK(context, ftr_feed(plan, index, e->i64 ? (const void *)e->indices : narrow, e->i64 ? 32 : 16));
    float before[6], after[6];
    FTR_TEST_OK(context, ftr_variable_read(weight, before, sizeof before));
    ftr_status status = ftr_step(plan, NULL);
    FTR_TEST_OK(context, ftr_variable_read(weight, after, sizeof after));
    assert_string_equal(ftr_error_message(context), e->message);
    assert_int_equal(status, e->status);
    assert_int_equal(memcmp(before, after, sizeof before) == 0, status != FTR_OK);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(g);
    ftr_context_destroy(context);
}

/* -------------------------------------------------------------------------------------------------------- the tests */

enum { LABEL_ERRORS = FTR_TEST_LENGTH(label_errors), INDEX_ERRORS = FTR_TEST_LENGTH(index_errors) };

/* Files errors_<family>.c export a family each. */
static const op_error_family *const families[] = {
    &(const op_error_family){errors, FTR_TEST_LENGTH(errors)},
    &rest_errors,
    &attention_errors,
    &image_errors,
    &mix_errors,
};

static int32_t builder_errors(void) {
    int32_t count = 0;
    for (size_t f = 0; f < FTR_TEST_LENGTH(families); f++) {
        count += families[f]->count;
    }
    return count;
}

static const op_error *builder_error(int32_t index) {
    size_t f = 0;
    for (; index >= families[f]->count; f++) {
        index -= families[f]->count;
    }
    return &families[f]->rows[index];
}

bool op_error_names(const char *op) {
    for (int32_t i = 0; i < builder_errors(); i++) {
        const char *message = builder_error(i)->message, *after = message + strlen(op);
        bool same = strncmp(message, op, strlen(op)) == 0;
        if (same && (strncmp(after, " '", 2) == 0 || strncmp(after, " of '", 5) == 0 || *after == ':')) {
            return true;
        }
    }
    return false;
}

int32_t op_error_count(void) { return builder_errors() + LABEL_ERRORS + INDEX_ERRORS; }

const char *op_error_name(int32_t index) {
    int32_t data = index - builder_errors();
    if (data < 0) {
        return builder_error(index)->name;
    }
    return data < LABEL_ERRORS ? label_errors[data].name : index_errors[data - LABEL_ERRORS].name;
}

const void *op_error_state(int32_t index) {
    int32_t data = index - builder_errors();
    if (data < 0) {
        return builder_error(index);
    }
    return data < LABEL_ERRORS ? (const void *)&label_errors[data] : &index_errors[data - LABEL_ERRORS];
}

void op_error_test(void **state) {
    const char *address = (const char *)*state, *first = (const char *)label_errors;
    if (address >= first && address < first + sizeof label_errors) {
        test_label((const label_error *)*state);
        return;
    }
    first = (const char *)index_errors;
    if (address >= first && address < first + sizeof index_errors) {
        test_index((const index_error *)*state);
        return;
    }
    const op_error *e = (const op_error *)*state;
    ftr_test_memory memory = {0};
    ftr_context *context = ftr_test_context_with(NULL, 1, 1, &memory);
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor result = e->build(graph);
    /* The first failure sticks, whatever is built on it, and compiling reports it. */
    ftr_tensor next = ftr_relu(result);
    ftr_add(next, ftr_input(graph, "later", FTR_I32, FTR_SHAPE(3)));
    ftr_plan *plan = (ftr_plan *)&memory;
    ftr_status compiled = ftr_compile(graph, &(ftr_compile_desc){.outputs = &next, .output_count = 1}, &plan);
    char sentence[512], reported[512];
    snprintf(sentence, sizeof sentence, "%s", ftr_graph_error(graph));
    snprintf(reported, sizeof reported, "%s", ftr_error_message(context));
    ftr_status status = ftr_graph_status(graph);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
    assert_string_equal(sentence, e->message);
    assert_int_equal(status, e->status);
    assert_false(ftr_is_valid(result) || ftr_is_valid(next));
    assert_int_equal(compiled, e->status);
    assert_string_equal(reported, e->message);
    assert_null(plan);
    assert_int_equal(memory.live, 0);
}
