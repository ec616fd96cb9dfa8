/* A libFuzzer target: any bytes are JSON or are refused; what was parsed is found again, and written and parsed once
 * more gives the same. */
#include "core/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(ftr__json_writer *writer, const ftr__json *value);

static void put_list(ftr__json_writer *writer, const ftr__json *list) {
    const bool object = list->type == FTR__JSON_OBJECT;
    int64_t count = 0;
    ftr__json_put(writer, object ? "{" : "[");
    for (const ftr__json *element = list->as.list.first; element; element = element->next, count++) {
        if (count > 0) ftr__json_put(writer, ",");
        if (object) {
            const bool plain = strlen(element->key) == element->key_length;
            if (plain && ftr__json_find(list, element->key) != element) abort();
            ftr__json_put_string(writer, element->key);
            ftr__json_put(writer, ":");
        }
        put(writer, element);
    }
    if (count != list->as.list.count) abort();
    ftr__json_put(writer, object ? "}" : "]");
}

static void put(ftr__json_writer *writer, const ftr__json *value) {
    double real;
    switch (value->type) {
    case FTR__JSON_NULL: ftr__json_put(writer, "null"); break;
    case FTR__JSON_BOOL: ftr__json_put(writer, value->as.boolean ? "true" : "false"); break;
    case FTR__JSON_NUMBER:
        if (!ftr__json_get_real(value, &real) || real != value->as.number.value) abort();
        if (value->as.number.is_integer)
            ftr__json_put_integer(writer, value->as.number.integer);
        else
            ftr__json_put_real(writer, real);
        break;
    case FTR__JSON_STRING:
        (void)ftr__json_get_real(value, &real);
        ftr__json_put_string(writer, value->as.string.text);
        break;
    case FTR__JSON_ARRAY:
    case FTR__JSON_OBJECT: put_list(writer, value); break;
    }
}

/* Texts with U+0000 are cut where they are written: two keys may then be one. */
static bool has_zero(const ftr__json *value) {
    if (value->key && strlen(value->key) != value->key_length) return true;
    if (value->type == FTR__JSON_STRING) return strlen(value->as.string.text) != value->as.string.length;
    if (value->type != FTR__JSON_ARRAY && value->type != FTR__JSON_OBJECT) return false;
    for (const ftr__json *element = value->as.list.first; element; element = element->next)
        if (has_zero(element)) return true;
    return false;
}

static char *written(const ftr__json *root, size_t *length) {
    ftr__json_writer writer = {.text = NULL};
    put(&writer, root);
    char *text = malloc(writer.length + 1);
    if (!text) abort();
    *length = writer.length;
    writer = (ftr__json_writer){.text = text};
    put(&writer, root);
    if (writer.length != *length) abort();
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static ftr_context *context;
    if (!context) {
        const ftr_context_desc desc = {.threads = 1, .log_level = FTR_LOG_SILENT};
        if (ftr_context_create(&desc, &context) != FTR_OK) abort();
    }
    ftr__arena arena;
    ftr__arena_init(&arena, context);
    const ftr__json *root, *again;
    ftr__json_error error;
    const ftr_status status = ftr__json_parse(&arena, (const char *)data, size, &root, &error);
    if (status != FTR_OK && (status != FTR_ERROR_FORMAT || root)) abort();
    if (status == FTR_OK) {
        size_t length, again_length;
        char *text = written(root, &length);
        if (!has_zero(root)) {
            if (ftr__json_parse(&arena, text, length, &again, &error) != FTR_OK) abort();
            char *same = written(again, &again_length);
            if (again_length != length || memcmp(same, text, length) != 0) abort();
            free(same);
        }
        free(text);
    }
    ftr__arena_free(&arena);
    return 0;
}
