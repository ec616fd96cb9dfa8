/* Signals that ask a run to end. There is no handler, because a handler has nowhere to write but global memory: the
 * signals are blocked in the thread that trains, and taken from the pending ones between steps. */
#ifndef FTR_TRAIN_PREEMPT_H
#define FTR_TRAIN_PREEMPT_H

#include "core/core.h"

#include <signal.h>

typedef struct ftr__preempt {
    bool active;
    sigset_t before; /* the thread's mask */
} ftr__preempt;

/* Blocks SIGTERM and SIGUSR1 in the calling thread. */
FTR_LIB void ftr__preempt_begin(ftr__preempt *preempt);

/* Takes a pending one: its number, 0 if there is none. Several of one kind that came since are one. */
FTR_LIB int32_t ftr__preempt_poll(const ftr__preempt *preempt);

/* Puts the mask back; what is still pending has its usual effect. */
FTR_LIB void ftr__preempt_end(ftr__preempt *preempt);

#endif
