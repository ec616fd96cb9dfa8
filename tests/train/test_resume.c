/* A run that is stopped anywhere and resumed is the unbroken run: weights, optimizer, results. */
#include "ftr_folder.h"

#include <pthread.h>
#include <signal.h>

enum { BATCH = 6, FEATURES = 5, CLASSES = 3, SAMPLES = 40, HELD_OUT = 15, STEPS_PER_EPOCH = 7, MOST = 2048 };

/* A source's own settings. */
typedef struct reader {
    int64_t signal_at; /* SIGTERM comes with this sample; -1: never */
    int64_t passes;    /* how often the sample is read before */
    unsigned microseconds;
} reader;

/* Each sample is a pure function of its index, noise included. */
static ftr_status read_sample(void *user, int64_t index, void *const *fields) {
    reader *r = user;
    if (r->microseconds > 0) usleep(r->microseconds);
    if (index == r->signal_at && r->passes-- == 0) kill(getpid(), SIGTERM);
    ftr_test_rng rng = {(uint64_t)index * 977 + 13};
    float x[FEATURES];
    for (int i = 0; i < FEATURES; i++) x[i] = (float)ftr_test_uniform(&rng, -1.0, 1.0);
    memcpy(fields[0], x, sizeof x);
    *(int32_t *)fields[1] = x[0] + x[1] > 0.3f ? 0 : x[2] > x[3] ? 1 : 2;
    return FTR_OK;
}

typedef struct fixture {
    char folder[FTR_TEST_PATH]; /* where checkpoints go; it is not there yet */
    char made[FTR_TEST_PATH];
} fixture;

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    ftr_test_folder(f->made);
    ftr_test_path(f->folder, f->made, "a/run");
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    ftr_test_remove(f->made);
    free(f);
    return 0;
}

/* ---------------------------------------------------------------------------------------------------------- runs -- */

/* What a run is, and what came of it. */
typedef struct run {
    ftr_train_desc desc; /* loss, sources and metrics are filled in */
    ftr_optimizer optimizer;
    uint64_t seed;
    int64_t batch;
    int64_t samples;
    bool no_eval;
    int hidden;
    const char *metric;
    reader train, eval;
    bool has_plateau;
    ftr_plateau plateau; /* each run begins with it as it is here */
    ftr_status status;
    char message[512];
    ftr_train_result result;
    float weights[MOST];
    int weight_count;
    ftr_test_log log;
} run;

static run default_run(void) {
    run r;
    memset(&r, 0, sizeof r);
    r.desc = ftr_train_defaults();
    r.desc.epochs = 6;
    r.desc.last_batch = FTR_LAST_BATCH_PAD;
    r.desc.progress = FTR_PROGRESS_SILENT;
    r.desc.early_stop.metric = "loss";
    r.desc.early_stop.patience = 3;
    r.desc.early_stop.restore_best = true;
    r.optimizer = ftr_adamw(0.05);
    r.seed = 7;
    r.batch = BATCH;
    r.samples = SAMPLES;
    r.hidden = 8;
    r.metric = "accuracy";
    r.train.signal_at = r.eval.signal_at = -1;
    return r;
}

static void read_weights(run *r, ftr_graph *graph) {
    r->weight_count = 0;
    for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
        const ftr_tensor variable = ftr_variable_at(graph, i);
        const ftr_shape shape = ftr_shape_of(variable);
        const int count = (int)ftr_shape_count(&shape);
        assert_true(r->weight_count + count <= MOST);
        assert_int_equal(ftr_variable_read(variable, r->weights + r->weight_count, (size_t)count * sizeof(float)),
                         FTR_OK);
        r->weight_count += count;
    }
}

/* Batch norm, dropout, a mask, a metric. */
static void execute(run *r) {
    ftr_context_desc context_desc = {.seed = r->seed, .threads = 2, .log_level = FTR_LOG_INFO};
    context_desc.logger = ftr_test_logger(&r->log);
    memset(&r->log, 0, sizeof r->log);
    ftr_context *context = NULL;
    assert_int_equal(ftr_context_create(&context_desc, &context), FTR_OK);
    ftr_graph *graph = ftr_graph_create(context);
    ftr_batch_mask(graph, r->batch);
    const ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(r->batch, FEATURES));
    const ftr_tensor label = ftr_input(graph, "label", FTR_I32, FTR_SHAPE(r->batch));
    ftr_tensor h = ftr_relu(ftr_batch_norm(ftr_linear(x, "fc1", r->hidden, NULL), "bn", NULL));
    h = ftr_linear(ftr_dropout(h, 0.3), "fc2", CLASSES, NULL);
    const ftr_field fields[] = {{"x", FTR_F32, FTR_SHAPE(FEATURES)}, {"label", FTR_I32, ftr_scalar_shape()}};
    ftr_source_desc source = {.name = "train", .count = r->samples, .fields = fields, .field_count = 2};
    source.read = read_sample;
    source.user = &r->train;
    FTR_TEST_OK(context, ftr_source_create(context, &source, &r->desc.train));
    source.name = "held out";
    source.count = HELD_OUT;
    source.user = &r->eval;
    r->desc.eval = NULL;
    if (!r->no_eval) FTR_TEST_OK(context, ftr_source_create(context, &source, &r->desc.eval));
    r->desc.loss = ftr_cross_entropy(h, label, NULL);
    r->desc.metrics[0] = (ftr_metric){r->metric, ftr_accuracy(h, label)};
    r->desc.metric_count = 1;
    r->desc.optimizer = r->optimizer;
    ftr_plateau plateau = r->plateau;
    r->desc.plateau = r->has_plateau ? &plateau : NULL;
    FTR_TEST_GRAPH_OK(graph);
    r->status = ftr_fit(graph, &r->desc, &r->result);
    snprintf(r->message, sizeof r->message, "%s", r->status ? ftr_error_message(context) : "");
    read_weights(r, graph);
    ftr_source_destroy(r->desc.train);
    ftr_source_destroy(r->desc.eval);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

static void assert_ok(const run *r) {
    if (r->status != FTR_OK) fail_msg("%s: %s", ftr_status_name(r->status), r->message);
}

static void assert_same_bits(const char *what, const double *a, const double *b, int count) {
    for (int i = 0; i < count; i++)
        if (memcmp(&a[i], &b[i], sizeof(double)) != 0) fail_msg("%s[%d] is %.17g, expected %.17g", what, i, a[i], b[i]);
}

/* All but times. */
static void assert_same(const run *r, const run *whole) {
    assert_ok(r);
    assert_int_equal(r->weight_count, whole->weight_count);
    for (int i = 0; i < r->weight_count; i++)
        if (memcmp(&r->weights[i], &whole->weights[i], sizeof(float)) != 0)
            fail_msg("weight %d is %.9g, expected %.9g", i, (double)r->weights[i], (double)whole->weights[i]);
    assert_int_equal(r->result.epochs, whole->result.epochs);
    assert_int_equal(r->result.steps, whole->result.steps);
    assert_int_equal(r->result.best_epoch, whole->result.best_epoch);
    assert_int_equal(r->result.stopped_early, whole->result.stopped_early);
    assert_int_equal(r->result.preempted, whole->result.preempted);
    assert_same_bits("loss", &r->result.loss, &whole->result.loss, 1);
    assert_same_bits("eval_loss", &r->result.eval_loss, &whole->result.eval_loss, 1);
    assert_same_bits("metrics", r->result.metrics, whole->result.metrics, 1);
    assert_same_bits("eval_metrics", r->result.eval_metrics, whole->result.eval_metrics, 1);
}

/* A callback that stops the run after a step (step > 0), or after an epoch (epoch > 0). */
typedef struct stopper {
    int64_t step, epoch;
    int signal, repeats; /* raised instead of stopping */
} stopper;

static bool stop_there(void *user, const ftr_train_event *event) {
    const stopper *s = user;
    const bool there = event->kind == FTR_EVENT_STEP ? event->step == s->step : event->epoch + 1 == s->epoch;
    if (!there) return false;
    if (!s->signal) return true;
    for (int i = 0; i < s->repeats; i++) raise(s->signal);
    return false;
}

/* --------------------------------------------------------------------------------------------------------- tests -- */

static run *whole_run(const run *like) {
    run *whole = malloc(sizeof *whole);
    *whole = *like;
    whole->desc.checkpoint = (ftr_checkpoint_desc){.directory = NULL};
    whole->desc.resume = FTR_RESUME_NEVER;
    execute(whole);
    assert_ok(whole);
    return whole;
}

/* Stops after each step in turn, as a signal would or a callback does; then resumes. */
static void every_step(void **state) {
    fixture *f = *state;
    const ftr_optimizer optimizers[] = {ftr_sgd(0.1), ftr_adamw(0.05)};
    for (size_t o = 0; o < FTR_TEST_LENGTH(optimizers); o++) {
        run base = default_run();
        base.optimizer = optimizers[o];
        base.optimizer.momentum = base.optimizer.kind == FTR_OPTIMIZER_SGD ? 0.9 : 0.0;
        run *whole = whole_run(&base);
        assert_true(whole->result.steps >= 4 * STEPS_PER_EPOCH);
        for (int64_t step = 1; step <= whole->result.steps; step++) {
            for (int how = 0; how < 3; how++) {
                run *r = malloc(sizeof *r);
                *r = base;
                ftr_test_remove(f->folder);
                stopper there = {.step = step};
                if (how > 0) there.signal = how == 1 ? SIGTERM : SIGUSR1, there.repeats = 1;
                r->desc.handle_signals = how > 0;
                r->desc.on_event = stop_there;
                r->desc.on_event_user = &there;
                r->desc.checkpoint.directory = f->folder;
                r->desc.checkpoint.every_steps = 5;
                r->desc.resume = FTR_RESUME_AUTO;
                execute(r);
                assert_ok(r);
                assert_int_equal(r->result.resumed_at, -1);
                if (how > 0) assert_int_equal(r->result.signal, there.signal);
                r->desc.on_event = NULL;
                r->desc.resume = FTR_RESUME_MUST;
                execute(r);
                assert_true(r->result.resumed_at >= step); /* a callback at an epoch's last step does not stop it */
                assert_same(r, whole);
                execute(r); /* a run that is done */
                assert_int_equal(r->result.resumed_at, whole->result.steps);
                assert_same(r, whole);
                free(r);
            }
        }
        free(whole);
    }
}

/* Groups of micro-batches, averages, and updates that loss scaling leaves out. */
static run run_around(void) {
    run base = default_run();
    base.desc.accumulate = 4; /* of 7 steps an epoch */
    base.desc.average.kind = FTR_AVERAGE_EMA;
    base.desc.average.decay = 0.75;
    base.desc.average.warmup = true;
    base.desc.average.start = 2;
    base.desc.evaluate_average = true;
    base.optimizer.clip_norm = 0.5;
    base.desc.amp = FTR_AMP_FP16;
    base.desc.scaler.init_scale = ldexp(1, 21); /* overflows at first */
    base.desc.scaler.backoff_factor = 0.125;
    base.desc.scaler.growth_interval = 2;
    return base;
}

/* Stops within groups, and at their ends; with restore_best and with the averages at the end. */
static void within_groups(void **state) {
    fixture *f = *state;
    for (int how = 0; how < 3; how++) {
        run base = run_around();
        base.desc.early_stop.restore_best = how == 0;
        base.desc.finish_with_average = how == 1;
        base.desc.average.kind = how == 2 ? FTR_AVERAGE_SWA : base.desc.average.kind;
        run *whole = whole_run(&base);
        assert_true(whole->result.skipped_steps > 0 && whole->result.applied_steps > 3);
        for (int64_t step = 1; step <= whole->result.steps; step++) {
            run *r = malloc(sizeof *r);
            *r = base;
            ftr_test_remove(f->folder);
            stopper there = {.step = step};
            r->desc.on_event = stop_there;
            r->desc.on_event_user = &there;
            r->desc.checkpoint.directory = f->folder;
            r->desc.checkpoint.every_steps = 5;
            r->desc.resume = FTR_RESUME_AUTO;
            execute(r);
            assert_ok(r);
            r->desc.on_event = NULL;
            r->desc.resume = FTR_RESUME_MUST;
            execute(r);
            assert_true(r->result.resumed_at >= step);
            assert_same(r, whole);
            assert_int_equal(r->result.applied_steps, whole->result.applied_steps);
            assert_int_equal(r->result.unapplied_steps, whole->result.unapplied_steps);
            assert_int_equal(r->result.skipped_steps, whole->result.skipped_steps);
            free(r);
        }
        free(whole);
    }
}

/* Runs with checkpoints, from the description as it is. */
static void execute_in(run *r, const fixture *f, ftr_resume resume) {
    r->desc.checkpoint.directory = f->folder;
    r->desc.resume = resume;
    execute(r);
}

static run *copy_of(const run *base) {
    run *r = malloc(sizeof *r);
    *r = *base;
    return r;
}

/* A run that gets more epochs is the longer run. */
static void more_epochs(void **state) {
    run base = default_run();
    base.desc.epochs = 5;
    base.desc.early_stop.metric = NULL;
    run *whole = whole_run(&base), *r = copy_of(&base);
    r->desc.epochs = 2;
    execute_in(r, *state, FTR_RESUME_NEVER);
    assert_ok(r);
    assert_int_equal(r->result.steps, 2 * STEPS_PER_EPOCH);
    r->desc.epochs = 5;
    execute_in(r, *state, FTR_RESUME_MUST);
    assert_int_equal(r->result.resumed_at, 2 * STEPS_PER_EPOCH);
    assert_same(r, whole);
    free(whole);
    free(r);
}

/* max_steps cuts an epoch, which is evaluated all the same; more steps go on in the middle of it. */
static void more_steps(void **state) {
    run base = default_run();
    base.desc.max_steps = 2 * STEPS_PER_EPOCH + 3;
    run *cut = whole_run(&base), *r = copy_of(&base);
    execute_in(r, *state, FTR_RESUME_NEVER);
    assert_same(r, cut);
    execute_in(r, *state, FTR_RESUME_MUST);
    assert_int_equal(r->result.resumed_at, base.desc.max_steps);
    assert_same(r, cut);
    base.desc.max_steps = 4 * STEPS_PER_EPOCH + 1;
    run *whole = whole_run(&base);
    r->desc.max_steps = base.desc.max_steps;
    execute_in(r, *state, FTR_RESUME_MUST);
    assert_int_equal(r->result.resumed_at, cut->result.steps);
    assert_same(r, whole);
    free(cut);
    free(whole);
    free(r);
}

/* A signal in the middle of an evaluation: it is left, and done anew by the next run. */
static void signal_while_evaluating(void **state) {
    fixture *f = *state;
    run base = default_run();
    run *whole = whole_run(&base);
    for (int epoch = 0; epoch < 3; epoch++) {
        for (int64_t sample = 0; sample < HELD_OUT; sample += 7) {
            ftr_test_remove(f->folder);
            run *r = copy_of(&base);
            r->desc.handle_signals = true;
            r->eval.signal_at = sample;
            r->eval.passes = epoch;
            execute_in(r, f, FTR_RESUME_AUTO);
            assert_ok(r);
            const bool last_batch = sample >= HELD_OUT - HELD_OUT % BATCH; /* it is over before the signal is seen */
            assert_true(r->result.preempted);
            assert_int_equal(r->result.signal, SIGTERM);
            assert_int_equal(r->result.steps, (epoch + 1) * STEPS_PER_EPOCH);
            assert_int_equal(r->result.epochs, last_batch ? epoch + 1 : epoch);
            execute_in(r, f, FTR_RESUME_MUST);
            assert_same(r, whole);
            free(r);
        }
    }
    free(whole);
}

static bool is_blocked(int signal) {
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, NULL, &mask);
    return sigismember(&mask, signal) == 1;
}

typedef struct watcher {
    bool blocked;
} watcher;

static bool watch(void *user, const ftr_train_event *event) {
    (void)event;
    watcher *w = user;
    w->blocked = is_blocked(SIGTERM) && is_blocked(SIGUSR1);
    return false;
}

/* The mask is as it was after the run; without handle_signals it is not touched. Signals without a directory end the
 * run, and one that comes with the last step is told all the same. */
static void signal_mask(void **state) {
    (void)state;
    for (int handle = 0; handle < 2; handle++) {
        run *r = copy_of(&(run){0});
        *r = default_run();
        watcher w = {false};
        r->desc.handle_signals = handle;
        r->desc.on_event = watch;
        r->desc.on_event_user = &w;
        execute(r);
        assert_ok(r);
        assert_int_equal(w.blocked, handle);
        assert_false(is_blocked(SIGTERM) || is_blocked(SIGUSR1));
        free(r);
    }
    run *r = copy_of(&(run){0});
    *r = default_run();
    r->desc.handle_signals = true;
    r->train.signal_at = 11;
    execute(r);
    assert_ok(r);
    assert_true(r->result.preempted && r->result.steps > 0 && r->result.steps <= STEPS_PER_EPOCH);
    *r = default_run();
    r->desc.handle_signals = true;
    r->desc.epochs = 1;
    r->no_eval = true;
    r->desc.early_stop.metric = NULL;
    stopper last = {.step = STEPS_PER_EPOCH, .signal = SIGUSR1, .repeats = 1};
    r->desc.on_event = stop_there;
    r->desc.on_event_user = &last;
    execute(r);
    assert_ok(r);
    assert_false(r->result.preempted);
    assert_int_equal(r->result.signal, SIGUSR1);
    assert_int_equal(r->result.epochs, 1);
    free(r);
}

/* A budget of time: each call ends within it and gets on; together they are the whole run. */
static void max_seconds(void **state) {
    run base = default_run();
    base.train.microseconds = 1000;
    base.eval.microseconds = 1000;
    base.desc.early_stop.metric = NULL;
    base.desc.epochs = 3;
    run *whole = whole_run(&base), *r = copy_of(&base);
    int64_t last = -1;
    int calls = 0;
    r->desc.max_seconds = 0.12;
    for (bool done = false; !done; calls++) {
        assert_true(calls < 100);
        execute_in(r, *state, FTR_RESUME_AUTO);
        assert_ok(r);
        assert_int_equal(r->result.resumed_at, last);
        done = !r->result.preempted;
        if (!done && r->result.steps == last) fail_msg("call %d made no step", calls);
        last = r->result.steps;
    }
    assert_true(calls > 1);
    r->result.preempted = whole->result.preempted;
    assert_same(r, whole);
    free(whole);
    free(r);
}

/* ------------------------------------------------------------------------------------------------------ refusals -- */

static void assert_message(const run *r, ftr_status status, const char *folder, const char *format) {
    char expected[1024], *at = expected;
    for (const char *c = format; *c; c++) { /* '@' stands for the folder */
        if (*c == '@')
            at += sprintf(at, "%s", folder);
        else
            *at++ = *c;
    }
    *at = 0;
    assert_string_equal(r->message, expected);
    assert_int_equal(r->status, status);
}

static bool stop_at_once(void *user, const ftr_train_event *event) {
    (void)user;
    (void)event;
    return true;
}

static void refused(void **state) {
    fixture *f = *state;
    run base = default_run();
    base.desc.on_event = stop_at_once;
    run *first = copy_of(&base), *fresh = copy_of(&base), *r = copy_of(&base);
    execute_in(first, f, FTR_RESUME_NEVER);
    assert_ok(first);
    execute_in(fresh, f, FTR_RESUME_NEVER); /* refused before it changes anything */
    assert_message(fresh, FTR_ERROR_STATE, f->folder,
                   "ftr_fit: @: found 1 checkpoints of an earlier run: resume it (FTR_RESUME_AUTO), or take another "
                   "directory");
#define REFUSED(change, status, text)                                                                                  \
    do {                                                                                                               \
        *r = base;                                                                                                     \
        change;                                                                                                        \
        execute_in(r, f, FTR_RESUME_AUTO);                                                                             \
        assert_message(r, status, f->folder, text);                                                                    \
        assert_int_equal(r->result.steps, 0);                                                                          \
        if (r->weight_count == fresh->weight_count && r->seed == base.seed)                                            \
            assert_memory_equal(r->weights, fresh->weights, (size_t)r->weight_count * sizeof(float));                  \
    } while (0)
#define ANOTHER "@/step-000000000001: the checkpoint is of another "
    REFUSED(r->seed = 8, FTR_ERROR_STATE, ANOTHER "run: its seed is 7, the context's is 8");
    REFUSED(r->samples = 41, FTR_ERROR_STATE, ANOTHER "run: run.samples is 40 in it, and 41 here");
    REFUSED(r->desc.last_batch = FTR_LAST_BATCH_DROP, FTR_ERROR_STATE,
            ANOTHER "run: run.steps_per_epoch is 7 in it, and 6 here");
    REFUSED(r->desc.no_shuffle = true, FTR_ERROR_STATE, ANOTHER "run: run.no_shuffle is false in it, and true here");
    REFUSED(r->optimizer.lr = 0.1, FTR_ERROR_STATE, ANOTHER "run: run.lr is 0.05 in it, and 0.1 here");
    REFUSED(r->optimizer.weight_decay = 0.0, FTR_ERROR_STATE,
            ANOTHER "run: plan.updates.optimizer.weight_decay is 0.01 in it, and 0 here");
    REFUSED(r->optimizer.no_decay_norms_biases = true, FTR_ERROR_STATE,
            ANOTHER "run: plan.updates.optimizer.tensors is 28 in it, and 12 here");
    REFUSED(r->optimizer = ftr_adam(0.05), FTR_ERROR_STATE,
            ANOTHER "run: plan.updates.optimizer.op is 'adamw_update' in it, and 'adam_update' here");
    REFUSED(r->metric = "hits", FTR_ERROR_STATE, ANOTHER "run: run.metric_name_0 is 'accuracy' in it, and 'hits' here");
    REFUSED(r->desc.early_stop.metric = "accuracy", FTR_ERROR_STATE,
            ANOTHER "run: run.early_stop_metric is 'loss' in it, and 'accuracy' here");
    REFUSED(r->no_eval = true, FTR_ERROR_STATE, ANOTHER "run: run.metrics_of_evaluation is true in it, and false here");
    REFUSED(r->batch = 7; r->samples = 40; r->desc.last_batch = FTR_LAST_BATCH_PAD, FTR_ERROR_STATE,
                                           ANOTHER "run: run.steps_per_epoch is 7 in it, and 6 here");
    REFUSED((r->hidden = 9), FTR_ERROR_SHAPE,
            ANOTHER "model or optimizer: weights: 'fc1.weight' is F32 [8, 5], expected f32 [9, 5]");
    REFUSED(r->desc.accumulate = 2, FTR_ERROR_STATE, ANOTHER "run: plan.accumulate is 1 in it, and 2 here");
    REFUSED(r->desc.average.kind = FTR_AVERAGE_EMA, FTR_ERROR_STATE,
            ANOTHER "run: its optimizer has no 'average', a average_update");
    REFUSED(r->desc.average.kind = FTR_AVERAGE_EMA; r->desc.evaluate_average = true, FTR_ERROR_STATE,
                                                    ANOTHER "run: run.evaluate_average is 0 in it, and 1 here");
    free(first);
    free(fresh);
    free(r);
}

/* Of a run with groups and averages. */
static void refused_around(void **state) {
    fixture *f = *state;
    run base = run_around();
    base.desc.on_event = stop_at_once;
    run *first = copy_of(&base), *fresh = copy_of(&base), *r = copy_of(&base);
    execute_in(first, f, FTR_RESUME_NEVER);
    assert_ok(first);
    execute_in(fresh, f, FTR_RESUME_NEVER);
    REFUSED(r->desc.accumulate = 1, FTR_ERROR_STATE, ANOTHER "run: plan.accumulate is 4 in it, and 1 here");
    REFUSED(r->desc.evaluate_average = false, FTR_ERROR_STATE,
            ANOTHER "run: run.evaluate_average is 1 in it, and 0 here");
    REFUSED(r->desc.average.decay = 0.5, FTR_ERROR_STATE,
            ANOTHER "run: plan.updates.average.decay is 0.75 in it, and 0.5 here");
    REFUSED(r->desc.average.start = 3, FTR_ERROR_STATE,
            ANOTHER "run: plan.updates.average.start is 2 in it, and 3 here");
    REFUSED(r->desc.average.warmup = false, FTR_ERROR_STATE,
            ANOTHER "run: plan.updates.average.warmup_gamma is 1 in it, and 0 here");
    REFUSED(r->desc.average.copy_buffers = true, FTR_ERROR_STATE,
            ANOTHER "run: its optimizer has no 'average.buffers', a average_update");
    free(first);
    free(fresh);
    free(r);
}

/* 36 samples are 6 steps of 6, and as many of 7 if the last batch is padded: the inputs' shapes tell them apart. */
static void refused_batch(void **state) {
    fixture *f = *state;
    run base = default_run();
    base.samples = 36;
    base.desc.on_event = stop_at_once;
    run *r = copy_of(&base);
    execute_in(r, f, FTR_RESUME_NEVER);
    assert_ok(r);
    *r = base;
    r->batch = 7;
    execute_in(r, f, FTR_RESUME_MUST);
    assert_message(
        r, FTR_ERROR_STATE, f->folder,
        "@/step-000000000001: the checkpoint is of another run: plan.inputs.batch_mask is 'f32 [6]' in it, and "
        "'f32 [7]' here");
    free(r);
}

/* Schedules of all shapes, and a plateau: the learning rate of each step is that of the unbroken run. */
static void schedules(void **state) {
    fixture *f = *state;
    const int64_t milestones[] = {3, 9}, parts_at[] = {10};
    const ftr_schedule parts[] = {ftr_schedule_linear(0.1, 1.0, 5), ftr_schedule_cosine(8, 0.001)};
    ftr_schedule epochs = ftr_schedule_exponential(0.5);
    epochs.per_epoch = true;
    const ftr_schedule all[] = {ftr_schedule_cosine(40, 0.0), ftr_schedule_multi_step(milestones, 2, 0.3),
                                ftr_schedule_chain(parts, parts_at, 1), epochs, ftr_schedule_one_cycle(42)};
    for (size_t i = 0; i < FTR_TEST_LENGTH(all); i++) {
        run base = default_run();
        base.desc.early_stop.metric = NULL;
        base.desc.epochs = 4;
        base.desc.schedule = all[i];
        base.has_plateau = i % 2 == 0;
        base.plateau = ftr_plateau_defaults();
        base.plateau.patience = 0;
        base.plateau.threshold = 0.5; /* no epoch is that much better */
        base.plateau.factor = 0.7;
        run *whole = whole_run(&base), *r = copy_of(&base);
        for (int64_t step = 1; step <= whole->result.steps; step += 3) {
            *r = base;
            ftr_test_remove(f->folder);
            stopper there = {.step = step};
            r->desc.on_event = stop_there;
            r->desc.on_event_user = &there;
            execute_in(r, f, FTR_RESUME_AUTO);
            assert_ok(r);
            r->desc.on_event = NULL;
            execute_in(r, f, FTR_RESUME_MUST);
            assert_same(r, whole);
        }
        free(whole);
        free(r);
    }
}

static void refused_schedules(void **state) {
    fixture *f = *state;
    const int64_t at[] = {3, 9}, later[] = {3, 10};
    const ftr_schedule parts[] = {ftr_schedule_constant(), ftr_schedule_cosine(8, 0.001), ftr_schedule_constant()};
    const ftr_schedule others[] = {ftr_schedule_constant(), ftr_schedule_cosine(9, 0.001), ftr_schedule_constant()};
    run base = default_run();
    base.desc.epochs = 1;
    base.desc.schedule = ftr_schedule_chain(parts, at, 2);
    base.has_plateau = true;
    base.plateau = ftr_plateau_defaults();
    run *r = copy_of(&base);
    execute_in(r, f, FTR_RESUME_NEVER);
    assert_ok(r);
#define DIFFERS(change, text)                                                                                          \
    do {                                                                                                               \
        *r = base;                                                                                                     \
        change;                                                                                                        \
        execute_in(r, f, FTR_RESUME_AUTO);                                                                             \
        assert_message(r, FTR_ERROR_STATE, f->folder, "@/step-000000000007: the checkpoint is of another run: " text); \
    } while (0)
    DIFFERS(r->desc.schedule.milestones = later, "run.schedule.milestone_1 is 9 in it, and 10 here");
    DIFFERS(r->desc.schedule.parts = others, "run.schedule.part_1.steps is 8 in it, and 9 here");
    DIFFERS(r->desc.schedule.warmup_steps = 2, "run.schedule.warmup_steps is 0 in it, and 2 here");
    DIFFERS(r->desc.schedule = (ftr_schedule){.cookie = 0}, "it has a run.schedule, and there is none here");
    DIFFERS(r->has_plateau = false, "it has a run.plateau, and there is none here");
    DIFFERS(r->plateau.factor = 0.2, "run.plateau.factor is 0.1 in it, and 0.2 here");
    DIFFERS(r->desc.plateau_metric = "accuracy", "run.plateau.metric is 'loss' in it, and 'accuracy' here");
    free(r);
}

static void refused_description(void **state) {
    fixture *f = *state;
    run base = default_run(), *r = copy_of(&base);
#define BAD(change, status, text)                                                                                      \
    do {                                                                                                               \
        *r = base;                                                                                                     \
        r->desc.checkpoint.directory = f->folder;                                                                      \
        change;                                                                                                        \
        execute(r);                                                                                                    \
        assert_message(r, status, f->folder, text);                                                                    \
    } while (0)
    BAD(r->desc.resume = FTR_RESUME_MUST, FTR_ERROR_STATE,
        "ftr_fit: @: found no checkpoint, expected one (FTR_RESUME_MUST)");
    BAD(r->desc.checkpoint.directory = NULL; r->desc.resume = FTR_RESUME_AUTO, FTR_ERROR_INVALID_ARGUMENT,
                                             "ftr_fit: resume is set, but checkpoint.directory is NULL");
    BAD(r->desc.resume = (ftr_resume)3, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: resume is 3, expected one of ftr_resume");
    BAD(r->desc.max_seconds = -1.0, FTR_ERROR_INVALID_ARGUMENT,
        "ftr_fit: max_seconds is -1, expected 0 (no limit) or more");
    BAD(r->desc.checkpoint.metric = "f1", FTR_ERROR_NAME,
        "ftr_fit: checkpoint.metric is 'f1', expected 'loss' or the name of a metric");
    BAD(r->desc.checkpoint.keep_best = 2, FTR_ERROR_INVALID_ARGUMENT,
        "ftr_fit: checkpoint.keep_best is 2, but checkpoint.metric is NULL");
    BAD(r->desc.checkpoint.keep_best = 2; r->desc.checkpoint.metric = "loss";
        r->desc.checkpoint.every_steps = 3, FTR_ERROR_INVALID_ARGUMENT,
        "ftr_fit: checkpoint.keep_best is 2, but no checkpoint is written at the end of an epoch: set "
        "checkpoint.every_epochs");
    BAD(r->desc.checkpoint.every_steps = -1, FTR_ERROR_INVALID_ARGUMENT,
        "checkpoint: every_steps is -1, every_epochs 0, expected 0 or more");
    BAD(r->desc.checkpoint.every_seconds = -2.0, FTR_ERROR_INVALID_ARGUMENT,
        "checkpoint: every_seconds is -2, mtbf_seconds 0, expected 0 or more");
    BAD(r->desc.checkpoint.keep_last = -1, FTR_ERROR_INVALID_ARGUMENT,
        "checkpoint: keep_last is -1, keep_best 0, expected 0 or more");
    BAD(r->desc.checkpoint.when_busy = (ftr_checkpoint_busy)2, FTR_ERROR_INVALID_ARGUMENT,
        "checkpoint: when_busy is 2, expected one of ftr_checkpoint_busy");
    BAD(r->desc.checkpoint.on_failure = (ftr_checkpoint_failure)2, FTR_ERROR_INVALID_ARGUMENT,
        "checkpoint: on_failure is 2, expected one of ftr_checkpoint_failure");
    BAD(r->desc.checkpoint.directory = "", FTR_ERROR_INVALID_ARGUMENT, "checkpoint: directory is empty");
    BAD(r->desc.checkpoint.directory = "/dev/null/x", FTR_ERROR_IO, "/dev/null: mkdir: Not a directory");
    free(r);
}

/* ------------------------------------------------------------------------------------------ when, and what stays -- */

/* Names of the checkpoints in a folder, the newest first, and their metrics. */
typedef struct listing {
    char text[1024];
} listing;

static void list_one(void *user, const char *path, ftr_status status, const char *message, const ftr_checkpoint *one) {
    listing *l = user;
    (void)message;
    const size_t used = strlen(l->text);
    snprintf(l->text + used, sizeof l->text - used, "%s%s", strstr(path, "step-0") + strlen("step-000000000"),
             status ? "! " : " ");
    if (status == FTR_OK) assert_string_equal(ftr_checkpoint_info_of(one).path, path);
}

static void assert_steps(const fixture *f, const char *expected) {
    listing l = {""};
    ftr_context *context = ftr_test_context();
    FTR_TEST_OK(context, ftr_checkpoint_list(context, f->folder, list_one, &l));
    ftr_context_destroy(context);
    assert_string_equal(l.text, expected);
}

static void intervals(void **state) {
    fixture *f = *state;
    run base = default_run(), *r = copy_of(&base);
    base.desc.epochs = 3;
    base.desc.checkpoint.keep_last = 100;
#define STEPS(change, expected)                                                                                        \
    do {                                                                                                               \
        *r = base;                                                                                                     \
        change;                                                                                                        \
        ftr_test_remove(f->folder);                                                                                    \
        execute_in(r, f, FTR_RESUME_NEVER);                                                                            \
        assert_ok(r);                                                                                                  \
        assert_steps(f, expected);                                                                                     \
        assert_int_equal(r->result.checkpoints.failed, 0);                                                             \
    } while (0)
    STEPS((void)0, "021 014 007 "); /* without an interval: after each epoch */
    STEPS(r->desc.checkpoint.every_epochs = 2, "021 014 ");
    STEPS(r->desc.checkpoint.every_steps = 4, "021 020 016 012 008 004 ");
    /* both at step 14: once, after the evaluation; steps' alone at step 7 is before it */
    STEPS(r->desc.checkpoint.every_steps = 7; r->desc.checkpoint.every_epochs = 2, "021.1 014 007 ");
    STEPS(r->desc.checkpoint.every_steps = 2; r->desc.checkpoint.keep_last = 2, "021 020 ");
    STEPS(r->desc.checkpoint.keep_last = 0; r->desc.checkpoint.every_steps = 1, "021.1 020 019 ");
    free(r);
}

static int64_t saves(run *base, const fixture *f) {
    ftr_test_remove(f->folder);
    execute_in(base, f, FTR_RESUME_NEVER);
    assert_ok(base);
    return base->result.checkpoints.saved + base->result.checkpoints.skipped;
}

/* Intervals of time: as many saves as fit, give or take what the machine does. */
static void timed(void **state) {
    run base = default_run(), *r = copy_of(&base);
    r->desc.epochs = 3;
    r->train.microseconds = 400; /* 21 steps of 2.4 ms or more, at least 50 ms */
    r->desc.checkpoint.every_seconds = 1000.0;
    assert_int_equal(saves(r, *state), 1); /* the one at the end */
    r->desc.checkpoint.every_seconds = 0.01;
    const int64_t often = saves(r, *state);
    assert_true(often >= 3 && often <= 22);
    r->desc.checkpoint.every_seconds = 0.0;
    r->desc.checkpoint.mtbf_seconds = 1e9; /* sqrt(2 * 1e-6 * 1e9) s and more */
    assert_int_equal(saves(r, *state), 2); /* after the first step, and at the end */
    r->desc.checkpoint.mtbf_seconds = 1e-12;
    assert_true(saves(r, *state) >= 4);
    free(r);
}

typedef struct epochs_seen {
    double loss[16];
} epochs_seen;

static bool note_epoch(void *user, const ftr_train_event *event) {
    epochs_seen *seen = user;
    if (event->kind == FTR_EVENT_EPOCH) seen->loss[event->epoch] = event->eval_loss;
    return false;
}

/* The best by the metric stay, across a resume too. */
static void keep_best(void **state) {
    fixture *f = *state;
    run base = default_run(), *r = copy_of(&base);
    epochs_seen seen;
    r->desc.epochs = 8;
    r->desc.early_stop.metric = NULL;
    r->optimizer = ftr_sgd(1.5); /* wild: the best are not the last */
    r->desc.on_event = note_epoch;
    r->desc.on_event_user = &seen;
    r->desc.checkpoint.keep_last = 1;
    r->desc.checkpoint.keep_best = 2;
    r->desc.checkpoint.metric = "loss";
    r->desc.epochs = 5;
    execute_in(r, f, FTR_RESUME_NEVER);
    assert_ok(r);
    r->desc.epochs = 8;
    execute_in(r, f, FTR_RESUME_MUST);
    assert_ok(r);
    int best = -1, second = -1;
    for (int e = 0; e < 8; e++) {
        if (best < 0 || seen.loss[e] <= seen.loss[best])
            second = best, best = e;
        else if (second < 0 || seen.loss[e] <= seen.loss[second])
            second = e;
    }
    char expected[256] = "";
    for (int e = 7; e >= 0; e--) {
        if (e != 7 && e != best && e != second) continue;
        sprintf(expected + strlen(expected), "%03d ", (e + 1) * STEPS_PER_EPOCH);
    }
    assert_true(best != 7 && second != 7); /* otherwise this shows nothing */
    assert_steps(f, expected);
    free(r);
}

/* What the log says of a damaged checkpoint, and that the one before is taken. */
static void damaged_newest(void **state) {
    fixture *f = *state;
    run base = default_run();
    base.desc.early_stop.metric = NULL;
    run *whole = whole_run(&base), *r = copy_of(&base);
    r->desc.epochs = 3;
    execute_in(r, f, FTR_RESUME_NEVER);
    assert_ok(r);
    char path[FTR_TEST_PATH], expected[3 * FTR_TEST_PATH];
    size_t size;
    ftr_test_path(path, f->folder, "step-000000000021/optimizer.safetensors");
    unsigned char *bytes = ftr_test_read_file(path, &size);
    bytes[size - 5] ^= 0x10;
    ftr_test_write_file(path, bytes, size);
    free(bytes);
    r->desc.epochs = base.desc.epochs;
    execute_in(r, f, FTR_RESUME_AUTO);
    assert_int_equal(r->result.resumed_at, 14);
    assert_same(r, whole);
    snprintf(expected, sizeof expected, "a checkpoint is passed over: %s: the file is damaged: found %zu bytes", path,
             size);
    if (!strstr(r->log.text, expected)) fail_msg("found '%s'", r->log.text);
    assert_steps(f, "042 035 028 "); /* what was made anew has another name */
    free(whole);
    free(r);
}

/* A run that is resumed by another number of threads, on other instruction sets too, is another run's business: here
 * only the number of threads, which must not matter. Metadata come back. */
static void metadata(void **state) {
    fixture *f = *state;
    const char *pairs[] = {"data", "digits \"A\"\n", "note", "\xC3\xA9"};
    run base = default_run(), *r = copy_of(&base);
    r->desc.checkpoint.metadata = pairs;
    r->desc.checkpoint.metadata_count = 2;
    r->desc.checkpoint.metric = "accuracy";
    r->desc.epochs = 1;
    execute_in(r, f, FTR_RESUME_NEVER);
    assert_ok(r);
    ftr_context *context = ftr_test_context();
    ftr_checkpoint *checkpoint = NULL;
    FTR_TEST_OK(context, ftr_checkpoint_find(context, f->folder, &checkpoint));
    const ftr_checkpoint_info info = ftr_checkpoint_info_of(checkpoint);
    assert_int_equal(info.version, 1);
    assert_string_equal(info.fasttrain, "0.1.0");
    assert_int_equal(info.seed, 7);
    assert_int_equal(info.point.step, STEPS_PER_EPOCH);
    assert_int_equal(info.point.epoch, 0);
    assert_int_equal(info.point.position, STEPS_PER_EPOCH);
    assert_int_equal(info.applied_steps, STEPS_PER_EPOCH);
    assert_string_equal(info.metric_name, "accuracy");
    assert_same_bits("metric", &info.point.metric, r->result.eval_metrics, 1);
    assert_string_equal(ftr_checkpoint_metadata(checkpoint, "data"), pairs[1]);
    assert_string_equal(ftr_checkpoint_metadata(checkpoint, "note"), pairs[3]);
    assert_null(ftr_checkpoint_metadata(checkpoint, "other"));
    assert_non_null(ftr_checkpoint_tensors(checkpoint, "best"));
    assert_null(ftr_checkpoint_tensors(checkpoint, "ema"));
    ftr_checkpoint_close(checkpoint);
    ftr_context_destroy(context);
    free(r);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_step),     TEST(more_epochs),
        TEST(more_steps),     TEST(signal_while_evaluating),
        TEST(signal_mask),    TEST(max_seconds),
        TEST(refused),        TEST(refused_batch),
        TEST(intervals),      TEST(refused_description),
        TEST(timed),          TEST(keep_best),
        TEST(damaged_newest), TEST(metadata),
        TEST(schedules),      TEST(refused_schedules),
        TEST(within_groups),  TEST(refused_around),
    };
    return cmocka_run_group_tests_name("resume", tests, NULL, NULL);
}
