#include "tensor/tensor.h"

#include <string.h>

bool ftr__is_half(ftr_dtype dtype) { return dtype == FTR_F16 || dtype == FTR_BF16; }

bool ftr__is_wide(ftr_dtype dtype) { return dtype == FTR_F32 || dtype == FTR_F64; }

bool ftr__is_float(ftr_dtype dtype) { return ftr__is_wide(dtype) || ftr__is_half(dtype); }

ftr_dtype ftr__wide_type(ftr_dtype dtype) { return ftr__is_half(dtype) ? FTR_F32 : dtype; }

size_t ftr_dtype_size(ftr_dtype dtype) {
    switch (dtype) {
    case FTR_F32:
    case FTR_I32: return 4;
    case FTR_F64:
    case FTR_I64: return 8;
    case FTR_U8:
    case FTR_BOOL: return 1;
    case FTR_F16:
    case FTR_BF16: return 2;
    case FTR_DTYPE_NONE:
    case FTR_DTYPE_COUNT: break;
    }
    return 0;
}

const char *ftr_dtype_name(ftr_dtype dtype) {
    switch (dtype) {
    case FTR_F32: return "f32";
    case FTR_F64: return "f64";
    case FTR_I32: return "i32";
    case FTR_I64: return "i64";
    case FTR_U8: return "u8";
    case FTR_BOOL: return "bool";
    case FTR_F16: return "f16";
    case FTR_BF16: return "bf16";
    case FTR_DTYPE_NONE:
    case FTR_DTYPE_COUNT: break;
    }
    return "none";
}

/* --------------------------------------------------------------------------------------------------- half types -- */

/* A binary format of 16 bits: a sign, exponents, fraction. */
typedef struct ftr__half_format {
    int32_t fraction, bias; /* bits; what is added to the exponent */
} ftr__half_format;

static ftr__half_format ftr__half_format_of(ftr_dtype dtype) {
    return dtype == FTR_F16 ? (ftr__half_format){10, 15} : (ftr__half_format){7, 127};
}

uint16_t ftr__half_bits(ftr_dtype dtype, double value) {
    const ftr__half_format format = ftr__half_format_of(dtype);
    const uint64_t infinity = (2u * (uint64_t)format.bias + 1u) << format.fraction;
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint64_t sign = bits >> 63 << 15, fraction = bits & UINT64_C(0xfffffffffffff);
    const int32_t exponent = (int32_t)(bits >> 52 & 0x7ff) - 1023, least = 1 - format.bias;
    if (exponent == 1024) {
        const uint64_t payload =
            fraction ? fraction >> (52 - format.fraction) | UINT64_C(1) << (format.fraction - 1) : 0;
        return (uint16_t)(sign | infinity | payload);
    }
    /* Bits that are dropped of 1.fraction; below the normal range more of them. Beyond 53 nothing is left to round. */
    const int32_t drop = 52 - format.fraction + (exponent < least ? least - exponent : 0);
    if (exponent == -1023 || drop > 53) return (uint16_t)sign;
    const uint64_t significand = fraction | UINT64_C(1) << 52, half = UINT64_C(1) << (drop - 1);
    const uint64_t kept = significand >> drop, rest = significand & (2u * half - 1u);
    const uint64_t rounded = kept + (rest > half || (rest == half && (kept & 1u)) ? 1u : 0u);
    /* The leading 1 of the significand adds 1 to the exponent, and so does a carry. */
    const uint64_t result =
        exponent < least ? rounded : rounded + ((uint64_t)(exponent + format.bias - 1) << format.fraction);
    return (uint16_t)(sign | (result < infinity ? result : infinity));
}

static float ftr__float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

float ftr__half_value(ftr_dtype dtype, uint16_t bits) {
    if (dtype == FTR_BF16) return ftr__float_of_bits((uint32_t)bits << 16);
    const uint32_t sign = (uint32_t)bits >> 15 << 31, exponent = (uint32_t)bits >> 10 & 0x1fu;
    const uint32_t fraction = (uint32_t)bits & 0x3ffu;
    if (exponent == 0x1f) return ftr__float_of_bits(sign | 0x7f800000u | (fraction ? 0x400000u | fraction << 13 : 0u));
    if (exponent != 0) return ftr__float_of_bits(sign | (exponent + (127 - 15)) << 23 | fraction << 13);
    const float size = (float)fraction * 0x1p-24f;
    return sign ? -size : size;
}

/* ------------------------------------------------------------------------------------------------------ elements -- */

double ftr__element(ftr_dtype dtype, const void *data, int64_t index) {
    const unsigned char *at = (const unsigned char *)data + (size_t)index * ftr_dtype_size(dtype);
    union {
        float f32;
        double f64;
        int32_t i32;
        int64_t i64;
        uint16_t half;
    } value = {0};
    if (ftr_dtype_size(dtype) > 1) memcpy(&value, at, ftr_dtype_size(dtype));
    switch (dtype) {
    case FTR_F32: return (double)value.f32;
    case FTR_F64: return value.f64;
    case FTR_I32: return (double)value.i32;
    case FTR_I64: return (double)value.i64;
    case FTR_U8:
    case FTR_BOOL: return (double)*at;
    case FTR_F16:
    case FTR_BF16: return (double)ftr__half_value(dtype, value.half);
    case FTR_DTYPE_NONE:
    case FTR_DTYPE_COUNT: break;
    }
    return 0.0;
}

void ftr__set_element(ftr_dtype dtype, void *data, int64_t index, double value) {
    switch (dtype) {
    case FTR_F32: ((float *)data)[index] = (float)value; break;
    case FTR_F64: ((double *)data)[index] = value; break;
    case FTR_I32: ((int32_t *)data)[index] = (int32_t)value; break;
    case FTR_I64: ((int64_t *)data)[index] = (int64_t)value; break;
    case FTR_U8: ((uint8_t *)data)[index] = (uint8_t)value; break;
    case FTR_BOOL: ((uint8_t *)data)[index] = value != 0.0; break;
    case FTR_F16:
    case FTR_BF16: ((uint16_t *)data)[index] = ftr__half_bits(dtype, value); break;
    case FTR_DTYPE_NONE:
    case FTR_DTYPE_COUNT: break;
    }
}

/* Truncates toward 0, saturates, NaN gives 0. The largest i64 is no double, its successor 2^63 is. */
static int64_t ftr__whole_number(ftr_dtype dtype, double x) {
    const double low = dtype == FTR_I64 ? -0x1p63 : dtype == FTR_I32 ? -0x1p31 : 0.0;
    const double high = dtype == FTR_I64 ? 0x1p63 : dtype == FTR_I32 ? 0x1p31 : 256.0;
    if (x != x) return 0;
    if (x >= high) return dtype == FTR_I64 ? INT64_MAX : (int64_t)high - 1;
    return x <= low ? (dtype == FTR_I64 ? INT64_MIN : (int64_t)low) : (int64_t)x;
}

/* Keeps the low bits. */
static void ftr__set_integer(ftr_dtype dtype, void *data, int64_t index, int64_t value) {
    switch (dtype) {
    case FTR_I32: ((int32_t *)data)[index] = (int32_t)(uint32_t)(uint64_t)value; break;
    case FTR_I64: ((int64_t *)data)[index] = value; break;
    case FTR_U8: ((uint8_t *)data)[index] = (uint8_t)(uint64_t)value; break;
    default: ((uint8_t *)data)[index] = value != 0; break;
    }
}

static void ftr__convert_integer(ftr_dtype from, const void *data, ftr_dtype to, void *result, int64_t index) {
    const int64_t value = from == FTR_I64 ? ((const int64_t *)data)[index] : (int64_t)ftr__element(from, data, index);
    if (!ftr__is_float(to))
        ftr__set_integer(to, result, index, value);
    else
        ftr__set_element(to, result, index, to == FTR_F64 ? (double)value : (double)(float)value);
}

static void ftr__convert_float(ftr_dtype from, const void *data, ftr_dtype to, void *result, int64_t index) {
    const double value = ftr__element(from, data, index);
    if (ftr__is_float(to))
        ftr__set_element(to, result, index, value);
    else
        ftr__set_integer(to, result, index, to == FTR_BOOL ? value != 0.0 : ftr__whole_number(to, value));
}

bool ftr_convert(ftr_dtype from, const void *data, ftr_dtype to, void *result, int64_t count) {
    if (ftr_dtype_size(from) == 0 || ftr_dtype_size(to) == 0) return false;
    for (int64_t i = 0; i < count; i++) {
        if (ftr__is_half(from) && to == FTR_F32) /* not through a double, which would change NaNs */
            ((float *)result)[i] = ftr__half_value(from, ((const uint16_t *)data)[i]);
        else if (ftr__is_float(from))
            ftr__convert_float(from, data, to, result, i);
        else
            ftr__convert_integer(from, data, to, result, i);
    }
    return true;
}

/* -------------------------------------------------------------------------------------------------------- shapes -- */

ftr_shape ftr_scalar_shape(void) {
    const ftr_shape scalar = {0, {0}};
    return scalar;
}

int64_t ftr_shape_count(const ftr_shape *shape) {
    if (shape->rank < 0 || shape->rank > FTR_MAX_RANK) return -1;
    /* 2^47 elements of 8 bytes are beyond any address space, so byte counts cannot overflow either. */
    const int64_t limit = (int64_t)1 << 47;
    int64_t count = 1;
    bool empty = false;
    for (int32_t i = 0; i < shape->rank; i++) {
        const int64_t size = shape->dim[i];
        if (size < 0) return -1;
        if (size == 0)
            empty = true;
        else if (count > limit / size)
            return -1;
        else
            count *= size;
    }
    return empty ? 0 : count;
}

bool ftr_shape_equal(const ftr_shape *a, const ftr_shape *b) {
    if (a->rank != b->rank) return false;
    for (int32_t i = 0; i < a->rank && i < FTR_MAX_RANK; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}
