/* Splits of samples, with the sizes and shares of scikit-learn's train_test_split, KFold, StratifiedKFold and GroupKFold. */
#include "core/draw.h"
#include "core/sort.h"
#include "data/data.h"

#include <math.h>
#include <string.h>

/* Streams of FTR__RNG_SPLIT. */
enum { FTR__SPLIT_SAMPLES = 1, FTR__SPLIT_CLASSES, FTR__SPLIT_TIES };

/* A split being made. */
typedef struct ftr__splitter {
    ftr_context *context;
    const char *caller;
    const ftr_fold_desc *desc;
    bool by_fold;
    ftr__arena arena;
    int32_t *part;     /* of each sample: its fold, or 1 if it is held out and 0 otherwise */
    int64_t *class_of; /* of each sample: its class or group, counted from 0 in the order in which they come up */
    int64_t *sizes;    /* of classes or groups */
    int64_t class_count;
} ftr__splitter;

static void *ftr__split_memory(ftr__splitter *s, int64_t count, size_t size) {
    const bool fits = (uint64_t)count <= SIZE_MAX / size;
    void *memory = fits ? ftr__arena_alloc(&s->arena, (size_t)count * size) : NULL;
    if (!memory) ftr__out_of_memory(s->context, s->caller, fits ? (size_t)count * size : SIZE_MAX);
    return memory;
}

/* Fisher and Yates (Durstenfeld, CACM 7, 1964). */
static void ftr__split_shuffle(const ftr__splitter *s, uint64_t stream, uint64_t substream, int64_t *items,
                               int64_t count) {
    ftr__draw draw = {ftr__rng_make(s->context->seeds.split, FTR__RNG_SPLIT, stream, substream), 0};
    for (int64_t last = count - 1; last > 0; last--) {
        const int64_t other = ftr__draw_index(&draw, last + 1), moved = items[last];
        items[last] = items[other];
        items[other] = moved;
    }
}

/* ------------------------------------------------------------------------------------------------------- description -- */

static ftr_status ftr__split_check(const ftr__splitter *s) {
    const ftr_fold_desc *desc = s->desc;
    if (!desc) return ftr__error(s->context, FTR_ERROR_INVALID_ARGUMENT, "%s: desc is NULL", s->caller);
    if (desc->count < 2 || desc->count > INT64_MAX / (int64_t)sizeof(int64_t))
        return ftr__error(s->context, FTR_ERROR_INVALID_ARGUMENT, "%s: count is %lld, expected 2 or more", s->caller,
                          (long long)desc->count);
    if (desc->groups && !s->by_fold)
        return ftr__error(s->context, FTR_ERROR_INVALID_ARGUMENT, "%s: groups are for ftr_k_fold(), expected NULL",
                          s->caller);
    if (desc->groups && desc->labels)
        return ftr__error(s->context, FTR_ERROR_INVALID_ARGUMENT, "%s: labels and groups, expected one of them",
                          s->caller);
    if (desc->labels && !s->by_fold && desc->no_shuffle)
        return ftr__error(s->context, FTR_ERROR_INVALID_ARGUMENT,
                          "%s: no_shuffle with labels: classes cannot be kept in proportion", s->caller);
    return FTR_OK;
}

/* --------------------------------------------------------------------------------------------------------- classes -- */

/* A sample's label or group, and its number. */
typedef struct ftr__split_key {
    int64_t value, index;
} ftr__split_key;

static int ftr__compare_keys(const void *a, const void *b) {
    const ftr__split_key *x = a, *y = b;
    if (x->value != y->value) return x->value < y->value ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* Numbers the classes (or groups) in the order in which they come up, and counts them. */
static ftr_status ftr__split_classes(ftr__splitter *s) {
    const int64_t count = s->desc->count;
    ftr__split_key *keys = ftr__split_memory(s, count, sizeof *keys);
    const void **sorted = keys ? ftr__split_memory(s, count, sizeof *sorted) : NULL;
    s->class_of = sorted ? ftr__split_memory(s, count, sizeof *s->class_of) : NULL;
    int64_t *number = s->class_of ? ftr__split_memory(s, count, sizeof *number) : NULL; /* by first sample */
    s->sizes = number ? ftr__split_memory(s, count, sizeof *s->sizes) : NULL;
    if (!s->sizes) return FTR_ERROR_OUT_OF_MEMORY;
    for (int64_t i = 0; i < count; i++) {
        keys[i] = (ftr__split_key){s->desc->labels ? s->desc->labels[i] : s->desc->groups[i], i};
        sorted[i] = &keys[i];
    }
    ftr__sort(sorted, count, ftr__compare_keys);
    int64_t first = 0; /* the first sample of the class at hand: the sort put it in front */
    for (int64_t i = 0; i < count; i++) {
        const ftr__split_key *key = sorted[i];
        if (i == 0 || key->value != keys[first].value) first = key->index;
        s->class_of[key->index] = first;
    }
    for (int64_t i = 0; i < count; i++) {
        if (s->class_of[i] == i) number[i] = s->class_count++;
        s->class_of[i] = number[s->class_of[i]];
        s->sizes[s->class_of[i]]++;
    }
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------------ parts -- */

static ftr_status ftr__split_out(const ftr__splitter *s, int32_t held_out, ftr_fold *fold) {
    const int64_t count = s->desc->count;
    int64_t tests = 0;
    for (int64_t i = 0; i < count; i++) tests += s->part[i] == held_out;
    const size_t bytes = (size_t)count * sizeof(int64_t);
    int64_t *train = ftr__allocate(s->context, bytes);
    if (!train) return ftr__out_of_memory(s->context, s->caller, bytes);
    *fold = (ftr_fold){.context = s->context,
                       .train = train,
                       .test = train + (count - tests),
                       .train_count = count - tests,
                       .test_count = tests};
    int64_t trains = 0;
    tests = 0;
    for (int64_t i = 0; i < count; i++)
        if (s->part[i] == held_out)
            fold->test[tests++] = i;
        else
            fold->train[trains++] = i;
    return FTR_OK;
}

/* The samples in an order that `stream` shuffles, or in their own. */
static int64_t *ftr__split_order(ftr__splitter *s) {
    int64_t *order = ftr__split_memory(s, s->desc->count, sizeof *order);
    for (int64_t i = 0; order && i < s->desc->count; i++) order[i] = i;
    if (order && !s->desc->no_shuffle) ftr__split_shuffle(s, FTR__SPLIT_SAMPLES, 0, order, s->desc->count);
    return order;
}

/* --------------------------------------------------------------------------------------------------------- fractions -- */

/* Shares out `draws` samples over the classes, in proportion, each rounded down; those that are missing go to the classes
 * with the largest remainders, the equal ones at random. No product is 2^63 or more: count < 2^31. */
static ftr_status ftr__split_share(ftr__splitter *s, int64_t draws, int64_t *shares) {
    const int64_t classes = s->class_count, total = s->desc->count;
    int64_t *ties = ftr__split_memory(s, classes, sizeof *ties), left = draws;
    ftr__split_key *keys = ties ? ftr__split_memory(s, classes, sizeof *keys) : NULL;
    const void **sorted = keys ? ftr__split_memory(s, classes, sizeof *sorted) : NULL;
    if (!sorted) return FTR_ERROR_OUT_OF_MEMORY;
    for (int64_t c = 0; c < classes; c++) ties[c] = c;
    ftr__split_shuffle(s, FTR__SPLIT_TIES, 0, ties, classes);
    for (int64_t i = 0; i < classes; i++) {
        const int64_t c = ties[i];
        shares[c] = s->sizes[c] * draws / total;
        left -= shares[c];
        keys[i] = (ftr__split_key){-(s->sizes[c] * draws % total), i};
        sorted[i] = &keys[i];
    }
    ftr__sort(sorted, classes, ftr__compare_keys);
    for (int64_t i = 0; i < left; i++) shares[ties[((const ftr__split_key *)sorted[i])->index]]++;
    return FTR_OK;
}

static ftr_status ftr__split_check_classes(const ftr__splitter *s, int64_t tests) {
    const int64_t trains = s->desc->count - tests, smaller = tests < trains ? tests : trains;
    if (s->desc->count > INT32_MAX)
        return ftr__error(s->context, FTR_ERROR_INVALID_ARGUMENT, "%s: count is %lld with labels, expected up to %d",
                          s->caller, (long long)s->desc->count, INT32_MAX);
    for (int64_t i = 0; i < s->desc->count; i++)
        if (s->sizes[s->class_of[i]] < 2)
            return ftr__error(s->context, FTR_ERROR_DATA,
                              "%s: class %d has one sample, number %lld, expected 2 or more", s->caller,
                              (int)s->desc->labels[i], (long long)i);
    if (smaller >= s->class_count) return FTR_OK;
    return ftr__error(s->context, FTR_ERROR_DATA, "%s: %lld classes, but a part of %lld samples", s->caller,
                      (long long)s->class_count, (long long)smaller);
}

/* Each class is shared out: its first samples in a shuffled order are trained on, the rest is held out. */
static ftr_status ftr__split_by_class(ftr__splitter *s, int64_t tests) {
    ftr_status status = ftr__split_classes(s);
    if (status == FTR_OK) status = ftr__split_check_classes(s, tests);
    if (status != FTR_OK) return status;
    const int64_t *order = ftr__split_order(s);
    int64_t *shares = order ? ftr__split_memory(s, s->class_count, sizeof *shares) : NULL;
    status = shares ? ftr__split_share(s, s->desc->count - tests, shares) : FTR_ERROR_OUT_OF_MEMORY;
    for (int64_t i = 0; i < s->desc->count && status == FTR_OK; i++)
        s->part[order[i]] = shares[s->class_of[order[i]]]-- <= 0;
    return status;
}

static ftr_status ftr__split_fraction(ftr__splitter *s, double fraction) {
    const int64_t count = s->desc->count;
    const double wanted = ceil(fraction * (double)count);
    if (!(fraction > 0.0 && fraction < 1.0) || !(wanted < (double)count))
        return ftr__error(s->context, FTR_ERROR_INVALID_ARGUMENT,
                          "%s: test_fraction %g of %lld samples, expected more than 0 and less than all of them",
                          s->caller, fraction, (long long)count);
    const int64_t tests = (int64_t)wanted;
    if (s->desc->labels) return ftr__split_by_class(s, tests);
    const int64_t *order = ftr__split_order(s);
    if (!order) return FTR_ERROR_OUT_OF_MEMORY;
    for (int64_t i = 0; i < count; i++) s->part[order[i]] = i >= count - tests;
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------------ folds -- */

/* Folds of samples in their order, the first ones larger by one if need be. */
static ftr_status ftr__fold_samples(ftr__splitter *s, int32_t folds) {
    const int64_t count = s->desc->count, size = count / folds, larger = count % folds;
    const int64_t *order = ftr__split_order(s);
    int64_t i = 0;
    if (!order) return FTR_ERROR_OUT_OF_MEMORY;
    for (int32_t fold = 0; fold < folds; fold++)
        for (int64_t end = i + size + (fold < larger); i < end; i++) s->part[order[i]] = fold;
    return FTR_OK;
}

/* Samples sorted by class, in the order in which classes come up, are dealt out to the folds one after another: `dealt` of
 * them before this class. Writes the folds of the class's samples in their order: the first fold's first, or shuffled. */
static void ftr__deal_class(const ftr__splitter *s, int32_t folds, int64_t number, int64_t dealt, int64_t *deal) {
    const int64_t size = s->sizes[number];
    int64_t filled = 0;
    for (int32_t fold = 0; fold < folds; fold++) {
        const int64_t skip = (fold - dealt % folds + folds) % folds; /* samples before this fold's first one */
        const int64_t own = skip < size ? (size - 1 - skip) / folds + 1 : 0;
        for (int64_t i = 0; i < own; i++) deal[filled++] = fold;
    }
    if (!s->desc->no_shuffle) ftr__split_shuffle(s, FTR__SPLIT_CLASSES, (uint64_t)number, deal, size);
}

static ftr_status ftr__fold_classes(ftr__splitter *s, int32_t folds) {
    const ftr_status status = ftr__split_classes(s);
    if (status != FTR_OK) return status;
    int64_t largest = 0, dealt = 0;
    for (int64_t c = 0; c < s->class_count; c++) largest = s->sizes[c] > largest ? s->sizes[c] : largest;
    if (largest < folds)
        return ftr__error(s->context, FTR_ERROR_DATA, "%s: %d folds, but the largest of %lld classes has %lld samples",
                          s->caller, (int)folds, (long long)s->class_count, (long long)largest);
    int64_t *deal = ftr__split_memory(s, s->desc->count, sizeof *deal);
    int64_t *next = deal ? ftr__split_memory(s, s->class_count, sizeof *next) : NULL; /* of each class, in `deal` */
    if (!next) return FTR_ERROR_OUT_OF_MEMORY;
    for (int64_t c = 0; c < s->class_count; c++) {
        next[c] = dealt;
        ftr__deal_class(s, folds, c, dealt, deal + dealt);
        dealt += s->sizes[c];
    }
    for (int64_t i = 0; i < s->desc->count; i++) s->part[i] = (int32_t)deal[next[s->class_of[i]]++];
    return FTR_OK;
}

/* Largest first; of equal ones the one that comes up first. value is the size, negative. */
static ftr_status ftr__fold_groups(ftr__splitter *s, int32_t folds) {
    ftr_status status = ftr__split_classes(s);
    if (status != FTR_OK) return status;
    if (s->class_count < folds)
        return ftr__error(s->context, FTR_ERROR_DATA, "%s: %d folds, but %lld groups", s->caller, (int)folds,
                          (long long)s->class_count);
    ftr__split_key *keys = ftr__split_memory(s, s->class_count, sizeof *keys);
    const void **sorted = keys ? ftr__split_memory(s, s->class_count, sizeof *sorted) : NULL;
    int64_t *filled = sorted ? ftr__split_memory(s, folds, sizeof *filled) : NULL;
    int32_t *fold_of = filled ? ftr__split_memory(s, s->class_count, sizeof *fold_of) : NULL;
    if (!fold_of) return FTR_ERROR_OUT_OF_MEMORY;
    for (int64_t g = 0; g < s->class_count; g++) {
        keys[g] = (ftr__split_key){-s->sizes[g], g};
        sorted[g] = &keys[g];
    }
    ftr__sort(sorted, s->class_count, ftr__compare_keys);
    for (int64_t i = 0; i < s->class_count; i++) {
        const int64_t group = ((const ftr__split_key *)sorted[i])->index;
        int32_t least = 0;
        for (int32_t fold = 1; fold < folds; fold++)
            if (filled[fold] < filled[least]) least = fold;
        filled[least] += s->sizes[group];
        fold_of[group] = least;
    }
    for (int64_t i = 0; i < s->desc->count; i++) s->part[i] = fold_of[s->class_of[i]];
    return FTR_OK;
}

static ftr_status ftr__split_folds(ftr__splitter *s, int32_t folds, int32_t number) {
    if (folds < 2 || folds > s->desc->count)
        return ftr__error(s->context, FTR_ERROR_INVALID_ARGUMENT, "%s: folds is %d, expected 2 to %lld (count)",
                          s->caller, (int)folds, (long long)s->desc->count);
    if (number < 0 || number >= folds)
        return ftr__error(s->context, FTR_ERROR_INVALID_ARGUMENT, "%s: number is %d, expected 0 to %d", s->caller,
                          (int)number, (int)folds - 1);
    if (s->desc->labels) return ftr__fold_classes(s, folds);
    return s->desc->groups ? ftr__fold_groups(s, folds) : ftr__fold_samples(s, folds);
}

/* ------------------------------------------------------------------------------------------------------------ calls -- */

static ftr_status ftr__split_run(ftr__splitter *s, double fraction, int32_t folds, int32_t number, ftr_fold *fold) {
    ftr_status status = ftr__split_check(s);
    if (status != FTR_OK) return status;
    s->part = ftr__split_memory(s, s->desc->count, sizeof *s->part);
    if (!s->part) return FTR_ERROR_OUT_OF_MEMORY;
    status = s->by_fold ? ftr__split_folds(s, folds, number) : ftr__split_fraction(s, fraction);
    return status == FTR_OK ? ftr__split_out(s, s->by_fold ? number : 1, fold) : status;
}

static ftr_status ftr__split_call(ftr__splitter *s, double fraction, int32_t folds, int32_t number, ftr_fold *fold) {
    if (fold) memset(fold, 0, sizeof *fold);
    if (!s->context) return FTR_ERROR_INVALID_ARGUMENT;
    if (!fold) return ftr__error(s->context, FTR_ERROR_INVALID_ARGUMENT, "%s: fold is NULL", s->caller);
    ftr__arena_init(&s->arena, s->context);
    const ftr_status status = ftr__split_run(s, fraction, folds, number, fold);
    ftr__arena_free(&s->arena);
    return status;
}

ftr_status ftr_train_test_split(ftr_context *context, const ftr_fold_desc *desc, double test_fraction, ftr_fold *fold) {
    ftr__splitter s = {.context = context, .caller = "ftr_train_test_split", .desc = desc};
    return ftr__split_call(&s, test_fraction, 0, 0, fold);
}

ftr_status ftr_k_fold(ftr_context *context, const ftr_fold_desc *desc, int32_t folds, int32_t number, ftr_fold *fold) {
    ftr__splitter s = {.context = context, .caller = "ftr_k_fold", .desc = desc, .by_fold = true};
    return ftr__split_call(&s, 0.0, folds, number, fold);
}

void ftr_fold_free(ftr_fold *fold) {
    if (!fold) return;
    if (fold->train)
        ftr__release(fold->context, fold->train, (size_t)(fold->train_count + fold->test_count) * sizeof(int64_t));
    memset(fold, 0, sizeof *fold);
}
