/* What tests share: cmocka with the headers it needs, a counting allocator, a capturing logger, contexts, random fills.
 * Everything is static inline, so that a test program is its own files and the library. */
#ifndef FTR_TESTS_SUPPORT_FTR_TEST_H
#define FTR_TESTS_SUPPORT_FTR_TEST_H

/* cmocka wants these four before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fasttrain.h"

#define FTR_TEST_LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* ----------------------------------------------------------------------------------------------------- allocator -- */

/* Counts what goes through the allocator hook. All 0 is a valid start. Sizes and alignments that come back with release
 * are compared with those that were asked for; `wrong` counts the differences. */
typedef struct ftr_test_memory {
    size_t live, peak; /* bytes */
    int64_t calls;     /* of allocate, failed ones included */
    int64_t blocks;    /* live */
    int64_t wrong;     /* releases with another size or alignment than the allocation */
    int64_t fail_at;   /* number of the call that returns NULL, from 1; 0: none */
    bool fail_after;   /* all calls from fail_at on fail */
} ftr_test_memory;

/* In front of each block. 64 bytes, so that what follows stays aligned. */
typedef struct ftr_test_block {
    size_t size, alignment;
    unsigned char unused[48];
} ftr_test_block;

static inline void *ftr_test_allocate(void *user, size_t size, size_t alignment) {
    ftr_test_memory *memory = (ftr_test_memory *)user;
    memory->calls++;
    if (memory->fail_at > 0 &&
        (memory->calls == memory->fail_at || (memory->fail_after && memory->calls > memory->fail_at))) {
        return NULL;
    }
    ftr_test_block *block = (ftr_test_block *)aligned_alloc(64, sizeof(ftr_test_block) + (size + 63) / 64 * 64);
    if (!block) {
        return NULL;
    }
    block->size = size;
    block->alignment = alignment;
    memset(block + 1, 0xa5, size); /* nobody may count on cleared memory */
    memory->blocks++;
    memory->live += size;
    if (memory->live > memory->peak) {
        memory->peak = memory->live;
    }
    return block + 1;
}

static inline void ftr_test_release(void *user, void *pointer, size_t size, size_t alignment) {
    ftr_test_memory *memory = (ftr_test_memory *)user;
    if (!pointer) {
        return;
    }
    ftr_test_block *block = (ftr_test_block *)pointer - 1;
    memory->wrong += block->size != size || block->alignment != alignment;
    memory->blocks--;
    memory->live -= block->size;
    free(block);
}

static inline ftr_allocator ftr_test_allocator(ftr_test_memory *memory) {
    return (ftr_allocator){.user = memory, .allocate = ftr_test_allocate, .release = ftr_test_release};
}

/* -------------------------------------------------------------------------------------------------------- logger -- */

/* Keeps messages, one a line; transient ones are counted only. What does not fit is cut. */
typedef struct ftr_test_log {
    char text[8192];
    size_t length;
    int64_t messages, transient;
} ftr_test_log;

static inline void ftr_test_log_write(void *user, ftr_log_level level, bool transient, const char *message) {
    ftr_test_log *log = (ftr_test_log *)user;
    (void)level;
    if (transient) {
        log->transient++;
        return;
    }
    log->messages++;
    size_t room = sizeof log->text - log->length;
    int written = snprintf(log->text + log->length, room, "%s\n", message);
    if (written > 0) {
        log->length += (size_t)written < room ? (size_t)written : room - 1;
    }
}

static inline ftr_logger ftr_test_logger(ftr_test_log *log) {
    return (ftr_logger){.user = log, .write = ftr_test_log_write};
}

/* An ftr_write_fn that collects what is printed. */
typedef struct ftr_test_text {
    char text[65536];
    size_t length;
} ftr_test_text;

static inline void ftr_test_text_write(void *user, const char *text, size_t length) {
    ftr_test_text *into = (ftr_test_text *)user;
    size_t room = sizeof into->text - 1 - into->length;
    size_t count = length < room ? length : room;
    memcpy(into->text + into->length, text, count);
    into->length += count;
    into->text[into->length] = 0;
}

/* ------------------------------------------------------------------------------------------------------ contexts -- */

/* A silent context; fails the test if there is none. `backend` NULL is the CPU's, `memory` may be NULL. */
static inline ftr_context *ftr_test_context_with(const ftr_backend *backend, uint64_t seed, int32_t threads,
                                                 ftr_test_memory *memory) {
    ftr_context_desc desc = {.seed = seed, .threads = threads, .log_level = FTR_LOG_SILENT, .backend = backend};
    if (memory) {
        desc.allocator = ftr_test_allocator(memory);
    }
    ftr_context *context = NULL;
    ftr_status status = ftr_context_create(&desc, &context);
    if (status != FTR_OK || !context) {
        fail_msg("no context: %s", ftr_status_name(status));
    }
    return context;
}

/* A silent context on the CPU with seed 1 and two threads. */
static inline ftr_context *ftr_test_context(void) { return ftr_test_context_with(NULL, 1, 2, NULL); }

/* What tests about one graph start with: the state that ftr_test_setup() makes and ftr_test_teardown() frees. */
typedef struct ftr_test_fixture {
    ftr_context *context;
    ftr_graph *graph;
} ftr_test_fixture;

static inline int ftr_test_setup(void **state) {
    ftr_test_fixture *f = (ftr_test_fixture *)calloc(1, sizeof *f);
    f->context = ftr_test_context();
    f->graph = ftr_graph_create(f->context);
    *state = f;
    return 0;
}

static inline int ftr_test_teardown(void **state) {
    ftr_test_fixture *f = (ftr_test_fixture *)*state;
    ftr_graph_destroy(f->graph);
    ftr_context_destroy(f->context);
    free(f);
    return 0;
}

/* Fails the test, with the context's sentence, if a call did not succeed. */
#define FTR_TEST_OK(context, call)                                                                                     \
    do {                                                                                                               \
        ftr_status ftr_test_status = (call);                                                                           \
        if (ftr_test_status != FTR_OK) {                                                                               \
            fail_msg("%s: %s: %s", #call, ftr_status_name(ftr_test_status), ftr_error_message(context));               \
        }                                                                                                              \
    } while (0)

/* Fails the test, with the graph's sentence, if a builder failed. */
#define FTR_TEST_GRAPH_OK(graph)                                                                                       \
    do {                                                                                                               \
        if (ftr_graph_status(graph) != FTR_OK) {                                                                       \
            fail_msg("%s: %s", ftr_status_name(ftr_graph_status(graph)), ftr_graph_error(graph));                      \
        }                                                                                                              \
    } while (0)

/* -------------------------------------------------------------------------------------------------------- random -- */

/* splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014): the tests' own random
 * numbers, which do not depend on the library's. */
typedef struct ftr_test_rng {
    uint64_t state;
} ftr_test_rng;

static inline uint64_t ftr_test_random(ftr_test_rng *rng) {
    uint64_t z = rng->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Uniform in [low, high), a multiple of 2^-24 of the width: the same value in f32 and f64 if low and high are small. */
static inline double ftr_test_uniform(ftr_test_rng *rng, double low, double high) {
    return low + (high - low) * (double)(ftr_test_random(rng) >> 40) * 0x1p-24;
}

/* An integer in [low, high], both included. */
static inline int64_t ftr_test_integer(ftr_test_rng *rng, int64_t low, int64_t high) {
    return low + (int64_t)(ftr_test_random(rng) % (uint64_t)(high - low + 1));
}

static inline void ftr_test_fill_f32(float *data, int64_t count, ftr_test_rng *rng, double low, double high) {
    for (int64_t i = 0; i < count; i++) {
        data[i] = (float)ftr_test_uniform(rng, low, high);
    }
}

static inline void ftr_test_fill_i32(int32_t *data, int64_t count, ftr_test_rng *rng, int64_t low, int64_t high) {
    for (int64_t i = 0; i < count; i++) {
        data[i] = (int32_t)ftr_test_integer(rng, low, high);
    }
}

#endif
