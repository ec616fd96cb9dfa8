#ifndef FTR_API_DATA_H
#define FTR_API_DATA_H

#include "api/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Data sources. A source has `count` samples of the same fields (an image and its label, say); fields are matched with a
 * graph's inputs by name. */
#define FTR_MAX_FIELDS 16

/* One field of a source. */
typedef struct ftr_field {
    const char *name; /* of the graph input it feeds; copied */
    ftr_dtype dtype;
    ftr_shape shape; /* of one sample; the graph's input has the batch in front of it */
} ftr_field;

typedef struct ftr_source ftr_source;

/* A source of the caller's making. `read` writes sample `index` (0 <= index < count) into fields[f], each of its field's
 * size; a status other than FTR_OK stops the run and is reported with the index. */
typedef struct ftr_source_desc {
    const char *name; /* for messages; copied */
    int64_t count;
    const ftr_field *fields;
    int32_t field_count;
    void *user;
    ftr_status (*read)(void *user, int64_t index, void *const *fields);
} ftr_source_desc;

/* Makes a source from functions. The caller owns *source. Errors: FTR_ERROR_INVALID_ARGUMENT, FTR_ERROR_NAME (two fields of
 * one name), FTR_ERROR_OUT_OF_MEMORY. */
FTR_API ftr_status ftr_source_create(ftr_context *context, const ftr_source_desc *desc, ftr_source **source);

/* Makes a source from arrays: data[f] holds `count` samples of fields[f] one after another. The arrays are not copied and
 * must outlive the source. The caller owns *source. Errors as ftr_source_create(). */
FTR_API ftr_status ftr_memory_source(ftr_context *context, const char *name, int64_t count, const ftr_field *fields,
                                     const void *const *data, int32_t field_count, ftr_source **source);

/* Frees a source. NULL is allowed. */
FTR_API void ftr_source_destroy(ftr_source *source);

/* Number of samples. */
FTR_API int64_t ftr_source_count(const ftr_source *source);

/* Position `position` (0 <= position < count) of epoch `epoch` in shuffled order: a pure function, a permutation of
 * 0 .. count - 1 for each (seed, epoch). Needs no memory. -1 if position is out of range. Thread safe. */
FTR_API int64_t ftr_shuffled_index(uint64_t seed, uint64_t epoch, int64_t position, int64_t count);

#ifdef __cplusplus
}
#endif

#endif
