#ifndef FTR_API_PROFILE_H
#define FTR_API_PROFILE_H

#include "api/compile.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * What a plan costs, node by node: its operations and bytes, the least time that the machine allows for them, and the time
 * that they took. */

/* What the machine can do at most, with all threads of a context. */
typedef struct ftr_machine {
    double flops;     /* floating-point operations in f32 a second; a multiply-add is two */
    double bandwidth; /* bytes a second between memory and processor */
} ftr_machine;

/* Measures both with the context's backend and threads, in about a tenth of a second and with about 64 MiB that are freed
 * again: products of blocks in the nearest cache, and sums over arrays that no cache holds. Other programs that run at the
 * same time make both smaller. Errors: FTR_ERROR_OUT_OF_MEMORY, FTR_ERROR_UNSUPPORTED (the backend cannot). */
FTR_API ftr_status ftr_measure_machine(ftr_context *context, ftr_machine *machine);

/* Starts (on) or ends the measuring of a plan's nodes in the steps to come; starting forgets what was measured before. A
 * profiled step takes a little longer: two looks at the clock a node. The results of steps are the same. Errors:
 * FTR_ERROR_OUT_OF_MEMORY. */
FTR_API ftr_status ftr_plan_profile(ftr_plan *plan, bool on);

/* A node of a plan that runs. */
typedef struct ftr_plan_node {
    const char *name;      /* owned by the plan, as the next three */
    const char *op;        /* "conv2d" */
    const char *fused;     /* what was joined to it: "relu"; "" for nothing */
    const char *algorithm; /* how the backend computes it, where it has a choice: "winograd 4x4"; "" otherwise */
    bool backward;         /* of the backward pass or the update */
    double operations; /* of matrix products, convolutions and attention: two a multiply-add; 0 for other nodes. What a
                            * direct computation takes, whatever the algorithm */
    double bytes;      /* of its inputs and results, each once */
    double seconds;    /* mean of the profiled steps; NaN without one */
} ftr_plan_node;

/* How many nodes run in a step. */
FTR_API int32_t ftr_plan_node_count(const ftr_plan *plan);

/* Describes node number `index` in the order of execution. Errors: FTR_ERROR_INVALID_ARGUMENT (out of range; *node is then
 * cleared). */
FTR_API ftr_status ftr_plan_node_at(const ftr_plan *plan, int32_t index, ftr_plan_node *node);

/* The least time for a node: operations over machine->flops or bytes over machine->bandwidth, whichever is more (the roofline
 * of Williams, Waterman, Patterson, 2009). */
FTR_API double ftr_plan_node_floor(const ftr_plan_node *node, const ftr_machine *machine);

/* Prints a table with a row for each node: pass, op, algorithm, what was fused with it, operations, bytes, floor, prediction
 * (the floor over the share of it that good kernels reach: 0.8) and, after a profiled step, measured time and the floor's share
 * of it; then the sums. `machine` may be NULL: it is then measured. Errors: FTR_ERROR_INVALID_ARGUMENT, those of
 * ftr_measure_machine(). */
FTR_API ftr_status ftr_plan_explain(const ftr_plan *plan, const ftr_machine *machine, ftr_write_fn write, void *user);

#ifdef __cplusplus
}
#endif

#endif
