#include "io/folder.h"

#include "core/sort.h"
#include "io/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------------------------- folders -- */

char *ftr__folder_join(ftr__arena *arena, const char *directory, const char *name) {
    const size_t size = strlen(directory) + strlen(name) + 2;
    char *path = ftr__arena_alloc(arena, size);
    if (path) snprintf(path, size, "%s/%s", directory, name);
    return path;
}

static ftr_status ftr__folder_make_one(ftr_context *context, const char *path) {
    struct stat info;
    if (mkdir(path, 0777) == 0) return FTR_OK;
    if (errno == EEXIST && stat(path, &info) == 0) {
        if (S_ISDIR(info.st_mode)) return FTR_OK;
        errno = ENOTDIR;
    }
    return ftr__error(context, FTR_ERROR_IO, "%s: mkdir: %s", path, strerror(errno));
}

ftr_status ftr__folder_make(ftr_context *context, const char *path) {
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return FTR_OK;
    const size_t size = strlen(path) + 1;
    char *part = ftr__allocate(context, size);
    if (!part) return ftr__out_of_memory(context, path, size);
    memcpy(part, path, size);
    ftr_status status = FTR_OK;
    for (size_t i = 1; i < size && status == FTR_OK; i++) {
        const char last = part[i];
        if ((last != '/' && last != '\0') || part[i - 1] == '/') continue;
        part[i] = '\0';
        status = ftr__folder_make_one(context, part);
        part[i] = last;
    }
    ftr__release(context, part, size);
    return status;
}

static bool ftr__folder_is_dots(const char *name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

/* NULL, or the call that failed. */
static const char *ftr__folder_empty(DIR *directory) {
    const char *failed = NULL;
    int code = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(directory);
        if (!entry) {
            if (errno == 0 || failed) break;
            return "readdir";
        }
        if (ftr__folder_is_dots(entry->d_name) || unlinkat(dirfd(directory), entry->d_name, 0) == 0) continue;
        failed = "unlink";
        code = errno;
    }
    errno = code;
    return failed;
}

const char *ftr__folder_remove(const char *path) {
    DIR *directory = opendir(path);
    if (!directory) return "opendir";
    const char *failed = ftr__folder_empty(directory);
    const int code = errno;
    closedir(directory);
    errno = code;
    if (failed) return failed;
    return rmdir(path) == 0 ? NULL : "rmdir";
}

bool ftr__folder_sync(const char *path) {
    const int descriptor = ftr__file_open(path, O_RDONLY);
    if (descriptor < 0) return false;
    const bool synced = ftr__file_sync(descriptor) == 0 || errno == EINVAL || errno == ENOTSUP || errno == EOPNOTSUPP;
    const int code = errno;
    close(descriptor);
    errno = code;
    return synced;
}

/* --------------------------------------------------------------------------------------------------------- names -- */

#define FTR__FOLDER_PREFIX "step-"
#define FTR__FOLDER_DIGITS 12

const char *ftr__folder_text(ftr__folder_name name, char text[FTR__FOLDER_TEXT]) {
    const int used = snprintf(text, FTR__FOLDER_TEXT, FTR__FOLDER_PREFIX "%0*" PRId64, FTR__FOLDER_DIGITS, name.step);
    if (name.copy > 0) snprintf(text + used, FTR__FOLDER_TEXT - (size_t)used, ".%d", (int)name.copy);
    return text;
}

/* A name is what ftr__folder_text() would write: the digits are read, and compared with what they would give. */
bool ftr__folder_parse(const char *text, ftr__folder_name *name) {
    const size_t prefix = sizeof FTR__FOLDER_PREFIX - 1;
    *name = (ftr__folder_name){0, 0};
    if (strncmp(text, FTR__FOLDER_PREFIX, prefix) != 0) return false;
    const char *at = text + prefix;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (name->step > (INT64_MAX - (*at - '0')) / 10) return false;
        name->step = name->step * 10 + (*at - '0');
    }
    if (*at == '.') {
        for (at++; *at >= '0' && *at <= '9'; at++) {
            if (name->copy > (INT32_MAX - (*at - '0')) / 10) return false;
            name->copy = name->copy * 10 + (*at - '0');
        }
    }
    char written[FTR__FOLDER_TEXT];
    return strcmp(text, ftr__folder_text(*name, written)) == 0;
}

int ftr__folder_compare(ftr__folder_name a, ftr__folder_name b) {
    if (a.step != b.step) return a.step < b.step ? -1 : 1;
    return a.copy == b.copy ? 0 : a.copy < b.copy ? -1 : 1;
}

static int ftr__folder_newest_first(const void *a, const void *b) {
    const ftr__folder_name *left = a, *right = b;
    return ftr__folder_compare(*right, *left);
}

/* ------------------------------------------------------------------------------------------------------- listing -- */

/* A list that grows. */
typedef struct ftr__folder_names {
    ftr__folder_name *names;
    int32_t count, capacity;
} ftr__folder_names;

static ftr_status ftr__folder_read(ftr_context *context, ftr__arena *arena, const char *path, DIR *directory,
                                   ftr__folder_names *list) {
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(directory);
        if (!entry) {
            if (errno == 0) return FTR_OK;
            return ftr__error(context, FTR_ERROR_IO, "%s: readdir: %s", path, strerror(errno));
        }
        ftr__folder_name name;
        if (!ftr__folder_parse(entry->d_name, &name)) continue;
        if (!ftr__arena_grow(arena, (void **)&list->names, list->count, &list->capacity, sizeof name))
            return ftr__out_of_memory(context, path, sizeof name);
        list->names[list->count++] = name;
    }
}

static ftr_status ftr__folder_sort(ftr_context *context, ftr__arena *arena, ftr__folder_names *list) {
    const size_t size = (size_t)list->count * sizeof *list->names;
    const void **order = ftr__arena_alloc(arena, (size_t)list->count * sizeof *order);
    ftr__folder_name *sorted = ftr__arena_alloc(arena, size);
    if (!order || !sorted) return ftr__out_of_memory(context, "checkpoint", size);
    for (int32_t i = 0; i < list->count; i++) order[i] = &list->names[i];
    ftr__sort(order, list->count, ftr__folder_newest_first);
    for (int32_t i = 0; i < list->count; i++) sorted[i] = *(const ftr__folder_name *)order[i];
    list->names = sorted;
    return FTR_OK;
}

ftr_status ftr__folder_list(ftr_context *context, ftr__arena *arena, const char *path, ftr__folder_name **names,
                            int32_t *count) {
    *names = NULL;
    *count = 0;
    DIR *directory = opendir(path);
    if (!directory && errno == ENOENT) return FTR_OK;
    if (!directory) return ftr__error(context, FTR_ERROR_IO, "%s: opendir: %s", path, strerror(errno));
    ftr__folder_names list = {NULL, 0, 0};
    ftr_status status = ftr__folder_read(context, arena, path, directory, &list);
    closedir(directory);
    if (status == FTR_OK) status = ftr__folder_sort(context, arena, &list);
    if (status != FTR_OK) return status;
    *names = list.names;
    *count = list.count;
    return FTR_OK;
}

ftr_status ftr__folder_clean(ftr_context *context, ftr__arena *arena, const char *path) {
    DIR *directory = opendir(path);
    if (!directory) return ftr__error(context, FTR_ERROR_IO, "%s: opendir: %s", path, strerror(errno));
    ftr_status status = FTR_OK;
    for (const struct dirent *entry; status == FTR_OK && (entry = readdir(directory));) {
        if (strncmp(entry->d_name, FTR__FOLDER_TEMPORARY, sizeof FTR__FOLDER_TEMPORARY - 1) != 0) continue;
        const char *rest = ftr__folder_join(arena, path, entry->d_name);
        if (!rest) {
            status = ftr__out_of_memory(context, path, strlen(path));
            break;
        }
        const char *failed = ftr__folder_remove(rest);
        if (failed)
            ftr__log(context, FTR_LOG_WARNING, "%s: an interrupted save's leftovers stay: %s: %s", rest, failed,
                     strerror(errno));
    }
    closedir(directory);
    return status;
}
