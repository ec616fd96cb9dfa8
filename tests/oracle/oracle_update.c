/* Updates: running averages, counters, and the steps of optimizers. Formulas are those of the classes of
 * torch.optim, and timm.optim for LAMB, LARS and Lion. */
#include "oracle_tools.h"

/* Whether an update is left out: its input found_inf is there and not 0. */
static bool is_skipped(const ftr_kernel_call *call, int32_t found_inf) {
    const ftr_view *found = optional_input(call, found_inf);
    return found && get(found, 0) != 0;
}

ftr_status oracle_ema_update(const ftr_kernel_call *call) {
    const ftr_view *state = &call->in[0], *value = &call->in[1];
    double weight = call->attr->ema.cumulative ? 1 / ((double)call->step + 1) : call->attr->ema.weight;
    for (int64_t i = 0; i < state->count && !is_skipped(call, 2); i++) {
        set(state, i, weight == 1 ? get(value, i) : (1 - weight) * get(state, i) + weight * get(value, i));
    }
    return FTR_OK;
}

ftr_status oracle_count_update(const ftr_kernel_call *call) {
    if (!is_skipped(call, 1)) {
        set_int(&call->in[0], 0, get_int(&call->in[0], 0) + 1);
    }
    return FTR_OK;
}

/* The sum over a group of steps. */
ftr_status oracle_accumulate_update(const ftr_kernel_call *call) {
    const ftr_view *sum = &call->in[0], *value = &call->in[1];
    bool first = call->step % (uint64_t)call->attr->accumulate.steps == 0;
    for (int64_t i = 0; i < sum->count; i++) {
        set(sum, i, first ? get(value, i) : get(sum, i) + get(value, i));
    }
    return FTR_OK;
}

/* The share that an average keeps of itself when `taken` values are in it: torch.optim.swa_utils (get_swa_avg_fn,
 * get_ema_avg_fn), and with a warm-up timm.utils.ModelEmaV3.get_decay(). */
static double kept_share(const ftr_op_attr *attr, double taken) {
    if (attr->average.copy || taken == 0) {
        return 0;
    }
    if (attr->average.equal) {
        return taken / (taken + 1);
    }
    double decay = attr->average.decay, gamma = attr->average.warmup_gamma;
    return gamma > 0
               ? fmax(fmin(1 - pow(1 + taken / gamma, -attr->average.warmup_power), decay), attr->average.min_decay)
               : decay;
}

/* Inputs: values taken so far, applied steps, found_inf, pairs of an average and what it is the average of. */
ftr_status oracle_average_update(const ftr_kernel_call *call) {
    int64_t taken = get_int(&call->in[0], 0), applied = get_int(&call->in[1], 0);
    int64_t start = call->attr->average.start, every = call->attr->average.every;
    if (is_skipped(call, 2) || applied < 1 || applied < start || (applied - start) % every != 0) {
        return FTR_OK;
    }
    double keep = kept_share(call->attr, (double)taken);
    for (int32_t k = FTR_AVERAGE_FIRST_PAIR; k < call->in_count; k += 2) {
        for (int64_t i = 0; i < call->in[k].count; i++) {
            double old = keep == 0 ? 0 : keep * get(&call->in[k], i);
            set(&call->in[k], i, old + (1 - keep) * get(&call->in[k + 1], i));
        }
    }
    if (!call->attr->average.copy) {
        set_int(&call->in[0], 0, taken + 1);
    }
    return FTR_OK;
}

ftr_status oracle_swap_update(const ftr_kernel_call *call) {
    for (int32_t k = 0; k < call->in_count; k += 2) {
        for (int64_t i = 0; i < call->in[k].count; i++) {
            double one = get(&call->in[k], i);
            set(&call->in[k], i, get(&call->in[k + 1], i));
            set(&call->in[k + 1], i, one);
        }
    }
    return FTR_OK;
}

/* ---------------------------------------------------------------------------------------------------- optimizers -- */

/* Inputs: lr, steps applied before this one, grad_scale, found_inf, then a group for each parameter. What all steps
 * need of them: */
typedef struct settings {
    double lr, t; /* t: number of the step, from 1 */
    double scale, clip;
    double decay, momentum, dampening, beta1, beta2, eps;
    bool first, nesterov;
} settings;

static settings settings_of(const ftr_kernel_call *call) {
    const ftr_view *scale = optional_input(call, 2);
    settings s = {.lr = get(&call->in[0], 0) * call->attr->optimizer.lr_scale,
                  .t = (double)get_int(&call->in[1], 0) + 1};
    s.scale = scale ? get(scale, 0) : 1;
    s.clip = call->attr->optimizer.clip_value;
    s.decay = call->attr->optimizer.weight_decay;
    s.momentum = call->attr->optimizer.momentum;
    s.dampening = call->attr->optimizer.dampening;
    s.beta1 = call->attr->optimizer.beta1;
    s.beta2 = call->attr->optimizer.beta2;
    s.eps = call->attr->optimizer.eps;
    s.first = s.t == 1;
    s.nesterov = call->attr->optimizer.nesterov;
    return s;
}

/* Element i of a gradient as an optimizer reads it. */
static double gradient_at(const settings *s, const ftr_view *gradient, int64_t i) {
    double g = get(gradient, i) * s->scale;
    return s->clip > 0 && g < -s->clip ? -s->clip : s->clip > 0 && g > s->clip ? s->clip : g;
}

/* The state moves toward x by a share of the way. */
static double move(const ftr_view *state, int64_t i, double x, double share) {
    double moved = get(state, i) + share * (x - get(state, i));
    set(state, i, moved);
    return moved;
}

/* Runs `update` on each parameter's group: parameter, gradient, states. */
static ftr_status for_each(const ftr_kernel_call *call, int32_t states,
                           void (*update)(const ftr_kernel_call *call, const settings *s, const ftr_view *in)) {
    settings s = settings_of(call);
    for (int32_t j = FTR_UPDATE_FIRST_GROUP; j + 1 < call->in_count && !is_skipped(call, 3); j += 2 + states) {
        update(call, &s, &call->in[j]);
    }
    return FTR_OK;
}

/* The step of SGD from gradient g, for element i. */
static void momentum_step(const settings *s, const ftr_view *p, const ftr_view *buffer, int64_t i, double g) {
    if (buffer) {
        double m = s->first ? g : s->momentum * get(buffer, i) + (1 - s->dampening) * g;
        set(buffer, i, m);
        g = s->nesterov ? g + s->momentum * m : m;
    }
    set(p, i, get(p, i) - s->lr * g);
}

static void sgd(const ftr_kernel_call *call, const settings *s, const ftr_view *in) {
    (void)call;
    for (int64_t i = 0; i < in[0].count; i++) {
        momentum_step(s, &in[0], s->momentum != 0 ? &in[2] : NULL, i,
                      gradient_at(s, &in[1], i) + s->decay * get(&in[0], i));
    }
}

ftr_status oracle_sgd_update(const ftr_kernel_call *call) {
    return for_each(call, call->attr->optimizer.momentum != 0 ? 1 : 0, sgd);
}

static double norm_of(const ftr_view *v) {
    double sum = 0;
    for (int64_t i = 0; i < v->count; i++) {
        sum += get(v, i) * get(v, i);
    }
    return sqrt(sum);
}

static void lars(const ftr_kernel_call *call, const settings *s, const ftr_view *in) {
    double p = norm_of(&in[0]), g = 0, trust = 1;
    for (int64_t i = 0; i < in[0].count; i++) {
        g += gradient_at(s, &in[1], i) * gradient_at(s, &in[1], i);
    }
    g = sqrt(g);
    if (call->attr->optimizer.adapt && p > 0 && g > 0) {
        trust = call->attr->optimizer.trust_coefficient * p / (g + p * s->decay + s->eps);
    }
    if (call->attr->optimizer.adapt && call->attr->optimizer.trust_clip) {
        trust = fmin(trust / s->lr, 1);
    }
    for (int64_t i = 0; i < in[0].count; i++) {
        momentum_step(s, &in[0], s->momentum != 0 ? &in[2] : NULL, i,
                      (gradient_at(s, &in[1], i) + s->decay * get(&in[0], i)) * trust);
    }
}

ftr_status oracle_lars_update(const ftr_kernel_call *call) {
    return for_each(call, call->attr->optimizer.momentum != 0 ? 1 : 0, lars);
}

static void adam(const ftr_kernel_call *call, const settings *s, const ftr_view *in) {
    const ftr_view *p = &in[0], *m = &in[2], *v = &in[3], *largest = &in[4];
    bool decoupled = call->op == FTR_OP_adamw_update;
    for (int64_t i = 0; i < p->count; i++) {
        double g = gradient_at(s, &in[1], i) + (decoupled ? 0 : s->decay * get(p, i));
        double mi = move(m, i, g, 1 - s->beta1), vi = move(v, i, g * g, 1 - s->beta2);
        if (call->attr->optimizer.amsgrad) {
            vi = fmax(get(largest, i), vi);
            set(largest, i, vi);
        }
        double decayed = get(p, i) * (decoupled ? 1 - s->lr * s->decay : 1);
        double mean = mi / (1 - pow(s->beta1, s->t)), deviation = sqrt(vi / (1 - pow(s->beta2, s->t)));
        set(p, i, decayed - s->lr * mean / (deviation + s->eps));
    }
}

ftr_status oracle_adam_update(const ftr_kernel_call *call) {
    return for_each(call, call->attr->optimizer.amsgrad ? 3 : 2, adam);
}

static void lamb(const ftr_kernel_call *call, const settings *s, const ftr_view *in) {
    const ftr_view *p = &in[0];
    double *u = malloc(((size_t)p->count + 1) * sizeof *u), size = 0, trust = 1;
    for (int64_t i = 0; i < p->count; i++) {
        double g = gradient_at(s, &in[1], i);
        double mi = move(&in[2], i, g, 1 - s->beta1), vi = move(&in[3], i, g * g, 1 - s->beta2);
        double mean = mi / (1 - pow(s->beta1, s->t)), deviation = sqrt(vi / (1 - pow(s->beta2, s->t)));
        u[i] = mean / (deviation + s->eps) + s->decay * get(p, i);
        size += u[i] * u[i];
    }
    if (call->attr->optimizer.adapt && norm_of(p) > 0 && size > 0) {
        trust = norm_of(p) / sqrt(size);
    }
    if (call->attr->optimizer.trust_clip) {
        trust = fmin(trust, 1);
    }
    for (int64_t i = 0; i < p->count; i++) {
        set(p, i, get(p, i) - s->lr * trust * u[i]);
    }
    free(u);
}

ftr_status oracle_lamb_update(const ftr_kernel_call *call) { return for_each(call, 2, lamb); }

static void rmsprop(const ftr_kernel_call *call, const settings *s, const ftr_view *in) {
    const ftr_view *p = &in[0];
    bool centered = call->attr->optimizer.centered;
    double fresh = 1 - call->attr->optimizer.alpha;
    for (int64_t i = 0; i < p->count; i++) {
        double g = gradient_at(s, &in[1], i) + s->decay * get(p, i);
        double v = move(&in[2], i, g * g, fresh);
        if (centered) {
            double mean = move(&in[3], i, g, fresh);
            v = fmax(v - mean * mean, 0);
        }
        double change = g / (sqrt(v) + s->eps);
        if (s->momentum != 0) {
            const ftr_view *buffer = &in[centered ? 4 : 3];
            change += s->momentum * get(buffer, i);
            set(buffer, i, change);
        }
        set(p, i, get(p, i) - s->lr * change);
    }
}

ftr_status oracle_rmsprop_update(const ftr_kernel_call *call) {
    return for_each(call, 1 + call->attr->optimizer.centered + (call->attr->optimizer.momentum != 0), rmsprop);
}

static void adagrad(const ftr_kernel_call *call, const settings *s, const ftr_view *in) {
    double lr = s->lr / (1 + (s->t - 1) * call->attr->optimizer.lr_decay);
    for (int64_t i = 0; i < in[0].count; i++) {
        double g = gradient_at(s, &in[1], i) + s->decay * get(&in[0], i);
        double sum = (s->first ? call->attr->optimizer.initial_accumulator : get(&in[2], i)) + g * g;
        set(&in[2], i, sum);
        set(&in[0], i, get(&in[0], i) - lr * g / (sqrt(sum) + s->eps));
    }
}

ftr_status oracle_adagrad_update(const ftr_kernel_call *call) { return for_each(call, 1, adagrad); }

static void lion(const ftr_kernel_call *call, const settings *s, const ftr_view *in) {
    (void)call;
    for (int64_t i = 0; i < in[0].count; i++) {
        double g = gradient_at(s, &in[1], i), m = get(&in[2], i), direction = m + (1 - s->beta1) * (g - m);
        double sign = direction > 0 ? 1 : direction < 0 ? -1 : 0;
        set(&in[0], i, get(&in[0], i) * (1 - s->lr * s->decay) - s->lr * sign);
        move(&in[2], i, g, 1 - s->beta2);
    }
}

ftr_status oracle_lion_update(const ftr_kernel_call *call) { return for_each(call, 1, lion); }

/* Position of element i of p in a state that is 1 long in `axis`. */
static int64_t folded(const ftr_view *state, const ftr_shape *shape, int32_t axis, int64_t i) {
    int64_t coord[FTR_MAX_RANK];
    coordinates(shape, i, coord);
    coord[axis] = 0;
    return index_of(&state->shape, coord);
}

/* The factor moves toward the mean of the squares over `axis`. */
static void move_factor(const settings *s, const ftr_view *in, const ftr_view *factor, int32_t axis, double fresh) {
    double *sums = calloc((size_t)factor->count + 1, sizeof *sums);
    for (int64_t i = 0; i < in[0].count; i++) {
        double g = gradient_at(s, &in[1], i);
        sums[folded(factor, &in[0].shape, axis, i)] += g * g / (double)in[0].shape.dim[axis];
    }
    for (int64_t k = 0; k < factor->count; k++) {
        move(factor, k, sums[k], fresh);
    }
    free(sums);
}

/* Second moment of element i: its row's times its column's over the mean of the rows. */
static double factored_moment(const ftr_kernel_call *call, const settings *s, const ftr_view *in, int64_t i) {
    int32_t row = call->attr->optimizer.row_axis, column = call->attr->optimizer.column_axis;
    const ftr_view *rows = &in[2], *columns = &in[3];
    int64_t coord[FTR_MAX_RANK], count = in[0].shape.dim[row];
    double mean = 0;
    coordinates(&in[0].shape, i, coord);
    coord[column] = 0;
    for (coord[row] = 0; coord[row] < count; coord[row]++) {
        mean += get(rows, index_of(&rows->shape, coord)) / (double)count;
    }
    return get(rows, folded(rows, &in[0].shape, column, i)) * get(columns, folded(columns, &in[0].shape, row, i)) /
           fmax(mean, s->eps);
}

static void adafactor(const ftr_kernel_call *call, const settings *s, const ftr_view *in) {
    const ftr_view *p = &in[0];
    int32_t row = call->attr->optimizer.row_axis, column = call->attr->optimizer.column_axis;
    double fresh = pow(s->t, call->attr->optimizer.beta2_decay), root = sqrt((double)p->count), size = 0;
    double alpha = fmax(call->attr->optimizer.parameter_eps, norm_of(p) / root) * fmin(s->lr, 1 / sqrt(s->t));
    double *u = malloc(((size_t)p->count + 1) * sizeof *u);
    if (row != column) {
        move_factor(s, in, &in[2], column, fresh);
        move_factor(s, in, &in[3], row, fresh);
    }
    for (int64_t i = 0; i < p->count; i++) {
        double g = gradient_at(s, &in[1], i);
        double v = row != column ? factored_moment(call, s, in, i) : move(&in[2], i, g * g, fresh);
        u[i] = g / sqrt(fmax(v, s->eps * s->eps));
        size += u[i] * u[i];
    }
    alpha /= fmax(1, sqrt(size) / root / call->attr->optimizer.clip_threshold);
    for (int64_t i = 0; i < p->count; i++) {
        set(p, i, get(p, i) * (1 - s->lr * s->decay) - alpha * u[i]);
    }
    free(u);
}

ftr_status oracle_adafactor_update(const ftr_kernel_call *call) {
    return for_each(call, call->attr->optimizer.row_axis != call->attr->optimizer.column_axis ? 2 : 1, adafactor);
}

/* x = c0 x + (c1 a + c2 a a) x with a = x x^T. */
static void newton_schulz(const double c[3], int64_t rows, int64_t columns, double *x) {
    double *a = calloc((size_t)(rows * rows), sizeof *a), *b = calloc((size_t)(rows * rows), sizeof *b);
    double *y = calloc((size_t)(rows * columns), sizeof *y);
    for (int64_t i = 0; i < rows * rows; i++) {
        for (int64_t k = 0; k < columns; k++) {
            a[i] += x[i / rows * columns + k] * x[i % rows * columns + k];
        }
    }
    for (int64_t i = 0; i < rows * rows; i++) {
        b[i] = c[1] * a[i];
        for (int64_t k = 0; k < rows; k++) {
            b[i] += c[2] * a[i / rows * rows + k] * a[k * rows + i % rows];
        }
    }
    for (int64_t i = 0; i < rows * columns; i++) {
        y[i] = c[0] * x[i];
        for (int64_t k = 0; k < rows; k++) {
            y[i] += b[i / columns * rows + k] * x[k * columns + i % columns];
        }
    }
    memcpy(x, y, (size_t)(rows * columns) * sizeof *x);
    free(a), free(b), free(y);
}

/* Of a matrix with more rows than columns the transpose is iterated, as torch.optim.Muon does. */
static void muon(const ftr_kernel_call *call, const settings *s, const ftr_view *in) {
    const ftr_view *p = &in[0];
    if (p->count == 0) {
        return;
    }
    int64_t rows = p->shape.dim[0], columns = p->count / rows, side = rows > columns ? columns : rows;
    double *x = malloc((size_t)p->count * sizeof *x), norm = 0;
    for (int64_t i = 0; i < p->count; i++) {
        double g = gradient_at(s, &in[1], i), b = move(&in[2], i, g, 1 - s->momentum);
        int64_t at = rows > columns ? i % columns * rows + i / columns : i;
        x[at] = s->nesterov ? g + s->momentum * (b - g) : b;
        norm += x[at] * x[at];
    }
    norm = fmax(sqrt(norm), call->attr->optimizer.ns_eps);
    for (int64_t i = 0; i < p->count; i++) {
        x[i] /= norm;
    }
    for (int32_t k = 0; k < call->attr->optimizer.ns_steps; k++) {
        newton_schulz(call->attr->optimizer.ns_coefficients, side, p->count / side, x);
    }
    double r = (double)rows, c = (double)columns, factor = sqrt(fmax(1, r / c));
    factor = call->attr->optimizer.rate == FTR_MUON_RATE_MATCH_RMS_ADAMW ? 0.2 * sqrt(fmax(r, c)) : factor;
    factor = call->attr->optimizer.rate == FTR_MUON_RATE_SPECTRAL ? sqrt(r / c) : factor;
    for (int64_t i = 0; i < p->count; i++) {
        int64_t at = rows > columns ? i % columns * rows + i / columns : i;
        set(p, i, get(p, i) * (1 - s->lr * s->decay) - s->lr * factor * x[at]);
    }
    free(x);
}

ftr_status oracle_muon_update(const ftr_kernel_call *call) { return for_each(call, 1, muon); }

/* Inputs: grad_scale, gradients. */
ftr_status oracle_clip_scale(const ftr_kernel_call *call) {
    const ftr_view *given = optional_input(call, 0);
    double scale = given ? get(given, 0) : 1, sum = 0;
    for (int32_t j = 1; j < call->in_count; j++) {
        sum += norm_of(&call->in[j]) * norm_of(&call->in[j]) * scale * scale;
    }
    double factor = call->attr->clip_scale.max_norm / (sqrt(sum) + call->attr->clip_scale.eps);
    set(&call->out[0], 0, factor < 1 ? scale * factor : scale);
    return FTR_OK;
}
