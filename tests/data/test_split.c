/* Splits and folds against scikit-learn's (data/splits.safetensors, from make_splits.py), and subsets of sources. */
#include "ftr_test.h"

enum { MOST = 2000, MOST_FOLDS = 64 };

static ftr_context *seeded(ftr_seeds seeds, ftr_test_memory *memory) {
    ftr_context_desc desc = {.seed = 3, .seeds = seeds, .threads = 1, .log_level = FTR_LOG_SILENT};
    if (memory) desc.allocator = ftr_test_allocator(memory);
    ftr_context *context;
    assert_int_equal(ftr_context_create(&desc, &context), FTR_OK);
    return context;
}

/* A fold has each sample once, in one of two ascending lists. Marks the held out ones. */
static void check_lists(const ftr_fold *fold, int64_t count, bool held_out[MOST]) {
    bool seen[MOST] = {0};
    assert_int_equal(fold->train_count + fold->test_count, count);
    assert_true(fold->train_count > 0 && fold->test_count > 0);
    memset(held_out, 0, MOST * sizeof *held_out);
    for (int64_t i = 0; i < count; i++) {
        bool test = i >= fold->train_count;
        int64_t at = test ? i - fold->train_count : i, index = test ? fold->test[at] : fold->train[at];
        assert_in_range(index, 0, count - 1);
        assert_false(seen[index]);
        assert_true(at == 0 || index > (test ? fold->test : fold->train)[at - 1]);
        seen[index] = true;
        held_out[index] = test;
    }
}

/* ---------------------------------------------------------------------------------------------------- scikit-learn -- */

static ftr_safetensors *open_splits(ftr_context *context) {
    ftr_safetensors *file;
    FTR_TEST_OK(context, ftr_safetensors_open(context, FTR_TEST_DATA "/data/data/splits.safetensors", &file));
    return file;
}

static bool find(const ftr_safetensors *file, const char *kind, int32_t number, const char *name,
                 ftr_safetensors_entry *entry) {
    char full[64];
    snprintf(full, sizeof full, "%s/%d/%s", kind, (int)number, name);
    return ftr_safetensors_find(file, full, entry);
}

/* Elements of an i32 or i64 tensor; how many there are. */
static int64_t integers(const ftr_safetensors *file, const char *kind, int32_t number, const char *name, int64_t *to) {
    ftr_safetensors_entry entry;
    assert_true(find(file, kind, number, name, &entry));
    assert_in_range(entry.dim[0], 0, MOST);
    for (int64_t i = 0; i < entry.dim[0]; i++) {
        if (entry.dtype == FTR_I32) {
            int32_t value;
            memcpy(&value, (const int32_t *)entry.data + i, sizeof value);
            to[i] = value;
        } else {
            assert_int_equal(entry.dtype, FTR_I64);
            memcpy(&to[i], (const int64_t *)entry.data + i, sizeof *to);
        }
    }
    return entry.dim[0];
}

/* How many samples of class `label` are in a part. */
static int64_t class_count(const int64_t *labels, const int64_t *part, int64_t count, int64_t label, int64_t in) {
    int64_t found = 0;
    for (int64_t i = 0; i < count; i++) found += labels[i] == label && part[i] == in;
    return found;
}

/* All folds of a case: the fold that each sample is held out in. */
static void all_folds(ftr_context *context, const ftr_fold_desc *desc, int32_t folds, int64_t part[MOST]) {
    bool held_out[MOST];
    for (int64_t i = 0; i < desc->count; i++) part[i] = -1;
    for (int32_t number = 0; number < folds; number++) {
        ftr_fold fold;
        FTR_TEST_OK(context, ftr_k_fold(context, desc, folds, number, &fold));
        check_lists(&fold, desc->count, held_out);
        for (int64_t i = 0; i < desc->count; i++) {
            if (!held_out[i]) continue;
            assert_int_equal(part[i], -1);
            part[i] = number;
        }
        ftr_fold_free(&fold);
    }
    for (int64_t i = 0; i < desc->count; i++) assert_true(part[i] >= 0);
}

/* Sizes of folds and, of stratified ones, of each class in each fold. */
static void check_counts(const int64_t *labels, const int64_t *part, const int64_t *expected, int64_t count,
                         int32_t folds, bool by_class) {
    int64_t sizes[2][MOST_FOLDS] = {0};
    for (int64_t i = 0; i < count; i++) {
        sizes[0][part[i]]++;
        sizes[1][expected[i]]++;
        for (int32_t fold = 0; by_class && fold < folds; fold++)
            assert_int_equal(class_count(labels, part, count, labels[i], fold),
                             class_count(labels, expected, count, labels[i], fold));
    }
    for (int32_t fold = 0; fold < folds; fold++) assert_int_equal(sizes[0][fold], sizes[1][fold]);
}

static void folds_are_those_of_scikit_learn(void **state) {
    (void)state;
    ftr_context *context = seeded((ftr_seeds){0}, NULL);
    ftr_safetensors *file = open_splits(context);
    ftr_safetensors_entry entry;
    int32_t number = 0, moved = 0;
    for (; find(file, "fold", number, "part", &entry); number++) {
        static int64_t labels[MOST], expected[MOST], part[MOST], kind[1], folds[1];
        static int32_t narrow[MOST];
        int64_t count = integers(file, "fold", number, "labels", labels);
        integers(file, "fold", number, "part", expected);
        integers(file, "fold", number, "kind", kind);
        integers(file, "fold", number, "folds", folds);
        for (int64_t i = 0; i < count; i++) narrow[i] = (int32_t)labels[i];
        ftr_fold_desc desc = {.count = count,
                              .labels = kind[0] == 2 ? narrow : NULL,
                              .groups = kind[0] == 3 ? labels : NULL,
                              .no_shuffle = true};
        all_folds(context, &desc, (int32_t)folds[0], part);
        check_counts(labels, part, expected, count, (int32_t)folds[0], kind[0] == 2);
        for (int64_t i = 0; i < count && kind[0] != 3; i++) assert_int_equal(part[i], expected[i]);
        for (int64_t i = 0; i < count && kind[0] == 3; i++)
            for (int64_t k = 0; k < i; k++) assert_true(labels[i] != labels[k] || part[i] == part[k]);
        desc.no_shuffle = false;
        all_folds(context, &desc, (int32_t)folds[0], part);
        check_counts(labels, part, expected, count, (int32_t)folds[0], kind[0] == 2);
        for (int64_t i = 0; i < count && kind[0] != 3; i++) moved += part[i] != expected[i];
    }
    assert_true(number > 20 && moved > 1000);
    ftr_safetensors_close(file);
    ftr_context_destroy(context);
}

static void parts_are_those_of_scikit_learn(void **state) {
    (void)state;
    ftr_context *context = seeded((ftr_seeds){0}, NULL);
    ftr_safetensors *file = open_splits(context);
    ftr_safetensors_entry entry;
    int32_t number = 0;
    for (; find(file, "part", number, "fraction", &entry); number++) {
        static int64_t labels[MOST], part[MOST], classes[MOST], least[MOST], most[MOST], count[1], tests[1];
        static int32_t narrow[MOST];
        double fraction;
        memcpy(&fraction, entry.data, sizeof fraction);
        bool stratified = integers(file, "part", number, "labels", labels) > 0, held_out[MOST];
        integers(file, "part", number, "count", count);
        integers(file, "part", number, "tests", tests);
        int64_t class_total = integers(file, "part", number, "classes", classes);
        integers(file, "part", number, "least", least);
        integers(file, "part", number, "most", most);
        for (int64_t i = 0; i < count[0]; i++) narrow[i] = (int32_t)labels[i];
        ftr_fold_desc desc = {.count = count[0], .labels = stratified ? narrow : NULL};
        ftr_fold fold;
        FTR_TEST_OK(context, ftr_train_test_split(context, &desc, fraction, &fold));
        check_lists(&fold, count[0], held_out);
        assert_int_equal(fold.test_count, tests[0]);
        for (int64_t i = 0; i < count[0]; i++) part[i] = held_out[i];
        for (int64_t c = 0; c < class_total && stratified; c++)
            assert_in_range(class_count(labels, part, count[0], classes[c], 1), least[c], most[c]);
        ftr_fold_free(&fold);
        if (stratified) continue;
        desc.no_shuffle = true;
        FTR_TEST_OK(context, ftr_train_test_split(context, &desc, fraction, &fold));
        check_lists(&fold, count[0], held_out);
        for (int64_t i = 0; i < count[0]; i++) assert_int_equal(held_out[i], i >= count[0] - tests[0]);
        ftr_fold_free(&fold);
    }
    assert_true(number >= 12);
    ftr_safetensors_close(file);
    ftr_context_destroy(context);
}

/* ----------------------------------------------------------------------------------------------------------- seeds -- */

static int64_t held_out_by(ftr_seeds seeds, const int32_t *labels, bool folds, bool held_out[MOST]) {
    ftr_context *context = seeded(seeds, NULL);
    ftr_fold_desc desc = {.count = 40, .labels = labels};
    ftr_fold fold;
    FTR_TEST_OK(context,
                folds ? ftr_k_fold(context, &desc, 4, 1, &fold) : ftr_train_test_split(context, &desc, 0.25, &fold));
    check_lists(&fold, 40, held_out);
    int64_t first = fold.test[0];
    ftr_fold_free(&fold);
    assert_null(fold.train);
    ftr_context_destroy(context);
    return first;
}

static void splits_follow_their_seed_alone(void **state) {
    (void)state;
    static int32_t labels[40];
    for (int i = 0; i < 40; i++) labels[i] = i % 4;
    for (int way = 0; way < 4; way++) {
        static bool a[MOST], b[MOST], c[MOST];
        const int32_t *of = way & 1 ? labels : NULL;
        held_out_by((ftr_seeds){0}, of, way & 2, a);
        held_out_by((ftr_seeds){.init = 8, .order = 9, .noise = 10, .augment = 11}, of, way & 2, b);
        held_out_by((ftr_seeds){.split = 12}, of, way & 2, c);
        assert_memory_equal(a, b, 40 * sizeof *a);
        assert_memory_not_equal(a, c, 40 * sizeof *a);
    }
}

/* Each sample is held out about equally often: chi-square within five standard deviations. */
static void samples_are_held_out_evenly(void **state) {
    (void)state;
    enum { SEEDS = 800 };
    static int32_t labels[40];
    for (int i = 0; i < 40; i++) labels[i] = i % 5; /* a quarter of each class */
    for (int way = 0; way < 4; way++) {
        double times[40] = {0}, chi = 0;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            static bool held_out[MOST];
            held_out_by((ftr_seeds){.split = seed}, way & 1 ? labels : NULL, way & 2, held_out);
            for (int i = 0; i < 40; i++) times[i] += held_out[i];
        }
        for (int i = 0; i < 40; i++) chi += pow(times[i] - SEEDS / 4.0, 2) / (SEEDS * 0.25 * 0.75);
        /* of each group of g samples that share what is held out: g / (g - 1) chi-square of g - 1 degrees of freedom */
        assert_true(fabs(chi - 40) < 5 * sqrt(2 * 40.0 * 8 / 7));
    }
}

/* ---------------------------------------------------------------------------------------------------------- errors -- */

static const int32_t six[6] = {4, 4, 5, 5, 5, 6}, pairs[6] = {1, 1, 2, 2, 3, 3};
static const int64_t groups[6] = {1, 1, 2, 2, 2, 1};

static void refusals(void **state) {
    (void)state;
    static const struct {
        ftr_fold_desc desc;
        double fraction; /* 0: folds */
        int32_t folds, number;
        ftr_status status;
        const char *message;
    } cases[] = {
        {{.count = 1}, 0.5, 0, 0, FTR_ERROR_INVALID_ARGUMENT, "ftr_train_test_split: count is 1, expected 2 or more"},
        {{.count = -1}, 0, 2, 0, FTR_ERROR_INVALID_ARGUMENT, "ftr_k_fold: count is -1, expected 2 or more"},
        {{.count = 6},
         1,
         0,
         0,
         FTR_ERROR_INVALID_ARGUMENT,
         "ftr_train_test_split: test_fraction 1 of 6 samples, expected more than 0 and less than all of them"},
        {{.count = 6},
         0.9,
         0,
         0,
         FTR_ERROR_INVALID_ARGUMENT,
         "ftr_train_test_split: test_fraction 0.9 of 6 samples, expected more than 0 and less than all of them"},
        {{.count = 6},
         -0.5,
         0,
         0,
         FTR_ERROR_INVALID_ARGUMENT,
         "ftr_train_test_split: test_fraction -0.5 of 6 samples, expected more than 0 and less than all of them"},
        {{.count = 6, .labels = pairs, .no_shuffle = true},
         0.5,
         0,
         0,
         FTR_ERROR_INVALID_ARGUMENT,
         "ftr_train_test_split: no_shuffle with labels: classes cannot be kept in proportion"},
        {{.count = 6, .groups = groups},
         0.5,
         0,
         0,
         FTR_ERROR_INVALID_ARGUMENT,
         "ftr_train_test_split: groups are for ftr_k_fold(), expected NULL"},
        {{.count = 6, .labels = six},
         0.5,
         0,
         0,
         FTR_ERROR_DATA,
         "ftr_train_test_split: class 6 has one sample, number 5, expected 2 or more"},
        {{.count = 6, .labels = pairs},
         0.25,
         0,
         0,
         FTR_ERROR_DATA,
         "ftr_train_test_split: 3 classes, but a part of 2 samples"},
        {{.count = 6}, 0, 1, 0, FTR_ERROR_INVALID_ARGUMENT, "ftr_k_fold: folds is 1, expected 2 to 6 (count)"},
        {{.count = 6}, 0, 7, 0, FTR_ERROR_INVALID_ARGUMENT, "ftr_k_fold: folds is 7, expected 2 to 6 (count)"},
        {{.count = 6}, 0, 3, 3, FTR_ERROR_INVALID_ARGUMENT, "ftr_k_fold: number is 3, expected 0 to 2"},
        {{.count = 6}, 0, 3, -1, FTR_ERROR_INVALID_ARGUMENT, "ftr_k_fold: number is -1, expected 0 to 2"},
        {{.count = 6, .labels = pairs},
         0,
         3,
         0,
         FTR_ERROR_DATA,
         "ftr_k_fold: 3 folds, but the largest of 3 classes has 2 samples"},
        {{.count = 6, .groups = groups}, 0, 3, 0, FTR_ERROR_DATA, "ftr_k_fold: 3 folds, but 2 groups"},
        {{.count = 6, .groups = groups, .labels = six},
         0,
         2,
         0,
         FTR_ERROR_INVALID_ARGUMENT,
         "ftr_k_fold: labels and groups, expected one of them"},
    };
    ftr_context *context = seeded((ftr_seeds){0}, NULL);
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        ftr_fold fold = {.train_count = 5};
        ftr_status status = cases[i].folds ? ftr_k_fold(context, &cases[i].desc, cases[i].folds, cases[i].number, &fold)
                                           : ftr_train_test_split(context, &cases[i].desc, cases[i].fraction, &fold);
        assert_string_equal(ftr_error_message(context), cases[i].message);
        assert_int_equal(status, cases[i].status);
        assert_true(!fold.train && !fold.test && fold.train_count == 0 && fold.test_count == 0);
    }
    ftr_fold fold;
    assert_int_equal(ftr_k_fold(NULL, &cases[0].desc, 2, 0, &fold), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_k_fold(context, NULL, 2, 0, &fold), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context), "ftr_k_fold: desc is NULL");
    assert_int_equal(ftr_k_fold(context, &cases[0].desc, 2, 0, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context), "ftr_k_fold: fold is NULL");
    ftr_fold_free(NULL);
    ftr_context_destroy(context);
}

/* Every allocation fails once; nothing is left. */
static void splits_without_memory(void **state) {
    (void)state;
    for (int way = 0; way < 5; way++) {
        ftr_fold_desc desc = {.count = 6, .labels = way % 2 ? pairs : NULL, .groups = way == 4 ? groups : NULL};
        bool failed = true;
        int64_t failures = 0;
        for (int64_t n = 1; failed; n++) {
            ftr_test_memory memory = {0};
            ftr_context *context = seeded((ftr_seeds){0}, &memory);
            int64_t blocks = memory.blocks, before = memory.calls;
            memory.fail_at = before + n;
            ftr_fold fold;
            ftr_status status =
                way < 2 ? ftr_train_test_split(context, &desc, 0.5, &fold) : ftr_k_fold(context, &desc, 2, 0, &fold);
            failed = memory.calls - before >= n;
            failures += failed;
            assert_int_equal(status, failed ? FTR_ERROR_OUT_OF_MEMORY : FTR_OK);
            assert_int_equal(fold.train == NULL, failed);
            if (failed) assert_non_null(strstr(ftr_error_message(context), "could not be allocated"));
            ftr_fold_free(&fold);
            assert_int_equal(memory.blocks, blocks);
            ftr_context_destroy(context);
            assert_int_equal(memory.wrong, 0);
        }
        assert_true(failures >= 2);
    }
}

/* --------------------------------------------------------------------------------------------------------- subsets -- */

/* The sum of a source's samples, through a plan that adds them up. */
static ftr_status sum_of(ftr_context *context, ftr_source *source, double *sum) {
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(1, 2));
    ftr_train_desc t = ftr_train_defaults();
    t.loss = ftr_sum(x, ftr_all_axes(), false);
    t.eval = source;
    ftr_train_result result;
    ftr_status status = ftr_evaluate(graph, &t, &result);
    *sum = result.eval_loss * (double)ftr_source_count(source);
    ftr_graph_destroy(graph);
    return status;
}

static ftr_status read_but_seven(void *user, int64_t index, void *const *fields) {
    (void)user;
    float *x = fields[0];
    x[0] = x[1] = (float)index;
    return index == 7 ? FTR_ERROR_CALLBACK : FTR_OK;
}

static void subsets(void **state) {
    (void)state;
    ftr_context *context = seeded((ftr_seeds){0}, NULL);
    ftr_field field = {"x", FTR_F32, FTR_SHAPE(2)};
    ftr_source_desc desc = {.name = "all", .count = 10, .fields = &field, .field_count = 1, .read = read_but_seven};
    ftr_source *all, *some, *fewer, *memory;
    FTR_TEST_OK(context, ftr_source_create(context, &desc, &all));
    int64_t indices[] = {3, 9, 3, 7, 0}, inner[] = {1, 2, 2};
    FTR_TEST_OK(context, ftr_source_subset(all, "some", indices, 5, &some));
    indices[0] = 8; /* they are copied */
    FTR_TEST_OK(context, ftr_source_subset(some, "fewer", inner, 3, &fewer));
    assert_int_equal(ftr_source_count(some), 5);
    double sum;
    FTR_TEST_OK(context, sum_of(context, fewer, &sum));
    assert_true(fabs(sum - 2 * (9 + 3 + 3)) < 1e-5);
    assert_int_equal(sum_of(context, some, &sum), FTR_ERROR_CALLBACK);
    assert_string_equal(ftr_error_message(context), "source 'all': reading sample 7 failed with FTR_ERROR_CALLBACK");
    static const float x[3][2] = {{1, 2}, {10, 20}, {100, 200}};
    const void *data[] = {x};
    FTR_TEST_OK(context, ftr_memory_source(context, "memory", 3, &field, data, 1, &memory));
    ftr_source *of_memory;
    FTR_TEST_OK(context, ftr_source_subset(memory, "of memory", inner, 3, &of_memory));
    FTR_TEST_OK(context, sum_of(context, of_memory, &sum));
    assert_true(fabs(sum - 630) < 1e-4);
    ftr_source_destroy(of_memory);
    ftr_source_destroy(memory);
    ftr_source_destroy(fewer);
    ftr_source_destroy(some);
    ftr_source_destroy(all);
    ftr_context_destroy(context);
}

static void subset_errors(void **state) {
    (void)state;
    ftr_context *context = seeded((ftr_seeds){0}, NULL);
    ftr_field field = {"x", FTR_F32, FTR_SHAPE(2)};
    ftr_source_desc desc = {.name = "all", .count = 10, .fields = &field, .field_count = 1, .read = read_but_seven};
    ftr_source *all, *some = (ftr_source *)&desc;
    const int64_t fine[2] = {1, 2}, beyond[2] = {9, 10}, negative[2] = {0, -1};
    FTR_TEST_OK(context, ftr_source_create(context, &desc, &all));
    static const struct {
        const char *name;
        int which;
        int64_t count;
        ftr_status status;
        const char *message;
    } cases[] = {
        {"", 0, 2, FTR_ERROR_INVALID_ARGUMENT, "source: name is missing"},
        {NULL, 0, 2, FTR_ERROR_INVALID_ARGUMENT, "source: name is missing"},
        {"s", 0, 0, FTR_ERROR_INVALID_ARGUMENT, "source 's': count is 0, expected 1 or more"},
        {"s", 3, 2, FTR_ERROR_INVALID_ARGUMENT, "source 's': indices is NULL"},
        {"s", 1, 2, FTR_ERROR_DATA, "source 's': index 1 is 10, source 'all' has samples 0 to 9"},
        {"s", 2, 2, FTR_ERROR_DATA, "source 's': index 1 is -1, source 'all' has samples 0 to 9"},
    };
    const int64_t *lists[] = {fine, beyond, negative, NULL};
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        some = (ftr_source *)&desc;
        ftr_status status = ftr_source_subset(all, cases[i].name, lists[cases[i].which], cases[i].count, &some);
        assert_string_equal(ftr_error_message(context), cases[i].message);
        assert_int_equal(status, cases[i].status);
        assert_null(some);
    }
    assert_int_equal(ftr_source_subset(NULL, "s", fine, 2, &some), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_source_subset(all, "s", fine, 2, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context), "ftr_source_subset: source is NULL");
    ftr_source_destroy(all);
    ftr_context_destroy(context);
    static int64_t many[20000];
    bool failed = true;
    for (int64_t n = 1; failed; n++) {
        ftr_test_memory memory = {0};
        context = seeded((ftr_seeds){0}, &memory);
        FTR_TEST_OK(context, ftr_source_create(context, &desc, &all));
        int64_t blocks = memory.blocks, before = memory.calls;
        memory.fail_at = before + n;
        ftr_status status = ftr_source_subset(all, "s", many, 20000, &some);
        failed = memory.calls - before >= n;
        assert_int_equal(status, failed ? FTR_ERROR_OUT_OF_MEMORY : FTR_OK);
        assert_int_equal(some == NULL, failed);
        assert_true(!failed || n < 100);
        ftr_source_destroy(some);
        assert_int_equal(memory.blocks, blocks);
        ftr_source_destroy(all);
        ftr_context_destroy(context);
        assert_int_equal(memory.wrong, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folds_are_those_of_scikit_learn),
        cmocka_unit_test(parts_are_those_of_scikit_learn),
        cmocka_unit_test(splits_follow_their_seed_alone),
        cmocka_unit_test(samples_are_held_out_evenly),
        cmocka_unit_test(refusals),
        cmocka_unit_test(splits_without_memory),
        cmocka_unit_test(subsets),
        cmocka_unit_test(subset_errors),
    };
    return cmocka_run_group_tests_name("split", tests, NULL, NULL);
}
