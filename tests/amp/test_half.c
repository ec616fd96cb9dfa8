/* f16 and bf16 as element types: conversions, over all of their values and at every SIMD level, against the definition and
 * against PyTorch; building with them, feeding, reading, printing, files, and what is refused. */
#include "ftr_test.h"
#include "oracle_tools.h"

static const ftr_dtype half_types[] = {FTR_F16, FTR_BF16};
static const char *const half_names[] = {"f16", "bf16"};
static const char *const levels[] = {"portable", "neon", "avx2", "avx512"};
enum { ALL = 65536 };

/* A context limited to an instruction set; NULL if the machine lacks it. */
static ftr_context *context_of(const char *level) {
    ftr_context_desc desc = {.threads = 2, .log_level = FTR_LOG_SILENT};
    ftr_context *context = NULL;
    setenv("FASTTRAIN_SIMD", level, 1);
    ftr_context_create(&desc, &context);
    unsetenv("FASTTRAIN_SIMD");
    return context;
}

/* ----------------------------------------------------------------------------------------- what is to be converted -- */

/* For each number of a type, up to the largest: the middle between it and the next one, where f32 has it, and the f32 numbers
 * on both sides; then all of them negative. */
static float *between_numbers(ftr_dtype dtype, int64_t *count) {
    int32_t infinity = (2 * half_bias(dtype) + 1) << half_fraction(dtype);
    float *x = malloc((size_t)infinity * 6 * sizeof *x);
    *count = 6 * (int64_t)infinity;
    for (int32_t i = 0; i < infinity; i++) {
        double low = half_by_definition(dtype, (uint16_t)i);
        double high = i + 1 < infinity ? half_by_definition(dtype, (uint16_t)(i + 1))
                                       : 2 * low - half_by_definition(dtype, (uint16_t)(i - 1));
        float middle = (float)((low + high) / 2);
        float three[3] = {nextafterf(middle, 0), middle, nextafterf(middle, INFINITY)};
        for (int k = 0; k < 3; k++) {
            x[3 * i + k] = three[k];
            x[3 * (infinity + i) + k] = -three[k];
        }
    }
    return x;
}

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* A NaN of f32 in a half type: quiet, with its sign and the upper bits of its payload. */
static uint16_t narrowed_nan(ftr_dtype dtype, uint32_t bits) {
    int fraction = half_fraction(dtype);
    uint32_t payload = (bits & 0x7fffffu) >> (23 - fraction) | 1u << (fraction - 1);
    return (uint16_t)(bits >> 31 << 15 | (uint32_t)(2 * half_bias(dtype) + 1) << fraction | payload);
}

/* A number of a half type in f32, where all of them are; an f16 NaN becomes quiet, a bf16 one is the upper half of itself. */
static uint32_t widened(ftr_dtype dtype, uint16_t bits) {
    double x = half_by_definition(dtype, bits);
    if (!isnan(x)) {
        return bits_of((float)x);
    }
    uint32_t payload = (uint32_t)(bits & ((1 << half_fraction(dtype)) - 1)) << (23 - half_fraction(dtype));
    return (uint32_t)bits >> 15 << 31 | 0x7f800000u | payload | (dtype == FTR_F16 ? 0x400000u : 0);
}

/* FNV-1a, as make_goldens.py has it. */
static int64_t hash_of(const void *data, size_t bytes) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < bytes; i++) {
        hash = (hash ^ ((const unsigned char *)data)[i]) * UINT64_C(0x100000001b3);
    }
    return (int64_t)hash;
}

/* A tensor of PyTorch's. */
static ftr_safetensors_entry golden(ftr_safetensors *file, const char *format, const char *name) {
    char full[64];
    ftr_safetensors_entry entry;
    snprintf(full, sizeof full, format, name);
    if (!ftr_safetensors_find(file, full, &entry)) {
        fail_msg("half.safetensors has no %s", full);
    }
    return entry;
}

static int64_t golden_hash(const char *format, const char *name) {
    ftr_context *context = ftr_test_context();
    ftr_safetensors *file = NULL;
    FTR_TEST_OK(context, ftr_safetensors_open(context, FTR_TEST_DATA "/amp/data/half.safetensors", &file));
    ftr_safetensors_entry entry = golden(file, format, name);
    int64_t hash;
    assert_int_equal(entry.dtype, FTR_I64);
    memcpy(&hash, entry.data, sizeof hash);
    ftr_safetensors_close(file);
    ftr_context_destroy(context);
    return hash;
}

/* ---------------------------------------------------------------------------------------------------- all values -- */

/* Casts `count` elements on a context's backend. */
static void cast_on(ftr_context *context, ftr_dtype from, const void *data, ftr_dtype to, void *result, int64_t count) {
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "x", from, FTR_SHAPE(count)), y = ftr_cast(x, to);
    ftr_plan *plan = NULL;
    FTR_TEST_OK(context, ftr_compile(graph, &(ftr_compile_desc){.outputs = &y, .output_count = 1}, &plan));
    FTR_TEST_OK(context, ftr_feed(plan, x, data, (size_t)count * ftr_dtype_size(from)));
    FTR_TEST_OK(context, ftr_step(plan, NULL));
    FTR_TEST_OK(context, ftr_read(plan, y, result, (size_t)count * ftr_dtype_size(to)));
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
}

typedef void (*convert_fn)(ftr_context *context, ftr_dtype from, const void *data, ftr_dtype to, void *result,
                           int64_t count);
typedef void (*check_fn)(convert_fn convert, ftr_context *context);

static void convert_on_host(ftr_context *context, ftr_dtype from, const void *data, ftr_dtype to, void *result,
                            int64_t count) {
    (void)context;
    assert_true(ftr_convert(from, data, to, result, count));
}

/* A check with ftr_convert() and with ftr_cast() at every level. */
static void check_everywhere(check_fn check) {
    int done = 0;
    check(convert_on_host, NULL);
    for (size_t l = 0; l < FTR_TEST_LENGTH(levels); l++) {
        ftr_context *context = context_of(levels[l]);
        if (context) {
            check(cast_on, context);
            done++;
        }
        ftr_context_destroy(context);
    }
    assert_true(done >= 1);
}

static void check_widening(convert_fn convert, ftr_context *context) {
    static uint16_t all[ALL];
    static uint32_t found[ALL];
    for (int32_t i = 0; i < ALL; i++) {
        all[i] = (uint16_t)i;
    }
    for (int t = 0; t < 2; t++) {
        convert(context, half_types[t], all, FTR_F32, found, ALL);
        for (int32_t i = 0; i < ALL; i++) {
            uint32_t expected = widened(half_types[t], all[i]);
            bool is_nan = (expected & 0x7fffffffu) > 0x7f800000u;
            if (found[i] != expected) {
                fail_msg("%s %04x: %08x, expected %08x", half_names[t], (unsigned)i, found[i], expected);
            }
            found[i] = is_nan ? 0x7fc00000u : found[i];
        }
        assert_true(hash_of(found, sizeof found) == golden_hash("%s/numbers", half_names[t]));
    }
}

static void all_numbers_widen(void **state) {
    (void)state;
    check_everywhere(check_widening);
}

static void check_rounding(convert_fn convert, ftr_context *context) {
    for (int t = 0; t < 2; t++) {
        int64_t count;
        float *x = between_numbers(half_types[t], &count);
        uint16_t *found = malloc((size_t)count * sizeof *found);
        convert(context, FTR_F32, x, half_types[t], found, count);
        for (int64_t i = 0; i < count; i++) {
            uint16_t expected = half_bits(half_types[t], (double)x[i]);
            if (found[i] != expected) {
                fail_msg("%a in %s: %04x, expected %04x", (double)x[i], half_names[t], found[i], expected);
            }
        }
        assert_true(hash_of(found, (size_t)count * sizeof *found) == golden_hash("%s/rounded", half_names[t]));
        free(found);
        free(x);
    }
}

static void numbers_between_round(void **state) {
    (void)state;
    check_everywhere(check_rounding);
}

/* Random patterns, NaNs with payloads, the ends of ranges; in all lengths up to 70, and many at once. */
static void check_patterns(convert_fn convert, ftr_context *context) {
    enum { COUNT = 100003 };
    static const uint32_t edges[] = {0,          0x80000000, 1,          0x80000001, 0x7fffff,   0x800000,
                                     0x33000000, 0x33000001, 0x32ffffff, 0x387fc000, 0x387fe000, 0x38800000,
                                     0x477fe000, 0x477fefff, 0x477ff000, 0x47800000, 0x7f7fffff, 0x7f7f7fff,
                                     0x7f7f8000, 0x7f800000, 0xff800000, 0x7f800001, 0xffc00000, 0x7fbfffff,
                                     0x7fffffff, 0xff802000, 0x7f801fff, 0x3f800000};
    ftr_test_rng rng = {7};
    uint32_t *x = malloc(COUNT * sizeof *x);
    uint16_t *found = malloc(COUNT * sizeof *found);
    for (int32_t i = 0; i < COUNT; i++) {
        x[i] = i < (int32_t)FTR_TEST_LENGTH(edges) ? edges[i] : (uint32_t)ftr_test_random(&rng);
    }
    for (int t = 0; t < 2; t++) {
        for (int64_t count = 0; count <= COUNT; count = count == 70 ? COUNT : count + 1) {
            memset(found, 0x5a, COUNT * sizeof *found);
            convert(context, FTR_F32, x, half_types[t], found, count);
            for (int64_t i = 0; i < COUNT && i < count + 20; i++) {
                bool is_nan = (x[i] & 0x7fffffffu) > 0x7f800000u;
                uint16_t expected =
                    is_nan ? narrowed_nan(half_types[t], x[i]) : half_bits(half_types[t], float_of(x[i]));
                expected = i < count ? expected : 0x5a5a;
                if (found[i] != expected) {
                    fail_msg("%08x in %s: %04x, expected %04x", x[i], half_names[t], found[i], expected);
                }
            }
            if (count == COUNT) {
                break;
            }
        }
    }
    free(found);
    free(x);
}

static void patterns_round(void **state) {
    (void)state;
    check_everywhere(check_patterns);
}

static void check_other_half(convert_fn convert, ftr_context *context) {
    static uint16_t all[ALL], found[ALL], back[ALL];
    static float wide[ALL];
    for (int32_t i = 0; i < ALL; i++) {
        all[i] = (uint16_t)i;
    }
    for (int t = 0; t < 2; t++) {
        convert(context, half_types[t], all, half_types[1 - t], found, ALL);
        convert(context, half_types[t], all, FTR_F32, wide, ALL);
        convert(context, FTR_F32, wide, half_types[t], back, ALL);
        for (int32_t i = 0; i < ALL; i++) {
            double x = half_by_definition(half_types[t], all[i]);
            if (isnan(x)) {
                assert_true(isnan(half_by_definition(half_types[1 - t], found[i])));
                assert_true(isnan(half_by_definition(half_types[t], back[i])));
                continue;
            }
            if (found[i] != half_bits(half_types[1 - t], x) || back[i] != all[i]) {
                fail_msg("%s %04x: %04x in the other type, %04x there and back", half_names[t], all[i], found[i],
                         back[i]);
            }
        }
    }
}

static void half_to_other_half_and_back(void **state) {
    (void)state;
    check_everywhere(check_other_half);
}

/* ------------------------------------------------------------------------------------------- PyTorch, other types -- */

static void check_golden_cast(convert_fn convert, ftr_context *context, const ftr_safetensors_entry *from,
                              const ftr_safetensors_entry *to) {
    int64_t count = from->dim[0];
    void *data = malloc(from->bytes), *found = malloc(to->bytes);
    memcpy(data, from->data, from->bytes);
    assert_int_equal(to->dim[0], count);
    convert(context, from->dtype, data, to->dtype, found, count);
    for (int64_t i = 0; i < count; i++) {
        size_t size = ftr_dtype_size(to->dtype);
        if (memcmp((char *)found + (size_t)i * size, (const char *)to->data + (size_t)i * size, size) != 0) {
            fail_msg("element %d from %s to %s differs from PyTorch's", (int)i, ftr_dtype_name(from->dtype),
                     ftr_dtype_name(to->dtype));
        }
    }
    free(found);
    free(data);
}

static void check_goldens(convert_fn convert, ftr_context *context) {
    ftr_context *own = ftr_test_context();
    ftr_safetensors *file = NULL;
    FTR_TEST_OK(own, ftr_safetensors_open(own, FTR_TEST_DATA "/amp/data/half.safetensors", &file));
    ftr_safetensors_entry integers = golden(file, "%s", "integers"), reals = golden(file, "%s", "reals");
    int64_t few[1] = {18};
    int32_t narrow[18];
    for (int i = 0; i < 18; i++) {
        narrow[i] = (int32_t)((const int64_t *)integers.data)[i];
    }
    ftr_safetensors_entry i32 = {.dtype = FTR_I32, .rank = 1, .dim = few, .data = narrow, .bytes = sizeof narrow};
    for (int t = 0; t < 2; t++) {
        static const char *const results[] = {"to_i32", "to_i64", "to_bool", "to_other"};
        ftr_safetensors_entry of_integers = golden(file, "%s/of_integers", half_names[t]);
        ftr_safetensors_entry of_i32 = golden(file, "%s/of_i32", half_names[t]);
        ftr_safetensors_entry of_reals = golden(file, "%s/of_reals", half_names[t]);
        ftr_safetensors_entry values = golden(file, "%s/values", half_names[t]);
        assert_int_equal(of_integers.dtype, half_types[t]);
        check_golden_cast(convert, context, &integers, &of_integers);
        check_golden_cast(convert, context, &i32, &of_i32);
        check_golden_cast(convert, context, &reals, &of_reals);
        for (size_t r = 0; r < FTR_TEST_LENGTH(results); r++) {
            char name[32];
            snprintf(name, sizeof name, "%s/%s", half_names[t], results[r]);
            ftr_safetensors_entry expected = golden(file, "%s", name);
            check_golden_cast(convert, context, &values, &expected);
        }
    }
    ftr_safetensors_close(file);
    ftr_context_destroy(own);
}

static void casts_as_pytorch(void **state) {
    (void)state;
    check_everywhere(check_goldens);
}

/* Out of range, and NaN: as casts from f32. All of it against the oracle's rule. */
static void check_to_integers(convert_fn convert, ftr_context *context) {
    static uint16_t all[ALL];
    static float wide[ALL];
    static int64_t found[ALL], expected[ALL];
    static const ftr_dtype integers[] = {FTR_I32, FTR_I64, FTR_U8, FTR_BOOL};
    for (int32_t i = 0; i < ALL; i++) {
        all[i] = (uint16_t)i;
    }
    for (int t = 0; t < 2; t++) {
        convert(context, half_types[t], all, FTR_F32, wide, ALL);
        for (size_t k = 0; k < FTR_TEST_LENGTH(integers); k++) {
            size_t bytes = ALL * ftr_dtype_size(integers[k]);
            convert(context, half_types[t], all, integers[k], found, ALL);
            convert(context, FTR_F32, wide, integers[k], expected, ALL);
            assert_memory_equal(found, expected, bytes);
        }
    }
}

static void casts_to_integers(void **state) {
    (void)state;
    check_everywhere(check_to_integers);
}

/* 1 + 2^-11 is in the middle of two f16 numbers; 2^-40 more, which f32 has no room for, decides. */
static void doubles_are_rounded_once(void **state) {
    (void)state;
    const double x[4] = {1 + 0x1p-11 + 0x1p-40, 1 + 0x1p-8 + 0x1p-40, -1 - 0x1p-11 - 0x1p-40, 0x1p-25 + 0x1p-70};
    uint16_t f16[4], bf16[4];
    double back[4];
    assert_true(ftr_convert(FTR_F64, x, FTR_F16, f16, 4));
    assert_true(ftr_convert(FTR_F64, x, FTR_BF16, bf16, 4));
    assert_int_equal(f16[0], 0x3c01);
    assert_int_equal(bf16[1], 0x3f81);
    assert_int_equal(f16[2], 0xbc01);
    assert_int_equal(f16[3], 1);
    assert_true(ftr_convert(FTR_F16, f16, FTR_F64, back, 4));
    assert_true(back[0] == 1 + 0x1p-10 && back[3] == 0x1p-24);
    assert_false(ftr_convert(FTR_DTYPE_NONE, x, FTR_F16, f16, 4));
    assert_false(ftr_convert(FTR_F64, x, FTR_DTYPE_COUNT, f16, 4));
}

/* ------------------------------------------------------------------------------------------------------- building -- */

static void types_have_names_and_sizes(void **state) {
    (void)state;
    assert_string_equal(ftr_dtype_name(FTR_F16), "f16");
    assert_string_equal(ftr_dtype_name(FTR_BF16), "bf16");
    assert_int_equal(ftr_dtype_size(FTR_F16), 2);
    assert_int_equal(ftr_dtype_size(FTR_BF16), 2);
}

/* Scalars, constants, inputs and buffers; what is read back are the type's bytes. */
static void sources_of_half_types(void **state) {
    (void)state;
    for (int t = 0; t < 2; t++) {
        ftr_dtype dtype = half_types[t];
        ftr_context *context = ftr_test_context();
        ftr_graph *graph = ftr_graph_create(context);
        uint16_t data[3] = {half_bits(dtype, 1.5), half_bits(dtype, -3), half_bits(dtype, 0.1)}, found[3];
        ftr_tensor x = ftr_input(graph, "x", dtype, FTR_SHAPE(3)), c = ftr_constant(graph, dtype, FTR_SHAPE(3), data);
        ftr_tensor b = ftr_buffer(graph, "b", dtype, FTR_SHAPE(3), (ftr_init){FTR_INIT_CONSTANT, 0.3, 0});
        ftr_tensor r = ftr_buffer(graph, "r", dtype, FTR_SHAPE(50), (ftr_init){FTR_INIT_NORMAL, 0, 1});
        ftr_tensor sum = ftr_add(ftr_add(x, c), ftr_scalar(graph, dtype, 1.0 / 3));
        ftr_plan *plan = NULL;
        ftr_tensor outputs[] = {sum, c};
        FTR_TEST_OK(context, ftr_compile(graph, &(ftr_compile_desc){.outputs = outputs, .output_count = 2}, &plan));
        FTR_TEST_OK(context, ftr_feed(plan, x, data, sizeof data));
        FTR_TEST_OK(context, ftr_step(plan, NULL));
        FTR_TEST_OK(context, ftr_read(plan, sum, found, sizeof found));
        for (int i = 0; i < 3; i++) {
            double v = half_by_definition(dtype, data[i]);
            assert_int_equal(found[i], half_bits(dtype, round_to_half(dtype, v + v) + round_to_half(dtype, 1.0 / 3)));
        }
        FTR_TEST_OK(context, ftr_read(plan, c, found, sizeof found));
        assert_memory_equal(found, data, sizeof data);
        FTR_TEST_OK(context, ftr_variable_read(b, found, sizeof found));
        assert_int_equal(found[2], half_bits(dtype, 0.3));
        uint16_t random[50];
        double squares = 0;
        FTR_TEST_OK(context, ftr_variable_read(r, random, sizeof random));
        for (int i = 0; i < 50; i++) {
            squares += half_by_definition(dtype, random[i]) * half_by_definition(dtype, random[i]);
        }
        assert_true(squares > 20 && squares < 100);
        assert_int_equal(ftr_feed(plan, x, data, 12), FTR_ERROR_SHAPE);
        char expected[128];
        snprintf(expected, sizeof expected,
                 "input 'x': 12 bytes given, expected 6 (%s [3]): a batch of 6, planned for 3", half_names[t]);
        assert_string_equal(ftr_error_message(context), expected);
        ftr_plan_destroy(plan);
        ftr_graph_destroy(graph);
        ftr_context_destroy(context);
    }
}

static void printed_and_summed_up(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "x", FTR_BF16, FTR_SHAPE(2, 3));
    ftr_linear(ftr_cast(x, FTR_F16), "fc", 4, NULL);
    ftr_test_text text = {.length = 0};
    FTR_TEST_OK(context, ftr_graph_print(graph, FTR_GRAPH_TEXT, ftr_test_text_write, &text));
    assert_string_equal(text.text, "%1 = input 'x' -> bf16 [2, 3]\n"
                                   "%2 = cast 'cast_1' (%1) -> f16 [2, 3]\n"
                                   "%3 = parameter 'fc.weight' -> f32 [4, 3]\n"
                                   "%4 = cast 'cast_3' (%3) -> f16 [4, 3]\n"
                                   "%5 = parameter 'fc.bias' -> f32 [4]\n"
                                   "%6 = cast 'cast_5' (%5) -> f16 [4]\n"
                                   "%7 = linear 'fc' (%2, %4, %6) -> f16 [2, 4]\n");
    text.length = 0;
    FTR_TEST_OK(context, ftr_model_summary(graph, ftr_test_text_write, &text));
    /* 12 bytes of x, 12 of its cast, 24 and 8 of the parameters', 16 of the result */
    assert_non_null(strstr(text.text, "72 bytes of outputs"));
    assert_non_null(strstr(text.text, "parameters: 16 trained, 0 in buffers, 64 bytes together"));
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

/* An f32 scalar beside a tensor of a half type is not rounded to it: 1e-6 is 17 steps of f16 below its normal range, which is
 * 1.3% off; with 512 the product is exact to the last bit of f16. */
static void scalars_are_not_rounded(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    uint16_t data[2] = {half_bits(FTR_F16, 512), half_bits(FTR_F16, -768)}, found[2];
    ftr_tensor x = ftr_input(graph, "x", FTR_F16, FTR_SHAPE(2)), tiny = ftr_scalar(graph, FTR_F32, 1e-6);
    ftr_tensor large = ftr_scalar(graph, FTR_F32, 1e6);
    ftr_tensor outputs[4] = {ftr_mul(x, tiny), ftr_div(x, large), ftr_where(ftr_gt(x, tiny), tiny, x),
                             ftr_lt(large, x)};
    FTR_TEST_GRAPH_OK(graph);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ftr_dtype_of(outputs[i]), FTR_F16);
    }
    ftr_plan *plan = NULL;
    FTR_TEST_OK(context, ftr_compile(graph, &(ftr_compile_desc){.outputs = outputs, .output_count = 4}, &plan));
    FTR_TEST_OK(context, ftr_feed(plan, x, data, sizeof data));
    FTR_TEST_OK(context, ftr_step(plan, NULL));
    FTR_TEST_OK(context, ftr_read(plan, outputs[0], found, sizeof found));
    assert_int_equal(found[0], half_bits(FTR_F16, 512 * (double)1e-6f));
    assert_int_equal(found[1], half_bits(FTR_F16, -768 * (double)1e-6f));
    FTR_TEST_OK(context, ftr_read(plan, outputs[1], found, sizeof found));
    assert_int_equal(found[0], half_bits(FTR_F16, 512 / 1e6));
    FTR_TEST_OK(context, ftr_read(plan, outputs[2], found, sizeof found));
    assert_int_equal(found[0], half_bits(FTR_F16, 1e-6f));
    assert_int_equal(found[1], data[1]);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

/* Layers on half inputs: f32 parameters with f32 gradients, a result of the input's type. */
static void layers_have_f32_parameters(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "x", FTR_F16, FTR_SHAPE(2, 4, 4, 3));
    ftr_tensor h = ftr_batch_norm(ftr_conv2d(x, "conv", 5, 3, NULL), "bn", NULL);
    h = ftr_group_norm(h, "gn", 5, NULL);
    h = ftr_linear(ftr_layer_norm(ftr_flatten(h, 1), "ln", NULL), "fc", 2, NULL);
    assert_int_equal(ftr_dtype_of(h), FTR_F16);
    ftr_tensor loss = ftr_sum(ftr_cast(h, FTR_F32), ftr_all_axes(), false);
    FTR_TEST_GRAPH_OK(graph);
    for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
        assert_int_equal(ftr_dtype_of(ftr_variable_at(graph, i)), FTR_F32);
    }
    ftr_tensor wrt[2] = {ftr_variable_find(graph, "conv.weight"), ftr_variable_find(graph, "fc.bias")};
    ftr_plan *plan = NULL;
    FTR_TEST_OK(context,
                ftr_compile(graph, &(ftr_compile_desc){.loss = loss, .gradients_of = wrt, .gradient_count = 2}, &plan));
    uint16_t data[96];
    for (int i = 0; i < 96; i++) {
        data[i] = half_bits(FTR_F16, (i * 37 % 17 - 8) / 4.0);
    }
    FTR_TEST_OK(context, ftr_feed(plan, x, data, sizeof data));
    FTR_TEST_OK(context, ftr_step(plan, NULL));
    float weight[135], bias[2];
    FTR_TEST_OK(context, ftr_read_gradient(plan, wrt[0], weight, sizeof weight));
    FTR_TEST_OK(context, ftr_read_gradient(plan, wrt[1], bias, sizeof bias));
    assert_true(bias[0] == 2 && bias[1] == 2);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

/* ---------------------------------------------------------------------------------------------------------- files -- */

#define HALF_FILE "build/test_half.safetensors"

/* A buffer of a half type is saved as it is, and loads from a file of any floating type. */
static void files_of_half_types(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    for (int t = 0; t < 2; t++) {
        ftr_dtype dtype = half_types[t];
        ftr_graph *graph = ftr_graph_create(context);
        ftr_tensor b = ftr_buffer(graph, "b", dtype, FTR_SHAPE(4), (ftr_init){FTR_INIT_CONSTANT, 0.7, 0});
        FTR_TEST_OK(context, ftr_save_weights(graph, HALF_FILE));
        ftr_safetensors *file = NULL;
        ftr_safetensors_entry entry;
        FTR_TEST_OK(context, ftr_safetensors_open(context, HALF_FILE, &file));
        assert_true(ftr_safetensors_find(file, "b", &entry));
        assert_string_equal(entry.dtype_name, t ? "BF16" : "F16");
        assert_int_equal(entry.dtype, dtype);
        assert_int_equal(entry.bytes, 8);
        uint16_t found[4], again[4];
        memcpy(found, entry.data, sizeof found);
        assert_int_equal(found[3], half_bits(dtype, 0.7));
        ftr_safetensors_close(file);
        found[1] = half_bits(dtype, -9);
        FTR_TEST_OK(context, ftr_variable_write(b, found, sizeof found));
        FTR_TEST_OK(context, ftr_load_weights(graph, HALF_FILE, NULL, NULL));
        FTR_TEST_OK(context, ftr_variable_read(b, again, sizeof again));
        assert_int_equal(again[1], half_bits(dtype, 0.7));

        const double wide[4] = {1 + 0x1p-11 + 0x1p-40, -1 - 0x1p-8 - 0x1p-40, 1e6, 1e-9};
        const ftr_safetensors_item item = {.name = "b", .dtype = FTR_F64, .shape = FTR_SHAPE(4), .data = wide};
        FTR_TEST_OK(context, ftr_safetensors_write(context, HALF_FILE, &item, 1, NULL, 0));
        FTR_TEST_OK(context, ftr_load_weights(graph, HALF_FILE, NULL, NULL));
        FTR_TEST_OK(context, ftr_variable_read(b, again, sizeof again));
        for (int i = 0; i < 4; i++) {
            assert_int_equal(again[i], half_bits(dtype, wide[i]));
        }
        ftr_graph_destroy(graph);
    }
    remove(HALF_FILE);
    ftr_context_destroy(context);
}

/* --------------------------------------------------------------------------------------------------- what is wrong -- */

static ftr_tensor half_parameter(ftr_graph *g) {
    return ftr_parameter(g, "w", FTR_F16, FTR_SHAPE(2), (ftr_init){FTR_INIT_ZEROS, 0, 0});
}

static ftr_tensor mixed_sum(ftr_graph *g) {
    return ftr_add(ftr_input(g, "a", FTR_F16, FTR_SHAPE(2)), ftr_input(g, "b", FTR_F32, FTR_SHAPE(2)));
}

static ftr_tensor two_halves(ftr_graph *g) {
    return ftr_mul(ftr_input(g, "a", FTR_F16, FTR_SHAPE(2)), ftr_input(g, "b", FTR_BF16, FTR_SHAPE(2)));
}

static ftr_tensor mixed_scalars(ftr_graph *g) {
    return ftr_mul(ftr_input(g, "a", FTR_F16, ftr_scalar_shape()), ftr_scalar(g, FTR_F32, 2));
}

static ftr_tensor double_scalar(ftr_graph *g) {
    return ftr_mul(ftr_input(g, "a", FTR_BF16, FTR_SHAPE(2)), ftr_scalar(g, FTR_F64, 2));
}

static ftr_tensor mixed_power(ftr_graph *g) {
    return ftr_pow(ftr_input(g, "a", FTR_F16, FTR_SHAPE(2)), ftr_scalar(g, FTR_F32, 2));
}

static ftr_tensor half_gamma(ftr_graph *g) {
    ftr_tensor x = ftr_input(g, "x", FTR_F16, FTR_SHAPE(4, 2)), v = ftr_input(g, "v", FTR_F16, FTR_SHAPE(2));
    return ftr_batch_norm_with(x, v, v, v, v, NULL);
}

static ftr_tensor half_layer_gamma(ftr_graph *g) {
    ftr_tensor x = ftr_input(g, "x", FTR_BF16, FTR_SHAPE(4, 2)), v = ftr_input(g, "v", FTR_BF16, FTR_SHAPE(2));
    return ftr_layer_norm_with(x, v, v, NULL);
}

static ftr_tensor half_weight(ftr_graph *g) {
    return ftr_linear_with(ftr_input(g, "x", FTR_F16, FTR_SHAPE(4, 2)), ftr_input(g, "w", FTR_F32, FTR_SHAPE(3, 2)),
                           (ftr_tensor){NULL, 0});
}

static ftr_tensor half_loss(ftr_graph *g) {
    ftr_tensor w = ftr_parameter(g, "w", FTR_F32, FTR_SHAPE(2), (ftr_init){FTR_INIT_ZEROS, 0, 0});
    return ftr_sum(ftr_cast(w, FTR_F16), ftr_all_axes(), false);
}

static const struct {
    ftr_tensor (*build)(ftr_graph *g);
    ftr_status status;
    const char *message;
} mistakes[] = {
    {half_parameter, FTR_ERROR_DTYPE, "parameter 'w': dtype is f16, expected f32 or f64"},
    {mixed_sum, FTR_ERROR_DTYPE, "add 'add_2': a is f16, b is f32: both must have one type"},
    {two_halves, FTR_ERROR_DTYPE, "mul 'mul_2': a is f16, b is bf16: both must have one type"},
    {mixed_scalars, FTR_ERROR_DTYPE, "mul 'mul_2': a is f16, b is f32: both must have one type"},
    {double_scalar, FTR_ERROR_DTYPE, "mul 'mul_2': a is bf16, b is f64: both must have one type"},
    {mixed_power, FTR_ERROR_DTYPE, "pow 'pow_2': a is f16, b is f32: both must have one type"},
    {half_gamma, FTR_ERROR_DTYPE, "batch_norm 'batch_norm_2': gamma is f16, expected f32"},
    {half_layer_gamma, FTR_ERROR_DTYPE, "layer_norm 'layer_norm_2': gamma is bf16, expected f32"},
    {half_weight, FTR_ERROR_DTYPE, "linear 'linear_2': input is f16, weight is f32: both must have one type"},
    {half_loss, FTR_ERROR_DTYPE, "loss 'sum_2': dtype is f16, expected f32 or f64"},
};

static void mistakes_are_told(void **state) {
    (void)state;
    for (size_t i = 0; i < FTR_TEST_LENGTH(mistakes); i++) {
        ftr_context *context = ftr_test_context();
        ftr_graph *graph = ftr_graph_create(context);
        ftr_tensor loss = mistakes[i].build(graph);
        ftr_optimizer sgd = ftr_sgd(0.1);
        ftr_plan *plan = NULL;
        assert_int_equal(ftr_compile(graph, &(ftr_compile_desc){.loss = loss, .optimizer = &sgd}, &plan),
                         mistakes[i].status);
        assert_string_equal(ftr_error_message(context), mistakes[i].message);
        assert_null(plan);
        ftr_graph_destroy(graph);
        ftr_context_destroy(context);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_numbers_widen),        cmocka_unit_test(numbers_between_round),
        cmocka_unit_test(patterns_round),           cmocka_unit_test(half_to_other_half_and_back),
        cmocka_unit_test(casts_as_pytorch),         cmocka_unit_test(casts_to_integers),
        cmocka_unit_test(doubles_are_rounded_once), cmocka_unit_test(types_have_names_and_sizes),
        cmocka_unit_test(sources_of_half_types),    cmocka_unit_test(printed_and_summed_up),
        cmocka_unit_test(scalars_are_not_rounded),  cmocka_unit_test(layers_have_f32_parameters),
        cmocka_unit_test(files_of_half_types),      cmocka_unit_test(mistakes_are_told),
    };
    return cmocka_run_group_tests_name("half", tests, NULL, NULL);
}
