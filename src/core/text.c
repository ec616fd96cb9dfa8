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

void ftr__print(ftr_write_fn write, void *user, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n > 0) write(user, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

void ftr_write_file(void *user, const char *text, size_t length) { fwrite(text, 1, length, (FILE *)user); }
