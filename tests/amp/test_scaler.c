/* Loss scaling and clipping by the norm against PyTorch's; what a step reports; steps that are left out; the search for
 * infinities and NaNs; the training loop in mixed precision. */
#include "networks.h"

#define SCALER_FILE FTR_TEST_DATA "/amp/data/scaler.safetensors"

typedef struct goldens {
    ftr_context *context;
    ftr_safetensors *file;
    char prefix[32];
} goldens;

static goldens open_goldens(void) {
    goldens g = {.context = ftr_test_context()};
    FTR_TEST_OK(g.context, ftr_safetensors_open(g.context, SCALER_FILE, &g.file));
    return g;
}

static void close_goldens(goldens *g) {
    ftr_safetensors_close(g->file);
    ftr_context_destroy(g->context);
}

static bool has(const goldens *g, const char *name, ftr_safetensors_entry *entry) {
    char full[96];
    snprintf(full, sizeof full, "%s%s", g->prefix, name);
    return ftr_safetensors_find(g->file, full, entry);
}

/* Element i of a golden tensor. */
static double at(const goldens *g, const char *name, int64_t i) {
    ftr_safetensors_entry entry;
    if (!has(g, name, &entry)) {
        fail_msg("no %s%s", g->prefix, name);
    }
    double result;
    size_t size = ftr_dtype_size(entry.dtype);
    assert_true((size_t)(i + 1) * size <= entry.bytes);
    char aligned[8];
    memcpy(aligned, (const char *)entry.data + (size_t)i * size, size);
    assert_true(ftr_convert(entry.dtype, aligned, FTR_F64, &result, 1));
    return result;
}

static int64_t length(const goldens *g, const char *name) {
    ftr_safetensors_entry entry;
    assert_true(has(g, name, &entry));
    return entry.dim[0];
}

/* --------------------------------------------------------------------------------------------------- the sequences -- */

/* The loss sum(p x), whose gradient is x. */
typedef struct line {
    ftr_context *context;
    ftr_graph *graph;
    ftr_tensor p, x, loss;
} line;

static line make_line(void) {
    line l = {.context = ftr_test_context()};
    l.graph = ftr_graph_create(l.context);
    l.p = ftr_parameter(l.graph, "p", FTR_F32, FTR_SHAPE(3), (ftr_init){FTR_INIT_ZEROS, 0, 0});
    l.x = ftr_input(l.graph, "x", FTR_F32, FTR_SHAPE(3));
    l.loss = ftr_sum(ftr_mul(l.p, l.x), ftr_all_axes(), false);
    return l;
}

static void free_line(line *l) {
    ftr_graph_destroy(l->graph);
    ftr_context_destroy(l->context);
}

static void feed_line(line *l, ftr_plan *plan, int64_t step, bool infinite) {
    const float x[3] = {0.25f * (float)(step % 5) - 0.5f, 1, infinite ? INFINITY : -0.75f};
    FTR_TEST_OK(l->context, ftr_feed(plan, l->x, x, sizeof x));
}

static double relative(double found, double expected) { return fabs(found - expected) / fmax(fabs(expected), 1e-30); }

static void run_sequence(const goldens *g) {
    line l = make_line();
    const float start[3] = {0.5f, -1.5f, 2};
    ftr_optimizer sgd = ftr_sgd(0.125);
    sgd.momentum = 0.5;
    sgd.clip_norm = at(g, "constants", 4);
    ftr_scaler_desc scaler = ftr_scaler_defaults();
    scaler.scaling = FTR_SCALING_DYNAMIC;
    scaler.init_scale = at(g, "constants", 0);
    scaler.growth_factor = at(g, "constants", 1);
    scaler.backoff_factor = at(g, "constants", 2);
    scaler.growth_interval = (int64_t)at(g, "constants", 3);
    ftr_plan *plan = NULL;
    FTR_TEST_OK(l.context, ftr_variable_write(l.p, start, sizeof start));
    FTR_TEST_OK(l.context,
                ftr_compile(l.graph, &(ftr_compile_desc){.loss = l.loss, .optimizer = &sgd, .scaler = &scaler}, &plan));
    int64_t steps = length(g, "infinite"), applied = 0;
    ftr_step_info info;
    for (int64_t i = 0; i < steps; i++) {
        float p[3];
        feed_line(&l, plan, i, at(g, "infinite", i) != 0);
        FTR_TEST_OK(l.context, ftr_step(plan, &info));
        applied += !info.skipped;
        if (info.loss_scale != at(g, "scales", i) || info.skipped != (at(g, "skipped", i) != 0)) {
            fail_msg("%sstep %d: scale %.9g, skipped %d; PyTorch has %.9g, %g", g->prefix, (int)i, info.loss_scale,
                     info.skipped, at(g, "scales", i), at(g, "skipped", i));
        }
        assert_int_equal(info.applied_steps, applied);
        assert_int_equal(info.step, i + 1);
        FTR_TEST_OK(l.context, ftr_variable_read(l.p, p, sizeof p));
        for (int k = 0; k < 3; k++) {
            if (relative(p[k], at(g, "parameters", 3 * i + k)) > 1e-6) {
                fail_msg("%sstep %d: parameter %d is %.9g, PyTorch has %.9g", g->prefix, (int)i, k, p[k],
                         at(g, "parameters", 3 * i + k));
            }
        }
    }
    feed_line(&l, plan, 0, false); /* what the scale is after the last step */
    FTR_TEST_OK(l.context, ftr_step(plan, &info));
    assert_true(info.loss_scale == at(g, "scales", steps));
    ftr_plan_destroy(plan);
    free_line(&l);
}

/* An infinity in each of the first 20 steps, then in many; constants whose products are rounded; a scale at its end. */
static void sequences_are_gradscalers(void **state) {
    (void)state;
    goldens g = open_goldens();
    ftr_safetensors_entry entry;
    int runs = 0;
    for (;; runs++) {
        snprintf(g.prefix, sizeof g.prefix, "run%d/", runs);
        if (!has(&g, "infinite", &entry)) {
            break;
        }
        run_sequence(&g);
    }
    assert_int_equal(runs, 23);
    close_goldens(&g);
}

/* ------------------------------------------------------------------------------------------------------- clipping -- */

/* The loss is the sum of all p g. */
static void run_clipping(const goldens *g, ftr_scaling scaling) {
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor loss = {NULL, 0}, p[8], x[8];
    int32_t count = 0;
    char name[16];
    ftr_safetensors_entry entry;
    for (;; count++) {
        snprintf(name, sizeof name, "p%d", (int)count);
        if (!has(g, name, &entry)) {
            break;
        }
        ftr_shape shape = {.rank = entry.rank};
        memcpy(shape.dim, entry.dim, (size_t)entry.rank * sizeof *entry.dim);
        p[count] = ftr_parameter(graph, name, FTR_F32, shape, (ftr_init){FTR_INIT_ZEROS, 0, 0});
        snprintf(name, sizeof name, "g%d", (int)count);
        x[count] = ftr_input(graph, name, FTR_F32, shape);
        ftr_tensor term = ftr_sum(ftr_mul(p[count], x[count]), ftr_all_axes(), false);
        loss = count ? ftr_add(loss, term) : term;
    }
    ftr_optimizer sgd = ftr_sgd(0.25);
    sgd.clip_norm = at(g, "max_norm", 0);
    ftr_scaler_desc scaler = ftr_scaler_defaults();
    scaler.scaling = scaling;
    ftr_plan *plan = NULL;
    ftr_compile_desc desc = {.loss = loss, .optimizer = &sgd, .scaler = &scaler};
    FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
    for (int32_t i = 0; i < count; i++) {
        float data[512];
        snprintf(name, sizeof name, "p%d", (int)i);
        assert_true(has(g, name, &entry) && entry.bytes <= sizeof data);
        memcpy(data, entry.data, entry.bytes);
        FTR_TEST_OK(context, ftr_variable_write(p[i], data, entry.bytes));
        snprintf(name, sizeof name, "g%d", (int)i);
        assert_true(has(g, name, &entry));
        memcpy(data, entry.data, entry.bytes);
        FTR_TEST_OK(context, ftr_feed(plan, x[i], data, entry.bytes));
    }
    ftr_step_info info;
    FTR_TEST_OK(context, ftr_step(plan, &info));
    if (relative(info.grad_norm, at(g, "norm", 0)) > 1e-6) {
        fail_msg("%snorm %.9g, PyTorch has %.9g", g->prefix, info.grad_norm, at(g, "norm", 0));
    }
    assert_false(info.skipped);
    for (int32_t i = 0; i < count; i++) {
        ftr_shape shape = ftr_shape_of(p[i]);
        float data[512];
        FTR_TEST_OK(context, ftr_variable_read(p[i], data, (size_t)ftr_shape_count(&shape) * sizeof *data));
        snprintf(name, sizeof name, "y%d", (int)i);
        for (int64_t k = 0; k < ftr_shape_count(&shape); k++) {
            double expected = at(g, name, k);
            if (fabs(data[k] - expected) > 1e-6 * fmax(1, fabs(expected))) {
                fail_msg("%s%s[%d] is %.9g, PyTorch has %.9g", g->prefix, name, (int)k, data[k], expected);
            }
        }
    }
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

static void clipping_is_pytorchs(void **state) {
    (void)state;
    goldens g = open_goldens();
    ftr_safetensors_entry entry;
    int runs = 0;
    for (;; runs++) {
        snprintf(g.prefix, sizeof g.prefix, "clip/%d/", runs);
        if (!has(&g, "norm", &entry)) {
            break;
        }
        run_clipping(&g, FTR_SCALING_OFF);
        run_clipping(&g, FTR_SCALING_DYNAMIC); /* the norm is that without the scale */
    }
    assert_int_equal(runs, 5);
    close_goldens(&g);
}

/* The norm has the same bits with any instruction set and number of threads. */
static void the_norm_has_one_order(void **state) {
    (void)state;
    static const char *const levels[] = {"portable", "neon", "avx2", "avx512"};
    enum { LARGE = 50021 };
    static float x[LARGE], p[LARGE];
    ftr_test_rng rng = {11};
    ftr_test_fill_f32(x, LARGE, &rng, -3, 3);
    double first = NAN;
    for (size_t l = 0; l < FTR_TEST_LENGTH(levels); l++) {
        for (int32_t threads = 1; threads < 5; threads += 3) {
            ftr_context_desc of = {.threads = threads, .log_level = FTR_LOG_SILENT};
            ftr_context *context = NULL;
            setenv("FASTTRAIN_SIMD", levels[l], 1);
            ftr_status status = ftr_context_create(&of, &context);
            unsetenv("FASTTRAIN_SIMD");
            if (status) {
                continue;
            }
            ftr_graph *graph = ftr_graph_create(context);
            ftr_tensor w = ftr_parameter(graph, "w", FTR_F32, FTR_SHAPE(LARGE), (ftr_init){FTR_INIT_ZEROS, 0, 0});
            ftr_tensor g = ftr_input(graph, "g", FTR_F32, FTR_SHAPE(LARGE));
            ftr_optimizer sgd = ftr_sgd(0);
            sgd.clip_norm = 1;
            ftr_plan *plan = NULL;
            ftr_compile_desc desc = {.loss = ftr_sum(ftr_mul(w, g), ftr_all_axes(), false), .optimizer = &sgd};
            ftr_step_info info;
            FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
            FTR_TEST_OK(context, ftr_variable_write(w, p, sizeof p));
            FTR_TEST_OK(context, ftr_feed(plan, g, x, sizeof x));
            FTR_TEST_OK(context, ftr_step(plan, &info));
            if (isnan(first)) {
                double sum = 0;
                for (int i = 0; i < LARGE; i++) {
                    sum += (double)x[i] * (double)x[i];
                }
                assert_true(relative(info.grad_norm, sqrt(sum)) < 1e-7);
                first = info.grad_norm;
            }
            assert_true(info.grad_norm == first);
            ftr_plan_destroy(plan);
            ftr_graph_destroy(graph);
            ftr_context_destroy(context);
        }
    }
    assert_false(isnan(first));
}

/* ------------------------------------------------------------------------------------------------- what steps tell -- */

/* Neither scaling nor clipping: nothing is computed for the report. */
static void a_plain_step_reports(void **state) {
    (void)state;
    line l = make_line();
    ftr_optimizer sgd = ftr_sgd(0.1);
    ftr_plan *plan = NULL;
    FTR_TEST_OK(l.context, ftr_compile(l.graph, &(ftr_compile_desc){.loss = l.loss, .optimizer = &sgd}, &plan));
    for (int step = 0; step < 3; step++) {
        ftr_step_info info;
        feed_line(&l, plan, 0, false);
        FTR_TEST_OK(l.context, ftr_step(plan, &info));
        assert_true(isnan(info.grad_norm) && info.loss_scale == 1 && !info.skipped);
        assert_int_equal(info.applied_steps, step + 1);
    }
    ftr_plan_destroy(plan);
    free_line(&l);
}

/* Without a scaler infinite gradients go into the parameters, as PyTorch's; with a fixed scale they do not, and it stays. */
static void scaling_off_and_fixed(void **state) {
    (void)state;
    for (int fixed = 0; fixed < 2; fixed++) {
        line l = make_line();
        ftr_optimizer sgd = ftr_sgd(0.125);
        ftr_scaler_desc scaler = ftr_scaler_defaults();
        scaler.scaling = fixed ? FTR_SCALING_FIXED : FTR_SCALING_OFF;
        scaler.init_scale = 48;
        ftr_plan *plan = NULL;
        ftr_compile_desc desc = {.loss = l.loss, .optimizer = &sgd, .scaler = &scaler, .amp = FTR_AMP_FP16};
        FTR_TEST_OK(l.context, ftr_compile(l.graph, &desc, &plan));
        ftr_step_info info;
        float p[3];
        for (int step = 0; step < 4; step++) {
            feed_line(&l, plan, step, step == 1);
            FTR_TEST_OK(l.context, ftr_step(plan, &info));
            assert_true(info.loss_scale == (fixed ? 48 : 1));
            assert_int_equal(info.skipped, fixed && step == 1);
        }
        FTR_TEST_OK(l.context, ftr_variable_read(l.p, p, sizeof p));
        assert_true(fixed ? p[2] == 3 * 0.75f * 0.125f : !isfinite(p[2]));
        assert_int_equal(info.applied_steps, fixed ? 3 : 4);
        ftr_plan_destroy(plan);
        free_line(&l);
    }
}

/* A step that is left out changes the scale and nothing else: no parameter, no moment, no running statistic. */
static void a_skipped_step_changes_nothing(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    float before[600], after[600];
    for (int run = 0; run < 2; run++) { /* without the bad step, and with it in the middle */
        ftr_graph *graph = ftr_graph_create(context);
        ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(6, 4)),
                   weight = ftr_input(graph, "weight", FTR_F32, FTR_SHAPE(6));
        ftr_tensor h = ftr_tanh(ftr_batch_norm(ftr_linear(x, "fc", 5, NULL), "bn", NULL));
        ftr_tensor y = ftr_sum(ftr_linear(h, "out", 1, NULL), FTR_AXES(1), false);
        ftr_tensor loss = ftr_sum(ftr_mul(y, weight), ftr_all_axes(), false);
        ftr_optimizer adamw = ftr_adamw(0.01);
        ftr_plan *plan = NULL;
        ftr_scaler_desc scaler = ftr_scaler_defaults();
        scaler.init_scale = 1024;
        ftr_compile_desc desc = {.loss = loss, .optimizer = &adamw, .amp = FTR_AMP_FP16, .scaler = &scaler};
        FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
        ftr_test_rng rng = {3};
        float data[24], ones[6] = {1, 1, 1, 1, 1, 1}, bad[6] = {1, 1, INFINITY, 1, 1, 1};
        ftr_step_info info;
        for (int step = 0; step < 4; step++) {
            ftr_test_fill_f32(data, 24, &rng, -1, 1);
            FTR_TEST_OK(context, ftr_feed(plan, x, data, sizeof data));
            if (run == 1 && step == 2) {
                FTR_TEST_OK(context, ftr_feed(plan, weight, bad, sizeof bad));
                FTR_TEST_OK(context, ftr_step(plan, &info));
                assert_true(info.skipped);
                assert_int_equal(info.applied_steps, 2);
            }
            FTR_TEST_OK(context, ftr_feed(plan, weight, ones, sizeof ones));
            FTR_TEST_OK(context, ftr_step(plan, &info));
            assert_false(info.skipped);
        }
        assert_int_equal(info.applied_steps, 4);
        assert_true(info.loss_scale == (run ? 512 : 1024));
        float *into = run ? after : before;
        for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
            ftr_shape shape = ftr_shape_of(ftr_variable_at(graph, i));
            FTR_TEST_OK(context, ftr_variable_read(ftr_variable_at(graph, i), into,
                                                   (size_t)ftr_shape_count(&shape) * sizeof *into));
            into += ftr_shape_count(&shape);
        }
        assert_memory_equal(run ? after : before, before, (size_t)(into - (run ? after : before)) * sizeof *into);
        ftr_plan_destroy(plan);
        ftr_graph_destroy(graph);
    }
    ftr_context_destroy(context);
}

static void wrong_descriptions(void **state) {
    (void)state;
    static const struct {
        ftr_scaler_desc change;
        const char *message;
    } cases[] = {
        {{.cookie = 1}, "scaler: the description was not made by ftr_scaler_defaults()"},
        {{.scaling = (ftr_scaling)4}, "scaler: scaling is 4, expected one of ftr_scaling"},
        {{.init_scale = -1}, "scaler: init_scale is -1, expected a finite f32 above 0"},
        {{.init_scale = 1e39}, "scaler: init_scale is 1e+39, expected a finite f32 above 0"},
        {{.init_scale = 1e-60}, "scaler: init_scale is 1e-60, expected a finite f32 above 0"},
        {{.growth_factor = 1}, "scaler: growth_factor is 1, expected a finite number above 1"},
        {{.growth_factor = INFINITY}, "scaler: growth_factor is inf, expected a finite number above 1"},
        {{.backoff_factor = 1}, "scaler: backoff_factor is 1, expected more than 0 and less than 1"},
        {{.backoff_factor = -0.5}, "scaler: backoff_factor is -0.5, expected more than 0 and less than 1"},
        {{.growth_interval = -3}, "scaler: growth_interval is -3, expected 1 or more"},
    };
    line l = make_line();
    ftr_optimizer sgd = ftr_sgd(0.1);
    ftr_plan *plan = NULL;
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        const ftr_scaler_desc *c = &cases[i].change;
        ftr_scaler_desc scaler = ftr_scaler_defaults();
        scaler.cookie = c->cookie ? c->cookie : scaler.cookie;
        scaler.scaling = c->scaling ? c->scaling : scaler.scaling;
        scaler.init_scale = c->init_scale != 0 ? c->init_scale : scaler.init_scale;
        scaler.growth_factor = c->growth_factor != 0 ? c->growth_factor : scaler.growth_factor;
        scaler.backoff_factor = c->backoff_factor != 0 ? c->backoff_factor : scaler.backoff_factor;
        scaler.growth_interval = c->growth_interval ? c->growth_interval : scaler.growth_interval;
        ftr_compile_desc desc = {.loss = l.loss, .optimizer = &sgd, .scaler = &scaler};
        assert_int_equal(ftr_compile(l.graph, &desc, &plan), FTR_ERROR_INVALID_ARGUMENT);
        assert_string_equal(ftr_error_message(l.context), cases[i].message);
    }
    sgd.clip_norm = -1;
    assert_int_equal(ftr_compile(l.graph, &(ftr_compile_desc){.loss = l.loss, .optimizer = &sgd}, &plan),
                     FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(l.context), "optimizer: clip_norm is -1, expected at least 0 and below inf");
    free_line(&l);
}

/* --------------------------------------------------------------------------------------- infinities and NaNs sought -- */

typedef struct searched {
    ftr_context *context;
    ftr_graph *graph;
    ftr_tensor x, w, loss;
    ftr_plan *plan;
} searched;

/* sum(sqrt(x) w / fc...) with a batch norm: sqrt has an infinite slope at 0 and no value below. */
static searched search(ftr_nonfinite how, ftr_amp amp, double init_scale) {
    searched s = {.context = ftr_test_context()};
    s.graph = ftr_graph_create(s.context);
    s.x = ftr_input(s.graph, "x", FTR_F32, FTR_SHAPE(2, 3));
    s.w = ftr_parameter(s.graph, "w", FTR_F32, FTR_SHAPE(2, 3), (ftr_init){FTR_INIT_CONSTANT, 1, 0});
    ftr_tensor root = ftr_sqrt(ftr_mul(s.x, s.w));
    ftr_tensor normed = ftr_batch_norm(root, "bn", NULL);
    s.loss = ftr_sum(ftr_add(ftr_linear(normed, "fc", 2, NULL), ftr_slice(root, 1, 0, 2, 1)), ftr_all_axes(), false);
    ftr_optimizer sgd = ftr_sgd(0.1);
    ftr_scaler_desc scaler = ftr_scaler_defaults();
    scaler.init_scale = init_scale;
    ftr_compile_desc desc = {.loss = s.loss, .optimizer = &sgd, .amp = amp, .scaler = &scaler, .debug_nonfinite = how};
    FTR_TEST_OK(s.context, ftr_compile(s.graph, &desc, &s.plan));
    return s;
}

static void free_search(searched *s) {
    ftr_plan_destroy(s->plan);
    ftr_graph_destroy(s->graph);
    ftr_context_destroy(s->context);
}

static ftr_status step_on(searched *s, const float data[6], ftr_step_info *info) {
    FTR_TEST_OK(s->context, ftr_feed(s->plan, s->x, data, sizeof(float[6])));
    return ftr_step(s->plan, info);
}

/* All variables, w first. */
static void read_all(searched *s, float values[64]) {
    for (int32_t i = 0; i < ftr_variable_count(s->graph); i++) {
        ftr_shape shape = ftr_shape_of(ftr_variable_at(s->graph, i));
        FTR_TEST_OK(s->context, ftr_variable_read(ftr_variable_at(s->graph, i), values,
                                                  (size_t)ftr_shape_count(&shape) * sizeof *values));
        values += ftr_shape_count(&shape);
    }
}

static const float good[6] = {1, 2, 3, 4, 5, 6}, negative[6] = {1, 2, 3, 4, -5, 6}, zero[6] = {1, 2, 3, 4, 0, 6};
static const float with_nan[6] = {1, 2, NAN, 4, 5, 6};

static void expect_found(searched *s, const float data[6], const char *message) {
    float before[64] = {0}, after[64] = {0};
    ftr_step_info info;
    uint64_t steps = ftr_plan_steps(s->plan);
    read_all(s, before);
    assert_int_equal(step_on(s, data, &info), FTR_ERROR_NONFINITE);
    assert_string_equal(ftr_error_message(s->context), message);
    read_all(s, after);
    assert_memory_equal(after, before, sizeof before);
    assert_int_equal(ftr_plan_steps(s->plan), steps);
}

static void the_first_node_is_named(void **state) {
    (void)state;
    ftr_step_info info;
    searched s = search(FTR_NONFINITE_REPORTED, FTR_AMP_OFF, 1);
    FTR_TEST_OK(s.context, step_on(&s, good, &info));
    expect_found(&s, negative,
                 "sqrt 'sqrt_3', forward, result 0 (f32 [2, 3]): element 4, at [1, 1], is nan, expected a finite "
                 "number");
    expect_found(&s, with_nan, "input 'x' (f32 [2, 3]): element 2, at [0, 2], is nan, expected a finite number");
    expect_found(&s, zero,
                 "div 'div_29', backward, result 0 (f32 [2, 3]): element 4, at [1, 1], is inf, expected a finite "
                 "number");
    FTR_TEST_OK(s.context, step_on(&s, good, &info)); /* the plan goes on */
    assert_int_equal(info.step, 2);
    float w[6];
    FTR_TEST_OK(s.context, ftr_variable_read(s.w, w, sizeof w));
    w[5] = -INFINITY;
    FTR_TEST_OK(s.context, ftr_variable_write(s.w, w, sizeof w));
    expect_found(&s, good, "parameter 'w' (f32 [2, 3]): element 5, at [1, 2], is -inf, expected a finite number");
    free_search(&s);
    s = search(FTR_NONFINITE_ALLOWED, FTR_AMP_OFF, 1);
    FTR_TEST_OK(s.context, step_on(&s, negative, &info));
    assert_true(isnan(info.loss));
    free_search(&s);
}

/* With loss scaling the backward is the scaler's business, unless it is asked for; the forward is not. */
static void the_scaler_handles_the_backward(void **state) {
    (void)state;
    ftr_step_info info;
    float before[64] = {0}, after[64] = {0};
    searched s = search(FTR_NONFINITE_REPORTED, FTR_AMP_FP16, 1024);
    read_all(&s, before);
    FTR_TEST_OK(s.context, step_on(&s, zero, &info));
    assert_true(info.skipped && info.loss_scale == 1024);
    read_all(&s, after);
    assert_memory_equal(after, before, sizeof before);
    expect_found(&s, negative,
                 "sqrt 'sqrt_3', forward, result 0 (f32 [2, 3]): element 4, at [1, 1], is nan, expected a finite "
                 "number");
    free_search(&s);
    s = search(FTR_NONFINITE_REPORTED_ALL, FTR_AMP_FP16, 1024);
    FTR_TEST_OK(s.context, step_on(&s, good, &info));
    assert_int_equal(step_on(&s, zero, &info), FTR_ERROR_NONFINITE);
    assert_non_null(strstr(ftr_error_message(s.context), ", backward, result 0 ("));
    free_search(&s);
}

/* A product beyond 65504, and the node that it comes from. */
static void an_overflow_of_f16_is_found(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(2, 4));
    ftr_tensor w = ftr_parameter(graph, "w", FTR_F32, FTR_SHAPE(3, 4), (ftr_init){FTR_INIT_CONSTANT, 200, 0});
    ftr_tensor y = ftr_linear_with(x, w, (ftr_tensor){NULL, 0});
    ftr_plan *plan = NULL;
    ftr_compile_desc desc = {
        .outputs = &y, .output_count = 1, .amp = FTR_AMP_FP16, .debug_nonfinite = FTR_NONFINITE_REPORTED};
    FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
    float data[8] = {1, 1, 1, 1, 100, 100, 100, 20};
    FTR_TEST_OK(context, ftr_feed(plan, x, data, sizeof data));
    FTR_TEST_OK(context, ftr_step(plan, NULL));
    data[7] = 100;
    FTR_TEST_OK(context, ftr_feed(plan, x, data, sizeof data));
    assert_int_equal(ftr_step(plan, NULL), FTR_ERROR_NONFINITE);
    assert_string_equal(ftr_error_message(context),
                        "linear 'linear_2', forward, result 0 (f16 [2, 3]): element 3, at [1, 0], is "
                        "inf, expected a finite number");
    assert_string_equal(ftr_status_name(FTR_ERROR_NONFINITE), "FTR_ERROR_NONFINITE");
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

/* ------------------------------------------------------------------------------------------------ the training loop -- */

typedef struct seen {
    int64_t events, skipped;
    double first_scale, last_scale, norm;
} seen;

static bool watch(void *user, const ftr_train_event *event) {
    seen *s = user;
    if (s->events++ == 0) {
        s->first_scale = event->loss_scale;
    }
    s->last_scale = event->loss_scale;
    s->skipped = event->skipped_steps;
    s->norm = event->grad_norm;
    return false;
}

static void fit_in_mixed_precision(void **state) {
    (void)state;
    enum { SAMPLES = 320 };
    static float image[SAMPLES][64];
    static int32_t label[SAMPLES];
    ftr_test_rng rng = {5};
    for (int i = 0; i < SAMPLES; i++) { /* classes are where the bright column is */
        label[i] = (int32_t)ftr_test_integer(&rng, 0, 7);
        for (int k = 0; k < 64; k++) {
            image[i][k] = (float)ftr_test_uniform(&rng, 0, 1) + (k % 8 == label[i] ? 1.0f : 0.0f);
        }
    }
    double losses[3];
    for (int amp = 0; amp < 3; amp++) {
        ftr_context *context = ftr_test_context();
        ftr_graph *g = ftr_graph_create(context);
        ftr_tensor x = ftr_input(g, "image", FTR_F32, FTR_SHAPE(32, 64)),
                   y = ftr_input(g, "label", FTR_I32, FTR_SHAPE(32));
        ftr_tensor logits = ftr_linear(ftr_relu(ftr_linear(x, "fc1", 32, NULL)), "fc2", 8, NULL);
        ftr_field fields[] = {{"image", FTR_F32, FTR_SHAPE(64)}, {"label", FTR_I32, ftr_scalar_shape()}};
        ftr_source *source = NULL;
        FTR_TEST_OK(context,
                    ftr_memory_source(context, "train", SAMPLES, fields, (const void *[]){image, label}, 2, &source));
        seen s = {0};
        ftr_train_desc t = ftr_train_defaults();
        t.loss = ftr_cross_entropy(logits, y, NULL);
        t.metrics[t.metric_count++] = (ftr_metric){"accuracy", ftr_accuracy(logits, y)};
        t.optimizer = ftr_adamw(5e-3);
        t.optimizer.clip_norm = 1;
        t.train = t.eval = source;
        t.epochs = 12;
        t.progress = FTR_PROGRESS_SILENT;
        t.amp = (ftr_amp)amp;
        t.scaler.init_scale = ldexp(1, 40); /* so large that the first steps overflow */
        t.scaler.backoff_factor = ldexp(1, -8);
        t.scaler.growth_interval = 10;
        t.on_event = watch;
        t.on_event_user = &s;
        ftr_train_result result;
        FTR_TEST_OK(context, ftr_fit(g, &t, &result));
        losses[amp] = result.eval_loss;
        assert_true(isfinite(result.loss) && result.eval_metrics[0] > 0.95);
        assert_int_equal(result.skipped_steps, s.skipped);
        assert_true(amp == FTR_AMP_FP16 ? s.skipped >= 3 && s.skipped < 12 : s.skipped == 0);
        assert_true(s.first_scale == (amp == FTR_AMP_FP16 ? ldexp(1, 40) : 1));
        assert_true(amp != FTR_AMP_FP16 || s.last_scale < 1e7);
        assert_true(s.norm > 0 && s.norm < 100);
        ftr_train_result evaluated;
        FTR_TEST_OK(context, ftr_evaluate(g, &t, &evaluated));
        assert_true(evaluated.eval_loss == result.eval_loss);
        ftr_source_destroy(source);
        ftr_graph_destroy(g);
        ftr_context_destroy(context);
    }
    assert_true(fabs(losses[2] - losses[0]) < 0.05 && fabs(losses[1] - losses[0]) < 0.05);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_are_gradscalers),
        cmocka_unit_test(clipping_is_pytorchs),
        cmocka_unit_test(the_norm_has_one_order),
        cmocka_unit_test(a_plain_step_reports),
        cmocka_unit_test(scaling_off_and_fixed),
        cmocka_unit_test(a_skipped_step_changes_nothing),
        cmocka_unit_test(wrong_descriptions),
        cmocka_unit_test(the_first_node_is_named),
        cmocka_unit_test(the_scaler_handles_the_backward),
        cmocka_unit_test(an_overflow_of_f16_is_found),
        cmocka_unit_test(fit_in_mixed_precision),
    };
    return cmocka_run_group_tests_name("scaler", tests, NULL, NULL);
}
