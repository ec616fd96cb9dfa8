#include "ops/registry.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define FTR__INFO_GRAD(op, attr, min_in, max_in, out, differentiable, overwritable, amp)                               \
    {#op,          FTR__ATTR_##attr, min_in,          max_in,        out, differentiable,                              \
     overwritable, FTR__AMP_##amp,   ftr__infer_##op, ftr__grad_##op},
#define FTR__INFO(op, attr, min_in, max_in, out, differentiable, overwritable, amp)                                    \
    {#op, FTR__ATTR_##attr, min_in, max_in, out, differentiable, overwritable, FTR__AMP_##amp, ftr__infer_##op, NULL},

/* In the order of ftr_op, which comes from the same list. */
static const ftr__op_info ftr__op_table[FTR_OP_COUNT] = {
    {"none", FTR__ATTR_none, 0, 0, 0, 0, 0, FTR__AMP_NONE, NULL, NULL}, FTR_OPS(FTR__INFO_GRAD, FTR__INFO)};

const ftr__op_info *ftr__op_info_of(ftr_op op) {
    bool known = (int)op > 0 && (int)op < (int)FTR_OP_COUNT;
    return &ftr__op_table[known ? (int)op : 0];
}

const char *ftr_op_name(ftr_op op) { return ftr__op_info_of(op)->name; }

ftr_status ftr__infer_error(ftr__infer *infer, ftr_status status, const char *format, ...) {
    char sentence[FTR__MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    (void)ftr__builder_error(infer->graph, status, ftr_op_name(infer->node->op), infer->node->name, "%s", sentence);
    return status;
}

/* The graph makes its sources itself, with the type and shape that the caller declares. */
static ftr_status ftr__infer_source(ftr__infer *s) {
    return ftr__infer_error(s, FTR_ERROR_STATE, "a source is declared, its shape is not inferred");
}

ftr_status ftr__infer_input(ftr__infer *s) { return ftr__infer_source(s); }
ftr_status ftr__infer_parameter(ftr__infer *s) { return ftr__infer_source(s); }
ftr_status ftr__infer_buffer(ftr__infer *s) { return ftr__infer_source(s); }
ftr_status ftr__infer_constant(ftr__infer *s) { return ftr__infer_source(s); }


ftr_status ftr__check_float(ftr__infer *s, int32_t input, const char *what) {
    ftr_dtype dtype = s->in[input]->dtype;
    if (ftr__is_float(dtype)) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s is %s, expected floating point", what, ftr_dtype_name(dtype));
}

ftr_status ftr__check_arithmetic(ftr__infer *s, int32_t input, const char *what) {
    ftr_dtype dtype = s->in[input]->dtype;
    if (ftr__is_float(dtype) || dtype == FTR_I32 || dtype == FTR_I64) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s is %s, expected floating point, i32 or i64", what,
                            ftr_dtype_name(dtype));
}

ftr_status ftr__check_same_type(ftr__infer *s, int32_t a, int32_t b, const char *what_a, const char *what_b) {
    ftr_dtype type_a = s->in[a]->dtype, type_b = s->in[b]->dtype;
    if (type_a == type_b) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s is %s, %s is %s: both must have one type", what_a,
                            ftr_dtype_name(type_a), what_b, ftr_dtype_name(type_b));
}

ftr_status ftr__check_same_shape(ftr__infer *s, int32_t a, int32_t b, const char *what_a, const char *what_b) {
    const ftr_shape *shape_a = &s->in[a]->shape, *shape_b = &s->in[b]->shape;
    if (ftr_shape_equal(shape_a, shape_b)) return FTR_OK;
    char text_a[FTR__SHAPE_TEXT], text_b[FTR__SHAPE_TEXT];
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s is %s, %s is %s: both must have one shape", what_a,
                            ftr__shape_text(shape_a, text_a), what_b, ftr__shape_text(shape_b, text_b));
}

ftr_status ftr__check_rank(ftr__infer *s, int32_t input, const char *what, int32_t rank, const char *layout) {
    int32_t found = s->in[input]->shape.rank;
    if (found == rank) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_RANK, "%s has rank %d, expected %d (%s)", what, (int)found, (int)rank, layout);
}

static ftr_status ftr__check_vector_of(ftr__infer *s, int32_t input, const char *what, ftr_dtype dtype, int64_t size) {
    const ftr__value *value = s->in[input];
    if (value->dtype != dtype)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s is %s, expected %s", what, ftr_dtype_name(value->dtype),
                                ftr_dtype_name(dtype));
    if (value->shape.rank == 1 && value->shape.dim[0] == size) return FTR_OK;
    char text[FTR__SHAPE_TEXT];
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s is %s, expected [%lld]", what, ftr__shape_text(&value->shape, text),
                            (long long)size);
}

ftr_status ftr__check_axis(ftr__infer *s, int32_t *axis, int32_t rank) {
    if (*axis < -rank || *axis >= rank)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "axis %d of a tensor of rank %d", (int)*axis, (int)rank);
    if (*axis < 0) *axis += rank;
    return FTR_OK;
}

ftr_status ftr__set_output(ftr__infer *s, int32_t output, ftr_dtype dtype, const ftr_shape *shape) {
    s->out_dtype[output] = dtype;
    s->out_shape[output] = *shape;
    for (int32_t i = shape->rank; i < FTR_MAX_RANK; i++) s->out_shape[output].dim[i] = 0;
    if (ftr_shape_count(shape) >= 0) return FTR_OK;
    char text[FTR__SHAPE_TEXT];
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "the result %s has too many elements", ftr__shape_text(shape, text));
}

ftr_status ftr__check_vector(ftr__infer *s, int32_t input, const char *what, int64_t size) {
    return ftr__check_vector_of(s, input, what, s->in[0]->dtype, size);
}

ftr_status ftr__check_wide_vector(ftr__infer *s, int32_t input, const char *what, int64_t size) {
    return ftr__check_vector_of(s, input, what, ftr__wide_type(s->in[0]->dtype), size);
}

bool ftr__broadcast_shape(const ftr_shape *a, const ftr_shape *b, ftr_shape *out) {
    memset(out, 0, sizeof *out);
    out->rank = a->rank > b->rank ? a->rank : b->rank;
    for (int32_t i = 1; i <= out->rank; i++) {
        int64_t size_a = i <= a->rank ? a->dim[a->rank - i] : 1;
        int64_t size_b = i <= b->rank ? b->dim[b->rank - i] : 1;
        if (size_a != size_b && size_a != 1 && size_b != 1) return false;
        out->dim[out->rank - i] = size_a == 1 ? size_b : size_a;
    }
    return true;
}

ftr_tensor ftr__layer_error(ftr_graph *graph, ftr_status status, const char *what, const char *name, const char *format,
                            ...) {
    char sentence[FTR__MESSAGE_SIZE], full[FTR__MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    (void)snprintf(full, sizeof full, "%s%s%s", graph->scope, graph->scope[0] ? "." : "", name);
    return ftr__builder_error(graph, status, what, full, "%s", sentence);
}

ftr_graph *ftr__layer_begin(const char *what, const char *name, ftr_tensor x, int32_t min_rank, int32_t max_rank,
                            const char *layout) {
    ftr_graph *graph = ftr__common_graph(what, &x, 1, 1);
    if (graph == NULL) return NULL;
    const ftr__value *value = ftr__value_of(x);
    if (value == NULL) return NULL;
    if (name == NULL || name[0] == '\0') {
        (void)ftr__builder_error(graph, FTR_ERROR_NAME, what, NULL, "the layer has no name");
        return NULL;
    }
    if (value->shape.rank < min_rank || value->shape.rank > max_rank) {
        (void)ftr__layer_error(graph, FTR_ERROR_RANK, what, name, "input has rank %d, expected %d%s (%s)",
                               (int)value->shape.rank, (int)min_rank, min_rank < max_rank ? " or more" : "", layout);
        return NULL;
    }
    if (!ftr__is_float(value->dtype)) {
        (void)ftr__layer_error(graph, FTR_ERROR_DTYPE, what, name, "input is %s, expected floating point",
                               ftr_dtype_name(value->dtype));
        return NULL;
    }
    return graph;
}

ftr_tensor ftr__layer_variable(ftr_graph *graph, const char *what, const char *layer, const char *field, bool trainable,
                               ftr_dtype dtype, const ftr_shape *shape, ftr_init init) {
    char name[256];
    int length = snprintf(name, sizeof name, "%s.%s", layer, field);
    if (length < 0 || (size_t)length >= sizeof name)
        return ftr__builder_error(graph, FTR_ERROR_NAME, what, NULL, "the layer's name has more than %d characters",
                                  (int)(sizeof name - 2 - strlen(field)));
    const ftr_dtype kept = ftr__wide_type(dtype);
    return ftr__cast_to(trainable ? ftr_parameter(graph, name, kept, *shape, init)
                                  : ftr_buffer(graph, name, kept, *shape, init),
                        dtype);
}

ftr_init ftr__init_or(const ftr_init *asked, ftr_init otherwise) {
    return asked != NULL && asked->kind != FTR_INIT_DEFAULT ? *asked : otherwise;
}

ftr_init ftr__bias_init(int64_t fan_in) {
    double bound = fan_in > 0 ? 1.0 / sqrt((double)fan_in) : 0.0;
    return (ftr_init){FTR_INIT_UNIFORM, -bound, bound};
}

int32_t ftr__node_count(ftr_tensor x) { return ftr_is_valid(x) ? x.graph->node_count : 0; }

ftr_tensor ftr__keep_f32(ftr_tensor y, int32_t first) {
    for (int32_t n = first; ftr_is_valid(y) && n < y.graph->node_count; n++) y.graph->nodes[n].keep_f32 = true;
    return y;
}

bool ftr__has_gradient(const ftr__grad *s) { return ftr_is_valid(s->dout[0]); }

ftr_tensor ftr__emit_one(ftr_op op, const ftr_op_attr *attr, ftr_tensor x) {
    return ftr__emit(x.graph, op, NULL, attr, &x, 1);
}

ftr_tensor ftr__emit_two(ftr_op op, const ftr_op_attr *attr, ftr_tensor a, ftr_tensor b) {
    ftr_tensor in[2] = {a, b};
    return ftr__emit(a.graph != NULL ? a.graph : b.graph, op, NULL, attr, in, 2);
}
