/* The backend that the op cases test: the CPU's; with FTR_TEST_CUDA the CUDA backend, on a device, or under the emulator and the
 * doubles of CUDA's libraries (FTR_TEST_DOUBLES too). */
#ifndef FTR_TESTS_OPS_TESTED_H
#define FTR_TESTS_OPS_TESTED_H

#include "fasttrain.h"

#ifdef FTR_TEST_DOUBLES
#include "../cuda/emulator/doubles.h"
#endif

static inline const ftr_backend *tested_backend(void) {
#ifdef FTR_TEST_CUDA
    return ftr_cuda_backend();
#else
    return ftr_cpu_backend();
#endif
}

#endif
