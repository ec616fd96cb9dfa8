/* The random numbers of core/rng.h on the device: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy
 * as 1, 2, 3, SC 2011). */
#ifndef FTR_BACKEND_CUDA_RANDOM_CUH
#define FTR_BACKEND_CUDA_RANDOM_CUH

#include "backend/cuda/cuda.cuh"

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

#endif
