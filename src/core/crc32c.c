/* A CRC is the remainder of a polynomial over GF(2). Polynomials are reflected: bit 31 of a word is the power x^0. The
 * table version serves CPUs without the instruction. */
#include "core/crc32c.h"

#include <string.h>

#if defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

#define FTR__CRC32C_POLYNOMIAL 0x82f63b78u

/* -------------------------------------------------------------------------------------------------------- tables -- */

/* Entry n of a table is a sum over the bits of n, because remainders are linear: the arguments are entries 1, 2, 4 ...
 * */
#define FTR__CRC32C_1(n, a, b, c, d, e, f, g, h)                                                                       \
    (((n)&1 ? a : 0) ^ ((n)&2 ? b : 0) ^ ((n)&4 ? c : 0) ^ ((n)&8 ? d : 0) ^ ((n)&16 ? e : 0) ^ ((n)&32 ? f : 0) ^     \
     ((n)&64 ? g : 0) ^ ((n)&128 ? h : 0))
#define FTR__CRC32C_4(n, ...)                                                                                          \
    FTR__CRC32C_1(n, __VA_ARGS__), FTR__CRC32C_1((n) + 1, __VA_ARGS__), FTR__CRC32C_1((n) + 2, __VA_ARGS__),           \
        FTR__CRC32C_1((n) + 3, __VA_ARGS__)
#define FTR__CRC32C_16(n, ...)                                                                                         \
    FTR__CRC32C_4(n, __VA_ARGS__), FTR__CRC32C_4((n) + 4, __VA_ARGS__), FTR__CRC32C_4((n) + 8, __VA_ARGS__),           \
        FTR__CRC32C_4((n) + 12, __VA_ARGS__)
#define FTR__CRC32C_64(n, ...)                                                                                         \
    FTR__CRC32C_16(n, __VA_ARGS__), FTR__CRC32C_16((n) + 16, __VA_ARGS__), FTR__CRC32C_16((n) + 32, __VA_ARGS__),      \
        FTR__CRC32C_16((n) + 48, __VA_ARGS__)
#define FTR__CRC32C_ROW(...)                                                                                           \
    FTR__CRC32C_64(0, __VA_ARGS__), FTR__CRC32C_64(64, __VA_ARGS__), FTR__CRC32C_64(128, __VA_ARGS__),                 \
        FTR__CRC32C_64(192, __VA_ARGS__)

/* Slicing by 8 (Kounavis and Berry: A Systematic Approach to Building High Performance Software-based CRC Generators,
 * ISCC 2005): table k has the remainders of a byte with k zero bytes behind it. */
static const uint32_t ftr__crc32c_tables[8][256] = {
    {FTR__CRC32C_ROW(0xf26b8303u, 0xe13b70f7u, 0xc79a971fu, 0x8ad958cfu, 0x105ec76fu, 0x20bd8edeu, 0x417b1dbcu,
                     0x82f63b78u)},
    {FTR__CRC32C_ROW(0x13a29877u, 0x274530eeu, 0x4e8a61dcu, 0x9d14c3b8u, 0x3fc5f181u, 0x7f8be302u, 0xff17c604u,
                     0xfbc3faf9u)},
    {FTR__CRC32C_ROW(0xa541927eu, 0x4f6f520du, 0x9edea41au, 0x38513ec5u, 0x70a27d8au, 0xe144fb14u, 0xc76580d9u,
                     0x8b277743u)},
    {FTR__CRC32C_ROW(0xdd45aab8u, 0xbf672381u, 0x7b2231f3u, 0xf64463e6u, 0xe964b13du, 0xd725148bu, 0xaba65fe7u,
                     0x52a0c93fu)},
    {FTR__CRC32C_ROW(0x38116facu, 0x7022df58u, 0xe045beb0u, 0xc5670b91u, 0x8f2261d3u, 0x1ba8b557u, 0x37516aaeu,
                     0x6ea2d55cu)},
    {FTR__CRC32C_ROW(0xef306b19u, 0xdb8ca0c3u, 0xb2f53777u, 0x6006181fu, 0xc00c303eu, 0x85f4168du, 0x0e045bebu,
                     0x1c08b7d6u)},
    {FTR__CRC32C_ROW(0x68032cc8u, 0xd0065990u, 0xa5e0c5d1u, 0x4e2dfd53u, 0x9c5bfaa6u, 0x3d5b83bdu, 0x7ab7077au,
                     0xf56e0ef4u)},
    {FTR__CRC32C_ROW(0x493c7d27u, 0x9278fa4eu, 0x211d826du, 0x423b04dau, 0x847609b4u, 0x0d006599u, 0x1a00cb32u,
                     0x34019664u)},
};

static uint32_t ftr__crc32c_bytes(uint32_t state, const unsigned char *data, size_t size) {
    for (size_t i = 0; i < size; i++) state = state >> 8 ^ ftr__crc32c_tables[0][(state ^ data[i]) & 0xffu];
    return state;
}

uint32_t ftr__crc32c_portable(uint32_t before, const void *data, size_t size) {
    const uint32_t(*table)[256] = ftr__crc32c_tables;
    const unsigned char *bytes = data;
    uint32_t state = ~before;
    for (; size >= 8; size -= 8, bytes += 8) {
        uint32_t low, high;
        memcpy(&low, bytes, sizeof low);
        memcpy(&high, bytes + 4, sizeof high);
        low ^= state;
        state = table[7][low & 0xffu] ^ table[6][low >> 8 & 0xffu] ^ table[5][low >> 16 & 0xffu] ^ table[4][low >> 24] ^
                table[3][high & 0xffu] ^ table[2][high >> 8 & 0xffu] ^ table[1][high >> 16 & 0xffu] ^
                table[0][high >> 24];
    }
    return ~ftr__crc32c_bytes(state, bytes, size);
}

/* -------------------------------------------------------------------------------------------------- instructions -- */

#if defined(__x86_64__)
#define FTR__CRC32C_TARGET __attribute__((target("sse4.2")))
#define FTR__CRC32C_WORD(state, word) __builtin_ia32_crc32di(state, word)
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#define FTR__CRC32C_TARGET
#define FTR__CRC32C_WORD(state, word) __crc32cd((uint32_t)(state), word)
#endif

#ifdef FTR__CRC32C_WORD

/* a b modulo the polynomial. */
static uint32_t ftr__crc32c_multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (int power = 31; power >= 0; power--) {
        product ^= b & (0u - (a >> power & 1u));
        b = b >> 1 ^ (FTR__CRC32C_POLYNOMIAL & (0u - (b & 1u)));
    }
    return product;
}

/* x^(8 bytes): what a remainder is multiplied with when that many bytes follow. */
static uint32_t ftr__crc32c_shift(uint64_t bytes) {
    uint32_t result = (uint32_t)1 << 31, square = (uint32_t)1 << 23;
    for (; bytes > 0; bytes >>= 1) {
        if (bytes & 1) result = ftr__crc32c_multiply(result, square);
        square = ftr__crc32c_multiply(square, square);
    }
    return result;
}

/* Three streams side by side, because the instruction takes three cycles and one may start each cycle. */
#define FTR__CRC32C_LANE ((size_t)8192)

FTR__CRC32C_TARGET static uint32_t ftr__crc32c_fast(uint32_t before, const unsigned char *bytes, size_t size) {
    uint64_t a = ~before, word[3];
    const uint32_t shift = size >= 3 * FTR__CRC32C_LANE ? ftr__crc32c_shift(FTR__CRC32C_LANE) : 0;
    for (; size >= 3 * FTR__CRC32C_LANE; size -= 3 * FTR__CRC32C_LANE, bytes += 3 * FTR__CRC32C_LANE) {
        uint64_t b = 0, c = 0;
        for (size_t i = 0; i < FTR__CRC32C_LANE; i += 8) {
            memcpy(&word[0], bytes + i, 8);
            memcpy(&word[1], bytes + FTR__CRC32C_LANE + i, 8);
            memcpy(&word[2], bytes + 2 * FTR__CRC32C_LANE + i, 8);
            a = FTR__CRC32C_WORD(a, word[0]);
            b = FTR__CRC32C_WORD(b, word[1]);
            c = FTR__CRC32C_WORD(c, word[2]);
        }
        a = ftr__crc32c_multiply(shift, (uint32_t)a) ^ b;
        a = ftr__crc32c_multiply(shift, (uint32_t)a) ^ c;
    }
    for (; size >= 8; size -= 8, bytes += 8) {
        memcpy(&word[0], bytes, 8);
        a = FTR__CRC32C_WORD(a, word[0]);
    }
    return ~ftr__crc32c_bytes((uint32_t)a, bytes, size);
}

#endif

uint32_t ftr__crc32c(uint32_t before, const void *data, size_t size) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("sse4.2")) return ftr__crc32c_fast(before, data, size);
#elif defined(FTR__CRC32C_WORD)
    return ftr__crc32c_fast(before, data, size);
#endif
    return ftr__crc32c_portable(before, data, size);
}
