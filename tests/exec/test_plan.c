/* Plans: memory as announced, no allocation while running, errors that change nothing, fusing and in-place results that
 * change no numbers. */
#include "ftr_test.h"

enum { BATCH = 6, CLASSES = 5 };

/* A small residual network: every kind of node that the fuse pass knows. */
typedef struct network {
    ftr_graph *graph;
    ftr_tensor image, label, logits, loss;
} network;

static ftr_tensor block(ftr_tensor x, const char *name, int64_t channels, int32_t stride) {
    const ftr_conv2d_desc conv = {.stride = {stride, stride}, .padding = {1, 1, 1, 1}, .no_bias = true};
    const ftr_conv2d_desc shortcut = {.stride = {stride, stride}, .no_bias = true};
    ftr_scope_push(x.graph, name);
    ftr_tensor h = ftr_relu(ftr_batch_norm(ftr_conv2d(x, "conv1", channels, 3, &conv), "bn1", NULL));
    h = ftr_batch_norm(ftr_conv2d(h, "conv2", channels, 3, &(ftr_conv2d_desc){.padding = {1, 1, 1, 1}}), "bn2", NULL);
    const ftr_tensor skip =
        stride == 1 ? x : ftr_batch_norm(ftr_conv2d(x, "down", channels, 1, &shortcut), "bnd", NULL);
    h = ftr_relu(ftr_add(h, skip));
    ftr_scope_pop(x.graph);
    return h;
}

static network build(ftr_context *context, double dropout) {
    network n = {.graph = ftr_graph_create(context)};
    n.image = ftr_input(n.graph, "image", FTR_F32, FTR_SHAPE(BATCH, 8, 8, 3));
    n.label = ftr_input(n.graph, "label", FTR_I32, FTR_SHAPE(BATCH));
    ftr_tensor h = ftr_relu(ftr_conv2d(n.image, "stem", 8, 3, NULL));
    h = block(h, "block1", 8, 1);
    h = block(h, "block2", 12, 2);
    h = ftr_relu(ftr_linear(ftr_global_avg_pool(h), "fc1", 16, NULL));
    n.logits = ftr_linear(ftr_dropout(h, dropout), "fc2", CLASSES, NULL);
    n.loss = ftr_cross_entropy(n.logits, n.label, NULL);
    FTR_TEST_GRAPH_OK(n.graph);
    return n;
}

static void feed(ftr_context *context, const network *n, ftr_plan *plan, uint64_t seed) {
    float image[BATCH * 8 * 8 * 3];
    int32_t label[BATCH];
    ftr_test_rng rng = {seed};
    ftr_test_fill_f32(image, BATCH * 8 * 8 * 3, &rng, -1.0, 1.0);
    ftr_test_fill_i32(label, BATCH, &rng, 0, CLASSES - 1);
    FTR_TEST_OK(context, ftr_feed(plan, n->image, image, sizeof image));
    FTR_TEST_OK(context, ftr_feed(plan, n->label, label, sizeof label));
}

/* All parameters and buffers, one after the other. */
static unsigned char *snapshot(ftr_graph *graph, size_t *bytes) {
    *bytes = 0;
    for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
        const ftr_shape shape = ftr_shape_of(ftr_variable_at(graph, i));
        *bytes += (size_t)ftr_shape_count(&shape) * sizeof(float);
    }
    unsigned char *all = malloc(*bytes), *at = all;
    for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
        const ftr_shape shape = ftr_shape_of(ftr_variable_at(graph, i));
        const size_t size = (size_t)ftr_shape_count(&shape) * sizeof(float);
        assert_int_equal(ftr_variable_read(ftr_variable_at(graph, i), at, size), FTR_OK);
        at += size;
    }
    return all;
}

static void memory_is_what_the_plan_says(void **state) {
    (void)state;
    for (int train = 0; train < 2; train++) {
        ftr_test_memory memory = {0};
        ftr_context *context = ftr_test_context_with(NULL, 1, 2, &memory);
        network n = build(context, 0.3);
        const size_t before = memory.live;
        const ftr_optimizer adamw = ftr_adamw(1e-3);
        ftr_plan *plan;
        FTR_TEST_OK(context, ftr_compile(n.graph,
                                         &(ftr_compile_desc){.loss = n.loss,
                                                             .mode = train ? FTR_MODE_TRAIN : FTR_MODE_EVAL,
                                                             .optimizer = train ? &adamw : NULL},
                                         &plan));
        const ftr_memory m = ftr_plan_memory(plan);
        assert_int_equal(m.total,
                         m.parameters + m.gradients + m.optimizer_state + m.activations + m.workspace + m.bookkeeping);
        assert_int_equal(memory.live - before, m.total);
        assert_true(m.parameters > 0 && m.activations > 0);
        assert_int_equal(m.gradients > 0, train);
        assert_int_equal(m.optimizer_state > 0, train);
        const int64_t calls = memory.calls;
        const size_t live = memory.live;
        memory.peak = memory.live;
        for (uint64_t step = 0; step < 5; step++) {
            ftr_step_info info;
            float logits[BATCH * CLASSES];
            feed(context, &n, plan, step);
            FTR_TEST_OK(context, ftr_step(plan, &info));
            FTR_TEST_OK(context, ftr_read(plan, n.loss, logits, sizeof(float)));
            assert_true(isfinite(info.loss));
        }
        assert_int_equal(memory.calls, calls);
        assert_int_equal(memory.peak, live);
        ftr_plan_destroy(plan);
        ftr_graph_destroy(n.graph);
        ftr_context_destroy(context);
        assert_int_equal(memory.blocks, 0);
        assert_int_equal(memory.wrong, 0);
    }
}

static void a_bad_label_changes_nothing(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    network good = build(context, 0.3), bad = build(context, 0.3);
    const ftr_optimizer sgd = {.cookie = ftr_sgd(0.1).cookie, .kind = FTR_OPTIMIZER_SGD, .lr = 0.1, .momentum = 0.9};
    ftr_plan *plans[2];
    FTR_TEST_OK(context, ftr_compile(good.graph, &(ftr_compile_desc){.loss = good.loss, .optimizer = &sgd}, &plans[0]));
    FTR_TEST_OK(context, ftr_compile(bad.graph, &(ftr_compile_desc){.loss = bad.loss, .optimizer = &sgd}, &plans[1]));
    for (uint64_t step = 0; step < 3; step++) {
        size_t bytes;
        unsigned char *before = snapshot(bad.graph, &bytes);
        feed(context, &bad, plans[1], step);
        const int32_t labels[BATCH] = {0, 1, 2, 77, -3, 0};
        FTR_TEST_OK(context, ftr_feed(plans[1], bad.label, labels, sizeof labels));
        assert_int_equal(ftr_step(plans[1], NULL), FTR_ERROR_DATA);
        assert_non_null(strstr(ftr_error_message(context), "label 77 at row 3 is outside the 5 classes"));
        unsigned char *after = snapshot(bad.graph, &bytes);
        assert_memory_equal(before, after, bytes);
        free(before);
        free(after);
        feed(context, &bad, plans[1], step);
        feed(context, &good, plans[0], step);
        FTR_TEST_OK(context, ftr_step(plans[1], NULL));
        FTR_TEST_OK(context, ftr_step(plans[0], NULL));
    }
    size_t bytes;
    unsigned char *a = snapshot(good.graph, &bytes), *b = snapshot(bad.graph, &bytes);
    assert_memory_equal(a, b, bytes);
    free(a);
    free(b);
    for (int i = 0; i < 2; i++) ftr_plan_destroy(plans[i]);
    ftr_graph_destroy(good.graph);
    ftr_graph_destroy(bad.graph);
    ftr_context_destroy(context);
}

/* Steps a network and gives back its weights; outputs keep values alive, which changes what may be reused and fused. */
static float *train(const ftr_tensor *extra, int32_t extra_count, network *n, ftr_context *context, uint32_t no_fuse,
                    size_t *bytes) {
    const ftr_optimizer sgd = ftr_sgd(0.05);
    ftr_plan *plan;
    FTR_TEST_OK(
        context,
        ftr_compile(
            n->graph,
            &(ftr_compile_desc){
                .loss = n->loss, .optimizer = &sgd, .outputs = extra, .output_count = extra_count, .no_fuse = no_fuse},
            &plan));
    for (uint64_t step = 0; step < 4; step++) {
        feed(context, n, plan, step);
        FTR_TEST_OK(context, ftr_step(plan, NULL));
    }
    ftr_plan_destroy(plan);
    return (float *)snapshot(n->graph, bytes);
}

static void fusing_and_reuse_change_no_numbers(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    float *weights[3];
    size_t bytes = 0;
    for (int variant = 0; variant < 3; variant++) {
        network n = build(context, 0.3);
        ftr_tensor all[256];
        int32_t count = 0;
        /* Variant 1 keeps every value of the graph: nothing is reused, nothing can be fused away. */
        for (int32_t id = 1; variant == 1 && id < n.loss.id; id++) {
            const ftr_tensor value = {n.graph, id};
            if (ftr_dtype_of(value) == FTR_F32) all[count++] = value;
        }
        weights[variant] = train(all, count, &n, context, variant == 2 ? FTR_FUSE_ALL : 0, &bytes);
        ftr_graph_destroy(n.graph);
    }
    for (size_t i = 0; i < bytes / sizeof(float); i++) {
        assert_true(fabsf(weights[0][i] - weights[1][i]) <= 1e-4f * (1.0f + fabsf(weights[1][i])));
        assert_true(fabsf(weights[2][i] - weights[1][i]) <= 1e-4f * (1.0f + fabsf(weights[1][i])));
    }
    for (int variant = 0; variant < 3; variant++) free(weights[variant]);
    ftr_context_destroy(context);
}

static void the_printed_plan_shows_what_was_fused(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    network n = build(context, 0.0);
    const ftr_optimizer sgd = ftr_sgd(0.05);
    ftr_plan *plan;
    ftr_test_text *text = calloc(1, sizeof *text);
    FTR_TEST_OK(context, ftr_compile(n.graph, &(ftr_compile_desc){.loss = n.loss, .optimizer = &sgd}, &plan));
    FTR_TEST_OK(context, ftr_plan_print(plan, FTR_GRAPH_TEXT, ftr_test_text_write, text));
    assert_non_null(strstr(text->text, "[fused: add, relu]"));
    assert_non_null(strstr(text->text, "[fused: relu]"));
    assert_non_null(strstr(text->text, "[fused: relu_grad]"));
    assert_null(strstr(text->text, " = relu "));
    assert_non_null(strstr(text->text, "memory: parameters "));
    text->length = 0;
    FTR_TEST_OK(context, ftr_plan_print(plan, FTR_GRAPH_DOT, ftr_test_text_write, text));
    assert_non_null(strstr(text->text, "activations +"));
    ftr_plan_destroy(plan);
    free(text);
    ftr_graph_destroy(n.graph);
    ftr_context_destroy(context);
}

static void note_pass(void *user, const char *pass, const ftr_graph *graph) {
    ftr_test_text *text = user;
    ftr_test_text_write(text, pass, strlen(pass));
    ftr_test_text_write(text, " ", 1);
    assert_int_equal(ftr_graph_status(graph), FTR_OK);
}

static void passes_are_reported_in_order(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    network n = build(context, 0.0);
    ftr_test_text *text = calloc(1, sizeof *text);
    ftr_plan *plan;
    FTR_TEST_OK(
        context,
        ftr_compile(n.graph, &(ftr_compile_desc){.loss = n.loss, .on_pass = note_pass, .on_pass_user = text}, &plan));
    assert_string_equal(text->text, "lower autodiff amp fuse recompute schedule memplan ");
    ftr_plan_destroy(plan);
    free(text);
    ftr_graph_destroy(n.graph);
    ftr_context_destroy(context);
}

/* d(a + b) is one value for both parameters; each has its own gradient all the same. */
static void shared_gradients_are_apart(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    const ftr_init zeros = {FTR_INIT_ZEROS, 0, 0};
    const ftr_tensor a = ftr_parameter(graph, "a", FTR_F32, FTR_SHAPE(3), zeros);
    const ftr_tensor b = ftr_parameter(graph, "b", FTR_F32, FTR_SHAPE(3), zeros);
    const ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(3));
    const ftr_tensor loss = ftr_mse(ftr_add(a, b), x, FTR_REDUCE_SUM);
    const ftr_optimizer sgd = ftr_sgd(0.25);
    ftr_plan *plan;
    FTR_TEST_OK(context, ftr_compile(graph,
                                     &(ftr_compile_desc){
                                         .loss = loss, .optimizer = &sgd, .gradients_of = &x, .gradient_count = 1},
                                     &plan));
    const float data[3] = {1, 2, 3};
    float value[3];
    FTR_TEST_OK(context, ftr_feed(plan, x, data, sizeof data));
    FTR_TEST_OK(context, ftr_step(plan, NULL));
    const ftr_tensor read[3] = {a, b, x};
    for (int t = 0; t < 3; t++) {
        FTR_TEST_OK(context, ftr_read_gradient(plan, read[t], value, sizeof value));
        for (int i = 0; i < 3; i++) assert_true(value[i] == (t == 2 ? 2.0f : -2.0f) * data[i]);
    }
    for (int t = 0; t < 2; t++) {
        FTR_TEST_OK(context, ftr_variable_read(read[t], value, sizeof value));
        for (int i = 0; i < 3; i++) assert_true(value[i] == 0.5f * data[i]);
    }
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

static void plans_share_the_parameters(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    network n = build(context, 0.5);
    const ftr_optimizer sgd = ftr_sgd(0.1);
    ftr_plan *training, *evaluation;
    const ftr_compile_desc eval = {.loss = n.loss, .mode = FTR_MODE_EVAL, .outputs = &n.logits, .output_count = 1};
    FTR_TEST_OK(context, ftr_compile(n.graph, &(ftr_compile_desc){.loss = n.loss, .optimizer = &sgd}, &training));
    FTR_TEST_OK(context, ftr_compile(n.graph, &eval, &evaluation));
    ftr_step_info first, again, later;
    feed(context, &n, evaluation, 7);
    FTR_TEST_OK(context, ftr_step(evaluation, &first));
    FTR_TEST_OK(context, ftr_step(evaluation, &again)); /* no dropout, no change of statistics */
    assert_true(first.loss == again.loss);
    for (int i = 0; i < 30; i++) {
        feed(context, &n, training, 7);
        FTR_TEST_OK(context, ftr_step(training, NULL));
    }
    FTR_TEST_OK(context, ftr_step(evaluation, &later));
    assert_true(later.loss < first.loss);
    assert_int_equal(ftr_plan_steps(training), 30);
    ftr_plan_destroy(training);
    ftr_plan_destroy(evaluation);
    ftr_graph_destroy(n.graph);
    ftr_context_destroy(context);
}

/* Running statistics leave no row out, so an evaluation plan of the logits alone needs no mask. */
static void evaluation_needs_no_batch_mask(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    ftr_batch_mask(graph, 4);
    const ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(4, 3));
    const ftr_tensor y = ftr_batch_norm(x, "bn", NULL);
    const float data[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    for (int mode = FTR_MODE_TRAIN; mode <= FTR_MODE_EVAL; mode++) {
        ftr_plan *plan;
        const ftr_compile_desc desc = {.mode = (ftr_mode)mode, .outputs = &y, .output_count = 1};
        FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
        FTR_TEST_OK(context, ftr_feed(plan, x, data, sizeof data));
        assert_int_equal(ftr_step(plan, NULL), mode == FTR_MODE_EVAL ? FTR_OK : FTR_ERROR_NOT_FED);
        ftr_plan_destroy(plan);
    }
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

/* A chain of thousands of nodes: no recursion, and one buffer is enough for all of it. */
static void deep_graphs_need_no_stack_and_little_memory(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    const ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(1000));
    ftr_tensor y = x;
    for (int i = 0; i < 5000; i++) y = ftr_neg(y);
    FTR_TEST_GRAPH_OK(graph);
    ftr_plan *plan;
    FTR_TEST_OK(context, ftr_compile(graph, &(ftr_compile_desc){.outputs = &y, .output_count = 1}, &plan));
    assert_true(ftr_plan_memory(plan).activations <= 2 * 4032);
    float data[1000], result[1000];
    for (int i = 0; i < 1000; i++) data[i] = (float)i;
    FTR_TEST_OK(context, ftr_feed(plan, x, data, sizeof data));
    FTR_TEST_OK(context, ftr_step(plan, NULL));
    FTR_TEST_OK(context, ftr_read(plan, y, result, sizeof result));
    assert_memory_equal(data, result, sizeof data);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

/* Forward and gradient of attention need a small part of what the scores of all queries and keys would. */
static void attention_memory_has_no_scores(void **state) {
    (void)state;
    enum { LENGTH = 8192 };
    ftr_context *context = ftr_test_context_with(NULL, 1, 2, NULL);
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor in[3];
    const char *const names[] = {"q", "k", "v"};
    for (int i = 0; i < 3; i++) in[i] = ftr_input(graph, names[i], FTR_F32, FTR_SHAPE(1, LENGTH, 2, 8));
    ftr_attention_desc desc = ftr_attention_defaults();
    desc.causal = true;
    desc.dropout = 0.1;
    desc.mask = ftr_input(graph, "mask", FTR_F32, FTR_SHAPE(LENGTH));
    const ftr_tensor y = ftr_attention(in[0], in[1], in[2], &desc);
    const ftr_tensor loss = ftr_sum(ftr_mul(y, y), ftr_all_axes(), false);
    const ftr_tensor wanted[] = {in[0], in[1], in[2], desc.mask};
    ftr_plan *plan;
    FTR_TEST_OK(
        context,
        ftr_compile(graph, &(ftr_compile_desc){.loss = loss, .gradients_of = wanted, .gradient_count = 4}, &plan));
    const ftr_memory m = ftr_plan_memory(plan);
    assert_in_range(m.activations + m.workspace, 1, sizeof(float) * LENGTH * LENGTH / 16);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

/* Kernels keep what they made of weights from one evaluation to the next, but not when the weights have changed: by hand,
 * or by a training plan. */
static void evaluations_see_new_weights(void **state) {
    (void)state;
    enum { SIDE = 16, IN = 16, OUT = 32 };
    static float x[2 * SIDE * SIDE * IN], weight[OUT * 9 * IN];
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    ftr_test_rng rng = {7};
    ftr_test_fill_f32(x, 2 * SIDE * SIDE * IN, &rng, -1.0, 1.0);
    const ftr_tensor in = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(2, SIDE, SIDE, IN));
    const ftr_conv2d_desc same = {.padding = {1, 1, 1, 1}};
    const ftr_tensor h = ftr_batch_norm(ftr_conv2d(in, "conv1", OUT, 3, &same), "bn", NULL);
    const ftr_tensor pixels = ftr_reshape(ftr_conv2d(h, "conv2", OUT, 1, NULL), FTR_SHAPE(2 * SIDE * SIDE, OUT));
    const ftr_tensor few = ftr_conv2d(ftr_mean(h, FTR_AXES(1, 2), true), "conv3", OUT, 1, NULL);
    const ftr_tensor loss = ftr_add(ftr_mean(ftr_linear(pixels, "fc", OUT, NULL), ftr_all_axes(), false),
                                    ftr_mean(few, ftr_all_axes(), false));
    FTR_TEST_GRAPH_OK(graph);
    const ftr_optimizer optimizer = ftr_sgd(0.5);
    ftr_plan *train, *eval, *fresh;
    FTR_TEST_OK(context, ftr_compile(graph, &(ftr_compile_desc){.loss = loss, .optimizer = &optimizer}, &train));
    FTR_TEST_OK(context, ftr_compile(graph, &(ftr_compile_desc){.mode = FTR_MODE_EVAL, .loss = loss}, &eval));
    FTR_TEST_OK(context, ftr_feed(train, in, x, sizeof x));
    FTR_TEST_OK(context, ftr_feed(eval, in, x, sizeof x));
    double before = -1;
    static const char *const written[] = {"", "", "conv1.weight", "conv2.weight", "conv3.weight", "fc.weight"};
    for (int32_t change = 0; change < 6; change++) {
        ftr_step_info info, again, expected;
        if (change == 1) {
            FTR_TEST_OK(context, ftr_step(train, NULL));
        } else if (change > 1) {
            ftr_test_fill_f32(weight, OUT * 9 * IN, &rng, -0.2, 0.2);
            FTR_TEST_OK(context, ftr_variable_write(ftr_variable_find(graph, written[change]), weight,
                                                    (change == 2 ? 9 * IN : OUT) * OUT * sizeof *weight));
        }
        FTR_TEST_OK(context, ftr_step(eval, &info));
        FTR_TEST_OK(context, ftr_step(eval, &again));
        FTR_TEST_OK(context, ftr_compile(graph, &(ftr_compile_desc){.mode = FTR_MODE_EVAL, .loss = loss}, &fresh));
        FTR_TEST_OK(context, ftr_feed(fresh, in, x, sizeof x));
        FTR_TEST_OK(context, ftr_step(fresh, &expected));
        ftr_plan_destroy(fresh);
        assert_true(info.loss == expected.loss && again.loss == expected.loss);
        assert_true(info.loss != before);
        before = info.loss;
    }
    ftr_plan_destroy(eval);
    ftr_plan_destroy(train);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_what_the_plan_says),
        cmocka_unit_test(a_bad_label_changes_nothing),
        cmocka_unit_test(fusing_and_reuse_change_no_numbers),
        cmocka_unit_test(the_printed_plan_shows_what_was_fused),
        cmocka_unit_test(passes_are_reported_in_order),
        cmocka_unit_test(shared_gradients_are_apart),
        cmocka_unit_test(plans_share_the_parameters),
        cmocka_unit_test(evaluation_needs_no_batch_mask),
        cmocka_unit_test(deep_graphs_need_no_stack_and_little_memory),
        cmocka_unit_test(attention_memory_has_no_scores),
        cmocka_unit_test(evaluations_see_new_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
