/* The training loop: what it learns, feeds, reports, refuses and allocates. */
#include "ftr_test.h"

enum { FEATURES = 4, CLASSES = 3, MOST = 64 };

/* Points whose class is the largest of three fixed linear functions. */
typedef struct points {
    float x[MOST][FEATURES];
    int32_t label[MOST];
} points;

static void make_points(points *data, uint64_t seed) {
    static const float weight[CLASSES][FEATURES] = {{2, -1, 0, 1}, {-1, 2, 1, -1}, {-1, -1, -2, 1}};
    ftr_test_rng rng = {seed};
    ftr_test_fill_f32(&data->x[0][0], MOST * FEATURES, &rng, -1.0, 1.0);
    for (int i = 0; i < MOST; i++) {
        double best = -1e9;
        for (int c = 0; c < CLASSES; c++) {
            double score = 0.0;
            for (int f = 0; f < FEATURES; f++) score += (double)(weight[c][f] * data->x[i][f]);
            if (score > best) data->label[i] = c;
            best = score > best ? score : best;
        }
    }
}

static ftr_source *points_source(ftr_context *context, const char *name, const points *data, int64_t first,
                                 int64_t count) {
    ftr_field fields[2] = {{"label", FTR_I32, ftr_scalar_shape()}, {"x", FTR_F32, FTR_SHAPE(FEATURES)}};
    const void *arrays[2] = {&data->label[first], data->x[first]};
    ftr_source *source = NULL;
    FTR_TEST_OK(context, ftr_memory_source(context, name, count, fields, arrays, 2, &source));
    return source;
}

typedef struct model {
    ftr_context *context;
    ftr_graph *graph;
    ftr_tensor x, label, mask, logits, loss, accuracy;
} model;

/* A perceptron with batch norm; dropout on request. */
static model make_model(ftr_context *context, int64_t batch, bool mask, double dropout) {
    model m = {.context = context, .graph = ftr_graph_create(context)};
    if (mask) m.mask = ftr_batch_mask(m.graph, batch);
    m.x = ftr_input(m.graph, "x", FTR_F32, FTR_SHAPE(batch, FEATURES));
    m.label = ftr_input(m.graph, "label", FTR_I32, FTR_SHAPE(batch));
    ftr_tensor hidden = ftr_relu(ftr_batch_norm(ftr_linear(m.x, "fc1", 16, NULL), "bn", NULL));
    m.logits = ftr_linear(ftr_dropout(hidden, dropout), "fc2", CLASSES, NULL);
    m.loss = ftr_cross_entropy(m.logits, m.label, NULL);
    m.accuracy = ftr_accuracy(m.logits, m.label);
    FTR_TEST_GRAPH_OK(m.graph);
    return m;
}

static ftr_train_desc describe(const model *m, ftr_source *train, ftr_source *eval) {
    ftr_train_desc desc = ftr_train_defaults();
    desc.loss = m->loss;
    desc.optimizer = ftr_adamw(0.02);
    desc.train = train;
    desc.eval = eval;
    desc.metrics[0] = (ftr_metric){"accuracy", m->accuracy};
    desc.metric_count = 1;
    desc.progress = FTR_PROGRESS_SILENT;
    return desc;
}

static size_t variable_bytes(ftr_tensor variable) {
    ftr_shape shape = ftr_shape_of(variable);
    return (size_t)ftr_shape_count(&shape) * ftr_dtype_size(ftr_dtype_of(variable));
}

enum { MOST_WEIGHTS = 512 };

/* All variables one after another. Returns how many floats. */
static int read_weights(ftr_graph *graph, float weights[MOST_WEIGHTS]) {
    size_t used = 0;
    for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
        ftr_tensor variable = ftr_variable_at(graph, i);
        size_t bytes = variable_bytes(variable);
        assert_true(used + bytes / sizeof(float) <= MOST_WEIGHTS);
        assert_int_equal(ftr_variable_read(variable, weights + used, bytes), FTR_OK);
        used += bytes / sizeof(float);
    }
    return (int)used;
}

static void copy_weights(ftr_graph *from, ftr_graph *to) {
    float weights[MOST_WEIGHTS];
    size_t used = 0;
    read_weights(from, weights);
    for (int32_t i = 0; i < ftr_variable_count(to); i++) {
        ftr_tensor variable = ftr_variable_at(to, i);
        assert_int_equal(ftr_variable_write(variable, weights + used, variable_bytes(variable)), FTR_OK);
        used += variable_bytes(variable) / sizeof(float);
    }
}

static void assert_near(const float *a, const float *b, int count, double tolerance) {
    for (int i = 0; i < count; i++)
        if (!(fabs((double)(a[i] - b[i])) <= tolerance))
            fail_msg("element %d: %.9g and %.9g", i, (double)a[i], (double)b[i]);
}

/* ------------------------------------------------------------------------------------------------------ learning -- */

static void test_learns(void **state) {
    (void)state;
    static points data;
    make_points(&data, 3);
    ftr_context *context = ftr_test_context();
    model m = make_model(context, 8, false, 0.0);
    ftr_source *train = points_source(context, "train", &data, 0, 48),
               *eval = points_source(context, "eval", &data, 48, 16);
    ftr_train_desc desc = describe(&m, train, eval);
    desc.epochs = 30;
    ftr_train_result result;
    FTR_TEST_OK(context, ftr_fit(m.graph, &desc, &result));
    assert_int_equal(result.epochs, 30);
    assert_int_equal(result.steps, 180);
    assert_true(result.loss < 0.5 && result.eval_loss < 0.6);
    assert_true(result.metrics[0] > 0.8 && result.eval_metrics[0] > 0.7); /* small batches are noisy */
    assert_int_equal(result.best_epoch, -1);
    assert_false(result.stopped_early);
    assert_true(result.seconds > 0.0 && result.samples_per_second > 0.0);
    assert_true(result.memory.total > 0 && result.memory.gradients > 0 && result.memory.optimizer_state > 0);

    ftr_train_result again;
    FTR_TEST_OK(context, ftr_evaluate(m.graph, &desc, &again));
    assert_true(again.eval_loss == result.eval_loss && again.eval_metrics[0] == result.eval_metrics[0]);
    assert_true(isnan(again.loss) && isnan(again.metrics[0]));
    assert_int_equal(again.steps, 0);
    desc.eval = train; /* with running statistics it knows what it was trained on */
    FTR_TEST_OK(context, ftr_evaluate(m.graph, &desc, &again));
    assert_true(again.eval_metrics[0] > 0.95);
    FTR_TEST_OK(context, ftr_fit(m.graph, &desc, NULL));
    ftr_source_destroy(train);
    ftr_source_destroy(eval);
    ftr_graph_destroy(m.graph);
    ftr_context_destroy(context);
}

static int fit_with_threads(int32_t threads, float weights[MOST_WEIGHTS], double *loss) {
    static points data;
    make_points(&data, 3);
    ftr_context *context = ftr_test_context_with(NULL, 7, threads, NULL);
    model m = make_model(context, 16, true, 0.25);
    ftr_source *train = points_source(context, "train", &data, 0, 50);
    ftr_train_desc desc = describe(&m, train, NULL);
    desc.epochs = 4;
    desc.last_batch = FTR_LAST_BATCH_PAD;
    ftr_train_result result;
    FTR_TEST_OK(context, ftr_fit(m.graph, &desc, &result));
    *loss = result.loss;
    int count = read_weights(m.graph, weights);
    ftr_source_destroy(train);
    ftr_graph_destroy(m.graph);
    ftr_context_destroy(context);
    return count;
}

static void test_same_bits_at_any_thread_count(void **state) {
    (void)state;
    static const int32_t threads[] = {1, 2, 5, 1};
    float first[MOST_WEIGHTS], weights[MOST_WEIGHTS];
    double first_loss, loss;
    int count = fit_with_threads(1, first, &first_loss);
    for (size_t i = 0; i < FTR_TEST_LENGTH(threads); i++) {
        assert_int_equal(fit_with_threads(threads[i], weights, &loss), count);
        assert_memory_equal(first, weights, (size_t)count * sizeof(float));
        assert_true(loss == first_loss);
    }
}

/* ------------------------------------------------------------------------------------------------------- batches -- */

typedef struct log_of_reads {
    const points *data;
    int64_t index[256];
    int count;
    int64_t fail_at; /* index whose reading fails; -1: none */
} log_of_reads;

static ftr_status logged_read(void *user, int64_t index, void *const *fields) {
    log_of_reads *log = (log_of_reads *)user;
    if (index == log->fail_at) return FTR_ERROR_IO;
    if (log->count < 256) log->index[log->count++] = index;
    memcpy(fields[0], log->data->x[index], sizeof log->data->x[index]);
    memset(fields[1], 0x77, 3); /* a field that no input takes */
    memcpy(fields[2], &log->data->label[index], sizeof(int32_t));
    return FTR_OK;
}

static ftr_source *logged_source(ftr_context *context, log_of_reads *log, int64_t count) {
    ftr_field fields[3] = {
        {"x", FTR_F32, FTR_SHAPE(FEATURES)}, {"extra", FTR_U8, FTR_SHAPE(3)}, {"label", FTR_I32, ftr_scalar_shape()}};
    ftr_source_desc desc = {
        .name = "log", .count = count, .fields = fields, .field_count = 3, .user = log, .read = logged_read};
    ftr_source *source = NULL;
    FTR_TEST_OK(context, ftr_source_create(context, &desc, &source));
    return source;
}

static void test_order_of_samples(void **state) {
    (void)state;
    static points data;
    make_points(&data, 1);
    for (int shuffle = 0; shuffle < 2; shuffle++)
        for (int pad = 0; pad < 2; pad++) {
            log_of_reads log = {.data = &data, .fail_at = -1};
            ftr_context *context = ftr_test_context_with(NULL, 99, 2, NULL);
            model m = make_model(context, 8, true, 0.0);
            ftr_source *source = logged_source(context, &log, 30);
            ftr_train_desc desc = describe(&m, source, NULL);
            desc.epochs = 3;
            desc.no_shuffle = !shuffle;
            desc.last_batch = pad ? FTR_LAST_BATCH_PAD : FTR_LAST_BATCH_DROP;
            ftr_train_result result;
            FTR_TEST_OK(context, ftr_fit(m.graph, &desc, &result));
            int each = pad ? 30 : 24;
            assert_int_equal(log.count, 3 * each);
            assert_int_equal(result.steps, pad ? 12 : 9);
            for (int i = 0; i < log.count; i++) {
                int64_t position = i % each, epoch = i / each;
                int64_t expected = shuffle ? ftr_shuffled_index(99, (uint64_t)epoch, position, 30) : position;
                assert_int_equal(log.index[i], expected);
            }
            ftr_source_destroy(source);
            ftr_graph_destroy(m.graph);
            ftr_context_destroy(context);
        }
}

/* One step of plain SGD by hand on samples first .. first + batch - 1, with weights from and to `m`. */
static double step_by_hand(const model *m, const points *data, int64_t first, int64_t batch) {
    model small = make_model(m->context, batch, false, 0.0);
    copy_weights(m->graph, small.graph);
    ftr_optimizer sgd = ftr_sgd(0.5);
    ftr_compile_desc desc = {.loss = small.loss, .optimizer = &sgd};
    ftr_plan *plan = NULL;
    FTR_TEST_OK(m->context, ftr_compile(small.graph, &desc, &plan));
    FTR_TEST_OK(m->context, ftr_feed(plan, small.x, data->x[first], (size_t)batch * sizeof data->x[0]));
    FTR_TEST_OK(m->context, ftr_feed(plan, small.label, &data->label[first], (size_t)batch * sizeof(int32_t)));
    ftr_step_info info;
    FTR_TEST_OK(m->context, ftr_step(plan, &info));
    copy_weights(small.graph, m->graph);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(small.graph);
    return info.loss;
}

typedef struct losses {
    double loss[64];
    int count;
} losses;

static bool keep_loss(void *user, const ftr_train_event *event) {
    losses *kept = (losses *)user;
    if (event->kind == FTR_EVENT_STEP && kept->count < 64) kept->loss[kept->count++] = event->loss;
    return false;
}

/* A padded last batch trains as a graph of the smaller batch does: loss, gradients and batch norm's statistics. */
static void test_padding_is_masked(void **state) {
    (void)state;
    static points data;
    make_points(&data, 5);
    ftr_context *context = ftr_test_context();
    model padded = make_model(context, 8, true, 0.0), by_hand = make_model(context, 8, false, 0.0);
    copy_weights(padded.graph, by_hand.graph);
    ftr_source *source = points_source(context, "s", &data, 0, 19);
    ftr_train_desc desc = describe(&padded, source, NULL);
    losses kept = {.count = 0};
    desc.optimizer = ftr_sgd(0.5);
    desc.no_shuffle = true;
    desc.last_batch = FTR_LAST_BATCH_PAD;
    desc.on_event = keep_loss;
    desc.on_event_user = &kept;
    ftr_train_result result;
    FTR_TEST_OK(context, ftr_fit(padded.graph, &desc, &result));
    double expected[3] = {step_by_hand(&by_hand, &data, 0, 8), step_by_hand(&by_hand, &data, 8, 8),
                          step_by_hand(&by_hand, &data, 16, 3)};
    assert_int_equal(kept.count, 3);
    for (int i = 0; i < 3; i++) assert_true(fabs(kept.loss[i] - expected[i]) < 1e-5);
    double mean = (expected[0] * 8 + expected[1] * 8 + expected[2] * 3) / 19;
    assert_true(fabs(result.loss - mean) < 1e-5);
    float a[MOST_WEIGHTS], b[MOST_WEIGHTS];
    int count = read_weights(padded.graph, a);
    read_weights(by_hand.graph, b);
    assert_near(a, b, count, 2e-5);
    ftr_source_destroy(source);
    ftr_graph_destroy(padded.graph);
    ftr_graph_destroy(by_hand.graph);
    ftr_context_destroy(context);
}

/* Evaluation in batches with a short last one gives what one large batch gives. */
static void test_evaluation_is_weighted(void **state) {
    (void)state;
    static points data;
    make_points(&data, 6);
    ftr_context *context = ftr_test_context();
    model whole = make_model(context, 22, false, 0.5);
    ftr_source *source = points_source(context, "s", &data, 0, 22);
    ftr_train_desc desc = describe(&whole, NULL, source);
    ftr_train_result expected;
    FTR_TEST_OK(context, ftr_evaluate(whole.graph, &desc, &expected));
    for (int64_t batch = 4; batch <= 44; batch += 5) {
        model m = make_model(context, batch, true, 0.5);
        copy_weights(whole.graph, m.graph);
        desc = describe(&m, NULL, source);
        ftr_train_result result;
        FTR_TEST_OK(context, ftr_evaluate(m.graph, &desc, &result));
        assert_true(fabs(result.eval_loss - expected.eval_loss) < 1e-5);
        assert_true(fabs(result.eval_metrics[0] - expected.eval_metrics[0]) < 1e-5);
        ftr_graph_destroy(m.graph);
    }
    ftr_source_destroy(source);
    ftr_graph_destroy(whole.graph);
    ftr_context_destroy(context);
}

/* --------------------------------------------------------------------------------------------- events and limits -- */

typedef struct seen_events {
    int steps, epochs;
    int64_t stop_at_step, stop_at_epoch; /* -1: never */
    bool wrong;
} seen_events;

static bool see_event(void *user, const ftr_train_event *event) {
    seen_events *seen = (seen_events *)user;
    bool epoch_end = event->kind == FTR_EVENT_EPOCH;
    epoch_end ? seen->epochs++ : seen->steps++;
    bool right = event->steps_per_epoch == 6 && event->step == seen->steps && event->metric_count == 1;
    right = right && event->epoch == (event->step - 1) / 6 && event->plan != NULL;
    right = right && strcmp(event->metric_names[0], "accuracy") == 0;
    right = right && event->loss > 0.0 && event->metrics[0] >= 0.0 && event->metrics[0] <= 1.0;
    bool evaluated = epoch_end || event->epoch > 0;
    right = right && isnan(event->eval_loss) != evaluated && isnan(event->eval_metrics[0]) != evaluated;
    right = right && event->samples_per_second > 0.0;
    if (!right) seen->wrong = true;
    return epoch_end ? event->epoch == seen->stop_at_epoch : event->step == seen->stop_at_step;
}

typedef struct limit_case {
    int64_t epochs, max_steps, stop_at_step, stop_at_epoch;
    int64_t steps_done, epochs_done; /* as results say */
    int step_events, epoch_events;
    bool stopped;
} limit_case;

static const limit_case limit_cases[] = {
    {3, 0, -1, -1, 18, 3, 18, 3, false},   {3, 6, -1, -1, 6, 1, 6, 1, false}, {3, 8, -1, -1, 8, 1, 8, 2, false},
    {3, 100, -1, -1, 18, 3, 18, 3, false}, {3, 0, 1, -1, 1, 0, 1, 0, true},   {3, 0, 6, -1, 6, 1, 6, 1, true},
    {3, 0, 9, -1, 9, 1, 9, 1, true},       {3, 0, -1, 1, 12, 2, 12, 2, true}, {INT64_MAX, 7, -1, -1, 7, 1, 7, 2, false},
};

static void test_events_and_limits(void **state) {
    (void)state;
    static points data;
    make_points(&data, 3);
    for (size_t i = 0; i < FTR_TEST_LENGTH(limit_cases); i++) {
        const limit_case *c = &limit_cases[i];
        ftr_context *context = ftr_test_context();
        model m = make_model(context, 8, false, 0.0);
        ftr_source *train = points_source(context, "train", &data, 0, 48);
        ftr_source *eval = points_source(context, "eval", &data, 48, 16);
        seen_events seen = {.stop_at_step = c->stop_at_step, .stop_at_epoch = c->stop_at_epoch};
        ftr_train_desc desc = describe(&m, train, eval);
        desc.epochs = c->epochs;
        desc.max_steps = c->max_steps;
        desc.on_event = see_event;
        desc.on_event_user = &seen;
        ftr_train_result result;
        FTR_TEST_OK(context, ftr_fit(m.graph, &desc, &result));
        assert_false(seen.wrong);
        assert_int_equal(result.steps, c->steps_done);
        assert_int_equal(result.epochs, c->epochs_done);
        assert_int_equal(seen.steps, c->step_events);
        assert_int_equal(seen.epochs, c->epoch_events);
        assert_int_equal(result.stopped_early, c->stopped);
        assert_int_equal(isnan(result.eval_loss), c->epoch_events == 0);
        assert_false(isnan(result.loss));
        ftr_source_destroy(train);
        ftr_source_destroy(eval);
        ftr_graph_destroy(m.graph);
        ftr_context_destroy(context);
    }
}

static void test_early_stop_patience(void **state) {
    (void)state;
    static points data;
    make_points(&data, 3);
    ftr_context *context = ftr_test_context();
    model m = make_model(context, 8, false, 0.0);
    ftr_source *train = points_source(context, "train", &data, 0, 48),
               *eval = points_source(context, "eval", &data, 48, 16);
    ftr_train_desc desc = describe(&m, train, eval);
    desc.optimizer = ftr_sgd(0.0); /* nothing improves; batch norm's running statistics settle */
    desc.epochs = 50;
    desc.early_stop.metric = "accuracy";
    desc.early_stop.maximize = true;
    desc.early_stop.patience = 3;
    desc.early_stop.min_delta = 2.0; /* no accuracy gains that much */
    ftr_train_result result;
    FTR_TEST_OK(context, ftr_fit(m.graph, &desc, &result));
    assert_int_equal(result.epochs, 4);
    assert_int_equal(result.best_epoch, 0);
    assert_true(result.stopped_early);
    desc.eval = NULL; /* the training loss then counts */
    desc.early_stop.metric = "loss";
    desc.early_stop.maximize = false;
    desc.early_stop.patience = 1;
    desc.early_stop.min_delta = 100.0;
    FTR_TEST_OK(context, ftr_fit(m.graph, &desc, &result));
    assert_int_equal(result.epochs, 2);
    assert_true(isnan(result.eval_loss));
    ftr_source_destroy(train);
    ftr_source_destroy(eval);
    ftr_graph_destroy(m.graph);
    ftr_context_destroy(context);
}

/* Epochs before start_epoch do not count; the run stops once the metric is as good as the threshold. */
static void test_early_stop_start_and_threshold(void **state) {
    (void)state;
    static points data;
    make_points(&data, 3);
    ftr_context *context = ftr_test_context();
    model m = make_model(context, 8, false, 0.0);
    ftr_source *train = points_source(context, "train", &data, 0, 48),
               *eval = points_source(context, "eval", &data, 48, 16);
    ftr_train_desc desc = describe(&m, train, eval);
    desc.optimizer = ftr_sgd(0.0);
    desc.epochs = 50;
    desc.early_stop.metric = "accuracy";
    desc.early_stop.maximize = true;
    desc.early_stop.patience = 3;
    desc.early_stop.min_delta = 2.0;
    desc.early_stop.start_epoch = 5;
    ftr_train_result result;
    FTR_TEST_OK(context, ftr_fit(m.graph, &desc, &result));
    assert_int_equal(result.epochs, 5 + 4);
    assert_int_equal(result.best_epoch, 5);
    desc.early_stop.threshold = 0.0; /* any accuracy is as good */
    FTR_TEST_OK(context, ftr_fit(m.graph, &desc, &result));
    assert_int_equal(result.epochs, 6);
    assert_true(result.stopped_early);
    desc = describe(&m, train, eval);
    desc.epochs = 400;
    desc.early_stop.metric = "loss";
    desc.early_stop.patience = 400;
    desc.early_stop.threshold = 0.4;
    FTR_TEST_OK(context, ftr_fit(m.graph, &desc, &result));
    assert_true(result.stopped_early && result.epochs < 400 && result.eval_loss <= 0.4);
    assert_int_equal(result.best_epoch, result.epochs - 1);
    ftr_graph_destroy(m.graph);
    m = make_model(context, 8, false, 0.0);
    desc = describe(&m, train, eval);
    desc.epochs = 400;
    desc.early_stop.metric = "loss";
    desc.early_stop.patience = 400;
    desc.early_stop.threshold = 0.4;
    desc.early_stop.min_delta = 1e9; /* the threshold counts all the same */
    FTR_TEST_OK(context, ftr_fit(m.graph, &desc, &result));
    assert_true(result.stopped_early && result.epochs < 400 && result.eval_loss <= 0.4);
    ftr_source_destroy(train);
    ftr_source_destroy(eval);
    ftr_graph_destroy(m.graph);
    ftr_context_destroy(context);
}

/* Weights and evaluation loss of each epoch; from epoch 3 on the learning rate ruins the run. */
typedef struct history {
    ftr_graph *graph;
    float weights[16][MOST_WEIGHTS];
    double eval_loss[16];
    int count, floats;
} history;

static bool keep_history(void *user, const ftr_train_event *event) {
    history *kept = (history *)user;
    if (event->kind != FTR_EVENT_EPOCH) return false;
    if (event->epoch == 2) ftr_plan_set_lr(event->plan, 30.0);
    kept->floats = read_weights(kept->graph, kept->weights[event->epoch]);
    kept->eval_loss[kept->count++] = event->eval_loss;
    return false;
}

static void test_early_stop_restores_the_best(void **state) {
    (void)state;
    static points data;
    static history kept;
    make_points(&data, 3);
    ftr_context *context = ftr_test_context();
    model m = make_model(context, 8, false, 0.0);
    ftr_source *train = points_source(context, "train", &data, 0, 48),
               *eval = points_source(context, "eval", &data, 48, 16);
    for (int restore = 0; restore < 2; restore++) {
        memset(&kept, 0, sizeof kept);
        kept.graph = m.graph;
        ftr_train_desc desc = describe(&m, train, eval);
        desc.optimizer = ftr_sgd(0.05);
        desc.epochs = 16;
        desc.on_event = keep_history;
        desc.on_event_user = &kept;
        desc.early_stop.metric = "loss";
        desc.early_stop.patience = 4;
        desc.early_stop.restore_best = restore == 0;
        ftr_train_result result;
        FTR_TEST_OK(context, ftr_fit(m.graph, &desc, &result));
        int best = 0;
        for (int i = 1; i < kept.count; i++) best = kept.eval_loss[i] < kept.eval_loss[best] ? i : best;
        assert_int_equal(result.best_epoch, best);
        assert_true(result.stopped_early);
        assert_int_equal(result.epochs, kept.count);
        assert_int_equal(kept.count, best + 5);
        float weights[MOST_WEIGHTS];
        read_weights(m.graph, weights);
        int expected = restore == 0 ? best : kept.count - 1;
        assert_memory_equal(weights, kept.weights[expected], (size_t)kept.floats * sizeof(float));
    }
    ftr_source_destroy(train);
    ftr_source_destroy(eval);
    ftr_graph_destroy(m.graph);
    ftr_context_destroy(context);
}

/* -------------------------------------------------------------------------------------------------------- memory -- */

typedef struct allocation_count {
    const ftr_test_memory *memory;
    int64_t at_first_step;
} allocation_count;

static bool count_allocations(void *user, const ftr_train_event *event) {
    allocation_count *count = (allocation_count *)user;
    if (event->kind == FTR_EVENT_STEP && event->step == 1) count->at_first_step = count->memory->calls;
    return false;
}

static void ignore_message(void *user, ftr_log_level level, bool transient, const char *message) {
    (void)level;
    (void)transient;
    *(size_t *)user += strlen(message);
}

static void test_steps_allocate_nothing(void **state) {
    (void)state;
    static points data;
    make_points(&data, 3);
    ftr_test_memory memory = {0};
    size_t written = 0;
    ftr_context_desc context_desc = {
        .seed = 1, .threads = 2, .allocator = ftr_test_allocator(&memory), .logger = {&written, ignore_message}};
    ftr_context *context = NULL;
    assert_int_equal(ftr_context_create(&context_desc, &context), FTR_OK);
    model m = make_model(context, 8, true, 0.5);
    ftr_source *train = points_source(context, "train", &data, 0, 43),
               *eval = points_source(context, "eval", &data, 43, 21);
    ftr_train_desc desc = describe(&m, train, eval);
    allocation_count count = {.memory = &memory};
    desc.epochs = 5;
    desc.last_batch = FTR_LAST_BATCH_PAD;
    desc.progress = FTR_PROGRESS_BAR;
    desc.on_event = count_allocations;
    desc.on_event_user = &count;
    desc.early_stop.metric = "loss";
    desc.early_stop.patience = 10;
    desc.early_stop.restore_best = true;
    FTR_TEST_OK(context, ftr_fit(m.graph, &desc, NULL));
    assert_true(count.at_first_step > 0);
    assert_int_equal(memory.calls, count.at_first_step);
    assert_true(written > 0);
    ftr_source_destroy(train);
    ftr_source_destroy(eval);
    ftr_graph_destroy(m.graph);
    ftr_context_destroy(context);
    assert_int_equal(memory.blocks, 0);
    assert_int_equal(memory.wrong, 0);
}

/* A run in which allocation number `fail_at` fails; true if it came that far. */
static bool fit_without_memory(const points *data, int64_t fail_at) {
    ftr_test_memory memory = {0};
    ftr_context *context = ftr_test_context_with(NULL, 1, 1, &memory);
    model m = make_model(context, 8, true, 0.0);
    ftr_source *train = points_source(context, "train", data, 0, 20);
    ftr_train_desc desc = describe(&m, train, train);
    desc.early_stop.metric = "loss";
    desc.early_stop.patience = 1;
    desc.early_stop.restore_best = true;
    int64_t before = memory.calls, blocks = memory.blocks;
    memory.fail_at = before + fail_at;
    ftr_train_result result;
    ftr_status status = ftr_fit(m.graph, &desc, &result);
    bool failed = memory.calls - before >= fail_at;
    if (status != (failed ? FTR_ERROR_OUT_OF_MEMORY : FTR_OK))
        fail_msg("allocation %d: %s: %s", (int)fail_at, ftr_status_name(status), ftr_error_message(context));
    assert_in_range(memory.blocks - blocks, 0, 1); /* the graph keeps its variables */
    memory.fail_at = 0;
    FTR_TEST_OK(context, ftr_fit(m.graph, &desc, &result));
    ftr_source_destroy(train);
    ftr_graph_destroy(m.graph);
    ftr_context_destroy(context);
    assert_int_equal(memory.blocks, 0);
    return failed;
}

static void test_without_memory(void **state) {
    (void)state;
    static points data;
    make_points(&data, 3);
    int64_t fail_at = 1;
    while (fit_without_memory(&data, fail_at)) fail_at++;
    assert_true(fail_at > 5);
}

/* ------------------------------------------------------------------------------------------------------ mistakes -- */

/* What a case may break before ftr_fit() is called. */
typedef struct trial {
    ftr_context *context;
    model m;
    ftr_source *train, *eval, *wrong_dtype, *wrong_shape, *no_label, *stranger;
    ftr_graph *other_graph;
    ftr_tensor other, vector, integer, odd_input, odd_scalar, odd_batch, empty_batch;
} trial;

static void break_cookie(ftr_train_desc *d, const trial *t) { (void)t, d->cookie = 0; }
static void break_loss_null(ftr_train_desc *d, const trial *t) { (void)t, d->loss = (ftr_tensor){NULL, 0}; }
static void break_loss_graph(ftr_train_desc *d, const trial *t) { d->loss = t->other; }
static void break_loss_shape(ftr_train_desc *d, const trial *t) { d->loss = t->m.logits; }
static void break_loss_dtype(ftr_train_desc *d, const trial *t) { d->loss = t->integer; }
static void break_train_null(ftr_train_desc *d, const trial *t) { (void)t, d->train = NULL; }
static void break_epochs(ftr_train_desc *d, const trial *t) { (void)t, d->epochs = 0; }
static void break_max_steps(ftr_train_desc *d, const trial *t) { (void)t, d->max_steps = -3; }
static void break_last_batch(ftr_train_desc *d, const trial *t) { (void)t, d->last_batch = (ftr_last_batch)7; }
static void break_progress(ftr_train_desc *d, const trial *t) { (void)t, d->progress = (ftr_progress)9; }
static void break_optimizer(ftr_train_desc *d, const trial *t) {
    (void)t, memset(&d->optimizer, 0, sizeof d->optimizer);
}
static void break_metric_count(ftr_train_desc *d, const trial *t) { (void)t, d->metric_count = 9; }
static void break_metric_name(ftr_train_desc *d, const trial *t) { (void)t, d->metrics[0].name = NULL; }
static void break_metric_loss(ftr_train_desc *d, const trial *t) { (void)t, d->metrics[0].name = "loss"; }
static void break_metric_twice(ftr_train_desc *d, const trial *t) {
    (void)t, d->metrics[d->metric_count++] = d->metrics[0];
}
static void break_metric_null(ftr_train_desc *d, const trial *t) { (void)t, d->metrics[0].value.graph = NULL; }
static void break_metric_shape(ftr_train_desc *d, const trial *t) { d->metrics[0].value = t->vector; }
static void break_metric_dtype(ftr_train_desc *d, const trial *t) { d->metrics[0].value = t->integer; }
static void break_stop_metric(ftr_train_desc *d, const trial *t) {
    (void)t, d->early_stop.metric = "f1", d->early_stop.patience = 1;
}
static void break_patience(ftr_train_desc *d, const trial *t) { (void)t, d->early_stop.metric = "loss"; }
static void break_delta(ftr_train_desc *d, const trial *t) {
    (void)t;
    d->early_stop.metric = "loss";
    d->early_stop.patience = 1;
    d->early_stop.min_delta = -0.5;
}
static void break_start(ftr_train_desc *d, const trial *t) {
    (void)t;
    d->early_stop.metric = "loss";
    d->early_stop.patience = 1;
    d->early_stop.start_epoch = -1;
}
static void break_pad(ftr_train_desc *d, const trial *t) { (void)t, d->last_batch = FTR_LAST_BATCH_PAD; }
static void break_eval_rest(ftr_train_desc *d, const trial *t) { d->eval = t->train; }
static void break_too_few(ftr_train_desc *d, const trial *t) { d->train = t->eval; }
static void break_dtype(ftr_train_desc *d, const trial *t) { d->train = t->wrong_dtype; }
static void break_shape(ftr_train_desc *d, const trial *t) { d->train = t->wrong_shape; }
static void break_field(ftr_train_desc *d, const trial *t) { d->train = t->no_label; }
static void break_eval_field(ftr_train_desc *d, const trial *t) { d->eval = t->no_label; }
static void break_stranger(ftr_train_desc *d, const trial *t) { d->train = t->stranger; }
static void break_scalar_input(ftr_train_desc *d, const trial *t) { d->metrics[0].value = t->odd_scalar; }
static void break_odd_batch(ftr_train_desc *d, const trial *t) { d->metrics[0].value = t->odd_batch; }
static void break_empty_batch(ftr_train_desc *d, const trial *t) {
    d->metric_count = 0;
    d->loss = t->empty_batch;
}
static void break_no_input(ftr_train_desc *d, const trial *t) {
    d->metric_count = 0;
    d->loss = t->odd_input;
}
static void break_lr(ftr_train_desc *d, const trial *t) { (void)t, d->optimizer.cookie = 1; }

typedef struct mistake {
    void (*make)(ftr_train_desc *desc, const trial *t);
    ftr_status status;
    const char *message; /* NULL: whatever ftr_compile() says */
} mistake;

static const mistake mistakes[] = {
    {break_cookie, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: desc was not made by ftr_train_defaults()"},
    {break_loss_null, FTR_ERROR_INVALID_TENSOR, "ftr_fit: loss is a null tensor"},
    {break_loss_graph, FTR_ERROR_INVALID_TENSOR, "ftr_fit: loss belongs to another graph"},
    {break_loss_shape, FTR_ERROR_SHAPE, "ftr_fit: loss has shape [16, 3], expected a scalar"},
    {break_loss_dtype, FTR_ERROR_DTYPE, "ftr_fit: loss is i32, expected f32"},
    {break_train_null, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: train is NULL, expected a source"},
    {break_epochs, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: epochs is 0, expected 1 or more"},
    {break_max_steps, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: max_steps is -3, expected 0 (no limit) or more"},
    {break_last_batch, FTR_ERROR_INVALID_ARGUMENT,
     "ftr_fit: last_batch is 7, expected FTR_LAST_BATCH_DROP or FTR_LAST_BATCH_PAD"},
    {break_progress, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: progress is 9, expected one of ftr_progress"},
    {break_optimizer, FTR_ERROR_INVALID_ARGUMENT,
     "ftr_fit: optimizer is missing, expected ftr_sgd(), ftr_adamw() or another of them"},
    {break_lr, FTR_ERROR_INVALID_ARGUMENT, NULL},
    {break_metric_count, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: metric_count is 9, expected 0 to 8"},
    {break_metric_name, FTR_ERROR_NAME, "ftr_fit: metric 0 has no name"},
    {break_metric_loss, FTR_ERROR_NAME, "ftr_fit: metric 0 is named 'loss', which is the loss's own name"},
    {break_metric_twice, FTR_ERROR_NAME, "ftr_fit: metrics 0 and 1 are both named 'accuracy'"},
    {break_metric_null, FTR_ERROR_INVALID_TENSOR, "ftr_fit: metric 'accuracy' is a null tensor"},
    {break_metric_shape, FTR_ERROR_SHAPE, "ftr_fit: metric 'accuracy' has shape [3], expected a scalar"},
    {break_metric_dtype, FTR_ERROR_DTYPE, "ftr_fit: metric 'accuracy' is i32, expected f32"},
    {break_stop_metric, FTR_ERROR_NAME, "ftr_fit: early_stop.metric is 'f1', expected 'loss' or the name of a metric"},
    {break_patience, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: early_stop.patience is 0, expected 1 or more"},
    {break_delta, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: early_stop.min_delta is -0.5, expected 0 or more"},
    {break_start, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: early_stop.start_epoch is -1, expected 0 or more"},
    {break_pad, FTR_ERROR_INVALID_ARGUMENT,
     "ftr_fit: last_batch is FTR_LAST_BATCH_PAD and source 'train' leaves a last batch of 8 of 16, but the loss uses "
     "no "
     "ftr_batch_mask(): declare one before the layers"},
    {break_eval_rest, FTR_ERROR_INVALID_ARGUMENT,
     "ftr_fit: evaluation source 'train' has 40 samples, which leaves a last batch of 8 of 16: declare "
     "ftr_batch_mask() "
     "before the layers, or evaluate on a multiple of the batch"},
    {break_too_few, FTR_ERROR_DATA, "ftr_fit: source 'few' has 9 samples, fewer than one batch of 16"},
    {break_dtype, FTR_ERROR_DTYPE, "ftr_fit: input 'label' is i32, source 'odd' gives i64"},
    {break_shape, FTR_ERROR_SHAPE, "ftr_fit: input 'x' takes samples of shape [4], source 'odd' gives [5]"},
    {break_field, FTR_ERROR_NAME, "ftr_fit: input 'label' has no field of this name in source 'odd'"},
    {break_eval_field, FTR_ERROR_NAME, "ftr_fit: input 'label' has no field of this name in source 'odd'"},
    {break_stranger, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: source 'stranger' belongs to another context"},
    {break_scalar_input, FTR_ERROR_RANK,
     "ftr_fit: input 'scalar' is a scalar, expected a batch as its first dimension"},
    {break_odd_batch, FTR_ERROR_SHAPE, "ftr_fit: input 'thirty' has a batch of 30, an earlier input has 16"},
    {break_empty_batch, FTR_ERROR_SHAPE, "ftr_fit: input 'empty' has a batch of 0, expected 1 or more"},
    {break_no_input, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: the loss depends on no input"},
};

static ftr_source *odd_source(ftr_context *context, const char *name, ftr_dtype label, int64_t features,
                              int32_t fields) {
    static const int64_t zeros[MOST * 8];
    ftr_field list[2] = {{"x", FTR_F32, FTR_SHAPE(features)}, {"label", label, ftr_scalar_shape()}};
    const void *arrays[2] = {zeros, zeros};
    ftr_source *source = NULL;
    FTR_TEST_OK(context, ftr_memory_source(context, name, 32, list, arrays, fields, &source));
    return source;
}

static void test_mistakes(void **state) {
    (void)state;
    static points data;
    make_points(&data, 3);
    ftr_context *stranger = ftr_test_context();
    ftr_test_memory memory = {0};
    trial t = {.context = ftr_test_context_with(NULL, 1, 1, &memory)};
    t.m = make_model(t.context, 16, false, 0.0);
    t.train = points_source(t.context, "train", &data, 0, 40);
    t.eval = points_source(t.context, "few", &data, 0, 9);
    t.wrong_dtype = odd_source(t.context, "odd", FTR_I64, FEATURES, 2);
    t.wrong_shape = odd_source(t.context, "odd", FTR_I32, 5, 2);
    t.no_label = odd_source(t.context, "odd", FTR_I32, FEATURES, 1);
    t.stranger = points_source(stranger, "stranger", &data, 0, 40);
    t.other_graph = ftr_graph_create(t.context);
    t.other = ftr_scalar(t.other_graph, FTR_F32, 1.0);
    t.vector = ftr_sum(t.m.logits, FTR_AXES(0), false);
    t.integer = ftr_sum(t.m.label, ftr_all_axes(), false);
    t.odd_input = ftr_scalar(t.m.graph, FTR_F32, 1.0);
    t.odd_scalar = ftr_input(t.m.graph, "scalar", FTR_F32, ftr_scalar_shape());
    t.odd_batch = ftr_sum(ftr_input(t.m.graph, "thirty", FTR_F32, FTR_SHAPE(30, 2)), ftr_all_axes(), false);
    t.empty_batch = ftr_sum(ftr_input(t.m.graph, "empty", FTR_F32, FTR_SHAPE(0, 2)), ftr_all_axes(), false);
    FTR_TEST_GRAPH_OK(t.m.graph);
    FTR_TEST_GRAPH_OK(t.other_graph);
    int64_t blocks = memory.blocks;
    for (size_t i = 0; i < FTR_TEST_LENGTH(mistakes); i++) {
        ftr_train_desc desc = describe(&t.m, t.train, NULL);
        mistakes[i].make(&desc, &t);
        ftr_train_result result;
        ftr_status status = ftr_fit(t.m.graph, &desc, &result);
        if (mistakes[i].message) assert_string_equal(ftr_error_message(t.context), mistakes[i].message);
        assert_int_equal(status, mistakes[i].status);
        assert_int_equal(result.steps, 0);
        assert_in_range(memory.blocks - blocks, 0, 1); /* a compile may have made the graph's variables */
    }
    assert_int_equal(ftr_fit(NULL, NULL, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_fit(t.m.graph, NULL, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(t.context), "ftr_fit: desc is NULL");
    ftr_train_desc desc = describe(&t.m, NULL, NULL);
    assert_int_equal(ftr_evaluate(NULL, &desc, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_evaluate(t.m.graph, &desc, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(t.context), "ftr_evaluate: eval is NULL, expected a source");
    desc.eval = t.no_label;
    assert_int_equal(ftr_evaluate(t.m.graph, &desc, NULL), FTR_ERROR_NAME);
    assert_string_equal(ftr_error_message(t.context),
                        "ftr_evaluate: input 'label' has no field of this name in source 'odd'");
    ftr_source *sources[] = {t.train, t.eval, t.wrong_dtype, t.wrong_shape, t.no_label, t.stranger};
    for (size_t i = 0; i < FTR_TEST_LENGTH(sources); i++) ftr_source_destroy(sources[i]);
    ftr_graph_destroy(t.other_graph);
    ftr_graph_destroy(t.m.graph);
    ftr_context_destroy(t.context);
    ftr_context_destroy(stranger);
    assert_int_equal(memory.blocks, 0);
}

/* A graph whose building failed says so through ftr_fit(). */
static void test_broken_graph(void **state) {
    (void)state;
    static points data;
    make_points(&data, 3);
    ftr_context *context = ftr_test_context();
    model m = make_model(context, 8, false, 0.0);
    ftr_source *train = points_source(context, "train", &data, 0, 40);
    ftr_add(m.logits, m.label);
    char message[512];
    snprintf(message, sizeof message, "%s", ftr_graph_error(m.graph));
    ftr_status expected = ftr_graph_status(m.graph);
    assert_int_not_equal(expected, FTR_OK);
    ftr_train_desc desc = describe(&m, train, NULL);
    assert_int_equal(ftr_fit(m.graph, &desc, NULL), expected);
    assert_string_equal(ftr_error_message(context), message);
    ftr_source_destroy(train);
    ftr_graph_destroy(m.graph);
    ftr_context_destroy(context);
}

static void test_failures_in_the_run(void **state) {
    (void)state;
    static points data;
    make_points(&data, 3);
    ftr_context *context = ftr_test_context();
    model m = make_model(context, 8, false, 0.0);
    log_of_reads log = {.data = &data, .fail_at = 13};
    ftr_source *source = logged_source(context, &log, 32);
    ftr_train_desc desc = describe(&m, source, NULL);
    desc.no_shuffle = true;
    ftr_train_result result;
    assert_int_equal(ftr_fit(m.graph, &desc, &result), FTR_ERROR_IO);
    assert_string_equal(ftr_error_message(context), "source 'log': reading sample 13 failed with FTR_ERROR_IO");
    assert_int_equal(result.steps, 1);
    log.fail_at = -1;
    data.label[20] = 77; /* a label outside the classes fails the step and changes no parameter */
    float before[MOST_WEIGHTS], after[MOST_WEIGHTS];
    desc.max_steps = 2;
    FTR_TEST_OK(context, ftr_fit(m.graph, &desc, NULL));
    int count = read_weights(m.graph, before);
    ftr_train_desc eval = describe(&m, NULL, source);
    assert_int_equal(ftr_evaluate(m.graph, &eval, NULL), FTR_ERROR_DATA);
    assert_non_null(strstr(ftr_error_message(context), "77"));
    read_weights(m.graph, after);
    assert_memory_equal(before, after, (size_t)count * sizeof(float));
    ftr_source_destroy(source);
    ftr_graph_destroy(m.graph);
    ftr_context_destroy(context);
}

/* ------------------------------------------------------------------------------------------------------ progress -- */

typedef struct captured {
    char bar[256], lines[4096];
    int bars, clears, lines_count, warnings;
    size_t widest;
} captured;

static void capture(void *user, ftr_log_level level, bool transient, const char *message) {
    captured *log = (captured *)user;
    if (transient && !*message) log->clears++;
    if (transient && *message) {
        log->bars++;
        log->widest = strlen(message) > log->widest ? strlen(message) : log->widest;
        snprintf(log->bar, sizeof log->bar, "%s", message);
    }
    if (transient) return;
    log->lines_count++;
    if (level == FTR_LOG_WARNING) log->warnings++;
    size_t used = strlen(log->lines);
    snprintf(log->lines + used, sizeof log->lines - used, "%s\n", message);
}

/* Replaces each run of digits by one 9, so that texts with times and speeds can be compared. */
static void blur(char *text) {
    char *to = text;
    for (const char *from = text; *from; from++) {
        bool digit = *from >= '0' && *from <= '9';
        if (digit && to > text && to[-1] == '9') continue;
        *to++ = digit ? '9' : *from;
    }
    *to = 0;
}

static void run_captured(captured *log, ftr_progress progress, bool evaluate, int32_t metrics, bool nan_data) {
    static points data;
    make_points(&data, 3);
    if (nan_data) data.x[0][0] = NAN;
    memset(log, 0, sizeof *log);
    ftr_context_desc context_desc = {.seed = 1, .threads = 1, .logger = {log, capture}};
    ftr_context *context = NULL;
    assert_int_equal(ftr_context_create(&context_desc, &context), FTR_OK);
    model m = make_model(context, 8, false, 0.0);
    ftr_source *train = points_source(context, "train", &data, 0, 48),
               *eval = points_source(context, "eval", &data, 48, 16);
    ftr_train_desc desc = describe(&m, train, evaluate ? eval : NULL);
    static const char *const names[] = {"accuracy", "a long name of a metric", "another long name",
                                        "the last one of them"};
    for (int32_t i = 0; i < metrics; i++) desc.metrics[i] = (ftr_metric){names[i], m.accuracy};
    desc.metric_count = metrics;
    desc.epochs = 2;
    desc.progress = progress;
    FTR_TEST_OK(context, ftr_fit(m.graph, &desc, NULL));
    ftr_source_destroy(train);
    ftr_source_destroy(eval);
    ftr_graph_destroy(m.graph);
    ftr_context_destroy(context);
    blur(log->lines);
    blur(log->bar);
}

/* Speeds may or may not be in thousands or millions: "9.9k samples/s" to "9 samples/s". */
static void remove_unit(char *text) {
    static const char *const units[] = {"9.9k samples", "9.9M samples"};
    for (size_t i = 0; i < FTR_TEST_LENGTH(units); i++)
        for (char *found; (found = strstr(text, units[i])) != NULL;)
            memmove(found, found + 3, strlen(found + 3) + 1), *found = '9';
}

static void test_progress_lines(void **state) {
    (void)state;
    captured log;
    run_captured(&log, FTR_PROGRESS_LINES, true, 1, false);
    remove_unit(log.lines);
    const char *line = "epoch 9/9  loss 9.9  accuracy 9.9  eval loss 9.9  eval accuracy 9.9  9 samples/s  9:9\n";
    char expected[256];
    snprintf(expected, sizeof expected, "%s%s", line, line);
    assert_string_equal(log.lines, expected);
    assert_int_equal(log.bars, 0);
    run_captured(&log, FTR_PROGRESS_AUTO, false, 0, false); /* the logger is no terminal: lines */
    remove_unit(log.lines);
    assert_string_equal(log.lines, "epoch 9/9  loss 9.9  9 samples/s  9:9\nepoch 9/9  loss 9.9  9 samples/s  9:9\n");
    assert_int_equal(log.bars, 0);
}

static void test_progress_silent(void **state) {
    (void)state;
    captured log;
    run_captured(&log, FTR_PROGRESS_SILENT, true, 1, false);
    assert_int_equal(log.lines_count + log.bars + log.clears, 0);
}

static void test_progress_bar(void **state) {
    (void)state;
    captured log;
    run_captured(&log, FTR_PROGRESS_BAR, true, 1, false);
    assert_true(log.bars >= 1);
    assert_true(log.bars <= 3); /* at most ten a second */
    assert_int_equal(log.lines_count, 2);
    assert_in_range(log.widest, 60, 79);
    assert_non_null(strstr(log.bar, "epoch 9/9 ["));
    assert_non_null(strstr(log.bar, "] 9/9  loss 9.9  accuracy 9.9"));
    assert_non_null(strstr(log.bar, "/s  9:9 left"));
    run_captured(&log, FTR_PROGRESS_BAR, true, 4, false); /* what does not fit is left out */
    assert_in_range(log.widest, 60, 79);
    assert_non_null(strstr(log.bar, "/s  9:9 left"));
}

static void test_loss_warning(void **state) {
    (void)state;
    captured log;
    run_captured(&log, FTR_PROGRESS_SILENT, false, 1, true);
    assert_int_equal(log.warnings, 1);
    assert_int_equal(log.lines_count, 1);
    assert_string_equal(log.lines, "ftr_fit: the loss is NaN at step 9 (epoch 9); training goes on\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns),
        cmocka_unit_test(test_same_bits_at_any_thread_count),
        cmocka_unit_test(test_order_of_samples),
        cmocka_unit_test(test_padding_is_masked),
        cmocka_unit_test(test_evaluation_is_weighted),
        cmocka_unit_test(test_events_and_limits),
        cmocka_unit_test(test_early_stop_patience),
        cmocka_unit_test(test_early_stop_start_and_threshold),
        cmocka_unit_test(test_early_stop_restores_the_best),
        cmocka_unit_test(test_steps_allocate_nothing),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_broken_graph),
        cmocka_unit_test(test_failures_in_the_run),
        cmocka_unit_test(test_progress_lines),
        cmocka_unit_test(test_progress_silent),
        cmocka_unit_test(test_progress_bar),
        cmocka_unit_test(test_loss_warning),
    };
    return cmocka_run_group_tests_name("fit", tests, NULL, NULL);
}
