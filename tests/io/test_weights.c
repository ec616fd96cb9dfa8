/* Weights: saved and loaded again, convolution weights as OIHW in the file, other models' files by name, prefix and pattern,
 * other floating types, and nothing changed by a file that is refused. */
#include "ftr_test.h"

#include <sys/stat.h>
#include <unistd.h>

typedef struct fixture {
    ftr_test_memory memory;
    ftr_context *context;
    ftr_graph *graph;
    char directory[64];
    char path[96];
} fixture;

/* A small network with a parameter of each kind, in a scope. */
static ftr_graph *build(ftr_context *context) {
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(2, 5, 5, 4));
    ftr_scope_push(graph, "layer1");
    x = ftr_conv2d(x, "conv", 6, 3, &(ftr_conv2d_desc){.groups = 2});
    x = ftr_batch_norm(x, "bn", NULL);
    ftr_scope_pop(graph);
    x = ftr_linear(ftr_global_avg_pool(x), "fc", 3, NULL);
    const ftr_init zeros = {FTR_INIT_ZEROS, 0, 0};
    ftr_buffer(graph, "step", FTR_I64, ftr_scalar_shape(), zeros);
    ftr_buffer(graph, "mask", FTR_BOOL, FTR_SHAPE(3), zeros);
    ftr_buffer(graph, "empty", FTR_F32, FTR_SHAPE(2, 0), zeros);
    FTR_TEST_GRAPH_OK(graph);
    return graph;
}

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    f->context = ftr_test_context_with(NULL, 1, 1, &f->memory);
    f->graph = build(f->context);
    strcpy(f->directory, "/tmp/ftr_test_weights_XXXXXX");
    if (!mkdtemp(f->directory)) return 1;
    snprintf(f->path, sizeof f->path, "%s/w.safetensors", f->directory);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    ftr_graph_destroy(f->graph);
    ftr_context_destroy(f->context);
    unlink(f->path);
    const int result = f->memory.blocks != 0 || f->memory.wrong != 0 || rmdir(f->directory) != 0;
    free(f);
    return result;
}

static size_t bytes_of(ftr_tensor tensor) {
    const ftr_shape shape = ftr_shape_of(tensor);
    return (size_t)ftr_shape_count(&shape) * ftr_dtype_size(ftr_dtype_of(tensor));
}

#define LARGEST 4096

/* Gives all variables other values: f32 random ones, the rest a count. */
static void fill(ftr_graph *graph, uint64_t seed) {
    ftr_test_rng rng = {seed};
    for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
        const ftr_tensor tensor = ftr_variable_at(graph, i);
        unsigned char data[LARGEST] = {0};
        const size_t bytes = bytes_of(tensor);
        assert_true(bytes <= sizeof data);
        if (ftr_dtype_of(tensor) == FTR_F32)
            ftr_test_fill_f32((float *)(void *)data, (int64_t)(bytes / 4), &rng, -1, 1);
        if (ftr_dtype_of(tensor) == FTR_I64) data[0] = (unsigned char)seed;
        if (ftr_dtype_of(tensor) == FTR_BOOL) data[seed % 3] = 1;
        assert_int_equal(ftr_variable_write(tensor, data, bytes), FTR_OK);
    }
}

static void assert_equal_graphs(ftr_graph *a, ftr_graph *b) {
    for (int32_t i = 0; i < ftr_variable_count(a); i++) {
        const ftr_tensor left = ftr_variable_at(a, i);
        unsigned char left_data[LARGEST], right_data[LARGEST];
        const size_t bytes = bytes_of(left);
        assert_int_equal(ftr_variable_read(left, left_data, bytes), FTR_OK);
        assert_int_equal(ftr_variable_read(ftr_variable_find(b, ftr_name_of(left)), right_data, bytes), FTR_OK);
        if (bytes > 0) assert_memory_equal(left_data, right_data, bytes);
    }
}

/* ---------------------------------------------------------------------------------------------------- round trip -- */

static void round_trip(void **state) {
    fixture *f = *state;
    fill(f->graph, 5);
    FTR_TEST_OK(f->context, ftr_save_weights(f->graph, f->path));
    ftr_graph *other = build(f->context);
    fill(other, 6);
    FTR_TEST_OK(f->context, ftr_load_weights(other, f->path, NULL, NULL));
    assert_equal_graphs(f->graph, other);
    ftr_graph_destroy(other);
    other = build(f->context); /* one whose variables have no memory yet */
    FTR_TEST_OK(f->context, ftr_load_weights(other, f->path, NULL, NULL));
    assert_equal_graphs(f->graph, other);
    ftr_graph_destroy(other);
}

/* The first values, written before anything else made them. */
static void save_untouched(void **state) {
    fixture *f = *state;
    FTR_TEST_OK(f->context, ftr_save_weights(f->graph, f->path));
    ftr_graph *other = build(f->context);
    assert_equal_graphs(f->graph, other); /* initialization is a function of seed and name */
    ftr_graph_destroy(other);
}

static void contents(void **state) {
    fixture *f = *state;
    fill(f->graph, 7);
    FTR_TEST_OK(f->context, ftr_save_weights(f->graph, f->path));
    ftr_safetensors *file = NULL;
    FTR_TEST_OK(f->context, ftr_safetensors_open(f->context, f->path, &file));
    const char *const names[] = {"empty",
                                 "fc.bias",
                                 "fc.weight",
                                 "layer1.bn.bias",
                                 "layer1.bn.running_mean",
                                 "layer1.bn.running_var",
                                 "layer1.bn.weight",
                                 "layer1.conv.bias",
                                 "layer1.conv.weight",
                                 "mask",
                                 "step"};
    assert_int_equal(ftr_safetensors_count(file), FTR_TEST_LENGTH(names));
    ftr_safetensors_entry entry;
    for (size_t i = 0; i < FTR_TEST_LENGTH(names); i++) {
        assert_true(ftr_safetensors_at(file, (int64_t)i, &entry));
        assert_string_equal(entry.name, names[i]);
    }
    assert_string_equal(ftr_safetensors_metadata(file, "format"), "pt");

    assert_true(ftr_safetensors_find(file, "fc.weight", &entry));
    assert_true(entry.rank == 2 && entry.dim[0] == 3 && entry.dim[1] == 6);

    /* memory [o, kh, kw, i], file [o, i, kh, kw] */
    float memory[6][3][3][2];
    assert_int_equal(ftr_variable_read(ftr_variable_find(f->graph, "layer1.conv.weight"), memory, sizeof memory),
                     FTR_OK);
    assert_true(ftr_safetensors_find(file, "layer1.conv.weight", &entry));
    assert_true(entry.rank == 4 && entry.dim[0] == 6 && entry.dim[1] == 2 && entry.dim[2] == 3 && entry.dim[3] == 3);
    const float *in_file = entry.data;
    for (int o = 0; o < 6; o++)
        for (int i = 0; i < 2; i++)
            for (int h = 0; h < 3; h++)
                for (int w = 0; w < 3; w++) assert_true(memory[o][h][w][i] == in_file[((o * 2 + i) * 3 + h) * 3 + w]);
    ftr_safetensors_close(file);
}

/* A transposed convolution of 4 to 10 channels and one of one dimension, of 4 to 6, both with two groups. */
static ftr_graph *build_convolutions(ftr_context *context, ftr_tensor *weight, ftr_tensor *line) {
    ftr_graph *graph = ftr_graph_create(context);
    ftr_conv_transpose2d(ftr_input(graph, "x", FTR_F32, FTR_SHAPE(2, 5, 5, 4)), "up", 10, 3,
                         &(ftr_conv_transpose2d_desc){.stride = {2, 2}, .groups = 2});
    ftr_conv1d(ftr_input(graph, "l", FTR_F32, FTR_SHAPE(2, 9, 4)), "line", 6, 3, &(ftr_conv1d_desc){.groups = 2});
    FTR_TEST_GRAPH_OK(graph);
    *weight = ftr_variable_find(graph, "up.weight");
    *line = ftr_variable_find(graph, "line.weight");
    return graph;
}

/* All values lie within the bound and come near it on both sides. */
static void assert_uniform(ftr_graph *graph, const char *name, double bound) {
    float values[256] = {0}, low = 0, high = 0;
    const ftr_tensor tensor = ftr_variable_find(graph, name);
    const size_t bytes = bytes_of(tensor);
    assert_true(bytes <= sizeof values);
    assert_int_equal(ftr_variable_read(tensor, values, bytes), FTR_OK);
    for (size_t i = 0; i < bytes / 4; i++) {
        low = fminf(low, values[i]);
        high = fmaxf(high, values[i]);
    }
    assert_true((double)low >= -bound && (double)low < -0.5 * bound);
    assert_true((double)high <= bound && (double)high > 0.5 * bound);
}

/* PyTorch's ConvTranspose2d(4, 10, 3, groups=2) has a weight [4, 5, 3, 3], and Conv1d(4, 6, 3, groups=2) one of [6, 2, 3].
 * Each is uniform within 1 / sqrt(the size of a row), and so is its bias. */
static void other_convolutions(void **state) {
    fixture *f = *state;
    ftr_tensor weight, line;
    ftr_graph *graph = build_convolutions(f->context, &weight, &line);
    assert_uniform(graph, "up.weight", 1 / sqrt(5 * 9));
    assert_uniform(graph, "up.bias", 1 / sqrt(5 * 9));
    assert_uniform(graph, "line.weight", 1 / sqrt(2 * 3));
    assert_uniform(graph, "line.bias", 1 / sqrt(2 * 3));
    fill(graph, 11);
    FTR_TEST_OK(f->context, ftr_save_weights(graph, f->path));
    ftr_safetensors *file = NULL;
    FTR_TEST_OK(f->context, ftr_safetensors_open(f->context, f->path, &file));
    assert_int_equal(ftr_safetensors_count(file), 4);
    ftr_safetensors_entry entry;
    float memory[4][3][3][5], memory_of_line[6][3][2];
    assert_int_equal(ftr_variable_read(weight, memory, sizeof memory), FTR_OK);
    assert_int_equal(ftr_variable_read(line, memory_of_line, sizeof memory_of_line), FTR_OK);
    assert_true(ftr_safetensors_find(file, "up.weight", &entry));
    assert_true(entry.rank == 4 && entry.dim[0] == 4 && entry.dim[1] == 5 && entry.dim[2] == 3 && entry.dim[3] == 3);
    for (int i = 0; i < 4 * 5 * 3 * 3; i++) {
        assert_true(((const float *)entry.data)[i] == memory[i / 45][i / 3 % 3][i % 3][i / 9 % 5]);
    }
    assert_true(ftr_safetensors_find(file, "line.weight", &entry));
    assert_true(entry.rank == 3 && entry.dim[0] == 6 && entry.dim[1] == 2 && entry.dim[2] == 3);
    for (int i = 0; i < 6 * 2 * 3; i++) {
        assert_true(((const float *)entry.data)[i] == memory_of_line[i / 6][i % 3][i / 3 % 2]);
    }
    ftr_safetensors_close(file);
    ftr_graph *other = build_convolutions(f->context, &weight, &line);
    FTR_TEST_OK(f->context, ftr_load_weights(other, f->path, NULL, NULL));
    assert_equal_graphs(graph, other);
    ftr_graph_destroy(other);
    ftr_graph_destroy(graph);
}

/* --------------------------------------------------------------------------------------------------- other files -- */

/* The saved weights as a list of items that a test may change. */
typedef struct edited {
    ftr_safetensors *file;
    ftr_safetensors_item items[16];
    int64_t count;
} edited;

static edited edit(fixture *f) {
    edited e = {.count = 0};
    fill(f->graph, 8);
    FTR_TEST_OK(f->context, ftr_save_weights(f->graph, f->path));
    FTR_TEST_OK(f->context, ftr_safetensors_open(f->context, f->path, &e.file));
    ftr_safetensors_entry entry;
    for (; ftr_safetensors_at(e.file, e.count, &entry); e.count++) {
        ftr_safetensors_item *item = &e.items[e.count];
        *item = (ftr_safetensors_item){.name = entry.name, .dtype = entry.dtype, .data = entry.data};
        item->shape.rank = entry.rank;
        for (int32_t d = 0; d < entry.rank; d++) item->shape.dim[d] = entry.dim[d];
    }
    return e;
}

static ftr_safetensors_item *item_of(edited *e, const char *name) {
    for (int64_t i = 0; i < e->count; i++) {
        if (strcmp(e->items[i].name, name) == 0) return &e->items[i];
    }
    fail_msg("no item '%s'", name);
    return NULL;
}

static void write_items(fixture *f, const edited *e) {
    FTR_TEST_OK(f->context, ftr_safetensors_write(f->context, f->path, e->items, e->count, NULL, 0));
}

/* Loading the file must fail with this and change nothing, with and without a report, which is handed out. */
static ftr_load_report *refused(fixture *f, const ftr_load_desc *desc, ftr_status status, const char *sentence) {
    ftr_graph *before = build(f->context);
    fill(before, 9);
    fill(f->graph, 9);
    char message[512];
    snprintf(message, sizeof message, "%s: %s", f->path, sentence);
    ftr_load_report *report = NULL;
    for (int with_report = 0; with_report < 2; with_report++) {
        ftr_error_clear(f->context);
        assert_int_equal(ftr_load_weights(f->graph, f->path, desc, with_report ? &report : NULL), status);
        assert_string_equal(ftr_error_message(f->context), message);
        assert_equal_graphs(f->graph, before);
    }
    ftr_graph_destroy(before);
    assert_non_null(report);
    return report;
}

/* The same of an edited file, which is closed. */
static void assert_refused(fixture *f, edited *e, ftr_status status, const char *sentence) {
    write_items(f, e);
    ftr_load_report_destroy(refused(f, NULL, status, sentence));
    ftr_safetensors_close(e->file);
}

static void missing(void **state) {
    fixture *f = *state;
    edited e = edit(f);
    *item_of(&e, "fc.bias") = e.items[--e.count];
    assert_refused(f, &e, FTR_ERROR_NAME, "tensor 'fc.bias' of shape [3] is missing");
}

static void not_in_the_graph(void **state) {
    fixture *f = *state;
    edited e = edit(f);
    e.items[e.count] = *item_of(&e, "fc.bias");
    e.items[e.count++].name = "fc2.bias";
    assert_refused(f, &e, FTR_ERROR_NAME, "tensor 'fc2.bias' of shape [3] is not in the graph");
}

static void other_shape(void **state) {
    fixture *f = *state;
    edited e = edit(f);
    item_of(&e, "layer1.conv.weight")->shape = FTR_SHAPE(6, 3, 3, 2); /* memory's order */
    assert_refused(f, &e, FTR_ERROR_SHAPE, "tensor 'layer1.conv.weight': shape [6, 3, 3, 2], expected [6, 2, 3, 3]");
    e = edit(f);
    item_of(&e, "fc.weight")->shape = FTR_SHAPE(18);
    assert_refused(f, &e, FTR_ERROR_SHAPE, "tensor 'fc.weight': shape [18], expected [3, 6]");
    e = edit(f);
    item_of(&e, "step")->shape = FTR_SHAPE(1);
    assert_refused(f, &e, FTR_ERROR_SHAPE, "tensor 'step': shape [1], expected []");
}

static void other_type(void **state) {
    fixture *f = *state;
    edited e = edit(f);
    item_of(&e, "fc.weight")->dtype = FTR_I32;
    assert_refused(f, &e, FTR_ERROR_DTYPE, "tensor 'fc.weight': dtype I32, expected f32");
    e = edit(f);
    item_of(&e, "step")->dtype = FTR_F64; /* numbers become no integers */
    assert_refused(f, &e, FTR_ERROR_DTYPE, "tensor 'step': dtype F64, expected i64");
    e = edit(f);
    item_of(&e, "fc.weight")->dtype = FTR_I64;
    item_of(&e, "fc.weight")->shape = FTR_SHAPE(9);
    assert_refused(f, &e, FTR_ERROR_DTYPE, "tensor 'fc.weight': dtype I64 and shape [9], expected f32 [3, 6]");
}

static void not_a_bool(void **state) {
    fixture *f = *state;
    static const unsigned char mask[] = {0, 1, 2};
    edited e = edit(f);
    item_of(&e, "mask")->data = mask;
    assert_refused(f, &e, FTR_ERROR_DATA, "tensor 'mask': element 2 is 2, expected 0 or 1");
}

/* A file from its header's text. */
static void write_raw(const char *path, const char *header, const void *data, size_t bytes) {
    const size_t length = strlen(header);
    unsigned char head[8] = {(unsigned char)length, (unsigned char)(length >> 8)};
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(head, 1, 8, file), 8);
    assert_int_equal(fwrite(header, 1, length, file), length);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

/* Types and ranks that a graph cannot have. */
static void foreign(void **state) {
    fixture *f = *state;
    ftr_graph *graph = ftr_graph_create(f->context);
    ftr_parameter(graph, "p", FTR_F32, FTR_SHAPE(2), (ftr_init){FTR_INIT_CONSTANT, 3, 0});
    FTR_TEST_GRAPH_OK(graph);
    const struct {
        const char *header, *sentence;
        ftr_status status;
    } cases[] = {
        {"{\"p\":{\"dtype\":\"I16\",\"shape\":[4],\"data_offsets\":[0,8]}}",
         "tensor 'p': dtype I16 and shape [4], expected f32 [2]", FTR_ERROR_DTYPE},
        {"{\"p\":{\"dtype\":\"U32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "tensor 'p': dtype U32, expected f32",
         FTR_ERROR_DTYPE},
        {"{\"p\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[0,8]}}", "tensor 'p': shape [4], expected [2]",
         FTR_ERROR_SHAPE},
        {"{\"p\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}",
         "tensor 'p': shape [1, 1, 1, 1, 1, 1, 1, 2], expected [2]", FTR_ERROR_SHAPE},
        {"{\"q\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
         "tensor 'p' of shape [2] is missing, and 1 more does not fit", FTR_ERROR_NAME},
        {"{\"p\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}",
         "TensorInvalidInfo: tensor 'p': found 8 bytes, expected 12 for F32 [3]", FTR_ERROR_FORMAT},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        write_raw(f->path, cases[i].header, "\0\0\x80\x3f\0\0\0\x40", 8);
        ftr_load_report *report = NULL;
        assert_int_equal(ftr_load_weights(graph, f->path, NULL, &report), cases[i].status);
        assert_int_equal(report != NULL, cases[i].status != FTR_ERROR_FORMAT);
        ftr_load_report_destroy(report);
        char message[256];
        snprintf(message, sizeof message, "%s: %s", f->path, cases[i].sentence);
        assert_string_equal(ftr_error_message(f->context), message);
        float values[2];
        assert_int_equal(ftr_variable_read(ftr_variable_at(graph, 0), values, sizeof values), FTR_OK);
        assert_true(values[0] == 3.0f && values[1] == 3.0f);
    }
    ftr_graph_destroy(graph);
}

/* What PyTorch's batch norms carry is left aside, whatever its type. Other names are not. */
static void num_batches_tracked(void **state) {
    fixture *f = *state;
    static const int64_t batches = 12;
    edited e = edit(f);
    e.items[e.count++] = (ftr_safetensors_item){"layer1.bn.num_batches_tracked", FTR_I64, {0, {0}}, &batches};
    FTR_TEST_OK(f->context, ftr_safetensors_write(f->context, f->path, e.items, e.count, NULL, 0));
    FTR_TEST_OK(f->context, ftr_load_weights(f->graph, f->path, NULL, NULL));
    e.items[e.count - 1].name = "num_batches_tracked";
    assert_refused(f, &e, FTR_ERROR_NAME, "tensor 'num_batches_tracked' of shape [] is not in the graph");
}

/* A PyTorch module's file, whose values say where they are: element (o, i, h, w) of the weight is 1000 o + 100 i + 10 h + w.
 * tests/io/check_with_reference.py wrote it. */
static void file_of_pytorch(void **state) {
    fixture *f = *state;
    ftr_graph *graph = ftr_graph_create(f->context);
    const ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(1, 4, 4, 3));
    ftr_batch_norm(ftr_conv2d(x, "0", 2, 3, NULL), "1", NULL);
    FTR_TEST_GRAPH_OK(graph);
    FTR_TEST_OK(f->context, ftr_load_weights(graph, FTR_TEST_DATA "/io/data/conv_bn.safetensors", NULL, NULL));
    float weight[2][3][3][3], values[2];
    assert_int_equal(ftr_variable_read(ftr_variable_find(graph, "0.weight"), weight, sizeof weight), FTR_OK);
    for (int o = 0; o < 2; o++)
        for (int h = 0; h < 3; h++)
            for (int w = 0; w < 3; w++)
                for (int i = 0; i < 3; i++) assert_true(weight[o][h][w][i] == (float)(1000 * o + 100 * i + 10 * h + w));
    const struct {
        const char *name;
        float value;
    } others[] = {{"0.bias", 1}, {"1.weight", 2}, {"1.bias", 3}, {"1.running_mean", 4}, {"1.running_var", 5}};
    for (size_t i = 0; i < FTR_TEST_LENGTH(others); i++) {
        assert_int_equal(ftr_variable_read(ftr_variable_find(graph, others[i].name), values, sizeof values), FTR_OK);
        assert_true(values[0] == others[i].value && values[1] == others[i].value + 0.5f);
    }
    ftr_graph_destroy(graph);
}

/* ------------------------------------------------------------------------------------------- other models' files -- */

static void assert_counts(const ftr_load_report *report, int loaded, int missing, int unexpected, int mismatched,
                          int skipped) {
    const int expected[FTR_LOAD_OUTCOME_COUNT] = {loaded, missing, unexpected, mismatched, skipped};
    for (int i = 0; i < FTR_LOAD_OUTCOME_COUNT; i++) {
        ftr_load_entry entry;
        assert_int_equal(ftr_load_report_count(report, (ftr_load_outcome)i), expected[i]);
        assert_false(ftr_load_report_at(report, (ftr_load_outcome)i, expected[i], &entry));
        assert_false(ftr_load_report_at(report, (ftr_load_outcome)i, -1, &entry));
    }
}

static ftr_load_entry entry_of(const ftr_load_report *report, ftr_load_outcome outcome, int32_t index,
                               const char *name) {
    ftr_load_entry entry;
    assert_true(ftr_load_report_at(report, outcome, index, &entry));
    assert_string_equal(entry.name, name);
    return entry;
}

/* Loads a file of what fill(8) made into a graph that fill(9) filled: the variables of `kept` must keep their bytes, all
 * others must be the file's. */
static ftr_load_report *assert_loads(fixture *f, const ftr_load_desc *desc, const char *const *kept, int kept_count) {
    ftr_load_report *report = NULL;
    ftr_graph *old = build(f->context), *new = build(f->context);
    fill(old, 9);
    fill(new, 8);
    fill(f->graph, 9);
    FTR_TEST_OK(f->context, ftr_load_weights(f->graph, f->path, desc, &report));
    for (int i = 0; i < kept_count; i++) {
        unsigned char data[LARGEST];
        const ftr_tensor from = ftr_variable_find(old, kept[i]), to = ftr_variable_find(new, kept[i]);
        const size_t bytes = bytes_of(from);
        assert_true(bytes > 0);
        assert_int_equal(ftr_variable_read(from, data, bytes), FTR_OK);
        assert_int_equal(ftr_variable_write(to, data, bytes), FTR_OK);
    }
    assert_equal_graphs(f->graph, new);
    ftr_graph_destroy(old);
    ftr_graph_destroy(new);
    return report;
}

static const char *const head[] = {"fc.*"};
static const char *const head_variables[] = {"fc.weight", "fc.bias"};

/* A head for other classes, strictly. */
static void replaced_head(void **state) {
    fixture *f = *state;
    static const float values[60] = {0};
    edited e = edit(f);
    item_of(&e, "fc.weight")->shape = FTR_SHAPE(10, 6);
    item_of(&e, "fc.weight")->data = values;
    write_items(f, &e);
    const ftr_load_desc desc = {.skip = head, .skip_count = 1};
    ftr_load_report *report = assert_loads(f, &desc, head_variables, 2);
    assert_counts(report, 9, 0, 0, 0, 2);
    ftr_load_entry entry = entry_of(report, FTR_LOAD_SKIPPED, 0, "fc.weight");
    assert_true(entry.found_rank == 2 && entry.found_dim[0] == 10 && entry.found_dim[1] == 6);
    assert_true(entry.expected_shape.rank == 2 && entry.expected_shape.dim[0] == 3 && entry.expected_dtype == FTR_F32);
    assert_string_equal(entry.found_dtype, "F32");
    assert_int_equal(entry.fault, FTR_OK);
    entry = entry_of(report, FTR_LOAD_LOADED, 0, "layer1.conv.weight");
    assert_true(entry.found_rank == 4 && entry.found_dim[1] == 2 && entry.expected_shape.dim[1] == 2);
    ftr_load_report_destroy(report);

    /* The old head has other layers, and the new one none of their names. */
    item_of(&e, "fc.weight")->name = "fc.0.weight";
    item_of(&e, "fc.bias")->name = "fc.0.bias";
    write_items(f, &e);
    report = assert_loads(f, &desc, head_variables, 2);
    assert_counts(report, 9, 0, 0, 0, 4);
    entry = entry_of(report, FTR_LOAD_SKIPPED, 1, "fc.bias");
    assert_true(entry.found_dtype == NULL && entry.found_rank == 0);
    entry = entry_of(report, FTR_LOAD_SKIPPED, 3, "fc.0.weight");
    assert_true(entry.expected_dtype == FTR_DTYPE_NONE && entry.found_dim[0] == 10);
    ftr_load_report_destroy(report);

    /* A skipped variable may be of any type in the file; what is not skipped may not. */
    const char *const one[] = {"mask", "fc.?eight", "fc.0.*"};
    item_of(&e, "mask")->dtype = FTR_U8;
    write_items(f, &e);
    ftr_load_report_destroy(refused(f, &(ftr_load_desc){.skip = one, .skip_count = 3}, FTR_ERROR_NAME,
                                    "tensor 'fc.bias' of shape [3] is missing"));
    ftr_safetensors_close(e.file);
}

/* A misspelt pattern is told before what follows from it. */
static void pattern_for_nothing(void **state) {
    fixture *f = *state;
    const char *const skip[] = {"*.bn.*", "cf.*"};
    edited e = edit(f);
    item_of(&e, "fc.weight")->shape = FTR_SHAPE(6, 3);
    write_items(f, &e);
    for (int mode = FTR_LOAD_STRICT; mode <= FTR_LOAD_BY_NAME; mode++) {
        const ftr_load_desc desc = {.mode = (ftr_load_mode)mode, .skip = skip, .skip_count = 2};
        ftr_load_report *report = refused(f, &desc, FTR_ERROR_NAME,
                                          "skip[1], 'cf.*', fits no variable of the graph and no tensor of the file");
        assert_counts(report, 6, 0, 0, 1, 4);
        ftr_load_report_destroy(report);
    }
    ftr_safetensors_close(e.file);
}

static void by_name(void **state) {
    fixture *f = *state;
    const ftr_load_desc desc = {.mode = FTR_LOAD_BY_NAME};
    edited e = edit(f);
    item_of(&e, "fc.bias")->name = "fc.offset";
    item_of(&e, "fc.weight")->name = "other.num_batches_tracked";
    write_items(f, &e);
    ftr_load_report *report = assert_loads(f, &desc, head_variables, 2);
    assert_counts(report, 9, 2, 1, 0, 0);
    assert_int_equal(entry_of(report, FTR_LOAD_MISSING, 0, "fc.weight").fault, FTR_OK);
    assert_int_equal(entry_of(report, FTR_LOAD_MISSING, 1, "fc.bias").fault, FTR_OK);
    assert_int_equal(entry_of(report, FTR_LOAD_UNEXPECTED, 0, "fc.offset").fault, FTR_OK);
    ftr_load_report_destroy(report);

    /* What is there must fit, or be skipped. */
    item_of(&e, "mask")->shape = FTR_SHAPE(3, 1);
    write_items(f, &e);
    report = refused(f, &desc, FTR_ERROR_SHAPE, "tensor 'mask': shape [3, 1], expected [3]");
    assert_counts(report, 8, 2, 1, 1, 0);
    ftr_load_report_destroy(report);
    const char *const skip[] = {"mask"};
    const char *const kept[] = {"mask", "fc.weight", "fc.bias"};
    report = assert_loads(f, &(ftr_load_desc){.mode = FTR_LOAD_BY_NAME, .skip = skip, .skip_count = 1}, kept, 3);
    assert_counts(report, 8, 2, 1, 0, 1);
    ftr_load_report_destroy(report);
    ftr_safetensors_close(e.file);
}

static void nothing_by_name(void **state) {
    fixture *f = *state;
    ftr_load_desc desc = {.mode = FTR_LOAD_BY_NAME};
    static const float values[2] = {0};
    const ftr_safetensors_item item = {"module.fc.bias", FTR_F32, FTR_SHAPE(2), values};
    FTR_TEST_OK(f->context, ftr_safetensors_write(f->context, f->path, &item, 1, NULL, 0));
    ftr_load_report *report = refused(f, &desc, FTR_ERROR_NAME,
                                      "nothing to load: of the graph's 11 variables 0 are skipped and 11 are missing "
                                      "(for instance 'layer1.conv.weight'; the file has 'module.fc.bias')");
    assert_counts(report, 0, 11, 1, 0, 0);
    ftr_load_report_destroy(report);
    desc.file_prefix = "model.";
    ftr_load_report_destroy(refused(f, &desc, FTR_ERROR_NAME,
                                    "nothing to load: of the graph's 11 variables 0 are skipped and 11 are missing "
                                    "(for instance 'model.layer1.conv.weight'; the file has 'module.fc.bias')"));
    const char *const all[] = {"*"};
    desc = (ftr_load_desc){.mode = FTR_LOAD_BY_NAME, .skip = all, .skip_count = 1};
    ftr_load_report_destroy(refused(f, &desc, FTR_ERROR_NAME,
                                    "nothing to load: of the graph's 11 variables 11 are skipped and 0 are missing"));
}

/* Puts text before the names of all items; `texts` keeps them. */
static void prefix_items(edited *e, const char *prefix, char texts[16][64]) {
    for (int64_t i = 0; i < e->count; i++) {
        snprintf(texts[i], 64, "%s%s", prefix, e->items[i].name);
        e->items[i].name = texts[i];
    }
}

static void prefix(void **state) {
    fixture *f = *state;
    static const float values[2] = {0};
    char texts[16][64];
    edited e = edit(f);
    prefix_items(&e, "module.", texts);
    static const int64_t batches = 12;
    e.items[e.count++] = (ftr_safetensors_item){"module.layer1.bn.num_batches_tracked", FTR_I64, {0, {0}}, &batches};
    write_items(f, &e);
    ftr_load_desc desc = {.file_prefix = "module."};
    ftr_load_report *report = assert_loads(f, &desc, NULL, 0);
    assert_counts(report, 11, 0, 0, 0, 0);
    entry_of(report, FTR_LOAD_LOADED, 0, "layer1.conv.weight"); /* names are the graph's */
    ftr_load_report_destroy(report);

    /* Without it nothing is where it is looked for: 11 are missing, 11 are unexpected, the counter is neither. */
    report = refused(f, NULL, FTR_ERROR_NAME,
                     "tensor 'layer1.conv.weight' of shape [6, 2, 3, 3] is missing, and 21 more do not fit");
    assert_counts(report, 0, 11, 11, 0, 0);
    ftr_load_report_destroy(report);

    /* A tensor without it is unexpected, even if its name is a variable's, unless a pattern has its name. */
    e.items[e.count++] = (ftr_safetensors_item){"fc.bias", FTR_F32, FTR_SHAPE(2), values};
    write_items(f, &e);
    report = refused(f, &desc, FTR_ERROR_NAME, "tensor 'fc.bias' of shape [2] lacks the prefix 'module.'");
    assert_counts(report, 11, 0, 1, 0, 0);
    ftr_load_report_destroy(report);
    e.items[e.count - 1].name = "lm_head.bias";
    write_items(f, &e);
    const char *const skip[] = {"lm_head.*"};
    desc.skip = skip;
    desc.skip_count = 1;
    report = assert_loads(f, &desc, NULL, 0);
    assert_counts(report, 11, 0, 0, 0, 1);
    ftr_load_report_destroy(report);

    /* Patterns are compared with names less the prefix, of tensors that the graph lacks too. */
    e.items[e.count - 1].name = "module.lm_head.bias";
    write_items(f, &e);
    report = assert_loads(f, &desc, NULL, 0);
    assert_counts(report, 11, 0, 0, 0, 1);
    entry_of(report, FTR_LOAD_SKIPPED, 0, "module.lm_head.bias");
    ftr_load_report_destroy(report);

    /* Sentences have the file's names. */
    e.count -= 1;
    *item_of(&e, "module.mask") = e.items[--e.count];
    item_of(&e, "module.fc.bias")->shape = FTR_SHAPE(3, 1);
    write_items(f, &e);
    desc.skip_count = 0;
    ftr_load_report_destroy(refused(f, &desc, FTR_ERROR_SHAPE,
                                    "tensor 'module.fc.bias': shape [3, 1], expected [3], and 1 more does not fit"));
    item_of(&e, "module.fc.bias")->shape = FTR_SHAPE(3);
    write_items(f, &e);
    ftr_load_report_destroy(refused(f, &desc, FTR_ERROR_NAME, "tensor 'module.mask' of shape [3] is missing"));
    ftr_safetensors_close(e.file);
}

/* ------------------------------------------------------------------------------------------------------- reports -- */

/* All that can be wrong at once. */
static void everything_wrong(void **state) {
    fixture *f = *state;
    static const unsigned char mask[] = {0, 1, 2};
    const char *const skip[] = {"layer1.bn.*"};
    edited e = edit(f);
    item_of(&e, "layer1.conv.weight")->shape = FTR_SHAPE(6, 3, 3, 2);
    item_of(&e, "layer1.conv.bias")->dtype = FTR_I32;
    item_of(&e, "fc.bias")->name = "fc.offset";
    item_of(&e, "mask")->data = mask;
    item_of(&e, "step")->name = "count";
    write_items(f, &e);
    const ftr_load_desc desc = {.skip = skip, .skip_count = 1};
    ftr_load_report *report =
        refused(f, &desc, FTR_ERROR_SHAPE,
                "tensor 'layer1.conv.weight': shape [6, 3, 3, 2], expected [6, 2, 3, 3], and 6 more do not fit");
    assert_counts(report, 2, 2, 2, 3, 4);
    const ftr_status faults[] = {FTR_ERROR_SHAPE, FTR_ERROR_DTYPE, FTR_ERROR_DATA};
    const char *const names[] = {"layer1.conv.weight", "layer1.conv.bias", "mask"};
    for (int i = 0; i < 3; i++) {
        const ftr_load_entry entry = entry_of(report, FTR_LOAD_MISMATCHED, i, names[i]);
        assert_int_equal(entry.fault, faults[i]);
    }
    assert_int_equal(entry_of(report, FTR_LOAD_MISSING, 0, "fc.bias").fault, FTR_ERROR_NAME);
    assert_int_equal(entry_of(report, FTR_LOAD_MISSING, 1, "step").fault, FTR_ERROR_NAME);
    assert_int_equal(entry_of(report, FTR_LOAD_UNEXPECTED, 0, "count").fault, FTR_ERROR_NAME);
    assert_int_equal(entry_of(report, FTR_LOAD_UNEXPECTED, 1, "fc.offset").fault, FTR_ERROR_NAME);

    ftr_safetensors_close(e.file); /* a report needs neither file nor graph */
    ftr_graph_destroy(f->graph);
    f->graph = build(f->context);
    ftr_test_text *text = calloc(1, sizeof *text);
    ftr_load_report_print(report, ftr_test_text_write, text);
    char expected[2048];
    snprintf(expected, sizeof expected,
             "%s: refused, nothing is changed: 2 fit, 2 missing, 2 unexpected, 3 mismatched, 4 skipped\n"
             "missing     fc.bias: expected f32 [3]\n"
             "missing     step: expected i64 []\n"
             "unexpected  count: found I64 []\n"
             "unexpected  fc.offset: found F32 [3]\n"
             "mismatched  layer1.conv.weight: found F32 [6, 3, 3, 2], expected f32 [6, 2, 3, 3]\n"
             "mismatched  layer1.conv.bias: found I32 [6], expected f32 [6]\n"
             "mismatched  mask: found BOOL [3], expected bool [3]\n"
             "skipped     layer1.bn.weight: found F32 [6], expected f32 [6]\n"
             "skipped     layer1.bn.bias: found F32 [6], expected f32 [6]\n"
             "skipped     layer1.bn.running_mean: found F32 [6], expected f32 [6]\n"
             "skipped     layer1.bn.running_var: found F32 [6], expected f32 [6]\n",
             f->path);
    assert_string_equal(text->text, expected);
    ftr_load_report_print(report, NULL, NULL);
    ftr_load_report_print(NULL, ftr_test_text_write, text);
    assert_string_equal(text->text, expected);
    free(text);
    ftr_load_report_destroy(report);
}

static void report_of_a_load(void **state) {
    fixture *f = *state;
    edited e = edit(f);
    ftr_load_report *report = assert_loads(f, NULL, NULL, 0);
    assert_counts(report, 11, 0, 0, 0, 0);
    ftr_test_text *text = calloc(1, sizeof *text);
    char expected[256];
    snprintf(expected, sizeof expected, "%s: 11 loaded, 0 missing, 0 unexpected, 0 mismatched, 0 skipped\n", f->path);
    ftr_load_report_print(report, ftr_test_text_write, text);
    assert_string_equal(text->text, expected);
    free(text);
    ftr_load_entry entry;
    assert_false(ftr_load_report_at(report, FTR_LOAD_LOADED, 0, NULL));
    assert_false(ftr_load_report_at(NULL, FTR_LOAD_LOADED, 0, &entry));
    assert_int_equal(ftr_load_report_count(NULL, FTR_LOAD_LOADED), 0);
    assert_int_equal(ftr_load_report_count(report, FTR_LOAD_OUTCOME_COUNT), 0);
    assert_int_equal(ftr_load_report_count(report, (ftr_load_outcome)-1), 0);
    ftr_load_report_destroy(report);
    ftr_load_report_destroy(NULL);
    ftr_safetensors_close(e.file);
}

/* ------------------------------------------------------------------------------------------------ floating types -- */

enum { PATTERNS = 65536 };

/* What 16 bits mean, by the definition of the format: 5 or 8 bits of exponent, 10 or 7 of fraction. */
static double meaning(unsigned bits, int fraction_bits) {
    const int exponent_bits = 15 - fraction_bits, bias = (1 << (exponent_bits - 1)) - 1;
    const int exponent = (int)(bits >> fraction_bits) & ((1 << exponent_bits) - 1);
    const double fraction = bits & ((1u << fraction_bits) - 1), sign = bits >> 15 ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1) return fraction != 0 ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexp(fraction, 1 - bias - fraction_bits);
    return sign * ldexp(fraction + (1 << fraction_bits), exponent - bias - fraction_bits);
}

static void assert_same_number(double found, double expected) {
    if (isnan(expected))
        assert_true(isnan(found));
    else
        assert_true(found == expected && signbit(found) == signbit(expected));
}

/* All values of both 16-bit types, as f32 and f64. */
static void half_types(void **state) {
    fixture *f = *state;
    uint16_t *bits = malloc(PATTERNS * sizeof *bits);
    double *values = malloc(PATTERNS * sizeof *values);
    float *singles = malloc(PATTERNS * sizeof *singles);
    for (unsigned i = 0; i < PATTERNS; i++) bits[i] = (uint16_t)i;
    for (int type = 0; type < 4; type++) {
        const bool bf16 = type % 2, is_double = type >= 2;
        write_raw(f->path,
                  bf16 ? "{\"p\":{\"dtype\":\"BF16\",\"shape\":[65536],\"data_offsets\":[0,131072]}}"
                       : "{\"p\":{\"dtype\":\"F16\",\"shape\":[65536],\"data_offsets\":[0,131072]}}",
                  bits, PATTERNS * sizeof *bits);
        ftr_graph *graph = ftr_graph_create(f->context);
        const ftr_init zeros = {FTR_INIT_ZEROS, 0, 0};
        const ftr_tensor p = ftr_parameter(graph, "p", is_double ? FTR_F64 : FTR_F32, FTR_SHAPE(PATTERNS), zeros);
        ftr_load_report *report;
        FTR_TEST_OK(f->context, ftr_load_weights(graph, f->path, NULL, &report));
        assert_string_equal(entry_of(report, FTR_LOAD_LOADED, 0, "p").found_dtype, bf16 ? "BF16" : "F16");
        ftr_load_report_destroy(report);
        if (is_double) {
            FTR_TEST_OK(f->context, ftr_variable_read(p, values, PATTERNS * sizeof *values));
        } else {
            FTR_TEST_OK(f->context, ftr_variable_read(p, singles, PATTERNS * sizeof *singles));
            for (int i = 0; i < PATTERNS; i++) values[i] = (double)singles[i];
        }
        for (unsigned i = 0; i < PATTERNS; i++) assert_same_number(values[i], meaning(i, bf16 ? 7 : 10));
        ftr_graph_destroy(graph);
    }
    free(bits);
    free(values);
    free(singles);
}

/* Each floating type into f32 and f64 as PyTorch's load_state_dict() does it; check_with_reference.py wrote the file. */
static void types_of_pytorch(void **state) {
    fixture *f = *state;
    static const char *const path = FTR_TEST_DATA "/io/data/types.safetensors";
    static const char *const names[] = {"of_float16", "of_bfloat16", "of_float32", "of_float64"};
    const char *const skip[] = {"*.f32", "*.f64"};
    const ftr_load_desc desc = {.skip = skip, .skip_count = 2};
    ftr_safetensors *file = NULL;
    FTR_TEST_OK(f->context, ftr_safetensors_open(f->context, path, &file));
    for (int is_double = 0; is_double < 2; is_double++) {
        ftr_graph *graph = ftr_graph_create(f->context);
        const ftr_init ones = {FTR_INIT_CONSTANT, 1, 0};
        for (int i = 0; i < 4; i++) ftr_parameter(graph, names[i], is_double ? FTR_F64 : FTR_F32, FTR_SHAPE(28), ones);
        FTR_TEST_GRAPH_OK(graph);
        FTR_TEST_OK(f->context, ftr_load_weights(graph, path, &desc, NULL));
        for (int i = 0; i < 4; i++) {
            char name[64];
            double found[28], expected[28];
            ftr_safetensors_entry entry;
            snprintf(name, sizeof name, "%s.%s", names[i], is_double ? "f64" : "f32");
            assert_true(ftr_safetensors_find(file, name, &entry));
            assert_int_equal(ftr_variable_read(ftr_variable_at(graph, i), found, entry.bytes), FTR_OK);
            memcpy(expected, entry.data, entry.bytes);
            for (int k = 0; k < 28; k++) {
                if (is_double)
                    assert_same_number(found[k], expected[k]);
                else
                    assert_same_number((double)((float *)found)[k], (double)((float *)expected)[k]);
            }
        }
        ftr_graph_destroy(graph);
    }
    ftr_safetensors_close(file);
}

/* A convolution weight is converted and permuted. */
static void converted_convolution(void **state) {
    fixture *f = *state;
    double weight[6][2][3][3];
    edited e = edit(f);
    for (int i = 0; i < 108; i++) (&weight[0][0][0][0])[i] = i + 0.1;
    item_of(&e, "layer1.conv.weight")->dtype = FTR_F64;
    item_of(&e, "layer1.conv.weight")->data = weight;
    write_items(f, &e);
    FTR_TEST_OK(f->context, ftr_load_weights(f->graph, f->path, NULL, NULL));
    float memory[6][3][3][2];
    const ftr_tensor tensor = ftr_variable_find(f->graph, "layer1.conv.weight");
    assert_int_equal(ftr_variable_read(tensor, memory, sizeof memory), FTR_OK);
    for (int o = 0; o < 6; o++)
        for (int i = 0; i < 2; i++)
            for (int h = 0; h < 3; h++)
                for (int w = 0; w < 3; w++) assert_true(memory[o][h][w][i] == (float)weight[o][i][h][w]);
    ftr_safetensors_close(e.file);
}

/* ------------------------------------------------------------------------------------------------------ failures -- */

static void wrong_arguments(void **state) {
    fixture *f = *state;
    assert_int_equal(ftr_save_weights(NULL, f->path), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_load_weights(NULL, f->path, NULL, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_save_weights(f->graph, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(f->context), "ftr_save_weights: path is NULL");
    assert_int_equal(ftr_load_weights(f->graph, NULL, NULL, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(f->context), "ftr_load_weights: path is NULL");
    ftr_load_report *report = (ftr_load_report *)f;
    assert_int_equal(ftr_load_weights(f->graph, f->path, NULL, &report), FTR_ERROR_IO);
    assert_null(report);
    FTR_TEST_OK(f->context, ftr_save_weights(f->graph, f->path));
    const char *const skip[] = {"fc.*", NULL};
    const struct {
        ftr_load_desc desc;
        const char *sentence;
    } cases[] = {
        {{.mode = (ftr_load_mode)2}, "ftr_load_weights: mode is 2, expected one of ftr_load_mode"},
        {{.mode = (ftr_load_mode)-1}, "ftr_load_weights: mode is -1, expected one of ftr_load_mode"},
        {{.skip = skip, .skip_count = -1}, "ftr_load_weights: skip is given with a count of -1"},
        {{.skip_count = 2}, "ftr_load_weights: skip is NULL with a count of 2"},
        {{.skip = skip, .skip_count = 2}, "ftr_load_weights: skip[1] is NULL"},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        report = (ftr_load_report *)f;
        assert_int_equal(ftr_load_weights(f->graph, f->path, &cases[i].desc, &report), FTR_ERROR_INVALID_ARGUMENT);
        assert_string_equal(ftr_error_message(f->context), cases[i].sentence);
        assert_null(report);
    }
}

/* A graph whose building failed says why. */
static void failed_graph(void **state) {
    fixture *f = *state;
    ftr_graph *graph = ftr_graph_create(f->context);
    const ftr_init zeros = {FTR_INIT_ZEROS, 0, 0};
    ftr_parameter(graph, "p", FTR_F32, FTR_SHAPE(2), zeros);
    ftr_parameter(graph, "p", FTR_F32, FTR_SHAPE(2), zeros);
    assert_int_equal(ftr_save_weights(graph, f->path), FTR_ERROR_NAME);
    assert_string_equal(ftr_error_message(f->context), ftr_graph_error(graph));
    assert_int_equal(ftr_load_weights(graph, f->path, NULL, NULL), FTR_ERROR_NAME);
    ftr_graph_destroy(graph);
}

static void no_variables(void **state) {
    fixture *f = *state;
    ftr_graph *graph = ftr_graph_create(f->context);
    FTR_TEST_OK(f->context, ftr_save_weights(graph, f->path));
    FTR_TEST_OK(f->context, ftr_load_weights(graph, f->path, NULL, NULL));
    ftr_graph_destroy(graph);
}

/* Each allocation of a load fails in turn; it ends in `end`. */
static void out_of_memory_while_loading(fixture *f, ftr_status end) {
    const ftr_load_desc desc = {.skip = head, .skip_count = 1, .file_prefix = "module."};
    fill(f->graph, 11);
    ftr_graph *before = build(f->context);
    fill(before, 11);
    const int64_t blocks = f->memory.blocks;
    ftr_status status = FTR_ERROR_OUT_OF_MEMORY;
    ftr_load_report *report = NULL;
    int64_t failures = 0;
    for (int64_t n = 1; status == FTR_ERROR_OUT_OF_MEMORY; n++, failures++) {
        f->memory.fail_at = f->memory.calls + n;
        status = ftr_load_weights(f->graph, f->path, &desc, &report);
        assert_true(status == end || status == FTR_ERROR_OUT_OF_MEMORY);
        if (status == FTR_ERROR_OUT_OF_MEMORY) assert_int_equal(f->memory.blocks, blocks);
        if (status == FTR_ERROR_OUT_OF_MEMORY) assert_null(report);
        if (status != FTR_OK) assert_equal_graphs(f->graph, before);
    }
    f->memory.fail_at = 0;
    assert_true(failures >= 6);
    assert_non_null(report);
    ftr_load_report_destroy(report);
    assert_int_equal(f->memory.blocks, blocks);
    ftr_graph_destroy(before);
}

static void out_of_memory(void **state) {
    fixture *f = *state;
    fill(f->graph, 10);
    const int64_t blocks = f->memory.blocks;
    ftr_status status = FTR_ERROR_OUT_OF_MEMORY;
    int64_t failures = 0;
    for (int64_t n = 1; status != FTR_OK; n++, failures++) {
        f->memory.fail_at = f->memory.calls + n;
        status = ftr_save_weights(f->graph, f->path);
        assert_true(status == FTR_OK || status == FTR_ERROR_OUT_OF_MEMORY);
        assert_int_equal(access(f->path, F_OK) == 0, status == FTR_OK);
        assert_int_equal(f->memory.blocks, blocks);
    }
    assert_true(failures >= 5);
    f->memory.fail_at = 0;
    char texts[16][64];
    edited e = edit(f);
    prefix_items(&e, "module.", texts);
    double weight[108];
    for (int i = 0; i < 108; i++) weight[i] = i;
    item_of(&e, "module.layer1.conv.weight")->dtype = FTR_F64;
    item_of(&e, "module.layer1.conv.weight")->data = weight;
    write_items(f, &e);
    out_of_memory_while_loading(f, FTR_OK);
    float memory[6][3][3][2];
    const ftr_tensor tensor = ftr_variable_find(f->graph, "layer1.conv.weight");
    assert_int_equal(ftr_variable_read(tensor, memory, sizeof memory), FTR_OK);
    assert_true(memory[5][1][2][1] == weight[5 * 18 + 9 + 5]);
    item_of(&e, "module.step")->name = "module.count";
    write_items(f, &e);
    ftr_safetensors_close(e.file);
    out_of_memory_while_loading(f, FTR_ERROR_NAME);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(round_trip),
        TEST(save_untouched),
        TEST(contents),
        TEST(other_convolutions),
        TEST(missing),
        TEST(not_in_the_graph),
        TEST(other_shape),
        TEST(other_type),
        TEST(not_a_bool),
        TEST(foreign),
        TEST(num_batches_tracked),
        TEST(file_of_pytorch),
        TEST(replaced_head),
        TEST(pattern_for_nothing),
        TEST(by_name),
        TEST(nothing_by_name),
        TEST(prefix),
        TEST(everything_wrong),
        TEST(report_of_a_load),
        TEST(half_types),
        TEST(types_of_pytorch),
        TEST(converted_convolution),
        TEST(wrong_arguments),
        TEST(failed_graph),
        TEST(no_variables),
        TEST(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
