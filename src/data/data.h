/* A source's insides, for the training loop. */
#ifndef FTR_DATA_DATA_H
#define FTR_DATA_DATA_H

#include "core/core.h"

typedef struct ftr__source_field {
    const char *name;
    ftr_dtype dtype;
    ftr_shape shape;           /* of one sample */
    int64_t bytes;             /* of one sample */
    const unsigned char *data; /* memory sources: all samples, owned by the caller; otherwise NULL */
} ftr__source_field;

struct ftr_source {
    ftr_context *context;
    ftr__arena arena;
    const char *name;
    int64_t count;
    const ftr_source *parent; /* of a subset; otherwise NULL */
    const int64_t *indices;   /* in the parent */
    int32_t field_count;
    ftr__source_field fields[FTR_MAX_FIELDS];
    void *user;
    ftr_status (*read)(void *user, int64_t index, void *const *fields);
};

/* Field number of a name; -1 if the source has none. */
FTR_LIB int32_t ftr__source_find(const ftr_source *source, const char *name);

/* Reads one sample; a failure is recorded with the source's name and the index. */
FTR_LIB ftr_status ftr__source_read(const ftr_source *source, int64_t index, void *const *fields);

#endif
