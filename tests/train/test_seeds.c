/* Seeds by purpose: what each changes, and that a checkpoint keeps them; a run with mixed batches that is resumed. */
#include "ftr_folder.h"

enum { BATCH = 5, SAMPLES = 23, SIDE = 4, PIXELS = SIDE * SIDE, CLASSES = 3, MOST = 4096 };

static float images[SAMPLES][PIXELS];
static int32_t labels[SAMPLES];

typedef struct outcome {
    float first[MOST], trained[MOST]; /* parameters and buffers */
    int32_t order[SAMPLES];           /* of the samples that were read first */
    int read, floats;
    ftr_status status;
    char message[512];
    ftr_train_result result;
} outcome;

typedef struct reader {
    outcome *out;
} reader;

static ftr_status read_sample(void *user, int64_t index, void *const *fields) {
    outcome *out = ((reader *)user)->out;
    if (out->read < SAMPLES) out->order[out->read++] = (int32_t)index;
    memcpy(fields[0], images[index], sizeof images[index]);
    memcpy(fields[1], &labels[index], sizeof labels[index]);
    return FTR_OK;
}

static int read_all(ftr_graph *graph, float values[MOST]) {
    int floats = 0;
    for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
        ftr_tensor variable = ftr_variable_at(graph, i);
        ftr_shape shape = ftr_shape_of(variable);
        int64_t count = ftr_shape_count(&shape);
        assert_true(floats + count <= MOST && ftr_dtype_of(variable) == FTR_F32);
        assert_int_equal(ftr_variable_read(variable, values + floats, (size_t)count * sizeof(float)), FTR_OK);
        floats += (int)count;
    }
    return floats;
}

/* What a run is made of. */
typedef struct setting {
    ftr_seeds seeds;
    double dropout;
    bool mixed, masked;
    int32_t threads;
    int64_t max_steps;
    const char *folder;
} setting;

static ftr_tensor network(ftr_graph *graph, const setting *s) {
    if (s->masked) ftr_batch_mask(graph, BATCH);
    ftr_tensor x = ftr_input(graph, "image", FTR_F32, FTR_SHAPE(BATCH, SIDE, SIDE, 1));
    ftr_tensor y = ftr_input(graph, "label", FTR_I32, FTR_SHAPE(BATCH)), target = ftr_one_hot(y, CLASSES, FTR_F32);
    if (s->mixed) {
        ftr_mix mix = ftr_mix_draw(x, NULL, NULL);
        x = ftr_mix_images(x, mix), target = ftr_mix_targets(target, mix);
    }
    ftr_tensor h = ftr_relu(ftr_batch_norm(ftr_linear(ftr_flatten(x, 1), "fc1", 24, NULL), "bn", NULL));
    return ftr_cross_entropy(ftr_linear(ftr_dropout(h, s->dropout), "fc2", CLASSES, NULL), target, NULL);
}

static void run(const setting *s, outcome *out) {
    ftr_test_rng rng = {9};
    ftr_test_fill_f32(&images[0][0], SAMPLES * PIXELS, &rng, -1, 1);
    ftr_test_fill_i32(labels, SAMPLES, &rng, 0, CLASSES - 1);
    memset(out, 0, sizeof *out);
    ftr_context *context;
    ftr_context_desc desc = {
        .seed = 3, .seeds = s->seeds, .threads = s->threads ? s->threads : 1, .log_level = FTR_LOG_SILENT};
    assert_int_equal(ftr_context_create(&desc, &context), FTR_OK);
    ftr_graph *graph = ftr_graph_create(context);
    ftr_train_desc t = ftr_train_defaults();
    t.loss = network(graph, s);
    FTR_TEST_GRAPH_OK(graph);
    out->floats = read_all(graph, out->first);
    const ftr_field fields[] = {{"image", FTR_F32, FTR_SHAPE(SIDE, SIDE, 1)}, {"label", FTR_I32, ftr_scalar_shape()}};
    reader r = {out};
    ftr_source_desc source = {
        .name = "train", .count = SAMPLES, .fields = fields, .field_count = 2, .user = &r, .read = read_sample};
    FTR_TEST_OK(context, ftr_source_create(context, &source, &t.train));
    t.optimizer = ftr_adamw(0.01);
    t.epochs = 3;
    t.max_steps = s->max_steps;
    t.progress = FTR_PROGRESS_SILENT;
    t.last_batch = s->masked ? FTR_LAST_BATCH_PAD : FTR_LAST_BATCH_DROP;
    t.checkpoint.directory = s->folder;
    t.resume = s->folder ? FTR_RESUME_AUTO : FTR_RESUME_NEVER;
    out->status = ftr_fit(graph, &t, &out->result);
    snprintf(out->message, sizeof out->message, "%s", ftr_error_message(context));
    read_all(graph, out->trained);
    ftr_source_destroy(t.train);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

static bool same(const float *a, const float *b, int floats) { return memcmp(a, b, (size_t)floats * sizeof *a) == 0; }

static void seeds_are_independent(void **state) {
    (void)state;
    static outcome base, other;
    setting s = {.dropout = 0.25, .mixed = true};
    run(&s, &base);
    assert_int_equal(base.status, FTR_OK);
    /* The context's own seed, said for each purpose. */
    s.seeds = (ftr_seeds){.init = 3, .order = 3, .noise = 3, .augment = 3, .split = 3};
    run(&s, &other);
    assert_true(same(base.trained, other.trained, base.floats));
    const ftr_seeds one[5] = {{.init = 8}, {.order = 8}, {.noise = 8}, {.augment = 8}, {.split = 8}};
    for (int i = 0; i < 5; i++) {
        s.seeds = one[i];
        run(&s, &other);
        assert_int_equal(other.status, FTR_OK);
        assert_int_equal(same(base.first, other.first, base.floats), i != 0);
        assert_int_equal(memcmp(base.order, other.order, sizeof base.order) == 0, i != 1);
        assert_int_equal(same(base.trained, other.trained, base.floats), i == 4);
    }
    /* Without noise and mixing their seeds change nothing. */
    setting plain = {.threads = 1};
    run(&plain, &base);
    plain.seeds = (ftr_seeds){.noise = 8, .augment = 9};
    run(&plain, &other);
    assert_true(same(base.trained, other.trained, base.floats));
}

static void seeds_are_told(void **state) {
    (void)state;
    ftr_context *context;
    assert_int_equal(ftr_context_create(&(ftr_context_desc){.seed = 7, .seeds = {.order = 2}, .threads = 1}, &context),
                     FTR_OK);
    ftr_seeds seeds = ftr_context_seeds(context), none = ftr_context_seeds(NULL);
    assert_true(seeds.init == 7 && seeds.order == 2 && seeds.noise == 7 && seeds.augment == 7 && seeds.split == 7);
    assert_true(none.init == 0 && none.order == 0);
    ftr_context_destroy(context);
}

/* ----------------------------------------------------------------------------------------------------- checkpoints -- */

static void checkpoints_keep_the_seeds(void **state) {
    (void)state;
    char folder[FTR_TEST_PATH], path[FTR_TEST_PATH];
    ftr_test_folder(folder);
    const struct {
        ftr_seeds seeds;
        const char *message; /* of resuming a run that began with `began` */
    } others[] = {
        {{.order = 5, .noise = 6}, NULL},
        {{.noise = 6}, "seed_order is 5, the context's is 3"},
        {{.order = 4, .noise = 6}, "seed_order is 5, the context's is 4"},
        {{.order = 5}, "seed_noise is 6, the context's is 3"},
        {{.init = 1, .order = 5, .noise = 6}, "seed_init is 3, the context's is 1"},
        {{.order = 5, .noise = 6, .augment = 2}, "seed_augment is 3, the context's is 2"},
        {{.order = 5, .noise = 6, .split = 18446744073709551615u},
         "seed_split is 3, the context's is 18446744073709551615"},
    };
    static outcome whole, begun, resumed;
    setting s = {.seeds = {.order = 5, .noise = 6}, .dropout = 0.25};
    run(&s, &whole);
    for (size_t i = 0; i < FTR_TEST_LENGTH(others); i++) {
        char name[16];
        snprintf(name, sizeof name, "run%d", (int)i);
        s.folder = ftr_test_path(path, folder, name);
        s.seeds = (ftr_seeds){.order = 5, .noise = 6};
        s.max_steps = 6;
        run(&s, &begun);
        assert_int_equal(begun.status, FTR_OK);
        s.seeds = others[i].seeds;
        s.max_steps = 0;
        run(&s, &resumed);
        if (others[i].message) {
            assert_int_equal(resumed.status, FTR_ERROR_STATE);
            assert_non_null(strstr(resumed.message, "the checkpoint is of another run: its "));
            assert_non_null(strstr(resumed.message, others[i].message));
            assert_true(same(resumed.first, resumed.trained, whole.floats));
        } else {
            assert_int_equal(resumed.status, FTR_OK);
            assert_int_equal(resumed.result.resumed_at, 6);
            assert_true(same(whole.trained, resumed.trained, whole.floats));
        }
    }
    ftr_test_remove(folder);
}

/* One seed for all: nothing more is in a checkpoint than before there were several. */
static void one_seed_is_written_once(void **state) {
    (void)state;
    char folder[FTR_TEST_PATH], run_folder[FTR_TEST_PATH], path[FTR_TEST_PATH];
    ftr_test_folder(folder);
    static outcome out;
    for (int several = 0; several < 2; several++) {
        setting s = {.seeds = {.order = several ? 5 : 0}, .max_steps = 4};
        s.folder = ftr_test_path(run_folder, folder, several ? "several" : "one");
        run(&s, &out);
        assert_int_equal(out.status, FTR_OK);
        ftr_test_path(path, s.folder, "step-000000000004/checkpoint.json");
        size_t size;
        char *text = (char *)ftr_test_read_file(path, &size), *copy = calloc(1, size + 1);
        assert_non_null(text);
        memcpy(copy, text, size);
        assert_non_null(strstr(copy, "\"seed\":\"3\""));
        assert_int_equal(strstr(copy, "\"seed_order\":\"5\"") != NULL, several);
        assert_null(strstr(copy, "seed_init"));
        assert_null(strstr(copy, "seed_noise"));
        free(copy);
        free(text);
    }
    ftr_test_remove(folder);
}

/* Mixed batches, with dropout and padded rows: stopped at each step and resumed, on other numbers of threads. */
static void mixed_runs_resume(void **state) {
    (void)state;
    char folder[FTR_TEST_PATH], path[FTR_TEST_PATH];
    ftr_test_folder(folder);
    static outcome whole, begun, resumed;
    for (int masked = 0; masked < 2; masked++) {
        setting s = {.dropout = 0.25, .mixed = true, .masked = masked, .threads = 1};
        run(&s, &whole);
        assert_int_equal(whole.status, FTR_OK);
        for (int steps = 1; steps < whole.result.steps; steps += 3) {
            char name[32];
            snprintf(name, sizeof name, "run%d_%d", masked, steps);
            s.folder = ftr_test_path(path, folder, name);
            s.max_steps = steps;
            s.threads = 2;
            run(&s, &begun);
            assert_int_equal(begun.status, FTR_OK);
            s.max_steps = 0;
            s.threads = 3;
            run(&s, &resumed);
            assert_int_equal(resumed.status, FTR_OK);
            assert_int_equal(resumed.result.resumed_at, steps);
            assert_true(same(whole.trained, resumed.trained, whole.floats));
            assert_true(whole.result.loss == resumed.result.loss);
        }
    }
    ftr_test_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seeds_are_independent),      cmocka_unit_test(seeds_are_told),
        cmocka_unit_test(checkpoints_keep_the_seeds), cmocka_unit_test(one_seed_is_written_once),
        cmocka_unit_test(mixed_runs_resume),
    };
    return cmocka_run_group_tests_name("seeds", tests, NULL, NULL);
}
