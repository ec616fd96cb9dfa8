#include "schedule_cases.h"

#include <math.h>

static const int64_t milestones[] = {10, 50, 51, 200};

static ftr_schedule constant(void) { return ftr_schedule_constant(); }
static ftr_schedule step(void) { return ftr_schedule_step(30, 0.5); }
static ftr_schedule multi_step(void) { return ftr_schedule_multi_step(milestones, 4, 0.1); }
static ftr_schedule exponential(void) { return ftr_schedule_exponential(0.97); }
static ftr_schedule cosine(void) { return ftr_schedule_cosine(200, 0); }
static ftr_schedule cosine_min(void) { return ftr_schedule_cosine(70, 0.01); }
static ftr_schedule restarts(void) { return ftr_schedule_cosine_restarts(35, 1, 0); }
static ftr_schedule restarts_longer(void) { return ftr_schedule_cosine_restarts(10, 2, 0.001); }
static ftr_schedule linear(void) { return ftr_schedule_linear(1.0 / 3, 1.0, 50); }
static ftr_schedule linear_down(void) { return ftr_schedule_linear(1.0, 0.05, 180); }
static ftr_schedule polynomial(void) { return ftr_schedule_polynomial(150, 1.0); }
static ftr_schedule polynomial_2(void) { return ftr_schedule_polynomial(230, 2.5); }
static ftr_schedule one_cycle(void) { return ftr_schedule_one_cycle(SCHEDULE_LENGTH); }

static ftr_schedule one_cycle_linear(void) {
    ftr_schedule s = ftr_schedule_one_cycle(SCHEDULE_LENGTH);
    s.pct_start = 0.45, s.anneal = FTR_ANNEAL_LINEAR, s.div_factor = 10, s.final_div_factor = 100;
    return s;
}

static ftr_schedule one_cycle_three(void) {
    ftr_schedule s = ftr_schedule_one_cycle(SCHEDULE_LENGTH);
    s.pct_start = 0.4, s.three_phase = true;
    return s;
}

static ftr_schedule one_cycle_three_linear(void) {
    ftr_schedule s = ftr_schedule_one_cycle(SCHEDULE_LENGTH);
    s.pct_start = 0.25, s.three_phase = true, s.anneal = FTR_ANNEAL_LINEAR;
    return s;
}

static ftr_schedule warmed(int64_t steps, double factor, ftr_schedule s) {
    s.warmup_steps = steps, s.warmup_factor = factor;
    return s;
}

static ftr_schedule warm_cosine(void) { return warmed(20, 0.01, ftr_schedule_cosine(210, 0)); }
static ftr_schedule warm_step(void) { return warmed(7, 0.5, ftr_schedule_step(40, 0.3)); }
static ftr_schedule warm_constant(void) { return warmed(100, 1e-3, ftr_schedule_constant()); }
static ftr_schedule warm_polynomial(void) { return warmed(15, 1.0 / 15, ftr_schedule_polynomial(200, 0.9)); }
static ftr_schedule stable_decay(void) { return ftr_schedule_stable_decay(20, 120, 80); }

static ftr_schedule stable_decay_sqrt(void) {
    ftr_schedule s = ftr_schedule_stable_decay(0, 100, 130);
    s.anneal = FTR_ANNEAL_SQRT, s.end_factor = 0.1;
    return s;
}

static ftr_schedule stable_decay_cosine(void) {
    ftr_schedule s = ftr_schedule_stable_decay(40, 0, 200);
    s.anneal = FTR_ANNEAL_COSINE, s.end_factor = 0.01;
    return s;
}

static double root(void *user, double base_lr, int64_t t) { return base_lr / sqrt((double)t + *(const double *)user); }

static ftr_schedule function(void) {
    static double one = 1;
    return ftr_schedule_function(root, &one);
}

static ftr_schedule chain(void) {
    static const int64_t ends[] = {30, 150};
    static ftr_schedule parts[3];
    parts[0] = ftr_schedule_linear(0.1, 1.0, 30);
    parts[1] = ftr_schedule_exponential(0.98);
    parts[2] = ftr_schedule_cosine(60, 0.002);
    return ftr_schedule_chain(parts, ends, 2);
}

static ftr_schedule chain_of_steps(void) {
    static const int64_t end = 77;
    static ftr_schedule parts[2];
    parts[0] = ftr_schedule_step(10, 0.9);
    parts[1] = ftr_schedule_cosine_restarts(9, 2, 0);
    return ftr_schedule_chain(parts, &end, 1);
}

const schedule_case schedule_cases[SCHEDULE_CASES] = {
    {"constant", constant},
    {"step", step},
    {"multi step", multi_step},
    {"exponential", exponential},
    {"cosine", cosine},
    {"cosine min", cosine_min},
    {"restarts", restarts},
    {"restarts longer", restarts_longer},
    {"linear", linear},
    {"linear down", linear_down},
    {"polynomial", polynomial},
    {"polynomial 2", polynomial_2},
    {"one cycle", one_cycle},
    {"one cycle linear", one_cycle_linear},
    {"one cycle three", one_cycle_three},
    {"one cycle three linear", one_cycle_three_linear},
    {"warm cosine", warm_cosine},
    {"warm step", warm_step},
    {"warm constant", warm_constant},
    {"warm polynomial", warm_polynomial},
    {"stable decay", stable_decay},
    {"stable decay sqrt", stable_decay_sqrt},
    {"stable decay cosine", stable_decay_cosine},
    {"function", function},
    {"chain", chain},
    {"chain of steps", chain_of_steps},
};

static ftr_plateau plateau_default(void) { return ftr_plateau_defaults(); }

static ftr_plateau plateau_short(void) {
    ftr_plateau p = ftr_plateau_defaults();
    p.factor = 0.5, p.patience = 2, p.cooldown = 3, p.min_lr = 1e-3;
    return p;
}

static ftr_plateau plateau_max(void) {
    ftr_plateau p = ftr_plateau_defaults();
    p.maximize = true, p.factor = 0.3, p.patience = 3, p.threshold = 0.01;
    return p;
}

static ftr_plateau plateau_absolute(void) {
    ftr_plateau p = ftr_plateau_defaults();
    p.factor = 0.7, p.patience = 1, p.threshold = 0.05, p.threshold_absolute = true, p.eps = 1e-3;
    return p;
}

static ftr_plateau plateau_max_absolute(void) {
    ftr_plateau p = ftr_plateau_defaults();
    p.maximize = true, p.factor = 0.5, p.patience = 0, p.threshold = 0.02, p.threshold_absolute = true, p.cooldown = 5;
    return p;
}

const plateau_case plateau_cases[PLATEAU_CASES] = {{"plateau default", plateau_default},
                                                   {"plateau short", plateau_short},
                                                   {"plateau max", plateau_max},
                                                   {"plateau absolute", plateau_absolute},
                                                   {"plateau max absolute", plateau_max_absolute}};
