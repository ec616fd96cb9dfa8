/* Adaptive pooling and resizing. */
#include "oracle_tools.h"

/* Is called for each pair of elements, `y` of the forward result and `x` of the input that it is made of, with the
 * factor that x has in y. */
typedef void (*image_visit)(const ftr_kernel_call *call, int64_t y, int64_t x, double factor);

/* y += factor * x, or in the gradient dx += factor * dy. The sums are in the workspace. */
static void image_add(const ftr_kernel_call *call, int64_t y, int64_t x, double factor) {
    ((double *)call->workspace)[y] += factor * get(&call->in[0], x);
}

static void image_add_back(const ftr_kernel_call *call, int64_t y, int64_t x, double factor) {
    ((double *)call->workspace)[x] += factor * get(&call->in[0], y);
}

static void image_clear(const ftr_kernel_call *call) {
    for (int64_t i = 0; i < call->out[0].count; i++) {
        ((double *)call->workspace)[i] = 0;
    }
}

static ftr_status image_store(const ftr_kernel_call *call) {
    for (int64_t i = 0; i < call->out[0].count; i++) {
        set(&call->out[0], i, ((double *)call->workspace)[i]);
    }
    return FTR_OK;
}

size_t oracle_image_workspace(const ftr_kernel_call *call) { return (size_t)call->out[0].count * sizeof(double); }

/* ------------------------------------------------------------------------------------------------------ adaptive -- */

static void adaptive_walk(const ftr_kernel_call *call, const ftr_shape *xs, const ftr_shape *ys, image_visit visit) {
    int64_t count = ftr_shape_count(ys);
    for (int64_t i = 0; i < count; i++) {
        int64_t p[FTR_MAX_RANK], begin[2], end[2];
        coordinates(ys, i, p);
        for (int d = 0; d < 2; d++) {
            int64_t in = xs->dim[1 + d], out = ys->dim[1 + d];
            begin[d] = (int64_t)floor((double)(p[1 + d] * in) / (double)out);
            end[d] = (int64_t)ceil((double)((p[1 + d] + 1) * in) / (double)out);
        }
        double area = (double)((end[0] - begin[0]) * (end[1] - begin[1]));
        for (int64_t h = begin[0]; h < end[0]; h++) {
            for (int64_t w = begin[1]; w < end[1]; w++) {
                visit(call, i, at4(xs, p[0], h, w, p[3]), 1 / area);
            }
        }
    }
}

ftr_status oracle_adaptive_avg_pool2d(const ftr_kernel_call *call) {
    image_clear(call);
    adaptive_walk(call, &call->in[0].shape, &call->out[0].shape, image_add);
    return image_store(call);
}

ftr_status oracle_adaptive_avg_pool2d_grad(const ftr_kernel_call *call) {
    image_clear(call);
    adaptive_walk(call, &call->out[0].shape, &call->in[0].shape, image_add_back);
    return image_store(call);
}

/* -------------------------------------------------------------------------------------------------------- resize -- */

/* Where pixel `i` of `out` lies among `in`, in pixels. */
static double resize_position(const ftr_kernel_call *call, int64_t i, int64_t in, int64_t out) {
    if (call->attr->resize.mode == FTR_RESIZE_NEAREST) {
        float scale = (float)in / (float)out; /* the rule is in f32, whatever the images are */
        float position = floorf((float)i * scale);
        return fmin((double)position, (double)(in - 1));
    }
    if (call->attr->resize.align_corners) {
        return out == 1 ? 0 : (double)i * (double)(in - 1) / (double)(out - 1);
    }
    return fmax(((double)i + 0.5) * (double)in / (double)out - 0.5, 0);
}

/* A hat function: 1 at the pixel, 0 from its neighbours on. Beyond the last pixel it is the last that counts. */
static double resize_factor(double position, int64_t pixel, int64_t in) {
    return fmax(0, 1 - fabs(fmin(position, (double)(in - 1)) - (double)pixel));
}

static void resize_walk(const ftr_kernel_call *call, const ftr_shape *xs, const ftr_shape *ys, image_visit visit) {
    int64_t count = ftr_shape_count(ys);
    for (int64_t i = 0; i < count; i++) {
        int64_t p[FTR_MAX_RANK];
        coordinates(ys, i, p);
        double y = resize_position(call, p[1], xs->dim[1], ys->dim[1]);
        double x = resize_position(call, p[2], xs->dim[2], ys->dim[2]);
        for (int64_t h = 0; h < xs->dim[1]; h++) {
            double of_row = resize_factor(y, h, xs->dim[1]);
            for (int64_t w = 0; w < xs->dim[2] && of_row > 0; w++) {
                double factor = of_row * resize_factor(x, w, xs->dim[2]);
                if (factor > 0) {
                    visit(call, i, at4(xs, p[0], h, w, p[3]), factor);
                }
            }
        }
    }
}

ftr_status oracle_resize2d(const ftr_kernel_call *call) {
    image_clear(call);
    resize_walk(call, &call->in[0].shape, &call->out[0].shape, image_add);
    return image_store(call);
}

ftr_status oracle_resize2d_grad(const ftr_kernel_call *call) {
    image_clear(call);
    resize_walk(call, &call->out[0].shape, &call->in[0].shape, image_add_back);
    return image_store(call);
}
