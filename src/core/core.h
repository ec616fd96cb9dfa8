/* What every file of the implementation uses: linkage, context, errors, memory, log. */
#ifndef FTR_CORE_CORE_H
#define FTR_CORE_CORE_H

#include "api/backend.h"
#include "api/cuda.h"
#include "api/compile.h"
#include "api/data.h"
#include "api/io.h"
#include "api/train.h"
#include "core/linkage.h"

#define FTR__PRINTF(text, first) FTR_PRINTF(text, first)

#define FTR__ALIGNMENT 64
#define FTR__MESSAGE_SIZE 512
#define FTR__ARRAY_LENGTH(array) ((int32_t)(sizeof(array) / sizeof((array)[0])))

struct ftr_context {
    ftr_allocator allocator;
    ftr_logger logger;
    ftr_log_level log_level;
    bool log_to_terminal; /* the logger is the default one and stderr is a terminal */
    uint64_t seed;
    ftr_seeds seeds; /* resolved */
    int32_t threads;
    int32_t device; /* of the backend; -1: it chooses */
    const ftr_backend *backend;
    void *backend_state;
    ftr_status status;
    char message[FTR__MESSAGE_SIZE];
};

/* Records a failure on a context (NULL is allowed) and returns `status`. */
FTR_LIB ftr_status ftr__error(ftr_context *context, ftr_status status, const char *format, ...) FTR__PRINTF(3, 4);

/* FTR_ERROR_OUT_OF_MEMORY with "what: N bytes could not be allocated". */
FTR_LIB ftr_status ftr__out_of_memory(ftr_context *context, const char *what, size_t bytes);

FTR_LIB void ftr__log(const ftr_context *context, ftr_log_level level, const char *format, ...) FTR__PRINTF(3, 4);
FTR_LIB void ftr__log_transient(const ftr_context *context, const char *format, ...) FTR__PRINTF(2, 3);

/* Memory through the hook, aligned to FTR__ALIGNMENT; not cleared; NULL when there is none. release allows NULL. */
FTR_LIB void *ftr__allocate(const ftr_context *context, size_t size);
FTR_LIB void ftr__release(const ftr_context *context, void *memory, size_t size);

/* Memory that lives as long as its owner: chunks from the hook, handed out one piece after another, all freed at once. */
typedef struct ftr__arena_chunk ftr__arena_chunk;
typedef struct ftr__arena {
    const ftr_context *context;
    ftr__arena_chunk *chunks; /* newest first */
    size_t bytes;             /* taken from the hook */
} ftr__arena;

FTR_LIB void ftr__arena_init(ftr__arena *arena, const ftr_context *context);
FTR_LIB void ftr__arena_free(ftr__arena *arena);
/* Cleared memory, aligned to 16; NULL when there is none. Size 0 gives a valid pointer. */
FTR_LIB void *ftr__arena_alloc(ftr__arena *arena, size_t size);
FTR_LIB char *ftr__arena_string(ftr__arena *arena, const char *text);
/* Makes room for one more element in an array of `count` with room for `*capacity`; the old array stays in the arena.
 * False when memory is short; the array is then unchanged. */
FTR_LIB bool ftr__arena_grow(ftr__arena *arena, void **array, int32_t count, int32_t *capacity, size_t element_size);

/* "[64, 8, 8, 1]"; the text is cut to what fits. Returns `text`. */
#define FTR__SHAPE_TEXT 128
FTR_LIB const char *ftr__shape_text(const ftr_shape *shape, char text[FTR__SHAPE_TEXT]);

/* The same of any number of dimensions, with "..." for those that do not fit. `size` is 40 or more. */
FTR_LIB const char *ftr__dims_text(int32_t rank, const int64_t *dim, char *text, size_t size);

/* Whether a name fits a pattern: '*' stands for any characters or none, dots included, and '?' for one (of UTF-8). */
FTR_LIB bool ftr__glob_match(const char *pattern, const char *name);

/* printf through a writer, in pieces of at most 1 KiB. */
FTR_LIB void ftr__print(ftr_write_fn write, void *user, const char *format, ...) FTR__PRINTF(3, 4);

#endif
