/* safetensors: what is written is read back, files of the reference library are read, malformed files are refused with
 * the exact sentence, and nothing else ever happens. */
#include "ftr_test.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct fixture {
    ftr_test_memory memory;
    ftr_context *context;
    char directory[64];
    char path[96];
} fixture;

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    f->context = ftr_test_context_with(NULL, 1, 1, &f->memory);
    strcpy(f->directory, "/tmp/ftr_test_safetensors_XXXXXX");
    if (!mkdtemp(f->directory)) return 1;
    snprintf(f->path, sizeof f->path, "%s/file.safetensors", f->directory);
    *state = f;
    return 0;
}

/* Files in the test's folder. */
static int count_files(const fixture *f) {
    int count = 0;
    DIR *directory = opendir(f->directory);
    for (struct dirent *entry = directory ? readdir(directory) : NULL; entry; entry = readdir(directory))
        count += entry->d_name[0] != '.';
    if (directory) closedir(directory);
    return count;
}

static int teardown(void **state) {
    fixture *f = *state;
    ftr_context_destroy(f->context);
    unlink(f->path);
    const int result = f->memory.blocks != 0 || f->memory.wrong != 0 || rmdir(f->directory) != 0;
    free(f);
    return result;
}

/* The bytes of a file: header length, header, and `data_bytes` bytes 0, 1, 2, ... */
static unsigned char *make_file(const char *header, size_t length, size_t data_bytes, size_t *size) {
    *size = 8 + length + data_bytes;
    unsigned char *file = malloc(*size);
    for (int i = 0; i < 8; i++) file[i] = (unsigned char)((uint64_t)length >> (8 * i));
    memcpy(file + 8, header, length);
    for (size_t i = 0; i < data_bytes; i++) file[8 + length + i] = (unsigned char)i;
    return file;
}

static ftr_status parse(fixture *f, const char *header, size_t data_bytes, ftr_safetensors **file) {
    size_t size = 0;
    unsigned char *bytes = make_file(header, strlen(header), data_bytes, &size);
    const ftr_status status = ftr_safetensors_parse(f->context, "t", bytes, size, file);
    free(bytes);
    return status;
}

static unsigned char *read_bytes(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("%s: %s", path, strerror(errno));
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(*size ? *size : 1);
    assert_int_equal(fread(bytes, 1, *size, file), *size);
    fclose(file);
    return bytes;
}

static void write_bytes(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* ---------------------------------------------------------------------------------------------------- round trip -- */

static const double f64_values[] = {-0.0, 1.5, -2.25, 1e300};
static const float f32_values[] = {0.1f, -3.0f, 1e-40f, 3e38f, 5.0f, 6.0f};
static const int32_t i32_values[] = {INT32_MIN, 0, INT32_MAX};
static const int64_t i64_values[] = {INT64_MIN, INT64_MAX};
static const uint16_t half_values[] = {0x3c00, 0xffff, 1};
static const uint8_t u8_values[] = {0, 1, 2, 254, 255};
static const uint8_t bool_values[] = {1, 0, 1};

static const ftr_safetensors_item items[] = {
    {"bool", FTR_BOOL, {1, {3}}, bool_values},
    {"u8", FTR_U8, {2, {1, 5}}, u8_values},
    {"i32", FTR_I32, {3, {3, 1, 1}}, i32_values},
    {"f32", FTR_F32, {2, {2, 3}}, f32_values},
    {"a.f32", FTR_F32, {6, {1, 1, 2, 1, 3, 1}}, f32_values},
    {"bf16", FTR_BF16, {1, {3}}, half_values},
    {"f16", FTR_F16, {2, {1, 3}}, half_values},
    {"i64", FTR_I64, {1, {2}}, i64_values},
    {"f64", FTR_F64, {2, {2, 2}}, f64_values},
    {"scalar", FTR_F32, {0, {0}}, f32_values},
    {"empty", FTR_F64, {3, {2, 0, 3}}, NULL},
    {"none", FTR_U8, {1, {0}}, NULL},
    {"d\xC3\xA9j\xC3\xA0 \"\\\n\x01\xF0\x9F\x98\x80", FTR_F32, {1, {1}}, f32_values},
    {"", FTR_U8, {0, {0}}, u8_values},
};

static void check_item(const ftr_safetensors *file, const ftr_safetensors_item *item) {
    ftr_safetensors_entry entry;
    if (!ftr_safetensors_find(file, item->name, &entry)) fail_msg("no tensor '%s'", item->name);
    assert_string_equal(entry.name, item->name);
    assert_int_equal(entry.dtype, item->dtype);
    assert_int_equal(entry.rank, item->shape.rank);
    size_t bytes = ftr_dtype_size(item->dtype);
    for (int32_t i = 0; i < entry.rank; i++) {
        assert_int_equal(entry.dim[i], item->shape.dim[i]);
        bytes *= (size_t)item->shape.dim[i];
    }
    assert_int_equal(entry.bytes, bytes);
    assert_non_null(entry.data);
    assert_int_equal((uintptr_t)entry.data % ftr_dtype_size(item->dtype), 0);
    if (bytes > 0) assert_memory_equal(entry.data, item->data, bytes);
}

static void round_trip(void **state) {
    fixture *f = *state;
    const char *const metadata[] = {"format", "pt", "", "empty key", "k\"\n\xC3\xA9", "v\\\t\xF0\x9F\x98\x80",
                                    "empty",  ""};
    const int64_t count = FTR_TEST_LENGTH(items);
    FTR_TEST_OK(f->context, ftr_safetensors_write(f->context, f->path, items, count, metadata, 4));
    assert_int_equal(count_files(f), 1);
    ftr_safetensors *file = NULL;
    FTR_TEST_OK(f->context, ftr_safetensors_open(f->context, f->path, &file));
    assert_int_equal(ftr_safetensors_count(file), count);
    for (int64_t i = 0; i < count; i++) check_item(file, &items[i]);
    ftr_safetensors_entry entry, last;
    for (int64_t i = 0; i < count; i++, last = entry) {
        assert_true(ftr_safetensors_at(file, i, &entry));
        if (i > 0) assert_true(strcmp(last.name, entry.name) < 0);
    }
    assert_false(ftr_safetensors_at(file, -1, &entry));
    assert_false(ftr_safetensors_at(file, count, &entry));
    assert_false(ftr_safetensors_at(file, 0, NULL));
    assert_false(ftr_safetensors_find(file, "f3", &entry));
    assert_false(ftr_safetensors_find(file, "f321", &entry));
    assert_false(ftr_safetensors_find(file, "__metadata__", &entry));
    assert_false(ftr_safetensors_find(file, NULL, &entry));
    for (int i = 0; i < 4; i++)
        assert_string_equal(ftr_safetensors_metadata(file, metadata[2 * i]), metadata[2 * i + 1]);
    assert_null(ftr_safetensors_metadata(file, "other"));
    assert_null(ftr_safetensors_metadata(file, NULL));
    ftr_safetensors_close(file);
}

static void no_file(void **state) {
    (void)state;
    ftr_safetensors_entry entry;
    ftr_safetensors_close(NULL);
    assert_int_equal(ftr_safetensors_count(NULL), 0);
    assert_false(ftr_safetensors_at(NULL, 0, &entry));
    assert_false(ftr_safetensors_find(NULL, "a", &entry));
    assert_null(ftr_safetensors_metadata(NULL, "a"));
}

/* The bytes that the reference library writes for the same tensors. */
static void bytes_written(void **state) {
    fixture *f = *state;
    const float values[] = {0, 1, 2, 3, 4, 5};
    const uint8_t small[] = {7, 8, 9};
    const int64_t whole[] = {-1};
    const ftr_safetensors_item some[] = {
        {"b", FTR_U8, {1, {3}}, small},
        {"attn.0", FTR_F32, {3, {1, 2, 3}}, values},
        {"c", FTR_I64, {0, {0}}, whole},
        {"a", FTR_F32, {2, {1, 1}}, values + 1},
    };
    const char *const metadata[] = {"format", "pt"};
    const struct {
        const ftr_safetensors_item *items;
        int64_t count, pairs;
        const char *header;
    } cases[] = {
        {NULL, 0, 0, "{}      "},
        {NULL, 0, 1, "{\"__metadata__\":{\"format\":\"pt\"}}"},
        {some + 1, 1, 0, "{\"attn.0\":{\"dtype\":\"F32\",\"shape\":[1,2,3],\"data_offsets\":[0,24]}}"},
        {some, 4, 1,
         "{\"__metadata__\":{\"format\":\"pt\"},\"c\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[8,12]},"
         "\"attn.0\":{\"dtype\":\"F32\",\"shape\":[1,2,3],\"data_offsets\":[12,36]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[36,39]}}      "},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        FTR_TEST_OK(f->context, ftr_safetensors_write(f->context, f->path, cases[i].items, cases[i].count, metadata,
                                                      cases[i].pairs));
        size_t size = 0;
        unsigned char *bytes = read_bytes(f->path, &size);
        const size_t length = strlen(cases[i].header);
        assert_int_equal(length % 8, 0);
        assert_int_equal(bytes[0] | bytes[1] << 8, length);
        assert_memory_equal(bytes + 2, "\0\0\0\0\0\0", 6);
        assert_memory_equal(bytes + 8, cases[i].header, length);
        if (i == 3) {
            assert_int_equal(size, 8 + length + 39);
            assert_memory_equal(bytes + 8 + length, whole, 8);
            assert_memory_equal(bytes + 8 + length + 8, values + 1, 4);
            assert_memory_equal(bytes + 8 + length + 12, values, 24);
            assert_memory_equal(bytes + 8 + length + 36, small, 3);
        }
        free(bytes);
    }
}

/* All element types that the reference knows, with 8 elements each. */
static void element_types(void **state) {
    fixture *f = *state;
    const struct {
        const char *name;
        size_t bytes;
        ftr_dtype dtype;
    } types[] = {
        {"BOOL", 8, FTR_BOOL}, {"F4", 4, 0},      {"F6_E2M3", 6, 0},    {"F6_E3M2", 6, 0},    {"U8", 8, FTR_U8},
        {"I8", 8, 0},          {"F8_E5M2", 8, 0}, {"F8_E4M3", 8, 0},    {"F8_E8M0", 8, 0},    {"F8_E4M3FNUZ", 8, 0},
        {"F8_E5M2FNUZ", 8, 0}, {"I16", 16, 0},    {"U16", 16, 0},       {"F16", 16, FTR_F16}, {"BF16", 16, FTR_BF16},
        {"I32", 32, FTR_I32},  {"U32", 32, 0},    {"F32", 32, FTR_F32}, {"C64", 64, 0},       {"F64", 64, FTR_F64},
        {"I64", 64, FTR_I64},  {"U64", 64, 0},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(types); i++) {
        char header[128];
        snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[2,4],\"data_offsets\":[0,%zu]}}",
                 types[i].name, types[i].bytes);
        ftr_safetensors *file = NULL;
        FTR_TEST_OK(f->context, parse(f, header, types[i].bytes, &file));
        ftr_safetensors_entry entry;
        assert_true(ftr_safetensors_find(file, "t", &entry));
        assert_string_equal(entry.dtype_name, types[i].name);
        assert_int_equal(entry.dtype, types[i].dtype);
        assert_int_equal(entry.bytes, types[i].bytes);
        assert_int_equal(((const unsigned char *)entry.data)[types[i].bytes - 1], types[i].bytes - 1);
        ftr_safetensors_close(file);
    }
}

/* ----------------------------------------------------------------------------------------- the reference's files -- */

/* tests/io/check_with_reference.py wrote these. */
static void reference_files(void **state) {
    fixture *f = *state;
    ftr_safetensors *file = NULL;
    FTR_TEST_OK(f->context, ftr_safetensors_open(f->context, FTR_TEST_DATA "/io/data/reference.safetensors", &file));
    const struct {
        const char *name, *dtype_name;
        int32_t rank;
        int64_t dim[3];
        size_t bytes;
    } expected[] = {
        {"bfloat16", "BF16", 2, {2, 3}, 12},
        {"bool", "BOOL", 2, {2, 3}, 6},
        {"complex64", "C64", 2, {2, 3}, 48},
        {"empty", "F32", 3, {2, 0, 3}, 0},
        {"float16", "F16", 2, {2, 3}, 12},
        {"float32", "F32", 2, {2, 3}, 24},
        {"float64", "F64", 2, {2, 3}, 48},
        {"float8_e4m3fn", "F8_E4M3", 2, {2, 3}, 6},
        {"float8_e5m2", "F8_E5M2", 2, {2, 3}, 6},
        {"int16", "I16", 2, {2, 3}, 12},
        {"int32", "I32", 2, {2, 3}, 24},
        {"int64", "I64", 2, {2, 3}, 48},
        {"int8", "I8", 2, {2, 3}, 6},
        {"na\xC3\xAFve \"name\"", "F32", 1, {1}, 4},
        {"scalar", "F32", 0, {0}, 4},
        {"uint8", "U8", 2, {2, 3}, 6},
    };
    assert_int_equal(ftr_safetensors_count(file), FTR_TEST_LENGTH(expected));
    for (size_t i = 0; i < FTR_TEST_LENGTH(expected); i++) {
        ftr_safetensors_entry entry;
        assert_true(ftr_safetensors_at(file, (int64_t)i, &entry));
        assert_string_equal(entry.name, expected[i].name);
        assert_string_equal(entry.dtype_name, expected[i].dtype_name);
        assert_int_equal(entry.rank, expected[i].rank);
        for (int32_t d = 0; d < entry.rank; d++) assert_int_equal(entry.dim[d], expected[i].dim[d]);
        assert_int_equal(entry.bytes, expected[i].bytes);
        if (expected[i].rank != 2) continue;
        for (int k = 0; k < 6; k++) { /* all hold 0 to 5, bool whether that is not 0 */
            if (entry.dtype == FTR_F32) assert_true(((const float *)entry.data)[k] == (float)k);
            if (entry.dtype == FTR_F64) assert_true(((const double *)entry.data)[k] == k);
            if (entry.dtype == FTR_F16 || entry.dtype == FTR_BF16) {
                uint16_t bits;
                double value;
                memcpy(&bits, (const char *)entry.data + 2 * k, sizeof bits);
                assert_true(ftr_convert(entry.dtype, &bits, FTR_F64, &value, 1) && value == k);
            }
            if (entry.dtype == FTR_I32) assert_int_equal(((const int32_t *)entry.data)[k], k);
            if (entry.dtype == FTR_I64) assert_int_equal(((const int64_t *)entry.data)[k], k);
            if (entry.dtype == FTR_U8) assert_int_equal(((const uint8_t *)entry.data)[k], k);
            if (entry.dtype == FTR_BOOL) assert_int_equal(((const uint8_t *)entry.data)[k], k != 0);
        }
    }
    assert_string_equal(ftr_safetensors_metadata(file, "format"), "pt");
    assert_string_equal(ftr_safetensors_metadata(file, "na\xC3\xAFve\n"), "\"\\\x01\xF0\x9F\x98\x80");
    ftr_safetensors_close(file);
}

/* The reference allows these too. */
static void accepted(void **state) {
    fixture *f = *state;
    const struct {
        const char *header;
        size_t data_bytes;
        int64_t count;
    } cases[] = {
        {"{}", 0, 0},
        {"  {}", 0, 0},
        {"{}\t\r\n ", 0, 0},
        {"{\"__metadata__\":{}}", 0, 0},
        {"{\"__metadata__\":null}", 0, 0},
        {"{\"\\u005f_metadata__\":{\"a\":\"b\"}}", 0, 0},
        {"{\"a\":{\"data_offsets\":[0,1],\"dtype\":\"U8\",\"shape\":[]}}", 1, 1},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"more\":[{\"x\":null}]}}", 1, 1},
        {"{\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"a\":{\"dtype\":\"U8\",\"shape\":[0],"
         "\"data_offsets\":[0,0]},\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[1,1]}}",
         1, 3},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0,4611686018427387904,4],\"data_offsets\":[0,0]}}", 0, 1},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8, 1},
        {"{\"a\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]}}", 1, 1},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        ftr_safetensors *file = NULL;
        FTR_TEST_OK(f->context, parse(f, cases[i].header, cases[i].data_bytes, &file));
        assert_int_equal(ftr_safetensors_count(file), cases[i].count);
        ftr_safetensors_close(file);
    }
    assert_null(ftr_safetensors_metadata(NULL, "a"));
}

/* ----------------------------------------------------------------------------------------------------- malformed -- */

#define ENTRY(name, dtype, shape, offsets)                                                                             \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define ONE(dtype, shape, offsets) "{" ENTRY("a", dtype, shape, offsets) "}"
#define JSON_ERROR "t: InvalidHeaderDeserialization: "

static void malformed_headers(void **state) {
    fixture *f = *state;
    const struct {
        const char *header;
        size_t data_bytes;
        const char *message;
    } cases[] = {
        /* not UTF-8 */
        {"\xFF}", 0, "t: InvalidHeader: found 0xFF at byte 0 of the header, expected UTF-8"},
        {"{\"\xC0\x80\":1}", 0, "t: InvalidHeader: found 0xC0 at byte 2 of the header, expected UTF-8"},
        {"{\"\xED\xA0\x80\":1}", 0, "t: InvalidHeader: found 0xED at byte 2 of the header, expected UTF-8"},
        /* not JSON */
        {"", 0, JSON_ERROR "byte 0: found the end, expected a value"},
        {"{", 0, JSON_ERROR "byte 1: found the end, expected a string"},
        {"{}x", 0, JSON_ERROR "byte 2: found 'x', expected the end"},
        {"\xEF\xBB\xBF{}", 0, JSON_ERROR "byte 0: found byte 0xEF, expected a value"},
        {"{\"a\":{\"dtype\":\"U8\",}}", 0, JSON_ERROR "byte 19: found '}', expected a string"},
        {"{\"\\ud800\":{}}", 0, JSON_ERROR "byte 8: found '\"', expected the escape of a low surrogate"},
        {"{\"a\n\":{}}", 0, JSON_ERROR "byte 3: found byte 0x0A, expected an escape for a control character"},
        {ONE("U8", "[1e999]", "[0,0]"), 0, JSON_ERROR "byte 28: found a number beyond the range of a double"},
        {ONE("U8", "[01]", "[0,1]"), 1, JSON_ERROR "byte 28: found a number with a leading zero"},
        /* duplicates */
        {"{" ENTRY("a", "U8", "[0]", "[0,0]") "," ENTRY("a", "U8", "[0]", "[0,0]") "}", 0,
         JSON_ERROR "byte 104: found key 'a' twice in the object that ends here"},
        {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0,
         JSON_ERROR "byte 64: found key 'dtype' twice in the object that ends here"},
        {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0,
         JSON_ERROR "byte 32: found key 'k' twice in the object that ends here"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0,
         JSON_ERROR "byte 36: found key '__metadata__' twice in the object that ends here"},
        /* JSON of another kind */
        {"[]", 0, JSON_ERROR "the header: found an array, expected an object"},
        {"null", 0, JSON_ERROR "the header: found null, expected an object"},
        {"\"a\"", 0, JSON_ERROR "the header: found a string, expected an object"},
        {"7", 0, JSON_ERROR "the header: found a number, expected an object"},
        {"{\"a\":5}", 0, JSON_ERROR "tensor 'a': found 5, expected an object"},
        {"{\"a\":null}", 0, JSON_ERROR "tensor 'a': found null, expected an object"},
        {"{\"a\":[\"U8\",[0],[0,0]]}", 0, JSON_ERROR "tensor 'a': found an array, expected an object"},
        {"{\"a\\u0000b\":{}}", 0, JSON_ERROR "tensor 'a...': found the character U+0000 in its name, expected none"},
        /* metadata */
        {"{\"__metadata__\":[]}", 0, JSON_ERROR "__metadata__: found an array, expected an object"},
        {"{\"__metadata__\":\"x\"}", 0, JSON_ERROR "__metadata__: found 'x', expected an object"},
        {"{\"__metadata__\":{\"k\":1}}", 0, JSON_ERROR "__metadata__: found 1, expected a string"},
        {"{\"__metadata__\":{\"k\":null}}", 0, JSON_ERROR "__metadata__: found null, expected a string"},
        {"{\"__metadata__\":{\"k\":{}}}", 0, JSON_ERROR "__metadata__: found an object, expected a string"},
        {"{\"__metadata__\":{\"k\":\"a\\u0000b\"}}", 0,
         JSON_ERROR "__metadata__: found the character U+0000, expected none"},
        /* fields */
        {"{\"a\":{}}", 0, JSON_ERROR "tensor 'a': dtype: found nothing, expected an element type of the format"},
        {"{\"a\":{\"dtype\":\"U8\"}}", 0, JSON_ERROR "tensor 'a': shape: found nothing, expected an array"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0]}}", 0,
         JSON_ERROR "tensor 'a': data_offsets: found nothing, expected an array"},
        {ONE("F31", "[0]", "[0,0]"), 0,
         JSON_ERROR "tensor 'a': dtype: found 'F31', expected an element type of the format"},
        {ONE("f32", "[0]", "[0,0]"), 0,
         JSON_ERROR "tensor 'a': dtype: found 'f32', expected an element type of the format"},
        {ONE("U8\\u0000", "[0]", "[0,0]"), 0,
         JSON_ERROR "tensor 'a': dtype: found 'U8', expected an element type of the format"},
        {"{\"a\":{\"dtype\":32,\"shape\":[0],\"data_offsets\":[0,0]}}", 0,
         JSON_ERROR "tensor 'a': dtype: found 32, expected an element type of the format"},
        {ONE("U8", "0", "[0,0]"), 0, JSON_ERROR "tensor 'a': shape: found 0, expected an array"},
        {ONE("U8", "[\"1\"]", "[0,1]"), 1,
         JSON_ERROR "tensor 'a': shape: found '1', expected an integer from 0 to 9223372036854775807"},
        {ONE("U8", "[[1]]", "[0,1]"), 1,
         JSON_ERROR "tensor 'a': shape: found an array, expected an integer from 0 to 9223372036854775807"},
        {ONE("U8", "[-1]", "[0,1]"), 1,
         JSON_ERROR "tensor 'a': shape: found -1, expected an integer from 0 to 9223372036854775807"},
        {ONE("U8", "[-0]", "[0,0]"), 0,
         JSON_ERROR "tensor 'a': shape: found the number -0, expected an integer from 0 to 9223372036854775807"},
        {ONE("U8", "[1.0]", "[0,1]"), 1,
         JSON_ERROR "tensor 'a': shape: found the number 1, expected an integer from 0 to 9223372036854775807"},
        {ONE("U8", "[1e0]", "[0,1]"), 1,
         JSON_ERROR "tensor 'a': shape: found the number 1, expected an integer from 0 to 9223372036854775807"},
        {ONE("U8", "[true]", "[0,1]"), 1,
         JSON_ERROR "tensor 'a': shape: found a bool, expected an integer from 0 to 9223372036854775807"},
        {ONE("U8", "[9223372036854775808,0]", "[0,0]"), 0,
         JSON_ERROR "tensor 'a': shape: found the number 9.2233720368547758e+18, expected an integer from 0 to "
                    "9223372036854775807"},
        {ONE("U8", "[18446744073709551616,0]", "[0,0]"), 0,
         JSON_ERROR "tensor 'a': shape: found the number 1.8446744073709552e+19, expected an integer from 0 to "
                    "9223372036854775807"},
        {ONE("U8", "[1]", "null"), 1, JSON_ERROR "tensor 'a': data_offsets: found null, expected an array"},
        {ONE("U8", "[1]", "{}"), 1, JSON_ERROR "tensor 'a': data_offsets: found an object, expected an array"},
        {ONE("U8", "[1]", "[]"), 1, JSON_ERROR "tensor 'a': data_offsets: found 0 elements, expected 2"},
        {ONE("U8", "[1]", "[1]"), 1, JSON_ERROR "tensor 'a': data_offsets: found 1 elements, expected 2"},
        {ONE("U8", "[1]", "[0,1,1]"), 1, JSON_ERROR "tensor 'a': data_offsets: found 3 elements, expected 2"},
        {ONE("U8", "[1]", "[0,1.0]"), 1,
         JSON_ERROR "tensor 'a': data_offsets: found the number 1, expected an integer from 0 to 9223372036854775807"},
        {ONE("U8", "[1]", "[-1,0]"), 1,
         JSON_ERROR "tensor 'a': data_offsets: found -1, expected an integer from 0 to 9223372036854775807"},
        {ONE("U8", "[1]", "[0,null]"), 1,
         JSON_ERROR "tensor 'a': data_offsets: found null, expected an integer from 0 to 9223372036854775807"},
        /* offsets */
        {ONE("U8", "[1]", "[1,2]"), 2,
         "t: InvalidOffset: tensor 'a': found data_offsets [1, 2], expected a begin of 0 and an end that is not less"},
        {ONE("U8", "[1]", "[0,-0]"), 1,
         JSON_ERROR "tensor 'a': data_offsets: found the number -0, expected an integer from 0 to 9223372036854775807"},
        {"{" ENTRY("a", "U8", "[1]", "[0,1]") "," ENTRY("b", "U8", "[1]", "[2,3]") "}", 3,
         "t: InvalidOffset: tensor 'b': found data_offsets [2, 3], expected a begin of 1 and an end that is not less"},
        {"{" ENTRY("a", "U8", "[2]", "[0,2]") "," ENTRY("b", "U8", "[2]", "[1,3]") "}", 3,
         "t: InvalidOffset: tensor 'b': found data_offsets [1, 3], expected a begin of 2 and an end that is not less"},
        {"{" ENTRY("a", "U8", "[2]", "[0,2]") "," ENTRY("b", "U8", "[2]", "[0,2]") "}", 2,
         "t: InvalidOffset: tensor 'b': found data_offsets [0, 2], expected a begin of 2 and an end that is not less"},
        {"{" ENTRY("a", "U8", "[2]", "[0,2]") "," ENTRY("b", "U8", "[0]", "[2,1]") "}", 2,
         "t: InvalidOffset: tensor 'b': found data_offsets [2, 1], expected a begin of 2 and an end that is not less"},
        {ONE("U8", "[1]", "[9223372036854775807,0]"), 1,
         "t: InvalidOffset: tensor 'a': found data_offsets [9223372036854775807, 0], expected a begin of 0 and an end "
         "that is "
         "not less"},
        /* overflow */
        {ONE("U8", "[4611686018427387904,4]", "[0,0]"), 0,
         "t: ValidationOverflow: tensor 'a': found U8 [4611686018427387904, 4], expected fewer than 2^64 bits"},
        {ONE("F32", "[4611686018427387904,4,0]", "[0,0]"), 0,
         "t: ValidationOverflow: tensor 'a': found F32 [4611686018427387904, 4, 0], expected fewer than 2^64 bits"},
        {ONE("F32", "[576460752303423488]", "[0,2305843009213693952]"), 0,
         "t: ValidationOverflow: tensor 'a': found F32 [576460752303423488], expected fewer than 2^64 bits"},
        {ONE("U8", "[9223372036854775807,9223372036854775807,9223372036854775807,9223372036854775807,2,3]", "[0,0]"), 0,
         "t: ValidationOverflow: tensor 'a': found U8 [9223372036854775807, 9223372036854775807, 9223372036854775807, "
         "...], "
         "expected fewer than 2^64 bits"},
        /* parts of bytes */
        {ONE("F4", "[3]", "[0,1]"), 1, "t: MisalignedSlice: tensor 'a': found F4 [3] of 12 bits, expected whole bytes"},
        {ONE("F6_E2M3", "[2,1]", "[0,2]"), 2,
         "t: MisalignedSlice: tensor 'a': found F6_E2M3 [2, 1] of 12 bits, expected whole bytes"},
        /* sizes */
        {ONE("F32", "[3]", "[0,8]"), 8, "t: TensorInvalidInfo: tensor 'a': found 8 bytes, expected 12 for F32 [3]"},
        {ONE("F32", "[]", "[0,0]"), 0, "t: TensorInvalidInfo: tensor 'a': found 0 bytes, expected 4 for F32 []"},
        {ONE("F64", "[0]", "[0,8]"), 8, "t: TensorInvalidInfo: tensor 'a': found 8 bytes, expected 0 for F64 [0]"},
        {ONE("U8", "[1]", "[0,9223372036854775807]"), 1,
         "t: TensorInvalidInfo: tensor 'a': found 9223372036854775807 bytes, expected 1 for U8 [1]"},
        {ONE("U8", "[2]", "[0,2]"), 1,
         "t: MetadataIncompleteBuffer: found 1 bytes of data, expected 2 for all tensors"},
        {ONE("U8", "[2]", "[0,2]"), 3,
         "t: MetadataIncompleteBuffer: found 3 bytes of data, expected 2 for all tensors"},
        {ONE("U8", "[9223372036854775807]", "[0,9223372036854775807]"), 1,
         "t: ValidationOverflow: tensor 'a': found U8 [9223372036854775807], expected fewer than 2^64 bits"},
        {ONE("U8", "[1152921504606846976]", "[0,1152921504606846976]"), 1,
         "t: MetadataIncompleteBuffer: found 1 bytes of data, expected 1152921504606846976 for all tensors"},
        {"{}", 1, "t: MetadataIncompleteBuffer: found 1 bytes of data, expected 0 for all tensors"},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        ftr_safetensors *file = (ftr_safetensors *)f; /* must be cleared */
        const ftr_status status = parse(f, cases[i].header, cases[i].data_bytes, &file);
        assert_null(file);
        if (status != FTR_ERROR_FORMAT) print_message("case %zu: %s\n", i, cases[i].header);
        assert_int_equal(status, FTR_ERROR_FORMAT);
        assert_string_equal(ftr_error_message(f->context), cases[i].message);
    }
    print_message("%zu malformed headers\n", FTR_TEST_LENGTH(cases));
}

/* Malformed where a C string cannot say how: the length in front, NUL padding, nesting, truncation. */
static void malformed_bytes(void **state) {
    fixture *f = *state;
    char nested[300];
    snprintf(nested, sizeof nested, "{\"a\":");
    memset(nested + 5, '[', 140);
    memset(nested + 145, ']', 140);
    nested[285] = '}';
    nested[286] = '\0';
    const struct {
        const char *bytes;
        size_t size;
        const char *message;
    } cases[] = {
        {"", 0, "t: HeaderTooSmall: found 0 bytes, expected at least 8"},
        {"\2\0\0\0\0\0\0", 7, "t: HeaderTooSmall: found 7 bytes, expected at least 8"},
        {"\1\xE1\xF5\5\0\0\0\0{}", 10,
         "t: HeaderTooLarge: found a header of 100000001 bytes, expected at most 100000000"},
        {"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}", 10,
         "t: HeaderTooLarge: found a header of 18446744073709551615 bytes, expected at most 100000000"},
        {"\0\xE1\xF5\5\0\0\0\0{}", 10,
         "t: InvalidHeaderLength: found a header of 100000000 bytes, expected at most the "
         "remaining 2"},
        {"\3\0\0\0\0\0\0\0{}", 10,
         "t: InvalidHeaderLength: found a header of 3 bytes, expected at most the remaining 2"},
        {"\1\0\0\0\0\0\0\0", 8, "t: InvalidHeaderLength: found a header of 1 bytes, expected at most the remaining 0"},
        {"\0\0\0\0\0\0\0\0", 8, JSON_ERROR "byte 0: found the end, expected a value"},
        {"\1\0\0\0\0\0\0\0{}", 10, JSON_ERROR "byte 1: found the end, expected a string"},
        {"\4\0\0\0\0\0\0\0{}\0\0", 12, JSON_ERROR "byte 2: found byte 0x00, expected the end"},
        {"\2\0\0\0\0\0\0\0{}\0\0", 12,
         "t: MetadataIncompleteBuffer: found 2 bytes of data, expected 0 for all tensors"},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        unsigned char *copy = malloc(cases[i].size ? cases[i].size : 1);
        memcpy(copy, cases[i].bytes, cases[i].size);
        ftr_safetensors *file = NULL;
        assert_int_equal(ftr_safetensors_parse(f->context, "t", copy, cases[i].size, &file), FTR_ERROR_FORMAT);
        assert_null(file);
        assert_string_equal(ftr_error_message(f->context), cases[i].message);
        free(copy);
    }
    ftr_safetensors *file = NULL;
    assert_int_equal(parse(f, nested, 0, &file), FTR_ERROR_FORMAT);
    assert_string_equal(ftr_error_message(f->context), JSON_ERROR "byte 131: found nesting deeper than 127");
    print_message("%zu malformed files\n", FTR_TEST_LENGTH(cases) + 1);
}

/* Names and labels longer than a message: it is cut, nothing more. */
static void long_names(void **state) {
    fixture *f = *state;
    char header[3000], label[3000];
    memset(header, 'n', sizeof header);
    memset(label, 'l', sizeof label);
    label[sizeof label - 1] = '\0';
    memcpy(header, "{\"", 2);
    strcpy(header + 2000, "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,2]}}");
    size_t size = 0;
    unsigned char *bytes = make_file(header, strlen(header), 2, &size);
    ftr_safetensors *file = NULL;
    assert_int_equal(ftr_safetensors_parse(f->context, label, bytes, size, &file), FTR_ERROR_FORMAT);
    assert_int_equal(ftr_safetensors_parse(f->context, "t", bytes, size, &file), FTR_ERROR_FORMAT);
    assert_non_null(strstr(ftr_error_message(f->context), "nnn': found 2 bytes, expected 1 for U8 [1]"));
    free(bytes);
}

static void wrong_arguments(void **state) {
    fixture *f = *state;
    ftr_safetensors *file = NULL;
    assert_int_equal(ftr_safetensors_open(NULL, "x", &file), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_safetensors_open(f->context, NULL, &file), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_safetensors_open(f->context, "x", NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(f->context), "ftr_safetensors_open: context, path or file is NULL");
    assert_int_equal(ftr_safetensors_parse(f->context, NULL, "", 0, &file), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_safetensors_parse(f->context, "t", NULL, 1, &file), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(f->context), "ftr_safetensors_parse: context, label, data or file is NULL");
    assert_int_equal(ftr_safetensors_parse(f->context, "t", NULL, 0, &file), FTR_ERROR_FORMAT);
}

static void files_that_cannot_be_read(void **state) {
    fixture *f = *state;
    char message[256];
    ftr_safetensors *file = NULL;
    assert_int_equal(ftr_safetensors_open(f->context, f->path, &file), FTR_ERROR_IO);
    snprintf(message, sizeof message, "%s: cannot be opened: No such file or directory", f->path);
    assert_string_equal(ftr_error_message(f->context), message);

    assert_int_equal(ftr_safetensors_open(f->context, f->directory, &file), FTR_ERROR_IO);
    snprintf(message, sizeof message, "%s: found a directory or device, expected a regular file", f->directory);
    assert_string_equal(ftr_error_message(f->context), message);

    assert_int_equal(mkfifo(f->path, 0600), 0);
    assert_int_equal(ftr_safetensors_open(f->context, f->path, &file), FTR_ERROR_IO);
    snprintf(message, sizeof message, "%s: found a directory or device, expected a regular file", f->path);
    assert_string_equal(ftr_error_message(f->context), message);
    unlink(f->path);

    write_bytes(f->path, "", 0);
    assert_int_equal(ftr_safetensors_open(f->context, f->path, &file), FTR_ERROR_FORMAT);
    snprintf(message, sizeof message, "%s: HeaderTooSmall: found 0 bytes, expected at least 8", f->path);
    assert_string_equal(ftr_error_message(f->context), message);
    assert_null(file);
}

/* Flipped bits, other bytes, cuts and insertions of valid files: valid or refused, and what is valid can be read. */
static void mutations(void **state) {
    fixture *f = *state;
    FTR_TEST_OK(f->context, ftr_safetensors_write(f->context, f->path, items, FTR_TEST_LENGTH(items), NULL, 0));
    size_t sizes[2];
    unsigned char *sources[2] = {read_bytes(f->path, &sizes[0]),
                                 read_bytes(FTR_TEST_DATA "/io/data/reference.safetensors", &sizes[1])};
    ftr_test_rng rng = {11};
    int64_t valid = 0;
    volatile unsigned sum = 0;
    for (int i = 0; i < 20000; i++) {
        const unsigned char *source = sources[i % 2];
        size_t size = sizes[i % 2];
        const int kind = i / 2 % 5;
        if (kind == 3) size = (size_t)ftr_test_integer(&rng, 0, (int64_t)size);
        unsigned char *changed = malloc(size + 1);
        memcpy(changed, source, size);
        for (int64_t n = ftr_test_integer(&rng, 1, 3); n > 0 && kind != 3; n--) {
            unsigned char *at = changed + ftr_test_integer(&rng, 0, (int64_t)size - 1);
            if (kind == 0) *at ^= (unsigned char)(1 << ftr_test_integer(&rng, 0, 7));
            if (kind == 1) *at = (unsigned char)ftr_test_random(&rng);
            if (kind == 2) *at = source[ftr_test_integer(&rng, 8, (int64_t)size - 1)]; /* the format's own characters */
        }
        if (kind == 4) {
            const size_t at = (size_t)ftr_test_integer(&rng, 0, (int64_t)size);
            memmove(changed + at + 1, changed + at, size - at);
            changed[at] = (unsigned char)ftr_test_random(&rng);
            size++;
        }
        unsigned char *exact = malloc(size ? size : 1); /* so that a sanitizer sees a read past the end */
        memcpy(exact, changed, size);
        ftr_safetensors *file = NULL;
        const ftr_status status = ftr_safetensors_parse(f->context, "t", exact, size, &file);
        assert_true(status == FTR_OK ? file != NULL : status == FTR_ERROR_FORMAT && file == NULL);
        ftr_safetensors_entry entry;
        for (int64_t n = 0; ftr_safetensors_at(file, n, &entry); n++) {
            assert_true(ftr_safetensors_find(file, entry.name, &entry));
            for (size_t b = 0; b < entry.bytes; b++) sum += ((const unsigned char *)entry.data)[b];
        }
        valid += status == FTR_OK;
        ftr_safetensors_close(file);
        free(exact);
        free(changed);
    }
    (void)sum;
    assert_true(valid > 100 && valid < 19000);
    free(sources[0]);
    free(sources[1]);
}

/* ------------------------------------------------------------------------------------------------------- writing -- */

static void writing_refused(void **state) {
    fixture *f = *state;
    const ftr_safetensors_item twice[] = {
        {"a", FTR_U8, {0, {0}}, u8_values}, {"b", FTR_U8, {0, {0}}, u8_values}, {"a", FTR_F32, {0, {0}}, f32_values}};
    const ftr_safetensors_item reserved[] = {{"__metadata__", FTR_U8, {0, {0}}, u8_values}};
    const ftr_safetensors_item unnamed[] = {{NULL, FTR_U8, {0, {0}}, u8_values}};
    const ftr_safetensors_item no_text[] = {{"a", FTR_U8, {0, {0}}, u8_values}, {"b\xFF", FTR_U8, {0, {0}}, u8_values}};
    const ftr_safetensors_item no_type[] = {{"a", FTR_DTYPE_NONE, {0, {0}}, u8_values}};
    const ftr_safetensors_item other_type[] = {{"a", (ftr_dtype)99, {0, {0}}, u8_values}};
    const ftr_safetensors_item negative[] = {{"a", FTR_U8, {1, {-1}}, u8_values}};
    const ftr_safetensors_item rank[] = {{"a", FTR_U8, {FTR_MAX_RANK + 1, {1}}, u8_values}};
    const ftr_safetensors_item huge[] = {{"a", FTR_F32, {1, {INT64_MAX / 2}}, f32_values}};
    const ftr_safetensors_item no_data[] = {{"a", FTR_U8, {1, {1}}, NULL}};
    const char *const same_keys[] = {"a", "1", "b", "2", "a", "3"};
    const char *const null_value[] = {"a", NULL};
    const char *const bad_value[] = {"a", "\xC0"};
    const struct {
        const ftr_safetensors_item *items;
        int64_t count;
        const char *const *metadata;
        int64_t pairs;
        ftr_status status;
        const char *message;
    } cases[] = {
        {twice, 3, NULL, 0, FTR_ERROR_NAME, "tensor 'a': found twice, expected once"},
        {reserved, 1, NULL, 0, FTR_ERROR_NAME, "tensor '__metadata__': found the format's own name, expected another"},
        {unnamed, 1, NULL, 0, FTR_ERROR_NAME, "item 0: name is NULL"},
        {no_text, 2, NULL, 0, FTR_ERROR_NAME, "item 1: found a name that is not UTF-8"},
        {no_type, 1, NULL, 0, FTR_ERROR_INVALID_ARGUMENT, "tensor 'a': dtype is 0, expected an element type"},
        {other_type, 1, NULL, 0, FTR_ERROR_INVALID_ARGUMENT, "tensor 'a': dtype is 99, expected an element type"},
        {negative, 1, NULL, 0, FTR_ERROR_INVALID_ARGUMENT, "tensor 'a': shape is out of range"},
        {rank, 1, NULL, 0, FTR_ERROR_INVALID_ARGUMENT, "tensor 'a': shape is out of range"},
        {huge, 1, NULL, 0, FTR_ERROR_INVALID_ARGUMENT, "tensor 'a': shape is out of range"},
        {no_data, 1, NULL, 0, FTR_ERROR_INVALID_ARGUMENT, "tensor 'a': data is NULL"},
        {NULL, 1, NULL, 0, FTR_ERROR_INVALID_ARGUMENT, "items or metadata do not fit their counts"},
        {NULL, -1, NULL, 0, FTR_ERROR_INVALID_ARGUMENT, "items or metadata do not fit their counts"},
        {NULL, 0, NULL, 1, FTR_ERROR_INVALID_ARGUMENT, "items or metadata do not fit their counts"},
        {NULL, 0, same_keys, -1, FTR_ERROR_INVALID_ARGUMENT, "items or metadata do not fit their counts"},
        {NULL, 0, same_keys, 3, FTR_ERROR_NAME, "metadata 'a': found twice, expected once"},
        {NULL, 0, null_value, 1, FTR_ERROR_NAME, "metadata pair 0: found NULL or no UTF-8"},
        {NULL, 0, bad_value, 1, FTR_ERROR_NAME, "metadata pair 0: found NULL or no UTF-8"},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        char message[256];
        assert_int_equal(ftr_safetensors_write(f->context, f->path, cases[i].items, cases[i].count, cases[i].metadata,
                                               cases[i].pairs),
                         cases[i].status);
        snprintf(message, sizeof message, "%s: %s", f->path, cases[i].message);
        assert_string_equal(ftr_error_message(f->context), message);
        assert_int_equal(count_files(f), 0);
    }
    assert_int_equal(ftr_safetensors_write(NULL, f->path, NULL, 0, NULL, 0), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_safetensors_write(f->context, NULL, NULL, 0, NULL, 0), FTR_ERROR_INVALID_ARGUMENT);
}

/* More bytes than a file can have. Nothing reads the data before that is found. */
static void writing_too_much(void **state) {
    fixture *f = *state;
    enum { COUNT = 8193 };
    ftr_safetensors_item *many = calloc(COUNT, sizeof *many);
    char(*names)[8] = calloc(COUNT, sizeof *names);
    for (int i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "%d", i);
        many[i] = (ftr_safetensors_item){names[i], FTR_F64, {1, {INT64_C(1) << 47}}, f64_values};
    }
    assert_int_equal(ftr_safetensors_write(f->context, f->path, many, COUNT, NULL, 0), FTR_ERROR_INVALID_ARGUMENT);
    char message[256];
    snprintf(message, sizeof message, "%s: tensor '8191': the file is out of range", f->path);
    assert_string_equal(ftr_error_message(f->context), message);
    assert_int_equal(count_files(f), 0);
    free(names);
    free(many);
}

static void paths_that_cannot_be_written(void **state) {
    fixture *f = *state;
    char path[128], message[256];
    snprintf(path, sizeof path, "%s/missing/file", f->directory);
    assert_int_equal(ftr_safetensors_write(f->context, path, NULL, 0, NULL, 0), FTR_ERROR_IO);
    snprintf(message, sizeof message, "%s: cannot be written: No such file or directory", path);
    assert_string_equal(ftr_error_message(f->context), message);

    assert_int_equal(mkdir(f->path, 0700), 0);
    assert_int_equal(ftr_safetensors_write(f->context, f->path, NULL, 0, NULL, 0), FTR_ERROR_IO);
    snprintf(message, sizeof message, "%s: cannot be replaced: Is a directory", f->path);
    assert_string_equal(ftr_error_message(f->context), message);
    assert_int_equal(count_files(f), 1); /* the temporary file is gone */
    assert_int_equal(rmdir(f->path), 0);
    assert_int_equal(ftr_safetensors_write(f->context, "", NULL, 0, NULL, 0), FTR_ERROR_IO);
}

/* A write that fails half way leaves the old file and no temporary one. The limit of a file's size stands for a full disk. */
static void failed_write_keeps_the_old_file(void **state) {
    fixture *f = *state;
    FTR_TEST_OK(f->context, ftr_safetensors_write(f->context, f->path, items, FTR_TEST_LENGTH(items), NULL, 0));
    size_t size = 0, after = 0;
    unsigned char *old = read_bytes(f->path, &size);
    const size_t large_size = 1 << 20;
    unsigned char *large_data = calloc(1, large_size);
    const ftr_safetensors_item large = {"large", FTR_U8, {1, {(int64_t)large_size}}, large_data};
    struct rlimit limit, low;
    getrlimit(RLIMIT_FSIZE, &limit);
    low = limit;
    low.rlim_cur = 65536;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &low);
    const ftr_status status = ftr_safetensors_write(f->context, f->path, &large, 1, NULL, 0);
    setrlimit(RLIMIT_FSIZE, &limit);
    signal(SIGXFSZ, handler);
    assert_int_equal(status, FTR_ERROR_IO);
    char message[256];
    snprintf(message, sizeof message, "%s: cannot be written: File too large", f->path);
    assert_string_equal(ftr_error_message(f->context), message);
    assert_int_equal(count_files(f), 1);
    unsigned char *now = read_bytes(f->path, &after);
    assert_int_equal(after, size);
    assert_memory_equal(now, old, size);
    FTR_TEST_OK(f->context, ftr_safetensors_write(f->context, f->path, &large, 1, NULL, 0));
    assert_int_equal(count_files(f), 1);
    free(now);
    free(old);
    free(large_data);
}

/* Another writer's temporary file, or one that a crash left behind, is not touched. */
static void left_over_temporary_file(void **state) {
    fixture *f = *state;
    char temporary[160];
    snprintf(temporary, sizeof temporary, "%s.%ld.0.tmp", f->path, (long)getpid());
    write_bytes(temporary, "other", 5);
    FTR_TEST_OK(f->context, ftr_safetensors_write(f->context, f->path, items, 1, NULL, 0));
    assert_int_equal(count_files(f), 2);
    size_t size = 0;
    unsigned char *bytes = read_bytes(temporary, &size);
    assert_int_equal(size, 5);
    free(bytes);
    unlink(temporary);
}

/* A relative path without a folder. */
static void file_in_the_working_directory(void **state) {
    fixture *f = *state;
    char before[1024];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(f->directory), 0);
    const ftr_status status = ftr_safetensors_write(f->context, "file.safetensors", items, 1, NULL, 0);
    assert_int_equal(chdir(before), 0);
    assert_int_equal(status, FTR_OK);
    assert_int_equal(count_files(f), 1);
}

/* ------------------------------------------------------------------------------------------------- out of memory -- */

static void out_of_memory(void **state) {
    fixture *f = *state;
    const char *const metadata[] = {"format", "pt"};
    const int64_t blocks = f->memory.blocks;
    ftr_status status = FTR_ERROR_OUT_OF_MEMORY;
    int64_t failures = 0;
    for (int64_t n = 1; status != FTR_OK; n++, failures++) {
        f->memory.fail_at = f->memory.calls + n;
        status = ftr_safetensors_write(f->context, f->path, items, FTR_TEST_LENGTH(items), metadata, 1);
        assert_true(status == FTR_OK || status == FTR_ERROR_OUT_OF_MEMORY);
        assert_int_equal(f->memory.blocks, blocks);
        assert_int_equal(count_files(f), status == FTR_OK);
    }
    assert_true(failures >= 3);
    status = FTR_ERROR_OUT_OF_MEMORY;
    failures = 0;
    for (int64_t n = 1; status != FTR_OK; n++, failures++) {
        f->memory.fail_at = f->memory.calls + n;
        ftr_safetensors *file = NULL;
        status = ftr_safetensors_open(f->context, f->path, &file);
        assert_true(status == FTR_OK ? file != NULL : status == FTR_ERROR_OUT_OF_MEMORY && !file);
        if (status != FTR_OK) assert_non_null(strstr(ftr_error_message(f->context), f->path));
        ftr_safetensors_close(file);
        assert_int_equal(f->memory.blocks, blocks);
    }
    assert_true(failures >= 3);
    f->memory.fail_at = 0;
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(round_trip),
        TEST(no_file),
        TEST(bytes_written),
        TEST(element_types),
        TEST(reference_files),
        TEST(accepted),
        TEST(malformed_headers),
        TEST(malformed_bytes),
        TEST(long_names),
        TEST(wrong_arguments),
        TEST(files_that_cannot_be_read),
        TEST(mutations),
        TEST(writing_refused),
        TEST(writing_too_much),
        TEST(paths_that_cannot_be_written),
        TEST(failed_write_keeps_the_old_file),
        TEST(left_over_temporary_file),
        TEST(file_in_the_working_directory),
        TEST(out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
