/* The oracle: a backend for tests that computes every op straight from its definition, one element at a time, in double
 * precision, whatever the storage type. It is the readable statement of what each op means; nothing in it is fast and
 * nothing is shared with the library. */
#ifndef FTR_TESTS_ORACLE_ORACLE_H
#define FTR_TESTS_ORACLE_ORACLE_H

#include "fasttrain.h"

const ftr_backend *ftr_test_oracle_backend(void);

/* Philox 4x32-10, written from the paper: 10 rounds over a counter of four words with a key of two. */
void ftr_test_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
