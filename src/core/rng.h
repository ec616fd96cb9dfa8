/* Counter-based random numbers: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3,
 * SC 2011). A stream is named by (seed, purpose, stream); a position in it is a 128-bit counter. */
#ifndef FTR_CORE_RNG_H
#define FTR_CORE_RNG_H

#include "core/core.h"

typedef enum ftr__rng_purpose {
    FTR__RNG_INIT = 1, /* stream: hash of the parameter's name */
    FTR__RNG_DROPOUT,  /* dropout and stochastic depth; stream: the node's key */
    FTR__RNG_SHUFFLE,  /* stream: epoch */
    FTR__RNG_TENSOR,   /* random tensors; stream: the node's key */
    FTR__RNG_MIX,      /* mixing of a batch; stream: the node's key */
    FTR__RNG_SPLIT     /* splits of samples; stream: what for */
} ftr__rng_purpose;

typedef struct ftr__rng {
    uint32_t key[2];
    uint32_t stream[2]; /* upper half of the counter */
} ftr__rng;

/* The raw generator: 10 rounds. */
FTR_LIB void ftr__philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* A stream. Two different (seed, purpose, stream, substream) give independent numbers. The substream is the step, say. */
FTR_LIB ftr__rng ftr__rng_make(uint64_t seed, ftr__rng_purpose purpose, uint64_t stream, uint64_t substream);

/* The four numbers of block `block`. */
FTR_LIB void ftr__rng_block(const ftr__rng *rng, uint64_t block, uint32_t out[4]);

/* Number `index` of the stream: element index % 4 of block index / 4. */
FTR_LIB uint32_t ftr__rng_at(const ftr__rng *rng, uint64_t index);

/* [0, 1) with 24 bits, exact in f32. */
FTR_LIB double ftr__rng_uniform(uint32_t bits);

/* Dropout's rule, shared by every backend: an element is dropped when its number is below this threshold, p * 2^32.
 * p == 1 drops all. The element with row-major index i uses number i of the stream (seed, FTR__RNG_DROPOUT, key, step);
 * of stochastic depth it is row i of the leading dimension. */
FTR_LIB uint64_t ftr__dropout_threshold(double p);

/* The rule of random tensors, shared by every backend. The element with row-major index i comes from the numbers of block
 * i / 4 of the stream (seed, FTR__RNG_TENSOR, key, step), each made a number u in [0, 1) by ftr__rng_uniform(): uniform is
 * low + (high - low) u of number i % 4, in f32 below high. Normal is mean + std z, z by Box and Muller (1958) from the pair
 * of numbers 0 and 1 or 2 and 3: with r = sqrt(-2 log(1 - u)) of the first and v the second, r cos(2 pi v) for an even i and
 * r sin(2 pi v) for an odd one. */

/* The rule of mix_draw, shared by every backend; units and the rest as in core/draw.h, from the stream (seed, FTR__RNG_MIX,
 * key, step). A unit below `mixup` means mixup, one below mixup + cutmix cutmix, any other nothing. Then come lambda, of
 * Beta(alpha, alpha); for cutmix the box's middle, column and row, as indices; for pairs that are permuted, from the last of
 * the rows that count to the second, the index of the one that it changes places with, among those up to it. What is not
 * needed is not drawn. */

/* FNV-1a, for names. */
FTR_LIB uint64_t ftr__hash(const char *text);

#endif
