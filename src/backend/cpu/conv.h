/* What the convolution kernels share. */
#ifndef FTR_BACKEND_CPU_CONV_H
#define FTR_BACKEND_CPU_CONV_H

#include "backend/cpu/cpu.h"

/* Sizes of a convolution, the same for the op and its gradients. Pairs are height, width. */
typedef struct ftr__conv {
    int64_t n, in[2], out[2], c, o; /* x is [n, in, c], y is [n, out, o] */
    int64_t kernel[2], stride[2], dilation[2], before[2];
    int64_t groups, cg, og, taps;
} ftr__conv;

/* A batch norm with running statistics that follows a convolution, and what follows it: done to results as soon as they are
 * there, while they are near. */
typedef struct ftr__conv_finish {
    const ftr__simd_math *math;
    const float *mean, *scale, *shift; /* by channel of the result */
    const float *residual;             /* laid out as y; NULL: none */
    float *y;
    ftr_activation activation;
} ftr__conv_finish;

/* The bytes that ftr__conv_finish_open() needs; 0 if the call has no batch norm. */
FTR_LIB size_t ftr__conv_finish_bytes(const ftr_kernel_call *call);

/* Fills *finish, with scale and shift in `memory`; false if the call has no batch norm. */
FTR_LIB bool ftr__conv_finish_open(const ftr_kernel_call *call, void *memory, ftr__conv_finish *finish);

/* `columns` channels from `channel` on of pixels of y, up to FTR__CONV_FINISH_ROWS; those that are NULL are left out. They
 * come from rows x, or from y itself if that is NULL. */
#define FTR__CONV_FINISH_ROWS 16
FTR_LIB void ftr__conv_finish_rows(const ftr__conv_finish *finish, int64_t rows, int64_t channel, int64_t columns,
                                   const float *const *x, float *const *y);

/* Whether depthwise.c is the one to compute it: few channels a group. */
FTR_LIB bool ftr__conv_is_depthwise(const ftr__conv *v);

/* For such a convolution: the op or its gradient of the input, and the gradient of the weight. */
FTR_LIB size_t ftr__depthwise_workspace(const ftr_kernel_call *call, const ftr__conv *v, bool gradient);
FTR_LIB void ftr__depthwise(const ftr_kernel_call *call, const ftr__conv *v, bool gradient, void *workspace,
                            const ftr__conv_finish *finish);
FTR_LIB size_t ftr__depthwise_weight_workspace(const ftr_kernel_call *call, const ftr__conv *v);
FTR_LIB void ftr__depthwise_weight_gradient(const ftr_kernel_call *call, const ftr__conv *v);

static inline int64_t ftr__conv_gcd(int64_t a, int64_t b) {
    while (b) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

#endif
