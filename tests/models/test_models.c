/* The models against PyTorch's, by the digests that tests/goldens/make_model_goldens.py made: names and shapes, first
 * values, logits, loss, gradients and running statistics of one step.
 *
 *   test_models [FILTER]   the tests whose name contains it */
#include "ftr_test.h"
#include "model_zoo.h"

#define PROJECTIONS 4
#define SAMPLES 16
#define ROW (2 + PROJECTIONS + SAMPLES)
#define BAR 1e-4

static const char *const golden_files[] = {FTR_TEST_DATA "/goldens/models.safetensors",
                                           FTR_TEST_DATA "/goldens/transformers.safetensors"};

static ftr_context *context;
static ftr_safetensors *files[FTR_TEST_LENGTH(golden_files)];

/* A context on an instruction set, "" for the best one; NULL if the machine lacks it. */
static ftr_context *context_of(const char *simd) {
    const char *asked = getenv("FASTTRAIN_SIMD");
    char *before = asked ? strdup(asked) : NULL;
    ftr_context *made = NULL;
    if (*simd) setenv("FASTTRAIN_SIMD", simd, 1);
    const ftr_context_desc desc = {.seed = 1, .log_level = FTR_LOG_SILENT, .threads = 2};
    const ftr_status status = ftr_context_create(&desc, &made);
    if (before)
        setenv("FASTTRAIN_SIMD", before, 1);
    else
        unsetenv("FASTTRAIN_SIMD");
    free(before);
    assert_true(status == FTR_OK || (*simd && status == FTR_ERROR_INVALID_ARGUMENT));
    return made;
}

static int setup(void **state) {
    (void)state;
    context = context_of("");
    for (size_t i = 0; i < FTR_TEST_LENGTH(golden_files); i++)
        FTR_TEST_OK(context, ftr_safetensors_open(context, golden_files[i], &files[i]));
    return 0;
}

static int teardown(void **state) {
    (void)state;
    for (size_t i = 0; i < FTR_TEST_LENGTH(golden_files); i++) ftr_safetensors_close(files[i]);
    ftr_context_destroy(context);
    return 0;
}

/* -------------------------------------------------------------------------------------------------------- golden -- */

static bool golden_find(const zoo_model *model, const char *what, ftr_safetensors_entry *entry) {
    char name[128];
    snprintf(name, sizeof name, "%s/%s", model->name, what);
    for (size_t i = 0; i < FTR_TEST_LENGTH(golden_files); i++)
        if (ftr_safetensors_find(files[i], name, entry)) return true;
    return false;
}

/* Elements of the file lie anywhere: they are copied. */
static void golden_copy(const zoo_model *model, const char *what, void *data, size_t bytes) {
    ftr_safetensors_entry entry;
    if (!golden_find(model, what, &entry)) fail_msg("the goldens have no %s/%s", model->name, what);
    if (entry.bytes != bytes) fail_msg("%s/%s has %zu bytes, expected %zu", model->name, what, entry.bytes, bytes);
    memcpy(data, entry.data, bytes);
}

/* A line of "shapes". */
typedef struct line {
    char name[128], kind[16];
    ftr_shape shape;
} line;

/* The lines of "shapes"; the caller frees them. */
static line *golden_lines(const zoo_model *model, int32_t *count) {
    ftr_safetensors_entry entry;
    if (!golden_find(model, "shapes", &entry)) fail_msg("the goldens have no %s", model->name);
    char *text = strndup(entry.data, entry.bytes), *next = NULL;
    line *lines = calloc(entry.bytes / 8 + 1, sizeof *lines);
    *count = 0;
    for (char *at = strtok_r(text, "\n", &next); at; at = strtok_r(NULL, "\n", &next)) {
        line *l = &lines[(*count)++];
        int used = 0;
        assert_int_equal(sscanf(at, "%127s %15s%n", l->name, l->kind, &used), 2);
        for (at += used; *at;) l->shape.dim[l->shape.rank++] = strtoll(at, &at, 10);
    }
    free(text);
    return lines;
}

static ftr_shape file_shape(ftr_tensor tensor) {
    ftr_shape shape = ftr_shape_of(tensor), file = shape;
    if (shape.rank == 4) file.dim[1] = shape.dim[3], file.dim[2] = shape.dim[1], file.dim[3] = shape.dim[2];
    return file;
}

/* --------------------------------------------------------------------------------------------------------- names -- */

static ftr_graph *build_usual(const zoo_model *model) {
    ftr_graph *graph = ftr_graph_create(context);
    zoo_build(graph, model, model->input, &(zoo_options){0});
    FTR_TEST_GRAPH_OK(graph);
    return graph;
}

/* All names, kinds and shapes as PyTorch's state_dict has them, in any order, and the number of trained elements. */
static void test_names(void **state) {
    const zoo_model *model = *state;
    ftr_graph *graph = build_usual(model);
    int32_t count;
    int64_t trained = 0, expected_trained;
    line *lines = golden_lines(model, &count);
    for (int32_t i = 0; i < count; i++) {
        const ftr_tensor variable = ftr_variable_find(graph, lines[i].name);
        if (!ftr_is_valid(variable)) fail_msg("%s has no '%s'", model->name, lines[i].name);
        const ftr_shape shape = file_shape(variable);
        if (!ftr_shape_equal(&shape, &lines[i].shape))
            fail_msg("%s: '%s' has another shape than PyTorch's", model->name, lines[i].name);
        assert_int_equal(ftr_is_parameter(variable), strcmp(lines[i].kind, "parameter") == 0);
        if (ftr_is_parameter(variable)) trained += ftr_shape_count(&shape);
    }
    assert_int_equal(ftr_variable_count(graph), count);
    golden_copy(model, "count", &expected_trained, sizeof expected_trained);
    assert_int_equal(trained, expected_trained);
    free(lines);
    ftr_graph_destroy(graph);
}

/* -------------------------------------------------------------------------------------------------- first values -- */

/* Mean and standard deviation within 6 of their own deviations. Of a normal distribution (bound 0) large tensors have
 * values beyond 3 deviations, which tells it from a uniform one; of a uniform one they come close to the bound. */
static void check_first_values(const zoo_model *model, ftr_tensor variable, const float row[3]) {
    const size_t bytes = zoo_bytes(variable), count = bytes / sizeof(float);
    float *data = malloc(bytes);
    FTR_TEST_OK(context, ftr_variable_read(variable, data, bytes));
    double sum = 0, squares = 0, largest = 0;
    for (size_t i = 0; i < count; i++) {
        const double off = (double)data[i] - (double)row[0];
        sum += off;
        squares += off * off;
        largest = fmax(largest, fabs(off));
    }
    free(data);
    const double n = (double)count, mean = sum / n, deviation = sqrt(squares / n);
    const double expected = (double)row[1], bound = (double)row[2];
    const char *name = ftr_name_of(variable);
    if (fabs(mean) > 6 * expected / sqrt(n))
        fail_msg("%s: %s has mean %g, expected %g", model->name, name, mean + (double)row[0], (double)row[0]);
    if (n > 1 && fabs(deviation - expected) > 6 * expected / sqrt(2 * n))
        fail_msg("%s: %s has deviation %g, expected %g", model->name, name, deviation, expected);
    if (bound > 0 && largest > bound * (1 + 1e-6))
        fail_msg("%s: %s has %g, expected to %g", model->name, name, largest, bound);
    if (bound > 0 && n > 1000 && largest < 0.98 * bound)
        fail_msg("%s: %s comes to %g, expected near %g", model->name, name, largest, bound);
    if (bound == 0 && n > 10000 && largest < 3 * expected)
        fail_msg("%s: %s comes to %g, expected beyond %g", model->name, name, largest, 3 * expected);
}

static void test_first_values(void **state) {
    const zoo_model *model = *state;
    ftr_graph *graph = build_usual(model);
    int32_t count;
    line *lines = golden_lines(model, &count);
    float *rows = malloc((size_t)count * 3 * sizeof *rows);
    golden_copy(model, "init", rows, (size_t)count * 3 * sizeof *rows);
    for (int32_t i = 0; i < count; i++)
        check_first_values(model, ftr_variable_find(graph, lines[i].name), &rows[3 * i]);
    free(rows);
    free(lines);
    ftr_graph_destroy(graph);
}

/* ---------------------------------------------------------------------------------------------------------- step -- */

/* The largest error of a model's tensors, and which one has it. */
typedef struct deviation {
    double error;
    char name[128];
} deviation;

static void note(deviation *worst, double error, const char *name) {
    if (error > worst->error || isnan(error)) {
        worst->error = error;
        snprintf(worst->name, sizeof worst->name, "%s", name);
    }
}

/* Compares a tensor, given in a file's layout, with its row. What that says of ||a - b|| / scale: the difference of the norms
 * is at most it; a projection's difference is of its size, 4 times it for an unlucky choice of signs; an element's difference
 * is about that share of the element's size plus the tensor's root mean square, and taken to be at most 10 times it. Returns
 * the largest of these estimates. */
static double compare(const char *key, const float *data, int64_t count, const float row[ROW]) {
    const uint64_t hash = zoo_hash(key);
    double squares = 0, projections[PROJECTIONS] = {0};
    for (int64_t i = 0; i < count; i++) {
        const double value = (double)data[i];
        const uint64_t bits = zoo_bits(hash, i);
        squares += value * value;
        for (int k = 0; k < PROJECTIONS; k++) projections[k] += bits >> k & 1 ? value : -value;
    }
    const double scale = (double)row[0] > 0 ? (double)row[0] : 1;
    double error = fabs(sqrt(squares) - (double)row[1]) / scale;
    for (int k = 0; k < PROJECTIONS; k++) error = fmax(error, fabs(projections[k] - (double)row[2 + k]) / scale / 4);
    char at[300];
    snprintf(at, sizeof at, "%s/at", key);
    for (int k = 0; k < SAMPLES; k++) {
        const double expected = (double)row[2 + PROJECTIONS + k];
        const double off = (double)data[(int64_t)(zoo_uniform(at, k) * (double)count)] - expected;
        error = fmax(error, fabs(off) / (fabs(expected) + scale / sqrt((double)count)) / 10);
    }
    return isnan(squares) ? (double)NAN : error;
}

static double compare_tensor(const zoo_model *model, const char *name, ftr_shape shape, const float *data,
                             const float row[ROW]) {
    char key[256];
    snprintf(key, sizeof key, "%s/%s", model->name, name);
    const int64_t count = ftr_shape_count(&shape);
    float *file = malloc((size_t)count * sizeof *file + 1);
    for (int64_t i = 0; i < count; i++) file[zoo_file_index(&shape, i)] = data[i];
    const double error = compare(key, file, count, row);
    free(file);
    return error;
}

/* Logits of one step; the name of their row is the mode's. */
static void compare_logits(const zoo_model *model, ftr_plan *plan, ftr_tensor logits, const char *mode,
                           const float row[ROW], deviation *worst) {
    float *data = malloc(zoo_bytes(logits));
    assert_int_equal(ftr_read(plan, logits, data, zoo_bytes(logits)), FTR_OK);
    const ftr_shape shape = ftr_shape_of(logits), flat = FTR_SHAPE(ftr_shape_count(&shape));
    note(worst, compare_tensor(model, mode, flat, data, row), mode);
    free(data);
}

/* Gradients of parameters; buffers as the step left them. */
static void compare_variables(const zoo_model *model, ftr_graph *graph, ftr_plan *plan, const float *rows,
                              deviation *worst) {
    int32_t count;
    line *lines = golden_lines(model, &count);
    for (int32_t i = 0; i < count; i++) {
        const ftr_tensor variable = ftr_variable_find(graph, lines[i].name);
        const size_t bytes = zoo_bytes(variable);
        float *data = malloc(bytes);
        const ftr_status status = ftr_is_parameter(variable) ? ftr_read_gradient(plan, variable, data, bytes)
                                                             : ftr_variable_read(variable, data, bytes);
        assert_int_equal(status, FTR_OK);
        note(worst, compare_tensor(model, lines[i].name, ftr_shape_of(variable), data, rows + (size_t)i * ROW),
             lines[i].name);
        free(data);
    }
    free(lines);
}

static void run_model(ftr_context *on, const zoo_model *model) {
    ftr_safetensors_entry entry;
    assert_true(golden_find(model, "digests", &entry));
    float *rows = malloc(entry.bytes);
    memcpy(rows, entry.data, entry.bytes);
    int64_t dims[FTR_MAX_RANK];
    double setting[3], expected_loss;
    ftr_shape input = {.rank = model->input.rank};
    golden_copy(model, "input", dims, (size_t)input.rank * sizeof *dims);
    golden_copy(model, "setting", setting, sizeof setting);
    golden_copy(model, "loss", &expected_loss, sizeof expected_loss);
    memcpy(input.dim, dims, (size_t)input.rank * sizeof *dims);

    ftr_graph *graph = ftr_graph_create(on);
    const zoo_network net = zoo_build(graph, model, input, &(zoo_options){0});
    FTR_TEST_GRAPH_OK(graph);
    FTR_TEST_OK(on, zoo_fill_weights(graph, setting[0], setting[1] != 0));
    char prefix[128];
    snprintf(prefix, sizeof prefix, "%s/%d", model->name, (int)setting[2]);
    deviation worst = {0};
    ftr_plan *plan = NULL;
    ftr_compile_desc desc = {.mode = FTR_MODE_EVAL, .outputs = &net.logits, .output_count = 1};
    FTR_TEST_OK(on, ftr_compile(graph, &desc, &plan));
    FTR_TEST_OK(on, zoo_feed(plan, &net, prefix));
    FTR_TEST_OK(on, ftr_step(plan, NULL));
    compare_logits(model, plan, net.logits, "eval", rows, &worst);
    ftr_plan_destroy(plan);

    ftr_tensor *parameters = zoo_parameters(graph, &desc.gradient_count);
    desc.mode = FTR_MODE_TRAIN;
    desc.loss = net.loss;
    desc.gradients_of = parameters;
    FTR_TEST_OK(on, ftr_compile(graph, &desc, &plan));
    FTR_TEST_OK(on, zoo_feed(plan, &net, prefix));
    ftr_step_info info;
    FTR_TEST_OK(on, ftr_step(plan, &info));
    note(&worst, fabs(info.loss - expected_loss) / fabs(expected_loss), "the loss");
    compare_logits(model, plan, net.logits, "train", rows + ROW, &worst);
    compare_variables(model, graph, plan, rows + 2 * ROW, &worst);
    ftr_plan_destroy(plan);
    free(parameters);
    ftr_graph_destroy(graph);
    free(rows);
    if (!(worst.error <= BAR))
        fail_msg("%s (%s): %s is off by %.1e", model->name, ftr_context_simd_name(on), worst.name, worst.error);
    print_message("    %s, %s: within %.1e (%s)\n", model->name, ftr_context_simd_name(on), worst.error, worst.name);
}

static void test_step(void **state) { run_model(context, *state); }

/* On the instruction sets that the machine has besides the one of test_step(). */
static void test_levels(void **state) {
    static const char *const levels[] = {"portable", "neon", "avx2", "avx512"};
    for (size_t i = 0; i < FTR_TEST_LENGTH(levels); i++) {
        if (strcmp(levels[i], ftr_context_simd_name(context)) == 0) continue;
        ftr_context *on = context_of(levels[i]);
        if (on) run_model(on, *state);
        ftr_context_destroy(on);
    }
}

/* ---------------------------------------------------------------------------------------------------------- main -- */

/* Models small enough to run on each instruction set, and with all kinds of layers between them. */
static const char *const on_each_level[] = {"mlp", "mnist_cnn", "resnet20", "mobilenet_v2_half",
                                            "mobilenet_v3_small_half"};

static bool is_among(const char *const *names, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0) return true;
    return false;
}

#define MAX_TESTS 256

typedef struct test_list {
    struct CMUnitTest tests[MAX_TESTS];
    char names[MAX_TESTS][96];
    size_t count;
} test_list;

static void add(test_list *list, const char *what, const zoo_model *model, CMUnitTestFunction run, const char *filter) {
    char *name = list->names[list->count];
    snprintf(name, sizeof list->names[0], "%s: %s", model->name, what);
    if (filter && !strstr(name, filter)) return;
    list->tests[list->count++] =
        (struct CMUnitTest){.name = name, .test_func = run, .initial_state = (void *)(uintptr_t)model};
}

/* The tests of a model; its goldens must be open. */
static void add_model(test_list *list, const zoo_model *model, const char *filter) {
    ftr_safetensors_entry entry;
    add(list, "names", model, test_names, filter);
    add(list, "first values", model, test_first_values, filter);
    if (golden_find(model, "digests", &entry)) add(list, "step", model, test_step, filter);
    if (is_among(on_each_level, FTR_TEST_LENGTH(on_each_level), model->name))
        add(list, "step on other instruction sets", model, test_levels, filter);
}

int main(int argc, char **argv) {
    static test_list list;
    setup(NULL);
    for (int32_t i = 0; zoo_at(i); i++)
        if (zoo_is_wanted(zoo_at(i)->name)) add_model(&list, zoo_at(i), argc > 1 ? argv[1] : NULL);
    return _cmocka_run_group_tests("models", list.tests, list.count, NULL, teardown);
}
