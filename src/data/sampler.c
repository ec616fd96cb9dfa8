/* The order of samples: a permutation that is computed, not stored. A balanced Feistel network over 2h bits is a
 * bijection of 0 .. 4^h - 1 whatever its round function is (Luby and Rackoff: How to Construct Pseudorandom
 * Permutations, SIAM J. Comput. 17, 1988); values outside 0 .. count - 1 are sent through it again until one is inside,
 * which keeps it a bijection there (cycle walking; Black and Rogaway: Ciphers with Arbitrary Finite Domains, CT-RSA
 * 2002). */
#include "core/rng.h"

/* Four rounds are pseudorandom for large halves; small counts need more before all orders come out alike. */
#define FTR__SHUFFLE_ROUNDS 12

/* Half the bits of the smallest domain that holds `count` values; at least FTR__SHUFFLE_MIN_BITS. */
#define FTR__SHUFFLE_MIN_BITS 3
static int ftr__shuffle_half_bits(uint64_t count) {
    int half = FTR__SHUFFLE_MIN_BITS;
    while (half < 32 && ((uint64_t)1 << (2 * half)) < count) half++;
    return half;
}

/* One pass through the network. Round r takes number r << 32 | right of the epoch's stream. */
static uint64_t ftr__shuffle_pass(const ftr__rng *rng, int half, uint64_t value) {
    uint64_t mask = ((uint64_t)1 << half) - 1;
    uint64_t left = value >> half, right = value & mask;
    for (uint64_t round = 0; round < FTR__SHUFFLE_ROUNDS; round++) {
        uint64_t next = left ^ (ftr__rng_at(rng, round << 32 | right) & mask);
        left = right;
        right = next;
    }
    return left << half | right;
}

int64_t ftr_shuffled_index(uint64_t seed, uint64_t epoch, int64_t position, int64_t count) {
    if (position < 0 || position >= count) return -1;
    ftr__rng rng = ftr__rng_make(seed, FTR__RNG_SHUFFLE, epoch, 0);
    int half = ftr__shuffle_half_bits((uint64_t)count);
    uint64_t value = (uint64_t)position;
    do value = ftr__shuffle_pass(&rng, half, value);
    while (value >= (uint64_t)count);
    return (int64_t)value;
}
