/* What every file of the CUDA backend uses: its state, errors, types of elements, launches. It sees no more of fasttrain than the
 * public headers.
 *
 * Kernels keep to what the emulator of tests/cuda/ has: launches go through FTR_LAUNCH, shared memory is declared by FTR_SHARED
 * (the same at each place for all threads), blocks have at most FTR__CUDA_THREADS threads and a multiple of 32. */
#ifndef FTR_BACKEND_CUDA_CUDA_CUH
#define FTR_BACKEND_CUDA_CUDA_CUH

#include "api/cuda.h"

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

#endif
