/* A double of cuBLASLt: what the backend uses of it, computed by loops when the stream gets there.
 *
 * Rules that are checked beside the calls' own: descriptors and the handle are live; attributes have their sizes; types and
 * compute type are a combination that the library has; matrices are stored by columns, their sizes are positive and agree, the
 * leading dimension holds a column, batch counts are equal, the result's matrices do not overlap each other or what is read;
 * a bias pointer is given where the epilogue adds one and only there; the algorithm is one that the heuristic gave for just
 * this product; pointers have the alignment that the heuristic was told of (256 bytes if it was not), the bias that of the
 * pointer it saw; the workspace is as large as the algorithm wants. The workspace is overwritten, so that two products that
 * share it out of order differ.
 *
 * Reduction schemes but "none" and "compute type" give what they may give at worst: in place, parts in a random order; output
 * type, parts that are rounded.
 *
 * It knows no algorithm for f16 and bf16 in rows of an odd length, unlike the library: so that callers need another way. */
#include "doubles.h"
#include "emulator.h"

#include <cublasLt.h>

#include <algorithm>
#include <climits>
#include <map>
#include <mutex>
#include <set>
#include <vector>

using ftr_emu::report;

namespace {

const size_t least_workspace = 4096; /* of a product that is split */
const int64_t split_from = 64;       /* of k */

struct description {
    int32_t compute, scale, pointers = CUBLASLT_POINTER_MODE_HOST, transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
    uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    const void *bias = nullptr;
};

struct layout {
    uint32_t type;
    int32_t order = CUBLASLT_ORDER_COL;
    uint64_t rows, columns;
    int64_t ld;
    int32_t count = 1;
    int64_t step = 0;
};

struct preference {
    uint64_t workspace = 0;
    uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_MASK;
    uint32_t alignment[4] = {256, 256, 256, 256}; /* a, b, c, d */
};

/* What an algorithm is for. */
struct setting {
    description product;
    layout a, b, c, d;
    uint32_t schemes, alignment[4];
    size_t bias_alignment, workspace;
};

std::recursive_mutex lock;
std::set<const void *> handles, descriptions, layouts, preferences;
std::map<uint64_t, setting> algorithms;
uint64_t last_algorithm, state = 0x2545f4914f6cdd1du;

#define CALL(name)                                                                                                     \
    std::lock_guard<std::recursive_mutex> guard(lock);                                                                 \
    const char *const call = #name;                                                                                    \
    if (ftr_double::fails(call)) return CUBLAS_STATUS_INTERNAL_ERROR

#define REFUSE(...)                                                                                                    \
    do {                                                                                                               \
        report(__VA_ARGS__);                                                                                           \
        return CUBLAS_STATUS_INVALID_VALUE;                                                                            \
    } while (0)

template <typename T> cublasStatus_t make(std::set<const void *> &all, void **out, const T &value) {
    *out = new T(value);
    all.insert(*out);
    ftr_double::made();
    return CUBLAS_STATUS_SUCCESS;
}

template <typename T> cublasStatus_t destroy(const char *call, std::set<const void *> &all, void *object) {
    if (!all.erase(object)) REFUSE("%s: nothing, or destroyed before", call);
    delete static_cast<T *>(object);
    ftr_double::gone();
    return CUBLAS_STATUS_SUCCESS;
}

template <typename T> bool set(T &to, const void *from, size_t size) {
    if (!from || size != sizeof to) return false;
    memcpy(&to, from, sizeof to);
    return true;
}

bool has_bias(const description &p) { return p.epilogue & CUBLASLT_EPILOGUE_BIAS; }

size_t size_of(uint32_t type) { return type == CUDA_R_32F ? 4 : 2; }

size_t alignment_of(const void *pointer) {
    const uintptr_t bits = (uintptr_t)pointer | 256;
    return bits & (0 - bits);
}

/* Bytes from the first element to behind the last one. */
size_t extent(const layout &x) {
    return size_of(x.type) * ((size_t)(x.count - 1) * (size_t)x.step + (size_t)x.ld * (x.columns - 1) + x.rows);
}

bool same(const layout &x, const layout &y) {
    return x.type == y.type && x.order == y.order && x.rows == y.rows && x.columns == y.columns && x.ld == y.ld &&
           x.count == y.count && x.step == y.step;
}

bool same(const description &x, const description &y) {
    return x.compute == y.compute && x.scale == y.scale && x.pointers == y.pointers && x.transpose_a == y.transpose_a &&
           x.transpose_b == y.transpose_b && x.epilogue == y.epilogue;
}

cublasStatus_t check_layout(const char *call, const char *name, const layout &x, const layout &d) {
    if (x.order != CUBLASLT_ORDER_COL) REFUSE("%s: %s: the double knows matrices by columns alone", call, name);
    if (x.rows < 1 || x.columns < 1) REFUSE("%s: %s is empty", call, name);
    if (x.rows > INT_MAX || x.columns > INT_MAX) REFUSE("%s: %s has more than 2^31 - 1 rows or columns", call, name);
    if (x.ld < 0 || (uint64_t)x.ld < x.rows)
        REFUSE("%s: %s: leading dimension %lld, %llu rows", call, name, (long long)x.ld, (unsigned long long)x.rows);
    if (x.count < 1 || x.count != d.count)
        REFUSE("%s: %s has a batch of %d, D one of %d", call, name, x.count, d.count);
    if (x.step < 0) REFUSE("%s: %s: a negative step", call, name);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_types(const char *call, const setting &s) {
    const uint32_t type = s.a.type;
    const bool half = type == CUDA_R_16F || type == CUDA_R_16BF;
    if (type != CUDA_R_32F && !half) REFUSE("%s: the double does not know type %d of A", call, (int)type);
    if (s.b.type != type) REFUSE("%s: A has type %d, B %d", call, (int)type, (int)s.b.type);
    if (s.c.type != s.d.type || (s.d.type != type && s.d.type != CUDA_R_32F))
        REFUSE("%s: A has type %d, C %d, D %d", call, (int)type, (int)s.c.type, (int)s.d.type);
    if (s.product.compute != CUBLAS_COMPUTE_32F && (half || s.product.compute != CUBLAS_COMPUTE_32F_FAST_TF32))
        REFUSE("%s: compute type %d for type %d", call, s.product.compute, (int)type);
    if (s.product.scale != CUDA_R_32F) REFUSE("%s: scale type %d, expected f32", call, s.product.scale);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_product(const char *call, const setting &s) {
    cublasStatus_t status = check_types(call, s);
    if (!status) status = check_layout(call, "A", s.a, s.d);
    if (!status) status = check_layout(call, "B", s.b, s.d);
    if (!status) status = check_layout(call, "C", s.c, s.d);
    if (!status) status = check_layout(call, "D", s.d, s.d);
    if (status) return status;
    const bool ta = s.product.transpose_a == CUBLAS_OP_T, tb = s.product.transpose_b == CUBLAS_OP_T;
    if ((ta ? s.a.columns : s.a.rows) != s.d.rows || (tb ? s.b.rows : s.b.columns) != s.d.columns ||
        (ta ? s.a.rows : s.a.columns) != (tb ? s.b.columns : s.b.rows) || s.c.rows != s.d.rows ||
        s.c.columns != s.d.columns)
        REFUSE("%s: the matrices' sizes do not agree", call);
    layout one = s.d;
    one.count = 1;
    if (s.d.count > 1 && (size_t)s.d.step * size_of(s.d.type) < extent(one)) REFUSE("%s: matrices of D overlap", call);
    switch (s.product.epilogue) {
    case CUBLASLT_EPILOGUE_DEFAULT:
    case CUBLASLT_EPILOGUE_RELU:
    case CUBLASLT_EPILOGUE_BIAS:
    case CUBLASLT_EPILOGUE_RELU_BIAS: break;
    default: REFUSE("%s: the double does not know epilogue %u", call, s.product.epilogue);
    }
    if (has_bias(s.product) != (s.product.bias != nullptr))
        REFUSE("%s: %s", call,
               has_bias(s.product) ? "an epilogue with a bias, no pointer to one" : "a bias that no epilogue adds");
    if (s.product.pointers != CUBLASLT_POINTER_MODE_HOST)
        REFUSE("%s: the double knows alpha and beta of the host alone", call);
    return CUBLAS_STATUS_SUCCESS;
}

/* False: the double has no algorithm. */
bool knows(const setting &s) {
    const auto odd = [](const layout &x) { return size_of(x.type) == 2 && x.ld % 2 != 0; };
    return !odd(s.a) && !odd(s.b) && !odd(s.c) && !odd(s.d);
}

/* ------------------------------------------------------------------------------------------------------ computation -- */

float load(const void *data, uint32_t type, size_t i) {
    if (type == CUDA_R_32F) return ((const float *)data)[i];
    if (type == CUDA_R_16F) return __half2float(((const __half *)data)[i]);
    return __bfloat162float(((const __nv_bfloat16 *)data)[i]);
}

void store(void *data, uint32_t type, size_t i, float x) {
    if (type == CUDA_R_32F)
        ((float *)data)[i] = x;
    else if (type == CUDA_R_16F)
        ((__half *)data)[i] = __float2half_rn(x);
    else
        ((__nv_bfloat16 *)data)[i] = __float2bfloat16_rn(x);
}

float rounded(uint32_t type, float x) {
    float room;
    store(&room, type, 0, x);
    return load(&room, type, 0);
}

/* To the 10 bits that tensor cores take of an f32. */
float to_tf32(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7f800000u) == 0x7f800000u) return x;
    bits = (bits + 0xfffu + (bits >> 13 & 1u)) & ~0x1fffu;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* op(X) of a matrix of the batch, by rows. */
std::vector<float> values(const layout &x, const void *data, int32_t index, bool transpose, bool tf32) {
    const size_t rows = transpose ? x.columns : x.rows, columns = transpose ? x.rows : x.columns;
    std::vector<float> out(rows * columns);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++) {
            const size_t at = transpose ? i * (size_t)x.ld + j : j * (size_t)x.ld + i;
            const float value = load(data, x.type, (size_t)index * (size_t)x.step + at);
            out[i * columns + j] = tf32 ? to_tf32(value) : value;
        }
    return out;
}

void add_part(const std::vector<float> &a, const std::vector<float> &b, size_t n, size_t k, size_t i, size_t begin,
              size_t end, std::vector<float> &sums) {
    for (size_t l = begin; l < end; l++) {
        const float x = a[i * k + l];
        for (size_t j = 0; j < n; j++) sums[j] += x * b[l * n + j];
    }
}

/* A row of the product, in two parts if k is long. */
std::vector<float> row_of(const setting &s, const std::vector<float> &a, const std::vector<float> &b, size_t n,
                          size_t k, size_t i, bool swap) {
    std::vector<float> sums(n), more(n);
    if ((int64_t)k < split_from) {
        add_part(a, b, n, k, i, 0, k, sums);
        return sums;
    }
    const bool in_place = s.schemes & CUBLASLT_REDUCTION_SCHEME_INPLACE,
               by_output = s.schemes & CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
    if (in_place && swap) { /* one part goes on where the other ended */
        add_part(a, b, n, k, i, k / 2, k, sums);
        add_part(a, b, n, k, i, 0, k / 2, sums);
        return sums;
    }
    add_part(a, b, n, k, i, 0, k / 2, sums);
    if (in_place) {
        add_part(a, b, n, k, i, k / 2, k, sums);
        return sums;
    }
    add_part(a, b, n, k, i, k / 2, k, more);
    for (size_t j = 0; j < n; j++)
        sums[j] = by_output ? rounded(s.d.type, sums[j]) + rounded(s.d.type, more[j]) : sums[j] + more[j];
    return sums;
}

struct operands {
    float alpha, beta;
    const void *a, *b, *c;
    void *d, *workspace;
};

void compute_one(const setting &s, const operands &o, int32_t index, bool swap) {
    const bool tf32 = s.product.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    const bool ta = s.product.transpose_a == CUBLAS_OP_T, tb = s.product.transpose_b == CUBLAS_OP_T;
    const std::vector<float> a = values(s.a, o.a, index, ta, tf32), b = values(s.b, o.b, index, tb, tf32);
    const size_t n = s.d.columns, k = ta ? s.a.rows : s.a.columns;
    for (size_t i = 0; i < s.d.rows; i++) {
        const std::vector<float> sums = row_of(s, a, b, n, k, i, swap);
        for (size_t j = 0; j < n; j++) {
            float value = o.alpha * sums[j];
            if (o.beta != 0.0f)
                value += o.beta * load(o.c, s.c.type, (size_t)index * (size_t)s.c.step + j * (size_t)s.c.ld + i);
            if (has_bias(s.product)) value += load(s.product.bias, s.d.type, i);
            if ((s.product.epilogue & CUBLASLT_EPILOGUE_RELU) && value < 0.0f) value = 0.0f;
            const size_t at = (size_t)index * (size_t)s.d.step + j * (size_t)s.d.ld + i;
            store(o.d, s.d.type, at, value);
        }
    }
    for (size_t j = 0; j < n; j++)
        ftr_emu::memory_written((char *)o.d +
                                    size_of(s.d.type) * ((size_t)index * (size_t)s.d.step + j * (size_t)s.d.ld),
                                size_of(s.d.type) * s.d.rows);
}

void check_apart(const char *what, const void *x, size_t x_bytes, const void *d, size_t d_bytes) {
    if ((const char *)x < (const char *)d + d_bytes && (const char *)d < (const char *)x + x_bytes)
        report("cublasLtMatmul: D and %s overlap", what);
}

void compute(const setting &s, const operands &o) {
    const int faults = ftr_emu::reports();
    const size_t bias = has_bias(s.product) ? size_of(s.d.type) * s.d.rows : 0;
    ftr_double::check_memory("cublasLtMatmul", "A", o.a, extent(s.a), s.alignment[0]);
    ftr_double::check_memory("cublasLtMatmul", "B", o.b, extent(s.b), s.alignment[1]);
    ftr_double::check_memory("cublasLtMatmul", "C", o.c, extent(s.c), s.alignment[2]);
    ftr_double::check_memory("cublasLtMatmul", "D", o.d, extent(s.d), s.alignment[3]);
    if (bias) ftr_double::check_memory("cublasLtMatmul", "the bias", s.product.bias, bias, s.bias_alignment);
    if (s.workspace) ftr_double::check_memory("cublasLtMatmul", "the workspace", o.workspace, s.workspace, 256);
    check_apart("A", o.a, extent(s.a), o.d, extent(s.d));
    check_apart("B", o.b, extent(s.b), o.d, extent(s.d));
    check_apart("the bias", s.product.bias, bias, o.d, extent(s.d));
    check_apart("the workspace", o.workspace, s.workspace, o.d, extent(s.d));
    if (o.c != o.d) check_apart("C", o.c, extent(s.c), o.d, extent(s.d));
    if (ftr_emu::reports() != faults) return;
    if (s.workspace) memset(o.workspace, 0xfb, s.workspace);
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    for (int32_t i = 0; i < s.d.count; i++) compute_one(s, o, i, state & 1);
}

cublasStatus_t gather(const char *call, cublasLtHandle_t handle, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
                      cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, setting &s) {
    if (!handles.count(handle)) REFUSE("%s: no handle, or one that was destroyed", call);
    if (!descriptions.count(product)) REFUSE("%s: no description, or one that was destroyed", call);
    for (const void *x : {a, b, c, d})
        if (!layouts.count(x)) REFUSE("%s: no layout, or one that was destroyed", call);
    s.product = *reinterpret_cast<const description *>(product);
    s.a = *reinterpret_cast<const layout *>(a);
    s.b = *reinterpret_cast<const layout *>(b);
    s.c = *reinterpret_cast<const layout *>(c);
    s.d = *reinterpret_cast<const layout *>(d);
    return check_product(call, s);
}

} // namespace

/* -------------------------------------------------------------------------------------------------------- the library -- */

extern "C" {

const char *CUBLASWINAPI cublasLtGetStatusName(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_INTERNAL_ERROR: return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "another status";
    }
}

const char *CUBLASWINAPI cublasLtGetStatusString(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "success";
    case CUBLAS_STATUS_INVALID_VALUE: return "an invalid value was passed";
    case CUBLAS_STATUS_INTERNAL_ERROR: return "an internal operation failed";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "not supported";
    default: return "another status";
    }
}

cublasStatus_t CUBLASWINAPI cublasLtCreate(cublasLtHandle_t *handle) {
    CALL(cublasLtCreate);
    void *made = nullptr;
    const cublasStatus_t status = make(handles, &made, 0);
    *handle = static_cast<cublasLtHandle_t>(made);
    return status;
}

cublasStatus_t CUBLASWINAPI cublasLtDestroy(cublasLtHandle_t handle) {
    CALL(cublasLtDestroy);
    return destroy<int>(call, handles, handle);
}

cublasStatus_t CUBLASWINAPI cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *product, cublasComputeType_t compute,
                                                     cudaDataType_t scale) {
    CALL(cublasLtMatmulDescCreate);
    description made;
    made.compute = compute;
    made.scale = scale;
    return make(descriptions, reinterpret_cast<void **>(product), made);
}

cublasStatus_t CUBLASWINAPI cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) {
    CALL(cublasLtMatmulDescDestroy);
    return destroy<description>(call, descriptions, product);
}

cublasStatus_t CUBLASWINAPI cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product,
                                                           cublasLtMatmulDescAttributes_t attribute, const void *from,
                                                           size_t size) {
    CALL(cublasLtMatmulDescSetAttribute);
    if (!descriptions.count(product)) REFUSE("%s: no description, or one that was destroyed", call);
    description &p = *reinterpret_cast<description *>(product);
    bool fits = false;
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: fits = set(p.transpose_a, from, size); break;
    case CUBLASLT_MATMUL_DESC_TRANSB: fits = set(p.transpose_b, from, size); break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE: fits = set(p.epilogue, from, size); break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: fits = set(p.bias, from, size); break;
    case CUBLASLT_MATMUL_DESC_POINTER_MODE: fits = set(p.pointers, from, size); break;
    default: REFUSE("%s: the double does not know attribute %d", call, (int)attribute);
    }
    if (!fits) REFUSE("%s: %zu bytes for attribute %d", call, size, (int)attribute);
    for (int32_t operation : {p.transpose_a, p.transpose_b})
        if (operation != CUBLAS_OP_N && operation != CUBLAS_OP_T) REFUSE("%s: operation %d", call, operation);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CUBLASWINAPI cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *matrix, cudaDataType type, uint64_t rows,
                                                       uint64_t columns, int64_t ld) {
    CALL(cublasLtMatrixLayoutCreate);
    layout made;
    made.type = type;
    made.rows = rows;
    made.columns = columns;
    made.ld = ld;
    return make(layouts, reinterpret_cast<void **>(matrix), made);
}

cublasStatus_t CUBLASWINAPI cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t matrix) {
    CALL(cublasLtMatrixLayoutDestroy);
    return destroy<layout>(call, layouts, matrix);
}

cublasStatus_t CUBLASWINAPI cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t matrix,
                                                             cublasLtMatrixLayoutAttribute_t attribute,
                                                             const void *from, size_t size) {
    CALL(cublasLtMatrixLayoutSetAttribute);
    if (!layouts.count(matrix)) REFUSE("%s: no layout, or one that was destroyed", call);
    layout &x = *reinterpret_cast<layout *>(matrix);
    bool fits = false;
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_ORDER: fits = set(x.order, from, size); break;
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: fits = set(x.count, from, size); break;
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: fits = set(x.step, from, size); break;
    default: REFUSE("%s: the double does not know attribute %d", call, (int)attribute);
    }
    if (!fits) REFUSE("%s: %zu bytes for attribute %d", call, size, (int)attribute);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CUBLASWINAPI cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *made) {
    CALL(cublasLtMatmulPreferenceCreate);
    return make(preferences, reinterpret_cast<void **>(made), preference());
}

cublasStatus_t CUBLASWINAPI cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t object) {
    CALL(cublasLtMatmulPreferenceDestroy);
    return destroy<preference>(call, preferences, object);
}

cublasStatus_t CUBLASWINAPI cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t object,
                                                                 cublasLtMatmulPreferenceAttributes_t attribute,
                                                                 const void *from, size_t size) {
    CALL(cublasLtMatmulPreferenceSetAttribute);
    if (!preferences.count(object)) REFUSE("%s: no preference, or one that was destroyed", call);
    preference &p = *reinterpret_cast<preference *>(object);
    bool fits = false;
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: fits = set(p.workspace, from, size); break;
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: fits = set(p.schemes, from, size); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: fits = set(p.alignment[0], from, size); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: fits = set(p.alignment[1], from, size); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: fits = set(p.alignment[2], from, size); break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: fits = set(p.alignment[3], from, size); break;
    default: REFUSE("%s: the double does not know attribute %d", call, (int)attribute);
    }
    if (!fits) REFUSE("%s: %zu bytes for attribute %d", call, size, (int)attribute);
    if (p.schemes & ~(uint32_t)CUBLASLT_REDUCTION_SCHEME_MASK) REFUSE("%s: reduction schemes %u", call, p.schemes);
    for (uint32_t alignment : p.alignment)
        if (alignment < 1 || (alignment & (alignment - 1)))
            REFUSE("%s: alignment %u, expected a power of two", call, alignment);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CUBLASWINAPI cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t product,
                                                           cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                                           cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                                           cublasLtMatmulPreference_t wanted, int most,
                                                           cublasLtMatmulHeuristicResult_t results[], int *found) {
    CALL(cublasLtMatmulAlgoGetHeuristic);
    setting s;
    *found = 0;
    if (most < 1) REFUSE("%s: %d algorithms asked for", call, most);
    if (!preferences.count(wanted)) REFUSE("%s: no preference, or one that was destroyed", call);
    const cublasStatus_t status = gather(call, handle, product, a, b, c, d, s);
    if (status) return status;
    if (!knows(s)) return CUBLAS_STATUS_NOT_SUPPORTED;
    const preference &p = *reinterpret_cast<const preference *>(wanted);
    const uint64_t k = s.product.transpose_a == CUBLAS_OP_T ? s.a.rows : s.a.columns;
    s.schemes = (int64_t)k >= split_from && p.workspace >= least_workspace ? p.schemes
                                                                           : (uint32_t)CUBLASLT_REDUCTION_SCHEME_NONE;
    s.workspace = s.schemes ? least_workspace : 0;
    memcpy(s.alignment, p.alignment, sizeof s.alignment);
    s.bias_alignment = alignment_of(s.product.bias);
    algorithms[++last_algorithm] = s;
    memset(&results[0], 0, sizeof results[0]);
    results[0].algo.data[0] = last_algorithm;
    results[0].workspaceSize = s.workspace;
    results[0].state = CUBLAS_STATUS_SUCCESS;
    results[0].wavesCount = 1.0f;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CUBLASWINAPI cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t product, const void *alpha,
                                           const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                                           cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                                           cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,
                                           const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                                           size_t workspace_size, cudaStream_t stream) {
    CALL(cublasLtMatmul);
    setting s;
    const cublasStatus_t status = gather(call, handle, product, a_layout, b_layout, c_layout, d_layout, s);
    if (status) return status;
    const auto known = algorithm ? algorithms.find(algorithm->data[0]) : algorithms.end();
    if (known == algorithms.end()) REFUSE("%s: an algorithm that is not the heuristic's", call);
    const setting &asked = known->second;
    if (!same(asked.product, s.product) || !same(asked.a, s.a) || !same(asked.b, s.b) || !same(asked.c, s.c) ||
        !same(asked.d, s.d))
        REFUSE("%s: the algorithm is for another product", call);
    if (workspace_size < asked.workspace)
        REFUSE("%s: %zu bytes of workspace, the algorithm needs %zu", call, workspace_size, asked.workspace);
    if (!alpha || !beta || ftr_emu::memory_holds(alpha, sizeof(float)) || ftr_emu::memory_holds(beta, sizeof(float)))
        REFUSE("%s: alpha and beta are to be the host's", call);
    operands o = {0, 0, a, b, c, d, workspace};
    memcpy(&o.alpha, alpha, sizeof o.alpha);
    memcpy(&o.beta, beta, sizeof o.beta);
    if (c == d && !same(s.c, s.d)) REFUSE("%s: C is D, but lies differently", call);
    const void *bias = s.product.bias;
    s = asked;
    s.product.bias = bias;
    return ftr_double::put(stream, call, [s, o]() { compute(s, o); }) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                                     : CUBLAS_STATUS_EXECUTION_FAILED;
}
}
