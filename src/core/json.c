#include "core/json.h"

#include "core/sort.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct ftr__json_parser {
    ftr__arena *arena;
    const char *text;
    size_t length;
    size_t at;
    int32_t depth;
    ftr__json_error *error;
} ftr__json_parser;

static ftr_status ftr__json_value(ftr__json_parser *parser, ftr__json *value);

/* --------------------------------------------------------------------------------------------------------- UTF-8 -- */

/* Bytes of the character at `text`, 0 if it is none. Ranges of the second byte: RFC 3629, section 4. */
static size_t ftr__utf8_character(const unsigned char *text, size_t length) {
    unsigned char lead = text[0];
    if (lead < 0x80) return 1;
    size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (lead < 0xC2 || lead > 0xF4 || size > length) return 0;
    unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (text[1] < low || text[1] > high) return 0;
    for (size_t i = 2; i < size; i++) {
        if ((text[i] & 0xC0) != 0x80) return 0;
    }
    return size;
}

int64_t ftr__utf8_invalid_at(const char *text, size_t length) {
    const unsigned char *bytes = (const unsigned char *)text;
    size_t at = 0;
    while (at < length) {
        size_t size = ftr__utf8_character(bytes + at, length - at);
        if (size == 0) return (int64_t)at;
        at += size;
    }
    return -1;
}

/* Writes a code point as UTF-8; returns where the text goes on. */
static char *ftr__utf8_put(char *to, uint32_t point) {
    if (point < 0x80) {
        *to++ = (char)point;
        return to;
    }
    if (point < 0x800) {
        *to++ = (char)(0xC0 | (point >> 6));
    } else {
        if (point < 0x10000) {
            *to++ = (char)(0xE0 | (point >> 12));
        } else {
            *to++ = (char)(0xF0 | (point >> 18));
            *to++ = (char)(0x80 | ((point >> 12) & 0x3F));
        }
        *to++ = (char)(0x80 | ((point >> 6) & 0x3F));
    }
    *to++ = (char)(0x80 | (point & 0x3F));
    return to;
}

/* -------------------------------------------------------------------------------------------------------- errors -- */

static ftr_status ftr__json_error_at(ftr__json_parser *parser, const char *format, ...) FTR__PRINTF(2, 3);

static ftr_status ftr__json_error_at(ftr__json_parser *parser, const char *format, ...) {
    char *message = parser->error->message;
    size_t size = sizeof(parser->error->message);
    int used = snprintf(message, size, "byte %zu: ", parser->at);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message + used, size - (size_t)used, format, arguments);
    va_end(arguments);
    return FTR_ERROR_FORMAT;
}

/* Says what stands at the parser's place instead of `expected`. */
static ftr_status ftr__json_unexpected(ftr__json_parser *parser, const char *expected) {
    if (parser->at >= parser->length) return ftr__json_error_at(parser, "found the end, expected %s", expected);
    unsigned char found = (unsigned char)parser->text[parser->at];
    if (found < 0x20 || found > 0x7E)
        return ftr__json_error_at(parser, "found byte 0x%02X, expected %s", found, expected);
    return ftr__json_error_at(parser, "found '%c', expected %s", found, expected);
}

/* -------------------------------------------------------------------------------------------------------- tokens -- */

/* The byte at the parser's place; NUL, which no token starts with, at the end. */
static char ftr__json_peek(const ftr__json_parser *parser) {
    return parser->at < parser->length ? parser->text[parser->at] : '\0';
}

static void ftr__json_skip_space(ftr__json_parser *parser) {
    for (;;) {
        char c = ftr__json_peek(parser);
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return;
        parser->at++;
    }
}

/* Passes over digits; returns how many there are. */
static size_t ftr__json_skip_digits(ftr__json_parser *parser) {
    size_t start = parser->at;
    while (ftr__json_peek(parser) >= '0' && ftr__json_peek(parser) <= '9') parser->at++;
    return parser->at - start;
}

static ftr_status ftr__json_literal(ftr__json_parser *parser, const char *word) {
    for (; *word != '\0'; word++, parser->at++) {
        if (ftr__json_peek(parser) != *word) return ftr__json_unexpected(parser, "null, true or false");
    }
    return FTR_OK;
}

/* The value of digits if it is an exact int64_t. */
static bool ftr__json_integer(const char *digits, size_t count, bool negative, int64_t *integer) {
    uint64_t limit = negative ? (uint64_t)INT64_MAX + 1 : (uint64_t)INT64_MAX;
    uint64_t value = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t digit = (uint64_t)(digits[i] - '0');
        if (value > (limit - digit) / 10) return false;
        value = value * 10 + digit;
    }
    if (negative && value == 0) return false;
    *integer = negative ? -(int64_t)(value - 1) - 1 : (int64_t)value;
    return true;
}

/* The double next to a number: whole digits, fraction digits and an exponent. strtod() gets it without a decimal point,
 * because it takes the point of the locale: 1.25e3 becomes 125e1. */
static ftr_status ftr__json_real(ftr__json_parser *parser, size_t start, size_t whole, size_t fraction,
                                 int64_t exponent, double *value) {
    size_t size = whole + fraction + 32;
    char *text = ftr__arena_alloc(parser->arena, size);
    if (text == NULL) return FTR_ERROR_OUT_OF_MEMORY;
    memcpy(text, parser->text + start, whole);
    if (fraction > 0) memcpy(text + whole, parser->text + start + whole + 1, fraction);
    snprintf(text + whole + fraction, size - whole - fraction, "e%" PRId64, exponent - (int64_t)fraction);
    *value = strtod(text, NULL);
    return FTR_OK;
}

/* After 'e' or 'E'. Far outside the range of a double the exact exponent does not matter. */
static ftr_status ftr__json_exponent(ftr__json_parser *parser, int64_t *exponent) {
    const int64_t limit = INT64_C(1000000000000);
    bool negative = ftr__json_peek(parser) == '-';
    if (negative || ftr__json_peek(parser) == '+') parser->at++;
    size_t start = parser->at;
    size_t count = ftr__json_skip_digits(parser);
    if (count == 0) return ftr__json_unexpected(parser, "a digit");
    int64_t value = 0;
    for (size_t i = 0; i < count && value < limit; i++) value = value * 10 + (parser->text[start + i] - '0');
    *exponent = negative ? -value : value;
    return FTR_OK;
}

static ftr_status ftr__json_number(ftr__json_parser *parser, ftr__json *value) {
    value->type = FTR__JSON_NUMBER;
    size_t number = parser->at;
    bool negative = ftr__json_peek(parser) == '-';
    if (negative) parser->at++;
    size_t start = parser->at, fraction = 0;
    size_t whole = ftr__json_skip_digits(parser);
    if (whole == 0) return ftr__json_unexpected(parser, "a digit");
    if (whole > 1 && parser->text[start] == '0') {
        parser->at = start;
        return ftr__json_error_at(parser, "found a number with a leading zero");
    }
    bool plain = true;
    int64_t exponent = 0;
    if (ftr__json_peek(parser) == '.') {
        plain = false;
        parser->at++;
        fraction = ftr__json_skip_digits(parser);
        if (fraction == 0) return ftr__json_unexpected(parser, "a digit");
    }
    if (ftr__json_peek(parser) == 'e' || ftr__json_peek(parser) == 'E') {
        plain = false;
        parser->at++;
        ftr_status status = ftr__json_exponent(parser, &exponent);
        if (status != FTR_OK) return status;
    }
    if (plain && ftr__json_integer(parser->text + start, whole, negative, &value->as.number.integer)) {
        value->as.number.is_integer = true;
        value->as.number.value = (double)value->as.number.integer;
        return FTR_OK;
    }
    double real = 0;
    ftr_status status = ftr__json_real(parser, start, whole, fraction, exponent, &real);
    if (status != FTR_OK) return status;
    if (!isfinite(real)) {
        parser->at = number;
        return ftr__json_error_at(parser, "found a number beyond the range of a double");
    }
    value->as.number.value = negative ? -real : real;
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------- strings -- */

/* Four hexadecimal digits of \uXXXX. */
static ftr_status ftr__json_hex(ftr__json_parser *parser, uint32_t *unit) {
    *unit = 0;
    for (int32_t i = 0; i < 4; i++, parser->at++) {
        char c = ftr__json_peek(parser);
        uint32_t digit = 0;
        if (c >= '0' && c <= '9') {
            digit = (uint32_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            digit = (uint32_t)(c - 'a') + 10;
        } else if (c >= 'A' && c <= 'F') {
            digit = (uint32_t)(c - 'A') + 10;
        } else {
            return ftr__json_unexpected(parser, "a hexadecimal digit");
        }
        *unit = *unit << 4 | digit;
    }
    return FTR_OK;
}

/* After \u: a code point, which may be two surrogates. */
static ftr_status ftr__json_code_point(ftr__json_parser *parser, uint32_t *point) {
    ftr_status status = ftr__json_hex(parser, point);
    if (status != FTR_OK) return status;
    if (*point < 0xD800 || *point > 0xDFFF) return FTR_OK;
    if (*point > 0xDBFF) return ftr__json_error_at(parser, "found a low surrogate without a high one");
    uint32_t low = 0;
    if (ftr__json_peek(parser) != '\\') return ftr__json_unexpected(parser, "the escape of a low surrogate");
    parser->at++;
    if (ftr__json_peek(parser) != 'u') return ftr__json_unexpected(parser, "the escape of a low surrogate");
    parser->at++;
    status = ftr__json_hex(parser, &low);
    if (status != FTR_OK) return status;
    if (low < 0xDC00 || low > 0xDFFF) return ftr__json_error_at(parser, "found a high surrogate without a low one");
    *point = 0x10000 + ((*point - 0xD800) << 10) + (low - 0xDC00);
    return FTR_OK;
}

/* After a backslash; writes what it stands for. */
static ftr_status ftr__json_escape(ftr__json_parser *parser, char **to) {
    static const char names[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    char c = ftr__json_peek(parser);
    if (c == 'u') {
        parser->at++;
        uint32_t point = 0;
        ftr_status status = ftr__json_code_point(parser, &point);
        if (status == FTR_OK) *to = ftr__utf8_put(*to, point);
        return status;
    }
    const char *name = c == '\0' ? NULL : strchr(names, c);
    if (name == NULL) return ftr__json_unexpected(parser, "an escape");
    *(*to)++ = meanings[name - names];
    parser->at++;
    return FTR_OK;
}

/* Distance to the quote that ends a string, or to the end of the text. No escape is shorter than what it stands for. */
static size_t ftr__json_raw_length(const ftr__json_parser *parser) {
    size_t at = parser->at;
    while (at < parser->length && parser->text[at] != '"') at += parser->text[at] == '\\' ? 2 : 1;
    return (at < parser->length ? at : parser->length) - parser->at;
}

static ftr_status ftr__json_string(ftr__json_parser *parser, const char **text, size_t *length) {
    if (ftr__json_peek(parser) != '"') return ftr__json_unexpected(parser, "a string");
    parser->at++;
    char *start = ftr__arena_alloc(parser->arena, ftr__json_raw_length(parser) + 1);
    if (start == NULL) return FTR_ERROR_OUT_OF_MEMORY;
    char *to = start;
    for (;;) {
        if (parser->at >= parser->length) return ftr__json_unexpected(parser, "'\"'");
        char c = parser->text[parser->at];
        if ((unsigned char)c < 0x20) return ftr__json_unexpected(parser, "an escape for a control character");
        parser->at++;
        if (c == '"') break;
        if (c == '\\') {
            ftr_status status = ftr__json_escape(parser, &to);
            if (status != FTR_OK) return status;
        } else {
            *to++ = c;
        }
    }
    *to = '\0';
    *text = start;
    *length = (size_t)(to - start);
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------- arrays and objects -- */

static int ftr__json_compare_keys(const char *a, size_t a_length, const char *b, size_t b_length) {
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    if (order != 0) return order;
    return a_length < b_length ? -1 : a_length > b_length;
}

static int ftr__json_compare_members(const void *a, const void *b) {
    const ftr__json *left = a;
    const ftr__json *right = b;
    return ftr__json_compare_keys(left->key, left->key_length, right->key, right->key_length);
}

/* Fills an object's by_key and looks for keys that come twice. */
static ftr_status ftr__json_index(ftr__json_parser *parser, ftr__json *object) {
    int64_t count = object->as.list.count;
    const void **by_key = ftr__arena_alloc(parser->arena, (size_t)count * sizeof(*by_key));
    if (by_key == NULL) return FTR_ERROR_OUT_OF_MEMORY;
    int64_t at = 0;
    for (const ftr__json *member = object->as.list.first; member != NULL; member = member->next) by_key[at++] = member;
    ftr__sort(by_key, count, ftr__json_compare_members);
    for (int64_t i = 1; i < count; i++) {
        if (ftr__json_compare_members(by_key[i - 1], by_key[i]) == 0) {
            const ftr__json *member = by_key[i];
            return ftr__json_error_at(parser, "found key '%.80s' twice in the object that ends here", member->key);
        }
    }
    object->as.list.by_key = by_key;
    return FTR_OK;
}

/* "key": of a member. */
static ftr_status ftr__json_key(ftr__json_parser *parser, ftr__json *member) {
    ftr_status status = ftr__json_string(parser, &member->key, &member->key_length);
    if (status != FTR_OK) return status;
    ftr__json_skip_space(parser);
    if (ftr__json_peek(parser) != ':') return ftr__json_unexpected(parser, "':'");
    parser->at++;
    ftr__json_skip_space(parser);
    return FTR_OK;
}

/* Elements or members up to and with the closing bracket; the opening one has been read. */
static ftr_status ftr__json_elements(ftr__json_parser *parser, ftr__json *list) {
    bool is_object = list->type == FTR__JSON_OBJECT;
    char close = is_object ? '}' : ']';
    const ftr__json **end = &list->as.list.first;
    ftr__json_skip_space(parser);
    if (ftr__json_peek(parser) == close) return FTR_OK;
    for (;;) {
        ftr__json *element = ftr__arena_alloc(parser->arena, sizeof(*element));
        if (element == NULL) return FTR_ERROR_OUT_OF_MEMORY;
        ftr_status status = is_object ? ftr__json_key(parser, element) : FTR_OK;
        if (status == FTR_OK) status = ftr__json_value(parser, element);
        if (status != FTR_OK) return status;
        *end = element;
        end = &element->next;
        list->as.list.count++;
        ftr__json_skip_space(parser);
        if (ftr__json_peek(parser) == close) return FTR_OK;
        if (ftr__json_peek(parser) != ',') return ftr__json_unexpected(parser, is_object ? "',' or '}'" : "',' or ']'");
        parser->at++;
        ftr__json_skip_space(parser);
    }
}

static ftr_status ftr__json_list(ftr__json_parser *parser, ftr__json *list) {
    list->type = ftr__json_peek(parser) == '{' ? FTR__JSON_OBJECT : FTR__JSON_ARRAY;
    if (parser->depth == FTR__JSON_MAX_DEPTH) {
        return ftr__json_error_at(parser, "found nesting deeper than %d", FTR__JSON_MAX_DEPTH);
    }
    parser->at++;
    parser->depth++;
    ftr_status status = ftr__json_elements(parser, list);
    if (status == FTR_OK && list->type == FTR__JSON_OBJECT) status = ftr__json_index(parser, list);
    parser->depth--;
    parser->at++;
    return status;
}

static ftr_status ftr__json_value(ftr__json_parser *parser, ftr__json *value) {
    char c = ftr__json_peek(parser);
    switch (c) {
    case '{':
    case '[': return ftr__json_list(parser, value);
    case '"':
        value->type = FTR__JSON_STRING;
        return ftr__json_string(parser, &value->as.string.text, &value->as.string.length);
    case 'n': value->type = FTR__JSON_NULL; return ftr__json_literal(parser, "null");
    case 't':
    case 'f':
        value->type = FTR__JSON_BOOL;
        value->as.boolean = c == 't';
        return ftr__json_literal(parser, value->as.boolean ? "true" : "false");
    default:
        if (c == '-' || (c >= '0' && c <= '9')) return ftr__json_number(parser, value);
        return ftr__json_unexpected(parser, "a value");
    }
}

ftr_status ftr__json_parse(ftr__arena *arena, const char *text, size_t length, const ftr__json **root,
                           ftr__json_error *error) {
    *root = NULL;
    ftr__json_parser parser = {.arena = arena, .text = text, .length = length, .error = error};
    int64_t invalid = ftr__utf8_invalid_at(text, length);
    if (invalid >= 0) {
        parser.at = (size_t)invalid;
        return ftr__json_unexpected(&parser, "UTF-8");
    }
    ftr__json *value = ftr__arena_alloc(arena, sizeof(*value));
    if (value == NULL) return FTR_ERROR_OUT_OF_MEMORY;
    ftr__json_skip_space(&parser);
    ftr_status status = ftr__json_value(&parser, value);
    if (status != FTR_OK) return status;
    ftr__json_skip_space(&parser);
    if (parser.at < length) return ftr__json_unexpected(&parser, "the end");
    *root = value;
    return FTR_OK;
}

const ftr__json *ftr__json_find(const ftr__json *object, const char *key) {
    size_t length = strlen(key);
    int64_t low = 0, high = object->as.list.count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        const ftr__json *member = object->as.list.by_key[middle];
        int order = ftr__json_compare_keys(member->key, member->key_length, key, length);
        if (order == 0) return member;
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

const char *ftr__json_type_text(const ftr__json *value) {
    static const char *const texts[] = {"null", "a bool", "a number", "a string", "an array", "an object"};
    return texts[value->type];
}

/* -------------------------------------------------------------------------------------------------------- output -- */

static void ftr__json_put_bytes(ftr__json_writer *writer, const char *bytes, size_t count) {
    if (writer->text != NULL) memcpy(writer->text + writer->length, bytes, count);
    writer->length += count;
}

void ftr__json_put(ftr__json_writer *writer, const char *text) { ftr__json_put_bytes(writer, text, strlen(text)); }

void ftr__json_put_string(ftr__json_writer *writer, const char *text) {
    ftr__json_put(writer, "\"");
    for (; *text != '\0'; text++) {
        char escape[8];
        switch (*text) {
        case '"': ftr__json_put(writer, "\\\""); break;
        case '\\': ftr__json_put(writer, "\\\\"); break;
        case '\b': ftr__json_put(writer, "\\b"); break;
        case '\f': ftr__json_put(writer, "\\f"); break;
        case '\n': ftr__json_put(writer, "\\n"); break;
        case '\r': ftr__json_put(writer, "\\r"); break;
        case '\t': ftr__json_put(writer, "\\t"); break;
        default:
            if ((unsigned char)*text >= 0x20) {
                ftr__json_put_bytes(writer, text, 1);
            } else {
                snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)*text);
                ftr__json_put(writer, escape);
            }
        }
    }
    ftr__json_put(writer, "\"");
}

void ftr__json_put_integer(ftr__json_writer *writer, int64_t value) {
    char text[24];
    snprintf(text, sizeof(text), "%" PRId64, value);
    ftr__json_put(writer, text);
}

static const struct ftr__json_special {
    const char *text;
    bool infinite, negative;
} ftr__json_specials[] = {
    {"NaN", false, false}, {"-NaN", false, true}, {"Infinity", true, false}, {"-Infinity", true, true}};

/* Of 15, 16 and 17 digits the fewest that are enough. printf and strtod take the point of the locale, which may be more
 * than one byte; whatever is no part of a number otherwise becomes '.'. */
static void ftr__json_put_finite(ftr__json_writer *writer, double value) {
    char text[64];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    bool point = false;
    for (const char *at = text; *at; at++) {
        const bool known = (*at >= '0' && *at <= '9') || *at == '-' || *at == '+' || *at == 'e';
        if (known)
            ftr__json_put_bytes(writer, at, 1);
        else if (!point)
            ftr__json_put(writer, ".");
        point = !known;
    }
}

void ftr__json_put_real(ftr__json_writer *writer, double value) {
    if (isfinite(value)) {
        ftr__json_put_finite(writer, value);
        return;
    }
    const int special = (isinf(value) ? 2 : 0) + (signbit(value) ? 1 : 0);
    ftr__json_put_string(writer, ftr__json_specials[special].text);
}

bool ftr__json_get_real(const ftr__json *value, double *real) {
    if (value->type == FTR__JSON_NUMBER) {
        *real = value->as.number.value;
        return true;
    }
    if (value->type != FTR__JSON_STRING) return false;
    for (int32_t i = 0; i < FTR__ARRAY_LENGTH(ftr__json_specials); i++) {
        const struct ftr__json_special *special = &ftr__json_specials[i];
        if (strcmp(value->as.string.text, special->text) != 0) continue;
        *real = copysign(special->infinite ? (double)INFINITY : (double)NAN, special->negative ? -1.0 : 1.0);
        return value->as.string.length == strlen(special->text);
    }
    return false;
}
