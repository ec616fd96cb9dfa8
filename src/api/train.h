#ifndef FTR_API_TRAIN_H
#define FTR_API_TRAIN_H

#include "api/checkpoint.h"
#include "api/data.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Training loop. */
#define FTR_MAX_METRICS 8

/* A scalar of the graph that is averaged over an epoch, each batch by its number of real samples. */
typedef struct ftr_metric {
    const char *name;
    ftr_tensor value; /* for instance ftr_accuracy(); f32 scalar */
} ftr_metric;

typedef enum ftr_progress {
    FTR_PROGRESS_AUTO = 0, /* a bar if messages go to a terminal, lines otherwise */
    FTR_PROGRESS_BAR,
    FTR_PROGRESS_LINES, /* one line an epoch */
    FTR_PROGRESS_SILENT
} ftr_progress;

typedef enum ftr_last_batch {
    FTR_LAST_BATCH_DROP = 0, /* a last short batch of an epoch is left out */
    FTR_LAST_BATCH_PAD       /* it is padded with zeros and masked; the graph needs ftr_batch_mask() */
} ftr_last_batch;

/* What a callback is told. Values that are not known yet are NaN. */
typedef struct ftr_train_event {
    enum { FTR_EVENT_STEP, FTR_EVENT_EPOCH } kind; /* after a step; after an epoch and its evaluation */
    int64_t epoch;                                 /* from 0 */
    int64_t step;                                  /* steps done in the whole run */
    int64_t steps_per_epoch;
    double loss;      /* of this step; or mean of the epoch */
    double eval_loss; /* after an evaluation */
    int32_t metric_count;
    const char *const *metric_names;
    const double *metrics;      /* of this step; or mean of the epoch */
    const double *eval_metrics; /* after an evaluation */
    double samples_per_second;
    double lr;             /* learning rate that the plan has: of this step; after an epoch, as a plateau left it */
    double grad_norm;      /* of the last step, see ftr_step_info */
    double loss_scale;     /* the same */
    int64_t skipped_steps; /* of the whole run: updates that loss scaling left out */
    int64_t applied_steps; /* updates of the optimizer so far */
    bool updated;          /* the last step has changed the parameters: see ftr_step_info */
    ftr_plan *plan;        /* the training plan: ftr_plan_set_lr() is allowed here */
} ftr_train_event;

/* Returns true to stop the run after this event, without an evaluation of a cut epoch. */
typedef bool (*ftr_train_fn)(void *user, const ftr_train_event *event);

/* What ftr_fit() makes of checkpoints that are in the directory when it is called. */
typedef enum ftr_resume {
    FTR_RESUME_NEVER = 0, /* there must be none: they would be of another run */
    FTR_RESUME_AUTO,      /* goes on from the newest intact one; starts anew if there is none at all */
    FTR_RESUME_MUST       /* goes on from the newest intact one; without one the call fails */
} ftr_resume;

/* From ftr_train_defaults(). */
typedef struct ftr_train_desc {
    uint32_t cookie;
    ftr_tensor loss;
    ftr_optimizer optimizer;
    ftr_amp amp;            /* mixed precision, of training and evaluation */
    ftr_scaler_desc scaler; /* ftr_scaler_defaults() */
    /* Steps (micro-batches) of an update, see ftr_step(); 0 and 1: each step updates. Steps, those of max_steps, checkpoints
     * and progress among them, are micro-batches; a schedule counts updates. Groups go on over the end of an epoch. One that
     * the end of the run cuts is not applied (a run that is resumed with more steps goes on with it). */
    int64_t accumulate;
    ftr_average_desc average; /* of the weights: ftr_average_defaults() */
    /* Evaluations, and with them the best epoch, early stopping and restore_best, take the averages of the weights, from the
     * first that there is on. Between evaluations, in callbacks and in a checkpoint's weights.safetensors, the graph has the
     * weights themselves. */
    bool evaluate_average;
    /* Leave the averages in the graph at the end, after the last checkpoint, unless restore_best puts an epoch's weights
     * there or a signal or max_seconds ended the run. */
    bool finish_with_average;
    ftr_nonfinite debug_nonfinite; /* a search for the origin of infinities and NaNs; slow */
    ftr_source *train;             /* its fields feed the inputs of the same names */
    ftr_source *eval;  /* NULL: no evaluation. A last short batch needs ftr_batch_mask(), whatever last_batch says */
    int64_t epochs;    /* 1 */
    int64_t max_steps; /* 0: no limit; an epoch that it cuts short is evaluated, but not counted in result.epochs */
    bool no_shuffle;
    ftr_last_batch last_batch; /* of the training source */
    ftr_schedule schedule; /* sets the learning rate before each step, from optimizer.lr and the applied steps (or, with
                                * per_epoch, the epochs done). Of kind FTR_SCHEDULE_NONE (all 0): it stays as it is */
    ftr_plateau *plateau;  /* NULL: none. Takes plateau_metric after each epoch and lowers what the schedule starts */
    const char
        *plateau_metric; /* from. Its state is the caller's. The metric is "loss" (NULL: too) or a metric's name, of
                                 * the evaluation (of training if there is none) */
    ftr_metric metrics[FTR_MAX_METRICS];
    int32_t metric_count;
    ftr_progress progress;
    ftr_train_fn on_event; /* may be NULL */
    void *on_event_user;
    struct {
        const char *metric; /* "loss" or a metric's name, of the evaluation (of training if there is none); NULL: off */
        int32_t patience;   /* epochs without improvement before the run stops */
        double min_delta;   /* what counts as an improvement */
        bool maximize;      /* larger is better */
        bool restore_best;  /* put the best epoch's parameters and buffers back at the end */
        double threshold;   /* the run stops once the metric is this good; NaN: off, the default */
        int64_t start_epoch; /* epochs before this one (from 0) are not looked at */
    } early_stop;
    ftr_checkpoint_desc checkpoint; /* directory NULL: none. One more is written when the run ends */
    ftr_resume resume;
    bool handle_signals; /* SIGTERM and SIGUSR1 end the run after the step that is under way, see ftr_fit() */
    double max_seconds;  /* of this call, 0: no limit; the run ends, checkpoint included, before they are over */
} ftr_train_desc;

/* One epoch, shuffled, progress on. */
FTR_API ftr_train_desc ftr_train_defaults(void);

/* What a run came to. */
typedef struct ftr_train_result {
    int64_t epochs; /* done */
    int64_t steps;
    double loss;      /* mean of the last epoch */
    double eval_loss; /* NaN without an evaluation */
    double metrics[FTR_MAX_METRICS];
    double eval_metrics[FTR_MAX_METRICS];
    int64_t best_epoch;      /* of early stopping; -1 without it */
    bool stopped_early;      /* by early stopping or by a callback */
    bool preempted;          /* by a signal or by max_seconds: the run is to be resumed */
    int32_t signal;          /* that ended it, or came when it was at its end; 0: none */
    int64_t resumed_at;      /* steps that had been done before this call; -1: the run began here */
    int64_t skipped_steps;   /* updates left out by loss scaling */
    int64_t applied_steps;   /* updates of the optimizer */
    int64_t unapplied_steps; /* of a group of micro-batches that the end of the run cut; they are among `steps` */
    ftr_checkpoint_stats checkpoints;
    double seconds;            /* of this call, as the next */
    double samples_per_second; /* of training steps alone */
    ftr_memory memory;         /* of the training plan */
} ftr_train_result;

/* Trains a graph on a source: compiles it, shuffles, feeds, steps, evaluates, reports. `result` may be NULL. The batch
 * size is the leading dimension of the inputs. Errors: all of ftr_compile() and ftr_step(); FTR_ERROR_NAME (an input
 * without a field), FTR_ERROR_SHAPE, FTR_ERROR_DTYPE (a field that does not fit its input), FTR_ERROR_DATA (fewer
 * samples than one batch). Not to be called twice at a time on one context.
 *
 * A resumed run is bit by bit the unbroken one: weights, optimizer, order of samples, dropout, means of the epoch,
 * early stopping, evaluations, result. It is refused, with FTR_ERROR_STATE and before anything is changed, if the
 * checkpoint is of another model, optimizer, batch size, seed, number of samples, or list of metrics; epochs,
 * max_steps, patience and the evaluation source may be others. FTR_RESUME_MUST without a checkpoint, and
 * FTR_RESUME_NEVER with one, are FTR_ERROR_STATE too. A run that a callback stopped, or that gets more epochs, goes on
 * when it is resumed.
 *
 * With handle_signals, SIGTERM and SIGUSR1 are blocked in the calling thread while ftr_fit() runs, and looked for after
 * each step and each batch of an evaluation (there is no signal handler, hence nothing global; the signal mask is put
 * back at the end). The first one ends the run: it is saved, and ftr_fit() returns FTR_OK with result.preempted, or the
 * error of the save. A second one ends the waiting for the save as soon as the call to the system that it is in
 * returns: the checkpoint before it is then the newest, and the status FTR_ERROR_IO. A program with threads of its own
 * blocks both signals in them, because the system gives a signal to any thread that takes it; fasttrain's own threads
 * take none. */
FTR_API ftr_status ftr_fit(ftr_graph *graph, const ftr_train_desc *desc, ftr_train_result *result);

/* Runs `source` once through an evaluation plan: mean loss and metrics, each weighted by real samples. Only loss, eval,
 * metrics, metric_count, amp and debug_nonfinite of `desc` are used; result's eval_loss and eval_metrics are filled.
 * Errors as ftr_fit(). */
FTR_API ftr_status ftr_evaluate(ftr_graph *graph, const ftr_train_desc *desc, ftr_train_result *result);

/* ------------------------------------------------------------------------------------------------------------------
 * Learning-rate range test (Smith: Cyclical Learning Rates for Training Neural Networks, WACV 2017): a short training whose
 * learning rate grows from step to step; where the loss falls fastest is a good one to train with. */

typedef enum ftr_lr_growth { FTR_LR_EXPONENTIAL = 0, FTR_LR_LINEAR } ftr_lr_growth;

/* From ftr_find_lr_defaults(). */
typedef struct ftr_find_lr_desc {
    uint32_t cookie;
    double min_lr, max_lr; /* of the first and the last step; 1e-7, 10 */
    int64_t steps;         /* 100 */
    ftr_lr_growth growth;
    double smoothing;  /* share that the loss's moving average keeps at each step: 0 or more, below 1; 0.98 */
    double divergence; /* the smoothed loss over its smallest that ends the test: above 1; 0: none; 4 */
    int32_t skip_begin, skip_end; /* points at the ends that a suggestion is not taken from; 10, 1 */
} ftr_find_lr_desc;

/* 100 steps from 1e-7 to 10, exponentially. */
FTR_API ftr_find_lr_desc ftr_find_lr_defaults(void);

/* What a range test found. Given back with ftr_lr_curve_free(). */
typedef struct ftr_lr_curve {
    ftr_context *context;
    double *lr, *loss, *smoothed; /* of each step; one block, which begins with lr */
    int64_t count;                /* steps: fewer than were asked for if the loss diverged */
    int64_t capacity;
    bool diverged;
    int64_t steepest, lowest; /* points; -1: none */
    double suggestion;        /* lr[steepest]: where the smoothed loss falls fastest; NaN: nowhere */
    double tenth_of_lowest;   /* lr[lowest] / 10, another rule: the smoothed loss is smallest at `lowest` */
} ftr_lr_curve;

/* Runs a range test of a training: `train` with its source, optimizer, precision and so on, as ftr_fit() would run it; its
 * metrics, evaluation, epochs, max_steps, learning rate, schedule, plateau, early stopping, callback, checkpoints, signals and
 * max_seconds are left out. Afterwards parameters and buffers are as before, bit by bit; optimizer and random numbers begin
 * anew in the next run anyway. The smoothed loss is the moving average divided by 1 - smoothing^steps; the slope is that of
 * neighbouring points over log lr (over lr, if it grows linearly), as in Lightning and fastai. Steps that loss scaling leaves
 * out are no points; with `accumulate` a group of micro-batches is one. Where batches differ much the first points are noise: take larger ones, or a larger skip_begin. `desc`
 * may be NULL.
 * Errors: those of ftr_fit(); FTR_ERROR_INVALID_ARGUMENT; FTR_ERROR_NONFINITE (the loss of the first step is not finite);
 * FTR_ERROR_DATA (it diverged before there were points enough; or the smoothed loss falls nowhere): *curve then has the
 * points, without a suggestion. With any other error it is empty. */
FTR_API ftr_status ftr_find_lr(ftr_graph *graph, const ftr_train_desc *train, const ftr_find_lr_desc *desc,
                               ftr_lr_curve *curve);

/* Gives the points back and clears the struct. NULL is allowed. */
FTR_API void ftr_lr_curve_free(ftr_lr_curve *curve);

/* Makes the running statistics of the graph's batch norms anew, as PyTorch's update_bn(): the means of the batches'
 * statistics over one pass through the training source, in its own order, each batch with the same weight, dropout on.
 * Averaged weights (FTR_AVERAGE_SWA above all) want it once they are in the graph. Only loss, metrics, metric_count, train,
 * last_batch, amp and debug_nonfinite of `desc` are used. Statistics that ftr_freeze() holds (norm_eval) stay. On an error
 * the graph is as before. Errors as ftr_fit(). */
FTR_API ftr_status ftr_update_batch_norm(ftr_graph *graph, const ftr_train_desc *desc);

#ifdef __cplusplus
}
#endif

#endif
