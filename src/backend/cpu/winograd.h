/* 3x3 convolutions in Winograd's form, with their gradients. conv.c asks whether it pays. */
#ifndef FTR_BACKEND_CPU_WINOGRAD_H
#define FTR_BACKEND_CPU_WINOGRAD_H

#include "backend/cpu/conv.h"

/* What a kernel computes: y of x, dx of dy, dw of x and dy. */
typedef enum ftr__winograd_pass {
    FTR__WINOGRAD_FORWARD = 0,
    FTR__WINOGRAD_INPUT,
    FTR__WINOGRAD_WEIGHT
} ftr__winograd_pass;

/* Where transforms go. `kept` has those of the filters, made already if `made`; NULL: in the workspace, made each time. */
typedef struct ftr__winograd_memory {
    void *workspace, *kept;
    bool made;
} ftr__winograd_memory;

/* Whether a convolution is to be computed so: 3x3, stride 1, not dilated, one group, 4 channels or more, and by a count of
 * vector operations at least a quarter cheaper than the direct sum, which is `direct_speed` times as fast as one in f32.
 * FASTTRAIN_WINOGRAD can forbid it, or, for tests, leave the count out. */
FTR_LIB bool ftr__winograd_pays(const ftr__cpu *cpu, const ftr__conv *v, ftr__winograd_pass pass,
                               double direct_speed);

FTR_LIB size_t ftr__winograd_workspace(const ftr__cpu *cpu, const ftr__conv *v, ftr__winograd_pass pass);

/* Bytes of the transformed filters. */
FTR_LIB size_t ftr__winograd_kept(const ftr__cpu *cpu, const ftr__conv *v);

/* y = x * weight + bias, activated or finished; or, with `gradient`, dx of dy in x's place. `from` is [n, in, c], or dy. */
FTR_LIB void ftr__winograd_run(const ftr__cpu *cpu, const ftr__conv *v, ftr__winograd_pass pass, const float *from,
                               const float *weight, const float *bias, bool relu, const ftr__conv_finish *finish,
                               float *to, const ftr__winograd_memory *memory);

/* dw of x and dy. */
FTR_LIB void ftr__winograd_weight_gradient(const ftr__cpu *cpu, const ftr__conv *v, const float *dy, const float *x,
                                           float *dw, void *workspace);

#endif
