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

/* Makes a source of samples of another one: its sample i is sample indices[i] of `parent`, fields and all. `indices` is
 * copied; an index may come up several times. `parent`, which may be a subset too, must outlive the source; a sample that
 * cannot be read is reported with its own name and index. The caller owns *source. Errors as ftr_source_create();
 * FTR_ERROR_DATA (an index outside the parent). */
FTR_API ftr_status ftr_source_subset(ftr_source *parent, const char *name, const int64_t *indices, int64_t count,
                                     ftr_source **source);

/* Frees a source. NULL is allowed. */
FTR_API void ftr_source_destroy(ftr_source *source);

/* Number of samples. */
FTR_API int64_t ftr_source_count(const ftr_source *source);

/* Position `position` (0 <= position < count) of epoch `epoch` in shuffled order: a pure function, a permutation of
 * 0 .. count - 1 for each (seed, epoch). Needs no memory. -1 if position is out of range. Thread safe. */
FTR_API int64_t ftr_shuffled_index(uint64_t seed, uint64_t epoch, int64_t position, int64_t count);

/* ------------------------------------------------------------------------------------------------------------------
 * Splits: which samples are trained on, and which are held out. */

/* What is split. All but `count` may be 0. */
typedef struct ftr_fold_desc {
    int64_t count;         /* of samples */
    const int32_t *labels; /* of each sample, any numbers: each class is split in proportion. NULL: it is not */
    const int64_t *groups; /* of each sample, any numbers: none is in both parts; ftr_k_fold() only. NULL: none */
    bool no_shuffle;       /* samples are held out in their own order */
} ftr_fold_desc;

/* Two lists of sample numbers, ascending, that have no number in common. Given back with ftr_fold_free(). */
typedef struct ftr_fold {
    ftr_context *context;
    int64_t *train, *test; /* one block of train_count + test_count, which begins with `train` */
    int64_t train_count, test_count;
} ftr_fold;

/* Holds out ceil(test_fraction * count) samples, at random or, with no_shuffle, the last ones; the others are trained on.
 * With labels each class gets its share of both parts, rounded so that the sizes are kept; what is equally near is rounded
 * at random. Sizes, shares and what is refused are those of scikit-learn's train_test_split; which samples they are follows
 * from ftr_seeds.split. Errors: FTR_ERROR_INVALID_ARGUMENT (a fraction that leaves a part empty; no_shuffle with labels;
 * groups), FTR_ERROR_DATA (a class of one sample, more classes than one of the parts has samples),
 * FTR_ERROR_OUT_OF_MEMORY; *fold is then empty. */
FTR_API ftr_status ftr_train_test_split(ftr_context *context, const ftr_fold_desc *desc, double test_fraction,
                                        ftr_fold *fold);

/* Fold `number` (0 to folds - 1) of a cross-validation: each sample is held out in exactly one fold. The first count % folds
 * folds hold out a sample more than the others (scikit-learn's KFold). With labels each fold has each class in proportion
 * (StratifiedKFold; without shuffling its very folds). With groups, whole groups are dealt out, the largest first, each to
 * the fold that has fewest samples (GroupKFold); this is not shuffled. Otherwise folds follow from ftr_seeds.split, and are
 * the same in every call. Errors as ftr_train_test_split(); folds is 2 to count; FTR_ERROR_DATA if no class has as many
 * samples as there are folds, or if there are fewer groups; labels and groups together are refused.
 *
 *     for (int32_t i = 0; i < 5; i++) {
 *         ftr_fold fold;
 *         if (ftr_k_fold(ctx, &(ftr_fold_desc){.count = n, .labels = labels}, 5, i, &fold)) ...
 *         ftr_source_subset(all, "train", fold.train, fold.train_count, &t.train);
 *         ftr_source_subset(all, "held out", fold.test, fold.test_count, &t.eval);
 *         ftr_graph *g = build(ctx, &t);
 *         if (ftr_fit(g, &t, &result[i])) ...
 *         ftr_graph_destroy(g), ftr_source_destroy(t.train), ftr_source_destroy(t.eval), ftr_fold_free(&fold);
 *     } */
FTR_API ftr_status ftr_k_fold(ftr_context *context, const ftr_fold_desc *desc, int32_t folds, int32_t number,
                              ftr_fold *fold);

/* Gives the lists back and clears the struct. NULL is allowed. */
FTR_API void ftr_fold_free(ftr_fold *fold);

#ifdef __cplusplus
}
#endif

#endif
