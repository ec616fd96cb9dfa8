#include "backend/cpu/conv.h"
#include "backend/cpu/gemm.h"

#include <math.h>

static bool ftr__conv_has_norm(const ftr_kernel_call *call) { return ftr__optional_input(call, 3) != NULL; }

size_t ftr__conv_finish_bytes(const ftr_kernel_call *call) {
    if (!ftr__conv_has_norm(call)) return 0;
    return ftr__gemm_align((size_t)(2 * call->out[0].shape.dim[3]) * sizeof(float));
}

/* As batch_norm does it, so that the bits are the same. */
bool ftr__conv_finish_open(const ftr_kernel_call *call, void *memory, ftr__conv_finish *finish) {
    if (!ftr__conv_has_norm(call)) return false;
    const int64_t channels = call->out[0].shape.dim[3];
    const ftr_view *residual = ftr__optional_input(call, 7);
    const float *gamma = call->in[3].data, *beta = call->in[4].data, *variance = call->in[6].data;
    float *scale = memory, *shift = scale + channels;
    for (int64_t c = 0; c < channels; c++) {
        const double invstd = 1.0 / sqrt((double)variance[c] + call->attr->conv.eps);
        scale[c] = (float)((double)gamma[c] * invstd);
        shift[c] = beta[c];
    }
    *finish = (ftr__conv_finish){.math = &ftr__cpu_of(call)->simd->math,
                                 .mean = call->in[5].data,
                                 .scale = scale,
                                 .shift = shift,
                                 .residual = residual ? residual->data : NULL,
                                 .y = call->out[0].data,
                                 .activation = call->attr->conv.activation};
    return true;
}

void ftr__conv_finish_rows(const ftr__conv_finish *f, int64_t rows, int64_t channel, int64_t columns,
                           const float *const *x, float *const *y) {
    float *to[FTR__CONV_FINISH_ROWS];
    const float *from[FTR__CONV_FINISH_ROWS], *residual[FTR__CONV_FINISH_ROWS];
    int64_t count = 0;
    for (int64_t i = 0; i < rows; i++) {
        if (!y[i]) continue;
        to[count] = y[i];
        from[count] = x ? x[i] : y[i];
        if (f->residual) residual[count] = f->residual + (y[i] - f->y);
        count++;
    }
    f->math->norm_tile(count, columns, from, to, f->residual ? residual : NULL, f->mean + channel, f->scale + channel,
                       f->shift + channel, f->activation);
}
