#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FTR__FILE_PIECE ((size_t)1 << 30) /* of one read or write: macOS takes less than 2 GiB, Linux a little more */
#define FTR__FILE_TEMPORARIES 1000        /* names to try: others may write beside the same path */

static ftr_status ftr__file_error(ftr_context *context, const char *path, const char *what) {
    return ftr__error(context, FTR_ERROR_IO, "%s: %s: %s", path, what, strerror(errno));
}

int ftr__file_open(const char *path, int flags) {
#ifdef O_CLOEXEC
    flags |= O_CLOEXEC;
#endif
    int descriptor;
    do {
        descriptor = open(path, flags, 0666);
    } while (descriptor < 0 && errno == EINTR);
    return descriptor;
}

static ftr_status ftr__file_read_all(ftr_context *context, const char *path, int descriptor, unsigned char *bytes,
                                     size_t size) {
    size_t at = 0;
    while (at < size) {
        const size_t piece = size - at < FTR__FILE_PIECE ? size - at : FTR__FILE_PIECE;
        const ssize_t got = read(descriptor, bytes + at, piece);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return ftr__file_error(context, path, "cannot be read");
        if (got == 0)
            return ftr__error(context, FTR_ERROR_IO, "%s: found %zu bytes, expected the %zu of its size", path, at,
                              size);
        at += (size_t)got;
    }
    return FTR_OK;
}

static ftr_status ftr__file_read_open(ftr_context *context, const char *path, int descriptor, unsigned char **bytes,
                                      size_t *size) {
    struct stat info;
    if (fstat(descriptor, &info) != 0) return ftr__file_error(context, path, "cannot be read");
    if (!S_ISREG(info.st_mode))
        return ftr__error(context, FTR_ERROR_IO, "%s: found a directory or device, expected a regular file", path);
    if ((uint64_t)info.st_size > SIZE_MAX / 2)
        return ftr__error(context, FTR_ERROR_OUT_OF_MEMORY, "%s: the file is larger than the address space", path);
    *size = (size_t)info.st_size;
    *bytes = ftr__allocate(context, *size);
    if (!*bytes) return ftr__out_of_memory(context, path, *size);
    const ftr_status status = ftr__file_read_all(context, path, descriptor, *bytes, *size);
    if (status != FTR_OK) {
        ftr__release(context, *bytes, *size);
        *bytes = NULL;
    }
    return status;
}

ftr_status ftr__file_read(ftr_context *context, const char *path, unsigned char **bytes, size_t *size) {
    *bytes = NULL;
    *size = 0;
    /* O_NONBLOCK: a FIFO without a writer would block here; for regular files it changes nothing. */
    const int descriptor = ftr__file_open(path, O_RDONLY | O_NONBLOCK);
    if (descriptor < 0) return ftr__file_error(context, path, "cannot be opened");
    const ftr_status status = ftr__file_read_open(context, path, descriptor, bytes, size);
    close(descriptor);
    return status;
}

void ftr__file_begin(ftr__file_writer *writer, ftr_context *context, const char *path) {
    *writer = (ftr__file_writer){.context = context, .path = path, .descriptor = -1};
    writer->temporary_size = strlen(path) + 48;
    writer->temporary = ftr__allocate(context, writer->temporary_size);
    if (!writer->temporary) {
        writer->status = ftr__out_of_memory(context, path, writer->temporary_size);
        return;
    }
    for (int i = 0; i < FTR__FILE_TEMPORARIES && writer->descriptor < 0; i++) {
        snprintf(writer->temporary, writer->temporary_size, "%s.%ld.%d.tmp", path, (long)getpid(), i);
        writer->descriptor = ftr__file_open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL);
        if (writer->descriptor < 0 && errno != EEXIST) break;
    }
    if (writer->descriptor < 0) writer->status = ftr__file_error(context, path, "cannot be written");
}

bool ftr__file_write(int descriptor, const void *data, size_t size) {
    const unsigned char *bytes = data;
    size_t at = 0;
    while (at < size) {
        const size_t piece = size - at < FTR__FILE_PIECE ? size - at : FTR__FILE_PIECE;
        const ssize_t written = write(descriptor, bytes + at, piece);
        if (written < 0 && errno == EINTR) continue;
        if (written == 0) errno = ENOSPC; /* nothing was taken and no reason given */
        if (written <= 0) return false;
        at += (size_t)written;
    }
    return true;
}

void ftr__file_append(ftr__file_writer *writer, const void *data, size_t size) {
    if (writer->status == FTR_OK && !ftr__file_write(writer->descriptor, data, size))
        writer->status = ftr__file_error(writer->context, writer->path, "cannot be written");
}

/* On macOS fsync() only hands the bytes to the drive (fsync(2)). */
int ftr__file_sync(int descriptor) {
#ifdef F_FULLFSYNC
    if (fcntl(descriptor, F_FULLFSYNC) == 0) return 0;
#endif
    int result;
    do {
        result = fsync(descriptor);
    } while (result != 0 && errno == EINTR);
    return result;
}

/* Makes the new name durable. Not every file system can sync a directory; the file is complete all the same. */
static void ftr__file_sync_directory(char *path) {
    char *slash = strrchr(path, '/');
    if (slash) slash[slash == path ? 1 : 0] = '\0';
    const int descriptor = ftr__file_open(slash ? path : ".", O_RDONLY);
    if (descriptor < 0) return;
    ftr__file_sync(descriptor);
    close(descriptor);
}

ftr_status ftr__file_end(ftr__file_writer *writer) {
    if (writer->descriptor >= 0) {
        if (writer->status == FTR_OK && ftr__file_sync(writer->descriptor) != 0)
            writer->status = ftr__file_error(writer->context, writer->path, "cannot be written");
        if (close(writer->descriptor) != 0 && writer->status == FTR_OK)
            writer->status = ftr__file_error(writer->context, writer->path, "cannot be written");
        if (writer->status == FTR_OK && rename(writer->temporary, writer->path) != 0)
            writer->status = ftr__file_error(writer->context, writer->path, "cannot be replaced");
        if (writer->status == FTR_OK) {
            ftr__file_sync_directory(writer->temporary);
        } else {
            unlink(writer->temporary);
        }
    }
    ftr__release(writer->context, writer->temporary, writer->temporary_size);
    writer->temporary = NULL;
    writer->descriptor = -1;
    return writer->status;
}
