/* Matrix products: by cuBLASLt, or by tiles of our own where it has nothing.
 *
 * cuBLASLt's matrices are stored by columns. A row-major matrix is its transpose there, so what it is asked for is
 * D^T = op(B)^T op(A)^T: its A is our B, its m is our n, and its bias, one for each row, is that of our columns.
 *
 * The same bits always: the algorithm is the first of the heuristic's for sizes, types and alignment; what is split along k is
 * summed up from f32 parts in a step of its own. */
#include "backend/cuda/blas.cuh"

#include <cublasLt.h>

#include <climits>
#include <cstdlib>
#include <cstring>

/* What NVIDIA recommends (cublasSetWorkspace): 32 MiB from Hopper on, 4 MiB before; no more than 1/256 of the memory. */
#define FTR__BLAS_WORKSPACE ((size_t)32 << 20)
#define FTR__BLAS_OLD_WORKSPACE ((size_t)4 << 20)
/* Most that a pointer's alignment says to the heuristic, in bytes: tensors have it. More would let algorithms depend on where a
 * plan happens to lie. */
#define FTR__BLAS_ALIGNMENT 64
/* Multiply-adds below which one of several launches is not worth it: all of them are one launch of our tiles. */
#define FTR__BLAS_LEAST_WORK ((int64_t)1 << 22)

/* What the heuristic's answer depends on. Compared as bytes. */
struct ftr__blas_key {
    int64_t m, n, k, a_row, b_row, d_row;
    ftr__product_batch batch; /* count 1: none */
    int32_t dtype, transpose_a, transpose_b, epilogue;
    uint32_t alignment, bias_alignment; /* bytes */
};

/* Its answer, with what cublasLtMatmul() needs. */
struct ftr__blas_answer {
    ftr__blas_key key;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, d; /* ours */
    cublasLtMatmulAlgo_t algorithm;
    bool has_algorithm;
    ftr__blas_answer *next;
};

struct ftr__blas {
    cublasLtHandle_t handle;
    void *workspace; /* of the products, one after the other */
    size_t workspace_size;
    ftr__blas_answer *answers;
};

/* ---------------------------------------------------------------------------------------------------------- opening -- */

static ftr_status ftr__blas_failed(ftr_context *context, cublasStatus_t error, const char *what) {
    return ftr_backend_fail(context, FTR_ERROR_DEVICE, "cuda: %s: %s (%s)", what, cublasLtGetStatusString(error),
                            cublasLtGetStatusName(error));
}

FTR__CUDA_LIB ftr_status ftr__blas_open(ftr_context *context, ftr__cuda *cuda) {
    ftr__blas *blas = static_cast<ftr__blas *>(ftr_backend_allocate(context, sizeof *blas));
    if (!blas)
        return ftr_backend_fail(context, FTR_ERROR_OUT_OF_MEMORY, "cuda: %zu bytes could not be allocated",
                                sizeof *blas);
    *blas = {};
    cuda->blas = blas;
    const cublasStatus_t made = cublasLtCreate(&blas->handle);
    if (made != CUBLAS_STATUS_SUCCESS) return ftr__blas_failed(context, made, "cublasLtCreate");
    const size_t wanted = cuda->properties.major >= 9 ? FTR__BLAS_WORKSPACE : FTR__BLAS_OLD_WORKSPACE;
    const size_t most = cuda->properties.totalGlobalMem / 256;
    blas->workspace_size = wanted < most ? wanted : most;
    const cudaError_t error = cudaMalloc(&blas->workspace, blas->workspace_size);
    if (error == cudaSuccess) return FTR_OK;
    blas->workspace = nullptr;
    return ftr_backend_fail(context, error == cudaErrorMemoryAllocation ? FTR_ERROR_OUT_OF_MEMORY : FTR_ERROR_DEVICE,
                            "cuda: cudaMalloc of %zu bytes for the workspace of matrix products: %s (%s)",
                            blas->workspace_size, cudaGetErrorString(error), cudaGetErrorName(error));
}

static void ftr__blas_drop(ftr_context *context, ftr__blas_answer *answer) {
    if (answer->product) (void)cublasLtMatmulDescDestroy(answer->product);
    if (answer->a) (void)cublasLtMatrixLayoutDestroy(answer->a);
    if (answer->b) (void)cublasLtMatrixLayoutDestroy(answer->b);
    if (answer->d) (void)cublasLtMatrixLayoutDestroy(answer->d);
    ftr_backend_release(context, answer, sizeof *answer);
}

FTR__CUDA_LIB void ftr__blas_close(ftr_context *context, ftr__cuda *cuda) {
    ftr__blas *blas = cuda->blas;
    if (!blas) return;
    while (blas->answers) {
        ftr__blas_answer *next = blas->answers->next;
        ftr__blas_drop(context, blas->answers);
        blas->answers = next;
    }
    if (blas->workspace) (void)cudaFree(blas->workspace);
    if (blas->handle) (void)cublasLtDestroy(blas->handle);
    ftr_backend_release(context, blas, sizeof *blas);
    cuda->blas = nullptr;
}

/* ------------------------------------------------------------------------------------------------- tiles of our own -- */

/* A block has TILE x TILE elements of the result, a thread 4 x 4 of them; rows and columns of a thread are SIDE apart. */
#define FTR__TILE 64
#define FTR__TILE_SIDE 16
#define FTR__TILE_EACH (FTR__TILE / FTR__TILE_SIDE)
#define FTR__TILE_DEPTH 16
#define FTR__TILE_PITCH (FTR__TILE + 2) /* threads that store 16 lines of 2 meet no bank twice */

/* TILE lines of DEPTH elements, which begin at `line` and `k`; zeros behind the ends. `room` has a row for each k. Neighbouring
 * threads read neighbouring elements. */
template <typename T>
static __device__ __forceinline__ void ftr__tile_load(const T *from, int64_t row, bool k_together, int64_t line,
                                                      int64_t lines, int64_t k, int64_t all_k, float *room) {
    for (int e = (int)threadIdx.x; e < FTR__TILE * FTR__TILE_DEPTH; e += FTR__CUDA_THREADS) {
        const int i = k_together ? e / FTR__TILE_DEPTH : e % FTR__TILE;
        const int l = k_together ? e % FTR__TILE_DEPTH : e / FTR__TILE;
        const bool inside = line + i < lines && k + l < all_k;
        const int64_t at = k_together ? (line + i) * row + k + l : (k + l) * row + line + i;
        room[l * FTR__TILE_PITCH + i] = inside ? ftr__to_float(from[at]) : 0.0f;
    }
}

template <typename T>
static __device__ __forceinline__ void ftr__tile_store(const ftr__product &p, int64_t row, int64_t column,
                                                       int64_t d_offset, float sum) {
    if (row >= p.m || column >= p.n) return;
    const int64_t at = d_offset + row * p.d_row + column;
    float value = p.alpha * sum;
    if (p.beta != 0.0f) value += p.beta * ftr__to_float(static_cast<const T *>(p.c)[at]);
    if (p.add_bias) value += ftr__to_float(static_cast<const T *>(p.bias)[column]);
    if (p.relu && value < 0.0f) value = 0.0f;
    static_cast<T *>(p.d)[at] = ftr__from_float<T>(value);
}

template <typename T> FTR__KERNEL ftr__product_tiles(ftr__product p, int64_t across, int64_t of_matrix, int64_t tiles) {
    FTR_SHARED(float, a, FTR__TILE_DEPTH *FTR__TILE_PITCH);
    FTR_SHARED(float, b, FTR__TILE_DEPTH *FTR__TILE_PITCH);
    const int x = (int)threadIdx.x % FTR__TILE_SIDE, y = (int)threadIdx.x / FTR__TILE_SIDE;
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int64_t row = tile % of_matrix / across * FTR__TILE, column = tile % across * FTR__TILE;
        int64_t index = tile / of_matrix, a_offset = 0, b_offset = 0, d_offset = 0;
        for (int32_t i = p.batches - 1; i >= 0; i--) {
            const int64_t at = index % p.batch[i].count;
            index /= p.batch[i].count;
            a_offset += at * p.batch[i].a;
            b_offset += at * p.batch[i].b;
            d_offset += at * p.batch[i].d;
        }
        float sum[FTR__TILE_EACH][FTR__TILE_EACH] = {};
        for (int64_t k = 0; k < p.k; k += FTR__TILE_DEPTH) {
            ftr__tile_load(static_cast<const T *>(p.a) + a_offset, p.a_row, !p.transpose_a, row, p.m, k, p.k, a);
            ftr__tile_load(static_cast<const T *>(p.b) + b_offset, p.b_row, p.transpose_b, column, p.n, k, p.k, b);
            __syncthreads();
            for (int l = 0; l < FTR__TILE_DEPTH; l++) {
                for (int i = 0; i < FTR__TILE_EACH; i++) {
                    for (int j = 0; j < FTR__TILE_EACH; j++)
                        sum[i][j] += a[l * FTR__TILE_PITCH + y + i * FTR__TILE_SIDE] *
                                     b[l * FTR__TILE_PITCH + x + j * FTR__TILE_SIDE];
                }
            }
            __syncthreads();
        }
        for (int i = 0; i < FTR__TILE_EACH; i++) {
            for (int j = 0; j < FTR__TILE_EACH; j++)
                ftr__tile_store<T>(p, row + y + i * FTR__TILE_SIDE, column + x + j * FTR__TILE_SIDE, d_offset,
                                   sum[i][j]);
        }
    }
}

static int64_t ftr__product_matrices(const ftr__product *p) {
    int64_t count = 1;
    for (int32_t i = 0; i < p->batches; i++) count *= p->batch[i].count;
    return count;
}

static ftr_status ftr__product_by_tiles(const ftr_kernel_call *call, const ftr__product *p) {
    const int64_t across = (p->n + FTR__TILE - 1) / FTR__TILE, of_matrix = (p->m + FTR__TILE - 1) / FTR__TILE * across;
    const int64_t tiles = of_matrix * ftr__product_matrices(p);
    return ftr__for_real(call, p->dtype, [&](auto type) {
        return FTR_LAUNCH(call, (ftr__product_tiles<decltype(type)>), ftr__cuda_blocks(tiles, 1), FTR__CUDA_THREADS, *p,
                          across, of_matrix, tiles);
    });
}

/* ------------------------------------------------------------------------------------------------------- cuBLASLt -- */

static size_t ftr__blas_size(ftr_dtype dtype) { return dtype == FTR_F32 ? 4 : 2; }

static cudaDataType_t ftr__blas_type(int32_t dtype) {
    return dtype == FTR_F32 ? CUDA_R_32F : dtype == FTR_F16 ? CUDA_R_16F : CUDA_R_16BF;
}

/* The largest power of two, up to FTR__BLAS_ALIGNMENT, that divides the pointer and how far it is moved. */
static uint32_t ftr__blas_alignment(const void *pointer, uint64_t moved) {
    const uint64_t bits = reinterpret_cast<uintptr_t>(pointer) | moved | FTR__BLAS_ALIGNMENT;
    return static_cast<uint32_t>(bits & (0 - bits));
}

static cublasLtEpilogue_t ftr__blas_epilogue(const ftr__product *p) {
    if (p->add_bias) return p->relu ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_BIAS;
    return p->relu ? CUBLASLT_EPILOGUE_RELU : CUBLASLT_EPILOGUE_DEFAULT;
}

/* The dimension of the batch that one call has all of: the longest one; -1: there is none. */
static int32_t ftr__blas_own_batch(const ftr__product *p) {
    int32_t own = -1;
    for (int32_t i = 0; i < p->batches; i++)
        if (own < 0 || p->batch[i].count >= p->batch[own].count) own = i;
    return own;
}

/* False: the product is not cuBLASLt's. */
static bool ftr__blas_key_of(const ftr__product *p, ftr__blas_key *key) {
    const int32_t own = ftr__blas_own_batch(p);
    memset(static_cast<void *>(key), 0, sizeof *key);
    key->batch = own < 0 ? ftr__product_batch{1, 0, 0, 0} : p->batch[own];
    const int64_t calls = ftr__product_matrices(p) / key->batch.count;
    if (p->k == 0 || p->m > INT_MAX || p->n > INT_MAX || p->k > INT_MAX || key->batch.count > INT_MAX) return false;
    if (calls > 1 &&
        (double)p->m * (double)p->n * (double)p->k * (double)key->batch.count < (double)FTR__BLAS_LEAST_WORK)
        return false;
    int64_t a_moves = 0, b_moves = 0, d_moves = 0;
    for (int32_t i = 0; i < p->batches; i++)
        if (i != own) {
            a_moves |= p->batch[i].a;
            b_moves |= p->batch[i].b;
            d_moves |= p->batch[i].d;
        }
    const uint64_t size = ftr__blas_size(p->dtype);
    const uint32_t a = ftr__blas_alignment(p->a, (uint64_t)a_moves * size),
                   b = ftr__blas_alignment(p->b, (uint64_t)b_moves * size);
    const uint32_t d = ftr__blas_alignment(p->d, (uint64_t)d_moves * size),
                   c = ftr__blas_alignment(p->c, (uint64_t)d_moves * size);
    key->alignment = min(min(a, b), p->beta != 0.0f ? min(c, d) : d);
    key->bias_alignment = p->add_bias ? ftr__blas_alignment(p->bias, 0) : 0;
    key->m = p->m;
    key->n = p->n;
    key->k = p->k;
    key->a_row = p->a_row;
    key->b_row = p->b_row;
    key->d_row = p->d_row;
    key->dtype = p->dtype;
    key->transpose_a = p->transpose_a;
    key->transpose_b = p->transpose_b;
    key->epilogue = ftr__blas_epilogue(p);
    return true;
}

static ftr__blas_answer *ftr__blas_find(const ftr__blas *blas, const ftr__blas_key *key) {
    for (ftr__blas_answer *answer = blas->answers; answer; answer = answer->next)
        if (memcmp(static_cast<const void *>(&answer->key), static_cast<const void *>(key), sizeof *key) == 0)
            return answer;
    return nullptr;
}

static ftr_status ftr__blas_check(const ftr_kernel_call *call, cublasStatus_t error, const char *what) {
    if (error == CUBLAS_STATUS_SUCCESS) return FTR_OK;
    return ftr_backend_error(call, FTR_ERROR_DEVICE, "%s: %s (%s)", what, cublasLtGetStatusString(error),
                             cublasLtGetStatusName(error));
}

/* Returns from the function with a failure of cuBLASLt's. */
#define FTR__BLAS_TRY(call, function, ...)                                                                             \
    do {                                                                                                               \
        const ftr_status ftr__status_of_call = ftr__blas_check(call, function(__VA_ARGS__), #function);                \
        if (ftr__status_of_call) return ftr__status_of_call;                                                           \
    } while (0)

/* A row-major matrix of rows x columns, as its transpose. */
static ftr_status ftr__blas_layout(const ftr_kernel_call *call, const ftr__blas_key *key, int64_t rows, int64_t columns,
                                   int64_t row, int64_t step, cublasLtMatrixLayout_t *layout) {
    const int32_t count = static_cast<int32_t>(key->batch.count);
    FTR__BLAS_TRY(call, cublasLtMatrixLayoutCreate, layout, ftr__blas_type(key->dtype), static_cast<uint64_t>(columns),
                  static_cast<uint64_t>(rows), row);
    if (count == 1) return FTR_OK;
    FTR__BLAS_TRY(call, cublasLtMatrixLayoutSetAttribute, *layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                  sizeof count);
    FTR__BLAS_TRY(call, cublasLtMatrixLayoutSetAttribute, *layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step,
                  sizeof step);
    return FTR_OK;
}

static ftr_status ftr__blas_describe(const ftr_kernel_call *call, const ftr__blas *blas, ftr__blas_answer *answer) {
    const ftr__blas_key *key = &answer->key;
    const cublasComputeType_t compute =
        ftr__cuda_of(call)->tf32 && key->dtype == FTR_F32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    const int32_t first = key->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                  second = key->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const uint32_t epilogue = static_cast<uint32_t>(key->epilogue);
    FTR__BLAS_TRY(call, cublasLtMatmulDescCreate, &answer->product, compute, CUDA_R_32F);
    FTR__BLAS_TRY(call, cublasLtMatmulDescSetAttribute, answer->product, CUBLASLT_MATMUL_DESC_TRANSA, &first,
                  sizeof first);
    FTR__BLAS_TRY(call, cublasLtMatmulDescSetAttribute, answer->product, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                  sizeof second);
    FTR__BLAS_TRY(call, cublasLtMatmulDescSetAttribute, answer->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                  sizeof epilogue);
    if (key->bias_alignment) { /* the heuristic looks at the pointer's alignment alone: one that has no more of it */
        const void *bias = static_cast<const char *>(blas->workspace) + key->bias_alignment;
        FTR__BLAS_TRY(call, cublasLtMatmulDescSetAttribute, answer->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                      sizeof bias);
    }
    const bool ta = key->transpose_a, tb = key->transpose_b;
    ftr_status status =
        ftr__blas_layout(call, key, ta ? key->k : key->m, ta ? key->m : key->k, key->a_row, key->batch.a, &answer->a);
    if (!status)
        status = ftr__blas_layout(call, key, tb ? key->n : key->k, tb ? key->k : key->n, key->b_row, key->batch.b,
                                  &answer->b);
    if (!status) status = ftr__blas_layout(call, key, key->m, key->n, key->d_row, key->batch.d, &answer->d);
    return status;
}

static ftr_status ftr__blas_prefer(const ftr_kernel_call *call, const ftr__blas *blas, const ftr__blas_key *key,
                                   cublasLtMatmulPreference_t preference) {
    static const cublasLtMatmulPreferenceAttributes_t alignments[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    const uint64_t workspace = blas->workspace_size;
    const uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE; /* or none */
    FTR__BLAS_TRY(call, cublasLtMatmulPreferenceSetAttribute, preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                  &workspace, sizeof workspace);
    FTR__BLAS_TRY(call, cublasLtMatmulPreferenceSetAttribute, preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                  &schemes, sizeof schemes);
    for (const cublasLtMatmulPreferenceAttributes_t attribute : alignments)
        FTR__BLAS_TRY(call, cublasLtMatmulPreferenceSetAttribute, preference, attribute, &key->alignment,
                      sizeof key->alignment);
    return FTR_OK;
}

/* Asks the heuristic. That it knows nothing is an answer too. */
static ftr_status ftr__blas_ask(const ftr_kernel_call *call, const ftr__blas *blas, ftr__blas_answer *answer) {
    cublasLtMatmulPreference_t preference = nullptr;
    cublasLtMatmulHeuristicResult_t result = {};
    int found = 0;
    ftr_status status = ftr__blas_describe(call, blas, answer);
    if (status) return status;
    FTR__BLAS_TRY(call, cublasLtMatmulPreferenceCreate, &preference);
    status = ftr__blas_prefer(call, blas, &answer->key, preference);
    if (!status) {
        const cublasStatus_t asked = cublasLtMatmulAlgoGetHeuristic(
            blas->handle, answer->product, answer->b, answer->a, answer->d, answer->d, preference, 1, &result, &found);
        if (asked != CUBLAS_STATUS_NOT_SUPPORTED)
            status = ftr__blas_check(call, asked, "cublasLtMatmulAlgoGetHeuristic");
        answer->has_algorithm = asked == CUBLAS_STATUS_SUCCESS && found > 0 && result.state == CUBLAS_STATUS_SUCCESS;
        answer->algorithm = result.algo;
    }
    (void)cublasLtMatmulPreferenceDestroy(preference);
    return status;
}

/* The answer for a key, asked for if it is a new one. */
static ftr_status ftr__blas_answer_of(const ftr_kernel_call *call, const ftr__blas_key *key, ftr__blas_answer **found) {
    ftr__blas *blas = ftr__cuda_of(call)->blas;
    *found = ftr__blas_find(blas, key);
    if (*found) return FTR_OK;
    ftr__blas_answer *answer = static_cast<ftr__blas_answer *>(ftr_backend_allocate(call->context, sizeof *answer));
    if (!answer)
        return ftr_backend_error(call, FTR_ERROR_OUT_OF_MEMORY, "%zu bytes could not be allocated", sizeof *answer);
    memset(static_cast<void *>(answer), 0, sizeof *answer);
    memcpy(static_cast<void *>(&answer->key), static_cast<const void *>(key), sizeof *key);
    const ftr_status status = ftr__blas_ask(call, blas, answer);
    if (status) {
        ftr__blas_drop(call->context, answer);
        return status;
    }
    answer->next = blas->answers;
    blas->answers = answer;
    *found = answer;
    return FTR_OK;
}

/* A call for each index of the dimensions but the own one. */
static ftr_status ftr__blas_calls(const ftr_kernel_call *call, const ftr__product *p, const ftr__blas_answer *answer) {
    const ftr__cuda *cuda = ftr__cuda_of(call);
    const int32_t own = ftr__blas_own_batch(p);
    const int64_t size = static_cast<int64_t>(ftr__blas_size(p->dtype));
    const int64_t calls = ftr__product_matrices(p) / answer->key.batch.count;
    if (p->add_bias)
        FTR__BLAS_TRY(call, cublasLtMatmulDescSetAttribute, answer->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                      &p->bias, sizeof p->bias);
    for (int64_t i = 0; i < calls; i++) {
        const char *a = static_cast<const char *>(p->a), *b = static_cast<const char *>(p->b);
        const char *c = static_cast<const char *>(p->beta != 0.0f ? p->c : p->d);
        char *d = static_cast<char *>(p->d);
        int64_t index = i;
        for (int32_t j = p->batches - 1; j >= 0; j--) {
            if (j == own) continue;
            const int64_t at = index % p->batch[j].count;
            index /= p->batch[j].count;
            a += at * p->batch[j].a * size;
            b += at * p->batch[j].b * size;
            c += at * p->batch[j].d * size;
            d += at * p->batch[j].d * size;
        }
        FTR__BLAS_TRY(call, cublasLtMatmul, cuda->blas->handle, answer->product, &p->alpha, b, answer->b, a, answer->a,
                      &p->beta, c, answer->d, d, answer->d, &answer->algorithm, cuda->blas->workspace,
                      cuda->blas->workspace_size, cuda->stream);
    }
    return FTR_OK;
}

FTR__CUDA_LIB ftr_status ftr__product_run(const ftr_kernel_call *call, const ftr__product *product) {
    ftr__blas_key key;
    ftr__blas_answer *answer = nullptr;
    if (product->m == 0 || product->n == 0 || ftr__product_matrices(product) == 0) return FTR_OK;
    if (!ftr__blas_key_of(product, &key)) return ftr__product_by_tiles(call, product);
    const ftr_status status = ftr__blas_answer_of(call, &key, &answer);
    if (status) return status;
    return answer->has_algorithm ? ftr__blas_calls(call, product, answer) : ftr__product_by_tiles(call, product);
}

FTR__CUDA_LIB const char *ftr__product_algorithm(const ftr_kernel_call *call, const ftr__product *product) {
    const ftr__blas *blas = ftr__cuda_of(call)->blas;
    ftr__blas_key key;
    if (product->m == 0 || product->n == 0 || ftr__product_matrices(product) == 0) return "";
    if (!ftr__blas_key_of(product, &key)) return "tiles";
    const ftr__blas_answer *answer = ftr__blas_find(blas, &key);
    if (answer && !answer->has_algorithm) return "tiles";
    return ftr__cuda_of(call)->tf32 && product->dtype == FTR_F32 ? "cublasLt, tf32" : "cublasLt";
}

/* ---------------------------------------------------------------------------------------------- matmul and linear -- */

/* Elements from a matrix of x to the next along the result's dimension d; 0: x has one for all. Behind `inner`, the elements
 * of what lies below. */
static int64_t ftr__matmul_step(const ftr_shape *x, const ftr_shape *out, int32_t d, int64_t *inner) {
    const int32_t own = d - (out->rank - x->rank);
    if (own < 0) return 0;
    const int64_t step = x->dim[own] == 1 ? 0 : *inner;
    *inner *= x->dim[own];
    return step;
}

/* The dimensions of the batch; those that lie as one do become one. */
static void ftr__matmul_batches(ftr__product *p, const ftr_shape *a, const ftr_shape *b, const ftr_shape *out) {
    int64_t a_inner = a->dim[a->rank - 2] * a->dim[a->rank - 1], b_inner = b->dim[b->rank - 2] * b->dim[b->rank - 1];
    int64_t d_inner = p->m * p->n;
    ftr__product_batch found[FTR_MAX_RANK];
    int32_t count = 0;
    for (int32_t d = out->rank - 3; d >= 0; d--) {
        const ftr__product_batch next = {out->dim[d], ftr__matmul_step(a, out, d, &a_inner),
                                         ftr__matmul_step(b, out, d, &b_inner), d_inner};
        d_inner *= next.count;
        if (next.count == 1) continue;
        ftr__product_batch *last = count > 0 ? &found[count - 1] : nullptr;
        if (last && next.a == last->a * last->count && next.b == last->b * last->count)
            last->count *= next.count;
        else
            found[count++] = next;
    }
    for (int32_t i = 0; i < count; i++) p->batch[i] = found[count - 1 - i]; /* the last one is the innermost */
    p->batches = count;
}

static ftr__product ftr__product_of_matmul(const ftr_kernel_call *call) {
    const ftr_shape *a = &call->in[0].shape, *b = &call->in[1].shape, *out = &call->out[0].shape;
    ftr__product p = {};
    p.transpose_a = call->attr->matmul.transpose_a;
    p.transpose_b = call->attr->matmul.transpose_b;
    p.m = out->dim[out->rank - 2];
    p.n = out->dim[out->rank - 1];
    p.k = a->dim[a->rank - (p.transpose_a ? 2 : 1)];
    ftr__matmul_batches(&p, a, b, out);
    /* One B for all of them: the batch is more rows. */
    if (!p.transpose_a && p.batches == 1 && p.batch[0].b == 0 && p.batch[0].a == p.m * p.k) {
        p.m *= p.batch[0].count;
        p.batches = 0;
    }
    return p;
}

static ftr__product ftr__product_of_linear(const ftr_kernel_call *call) {
    const ftr_shape *weight = &call->in[1].shape, *out = &call->out[0].shape;
    const bool in_out = call->attr->linear.in_out;
    ftr__product p = {};
    p.transpose_b = !in_out;
    p.m = 1;
    for (int32_t d = 0; d < out->rank - 1; d++) p.m *= out->dim[d];
    p.n = weight->dim[in_out ? 1 : 0];
    p.k = weight->dim[in_out ? 0 : 1];
    p.add_bias = call->in_count > 2 && call->in[2].dtype != FTR_DTYPE_NONE;
    p.bias = p.add_bias ? call->in[2].data : nullptr;
    p.relu = call->attr->linear.activation == FTR_ACT_RELU;
    return p;
}

static ftr__product ftr__product_of(const ftr_kernel_call *call) {
    ftr__product p = call->op == FTR_OP_linear ? ftr__product_of_linear(call) : ftr__product_of_matmul(call);
    p.dtype = call->out[0].dtype;
    p.a = call->in[0].data;
    p.b = call->in[1].data;
    p.d = call->out[0].data;
    p.a_row = p.transpose_a ? p.m : p.k;
    p.b_row = p.transpose_b ? p.k : p.n;
    p.d_row = p.n;
    p.alpha = 1.0f;
    return p;
}

FTR__CUDA_LIB ftr_status ftr__cuda_matmul(const ftr_kernel_call *call) {
    const ftr__product p = ftr__product_of(call);
    return ftr__product_run(call, &p);
}

FTR__CUDA_LIB const char *ftr__cuda_matmul_algorithm(const ftr_kernel_call *call) {
    const ftr__product p = ftr__product_of(call);
    return ftr__product_algorithm(call, &p);
}
