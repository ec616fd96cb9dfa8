/* Learning-rate range test: a run of ftr_fit() whose callback sets the rate of the next step. */
#include "graph/graph.h"

#include <math.h>
#include <string.h>

#define FTR__COOKIE_FIND_LR 0x6c72616eu
#define FTR__FIND_LR_MOST_STEPS 1000000
#define FTR__FIND_LR_SKIPPED 1000 /* steps that loss scaling may leave out */

ftr_find_lr_desc ftr_find_lr_defaults(void) {
    return (ftr_find_lr_desc){.cookie = FTR__COOKIE_FIND_LR,
                              .min_lr = 1e-7,
                              .max_lr = 10.0,
                              .steps = 100,
                              .smoothing = 0.98,
                              .divergence = 4.0,
                              .skip_begin = 10,
                              .skip_end = 1};
}

/* A test that runs. */
typedef struct ftr__lr_test {
    ftr_context *context;
    ftr_graph *graph;
    const ftr_find_lr_desc *desc;
    ftr_lr_curve *curve;
    double average, share; /* moving average of the loss, and what part of the weights it has: 1 - smoothing^steps */
    double least;          /* smoothed loss */
    int64_t skipped;       /* steps */
    double loss;           /* sum over the micro-batches since the last update */
    int64_t batches;
    ftr_status status;     /* of the callback */
    double bad_loss;       /* of the first step, if it is not finite; otherwise 0 */
} ftr__lr_test;

static ftr_status ftr__find_lr_check(ftr_context *context, const ftr_find_lr_desc *d) {
    if (d->cookie != FTR__COOKIE_FIND_LR)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_find_lr: desc was not made by ftr_find_lr_defaults()");
    if (!(d->min_lr > 0.0 && d->min_lr < d->max_lr) || !isfinite(d->max_lr))
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_find_lr: min_lr %g, max_lr %g: expected 0 < min_lr < max_lr, finite", d->min_lr,
                          d->max_lr);
    if (d->skip_begin < 0 || d->skip_end < 0)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_find_lr: skip_begin %d, skip_end %d, expected 0 or more", (int)d->skip_begin,
                          (int)d->skip_end);
    const int64_t fewest = (int64_t)d->skip_begin + d->skip_end + 2;
    if (d->steps < fewest || d->steps > FTR__FIND_LR_MOST_STEPS)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_find_lr: steps is %lld, expected %lld (skip_begin + skip_end + 2) to %d",
                          (long long)d->steps, (long long)fewest, FTR__FIND_LR_MOST_STEPS);
    if (d->growth != FTR_LR_EXPONENTIAL && d->growth != FTR_LR_LINEAR)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_find_lr: growth is %d, expected FTR_LR_EXPONENTIAL or FTR_LR_LINEAR", (int)d->growth);
    if (!(d->smoothing >= 0.0 && d->smoothing < 1.0))
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_find_lr: smoothing is %g, expected 0 or more, below 1", d->smoothing);
    if (d->divergence != 0.0 && !(d->divergence > 1.0))
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_find_lr: divergence is %g, expected more than 1, or 0 for none", d->divergence);
    return FTR_OK;
}

/* ----------------------------------------------------------------------------------------------------------- steps -- */

static double ftr__find_lr_at(const ftr_find_lr_desc *d, int64_t step) {
    const double part = (double)step / (double)(d->steps - 1);
    if (step == d->steps - 1) return d->max_lr;
    return d->growth == FTR_LR_LINEAR ? d->min_lr + part * (d->max_lr - d->min_lr)
                                      : d->min_lr * pow(d->max_lr / d->min_lr, part);
}

/* Adds a point. False if it is the last one: the loss diverged. Of a loss below 0 the distance to its smallest counts. */
static bool ftr__find_lr_add(ftr__lr_test *test, double loss) {
    const ftr_find_lr_desc *d = test->desc;
    ftr_lr_curve *curve = test->curve;
    test->average = d->smoothing * test->average + (1.0 - d->smoothing) * loss;
    test->share = d->smoothing * test->share + (1.0 - d->smoothing);
    const double smoothed = test->average / test->share;
    const int64_t i = curve->count++;
    curve->lr[i] = ftr__find_lr_at(d, i);
    curve->loss[i] = loss;
    curve->smoothed[i] = smoothed;
    if (i > 0 && d->divergence > 0.0 && smoothed > test->least + (d->divergence - 1.0) * fabs(test->least)) {
        curve->diverged = true;
        return false;
    }
    if (i == 0 || smoothed < test->least) test->least = smoothed;
    return true;
}

static bool ftr__find_lr_event(void *user, const ftr_train_event *event) {
    ftr__lr_test *test = user;
    if (event->kind != FTR_EVENT_STEP) return false;
    if (!isfinite(event->loss)) {
        test->curve->diverged = true;
        if (test->curve->count == 0) test->bad_loss = event->loss;
        return true;
    }
    const bool left_out = event->skipped_steps > test->skipped;
    test->skipped = event->skipped_steps;
    if (left_out) return false;
    test->loss += event->loss;
    test->batches++;
    if (!event->updated) return false; /* in the midst of a group of micro-batches */
    const double loss = test->loss / (double)test->batches;
    test->loss = 0.0;
    test->batches = 0;
    if (!ftr__find_lr_add(test, loss) || test->curve->count == test->desc->steps) return true;
    test->status = ftr_plan_set_lr(event->plan, ftr__find_lr_at(test->desc, test->curve->count));
    return test->status != FTR_OK;
}

static ftr_status ftr__find_lr_run(ftr__lr_test *test, const ftr_train_desc *train) {
    const ftr_train_desc defaults = ftr_train_defaults();
    ftr_train_desc run = *train;
    run.optimizer.lr = test->desc->min_lr;
    run.eval = NULL;
    run.epochs = INT64_MAX;
    run.max_steps = (test->desc->steps + FTR__FIND_LR_SKIPPED) * (train->accumulate > 1 ? train->accumulate : 1);
    run.average = defaults.average;
    run.evaluate_average = run.finish_with_average = false;
    run.schedule = defaults.schedule;
    run.plateau = NULL;
    run.plateau_metric = NULL;
    run.metric_count = 0;
    run.progress = FTR_PROGRESS_SILENT;
    run.on_event = ftr__find_lr_event;
    run.on_event_user = test;
    run.early_stop = defaults.early_stop;
    run.checkpoint = defaults.checkpoint;
    run.resume = FTR_RESUME_NEVER;
    run.handle_signals = false;
    run.max_seconds = 0.0;
    const ftr_status status = ftr_fit(test->graph, &run, NULL);
    return status == FTR_OK ? test->status : status;
}

/* ------------------------------------------------------------------------------------------------------- variables -- */

/* Copies all variables to `copy`, or back. */
static ftr_status ftr__find_lr_copy(ftr_graph *graph, unsigned char *copy, bool back) {
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < graph->variable_count && status == FTR_OK; i++) {
        const ftr__variable *variable = &graph->variables[i];
        const ftr_tensor tensor = {graph, variable->value};
        unsigned char *at = copy + variable->offset;
        status =
            back ? ftr_variable_write(tensor, at, variable->bytes) : ftr_variable_read(tensor, at, variable->bytes);
    }
    return status;
}

/* Runs the test and puts the variables back, whatever it came to. An error of the test outlives that of putting back. */
static ftr_status ftr__find_lr_keeping(ftr__lr_test *test, const ftr_train_desc *train) {
    ftr_status status = ftr__graph_materialize(test->graph);
    if (status != FTR_OK) return status;
    const size_t bytes = test->graph->variable_bytes;
    unsigned char *copy = ftr__allocate(test->context, bytes > 0 ? bytes : 1);
    if (!copy) return ftr__out_of_memory(test->context, "ftr_find_lr: parameters", bytes);
    status = ftr__find_lr_copy(test->graph, copy, false);
    if (status == FTR_OK) {
        status = ftr__find_lr_run(test, train);
        const ftr_status back = ftr__find_lr_copy(test->graph, copy, true);
        if (status == FTR_OK) status = back;
    }
    ftr__release(test->context, copy, bytes > 0 ? bytes : 1);
    return status;
}

/* ------------------------------------------------------------------------------------------------------- suggestion -- */

/* Slope of the smoothed loss at point i of first .. last, over equal distances. */
static double ftr__find_lr_slope(const ftr_lr_curve *curve, int64_t i, int64_t first, int64_t last) {
    const int64_t before = i > first ? i - 1 : i, after = i < last ? i + 1 : i;
    return (curve->smoothed[after] - curve->smoothed[before]) / (double)(after - before);
}

static ftr_status ftr__find_lr_suggest(const ftr__lr_test *test) {
    ftr_lr_curve *curve = test->curve;
    const ftr_find_lr_desc *d = test->desc;
    const int64_t first = d->skip_begin, last = curve->count - 1 - d->skip_end;
    if (curve->count == 0)
        return ftr__error(test->context, FTR_ERROR_NONFINITE,
                          "ftr_find_lr: the loss of the first step, with lr %g, is %g", d->min_lr, test->bad_loss);
    if (last - first < 1)
        return ftr__error(
            test->context, FTR_ERROR_DATA,
            "ftr_find_lr: the test ended after %lld steps, at lr %g, expected %lld for a suggestion: take a "
            "smaller min_lr",
            (long long)curve->count, curve->lr[curve->count - 1], (long long)(first + d->skip_end + 2));
    int64_t steepest = first, lowest = first;
    for (int64_t i = first + 1; i <= last; i++) {
        if (ftr__find_lr_slope(curve, i, first, last) < ftr__find_lr_slope(curve, steepest, first, last)) steepest = i;
        if (curve->smoothed[i] < curve->smoothed[lowest]) lowest = i;
    }
    if (!(ftr__find_lr_slope(curve, steepest, first, last) < 0.0))
        return ftr__error(test->context, FTR_ERROR_DATA,
                          "ftr_find_lr: the smoothed loss, %g at lr %g and %g at lr %g, falls nowhere between",
                          curve->smoothed[first], curve->lr[first], curve->smoothed[last], curve->lr[last]);
    curve->steepest = steepest;
    curve->lowest = lowest;
    curve->suggestion = curve->lr[steepest];
    curve->tenth_of_lowest = curve->lr[lowest] / 10.0;
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------------ calls -- */

static void ftr__lr_curve_clear(ftr_lr_curve *curve) {
    memset(curve, 0, sizeof *curve);
    curve->steepest = curve->lowest = -1;
    curve->suggestion = curve->tenth_of_lowest = (double)NAN;
}

static ftr_status ftr__lr_curve_make(ftr_context *context, int64_t steps, ftr_lr_curve *curve) {
    const size_t bytes = 3 * (size_t)steps * sizeof(double);
    double *points = ftr__allocate(context, bytes);
    if (!points) return ftr__out_of_memory(context, "ftr_find_lr: points", bytes);
    curve->context = context;
    curve->capacity = steps;
    curve->lr = points;
    curve->loss = points + steps;
    curve->smoothed = points + 2 * steps;
    return FTR_OK;
}

ftr_status ftr_find_lr(ftr_graph *graph, const ftr_train_desc *train, const ftr_find_lr_desc *desc,
                       ftr_lr_curve *curve) {
    if (curve) ftr__lr_curve_clear(curve);
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    ftr_context *context = graph->context;
    const ftr_find_lr_desc d = desc ? *desc : ftr_find_lr_defaults();
    if (!curve) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "ftr_find_lr: curve is NULL");
    if (!train) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "ftr_find_lr: train is NULL");
    if (graph->status != FTR_OK) return ftr__error(context, graph->status, "%s", graph->message);
    ftr_status status = ftr__find_lr_check(context, &d);
    if (status == FTR_OK) status = ftr__lr_curve_make(context, d.steps, curve);
    if (status != FTR_OK) return status;
    ftr__lr_test test = {.context = context, .graph = graph, .desc = &d, .curve = curve};
    status = ftr__find_lr_keeping(&test, train);
    if (status != FTR_OK) {
        ftr_lr_curve_free(curve);
        return status;
    }
    return ftr__find_lr_suggest(&test);
}

void ftr_lr_curve_free(ftr_lr_curve *curve) {
    if (!curve) return;
    if (curve->lr) ftr__release(curve->context, curve->lr, 3 * (size_t)curve->capacity * sizeof(double));
    ftr__lr_curve_clear(curve);
}
