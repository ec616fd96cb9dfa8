/* From a source to a plan's inputs: which field feeds which input, and batches of samples written where the plan reads
 * them. */
#ifndef FTR_TRAIN_FEED_H
#define FTR_TRAIN_FEED_H

#include "data/data.h"
#include "graph/graph.h"

typedef struct ftr__feed_input {
    ftr_tensor tensor;
    int32_t field; /* of the source; -1 for the batch mask */
    int64_t sample_bytes;
    unsigned char *memory; /* one batch: the plan's own memory, or a part of `staging` */
    bool staged;           /* goes through ftr_feed() */
} ftr__feed_input;

typedef struct ftr__feed {
    ftr_context *context;
    const char *caller; /* "ftr_fit", for messages */
    const ftr_source *source;
    ftr_plan *plan;
    int64_t batch;
    int32_t input_count;
    ftr__feed_input inputs[FTR_MAX_FIELDS + 1];
    ftr__feed_input *mask;                 /* among inputs; NULL if the tensors asked for do not depend on one */
    unsigned char *target[FTR_MAX_FIELDS]; /* where sample 0 of each field of the source goes */
    int64_t stride[FTR_MAX_FIELDS];        /* 0 for a field that feeds nothing */
    unsigned char *staging;
    size_t staging_bytes;
} ftr__feed;

/* Matches the inputs that `roots` depend on with the source's fields. ftr__feed_free() is right after any outcome. */
FTR_LIB ftr_status ftr__feed_match(ftr__feed *feed, const char *caller, ftr_graph *graph, const ftr_source *source,
                                   const ftr_tensor *roots, int32_t root_count);

/* Finds or makes the memory that batches are written to. Nothing is allocated after this. */
FTR_LIB ftr_status ftr__feed_bind(ftr__feed *feed, ftr_plan *plan);

/* Feeds samples first .. first + real - 1 of an order; the rest of the batch is zeros and masked. `order` is NULL for
 * the source's own. */
typedef struct ftr__feed_order {
    uint64_t seed, epoch;
} ftr__feed_order;
FTR_LIB ftr_status ftr__feed_batch(ftr__feed *feed, const ftr__feed_order *order, int64_t first, int64_t real);

FTR_LIB void ftr__feed_free(ftr__feed *feed);

#endif
