/* Kernels that move elements: each element of the result is read from a place that its coordinates give. */
#include "backend/cuda/cuda.cuh"

/* Element at coordinates c of the result lies at the sum of offset + c[d] * stride[d]; 0 stretches, -1 goes backwards. */
struct ftr__walk {
    const void *in;
    void *out;
    int32_t rank;
    int64_t count, offset, dim[FTR_MAX_RANK], stride[FTR_MAX_RANK];
};

template <typename T> FTR__KERNEL ftr__walk_kernel(ftr__walk p) {
    FTR__GRID_LOOP(i, p.count) {
        int64_t at = p.offset, rest = i;
        for (int32_t d = p.rank - 1; d >= 0; d--) {
            const int64_t next = rest / p.dim[d];
            at += (rest - next * p.dim[d]) * p.stride[d];
            rest = next;
        }
        static_cast<T *>(p.out)[i] = static_cast<const T *>(p.in)[at];
    }
}

/* Elements are copied as integers of their size. */
static ftr_status ftr__walk_run(const ftr_kernel_call *call, const ftr__walk *p) {
    const unsigned blocks = ftr__cuda_blocks(p->count);
    switch (ftr_dtype_size(call->out[0].dtype)) {
    case 1: return FTR_LAUNCH(call, (ftr__walk_kernel<uint8_t>), blocks, FTR__CUDA_THREADS, *p);
    case 2: return FTR_LAUNCH(call, (ftr__walk_kernel<uint16_t>), blocks, FTR__CUDA_THREADS, *p);
    case 4: return FTR_LAUNCH(call, (ftr__walk_kernel<uint32_t>), blocks, FTR__CUDA_THREADS, *p);
    default: return FTR_LAUNCH(call, (ftr__walk_kernel<uint64_t>), blocks, FTR__CUDA_THREADS, *p);
    }
}

static ftr__walk ftr__walk_of(const ftr_kernel_call *call) {
    const ftr_shape *shape = &call->out[0].shape;
    ftr__walk p = {};
    p.in = call->in[0].data;
    p.out = call->out[0].data;
    p.rank = shape->rank;
    p.count = call->out[0].count;
    for (int32_t d = 0; d < shape->rank; d++) p.dim[d] = shape->dim[d];
    return p;
}

FTR__CUDA_LIB ftr_status ftr__cuda_expand(const ftr_kernel_call *call) {
    const ftr_shape *from = &call->in[0].shape, *to = &call->out[0].shape;
    ftr__walk p = ftr__walk_of(call);
    int64_t step = 1;
    for (int32_t d = to->rank - 1; d >= 0; d--) {
        const int32_t k = d - (to->rank - from->rank);
        const int64_t size = k >= 0 ? from->dim[k] : 1;
        p.stride[d] = size == 1 ? 0 : step;
        step *= size;
    }
    return ftr__walk_run(call, &p);
}
