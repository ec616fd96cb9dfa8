#include "tensor/tensor.h"

bool ftr__is_float(ftr_dtype dtype) { return dtype == FTR_F32 || dtype == FTR_F64; }

size_t ftr_dtype_size(ftr_dtype dtype) {
    switch (dtype) {
    case FTR_F32:
    case FTR_I32: return 4;
    case FTR_F64:
    case FTR_I64: return 8;
    case FTR_U8:
    case FTR_BOOL: return 1;
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
    case FTR_DTYPE_NONE:
    case FTR_DTYPE_COUNT: break;
    }
    return "none";
}

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
        if (size == 0) empty = true;
        else if (count > limit / size) return -1;
        else count *= size;
    }
    return empty ? 0 : count;
}

bool ftr_shape_equal(const ftr_shape *a, const ftr_shape *b) {
    if (a->rank != b->rank) return false;
    for (int32_t i = 0; i < a->rank && i < FTR_MAX_RANK; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}
