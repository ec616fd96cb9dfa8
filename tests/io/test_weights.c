/* Weights: saved and loaded again, convolution weights as OIHW in the file, and nothing changed by a file that is refused. */
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
    FTR_TEST_OK(f->context, ftr_load_weights(other, f->path));
    assert_equal_graphs(f->graph, other);
    ftr_graph_destroy(other);
    other = build(f->context); /* one whose variables have no memory yet */
    FTR_TEST_OK(f->context, ftr_load_weights(other, f->path));
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

/* Loading must fail with this and change nothing. */
static void assert_refused(fixture *f, edited *e, ftr_status status, const char *sentence) {
    FTR_TEST_OK(f->context, ftr_safetensors_write(f->context, f->path, e->items, e->count, NULL, 0));
    ftr_graph *before = build(f->context);
    fill(before, 9);
    fill(f->graph, 9);
    assert_int_equal(ftr_load_weights(f->graph, f->path), status);
    char message[256];
    snprintf(message, sizeof message, "%s: %s", f->path, sentence);
    assert_string_equal(ftr_error_message(f->context), message);
    assert_equal_graphs(f->graph, before);
    ftr_graph_destroy(before);
    ftr_safetensors_close(e->file);
}

static void missing(void **state) {
    fixture *f = *state;
    edited e = edit(f);
    *item_of(&e, "fc.bias") = e.items[--e.count];
    assert_refused(f, &e, FTR_ERROR_NAME, "tensor 'fc.bias' is missing");
}

static void not_in_the_graph(void **state) {
    fixture *f = *state;
    edited e = edit(f);
    e.items[e.count] = *item_of(&e, "fc.bias");
    e.items[e.count++].name = "fc2.bias";
    assert_refused(f, &e, FTR_ERROR_NAME, "tensor 'fc2.bias' is not in the graph");
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
    assert_refused(f, &e, FTR_ERROR_DTYPE, "tensor 'fc.weight': dtype i32, expected f32");
}

static void not_a_bool(void **state) {
    fixture *f = *state;
    static const unsigned char mask[] = {0, 1, 2};
    edited e = edit(f);
    item_of(&e, "mask")->data = mask;
    assert_refused(f, &e, FTR_ERROR_DATA, "tensor 'mask': element 2 is 2, expected 0 or 1");
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
        {"{\"p\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[0,8]}}", "tensor 'p': dtype BF16, expected f32",
         FTR_ERROR_DTYPE},
        {"{\"p\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}",
         "tensor 'p': shape of rank 8, expected [2]", FTR_ERROR_SHAPE},
        {"{\"q\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "tensor 'p' is missing", FTR_ERROR_NAME},
        {"{\"p\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}",
         "TensorInvalidInfo: tensor 'p': found 8 bytes, expected 12 for F32 [3]", FTR_ERROR_FORMAT},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        const unsigned char head[8] = {(unsigned char)strlen(cases[i].header)};
        FILE *file = fopen(f->path, "wb");
        fwrite(head, 1, 8, file);
        fputs(cases[i].header, file);
        fwrite("\0\0\x80\x3f\0\0\0\x40", 1, 8, file);
        fclose(file);
        assert_int_equal(ftr_load_weights(graph, f->path), cases[i].status);
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
    FTR_TEST_OK(f->context, ftr_load_weights(f->graph, f->path));
    e.items[e.count - 1].name = "num_batches_tracked";
    assert_refused(f, &e, FTR_ERROR_NAME, "tensor 'num_batches_tracked' is not in the graph");
}

/* A PyTorch module's file, whose values say where they are: element (o, i, h, w) of the weight is 1000 o + 100 i + 10 h + w.
 * tests/io/check_with_reference.py wrote it. */
static void file_of_pytorch(void **state) {
    fixture *f = *state;
    ftr_graph *graph = ftr_graph_create(f->context);
    const ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(1, 4, 4, 3));
    ftr_batch_norm(ftr_conv2d(x, "0", 2, 3, NULL), "1", NULL);
    FTR_TEST_GRAPH_OK(graph);
    FTR_TEST_OK(f->context, ftr_load_weights(graph, FTR_TEST_DATA "/io/data/conv_bn.safetensors"));
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

/* ------------------------------------------------------------------------------------------------------ failures -- */

static void wrong_arguments(void **state) {
    fixture *f = *state;
    assert_int_equal(ftr_save_weights(NULL, f->path), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_load_weights(NULL, f->path), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_save_weights(f->graph, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(f->context), "ftr_save_weights: path is NULL");
    assert_int_equal(ftr_load_weights(f->graph, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(f->context), "ftr_load_weights: path is NULL");
    assert_int_equal(ftr_load_weights(f->graph, f->path), FTR_ERROR_IO);
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
    assert_int_equal(ftr_load_weights(graph, f->path), FTR_ERROR_NAME);
    ftr_graph_destroy(graph);
}

static void no_variables(void **state) {
    fixture *f = *state;
    ftr_graph *graph = ftr_graph_create(f->context);
    FTR_TEST_OK(f->context, ftr_save_weights(graph, f->path));
    FTR_TEST_OK(f->context, ftr_load_weights(graph, f->path));
    ftr_graph_destroy(graph);
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
    fill(f->graph, 11);
    f->memory.fail_at = 0;
    ftr_graph *before = build(f->context);
    fill(before, 11);
    const int64_t with_before = f->memory.blocks;
    status = FTR_ERROR_OUT_OF_MEMORY;
    failures = 0;
    for (int64_t n = 1; status != FTR_OK; n++, failures++) {
        f->memory.fail_at = f->memory.calls + n;
        status = ftr_load_weights(f->graph, f->path);
        assert_true(status == FTR_OK || status == FTR_ERROR_OUT_OF_MEMORY);
        assert_int_equal(f->memory.blocks, with_before);
        if (status != FTR_OK) assert_equal_graphs(f->graph, before);
    }
    f->memory.fail_at = 0;
    assert_true(failures >= 4);
    fill(before, 10);
    assert_equal_graphs(f->graph, before);
    ftr_graph_destroy(before);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(round_trip),      TEST(save_untouched),  TEST(contents),     TEST(missing),      TEST(not_in_the_graph),
        TEST(other_shape),     TEST(other_type),      TEST(not_a_bool),   TEST(foreign),      TEST(num_batches_tracked),
        TEST(file_of_pytorch), TEST(wrong_arguments), TEST(failed_graph), TEST(no_variables), TEST(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
