/* Random tensors and stochastic depth: distributions, and what the numbers depend on. */
#include "ftr_test.h"

enum { COUNT = 1 << 16 };

/* A plan that draws `count` numbers into `values`, in step `steps`. */
static void draw_from(ftr_context *context, ftr_tensor tensor, ftr_mode mode, int32_t steps, float *values,
                      int64_t count) {
    ftr_plan *plan = NULL;
    ftr_compile_desc desc = {.mode = mode, .outputs = &tensor, .output_count = 1};
    FTR_TEST_OK(context, ftr_compile(tensor.graph, &desc, &plan));
    for (int32_t i = 0; i < steps; i++) {
        FTR_TEST_OK(context, ftr_step(plan, NULL));
    }
    FTR_TEST_OK(context, ftr_read(plan, tensor, values, (size_t)count * sizeof *values));
    ftr_plan_destroy(plan);
}

typedef struct moments {
    double mean, variance, skewness, kurtosis, neighbours;
} moments;

/* `neighbours`: correlation of element 2 i with element 2 i + 1. */
static moments moments_of(const float *x, int64_t count) {
    moments m = {0};
    for (int64_t i = 0; i < count; i++) {
        m.mean += (double)x[i] / (double)count;
    }
    for (int64_t i = 0; i < count; i++) {
        double d = (double)x[i] - m.mean;
        m.variance += d * d / (double)count;
        m.skewness += d * d * d / (double)count;
        m.kurtosis += d * d * d * d / (double)count;
        m.neighbours += i % 2 ? d * ((double)x[i - 1] - m.mean) * 2 / (double)count : 0;
    }
    m.skewness /= pow(m.variance, 1.5);
    m.kurtosis /= m.variance * m.variance;
    m.neighbours /= m.variance;
    return m;
}

static void assert_near(double found, double expected, double tolerance) {
    if (!(fabs(found - expected) <= tolerance)) {
        fail_msg("%.9g, expected %.9g within %.3g", found, expected, tolerance);
    }
}

/* Tolerances are five standard deviations of each estimate. */
static void uniform_is_uniform(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    float *x = malloc(COUNT * sizeof *x);
    draw_from(context, ftr_random_uniform(graph, "u", FTR_SHAPE(COUNT), -1, 3), FTR_MODE_TRAIN, 1, x, COUNT);
    moments m = moments_of(x, COUNT);
    const double scale = 5 / sqrt(COUNT);
    assert_near(m.mean, 1, scale * sqrt(4.0 / 3));
    assert_near(m.variance, 4.0 / 3, scale * 4.0 / 3 * sqrt(0.8));
    assert_near(m.neighbours, 0, scale * sqrt(2));
    double chi = 0;
    int64_t bins[64] = {0};
    for (int64_t i = 0; i < COUNT; i++) {
        assert_true(x[i] >= -1 && x[i] < 3);
        bins[(int)((x[i] + 1) * 16)]++;
    }
    for (int b = 0; b < 64; b++) {
        chi += pow((double)bins[b] - COUNT / 64.0, 2) / (COUNT / 64.0);
    }
    assert_near(chi, 63, 5 * sqrt(2 * 63));
    free(x);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

/* Where f32 has few numbers, rounding must not reach the upper bound. */
static void uniform_keeps_its_bounds(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    static const float bounds[][2] = {{1, 2}, {1000000, 1000001}, {16777216, 16777220}, {-2, -1}, {7, 7}};
    float *x = malloc(COUNT * sizeof *x);
    for (size_t i = 0; i < FTR_TEST_LENGTH(bounds); i++) {
        float low = bounds[i][0], high = bounds[i][1], most = low;
        ftr_tensor u = ftr_random_uniform(graph, NULL, FTR_SHAPE(COUNT), low, high);
        draw_from(context, u, FTR_MODE_EVAL, 1, x, COUNT);
        for (int64_t k = 0; k < COUNT; k++) {
            assert_true(x[k] >= low && (low < high ? x[k] < high : x[k] == high));
            most = fmaxf(most, x[k]);
        }
        assert_true((double)most >= low + 0.5 * (high - low) - 1e-6 * high);
    }
    free(x);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

static void normal_is_normal(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    float *x = malloc(COUNT * sizeof *x);
    draw_from(context, ftr_random_normal(graph, "n", FTR_SHAPE(COUNT / 4, 4), 2, 3), FTR_MODE_TRAIN, 1, x, COUNT);
    moments m = moments_of(x, COUNT);
    const double scale = 5 / sqrt(COUNT);
    assert_near(m.mean, 2, scale * 3);
    assert_near(m.variance, 9, scale * 9 * sqrt(2));
    assert_near(m.skewness, 0, scale * sqrt(6));
    assert_near(m.kurtosis, 3, scale * sqrt(24));
    assert_near(m.neighbours, 0, scale * sqrt(2));
    double chi = 0, below = 0;
    int64_t bins[33] = {0};
    for (int64_t i = 0; i < COUNT; i++) { /* by quarters of a deviation, the tails in one each */
        double z = floor(((double)x[i] - 2) / 3 * 4) + 16;
        bins[z < 0 ? 0 : z > 31 ? 32 : (int)z + 1]++;
    }
    for (int b = 0; b < 33; b++) {
        double upto = b == 32 ? 1 : 0.5 * erfc(-(b - 16) / 4.0 / sqrt(2)), expected = (upto - below) * COUNT;
        chi += pow((double)bins[b] - expected, 2) / expected;
        below = upto;
    }
    assert_near(chi, 32, 5 * sqrt(2 * 32));
    free(x);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

enum { SOME = 1003 };

typedef struct numbers {
    float x[SOME];
} numbers;

/* The numbers of "block.noise" in a graph with `others` nodes before it. */
static numbers draw_named(uint64_t seed, int32_t others, ftr_mode mode, int32_t steps, const char *name) {
    ftr_context *context = ftr_test_context_with(NULL, seed, 1 + others % 3, NULL);
    ftr_graph *graph = ftr_graph_create(context);
    numbers n;
    for (int32_t i = 0; i < others; i++) {
        ftr_random_normal(graph, NULL, FTR_SHAPE(3), 0, 1);
    }
    ftr_scope_push(graph, "block");
    draw_from(context, ftr_random_normal(graph, name, FTR_SHAPE(SOME), 0, 1), mode, steps, n.x, SOME);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
    return n;
}

static bool same(const numbers *a, const numbers *b) { return memcmp(a, b, sizeof *a) == 0; }

static void numbers_depend_on_seed_name_and_step(void **state) {
    (void)state;
    numbers first = draw_named(1, 0, FTR_MODE_TRAIN, 1, "noise"), n = draw_named(1, 0, FTR_MODE_TRAIN, 1, "noise");
    assert_true(same(&first, &n));
    n = draw_named(1, 5, FTR_MODE_TRAIN, 1, "noise");
    assert_true(same(&first, &n));
    n = draw_named(1, 0, FTR_MODE_EVAL, 1, "noise");
    assert_true(same(&first, &n));
    n = draw_named(2, 0, FTR_MODE_TRAIN, 1, "noise");
    assert_false(same(&first, &n));
    n = draw_named(1, 0, FTR_MODE_TRAIN, 2, "noise");
    assert_false(same(&first, &n));
    n = draw_named(1, 0, FTR_MODE_TRAIN, 1, "noise2");
    assert_false(same(&first, &n));
    numbers third = draw_named(1, 2, FTR_MODE_TRAIN, 1, NULL);
    n = draw_named(1, 3, FTR_MODE_TRAIN, 1, NULL);
    assert_false(same(&third, &n));
}

/* ---------------------------------------------------------------------------------------------- stochastic depth -- */

enum { ROWS = 4000, WIDTH = 3 };

/* y and dx of a plan for sum(y), x being ones. */
static void run_depth(ftr_mode mode, double p, float *y, float *dx) {
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(ROWS, WIDTH)), result = ftr_stochastic_depth(x, p);
    ftr_compile_desc desc = {.mode = mode, .outputs = &result, .output_count = 1};
    desc.loss = ftr_sum(result, ftr_all_axes(), false);
    desc.gradients_of = &x;
    desc.gradient_count = 1;
    float *ones = malloc(ROWS * WIDTH * sizeof *ones);
    for (int32_t i = 0; i < ROWS * WIDTH; i++) {
        ones[i] = 1;
    }
    ftr_plan *plan = NULL;
    FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
    FTR_TEST_OK(context, ftr_feed(plan, x, ones, ROWS * WIDTH * sizeof *ones));
    FTR_TEST_OK(context, ftr_step(plan, NULL));
    FTR_TEST_OK(context, ftr_read(plan, result, y, ROWS * WIDTH * sizeof *y));
    FTR_TEST_OK(context, ftr_read_gradient(plan, x, dx, ROWS * WIDTH * sizeof *dx));
    free(ones);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

static void depth_drops_rows(void **state) {
    (void)state;
    float *y = malloc(ROWS * WIDTH * sizeof *y), *dx = malloc(ROWS * WIDTH * sizeof *dx);
    run_depth(FTR_MODE_TRAIN, 0.2, y, dx);
    int32_t dropped = 0;
    for (int32_t r = 0; r < ROWS; r++) {
        dropped += y[r * WIDTH] == 0;
        for (int32_t k = 0; k < WIDTH; k++) {
            assert_true(y[r * WIDTH + k] == y[r * WIDTH]);
            assert_true(y[r * WIDTH + k] == 0 || y[r * WIDTH + k] == 1.25f);
        }
    }
    assert_near(dropped, 0.2 * ROWS, 5 * sqrt(0.16 * ROWS));
    assert_memory_equal(y, dx, ROWS * WIDTH * sizeof *y);
    free(y);
    free(dx);
}

static void depth_at_its_ends(void **state) {
    (void)state;
    static const struct {
        ftr_mode mode;
        double p;
        float y;
    } ends[] = {{FTR_MODE_TRAIN, 0, 1}, {FTR_MODE_TRAIN, 1, 0}, {FTR_MODE_EVAL, 0.5, 1}, {FTR_MODE_EVAL, 1, 1}};
    float *y = malloc(ROWS * WIDTH * sizeof *y), *dx = malloc(ROWS * WIDTH * sizeof *dx);
    for (size_t e = 0; e < FTR_TEST_LENGTH(ends); e++) {
        run_depth(ends[e].mode, ends[e].p, y, dx);
        for (int32_t i = 0; i < ROWS * WIDTH; i++) {
            assert_true(y[i] == ends[e].y && dx[i] == ends[e].y);
        }
    }
    free(y);
    free(dx);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uniform_is_uniform), cmocka_unit_test(uniform_keeps_its_bounds),
        cmocka_unit_test(normal_is_normal),   cmocka_unit_test(numbers_depend_on_seed_name_and_step),
        cmocka_unit_test(depth_drops_rows),   cmocka_unit_test(depth_at_its_ends),
    };
    return cmocka_run_group_tests_name("random", tests, NULL, NULL);
}
