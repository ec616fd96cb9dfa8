#include "core/core.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#define FTR__COOKIE_SCHEDULE 0x73636831u
#define FTR__COOKIE_PLATEAU 0x706c6131u

static const double ftr__schedule_pi = 3.14159265358979323846;

static ftr_schedule ftr__schedule_of(ftr_schedule_kind kind, int64_t steps) {
    return (ftr_schedule){.cookie = FTR__COOKIE_SCHEDULE, .kind = kind, .steps = steps};
}

ftr_schedule ftr_schedule_constant(void) { return ftr__schedule_of(FTR_SCHEDULE_CONSTANT, 0); }

ftr_schedule ftr_schedule_step(int64_t steps, double gamma) {
    ftr_schedule s = ftr__schedule_of(FTR_SCHEDULE_STEP, steps);
    s.gamma = gamma;
    return s;
}

ftr_schedule ftr_schedule_multi_step(const int64_t *milestones, int32_t count, double gamma) {
    ftr_schedule s = ftr__schedule_of(FTR_SCHEDULE_MULTI_STEP, 0);
    s.milestones = milestones, s.milestone_count = count, s.gamma = gamma;
    return s;
}

ftr_schedule ftr_schedule_exponential(double gamma) {
    ftr_schedule s = ftr__schedule_of(FTR_SCHEDULE_EXPONENTIAL, 0);
    s.gamma = gamma;
    return s;
}

ftr_schedule ftr_schedule_cosine(int64_t steps, double eta_min) {
    ftr_schedule s = ftr__schedule_of(FTR_SCHEDULE_COSINE, steps);
    s.eta_min = eta_min;
    return s;
}

ftr_schedule ftr_schedule_cosine_restarts(int64_t steps, int64_t cycle_factor, double eta_min) {
    ftr_schedule s = ftr__schedule_of(FTR_SCHEDULE_COSINE_RESTARTS, steps);
    s.cycle_factor = cycle_factor, s.eta_min = eta_min;
    return s;
}

ftr_schedule ftr_schedule_linear(double start_factor, double end_factor, int64_t steps) {
    ftr_schedule s = ftr__schedule_of(FTR_SCHEDULE_LINEAR, steps);
    s.start_factor = start_factor, s.end_factor = end_factor;
    return s;
}

ftr_schedule ftr_schedule_polynomial(int64_t steps, double power) {
    ftr_schedule s = ftr__schedule_of(FTR_SCHEDULE_POLYNOMIAL, steps);
    s.power = power;
    return s;
}

ftr_schedule ftr_schedule_one_cycle(int64_t steps) {
    ftr_schedule s = ftr__schedule_of(FTR_SCHEDULE_ONE_CYCLE, steps);
    s.pct_start = 0.3, s.div_factor = 25.0, s.final_div_factor = 1e4;
    return s;
}

ftr_schedule ftr_schedule_stable_decay(int64_t warmup, int64_t stable, int64_t decay) {
    ftr_schedule s = ftr__schedule_of(FTR_SCHEDULE_STABLE_DECAY, stable);
    s.warmup_steps = warmup, s.decay_steps = decay, s.anneal = FTR_ANNEAL_LINEAR;
    return s;
}

ftr_schedule ftr_schedule_function(ftr_schedule_fn function, void *user) {
    ftr_schedule s = ftr__schedule_of(FTR_SCHEDULE_FUNCTION, 0);
    s.function = function, s.user = user;
    return s;
}

ftr_schedule ftr_schedule_chain(const ftr_schedule *parts, const int64_t *milestones, int32_t milestone_count) {
    ftr_schedule s = ftr__schedule_of(FTR_SCHEDULE_CHAIN, 0);
    s.parts = parts, s.milestones = milestones, s.milestone_count = milestone_count;
    return s;
}

/* -------------------------------------------------------------------------------------------------------- checks -- */

/* A sentence that is being made, behind "schedule: " and the part's name. */
typedef struct ftr__fault {
    char text[FTR__MESSAGE_SIZE / 2];
} ftr__fault;

static bool ftr__fault_set(ftr__fault *fault, const char *format, ...) FTR__PRINTF(2, 3);

/* Writes the sentence; returns false. */
static bool ftr__fault_set(ftr__fault *fault, const char *format, ...) {
    va_list args;
    va_start(args, format);
    (void)vsnprintf(fault->text, sizeof fault->text, format, args);
    va_end(args);
    return false;
}

static bool ftr__check_count(ftr__fault *fault, const char *field, int64_t value, int64_t least) {
    return value >= least ||
           ftr__fault_set(fault, "%s is %lld, expected %lld or more", field, (long long)value, (long long)least);
}

/* A finite number of `least` or more, or above `least`. */
static bool ftr__check_number(ftr__fault *fault, const char *field, double value, double least, bool above) {
    if (isfinite(value) && (above ? value > least : value >= least)) return true;
    return ftr__fault_set(fault, "%s is %g, expected a finite number %s%g%s", field, value, above ? "above " : "of ",
                          least, above ? "" : " or more");
}

static bool ftr__check_milestones(ftr__fault *fault, const ftr_schedule *s) {
    if (s->milestone_count < 1 || !s->milestones)
        return ftr__fault_set(fault, "milestones is %s with a milestone_count of %d", s->milestones ? "given" : "NULL",
                              (int)s->milestone_count);
    for (int32_t i = 0; i < s->milestone_count; i++) {
        const int64_t before = i > 0 ? s->milestones[i - 1] : 0;
        if (s->milestones[i] <= before)
            return ftr__fault_set(fault, "milestones[%d] is %lld, expected more than %lld", (int)i,
                                  (long long)s->milestones[i], (long long)before);
    }
    return true;
}

static bool ftr__check_anneal(ftr__fault *fault, ftr_anneal anneal, ftr_anneal last) {
    if ((int)anneal >= 0 && anneal <= last) return true;
    return ftr__fault_set(fault, "anneal is %d, expected FTR_ANNEAL_COSINE%s", (int)anneal,
                          last == FTR_ANNEAL_LINEAR ? " or FTR_ANNEAL_LINEAR"
                                                    : ", FTR_ANNEAL_LINEAR or FTR_ANNEAL_SQRT");
}

static bool ftr__check_one_cycle(ftr__fault *fault, const ftr_schedule *s) {
    if (!(s->pct_start > 0.0 && s->pct_start < 1.0))
        return ftr__fault_set(fault, "pct_start is %g, expected above 0 and below 1", s->pct_start);
    if (s->three_phase && s->pct_start > 0.5)
        return ftr__fault_set(fault, "pct_start is %g with three_phase, expected at most 0.5", s->pct_start);
    return ftr__check_count(fault, "steps", s->steps, 1) &&
           ftr__check_number(fault, "div_factor", s->div_factor, 0.0, true) &&
           ftr__check_number(fault, "final_div_factor", s->final_div_factor, 0.0, true) &&
           ftr__check_anneal(fault, s->anneal, FTR_ANNEAL_LINEAR);
}

/* What a kind needs, but for the parts of a chain. */
static bool ftr__check_kind(ftr__fault *fault, const ftr_schedule *s) {
    switch (s->kind) {
    case FTR_SCHEDULE_CONSTANT: return true;
    case FTR_SCHEDULE_STEP:
        return ftr__check_count(fault, "steps", s->steps, 1) && ftr__check_number(fault, "gamma", s->gamma, 0.0, false);
    case FTR_SCHEDULE_MULTI_STEP:
        return ftr__check_milestones(fault, s) && ftr__check_number(fault, "gamma", s->gamma, 0.0, false);
    case FTR_SCHEDULE_EXPONENTIAL: return ftr__check_number(fault, "gamma", s->gamma, 0.0, false);
    case FTR_SCHEDULE_COSINE:
        return ftr__check_count(fault, "steps", s->steps, 1) &&
               ftr__check_number(fault, "eta_min", s->eta_min, 0.0, false);
    case FTR_SCHEDULE_COSINE_RESTARTS:
        return ftr__check_count(fault, "steps", s->steps, 1) &&
               ftr__check_count(fault, "cycle_factor", s->cycle_factor, 1) &&
               ftr__check_number(fault, "eta_min", s->eta_min, 0.0, false);
    case FTR_SCHEDULE_LINEAR:
        return ftr__check_count(fault, "steps", s->steps, 1) &&
               ftr__check_number(fault, "start_factor", s->start_factor, 0.0, false) &&
               ftr__check_number(fault, "end_factor", s->end_factor, 0.0, false);
    case FTR_SCHEDULE_POLYNOMIAL:
        return ftr__check_count(fault, "steps", s->steps, 1) && ftr__check_number(fault, "power", s->power, 0.0, false);
    case FTR_SCHEDULE_ONE_CYCLE: return ftr__check_one_cycle(fault, s);
    case FTR_SCHEDULE_STABLE_DECAY:
        return ftr__check_count(fault, "steps", s->steps, 0) &&
               ftr__check_count(fault, "decay_steps", s->decay_steps, 1) &&
               ftr__check_number(fault, "end_factor", s->end_factor, 0.0, false) &&
               ftr__check_anneal(fault, s->anneal, FTR_ANNEAL_SQRT);
    case FTR_SCHEDULE_FUNCTION: return s->function || ftr__fault_set(fault, "function is NULL");
    case FTR_SCHEDULE_CHAIN:
        return ftr__check_milestones(fault, s) && (s->parts || ftr__fault_set(fault, "parts is NULL"));
    case FTR_SCHEDULE_NONE: break;
    }
    return ftr__fault_set(fault, "kind is %d, expected one of ftr_schedule_kind", (int)s->kind);
}

static bool ftr__check_schedule(ftr__fault *fault, const ftr_schedule *s) {
    if (s->cookie != FTR__COOKIE_SCHEDULE)
        return ftr__fault_set(fault, "the description was not made by ftr_schedule_constant() or another of them");
    return ftr__check_kind(fault, s) && ftr__check_count(fault, "warmup_steps", s->warmup_steps, 0) &&
           (s->warmup_steps == 0 || ftr__check_number(fault, "warmup_factor", s->warmup_factor, 0.0, false));
}

/* `part` becomes the number of the part at fault; -1: the schedule itself. */
static bool ftr__check_whole(ftr__fault *fault, const ftr_schedule *s, int32_t *part) {
    *part = -1;
    if (!ftr__check_schedule(fault, s)) return false;
    for (int32_t i = 0; s->kind == FTR_SCHEDULE_CHAIN && i <= s->milestone_count; i++) {
        *part = i;
        if (!ftr__check_schedule(fault, &s->parts[i])) return false;
        if (s->parts[i].kind == FTR_SCHEDULE_CHAIN) return ftr__fault_set(fault, "a chain, expected another kind");
    }
    return true;
}

ftr_status ftr_schedule_check(ftr_context *context, const ftr_schedule *schedule) {
    ftr__fault fault;
    int32_t part;
    if (!schedule) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "schedule: the description is NULL");
    if (ftr__check_whole(&fault, schedule, &part)) return FTR_OK;
    if (part < 0) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "schedule: %s", fault.text);
    return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "schedule: parts[%d]: %s", (int)part, fault.text);
}

/* -------------------------------------------------------------------------------------------------------- values -- */

/* From `from` to `to` with x from 0 to 1, as OneCycleLR computes it. */
static double ftr__anneal_value(ftr_anneal anneal, double from, double to, double x) {
    switch (anneal) {
    case FTR_ANNEAL_COSINE: return to + (from - to) / 2.0 * (1.0 + cos(ftr__schedule_pi * x));
    case FTR_ANNEAL_LINEAR: return (to - from) * x + from;
    case FTR_ANNEAL_SQRT: return (to - from) * sqrt(x) + from;
    }
    return from;
}

static double ftr__restarts_value(const ftr_schedule *s, double lr, int64_t t) {
    int64_t length = s->steps;
    if (s->cycle_factor == 1) {
        t %= length;
    } else {
        while (t >= length) {
            t -= length;
            if (length > INT64_MAX / s->cycle_factor) break; /* the next cycle has no end */
            length *= s->cycle_factor;
        }
    }
    return s->eta_min + (lr - s->eta_min) * (1.0 + cos(ftr__schedule_pi * (double)t / (double)length)) / 2.0;
}

/* Up, down, and down to the end; without three_phase the second phase is left out. */
static double ftr__one_cycle_value(const ftr_schedule *s, double lr, int64_t t) {
    const double total = (double)s->steps, low = lr / s->div_factor, least = low / s->final_div_factor;
    const double up = s->pct_start * total - 1.0, down = s->three_phase ? 2.0 * s->pct_start * total - 2.0 : up;
    const double at = (double)t < total - 1.0 ? (double)t : total - 1.0;
    const bool first = at <= up, second = !first && at <= down;
    const double begin = first ? 0.0 : second ? up : down, end = first ? up : second ? down : total - 1.0;
    const double x = end > begin ? (at - begin) / (end - begin) : 1.0;
    if (first) return ftr__anneal_value(s->anneal, low, lr, x);
    if (second) return ftr__anneal_value(s->anneal, lr, low, x);
    return ftr__anneal_value(s->anneal, s->three_phase ? low : lr, least, x);
}

static double ftr__stable_decay_value(const ftr_schedule *s, double lr, int64_t t) {
    if (t < s->steps) return lr;
    const int64_t into = t - s->steps;
    const double x = into < s->decay_steps ? (double)into / (double)s->decay_steps : 1.0;
    return lr * ftr__anneal_value(s->anneal, 1.0, s->end_factor, x);
}

static int64_t ftr__milestones_passed(const ftr_schedule *s, int64_t t) {
    int64_t passed = 0;
    while (passed < s->milestone_count && s->milestones[passed] <= t) passed++;
    return passed;
}

static double ftr__schedule_value(const ftr_schedule *s, double lr, int64_t t);

static double ftr__chain_value(const ftr_schedule *s, double lr, int64_t t) {
    const int64_t part = ftr__milestones_passed(s, t);
    return ftr__schedule_value(&s->parts[part], lr, part > 0 ? t - s->milestones[part - 1] : t);
}

/* A part of a chain is no chain, so that this goes one level deep. */
static double ftr__schedule_value(const ftr_schedule *s, double lr, int64_t t) {
    if (t < s->warmup_steps)
        return lr * (s->warmup_factor + (1.0 - s->warmup_factor) * (double)t / (double)s->warmup_steps);
    t -= s->warmup_steps;
    const double done = s->steps > 0 ? (double)(t < s->steps ? t : s->steps) / (double)s->steps : 1.0;
    switch (s->kind) {
    case FTR_SCHEDULE_NONE:
    case FTR_SCHEDULE_CONSTANT: return lr;
    case FTR_SCHEDULE_STEP: return lr * pow(s->gamma, (double)(t / s->steps));
    case FTR_SCHEDULE_MULTI_STEP: return lr * pow(s->gamma, (double)ftr__milestones_passed(s, t));
    case FTR_SCHEDULE_EXPONENTIAL: return lr * pow(s->gamma, (double)t);
    case FTR_SCHEDULE_COSINE:
        return s->eta_min + (lr - s->eta_min) * (1.0 + cos(ftr__schedule_pi * (double)t / (double)s->steps)) / 2.0;
    case FTR_SCHEDULE_COSINE_RESTARTS: return ftr__restarts_value(s, lr, t);
    case FTR_SCHEDULE_LINEAR: return lr * (s->start_factor + (s->end_factor - s->start_factor) * done);
    case FTR_SCHEDULE_POLYNOMIAL: return lr * pow(1.0 - done, s->power);
    case FTR_SCHEDULE_ONE_CYCLE: return ftr__one_cycle_value(s, lr, t);
    case FTR_SCHEDULE_STABLE_DECAY: return ftr__stable_decay_value(s, lr, t);
    case FTR_SCHEDULE_FUNCTION: return s->function(s->user, lr, t);
    case FTR_SCHEDULE_CHAIN: return ftr__chain_value(s, lr, t);
    }
    return (double)NAN;
}

double ftr_schedule_lr(const ftr_schedule *schedule, double base_lr, int64_t step) {
    ftr__fault fault;
    int32_t part;
    if (!schedule || step < 0 || !ftr__check_whole(&fault, schedule, &part)) return (double)NAN;
    return ftr__schedule_value(schedule, base_lr, step);
}

/* ------------------------------------------------------------------------------------------------------- plateau -- */

ftr_plateau ftr_plateau_defaults(void) {
    return (ftr_plateau){.cookie = FTR__COOKIE_PLATEAU,
                         .factor = 0.1,
                         .patience = 10,
                         .threshold = 1e-4,
                         .eps = 1e-8,
                         .best = (double)NAN};
}

ftr_status ftr_plateau_check(ftr_context *context, const ftr_plateau *p) {
    ftr__fault fault;
    if (!p) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "plateau: the description is NULL");
    bool good = p->cookie == FTR__COOKIE_PLATEAU ||
                ftr__fault_set(&fault, "the description was not made by ftr_plateau_defaults()");
    good = good && ((p->factor > 0.0 && p->factor < 1.0) ||
                    ftr__fault_set(&fault, "factor is %g, expected above 0 and below 1", p->factor));
    good = good && ftr__check_count(&fault, "patience", p->patience, 0) &&
           ftr__check_number(&fault, "threshold", p->threshold, 0.0, false) &&
           ftr__check_count(&fault, "cooldown", p->cooldown, 0) &&
           ftr__check_number(&fault, "min_lr", p->min_lr, 0.0, false) &&
           ftr__check_number(&fault, "eps", p->eps, 0.0, false) &&
           ftr__check_count(&fault, "bad_epochs", p->bad_epochs, 0) &&
           ftr__check_count(&fault, "cooldown_left", p->cooldown_left, 0);
    return good ? FTR_OK : ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "plateau: %s", fault.text);
}

static bool ftr__plateau_better(const ftr_plateau *p, double metric) {
    const double sign = p->maximize ? 1.0 : -1.0, best = isnan(p->best) ? -sign * HUGE_VAL : p->best;
    const double bar = p->threshold_absolute ? best + sign * p->threshold : best * (1.0 + sign * p->threshold);
    return p->maximize ? metric > bar : metric < bar;
}

/* In the order of PyTorch's: a cooldown forgives the epoch that was just counted. */
double ftr_plateau_step(ftr_plateau *plateau, double lr, double metric) {
    if (!plateau) return lr;
    if (ftr__plateau_better(plateau, metric)) {
        plateau->best = metric;
        plateau->bad_epochs = 0;
    } else {
        plateau->bad_epochs++;
    }
    if (plateau->cooldown_left > 0) {
        plateau->cooldown_left--;
        plateau->bad_epochs = 0;
    }
    if (plateau->bad_epochs <= plateau->patience) return lr;
    plateau->bad_epochs = 0;
    plateau->cooldown_left = plateau->cooldown;
    const double lowered = lr * plateau->factor, least = lowered > plateau->min_lr ? lowered : plateau->min_lr;
    return lr - least > plateau->eps ? least : lr;
}
