/* Normalization within a sample: layer norm and RMS norm over rows, group norm over groups of channels. */
#include "ops/registry.h"

#include <math.h>

#define FTR__COOKIE_LAYER_NORM 0x4c4e4f52u
#define FTR__COOKIE_RMS_NORM 0x524d534eu
#define FTR__COOKIE_GROUP_NORM 0x474e4f52u

/* ---- builders */

ftr_layer_norm_desc ftr_layer_norm_defaults(void) {
    ftr_layer_norm_desc desc = {FTR__COOKIE_LAYER_NORM, 1e-5, 0, false};
    return desc;
}

ftr_rms_norm_desc ftr_rms_norm_defaults(void) {
    ftr_rms_norm_desc desc = {FTR__COOKIE_RMS_NORM, 0x1p-23};
    return desc;
}

ftr_group_norm_desc ftr_group_norm_defaults(void) {
    ftr_group_norm_desc desc = {FTR__COOKIE_GROUP_NORM, 1e-5};
    return desc;
}

/* `known`: the description's cookie is right; it is NULL or the attributes were made of it. */
static ftr_tensor ftr__row_norm_node(ftr_op op, bool known, const ftr_op_attr *attr, const ftr_tensor *in,
                                     int32_t in_count, const char *name) {
    const char *what = ftr_op_name(op);
    ftr_graph *graph = ftr__common_graph(what, in, in_count, 1);
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    if (!known)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, name,
                                  "desc was not made by ftr_%s_defaults()", what);
    return ftr__emit(graph, op, name, attr, in, in_count);
}

/* Parameters "name.weight" and, if asked for, "name.bias" over the last dimension; false on an error. */
static bool ftr__row_norm_parameters(ftr_op op, const char *name, ftr_tensor x, int32_t min_rank, const char *layout,
                                     ftr_tensor *weight, ftr_tensor *bias) {
    ftr_graph *graph = ftr__layer_begin(ftr_op_name(op), name, x, min_rank, FTR_MAX_RANK, layout);
    if (graph == NULL) return false;
    ftr_shape shape = ftr_shape_of(x), size = FTR_SHAPE(shape.dim[shape.rank - 1]);
    ftr_init one = {FTR_INIT_CONSTANT, 1.0, 0.0}, zero = {FTR_INIT_ZEROS, 0.0, 0.0};
    ftr_dtype dtype = ftr__wide_type(ftr_dtype_of(x));
    *weight = ftr__layer_variable(graph, ftr_op_name(op), name, "weight", true, dtype, &size, one);
    if (ftr_is_valid(*weight) && bias != NULL)
        *bias = ftr__layer_variable(graph, ftr_op_name(op), name, "bias", true, dtype, &size, zero);
    return ftr_is_valid(*weight) && (bias == NULL || ftr_is_valid(*bias));
}

static ftr_tensor ftr__layer_norm_named(ftr_tensor x, ftr_tensor gamma, ftr_tensor beta,
                                        const ftr_layer_norm_desc *desc, const char *name) {
    ftr_layer_norm_desc d = desc != NULL ? *desc : ftr_layer_norm_defaults();
    ftr_tensor in[3] = {x, gamma, beta};
    ftr_op_attr attr = {.row_norm = {.eps = d.eps, .dims = d.dims}};
    if (d.dims == 0)
        attr.row_norm.dims = ftr_is_valid(gamma)  ? ftr_shape_of(gamma).rank
                             : ftr_is_valid(beta) ? ftr_shape_of(beta).rank
                                                  : 1;
    return ftr__row_norm_node(FTR_OP_layer_norm, d.cookie == FTR__COOKIE_LAYER_NORM, &attr, in, 3, name);
}

ftr_tensor ftr_layer_norm_with(ftr_tensor x, ftr_tensor gamma, ftr_tensor beta, const ftr_layer_norm_desc *desc) {
    return ftr__layer_norm_named(x, gamma, beta, desc, NULL);
}

ftr_tensor ftr_layer_norm(ftr_tensor x, const char *name, const ftr_layer_norm_desc *desc) {
    ftr_tensor none = {NULL, 0}, weight = none, bias = none;
    bool with_bias = desc == NULL || !desc->no_bias;
    if (!ftr__row_norm_parameters(FTR_OP_layer_norm, name, x, 1, "..., features", &weight, with_bias ? &bias : NULL))
        return none;
    return ftr__layer_norm_named(x, weight, bias, desc, name);
}

static ftr_tensor ftr__rms_norm_named(ftr_tensor x, ftr_tensor gamma, const ftr_rms_norm_desc *desc,
                                      const char *name) {
    ftr_rms_norm_desc d = desc != NULL ? *desc : ftr_rms_norm_defaults();
    ftr_tensor in[2] = {x, gamma};
    ftr_op_attr attr = {.row_norm = {.eps = d.eps, .dims = 1}};
    return ftr__row_norm_node(FTR_OP_rms_norm, d.cookie == FTR__COOKIE_RMS_NORM, &attr, in, 2, name);
}

ftr_tensor ftr_rms_norm_with(ftr_tensor x, ftr_tensor gamma, const ftr_rms_norm_desc *desc) {
    return ftr__rms_norm_named(x, gamma, desc, NULL);
}

ftr_tensor ftr_rms_norm(ftr_tensor x, const char *name, const ftr_rms_norm_desc *desc) {
    ftr_tensor none = {NULL, 0}, weight = none;
    if (!ftr__row_norm_parameters(FTR_OP_rms_norm, name, x, 1, "..., features", &weight, NULL)) return none;
    return ftr__rms_norm_named(x, weight, desc, name);
}

static ftr_tensor ftr__group_norm_named(ftr_tensor x, int32_t groups, ftr_tensor gamma, ftr_tensor beta,
                                        const ftr_group_norm_desc *desc, const char *name) {
    ftr_group_norm_desc d = desc != NULL ? *desc : ftr_group_norm_defaults();
    ftr_tensor in[3] = {x, gamma, beta};
    ftr_op_attr attr = {.row_norm = {.eps = d.eps, .dims = 1, .groups = groups}};
    return ftr__row_norm_node(FTR_OP_group_norm, d.cookie == FTR__COOKIE_GROUP_NORM, &attr, in, 3, name);
}

ftr_tensor ftr_group_norm_with(ftr_tensor x, int32_t groups, ftr_tensor gamma, ftr_tensor beta,
                               const ftr_group_norm_desc *desc) {
    return ftr__group_norm_named(x, groups, gamma, beta, desc, NULL);
}

ftr_tensor ftr_group_norm(ftr_tensor x, const char *name, int32_t groups, const ftr_group_norm_desc *desc) {
    ftr_tensor none = {NULL, 0}, weight = none, bias = none;
    if (!ftr__row_norm_parameters(FTR_OP_group_norm, name, x, 2, "n, ..., c", &weight, &bias)) return none;
    return ftr__group_norm_named(x, groups, weight, bias, desc, name);
}

/* ---- shapes and types */

/* Of x, which is input `index`: the shape that gamma and beta have, and that of the statistics. */
static ftr_status ftr__row_norm_shapes(ftr__infer *s, int32_t index, ftr_shape *row, ftr_shape *statistics) {
    const ftr_shape *x = &s->in[index]->shape;
    const double eps = s->node->attr.row_norm.eps;
    const int32_t dims = s->node->attr.row_norm.dims, groups = s->node->attr.row_norm.groups;
    const bool grouped = s->node->op == FTR_OP_group_norm || s->node->op == FTR_OP_group_norm_grad;
    ftr_status status = ftr__check_float(s, index, "input");
    if (status != FTR_OK) return status;
    if (!(eps >= 0.0) || !isfinite(eps))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "eps %g, expected a finite number of 0 or more", eps);
    if (dims < 1) return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "dims %d, expected 1 or more", (int)dims);
    if (x->rank < dims || (grouped && x->rank < 2))
        return ftr__infer_error(s, FTR_ERROR_RANK, "input has rank %d, expected %d or more%s", (int)x->rank,
                                grouped ? 2 : (int)dims, grouped ? " (n, ..., c)" : "");
    row->rank = dims;
    for (int32_t i = 0; i < dims; i++) row->dim[i] = x->dim[x->rank - dims + i];
    *statistics = *x;
    statistics->rank -= dims;
    if (!grouped) return FTR_OK;
    if (groups < 1 || row->dim[0] % groups != 0)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "input has %lld channels, which groups %d does not divide",
                                (long long)row->dim[0], (int)groups);
    statistics->rank = 2;
    statistics->dim[1] = groups;
    return FTR_OK;
}

/* Input `index`, if it is given, has x's type (f32 if that is f16 or bf16) and this shape. */
static ftr_status ftr__row_norm_input(ftr__infer *s, int32_t index, const char *what, const ftr_shape *shape) {
    if (index >= s->in_count || s->in[index] == NULL) return FTR_OK;
    const ftr__value *value = s->in[index];
    char text[FTR__SHAPE_TEXT], expected[FTR__SHAPE_TEXT];
    const ftr_dtype dtype = ftr__wide_type(s->in[0]->dtype);
    if (value->dtype != dtype)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s is %s, expected %s", what, ftr_dtype_name(value->dtype),
                                ftr_dtype_name(dtype));
    if (ftr_shape_equal(&value->shape, shape)) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s is %s, expected %s", what, ftr__shape_text(&value->shape, text),
                            ftr__shape_text(shape, expected));
}

static ftr_status ftr__infer_row_norm(ftr__infer *s) {
    ftr_shape row = {0}, statistics;
    ftr_status status = ftr__row_norm_shapes(s, 0, &row, &statistics);
    if (status == FTR_OK) status = ftr__row_norm_input(s, 1, "gamma", &row);
    if (status == FTR_OK) status = ftr__row_norm_input(s, 2, "beta", &row);
    if (status == FTR_OK) status = ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
    const int32_t outputs = s->node->op == FTR_OP_rms_norm ? 2 : 3;
    for (int32_t i = 1; i < outputs && status == FTR_OK; i++)
        status = ftr__set_output(s, i, ftr__wide_type(s->in[0]->dtype), &statistics);
    return status;
}

static ftr_status ftr__infer_row_norm_grad(ftr__infer *s) {
    const bool rms = s->node->op == FTR_OP_rms_norm_grad;
    ftr_shape row = {0}, statistics, nothing = FTR_SHAPE(0);
    ftr_status status = ftr__check_same_type(s, 0, 1, "dy", "input");
    if (status == FTR_OK) status = ftr__check_same_shape(s, 0, 1, "dy", "input");
    if (status == FTR_OK) status = ftr__row_norm_shapes(s, 1, &row, &statistics);
    if (status == FTR_OK && !rms) status = ftr__row_norm_input(s, 2, "mean", &statistics);
    if (status == FTR_OK) status = ftr__row_norm_input(s, rms ? 2 : 3, "1 / std", &statistics);
    if (status == FTR_OK) status = ftr__row_norm_input(s, rms ? 3 : 4, "gamma", &row);
    if (status == FTR_OK) status = ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
    for (int32_t i = 1; i < (rms ? 2 : 3) && status == FTR_OK; i++)
        status = ftr__set_output(s, i, ftr__wide_type(s->in[0]->dtype), s->node->attr.row_norm.sums ? &row : &nothing);
    return status;
}

ftr_status ftr__infer_layer_norm(ftr__infer *s) { return ftr__infer_row_norm(s); }
ftr_status ftr__infer_rms_norm(ftr__infer *s) { return ftr__infer_row_norm(s); }
ftr_status ftr__infer_group_norm(ftr__infer *s) { return ftr__infer_row_norm(s); }
ftr_status ftr__infer_layer_norm_grad(ftr__infer *s) { return ftr__infer_row_norm_grad(s); }
ftr_status ftr__infer_rms_norm_grad(ftr__infer *s) { return ftr__infer_row_norm_grad(s); }
ftr_status ftr__infer_group_norm_grad(ftr__infer *s) { return ftr__infer_row_norm_grad(s); }

/* ---- gradient */

static void ftr__grad_row_norm(ftr__grad *s, ftr_op op) {
    const int32_t inputs = op == FTR_OP_rms_norm_grad ? 2 : 3;
    bool wanted[3] = {false, false, false};
    for (int32_t i = 0; i < inputs; i++)
        wanted[i] = i < s->node->in_count && ftr_is_valid(s->in[i]) && s->wanted[i];
    if (!ftr__has_gradient(s) || (!wanted[0] && !wanted[1] && !wanted[2])) return;
    ftr_op_attr attr = s->node->attr;
    attr.row_norm.sums = wanted[1] || wanted[2];
    ftr_tensor in[5] = {s->dout[0], s->in[0], s->out[1]};
    if (inputs == 3) in[3] = s->out[2];
    if (s->node->in_count > 1) in[inputs + 1] = s->in[1];
    ftr_tensor dx = ftr__emit(s->graph, op, NULL, &attr, in, inputs + 2);
    for (int32_t i = 0; i < inputs && ftr_is_valid(dx); i++)
        if (wanted[i]) s->din[i] = ftr__output(dx, i);
}

void ftr__grad_layer_norm(ftr__grad *s) { ftr__grad_row_norm(s, FTR_OP_layer_norm_grad); }
void ftr__grad_rms_norm(ftr__grad *s) { ftr__grad_row_norm(s, FTR_OP_rms_norm_grad); }
void ftr__grad_group_norm(ftr__grad *s) { ftr__grad_row_norm(s, FTR_OP_group_norm_grad); }
