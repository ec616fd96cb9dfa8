/* A SIMT machine in a C++ program: the kernels of src/backend/cuda/, compiled by g++ or clang++ with this header in front
 * (-include), run on the CPU. Each CUDA thread is a fiber; the blocks of a grid run one after another.
 *
 * What is checked, and reported through ftr_emu::report():
 *   launches     the limits of a device (threads a block, grid, shared memory), and the kernel's own FTR_THREADS
 *   barriers     __syncthreads() that only some threads of a block reach, or from different lines; a warp's exchange
 *                that lacks a lane of its mask
 *   shared       reads of bytes that nothing wrote since the block began, accesses behind an array, and races: two
 *                threads at one byte between two barriers, one of them writing
 *   global       accesses outside of device memory, reads of bytes that nothing wrote, and races between the threads of
 *                a launch
 *
 * Accesses are seen where the compiler calls the __tsan_* functions (-fsanitize=thread when a kernel's file is compiled, not
 * when the program is linked; emulator.cpp has the functions). Without, a build under AddressSanitizer sees what it sees. */
#ifndef FTR_TESTS_CUDA_EMULATOR_H
#define FTR_TESTS_CUDA_EMULATOR_H

/* All of CUDA's headers that kernels use, before their words get another meaning. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define FTR_EMULATOR 1

namespace ftr_emu {

struct thread; /* a fiber */

/* Of the thread that runs. */
struct place {
    uint3 thread, block;
    dim3 block_size, grid_size;
};
extern place here;

/* A kernel's launch, with its arguments bound. */
struct launch {
    const char *kernel;
    dim3 grid, block;
    size_t shared; /* dynamic, bytes */
    int limit;     /* most threads a block, of the kernel's launch bounds */
    std::function<void()> body;
};

/* Runs all blocks. Called by the runtime double when the launch's turn has come. */
void run(const launch &what);

/* In the runtime double: puts a launch into a stream. */
cudaError_t enqueue(const launch &what, cudaStream_t stream);

/* Memory of an array in shared memory, the same for all threads of a block; `site` tells arrays apart. */
void *shared_array(const void *site, size_t bytes, size_t alignment);
void *dynamic_shared();

void barrier(const void *site);
int barrier_count(const void *site, int predicate);
/* Exchanges 8 bytes with another lane of the warp: `source` is the lane to read from; out of 0 to 31: one's own. */
uint64_t exchange(unsigned mask, uint64_t value, int source, const void *site);
unsigned ballot(unsigned mask, bool predicate, const void *site);
int lane();

/* A fault: counted, and kept with the first ones' texts. */
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));
int reports();
const char *first_report();
void clear_reports();

/* Device memory for the checks of global accesses; from the runtime double. Bytes written by the host are marked so. */
void memory_added(const void *begin, size_t bytes);
void memory_removed(const void *begin);
void memory_written(const void *begin, size_t bytes);
/* Whether the range lies in one piece of device memory. */
bool memory_holds(const void *begin, size_t bytes);

/* An access that is one step with regard to others of its kind. */
void atomic_access(const void *address, size_t bytes);

template <typename T> T exchange_as(unsigned mask, T value, int source, const void *site) {
    static_assert(sizeof(T) <= 8, "a lane exchanges 8 bytes at most");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = exchange(mask, bits, source, site);
    memcpy(&value, &bits, sizeof value);
    return value;
}

} // namespace ftr_emu

/* ------------------------------------------------------------------------------------------------ device vocabulary -- */

#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __launch_bounds__
#undef __restrict__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

#define threadIdx (ftr_emu::here.thread)
#define blockIdx (ftr_emu::here.block)
#define blockDim (ftr_emu::here.block_size)
#define gridDim (ftr_emu::here.grid_size)

#define FTR_EMU_SITE (__builtin_return_address(0))

/* A line of code, as an address. */
#define FTR_EMU_HERE() \
    ([]() -> const void * { \
        static const char site = 0; \
        return &site; \
    }())

#define __syncthreads() ftr_emu::barrier(FTR_EMU_HERE())
#define __syncthreads_count(predicate) ftr_emu::barrier_count(FTR_EMU_HERE(), (predicate) ? 1 : 0)
#define __syncthreads_or(predicate) (ftr_emu::barrier_count(FTR_EMU_HERE(), (predicate) ? 1 : 0) > 0)
#define __syncwarp(...) ((void)ftr_emu::exchange(0xffffffffu, 0, -1, FTR_EMU_HERE()))
#define __shfl_sync(mask, value, source) ftr_emu::exchange_as(mask, value, (source)&31, FTR_EMU_HERE())
#define __shfl_xor_sync(mask, value, bits) ftr_emu::exchange_as(mask, value, ftr_emu::lane() ^ (bits), FTR_EMU_HERE())
#define __shfl_down_sync(mask, value, by) ftr_emu::exchange_as(mask, value, ftr_emu::lane() + (int)(by), FTR_EMU_HERE())
#define __shfl_up_sync(mask, value, by) ftr_emu::exchange_as(mask, value, ftr_emu::lane() - (int)(by), FTR_EMU_HERE())
#define __ballot_sync(mask, predicate) ftr_emu::ballot(mask, predicate, FTR_EMU_HERE())
#define __any_sync(mask, predicate) (ftr_emu::ballot(mask, predicate, FTR_EMU_HERE()) != 0)
#define __all_sync(mask, predicate) (ftr_emu::ballot(mask, !(predicate), FTR_EMU_HERE()) == 0)

template <typename T> inline T min(T a, T b) { return b < a ? b : a; }
template <typename T> inline T max(T a, T b) { return a < b ? b : a; }
template <typename T> inline T __ldg(const T *address) { return *address; }
inline void __threadfence() {}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz((unsigned)bits) : 32; }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((uint64_t)a * b) >> 32); }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
inline float rsqrtf(float a) { return 1.0f / __builtin_sqrtf(a); }
inline float __int_as_float(int bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
inline int __float_as_int(float value) {
    int bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Their accesses are known by atomic_access() alone. */
#define FTR_EMU_ATOMIC __attribute__((noinline, no_sanitize("thread")))

template <typename T> FTR_EMU_ATOMIC T ftr_emu_fetch_add(T *address, T value) {
    ftr_emu::atomic_access(address, sizeof *address);
    const T old = *(volatile T *)address;
    *(volatile T *)address = (T)(old + value);
    return old;
}
#define atomicAdd(address, value) ftr_emu_fetch_add(address, value)
template <typename T> FTR_EMU_ATOMIC T atomicMax(T *address, T value) {
    ftr_emu::atomic_access(address, sizeof *address);
    const T old = *(volatile T *)address;
    if (value > old) *(volatile T *)address = value;
    return old;
}
template <typename T> FTR_EMU_ATOMIC T atomicOr(T *address, T value) {
    ftr_emu::atomic_access(address, sizeof *address);
    const T old = *(volatile T *)address;
    *(volatile T *)address = old | value;
    return old;
}

/* Shared memory and launches: src/backend/cuda/kernel.cuh has their form for nvcc. */
#define FTR_SHARED(type, name, count) \
    static const char name##_site = 0; \
    type *const name = (type *)ftr_emu::shared_array(&name##_site, sizeof(type) * (size_t)(count), alignof(type))
#define FTR_DYNAMIC_SHARED(type, name) type *const name = (type *)ftr_emu::dynamic_shared()

template <typename... P, typename... A>
inline cudaError_t ftr_emu_launch(const char *name, void (*kernel)(P...), int limit, dim3 grid, dim3 block,
                                  size_t shared, cudaStream_t stream, A... arguments) {
    return ftr_emu::enqueue({name, grid, block, shared, limit, [=]() { kernel(arguments...); }}, stream);
}

#endif
