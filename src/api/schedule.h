#ifndef FTR_API_SCHEDULE_H
#define FTR_API_SCHEDULE_H

#include "api/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Learning rate schedules. A description by value; ftr_schedule_lr() is a pure function of it, the base learning rate
 * and the number of steps that were applied before. Values are those of PyTorch's scheduler of the same name when it is
 * stepped after each step of the optimizer; below t is the number of steps before this one: the first step has t = 0.
 *
 * ftr_fit() takes one in ftr_train_desc.schedule. In a loop of your own:
 *
 *     ftr_plan_set_lr(plan, ftr_schedule_lr(&schedule, lr, (int64_t)ftr_plan_applied_steps(plan)));
 *     ftr_step(plan, &info);
 *
 * A parameter group's lr_scale multiplies what the schedule says, eta_min included. */
typedef enum ftr_schedule_kind {
    FTR_SCHEDULE_NONE = 0, /* the learning rate is left alone */
    FTR_SCHEDULE_CONSTANT,
    FTR_SCHEDULE_STEP,
    FTR_SCHEDULE_MULTI_STEP,
    FTR_SCHEDULE_EXPONENTIAL,
    FTR_SCHEDULE_COSINE,
    FTR_SCHEDULE_COSINE_RESTARTS,
    FTR_SCHEDULE_LINEAR,
    FTR_SCHEDULE_POLYNOMIAL,
    FTR_SCHEDULE_ONE_CYCLE,
    FTR_SCHEDULE_STABLE_DECAY,
    FTR_SCHEDULE_FUNCTION,
    FTR_SCHEDULE_CHAIN
} ftr_schedule_kind;

/* The way from one value to another, x from 0 to 1. */
typedef enum ftr_anneal {
    FTR_ANNEAL_COSINE = 0, /* (1 - cos(pi x)) / 2 */
    FTR_ANNEAL_LINEAR,     /* x */
    FTR_ANNEAL_SQRT        /* sqrt(x): fast at first */
} ftr_anneal;

/* A schedule of the caller's. Called from the thread that steps. */
typedef double (*ftr_schedule_fn)(void *user, double base_lr, int64_t step);

/* From one of the functions below; then any field may be changed. */
typedef struct ftr_schedule {
    uint32_t cookie;
    ftr_schedule_kind kind;
    int64_t steps;                                  /* of a phase: see the kinds */
    double gamma;                                   /* step, multi-step, exponential: factor */
    double eta_min;                                 /* cosine, cosine with restarts: lowest learning rate */
    int64_t cycle_factor;                           /* cosine with restarts: T_mult */
    double start_factor, end_factor;                /* linear; stable-decay: end_factor */
    double power;                                   /* polynomial */
    double pct_start, div_factor, final_div_factor; /* one-cycle */
    bool three_phase;                               /* one-cycle */
    ftr_anneal anneal;                              /* one-cycle: cosine or linear; stable-decay */
    int64_t decay_steps;                            /* stable-decay */
    const int64_t *milestones;                      /* multi-step, chain: kept, not copied */
    int32_t milestone_count;
    const struct ftr_schedule *parts; /* chain: milestone_count + 1 of them, no chains among them; kept, not copied */
    ftr_schedule_fn function;
    void *user;

    int64_t
        warmup_steps; /* of any kind: in front of it, the learning rate goes straight from base_lr * warmup_factor to */
    double warmup_factor; /* base_lr; the schedule itself then begins at t = warmup_steps with its own t = 0 */
    bool per_epoch;       /* ftr_fit() counts whole epochs instead of steps: all "steps" above are then epochs */
} ftr_schedule;

/* base_lr, for warm-up alone. */
FTR_API ftr_schedule ftr_schedule_constant(void);

/* StepLR: base_lr * gamma ^ floor(t / steps). */
FTR_API ftr_schedule ftr_schedule_step(int64_t steps, double gamma);

/* MultiStepLR: base_lr * gamma ^ (milestones at or before t). The milestones increase; the array stays the caller's
 * and has to stay where it is. */
FTR_API ftr_schedule ftr_schedule_multi_step(const int64_t *milestones, int32_t count, double gamma);

/* ExponentialLR: base_lr * gamma ^ t. */
FTR_API ftr_schedule ftr_schedule_exponential(double gamma);

/* CosineAnnealingLR: eta_min + (base_lr - eta_min) (1 + cos(pi t / steps)) / 2; it rises again behind `steps`, as
 * PyTorch's (Loshchilov, Hutter: SGDR, 2017). */
FTR_API ftr_schedule ftr_schedule_cosine(int64_t steps, double eta_min);

/* CosineAnnealingWarmRestarts: the same from base_lr anew, in cycles of steps, steps * cycle_factor, steps *
 * cycle_factor^2, ... steps. */
FTR_API ftr_schedule ftr_schedule_cosine_restarts(int64_t steps, int64_t cycle_factor, double eta_min);

/* LinearLR: base_lr times a factor that goes straight from start_factor to end_factor in `steps` steps and stays
 * there. */
FTR_API ftr_schedule ftr_schedule_linear(double start_factor, double end_factor, int64_t steps);

/* PolynomialLR: base_lr * (1 - min(t, steps) / steps) ^ power. */
FTR_API ftr_schedule ftr_schedule_polynomial(int64_t steps, double power);

/* OneCycleLR of `steps` steps in all, base_lr being its max_lr: from base_lr / 25 up to base_lr in the first 0.3 of
 * them, then down to base_lr / 25 / 10000, both by cosine (pct_start, div_factor, final_div_factor, anneal). With
 * three_phase it goes down as fast as up, and to the end from there. Only the learning rate is changed. Behind the
 * last step, where PyTorch's raises an error, it stays (Smith, Topin: Super-Convergence, 2018). */
FTR_API ftr_schedule ftr_schedule_one_cycle(int64_t steps);

/* Warm-up, stable, decay: `warmup` steps of linear warm-up from 0, `stable` steps of base_lr, then `decay` steps in
 * which the factor goes from 1 to end_factor (0) by `anneal` (linear; FTR_ANNEAL_SQRT is 1 - sqrt(x)), where it
 * stays (Hu et al.: MiniCPM, 2024; Haegele et al.: Scaling Laws beyond Fixed Training Durations, 2024). */
FTR_API ftr_schedule ftr_schedule_stable_decay(int64_t warmup, int64_t stable, int64_t decay);

/* Whatever `function` returns. */
FTR_API ftr_schedule ftr_schedule_function(ftr_schedule_fn function, void *user);

/* SequentialLR: parts[0] up to the first milestone, then parts[1], which begins there with its own t = 0, and so on:
 * `milestone_count` milestones and one part more. Both arrays stay the caller's and have to stay where they are. */
FTR_API ftr_schedule ftr_schedule_chain(const ftr_schedule *parts, const int64_t *milestones, int32_t milestone_count);

/* Checks a description; the context keeps the sentence. Errors: FTR_ERROR_INVALID_ARGUMENT. */
FTR_API ftr_status ftr_schedule_check(ftr_context *context, const ftr_schedule *schedule);

/* The learning rate of the step before which `step` steps were applied; NaN if ftr_schedule_check() would refuse the
 * description, or for a negative step. Thread safe, unless a function of the caller's is not. */
FTR_API double ftr_schedule_lr(const ftr_schedule *schedule, double base_lr, int64_t step);

/* ------------------------------------------------------------------------------------------------------------------
 * ReduceLROnPlateau: lowers the learning rate when a metric no longer improves. Not a function of the step, so it has a
 * state: the last fields, which a checkpoint has to hold. From ftr_plateau_defaults(). */
typedef struct ftr_plateau {
    uint32_t cookie;
    bool maximize;    /* a larger metric is better */
    double factor;    /* of the learning rate at a reduction; 0.1 */
    int64_t patience; /* epochs without improvement that are tolerated; 10 */
    double threshold; /* an improvement is more than this share of the best, or more than this; 1e-4 */
    bool threshold_absolute;
    int64_t cooldown; /* epochs after a reduction in which none is counted as bad; 0 */
    double min_lr;    /* 0 */
    double eps;       /* a smaller change of the learning rate is not made; 1e-8 */

    double best;           /* NaN before the first epoch that counted */
    int64_t bad_epochs;    /* since the best */
    int64_t cooldown_left; /* epochs */
} ftr_plateau;

/* PyTorch's defaults, and the state before the first epoch. */
FTR_API ftr_plateau ftr_plateau_defaults(void);

/* Checks a description; the context keeps the sentence. Errors: FTR_ERROR_INVALID_ARGUMENT. */
FTR_API ftr_status ftr_plateau_check(ftr_context *context, const ftr_plateau *plateau);

/* Takes the metric of an epoch and returns the learning rate to go on with: `lr`, or less. NaN is no improvement. */
FTR_API double ftr_plateau_step(ftr_plateau *plateau, double lr, double metric);

#ifdef __cplusplus
}
#endif

#endif
