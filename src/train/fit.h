/* A training run from inside. */
#ifndef FTR_TRAIN_FIT_H
#define FTR_TRAIN_FIT_H

#include "io/checkpoint.h"
#include "train/feed.h"
#include "train/preempt.h"
#include "train/progress.h"

typedef struct ftr__fit_totals {
    double loss, metrics[FTR_MAX_METRICS]; /* sums over samples */
    int64_t samples;
} ftr__fit_totals;

/* All of a run's state beside that of the plan: it is saved, and a run that gets it back goes on as if it had never
 * stopped. */
typedef struct ftr__fit_state {
    int64_t epoch, epoch_step; /* steps done in the epoch */
    bool epoch_ended;          /* it was evaluated and looked at by early stopping */
    int64_t steps, epochs_done;
    int64_t skipped;                                 /* steps that loss scaling left out */
    ftr__fit_totals totals;                          /* of the epoch's training steps */
    double eval_loss, eval_metrics[FTR_MAX_METRICS]; /* of the last evaluation; NaN before it */
    double base_lr;                                  /* the optimizer's, as a plateau has left it */
    double best_value;
    int64_t best_epoch;
    int64_t epochs_without;
} ftr__fit_state;

#define FTR__FIT_SECTIONS 2

typedef struct ftr__fit {
    ftr_context *context;
    ftr_graph *graph;
    const ftr_train_desc *desc;
    const char *caller;
    const char *names[FTR_MAX_METRICS];
    ftr_plan *train_plan, *eval_plan;
    ftr__feed train_feed, eval_feed;
    int64_t steps_per_epoch, steps_planned;
    ftr__fit_state at;
    ftr_step_info info;          /* of the last training step */
    double began, epoch_seconds; /* epoch_seconds: training steps alone, of this call, as the next four */
    double train_seconds;        /* of epochs before this one */
    int64_t train_samples, epoch_samples;
    double longest_step, last_evaluation; /* seconds */
    ftr__progress progress;
    bool stop, warned;
    bool cut;            /* max_steps ended the run in the middle of an epoch */
    unsigned char *best; /* copy of all variables; NULL if it is not wanted */
    size_t best_bytes;

    ftr__arena arena;
    ftr_checkpointer *checkpointer; /* NULL: none */
    ftr__checkpoint_section sections[FTR__FIT_SECTIONS];
    int32_t section_count;
    int64_t every_epochs;
    int64_t saved_steps; /* of the last save; -1: none */
    bool saved_ended;
    int64_t resumed_at; /* -1: at the start */
    ftr__preempt preempt;
    bool interrupted; /* by a signal or the time */
    int32_t signal;   /* the first that came; 0: none */
    double end;       /* when max_seconds are over; 0: no limit */
} ftr__fit;

/* Whether a name is "loss" or that of a metric. */
FTR_LIB bool ftr__fit_knows_metric(const ftr__fit *fit, const char *metric);

/* Whether early stopping ends the run in this state. */
FTR_LIB bool ftr__fit_has_stopped(const ftr_train_desc *desc, const ftr__fit_state *at);

/* Checks what the description says of checkpoints, signals and time. */
FTR_LIB ftr_status ftr__fit_check_checkpoint(const ftr__fit *fit);

/* Opens the directory and, if the description says so, puts the run's state back. The plans are compiled. */
FTR_LIB ftr_status ftr__fit_open_checkpoints(ftr__fit *fit);

/* Whether a signal or the time ends the run. `seconds` is what would come next. */
FTR_LIB bool ftr__fit_is_interrupted(ftr__fit *fit, double seconds);

/* After a step: saves if it is time to. */
FTR_LIB ftr_status ftr__fit_step_done(ftr__fit *fit);

/* Before the evaluation of an epoch that max_steps cut: saves, because a run that gets more steps goes on from there.
 * */
FTR_LIB ftr_status ftr__fit_save_cut(ftr__fit *fit);

/* After an epoch that was complete and evaluated. `metric` is the value of checkpoint.metric. */
FTR_LIB ftr_status ftr__fit_epoch_done(ftr__fit *fit, double metric);

/* At the end of a run without an error: saves once more if need be, and waits for the disk. */
FTR_LIB ftr_status ftr__fit_close_checkpoints(ftr__fit *fit);

#endif
