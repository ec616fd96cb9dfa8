/* Checkpoints from inside. A checkpoint is a list of sections. A section has tensors, which become the file
 * "<name>.safetensors", or values, which become an object under its name in checkpoint.json, or both. Whoever has state
 * to keep adds a section; the format does not change for it. */
#ifndef FTR_IO_CHECKPOINT_H
#define FTR_IO_CHECKPOINT_H

#include "core/json.h"
#include "io/folder.h"
#include "io/weights.h"

#define FTR__CHECKPOINT_VERSION 1
#define FTR__CHECKPOINT_JSON "checkpoint.json"
#define FTR__CHECKPOINT_FORMAT "fasttrain checkpoint"

/* checkpoint.json ends with this, the digest being that of all bytes before: the only part that no version may change.
 * */
#define FTR__CHECKPOINT_TAIL "\"crc32c\":\"%08" PRIx32 "\"}\n"
#define FTR__CHECKPOINT_TAIL_BYTES 21

/* ------------------------------------------------------------------------------------------------------ sections -- */

/* Members of objects of checkpoint.json. */
typedef struct ftr__checkpoint_out {
    ftr__json_writer json;
    bool comma; /* the object that is open has a member */
} ftr__checkpoint_out;

FTR_LIB void ftr__checkpoint_put_key(ftr__checkpoint_out *out, const char *key);
FTR_LIB void ftr__checkpoint_put_integer(ftr__checkpoint_out *out, const char *key, int64_t value);
FTR_LIB void ftr__checkpoint_put_real(ftr__checkpoint_out *out, const char *key, double value);
FTR_LIB void ftr__checkpoint_put_reals(ftr__checkpoint_out *out, const char *key, const double *values, int32_t count);
FTR_LIB void ftr__checkpoint_put_string(ftr__checkpoint_out *out, const char *key, const char *value);
FTR_LIB void ftr__checkpoint_put_digits(ftr__checkpoint_out *out, const char *key, uint64_t value); /* as a string */
FTR_LIB void ftr__checkpoint_put_bool(ftr__checkpoint_out *out, const char *key, bool value);
FTR_LIB void ftr__checkpoint_open_object(ftr__checkpoint_out *out, const char *key);
FTR_LIB void ftr__checkpoint_close_object(ftr__checkpoint_out *out);

typedef struct ftr__checkpoint_tensor {
    const char *name;
    ftr_dtype dtype;
    ftr_shape shape; /* the file's */
    size_t bytes;
    size_t offset;  /* in the staging memory, where it lies as plans have it */
    bool permuted;  /* OHWI in memory, OIHW in the file */
    int64_t window; /* H * W of a permuted one */
} ftr__checkpoint_tensor;

typedef struct ftr__checkpoint_section {
    const char *name;
    const ftr__checkpoint_tensor *tensors;
    int32_t count;
    size_t bytes; /* of the staging memory */
    void *user;
    bool (*present)(void *user);                                     /* whether the next save has it; NULL: always */
    ftr_status (*copy)(void *user, unsigned char *to);               /* all tensors, each at its offset */
    ftr_status (*put)(void *user, int32_t tensor, const void *data); /* back into place, in the layout of plans */
    void (*write)(void *user, ftr__checkpoint_out *out);             /* members of the object; NULL: no values */
} ftr__checkpoint_section;

/* ------------------------------------------------------------------------------------------------------- writing -- */

/* ftr_checkpointer_create() with sections besides those of the plan. What they point to outlives the checkpointer. */
FTR_LIB ftr_status ftr__checkpointer_create(ftr_plan *plan, const ftr_checkpoint_desc *desc,
                                            const ftr__checkpoint_section *sections, int32_t count,
                                            ftr_checkpointer **checkpointer);

/* Number of checkpoints in the directory when it was opened, damaged ones included. */
FTR_LIB int32_t ftr__checkpointer_found(const ftr_checkpointer *checkpointer);

/* Whether a save is being written; waits up to `seconds` for its end. */
FTR_LIB bool ftr__checkpointer_is_busy(ftr_checkpointer *checkpointer, double seconds);

/* Has the save that is being written given up as soon as the call to the system returns that it is in. */
FTR_LIB void ftr__checkpointer_cancel(ftr_checkpointer *checkpointer);

/* ------------------------------------------------------------------------------------------------------- reading -- */

typedef struct ftr__checkpoint_file {
    const char *name;
    int64_t bytes;
    uint32_t crc;
    ftr_safetensors *tensors;
} ftr__checkpoint_file;

struct ftr_checkpoint {
    ftr_context *context;
    ftr__arena arena;
    ftr_checkpoint_info info;
    const ftr__json *sections; /* an object of objects */
    const ftr__json *metadata; /* an object of strings */
    ftr__checkpoint_file *files;
    int32_t file_count;
};

/* Where the files of a checkpoint come from. Gives the whole of file `name` in memory of ftr__allocate(); `label` is
 * what messages call it; `expected` is its size, or -1 if it is not known. */
typedef ftr_status (*ftr__checkpoint_read_fn)(void *user, ftr_context *context, const char *label, const char *name,
                                              int64_t expected, unsigned char **bytes, size_t *size);

/* ftr_checkpoint_open() from anywhere. */
FTR_LIB ftr_status ftr__checkpoint_read(ftr_context *context, const char *path, ftr__checkpoint_read_fn read,
                                        void *user, ftr_checkpoint **checkpoint);

/* Reads checkpoint.json alone, for its facts; the sizes of the other files are compared, their bytes are not read. */
FTR_LIB ftr_status ftr__checkpoint_peek(ftr_context *context, const char *path, ftr_checkpoint **checkpoint);

/* Values of an object, each with its type and range checked. The first failure sticks; calls after it give 0. */
typedef struct ftr__checkpoint_values {
    ftr_context *context;
    const char *path;    /* of the checkpoint */
    const char *section; /* "" for the outermost object */
    const ftr__json *object;
    ftr_status status;
} ftr__checkpoint_values;

/* A section's values; without such a section a failure. */
FTR_LIB ftr__checkpoint_values ftr__checkpoint_values_of(const ftr_checkpoint *checkpoint, const char *section);
/* A member that is an object; `section` is what messages call it. */
FTR_LIB ftr__checkpoint_values ftr__checkpoint_object(const ftr__checkpoint_values *values, const char *key,
                                                      const char *section);
FTR_LIB bool ftr__checkpoint_has(const ftr__checkpoint_values *values, const char *key);
FTR_LIB int64_t ftr__checkpoint_integer(ftr__checkpoint_values *values, const char *key, int64_t low, int64_t high);
FTR_LIB double ftr__checkpoint_real(ftr__checkpoint_values *values, const char *key);
FTR_LIB void ftr__checkpoint_reals(ftr__checkpoint_values *values, const char *key, double *reals, int32_t count);
FTR_LIB const char *ftr__checkpoint_string(ftr__checkpoint_values *values, const char *key); /* never NULL */
FTR_LIB bool ftr__checkpoint_bool(ftr__checkpoint_values *values, const char *key);
FTR_LIB uint64_t ftr__checkpoint_digits(ftr__checkpoint_values *values, const char *key); /* a string of digits */

/* Compares a value that must be as it is now; a difference is an FTR_ERROR_STATE that names it. */
FTR_LIB void ftr__checkpoint_same_integer(ftr__checkpoint_values *values, const char *key, int64_t now);
FTR_LIB void ftr__checkpoint_same_real(ftr__checkpoint_values *values, const char *key, double now,
                                       double otherwise); /* what it is if it is not there; NaN: it must be */
FTR_LIB void ftr__checkpoint_same_string(ftr__checkpoint_values *values, const char *key, const char *now);
FTR_LIB void ftr__checkpoint_same_bool(ftr__checkpoint_values *values, const char *key, bool now);

/* Whether a section's tensors are those of the checkpoint: each there, of the same type and shape, and no other. */
FTR_LIB ftr_status ftr__checkpoint_match(const ftr_checkpoint *checkpoint, const ftr__checkpoint_section *section);

/* Puts a section's tensors, which match, into place. `scratch` has room for the largest permuted one. */
FTR_LIB ftr_status ftr__checkpoint_put(const ftr_checkpoint *checkpoint, const ftr__checkpoint_section *section,
                                       unsigned char *scratch);

/* --------------------------------------------------------------------------------------------- sections of plans -- */

#define FTR__CHECKPOINT_PLAN_SECTIONS 3

/* A plan's sections: "weights", "optimizer" and "plan". */
FTR_LIB ftr_status ftr__checkpoint_plan_sections(ftr_plan *plan, ftr__arena *arena,
                                                 ftr__checkpoint_section sections[FTR__CHECKPOINT_PLAN_SECTIONS]);

/* A section of the graph's variables under another name, whose copy lies in one block, as the graph's own memory does:
 * ftr__variable.offset. `copy`, `put` and `user` are the caller's to fill. */
FTR_LIB ftr_status ftr__checkpoint_variables(ftr_graph *graph, ftr__arena *arena, const char *name,
                                             ftr__checkpoint_section *section);

/* ftr_checkpoint_restore() with sections besides those of the plan: all are compared before the first is changed. */
FTR_LIB ftr_status ftr__checkpoint_restore(const ftr_checkpoint *checkpoint, ftr_plan *plan,
                                           const ftr__checkpoint_section *sections, int32_t count);

#endif
