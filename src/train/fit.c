/* The training loop. All memory is taken before the first step; from then on only the source, the plan and the logger
 * are called. */
#include "train/fit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define FTR__TRAIN_COOKIE 0x7472616eu

ftr_train_desc ftr_train_defaults(void) {
    ftr_train_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.cookie = FTR__TRAIN_COOKIE;
    desc.epochs = 1;
    desc.scaler = ftr_scaler_defaults();
    desc.early_stop.threshold = (double)NAN;
    desc.average = ftr_average_defaults();
    return desc;
}

/* --------------------------------------------------------------------------------------------------- description -- */

static ftr_status ftr__fit_check_tensor(const ftr__fit *fit, const char *what, ftr_tensor tensor) {
    if (!ftr_is_valid(tensor))
        return ftr__error(fit->context, FTR_ERROR_INVALID_TENSOR, "%s: %s is a null tensor", fit->caller, what);
    if (tensor.graph != fit->graph)
        return ftr__error(fit->context, FTR_ERROR_INVALID_TENSOR, "%s: %s belongs to another graph", fit->caller, what);
    const ftr__value *value = ftr__value_of(tensor);
    char text[FTR__SHAPE_TEXT];
    if (value->shape.rank != 0)
        return ftr__error(fit->context, FTR_ERROR_SHAPE, "%s: %s has shape %s, expected a scalar", fit->caller, what,
                          ftr__shape_text(&value->shape, text));
    if (value->dtype != FTR_F32 && value->dtype != FTR_F64)
        return ftr__error(fit->context, FTR_ERROR_DTYPE, "%s: %s is %s, expected f32", fit->caller, what,
                          ftr_dtype_name(value->dtype));
    return FTR_OK;
}

static ftr_status ftr__fit_check_metrics(ftr__fit *fit) {
    const ftr_train_desc *desc = fit->desc;
    if (desc->metric_count < 0 || desc->metric_count > FTR_MAX_METRICS)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT, "%s: metric_count is %d, expected 0 to %d",
                          fit->caller, (int)desc->metric_count, FTR_MAX_METRICS);
    for (int32_t i = 0; i < desc->metric_count; i++) {
        const char *name = desc->metrics[i].name;
        if (!name || !*name)
            return ftr__error(fit->context, FTR_ERROR_NAME, "%s: metric %d has no name", fit->caller, (int)i);
        if (strcmp(name, "loss") == 0)
            return ftr__error(fit->context, FTR_ERROR_NAME,
                              "%s: metric %d is named 'loss', which is the loss's own name", fit->caller, (int)i);
        for (int32_t k = 0; k < i; k++)
            if (strcmp(desc->metrics[k].name, name) == 0)
                return ftr__error(fit->context, FTR_ERROR_NAME, "%s: metrics %d and %d are both named '%s'",
                                  fit->caller, (int)k, (int)i, name);
        char what[FTR__MESSAGE_SIZE / 2];
        snprintf(what, sizeof what, "metric '%s'", name);
        ftr_status status = ftr__fit_check_tensor(fit, what, desc->metrics[i].value);
        if (status != FTR_OK) return status;
        fit->names[i] = name;
    }
    return FTR_OK;
}

static ftr_status ftr__fit_check_loop(const ftr__fit *fit) {
    const ftr_train_desc *desc = fit->desc;
    if (!desc->train)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: train is NULL, expected a source");
    if (desc->epochs < 1)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: epochs is %lld, expected 1 or more",
                          (long long)desc->epochs);
    if (desc->max_steps < 0)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: max_steps is %lld, expected 0 (no limit) or more", (long long)desc->max_steps);
    if (desc->last_batch != FTR_LAST_BATCH_DROP && desc->last_batch != FTR_LAST_BATCH_PAD)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: last_batch is %d, expected FTR_LAST_BATCH_DROP or FTR_LAST_BATCH_PAD",
                          (int)desc->last_batch);
    if ((int)desc->progress < (int)FTR_PROGRESS_AUTO || desc->progress > FTR_PROGRESS_SILENT)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: progress is %d, expected one of ftr_progress", (int)desc->progress);
    if (desc->optimizer.kind == FTR_OPTIMIZER_NONE)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: optimizer is missing, expected ftr_sgd(), ftr_adamw() or another of them");
    return FTR_OK;
}

static ftr_status ftr__fit_check_average(const ftr__fit *fit) {
    const ftr_train_desc *desc = fit->desc;
    const bool asked = desc->evaluate_average || desc->finish_with_average;
    if (asked && desc->average.kind == FTR_AVERAGE_NONE)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: %s is set, but average.kind is FTR_AVERAGE_NONE",
                          desc->evaluate_average ? "evaluate_average" : "finish_with_average");
    if (desc->evaluate_average && !desc->eval)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: evaluate_average is set, but eval is NULL");
    return FTR_OK;
}

bool ftr__fit_knows_metric(const ftr__fit *fit, const char *metric) {
    bool known = strcmp(metric, "loss") == 0;
    for (int32_t i = 0; i < fit->desc->metric_count; i++) known = known || strcmp(metric, fit->names[i]) == 0;
    return known;
}

static ftr_status ftr__fit_check_early_stop(const ftr__fit *fit) {
    const ftr_train_desc *desc = fit->desc;
    const char *metric = desc->early_stop.metric;
    if (!metric) return FTR_OK;
    if (!ftr__fit_knows_metric(fit, metric))
        return ftr__error(fit->context, FTR_ERROR_NAME,
                          "ftr_fit: early_stop.metric is '%s', expected 'loss' or the name of a metric", metric);
    if (desc->early_stop.patience < 1)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: early_stop.patience is %d, expected 1 or more", (int)desc->early_stop.patience);
    if (!(desc->early_stop.min_delta >= 0.0))
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: early_stop.min_delta is %g, expected 0 or more", desc->early_stop.min_delta);
    if (desc->early_stop.start_epoch < 0)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: early_stop.start_epoch is %lld, expected 0 or more",
                          (long long)desc->early_stop.start_epoch);
    return FTR_OK;
}

/* The mean of a metric over the evaluation, or over the epoch's training if there is none. */
static double ftr__fit_metric(const ftr__fit *fit, const char *metric, double loss, const double *metrics) {
    const ftr_train_desc *desc = fit->desc;
    double value = desc->eval ? fit->at.eval_loss : loss;
    for (int32_t i = 0; i < desc->metric_count; i++)
        if (strcmp(metric, fit->names[i]) == 0) value = desc->eval ? fit->at.eval_metrics[i] : metrics[i];
    return value;
}

static ftr_status ftr__fit_check_schedule(const ftr__fit *fit) {
    const ftr_train_desc *desc = fit->desc;
    ftr_status status = FTR_OK;
    if (desc->schedule.kind != FTR_SCHEDULE_NONE) status = ftr_schedule_check(fit->context, &desc->schedule);
    if (status == FTR_OK && desc->plateau) status = ftr_plateau_check(fit->context, desc->plateau);
    if (status != FTR_OK || !desc->plateau_metric) return status;
    if (!desc->plateau)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: plateau_metric is '%s', plateau is NULL",
                          desc->plateau_metric);
    if (ftr__fit_knows_metric(fit, desc->plateau_metric)) return FTR_OK;
    return ftr__error(fit->context, FTR_ERROR_NAME,
                      "ftr_fit: plateau_metric is '%s', expected 'loss' or the name of a metric", desc->plateau_metric);
}

/* What ftr_fit() and ftr_evaluate() both look at. */
static ftr_status ftr__fit_begin(ftr__fit *fit, const char *caller, ftr_graph *graph, const ftr_train_desc *desc) {
    memset(fit, 0, sizeof *fit);
    fit->context = graph->context;
    fit->graph = graph;
    fit->desc = desc;
    fit->caller = caller;
    fit->saved_steps = fit->resumed_at = -1;
    fit->at.best_epoch = -1;
    if (desc) fit->at.base_lr = desc->optimizer.lr;
    ftr__arena_init(&fit->arena, fit->context);
    fit->at.eval_loss = NAN;
    for (int32_t i = 0; i < FTR_MAX_METRICS; i++) fit->at.eval_metrics[i] = NAN;
    if (!desc) return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT, "%s: desc is NULL", caller);
    if (desc->cookie != FTR__TRAIN_COOKIE)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT, "%s: desc was not made by ftr_train_defaults()",
                          caller);
    if (graph->status != FTR_OK) return ftr__error(fit->context, graph->status, "%s", graph->message);
    ftr_status status = ftr__fit_check_tensor(fit, "loss", desc->loss);
    return status == FTR_OK ? ftr__fit_check_metrics(fit) : status;
}

/* --------------------------------------------------------------------------------------------------- preparation -- */

/* Loss and metrics. Returns how many. */
static int32_t ftr__fit_outputs(const ftr__fit *fit, ftr_tensor outputs[FTR_MAX_METRICS + 1]) {
    outputs[0] = fit->desc->loss;
    for (int32_t i = 0; i < fit->desc->metric_count; i++) outputs[i + 1] = fit->desc->metrics[i].value;
    return fit->desc->metric_count + 1;
}

static ftr_status ftr__fit_match(ftr__fit *fit, ftr__feed *feed, const ftr_source *source) {
    ftr_tensor outputs[FTR_MAX_METRICS + 1];
    int32_t count = ftr__fit_outputs(fit, outputs);
    return ftr__feed_match(feed, fit->caller, fit->graph, source, outputs, count);
}

static ftr_status ftr__fit_match_eval(ftr__fit *fit) {
    const ftr_source *source = fit->desc->eval;
    ftr_status status = ftr__fit_match(fit, &fit->eval_feed, source);
    if (status != FTR_OK) return status;
    int64_t batch = fit->eval_feed.batch, rest = source->count % batch;
    if (rest == 0 || fit->eval_feed.mask) return FTR_OK;
    return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                      "%s: evaluation source '%s' has %lld samples, which leaves a last batch of %lld of %lld: declare "
                      "ftr_batch_mask() before the layers, or evaluate on a multiple of the batch",
                      fit->caller, source->name, (long long)source->count, (long long)rest, (long long)batch);
}

static ftr_status ftr__fit_match_train(ftr__fit *fit) {
    const ftr_source *source = fit->desc->train;
    ftr_status status = ftr__fit_match(fit, &fit->train_feed, source);
    if (status != FTR_OK) return status;
    int64_t batch = fit->train_feed.batch, full = source->count / batch;
    bool pad = fit->desc->last_batch == FTR_LAST_BATCH_PAD && source->count % batch != 0;
    if (pad && !fit->train_feed.mask)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "%s: last_batch is FTR_LAST_BATCH_PAD and source '%s' leaves a last batch of %lld of %lld, "
                          "but the loss uses no ftr_batch_mask(): declare one before the layers",
                          fit->caller, source->name, (long long)(source->count % batch), (long long)batch);
    if (full == 0 && !pad)
        return ftr__error(fit->context, FTR_ERROR_DATA,
                          "%s: source '%s' has %lld samples, fewer than one batch of %lld", fit->caller, source->name,
                          (long long)source->count, (long long)batch);
    fit->steps_per_epoch = full + (pad ? 1 : 0);
    bool overflow = fit->desc->epochs < 1 || fit->desc->epochs > INT64_MAX / fit->steps_per_epoch;
    fit->steps_planned = overflow ? INT64_MAX : fit->desc->epochs * fit->steps_per_epoch;
    if (fit->desc->max_steps > 0 && fit->desc->max_steps < fit->steps_planned)
        fit->steps_planned = fit->desc->max_steps;
    return FTR_OK;
}

/* What a plan is for. */
typedef enum ftr__fit_purpose { FTR__FIT_TRAINS, FTR__FIT_EVALUATES, FTR__FIT_MEASURES } ftr__fit_purpose;

static ftr_status ftr__fit_compile(ftr__fit *fit, ftr__fit_purpose purpose, ftr__feed *feed, ftr_plan **plan) {
    ftr_tensor outputs[FTR_MAX_METRICS + 1];
    ftr_compile_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.mode = purpose == FTR__FIT_EVALUATES ? FTR_MODE_EVAL : FTR_MODE_TRAIN;
    desc.loss = fit->desc->loss;
    desc.output_count = ftr__fit_outputs(fit, outputs);
    desc.outputs = outputs;
    if (purpose == FTR__FIT_TRAINS) {
        desc.optimizer = &fit->desc->optimizer;
        desc.accumulate = fit->desc->accumulate;
        desc.average = &fit->desc->average;
    }
    desc.cumulative_statistics = purpose == FTR__FIT_MEASURES;
    desc.amp = fit->desc->amp;
    desc.scaler = &fit->desc->scaler;
    desc.debug_nonfinite = fit->desc->debug_nonfinite;
    ftr_status status = ftr_compile(fit->graph, &desc, plan);
    return status == FTR_OK ? ftr__feed_bind(feed, *plan) : status;
}

static ftr_status ftr__fit_prepare(ftr__fit *fit) {
    ftr_status status = ftr__fit_check_loop(fit);
    if (status == FTR_OK) status = ftr__fit_check_average(fit);
    if (status == FTR_OK) status = ftr__fit_check_early_stop(fit);
    if (status == FTR_OK) status = ftr__fit_check_schedule(fit);
    if (status == FTR_OK) status = ftr__fit_check_checkpoint(fit);
    if (status == FTR_OK) status = ftr__fit_match_train(fit);
    if (status == FTR_OK && fit->desc->eval) status = ftr__fit_match_eval(fit);
    if (status == FTR_OK) status = ftr__fit_compile(fit, FTR__FIT_TRAINS, &fit->train_feed, &fit->train_plan);
    if (status == FTR_OK && fit->desc->eval)
        status = ftr__fit_compile(fit, FTR__FIT_EVALUATES, &fit->eval_feed, &fit->eval_plan);
    if (status == FTR_OK && fit->desc->early_stop.metric && fit->desc->early_stop.restore_best) {
        fit->best_bytes = fit->graph->variable_bytes;
        fit->best = ftr__allocate(fit->context, fit->best_bytes);
        if (!fit->best) return ftr__out_of_memory(fit->context, "ftr_fit: best parameters", fit->best_bytes);
    }
    return status == FTR_OK ? ftr__fit_open_checkpoints(fit) : status;
}

static void ftr__fit_free(ftr__fit *fit) {
    ftr_checkpointer_destroy(fit->checkpointer);
    ftr__arena_free(&fit->arena);
    if (fit->best) ftr__release(fit->context, fit->best, fit->best_bytes);
    ftr__feed_free(&fit->train_feed);
    ftr__feed_free(&fit->eval_feed);
    ftr_plan_destroy(fit->eval_plan);
    ftr_plan_destroy(fit->train_plan);
}

/* --------------------------------------------------------------------------------------------------------- steps -- */

static void ftr__fit_add(ftr__fit_totals *totals, double loss, const double *metrics, int32_t count, int64_t samples) {
    totals->loss += loss * (double)samples;
    for (int32_t i = 0; i < count; i++) totals->metrics[i] += metrics[i] * (double)samples;
    totals->samples += samples;
}

/* NaN as long as there are no samples. */
static double ftr__fit_means(const ftr__fit_totals *totals, double means[FTR_MAX_METRICS]) {
    double samples = totals->samples > 0 ? (double)totals->samples : NAN;
    for (int32_t i = 0; i < FTR_MAX_METRICS; i++) means[i] = totals->metrics[i] / samples;
    return totals->loss / samples;
}

static ftr_status ftr__fit_read_scalar(ftr_plan *plan, ftr_tensor tensor, double *result) {
    float single = 0.0f;
    bool is_double = ftr_dtype_of(tensor) == FTR_F64;
    ftr_status status =
        is_double ? ftr_read(plan, tensor, result, sizeof *result) : ftr_read(plan, tensor, &single, sizeof single);
    if (!is_double) *result = (double)single;
    return status;
}

/* Feeds a batch, runs the plan, reads loss and metrics. */
static ftr_status ftr__fit_run(ftr__fit *fit, ftr__feed *feed, const ftr__feed_order *order, int64_t first,
                               int64_t real, ftr_step_info *info, double metrics[FTR_MAX_METRICS]) {
    ftr_status status = ftr__feed_batch(feed, order, first, real);
    if (status == FTR_OK) status = ftr_step(feed->plan, info);
    for (int32_t i = 0; i < fit->desc->metric_count && status == FTR_OK; i++)
        status = ftr__fit_read_scalar(feed->plan, fit->desc->metrics[i].value, &metrics[i]);
    return status;
}

/* Whether an evaluation is of the averages of the weights: they are wanted and there are some. */
static bool ftr__fit_takes_average(const ftr__fit *fit) {
    return fit->desc->evaluate_average && ftr_plan_average_count(fit->train_plan) > 0;
}

/* An interrupted one leaves the last one's results. */
static ftr_status ftr__fit_evaluate_all(ftr__fit *fit) {
    ftr__fit_totals totals = {0};
    ftr__feed *feed = &fit->eval_feed;
    const double before = ftr_time_seconds();
    for (int64_t first = 0; first < feed->source->count; first += feed->batch) {
        if (ftr__fit_is_interrupted(fit, 0.0)) return FTR_OK;
        int64_t left = feed->source->count - first, real = left < feed->batch ? left : feed->batch;
        double metrics[FTR_MAX_METRICS];
        ftr_step_info info;
        ftr_status status = ftr__fit_run(fit, feed, NULL, first, real, &info, metrics);
        if (status != FTR_OK) return status;
        ftr__fit_add(&totals, info.loss, metrics, fit->desc->metric_count, real);
    }
    fit->at.eval_loss = ftr__fit_means(&totals, fit->at.eval_metrics);
    fit->last_evaluation = ftr_time_seconds() - before;
    return FTR_OK;
}

static ftr_status ftr__fit_evaluate(ftr__fit *fit) {
    if (ftr__fit_is_interrupted(fit, fit->last_evaluation)) return FTR_OK;
    const bool average = ftr__fit_takes_average(fit);
    ftr_status status = average ? ftr_plan_swap_average(fit->train_plan) : FTR_OK;
    if (status != FTR_OK) return status;
    status = ftr__fit_evaluate_all(fit);
    const ftr_status back = average ? ftr_plan_swap_average(fit->train_plan) : FTR_OK;
    return status == FTR_OK ? back : status;
}

static double ftr__fit_speed(const ftr__fit *fit) {
    return fit->epoch_seconds > 0.0 ? (double)fit->epoch_samples / fit->epoch_seconds : NAN;
}

/* Tells the callback; it may ask for the run to stop. */
static void ftr__fit_tell(ftr__fit *fit, bool epoch_ended, double loss, const double *metrics) {
    if (!fit->desc->on_event) return;
    ftr_train_event event = {
        .kind = epoch_ended ? FTR_EVENT_EPOCH : FTR_EVENT_STEP,
        .epoch = fit->at.epoch,
        .step = fit->at.steps,
        .steps_per_epoch = fit->steps_per_epoch,
        .loss = loss,
        .eval_loss = fit->at.eval_loss,
        .metric_count = fit->desc->metric_count,
        .metric_names = fit->names,
        .metrics = metrics,
        .eval_metrics = fit->at.eval_metrics,
        .samples_per_second = ftr__fit_speed(fit),
        .lr = ftr_plan_lr(fit->train_plan),
        .grad_norm = fit->info.grad_norm,
        .loss_scale = fit->info.loss_scale,
        .skipped_steps = fit->at.skipped,
        .applied_steps = (int64_t)ftr_plan_applied_steps(fit->train_plan),
        .updated = fit->info.updated,
        .plan = fit->train_plan,
    };
    if (fit->desc->on_event(fit->desc->on_event_user, &event)) fit->stop = true;
}

/* `means` has the epoch's metrics so far. */
static ftr__progress_report ftr__fit_report(const ftr__fit *fit, int64_t step, double loss, const double *means) {
    const double seconds = ftr_time_seconds() - fit->began;
    const int64_t done = fit->at.steps - (fit->resumed_at > 0 ? fit->resumed_at : 0);
    return (ftr__progress_report){
        .epoch = fit->at.epoch,
        .epochs = fit->desc->epochs,
        .step = step,
        .steps = fit->steps_per_epoch,
        .loss = loss,
        .metric_count = fit->desc->metric_count,
        .names = fit->names,
        .metrics = means,
        .evaluated = fit->desc->eval != NULL,
        .eval_loss = fit->at.eval_loss,
        .eval_metrics = fit->at.eval_metrics,
        .samples_per_second = ftr__fit_speed(fit),
        .seconds = seconds,
        .seconds_left = done > 0 ? seconds / (double)done * (double)(fit->steps_planned - fit->at.steps) : 0.0,
    };
}

/* Once a run: whoever reads the log should know where it began. */
static void ftr__fit_warn(ftr__fit *fit, double loss) {
    if (fit->warned || isfinite(loss)) return;
    ftr__log(fit->context, FTR_LOG_WARNING, "ftr_fit: the loss is %s at step %lld (epoch %lld); training goes on",
             isnan(loss) ? "NaN" : "infinite", (long long)fit->at.steps, (long long)fit->at.epoch + 1);
    fit->warned = true;
}

/* The learning rate of the step to come. */
static ftr_status ftr__fit_schedule(ftr__fit *fit) {
    const ftr_schedule *schedule = &fit->desc->schedule;
    if (schedule->kind == FTR_SCHEDULE_NONE) return FTR_OK;
    const int64_t done = schedule->per_epoch ? fit->at.epoch : (int64_t)ftr_plan_applied_steps(fit->train_plan);
    return ftr_plan_set_lr(fit->train_plan, ftr_schedule_lr(schedule, fit->at.base_lr, done));
}

/* After an epoch: `loss` and `metrics` are its means. */
static ftr_status ftr__fit_plateau(ftr__fit *fit, double loss, const double *metrics) {
    const ftr_train_desc *desc = fit->desc;
    if (!desc->plateau) return FTR_OK;
    const char *metric = desc->plateau_metric ? desc->plateau_metric : "loss";
    const double before = fit->at.base_lr;
    fit->at.base_lr = ftr_plateau_step(desc->plateau, before, ftr__fit_metric(fit, metric, loss, metrics));
    const bool at_next_step = fit->at.base_lr == before || desc->schedule.kind != FTR_SCHEDULE_NONE;
    return at_next_step ? FTR_OK : ftr_plan_set_lr(fit->train_plan, fit->at.base_lr);
}

static ftr_status ftr__fit_step(ftr__fit *fit) {
    ftr__feed *feed = &fit->train_feed;
    ftr__feed_order order = {fit->context->seeds.order, (uint64_t)fit->at.epoch};
    int64_t first = fit->at.epoch_step * feed->batch, left = feed->source->count - first;
    int64_t real = left < feed->batch ? left : feed->batch;
    double metrics[FTR_MAX_METRICS], means[FTR_MAX_METRICS];
    double before = ftr_time_seconds();
    ftr_status status = ftr__fit_schedule(fit);
    if (status != FTR_OK) return status;
    status = ftr__fit_run(fit, feed, fit->desc->no_shuffle ? NULL : &order, first, real, &fit->info, metrics);
    if (status != FTR_OK) return status;
    const double seconds = ftr_time_seconds() - before, loss = fit->info.loss;
    fit->epoch_seconds += seconds;
    if (seconds > fit->longest_step) fit->longest_step = seconds;
    fit->epoch_samples += real;
    fit->at.steps++;
    fit->at.epoch_step++;
    fit->at.skipped += fit->info.skipped;
    if (!fit->info.overflow || isfinite(loss)) { /* an overflow that loss scaling deals with is no part of the means */
        ftr__fit_add(&fit->at.totals, loss, metrics, fit->desc->metric_count, real);
        ftr__fit_warn(fit, loss);
    }
    if (ftr__progress_due(&fit->progress)) {
        double mean = ftr__fit_means(&fit->at.totals, means);
        ftr__progress_report report = ftr__fit_report(fit, fit->at.epoch_step, mean, means);
        ftr__progress_step(&fit->progress, &report);
    }
    ftr__fit_tell(fit, false, loss, metrics);
    return ftr__fit_step_done(fit);
}

/* ------------------------------------------------------------------------------------------------ early stopping -- */

/* Copies all variables out to `best`, or back. They lie one after another, each at its offset in the graph's memory. */
static ftr_status ftr__fit_copy_best(ftr__fit *fit, bool back) {
    for (int32_t i = 0; i < fit->graph->variable_count; i++) {
        const ftr__variable *variable = &fit->graph->variables[i];
        ftr_tensor tensor = {fit->graph, variable->value};
        unsigned char *copy = fit->best + variable->offset;
        ftr_status status =
            back ? ftr_variable_write(tensor, copy, variable->bytes) : ftr_variable_read(tensor, copy, variable->bytes);
        if (status != FTR_OK) return status;
    }
    return FTR_OK;
}

/* Whether a metric is as good as the threshold; false without one, which is NaN. */
static bool ftr__fit_is_good(const ftr_train_desc *desc, double value) {
    const double threshold = desc->early_stop.threshold;
    return desc->early_stop.maximize ? value >= threshold : value <= threshold;
}

bool ftr__fit_has_stopped(const ftr_train_desc *desc, const ftr__fit_state *at) {
    if (!desc->early_stop.metric) return false;
    const bool good = at->best_epoch >= 0 && ftr__fit_is_good(desc, at->best_value);
    return good || at->epochs_without >= desc->early_stop.patience;
}

/* What was evaluated is the best so far. */
static ftr_status ftr__fit_keep_best(ftr__fit *fit) {
    const bool average = ftr__fit_takes_average(fit);
    ftr_status status = average ? ftr_plan_swap_average(fit->train_plan) : FTR_OK;
    if (status != FTR_OK) return status;
    status = ftr__fit_copy_best(fit, false);
    const ftr_status back = average ? ftr_plan_swap_average(fit->train_plan) : FTR_OK;
    return status == FTR_OK ? back : status;
}

static ftr_status ftr__fit_early_stop(ftr__fit *fit, double loss, const double *metrics) {
    const ftr_train_desc *desc = fit->desc;
    if (!desc->early_stop.metric || fit->at.epoch < desc->early_stop.start_epoch) return FTR_OK;
    const double value = ftr__fit_metric(fit, desc->early_stop.metric, loss, metrics);
    double gain = desc->early_stop.maximize ? value - fit->at.best_value : fit->at.best_value - value;
    bool improved = fit->at.best_epoch < 0 ? !isnan(value) : gain > desc->early_stop.min_delta;
    improved = improved || ftr__fit_is_good(desc, value); /* the first that is: whatever min_delta says */
    if (improved) {
        fit->at.best_value = value;
        fit->at.best_epoch = fit->at.epoch;
        fit->at.epochs_without = 0;
    } else {
        fit->at.epochs_without++;
    }
    if (ftr__fit_has_stopped(desc, &fit->at)) fit->stop = true;
    return improved && fit->best ? ftr__fit_keep_best(fit) : FTR_OK;
}

/* ---------------------------------------------------------------------------------------------------------- loop -- */

/* Evaluates an epoch whose steps are done, tells, and looks at early stopping. */
static ftr_status ftr__fit_end_epoch(ftr__fit *fit) {
    const bool complete = fit->at.epoch_step == fit->steps_per_epoch;
    ftr_status status = complete ? FTR_OK : ftr__fit_save_cut(fit);
    if (status == FTR_OK && fit->desc->eval) status = ftr__fit_evaluate(fit);
    if (status != FTR_OK || fit->interrupted) return status;
    double means[FTR_MAX_METRICS], loss = ftr__fit_means(&fit->at.totals, means);
    ftr__progress_report report = ftr__fit_report(fit, fit->at.epoch_step, loss, means);
    ftr__progress_epoch(&fit->progress, &report);
    status = ftr__fit_early_stop(fit, loss, means);
    if (status == FTR_OK) status = ftr__fit_plateau(fit, loss, means);
    if (status != FTR_OK) return status;
    if (complete) fit->at.epochs_done++;
    fit->at.epoch_ended = complete;
    fit->cut = !complete;
    ftr__fit_tell(fit, true, loss, means);
    const char *metric = fit->desc->checkpoint.metric;
    return complete ? ftr__fit_epoch_done(fit, metric ? ftr__fit_metric(fit, metric, loss, means) : NAN) : FTR_OK;
}

/* The steps of an epoch, from where the run is; then its end. */
static ftr_status ftr__fit_epoch(ftr__fit *fit) {
    ftr_status status = FTR_OK;
    fit->epoch_seconds = 0.0;
    fit->epoch_samples = 0;
    while (fit->at.epoch_step < fit->steps_per_epoch && fit->at.steps < fit->steps_planned && !fit->stop &&
           status == FTR_OK && !ftr__fit_is_interrupted(fit, fit->longest_step))
        status = ftr__fit_step(fit);
    fit->train_samples += fit->epoch_samples;
    fit->train_seconds += fit->epoch_seconds;
    if (status != FTR_OK || fit->interrupted) return status;
    if (fit->stop && fit->at.epoch_step < fit->steps_per_epoch) return FTR_OK; /* no more of this epoch is wanted */
    return ftr__fit_end_epoch(fit);
}

/* Whether an epoch, new or begun, is to be gone on with. */
static bool ftr__fit_goes_on(const ftr__fit *fit) {
    const bool begun = fit->at.epoch_step > 0 && !fit->at.epoch_ended;
    return !fit->stop && !fit->interrupted && !fit->cut && (fit->at.steps < fit->steps_planned || begun);
}

/* Micro-batches of a group that the end of the run has cut. */
static int64_t ftr__fit_unapplied(const ftr__fit *fit) {
    const uint64_t group = fit->desc && fit->desc->accumulate > 1 ? (uint64_t)fit->desc->accumulate : 1;
    return (int64_t)(ftr_plan_steps(fit->train_plan) % group);
}

/* The weights that a run leaves in the graph. */
static ftr_status ftr__fit_finish(ftr__fit *fit) {
    const int64_t unapplied = ftr__fit_unapplied(fit);
    if (unapplied > 0)
        ftr__log(fit->context, FTR_LOG_INFO,
                 "ftr_fit: the run ends within a group of micro-batches: %lld of %lld were not applied",
                 (long long)unapplied, (long long)fit->desc->accumulate);
    if (fit->interrupted) return FTR_OK; /* those of its last step */
    if (fit->best && fit->at.best_epoch >= 0) return ftr__fit_copy_best(fit, true);
    const bool average = fit->desc->finish_with_average && ftr_plan_average_count(fit->train_plan) > 0;
    return average ? ftr_plan_swap_average(fit->train_plan) : FTR_OK;
}

static ftr_status ftr__fit_loop(ftr__fit *fit) {
    fit->progress = ftr__progress_begin(fit->context, fit->desc->progress);
    fit->began = ftr_time_seconds();
    ftr_status status = FTR_OK;
    while (status == FTR_OK && ftr__fit_goes_on(fit)) {
        if (fit->at.epoch_ended) {
            fit->at.epoch++;
            fit->at.epoch_step = 0;
            fit->at.epoch_ended = false;
            memset(&fit->at.totals, 0, sizeof fit->at.totals);
        }
        status = ftr__fit_epoch(fit);
    }
    ftr__progress_end(&fit->progress);
    if (status != FTR_OK) return status;
    const ftr_status saved = ftr__fit_close_checkpoints(fit);
    status = ftr__fit_finish(fit);
    return status == FTR_OK ? saved : status;
}

static void ftr__fit_result(const ftr__fit *fit, ftr_train_result *result) {
    result->epochs = fit->at.epochs_done;
    result->steps = fit->at.steps;
    result->loss = ftr__fit_means(&fit->at.totals, result->metrics);
    result->eval_loss = fit->at.eval_loss;
    memcpy(result->eval_metrics, fit->at.eval_metrics, sizeof fit->at.eval_metrics);
    result->best_epoch = fit->at.best_epoch;
    result->stopped_early = fit->stop;
    result->preempted = fit->interrupted;
    result->signal = fit->signal;
    result->resumed_at = fit->resumed_at;
    result->checkpoints = ftr_checkpointer_stats(fit->checkpointer);
    result->skipped_steps = fit->at.skipped;
    result->applied_steps = (int64_t)ftr_plan_applied_steps(fit->train_plan);
    result->unapplied_steps = ftr__fit_unapplied(fit);
    result->seconds = fit->began > 0.0 ? ftr_time_seconds() - fit->began : 0.0;
    result->samples_per_second = fit->train_seconds > 0.0 ? (double)fit->train_samples / fit->train_seconds : NAN;
    if (fit->train_plan) result->memory = ftr_plan_memory(fit->train_plan);
}

ftr_status ftr_fit(ftr_graph *graph, const ftr_train_desc *desc, ftr_train_result *result) {
    if (result) memset(result, 0, sizeof *result);
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    ftr__fit fit;
    ftr_status status = ftr__fit_begin(&fit, "ftr_fit", graph, desc);
    if (status == FTR_OK && desc->max_seconds > 0.0) fit.end = ftr_time_seconds() + desc->max_seconds;
    if (status == FTR_OK && desc->handle_signals) ftr__preempt_begin(&fit.preempt);
    if (status == FTR_OK) status = ftr__fit_prepare(&fit);
    if (status == FTR_OK) status = ftr__fit_loop(&fit);
    if (result) ftr__fit_result(&fit, result);
    ftr__fit_free(&fit);
    ftr__preempt_end(&fit.preempt);
    return status;
}

ftr_status ftr_evaluate(ftr_graph *graph, const ftr_train_desc *desc, ftr_train_result *result) {
    if (result) memset(result, 0, sizeof *result);
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    ftr__fit fit;
    ftr_status status = ftr__fit_begin(&fit, "ftr_evaluate", graph, desc);
    if (status == FTR_OK && !desc->eval)
        status = ftr__error(fit.context, FTR_ERROR_INVALID_ARGUMENT, "ftr_evaluate: eval is NULL, expected a source");
    if (status == FTR_OK) status = ftr__fit_match_eval(&fit);
    if (status == FTR_OK) status = ftr__fit_compile(&fit, FTR__FIT_EVALUATES, &fit.eval_feed, &fit.eval_plan);
    fit.began = ftr_time_seconds();
    if (status == FTR_OK) status = ftr__fit_evaluate(&fit);
    if (result) ftr__fit_result(&fit, result);
    ftr__fit_free(&fit);
    return status;
}

/* ---------------------------------------------------------------------------------------------------- batch norm -- */

/* Runs the training source once, in its own order. */
static ftr_status ftr__fit_measure(ftr__fit *fit) {
    ftr__feed *feed = &fit->train_feed;
    ftr_status status = FTR_OK;
    for (int64_t step = 0; step < fit->steps_per_epoch && status == FTR_OK; step++) {
        const int64_t first = step * feed->batch, left = feed->source->count - first;
        double metrics[FTR_MAX_METRICS];
        ftr_step_info info;
        status = ftr__fit_run(fit, feed, NULL, first, left < feed->batch ? left : feed->batch, &info, metrics);
    }
    return status;
}

/* A copy of the variables makes good what a failure leaves half done. */
static ftr_status ftr__fit_update_batch_norm(ftr__fit *fit) {
    ftr_status status = ftr__fit_match_train(fit);
    if (status == FTR_OK) status = ftr__fit_compile(fit, FTR__FIT_MEASURES, &fit->train_feed, &fit->train_plan);
    if (status != FTR_OK) return status;
    fit->best_bytes = fit->graph->variable_bytes;
    fit->best = ftr__allocate(fit->context, fit->best_bytes);
    if (!fit->best) return ftr__out_of_memory(fit->context, "ftr_update_batch_norm: a copy", fit->best_bytes);
    status = ftr__fit_copy_best(fit, false);
    if (status != FTR_OK) return status;
    status = ftr__fit_measure(fit);
    const ftr_status back = status == FTR_OK ? FTR_OK : ftr__fit_copy_best(fit, true);
    return back == FTR_OK ? status : back;
}

ftr_status ftr_update_batch_norm(ftr_graph *graph, const ftr_train_desc *desc) {
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    ftr__fit fit;
    ftr_status status = ftr__fit_begin(&fit, "ftr_update_batch_norm", graph, desc);
    if (status == FTR_OK && !desc->train)
        status = ftr__error(fit.context, FTR_ERROR_INVALID_ARGUMENT,
                            "ftr_update_batch_norm: train is NULL, expected a source");
    if (status == FTR_OK) status = ftr__fit_update_batch_norm(&fit);
    ftr__fit_free(&fit);
    return status;
}
