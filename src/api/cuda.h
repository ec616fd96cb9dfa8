#ifndef FTR_API_CUDA_H
#define FTR_API_CUDA_H

#include "api/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * The CUDA backend is in fasttrain_cuda.cu. A program that uses it defines FASTTRAIN_CUDA where it defines
 * FASTTRAIN_IMPLEMENTATION, is linked with the object that nvcc makes of fasttrain_cuda.cu and with cudart, cublasLt and cudnn, and
 * asks for ftr_context_desc.device = "cuda". */

/* The CUDA backend. Defined in fasttrain_cuda.cu. */
FTR_API const ftr_backend *ftr_cuda_backend(void);

#ifdef __cplusplus
}
#endif

#endif
