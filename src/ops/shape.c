/* Ops that move elements: reshape, expand, transpose, concat, slice, pad. */
#include "ops/registry.h"

#include <string.h>

/* ---- builders */

static ftr_tensor ftr__shape_op(ftr_op op, ftr_tensor x, const ftr_shape *shape) {
    ftr_op_attr attr = {.shape = {*shape}};
    return ftr__emit_one(op, &attr, x);
}

ftr_tensor ftr_reshape(ftr_tensor x, ftr_shape shape) { return ftr__shape_op(FTR_OP_reshape, x, &shape); }

ftr_tensor ftr__reshape_to(ftr_tensor x, const ftr_shape *shape) {
    ftr_shape from = ftr_shape_of(x);
    return !ftr_is_valid(x) || ftr_shape_equal(&from, shape) ? x : ftr__shape_op(FTR_OP_reshape, x, shape);
}

ftr_tensor ftr_expand(ftr_tensor x, ftr_shape shape) { return ftr__shape_op(FTR_OP_expand, x, &shape); }

ftr_tensor ftr_flatten(ftr_tensor x, int32_t axis) {
    ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__common_graph("flatten", &x, 1, 1);
    if (graph == NULL) return none;
    ftr_shape shape = ftr_shape_of(x);
    if (axis < -shape.rank || axis >= shape.rank)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "flatten of", ftr_name_of(x),
                                  "axis %d of a tensor of rank %d", (int)axis, (int)shape.rank);
    if (axis < 0) axis += shape.rank;
    for (int32_t i = axis + 1; i < shape.rank; i++) {
        shape.dim[axis] *= shape.dim[i];
        shape.dim[i] = 0;
    }
    shape.rank = axis + 1;
    return ftr__shape_op(FTR_OP_reshape, x, &shape);
}

ftr_tensor ftr_transpose(ftr_tensor x, ftr_axes order) {
    ftr_graph *graph = ftr__common_graph("transpose", &x, 1, 1);
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    int32_t rank = ftr_shape_of(x).rank;
    if (order.count != rank)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "transpose of", ftr_name_of(x),
                                  "order has %d axes, expected %d", (int)order.count, (int)rank);
    ftr_op_attr attr;
    memset(&attr, 0, sizeof attr);
    memcpy(attr.axes_order.order, order.axis, sizeof order.axis);
    return ftr__emit_one(FTR_OP_transpose, &attr, x);
}

ftr_tensor ftr_concat(const ftr_tensor *tensors, int32_t count, int32_t axis) {
    ftr_graph *graph = NULL;
    for (int32_t i = 0; tensors != NULL && i < count && graph == NULL; i++) graph = tensors[i].graph;
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    if (count > FTR__INFER_INPUTS)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "concat", NULL, "%d tensors, expected 1 to %d",
                                  (int)count, FTR__INFER_INPUTS);
    for (int32_t i = 0; i < count; i++)
        if (!ftr_is_valid(tensors[i]))
            return ftr__builder_error(graph, FTR_ERROR_INVALID_TENSOR, "concat", NULL, "input %d is a null tensor",
                                      (int)i);
    ftr_op_attr attr = {.axis = {axis}};
    return ftr__emit(graph, FTR_OP_concat, NULL, &attr, tensors, count);
}

ftr_tensor ftr_slice(ftr_tensor x, int32_t axis, int64_t begin, int64_t end, int64_t step) {
    ftr_op_attr attr = {.slice = {axis, begin, end, step, 0}};
    return ftr__emit_one(FTR_OP_slice, &attr, x);
}

ftr_tensor ftr_pad(ftr_tensor x, ftr_shape before, ftr_shape after, double value) {
    ftr_graph *graph = ftr__common_graph("pad", &x, 1, 1);
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    int32_t rank = ftr_shape_of(x).rank;
    if (before.rank != rank || after.rank != rank)
        return ftr__builder_error(graph, FTR_ERROR_RANK, "pad of", ftr_name_of(x),
                                  "before has rank %d, after has rank %d, expected %d", (int)before.rank,
                                  (int)after.rank, (int)rank);
    ftr_op_attr attr;
    memset(&attr, 0, sizeof attr);
    for (int32_t i = 0; i < rank; i++) {
        attr.pad.before[i] = before.dim[i];
        attr.pad.after[i] = after.dim[i];
    }
    attr.pad.value = value;
    return ftr__emit_one(FTR_OP_pad, &attr, x);
}

/* ---- shapes and types */

static ftr_status ftr__check_target(ftr__infer *s, const ftr_shape *shape, int64_t least) {
    if (shape->rank < 0 || shape->rank > FTR_MAX_RANK)
        return ftr__infer_error(s, FTR_ERROR_RANK, "the new shape has rank %d, expected 0 to %d", (int)shape->rank,
                                FTR_MAX_RANK);
    for (int32_t i = 0; i < shape->rank; i++)
        if (shape->dim[i] < least)
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "dimension %d of the new shape is %lld, expected %lld or more",
                                    (int)i, (long long)shape->dim[i], (long long)least);
    return FTR_OK;
}

/* Replaces a -1 by the size that keeps the number of elements. */
static ftr_status ftr__resolve_reshape(ftr__infer *s, const ftr_shape *in, ftr_shape *shape) {
    int32_t open = -1;
    char text[FTR__SHAPE_TEXT], text_in[FTR__SHAPE_TEXT];
    ftr_shape rest = *shape;
    for (int32_t i = 0; i < shape->rank; i++) {
        if (shape->dim[i] != -1) continue;
        if (open >= 0)
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s has more than one -1", ftr__shape_text(shape, text));
        open = i;
        rest.dim[i] = 1;
    }
    int64_t count = ftr_shape_count(in), other = ftr_shape_count(&rest);
    if (open < 0) return FTR_OK;
    if (other <= 0 || count % other != 0)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s has %lld elements, which do not fit %s",
                                ftr__shape_text(in, text_in), (long long)count, ftr__shape_text(shape, text));
    shape->dim[open] = count / other;
    return FTR_OK;
}

ftr_status ftr__infer_reshape(ftr__infer *s) {
    const ftr_shape *in = &s->in[0]->shape;
    ftr_shape *shape = &s->node->attr.shape.shape;
    ftr_status status = ftr__check_target(s, shape, -1);
    if (status == FTR_OK) status = ftr__resolve_reshape(s, in, shape);
    if (status == FTR_OK) status = ftr__set_output(s, 0, s->in[0]->dtype, shape);
    if (status != FTR_OK) return status;
    int64_t found = ftr_shape_count(in), wanted = ftr_shape_count(shape);
    if (found == wanted) return FTR_OK;
    char text[FTR__SHAPE_TEXT], text_in[FTR__SHAPE_TEXT];
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s has %lld elements, %s has %lld", ftr__shape_text(in, text_in),
                            (long long)found, ftr__shape_text(shape, text), (long long)wanted);
}

ftr_status ftr__infer_expand(ftr__infer *s) {
    const ftr_shape *in = &s->in[0]->shape, *shape = &s->node->attr.shape.shape;
    ftr_shape out;
    ftr_status status = ftr__check_target(s, shape, 0);
    if (status != FTR_OK) return status;
    if (ftr__broadcast_shape(in, shape, &out) && ftr_shape_equal(&out, shape))
        return ftr__set_output(s, 0, s->in[0]->dtype, shape);
    char text[FTR__SHAPE_TEXT], text_in[FTR__SHAPE_TEXT];
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s does not expand to %s", ftr__shape_text(in, text_in),
                            ftr__shape_text(shape, text));
}

ftr_status ftr__infer_transpose(ftr__infer *s) {
    const ftr_shape *in = &s->in[0]->shape;
    int32_t *order = s->node->attr.axes_order.order;
    ftr_shape out = {in->rank, {0}};
    uint32_t seen = 0;
    for (int32_t i = 0; i < in->rank; i++) {
        ftr_status status = ftr__check_axis(s, &order[i], in->rank);
        if (status != FTR_OK) return status;
        uint32_t bit = 1u << (uint32_t)order[i];
        if ((seen & bit) != 0)
            return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "axis %d is there twice", (int)order[i]);
        seen |= bit;
        out.dim[i] = in->dim[order[i]];
    }
    return ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

/* Input i must agree with input 0 in everything but the size along the axis. */
static ftr_status ftr__check_concat_input(ftr__infer *s, int32_t i, int32_t axis) {
    const ftr__value *first = s->in[0], *value = s->in[i];
    char text[FTR__SHAPE_TEXT], text_first[FTR__SHAPE_TEXT];
    if (value->dtype != first->dtype)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "input 0 is %s, input %d is %s: all must have one type",
                                ftr_dtype_name(first->dtype), (int)i, ftr_dtype_name(value->dtype));
    if (value->shape.rank != first->shape.rank)
        return ftr__infer_error(s, FTR_ERROR_RANK, "input 0 has rank %d, input %d has rank %d", (int)first->shape.rank,
                                (int)i, (int)value->shape.rank);
    for (int32_t d = 0; d < first->shape.rank; d++)
        if (d != axis && value->shape.dim[d] != first->shape.dim[d])
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "input 0 is %s, input %d is %s: dimension %d differs",
                                    ftr__shape_text(&first->shape, text_first), (int)i,
                                    ftr__shape_text(&value->shape, text), (int)d);
    return FTR_OK;
}

ftr_status ftr__infer_concat(ftr__infer *s) {
    int32_t *axis = &s->node->attr.axis.axis;
    ftr_shape out = s->in[0]->shape;
    if (s->in_count > FTR__INFER_INPUTS)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "%d tensors, expected 1 to %d", (int)s->in_count,
                                FTR__INFER_INPUTS);
    ftr_status status = ftr__check_axis(s, axis, out.rank);
    for (int32_t i = 1; i < s->in_count && status == FTR_OK; i++) {
        if (s->in[i] == NULL) return ftr__infer_error(s, FTR_ERROR_INVALID_TENSOR, "input %d is a null tensor", (int)i);
        status = ftr__check_concat_input(s, i, *axis);
        if (status != FTR_OK) return status;
        if (s->in[i]->shape.dim[*axis] > INT64_MAX - out.dim[*axis])
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "the result has too many elements");
        out.dim[*axis] += s->in[i]->shape.dim[*axis];
    }
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

/* A negative bound counts from the size; both ends are clamped to it. */
static int64_t ftr__clamp_bound(int64_t bound, int64_t size) {
    if (bound < 0) bound += size;
    return bound < 0 ? 0 : bound > size ? size : bound;
}

ftr_status ftr__infer_slice(ftr__infer *s) {
    ftr_op_attr *attr = &s->node->attr;
    ftr_shape out = s->in[0]->shape;
    ftr_status status = ftr__check_axis(s, &attr->slice.axis, out.rank);
    if (status != FTR_OK) return status;
    if (attr->slice.step < 1)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "step %lld, expected 1 or more",
                                (long long)attr->slice.step);
    int64_t size = out.dim[attr->slice.axis];
    attr->slice.size = size;
    attr->slice.begin = ftr__clamp_bound(attr->slice.begin, size);
    attr->slice.end = ftr__clamp_bound(attr->slice.end, size);
    if (attr->slice.end < attr->slice.begin) attr->slice.end = attr->slice.begin;
    int64_t length = attr->slice.end - attr->slice.begin;
    out.dim[attr->slice.axis] = length / attr->slice.step + (length % attr->slice.step != 0 ? 1 : 0);
    return ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

ftr_status ftr__infer_slice_grad(ftr__infer *s) {
    ftr_op_attr *attr = &s->node->attr;
    ftr_shape out = s->in[0]->shape;
    ftr_status status = ftr__check_axis(s, &attr->slice.axis, out.rank);
    if (status != FTR_OK) return status;
    out.dim[attr->slice.axis] = attr->slice.size;
    return ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

ftr_status ftr__infer_pad(ftr__infer *s) {
    const ftr_op_attr *attr = &s->node->attr;
    ftr_shape out = s->in[0]->shape;
    for (int32_t i = 0; i < out.rank; i++) {
        int64_t before = attr->pad.before[i], after = attr->pad.after[i];
        if (before < 0 || after < 0)
            return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT,
                                    "dimension %d is padded by %lld and %lld, expected 0 or more", (int)i,
                                    (long long)before, (long long)after);
        if (before > INT64_MAX - out.dim[i] || after > INT64_MAX - out.dim[i] - before)
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "the result has too many elements");
        out.dim[i] += before + after;
    }
    return ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

/* ---- gradients */

void ftr__grad_reshape(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_shape shape = ftr_shape_of(s->in[0]);
    s->din[0] = ftr__reshape_to(s->dout[0], &shape);
}

void ftr__grad_expand(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_shape shape = ftr_shape_of(s->in[0]);
    s->din[0] = ftr__reduce_to(s->dout[0], &shape);
}

void ftr__grad_transpose(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_axes inverse = {ftr_shape_of(s->in[0]).rank, {0}};
    for (int32_t i = 0; i < inverse.count; i++) inverse.axis[s->node->attr.axes_order.order[i]] = i;
    s->din[0] = ftr_transpose(s->dout[0], inverse);
}

void ftr__grad_concat(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    int32_t axis = s->node->attr.axis.axis;
    int64_t begin = 0;
    for (int32_t i = 0; i < s->node->in_count; i++) {
        int64_t end = begin + ftr_shape_of(s->in[i]).dim[axis];
        if (s->wanted[i]) s->din[i] = ftr_slice(s->dout[0], axis, begin, end, 1);
        begin = end;
    }
}

void ftr__grad_slice(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_one(FTR_OP_slice_grad, &s->node->attr, s->dout[0]);
}

void ftr__grad_pad(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    const ftr_op_attr *attr = &s->node->attr;
    ftr_shape shape = ftr_shape_of(s->in[0]);
    ftr_tensor d = s->dout[0];
    for (int32_t i = 0; i < shape.rank; i++) {
        int64_t before = attr->pad.before[i];
        if (before != 0 || attr->pad.after[i] != 0) d = ftr_slice(d, i, before, before + shape.dim[i], 1);
    }
    s->din[0] = d;
}

/* ---- split and stack, made of slices, reshapes and concat */

/* Whether the parts fit the axis; if not, the error is recorded. */
static bool ftr__check_split(ftr_tensor x, int32_t axis, const int64_t *sizes, int32_t count) {
    ftr_shape shape = ftr_shape_of(x);
    const char *name = ftr_name_of(x);
    if (axis < -shape.rank || axis >= shape.rank) {
        (void)ftr__builder_error(x.graph, FTR_ERROR_INVALID_ARGUMENT, "split of", name,
                                 "axis %d of a tensor of rank %d", (int)axis, (int)shape.rank);
        return false;
    }
    int64_t size = shape.dim[axis < 0 ? axis + shape.rank : axis], left = size;
    if (count < 1) {
        (void)ftr__builder_error(x.graph, FTR_ERROR_INVALID_ARGUMENT, "split of", name, "%d parts, expected 1 or more",
                                 (int)count);
        return false;
    }
    if (sizes == NULL && size % count != 0) {
        (void)ftr__builder_error(x.graph, FTR_ERROR_SHAPE, "split of", name, "%d equal parts of an axis of size %lld",
                                 (int)count, (long long)size);
        return false;
    }
    for (int32_t i = 0; sizes != NULL && i < count && left >= 0; i++)
        left = sizes[i] < 0 || sizes[i] > left ? -1 : left - sizes[i];
    if (sizes == NULL || left == 0) return true;
    (void)ftr__builder_error(x.graph, FTR_ERROR_SHAPE, "split of", name,
                             "the sizes of the %d parts do not add up to %lld, the size of axis %d", (int)count,
                             (long long)size, (int)axis);
    return false;
}

void ftr_split(ftr_tensor x, int32_t axis, const int64_t *sizes, int32_t count, ftr_tensor *parts) {
    if (parts == NULL) return;
    for (int32_t i = 0; i < count; i++) parts[i] = (ftr_tensor){NULL, 0};
    if (ftr__common_graph("split", &x, 1, 1) == NULL || !ftr__check_split(x, axis, sizes, count)) return;
    ftr_shape shape = ftr_shape_of(x);
    int64_t equal = shape.dim[axis < 0 ? axis + shape.rank : axis] / count, begin = 0;
    for (int32_t i = 0; i < count; i++) {
        int64_t end = begin + (sizes != NULL ? sizes[i] : equal);
        parts[i] = ftr_slice(x, axis, begin, end, 1);
        begin = end;
    }
}

ftr_tensor ftr_stack(const ftr_tensor *tensors, int32_t count, int32_t axis) {
    ftr_tensor none = {NULL, 0}, parts[FTR__INFER_INPUTS];
    ftr_graph *graph = NULL;
    for (int32_t i = 0; tensors != NULL && i < count && graph == NULL; i++) graph = tensors[i].graph;
    if (graph == NULL) return none;
    if (count > FTR__INFER_INPUTS)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "stack", NULL, "%d tensors, expected 1 to %d",
                                  (int)count, FTR__INFER_INPUTS);
    if (ftr__common_graph("stack", tensors, count, count) == NULL) return none;
    ftr_shape first = ftr_shape_of(tensors[0]);
    if (first.rank == FTR_MAX_RANK)
        return ftr__builder_error(graph, FTR_ERROR_RANK, "stack", NULL, "tensors have rank %d, expected %d or less",
                                  (int)first.rank, FTR_MAX_RANK - 1);
    if (axis < -first.rank - 1 || axis > first.rank)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "stack", NULL,
                                  "new axis %d for tensors of rank %d", (int)axis, (int)first.rank);
    if (axis < 0) axis += first.rank + 1;
    ftr_shape wider = first;
    wider.dim[wider.rank++] = 1;
    for (int32_t d = first.rank; d > axis; d--) wider.dim[d] = first.dim[d - 1];
    wider.dim[axis] = 1;
    for (int32_t i = 0; i < count; i++) {
        ftr_shape shape = ftr_shape_of(tensors[i]);
        char text[FTR__SHAPE_TEXT], text_first[FTR__SHAPE_TEXT];
        if (!ftr_shape_equal(&shape, &first))
            return ftr__builder_error(graph, FTR_ERROR_SHAPE, "stack", NULL,
                                      "input 0 is %s, input %d is %s: all must have one shape",
                                      ftr__shape_text(&first, text_first), (int)i, ftr__shape_text(&shape, text));
        parts[i] = ftr__reshape_to(tensors[i], &wider);
    }
    return ftr_concat(parts, count, axis);
}
