/* Parameters and buffers: one flat memory, owned by the graph and shared by its plans. Parameters come first, in the order
 * of declaration, so that an optimizer can run over them as one array. */
#include "graph/graph.h"

#include "core/rng.h"

#include <math.h>
#include <string.h>

static const double ftr__pi = 3.14159265358979323846;

static bool ftr__variable_is_valid(ftr_graph *graph, const char *what, const char *name, ftr_dtype dtype,
                                   const ftr_init *init, bool trainable) {
    if (graph->variable_memory) {
        ftr__builder_error(graph, FTR_ERROR_STATE, what, name,
                           "declared after the graph was compiled, or a variable was read or written");
    } else if (trainable && !ftr__is_wide(dtype)) {
        ftr__builder_error(graph, FTR_ERROR_DTYPE, what, name, "dtype is %s, expected f32 or f64", ftr_dtype_name(dtype));
    } else if (init->kind < FTR_INIT_DEFAULT || init->kind > FTR_INIT_TRUNCATED_NORMAL) {
        ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, name, "init.kind is %d, expected one of ftr_init_kind",
                           (int)init->kind);
    } else if (!isfinite(init->a) || !isfinite(init->b)) {
        ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, name, "init.a and init.b must be finite");
    } else if (!ftr__is_float(dtype) && init->kind > FTR_INIT_CONSTANT) {
        ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, name,
                           "random values for %s, expected floating point", ftr_dtype_name(dtype));
    }
    return !graph->status;
}

static ftr_tensor ftr__declare_variable(ftr_graph *graph, const char *name, ftr_dtype dtype, ftr_shape shape, ftr_init init,
                                        bool trainable) {
    const ftr_tensor none = {NULL, 0};
    const char *what = trainable ? "parameter" : "buffer";
    if (!graph || graph->status || !ftr__variable_is_valid(graph, what, name, dtype, &init, trainable)) return none;
    const ftr_tensor tensor = ftr__add_source(graph, trainable ? FTR_OP_parameter : FTR_OP_buffer, name, dtype, shape);
    if (!ftr_is_valid(tensor)) return none;
    const char *full = ftr_name_of(tensor);
    if (ftr_is_valid(ftr_variable_find(graph, full)))
        return ftr__builder_error(graph, FTR_ERROR_NAME, what, full, "the name is used by another parameter or buffer");
    if (!ftr__arena_grow(&graph->arena, (void **)&graph->variables, graph->variable_count, &graph->variable_capacity,
                         sizeof *graph->variables))
        return ftr__builder_error(graph, FTR_ERROR_OUT_OF_MEMORY, what, full, "it could not be allocated");
    graph->nodes[graph->values[tensor.id].node].variable = graph->variable_count;
    graph->variables[graph->variable_count++] =
        (ftr__variable){.value = tensor.id,
                        .trainable = trainable,
                        .init = init,
                        .bytes = (size_t)ftr_shape_count(&shape) * ftr_dtype_size(dtype)};
    return tensor;
}

ftr_tensor ftr_parameter(ftr_graph *graph, const char *name, ftr_dtype dtype, ftr_shape shape, ftr_init init) {
    return ftr__declare_variable(graph, name, dtype, shape, init, true);
}

ftr_tensor ftr_buffer(ftr_graph *graph, const char *name, ftr_dtype dtype, ftr_shape shape, ftr_init init) {
    return ftr__declare_variable(graph, name, dtype, shape, init, false);
}

int32_t ftr_variable_count(const ftr_graph *graph) { return graph ? graph->variable_count : 0; }

ftr_tensor ftr_variable_at(ftr_graph *graph, int32_t index) {
    const bool there = graph && index >= 0 && index < graph->variable_count;
    return there ? (ftr_tensor){graph, graph->variables[index].value} : (ftr_tensor){NULL, 0};
}

ftr_tensor ftr_variable_find(ftr_graph *graph, const char *name) {
    for (int32_t i = 0; name && i < ftr_variable_count(graph); i++) {
        const ftr_tensor tensor = ftr_variable_at(graph, i);
        if (strcmp(ftr_name_of(tensor), name) == 0) return tensor;
    }
    return (ftr_tensor){NULL, 0};
}

bool ftr_is_parameter(ftr_tensor tensor) {
    const ftr__node *node = ftr__producer(tensor);
    return node && node->op == FTR_OP_parameter;
}

/* ------------------------------------------------------------------------------------------------------ freezing -- */

static ftr_status ftr__set_frozen(ftr_graph *graph, const char *what, const char *pattern, bool frozen,
                                  bool norm_eval) {
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    if (!pattern) return ftr__error(graph->context, FTR_ERROR_INVALID_ARGUMENT, "%s: pattern is NULL", what);
    if (graph->status) return ftr__error(graph->context, graph->status, "%s", graph->message);
    int32_t matches = 0, parameters = 0;
    for (int32_t i = 0; i < graph->variable_count; i++) {
        ftr__variable *variable = &graph->variables[i];
        if (!variable->trainable) continue;
        parameters++;
        if (!ftr__glob_match(pattern, ftr_name_of(ftr_variable_at(graph, i)))) continue;
        matches++;
        variable->frozen = frozen;
        variable->norm_eval = norm_eval;
    }
    if (matches > 0) return FTR_OK;
    return ftr__error(graph->context, FTR_ERROR_NAME, "%s: pattern '%.100s' fits none of the graph's %d parameters",
                      what, pattern, parameters);
}

ftr_status ftr_freeze(ftr_graph *graph, const char *pattern, const ftr_freeze_desc *desc) {
    return ftr__set_frozen(graph, "ftr_freeze", pattern, true, desc && desc->norm_eval);
}

ftr_status ftr_unfreeze(ftr_graph *graph, const char *pattern) {
    return ftr__set_frozen(graph, "ftr_unfreeze", pattern, false, false);
}

bool ftr_is_frozen(ftr_tensor tensor) {
    const ftr__node *node = ftr__producer(tensor);
    return node && node->variable >= 0 && tensor.graph->variables[node->variable].frozen;
}

/* ------------------------------------------------------------------------------------------------ initialization -- */

static double ftr__fan_in(const ftr_shape *shape) {
    const int64_t count = ftr_shape_count(shape);
    return shape->rank > 0 && shape->dim[0] > 0 ? (double)(count / shape->dim[0]) : 1.0;
}

static double ftr__fan_out(const ftr_shape *shape) {
    const int64_t count = ftr_shape_count(shape);
    const int64_t last = shape->rank > 1 ? shape->dim[shape->rank - 1] : 1;
    return last > 0 ? (double)(count / last) : 1.0;
}

/* Element `index` of a standard normal distribution: Box-Muller on numbers 2 * index and 2 * index + 1 of the stream, which
 * are in one block. */
static double ftr__normal_at(const ftr__rng *rng, uint64_t index) {
    uint32_t block[4];
    ftr__rng_block(rng, index / 2, block);
    const uint32_t *bits = block + index % 2 * 2;
    const double u = 1.0 - ftr__rng_uniform(bits[0]); /* (0, 1] */
    const double v = ftr__rng_uniform(bits[1]);
    return sqrt(-2.0 * log(u)) * cos(2.0 * ftr__pi * v);
}

static double ftr__init_value(const ftr_init *init, const ftr_shape *shape, const ftr__rng *rng, uint64_t index) {
    switch (init->kind) {
    case FTR_INIT_DEFAULT:
    case FTR_INIT_ZEROS: return 0.0;
    case FTR_INIT_CONSTANT: return init->a;
    case FTR_INIT_UNIFORM: return init->a + (init->b - init->a) * ftr__rng_uniform(ftr__rng_at(rng, index));
    case FTR_INIT_NORMAL: return init->a + init->b * ftr__normal_at(rng, index);
    case FTR_INIT_KAIMING_UNIFORM: {
        const double bound = sqrt(6.0 / ((1.0 + init->a * init->a) * ftr__fan_in(shape)));
        return bound * (2.0 * ftr__rng_uniform(ftr__rng_at(rng, index)) - 1.0);
    }
    case FTR_INIT_KAIMING_NORMAL_FAN_OUT: return sqrt(2.0 / ftr__fan_out(shape)) * ftr__normal_at(rng, index);
    case FTR_INIT_KAIMING_NORMAL: return sqrt(2.0 / ftr__fan_in(shape)) * ftr__normal_at(rng, index);
    case FTR_INIT_XAVIER_UNIFORM: {
        const double bound = sqrt(6.0 / (ftr__fan_in(shape) + ftr__fan_out(shape)));
        return bound * (2.0 * ftr__rng_uniform(ftr__rng_at(rng, index)) - 1.0);
    }
    case FTR_INIT_TRUNCATED_NORMAL: {
        double value = 0.0;
        for (uint64_t attempt = 0; attempt < 64; attempt++) { /* a mean far outside has no truncated distribution */
            value = init->a + init->b * ftr__normal_at(rng, index + (attempt << 48));
            if (fabs(value) <= 2.0) return value;
        }
        return value < 0.0 ? -2.0 : 2.0;
    }
    }
    return 0.0;
}

static void ftr__fill_variable(const ftr_graph *graph, const ftr__variable *variable, void *memory) {
    const ftr__value *value = &graph->values[variable->value];
    const ftr__rng rng =
        ftr__rng_make(graph->context->seeds.init, FTR__RNG_INIT, ftr__hash(graph->nodes[value->node].name), 0);
    const int64_t count = ftr_shape_count(&value->shape);
    for (int64_t i = 0; i < count; i++)
        ftr__set_element(value->dtype, memory, i, ftr__init_value(&variable->init, &value->shape, &rng, (uint64_t)i));
}

size_t ftr__graph_place_variables(ftr_graph *graph) {
    if (graph->variable_memory) return graph->variable_bytes;
    size_t offset = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int32_t i = 0; i < graph->variable_count; i++) {
            ftr__variable *variable = &graph->variables[i];
            if (variable->trainable != (pass == 0)) continue;
            variable->offset = offset;
            offset += (variable->bytes + FTR__ALIGNMENT - 1) / FTR__ALIGNMENT * FTR__ALIGNMENT;
        }
    return offset ? offset : FTR__ALIGNMENT;
}

/* The first values are made on the host in one block and handed over, so that any backend's memory will do. */
ftr_status ftr__graph_materialize(ftr_graph *graph) {
    if (graph->variable_memory) return FTR_OK;
    ftr_context *context = graph->context;
    const size_t bytes = ftr__graph_place_variables(graph);
    unsigned char *host = ftr__allocate(context, bytes);
    if (!host) return ftr__out_of_memory(context, "parameters", bytes);
    memset(host, 0, bytes);
    for (int32_t i = 0; i < graph->variable_count; i++)
        ftr__fill_variable(graph, &graph->variables[i], host + graph->variables[i].offset);
    const ftr_backend *backend = context->backend;
    unsigned char *memory = backend->allocate(context, context->backend_state, bytes);
    ftr_status status = memory ? backend->upload(context, context->backend_state, memory, host, bytes)
                               : ftr__out_of_memory(context, "parameters", bytes);
    ftr__release(context, host, bytes);
    if (status && memory) backend->release(context, context->backend_state, memory, bytes);
    if (status) return status;
    graph->variable_memory = memory;
    graph->variable_version++;
    graph->variable_bytes = bytes;
    return FTR_OK;
}

/* The variable behind a handle, its memory made. NULL with the error recorded. */
static const ftr__variable *ftr__variable_of(ftr_tensor tensor, size_t bytes) {
    const ftr__node *node = ftr__producer(tensor);
    ftr_context *context = tensor.graph ? tensor.graph->context : NULL;
    if (!node || node->variable < 0) {
        ftr__error(context, FTR_ERROR_INVALID_TENSOR, "variable: the tensor is neither a parameter nor a buffer");
        return NULL;
    }
    const ftr__variable *variable = &tensor.graph->variables[node->variable];
    if (variable->bytes != bytes) {
        ftr__error(context, FTR_ERROR_SHAPE, "variable '%s': %zu bytes given, expected %zu", node->name, bytes,
                   variable->bytes);
        return NULL;
    }
    return ftr__graph_materialize(tensor.graph) ? NULL : variable;
}

ftr_status ftr_variable_read(ftr_tensor tensor, void *data, size_t bytes) {
    const ftr__variable *variable = ftr__variable_of(tensor, bytes);
    if (!variable) return tensor.graph ? tensor.graph->context->status : FTR_ERROR_INVALID_TENSOR;
    if (bytes == 0) return FTR_OK;
    ftr_context *context = tensor.graph->context;
    if (!data) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "variable '%s': data is NULL", ftr_name_of(tensor));
    return context->backend->download(context, context->backend_state, data,
                                      tensor.graph->variable_memory + variable->offset, bytes);
}

ftr_status ftr_variable_write(ftr_tensor tensor, const void *data, size_t bytes) {
    const ftr__variable *variable = ftr__variable_of(tensor, bytes);
    if (!variable) return tensor.graph ? tensor.graph->context->status : FTR_ERROR_INVALID_TENSOR;
    if (bytes == 0) return FTR_OK;
    ftr_context *context = tensor.graph->context;
    if (!data) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "variable '%s': data is NULL", ftr_name_of(tensor));
    tensor.graph->variable_version++;
    return context->backend->upload(context, context->backend_state, tensor.graph->variable_memory + variable->offset, data,
                                    bytes);
}
