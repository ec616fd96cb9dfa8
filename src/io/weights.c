#include "graph/graph.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A variable beside its tensor in a file. `shape` is the file's: OIHW for convolution weights. */
typedef struct ftr__weight {
    ftr_tensor tensor;
    const char *name;
    ftr_dtype dtype;
    ftr_shape shape;
    size_t bytes;
    bool permuted; /* OHWI in memory */
} ftr__weight;

static ftr__weight ftr__weight_of(ftr_graph *graph, int32_t index) {
    const ftr__variable *variable = &graph->variables[index];
    const ftr_tensor tensor = {graph, variable->value};
    ftr__weight weight = {
        .tensor = tensor,
        .name = ftr_name_of(tensor),
        .dtype = ftr_dtype_of(tensor),
        .shape = ftr_shape_of(tensor),
        .bytes = variable->bytes,
        .permuted = variable->conv_weight,
    };
    if (weight.permuted) {
        const ftr_shape memory = weight.shape;
        weight.shape.dim[1] = memory.dim[3];
        weight.shape.dim[2] = memory.dim[1];
        weight.shape.dim[3] = memory.dim[2];
    }
    return weight;
}

/* Copies [count, rows, columns] to [count, columns, rows]. OHWI to OIHW is this with H*W rows and I columns; back, with I
 * rows and H*W columns. Neither side need be aligned. */
static void ftr__weight_transpose(void *to, const void *from, int64_t count, int64_t rows, int64_t columns,
                                  size_t size) {
    unsigned char *target = to;
    const unsigned char *source = from;
    for (int64_t n = 0; n < count; n++) {
        for (int64_t c = 0; c < columns; c++) {
            for (int64_t r = 0; r < rows; r++) {
                memcpy(target, source + (size_t)((n * rows + r) * columns + c) * size, size);
                target += size;
            }
        }
    }
}

/* Bytes of the largest convolution weight. */
static size_t ftr__weights_scratch_size(ftr_graph *graph) {
    size_t size = 0;
    for (int32_t i = 0; i < graph->variable_count; i++) {
        const ftr__variable *variable = &graph->variables[i];
        if (variable->conv_weight && variable->bytes > size) size = variable->bytes;
    }
    return size;
}

/* A graph whose building failed has no weights to speak of. */
static ftr_status ftr__weights_begin(ftr_graph *graph, const char *path, const char *what) {
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    if (!path) return ftr__error(graph->context, FTR_ERROR_INVALID_ARGUMENT, "%s: path is NULL", what);
    if (graph->status != FTR_OK) return ftr__error(graph->context, graph->status, "%s", graph->message);
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------------------- saving -- */

/* Reads all variables into `data` as the file has them. */
static ftr_status ftr__weights_collect(ftr_graph *graph, unsigned char *data, unsigned char *scratch,
                                       ftr_safetensors_item *items) {
    for (int32_t i = 0; i < graph->variable_count; i++) {
        const ftr__weight weight = ftr__weight_of(graph, i);
        const ftr_status status = ftr_variable_read(weight.tensor, weight.permuted ? scratch : data, weight.bytes);
        if (status != FTR_OK) return status;
        if (weight.permuted)
            ftr__weight_transpose(data, scratch, weight.shape.dim[0], weight.shape.dim[2] * weight.shape.dim[3],
                                  weight.shape.dim[1], ftr_dtype_size(weight.dtype));
        items[i] =
            (ftr_safetensors_item){.name = weight.name, .dtype = weight.dtype, .shape = weight.shape, .data = data};
        data += weight.bytes;
    }
    return FTR_OK;
}

ftr_status ftr_save_weights(ftr_graph *graph, const char *path) {
    static const char *const metadata[] = {"format", "pt"}; /* PyTorch's layout; transformers wants the word */
    ftr_status status = ftr__weights_begin(graph, path, "ftr_save_weights");
    if (status != FTR_OK) return status;
    ftr_context *context = graph->context;
    const size_t scratch_size = ftr__weights_scratch_size(graph);
    const size_t items_size = (size_t)graph->variable_count * sizeof(ftr_safetensors_item);
    size_t data_size = 0;
    for (int32_t i = 0; i < graph->variable_count; i++) data_size += graph->variables[i].bytes;

    ftr_safetensors_item *items = ftr__allocate(context, items_size);
    unsigned char *data = ftr__allocate(context, data_size);
    unsigned char *scratch = ftr__allocate(context, scratch_size);
    status = items && data && scratch ? ftr__weights_collect(graph, data, scratch, items)
                                      : ftr__out_of_memory(context, path, items_size + data_size + scratch_size);
    if (status == FTR_OK) status = ftr_safetensors_write(context, path, items, graph->variable_count, metadata, 1);
    ftr__release(context, scratch, scratch_size);
    ftr__release(context, data, data_size);
    ftr__release(context, items, items_size);
    return status;
}

/* ------------------------------------------------------------------------------------------------------- loading -- */

/* "[2, 3]", or the rank alone where it is more than a graph can have. */
static const char *ftr__weight_entry_text(const ftr_safetensors_entry *entry, char text[FTR__SHAPE_TEXT]) {
    if (entry->rank > FTR_MAX_RANK) {
        snprintf(text, FTR__SHAPE_TEXT, "of rank %" PRId32, entry->rank);
        return text;
    }
    ftr_shape shape = {.rank = entry->rank};
    for (int32_t i = 0; i < entry->rank; i++) shape.dim[i] = entry->dim[i];
    return ftr__shape_text(&shape, text);
}

static bool ftr__weight_fits(const ftr__weight *weight, const ftr_safetensors_entry *entry) {
    if (entry->rank != weight->shape.rank) return false;
    for (int32_t i = 0; i < entry->rank; i++) {
        if (entry->dim[i] != weight->shape.dim[i]) return false;
    }
    return true;
}

/* Finds a variable's tensor and compares type and shape. */
static ftr_status ftr__weight_check(ftr_context *context, const char *path, const ftr__weight *weight,
                                    const ftr_safetensors *file) {
    ftr_safetensors_entry entry;
    char found[FTR__SHAPE_TEXT], expected[FTR__SHAPE_TEXT];
    if (!ftr_safetensors_find(file, weight->name, &entry))
        return ftr__error(context, FTR_ERROR_NAME, "%s: tensor '%.100s' is missing", path, weight->name);
    if (entry.dtype != weight->dtype)
        return ftr__error(context, FTR_ERROR_DTYPE, "%s: tensor '%.100s': dtype %s, expected %s", path, weight->name,
                          entry.dtype == FTR_DTYPE_NONE ? entry.dtype_name : ftr_dtype_name(entry.dtype),
                          ftr_dtype_name(weight->dtype));
    if (!ftr__weight_fits(weight, &entry))
        return ftr__error(context, FTR_ERROR_SHAPE, "%s: tensor '%.100s': shape %s, expected %s", path, weight->name,
                          ftr__weight_entry_text(&entry, found), ftr__shape_text(&weight->shape, expected));
    if (entry.dtype != FTR_BOOL) return FTR_OK;
    for (size_t i = 0; i < entry.bytes; i++) {
        const int value = ((const unsigned char *)entry.data)[i];
        if (value > 1)
            return ftr__error(context, FTR_ERROR_DATA, "%s: tensor '%.100s': element %zu is %d, expected 0 or 1", path,
                              weight->name, i, value);
    }
    return FTR_OK;
}

/* The counter of PyTorch's batch norms, which have no use for it unless their momentum is None. */
static bool ftr__weight_is_counter(const char *name) {
    static const char suffix[] = ".num_batches_tracked";
    const size_t length = strlen(name);
    return length >= sizeof suffix - 1 && strcmp(name + length - (sizeof suffix - 1), suffix) == 0;
}

/* Every variable is in the file and every entry in the graph. */
static ftr_status ftr__weights_check(ftr_graph *graph, const char *path, const ftr_safetensors *file) {
    for (int32_t i = 0; i < graph->variable_count; i++) {
        const ftr__weight weight = ftr__weight_of(graph, i);
        const ftr_status status = ftr__weight_check(graph->context, path, &weight, file);
        if (status != FTR_OK) return status;
    }
    ftr_safetensors_entry entry;
    for (int64_t i = 0; ftr_safetensors_at(file, i, &entry); i++) {
        if (ftr_is_valid(ftr_variable_find(graph, entry.name)) || ftr__weight_is_counter(entry.name)) continue;
        return ftr__error(graph->context, FTR_ERROR_NAME, "%s: tensor '%.100s' is not in the graph", path, entry.name);
    }
    return FTR_OK;
}

/* Copies a checked file into the variables. */
static ftr_status ftr__weights_apply(ftr_graph *graph, const ftr_safetensors *file, unsigned char *scratch) {
    for (int32_t i = 0; i < graph->variable_count; i++) {
        const ftr__weight weight = ftr__weight_of(graph, i);
        ftr_safetensors_entry entry;
        if (!ftr_safetensors_find(file, weight.name, &entry)) return FTR_ERROR_NAME;
        if (weight.permuted)
            ftr__weight_transpose(scratch, entry.data, weight.shape.dim[0], weight.shape.dim[1],
                                  weight.shape.dim[2] * weight.shape.dim[3], ftr_dtype_size(weight.dtype));
        const ftr_status status =
            ftr_variable_write(weight.tensor, weight.permuted ? scratch : entry.data, weight.bytes);
        if (status != FTR_OK) return status;
    }
    return FTR_OK;
}

ftr_status ftr_load_weights(ftr_graph *graph, const char *path) {
    ftr_status status = ftr__weights_begin(graph, path, "ftr_load_weights");
    if (status != FTR_OK) return status;
    ftr_context *context = graph->context;
    ftr_safetensors *file = NULL;
    status = ftr_safetensors_open(context, path, &file);
    if (status == FTR_OK) status = ftr__weights_check(graph, path, file);
    if (status == FTR_OK) status = ftr__graph_materialize(graph); /* what may fail comes before the first change */
    if (status == FTR_OK) {
        const size_t size = ftr__weights_scratch_size(graph);
        unsigned char *scratch = ftr__allocate(context, size);
        status = scratch ? ftr__weights_apply(graph, file, scratch) : ftr__out_of_memory(context, path, size);
        ftr__release(context, scratch, size);
    }
    ftr_safetensors_close(file);
    return status;
}
