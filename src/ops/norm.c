/* Batch normalization over the last dimension's channels (Ioffe, Szegedy: Batch Normalization, ICML 2015). */
#include "ops/registry.h"

#include <math.h>

#define FTR__COOKIE_BATCH_NORM 0x424e4f52u

/* ---- builders */

ftr_batch_norm_desc ftr_batch_norm_defaults(void) {
    return (ftr_batch_norm_desc){.cookie = FTR__COOKIE_BATCH_NORM, .eps = 1e-5, .momentum = 0.1};
}

static ftr_tensor ftr__batch_norm_named(ftr_tensor x, const ftr_tensor state[4], const ftr_batch_norm_desc *desc,
                                        const char *name) {
    ftr_tensor none = {NULL, 0};
    ftr_tensor in[7] = {x, state[0], state[1], state[2], state[3], none, none};
    ftr_graph *graph = ftr__common_graph("batch_norm", in, 5, 5);
    if (graph == NULL) return none;
    ftr_batch_norm_desc d = desc != NULL ? *desc : ftr_batch_norm_defaults();
    if (d.cookie != FTR__COOKIE_BATCH_NORM)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "batch_norm", name,
                                  "desc was not made by ftr_batch_norm_defaults()");
    ftr_shape shape = ftr_shape_of(x);
    in[5] = ftr__row_mask(graph, &shape, ftr__wide_type(ftr_dtype_of(x)));
    ftr_op_attr attr = {.norm = {d.eps, d.momentum, true, FTR_ACT_NONE}};
    return ftr__emit(graph, FTR_OP_batch_norm, name, &attr, in, 7);
}

ftr_tensor ftr_batch_norm_with(ftr_tensor x, ftr_tensor gamma, ftr_tensor beta, ftr_tensor running_mean,
                               ftr_tensor running_var, const ftr_batch_norm_desc *desc) {
    ftr_tensor state[4] = {gamma, beta, running_mean, running_var};
    return ftr__batch_norm_named(x, state, desc, NULL);
}

ftr_tensor ftr_batch_norm(ftr_tensor x, const char *name, const ftr_batch_norm_desc *desc) {
    static const struct {
        const char *field;
        bool trainable;
        double value;
    } states[4] = {
        {"weight", true, 1.0}, {"bias", true, 0.0}, {"running_mean", false, 0.0}, {"running_var", false, 1.0}};
    ftr_graph *graph = ftr__layer_begin("batch_norm", name, x, 2, FTR_MAX_RANK, "n, ..., c");
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    ftr_shape shape = ftr_shape_of(x);
    ftr_shape channels = FTR_SHAPE(shape.dim[shape.rank - 1]);
    ftr_tensor state[4];
    for (int32_t i = 0; i < 4; i++) {
        ftr_init init = {FTR_INIT_CONSTANT, states[i].value, 0.0};
        if (desc != NULL && i < 2) init = ftr__init_or(i == 0 ? &desc->weight_init : &desc->bias_init, init);
        state[i] = ftr__layer_variable(graph, "batch_norm", name, states[i].field, states[i].trainable,
                                       ftr__wide_type(ftr_dtype_of(x)), &channels, init);
        if (!ftr_is_valid(state[i])) return state[i];
    }
    return ftr__batch_norm_named(x, state, desc, name);
}

/* ---- shapes and types */

/* Input `index`, if given, marks the rows of x that count. */
static ftr_status ftr__check_row_mask(ftr__infer *s, int32_t index, int64_t rows) {
    if (s->in_count <= index || s->in[index] == NULL) return FTR_OK;
    return ftr__check_wide_vector(s, index, "row mask", rows);
}

static ftr_status ftr__norm_outputs(ftr__infer *s, const ftr_shape *x, int32_t vectors) {
    ftr_shape channels = FTR_SHAPE(x->dim[x->rank - 1]);
    ftr_status status = ftr__set_output(s, 0, s->in[0]->dtype, x);
    for (int32_t i = 1; i <= vectors && status == FTR_OK; i++)
        status = ftr__set_output(s, i, ftr__wide_type(s->in[0]->dtype), &channels);
    return status;
}

static ftr_status ftr__check_norm_attr(ftr__infer *s) {
    double eps = s->node->attr.norm.eps, momentum = s->node->attr.norm.momentum;
    if (!(eps >= 0.0) || !isfinite(eps))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "eps %g, expected a finite number of 0 or more", eps);
    if (!(momentum >= 0.0 && momentum <= 1.0))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "momentum %g, expected 0 to 1", momentum);
    return FTR_OK;
}

ftr_status ftr__infer_batch_norm(ftr__infer *s) {
    static const char *const words[5] = {"input", "gamma", "beta", "running mean", "running variance"};
    const ftr_shape *x = &s->in[0]->shape;
    ftr_status status = ftr__check_float(s, 0, "input");
    if (status != FTR_OK) return status;
    if (x->rank < 2)
        return ftr__infer_error(s, FTR_ERROR_RANK, "input has rank %d, expected 2 or more (n, ..., c)", (int)x->rank);
    status = ftr__check_norm_attr(s);
    for (int32_t i = 1; i < 5 && status == FTR_OK; i++)
        status = ftr__check_wide_vector(s, i, words[i], x->dim[x->rank - 1]);
    if (status == FTR_OK) status = ftr__check_row_mask(s, 5, x->dim[0]);
    if (status == FTR_OK && s->in_count > 6 && s->in[6] != NULL) {
        status = ftr__check_same_type(s, 0, 6, "input", "residual");
        if (status == FTR_OK) status = ftr__check_same_shape(s, 0, 6, "input", "residual");
    }
    return status != FTR_OK ? status : ftr__norm_outputs(s, x, 3);
}

ftr_status ftr__infer_batch_norm_grad(ftr__infer *s) {
    static const char *const words[5] = {"dy", "input", "gamma", "mean", "1 / std"};
    const ftr_shape *x = &s->in[1]->shape;
    ftr_status status = ftr__check_float(s, 0, "dy");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dy", "input");
    if (status == FTR_OK) status = ftr__check_same_shape(s, 0, 1, "dy", "input");
    if (status != FTR_OK) return status;
    if (x->rank < 2)
        return ftr__infer_error(s, FTR_ERROR_RANK, "input has rank %d, expected 2 or more (n, ..., c)", (int)x->rank);
    for (int32_t i = 2; i < 5 && status == FTR_OK; i++)
        status = ftr__check_wide_vector(s, i, words[i], x->dim[x->rank - 1]);
    if (status == FTR_OK) status = ftr__check_row_mask(s, 5, x->dim[0]);
    if (status == FTR_OK && s->in_count > 6 && s->in[6] != NULL) {
        status = ftr__check_same_type(s, 0, 6, "dy", "y");
        if (status == FTR_OK) status = ftr__check_same_shape(s, 0, 6, "dy", "y");
    }
    if (status == FTR_OK && s->in_count > 7 && s->in[7] != NULL)
        status = ftr__check_wide_vector(s, 7, "beta", x->dim[x->rank - 1]);
    return status != FTR_OK ? status : ftr__norm_outputs(s, x, 2);
}

/* ---- gradient */

void ftr__grad_batch_norm(ftr__grad *s) {
    if (!ftr__has_gradient(s) || (!s->wanted[0] && !s->wanted[1] && !s->wanted[2])) return;
    ftr_tensor none = {NULL, 0};
    const ftr_op_attr *attr = &s->node->attr;
    ftr_tensor in[7] = {s->dout[0],
                        s->in[0],
                        s->in[1],
                        attr->norm.training ? s->out[1] : s->in[3],
                        s->out[3],
                        s->node->in_count > 5 ? s->in[5] : none,
                        attr->norm.activation != FTR_ACT_NONE ? s->out[0] : none};
    ftr_tensor dx = ftr__emit(s->graph, FTR_OP_batch_norm_grad, NULL, attr, in, 7);
    if (!ftr_is_valid(dx)) return;
    for (int32_t i = 0; i < 3; i++)
        if (s->wanted[i]) s->din[i] = ftr__output(dx, i);
}
