/* Updates that need a norm of each parameter, or of all gradients: LAMB, LARS, the limit of a norm. A sum has two stages: of
 * chunks, a block each, and of the chunks' sums, by one block. */
#include "backend/cuda/update.cuh"

#include <cfloat>

/* ------------------------------------------------------------------------------------------------- LAMB and LARS -- */

/* The sums are those of p^2 and of u^2. The moments are computed in both passes, and kept by the second one: those in bf16
 * would be rounded between the passes. */
struct ftr__lamb {
    enum { STATES = 2 };
    static __device__ __forceinline__ void begin(const ftr__update_from &from, ftr__update_step *step) {
        const double t = ftr__update_number(from);
        step->debias1 = 1.0f / ftr__update_bias(from.log_beta1, t);
        step->debias2 = 1.0f / sqrtf(ftr__update_bias(from.log_beta2, t));
    }
    static __device__ __forceinline__ void prepare(const ftr__update_from &from, double factor,
                                                   ftr__update_step *step) {
        begin(from, step);
        step->lr = static_cast<float>(ftr__update_lr(from) * factor);
    }
    template <int N>
    static __device__ __forceinline__ float direction(const ftr__update_step &step, float w, float d, float (&s)[N]) {
        s[0] = ftr__moved(s[0], d, step.fresh1);
        s[1] = ftr__moved(s[1], d * d, step.fresh2);
        return s[0] * step.debias1 / (sqrtf(s[1]) * step.debias2 + step.eps) + step.weight_decay * w;
    }
    template <int N>
    static __device__ __forceinline__ void sums(const ftr__update_step &step, float w, float d, float (&s)[N],
                                                double *a, double *b) {
        const double u = direction(step, w, d, s), p = w;
        *a += p * p;
        *b += u * u;
    }
    static __device__ __forceinline__ double factor(const ftr__update_from &from, double a, double b, int64_t) {
        const double p = sqrt(a), u = sqrt(b), trust = from.adapt && p > 0.0 && u > 0.0 ? p / u : 1.0;
        return from.trust_clip && trust > 1.0 ? 1.0 : trust;
    }
    template <int N>
    static __device__ __forceinline__ float apply(const ftr__update_step &step, float w, float d, float (&s)[N]) {
        return w - step.lr * direction(step, w, d, s);
    }
};

/* An SGD whose gradient has a factor. The sums are those of p^2 and g^2. */
template <typename SGD> struct ftr__lars : SGD {
    static __device__ __forceinline__ void begin(const ftr__update_from &, ftr__update_step *) {}
    template <int N>
    static __device__ __forceinline__ void sums(const ftr__update_step &, float w, float d, float (&)[N], double *a,
                                                double *b) {
        const double p = w, g = d;
        *a += p * p;
        *b += g * g;
    }
    static __device__ __forceinline__ double factor(const ftr__update_from &from, double a, double b, int64_t) {
        if (!from.adapt) return 1.0;
        const double p = sqrt(a), g = sqrt(b), below = g + p * from.weight_decay + from.eps;
        const double trust = p > 0.0 && g > 0.0 ? from.trust_coefficient * p / below : 1.0;
        return from.trust_clip ? fmin(trust / ftr__update_lr(from), 1.0) : trust;
    }
};

FTR__CUDA_LIB size_t ftr__cuda_lamb_update_workspace(const ftr_kernel_call *call) {
    return ftr__update_sums_bytes(call, 4);
}

FTR__CUDA_LIB size_t ftr__cuda_lars_update_workspace(const ftr_kernel_call *call) {
    return ftr__update_sums_bytes(call, call->attr->optimizer.momentum != 0.0 ? 3 : 2);
}

FTR__CUDA_LIB ftr_status ftr__cuda_lamb_update(const ftr_kernel_call *call) {
    const ftr__update_from from = ftr__update_from_of(call);
    return ftr__update_run_factors<ftr__lamb>(call, &from);
}

FTR__CUDA_LIB ftr_status ftr__cuda_lars_update(const ftr_kernel_call *call) {
    const ftr__update_from from = ftr__update_from_of(call);
    return call->attr->optimizer.momentum != 0.0 ? ftr__update_run_factors<ftr__lars<ftr__sgd_momentum>>(call, &from)
                                                 : ftr__update_run_factors<ftr__lars<ftr__sgd>>(call, &from);
}

/* ------------------------------------------------------------------------------------------ norms of all gradients -- */

/* Squares of f32 do not overflow in double, nor do their sums. */
FTR__KERNEL ftr__norm_squares(const ftr__update_list<1> list, double *sums) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    const ftr__update_chunk chunk = ftr__update_chunk_of(list);
    const float *g = static_cast<const float *>(list.data[chunk.group][0]) + chunk.begin;
    const int32_t packed = ftr__is_aligned_by_four(g) ? chunk.n - chunk.n % 4 : 0;
    double sum = 0.0;
    for (int32_t i = 4 * static_cast<int32_t>(threadIdx.x); i < packed; i += 4 * FTR__CUDA_THREADS) {
        float x[4];
        ftr__load_some(g + i, x);
        for (int k = 0; k < 4; k++) sum += static_cast<double>(x[k]) * static_cast<double>(x[k]);
    }
    for (int32_t i = packed + static_cast<int32_t>(threadIdx.x); i < chunk.n; i += FTR__CUDA_THREADS)
        sum += static_cast<double>(g[i]) * static_cast<double>(g[i]);
    sum = ftr__block_sum(sum, room);
    if (threadIdx.x == 0) sums[list.chunks_before + blockIdx.x] = sum;
}

static __device__ __forceinline__ double ftr__norm_total(const double *sums, int64_t chunks, double *room) {
    double sum = 0.0;
    for (int64_t c = threadIdx.x; c < chunks; c += FTR__CUDA_THREADS) sum += sums[c];
    return ftr__block_sum(sum, room);
}

/* As torch.nn.utils.clip_grad_norm_, of gradients times a scale. NaN stays NaN. */
FTR__KERNEL ftr__clip_scale_finish(const double *sums, int64_t chunks, ftr__update_scalar given, double max_norm,
                                   double eps, float *out) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    const double squares = ftr__norm_total(sums, chunks, room);
    if (threadIdx.x != 0) return;
    const double scale = ftr__update_value(given, 1.0), norm = sqrt(squares) * fabs(scale) + eps;
    *out = static_cast<float>(norm <= max_norm ? scale : scale * (max_norm / norm));
}

struct ftr__grad_norm_out {
    float *norm, *found_inf, *factor, *scale;
};

/* The order is GradScaler's and then clip_grad_norm_'s (torch.amp, torch.nn.utils): the inverse of the scale is rounded to
 * f32, the norm is that of the gradients without the scale. */
FTR__KERNEL ftr__grad_norm_finish(const double *sums, int64_t chunks, ftr__update_scalar given, double divisor,
                                  double max_norm, ftr__grad_norm_out out) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    const double squares = ftr__norm_total(sums, chunks, room);
    if (threadIdx.x != 0) return;
    const double used = ftr__update_value(given, 1.0);
    const float inverse = static_cast<float>(1.0 / (used * divisor));
    const float norm = static_cast<float>(sqrt(squares) * static_cast<double>(inverse));
    const float clip = max_norm > 0.0 ? static_cast<float>(max_norm) / (norm + 1e-6f) : 1.0f;
    *out.norm = norm;
    *out.found_inf = squares <= DBL_MAX ? 0.0f : 1.0f;
    *out.factor = clip > 1.0f ? inverse : clip * inverse; /* NaN stays NaN */
    *out.scale = static_cast<float>(used);
}

static ftr_status ftr__norm_run(const ftr_kernel_call *call) {
    static_assert(sizeof(ftr__update_list<1>) + 8 <= FTR__UPDATE_ARGUMENTS, "arguments of a launch");
    return ftr__update_lists<1>(call, 1, FTR__NORM_CHUNK, [&](const ftr__update_list<1> &list) {
        return FTR_LAUNCH(call, ftr__norm_squares, static_cast<unsigned>(list.first[list.groups]), FTR__CUDA_THREADS,
                          list, call->workspace);
    });
}

/* Of the gradients, the inputs from 1 on. */
FTR__CUDA_LIB size_t ftr__cuda_norm_workspace(const ftr_kernel_call *call) {
    return sizeof(double) * static_cast<size_t>(ftr__update_count_chunks(call, 1, 1, FTR__NORM_CHUNK));
}

FTR__CUDA_LIB ftr_status ftr__cuda_clip_scale(const ftr_kernel_call *call) {
    const ftr_status status = ftr__norm_run(call);
    return status ? status
                  : FTR_LAUNCH(call, ftr__clip_scale_finish, 1u, FTR__CUDA_THREADS, call->workspace,
                               ftr__update_count_chunks(call, 1, 1, FTR__NORM_CHUNK), ftr__update_scalar_of(call, 0),
                               call->attr->clip_scale.max_norm, call->attr->clip_scale.eps, call->out[0].data);
}

FTR__CUDA_LIB ftr_status ftr__cuda_grad_norm(const ftr_kernel_call *call) {
    const ftr__grad_norm_out out = {static_cast<float *>(call->out[0].data), static_cast<float *>(call->out[1].data),
                                    static_cast<float *>(call->out[2].data), static_cast<float *>(call->out[3].data)};
    const ftr_status status = ftr__norm_run(call);
    return status ? status
                  : FTR_LAUNCH(call, ftr__grad_norm_finish, 1u, FTR__CUDA_THREADS, call->workspace,
                               ftr__update_count_chunks(call, 1, 1, FTR__NORM_CHUNK), ftr__update_scalar_of(call, 0),
                               call->attr->grad_norm.divisor, call->attr->grad_norm.max_norm, out);
}
