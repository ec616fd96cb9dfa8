#include "io/weights.h"

#include "io/load_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

ftr_shape ftr__weight_shape(const ftr_shape *memory, int64_t *window) {
    const ftr_shape shape = *memory;
    ftr_shape file = shape;
    *window = 1;
    file.dim[1] = shape.dim[shape.rank - 1];
    for (int32_t i = 2; i < shape.rank; i++) {
        file.dim[i] = shape.dim[i - 1];
        *window *= shape.dim[i - 1];
    }
    return file;
}

ftr__weight ftr__weight_of(ftr_graph *graph, int32_t index) {
    const ftr__variable *variable = &graph->variables[index];
    const ftr_tensor tensor = {graph, variable->value};
    ftr__weight weight = {
        .tensor = tensor,
        .name = ftr_name_of(tensor),
        .dtype = ftr_dtype_of(tensor),
        .shape = ftr_shape_of(tensor),
        .bytes = variable->bytes,
        .window = 1,
    };
    weight.permuted = variable->conv_weight && weight.shape.rank > 2;
    if (weight.permuted) weight.shape = ftr__weight_shape(&weight.shape, &weight.window);
    return weight;
}

void ftr__weight_transpose(void *to, const void *from, int64_t count, int64_t rows, int64_t columns, size_t size) {
    unsigned char *target = to;
    const unsigned char *source = from;
    for (int64_t n = 0; n < count; n++, source += (size_t)(rows * columns) * size) {
        for (int64_t c = 0; c < columns; c++) {
            const unsigned char *at = source + (size_t)c * size;
            if (size == 4) { /* a copy of known size is one instruction */
                for (int64_t r = 0; r < rows; r++, target += 4, at += columns * 4) memcpy(target, at, 4);
            } else {
                for (int64_t r = 0; r < rows; r++, target += size, at += (size_t)columns * size)
                    memcpy(target, at, size);
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
            ftr__weight_transpose(data, scratch, weight.shape.dim[0], weight.window, weight.shape.dim[1],
                                  ftr_dtype_size(weight.dtype));
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

/* Between floating types, rounded once. */
static void ftr__weight_convert(unsigned char *to, const ftr__weight *weight, const ftr_safetensors_entry *entry) {
    const int64_t count = (int64_t)(weight->bytes / ftr_dtype_size(weight->dtype));
    for (int64_t i = 0; i < count; i++)
        ftr__set_element(weight->dtype, to, i, ftr__element(entry->dtype, entry->data, i));
}

/* ------------------------------------------------------------------------------------------------------- loading -- */

typedef struct ftr__load {
    ftr_graph *graph;
    const char *path;
    const ftr_load_desc *desc;
    ftr_safetensors *file;
    ftr_load_report *report;
    ftr_safetensors_entry *found; /* by variable: what it is read from; name NULL: it is not read */
} ftr__load;

static ftr_status ftr__load_out_of_memory(const ftr__load *load, size_t bytes) {
    return ftr__out_of_memory(load->graph->context, load->path, bytes);
}

static ftr_status ftr__load_check_desc(ftr_context *context, const ftr_load_desc *desc) {
    const ftr_status bad = FTR_ERROR_INVALID_ARGUMENT;
    if (desc->mode != FTR_LOAD_STRICT && desc->mode != FTR_LOAD_BY_NAME)
        return ftr__error(context, bad, "ftr_load_weights: mode is %d, expected one of ftr_load_mode", (int)desc->mode);
    if (desc->skip_count < 0 || (desc->skip_count > 0 && !desc->skip))
        return ftr__error(context, bad, "ftr_load_weights: skip is %s with a count of %d",
                          desc->skip ? "given" : "NULL", desc->skip_count);
    for (int32_t i = 0; i < desc->skip_count; i++) {
        if (!desc->skip[i]) return ftr__error(context, bad, "ftr_load_weights: skip[%d] is NULL", i);
    }
    return FTR_OK;
}

static bool ftr__load_skips(const ftr_load_desc *desc, const char *name) {
    for (int32_t i = 0; i < desc->skip_count; i++) {
        if (ftr__glob_match(desc->skip[i], name)) return true;
    }
    return false;
}

/* A variable's name in the file; NULL when memory is short. */
static const char *ftr__load_file_name(const ftr__load *load, const char *name) {
    const char *prefix = load->desc->file_prefix;
    if (!prefix || !*prefix) return name;
    const size_t before = strlen(prefix), size = strlen(name) + 1;
    char *text = ftr__arena_alloc(&load->report->arena, before + size);
    if (!text) return NULL;
    memcpy(text, prefix, before);
    memcpy(text + before, name, size);
    return text;
}

/* A tensor's name without the prefix; NULL if it has another beginning. */
static const char *ftr__load_graph_name(const ftr__load *load, const char *name) {
    const char *prefix = load->desc->file_prefix ? load->desc->file_prefix : "";
    const size_t length = strlen(prefix);
    return strncmp(name, prefix, length) == 0 ? name + length : NULL;
}

/* The counter of PyTorch's batch norms, which have no use for it unless their momentum is None. */
static bool ftr__weight_is_counter(const char *name) {
    static const char suffix[] = ".num_batches_tracked";
    const size_t length = strlen(name);
    return length >= sizeof suffix - 1 && strcmp(name + length - (sizeof suffix - 1), suffix) == 0;
}

static bool ftr__weight_fits_type(const ftr__weight *weight, const ftr_safetensors_entry *entry) {
    return entry->dtype == weight->dtype || (ftr__is_float(weight->dtype) && ftr__is_float(entry->dtype));
}

static bool ftr__weight_fits_shape(const ftr__weight *weight, const ftr_safetensors_entry *entry) {
    if (entry->rank != weight->shape.rank) return false;
    for (int32_t i = 0; i < entry->rank; i++) {
        if (entry->dim[i] != weight->shape.dim[i]) return false;
    }
    return true;
}

#define FTR__LOAD_WHY FTR__MESSAGE_SIZE

/* A tensor of other type or shape. */
static ftr_status ftr__load_mismatch(const char *name, const ftr_load_entry *entry, bool type_fits, bool shape_fits,
                                     char why[FTR__LOAD_WHY]) {
    char found[FTR__SHAPE_TEXT], expected[FTR__SHAPE_TEXT];
    ftr__dims_text(entry->found_rank, entry->found_dim, found, sizeof found);
    ftr__shape_text(&entry->expected_shape, expected);
    const char *type = ftr_dtype_name(entry->expected_dtype);
    if (type_fits)
        snprintf(why, FTR__LOAD_WHY, "tensor '%.100s': shape %s, expected %s", name, found, expected);
    else if (shape_fits)
        snprintf(why, FTR__LOAD_WHY, "tensor '%.100s': dtype %s, expected %s", name, entry->found_dtype, type);
    else
        snprintf(why, FTR__LOAD_WHY, "tensor '%.100s': dtype %s and shape %s, expected %s %s", name, entry->found_dtype,
                 found, type, expected);
    return type_fits ? FTR_ERROR_SHAPE : FTR_ERROR_DTYPE;
}

/* Compares type, shape, and the bytes of a bool. */
static ftr_status ftr__load_compare(const ftr__weight *weight, const ftr_safetensors_entry *found,
                                    const ftr_load_entry *entry, char why[FTR__LOAD_WHY]) {
    const bool type_fits = ftr__weight_fits_type(weight, found), shape_fits = ftr__weight_fits_shape(weight, found);
    if (!type_fits || !shape_fits) return ftr__load_mismatch(found->name, entry, type_fits, shape_fits, why);
    for (size_t i = 0; found->dtype == FTR_BOOL && i < found->bytes; i++) {
        const int value = ((const unsigned char *)found->data)[i];
        if (value <= 1) continue;
        snprintf(why, FTR__LOAD_WHY, "tensor '%.100s': element %zu is %d, expected 0 or 1", found->name, i, value);
        return FTR_ERROR_DATA;
    }
    return FTR_OK;
}

static void ftr__load_set_found(ftr_load_entry *entry, const ftr_safetensors_entry *found) {
    entry->found_dtype = found->dtype_name;
    entry->found_rank = found->rank;
    entry->found_dim = found->dim;
}

/* Looks a variable up in the file. */
static ftr_status ftr__load_variable(ftr__load *load, int32_t index) {
    const ftr__weight weight = ftr__weight_of(load->graph, index);
    const char *name = ftr__load_file_name(load, weight.name);
    if (!name) return ftr__load_out_of_memory(load, strlen(weight.name));
    ftr_load_entry entry = {.name = weight.name, .expected_dtype = weight.dtype, .expected_shape = weight.shape};
    ftr_load_outcome outcome = FTR_LOAD_LOADED;
    ftr_safetensors_entry found;
    char why[FTR__LOAD_WHY] = "", shape[FTR__SHAPE_TEXT];
    const bool is_there = ftr_safetensors_find(load->file, name, &found);
    if (is_there) ftr__load_set_found(&entry, &found);
    if (ftr__load_skips(load->desc, weight.name)) {
        outcome = FTR_LOAD_SKIPPED;
    } else if (is_there) {
        entry.fault = ftr__load_compare(&weight, &found, &entry, why);
        if (entry.fault != FTR_OK)
            outcome = FTR_LOAD_MISMATCHED;
        else
            load->found[index] = found;
    } else {
        outcome = FTR_LOAD_MISSING;
        if (load->desc->mode == FTR_LOAD_STRICT) entry.fault = FTR_ERROR_NAME;
        snprintf(why, sizeof why, "tensor '%.100s' of shape %s is missing", name,
                 ftr__shape_text(&weight.shape, shape));
    }
    return ftr__load_report_add(load->report, outcome, &entry, why) ? FTR_OK
                                                                    : ftr__load_out_of_memory(load, sizeof entry);
}

/* Looks for a tensor of the file in the graph. Those that are there have been dealt with. */
static ftr_status ftr__load_tensor(ftr__load *load, const ftr_safetensors_entry *found) {
    const char *name = ftr__load_graph_name(load, found->name);
    if (ftr__weight_is_counter(found->name) || ftr_is_valid(ftr_variable_find(load->graph, name))) return FTR_OK;
    const bool skipped = ftr__load_skips(load->desc, name ? name : found->name);
    ftr_load_entry entry = {.name = found->name};
    ftr__load_set_found(&entry, found);
    if (!skipped && load->desc->mode == FTR_LOAD_STRICT) entry.fault = FTR_ERROR_NAME;
    char why[FTR__LOAD_WHY], shape[FTR__SHAPE_TEXT];
    ftr__dims_text(found->rank, found->dim, shape, sizeof shape);
    if (name)
        snprintf(why, sizeof why, "tensor '%.100s' of shape %s is not in the graph", found->name, shape);
    else
        snprintf(why, sizeof why, "tensor '%.100s' of shape %s lacks the prefix '%.60s'", found->name, shape,
                 load->desc->file_prefix);
    return ftr__load_report_add(load->report, skipped ? FTR_LOAD_SKIPPED : FTR_LOAD_UNEXPECTED, &entry, why)
               ? FTR_OK
               : ftr__load_out_of_memory(load, sizeof entry);
}

/* Fills the report and `found`. */
static ftr_status ftr__load_look_up(ftr__load *load) {
    const size_t size = (size_t)load->graph->variable_count * sizeof *load->found;
    load->found = ftr__arena_alloc(&load->report->arena, size);
    if (!load->found) return ftr__load_out_of_memory(load, size);
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < load->graph->variable_count && status == FTR_OK; i++) status = ftr__load_variable(load, i);
    ftr_safetensors_entry found;
    for (int64_t i = 0; status == FTR_OK && ftr_safetensors_at(load->file, i, &found); i++)
        status = ftr__load_tensor(load, &found);
    return status;
}

static bool ftr__load_pattern_fits(const ftr__load *load, const char *pattern) {
    for (int32_t i = 0; i < load->graph->variable_count; i++) {
        if (ftr__glob_match(pattern, ftr_name_of(ftr_variable_at(load->graph, i)))) return true;
    }
    ftr_safetensors_entry found;
    for (int64_t i = 0; ftr_safetensors_at(load->file, i, &found); i++) {
        const char *name = ftr__load_graph_name(load, found.name);
        if (ftr__glob_match(pattern, name ? name : found.name)) return true;
    }
    return false;
}

/* A pattern for nothing is a mistake, and what follows from it is not what should be told. */
static ftr_status ftr__load_check_patterns(const ftr__load *load) {
    for (int32_t i = 0; i < load->desc->skip_count; i++) {
        if (ftr__load_pattern_fits(load, load->desc->skip[i])) continue;
        return ftr__error(load->graph->context, FTR_ERROR_NAME,
                          "%s: skip[%d], '%.100s', fits no variable of the graph and no tensor of the file", load->path,
                          i, load->desc->skip[i]);
    }
    return FTR_OK;
}

/* By name all may be missing; that is a mistake all the same. */
static ftr_status ftr__load_check_any(const ftr__load *load) {
    const ftr_load_report *report = load->report;
    ftr_load_entry missing, unexpected;
    if (load->desc->mode != FTR_LOAD_BY_NAME || ftr_load_report_count(report, FTR_LOAD_LOADED) > 0) return FTR_OK;
    const char *prefix = load->desc->file_prefix ? load->desc->file_prefix : "";
    char instance[FTR__LOAD_WHY] = "";
    if (ftr_load_report_at(report, FTR_LOAD_MISSING, 0, &missing) &&
        ftr_load_report_at(report, FTR_LOAD_UNEXPECTED, 0, &unexpected))
        snprintf(instance, sizeof instance, " (for instance '%.60s%.100s'; the file has '%.100s')", prefix,
                 missing.name, unexpected.name);
    const int32_t variables = load->graph->variable_count, absent = ftr_load_report_count(report, FTR_LOAD_MISSING);
    return ftr__error(load->graph->context, FTR_ERROR_NAME,
                      "%s: nothing to load: of the graph's %d variables %d are skipped and %d are missing%s",
                      load->path, variables, variables - absent, absent, instance);
}

static ftr_status ftr__load_check(ftr__load *load) {
    ftr_status status = ftr__load_look_up(load);
    if (status != FTR_OK) return status;
    status = ftr__load_check_patterns(load);
    if (status == FTR_OK) status = ftr__load_report_verdict(load->report);
    if (status == FTR_OK) status = ftr__load_check_any(load);
    load->report->refused = status != FTR_OK;
    return status;
}

/* Copies the file's tensors into the variables. `converted` and `permuted` have room for the largest that needs them.
 * */
static ftr_status ftr__load_copy(const ftr__load *load, unsigned char *converted, unsigned char *permuted) {
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < load->graph->variable_count && status == FTR_OK; i++) {
        const ftr__weight weight = ftr__weight_of(load->graph, i);
        const ftr_safetensors_entry *found = &load->found[i];
        if (!found->name) continue;
        const void *data = found->data;
        if (found->dtype != weight.dtype) {
            ftr__weight_convert(converted, &weight, found);
            data = converted;
        }
        if (weight.permuted) {
            ftr__weight_transpose(permuted, data, weight.shape.dim[0], weight.shape.dim[1], weight.window,
                                  ftr_dtype_size(weight.dtype));
            data = permuted;
        }
        status = ftr_variable_write(weight.tensor, data, weight.bytes);
    }
    return status;
}

static ftr_status ftr__load_apply(const ftr__load *load) {
    ftr_context *context = load->graph->context;
    size_t convert = 0;
    for (int32_t i = 0; i < load->graph->variable_count; i++) {
        const ftr__weight weight = ftr__weight_of(load->graph, i);
        const ftr_safetensors_entry *found = &load->found[i];
        if (found->name && found->dtype != weight.dtype && weight.bytes > convert) convert = weight.bytes;
    }
    const size_t permute = ftr__weights_scratch_size(load->graph);
    unsigned char *scratch = ftr__allocate(context, convert + permute);
    if (!scratch) return ftr__load_out_of_memory(load, convert + permute);
    const ftr_status status = ftr__load_copy(load, scratch, scratch + convert);
    ftr__release(context, scratch, convert + permute);
    return status;
}

/* The file is open. */
static ftr_status ftr__load_file(ftr__load *load, ftr_load_report **report) {
    ftr_context *context = load->graph->context;
    load->report = ftr__load_report_create(context, load->path);
    if (!load->report) return context->status;
    ftr_status status = ftr__load_check(load);
    if (status == FTR_OK)
        status = ftr__graph_materialize(load->graph); /* what may fail comes before the first change */
    if (status == FTR_OK) status = ftr__load_apply(load);
    if (report && (status == FTR_OK || load->report->refused))
        *report = load->report;
    else
        ftr_load_report_destroy(load->report);
    return status;
}

ftr_status ftr_load_weights(ftr_graph *graph, const char *path, const ftr_load_desc *desc, ftr_load_report **report) {
    const ftr_load_desc strict = {FTR_LOAD_STRICT, NULL, 0, NULL};
    ftr__load load = {.graph = graph, .path = path, .desc = desc ? desc : &strict};
    if (report) *report = NULL;
    ftr_status status = ftr__weights_begin(graph, path, "ftr_load_weights");
    if (status == FTR_OK) status = ftr__load_check_desc(graph->context, load.desc);
    if (status == FTR_OK) status = ftr_safetensors_open(graph->context, path, &load.file);
    if (status == FTR_OK) status = ftr__load_file(&load, report);
    ftr_safetensors_close(load.file);
    return status;
}
