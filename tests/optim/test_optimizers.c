/* The optimizers' steps, through plans: how gradients are read (scale, limit), and steps that are left out. Values are the
 * oracle's. */
#include "injected.h"
#include "oracle.h"

enum { STEPS = 6 };

/* Parameters whose gradients are what is fed: the loss is sum(p * g). */
typedef struct model {
    ftr_context *context;
    ftr_graph *graph;
    ftr_plan *plan;
    ftr_tensor p, g;
    ftr_dtype real;
} model;

static const int64_t COUNT = 5 * 7;

static model model_on(const ftr_backend *backend, ftr_dtype real, const ftr_optimizer *optimizer) {
    model m = {.context = ftr_test_context_with(injected_backend(backend), 1, 2, NULL), .real = real};
    m.graph = ftr_graph_create(m.context);
    m.p = ftr_parameter(m.graph, "p", real, FTR_SHAPE(5, 7), (ftr_init){FTR_INIT_NORMAL, 0, 1});
    m.g = ftr_input(m.graph, "g", real, FTR_SHAPE(5, 7));
    ftr_compile_desc desc = {.loss = ftr_sum(ftr_mul(m.p, m.g), ftr_all_axes(), false), .optimizer = optimizer};
    FTR_TEST_OK(m.context, ftr_compile(m.graph, &desc, &m.plan));
    return m;
}

static void free_model(model *m) {
    ftr_plan_destroy(m->plan);
    ftr_graph_destroy(m->graph);
    ftr_context_destroy(m->context);
}

/* One step with a gradient that follows from its number; parameters come back as doubles. */
static void step(model *m, int64_t number, double *p) {
    float single[5 * 7];
    double wide[5 * 7];
    for (int64_t i = 0; i < COUNT; i++) {
        single[i] = (float)((double)((i * 37 + number * 101) % 199) / 64 - 1.5);
        wide[i] = (double)single[i];
    }
    bool f32 = m->real == FTR_F32;
    FTR_TEST_OK(m->context, ftr_feed(m->plan, m->g, f32 ? (void *)single : wide, f32 ? sizeof single : sizeof wide));
    FTR_TEST_OK(m->context, ftr_step(m->plan, NULL));
    FTR_TEST_OK(m->context, ftr_variable_read(m->p, f32 ? (void *)single : wide, f32 ? sizeof single : sizeof wide));
    for (int64_t i = 0; i < COUNT; i++) {
        p[i] = f32 ? (double)single[i] : wide[i];
    }
}

static ftr_optimizer momentum(void) {
    ftr_optimizer o = ftr_sgd(0.05);
    o.momentum = 0.875;
    o.weight_decay = 0.125;
    return o;
}

static ftr_optimizer clipped(void) {
    ftr_optimizer o = momentum();
    o.clip_value = 0.5;
    return o;
}

static ftr_optimizer adamw(void) { return ftr_adamw(0.02); }

static ftr_optimizer adamw_clipped(void) {
    ftr_optimizer o = ftr_adamw(0.02);
    o.clip_value = 0.25;
    return o;
}

static const struct {
    const char *name;
    ftr_optimizer (*make)(void);
} optimizers[] = {{"sgd", momentum}, {"sgd clip", clipped}, {"adamw", adamw}, {"adamw clip", adamw_clipped}};

/* Steps 0 and 3 are skipped; what a plan does on the others is what the oracle does without the skipped ones. */
static const float scales[STEPS] = {1, 0.5f, 2, 1, 0.03125f, 1.5f};
static const float found[STEPS] = {1, 0, 0, (float)NAN, 0, 0};

static void check_optimizer(const char *name, const ftr_optimizer *o) {
    model cpu = model_on(ftr_cpu_backend(), FTR_F32, o);
    model oracle = model_on(ftr_test_oracle_backend(), FTR_F64, o);
    double before[5 * 7] = {0}, now[5 * 7], expected[5 * 7] = {0};
    float start[5 * 7];
    FTR_TEST_OK(cpu.context, ftr_variable_read(cpu.p, start, sizeof start));
    for (int64_t i = 0; i < COUNT; i++) {
        before[i] = (double)start[i];
    }
    FTR_TEST_OK(oracle.context, ftr_variable_write(oracle.p, before, sizeof before));
    for (int s = 0; s < STEPS; s++) {
        inject = (injected){scales[s], found[s]};
        step(&cpu, s, now);
        if (inject.found_inf != 0) {
            assert_memory_equal(now, before, sizeof now);
            continue;
        }
        inject.found_inf = 0;
        step(&oracle, s, expected);
        for (int64_t i = 0; i < COUNT; i++) {
            if (!(fabs(now[i] - expected[i]) <= 1e-6 * fmax(1, fabs(expected[i])))) {
                fail_msg("%s, step %d [%d]: %.9g, expected %.9g", name, s, (int)i, now[i], expected[i]);
            }
        }
        memcpy(before, now, sizeof now);
    }
    inject = (injected){1, 0};
    free_model(&cpu);
    free_model(&oracle);
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

static void scale_clip_and_skip(void **state) {
    (void)state;
    for (size_t l = 0; l < FTR_TEST_LENGTH(levels); l++) {
        if (!has_level(levels[l])) {
            continue;
        }
        setenv("FASTTRAIN_SIMD", levels[l], 1);
        for (size_t i = 0; i < FTR_TEST_LENGTH(optimizers); i++) {
            ftr_optimizer o = optimizers[i].make();
            check_optimizer(optimizers[i].name, &o);
        }
        unsetenv("FASTTRAIN_SIMD");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(scale_clip_and_skip)};
    return cmocka_run_group_tests_name("optimizers", tests, NULL, NULL);
}
