/* Mixing of batches in plans: how often, how much, who with; what is refused when a step runs. */
#include "ftr_test.h"

enum { ROWS = 6, HEIGHT = 8, WIDTH = 5, STEPS = 4000 };

typedef struct drawing {
    ftr_context *context;
    ftr_graph *graph;
    ftr_plan *plan;
    ftr_tensor mask;
    ftr_mix mix;
} drawing;

/* A plan that draws how a batch is mixed. */
static drawing start(uint64_t seed, ftr_seeds seeds, const ftr_mix_desc *desc, bool masked) {
    drawing d = {0};
    const ftr_context_desc context = {.seed = seed, .seeds = seeds, .threads = 1, .log_level = FTR_LOG_SILENT};
    assert_int_equal(ftr_context_create(&context, &d.context), FTR_OK);
    d.graph = ftr_graph_create(d.context);
    if (masked) d.mask = ftr_batch_mask(d.graph, ROWS);
    d.mix = ftr_mix_draw(ftr_input(d.graph, "x", FTR_F32, FTR_SHAPE(ROWS, HEIGHT, WIDTH, 1)), "mix", desc);
    FTR_TEST_GRAPH_OK(d.graph);
    const ftr_tensor outputs[] = {d.mix.weights, d.mix.partners, d.mix.box};
    const ftr_compile_desc compile = {.outputs = outputs, .output_count = ftr_is_valid(d.mix.box) ? 3 : 2};
    FTR_TEST_OK(d.context, ftr_compile(d.graph, &compile, &d.plan));
    return d;
}

static void finish(drawing *d) {
    ftr_plan_destroy(d->plan);
    ftr_graph_destroy(d->graph);
    ftr_context_destroy(d->context);
}

typedef struct draws {
    float weights[4];
    int32_t partners[ROWS], box[4];
} draws;

static draws draw(const drawing *d) {
    draws r = {0};
    FTR_TEST_OK(d->context, ftr_step(d->plan, NULL));
    FTR_TEST_OK(d->context, ftr_read(d->plan, d->mix.weights, r.weights, sizeof r.weights));
    FTR_TEST_OK(d->context, ftr_read(d->plan, d->mix.partners, r.partners, sizeof r.partners));
    if (ftr_is_valid(d->mix.box)) FTR_TEST_OK(d->context, ftr_read(d->plan, d->mix.box, r.box, sizeof r.box));
    return r;
}

/* Each of the three as often as was asked for, within five standard deviations, and the labels' share is the exact one. */
static void choices_and_shares(void **state) {
    (void)state;
    ftr_mix_desc desc = ftr_mix_defaults();
    desc.mixup = 0.5, desc.cutmix = 0.3, desc.mixup_alpha = 0.4;
    drawing d = start(2, (ftr_seeds){0}, &desc, false);
    int mixups = 0, cutmixes = 0, nothing = 0;
    double lambda = 0, rows[HEIGHT] = {0}, columns[WIDTH] = {0};
    for (int i = 0; i < STEPS; i++) {
        draws r = draw(&d);
        int area = (r.box[2] - r.box[0]) * (r.box[3] - r.box[1]);
        assert_true(r.box[0] >= 0 && r.box[2] <= HEIGHT && r.box[0] <= r.box[2]);
        assert_true(r.box[1] >= 0 && r.box[3] <= WIDTH && r.box[1] <= r.box[3]);
        assert_true(fabs((double)r.weights[0] + (double)r.weights[1] - 1) < 1e-7);
        assert_true(fabs((double)r.weights[2] + (double)r.weights[3] - 1) < 1e-7);
        for (int k = 0; k < ROWS; k++) assert_int_equal(r.partners[k], (k + ROWS - 1) % ROWS);
        if (r.weights[0] < 1) { /* an alpha of 0.4 hardly ever gives 1 itself */
            assert_int_equal(area, 0);
            assert_true(r.weights[0] == r.weights[2]);
            lambda += (double)r.weights[0];
            mixups++;
        } else if (area > 0) {
            assert_true(fabs((double)r.weights[2] - (1 - area / (double)(HEIGHT * WIDTH))) < 1e-7);
            for (int h = r.box[0]; h < r.box[2]; h++) rows[h]++;
            for (int w = r.box[1]; w < r.box[3]; w++) columns[w]++;
            cutmixes++;
        } else {
            assert_true(r.weights[2] == 1);
            nothing++;
        }
    }
    assert_true(fabs(mixups - 0.5 * STEPS) < 5 * sqrt(0.25 * STEPS));
    assert_true(cutmixes < 0.3 * STEPS + 5 * sqrt(0.21 * STEPS) && cutmixes > 0.15 * STEPS); /* small boxes are empty */
    assert_true(nothing > 0.2 * STEPS - 5 * sqrt(0.16 * STEPS));
    assert_true(fabs(lambda / mixups - 0.5) < 5 * sqrt(1 / (4 * 1.8) / mixups));
    for (int h = 0; h < HEIGHT; h++) assert_true(rows[h] > 0);
    for (int w = 0; w < WIDTH; w++) assert_true(columns[w] > 0);
    finish(&d);
}

/* Rows that the mask leaves out are partners of nobody; the others are permuted among themselves, each way as often. */
static void masked_rows_stay_alone(void **state) {
    (void)state;
    ftr_mix_desc desc = ftr_mix_defaults();
    desc.pairs = FTR_MIX_PERMUTE;
    static const float masks[][ROWS] = {
        {1, 1, 1, 1, 0, 0}, {0, 1, 1, 0, 1, 1}, {1, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0}, {1, 1, 1, 1, 1, 1}};
    for (int permuted = 0; permuted < 2; permuted++) {
        desc.pairs = permuted ? FTR_MIX_PERMUTE : FTR_MIX_ROLL;
        drawing d = start(2, (ftr_seeds){0}, &desc, true);
        for (size_t m = 0; m < FTR_TEST_LENGTH(masks); m++) {
            double seen[ROWS][ROWS] = {{0}};
            int count = 0;
            for (int k = 0; k < ROWS; k++) count += masks[m][k] != 0;
            FTR_TEST_OK(d.context, ftr_feed(d.plan, d.mask, masks[m], sizeof masks[m]));
            for (int i = 0; i < 1000; i++) {
                draws r = draw(&d);
                bool taken[ROWS] = {0};
                for (int k = 0; k < ROWS; k++) {
                    assert_in_range(r.partners[k], 0, ROWS - 1);
                    assert_false(taken[r.partners[k]]);
                    taken[r.partners[k]] = true;
                    seen[k][r.partners[k]]++;
                    if (masks[m][k] == 0) assert_int_equal(r.partners[k], k);
                    if (!permuted && masks[m][k] != 0 && count > 1) assert_int_not_equal(r.partners[k], k);
                }
            }
            for (int k = 0; k < ROWS && permuted; k++)
                for (int p = 0; p < ROWS && masks[m][k] != 0; p++)
                    assert_true(masks[m][p] == 0 ? seen[k][p] == 0
                                                 : fabs(seen[k][p] - 1000.0 / count) < 5 * sqrt(1000.0 / count));
        }
        finish(&d);
    }
}

/* The numbers are those of (ftr_seeds.augment, name, step) alone. */
static void draws_follow_their_seed(void **state) {
    (void)state;
    drawing a = start(2, (ftr_seeds){0}, NULL, false), b = start(9, (ftr_seeds){.augment = 2}, NULL, false);
    drawing c = start(2, (ftr_seeds){.augment = 9}, NULL, false);
    int same = 0;
    for (int i = 0; i < 100; i++) {
        draws x = draw(&a), y = draw(&b), z = draw(&c);
        assert_memory_equal(&x, &y, sizeof x);
        same += memcmp(&x, &z, sizeof x) == 0;
    }
    assert_in_range(same, 0, 20); /* where nothing is cut out */
    finish(&a);
    finish(&b);
    finish(&c);
}

/* In evaluation the images are the input itself, and nothing is drawn. */
static void evaluation_mixes_nothing(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    ftr_batch_mask(graph, ROWS);
    ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(ROWS, HEIGHT, WIDTH, 1));
    ftr_tensor t = ftr_input(graph, "t", FTR_F32, FTR_SHAPE(ROWS, 3));
    ftr_mix mix = ftr_mix_draw(x, NULL, NULL);
    const ftr_tensor outputs[] = {ftr_mix_images(x, mix), ftr_mix_targets(t, mix)};
    static float images[ROWS * HEIGHT * WIDTH], targets[ROWS * 3], found[ROWS * HEIGHT * WIDTH];
    ftr_test_rng rng = {1};
    ftr_test_fill_f32(images, ROWS * HEIGHT * WIDTH, &rng, -1, 1);
    images[3] = NAN;
    ftr_test_fill_f32(targets, ROWS * 3, &rng, 0, 1);
    ftr_plan *plan;
    FTR_TEST_OK(
        context,
        ftr_compile(graph, &(ftr_compile_desc){.mode = FTR_MODE_EVAL, .outputs = outputs, .output_count = 2}, &plan));
    FTR_TEST_OK(context, ftr_feed(plan, x, images, sizeof images));
    FTR_TEST_OK(context, ftr_feed(plan, t, targets, sizeof targets));
    FTR_TEST_OK(context, ftr_step(plan, NULL)); /* the mask need not be fed */
    FTR_TEST_OK(context, ftr_read(plan, outputs[0], found, sizeof images));
    assert_memory_equal(found, images, sizeof images);
    FTR_TEST_OK(context, ftr_read(plan, outputs[1], found, sizeof targets));
    assert_memory_equal(found, targets, sizeof targets);
    ftr_test_text text = {.length = 0};
    ftr_plan_print(plan, FTR_GRAPH_TEXT, ftr_test_text_write, &text);
    assert_null(strstr(text.text, "mix_draw"));
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

/* Partners and boxes of the caller's own that are outside fail the step; no parameter has changed. */
static void what_is_outside_fails_the_step(void **state) {
    (void)state;
    static const struct {
        int32_t partners[4], box[4];
        const char *message;
    } cases[] = {
        {{0, 1, 2, 3}, {0, 0, 3, 2}, NULL},
        {{0, 1, 4, 3}, {0, 0, 3, 2}, "mix 'mix_4': row 2 has the partner 4 of 4 rows"},
        {{0, -1, 2, 3}, {0, 0, 3, 2}, "mix 'mix_4': row 1 has the partner -1 of 4 rows"},
        {{0, 1, 2, 3}, {0, 0, 4, 2}, "mix 'mix_4': a box from [0, 0] to [4, 2] in images of 3 x 2"},
        {{0, 1, 2, 3}, {0, 0, 3, 3}, "mix 'mix_4': a box from [0, 0] to [3, 3] in images of 3 x 2"},
        {{0, 1, 2, 3}, {2, 0, 1, 2}, "mix 'mix_4': a box from [2, 0] to [1, 2] in images of 3 x 2"},
        {{0, 1, 2, 3}, {0, 2, 3, 1}, "mix 'mix_4': a box from [0, 2] to [3, 1] in images of 3 x 2"},
        {{0, 1, 2, 3}, {-1, 0, 3, 1}, "mix 'mix_4': a box from [-1, 0] to [3, 1] in images of 3 x 2"},
        {{0, 1, 2, 3}, {0, -1, 3, 1}, "mix 'mix_4': a box from [0, -1] to [3, 1] in images of 3 x 2"},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        ftr_context *context = ftr_test_context();
        ftr_graph *graph = ftr_graph_create(context);
        ftr_mix mix = {.weights = ftr_input(graph, "weights", FTR_F32, FTR_SHAPE(4)),
                       .partners = ftr_input(graph, "partners", FTR_I32, FTR_SHAPE(4)),
                       .box = ftr_input(graph, "box", FTR_I32, FTR_SHAPE(4))};
        ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(4, 3, 2));
        ftr_tensor y = ftr_linear(ftr_flatten(ftr_mix_images(x, mix), 1), "fc", 1, NULL);
        ftr_optimizer sgd = ftr_sgd(0.1);
        ftr_plan *plan;
        float images[24] = {1, 2, 3}, weights[4] = {0.5f, 0.5f, 1, 0}, before[6], after[6];
        const ftr_tensor weight = ftr_variable_at(graph, 0);
        FTR_TEST_OK(context,
                    ftr_compile(graph,
                                &(ftr_compile_desc){.loss = ftr_mean(y, ftr_all_axes(), false), .optimizer = &sgd},
                                &plan));
        FTR_TEST_OK(context, ftr_feed(plan, x, images, sizeof images));
        FTR_TEST_OK(context, ftr_feed(plan, mix.weights, weights, sizeof weights));
        FTR_TEST_OK(context, ftr_feed(plan, mix.partners, cases[i].partners, sizeof cases[i].partners));
        FTR_TEST_OK(context, ftr_feed(plan, mix.box, cases[i].box, sizeof cases[i].box));
        FTR_TEST_OK(context, ftr_variable_read(weight, before, sizeof before));
        ftr_status status = ftr_step(plan, NULL);
        FTR_TEST_OK(context, ftr_variable_read(weight, after, sizeof after));
        assert_int_equal(status, cases[i].message ? FTR_ERROR_DATA : FTR_OK);
        if (cases[i].message) {
            assert_string_equal(ftr_error_message(context), cases[i].message);
            assert_memory_equal(before, after, sizeof before);
        } else {
            assert_memory_not_equal(before, after, sizeof before);
        }
        ftr_plan_destroy(plan);
        ftr_graph_destroy(graph);
        ftr_context_destroy(context);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices_and_shares),
        cmocka_unit_test(masked_rows_stay_alone),
        cmocka_unit_test(draws_follow_their_seed),
        cmocka_unit_test(evaluation_mixes_nothing),
        cmocka_unit_test(what_is_outside_fails_the_step),
    };
    return cmocka_run_group_tests_name("mix", tests, NULL, NULL);
}
