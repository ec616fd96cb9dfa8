/* Learning rate schedules: PyTorch's values over 240 steps (make_optimizers.py in tests/goldens has the same cases),
 * what lies beyond them, and ftr_fit() under a schedule. */
#include "ftr_test.h"

enum { LENGTH = 240 };
static const double BASE = 0.3;

/* PyTorch multiplies its way from step to step; the difference is rounding in double precision. */
static const double TOLERANCE = 1e-12;

static const int64_t milestones[] = {10, 50, 51, 200};

static ftr_schedule constant(void) { return ftr_schedule_constant(); }
static ftr_schedule step(void) { return ftr_schedule_step(30, 0.5); }
static ftr_schedule multi_step(void) { return ftr_schedule_multi_step(milestones, 4, 0.1); }
static ftr_schedule exponential(void) { return ftr_schedule_exponential(0.97); }
static ftr_schedule cosine(void) { return ftr_schedule_cosine(200, 0); }
static ftr_schedule cosine_min(void) { return ftr_schedule_cosine(70, 0.01); }
static ftr_schedule restarts(void) { return ftr_schedule_cosine_restarts(35, 1, 0); }
static ftr_schedule restarts_longer(void) { return ftr_schedule_cosine_restarts(10, 2, 0.001); }
static ftr_schedule linear(void) { return ftr_schedule_linear(1.0 / 3, 1.0, 50); }
static ftr_schedule linear_down(void) { return ftr_schedule_linear(1.0, 0.05, 180); }
static ftr_schedule polynomial(void) { return ftr_schedule_polynomial(150, 1.0); }
static ftr_schedule polynomial_2(void) { return ftr_schedule_polynomial(230, 2.5); }
static ftr_schedule one_cycle(void) { return ftr_schedule_one_cycle(LENGTH); }

static ftr_schedule one_cycle_linear(void) {
    ftr_schedule s = ftr_schedule_one_cycle(LENGTH);
    s.pct_start = 0.45, s.anneal = FTR_ANNEAL_LINEAR, s.div_factor = 10, s.final_div_factor = 100;
    return s;
}

static ftr_schedule one_cycle_three(void) {
    ftr_schedule s = ftr_schedule_one_cycle(LENGTH);
    s.pct_start = 0.4, s.three_phase = true;
    return s;
}

static ftr_schedule one_cycle_three_linear(void) {
    ftr_schedule s = ftr_schedule_one_cycle(LENGTH);
    s.pct_start = 0.25, s.three_phase = true, s.anneal = FTR_ANNEAL_LINEAR;
    return s;
}

static ftr_schedule warmed(int64_t steps, double factor, ftr_schedule s) {
    s.warmup_steps = steps, s.warmup_factor = factor;
    return s;
}

static ftr_schedule warm_cosine(void) { return warmed(20, 0.01, ftr_schedule_cosine(210, 0)); }
static ftr_schedule warm_step(void) { return warmed(7, 0.5, ftr_schedule_step(40, 0.3)); }
static ftr_schedule warm_constant(void) { return warmed(100, 1e-3, ftr_schedule_constant()); }
static ftr_schedule warm_polynomial(void) { return warmed(15, 1.0 / 15, ftr_schedule_polynomial(200, 0.9)); }
static ftr_schedule stable_decay(void) { return ftr_schedule_stable_decay(20, 120, 80); }

static ftr_schedule stable_decay_sqrt(void) {
    ftr_schedule s = ftr_schedule_stable_decay(0, 100, 130);
    s.anneal = FTR_ANNEAL_SQRT, s.end_factor = 0.1;
    return s;
}

static ftr_schedule stable_decay_cosine(void) {
    ftr_schedule s = ftr_schedule_stable_decay(40, 0, 200);
    s.anneal = FTR_ANNEAL_COSINE, s.end_factor = 0.01;
    return s;
}

static double root(void *user, double base_lr, int64_t t) { return base_lr / sqrt((double)t + *(const double *)user); }

static ftr_schedule function(void) {
    static double one = 1;
    return ftr_schedule_function(root, &one);
}

static ftr_schedule chain(void) {
    static const int64_t ends[] = {30, 150};
    static ftr_schedule parts[3];
    parts[0] = ftr_schedule_linear(0.1, 1.0, 30);
    parts[1] = ftr_schedule_exponential(0.98);
    parts[2] = ftr_schedule_cosine(60, 0.002);
    return ftr_schedule_chain(parts, ends, 2);
}

static ftr_schedule chain_of_steps(void) {
    static const int64_t end = 77;
    static ftr_schedule parts[2];
    parts[0] = ftr_schedule_step(10, 0.9);
    parts[1] = ftr_schedule_cosine_restarts(9, 2, 0);
    return ftr_schedule_chain(parts, &end, 1);
}

typedef struct golden_schedule {
    const char *name;
    ftr_schedule (*make)(void);
} golden_schedule;

static const golden_schedule cases[] = {
    {"constant", constant},
    {"step", step},
    {"multi step", multi_step},
    {"exponential", exponential},
    {"cosine", cosine},
    {"cosine min", cosine_min},
    {"restarts", restarts},
    {"restarts longer", restarts_longer},
    {"linear", linear},
    {"linear down", linear_down},
    {"polynomial", polynomial},
    {"polynomial 2", polynomial_2},
    {"one cycle", one_cycle},
    {"one cycle linear", one_cycle_linear},
    {"one cycle three", one_cycle_three},
    {"one cycle three linear", one_cycle_three_linear},
    {"warm cosine", warm_cosine},
    {"warm step", warm_step},
    {"warm constant", warm_constant},
    {"warm polynomial", warm_polynomial},
    {"stable decay", stable_decay},
    {"stable decay sqrt", stable_decay_sqrt},
    {"stable decay cosine", stable_decay_cosine},
    {"function", function},
    {"chain", chain},
    {"chain of steps", chain_of_steps},
};

static ftr_plateau plateau_default(void) { return ftr_plateau_defaults(); }

static ftr_plateau plateau_short(void) {
    ftr_plateau p = ftr_plateau_defaults();
    p.factor = 0.5, p.patience = 2, p.cooldown = 3, p.min_lr = 1e-3;
    return p;
}

static ftr_plateau plateau_max(void) {
    ftr_plateau p = ftr_plateau_defaults();
    p.maximize = true, p.factor = 0.3, p.patience = 3, p.threshold = 0.01;
    return p;
}

static ftr_plateau plateau_absolute(void) {
    ftr_plateau p = ftr_plateau_defaults();
    p.factor = 0.7, p.patience = 1, p.threshold = 0.05, p.threshold_absolute = true, p.eps = 1e-3;
    return p;
}

static ftr_plateau plateau_max_absolute(void) {
    ftr_plateau p = ftr_plateau_defaults();
    p.maximize = true, p.factor = 0.5, p.patience = 0, p.threshold = 0.02, p.threshold_absolute = true, p.cooldown = 5;
    return p;
}

static const struct {
    const char *name;
    ftr_plateau (*make)(void);
} plateaus[] = {{"plateau default", plateau_default},
                {"plateau short", plateau_short},
                {"plateau max", plateau_max},
                {"plateau absolute", plateau_absolute},
                {"plateau max absolute", plateau_max_absolute}};

/* --------------------------------------------------------------------------------------------------------- golden
 * -- */

static void read_rates(ftr_context *context, const char *name, double rates[LENGTH]) {
    ftr_safetensors *file = NULL;
    ftr_safetensors_entry entry;
    FTR_TEST_OK(context, ftr_safetensors_open(context, FTR_TEST_DATA "/goldens/schedules.safetensors", &file));
    assert_int_equal(ftr_safetensors_count(file), FTR_TEST_LENGTH(cases) + FTR_TEST_LENGTH(plateaus) + 1);
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
    const golden_schedule *c = (const golden_schedule *)*state;
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
    for (size_t i = 0; i < FTR_TEST_LENGTH(plateaus); i++) {
        ftr_plateau p = plateaus[i].make();
        double lr = BASE;
        int64_t changes = 0;
        read_rates(context, plateaus[i].name, expected);
        FTR_TEST_OK(context, ftr_plateau_check(context, &p));
        for (int t = 0; t < LENGTH; t++) {
            if (t == LENGTH / 2) {
                ftr_plateau other = plateaus[i].make();
                other.best = p.best, other.bad_epochs = p.bad_epochs, other.cooldown_left = p.cooldown_left;
                p = other;
            }
            double before = lr;
            lr = ftr_plateau_step(&p, lr, metric[t]);
            changes += lr != before;
            expect_rate(plateaus[i].name, t, lr, expected[t]);
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
    enum { CASES = FTR_TEST_LENGTH(cases) };
    struct CMUnitTest tests[CASES + 6] = {cmocka_unit_test(test_plateaus),    cmocka_unit_test(test_ends),
                                          cmocka_unit_test(test_fit),         cmocka_unit_test(test_fit_without),
                                          cmocka_unit_test(test_fit_plateau), cmocka_unit_test(test_fit_refuses)};
    for (size_t i = 0; i < CASES; i++) {
        tests[6 + i] = (struct CMUnitTest){
            .name = cases[i].name, .test_func = test_golden, .initial_state = (void *)(uintptr_t)&cases[i]};
    }
    return cmocka_run_group_tests_name("schedules", tests, NULL, NULL);
}
