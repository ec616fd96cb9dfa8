/* What a run tells while it goes on: a bar that is redrawn in place, or one line an epoch. */
#ifndef FTR_TRAIN_PROGRESS_H
#define FTR_TRAIN_PROGRESS_H

#include "core/core.h"

typedef struct ftr__progress_report {
    int64_t epoch, epochs; /* from 0, and how many */
    int64_t step, steps;   /* done in this epoch, and how many it has */
    double loss;           /* mean of the epoch so far */
    int32_t metric_count;
    const char *const *names;
    const double *metrics;
    bool evaluated; /* the following two count */
    double eval_loss;
    const double *eval_metrics;
    double samples_per_second;
    double seconds;      /* of the run so far */
    double seconds_left; /* of the run, estimated */
} ftr__progress_report;

#define FTR__PROGRESS_WIDTH 79 /* a bar's longest line: it must not wrap, or it could not be redrawn */
#define FTR__PROGRESS_TEXT 512

/* "epoch 2/5 [======>     ] 12/23  loss 0.4321  accuracy 0.8812  23.1k/s  0:03 left"; metrics that do not fit
 * are left out. Returns `text`. */
FTR_LIB const char *ftr__progress_bar(const ftr__progress_report *report, char text[FTR__PROGRESS_TEXT]);

/* "epoch 2/5  loss 0.4321  accuracy 0.8812  eval loss 0.3901  eval accuracy 0.9012  23.1k samples/s  0:02". */
FTR_LIB const char *ftr__progress_line(const ftr__progress_report *report, char text[FTR__PROGRESS_TEXT]);

typedef struct ftr__progress {
    const ftr_context *context;
    ftr_progress kind; /* BAR, LINES or SILENT */
    bool drawn;        /* a bar stands in the last line */
    double drawn_at;
} ftr__progress;

FTR_LIB ftr__progress ftr__progress_begin(const ftr_context *context, ftr_progress kind);
/* Whether a bar would be drawn now: at most ten times a second. */
FTR_LIB bool ftr__progress_due(const ftr__progress *progress);
FTR_LIB void ftr__progress_step(ftr__progress *progress, const ftr__progress_report *report);
FTR_LIB void ftr__progress_epoch(ftr__progress *progress, const ftr__progress_report *report);
/* Clears a bar that is left. */
FTR_LIB void ftr__progress_end(ftr__progress *progress);

#endif
