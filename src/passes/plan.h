/* A plan, and the passes that make it. Each pass works on the plan's own copy of the graph and runs in this order: lower,
 * autodiff (with the optimizer's nodes), amp, fuse, recompute, schedule, memplan. */
#ifndef FTR_PASSES_PLAN_H
#define FTR_PASSES_PLAN_H

#include "optim/average.h"
#include "optim/scaler.h"

/* Which memory a value lies in. */
typedef enum ftr__place {
    FTR__PLACE_NONE = 0,   /* not used by the plan */
    FTR__PLACE_VARIABLE,   /* the graph's parameters and buffers */
    FTR__PLACE_STATE,      /* the optimizer's state */
    FTR__PLACE_ACTIVATION, /* everything else, gradients included */
    FTR__PLACE_COUNT
} ftr__place;

typedef struct ftr__slot {
    int32_t root; /* the value whose memory this one shares; its own id if it has memory of its own */
    ftr__place place;
    size_t offset, bytes;
    int32_t first, last; /* steps of the schedule between which the memory is in use; kept until the end if `kept` */
    bool kept;           /* readable after the step: never reused */
} ftr__slot;

/* Bytes of scratch up to which nodes share one piece of memory, which then stays in a cache. */
#define FTR__SCRATCH_SHARED ((size_t)1 << 20)

/* Scratch of a node. */
typedef struct ftr__scratch {
    size_t bytes, offset; /* among the activations, if it is larger than FTR__SCRATCH_SHARED */
} ftr__scratch;

/* One kernel launch. */
typedef struct ftr__step {
    ftr_kernel_call call;
    size_t kept_offset, kept_bytes; /* of what stays from step to step; 0 bytes: nothing */
    ftr_status (*run)(const ftr_kernel_call *call);
    int32_t node, place; /* place: in the order */
} ftr__step;

struct ftr_plan {
    ftr_context *context;
    ftr_graph *source; /* what was compiled; owns the variables' memory */
    ftr_graph *graph;  /* the plan's copy, changed by the passes */
    ftr__arena arena;
    ftr_mode mode;
    bool cumulative_statistics; /* running statistics are means over the plan's steps */
    ftr_amp amp;
    int32_t loss;     /* value id or 0 */
    int32_t *kept;    /* values to be readable after a step: loss, outputs */
    int32_t kept_count;
    int32_t *renamed; /* by id of the source graph: the value that took its place */
    int32_t renamed_count;
    int32_t *wrt, *gradients; /* values and their gradients (0: none) */
    int32_t gradient_count;
    int32_t learning_rate, applied_steps; /* the optimizer's lr and step, value ids or 0 */
    ftr__scaler scaler;                   /* of the loss, and the norm of gradients */
    ftr_scaler_desc scaler_desc;
    int64_t accumulate; /* micro-batches of an update, 1 or more */
    int32_t averages;   /* state: how many averages of the weights were taken; 0: there are none */
    ftr_nonfinite debug_nonfinite;
    struct {
        int32_t nodes;
        int64_t multiply_adds, bytes; /* bytes: of results */
        size_t live;                  /* bytes of activations and of the copies' bookkeeping, as the pass sees them */
        bool smallest;                /* no choice came to the target: this is the one that came closest */
    } recomputed;

    int32_t *order; /* nodes in the order of execution */
    int32_t order_count;
    ftr__slot *slots; /* by value id */
    ftr__scratch *scratch; /* by place in the order; NULL: not known yet */
    size_t gradient_bytes; /* of parameters, at the end of a step; a part of bytes[FTR__PLACE_ACTIVATION] */
    size_t variable_bytes; /* of the graph's parameters and buffers */
    size_t workspace_bytes; /* shared scratch */
    size_t bytes[FTR__PLACE_COUNT]; /* size of each memory */

    unsigned char *memory[FTR__PLACE_COUNT];
    unsigned char *workspace, *packed; /* packed: what kernels keep of weights, see ftr_kernel_call.kept */
    size_t packed_bytes;
    bool packs; /* nothing is kept where memory is limited */
    uint64_t packed_version; /* of the variables that it was made of; 0: of none */
    ftr__step *steps;
    int32_t step_count;
    int32_t micro_end, update_end; /* ends of what runs in each step, and in one that ends a group */
    bool average_is_in;            /* the averages and the graph's variables have changed places */
    bool *fed; /* by value id, for inputs */
    double *profile;      /* seconds of each step over profiled_steps; NULL: never asked for */
    bool profiling;
    uint64_t profiled_steps;
    uint64_t steps_done; /* those of a checkpoint it was restored from included */
    bool has_run;
};

/* Fixes what depends on the mode: batch norm's statistics and their updates, dropout, stochastic depth. */
FTR_LIB ftr_status ftr__pass_lower(ftr_plan *plan);

/* Mixed precision: casts by the classes of ops.def. Gradients have marks where their types follow from the forward graph. */
FTR_LIB ftr_status ftr__pass_amp(ftr_plan *plan, ftr_amp amp);

/* Joins nodes, see ftr_fusion: all but those in `no_fuse` and in the environment. */
FTR_LIB ftr_status ftr__pass_fuse(ftr_plan *plan, uint32_t no_fuse);

/* What is to be recomputed. */
typedef struct ftr__recompute_desc {
    size_t target;               /* bytes of activations, and of the copies' bookkeeping, to come to, if that is possible; SIZE_MAX: none */
    const char *const *patterns; /* of scopes, see ftr_compile_desc */
    int32_t pattern_count;
} ftr__recompute_desc;

/* Recomputes values of the forward pass in the backward pass. Fills plan->recomputed. */
FTR_LIB ftr_status ftr__pass_recompute(ftr_plan *plan, const ftr__recompute_desc *desc);

/* Whether each pattern fits a scope. */
FTR_LIB ftr_status ftr__recompute_check(const ftr_graph *graph, const char *const *patterns, int32_t count);

/* Plans a graph, checked already, as desc->memory_budget asks: *plan is the caller's, and has no memory of its own yet.
 * After an error it is NULL; *fits is false if the error is that the budget is too small, and *memory is then the smallest
 * plan's. In exec/compile.c. */
FTR_LIB ftr_status ftr__plan_within(ftr_graph *graph, const ftr_compile_desc *desc, ftr_plan **plan, ftr_memory *memory,
                                    bool *fits);

/* Drops what nothing needs and fixes the order: inputs before users, stage after stage, updates of state last; but gradients
 * are added up as soon as they are there, so that their memory is free again. */
FTR_LIB ftr_status ftr__pass_schedule(ftr_plan *plan);

/* Gives each value its memory: aliases, in-place results, then offsets by lifetime. Fills slots and bytes. */
FTR_LIB ftr_status ftr__pass_memplan(ftr_plan *plan);

/* FTR_ERROR_STATE while the averages are in the graph's variables; `what` begins the sentence. */
FTR_LIB ftr_status ftr__refuse_average(const ftr_plan *plan, const char *what);

/* Marks the nodes that the plan's kept values, gradients and updates need. `needed` has room for each node of the graph. */
FTR_LIB ftr_status ftr__mark_needed(const ftr_plan *plan, bool *needed);

/* Where state number `index` of the optimizer lies in the plan's memory of FTR__PLACE_STATE. */
FTR_LIB size_t ftr__plan_state_offset(const ftr_plan *plan, int32_t index);

/* Makes `to` take the place of `from`: for users and for what the caller asked to keep. */
FTR_LIB void ftr__plan_rename(ftr_plan *plan, int32_t from, int32_t to);

#endif
