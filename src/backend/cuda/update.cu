/* Updates: they change states among their inputs in place. Optimizers that need one pass, pairs of tensors, counters. */
#include "backend/cuda/update.cuh"

/* ---------------------------------------------------------------------------------------------------------- pairs -- */

enum ftr__pairs_kind {
    FTR__PAIRS_EMA,     /* state += weight * (value - state) */
    FTR__PAIRS_SUM,     /* state += value, or state = value in the first step of a group of steps */
    FTR__PAIRS_AVERAGE, /* as an EMA, of a weight that depends on the number of averages taken, in some steps */
    FTR__PAIRS_SWAP     /* both change places */
};

struct ftr__pairs {
    ftr__pairs_kind kind;
    ftr__update_scalar found_inf;
    const uint64_t *step; /* done by the plan */
    const int64_t *taken, *applied;
    int64_t steps, start, every;
    double weight, least; /* least: of an average's weights with a warm-up, the largest being `weight` */
    float warmup_gamma, warmup_power;
    bool cumulative, equal, copy;
};

/* Whether a step takes an average. */
static __device__ __forceinline__ bool ftr__average_is_due(const ftr__pairs &pairs) {
    if (ftr__update_skipped(pairs.found_inf)) return false;
    const int64_t applied = *pairs.applied, after = applied - pairs.start;
    return applied > 0 && after >= 0 && after % pairs.every == 0;
}

/* With a warm-up the average keeps 1 - (1 + n / gamma)^-power of itself, limited on both sides; the power is the weight. */
static __device__ __forceinline__ float ftr__average_weight(const ftr__pairs &pairs) {
    const int64_t taken = *pairs.taken;
    if (pairs.copy || taken <= 0) return 1.0f;
    if (pairs.equal) return 1.0f / (static_cast<float>(taken) + 1.0f);
    const float weight = static_cast<float>(pairs.weight), least = static_cast<float>(pairs.least);
    if (!(pairs.warmup_gamma > 0.0f)) return weight;
    const float warm = expf(-pairs.warmup_power * log1pf(static_cast<float>(taken) / pairs.warmup_gamma));
    return fminf(fmaxf(warm, least), weight);
}

/* Whether anything is to be done, and the weight of the value: 1 overwrites whatever is there. */
static __device__ __forceinline__ bool ftr__pairs_begin(const ftr__pairs &pairs, float *weight) {
    *weight = static_cast<float>(pairs.weight);
    switch (pairs.kind) {
    case FTR__PAIRS_EMA:
        if (pairs.cumulative) *weight = static_cast<float>(1.0 / (static_cast<double>(*pairs.step) + 1.0));
        return !ftr__update_skipped(pairs.found_inf);
    case FTR__PAIRS_SUM: *weight = *pairs.step % static_cast<uint64_t>(pairs.steps) == 0 ? 1.0f : 0.0f; return true;
    case FTR__PAIRS_AVERAGE:
        if (!ftr__average_is_due(pairs)) return false;
        *weight = ftr__average_weight(pairs);
        return true;
    default: return true;
    }
}

template <int W>
static __device__ __forceinline__ void ftr__pairs_at(ftr__pairs_kind kind, float weight, float *state, float *value) {
    float x[W], y[W];
    ftr__load_some(value, y);
    if (kind == FTR__PAIRS_SWAP) {
        ftr__load_some(state, x);
        ftr__store_some(value, x);
    } else if (weight != 1.0f) {
        ftr__load_some(state, x);
        for (int k = 0; k < W; k++) y[k] = kind == FTR__PAIRS_SUM ? x[k] + y[k] : ftr__moved(x[k], y[k], weight);
    }
    ftr__store_some(state, y);
}

FTR__KERNEL ftr__pairs_kernel(const ftr__update_list<2> list, const ftr__pairs pairs) {
    float weight;
    if (!ftr__pairs_begin(pairs, &weight)) return;
    const ftr__update_chunk chunk = ftr__update_chunk_of(list);
    float *state = static_cast<float *>(list.data[chunk.group][0]) + chunk.begin;
    float *value = static_cast<float *>(list.data[chunk.group][1]) + chunk.begin;
    const int32_t packed = ftr__is_aligned_by_four(state) && ftr__is_aligned_by_four(value) ? chunk.n - chunk.n % 4 : 0;
    for (int32_t i = 4 * static_cast<int32_t>(threadIdx.x); i < packed; i += 4 * FTR__CUDA_THREADS)
        ftr__pairs_at<4>(pairs.kind, weight, state + i, value + i);
    for (int32_t i = packed + static_cast<int32_t>(threadIdx.x); i < chunk.n; i += FTR__CUDA_THREADS)
        ftr__pairs_at<1>(pairs.kind, weight, state + i, value + i);
}

/* The number of averages taken, behind the averages. */
FTR__KERNEL ftr__pairs_taken(const ftr__pairs pairs, int64_t *taken) {
    if (threadIdx.x == 0 && ftr__average_is_due(pairs))
        *taken = static_cast<int64_t>(static_cast<uint64_t>(*taken) + 1u);
}

FTR__KERNEL ftr__count_kernel(ftr__update_scalar found_inf, int64_t *state) {
    if (threadIdx.x == 0 && !ftr__update_skipped(found_inf))
        *state = static_cast<int64_t>(static_cast<uint64_t>(*state) + 1u);
}

static ftr_status ftr__pairs_run(const ftr_kernel_call *call, int32_t first_in, const ftr__pairs *pairs) {
    static_assert(sizeof(ftr__update_list<2>) + sizeof(ftr__pairs) <= FTR__UPDATE_ARGUMENTS, "arguments of a launch");
    return ftr__update_lists<2>(call, first_in, FTR__UPDATE_CHUNK, [&](const ftr__update_list<2> &list) {
        return FTR_LAUNCH(call, ftr__pairs_kernel, static_cast<unsigned>(list.first[list.groups]), FTR__CUDA_THREADS,
                          list, *pairs);
    });
}

static ftr__pairs ftr__pairs_of(const ftr_kernel_call *call, ftr__pairs_kind kind) {
    ftr__pairs pairs = {};
    pairs.kind = kind;
    pairs.step = ftr__cuda_of(call)->step;
    return pairs;
}

/* The one pair is the first two of three inputs. */
FTR__CUDA_LIB ftr_status ftr__cuda_ema_update(const ftr_kernel_call *call) {
    ftr__pairs pairs = ftr__pairs_of(call, FTR__PAIRS_EMA);
    pairs.found_inf = ftr__update_scalar_of(call, 2);
    pairs.weight = call->attr->ema.weight;
    pairs.cumulative = call->attr->ema.cumulative;
    return ftr__pairs_run(call, 0, &pairs);
}

FTR__CUDA_LIB ftr_status ftr__cuda_accumulate_update(const ftr_kernel_call *call) {
    ftr__pairs pairs = ftr__pairs_of(call, FTR__PAIRS_SUM);
    pairs.steps = call->attr->accumulate.steps;
    return ftr__pairs_run(call, 0, &pairs);
}

FTR__CUDA_LIB ftr_status ftr__cuda_average_update(const ftr_kernel_call *call) {
    ftr__pairs pairs = ftr__pairs_of(call, FTR__PAIRS_AVERAGE);
    const auto &a = call->attr->average;
    int64_t *taken = static_cast<int64_t *>(call->in[0].data);
    const bool warmup = a.warmup_gamma > 0.0;
    pairs.found_inf = ftr__update_scalar_of(call, 2);
    pairs.taken = taken;
    pairs.applied = static_cast<const int64_t *>(call->in[1].data);
    pairs.start = a.start;
    pairs.every = a.every;
    pairs.weight = 1.0 - (warmup ? a.min_decay : a.decay);
    pairs.least = 1.0 - a.decay;
    pairs.warmup_gamma = static_cast<float>(a.warmup_gamma);
    pairs.warmup_power = static_cast<float>(a.warmup_power);
    pairs.equal = a.equal;
    pairs.copy = a.copy;
    const ftr_status status = ftr__pairs_run(call, FTR_AVERAGE_FIRST_PAIR, &pairs);
    if (status || a.copy) return status;
    return FTR_LAUNCH(call, ftr__pairs_taken, 1u, FTR__CUDA_WARP, pairs, taken);
}

FTR__CUDA_LIB ftr_status ftr__cuda_swap_update(const ftr_kernel_call *call) {
    const ftr__pairs pairs = ftr__pairs_of(call, FTR__PAIRS_SWAP);
    return ftr__pairs_run(call, 0, &pairs);
}

FTR__CUDA_LIB ftr_status ftr__cuda_count_update(const ftr_kernel_call *call) {
    return FTR_LAUNCH(call, ftr__count_kernel, 1u, FTR__CUDA_WARP, ftr__update_scalar_of(call, 1), call->in[0].data);
}

/* ----------------------------------------------------------------------------------------------------- optimizers -- */

/* Adam adds the weight decay to the gradient, AdamW takes it off the parameter. */
template <bool DECOUPLED, bool LARGEST> struct ftr__adam {
    enum { STATES = LARGEST ? 3 : 2 };
    static __device__ __forceinline__ void prepare(const ftr__update_from &from, double, ftr__update_step *step) {
        const double t = ftr__update_number(from);
        if (DECOUPLED) step->decay = static_cast<float>(ftr__update_lr(from) * from.weight_decay);
        step->lr = step->lr / ftr__update_bias(from.log_beta1, t);
        step->debias2 = 1.0f / sqrtf(ftr__update_bias(from.log_beta2, t));
    }
    template <int N>
    static __device__ __forceinline__ float apply(const ftr__update_step &step, float w, float g, float (&s)[N]) {
        const float d = DECOUPLED ? g : g + step.weight_decay * w;
        s[0] = ftr__moved(s[0], d, step.fresh1);
        s[1] = ftr__moved(s[1], d * d, step.fresh2);
        float top = s[1];
        if (LARGEST) top = s[STATES - 1] = ftr__maximum(s[STATES - 1], top);
        const float change = s[0] * step.lr / (sqrtf(top) * step.debias2 + step.eps);
        return DECOUPLED ? w - (step.decay * w + change) : w - change;
    }
};

/* The mean square less the squared mean may come out below 0 by rounding. */
template <bool CENTERED, bool MOMENTUM> struct ftr__rmsprop {
    enum { STATES = 1 + (CENTERED ? 1 : 0) + (MOMENTUM ? 1 : 0) };
    static __device__ __forceinline__ void prepare(const ftr__update_from &, double, ftr__update_step *) {}
    template <int N>
    static __device__ __forceinline__ float apply(const ftr__update_step &step, float w, float g, float (&s)[N]) {
        const float d = g + step.weight_decay * w;
        s[0] = ftr__moved(s[0], d * d, step.fresh2);
        float spread = s[0];
        if (CENTERED) {
            s[1] = ftr__moved(s[1], d, step.fresh2);
            spread -= s[1] * s[1];
            spread = spread < 0.0f ? 0.0f : spread;
        }
        float change = d / (sqrtf(spread) + step.eps);
        if (MOMENTUM) change = s[STATES - 1] = change + (s[STATES - 1] - step.fall * s[STATES - 1]);
        return w - step.lr * change;
    }
};

struct ftr__adagrad {
    enum { STATES = 1 };
    static __device__ __forceinline__ void prepare(const ftr__update_from &from, double, ftr__update_step *step) {
        step->lr = step->lr / static_cast<float>(1.0 + (ftr__update_number(from) - 1.0) * from.lr_decay);
    }
    template <int N>
    static __device__ __forceinline__ float apply(const ftr__update_step &step, float w, float g, float (&s)[N]) {
        const float d = g + step.weight_decay * w;
        s[0] = (step.first ? step.initial : s[0]) + d * d;
        return w - step.lr * (d / (sqrtf(s[0]) + step.eps));
    }
};

struct ftr__lion {
    enum { STATES = 1 };
    static __device__ __forceinline__ void prepare(const ftr__update_from &from, double, ftr__update_step *step) {
        step->decay = static_cast<float>(ftr__update_lr(from) * from.weight_decay);
    }
    template <int N>
    static __device__ __forceinline__ float apply(const ftr__update_step &step, float w, float d, float (&s)[N]) {
        const float direction = ftr__moved(s[0], d, step.fresh1);
        const float change = direction > 0.0f ? step.lr : direction < 0.0f ? -step.lr : 0.0f;
        s[0] = ftr__moved(s[0], d, step.fresh2);
        return w - (step.decay * w + change);
    }
};

FTR__CUDA_LIB ftr_status ftr__cuda_sgd_update(const ftr_kernel_call *call) {
    const ftr__update_from from = ftr__update_from_of(call);
    return call->attr->optimizer.momentum != 0.0 ? ftr__update_run<ftr__sgd_momentum>(call, &from, nullptr)
                                                 : ftr__update_run<ftr__sgd>(call, &from, nullptr);
}

FTR__CUDA_LIB ftr_status ftr__cuda_adam_update(const ftr_kernel_call *call) {
    const ftr__update_from from = ftr__update_from_of(call);
    const bool largest = call->attr->optimizer.amsgrad;
    if (call->op == FTR_OP_adamw_update)
        return largest ? ftr__update_run<ftr__adam<true, true>>(call, &from, nullptr)
                       : ftr__update_run<ftr__adam<true, false>>(call, &from, nullptr);
    return largest ? ftr__update_run<ftr__adam<false, true>>(call, &from, nullptr)
                   : ftr__update_run<ftr__adam<false, false>>(call, &from, nullptr);
}

/* The share of what is new is 1 - alpha. */
FTR__CUDA_LIB ftr_status ftr__cuda_rmsprop_update(const ftr_kernel_call *call) {
    ftr__update_from from = ftr__update_from_of(call);
    const bool momentum = call->attr->optimizer.momentum != 0.0;
    from.fresh2 = static_cast<float>(1.0 - call->attr->optimizer.alpha);
    if (call->attr->optimizer.centered)
        return momentum ? ftr__update_run<ftr__rmsprop<true, true>>(call, &from, nullptr)
                        : ftr__update_run<ftr__rmsprop<true, false>>(call, &from, nullptr);
    return momentum ? ftr__update_run<ftr__rmsprop<false, true>>(call, &from, nullptr)
                    : ftr__update_run<ftr__rmsprop<false, false>>(call, &from, nullptr);
}

FTR__CUDA_LIB ftr_status ftr__cuda_adagrad_update(const ftr_kernel_call *call) {
    const ftr__update_from from = ftr__update_from_of(call);
    return ftr__update_run<ftr__adagrad>(call, &from, nullptr);
}

FTR__CUDA_LIB ftr_status ftr__cuda_lion_update(const ftr_kernel_call *call) {
    const ftr__update_from from = ftr__update_from_of(call);
    return ftr__update_run<ftr__lion>(call, &from, nullptr);
}
