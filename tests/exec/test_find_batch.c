/* ftr_find_batch(): the batch that it finds fits and the next does not; what it says if nothing does; nothing is allocated. */
#include "ftr_test.h"
#include "model_zoo.h"

typedef struct recipe {
    const char *model;
    ftr_shape input; /* of a batch of 1 */
    ftr_mode mode;
    ftr_amp amp;
    size_t budget; /* desc.memory_budget */
    ftr_optimizer adamw;
    int64_t fail_at, calls, largest; /* a batch that fails; calls, and the largest batch that was built */
    int fault;                       /* how it fails */
    int64_t sizes[16];
} recipe;

static ftr_status build(void *user, int64_t batch, ftr_graph *graph, ftr_compile_desc *desc) {
    recipe *r = user;
    assert_int_equal(desc->output_count, 0);
    r->sizes[r->calls++ % 16] = batch;
    if (batch > r->largest) r->largest = batch;
    const bool fails = r->fail_at && batch >= r->fail_at;
    if (fails && r->fault == 0) return FTR_ERROR_DATA;
    if (fails && r->fault == 1)
        ftr_graph_fail(graph, FTR_ERROR_SHAPE, "my_model", "head", "no batch of %d", (int)batch);
    ftr_shape input = r->input;
    input.dim[0] = batch;
    const zoo_network net = zoo_build(graph, zoo_find(r->model), input, &(zoo_options){.classes = 10, .random = true});
    r->adamw = ftr_adamw(1e-3);
    if (fails && r->fault == 2) r->adamw.lr = -1;
    desc->loss = net.loss;
    desc->mode = r->mode;
    desc->amp = r->amp;
    desc->memory_budget = r->budget;
    desc->optimizer = r->mode == FTR_MODE_TRAIN ? &r->adamw : NULL;
    return FTR_OK;
}

/* What a batch needs; with `compile` as a plan that has its memory. */
static ftr_memory needs(ftr_context *context, recipe *r, int64_t batch, bool compile) {
    ftr_graph *graph = ftr_graph_create(context);
    ftr_compile_desc desc = {0};
    ftr_memory memory = {0};
    FTR_TEST_OK(context, build(r, batch, graph, &desc));
    if (compile) {
        ftr_plan *plan;
        FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
        memory = ftr_plan_memory(plan);
        ftr_plan_destroy(plan);
    } else {
        FTR_TEST_OK(context, ftr_memory_needed(graph, &desc, &memory));
    }
    ftr_graph_destroy(graph);
    return memory;
}

static const recipe recipes[] = {
    {.model = "mlp", .input = {2, {1, 20}}},
    {.model = "mlp", .input = {2, {1, 20}}, .mode = FTR_MODE_EVAL, .amp = FTR_AMP_FP16},
    {.model = "resnet20", .input = {4, {1, 32, 32, 3}}},
    {.model = "resnet20", .input = {4, {1, 32, 32, 3}}, .mode = FTR_MODE_EVAL},
    {.model = "resnet20", .input = {4, {1, 32, 32, 3}}, .amp = FTR_AMP_BF16},
    {.model = "gpt_untied", .input = {2, {1, 32}}},
    {.model = "gpt_untied", .input = {2, {1, 32}}, .mode = FTR_MODE_EVAL},
    {.model = "gpt_untied", .input = {2, {1, 32}}, .amp = FTR_AMP_FP16},
};

static void the_batch_fits_and_the_next_does_not(void **state) {
    ftr_test_fixture *f = *state;
    for (size_t i = 0; i < FTR_TEST_LENGTH(recipes); i++) {
        recipe r = recipes[i];
        const size_t room = needs(f->context, &r, 11, false).total + 100;
        for (int64_t multiple = 1; multiple <= 8; multiple += 7) {
            int64_t batch;
            ftr_memory found;
            r.calls = 0;
            FTR_TEST_OK(
                f->context,
                ftr_find_batch(f->context,
                               &(ftr_batch_search){.build = build, .user = &r, .memory = room, .multiple = multiple},
                               &batch, &found));
            const int64_t calls = r.calls;
            assert_true(batch >= 12 - multiple && batch % multiple == 0);
            assert_true(found.total <= room);
            assert_true(calls <= 40);
            const ftr_memory compiled = needs(f->context, &r, batch, true);
            assert_memory_equal(&compiled, &found, sizeof found);
            assert_true(needs(f->context, &r, batch + multiple, false).total > room);
            print_message("%s, mode %d, amp %d: %lld in %zu bytes, %lld plans\n", r.model, (int)r.mode, (int)r.amp,
                          (long long)batch, room, (long long)calls);
        }
    }
}

static void recomputation_makes_room_for_more(void **state) {
    ftr_test_fixture *f = *state;
    recipe r = {.model = "resnet20", .input = {4, {1, 32, 32, 3}}};
    const size_t room = needs(f->context, &r, 8, false).total;
    ftr_batch_search search = {.build = build, .user = &r, .memory = room};
    int64_t plain, more;
    ftr_memory found;
    FTR_TEST_OK(f->context, ftr_find_batch(f->context, &search, &plain, NULL));
    assert_int_equal(plain, 8);
    r.budget = room;
    FTR_TEST_OK(f->context, ftr_find_batch(f->context, &search, &more, &found));
    print_message("batch %lld, with recomputation %lld\n", (long long)plain, (long long)more);
    assert_true(more >= 2 * plain);
    assert_true(found.total <= room && found.recomputed_nodes > 0);
    assert_int_equal(needs(f->context, &r, more, true).total, found.total);
    ftr_graph *graph = ftr_graph_create(f->context);
    ftr_compile_desc desc = {0};
    ftr_plan *plan;
    FTR_TEST_OK(f->context, build(&r, more + 1, graph, &desc));
    assert_int_equal(ftr_compile(graph, &desc, &plan), FTR_ERROR_OUT_OF_MEMORY);
    ftr_graph_destroy(graph);
}

static void limits_are_kept(void **state) {
    ftr_test_fixture *f = *state;
    recipe r = {.model = "mlp", .input = {2, {1, 20}}};
    const struct {
        int64_t min, max, multiple, expected;
    } cases[] = {{0, 7, 0, 7}, {5, 5, 0, 5}, {3, 17, 4, 16}, {3, 7, 4, 4}, {1, 1000, 1000, 1000}, {6, 13, 0, 13}};
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        const ftr_batch_search search = {.build = build,
                                         .user = &r,
                                         .memory = (size_t)1 << 40,
                                         .min = cases[i].min,
                                         .max = cases[i].max,
                                         .multiple = cases[i].multiple};
        int64_t batch;
        r.largest = 0;
        FTR_TEST_OK(f->context, ftr_find_batch(f->context, &search, &batch, NULL));
        assert_int_equal(batch, cases[i].expected);
        assert_int_equal(r.largest, cases[i].expected);
    }
}

/* Less than the machine has, as the C library sees it, and enough for a small batch. */
static void the_machine_is_asked(void **state) {
    ftr_test_fixture *f = *state;
    recipe r = {.model = "resnet20", .input = {4, {1, 32, 32, 3}}};
    FILE *file = fopen("/proc/meminfo", "r");
    if (!file) return; /* another system: nothing to compare with */
    double available = 0, value;
    char line[256];
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %lf", &value) == 1) available = value * 1024;
    fclose(file);
    int64_t batch;
    ftr_memory memory;
    FTR_TEST_OK(f->context,
                ftr_find_batch(f->context, &(ftr_batch_search){.build = build, .user = &r}, &batch, &memory));
    print_message("%lld images in %.0f MB of %.0f\n", (long long)batch, (double)memory.total / 1e6, available / 1e6);
    assert_true(batch >= 8);
    assert_true((double)memory.total < available * 0.95); /* other programs come and go */
}

static void nothing_is_allocated(void **state) {
    (void)state;
    ftr_test_memory memory = {0};
    ftr_context *context = ftr_test_context_with(NULL, 1, 2, &memory);
    recipe r = {.model = "resnet18", .input = {4, {1, 224, 224, 3}}};
    const size_t live = memory.live;
    int64_t batch;
    ftr_memory found;
    FTR_TEST_OK(context,
                ftr_find_batch(context, &(ftr_batch_search){.build = build, .user = &r, .memory = (size_t)4 << 30},
                               &batch, &found));
    assert_true(found.total > (size_t)3 << 30);
    assert_true(memory.peak - live < (size_t)4 << 20);
    assert_int_equal(memory.live, live);
    ftr_context_destroy(context);
    assert_int_equal(memory.blocks, 0);
    assert_int_equal(memory.wrong, 0);
}

static void failures_are_explained(void **state) {
    ftr_test_fixture *f = *state;
    recipe r = {.model = "mlp", .input = {2, {1, 20}}};
    const struct {
        ftr_batch_search search;
        int fault;
        ftr_status status;
        const char *sentence;
    } cases[] = {
        {{0}, 0, FTR_ERROR_INVALID_ARGUMENT, "find_batch: build is NULL"},
        {{build, &r, 0, -1, 0, 0}, 0, FTR_ERROR_INVALID_ARGUMENT, "find_batch: min is -1, expected 0 or more"},
        {{build, &r, 0, 0, -2, 0}, 0, FTR_ERROR_INVALID_ARGUMENT, "find_batch: max is -2, expected 0 or more"},
        {{build, &r, 0, 0, 0, -3}, 0, FTR_ERROR_INVALID_ARGUMENT, "find_batch: multiple is -3, expected 0 or more"},
        {{build, &r, 0, 5, 7, 8},
         0,
         FTR_ERROR_INVALID_ARGUMENT,
         "find_batch: no multiple of 8 lies between min 5 and max 7"},
        {{build, &r, 0, 9, 4, 0},
         0,
         FTR_ERROR_INVALID_ARGUMENT,
         "find_batch: no multiple of 1 lies between min 9 and max 4"},
        {{build, &r, (size_t)1 << 30, 0, 64, 0}, 0, FTR_ERROR_DATA, "find_batch: batch 16: build returned an error"},
        {{build, &r, (size_t)1 << 30, 0, 64, 0},
         1,
         FTR_ERROR_SHAPE,
         "find_batch: batch 16: my_model 'head': no batch of 16"},
        {{build, &r, (size_t)1 << 30, 0, 64, 0},
         2,
         FTR_ERROR_INVALID_ARGUMENT,
         "find_batch: batch 16: optimizer: lr is -1, expected at least 0 and below inf"},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        int64_t batch = 99;
        ftr_memory memory = {.total = 99};
        r.fail_at = 10;
        r.fault = cases[i].fault;
        const ftr_status status = ftr_find_batch(f->context, &cases[i].search, &batch, &memory);
        assert_string_equal(ftr_error_message(f->context), cases[i].sentence);
        assert_int_equal(status, cases[i].status);
        assert_int_equal(batch, 0);
        assert_int_equal(memory.total, 0);
    }
    int64_t batch;
    assert_int_equal(ftr_find_batch(NULL, NULL, NULL, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_find_batch(f->context, NULL, &batch, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(f->context), "find_batch: search is NULL");
    assert_int_equal(ftr_find_batch(f->context, &cases[0].search, NULL, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(f->context), "find_batch: batch is NULL");
}

static void too_little_memory_is_explained(void **state) {
    ftr_test_fixture *f = *state;
    for (int budget = 0; budget < 2; budget++) {
        recipe r = {.model = "mnist_cnn", .input = {4, {1, 28, 28, 1}}, .budget = budget ? 4000 : 0};
        const ftr_batch_search search = {.build = build, .user = &r, .memory = 5000, .min = 30, .multiple = 8};
        int64_t batch;
        char start[96];
        assert_int_equal(ftr_find_batch(f->context, &search, &batch, NULL), FTR_ERROR_OUT_OF_MEMORY);
        r.budget = 0;
        const ftr_memory m = needs(f->context, &r, 32, false);
        size_t total = 0;
        assert_int_equal(sscanf(ftr_error_message(f->context), "find_batch: a batch of 32 needs %zu bytes,", &total), 1);
        assert_true(budget ? total < m.total : total == m.total); /* with a budget it is the smallest plan */
        snprintf(start, sizeof start, "find_batch: a batch of 32 needs %zu bytes, there are 5000: parameters ", total);
        assert_true(strncmp(ftr_error_message(f->context), start, strlen(start)) == 0);
    }
}

/* Each allocation of a search fails once; with recomputation, so that those of its pass are among them. */
static void every_allocation_may_fail(void **state) {
    (void)state;
    size_t room = 0;
    int64_t failures = 0;
    for (int64_t n = 0;; n++) {
        ftr_test_memory memory = {.fail_at = n};
        ftr_context_desc desc = {
            .seed = 1, .threads = 1, .log_level = FTR_LOG_SILENT, .allocator = ftr_test_allocator(&memory)};
        ftr_context *context;
        ftr_status status = ftr_context_create(&desc, &context);
        recipe r = {.model = "resnet20", .input = {4, {1, 16, 16, 3}}};
        int64_t batch = 0;
        if (!status && n == 0) room = needs(context, &r, 3, false).total - 100000;
        r.budget = room;
        if (!status)
            status = ftr_find_batch(context, &(ftr_batch_search){.build = build, .user = &r, .memory = room, .max = 3},
                                    &batch, NULL);
        ftr_context_destroy(context);
        assert_int_equal(memory.blocks, 0);
        assert_int_equal(memory.live, 0);
        assert_int_equal(memory.wrong, 0);
        assert_int_equal(status, n == 0 || memory.calls < n ? FTR_OK : FTR_ERROR_OUT_OF_MEMORY);
        assert_int_equal(batch, status ? 0 : 3);
        if (n > 0 && memory.calls < n) break;
        failures += n > 0;
    }
    assert_true(failures > 20);
    print_message("%lld allocations failed in turn\n", (long long)failures);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_batch_fits_and_the_next_does_not, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test_setup_teardown(recomputation_makes_room_for_more, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test_setup_teardown(limits_are_kept, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test_setup_teardown(the_machine_is_asked, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test(nothing_is_allocated),
        cmocka_unit_test_setup_teardown(failures_are_explained, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test_setup_teardown(too_little_memory_is_explained, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
