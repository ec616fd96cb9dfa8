/* What the recompute pass knows of a plan, and its model of a plan's memory. */
#ifndef FTR_PASSES_RECOMPUTE_H
#define FTR_PASSES_RECOMPUTE_H

#include "passes/plan.h"

/* Steps of the schedule before `late` are the forward pass. A value that one of them makes is stored, or it is dropped: then
 * what comes later reads a copy that is computed a second time, by a copy of its node. The copy of value v has the number
 * v + values, the copy of node n the number n + nodes. A reshape is a view of its input, so it is stored or dropped with
 * that: `anchor` leads to it. */
typedef struct ftr__recompute {
    ftr_plan *plan;
    const ftr_graph *graph;
    ftr__arena *arena;    /* the pass's own: it is no part of the plan */
    const int32_t *order; /* the schedule without recomputation */
    int32_t order_count, late;
    int32_t values, nodes;
    /* by value; these five of what the forward pass makes alone */
    int32_t *anchor; /* itself, of a reshape what it is a view of */
    int32_t *made;   /* the step that makes it; -1: none, as it exists before */
    int32_t *early;  /* its last use in the forward pass */
    bool *used_late; /* behind the forward pass, views of it included */
    bool *free_to_drop;
    bool *by_hand;      /* dropped because the caller asked for it */
    bool *dropped;      /* the choice */
    size_t *bytes;      /* of activations; others have 0 */
    bool *pinned;       /* memory that is never reused */
    double *cost;       /* of running a node, in multiply-adds */
    uint32_t *in_place; /* of a node: the inputs that output 0 fits in */
    /* what ftr__recompute_measure() finds for the choice */
    int32_t *sequence, length; /* the schedule with the copies */
    bool *copied;              /* by node */
    size_t overhead;           /* bytes of the bookkeeping of copies */
    size_t peak;               /* bytes of activations that are live at one step, the most, and the overhead */
    double total_cost;
    /* its scratch; by value and copy */
    int32_t *first, *last, *root;
    bool *kept;
    int32_t *stack, *next; /* by node */
    int64_t *change;       /* by step of the sequence */
} ftr__recompute;

/* Looks at the plan, which has an order and slots. False when memory is short. */
FTR_LIB bool ftr__recompute_open(ftr__recompute *r);

/* Whether what runs later reads a copy of this value. */
FTR_LIB bool ftr__is_dropped(const ftr__recompute *r, int32_t value);

/* The schedule, the memory of activations and the cost of the choice. The memory is the most that is live at one step: what
 * the memory plan needs at least. */
FTR_LIB void ftr__recompute_measure(ftr__recompute *r);

#endif
