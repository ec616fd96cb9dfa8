/* Each fusion has a switch: with it the plan's printout shows the fusion, without it it does not, and losses, results and
 * gradients are the same up to rounding. */
#include "ftr_test.h"

enum { ROWS = 6, WIDTH = 12, MOST_VALUES = 8192 };

/* A graph with one input, "x", and a loss. */
typedef struct subject {
    ftr_graph *graph;
    ftr_tensor x, y, loss;
} subject;

typedef ftr_tensor (*build_fn)(ftr_tensor x);

typedef struct fusion_case {
    const char *name;    /* of the fusion in FASTTRAIN_NO_FUSE */
    ftr_fusion fusion;   /* its switch */
    const char *printed; /* what a printout says of it */
    bool images;         /* x is [ROWS, 6, 6, WIDTH], otherwise [ROWS, WIDTH] */
    ftr_mode mode;
    build_fn build;
} fusion_case;

static ftr_tensor conv(ftr_tensor x, const char *name) {
    return ftr_conv2d(x, name, WIDTH, 3, &(ftr_conv2d_desc){.padding = {1, 1, 1, 1}, .no_bias = true});
}

static ftr_tensor product_and_bias(ftr_tensor x) {
    const ftr_init init = {.kind = FTR_INIT_UNIFORM, .a = -0.5, .b = 0.5};
    const ftr_tensor w = ftr_parameter(x.graph, "w", FTR_F32, FTR_SHAPE(WIDTH, 9), init);
    return ftr_add(ftr_matmul(x, w, false, false), ftr_parameter(x.graph, "b", FTR_F32, FTR_SHAPE(9), init));
}

static ftr_tensor linear_and_relu(ftr_tensor x) { return ftr_relu(ftr_linear(x, "fc", 9, NULL)); }

static ftr_tensor norm_residual_relu(ftr_tensor x) {
    const ftr_tensor skip = conv(x, "before");
    return ftr_relu(ftr_add(ftr_batch_norm(conv(skip, "conv"), "bn", NULL), skip));
}

/* The residual has no gradient, so that only batch norm's gradient takes ReLU's. */
static ftr_tensor norm_input_relu(ftr_tensor x) {
    return ftr_relu(ftr_add(ftr_batch_norm(conv(x, "conv"), "bn", NULL), x));
}

static ftr_tensor norm_and_relu(ftr_tensor x) { return ftr_relu(ftr_batch_norm(conv(x, "conv"), "bn", NULL)); }

static ftr_tensor norm_and_silu(ftr_tensor x) { return ftr_silu(ftr_batch_norm(conv(x, "conv"), "bn", NULL)); }

static ftr_tensor norm_and_hardswish(ftr_tensor x) {
    return ftr_hardswish(ftr_batch_norm(conv(x, "conv"), "bn", NULL));
}

static ftr_tensor norm_and_relu6(ftr_tensor x) { return ftr_relu6(ftr_batch_norm(conv(x, "conv"), "bn", NULL)); }

static ftr_tensor one(ftr_tensor x, const char *name) {
    return ftr_conv2d(x, name, WIDTH, 1, &(ftr_conv2d_desc){.no_bias = true});
}

static ftr_tensor norm_relu_one(ftr_tensor x) { return one(norm_and_relu(x), "project"); }

static ftr_tensor scaled_one(ftr_tensor x) {
    const ftr_tensor h = conv(x, "conv"), pooled = ftr_mean(h, FTR_AXES(1, 2), true);
    return one(ftr_mul(h, ftr_sigmoid(one(pooled, "squeeze"))), "project");
}

static ftr_tensor packed_attention(ftr_tensor x) {
    ftr_tensor part[3];
    ftr_split(ftr_linear(x, "qkv", 3 * WIDTH, NULL), -1, NULL, 3, part);
    for (int i = 0; i < 3; i++) part[i] = ftr_reshape(part[i], FTR_SHAPE(2, ROWS / 2, 3, WIDTH / 3));
    return ftr_attention(part[0], part[1], part[2], NULL);
}

static const fusion_case cases[] = {
    {"bias", FTR_FUSE_BIAS, "[fused: matmul, add]", false, FTR_MODE_TRAIN, product_and_bias},
    {"relu", FTR_FUSE_RELU, "[fused: relu]", false, FTR_MODE_TRAIN, linear_and_relu},
    {"residual", FTR_FUSE_RESIDUAL, "[fused: add, relu]", true, FTR_MODE_TRAIN, norm_residual_relu},
    {"relu_grad", FTR_FUSE_RELU_GRAD, "[fused: relu_grad]", true, FTR_MODE_TRAIN, norm_and_relu},
    {"relu_grad", FTR_FUSE_RELU_GRAD, "[fused: relu_grad]", true, FTR_MODE_TRAIN, norm_input_relu},
    {"activation", FTR_FUSE_ACTIVATION, "[fused: silu_grad]", true, FTR_MODE_TRAIN, norm_and_silu},
    {"activation", FTR_FUSE_ACTIVATION, "[fused: hardswish_grad]", true, FTR_MODE_TRAIN, norm_and_hardswish},
    {"activation", FTR_FUSE_ACTIVATION, "[fused: clamp_grad]", true, FTR_MODE_TRAIN, norm_and_relu6},
    {"activation", FTR_FUSE_ACTIVATION, "[fused: silu]", true, FTR_MODE_TRAIN, norm_and_silu},
    {"conv_norm", FTR_FUSE_CONV_NORM, "[fused: batch_norm and what followed it]", true, FTR_MODE_EVAL, norm_and_relu},
    {"conv_norm", FTR_FUSE_CONV_NORM, "[fused: batch_norm and what followed it]", true, FTR_MODE_EVAL,
     norm_residual_relu},
    {"input", FTR_FUSE_INPUT, "[fused: batch_norm, relu]", true, FTR_MODE_TRAIN, norm_relu_one},
    {"input", FTR_FUSE_INPUT, "[fused: mul]", true, FTR_MODE_TRAIN, scaled_one},
    {"attention", FTR_FUSE_ATTENTION, "[fused: slice]", false, FTR_MODE_TRAIN, packed_attention},
    {"attention", FTR_FUSE_ATTENTION, "[fused: slice_grad, add]", false, FTR_MODE_TRAIN, packed_attention},
};
enum { CASES = sizeof cases / sizeof cases[0] };

static subject build(ftr_context *context, const fusion_case *of) {
    subject s = {.graph = ftr_graph_create(context)};
    s.x = ftr_input(s.graph, "x", FTR_F32, of->images ? FTR_SHAPE(ROWS, 6, 6, WIDTH) : FTR_SHAPE(ROWS, WIDTH));
    s.y = of->build(s.x);
    s.loss = ftr_sum(ftr_mul(s.y, ftr_sin(s.y)), ftr_all_axes(), false);
    FTR_TEST_GRAPH_OK(s.graph);
    return s;
}

/* What a plan computed: the loss, the results, the gradients of parameters when training. */
typedef struct values {
    int64_t count;
    float value[MOST_VALUES];
} values;

static float *space(values *into, ftr_tensor like, size_t *bytes) {
    const ftr_shape shape = ftr_shape_of(like);
    const int64_t count = ftr_shape_count(&shape);
    assert_true(into->count + count <= MOST_VALUES);
    *bytes = (size_t)count * sizeof(float);
    into->count += count;
    return into->value + into->count - count;
}

/* Runs a case twice, so that running statistics have moved, without the fusions in `off`, and prints its plan. */
static void run(const fusion_case *of, uint32_t off, values *found, ftr_test_text *text) {
    ftr_context *context = ftr_test_context();
    subject s = build(context, of);
    ftr_tensor wanted[8];
    int32_t count = 0;
    for (int32_t i = 0; i < ftr_variable_count(s.graph); i++)
        if (ftr_is_parameter(ftr_variable_at(s.graph, i))) wanted[count++] = ftr_variable_at(s.graph, i);
    const bool train = of->mode == FTR_MODE_TRAIN;
    const ftr_compile_desc desc = {.mode = of->mode,
                                   .loss = s.loss,
                                   .outputs = &s.y,
                                   .output_count = 1,
                                   .gradients_of = train ? wanted : NULL,
                                   .gradient_count = train ? count : 0,
                                   .no_fuse = off};
    ftr_plan *plan;
    FTR_TEST_OK(context, ftr_compile(s.graph, &desc, &plan));
    FTR_TEST_OK(context, ftr_plan_print(plan, FTR_GRAPH_TEXT, ftr_test_text_write, text));
    float x[ROWS * 36 * WIDTH];
    ftr_test_rng rng = {7};
    size_t bytes = (of->images ? 36u : 1u) * ROWS * WIDTH * sizeof(float);
    ftr_test_fill_f32(x, (int64_t)(bytes / sizeof(float)), &rng, -2.0, 2.0);
    FTR_TEST_OK(context, ftr_feed(plan, s.x, x, bytes));
    for (int step = 0; step < 2; step++) FTR_TEST_OK(context, ftr_step(plan, NULL));
    float *loss = space(found, s.loss, &bytes);
    FTR_TEST_OK(context, ftr_read(plan, s.loss, loss, bytes));
    float *y = space(found, s.y, &bytes);
    FTR_TEST_OK(context, ftr_read(plan, s.y, y, bytes));
    for (int32_t i = 0; train && i < count; i++) {
        float *gradient = space(found, wanted[i], &bytes);
        FTR_TEST_OK(context, ftr_read_gradient(plan, wanted[i], gradient, bytes));
    }
    ftr_plan_destroy(plan);
    ftr_graph_destroy(s.graph);
    ftr_context_destroy(context);
}

static void expect_same(const values *a, const values *b) {
    assert_int_equal(a->count, b->count);
    for (int64_t i = 0; i < a->count; i++)
        assert_true(fabsf(a->value[i] - b->value[i]) <= 2e-5f * fmaxf(10.0f, fabsf(b->value[i])));
}

static void each_switch_turns_its_fusion_off(void **state) {
    (void)state;
    for (int32_t i = 0; i < CASES; i++) {
        const fusion_case *of = &cases[i];
        values *with = calloc(1, sizeof *with), *without = calloc(1, sizeof *without),
               *by_name = calloc(1, sizeof *by_name);
        ftr_test_text *text = calloc(3, sizeof *text);
        run(of, 0, with, &text[0]);
        run(of, (uint32_t)of->fusion, without, &text[1]);
        assert_int_equal(setenv("FASTTRAIN_NO_FUSE", of->name, 1), 0);
        run(of, 0, by_name, &text[2]);
        assert_int_equal(unsetenv("FASTTRAIN_NO_FUSE"), 0);
        if (!strstr(text[0].text, of->printed)) fail_msg("%s: no %s in\n%s", of->name, of->printed, text[0].text);
        if (strstr(text[1].text, of->printed)) fail_msg("%s is off: %s in\n%s", of->name, of->printed, text[1].text);
        expect_same(with, without);
        assert_string_equal(text[1].text, text[2].text);
        assert_memory_equal(without->value, by_name->value, (size_t)without->count * sizeof(float));
        free(with);
        free(without);
        free(by_name);
        free(text);
    }
}

static void all_switches_leave_nothing_fused(void **state) {
    (void)state;
    for (int32_t i = 0; i < CASES; i++) {
        values *found = calloc(2, sizeof *found);
        ftr_test_text *text = calloc(2, sizeof *text);
        run(&cases[i], FTR_FUSE_ALL, &found[0], &text[0]);
        assert_null(strstr(text[0].text, "[fused"));
        assert_int_equal(setenv("FASTTRAIN_NO_FUSE", " all  bias", 1), 0);
        run(&cases[i], 0, &found[1], &text[1]);
        assert_int_equal(unsetenv("FASTTRAIN_NO_FUSE"), 0);
        assert_string_equal(text[0].text, text[1].text);
        free(found);
        free(text);
    }
}

static void unknown_fusions_are_named(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    const subject s = build(context, &cases[0]);
    ftr_plan *plan;
    assert_int_equal(ftr_compile(s.graph, &(ftr_compile_desc){.loss = s.loss, .no_fuse = 300}, &plan),
                     FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context),
                        "compile: no_fuse is 300, expected fusions that add up to 255 at most");
    assert_null(plan);
    assert_int_equal(setenv("FASTTRAIN_NO_FUSE", "relu relu7", 1), 0);
    assert_int_equal(ftr_compile(s.graph, &(ftr_compile_desc){.loss = s.loss}, &plan), FTR_ERROR_NAME);
    assert_int_equal(unsetenv("FASTTRAIN_NO_FUSE"), 0);
    assert_string_equal(
        ftr_error_message(context),
        "compile: FASTTRAIN_NO_FUSE has 'relu7', expected all, bias, relu, residual, relu_grad, activation, "
        "conv_norm, attention or input");
    assert_null(plan);
    ftr_graph_destroy(s.graph);
    ftr_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_switch_turns_its_fusion_off),
        cmocka_unit_test(all_switches_leave_nothing_fused),
        cmocka_unit_test(unknown_fusions_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
