/* Data sources and the shuffled order. */
#include "ftr_test.h"

/* --------------------------------------------------------------------------------------------------------- order -- */

static void test_order_is_a_permutation(void **state) {
    (void)state;
    static bool seen[50000];
    for (int64_t count = 1; count <= 50000; count = count < 300     ? count + 1
                                                    : count < 1797  ? 1797
                                                    : count < 50000 ? 50000
                                                                    : 50001) {
        memset(seen, 0, sizeof seen);
        for (int64_t i = 0; i < count; i++) {
            int64_t index = ftr_shuffled_index(5, 3, i, count);
            assert_in_range(index, 0, count - 1);
            assert_false(seen[index]);
            seen[index] = true;
        }
    }
}

static void test_order_range(void **state) {
    (void)state;
    assert_int_equal(ftr_shuffled_index(0, 0, -1, 10), -1);
    assert_int_equal(ftr_shuffled_index(0, 0, 10, 10), -1);
    assert_int_equal(ftr_shuffled_index(0, 0, 0, 0), -1);
    assert_int_equal(ftr_shuffled_index(0, 0, 0, -5), -1);
    assert_int_equal(ftr_shuffled_index(0, 0, 0, 1), 0);
    for (int64_t i = 0; i < 20; i++) {
        int64_t index = ftr_shuffled_index(1, 2, INT64_MAX - 1 - i, INT64_MAX);
        assert_true(index >= 0 && index < INT64_MAX);
    }
}

/* How many of 1000 positions have the same index in two orders: about one if they are independent. */
static int64_t same_places(uint64_t seed_a, uint64_t epoch_a, uint64_t seed_b, uint64_t epoch_b) {
    int64_t same = 0;
    for (int64_t i = 0; i < 1000; i++)
        same += ftr_shuffled_index(seed_a, epoch_a, i, 1000) == ftr_shuffled_index(seed_b, epoch_b, i, 1000);
    return same;
}

static void test_order_depends_on_seed_and_epoch(void **state) {
    (void)state;
    assert_int_equal(same_places(1, 0, 1, 0), 1000);
    assert_in_range(same_places(1, 0, 1, 1), 0, 8);
    assert_in_range(same_places(1, 0, 2, 0), 0, 8);
    assert_in_range(same_places(1, 2, 2, 1), 0, 8);
    assert_in_range(same_places(1, 0, UINT64_C(1) << 32, 0), 0, 8);
}

/* Chi-square in standard deviations from its mean. */
static double deviation(double chi_square, double freedom) { return (chi_square - freedom) / sqrt(2.0 * freedom); }

static void test_order_is_uniform(void **state) {
    (void)state;
    enum { EPOCHS = 4000 };
    for (int64_t count = 2; count <= 20; count++) {
        double seen[20][20] = {{0}}, chi_square = 0.0, expected = (double)EPOCHS / (double)count;
        for (uint64_t epoch = 0; epoch < EPOCHS; epoch++)
            for (int64_t i = 0; i < count; i++) seen[i][ftr_shuffled_index(11, epoch, i, count)]++;
        for (int64_t i = 0; i < count; i++)
            for (int64_t k = 0; k < count; k++)
                chi_square += (seen[i][k] - expected) * (seen[i][k] - expected) / expected;
        double z = deviation(chi_square, (double)((count - 1) * (count - 1)));
        if (fabs(z) > 4.5) fail_msg("count %d: %.2f standard deviations", (int)count, z);
    }
}

/* Neighbours in the order are as good as drawn without regard to each other. */
static void test_order_pairs(void **state) {
    (void)state;
    enum { EPOCHS = 20000 };
    static const int64_t counts[] = {3, 5, 8, 16, 17};
    for (size_t c = 0; c < FTR_TEST_LENGTH(counts); c++) {
        int64_t count = counts[c];
        double seen[17][17] = {{0}}, chi_square = 0.0, expected = (double)EPOCHS / (double)(count * (count - 1));
        for (uint64_t epoch = 0; epoch < EPOCHS; epoch++)
            seen[ftr_shuffled_index(4, epoch, 0, count)][ftr_shuffled_index(4, epoch, 1, count)]++;
        for (int64_t i = 0; i < count; i++)
            for (int64_t k = 0; k < count; k++)
                chi_square += i == k ? 0.0 : (seen[i][k] - expected) * (seen[i][k] - expected) / expected;
        double z = deviation(chi_square, (double)(count * (count - 1) - 1));
        if (fabs(z) > 4.5) fail_msg("count %d: %.2f standard deviations", (int)count, z);
    }
}

/* Every order of four samples turns up, about equally often. */
static void test_order_whole_permutations(void **state) {
    (void)state;
    enum { EPOCHS = 12000 };
    double seen[256] = {0}, chi_square = 0.0;
    int orders = 0;
    for (uint64_t epoch = 0; epoch < EPOCHS; epoch++) {
        int64_t code = 0;
        for (int64_t i = 0; i < 4; i++) code = code * 4 + ftr_shuffled_index(8, epoch, i, 4);
        seen[code]++;
    }
    for (int i = 0; i < 256; i++) {
        if (seen[i] == 0) continue;
        orders++;
        chi_square += (seen[i] - EPOCHS / 24.0) * (seen[i] - EPOCHS / 24.0) / (EPOCHS / 24.0);
    }
    assert_int_equal(orders, 24);
    assert_true(fabs(deviation(chi_square, 23.0)) < 4.5);
}

/* ------------------------------------------------------------------------------------------------------- sources -- */

static ftr_status read_nothing(void *user, int64_t index, void *const *fields) {
    (void)user;
    (void)index;
    (void)fields;
    return FTR_OK;
}

typedef struct source_case {
    const char *name;
    int64_t count;
    ftr_field fields[3];
    int32_t field_count;
    bool no_fields, no_read;
    ftr_status status;
    const char *message;
} source_case;

static const source_case source_cases[] = {
    {"s", 1, {{"x", FTR_F32, {0}}}, 1, false, false, FTR_OK, ""},
    {"s", 1, {{"x", FTR_F32, {1, {0}}}}, 1, false, false, FTR_OK, ""},
    {NULL, 1, {{"x", FTR_F32, {0}}}, 1, false, false, FTR_ERROR_INVALID_ARGUMENT, "source: name is missing"},
    {"", 1, {{"x", FTR_F32, {0}}}, 1, false, false, FTR_ERROR_INVALID_ARGUMENT, "source: name is missing"},
    {"s",
     0,
     {{"x", FTR_F32, {0}}},
     1,
     false,
     false,
     FTR_ERROR_INVALID_ARGUMENT,
     "source 's': count is 0, expected 1 or more"},
    {"s",
     -7,
     {{"x", FTR_F32, {0}}},
     1,
     false,
     false,
     FTR_ERROR_INVALID_ARGUMENT,
     "source 's': count is -7, expected 1 or more"},
    {"s",
     1,
     {{"x", FTR_F32, {0}}},
     0,
     false,
     false,
     FTR_ERROR_INVALID_ARGUMENT,
     "source 's': field_count is 0, expected 1 to 16"},
    {"s",
     1,
     {{"x", FTR_F32, {0}}},
     17,
     false,
     false,
     FTR_ERROR_INVALID_ARGUMENT,
     "source 's': field_count is 17, expected 1 to 16"},
    {"s", 1, {{"x", FTR_F32, {0}}}, 1, true, false, FTR_ERROR_INVALID_ARGUMENT, "source 's': fields is NULL"},
    {"s",
     1,
     {{"x", FTR_F32, {0}}, {NULL, FTR_F32, {0}}},
     2,
     false,
     false,
     FTR_ERROR_NAME,
     "source 's': field 1 has no name"},
    {"s", 1, {{"", FTR_F32, {0}}}, 1, false, false, FTR_ERROR_NAME, "source 's': field 0 has no name"},
    {"s",
     1,
     {{"x", FTR_F32, {0}}, {"y", FTR_F32, {0}}, {"x", FTR_I32, {0}}},
     3,
     false,
     false,
     FTR_ERROR_NAME,
     "source 's': fields 0 and 2 are both named 'x'"},
    {"s",
     1,
     {{"x", FTR_DTYPE_NONE, {0}}},
     1,
     false,
     false,
     FTR_ERROR_INVALID_ARGUMENT,
     "source 's': field 'x' has the unknown dtype 0"},
    {"s",
     1,
     {{"x", (ftr_dtype)99, {0}}},
     1,
     false,
     false,
     FTR_ERROR_INVALID_ARGUMENT,
     "source 's': field 'x' has the unknown dtype 99"},
    {"s",
     1,
     {{"x", FTR_F32, {6, {1, 1, 1, 1, 1, 1}}}},
     1,
     false,
     false,
     FTR_ERROR_INVALID_ARGUMENT,
     "source 's': field 'x' has rank 6, expected 0 to 5"},
    {"s",
     1,
     {{"x", FTR_F32, {-1, {1}}}},
     1,
     false,
     false,
     FTR_ERROR_INVALID_ARGUMENT,
     "source 's': field 'x' has rank -1, expected 0 to 5"},
    {"s",
     1,
     {{"x", FTR_F32, {2, {3, -4}}}},
     1,
     false,
     false,
     FTR_ERROR_INVALID_ARGUMENT,
     "source 's': field 'x' has the impossible shape [3, -4]"},
    {"s",
     1,
     {{"x", FTR_F32, {1, {INT64_MAX / 2}}}},
     1,
     false,
     false,
     FTR_ERROR_INVALID_ARGUMENT,
     "source 's': field 'x' has the impossible shape [4611686018427387903]"},
    {"s", 1, {{"x", FTR_F32, {0}}}, 1, false, true, FTR_ERROR_INVALID_ARGUMENT, "source 's': read is NULL"},
};

static void test_source_descriptions(void **state) {
    (void)state;
    for (size_t i = 0; i < FTR_TEST_LENGTH(source_cases); i++) {
        const source_case *c = &source_cases[i];
        ftr_test_memory memory = {0};
        ftr_context *context = ftr_test_context_with(NULL, 1, 1, &memory);
        int64_t blocks = memory.blocks;
        ftr_source *source = NULL;
        ftr_source_desc desc = {.name = c->name,
                                .count = c->count,
                                .fields = c->no_fields ? NULL : c->fields,
                                .field_count = c->field_count,
                                .read = c->no_read ? NULL : read_nothing};
        ftr_status status = ftr_source_create(context, &desc, &source);
        assert_int_equal(status, c->status);
        assert_string_equal(ftr_error_message(context), c->message);
        assert_int_equal(source != NULL, c->status == FTR_OK);
        ftr_source_destroy(source);
        assert_int_equal(memory.blocks, blocks);
        ftr_context_destroy(context);
        assert_int_equal(memory.wrong, 0);
    }
}

static void test_source_arguments(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_field field = {"x", FTR_F32, {0}};
    ftr_source_desc desc = {.name = "s", .count = 1, .fields = &field, .field_count = 1, .read = read_nothing};
    ftr_source *source = NULL;
    assert_int_equal(ftr_source_create(NULL, &desc, &source), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_source_create(context, &desc, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context), "ftr_source_create: source is NULL");
    assert_int_equal(ftr_source_create(context, NULL, &source), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context), "ftr_source_create: desc is NULL");
    ftr_source_destroy(NULL);
    assert_int_equal(ftr_source_count(NULL), 0);
    ftr_context_destroy(context);
}

static void test_memory_source_errors(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_field fields[2] = {{"x", FTR_F32, FTR_SHAPE(2)}, {"y", FTR_I32, ftr_scalar_shape()}};
    static const float x[4] = {0};
    const void *data[2] = {x, NULL};
    ftr_source *source = NULL;
    assert_int_equal(ftr_memory_source(NULL, "s", 2, fields, data, 1, &source), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_memory_source(context, "s", 2, fields, data, 1, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context), "ftr_memory_source: source is NULL");
    assert_int_equal(ftr_memory_source(context, "s", 2, fields, NULL, 1, &source), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context), "source 's': data is NULL");
    assert_int_equal(ftr_memory_source(context, "s", 2, fields, data, 2, &source), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context), "source 's': field 'y' has no data");
    assert_int_equal(ftr_memory_source(context, "s", INT64_MAX / 4, fields, data, 1, &source),
                     FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context),
                        "source 's': 2305843009213693951 samples of field 'x' are more than memory can hold");
    assert_null(source);
    assert_int_equal(ftr_memory_source(context, "s", 0, fields, data, 1, &source), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context), "source 's': count is 0, expected 1 or more");
    FTR_TEST_OK(context, ftr_memory_source(context, "s", 2, fields, data, 1, &source));
    assert_int_equal(ftr_source_count(source), 2);
    ftr_source_destroy(source);
    ftr_context_destroy(context);
}

static void test_source_without_memory(void **state) {
    (void)state;
    for (int64_t fail_at = 1; fail_at < 100; fail_at++) {
        ftr_test_memory memory = {0};
        ftr_context *context = ftr_test_context_with(NULL, 1, 1, &memory);
        int64_t blocks = memory.blocks, before = memory.calls;
        memory.fail_at = before + fail_at;
        ftr_field field = {"x", FTR_F32, {0}};
        float x = 0.0f;
        const void *data[1] = {&x};
        ftr_source *source = NULL;
        ftr_status status = ftr_memory_source(context, "s", 1, &field, data, 1, &source);
        bool failed = memory.calls - before >= fail_at;
        assert_int_equal(status, failed ? FTR_ERROR_OUT_OF_MEMORY : FTR_OK);
        assert_int_equal(source == NULL, failed);
        ftr_source_destroy(source);
        assert_int_equal(memory.blocks, blocks);
        ftr_context_destroy(context);
        if (!failed) return;
    }
    fail_msg("a source takes more than 100 allocations");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_is_a_permutation),
        cmocka_unit_test(test_order_range),
        cmocka_unit_test(test_order_depends_on_seed_and_epoch),
        cmocka_unit_test(test_order_is_uniform),
        cmocka_unit_test(test_order_pairs),
        cmocka_unit_test(test_order_whole_permutations),
        cmocka_unit_test(test_source_descriptions),
        cmocka_unit_test(test_source_arguments),
        cmocka_unit_test(test_memory_source_errors),
        cmocka_unit_test(test_source_without_memory),
    };
    return cmocka_run_group_tests_name("data", tests, NULL, NULL);
}
