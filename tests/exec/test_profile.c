/* What a plan costs: counts of operations and bytes, times of nodes, the table. */
#include "ftr_test.h"

#include <math.h>

enum { N = 2, SIDE = 16, IN = 32, OUT = 32, CLASSES = 7 };

typedef struct bench {
    ftr_test_fixture *f;
    ftr_tensor x, label, loss;
    ftr_plan *plan;
} bench;

/* A 3x3 and a strided convolution, a depthwise one, batch norm, a linear layer: forward, backward, SGD. */
static bench make(ftr_test_fixture *f) {
    bench b = {.f = f};
    const ftr_conv2d_desc same = {.padding = {1, 1, 1, 1}, .no_bias = true};
    const ftr_conv2d_desc strided = {.stride = {2, 2}, .no_bias = true};
    const ftr_conv2d_desc apart = {.padding = {1, 1, 1, 1}, .groups = OUT, .no_bias = true};
    b.x = ftr_input(f->graph, "x", FTR_F32, FTR_SHAPE(N, SIDE, SIDE, IN));
    b.label = ftr_input(f->graph, "label", FTR_I32, FTR_SHAPE(N));
    ftr_tensor h = ftr_relu(ftr_batch_norm(ftr_conv2d(b.x, "conv1", OUT, 3, &same), "bn", NULL));
    h = ftr_conv2d(ftr_conv2d(h, "depthwise", OUT, 3, &apart), "conv2", OUT, 1, &strided);
    b.loss = ftr_cross_entropy(ftr_linear(ftr_global_avg_pool(h), "fc", CLASSES, NULL), b.label, NULL);
    FTR_TEST_GRAPH_OK(f->graph);
    const ftr_optimizer optimizer = ftr_sgd(0.1);
    FTR_TEST_OK(f->context,
                ftr_compile(f->graph, &(ftr_compile_desc){.loss = b.loss, .optimizer = &optimizer}, &b.plan));
    return b;
}

static double step(const bench *b, uint64_t seed) {
    static float x[N * SIDE * SIDE * IN];
    const int32_t label[N] = {1, 5};
    ftr_test_rng rng = {seed};
    ftr_step_info info;
    ftr_test_fill_f32(x, N * SIDE * SIDE * IN, &rng, -1.0, 1.0);
    FTR_TEST_OK(b->f->context, ftr_feed(b->plan, b->x, x, sizeof x));
    FTR_TEST_OK(b->f->context, ftr_feed(b->plan, b->label, label, sizeof label));
    FTR_TEST_OK(b->f->context, ftr_step(b->plan, &info));
    return info.loss;
}

static ftr_plan_node find(const bench *b, const char *op, const char *name) {
    ftr_plan_node node;
    for (int32_t i = 0; i < ftr_plan_node_count(b->plan); i++) {
        FTR_TEST_OK(b->f->context, ftr_plan_node_at(b->plan, i, &node));
        if (strcmp(node.op, op) == 0 && (!name || strcmp(node.name, name) == 0)) return node;
    }
    fail_msg("no node %s '%s'", op, name ? name : "");
    return node;
}

static void operations_and_bytes_follow_from_shapes(void **state) {
    bench b = make(*state);
    const double pixels = N * SIDE * SIDE, small = N * (SIDE / 2) * (SIDE / 2);
    ftr_plan_node node = find(&b, "conv2d", "conv1");
    assert_true(node.operations == 2 * pixels * 9 * IN * OUT);
    assert_true(node.bytes == 4 * (pixels * IN + pixels * OUT + 9 * IN * OUT));
    assert_false(node.backward);
    assert_true(find(&b, "conv2d", "depthwise").operations == 2 * pixels * 9 * OUT);
    assert_true(find(&b, "conv2d", "conv2").operations == 2 * small * OUT * OUT);
    assert_true(find(&b, "conv2d_grad_weight", NULL).operations ==
                2 * small * OUT * OUT); /* the last one comes first */
    assert_true(find(&b, "conv2d_grad_input", NULL).operations == 2 * small * OUT * OUT);
    assert_true(find(&b, "conv2d_grad_input", NULL).backward);
    assert_true(find(&b, "linear", "fc").operations == 2.0 * N * OUT * CLASSES);
    node = find(&b, "batch_norm", "bn");
    assert_true(node.operations == 0 && node.bytes >= 4 * 2 * pixels * OUT);
    assert_string_equal(node.fused, "relu");
    const ftr_machine machine = {.flops = 1e9, .bandwidth = 1e9};
    assert_true(ftr_plan_node_floor(&node, &machine) == node.bytes / 1e9);
    ftr_plan_destroy(b.plan);
}

static void convolutions_say_how_they_are_computed(void **state) {
    bench b = make(*state);
    const char *forced = getenv("FASTTRAIN_WINOGRAD");
    const bool off = forced && strcmp(forced, "off") == 0;
    assert_string_equal(find(&b, "conv2d", "conv1").algorithm, off ? "product" : "winograd 4x4");
    assert_string_equal(find(&b, "conv2d", "depthwise").algorithm, "depthwise");
    assert_string_equal(find(&b, "conv2d", "conv2").algorithm, "product");
    assert_string_equal(find(&b, "linear", "fc").algorithm, "");
    ftr_plan_destroy(b.plan);
}

static void a_profile_measures_and_changes_nothing(void **state) {
    ftr_test_fixture *f = *state;
    bench b = make(f);
    step(&b, 1);
    assert_true(isnan(find(&b, "conv2d", "conv1").seconds));
    FTR_TEST_OK(f->context, ftr_plan_profile(b.plan, true));
    step(&b, 2);
    const double loss = step(&b, 3), once = find(&b, "conv2d", "conv1").seconds;
    assert_true(once > 0.0 && once < 60.0);
    FTR_TEST_OK(f->context, ftr_plan_profile(b.plan, false));
    step(&b, 4);
    assert_true(find(&b, "conv2d", "conv1").seconds == once);
    FTR_TEST_OK(f->context, ftr_plan_profile(b.plan, true)); /* forgets */
    assert_true(isnan(find(&b, "conv2d", "conv1").seconds));
    ftr_plan_destroy(b.plan);

    ftr_graph *again = f->graph;
    f->graph = ftr_graph_create(f->context);
    bench plain = make(f);
    step(&plain, 1);
    step(&plain, 2);
    assert_true(step(&plain, 3) == loss);
    ftr_plan_destroy(plain.plan);
    ftr_graph_destroy(again);
}

static void a_profile_measures_the_machine(void **state) {
    ftr_test_fixture *f = *state;
    ftr_machine machine;
    FTR_TEST_OK(f->context, ftr_measure_machine(f->context, &machine));
    assert_true(machine.flops > 1e6 && machine.flops < 1e16);
    assert_true(machine.bandwidth > 1e6 && machine.bandwidth < 1e14);
}

static int32_t lines(const char *text) {
    int32_t count = 0;
    for (; *text; text++) count += *text == '\n';
    return count;
}

static void the_table_has_a_row_for_each_node(void **state) {
    ftr_test_fixture *f = *state;
    bench b = make(f);
    const ftr_machine machine = {.flops = 100e9, .bandwidth = 10e9};
    ftr_test_text *text = calloc(1, sizeof *text);
    FTR_TEST_OK(f->context, ftr_plan_profile(b.plan, true));
    step(&b, 1);
    FTR_TEST_OK(f->context, ftr_plan_explain(b.plan, &machine, ftr_test_text_write, text));
    assert_non_null(strstr(text->text, "machine: 100.0 GFLOP/s, 10.0 GB/s\n"));
    assert_non_null(strstr(text->text, "  bn + relu\n"));
    assert_non_null(strstr(text->text, "  depthwise (depthwise)\n"));
    assert_non_null(strstr(text->text, "\nsum "));
    assert_int_equal(lines(text->text), ftr_plan_node_count(b.plan) + 3);
    free(text);
    ftr_plan_destroy(b.plan);
}

/* A call failed, with a sentence that begins so. */
static void refused(const ftr_test_fixture *f, ftr_status status, const char *sentence) {
    assert_int_equal(status, FTR_ERROR_INVALID_ARGUMENT);
    assert_memory_equal(ftr_error_message(f->context), sentence, strlen(sentence));
}

static void mistakes_are_refused(void **state) {
    ftr_test_fixture *f = *state;
    bench b = make(f);
    ftr_plan_node node;
    ftr_machine machine = {0};
    ftr_test_text *text = calloc(1, sizeof *text);
    refused(f, ftr_plan_node_at(b.plan, -1, &node), "plan_node_at: index is -1");
    refused(f, ftr_plan_node_at(b.plan, 0, NULL), "plan_node_at: node is NULL");
    refused(f, ftr_measure_machine(f->context, NULL), "measure_machine: machine is NULL");
    refused(f, ftr_plan_explain(b.plan, &machine, NULL, NULL), "plan_explain: write is NULL");
    refused(f, ftr_plan_explain(b.plan, &machine, ftr_test_text_write, text), "plan_explain: machine is 0 operations");
    assert_int_equal(ftr_plan_profile(NULL, true), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_plan_node_count(NULL), 0);
    free(text);
    ftr_plan_destroy(b.plan);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(operations_and_bytes_follow_from_shapes, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test_setup_teardown(convolutions_say_how_they_are_computed, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test_setup_teardown(a_profile_measures_and_changes_nothing, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test_setup_teardown(a_profile_measures_the_machine, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test_setup_teardown(the_table_has_a_row_for_each_node, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test_setup_teardown(mistakes_are_refused, ftr_test_setup, ftr_test_teardown),
    };
    return cmocka_run_group_tests_name("profile", tests, NULL, NULL);
}
