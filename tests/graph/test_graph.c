/* Building: handles, names, sticky errors, first values, printing. */
#include "ftr_test.h"

static void null_handles_are_harmless(void **state) {
    (void)state;
    const ftr_tensor none = {NULL, 0};
    assert_false(ftr_is_valid(none));
    assert_false(ftr_is_valid(ftr_add(none, none)));
    assert_false(ftr_is_valid(ftr_relu(none)));
    assert_false(ftr_is_valid(ftr_conv2d(none, "c", 4, 3, NULL)));
    assert_false(ftr_is_valid(ftr_linear(none, "l", 4, NULL)));
    assert_false(ftr_is_valid(ftr_batch_norm(none, "b", NULL)));
    assert_false(ftr_is_valid(ftr_concat(&none, 1, 0)));
    assert_false(ftr_is_valid(ftr_cross_entropy(none, none, NULL)));
    assert_false(ftr_is_valid(ftr_accuracy(none, none)));
    assert_false(ftr_is_valid(ftr_mse(none, none, FTR_REDUCE_MEAN)));
    assert_false(ftr_is_valid(ftr_input(NULL, "x", FTR_F32, FTR_SHAPE(1))));
    assert_int_equal(ftr_dtype_of(none), FTR_DTYPE_NONE);
    assert_int_equal(ftr_shape_of(none).rank, 0);
    assert_string_equal(ftr_name_of(none), "");
    assert_null(ftr_graph_create(NULL));
    ftr_graph_destroy(NULL);
    ftr_plan_destroy(NULL);
    ftr_context_destroy(NULL);
    ftr_scope_push(NULL, "a");
    ftr_scope_pop(NULL);
}

static void the_first_error_sticks(void **state) {
    ftr_test_fixture *f = *state;
    const ftr_tensor a = ftr_input(f->graph, "a", FTR_F32, FTR_SHAPE(2, 3));
    const ftr_tensor b = ftr_input(f->graph, "b", FTR_F32, FTR_SHAPE(4));
    const ftr_tensor sum = ftr_add(a, b);
    assert_false(ftr_is_valid(sum));
    assert_false(ftr_is_valid(ftr_relu(sum)));
    assert_false(ftr_is_valid(ftr_relu(a)));
    assert_int_equal(ftr_graph_status(f->graph), FTR_ERROR_SHAPE);
    const char *sentence = "add 'add_2': shapes [2, 3] and [4] do not broadcast";
    assert_string_equal(ftr_graph_error(f->graph), sentence);
    ftr_plan *plan = (ftr_plan *)1;
    assert_int_equal(ftr_compile(f->graph, &(ftr_compile_desc){.outputs = &a, .output_count = 1}, &plan),
                     FTR_ERROR_SHAPE);
    assert_null(plan);
    assert_string_equal(ftr_error_message(f->context), sentence);
}

static void scopes_prefix_names(void **state) {
    ftr_test_fixture *f = *state;
    const ftr_tensor x = ftr_input(f->graph, "x", FTR_F32, FTR_SHAPE(2, 3));
    ftr_scope_push(f->graph, "layer1");
    ftr_scope_push(f->graph, "0");
    const ftr_tensor y = ftr_linear(x, "fc", 4, NULL);
    ftr_scope_pop(f->graph);
    const ftr_tensor z = ftr_relu(y);
    ftr_scope_pop(f->graph);
    FTR_TEST_GRAPH_OK(f->graph);
    assert_string_equal(ftr_name_of(y), "layer1.0.fc");
    assert_string_equal(ftr_name_of(z), "layer1.relu_4");
    assert_int_equal(ftr_variable_count(f->graph), 2);
    assert_string_equal(ftr_name_of(ftr_variable_at(f->graph, 0)), "layer1.0.fc.weight");
    const ftr_tensor bias = ftr_variable_find(f->graph, "layer1.0.fc.bias");
    assert_true(ftr_is_parameter(bias));
    assert_int_equal(ftr_shape_of(bias).dim[0], 4);
    assert_false(ftr_is_valid(ftr_variable_find(f->graph, "layer1.fc.bias")));
    assert_false(ftr_is_valid(ftr_variable_at(f->graph, 2)));
    assert_false(ftr_is_parameter(x));
}

static void read_parameter(ftr_graph *graph, const char *name, float *data, size_t count) {
    const ftr_tensor t = ftr_variable_find(graph, name);
    assert_int_equal(ftr_variable_read(t, data, count * sizeof *data), FTR_OK);
}

/* Declares the same parameters in two orders. */
static void declare(ftr_graph *graph, bool swapped) {
    const ftr_init normal = {FTR_INIT_NORMAL, 1.0, 0.5}, uniform = {FTR_INIT_UNIFORM, -2.0, 3.0};
    if (swapped) ftr_parameter(graph, "b", FTR_F32, FTR_SHAPE(50, 40), uniform);
    ftr_parameter(graph, "a", FTR_F32, FTR_SHAPE(100, 30), normal);
    if (!swapped) ftr_parameter(graph, "b", FTR_F32, FTR_SHAPE(50, 40), uniform);
}

static void first_values_depend_on_seed_and_name_alone(void **state) {
    ftr_test_fixture *f = *state;
    float *first = malloc(3000 * sizeof(float)), *second = malloc(3000 * sizeof(float));
    declare(f->graph, false);
    ftr_graph *other = ftr_graph_create(f->context);
    declare(other, true);
    read_parameter(f->graph, "a", first, 3000);
    read_parameter(other, "a", second, 3000);
    assert_memory_equal(first, second, 3000 * sizeof(float));
    ftr_graph_destroy(other);
    ftr_context *reseeded = ftr_test_context_with(NULL, 2, 1, NULL);
    other = ftr_graph_create(reseeded);
    declare(other, true);
    read_parameter(other, "a", second, 3000);
    assert_memory_not_equal(first, second, 3000 * sizeof(float));
    ftr_graph_destroy(other);
    ftr_context_destroy(reseeded);
    free(first);
    free(second);
}

static void moments(const float *data, size_t count, double *mean, double *deviation) {
    double sum = 0.0, squares = 0.0;
    for (size_t i = 0; i < count; i++) sum += (double)data[i];
    *mean = sum / (double)count;
    for (size_t i = 0; i < count; i++) squares += ((double)data[i] - *mean) * ((double)data[i] - *mean);
    *deviation = sqrt(squares / (double)count);
}

static void initializers_have_their_moments(void **state) {
    ftr_test_fixture *f = *state;
    const struct {
        ftr_init init;
        double mean, deviation;
    } cases[] = {
        {{FTR_INIT_ZEROS, 0, 0}, 0.0, 0.0},
        {{FTR_INIT_CONSTANT, 2.5, 0}, 2.5, 0.0},
        {{FTR_INIT_UNIFORM, -2.0, 4.0}, 1.0, 6.0 / sqrt(12.0)},
        {{FTR_INIT_NORMAL, -1.0, 0.25}, -1.0, 0.25},
        /* weight [64, 3, 3, 32]: fan in 288, fan out 576 */
        {{FTR_INIT_KAIMING_UNIFORM, sqrt(5.0), 0}, 0.0, sqrt(1.0 / 288.0) / sqrt(3.0)},
        {{FTR_INIT_KAIMING_NORMAL_FAN_OUT, 0, 0}, 0.0, sqrt(2.0 / 576.0)},
        {{FTR_INIT_KAIMING_NORMAL, 0, 0}, 0.0, sqrt(2.0 / 288.0)},
        {{FTR_INIT_XAVIER_UNIFORM, 0, 0}, 0.0, sqrt(2.0 / 864.0)},
        {{FTR_INIT_TRUNCATED_NORMAL, 0, 0.02}, 0.0, 0.02},
        {{FTR_INIT_TRUNCATED_NORMAL, 0, 2}, 0.0, 2 * 0.5396}, /* cut at one deviation */
        {{FTR_INIT_DEFAULT, 0, 0}, 0.0, 0.0},
    };
    enum { COUNT = 64 * 9 * 32 };
    float *data = malloc(COUNT * sizeof *data);
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        char name[8];
        snprintf(name, sizeof name, "p%zu", i);
        ftr_parameter(f->graph, name, FTR_F32, FTR_SHAPE(64, 3, 3, 32), cases[i].init);
    }
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        char name[8];
        snprintf(name, sizeof name, "p%zu", i);
        read_parameter(f->graph, name, data, COUNT);
        double mean, deviation;
        moments(data, COUNT, &mean, &deviation);
        assert_true(fabs(mean - cases[i].mean) <= 4.0 * cases[i].deviation / sqrt((double)COUNT) + 1e-7);
        assert_true(fabs(deviation - cases[i].deviation) <= 0.02 * cases[i].deviation + 1e-7);
    }
    free(data);
}

static void graph_prints_as_text(void **state) {
    ftr_test_fixture *f = *state;
    const ftr_tensor x = ftr_input(f->graph, "x", FTR_F32, FTR_SHAPE(2, 8, 8, 3));
    const ftr_tensor h = ftr_relu(ftr_conv2d(x, "conv", 4, 3, &(ftr_conv2d_desc){.padding = {1, 1, 1, 1}}));
    ftr_mean(h, FTR_AXES(1, 2), false);
    FTR_TEST_GRAPH_OK(f->graph);
    ftr_test_text *text = calloc(1, sizeof *text);
    FTR_TEST_OK(f->context, ftr_graph_print(f->graph, FTR_GRAPH_TEXT, ftr_test_text_write, text));
    assert_string_equal(text->text,
                        "%1 = input 'x' -> f32 [2, 8, 8, 3]\n"
                        "%2 = parameter 'conv.weight' -> f32 [4, 3, 3, 3]\n"
                        "%3 = parameter 'conv.bias' -> f32 [4]\n"
                        "%4 = conv2d 'conv' (%1, %2, %3) kernel 3x3 stride 1x1 padding 1,1,1,1 dilation 1x1 groups 1"
                        " -> f32 [2, 8, 8, 4]\n"
                        "%5 = relu 'relu_4' (%4) -> f32 [2, 8, 8, 4]\n"
                        "%6 = mean 'mean_5' (%5) axes 1 2 -> f32 [2, 4]\n");
    free(text);
}

static void graph_prints_as_dot(void **state) {
    ftr_test_fixture *f = *state;
    ftr_relu(ftr_input(f->graph, "x", FTR_F32, FTR_SHAPE(2)));
    ftr_test_text *text = calloc(1, sizeof *text);
    FTR_TEST_OK(f->context, ftr_graph_print(f->graph, FTR_GRAPH_DOT, ftr_test_text_write, text));
    assert_string_equal(text->text, "digraph fasttrain {\n"
                                    "  node [shape=box, fontname=\"sans-serif\", fontsize=10];\n"
                                    "  n0 [label=\"input\\nx\\n[2]\"];\n"
                                    "  n1 [label=\"relu\\nrelu_1\\n[2]\"];\n"
                                    "  n0 -> n1;\n"
                                    "}\n");
    free(text);
}

static void shapes_count_without_overflow(void **state) {
    (void)state;
    const ftr_shape scalar = ftr_scalar_shape(), plain = FTR_SHAPE(2, 3, 4), empty = FTR_SHAPE(5, 0, 7);
    const ftr_shape negative = FTR_SHAPE(2, -1), huge = FTR_SHAPE(INT64_MAX, 2), deep = {7, {1, 1, 1, 1, 1, 1}};
    const ftr_shape empty_huge = FTR_SHAPE(0, INT64_MAX, INT64_MAX);
    assert_int_equal(ftr_shape_count(&scalar), 1);
    assert_int_equal(ftr_shape_count(&plain), 24);
    assert_int_equal(ftr_shape_count(&empty), 0);
    assert_int_equal(ftr_shape_count(&negative), -1);
    assert_int_equal(ftr_shape_count(&huge), -1);
    assert_int_equal(ftr_shape_count(&deep), -1);
    assert_int_equal(ftr_shape_count(&empty_huge), -1);
}

int main(void) {
#define GRAPH_TEST(name) cmocka_unit_test_setup_teardown(name, ftr_test_setup, ftr_test_teardown)
    const struct CMUnitTest tests[] = {
        GRAPH_TEST(null_handles_are_harmless),
        GRAPH_TEST(the_first_error_sticks),
        GRAPH_TEST(scopes_prefix_names),
        GRAPH_TEST(first_values_depend_on_seed_and_name_alone),
        GRAPH_TEST(initializers_have_their_moments),
        GRAPH_TEST(graph_prints_as_text),
        GRAPH_TEST(graph_prints_as_dot),
        GRAPH_TEST(shapes_count_without_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
