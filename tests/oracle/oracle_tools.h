/* Elements and indices, for the oracle's kernels. A family in a file of its own, oracle_<family>.c, declares its kernels
 * at the end of this header; the table is in oracle.c. */
#ifndef FTR_TESTS_ORACLE_ORACLE_TOOLS_H
#define FTR_TESTS_ORACLE_ORACLE_TOOLS_H

#include "oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static inline bool is_half(ftr_dtype dtype) { return dtype == FTR_F16 || dtype == FTR_BF16; }

static inline bool is_float(ftr_dtype dtype) { return dtype == FTR_F32 || dtype == FTR_F64 || is_half(dtype); }

/* f16 has 10 bits of fraction, exponents from -14 to 15 and, with that of 31, infinities and NaNs; bf16 has 7, -126 to 127
 * and 255. The smallest exponent is also that of numbers without a leading 1. */
static inline int half_fraction(ftr_dtype dtype) { return dtype == FTR_F16 ? 10 : 7; }
static inline int half_bias(ftr_dtype dtype) { return dtype == FTR_F16 ? 15 : 127; }

/* The number that 16 bits of a half type stand for. */
static inline double half_by_definition(ftr_dtype dtype, uint16_t bits) {
    int fraction_bits = half_fraction(dtype), bias = half_bias(dtype);
    int fraction = bits & ((1 << fraction_bits) - 1), exponent = (bits & 0x7fff) >> fraction_bits;
    double sign = bits & 0x8000 ? -1 : 1;
    if (exponent == 2 * bias + 1) {
        return fraction ? NAN : sign * INFINITY;
    }
    int leading = exponent ? 1 << fraction_bits : 0;
    return sign * ldexp(leading + fraction, (exponent ? exponent : 1) - bias - fraction_bits);
}

/* The same from a table, for kernels that read millions. */
double half_to_double(ftr_dtype dtype, uint16_t bits);

/* The nearest number of a half type, ties to the even one. */
static inline double round_to_half(ftr_dtype dtype, double x) {
    int exponent, fraction_bits = half_fraction(dtype), bias = half_bias(dtype);
    if (x == 0 || !isfinite(x)) {
        return x;
    }
    frexp(x, &exponent);
    exponent = exponent - 1 < 1 - bias ? 1 - bias : exponent - 1;
    double unit = ldexp(1, exponent - fraction_bits), rounded = nearbyint(x / unit) * unit;
    double beyond = ldexp(1, bias + 1); /* what would be the next number behind the largest */
    return fabs(rounded) >= beyond ? copysign(INFINITY, x) : rounded;
}

static inline uint16_t half_bits(ftr_dtype dtype, double x) {
    int exponent, fraction_bits = half_fraction(dtype), bias = half_bias(dtype);
    uint16_t sign = signbit(x) ? 0x8000 : 0, infinity = (uint16_t)((2 * bias + 1) << fraction_bits);
    if (isnan(x)) {
        return sign | infinity | (uint16_t)(1 << (fraction_bits - 1));
    }
    double size = fabs(round_to_half(dtype, x));
    if (isinf(size)) {
        return sign | infinity;
    }
    frexp(size, &exponent);
    exponent = size == 0 || exponent - 1 < 1 - bias ? 1 - bias : exponent - 1;
    int units = (int)ldexp(size, fraction_bits - exponent); /* with the leading 1, if there is one */
    return (uint16_t)(sign | (units + ((exponent + bias - 1) << fraction_bits)));
}

/* Element i as a double; integers beyond 2^53 go through get_int(). */
static inline double get(const ftr_view *v, int64_t i) {
    switch (v->dtype) {
    case FTR_F32: return (double)((const float *)v->data)[i];
    case FTR_F64: return ((const double *)v->data)[i];
    case FTR_I32: return (double)((const int32_t *)v->data)[i];
    case FTR_I64: return (double)((const int64_t *)v->data)[i];
    case FTR_F16:
    case FTR_BF16: return half_to_double(v->dtype, ((const uint16_t *)v->data)[i]);
    default: return (double)((const uint8_t *)v->data)[i];
    }
}

static inline int64_t get_int(const ftr_view *v, int64_t i) {
    switch (v->dtype) {
    case FTR_I32: return ((const int32_t *)v->data)[i];
    case FTR_I64: return ((const int64_t *)v->data)[i];
    case FTR_U8:
    case FTR_BOOL: return ((const uint8_t *)v->data)[i];
    default: return 0;
    }
}

static inline void set(const ftr_view *v, int64_t i, double x) {
    if (v->dtype == FTR_F32) {
        ((float *)v->data)[i] = (float)x;
    } else if (is_half(v->dtype)) {
        ((uint16_t *)v->data)[i] = half_bits(v->dtype, x);
    } else {
        ((double *)v->data)[i] = x;
    }
}

/* Keeps the low bits, as a conversion in C does. */
static inline void set_int(const ftr_view *v, int64_t i, int64_t x) {
    switch (v->dtype) {
    case FTR_I32: ((int32_t *)v->data)[i] = (int32_t)(uint32_t)(uint64_t)x; break;
    case FTR_I64: ((int64_t *)v->data)[i] = x; break;
    default: ((uint8_t *)v->data)[i] = (uint8_t)(uint64_t)x; break;
    }
}

/* Element i of `from` into element j of `to`, which has the same type. */
static inline void copy_element(const ftr_view *to, int64_t j, const ftr_view *from, int64_t i) {
    size_t size = ftr_dtype_size(to->dtype);
    memcpy((char *)to->data + (size_t)j * size, (const char *)from->data + (size_t)i * size, size);
}

/* Row-major coordinates of element `index`. */
static inline void coordinates(const ftr_shape *shape, int64_t index, int64_t coord[FTR_MAX_RANK]) {
    for (int32_t d = shape->rank - 1; d >= 0; d--) {
        coord[d] = index % shape->dim[d];
        index /= shape->dim[d];
    }
}

static inline int64_t index_of(const ftr_shape *shape, const int64_t coord[FTR_MAX_RANK]) {
    int64_t index = 0;
    for (int32_t d = 0; d < shape->rank; d++) {
        index = index * shape->dim[d] + coord[d];
    }
    return index;
}

/* The element of a tensor that broadcasting puts at element `index` of a result of shape `result`. */
static inline int64_t broadcast_index(const ftr_shape *shape, const ftr_shape *result, int64_t index) {
    int64_t coord[FTR_MAX_RANK], own[FTR_MAX_RANK];
    coordinates(result, index, coord);
    for (int32_t d = 0; d < shape->rank; d++) {
        own[d] = shape->dim[d] == 1 ? 0 : coord[d + result->rank - shape->rank];
    }
    return index_of(shape, own);
}

/* Index of x[n, h, w, c] (or of a weight [o, kh, kw, c]). */
static inline int64_t at4(const ftr_shape *shape, int64_t a, int64_t b, int64_t c, int64_t d) {
    return ((a * shape->dim[1] + b) * shape->dim[2] + c) * shape->dim[3] + d;
}

/* Input i, or NULL if it is missing. */
static inline const ftr_view *optional_input(const ftr_kernel_call *call, int32_t i) {
    return i < call->in_count && call->in[i].dtype != FTR_DTYPE_NONE ? &call->in[i] : NULL;
}

static inline double activate(ftr_activation activation, double x) {
    switch (activation) {
    case FTR_ACT_RELU: return x < 0 ? 0.0 : x;
    case FTR_ACT_RELU6: return x < 0 ? 0.0 : x > 6 ? 6.0 : x;
    case FTR_ACT_HARDSWISH: return x <= -3 ? 0.0 : x >= 3 ? x : x * (x + 3) / 6;
    case FTR_ACT_SILU: return x / (1 + exp(-x));
    default: return x;
    }
}

/* Its slope at x. */
static inline double activate_slope(ftr_activation activation, double x) {
    const double s = 1 / (1 + exp(-x));
    switch (activation) {
    case FTR_ACT_RELU: return x > 0;
    case FTR_ACT_RELU6: return x > 0 && x < 6;
    case FTR_ACT_HARDSWISH: return x <= -3 ? 0.0 : x >= 3 ? 1.0 : x / 3 + 0.5;
    case FTR_ACT_SILU: return s + x * s * (1 - s);
    default: return 1.0;
    }
}

/* oracle_random.c */

/* Number `index` of the stream of (seed, purpose, key, step). */
uint32_t stream_number(uint64_t seed, uint32_t purpose, uint64_t key, uint64_t step, uint64_t index);

/* Number `index` of the dropout stream with a node's key. */
uint32_t dropout_number(const ftr_kernel_call *call, uint64_t key, uint64_t index);
ftr_status oracle_stochastic_depth(const ftr_kernel_call *call);
ftr_status oracle_random_uniform(const ftr_kernel_call *call);
ftr_status oracle_random_normal(const ftr_kernel_call *call);

/* oracle_mix.c */
size_t oracle_mix_draw_workspace(const ftr_kernel_call *call);
ftr_status oracle_mix_draw(const ftr_kernel_call *call);
ftr_status oracle_mix(const ftr_kernel_call *call);
size_t oracle_mix_grad_workspace(const ftr_kernel_call *call);
ftr_status oracle_mix_grad(const ftr_kernel_call *call);

/* oracle_attention.c */
ftr_status oracle_attention(const ftr_kernel_call *call);
ftr_status oracle_attention_grad(const ftr_kernel_call *call);
ftr_status oracle_rotary(const ftr_kernel_call *call);

/* oracle_image.c */
size_t oracle_image_workspace(const ftr_kernel_call *call);
ftr_status oracle_adaptive_avg_pool2d(const ftr_kernel_call *call);
ftr_status oracle_adaptive_avg_pool2d_grad(const ftr_kernel_call *call);
ftr_status oracle_resize2d(const ftr_kernel_call *call);
ftr_status oracle_resize2d_grad(const ftr_kernel_call *call);

/* oracle_update.c */
ftr_status oracle_ema_update(const ftr_kernel_call *call);
ftr_status oracle_count_update(const ftr_kernel_call *call);
ftr_status oracle_accumulate_update(const ftr_kernel_call *call);
ftr_status oracle_average_update(const ftr_kernel_call *call);
ftr_status oracle_swap_update(const ftr_kernel_call *call);
ftr_status oracle_sgd_update(const ftr_kernel_call *call);
ftr_status oracle_adam_update(const ftr_kernel_call *call);
ftr_status oracle_rmsprop_update(const ftr_kernel_call *call);
ftr_status oracle_adagrad_update(const ftr_kernel_call *call);
ftr_status oracle_lamb_update(const ftr_kernel_call *call);
ftr_status oracle_lars_update(const ftr_kernel_call *call);
ftr_status oracle_lion_update(const ftr_kernel_call *call);
ftr_status oracle_adafactor_update(const ftr_kernel_call *call);
ftr_status oracle_muon_update(const ftr_kernel_call *call);
ftr_status oracle_clip_scale(const ftr_kernel_call *call);

/* oracle_scaling.c */
ftr_status oracle_grad_norm(const ftr_kernel_call *call);
ftr_status oracle_scale_update(const ftr_kernel_call *call);

#endif
