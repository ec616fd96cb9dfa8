#include "errors.h"

/* ------------------------------------------------------------------------------------------- what the rows are made of */

static ftr_tensor real(ftr_graph *g, const char *name, ftr_shape shape) { return ftr_input(g, name, FTR_F32, shape); }

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

static ftr_tensor concat_of(ftr_graph *g, int32_t count, int32_t axis) {
    ftr_tensor parts[17];
    for (int32_t i = 0; i < 17; i++) {
        char name[8];
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

/* ------------------------------------------------------------------------------------------------------------ the rows */

/* X(name, status, sentence, what is built) */
/* clang-format off */
#define OP_ERRORS(X) \
    X(add_shapes, FTR_ERROR_SHAPE, "?", ftr_add(real(g, "a", FTR_SHAPE(2, 3)), real(g, "b", FTR_SHAPE(4)))) \
    X(add_dtypes, FTR_ERROR_DTYPE, "?", ftr_add(real(g, "a", FTR_SHAPE(2, 3)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(2, 3)))) \
    X(add_bool, FTR_ERROR_DTYPE, "?", ftr_add(ftr_input(g, "a", FTR_BOOL, FTR_SHAPE(3)), ftr_input(g, "b", FTR_BOOL, FTR_SHAPE(3)))) \
    X(add_u8, FTR_ERROR_DTYPE, "?", ftr_add(ftr_input(g, "a", FTR_U8, FTR_SHAPE(3)), ftr_input(g, "b", FTR_U8, FTR_SHAPE(3)))) \
    X(add_null, FTR_ERROR_INVALID_TENSOR, "?", ftr_add((ftr_tensor){0}, real(g, "b", FTR_SHAPE(4)))) \
    X(add_null_right, FTR_ERROR_INVALID_TENSOR, "?", ftr_add(real(g, "a", FTR_SHAPE(4)), (ftr_tensor){0})) \
    X(sub_shapes, FTR_ERROR_SHAPE, "?", ftr_sub(real(g, "a", FTR_SHAPE(2, 0)), real(g, "b", FTR_SHAPE(2, 3)))) \
    X(mul_dtypes, FTR_ERROR_DTYPE, "?", ftr_mul(ftr_input(g, "a", FTR_I32, FTR_SHAPE(2)), ftr_input(g, "b", FTR_I64, FTR_SHAPE(2)))) \
    X(div_shapes, FTR_ERROR_SHAPE, "?", ftr_div(real(g, "a", FTR_SHAPE(2, 3, 4)), real(g, "b", FTR_SHAPE(2, 4)))) \
    X(pow_integers, FTR_ERROR_DTYPE, "?", ftr_pow(ftr_input(g, "a", FTR_I32, FTR_SHAPE(3)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(3)))) \
    X(pow_shapes, FTR_ERROR_SHAPE, "?", ftr_pow(real(g, "a", FTR_SHAPE(3)), real(g, "b", FTR_SHAPE(2)))) \
    X(maximum_bool, FTR_ERROR_DTYPE, "?", ftr_maximum(ftr_input(g, "a", FTR_BOOL, FTR_SHAPE(3)), ftr_input(g, "b", FTR_BOOL, FTR_SHAPE(3)))) \
    X(maximum_shapes, FTR_ERROR_SHAPE, "?", ftr_maximum(real(g, "a", FTR_SHAPE(3, 2)), real(g, "b", FTR_SHAPE(3)))) \
    X(eq_dtypes, FTR_ERROR_DTYPE, "?", ftr_eq(real(g, "a", FTR_SHAPE(3)), ftr_input(g, "b", FTR_I64, FTR_SHAPE(3)))) \
    X(eq_shapes, FTR_ERROR_SHAPE, "?", ftr_eq(real(g, "a", FTR_SHAPE(3)), real(g, "b", FTR_SHAPE(2)))) \
    X(ne_shapes, FTR_ERROR_SHAPE, "?", ftr_ne(real(g, "a", FTR_SHAPE(2, 3)), real(g, "b", FTR_SHAPE(3, 2)))) \
    X(lt_bool, FTR_ERROR_DTYPE, "?", ftr_lt(ftr_input(g, "a", FTR_BOOL, FTR_SHAPE(3)), ftr_input(g, "b", FTR_BOOL, FTR_SHAPE(3)))) \
    X(le_dtypes, FTR_ERROR_DTYPE, "?", ftr_le(ftr_input(g, "a", FTR_U8, FTR_SHAPE(3)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(3)))) \
    X(gt_bool, FTR_ERROR_DTYPE, "?", ftr_gt(ftr_input(g, "a", FTR_BOOL, FTR_SHAPE(3)), ftr_input(g, "b", FTR_BOOL, FTR_SHAPE(3)))) \
    X(ge_shapes, FTR_ERROR_SHAPE, "?", ftr_ge(real(g, "a", FTR_SHAPE(5)), real(g, "b", FTR_SHAPE(4)))) \
    X(where_condition, FTR_ERROR_DTYPE, "?", ftr_where(real(g, "a", FTR_SHAPE(3)), real(g, "b", FTR_SHAPE(3)), real(g, "c", FTR_SHAPE(3)))) \
    X(where_dtypes, FTR_ERROR_DTYPE, "?", ftr_where(ftr_input(g, "a", FTR_BOOL, FTR_SHAPE(3)), real(g, "b", FTR_SHAPE(3)), ftr_input(g, "c", FTR_I32, FTR_SHAPE(3)))) \
    X(where_shapes, FTR_ERROR_SHAPE, "?", ftr_where(ftr_input(g, "a", FTR_BOOL, FTR_SHAPE(2)), real(g, "b", FTR_SHAPE(3)), real(g, "c", FTR_SHAPE(3)))) \
    X(neg_bool, FTR_ERROR_DTYPE, "?", ftr_neg(ftr_input(g, "a", FTR_BOOL, FTR_SHAPE(3)))) \
    X(exp_integers, FTR_ERROR_DTYPE, "?", ftr_exp(ftr_input(g, "a", FTR_I32, FTR_SHAPE(3)))) \
    X(log_integers, FTR_ERROR_DTYPE, "?", ftr_log(ftr_input(g, "a", FTR_I32, FTR_SHAPE(3)))) \
    X(sqrt_integers, FTR_ERROR_DTYPE, "?", ftr_sqrt(ftr_input(g, "a", FTR_I32, FTR_SHAPE(3)))) \
    X(rsqrt_integers, FTR_ERROR_DTYPE, "?", ftr_rsqrt(ftr_input(g, "a", FTR_I32, FTR_SHAPE(3)))) \
    X(tanh_integers, FTR_ERROR_DTYPE, "?", ftr_tanh(ftr_input(g, "a", FTR_I32, FTR_SHAPE(3)))) \
    X(sigmoid_integers, FTR_ERROR_DTYPE, "?", ftr_sigmoid(ftr_input(g, "a", FTR_I32, FTR_SHAPE(3)))) \
    X(relu_integers, FTR_ERROR_DTYPE, "?", ftr_relu(ftr_input(g, "a", FTR_U8, FTR_SHAPE(3)))) \
    X(cast_unknown, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_cast(real(g, "a", FTR_SHAPE(3)), (ftr_dtype)42)) \
    X(cast_none, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_cast(real(g, "a", FTR_SHAPE(3)), FTR_DTYPE_NONE)) \
    X(sum_axis, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_sum(real(g, "a", FTR_SHAPE(2, 3)), FTR_AXES(2), false)) \
    X(sum_twice, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_sum(real(g, "a", FTR_SHAPE(2, 3)), FTR_AXES(1, -1), false)) \
    X(sum_bool, FTR_ERROR_DTYPE, "?", ftr_sum(ftr_input(g, "a", FTR_BOOL, FTR_SHAPE(3)), ftr_all_axes(), false)) \
    X(sum_count, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_sum(real(g, "a", FTR_SHAPE(3)), (ftr_axes){.count = 9}, false)) \
    X(mean_integers, FTR_ERROR_DTYPE, "?", ftr_mean(ftr_input(g, "a", FTR_I32, FTR_SHAPE(3)), ftr_all_axes(), false)) \
    X(mean_axis, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_mean(real(g, "a", FTR_SHAPE(2, 3)), FTR_AXES(-3), true)) \
    X(max_nothing, FTR_ERROR_SHAPE, "?", ftr_max(real(g, "a", FTR_SHAPE(2, 0)), FTR_AXES(1), false)) \
    X(max_bool, FTR_ERROR_DTYPE, "?", ftr_max(ftr_input(g, "a", FTR_BOOL, FTR_SHAPE(3)), ftr_all_axes(), false)) \
    X(max_scalar_axis, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_max(real(g, "a", ftr_scalar_shape()), FTR_AXES(0), false)) \
    X(argmax_axis, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_argmax(real(g, "a", FTR_SHAPE(2, 3)), 5)) \
    X(argmax_nothing, FTR_ERROR_SHAPE, "?", ftr_argmax(real(g, "a", FTR_SHAPE(2, 0)), 1)) \
    X(argmax_bool, FTR_ERROR_DTYPE, "?", ftr_argmax(ftr_input(g, "a", FTR_BOOL, FTR_SHAPE(3)), 0)) \
    X(matmul_inner, FTR_ERROR_SHAPE, "?", ftr_matmul(real(g, "a", FTR_SHAPE(2, 3)), real(g, "b", FTR_SHAPE(4, 5)), false, false)) \
    X(matmul_inner_transposed, FTR_ERROR_SHAPE, "?", ftr_matmul(real(g, "a", FTR_SHAPE(2, 3)), real(g, "b", FTR_SHAPE(3, 5)), true, false)) \
    X(matmul_rank, FTR_ERROR_RANK, "?", ftr_matmul(real(g, "a", FTR_SHAPE(3)), real(g, "b", FTR_SHAPE(3, 5)), false, false)) \
    X(matmul_rank_right, FTR_ERROR_RANK, "?", ftr_matmul(real(g, "a", FTR_SHAPE(2, 3)), real(g, "b", FTR_SHAPE(3)), false, false)) \
    X(matmul_batch, FTR_ERROR_SHAPE, "?", ftr_matmul(real(g, "a", FTR_SHAPE(2, 3, 4)), real(g, "b", FTR_SHAPE(3, 4, 5)), false, false)) \
    X(matmul_integers, FTR_ERROR_DTYPE, "?", ftr_matmul(ftr_input(g, "a", FTR_I32, FTR_SHAPE(2, 3)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(3, 4)), false, false)) \
    X(matmul_dtypes, FTR_ERROR_DTYPE, "?", ftr_matmul(real(g, "a", FTR_SHAPE(2, 3)), ftr_input(g, "b", FTR_F64, FTR_SHAPE(3, 4)), false, false)) \
    X(linear_features, FTR_ERROR_SHAPE, "?", ftr_linear_with(real(g, "a", FTR_SHAPE(2, 3)), real(g, "b", FTR_SHAPE(4, 5)), (ftr_tensor){0})) \
    X(linear_weight_rank, FTR_ERROR_RANK, "?", ftr_linear_with(real(g, "a", FTR_SHAPE(2, 3)), real(g, "b", FTR_SHAPE(3)), (ftr_tensor){0})) \
    X(linear_bias, FTR_ERROR_SHAPE, "?", ftr_linear_with(real(g, "a", FTR_SHAPE(2, 3)), real(g, "b", FTR_SHAPE(4, 3)), real(g, "c", FTR_SHAPE(3)))) \
    X(linear_input_rank, FTR_ERROR_RANK, "?", ftr_linear_with(real(g, "a", ftr_scalar_shape()), real(g, "b", FTR_SHAPE(4, 3)), (ftr_tensor){0})) \
    X(linear_dtype, FTR_ERROR_DTYPE, "?", ftr_linear_with(ftr_input(g, "a", FTR_I32, FTR_SHAPE(2, 3)), real(g, "b", FTR_SHAPE(4, 3)), (ftr_tensor){0})) \
    X(linear_layer_features, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_linear(real(g, "a", FTR_SHAPE(2, 3)), "fc", 0, NULL)) \
    X(linear_layer_name, FTR_ERROR_NAME, "?", ftr_linear(real(g, "a", FTR_SHAPE(2, 3)), "", 4, NULL)) \
    X(linear_layer_null_name, FTR_ERROR_NAME, "?", ftr_linear(real(g, "a", FTR_SHAPE(2, 3)), NULL, 4, NULL)) \
    X(linear_layer_twice, FTR_ERROR_NAME, "?", ftr_linear(ftr_linear(real(g, "a", FTR_SHAPE(2, 3)), "fc", 4, NULL), "fc", 4, NULL)) \
    X(linear_layer_dtype, FTR_ERROR_DTYPE, "?", ftr_linear(ftr_input(g, "a", FTR_I64, FTR_SHAPE(2, 3)), "fc", 4, NULL)) \
    X(conv_channels, FTR_ERROR_SHAPE, "?", ftr_conv2d_with(real(g, "a", FTR_SHAPE(1, 5, 5, 4)), real(g, "b", FTR_SHAPE(2, 3, 3, 3)), (ftr_tensor){0}, NULL)) \
    X(conv_group_channels, FTR_ERROR_SHAPE, "?", ftr_conv2d_with(real(g, "a", FTR_SHAPE(1, 5, 5, 4)), real(g, "b", FTR_SHAPE(2, 3, 3, 3)), (ftr_tensor){0}, &(ftr_conv2d_desc){.groups = 2})) \
    X(conv_groups_input, FTR_ERROR_SHAPE, "?", ftr_conv2d_with(real(g, "a", FTR_SHAPE(1, 5, 5, 4)), real(g, "b", FTR_SHAPE(3, 3, 3, 1)), (ftr_tensor){0}, &(ftr_conv2d_desc){.groups = 3})) \
    X(conv_groups_output, FTR_ERROR_SHAPE, "?", ftr_conv2d_with(real(g, "a", FTR_SHAPE(1, 5, 5, 4)), real(g, "b", FTR_SHAPE(3, 3, 3, 2)), (ftr_tensor){0}, &(ftr_conv2d_desc){.groups = 2})) \
    X(conv_negative_groups, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_conv2d_with(real(g, "a", FTR_SHAPE(1, 5, 5, 4)), real(g, "b", FTR_SHAPE(3, 3, 3, 2)), (ftr_tensor){0}, &(ftr_conv2d_desc){.groups = -1})) \
    X(conv_stride, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_conv2d_with(real(g, "a", FTR_SHAPE(1, 5, 5, 4)), real(g, "b", FTR_SHAPE(3, 3, 3, 4)), (ftr_tensor){0}, &(ftr_conv2d_desc){.stride = {1, -2}})) \
    X(conv_padding, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_conv2d_with(real(g, "a", FTR_SHAPE(1, 5, 5, 4)), real(g, "b", FTR_SHAPE(3, 3, 3, 4)), (ftr_tensor){0}, &(ftr_conv2d_desc){.padding = {0, 0, -1, 0}})) \
    X(conv_dilation, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_conv2d_with(real(g, "a", FTR_SHAPE(1, 5, 5, 4)), real(g, "b", FTR_SHAPE(3, 3, 3, 4)), (ftr_tensor){0}, &(ftr_conv2d_desc){.dilation = {-1, 1}})) \
    X(conv_rank, FTR_ERROR_RANK, "?", ftr_conv2d_with(real(g, "a", FTR_SHAPE(5, 5, 4)), real(g, "b", FTR_SHAPE(3, 3, 3, 4)), (ftr_tensor){0}, NULL)) \
    X(conv_weight_rank, FTR_ERROR_RANK, "?", ftr_conv2d_with(real(g, "a", FTR_SHAPE(1, 5, 5, 4)), real(g, "b", FTR_SHAPE(3, 3, 4)), (ftr_tensor){0}, NULL)) \
    X(conv_bias, FTR_ERROR_SHAPE, "?", ftr_conv2d_with(real(g, "a", FTR_SHAPE(1, 5, 5, 4)), real(g, "b", FTR_SHAPE(3, 3, 3, 4)), real(g, "c", FTR_SHAPE(4)), NULL)) \
    X(conv_too_small, FTR_ERROR_SHAPE, "?", ftr_conv2d_with(real(g, "a", FTR_SHAPE(1, 2, 5, 4)), real(g, "b", FTR_SHAPE(3, 3, 3, 4)), (ftr_tensor){0}, NULL)) \
    X(conv_too_small_dilated, FTR_ERROR_SHAPE, "?", ftr_conv2d_with(real(g, "a", FTR_SHAPE(1, 5, 4, 4)), real(g, "b", FTR_SHAPE(3, 3, 3, 4)), (ftr_tensor){0}, &(ftr_conv2d_desc){.dilation = {2, 2}})) \
    X(conv_dtype, FTR_ERROR_DTYPE, "?", ftr_conv2d_with(ftr_input(g, "a", FTR_U8, FTR_SHAPE(1, 5, 5, 4)), real(g, "b", FTR_SHAPE(3, 3, 3, 4)), (ftr_tensor){0}, NULL)) \
    X(conv_weight_dtype, FTR_ERROR_DTYPE, "?", ftr_conv2d_with(real(g, "a", FTR_SHAPE(1, 5, 5, 4)), ftr_input(g, "b", FTR_F64, FTR_SHAPE(3, 3, 3, 4)), (ftr_tensor){0}, NULL)) \
    X(conv_no_kernel, FTR_ERROR_SHAPE, "?", ftr_conv2d_with(real(g, "a", FTR_SHAPE(1, 5, 5, 4)), real(g, "b", FTR_SHAPE(3, 0, 3, 4)), (ftr_tensor){0}, NULL)) \
    X(conv_layer_channels, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_conv2d(real(g, "a", FTR_SHAPE(1, 5, 5, 4)), "conv1", 0, 3, NULL)) \
    X(conv_layer_kernel, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_conv2d(real(g, "a", FTR_SHAPE(1, 5, 5, 4)), "conv1", 8, 0, NULL)) \
    X(conv_layer_groups, FTR_ERROR_SHAPE, "?", ftr_conv2d(real(g, "a", FTR_SHAPE(1, 5, 5, 4)), "conv1", 9, 3, &(ftr_conv2d_desc){.groups = 3})) \
    X(conv_layer_rank, FTR_ERROR_RANK, "?", ftr_conv2d(real(g, "a", FTR_SHAPE(5, 4)), "conv1", 8, 3, NULL)) \
    X(conv_layer_too_small, FTR_ERROR_SHAPE, "?", ftr_conv2d(real(g, "a", FTR_SHAPE(1, 2, 2, 4)), "conv1", 8, 3, NULL)) \
    X(norm_rank, FTR_ERROR_RANK, "?", norm(real(g, "a", FTR_SHAPE(3)), 3, 1e-5, 0.1)) \
    X(norm_channels, FTR_ERROR_SHAPE, "?", norm(real(g, "a", FTR_SHAPE(4, 3)), 5, 1e-5, 0.1)) \
    X(norm_dtype, FTR_ERROR_DTYPE, "?", norm(ftr_input(g, "a", FTR_I32, FTR_SHAPE(4, 3)), 3, 1e-5, 0.1)) \
    X(norm_eps, FTR_ERROR_INVALID_ARGUMENT, "?", norm(real(g, "a", FTR_SHAPE(4, 3)), 3, -1, 0.1)) \
    X(norm_momentum, FTR_ERROR_INVALID_ARGUMENT, "?", norm(real(g, "a", FTR_SHAPE(4, 3)), 3, 1e-5, 1.5)) \
    X(norm_cookie, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_batch_norm(real(g, "a", FTR_SHAPE(4, 3)), "bn", &(ftr_batch_norm_desc){.eps = 1e-5})) \
    X(norm_layer_rank, FTR_ERROR_RANK, "?", ftr_batch_norm(real(g, "a", FTR_SHAPE(4)), "bn", NULL)) \
    X(norm_null, FTR_ERROR_INVALID_TENSOR, "?", ftr_batch_norm_with(real(g, "a", FTR_SHAPE(4, 3)), real(g, "b", FTR_SHAPE(3)), (ftr_tensor){0}, (ftr_tensor){0}, (ftr_tensor){0}, NULL)) \
    X(max_pool_rank, FTR_ERROR_RANK, "?", ftr_max_pool2d(real(g, "a", FTR_SHAPE(4, 4, 2)), 2, 2, NULL)) \
    X(max_pool_window, FTR_ERROR_SHAPE, "?", ftr_max_pool2d(real(g, "a", FTR_SHAPE(1, 4, 4, 2)), 5, 2, NULL)) \
    X(max_pool_no_window, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_max_pool2d(real(g, "a", FTR_SHAPE(1, 4, 4, 2)), 0, 2, NULL)) \
    X(max_pool_padding, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_max_pool2d(real(g, "a", FTR_SHAPE(1, 4, 4, 2)), 2, 2, &(ftr_pool2d_desc){.padding = {2, 0, 0, 0}})) \
    X(max_pool_dtype, FTR_ERROR_DTYPE, "?", ftr_max_pool2d(ftr_input(g, "a", FTR_I32, FTR_SHAPE(1, 4, 4, 2)), 2, 2, NULL)) \
    X(avg_pool_stride, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_avg_pool2d(real(g, "a", FTR_SHAPE(1, 4, 4, 2)), 2, 2, &(ftr_pool2d_desc){.stride = {-1, 1}})) \
    X(avg_pool_empty, FTR_ERROR_SHAPE, "?", ftr_avg_pool2d(real(g, "a", FTR_SHAPE(1, 0, 4, 2)), 1, 1, NULL)) \
    X(avg_pool_rank, FTR_ERROR_RANK, "?", ftr_avg_pool2d(real(g, "a", FTR_SHAPE(1, 4, 4, 2, 1)), 2, 2, NULL)) \
    X(global_pool_rank, FTR_ERROR_RANK, "?", ftr_global_avg_pool(real(g, "a", FTR_SHAPE(4, 2)))) \
    X(dropout_p, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_dropout(real(g, "a", FTR_SHAPE(3)), 1.5)) \
    X(dropout_negative, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_dropout(real(g, "a", FTR_SHAPE(3)), -0.1)) \
    X(dropout_nan, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_dropout(real(g, "a", FTR_SHAPE(3)), (double)NAN)) \
    X(dropout_dtype, FTR_ERROR_DTYPE, "?", ftr_dropout(ftr_input(g, "a", FTR_I32, FTR_SHAPE(3)), 0.5)) \
    X(reshape_count, FTR_ERROR_SHAPE, "?", ftr_reshape(real(g, "a", FTR_SHAPE(2, 3)), FTR_SHAPE(4))) \
    X(reshape_two_open, FTR_ERROR_SHAPE, "?", ftr_reshape(real(g, "a", FTR_SHAPE(2, 3)), FTR_SHAPE(-1, -1))) \
    X(reshape_open, FTR_ERROR_SHAPE, "?", ftr_reshape(real(g, "a", FTR_SHAPE(2, 3)), FTR_SHAPE(4, -1))) \
    X(reshape_negative, FTR_ERROR_SHAPE, "?", ftr_reshape(real(g, "a", FTR_SHAPE(2, 3)), FTR_SHAPE(-2, -3))) \
    X(reshape_rank, FTR_ERROR_RANK, "?", ftr_reshape(real(g, "a", FTR_SHAPE(2, 3)), (ftr_shape){.rank = 7})) \
    X(flatten_axis, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_flatten(real(g, "a", FTR_SHAPE(2, 3)), 2)) \
    X(transpose_count, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_transpose(real(g, "a", FTR_SHAPE(2, 3)), FTR_AXES(0, 1, 2))) \
    X(transpose_twice, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_transpose(real(g, "a", FTR_SHAPE(2, 3)), FTR_AXES(1, 1))) \
    X(transpose_axis, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_transpose(real(g, "a", FTR_SHAPE(2, 3)), FTR_AXES(0, 2))) \
    X(expand_shape, FTR_ERROR_SHAPE, "?", ftr_expand(real(g, "a", FTR_SHAPE(2, 3)), FTR_SHAPE(2, 4))) \
    X(expand_rank, FTR_ERROR_SHAPE, "?", ftr_expand(real(g, "a", FTR_SHAPE(2, 3)), FTR_SHAPE(3))) \
    X(expand_negative, FTR_ERROR_SHAPE, "?", ftr_expand(real(g, "a", FTR_SHAPE(1, 3)), FTR_SHAPE(-1, 3))) \
    X(concat_none, FTR_ERROR_INVALID_ARGUMENT, "?", concat_of(g, 0, 0)) \
    X(concat_many, FTR_ERROR_INVALID_ARGUMENT, "?", concat_of(g, 17, 0)) \
    X(concat_axis, FTR_ERROR_INVALID_ARGUMENT, "?", concat_of(g, 2, 2)) \
    X(concat_shapes, FTR_ERROR_SHAPE, "?", ftr_concat((ftr_tensor[]){real(g, "a", FTR_SHAPE(2, 3)), real(g, "b", FTR_SHAPE(2, 4))}, 2, 0)) \
    X(concat_ranks, FTR_ERROR_RANK, "?", ftr_concat((ftr_tensor[]){real(g, "a", FTR_SHAPE(2, 3)), real(g, "b", FTR_SHAPE(2))}, 2, 0)) \
    X(concat_dtypes, FTR_ERROR_DTYPE, "?", ftr_concat((ftr_tensor[]){real(g, "a", FTR_SHAPE(2)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(2))}, 2, 0)) \
    X(concat_null, FTR_ERROR_INVALID_TENSOR, "?", ftr_concat((ftr_tensor[]){real(g, "a", FTR_SHAPE(2)), (ftr_tensor){0}}, 2, 0)) \
    X(slice_axis, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_slice(real(g, "a", FTR_SHAPE(2, 3)), 2, 0, 1, 1)) \
    X(slice_step, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_slice(real(g, "a", FTR_SHAPE(2, 3)), 0, 0, 1, 0)) \
    X(slice_negative_step, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_slice(real(g, "a", FTR_SHAPE(2, 3)), 0, 1, 0, -1)) \
    X(pad_rank, FTR_ERROR_RANK, "?", ftr_pad(real(g, "a", FTR_SHAPE(2, 3)), FTR_SHAPE(1), FTR_SHAPE(1, 1), 0)) \
    X(pad_negative, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_pad(real(g, "a", FTR_SHAPE(2, 3)), FTR_SHAPE(0, -1), FTR_SHAPE(1, 1), 0)) \
    X(softmax_axis, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_softmax(real(g, "a", FTR_SHAPE(2, 3)), 2)) \
    X(softmax_dtype, FTR_ERROR_DTYPE, "?", ftr_softmax(ftr_input(g, "a", FTR_I32, FTR_SHAPE(2, 3)), 1)) \
    X(softmax_scalar, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_softmax(real(g, "a", ftr_scalar_shape()), 0)) \
    X(log_softmax_axis, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_log_softmax(real(g, "a", FTR_SHAPE(2, 3)), -3)) \
    X(loss_labels_shape, FTR_ERROR_SHAPE, "?", ftr_cross_entropy(real(g, "a", FTR_SHAPE(4, 3)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(5)), NULL)) \
    X(loss_labels_dtype, FTR_ERROR_DTYPE, "?", ftr_cross_entropy(real(g, "a", FTR_SHAPE(4, 3)), real(g, "b", FTR_SHAPE(4)), NULL)) \
    X(loss_labels_rank, FTR_ERROR_SHAPE, "?", ftr_cross_entropy(real(g, "a", FTR_SHAPE(4, 3)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(4, 1)), NULL)) \
    X(loss_logits_dtype, FTR_ERROR_DTYPE, "?", ftr_cross_entropy(ftr_input(g, "a", FTR_I32, FTR_SHAPE(4, 3)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(4)), NULL)) \
    X(loss_logits_rank, FTR_ERROR_RANK, "?", ftr_cross_entropy(real(g, "a", ftr_scalar_shape()), ftr_input(g, "b", FTR_I32, FTR_SHAPE(4)), NULL)) \
    X(loss_no_classes, FTR_ERROR_SHAPE, "?", ftr_cross_entropy(real(g, "a", FTR_SHAPE(4, 0)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(4)), NULL)) \
    X(loss_weights, FTR_ERROR_SHAPE, "?", weighted_loss(real(g, "a", FTR_SHAPE(4, 3)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(4)), real(g, "c", FTR_SHAPE(4)))) \
    X(loss_weights_dtype, FTR_ERROR_DTYPE, "?", weighted_loss(real(g, "a", FTR_SHAPE(4, 3)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(4)), ftr_input(g, "c", FTR_I32, FTR_SHAPE(3)))) \
    X(loss_smoothing, FTR_ERROR_INVALID_ARGUMENT, "?", smoothed_loss(real(g, "a", FTR_SHAPE(4, 3)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(4)), 1.5)) \
    X(loss_cookie, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_cross_entropy(real(g, "a", FTR_SHAPE(4, 3)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(4)), &(ftr_cross_entropy_desc){0})) \
    X(loss_reduction, FTR_ERROR_INVALID_ARGUMENT, "?", reduced_loss(real(g, "a", FTR_SHAPE(4, 3)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(4)), (ftr_reduction)7)) \
    X(mse_shapes, FTR_ERROR_SHAPE, "?", ftr_mse(real(g, "a", FTR_SHAPE(4, 1)), real(g, "b", FTR_SHAPE(4)), FTR_REDUCE_MEAN)) \
    X(mse_dtypes, FTR_ERROR_DTYPE, "?", ftr_mse(real(g, "a", FTR_SHAPE(4)), ftr_input(g, "b", FTR_F64, FTR_SHAPE(4)), FTR_REDUCE_MEAN)) \
    X(mse_integers, FTR_ERROR_DTYPE, "?", ftr_mse(ftr_input(g, "a", FTR_I32, FTR_SHAPE(4)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(4)), FTR_REDUCE_MEAN)) \
    X(mse_reduction, FTR_ERROR_INVALID_ARGUMENT, "?", ftr_mse(real(g, "a", FTR_SHAPE(4)), real(g, "b", FTR_SHAPE(4)), (ftr_reduction)-1)) \
    X(accuracy_shape, FTR_ERROR_SHAPE, "?", ftr_accuracy(real(g, "a", FTR_SHAPE(4, 3)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(3)))) \
    X(accuracy_labels, FTR_ERROR_DTYPE, "?", ftr_accuracy(real(g, "a", FTR_SHAPE(4, 3)), real(g, "b", FTR_SHAPE(4)))) \
    X(accuracy_logits, FTR_ERROR_DTYPE, "?", ftr_accuracy(ftr_input(g, "a", FTR_I32, FTR_SHAPE(4, 3)), ftr_input(g, "b", FTR_I32, FTR_SHAPE(4)))) \
    X(accuracy_rank, FTR_ERROR_RANK, "?", ftr_accuracy(real(g, "a", ftr_scalar_shape()), ftr_input(g, "b", FTR_I32, FTR_SHAPE(4)))) \
    X(two_graphs, FTR_ERROR_INVALID_TENSOR, "?", two_graphs(g)) \
    X(scoped_layer, FTR_ERROR_SHAPE, "?", scoped_layer(g))
/* clang-format on */

#define BUILDER(name, code, sentence, expression)                                                                      \
    static ftr_tensor build_##name(ftr_graph *g) {                                                                     \
        (void)g;                                                                                                       \
        return expression;                                                                                             \
    }
OP_ERRORS(BUILDER)

typedef struct op_error {
    const char *name;
    ftr_tensor (*build)(ftr_graph *g);
    ftr_status status;
    const char *message;
} op_error;

#define ROW(name, code, sentence, expression) {#name, build_##name, code, sentence},
static const op_error errors[] = {OP_ERRORS(ROW)};

/* -------------------------------------------------------------------------------------------------- labels of the data */

/* Labels are data: they fail the step, on every row that counts, and nothing is updated. */
typedef struct label_error {
    const char *name;
    int64_t labels[4];
    bool i64, masked; /* masked: row 3 is padding */
    ftr_status status;
    const char *message;
} label_error;

static const label_error label_errors[] = {
    {"label_above", {0, 1, 3, 2}, false, false, FTR_ERROR_DATA, "@L0@"},
    {"label_negative", {0, -1, 2, 2}, false, false, FTR_ERROR_DATA, "@L1@"},
    {"label_i64", {0, 1, 2, INT64_C(4294967296)}, true, false, FTR_ERROR_DATA, "@L2@"},
    {"label_first_of_two", {7, 1, 2, 8}, true, false, FTR_ERROR_DATA, "@L3@"},
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
    ftr_tensor loss = ftr_cross_entropy(ftr_linear(x, "fc", 3, NULL), y, NULL);
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

/* ----------------------------------------------------------------------------------------------------------- the tests */

enum { ERRORS = FTR_TEST_LENGTH(errors), LABEL_ERRORS = FTR_TEST_LENGTH(label_errors) };

int32_t op_error_count(void) { return ERRORS + LABEL_ERRORS; }

const char *op_error_name(int32_t index) {
    return index < ERRORS ? errors[index].name : label_errors[index - ERRORS].name;
}

const void *op_error_state(int32_t index) {
    return index < ERRORS ? (const void *)&errors[index] : &label_errors[index - ERRORS];
}

void op_error_test(void **state) {
    const char *address = (const char *)*state, *first = (const char *)label_errors;
    if (address >= first && address < first + sizeof label_errors) {
        test_label((const label_error *)*state);
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
