/* JSON: what is accepted, with which values; what is refused, with which sentence; output; and the sort beneath. */
#ifdef FTR_TEST_SINGLE
#define FASTTRAIN_IMPLEMENTATION
#endif
#include "ftr_test.h"
#ifndef FTR_TEST_SINGLE
#include "core/json.h"
#include "core/sort.h"
#endif

#include <inttypes.h>
#include <locale.h>

typedef struct fixture {
    ftr_test_memory memory;
    ftr_context *context;
    ftr__arena arena;
    ftr__json_error error;
} fixture;

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    f->context = ftr_test_context_with(NULL, 1, 1, &f->memory);
    ftr__arena_init(&f->arena, f->context);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    ftr__arena_free(&f->arena);
    ftr_context_destroy(f->context);
    const int result = f->memory.blocks != 0 || f->memory.wrong != 0;
    free(f);
    return result;
}

/* Parses from a block of exactly the text's size, so that a sanitizer sees a read past it. */
static ftr_status parse_bytes(fixture *f, const char *text, size_t length, const ftr__json **root) {
    char *copy = malloc(length ? length : 1);
    memcpy(copy, text, length);
    memset(&f->error, 0, sizeof f->error);
    const ftr_status status = ftr__json_parse(&f->arena, copy, length, root, &f->error);
    free(copy);
    return status;
}

static const ftr__json *parse(fixture *f, const char *text) {
    const ftr__json *root = NULL;
    const ftr_status status = parse_bytes(f, text, strlen(text), &root);
    if (status != FTR_OK) fail_msg("%s: %s", text, f->error.message);
    return root;
}

/* ------------------------------------------------------------------------------------------------------ accepted -- */

static void numbers(void **state) {
    fixture *f = *state;
    const struct {
        const char *text;
        double value;
        bool is_integer;
        int64_t integer;
    } cases[] = {
        {"0", 0, true, 0},
        {"7", 7, true, 7},
        {"-12", -12, true, -12},
        {"9223372036854775807", 9223372036854775807.0, true, INT64_MAX},
        {"-9223372036854775808", -9223372036854775808.0, true, INT64_MIN},
        {"9223372036854775808", 9223372036854775808.0, false, 0},
        {"-9223372036854775809", -9223372036854775809.0, false, 0},
        {"18446744073709551616", 18446744073709551616.0, false, 0},
        {"99999999999999999999999999", 99999999999999999999999999.0, false, 0},
        {"9007199254740993", 9007199254740992.0, true, INT64_C(9007199254740993)},
        {"1.0", 1, false, 0},
        {"1e2", 100, false, 0},
        {"1E+2", 100, false, 0},
        {"25e-2", 0.25, false, 0},
        {"-0.5", -0.5, false, 0},
        {"3.141592653589793", 3.141592653589793, false, 0},
        {"0.1", 0.1, false, 0},
        {"123.456e-7", 123.456e-7, false, 0},
        {"1.7976931348623157e308", 1.7976931348623157e308, false, 0},
        {"2.2250738585072011e-308", 2.2250738585072011e-308, false, 0},
        {"4.9e-324", 4.9e-324, false, 0},
        {"1e-400", 0, false, 0},
        {"0e999999999999999999999", 0, false, 0},
        {"1e-999999999999999999999", 0, false, 0},
        {"0.00000000000000000000000000000000000000001e41", 1, false, 0},
        {"100000000000000000000000000000000000000000e-41", 1, false, 0},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        const ftr__json *number = parse(f, cases[i].text);
        if (number->type != FTR__JSON_NUMBER || number->as.number.value != cases[i].value ||
            number->as.number.is_integer != cases[i].is_integer ||
            (cases[i].is_integer && number->as.number.integer != cases[i].integer))
            fail_msg("%s: %.17g, integer %d: %" PRId64, cases[i].text, number->as.number.value,
                     number->as.number.is_integer, number->as.number.integer);
    }
    const ftr__json *zero = parse(f, "-0");
    assert_false(zero->as.number.is_integer);
    assert_true(zero->as.number.value == 0 && signbit(zero->as.number.value));
}

/* Where the locale's decimal point is a comma nothing may change. Such a locale need not be installed. */
static void numbers_of_another_locale(void **state) {
    fixture *f = *state;
    const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "fr_FR"};
    const char *found = NULL;
    for (size_t i = 0; i < FTR_TEST_LENGTH(names) && !found; i++) found = setlocale(LC_NUMERIC, names[i]);
    const double value = parse(f, "[1.5]")->as.list.first->as.number.value;
    setlocale(LC_NUMERIC, "C");
    assert_true(value == 1.5);
}

static void strings(void **state) {
    fixture *f = *state;
    const struct {
        const char *text, *value;
        size_t length;
    } cases[] = {
        {"\"\"", "", 0},
        {"\"abc\"", "abc", 3},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t", 8},
        {"\"\\u0041\\u00e9\\u20AC\"", "A\xC3\xA9\xE2\x82\xAC", 6},
        {"\"\\ud83d\\uDE00\"", "\xF0\x9F\x98\x80", 4},
        {"\"\\ud800\\udc00\\udbff\\udfff\"", "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF", 8},
        {"\"\\uffff\\ud7ff\\ue000\"", "\xEF\xBF\xBF\xED\x9F\xBF\xEE\x80\x80", 9},
        {"\"a\\u0000b\"", "a\0b", 3},
        {"\"\xC3\xA9\x7F\xF0\x9F\x98\x80\"", "\xC3\xA9\x7F\xF0\x9F\x98\x80", 7},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        const ftr__json *string = parse(f, cases[i].text);
        assert_int_equal(string->type, FTR__JSON_STRING);
        assert_int_equal(string->as.string.length, cases[i].length);
        assert_memory_equal(string->as.string.text, cases[i].value, cases[i].length + 1);
    }
}

static void structure(void **state) {
    fixture *f = *state;
    const ftr__json *root =
        parse(f, " \t\r\n{ \"b\" : [ 1 , null , true , false , \"x\" , [ ] , { } ] , \"\" : 2 , \"a\":3,\"ab\":4 } \n");
    assert_int_equal(root->type, FTR__JSON_OBJECT);
    assert_int_equal(root->as.list.count, 4);
    const ftr__json *list = ftr__json_find(root, "b");
    assert_ptr_equal(list, root->as.list.first);
    assert_int_equal(list->as.list.count, 7);
    const char *const types[] = {"a number", "null", "a bool", "a bool", "a string", "an array", "an object"};
    const ftr__json *element = list->as.list.first;
    for (size_t i = 0; i < 7; i++, element = element->next) {
        assert_string_equal(ftr__json_type_text(element), types[i]);
        assert_null(element->key);
        if (i == 2) assert_true(element->as.boolean);
        if (i == 3) assert_false(element->as.boolean);
    }
    assert_null(element);
    assert_int_equal(ftr__json_find(root, "")->as.number.integer, 2);
    assert_int_equal(ftr__json_find(root, "a")->as.number.integer, 3);
    assert_int_equal(ftr__json_find(root, "ab")->as.number.integer, 4);
    assert_null(ftr__json_find(root, "abc"));
    const char *const order[] = {"", "a", "ab", "b"};
    for (int i = 0; i < 4; i++) {
        const ftr__json *member = root->as.list.by_key[i];
        assert_string_equal(member->key, order[i]);
    }
    assert_null(ftr__json_find(parse(f, "{}"), "a"));
    assert_int_equal(parse(f, "null")->type, FTR__JSON_NULL);
    assert_int_equal(parse(f, "{\"a\\u0000b\":1,\"a\":2}")->as.list.count, 2);
}

static void depth(void **state) {
    fixture *f = *state;
    char text[2 * (FTR__JSON_MAX_DEPTH + 1) + 1];
    for (int n = FTR__JSON_MAX_DEPTH; n <= FTR__JSON_MAX_DEPTH + 1; n++) {
        memset(text, '[', (size_t)n);
        memset(text + n, ']', (size_t)n);
        const ftr__json *root = NULL;
        const ftr_status status = parse_bytes(f, text, 2 * (size_t)n, &root);
        assert_int_equal(status, n == FTR__JSON_MAX_DEPTH ? FTR_OK : FTR_ERROR_FORMAT);
    }
    assert_string_equal(f->error.message, "byte 127: found nesting deeper than 127");
}

/* 20,000 members: sorting and looking for duplicates must not take quadratic time. */
static void many_members(void **state) {
    fixture *f = *state;
    const int count = 20000;
    char *text = malloc((size_t)count * 16 + 2);
    size_t length = 0;
    for (int i = 0; i < count; i++)
        length += (size_t)sprintf(text + length, "%c\"k%05d\":%d", i ? ',' : '{', (int)((int64_t)i * 7919 % count), i);
    text[length++] = '}';
    const ftr__json *root = NULL;
    assert_int_equal(parse_bytes(f, text, length, &root), FTR_OK);
    for (int i = 0; i < count; i++) {
        char key[16];
        sprintf(key, "k%05d", i);
        const ftr__json *member = root->as.list.by_key[i];
        assert_string_equal(member->key, key);
        assert_ptr_equal(ftr__json_find(root, key), member);
    }
    free(text);
}

/* ------------------------------------------------------------------------------------------------------- refused -- */

static void refused(void **state) {
    fixture *f = *state;
    const struct {
        const char *text, *message;
    } cases[] = {
        {"", "byte 0: found the end, expected a value"},
        {"  ", "byte 2: found the end, expected a value"},
        {"{} {", "byte 3: found '{', expected the end"},
        {"[1,]", "byte 3: found ']', expected a value"},
        {"[,1]", "byte 1: found ',', expected a value"},
        {"[1 2]", "byte 3: found '2', expected ',' or ']'"},
        {"[1", "byte 2: found the end, expected ',' or ']'"},
        {"[1}", "byte 2: found '}', expected ',' or ']'"},
        {"]", "byte 0: found ']', expected a value"},
        {"{\"a\"}", "byte 4: found '}', expected ':'"},
        {"{\"a\":}", "byte 5: found '}', expected a value"},
        {"{\"a\":1,}", "byte 7: found '}', expected a string"},
        {"{a:1}", "byte 1: found 'a', expected a string"},
        {"{1:1}", "byte 1: found '1', expected a string"},
        {"{\"a\":1", "byte 6: found the end, expected ',' or '}'"},
        {"{\"a\":1]", "byte 6: found ']', expected ',' or '}'"},
        {"{\"a\":1,\"b\":2,\"a\":3}", "byte 18: found key 'a' twice in the object that ends here"},
        {"{\"a\":1,\"\\u0061\":2}", "byte 17: found key 'a' twice in the object that ends here"},
        {"nul", "byte 3: found the end, expected null, true or false"},
        {"nulL", "byte 3: found 'L', expected null, true or false"},
        {"True", "byte 0: found 'T', expected a value"},
        {"truex", "byte 4: found 'x', expected the end"},
        {"NaN", "byte 0: found 'N', expected a value"},
        {"Infinity", "byte 0: found 'I', expected a value"},
        {"+1", "byte 0: found '+', expected a value"},
        {"-", "byte 1: found the end, expected a digit"},
        {"-a", "byte 1: found 'a', expected a digit"},
        {"01", "byte 0: found a number with a leading zero"},
        {"-00", "byte 1: found a number with a leading zero"},
        {".5", "byte 0: found '.', expected a value"},
        {"1.", "byte 2: found the end, expected a digit"},
        {"1.e5", "byte 2: found 'e', expected a digit"},
        {"1e", "byte 2: found the end, expected a digit"},
        {"1e+", "byte 3: found the end, expected a digit"},
        {"1e1.5", "byte 3: found '.', expected the end"},
        {"0x10", "byte 1: found 'x', expected the end"},
        {"[1e309]", "byte 1: found a number beyond the range of a double"},
        {"-1e999999999999999999999", "byte 0: found a number beyond the range of a double"},
        {"\"abc", "byte 4: found the end, expected '\"'"},
        {"\"abc\\", "byte 5: found the end, expected an escape"},
        {"\"\\x41\"", "byte 2: found 'x', expected an escape"},
        {"\"\\u12", "byte 5: found the end, expected a hexadecimal digit"},
        {"\"\\u12g4\"", "byte 5: found 'g', expected a hexadecimal digit"},
        {"\"a\nb\"", "byte 2: found byte 0x0A, expected an escape for a control character"},
        {"\"a\tb\"", "byte 2: found byte 0x09, expected an escape for a control character"},
        {"\"\\ud800\"", "byte 7: found '\"', expected the escape of a low surrogate"},
        {"\"\\ud800\\n\"", "byte 8: found 'n', expected the escape of a low surrogate"},
        {"\"\\ud800\\u0041\"", "byte 13: found a high surrogate without a low one"},
        {"\"\\udc00\"", "byte 7: found a low surrogate without a high one"},
        {"'a'", "byte 0: found ''', expected a value"},
        {"// comment\n1", "byte 0: found '/', expected a value"},
        {"\xEF\xBB\xBF{}", "byte 0: found byte 0xEF, expected a value"},
        {"\v1", "byte 0: found byte 0x0B, expected a value"},
        {"\"\xFF\"", "byte 1: found byte 0xFF, expected UTF-8"},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        const ftr__json *root = NULL;
        const ftr_status status = parse_bytes(f, cases[i].text, strlen(cases[i].text), &root);
        if (status != FTR_ERROR_FORMAT) fail_msg("%s: accepted", cases[i].text);
        assert_null(root);
        assert_string_equal(f->error.message, cases[i].message);
    }
    const ftr__json *root = NULL;
    assert_int_equal(parse_bytes(f, "{}\0", 3, &root), FTR_ERROR_FORMAT);
    assert_string_equal(f->error.message, "byte 2: found byte 0x00, expected the end");
    assert_int_equal(parse_bytes(f, "\0", 1, &root), FTR_ERROR_FORMAT);
    assert_int_equal(parse_bytes(f, "\"a\0\"", 4, &root), FTR_ERROR_FORMAT);
    assert_string_equal(f->error.message, "byte 2: found byte 0x00, expected an escape for a control character");
}

static void utf8(void **state) {
    (void)state;
    const struct {
        const char *text;
        int64_t invalid_at;
    } cases[] = {
        {"", -1},
        {"plain", -1},
        {"\x7F\xC2\x80\xDF\xBF", -1},
        {"\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF", -1},
        {"\xF0\x90\x80\x80\xF4\x8F\xBF\xBF", -1},
        {"a\x80", 1},            /* a continuation alone */
        {"\xC0\x80", 0},         /* overlong */
        {"\xC1\xBF", 0},         /* overlong */
        {"ab\xE0\x9F\xBF", 2},   /* overlong */
        {"\xF0\x8F\xBF\xBF", 0}, /* overlong */
        {"\xED\xA0\x80", 0},     /* surrogate */
        {"\xED\xBF\xBF", 0},     /* surrogate */
        {"\xF4\x90\x80\x80", 0}, /* above U+10FFFF */
        {"\xF5\x80\x80\x80", 0}, /* no lead byte */
        {"\xFE", 0},             /* no lead byte */
        {"\xC3", 0},             /* cut */
        {"\xE2\x82", 0},         /* cut */
        {"\xF0\x9F\x98", 0},     /* cut */
        {"\xC3\x28", 0},         /* no continuation */
        {"\xE2\x82\x28", 0},     /* no continuation */
        {"\xF0\x9F\x98\xC0", 0}, /* no continuation */
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        const size_t length = strlen(cases[i].text);
        char *copy = malloc(length ? length : 1);
        memcpy(copy, cases[i].text, length);
        assert_int_equal(ftr__utf8_invalid_at(copy, length), cases[i].invalid_at);
        free(copy);
    }
}

/* Each allocation fails once: a status, no leak (the teardown counts). */
static void out_of_memory(void **state) {
    fixture *f = *state;
    const char *text = "{\"a\":[1,2.5,{\"b\":\"c\"}],\"d\":null}";
    char *large = malloc(40000 + 3); /* larger than the arena's chunks, so that several are needed */
    memset(large, 'x', 40000 + 2);
    large[0] = large[40001] = '"';
    large[40002] = '\0';
    for (int large_text = 0; large_text < 2; large_text++) {
        ftr_status status = FTR_ERROR_OUT_OF_MEMORY;
        int failures = 0;
        for (int64_t n = 1; status != FTR_OK; n++, failures++) {
            assert_true(n < 100);
            ftr__arena_free(&f->arena);
            f->memory.fail_at = f->memory.calls + n;
            const ftr__json *root = NULL;
            const char *tried = large_text ? large : text;
            status = parse_bytes(f, tried, strlen(tried), &root);
            assert_true(status == FTR_OK || (status == FTR_ERROR_OUT_OF_MEMORY && !root));
        }
        f->memory.fail_at = 0;
        assert_true(failures > 1 + large_text);
    }
    free(large);
}

/* Any change of valid texts is parsed or refused; nothing else happens. */
static void mutations(void **state) {
    fixture *f = *state;
    const char *const texts[] = {
        "{\"a\":[1,-2.5e3,{\"b\":\"\\u00e9\\ud83d\\ude00x\"}],\"d\":null,\"e\":[true,false],\"\\\\\":{}}",
        "[[[[]]],\"\\n\\t\\\"\",0.0001,123456789012345678901234567890,\"\xC3\xA9\xE2\x82\xAC\"]",
    };
    ftr_test_rng rng = {7};
    int accepted = 0;
    for (int i = 0; i < 20000; i++) {
        const char *text = texts[i % 2];
        char changed[128];
        size_t length = strlen(text);
        memcpy(changed, text, length);
        const int64_t changes = ftr_test_integer(&rng, 1, 3);
        for (int64_t c = 0; c < changes; c++)
            changed[ftr_test_integer(&rng, 0, (int64_t)length - 1)] =
                (char)(c % 2 ? text[ftr_test_integer(&rng, 0, (int64_t)length - 1)]
                             : ftr_test_integer(&rng, -128, 127));
        if (i % 5 == 0) length = (size_t)ftr_test_integer(&rng, 0, (int64_t)length);
        const ftr__json *root = NULL;
        const ftr_status status = parse_bytes(f, changed, length, &root);
        assert_true(status == FTR_OK ? root != NULL : status == FTR_ERROR_FORMAT && f->error.message[0] != '\0');
        accepted += status == FTR_OK;
        ftr__arena_free(&f->arena);
    }
    assert_true(accepted > 0);
}

/* -------------------------------------------------------------------------------------------------------- output -- */

static void output(void **state) {
    fixture *f = *state;
    const char *expected = "{\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7F\xC3\xA9\":-9223372036854775808,\"\":0}";
    char text[128];
    ftr__json_writer writer = {.text = NULL};
    for (int pass = 0; pass < 2; pass++) {
        ftr__json_put(&writer, "{");
        ftr__json_put_string(&writer, "a\"\\/\b\f\n\r\t\x01\x1f\x7F\xC3\xA9");
        ftr__json_put(&writer, ":");
        ftr__json_put_integer(&writer, INT64_MIN);
        ftr__json_put(&writer, ",");
        ftr__json_put_string(&writer, "");
        ftr__json_put(&writer, ":");
        ftr__json_put_integer(&writer, 0);
        ftr__json_put(&writer, "}");
        assert_int_equal(writer.length, strlen(expected));
        if (pass == 0) writer = (ftr__json_writer){.text = text};
    }
    assert_memory_equal(text, expected, strlen(expected));
    text[writer.length] = '\0';
    assert_string_equal(parse(f, text)->as.list.first->key, "a\"\\/\b\f\n\r\t\x01\x1f\x7F\xC3\xA9");
}

/* ---------------------------------------------------------------------------------------------------------- sort -- */

static int compare_integers(const void *a, const void *b) {
    const int left = *(const int *)a, right = *(const int *)b;
    return left < right ? -1 : left > right;
}

static void sort(void **state) {
    (void)state;
    int values[200];
    const void *items[200];
    ftr_test_rng rng = {3};
    for (int count = 0; count <= 200; count++) {
        for (int pattern = 0; pattern < 4; pattern++) {
            int64_t sum = 0;
            for (int i = 0; i < count; i++) {
                values[i] = pattern == 0   ? i
                            : pattern == 1 ? -i
                            : pattern == 2 ? i % 3
                                           : (int)ftr_test_integer(&rng, 0, 1000);
                items[i] = &values[i];
                sum += values[i];
            }
            ftr__sort(items, count, compare_integers);
            for (int i = 0; i < count; i++) {
                sum -= *(const int *)items[i];
                if (i > 0) assert_true(compare_integers(items[i - 1], items[i]) <= 0);
            }
            assert_int_equal(sum, 0);
        }
    }
}

static double double_of_bits(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Writes a double, reads it back, compares the bits. */
static void check_real(fixture *f, double value, const char *expected) {
    char text[64];
    ftr__json_writer writer = {.text = text};
    ftr__json_put_real(&writer, value);
    text[writer.length] = '\0';
    ftr__json_writer measure = {.text = NULL};
    ftr__json_put_real(&measure, value);
    assert_int_equal(measure.length, writer.length);
    if (expected) assert_string_equal(text, expected);
    double back = 0.0;
    assert_true(ftr__json_get_real(parse(f, text), &back));
    if (isnan(value)) {
        assert_true(isnan(back));
        assert_int_equal(signbit(back) != 0, signbit(value) != 0);
    } else {
        assert_memory_equal(&back, &value, sizeof value);
    }
}

static void reals(void **state) {
    fixture *f = *state;
    const struct {
        double value;
        const char *text;
    } cases[] = {
        {0.0, "0"},
        {-0.0, "-0"},
        {1.0, "1"},
        {0.1, "0.1"},
        {-12.5, "-12.5"},
        {1.0 / 3.0, "0.3333333333333333"},
        {0.1 + 0.2, "0.30000000000000004"},
        {1e300, "1e+300"},
        {5e-324, "4.94065645841247e-324"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
        {9007199254740993.0, "9007199254740992"},
        {(double)INFINITY, "\"Infinity\""},
        {-(double)INFINITY, "\"-Infinity\""},
        {(double)NAN, "\"NaN\""},
        {copysign((double)NAN, -1.0), "\"-NaN\""},
    };
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) check_real(f, cases[i].value, cases[i].text);
        ftr_test_rng rng = {11};
        for (int i = 0; i < 20000; i++) check_real(f, double_of_bits(ftr_test_random(&rng)), NULL);
        /* once more with a decimal comma, where the system has such a locale */
        if (!setlocale(LC_NUMERIC, "de_DE.UTF-8") && !setlocale(LC_NUMERIC, "fr_FR.UTF-8")) break;
    }
    setlocale(LC_NUMERIC, "C");
    double back;
    assert_false(ftr__json_get_real(parse(f, "\"nan\""), &back));
    assert_false(ftr__json_get_real(parse(f, "\"NaN\\u0000\""), &back));
    assert_false(ftr__json_get_real(parse(f, "true"), &back));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(numbers),       TEST(numbers_of_another_locale),
        TEST(strings),       TEST(structure),
        TEST(depth),         TEST(many_members),
        TEST(refused),       TEST(utf8),
        TEST(out_of_memory), TEST(mutations),
        TEST(output),        TEST(reals),
        TEST(sort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
