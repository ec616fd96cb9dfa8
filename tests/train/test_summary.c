/* ftr_model_summary(): the text of a small network, shared parameters, long names, refusals. */
#include "ftr_test.h"

static char *summary_of(ftr_context *context, const ftr_graph *graph, ftr_test_text *text) {
    text->length = 0;
    text->text[0] = 0;
    FTR_TEST_OK(context, ftr_model_summary(graph, ftr_test_text_write, text));
    return text->text;
}

static ftr_test_text text;

static void test_small_network(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "image", FTR_F32, FTR_SHAPE(2, 8, 8, 4));
    ftr_tensor label = ftr_input(graph, "label", FTR_I32, FTR_SHAPE(2));
    ftr_conv2d_desc desc = {.padding = {1, 1, 1, 1}, .groups = 2};
    ftr_scope_push(graph, "stem");
    ftr_tensor h = ftr_relu(ftr_batch_norm(ftr_conv2d(x, "conv", 6, 3, &desc), "bn", NULL));
    ftr_scope_pop(graph);
    h = ftr_flatten(ftr_max_pool2d(h, 2, 2, NULL), 1);
    ftr_cross_entropy(ftr_linear(h, "fc", 10, NULL), label, NULL);
    FTR_TEST_GRAPH_OK(graph);
    /* conv: 2 * 8 * 8 * 6 outputs of 3 * 3 * 2 products; weights 6 * 3 * 3 * 2 and 6 biases. fc: 20 outputs of 96. */
    assert_string_equal(
        summary_of(context, graph, &text),
        "layer          op          output shape  parameters  multiply-adds  output bytes\n"
        "image          input       [2, 8, 8, 4]                                    2,048\n"
        "label          input       [2]                                                 8\n"
        "stem.conv      conv2d      [2, 8, 8, 6]         114         13,824         3,072\n"
        "stem.bn        batch_norm  [2, 8, 8, 6]          12              0         3,072\n"
        "max_pool2d_11  max_pool2d  [2, 4, 4, 6]           0              0           768\n"
        "fc             linear      [2, 10]              970          1,920            80\n"
        "others         3 ops                              0              0         3,844\n"
        "parameters: 1,096 trained, 12 in buffers, 4,432 bytes together\n"
        "one forward pass of the whole batch: 15,744 multiply-adds (matrix products and convolutions), 12,892 bytes of "
        "outputs\n");
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

static void test_perceptron(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(32, 784));
    ftr_tensor h = ftr_relu(ftr_linear(x, "hidden", 512, NULL));
    ftr_linear_desc desc = {.no_bias = true};
    ftr_linear(h, "output", 10, &desc);
    FTR_TEST_GRAPH_OK(graph);
    assert_string_equal(summary_of(context, graph, &text),
                        "layer   op      output shape  parameters  multiply-adds  output bytes\n"
                        "x       input   [32, 784]                                     100,352\n"
                        "hidden  linear  [32, 512]        401,920     12,845,056        65,536\n"
                        "output  linear  [32, 10]           5,120        163,840         1,280\n"
                        "others  1 op                           0              0        65,536\n"
                        "parameters: 407,040 trained, 0 in buffers, 1,628,160 bytes together\n"
                        "one forward pass of the whole batch: 13,008,896 multiply-adds (matrix products and "
                        "convolutions), 232,704 bytes of "
                        "outputs\n");
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

/* Frozen parameters are counted apart, as soon as there are any. */
static void test_frozen(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(32, 784));
    ftr_linear(ftr_batch_norm(ftr_linear(x, "hidden", 512, NULL), "bn", NULL), "output", 10, NULL);
    FTR_TEST_GRAPH_OK(graph);
    const char *const lines[] = {
        "parameters: 408,074 trained, 1,024 in buffers, ",
        "parameters: 6,154 trained, 401,920 frozen, 1,024 in buffers, ",
        "parameters: 0 trained, 408,074 frozen, 1,024 in buffers, ",
    };
    for (int i = 0; i < 3; i++) {
        if (i > 0) FTR_TEST_OK(context, ftr_freeze(graph, i == 1 ? "hidden.*" : "*", NULL));
        assert_non_null(strstr(summary_of(context, graph, &text), lines[i]));
    }
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

static void test_shared_parameter(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(2, 5));
    ftr_init init = {FTR_INIT_ZEROS, 0, 0};
    ftr_tensor w = ftr_parameter(graph, "w", FTR_F32, FTR_SHAPE(5, 5), init);
    ftr_matmul(ftr_matmul(x, w, false, false), w, false, true);
    FTR_TEST_GRAPH_OK(graph);
    const char *found = summary_of(context, graph, &text);
    assert_non_null(strstr(found, "matmul  [2, 5]                25             50            40\n"));
    assert_non_null(strstr(found, "matmul  [2, 5]                 0             50            40\n"));
    assert_non_null(strstr(found, "parameters: 25 trained, 0 in buffers, "));
    assert_null(strstr(found, "others"));
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

/* Columns stay aligned however long a name is. */
static void test_long_names(void **state) {
    (void)state;
    char name[181];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(1, 3));
    ftr_linear(ftr_linear(x, name, 4, NULL), "short", 2, NULL);
    FTR_TEST_GRAPH_OK(graph);
    const char *line = summary_of(context, graph, &text);
    size_t width = strcspn(line, "\n");
    assert_true(width > sizeof name);
    for (int i = 0; i < 4; i++, line += strcspn(line, "\n") + 1) assert_int_equal(strcspn(line, "\n"), width);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

static void test_empty_and_refused(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    assert_string_equal(
        summary_of(context, graph, &text),
        "layer  op  output shape  parameters  multiply-adds  output bytes\n"
        "parameters: 0 trained, 0 in buffers, 0 bytes together\n"
        "one forward pass of the whole batch: 0 multiply-adds (matrix products and convolutions), 0 bytes of "
        "outputs\n");
    assert_int_equal(ftr_model_summary(NULL, ftr_test_text_write, &text), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_model_summary(graph, NULL, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context), "ftr_model_summary: write is NULL");
    ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(1, 3));
    ftr_linear(x, "layer", -4, NULL);
    assert_int_not_equal(ftr_graph_status(graph), FTR_OK);
    assert_int_equal(ftr_model_summary(graph, ftr_test_text_write, &text), ftr_graph_status(graph));
    assert_string_equal(ftr_error_message(context), ftr_graph_error(graph));
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

/* Each of 60 elements goes to 2 * 2 * 7 outputs; each of 55 outputs of the other is a sum of 2 * 3. */
static void test_convolutions(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    ftr_conv_transpose2d_desc up = {.stride = {2, 2}, .no_bias = true};
    ftr_conv1d_desc line = {.no_bias = true};
    ftr_conv_transpose2d(ftr_input(graph, "a", FTR_F32, FTR_SHAPE(1, 3, 5, 4)), "up", 7, 2, &up);
    ftr_conv1d(ftr_input(graph, "b", FTR_F32, FTR_SHAPE(1, 12, 3)), "line", 5, 2, &line);
    FTR_TEST_GRAPH_OK(graph);
    assert_non_null(strstr(summary_of(context, graph, &text), " 2,010 multiply-adds "));
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_network),     cmocka_unit_test(test_perceptron),
        cmocka_unit_test(test_shared_parameter),  cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_empty_and_refused), cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_convolutions),
    };
    return cmocka_run_group_tests_name("summary", tests, NULL, NULL);
}
