/* Writing checkpoints. A save copies all state into staging memory, composes checkpoint.json as far as the digests of
 * the files, and wakes the writer. That thread writes the files under a temporary name, flushes them and their folder,
 * renames the folder, flushes the directory, and then removes what is no longer kept. It takes no memory of the hook
 * and records nothing on the context: what failed is noted in the save, and told by the thread that uses the context.
 * */
#include "core/crc32c.h"
#include "core/threads.h"
#include "io/checkpoint.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "passes/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FTR__CHECKPOINT_PIECE ((size_t)1 << 20) /* what is digested and written at a time */
#define FTR__CHECKPOINT_KEEP 3                  /* keep_last, if it is 0 */
#define FTR__CHECKPOINT_LOCK ".lock"
#define FTR__CHECKPOINT_VERSION_TEXT 32

/* A checkpoint in the directory. */
typedef struct ftr__checkpoint_known {
    ftr__folder_name name;
    double metric; /* NaN: none */
    bool intact;   /* as far as its checkpoint.json goes; others are neither counted nor removed */
} ftr__checkpoint_known;

/* A section as it is saved. */
typedef struct ftr__checkpoint_part {
    ftr__checkpoint_section section;
    ftr__safetensors_layout layout;
    char file[FTR__FOLDER_TEXT]; /* "weights.safetensors" */
    unsigned char *stage;
    bool present; /* in the save that is under way */
} ftr__checkpoint_part;

/* What the writer says about a save. */
typedef struct ftr__checkpoint_outcome {
    bool published;   /* the folder has its name */
    bool failed;      /* also after it was published: if the directory could not be flushed */
    const char *call; /* that failed */
    int code;         /* errno */
    char file[FTR__FOLDER_TEXT];
    const char *remove_call; /* that failed while an old one was removed; NULL: none */
    int remove_code;
    ftr__folder_name remove_name;
    double seconds;
    size_t bytes;
} ftr__checkpoint_outcome;

/* The save that is under way: written by the caller's thread while the writer is idle, by the writer while it is not.
 * */
typedef struct ftr__checkpoint_save {
    ftr__folder_name name;
    double metric;
    char *temporary, *final, *path, *path_2; /* path, path_2: for what is in them */
    char *json;                              /* up to the files; the writer appends the rest */
    size_t json_bytes;
    ftr__folder_name *remove; /* what goes afterwards */
    int32_t remove_count;
    ftr__checkpoint_outcome outcome;
} ftr__checkpoint_save;

struct ftr_checkpointer {
    ftr_context *context;
    ftr_plan *plan;
    ftr_checkpoint_desc desc; /* its texts are the arena's, metadata the caller's */
    ftr__arena arena;
    ftr__checkpoint_part *parts;
    int32_t part_count;
    unsigned char *scratch;
    size_t scratch_bytes, path_bytes;
    size_t json_capacity;
    int lock;

    ftr__checkpoint_known *known;
    int32_t known_count, known_capacity, found, remove_capacity;
    ftr__checkpoint_save save;
    bool untold; /* the last save ended, or is under way, and its outcome has not been looked at */
    ftr_checkpoint_stats stats;
    double began, last_save;

    bool started;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool busy, stop; /* under the mutex */
    atomic_bool cancel;
};

/* --------------------------------------------------------------------------------------------------- JSON output -- */

void ftr__checkpoint_put_key(ftr__checkpoint_out *out, const char *key) {
    if (out->comma) ftr__json_put(&out->json, ",");
    out->comma = true;
    ftr__json_put_string(&out->json, key);
    ftr__json_put(&out->json, ":");
}

void ftr__checkpoint_put_integer(ftr__checkpoint_out *out, const char *key, int64_t value) {
    ftr__checkpoint_put_key(out, key);
    ftr__json_put_integer(&out->json, value);
}

void ftr__checkpoint_put_real(ftr__checkpoint_out *out, const char *key, double value) {
    ftr__checkpoint_put_key(out, key);
    ftr__json_put_real(&out->json, value);
}

void ftr__checkpoint_put_reals(ftr__checkpoint_out *out, const char *key, const double *values, int32_t count) {
    ftr__checkpoint_put_key(out, key);
    for (int32_t i = 0; i < count; i++) {
        ftr__json_put(&out->json, i ? "," : "[");
        ftr__json_put_real(&out->json, values[i]);
    }
    ftr__json_put(&out->json, count ? "]" : "[]");
}

void ftr__checkpoint_put_string(ftr__checkpoint_out *out, const char *key, const char *value) {
    ftr__checkpoint_put_key(out, key);
    ftr__json_put_string(&out->json, value);
}

void ftr__checkpoint_put_digits(ftr__checkpoint_out *out, const char *key, uint64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, value);
    ftr__checkpoint_put_string(out, key, text);
}

void ftr__checkpoint_put_bool(ftr__checkpoint_out *out, const char *key, bool value) {
    ftr__checkpoint_put_key(out, key);
    ftr__json_put(&out->json, value ? "true" : "false");
}

void ftr__checkpoint_open_object(ftr__checkpoint_out *out, const char *key) {
    ftr__checkpoint_put_key(out, key);
    ftr__json_put(&out->json, "{");
    out->comma = false;
}

void ftr__checkpoint_close_object(ftr__checkpoint_out *out) {
    ftr__json_put(&out->json, "}");
    out->comma = true;
}

/* -------------------------------------------------------------------------------------------------------- writer -- */

/* Notes what failed; false, for the caller to return. */
static bool ftr__save_fail(ftr__checkpoint_save *save, const char *call, const char *file) {
    ftr__checkpoint_outcome *outcome = &save->outcome;
    outcome->code = errno;
    outcome->failed = true;
    outcome->call = call;
    snprintf(outcome->file, sizeof outcome->file, "%s", file);
    return false;
}

static const char *ftr__save_path(ftr_checkpointer *c, const char *folder, const char *file) {
    snprintf(c->save.path, c->path_bytes, "%s/%s", folder, file);
    return c->save.path;
}

/* A file that is being written. */
typedef struct ftr__save_file {
    ftr_checkpointer *checkpointer;
    const char *name;
    int descriptor;
    uint32_t crc;
    size_t bytes;
} ftr__save_file;

static bool ftr__save_write(ftr__save_file *file, const void *data, size_t size) {
    ftr_checkpointer *c = file->checkpointer;
    const unsigned char *bytes = data;
    for (size_t at = 0, piece; at < size; at += piece) {
        piece = size - at < FTR__CHECKPOINT_PIECE ? size - at : FTR__CHECKPOINT_PIECE;
        file->crc = ftr__crc32c(file->crc, bytes + at, piece);
        errno = ECANCELED;
        if (atomic_load_explicit(&c->cancel, memory_order_relaxed) ||
            !ftr__file_write(file->descriptor, bytes + at, piece))
            return ftr__save_fail(&c->save, "write", file->name);
    }
    file->bytes += size;
    return true;
}

/* A convolution weight, some of its first dimension at a time. */
static bool ftr__save_permuted(ftr__save_file *file, const ftr__checkpoint_tensor *tensor, const unsigned char *data) {
    ftr_checkpointer *c = file->checkpointer;
    const size_t size = ftr_dtype_size(tensor->dtype);
    const int64_t columns = tensor->shape.dim[1];
    const size_t one = (size_t)(tensor->window * columns) * size;
    const int64_t most = one > 0 ? (int64_t)(c->scratch_bytes / one) : 0;
    for (int64_t first = 0; one > 0 && first < tensor->shape.dim[0]; first += most) {
        const int64_t left = tensor->shape.dim[0] - first, count = left < most ? left : most;
        ftr__weight_transpose(c->scratch, data + (size_t)first * one, count, tensor->window, columns, size);
        if (!ftr__save_write(file, c->scratch, (size_t)count * one)) return false;
    }
    return true;
}

static bool ftr__save_tensors(ftr__save_file *file, const ftr__checkpoint_part *part) {
    if (!ftr__save_write(file, part->layout.header, part->layout.header_bytes)) return false;
    for (int32_t i = 0; i < part->layout.count; i++) {
        const ftr__checkpoint_tensor *tensor = &part->section.tensors[part->layout.order[i]];
        const unsigned char *data = part->stage + tensor->offset;
        if (!(tensor->permuted ? ftr__save_permuted(file, tensor, data) : ftr__save_write(file, data, tensor->bytes)))
            return false;
    }
    return true;
}

static bool ftr__save_open(ftr__save_file *file, ftr_checkpointer *c, const char *name) {
    *file = (ftr__save_file){.checkpointer = c, .name = name};
    file->descriptor = ftr__file_open(ftr__save_path(c, c->save.temporary, name), O_WRONLY | O_CREAT | O_EXCL);
    return file->descriptor >= 0 || ftr__save_fail(&c->save, "open", name);
}

/* Flushes and closes a file whose bytes were written if `written`. */
static bool ftr__save_close(ftr__save_file *file, bool written) {
    ftr__checkpoint_save *save = &file->checkpointer->save;
    if (written && ftr__file_sync(file->descriptor) != 0) written = ftr__save_fail(save, "fsync", file->name);
    if (close(file->descriptor) != 0 && written) written = ftr__save_fail(save, "close", file->name);
    save->outcome.bytes += file->bytes;
    return written;
}

static void ftr__save_put_file(ftr__checkpoint_out *out, const ftr__save_file *file) {
    char crc[16];
    snprintf(crc, sizeof crc, "%08" PRIx32, file->crc);
    ftr__checkpoint_open_object(out, file->name);
    ftr__checkpoint_put_integer(out, "bytes", (int64_t)file->bytes);
    ftr__checkpoint_put_string(out, "crc32c", crc);
    ftr__checkpoint_close_object(out);
}

/* What checkpoint.json has behind the caller's part, in bytes: for each file, and besides. */
#define FTR__CHECKPOINT_FILE_ROOM 128
#define FTR__CHECKPOINT_ROOM 64

static bool ftr__save_files(ftr_checkpointer *c) {
    ftr__checkpoint_out out = {{c->save.json, c->save.json_bytes}, true};
    ftr__save_file file;
    ftr__checkpoint_open_object(&out, "files");
    for (int32_t i = 0; i < c->part_count; i++) {
        const ftr__checkpoint_part *part = &c->parts[i];
        if (!part->present) continue;
        if (!ftr__save_open(&file, c, part->file)) return false;
        if (!ftr__save_close(&file, ftr__save_tensors(&file, part))) return false;
        ftr__save_put_file(&out, &file);
    }
    ftr__checkpoint_close_object(&out);
    ftr__json_put(&out.json, ",\n");
    char tail[FTR__CHECKPOINT_TAIL_BYTES + 1];
    snprintf(tail, sizeof tail, FTR__CHECKPOINT_TAIL, ftr__crc32c(0, out.json.text, out.json.length));
    ftr__json_put(&out.json, tail);
    return ftr__save_open(&file, c, FTR__CHECKPOINT_JSON) &&
           ftr__save_close(&file, ftr__save_write(&file, out.json.text, out.json.length));
}

/* Gives the folder its name. */
static bool ftr__save_publish(ftr_checkpointer *c) {
    ftr__checkpoint_save *save = &c->save;
    char name[FTR__FOLDER_TEXT];
    if (!ftr__folder_sync(save->temporary)) return ftr__save_fail(save, "fsync", "its folder");
    if (rename(save->temporary, save->final) != 0)
        return ftr__save_fail(save, "rename", ftr__folder_text(save->name, name));
    save->outcome.published = true;
    return ftr__folder_sync(c->desc.directory) || ftr__save_fail(save, "fsync", "the directory");
}

/* A folder that is to go first loses its name: half of one must not be taken for a damaged checkpoint. One that keeps
 * its name is crossed off the list, and tried again after the next save. */
static void ftr__save_remove(ftr_checkpointer *c, ftr__folder_name *name) {
    ftr__checkpoint_save *save = &c->save;
    char text[FTR__FOLDER_TEXT];
    ftr__folder_text(*name, text);
    snprintf(save->path, c->path_bytes, "%s/%s", c->desc.directory, text);
    snprintf(save->path_2, c->path_bytes, "%s/" FTR__FOLDER_TEMPORARY "old-%s", c->desc.directory, text);
    const bool renamed = rename(save->path, save->path_2) == 0;
    const char *call = renamed ? ftr__folder_remove(save->path_2) : "rename";
    if (!call) return;
    save->outcome.remove_code = errno;
    save->outcome.remove_call = call;
    save->outcome.remove_name = *name;
    if (!renamed) name->step = -1;
}

static void ftr__save_run(ftr_checkpointer *c) {
    ftr__checkpoint_save *save = &c->save;
    const double start = ftr_time_seconds();
    memset(&save->outcome, 0, sizeof save->outcome);
    bool made = mkdir(save->temporary, 0777) == 0;
    const bool complete =
        (made || ftr__save_fail(save, "mkdir", "its folder")) && ftr__save_files(c) && ftr__save_publish(c);
    if (made && !save->outcome.published) (void)ftr__folder_remove(save->temporary); /* what stays goes next time */
    for (int32_t i = 0; complete && i < save->remove_count; i++) ftr__save_remove(c, &save->remove[i]);
    save->outcome.seconds = ftr_time_seconds() - start;
}

static void *ftr__checkpointer_main(void *arg) {
    ftr_checkpointer *c = arg;
    ftr__thread_step_back(); /* training goes first */
    pthread_mutex_lock(&c->mutex);
    for (;;) {
        while (!c->busy && !c->stop) pthread_cond_wait(&c->changed, &c->mutex);
        if (!c->busy) break;
        pthread_mutex_unlock(&c->mutex);
        ftr__save_run(c);
        pthread_mutex_lock(&c->mutex);
        c->busy = false;
        pthread_cond_broadcast(&c->changed);
    }
    pthread_mutex_unlock(&c->mutex);
    return NULL;
}

bool ftr__checkpointer_is_busy(ftr_checkpointer *c, double seconds) {
    const double end = ftr_time_seconds() + seconds;
    pthread_mutex_lock(&c->mutex);
    for (double left = seconds; c->busy && left > 0.0; left = end - ftr_time_seconds()) {
        struct timespec until; /* of the clock that may be set: in short turns, so that it does no harm */
        clock_gettime(CLOCK_REALTIME, &until);
        const int64_t nanoseconds = until.tv_nsec + (int64_t)(1e9 * (left < 0.05 ? left : 0.05));
        until.tv_sec += (time_t)(nanoseconds / 1000000000);
        until.tv_nsec = (long)(nanoseconds % 1000000000);
        pthread_cond_timedwait(&c->changed, &c->mutex, &until);
    }
    const bool busy = c->busy;
    pthread_mutex_unlock(&c->mutex);
    return busy;
}

void ftr__checkpointer_cancel(ftr_checkpointer *c) { atomic_store_explicit(&c->cancel, true, memory_order_relaxed); }

/* ------------------------------------------------------------------------------------------------------- outcome -- */

/* Makes room for one more known checkpoint, and for all of them in the list of what goes. */
static ftr_status ftr__checkpointer_room(ftr_checkpointer *c) {
    if (ftr__arena_grow(&c->arena, (void **)&c->known, c->known_count, &c->known_capacity, sizeof *c->known) &&
        ftr__arena_grow(&c->arena, (void **)&c->save.remove, c->known_count, &c->remove_capacity,
                        sizeof *c->save.remove))
        return FTR_OK;
    return ftr__out_of_memory(c->context, "checkpoint", (size_t)c->known_count * sizeof *c->known);
}

static void ftr__checkpointer_forget(ftr_checkpointer *c, ftr__folder_name name) {
    for (int32_t i = 0; i < c->known_count; i++) {
        if (ftr__folder_compare(c->known[i].name, name) != 0) continue;
        c->known[i] = c->known[--c->known_count];
        return;
    }
}

/* Takes over what the writer, which is idle, has to say. Room for one more known checkpoint was made before the save.
 * */
static ftr_status ftr__checkpointer_outcome(ftr_checkpointer *c) {
    if (!c->untold) return FTR_OK;
    c->untold = false;
    const ftr__checkpoint_save *save = &c->save;
    const ftr__checkpoint_outcome *outcome = &save->outcome;
    char name[FTR__FOLDER_TEXT];
    if (outcome->published) c->known[c->known_count++] = (ftr__checkpoint_known){save->name, save->metric, true};
    for (int32_t i = 0; !outcome->failed && i < save->remove_count; i++) ftr__checkpointer_forget(c, save->remove[i]);
    c->stats.last_write_seconds = outcome->seconds;
    c->stats.write_seconds += outcome->seconds;
    if (outcome->remove_call)
        ftr__log(c->context, FTR_LOG_WARNING, "%s/%s: an old checkpoint was not removed: %s: %s", c->desc.directory,
                 ftr__folder_text(outcome->remove_name, name), outcome->remove_call, strerror(outcome->remove_code));
    if (!outcome->failed) {
        c->stats.saved++;
        c->stats.bytes = outcome->bytes;
        return FTR_OK;
    }
    c->stats.failed++;
    return ftr__error(c->context, FTR_ERROR_IO, "%s/%s: the checkpoint was not written: %s of %s: %s",
                      c->desc.directory, ftr__folder_text(save->name, name), outcome->call, outcome->file,
                      strerror(outcome->code));
}

static void ftr__checkpointer_idle(ftr_checkpointer *c) {
    pthread_mutex_lock(&c->mutex);
    while (c->busy) pthread_cond_wait(&c->changed, &c->mutex);
    pthread_mutex_unlock(&c->mutex);
}

ftr_status ftr_checkpointer_wait(ftr_checkpointer *checkpointer) {
    if (!checkpointer) return FTR_ERROR_INVALID_ARGUMENT;
    ftr__checkpointer_idle(checkpointer);
    return ftr__checkpointer_outcome(checkpointer);
}

ftr_checkpoint_stats ftr_checkpointer_stats(const ftr_checkpointer *checkpointer) {
    ftr_checkpoint_stats stats;
    memset(&stats, 0, sizeof stats);
    return checkpointer ? checkpointer->stats : stats;
}

int32_t ftr__checkpointer_found(const ftr_checkpointer *checkpointer) { return checkpointer->found; }

/* ----------------------------------------------------------------------------------------- what stays, what goes -- */

/* Whether another copy of the same step is newer. */
static bool ftr__checkpointer_replaced(const ftr_checkpointer *c, int32_t index) {
    for (int32_t i = 0; i < c->known_count; i++)
        if (c->known[i].intact && c->known[i].name.step == c->known[index].name.step &&
            c->known[i].name.copy > c->known[index].name.copy)
            return true;
    return false;
}

/* How many that may stay are newer, and how many are better, than number `index`. Of equals the newer is the better. */
static void ftr__checkpointer_rank(const ftr_checkpointer *c, int32_t index, int32_t *newer, int32_t *better) {
    const ftr__checkpoint_known *one = &c->known[index];
    *newer = *better = 0;
    for (int32_t i = 0; i < c->known_count; i++) {
        const ftr__checkpoint_known *other = &c->known[i];
        if (!other->intact || i == index || ftr__checkpointer_replaced(c, i)) continue;
        const bool is_newer = ftr__folder_compare(other->name, one->name) > 0;
        const double gain = c->desc.maximize ? other->metric - one->metric : one->metric - other->metric;
        *newer += is_newer;
        *better += gain > 0.0 || (gain == 0.0 && is_newer);
    }
}

/* Lists what goes once the save is published. It is taken for known while this is found out. */
static void ftr__checkpointer_choose(ftr_checkpointer *c) {
    const int32_t keep = c->desc.keep_last ? c->desc.keep_last : FTR__CHECKPOINT_KEEP;
    ftr__checkpoint_save *save = &c->save;
    save->remove_count = 0;
    c->known[c->known_count++] = (ftr__checkpoint_known){save->name, save->metric, true};
    for (int32_t i = 0; i < c->known_count - 1; i++) {
        if (!c->known[i].intact) continue;
        int32_t newer, better;
        ftr__checkpointer_rank(c, i, &newer, &better);
        const bool best = !isnan(c->known[i].metric) && better < c->desc.keep_best;
        if ((newer >= keep && !best) || ftr__checkpointer_replaced(c, i))
            save->remove[save->remove_count++] = c->known[i].name;
    }
    c->known_count--;
}

/* The name of the next save: the step's, with a number behind it if the step has a folder, intact or not. */
static ftr__folder_name ftr__checkpointer_name(const ftr_checkpointer *c, int64_t step) {
    ftr__folder_name name = {step, 0};
    for (int32_t i = 0; i < c->known_count; i++)
        if (c->known[i].name.step == step && c->known[i].name.copy >= name.copy) name.copy = c->known[i].name.copy + 1;
    return name;
}

/* ---------------------------------------------------------------------------------------------------------- save -- */

static ftr_status ftr__checkpointer_check_metadata(ftr_context *context, const ftr_checkpoint_desc *desc) {
    if (desc->metadata_count < 0 || (desc->metadata_count > 0 && !desc->metadata))
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "checkpoint: metadata is %s with a count of %d",
                          desc->metadata ? "given" : "NULL", (int)desc->metadata_count);
    for (int32_t i = 0; i < desc->metadata_count; i++) {
        const char *key = desc->metadata[2 * i], *value = desc->metadata[2 * i + 1];
        if (!key || !value || ftr__utf8_invalid_at(key, strlen(key)) >= 0 ||
            ftr__utf8_invalid_at(value, strlen(value)) >= 0)
            return ftr__error(context, FTR_ERROR_NAME, "checkpoint: metadata pair %d: found NULL or no UTF-8", (int)i);
        for (int32_t k = 0; k < i; k++)
            if (strcmp(desc->metadata[2 * k], key) == 0)
                return ftr__error(context, FTR_ERROR_NAME, "checkpoint: metadata '%.100s': found twice, expected once",
                                  key);
    }
    return FTR_OK;
}

static void ftr__checkpointer_put_top(ftr_checkpointer *c, const ftr_checkpoint_point *point, int64_t applied,
                                      ftr__checkpoint_out *out) {
    char version[FTR__CHECKPOINT_VERSION_TEXT];
    snprintf(version, sizeof version, "%d.%d.%d", FTR_VERSION_MAJOR, FTR_VERSION_MINOR, FTR_VERSION_PATCH);
    ftr__json_put(&out->json, "{");
    ftr__checkpoint_put_string(out, "format", FTR__CHECKPOINT_FORMAT);
    ftr__checkpoint_put_integer(out, "version", FTR__CHECKPOINT_VERSION);
    ftr__checkpoint_put_string(out, "fasttrain", version);
    ftr__checkpoint_put_digits(out, "seed", c->context->seed);
    ftr__json_put(&out->json, ",\n");
    out->comma = false;
    ftr__checkpoint_put_integer(out, "step", point->step);
    ftr__checkpoint_put_integer(out, "epoch", point->epoch);
    ftr__checkpoint_put_integer(out, "position", point->position);
    ftr__checkpoint_put_integer(out, "applied_steps", applied);
    if (!isnan(point->metric)) {
        ftr__checkpoint_put_real(out, "metric", point->metric);
        ftr__checkpoint_put_string(out, "metric_name", c->desc.metric);
    }
    ftr__json_put(&out->json, ",\n");
    out->comma = false;
}

static void ftr__checkpointer_put_json(ftr_checkpointer *c, const ftr_checkpoint_point *point, int64_t applied,
                                       ftr__checkpoint_out *out) {
    ftr__checkpointer_put_top(c, point, applied, out);
    ftr__checkpoint_open_object(out, "sections");
    for (int32_t i = 0; i < c->part_count; i++) {
        const ftr__checkpoint_section *section = &c->parts[i].section;
        if (!section->write) continue;
        ftr__checkpoint_open_object(out, section->name);
        section->write(section->user, out);
        ftr__checkpoint_close_object(out);
        ftr__json_put(&out->json, "\n");
    }
    ftr__checkpoint_close_object(out);
    ftr__checkpoint_open_object(out, "metadata");
    for (int32_t i = 0; i < c->desc.metadata_count; i++)
        ftr__checkpoint_put_string(out, c->desc.metadata[2 * i], c->desc.metadata[2 * i + 1]);
    ftr__checkpoint_close_object(out);
}

/* The caller's part of checkpoint.json. */
static ftr_status ftr__checkpointer_compose(ftr_checkpointer *c, const ftr_checkpoint_point *point, int64_t applied) {
    ftr__checkpoint_out out = {{NULL, 0}, false};
    ftr__checkpointer_put_json(c, point, applied, &out);
    const size_t room = FTR__CHECKPOINT_ROOM + FTR__CHECKPOINT_FILE_ROOM * (size_t)c->part_count;
    const size_t bytes = out.json.length + room;
    if (bytes > c->json_capacity) {
        const size_t capacity = bytes + bytes / 2;
        char *text = ftr__allocate(c->context, capacity);
        if (!text) return ftr__out_of_memory(c->context, FTR__CHECKPOINT_JSON, capacity);
        ftr__release(c->context, c->save.json, c->json_capacity);
        c->save.json = text;
        c->json_capacity = capacity;
    }
    out = (ftr__checkpoint_out){{c->save.json, 0}, false};
    ftr__checkpointer_put_json(c, point, applied, &out);
    c->save.json_bytes = out.json.length;
    return FTR_OK;
}

static ftr_status ftr__checkpointer_copy(ftr_checkpointer *c) {
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < c->part_count && status == FTR_OK; i++) {
        ftr__checkpoint_part *part = &c->parts[i];
        const ftr__checkpoint_section *section = &part->section;
        part->present = section->count > 0 && (!section->present || section->present(section->user));
        if (part->present) status = section->copy(section->user, part->stage);
    }
    return status;
}

/* The writer is idle. */
static ftr_status ftr__checkpointer_begin(ftr_checkpointer *c, const ftr_checkpoint_point *given) {
    ftr__checkpoint_save *save = &c->save;
    ftr_checkpoint_point at = *given;
    const ftr_checkpoint_point *point = &at;
    if (!c->desc.metric) at.metric = (double)NAN;
    const int64_t applied = (int64_t)ftr_plan_applied_steps(c->plan);
    ftr_status status = ftr__checkpointer_room(c);
    if (status == FTR_OK) status = ftr__checkpointer_check_metadata(c->context, &c->desc);
    if (status == FTR_OK) status = ftr__checkpointer_compose(c, point, applied);
    if (status == FTR_OK) status = ftr__checkpointer_copy(c);
    if (status != FTR_OK) return status;
    char name[FTR__FOLDER_TEXT];
    save->name = ftr__checkpointer_name(c, point->step);
    save->metric = point->metric;
    ftr__folder_text(save->name, name);
    snprintf(save->final, c->path_bytes, "%s/%s", c->desc.directory, name);
    snprintf(save->temporary, c->path_bytes, "%s/" FTR__FOLDER_TEMPORARY "%s", c->desc.directory, name);
    ftr__checkpointer_choose(c);
    c->untold = true;
    pthread_mutex_lock(&c->mutex);
    c->busy = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mutex);
    return FTR_OK;
}

static ftr_status ftr__checkpointer_check_point(ftr_context *context, const ftr_checkpoint_point *point) {
    if (!point) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "ftr_checkpoint_save: point is NULL");
    if (point->step >= 0 && point->epoch >= 0 && point->position >= 0) return FTR_OK;
    return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                      "ftr_checkpoint_save: step is %lld, epoch %lld, position %lld, expected 0 or more",
                      (long long)point->step, (long long)point->epoch, (long long)point->position);
}

ftr_status ftr_checkpoint_save(ftr_checkpointer *checkpointer, const ftr_checkpoint_point *point) {
    if (!checkpointer) return FTR_ERROR_INVALID_ARGUMENT;
    ftr_checkpointer *c = checkpointer;
    ftr_status status = ftr__checkpointer_check_point(c->context, point);
    if (status == FTR_OK) status = ftr__refuse_average(c->plan, "ftr_checkpoint_save");
    if (status != FTR_OK) return status;
    const double start = ftr_time_seconds();
    if (c->desc.when_busy == FTR_CHECKPOINT_SKIP && ftr__checkpointer_is_busy(c, 0.0)) {
        c->stats.skipped++;
        return FTR_OK;
    }
    ftr__checkpointer_idle(c);
    status = ftr__checkpointer_outcome(c);
    if (status != FTR_OK && c->desc.on_failure == FTR_CHECKPOINT_STOP) return status;
    if (status != FTR_OK) ftr__log(c->context, FTR_LOG_WARNING, "%s; training goes on", c->context->message);
    status = ftr__checkpointer_begin(c, point);
    c->last_save = start;
    c->stats.last_stall_seconds = ftr_time_seconds() - start;
    c->stats.stall_seconds += c->stats.last_stall_seconds;
    return status;
}

/* ----------------------------------------------------------------------------------------------------------- due -- */

/* Young's interval, sqrt(2 c M); c is the mean time that saves have kept the caller waiting. */
static bool ftr__checkpointer_mtbf_due(ftr_checkpointer *c, double now) {
    if (ftr__checkpointer_is_busy(c, 0.0)) return false;
    const int64_t saves = c->stats.saved + c->stats.failed + (c->untold ? 1 : 0);
    if (saves == 0) return true;
    const double cost = c->stats.stall_seconds / (double)saves;
    return now - c->last_save >= sqrt(2.0 * cost * c->desc.mtbf_seconds);
}

bool ftr_checkpoint_due(ftr_checkpointer *checkpointer, int64_t step) {
    if (!checkpointer || step < 1) return false;
    const ftr_checkpoint_desc *desc = &checkpointer->desc;
    if (desc->every_steps > 0 && step % desc->every_steps == 0) return true;
    if (desc->every_seconds <= 0.0 && desc->mtbf_seconds <= 0.0) return false;
    const double now = ftr_time_seconds();
    if (desc->every_seconds > 0.0 && now - checkpointer->last_save >= desc->every_seconds) return true;
    return desc->mtbf_seconds > 0.0 && ftr__checkpointer_mtbf_due(checkpointer, now);
}

/* ------------------------------------------------------------------------------------------------------ creation -- */

static ftr_status ftr__checkpointer_check(ftr_context *context, const ftr_checkpoint_desc *desc) {
    const ftr_status bad = FTR_ERROR_INVALID_ARGUMENT;
    if (!desc->directory || !*desc->directory)
        return ftr__error(context, bad, "checkpoint: directory is %s", desc->directory ? "empty" : "NULL");
    if (desc->every_steps < 0 || desc->every_epochs < 0)
        return ftr__error(context, bad, "checkpoint: every_steps is %lld, every_epochs %lld, expected 0 or more",
                          (long long)desc->every_steps, (long long)desc->every_epochs);
    if (!(desc->every_seconds >= 0.0) || !(desc->mtbf_seconds >= 0.0))
        return ftr__error(context, bad, "checkpoint: every_seconds is %g, mtbf_seconds %g, expected 0 or more",
                          desc->every_seconds, desc->mtbf_seconds);
    if (desc->keep_last < 0 || desc->keep_best < 0)
        return ftr__error(context, bad, "checkpoint: keep_last is %d, keep_best %d, expected 0 or more",
                          (int)desc->keep_last, (int)desc->keep_best);
    if (desc->when_busy != FTR_CHECKPOINT_WAIT && desc->when_busy != FTR_CHECKPOINT_SKIP)
        return ftr__error(context, bad, "checkpoint: when_busy is %d, expected one of ftr_checkpoint_busy",
                          (int)desc->when_busy);
    if (desc->on_failure != FTR_CHECKPOINT_WARN && desc->on_failure != FTR_CHECKPOINT_STOP)
        return ftr__error(context, bad, "checkpoint: on_failure is %d, expected one of ftr_checkpoint_failure",
                          (int)desc->on_failure);
    return ftr__checkpointer_check_metadata(context, desc);
}

static ftr_status ftr__checkpointer_lock(ftr_checkpointer *c) {
    const char *path = ftr__folder_join(&c->arena, c->desc.directory, FTR__CHECKPOINT_LOCK);
    if (!path) return ftr__out_of_memory(c->context, c->desc.directory, strlen(c->desc.directory));
    c->lock = ftr__file_open(path, O_RDWR | O_CREAT);
    if (c->lock < 0) return ftr__error(c->context, FTR_ERROR_IO, "%s: open: %s", path, strerror(errno));
    if (flock(c->lock, LOCK_EX | LOCK_NB) == 0) return FTR_OK;
    if (errno == EWOULDBLOCK)
        return ftr__error(c->context, FTR_ERROR_STATE,
                          "%s: another process, or another run of this one, writes checkpoints there",
                          c->desc.directory);
    return FTR_OK; /* a file system without locks */
}

/* What is in the directory. Checkpoints whose checkpoint.json is damaged, or that are of a newer version, are left
 * alone. */
static ftr_status ftr__checkpointer_look(ftr_checkpointer *c) {
    ftr__folder_name *names;
    int32_t count;
    ftr_status status = ftr__folder_list(c->context, &c->arena, c->desc.directory, &names, &count);
    char name[FTR__FOLDER_TEXT];
    for (int32_t i = 0; i < count && status == FTR_OK; i++) {
        const char *path = ftr__folder_join(&c->arena, c->desc.directory, ftr__folder_text(names[i], name));
        if (!path) return ftr__out_of_memory(c->context, c->desc.directory, sizeof name);
        ftr_checkpoint *checkpoint = NULL;
        const ftr_status found = ftr__checkpoint_peek(c->context, path, &checkpoint);
        if (found == FTR_ERROR_OUT_OF_MEMORY) return found;
        if (found != FTR_OK) {
            ftr__log(c->context, FTR_LOG_INFO, "a checkpoint is left alone: %s", c->context->message);
            ftr_error_clear(c->context);
        }
        status = ftr__checkpointer_room(c);
        if (status == FTR_OK)
            c->known[c->known_count++] = (ftr__checkpoint_known){
                names[i], checkpoint ? checkpoint->info.point.metric : (double)NAN, checkpoint != NULL};
        ftr_checkpoint_close(checkpoint);
    }
    c->found = count;
    return status;
}

static ftr_status ftr__checkpointer_lay_out(ftr_checkpointer *c, ftr__checkpoint_part *part) {
    static const char *const metadata[] = {"format", "pt"};
    const ftr__checkpoint_section *section = &part->section;
    if (section->count == 0) return FTR_OK;
    snprintf(part->file, sizeof part->file, "%s.safetensors", section->name);
    const size_t size = (size_t)section->count * sizeof(ftr_safetensors_item);
    ftr_safetensors_item *items = ftr__arena_alloc(&c->arena, size);
    if (!items) return ftr__out_of_memory(c->context, part->file, size);
    for (int32_t i = 0; i < section->count; i++) {
        const ftr__checkpoint_tensor *tensor = &section->tensors[i];
        items[i] = (ftr_safetensors_item){.name = tensor->name, .dtype = tensor->dtype, .shape = tensor->shape};
        if (tensor->permuted && tensor->shape.dim[0] > 0 &&
            tensor->bytes / (size_t)tensor->shape.dim[0] > c->scratch_bytes)
            c->scratch_bytes = tensor->bytes / (size_t)tensor->shape.dim[0];
    }
    part->stage = ftr__allocate(c->context, section->bytes);
    if (!part->stage) return ftr__out_of_memory(c->context, "checkpoint: staging memory", section->bytes);
    memset(part->stage, 0, section->bytes); /* now, so that the first save does not wait for the pages */
    return ftr__safetensors_lay_out(c->context, &c->arena, part->file, items, section->count, metadata, 1,
                                    &part->layout);
}

static ftr_status ftr__checkpointer_parts(ftr_checkpointer *c, const ftr__checkpoint_section *more, int32_t count) {
    const int32_t total = FTR__CHECKPOINT_PLAN_SECTIONS + count;
    ftr__checkpoint_section own[FTR__CHECKPOINT_PLAN_SECTIONS];
    ftr_status status = ftr__checkpoint_plan_sections(c->plan, &c->arena, own);
    if (status != FTR_OK) return status;
    c->parts = ftr__arena_alloc(&c->arena, (size_t)total * sizeof *c->parts);
    if (!c->parts) return ftr__out_of_memory(c->context, "checkpoint", (size_t)total * sizeof *c->parts);
    c->part_count = total;
    c->scratch_bytes = FTR__CHECKPOINT_PIECE;
    for (int32_t i = 0; i < total && status == FTR_OK; i++) {
        c->parts[i].section = i < FTR__CHECKPOINT_PLAN_SECTIONS ? own[i] : more[i - FTR__CHECKPOINT_PLAN_SECTIONS];
        status = ftr__checkpointer_lay_out(c, &c->parts[i]);
    }
    if (status != FTR_OK) return status;
    c->scratch = ftr__arena_alloc(&c->arena, c->scratch_bytes);
    return c->scratch ? FTR_OK : ftr__out_of_memory(c->context, "checkpoint", c->scratch_bytes);
}

static ftr_status ftr__checkpointer_paths(ftr_checkpointer *c) {
    ftr__checkpoint_save *save = &c->save;
    c->path_bytes = strlen(c->desc.directory) + 3 * FTR__FOLDER_TEXT;
    char **paths[] = {&save->temporary, &save->final, &save->path, &save->path_2};
    for (int32_t i = 0; i < FTR__ARRAY_LENGTH(paths); i++) {
        *paths[i] = ftr__arena_alloc(&c->arena, c->path_bytes);
        if (!*paths[i]) return ftr__out_of_memory(c->context, "checkpoint", c->path_bytes);
    }
    return FTR_OK;
}

static ftr_status ftr__checkpointer_start(ftr_checkpointer *c) {
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->changed, NULL);
    const int code = ftr__thread_start(&c->thread, ftr__checkpointer_main, c);
    c->started = code == 0;
    if (c->started) return FTR_OK;
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->mutex);
    return ftr__error(c->context, FTR_ERROR_THREAD, "checkpoint: the writer's thread could not be started (error %d)",
                      code);
}

/* Texts of the description are copied. */
static ftr_status ftr__checkpointer_open(ftr_checkpointer *c, const ftr_checkpoint_desc *desc,
                                         const ftr__checkpoint_section *sections, int32_t count) {
    c->desc = *desc;
    c->desc.directory = ftr__arena_string(&c->arena, desc->directory);
    if (desc->metric) c->desc.metric = ftr__arena_string(&c->arena, desc->metric);
    if (!c->desc.directory || (desc->metric && !c->desc.metric))
        return ftr__out_of_memory(c->context, "checkpoint", strlen(desc->directory));
    ftr_status status = ftr__folder_make(c->context, c->desc.directory);
    if (status == FTR_OK) status = ftr__checkpointer_lock(c);
    if (status == FTR_OK) status = ftr__folder_clean(c->context, &c->arena, c->desc.directory);
    if (status == FTR_OK) status = ftr__checkpointer_look(c);
    if (status == FTR_OK) status = ftr__checkpointer_parts(c, sections, count);
    if (status == FTR_OK) status = ftr__checkpointer_paths(c);
    if (status == FTR_OK) status = ftr__checkpointer_start(c);
    c->last_save = ftr_time_seconds();
    return status;
}

ftr_status ftr__checkpointer_create(ftr_plan *plan, const ftr_checkpoint_desc *desc,
                                    const ftr__checkpoint_section *sections, int32_t count,
                                    ftr_checkpointer **checkpointer) {
    ftr_context *context = plan->context;
    *checkpointer = NULL;
    ftr_status status = ftr__checkpointer_check(context, desc);
    if (status == FTR_OK && !plan->learning_rate)
        status =
            ftr__error(context, FTR_ERROR_STATE, "checkpoint: the plan has no optimizer, expected one that trains");
    if (status != FTR_OK) return status;
    ftr_checkpointer *made = ftr__allocate(context, sizeof *made);
    if (!made) return ftr__out_of_memory(context, "checkpoint", sizeof *made);
    memset(made, 0, sizeof *made);
    made->context = context;
    made->plan = plan;
    made->lock = -1;
    atomic_init(&made->cancel, false);
    ftr__arena_init(&made->arena, context);
    status = ftr__checkpointer_open(made, desc, sections, count);
    if (status == FTR_OK)
        *checkpointer = made;
    else
        ftr_checkpointer_destroy(made);
    return status;
}

ftr_status ftr_checkpointer_create(ftr_plan *plan, const ftr_checkpoint_desc *desc, ftr_checkpointer **checkpointer) {
    if (checkpointer) *checkpointer = NULL;
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    if (!desc || !checkpointer)
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_checkpointer_create: desc or checkpointer is NULL");
    return ftr__checkpointer_create(plan, desc, NULL, 0, checkpointer);
}

static void ftr__checkpointer_join(ftr_checkpointer *c) {
    pthread_mutex_lock(&c->mutex);
    c->stop = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mutex);
    pthread_join(c->thread, NULL);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->mutex);
}

void ftr_checkpointer_destroy(ftr_checkpointer *checkpointer) {
    ftr_checkpointer *c = checkpointer;
    if (!c) return;
    if (c->started) {
        ftr__checkpointer_join(c); /* a save that is under way is finished */
        if (ftr__checkpointer_outcome(c) != FTR_OK) ftr__log(c->context, FTR_LOG_WARNING, "%s", c->context->message);
    }
    if (c->lock >= 0) close(c->lock);
    for (int32_t i = 0; i < c->part_count; i++) {
        const ftr__checkpoint_part *part = &c->parts[i];
        if (part->stage) ftr__release(c->context, part->stage, part->section.bytes);
    }
    ftr__release(c->context, c->save.json, c->json_capacity);
    ftr_context *context = c->context;
    ftr__arena_free(&c->arena);
    ftr__release(context, c, sizeof *c);
}
