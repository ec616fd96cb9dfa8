/* Ops of image.safetensors. */
#include "golden_cases.h"

static ftr_tensor build_conv_transpose2d(golden_case *c) {
    ftr_conv_transpose2d_desc desc = {.groups = (int32_t)golden_i64(c, "groups", 0)};
    golden_pair(c, "stride", desc.stride);
    golden_pair(c, "dilation", desc.dilation);
    golden_pair(c, "output_padding", desc.output_padding);
    golden_four(c, "padding", desc.padding);
    ftr_tensor x = golden_in(c, "x"), weight = golden_in(c, "weight");
    return ftr_conv_transpose2d_with(x, weight, golden_in_if_there(c, "bias"), &desc);
}

static ftr_tensor build_conv1d(golden_case *c) {
    ftr_conv1d_desc desc = {.stride = (int32_t)golden_i64(c, "stride", 0),
                            .dilation = (int32_t)golden_i64(c, "dilation", 0),
                            .groups = (int32_t)golden_i64(c, "groups", 0)};
    golden_pair(c, "padding", desc.padding);
    ftr_tensor x = golden_in(c, "x"), weight = golden_in(c, "weight");
    return ftr_conv1d_with(x, weight, golden_in_if_there(c, "bias"), &desc);
}

static ftr_tensor build_adaptive_avg_pool2d(golden_case *c) {
    return ftr_adaptive_avg_pool2d(golden_in(c, "x"), golden_i64(c, "size", 0), golden_i64(c, "size", 1));
}

static ftr_tensor build_resize2d(golden_case *c) {
    const ftr_resize2d_desc desc = {.mode = (ftr_resize_mode)golden_i64(c, "bilinear", 0),
                                    .align_corners = golden_i64(c, "align_corners", 0) != 0};
    return ftr_resize2d(golden_in(c, "x"), golden_i64(c, "size", 0), golden_i64(c, "size", 1), &desc);
}

static const golden_op ops[] = {
    {"conv_transpose2d", build_conv_transpose2d},
    {"conv1d", build_conv1d},
    {"adaptive_avg_pool2d", build_adaptive_avg_pool2d},
    {"resize2d", build_resize2d},
};

const golden_family golden_image = {ops, FTR_TEST_LENGTH(ops)};
