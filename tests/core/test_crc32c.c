/* CRC-32C: known answers, both implementations, texts in pieces. */
#ifdef FTR_TEST_SINGLE
#define FASTTRAIN_IMPLEMENTATION
#endif
#include "ftr_test.h"
#ifndef FTR_TEST_SINGLE
#include "core/crc32c.h"
#endif

/* The definition: a bit at a time. */
static uint32_t bitwise(const unsigned char *data, size_t size) {
    uint32_t state = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        state ^= data[i];
        for (int bit = 0; bit < 8; bit++) state = state & 1 ? state >> 1 ^ 0x82f63b78u : state >> 1;
    }
    return ~state;
}

static uint32_t both(const void *data, size_t size) {
    const uint32_t crc = ftr__crc32c(0, data, size);
    assert_int_equal(ftr__crc32c_portable(0, data, size), crc);
    return crc;
}

static void known_answers(void **state) {
    (void)state;
    unsigned char bytes[32];
    assert_int_equal(both("", 0), 0);
    assert_int_equal(both("123456789", 9), 0xe3069283u);
    /* RFC 3720, appendix B.4 */
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(both(bytes, sizeof bytes), 0x8a9136aau);
    memset(bytes, 0xff, sizeof bytes);
    assert_int_equal(both(bytes, sizeof bytes), 0x62a8ab43u);
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)i;
    assert_int_equal(both(bytes, sizeof bytes), 0x46dd794eu);
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(31 - i);
    assert_int_equal(both(bytes, sizeof bytes), 0x113fdb5cu);
    /* TensorBoard's vector is of the masked digest. */
    const uint32_t crc = both("\x1a\x11"
                              "CRC test, one two",
                              19);
    assert_int_equal((crc >> 15 | crc << 17) + 0xa282ead8u, 0x5794d08au);
}

enum { MOST = 3 * 3 * 8192 + 1000 };

static void sizes(void **state) {
    (void)state;
    unsigned char *data = malloc(MOST + 8);
    ftr_test_rng rng = {5};
    for (int i = 0; i < MOST + 8; i++) data[i] = (unsigned char)ftr_test_random(&rng);
    for (size_t size = 0; size < 300; size++) {
        for (size_t at = 0; at < 8; at++) assert_int_equal(both(data + at, size), bitwise(data + at, size));
    }
    const size_t large[] = {8191, 24575, 24576, 24577, 49151, 49152, 49153, 73728, MOST};
    for (size_t i = 0; i < FTR_TEST_LENGTH(large); i++) {
        assert_int_equal(both(data + i % 8, large[i]), bitwise(data + i % 8, large[i]));
    }
    free(data);
}

static void pieces(void **state) {
    (void)state;
    unsigned char *data = malloc(MOST);
    ftr_test_rng rng = {6};
    for (int i = 0; i < MOST; i++) data[i] = (unsigned char)ftr_test_random(&rng);
    const uint32_t whole = ftr__crc32c(0, data, MOST);
    for (int round = 0; round < 200; round++) {
        const size_t cut = (size_t)ftr_test_integer(&rng, 0, MOST);
        const uint32_t first = ftr__crc32c(0, data, cut);
        assert_int_equal(ftr__crc32c(first, data + cut, MOST - cut), whole);
        assert_int_equal(ftr__crc32c_portable(first, data + cut, MOST - cut), whole);
    }
    free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_answers), cmocka_unit_test(sizes),
                                       cmocka_unit_test(pieces)};
    return cmocka_run_group_tests_name("crc32c", tests, NULL, NULL);
}
