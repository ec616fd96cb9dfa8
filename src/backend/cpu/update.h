/* What the kernels of the optimizers share: the common inputs, and parameters cut into chunks for what needs a sum
 * over each of them. */
#ifndef FTR_BACKEND_CPU_UPDATE_H
#define FTR_BACKEND_CPU_UPDATE_H

#include "backend/cpu/cpu.h"

#define FTR__UPDATE_GRAIN 16384 /* elements of a task */

/* Whether the update is left out: its input found_inf is there and not 0. */
FTR_LIB bool ftr__update_skipped(const ftr_kernel_call *call);

/* The learning rate of the node's parameters, and the number of the step, from 1. */
FTR_LIB double ftr__update_lr(const ftr_kernel_call *call);
FTR_LIB double ftr__update_number(const ftr_kernel_call *call);

/* A step with the gradient's scale and limit and neutral factors. */
FTR_LIB ftr__update_step ftr__update_step_of(const ftr_kernel_call *call);

/* Fills what SGD and LARS have in common: momentum. */
FTR_LIB void ftr__update_fill_momentum(const ftr_kernel_call *call, ftr__update_step *step);

/* Fills what Adam and LAMB have in common: betas and corrections of the moments' bias. */
FTR_LIB void ftr__update_fill_moments(const ftr_kernel_call *call, ftr__update_step *step);

/* Runs `kind` over all parameters, whose groups of `group` inputs begin behind the common ones. */
FTR_LIB void ftr__update_rows(const ftr_kernel_call *call, ftr__update_kind kind, int32_t group,
                              const ftr__update_step *step);

/* Parameters cut into chunks of FTR__UPDATE_GRAIN elements, with two sums for each chunk and two for each parameter.
 * The order in which they are added depends on the shapes alone. */
typedef struct ftr__update_chunks {
    const ftr_kernel_call *call;
    int32_t first_in, group; /* inputs of parameter j begin at first_in + j * group */
    int32_t count;
    int64_t *first; /* number of each parameter's first chunk; count + 1 of them */
    double *sums, *totals;
} ftr__update_chunks;

typedef struct ftr__update_chunk {
    int32_t parameter;
    const ftr_view *in; /* the parameter's group */
    int64_t begin, n;
} ftr__update_chunk;

/* Bytes that ftr__update_chunks_open() takes; it returns the workspace behind them. */
FTR_LIB size_t ftr__update_chunks_bytes(const ftr_kernel_call *call, int32_t first_in, int32_t group);
FTR_LIB unsigned char *ftr__update_chunks_open(ftr__update_chunks *chunks, const ftr_kernel_call *call,
                                               int32_t first_in, int32_t group, unsigned char *workspace);
FTR_LIB ftr__update_chunk ftr__update_chunk_at(const ftr__update_chunks *chunks, int64_t task);

/* The run of a chunk, with `states` states behind the gradient, which are f32. */
FTR_LIB ftr__update_run ftr__update_run_of(const ftr__update_chunk *chunk, int32_t states);

/* Calls `fn` on the run of a chunk, or on parts of it in order, with `states` states in f32: those in bf16 are widened
 * before, and rounded back behind it if `keep`. */
typedef void (*ftr__update_part_fn)(void *arg, const ftr__update_run *run);
FTR_LIB void ftr__update_parts(const ftr__simd *simd, const ftr__update_chunk *chunk, int32_t states, bool keep,
                               ftr__update_part_fn fn, void *arg);

/* Runs `fn` over the chunks; each call fills sums[2 * task] and the one behind it. Then fills the totals. */
FTR_LIB void ftr__update_chunks_sum(const ftr__update_chunks *chunks, ftr__task_fn fn, void *arg);

/* Last index i of `count` with first[i] <= number; first[count] is above it. */
FTR_LIB int32_t ftr__update_find(const int64_t *first, int32_t count, int64_t number);

/* Rounds a workspace part up, so that the next one is aligned. */
static inline size_t ftr__update_align(size_t bytes) {
    return (bytes + FTR__ALIGNMENT - 1) & ~(size_t)(FTR__ALIGNMENT - 1);
}

#endif
