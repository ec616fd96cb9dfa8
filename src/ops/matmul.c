/* Matrix products: matmul and the linear layer. */
#include "ops/registry.h"

#include <math.h>

/* ---- builders */

ftr_tensor ftr_matmul(ftr_tensor a, ftr_tensor b, bool transpose_a, bool transpose_b) {
    ftr_op_attr attr = {.matmul = {transpose_a, transpose_b}};
    return ftr__emit_two(FTR_OP_matmul, &attr, a, b);
}

static ftr_tensor ftr__linear_named(ftr_tensor x, ftr_tensor weight, ftr_tensor bias, const char *name) {
    ftr_tensor in[3] = {x, weight, bias};
    ftr_op_attr attr = {.linear = {.activation = FTR_ACT_NONE}};
    return ftr__emit(x.graph != NULL ? x.graph : weight.graph, FTR_OP_linear, name, &attr, in, 3);
}

ftr_tensor ftr_linear_with(ftr_tensor x, ftr_tensor weight, ftr_tensor bias) {
    return ftr__linear_named(x, weight, bias, NULL);
}

ftr_tensor ftr_linear(ftr_tensor x, const char *name, int64_t out_features, const ftr_linear_desc *desc) {
    ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__layer_begin("linear", name, x, 1, FTR_MAX_RANK, "..., in");
    if (graph == NULL) return none;
    if (out_features < 1)
        return ftr__layer_error(graph, FTR_ERROR_INVALID_ARGUMENT, "linear", name,
                                "out_features %lld, expected 1 or more", (long long)out_features);
    ftr_shape shape = ftr_shape_of(x);
    ftr_dtype dtype = ftr_dtype_of(x);
    int64_t in_features = shape.dim[shape.rank - 1];
    ftr_shape weight_shape = FTR_SHAPE(out_features, in_features), bias_shape = FTR_SHAPE(out_features);
    ftr_init init = ftr__init_or(desc != NULL ? &desc->weight_init : NULL,
                                 (ftr_init){FTR_INIT_KAIMING_UNIFORM, sqrt(5.0), 0.0});
    ftr_tensor weight = ftr__layer_variable(graph, "linear", name, "weight", true, dtype, &weight_shape, init);
    ftr_tensor bias = none;
    if (desc == NULL || !desc->no_bias)
        bias = ftr__layer_variable(graph, "linear", name, "bias", true, dtype, &bias_shape,
                                   ftr__init_or(desc != NULL ? &desc->bias_init : NULL, ftr__bias_init(in_features)));
    return ftr__linear_named(x, weight, bias, name);
}

/* ---- shapes and types */

ftr_status ftr__infer_matmul(ftr__infer *s) {
    const ftr_shape *a = &s->in[0]->shape, *b = &s->in[1]->shape;
    ftr_status status = ftr__check_float(s, 0, "a");
    if (status == FTR_OK) status = ftr__check_float(s, 1, "b");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "a", "b");
    if (status != FTR_OK) return status;
    for (int32_t i = 0; i < 2; i++)
        if (s->in[i]->shape.rank < 2)
            return ftr__infer_error(s, FTR_ERROR_RANK, "%s has rank %d, expected 2 or more", i == 0 ? "a" : "b",
                                    (int)s->in[i]->shape.rank);
    bool ta = s->node->attr.matmul.transpose_a, tb = s->node->attr.matmul.transpose_b;
    int64_t m = a->dim[a->rank - (ta ? 1 : 2)], inner_a = a->dim[a->rank - (ta ? 2 : 1)];
    int64_t n = b->dim[b->rank - (tb ? 2 : 1)], inner_b = b->dim[b->rank - (tb ? 1 : 2)];
    char text_a[FTR__SHAPE_TEXT], text_b[FTR__SHAPE_TEXT];
    if (inner_a != inner_b)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "a is %s%s, b is %s%s: inner sizes %lld and %lld differ",
                                ftr__shape_text(a, text_a), ta ? " transposed" : "", ftr__shape_text(b, text_b),
                                tb ? " transposed" : "", (long long)inner_a, (long long)inner_b);
    ftr_shape batch_a = *a, batch_b = *b, out;
    batch_a.rank -= 2;
    batch_b.rank -= 2;
    if (!ftr__broadcast_shape(&batch_a, &batch_b, &out))
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "a is %s, b is %s: the leading dimensions do not broadcast",
                                ftr__shape_text(a, text_a), ftr__shape_text(b, text_b));
    out.dim[out.rank++] = m;
    out.dim[out.rank++] = n;
    return ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

ftr_status ftr__infer_linear(ftr__infer *s) {
    const ftr_shape *x = &s->in[0]->shape, *weight = &s->in[1]->shape;
    ftr_status status = ftr__check_float(s, 0, "input");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "input", "weight");
    if (status == FTR_OK) status = ftr__check_rank(s, 1, "weight", 2, "out, in");
    if (status != FTR_OK) return status;
    if (x->rank < 1) return ftr__infer_error(s, FTR_ERROR_RANK, "input has rank 0, expected 1 or more (..., in)");
    if (x->dim[x->rank - 1] != weight->dim[1])
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "input has %lld features, weight expects %lld",
                                (long long)x->dim[x->rank - 1], (long long)weight->dim[1]);
    if (s->in_count > 2 && s->in[2] != NULL) {
        status = ftr__check_vector(s, 2, "bias", weight->dim[0]);
        if (status != FTR_OK) return status;
    }
    ftr_shape out = *x;
    out.dim[out.rank - 1] = weight->dim[0];
    return ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

/* ---- gradients */

/* [.., n] as [rows, n]. */
static ftr_tensor ftr__as_rows(ftr_tensor x) {
    ftr_shape shape = ftr_shape_of(x);
    if (shape.rank < 1) return x;
    int64_t rows = 1;
    for (int32_t i = 0; i + 1 < shape.rank; i++) rows *= shape.dim[i];
    ftr_shape flat = FTR_SHAPE(rows, shape.dim[shape.rank - 1]);
    return ftr__reshape_to(x, &flat);
}

/* With A and B as stored and dY = dL/dY:  Y = A B: dA = dY B^T, dB = A^T dY; a transposed operand's gradient is the
 * transpose of that product, which is had by swapping the factors. */
void ftr__grad_matmul(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    bool ta = s->node->attr.matmul.transpose_a, tb = s->node->attr.matmul.transpose_b;
    ftr_tensor a = s->in[0], b = s->in[1], dy = s->dout[0];
    ftr_shape shape_a = ftr_shape_of(a), shape_b = ftr_shape_of(b);
    if (s->wanted[0]) {
        ftr_tensor da = ta ? ftr_matmul(b, dy, tb, true) : ftr_matmul(dy, b, false, !tb);
        s->din[0] = ftr__reduce_to(da, &shape_a);
    }
    if (!s->wanted[1]) return;
    if (shape_a.rank > 2 && shape_b.rank == 2 && !ta) { /* one product over all rows instead of a sum of products */
        a = ftr__as_rows(a);
        dy = ftr__as_rows(dy);
    }
    ftr_tensor db = tb ? ftr_matmul(dy, a, true, ta) : ftr_matmul(a, dy, !ta, false);
    s->din[1] = ftr__reduce_to(db, &shape_b);
}

/* y = x W^T + b:  dx = dy W,  dW = dy^T x,  db = sum of dy over rows. */
void ftr__grad_linear(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    ftr_tensor dy = ftr__as_rows(s->dout[0]);
    if (s->wanted[0]) {
        ftr_shape shape = ftr_shape_of(s->in[0]);
        s->din[0] = ftr__reshape_to(ftr_matmul(dy, s->in[1], false, false), &shape);
    }
    if (s->wanted[1]) s->din[1] = ftr_matmul(dy, ftr__as_rows(s->in[0]), true, false);
    if (s->node->in_count > 2 && s->wanted[2]) s->din[2] = ftr__sum_mask(dy, 1u, false);
}
