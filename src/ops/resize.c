/* Resizing of NHWC images. */
#include "ops/registry.h"

/* ---- builder */

ftr_tensor ftr_resize2d(ftr_tensor x, int64_t out_h, int64_t out_w, const ftr_resize2d_desc *desc) {
    const ftr_resize2d_desc d = desc != NULL ? *desc : (ftr_resize2d_desc){FTR_RESIZE_NEAREST, false};
    const ftr_op_attr attr = {.resize = {.output = {out_h, out_w}, .mode = d.mode, .align_corners = d.align_corners}};
    return ftr__emit_one(FTR_OP_resize2d, &attr, x);
}

/* ---- shapes and types */

static ftr_status ftr__check_resize_attr(ftr__infer *s) {
    const ftr_op_attr *attr = &s->node->attr;
    if (attr->resize.mode != FTR_RESIZE_NEAREST && attr->resize.mode != FTR_RESIZE_BILINEAR)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT,
                                "mode %d, expected FTR_RESIZE_NEAREST or FTR_RESIZE_BILINEAR", (int)attr->resize.mode);
    if (attr->resize.mode == FTR_RESIZE_NEAREST && attr->resize.align_corners)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT,
                                "align_corners with the mode nearest, expected bilinear");
    return FTR_OK;
}

ftr_status ftr__infer_resize2d(ftr__infer *s) {
    ftr_op_attr *attr = &s->node->attr;
    ftr_shape y = s->in[0]->shape;
    ftr_status status = ftr__check_image_sizes(s, attr->resize.output);
    if (status == FTR_OK) status = ftr__check_resize_attr(s);
    if (status != FTR_OK) return status;
    for (int32_t i = 0; i < 2; i++) {
        attr->resize.input[i] = y.dim[1 + i];
        y.dim[1 + i] = attr->resize.output[i];
    }
    return ftr__set_output(s, 0, s->in[0]->dtype, &y);
}

ftr_status ftr__infer_resize2d_grad(ftr__infer *s) {
    const ftr_op_attr *attr = &s->node->attr;
    const ftr_status status = ftr__check_image_sizes(s, attr->resize.input);
    ftr_shape dx = s->in[0]->shape;
    for (int32_t i = 0; i < 2; i++) dx.dim[1 + i] = attr->resize.input[i];
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &dx);
}

/* ---- gradient */

void ftr__grad_resize2d(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_one(FTR_OP_resize2d_grad, &s->node->attr, s->dout[0]);
}
