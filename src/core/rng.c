#include "core/rng.h"

void ftr__philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        const uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        const uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The key is what tells runs and purposes apart: one Philox block of (seed, purpose). What differs inside a run, stream and
 * substream, is hashed by a second block into the key and the counter's upper half. */
ftr__rng ftr__rng_make(uint64_t seed, ftr__rng_purpose purpose, uint64_t stream, uint64_t substream) {
    const uint32_t seed_key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t purpose_counter[4] = {(uint32_t)purpose, 0, 0, 0x66747221u};
    uint32_t purpose_block[4], block[4];
    ftr__philox(purpose_counter, seed_key, purpose_block);
    const uint32_t stream_counter[4] = {(uint32_t)stream, (uint32_t)(stream >> 32), (uint32_t)substream,
                                        (uint32_t)(substream >> 32)};
    ftr__philox(stream_counter, purpose_block, block);
    return (ftr__rng){.key = {block[0], block[1]}, .stream = {block[2], block[3]}};
}

void ftr__rng_block(const ftr__rng *rng, uint64_t block, uint32_t out[4]) {
    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), rng->stream[0], rng->stream[1]};
    ftr__philox(counter, rng->key, out);
}

uint32_t ftr__rng_at(const ftr__rng *rng, uint64_t index) {
    uint32_t out[4];
    ftr__rng_block(rng, index / 4, out);
    return out[index % 4];
}

double ftr__rng_uniform(uint32_t bits) { return (double)(bits >> 8) * (1.0 / 16777216.0); }

uint64_t ftr__dropout_threshold(double p) { return (uint64_t)(p * 4294967296.0); }

uint64_t ftr__hash(const char *text) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    return hash;
}
