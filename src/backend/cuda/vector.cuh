/* Some neighbouring elements that are read and written at once, as f32. */
#ifndef FTR_BACKEND_CUDA_VECTOR_CUH
#define FTR_BACKEND_CUDA_VECTOR_CUH

#include "backend/cuda/cuda.cuh"

template <typename T, int V> struct alignas(sizeof(T) * V) ftr__vector { T of[V]; };

/* `from` is a multiple of the vector's size. */
template <typename T, int V> static __device__ __forceinline__ void ftr__load_vector(const T *from, float (&x)[V]) {
    const ftr__vector<T, V> v = *reinterpret_cast<const ftr__vector<T, V> *>(from);
    FTR__UNROLL
    for (int k = 0; k < V; k++) x[k] = ftr__to_float(v.of[k]);
}

template <typename T, int V> static __device__ __forceinline__ void ftr__store_vector(T *to, const float (&x)[V]) {
    ftr__vector<T, V> v;
    FTR__UNROLL
    for (int k = 0; k < V; k++) v.of[k] = ftr__from_float<T>(x[k]);
    *reinterpret_cast<ftr__vector<T, V> *>(to) = v;
}

/* Elements of 16 bytes. */
template <typename T> constexpr int ftr__vector_width() { return 16 / (int)sizeof(T); }

/* Whether a tensor's memory begins at a multiple of 16 bytes; a missing one's does. */
static inline bool ftr__is_aligned(const void *data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

static inline bool ftr__all_aligned(const ftr_kernel_call *call) {
    bool aligned = true;
    for (int32_t i = 0; i < call->in_count; i++) aligned = aligned && ftr__is_aligned(call->in[i].data);
    for (int32_t i = 0; i < call->out_count; i++) aligned = aligned && ftr__is_aligned(call->out[i].data);
    return aligned;
}

/* An integer that a function can be made for. */
template <int N> struct ftr__constant { static constexpr int value = N; };

/* Calls f with a value of the element type and the width of vectors, an ftr__constant: 16 bytes if they divide `line` elements and
 * all tensors lie well, otherwise one element. */
template <typename F>
static ftr_status ftr__for_vectors(const ftr_kernel_call *call, ftr_dtype dtype, int64_t line, F f) {
    return ftr__for_real(call, dtype, [&](auto tag) {
        constexpr int width = ftr__vector_width<decltype(tag)>();
        if (line % width == 0 && ftr__all_aligned(call)) return f(tag, ftr__constant<width>());
        return f(tag, ftr__constant<1>());
    });
}

/* The same of a tensor whose channels, its last dimension, are to be divided. */
template <typename F> static ftr_status ftr__for_channels(const ftr_kernel_call *call, const ftr_view *x, F f) {
    return ftr__for_vectors(call, x->dtype, x->shape.dim[x->shape.rank - 1], f);
}

/* Data of an input, nullptr if it is missing. */
template <typename T> static inline const T *ftr__optional_data(const ftr_kernel_call *call, int32_t input) {
    if (input >= call->in_count || call->in[input].dtype == FTR_DTYPE_NONE) return nullptr;
    return static_cast<const T *>(call->in[input].data);
}

#endif
