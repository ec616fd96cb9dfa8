/* The learning-rate range test: its points, its suggestion, and that nothing of it is left. */
#include "ftr_test.h"

enum { SAMPLES = 48, BATCH = 8, FEATURES = 4, MOST = 4096 };

typedef struct problem {
    ftr_context *context;
    ftr_graph *graph;
    ftr_source *source;
    ftr_tensor x, y, loss;
} problem;

static float inputs[SAMPLES][FEATURES], targets[SAMPLES];

/* A linear regression; if it is to be noisy with mixing, batch norm and dropout. */
static problem make(ftr_test_memory *memory, bool noisy, int64_t batch) {
    ftr_test_rng rng = {4};
    ftr_test_fill_f32(&inputs[0][0], SAMPLES * FEATURES, &rng, -1, 1);
    for (int i = 0; i < SAMPLES; i++) targets[i] = inputs[i][0] - 2 * inputs[i][1] + 0.5f;
    problem p = {.context = ftr_test_context_with(NULL, 5, 2, memory)};
    p.graph = ftr_graph_create(p.context);
    if (!p.graph) return p;
    p.x = ftr_input(p.graph, "x", FTR_F32, FTR_SHAPE(batch, FEATURES));
    p.y = ftr_input(p.graph, "y", FTR_F32, FTR_SHAPE(batch, 1));
    ftr_tensor h = p.x, y = p.y;
    if (noisy) {
        ftr_mix_desc desc = ftr_mix_defaults();
        desc.mixup = 1, desc.cutmix = 0;
        ftr_mix mix = ftr_mix_draw(p.x, NULL, &desc);
        h = ftr_mix_images(h, mix), y = ftr_mix_targets(y, mix);
        h = ftr_dropout(ftr_relu(ftr_batch_norm(ftr_linear(h, "fc1", 16, NULL), "bn", NULL)), 0.2);
    }
    p.loss = ftr_mse(ftr_linear(h, "fc2", 1, NULL), y, FTR_REDUCE_MEAN);
    const ftr_field fields[] = {{"x", FTR_F32, FTR_SHAPE(FEATURES)}, {"y", FTR_F32, FTR_SHAPE(1)}};
    const void *const data[] = {inputs, targets};
    if (ftr_graph_status(p.graph) == FTR_OK)
        (void)ftr_memory_source(p.context, "train", SAMPLES, fields, data, 2, &p.source);
    return p;
}

static void destroy(problem *p) {
    ftr_source_destroy(p->source);
    ftr_graph_destroy(p->graph);
    ftr_context_destroy(p->context);
}

static ftr_train_desc describe(const problem *p) {
    ftr_train_desc t = ftr_train_defaults();
    t.loss = p->loss;
    t.optimizer = ftr_sgd(0.05);
    t.train = p->source;
    t.epochs = 3;
    t.progress = FTR_PROGRESS_SILENT;
    return t;
}

static int read_all(ftr_graph *graph, float values[MOST]) {
    int floats = 0;
    for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
        ftr_tensor variable = ftr_variable_at(graph, i);
        ftr_shape shape = ftr_shape_of(variable);
        int64_t count = ftr_shape_count(&shape);
        assert_true(floats + count <= MOST && ftr_dtype_of(variable) == FTR_F32);
        assert_int_equal(ftr_variable_read(variable, values + floats, (size_t)count * sizeof(float)), FTR_OK);
        floats += (int)count;
    }
    return floats;
}

/* ---------------------------------------------------------------------------------------------------------- points -- */

/* The same steps by hand: losses are those of a loop that sets the learning rates. */
static void points_are_those_of_a_loop(void **state) {
    const bool linear = *state != NULL;
    problem p = make(NULL, false, BATCH), q = make(NULL, false, BATCH);
    ftr_train_desc t = describe(&p);
    t.no_shuffle = true;
    ftr_find_lr_desc d = ftr_find_lr_defaults();
    d.min_lr = 1e-4, d.max_lr = 0.25, d.steps = 40, d.smoothing = 0.9;
    d.growth = linear ? FTR_LR_LINEAR : FTR_LR_EXPONENTIAL;
    ftr_lr_curve curve;
    FTR_TEST_OK(p.context, ftr_find_lr(p.graph, &t, &d, &curve));
    assert_int_equal(curve.count, 40);
    assert_false(curve.diverged);
    ftr_optimizer sgd = ftr_sgd(1);
    ftr_plan *plan;
    FTR_TEST_OK(q.context, ftr_compile(q.graph, &(ftr_compile_desc){.loss = q.loss, .optimizer = &sgd}, &plan));
    double average = 0;
    for (int i = 0; i < 40; i++) {
        int first = i % (SAMPLES / BATCH) * BATCH;
        double lr = linear ? 1e-4 + i / 39.0 * (0.25 - 1e-4) : 1e-4 * pow(2500, i / 39.0);
        ftr_step_info info;
        FTR_TEST_OK(q.context, ftr_plan_set_lr(plan, lr));
        FTR_TEST_OK(q.context, ftr_feed(plan, q.x, inputs[first], BATCH * sizeof inputs[0]));
        FTR_TEST_OK(q.context, ftr_feed(plan, q.y, targets + first, BATCH * sizeof targets[0]));
        FTR_TEST_OK(q.context, ftr_step(plan, &info));
        average = 0.9 * average + 0.1 * info.loss;
        assert_true(fabs(curve.lr[i] / lr - 1) < 1e-12);
        assert_true(fabs(curve.loss[i] - info.loss) <= 1e-6 * info.loss);
        assert_true(fabs(curve.smoothed[i] / (average / (1 - pow(0.9, i + 1))) - 1) < 1e-6);
    }
    assert_true(curve.lr[0] == 1e-4 && curve.lr[39] == 0.25);
    ftr_plan_destroy(plan);
    ftr_lr_curve_free(&curve);
    assert_true(!curve.lr && curve.count == 0 && isnan(curve.suggestion));
    destroy(&p);
    destroy(&q);
}

/* NumPy's gradient of a list, at i. */
static double gradient(const double *x, int64_t count, int64_t i) {
    if (i == 0) return x[1] - x[0];
    return i == count - 1 ? x[i] - x[i - 1] : (x[i + 1] - x[i - 1]) / 2;
}

static void suggestion_is_the_steepest_descent(void **state) {
    (void)state;
    problem p = make(NULL, true, BATCH);
    ftr_train_desc t = describe(&p);
    for (int way = 0; way < 4; way++) {
        ftr_find_lr_desc d = ftr_find_lr_defaults();
        d.min_lr = 1e-5, d.max_lr = 1, d.steps = way == 3 ? 25 : 80;
        d.skip_begin = way == 1 ? 0 : 10, d.skip_end = way == 1 ? 0 : 1 + way;
        ftr_lr_curve curve;
        FTR_TEST_OK(p.context, ftr_find_lr(p.graph, &t, way ? &d : NULL, &curve));
        int64_t first = way ? d.skip_begin : 10, count = curve.count - first - (way ? d.skip_end : 1), steepest = 0,
                lowest = 0;
        const double *smoothed = curve.smoothed + first;
        for (int64_t i = 1; i < count; i++) {
            if (gradient(smoothed, count, i) < gradient(smoothed, count, steepest)) steepest = i;
            if (smoothed[i] < smoothed[lowest]) lowest = i;
        }
        assert_int_equal(curve.steepest, steepest + first);
        assert_int_equal(curve.lowest, lowest + first);
        assert_true(curve.suggestion == curve.lr[curve.steepest]);
        assert_true(curve.tenth_of_lowest == curve.lr[curve.lowest] / 10);
        ftr_lr_curve_free(&curve);
    }
    destroy(&p);
    p = make(NULL, false, SAMPLES); /* stable up to a rate of about 1, and slow below 0.001 */
    t = describe(&p);
    ftr_lr_curve curve;
    FTR_TEST_OK(p.context, ftr_find_lr(p.graph, &t, NULL, &curve));
    if (!(curve.suggestion > 1e-3 && curve.suggestion < 1)) fail_msg("suggestion %g", curve.suggestion);
    ftr_lr_curve_free(&curve);
    destroy(&p);
}

static void divergence_ends_the_test(void **state) {
    (void)state;
    problem p = make(NULL, false, BATCH);
    ftr_train_desc t = describe(&p);
    ftr_find_lr_desc d = ftr_find_lr_defaults();
    d.min_lr = 1e-3, d.max_lr = 100;
    ftr_lr_curve curve;
    FTR_TEST_OK(p.context, ftr_find_lr(p.graph, &t, &d, &curve));
    assert_true(curve.diverged && curve.count < 100 && curve.count > 20);
    double least = curve.smoothed[0];
    for (int64_t i = 1; i < curve.count; i++) {
        assert_int_equal(curve.smoothed[i] > 4 * least, i == curve.count - 1);
        least = fmin(least, curve.smoothed[i]);
    }
    ftr_lr_curve_free(&curve);
    d.divergence = 0, d.max_lr = 1e12; /* until it is no number */
    FTR_TEST_OK(p.context, ftr_find_lr(p.graph, &t, &d, &curve));
    assert_true(curve.diverged && curve.count < 100);
    for (int64_t i = 0; i < curve.count; i++) assert_true(isfinite(curve.loss[i]));
    ftr_lr_curve_free(&curve);
    destroy(&p);
}

/* ------------------------------------------------------------------------------------------------ nothing is left -- */

/* Training after a range test is training without one, bit by bit. */
static void training_is_the_same_after_it(void **state) {
    (void)state;
    for (int amp = 0; amp < 2; amp++) {
        static float before[MOST], after[MOST], trained[2][MOST];
        ftr_train_result results[2];
        int floats = 0;
        for (int tested = 0; tested < 2; tested++) {
            problem p = make(NULL, true, BATCH);
            ftr_train_desc t = describe(&p);
            t.optimizer = ftr_adamw(0.02);
            t.amp = amp ? FTR_AMP_FP16 : FTR_AMP_OFF;
            FTR_TEST_OK(p.context, ftr_fit(p.graph, &t, NULL)); /* running statistics that are not 0 and 1 */
            floats = read_all(p.graph, before);
            ftr_lr_curve curve;
            if (tested) {
                FTR_TEST_OK(p.context, ftr_find_lr(p.graph, &t, NULL, &curve));
                assert_int_equal(read_all(p.graph, after), floats);
                assert_memory_equal(before, after, (size_t)floats * sizeof(float));
                ftr_lr_curve_free(&curve);
            }
            FTR_TEST_OK(p.context, ftr_fit(p.graph, &t, &results[tested]));
            read_all(p.graph, trained[tested]);
            destroy(&p);
        }
        assert_memory_equal(trained[0], trained[1], (size_t)floats * sizeof(float));
        assert_true(results[0].loss == results[1].loss);
    }
}

/* Before the first training, too: the first values are those without the test. */
static void first_values_are_the_same_after_it(void **state) {
    (void)state;
    static float before[MOST], after[MOST];
    problem p = make(NULL, true, BATCH), q = make(NULL, true, BATCH);
    ftr_train_desc t = describe(&p);
    ftr_lr_curve curve;
    FTR_TEST_OK(p.context, ftr_find_lr(p.graph, &t, NULL, &curve));
    ftr_lr_curve_free(&curve);
    int floats = read_all(q.graph, before);
    assert_int_equal(read_all(p.graph, after), floats);
    assert_memory_equal(before, after, (size_t)floats * sizeof(float));
    destroy(&p);
    destroy(&q);
}

static bool fails(void *user, const ftr_train_event *event) {
    (void)user;
    (void)event;
    fail_msg("the callback of the training was called");
    return true;
}

/* What a range test does not take from the description. */
static void what_is_left_out(void **state) {
    (void)state;
    problem p = make(NULL, false, BATCH);
    ftr_train_desc t = describe(&p);
    ftr_plateau plateau = ftr_plateau_defaults(), untouched = plateau;
    ftr_lr_curve a, b;
    FTR_TEST_OK(p.context, ftr_find_lr(p.graph, &t, NULL, &a));
    t.epochs = 1, t.max_steps = 2, t.max_seconds = 1e-9, t.on_event = fails, t.plateau = &plateau;
    t.optimizer.lr = 77;
    t.eval = p.source;
    t.early_stop.metric = "loss", t.early_stop.patience = 1, t.early_stop.min_delta = 1e9;
    t.checkpoint.directory = "/nowhere/at all";
    t.schedule = ftr_schedule_cosine(10, 0);
    FTR_TEST_OK(p.context, ftr_find_lr(p.graph, &t, NULL, &b));
    assert_int_equal(a.count, b.count);
    assert_memory_equal(a.loss, b.loss, (size_t)a.count * sizeof(double));
    assert_memory_equal(&plateau, &untouched, sizeof plateau);
    ftr_lr_curve_free(&a);
    ftr_lr_curve_free(&b);
    destroy(&p);
}

/* ---------------------------------------------------------------------------------------------------------- errors -- */

static void refusals(void **state) {
    (void)state;
    problem p = make(NULL, false, BATCH);
    ftr_train_desc t = describe(&p);
    const ftr_find_lr_desc fine = ftr_find_lr_defaults();
    static const struct {
        int what;
        double value;
        const char *message;
    } cases[] = {
        {0, 0, "ftr_find_lr: desc was not made by ftr_find_lr_defaults()"},
        {1, 0, "ftr_find_lr: min_lr 0, max_lr 10: expected 0 < min_lr < max_lr, finite"},
        {1, 10, "ftr_find_lr: min_lr 10, max_lr 10: expected 0 < min_lr < max_lr, finite"},
        {2, INFINITY, "ftr_find_lr: min_lr 1e-07, max_lr inf: expected 0 < min_lr < max_lr, finite"},
        {3, 12, "ftr_find_lr: steps is 12, expected 13 (skip_begin + skip_end + 2) to 1000000"},
        {3, 1000001, "ftr_find_lr: steps is 1000001, expected 13 (skip_begin + skip_end + 2) to 1000000"},
        {4, 5, "ftr_find_lr: growth is 5, expected FTR_LR_EXPONENTIAL or FTR_LR_LINEAR"},
        {5, 1, "ftr_find_lr: smoothing is 1, expected 0 or more, below 1"},
        {5, -0.5, "ftr_find_lr: smoothing is -0.5, expected 0 or more, below 1"},
        {6, 1, "ftr_find_lr: divergence is 1, expected more than 1, or 0 for none"},
        {7, -1, "ftr_find_lr: skip_begin -1, skip_end 1, expected 0 or more"},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        ftr_find_lr_desc d = fine;
        double v = cases[i].value;
        switch (cases[i].what) {
        case 0: d.cookie = 0; break;
        case 1: d.min_lr = v; break;
        case 2: d.max_lr = v; break;
        case 3: d.steps = (int64_t)v; break;
        case 4: d.growth = (ftr_lr_growth)v; break;
        case 5: d.smoothing = v; break;
        case 6: d.divergence = v; break;
        default: d.skip_begin = (int32_t)v; break;
        }
        ftr_lr_curve curve = {.count = 3};
        assert_int_equal(ftr_find_lr(p.graph, &t, &d, &curve), FTR_ERROR_INVALID_ARGUMENT);
        assert_string_equal(ftr_error_message(p.context), cases[i].message);
        assert_true(!curve.lr && curve.count == 0 && curve.steepest == -1);
    }
    ftr_lr_curve curve;
    assert_int_equal(ftr_find_lr(NULL, &t, NULL, &curve), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_find_lr(p.graph, NULL, NULL, &curve), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(p.context), "ftr_find_lr: train is NULL");
    assert_int_equal(ftr_find_lr(p.graph, &t, NULL, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(p.context), "ftr_find_lr: curve is NULL");
    t.train = NULL;
    assert_int_equal(ftr_find_lr(p.graph, &t, NULL, &curve), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(p.context), "ftr_fit: train is NULL, expected a source");
    assert_null(curve.lr);
    ftr_lr_curve_free(NULL);
    destroy(&p);
}

static void no_suggestion(void **state) {
    (void)state;
    static float before[MOST], after[MOST];
    problem p = make(NULL, false, BATCH);
    ftr_train_desc t = describe(&p);
    int floats = read_all(p.graph, before);
    ftr_find_lr_desc d = ftr_find_lr_defaults();
    ftr_lr_curve curve;
    d.min_lr = 1, d.max_lr = 1e6; /* too large from the start */
    assert_int_equal(ftr_find_lr(p.graph, &t, &d, &curve), FTR_ERROR_DATA);
    assert_non_null(strstr(ftr_error_message(p.context), "expected 13 for a suggestion: take a smaller min_lr"));
    assert_true(curve.count > 0 && curve.count < 13 && curve.diverged && isnan(curve.suggestion));
    ftr_lr_curve_free(&curve);
    read_all(p.graph, after);
    assert_memory_equal(before, after, (size_t)floats * sizeof(float));
    targets[0] = INFINITY;
    t.no_shuffle = true;
    assert_int_equal(ftr_find_lr(p.graph, &t, NULL, &curve), FTR_ERROR_NONFINITE);
    assert_string_equal(ftr_error_message(p.context), "ftr_find_lr: the loss of the first step, with lr 1e-07, is inf");
    assert_int_equal(curve.count, 0);
    ftr_lr_curve_free(&curve);
    read_all(p.graph, after);
    assert_memory_equal(before, after, (size_t)floats * sizeof(float));
    destroy(&p);
    p = make(NULL, false, BATCH);
    t = describe(&p);
    static float zeros[64];
    for (int32_t i = 0; i < ftr_variable_count(p.graph); i++) {
        ftr_tensor variable = ftr_variable_at(p.graph, i);
        ftr_shape shape = ftr_shape_of(variable);
        FTR_TEST_OK(p.context, ftr_variable_write(variable, zeros, (size_t)ftr_shape_count(&shape) * sizeof(float)));
    }
    memset(targets, 0, sizeof targets); /* nothing to learn */
    assert_int_equal(ftr_find_lr(p.graph, &t, NULL, &curve), FTR_ERROR_DATA);
    assert_non_null(strstr(ftr_error_message(p.context), "falls nowhere between"));
    assert_int_equal(curve.count, 100);
    ftr_lr_curve_free(&curve);
    destroy(&p);
}

/* Every allocation fails once: a status, nothing lost, and the parameters as they were. */
static void without_memory(void **state) {
    (void)state;
    static float expected[MOST], found[MOST];
    problem whole = make(NULL, true, BATCH);
    int floats = read_all(whole.graph, expected);
    destroy(&whole);
    bool failed = true;
    for (int64_t n = 1; failed; n++) {
        ftr_test_memory memory = {0};
        problem p = make(&memory, true, BATCH);
        assert_non_null(p.source);
        int64_t before = memory.calls;
        memory.fail_at = before + n;
        ftr_train_desc t = describe(&p);
        ftr_find_lr_desc d = ftr_find_lr_defaults();
        d.steps = 40, d.min_lr = 1e-4, d.max_lr = 1;
        ftr_lr_curve curve;
        ftr_status status = ftr_find_lr(p.graph, &t, &d, &curve);
        failed = memory.calls - before >= n;
        assert_int_equal(status, failed ? FTR_ERROR_OUT_OF_MEMORY : FTR_OK);
        assert_int_equal(curve.lr == NULL, failed);
        ftr_lr_curve_free(&curve);
        memory.fail_at = 0;
        assert_int_equal(read_all(p.graph, found), floats);
        assert_memory_equal(expected, found, (size_t)floats * sizeof(float));
        destroy(&p);
        assert_int_equal(memory.live, 0);
        assert_int_equal(memory.wrong, 0);
    }
}

int main(void) {
    static char linear;
    const struct CMUnitTest tests[] = {
        {"points_are_those_of_a_loop exponential", points_are_those_of_a_loop, NULL, NULL, NULL},
        {"points_are_those_of_a_loop linear", points_are_those_of_a_loop, NULL, NULL, &linear},
        cmocka_unit_test(suggestion_is_the_steepest_descent),
        cmocka_unit_test(divergence_ends_the_test),
        cmocka_unit_test(training_is_the_same_after_it),
        cmocka_unit_test(first_values_are_the_same_after_it),
        cmocka_unit_test(what_is_left_out),
        cmocka_unit_test(refusals),
        cmocka_unit_test(no_suggestion),
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests_name("find_lr", tests, NULL, NULL);
}
