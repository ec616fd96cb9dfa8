/* Pointwise kernels. What an op computes is chosen at run time, alike for all threads, so that a few kernels do for all of
 * them; they are bound by memory. Tensors of one shape and type are read and written 16 bytes at a time. */
#include "backend/cuda/cuda.cuh"

#define FTR__POINTWISE_INPUTS 3

/* One operand: a stride of 0 in a dimension stretches it. */
struct ftr__pointwise_operand {
    const void *data;
    ftr_dtype dtype;
    int64_t stride[FTR_MAX_RANK];
};

struct ftr__pointwise {
    ftr_op op;
    float a, b; /* constants of the op */
    bool exact; /* gelu's form */
    int32_t inputs, rank;
    int64_t count, dim[FTR_MAX_RANK];
    ftr__pointwise_operand in[FTR__POINTWISE_INPUTS];
    void *out;
    ftr_dtype out_dtype;
};

/* ------------------------------------------------------------------------------------------------------- functions -- */

static __device__ __forceinline__ float ftr__hardsigmoid(float x) {
    return x <= -3.0f ? 0.0f : x >= 3.0f ? 1.0f : (x + 3.0f) * (1.0f / 6.0f);
}

/* c (x + 0.044715 x^3) with c = sqrt(2 / pi) */
static __device__ __forceinline__ float ftr__gelu_u(float x) {
    return 0.79788456080286536f * (x + 0.044715f * x * x * x);
}

/* Also right where e^-x is infinite. */
static __device__ __forceinline__ float ftr__sigmoid(float x) {
    const float e = expf(-fabsf(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

static __device__ __forceinline__ float ftr__gelu(bool exact, float x) {
    return exact ? 0.5f * x * erfcf(-0.70710678118654752f * x) : x * ftr__sigmoid(2.0f * ftr__gelu_u(x));
}

/* Exact: Phi(x) + x phi(x). By tanh, with s = sigmoid(2u): s + x s (1 - s) 2 du/dx. */
static __device__ __forceinline__ float ftr__gelu_slope(bool exact, float x) {
    if (exact) {
        const float phi = 0.39894228040143268f * expf(-0.5f * x * x);
        return 0.5f * erfcf(-0.70710678118654752f * x) + (phi == 0.0f ? 0.0f : x * phi);
    }
    const float u = ftr__gelu_u(x), s = ftr__sigmoid(2.0f * u), rest = ftr__sigmoid(-2.0f * u);
    const float du = 0.79788456080286536f * (1.0f + 3.0f * 0.044715f * x * x);
    return s + (rest == 0.0f || s == 0.0f ? 0.0f : 2.0f * x * s * rest * du);
}

static __device__ __forceinline__ float ftr__softplus(float x, float beta, float threshold) {
    const float z = beta * x;
    return z > threshold ? x : (fmaxf(z, 0.0f) + log1pf(expf(-fabsf(z)))) / beta;
}

/* dy times a slope; 0 where the slope is, whatever dy is. */
static __device__ __forceinline__ float ftr__times_slope(float dy, float slope) {
    return slope == 0.0f ? 0.0f : dy * slope;
}

static __device__ __forceinline__ float ftr__minimum(float x, float y) { return x < y || x != x ? x : y; }

/* x and y: the operands; of a gradient dy, and x or y of the forward op. */
static __device__ __forceinline__ float ftr__apply(const ftr__pointwise &p, float x, float y) {
    const float a = p.a, b = p.b;
    switch (p.op) {
    case FTR_OP_add: return x + y;
    case FTR_OP_sub: return x - y;
    case FTR_OP_mul: return x * y;
    case FTR_OP_div: return x / y;
    case FTR_OP_pow: return powf(x, y);
    case FTR_OP_maximum: return ftr__maximum(x, y);
    case FTR_OP_minimum: return ftr__minimum(x, y);
    case FTR_OP_neg: return -x;
    case FTR_OP_exp: return expf(x);
    case FTR_OP_log: return logf(x);
    case FTR_OP_sqrt: return sqrtf(x);
    case FTR_OP_rsqrt: return 1.0f / sqrtf(x);
    case FTR_OP_tanh: return tanhf(x);
    case FTR_OP_sigmoid: return ftr__sigmoid(x);
    case FTR_OP_relu: return x < 0.0f ? 0.0f : x;
    case FTR_OP_abs: return fabsf(x);
    case FTR_OP_sin: return sinf(x);
    case FTR_OP_cos: return cosf(x);
    case FTR_OP_erf: return erff(x);
    case FTR_OP_floor: return floorf(x);
    case FTR_OP_round: return rintf(x);
    case FTR_OP_sign: return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f;
    case FTR_OP_clamp: return x < a ? a : x > b ? b : x;
    case FTR_OP_gelu: return ftr__gelu(p.exact, x);
    case FTR_OP_silu: {
        const float h = expf(-0.5f * fabsf(x)); /* e^x itself may be too small for its digits */
        return x < 0.0f ? x * h / (1.0f + h * h) * h : x / (1.0f + h * h);
    }
    case FTR_OP_hardswish: return x * ftr__hardsigmoid(x);
    case FTR_OP_hardsigmoid: return ftr__hardsigmoid(x);
    case FTR_OP_leaky_relu: return x > 0.0f ? x : a * x;
    case FTR_OP_elu: return x > 0.0f ? x : a * expm1f(x);
    case FTR_OP_softplus: return ftr__softplus(x, a, b);
    case FTR_OP_clamp_grad: return y > a && y < b ? x : 0.0f;
    case FTR_OP_gelu_grad: return ftr__times_slope(x, ftr__gelu_slope(p.exact, y));
    case FTR_OP_silu_grad: {
        const float s = ftr__sigmoid(y);
        return ftr__times_slope(x, s + y * s * (1.0f - s));
    }
    case FTR_OP_hardswish_grad: return y <= -3.0f ? 0.0f : y >= 3.0f ? x : ftr__times_slope(x, y * (1.0f / 3.0f) + 0.5f);
    case FTR_OP_leaky_relu_grad: return y > 0.0f ? x : ftr__times_slope(x, a);
    case FTR_OP_elu_grad: return y > 0.0f ? x : ftr__times_slope(x, a * expf(y));
    case FTR_OP_softplus_grad: return a * y > b ? x : ftr__times_slope(x, ftr__sigmoid(a * y));
    case FTR_OP_tanh_grad: return x * (1.0f - y * y);
    case FTR_OP_sigmoid_grad: return x * (y * (1.0f - y));
    default: return y <= 0.0f ? 0.0f : x; /* relu_grad */
    }
}

/* Sums and products wrap, as unsigned numbers do. */
static __device__ __forceinline__ int64_t ftr__apply_integer(ftr_op op, int64_t x, int64_t y) {
    const uint64_t u = static_cast<uint64_t>(x), v = static_cast<uint64_t>(y);
    switch (op) {
    case FTR_OP_add: return static_cast<int64_t>(u + v);
    case FTR_OP_sub: return static_cast<int64_t>(u - v);
    case FTR_OP_mul: return static_cast<int64_t>(u * v);
    case FTR_OP_div: return y == 0 ? 0 : y == -1 ? static_cast<int64_t>(0 - u) : x / y;
    case FTR_OP_maximum: return x > y ? x : y;
    case FTR_OP_minimum: return x < y ? x : y;
    case FTR_OP_neg: return static_cast<int64_t>(0 - u);
    case FTR_OP_abs: return x < 0 ? static_cast<int64_t>(0 - u) : x;
    case FTR_OP_relu: return x > 0 ? x : 0;
    default: return (x > 0) - (x < 0); /* sign */
    }
}

template <typename T> static __device__ __forceinline__ bool ftr__compare(ftr_op op, T x, T y) {
    switch (op) {
    case FTR_OP_eq: return x == y;
    case FTR_OP_ne: return x != y;
    case FTR_OP_lt: return x < y;
    case FTR_OP_le: return x <= y;
    case FTR_OP_gt: return x > y;
    default: return x >= y;
    }
}

/* --------------------------------------------------------------------------------------------------------- kernels -- */

/* Where each operand's element for element i of the result lies. */
static __device__ __forceinline__ void ftr__places(const ftr__pointwise &p, int64_t i, int64_t *at) {
    for (int32_t k = 0; k < p.inputs; k++) at[k] = 0;
    for (int32_t d = p.rank - 1; d >= 0; d--) {
        const int64_t next = i / p.dim[d], c = i - next * p.dim[d];
        for (int32_t k = 0; k < p.inputs; k++) at[k] += c * p.in[k].stride[d];
        i = next;
    }
}

FTR__KERNEL ftr__pointwise_real(ftr__pointwise p) {
    FTR__GRID_LOOP(i, p.count) {
        int64_t at[FTR__POINTWISE_INPUTS];
        ftr__places(p, i, at);
        const float x = ftr__load_real(p.in[0].data, p.in[0].dtype, at[0]);
        const float y = p.inputs > 1 ? ftr__load_real(p.in[1].data, p.in[1].dtype, at[1]) : 0.0f;
        ftr__store_real(p.out, p.out_dtype, i, ftr__apply(p, x, y));
    }
}

FTR__KERNEL ftr__pointwise_integer(ftr__pointwise p) {
    FTR__GRID_LOOP(i, p.count) {
        int64_t at[FTR__POINTWISE_INPUTS];
        ftr__places(p, i, at);
        const int64_t x = ftr__load_integer(p.in[0].data, p.in[0].dtype, at[0]);
        const int64_t y = p.inputs > 1 ? ftr__load_integer(p.in[1].data, p.in[1].dtype, at[1]) : 0;
        ftr__store_integer(p.out, p.out_dtype, i, ftr__apply_integer(p.op, x, y));
    }
}

FTR__KERNEL ftr__pointwise_compare(ftr__pointwise p, bool real) {
    FTR__GRID_LOOP(i, p.count) {
        int64_t at[FTR__POINTWISE_INPUTS];
        ftr__places(p, i, at);
        bool result;
        if (real)
            result = ftr__compare(p.op, ftr__load_real(p.in[0].data, p.in[0].dtype, at[0]),
                                  ftr__load_real(p.in[1].data, p.in[1].dtype, at[1]));
        else
            result = ftr__compare(p.op, ftr__load_integer(p.in[0].data, p.in[0].dtype, at[0]),
                                  ftr__load_integer(p.in[1].data, p.in[1].dtype, at[1]));
        static_cast<uint8_t *>(p.out)[i] = result;
    }
}

FTR__KERNEL ftr__pointwise_where(ftr__pointwise p, bool real) {
    FTR__GRID_LOOP(i, p.count) {
        int64_t at[FTR__POINTWISE_INPUTS];
        ftr__places(p, i, at);
        const int32_t k = static_cast<const uint8_t *>(p.in[0].data)[at[0]] ? 1 : 2;
        if (real)
            ftr__store_real(p.out, p.out_dtype, i, ftr__load_real(p.in[k].data, p.in[k].dtype, at[k]));
        else
            ftr__store_integer(p.out, p.out_dtype, i, ftr__load_integer(p.in[k].data, p.in[k].dtype, at[k]));
    }
}

FTR__KERNEL ftr__pointwise_cast(ftr__pointwise p, bool from_real, bool to_real) {
    FTR__GRID_LOOP(i, p.count) {
        if (from_real && to_real) {
            ftr__store_real(p.out, p.out_dtype, i, ftr__load_real(p.in[0].data, p.in[0].dtype, i));
        } else if (from_real) { /* toward 0; what does not fit becomes the nearest that does, NaN becomes 0 */
            const float x = ftr__load_real(p.in[0].data, p.in[0].dtype, i);
            int64_t y;
            if (p.out_dtype == FTR_BOOL)
                y = x != 0.0f;
            else if (p.out_dtype == FTR_U8)
                y = x >= 255.0f ? 255 : x > 0.0f ? static_cast<int64_t>(x) : 0;
            else if (p.out_dtype == FTR_I32)
                y = x != x ? 0 : x >= 2147483648.0f ? INT32_MAX : x < -2147483648.0f ? INT32_MIN : static_cast<int64_t>(x);
            else
                y = x != x                         ? 0
                    : x >= 9223372036854775808.0f  ? INT64_MAX
                    : x < -9223372036854775808.0f ? INT64_MIN
                                                   : static_cast<int64_t>(x);
            ftr__store_integer(p.out, p.out_dtype, i, y);
        } else if (to_real) {
            ftr__store_real(p.out, p.out_dtype, i, static_cast<float>(ftr__load_integer(p.in[0].data, p.in[0].dtype, i)));
        } else {
            ftr__store_integer(p.out, p.out_dtype, i, ftr__load_integer(p.in[0].data, p.in[0].dtype, i));
        }
    }
}

/* All tensors are of type T and of one shape, and begin at a multiple of 16 bytes. */
template <typename T> FTR__KERNEL ftr__pointwise_packs(ftr__pointwise p) {
    constexpr int width = 16 / sizeof(T);
    const int64_t packs = p.count / width;
    const T *in[2] = {static_cast<const T *>(p.in[0].data), static_cast<const T *>(p.in[p.inputs - 1].data)};
    T *out = static_cast<T *>(p.out);
    FTR__GRID_LOOP(i, packs) {
        const ftr__pack<T> x = reinterpret_cast<const ftr__pack<T> *>(in[0])[i];
        ftr__pack<T> y = x;
        if (p.inputs > 1) y = reinterpret_cast<const ftr__pack<T> *>(in[1])[i];
        ftr__pack<T> z;
        for (int k = 0; k < width; k++) z.of[k] = ftr__from_float<T>(ftr__apply(p, ftr__to_float(x.of[k]), ftr__to_float(y.of[k])));
        reinterpret_cast<ftr__pack<T> *>(out)[i] = z;
    }
    const int64_t rest = packs * width + (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (rest < p.count)
        out[rest] = ftr__from_float<T>(ftr__apply(p, ftr__to_float(in[0][rest]), ftr__to_float(in[1][rest])));
}

/* --------------------------------------------------------------------------------------------------------- running -- */

/* Dimensions that are stretched alike by all operands are joined. */
static ftr__pointwise ftr__pointwise_plan(const ftr_kernel_call *call) {
    const ftr_shape *shape = &call->out[0].shape;
    ftr__pointwise p = {};
    p.op = call->op;
    p.inputs = call->in_count;
    p.count = call->out[0].count;
    p.out = call->out[0].data;
    p.out_dtype = call->out[0].dtype;
    int64_t step[FTR__POINTWISE_INPUTS] = {1, 1, 1}, full[FTR__POINTWISE_INPUTS][FTR_MAX_RANK] = {};
    for (int32_t k = 0; k < p.inputs; k++) {
        p.in[k].data = call->in[k].data;
        p.in[k].dtype = call->in[k].dtype;
        for (int32_t d = shape->rank - 1; d >= 0; d--) {
            const int32_t from = d - (shape->rank - call->in[k].shape.rank);
            const int64_t size = from >= 0 ? call->in[k].shape.dim[from] : 1;
            full[k][d] = size == 1 ? 0 : step[k];
            step[k] *= size;
        }
    }
    for (int32_t d = 0; d < shape->rank; d++) {
        if (shape->dim[d] == 1) continue;
        bool join = p.rank > 0;
        for (int32_t k = 0; k < p.inputs && join; k++) join = p.in[k].stride[p.rank - 1] == full[k][d] * shape->dim[d];
        if (!join) p.dim[p.rank++] = 1;
        p.dim[p.rank - 1] *= shape->dim[d];
        for (int32_t k = 0; k < p.inputs; k++) p.in[k].stride[p.rank - 1] = full[k][d];
    }
    return p;
}

/* Whether one flat loop over elements of one type does. */
static bool ftr__pointwise_is_flat(const ftr__pointwise *p) {
    bool flat = p->rank <= 1 && reinterpret_cast<uintptr_t>(p->out) % 16 == 0;
    for (int32_t k = 0; k < p->inputs; k++)
        flat = flat && p->in[k].dtype == p->out_dtype && (p->rank == 0 || p->in[k].stride[0] == 1) &&
               reinterpret_cast<uintptr_t>(p->in[k].data) % 16 == 0;
    return flat;
}

static bool ftr__pointwise_compares(ftr_op op) { return op >= FTR_OP_eq && op <= FTR_OP_ge; }

static bool ftr__pointwise_has_integers(ftr_op op) {
    switch (op) {
    case FTR_OP_add:
    case FTR_OP_sub:
    case FTR_OP_mul:
    case FTR_OP_div:
    case FTR_OP_maximum:
    case FTR_OP_minimum:
    case FTR_OP_neg:
    case FTR_OP_abs:
    case FTR_OP_relu:
    case FTR_OP_sign: return true;
    default: return false;
    }
}

static void ftr__pointwise_constants(const ftr_kernel_call *call, ftr__pointwise *p) {
    switch (call->op) {
    case FTR_OP_gelu:
    case FTR_OP_gelu_grad: p->exact = call->attr->gelu.form == FTR_GELU_EXACT; break;
    case FTR_OP_clamp:
    case FTR_OP_clamp_grad:
    case FTR_OP_leaky_relu:
    case FTR_OP_leaky_relu_grad:
    case FTR_OP_elu:
    case FTR_OP_elu_grad:
    case FTR_OP_softplus:
    case FTR_OP_softplus_grad:
        p->a = static_cast<float>(call->attr->pointwise.a);
        p->b = static_cast<float>(call->attr->pointwise.b);
        break;
    default: break;
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_pointwise(const ftr_kernel_call *call) {
    ftr__pointwise p = ftr__pointwise_plan(call);
    ftr__pointwise_constants(call, &p);
    const ftr_dtype dtype = call->in[0].dtype;
    const bool real = ftr__cuda_is_real(dtype);
    const unsigned blocks = ftr__cuda_blocks(p.count);
    if (ftr__pointwise_compares(call->op))
        return FTR_LAUNCH(call, ftr__pointwise_compare, blocks, FTR__CUDA_THREADS, p, real);
    if (!real && ftr__pointwise_has_integers(call->op) && (dtype == FTR_I32 || dtype == FTR_I64))
        return FTR_LAUNCH(call, ftr__pointwise_integer, blocks, FTR__CUDA_THREADS, p);
    if (!real || !ftr__pointwise_is_flat(&p)) {
        if (!real)
            return ftr_backend_error(call, FTR_ERROR_UNSUPPORTED, "the cuda backend has no kernel for %s",
                                     ftr_dtype_name(dtype));
        return FTR_LAUNCH(call, ftr__pointwise_real, blocks, FTR__CUDA_THREADS, p);
    }
    return ftr__for_real(call, dtype, [&](auto tag) {
        using T = decltype(tag);
        const int64_t packs = p.count / (int64_t)(16 / sizeof(T));
        return FTR_LAUNCH(call, (ftr__pointwise_packs<T>), ftr__cuda_blocks(p.count ? packs + 1 : 0), FTR__CUDA_THREADS, p);
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_where(const ftr_kernel_call *call) {
    const ftr__pointwise p = ftr__pointwise_plan(call);
    return FTR_LAUNCH(call, ftr__pointwise_where, ftr__cuda_blocks(p.count), FTR__CUDA_THREADS, p,
                      ftr__cuda_is_real(p.out_dtype));
}

FTR__CUDA_LIB ftr_status ftr__cuda_cast(const ftr_kernel_call *call) {
    const ftr__pointwise p = ftr__pointwise_plan(call);
    return FTR_LAUNCH(call, ftr__pointwise_cast, ftr__cuda_blocks(p.count), FTR__CUDA_THREADS, p,
                      ftr__cuda_is_real(p.in[0].dtype), ftr__cuda_is_real(p.out_dtype));
}

FTR__CUDA_LIB ftr_status ftr__cuda_same_bits(const ftr_kernel_call *call) {
    return ftr__cuda_copy(call, call->out[0].data, call->in[0].data,
                          static_cast<size_t>(call->out[0].count) * ftr_dtype_size(call->out[0].dtype));
}
