/* Files as a whole: read into memory, written so that they appear complete or not at all. */
#ifndef FTR_IO_FILE_H
#define FTR_IO_FILE_H

#include "core/core.h"

/* open(), which child processes do not inherit. */
FTR_LIB int ftr__file_open(const char *path, int flags);

/* All of `size` bytes; false with errno set. */
FTR_LIB bool ftr__file_write(int descriptor, const void *data, size_t size);

/* Waits until the disk has the bytes; 0, or -1 with errno set. */
FTR_LIB int ftr__file_sync(int descriptor);

/* Reads a regular file into memory of ftr__allocate(), which the caller releases with *size. */
FTR_LIB ftr_status ftr__file_read(ftr_context *context, const char *path, unsigned char **bytes, size_t *size);

/* A file being written: its bytes go to a temporary one beside it. The first failure sticks and is returned by the end.
 * */
typedef struct ftr__file_writer {
    ftr_context *context;
    const char *path;
    char *temporary; /* NULL: there is none */
    size_t temporary_size;
    int descriptor;
    ftr_status status;
} ftr__file_writer;

/* `path` must live until ftr__file_end(). */
FTR_LIB void ftr__file_begin(ftr__file_writer *writer, ftr_context *context, const char *path);
FTR_LIB void ftr__file_append(ftr__file_writer *writer, const void *data, size_t size);

/* Flushes to the disk and gives the file its name, in place of what had it. After a failure the temporary file is
 * removed and what had the name is as it was. */
FTR_LIB ftr_status ftr__file_end(ftr__file_writer *writer);

#endif
