/* ftr__simd_update of one instruction set. Included once a level, after simd_math.inc.h. A function ..._at does the
 * vector of elements i to i + left of a run, `left` being a constant but in the last one; what lies behind the end
 * is 0 there. */
#undef FTR__SIMD_UPDATE_FUNCTIONS

/* Vectors of a run that are added up in single precision before they go into a double. */
#define FTR__UPDATE_BLOCK 64
#define FTR__UPDATE_AHEAD 512 /* elements that are asked for before they are needed */

#define FTR__UPDATE_EACH(from, to, call)                                                                               \
    {                                                                                                                  \
        int64_t i = (from);                                                                                            \
        for (; i + FTR__W <= (to); i += FTR__W) {                                                                      \
            const int64_t left = FTR__W;                                                                               \
            call;                                                                                                      \
        }                                                                                                              \
        if (i < (to)) {                                                                                                \
            const int64_t left = (to)-i;                                                                               \
            call;                                                                                                      \
        }                                                                                                              \
    }

/* The same in blocks: what the call adds to the vectors sum[0] and sum[1] is added up in total[0] and total[1]. */
#define FTR__UPDATE_SUM(n, total, call)                                                                                \
    for (int64_t block = 0; block < (n); block += FTR__UPDATE_BLOCK * FTR__W) {                                        \
        const int64_t end = (n)-block < FTR__UPDATE_BLOCK * FTR__W ? (n) : block + FTR__UPDATE_BLOCK * FTR__W;         \
        FTR__VF sum[2] = {{0}, {0}};                                                                                   \
        FTR__UPDATE_EACH(block, end, call)                                                                             \
        (total)[0] += (double)FTR__S(lanes_sum)(sum[0]);                                                               \
        (total)[1] += (double)FTR__S(lanes_sum)(sum[1]);                                                               \
    }

/* Constants and pointers are copied: a store to an element might otherwise change them, for all the compiler knows. */
#define FTR__UPDATE_FUNCTION(name, call)                                                                               \
    static void FTR__S(name)(const ftr__update_step *constants, const ftr__update_run *whole) {                        \
        const ftr__update_step step = *constants;                                                                      \
        const ftr__update_run run = *whole;                                                                            \
        FTR__UPDATE_EACH(0, run.n, call)                                                                               \
    }

/* x moved toward y by a share of the way, and x less a share of itself. */
FTR__INLINE FTR__VF FTR__S(moved)(FTR__VF x, FTR__VF y, float share) { return FTR__FMA(FTR__SPLAT(share), y - x, x); }

FTR__INLINE FTR__VF FTR__S(lessened)(FTR__VF x, float share) { return FTR__FMA(FTR__SPLAT(-share), x, x); }

FTR__INLINE FTR__VF FTR__S(read_gradient)(const ftr__update_step *step, const float *g, int64_t left) {
    return FTR__S(limited)(FTR__S(load_some)(g, left) * step->scale, -step->clip, step->clip);
}

/* ------------------------------------------------------------------------------------------------------ momentum -- */

FTR__INLINE void FTR__S(sgd_at)(bool with_momentum, const ftr__update_step *step, const ftr__update_run *run, int64_t i,
                                int64_t left) {
    const FTR__VF w = FTR__S(load_some)(run->p + i, left), g = FTR__S(read_gradient)(step, run->g + i, left);
    const FTR__VF full = FTR__FMA(FTR__SPLAT(step->weight_decay), w, g) * step->trust;
    FTR__VF change = full;
    if (with_momentum) {
        const FTR__VF momentum = FTR__SPLAT(step->momentum), before = FTR__S(load_some)(run->s[0] + i, left);
        const FTR__VF sum = FTR__FMA(FTR__SPLAT(step->gradient), full, FTR__S(lessened)(before, step->fall));
        const FTR__VF moving = step->first ? full : sum;
        FTR__S(store_some)(run->s[0] + i, moving, left);
        change = step->nesterov ? FTR__FMA(momentum, moving, full) : moving;
    }
    FTR__S(store_some)(run->p + i, FTR__FMA(FTR__SPLAT(-step->lr), change, w), left);
}
FTR__UPDATE_FUNCTION(update_sgd, FTR__S(sgd_at)(false, &step, &run, i, left))
FTR__UPDATE_FUNCTION(update_sgd_momentum, FTR__S(sgd_at)(true, &step, &run, i, left))

FTR__INLINE void FTR__S(lion_at)(const ftr__update_step *step, const ftr__update_run *run, int64_t i, int64_t left) {
    const FTR__VF w = FTR__S(load_some)(run->p + i, left), m = FTR__S(load_some)(run->s[0] + i, left);
    const FTR__VF d = FTR__S(read_gradient)(step, run->g + i, left), none = {0};
    const FTR__VF direction = FTR__S(moved)(m, d, step->fresh1);
    FTR__VF change = FTR__SELECT(direction > 0.0f, FTR__SPLAT(step->lr), none);
    change = FTR__SELECT(direction < 0.0f, FTR__SPLAT(-step->lr), change);
    FTR__S(store_some)(run->p + i, w - FTR__FMA(FTR__SPLAT(step->decay), w, change), left);
    FTR__S(store_some)(run->s[0] + i, FTR__S(moved)(m, d, step->fresh2), left);
}
FTR__UPDATE_FUNCTION(update_lion, FTR__S(lion_at)(&step, &run, i, left))

/* ------------------------------------------------------------------------------------------------ second moments -- */

FTR__INLINE void FTR__S(adam_at)(bool largest, const ftr__update_step *step, const ftr__update_run *run, int64_t i,
                                 int64_t left) {
    __builtin_prefetch(run->p + i + FTR__UPDATE_AHEAD, 1);
    __builtin_prefetch(run->s[0] + i + FTR__UPDATE_AHEAD, 1);
    __builtin_prefetch(run->s[1] + i + FTR__UPDATE_AHEAD, 1);
    __builtin_prefetch(run->g + i + FTR__UPDATE_AHEAD);
    const FTR__VF w = FTR__S(load_some)(run->p + i, left);
    const FTR__VF m0 = FTR__S(load_some)(run->s[0] + i, left), v0 = FTR__S(load_some)(run->s[1] + i, left);
    const FTR__VF d = FTR__FMA(FTR__SPLAT(step->weight_decay), w, FTR__S(read_gradient)(step, run->g + i, left));
    const FTR__VF m1 = FTR__S(moved)(m0, d, step->fresh1), v1 = FTR__S(moved)(v0, d * d, step->fresh2);
    FTR__S(store_some)(run->s[0] + i, m1, left);
    FTR__S(store_some)(run->s[1] + i, v1, left);
    FTR__VF top = v1;
    if (largest) {
        top = FTR__S(maximum_of)(FTR__S(load_some)(run->s[2] + i, left), v1);
        FTR__S(store_some)(run->s[2] + i, top, left);
    }
    const FTR__VF below = FTR__FMA(FTR__S(square_root)(top), FTR__SPLAT(step->debias2), FTR__SPLAT(step->eps));
    FTR__S(store_some)
    (run->p + i, w - FTR__FMA(FTR__SPLAT(step->decay), w, FTR__S(quotient)(m1 * step->lr, below)), left);
}
FTR__UPDATE_FUNCTION(update_adam, FTR__S(adam_at)(false, &step, &run, i, left))
FTR__UPDATE_FUNCTION(update_adam_max, FTR__S(adam_at)(true, &step, &run, i, left))

/* The mean square less the squared mean may come out below 0 by rounding. */
FTR__INLINE void FTR__S(rmsprop_at)(bool centered, bool with_momentum, const ftr__update_step *step,
                                    const ftr__update_run *run, int64_t i, int64_t left) {
    const FTR__VF w = FTR__S(load_some)(run->p + i, left), v0 = FTR__S(load_some)(run->s[0] + i, left);
    const FTR__VF d = FTR__FMA(FTR__SPLAT(step->weight_decay), w, FTR__S(read_gradient)(step, run->g + i, left));
    const FTR__VF v = FTR__S(moved)(v0, d * d, step->fresh2);
    FTR__S(store_some)(run->s[0] + i, v, left);
    FTR__VF spread = v;
    if (centered) {
        const FTR__VF before = FTR__S(load_some)(run->s[1] + i, left);
        const FTR__VF mean = FTR__S(moved)(before, d, step->fresh2);
        FTR__S(store_some)(run->s[1] + i, mean, left);
        spread = FTR__S(keep_positive)(v - mean * mean);
    }
    FTR__VF change = d / (FTR__S(square_root)(spread) + step->eps);
    if (with_momentum) {
        float *moving = run->s[centered ? 2 : 1] + i;
        change += FTR__S(lessened)(FTR__S(load_some)(moving, left), step->fall);
        FTR__S(store_some)(moving, change, left);
    }
    FTR__S(store_some)(run->p + i, FTR__FMA(FTR__SPLAT(-step->lr), change, w), left);
}
FTR__UPDATE_FUNCTION(update_rmsprop, FTR__S(rmsprop_at)(false, false, &step, &run, i, left))
FTR__UPDATE_FUNCTION(update_rmsprop_momentum, FTR__S(rmsprop_at)(false, true, &step, &run, i, left))
FTR__UPDATE_FUNCTION(update_rmsprop_centered, FTR__S(rmsprop_at)(true, false, &step, &run, i, left))
FTR__UPDATE_FUNCTION(update_rmsprop_both, FTR__S(rmsprop_at)(true, true, &step, &run, i, left))

FTR__INLINE void FTR__S(adagrad_at)(const ftr__update_step *step, const ftr__update_run *run, int64_t i, int64_t left) {
    const FTR__VF w = FTR__S(load_some)(run->p + i, left), kept = FTR__S(load_some)(run->s[0] + i, left);
    const FTR__VF d = FTR__FMA(FTR__SPLAT(step->weight_decay), w, FTR__S(read_gradient)(step, run->g + i, left));
    const FTR__VF sum = FTR__FMA(d, d, step->first ? FTR__SPLAT(step->initial) : kept);
    FTR__S(store_some)(run->s[0] + i, sum, left);
    const FTR__VF change = d / (FTR__S(square_root)(sum) + step->eps);
    FTR__S(store_some)(run->p + i, FTR__FMA(FTR__SPLAT(-step->lr), change, w), left);
}
FTR__UPDATE_FUNCTION(update_adagrad, FTR__S(adagrad_at)(&step, &run, i, left))

/* ---------------------------------------------------------------------------------------------------------- LAMB -- */

FTR__INLINE FTR__VF FTR__S(lamb_direction)(const ftr__update_step *step, FTR__VF w, FTR__VF m, FTR__VF v) {
    const FTR__VF below = FTR__FMA(FTR__S(square_root)(v), FTR__SPLAT(step->debias2), FTR__SPLAT(step->eps));
    return FTR__FMA(FTR__SPLAT(step->weight_decay), w, m * step->debias1 / below);
}

FTR__INLINE void FTR__S(lamb_moments_at)(const ftr__update_step *step, const ftr__update_run *run, int64_t i,
                                         int64_t left, FTR__VF sum[2]) {
    const FTR__VF w = FTR__S(load_some)(run->p + i, left), d = FTR__S(read_gradient)(step, run->g + i, left);
    const FTR__VF m0 = FTR__S(load_some)(run->s[0] + i, left), v0 = FTR__S(load_some)(run->s[1] + i, left);
    const FTR__VF m = FTR__S(moved)(m0, d, step->fresh1), v = FTR__S(moved)(v0, d * d, step->fresh2);
    FTR__S(store_some)(run->s[0] + i, m, left);
    FTR__S(store_some)(run->s[1] + i, v, left);
    const FTR__VF u = FTR__S(lamb_direction)(step, w, m, v);
    sum[0] += w * w;
    sum[1] += FTR__S(first_lanes)(u * u, left); /* 0 / 0 behind the end, if eps is 0 */
}

static void FTR__S(lamb_moments)(const ftr__update_step *constants, const ftr__update_run *whole, double sums[2]) {
    const ftr__update_step step = *constants;
    const ftr__update_run run = *whole;
    sums[0] = sums[1] = 0.0;
    FTR__UPDATE_SUM(run.n, sums, FTR__S(lamb_moments_at)(&step, &run, i, left, sum))
}

FTR__INLINE void FTR__S(lamb_at)(const ftr__update_step *step, const ftr__update_run *run, int64_t i, int64_t left) {
    const FTR__VF w = FTR__S(load_some)(run->p + i, left);
    const FTR__VF m = FTR__S(load_some)(run->s[0] + i, left), v = FTR__S(load_some)(run->s[1] + i, left);
    const FTR__VF u = FTR__S(lamb_direction)(step, w, m, v), rate = FTR__SPLAT(-step->lr);
    FTR__S(store_some)(run->p + i, FTR__FMA(rate, u, w), left);
}
FTR__UPDATE_FUNCTION(update_lamb, FTR__S(lamb_at)(&step, &run, i, left))

/* ------------------------------------------------------------------------------------------------------- squares -- */

FTR__INLINE void FTR__S(squares_at)(const ftr__update_step *step, const float *g, int64_t i, int64_t left,
                                    FTR__VF sum[2]) {
    const FTR__VF d = FTR__S(read_gradient)(step, g + i, left);
    sum[0] = FTR__FMA(d, d, sum[0]);
}

static double FTR__S(gradient_squares)(const ftr__update_step *step, int64_t n, const float *g) {
    double total[2] = {0.0, 0.0};
    FTR__UPDATE_SUM(n, total, FTR__S(squares_at)(step, g, i, left, sum))
    return total[0];
}

FTR__INLINE void FTR__S(add_squares_at)(const ftr__update_step *step, const float *g, float *to, int64_t i,
                                        int64_t left) {
    const FTR__VF d = FTR__S(read_gradient)(step, g + i, left);
    FTR__S(store_some)(to + i, FTR__FMA(d, d, FTR__S(load_some)(to + i, left)), left);
}

static void FTR__S(gradient_add_squares)(const ftr__update_step *constants, int64_t n, const float *g, float *to) {
    const ftr__update_step step = *constants;
    FTR__UPDATE_EACH(0, n, FTR__S(add_squares_at)(&step, g, to, i, left))
}

FTR__INLINE void FTR__S(blend_squares_at)(const ftr__update_step *step, float weight, const float *g, float *v,
                                          int64_t i, int64_t left) {
    const FTR__VF d = FTR__S(read_gradient)(step, g + i, left), before = FTR__S(load_some)(v + i, left);
    FTR__S(store_some)(v + i, FTR__S(moved)(before, d * d, weight), left);
}

static void FTR__S(gradient_blend_squares)(const ftr__update_step *constants, int64_t n, float weight, const float *g,
                                           float *v) {
    const ftr__update_step step = *constants;
    FTR__UPDATE_EACH(0, n, FTR__S(blend_squares_at)(&step, weight, g, v, i, left))
}

/* ----------------------------------------------------------------------------------------------------- Adafactor -- */

FTR__INLINE FTR__VF FTR__S(factored_direction)(const ftr__update_step *step, const float *g, const float *x,
                                               bool single, const float *y, int64_t i, int64_t left) {
    const FTR__VF d = FTR__S(read_gradient)(step, g + i, left);
    const FTR__VF a = single ? FTR__SPLAT(*x) : FTR__S(load_some)(x + i, left);
    const FTR__VF v = a * FTR__S(load_some)(y + i, left);
    return d / FTR__S(square_root)(FTR__S(maximum_of)(v, FTR__SPLAT(step->eps)));
}

FTR__INLINE void FTR__S(factored_squares_at)(const ftr__update_step *step, const float *g, const float *x, bool single,
                                             const float *y, int64_t i, int64_t left, FTR__VF sum[2]) {
    const FTR__VF u = FTR__S(factored_direction)(step, g, x, single, y, i, left);
    sum[0] += FTR__S(first_lanes)(u * u, left);
}

static double FTR__S(factored_squares)(const ftr__update_step *step, int64_t n, const float *g, const float *x,
                                       bool single, const float *y) {
    double total[2] = {0.0, 0.0};
    FTR__UPDATE_SUM(n, total, FTR__S(factored_squares_at)(step, g, x, single, y, i, left, sum))
    return total[0];
}

FTR__INLINE void FTR__S(factored_apply_at)(const ftr__update_step *step, const float *g, const float *x, bool single,
                                           const float *y, float rate, float *p, int64_t i, int64_t left) {
    const FTR__VF u = FTR__S(factored_direction)(step, g, x, single, y, i, left);
    const FTR__VF w = FTR__S(load_some)(p + i, left);
    FTR__S(store_some)(p + i, w - FTR__FMA(FTR__SPLAT(step->decay), w, u * rate), left);
}

static void FTR__S(factored_apply)(const ftr__update_step *constants, int64_t n, const float *g, const float *x,
                                   bool single, const float *y, float rate, float *p) {
    const ftr__update_step step = *constants;
    FTR__UPDATE_EACH(0, n, FTR__S(factored_apply_at)(&step, g, x, single, y, rate, p, i, left))
}

/* ---------------------------------------------------------------------------------------------------------- Muon -- */

FTR__INLINE void FTR__S(muon_momentum_at)(const ftr__update_step *step, const float *g, float *b, float *x, int64_t i,
                                          int64_t left, FTR__VF sum[2]) {
    const FTR__VF d = FTR__S(read_gradient)(step, g + i, left), before = FTR__S(load_some)(b + i, left);
    const FTR__VF moving = FTR__S(moved)(before, d, step->gradient);
    FTR__S(store_some)(b + i, moving, left);
    const FTR__VF made = step->nesterov ? FTR__S(moved)(d, moving, step->momentum) : moving;
    FTR__S(store_some)(x + i, made, left);
    sum[0] = FTR__FMA(made, made, sum[0]);
}

static double FTR__S(muon_momentum)(const ftr__update_step *constants, int64_t n, const float *g, float *b, float *x) {
    const ftr__update_step step = *constants;
    double total[2] = {0.0, 0.0};
    FTR__UPDATE_SUM(n, total, FTR__S(muon_momentum_at)(&step, g, b, x, i, left, sum))
    return total[0];
}

FTR__INLINE void FTR__S(muon_apply_at)(float decay, float rate, const float *x, float *p, int64_t i, int64_t left) {
    const FTR__VF w = FTR__S(load_some)(p + i, left), change = FTR__S(load_some)(x + i, left) * rate;
    FTR__S(store_some)(p + i, w - FTR__FMA(FTR__SPLAT(decay), w, change), left);
}

static void FTR__S(muon_apply)(int64_t n, float decay, float rate, const float *x,
                               float *p){FTR__UPDATE_EACH(0, n, FTR__S(muon_apply_at)(decay, rate, x, p, i, left))}

FTR__INLINE
    void FTR__S(combine_at)(float a, const float *x, float b, const float *y, float *out, int64_t i, int64_t left) {
    const FTR__VF u = FTR__S(load_some)(x + i, left), v = FTR__S(load_some)(y + i, left);
    FTR__S(store_some)(out + i, FTR__FMA(FTR__SPLAT(a), u, v * b), left);
}

static void FTR__S(combine_rows)(int64_t n, float a, const float *x, float b, const float *y, float *out) {
    FTR__UPDATE_EACH(0, n, FTR__S(combine_at)(a, x, b, y, out, i, left))
}

#define FTR__SIMD_UPDATE_FUNCTIONS                                                                                     \
    {                                                                                                                  \
        .row = {FTR__S(update_sgd),                                                                                    \
                FTR__S(update_sgd_momentum),                                                                           \
                FTR__S(update_adam),                                                                                   \
                FTR__S(update_adam_max),                                                                               \
                FTR__S(update_rmsprop),                                                                                \
                FTR__S(update_rmsprop_momentum),                                                                       \
                FTR__S(update_rmsprop_centered),                                                                       \
                FTR__S(update_rmsprop_both),                                                                           \
                FTR__S(update_adagrad),                                                                                \
                FTR__S(update_lion),                                                                                   \
                FTR__S(update_lamb)},                                                                                  \
        .lamb_moments = FTR__S(lamb_moments), .squares = FTR__S(gradient_squares),                                     \
        .add_squares = FTR__S(gradient_add_squares), .blend_squares = FTR__S(gradient_blend_squares),                  \
        .factored_squares = FTR__S(factored_squares), .factored_apply = FTR__S(factored_apply),                        \
        .muon_momentum = FTR__S(muon_momentum), .muon_apply = FTR__S(muon_apply), .combine = FTR__S(combine_rows),     \
    }

#undef FTR__UPDATE_BLOCK
#undef FTR__UPDATE_AHEAD
#undef FTR__UPDATE_EACH
#undef FTR__UPDATE_SUM
#undef FTR__UPDATE_FUNCTION
