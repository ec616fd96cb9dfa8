/* Random numbers, threads, arenas, patterns, layouts of weights: private parts, so this program sees the implementation. */
#ifdef FTR_TEST_SINGLE
#define FASTTRAIN_IMPLEMENTATION
#endif
#include "ftr_test.h"
#ifndef FTR_TEST_SINGLE
#include "core/platform.h"
#include "core/rng.h"
#include "core/threads.h"
#include "graph/graph.h"
#endif

#include <stdatomic.h>
#include <unistd.h>

/* Known answers of the reference implementation (Random123's kat_vectors). */
static void philox_known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } vectors[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(vectors); i++) {
        uint32_t out[4];
        ftr__philox(vectors[i].counter, vectors[i].key, out);
        assert_memory_equal(out, vectors[i].out, sizeof out);
    }
}

static double mean_of(const ftr__rng *rng, int64_t count) {
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) sum += ftr__rng_uniform(ftr__rng_at(rng, (uint64_t)i));
    return sum / (double)count;
}

static void streams_are_uniform_and_apart(void **state) {
    (void)state;
    const ftr__rng streams[] = {
        ftr__rng_make(1, FTR__RNG_INIT, 0, 0),    ftr__rng_make(2, FTR__RNG_INIT, 0, 0),
        ftr__rng_make(1, FTR__RNG_DROPOUT, 0, 0), ftr__rng_make(1, FTR__RNG_INIT, 1, 0),
        ftr__rng_make(1, FTR__RNG_INIT, 0, 1),
    };
    for (size_t a = 0; a < FTR_TEST_LENGTH(streams); a++) {
        assert_true(fabs(mean_of(&streams[a], 40000) - 0.5) < 0.01);
        for (size_t b = 0; b < a; b++) {
            double product = 0.0;
            for (uint64_t i = 0; i < 40000; i++)
                product += (ftr__rng_uniform(ftr__rng_at(&streams[a], i)) - 0.5) *
                           (ftr__rng_uniform(ftr__rng_at(&streams[b], i)) - 0.5);
            assert_true(fabs(product / 40000.0 * 12.0) < 0.03); /* correlation; its deviation is 0.005 */
        }
    }
}

static void dropout_threshold_is_exact_at_the_ends(void **state) {
    (void)state;
    assert_true(ftr__dropout_threshold(0.0) == 0);
    assert_true(ftr__dropout_threshold(1.0) == UINT64_C(1) << 32);
    assert_true(ftr__dropout_threshold(0.5) == UINT64_C(1) << 31);
}

typedef struct job {
    atomic_int done[1000];
    int32_t threads;
    atomic_int wrong_worker;
} job;

static void count_task(void *arg, int64_t task, int32_t worker) {
    job *j = arg;
    atomic_fetch_add(&j->done[task], 1);
    if (worker < 0 || worker >= j->threads) atomic_fetch_add(&j->wrong_worker, 1);
}

static void pool_runs_every_task_once(void **state) {
    (void)state;
    static const int32_t threads[] = {1, 2, 3, 8};
    static const int64_t tasks[] = {0, 1, 2, 7, 1000};
    ftr_context *context = ftr_test_context();
    for (size_t t = 0; t < FTR_TEST_LENGTH(threads); t++) {
        ftr__pool *pool = NULL;
        FTR_TEST_OK(context, ftr__pool_create(context, threads[t], &pool));
        assert_int_equal(ftr__pool_threads(pool), threads[t]);
        for (int round = 0; round < 300; round++) {
            job *j = calloc(1, sizeof *j);
            j->threads = threads[t];
            const int64_t count = tasks[round % (int)FTR_TEST_LENGTH(tasks)];
            ftr__pool_run(pool, count, count_task, j);
            for (int64_t i = 0; i < 1000; i++) assert_int_equal(atomic_load(&j->done[i]), i < count ? 1 : 0);
            assert_int_equal(atomic_load(&j->wrong_worker), 0);
            free(j);
        }
        ftr__pool_destroy(context, pool);
    }
    ftr_context_destroy(context);
}

static void arena_hands_out_cleared_aligned_memory(void **state) {
    (void)state;
    ftr_test_memory memory = {0};
    ftr_context *context = ftr_test_context_with(NULL, 1, 1, &memory);
    const size_t before = memory.live;
    ftr__arena arena;
    ftr__arena_init(&arena, context);
    static const size_t sizes[] = {0, 1, 15, 16, 17, 1000, 20000, 3, 100000};
    for (size_t i = 0; i < FTR_TEST_LENGTH(sizes); i++) {
        unsigned char *piece = ftr__arena_alloc(&arena, sizes[i]);
        assert_non_null(piece);
        assert_int_equal((uintptr_t)piece % 16, 0);
        for (size_t k = 0; k < sizes[i]; k++) {
            assert_int_equal(piece[k], 0);
            piece[k] = 0xff;
        }
    }
    assert_int_equal(memory.live - before, arena.bytes);
    assert_null(ftr__arena_alloc(&arena, SIZE_MAX - 8));
    memory.fail_at = memory.calls + 1;
    assert_null(ftr__arena_alloc(&arena, 1000000));
    ftr__arena_free(&arena);
    assert_int_equal(memory.live, before);
    ftr_context_destroy(context);
    assert_int_equal(memory.blocks, 0);
    assert_int_equal(memory.wrong, 0);
}

static void array_grows_and_keeps_its_elements(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr__arena arena;
    ftr__arena_init(&arena, context);
    int32_t *array = NULL, capacity = 0;
    for (int32_t i = 0; i < 1000; i++) {
        assert_true(ftr__arena_grow(&arena, (void **)&array, i, &capacity, sizeof *array));
        array[i] = i;
    }
    for (int32_t i = 0; i < 1000; i++) assert_int_equal(array[i], i);
    ftr__arena_free(&arena);
    ftr_context_destroy(context);
}

static void simd_level_can_be_lowered_and_not_raised(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    const ftr__simd_level best = ftr__simd_detect();
    char *old = getenv("FASTTRAIN_SIMD") ? strdup(getenv("FASTTRAIN_SIMD")) : NULL;
    ftr__simd_level level;
    unsetenv("FASTTRAIN_SIMD");
    FTR_TEST_OK(context, ftr__simd_choose(context, &level));
    assert_int_equal(level, best);
    setenv("FASTTRAIN_SIMD", "portable", 1);
    FTR_TEST_OK(context, ftr__simd_choose(context, &level));
    assert_int_equal(level, FTR__SIMD_PORTABLE);
    setenv("FASTTRAIN_SIMD", "sse9", 1);
    assert_int_equal(ftr__simd_choose(context, &level), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context),
                        "FASTTRAIN_SIMD is 'sse9', expected portable, neon, avx2 or avx512");
    setenv("FASTTRAIN_SIMD", best == FTR__SIMD_NEON ? "avx2" : "neon", 1);
    assert_int_equal(ftr__simd_choose(context, &level), FTR_ERROR_INVALID_ARGUMENT);
    if (old) setenv("FASTTRAIN_SIMD", old, 1);
    else unsetenv("FASTTRAIN_SIMD");
    free(old);
    ftr_context_destroy(context);
}

static void patterns_fit_names(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *name;
        bool fits;
    } cases[] = {
        {"", "", true},
        {"", "a", false},
        {"a", "", false},
        {"*", "", true},
        {"*", "layer1.0.conv1.weight", true},
        {"**", "a", true},
        {"?", "", false},
        {"?", "a", true},
        {"?", "ab", false},
        {"fc.weight", "fc.weight", true},
        {"fc.weight", "fc.weights", false},
        {"fc.weights", "fc.weight", false},
        {"fc.*", "fc.weight", true},
        {"fc.*", "fc.", true},
        {"fc.*", "fc", false},
        {"fc.*", "xfc.weight", false},
        {"*.weight", "layer1.0.conv1.weight", true},
        {"*.weight", "weight", false},
        {"layer?.*.bn*.*", "layer1.0.bn2.bias", true},
        {"layer?.*.bn*.*", "layer10.0.bn2.bias", false},
        {"*1*2*", "1.2", true},
        {"*1*2*", "2.1", false},
        {"*ab", "aab", true},
        {"*aab", "aaab", true},
        {"*ab*abc", "ab.ab.abc", true},
        {"*ab*abd", "ab.ab.abc", false},
        {"a*b*c", "a.b.c.b", false},
        {"[a]", "a", false},
        {"[a]", "[a]", true},
        {"na?ve", "na\u00efve", true},
        {"na??ve", "na\u00efve", false},
        {"*??x?", "\u00e9xz", false},
        {"*??x?", "\u00e9yxz", true},
        {"?", "\U0001f600", true},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        if (ftr__glob_match(cases[i].pattern, cases[i].name) != cases[i].fits)
            fail_msg("'%s' and '%s'", cases[i].pattern, cases[i].name);
    }
    char many[201], a[401]; /* no exponential search */
    memset(a, 'a', 400);
    a[400] = '\0';
    for (int i = 0; i < 200; i++) many[i] = i % 2 ? 'a' : '*';
    many[200] = '\0';
    assert_true(ftr__glob_match(many, a));
    many[199] = 'b';
    assert_false(ftr__glob_match(many, a));
}

/* A convolution weight of one dimension: memory [o, k, i], file [o, i, k]. The mark is what a convolution sets. */
static void weights_of_rank_three_are_permuted(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    const ftr_init zeros = {FTR_INIT_ZEROS, 0, 0};
    const ftr_tensor marked = ftr_parameter(graph, "marked", FTR_F32, FTR_SHAPE(2, 3, 4), zeros);
    const ftr_tensor plain = ftr_parameter(graph, "plain", FTR_F32, FTR_SHAPE(2, 3, 4), zeros);
    const ftr_tensor linear = ftr_parameter(graph, "linear", FTR_F32, FTR_SHAPE(6, 4), zeros);
    graph->variables[0].conv_weight = graph->variables[2].conv_weight = true; /* rank 2 has nothing to permute */
    float values[2][3][4], back[2][3][4];
    for (int i = 0; i < 24; i++) (&values[0][0][0])[i] = (float)i;
    const ftr_tensor all[] = {marked, plain, linear};
    for (int i = 0; i < 3; i++) FTR_TEST_OK(context, ftr_variable_write(all[i], values, sizeof values));
    char path[] = "/tmp/ftr_test_core_XXXXXX";
    const int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    close(descriptor);
    FTR_TEST_OK(context, ftr_save_weights(graph, path));
    ftr_safetensors *file;
    ftr_safetensors_entry entry;
    FTR_TEST_OK(context, ftr_safetensors_open(context, path, &file));
    assert_true(ftr_safetensors_find(file, "marked", &entry));
    assert_true(entry.rank == 3 && entry.dim[0] == 2 && entry.dim[1] == 4 && entry.dim[2] == 3);
    for (int o = 0; o < 2; o++)
        for (int k = 0; k < 3; k++)
            for (int i = 0; i < 4; i++)
                assert_true(((const float *)entry.data)[(o * 4 + i) * 3 + k] == values[o][k][i]);
    assert_true(ftr_safetensors_find(file, "plain", &entry));
    assert_true(entry.dim[1] == 3 && memcmp(entry.data, values, sizeof values) == 0);
    assert_true(ftr_safetensors_find(file, "linear", &entry));
    assert_true(entry.dim[0] == 6 && memcmp(entry.data, values, sizeof values) == 0);
    ftr_safetensors_close(file);
    memset(back, 0, sizeof back);
    for (int i = 0; i < 3; i++) FTR_TEST_OK(context, ftr_variable_write(all[i], back, sizeof back));
    FTR_TEST_OK(context, ftr_load_weights(graph, path, NULL, NULL));
    for (int i = 0; i < 3; i++) {
        FTR_TEST_OK(context, ftr_variable_read(all[i], back, sizeof back));
        assert_memory_equal(back, values, sizeof values);
    }
    unlink(path);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(streams_are_uniform_and_apart),
        cmocka_unit_test(dropout_threshold_is_exact_at_the_ends),
        cmocka_unit_test(pool_runs_every_task_once),
        cmocka_unit_test(arena_hands_out_cleared_aligned_memory),
        cmocka_unit_test(array_grows_and_keeps_its_elements),
        cmocka_unit_test(simd_level_can_be_lowered_and_not_raised),
        cmocka_unit_test(patterns_fit_names),
        cmocka_unit_test(weights_of_rank_three_are_permuted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
