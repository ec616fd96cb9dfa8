/* The optimizers' steps through plans: a hundred of them against PyTorch's (make_optimizers.py in tests/goldens has
 * the same cases), with gradients that arrive scaled, and with steps that are left out; the optimizer's state by
 * name. */
#include "injected.h"
#include "optimizer_cases.h"
#include "oracle.h"

enum { STEPS = 100, PARAMETERS = OPTIMIZER_PARAMETERS, CASES = OPTIMIZER_CASES };

/* A parameter may differ from PyTorch's, computed in double precision, by this share of the largest element of its
 * tensor, or of FLOOR where all are smaller: parameters start with up to 1/2. */
static const double TOLERANCE = 1e-6;
/* Lion's steps all have one size, so that each of them may be rounded to the same side. */
static const double LION_TOLERANCE = 2.5e-6;
/* A state that is rounded to bf16 may fall to the other side of the middle between two of its numbers, which is carried
 * on; test_bf16_steps() looks at each step by itself. */
static const double BF16_TOLERANCE = 1e-3;
static const double FLOOR = 0.25;

static const int kept[] = {2, 20, 100};

/* ---------------------------------------------------------------------------------------------------------- model
 * -- */

/* Parameters whose gradients are what is fed: the loss is the sum of p * g. */
typedef struct model {
    ftr_context *context;
    ftr_graph *graph;
    ftr_plan *plan;
    ftr_tensor p[PARAMETERS], g[PARAMETERS];
} model;

static model model_on(const ftr_backend *backend, int32_t threads, const ftr_optimizer *optimizer) {
    model m = {.context = ftr_test_context_with(backend, 1, threads, NULL)};
    m.graph = ftr_graph_create(m.context);
    ftr_tensor loss = {NULL, 0}, image = ftr_input(m.graph, "image", FTR_F32, FTR_SHAPE(1, 3, 3, 4));
    ftr_conv2d(image, "conv", 6, 3, &(ftr_conv2d_desc){.no_bias = true}); /* declares conv.weight as OHWI */
    for (int i = 0; i < PARAMETERS; i++) {
        char name[32];
        snprintf(name, sizeof name, "gradient of %s", optimizer_parameters[i].name);
        m.g[i] = ftr_input(m.graph, name, FTR_F32, optimizer_parameters[i].shape);
        m.p[i] = ftr_variable_find(m.graph, optimizer_parameters[i].name);
        if (!ftr_is_valid(m.p[i])) {
            m.p[i] = ftr_parameter(m.graph, optimizer_parameters[i].name, FTR_F32, optimizer_parameters[i].shape,
                                   (ftr_init){0});
        }
        ftr_tensor one = ftr_sum(ftr_mul(m.p[i], m.g[i]), ftr_all_axes(), false);
        loss = i > 0 ? ftr_add(loss, one) : one;
    }
    ftr_compile_desc desc = {.loss = loss, .optimizer = optimizer};
    FTR_TEST_OK(m.context, ftr_compile(m.graph, &desc, &m.plan));
    for (int i = 0; i < PARAMETERS; i++) {
        float value[512];
        int64_t count = ftr_shape_count(&optimizer_parameters[i].shape);
        for (int64_t k = 0; k < count; k++) {
            value[k] = optimizer_number(i, 0, k) / 2;
        }
        FTR_TEST_OK(m.context, ftr_variable_write(m.p[i], value, (size_t)count * sizeof *value));
    }
    return m;
}

static void free_model(model *m) {
    ftr_plan_destroy(m->plan);
    ftr_graph_destroy(m->graph);
    ftr_context_destroy(m->context);
}

/* One step with the gradients of a step number, times a factor. */
static void step(model *m, int number_of_step, float factor) {
    float size = factor;
    for (int i = 0; i < PARAMETERS; i++, size /= 4) {
        float value[512];
        int64_t count = ftr_shape_count(&optimizer_parameters[i].shape);
        for (int64_t k = 0; k < count; k++) {
            value[k] = optimizer_number(i, number_of_step, k) * size;
        }
        FTR_TEST_OK(m->context, ftr_feed(m->plan, m->g[i], value, (size_t)count * sizeof *value));
    }
    FTR_TEST_OK(m->context, ftr_step(m->plan, NULL));
}

/* ---------------------------------------------------------------------------------------------------------- cases
 * -- */

/* Of a tensor's largest element. */
static double tolerance_of(const optimizer_case *c) {
    return optimizer_case_is_bf16(c) ? BF16_TOLERANCE : c->make == ftr_lion ? LION_TOLERANCE : TOLERANCE;
}

static bool skips(const optimizer_case *c, int number_of_step) {
    return strstr(c->name, "skip") && (number_of_step == 1 || number_of_step % 7 == 3);
}

static const char *const levels[] = {"portable", "avx2", "avx512", "neon"};

static bool has_level(const char *level) {
    setenv("FASTTRAIN_SIMD", level, 1);
    ftr_context *context = NULL;
    ftr_context_desc desc = {.threads = 1, .log_level = FTR_LOG_SILENT};
    bool has = ftr_context_create(&desc, &context) == FTR_OK;
    ftr_context_destroy(context);
    unsetenv("FASTTRAIN_SIMD");
    return has;
}

/* Compares the parameters with the file's after a step; returns the largest difference in terms of the tolerance. */
static double compare(const model *m, const ftr_safetensors *file, const optimizer_case *c, int number_of_step) {
    double worst = 0;
    for (int i = 0; i < PARAMETERS; i++) {
        char name[96];
        float found[512], expected[512];
        double largest = FLOOR;
        ftr_safetensors_entry entry;
        int64_t count = ftr_shape_count(&optimizer_parameters[i].shape);
        snprintf(name, sizeof name, "%s/%s/%d", c->name, optimizer_parameters[i].name, number_of_step);
        assert_true(ftr_safetensors_find(file, name, &entry));
        assert_int_equal(entry.bytes, (size_t)count * sizeof *found);
        memcpy(expected, entry.data, entry.bytes);
        FTR_TEST_OK(m->context, ftr_variable_read(m->p[i], found, entry.bytes));
        for (int64_t k = 0; k < count; k++) {
            largest = fmax(largest, fabs((double)expected[k]));
        }
        for (int64_t k = 0; k < count; k++) {
            double off = fabs((double)found[k] - (double)expected[k]) / largest;
            worst = fmax(worst, off);
            if (!(off <= tolerance_of(c))) {
                fail_msg("%s [%d]: %.9g, expected %.9g: off by %.2g of the largest", name, (int)k, (double)found[k],
                         (double)expected[k], off);
            }
        }
    }
    return worst;
}

/* Runs a case on a context's backend; gradients are fed times 1 / inject.grad_scale. */
static double run_case(const optimizer_case *c, const ftr_backend *backend, const ftr_safetensors *file) {
    ftr_optimizer o = optimizer_of_case(c);
    model m = model_on(backend, 2, &o);
    double worst = 0;
    for (int s = 1, k = 0; s <= STEPS; s++) {
        inject.found_inf = skips(c, s) ? (s == 1 ? (float)NAN : 1.0f) : 0.0f;
        step(&m, s, inject.found_inf != 0 ? (float)INFINITY : 1 / inject.grad_scale);
        if (s == kept[k]) {
            worst = fmax(worst, compare(&m, file, c, s));
            k++;
        }
    }
    uint64_t skipped = 0;
    for (int s = 1; s <= STEPS; s++) {
        skipped += skips(c, s);
    }
    assert_int_equal(ftr_plan_steps(m.plan), STEPS);
    assert_int_equal(ftr_plan_applied_steps(m.plan), STEPS - skipped);
    free_model(&m);
    return worst;
}

/* A case at each instruction set: as it is, and with gradients that arrive 1024 times as large. */
static void test_golden(void **state) {
    const optimizer_case *c = (const optimizer_case *)*state;
    ftr_context *context = ftr_test_context();
    ftr_safetensors *file = NULL;
    FTR_TEST_OK(context, ftr_safetensors_open(context, FTR_TEST_DATA "/goldens/optimizers.safetensors", &file));
    double worst = 0;
    int64_t runs = 0;
    for (size_t l = 0; l < FTR_TEST_LENGTH(levels); l++) {
        if (!has_level(levels[l])) {
            continue;
        }
        setenv("FASTTRAIN_SIMD", levels[l], 1);
        inject = (injected){1, 0};
        if (!strstr(c->name, "skip")) {
            worst = fmax(worst, run_case(c, NULL, file));
        }
        inject = (injected){0x1p-10f, 0};
        worst = fmax(worst, run_case(c, injected_backend(ftr_cpu_backend()), file));
        unsetenv("FASTTRAIN_SIMD");
        runs++;
    }
    inject = (injected){1, 0};
    assert_true(runs > 0);
    print_message("    within %.1e of the largest element\n", worst);
    ftr_safetensors_close(file);
    ftr_context_destroy(context);
}

/* The file has no case that is not run. */
static void test_file_is_covered(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_safetensors *file = NULL;
    FTR_TEST_OK(context, ftr_safetensors_open(context, FTR_TEST_DATA "/goldens/optimizers.safetensors", &file));
    assert_int_equal(ftr_safetensors_count(file), CASES * PARAMETERS * FTR_TEST_LENGTH(kept));
    ftr_safetensors_close(file);
    ftr_context_destroy(context);
}

/* ---------------------------------------------------------------------------------------------------------- state
 * -- */

/* A left-out step changes no bit of the state or of a parameter. */
static void test_skipped_step(void **state) {
    const optimizer_case *c = (const optimizer_case *)*state;
    ftr_optimizer o = optimizer_of_case(c);
    inject = (injected){1, 0};
    model m = model_on(injected_backend(ftr_cpu_backend()), 2, &o);
    unsigned char *before = NULL, *after = NULL;
    for (int s = 1; s <= 4; s++) {
        step(&m, s, 1);
    }
    int32_t count = ftr_plan_state_count(m.plan);
    size_t offset = 0, capacity = 1 << 20;
    before = calloc(1, capacity), after = calloc(1, capacity);
    for (int pass = 0; pass < 2; pass++) {
        unsigned char *into = pass ? after : before;
        offset = 0;
        for (int i = 0; i < PARAMETERS; i++) {
            size_t bytes = (size_t)ftr_shape_count(&optimizer_parameters[i].shape) * sizeof(float);
            FTR_TEST_OK(m.context, ftr_variable_read(m.p[i], into + offset, bytes));
            offset += bytes;
        }
        for (int32_t i = 0; i < count; i++) {
            ftr_plan_state info;
            FTR_TEST_OK(m.context, ftr_plan_state_at(m.plan, i, &info));
            assert_true(offset + info.bytes <= capacity);
            FTR_TEST_OK(m.context, ftr_plan_state_read(m.plan, info.name, into + offset, info.bytes));
            offset += info.bytes;
        }
        if (pass == 0) {
            inject.found_inf = 1;
            step(&m, 5, (float)NAN);
            inject.found_inf = 0;
        }
    }
    assert_memory_equal(before, after, offset);
    free(before), free(after);
    free_model(&m);
}

/* A plan whose state and parameters are copied into another plan goes on as the first. */
static void test_state_moves(void **state) {
    const optimizer_case *c = (const optimizer_case *)*state;
    ftr_optimizer o = optimizer_of_case(c);
    model a = model_on(NULL, 2, &o), b = model_on(NULL, 2, &o);
    for (int s = 1; s <= 5; s++) {
        step(&a, s, 1);
    }
    FTR_TEST_OK(a.context, ftr_plan_set_lr(a.plan, c->lr / 2));
    int32_t count = ftr_plan_state_count(a.plan);
    assert_int_equal(ftr_plan_state_count(b.plan), count);
    for (int32_t i = 0; i < count; i++) {
        ftr_plan_state info, other;
        FTR_TEST_OK(a.context, ftr_plan_state_at(a.plan, i, &info));
        FTR_TEST_OK(b.context, ftr_plan_state_at(b.plan, i, &other));
        assert_string_equal(info.name, other.name);
        void *data = malloc(info.bytes + 1);
        FTR_TEST_OK(a.context, ftr_plan_state_read(a.plan, info.name, data, info.bytes));
        FTR_TEST_OK(b.context, ftr_plan_state_write(b.plan, info.name, data, info.bytes));
        free(data);
    }
    float value[512], other[512];
    for (int i = 0; i < PARAMETERS; i++) {
        size_t bytes = (size_t)ftr_shape_count(&optimizer_parameters[i].shape) * sizeof(float);
        FTR_TEST_OK(a.context, ftr_variable_read(a.p[i], value, bytes));
        FTR_TEST_OK(b.context, ftr_variable_write(b.p[i], value, bytes));
    }
    assert_int_equal(ftr_plan_applied_steps(b.plan), 5);
    for (int s = 6; s <= 8; s++) {
        step(&a, s, 1);
        step(&b, s, 1);
    }
    for (int i = 0; i < PARAMETERS; i++) {
        size_t bytes = (size_t)ftr_shape_count(&optimizer_parameters[i].shape) * sizeof(float);
        FTR_TEST_OK(a.context, ftr_variable_read(a.p[i], value, bytes));
        FTR_TEST_OK(b.context, ftr_variable_read(b.p[i], other, bytes));
        assert_memory_equal(value, other, bytes);
    }
    free_model(&a);
    free_model(&b);
}

/* ---------------------------------------------------------------------------------------------------------- bf16
 * -- */

static float of_bf16(uint16_t bits) {
    const uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, sizeof x);
    return x;
}

/* Copies parameters and states of a plan into another. */
static void copy_model(const model *from, model *to) {
    static unsigned char data[1 << 16];
    for (int i = 0; i < PARAMETERS; i++) {
        const size_t bytes = (size_t)ftr_shape_count(&optimizer_parameters[i].shape) * sizeof(float);
        FTR_TEST_OK(from->context, ftr_variable_read(from->p[i], data, bytes));
        FTR_TEST_OK(to->context, ftr_variable_write(to->p[i], data, bytes));
    }
    for (int32_t i = 0; i < ftr_plan_state_count(from->plan); i++) {
        ftr_plan_state s;
        FTR_TEST_OK(from->context, ftr_plan_state_at(from->plan, i, &s));
        assert_true(s.bytes <= sizeof data);
        FTR_TEST_OK(from->context, ftr_plan_state_read(from->plan, s.name, data, s.bytes));
        FTR_TEST_OK(to->context, ftr_plan_state_write(to->plan, s.name, data, s.bytes));
    }
}

/* Compares what one step from the same state has made of it; how many states are not the oracle's but their neighbour.
 * A state that is the difference of larger numbers may be off by f32's rounding of those. */
static int64_t compare_models(const char *name, const model *found, const model *expected, int64_t *total) {
    static float a[512], b[512];
    static uint16_t x[512], y[512];
    int64_t off_by_one = 0;
    for (int i = 0; i < PARAMETERS; i++) {
        const int64_t count = ftr_shape_count(&optimizer_parameters[i].shape);
        FTR_TEST_OK(found->context, ftr_variable_read(found->p[i], a, (size_t)count * sizeof *a));
        FTR_TEST_OK(expected->context, ftr_variable_read(expected->p[i], b, (size_t)count * sizeof *b));
        for (int64_t k = 0; k < count; k++)
            if (!(fabs((double)a[k] - (double)b[k]) <= TOLERANCE))
                fail_msg("%s: %s[%d] is %.9g, expected %.9g", name, optimizer_parameters[i].name, (int)k, (double)a[k],
                         (double)b[k]);
    }
    for (int32_t i = 2; i < ftr_plan_state_count(found->plan); i++) { /* behind lr and step */
        ftr_plan_state s;
        FTR_TEST_OK(found->context, ftr_plan_state_at(found->plan, i, &s));
        assert_int_equal(s.dtype, FTR_BF16);
        assert_int_equal(s.bytes, (size_t)ftr_shape_count(&s.shape) * 2);
        FTR_TEST_OK(found->context, ftr_plan_state_read(found->plan, s.name, x, s.bytes));
        FTR_TEST_OK(expected->context, ftr_plan_state_read(expected->plan, s.name, y, s.bytes));
        for (int64_t k = 0; k < ftr_shape_count(&s.shape); k++, ++*total) {
            off_by_one += x[k] != y[k];
            if (abs((int)x[k] - (int)y[k]) > 1 && fabs((double)of_bf16(x[k]) - (double)of_bf16(y[k])) > 1e-7)
                fail_msg("%s: %s[%d] is %.9g, expected %.9g or a neighbour", name, s.name, (int)k,
                         (double)of_bf16(x[k]), (double)of_bf16(y[k]));
        }
    }
    return off_by_one;
}

/* Each step against the oracle's from the same state, at each instruction set: the state is the nearest bf16 to what
 * f32 gives, and the parameter moves by what was not rounded. */
static void test_bf16_steps(void **state) {
    const optimizer_case *c = (const optimizer_case *)*state;
    const ftr_optimizer o = optimizer_of_case(c);
    int64_t off_by_one = 0, total = 0;
    for (size_t l = 0; l < FTR_TEST_LENGTH(levels); l++) {
        if (!has_level(levels[l])) continue;
        setenv("FASTTRAIN_SIMD", levels[l], 1);
        model m = model_on(NULL, 2, &o), oracle = model_on(ftr_test_oracle_backend(), 1, &o);
        for (int s = 1; s <= 20; s++) {
            copy_model(&oracle, &m);
            step(&m, s, 1);
            step(&oracle, s, 1);
            off_by_one += compare_models(c->name, &m, &oracle, &total);
        }
        free_model(&m);
        free_model(&oracle);
        unsetenv("FASTTRAIN_SIMD");
    }
    print_message("    %lld of %lld states on the other side of a middle\n", (long long)off_by_one, (long long)total);
    assert_true(off_by_one * 1000 <= total);
}

/* A parameter of many chunks whose gradient is itself and a number: 1, 2, 3 and 8 threads give the same bits. */
static void large_model(const ftr_optimizer *o, int32_t threads, void *p, size_t bytes, void *states, size_t room) {
    ftr_context *context = ftr_test_context_with(NULL, 3, threads, NULL);
    ftr_graph *graph = ftr_graph_create(context);
    const ftr_tensor w = ftr_parameter(graph, "w", FTR_F32, FTR_SHAPE(211, 199), (ftr_init){FTR_INIT_NORMAL, 0, 0.5});
    const ftr_tensor loss = ftr_sum(ftr_mul(w, ftr_add(w, ftr_scalar(graph, FTR_F32, 0.25))), ftr_all_axes(), false);
    ftr_plan *plan = NULL;
    FTR_TEST_OK(context, ftr_compile(graph, &(ftr_compile_desc){.loss = loss, .optimizer = o}, &plan));
    for (int s = 0; s < 3; s++) FTR_TEST_OK(context, ftr_step(plan, NULL));
    FTR_TEST_OK(context, ftr_variable_read(w, p, bytes));
    size_t at = 0;
    for (int32_t i = 2; i < ftr_plan_state_count(plan); i++) {
        ftr_plan_state s;
        FTR_TEST_OK(context, ftr_plan_state_at(plan, i, &s));
        assert_true(at + s.bytes <= room);
        FTR_TEST_OK(context, ftr_plan_state_read(plan, s.name, (unsigned char *)states + at, s.bytes));
        at += s.bytes;
    }
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

static void test_bf16_threads(void **state) {
    const optimizer_case *c = (const optimizer_case *)*state;
    const ftr_optimizer o = optimizer_of_case(c);
    enum { ELEMENTS = 211 * 199, STATES = 3 };
    float *first = calloc(ELEMENTS, sizeof *first), *other = calloc(ELEMENTS, sizeof *other);
    uint16_t *first_states = calloc(STATES * ELEMENTS, 2), *other_states = calloc(STATES * ELEMENTS, 2);
    large_model(&o, 1, first, ELEMENTS * sizeof *first, first_states, STATES * ELEMENTS * 2);
    for (int i = 0; i < ELEMENTS; i++) assert_true(isfinite(first[i]) && first_states[i] != 0);
    for (int t = 1; t < 4; t++) {
        large_model(&o, (int32_t[]){1, 2, 3, 8}[t], other, ELEMENTS * sizeof *other, other_states,
                    STATES * ELEMENTS * 2);
        assert_memory_equal(other, first, ELEMENTS * sizeof *other);
        assert_memory_equal(other_states, first_states, STATES * ELEMENTS * 2);
    }
    free(first), free(other), free(first_states), free(other_states);
}

/* What a second moment in bf16 needs to fall is said, once a compilation, and only where it is not there. */
static void test_bf16_warning(void **state) {
    (void)state;
    static const struct {
        ftr_optimizer (*make)(double lr);
        double beta2, alpha;
        const char *log;
    } forms[] = {{ftr_adamw, 0.999, 0, "beta2 0.999"}, {ftr_adamw, 0.98, 0, NULL},
                 {ftr_muon, 0.997, 0, "beta2 0.997"},  {ftr_rmsprop, 0, 0.999, "alpha 0.999"},
                 {ftr_rmsprop, 0, 0.99, NULL},         {ftr_lion, 0.999, 0, NULL}};
    for (size_t i = 0; i < FTR_TEST_LENGTH(forms); i++) {
        ftr_test_log log = {.length = 0};
        ftr_optimizer o = forms[i].make(0.1);
        o.state_dtype = FTR_BF16, o.beta2 = forms[i].beta2, o.alpha = forms[i].alpha;
        const ftr_context_desc desc = {.threads = 1, .log_level = FTR_LOG_WARNING, .logger = ftr_test_logger(&log)};
        ftr_context *context = NULL;
        assert_int_equal(ftr_context_create(&desc, &context), FTR_OK);
        ftr_graph *graph = ftr_graph_create(context);
        const ftr_tensor w = ftr_parameter(graph, "w", FTR_F32, FTR_SHAPE(4, 4), (ftr_init){0});
        const ftr_compile_desc compile = {.loss = ftr_sum(w, ftr_all_axes(), false), .optimizer = &o};
        ftr_plan *plan = NULL;
        FTR_TEST_OK(context, ftr_compile(graph, &compile, &plan));
        if (forms[i].log)
            assert_non_null(strstr(log.text, forms[i].log));
        else
            assert_string_equal(log.text, "");
        ftr_plan_destroy(plan);
        ftr_graph_destroy(graph);
        ftr_context_destroy(context);
    }
}

/* Half the memory, but for the learning rate and the count. */
static void test_bf16_memory(void **state) {
    (void)state;
    size_t bytes[2];
    for (int i = 0; i < 2; i++) {
        ftr_optimizer o = ftr_adamw(0.1);
        o.state_dtype = i ? FTR_BF16 : FTR_F32;
        ftr_context *context = ftr_test_context();
        ftr_graph *graph = ftr_graph_create(context);
        const ftr_tensor w = ftr_parameter(graph, "w", FTR_F32, FTR_SHAPE(64, 64), (ftr_init){0});
        const ftr_compile_desc desc = {.loss = ftr_sum(w, ftr_all_axes(), false), .optimizer = &o};
        ftr_plan *plan = NULL;
        FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
        bytes[i] = ftr_plan_memory(plan).optimizer_state;
        ftr_plan_destroy(plan);
        ftr_graph_destroy(graph);
        ftr_context_destroy(context);
    }
    assert_int_equal(bytes[0] - bytes[1], 2 * 64 * 64 * 2);
}

/* The names, types and shapes of one optimizer's state, in order. */
static void expect_states(const ftr_optimizer *o, const char *expected) {
    model m = model_on(NULL, 1, o);
    char found[4096] = "";
    size_t used = 0;
    for (int32_t i = 0; i < ftr_plan_state_count(m.plan); i++) {
        ftr_plan_state info;
        FTR_TEST_OK(m.context, ftr_plan_state_at(m.plan, i, &info));
        used += (size_t)snprintf(found + used, sizeof found - used, "%s %s", info.name, ftr_dtype_name(info.dtype));
        for (int32_t d = 0; d < info.shape.rank; d++) {
            used += (size_t)snprintf(found + used, sizeof found - used, " %d", (int)info.shape.dim[d]);
        }
        used += (size_t)snprintf(found + used, sizeof found - used, "\n");
    }
    assert_string_equal(found, expected);
    free_model(&m);
}

/* In the order of declaration: the convolution's weight is first. */
static void test_state_names(void **state) {
    (void)state;
    ftr_optimizer o = ftr_sgd(0.1);
    expect_states(&o, "optimizer.lr f32\noptimizer.step i64\n");
    o = ftr_adafactor(0.1);
    expect_states(&o, "optimizer.lr f32\noptimizer.step i64\n"
                      "conv.weight.row_var f32 6 3 1 4\nscalar.variance f32\nnorm.weight.variance f32 7\n"
                      "fc.weight.row_var f32 13 1\nfc.bias.variance f32 13\ntall.weight.row_var f32 23 1\n"
                      "conv.weight.col_var f32 6 1 3 4\nfc.weight.col_var f32 1 10\ntall.weight.col_var f32 1 6\n");
    o = ftr_muon(0.1);
    expect_states(&o, "optimizer.lr f32\noptimizer.step i64\n"
                      "conv.weight.momentum_buffer f32 6 3 3 4\nscalar.exp_avg f32\nnorm.weight.exp_avg f32 7\n"
                      "fc.weight.momentum_buffer f32 13 10\nfc.bias.exp_avg f32 13\n"
                      "tall.weight.momentum_buffer f32 23 6\n"
                      "scalar.exp_avg_sq f32\nnorm.weight.exp_avg_sq f32 7\nfc.bias.exp_avg_sq f32 13\n");
    o = ftr_muon(0.1), o.state_dtype = FTR_BF16;
    expect_states(&o, "optimizer.lr f32\noptimizer.step i64\n"
                      "conv.weight.momentum_buffer bf16 6 3 3 4\nscalar.exp_avg bf16\nnorm.weight.exp_avg bf16 7\n"
                      "fc.weight.momentum_buffer bf16 13 10\nfc.bias.exp_avg bf16 13\n"
                      "tall.weight.momentum_buffer bf16 23 6\n"
                      "scalar.exp_avg_sq bf16\nnorm.weight.exp_avg_sq bf16 7\nfc.bias.exp_avg_sq bf16 13\n");
    o = ftr_rmsprop(0.1), o.momentum = 0.5, o.centered = true;
    ftr_param_group group = ftr_param_group_defaults();
    group.pattern = "*weight", group.momentum = 0;
    o.groups = &group, o.group_count = 1;
    expect_states(&o, "optimizer.lr f32\noptimizer.step i64\n"
                      "conv.weight.square_avg f32 6 3 3 4\nscalar.square_avg f32\nnorm.weight.square_avg f32 7\n"
                      "fc.weight.square_avg f32 13 10\nfc.bias.square_avg f32 13\ntall.weight.square_avg f32 23 6\n"
                      "conv.weight.grad_avg f32 6 3 3 4\nscalar.grad_avg f32\nnorm.weight.grad_avg f32 7\n"
                      "fc.weight.grad_avg f32 13 10\nfc.bias.grad_avg f32 13\ntall.weight.grad_avg f32 23 6\n"
                      "scalar.momentum_buffer f32\nfc.bias.momentum_buffer f32 13\n");
}

/* ---------------------------------------------------------------------------------------------------- other axes -- */

/* One step of Adafactor straight through a backend's table; `data`: lr, step, p, g, moments of rows and columns. */
static void adafactor_step(ftr_context *context, const ftr_backend *backend, const ftr_op_attr *attr, ftr_dtype real,
                           ftr_shape shape, void *const data[6]) {
    const ftr_kernel *kernel = &backend->kernels[FTR_OP_adafactor_update];
    ftr_shape rows = shape, columns = shape;
    rows.dim[attr->optimizer.column_axis] = columns.dim[attr->optimizer.row_axis] = 1;
    ftr_view in[8] = {{data[0], FTR_F32, ftr_scalar_shape(), 1},
                      {data[1], FTR_I64, ftr_scalar_shape(), 1},
                      {NULL, FTR_DTYPE_NONE, {0, {0}}, 0},
                      {NULL, FTR_DTYPE_NONE, {0, {0}}, 0},
                      {data[2], real, shape, 0},
                      {data[3], real, shape, 0},
                      {data[4], real, rows, 0},
                      {data[5], real, columns, 0}};
    for (int i = 4; i < 8; i++) {
        in[i].count = ftr_shape_count(&in[i].shape);
    }
    ftr_kernel_call call = {
        .context = context, .op = FTR_OP_adafactor_update, .name = "adafactor", .attr = attr, .in = in, .in_count = 8};
    FTR_TEST_OK(context, backend->open(context, 2, -1, &call.backend));
    size_t bytes = kernel->workspace ? kernel->workspace(&call) : 0;
    call.workspace = ftr_backend_allocate(context, bytes + 64);
    FTR_TEST_OK(context, kernel->run(&call));
    ftr_backend_release(context, call.workspace, bytes + 64);
    backend->close(context, call.backend);
}

/* The rows' axis behind the columns' (weights of one-dimensional convolutions, OWI), and axes within. */
static void test_adafactor_axes(void **state) {
    (void)state;
    static const struct {
        ftr_shape shape;
        int32_t row, column;
    } forms[] = {{{3, {3, 5, 7}}, 2, 1},     {{3, {3, 5, 7}}, 1, 2}, {{4, {2, 5, 3, 19}}, 2, 1},
                 {{4, {2, 5, 3, 19}}, 1, 2}, {{2, {5, 90}}, 1, 0},   {{4, {2, 70, 600, 2}}, 2, 1},
                 {{4, {4, 3, 0, 2}}, 1, 2}};
    ftr_context *context = ftr_test_context();
    for (size_t f = 0; f < FTR_TEST_LENGTH(forms); f++) {
        int64_t count = ftr_shape_count(&forms[f].shape), step_count = 0;
        ftr_op_attr attr;
        memset(&attr, 0, sizeof attr);
        attr.optimizer.lr_scale = 1, attr.optimizer.eps = 1e-6, attr.optimizer.beta2_decay = -0.8;
        attr.optimizer.parameter_eps = 1e-3, attr.optimizer.clip_threshold = 1, attr.optimizer.weight_decay = 0.125;
        attr.optimizer.row_axis = forms[f].row, attr.optimizer.column_axis = forms[f].column;
        float lr = 0.25f, *single[4];
        double *wide[4];
        for (int k = 0; k < 4; k++) {
            single[k] = calloc((size_t)count + 64, sizeof(float));
            wide[k] = calloc((size_t)count + 64, sizeof(double)); /* an empty p has factors that are not */
        }
        for (int s = 0; s < 3; s++, step_count++) {
            for (int64_t i = 0; i < count; i++) {
                if (s == 0) {
                    wide[0][i] = (double)(single[0][i] = optimizer_number(9, 0, i));
                }
                wide[1][i] = (double)(single[1][i] = optimizer_number(9, 1 + s, i) * (float)(1 + i % 4));
            }
            adafactor_step(context, ftr_cpu_backend(), &attr, FTR_F32, forms[f].shape,
                           (void *[]){&lr, &step_count, single[0], single[1], single[2], single[3]});
            adafactor_step(context, ftr_test_oracle_backend(), &attr, FTR_F64, forms[f].shape,
                           (void *[]){&lr, &step_count, wide[0], wide[1], wide[2], wide[3]});
        }
        for (int k = 0; k < 4; k++) {
            for (int64_t i = 0; i < count; i++) {
                if (fabs((double)single[k][i] - wide[k][i]) > 2e-6 * fmax(1, fabs(wide[k][i]))) {
                    fail_msg("form %d, tensor %d [%d]: %.9g, expected %.9g", (int)f, k, (int)i, (double)single[k][i],
                             wide[k][i]);
                }
            }
            free(single[k]), free(wide[k]);
        }
    }
    ftr_context_destroy(context);
}

int main(void) {
    struct CMUnitTest tests[5 * CASES + 5];
    static char names[5 * CASES][64];
    size_t count = 0;
    static const struct {
        const char *what;
        CMUnitTestFunction function;
        bool bf16;
    } modes[] = {{"golden", test_golden, false},
                 {"skipped step", test_skipped_step, false},
                 {"state moves", test_state_moves, false},
                 {"each step", test_bf16_steps, true},
                 {"threads", test_bf16_threads, true}};
    for (size_t k = 0; k < FTR_TEST_LENGTH(modes); k++) {
        for (size_t i = 0; i < CASES; i++) {
            if (modes[k].bf16 && !optimizer_case_is_bf16(&optimizer_cases[i])) continue;
            snprintf(names[count], sizeof names[count], "%s: %s", modes[k].what, optimizer_cases[i].name);
            tests[count] = (struct CMUnitTest){.name = names[count],
                                               .test_func = modes[k].function,
                                               .initial_state = (void *)(uintptr_t)&optimizer_cases[i]};
            count++;
        }
    }
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_bf16_memory);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_bf16_warning);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_file_is_covered);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_state_names);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_adafactor_axes);
    return _cmocka_run_group_tests("optimizers", tests, count, NULL, NULL);
}
