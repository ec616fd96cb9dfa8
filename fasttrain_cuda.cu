/* The CUDA backend of fasttrain, for nvcc. MIT license, at the end of the file.
 * Generated from src/ by `make amalgamate`: a change belongs there.
 *
 *     nvcc -std=c++17 -O2 -c fasttrain_cuda.cu
 *
 * Stands beside the fasttrain.h of the same version. */
#include "fasttrain.h"
#define FTR__CUDA_LIB static

/* ---- src/backend/cuda/cuda.cuh ---- */
/* What every file of the CUDA backend uses: its state, errors, types of elements, launches. It sees no more of fasttrain than the
 * public headers.
 *
 * Kernels keep to what the emulator of tests/cuda/ has: launches go through FTR_LAUNCH, shared memory is declared by FTR_SHARED
 * (the same at each place for all threads), blocks have at most FTR__CUDA_THREADS threads and a multiple of 32. */

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

/* Linkage of what the files share: in fasttrain_cuda.cu they are one. */
#ifndef FTR__CUDA_LIB
#define FTR__CUDA_LIB extern
#endif

#define FTR__CUDA_THREADS 256 /* of a block: the launch bound of every kernel */
#define FTR__CUDA_WARP 32
#define FTR__CUDA_FULL 0xffffffffu /* mask of a whole warp */

#define FTR__KERNEL static __global__ void __launch_bounds__(FTR__CUDA_THREADS)

/* A kernel that may have as many registers as a block of its own leaves it: for the compiler would rather spill some to have room
 * for more blocks. */
#define FTR__ROOMY_KERNEL static __global__ void __launch_bounds__(FTR__CUDA_THREADS, 1)

/* In front of a loop over an array that is to stay in registers; of a loop of which more than one turn at once would spill. */
#ifdef FTR_EMULATOR
#define FTR__UNROLL
#define FTR__NO_UNROLL
#else
#define FTR__UNROLL _Pragma("unroll")
#define FTR__NO_UNROLL _Pragma("unroll 1")
#endif

/* ------------------------------------------------------------------------------------------------------------ state -- */

/* The first fault that a kernel found in its data, in device memory; `kind` 0: none. */
struct ftr__cuda_fault {
    int32_t kind;
    int32_t set;      /* threads that found one: the first one fills in the rest */
    const char *node; /* the host's pointers */
    const char *op;
    int64_t found, position, limit;
};

/* What was found, at which position, and what it should have been. */
enum ftr__cuda_fault_kind {
    FTR__CUDA_FAULT_NONE = 0,
    FTR__CUDA_FAULT_ROW,    /* an index is not below the number of rows, the limit */
    FTR__CUDA_FAULT_AXIS,   /* an index is not below the size of an axis, the limit */
    FTR__CUDA_FAULT_CLASS,  /* an index is not below the number of classes, the limit */
    FTR__CUDA_FAULT_LABEL,  /* the label of a row, the position, is not below the number of classes */
    FTR__CUDA_FAULT_PARTNER, /* the partner of a row, the position, is not below the number of rows */
    FTR__CUDA_FAULT_BOX_ROWS,   /* a box from one row to another, the position, does not fit into images of this height */
    FTR__CUDA_FAULT_BOX_COLUMNS /* the same of columns and the width */
};

struct ftr__cuda_graph;  /* a step that was captured, see device.cu */
struct ftr__dnn_plan;    /* see cudnn.cuh */
struct cudnnContext;
struct ftr__cuda_graph; /* a step that was captured, see device.cu */
struct ftr__blas;       /* see blas.cu */

struct ftr__cuda {
    ftr_context *context;
    int32_t device;
    cudaDeviceProp properties;
    cudaStream_t stream; /* of kernels */
    uint64_t *step;      /* device memory: steps done by the plan that runs, before this one */
    ftr__cuda_fault *fault;      /* device memory */
    ftr__cuda_fault *seen_fault; /* page-locked: what it was at the end of a step that is over */
    ftr__blas *blas;
    ftr__cuda_graph *graphs;
    ftr__cuda_graph *capturing; /* the one that is being made */
    cudnnContext *dnn;          /* cuDNN's handle; nullptr: plans cannot run */
    void *dnn_device;           /* the device as cuDNN describes it */
    ftr__dnn_plan *dnn_plans;
    bool tf32;                  /* products and convolutions of f32 may round their operands to TF32 */
    bool capture;               /* steps become graphs */
    bool synchronous;           /* each node is waited for */
    bool node_by_node;          /* the same, of the step that runs */
};

static inline ftr__cuda *ftr__cuda_of(const ftr_kernel_call *call) { return static_cast<ftr__cuda *>(call->backend); }

/* FTR_OK, or the failure of a call to CUDA, with the call's name, as the node's. */
static inline ftr_status ftr__cuda_check(const ftr_kernel_call *call, cudaError_t error, const char *what) {
    if (error == cudaSuccess) return FTR_OK;
    return ftr_backend_error(call, FTR_ERROR_DEVICE, "%s: %s (%s)", what, cudaGetErrorString(error),
                             cudaGetErrorName(error));
}

/* ------------------------------------------------------------------------------------------------- types of elements -- */

static inline bool ftr__cuda_is_half(ftr_dtype dtype) { return dtype == FTR_F16 || dtype == FTR_BF16; }
static inline bool ftr__cuda_is_real(ftr_dtype dtype) { return dtype == FTR_F32 || ftr__cuda_is_half(dtype); }

static __device__ __forceinline__ float ftr__to_float(float x) { return x; }
static __device__ __forceinline__ float ftr__to_float(__half x) { return __half2float(x); }
static __device__ __forceinline__ float ftr__to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

/* Rounded to nearest, ties to even. */
template <typename T> __device__ __forceinline__ T ftr__from_float(float x);
template <> __device__ __forceinline__ float ftr__from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __half ftr__from_float<__half>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ __nv_bfloat16 ftr__from_float<__nv_bfloat16>(float x) {
    return __float2bfloat16_rn(x);
}

/* 16 bytes. */
template <typename T> struct alignas(16) ftr__pack {
    T of[16 / sizeof(T)];
};

/* A floating-point element of a type that is known at run time. */
static __device__ __forceinline__ float ftr__load_real(const void *data, ftr_dtype dtype, int64_t i) {
    if (dtype == FTR_F32) return static_cast<const float *>(data)[i];
    if (dtype == FTR_F16) return __half2float(static_cast<const __half *>(data)[i]);
    return __bfloat162float(static_cast<const __nv_bfloat16 *>(data)[i]);
}

static __device__ __forceinline__ void ftr__store_real(void *data, ftr_dtype dtype, int64_t i, float value) {
    if (dtype == FTR_F32)
        static_cast<float *>(data)[i] = value;
    else if (dtype == FTR_F16)
        static_cast<__half *>(data)[i] = __float2half_rn(value);
    else
        static_cast<__nv_bfloat16 *>(data)[i] = __float2bfloat16_rn(value);
}

static __device__ __forceinline__ int64_t ftr__load_integer(const void *data, ftr_dtype dtype, int64_t i) {
    if (dtype == FTR_I64) return static_cast<const int64_t *>(data)[i];
    if (dtype == FTR_I32) return static_cast<const int32_t *>(data)[i];
    return static_cast<const uint8_t *>(data)[i];
}

/* Cut to the type's bits; bool gets 0 or 1. */
static __device__ __forceinline__ void ftr__store_integer(void *data, ftr_dtype dtype, int64_t i, int64_t value) {
    if (dtype == FTR_I64)
        static_cast<int64_t *>(data)[i] = value;
    else if (dtype == FTR_I32)
        static_cast<int32_t *>(data)[i] = static_cast<int32_t>(value);
    else if (dtype == FTR_BOOL)
        static_cast<uint8_t *>(data)[i] = value != 0;
    else
        static_cast<uint8_t *>(data)[i] = static_cast<uint8_t>(value);
}

/* Calls f with a value of the element type float, __half or __nv_bfloat16, whose value does not count. */
template <typename F> static ftr_status ftr__for_real(const ftr_kernel_call *call, ftr_dtype dtype, F f) {
    switch (dtype) {
    case FTR_F32: return f(float());
    case FTR_F16: return f(__half());
    case FTR_BF16: return f(__nv_bfloat16());
    default:
        return ftr_backend_error(call, FTR_ERROR_UNSUPPORTED, "the cuda backend has no kernel for %s",
                                 ftr_dtype_name(dtype));
    }
}

/* --------------------------------------------------------------------------------------------------------- launches -- */

/* Blocks for `count` threads in all, or fewer: kernels loop over what is left (FTR__GRID_LOOP). */
static inline unsigned ftr__cuda_blocks(int64_t count, int64_t a_block = FTR__CUDA_THREADS) {
    const int64_t blocks = (count + a_block - 1) / a_block;
    return static_cast<unsigned>(blocks < 65535 ? blocks : 65535);
}

/* i: 0 to count - 1, shared out over the threads of a grid of one dimension. */
#define FTR__GRID_LOOP(i, count)                                                                                       \
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, ftr__all = (int64_t)gridDim.x * blockDim.x;       \
         i < (count); i += ftr__all)

#ifndef FTR_EMULATOR
#define FTR_SHARED(type, name, count) __shared__ type name[count]
template <typename... P, typename... A>
static cudaError_t ftr__cuda_start(const char *, void (*kernel)(P...), dim3 grid, dim3 block, cudaStream_t stream,
                                   A... arguments) {
    kernel<<<grid, block, 0, stream>>>(arguments...);
    return cudaGetLastError();
}
#else
template <typename... P, typename... A>
static cudaError_t ftr__cuda_start(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, cudaStream_t stream,
                                   A... arguments) {
    return ftr_emu_launch<P...>(name, kernel, FTR__CUDA_THREADS, grid, block, 0, stream, arguments...);
}
#endif

/* Launches a kernel for a node; a status. Kernels of templates stand in parentheses. An empty grid is no launch. */
#define FTR_LAUNCH(call, kernel, grid, block, ...)                                                                     \
    ftr__cuda_launch(call, #kernel, kernel, dim3(grid), dim3(block), __VA_ARGS__)

template <typename... P, typename... A>
static ftr_status ftr__cuda_launch(const ftr_kernel_call *call, const char *name, void (*kernel)(P...), dim3 grid,
                                   dim3 block, A... arguments) {
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return FTR_OK;
    return ftr__cuda_check(call,
                           ftr__cuda_start(name, kernel, grid, block, ftr__cuda_of(call)->stream,
                                           static_cast<P>(arguments)...),
                           name);
}

/* Copies between pieces of device memory, in the order of the stream. */
static inline ftr_status ftr__cuda_copy(const ftr_kernel_call *call, void *to, const void *from, size_t bytes) {
    if (bytes == 0 || to == from) return FTR_OK;
    return ftr__cuda_check(call,
                           cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, ftr__cuda_of(call)->stream),
                           "cudaMemcpyAsync");
}

static inline ftr_status ftr__cuda_clear(const ftr_kernel_call *call, void *to, size_t bytes) {
    if (bytes == 0) return FTR_OK;
    return ftr__cuda_check(call, cudaMemsetAsync(to, 0, bytes, ftr__cuda_of(call)->stream), "cudaMemsetAsync");
}

/* ------------------------------------------------------------------------------------------------------- reductions -- */

/* Of a warp, in a fixed order; each lane has the result. */
static __device__ __forceinline__ float ftr__warp_sum(float x) {
    for (int bits = 16; bits > 0; bits /= 2) x += __shfl_xor_sync(FTR__CUDA_FULL, x, bits);
    return x;
}

static __device__ __forceinline__ double ftr__warp_sum(double x) {
    for (int bits = 16; bits > 0; bits /= 2) x += __shfl_xor_sync(FTR__CUDA_FULL, x, bits);
    return x;
}

/* The larger one; NaN if one is. */
static __device__ __forceinline__ float ftr__maximum(float a, float b) { return a > b || a != a ? a : b; }

static __device__ __forceinline__ float ftr__warp_maximum(float x) {
    for (int bits = 16; bits > 0; bits /= 2) x = ftr__maximum(x, __shfl_xor_sync(FTR__CUDA_FULL, x, bits));
    return x;
}

/* Of a block, in a fixed order; each thread has the result. All threads of the block call it. `room`: shared memory of 32
 * elements, which may be used again behind the call. */
template <typename T> static __device__ __forceinline__ T ftr__block_sum(T x, T *room) {
    const int warp = (int)threadIdx.x / FTR__CUDA_WARP, lane = (int)threadIdx.x % FTR__CUDA_WARP;
    x = ftr__warp_sum(x);
    if (lane == 0) room[warp] = x;
    __syncthreads();
    x = lane < (int)blockDim.x / FTR__CUDA_WARP ? room[lane] : (T)0;
    x = ftr__warp_sum(x);
    __syncthreads();
    return x;
}

static __device__ __forceinline__ float ftr__block_maximum(float x, float *room) {
    const int warp = (int)threadIdx.x / FTR__CUDA_WARP, lane = (int)threadIdx.x % FTR__CUDA_WARP;
    x = ftr__warp_maximum(x);
    if (lane == 0) room[warp] = x;
    __syncthreads();
    x = lane < (int)blockDim.x / FTR__CUDA_WARP ? room[lane] : room[0];
    x = ftr__warp_maximum(x);
    __syncthreads();
    return x;
}

/* ------------------------------------------------------------------------------------------------------------ faults -- */

/* What kernels need to report a fault: the record, and the node. */
struct ftr__cuda_reporter {
    ftr__cuda_fault *fault;
    const char *node, *op;
};

static inline ftr__cuda_reporter ftr__cuda_reporter_of(const ftr_kernel_call *call) {
    return {ftr__cuda_of(call)->fault, call->name, ftr_op_name(call->op)};
}

/* Records a fault, if it is the first one. */
static __device__ __forceinline__ void ftr__report(ftr__cuda_reporter to, ftr__cuda_fault_kind kind, int64_t found,
                                                   int64_t position, int64_t limit) {
    if (atomicAdd(&to.fault->set, 1) != 0) return;
    to.fault->node = to.node;
    to.fault->op = to.op;
    to.fault->found = found;
    to.fault->position = position;
    to.fault->limit = limit;
    to.fault->kind = kind;
}

/* Whether 0 <= index < limit; otherwise the fault is recorded. */
static __device__ __forceinline__ bool ftr__in_range(ftr__cuda_reporter to, ftr__cuda_fault_kind kind, int64_t index,
                                                     int64_t position, int64_t limit) {
    if (index >= 0 && index < limit) return true;
    ftr__report(to, kind, index, position, limit);
    return false;
}

/* ------------------------------------------------------------------------------------- kernels' functions by op family -- */

/* Which function runs an op and which sizes its workspace (nullptr: none): X(op, run, workspace). An op that is missing is not
 * supported. */
#define FTR__CUDA_KERNELS(X)                                                                                           \
    /* pointwise.cu */                                                                                                 \
    X(add, ftr__cuda_pointwise, nullptr)                                                                               \
    X(sub, ftr__cuda_pointwise, nullptr)                                                                               \
    X(mul, ftr__cuda_pointwise, nullptr)                                                                               \
    X(div, ftr__cuda_pointwise, nullptr)                                                                               \
    X(pow, ftr__cuda_pointwise, nullptr)                                                                               \
    X(maximum, ftr__cuda_pointwise, nullptr)                                                                           \
    X(eq, ftr__cuda_pointwise, nullptr)                                                                                \
    X(ne, ftr__cuda_pointwise, nullptr)                                                                                \
    X(lt, ftr__cuda_pointwise, nullptr)                                                                                \
    X(le, ftr__cuda_pointwise, nullptr)                                                                                \
    X(gt, ftr__cuda_pointwise, nullptr)                                                                                \
    X(ge, ftr__cuda_pointwise, nullptr)                                                                                \
    X(where, ftr__cuda_where, nullptr)                                                                                 \
    X(neg, ftr__cuda_pointwise, nullptr)                                                                               \
    X(exp, ftr__cuda_pointwise, nullptr)                                                                               \
    X(log, ftr__cuda_pointwise, nullptr)                                                                               \
    X(sqrt, ftr__cuda_pointwise, nullptr)                                                                              \
    X(rsqrt, ftr__cuda_pointwise, nullptr)                                                                             \
    X(tanh, ftr__cuda_pointwise, nullptr)                                                                              \
    X(sigmoid, ftr__cuda_pointwise, nullptr)                                                                           \
    X(relu, ftr__cuda_pointwise, nullptr)                                                                              \
    X(minimum, ftr__cuda_pointwise, nullptr)                                                                           \
    X(abs, ftr__cuda_pointwise, nullptr)                                                                               \
    X(sin, ftr__cuda_pointwise, nullptr)                                                                               \
    X(cos, ftr__cuda_pointwise, nullptr)                                                                               \
    X(erf, ftr__cuda_pointwise, nullptr)                                                                               \
    X(floor, ftr__cuda_pointwise, nullptr)                                                                             \
    X(round, ftr__cuda_pointwise, nullptr)                                                                             \
    X(sign, ftr__cuda_pointwise, nullptr)                                                                              \
    X(clamp, ftr__cuda_pointwise, nullptr)                                                                             \
    X(gelu, ftr__cuda_pointwise, nullptr)                                                                              \
    X(silu, ftr__cuda_pointwise, nullptr)                                                                              \
    X(hardswish, ftr__cuda_pointwise, nullptr)                                                                         \
    X(hardsigmoid, ftr__cuda_pointwise, nullptr)                                                                       \
    X(leaky_relu, ftr__cuda_pointwise, nullptr)                                                                        \
    X(elu, ftr__cuda_pointwise, nullptr)                                                                               \
    X(softplus, ftr__cuda_pointwise, nullptr)                                                                          \
    X(clamp_grad, ftr__cuda_pointwise, nullptr)                                                                        \
    X(gelu_grad, ftr__cuda_pointwise, nullptr)                                                                         \
    X(silu_grad, ftr__cuda_pointwise, nullptr)                                                                         \
    X(hardswish_grad, ftr__cuda_pointwise, nullptr)                                                                    \
    X(leaky_relu_grad, ftr__cuda_pointwise, nullptr)                                                                   \
    X(elu_grad, ftr__cuda_pointwise, nullptr)                                                                          \
    X(softplus_grad, ftr__cuda_pointwise, nullptr)                                                                     \
    X(tanh_grad, ftr__cuda_pointwise, nullptr)                                                                         \
    X(sigmoid_grad, ftr__cuda_pointwise, nullptr)                                                                      \
    X(relu_grad, ftr__cuda_pointwise, nullptr)                                                                         \
    X(stop_gradient, ftr__cuda_same_bits, nullptr)                                                                     \
    X(reshape, ftr__cuda_same_bits, nullptr)                                                                           \
    X(cast, ftr__cuda_cast, nullptr)                                                                                   \
    /* reduce.cu */                                                                                                    \
    X(sum, ftr__cuda_reduce, ftr__cuda_reduce_workspace)                                                               \
    X(mean, ftr__cuda_reduce, ftr__cuda_reduce_workspace)                                                              \
    X(max, ftr__cuda_reduce, ftr__cuda_reduce_workspace)                                                               \
    X(argmax, ftr__cuda_reduce, ftr__cuda_reduce_workspace)                                                            \
    /* conv.cu */                                                                                                      \
    X(conv2d, ftr__cuda_conv2d, ftr__cuda_conv2d_workspace)                                                            \
    X(conv2d_grad_input, ftr__cuda_conv2d_grad, ftr__cuda_conv2d_workspace)                                            \
    X(conv2d_grad_weight, ftr__cuda_conv2d_grad, ftr__cuda_conv2d_workspace)                                           \
    /* shape.cu */                                                                                                     \
    X(expand, ftr__cuda_expand, nullptr)                                                                               \
    /* attention.cu */                                                                                                 \
    X(attention, ftr__cuda_attention, nullptr)                                                                         \
    X(attention_grad, ftr__cuda_attention_grad, ftr__cuda_attention_grad_workspace)                                    \
    /* norm.cu */                                                                                                      \
    X(batch_norm, ftr__cuda_batch_norm, ftr__cuda_batch_norm_workspace)                                                \
    X(batch_norm_grad, ftr__cuda_batch_norm_grad, ftr__cuda_batch_norm_grad_workspace)                                 \
    X(group_norm, ftr__cuda_group_norm, ftr__cuda_group_norm_workspace)                                                \
    X(group_norm_grad, ftr__cuda_group_norm_grad, ftr__cuda_group_norm_grad_workspace)                                 \
    /* row_norm.cu */                                                                                                  \
    X(layer_norm, ftr__cuda_row_norm, nullptr)                                                                         \
    X(rms_norm, ftr__cuda_row_norm, nullptr)                                                                           \
    X(layer_norm_grad, ftr__cuda_row_norm_grad, ftr__cuda_row_norm_grad_workspace)                                     \
    X(rms_norm_grad, ftr__cuda_row_norm_grad, ftr__cuda_row_norm_grad_workspace)                                       \
    /* pool.cu */                                                                                                      \
    X(max_pool2d, ftr__cuda_max_pool2d, nullptr)                                                                       \
    X(max_pool2d_grad, ftr__cuda_max_pool2d_grad, nullptr)                                                             \
    X(avg_pool2d, ftr__cuda_avg_pool2d, nullptr)                                                                       \
    X(avg_pool2d_grad, ftr__cuda_avg_pool2d_grad, nullptr)                                                             \
    X(adaptive_avg_pool2d, ftr__cuda_adaptive_avg_pool2d, nullptr)                                                     \
    X(adaptive_avg_pool2d_grad, ftr__cuda_adaptive_avg_pool2d_grad, nullptr)                                           \
    /* random.cu */                                                                                                    \
    X(dropout, ftr__cuda_dropout, nullptr)                                                                             \
    X(stochastic_depth, ftr__cuda_stochastic_depth, nullptr)                                                           \
    X(random_uniform, ftr__cuda_random, nullptr)                                                                       \
    X(random_normal, ftr__cuda_random, nullptr)                                                                        \
    /* update.cu */                                                                                                    \
    X(ema_update, ftr__cuda_ema_update, nullptr)                                                                       \
    X(count_update, ftr__cuda_count_update, nullptr)                                                                   \
    X(accumulate_update, ftr__cuda_accumulate_update, nullptr)                                                         \
    X(average_update, ftr__cuda_average_update, nullptr)                                                               \
    X(swap_update, ftr__cuda_swap_update, nullptr)                                                                     \
    X(sgd_update, ftr__cuda_sgd_update, nullptr)                                                                       \
    X(adamw_update, ftr__cuda_adam_update, nullptr)                                                                    \
    X(adam_update, ftr__cuda_adam_update, nullptr)                                                                     \
    X(rmsprop_update, ftr__cuda_rmsprop_update, nullptr)                                                               \
    X(adagrad_update, ftr__cuda_adagrad_update, nullptr)                                                               \
    X(lion_update, ftr__cuda_lion_update, nullptr)                                                                     \
    /* update_norms.cu */                                                                                              \
    X(lamb_update, ftr__cuda_lamb_update, ftr__cuda_lamb_update_workspace)                                             \
    X(lars_update, ftr__cuda_lars_update, ftr__cuda_lars_update_workspace)                                             \
    X(clip_scale, ftr__cuda_clip_scale, ftr__cuda_norm_workspace)                                                      \
    X(grad_norm, ftr__cuda_grad_norm, ftr__cuda_norm_workspace)                                                        \
    /* adafactor.cu */                                                                                                 \
    X(adafactor_update, ftr__cuda_adafactor_update, ftr__cuda_adafactor_update_workspace)                              \
    /* muon.cu */                                                                                                      \
    X(muon_update, ftr__cuda_muon_update, ftr__cuda_muon_update_workspace)                                             \
    /* scaling.cu */                                                                                                   \
    X(scale_update, ftr__cuda_scale_update, nullptr)                                                                   \
    X(transpose, ftr__cuda_transpose, nullptr)                                                                         \
    X(concat, ftr__cuda_concat, nullptr)                                                                               \
    X(slice, ftr__cuda_slice, nullptr)                                                                                 \
    X(slice_grad, ftr__cuda_slice_grad, nullptr)                                                                       \
    X(pad, ftr__cuda_pad, nullptr)                                                                                     \
    /* loss.cu */                                                                                                      \
    X(softmax, ftr__cuda_softmax, nullptr)                                                                             \
    X(softmax_grad, ftr__cuda_softmax_grad, nullptr)                                                                   \
    X(log_softmax, ftr__cuda_softmax, nullptr)                                                                         \
    X(log_softmax_grad, ftr__cuda_softmax_grad, nullptr)                                                               \
    X(cross_entropy, ftr__cuda_cross_entropy, ftr__cuda_loss_workspace)                                                \
    X(cross_entropy_grad, ftr__cuda_cross_entropy_grad, nullptr)                                                       \
    X(nll, ftr__cuda_nll, ftr__cuda_loss_workspace)                                                                    \
    X(nll_grad, ftr__cuda_nll_grad, nullptr)                                                                           \
    /* scan.cu */                                                                                                      \
    X(cumsum, ftr__cuda_cumsum, nullptr)                                                                               \
    X(prod, ftr__cuda_prod, nullptr)                                                                                   \
    X(prod_grad, ftr__cuda_prod_grad, nullptr)                                                                         \
    X(logsumexp, ftr__cuda_logsumexp, nullptr)                                                                         \
    X(logsumexp_grad, ftr__cuda_logsumexp_grad, nullptr)                                                               \
    /* index.cu */                                                                                                     \
    X(embedding, ftr__cuda_embedding, nullptr)                                                                         \
    X(embedding_grad, ftr__cuda_embedding_grad, ftr__cuda_embedding_grad_workspace)                                    \
    X(gather, ftr__cuda_gather, nullptr)                                                                               \
    X(scatter_add, ftr__cuda_scatter_add, ftr__cuda_scatter_add_workspace)                                             \
    X(one_hot, ftr__cuda_one_hot, nullptr)                                                                             \
    X(topk, ftr__cuda_topk, nullptr)                                                                                   \
    /* resize.cu */                                                                                                    \
    X(resize2d, ftr__cuda_resize2d, ftr__cuda_resize2d_workspace)                                                      \
    X(resize2d_grad, ftr__cuda_resize2d_grad, ftr__cuda_resize2d_workspace)                                            \
    /* mix.cu */                                                                                                       \
    X(mix_draw, ftr__cuda_mix_draw, ftr__cuda_mix_draw_workspace)                                                      \
    X(mix, ftr__cuda_mix, nullptr)                                                                                     \
    X(mix_grad, ftr__cuda_mix_grad, ftr__cuda_mix_grad_workspace)                                                      \
    /* rotary.cu */                                                                                                    \
    X(rotary, ftr__cuda_rotary, ftr__cuda_rotary_workspace)                                                            \
    /* blas.cu */                                                                                                      \
    X(matmul, ftr__cuda_matmul, nullptr)                                                                               \
    X(linear, ftr__cuda_matmul, nullptr)

#define FTR__CUDA_DECLARE(name) FTR__CUDA_LIB ftr_status name(const ftr_kernel_call *call);
#define FTR__CUDA_DECLARE_WORKSPACE(name) FTR__CUDA_LIB size_t name(const ftr_kernel_call *call);
FTR__CUDA_DECLARE(ftr__cuda_pointwise)
FTR__CUDA_DECLARE(ftr__cuda_where)
FTR__CUDA_DECLARE(ftr__cuda_same_bits)
FTR__CUDA_DECLARE(ftr__cuda_cast)
FTR__CUDA_DECLARE(ftr__cuda_reduce)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_reduce_workspace)
FTR__CUDA_DECLARE(ftr__cuda_expand)
FTR__CUDA_DECLARE(ftr__cuda_conv2d)
FTR__CUDA_DECLARE(ftr__cuda_attention)
FTR__CUDA_DECLARE(ftr__cuda_attention_grad)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_attention_grad_workspace)
FTR__CUDA_DECLARE(ftr__cuda_conv2d_grad)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_conv2d_workspace)
FTR__CUDA_LIB const char *ftr__cuda_conv2d_algorithm(const ftr_kernel_call *call);

/* cudnn.cu: cuDNN's part of opening and closing. */
FTR__CUDA_LIB ftr_status ftr__dnn_open(ftr_context *context, ftr__cuda *cuda);
FTR__CUDA_LIB void ftr__dnn_close(ftr_context *context, ftr__cuda *cuda);
FTR__CUDA_DECLARE(ftr__cuda_batch_norm)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_batch_norm_workspace)
FTR__CUDA_DECLARE(ftr__cuda_batch_norm_grad)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_batch_norm_grad_workspace)
FTR__CUDA_DECLARE(ftr__cuda_group_norm)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_group_norm_workspace)
FTR__CUDA_DECLARE(ftr__cuda_group_norm_grad)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_group_norm_grad_workspace)
FTR__CUDA_DECLARE(ftr__cuda_row_norm)
FTR__CUDA_DECLARE(ftr__cuda_row_norm_grad)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_row_norm_grad_workspace)
FTR__CUDA_DECLARE(ftr__cuda_max_pool2d)
FTR__CUDA_DECLARE(ftr__cuda_max_pool2d_grad)
FTR__CUDA_DECLARE(ftr__cuda_avg_pool2d)
FTR__CUDA_DECLARE(ftr__cuda_avg_pool2d_grad)
FTR__CUDA_DECLARE(ftr__cuda_adaptive_avg_pool2d)
FTR__CUDA_DECLARE(ftr__cuda_adaptive_avg_pool2d_grad)
FTR__CUDA_DECLARE(ftr__cuda_dropout)
FTR__CUDA_DECLARE(ftr__cuda_stochastic_depth)
FTR__CUDA_DECLARE(ftr__cuda_random)
FTR__CUDA_DECLARE(ftr__cuda_ema_update)
FTR__CUDA_DECLARE(ftr__cuda_count_update)
FTR__CUDA_DECLARE(ftr__cuda_accumulate_update)
FTR__CUDA_DECLARE(ftr__cuda_average_update)
FTR__CUDA_DECLARE(ftr__cuda_swap_update)
FTR__CUDA_DECLARE(ftr__cuda_sgd_update)
FTR__CUDA_DECLARE(ftr__cuda_adam_update)
FTR__CUDA_DECLARE(ftr__cuda_rmsprop_update)
FTR__CUDA_DECLARE(ftr__cuda_adagrad_update)
FTR__CUDA_DECLARE(ftr__cuda_lion_update)
FTR__CUDA_DECLARE(ftr__cuda_lamb_update)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_lamb_update_workspace)
FTR__CUDA_DECLARE(ftr__cuda_lars_update)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_lars_update_workspace)
FTR__CUDA_DECLARE(ftr__cuda_clip_scale)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_norm_workspace)
FTR__CUDA_DECLARE(ftr__cuda_grad_norm)
FTR__CUDA_DECLARE(ftr__cuda_adafactor_update)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_adafactor_update_workspace)
FTR__CUDA_DECLARE(ftr__cuda_muon_update)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_muon_update_workspace)
FTR__CUDA_DECLARE(ftr__cuda_scale_update)
FTR__CUDA_DECLARE(ftr__cuda_transpose)
FTR__CUDA_DECLARE(ftr__cuda_concat)
FTR__CUDA_DECLARE(ftr__cuda_slice)
FTR__CUDA_DECLARE(ftr__cuda_slice_grad)
FTR__CUDA_DECLARE(ftr__cuda_pad)
FTR__CUDA_DECLARE(ftr__cuda_softmax)
FTR__CUDA_DECLARE(ftr__cuda_softmax_grad)
FTR__CUDA_DECLARE(ftr__cuda_cross_entropy)
FTR__CUDA_DECLARE(ftr__cuda_cross_entropy_grad)
FTR__CUDA_DECLARE(ftr__cuda_nll)
FTR__CUDA_DECLARE(ftr__cuda_nll_grad)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_loss_workspace)
FTR__CUDA_DECLARE(ftr__cuda_cumsum)
FTR__CUDA_DECLARE(ftr__cuda_prod)
FTR__CUDA_DECLARE(ftr__cuda_prod_grad)
FTR__CUDA_DECLARE(ftr__cuda_logsumexp)
FTR__CUDA_DECLARE(ftr__cuda_logsumexp_grad)
FTR__CUDA_DECLARE(ftr__cuda_embedding)
FTR__CUDA_DECLARE(ftr__cuda_embedding_grad)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_embedding_grad_workspace)
FTR__CUDA_DECLARE(ftr__cuda_gather)
FTR__CUDA_DECLARE(ftr__cuda_scatter_add)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_scatter_add_workspace)
FTR__CUDA_DECLARE(ftr__cuda_one_hot)
FTR__CUDA_DECLARE(ftr__cuda_topk)
FTR__CUDA_DECLARE(ftr__cuda_resize2d)
FTR__CUDA_DECLARE(ftr__cuda_resize2d_grad)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_resize2d_workspace)
FTR__CUDA_DECLARE(ftr__cuda_mix_draw)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_mix_draw_workspace)
FTR__CUDA_DECLARE(ftr__cuda_mix)
FTR__CUDA_DECLARE(ftr__cuda_mix_grad)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_mix_grad_workspace)
FTR__CUDA_DECLARE(ftr__cuda_rotary)
FTR__CUDA_DECLARE_WORKSPACE(ftr__cuda_rotary_workspace)
FTR__CUDA_DECLARE(ftr__cuda_matmul)

/* ---- src/backend/cuda/cudnn.cuh ---- */
/* Graphs and execution plans of cuDNN, through its graph API in C. A plan is made once for each node's op, types, shapes and
 * attributes, when a plan of fasttrain is compiled, and kept until the context ends; what cuDNN refuses is kept too, with its
 * reason. Plans are made from a description of the device, which is the one in use or, where there is none, one that a file
 * describes (see ftr__dnn_open()). */

#include <cudnn.h>

#define FTR__DNN_MOST_DESCRIPTORS 96
#define FTR__DNN_MOST_OPERATIONS 16
#define FTR__DNN_MOST_TENSORS 16
#define FTR__DNN_REASON 256

/* A graph that is being built. The first failure sticks, later calls do nothing. */
struct ftr__dnn_graph {
    cudnnStatus_t status;
    char reason[FTR__DNN_REASON];
    int32_t descriptor_count, operation_count;
    cudnnBackendDescriptor_t descriptors[FTR__DNN_MOST_DESCRIPTORS]; /* all, to be destroyed */
    cudnnBackendDescriptor_t operations[FTR__DNN_MOST_OPERATIONS];
};

/* What tells plans apart; its bytes are compared. */
struct ftr__dnn_key {
    int32_t op, pattern;
    int32_t numbers[24]; /* of the attributes */
    int32_t dtypes[4];
    ftr_shape shapes[4];
};

struct ftr__dnn_plan {
    ftr__dnn_key key;
    cudnnBackendDescriptor_t made; /* nullptr: refused */
    size_t workspace;
    int32_t engines, deterministic; /* configurations that the heuristics gave, and those looked at that give the same bits always */
    char reason[FTR__DNN_REASON];
    const char *pattern; /* in words */
    ftr__dnn_graph graph; /* its descriptors live as long as the plan */
    ftr__dnn_plan *next;
};

/* Describes a node's operations. */
typedef void (*ftr__dnn_build)(ftr__dnn_graph *graph, const ftr_kernel_call *call, int32_t pattern);

/* A tensor of up to four dimensions in cuDNN's order, here n, c, h, w. Virtual ones stay inside of a kernel. */
FTR__CUDA_LIB cudnnBackendDescriptor_t ftr__dnn_tensor(ftr__dnn_graph *graph, int64_t id, ftr_dtype dtype, const int64_t *dims,
                                                       const int64_t *strides, bool is_virtual);

/* An image [n, h, w, c] or weights [o, h, w, i] as they lie in memory. */
FTR__CUDA_LIB cudnnBackendDescriptor_t ftr__dnn_image(ftr__dnn_graph *graph, int64_t id, ftr_dtype dtype, const ftr_shape *shape,
                                                      bool is_virtual);

/* A value for each channel: [1, c, 1, 1]. */
FTR__CUDA_LIB cudnnBackendDescriptor_t ftr__dnn_channels(ftr__dnn_graph *graph, int64_t id, ftr_dtype dtype, int64_t channels);

enum ftr__dnn_convolution_kind { FTR__DNN_FORWARD, FTR__DNN_GRAD_INPUT, FTR__DNN_GRAD_WEIGHT };

/* x, w, y are the forward convolution's, or their gradients where these are computed. */
FTR__CUDA_LIB void ftr__dnn_convolution(ftr__dnn_graph *graph, ftr__dnn_convolution_kind kind, const ftr_op_attr *attr,
                                        cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t w, cudnnBackendDescriptor_t y);

/* y = f(x) or f(x, b), computed in f32. */
FTR__CUDA_LIB void ftr__dnn_pointwise(ftr__dnn_graph *graph, cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t x,
                                      cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y);

/* The plan for a node, made if there is none yet; `made` of it is nullptr if cuDNN refuses it. nullptr: no memory. */
FTR__CUDA_LIB ftr__dnn_plan *ftr__dnn_plan_of(const ftr_kernel_call *call, const ftr__dnn_key *key, const char *pattern,
                                              ftr__dnn_build build);

/* Runs a plan with its tensors: ids and where they lie. */
FTR__CUDA_LIB ftr_status ftr__dnn_run(const ftr_kernel_call *call, const ftr__dnn_plan *plan, int32_t count, const int64_t *ids,
                                      void *const *data, void *workspace);

/* ---- src/backend/cuda/vector.cuh ---- */
/* Some neighbouring elements that are read and written at once, as f32. */

template <typename T, int V> struct alignas(sizeof(T) * V) ftr__vector { T of[V]; };

/* `from` is a multiple of the vector's size. */
template <typename T, int V> static __device__ __forceinline__ void ftr__load_vector(const T *from, float (&x)[V]) {
    const ftr__vector<T, V> v = *reinterpret_cast<const ftr__vector<T, V> *>(from);
    FTR__UNROLL
    for (int k = 0; k < V; k++) x[k] = ftr__to_float(v.of[k]);
}

template <typename T, int V> static __device__ __forceinline__ void ftr__store_vector(T *to, const float (&x)[V]) {
    ftr__vector<T, V> v;
    FTR__UNROLL
    for (int k = 0; k < V; k++) v.of[k] = ftr__from_float<T>(x[k]);
    *reinterpret_cast<ftr__vector<T, V> *>(to) = v;
}

/* Elements of 16 bytes. */
template <typename T> constexpr int ftr__vector_width() { return 16 / (int)sizeof(T); }

/* Whether a tensor's memory begins at a multiple of 16 bytes; a missing one's does. */
static inline bool ftr__is_aligned(const void *data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

static inline bool ftr__all_aligned(const ftr_kernel_call *call) {
    bool aligned = true;
    for (int32_t i = 0; i < call->in_count; i++) aligned = aligned && ftr__is_aligned(call->in[i].data);
    for (int32_t i = 0; i < call->out_count; i++) aligned = aligned && ftr__is_aligned(call->out[i].data);
    return aligned;
}

/* An integer that a function can be made for. */
template <int N> struct ftr__constant { static constexpr int value = N; };

/* Calls f with a value of the element type and the width of vectors, an ftr__constant: 16 bytes if they divide `line` elements and
 * all tensors lie well, otherwise one element. */
template <typename F>
static ftr_status ftr__for_vectors(const ftr_kernel_call *call, ftr_dtype dtype, int64_t line, F f) {
    return ftr__for_real(call, dtype, [&](auto tag) {
        constexpr int width = ftr__vector_width<decltype(tag)>();
        if (line % width == 0 && ftr__all_aligned(call)) return f(tag, ftr__constant<width>());
        return f(tag, ftr__constant<1>());
    });
}

/* The same of a tensor whose channels, its last dimension, are to be divided. */
template <typename F> static ftr_status ftr__for_channels(const ftr_kernel_call *call, const ftr_view *x, F f) {
    return ftr__for_vectors(call, x->dtype, x->shape.dim[x->shape.rank - 1], f);
}

/* Data of an input, nullptr if it is missing. */
template <typename T> static inline const T *ftr__optional_data(const ftr_kernel_call *call, int32_t input) {
    if (input >= call->in_count || call->in[input].dtype == FTR_DTYPE_NONE) return nullptr;
    return static_cast<const T *>(call->in[input].data);
}

/* ---- src/backend/cuda/random.cuh ---- */
/* The random numbers of core/rng.h on the device: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy
 * as 1, 2, 3, SC 2011). */

/* As ftr__rng_purpose of core/rng.h. */
enum ftr__cuda_purpose { FTR__CUDA_RNG_DROPOUT = 2, FTR__CUDA_RNG_TENSOR = 4, FTR__CUDA_RNG_MIX = 5 };

struct ftr__philox_block {
    uint32_t of[4];
};

static __host__ __device__ __forceinline__ ftr__philox_block ftr__cuda_philox(uint32_t c0, uint32_t c1, uint32_t c2,
                                                                              uint32_t c3, uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

/* What is known of a stream before a step: the key of (seed, purpose), and the node's. */
struct ftr__cuda_stream_name {
    uint32_t purpose_key[2];
    uint64_t key;
    const uint64_t *step; /* device memory */
};

static inline ftr__cuda_stream_name ftr__cuda_stream_of(const ftr_kernel_call *call, ftr__cuda_purpose purpose,
                                                        uint64_t key) {
    const ftr__philox_block block =
        ftr__cuda_philox((uint32_t)purpose, 0, 0, 0x66747221u, (uint32_t)call->seed, (uint32_t)(call->seed >> 32));
    return {{block.of[0], block.of[1]}, key, ftr__cuda_of(call)->step};
}

/* The stream of the step that runs. */
struct ftr__cuda_rng {
    uint32_t key[2], counter[2]; /* counter: its upper half */
};

static __device__ __forceinline__ ftr__cuda_rng ftr__cuda_rng_of(const ftr__cuda_stream_name &name) {
    const uint64_t step = *name.step;
    const ftr__philox_block block = ftr__cuda_philox((uint32_t)name.key, (uint32_t)(name.key >> 32), (uint32_t)step,
                                                     (uint32_t)(step >> 32), name.purpose_key[0], name.purpose_key[1]);
    return {{block.of[0], block.of[1]}, {block.of[2], block.of[3]}};
}

/* The four numbers of block `block`. */
static __device__ __forceinline__ ftr__philox_block ftr__cuda_rng_block(const ftr__cuda_rng &rng, uint64_t block) {
    return ftr__cuda_philox((uint32_t)block, (uint32_t)(block >> 32), rng.counter[0], rng.counter[1], rng.key[0],
                            rng.key[1]);
}

static __device__ __forceinline__ uint32_t ftr__cuda_rng_at(const ftr__cuda_rng &rng, uint64_t index) {
    const ftr__philox_block block = ftr__cuda_rng_block(rng, index / 4);
    const uint32_t place = (uint32_t)index % 4;
    return place == 0 ? block.of[0] : place == 1 ? block.of[1] : place == 2 ? block.of[2] : block.of[3];
}

/* [0, 1) with 24 bits, exact in f32. */
static __device__ __forceinline__ float ftr__cuda_rng_unit(uint32_t bits) { return (float)(bits >> 8) * 0x1p-24f; }

/* Dropout's rule: an element with a number below the threshold is dropped, the others are scaled. */
struct ftr__cuda_dropout_rule {
    uint64_t threshold;
    float scale;
};

static inline ftr__cuda_dropout_rule ftr__cuda_dropout_rule_of(double p) {
    return {static_cast<uint64_t>(p * 4294967296.0), p < 1.0 ? static_cast<float>(1.0 / (1.0 - p)) : 0.0f};
}

/* ---- src/backend/cuda/rows.cuh ---- */
/* Lines of a tensor along an axis. Where the axis is the last one a line is a row, which a group of threads works on; otherwise
 * a thread has a line and neighbours read neighbouring elements. */

/* outer x n x inner elements: a line has n of them, `inner` apart. */
struct ftr__lines {
    int64_t outer, n, inner;
};

static inline ftr__lines ftr__lines_of(const ftr_shape *shape, int32_t axis) {
    ftr__lines lines = {1, shape->rank > 0 ? shape->dim[axis] : 1, 1};
    for (int32_t d = 0; d < axis; d++) lines.outer *= shape->dim[d];
    for (int32_t d = axis + 1; d < shape->rank; d++) lines.inner *= shape->dim[d];
    return lines;
}

/* Line i's first element. */
static __device__ __forceinline__ int64_t ftr__line_begin(const ftr__lines &lines, int64_t i) {
    const int64_t outer = i / lines.inner;
    return outer * lines.n * lines.inner + (i - outer * lines.inner);
}

/* A row of type T in the hands of G threads, 8 or 32 of a warp, or a whole block. It is read in tiles, of which a thread holds K
 * times 16 bytes as f32; a row that fits into one tile is read once. Which thread has which elements, and so the order of sums,
 * depends on the row's size alone. */
template <typename Element, int G, int K> struct ftr__row {
    using T = Element;
    static constexpr int pack = 16 / (int)sizeof(T), size = K * pack, tile = G * size, a_block = FTR__CUDA_THREADS / G;

    /* Place in the row of the thread's value i of the tile that begins at `first`. */
    static __device__ __forceinline__ int64_t place(int64_t first, int i) {
        return first + ((int64_t)(i / pack) * G + threadIdx.x % G) * pack + i % pack;
    }

    /* `packed`: rows begin at multiples of 16 bytes. Values behind the row are `none`. */
    static __device__ __forceinline__ void load(float *x, const T *row, int64_t first, int64_t n, bool packed, float none) {
        FTR__UNROLL
        for (int k = 0; k < K; k++) {
            const int64_t at = place(first, k * pack);
            if (packed && at < n) {
                const ftr__pack<T> p = *reinterpret_cast<const ftr__pack<T> *>(row + at);
                FTR__UNROLL
                for (int w = 0; w < pack; w++) x[k * pack + w] = ftr__to_float(p.of[w]);
            } else {
                FTR__UNROLL
                for (int w = 0; w < pack; w++) x[k * pack + w] = at + w < n ? ftr__to_float(row[at + w]) : none;
            }
        }
    }

    static __device__ __forceinline__ void store(const float *x, T *row, int64_t first, int64_t n, bool packed) {
        FTR__UNROLL
        for (int k = 0; k < K; k++) {
            const int64_t at = place(first, k * pack);
            if (packed && at < n) {
                ftr__pack<T> p;
                FTR__UNROLL
                for (int w = 0; w < pack; w++) p.of[w] = ftr__from_float<T>(x[k * pack + w]);
                *reinterpret_cast<ftr__pack<T> *>(row + at) = p;
            } else {
                FTR__UNROLL
                for (int w = 0; w < pack; w++)
                    if (at + w < n) row[at + w] = ftr__from_float<T>(x[k * pack + w]);
            }
        }
    }

    /* Over the group; all threads of the block call them. `room`: shared memory of 32 floats. */
    static __device__ __forceinline__ float sum(float x, float *room) {
        if constexpr (G > FTR__CUDA_WARP) {
            x = ftr__block_sum(x, room);
        } else {
            (void)room;
            for (int bits = G / 2; bits > 0; bits /= 2) x += __shfl_xor_sync(FTR__CUDA_FULL, x, bits);
        }
        return x;
    }

    static __device__ __forceinline__ float maximum(float x, float *room) {
        if constexpr (G > FTR__CUDA_WARP) {
            x = ftr__block_maximum(x, room);
        } else {
            (void)room;
            for (int bits = G / 2; bits > 0; bits /= 2) x = ftr__maximum(x, __shfl_xor_sync(FTR__CUDA_FULL, x, bits));
        }
        return x;
    }
};

/* Calls f with the kind of row that suits n elements of type T. */
template <typename T, typename F> static ftr_status ftr__for_row(int64_t n, F f) {
    constexpr int pack = 16 / (int)sizeof(T);
    if (n <= 8 * pack) return f(ftr__row<T, 8, 1>());
    if (n <= 32 * pack) return f(ftr__row<T, 32, 1>());
    if (n <= 128 * pack) return f(ftr__row<T, 32, 4>());
    if (n <= 256 * pack) return f(ftr__row<T, FTR__CUDA_THREADS, 1>());
    return f(ftr__row<T, FTR__CUDA_THREADS, 4>());
}

template <typename T> static inline bool ftr__rows_are_packed(int64_t n, const void *a, const void *b) {
    return n * (int64_t)sizeof(T) % 16 == 0 && reinterpret_cast<uintptr_t>(a) % 16 == 0 &&
           reinterpret_cast<uintptr_t>(b) % 16 == 0;
}

/* ------------------------------------------------------------------------------------------------ sums of exponentials -- */

/* The largest element, and the sum of e^(x - largest). With an infinite largest element the sum is NaN. */
struct ftr__exp_sum {
    float most, sum;
};

static __device__ __forceinline__ ftr__exp_sum ftr__exp_sum_none() { return {-INFINITY, 0.0f}; }

/* The sum for a larger largest element. -inf: nothing was added yet. */
static __device__ __forceinline__ float ftr__exp_sum_scaled(ftr__exp_sum s, float most) {
    return s.most == most ? s.sum : s.sum * expf(s.most - most);
}

static __device__ __forceinline__ float ftr__exp_term(float x, float most) {
    return x == -INFINITY ? 0.0f : expf(x - most);
}

static __device__ __forceinline__ void ftr__exp_sum_add(ftr__exp_sum &s, float x) {
    const float most = ftr__maximum(s.most, x);
    s.sum = ftr__exp_sum_scaled(s, most) + ftr__exp_term(x, most);
    s.most = most;
}

static __device__ __forceinline__ ftr__exp_sum ftr__exp_sum_end(ftr__exp_sum s) {
    if (fabsf(s.most) == INFINITY) s.sum = NAN;
    return s;
}

/* Of a row; x holds its last tile then. */
template <typename R>
static __device__ __forceinline__ ftr__exp_sum ftr__row_exp_sum(float *x, const typename R::T *row, int64_t n, bool packed,
                                                                float *room) {
    ftr__exp_sum s = ftr__exp_sum_none();
    for (int64_t first = 0; first < n; first += R::tile) {
        R::load(x, row, first, n, packed, -INFINITY);
        float most = s.most, part = 0.0f;
        FTR__UNROLL
        for (int i = 0; i < R::size; i++) most = ftr__maximum(most, x[i]);
        FTR__UNROLL
        for (int i = 0; i < R::size; i++) part += ftr__exp_term(x[i], most);
        s.sum = ftr__exp_sum_scaled(s, most) + part;
        s.most = most;
    }
    const float most = R::maximum(s.most, room);
    return ftr__exp_sum_end({most, R::sum(ftr__exp_sum_scaled(s, most), room)});
}

/* Of a line whose elements are `stride` apart. */
template <typename T>
static __device__ __forceinline__ ftr__exp_sum ftr__line_exp_sum(const T *line, int64_t n, int64_t stride) {
    ftr__exp_sum s = ftr__exp_sum_none();
    FTR__NO_UNROLL
    for (int64_t r = 0; r < n; r++) ftr__exp_sum_add(s, ftr__to_float(line[r * stride]));
    return ftr__exp_sum_end(s);
}

/* ---- src/backend/cuda/blas.cuh ---- */
/* Matrix products of row-major tensors. */

/* A dimension of a batch, and how far apart its matrices lie, in elements; 0: they are one. */
struct ftr__product_batch {
    int64_t count, a, b, d;
};

/* D = alpha op(A) op(B) + beta C + bias, then ReLU if it is asked for. Sums are of f32. */
struct ftr__product {
    ftr_dtype dtype; /* f32, f16 or bf16: of all tensors */
    bool transpose_a, transpose_b;
    bool add_bias, relu;
    int64_t m, n, k;
    const void *a;               /* [m, k]; transposed: [k, m] */
    const void *b;               /* [k, n]; transposed: [n, k] */
    void *d;                     /* [m, n] */
    const void *c;               /* as D lies, which it may be; read if beta is not 0 */
    const void *bias;            /* [n] */
    int64_t a_row, b_row, d_row; /* elements from a row, as it is stored, to the next */
    float alpha, beta;
    int32_t batches; /* dimensions */
    ftr__product_batch batch[FTR_MAX_RANK];
};

/* Computes it, in the order of the stream. Pointers need an element's alignment; D overlaps nothing but C. */
FTR__CUDA_LIB ftr_status ftr__product_run(const ftr_kernel_call *call, const ftr__product *product);

/* What computes it, in words. Pointers may be nullptr. */
FTR__CUDA_LIB const char *ftr__product_algorithm(const ftr_kernel_call *call, const ftr__product *product);

/* The library's handle, its workspace and what it said about products, as cuda->blas. Closing what was not opened is
 * nothing. */
FTR__CUDA_LIB ftr_status ftr__blas_open(ftr_context *context, ftr__cuda *cuda);
FTR__CUDA_LIB void ftr__blas_close(ftr_context *context, ftr__cuda *cuda);

/* Of a matmul or linear node. */
FTR__CUDA_LIB const char *ftr__cuda_matmul_algorithm(const ftr_kernel_call *call);

/* ---- src/backend/cuda/device.cu ---- */
/* The device: choosing and opening it, memory, copies, and steps, which become one CUDA graph once they have run. */

#include <cstdlib>
#include <cstring>

/* The least that is supported: tensor cores with bf16. */
#define FTR__CUDA_LEAST_MAJOR 8

/* A plan's step with one set of nodes. It is run twice: as it comes, so that everything is loaded that loads itself on first
 * use, then into a capture; from then on the graph is launched. */
struct ftr__cuda_graph {
    const ftr_plan *plan;
    int32_t variant;
    cudaGraphExec_t made; /* nullptr: not yet */
    ftr__cuda_graph *next;
};

static ftr_status ftr__cuda_failed(ftr_context *context, cudaError_t error, const char *what) {
    const ftr_status status = error == cudaErrorMemoryAllocation ? FTR_ERROR_OUT_OF_MEMORY : FTR_ERROR_DEVICE;
    return ftr_backend_fail(context, status, "cuda: %s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

/* Returns from the function with a failure of CUDA's. */
#define FTR__CUDA_TRY(context, call, what)                                                                             \
    do {                                                                                                               \
        const cudaError_t ftr__error_of_call = (call);                                                                 \
        if (ftr__error_of_call != cudaSuccess) return ftr__cuda_failed(context, ftr__error_of_call, what);             \
    } while (0)

/* ---------------------------------------------------------------------------------------------------------- opening -- */

static ftr_status ftr__cuda_count(ftr_context *context, int32_t *count) {
    int found = 0, driver = 0;
    const cudaError_t error = cudaGetDeviceCount(&found);
    if (error == cudaErrorInsufficientDriver) {
        if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
            return ftr_backend_fail(context, FTR_ERROR_DEVICE,
                                    "cuda: there is no NVIDIA driver: install one for CUDA %d or newer, or use device \"cpu\"",
                                    CUDART_VERSION / 1000);
        return ftr_backend_fail(context, FTR_ERROR_DEVICE,
                                "cuda: the driver is for CUDA %d.%d, the program for %d.%d: install a newer driver",
                                driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    }
    if (error == cudaErrorNoDevice || (error == cudaSuccess && found == 0))
        return ftr_backend_fail(context, FTR_ERROR_DEVICE, "cuda: the driver found no GPU: use device \"cpu\"");
    if (error != cudaSuccess) return ftr__cuda_failed(context, error, "cudaGetDeviceCount");
    *count = found;
    return FTR_OK;
}

/* The device with the most free memory. */
static ftr_status ftr__cuda_roomiest(ftr_context *context, int32_t count, int32_t *device) {
    size_t most = 0;
    *device = 0;
    for (int32_t i = 0; i < count && count > 1; i++) {
        size_t free_bytes = 0, total = 0;
        FTR__CUDA_TRY(context, cudaSetDevice(i), "cudaSetDevice");
        FTR__CUDA_TRY(context, cudaMemGetInfo(&free_bytes, &total), "cudaMemGetInfo");
        if (free_bytes > most) {
            most = free_bytes;
            *device = i;
        }
    }
    return FTR_OK;
}

static ftr_status ftr__cuda_choose(ftr_context *context, int32_t asked, ftr__cuda *cuda) {
    int32_t count = 0;
    ftr_status status = ftr__cuda_count(context, &count);
    if (status) return status;
    cuda->device = asked;
    if (asked < 0) status = ftr__cuda_roomiest(context, count, &cuda->device);
    if (status) return status;
    if (cuda->device >= count)
        return ftr_backend_fail(context, FTR_ERROR_DEVICE, "cuda: device %d was asked for, there are %d (cuda:0 to cuda:%d)",
                                (int)asked, (int)count, (int)count - 1);
    FTR__CUDA_TRY(context, cudaGetDeviceProperties(&cuda->properties, cuda->device), "cudaGetDeviceProperties");
    if (cuda->properties.major < FTR__CUDA_LEAST_MAJOR)
        return ftr_backend_fail(context, FTR_ERROR_DEVICE,
                                "cuda: device %d (%s) has compute capability %d.%d, expected %d.0 or more: use another device "
                                "or \"cpu\"",
                                (int)cuda->device, cuda->properties.name, cuda->properties.major, cuda->properties.minor,
                                FTR__CUDA_LEAST_MAJOR);
    FTR__CUDA_TRY(context, cudaSetDevice(cuda->device), "cudaSetDevice");
    return FTR_OK;
}

/* FASTTRAIN_CUDA_STEPS: graph (the default), nodes (launched one by one), wait (and each waited for, so that a failure is the
 * node's that caused it). */
static ftr_status ftr__cuda_steps(ftr_context *context, ftr__cuda *cuda) {
    const char *word = getenv("FASTTRAIN_CUDA_STEPS");
    if (!word || !*word) word = "graph";
    cuda->capture = strcmp(word, "graph") == 0;
    cuda->synchronous = strcmp(word, "wait") == 0;
    if (cuda->capture || cuda->synchronous || strcmp(word, "nodes") == 0) return FTR_OK;
    return ftr_backend_fail(context, FTR_ERROR_INVALID_ARGUMENT,
                            "FASTTRAIN_CUDA_STEPS is '%s', expected graph, nodes or wait", word);
}

/* FASTTRAIN_TF32: off (the default) or on. */
static ftr_status ftr__cuda_take_tf32(ftr_context *context, ftr__cuda *cuda) {
    const char *word = getenv("FASTTRAIN_TF32");
    if (!word || !*word) word = "off";
    cuda->tf32 = strcmp(word, "on") == 0;
    if (cuda->tf32 || strcmp(word, "off") == 0) return FTR_OK;
    return ftr_backend_fail(context, FTR_ERROR_INVALID_ARGUMENT, "FASTTRAIN_TF32 is '%s', expected on or off", word);
}

static ftr_status ftr__cuda_prepare(ftr_context *context, int32_t device, ftr__cuda *cuda) {
    ftr_status status = ftr__cuda_steps(context, cuda);
    if (!status) status = ftr__cuda_take_tf32(context, cuda);
    if (!status) status = ftr__cuda_choose(context, device, cuda);
    if (status) return status;
    void *memory = nullptr;
    FTR__CUDA_TRY(context, cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    FTR__CUDA_TRY(context, cudaMalloc(&memory, sizeof(uint64_t)), "cudaMalloc");
    cuda->step = static_cast<uint64_t *>(memory);
    FTR__CUDA_TRY(context, cudaMalloc(&memory, sizeof(ftr__cuda_fault)), "cudaMalloc");
    cuda->fault = static_cast<ftr__cuda_fault *>(memory);
    FTR__CUDA_TRY(context, cudaMallocHost(&memory, sizeof(ftr__cuda_fault)), "cudaMallocHost");
    cuda->seen_fault = static_cast<ftr__cuda_fault *>(memory);
    memset(cuda->seen_fault, 0, sizeof *cuda->seen_fault);
    FTR__CUDA_TRY(context, cudaMemsetAsync(cuda->fault, 0, sizeof *cuda->fault, cuda->stream), "cudaMemsetAsync");
    FTR__CUDA_TRY(context, cudaStreamSynchronize(cuda->stream), "cudaStreamSynchronize");
    status = ftr__dnn_open(context, cuda);
    return status ? status : ftr__blas_open(context, cuda);
}

static void ftr__cuda_close(ftr_context *context, void *state) {
    ftr__cuda *cuda = static_cast<ftr__cuda *>(state);
    if (cuda->stream) (void)cudaStreamSynchronize(cuda->stream);
    ftr__dnn_close(context, cuda);
    ftr__blas_close(context, cuda);
    if (cuda->stream) (void)cudaStreamDestroy(cuda->stream);
    if (cuda->step) (void)cudaFree(cuda->step);
    if (cuda->fault) (void)cudaFree(cuda->fault);
    if (cuda->seen_fault) (void)cudaFreeHost(cuda->seen_fault);
    ftr_backend_release(context, cuda, sizeof *cuda);
}

static ftr_status ftr__cuda_open(ftr_context *context, int32_t threads, int32_t device, void **state) {
    (void)threads;
    ftr__cuda *cuda = static_cast<ftr__cuda *>(ftr_backend_allocate(context, sizeof *cuda));
    if (!cuda)
        return ftr_backend_fail(context, FTR_ERROR_OUT_OF_MEMORY, "cuda: %zu bytes could not be allocated", sizeof *cuda);
    memset(static_cast<void *>(cuda), 0, sizeof *cuda);
    cuda->context = context;
    const ftr_status status = ftr__cuda_prepare(context, device, cuda);
    if (status)
        ftr__cuda_close(context, cuda);
    else
        *state = cuda;
    return status;
}

/* ------------------------------------------------------------------------------------------------- memory and copies -- */

static void *ftr__cuda_allocate(ftr_context *context, void *state, size_t size) {
    void *memory = nullptr;
    (void)state;
    const cudaError_t error = cudaMalloc(&memory, size ? size : 1);
    if (error == cudaSuccess) return memory;
    size_t free_bytes = 0, total = 0;
    if (error == cudaErrorMemoryAllocation && cudaMemGetInfo(&free_bytes, &total) == cudaSuccess)
        (void)ftr_backend_fail(context, FTR_ERROR_OUT_OF_MEMORY,
                               "cuda: %zu bytes of device memory were asked for, %zu of %zu are free", size, free_bytes, total);
    else
        (void)ftr__cuda_failed(context, error, "cudaMalloc");
    (void)cudaGetLastError(); /* it is told of once */
    return nullptr;
}

static void ftr__cuda_release(ftr_context *context, void *state, void *memory, size_t size) {
    (void)context;
    (void)state;
    (void)size;
    (void)cudaFree(memory);
}

/* The sentence of a fault, as the CPU backend has it. */
static ftr_status ftr__cuda_tell(ftr_context *context, const ftr__cuda_fault *fault) {
    static const char *const forms[] = {
        "",
        "%s '%s': index %lld at position %lld is outside the %lld rows",
        "%s '%s': index %lld at position %lld is outside the axis, which has size %lld",
        "%s '%s': index %lld at position %lld is outside the %lld classes",
        "%s '%s': label %lld at row %lld is outside the %lld classes",
        "%s '%s': the partner %lld of row %lld is outside the %lld rows",
        "%s '%s': a box from row %lld to row %lld in images of height %lld",
        "%s '%s': a box from column %lld to column %lld in images of width %lld",
    };
    return ftr_backend_fail(context, FTR_ERROR_DATA, forms[fault->kind], fault->op, fault->node,
                            static_cast<long long>(fault->found), static_cast<long long>(fault->position),
                            static_cast<long long>(fault->limit));
}

/* Reports the fault that a finished step left, once. */
static ftr_status ftr__cuda_take_fault(ftr_context *context, ftr__cuda *cuda) {
    const ftr__cuda_fault fault = *cuda->seen_fault;
    if (fault.kind == FTR__CUDA_FAULT_NONE) return FTR_OK;
    FTR__CUDA_TRY(context, cudaStreamSynchronize(cuda->stream), "cudaStreamSynchronize");
    memset(cuda->seen_fault, 0, sizeof *cuda->seen_fault);
    FTR__CUDA_TRY(context, cudaMemsetAsync(cuda->fault, 0, sizeof *cuda->fault, cuda->stream), "cudaMemsetAsync");
    return ftr__cuda_tell(context, &fault);
}

/* `from` may be used again when it returns: CUDA has then copied it, or a copy of it waits in the stream. */
static ftr_status ftr__cuda_upload(ftr_context *context, void *state, void *to, const void *from, size_t size) {
    const ftr__cuda *cuda = static_cast<ftr__cuda *>(state);
    FTR__CUDA_TRY(context, cudaMemcpyAsync(to, from, size, cudaMemcpyHostToDevice, cuda->stream), "cudaMemcpyAsync");
    return FTR_OK;
}

static ftr_status ftr__cuda_download(ftr_context *context, void *state, void *to, const void *from, size_t size) {
    ftr__cuda *cuda = static_cast<ftr__cuda *>(state);
    FTR__CUDA_TRY(context, cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToHost, cuda->stream), "cudaMemcpyAsync");
    FTR__CUDA_TRY(context, cudaStreamSynchronize(cuda->stream), "cudaStreamSynchronize");
    return ftr__cuda_take_fault(context, cuda);
}

/* What the data sheet says: multiply-adds in f32 of all multiprocessors, and the memory's bus. */
static ftr_status ftr__cuda_measure(ftr_context *context, void *state, ftr_machine *machine) {
    const ftr__cuda *cuda = static_cast<ftr__cuda *>(state);
    int clock = 0, memory_clock = 0, bus = 0;
    FTR__CUDA_TRY(context, cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, cuda->device), "cudaDeviceGetAttribute");
    FTR__CUDA_TRY(context, cudaDeviceGetAttribute(&memory_clock, cudaDevAttrMemoryClockRate, cuda->device),
                  "cudaDeviceGetAttribute");
    FTR__CUDA_TRY(context, cudaDeviceGetAttribute(&bus, cudaDevAttrGlobalMemoryBusWidth, cuda->device),
                  "cudaDeviceGetAttribute");
    machine->flops = 2.0 * 128.0 * cuda->properties.multiProcessorCount * clock * 1e3;
    machine->bandwidth = 2.0 * memory_clock * 1e3 * bus / 8.0;
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------------ steps -- */

FTR__KERNEL ftr__set_step(uint64_t *to, uint64_t step) { *to = step; }

static ftr__cuda_graph *ftr__cuda_graph_of(ftr_context *context, ftr__cuda *cuda, const ftr_plan *plan, int32_t variant,
                                           bool *fresh) {
    *fresh = false;
    for (ftr__cuda_graph *g = cuda->graphs; g; g = g->next)
        if (g->plan == plan && g->variant == variant) return g;
    ftr__cuda_graph *made = static_cast<ftr__cuda_graph *>(ftr_backend_allocate(context, sizeof *made));
    if (!made) return nullptr;
    *made = ftr__cuda_graph{plan, variant, nullptr, cuda->graphs};
    cuda->graphs = made;
    *fresh = true;
    return made;
}

static ftr_status ftr__cuda_begin_step(ftr_context *context, void *state, const ftr_plan *plan, int32_t variant,
                                       uint64_t step, bool node_by_node, bool *replay) {
    ftr__cuda *cuda = static_cast<ftr__cuda *>(state);
    const ftr_status status = ftr__cuda_take_fault(context, cuda);
    if (status) return status;
    cuda->node_by_node = node_by_node || cuda->synchronous;
    cuda->capturing = nullptr;
    FTR__CUDA_TRY(context, ftr__cuda_start("ftr__set_step", ftr__set_step, dim3(1), dim3(1), cuda->stream, cuda->step, step),
                  "ftr__set_step");
    if (!cuda->capture || cuda->node_by_node) return FTR_OK;
    bool fresh;
    ftr__cuda_graph *graph = ftr__cuda_graph_of(context, cuda, plan, variant, &fresh);
    if (!graph)
        return ftr_backend_fail(context, FTR_ERROR_OUT_OF_MEMORY, "cuda: %zu bytes could not be allocated", sizeof *graph);
    if (graph->made) {
        FTR__CUDA_TRY(context, cudaGraphLaunch(graph->made, cuda->stream), "cudaGraphLaunch");
        *replay = true;
    } else if (!fresh) {
        FTR__CUDA_TRY(context, cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal),
                      "cudaStreamBeginCapture");
        cuda->capturing = graph;
    }
    return FTR_OK;
}

/* Makes the captured nodes a graph and launches it. */
static ftr_status ftr__cuda_end_capture(ftr_context *context, ftr__cuda *cuda, ftr_status failure) {
    ftr__cuda_graph *graph = cuda->capturing;
    cudaGraph_t nodes = nullptr;
    cuda->capturing = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(cuda->stream, &nodes);
    cudaError_t error = ended;
    if (!failure && error == cudaSuccess) error = cudaGraphInstantiate(&graph->made, nodes, 0);
    if (nodes) (void)cudaGraphDestroy(nodes);
    if (failure) return failure;
    FTR__CUDA_TRY(context, error, ended == cudaSuccess ? "cudaGraphInstantiate" : "cudaStreamEndCapture");
    FTR__CUDA_TRY(context, cudaGraphLaunch(graph->made, cuda->stream), "cudaGraphLaunch");
    return FTR_OK;
}

static ftr_status ftr__cuda_end_step(ftr_context *context, void *state, ftr_status failure) {
    ftr__cuda *cuda = static_cast<ftr__cuda *>(state);
    if (cuda->capturing) failure = ftr__cuda_end_capture(context, cuda, failure);
    if (failure) return failure;
    FTR__CUDA_TRY(context,
                  cudaMemcpyAsync(cuda->seen_fault, cuda->fault, sizeof *cuda->fault, cudaMemcpyDeviceToHost, cuda->stream),
                  "cudaMemcpyAsync");
    return FTR_OK;
}

static void ftr__cuda_forget_plan(ftr_context *context, void *state, const ftr_plan *plan) {
    ftr__cuda *cuda = static_cast<ftr__cuda *>(state);
    (void)cudaStreamSynchronize(cuda->stream);
    for (ftr__cuda_graph **at = &cuda->graphs; *at;) {
        ftr__cuda_graph *graph = *at;
        if (graph->plan != plan) {
            at = &graph->next;
            continue;
        }
        *at = graph->next;
        if (graph->made) (void)cudaGraphExecDestroy(graph->made);
        ftr_backend_release(context, graph, sizeof *graph);
    }
}

/* ------------------------------------------------------------------------------------------------------- the kernels -- */

/* What an op's kernels are. */
struct ftr__cuda_kernel {
    ftr_status (*run)(const ftr_kernel_call *call);
    size_t (*workspace)(const ftr_kernel_call *call);
};

static ftr__cuda_kernel ftr__cuda_kernel_of(ftr_op op) {
    switch (op) {
#define FTR__CUDA_CASE(name, run, workspace) case FTR_OP_##name: return {run, workspace};
        FTR__CUDA_KERNELS(FTR__CUDA_CASE)
#undef FTR__CUDA_CASE
    default: return {nullptr, nullptr};
    }
}

static ftr_status ftr__cuda_run(const ftr_kernel_call *call) {
    const ftr__cuda *cuda = ftr__cuda_of(call);
    const ftr_status status = ftr__cuda_kernel_of(call->op).run(call);
    if (status || !cuda->node_by_node) return status;
    return ftr__cuda_check(call, cudaStreamSynchronize(cuda->stream), "the node's kernels");
}

static size_t ftr__cuda_workspace(const ftr_kernel_call *call) {
    const ftr__cuda_kernel kernel = ftr__cuda_kernel_of(call->op);
    return kernel.workspace ? kernel.workspace(call) : 0;
}

static const char *ftr__cuda_algorithm(const ftr_kernel_call *call) {
    switch (call->op) {
    case FTR_OP_conv2d:
    case FTR_OP_conv2d_grad_input:
    case FTR_OP_conv2d_grad_weight: return ftr__cuda_conv2d_algorithm(call);
    case FTR_OP_matmul:
    case FTR_OP_linear: return ftr__cuda_matmul_algorithm(call);
    default: return "";
    }
}

static ftr_status ftr__cuda_check_call(const ftr_kernel_call *call) {
    for (int32_t i = 0; i < call->in_count + call->out_count; i++) {
        const ftr_view *view = i < call->in_count ? &call->in[i] : &call->out[i - call->in_count];
        if (view->dtype == FTR_F64) return ftr_backend_error(call, FTR_ERROR_UNSUPPORTED, "the cuda backend has no f64 kernels");
    }
    return FTR_OK;
}

/* C++17 has no designated entries of arrays: a constant expression fills the table. */
struct ftr__cuda_entries {
    ftr_kernel of[FTR_OP_COUNT];
};

static constexpr ftr__cuda_entries ftr__cuda_make_entries() {
    ftr__cuda_entries entries = {};
#define FTR__CUDA_ENTRY(name, run_function, workspace_function)                                                        \
    entries.of[FTR_OP_##name] = ftr_kernel{ftr__cuda_run, ftr__cuda_check_call, ftr__cuda_workspace, nullptr,          \
                                            ftr__cuda_algorithm};
    FTR__CUDA_KERNELS(FTR__CUDA_ENTRY)
#undef FTR__CUDA_ENTRY
    return entries;
}

static constexpr ftr__cuda_entries ftr__cuda_table = ftr__cuda_make_entries();

static const ftr_backend ftr__cuda_backend = {
    FTR_BACKEND_VERSION,  "cuda",
    false,                ftr__cuda_open,
    ftr__cuda_close,      ftr__cuda_allocate,
    ftr__cuda_release,    ftr__cuda_upload,
    ftr__cuda_download,   ftr__cuda_measure,
    ftr__cuda_table.of,   ftr__cuda_begin_step,
    ftr__cuda_end_step,   ftr__cuda_forget_plan,
};

const ftr_backend *ftr_cuda_backend(void) { return &ftr__cuda_backend; }

/* ---- src/backend/cuda/pointwise.cu ---- */
/* Pointwise kernels. What an op computes is chosen at run time, alike for all threads, so that a few kernels do for all of
 * them; they are bound by memory. Tensors of one shape and type are read and written 16 bytes at a time. */

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

/* ---- src/backend/cuda/reduce.cu ---- */
/* Sums, means and maxima over some of a tensor's dimensions, in an order that depends on shapes alone.
 *
 * The dimensions are joined to runs that are reduced or kept. Where the last run is kept, a thread has a result of its own
 * and neighbours read neighbouring elements; where it is reduced, a block has one. Long reductions are cut into parts, which a
 * second kernel joins. */

struct ftr__reduction {
    const void *in;
    ftr_dtype in_dtype, out_dtype;
    void *out;
    bool kept_last;
    int64_t outputs, count; /* results; elements of each */
    int64_t parts, a_part;  /* of a reduction, and elements of a part */
    double scale;           /* of a mean */
    int32_t kept, reduced;  /* runs */
    int64_t kept_dim[FTR_MAX_RANK], kept_stride[FTR_MAX_RANK];
    int64_t reduced_dim[FTR_MAX_RANK], reduced_stride[FTR_MAX_RANK];
};

static __device__ __forceinline__ int64_t ftr__reduction_offset(int64_t i, int32_t runs, const int64_t *dim,
                                                                const int64_t *stride) {
    int64_t at = 0;
    for (int32_t d = runs - 1; d >= 0; d--) {
        const int64_t next = i / dim[d];
        at += (i - next * dim[d]) * stride[d];
        i = next;
    }
    return at;
}

/* How elements are joined. `index` is an element's place among those of its result. */
struct ftr__sum_real {
    using T = double; /* sums of large numbers that cancel out */
    static __device__ __forceinline__ T none() { return 0.0; }
    static __device__ __forceinline__ T load(const ftr__reduction &p, int64_t at, int64_t index) {
        (void)index;
        return ftr__load_real(p.in, p.in_dtype, at);
    }
    static __device__ __forceinline__ T join(T a, T b) { return a + b; }
    static __device__ __forceinline__ T lane(T a, int bits) { return __shfl_xor_sync(FTR__CUDA_FULL, a, bits); }
    static __device__ __forceinline__ void store(const ftr__reduction &p, int64_t o, T a) {
        ftr__store_real(p.out, p.out_dtype, o, static_cast<float>(a * p.scale));
    }
};

/* Wraps, as unsigned numbers do. */
struct ftr__sum_integer {
    using T = unsigned long long;
    static __device__ __forceinline__ T none() { return 0; }
    static __device__ __forceinline__ T load(const ftr__reduction &p, int64_t at, int64_t index) {
        (void)index;
        return static_cast<T>(ftr__load_integer(p.in, p.in_dtype, at));
    }
    static __device__ __forceinline__ T join(T a, T b) { return a + b; }
    static __device__ __forceinline__ T lane(T a, int bits) { return __shfl_xor_sync(FTR__CUDA_FULL, a, bits); }
    static __device__ __forceinline__ void store(const ftr__reduction &p, int64_t o, T a) {
        ftr__store_integer(p.out, p.out_dtype, o, static_cast<int64_t>(a));
    }
};

/* The first of the largest elements; NaN is larger than all. An index of -1: none yet. */
template <typename V, bool POSITION> struct ftr__first_largest {
    struct T {
        V value;
        int64_t index;
    };
    static __device__ __forceinline__ T none() { return T{V(0), -1}; }
    static __device__ __forceinline__ V value(const ftr__reduction &p, int64_t at, float) {
        return ftr__load_real(p.in, p.in_dtype, at);
    }
    static __device__ __forceinline__ V value(const ftr__reduction &p, int64_t at, int64_t) {
        return ftr__load_integer(p.in, p.in_dtype, at);
    }
    static __device__ __forceinline__ T load(const ftr__reduction &p, int64_t at, int64_t index) {
        return T{value(p, at, V()), index};
    }
    static __device__ __forceinline__ bool beats(const T &a, const T &b) {
        if (a.index < 0 || b.index < 0) return b.index < 0;
        const bool a_is_nan = a.value != a.value, b_is_nan = b.value != b.value;
        if (a_is_nan || b_is_nan) return a_is_nan && (!b_is_nan || a.index < b.index);
        return a.value > b.value || (a.value == b.value && a.index < b.index);
    }
    static __device__ __forceinline__ T join(T a, T b) { return beats(b, a) ? b : a; }
    static __device__ __forceinline__ T lane(T a, int bits) {
        return T{__shfl_xor_sync(FTR__CUDA_FULL, a.value, bits), __shfl_xor_sync(FTR__CUDA_FULL, a.index, bits)};
    }
    static __device__ __forceinline__ void keep(const ftr__reduction &p, int64_t o, float x) {
        ftr__store_real(p.out, p.out_dtype, o, x);
    }
    static __device__ __forceinline__ void keep(const ftr__reduction &p, int64_t o, int64_t x) {
        ftr__store_integer(p.out, p.out_dtype, o, x);
    }
    static __device__ __forceinline__ void store(const ftr__reduction &p, int64_t o, T a) {
        if (POSITION)
            ftr__store_integer(p.out, p.out_dtype, o, a.index);
        else
            keep(p, o, a.value);
    }
};

/* A thread a result and part. */
template <typename R> FTR__KERNEL ftr__reduce_columns(ftr__reduction p, typename R::T *partial) {
    FTR__GRID_LOOP(i, p.outputs * p.parts) {
        const int64_t o = i % p.outputs, part = i / p.outputs;
        const int64_t begin = part * p.a_part, end = min(p.count, begin + p.a_part);
        const int64_t base = ftr__reduction_offset(o, p.kept, p.kept_dim, p.kept_stride);
        typename R::T result = R::none();
        for (int64_t r = begin; r < end; r++)
            result = R::join(result, R::load(p, base + ftr__reduction_offset(r, p.reduced, p.reduced_dim, p.reduced_stride), r));
        if (p.parts == 1)
            R::store(p, o, result);
        else
            partial[i] = result;
    }
}

/* A block a result and part. */
template <typename R> FTR__KERNEL ftr__reduce_rows(ftr__reduction p, typename R::T *partial) {
    FTR_SHARED(typename R::T, of_warp, FTR__CUDA_THREADS / FTR__CUDA_WARP);
    for (int64_t i = blockIdx.x; i < p.outputs * p.parts; i += gridDim.x) {
        const int64_t o = i % p.outputs, part = i / p.outputs;
        const int64_t begin = part * p.a_part, end = min(p.count, begin + p.a_part);
        const int64_t base = ftr__reduction_offset(o, p.kept, p.kept_dim, p.kept_stride);
        typename R::T result = R::none();
        for (int64_t r = begin + threadIdx.x; r < end; r += blockDim.x)
            result = R::join(result, R::load(p, base + ftr__reduction_offset(r, p.reduced, p.reduced_dim, p.reduced_stride), r));
        for (int bits = 16; bits > 0; bits /= 2) result = R::join(result, R::lane(result, bits));
        if (threadIdx.x % FTR__CUDA_WARP == 0) of_warp[threadIdx.x / FTR__CUDA_WARP] = result;
        __syncthreads();
        if (threadIdx.x == 0) {
            for (unsigned w = 1; w < blockDim.x / FTR__CUDA_WARP; w++) result = R::join(result, of_warp[w]);
            if (p.parts == 1)
                R::store(p, o, result);
            else
                partial[i] = result;
        }
        __syncthreads();
    }
}

template <typename R> FTR__KERNEL ftr__reduce_parts(ftr__reduction p, const typename R::T *partial) {
    FTR__GRID_LOOP(o, p.outputs) {
        typename R::T result = R::none();
        for (int64_t part = 0; part < p.parts; part++) result = R::join(result, partial[part * p.outputs + o]);
        R::store(p, o, result);
    }
}

#define FTR__REDUCE_PART 2048 /* elements of a part that a thread is to have at least, or a block 16 times as many */
#define FTR__REDUCE_MOST 256  /* parts */

static ftr__reduction ftr__reduction_plan(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0];
    ftr__reduction p = {};
    p.in = x->data;
    p.in_dtype = x->dtype;
    p.out = call->out[0].data;
    p.out_dtype = call->out[0].dtype;
    p.outputs = p.count = 1;
    int32_t last = -1; /* whether the run before is reduced; -1: there is none */
    int64_t stride = 1;
    int64_t dims[FTR_MAX_RANK] = {}, strides[FTR_MAX_RANK] = {};
    bool is_reduced[FTR_MAX_RANK] = {};
    int32_t runs = 0;
    for (int32_t d = x->shape.rank - 1; d >= 0; d--) { /* from the last dimension on */
        const bool reduce = call->attr->axes.mask >> d & 1;
        if (x->shape.dim[d] != 1) {
            if (last != (int32_t)reduce) {
                dims[runs] = 1;
                strides[runs] = stride;
                is_reduced[runs++] = reduce;
                last = reduce;
            }
            dims[runs - 1] *= x->shape.dim[d];
        }
        stride *= x->shape.dim[d];
    }
    p.kept_last = runs > 0 && !is_reduced[0];
    for (int32_t r = runs - 1; r >= 0; r--) {
        if (is_reduced[r]) {
            p.count *= dims[r];
            p.reduced_dim[p.reduced] = dims[r];
            p.reduced_stride[p.reduced++] = strides[r];
        } else {
            p.outputs *= dims[r];
            p.kept_dim[p.kept] = dims[r];
            p.kept_stride[p.kept++] = strides[r];
        }
    }
    p.scale = call->op == FTR_OP_mean ? 1.0 / (double)p.count : 1.0;
    const int64_t least = p.kept_last ? FTR__REDUCE_PART / 16 : FTR__REDUCE_PART * 16;
    const int64_t wanted = p.kept_last ? 262144 / (p.outputs + 1) : 1024 / (p.outputs + 1); /* threads or blocks in all */
    p.parts = p.count / least < wanted ? p.count / least : wanted;
    p.parts = p.parts < 1 ? 1 : p.parts > FTR__REDUCE_MOST ? FTR__REDUCE_MOST : p.parts;
    p.a_part = (p.count + p.parts - 1) / p.parts;
    return p;
}

template <typename R> static ftr_status ftr__reduce(const ftr_kernel_call *call) {
    const ftr__reduction p = ftr__reduction_plan(call);
    typename R::T *partial = static_cast<typename R::T *>(call->workspace);
    const int64_t tasks = p.outputs * p.parts;
    if (call->out[0].count == 0) return FTR_OK;
    ftr_status status;
    if (p.kept_last)
        status = FTR_LAUNCH(call, (ftr__reduce_columns<R>), ftr__cuda_blocks(tasks), FTR__CUDA_THREADS, p, partial);
    else
        status = FTR_LAUNCH(call, (ftr__reduce_rows<R>), ftr__cuda_blocks(tasks, 1), FTR__CUDA_THREADS, p, partial);
    if (status || p.parts == 1) return status;
    return FTR_LAUNCH(call, (ftr__reduce_parts<R>), ftr__cuda_blocks(p.outputs), FTR__CUDA_THREADS, p, partial);
}

FTR__CUDA_LIB ftr_status ftr__cuda_reduce(const ftr_kernel_call *call) {
    const bool real = ftr__cuda_is_real(call->in[0].dtype);
    switch (call->op) {
    case FTR_OP_max:
        return real ? ftr__reduce<ftr__first_largest<float, false>>(call) : ftr__reduce<ftr__first_largest<int64_t, false>>(call);
    case FTR_OP_argmax:
        return real ? ftr__reduce<ftr__first_largest<float, true>>(call) : ftr__reduce<ftr__first_largest<int64_t, true>>(call);
    default: return real ? ftr__reduce<ftr__sum_real>(call) : ftr__reduce<ftr__sum_integer>(call);
    }
}

/* A partial result is 16 bytes at most. */
FTR__CUDA_LIB size_t ftr__cuda_reduce_workspace(const ftr_kernel_call *call) {
    const ftr__reduction p = ftr__reduction_plan(call);
    return p.parts == 1 ? 0 : 16 * static_cast<size_t>(p.outputs * p.parts);
}

/* ---- src/backend/cuda/shape.cu ---- */
/* Kernels that move elements: each element of the result is read from a place that its coordinates give. Elements are copied as
 * units of 1, 2, 4, 8 or 16 bytes: several of them at once where they lie together on both sides. */

/* Calls f with a value of the unit's type, which does not count. */
template <typename F> static ftr_status ftr__for_unit(int64_t bytes, F f) {
    switch (bytes) {
    case 1: return f(uint8_t());
    case 2: return f(uint16_t());
    case 4: return f(uint32_t());
    case 8: return f(uint64_t());
    default: return f(ftr__pack<uint32_t>());
    }
}

/* The largest unit that divides `bytes`, a number of them or an address; 0 has all. */
static int64_t ftr__unit_of(int64_t unit, int64_t bytes) {
    while (bytes % unit != 0) unit /= 2;
    return unit;
}

static int64_t ftr__unit_of(int64_t unit, const void *address) {
    return ftr__unit_of(unit, static_cast<int64_t>(reinterpret_cast<uintptr_t>(address) % 16));
}

/* ----------------------------------------------------------------------------------------------------------- walks -- */

/* Element at coordinates c of the result lies at the sum of offset + c[d] * stride[d]; 0 stretches. */
struct ftr__walk {
    const void *in;
    void *out;
    int32_t rank;
    int64_t count, offset, dim[FTR_MAX_RANK], stride[FTR_MAX_RANK];
};

/* I: a type for numbers of elements, whose division is fast if it is small. */
template <typename T, typename I> FTR__KERNEL ftr__walk_kernel(ftr__walk p) {
    FTR__GRID_LOOP(i, p.count) {
        int64_t at = p.offset;
        I rest = static_cast<I>(i);
        for (int32_t d = p.rank - 1; d >= 0; d--) {
            const I next = rest / static_cast<I>(p.dim[d]);
            at += static_cast<int64_t>(rest - next * static_cast<I>(p.dim[d])) * p.stride[d];
            rest = next;
        }
        static_cast<T *>(p.out)[i] = static_cast<const T *>(p.in)[at];
    }
}

static ftr__walk ftr__walk_of(const ftr_kernel_call *call) {
    ftr__walk p = {};
    p.in = call->in[0].data;
    p.out = call->out[0].data;
    p.count = call->out[0].count;
    return p;
}

/* Adds a dimension of the result behind those that are there; what is one run of the source with the one before is joined to it. */
static void ftr__walk_add(ftr__walk *p, int64_t size, int64_t stride) {
    const int32_t last = p->rank - 1;
    if (size == 1) return;
    if (p->rank > 0 && p->stride[last] == stride * size) {
        p->dim[last] *= size;
        p->stride[last] = stride;
        return;
    }
    p->dim[p->rank] = size;
    p->stride[p->rank++] = stride;
}

static void ftr__dense_strides(const ftr_shape *shape, int64_t *stride) {
    int64_t step = 1;
    for (int32_t d = shape->rank - 1; d >= 0; d--) {
        stride[d] = step;
        step *= shape->dim[d];
    }
}

/* Bytes that lie together on both sides and may be moved at once. */
static int64_t ftr__walk_unit(const ftr__walk *p, int64_t size) {
    const int32_t last = p->rank - 1;
    if (last < 0 || p->stride[last] != 1) return size;
    int64_t unit = ftr__unit_of(ftr__unit_of(ftr__unit_of(16, p->in), p->out), p->offset * size);
    unit = ftr__unit_of(unit, p->dim[last] * size);
    for (int32_t d = 0; d < last; d++) unit = ftr__unit_of(unit, p->stride[d] * size);
    return unit < size ? size : unit;
}

static ftr_status ftr__walk_run(const ftr_kernel_call *call, ftr__walk p) {
    const int64_t size = static_cast<int64_t>(ftr_dtype_size(call->out[0].dtype));
    const int64_t unit = ftr__walk_unit(&p, size), wide = unit / size;
    if (p.count == 0) return FTR_OK;
    if (wide > 1) {
        p.count /= wide;
        p.offset /= wide;
        p.dim[p.rank - 1] /= wide;
        for (int32_t d = 0; d < p.rank - 1; d++) p.stride[d] /= wide;
    }
    const unsigned blocks = ftr__cuda_blocks(p.count);
    return ftr__for_unit(unit, [&](auto tag) {
        using T = decltype(tag);
        if (p.count <= INT32_MAX) return FTR_LAUNCH(call, (ftr__walk_kernel<T, uint32_t>), blocks, FTR__CUDA_THREADS, p);
        return FTR_LAUNCH(call, (ftr__walk_kernel<T, uint64_t>), blocks, FTR__CUDA_THREADS, p);
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_expand(const ftr_kernel_call *call) {
    const ftr_shape *from = &call->in[0].shape, *to = &call->out[0].shape;
    ftr__walk p = ftr__walk_of(call);
    int64_t stride[FTR_MAX_RANK];
    ftr__dense_strides(from, stride);
    for (int32_t d = 0; d < to->rank; d++) {
        const int32_t k = d - (to->rank - from->rank);
        ftr__walk_add(&p, to->dim[d], k < 0 || from->dim[k] == 1 ? 0 : stride[k]);
    }
    return ftr__walk_run(call, p);
}

FTR__CUDA_LIB ftr_status ftr__cuda_slice(const ftr_kernel_call *call) {
    const ftr_shape *shape = &call->out[0].shape;
    const int32_t axis = call->attr->slice.axis;
    ftr__walk p = ftr__walk_of(call);
    int64_t stride[FTR_MAX_RANK];
    ftr__dense_strides(&call->in[0].shape, stride);
    p.offset = call->attr->slice.begin * stride[axis];
    for (int32_t d = 0; d < shape->rank; d++)
        ftr__walk_add(&p, shape->dim[d], d == axis ? stride[d] * call->attr->slice.step : stride[d]);
    return ftr__walk_run(call, p);
}

/* ------------------------------------------------------------------------------------------------------- transpose -- */

#define FTR__TRANSPOSE_TILE 32
#define FTR__TILE_ROWS (FTR__CUDA_THREADS / FTR__TRANSPOSE_TILE) /* that a block reads or writes at once */

/* The source is dense along dimension `across` of the result, which is dense along its last one: square tiles of these two. */
struct ftr__tiles {
    ftr__walk walk;
    int32_t across;
    int64_t across_out;          /* its stride in the result */
    int64_t across_tiles, tiles; /* along it; along the last one */
    int64_t count;               /* in all */
};

/* Where a tile begins. */
struct ftr__tile_place {
    int64_t from, to, across, last; /* elements of the source and the result; coordinates */
};

static __device__ __forceinline__ ftr__tile_place ftr__tile_at(const ftr__tiles &p, int64_t tile) {
    const ftr__walk &w = p.walk;
    const int32_t last = w.rank - 1;
    int64_t rest = tile / p.tiles;
    ftr__tile_place at = {0, 0, 0, (tile - rest * p.tiles) * FTR__TRANSPOSE_TILE};
    at.across = rest % p.across_tiles * FTR__TRANSPOSE_TILE;
    rest /= p.across_tiles;
    int64_t step = w.dim[last];
    for (int32_t d = last - 1; d >= 0; d--) {
        if (d != p.across) {
            const int64_t next = rest / w.dim[d], c = rest - next * w.dim[d];
            at.from += c * w.stride[d];
            at.to += c * step;
            rest = next;
        }
        step *= w.dim[d];
    }
    at.from += at.across + at.last * w.stride[last];
    at.to += at.across * p.across_out + at.last;
    return at;
}

template <typename T> FTR__KERNEL ftr__transpose_tiles(ftr__tiles p) {
    FTR_SHARED(T, tile, FTR__TRANSPOSE_TILE *(FTR__TRANSPOSE_TILE + 1));
    const int64_t last_size = p.walk.dim[p.walk.rank - 1], stride = p.walk.stride[p.walk.rank - 1];
    const int64_t across_size = p.walk.dim[p.across];
    const int column = (int)threadIdx.x % FTR__TRANSPOSE_TILE, row = (int)threadIdx.x / FTR__TRANSPOSE_TILE;
    for (int64_t t = blockIdx.x; t < p.count; t += gridDim.x) {
        const ftr__tile_place at = ftr__tile_at(p, t);
        const T *in = static_cast<const T *>(p.walk.in) + at.from;
        T *out = static_cast<T *>(p.walk.out) + at.to;
        for (int r = row; r < FTR__TRANSPOSE_TILE; r += FTR__TILE_ROWS)
            if (at.last + r < last_size && at.across + column < across_size)
                tile[r * (FTR__TRANSPOSE_TILE + 1) + column] = in[r * stride + column];
        __syncthreads();
        for (int r = row; r < FTR__TRANSPOSE_TILE; r += FTR__TILE_ROWS)
            if (at.across + r < across_size && at.last + column < last_size)
                out[r * p.across_out + column] = tile[column * (FTR__TRANSPOSE_TILE + 1) + r];
        __syncthreads();
    }
}

/* Tiles pay where neither dimension is short. */
static ftr_status ftr__transpose_run(const ftr_kernel_call *call, const ftr__walk &walk) {
    ftr__tiles p = {};
    const int32_t last = walk.rank - 1;
    p.walk = walk;
    p.across = -1;
    for (int32_t d = 0; d < last; d++)
        if (walk.stride[d] == 1 && walk.stride[last] > 1 && walk.dim[d] >= 4 && walk.dim[last] >= 4) p.across = d;
    if (p.across < 0) return ftr__walk_run(call, walk);
    p.across_out = 1;
    for (int32_t d = p.across + 1; d < walk.rank; d++) p.across_out *= walk.dim[d];
    p.across_tiles = (walk.dim[p.across] + FTR__TRANSPOSE_TILE - 1) / FTR__TRANSPOSE_TILE;
    p.tiles = (walk.dim[last] + FTR__TRANSPOSE_TILE - 1) / FTR__TRANSPOSE_TILE;
    p.count = p.across_tiles * p.tiles * (walk.count / (walk.dim[p.across] * walk.dim[last]));
    return ftr__for_unit(static_cast<int64_t>(ftr_dtype_size(call->out[0].dtype)), [&](auto tag) {
        return FTR_LAUNCH(call, (ftr__transpose_tiles<decltype(tag)>), ftr__cuda_blocks(p.count, 1), FTR__CUDA_THREADS, p);
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_transpose(const ftr_kernel_call *call) {
    const ftr_shape *shape = &call->out[0].shape;
    ftr__walk p = ftr__walk_of(call);
    int64_t stride[FTR_MAX_RANK];
    if (p.count == 0) return FTR_OK;
    ftr__dense_strides(&call->in[0].shape, stride);
    for (int32_t d = 0; d < shape->rank; d++) ftr__walk_add(&p, shape->dim[d], stride[call->attr->axes_order.order[d]]);
    return ftr__transpose_run(call, p);
}

/* ---------------------------------------------------------------------------------------------------------- concat -- */

#define FTR__CONCAT_INPUTS 64 /* of a launch */

/* Rows of units; input k's rows are put behind those of the inputs before it. */
struct ftr__concat {
    int64_t rows, row; /* units of a row of the result */
    const void *in[FTR__CONCAT_INPUTS];
    int64_t begin[FTR__CONCAT_INPUTS], size[FTR__CONCAT_INPUTS];
};

template <typename T> FTR__KERNEL ftr__concat_kernel(ftr__concat p, T *out) {
    const int k = (int)blockIdx.y;
    const int64_t size = p.size[k];
    FTR__GRID_LOOP(i, p.rows * size) {
        const int64_t row = i / size;
        out[row * p.row + p.begin[k] + (i - row * size)] = static_cast<const T *>(p.in[k])[i];
    }
}

/* Inputs `first` to first + count - 1, whose rows begin `begin` bytes behind the result's; rows are in bytes. */
static ftr_status ftr__concat_some(const ftr_kernel_call *call, ftr__concat p, int32_t count) {
    int64_t unit = ftr__unit_of(ftr__unit_of(16, call->out[0].data), p.row), most = 0;
    for (int32_t k = 0; k < count; k++)
        unit = ftr__unit_of(ftr__unit_of(ftr__unit_of(unit, p.in[k]), p.begin[k]), p.size[k]);
    p.row /= unit;
    for (int32_t k = 0; k < count; k++) {
        p.begin[k] /= unit;
        p.size[k] /= unit;
        most = p.size[k] > most ? p.size[k] : most;
    }
    const dim3 grid(ftr__cuda_blocks(p.rows * most), static_cast<unsigned>(count));
    return ftr__for_unit(unit, [&](auto tag) {
        using T = decltype(tag);
        return FTR_LAUNCH(call, (ftr__concat_kernel<T>), grid, FTR__CUDA_THREADS, p, static_cast<T *>(call->out[0].data));
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_concat(const ftr_kernel_call *call) {
    const ftr_view *out = &call->out[0];
    const int32_t axis = call->attr->axis.axis;
    int64_t inner = static_cast<int64_t>(ftr_dtype_size(out->dtype)), begin = 0;
    ftr__concat p = {};
    if (out->count == 0) return FTR_OK;
    p.rows = 1;
    for (int32_t d = 0; d < axis; d++) p.rows *= out->shape.dim[d];
    for (int32_t d = axis + 1; d < out->shape.rank; d++) inner *= out->shape.dim[d];
    p.row = out->shape.dim[axis] * inner;
    int32_t count = 0;
    for (int32_t i = 0; i < call->in_count; i++) {
        if (call->in[i].count > 0) {
            p.in[count] = call->in[i].data;
            p.begin[count] = begin;
            p.size[count] = call->in[i].shape.dim[axis] * inner;
            begin += p.size[count++];
        }
        if (count == 0 || (count < FTR__CONCAT_INPUTS && i + 1 < call->in_count)) continue;
        const ftr_status status = ftr__concat_some(call, p, count);
        if (status) return status;
        count = 0;
    }
    return FTR_OK;
}

/* --------------------------------------------------------------------------------------------------------- padding -- */

/* The source lies in the result from coordinates `before` on, `step` apart; around and between there is `value`. Dimensions that
 * the source fills are part of the one before them. */
struct ftr__padding {
    const void *in;
    void *out;
    int32_t rank;
    int64_t count, dim[FTR_MAX_RANK], before[FTR_MAX_RANK], inside[FTR_MAX_RANK], step[FTR_MAX_RANK];
    uint64_t value[2]; /* as often as it fits */
};

template <typename T, typename I> FTR__KERNEL ftr__padding_kernel(ftr__padding p) {
    FTR__GRID_LOOP(i, p.count) {
        int64_t from = 0, size = 1;
        I rest = static_cast<I>(i);
        bool inside = true;
        for (int32_t d = p.rank - 1; d >= 0; d--) {
            const I next = rest / static_cast<I>(p.dim[d]);
            int64_t at = static_cast<int64_t>(rest - next * static_cast<I>(p.dim[d])) - p.before[d];
            if (p.step[d] != 1 && at > 0) {
                inside = inside && at % p.step[d] == 0;
                at /= p.step[d];
            }
            inside = inside && at >= 0 && at < p.inside[d];
            from += at * size;
            size *= p.inside[d];
            rest = next;
        }
        T value;
        if (inside)
            value = static_cast<const T *>(p.in)[from];
        else
            memcpy(&value, p.value, sizeof value);
        static_cast<T *>(p.out)[i] = value;
    }
}

static void ftr__padding_add(ftr__padding *p, int64_t dim, int64_t inside, int64_t before, int64_t step) {
    const int32_t last = p->rank - 1;
    if (dim == inside && p->rank > 0 && p->step[last] == 1) {
        p->dim[last] *= dim;
        p->before[last] *= dim;
        p->inside[last] *= dim;
        return;
    }
    p->dim[p->rank] = dim;
    p->before[p->rank] = before;
    p->inside[p->rank] = inside;
    p->step[p->rank++] = step;
}

static ftr_status ftr__padding_run(const ftr_kernel_call *call, ftr__padding p) {
    const int64_t size = static_cast<int64_t>(ftr_dtype_size(call->out[0].dtype));
    const int32_t last = p.rank - 1;
    int64_t unit = size;
    p.in = call->in[0].data;
    p.out = call->out[0].data;
    p.count = call->out[0].count;
    if (p.count == 0) return FTR_OK;
    if (last >= 0 && p.step[last] == 1) {
        unit = ftr__unit_of(ftr__unit_of(ftr__unit_of(16, p.in), p.out), p.dim[last] * size);
        unit = ftr__unit_of(ftr__unit_of(unit, p.before[last] * size), p.inside[last] * size);
        unit = unit < size ? size : unit;
        p.dim[last] /= unit / size;
        p.before[last] /= unit / size;
        p.inside[last] /= unit / size;
        p.count /= unit / size;
    }
    const unsigned blocks = ftr__cuda_blocks(p.count);
    return ftr__for_unit(unit, [&](auto tag) {
        using T = decltype(tag);
        if (p.count <= INT32_MAX) return FTR_LAUNCH(call, (ftr__padding_kernel<T, uint32_t>), blocks, FTR__CUDA_THREADS, p);
        return FTR_LAUNCH(call, (ftr__padding_kernel<T, uint64_t>), blocks, FTR__CUDA_THREADS, p);
    });
}

/* `value` as an element, in the low bits: integers are cut and saturated, NaN becomes 0. */
static uint64_t ftr__padding_bits(ftr_dtype dtype, double value) {
    const double whole = value != value ? 0.0 : value;
    const float real = static_cast<float>(value);
    uint32_t word;
    switch (dtype) {
    case FTR_F32: memcpy(&word, &real, sizeof word); return word;
    case FTR_F16: return __half_as_ushort(__double2half(value));
    case FTR_BF16: return __bfloat16_as_ushort(__double2bfloat16(value));
    case FTR_I32:
        return static_cast<uint32_t>(whole >= 2147483647.0    ? INT32_MAX
                                     : whole <= -2147483648.0 ? INT32_MIN
                                                              : static_cast<int32_t>(whole));
    case FTR_I64:
        return static_cast<uint64_t>(whole >= 9223372036854775808.0    ? INT64_MAX
                                     : whole <= -9223372036854775808.0 ? INT64_MIN
                                                                       : static_cast<int64_t>(whole));
    case FTR_U8: return whole >= 255.0 ? 255 : whole > 0.0 ? static_cast<uint64_t>(whole) : 0;
    default: return value != 0.0;
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_pad(const ftr_kernel_call *call) {
    const ftr_view *in = &call->in[0], *out = &call->out[0];
    ftr__padding p = {};
    uint64_t bits = ftr__padding_bits(in->dtype, call->attr->pad.value);
    for (size_t wide = ftr_dtype_size(in->dtype); wide < 8; wide *= 2) bits |= bits << 8 * wide;
    p.value[0] = p.value[1] = bits;
    for (int32_t d = 0; d < in->shape.rank; d++)
        ftr__padding_add(&p, out->shape.dim[d], in->shape.dim[d], call->attr->pad.before[d], 1);
    return ftr__padding_run(call, p);
}

FTR__CUDA_LIB ftr_status ftr__cuda_slice_grad(const ftr_kernel_call *call) {
    const ftr_view *in = &call->in[0], *out = &call->out[0];
    const int32_t axis = call->attr->slice.axis;
    ftr__padding p = {};
    for (int32_t d = 0; d < in->shape.rank; d++)
        ftr__padding_add(&p, out->shape.dim[d], in->shape.dim[d], d == axis ? call->attr->slice.begin : 0,
                         d == axis ? call->attr->slice.step : 1);
    return ftr__padding_run(call, p);
}

/* ---- src/backend/cuda/cudnn.cu ---- */

#include <cstdio>

/* The least version whose plans are made from a description of the device. */
#define FTR__DNN_LEAST_VERSION 90800

static cudnnDataType_t ftr__dnn_type(ftr_dtype dtype) {
    switch (dtype) {
    case FTR_F16: return CUDNN_DATA_HALF;
    case FTR_BF16: return CUDNN_DATA_BFLOAT16;
    case FTR_I32: return CUDNN_DATA_INT32;
    case FTR_I64: return CUDNN_DATA_INT64;
    default: return CUDNN_DATA_FLOAT;
    }
}

/* ---------------------------------------------------------------------------------------------------------- opening -- */

static ftr_status ftr__dnn_failed(ftr_context *context, cudnnStatus_t status, const char *what) {
    char text[FTR__DNN_REASON] = "";
    cudnnGetLastErrorString(text, sizeof text);
    return ftr_backend_fail(context, FTR_ERROR_DEVICE, "cuda: %s: %s%s%s", what, cudnnGetErrorString(status), *text ? ": " : "",
                            text);
}

#define FTR__DNN_TRY(context, call, what)                                                                              \
    do {                                                                                                               \
        const cudnnStatus_t ftr__status_of_call = (call);                                                              \
        if (ftr__status_of_call != CUDNN_STATUS_SUCCESS) return ftr__dnn_failed(context, ftr__status_of_call, what);   \
    } while (0)

/* A whole small file with a 0 behind it. */
static ftr_status ftr__dnn_read(ftr_context *context, const char *path, char *text, size_t size, size_t *length) {
    FILE *file = fopen(path, "rb");
    if (!file) return ftr_backend_fail(context, FTR_ERROR_IO, "FASTTRAIN_CUDNN_DEVICE: %s could not be opened", path);
    *length = fread(text, 1, size - 1, file);
    const bool whole = !ferror(file) && *length < size - 1;
    fclose(file);
    if (!whole)
        return ftr_backend_fail(context, FTR_ERROR_IO, "FASTTRAIN_CUDNN_DEVICE: %s could not be read, or has %zu bytes or more", path,
                                size - 1);
    text[*length] = 0;
    return FTR_OK;
}

/* FASTTRAIN_CUDNN_DEVICE names a file with the description of another device, as cuDNN writes it: plans can then be made and
 * looked at, not run. */
static ftr_status ftr__dnn_describe(ftr_context *context, ftr__cuda *cuda) {
    const char *path = getenv("FASTTRAIN_CUDNN_DEVICE");
    FTR__DNN_TRY(context, cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &cuda->dnn_device),
                 "cudnnBackendCreateDescriptor");
    if (path && *path) {
        char text[4096];
        size_t length = 0;
        const ftr_status status = ftr__dnn_read(context, path, text, sizeof text, &length);
        if (status) return status;
        FTR__DNN_TRY(context,
                     cudnnBackendSetAttribute(cuda->dnn_device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                                              static_cast<int64_t>(length) + 1, text),
                     "cudnnBackendSetAttribute");
    } else {
        const int32_t device = cuda->device;
        FTR__DNN_TRY(context, cudnnCreate(&cuda->dnn), "cudnnCreate");
        FTR__DNN_TRY(context, cudnnSetStream(cuda->dnn, cuda->stream), "cudnnSetStream");
        FTR__DNN_TRY(context,
                     cudnnBackendSetAttribute(cuda->dnn_device, CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, 1, &device),
                     "cudnnBackendSetAttribute");
    }
    FTR__DNN_TRY(context, cudnnBackendFinalize(cuda->dnn_device), "cudnnBackendFinalize");
    return FTR_OK;
}

FTR__CUDA_LIB ftr_status ftr__dnn_open(ftr_context *context, ftr__cuda *cuda) {
    const size_t version = cudnnGetVersion();
    if (version < FTR__DNN_LEAST_VERSION)
        return ftr_backend_fail(context, FTR_ERROR_DEVICE, "cuda: libcudnn is version %zu.%zu.%zu, expected %d.%d or newer", version / 10000,
                                version / 100 % 100, version % 100, FTR__DNN_LEAST_VERSION / 10000,
                                FTR__DNN_LEAST_VERSION / 100 % 100);
    return ftr__dnn_describe(context, cuda);
}

static void ftr__dnn_drop(ftr__dnn_graph *graph) {
    while (graph->descriptor_count > 0) (void)cudnnBackendDestroyDescriptor(graph->descriptors[--graph->descriptor_count]);
}

FTR__CUDA_LIB void ftr__dnn_close(ftr_context *context, ftr__cuda *cuda) {
    while (cuda->dnn_plans) {
        ftr__dnn_plan *plan = cuda->dnn_plans;
        cuda->dnn_plans = plan->next;
        if (plan->made) (void)cudnnBackendDestroyDescriptor(plan->made);
        ftr__dnn_drop(&plan->graph);
        ftr_backend_release(context, plan, sizeof *plan);
    }
    if (cuda->dnn_device) (void)cudnnBackendDestroyDescriptor(cuda->dnn_device);
    if (cuda->dnn) (void)cudnnDestroy(cuda->dnn);
}

/* --------------------------------------------------------------------------------------------------------- building -- */

static void ftr__dnn_refuse(ftr__dnn_graph *graph, cudnnStatus_t status, const char *what) {
    char text[FTR__DNN_REASON] = "";
    if (graph->status != CUDNN_STATUS_SUCCESS) return;
    graph->status = status;
    cudnnGetLastErrorString(text, sizeof text);
    snprintf(graph->reason, sizeof graph->reason, "%s: %.200s", what, *text ? text : cudnnGetErrorString(status));
}

static cudnnBackendDescriptor_t ftr__dnn_make(ftr__dnn_graph *graph, cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t made = nullptr;
    if (graph->status != CUDNN_STATUS_SUCCESS) return nullptr;
    if (graph->descriptor_count == FTR__DNN_MOST_DESCRIPTORS) {
        ftr__dnn_refuse(graph, CUDNN_STATUS_INTERNAL_ERROR, "too many descriptors");
        return nullptr;
    }
    const cudnnStatus_t status = cudnnBackendCreateDescriptor(type, &made);
    if (status != CUDNN_STATUS_SUCCESS) {
        ftr__dnn_refuse(graph, status, "cudnnBackendCreateDescriptor");
        return nullptr;
    }
    graph->descriptors[graph->descriptor_count++] = made;
    return made;
}

static void ftr__dnn_set(ftr__dnn_graph *graph, cudnnBackendDescriptor_t to, cudnnBackendAttributeName_t name,
                         cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    if (graph->status != CUDNN_STATUS_SUCCESS) return;
    const cudnnStatus_t status = cudnnBackendSetAttribute(to, name, type, count, values);
    if (status != CUDNN_STATUS_SUCCESS) ftr__dnn_refuse(graph, status, "cudnnBackendSetAttribute");
}

static void ftr__dnn_set_descriptor(ftr__dnn_graph *graph, cudnnBackendDescriptor_t to, cudnnBackendAttributeName_t name,
                                    cudnnBackendDescriptor_t value) {
    ftr__dnn_set(graph, to, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void ftr__dnn_finish(ftr__dnn_graph *graph, cudnnBackendDescriptor_t what) {
    if (graph->status != CUDNN_STATUS_SUCCESS) return;
    const cudnnStatus_t status = cudnnBackendFinalize(what);
    if (status != CUDNN_STATUS_SUCCESS) ftr__dnn_refuse(graph, status, "cudnnBackendFinalize");
}

static void ftr__dnn_add(ftr__dnn_graph *graph, cudnnBackendDescriptor_t operation) {
    ftr__dnn_finish(graph, operation);
    if (graph->status != CUDNN_STATUS_SUCCESS) return;
    if (graph->operation_count == FTR__DNN_MOST_OPERATIONS)
        ftr__dnn_refuse(graph, CUDNN_STATUS_INTERNAL_ERROR, "too many operations");
    else
        graph->operations[graph->operation_count++] = operation;
}

FTR__CUDA_LIB cudnnBackendDescriptor_t ftr__dnn_tensor(ftr__dnn_graph *graph, int64_t id, ftr_dtype dtype, const int64_t *dims,
                                                       const int64_t *strides, bool is_virtual) {
    const cudnnBackendDescriptor_t made = ftr__dnn_make(graph, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    const cudnnDataType_t type = ftr__dnn_type(dtype);
    const int64_t alignment = 16;
    ftr__dnn_set(graph, made, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    ftr__dnn_set(graph, made, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    ftr__dnn_set(graph, made, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    ftr__dnn_set(graph, made, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
    ftr__dnn_set(graph, made, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    ftr__dnn_set(graph, made, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    ftr__dnn_finish(graph, made);
    return made;
}

FTR__CUDA_LIB cudnnBackendDescriptor_t ftr__dnn_image(ftr__dnn_graph *graph, int64_t id, ftr_dtype dtype, const ftr_shape *shape,
                                                      bool is_virtual) {
    const int64_t n = shape->dim[0], h = shape->dim[1], w = shape->dim[2], c = shape->dim[3];
    const int64_t dims[4] = {n, c, h, w}, strides[4] = {h * w * c, 1, w * c, c};
    return ftr__dnn_tensor(graph, id, dtype, dims, strides, is_virtual);
}

FTR__CUDA_LIB cudnnBackendDescriptor_t ftr__dnn_channels(ftr__dnn_graph *graph, int64_t id, ftr_dtype dtype, int64_t channels) {
    const int64_t dims[4] = {1, channels, 1, 1}, strides[4] = {channels, 1, channels, channels};
    return ftr__dnn_tensor(graph, id, dtype, dims, strides, false);
}

/* Attributes of an operation, which the three kinds of a convolution have under names of their own. */
struct ftr__dnn_convolution_names {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t alpha, beta, description, x, w, y;
};

FTR__CUDA_LIB void ftr__dnn_convolution(ftr__dnn_graph *graph, ftr__dnn_convolution_kind kind, const ftr_op_attr *attr,
                                        cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t w, cudnnBackendDescriptor_t y) {
    static const ftr__dnn_convolution_names all[] = {
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY}};
    const ftr__dnn_convolution_names *names = &all[kind];
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t spatial = 2, strides[2] = {attr->conv.stride[0], attr->conv.stride[1]};
    const int64_t before[2] = {attr->conv.padding[0], attr->conv.padding[2]};
    const int64_t after[2] = {attr->conv.padding[1], attr->conv.padding[3]};
    const int64_t dilations[2] = {attr->conv.dilation[0], attr->conv.dilation[1]};
    const cudnnBackendDescriptor_t how = ftr__dnn_make(graph, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    ftr__dnn_set(graph, how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    ftr__dnn_set(graph, how, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    ftr__dnn_set(graph, how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &spatial);
    ftr__dnn_set(graph, how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides);
    ftr__dnn_set(graph, how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before);
    ftr__dnn_set(graph, how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, after);
    ftr__dnn_set(graph, how, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilations);
    ftr__dnn_finish(graph, how);
    const float one = 1.0f, zero = 0.0f;
    const cudnnBackendDescriptor_t operation = ftr__dnn_make(graph, names->type);
    ftr__dnn_set_descriptor(graph, operation, names->description, how);
    ftr__dnn_set_descriptor(graph, operation, names->x, x);
    ftr__dnn_set_descriptor(graph, operation, names->w, w);
    ftr__dnn_set_descriptor(graph, operation, names->y, y);
    ftr__dnn_set(graph, operation, names->alpha, CUDNN_TYPE_FLOAT, 1, &one);
    ftr__dnn_set(graph, operation, names->beta, CUDNN_TYPE_FLOAT, 1, &zero);
    ftr__dnn_add(graph, operation);
}

FTR__CUDA_LIB void ftr__dnn_pointwise(ftr__dnn_graph *graph, cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t x,
                                      cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y) {
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const cudnnBackendDescriptor_t how = ftr__dnn_make(graph, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    ftr__dnn_set(graph, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    ftr__dnn_set(graph, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    ftr__dnn_finish(graph, how);
    const cudnnBackendDescriptor_t operation = ftr__dnn_make(graph, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    ftr__dnn_set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    ftr__dnn_set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (b) ftr__dnn_set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    ftr__dnn_set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    ftr__dnn_add(graph, operation);
}

/* ----------------------------------------------------------------------------------------------------------- choosing -- */

#define FTR__DNN_MOST_CONFIGURATIONS 32

/* Whether a configuration's engine gives the same bits always, and computes in the precision that was asked for: f32 tensors
 * not by tensor cores, which round them to TF32, unless that is allowed. */
static bool ftr__dnn_is_wanted(const ftr__cuda *cuda, cudnnBackendDescriptor_t configuration, bool f32, bool *deterministic) {
    cudnnBackendDescriptor_t engine = nullptr;
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t count = 0;
    bool wanted = false;
    *deterministic = false;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) != CUDNN_STATUS_SUCCESS) return false;
    if (cudnnBackendGetAttribute(configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &engine) ==
            CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                 CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes) == CUDNN_STATUS_SUCCESS) {
        wanted = *deterministic = true;
        for (int64_t i = 0; i < count; i++) {
            if (notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) wanted = *deterministic = false;
            if (notes[i] == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION) wanted = false;
            if (f32 && !cuda->tf32 &&
                (notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE || notes[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS))
                wanted = false;
        }
    }
    (void)cudnnBackendDestroyDescriptor(engine);
    return wanted;
}

/* An execution plan of a configuration; nullptr if it is refused. */
static cudnnBackendDescriptor_t ftr__dnn_try(const ftr__cuda *cuda, cudnnBackendDescriptor_t configuration, size_t *workspace,
                                             ftr__dnn_graph *graph) {
    cudnnBackendDescriptor_t plan = nullptr;
    int64_t bytes = 0, count = 0;
    cudnnStatus_t status = cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                          &configuration);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                          &cuda->dnn_device);
    if (status == CUDNN_STATUS_SUCCESS) status = cudnnBackendFinalize(plan);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count, &bytes);
    if (status == CUDNN_STATUS_SUCCESS) {
        *workspace = static_cast<size_t>(bytes);
        return plan;
    }
    if (!*graph->reason) { /* the reason of the first one is kept */
        ftr__dnn_refuse(graph, status, "the execution plan");
        graph->status = CUDNN_STATUS_SUCCESS;
    }
    if (plan) (void)cudnnBackendDestroyDescriptor(plan);
    return nullptr;
}

/* The first configuration of the heuristics' list that will do. */
static void ftr__dnn_choose(const ftr__cuda *cuda, ftr__dnn_graph *graph, cudnnBackendDescriptor_t operations,
                            cudnnBackendHeurMode_t mode, bool f32, ftr__dnn_plan *plan) {
    const cudnnBackendDescriptor_t heuristics = ftr__dnn_make(graph, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    ftr__dnn_set_descriptor(graph, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, operations);
    ftr__dnn_set(graph, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    ftr__dnn_set_descriptor(graph, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, cuda->dnn_device);
    ftr__dnn_finish(graph, heuristics);
    if (graph->status != CUDNN_STATUS_SUCCESS) return;
    cudnnBackendDescriptor_t configurations[FTR__DNN_MOST_CONFIGURATIONS];
    int64_t count = 0;
    int64_t chosen = -1;
    int32_t made = 0;
    while (made < FTR__DNN_MOST_CONFIGURATIONS &&
           cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configurations[made]) == CUDNN_STATUS_SUCCESS)
        made++;
    const cudnnStatus_t status = cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                                          made, &count, configurations);
    if (status != CUDNN_STATUS_SUCCESS) ftr__dnn_refuse(graph, status, "the heuristics");
    count = count < made ? count : made;
    plan->engines += status == CUDNN_STATUS_SUCCESS ? static_cast<int32_t>(count) : 0;
    for (int64_t i = 0; i < count && status == CUDNN_STATUS_SUCCESS && !plan->made; i++) {
        bool deterministic;
        const bool wanted = ftr__dnn_is_wanted(cuda, configurations[i], f32, &deterministic);
        plan->deterministic += deterministic;
        if (wanted) plan->made = ftr__dnn_try(cuda, configurations[i], &plan->workspace, graph);
        if (plan->made) chosen = i;
    }
    for (int32_t i = 0; i < made; i++) {
        if (i == chosen && graph->descriptor_count < FTR__DNN_MOST_DESCRIPTORS)
            graph->descriptors[graph->descriptor_count++] = configurations[i];
        else
            (void)cudnnBackendDestroyDescriptor(configurations[i]);
    }
}

/* Heuristics A are the quick ones; the fallback's engines are slower and take more. */
static void ftr__dnn_plan_make(const ftr__cuda *cuda, ftr__dnn_graph *graph, bool f32, ftr__dnn_plan *plan) {
    const cudnnBackendDescriptor_t operations = ftr__dnn_make(graph, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    ftr__dnn_set(graph, operations, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, graph->operation_count,
                 graph->operations);
    ftr__dnn_finish(graph, operations);
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    for (int32_t m = 0; m < 2 && !plan->made && graph->status == CUDNN_STATUS_SUCCESS; m++)
        ftr__dnn_choose(cuda, graph, operations, modes[m], f32, plan);
    if (!plan->made)
        snprintf(plan->reason, sizeof plan->reason, "%s",
                 *graph->reason ? graph->reason : "no engine is deterministic and of the precision that was asked for");
}

FTR__CUDA_LIB ftr__dnn_plan *ftr__dnn_plan_of(const ftr_kernel_call *call, const ftr__dnn_key *key, const char *pattern,
                                              ftr__dnn_build build) {
    ftr__cuda *cuda = ftr__cuda_of(call);
    for (ftr__dnn_plan *plan = cuda->dnn_plans; plan; plan = plan->next)
        if (memcmp(&plan->key, key, sizeof *key) == 0) return plan;
    ftr__dnn_plan *plan = static_cast<ftr__dnn_plan *>(ftr_backend_allocate(call->context, sizeof *plan));
    if (!plan) return nullptr;
    memset(static_cast<void *>(plan), 0, sizeof *plan);
    plan->key = *key;
    plan->pattern = pattern;
    plan->next = cuda->dnn_plans;
    cuda->dnn_plans = plan;
    build(&plan->graph, call, key->pattern);
    bool f32 = true;
    for (int32_t i = 0; i < 4; i++) f32 = f32 && !ftr__cuda_is_half(static_cast<ftr_dtype>(key->dtypes[i]));
    ftr__dnn_plan_make(cuda, &plan->graph, f32, plan);
    if (!plan->made) ftr__dnn_drop(&plan->graph);
    return plan;
}

/* ----------------------------------------------------------------------------------------------------------- running -- */

FTR__CUDA_LIB ftr_status ftr__dnn_run(const ftr_kernel_call *call, const ftr__dnn_plan *plan, int32_t count, const int64_t *ids,
                                      void *const *data, void *workspace) {
    const ftr__cuda *cuda = ftr__cuda_of(call);
    if (!cuda->dnn)
        return ftr_backend_error(call, FTR_ERROR_STATE, "the plan was made for the device of FASTTRAIN_CUDNN_DEVICE, and cannot run");
    cudnnBackendDescriptor_t pack = nullptr;
    cudnnStatus_t status = cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, ids);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, data);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    if (status == CUDNN_STATUS_SUCCESS) status = cudnnBackendFinalize(pack);
    if (status == CUDNN_STATUS_SUCCESS) status = cudnnBackendExecute(cuda->dnn, plan->made, pack);
    if (pack) (void)cudnnBackendDestroyDescriptor(pack);
    if (status == CUDNN_STATUS_SUCCESS) return FTR_OK;
    char text[FTR__DNN_REASON] = "";
    cudnnGetLastErrorString(text, sizeof text);
    return ftr_backend_error(call, FTR_ERROR_DEVICE, "cuDNN: %s%s%s", cudnnGetErrorString(status), *text ? ": " : "", text);
}

/* ---- src/backend/cuda/conv.cu ---- */
/* Convolutions: cuDNN's plans, with bias, folded batch norm, residual and ReLU as their epilogue; where cuDNN refuses that, its
 * plain convolution and a pass over the result; and where it refuses that too, direct kernels, a thread an element.
 *
 * All are NHWC, weights [out, h, w, in of a group]. */

/* What stands behind a convolution, and the tensors' ids in cuDNN's graphs. */
enum { FTR__CONV_SCALE = 1, FTR__CONV_SHIFT = 2, FTR__CONV_RESIDUAL = 4, FTR__CONV_RELU = 8, FTR__CONV_WIDE = 16 };
enum { FTR__CONV_X = 1, FTR__CONV_W, FTR__CONV_Y, FTR__CONV_SCALES, FTR__CONV_SHIFTS, FTR__CONV_RESIDUALS, FTR__CONV_VIRTUAL };

/* y = activation(y * scale + shift + residual), per channel; nullptr: without. */
struct ftr__conv_finish {
    const float *scale;
    const void *shift;
    ftr_dtype shift_dtype;
    const void *residual;
    ftr_dtype residual_dtype;
    ftr_activation activation;
};

struct ftr__conv {
    const void *x, *w, *y; /* one of them is the result */
    ftr_dtype x_dtype, w_dtype, y_dtype;
    int64_t n, h, w_in, c, oh, ow, k; /* oh, ow: of y, whose rows and columns may be fewer than the convolution gives */
    int32_t kh, kw, stride[2], top, left, dilation[2];
    int64_t group_in, group_out; /* channels of a group */
};

static __device__ __forceinline__ float ftr__activate(ftr_activation activation, float x) {
    switch (activation) {
    case FTR_ACT_RELU: return x < 0.0f ? 0.0f : x;
    case FTR_ACT_RELU6: return x < 0.0f ? 0.0f : x > 6.0f ? 6.0f : x;
    case FTR_ACT_HARDSWISH: return x <= -3.0f ? 0.0f : x >= 3.0f ? x : x * (x + 3.0f) * (1.0f / 6.0f);
    case FTR_ACT_SILU: return x / (1.0f + expf(-x));
    default: return x;
    }
}

static __device__ __forceinline__ float ftr__conv_finished(const ftr__conv_finish &f, float x, int64_t i, int64_t channel) {
    if (f.scale) x *= f.scale[channel];
    if (f.shift) x += ftr__load_real(f.shift, f.shift_dtype, channel);
    if (f.residual) x += ftr__load_real(f.residual, f.residual_dtype, i);
    return ftr__activate(f.activation, x);
}

/* ------------------------------------------------------------------------------------------------------ direct kernels -- */

FTR__KERNEL ftr__conv_forward(ftr__conv p, ftr__conv_finish f, void *out) {
    FTR__GRID_LOOP(i, p.n * p.oh * p.ow * p.k) {
        const int64_t k = i % p.k, ox = i / p.k % p.ow, oy = i / p.k / p.ow % p.oh, n = i / p.k / p.ow / p.oh;
        const int64_t first = k / p.group_out * p.group_in;
        double sum = 0.0;
        for (int32_t a = 0; a < p.kh; a++) {
            const int64_t iy = oy * p.stride[0] - p.top + (int64_t)a * p.dilation[0];
            if (iy < 0 || iy >= p.h) continue;
            for (int32_t b = 0; b < p.kw; b++) {
                const int64_t ix = ox * p.stride[1] - p.left + (int64_t)b * p.dilation[1];
                if (ix < 0 || ix >= p.w_in) continue;
                const int64_t x = ((n * p.h + iy) * p.w_in + ix) * p.c + first, w = ((k * p.kh + a) * p.kw + b) * p.group_in;
                float part = 0.0f;
                for (int64_t c = 0; c < p.group_in; c++)
                    part = fmaf(ftr__load_real(p.x, p.x_dtype, x + c), ftr__load_real(p.w, p.w_dtype, w + c), part);
                sum += (double)part;
            }
        }
        ftr__store_real(out, p.y_dtype, i, ftr__conv_finished(f, (float)sum, i, k));
    }
}

FTR__KERNEL ftr__conv_grad_input(ftr__conv p, void *out) {
    FTR__GRID_LOOP(i, p.n * p.h * p.w_in * p.c) {
        const int64_t c = i % p.c, ix = i / p.c % p.w_in, iy = i / p.c / p.w_in % p.h, n = i / p.c / p.w_in / p.h;
        const int64_t first = c / p.group_in * p.group_out, inside = c % p.group_in;
        double sum = 0.0;
        for (int32_t a = 0; a < p.kh; a++) {
            const int64_t ty = iy + p.top - (int64_t)a * p.dilation[0], oy = ty / p.stride[0];
            if (ty < 0 || ty % p.stride[0] || oy >= p.oh) continue;
            for (int32_t b = 0; b < p.kw; b++) {
                const int64_t tx = ix + p.left - (int64_t)b * p.dilation[1], ox = tx / p.stride[1];
                if (tx < 0 || tx % p.stride[1] || ox >= p.ow) continue;
                const int64_t y = ((n * p.oh + oy) * p.ow + ox) * p.k + first;
                float part = 0.0f;
                for (int64_t k = 0; k < p.group_out; k++)
                    part = fmaf(ftr__load_real(p.y, p.y_dtype, y + k),
                                ftr__load_real(p.w, p.w_dtype, (((first + k) * p.kh + a) * p.kw + b) * p.group_in + inside), part);
                sum += (double)part;
            }
        }
        ftr__store_real(out, p.x_dtype, i, (float)sum);
    }
}

/* A block an element of the weight. */
FTR__KERNEL ftr__conv_grad_weight(ftr__conv p, void *out) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    for (int64_t i = blockIdx.x; i < p.k * p.kh * p.kw * p.group_in; i += gridDim.x) {
        const int64_t inside = i % p.group_in, b = i / p.group_in % p.kw, a = i / p.group_in / p.kw % p.kh,
                      k = i / p.group_in / p.kw / p.kh;
        const int64_t c = k / p.group_out * p.group_in + inside;
        double sum = 0.0;
        for (int64_t o = threadIdx.x; o < p.n * p.oh * p.ow; o += blockDim.x) {
            const int64_t ox = o % p.ow, oy = o / p.ow % p.oh, n = o / p.ow / p.oh;
            const int64_t iy = oy * p.stride[0] - p.top + a * p.dilation[0], ix = ox * p.stride[1] - p.left + b * p.dilation[1];
            if (iy < 0 || iy >= p.h || ix < 0 || ix >= p.w_in) continue;
            sum += (double)(ftr__load_real(p.y, p.y_dtype, o * p.k + k) *
                            ftr__load_real(p.x, p.x_dtype, ((n * p.h + iy) * p.w_in + ix) * p.c + c));
        }
        sum = ftr__block_sum(sum, room);
        if (threadIdx.x == 0) ftr__store_real(out, p.w_dtype, i, (float)sum);
    }
}

/* ---------------------------------------------------------------------------------------------------------- epilogues -- */

FTR__KERNEL ftr__conv_finish_all(ftr__conv_finish f, const void *in, ftr_dtype in_dtype, void *out, ftr_dtype out_dtype,
                                 int64_t count, int64_t channels) {
    FTR__GRID_LOOP(i, count) {
        ftr__store_real(out, out_dtype, i, ftr__conv_finished(f, ftr__load_real(in, in_dtype, i), i, i % channels));
    }
}

/* What was done to a 1x1 convolution's input before: batch norm and an activation, then a factor for each image's channel. */
struct ftr__conv_again {
    const void *of[5]; /* gamma, beta, mean, 1/std; factors: nullptr where there is none */
    ftr_dtype dtype[5];
    ftr_activation activation;
};

FTR__KERNEL ftr__conv_input_again(ftr__conv_again a, const void *x, ftr_dtype dtype, void *out, int64_t count, int64_t channels,
                                  int64_t image) {
    FTR__GRID_LOOP(i, count) {
        const int64_t c = i % channels;
        float value = ftr__load_real(x, dtype, i);
        if (a.of[0]) {
            const float factor = ftr__load_real(a.of[0], a.dtype[0], c) * ftr__load_real(a.of[3], a.dtype[3], c);
            value = (value - ftr__load_real(a.of[2], a.dtype[2], c)) * factor + ftr__load_real(a.of[1], a.dtype[1], c);
            value = ftr__activate(a.activation, value);
        }
        if (a.of[4]) value *= ftr__load_real(a.of[4], a.dtype[4], i / image * channels + c);
        ftr__store_real(out, dtype, i, value);
    }
}

/* A batch norm with its running statistics, and a bias before it, as one multiplication and one addition. */
struct ftr__conv_fold {
    const void *of[5]; /* bias, gamma, beta, mean, variance; bias may be nullptr */
    ftr_dtype dtype[5];
    double eps;
};

FTR__KERNEL ftr__conv_fold_channels(ftr__conv_fold f, int64_t channels, float *scale, float *shift) {
    FTR__GRID_LOOP(c, channels) {
        const double bias = f.of[0] ? (double)ftr__load_real(f.of[0], f.dtype[0], c) : 0.0;
        const double factor = (double)ftr__load_real(f.of[1], f.dtype[1], c) /
                              sqrt((double)ftr__load_real(f.of[4], f.dtype[4], c) + f.eps);
        scale[c] = (float)factor;
        shift[c] = (float)((double)ftr__load_real(f.of[2], f.dtype[2], c) +
                           (bias - (double)ftr__load_real(f.of[3], f.dtype[3], c)) * factor);
    }
}

/* -------------------------------------------------------------------------------------------------------------- plans -- */

static const ftr_view *ftr__conv_input(const ftr_kernel_call *call, int32_t index) {
    return index < call->in_count && call->in[index].dtype != FTR_DTYPE_NONE ? &call->in[index] : nullptr;
}

/* x, w and y of a convolution or one of its gradients. */
static void ftr__conv_views(const ftr_kernel_call *call, const ftr_view **x, const ftr_view **w, const ftr_view **y) {
    const bool to_input = call->op == FTR_OP_conv2d_grad_input, to_weight = call->op == FTR_OP_conv2d_grad_weight;
    *x = to_input ? &call->out[0] : to_weight ? &call->in[1] : &call->in[0];
    *w = to_weight ? &call->out[0] : &call->in[1];
    *y = to_input || to_weight ? &call->in[0] : &call->out[0];
}

static ftr__conv ftr__conv_of(const ftr_kernel_call *call) {
    const ftr_view *x, *w, *y;
    ftr__conv_views(call, &x, &w, &y);
    ftr__conv p = {};
    p.x = x->data, p.w = w->data, p.y = y->data;
    p.x_dtype = x->dtype, p.w_dtype = w->dtype, p.y_dtype = y->dtype;
    p.n = x->shape.dim[0], p.h = x->shape.dim[1], p.w_in = x->shape.dim[2], p.c = x->shape.dim[3];
    p.oh = y->shape.dim[1], p.ow = y->shape.dim[2], p.k = y->shape.dim[3];
    p.kh = static_cast<int32_t>(w->shape.dim[1]), p.kw = static_cast<int32_t>(w->shape.dim[2]);
    p.top = call->attr->conv.padding[0], p.left = call->attr->conv.padding[2];
    for (int32_t d = 0; d < 2; d++) p.stride[d] = call->attr->conv.stride[d], p.dilation[d] = call->attr->conv.dilation[d];
    p.group_in = w->shape.dim[3];
    p.group_out = p.k / call->attr->conv.groups;
    return p;
}

/* What is to be done behind the convolution itself. */
static int32_t ftr__conv_epilogue(const ftr_kernel_call *call) {
    if (call->op != FTR_OP_conv2d) return 0;
    int32_t epilogue = 0;
    if (ftr__conv_input(call, 3)) epilogue |= FTR__CONV_SCALE | FTR__CONV_SHIFT;
    if (ftr__conv_input(call, 2)) epilogue |= FTR__CONV_SHIFT;
    if (ftr__conv_input(call, 7)) epilogue |= FTR__CONV_RESIDUAL;
    if (call->attr->conv.activation == FTR_ACT_RELU) epilogue |= FTR__CONV_RELU;
    return epilogue;
}

/* cuDNN's convolutions give all rows and columns. */
static bool ftr__conv_is_whole(const ftr_kernel_call *call, const ftr__conv *p) {
    const int32_t *pad = call->attr->conv.padding;
    const int64_t reach[2] = {(int64_t)p->dilation[0] * (p->kh - 1) + 1, (int64_t)p->dilation[1] * (p->kw - 1) + 1};
    return (p->h + pad[0] + pad[1] - reach[0]) / p->stride[0] + 1 == p->oh &&
           (p->w_in + pad[2] + pad[3] - reach[1]) / p->stride[1] + 1 == p->ow;
}

/* `pattern`: FTR__CONV_ bits of the epilogue; FTR__CONV_WIDE: the result is f32 whatever y is. */
static void ftr__conv_build(ftr__dnn_graph *graph, const ftr_kernel_call *call, int32_t pattern) {
    const ftr_view *x, *w, *y;
    ftr__conv_views(call, &x, &w, &y);
    const cudnnBackendDescriptor_t dx = ftr__dnn_image(graph, FTR__CONV_X, x->dtype, &x->shape, false);
    const cudnnBackendDescriptor_t dw = ftr__dnn_image(graph, FTR__CONV_W, w->dtype, &w->shape, false);
    const int64_t channels = y->shape.dim[3];
    const ftr_dtype result = pattern & FTR__CONV_WIDE ? FTR_F32 : y->dtype;
    struct step {
        int32_t bit;
        cudnnPointwiseMode_t mode;
        int64_t id;
    };
    static const step steps[] = {{FTR__CONV_SCALE, CUDNN_POINTWISE_MUL, FTR__CONV_SCALES},
                                 {FTR__CONV_SHIFT, CUDNN_POINTWISE_ADD, FTR__CONV_SHIFTS},
                                 {FTR__CONV_RESIDUAL, CUDNN_POINTWISE_ADD, FTR__CONV_RESIDUALS},
                                 {FTR__CONV_RELU, CUDNN_POINTWISE_RELU_FWD, 0}};
    int32_t left = 0;
    for (const step &s : steps) left += (pattern & s.bit) != 0;
    int64_t id = FTR__CONV_VIRTUAL;
    cudnnBackendDescriptor_t at = left ? ftr__dnn_image(graph, id++, FTR_F32, &y->shape, true)
                                       : ftr__dnn_image(graph, FTR__CONV_Y, result, &y->shape, false);
    const ftr__dnn_convolution_kind kind = call->op == FTR_OP_conv2d              ? FTR__DNN_FORWARD
                                           : call->op == FTR_OP_conv2d_grad_input ? FTR__DNN_GRAD_INPUT
                                                                                  : FTR__DNN_GRAD_WEIGHT;
    ftr__dnn_convolution(graph, kind, call->attr, dx, dw, at);
    for (const step &s : steps) {
        if (!(pattern & s.bit)) continue;
        cudnnBackendDescriptor_t b = nullptr;
        if (s.bit == FTR__CONV_RESIDUAL) {
            b = ftr__dnn_image(graph, s.id, ftr__conv_input(call, 7)->dtype, &y->shape, false);
        } else if (s.id) {
            const ftr_view *bias = ftr__conv_input(call, 2);
            const bool folded = (pattern & FTR__CONV_SCALE) != 0;
            b = ftr__dnn_channels(graph, s.id, folded || !bias ? FTR_F32 : bias->dtype, channels);
        }
        left--;
        const cudnnBackendDescriptor_t next = left ? ftr__dnn_image(graph, id++, FTR_F32, &y->shape, true)
                                                   : ftr__dnn_image(graph, FTR__CONV_Y, result, &y->shape, false);
        ftr__dnn_pointwise(graph, s.mode, at, b, next);
        at = next;
    }
}

/* The plan of a pattern; nullptr if cuDNN refuses it, or if there is no memory. */
static const ftr__dnn_plan *ftr__conv_plan(const ftr_kernel_call *call, int32_t pattern) {
    const ftr_view *x, *w, *y;
    ftr__conv_views(call, &x, &w, &y);
    const ftr_op_attr *attr = call->attr;
    ftr__dnn_key key;
    memset(&key, 0, sizeof key);
    key.op = call->op;
    key.pattern = pattern;
    const int32_t numbers[] = {attr->conv.stride[0],  attr->conv.stride[1],   attr->conv.padding[0],  attr->conv.padding[1],
                               attr->conv.padding[2], attr->conv.padding[3],  attr->conv.dilation[0], attr->conv.dilation[1],
                               attr->conv.groups};
    memcpy(key.numbers, numbers, sizeof numbers);
    const ftr_view *views[4] = {x, w, y, ftr__conv_input(call, pattern & FTR__CONV_SCALE || call->op != FTR_OP_conv2d ? 7 : 2)};
    for (int32_t i = 0; i < 4 && views[i]; i++) {
        key.dtypes[i] = views[i]->dtype;
        key.shapes[i].rank = views[i]->shape.rank;
        for (int32_t d = 0; d < views[i]->shape.rank; d++) key.shapes[i].dim[d] = views[i]->shape.dim[d];
    }
    const char *words = call->op == FTR_OP_conv2d_grad_input    ? "convolution, gradient of x"
                        : call->op == FTR_OP_conv2d_grad_weight ? "convolution, gradient of w"
                        : pattern & ~FTR__CONV_WIDE             ? "convolution and epilogue"
                                                                : "convolution";
    const ftr__dnn_plan *plan = ftr__dnn_plan_of(call, &key, words, ftr__conv_build);
    return plan && plan->made ? plan : nullptr;
}

/* How a call is computed. */
struct ftr__conv_way {
    const ftr__dnn_plan *plan; /* nullptr: a direct kernel */
    int32_t pattern;           /* what the plan does */
    bool separate;             /* the epilogue is a pass of its own */
};

static ftr__conv_way ftr__conv_choose(const ftr_kernel_call *call) {
    const ftr__conv p = ftr__conv_of(call);
    const int32_t epilogue = ftr__conv_epilogue(call);
    const ftr_activation activation = call->op == FTR_OP_conv2d ? call->attr->conv.activation : FTR_ACT_NONE;
    ftr__conv_way way = {};
    if (call->out[0].count == 0 || call->in[0].count == 0 || !ftr__conv_is_whole(call, &p)) return way;
    if (activation == FTR_ACT_NONE || activation == FTR_ACT_RELU) {
        way.plan = ftr__conv_plan(call, epilogue);
        way.pattern = epilogue;
        if (way.plan || !epilogue) return way;
    }
    /* A result that is rounded before its epilogue would be less exact than one pass. */
    way.pattern = ftr__cuda_is_half(call->out[0].dtype) ? FTR__CONV_WIDE : 0;
    way.plan = ftr__conv_plan(call, way.pattern);
    way.separate = true;
    return way;
}

/* ------------------------------------------------------------------------------------------------------------ running -- */

/* Whether the input of a weight's gradient is to be computed again. */
static bool ftr__conv_is_again(const ftr_kernel_call *call) {
    return call->op == FTR_OP_conv2d_grad_weight && (ftr__conv_input(call, 2) || ftr__conv_input(call, 6));
}

/* The workspace: cuDNN's, a result in f32, scales and shifts; an input that is computed again. */
struct ftr__conv_room {
    size_t result, scale, shift, input, all;
};

static ftr__conv_room ftr__conv_room_of(const ftr_kernel_call *call, const ftr__conv_way *way) {
    ftr__conv_room room = {};
    size_t at = way->plan ? (way->plan->workspace + 255) / 256 * 256 : 0;
    room.result = at;
    if (way->plan && way->pattern & FTR__CONV_WIDE) at += (static_cast<size_t>(call->out[0].count) * 4 + 255) / 256 * 256;
    const size_t channels = static_cast<size_t>(call->out[0].shape.dim[call->out[0].shape.rank - 1]);
    const bool folded = ftr__conv_epilogue(call) & FTR__CONV_SCALE;
    room.scale = at;
    room.shift = room.scale + (folded ? (channels * 4 + 255) / 256 * 256 : 0);
    room.input = room.shift + (folded ? (channels * 4 + 255) / 256 * 256 : 0);
    room.all = room.input;
    if (ftr__conv_is_again(call)) room.all += static_cast<size_t>(call->in[1].count) * ftr_dtype_size(call->in[1].dtype);
    return room;
}

FTR__CUDA_LIB size_t ftr__cuda_conv2d_workspace(const ftr_kernel_call *call) {
    const ftr__conv_way way = ftr__conv_choose(call);
    return ftr__conv_room_of(call, &way).all;
}

FTR__CUDA_LIB const char *ftr__cuda_conv2d_algorithm(const ftr_kernel_call *call) {
    const ftr__conv_way way = ftr__conv_choose(call);
    if (!way.plan) return "direct";
    if (way.separate) return "cudnn, epilogue separate";
    return way.pattern ? "cudnn with epilogue" : "cudnn";
}

/* Scales and shifts of the channels, as the epilogue reads them. */
static ftr_status ftr__conv_fold_run(const ftr_kernel_call *call, const ftr__conv_room *room, ftr__conv_finish *finish) {
    const ftr_view *bias = ftr__conv_input(call, 2), *residual = ftr__conv_input(call, 7);
    finish->activation = call->attr->conv.activation;
    if (residual) finish->residual = residual->data, finish->residual_dtype = residual->dtype;
    if (bias) finish->shift = bias->data, finish->shift_dtype = bias->dtype;
    if (!ftr__conv_input(call, 3)) return FTR_OK;
    ftr__conv_fold fold = {};
    fold.eps = call->attr->conv.eps;
    for (int32_t i = 0; i < 5; i++) {
        const ftr_view *view = ftr__conv_input(call, 2 + i);
        if (view) fold.of[i] = view->data, fold.dtype[i] = view->dtype;
    }
    float *scale = reinterpret_cast<float *>(static_cast<char *>(call->workspace) + room->scale);
    float *shift = reinterpret_cast<float *>(static_cast<char *>(call->workspace) + room->shift);
    finish->scale = scale;
    finish->shift = shift;
    finish->shift_dtype = FTR_F32;
    const int64_t channels = call->out[0].shape.dim[3];
    return FTR_LAUNCH(call, ftr__conv_fold_channels, ftr__cuda_blocks(channels), FTR__CUDA_THREADS, fold, channels, scale, shift);
}

static ftr_status ftr__conv_run_plan(const ftr_kernel_call *call, const ftr__conv_way *way, const ftr__conv_finish *finish,
                                     void *result) {
    const ftr_view *x, *w, *y;
    ftr__conv_views(call, &x, &w, &y);
    int64_t ids[6] = {FTR__CONV_X, FTR__CONV_W, FTR__CONV_Y};
    void *data[6] = {x->data, w->data, y->data};
    int32_t count = 3;
    if (result) data[2] = result;
    if (way->pattern & FTR__CONV_SCALE) ids[count] = FTR__CONV_SCALES, data[count++] = const_cast<float *>(finish->scale);
    if (way->pattern & FTR__CONV_SHIFT) ids[count] = FTR__CONV_SHIFTS, data[count++] = const_cast<void *>(finish->shift);
    if (way->pattern & FTR__CONV_RESIDUAL) ids[count] = FTR__CONV_RESIDUALS, data[count++] = const_cast<void *>(finish->residual);
    return ftr__dnn_run(call, way->plan, count, ids, data, call->workspace);
}

FTR__CUDA_LIB ftr_status ftr__cuda_conv2d(const ftr_kernel_call *call) {
    if (call->out[0].count == 0) return FTR_OK;
    const ftr__conv_way way = ftr__conv_choose(call);
    const ftr__conv_room room = ftr__conv_room_of(call, &way);
    ftr__conv_finish finish = {};
    const ftr_view *y = &call->out[0];
    ftr_status status = ftr__conv_fold_run(call, &room, &finish);
    if (status) return status;
    if (!way.plan)
        return FTR_LAUNCH(call, ftr__conv_forward, ftr__cuda_blocks(y->count), FTR__CUDA_THREADS, ftr__conv_of(call), finish, y->data);
    void *wide = way.pattern & FTR__CONV_WIDE ? static_cast<char *>(call->workspace) + room.result : nullptr;
    status = ftr__conv_run_plan(call, &way, &finish, wide);
    if (status || !way.separate) return status;
    return FTR_LAUNCH(call, ftr__conv_finish_all, ftr__cuda_blocks(y->count), FTR__CUDA_THREADS, finish, wide ? wide : y->data,
                      wide ? FTR_F32 : y->dtype, y->data, y->dtype, y->count, y->shape.dim[3]);
}

/* Computes the input of a weight's gradient again, into the workspace; `x` becomes a view of it. */
static ftr_status ftr__conv_run_again(const ftr_kernel_call *call, const ftr__conv_way *way, ftr_view *x) {
    ftr__conv_again again = {};
    again.activation = call->attr->conv.activation;
    for (int32_t i = 0; i < 5; i++) {
        const ftr_view *view = ftr__conv_input(call, 2 + i);
        if (view) again.of[i] = view->data, again.dtype[i] = view->dtype;
    }
    const void *from = x->data;
    x->data = static_cast<char *>(call->workspace) + ftr__conv_room_of(call, way).input;
    const int64_t channels = x->shape.dim[3];
    return FTR_LAUNCH(call, ftr__conv_input_again, ftr__cuda_blocks(x->count), FTR__CUDA_THREADS, again, from, x->dtype, x->data,
                      x->count, channels, x->shape.dim[1] * x->shape.dim[2] * channels);
}

FTR__CUDA_LIB ftr_status ftr__cuda_conv2d_grad(const ftr_kernel_call *node) {
    const ftr_view *out = &node->out[0];
    const ftr__conv_way way = ftr__conv_choose(node);
    if (out->count == 0) return FTR_OK;
    ftr_kernel_call again = *node;
    ftr_view in[2] = {node->in[0], node->in[1]};
    const ftr_kernel_call *call = node;
    if (ftr__conv_is_again(node)) {
        const ftr_status status = ftr__conv_run_again(node, &way, &in[1]);
        if (status) return status;
        again.in = in;
        again.in_count = 2;
        call = &again;
    }
    if (way.plan) return ftr__conv_run_plan(call, &way, nullptr, nullptr);
    if (call->op == FTR_OP_conv2d_grad_input)
        return FTR_LAUNCH(call, ftr__conv_grad_input, ftr__cuda_blocks(out->count), FTR__CUDA_THREADS, ftr__conv_of(call), out->data);
    return FTR_LAUNCH(call, ftr__conv_grad_weight, ftr__cuda_blocks(out->count, 1), FTR__CUDA_THREADS, ftr__conv_of(call), out->data);
}

/* ---- src/backend/cuda/norm.cu ---- */
/* Batch norm and group norm of [n, ..., c]: a matrix whose columns are channels, of the whole batch or of a sample.
 *
 * A block has a tile of columns, a vector of them a thread, and a chunk of rows, over which its threads go side by side. A
 * thread takes some rows at a time: their mean and the squared deviations from it are joined with those of the rows before
 * (Chan, Golub, LeVeque: Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979), all of it relative to
 * the chunk's first row that counts, so that a mean far from 0 costs no precision. A second kernel joins chunks, in double. */

#define FTR__NORM_BLOCKS 1024 /* that a matrix is cut into, about, if it is large */
#define FTR__NORM_BATCH 4     /* rows that a thread takes at a time */
#define FTR__NORM_LEAST 4     /* such batches of a thread, at least */

struct ftr__norm_tiles {
    int64_t samples, rows, columns; /* matrices; rows and columns of each */
    int64_t tiles, chunks, a_chunk; /* of a matrix; rows of a chunk */
    int lanes;                      /* threads side by side: a power of two */
    int64_t width, sets;            /* columns with common statistics, and how many such sets a sample has */
    const float *mask;              /* of samples of the batch; nullptr: all rows count */
    int64_t rows_per_mask;
};

static ftr__norm_tiles ftr__norm_tiles_of(int64_t samples, int64_t rows, int64_t columns, int64_t width, int vector) {
    ftr__norm_tiles p = {};
    const int64_t packs = columns / vector;
    p.samples = samples;
    p.rows = rows;
    p.columns = columns;
    p.width = width;
    for (p.lanes = 1; p.lanes < packs && p.lanes < FTR__CUDA_WARP;) p.lanes *= 2;
    p.tiles = (packs + p.lanes - 1) / p.lanes;
    const int64_t least = FTR__CUDA_THREADS / p.lanes * FTR__NORM_BATCH * FTR__NORM_LEAST;
    const int64_t wanted = FTR__NORM_BLOCKS / (samples * p.tiles + 1) + 1;
    const int64_t most = (rows + least - 1) / least, chunks = wanted < most ? wanted : most;
    p.a_chunk = chunks > 0 ? (rows + chunks - 1) / chunks : 1;
    p.chunks = (rows + p.a_chunk - 1) / p.a_chunk;
    return p;
}

/* A block's share and a thread's place in it. */
struct ftr__norm_place {
    int64_t sample, chunk, begin, end; /* rows of the sample's matrix */
    int64_t column;                    /* the thread's first one */
    int lane, line, lines;             /* rows begin + line, begin + line + lines, ... are the thread's */
    bool is_there;                     /* the column */
};

static __device__ __forceinline__ ftr__norm_place ftr__norm_place_of(const ftr__norm_tiles &p, int64_t task,
                                                                     int vector) {
    ftr__norm_place at;
    at.lane = (int)threadIdx.x & (p.lanes - 1);
    at.line = (int)threadIdx.x / p.lanes;
    at.lines = FTR__CUDA_THREADS / p.lanes;
    const int64_t tile = task % p.tiles, rest = task / p.tiles;
    at.chunk = rest % p.chunks;
    at.sample = rest / p.chunks;
    at.begin = at.chunk * p.a_chunk;
    at.end = min(p.rows, at.begin + p.a_chunk);
    at.column = (tile * p.lanes + at.lane) * vector;
    at.is_there = at.column < p.columns;
    return at;
}

static int64_t ftr__norm_tasks(const ftr__norm_tiles *p) { return p->tiles * p->chunks * p->samples; }

static __device__ __forceinline__ bool ftr__norm_counts(const ftr__norm_tiles &p, int64_t row) {
    return !p.mask || p.mask[row / p.rows_per_mask] != 0.0f;
}

/* ------------------------------------------------------------------------------------------------------ activations -- */

static __device__ __forceinline__ float ftr__norm_sigmoid(float x) {
    const float e = expf(-fabsf(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

static __device__ __forceinline__ float ftr__norm_activate(ftr_activation activation, float x) {
    switch (activation) {
    case FTR_ACT_RELU: return x < 0.0f ? 0.0f : x;
    case FTR_ACT_RELU6: return x < 0.0f ? 0.0f : x > 6.0f ? 6.0f : x;
    case FTR_ACT_HARDSWISH: return x <= -3.0f ? 0.0f : x >= 3.0f ? x : x * ((x + 3.0f) * (1.0f / 6.0f));
    case FTR_ACT_SILU: return x * ftr__norm_sigmoid(x);
    default: return x;
    }
}

/* d times the slope at x. */
static __device__ __forceinline__ float ftr__norm_slope(ftr_activation activation, float d, float x) {
    switch (activation) {
    case FTR_ACT_RELU: return x <= 0.0f ? 0.0f : d;
    case FTR_ACT_RELU6: return x > 0.0f && x < 6.0f ? d : 0.0f;
    case FTR_ACT_HARDSWISH: return x <= -3.0f ? 0.0f : x >= 3.0f ? d : d * (x * (1.0f / 3.0f) + 0.5f);
    case FTR_ACT_SILU: {
        const float s = ftr__norm_sigmoid(x);
        return d * (s + x * s * (1.0f - s));
    }
    default: return d;
    }
}

/* ------------------------------------------------------------------------------------------------------- statistics -- */

struct ftr__norm_moments {
    double count, mean, deviation; /* the sum of squared deviations from the mean */
};

static __device__ __forceinline__ void ftr__norm_join(ftr__norm_moments *a, const ftr__norm_moments &b) {
    if (b.count == 0.0) return;
    const double all = a->count + b.count, share = b.count / all, apart = b.mean - a->mean;
    a->deviation += b.deviation + apart * apart * a->count * share;
    a->mean += apart * share;
    a->count = all;
}

/* Joins moments of some rows with those of the rows before, in f32. `share`: of all rows, those that are new. */
static __device__ __forceinline__ void ftr__norm_join_f32(float *mean, float *deviation, float other_mean,
                                                          float other_deviation, float count, float share) {
    const float apart = other_mean - *mean;
    *deviation += other_deviation + apart * apart * count * share;
    *mean += apart * share;
}

/* partial: [samples][columns][chunks]. */
template <typename T, int V>
FTR__ROOMY_KERNEL ftr__norm_statistics(ftr__norm_tiles p, const T *x, ftr__norm_moments *partial) {
    FTR_SHARED(float, means, V *FTR__CUDA_THREADS);
    FTR_SHARED(float, deviations, V *FTR__CUDA_THREADS);
    FTR_SHARED(float, counts, FTR__CUDA_THREADS);
    const int me = (int)threadIdx.x;
    for (int64_t task = blockIdx.x; task < p.tiles * p.chunks * p.samples; task += gridDim.x) {
        const ftr__norm_place at = ftr__norm_place_of(p, task, V);
        const T *data = x + at.sample * p.rows * p.columns + at.column;
        float center[V] = {}, mean[V] = {}, deviation[V] = {}, count = 0.0f;
        int64_t first = at.begin;
        while (first < at.end && !ftr__norm_counts(p, first)) first = (first / p.rows_per_mask + 1) * p.rows_per_mask;
        if (at.is_there && first < at.end) ftr__load_vector<T, V>(data + first * p.columns, center);
        for (int64_t row = at.begin + at.line; row < at.end && at.is_there;
             row += (int64_t)at.lines * FTR__NORM_BATCH) {
            float v[FTR__NORM_BATCH][V], some = 0.0f;
            bool take[FTR__NORM_BATCH];
            FTR__UNROLL
            for (int i = 0; i < FTR__NORM_BATCH; i++) {
                const int64_t r = row + (int64_t)i * at.lines;
                take[i] = r < at.end && ftr__norm_counts(p, r);
                if (take[i]) ftr__load_vector<T, V>(data + r * p.columns, v[i]);
                some += take[i] ? 1.0f : 0.0f;
            }
            if (some == 0.0f) continue;
            const float share = some / (count + some), part = 1.0f / some;
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                float sum = 0.0f, squares = 0.0f, rest = 0.0f;
                FTR__UNROLL
                for (int i = 0; i < FTR__NORM_BATCH; i++) sum += take[i] ? v[i][k] - center[k] : 0.0f;
                const float its_mean = sum * part;
                FTR__UNROLL
                for (int i = 0; i < FTR__NORM_BATCH; i++) {
                    const float d = take[i] ? v[i][k] - center[k] - its_mean : 0.0f;
                    squares += d * d;
                    rest += d; /* of the mean's rounding */
                }
                ftr__norm_join_f32(&mean[k], &deviation[k], its_mean + rest * part, squares, count, share);
            }
            count += some;
        }
        FTR__UNROLL
        for (int k = 0; k < V; k++) {
            means[k * FTR__CUDA_THREADS + me] = mean[k];
            deviations[k * FTR__CUDA_THREADS + me] = deviation[k];
        }
        counts[me] = count;
        for (int step = at.lines / 2; step > 0; step /= 2) {
            __syncthreads();
            const int other = me + step * p.lanes;
            if (at.line >= step || counts[other] == 0.0f) continue;
            const float all = count + counts[other], share = counts[other] / all;
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                const int o = k * FTR__CUDA_THREADS + other;
                ftr__norm_join_f32(&mean[k], &deviation[k], means[o], deviations[o], count, share);
                means[k * FTR__CUDA_THREADS + me] = mean[k];
                deviations[k * FTR__CUDA_THREADS + me] = deviation[k];
            }
            count = all;
            counts[me] = count;
        }
        if (at.line == 0 && at.is_there) {
            FTR__UNROLL
            for (int k = 0; k < V; k++)
                partial[(at.sample * p.columns + at.column + k) * p.chunks + at.chunk] = {
                    count, (double)center[k] + (double)mean[k], deviation[k]};
        }
        __syncthreads();
    }
}

/* Of `count` partial results, by a warp; each lane has the result. */
static __device__ __forceinline__ ftr__norm_moments ftr__norm_join_parts(const ftr__norm_moments *part, int64_t count) {
    ftr__norm_moments all = {0.0, 0.0, 0.0};
    for (int64_t i = threadIdx.x % FTR__CUDA_WARP; i < count; i += FTR__CUDA_WARP) ftr__norm_join(&all, part[i]);
    for (int bits = 16; bits > 0; bits /= 2) {
        ftr__norm_moments other;
        other.count = __shfl_xor_sync(FTR__CUDA_FULL, all.count, bits);
        other.mean = __shfl_xor_sync(FTR__CUDA_FULL, all.mean, bits);
        other.deviation = __shfl_xor_sync(FTR__CUDA_FULL, all.deviation, bits);
        ftr__norm_join(&all, other);
    }
    all.count = __shfl_sync(FTR__CUDA_FULL, all.count, 0);
    all.mean = __shfl_sync(FTR__CUDA_FULL, all.mean, 0);
    all.deviation = __shfl_sync(FTR__CUDA_FULL, all.deviation, 0);
    return all;
}

/* What a kernel that makes coefficients needs besides the sizes. Of group norm variance and running statistics are missing. */
struct ftr__norm_parameters {
    const float *gamma, *beta; /* nullptr: 1, 0 */
    const float *running_mean, *running_variance;
    float *mean, *variance, *invstd;
    double eps;
    float *coefficients; /* [samples][3][columns]: mean, scale, shift */
};

/* A warp a set of columns. The shift makes up for the mean's rounding. The running statistics stand in where they are asked
 * for, and in training where no row counts. */
FTR__ROOMY_KERNEL ftr__norm_finish(ftr__norm_tiles p, ftr__norm_parameters q, const ftr__norm_moments *partial,
                                   bool use_running) {
    const int64_t warps = (int64_t)gridDim.x * (FTR__CUDA_THREADS / FTR__CUDA_WARP);
    const int64_t first = ((int64_t)blockIdx.x * FTR__CUDA_THREADS + threadIdx.x) / FTR__CUDA_WARP;
    const int lane = (int)threadIdx.x % FTR__CUDA_WARP;
    for (int64_t s = first; s < p.samples * p.sets; s += warps) {
        const int64_t items = use_running ? 0 : p.chunks * p.width;
        const ftr__norm_moments all = ftr__norm_join_parts(partial + s * items, items);
        double mean = all.mean, biased = all.deviation / all.count;
        double unbiased = all.deviation / (all.count > 1.0 ? all.count - 1.0 : 1.0);
        if (all.count == 0.0 && q.running_mean) {
            mean = q.running_mean[s];
            biased = unbiased = q.running_variance[s];
        } else if (all.count == 0.0) {
            mean = biased; /* NaN */
        }
        const double invstd = 1.0 / sqrt(biased + q.eps);
        const float rounded = static_cast<float>(mean);
        if (lane == 0) {
            q.mean[s] = rounded;
            if (q.variance) q.variance[s] = static_cast<float>(unbiased);
            q.invstd[s] = static_cast<float>(invstd);
        }
        float *to = q.coefficients + s / p.sets * 3 * p.columns;
        for (int64_t c = s % p.sets * p.width + lane; c < (s % p.sets + 1) * p.width; c += FTR__CUDA_WARP) {
            const double scale = q.gamma ? (double)q.gamma[c] * invstd : invstd;
            to[c] = rounded;
            to[p.columns + c] = static_cast<float>(scale);
            to[2 * p.columns + c] =
                static_cast<float>((q.beta ? (double)q.beta[c] : 0.0) + ((double)rounded - mean) * scale);
        }
    }
}

/* y = activation((x - mean) scale + shift + residual). y may be x. */
template <typename T, int V>
FTR__KERNEL ftr__norm_apply(ftr__norm_tiles p, const T *x, const float *coefficients, const T *residual,
                            ftr_activation activation, T *y) {
    for (int64_t task = blockIdx.x; task < p.tiles * p.chunks * p.samples; task += gridDim.x) {
        const ftr__norm_place at = ftr__norm_place_of(p, task, V);
        if (!at.is_there) continue;
        float mean[V], scale[V], shift[V];
        const float *from = coefficients + at.sample * 3 * p.columns + at.column;
        ftr__load_vector<float, V>(from, mean);
        ftr__load_vector<float, V>(from + p.columns, scale);
        ftr__load_vector<float, V>(from + 2 * p.columns, shift);
        int64_t index = (at.sample * p.rows + at.begin + at.line) * p.columns + at.column;
        const int64_t end = (at.sample * p.rows + at.end) * p.columns, step = at.lines * p.columns;
        for (; index < end; index += step) {
            float v[V], more[V] = {};
            ftr__load_vector<T, V>(x + index, v);
            if (residual) ftr__load_vector<T, V>(residual + index, more);
            FTR__UNROLL
            for (int k = 0; k < V; k++)
                v[k] = ftr__norm_activate(activation, fmaf(v[k] - mean[k], scale[k], shift[k]) + more[k]);
            ftr__store_vector<T, V>(y + index, v);
        }
    }
}

/* --------------------------------------------------------------------------------------------------------- gradient -- */

/* How dy gets through the activation behind a batch norm: where y is positive, or times the slope at
 * (x - mean) gamma / std + beta. */
template <typename T> struct ftr__norm_gate {
    ftr_activation activation;
    const T *y;
    const float *gamma, *invstd, *beta;
};

struct ftr__norm_sums {
    double sum, product; /* of g; of g (x - mean) */
};

/* g of a vector of dy; x is centered. */
template <typename T, int V>
static __device__ __forceinline__ void ftr__norm_through(const ftr__norm_gate<T> &gate, int64_t index, float (&d)[V],
                                                         const float (&x)[V], const float (&scale)[V],
                                                         const float (&shift)[V]) {
    if (gate.activation == FTR_ACT_NONE) return;
    if (gate.y) {
        float y[V];
        ftr__load_vector<T, V>(gate.y + index, y);
        FTR__UNROLL
        for (int k = 0; k < V; k++) d[k] = y[k] <= 0.0f ? 0.0f : d[k];
        return;
    }
    FTR__UNROLL
    for (int k = 0; k < V; k++) d[k] = ftr__norm_slope(gate.activation, d[k], fmaf(x[k], scale[k], shift[k]));
}

/* partial: [samples][columns][chunks]. */
template <typename T, int V>
FTR__KERNEL ftr__norm_grad_sums(ftr__norm_tiles p, const T *dy, const T *x, const float *mean, ftr__norm_gate<T> gate,
                                ftr__norm_sums *partial) {
    FTR_SHARED(float, sums, V *FTR__CUDA_THREADS);
    FTR_SHARED(float, products, V *FTR__CUDA_THREADS);
    const int me = (int)threadIdx.x;
    for (int64_t task = blockIdx.x; task < p.tiles * p.chunks * p.samples; task += gridDim.x) {
        const ftr__norm_place at = ftr__norm_place_of(p, task, V);
        const int64_t base = at.sample * p.rows * p.columns + at.column;
        float center[V] = {}, scale[V] = {}, shift[V] = {}, sum[V] = {}, product[V] = {};
        FTR__UNROLL
        for (int k = 0; k < V; k++) {
            if (!at.is_there) continue;
            const int64_t c = at.column + k;
            center[k] = mean[at.sample * p.sets + c / p.width];
            if (!gate.beta) continue;
            scale[k] = gate.gamma[c] * gate.invstd[c];
            shift[k] = gate.beta[c];
        }
        for (int64_t row = at.begin + at.line; row < at.end && at.is_there; row += at.lines) {
            const int64_t index = base + row * p.columns;
            float d[V], v[V];
            ftr__load_vector<T, V>(dy + index, d);
            ftr__load_vector<T, V>(x + index, v);
            FTR__UNROLL
            for (int k = 0; k < V; k++) v[k] -= center[k];
            ftr__norm_through<T, V>(gate, index, d, v, scale, shift);
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                sum[k] += d[k];
                product[k] = fmaf(d[k], v[k], product[k]);
            }
        }
        FTR__UNROLL
        for (int k = 0; k < V; k++) {
            sums[k * FTR__CUDA_THREADS + me] = sum[k];
            products[k * FTR__CUDA_THREADS + me] = product[k];
        }
        for (int step = at.lines / 2; step > 0; step /= 2) {
            __syncthreads();
            if (at.line >= step) continue;
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                const int o = k * FTR__CUDA_THREADS + me;
                sums[o] = sum[k] += sums[o + step * p.lanes];
                products[o] = product[k] += products[o + step * p.lanes];
            }
        }
        if (at.line == 0 && at.is_there) {
            FTR__UNROLL
            for (int k = 0; k < V; k++)
                partial[(at.sample * p.columns + at.column + k) * p.chunks + at.chunk] = {sum[k], product[k]};
        }
        __syncthreads();
    }
}

/* Of `count` partial results, by a warp; each lane has the result. */
static __device__ __forceinline__ ftr__norm_sums ftr__norm_add_parts(const ftr__norm_sums *part, int64_t count) {
    ftr__norm_sums all = {0.0, 0.0};
    for (int64_t i = threadIdx.x % FTR__CUDA_WARP; i < count; i += FTR__CUDA_WARP) {
        all.sum += part[i].sum;
        all.product += part[i].product;
    }
    all.sum = ftr__warp_sum(all.sum);
    all.product = ftr__warp_sum(all.product);
    return all;
}

/* A warp a channel: dgamma and dbeta, and with one sample and sets of one column, batch norm, the coefficients of
 * dx = g a + (x - mean) b + c. In training dx = gamma / std (g - dbeta / n - xhat dgamma / n) over the n rows that count (Ioffe,
 * Szegedy, 2015). */
FTR__KERNEL ftr__norm_grad_parameters(ftr__norm_tiles p, const float *gamma, const float *mean, const float *invstd,
                                      const ftr__norm_sums *partial, bool training, float *coefficients, float *dgamma,
                                      float *dbeta) {
    const int64_t warps = (int64_t)gridDim.x * (FTR__CUDA_THREADS / FTR__CUDA_WARP);
    const int64_t first = ((int64_t)blockIdx.x * FTR__CUDA_THREADS + threadIdx.x) / FTR__CUDA_WARP;
    const int lane = (int)threadIdx.x % FTR__CUDA_WARP;
    double count = 0.0;
    if (training) {
        const int64_t masks = p.mask && p.rows > 0 ? p.rows / p.rows_per_mask : 0;
        for (int64_t i = lane; i < masks; i += FTR__CUDA_WARP)
            count += p.mask[i] != 0.0f ? (double)p.rows_per_mask : 0.0;
        count = ftr__warp_sum(count);
        if (!p.mask) count = (double)p.rows;
    }
    const double share = count > 0.0 ? 1.0 / count : 0.0;
    for (int64_t c = first; c < p.columns; c += warps) {
        double sum = 0.0, product = 0.0;
        for (int64_t s = 0; s < p.samples && p.chunks > 0; s++) {
            const ftr__norm_sums all = ftr__norm_add_parts(partial + (s * p.columns + c) * p.chunks, p.chunks);
            sum += all.sum;
            product += all.product * (double)invstd[s * p.sets + c / p.width];
        }
        if (lane != 0) continue;
        if (dgamma) {
            dgamma[c] = static_cast<float>(product);
            dbeta[c] = static_cast<float>(sum);
        }
        if (!coefficients) continue;
        const double a = (double)gamma[c] * (double)invstd[c];
        coefficients[c] = mean[c];
        coefficients[p.columns + c] = static_cast<float>(a);
        coefficients[2 * p.columns + c] = static_cast<float>(-a * (double)invstd[c] * product * share);
        coefficients[3 * p.columns + c] = static_cast<float>(-a * sum * share);
    }
}

/* dx = g a + (x - mean) b + c, where b and c are 0 for rows that do not count. dx may be dy. */
template <typename T, int V>
FTR__ROOMY_KERNEL ftr__norm_grad_apply(ftr__norm_tiles p, const T *dy, const T *x, const float *coefficients,
                                       ftr__norm_gate<T> gate, T *dx) {
    for (int64_t task = blockIdx.x; task < p.tiles * p.chunks * p.samples; task += gridDim.x) {
        const ftr__norm_place at = ftr__norm_place_of(p, task, V);
        if (!at.is_there) continue;
        float mean[V], a[V], b[V], c[V], shift[V] = {};
        const float *from = coefficients + at.sample * 4 * p.columns + at.column;
        ftr__load_vector<float, V>(from, mean);
        ftr__load_vector<float, V>(from + p.columns, a);
        ftr__load_vector<float, V>(from + 2 * p.columns, b);
        ftr__load_vector<float, V>(from + 3 * p.columns, c);
        if (gate.beta) ftr__load_vector<float, V>(gate.beta + at.column, shift);
        int64_t row = at.begin + at.line, index = (at.sample * p.rows + row) * p.columns + at.column;
        const int64_t step = at.lines * p.columns;
        for (; row < at.end; row += at.lines, index += step) {
            const bool counts = ftr__norm_counts(p, row);
            float d[V], v[V];
            ftr__load_vector<T, V>(dy + index, d);
            ftr__load_vector<T, V>(x + index, v);
            FTR__UNROLL
            for (int k = 0; k < V; k++) v[k] -= mean[k];
            ftr__norm_through<T, V>(gate, index, d, v, a, shift);
            FTR__UNROLL
            for (int k = 0; k < V; k++) d[k] = fmaf(d[k], a[k], counts ? fmaf(v[k], b[k], c[k]) : 0.0f);
            ftr__store_vector<T, V>(dx + index, d);
        }
    }
}

/* ------------------------------------------------------------------------------------------------------- batch norm -- */

static ftr__norm_tiles ftr__batch_norm_tiles(const ftr_view *x, int vector) {
    const int64_t columns = x->shape.dim[x->shape.rank - 1], rows = columns > 0 ? x->count / columns : 0;
    ftr__norm_tiles p = ftr__norm_tiles_of(1, rows, columns, 1, vector);
    p.sets = columns;
    p.rows_per_mask = x->shape.dim[0] > 0 ? rows / x->shape.dim[0] : 1;
    return p;
}

static ftr__norm_tiles ftr__group_norm_tiles(const ftr_kernel_call *call, const ftr_view *x, int vector) {
    const int64_t columns = x->shape.dim[x->shape.rank - 1], groups = call->attr->row_norm.groups;
    int64_t rows = 1;
    for (int32_t d = 1; d < x->shape.rank - 1; d++) rows *= x->shape.dim[d];
    ftr__norm_tiles p = ftr__norm_tiles_of(x->shape.dim[0], rows, columns, columns / groups, vector);
    p.sets = groups;
    return p;
}

/* Partial results, then coefficients, whose place is a multiple of 16 bytes. */
static size_t ftr__norm_partial_bytes(const ftr__norm_tiles *p, size_t each) {
    return (static_cast<size_t>(p->samples * p->columns * p->chunks) * each + 15) / 16 * 16;
}

static float *ftr__norm_coefficients(const ftr_kernel_call *call, const ftr__norm_tiles *p, size_t each) {
    return reinterpret_cast<float *>(static_cast<unsigned char *>(call->workspace) + ftr__norm_partial_bytes(p, each));
}

/* How wide vectors are turns out when the kernel runs: enough for each width. */
template <typename F> static size_t ftr__norm_workspace(const ftr_view *x, size_t each, int32_t coefficients, F tiles) {
    const int widths[2] = {1, 16 / (int)ftr_dtype_size(x->dtype)};
    size_t most = 0;
    for (int i = 0; i < 2; i++) {
        const ftr__norm_tiles p = tiles(widths[i]);
        const size_t bytes = ftr__norm_partial_bytes(&p, each) +
                             static_cast<size_t>(coefficients * p.samples * p.columns) * sizeof(float);
        most = bytes > most ? bytes : most;
    }
    return most;
}

FTR__CUDA_LIB size_t ftr__cuda_batch_norm_workspace(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0];
    return ftr__norm_workspace(x, sizeof(ftr__norm_moments), 3, [&](int v) { return ftr__batch_norm_tiles(x, v); });
}

/* `p` has the mask. */
template <typename T, int V>
static ftr_status ftr__norm_forward(const ftr_kernel_call *call, ftr__norm_tiles p, ftr__norm_parameters q,
                                    bool use_running, const T *residual, ftr_activation activation) {
    ftr__norm_moments *partial = static_cast<ftr__norm_moments *>(call->workspace);
    const T *x = static_cast<const T *>(call->in[0].data);
    const unsigned blocks = ftr__cuda_blocks(ftr__norm_tasks(&p), 1);
    q.coefficients = ftr__norm_coefficients(call, &p, sizeof *partial);
    ftr_status status = FTR_OK;
    if (!use_running) status = FTR_LAUNCH(call, (ftr__norm_statistics<T, V>), blocks, FTR__CUDA_THREADS, p, x, partial);
    if (status == FTR_OK)
        status = FTR_LAUNCH(call, ftr__norm_finish, ftr__cuda_blocks(p.samples * p.sets * FTR__CUDA_WARP),
                            FTR__CUDA_THREADS, p, q, partial, use_running);
    if (status != FTR_OK) return status;
    return FTR_LAUNCH(call, (ftr__norm_apply<T, V>), blocks, FTR__CUDA_THREADS, p, x, q.coefficients, residual,
                      activation, static_cast<T *>(call->out[0].data));
}

FTR__CUDA_LIB ftr_status ftr__cuda_batch_norm(const ftr_kernel_call *call) {
    return ftr__for_channels(call, &call->in[0], [&](auto tag, auto width) {
        using T = decltype(tag);
        ftr__norm_tiles p = ftr__batch_norm_tiles(&call->in[0], width.value);
        ftr__norm_parameters q = {};
        p.mask = ftr__optional_data<float>(call, 5);
        q.gamma = static_cast<const float *>(call->in[1].data);
        q.beta = static_cast<const float *>(call->in[2].data);
        q.running_mean = static_cast<const float *>(call->in[3].data);
        q.running_variance = static_cast<const float *>(call->in[4].data);
        q.mean = static_cast<float *>(call->out[1].data);
        q.variance = static_cast<float *>(call->out[2].data);
        q.invstd = static_cast<float *>(call->out[3].data);
        q.eps = call->attr->norm.eps;
        return ftr__norm_forward<T, decltype(width)::value>(
            call, p, q, !call->attr->norm.training, ftr__optional_data<T>(call, 6), call->attr->norm.activation);
    });
}

FTR__CUDA_LIB size_t ftr__cuda_batch_norm_grad_workspace(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[1];
    return ftr__norm_workspace(x, sizeof(ftr__norm_sums), 4, [&](int v) { return ftr__batch_norm_tiles(x, v); });
}

/* With running statistics rows do not depend on each other, and the mask has no say. */
FTR__CUDA_LIB ftr_status ftr__cuda_batch_norm_grad(const ftr_kernel_call *call) {
    return ftr__for_channels(call, &call->in[1], [&](auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        ftr__norm_tiles p = ftr__batch_norm_tiles(&call->in[1], V);
        const bool training = call->attr->norm.training;
        if (training) p.mask = ftr__optional_data<float>(call, 5);
        const T *dy = static_cast<const T *>(call->in[0].data), *x = static_cast<const T *>(call->in[1].data);
        const float *gamma = static_cast<const float *>(call->in[2].data);
        const float *mean = static_cast<const float *>(call->in[3].data);
        const float *invstd = static_cast<const float *>(call->in[4].data);
        ftr__norm_gate<T> gate = {call->attr->norm.activation, ftr__optional_data<T>(call, 6), gamma, invstd,
                                  ftr__optional_data<float>(call, 7)};
        if (!gate.y && !gate.beta) gate.activation = FTR_ACT_NONE;
        ftr__norm_sums *partial = static_cast<ftr__norm_sums *>(call->workspace);
        float *coefficients = ftr__norm_coefficients(call, &p, sizeof *partial);
        const unsigned blocks = ftr__cuda_blocks(ftr__norm_tasks(&p), 1);
        ftr_status status =
            FTR_LAUNCH(call, (ftr__norm_grad_sums<T, V>), blocks, FTR__CUDA_THREADS, p, dy, x, mean, gate, partial);
        if (status == FTR_OK)
            status = FTR_LAUNCH(call, ftr__norm_grad_parameters, ftr__cuda_blocks(p.columns * FTR__CUDA_WARP),
                                FTR__CUDA_THREADS, p, gamma, mean, invstd, partial, training, coefficients,
                                static_cast<float *>(call->out[1].data), static_cast<float *>(call->out[2].data));
        if (status != FTR_OK) return status;
        return FTR_LAUNCH(call, (ftr__norm_grad_apply<T, V>), blocks, FTR__CUDA_THREADS, p, dy, x, coefficients, gate,
                          static_cast<T *>(call->out[0].data));
    });
}

/* ------------------------------------------------------------------------------------------------------- group norm -- */

/* A warp a group of a sample: the coefficients of dx = dy a + (x - mean) b + c. With u = dy gamma and z = (x - mean) / std it
 * is (u - mean of u - z mean of u z) / std. */
FTR__KERNEL ftr__group_norm_coefficients(ftr__norm_tiles p, const float *gamma, const float *mean, const float *invstd,
                                         const ftr__norm_sums *partial, float *coefficients) {
    const int64_t warps = (int64_t)gridDim.x * (FTR__CUDA_THREADS / FTR__CUDA_WARP);
    const int64_t first = ((int64_t)blockIdx.x * FTR__CUDA_THREADS + threadIdx.x) / FTR__CUDA_WARP;
    const int lane = (int)threadIdx.x % FTR__CUDA_WARP;
    for (int64_t s = first; s < p.samples * p.sets; s += warps) {
        const int64_t column = s % p.sets * p.width, items = p.chunks * p.width;
        double sum = 0.0, product = 0.0;
        for (int64_t i = lane; i < items; i += FTR__CUDA_WARP) {
            const ftr__norm_sums part = partial[s * items + i];
            const double factor = gamma ? (double)gamma[column + i / p.chunks] : 1.0;
            sum += factor * part.sum;
            product += factor * part.product;
        }
        sum = ftr__warp_sum(sum);
        product = ftr__warp_sum(product);
        const double inverse = (double)invstd[s], share = inverse / (double)(p.rows * p.width);
        float *to = coefficients + s / p.sets * 4 * p.columns;
        for (int64_t c = column + lane; c < column + p.width; c += FTR__CUDA_WARP) {
            to[c] = mean[s];
            to[p.columns + c] = static_cast<float>(gamma ? (double)gamma[c] * inverse : inverse);
            to[2 * p.columns + c] = static_cast<float>(-inverse * inverse * share * product);
            to[3 * p.columns + c] = static_cast<float>(-share * sum);
        }
    }
}

FTR__CUDA_LIB size_t ftr__cuda_group_norm_workspace(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0];
    return ftr__norm_workspace(x, sizeof(ftr__norm_moments), 3,
                               [&](int v) { return ftr__group_norm_tiles(call, x, v); });
}

FTR__CUDA_LIB ftr_status ftr__cuda_group_norm(const ftr_kernel_call *call) {
    return ftr__for_channels(call, &call->in[0], [&](auto tag, auto width) {
        using T = decltype(tag);
        const ftr__norm_tiles p = ftr__group_norm_tiles(call, &call->in[0], width.value);
        ftr__norm_parameters q = {};
        q.gamma = ftr__optional_data<float>(call, 1);
        q.beta = ftr__optional_data<float>(call, 2);
        q.mean = static_cast<float *>(call->out[1].data);
        q.invstd = static_cast<float *>(call->out[2].data);
        q.eps = call->attr->row_norm.eps;
        return ftr__norm_forward<T, decltype(width)::value>(call, p, q, false, nullptr, FTR_ACT_NONE);
    });
}

FTR__CUDA_LIB size_t ftr__cuda_group_norm_grad_workspace(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[1];
    return ftr__norm_workspace(x, sizeof(ftr__norm_sums), 4, [&](int v) { return ftr__group_norm_tiles(call, x, v); });
}

FTR__CUDA_LIB ftr_status ftr__cuda_group_norm_grad(const ftr_kernel_call *call) {
    return ftr__for_channels(call, &call->in[1], [&](auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const ftr__norm_tiles p = ftr__group_norm_tiles(call, &call->in[1], V);
        const T *dy = static_cast<const T *>(call->in[0].data), *x = static_cast<const T *>(call->in[1].data);
        const float *mean = static_cast<const float *>(call->in[2].data);
        const float *invstd = static_cast<const float *>(call->in[3].data);
        const float *gamma = ftr__optional_data<float>(call, 4);
        const ftr__norm_gate<T> open = {FTR_ACT_NONE, nullptr, nullptr, nullptr, nullptr};
        ftr__norm_sums *partial = static_cast<ftr__norm_sums *>(call->workspace);
        float *coefficients = ftr__norm_coefficients(call, &p, sizeof *partial), *none = nullptr;
        const unsigned blocks = ftr__cuda_blocks(ftr__norm_tasks(&p), 1);
        ftr_status status =
            FTR_LAUNCH(call, (ftr__norm_grad_sums<T, V>), blocks, FTR__CUDA_THREADS, p, dy, x, mean, open, partial);
        if (status == FTR_OK)
            status =
                FTR_LAUNCH(call, ftr__group_norm_coefficients, ftr__cuda_blocks(p.samples * p.sets * FTR__CUDA_WARP),
                           FTR__CUDA_THREADS, p, gamma, mean, invstd, partial, coefficients);
        if (status == FTR_OK && call->attr->row_norm.sums)
            status = FTR_LAUNCH(call, ftr__norm_grad_parameters, ftr__cuda_blocks(p.columns * FTR__CUDA_WARP),
                                FTR__CUDA_THREADS, p, gamma, mean, invstd, partial, false, none,
                                static_cast<float *>(call->out[1].data), static_cast<float *>(call->out[2].data));
        if (status != FTR_OK) return status;
        return FTR_LAUNCH(call, (ftr__norm_grad_apply<T, V>), blocks, FTR__CUDA_THREADS, p, dy, x, coefficients, open,
                          static_cast<T *>(call->out[0].data));
    });
}

/* ---- src/backend/cuda/row_norm.cu ---- */
/* Layer norm and RMS norm: a warp or a block has a row, in registers if it fits. Statistics take two passes: sums of x - x0
 * give the mean, sums of x - mean and of their squares the variance, with what the rounding of the mean left over. */

struct ftr__row_norm {
    int64_t rows, n;
    bool rms;
    float eps;
    const float *gamma, *beta; /* nullptr where missing */
    float *mean, *invstd;      /* of the gradient only read; mean of layer norm alone */
};

static ftr__row_norm ftr__row_norm_of(const ftr_kernel_call *call, const ftr_view *x) {
    ftr__row_norm p = {};
    const int32_t leading = x->shape.rank - call->attr->row_norm.dims;
    p.rows = p.n = 1;
    for (int32_t d = 0; d < x->shape.rank; d++) *(d < leading ? &p.rows : &p.n) *= x->shape.dim[d];
    p.rms = call->op == FTR_OP_rms_norm || call->op == FTR_OP_rms_norm_grad;
    p.eps = static_cast<float>(call->attr->row_norm.eps);
    return p;
}

/* Of the threads that share a row. */
template <int LANES> static __device__ __forceinline__ float ftr__row_sum(float x, float *room) {
    if (LANES == FTR__CUDA_WARP) return ftr__warp_sum(x);
    return ftr__block_sum(x, room);
}

/* A row's elements of one thread, V at a time: up to PACKS times, held; PACKS 0: any number, read again in each pass. f(x, at, k)
 * is called for each, `at` being its place in the row. */
template <typename T, int V, int LANES, int PACKS> struct ftr__norm_row {
    float held[PACKS > 0 ? PACKS : 1][V];
    const T *from;
    int64_t n;
    int lane;

    __device__ __forceinline__ void open(const T *row, int64_t count) {
        from = row;
        n = count;
        lane = (int)threadIdx.x % LANES;
        if constexpr (PACKS > 0) {
            FTR__UNROLL
            for (int i = 0; i < PACKS; i++) {
                const int64_t at = (int64_t)(i * LANES + lane) * V;
                if (at < n) ftr__load_vector<T, V>(row + at, held[i]);
            }
        }
    }

    /* Calls f with each vector, which is kept as f leaves it, if it is held. */
    template <typename F> __device__ __forceinline__ void each(F f) {
        if constexpr (PACKS == 0) {
            for (int64_t at = (int64_t)lane * V; at < n; at += LANES * V) {
                ftr__load_vector<T, V>(from + at, held[0]);
                f(held[0], at);
            }
        } else {
            FTR__UNROLL
            for (int i = 0; i < PACKS; i++) {
                const int64_t at = (int64_t)(i * LANES + lane) * V;
                if (at < n) f(held[i], at);
            }
        }
    }
};

/* y may be x. */
template <typename T, int V, int LANES, int PACKS> FTR__KERNEL ftr__row_norm_kernel(ftr__row_norm p, const T *x, T *y) {
    FTR_SHARED(float, room, FTR__CUDA_WARP);
    constexpr int rows = FTR__CUDA_THREADS / LANES; /* of a block */
    const float n = static_cast<float>(p.n);
    for (int64_t row = (int64_t)blockIdx.x * rows + threadIdx.x / LANES; row < p.rows;
         row += (int64_t)gridDim.x * rows) {
        ftr__norm_row<T, V, LANES, PACKS> mine;
        mine.open(x + row * p.n, p.n);
        float mean = 0.0f, left = 0.0f;
        if (!p.rms) {
            const float first = p.n > 0 ? ftr__to_float(x[row * p.n]) : 0.0f;
            float sum = 0.0f;
            mine.each([&](float(&v)[V], int64_t) {
                FTR__UNROLL
                for (int k = 0; k < V; k++) sum += v[k] - first;
            });
            mean = first + ftr__row_sum<LANES>(sum, room) / n;
        }
        float sum = 0.0f, squares = 0.0f;
        mine.each([&](float(&v)[V], int64_t) {
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                const float d = v[k] - mean;
                sum += d;
                squares = fmaf(d, d, squares);
            }
        });
        if (!p.rms) left = ftr__row_sum<LANES>(sum, room) / n;
        const float variance = ftr__row_sum<LANES>(squares, room) / n - left * left;
        const float invstd = 1.0f / sqrtf((variance <= 0.0f ? 0.0f : variance) + p.eps);
        if (threadIdx.x % LANES == 0) {
            if (!p.rms) p.mean[row] = mean;
            p.invstd[row] = invstd;
        }
        T *to = y + row * p.n;
        const float shift = -left * invstd;
        mine.each([&](float(&v)[V], int64_t at) {
            float scale[V] = {}, more[V] = {}, z[V];
            if (p.gamma) ftr__load_vector<float, V>(p.gamma + at, scale);
            if (p.beta) ftr__load_vector<float, V>(p.beta + at, more);
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                z[k] = fmaf(v[k] - mean, invstd, shift);
                if (p.gamma) z[k] *= scale[k];
                if (p.beta) z[k] += more[k];
            }
            ftr__store_vector<T, V>(to + at, z);
        });
    }
}

/* With u = dy gamma and z = (x - mean) / std: dx = (u - mean of u - z mean of u z) / std; RMS norm has no mean of u. dx may be
 * dy. */
template <typename T, int V, int LANES, int PACKS>
FTR__ROOMY_KERNEL ftr__row_norm_grad_kernel(ftr__row_norm p, const T *dy, const T *x, T *dx) {
    FTR_SHARED(float, room, FTR__CUDA_WARP);
    constexpr int rows = FTR__CUDA_THREADS / LANES;
    const float n = static_cast<float>(p.n);
    for (int64_t row = (int64_t)blockIdx.x * rows + threadIdx.x / LANES; row < p.rows;
         row += (int64_t)gridDim.x * rows) {
        ftr__norm_row<T, V, LANES, PACKS> mine;
        mine.open(dy + row * p.n, p.n);
        const float mean = p.rms ? 0.0f : p.mean[row], invstd = p.invstd[row];
        const T *source = x + row * p.n;
        T *to = dx + row * p.n;
        float sum = 0.0f, product = 0.0f;
        mine.each([&](float(&u)[V], int64_t at) {
            float v[V], scale[V] = {};
            ftr__load_vector<T, V>(source + at, v);
            if (p.gamma) ftr__load_vector<float, V>(p.gamma + at, scale);
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                if (p.gamma) u[k] *= scale[k];
                sum += u[k];
                product = fmaf(u[k], (v[k] - mean) * invstd, product);
            }
        });
        sum = p.rms ? 0.0f : ftr__row_sum<LANES>(sum, room) / n;
        product = ftr__row_sum<LANES>(product, room) / n;
        mine.each([&](float(&u)[V], int64_t at) {
            float v[V], scale[V] = {}, d[V];
            ftr__load_vector<T, V>(source + at, v);
            if (PACKS == 0 && p.gamma) ftr__load_vector<float, V>(p.gamma + at, scale);
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                if (PACKS == 0 && p.gamma) u[k] *= scale[k];
                d[k] = invstd * (u[k] - sum - (v[k] - mean) * invstd * product);
            }
            ftr__store_vector<T, V>(to + at, d);
        });
    }
}

/* Calls run(vector width, lanes, packs) with integral constants that fit rows of n elements. */
template <typename T, typename F> static ftr_status ftr__row_norm_dispatch(int64_t n, bool aligned, F run) {
    constexpr int width = ftr__vector_width<T>();
    constexpr ftr__constant<FTR__CUDA_WARP> warp = {};
    constexpr ftr__constant<FTR__CUDA_THREADS> block = {};
    constexpr ftr__constant<width> wide = {};
    if (!aligned || n % width != 0)
        return n <= 1024 ? run(ftr__constant<1>(), warp, ftr__constant<0>())
                         : run(ftr__constant<1>(), block, ftr__constant<0>());
    if (n <= 8 * FTR__CUDA_WARP) return run(wide, warp, ftr__constant<8 / width>());
    if (n <= 32 * FTR__CUDA_WARP) return run(wide, warp, ftr__constant<32 / width>());
    if (n <= 8 * FTR__CUDA_THREADS) return run(wide, block, ftr__constant<8 / width>());
    if (n <= 32 * FTR__CUDA_THREADS) return run(wide, block, ftr__constant<32 / width>());
    return run(wide, block, ftr__constant<0>());
}

static unsigned ftr__row_norm_blocks(const ftr__row_norm *p, int lanes) {
    return ftr__cuda_blocks(p->rows, FTR__CUDA_THREADS / lanes);
}

FTR__CUDA_LIB ftr_status ftr__cuda_row_norm(const ftr_kernel_call *call) {
    ftr__row_norm p = ftr__row_norm_of(call, &call->in[0]);
    p.gamma = ftr__optional_data<float>(call, 1);
    p.beta = p.rms ? nullptr : ftr__optional_data<float>(call, 2);
    if (!p.rms) p.mean = static_cast<float *>(call->out[1].data);
    p.invstd = static_cast<float *>(call->out[p.rms ? 1 : 2].data);
    return ftr__for_real(call, call->in[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        return ftr__row_norm_dispatch<T>(p.n, ftr__all_aligned(call), [&](auto width, auto lanes, auto packs) {
            constexpr int V = decltype(width)::value, LANES = decltype(lanes)::value, PACKS = decltype(packs)::value;
            return FTR_LAUNCH(call, (ftr__row_norm_kernel<T, V, LANES, PACKS>), ftr__row_norm_blocks(&p, LANES),
                              FTR__CUDA_THREADS, p, static_cast<const T *>(call->in[0].data),
                              static_cast<T *>(call->out[0].data));
        });
    });
}

/* ---------------------------------------------------------------------------------------------- gamma's and beta's -- */

#define FTR__ROW_NORM_TILE 32  /* columns of a block */
#define FTR__ROW_NORM_LINES 8  /* rows that it takes at a time */
#define FTR__ROW_NORM_LEAST 32 /* rows of a chunk, at least */
#define FTR__ROW_NORM_BLOCKS 1024

struct ftr__row_norm_chunks {
    int64_t tiles, chunks, a_chunk;
};

static ftr__row_norm_chunks ftr__row_norm_chunks_of(const ftr__row_norm *p) {
    ftr__row_norm_chunks c = {};
    c.tiles = (p->n + FTR__ROW_NORM_TILE - 1) / FTR__ROW_NORM_TILE;
    const int64_t wanted = FTR__ROW_NORM_BLOCKS / (c.tiles + 1) + 1;
    const int64_t most = (p->rows + FTR__ROW_NORM_LEAST - 1) / FTR__ROW_NORM_LEAST;
    const int64_t chunks = wanted < most ? wanted : most;
    c.a_chunk = chunks > 0 ? (p->rows + chunks - 1) / chunks : 1;
    c.chunks = (p->rows + c.a_chunk - 1) / c.a_chunk;
    return c;
}

/* Shares of dgamma and dbeta, of a chunk of rows and a tile of columns: partial is [chunks][2][n]. */
template <typename T>
FTR__KERNEL ftr__row_norm_parameter_sums(ftr__row_norm p, ftr__row_norm_chunks c, const T *dy, const T *x,
                                         float *partial) {
    FTR_SHARED(float, gammas, FTR__CUDA_THREADS);
    FTR_SHARED(float, betas, FTR__CUDA_THREADS);
    const int lane = (int)threadIdx.x % FTR__ROW_NORM_TILE, line = (int)threadIdx.x / FTR__ROW_NORM_TILE;
    for (int64_t task = blockIdx.x; task < c.tiles * c.chunks; task += gridDim.x) {
        const int64_t column = task % c.tiles * FTR__ROW_NORM_TILE + lane, chunk = task / c.tiles;
        const int64_t begin = chunk * c.a_chunk, end = min(p.rows, begin + c.a_chunk);
        float dgamma = 0.0f, dbeta = 0.0f;
        for (int64_t row = begin + line; row < end; row += FTR__ROW_NORM_LINES) {
            if (column >= p.n) break;
            const float d = ftr__to_float(dy[row * p.n + column]), v = ftr__to_float(x[row * p.n + column]);
            dgamma = fmaf(d, (v - (p.rms ? 0.0f : p.mean[row])) * p.invstd[row], dgamma);
            dbeta += d;
        }
        gammas[threadIdx.x] = dgamma;
        betas[threadIdx.x] = dbeta;
        __syncthreads();
        if (line == 0 && column < p.n) {
            for (int i = 1; i < FTR__ROW_NORM_LINES; i++) {
                dgamma += gammas[i * FTR__ROW_NORM_TILE + lane];
                dbeta += betas[i * FTR__ROW_NORM_TILE + lane];
            }
            partial[chunk * 2 * p.n + column] = dgamma;
            partial[(chunk * 2 + 1) * p.n + column] = dbeta;
        }
        __syncthreads();
    }
}

/* The sum over chunks: a tile of columns a block, whose warps take chunks by turns. */
FTR__KERNEL ftr__row_norm_parameters(ftr__row_norm p, ftr__row_norm_chunks c, const float *partial, float *dgamma,
                                     float *dbeta) {
    FTR_SHARED(double, gammas, FTR__CUDA_THREADS);
    FTR_SHARED(double, betas, FTR__CUDA_THREADS);
    const int lane = (int)threadIdx.x % FTR__ROW_NORM_TILE, line = (int)threadIdx.x / FTR__ROW_NORM_TILE;
    for (int64_t tile = blockIdx.x; tile < c.tiles; tile += gridDim.x) {
        const int64_t column = tile * FTR__ROW_NORM_TILE + lane;
        double sum = 0.0, product = 0.0;
        for (int64_t chunk = line; chunk < c.chunks && column < p.n; chunk += FTR__ROW_NORM_LINES) {
            product += partial[chunk * 2 * p.n + column];
            sum += partial[(chunk * 2 + 1) * p.n + column];
        }
        gammas[threadIdx.x] = product;
        betas[threadIdx.x] = sum;
        __syncthreads();
        if (line == 0 && column < p.n) {
            for (int i = 1; i < FTR__ROW_NORM_LINES; i++) {
                product += gammas[i * FTR__ROW_NORM_TILE + lane];
                sum += betas[i * FTR__ROW_NORM_TILE + lane];
            }
            dgamma[column] = static_cast<float>(product);
            if (dbeta) dbeta[column] = static_cast<float>(sum);
        }
        __syncthreads();
    }
}

FTR__CUDA_LIB size_t ftr__cuda_row_norm_grad_workspace(const ftr_kernel_call *call) {
    const ftr__row_norm p = ftr__row_norm_of(call, &call->in[1]);
    const ftr__row_norm_chunks c = ftr__row_norm_chunks_of(&p);
    return call->attr->row_norm.sums ? static_cast<size_t>(c.chunks * 2 * p.n) * sizeof(float) : 0;
}

/* dgamma and dbeta come first, for dx may lie in dy's memory. */
FTR__CUDA_LIB ftr_status ftr__cuda_row_norm_grad(const ftr_kernel_call *call) {
    ftr__row_norm p = ftr__row_norm_of(call, &call->in[1]);
    if (!p.rms) p.mean = static_cast<float *>(call->in[2].data);
    p.invstd = static_cast<float *>(call->in[p.rms ? 2 : 3].data);
    p.gamma = ftr__optional_data<float>(call, p.rms ? 3 : 4);
    return ftr__for_real(call, call->in[1].dtype, [&](auto tag) {
        using T = decltype(tag);
        const T *dy = static_cast<const T *>(call->in[0].data), *x = static_cast<const T *>(call->in[1].data);
        if (call->attr->row_norm.sums) {
            const ftr__row_norm_chunks c = ftr__row_norm_chunks_of(&p);
            float *partial = static_cast<float *>(call->workspace);
            float *dbeta = p.rms ? nullptr : static_cast<float *>(call->out[2].data);
            ftr_status status =
                FTR_LAUNCH(call, (ftr__row_norm_parameter_sums<T>), ftr__cuda_blocks(c.tiles * c.chunks, 1),
                           FTR__CUDA_THREADS, p, c, dy, x, partial);
            if (status == FTR_OK)
                status = FTR_LAUNCH(call, ftr__row_norm_parameters, ftr__cuda_blocks(c.tiles, 1), FTR__CUDA_THREADS, p,
                                    c, partial, static_cast<float *>(call->out[1].data), dbeta);
            if (status != FTR_OK) return status;
        }
        return ftr__row_norm_dispatch<T>(p.n, ftr__all_aligned(call), [&](auto width, auto lanes, auto packs) {
            constexpr int V = decltype(width)::value, LANES = decltype(lanes)::value, PACKS = decltype(packs)::value;
            return FTR_LAUNCH(call, (ftr__row_norm_grad_kernel<T, V, LANES, PACKS>), ftr__row_norm_blocks(&p, LANES),
                              FTR__CUDA_THREADS, p, dy, x, static_cast<T *>(call->out[0].data));
        });
    });
}

/* ---- src/backend/cuda/pool.cu ---- */
/* Pooling over [n, h, w, c]: a thread has a vector of channels of one pixel of the result. The gradients gather: each input
 * pixel looks up the windows that cover it. */

struct ftr__pool2d {
    int64_t images, channels;
    int64_t in[2], out[2];                    /* height, width of the forward input and output */
    int64_t kernel[2], stride[2], padding[2]; /* padding: top, left. Stride 0: adaptive windows */
    bool exclude_padding;
};

/* A range, begin to end, end not included. */
struct ftr__pool_range {
    int64_t begin, end;
};

static __device__ __forceinline__ ftr__pool_range ftr__adaptive_window(int64_t at, int64_t size, int64_t windows) {
    return {at * size / windows, ((at + 1) * size + windows - 1) / windows};
}

/* The input positions of the window of output `at` along dimension d. */
static __device__ __forceinline__ ftr__pool_range ftr__pool_window(const ftr__pool2d &p, int d, int64_t at) {
    if (p.stride[d] == 0) return ftr__adaptive_window(at, p.in[d], p.out[d]);
    const int64_t begin = at * p.stride[d] - p.padding[d], end = begin + p.kernel[d];
    return {begin > 0 ? begin : 0, end < p.in[d] ? end : p.in[d]};
}

/* The output positions whose windows cover input `at`. Of adaptive windows, these are the windows over the output. */
static __device__ __forceinline__ ftr__pool_range ftr__pool_covering(const ftr__pool2d &p, int d, int64_t at) {
    if (p.stride[d] == 0) return ftr__adaptive_window(at, p.out[d], p.in[d]);
    const int64_t last = (at + p.padding[d]) / p.stride[d], before = at + p.padding[d] - p.kernel[d];
    const int64_t first = before >= 0 ? before / p.stride[d] + 1 : 0;
    return {first, last + 1 < p.out[d] ? last + 1 : p.out[d]};
}

/* What the mean over a window is divided by. */
static __device__ __forceinline__ float ftr__pool_divisor(const ftr__pool2d &p, ftr__pool_range h, ftr__pool_range w) {
    if (p.stride[0] != 0 && !p.exclude_padding) return static_cast<float>(p.kernel[0] * p.kernel[1]);
    const int64_t area = (h.end - h.begin) * (w.end - w.begin);
    return static_cast<float>(area > 0 ? area : 1);
}

/* Vector i of [images, height, width, channels]. */
struct ftr__pool_place {
    int64_t image, row, column, channel;
};

template <int V>
static __device__ __forceinline__ ftr__pool_place ftr__pool_place_of(const ftr__pool2d &p, const int64_t (&size)[2],
                                                                     int64_t i) {
    const int64_t packs = p.channels / V, pixel = i / packs, line = pixel / size[1];
    ftr__pool_place at;
    at.channel = (i - pixel * packs) * V;
    at.column = pixel - line * size[1];
    at.image = line / size[0];
    at.row = line - at.image * size[0];
    return at;
}

/* ---------------------------------------------------------------------------------------------------------- forward -- */

/* The first maximum wins, NaN is the largest. */
template <typename T, int V>
FTR__ROOMY_KERNEL ftr__max_pool2d(ftr__pool2d p, int64_t count, const T *x, T *y, int32_t *index) {
    FTR__GRID_LOOP(i, count) {
        const ftr__pool_place at = ftr__pool_place_of<V>(p, p.out, i);
        const ftr__pool_range h = ftr__pool_window(p, 0, at.row), w = ftr__pool_window(p, 1, at.column);
        const T *image = x + at.image * p.in[0] * p.in[1] * p.channels + at.channel;
        const int32_t first = static_cast<int32_t>(h.begin * p.in[1] + w.begin);
        float best[V];
        ftr__vector<int32_t, V> where;
        FTR__UNROLL
        for (int k = 0; k < V; k++) {
            best[k] = -INFINITY;
            where.of[k] = first;
        }
        for (int64_t r = h.begin; r < h.end; r++)
            for (int64_t c = w.begin; c < w.end; c++) {
                const int64_t pixel = r * p.in[1] + c;
                float v[V];
                ftr__load_vector<T, V>(image + pixel * p.channels, v);
                FTR__UNROLL
                for (int k = 0; k < V; k++) {
                    if (!(v[k] > best[k]) && !(v[k] != v[k] && best[k] == best[k])) continue;
                    best[k] = v[k];
                    where.of[k] = static_cast<int32_t>(pixel);
                }
            }
        ftr__store_vector<T, V>(y + i * V, best);
        *reinterpret_cast<ftr__vector<int32_t, V> *>(index + i * V) = where;
    }
}

template <typename T, int V> FTR__ROOMY_KERNEL ftr__mean_pool2d(ftr__pool2d p, int64_t count, const T *x, T *y) {
    FTR__GRID_LOOP(i, count) {
        const ftr__pool_place at = ftr__pool_place_of<V>(p, p.out, i);
        const ftr__pool_range h = ftr__pool_window(p, 0, at.row), w = ftr__pool_window(p, 1, at.column);
        const T *image = x + at.image * p.in[0] * p.in[1] * p.channels + at.channel;
        float sum[V] = {};
        for (int64_t r = h.begin; r < h.end; r++)
            for (int64_t c = w.begin; c < w.end; c++) {
                float v[V];
                ftr__load_vector<T, V>(image + (r * p.in[1] + c) * p.channels, v);
                FTR__UNROLL
                for (int k = 0; k < V; k++) sum[k] += v[k];
            }
        const float divisor = ftr__pool_divisor(p, h, w);
        FTR__UNROLL
        for (int k = 0; k < V; k++) sum[k] /= divisor;
        ftr__store_vector<T, V>(y + i * V, sum);
    }
}

/* The mean of large windows that are few, such as whole images: a block has a vector for each of `lanes` threads, the others
 * go over the pixels side by side. */
template <typename T, int V>
FTR__KERNEL ftr__mean_pool2d_wide(ftr__pool2d p, int lanes, int64_t tiles, int64_t tasks, const T *x, T *y) {
    FTR_SHARED(float, sums, V *FTR__CUDA_THREADS);
    const int me = (int)threadIdx.x, lane = me & (lanes - 1), line = me / lanes, lines = FTR__CUDA_THREADS / lanes;
    for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
        const int64_t pixel = task / tiles, channel = (task % tiles * lanes + lane) * V;
        const int64_t row = pixel / p.out[1], image = row / p.out[0];
        const ftr__pool_range h = ftr__pool_window(p, 0, row % p.out[0]), w = ftr__pool_window(p, 1, pixel % p.out[1]);
        const T *from = x + image * p.in[0] * p.in[1] * p.channels + channel;
        const int64_t columns = w.end - w.begin, area = (h.end - h.begin) * columns;
        float sum[V] = {};
        for (int64_t i = line; i < area && channel < p.channels; i += lines) {
            float v[V];
            ftr__load_vector<T, V>(from + ((h.begin + i / columns) * p.in[1] + w.begin + i % columns) * p.channels, v);
            FTR__UNROLL
            for (int k = 0; k < V; k++) sum[k] += v[k];
        }
        FTR__UNROLL
        for (int k = 0; k < V; k++) sums[k * FTR__CUDA_THREADS + me] = sum[k];
        for (int step = lines / 2; step > 0; step /= 2) {
            __syncthreads();
            if (line >= step) continue;
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                const int o = k * FTR__CUDA_THREADS + me;
                sums[o] = sum[k] += sums[o + step * lanes];
            }
        }
        if (line == 0 && channel < p.channels) {
            const float divisor = ftr__pool_divisor(p, h, w);
            FTR__UNROLL
            for (int k = 0; k < V; k++) sum[k] /= divisor;
            ftr__store_vector<T, V>(y + pixel * p.channels + channel, sum);
        }
        __syncthreads();
    }
}

/* --------------------------------------------------------------------------------------------------------- gradient -- */

template <typename T, int V>
FTR__ROOMY_KERNEL ftr__max_pool2d_grad(ftr__pool2d p, int64_t count, const T *dy, const int32_t *index, T *dx) {
    FTR__GRID_LOOP(i, count) {
        const ftr__pool_place at = ftr__pool_place_of<V>(p, p.in, i);
        const ftr__pool_range h = ftr__pool_covering(p, 0, at.row), w = ftr__pool_covering(p, 1, at.column);
        const int32_t pixel = static_cast<int32_t>(at.row * p.in[1] + at.column);
        float sum[V] = {};
        for (int64_t r = h.begin; r < h.end; r++)
            for (int64_t c = w.begin; c < w.end; c++) {
                const int64_t from = ((at.image * p.out[0] + r) * p.out[1] + c) * p.channels + at.channel;
                const ftr__vector<int32_t, V> where = *reinterpret_cast<const ftr__vector<int32_t, V> *>(index + from);
                float d[V];
                ftr__load_vector<T, V>(dy + from, d);
                FTR__UNROLL
                for (int k = 0; k < V; k++) sum[k] += where.of[k] == pixel ? d[k] : 0.0f;
            }
        ftr__store_vector<T, V>(dx + i * V, sum);
    }
}

template <typename T, int V> FTR__ROOMY_KERNEL ftr__mean_pool2d_grad(ftr__pool2d p, int64_t count, const T *dy, T *dx) {
    FTR__GRID_LOOP(i, count) {
        const ftr__pool_place at = ftr__pool_place_of<V>(p, p.in, i);
        const ftr__pool_range h = ftr__pool_covering(p, 0, at.row), w = ftr__pool_covering(p, 1, at.column);
        float sum[V] = {};
        for (int64_t r = h.begin; r < h.end; r++)
            for (int64_t c = w.begin; c < w.end; c++) {
                const int64_t from = ((at.image * p.out[0] + r) * p.out[1] + c) * p.channels + at.channel;
                const float divisor = ftr__pool_divisor(p, ftr__pool_window(p, 0, r), ftr__pool_window(p, 1, c));
                const float factor = 1.0f / divisor;
                float d[V];
                ftr__load_vector<T, V>(dy + from, d);
                FTR__UNROLL
                for (int k = 0; k < V; k++) sum[k] = fmaf(factor, d[k], sum[k]);
            }
        ftr__store_vector<T, V>(dx + i * V, sum);
    }
}

/* ---------------------------------------------------------------------------------------------------------- running -- */

/* `output`: the shape of the forward output. */
static ftr__pool2d ftr__pool2d_of(const ftr_kernel_call *call, const ftr_shape *output, bool adaptive) {
    ftr__pool2d p = {};
    p.images = output->dim[0];
    p.channels = output->dim[3];
    for (int d = 0; d < 2; d++) {
        p.in[d] = adaptive ? call->attr->adaptive.input[d] : call->attr->pool.input[d];
        p.out[d] = output->dim[1 + d];
        if (adaptive) continue;
        p.kernel[d] = call->attr->pool.kernel[d];
        p.stride[d] = call->attr->pool.stride[d];
        p.padding[d] = call->attr->pool.padding[2 * d];
    }
    p.exclude_padding = !adaptive && call->attr->pool.exclude_padding;
    return p;
}

FTR__CUDA_LIB ftr_status ftr__cuda_max_pool2d(const ftr_kernel_call *call) {
    const ftr__pool2d p = ftr__pool2d_of(call, &call->out[0].shape, false);
    return ftr__for_channels(call, &call->in[0], [&](auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const int64_t count = call->out[0].count / V;
        return FTR_LAUNCH(call, (ftr__max_pool2d<T, V>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count,
                          static_cast<const T *>(call->in[0].data), static_cast<T *>(call->out[0].data),
                          static_cast<int32_t *>(call->out[1].data));
    });
}

#define FTR__POOL_WIDE 32 /* pixels of a window from which more than one thread sums them */

static ftr_status ftr__mean_pool2d_run(const ftr_kernel_call *call, bool adaptive) {
    const ftr__pool2d p = ftr__pool2d_of(call, &call->out[0].shape, adaptive);
    return ftr__for_channels(call, &call->in[0], [&](auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const T *x = static_cast<const T *>(call->in[0].data);
        T *y = static_cast<T *>(call->out[0].data);
        const int64_t count = call->out[0].count / V, windows = p.out[0] * p.out[1];
        const int64_t area = adaptive && windows > 0 ? p.in[0] * p.in[1] / windows : p.kernel[0] * p.kernel[1];
        if (count == 0) return FTR_OK;
        if (area < FTR__POOL_WIDE)
            return FTR_LAUNCH(call, (ftr__mean_pool2d<T, V>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count, x,
                              y);
        int lanes = 1;
        while (lanes < p.channels / V && lanes < FTR__CUDA_WARP) lanes *= 2;
        const int64_t tiles = (p.channels / V + lanes - 1) / lanes, tasks = tiles * p.images * windows;
        return FTR_LAUNCH(call, (ftr__mean_pool2d_wide<T, V>), ftr__cuda_blocks(tasks, 1), FTR__CUDA_THREADS, p, lanes,
                          tiles, tasks, x, y);
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_avg_pool2d(const ftr_kernel_call *call) { return ftr__mean_pool2d_run(call, false); }

FTR__CUDA_LIB ftr_status ftr__cuda_adaptive_avg_pool2d(const ftr_kernel_call *call) {
    return ftr__mean_pool2d_run(call, true);
}

FTR__CUDA_LIB ftr_status ftr__cuda_max_pool2d_grad(const ftr_kernel_call *call) {
    const ftr__pool2d p = ftr__pool2d_of(call, &call->in[0].shape, false);
    return ftr__for_channels(call, &call->in[0], [&](auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const int64_t count = call->out[0].count / V;
        return FTR_LAUNCH(call, (ftr__max_pool2d_grad<T, V>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count,
                          static_cast<const T *>(call->in[0].data), static_cast<const int32_t *>(call->in[1].data),
                          static_cast<T *>(call->out[0].data));
    });
}

static ftr_status ftr__mean_pool2d_grad_run(const ftr_kernel_call *call, bool adaptive) {
    const ftr__pool2d p = ftr__pool2d_of(call, &call->in[0].shape, adaptive);
    return ftr__for_channels(call, &call->in[0], [&](auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const int64_t count = call->out[0].count / V;
        return FTR_LAUNCH(call, (ftr__mean_pool2d_grad<T, V>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count,
                          static_cast<const T *>(call->in[0].data), static_cast<T *>(call->out[0].data));
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_avg_pool2d_grad(const ftr_kernel_call *call) {
    return ftr__mean_pool2d_grad_run(call, false);
}

FTR__CUDA_LIB ftr_status ftr__cuda_adaptive_avg_pool2d_grad(const ftr_kernel_call *call) {
    return ftr__mean_pool2d_grad_run(call, true);
}

/* ---- src/backend/cuda/random.cu ---- */
/* Dropout, stochastic depth, random tensors. An element's or a row's fate depends on its index and the stream alone. */

#include <math.h>

#define FTR__RANDOM_BLOCK 4 /* elements of a Philox block */

/* A thread has the elements of a Philox block at a time: as a vector (V is that), or one by one (V is 1). y may be x. */
template <typename T, int V>
FTR__KERNEL ftr__dropout(ftr__cuda_stream_name name, ftr__cuda_dropout_rule rule, int64_t count, const T *x, T *y) {
    const ftr__cuda_rng rng = ftr__cuda_rng_of(name);
    FTR__GRID_LOOP(i, (count + FTR__RANDOM_BLOCK - 1) / FTR__RANDOM_BLOCK) {
        const ftr__philox_block numbers = ftr__cuda_rng_block(rng, (uint64_t)i);
        const int64_t at = i * FTR__RANDOM_BLOCK;
        if (V > 1 && at + V <= count) {
            float v[V];
            ftr__load_vector<T, V>(x + at, v);
            FTR__UNROLL
            for (int k = 0; k < V; k++) v[k] = numbers.of[k] < rule.threshold ? 0.0f : v[k] * rule.scale;
            ftr__store_vector<T, V>(y + at, v);
            continue;
        }
        FTR__UNROLL
        for (int k = 0; k < FTR__RANDOM_BLOCK; k++)
            if (at + k < count)
                y[at + k] =
                    ftr__from_float<T>(numbers.of[k] < rule.threshold ? 0.0f : ftr__to_float(x[at + k]) * rule.scale);
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_dropout(const ftr_kernel_call *call) {
    const ftr__cuda_stream_name name = ftr__cuda_stream_of(call, FTR__CUDA_RNG_DROPOUT, call->attr->dropout.key);
    const ftr__cuda_dropout_rule rule = ftr__cuda_dropout_rule_of(call->attr->dropout.p);
    const int64_t count = call->out[0].count;
    const unsigned blocks = ftr__cuda_blocks((count + FTR__RANDOM_BLOCK - 1) / FTR__RANDOM_BLOCK);
    return ftr__for_real(call, call->out[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        const T *x = static_cast<const T *>(call->in[0].data);
        T *y = static_cast<T *>(call->out[0].data);
        if (ftr__all_aligned(call))
            return FTR_LAUNCH(call, (ftr__dropout<T, FTR__RANDOM_BLOCK>), blocks, FTR__CUDA_THREADS, name, rule, count,
                              x, y);
        return FTR_LAUNCH(call, (ftr__dropout<T, 1>), blocks, FTR__CUDA_THREADS, name, rule, count, x, y);
    });
}

/* V elements are of one row. y may be x. */
template <typename T, int V>
FTR__KERNEL ftr__stochastic_depth(ftr__cuda_stream_name name, ftr__cuda_dropout_rule rule, int64_t packs, int64_t a_row,
                                  const T *x, T *y) {
    const ftr__cuda_rng rng = ftr__cuda_rng_of(name);
    FTR__GRID_LOOP(i, packs) {
        const bool dropped = ftr__cuda_rng_at(rng, (uint64_t)(i / a_row)) < rule.threshold;
        float v[V] = {};
        if (!dropped) ftr__load_vector<T, V>(x + i * V, v);
        FTR__UNROLL
        for (int k = 0; k < V; k++) v[k] = dropped ? 0.0f : v[k] * rule.scale;
        ftr__store_vector<T, V>(y + i * V, v);
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_stochastic_depth(const ftr_kernel_call *call) {
    const ftr__cuda_stream_name name = ftr__cuda_stream_of(call, FTR__CUDA_RNG_DROPOUT, call->attr->dropout.key);
    const ftr__cuda_dropout_rule rule = ftr__cuda_dropout_rule_of(call->attr->dropout.p);
    const int64_t count = call->out[0].count;
    if (count == 0) return FTR_OK;
    const int64_t row = count / call->out[0].shape.dim[0];
    return ftr__for_real(call, call->out[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        constexpr int width = ftr__vector_width<T>();
        const T *x = static_cast<const T *>(call->in[0].data);
        T *y = static_cast<T *>(call->out[0].data);
        if (row % width == 0 && ftr__all_aligned(call))
            return FTR_LAUNCH(call, (ftr__stochastic_depth<T, width>), ftr__cuda_blocks(count / width),
                              FTR__CUDA_THREADS, name, rule, count / width, row / width, x, y);
        return FTR_LAUNCH(call, (ftr__stochastic_depth<T, 1>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, name, rule,
                          count, row, x, y);
    });
}

/* --------------------------------------------------------------------------------------------------- random tensors -- */

/* The rules are in core/rng.h. uniform: a + b u, at most `most`; normal: a + b z. */
FTR__KERNEL ftr__random_tensor(ftr__cuda_stream_name name, bool uniform, float a, float b, float most, int64_t count,
                               float *out) {
    const ftr__cuda_rng rng = ftr__cuda_rng_of(name);
    FTR__GRID_LOOP(i, (count + FTR__RANDOM_BLOCK - 1) / FTR__RANDOM_BLOCK) {
        const ftr__philox_block numbers = ftr__cuda_rng_block(rng, (uint64_t)i);
        float made[FTR__RANDOM_BLOCK];
        if (uniform) {
            FTR__UNROLL
            for (int k = 0; k < FTR__RANDOM_BLOCK; k++)
                made[k] = fminf(__fmaf_rn(b, ftr__cuda_rng_unit(numbers.of[k]), a), most);
        } else {
            FTR__UNROLL
            for (int k = 0; k < FTR__RANDOM_BLOCK; k += 2) {
                const float radius = b * sqrtf(-2.0f * logf(1.0f - ftr__cuda_rng_unit(numbers.of[k])));
                float sine, cosine;
                sincospif(2.0f * ftr__cuda_rng_unit(numbers.of[k + 1]), &sine, &cosine);
                made[k] = __fmaf_rn(radius, cosine, a);
                made[k + 1] = __fmaf_rn(radius, sine, a);
            }
        }
        const int64_t at = i * FTR__RANDOM_BLOCK;
        FTR__UNROLL
        for (int k = 0; k < FTR__RANDOM_BLOCK; k++)
            if (at + k < count) out[at + k] = made[k];
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_random(const ftr_kernel_call *call) {
    const float a = call->attr->random.a, b = call->attr->random.b;
    const bool uniform = call->op == FTR_OP_random_uniform;
    const float most = uniform && a < b ? nextafterf(b, a) : b;
    const int64_t count = call->out[0].count;
    return FTR_LAUNCH(call, ftr__random_tensor, ftr__cuda_blocks((count + FTR__RANDOM_BLOCK - 1) / FTR__RANDOM_BLOCK),
                      FTR__CUDA_THREADS, ftr__cuda_stream_of(call, FTR__CUDA_RNG_TENSOR, call->attr->random.key),
                      uniform, a, uniform ? b - a : b, most, count, static_cast<float *>(call->out[0].data));
}

/* ---- src/backend/cuda/attention.cu ---- */
/* Attention without cuDNN: for f32, masks, dropout and what else its fused kernels refuse. Scores are never in memory: a warp
 * has a query (of the gradients of key and value: a key) and goes over the others, a lane each, so that every sum has a fixed
 * order. */

#define FTR__ATTENTION_WARPS (FTR__CUDA_THREADS / FTR__CUDA_WARP)
#define FTR__ATTENTION_PART 512 /* elements of a head that a warp adds up at a time, in shared memory */

/* A tensor [n, t, heads, d], whose places may be apart by more than a row. */
struct ftr__heads {
    const void *data;
    ftr_dtype dtype;
    int64_t step, size; /* elements from one place to the next; of a sample */
};

struct ftr__attention {
    ftr__heads query, key, value, y, dy;
    ftr__heads dquery, dkey, dvalue; /* data nullptr: not wanted */
    int64_t n, tq, tk, heads, kv_heads, d, dv;
    const void *mask; /* nullptr: none */
    ftr_dtype mask_dtype;
    int64_t mask_stride[4];
    float *log_sum; /* [n, heads, tq] */
    float scale;
    bool causal, drops;
    ftr__cuda_stream_name stream;
    ftr__cuda_dropout_rule rule;
};

static __device__ __forceinline__ int64_t ftr__head_at(const ftr__heads &x, int64_t b, int64_t t, int64_t head, int64_t d) {
    return b * x.size + t * x.step + head * d;
}

/* Scaled, with the mask; -infinity for a key that is not seen. */
static __device__ __forceinline__ float ftr__attention_score(const ftr__attention &p, int64_t b, int64_t h, int64_t i, int64_t j) {
    if (p.causal && j > i) return -INFINITY;
    const int64_t q = ftr__head_at(p.query, b, i, h, p.d), k = ftr__head_at(p.key, b, j, h / (p.heads / p.kv_heads), p.d);
    float dot = 0.0f;
    for (int64_t e = 0; e < p.d; e++)
        dot = fmaf(ftr__load_real(p.query.data, p.query.dtype, q + e), ftr__load_real(p.key.data, p.key.dtype, k + e), dot);
    float score = dot * p.scale;
    if (p.mask)
        score += ftr__load_real(p.mask, p.mask_dtype,
                                b * p.mask_stride[0] + h * p.mask_stride[1] + i * p.mask_stride[2] + j * p.mask_stride[3]);
    return score;
}

/* What dropout multiplies a weight by. */
static __device__ __forceinline__ float ftr__attention_kept(const ftr__attention &p, const ftr__cuda_rng &rng, int64_t b, int64_t h,
                                                            int64_t i, int64_t j) {
    if (!p.drops) return 1.0f;
    const uint64_t group = (uint64_t)((b * p.heads + h) * ((p.tk + 3) / 4) + j / 4);
    const uint32_t number = ftr__cuda_rng_at(rng, 4 * (group * (uint64_t)p.tq + (uint64_t)i) + (uint64_t)(j % 4));
    return number < p.rule.threshold ? 0.0f : p.rule.scale;
}

/* The weight of a score; no key is seen where the log-sum is -infinity. */
static __device__ __forceinline__ float ftr__attention_weight(float score, float log_sum) {
    return log_sum == -INFINITY ? 0.0f : expf(score - log_sum);
}

/* Keys or queries behind the last one that a row sees. */
static __device__ __forceinline__ int64_t ftr__attention_end(const ftr__attention &p, int64_t i) {
    return p.causal && i + 1 < p.tk ? i + 1 : p.tk;
}

/* A warp a query: the largest score, the sum, then the result in parts of the head. */
FTR__ROOMY_KERNEL ftr__attention_forward(ftr__attention p, void *out, ftr_dtype out_dtype) {
    FTR_SHARED(float, sums, FTR__ATTENTION_WARPS * FTR__ATTENTION_PART);
    const int lane = (int)threadIdx.x % FTR__CUDA_WARP, warp = (int)threadIdx.x / FTR__CUDA_WARP;
    float *sum_of = sums + warp * FTR__ATTENTION_PART;
    const ftr__cuda_rng rng = ftr__cuda_rng_of(p.stream);
    const int64_t rows = p.n * p.heads * p.tq;
    for (int64_t row = (int64_t)blockIdx.x * FTR__ATTENTION_WARPS + warp; row < rows; row += (int64_t)gridDim.x * FTR__ATTENTION_WARPS) {
        const int64_t i = row % p.tq, h = row / p.tq % p.heads, b = row / p.tq / p.heads, g = h / (p.heads / p.kv_heads);
        const int64_t end = ftr__attention_end(p, i);
        float largest = -INFINITY, sum = 0.0f;
        for (int64_t j = lane; j < end; j += FTR__CUDA_WARP) largest = ftr__maximum(largest, ftr__attention_score(p, b, h, i, j));
        largest = ftr__warp_maximum(largest);
        const bool nothing = largest == -INFINITY;
        for (int64_t j = lane; j < end && !nothing; j += FTR__CUDA_WARP) sum += expf(ftr__attention_score(p, b, h, i, j) - largest);
        sum = ftr__warp_sum(sum);
        if (lane == 0) p.log_sum[row] = largest + (nothing ? 0.0f : logf(sum));
        const int64_t to = ((b * p.tq + i) * p.heads + h) * p.dv;
        for (int64_t first = 0; first < p.dv; first += FTR__ATTENTION_PART) {
            const int64_t part = min((int64_t)FTR__ATTENTION_PART, p.dv - first);
            for (int64_t e = lane; e < part; e += FTR__CUDA_WARP) sum_of[e] = 0.0f;
            for (int64_t from = 0; from < end; from += FTR__CUDA_WARP) {
                const int64_t j = from + lane;
                float weight = 0.0f;
                if (j < end && !nothing)
                    weight = expf(ftr__attention_score(p, b, h, i, j) - largest) / sum * ftr__attention_kept(p, rng, b, h, i, j);
                for (int k = 0; k < FTR__CUDA_WARP && from + k < end; k++) {
                    const float w = __shfl_sync(FTR__CUDA_FULL, weight, k);
                    const int64_t v = ftr__head_at(p.value, b, from + k, g, p.dv) + first;
                    for (int64_t e = lane; e < part; e += FTR__CUDA_WARP)
                        sum_of[e] = fmaf(w, ftr__load_real(p.value.data, p.value.dtype, v + e), sum_of[e]);
                }
            }
            for (int64_t e = lane; e < part; e += FTR__CUDA_WARP) ftr__store_real(out, out_dtype, to + first + e, sum_of[e]);
        }
    }
}

/* The mean of the weights' gradients, by the weights: the sum of dy y. A warp a row. */
FTR__KERNEL ftr__attention_means(ftr__attention p, float *means) {
    const int lane = (int)threadIdx.x % FTR__CUDA_WARP, warp = (int)threadIdx.x / FTR__CUDA_WARP;
    const int64_t rows = p.n * p.heads * p.tq;
    for (int64_t row = (int64_t)blockIdx.x * FTR__ATTENTION_WARPS + warp; row < rows; row += (int64_t)gridDim.x * FTR__ATTENTION_WARPS) {
        const int64_t i = row % p.tq, h = row / p.tq % p.heads, b = row / p.tq / p.heads, at = ((b * p.tq + i) * p.heads + h) * p.dv;
        float sum = 0.0f;
        for (int64_t e = lane; e < p.dv; e += FTR__CUDA_WARP)
            sum = fmaf(ftr__load_real(p.dy.data, p.dy.dtype, at + e), ftr__load_real(p.y.data, p.y.dtype, at + e), sum);
        sum = ftr__warp_sum(sum);
        if (lane == 0) means[row] = sum;
    }
}

/* dy of query i times value j. */
static __device__ __forceinline__ float ftr__attention_dweight(const ftr__attention &p, int64_t b, int64_t h, int64_t i, int64_t j) {
    const int64_t at = ((b * p.tq + i) * p.heads + h) * p.dv, v = ftr__head_at(p.value, b, j, h / (p.heads / p.kv_heads), p.dv);
    float sum = 0.0f;
    for (int64_t e = 0; e < p.dv; e++)
        sum = fmaf(ftr__load_real(p.dy.data, p.dy.dtype, at + e), ftr__load_real(p.value.data, p.value.dtype, v + e), sum);
    return sum;
}

/* A weight after dropout, and the gradient of its score. */
struct ftr__attention_pair {
    float kept, dscore;
};

static __device__ __forceinline__ ftr__attention_pair ftr__attention_pair_of(const ftr__attention &p, const ftr__cuda_rng &rng,
                                                                             const float *means, int64_t b, int64_t h, int64_t i,
                                                                             int64_t j) {
    const int64_t row = (b * p.heads + h) * p.tq + i;
    const float weight = ftr__attention_weight(ftr__attention_score(p, b, h, i, j), p.log_sum[row]);
    if (weight == 0.0f) return {0.0f, 0.0f};
    const float factor = ftr__attention_kept(p, rng, b, h, i, j);
    return {weight * factor, weight * (factor * ftr__attention_dweight(p, b, h, i, j) - means[row])};
}

/* A warp a query. */
FTR__ROOMY_KERNEL ftr__attention_grad_query(ftr__attention p, const float *means, void *out, ftr_dtype out_dtype) {
    FTR_SHARED(float, sums, FTR__ATTENTION_WARPS * FTR__ATTENTION_PART);
    const int lane = (int)threadIdx.x % FTR__CUDA_WARP, warp = (int)threadIdx.x / FTR__CUDA_WARP;
    float *sum_of = sums + warp * FTR__ATTENTION_PART;
    const ftr__cuda_rng rng = ftr__cuda_rng_of(p.stream);
    const int64_t rows = p.n * p.heads * p.tq;
    for (int64_t row = (int64_t)blockIdx.x * FTR__ATTENTION_WARPS + warp; row < rows; row += (int64_t)gridDim.x * FTR__ATTENTION_WARPS) {
        const int64_t i = row % p.tq, h = row / p.tq % p.heads, b = row / p.tq / p.heads, g = h / (p.heads / p.kv_heads);
        const int64_t end = ftr__attention_end(p, i), to = ftr__head_at(p.dquery, b, i, h, p.d);
        for (int64_t first = 0; first < p.d; first += FTR__ATTENTION_PART) {
            const int64_t part = min((int64_t)FTR__ATTENTION_PART, p.d - first);
            for (int64_t e = lane; e < part; e += FTR__CUDA_WARP) sum_of[e] = 0.0f;
            for (int64_t from = 0; from < end; from += FTR__CUDA_WARP) {
                const int64_t j = from + lane;
                const float dscore = j < end ? ftr__attention_pair_of(p, rng, means, b, h, i, j).dscore * p.scale : 0.0f;
                for (int k = 0; k < FTR__CUDA_WARP && from + k < end; k++) {
                    const float s = __shfl_sync(FTR__CUDA_FULL, dscore, k);
                    const int64_t at = ftr__head_at(p.key, b, from + k, g, p.d) + first;
                    for (int64_t e = lane; e < part; e += FTR__CUDA_WARP)
                        sum_of[e] = fmaf(s, ftr__load_real(p.key.data, p.key.dtype, at + e), sum_of[e]);
                }
            }
            for (int64_t e = lane; e < part; e += FTR__CUDA_WARP) ftr__store_real(out, out_dtype, to + first + e, sum_of[e]);
        }
    }
}

/* A warp a key: with FOR_VALUE the gradient of its value, otherwise its own. */
template <bool FOR_VALUE>
FTR__ROOMY_KERNEL ftr__attention_grad_key(ftr__attention p, const float *means, void *out, ftr_dtype out_dtype) {
    FTR_SHARED(float, sums, FTR__ATTENTION_WARPS * FTR__ATTENTION_PART);
    const int lane = (int)threadIdx.x % FTR__CUDA_WARP, warp = (int)threadIdx.x / FTR__CUDA_WARP;
    float *sum_of = sums + warp * FTR__ATTENTION_PART;
    const ftr__cuda_rng rng = ftr__cuda_rng_of(p.stream);
    const int64_t rows = p.n * p.kv_heads * p.tk, width = FOR_VALUE ? p.dv : p.d, group = p.heads / p.kv_heads;
    for (int64_t row = (int64_t)blockIdx.x * FTR__ATTENTION_WARPS + warp; row < rows; row += (int64_t)gridDim.x * FTR__ATTENTION_WARPS) {
        const int64_t j = row % p.tk, g = row / p.tk % p.kv_heads, b = row / p.tk / p.kv_heads;
        const int64_t begin = p.causal ? j / FTR__CUDA_WARP * FTR__CUDA_WARP : 0;
        const int64_t to = ftr__head_at(FOR_VALUE ? p.dvalue : p.dkey, b, j, g, width);
        for (int64_t first = 0; first < width; first += FTR__ATTENTION_PART) {
            const int64_t part = min((int64_t)FTR__ATTENTION_PART, width - first);
            for (int64_t e = lane; e < part; e += FTR__CUDA_WARP) sum_of[e] = 0.0f;
            for (int64_t h = g * group; h < (g + 1) * group; h++)
                for (int64_t from = begin; from < p.tq; from += FTR__CUDA_WARP) {
                    const int64_t i = from + lane;
                    ftr__attention_pair pair = {0.0f, 0.0f};
                    if (i < p.tq) pair = ftr__attention_pair_of(p, rng, means, b, h, i, j);
                    const float mine = FOR_VALUE ? pair.kept : pair.dscore * p.scale;
                    for (int k = 0; k < FTR__CUDA_WARP && from + k < p.tq; k++) {
                        const float s = __shfl_sync(FTR__CUDA_FULL, mine, k);
                        const int64_t at = FOR_VALUE ? ((b * p.tq + from + k) * p.heads + h) * p.dv + first
                                                     : ftr__head_at(p.query, b, from + k, h, p.d) + first;
                        const ftr__heads &x = FOR_VALUE ? p.dy : p.query;
                        for (int64_t e = lane; e < part; e += FTR__CUDA_WARP)
                            sum_of[e] = fmaf(s, ftr__load_real(x.data, x.dtype, at + e), sum_of[e]);
                    }
                }
            for (int64_t e = lane; e < part; e += FTR__CUDA_WARP) ftr__store_real(out, out_dtype, to + first + e, sum_of[e]);
        }
    }
}

/* A block an element of the mask: the sum over what it is stretched to. */
FTR__KERNEL ftr__attention_grad_mask(ftr__attention p, const float *means, void *out, ftr_dtype out_dtype, int64_t count) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    const ftr__cuda_rng rng = ftr__cuda_rng_of(p.stream);
    const int64_t size[4] = {p.n, p.heads, p.tq, p.tk};
    for (int64_t m = blockIdx.x; m < count; m += gridDim.x) {
        int64_t at[4], all[4], rest = m, places = 1;
        for (int d = 3; d >= 0; d--) {
            const int64_t here = p.mask_stride[d] ? size[d] : 1;
            at[d] = rest % here;
            rest /= here;
            all[d] = p.mask_stride[d] ? 1 : size[d];
            places *= all[d];
        }
        double sum = 0.0;
        for (int64_t s = threadIdx.x; s < places; s += blockDim.x) {
            int64_t left = s, c[4];
            for (int d = 3; d >= 0; d--) {
                c[d] = at[d] + left % all[d];
                left /= all[d];
            }
            sum += (double)ftr__attention_pair_of(p, rng, means, c[0], c[1], c[2], c[3]).dscore;
        }
        sum = ftr__block_sum(sum, room);
        if (threadIdx.x == 0) ftr__store_real(out, out_dtype, m, (float)sum);
    }
}

/* ------------------------------------------------------------------------------------------------------------ running -- */

static ftr__heads ftr__heads_of(const ftr_view *view, int64_t t, int64_t heads, int64_t d) {
    return {view->data, view->dtype, heads * d, t * heads * d};
}

static void ftr__attention_set_mask(const ftr_kernel_call *call, int32_t index, ftr__attention *p) {
    if (index >= call->in_count || call->in[index].dtype == FTR_DTYPE_NONE) return;
    const ftr_view *mask = &call->in[index];
    int64_t step = 1;
    p->mask = mask->data;
    p->mask_dtype = mask->dtype;
    for (int32_t d = 3; d >= 0; d--) {
        const int32_t from = d - (4 - mask->shape.rank);
        const int64_t size = from >= 0 ? mask->shape.dim[from] : 1;
        p->mask_stride[d] = size == 1 ? 0 : step;
        step *= size;
    }
}

/* Query, key and value may be one tensor [n, t, 3 heads d]: all queries of a place, then its keys, then its values. */
static void ftr__attention_set_packed(ftr__attention *p) {
    const int64_t width = p->heads * p->d;
    ftr__heads *const all[2][3] = {{&p->query, &p->key, &p->value}, {&p->dquery, &p->dkey, &p->dvalue}};
    for (int32_t a = 0; a < 2; a++)
        for (int32_t i = 0; i < 3; i++) {
            const char *first = static_cast<const char *>(all[a][0]->data);
            all[a][i]->dtype = all[a][0]->dtype;
            all[a][i]->step = 3 * width;
            all[a][i]->size = 3 * width * p->tq;
            if (i > 0) all[a][i]->data = first ? first + static_cast<size_t>(i * width) * ftr_dtype_size(all[a][0]->dtype) : nullptr;
        }
}

static ftr__attention ftr__attention_of(const ftr_kernel_call *call) {
    const bool grad = call->op == FTR_OP_attention_grad, packed = call->attr->attention.packed;
    const ftr_view *q = &call->in[grad ? 1 : 0], *k = packed ? q : q + 1, *v = packed ? q : q + 2;
    const ftr_view *shape = packed ? (grad ? &call->in[0] : &call->out[0]) : q; /* [n, t, heads, d] */
    ftr__attention p = {};
    p.n = shape->shape.dim[0], p.tq = shape->shape.dim[1], p.heads = shape->shape.dim[2], p.d = shape->shape.dim[3];
    p.tk = packed ? p.tq : k->shape.dim[1];
    p.kv_heads = packed ? p.heads : k->shape.dim[2];
    p.dv = packed ? p.d : v->shape.dim[3];
    p.query = ftr__heads_of(q, p.tq, p.heads, p.d);
    p.key = ftr__heads_of(k, p.tk, p.kv_heads, p.d);
    p.value = ftr__heads_of(v, p.tk, p.kv_heads, p.dv);
    if (grad) {
        p.dy = ftr__heads_of(&call->in[0], p.tq, p.heads, p.dv);
        p.y = ftr__heads_of(&call->in[4], p.tq, p.heads, p.dv);
        p.dquery = ftr__heads_of(&call->out[0], p.tq, p.heads, p.d);
        p.dkey = ftr__heads_of(&call->out[1], p.tk, p.kv_heads, p.d);
        p.dvalue = ftr__heads_of(&call->out[2], p.tk, p.kv_heads, p.dv);
    }
    if (packed) ftr__attention_set_packed(&p);
    ftr__attention_set_mask(call, grad ? 6 : 3, &p);
    p.log_sum = static_cast<float *>(grad ? call->in[5].data : call->out[1].data);
    p.scale = static_cast<float>(call->attr->attention.scale);
    p.causal = call->attr->attention.causal;
    p.drops = call->attr->attention.dropout > 0.0;
    p.stream = ftr__cuda_stream_of(call, FTR__CUDA_RNG_DROPOUT, call->attr->attention.key);
    p.rule = ftr__cuda_dropout_rule_of(call->attr->attention.dropout);
    return p;
}

FTR__CUDA_LIB ftr_status ftr__cuda_attention(const ftr_kernel_call *call) {
    const ftr__attention p = ftr__attention_of(call);
    return FTR_LAUNCH(call, ftr__attention_forward, ftr__cuda_blocks(p.n * p.heads * p.tq, FTR__ATTENTION_WARPS), FTR__CUDA_THREADS, p,
                      call->out[0].data, call->out[0].dtype);
}

/* A mean for each row. */
FTR__CUDA_LIB size_t ftr__cuda_attention_grad_workspace(const ftr_kernel_call *call) {
    const ftr__attention p = ftr__attention_of(call);
    return static_cast<size_t>(p.n * p.heads * p.tq) * sizeof(float);
}

FTR__CUDA_LIB ftr_status ftr__cuda_attention_grad(const ftr_kernel_call *call) {
    const ftr__attention p = ftr__attention_of(call);
    const uint32_t wanted = call->attr->attention.wanted;
    const unsigned queries = ftr__cuda_blocks(p.n * p.heads * p.tq, FTR__ATTENTION_WARPS);
    const unsigned keys = ftr__cuda_blocks(p.n * p.kv_heads * p.tk, FTR__ATTENTION_WARPS);
    float *means = static_cast<float *>(call->workspace);
    ftr_status status = FTR_LAUNCH(call, ftr__attention_means, queries, FTR__CUDA_THREADS, p, means);
    if (!status && wanted & 1)
        status = FTR_LAUNCH(call, ftr__attention_grad_query, queries, FTR__CUDA_THREADS, p, means, const_cast<void *>(p.dquery.data),
                            p.dquery.dtype);
    if (!status && wanted & 2)
        status = FTR_LAUNCH(call, (ftr__attention_grad_key<false>), keys, FTR__CUDA_THREADS, p, means,
                            const_cast<void *>(p.dkey.data), p.dkey.dtype);
    if (!status && wanted & 4)
        status = FTR_LAUNCH(call, (ftr__attention_grad_key<true>), keys, FTR__CUDA_THREADS, p, means,
                            const_cast<void *>(p.dvalue.data), p.dvalue.dtype);
    if (!status && wanted & 8)
        status = FTR_LAUNCH(call, ftr__attention_grad_mask, ftr__cuda_blocks(call->out[3].count, 1), FTR__CUDA_THREADS, p, means,
                            call->out[3].data, call->out[3].dtype, call->out[3].count);
    return status;
}

/* ---- src/backend/cuda/update.cuh ---- */
/* What updates share: scalars in device memory, lists of tensors that one launch goes through, the steps of optimizers.
 *
 * A list is passed by value. Its tensors are cut into chunks, a block a chunk; a node whose tensors are more than a list holds
 * gets several launches. What changes from step to step is read on the device: a launch may be a node of a CUDA graph. */

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

/* ---- src/backend/cuda/update.cu ---- */
/* Updates: they change states among their inputs in place. Optimizers that need one pass, pairs of tensors, counters. */

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

/* ---- src/backend/cuda/update_norms.cu ---- */
/* Updates that need a norm of each parameter, or of all gradients: LAMB, LARS, the limit of a norm. A sum has two stages: of
 * chunks, a block each, and of the chunks' sums, by one block. */

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

/* ---- src/backend/cuda/adafactor.cu ---- */
/* Adafactor. A factored parameter is seen as [outer, a, b, inner] in memory, a and b being the two axes that its second moment
 * is factored over. The passes are: means over b; means over a, in parts; the mean of the rows' moments; sums of squares of p
 * and of the update; the rate; p. Each is a launch for many parameters: those along y, the tasks of each along x. */

#define FTR__FACTORED_ROWS 64   /* rows of a part of a sum over a */
#define FTR__FACTORED_GRID 1024 /* blocks of a parameter, at most */
#define FTR__FACTORED_SETTINGS (sizeof(ftr__update_from) + 64)

/* --------------------------------------------------------------------------------------------- the moment kept whole -- */

static __device__ __forceinline__ void ftr__adafactor_begin(const ftr__update_from &from, ftr__update_step *step) {
    step->fresh2 = powf(static_cast<float>(ftr__update_number(from)), from.beta2_decay);
    step->eps = static_cast<float>(from.eps * from.eps);
}

static __device__ __forceinline__ void ftr__adafactor_prepare(const ftr__update_from &from, double rate,
                                                              ftr__update_step *step) {
    ftr__adafactor_begin(from, step);
    step->decay = static_cast<float>(ftr__update_lr(from) * from.weight_decay);
    step->lr = static_cast<float>(rate);
}

static __device__ __forceinline__ float ftr__adafactor_direction(const ftr__update_step &step, float d, float v) {
    return d / sqrtf(ftr__maximum(v, step.eps));
}

static __device__ __forceinline__ float ftr__adafactor_apply(const ftr__update_step &step, float w, float d, float v) {
    return w - (step.decay * w + step.lr * ftr__adafactor_direction(step, d, v));
}

/* From the sums of squares of the parameter, of `size` elements, and of its update. */
static __device__ __forceinline__ double ftr__adafactor_rate(const ftr__update_from &from, double p, double u,
                                                             int64_t size) {
    const double lr = ftr__update_lr(from), slow = 1.0 / sqrt(ftr__update_number(from)),
                 count = static_cast<double>(size);
    const double root = sqrt(p / count), over = sqrt(u / count) / from.clip_threshold;
    const double rate = (root > from.parameter_eps ? root : from.parameter_eps) * (lr < slow ? lr : slow);
    return over > 1.0 ? rate / over : rate;
}

struct ftr__adafactor_whole {
    enum { STATES = 1 };
    static __device__ __forceinline__ void begin(const ftr__update_from &from, ftr__update_step *step) {
        ftr__adafactor_begin(from, step);
    }
    static __device__ __forceinline__ void prepare(const ftr__update_from &from, double factor,
                                                   ftr__update_step *step) {
        ftr__adafactor_prepare(from, factor, step);
    }
    template <int N>
    static __device__ __forceinline__ void sums(const ftr__update_step &step, float w, float d, float (&s)[N],
                                                double *a, double *b) {
        const double p = w, u = ftr__adafactor_direction(step, d, ftr__moved(s[0], d * d, step.fresh2));
        *a += p * p;
        *b += u * u;
    }
    static __device__ __forceinline__ double factor(const ftr__update_from &from, double a, double b, int64_t size) {
        return ftr__adafactor_rate(from, a, b, size);
    }
    template <int N>
    static __device__ __forceinline__ float apply(const ftr__update_step &step, float w, float d, float (&s)[N]) {
        s[0] = ftr__moved(s[0], d * d, step.fresh2);
        return ftr__adafactor_apply(step, w, d, s[0]);
    }
};

/* ---------------------------------------------------------------------------------------------------- the factored one -- */

struct ftr__factored {
    float *p;
    const float *g;
    float *over_b; /* moments over b: [outer, a, inner] */
    float *over_a; /* moments over a: [outer, b, inner] */
    int64_t outer, a, b, inner, parts;
    /* places in the workspace */
    int64_t chunk;   /* of the first chunk's two sums */
    int64_t inverse; /* of 1 / the mean of the rows' moments: [outer, inner] */
    int64_t partial; /* of sums over a: [parts, outer, b, inner] */
};

/* The workspace: sums of chunks and rates of parameters, then floats. */
struct ftr__factored_list {
    enum { MOST = (FTR__UPDATE_ARGUMENTS - FTR__FACTORED_SETTINGS) / sizeof(ftr__factored) };
    int32_t count, before; /* parameters, and those in earlier lists */
    bool rows_first;       /* the rows' axis is a */
    double *sums, *rates;
    float *floats;
    ftr__factored of[MOST];
};

static __device__ __forceinline__ int64_t ftr__factored_count(const ftr__factored &f) {
    return f.outer * f.a * f.b * f.inner;
}

static __device__ __forceinline__ float ftr__factored_square(const ftr__update_step &step, float g) {
    const float d = ftr__update_gradient(step, g);
    return d * d;
}

/* A warp a mean if what is added up lies together, otherwise a thread. */
FTR__KERNEL ftr__factored_over_b(const ftr__factored_list list, const ftr__update_from from) {
    if (ftr__update_skipped(from.found_inf)) return;
    const ftr__factored &f = list.of[blockIdx.y];
    ftr__update_step step;
    ftr__update_read(from, &step);
    ftr__adafactor_begin(from, &step);
    const int64_t means = f.outer * f.a * f.inner;
    const int lane = static_cast<int>(threadIdx.x) % FTR__CUDA_WARP;
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
    const int64_t a_mean = f.inner == 1 ? FTR__CUDA_WARP : 1;
    for (int64_t i = thread / a_mean; i < means; i += threads / a_mean) {
        const float *g = f.g + i / f.inner * f.b * f.inner + i % f.inner;
        double sum = 0.0;
        for (int64_t b = f.inner == 1 ? lane : 0; b < f.b; b += a_mean)
            sum += ftr__factored_square(step, g[b * f.inner]);
        if (f.inner == 1) sum = ftr__warp_sum(sum);
        if (f.inner == 1 && lane != 0) continue;
        f.over_b[i] = ftr__moved(f.over_b[i], static_cast<float>(sum / static_cast<double>(f.b)), step.fresh2);
    }
}

FTR__KERNEL ftr__factored_over_a_part(const ftr__factored_list list, const ftr__update_from from) {
    if (ftr__update_skipped(from.found_inf)) return;
    const ftr__factored &f = list.of[blockIdx.y];
    ftr__update_step step;
    ftr__update_read(from, &step);
    const int64_t width = f.b * f.inner, columns = f.outer * width;
    FTR__GRID_LOOP(i, columns * f.parts) {
        const int64_t column = i % columns, outer = column / width, begin = i / columns * FTR__FACTORED_ROWS;
        const int64_t end = min(f.a, begin + FTR__FACTORED_ROWS);
        const float *g = f.g + outer * f.a * width + column % width;
        float sum = 0.0f;
        for (int64_t a = begin; a < end; a++) sum += ftr__factored_square(step, g[a * width]);
        list.floats[f.partial + i] = sum;
    }
}

FTR__KERNEL ftr__factored_over_a(const ftr__factored_list list, const ftr__update_from from) {
    if (ftr__update_skipped(from.found_inf)) return;
    const ftr__factored &f = list.of[blockIdx.y];
    ftr__update_step step;
    ftr__update_read(from, &step);
    ftr__adafactor_begin(from, &step);
    const int64_t columns = f.outer * f.b * f.inner;
    FTR__GRID_LOOP(i, columns) {
        double sum = 0.0;
        for (int64_t part = 0; part < f.parts; part++) sum += list.floats[f.partial + part * columns + i];
        f.over_a[i] = ftr__moved(f.over_a[i], static_cast<float>(sum / static_cast<double>(f.a)), step.fresh2);
    }
}

/* 1 / the mean of the rows' moments: a block a mean if they lie together, otherwise a thread. NaN stays NaN. */
FTR__KERNEL ftr__factored_inverse(const ftr__factored_list list, const ftr__update_from from) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    if (ftr__update_skipped(from.found_inf)) return;
    const ftr__factored &f = list.of[blockIdx.y];
    const int64_t count = list.rows_first ? f.a : f.b;
    const float *rows = list.rows_first ? f.over_b : f.over_a;
    float *to = list.floats + f.inverse;
    if (f.inner == 1) {
        for (int64_t o = blockIdx.x; o < f.outer; o += gridDim.x) {
            double mean = 0.0;
            for (int64_t r = threadIdx.x; r < count; r += blockDim.x) mean += rows[o * count + r];
            mean = ftr__block_sum(mean, room) / static_cast<double>(count);
            if (threadIdx.x == 0) to[o] = static_cast<float>(1.0 / (mean < from.eps ? from.eps : mean));
        }
        return;
    }
    FTR__GRID_LOOP(i, f.outer * f.inner) {
        const float *first = rows + i / f.inner * count * f.inner + i % f.inner;
        double mean = 0.0;
        for (int64_t r = 0; r < count; r++) mean += first[r * f.inner];
        mean /= static_cast<double>(count);
        to[i] = static_cast<float>(1.0 / (mean < from.eps ? from.eps : mean));
    }
}

/* Second moment of element i. */
static __device__ __forceinline__ float ftr__factored_moment(const ftr__factored &f, const float *floats, int64_t i) {
    const int64_t line = i / f.inner, inner = i - line * f.inner, slice = line / f.b, b = line - slice * f.b;
    const int64_t outer = slice / f.a;
    const float over_b = f.over_b[slice * f.inner + inner] * floats[f.inverse + outer * f.inner + inner];
    return over_b * f.over_a[(outer * f.b + b) * f.inner + inner];
}

/* A block a chunk. */
FTR__KERNEL ftr__factored_sums(const ftr__factored_list list, const ftr__update_from from) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    if (ftr__update_skipped(from.found_inf)) return;
    const ftr__factored &f = list.of[blockIdx.y];
    ftr__update_step step;
    ftr__update_read(from, &step);
    ftr__adafactor_begin(from, &step);
    const int64_t count = ftr__factored_count(f), chunks = (count + FTR__UPDATE_CHUNK - 1) / FTR__UPDATE_CHUNK;
    for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
        const int64_t begin = chunk * FTR__UPDATE_CHUNK, end = min(count, begin + FTR__UPDATE_CHUNK);
        double p = 0.0, u = 0.0;
        for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
            const double w = f.p[i];
            const double x = ftr__adafactor_direction(step, ftr__update_gradient(step, f.g[i]),
                                                      ftr__factored_moment(f, list.floats, i));
            p += w * w;
            u += x * x;
        }
        p = ftr__block_sum(p, room);
        u = ftr__block_sum(u, room);
        if (threadIdx.x == 0) {
            list.sums[2 * (f.chunk + chunk)] = p;
            list.sums[2 * (f.chunk + chunk) + 1] = u;
        }
    }
}

/* A block a parameter. */
FTR__KERNEL ftr__factored_rates(const ftr__factored_list list, const ftr__update_from from) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    if (ftr__update_skipped(from.found_inf)) return;
    const ftr__factored &f = list.of[blockIdx.x];
    const int64_t count = ftr__factored_count(f), chunks = (count + FTR__UPDATE_CHUNK - 1) / FTR__UPDATE_CHUNK;
    double p = 0.0, u = 0.0;
    for (int64_t chunk = threadIdx.x; chunk < chunks; chunk += blockDim.x) {
        p += list.sums[2 * (f.chunk + chunk)];
        u += list.sums[2 * (f.chunk + chunk) + 1];
    }
    p = ftr__block_sum(p, room);
    u = ftr__block_sum(u, room);
    if (threadIdx.x == 0)
        list.rates[list.before + static_cast<int32_t>(blockIdx.x)] = ftr__adafactor_rate(from, p, u, count);
}

FTR__KERNEL ftr__factored_apply(const ftr__factored_list list, const ftr__update_from from) {
    if (ftr__update_skipped(from.found_inf)) return;
    const ftr__factored &f = list.of[blockIdx.y];
    ftr__update_step step;
    ftr__update_read(from, &step);
    ftr__adafactor_prepare(from, list.rates[list.before + static_cast<int32_t>(blockIdx.y)], &step);
    FTR__GRID_LOOP(i, ftr__factored_count(f)) {
        const float d = ftr__update_gradient(step, f.g[i]);
        f.p[i] = ftr__adafactor_apply(step, f.p[i], d, ftr__factored_moment(f, list.floats, i));
    }
}

/* --------------------------------------------------------------------------------------------------------- running -- */

static bool ftr__adafactor_is_factored(const ftr_kernel_call *call) {
    return call->attr->optimizer.row_axis != call->attr->optimizer.column_axis;
}

/* The parameter whose group is at in[0]; places in the workspace are those behind what *chunks and *floats count, which go on. */
static ftr__factored ftr__factored_of(const ftr_kernel_call *call, const ftr_view *in, int64_t *chunks,
                                      int64_t *floats) {
    const int32_t row = call->attr->optimizer.row_axis, column = call->attr->optimizer.column_axis;
    const int32_t first = row < column ? row : column;
    ftr__factored f = {};
    f.outer = f.inner = 1;
    for (int32_t d = 0; d < first; d++) f.outer *= in[0].shape.dim[d];
    f.a = in[0].shape.dim[first];
    f.b = in[0].shape.dim[first + 1];
    for (int32_t d = first + 2; d < in[0].shape.rank; d++) f.inner *= in[0].shape.dim[d];
    f.parts = (f.a + FTR__FACTORED_ROWS - 1) / FTR__FACTORED_ROWS;
    f.p = static_cast<float *>(in[0].data);
    f.g = static_cast<const float *>(in[1].data);
    f.over_b = static_cast<float *>(in[row < column ? 2 : 3].data);
    f.over_a = static_cast<float *>(in[row < column ? 3 : 2].data);
    f.chunk = *chunks;
    f.inverse = *floats;
    f.partial = f.inverse + f.outer * f.inner;
    if (in[0].count > 0) {
        *chunks += ftr__update_chunks(in[0].count, FTR__UPDATE_CHUNK);
        *floats = f.partial + f.parts * f.outer * f.b * f.inner;
    }
    return f;
}

FTR__CUDA_LIB size_t ftr__cuda_adafactor_update_workspace(const ftr_kernel_call *call) {
    if (!ftr__adafactor_is_factored(call)) return ftr__update_sums_bytes(call, 3);
    int64_t chunks = 0, floats = 0;
    for (int32_t i = FTR_UPDATE_FIRST_GROUP; i + 4 <= call->in_count; i += 4)
        ftr__factored_of(call, &call->in[i], &chunks, &floats);
    return 8 * static_cast<size_t>(2 * chunks + ftr__update_count_groups(call, FTR_UPDATE_FIRST_GROUP, 4)) +
           4 * static_cast<size_t>(floats);
}

static unsigned ftr__factored_blocks(int64_t count, int64_t a_block) {
    const int64_t blocks = (count + a_block - 1) / a_block;
    return static_cast<unsigned>(blocks < FTR__FACTORED_GRID ? blocks : FTR__FACTORED_GRID);
}

/* Blocks of a parameter in each pass: as the largest one needs. */
static ftr_status ftr__factored_run(const ftr_kernel_call *call, const ftr__factored_list *list,
                                    const ftr__update_from *from) {
    static_assert(sizeof(ftr__factored_list) + sizeof(ftr__update_from) <= FTR__UPDATE_ARGUMENTS,
                  "arguments of a launch");
    unsigned over_b = 1, parts = 1, over_a = 1, inverse = 1, chunks = 1, all = 1;
    for (int32_t k = 0; k < list->count; k++) {
        const ftr__factored &f = list->of[k];
        const int64_t means = f.outer * f.a * f.inner, columns = f.outer * f.b * f.inner, count = means * f.b;
        over_b = max(
            over_b, ftr__factored_blocks(means, f.inner == 1 ? FTR__CUDA_THREADS / FTR__CUDA_WARP : FTR__CUDA_THREADS));
        parts = max(parts, ftr__factored_blocks(columns * f.parts, FTR__CUDA_THREADS));
        over_a = max(over_a, ftr__factored_blocks(columns, FTR__CUDA_THREADS));
        inverse = max(inverse, ftr__factored_blocks(f.outer * f.inner, f.inner == 1 ? 1 : FTR__CUDA_THREADS));
        chunks = max(chunks, ftr__factored_blocks(count, FTR__UPDATE_CHUNK));
        all = max(all, ftr__factored_blocks(count, 4 * FTR__CUDA_THREADS));
    }
    const unsigned n = static_cast<unsigned>(list->count);
    ftr_status status = FTR_LAUNCH(call, ftr__factored_over_b, dim3(over_b, n), FTR__CUDA_THREADS, *list, *from);
    if (!status) status = FTR_LAUNCH(call, ftr__factored_over_a_part, dim3(parts, n), FTR__CUDA_THREADS, *list, *from);
    if (!status) status = FTR_LAUNCH(call, ftr__factored_over_a, dim3(over_a, n), FTR__CUDA_THREADS, *list, *from);
    if (!status) status = FTR_LAUNCH(call, ftr__factored_inverse, dim3(inverse, n), FTR__CUDA_THREADS, *list, *from);
    if (!status) status = FTR_LAUNCH(call, ftr__factored_sums, dim3(chunks, n), FTR__CUDA_THREADS, *list, *from);
    if (!status) status = FTR_LAUNCH(call, ftr__factored_rates, n, FTR__CUDA_THREADS, *list, *from);
    if (!status) status = FTR_LAUNCH(call, ftr__factored_apply, dim3(all, n), FTR__CUDA_THREADS, *list, *from);
    return status;
}

FTR__CUDA_LIB ftr_status ftr__cuda_adafactor_update(const ftr_kernel_call *call) {
    const ftr__update_from from = ftr__update_from_of(call);
    if (!ftr__adafactor_is_factored(call)) return ftr__update_run_factors<ftr__adafactor_whole>(call, &from);
    ftr__factored_list list = {};
    int64_t chunks = 0, floats = 0;
    list.rows_first = call->attr->optimizer.row_axis < call->attr->optimizer.column_axis;
    list.sums = static_cast<double *>(call->workspace);
    list.rates = list.sums + 2 * ftr__update_count_chunks(call, FTR_UPDATE_FIRST_GROUP, 4, FTR__UPDATE_CHUNK);
    list.floats = reinterpret_cast<float *>(list.rates + ftr__update_count_groups(call, FTR_UPDATE_FIRST_GROUP, 4));
    for (int32_t i = FTR_UPDATE_FIRST_GROUP; i + 4 <= call->in_count; i += 4) {
        const ftr__factored f = ftr__factored_of(call, &call->in[i], &chunks, &floats);
        if (call->in[i].count == 0) continue;
        if (list.count == ftr__factored_list::MOST) {
            const ftr_status status = ftr__factored_run(call, &list, &from);
            if (status) return status;
            list.before += list.count;
            list.count = 0;
        }
        list.of[list.count++] = f;
    }
    return list.count > 0 ? ftr__factored_run(call, &list, &from) : FTR_OK;
}

/* ---- src/backend/cuda/muon.cu ---- */
/* Muon: momentum, then Newton-Schulz iterations toward the nearest orthogonal matrix, one matrix after the other. Of a matrix
 * of R rows and C columns the smaller of the two Gram matrices is used: x x^T x = x (x^T x). */

/* -------------------------------------------------------------------------------------------------- matrix products -- */

#define FTR__PRODUCT_TILE 64  /* rows and columns of a block's piece of the result */
#define FTR__PRODUCT_DEPTH 16 /* of a piece of the factors in shared memory */
#define FTR__PRODUCT_SIDE 16  /* threads along a side; each has 4 x 4 results */

/* c = alpha a b + beta add; a: m x k, b: k x n, in f32. c and add are row-major; add may be nullptr. */
struct ftr__muon_product {
    const float *a, *b, *add;
    float *c;
    int64_t m, n, k;
    int64_t a_row, a_column, b_row, b_column; /* strides, one of each two 1 */
    float alpha, beta;
};

/* A thread's 4 elements of a piece of a factor: `lines` are a's rows or b's columns. Neighbouring threads read along the
 * dimension whose stride is 1. */
struct ftr__product_piece {
    int line[4], k[4];
    float value[4];
};

static __device__ __forceinline__ void ftr__product_places(bool lines_together, ftr__product_piece *piece) {
    const int thread = static_cast<int>(threadIdx.x);
    for (int r = 0; r < 4; r++) {
        piece->line[r] = lines_together ? thread % FTR__PRODUCT_TILE : thread / FTR__PRODUCT_DEPTH + 16 * r;
        piece->k[r] = lines_together ? thread / FTR__PRODUCT_TILE + 4 * r : thread % FTR__PRODUCT_DEPTH;
    }
}

static __device__ __forceinline__ void ftr__product_fetch(const float *data, int64_t line_stride, int64_t k_stride,
                                                          int64_t line0, int64_t k0, int64_t lines, int64_t depth,
                                                          ftr__product_piece *piece) {
    for (int r = 0; r < 4; r++) {
        const int64_t line = line0 + piece->line[r], k = k0 + piece->k[r];
        piece->value[r] = line < lines && k < depth ? data[line * line_stride + k * k_stride] : 0.0f;
    }
}

/* A piece in shared memory is [DEPTH][TILE], 4 floats more a row. */
#define FTR__PRODUCT_ROW (FTR__PRODUCT_TILE / 4 + 1)

static __device__ __forceinline__ void ftr__product_put(const ftr__product_piece *piece, float4 *to) {
    for (int r = 0; r < 4; r++)
        reinterpret_cast<float *>(to)[piece->k[r] * 4 * FTR__PRODUCT_ROW + piece->line[r]] = piece->value[r];
}

FTR__KERNEL ftr__muon_product_kernel(const ftr__muon_product p, ftr__update_scalar found_inf) {
    FTR_SHARED(float4, shared_a, FTR__PRODUCT_DEPTH * FTR__PRODUCT_ROW);
    FTR_SHARED(float4, shared_b, FTR__PRODUCT_DEPTH * FTR__PRODUCT_ROW);
    if (ftr__update_skipped(found_inf)) return;
    const int64_t across = (p.n + FTR__PRODUCT_TILE - 1) / FTR__PRODUCT_TILE;
    const int64_t row0 = blockIdx.x / across * FTR__PRODUCT_TILE, column0 = blockIdx.x % across * FTR__PRODUCT_TILE;
    const int row = static_cast<int>(threadIdx.x) / FTR__PRODUCT_SIDE,
              column = static_cast<int>(threadIdx.x) % FTR__PRODUCT_SIDE;
    ftr__product_piece a, b;
    ftr__product_places(p.a_row == 1, &a);
    ftr__product_places(p.b_column == 1, &b);
    ftr__product_fetch(p.a, p.a_row, p.a_column, row0, 0, p.m, p.k, &a);
    ftr__product_fetch(p.b, p.b_column, p.b_row, column0, 0, p.n, p.k, &b);
    float sum[4][4] = {};
    for (int64_t k0 = 0; k0 < p.k; k0 += FTR__PRODUCT_DEPTH) {
        ftr__product_put(&a, shared_a);
        ftr__product_put(&b, shared_b);
        __syncthreads();
        if (k0 + FTR__PRODUCT_DEPTH < p.k) {
            ftr__product_fetch(p.a, p.a_row, p.a_column, row0, k0 + FTR__PRODUCT_DEPTH, p.m, p.k, &a);
            ftr__product_fetch(p.b, p.b_column, p.b_row, column0, k0 + FTR__PRODUCT_DEPTH, p.n, p.k, &b);
        }
        for (int k = 0; k < FTR__PRODUCT_DEPTH; k++) {
            const float4 x = shared_a[k * FTR__PRODUCT_ROW + row], y = shared_b[k * FTR__PRODUCT_ROW + column];
            const float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) sum[i][j] += xs[i] * ys[j];
        }
        __syncthreads();
    }
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++) {
            const int64_t m = row0 + 4 * row + i, n = column0 + 4 * column + j, at = m * p.n + n;
            if (m < p.m && n < p.n) p.c[at] = p.add ? p.alpha * sum[i][j] + p.beta * p.add[at] : p.alpha * sum[i][j];
        }
    }
}

static ftr_status ftr__muon_product_run(const ftr_kernel_call *call, const ftr__muon_product *p, ftr__update_scalar found_inf) {
    const int64_t down = (p->m + FTR__PRODUCT_TILE - 1) / FTR__PRODUCT_TILE;
    const int64_t across = (p->n + FTR__PRODUCT_TILE - 1) / FTR__PRODUCT_TILE;
    return FTR_LAUNCH(call, ftr__muon_product_kernel, static_cast<unsigned>(down * across), FTR__CUDA_THREADS, *p,
                      found_inf);
}

/* ----------------------------------------------------------------------------------------------------------- passes -- */

struct ftr__muon {
    int64_t rows, columns, side; /* side: the smaller */
    int64_t chunks;
    float *p, *x, *next;  /* rows x columns */
    float *gram, *square; /* side x side */
    double *sums;         /* of squares of x, a chunk */
    double factor;        /* of the learning rate */
    double least;         /* of the norm that x is divided by */
};

/* x from the gradient and the momentum, and the sum of its squares; a block a chunk. */
template <typename S>
FTR__KERNEL ftr__muon_momentum(const ftr__muon muon, const ftr__update_from from, const float *g, S *moving) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    if (ftr__update_skipped(from.found_inf)) return;
    ftr__update_step step;
    ftr__update_read(from, &step);
    const int64_t begin = static_cast<int64_t>(blockIdx.x) * FTR__UPDATE_CHUNK;
    const int64_t end = min(muon.rows * muon.columns, begin + FTR__UPDATE_CHUNK);
    double sum = 0.0;
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
        const float d = ftr__update_gradient(step, g[i]), now = ftr__moved(ftr__to_float(moving[i]), d, step.fall);
        const float made = step.nesterov ? ftr__moved(d, now, step.momentum) : now;
        moving[i] = ftr__from_float<S>(now);
        muon.x[i] = made;
        sum += static_cast<double>(made) * static_cast<double>(made);
    }
    sum = ftr__block_sum(sum, room);
    if (threadIdx.x == 0) muon.sums[blockIdx.x] = sum;
}

/* x over its norm. Each block adds up the sums of the chunks by itself. */
FTR__KERNEL ftr__muon_normalize(const ftr__muon muon, ftr__update_scalar found_inf) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    if (ftr__update_skipped(found_inf)) return;
    double squares = 0.0;
    for (int64_t c = threadIdx.x; c < muon.chunks; c += blockDim.x) squares += muon.sums[c];
    const double norm = sqrt(ftr__block_sum(squares, room));
    const float by = static_cast<float>(1.0 / (norm < muon.least ? muon.least : norm));
    FTR__GRID_LOOP(i, muon.rows * muon.columns) muon.x[i] *= by;
}

FTR__KERNEL ftr__muon_apply(const ftr__muon muon, const ftr__update_from from) {
    if (ftr__update_skipped(from.found_inf)) return;
    const double lr = ftr__update_lr(from);
    const float rate = static_cast<float>(lr * muon.factor), decay = static_cast<float>(lr * from.weight_decay);
    FTR__GRID_LOOP(i, muon.rows * muon.columns) {
        const float w = muon.p[i];
        muon.p[i] = w - (decay * w + rate * muon.x[i]);
    }
}

/* --------------------------------------------------------------------------------------------------------- running -- */

/* u u^T for symmetric or wide u, u^T u for tall u. */
static ftr__muon_product ftr__muon_gram(const float *u, int64_t rows, int64_t columns, float *c) {
    const bool wide = rows <= columns;
    ftr__muon_product p = {};
    p.a = p.b = u;
    p.c = c;
    p.m = p.n = wide ? rows : columns;
    p.k = wide ? columns : rows;
    p.a_row = p.b_column = wide ? columns : 1;
    p.a_column = p.b_row = wide ? 1 : columns;
    p.alpha = 1.0f;
    return p;
}

/* x = c0 x + (c1 gram + c2 gram gram) x, or with x on the left side. */
static ftr_status ftr__muon_iterate(const ftr_kernel_call *call, ftr__muon *muon, ftr__update_scalar found_inf) {
    const double *c = call->attr->optimizer.ns_coefficients;
    const ftr__muon_product gram = ftr__muon_gram(muon->x, muon->rows, muon->columns, muon->gram);
    ftr__muon_product square = ftr__muon_gram(muon->gram, muon->side, muon->side, muon->square);
    square.alpha = static_cast<float>(c[2]);
    square.beta = static_cast<float>(c[1]);
    square.add = muon->gram;
    const bool left = muon->rows <= muon->columns;
    ftr__muon_product next = {};
    next.a = left ? muon->square : muon->x;
    next.b = left ? muon->x : muon->square;
    next.c = muon->next;
    next.m = muon->rows;
    next.n = muon->columns;
    next.k = muon->side;
    next.a_row = muon->side;
    next.b_row = muon->columns;
    next.a_column = next.b_column = 1;
    next.alpha = 1.0f;
    next.beta = static_cast<float>(c[0]);
    next.add = muon->x;
    muon->next = muon->x;
    muon->x = next.c;
    ftr_status status = ftr__muon_product_run(call, &gram, found_inf);
    if (!status) status = ftr__muon_product_run(call, &square, found_inf);
    if (!status) status = ftr__muon_product_run(call, &next, found_inf);
    return status;
}

static double ftr__muon_factor(ftr_muon_rate rate, double rows, double columns) {
    switch (rate) {
    case FTR_MUON_RATE_MATCH_RMS_ADAMW: return 0.2 * sqrt(rows > columns ? rows : columns);
    case FTR_MUON_RATE_SPECTRAL: return sqrt(rows / columns);
    case FTR_MUON_RATE_ORIGINAL: break;
    }
    return sqrt(rows > columns ? rows / columns : 1.0);
}

static ftr_status ftr__muon_parameter(const ftr_kernel_call *call, const ftr_view *in, ftr__muon *muon,
                                      const ftr__update_from *from) {
    const unsigned blocks = static_cast<unsigned>(muon->chunks);
    const ftr__muon start = *muon;
    ftr_status status;
    if (in[2].dtype == FTR_BF16)
        status = FTR_LAUNCH(call, (ftr__muon_momentum<__nv_bfloat16>), blocks, FTR__CUDA_THREADS, start, *from,
                            in[1].data, in[2].data);
    else
        status = FTR_LAUNCH(call, (ftr__muon_momentum<float>), blocks, FTR__CUDA_THREADS, start, *from, in[1].data,
                            in[2].data);
    if (!status)
        status = FTR_LAUNCH(call, ftr__muon_normalize, blocks < 1024u ? blocks : 1024u, FTR__CUDA_THREADS, start,
                            from->found_inf);
    for (int32_t k = 0; k < call->attr->optimizer.ns_steps && !status; k++)
        status = ftr__muon_iterate(call, muon, from->found_inf);
    const ftr__muon end = *muon;
    return status ? status
                  : FTR_LAUNCH(call, ftr__muon_apply, ftr__cuda_blocks(in[0].count), FTR__CUDA_THREADS, end, *from);
}

/* Workspace of the largest matrix: elements and those of a Gram matrix. */
static void ftr__muon_largest(const ftr_kernel_call *call, int64_t *elements, int64_t *gram) {
    *elements = *gram = 0;
    for (int32_t i = FTR_UPDATE_FIRST_GROUP; i + 3 <= call->in_count; i += 3) {
        const int64_t count = call->in[i].count, rows = call->in[i].shape.dim[0],
                      columns = count > 0 ? count / rows : 0;
        const int64_t side = count == 0 ? 0 : rows < columns ? rows : columns;
        *elements = count > *elements ? count : *elements;
        *gram = side * side > *gram ? side * side : *gram;
    }
}

FTR__CUDA_LIB size_t ftr__cuda_muon_update_workspace(const ftr_kernel_call *call) {
    int64_t elements, gram;
    ftr__muon_largest(call, &elements, &gram);
    return 8 * static_cast<size_t>(ftr__update_chunks(elements, FTR__UPDATE_CHUNK)) +
           8 * static_cast<size_t>(elements + gram);
}

FTR__CUDA_LIB ftr_status ftr__cuda_muon_update(const ftr_kernel_call *call) {
    const ftr__update_from from = ftr__update_from_of(call);
    int64_t elements, gram;
    ftr__muon_largest(call, &elements, &gram);
    ftr_status status = FTR_OK;
    for (int32_t i = FTR_UPDATE_FIRST_GROUP; i + 3 <= call->in_count && !status; i += 3) {
        const ftr_view *in = &call->in[i];
        if (in[0].count == 0) continue;
        ftr__muon muon = {};
        muon.rows = in[0].shape.dim[0];
        muon.columns = in[0].count / muon.rows;
        muon.side = muon.rows < muon.columns ? muon.rows : muon.columns;
        muon.chunks = ftr__update_chunks(in[0].count, FTR__UPDATE_CHUNK);
        muon.p = static_cast<float *>(in[0].data);
        muon.sums = static_cast<double *>(call->workspace);
        muon.x = reinterpret_cast<float *>(muon.sums + ftr__update_chunks(elements, FTR__UPDATE_CHUNK));
        muon.next = muon.x + elements;
        muon.gram = muon.next + elements;
        muon.square = muon.gram + gram;
        muon.factor = ftr__muon_factor(call->attr->optimizer.rate, static_cast<double>(muon.rows),
                                       static_cast<double>(muon.columns));
        muon.least = call->attr->optimizer.ns_eps;
        status = ftr__muon_parameter(call, in, &muon, &from);
    }
    return status;
}

/* ---- src/backend/cuda/scaling.cu ---- */
/* The loss scale. */

struct ftr__scaling {
    float *scale;
    int64_t *steps; /* since it changed */
    ftr__update_scalar found_inf;
    double growth, backoff;
    int64_t interval;
};

/* As _amp_update_scale_ of PyTorch; products in double. A scale that would overflow stays. */
FTR__KERNEL ftr__scale_kernel(ftr__scaling p) {
    if (threadIdx.x != 0) return;
    const double scale = *p.scale;
    if (ftr__update_skipped(p.found_inf)) {
        *p.scale = static_cast<float>(scale * p.backoff);
        *p.steps = 0;
        return;
    }
    const int64_t steps = *p.steps + 1, left = p.interval - steps;
    *p.steps = left > 0 ? steps : 0;
    if (left > 0) return;
    const float grown = static_cast<float>(scale * p.growth);
    if (fabsf(grown) <= FLT_MAX) *p.scale = grown;
}

FTR__CUDA_LIB ftr_status ftr__cuda_scale_update(const ftr_kernel_call *call) {
    const ftr__scaling p = {static_cast<float *>(call->in[0].data), static_cast<int64_t *>(call->in[1].data),
                            ftr__update_scalar_of(call, 2),         call->attr->scale_update.growth,
                            call->attr->scale_update.backoff,       call->attr->scale_update.interval};
    return FTR_LAUNCH(call, ftr__scale_kernel, 1u, FTR__CUDA_WARP, p);
}

/* ---- src/backend/cuda/loss.cu ---- */
/* Softmax along an axis, cross entropy and negative log-likelihood over the last one. */

/* --------------------------------------------------------------------------------------------------------- softmax -- */

/* The result from an element and its line's sum. */
template <bool LOG> static __device__ __forceinline__ float ftr__softmax_of(float x, ftr__exp_sum s, float last) {
    return LOG ? x - s.most - last : expf(x - s.most) * last;
}

/* What all elements of a line need, beside the largest one. */
template <bool LOG> static __device__ __forceinline__ float ftr__softmax_last(ftr__exp_sum s) {
    return LOG ? logf(s.sum) : 1.0f / s.sum;
}

template <typename R, bool LOG>
FTR__KERNEL ftr__softmax_rows(const typename R::T *x, typename R::T *y, int64_t rows, int64_t n, bool packed) {
    FTR_SHARED(float, room, 32);
    float v[R::size];
    for (int64_t base = (int64_t)blockIdx.x * R::a_block; base < rows; base += (int64_t)gridDim.x * R::a_block) {
        const int64_t row = base + threadIdx.x / (FTR__CUDA_THREADS / R::a_block), count = row < rows ? n : 0;
        const ftr__exp_sum s = ftr__row_exp_sum<R>(v, x + row * n, count, packed, room);
        const float last = ftr__softmax_last<LOG>(s);
        for (int64_t first = 0; first < count; first += R::tile) {
            if (n > R::tile) R::load(v, x + row * n, first, count, packed, -INFINITY);
            FTR__UNROLL
            for (int i = 0; i < R::size; i++) v[i] = ftr__softmax_of<LOG>(v[i], s, last);
            R::store(v, y + row * n, first, count, packed);
        }
    }
}

template <typename T, bool LOG> FTR__KERNEL ftr__softmax_columns(const T *x, T *y, ftr__lines lines) {
    FTR__GRID_LOOP(i, lines.outer * lines.inner) {
        const int64_t begin = ftr__line_begin(lines, i);
        const ftr__exp_sum s = ftr__line_exp_sum(x + begin, lines.n, lines.inner);
        const float last = ftr__softmax_last<LOG>(s);
        FTR__NO_UNROLL
        for (int64_t r = 0; r < lines.n; r++) {
            const int64_t at = begin + r * lines.inner;
            y[at] = ftr__from_float<T>(ftr__softmax_of<LOG>(ftr__to_float(x[at]), s, last));
        }
    }
}

/* softmax: y (dy - sum of dy y); log_softmax: dy - e^y sum of dy. */
template <bool LOG> static __device__ __forceinline__ float ftr__softmax_slope(float dy, float y, float sum) {
    return LOG ? dy - expf(y) * sum : y * (dy - sum);
}

template <typename R, bool LOG>
FTR__KERNEL ftr__softmax_grad_rows(const typename R::T *dy, const typename R::T *y, typename R::T *dx, int64_t rows, int64_t n,
                                   bool packed) {
    FTR_SHARED(float, room, 32);
    float v[R::size], w[R::size];
    for (int64_t base = (int64_t)blockIdx.x * R::a_block; base < rows; base += (int64_t)gridDim.x * R::a_block) {
        const int64_t row = base + threadIdx.x / (FTR__CUDA_THREADS / R::a_block), count = row < rows ? n : 0;
        float sum = 0.0f;
        for (int64_t first = 0; first < count; first += R::tile) {
            R::load(v, dy + row * n, first, count, packed, 0.0f);
            R::load(w, y + row * n, first, count, packed, 0.0f);
            FTR__UNROLL
            for (int i = 0; i < R::size; i++) sum += LOG ? v[i] : v[i] * w[i];
        }
        sum = R::sum(sum, room);
        for (int64_t first = 0; first < count; first += R::tile) {
            if (n > R::tile) {
                R::load(v, dy + row * n, first, count, packed, 0.0f);
                R::load(w, y + row * n, first, count, packed, 0.0f);
            }
            FTR__UNROLL
            for (int i = 0; i < R::size; i++) v[i] = ftr__softmax_slope<LOG>(v[i], w[i], sum);
            R::store(v, dx + row * n, first, count, packed);
        }
    }
}

template <typename T, bool LOG> FTR__KERNEL ftr__softmax_grad_columns(const T *dy, const T *y, T *dx, ftr__lines lines) {
    FTR__GRID_LOOP(i, lines.outer * lines.inner) {
        const int64_t begin = ftr__line_begin(lines, i);
        float sum = 0.0f;
        for (int64_t r = 0; r < lines.n; r++) {
            const int64_t at = begin + r * lines.inner;
            sum += LOG ? ftr__to_float(dy[at]) : ftr__to_float(dy[at]) * ftr__to_float(y[at]);
        }
        for (int64_t r = 0; r < lines.n; r++) {
            const int64_t at = begin + r * lines.inner;
            dx[at] = ftr__from_float<T>(ftr__softmax_slope<LOG>(ftr__to_float(dy[at]), ftr__to_float(y[at]), sum));
        }
    }
}

template <typename T, bool LOG> static ftr_status ftr__softmax_run(const ftr_kernel_call *call) {
    const ftr__lines lines = ftr__lines_of(&call->in[0].shape, call->attr->axis.axis);
    const T *x = static_cast<const T *>(call->in[0].data);
    T *y = static_cast<T *>(call->out[0].data);
    if (call->out[0].count == 0) return FTR_OK;
    if (lines.inner > 1)
        return FTR_LAUNCH(call, (ftr__softmax_columns<T, LOG>), ftr__cuda_blocks(lines.outer * lines.inner), FTR__CUDA_THREADS,
                          x, y, lines);
    return ftr__for_row<T>(lines.n, [&](auto tag) {
        using R = decltype(tag);
        return FTR_LAUNCH(call, (ftr__softmax_rows<R, LOG>), ftr__cuda_blocks(lines.outer, R::a_block), FTR__CUDA_THREADS, x, y,
                          lines.outer, lines.n, ftr__rows_are_packed<T>(lines.n, x, y));
    });
}

template <typename T, bool LOG> static ftr_status ftr__softmax_grad_run(const ftr_kernel_call *call) {
    const ftr__lines lines = ftr__lines_of(&call->in[0].shape, call->attr->axis.axis);
    const T *dy = static_cast<const T *>(call->in[0].data), *y = static_cast<const T *>(call->in[1].data);
    T *dx = static_cast<T *>(call->out[0].data);
    if (call->out[0].count == 0) return FTR_OK;
    if (lines.inner > 1)
        return FTR_LAUNCH(call, (ftr__softmax_grad_columns<T, LOG>), ftr__cuda_blocks(lines.outer * lines.inner),
                          FTR__CUDA_THREADS, dy, y, dx, lines);
    return ftr__for_row<T>(lines.n, [&](auto tag) {
        using R = decltype(tag);
        const bool packed = ftr__rows_are_packed<T>(lines.n, dy, dx) && ftr__rows_are_packed<T>(lines.n, y, y);
        return FTR_LAUNCH(call, (ftr__softmax_grad_rows<R, LOG>), ftr__cuda_blocks(lines.outer, R::a_block), FTR__CUDA_THREADS,
                          dy, y, dx, lines.outer, lines.n, packed);
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_softmax(const ftr_kernel_call *call) {
    return ftr__for_real(call, call->in[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        return call->op == FTR_OP_log_softmax ? ftr__softmax_run<T, true>(call) : ftr__softmax_run<T, false>(call);
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_softmax_grad(const ftr_kernel_call *call) {
    return ftr__for_real(call, call->in[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        return call->op == FTR_OP_log_softmax_grad ? ftr__softmax_grad_run<T, true>(call)
                                                   : ftr__softmax_grad_run<T, false>(call);
    });
}

/* ---------------------------------------------------------------------------------------------------------- losses -- */

#define FTR__LOSS_PARTS 2048 /* blocks that have sums of their own */

struct ftr__loss {
    const void *logits, *labels, *class_weights, *mask; /* the last two: NULL if missing */
    ftr_dtype dtype, label_dtype;
    ftr_reduction reduction;
    int64_t rows, classes, rows_per_mask, ignore;
    float smoothing, share; /* share: smoothing by the number of classes */
    bool packed;
};

/* Inputs: logits, labels; class weights and row mask are input `weights` and the next one. */
static ftr__loss ftr__loss_of(const ftr_kernel_call *call, const ftr_view *logits, int32_t weights) {
    const ftr_view *labels = logits + 1, *mask = weights + 1 < call->in_count ? &call->in[weights + 1] : nullptr;
    ftr__loss p = {};
    p.logits = logits->data;
    p.labels = labels->data;
    p.dtype = logits->dtype;
    p.label_dtype = labels->dtype;
    p.class_weights = weights < call->in_count ? call->in[weights].data : nullptr;
    p.mask = mask ? mask->data : nullptr;
    p.reduction = call->attr->cross_entropy.reduction;
    p.rows = labels->count;
    p.classes = logits->shape.dim[logits->shape.rank - 1];
    p.rows_per_mask = mask && mask->count > 0 ? p.rows / mask->count : 1;
    p.ignore = call->attr->cross_entropy.ignore_index;
    p.smoothing = static_cast<float>(call->attr->cross_entropy.label_smoothing);
    p.share = p.smoothing / static_cast<float>(p.classes);
    return p;
}

static __device__ __forceinline__ float ftr__loss_class_weight(const ftr__loss &p, int64_t label) {
    return p.class_weights ? ftr__load_real(p.class_weights, p.dtype, label) : 1.0f;
}

/* The same of a type that is known. */
template <typename T> static __device__ __forceinline__ float ftr__loss_class_weight_of(const ftr__loss &p, int64_t label) {
    return p.class_weights ? ftr__to_float(static_cast<const T *>(p.class_weights)[label]) : 1.0f;
}

/* The row's label, and its mask's value, which is 0 if it has no loss. `position` of the fault that a label outside of the
 * classes is; none is reported without `report`. */
struct ftr__loss_row {
    int64_t label;
    float mask;
};

static __device__ __forceinline__ ftr__loss_row ftr__loss_row_at(const ftr__loss &p, ftr__cuda_reporter to, int64_t row,
                                                                 bool report) {
    ftr__loss_row r = {ftr__load_integer(p.labels, p.label_dtype, row), 1.0f};
    if (p.mask) r.mask = ftr__load_real(p.mask, p.dtype, row / p.rows_per_mask);
    if (r.label == p.ignore) r.mask = 0.0f;
    if (r.mask == 0.0f || (r.label >= 0 && r.label < p.classes)) return r;
    if (report) ftr__in_range(to, FTR__CUDA_FAULT_LABEL, r.label, row, p.classes);
    r.mask = 0.0f;
    return r;
}

/* Of a block: what its threads added up. `room`: shared memory of 32 doubles. */
static __device__ __forceinline__ void ftr__loss_part(double loss, double weight, double *partial, double *room) {
    loss = ftr__block_sum(loss, room);
    weight = ftr__block_sum(weight, room);
    if (threadIdx.x != 0) return;
    partial[2 * (int64_t)blockIdx.x] = loss;
    partial[2 * (int64_t)blockIdx.x + 1] = weight;
}

/* One block. */
FTR__KERNEL ftr__loss_finish(const double *partial, int64_t parts, ftr_reduction reduction, ftr_dtype dtype, void *loss_out,
                             void *weight_out) {
    FTR_SHARED(double, room, 32);
    double loss = 0.0, weight = 0.0;
    for (int64_t i = threadIdx.x; i < parts; i += blockDim.x) {
        loss += partial[2 * i];
        weight += partial[2 * i + 1];
    }
    loss = ftr__block_sum(loss, room);
    weight = ftr__block_sum(weight, room);
    if (threadIdx.x != 0) return;
    if (reduction != FTR_REDUCE_NONE)
        ftr__store_real(loss_out, dtype, 0, static_cast<float>(reduction == FTR_REDUCE_MEAN ? loss / weight : loss));
    ftr__store_real(weight_out, dtype, 0, static_cast<float>(weight));
}

static unsigned ftr__loss_blocks(int64_t rows, int64_t a_block) {
    const int64_t blocks = (rows + a_block - 1) / a_block;
    return static_cast<unsigned>(blocks < FTR__LOSS_PARTS ? blocks : FTR__LOSS_PARTS);
}

FTR__CUDA_LIB size_t ftr__cuda_loss_workspace(const ftr_kernel_call *call) {
    return 2 * sizeof(double) * ftr__loss_blocks(call->in[1].count, 1);
}

/* A row's loss: (1 - e) w[label] (-log p[label]) + e / C * sum of w[c] (-log p[c]), with -log p = most - x + log_sum. */
template <typename R>
FTR__ROOMY_KERNEL ftr__cross_entropy_rows(ftr__loss p, ftr__cuda_reporter to, typename R::T *losses, typename R::T *log_sums,
                                    double *partial) {
    using T = typename R::T;
    FTR_SHARED(float, room, 32);
    FTR_SHARED(double, wide_room, 32);
    constexpr int threads = FTR__CUDA_THREADS / R::a_block;
    float v[R::size];
    double all_loss = 0.0, all_weight = 0.0;
    for (int64_t base = (int64_t)blockIdx.x * R::a_block; base < p.rows; base += (int64_t)gridDim.x * R::a_block) {
        const int64_t row = base + threadIdx.x / threads, count = row < p.rows ? p.classes : 0;
        const T *x = static_cast<const T *>(p.logits) + row * p.classes;
        const bool first_lane = threadIdx.x % threads == 0 && count > 0;
        ftr__loss_row r = {0, 0.0f};
        if (first_lane) r = ftr__loss_row_at(p, to, row, true);
        const ftr__exp_sum s = ftr__row_exp_sum<R>(v, x, count, p.packed, room);
        const float log_sum = logf(s.sum);
        float smooth = 0.0f;
        if (p.smoothing > 0.0f) {
            for (int64_t first = 0; first < count; first += R::tile) {
                if (count > R::tile) R::load(v, x, first, count, p.packed, 0.0f);
                FTR__UNROLL
                for (int i = 0; i < R::size; i++) {
                    const int64_t c = R::place(first, i);
                    if (c < count) smooth += ftr__loss_class_weight_of<T>(p, c) * (s.most - v[i] + log_sum);
                }
            }
            smooth = R::sum(smooth, room);
        }
        if (first_lane) {
            float loss = 0.0f, weight = 0.0f;
            if (r.mask != 0.0f) {
                weight = r.mask * ftr__loss_class_weight_of<T>(p, r.label);
                loss = (1.0f - p.smoothing) * weight * (s.most - ftr__to_float(x[r.label]) + log_sum);
                if (p.smoothing > 0.0f) loss += r.mask * p.share * smooth;
            }
            if (p.reduction == FTR_REDUCE_NONE) losses[row] = ftr__from_float<T>(loss);
            log_sums[row] = ftr__from_float<T>(log_sum);
            all_loss += (double)loss;
            all_weight += (double)weight;
        }
    }
    ftr__loss_part(all_loss, all_weight, partial, wide_room);
}

template <typename T> static ftr_status ftr__cross_entropy_run(const ftr_kernel_call *call) {
    ftr__loss p = ftr__loss_of(call, &call->in[0], 2);
    double *partial = static_cast<double *>(call->workspace);
    p.packed = ftr__rows_are_packed<T>(p.classes, p.logits, p.logits);
    unsigned blocks = 0;
    const ftr_status status = ftr__for_row<T>(p.classes, [&](auto tag) {
        using R = decltype(tag);
        blocks = ftr__loss_blocks(p.rows, R::a_block);
        return FTR_LAUNCH(call, (ftr__cross_entropy_rows<R>), blocks, FTR__CUDA_THREADS, p, ftr__cuda_reporter_of(call),
                          static_cast<T *>(call->out[0].data), static_cast<T *>(call->out[1].data), partial);
    });
    if (status) return status;
    return FTR_LAUNCH(call, ftr__loss_finish, 1, FTR__CUDA_THREADS, partial, blocks, p.reduction, p.dtype, call->out[0].data,
                      call->out[2].data);
}

FTR__CUDA_LIB ftr_status ftr__cuda_cross_entropy(const ftr_kernel_call *call) {
    return ftr__for_real(call, call->in[0].dtype, [&](auto tag) { return ftr__cross_entropy_run<decltype(tag)>(call); });
}

/* What the row's gradient is a multiple of: dloss, by the sum of weights if the loss is their mean. */
static __device__ __forceinline__ float ftr__loss_factor(const ftr__loss &p, const void *dloss, const void *weight_sum,
                                                         int64_t row) {
    const float g = ftr__load_real(dloss, p.dtype, p.reduction == FTR_REDUCE_NONE ? row : 0);
    return p.reduction == FTR_REDUCE_MEAN ? g / ftr__load_real(weight_sum, p.dtype, 0) : g;
}

/* d loss / d x[c] = g ((1 - e) w[label] (p[c] - [c == label]) + e / C (p[c] sum of w - w[c])), p[c] = e^(x[c] - most - log_sum).
 * dx may lie over x. */
template <typename R>
FTR__ROOMY_KERNEL ftr__cross_entropy_grad_rows(ftr__loss p, ftr__cuda_reporter to, const void *dloss, const typename R::T *log_sums,
                                         const void *weight_sum, typename R::T *out) {
    using T = typename R::T;
    FTR_SHARED(float, room, 32);
    constexpr int threads = FTR__CUDA_THREADS / R::a_block;
    float v[R::size];
    for (int64_t base = (int64_t)blockIdx.x * R::a_block; base < p.rows; base += (int64_t)gridDim.x * R::a_block) {
        const int64_t row = base + threadIdx.x / threads, count = row < p.rows ? p.classes : 0;
        const T *x = static_cast<const T *>(p.logits) + row * p.classes;
        T *dx = out + row * p.classes;
        ftr__loss_row r = {0, 0.0f};
        if (count > 0) r = ftr__loss_row_at(p, to, row, false);
        float at_label = 0.0f, at_each = 0.0f, inverse = 0.0f;
        if (r.mask != 0.0f) {
            const float g = r.mask * ftr__loss_factor(p, dloss, weight_sum, row);
            at_label = g * (1.0f - p.smoothing) * ftr__loss_class_weight_of<T>(p, r.label);
            at_each = g * p.share;
            inverse = expf(-ftr__to_float(log_sums[row]));
        }
        float most = -INFINITY, all_weights = 0.0f;
        for (int64_t first = 0; first < count; first += R::tile) {
            R::load(v, x, first, count, p.packed, -INFINITY);
            FTR__UNROLL
            for (int i = 0; i < R::size; i++) most = ftr__maximum(most, v[i]);
            if (p.smoothing > 0.0f && p.class_weights) {
                FTR__UNROLL
                for (int i = 0; i < R::size; i++) {
                    const int64_t c = R::place(first, i);
                    if (c < count) all_weights += ftr__loss_class_weight_of<T>(p, c);
                }
            }
        }
        most = R::maximum(most, room);
        all_weights = p.class_weights ? R::sum(all_weights, room) : (float)p.classes;
        const float scale = (at_label + at_each * all_weights) * inverse;
        for (int64_t first = 0; first < count; first += R::tile) {
            if (count > R::tile) R::load(v, x, first, count, p.packed, -INFINITY);
            FTR__UNROLL
            for (int i = 0; i < R::size; i++) {
                const int64_t c = R::place(first, i);
                float d = r.mask != 0.0f ? scale * expf(v[i] - most) : 0.0f;
                if (at_each != 0.0f && c < count) d -= at_each * ftr__loss_class_weight_of<T>(p, c);
                v[i] = c == r.label ? d - at_label : d;
            }
            R::store(v, dx, first, count, p.packed);
        }
    }
}

template <typename T> static ftr_status ftr__cross_entropy_grad_run(const ftr_kernel_call *call) {
    ftr__loss p = ftr__loss_of(call, &call->in[1], 5);
    T *dx = static_cast<T *>(call->out[0].data);
    p.packed = ftr__rows_are_packed<T>(p.classes, p.logits, dx);
    return ftr__for_row<T>(p.classes, [&](auto tag) {
        using R = decltype(tag);
        return FTR_LAUNCH(call, (ftr__cross_entropy_grad_rows<R>), ftr__cuda_blocks(p.rows, R::a_block), FTR__CUDA_THREADS, p,
                          ftr__cuda_reporter_of(call), call->in[0].data, static_cast<const T *>(call->in[3].data),
                          call->in[4].data, dx);
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_cross_entropy_grad(const ftr_kernel_call *call) {
    return ftr__for_real(call, call->in[1].dtype,
                         [&](auto tag) { return ftr__cross_entropy_grad_run<decltype(tag)>(call); });
}

FTR__KERNEL ftr__nll_rows(ftr__loss p, ftr__cuda_reporter to, void *losses, double *partial) {
    FTR_SHARED(double, room, 32);
    double all_loss = 0.0, all_weight = 0.0;
    FTR__GRID_LOOP(row, p.rows) {
        const ftr__loss_row r = ftr__loss_row_at(p, to, row, true);
        float loss = 0.0f, weight = 0.0f;
        if (r.mask != 0.0f) {
            weight = r.mask * ftr__loss_class_weight(p, r.label);
            loss = -weight * ftr__load_real(p.logits, p.dtype, row * p.classes + r.label);
        }
        if (p.reduction == FTR_REDUCE_NONE) ftr__store_real(losses, p.dtype, row, loss);
        all_loss += (double)loss;
        all_weight += (double)weight;
    }
    ftr__loss_part(all_loss, all_weight, partial, room);
}

FTR__CUDA_LIB ftr_status ftr__cuda_nll(const ftr_kernel_call *call) {
    const ftr__loss p = ftr__loss_of(call, &call->in[0], 2);
    double *partial = static_cast<double *>(call->workspace);
    const unsigned blocks = ftr__loss_blocks(p.rows, FTR__CUDA_THREADS);
    const ftr_status status = FTR_LAUNCH(call, ftr__nll_rows, blocks, FTR__CUDA_THREADS, p, ftr__cuda_reporter_of(call),
                                         call->out[0].data, partial);
    if (status) return status;
    return FTR_LAUNCH(call, ftr__loss_finish, 1, FTR__CUDA_THREADS, partial, blocks, p.reduction, p.dtype, call->out[0].data,
                      call->out[1].data);
}

/* Over zeros. */
FTR__KERNEL ftr__nll_grad_rows(ftr__loss p, ftr__cuda_reporter to, const void *dloss, const void *weight_sum, void *dx) {
    FTR__GRID_LOOP(row, p.rows) {
        const ftr__loss_row r = ftr__loss_row_at(p, to, row, false);
        if (r.mask == 0.0f) continue;
        const float g = r.mask * ftr__loss_factor(p, dloss, weight_sum, row);
        ftr__store_real(dx, p.dtype, row * p.classes + r.label, -g * ftr__loss_class_weight(p, r.label));
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_nll_grad(const ftr_kernel_call *call) {
    const ftr_view *out = &call->out[0];
    const ftr__loss p = ftr__loss_of(call, &call->in[1], 4);
    const ftr_status status =
        ftr__cuda_clear(call, out->data, static_cast<size_t>(out->count) * ftr_dtype_size(out->dtype));
    if (status) return status;
    return FTR_LAUNCH(call, ftr__nll_grad_rows, ftr__cuda_blocks(p.rows), FTR__CUDA_THREADS, p, ftr__cuda_reporter_of(call),
                      call->in[0].data, call->in[3].data, out->data);
}

/* ---- src/backend/cuda/scan.cu ---- */
/* Ops along an axis: cumulative sum, product, log-sum-exp, and their gradients. A block has a row if the axis is the last one;
 * otherwise a thread has a line. Sums and products are kept in double. */

/* Calls f with a value of the element type, also i32 or i64. */
template <typename F> static ftr_status ftr__for_number(const ftr_kernel_call *call, ftr_dtype dtype, F f) {
    if (dtype == FTR_I32) return f(int32_t());
    if (dtype == FTR_I64) return f(int64_t());
    return ftr__for_real(call, dtype, f);
}

/* What elements of type T are added and multiplied as: integers wrap. */
template <typename T> struct ftr__wide {
    using type = double;
    static __device__ __forceinline__ double from(T x) { return ftr__to_float(x); }
    static __device__ __forceinline__ T to(double x) { return ftr__from_float<T>(static_cast<float>(x)); }
};
template <> struct ftr__wide<int32_t> {
    using type = unsigned long long;
    static __device__ __forceinline__ type from(int32_t x) { return static_cast<type>(static_cast<int64_t>(x)); }
    static __device__ __forceinline__ int32_t to(type x) { return static_cast<int32_t>(static_cast<uint32_t>(x)); }
};
template <> struct ftr__wide<int64_t> {
    using type = unsigned long long;
    static __device__ __forceinline__ type from(int64_t x) { return static_cast<type>(x); }
    static __device__ __forceinline__ int64_t to(type x) { return static_cast<int64_t>(x); }
};

/* -------------------------------------------------------------------------------------------------- cumulative sum -- */

/* A block a row, of which it takes 256 elements at a time. y may be x. */
template <typename T> FTR__KERNEL ftr__cumsum_rows(const T *x, T *y, int64_t rows, int64_t n, bool reverse) {
    using W = ftr__wide<T>;
    using S = typename W::type;
    FTR_SHARED(S, of_warp, FTR__CUDA_THREADS / FTR__CUDA_WARP);
    const int warp = (int)threadIdx.x / FTR__CUDA_WARP, lane = (int)threadIdx.x % FTR__CUDA_WARP;
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        S before = 0;
        for (int64_t first = 0; first < n; first += FTR__CUDA_THREADS) {
            const int64_t r = first + threadIdx.x, at = row * n + (reverse ? n - 1 - r : r);
            S sum = r < n ? W::from(x[at]) : (S)0;
            for (int by = 1; by < FTR__CUDA_WARP; by *= 2) {
                const S left = __shfl_up_sync(FTR__CUDA_FULL, sum, by);
                if (lane >= by) sum += left;
            }
            if (lane == FTR__CUDA_WARP - 1) of_warp[warp] = sum;
            __syncthreads();
            S all = before;
            for (int w = 0; w < FTR__CUDA_THREADS / FTR__CUDA_WARP; w++) {
                if (w == warp) sum += all;
                all += of_warp[w];
            }
            before = all;
            if (r < n) y[at] = W::to(sum);
            __syncthreads();
        }
    }
}

template <typename T> FTR__KERNEL ftr__cumsum_columns(const T *x, T *y, ftr__lines lines, bool reverse) {
    using W = ftr__wide<T>;
    FTR__GRID_LOOP(i, lines.outer * lines.inner) {
        const int64_t begin = ftr__line_begin(lines, i);
        typename W::type sum = 0;
        for (int64_t r = 0; r < lines.n; r++) {
            const int64_t at = begin + (reverse ? lines.n - 1 - r : r) * lines.inner;
            sum += W::from(x[at]);
            y[at] = W::to(sum);
        }
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_cumsum(const ftr_kernel_call *call) {
    const ftr__lines lines = ftr__lines_of(&call->in[0].shape, call->attr->cumsum.axis);
    const bool reverse = call->attr->cumsum.reverse;
    if (call->out[0].count == 0) return FTR_OK;
    return ftr__for_number(call, call->in[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        const T *x = static_cast<const T *>(call->in[0].data);
        T *y = static_cast<T *>(call->out[0].data);
        if (lines.inner > 1)
            return FTR_LAUNCH(call, (ftr__cumsum_columns<T>), ftr__cuda_blocks(lines.outer * lines.inner), FTR__CUDA_THREADS, x,
                              y, lines, reverse);
        return FTR_LAUNCH(call, (ftr__cumsum_rows<T>), ftr__cuda_blocks(lines.outer, 1), FTR__CUDA_THREADS, x, y, lines.outer,
                          lines.n, reverse);
    });
}

/* --------------------------------------------------------------------------------------------------------- product -- */

/* Of a block, in a fixed order. `room`: shared memory of 32 elements. */
template <typename S> static __device__ __forceinline__ S ftr__block_product(S x, S *room) {
    const int warp = (int)threadIdx.x / FTR__CUDA_WARP, lane = (int)threadIdx.x % FTR__CUDA_WARP;
    for (int bits = 16; bits > 0; bits /= 2) x *= __shfl_xor_sync(FTR__CUDA_FULL, x, bits);
    if (lane == 0) room[warp] = x;
    __syncthreads();
    x = 1;
    for (int w = 0; w < FTR__CUDA_THREADS / FTR__CUDA_WARP; w++) x *= room[w];
    __syncthreads();
    return x;
}

template <typename T> FTR__KERNEL ftr__prod_rows(const T *x, T *y, int64_t rows, int64_t n) {
    using W = ftr__wide<T>;
    FTR_SHARED(typename W::type, room, 32);
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        typename W::type product = 1;
        for (int64_t r = threadIdx.x; r < n; r += blockDim.x) product *= W::from(x[row * n + r]);
        product = ftr__block_product(product, room);
        if (threadIdx.x == 0) y[row] = W::to(product);
    }
}

template <typename T> FTR__KERNEL ftr__prod_columns(const T *x, T *y, ftr__lines lines) {
    using W = ftr__wide<T>;
    FTR__GRID_LOOP(i, lines.outer * lines.inner) {
        const int64_t begin = ftr__line_begin(lines, i);
        typename W::type product = 1;
        for (int64_t r = 0; r < lines.n; r++) product *= W::from(x[begin + r * lines.inner]);
        y[i] = W::to(product);
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_prod(const ftr_kernel_call *call) {
    const ftr__lines lines = ftr__lines_of(&call->in[0].shape, call->attr->axis.axis);
    return ftr__for_number(call, call->in[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        const T *x = static_cast<const T *>(call->in[0].data);
        T *y = static_cast<T *>(call->out[0].data);
        if (lines.inner != 1)
            return FTR_LAUNCH(call, (ftr__prod_columns<T>), ftr__cuda_blocks(lines.outer * lines.inner), FTR__CUDA_THREADS, x, y,
                              lines);
        return FTR_LAUNCH(call, (ftr__prod_rows<T>), ftr__cuda_blocks(lines.outer, 1), FTR__CUDA_THREADS, x, y, lines.outer,
                          lines.n);
    });
}

/* The gradient of element x of a line: dy times the product of the others, of those that are not 0 the `product`. */
static __device__ __forceinline__ float ftr__prod_slope(float dy, float x, double product, int64_t zeros) {
    double others = 0.0;
    if (zeros == 0)
        others = product / (double)x;
    else if (zeros == 1 && x == 0.0f)
        others = product;
    return static_cast<float>((double)dy * others);
}

template <typename T> FTR__KERNEL ftr__prod_grad_rows(const T *dy, const T *x, T *dx, int64_t rows, int64_t n) {
    FTR_SHARED(double, room, 32);
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        double product = 1.0, zeros = 0.0;
        for (int64_t r = threadIdx.x; r < n; r += blockDim.x) {
            const float value = ftr__to_float(x[row * n + r]);
            product *= value == 0.0f ? 1.0 : (double)value;
            zeros += value == 0.0f ? 1.0 : 0.0;
        }
        product = ftr__block_product(product, room);
        zeros = ftr__block_sum(zeros, room);
        for (int64_t r = threadIdx.x; r < n; r += blockDim.x)
            dx[row * n + r] = ftr__from_float<T>(
                ftr__prod_slope(ftr__to_float(dy[row]), ftr__to_float(x[row * n + r]), product, (int64_t)zeros));
    }
}

template <typename T> FTR__KERNEL ftr__prod_grad_columns(const T *dy, const T *x, T *dx, ftr__lines lines) {
    FTR__GRID_LOOP(i, lines.outer * lines.inner) {
        const int64_t begin = ftr__line_begin(lines, i);
        double product = 1.0;
        int64_t zeros = 0;
        for (int64_t r = 0; r < lines.n; r++) {
            const float value = ftr__to_float(x[begin + r * lines.inner]);
            if (value == 0.0f)
                zeros++;
            else
                product *= (double)value;
        }
        for (int64_t r = 0; r < lines.n; r++) {
            const int64_t at = begin + r * lines.inner;
            dx[at] = ftr__from_float<T>(ftr__prod_slope(ftr__to_float(dy[i]), ftr__to_float(x[at]), product, zeros));
        }
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_prod_grad(const ftr_kernel_call *call) {
    const ftr__lines lines = ftr__lines_of(&call->in[1].shape, call->attr->axis.axis);
    if (call->out[0].count == 0) return FTR_OK;
    return ftr__for_real(call, call->in[1].dtype, [&](auto tag) {
        using T = decltype(tag);
        const T *dy = static_cast<const T *>(call->in[0].data), *x = static_cast<const T *>(call->in[1].data);
        T *dx = static_cast<T *>(call->out[0].data);
        if (lines.inner > 1)
            return FTR_LAUNCH(call, (ftr__prod_grad_columns<T>), ftr__cuda_blocks(lines.outer * lines.inner), FTR__CUDA_THREADS,
                              dy, x, dx, lines);
        return FTR_LAUNCH(call, (ftr__prod_grad_rows<T>), ftr__cuda_blocks(lines.outer, 1), FTR__CUDA_THREADS, dy, x, dx,
                          lines.outer, lines.n);
    });
}

/* ----------------------------------------------------------------------------------------------------- log-sum-exp -- */

/* An infinite largest element is the result. */
static __device__ __forceinline__ float ftr__logsumexp_of(ftr__exp_sum s) {
    return fabsf(s.most) == INFINITY ? s.most : s.most + logf(s.sum);
}

template <typename R> FTR__KERNEL ftr__logsumexp_rows(const typename R::T *x, typename R::T *y, int64_t rows, int64_t n, bool packed) {
    FTR_SHARED(float, room, 32);
    constexpr int threads = FTR__CUDA_THREADS / R::a_block;
    float v[R::size];
    for (int64_t base = (int64_t)blockIdx.x * R::a_block; base < rows; base += (int64_t)gridDim.x * R::a_block) {
        const int64_t row = base + threadIdx.x / threads;
        const ftr__exp_sum s = ftr__row_exp_sum<R>(v, x + row * n, row < rows ? n : 0, packed, room);
        if (row < rows && threadIdx.x % threads == 0) y[row] = ftr__from_float<typename R::T>(ftr__logsumexp_of(s));
    }
}

template <typename T> FTR__KERNEL ftr__logsumexp_columns(const T *x, T *y, ftr__lines lines) {
    FTR__GRID_LOOP(i, lines.outer * lines.inner)
    y[i] = ftr__from_float<T>(ftr__logsumexp_of(ftr__line_exp_sum(x + ftr__line_begin(lines, i), lines.n, lines.inner)));
}

FTR__CUDA_LIB ftr_status ftr__cuda_logsumexp(const ftr_kernel_call *call) {
    const ftr__lines lines = ftr__lines_of(&call->in[0].shape, call->attr->axis.axis);
    return ftr__for_real(call, call->in[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        const T *x = static_cast<const T *>(call->in[0].data);
        T *y = static_cast<T *>(call->out[0].data);
        if (lines.inner != 1)
            return FTR_LAUNCH(call, (ftr__logsumexp_columns<T>), ftr__cuda_blocks(lines.outer * lines.inner), FTR__CUDA_THREADS,
                              x, y, lines);
        return ftr__for_row<T>(lines.n, [&](auto kind) {
            using R = decltype(kind);
            return FTR_LAUNCH(call, (ftr__logsumexp_rows<R>), ftr__cuda_blocks(lines.outer, R::a_block), FTR__CUDA_THREADS, x, y,
                              lines.outer, lines.n, ftr__rows_are_packed<T>(lines.n, x, x));
        });
    });
}

/* dx = dy e^(x - most) / sum. Where the largest is inf, y is too: dy e^(x - y) is NaN for the infinite x, else 0. */
static __device__ __forceinline__ float ftr__logsumexp_scale(float dy, ftr__exp_sum s) {
    return s.most == INFINITY ? dy : dy / s.sum;
}

/* dx may lie over x. */
template <typename R>
FTR__KERNEL ftr__logsumexp_grad_rows(const typename R::T *dy, const typename R::T *x, typename R::T *dx, int64_t rows, int64_t n,
                                     bool packed) {
    FTR_SHARED(float, room, 32);
    float v[R::size];
    for (int64_t base = (int64_t)blockIdx.x * R::a_block; base < rows; base += (int64_t)gridDim.x * R::a_block) {
        const int64_t row = base + threadIdx.x / (FTR__CUDA_THREADS / R::a_block), count = row < rows ? n : 0;
        const ftr__exp_sum s = ftr__row_exp_sum<R>(v, x + row * n, count, packed, room);
        const float scale = count > 0 ? ftr__logsumexp_scale(ftr__to_float(dy[row]), s) : 0.0f;
        for (int64_t first = 0; first < count; first += R::tile) {
            if (n > R::tile) R::load(v, x + row * n, first, count, packed, -INFINITY);
            FTR__UNROLL
            for (int i = 0; i < R::size; i++) v[i] = expf(v[i] - s.most) * scale;
            R::store(v, dx + row * n, first, count, packed);
        }
    }
}

template <typename T> FTR__KERNEL ftr__logsumexp_grad_columns(const T *dy, const T *x, T *dx, ftr__lines lines) {
    FTR__GRID_LOOP(i, lines.outer * lines.inner) {
        const int64_t begin = ftr__line_begin(lines, i);
        const ftr__exp_sum s = ftr__line_exp_sum(x + begin, lines.n, lines.inner);
        const float scale = ftr__logsumexp_scale(ftr__to_float(dy[i]), s);
        FTR__NO_UNROLL
        for (int64_t r = 0; r < lines.n; r++) {
            const int64_t at = begin + r * lines.inner;
            dx[at] = ftr__from_float<T>(expf(ftr__to_float(x[at]) - s.most) * scale);
        }
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_logsumexp_grad(const ftr_kernel_call *call) {
    const ftr__lines lines = ftr__lines_of(&call->in[1].shape, call->attr->axis.axis);
    if (call->out[0].count == 0) return FTR_OK;
    return ftr__for_real(call, call->in[1].dtype, [&](auto tag) {
        using T = decltype(tag);
        const T *dy = static_cast<const T *>(call->in[0].data), *x = static_cast<const T *>(call->in[1].data);
        T *dx = static_cast<T *>(call->out[0].data);
        if (lines.inner > 1)
            return FTR_LAUNCH(call, (ftr__logsumexp_grad_columns<T>), ftr__cuda_blocks(lines.outer * lines.inner),
                              FTR__CUDA_THREADS, dy, x, dx, lines);
        return ftr__for_row<T>(lines.n, [&](auto kind) {
            using R = decltype(kind);
            return FTR_LAUNCH(call, (ftr__logsumexp_grad_rows<R>), ftr__cuda_blocks(lines.outer, R::a_block), FTR__CUDA_THREADS,
                              dy, x, dx, lines.outer, lines.n, ftr__rows_are_packed<T>(lines.n, x, dx));
        });
    });
}

/* ---- src/backend/cuda/index.cu ---- */
/* Ops on indices. An index out of range is reported, and its element left out: 0 in a result, nothing in a sum. Sums are added in
 * the order of the positions: these are sorted by their keys, rows of a weight or elements of a result. */

/* --------------------------------------------------------------------------------------------- sorting by keys -- */

/* Positions 0 to count - 1 of an index, whose keys are below `keys`. Those of key k are order[ends[k - 1]] to order[ends[k] - 1]
 * in the end, in ascending order. A position without a key is left out. */
struct ftr__sorting {
    const void *index;
    ftr_dtype index_dtype;
    int64_t count, keys, limit; /* limit: of an index */
    ftr__cuda_fault_kind kind;
    unsigned *ends, *order, *loose, *tiles; /* loose: as `order`, but without an order of those of one key; sums of tiles */
    /* Of scatter_add, whose keys are elements of the result: the index's dimensions, the result's and the source's strides. */
    int32_t rank, axis; /* rank 0: the index is the key */
    int64_t dim[FTR_MAX_RANK], stride[FTR_MAX_RANK], source_stride[FTR_MAX_RANK];
};

#define FTR__SORT_A_THREAD 16
#define FTR__SORT_TILE (FTR__CUDA_THREADS * FTR__SORT_A_THREAD)

static int64_t ftr__sort_tiles(int64_t keys) { return (keys + FTR__SORT_TILE - 1) / FTR__SORT_TILE; }

static size_t ftr__sort_bytes(int64_t count, int64_t keys) {
    return sizeof(unsigned) * static_cast<size_t>(keys + 2 * count + ftr__sort_tiles(keys));
}

/* The key of position i; -1 if its index is out of range. */
static __device__ __forceinline__ int64_t ftr__sort_key(const ftr__sorting &p, int64_t i) {
    const int64_t index = ftr__load_integer(p.index, p.index_dtype, i);
    if (index < 0 || index >= p.limit) return -1;
    if (p.rank == 0) return index;
    int64_t key = 0;
    for (int32_t d = p.rank - 1; d >= 0; d--) {
        const int64_t next = i / p.dim[d];
        key += (d == p.axis ? index : i - next * p.dim[d]) * p.stride[d];
        i = next;
    }
    return key;
}

FTR__KERNEL ftr__sort_count(ftr__sorting p, ftr__cuda_reporter to) {
    FTR__GRID_LOOP(i, p.count) {
        const int64_t key = ftr__sort_key(p, i);
        if (key >= 0)
            atomicAdd(&p.ends[key], 1u);
        else
            ftr__in_range(to, p.kind, ftr__load_integer(p.index, p.index_dtype, i), i, p.limit);
    }
}

/* A block a tile of keys: how many positions these have. */
FTR__KERNEL ftr__sort_tile_sums(ftr__sorting p) {
    FTR_SHARED(double, room, 32); /* exact: there are fewer than 2^32 positions */
    for (int64_t tile = blockIdx.x; tile < (p.keys + FTR__SORT_TILE - 1) / FTR__SORT_TILE; tile += gridDim.x) {
        double sum = 0.0;
        for (int k = 0; k < FTR__SORT_A_THREAD; k++) {
            const int64_t key = tile * FTR__SORT_TILE + k * FTR__CUDA_THREADS + threadIdx.x;
            if (key < p.keys) sum += (double)p.ends[key];
        }
        sum = ftr__block_sum(sum, room);
        if (threadIdx.x == 0) p.tiles[tile] = (unsigned)sum;
    }
}

/* The sum of what the block's threads before this one have; `all`: of all threads. `room`: 8 elements. */
static __device__ __forceinline__ unsigned ftr__block_before(unsigned x, unsigned *room, unsigned *all) {
    const int warp = (int)threadIdx.x / FTR__CUDA_WARP, lane = (int)threadIdx.x % FTR__CUDA_WARP;
    unsigned sum = x;
    for (int by = 1; by < FTR__CUDA_WARP; by *= 2) {
        const unsigned left = __shfl_up_sync(FTR__CUDA_FULL, sum, by);
        if (lane >= by) sum += left;
    }
    if (lane == FTR__CUDA_WARP - 1) room[warp] = sum;
    __syncthreads();
    unsigned before = 0;
    *all = 0;
    for (int w = 0; w < FTR__CUDA_THREADS / FTR__CUDA_WARP; w++) {
        if (w == warp) before = *all;
        *all += room[w];
    }
    __syncthreads();
    return before + sum - x;
}

/* One block: sums become where tiles begin. */
FTR__KERNEL ftr__sort_tile_begins(ftr__sorting p, int64_t tiles) {
    FTR_SHARED(unsigned, room, FTR__CUDA_THREADS / FTR__CUDA_WARP);
    unsigned begin = 0;
    for (int64_t first = 0; first < tiles; first += FTR__CUDA_THREADS) {
        const int64_t tile = first + threadIdx.x;
        unsigned all;
        const unsigned before = ftr__block_before(tile < tiles ? p.tiles[tile] : 0, room, &all);
        if (tile < tiles) p.tiles[tile] = begin + before;
        begin += all;
    }
}

/* Counts become where keys begin. */
FTR__KERNEL ftr__sort_begins(ftr__sorting p) {
    FTR_SHARED(unsigned, room, FTR__CUDA_THREADS / FTR__CUDA_WARP);
    for (int64_t tile = blockIdx.x; tile < (p.keys + FTR__SORT_TILE - 1) / FTR__SORT_TILE; tile += gridDim.x) {
        unsigned begin = p.tiles[tile];
        for (int k = 0; k < FTR__SORT_A_THREAD; k++) {
            const int64_t key = tile * FTR__SORT_TILE + k * FTR__CUDA_THREADS + threadIdx.x;
            unsigned all;
            const unsigned before = ftr__block_before(key < p.keys ? p.ends[key] : 0, room, &all);
            if (key < p.keys) p.ends[key] = begin + before;
            begin += all;
        }
    }
}

/* Positions to their keys' places, in any order; where keys begin becomes where they end. */
FTR__KERNEL ftr__sort_place(ftr__sorting p) {
    FTR__GRID_LOOP(i, p.count) {
        const int64_t key = ftr__sort_key(p, i);
        if (key >= 0) p.loose[atomicAdd(&p.ends[key], 1u)] = (unsigned)i;
    }
}

/* Each position's place among those of its key. */
FTR__KERNEL ftr__sort_rank(ftr__sorting p) {
    FTR__GRID_LOOP(i, p.count) {
        const int64_t key = ftr__sort_key(p, i);
        if (key < 0) continue;
        const unsigned begin = key > 0 ? p.ends[key - 1] : 0, end = p.ends[key];
        unsigned place = begin;
        for (unsigned j = begin; j < end; j++) place += p.loose[j] < (unsigned)i;
        p.order[place] = (unsigned)i;
    }
}

/* Fills in ends and order, which lie in the workspace. */
static ftr_status ftr__sort(const ftr_kernel_call *call, ftr__sorting *p) {
    const int64_t tiles = ftr__sort_tiles(p->keys);
    if (p->count > INT32_MAX)
        return ftr_backend_error(call, FTR_ERROR_UNSUPPORTED, "the cuda backend sums by %d indices at most, not %lld",
                                 INT32_MAX, static_cast<long long>(p->count));
    p->ends = static_cast<unsigned *>(call->workspace);
    p->order = p->ends + p->keys;
    p->loose = p->order + p->count;
    p->tiles = p->loose + p->count;
    ftr_status status = ftr__cuda_clear(call, p->ends, sizeof(unsigned) * static_cast<size_t>(p->keys));
    const unsigned blocks = ftr__cuda_blocks(p->count), tile_blocks = ftr__cuda_blocks(tiles, 1);
    if (!status) status = FTR_LAUNCH(call, ftr__sort_count, blocks, FTR__CUDA_THREADS, *p, ftr__cuda_reporter_of(call));
    if (!status) status = FTR_LAUNCH(call, ftr__sort_tile_sums, tile_blocks, FTR__CUDA_THREADS, *p);
    if (!status) status = FTR_LAUNCH(call, ftr__sort_tile_begins, 1, FTR__CUDA_THREADS, *p, tiles);
    if (!status) status = FTR_LAUNCH(call, ftr__sort_begins, tile_blocks, FTR__CUDA_THREADS, *p);
    if (!status) status = FTR_LAUNCH(call, ftr__sort_place, blocks, FTR__CUDA_THREADS, *p);
    if (!status) status = FTR_LAUNCH(call, ftr__sort_rank, blocks, FTR__CUDA_THREADS, *p);
    return status;
}

/* ------------------------------------------------------------------------------------------------------- embedding -- */

/* Rows of `width` units. */
template <typename T>
FTR__KERNEL ftr__embedding_kernel(const T *weight, const void *index, ftr_dtype index_dtype, T *out, int64_t count, int64_t width,
                                  int64_t rows, ftr__cuda_reporter to) {
    FTR__GRID_LOOP(i, count * width) {
        const int64_t at = i / width, c = i - at * width, row = ftr__load_integer(index, index_dtype, at);
        T value = {};
        if (row >= 0 && row < rows)
            value = weight[row * width + c];
        else if (c == 0)
            ftr__in_range(to, FTR__CUDA_FAULT_ROW, row, at, rows);
        out[i] = value;
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_embedding(const ftr_kernel_call *call) {
    const ftr_view *weight = &call->in[0], *index = &call->in[1], *out = &call->out[0];
    const int64_t rows = weight->shape.dim[0], bytes = weight->shape.dim[1] * static_cast<int64_t>(ftr_dtype_size(weight->dtype));
    const bool packed = bytes % 16 == 0 && reinterpret_cast<uintptr_t>(weight->data) % 16 == 0 &&
                        reinterpret_cast<uintptr_t>(out->data) % 16 == 0;
    const auto run = [&](auto tag) {
        using T = decltype(tag);
        const int64_t width = bytes / static_cast<int64_t>(sizeof(T));
        return FTR_LAUNCH(call, (ftr__embedding_kernel<T>), ftr__cuda_blocks(index->count * width), FTR__CUDA_THREADS,
                          static_cast<const T *>(weight->data), index->data, index->dtype, static_cast<T *>(out->data),
                          index->count, width, rows, ftr__cuda_reporter_of(call));
    };
    if (packed) return run(ftr__pack<uint32_t>());
    return ftr_dtype_size(weight->dtype) == 2 ? run(uint16_t()) : run(uint32_t());
}

#define FTR__PIECE 32 /* sorted positions that a block adds up */

/* Sums of dy's rows of each row of the weight. The sorted positions are cut into pieces; the sum of a row that goes on over
 * pieces is added up from theirs: of a piece, partial sum 0 is that of its first row, 1 of its last one if that is another. */
struct ftr__embedding_sums {
    ftr__sorting sort;
    const void *dy;
    void *dw;
    ftr_dtype dtype;
    int64_t width;
    float *partial;
};

/* Positions in all. */
static __device__ __forceinline__ int64_t ftr__sorted(const ftr__sorting &p) { return p.keys > 0 ? p.ends[p.keys - 1] : 0; }

FTR__KERNEL ftr__embedding_grad_pieces(ftr__embedding_sums p) {
    const int64_t all = ftr__sorted(p.sort), column = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    for (int64_t piece = blockIdx.x; piece * FTR__PIECE < all; piece += gridDim.x) {
        const int64_t first = piece * FTR__PIECE, last = min(all, first + FTR__PIECE);
        if (column >= p.width) continue;
        for (int64_t at = first; at < last;) {
            const int64_t row = ftr__sort_key(p.sort, p.sort.order[at]);
            const int64_t begin = row > 0 ? p.sort.ends[row - 1] : 0, end = p.sort.ends[row], stop = min(last, end);
            float sum = 0.0f;
            for (; at < stop; at++) sum += ftr__load_real(p.dy, p.dtype, p.sort.order[at] * p.width + column);
            if (begin >= first && end <= last)
                ftr__store_real(p.dw, p.dtype, row * p.width + column, sum);
            else
                p.partial[(2 * piece + (begin > first)) * p.width + column] = sum;
        }
    }
}

/* A block a piece: its last row, if that begins in it and ends in another one. */
FTR__ROOMY_KERNEL ftr__embedding_grad_join(ftr__embedding_sums p) {
    const int64_t all = ftr__sorted(p.sort), column = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    for (int64_t piece = blockIdx.x; (piece + 1) * FTR__PIECE < all; piece += gridDim.x) {
        const int64_t first = piece * FTR__PIECE, row = ftr__sort_key(p.sort, p.sort.order[first + FTR__PIECE - 1]);
        const int64_t begin = row > 0 ? p.sort.ends[row - 1] : 0, end = p.sort.ends[row];
        if (column >= p.width || begin < first || end <= first + FTR__PIECE) continue;
        double sum = (double)p.partial[(2 * piece + (begin > first)) * p.width + column];
        for (int64_t next = piece + 1; next * FTR__PIECE < end; next++)
            sum += (double)p.partial[2 * next * p.width + column];
        ftr__store_real(p.dw, p.dtype, row * p.width + column, static_cast<float>(sum));
    }
}

static int64_t ftr__embedding_pieces(int64_t count) { return (count + FTR__PIECE - 1) / FTR__PIECE; }

static size_t ftr__embedding_sort_bytes(const ftr_kernel_call *call) {
    return (ftr__sort_bytes(call->in[1].count, call->out[0].shape.dim[0]) + 63) / 64 * 64;
}

FTR__CUDA_LIB size_t ftr__cuda_embedding_grad_workspace(const ftr_kernel_call *call) {
    return ftr__embedding_sort_bytes(call) + 2 * sizeof(float) *
                                                 static_cast<size_t>(ftr__embedding_pieces(call->in[1].count)) *
                                                 static_cast<size_t>(call->out[0].shape.dim[1]);
}

FTR__CUDA_LIB ftr_status ftr__cuda_embedding_grad(const ftr_kernel_call *call) {
    const ftr_view *dy = &call->in[0], *index = &call->in[1], *out = &call->out[0];
    ftr__embedding_sums p = {};
    ftr__sorting *sort = &p.sort;
    sort->index = index->data;
    sort->index_dtype = index->dtype;
    sort->count = index->count;
    sort->keys = sort->limit = out->shape.dim[0];
    sort->kind = FTR__CUDA_FAULT_ROW;
    p.dy = dy->data;
    p.dw = out->data;
    p.dtype = out->dtype;
    p.width = out->shape.dim[1];
    p.partial = reinterpret_cast<float *>(static_cast<char *>(call->workspace) + ftr__embedding_sort_bytes(call));
    ftr_status status = ftr__cuda_clear(call, out->data, static_cast<size_t>(out->count) * ftr_dtype_size(out->dtype));
    if (!status && index->count > 0) status = ftr__sort(call, sort);
    if (status || index->count == 0 || out->count == 0) return status;
    const unsigned threads = p.width < FTR__CUDA_THREADS ? static_cast<unsigned>((p.width + 31) / 32 * 32) : FTR__CUDA_THREADS;
    const dim3 grid(ftr__cuda_blocks(ftr__embedding_pieces(index->count), 1), ftr__cuda_blocks(p.width, threads));
    status = FTR_LAUNCH(call, ftr__embedding_grad_pieces, grid, threads, p);
    return status ? status : FTR_LAUNCH(call, ftr__embedding_grad_join, grid, threads, p);
}

/* ---------------------------------------------------------------------------------------------- gather and scatter -- */

/* Dimensions of an index, and the strides of a tensor that has at least them, but for the axis. */
static void ftr__index_strides(const ftr_shape *index, const ftr_shape *shape, int64_t *dim, int64_t *stride) {
    int64_t step = 1;
    for (int32_t d = shape->rank - 1; d >= 0; d--) {
        dim[d] = index->dim[d];
        stride[d] = step;
        step *= shape->dim[d];
    }
}

template <typename T> FTR__KERNEL ftr__gather_kernel(ftr__sorting p, ftr__cuda_reporter to, const T *x, T *out) {
    FTR__GRID_LOOP(i, p.count) {
        const int64_t key = ftr__sort_key(p, i);
        T value = {};
        if (key >= 0)
            value = x[key];
        else
            ftr__in_range(to, p.kind, ftr__load_integer(p.index, p.index_dtype, i), i, p.limit);
        out[i] = value;
    }
}

/* Positions of the index, whose keys are elements of a tensor of this shape. */
static ftr__sorting ftr__index_keys(const ftr_view *index, const ftr_shape *shape, int32_t axis) {
    ftr__sorting p = {};
    p.index = index->data;
    p.index_dtype = index->dtype;
    p.count = index->count;
    p.limit = shape->dim[axis];
    p.kind = FTR__CUDA_FAULT_AXIS;
    p.rank = shape->rank;
    p.axis = axis;
    ftr__index_strides(&index->shape, shape, p.dim, p.stride);
    return p;
}

FTR__CUDA_LIB ftr_status ftr__cuda_gather(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *out = &call->out[0];
    const ftr__sorting p = ftr__index_keys(&call->in[1], &x->shape, call->attr->axis.axis);
    const auto run = [&](auto tag) {
        using T = decltype(tag);
        return FTR_LAUNCH(call, (ftr__gather_kernel<T>), ftr__cuda_blocks(p.count), FTR__CUDA_THREADS, p,
                          ftr__cuda_reporter_of(call), static_cast<const T *>(x->data), static_cast<T *>(out->data));
    };
    switch (ftr_dtype_size(out->dtype)) {
    case 1: return run(uint8_t());
    case 2: return run(uint16_t());
    case 4: return run(uint32_t());
    default: return run(uint64_t());
    }
}

/* A thread an element of the result: x's, or 0, and what comes to it in the order of the index. */
FTR__KERNEL ftr__scatter_kernel(ftr__sorting p, const void *source, const void *x, void *out, ftr_dtype dtype, bool real) {
    FTR__GRID_LOOP(k, p.keys) {
        const unsigned begin = p.count == 0 || k == 0 ? 0 : p.ends[k - 1], end = p.count == 0 ? 0 : p.ends[k];
        double sum = x && real ? (double)ftr__load_real(x, dtype, k) : 0.0;
        unsigned long long whole = x && !real ? (unsigned long long)ftr__load_integer(x, dtype, k) : 0;
        for (unsigned j = begin; j < end; j++) {
            int64_t at = 0, rest = p.order[j];
            for (int32_t d = p.rank - 1; d >= 0; d--) {
                const int64_t next = rest / p.dim[d];
                at += (rest - next * p.dim[d]) * p.source_stride[d];
                rest = next;
            }
            if (real)
                sum += (double)ftr__load_real(source, dtype, at);
            else
                whole += (unsigned long long)ftr__load_integer(source, dtype, at);
        }
        if (real)
            ftr__store_real(out, dtype, k, static_cast<float>(sum));
        else
            ftr__store_integer(out, dtype, k, (int64_t)whole);
    }
}

FTR__CUDA_LIB size_t ftr__cuda_scatter_add_workspace(const ftr_kernel_call *call) {
    return ftr__sort_bytes(call->in[0].count, call->out[0].count);
}

FTR__CUDA_LIB ftr_status ftr__cuda_scatter_add(const ftr_kernel_call *call) {
    const ftr_view *index = &call->in[0], *source = &call->in[1], *out = &call->out[0];
    ftr__sorting p = ftr__index_keys(index, &out->shape, call->attr->scatter.axis);
    ftr__index_strides(&index->shape, &source->shape, p.dim, p.source_stride);
    p.keys = out->count;
    const ftr_status status = p.count > 0 ? ftr__sort(call, &p) : FTR_OK;
    if (status) return status;
    return FTR_LAUNCH(call, ftr__scatter_kernel, ftr__cuda_blocks(p.keys), FTR__CUDA_THREADS, p, source->data,
                      call->in_count > 2 ? call->in[2].data : nullptr, out->data, out->dtype, ftr__cuda_is_real(out->dtype));
}

/* --------------------------------------------------------------------------------------------------------- one hot -- */

FTR__KERNEL ftr__one_hot_kernel(const void *index, ftr_dtype index_dtype, void *out, ftr_dtype dtype, bool real, int64_t count,
                                int64_t classes, ftr__cuda_reporter to) {
    FTR__GRID_LOOP(i, count * classes) {
        const int64_t row = i / classes, c = i - row * classes, hot = ftr__load_integer(index, index_dtype, row);
        if (c == 0) ftr__in_range(to, FTR__CUDA_FAULT_CLASS, hot, row, classes);
        if (real)
            ftr__store_real(out, dtype, i, c == hot ? 1.0f : 0.0f);
        else
            ftr__store_integer(out, dtype, i, c == hot);
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_one_hot(const ftr_kernel_call *call) {
    const ftr_view *index = &call->in[0], *out = &call->out[0];
    return FTR_LAUNCH(call, ftr__one_hot_kernel, ftr__cuda_blocks(out->count), FTR__CUDA_THREADS, index->data, index->dtype,
                      out->data, out->dtype, ftr__cuda_is_real(out->dtype), index->count, call->attr->one_hot.classes,
                      ftr__cuda_reporter_of(call));
}

/* ----------------------------------------------------------------------------------------------------------- top k -- */

/* A number that is larger for larger elements: NaN is the largest, -0 is 0. */
static __device__ __forceinline__ int64_t ftr__topk_key(const void *x, ftr_dtype dtype, bool real, int64_t i) {
    if (!real) return ftr__load_integer(x, dtype, i);
    const float value = ftr__load_real(x, dtype, i);
    if (value != value) return INT64_MAX;
    const int64_t size = (int64_t)(__float_as_int(value) & 0x7fffffff);
    return value < 0.0f ? -size : size;
}

/* An element and its place; of two the larger one comes first, then that with the smaller place. A place of -1: none. */
struct ftr__topk_item {
    int64_t key, at;
};

static __device__ __forceinline__ bool ftr__topk_before(ftr__topk_item a, ftr__topk_item b) {
    if (a.at < 0 || b.at < 0) return b.at < 0 && a.at >= 0;
    return a.key > b.key || (a.key == b.key && a.at < b.at);
}

/* A block a row, k times: the first of the elements that come behind the one found last. */
FTR__KERNEL ftr__topk_kernel(const void *x, ftr_dtype dtype, bool real, void *values, int64_t *places, int64_t rows, int64_t n,
                             int64_t k) {
    FTR_SHARED(ftr__topk_item, room, FTR__CUDA_THREADS / FTR__CUDA_WARP);
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        ftr__topk_item last = {0, -1};
        for (int64_t o = row * k; o < (row + 1) * k; o++) {
            ftr__topk_item best = {0, -1};
            for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
                const ftr__topk_item item = {ftr__topk_key(x, dtype, real, row * n + i), i};
                if ((last.at < 0 || ftr__topk_before(last, item)) && ftr__topk_before(item, best)) best = item;
            }
            for (int bits = 16; bits > 0; bits /= 2) {
                const ftr__topk_item other = {__shfl_xor_sync(FTR__CUDA_FULL, best.key, bits),
                                              __shfl_xor_sync(FTR__CUDA_FULL, best.at, bits)};
                if (ftr__topk_before(other, best)) best = other;
            }
            if (threadIdx.x % FTR__CUDA_WARP == 0) room[threadIdx.x / FTR__CUDA_WARP] = best;
            __syncthreads();
            last = room[0];
            for (int w = 1; w < FTR__CUDA_THREADS / FTR__CUDA_WARP; w++)
                if (ftr__topk_before(room[w], last)) last = room[w];
            __syncthreads();
            if (threadIdx.x != 0) continue;
            places[o] = last.at;
            if (real)
                ftr__store_real(values, dtype, o, ftr__load_real(x, dtype, row * n + last.at));
            else
                ftr__store_integer(values, dtype, o, last.key);
        }
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_topk(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0];
    const int64_t n = x->shape.dim[x->shape.rank - 1];
    if (call->out[0].count == 0) return FTR_OK;
    return FTR_LAUNCH(call, ftr__topk_kernel, ftr__cuda_blocks(x->count / n, 1), FTR__CUDA_THREADS, x->data, x->dtype,
                      ftr__cuda_is_real(x->dtype), call->out[0].data, static_cast<int64_t *>(call->out[1].data), x->count / n, n,
                      call->attr->topk.k);
}

/* ---- src/backend/cuda/resize.cu ---- */
/* Resizing of [n, h, w, c]: a thread has a vector of channels of one pixel of the result. Where each row and column comes from is
 * worked out first, in the workspace. The gradient gathers: each input pixel looks up the output pixels that it went into. */

/* Height or width: output i is (1 - share[i]) times input low[i] plus share[i] times input high[i]. low does not decrease;
 * first[k] is the first output whose low is k or more, up to k = in. */
struct ftr__resize_axis {
    int64_t in, out;
    int64_t *low, *high, *first;
    float *share;
};

struct ftr__resize2d {
    ftr__resize_axis axis[2]; /* height, width */
    int64_t channels;
    bool nearest, align_corners;
};

/* ----------------------------------------------------------------------------------------------- source of a row -- */

/* PyTorch's rules; of the nearest pixel with product and quotient in f32. */
static __device__ __forceinline__ double ftr__resize_position(const ftr__resize2d &p, int64_t at, int64_t in,
                                                              int64_t out) {
    if (p.nearest) return (double)floorf(__fmul_rn((float)at, (float)in / (float)out));
    if (p.align_corners) return out > 1 ? (double)(at * (in - 1)) / (double)(out - 1) : 0.0;
    const double position = __dadd_rn(__dmul_rn((double)at + 0.5, (double)in / (double)out), -0.5);
    return position > 0.0 ? position : 0.0;
}

static __device__ __forceinline__ int64_t ftr__resize_low(const ftr__resize2d &p, int64_t at, int64_t in, int64_t out) {
    const int64_t low = (int64_t)ftr__resize_position(p, at, in, out);
    return low < in ? low : in - 1;
}

/* Element i of an axis' tables: low, high and share of an output, then first of an input. */
static __device__ __forceinline__ void ftr__resize_fill(const ftr__resize2d &p, const ftr__resize_axis &axis,
                                                        int64_t i) {
    if (i < axis.out) {
        const int64_t low = ftr__resize_low(p, i, axis.in, axis.out);
        const int64_t high = low + 1 < axis.in && !p.nearest ? low + 1 : low;
        axis.low[i] = low;
        axis.high[i] = high;
        axis.share[i] =
            high > low ? static_cast<float>(ftr__resize_position(p, i, axis.in, axis.out) - (double)low) : 0.0f;
        return;
    }
    const int64_t k = i - axis.out;
    int64_t begin = 0, end = axis.out;
    while (begin < end) {
        const int64_t middle = begin + (end - begin) / 2;
        if (ftr__resize_low(p, middle, axis.in, axis.out) < k)
            begin = middle + 1;
        else
            end = middle;
    }
    axis.first[k] = begin;
}

FTR__KERNEL ftr__resize_tables(ftr__resize2d p) {
    const int64_t rows = p.axis[0].out + p.axis[0].in + 1, columns = p.axis[1].out + p.axis[1].in + 1;
    FTR__GRID_LOOP(i, rows + columns) {
        if (i < rows)
            ftr__resize_fill(p, p.axis[0], i);
        else
            ftr__resize_fill(p, p.axis[1], i - rows);
    }
}

/* What output i takes of input k. */
static __device__ __forceinline__ float ftr__resize_weight(const ftr__resize_axis &axis, int64_t i, int64_t k) {
    return (axis.low[i] == k ? 1.0f - axis.share[i] : 0.0f) + (axis.high[i] == k ? axis.share[i] : 0.0f);
}

/* ---------------------------------------------------------------------------------------------------------- kernels -- */

template <typename T, int V> FTR__KERNEL ftr__resize_forward(ftr__resize2d p, int64_t count, const T *x, T *y) {
    const ftr__resize_axis &h = p.axis[0], &w = p.axis[1];
    const int64_t packs = p.channels / V;
    FTR__GRID_LOOP(i, count) {
        const int64_t pixel = i / packs, row = pixel / w.out, column = pixel - row * w.out, image = row / h.out;
        const int64_t oh = row - image * h.out;
        const T *from = x + image * h.in * w.in * p.channels + (i - pixel * packs) * V;
        const int64_t top = h.low[oh] * w.in, left = w.low[column];
        float v[V];
        ftr__load_vector<T, V>(from + (top + left) * p.channels, v);
        if (!p.nearest) {
            const int64_t bottom = h.high[oh] * w.in, right = w.high[column];
            const float down = h.share[oh], across = w.share[column];
            float b[V], c[V], d[V];
            ftr__load_vector<T, V>(from + (top + right) * p.channels, b);
            ftr__load_vector<T, V>(from + (bottom + left) * p.channels, c);
            ftr__load_vector<T, V>(from + (bottom + right) * p.channels, d);
            const float weight[4] = {(1.0f - down) * (1.0f - across), (1.0f - down) * across, down * (1.0f - across),
                                     down * across};
            FTR__UNROLL
            for (int k = 0; k < V; k++)
                v[k] = weight[0] * v[k] + weight[1] * b[k] + weight[2] * c[k] + weight[3] * d[k];
        }
        ftr__store_vector<T, V>(y + i * V, v);
    }
}

template <typename T, int V> FTR__KERNEL ftr__resize_backward(ftr__resize2d p, int64_t count, const T *dy, T *dx) {
    const ftr__resize_axis &h = p.axis[0], &w = p.axis[1];
    const int64_t packs = p.channels / V, before = p.nearest ? 0 : 1;
    FTR__GRID_LOOP(i, count) {
        const int64_t pixel = i / packs, row = pixel / w.in, iw = pixel - row * w.in, image = row / h.in;
        const int64_t ih = row - image * h.in;
        const T *from = dy + image * h.out * w.out * p.channels + (i - pixel * packs) * V;
        const int64_t top = h.first[ih > 0 ? ih - before : 0], bottom = h.first[ih + 1];
        const int64_t left = w.first[iw > 0 ? iw - before : 0], right = w.first[iw + 1];
        float sum[V] = {};
        for (int64_t oh = top; oh < bottom; oh++) {
            const float share = ftr__resize_weight(h, oh, ih);
            for (int64_t ow = left; ow < right; ow++) {
                const float weight = share * ftr__resize_weight(w, ow, iw);
                float d[V];
                ftr__load_vector<T, V>(from + (oh * w.out + ow) * p.channels, d);
                FTR__UNROLL
                for (int k = 0; k < V; k++) sum[k] = fmaf(weight, d[k], sum[k]);
            }
        }
        ftr__store_vector<T, V>(dx + i * V, sum);
    }
}

/* ---------------------------------------------------------------------------------------------------------- running -- */

static size_t ftr__resize_axis_bytes(int64_t in, int64_t out) {
    return static_cast<size_t>(2 * out + in + 1) * sizeof(int64_t) + static_cast<size_t>(out) * sizeof(double);
}

FTR__CUDA_LIB size_t ftr__cuda_resize2d_workspace(const ftr_kernel_call *call) {
    const int64_t *in = call->attr->resize.input, *out = call->attr->resize.output;
    return ftr__resize_axis_bytes(in[0], out[0]) + ftr__resize_axis_bytes(in[1], out[1]);
}

static ftr__resize_axis ftr__resize_axis_at(unsigned char *memory, int64_t in, int64_t out) {
    ftr__resize_axis axis = {};
    axis.in = in;
    axis.out = out;
    axis.low = reinterpret_cast<int64_t *>(memory);
    axis.high = axis.low + out;
    axis.first = axis.high + out;
    axis.share = reinterpret_cast<float *>(axis.first + in + 1);
    return axis;
}

template <typename F> static ftr_status ftr__resize_run(const ftr_kernel_call *call, F f) {
    const int64_t *in = call->attr->resize.input, *out = call->attr->resize.output;
    unsigned char *memory = static_cast<unsigned char *>(call->workspace);
    ftr__resize2d p = {};
    if (call->out[0].count == 0) return FTR_OK;
    p.axis[0] = ftr__resize_axis_at(memory, in[0], out[0]);
    p.axis[1] = ftr__resize_axis_at(memory + ftr__resize_axis_bytes(in[0], out[0]), in[1], out[1]);
    p.channels = call->out[0].shape.dim[3];
    p.nearest = call->attr->resize.mode == FTR_RESIZE_NEAREST;
    p.align_corners = call->attr->resize.align_corners;
    const ftr_status status = FTR_LAUNCH(call, ftr__resize_tables,
                                         ftr__cuda_blocks(in[0] + out[0] + in[1] + out[1] + 2), FTR__CUDA_THREADS, p);
    if (status != FTR_OK) return status;
    return ftr__for_channels(call, &call->out[0], [&](auto tag, auto width) { return f(p, tag, width); });
}

FTR__CUDA_LIB ftr_status ftr__cuda_resize2d(const ftr_kernel_call *call) {
    return ftr__resize_run(call, [&](const ftr__resize2d &p, auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const int64_t count = call->out[0].count / V;
        return FTR_LAUNCH(call, (ftr__resize_forward<T, V>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count,
                          static_cast<const T *>(call->in[0].data), static_cast<T *>(call->out[0].data));
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_resize2d_grad(const ftr_kernel_call *call) {
    return ftr__resize_run(call, [&](const ftr__resize2d &p, auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const int64_t count = call->out[0].count / V;
        return FTR_LAUNCH(call, (ftr__resize_backward<T, V>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count,
                          static_cast<const T *>(call->in[0].data), static_cast<T *>(call->out[0].data));
    });
}

/* ---- src/backend/cuda/mix.cu ---- */
/* Mixing of a batch: what is drawn, and the mixture of rows with their partners. */

/* ------------------------------------------------------------------------------------------------- numbers one by one -- */

/* As core/draw.c has them, bit by bit: products are not fused with what comes after them. */

struct ftr__cuda_draw {
    ftr__cuda_rng rng;
    uint64_t next; /* number of the stream that comes next */
};

static __device__ __forceinline__ double ftr__draw_unit_at(const ftr__cuda_rng &rng, uint64_t number) {
    const uint32_t high = ftr__cuda_rng_at(rng, number) >> 5, low = ftr__cuda_rng_at(rng, number + 1) >> 6;
    return (double)((uint64_t)high << 26 | low) * 0x1p-53;
}

static __device__ __forceinline__ double ftr__draw_unit(ftr__cuda_draw *draw) {
    const double unit = ftr__draw_unit_at(draw->rng, draw->next);
    draw->next += 2;
    return unit;
}

static __device__ __forceinline__ int64_t ftr__draw_index_of(double unit, int64_t count) {
    const int64_t index = (int64_t)__dmul_rn(unit, (double)count);
    return index < count ? index : count - 1; /* the product may have been rounded up */
}

#define FTR__DRAW_LN2_HIGH 0x1.62e42fefa38p-1 /* ends in zeros: products with small integers are exact */
#define FTR__DRAW_LN2_LOW 0x1.ef35793c7673p-45

/* x = m 2^e with m from sqrt(1/2) to sqrt(2); log m = 2 artanh s of s = (m - 1) / (m + 1), whose series has odd powers. */
static __device__ __forceinline__ double ftr__draw_log(double x) {
    int exponent;
    double m = frexp(x, &exponent);
    if (m < 0x1.6a09e667f3bcdp-1) {
        m *= 2.0;
        exponent--;
    }
    const double s = (m - 1.0) / (m + 1.0), e = (double)exponent, square = __dmul_rn(s, s);
    double series = 0.0;
    for (int i = 11; i >= 0; i--) series = __dadd_rn(1.0 / (double)(2 * i + 1), __dmul_rn(series, square));
    const double small = __dadd_rn(__dmul_rn(2.0 * s, series), __dmul_rn(e, FTR__DRAW_LN2_LOW));
    return __dadd_rn(__dmul_rn(e, FTR__DRAW_LN2_HIGH), small);
}

/* x = k log 2 + r with |r| up to log(2) / 2; e^r by Taylor's series. */
static __device__ __forceinline__ double ftr__draw_exp(double x) {
    if (x > 710.0) return (double)INFINITY;
    if (x < -746.0) return 0.0;
    const double k = floor(__dadd_rn(__dmul_rn(x, 0x1.71547652b82fep0), 0.5));
    const double first = __dadd_rn(x, -__dmul_rn(k, FTR__DRAW_LN2_HIGH));
    const double r = __dadd_rn(first, -__dmul_rn(k, FTR__DRAW_LN2_LOW));
    double sum = 0.0, factorial = 1307674368000.0; /* of 15; each is exact */
    for (int i = 15; i >= 0; i--) {
        sum = __dadd_rn(1.0 / factorial, __dmul_rn(sum, r));
        if (i > 0) factorial /= (double)i;
    }
    return ldexp(sum, (int)k);
}

static __device__ __forceinline__ double ftr__draw_normal(ftr__cuda_draw *draw) {
    double x, size;
    do {
        x = 2.0 * ftr__draw_unit(draw) - 1.0;
        const double y = 2.0 * ftr__draw_unit(draw) - 1.0;
        size = __dadd_rn(__dmul_rn(x, x), __dmul_rn(y, y));
    } while (size >= 1.0 || size == 0.0);
    return __dmul_rn(x, sqrt(__dmul_rn(-2.0, ftr__draw_log(size)) / size));
}

static __device__ __forceinline__ double ftr__draw_gamma(ftr__cuda_draw *draw, double shape) {
    const double d = shape - 1.0 / 3.0, c = 1.0 / sqrt(__dmul_rn(9.0, d));
    for (;;) {
        const double x = ftr__draw_normal(draw), base = __dadd_rn(1.0, __dmul_rn(c, x));
        const double u = 1.0 - ftr__draw_unit(draw);
        if (base <= 0.0) continue;
        const double v = __dmul_rn(__dmul_rn(base, base), base);
        const double half_square = __dmul_rn(0.5, __dmul_rn(x, x));
        const double rest = __dmul_rn(d, __dadd_rn(1.0 - v, ftr__draw_log(v)));
        if (ftr__draw_log(u) < __dadd_rn(half_square, rest)) return __dmul_rn(d, v);
    }
}

static __device__ __forceinline__ double ftr__draw_beta(ftr__cuda_draw *draw, double alpha) {
    if (alpha > 1.0) {
        const double a = ftr__draw_gamma(draw, alpha), b = ftr__draw_gamma(draw, alpha);
        return a / __dadd_rn(a, b);
    }
    for (;;) { /* by logarithms: for a small alpha both powers may be below the smallest double */
        const double u = ftr__draw_log(1.0 - ftr__draw_unit(draw)), v = ftr__draw_log(1.0 - ftr__draw_unit(draw));
        if (__dadd_rn(ftr__draw_exp(u / alpha), ftr__draw_exp(v / alpha)) <= 1.0)
            return 1.0 / __dadd_rn(1.0, ftr__draw_exp((v - u) / alpha));
    }
}

/* ----------------------------------------------------------------------------------------------------- what is drawn -- */

#define FTR__MIX_SHARED 4096 /* rows that are permuted in shared memory; more of them in the workspace */

struct ftr__mix_drawing {
    ftr__cuda_stream_name name;
    double mixup, cutmix, mixup_alpha, cutmix_alpha;
    int64_t rows, image[2];
    bool permute;
    const float *mask; /* nullptr: all rows count */
    float *weights;
    int32_t *partners, *box;
    int32_t *list, *order, *picks; /* workspace, of as many elements as rows; list: the rows that count */
};

static __device__ __forceinline__ int32_t ftr__mix_clamp(int64_t x, int64_t most) {
    return (int32_t)(x < 0 ? 0 : x > most ? most : x);
}

/* Draws the box of cutmix; returns the share of the image that it leaves. */
static __device__ __forceinline__ double ftr__mix_box(ftr__cuda_draw *draw, const ftr__mix_drawing &p, double lambda) {
    const int64_t height = p.image[0], width = p.image[1];
    const int64_t column = ftr__draw_index_of(ftr__draw_unit(draw), width);
    const int64_t row = ftr__draw_index_of(ftr__draw_unit(draw), height);
    const double half = 0.5 * sqrt(1.0 - lambda);
    const int64_t half_width = (int64_t)__dmul_rn(half, (double)width);
    const int64_t half_height = (int64_t)__dmul_rn(half, (double)height);
    const int32_t top = ftr__mix_clamp(row - half_height, height), left = ftr__mix_clamp(column - half_width, width);
    const int32_t bottom = ftr__mix_clamp(row + half_height, height),
                  right = ftr__mix_clamp(column + half_width, width);
    p.box[0] = top;
    p.box[1] = left;
    p.box[2] = bottom;
    p.box[3] = right;
    const double area = __dmul_rn((double)(bottom - top), (double)(right - left));
    return 1.0 - area / __dmul_rn((double)height, (double)width);
}

static __device__ __forceinline__ void ftr__mix_weights(ftr__cuda_draw *draw, const ftr__mix_drawing &p) {
    const double choice = ftr__draw_unit(draw);
    double image = 1.0, target = 1.0; /* own weights */
    for (int i = 0; i < 4; i++) p.box[i] = 0;
    if (choice < p.mixup)
        image = target = ftr__draw_beta(draw, p.mixup_alpha);
    else if (choice < __dadd_rn(p.mixup, p.cutmix))
        target = ftr__mix_box(draw, p, ftr__draw_beta(draw, p.cutmix_alpha));
    p.weights[0] = static_cast<float>(image);
    p.weights[1] = static_cast<float>(1.0 - image);
    p.weights[2] = static_cast<float>(target);
    p.weights[3] = static_cast<float>(1.0 - target);
}

/* Lists the rows that count, in their order; the others are their own partners. Returns how many count. `counts`: shared
 * memory, an element a warp. */
static __device__ __forceinline__ int64_t ftr__mix_list(const ftr__mix_drawing &p, int *counts) {
    const int me = (int)threadIdx.x, warp = me / FTR__CUDA_WARP, lane = me % FTR__CUDA_WARP;
    int64_t total = 0;
    for (int64_t base = 0; base < p.rows; base += FTR__CUDA_THREADS) {
        const int64_t row = base + me;
        const bool takes_part = row < p.rows && (!p.mask || p.mask[row] != 0.0f);
        const unsigned votes = __ballot_sync(FTR__CUDA_FULL, takes_part);
        if (lane == 0) counts[warp] = __popc(votes);
        __syncthreads();
        int64_t place = total + __popc(votes & ((1u << lane) - 1u));
        for (int w = 0; w < FTR__CUDA_THREADS / FTR__CUDA_WARP; w++) {
            if (w < warp) place += counts[w];
            total += counts[w];
        }
        if (takes_part)
            p.list[place] = (int32_t)row;
        else if (row < p.rows)
            p.partners[row] = (int32_t)row;
        __syncthreads();
    }
    return total;
}

/* Fisher and Yates (Durstenfeld, CACM 7, 1964): what each place changes with is drawn by all threads, one thread then changes. */
static __device__ __forceinline__ void ftr__mix_shuffle(const ftr__cuda_draw &draw, int64_t count, int32_t *order,
                                                        int32_t *picks) {
    for (int64_t i = threadIdx.x; i < count; i += FTR__CUDA_THREADS) {
        const uint64_t number = draw.next + 2 * (uint64_t)(count - 1 - i);
        order[i] = (int32_t)i;
        picks[i] = (int32_t)ftr__draw_index_of(ftr__draw_unit_at(draw.rng, number), i + 1);
    }
    __syncthreads();
    if (threadIdx.x == 0)
        for (int64_t i = count - 1; i > 0; i--) {
            const int32_t moved = order[i], pick = picks[i];
            order[i] = order[pick];
            order[pick] = moved;
        }
    __syncthreads();
}

/* One block. */
FTR__ROOMY_KERNEL ftr__mix_draw(ftr__mix_drawing p) {
    FTR_SHARED(int32_t, order, FTR__MIX_SHARED);
    FTR_SHARED(int32_t, picks, FTR__MIX_SHARED);
    FTR_SHARED(int, counts, FTR__CUDA_WARP);
    FTR_SHARED(uint64_t, next, 1);
    ftr__cuda_draw draw = {ftr__cuda_rng_of(p.name), 0};
    if (threadIdx.x == 0) {
        ftr__mix_weights(&draw, p);
        next[0] = draw.next;
    }
    const int64_t count = ftr__mix_list(p, counts);
    __syncthreads();
    draw.next = next[0];
    if (!p.permute) { /* each row that counts gets the one before it, the first of them the last */
        for (int64_t i = threadIdx.x; i < count; i += FTR__CUDA_THREADS)
            p.partners[p.list[i]] = p.list[i > 0 ? i - 1 : count - 1];
        return;
    }
    const bool fits = count <= FTR__MIX_SHARED;
    int32_t *places = fits ? order : p.order;
    ftr__mix_shuffle(draw, count, places, fits ? picks : p.picks);
    for (int64_t i = threadIdx.x; i < count; i += FTR__CUDA_THREADS) p.partners[p.list[i]] = p.list[places[i]];
}

FTR__CUDA_LIB size_t ftr__cuda_mix_draw_workspace(const ftr_kernel_call *call) {
    return 3 * static_cast<size_t>(call->attr->mix.rows) * sizeof(int32_t);
}

FTR__CUDA_LIB ftr_status ftr__cuda_mix_draw(const ftr_kernel_call *call) {
    const ftr_op_attr *a = call->attr;
    ftr__mix_drawing p = {};
    p.name = ftr__cuda_stream_of(call, FTR__CUDA_RNG_MIX, a->mix.key);
    p.mixup = a->mix.mixup;
    p.cutmix = a->mix.cutmix;
    p.mixup_alpha = a->mix.mixup_alpha;
    p.cutmix_alpha = a->mix.cutmix_alpha;
    p.rows = a->mix.rows;
    p.image[0] = a->mix.image[0];
    p.image[1] = a->mix.image[1];
    p.permute = a->mix.pairs == FTR_MIX_PERMUTE;
    p.mask = ftr__optional_data<float>(call, 0);
    p.weights = static_cast<float *>(call->out[0].data);
    p.partners = static_cast<int32_t *>(call->out[1].data);
    p.box = static_cast<int32_t *>(call->out[2].data);
    p.list = static_cast<int32_t *>(call->workspace);
    p.order = p.list + p.rows;
    p.picks = p.order + p.rows;
    return FTR_LAUNCH(call, ftr__mix_draw, 1, FTR__CUDA_THREADS, p);
}

/* ----------------------------------------------------------------------------------------------------------- mixing -- */

/* A batch is n samples of `lines` lines; with a box a line is a row of pixels, `pixel` elements each. */
struct ftr__mixing {
    ftr__cuda_reporter reporter;
    int64_t rows, lines, length, pixel;
    const float *weights;          /* own, other */
    const int32_t *partners, *box; /* box: nullptr if there is none */
    const int32_t *first, *next;   /* of the gradient: lists of the rows that a row is the partner of; -1 ends */
};

static ftr__mixing ftr__mixing_of(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0];
    ftr__mixing p = {};
    p.reporter = ftr__cuda_reporter_of(call);
    p.weights = static_cast<const float *>(call->in[1].data) + (call->attr->mix.targets ? 2 : 0);
    p.partners = static_cast<const int32_t *>(call->in[2].data);
    p.box = ftr__optional_data<int32_t>(call, 3);
    p.rows = x->shape.dim[0];
    p.lines = p.box ? x->shape.dim[1] : 1;
    if (x->count == 0) return p;
    p.length = x->count / (p.rows * p.lines);
    p.pixel = p.box ? p.length / x->shape.dim[2] : 1;
    return p;
}

/* The lines and the elements of a line that are in the box; a box that does not fit is reported, and none. */
struct ftr__mix_bounds {
    int64_t top, bottom, left, right;
};

static __device__ __forceinline__ ftr__mix_bounds ftr__mix_bounds_of(const ftr__mixing &p) {
    if (!p.box) return {0, 0, 0, 0};
    const int64_t top = p.box[0], left = p.box[1], bottom = p.box[2], right = p.box[3], width = p.length / p.pixel;
    const bool rows = top >= 0 && top <= bottom && bottom <= p.lines;
    const bool columns = left >= 0 && left <= right && right <= width;
    if (rows && columns) return {top, bottom, left * p.pixel, right * p.pixel};
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        if (!rows)
            ftr__report(p.reporter, FTR__CUDA_FAULT_BOX_ROWS, top, bottom, p.lines);
        else
            ftr__report(p.reporter, FTR__CUDA_FAULT_BOX_COLUMNS, left, right, width);
    }
    return {0, 0, 0, 0};
}

/* A weight of 0 gives 0 whatever x is. */
static __device__ __forceinline__ float ftr__mix_share(float weight, float x) {
    return weight == 0.0f ? 0.0f : weight * x;
}

/* V elements lie in one line. */
template <typename T, int V> FTR__KERNEL ftr__mix_forward(ftr__mixing p, int64_t count, const T *x, T *y) {
    const ftr__mix_bounds box = ftr__mix_bounds_of(p);
    const float own = p.weights[0], other = p.weights[1];
    const int64_t packs = p.length / V;
    FTR__GRID_LOOP(i, count) {
        const int64_t line = i / packs, at = (i - line * packs) * V, row = line / p.lines,
                      in_row = line - row * p.lines;
        const int64_t partner = p.partners[row];
        const bool there = ftr__in_range(p.reporter, FTR__CUDA_FAULT_PARTNER, partner, row, p.rows);
        const bool crossed = in_row >= box.top && in_row < box.bottom;
        float a[V], b[V] = {};
        ftr__load_vector<T, V>(x + i * V, a);
        if (there && (other != 0.0f || crossed))
            ftr__load_vector<T, V>(x + (partner * p.lines + in_row) * p.length + at, b);
        FTR__UNROLL
        for (int k = 0; k < V; k++) {
            const bool inside = crossed && at + k >= box.left && at + k < box.right;
            a[k] = inside ? b[k] : ftr__mix_share(own, a[k]) + ftr__mix_share(other, b[k]);
        }
        ftr__store_vector<T, V>(y + i * V, a);
    }
}

/* The first row that a row is the partner of, and the next one with the same partner as a row. */
FTR__KERNEL ftr__mix_lists(ftr__mixing p, int32_t *first, int32_t *next) {
    FTR__GRID_LOOP(i, p.rows) {
        const int32_t partner = p.partners[i];
        (void)ftr__in_range(p.reporter, FTR__CUDA_FAULT_PARTNER, partner, i, p.rows);
        int64_t a = 0, b = i + 1;
        while (a < p.rows && p.partners[a] != i) a++;
        while (b < p.rows && p.partners[b] != partner) b++;
        first[i] = a < p.rows ? (int32_t)a : -1;
        next[i] = b < p.rows ? (int32_t)b : -1;
    }
}

/* dx = own dy outside the box, plus of each row that this one is the partner of, in their order, other dy outside and dy
 * inside. */
template <typename T, int V> FTR__KERNEL ftr__mix_backward(ftr__mixing p, int64_t count, const T *dy, T *dx) {
    const ftr__mix_bounds box = ftr__mix_bounds_of(p);
    const float own = p.weights[0], other = p.weights[1];
    const int64_t packs = p.length / V;
    FTR__GRID_LOOP(i, count) {
        const int64_t line = i / packs, at = (i - line * packs) * V, row = line / p.lines,
                      in_row = line - row * p.lines;
        const bool crossed = in_row >= box.top && in_row < box.bottom;
        float sum[V];
        ftr__load_vector<T, V>(dy + i * V, sum);
        FTR__UNROLL
        for (int k = 0; k < V; k++) {
            const bool inside = crossed && at + k >= box.left && at + k < box.right;
            sum[k] = inside ? 0.0f : ftr__mix_share(own, sum[k]);
        }
        for (int32_t from = p.first[row]; from >= 0; from = p.next[from]) {
            float d[V];
            ftr__load_vector<T, V>(dy + (from * p.lines + in_row) * p.length + at, d);
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                const bool inside = crossed && at + k >= box.left && at + k < box.right;
                sum[k] += inside ? d[k] : ftr__mix_share(other, d[k]);
            }
        }
        ftr__store_vector<T, V>(dx + i * V, sum);
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_mix(const ftr_kernel_call *call) {
    const ftr__mixing p = ftr__mixing_of(call);
    if (call->in[0].count == 0) return FTR_OK;
    return ftr__for_vectors(call, call->in[0].dtype, p.length, [&](auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const int64_t count = call->out[0].count / V;
        return FTR_LAUNCH(call, (ftr__mix_forward<T, V>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count,
                          static_cast<const T *>(call->in[0].data), static_cast<T *>(call->out[0].data));
    });
}

FTR__CUDA_LIB size_t ftr__cuda_mix_grad_workspace(const ftr_kernel_call *call) {
    return static_cast<size_t>(call->in[0].shape.dim[0]) * 2 * sizeof(int32_t);
}

FTR__CUDA_LIB ftr_status ftr__cuda_mix_grad(const ftr_kernel_call *call) {
    ftr__mixing p = ftr__mixing_of(call);
    if (call->in[0].count == 0) return FTR_OK;
    int32_t *first = static_cast<int32_t *>(call->workspace), *next = first + p.rows;
    p.first = first;
    p.next = next;
    const ftr_status status =
        FTR_LAUNCH(call, ftr__mix_lists, ftr__cuda_blocks(p.rows), FTR__CUDA_THREADS, p, first, next);
    if (status != FTR_OK) return status;
    return ftr__for_vectors(call, call->in[0].dtype, p.length, [&](auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const int64_t count = call->out[0].count / V;
        return FTR_LAUNCH(call, (ftr__mix_backward<T, V>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count,
                          static_cast<const T *>(call->in[0].data), static_cast<T *>(call->out[0].data));
    });
}

/* ---- src/backend/cuda/rotary.cu ---- */
/* Rotary positions: pairs of elements of [n, t, heads, d] are turned by angles that grow with the position. */

struct ftr__rotary {
    int64_t t, heads, d, half, first; /* half: pairs of a head */
    double base;
    bool interleaved, inverse;
    float2 *turn; /* [t][half]: cosine, sine */
};

/* Angles are large numbers for late positions: they are computed in double, once for all heads and samples. */
FTR__KERNEL ftr__rotary_table(ftr__rotary p) {
    FTR__GRID_LOOP(i, p.t * p.half) {
        const int64_t position = i / p.half, pair = i - position * p.half;
        const double angle = (double)(p.first + position) * pow(p.base, -(double)pair / (double)p.half);
        float2 turn;
        turn.x = static_cast<float>(cos(angle));
        turn.y = static_cast<float>(p.inverse ? -sin(angle) : sin(angle));
        p.turn[i] = turn;
    }
}

/* A thread has a pair, then one of the elements that are not turned. y may be x. */
template <typename T> FTR__KERNEL ftr__rotary_turn(ftr__rotary p, int64_t count, const T *x, T *y) {
    const int64_t slots = p.d - p.half;
    FTR__GRID_LOOP(i, count) {
        const int64_t row = i / slots, slot = i - row * slots;
        const T *from = x + row * p.d;
        T *to = y + row * p.d;
        if (slot >= p.half) {
            to[slot + p.half] = from[slot + p.half];
            continue;
        }
        const float2 turn = p.turn[row / p.heads % p.t * p.half + slot];
        const int64_t first = p.interleaved ? 2 * slot : slot, second = first + (p.interleaved ? 1 : p.half);
        const float a = ftr__to_float(from[first]), b = ftr__to_float(from[second]);
        to[first] = ftr__from_float<T>(a * turn.x - b * turn.y);
        to[second] = ftr__from_float<T>(b * turn.x + a * turn.y);
    }
}

static ftr__rotary ftr__rotary_of(const ftr_kernel_call *call) {
    const ftr_shape *x = &call->in[0].shape;
    ftr__rotary p = {};
    p.t = x->dim[1];
    p.heads = x->dim[2];
    p.d = x->dim[3];
    p.half = call->attr->rotary.dims / 2;
    p.first = call->attr->rotary.first;
    p.base = call->attr->rotary.base;
    p.interleaved = call->attr->rotary.interleaved;
    p.inverse = call->attr->rotary.inverse;
    p.turn = static_cast<float2 *>(call->workspace);
    return p;
}

FTR__CUDA_LIB size_t ftr__cuda_rotary_workspace(const ftr_kernel_call *call) {
    const ftr__rotary p = ftr__rotary_of(call);
    return static_cast<size_t>(p.t * p.half) * sizeof(float2);
}

FTR__CUDA_LIB ftr_status ftr__cuda_rotary(const ftr_kernel_call *call) {
    const ftr__rotary p = ftr__rotary_of(call);
    if (call->out[0].count == 0) return FTR_OK;
    const ftr_status status = FTR_LAUNCH(call, ftr__rotary_table, ftr__cuda_blocks(p.t * p.half), FTR__CUDA_THREADS, p);
    if (status != FTR_OK) return status;
    const int64_t count = call->out[0].count / p.d * (p.d - p.half);
    return ftr__for_real(call, call->out[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        return FTR_LAUNCH(call, (ftr__rotary_turn<T>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count,
                          static_cast<const T *>(call->in[0].data), static_cast<T *>(call->out[0].data));
    });
}

/* ---- src/backend/cuda/blas.cu ---- */
/* Matrix products: by cuBLASLt, or by tiles of our own where it has nothing.
 *
 * cuBLASLt's matrices are stored by columns. A row-major matrix is its transpose there, so what it is asked for is
 * D^T = op(B)^T op(A)^T: its A is our B, its m is our n, and its bias, one for each row, is that of our columns.
 *
 * The same bits always: the algorithm is the first of the heuristic's for sizes, types and alignment; what is split along k is
 * summed up from f32 parts in a step of its own. */

#include <cublasLt.h>

#include <climits>

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

/*
MIT License

Copyright (c) 2026 The fasttrain authors

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
*/
