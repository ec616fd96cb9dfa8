/* Learning rate schedules: PyTorch's values over 240 steps (make_optimizers.py in tests/goldens has the same cases),
 * what lies beyond them, and ftr_fit() under a schedule. */
#include "ftr_test.h"
#include "schedule_cases.h"

enum { LENGTH = SCHEDULE_LENGTH };
static const double BASE = 0.3;

/* PyTorch multiplies its way from step to step; the difference is rounding in double precision. */
static const double TOLERANCE = 1e-12;

/* --------------------------------------------------------------------------------------------------------- golden
 * -- */

static void read_rates(ftr_context *context, const char *name, double rates[LENGTH]) {
    ftr_safetensors *file = NULL;
    ftr_safetensors_entry entry;
    FTR_TEST_OK(context, ftr_safetensors_open(context, FTR_TEST_DATA "/goldens/schedules.safetensors", &file));
    assert_int_equal(ftr_safetensors_count(file), SCHEDULE_CASES + PLATEAU_CASES + 1);
    assert_true(ftr_safetensors_find(file, name, &entry));
    assert_int_equal(entry.bytes, LENGTH * sizeof *rates);
    memcpy(rates, entry.data, entry.bytes);
    ftr_safetensors_close(file);
}

static void expect_rate(const char *name, int t, double found, double expected) {
    if (!(fabs(found - expected) <= TOLERANCE * fabs(expected) + 1e-16 * BASE)) {
        fail_msg("%s, step %d: %.17g, expected %.17g", name, t, found, expected);
    }
}

static void test_golden(void **state) {
    const schedule_case *c = (const schedule_case *)*state;
    ftr_context *context = ftr_test_context();
    ftr_schedule s = c->make();
    double expected[LENGTH];
    read_rates(context, c->name, expected);
    FTR_TEST_OK(context, ftr_schedule_check(context, &s));
    for (int t = 0; t < LENGTH; t++) {
        expect_rate(c->name, t, ftr_schedule_lr(&s, BASE, t), expected[t]);
    }
    for (int t = LENGTH - 1; t >= 0; t -= 13) { /* the order of calls does not matter */
        expect_rate(c->name, t, ftr_schedule_lr(&s, BASE, t), expected[t]);
    }
    ftr_context_destroy(context);
}

/* Exactly PyTorch's decisions; rates are products of the same numbers. The state moves to another plateau half-way. */
static void test_plateaus(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    double metric[LENGTH], expected[LENGTH];
    read_rates(context, "metric", metric);
    for (size_t i = 0; i < PLATEAU_CASES; i++) {
        ftr_plateau p = plateau_cases[i].make();
        double lr = BASE;
        int64_t changes = 0;
        read_rates(context, plateau_cases[i].name, expected);
        FTR_TEST_OK(context, ftr_plateau_check(context, &p));
        for (int t = 0; t < LENGTH; t++) {
            if (t == LENGTH / 2) {
                ftr_plateau other = plateau_cases[i].make();
                other.best = p.best, other.bad_epochs = p.bad_epochs, other.cooldown_left = p.cooldown_left;
                p = other;
            }
            double before = lr;
            lr = ftr_plateau_step(&p, lr, metric[t]);
            changes += lr != before;
            expect_rate(plateau_cases[i].name, t, lr, expected[t]);
        }
        assert_true(changes > 0);
    }
    ftr_context_destroy(context);
}

/* ------------------------------------------------------------------------------------------------------- the ends
 * -- */

static void test_ends(void **state) {
    (void)state;
    ftr_schedule s = ftr_schedule_one_cycle(100);
    const double last = ftr_schedule_lr(&s, 1, 99);
    expect_rate("one cycle", 99, last, 1.0 / 25 / 1e4);
    assert_true(ftr_schedule_lr(&s, 1, 100) == last && ftr_schedule_lr(&s, 1, INT64_MAX) == last);
    s = ftr_schedule_one_cycle(1);
    assert_true(isfinite(ftr_schedule_lr(&s, 1, 0)));
    s = ftr_schedule_cosine_restarts(1000, 1000000, 0.5);
    assert_true(isfinite(ftr_schedule_lr(&s, 1, INT64_MAX)));
    s = ftr_schedule_polynomial(10, 0);
    assert_true(ftr_schedule_lr(&s, 1, 50) == 1);
    s = ftr_schedule_linear(0.5, 2, 4);
    assert_true(ftr_schedule_lr(&s, 1, INT64_MAX) == 2);
    assert_true(isnan(ftr_schedule_lr(&s, 1, -1)));
    assert_true(isnan(ftr_schedule_lr(NULL, 1, 0)));
    s.steps = 0;
    assert_true(isnan(ftr_schedule_lr(&s, 1, 0)));
    ftr_schedule none = {.kind = FTR_SCHEDULE_NONE};
    assert_true(isnan(ftr_schedule_lr(&none, 1, 0)));
    assert_true(ftr_plateau_step(NULL, 0.25, 1) == 0.25);
}

/* ----------------------------------------------------------------------------------------------------------- fit -- */

/* A model of one parameter, trained on 12 samples in batches of 3: four steps an epoch. */
typedef struct watched {
    ftr_context *context;
    ftr_graph *graph;
    ftr_source *source;
    ftr_train_desc desc;
    double rates[64], epoch_rates[16];
    int64_t steps, epochs;
} watched;

static bool watch(void *user, const ftr_train_event *event) {
    watched *w = (watched *)user;
    assert_true(event->lr == ftr_plan_lr(event->plan));
    if (event->kind == FTR_EVENT_STEP) {
        w->rates[w->steps++] = event->lr;
    } else {
        w->epoch_rates[w->epochs++] = event->lr;
    }
    return false;
}

static const float samples[12] = {0};

static void watched_begin(watched *w) {
    memset(w, 0, sizeof *w);
    w->context = ftr_test_context();
    w->graph = ftr_graph_create(w->context);
    ftr_tensor x = ftr_input(w->graph, "x", FTR_F32, FTR_SHAPE(3, 1));
    ftr_tensor y = ftr_linear(x, "fc", 1, NULL);
    const ftr_field field = {"x", FTR_F32, FTR_SHAPE(1)};
    const void *data = samples;
    FTR_TEST_OK(w->context, ftr_memory_source(w->context, "samples", 12, &field, &data, 1, &w->source));
    w->desc = ftr_train_defaults();
    w->desc.loss = ftr_mean(ftr_mul(y, y), ftr_all_axes(), false);
    w->desc.optimizer = ftr_sgd(BASE);
    w->desc.train = w->source;
    w->desc.epochs = 5;
    w->desc.progress = FTR_PROGRESS_SILENT;
    w->desc.on_event = watch;
    w->desc.on_event_user = w;
}

static void watched_end(watched *w) {
    ftr_source_destroy(w->source);
    ftr_graph_destroy(w->graph);
    ftr_context_destroy(w->context);
}

/* By steps and by epochs. The plan holds the rate in f32. */
static void test_fit(void **state) {
    (void)state;
    for (int per_epoch = 0; per_epoch < 2; per_epoch++) {
        watched w;
        watched_begin(&w);
        w.desc.schedule = ftr_schedule_cosine(20, 0.01);
        w.desc.schedule.warmup_steps = 3, w.desc.schedule.warmup_factor = 0.25;
        w.desc.schedule.per_epoch = per_epoch;
        FTR_TEST_OK(w.context, ftr_fit(w.graph, &w.desc, NULL));
        assert_int_equal(w.steps, 20);
        for (int64_t t = 0; t < w.steps; t++) {
            double expected = ftr_schedule_lr(&w.desc.schedule, BASE, per_epoch ? t / 4 : t);
            assert_true(w.rates[t] == (double)(float)expected);
        }
        watched_end(&w);
    }
}

/* Without a schedule the rate is the optimizer's and what a callback sets. */
static void test_fit_without(void **state) {
    (void)state;
    watched w;
    watched_begin(&w);
    FTR_TEST_OK(w.context, ftr_fit(w.graph, &w.desc, NULL));
    for (int64_t t = 0; t < w.steps; t++) {
        assert_true(w.rates[t] == (double)(float)BASE);
    }
    watched_end(&w);
}

/* The loss does not improve by 1000: every epoch but the first is bad, and the second of two lowers the rate. */
static void test_fit_plateau(void **state) {
    (void)state;
    for (int with_schedule = 0; with_schedule < 2; with_schedule++) {
        watched w;
        watched_begin(&w);
        ftr_plateau plateau = ftr_plateau_defaults();
        plateau.factor = 0.5, plateau.patience = 1, plateau.threshold = 1000, plateau.threshold_absolute = true;
        w.desc.plateau = &plateau;
        w.desc.plateau_metric = with_schedule ? "loss" : NULL;
        if (with_schedule) {
            w.desc.schedule = ftr_schedule_constant();
            w.desc.schedule.warmup_steps = 2, w.desc.schedule.warmup_factor = 0.5;
        }
        FTR_TEST_OK(w.context, ftr_fit(w.graph, &w.desc, NULL));
        for (int64_t t = 0; t < w.steps; t++) {
            double base = t < 12 ? BASE : BASE / 2, warm = !with_schedule || t > 1 ? 1 : t == 1 ? 0.75 : 0.5;
            assert_true(w.rates[t] == (double)(float)(base * warm));
        }
        assert_int_equal(plateau.bad_epochs, 0);
        assert_true(isfinite(plateau.best));
        watched_end(&w);
    }
}

static void expect_refused(void (*spoil)(watched *w), ftr_status status, const char *sentence) {
    watched w;
    watched_begin(&w);
    spoil(&w);
    assert_int_equal(ftr_fit(w.graph, &w.desc, NULL), status);
    assert_string_equal(ftr_error_message(w.context), sentence);
    assert_int_equal(w.steps, 0);
    watched_end(&w);
}

static ftr_plateau spoiled;

static void spoil_schedule(watched *w) { w->desc.schedule = ftr_schedule_cosine(0, 0); }
static void spoil_plateau(watched *w) {
    spoiled = ftr_plateau_defaults();
    spoiled.factor = 1;
    w->desc.plateau = &spoiled;
}
static void spoil_metric(watched *w) {
    spoiled = ftr_plateau_defaults();
    w->desc.plateau = &spoiled;
    w->desc.plateau_metric = "accuracy";
}
static void metric_alone(watched *w) { w->desc.plateau_metric = "loss"; }
static double no_rate(void *user, double base_lr, int64_t t) {
    (void)user, (void)base_lr, (void)t;
    return (double)NAN;
}
static void spoil_function(watched *w) { w->desc.schedule = ftr_schedule_function(no_rate, NULL); }

static void test_fit_refuses(void **state) {
    (void)state;
    expect_refused(spoil_schedule, FTR_ERROR_INVALID_ARGUMENT, "schedule: steps is 0, expected 1 or more");
    expect_refused(spoil_plateau, FTR_ERROR_INVALID_ARGUMENT, "plateau: factor is 1, expected above 0 and below 1");
    expect_refused(spoil_metric, FTR_ERROR_NAME,
                   "ftr_fit: plateau_metric is 'accuracy', expected 'loss' or the name of a metric");
    expect_refused(metric_alone, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: plateau_metric is 'loss', plateau is NULL");
    expect_refused(spoil_function, FTR_ERROR_INVALID_ARGUMENT,
                   "set_lr: lr is nan, expected a finite number of 0 or more");
}

int main(void) {
    enum { CASES = SCHEDULE_CASES };
    struct CMUnitTest tests[CASES + 6] = {cmocka_unit_test(test_plateaus),    cmocka_unit_test(test_ends),
                                          cmocka_unit_test(test_fit),         cmocka_unit_test(test_fit_without),
                                          cmocka_unit_test(test_fit_plateau), cmocka_unit_test(test_fit_refuses)};
    for (size_t i = 0; i < CASES; i++) {
        tests[6 + i] = (struct CMUnitTest){.name = schedule_cases[i].name,
                                           .test_func = test_golden,
                                           .initial_state = (void *)(uintptr_t)&schedule_cases[i]};
    }
    return cmocka_run_group_tests_name("schedules", tests, NULL, NULL);
}
