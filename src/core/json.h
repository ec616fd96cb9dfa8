/* JSON (RFC 8259), strict: valid UTF-8 only, no duplicate keys, numbers within the range of a double. */
#ifndef FTR_CORE_JSON_H
#define FTR_CORE_JSON_H

#include "core/core.h"

/* Arrays and objects inside each other, the outermost included; serde_json's limit, which safetensors files meet. */
#define FTR__JSON_MAX_DEPTH 127

typedef enum ftr__json_type {
    FTR__JSON_NULL = 0,
    FTR__JSON_BOOL,
    FTR__JSON_NUMBER,
    FTR__JSON_STRING,
    FTR__JSON_ARRAY,
    FTR__JSON_OBJECT
} ftr__json_type;

/* A value. Texts are UTF-8 and end with a NUL that the length does not count; they may hold others (\u0000). */
typedef struct ftr__json {
    ftr__json_type type;
    const char *key; /* of a member of an object; otherwise NULL */
    size_t key_length;
    const struct ftr__json *next; /* element or member behind this one; NULL for the last */
    union {
        bool boolean;
        struct {
            double value;
            int64_t integer; /* exact, if `is_integer` */
            bool is_integer; /* written without fraction and exponent, in the range of int64_t and not "-0" */
        } number;
        struct {
            const char *text;
            size_t length;
        } string;
        struct {
            const struct ftr__json *first;
            int64_t count;
            const void **by_key; /* of an object: its members (ftr__json), sorted by key */
        } list;
    } as;
} ftr__json;

/* Why a text is not JSON: "byte 7: found '}', expected a value". */
typedef struct ftr__json_error {
    char message[160];
} ftr__json_error;

/* Parses `length` bytes into values that live in the arena. Errors: FTR_ERROR_FORMAT (with `error` filled),
 * FTR_ERROR_OUT_OF_MEMORY; neither is recorded on the context. */
FTR_LIB ftr_status ftr__json_parse(ftr__arena *arena, const char *text, size_t length, const ftr__json **root,
                                   ftr__json_error *error);

/* The member of an object with this key; NULL if there is none. */
FTR_LIB const ftr__json *ftr__json_find(const ftr__json *object, const char *key);

/* "a number", "an object" ... for messages. */
FTR_LIB const char *ftr__json_type_text(const ftr__json *value);

/* Index of the first byte that is not UTF-8 (RFC 3629: no overlong forms, no surrogates); -1 if all is. */
FTR_LIB int64_t ftr__utf8_invalid_at(const char *text, size_t length);

/* Output. With text == NULL only the length is counted, so that the same calls first measure and then write. */
typedef struct ftr__json_writer {
    char *text;
    size_t length;
} ftr__json_writer;

/* Text as it is: punctuation. */
FTR_LIB void ftr__json_put(ftr__json_writer *writer, const char *text);
/* A string with quotes and escapes. `text` is UTF-8. */
FTR_LIB void ftr__json_put_string(ftr__json_writer *writer, const char *text);
FTR_LIB void ftr__json_put_integer(ftr__json_writer *writer, int64_t value);
/* A double with as many digits as it takes to read the same one back, -0 included. What JSON has no number for becomes
 * a string: "NaN", "-NaN" (its sign bit is set), "Infinity", "-Infinity". */
FTR_LIB void ftr__json_put_real(ftr__json_writer *writer, double value);

/* What ftr__json_put_real() wrote, bit by bit but for the payload of a NaN. False if it is neither a number nor one of
 * the four strings. */
FTR_LIB bool ftr__json_get_real(const ftr__json *value, double *real);

#endif
