/* Malformed transposed and one-dimensional convolution, adaptive pooling and resizing. */
#include "errors.h"

#define INPUT(name, dtype, ...) ftr_input(g, name, dtype, FTR_SHAPE(__VA_ARGS__))
#define X(...) INPUT("x", FTR_F32, __VA_ARGS__)
#define W(...) INPUT("w", FTR_F32, __VA_ARGS__)
#define BIAS(...) INPUT("b", FTR_F32, __VA_ARGS__)
#define NOTHING ((ftr_tensor){0})

/* Of x [2, 3, 4, 4] and weight [4, 3, 3, 6] */
static ftr_tensor transposed(ftr_graph *g, ftr_conv_transpose2d_desc desc) {
    return ftr_conv_transpose2d_with(X(2, 3, 4, 4), W(4, 3, 3, 6), NOTHING, &desc);
}
#define TRANSPOSED(...) transposed(g, (ftr_conv_transpose2d_desc){__VA_ARGS__})

static ftr_tensor transposed_layer(ftr_graph *g, int64_t out, int32_t kernel, ftr_conv_transpose2d_desc desc) {
    ftr_scope_push(g, "decoder");
    return ftr_conv_transpose2d(X(2, 3, 4, 4), "up", out, kernel, &desc);
}
#define TRANSPOSED_LAYER(out, kernel, ...)                                                                             \
    transposed_layer(g, out, kernel, (ftr_conv_transpose2d_desc){__VA_ARGS__})

/* Of x [2, 7, 4] and weight [6, 3, 4] */
static ftr_tensor line(ftr_graph *g, ftr_conv1d_desc desc) {
    return ftr_conv1d_with(X(2, 7, 4), W(6, 3, 4), NOTHING, &desc);
}
#define LINE(...) line(g, (ftr_conv1d_desc){__VA_ARGS__})

static ftr_tensor line_layer(ftr_graph *g, int64_t out, int32_t kernel, ftr_conv1d_desc desc) {
    return ftr_conv1d(X(2, 7, 4), "conv", out, kernel, &desc);
}
#define LINE_LAYER(out, kernel, ...) line_layer(g, out, kernel, (ftr_conv1d_desc){__VA_ARGS__})

static ftr_tensor resized(ftr_graph *g, ftr_resize2d_desc desc) { return ftr_resize2d(X(2, 3, 4, 4), 6, 6, &desc); }
#define RESIZED(...) resized(g, (ftr_resize2d_desc){__VA_ARGS__})

/* ROW(name, status, sentence, what is built) */
/* clang-format off */
#define IMAGE_ERRORS(ROW) \
    ROW(transpose_null, FTR_ERROR_INVALID_TENSOR, "conv_transpose2d: input 1 is a null tensor", \
        ftr_conv_transpose2d_with(X(2, 3, 4, 4), NOTHING, NOTHING, NULL)) \
    ROW(transpose_rank, FTR_ERROR_RANK, "conv_transpose2d of 'x': input has rank 3, expected 4 (n, h, w, c)", \
        ftr_conv_transpose2d_with(X(3, 4, 4), W(4, 3, 3, 6), NOTHING, NULL)) \
    ROW(transpose_weight_rank, FTR_ERROR_RANK, \
        "conv_transpose2d of 'x': weight has rank 3, expected 4 (c, kh, kw, o / groups)", \
        ftr_conv_transpose2d_with(X(2, 3, 4, 4), W(4, 3, 6), NOTHING, NULL)) \
    ROW(transpose_integers, FTR_ERROR_DTYPE, "conv_transpose2d of 'x': input is i32, expected floating point", \
        ftr_conv_transpose2d_with(INPUT("x", FTR_I32, 2, 3, 4, 4), W(4, 3, 3, 6), NOTHING, NULL)) \
    ROW(transpose_dtypes, FTR_ERROR_DTYPE, \
        "conv_transpose2d of 'x': input is f32, weight is f64: both must have one type", \
        ftr_conv_transpose2d_with(X(2, 3, 4, 4), INPUT("w", FTR_F64, 4, 3, 3, 6), NOTHING, NULL)) \
    ROW(transpose_bias_dtype, FTR_ERROR_DTYPE, \
        "conv_transpose2d of 'x': input is f32, bias is i32: both must have one type", \
        ftr_conv_transpose2d_with(X(2, 3, 4, 4), W(4, 3, 3, 6), INPUT("b", FTR_I32, 6), NULL)) \
    ROW(transpose_bias, FTR_ERROR_SHAPE, "conv_transpose2d of 'x': bias is [4], expected [6]", \
        ftr_conv_transpose2d_with(X(2, 3, 4, 4), W(4, 3, 3, 6), BIAS(4), NULL)) \
    ROW(transpose_channels, FTR_ERROR_SHAPE, \
        "conv_transpose2d of 'x': input has 5 channels, weight expects 4 (groups 1)", \
        ftr_conv_transpose2d_with(X(2, 3, 4, 5), W(4, 3, 3, 6), NOTHING, NULL)) \
    ROW(transpose_no_channels, FTR_ERROR_SHAPE, \
        "conv_transpose2d of 'x': input has 0 channels, expected 1 or more", \
        ftr_conv_transpose2d_with(X(2, 3, 4, 0), W(0, 3, 3, 6), NOTHING, NULL)) \
    ROW(transpose_no_results, FTR_ERROR_SHAPE, \
        "conv_transpose2d of 'x': weight has 0 output channels a group, expected 1 or more", \
        ftr_conv_transpose2d_with(X(2, 3, 4, 4), W(4, 3, 3, 0), NOTHING, NULL)) \
    ROW(transpose_groups, FTR_ERROR_SHAPE, \
        "conv_transpose2d of 'x': input has 4 channels, which groups 3 does not divide", TRANSPOSED(.groups = 3)) \
    ROW(transpose_negative_groups, FTR_ERROR_INVALID_ARGUMENT, \
        "conv_transpose2d of 'x': groups -2, expected 1 or more", TRANSPOSED(.groups = -2)) \
    ROW(transpose_stride, FTR_ERROR_INVALID_ARGUMENT, "conv_transpose2d of 'x': stride -1, expected 1 or more", \
        TRANSPOSED(.stride = {1, -1})) \
    ROW(transpose_dilation, FTR_ERROR_INVALID_ARGUMENT, "conv_transpose2d of 'x': dilation -3, expected 1 or more", \
        TRANSPOSED(.dilation = {-3, 1})) \
    ROW(transpose_padding, FTR_ERROR_INVALID_ARGUMENT, "conv_transpose2d of 'x': padding -1, expected 0 or more", \
        TRANSPOSED(.padding = {0, 0, 0, -1})) \
    ROW(transpose_output_padding, FTR_ERROR_INVALID_ARGUMENT, \
        "conv_transpose2d of 'x': output_padding 3, expected 0 or more and below the stride 2 or the dilation 3", \
        TRANSPOSED(.output_padding = {2, 3}, .stride = {2, 2}, .dilation = {3, 3})) \
    ROW(transpose_negative_output_padding, FTR_ERROR_INVALID_ARGUMENT, \
        "conv_transpose2d of 'x': output_padding -1, expected 0 or more and below the stride 1 or the dilation 1", \
        TRANSPOSED(.output_padding = {-1, 0})) \
    ROW(transpose_no_kernel, FTR_ERROR_SHAPE, "conv_transpose2d of 'x': kernel 3 x 0, expected 1 or more", \
        ftr_conv_transpose2d_with(X(2, 3, 4, 4), W(4, 3, 0, 6), NOTHING, NULL)) \
    ROW(transpose_no_pixels, FTR_ERROR_SHAPE, "conv_transpose2d of 'x': input is 0 x 4, expected 1 to 2147483647", \
        ftr_conv_transpose2d_with(X(2, 0, 4, 4), W(4, 3, 3, 6), NOTHING, NULL)) \
    ROW(transpose_nothing_left, FTR_ERROR_SHAPE, \
        "conv_transpose2d of 'x': the result would be 5 x -2, expected 1 or more", \
        TRANSPOSED(.padding = {0, 0, 4, 4})) \
    ROW(transpose_too_large, FTR_ERROR_SHAPE, \
        "conv_transpose2d of 'x': the result [2, 4294967297, 6442450944, 6] has too many elements", \
        TRANSPOSED(.stride = {2147483647, 2147483647})) \
    ROW(transpose_layer_name, FTR_ERROR_NAME, "conv_transpose2d: the layer has no name", \
        ftr_conv_transpose2d(X(2, 3, 4, 4), "", 6, 3, NULL)) \
    ROW(transpose_layer_rank, FTR_ERROR_RANK, "conv_transpose2d 'up': input has rank 2, expected 4 (n, h, w, c)", \
        ftr_conv_transpose2d(X(3, 4), "up", 6, 3, NULL)) \
    ROW(transpose_layer_out, FTR_ERROR_INVALID_ARGUMENT, \
        "conv_transpose2d 'decoder.up': out_channels 0, expected 1 or more", TRANSPOSED_LAYER(0, 3, .groups = 0)) \
    ROW(transpose_layer_kernel, FTR_ERROR_INVALID_ARGUMENT, \
        "conv_transpose2d 'decoder.up': kernel 0, expected 1 or more", TRANSPOSED_LAYER(6, 0, .groups = 0)) \
    ROW(transpose_layer_groups, FTR_ERROR_SHAPE, \
        "conv_transpose2d 'decoder.up': weight has 6 output channels, which groups 4 does not divide", \
        TRANSPOSED_LAYER(6, 3, .groups = 4)) \
    ROW(transpose_layer_output_padding, FTR_ERROR_INVALID_ARGUMENT, \
        "conv_transpose2d 'decoder.up': " \
        "output_padding 1, expected 0 or more and below the stride 1 or the dilation 1", \
        TRANSPOSED_LAYER(6, 3, .output_padding = {1, 0})) \
    ROW(line_null, FTR_ERROR_INVALID_TENSOR, "conv1d: input 0 is a null tensor", \
        ftr_conv1d_with(NOTHING, W(6, 3, 4), NOTHING, NULL)) \
    ROW(line_rank, FTR_ERROR_RANK, "conv1d of 'x': input has rank 4, expected 3 (n, l, c)", \
        ftr_conv1d_with(X(2, 1, 7, 4), W(6, 3, 4), NOTHING, NULL)) \
    ROW(line_weight_rank, FTR_ERROR_RANK, "conv1d of 'x': weight has rank 4, expected 3 (o, k, c / groups)", \
        ftr_conv1d_with(X(2, 7, 4), W(6, 1, 3, 4), NOTHING, NULL)) \
    ROW(line_integers, FTR_ERROR_DTYPE, "conv1d of 'x': input is i64, expected floating point", \
        ftr_conv1d_with(INPUT("x", FTR_I64, 2, 7, 4), W(6, 3, 4), NOTHING, NULL)) \
    ROW(line_dtypes, FTR_ERROR_DTYPE, "conv1d of 'x': input is f32, weight is i32: both must have one type", \
        ftr_conv1d_with(X(2, 7, 4), INPUT("w", FTR_I32, 6, 3, 4), NOTHING, NULL)) \
    ROW(line_bias, FTR_ERROR_SHAPE, "conv1d of 'x': bias is [6, 1], expected [6]", \
        ftr_conv1d_with(X(2, 7, 4), W(6, 3, 4), BIAS(6, 1), NULL)) \
    ROW(line_channels, FTR_ERROR_SHAPE, "conv1d of 'x': input has 3 channels, weight expects 4 (groups 1)", \
        ftr_conv1d_with(X(2, 7, 3), W(6, 3, 4), NOTHING, NULL)) \
    ROW(line_groups, FTR_ERROR_SHAPE, "conv1d of 'x': weight has 6 output channels, which groups 4 does not divide", \
        LINE(.groups = 4)) \
    ROW(line_stride, FTR_ERROR_INVALID_ARGUMENT, "conv1d of 'x': stride -2, expected 1 or more", LINE(.stride = -2)) \
    ROW(line_dilation, FTR_ERROR_INVALID_ARGUMENT, "conv1d of 'x': dilation -2, expected 1 or more", \
        LINE(.dilation = -2)) \
    ROW(line_padding, FTR_ERROR_INVALID_ARGUMENT, "conv1d of 'x': padding -2, expected 0 or more", \
        LINE(.padding = {0, -2})) \
    ROW(line_no_kernel, FTR_ERROR_SHAPE, "conv1d of 'x': kernel 0, expected 1 or more", \
        ftr_conv1d_with(X(2, 7, 4), W(6, 0, 4), NOTHING, NULL)) \
    ROW(line_fit, FTR_ERROR_SHAPE, "conv1d of 'x': kernel 3 (dilation 4) does not fit the padded input of 8", \
        LINE(.dilation = 4, .padding = {1, 0})) \
    ROW(line_layer_name, FTR_ERROR_NAME, "conv1d: the layer has no name", ftr_conv1d(X(2, 7, 4), NULL, 6, 3, NULL)) \
    ROW(line_layer_rank, FTR_ERROR_RANK, "conv1d 'conv': input has rank 2, expected 3 (n, l, c)", \
        ftr_conv1d(X(7, 4), "conv", 6, 3, NULL)) \
    ROW(line_layer_kernel, FTR_ERROR_INVALID_ARGUMENT, "conv1d 'conv': kernel -1, expected 1 or more", \
        LINE_LAYER(6, -1, .groups = 0)) \
    ROW(line_layer_groups, FTR_ERROR_SHAPE, "conv1d 'conv': input has 4 channels, which groups 3 does not divide", \
        LINE_LAYER(6, 3, .groups = 3)) \
    ROW(line_layer_fit, FTR_ERROR_SHAPE, "conv1d 'conv': kernel 9 (dilation 1) does not fit the padded input of 7", \
        LINE_LAYER(6, 9, .groups = 0)) \
    ROW(adaptive_rank, FTR_ERROR_RANK, \
        "adaptive_avg_pool2d 'adaptive_avg_pool2d_1': input has rank 3, expected 4 (n, h, w, c)", \
        ftr_adaptive_avg_pool2d(X(3, 4, 4), 2, 2)) \
    ROW(adaptive_integers, FTR_ERROR_DTYPE, \
        "adaptive_avg_pool2d 'adaptive_avg_pool2d_1': input is u8, expected floating point", \
        ftr_adaptive_avg_pool2d(INPUT("x", FTR_U8, 2, 3, 4, 4), 2, 2)) \
    ROW(adaptive_no_pixels, FTR_ERROR_SHAPE, \
        "adaptive_avg_pool2d 'adaptive_avg_pool2d_1': input is 3 x 0, expected 1 to 2147483647", \
        ftr_adaptive_avg_pool2d(X(2, 3, 0, 4), 2, 2)) \
    ROW(adaptive_size, FTR_ERROR_INVALID_ARGUMENT, \
        "adaptive_avg_pool2d 'adaptive_avg_pool2d_1': the new size is 2 x 0, expected 1 to 2147483647", \
        ftr_adaptive_avg_pool2d(X(2, 3, 4, 4), 2, 0)) \
    ROW(adaptive_large, FTR_ERROR_INVALID_ARGUMENT, \
        "adaptive_avg_pool2d 'adaptive_avg_pool2d_1': the new size is 2147483648 x 2, expected 1 to 2147483647", \
        ftr_adaptive_avg_pool2d(X(2, 3, 4, 4), INT64_C(2147483648), 2)) \
    ROW(resize_rank, FTR_ERROR_RANK, "resize2d 'resize2d_1': input has rank 5, expected 4 (n, h, w, c)", \
        ftr_resize2d(X(1, 2, 3, 4, 4), 2, 2, NULL)) \
    ROW(resize_integers, FTR_ERROR_DTYPE, "resize2d 'resize2d_1': input is u8, expected floating point", \
        ftr_resize2d(INPUT("x", FTR_U8, 2, 3, 4, 4), 2, 2, NULL)) \
    ROW(resize_no_pixels, FTR_ERROR_SHAPE, "resize2d 'resize2d_1': input is 0 x 4, expected 1 to 2147483647", \
        ftr_resize2d(X(2, 0, 4, 4), 2, 2, NULL)) \
    ROW(resize_size, FTR_ERROR_INVALID_ARGUMENT, \
        "resize2d 'resize2d_1': the new size is -1 x 4, expected 1 to 2147483647", \
        ftr_resize2d(X(2, 3, 4, 4), -1, 4, NULL)) \
    ROW(resize_too_large, FTR_ERROR_SHAPE, \
        "resize2d 'resize2d_1': the result [2, 2147483647, 2147483647, 4] has too many elements", \
        ftr_resize2d(X(2, 3, 4, 4), 2147483647, 2147483647, NULL)) \
    ROW(resize_mode, FTR_ERROR_INVALID_ARGUMENT, \
        "resize2d 'resize2d_1': mode 5, expected FTR_RESIZE_NEAREST or FTR_RESIZE_BILINEAR", \
        RESIZED(.mode = (ftr_resize_mode)5)) \
    ROW(resize_nearest_corners, FTR_ERROR_INVALID_ARGUMENT, \
        "resize2d 'resize2d_1': align_corners with the mode nearest, expected bilinear", \
        RESIZED(.align_corners = true))
/* clang-format on */

#define FUNCTION(name, status, message, expression)                                                                    \
    static ftr_tensor build_##name(ftr_graph *g) { return expression; }
#define ENTRY(name, status, message, expression) {#name, build_##name, status, message},

IMAGE_ERRORS(FUNCTION)
static const op_error errors[] = {IMAGE_ERRORS(ENTRY)};
const op_error_family image_errors = {errors, FTR_TEST_LENGTH(errors)};
