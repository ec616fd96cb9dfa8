/* Matrix products of row-major tensors. */
#ifndef FTR_BACKEND_CUDA_BLAS_CUH
#define FTR_BACKEND_CUDA_BLAS_CUH

#include "backend/cuda/cuda.cuh"

/* A dimension of a batch, and how far apart its matrices lie, in elements; 0: they are one. */
struct ftr__product_batch {
    int64_t count, a, b, d;
};

/* D = alpha op(A) op(B) + beta C + bias, then ReLU if it is asked for. Sums are of f32. */
struct ftr__product {
    ftr_dtype dtype; /* f32, f16 or bf16: of all tensors */
    bool transpose_a, transpose_b;
    bool add_bias, relu;
    int64_t m, n, k;
    const void *a;               /* [m, k]; transposed: [k, m] */
    const void *b;               /* [k, n]; transposed: [n, k] */
    void *d;                     /* [m, n] */
    const void *c;               /* as D lies, which it may be; read if beta is not 0 */
    const void *bias;            /* [n] */
    int64_t a_row, b_row, d_row; /* elements from a row, as it is stored, to the next */
    float alpha, beta;
    int32_t batches; /* dimensions */
    ftr__product_batch batch[FTR_MAX_RANK];
};

/* Computes it, in the order of the stream. Pointers need an element's alignment; D overlaps nothing but C. */
FTR__CUDA_LIB ftr_status ftr__product_run(const ftr_kernel_call *call, const ftr__product *product);

/* What computes it, in words. Pointers may be nullptr. */
FTR__CUDA_LIB const char *ftr__product_algorithm(const ftr_kernel_call *call, const ftr__product *product);

/* The library's handle, its workspace and what it said about products, as cuda->blas. Closing what was not opened is
 * nothing. */
FTR__CUDA_LIB ftr_status ftr__blas_open(ftr_context *context, ftr__cuda *cuda);
FTR__CUDA_LIB void ftr__blas_close(ftr_context *context, ftr__cuda *cuda);

/* Of a matmul or linear node. */
FTR__CUDA_LIB const char *ftr__cuda_matmul_algorithm(const ftr_kernel_call *call);

#endif
