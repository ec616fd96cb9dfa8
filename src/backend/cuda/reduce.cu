/* Sums, means and maxima over some of a tensor's dimensions, in an order that depends on shapes alone.
 *
 * The dimensions are joined to runs that are reduced or kept. Where the last run is kept, a thread has a result of its own
 * and neighbours read neighbouring elements; where it is reduced, a block has one. Long reductions are cut into parts, which a
 * second kernel joins. */
#include "backend/cuda/cuda.cuh"

struct ftr__reduction {
    const void *in;
    ftr_dtype in_dtype, out_dtype;
    void *out;
    bool kept_last;
    int64_t outputs, count; /* results; elements of each */
    int64_t parts, a_part;  /* of a reduction, and elements of a part */
    double scale;           /* of a mean */
    int32_t kept, reduced;  /* runs */
    int64_t kept_dim[FTR_MAX_RANK], kept_stride[FTR_MAX_RANK];
    int64_t reduced_dim[FTR_MAX_RANK], reduced_stride[FTR_MAX_RANK];
};

static __device__ __forceinline__ int64_t ftr__reduction_offset(int64_t i, int32_t runs, const int64_t *dim,
                                                                const int64_t *stride) {
    int64_t at = 0;
    for (int32_t d = runs - 1; d >= 0; d--) {
        const int64_t next = i / dim[d];
        at += (i - next * dim[d]) * stride[d];
        i = next;
    }
    return at;
}

/* How elements are joined. `index` is an element's place among those of its result. */
struct ftr__sum_real {
    using T = double; /* sums of large numbers that cancel out */
    static __device__ __forceinline__ T none() { return 0.0; }
    static __device__ __forceinline__ T load(const ftr__reduction &p, int64_t at, int64_t index) {
        (void)index;
        return ftr__load_real(p.in, p.in_dtype, at);
    }
    static __device__ __forceinline__ T join(T a, T b) { return a + b; }
    static __device__ __forceinline__ T lane(T a, int bits) { return __shfl_xor_sync(FTR__CUDA_FULL, a, bits); }
    static __device__ __forceinline__ void store(const ftr__reduction &p, int64_t o, T a) {
        ftr__store_real(p.out, p.out_dtype, o, static_cast<float>(a * p.scale));
    }
};

/* Wraps, as unsigned numbers do. */
struct ftr__sum_integer {
    using T = unsigned long long;
    static __device__ __forceinline__ T none() { return 0; }
    static __device__ __forceinline__ T load(const ftr__reduction &p, int64_t at, int64_t index) {
        (void)index;
        return static_cast<T>(ftr__load_integer(p.in, p.in_dtype, at));
    }
    static __device__ __forceinline__ T join(T a, T b) { return a + b; }
    static __device__ __forceinline__ T lane(T a, int bits) { return __shfl_xor_sync(FTR__CUDA_FULL, a, bits); }
    static __device__ __forceinline__ void store(const ftr__reduction &p, int64_t o, T a) {
        ftr__store_integer(p.out, p.out_dtype, o, static_cast<int64_t>(a));
    }
};

/* The first of the largest elements; NaN is larger than all. An index of -1: none yet. */
template <typename V, bool POSITION> struct ftr__first_largest {
    struct T {
        V value;
        int64_t index;
    };
    static __device__ __forceinline__ T none() { return T{V(0), -1}; }
    static __device__ __forceinline__ V value(const ftr__reduction &p, int64_t at, float) {
        return ftr__load_real(p.in, p.in_dtype, at);
    }
    static __device__ __forceinline__ V value(const ftr__reduction &p, int64_t at, int64_t) {
        return ftr__load_integer(p.in, p.in_dtype, at);
    }
    static __device__ __forceinline__ T load(const ftr__reduction &p, int64_t at, int64_t index) {
        return T{value(p, at, V()), index};
    }
    static __device__ __forceinline__ bool beats(const T &a, const T &b) {
        if (a.index < 0 || b.index < 0) return b.index < 0;
        const bool a_is_nan = a.value != a.value, b_is_nan = b.value != b.value;
        if (a_is_nan || b_is_nan) return a_is_nan && (!b_is_nan || a.index < b.index);
        return a.value > b.value || (a.value == b.value && a.index < b.index);
    }
    static __device__ __forceinline__ T join(T a, T b) { return beats(b, a) ? b : a; }
    static __device__ __forceinline__ T lane(T a, int bits) {
        return T{__shfl_xor_sync(FTR__CUDA_FULL, a.value, bits), __shfl_xor_sync(FTR__CUDA_FULL, a.index, bits)};
    }
    static __device__ __forceinline__ void keep(const ftr__reduction &p, int64_t o, float x) {
        ftr__store_real(p.out, p.out_dtype, o, x);
    }
    static __device__ __forceinline__ void keep(const ftr__reduction &p, int64_t o, int64_t x) {
        ftr__store_integer(p.out, p.out_dtype, o, x);
    }
    static __device__ __forceinline__ void store(const ftr__reduction &p, int64_t o, T a) {
        if (POSITION)
            ftr__store_integer(p.out, p.out_dtype, o, a.index);
        else
            keep(p, o, a.value);
    }
};

/* A thread a result and part. */
template <typename R> FTR__KERNEL ftr__reduce_columns(ftr__reduction p, typename R::T *partial) {
    FTR__GRID_LOOP(i, p.outputs * p.parts) {
        const int64_t o = i % p.outputs, part = i / p.outputs;
        const int64_t begin = part * p.a_part, end = min(p.count, begin + p.a_part);
        const int64_t base = ftr__reduction_offset(o, p.kept, p.kept_dim, p.kept_stride);
        typename R::T result = R::none();
        for (int64_t r = begin; r < end; r++)
            result = R::join(result, R::load(p, base + ftr__reduction_offset(r, p.reduced, p.reduced_dim, p.reduced_stride), r));
        if (p.parts == 1)
            R::store(p, o, result);
        else
            partial[i] = result;
    }
}

/* A block a result and part. */
template <typename R> FTR__KERNEL ftr__reduce_rows(ftr__reduction p, typename R::T *partial) {
    FTR_SHARED(typename R::T, of_warp, FTR__CUDA_THREADS / FTR__CUDA_WARP);
    for (int64_t i = blockIdx.x; i < p.outputs * p.parts; i += gridDim.x) {
        const int64_t o = i % p.outputs, part = i / p.outputs;
        const int64_t begin = part * p.a_part, end = min(p.count, begin + p.a_part);
        const int64_t base = ftr__reduction_offset(o, p.kept, p.kept_dim, p.kept_stride);
        typename R::T result = R::none();
        for (int64_t r = begin + threadIdx.x; r < end; r += blockDim.x)
            result = R::join(result, R::load(p, base + ftr__reduction_offset(r, p.reduced, p.reduced_dim, p.reduced_stride), r));
        for (int bits = 16; bits > 0; bits /= 2) result = R::join(result, R::lane(result, bits));
        if (threadIdx.x % FTR__CUDA_WARP == 0) of_warp[threadIdx.x / FTR__CUDA_WARP] = result;
        __syncthreads();
        if (threadIdx.x == 0) {
            for (unsigned w = 1; w < blockDim.x / FTR__CUDA_WARP; w++) result = R::join(result, of_warp[w]);
            if (p.parts == 1)
                R::store(p, o, result);
            else
                partial[i] = result;
        }
        __syncthreads();
    }
}

template <typename R> FTR__KERNEL ftr__reduce_parts(ftr__reduction p, const typename R::T *partial) {
    FTR__GRID_LOOP(o, p.outputs) {
        typename R::T result = R::none();
        for (int64_t part = 0; part < p.parts; part++) result = R::join(result, partial[part * p.outputs + o]);
        R::store(p, o, result);
    }
}

#define FTR__REDUCE_PART 2048 /* elements of a part that a thread is to have at least, or a block 16 times as many */
#define FTR__REDUCE_MOST 256  /* parts */

static ftr__reduction ftr__reduction_plan(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0];
    ftr__reduction p = {};
    p.in = x->data;
    p.in_dtype = x->dtype;
    p.out = call->out[0].data;
    p.out_dtype = call->out[0].dtype;
    p.outputs = p.count = 1;
    int32_t last = -1; /* whether the run before is reduced; -1: there is none */
    int64_t stride = 1;
    int64_t dims[FTR_MAX_RANK] = {}, strides[FTR_MAX_RANK] = {};
    bool is_reduced[FTR_MAX_RANK] = {};
    int32_t runs = 0;
    for (int32_t d = x->shape.rank - 1; d >= 0; d--) { /* from the last dimension on */
        const bool reduce = call->attr->axes.mask >> d & 1;
        if (x->shape.dim[d] != 1) {
            if (last != (int32_t)reduce) {
                dims[runs] = 1;
                strides[runs] = stride;
                is_reduced[runs++] = reduce;
                last = reduce;
            }
            dims[runs - 1] *= x->shape.dim[d];
        }
        stride *= x->shape.dim[d];
    }
    p.kept_last = runs > 0 && !is_reduced[0];
    for (int32_t r = runs - 1; r >= 0; r--) {
        if (is_reduced[r]) {
            p.count *= dims[r];
            p.reduced_dim[p.reduced] = dims[r];
            p.reduced_stride[p.reduced++] = strides[r];
        } else {
            p.outputs *= dims[r];
            p.kept_dim[p.kept] = dims[r];
            p.kept_stride[p.kept++] = strides[r];
        }
    }
    p.scale = call->op == FTR_OP_mean ? 1.0 / (double)p.count : 1.0;
    const int64_t least = p.kept_last ? FTR__REDUCE_PART / 16 : FTR__REDUCE_PART * 16;
    const int64_t wanted = p.kept_last ? 262144 / (p.outputs + 1) : 1024 / (p.outputs + 1); /* threads or blocks in all */
    p.parts = p.count / least < wanted ? p.count / least : wanted;
    p.parts = p.parts < 1 ? 1 : p.parts > FTR__REDUCE_MOST ? FTR__REDUCE_MOST : p.parts;
    p.a_part = (p.count + p.parts - 1) / p.parts;
    return p;
}

template <typename R> static ftr_status ftr__reduce(const ftr_kernel_call *call) {
    const ftr__reduction p = ftr__reduction_plan(call);
    typename R::T *partial = static_cast<typename R::T *>(call->workspace);
    const int64_t tasks = p.outputs * p.parts;
    if (call->out[0].count == 0) return FTR_OK;
    ftr_status status;
    if (p.kept_last)
        status = FTR_LAUNCH(call, (ftr__reduce_columns<R>), ftr__cuda_blocks(tasks), FTR__CUDA_THREADS, p, partial);
    else
        status = FTR_LAUNCH(call, (ftr__reduce_rows<R>), ftr__cuda_blocks(tasks, 1), FTR__CUDA_THREADS, p, partial);
    if (status || p.parts == 1) return status;
    return FTR_LAUNCH(call, (ftr__reduce_parts<R>), ftr__cuda_blocks(p.outputs), FTR__CUDA_THREADS, p, partial);
}

FTR__CUDA_LIB ftr_status ftr__cuda_reduce(const ftr_kernel_call *call) {
    const bool real = ftr__cuda_is_real(call->in[0].dtype);
    switch (call->op) {
    case FTR_OP_max:
        return real ? ftr__reduce<ftr__first_largest<float, false>>(call) : ftr__reduce<ftr__first_largest<int64_t, false>>(call);
    case FTR_OP_argmax:
        return real ? ftr__reduce<ftr__first_largest<float, true>>(call) : ftr__reduce<ftr__first_largest<int64_t, true>>(call);
    default: return real ? ftr__reduce<ftr__sum_real>(call) : ftr__reduce<ftr__sum_integer>(call);
    }
}

/* A partial result is 16 bytes at most. */
FTR__CUDA_LIB size_t ftr__cuda_reduce_workspace(const ftr_kernel_call *call) {
    const ftr__reduction p = ftr__reduction_plan(call);
    return p.parts == 1 ? 0 : 16 * static_cast<size_t>(p.outputs * p.parts);
}
