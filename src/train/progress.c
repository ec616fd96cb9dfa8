/* Progress texts are made by pure functions; only the last part of this file talks to the logger. */
#include "train/progress.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define FTR__PROGRESS_INTERVAL 0.1 /* seconds between two drawings of a bar */
#define FTR__PROGRESS_BAR_MIN 6
#define FTR__PROGRESS_BAR_MAX 24

/* Appends to a text of FTR__PROGRESS_TEXT bytes; what does not fit is cut. */
static void ftr__progress_append(char *text, const char *format, ...) FTR__PRINTF(2, 3);
static void ftr__progress_append(char *text, const char *format, ...) {
    size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, FTR__PROGRESS_TEXT - used, format, args);
    va_end(args);
}

static void ftr__progress_value(char *text, const char *prefix, const char *name, double value) {
    if (isnan(value)) { /* printf would show its sign */
        ftr__progress_append(text, "  %s%s nan", prefix, name);
        return;
    }
    double size = fabs(value);
    bool plain = size == 0.0 || (size >= 1e-3 && size < 1e5);
    ftr__progress_append(text, plain ? "  %s%s %.4f" : "  %s%s %.3e", prefix, name, value);
}

static void ftr__progress_speed(char *text, double speed, const char *unit) {
    if (!(speed < 1e15)) return; /* nothing measured yet */
    if (speed < 1e4)
        ftr__progress_append(text, "  %.0f%s", speed, unit);
    else if (speed < 1e6)
        ftr__progress_append(text, "  %.1fk%s", speed / 1e3, unit);
    else
        ftr__progress_append(text, "  %.1fM%s", speed / 1e6, unit);
}

static void ftr__progress_time(char *text, double seconds) {
    if (!(seconds < 1e12)) return;
    long long whole = seconds > 0 ? (long long)(seconds + 0.5) : 0;
    if (whole < 3600)
        ftr__progress_append(text, "  %lld:%02lld", whole / 60, whole % 60);
    else
        ftr__progress_append(text, "  %lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
}

/* Numbers are padded to the width of the total, so that lines stand below one another. */
static void ftr__progress_count(char *text, int64_t done, int64_t total) {
    char last[24];
    int width = snprintf(last, sizeof last, "%lld", (long long)total);
    ftr__progress_append(text, "%*lld/%s", width, (long long)done, last);
}

static void ftr__progress_draw(char *text, int64_t step, int64_t steps, int width) {
    int filled = steps > 0 ? (int)((double)step / (double)steps * width) : width;
    ftr__progress_append(text, " [");
    for (int i = 0; i < width; i++) ftr__progress_append(text, "%c", i < filled ? '=' : i == filled ? '>' : ' ');
    ftr__progress_append(text, "] ");
}

const char *ftr__progress_bar(const ftr__progress_report *report, char text[FTR__PROGRESS_TEXT]) {
    char count[FTR__PROGRESS_TEXT] = "", values[FTR__PROGRESS_TEXT] = "", times[FTR__PROGRESS_TEXT] = "";
    text[0] = '\0';
    ftr__progress_append(text, "epoch ");
    ftr__progress_count(text, report->epoch + 1, report->epochs);
    ftr__progress_count(count, report->step, report->steps);
    ftr__progress_speed(times, report->samples_per_second, "/s");
    ftr__progress_time(times, report->seconds_left);
    if (report->seconds_left < 1e12) ftr__progress_append(times, " left");
    size_t fixed = strlen(text) + strlen(" [] ") + strlen(count) + strlen(times);
    ftr__progress_value(values, "", "loss", report->loss);
    for (int32_t i = 0; i < report->metric_count; i++) {
        size_t before = strlen(values);
        ftr__progress_value(values, "", report->names[i], report->metrics[i]);
        if (fixed + strlen(values) + FTR__PROGRESS_BAR_MIN <= FTR__PROGRESS_WIDTH) continue;
        values[before] = '\0';
        break;
    }
    int room = FTR__PROGRESS_WIDTH - (int)(fixed + strlen(values));
    int width = room > FTR__PROGRESS_BAR_MAX ? FTR__PROGRESS_BAR_MAX : room;
    ftr__progress_draw(text, report->step, report->steps,
                       width < FTR__PROGRESS_BAR_MIN ? FTR__PROGRESS_BAR_MIN : width);
    ftr__progress_append(text, "%s%s%s", count, values, times);
    if (strlen(text) > FTR__PROGRESS_WIDTH) text[FTR__PROGRESS_WIDTH] = '\0';
    return text;
}

const char *ftr__progress_line(const ftr__progress_report *report, char text[FTR__PROGRESS_TEXT]) {
    text[0] = '\0';
    ftr__progress_append(text, "epoch ");
    ftr__progress_count(text, report->epoch + 1, report->epochs);
    ftr__progress_value(text, "", "loss", report->loss);
    for (int32_t i = 0; i < report->metric_count; i++)
        ftr__progress_value(text, "", report->names[i], report->metrics[i]);
    if (report->evaluated) ftr__progress_value(text, "eval ", "loss", report->eval_loss);
    for (int32_t i = 0; report->evaluated && i < report->metric_count; i++)
        ftr__progress_value(text, "eval ", report->names[i], report->eval_metrics[i]);
    ftr__progress_speed(text, report->samples_per_second, " samples/s");
    ftr__progress_time(text, report->seconds);
    return text;
}

ftr__progress ftr__progress_begin(const ftr_context *context, ftr_progress kind) {
    if (kind == FTR_PROGRESS_AUTO) kind = context->log_to_terminal ? FTR_PROGRESS_BAR : FTR_PROGRESS_LINES;
    return (ftr__progress){.context = context, .kind = kind, .drawn_at = -1.0};
}

bool ftr__progress_due(const ftr__progress *progress) {
    if (progress->kind != FTR_PROGRESS_BAR) return false;
    return ftr_time_seconds() - progress->drawn_at >= FTR__PROGRESS_INTERVAL;
}

void ftr__progress_step(ftr__progress *progress, const ftr__progress_report *report) {
    char text[FTR__PROGRESS_TEXT];
    if (!ftr__progress_due(progress)) return;
    ftr__log_transient(progress->context, "%s", ftr__progress_bar(report, text));
    progress->drawn = true;
    progress->drawn_at = ftr_time_seconds();
}

void ftr__progress_epoch(ftr__progress *progress, const ftr__progress_report *report) {
    char text[FTR__PROGRESS_TEXT];
    if (progress->kind == FTR_PROGRESS_SILENT) return;
    ftr__log(progress->context, FTR_LOG_INFO, "%s", ftr__progress_line(report, text));
    progress->drawn = false;
}

void ftr__progress_end(ftr__progress *progress) {
    if (progress->drawn) ftr__log_transient(progress->context, "%s", "");
    progress->drawn = false;
}
