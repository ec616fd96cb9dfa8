#ifndef FTR_API_CHECKPOINT_H
#define FTR_API_CHECKPOINT_H

#include "api/compile.h"
#include "api/io.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Checkpoints: all that a run needs to go on, bit by bit, after its process is gone. ftr_fit() writes and resumes them
 * by itself (ftr_train_desc.checkpoint and .resume); the calls below are for loops of one's own and for looking inside.
 *
 * A checkpoint is a folder, DIRECTORY/step-000000000123, with
 *
 *     weights.safetensors     parameters and buffers, as ftr_save_weights() writes them: load_state_dict() takes it
 *     optimizer.safetensors   the optimizer's state by name, in PyTorch's layout; sums of gradients, averages of weights
 *     best.safetensors        ftr_fit() with early_stop.restore_best: the best epoch's parameters and buffers
 *     checkpoint.json         format version, counters, seed, values by section, the caller's metadata, and size and
 *                             CRC-32C of each file and of itself
 *
 * A second checkpoint of the same step is step-000000000123.1 and so on. A folder is written under a name that begins
 * with ".tmp-", flushed, and then renamed: what is called step-... is complete. Each byte is covered by a digest, so a
 * damaged file is found and named, and an older checkpoint is taken. Tensors are whole, whatever the plan does with
 * them. */

/* What a save does while the one before is still being written. */
typedef enum ftr_checkpoint_busy {
    FTR_CHECKPOINT_WAIT = 0, /* waits for it */
    FTR_CHECKPOINT_SKIP      /* does nothing */
} ftr_checkpoint_busy;

/* What happens when a checkpoint could not be written. It is known, and said, at the next save or at the end. */
typedef enum ftr_checkpoint_failure {
    FTR_CHECKPOINT_WARN = 0, /* a warning in the log; training goes on */
    FTR_CHECKPOINT_STOP      /* the next save fails with the error of this one */
} ftr_checkpoint_failure;

/* When and how checkpoints are written. All fields but directory may be 0. Without an interval: after each epoch.
 * ftr_checkpointer_create() ignores every_epochs. */
typedef struct ftr_checkpoint_desc {
    const char *directory; /* made if need be; of one run alone */
    int64_t every_steps;
    double every_seconds;
    int64_t every_epochs;
    double mtbf_seconds; /* mean time between failures of the machine: from the measured cost c of a save, one is
                          * made every sqrt(2 c mtbf_seconds) (Young 1974, Daly 2006), but not before the last is
                          * written; the first follows the first step */
    int32_t keep_last;   /* how many of the newest stay; 0: 3. An older one goes when a new one is complete on disk */
    int32_t keep_best;   /* how many of the best by `metric` stay besides; 0: none */
    const char *metric;  /* ftr_fit(): "loss" or a metric's name, of the evaluation (of training if there is none) */
    bool maximize;       /* of `metric`, larger is better */
    ftr_checkpoint_busy when_busy;
    ftr_checkpoint_failure on_failure;
    const char *const *metadata; /* key, value, key, value ...: UTF-8; kept by pointer and read at each save */
    int32_t metadata_count;      /* of pairs */
} ftr_checkpoint_desc;

/* Where a run is. */
typedef struct ftr_checkpoint_point {
    int64_t step;     /* of the run, 0 or more: names the folder */
    int64_t epoch;    /* from 0 */
    int64_t position; /* in the epoch, in whatever the loop counts */
    double metric;    /* value of desc.metric for this very state; NaN: none, such a one is never among the best.
                       * Without desc.metric it does not count */
} ftr_checkpoint_point;

/* What a checkpointer has done so far. */
typedef struct ftr_checkpoint_stats {
    int64_t saved, skipped, failed;
    size_t bytes;         /* of the last one that was written */
    double stall_seconds; /* what saves have kept the caller waiting, in all */
    double write_seconds; /* of the background thread, in all */
    double last_stall_seconds, last_write_seconds;
} ftr_checkpoint_stats;

/* Writes the checkpoints of a plan from a thread of its own. */
typedef struct ftr_checkpointer ftr_checkpointer;

/* Makes a checkpointer: makes the directory, locks it against other processes (flock on ".lock" in it), removes what an
 * interrupted save left behind, takes all memory that saves will need: once more the parameters, buffers and optimizer
 * state. `plan` has an optimizer. The caller owns *checkpointer and gives it back before the plan. Its thread takes no
 * memory from the allocator hook and no signals.
 * Errors: FTR_ERROR_INVALID_ARGUMENT, FTR_ERROR_NAME (metadata), FTR_ERROR_IO, FTR_ERROR_STATE (another checkpointer has
 * the directory, or the plan has no optimizer), FTR_ERROR_OUT_OF_MEMORY, FTR_ERROR_THREAD. */
FTR_API ftr_status ftr_checkpointer_create(ftr_plan *plan, const ftr_checkpoint_desc *desc,
                                           ftr_checkpointer **checkpointer);

/* Whether one of every_steps, every_seconds and mtbf_seconds asks for a save after `step`. */
FTR_API bool ftr_checkpoint_due(ftr_checkpointer *checkpointer, int64_t step);

/* Copies the state and leaves the writing to the background thread: the call takes as long as the copy. While another
 * save is under way it waits or does nothing, see when_busy. Errors: FTR_ERROR_INVALID_ARGUMENT,
 * FTR_ERROR_OUT_OF_MEMORY (more metadata than ever before), FTR_ERROR_STATE (averages are in the variables, see
 * ftr_plan_swap_average()); with FTR_CHECKPOINT_STOP those of the save before, which
 * then is not tried again. */
FTR_API ftr_status ftr_checkpoint_save(ftr_checkpointer *checkpointer, const ftr_checkpoint_point *point);

/* Waits until the last save is on disk and returns what came of it, once: FTR_OK or FTR_ERROR_IO; the sentence names
 * file and call. */
FTR_API ftr_status ftr_checkpointer_wait(ftr_checkpointer *checkpointer);

/* Counts and times. */
FTR_API ftr_checkpoint_stats ftr_checkpointer_stats(const ftr_checkpointer *checkpointer);

/* Waits for the last save and frees a checkpointer; a failure that was not told yet becomes a warning. NULL is
 * allowed. */
FTR_API void ftr_checkpointer_destroy(ftr_checkpointer *checkpointer);

/* A checkpoint that was read and found intact. */
typedef struct ftr_checkpoint ftr_checkpoint;

/* Facts about a checkpoint. The texts live as long as it. */
typedef struct ftr_checkpoint_info {
    const char *path;
    int64_t version;       /* of the format */
    const char *fasttrain; /* version that wrote it */
    uint64_t seed;
    ftr_checkpoint_point point;
    int64_t applied_steps;   /* of the optimizer */
    const char *metric_name; /* NULL if the point has no metric */
    size_t bytes;            /* of all its files */
} ftr_checkpoint_info;

/* Reads the checkpoint in folder `path` and checks each byte of it. The caller owns *checkpoint. Errors: FTR_ERROR_IO,
 * FTR_ERROR_FORMAT (damaged: the sentence names the file), FTR_ERROR_UNSUPPORTED (written by a newer fasttrain),
 * FTR_ERROR_OUT_OF_MEMORY. */
FTR_API ftr_status ftr_checkpoint_open(ftr_context *context, const char *path, ftr_checkpoint **checkpoint);

/* Opens the newest intact checkpoint in a directory; damaged ones are named in warnings and passed over. Without any
 * checkpoint, or without the directory, *checkpoint is NULL and the result FTR_OK. The directory is left as it is.
 * Errors: those of ftr_checkpoint_open(), FTR_ERROR_FORMAT if there are checkpoints and all are damaged. */
FTR_API ftr_status ftr_checkpoint_find(ftr_context *context, const char *directory, ftr_checkpoint **checkpoint);

/* Facts about a checkpoint. */
FTR_API ftr_checkpoint_info ftr_checkpoint_info_of(const ftr_checkpoint *checkpoint);

/* The caller's metadata under a key; NULL if there is none. Owned by the checkpoint. */
FTR_API const char *ftr_checkpoint_metadata(const ftr_checkpoint *checkpoint, const char *key);

/* A section's tensors: "weights", "optimizer", "best"; NULL if it has none. Owned by the checkpoint. */
FTR_API const ftr_safetensors *ftr_checkpoint_tensors(const ftr_checkpoint *checkpoint, const char *section);

/* Puts weights, optimizer state and step counter into a plan and its graph. All is compared first, and nothing is
 * changed if something does not fit: the seed, the inputs' shapes (the batch size among them), the optimizer and its
 * settings, accumulation and averages, each tensor's name, type and shape. Errors: FTR_ERROR_STATE (also: averages are in
 * the variables), FTR_ERROR_NAME, FTR_ERROR_SHAPE, FTR_ERROR_DTYPE; the sentence has what was found and what was expected. */
FTR_API ftr_status ftr_checkpoint_restore(const ftr_checkpoint *checkpoint, ftr_plan *plan);

/* Frees a checkpoint. NULL is allowed. */
FTR_API void ftr_checkpoint_close(ftr_checkpoint *checkpoint);

/* ftr_checkpoint_find() and ftr_checkpoint_restore(): resumes a loop of one's own. *point (which may be NULL) becomes
 * that of the checkpoint; without any checkpoint its step is -1 and nothing is changed. Errors: those of both. */
FTR_API ftr_status ftr_checkpoint_load(ftr_plan *plan, const char *directory, ftr_checkpoint_point *point);

/* Told of each checkpoint of a directory: `checkpoint` is NULL if it cannot be used, `status` and `message` then say
 * why. What it is given is gone when it returns. */
typedef void (*ftr_checkpoint_list_fn)(void *user, const char *path, ftr_status status, const char *message,
                                       const ftr_checkpoint *checkpoint);

/* Opens the checkpoints of a directory one after another, from the newest to the oldest. Errors: FTR_ERROR_IO (the
 * directory cannot be read), FTR_ERROR_OUT_OF_MEMORY. */
FTR_API ftr_status ftr_checkpoint_list(ftr_context *context, const char *directory, ftr_checkpoint_list_fn tell,
                                       void *user);

#ifdef __cplusplus
}
#endif

#endif
