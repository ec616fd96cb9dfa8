/* Ops on indices: embedding, gather, scatter_add, one_hot, topk. */
#include "ops/registry.h"

#include <string.h>

/* ---- builders */

ftr_tensor ftr_embedding_with(ftr_tensor weight, ftr_tensor indices) {
    return ftr__emit_two(FTR_OP_embedding, NULL, weight, indices);
}

ftr_tensor ftr_embedding(ftr_tensor indices, const char *name, int64_t rows, int64_t width,
                         const ftr_embedding_desc *desc) {
    ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__common_graph("embedding", &indices, 1, 1);
    if (graph == NULL) return none;
    if (name == NULL || name[0] == '\0')
        return ftr__builder_error(graph, FTR_ERROR_NAME, "embedding", NULL, "the layer has no name");
    if (rows < 1 || width < 1)
        return ftr__layer_error(graph, FTR_ERROR_INVALID_ARGUMENT, "embedding", name,
                                "rows %lld, width %lld, expected 1 or more", (long long)rows, (long long)width);
    ftr_dtype dtype = desc != NULL && desc->dtype != FTR_DTYPE_NONE ? desc->dtype : FTR_F32;
    ftr_shape shape = FTR_SHAPE(rows, width);
    ftr_init init = ftr__init_or(desc != NULL ? &desc->weight_init : NULL, (ftr_init){FTR_INIT_NORMAL, 0.0, 1.0});
    ftr_tensor weight = ftr__layer_variable(graph, "embedding", name, "weight", true, dtype, &shape, init);
    ftr_tensor in[2] = {weight, indices};
    return ftr_is_valid(weight) ? ftr__emit(graph, FTR_OP_embedding, name, NULL, in, 2) : none;
}

ftr_tensor ftr_gather(ftr_tensor x, int32_t axis, ftr_tensor index) {
    ftr_op_attr attr = {.axis = {axis}};
    return ftr__emit_two(FTR_OP_gather, &attr, x, index);
}

ftr_tensor ftr_scatter_add(ftr_tensor x, int32_t axis, ftr_tensor index, ftr_tensor source) {
    ftr_tensor in[3] = {index, source, x};
    ftr_graph *graph = ftr__common_graph("scatter_add", in, 3, 3);
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    ftr_op_attr attr = {.scatter = {axis, ftr_shape_of(x)}};
    return ftr__emit(graph, FTR_OP_scatter_add, NULL, &attr, in, 3);
}

ftr_tensor ftr_one_hot(ftr_tensor indices, int64_t classes, ftr_dtype dtype) {
    ftr_op_attr attr = {.one_hot = {classes, dtype}};
    return ftr__emit_one(FTR_OP_one_hot, &attr, indices);
}

ftr_tensor ftr_topk(ftr_tensor x, int64_t k, ftr_tensor *indices) {
    ftr_op_attr attr = {.topk = {k}};
    ftr_tensor values = ftr__emit_one(FTR_OP_topk, &attr, x);
    if (indices != NULL) *indices = ftr_is_valid(values) ? ftr__output(values, 1) : values;
    return values;
}

/* ---- shapes and types */

static ftr_status ftr__check_indices(ftr__infer *s, int32_t input, const char *what) {
    ftr_dtype found = s->in[input]->dtype;
    if (found == FTR_I32 || found == FTR_I64) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s %s, expected i32 or i64", what, ftr_dtype_name(found));
}

/* The shape with one more dimension at its end. */
static ftr_status ftr__set_wider(ftr__infer *s, ftr_dtype dtype, const ftr_shape *shape, int64_t size) {
    ftr_shape out = *shape;
    if (out.rank == FTR_MAX_RANK)
        return ftr__infer_error(s, FTR_ERROR_RANK, "indices have rank %d, expected %d or less", (int)out.rank,
                                FTR_MAX_RANK - 1);
    out.dim[out.rank++] = size;
    return ftr__set_output(s, 0, dtype, &out);
}

ftr_status ftr__infer_embedding(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "weight");
    if (status == FTR_OK) status = ftr__check_rank(s, 0, "weight", 2, "rows, width");
    if (status == FTR_OK) status = ftr__check_indices(s, 1, "indices are");
    return status != FTR_OK ? status
                            : ftr__set_wider(s, s->in[0]->dtype, &s->in[1]->shape, s->in[0]->shape.dim[1]);
}

ftr_status ftr__infer_embedding_grad(ftr__infer *s) {
    const ftr_shape *dy = &s->in[0]->shape;
    ftr_status status = ftr__check_float(s, 0, "dy");
    if (status == FTR_OK) status = ftr__check_indices(s, 1, "indices are");
    if (status != FTR_OK) return status;
    ftr_shape rows = *dy;
    if (rows.rank > 0) rows.rank--;
    char text[FTR__SHAPE_TEXT], text_dy[FTR__SHAPE_TEXT];
    if (dy->rank < 1 || !ftr_shape_equal(&rows, &s->in[1]->shape))
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "dy is %s, indices are %s: expected theirs and the width",
                                ftr__shape_text(dy, text_dy), ftr__shape_text(&s->in[1]->shape, text));
    ftr_shape out = FTR_SHAPE(s->node->attr.embedding.rows, dy->dim[dy->rank - 1]);
    return ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

/* Rank of the index is that of a shape; where the dimension is not `but`, it is not larger. */
static ftr_status ftr__check_index_fits(ftr__infer *s, const ftr_shape *index, const ftr_shape *shape, const char *what,
                                        int32_t but) {
    if (index->rank != shape->rank || index->rank < 1)
        return ftr__infer_error(s, FTR_ERROR_RANK, "index has rank %d, %s has rank %d, expected one rank of 1 or more",
                                (int)index->rank, what, (int)shape->rank);
    char text[FTR__SHAPE_TEXT], text_index[FTR__SHAPE_TEXT];
    for (int32_t d = 0; d < index->rank; d++)
        if (d != but && index->dim[d] > shape->dim[d])
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "index is %s, %s is %s: dimension %d is larger",
                                    ftr__shape_text(index, text_index), what, ftr__shape_text(shape, text), (int)d);
    return FTR_OK;
}

ftr_status ftr__infer_gather(ftr__infer *s) {
    const ftr_shape *x = &s->in[0]->shape, *index = &s->in[1]->shape;
    int32_t *axis = &s->node->attr.axis.axis;
    ftr_status status = ftr__check_indices(s, 1, "index is");
    if (status == FTR_OK) status = ftr__check_axis(s, axis, x->rank);
    if (status == FTR_OK) status = ftr__check_index_fits(s, index, x, "x", *axis);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, index);
}

ftr_status ftr__infer_scatter_add(ftr__infer *s) {
    ftr_op_attr *attr = &s->node->attr;
    const ftr_shape *index = &s->in[0]->shape, *source = &s->in[1]->shape;
    ftr_status status = ftr__check_indices(s, 0, "index is");
    if (status == FTR_OK) status = ftr__check_arithmetic(s, 1, "source");
    if (status == FTR_OK && s->in_count > 2 && s->in[2] != NULL) {
        attr->scatter.shape = s->in[2]->shape;
        status = ftr__check_same_type(s, 2, 1, "x", "source");
    }
    if (status == FTR_OK) status = ftr__check_axis(s, &attr->scatter.axis, attr->scatter.shape.rank);
    if (status == FTR_OK) status = ftr__check_index_fits(s, index, &attr->scatter.shape, "x", attr->scatter.axis);
    if (status == FTR_OK) status = ftr__check_index_fits(s, index, source, "source", -1);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[1]->dtype, &attr->scatter.shape);
}

ftr_status ftr__infer_one_hot(ftr__infer *s) {
    const ftr_op_attr *attr = &s->node->attr;
    ftr_status status = ftr__check_indices(s, 0, "indices are");
    if (status != FTR_OK) return status;
    if (attr->one_hot.classes < 1)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "classes %lld, expected 1 or more",
                                (long long)attr->one_hot.classes);
    if (ftr_dtype_size(attr->one_hot.dtype) == 0)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "dtype %d, expected one of ftr_dtype",
                                (int)attr->one_hot.dtype);
    return ftr__set_wider(s, attr->one_hot.dtype, &s->in[0]->shape, attr->one_hot.classes);
}

ftr_status ftr__infer_topk(ftr__infer *s) {
    ftr_shape out = s->in[0]->shape;
    int64_t k = s->node->attr.topk.k;
    ftr_status status = ftr__check_arithmetic(s, 0, "input");
    if (status != FTR_OK) return status;
    if (out.rank < 1) return ftr__infer_error(s, FTR_ERROR_RANK, "input has rank 0, expected 1 or more");
    if (k < 0 || k > out.dim[out.rank - 1])
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "k %lld, expected 0 to %lld", (long long)k,
                                (long long)out.dim[out.rank - 1]);
    out.dim[out.rank - 1] = k;
    status = ftr__set_output(s, 0, s->in[0]->dtype, &out);
    return status != FTR_OK ? status : ftr__set_output(s, 1, FTR_I64, &out);
}

/* ---- gradients */

/* Zeros of the shape of x with dy added at the indices. */
static ftr_tensor ftr__scatter_like(ftr_tensor x, int32_t axis, ftr_tensor index, ftr_tensor dy) {
    ftr_op_attr attr = {.scatter = {axis, ftr_shape_of(x)}};
    return ftr__emit_two(FTR_OP_scatter_add, &attr, index, dy);
}

void ftr__grad_embedding(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_op_attr attr = {.embedding = {ftr_shape_of(s->in[0]).dim[0]}};
    s->din[0] = ftr__emit_two(FTR_OP_embedding_grad, &attr, s->dout[0], s->in[1]);
}

void ftr__grad_gather(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__scatter_like(s->in[0], s->node->attr.axis.axis, s->in[1], s->dout[0]);
}

/* Elements of the source that the index does not reach have no gradient. */
void ftr__grad_scatter_add(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    if (s->node->in_count > 2 && s->wanted[2]) s->din[2] = s->dout[0];
    if (!s->wanted[1]) return;
    ftr_shape index = ftr_shape_of(s->in[0]), source = ftr_shape_of(s->in[1]), before = source;
    s->din[1] = ftr_gather(s->dout[0], s->node->attr.scatter.axis, s->in[0]);
    if (ftr_shape_equal(&index, &source)) return;
    for (int32_t d = 0; d < source.rank; d++) {
        before.dim[d] = 0;
        source.dim[d] -= index.dim[d];
    }
    s->din[1] = ftr_pad(s->din[1], before, source, 0.0);
}

void ftr__grad_topk(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__scatter_like(s->in[0], ftr_shape_of(s->in[0]).rank - 1, s->out[1], s->dout[0]);
}
