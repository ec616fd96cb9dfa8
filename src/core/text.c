#include "core/core.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

const char *ftr__shape_text(const ftr_shape *shape, char text[FTR__SHAPE_TEXT]) {
    size_t used = 0;
    text[used++] = '[';
    for (int32_t i = 0; i < shape->rank && i < FTR_MAX_RANK && used < FTR__SHAPE_TEXT - 2; i++) {
        const int n = snprintf(text + used, FTR__SHAPE_TEXT - 2 - used, "%s%" PRId64, i ? ", " : "", shape->dim[i]);
        used += n > 0 ? (size_t)n : 0;
        if (used > FTR__SHAPE_TEXT - 2) used = FTR__SHAPE_TEXT - 2;
    }
    text[used++] = ']';
    text[used] = '\0';
    return text;
}

const char *ftr__dims_text(int32_t rank, const int64_t *dim, char *text, size_t size) {
    const size_t room = size - 32; /* one more dimension, "..." and "]" always fit behind it */
    size_t used = (size_t)snprintf(text, size, "[");
    int32_t i = 0;
    for (; i < rank && used < room; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, i ? ", " : "", dim[i]);
    snprintf(text + used, size - used, i < rank ? ", ...]" : "]");
    return text;
}

/* The character behind the one that `text` starts with. */
static const char *ftr__next_character(const char *text) {
    for (text++; ((unsigned char)*text & 0xc0) == 0x80;) text++;
    return text;
}

/* After a mismatch the last '*' is made to stand for one character more. Earlier ones need not change: what they stand
 * for is as short as can be. */
bool ftr__glob_match(const char *pattern, const char *name) {
    const char *behind_star = NULL, *rest = NULL; /* rest: what of the name the pattern behind the star has to fit */
    while (*name) {
        if (*pattern == '*') {
            behind_star = ++pattern;
            rest = name;
        } else if (*pattern == '?') {
            pattern++;
            name = ftr__next_character(name);
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (behind_star) {
            pattern = behind_star;
            name = rest = ftr__next_character(rest);
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return *pattern == '\0';
}

void ftr__print(ftr_write_fn write, void *user, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n > 0) write(user, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

void ftr_write_file(void *user, const char *text, size_t length) { fwrite(text, 1, length, (FILE *)user); }
