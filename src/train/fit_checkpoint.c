/* Checkpoints of a training run: what is saved besides the plan, when, and how the run gets it back. */
#include "train/fit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What a save may take as long as none has been measured, in bytes a second. */
#define FTR__FIT_WRITE_SPEED 50e6

/* --------------------------------------------------------------------------------------------------- description -- */

static ftr_status ftr__fit_check_best(const ftr__fit *fit) {
    const ftr_checkpoint_desc *desc = &fit->desc->checkpoint;
    if (desc->metric && !ftr__fit_knows_metric(fit, desc->metric))
        return ftr__error(fit->context, FTR_ERROR_NAME,
                          "ftr_fit: checkpoint.metric is '%s', expected 'loss' or the name of a metric", desc->metric);
    if (desc->keep_best <= 0) return FTR_OK;
    if (!desc->metric)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: checkpoint.keep_best is %d, but checkpoint.metric is NULL", (int)desc->keep_best);
    if (desc->every_epochs == 0 && (desc->every_steps > 0 || desc->every_seconds > 0.0 || desc->mtbf_seconds > 0.0))
        return ftr__error(
            fit->context, FTR_ERROR_INVALID_ARGUMENT,
            "ftr_fit: checkpoint.keep_best is %d, but no checkpoint is written at the end of an epoch: set "
            "checkpoint.every_epochs",
            (int)desc->keep_best);
    return FTR_OK;
}

ftr_status ftr__fit_check_checkpoint(const ftr__fit *fit) {
    const ftr_train_desc *desc = fit->desc;
    if ((int)desc->resume < (int)FTR_RESUME_NEVER || desc->resume > FTR_RESUME_MUST)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: resume is %d, expected one of ftr_resume",
                          (int)desc->resume);
    if (!(desc->max_seconds >= 0.0))
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: max_seconds is %g, expected 0 (no limit) or more", desc->max_seconds);
    if (desc->checkpoint.directory) return ftr__fit_check_best(fit);
    if (desc->resume != FTR_RESUME_NEVER)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: resume is set, but checkpoint.directory is NULL");
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------ sections -- */

static void ftr__fit_key(char key[32], const char *what, int32_t index) {
    snprintf(key, 32, "%s_%d", what, (int)index);
}

/* Settings as numbers; those that are 0 are left out of the file. */
typedef struct ftr__fit_setting {
    const char *name;
    double value;
} ftr__fit_setting;

#define FTR__FIT_SETTINGS 20

static int32_t ftr__fit_schedule_settings(const ftr_schedule *s, ftr__fit_setting to[FTR__FIT_SETTINGS]) {
    const ftr__fit_setting settings[] = {
        {"kind", (double)s->kind},
        {"steps", (double)s->steps},
        {"gamma", s->gamma},
        {"eta_min", s->eta_min},
        {"cycle_factor", (double)s->cycle_factor},
        {"start_factor", s->start_factor},
        {"end_factor", s->end_factor},
        {"power", s->power},
        {"pct_start", s->pct_start},
        {"div_factor", s->div_factor},
        {"final_div_factor", s->final_div_factor},
        {"three_phase", (double)s->three_phase},
        {"anneal", (double)s->anneal},
        {"decay_steps", (double)s->decay_steps},
        {"milestone_count", (double)s->milestone_count},
        {"warmup_steps", (double)s->warmup_steps},
        {"warmup_factor", s->warmup_factor},
        {"per_epoch", (double)s->per_epoch},
    };
    _Static_assert(sizeof settings <= FTR__FIT_SETTINGS * sizeof *to, "FTR__FIT_SETTINGS is too small");
    memcpy(to, settings, sizeof settings);
    return s->kind == FTR_SCHEDULE_NONE ? 0 : FTR__ARRAY_LENGTH(settings);
}

static int32_t ftr__fit_plateau_settings(const ftr__fit *fit, ftr__fit_setting to[FTR__FIT_SETTINGS]) {
    const ftr_plateau *p = fit->desc->plateau;
    if (!p) return 0;
    const ftr__fit_setting settings[] = {
        {"maximize", (double)p->maximize},
        {"factor", p->factor},
        {"patience", (double)p->patience},
        {"threshold", p->threshold},
        {"threshold_absolute", (double)p->threshold_absolute},
        {"cooldown", (double)p->cooldown},
        {"min_lr", p->min_lr},
        {"eps", p->eps},
    };
    memcpy(to, settings, sizeof settings);
    return FTR__ARRAY_LENGTH(settings);
}

static void ftr__fit_write_settings(const ftr__fit_setting *settings, int32_t count, ftr__checkpoint_out *out) {
    for (int32_t i = 0; i < count; i++)
        if (settings[i].value != 0.0) ftr__checkpoint_put_real(out, settings[i].name, settings[i].value);
}

static void ftr__fit_same_settings(const ftr__fit_setting *settings, int32_t count, ftr__checkpoint_values *values) {
    for (int32_t i = 0; i < count; i++) ftr__checkpoint_same_real(values, settings[i].name, settings[i].value, 0.0);
    /* a schedule or plateau that the run no longer has */
    if (count == 0 && values->status == FTR_OK && values->object->as.list.count > 0)
        values->status = ftr__error(values->context, FTR_ERROR_STATE,
                                    "%s: the checkpoint is of another run: it has a %s, and there is none here",
                                    values->path, values->section);
}

/* An object; the parts of a chain, which are no chains themselves, are objects in it. */
static void ftr__fit_write_schedule(const ftr_schedule *schedule, const char *key, ftr__checkpoint_out *out) {
    ftr__fit_setting settings[FTR__FIT_SETTINGS];
    char name[32];
    ftr__checkpoint_open_object(out, key);
    const int32_t count = ftr__fit_schedule_settings(schedule, settings);
    ftr__fit_write_settings(settings, count, out);
    for (int32_t i = 0; count > 0 && i < schedule->milestone_count; i++) {
        ftr__fit_key(name, "milestone", i);
        ftr__checkpoint_put_integer(out, name, schedule->milestones[i]);
    }
    for (int32_t i = 0; schedule->kind == FTR_SCHEDULE_CHAIN && i <= schedule->milestone_count; i++) {
        ftr__fit_key(name, "part", i);
        ftr__fit_write_schedule(&schedule->parts[i], name, out);
    }
    ftr__checkpoint_close_object(out);
}

/* `section` is what messages call the object of this key. */
static ftr_status ftr__fit_same_schedule(const ftr_schedule *schedule, const char *key, const char *section,
                                         const ftr__checkpoint_values *outer) {
    ftr__fit_setting settings[FTR__FIT_SETTINGS];
    char name[32], inner[64];
    ftr__checkpoint_values values = ftr__checkpoint_object(outer, key, section);
    const int32_t count = ftr__fit_schedule_settings(schedule, settings);
    ftr__fit_same_settings(settings, count, &values);
    for (int32_t i = 0; count > 0 && i < schedule->milestone_count; i++) {
        ftr__fit_key(name, "milestone", i);
        ftr__checkpoint_same_integer(&values, name, schedule->milestones[i]);
    }
    for (int32_t i = 0; schedule->kind == FTR_SCHEDULE_CHAIN && i <= schedule->milestone_count; i++) {
        ftr__fit_key(name, "part", i);
        snprintf(inner, sizeof inner, "%.28s.%.31s", section, name);
        if (values.status == FTR_OK) values.status = ftr__fit_same_schedule(&schedule->parts[i], name, inner, &values);
    }
    return values.status;
}

static const char *ftr__fit_plateau_metric(const ftr__fit *fit) {
    return fit->desc->plateau_metric ? fit->desc->plateau_metric : "loss";
}

static void ftr__fit_write_plateau(const ftr__fit *fit, ftr__checkpoint_out *out) {
    const ftr_plateau *plateau = fit->desc->plateau;
    ftr__fit_setting settings[FTR__FIT_SETTINGS];
    ftr__checkpoint_open_object(out, "plateau");
    ftr__fit_write_settings(settings, ftr__fit_plateau_settings(fit, settings), out);
    if (plateau) {
        ftr__checkpoint_put_string(out, "metric", ftr__fit_plateau_metric(fit));
        ftr__checkpoint_put_real(out, "best", plateau->best);
        ftr__checkpoint_put_integer(out, "bad_epochs", plateau->bad_epochs);
        ftr__checkpoint_put_integer(out, "cooldown_left", plateau->cooldown_left);
    }
    ftr__checkpoint_close_object(out);
}

/* Compares the settings and reads the state. */
static ftr_status ftr__fit_read_plateau(const ftr__fit *fit, const ftr__checkpoint_values *run, ftr_plateau *plateau) {
    ftr__fit_setting settings[FTR__FIT_SETTINGS];
    ftr__checkpoint_values values = ftr__checkpoint_object(run, "plateau", "run.plateau");
    ftr__fit_same_settings(settings, ftr__fit_plateau_settings(fit, settings), &values);
    if (!fit->desc->plateau) return values.status;
    ftr__checkpoint_same_string(&values, "metric", ftr__fit_plateau_metric(fit));
    plateau->best = ftr__checkpoint_real(&values, "best");
    plateau->bad_epochs = ftr__checkpoint_integer(&values, "bad_epochs", 0, INT64_MAX);
    plateau->cooldown_left = ftr__checkpoint_integer(&values, "cooldown_left", 0, INT64_MAX);
    return values.status;
}

/* What must be the same when the run is resumed. */
static void ftr__fit_write_facts(const ftr__fit *fit, ftr__checkpoint_out *out) {
    const ftr_train_desc *desc = fit->desc;
    char key[32];
    ftr__checkpoint_put_real(out, "lr", desc->optimizer.lr);
    ftr__checkpoint_put_integer(out, "samples", desc->train->count);
    ftr__checkpoint_put_integer(out, "steps_per_epoch", fit->steps_per_epoch);
    ftr__checkpoint_put_bool(out, "no_shuffle", desc->no_shuffle);
    ftr__checkpoint_put_integer(out, "metric_count", desc->metric_count);
    for (int32_t i = 0; i < desc->metric_count; i++) {
        ftr__fit_key(key, "metric_name", i);
        ftr__checkpoint_put_string(out, key, fit->names[i]);
    }
    ftr__checkpoint_put_string(out, "early_stop_metric", desc->early_stop.metric ? desc->early_stop.metric : "");
    ftr__checkpoint_put_bool(out, "early_stop_maximize", desc->early_stop.maximize);
    const bool evaluates = desc->early_stop.metric || desc->plateau;
    if (evaluates) ftr__checkpoint_put_bool(out, "metrics_of_evaluation", desc->eval != NULL);
    if (desc->evaluate_average) ftr__checkpoint_put_integer(out, "evaluate_average", 1);
    ftr__fit_write_schedule(&desc->schedule, "schedule", out);
    ftr__fit_write_plateau(fit, out);
}

static ftr_status ftr__fit_same_facts(const ftr__fit *fit, ftr__checkpoint_values *values) {
    const ftr_train_desc *desc = fit->desc;
    char key[32];
    ftr__checkpoint_same_real(values, "lr", desc->optimizer.lr, (double)NAN);
    ftr__checkpoint_same_integer(values, "samples", desc->train->count);
    ftr__checkpoint_same_integer(values, "steps_per_epoch", fit->steps_per_epoch);
    ftr__checkpoint_same_bool(values, "no_shuffle", desc->no_shuffle);
    ftr__checkpoint_same_integer(values, "metric_count", desc->metric_count);
    for (int32_t i = 0; i < desc->metric_count; i++) {
        ftr__fit_key(key, "metric_name", i);
        ftr__checkpoint_same_string(values, key, fit->names[i]);
    }
    ftr__checkpoint_same_string(values, "early_stop_metric", desc->early_stop.metric ? desc->early_stop.metric : "");
    ftr__checkpoint_same_bool(values, "early_stop_maximize", desc->early_stop.maximize);
    const bool evaluates = desc->early_stop.metric || desc->plateau;
    if (evaluates && ftr__checkpoint_has(values, "metrics_of_evaluation"))
        ftr__checkpoint_same_bool(values, "metrics_of_evaluation", desc->eval != NULL);
    ftr__checkpoint_same_real(values, "evaluate_average", desc->evaluate_average ? 1.0 : 0.0, 0.0);
    if (values->status == FTR_OK)
        values->status = ftr__fit_same_schedule(&desc->schedule, "schedule", "run.schedule", values);
    return values->status;
}

static void ftr__fit_write_run(void *user, ftr__checkpoint_out *out) {
    const ftr__fit *fit = user;
    const ftr__fit_state *at = &fit->at;
    const int32_t metrics = fit->desc->metric_count;
    ftr__fit_write_facts(fit, out);
    ftr__checkpoint_put_integer(out, "epoch", at->epoch);
    ftr__checkpoint_put_integer(out, "epoch_step", at->epoch_step);
    ftr__checkpoint_put_bool(out, "epoch_ended", at->epoch_ended);
    ftr__checkpoint_put_integer(out, "steps", at->steps);
    ftr__checkpoint_put_integer(out, "epochs_done", at->epochs_done);
    ftr__checkpoint_put_integer(out, "skipped", at->skipped);
    ftr__checkpoint_put_integer(out, "sum_samples", at->totals.samples);
    ftr__checkpoint_put_real(out, "sum_loss", at->totals.loss);
    ftr__checkpoint_put_reals(out, "sum_metrics", at->totals.metrics, metrics);
    ftr__checkpoint_put_real(out, "eval_loss", at->eval_loss);
    ftr__checkpoint_put_reals(out, "eval_metrics", at->eval_metrics, metrics);
    ftr__checkpoint_put_real(out, "base_lr", at->base_lr);
    ftr__checkpoint_put_real(out, "best_value", at->best_value);
    ftr__checkpoint_put_integer(out, "best_epoch", at->best_epoch);
    ftr__checkpoint_put_integer(out, "epochs_without", at->epochs_without);
}

static ftr_status ftr__fit_read_run(const ftr__fit *fit, const ftr_checkpoint *checkpoint, ftr__fit_state *at,
                                    ftr_plateau *plateau) {
    const int32_t metrics = fit->desc->metric_count;
    ftr__checkpoint_values values = ftr__checkpoint_values_of(checkpoint, "run");
    ftr_status status = ftr__fit_same_facts(fit, &values);
    if (status != FTR_OK) return status;
    at->epoch = ftr__checkpoint_integer(&values, "epoch", 0, INT64_MAX - 1);
    at->epoch_step = ftr__checkpoint_integer(&values, "epoch_step", 0, fit->steps_per_epoch);
    at->epoch_ended = ftr__checkpoint_bool(&values, "epoch_ended");
    at->steps = ftr__checkpoint_integer(&values, "steps", 0, INT64_MAX);
    at->epochs_done = ftr__checkpoint_integer(&values, "epochs_done", 0, INT64_MAX);
    if (ftr__checkpoint_has(&values, "skipped"))
        at->skipped = ftr__checkpoint_integer(&values, "skipped", 0, at->steps);
    at->totals.samples = ftr__checkpoint_integer(&values, "sum_samples", 0, fit->desc->train->count);
    at->totals.loss = ftr__checkpoint_real(&values, "sum_loss");
    ftr__checkpoint_reals(&values, "sum_metrics", at->totals.metrics, metrics);
    at->eval_loss = ftr__checkpoint_real(&values, "eval_loss");
    ftr__checkpoint_reals(&values, "eval_metrics", at->eval_metrics, metrics);
    at->base_lr = ftr__checkpoint_real(&values, "base_lr");
    at->best_value = ftr__checkpoint_real(&values, "best_value");
    at->best_epoch = ftr__checkpoint_integer(&values, "best_epoch", -1, INT64_MAX);
    at->epochs_without = ftr__checkpoint_integer(&values, "epochs_without", 0, INT64_MAX);
    return values.status == FTR_OK ? ftr__fit_read_plateau(fit, &values, plateau) : values.status;
}

static bool ftr__fit_has_best(void *user) {
    const ftr__fit *fit = user;
    return fit->at.best_epoch >= 0;
}

static ftr_status ftr__fit_copy_section(void *user, unsigned char *to) {
    const ftr__fit *fit = user;
    memcpy(to, fit->best, fit->best_bytes);
    return FTR_OK;
}

static ftr_status ftr__fit_put_best(void *user, int32_t index, const void *data) {
    const ftr__fit *fit = user;
    const ftr__variable *variable = &fit->graph->variables[index];
    if (variable->bytes > 0) memcpy(fit->best + variable->offset, data, variable->bytes);
    return FTR_OK;
}

static ftr_status ftr__fit_make_sections(ftr__fit *fit) {
    fit->sections[0] = (ftr__checkpoint_section){.name = "run", .user = fit, .write = ftr__fit_write_run};
    fit->section_count = 1;
    if (!fit->best) return FTR_OK;
    ftr__checkpoint_section *best = &fit->sections[fit->section_count++];
    const ftr_status status = ftr__checkpoint_variables(fit->graph, &fit->arena, "best", best);
    best->user = fit;
    best->present = ftr__fit_has_best;
    best->copy = ftr__fit_copy_section;
    best->put = ftr__fit_put_best;
    return status;
}

/* -------------------------------------------------------------------------------------------------------- resume -- */

static ftr_status ftr__fit_restore(ftr__fit *fit, const ftr_checkpoint *checkpoint) {
    ftr__fit_state at = fit->at;
    ftr_plateau none = {0}, plateau = fit->desc->plateau ? *fit->desc->plateau : none;
    ftr_status status = ftr__fit_read_run(fit, checkpoint, &at, &plateau);
    /* "run" has no tensors; "best" is there once there is a best epoch */
    const int32_t sections = at.best_epoch >= 0 ? fit->section_count : 1;
    if (status == FTR_OK) status = ftr__checkpoint_restore(checkpoint, fit->train_plan, fit->sections, sections);
    if (status != FTR_OK) return status;
    fit->at = at;
    if (fit->desc->plateau) *fit->desc->plateau = plateau;
    fit->resumed_at = at.steps;
    fit->saved_steps = at.steps;
    fit->saved_ended = at.epoch_ended;
    fit->stop = ftr__fit_has_stopped(fit->desc, &at);
    ftr__log(fit->context, FTR_LOG_INFO, "resumed at step %lld (epoch %lld) from %s", (long long)at.steps,
             (long long)at.epoch + 1, checkpoint->info.path);
    return FTR_OK;
}

static ftr_status ftr__fit_resume(ftr__fit *fit) {
    const ftr_train_desc *desc = fit->desc;
    const char *directory = desc->checkpoint.directory;
    if (desc->resume == FTR_RESUME_NEVER) {
        if (ftr__checkpointer_found(fit->checkpointer) == 0) return FTR_OK;
        return ftr__error(fit->context, FTR_ERROR_STATE,
                          "ftr_fit: %s: found %d checkpoints of an earlier run: resume it (FTR_RESUME_AUTO), or take "
                          "another directory",
                          directory, (int)ftr__checkpointer_found(fit->checkpointer));
    }
    ftr_checkpoint *checkpoint = NULL;
    ftr_status status = ftr_checkpoint_find(fit->context, directory, &checkpoint);
    if (status != FTR_OK) return status;
    if (!checkpoint && desc->resume == FTR_RESUME_MUST)
        return ftr__error(fit->context, FTR_ERROR_STATE,
                          "ftr_fit: %s: found no checkpoint, expected one (FTR_RESUME_MUST)", directory);
    if (checkpoint) status = ftr__fit_restore(fit, checkpoint);
    ftr_checkpoint_close(checkpoint);
    return status;
}

ftr_status ftr__fit_open_checkpoints(ftr__fit *fit) {
    const ftr_checkpoint_desc *desc = &fit->desc->checkpoint;
    if (!desc->directory) return FTR_OK;
    const bool timed = desc->every_steps > 0 || desc->every_seconds > 0.0 || desc->mtbf_seconds > 0.0;
    fit->every_epochs = desc->every_epochs > 0 || timed ? desc->every_epochs : 1;
    ftr_status status = ftr__fit_make_sections(fit);
    if (status == FTR_OK)
        status = ftr__checkpointer_create(fit->train_plan, desc, fit->sections, fit->section_count, &fit->checkpointer);
    return status == FTR_OK ? ftr__fit_resume(fit) : status;
}

/* -------------------------------------------------------------------------------------------------- interruption -- */

/* Seconds that a last save may take. */
static double ftr__fit_save_seconds(const ftr__fit *fit) {
    if (!fit->checkpointer) return 0.0;
    const ftr_checkpoint_stats stats = ftr_checkpointer_stats(fit->checkpointer);
    if (stats.saved + stats.failed > 0) return 1.5 * (stats.last_write_seconds + stats.last_stall_seconds);
    double bytes = 0.0;
    const ftr_memory memory = ftr_plan_memory(fit->train_plan);
    bytes += (double)(memory.parameters + memory.optimizer_state + fit->best_bytes);
    return bytes / FTR__FIT_WRITE_SPEED;
}

/* The time is not looked at before the first step of the call: a run that is resumed time and again must get on. */
bool ftr__fit_is_interrupted(ftr__fit *fit, double seconds) {
    if (fit->interrupted) return true;
    fit->signal = ftr__preempt_poll(&fit->preempt);
    fit->interrupted = fit->signal != 0;
    if (fit->interrupted) {
        ftr__log(fit->context, FTR_LOG_INFO, "ftr_fit: signal %d: the run ends at step %lld", (int)fit->signal,
                 (long long)fit->at.steps);
        return true;
    }
    if (fit->end <= 0.0 || fit->longest_step <= 0.0) return false;
    fit->interrupted = ftr_time_seconds() + seconds + ftr__fit_save_seconds(fit) >= fit->end;
    if (fit->interrupted)
        ftr__log(fit->context, FTR_LOG_INFO, "ftr_fit: max_seconds (%g) are nearly over: the run ends at step %lld",
                 fit->desc->max_seconds, (long long)fit->at.steps);
    return fit->interrupted;
}

/* --------------------------------------------------------------------------------------------------------- saves -- */

static ftr_status ftr__fit_save(ftr__fit *fit, double metric) {
    const ftr_checkpoint_point point = {
        .step = fit->at.steps, .epoch = fit->at.epoch, .position = fit->at.epoch_step, .metric = metric};
    const int64_t skipped = ftr_checkpointer_stats(fit->checkpointer).skipped;
    ftr_status status = ftr_checkpoint_save(fit->checkpointer, &point);
    if (status == FTR_OK && ftr_checkpointer_stats(fit->checkpointer).skipped == skipped) {
        fit->saved_steps = fit->at.steps;
        fit->saved_ended = fit->at.epoch_ended;
    }
    if (status == FTR_OK || fit->desc->checkpoint.on_failure == FTR_CHECKPOINT_STOP) return status;
    ftr__log(fit->context, FTR_LOG_WARNING, "%s; training goes on", fit->context->message);
    return FTR_OK;
}

static bool ftr__fit_epoch_is_due(const ftr__fit *fit) {
    return fit->every_epochs > 0 && (fit->at.epoch + 1) % fit->every_epochs == 0;
}

ftr_status ftr__fit_step_done(ftr__fit *fit) {
    if (!fit->checkpointer || !ftr_checkpoint_due(fit->checkpointer, fit->at.steps)) return FTR_OK;
    /* the one at the end of the epoch is as good */
    if (fit->at.epoch_step == fit->steps_per_epoch && ftr__fit_epoch_is_due(fit)) return FTR_OK;
    return ftr__fit_save(fit, (double)NAN);
}

ftr_status ftr__fit_save_cut(ftr__fit *fit) {
    if (!fit->checkpointer || fit->saved_steps == fit->at.steps) return FTR_OK;
    return ftr__fit_save(fit, (double)NAN);
}

ftr_status ftr__fit_epoch_done(ftr__fit *fit, double metric) {
    if (!fit->checkpointer || !ftr__fit_epoch_is_due(fit)) return FTR_OK;
    return ftr__fit_save(fit, metric);
}

/* Waits for the writer. False if a second signal came: the writer then gives up. */
static bool ftr__fit_wait(ftr__fit *fit) {
    while (ftr__checkpointer_is_busy(fit->checkpointer, 0.02)) {
        const int32_t signal = ftr__preempt_poll(&fit->preempt);
        if (signal != 0 && fit->signal != 0) {
            ftr__checkpointer_cancel(fit->checkpointer);
            return false;
        }
        if (signal != 0) fit->signal = signal;
    }
    return true;
}

/* The last save of a run. It is not skipped: the writer is waited for. What was saved last is saved again if that
 * failed. */
static ftr_status ftr__fit_save_last(ftr__fit *fit) {
    const bool patient = ftr__fit_wait(fit);
    ftr_status status = ftr_checkpointer_wait(fit->checkpointer);
    const bool saved = status == FTR_OK && fit->saved_steps == fit->at.steps && fit->saved_ended == fit->at.epoch_ended;
    if (saved || (status != FTR_OK && fit->desc->checkpoint.on_failure == FTR_CHECKPOINT_STOP)) return status;
    if (!patient)
        return ftr__error(
            fit->context, FTR_ERROR_IO,
            "ftr_fit: a second signal came before step %lld was saved; the checkpoint before it is intact",
            (long long)fit->at.steps);
    if (status != FTR_OK) ftr__log(fit->context, FTR_LOG_WARNING, "%s; once more", fit->context->message);
    status = ftr__fit_save(fit, (double)NAN);
    ftr__fit_wait(fit);
    const ftr_status written = ftr_checkpointer_wait(fit->checkpointer);
    return status == FTR_OK ? written : status;
}

ftr_status ftr__fit_close_checkpoints(ftr__fit *fit) {
    ftr_status status = fit->checkpointer ? ftr__fit_save_last(fit) : FTR_OK;
    const int32_t late = ftr__preempt_poll(&fit->preempt); /* one that came after the last look */
    if (fit->signal == 0) fit->signal = late;
    if (status != FTR_OK && !fit->interrupted && fit->desc->checkpoint.on_failure == FTR_CHECKPOINT_WARN) {
        ftr__log(fit->context, FTR_LOG_WARNING, "%s", fit->context->message);
        status = FTR_OK;
    }
    return status;
}
