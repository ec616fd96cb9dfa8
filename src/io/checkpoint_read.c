/* Reading and checking checkpoints. */
#include "core/crc32c.h"
#include "io/checkpoint.h"
#include "io/file.h"
#include "io/safetensors.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FTR__CHECKPOINT_MAX_JSON ((int64_t)64 << 20)
#define FTR__CHECKPOINT_SUFFIX ".safetensors"

/* -------------------------------------------------------------------------------------------------------- values -- */

/* "path/checkpoint.json: run.epoch: found 'x', expected an integer". `value` NULL: it is missing. */
static void ftr__checkpoint_unexpected(ftr__checkpoint_values *values, const char *key, const ftr__json *value,
                                       const char *expected) {
    char found[64];
    if (!value)
        snprintf(found, sizeof found, "nothing");
    else if (value->type == FTR__JSON_NUMBER)
        snprintf(found, sizeof found, "the number %.17g", value->as.number.value);
    else if (value->type == FTR__JSON_STRING)
        snprintf(found, sizeof found, "'%.40s'", value->as.string.text);
    else
        snprintf(found, sizeof found, "%s", ftr__json_type_text(value));
    values->status = ftr__error(values->context, FTR_ERROR_FORMAT,
                                "%s/" FTR__CHECKPOINT_JSON ": %.40s%s%.60s: found %s, expected %s", values->path,
                                values->section, *values->section ? "." : "", key, found, expected);
}

/* The member of this key and type; NULL, with the failure noted, if there is none. */
static const ftr__json *ftr__checkpoint_member(ftr__checkpoint_values *values, const char *key, ftr__json_type type,
                                               const char *expected) {
    if (values->status != FTR_OK) return NULL;
    const ftr__json *value = ftr__json_find(values->object, key);
    if (value && value->type == type) return value;
    ftr__checkpoint_unexpected(values, key, value, expected);
    return NULL;
}

bool ftr__checkpoint_has(const ftr__checkpoint_values *values, const char *key) {
    return values->status == FTR_OK && ftr__json_find(values->object, key) != NULL;
}

int64_t ftr__checkpoint_integer(ftr__checkpoint_values *values, const char *key, int64_t low, int64_t high) {
    char expected[80];
    snprintf(expected, sizeof expected, "an integer from %" PRId64 " to %" PRId64, low, high);
    const ftr__json *value = ftr__checkpoint_member(values, key, FTR__JSON_NUMBER, expected);
    if (!value) return 0;
    const int64_t integer = value->as.number.integer;
    if (value->as.number.is_integer && integer >= low && integer <= high) return integer;
    ftr__checkpoint_unexpected(values, key, value, expected);
    return 0;
}

double ftr__checkpoint_real(ftr__checkpoint_values *values, const char *key) {
    double real = 0.0;
    if (values->status != FTR_OK) return real;
    const ftr__json *value = ftr__json_find(values->object, key);
    if (!value || !ftr__json_get_real(value, &real)) ftr__checkpoint_unexpected(values, key, value, "a number");
    return real;
}

void ftr__checkpoint_reals(ftr__checkpoint_values *values, const char *key, double *reals, int32_t count) {
    char expected[48];
    snprintf(expected, sizeof expected, "an array of %d numbers", (int)count);
    for (int32_t i = 0; i < count; i++) reals[i] = 0.0;
    const ftr__json *array = ftr__checkpoint_member(values, key, FTR__JSON_ARRAY, expected);
    if (!array) return;
    bool fits = array->as.list.count == count;
    const ftr__json *element = fits ? array->as.list.first : NULL;
    for (int32_t i = 0; element && fits; element = element->next, i++) fits = ftr__json_get_real(element, &reals[i]);
    if (!fits) ftr__checkpoint_unexpected(values, key, array, expected);
}

const char *ftr__checkpoint_string(ftr__checkpoint_values *values, const char *key) {
    const ftr__json *value = ftr__checkpoint_member(values, key, FTR__JSON_STRING, "a string");
    if (!value) return "";
    if (strlen(value->as.string.text) == value->as.string.length) return value->as.string.text;
    ftr__checkpoint_unexpected(values, key, value, "a string without U+0000");
    return "";
}

bool ftr__checkpoint_bool(ftr__checkpoint_values *values, const char *key) {
    const ftr__json *value = ftr__checkpoint_member(values, key, FTR__JSON_BOOL, "true or false");
    return value && value->as.boolean;
}

uint64_t ftr__checkpoint_digits(ftr__checkpoint_values *values, const char *key) {
    const char *text = ftr__checkpoint_string(values, key);
    uint64_t number = 0;
    if (values->status != FTR_OK) return 0;
    bool fits = *text != '\0';
    for (; fits && *text; text++) {
        const uint64_t digit = (uint64_t)(*text - '0');
        fits = digit <= 9 && number <= (UINT64_MAX - digit) / 10;
        number = fits ? number * 10 + digit : 0;
    }
    if (!fits) ftr__checkpoint_unexpected(values, key, ftr__json_find(values->object, key), "digits of an integer");
    return number;
}

ftr__checkpoint_values ftr__checkpoint_values_of(const ftr_checkpoint *checkpoint, const char *section) {
    ftr__checkpoint_values values = {.context = checkpoint->context,
                                     .path = checkpoint->info.path,
                                     .section = section,
                                     .object = ftr__json_find(checkpoint->sections, section)};
    if (!values.object)
        values.status = ftr__error(values.context, FTR_ERROR_STATE,
                                   "%s/" FTR__CHECKPOINT_JSON ": section '%.40s' is missing", values.path, section);
    return values;
}

ftr__checkpoint_values ftr__checkpoint_object(const ftr__checkpoint_values *values, const char *key,
                                              const char *section) {
    ftr__checkpoint_values inner = *values;
    const ftr__json *object = ftr__checkpoint_member(&inner, key, FTR__JSON_OBJECT, "an object");
    inner.section = section;
    if (object) inner.object = object;
    return inner;
}

/* ---------------------------------------------------------------------------------------------------- comparison -- */

static void ftr__checkpoint_differs(ftr__checkpoint_values *values, const char *key, const char *found,
                                    const char *now) {
    if (values->status != FTR_OK || strcmp(found, now) == 0) return;
    values->status = ftr__error(values->context, FTR_ERROR_STATE,
                                "%s: the checkpoint is of another run: %s.%s is %.60s in it, and %.60s here",
                                values->path, values->section, key, found, now);
}

#define FTR__CHECKPOINT_REAL 40

/* As the file has it. */
static const char *ftr__checkpoint_real_text(double value, char text[FTR__CHECKPOINT_REAL]) {
    ftr__json_writer writer = {.text = text};
    ftr__json_put_real(&writer, value);
    text[writer.length] = '\0';
    return text;
}

void ftr__checkpoint_same_integer(ftr__checkpoint_values *values, const char *key, int64_t now) {
    char found[32], here[32];
    snprintf(found, sizeof found, "%" PRId64, ftr__checkpoint_integer(values, key, INT64_MIN, INT64_MAX));
    snprintf(here, sizeof here, "%" PRId64, now);
    ftr__checkpoint_differs(values, key, found, here);
}

void ftr__checkpoint_same_real(ftr__checkpoint_values *values, const char *key, double now, double otherwise) {
    char found[FTR__CHECKPOINT_REAL], here[FTR__CHECKPOINT_REAL];
    const bool missing = !isnan(otherwise) && !ftr__checkpoint_has(values, key);
    ftr__checkpoint_real_text(missing ? otherwise : ftr__checkpoint_real(values, key), found);
    ftr__checkpoint_differs(values, key, found, ftr__checkpoint_real_text(now, here));
}

void ftr__checkpoint_same_string(ftr__checkpoint_values *values, const char *key, const char *now) {
    char found[64], here[64];
    const char *text = ftr__checkpoint_string(values, key);
    if (values->status != FTR_OK || strcmp(text, now) == 0) return;
    snprintf(found, sizeof found, "'%.56s'", text);
    snprintf(here, sizeof here, "'%.56s'", now);
    ftr__checkpoint_differs(values, key, found, strcmp(found, here) == 0 ? "another text" : here);
}

void ftr__checkpoint_same_bool(ftr__checkpoint_values *values, const char *key, bool now) {
    ftr__checkpoint_differs(values, key, ftr__checkpoint_bool(values, key) ? "true" : "false", now ? "true" : "false");
}

/* -------------------------------------------------------------------------------------------------- checkpoint.json */

/* A file of a checkpoint, for messages; NULL when memory is short. */
static char *ftr__checkpoint_label(ftr_checkpoint *checkpoint, const char *name) {
    char *label = ftr__folder_join(&checkpoint->arena, checkpoint->info.path, name);
    if (!label) ftr__out_of_memory(checkpoint->context, checkpoint->info.path, strlen(checkpoint->info.path));
    return label;
}

/* Compares the digest at the end with that of what stands before. */
static ftr_status ftr__checkpoint_check_tail(ftr_context *context, const char *label, const unsigned char *bytes,
                                             size_t size) {
    if (size < FTR__CHECKPOINT_TAIL_BYTES)
        return ftr__error(context, FTR_ERROR_FORMAT, "%s: found %zu bytes, expected %d or more", label, size,
                          FTR__CHECKPOINT_TAIL_BYTES);
    const size_t body = size - FTR__CHECKPOINT_TAIL_BYTES;
    char tail[FTR__CHECKPOINT_TAIL_BYTES + 1];
    snprintf(tail, sizeof tail, FTR__CHECKPOINT_TAIL, ftr__crc32c(0, bytes, body));
    if (memcmp(tail, bytes + body, FTR__CHECKPOINT_TAIL_BYTES) == 0) return FTR_OK;
    return ftr__error(context, FTR_ERROR_FORMAT, "%s: the file is damaged: it does not end with its digest, %.18s",
                      label, tail);
}

/* "weights.safetensors": letters, digits and '_' in front, so that no name leads out of the folder. */
static bool ftr__checkpoint_is_file_name(const char *name, size_t length) {
    const size_t suffix = sizeof FTR__CHECKPOINT_SUFFIX - 1;
    if (length <= suffix || strcmp(name + (length - suffix), FTR__CHECKPOINT_SUFFIX) != 0) return false;
    for (size_t i = 0; i < length - suffix; i++) {
        const char c = name[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_')) return false;
    }
    return true;
}

static void ftr__checkpoint_read_files(ftr_checkpoint *checkpoint, ftr__checkpoint_values *top) {
    const ftr__json *files = ftr__checkpoint_member(top, "files", FTR__JSON_OBJECT, "an object");
    if (!files) return;
    const size_t size = (size_t)files->as.list.count * sizeof *checkpoint->files;
    checkpoint->files = ftr__arena_alloc(&checkpoint->arena, size);
    if (!checkpoint->files) {
        top->status = ftr__out_of_memory(checkpoint->context, checkpoint->info.path, size);
        return;
    }
    for (const ftr__json *file = files->as.list.first; file && top->status == FTR_OK; file = file->next) {
        if (!ftr__checkpoint_is_file_name(file->key, file->key_length) || file->type != FTR__JSON_OBJECT) {
            ftr__checkpoint_unexpected(top, file->key, file, "an object, under the name of a safetensors file");
            return;
        }
        ftr__checkpoint_values values = *top;
        values.section = file->key;
        values.object = file;
        ftr__checkpoint_file *entry = &checkpoint->files[checkpoint->file_count++];
        entry->name = file->key;
        entry->bytes = ftr__checkpoint_integer(&values, "bytes", 0, INT64_MAX);
        const char *crc = ftr__checkpoint_string(&values, "crc32c");
        if (values.status == FTR_OK && strlen(crc) == 8 && strspn(crc, "0123456789abcdef") == 8)
            entry->crc = (uint32_t)strtoul(crc, NULL, 16);
        else if (values.status == FTR_OK)
            ftr__checkpoint_unexpected(&values, "crc32c", ftr__json_find(file, "crc32c"), "8 hexadecimal digits");
        top->status = values.status;
    }
}

static void ftr__checkpoint_read_sections(ftr_checkpoint *checkpoint, ftr__checkpoint_values *top) {
    checkpoint->sections = ftr__checkpoint_member(top, "sections", FTR__JSON_OBJECT, "an object");
    for (const ftr__json *section = checkpoint->sections ? checkpoint->sections->as.list.first : NULL; section;
         section = section->next) {
        if (section->type == FTR__JSON_OBJECT) continue;
        ftr__checkpoint_unexpected(top, section->key, section, "an object");
        return;
    }
}

static void ftr__checkpoint_read_metadata(ftr_checkpoint *checkpoint, ftr__checkpoint_values *top) {
    checkpoint->metadata = ftr__checkpoint_member(top, "metadata", FTR__JSON_OBJECT, "an object");
    for (const ftr__json *value = checkpoint->metadata ? checkpoint->metadata->as.list.first : NULL; value;
         value = value->next) {
        if (value->type == FTR__JSON_STRING) continue;
        ftr__checkpoint_unexpected(top, value->key, value, "a string");
        return;
    }
}

/* Version 1. */
static ftr_status ftr__checkpoint_read_1(ftr_checkpoint *checkpoint, ftr__checkpoint_values *top) {
    ftr_checkpoint_info *info = &checkpoint->info;
    info->fasttrain = ftr__checkpoint_string(top, "fasttrain");
    info->seed = ftr__checkpoint_digits(top, "seed");
    info->point.step = ftr__checkpoint_integer(top, "step", 0, INT64_MAX);
    info->point.epoch = ftr__checkpoint_integer(top, "epoch", 0, INT64_MAX);
    info->point.position = ftr__checkpoint_integer(top, "position", 0, INT64_MAX);
    info->point.metric = ftr__checkpoint_has(top, "metric") ? ftr__checkpoint_real(top, "metric") : (double)NAN;
    info->applied_steps = ftr__checkpoint_integer(top, "applied_steps", 0, INT64_MAX);
    if (ftr__checkpoint_has(top, "metric_name")) info->metric_name = ftr__checkpoint_string(top, "metric_name");
    ftr__checkpoint_read_sections(checkpoint, top);
    ftr__checkpoint_read_metadata(checkpoint, top);
    ftr__checkpoint_read_files(checkpoint, top);
    for (int32_t i = 0; i < checkpoint->file_count && top->status == FTR_OK; i++)
        info->bytes += (size_t)checkpoint->files[i].bytes;
    return top->status;
}

/* One reader a version: a change of the format adds a row, and old checkpoints are read on. */
static const struct ftr__checkpoint_reader {
    int64_t version;
    ftr_status (*read)(ftr_checkpoint *checkpoint, ftr__checkpoint_values *top);
} ftr__checkpoint_readers[] = {{1, ftr__checkpoint_read_1}};

static ftr_status ftr__checkpoint_read_version(ftr_checkpoint *checkpoint, ftr__checkpoint_values *top) {
    const char *format = ftr__checkpoint_string(top, "format");
    if (top->status == FTR_OK && strcmp(format, FTR__CHECKPOINT_FORMAT) != 0)
        ftr__checkpoint_unexpected(top, "format", ftr__json_find(top->object, "format"),
                                   "'" FTR__CHECKPOINT_FORMAT "'");
    const int64_t version = ftr__checkpoint_integer(top, "version", 1, INT64_MAX);
    if (top->status != FTR_OK) return top->status;
    checkpoint->info.version = version;
    for (int32_t i = 0; i < FTR__ARRAY_LENGTH(ftr__checkpoint_readers); i++) {
        if (ftr__checkpoint_readers[i].version == version) return ftr__checkpoint_readers[i].read(checkpoint, top);
    }
    return ftr__error(checkpoint->context, FTR_ERROR_UNSUPPORTED,
                      "%s/" FTR__CHECKPOINT_JSON ": version %" PRId64
                      ": this fasttrain reads up to version %d; the checkpoint needs a newer one",
                      checkpoint->info.path, version, FTR__CHECKPOINT_VERSION);
}

/* The texts stay in the arena: the parser copies them. */
static ftr_status ftr__checkpoint_parse(ftr_checkpoint *checkpoint, const char *label, const unsigned char *bytes,
                                        size_t size) {
    ftr_context *context = checkpoint->context;
    ftr_status status = ftr__checkpoint_check_tail(context, label, bytes, size);
    if (status != FTR_OK) return status;
    const ftr__json *root = NULL;
    ftr__json_error error;
    status = ftr__json_parse(&checkpoint->arena, (const char *)bytes, size, &root, &error);
    if (status == FTR_ERROR_OUT_OF_MEMORY) return ftr__out_of_memory(context, label, size);
    if (status != FTR_OK) return ftr__error(context, status, "%s: %s", label, error.message);
    if (root->type != FTR__JSON_OBJECT)
        return ftr__error(context, FTR_ERROR_FORMAT, "%s: found %s, expected an object", label,
                          ftr__json_type_text(root));
    ftr__checkpoint_values top = {
        .context = context, .path = checkpoint->info.path, .section = "", .object = root, .status = FTR_OK};
    return ftr__checkpoint_read_version(checkpoint, &top);
}

static ftr_status ftr__checkpoint_read_json(ftr_checkpoint *checkpoint, ftr__checkpoint_read_fn read, void *user) {
    const char *label = ftr__checkpoint_label(checkpoint, FTR__CHECKPOINT_JSON);
    if (!label) return FTR_ERROR_OUT_OF_MEMORY;
    unsigned char *bytes = NULL;
    size_t size = 0;
    ftr_status status = read(user, checkpoint->context, label, FTR__CHECKPOINT_JSON, -1, &bytes, &size);
    if (status != FTR_OK) return status;
    status = ftr__checkpoint_parse(checkpoint, label, bytes, size);
    ftr__release(checkpoint->context, bytes, size);
    checkpoint->info.bytes += size;
    return status;
}

/* ------------------------------------------------------------------------------------------------ tensors' files -- */

static ftr_status ftr__checkpoint_read_file(ftr_checkpoint *checkpoint, ftr__checkpoint_file *file,
                                            ftr__checkpoint_read_fn read, void *user) {
    ftr_context *context = checkpoint->context;
    const char *label = ftr__checkpoint_label(checkpoint, file->name);
    if (!label) return FTR_ERROR_OUT_OF_MEMORY;
    unsigned char *bytes = NULL;
    size_t size = 0;
    ftr_status status = read(user, context, label, file->name, file->bytes, &bytes, &size);
    if (status != FTR_OK) return status;
    const uint32_t crc = ftr__crc32c(0, bytes, size);
    if ((uint64_t)size == (uint64_t)file->bytes && crc == file->crc)
        return ftr__safetensors_take(context, label, bytes, size, &file->tensors);
    ftr__release(context, bytes, size);
    return ftr__error(context, FTR_ERROR_FORMAT,
                      "%s: the file is damaged: found %zu bytes with digest %08" PRIx32 ", expected %" PRId64
                      " with %08" PRIx32,
                      label, size, crc, file->bytes, file->crc);
}

void ftr_checkpoint_close(ftr_checkpoint *checkpoint) {
    if (!checkpoint) return;
    for (int32_t i = 0; i < checkpoint->file_count; i++) ftr_safetensors_close(checkpoint->files[i].tensors);
    ftr_context *context = checkpoint->context;
    ftr__arena_free(&checkpoint->arena);
    ftr__release(context, checkpoint, sizeof *checkpoint);
}

/* An empty one; NULL with the error recorded. */
static ftr_checkpoint *ftr__checkpoint_make(ftr_context *context, const char *path) {
    ftr_checkpoint *made = ftr__allocate(context, sizeof *made);
    if (made) {
        memset(made, 0, sizeof *made);
        made->context = context;
        ftr__arena_init(&made->arena, context);
        made->info.path = ftr__arena_string(&made->arena, path);
        if (made->info.path) return made;
        ftr_checkpoint_close(made);
    }
    ftr__out_of_memory(context, path, sizeof *made);
    return NULL;
}

ftr_status ftr__checkpoint_read(ftr_context *context, const char *path, ftr__checkpoint_read_fn read, void *user,
                                ftr_checkpoint **checkpoint) {
    *checkpoint = NULL;
    ftr_checkpoint *made = ftr__checkpoint_make(context, path);
    if (!made) return FTR_ERROR_OUT_OF_MEMORY;
    ftr_status status = ftr__checkpoint_read_json(made, read, user);
    for (int32_t i = 0; i < made->file_count && status == FTR_OK; i++)
        status = ftr__checkpoint_read_file(made, &made->files[i], read, user);
    if (status == FTR_OK)
        *checkpoint = made;
    else
        ftr_checkpoint_close(made);
    return status;
}

/* A damaged file may be of any size: it is not read if that is not the expected one. */
static ftr_status ftr__checkpoint_check_size(ftr_context *context, const char *path, int64_t expected) {
    struct stat info;
    if (stat(path, &info) != 0)
        return ftr__error(context, FTR_ERROR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    if (expected < 0 && S_ISREG(info.st_mode) && info.st_size > FTR__CHECKPOINT_MAX_JSON)
        return ftr__error(context, FTR_ERROR_FORMAT, "%s: the file is damaged: found %lld bytes, expected at most %lld",
                          path, (long long)info.st_size, (long long)FTR__CHECKPOINT_MAX_JSON);
    if (expected < 0 || !S_ISREG(info.st_mode) || info.st_size == expected) return FTR_OK;
    return ftr__error(context, FTR_ERROR_FORMAT, "%s: the file is damaged: found %lld bytes, expected %lld", path,
                      (long long)info.st_size, (long long)expected);
}

/* Files of a folder: their labels are their paths. */
static ftr_status ftr__checkpoint_read_disk(void *user, ftr_context *context, const char *label, const char *name,
                                            int64_t expected, unsigned char **bytes, size_t *size) {
    (void)user;
    (void)name;
    const ftr_status status = ftr__checkpoint_check_size(context, label, expected);
    return status == FTR_OK ? ftr__file_read(context, label, bytes, size) : status;
}

ftr_status ftr__checkpoint_peek(ftr_context *context, const char *path, ftr_checkpoint **checkpoint) {
    *checkpoint = NULL;
    ftr_checkpoint *made = ftr__checkpoint_make(context, path);
    if (!made) return FTR_ERROR_OUT_OF_MEMORY;
    ftr_status status = ftr__checkpoint_read_json(made, ftr__checkpoint_read_disk, NULL);
    for (int32_t i = 0; i < made->file_count && status == FTR_OK; i++) {
        const char *label = ftr__checkpoint_label(made, made->files[i].name);
        status = label ? ftr__checkpoint_check_size(context, label, made->files[i].bytes) : FTR_ERROR_OUT_OF_MEMORY;
    }
    if (status == FTR_OK)
        *checkpoint = made;
    else
        ftr_checkpoint_close(made);
    return status;
}

ftr_status ftr_checkpoint_open(ftr_context *context, const char *path, ftr_checkpoint **checkpoint) {
    if (checkpoint) *checkpoint = NULL;
    if (!context || !path || !checkpoint)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_checkpoint_open: context, path or checkpoint is NULL");
    return ftr__checkpoint_read(context, path, ftr__checkpoint_read_disk, NULL, checkpoint);
}

/* ----------------------------------------------------------------------------------------------------- directory -- */

/* What is known while a directory is gone through. */
typedef struct ftr__checkpoint_search {
    ftr_context *context;
    const char *directory;
    ftr__arena arena;
    ftr__folder_name *names;
    int32_t count;
} ftr__checkpoint_search;

static ftr_status ftr__checkpoint_search_begin(ftr__checkpoint_search *search, ftr_context *context,
                                               const char *directory) {
    *search = (ftr__checkpoint_search){.context = context, .directory = directory};
    ftr__arena_init(&search->arena, context);
    return ftr__folder_list(context, &search->arena, directory, &search->names, &search->count);
}

static ftr_status ftr__checkpoint_search_open(ftr__checkpoint_search *search, int32_t index, const char **path,
                                              ftr_checkpoint **checkpoint) {
    char name[FTR__FOLDER_TEXT];
    *checkpoint = NULL;
    *path = ftr__folder_join(&search->arena, search->directory, ftr__folder_text(search->names[index], name));
    if (!*path) return ftr__out_of_memory(search->context, search->directory, sizeof name);
    return ftr_checkpoint_open(search->context, *path, checkpoint);
}

/* All are damaged: names them, as far as there is room, with the reason of the newest. */
static ftr_status ftr__checkpoint_search_failed(ftr__checkpoint_search *search, const char *reason) {
    char names[160] = "", name[FTR__FOLDER_TEXT];
    size_t used = 0;
    int32_t i = 0;
    for (; i < search->count && used + 2 * FTR__FOLDER_TEXT < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                                 ftr__folder_text(search->names[i], name));
    if (i < search->count) snprintf(names + used, sizeof names - used, " and %d more", (int)(search->count - i));
    return ftr__error(search->context, FTR_ERROR_FORMAT, "%.100s: no checkpoint is intact (%s): %s", search->directory,
                      names, reason);
}

static ftr_status ftr__checkpoint_search_newest(ftr__checkpoint_search *search, ftr_checkpoint **checkpoint) {
    ftr_context *context = search->context;
    char reason[FTR__MESSAGE_SIZE] = "";
    for (int32_t i = 0; i < search->count; i++) {
        const char *path;
        const ftr_status status = ftr__checkpoint_search_open(search, i, &path, checkpoint);
        if (status == FTR_OK && i > 0) ftr_error_clear(context);
        if (status != FTR_ERROR_FORMAT && status != FTR_ERROR_IO) return status;
        ftr__log(context, FTR_LOG_WARNING, "a checkpoint is passed over: %s", context->message);
        if (i == 0) snprintf(reason, sizeof reason, "%s", context->message);
    }
    return search->count > 0 ? ftr__checkpoint_search_failed(search, reason) : FTR_OK;
}

ftr_status ftr_checkpoint_find(ftr_context *context, const char *directory, ftr_checkpoint **checkpoint) {
    if (checkpoint) *checkpoint = NULL;
    if (!context || !directory || !checkpoint)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_checkpoint_find: context, directory or checkpoint is NULL");
    ftr__checkpoint_search search;
    ftr_status status = ftr__checkpoint_search_begin(&search, context, directory);
    if (status == FTR_OK) status = ftr__checkpoint_search_newest(&search, checkpoint);
    ftr__arena_free(&search.arena);
    return status;
}

ftr_status ftr_checkpoint_list(ftr_context *context, const char *directory, ftr_checkpoint_list_fn tell, void *user) {
    if (!context || !directory || !tell)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_checkpoint_list: context, directory or tell is NULL");
    ftr__checkpoint_search search;
    ftr_status status = ftr__checkpoint_search_begin(&search, context, directory);
    for (int32_t i = 0; i < search.count && status == FTR_OK; i++) {
        const char *path;
        ftr_checkpoint *checkpoint;
        const ftr_status found = ftr__checkpoint_search_open(&search, i, &path, &checkpoint);
        if (found == FTR_ERROR_OUT_OF_MEMORY) {
            status = found;
            break;
        }
        tell(user, path, found, found == FTR_OK ? "" : context->message, checkpoint);
        ftr_checkpoint_close(checkpoint);
        ftr_error_clear(context);
    }
    ftr__arena_free(&search.arena);
    return status;
}

/* --------------------------------------------------------------------------------------------------------- facts -- */

ftr_checkpoint_info ftr_checkpoint_info_of(const ftr_checkpoint *checkpoint) {
    ftr_checkpoint_info info;
    memset(&info, 0, sizeof info);
    return checkpoint ? checkpoint->info : info;
}

const char *ftr_checkpoint_metadata(const ftr_checkpoint *checkpoint, const char *key) {
    const ftr__json *value = checkpoint && key ? ftr__json_find(checkpoint->metadata, key) : NULL;
    return value ? value->as.string.text : NULL;
}

const ftr_safetensors *ftr_checkpoint_tensors(const ftr_checkpoint *checkpoint, const char *section) {
    for (int32_t i = 0; checkpoint && section && i < checkpoint->file_count; i++) {
        const size_t length = strlen(section);
        const char *name = checkpoint->files[i].name;
        if (strncmp(name, section, length) == 0 && strcmp(name + length, FTR__CHECKPOINT_SUFFIX) == 0)
            return checkpoint->files[i].tensors;
    }
    return NULL;
}
