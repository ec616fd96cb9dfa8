/* What updates share: scalars in device memory, lists of tensors that one launch goes through, the steps of optimizers.
 *
 * A list is passed by value. Its tensors are cut into chunks, a block a chunk; a node whose tensors are more than a list holds
 * gets several launches. What changes from step to step is read on the device: a launch may be a node of a CUDA graph. */
#ifndef FTR_BACKEND_CUDA_UPDATE_CUH
#define FTR_BACKEND_CUDA_UPDATE_CUH

#include "backend/cuda/cuda.cuh"

#include <cmath>

/* Bytes of a launch's arguments; few in the emulator, where small nodes are to get several launches too. */
#ifndef FTR_EMULATOR
#define FTR__UPDATE_ARGUMENTS 4096
#else
#define FTR__UPDATE_ARGUMENTS 512
#endif
#define FTR__UPDATE_SETTINGS 320 /* of them those beside the list, at most */
#define FTR__UPDATE_CHUNK 4096   /* elements of an optimizer's chunk */
#define FTR__NORM_CHUNK 16384    /* of a chunk that is only read */

/* --------------------------------------------------------------------------------------------------------- scalars -- */

/* A floating-point scalar among a node's inputs. data == nullptr: it is missing. */
struct ftr__update_scalar {
    const void *data;
    bool is_f64;
};

static inline ftr__update_scalar ftr__update_scalar_of(const ftr_kernel_call *call, int32_t input) {
    if (input >= call->in_count || call->in[input].dtype == FTR_DTYPE_NONE) return {nullptr, false};
    return {call->in[input].data, call->in[input].dtype == FTR_F64};
}

static __device__ __forceinline__ double ftr__update_value(ftr__update_scalar scalar, double missing) {
    if (!scalar.data) return missing;
    if (scalar.is_f64) return *static_cast<const double *>(scalar.data);
    return static_cast<double>(*static_cast<const float *>(scalar.data));
}

/* Whether a step is left out. */
static __device__ __forceinline__ bool ftr__update_skipped(ftr__update_scalar found_inf) {
    return ftr__update_value(found_inf, 0.0) != 0.0;
}

/* ----------------------------------------------------------------------------------------------------------- lists -- */

/* Groups of P tensors of one size: a parameter, its gradient and its states, say. */
template <int P> struct ftr__update_list {
    enum { MOST = (FTR__UPDATE_ARGUMENTS - FTR__UPDATE_SETTINGS - 32) / (8 * P + 8 + 4) };
    int64_t chunks_before; /* of the node's groups in earlier lists */
    int32_t groups_before; /* those groups, but for empty ones */
    int32_t groups, a_chunk;
    int32_t first[MOST + 1]; /* chunk of each group, and behind the last */
    int64_t size[MOST];
    void *data[MOST][P];
};

/* What a block works on. */
struct ftr__update_chunk {
    int32_t group;
    int64_t begin;
    int32_t n;
};

template <int P>
static __device__ __forceinline__ ftr__update_chunk ftr__update_chunk_of(const ftr__update_list<P> &list) {
    const int32_t number = static_cast<int32_t>(blockIdx.x);
    int32_t low = 0, high = list.groups;
    while (high - low > 1) {
        const int32_t middle = (low + high) / 2;
        if (list.first[middle] <= number)
            low = middle;
        else
            high = middle;
    }
    const int64_t begin = static_cast<int64_t>(number - list.first[low]) * list.a_chunk, left = list.size[low] - begin;
    return {low, begin, left < list.a_chunk ? static_cast<int32_t>(left) : list.a_chunk};
}

static inline int64_t ftr__update_chunks(int64_t count, int64_t a_chunk) { return (count + a_chunk - 1) / a_chunk; }

/* Calls launch(list) for a node's groups of P inputs from `first_in` on; empty ones are left out. */
template <int P, typename F>
static ftr_status ftr__update_lists(const ftr_kernel_call *call, int32_t first_in, int32_t a_chunk, F launch) {
    ftr__update_list<P> list = {};
    list.a_chunk = a_chunk;
    for (int32_t i = first_in; i + P <= call->in_count; i += P) {
        const int64_t count = call->in[i].count, chunks = ftr__update_chunks(count, a_chunk);
        if (count == 0) continue;
        if (list.groups == ftr__update_list<P>::MOST || list.first[list.groups] + chunks > INT32_MAX) {
            const ftr_status status = launch(list);
            if (status) return status;
            list.chunks_before += list.first[list.groups];
            list.groups_before += list.groups;
            list.groups = 0;
        }
        for (int32_t k = 0; k < P; k++) list.data[list.groups][k] = call->in[i + k].data;
        list.size[list.groups] = count;
        list.first[list.groups + 1] = list.first[list.groups] + static_cast<int32_t>(chunks);
        list.groups++;
    }
    return list.groups > 0 ? launch(list) : FTR_OK;
}

/* Chunks and groups of a node, as ftr__update_lists() makes them. */
static inline int64_t ftr__update_count_chunks(const ftr_kernel_call *call, int32_t first_in, int32_t group,
                                               int64_t a_chunk) {
    int64_t chunks = 0;
    for (int32_t i = first_in; i + group <= call->in_count; i += group)
        chunks += ftr__update_chunks(call->in[i].count, a_chunk);
    return chunks;
}

static inline int64_t ftr__update_count_groups(const ftr_kernel_call *call, int32_t first_in, int32_t group) {
    return call->in_count > first_in ? (call->in_count - first_in) / group : 0;
}

/* --------------------------------------------------------------------------------------------------------- accesses -- */

/* W neighbours. */
template <typename T, int W> struct alignas(W * sizeof(T)) ftr__some { T of[W]; };

template <typename T, int W> static __device__ __forceinline__ void ftr__load_some(const T *from, float (&to)[W]) {
    const ftr__some<T, W> some = *reinterpret_cast<const ftr__some<T, W> *>(from);
    for (int k = 0; k < W; k++) to[k] = ftr__to_float(some.of[k]);
}

template <typename T, int W> static __device__ __forceinline__ void ftr__store_some(T *to, const float (&from)[W]) {
    ftr__some<T, W> some;
    for (int k = 0; k < W; k++) some.of[k] = ftr__from_float<T>(from[k]);
    *reinterpret_cast<ftr__some<T, W> *>(to) = some;
}

template <typename T> static __device__ __forceinline__ bool ftr__is_aligned_by_four(const T *data) {
    return reinterpret_cast<uintptr_t>(data) % (4 * sizeof(T)) == 0;
}

/* ----------------------------------------------------------------------------------------------- steps of optimizers -- */

/* What the steps are made from: scalars in device memory, and constants. */
struct ftr__update_from {
    ftr__update_scalar lr, grad_scale, found_inf;
    const int64_t *done; /* steps applied before this one */
    double lr_scale, weight_decay, log_beta1, log_beta2, lr_decay;
    double trust_coefficient, eps, parameter_eps, clip_threshold;
    float clip, beta2_decay, momentum, fall, dampened, fresh1, fresh2, initial;
    bool nesterov, adapt, trust_clip;
};

static inline ftr__update_from ftr__update_from_of(const ftr_kernel_call *call) {
    const auto &a = call->attr->optimizer;
    ftr__update_from from = {};
    from.lr = ftr__update_scalar_of(call, 0);
    from.grad_scale = ftr__update_scalar_of(call, 2);
    from.found_inf = ftr__update_scalar_of(call, 3);
    from.done = static_cast<const int64_t *>(call->in[1].data);
    from.lr_scale = a.lr_scale;
    from.weight_decay = a.weight_decay;
    from.log_beta1 = log(a.beta1);
    from.log_beta2 = log(a.beta2);
    from.lr_decay = a.lr_decay;
    from.trust_coefficient = a.trust_coefficient;
    from.eps = a.eps;
    from.parameter_eps = a.parameter_eps;
    from.clip_threshold = a.clip_threshold;
    from.clip = a.clip_value > 0.0 ? static_cast<float>(a.clip_value) : HUGE_VALF;
    from.beta2_decay = static_cast<float>(a.beta2_decay);
    from.momentum = static_cast<float>(a.momentum);
    from.fall = static_cast<float>(1.0 - a.momentum);
    from.dampened = static_cast<float>(1.0 - a.dampening);
    from.fresh1 = static_cast<float>(1.0 - a.beta1);
    from.fresh2 = static_cast<float>(1.0 - a.beta2);
    from.initial = static_cast<float>(a.initial_accumulator);
    from.nesterov = a.nesterov;
    from.adapt = a.adapt;
    from.trust_clip = a.trust_clip;
    return from;
}

static __device__ __forceinline__ double ftr__update_lr(const ftr__update_from &from) {
    return ftr__update_value(from.lr, 0.0) * from.lr_scale;
}

/* Number of the step, from 1. */
static __device__ __forceinline__ double ftr__update_number(const ftr__update_from &from) {
    return static_cast<double>(*from.done) + 1.0;
}

/* 1 - beta^t, of a beta near 1 too. */
static __device__ __forceinline__ float ftr__update_bias(double log_beta, double t) {
    return -expm1f(static_cast<float>(log_beta * t));
}

/* Constants of a step, as the elements' formulas use them. */
struct ftr__update_step {
    float scale, clip, lr, eps, weight_decay;
    float decay;                     /* of the parameter itself: lr * weight decay */
    float trust;                     /* factor of the gradient */
    float momentum, fall, dampened;  /* fall: 1 - momentum */
    float fresh1, fresh2;            /* weights of what is new in a moment */
    float debias1, debias2, initial; /* debias2: of the root of the second moment */
    bool first, nesterov;
};

/* A gradient as it is read. */
static __device__ __forceinline__ float ftr__update_gradient(const ftr__update_step &step, float g) {
    const float d = g * step.scale;
    return d > step.clip ? step.clip : d < -step.clip ? -step.clip : d;
}

/* x moved toward y by a share of the way. */
static __device__ __forceinline__ float ftr__moved(float x, float y, float share) { return x + share * (y - x); }

static __device__ __forceinline__ void ftr__update_read(const ftr__update_from &from, ftr__update_step *step) {
    step->scale = static_cast<float>(ftr__update_value(from.grad_scale, 1.0));
    step->clip = from.clip;
    step->lr = static_cast<float>(ftr__update_lr(from));
    step->eps = static_cast<float>(from.eps);
    step->weight_decay = static_cast<float>(from.weight_decay);
    step->decay = 0.0f;
    step->trust = 1.0f;
    step->momentum = from.momentum;
    step->fall = from.fall;
    step->dampened = from.dampened;
    step->fresh1 = from.fresh1;
    step->fresh2 = from.fresh2;
    step->debias1 = step->debias2 = 1.0f;
    step->initial = from.initial;
    step->first = *from.done == 0;
    step->nesterov = from.nesterov;
}

/* An optimizer is a class with the number of its STATES and
 *
 *   prepare(from, factor, step)   what ftr__update_read() leaves open; `factor` is the parameter's own number of a pass before
 *   apply(step, w, d, s)          the parameter's new value, from its value, its gradient and its states, which change
 */
struct ftr__sgd {
    enum { STATES = 0 };
    static __device__ __forceinline__ void prepare(const ftr__update_from &, double factor, ftr__update_step *step) {
        step->trust = static_cast<float>(factor);
    }
    template <int N>
    static __device__ __forceinline__ float apply(const ftr__update_step &step, float w, float d, float (&)[N]) {
        return w - step.lr * ((d + step.weight_decay * w) * step.trust);
    }
};

/* The first momentum is the whole gradient. */
struct ftr__sgd_momentum {
    enum { STATES = 1 };
    static __device__ __forceinline__ void prepare(const ftr__update_from &, double factor, ftr__update_step *step) {
        step->trust = static_cast<float>(factor);
    }
    template <int N>
    static __device__ __forceinline__ float apply(const ftr__update_step &step, float w, float d, float (&s)[N]) {
        const float full = (d + step.weight_decay * w) * step.trust;
        s[0] = step.first ? full : s[0] - step.fall * s[0] + step.dampened * full;
        return w - step.lr * (step.nesterov ? full + step.momentum * s[0] : s[0]);
    }
};

/* One launch a list; P is the group's size. `factors`: of groups, or nullptr. */
template <typename O, typename S, int P>
FTR__KERNEL ftr__update_kernel(const ftr__update_list<P> list, const ftr__update_from from, const double *factors) {
    if (ftr__update_skipped(from.found_inf)) return;
    const ftr__update_chunk chunk = ftr__update_chunk_of(list);
    ftr__update_step step;
    ftr__update_read(from, &step);
    O::prepare(from, factors ? factors[list.groups_before + chunk.group] : 1.0, &step);
    float *p = static_cast<float *>(list.data[chunk.group][0]) + chunk.begin;
    const float *g = static_cast<const float *>(list.data[chunk.group][1]) + chunk.begin;
    S *s[O::STATES + 1];
    bool aligned = ftr__is_aligned_by_four(p) && ftr__is_aligned_by_four(g);
    for (int k = 0; k < O::STATES; k++) {
        s[k] = static_cast<S *>(list.data[chunk.group][2 + k]) + chunk.begin;
        aligned = aligned && ftr__is_aligned_by_four(s[k]);
    }
    const int32_t packed = aligned ? chunk.n - chunk.n % 4 : 0;
    for (int32_t i = 4 * static_cast<int32_t>(threadIdx.x); i < packed; i += 4 * FTR__CUDA_THREADS) {
        float w[4], d[4], of[O::STATES + 1][4];
        ftr__load_some(p + i, w);
        ftr__load_some(g + i, d);
        for (int k = 0; k < O::STATES; k++) ftr__load_some(s[k] + i, of[k]);
        for (int e = 0; e < 4; e++) {
            float at[O::STATES + 1];
            for (int k = 0; k < O::STATES; k++) at[k] = of[k][e];
            w[e] = O::apply(step, w[e], ftr__update_gradient(step, d[e]), at);
            for (int k = 0; k < O::STATES; k++) of[k][e] = at[k];
        }
        ftr__store_some(p + i, w);
        for (int k = 0; k < O::STATES; k++) ftr__store_some(s[k] + i, of[k]);
    }
    for (int32_t i = packed + static_cast<int32_t>(threadIdx.x); i < chunk.n; i += FTR__CUDA_THREADS) {
        float at[O::STATES + 1];
        for (int k = 0; k < O::STATES; k++) at[k] = ftr__to_float(s[k][i]);
        p[i] = O::apply(step, p[i], ftr__update_gradient(step, g[i]), at);
        for (int k = 0; k < O::STATES; k++) s[k][i] = ftr__from_float<S>(at[k]);
    }
}

/* Calls f with a value of the type of a node's states. */
template <typename F> static ftr_status ftr__update_for_state(const ftr_kernel_call *call, int32_t states, F f) {
    const bool bf16 = states > 0 && call->in_count > FTR_UPDATE_FIRST_GROUP + 2 &&
                      call->in[FTR_UPDATE_FIRST_GROUP + 2].dtype == FTR_BF16;
    return bf16 ? f(__nv_bfloat16()) : f(float());
}

template <typename O>
static ftr_status ftr__update_run(const ftr_kernel_call *call, const ftr__update_from *from, const double *factors) {
    constexpr int P = O::STATES + 2;
    static_assert(sizeof(ftr__update_list<P>) + sizeof(ftr__update_from) + 8 <= FTR__UPDATE_ARGUMENTS,
                  "arguments of a launch");
    return ftr__update_for_state(call, O::STATES, [&](auto tag) {
        using S = decltype(tag);
        return ftr__update_lists<P>(
            call, FTR_UPDATE_FIRST_GROUP, FTR__UPDATE_CHUNK, [&](const ftr__update_list<P> &list) {
                return FTR_LAUNCH(call, (ftr__update_kernel<O, S, P>), static_cast<unsigned>(list.first[list.groups]),
                                  FTR__CUDA_THREADS, list, *from, factors);
            });
    });
}

/* ------------------------------------------------------------------------------------- optimizers with sums of groups -- */

/* Such an optimizer has beside the above
 *
 *   begin(from, step)               what sums() uses of a step
 *   sums(step, w, d, s, a, b)       an element's part of the group's two sums; the states may change, but are not kept
 *   factor(from, a, b, size)        the group's factor, from its sums
 *
 * The sums of chunks and then the factors of groups are the workspace. */
template <typename O, typename S, int P>
FTR__KERNEL ftr__update_sums(const ftr__update_list<P> list, const ftr__update_from from, double *sums) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    if (ftr__update_skipped(from.found_inf)) return;
    const ftr__update_chunk chunk = ftr__update_chunk_of(list);
    ftr__update_step step;
    ftr__update_read(from, &step);
    O::begin(from, &step);
    const float *p = static_cast<const float *>(list.data[chunk.group][0]) + chunk.begin;
    const float *g = static_cast<const float *>(list.data[chunk.group][1]) + chunk.begin;
    const S *s[O::STATES + 1];
    bool aligned = ftr__is_aligned_by_four(p) && ftr__is_aligned_by_four(g);
    for (int k = 0; k < O::STATES; k++) {
        s[k] = static_cast<const S *>(list.data[chunk.group][2 + k]) + chunk.begin;
        aligned = aligned && ftr__is_aligned_by_four(s[k]);
    }
    double a = 0.0, b = 0.0;
    const int32_t packed = aligned ? chunk.n - chunk.n % 4 : 0;
    for (int32_t i = 4 * static_cast<int32_t>(threadIdx.x); i < packed; i += 4 * FTR__CUDA_THREADS) {
        float w[4], d[4], of[O::STATES + 1][4];
        ftr__load_some(p + i, w);
        ftr__load_some(g + i, d);
        for (int k = 0; k < O::STATES; k++) ftr__load_some(s[k] + i, of[k]);
        for (int e = 0; e < 4; e++) {
            float at[O::STATES + 1];
            for (int k = 0; k < O::STATES; k++) at[k] = of[k][e];
            O::sums(step, w[e], ftr__update_gradient(step, d[e]), at, &a, &b);
        }
    }
    for (int32_t i = packed + static_cast<int32_t>(threadIdx.x); i < chunk.n; i += FTR__CUDA_THREADS) {
        float at[O::STATES + 1];
        for (int k = 0; k < O::STATES; k++) at[k] = ftr__to_float(s[k][i]);
        O::sums(step, p[i], ftr__update_gradient(step, g[i]), at, &a, &b);
    }
    a = ftr__block_sum(a, room);
    b = ftr__block_sum(b, room);
    if (threadIdx.x == 0) {
        double *to = sums + 2 * (list.chunks_before + blockIdx.x);
        to[0] = a;
        to[1] = b;
    }
}

/* A block a group. */
template <typename O, int P>
FTR__KERNEL ftr__update_factors(const ftr__update_list<P> list, const ftr__update_from from, const double *sums,
                                double *factors) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    if (ftr__update_skipped(from.found_inf)) return;
    const int32_t group = static_cast<int32_t>(blockIdx.x);
    const double *of = sums + 2 * list.chunks_before;
    double a = 0.0, b = 0.0;
    for (int32_t c = list.first[group] + static_cast<int32_t>(threadIdx.x); c < list.first[group + 1];
         c += FTR__CUDA_THREADS) {
        a += of[2 * static_cast<int64_t>(c)];
        b += of[2 * static_cast<int64_t>(c) + 1];
    }
    a = ftr__block_sum(a, room);
    b = ftr__block_sum(b, room);
    if (threadIdx.x == 0) factors[list.groups_before + group] = O::factor(from, a, b, list.size[group]);
}

static inline size_t ftr__update_sums_bytes(const ftr_kernel_call *call, int32_t group) {
    return 8 *
           static_cast<size_t>(2 * ftr__update_count_chunks(call, FTR_UPDATE_FIRST_GROUP, group, FTR__UPDATE_CHUNK) +
                               ftr__update_count_groups(call, FTR_UPDATE_FIRST_GROUP, group));
}

/* The sums, the factors, the step. */
template <typename O>
static ftr_status ftr__update_run_factors(const ftr_kernel_call *call, const ftr__update_from *from) {
    constexpr int P = O::STATES + 2;
    static_assert(sizeof(ftr__update_list<P>) + sizeof(ftr__update_from) + 16 <= FTR__UPDATE_ARGUMENTS,
                  "arguments of a launch");
    double *sums = static_cast<double *>(call->workspace);
    double *factors = sums + 2 * ftr__update_count_chunks(call, FTR_UPDATE_FIRST_GROUP, P, FTR__UPDATE_CHUNK);
    ftr_status status = ftr__update_for_state(call, O::STATES, [&](auto tag) {
        using S = decltype(tag);
        return ftr__update_lists<P>(
            call, FTR_UPDATE_FIRST_GROUP, FTR__UPDATE_CHUNK, [&](const ftr__update_list<P> &list) {
                const ftr_status failure =
                    FTR_LAUNCH(call, (ftr__update_sums<O, S, P>), static_cast<unsigned>(list.first[list.groups]),
                               FTR__CUDA_THREADS, list, *from, sums);
                return failure ? failure
                               : FTR_LAUNCH(call, (ftr__update_factors<O, P>), static_cast<unsigned>(list.groups),
                                            FTR__CUDA_THREADS, list, *from, sums, factors);
            });
    });
    return status ? status : ftr__update_run<O>(call, from, factors);
}

#endif
