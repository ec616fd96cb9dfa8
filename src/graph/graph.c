#include "graph/graph.h"

#include "graph/op.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const ftr_tensor ftr__null_tensor = {NULL, 0};

ftr_graph *ftr_graph_create(ftr_context *context) {
    if (!context) return NULL;
    ftr_graph *graph = ftr__allocate(context, sizeof *graph);
    if (!graph) {
        ftr__out_of_memory(context, "graph", sizeof *graph);
        return NULL;
    }
    memset(graph, 0, sizeof *graph);
    graph->context = context;
    graph->value_count = 1; /* value 0 is the invalid one; its slot is made with the first real value */
    ftr__arena_init(&graph->arena, context);
    return graph;
}

void ftr_graph_destroy(ftr_graph *graph) {
    if (!graph) return;
    ftr_context *context = graph->context;
    if (graph->variable_memory)
        context->backend->release(context, context->backend_state, graph->variable_memory, graph->variable_bytes);
    ftr__arena_free(&graph->arena);
    ftr__release(context, graph, sizeof *graph);
}

ftr_status ftr_graph_status(const ftr_graph *graph) { return graph ? graph->status : FTR_ERROR_INVALID_ARGUMENT; }

const char *ftr_graph_error(const ftr_graph *graph) { return graph ? graph->message : ""; }

bool ftr_is_valid(ftr_tensor tensor) { return tensor.graph && tensor.id > 0 && tensor.id < tensor.graph->value_count; }

const ftr__value *ftr__value_of(ftr_tensor tensor) {
    return ftr_is_valid(tensor) ? &tensor.graph->values[tensor.id] : NULL;
}

const ftr__node *ftr__producer(ftr_tensor tensor) {
    const ftr__value *value = ftr__value_of(tensor);
    return value ? &tensor.graph->nodes[value->node] : NULL;
}

ftr_shape ftr_shape_of(ftr_tensor tensor) {
    const ftr__value *value = ftr__value_of(tensor);
    return value ? value->shape : ftr_scalar_shape();
}

ftr_dtype ftr_dtype_of(ftr_tensor tensor) {
    const ftr__value *value = ftr__value_of(tensor);
    return value ? value->dtype : FTR_DTYPE_NONE;
}

const char *ftr_name_of(ftr_tensor tensor) {
    const ftr__node *node = ftr__producer(tensor);
    return node ? node->name : "";
}

ftr_tensor ftr__builder_error(ftr_graph *graph, ftr_status status, const char *what, const char *name,
                              const char *format, ...) {
    if (!graph || graph->status) return ftr__null_tensor;
    char text[FTR__MESSAGE_SIZE / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    graph->status = status;
    if (name)
        snprintf(graph->message, sizeof graph->message, "%.100s '%.100s': %s", what, name, text);
    else
        snprintf(graph->message, sizeof graph->message, "%.100s: %s", what, text);
    ftr__error(graph->context, status, "%s", graph->message);
    return ftr__null_tensor;
}

ftr_tensor ftr_graph_fail(ftr_graph *graph, ftr_status status, const char *what, const char *name, const char *format,
                          ...) {
    if (!graph || graph->status) return ftr__null_tensor;
    char sentence[FTR__MESSAGE_SIZE], full[FTR__MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    const bool named = name && *name, scoped = graph->scope[0] != '\0';
    snprintf(full, sizeof full, "%s%s%.200s", graph->scope, named && scoped ? "." : "", named ? name : "");
    return ftr__builder_error(graph, status == FTR_OK ? FTR_ERROR_INVALID_ARGUMENT : status,
                              what && *what ? what : "graph", *full ? full : NULL, "%s", sentence);
}

static ftr_tensor ftr__graph_out_of_memory(ftr_graph *graph) {
    return ftr__builder_error(graph, FTR_ERROR_OUT_OF_MEMORY, "graph", NULL, "a node could not be allocated");
}

ftr_graph *ftr__common_graph(const char *what, const ftr_tensor *in, int32_t count, int32_t required) {
    ftr_graph *graph = NULL;
    for (int32_t i = 0; i < count && !graph; i++)
        if (ftr_is_valid(in[i])) graph = in[i].graph;
    if (!graph || graph->status) return NULL;
    for (int32_t i = 0; i < count; i++) {
        const bool valid = ftr_is_valid(in[i]);
        if (!valid && (i < required || in[i].graph))
            ftr__builder_error(graph, FTR_ERROR_INVALID_TENSOR, what, NULL, "input %d is a null tensor", i);
        if (valid && in[i].graph != graph)
            ftr__builder_error(graph, FTR_ERROR_INVALID_TENSOR, what, NULL, "input %d belongs to another graph", i);
    }
    return graph->status ? NULL : graph;
}

/* --------------------------------------------------------------------------------------------------------- names -- */

void ftr_scope_push(ftr_graph *graph, const char *name) {
    if (!graph || graph->status) return;
    if (!name || !*name) {
        ftr__builder_error(graph, FTR_ERROR_NAME, "scope", NULL, "the name is empty");
        return;
    }
    const size_t used = strlen(graph->scope), size = strlen(name);
    if (used + size + 2 > sizeof graph->scope) {
        ftr__builder_error(graph, FTR_ERROR_NAME, "scope", name, "nested names are longer than %zu characters",
                           sizeof graph->scope - 1);
        return;
    }
    if (used) graph->scope[used] = '.';
    memcpy(graph->scope + used + (used ? 1 : 0), name, size + 1);
    graph->scope_ends[graph->scope_depth++] = (uint8_t)used;
}

void ftr_scope_pop(ftr_graph *graph) {
    if (!graph || graph->status) return;
    if (graph->scope_depth == 0) {
        ftr__builder_error(graph, FTR_ERROR_STATE, "scope", NULL, "there is none to leave");
        return;
    }
    graph->scope[graph->scope_ends[--graph->scope_depth]] = '\0';
}

static char *ftr__full_name(ftr_graph *graph, const char *name) {
    const size_t scope = strlen(graph->scope), size = strlen(name);
    char *full = ftr__arena_alloc(&graph->arena, scope + size + 2);
    if (!full) return NULL;
    if (scope) {
        memcpy(full, graph->scope, scope);
        full[scope] = '.';
    }
    memcpy(full + scope + (scope ? 1 : 0), name, size + 1);
    return full;
}

static char *ftr__node_name(ftr_graph *graph, ftr_op op, const char *name) {
    if (name) return ftr__full_name(graph, name);
    char text[64];
    snprintf(text, sizeof text, "%s_%d", ftr_op_name(op), graph->node_count);
    return ftr__full_name(graph, text);
}

/* --------------------------------------------------------------------------------------------------------- nodes -- */

/* Appends a node with room for its inputs. NULL when memory is short. */
static ftr__node *ftr__append_node(ftr_graph *graph, ftr_op op, const char *name, int32_t in_count) {
    if (!ftr__arena_grow(&graph->arena, (void **)&graph->nodes, graph->node_count, &graph->node_capacity,
                         sizeof *graph->nodes))
        return NULL;
    int32_t *in = ftr__arena_alloc(&graph->arena, (size_t)in_count * sizeof *in);
    char *full = ftr__node_name(graph, op, name);
    if (!in || !full) return NULL;
    ftr__node *node = &graph->nodes[graph->node_count];
    memset(node, 0, sizeof *node);
    node->op = op;
    node->name = full;
    node->in = in;
    node->in_count = in_count;
    node->variable = -1;
    return node;
}

/* Makes the appended node part of the graph, with its outputs. */
static ftr_tensor ftr__commit_node(ftr_graph *graph, int32_t out_count, const ftr_dtype *dtype,
                                   const ftr_shape *shape) {
    for (int32_t i = 0; i < out_count; i++)
        if (!ftr__arena_grow(&graph->arena, (void **)&graph->values, graph->value_count + i, &graph->value_capacity,
                             sizeof *graph->values))
            return ftr__graph_out_of_memory(graph);
    ftr__node *node = &graph->nodes[graph->node_count];
    node->first_out = graph->value_count;
    node->out_count = out_count;
    for (int32_t i = 0; i < out_count; i++)
        graph->values[graph->value_count++] =
            (ftr__value){.node = graph->node_count, .output = i, .dtype = dtype[i], .shape = shape[i]};
    graph->node_count++;
    return out_count ? (ftr_tensor){graph, node->first_out} : ftr__null_tensor;
}

static bool ftr__inputs_are_valid(ftr_graph *graph, const ftr__op_info *info, const char *name, const ftr_tensor *in,
                                  int32_t in_count) {
    if (in_count < info->min_in || in_count > info->max_in) {
        ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, info->name, name, "%d inputs, expected %d to %d",
                           in_count, info->min_in, info->max_in);
        return false;
    }
    for (int32_t i = 0; i < in_count; i++) {
        const bool missing = !in[i].graph && in[i].id == 0;
        if (missing && i >= info->min_in) continue;
        if (!ftr_is_valid(in[i])) {
            ftr__builder_error(graph, FTR_ERROR_INVALID_TENSOR, info->name, name, "input %d is a null tensor", i);
            return false;
        }
        if (in[i].graph != graph) {
            ftr__builder_error(graph, FTR_ERROR_INVALID_TENSOR, info->name, name, "input %d belongs to another graph",
                               i);
            return false;
        }
    }
    return true;
}

static ftr__infer ftr__infer_of(ftr_graph *graph, ftr__node *node) {
    ftr__infer infer = {.graph = graph, .node = node, .in_count = node->in_count};
    for (int32_t i = 0; i < node->in_count && i < FTR__INFER_INPUTS; i++)
        infer.in[i] = node->in[i] ? &graph->values[node->in[i]] : NULL;
    return infer;
}

ftr_tensor ftr__emit(ftr_graph *graph, ftr_op op, const char *name, const ftr_op_attr *attr, const ftr_tensor *in,
                     int32_t in_count) {
    for (int32_t i = 0; i < in_count && !graph; i++)
        if (ftr_is_valid(in[i])) graph = in[i].graph;
    if (!graph || graph->status) return ftr__null_tensor;
    const ftr__op_info *info = ftr__op_info_of(op);
    if (!ftr__inputs_are_valid(graph, info, name, in, in_count)) return ftr__null_tensor;
    ftr__node *node = ftr__append_node(graph, op, name, in_count);
    if (!node) return ftr__graph_out_of_memory(graph);
    if (attr) node->attr = *attr;
    for (int32_t i = 0; i < in_count; i++) node->in[i] = in[i].id;
    ftr__infer infer = ftr__infer_of(graph, node);
    const ftr_status status = info->infer(&infer);
    if (status) {
        ftr__builder_error(graph, status, info->name, node->name, "shapes could not be inferred");
        return ftr__null_tensor;
    }
    for (int32_t i = 0; i < info->out_count; i++)
        if (ftr_shape_count(&infer.out_shape[i]) < 0) {
            char text[FTR__SHAPE_TEXT];
            return ftr__builder_error(graph, FTR_ERROR_SHAPE, info->name, node->name, "result %s has too many elements",
                                      ftr__shape_text(&infer.out_shape[i], text));
        }
    return ftr__commit_node(graph, info->out_count, infer.out_dtype, infer.out_shape);
}

/* The attributes are complete already; what inference writes into the copy is the same once more. */
bool ftr__infer_types(ftr_graph *graph, const ftr__node *node, bool quiet, ftr_dtype types[FTR__MAX_OUTPUTS]) {
    ftr_context *context = graph->context;
    const ftr_status status_before = context->status;
    char message_before[FTR__MESSAGE_SIZE];
    memcpy(message_before, context->message, sizeof message_before);
    ftr__node copy = *node;
    ftr__infer infer = ftr__infer_of(graph, &copy);
    ftr_status status = ftr__op_info_of(node->op)->infer(&infer);
    for (int32_t i = 0; i < node->out_count && status == FTR_OK; i++) {
        types[i] = infer.out_dtype[i];
        if (ftr_shape_equal(&infer.out_shape[i], &graph->values[node->first_out + i].shape)) continue;
        status = FTR_ERROR_STATE;
        ftr__builder_error(graph, status, ftr_op_name(node->op), node->name,
                           "inference gives another shape the second time");
    }
    if (status == FTR_OK || !quiet) return status == FTR_OK;
    graph->status = FTR_OK;
    graph->message[0] = '\0';
    context->status = status_before;
    memcpy(context->message, message_before, sizeof message_before);
    return false;
}

ftr_tensor ftr__output(ftr_tensor first, int32_t index) {
    if (!ftr_is_valid(first)) return ftr__null_tensor;
    const ftr__node *node = ftr__producer(first);
    return index < node->out_count ? (ftr_tensor){first.graph, node->first_out + index} : ftr__null_tensor;
}

/* ------------------------------------------------------------------------------------------------------- sources -- */

static bool ftr__source_is_valid(ftr_graph *graph, ftr_op op, const char *name, ftr_dtype dtype,
                                 const ftr_shape *shape) {
    if (!graph || graph->status) return false;
    const char *what = ftr_op_name(op);
    if (op != FTR_OP_constant && (!name || !*name)) {
        ftr__builder_error(graph, FTR_ERROR_NAME, what, NULL, "the name is empty");
    } else if (dtype <= FTR_DTYPE_NONE || dtype >= FTR_DTYPE_COUNT) {
        ftr__builder_error(graph, FTR_ERROR_DTYPE, what, name, "dtype is %d, expected one of ftr_dtype", (int)dtype);
    } else if (shape->rank < 0 || shape->rank > FTR_MAX_RANK) {
        ftr__builder_error(graph, FTR_ERROR_RANK, what, name, "rank is %d, expected 0 to %d", shape->rank,
                           FTR_MAX_RANK);
    } else if (ftr_shape_count(shape) < 0) {
        char text[FTR__SHAPE_TEXT];
        ftr__builder_error(graph, FTR_ERROR_SHAPE, what, name, "shape %s has a negative or too large size",
                           ftr__shape_text(shape, text));
    }
    return !graph->status;
}

ftr_tensor ftr__add_source(ftr_graph *graph, ftr_op op, const char *name, ftr_dtype dtype, ftr_shape shape) {
    if (!ftr__source_is_valid(graph, op, name, dtype, &shape)) return ftr__null_tensor;
    if (!ftr__append_node(graph, op, name, 0)) return ftr__graph_out_of_memory(graph);
    for (int32_t i = shape.rank; i < FTR_MAX_RANK; i++) shape.dim[i] = 0;
    return ftr__commit_node(graph, 1, &dtype, &shape);
}

ftr_tensor ftr_input(ftr_graph *graph, const char *name, ftr_dtype dtype, ftr_shape shape) {
    const ftr_tensor input = ftr__add_source(graph, FTR_OP_input, name, dtype, shape);
    if (!ftr_is_valid(input)) return input;
    const char *full = ftr_name_of(input);
    for (int32_t i = 0; i < graph->node_count - 1; i++)
        if (graph->nodes[i].op == FTR_OP_input && strcmp(graph->nodes[i].name, full) == 0)
            return ftr__builder_error(graph, FTR_ERROR_NAME, "input", full, "the name is used by another input");
    return input;
}

ftr_tensor ftr_batch_mask(ftr_graph *graph, int64_t batch) {
    if (!graph || graph->status) return ftr__null_tensor;
    if (graph->batch_mask)
        return ftr__builder_error(graph, FTR_ERROR_STATE, "batch_mask", NULL, "the graph has one already");
    if (batch < 1)
        return ftr__builder_error(graph, FTR_ERROR_SHAPE, "batch_mask", NULL, "batch is %lld, expected 1 or more",
                                  (long long)batch);
    const char scope = graph->scope[0];
    graph->scope[0] = '\0'; /* its name is the same wherever it is declared */
    const ftr_tensor mask = ftr_input(graph, "batch_mask", FTR_F32, FTR_SHAPE(batch));
    graph->scope[0] = scope;
    graph->batch_mask = mask.id;
    return mask;
}

ftr_tensor ftr_constant(ftr_graph *graph, ftr_dtype dtype, ftr_shape shape, const void *data) {
    if (!graph || graph->status) return ftr__null_tensor;
    const int64_t count = ftr_shape_count(&shape);
    const size_t bytes = count > 0 ? (size_t)count * ftr_dtype_size(dtype) : 0;
    if (!data && bytes)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "constant", NULL,
                                  "data is NULL, expected %zu bytes", bytes);
    void *copy = ftr__arena_alloc(&graph->arena, bytes);
    if (!copy) return ftr__graph_out_of_memory(graph);
    if (bytes) memcpy(copy, data, bytes);
    const ftr_tensor constant = ftr__add_source(graph, FTR_OP_constant, NULL, dtype, shape);
    if (ftr_is_valid(constant)) graph->nodes[graph->node_count - 1].constant = copy;
    return constant;
}

ftr_tensor ftr_scalar(ftr_graph *graph, ftr_dtype dtype, double value) {
    int64_t data = 0; /* room for an element of any type */
    ftr__set_element(dtype, &data, 0, value);
    return ftr_constant(graph, dtype, ftr_scalar_shape(), &data);
}

/* --------------------------------------------------------------------------------------------------------- edits -- */

ftr_graph *ftr__graph_clone(const ftr_graph *graph) {
    ftr_graph *clone = ftr__allocate(graph->context, sizeof *clone);
    if (!clone) return NULL;
    *clone = *graph;
    ftr__arena_init(&clone->arena, graph->context);
    clone->scope[0] = '\0';
    clone->scope_depth = 0;
    clone->variable_memory = NULL;
    clone->variable_bytes = 0;
    clone->nodes = ftr__arena_alloc(&clone->arena, (size_t)graph->node_capacity * sizeof *graph->nodes);
    clone->values = ftr__arena_alloc(&clone->arena, (size_t)graph->value_capacity * sizeof *graph->values);
    clone->variables = ftr__arena_alloc(&clone->arena, (size_t)graph->variable_capacity * sizeof *graph->variables);
    bool complete = clone->nodes && clone->values && clone->variables;
    if (complete && graph->node_count) {
        memcpy(clone->nodes, graph->nodes, (size_t)graph->node_count * sizeof *graph->nodes);
        memcpy(clone->values, graph->values, (size_t)graph->value_count * sizeof *graph->values);
        if (graph->variable_count)
            memcpy(clone->variables, graph->variables, (size_t)graph->variable_count * sizeof *graph->variables);
    }
    for (int32_t i = 0; complete && i < graph->node_count; i++) {
        ftr__node *node = &clone->nodes[i];
        const size_t bytes = (size_t)node->in_count * sizeof *node->in;
        int32_t *in = ftr__arena_alloc(&clone->arena, bytes);
        complete = in != NULL;
        if (in && bytes) memcpy(in, node->in, bytes);
        node->in = in;
    }
    if (complete) return clone;
    ftr_graph_destroy(clone);
    return NULL;
}

void ftr__graph_replace(ftr_graph *graph, int32_t from, int32_t to) {
    for (int32_t i = 0; i < graph->node_count; i++)
        for (int32_t k = 0; k < graph->nodes[i].in_count; k++)
            if (graph->nodes[i].in[k] == from) graph->nodes[i].in[k] = to;
}
