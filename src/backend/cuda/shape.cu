/* Kernels that move elements: each element of the result is read from a place that its coordinates give. Elements are copied as
 * units of 1, 2, 4, 8 or 16 bytes: several of them at once where they lie together on both sides. */
#include "backend/cuda/cuda.cuh"

/* Calls f with a value of the unit's type, which does not count. */
template <typename F> static ftr_status ftr__for_unit(int64_t bytes, F f) {
    switch (bytes) {
    case 1: return f(uint8_t());
    case 2: return f(uint16_t());
    case 4: return f(uint32_t());
    case 8: return f(uint64_t());
    default: return f(ftr__pack<uint32_t>());
    }
}

/* The largest unit that divides `bytes`, a number of them or an address; 0 has all. */
static int64_t ftr__unit_of(int64_t unit, int64_t bytes) {
    while (bytes % unit != 0) unit /= 2;
    return unit;
}

static int64_t ftr__unit_of(int64_t unit, const void *address) {
    return ftr__unit_of(unit, static_cast<int64_t>(reinterpret_cast<uintptr_t>(address) % 16));
}

/* ----------------------------------------------------------------------------------------------------------- walks -- */

/* Element at coordinates c of the result lies at the sum of offset + c[d] * stride[d]; 0 stretches. */
struct ftr__walk {
    const void *in;
    void *out;
    int32_t rank;
    int64_t count, offset, dim[FTR_MAX_RANK], stride[FTR_MAX_RANK];
};

/* I: a type for numbers of elements, whose division is fast if it is small. */
template <typename T, typename I> FTR__KERNEL ftr__walk_kernel(ftr__walk p) {
    FTR__GRID_LOOP(i, p.count) {
        int64_t at = p.offset;
        I rest = static_cast<I>(i);
        for (int32_t d = p.rank - 1; d >= 0; d--) {
            const I next = rest / static_cast<I>(p.dim[d]);
            at += static_cast<int64_t>(rest - next * static_cast<I>(p.dim[d])) * p.stride[d];
            rest = next;
        }
        static_cast<T *>(p.out)[i] = static_cast<const T *>(p.in)[at];
    }
}

static ftr__walk ftr__walk_of(const ftr_kernel_call *call) {
    ftr__walk p = {};
    p.in = call->in[0].data;
    p.out = call->out[0].data;
    p.count = call->out[0].count;
    return p;
}

/* Adds a dimension of the result behind those that are there; what is one run of the source with the one before is joined to it. */
static void ftr__walk_add(ftr__walk *p, int64_t size, int64_t stride) {
    const int32_t last = p->rank - 1;
    if (size == 1) return;
    if (p->rank > 0 && p->stride[last] == stride * size) {
        p->dim[last] *= size;
        p->stride[last] = stride;
        return;
    }
    p->dim[p->rank] = size;
    p->stride[p->rank++] = stride;
}

static void ftr__dense_strides(const ftr_shape *shape, int64_t *stride) {
    int64_t step = 1;
    for (int32_t d = shape->rank - 1; d >= 0; d--) {
        stride[d] = step;
        step *= shape->dim[d];
    }
}

/* Bytes that lie together on both sides and may be moved at once. */
static int64_t ftr__walk_unit(const ftr__walk *p, int64_t size) {
    const int32_t last = p->rank - 1;
    if (last < 0 || p->stride[last] != 1) return size;
    int64_t unit = ftr__unit_of(ftr__unit_of(ftr__unit_of(16, p->in), p->out), p->offset * size);
    unit = ftr__unit_of(unit, p->dim[last] * size);
    for (int32_t d = 0; d < last; d++) unit = ftr__unit_of(unit, p->stride[d] * size);
    return unit < size ? size : unit;
}

static ftr_status ftr__walk_run(const ftr_kernel_call *call, ftr__walk p) {
    const int64_t size = static_cast<int64_t>(ftr_dtype_size(call->out[0].dtype));
    const int64_t unit = ftr__walk_unit(&p, size), wide = unit / size;
    if (p.count == 0) return FTR_OK;
    if (wide > 1) {
        p.count /= wide;
        p.offset /= wide;
        p.dim[p.rank - 1] /= wide;
        for (int32_t d = 0; d < p.rank - 1; d++) p.stride[d] /= wide;
    }
    const unsigned blocks = ftr__cuda_blocks(p.count);
    return ftr__for_unit(unit, [&](auto tag) {
        using T = decltype(tag);
        if (p.count <= INT32_MAX) return FTR_LAUNCH(call, (ftr__walk_kernel<T, uint32_t>), blocks, FTR__CUDA_THREADS, p);
        return FTR_LAUNCH(call, (ftr__walk_kernel<T, uint64_t>), blocks, FTR__CUDA_THREADS, p);
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_expand(const ftr_kernel_call *call) {
    const ftr_shape *from = &call->in[0].shape, *to = &call->out[0].shape;
    ftr__walk p = ftr__walk_of(call);
    int64_t stride[FTR_MAX_RANK];
    ftr__dense_strides(from, stride);
    for (int32_t d = 0; d < to->rank; d++) {
        const int32_t k = d - (to->rank - from->rank);
        ftr__walk_add(&p, to->dim[d], k < 0 || from->dim[k] == 1 ? 0 : stride[k]);
    }
    return ftr__walk_run(call, p);
}

FTR__CUDA_LIB ftr_status ftr__cuda_slice(const ftr_kernel_call *call) {
    const ftr_shape *shape = &call->out[0].shape;
    const int32_t axis = call->attr->slice.axis;
    ftr__walk p = ftr__walk_of(call);
    int64_t stride[FTR_MAX_RANK];
    ftr__dense_strides(&call->in[0].shape, stride);
    p.offset = call->attr->slice.begin * stride[axis];
    for (int32_t d = 0; d < shape->rank; d++)
        ftr__walk_add(&p, shape->dim[d], d == axis ? stride[d] * call->attr->slice.step : stride[d]);
    return ftr__walk_run(call, p);
}

/* ------------------------------------------------------------------------------------------------------- transpose -- */

#define FTR__TRANSPOSE_TILE 32
#define FTR__TILE_ROWS (FTR__CUDA_THREADS / FTR__TRANSPOSE_TILE) /* that a block reads or writes at once */

/* The source is dense along dimension `across` of the result, which is dense along its last one: square tiles of these two. */
struct ftr__tiles {
    ftr__walk walk;
    int32_t across;
    int64_t across_out;          /* its stride in the result */
    int64_t across_tiles, tiles; /* along it; along the last one */
    int64_t count;               /* in all */
};

/* Where a tile begins. */
struct ftr__tile_place {
    int64_t from, to, across, last; /* elements of the source and the result; coordinates */
};

static __device__ __forceinline__ ftr__tile_place ftr__tile_at(const ftr__tiles &p, int64_t tile) {
    const ftr__walk &w = p.walk;
    const int32_t last = w.rank - 1;
    int64_t rest = tile / p.tiles;
    ftr__tile_place at = {0, 0, 0, (tile - rest * p.tiles) * FTR__TRANSPOSE_TILE};
    at.across = rest % p.across_tiles * FTR__TRANSPOSE_TILE;
    rest /= p.across_tiles;
    int64_t step = w.dim[last];
    for (int32_t d = last - 1; d >= 0; d--) {
        if (d != p.across) {
            const int64_t next = rest / w.dim[d], c = rest - next * w.dim[d];
            at.from += c * w.stride[d];
            at.to += c * step;
            rest = next;
        }
        step *= w.dim[d];
    }
    at.from += at.across + at.last * w.stride[last];
    at.to += at.across * p.across_out + at.last;
    return at;
}

template <typename T> FTR__KERNEL ftr__transpose_tiles(ftr__tiles p) {
    FTR_SHARED(T, tile, FTR__TRANSPOSE_TILE *(FTR__TRANSPOSE_TILE + 1));
    const int64_t last_size = p.walk.dim[p.walk.rank - 1], stride = p.walk.stride[p.walk.rank - 1];
    const int64_t across_size = p.walk.dim[p.across];
    const int column = (int)threadIdx.x % FTR__TRANSPOSE_TILE, row = (int)threadIdx.x / FTR__TRANSPOSE_TILE;
    for (int64_t t = blockIdx.x; t < p.count; t += gridDim.x) {
        const ftr__tile_place at = ftr__tile_at(p, t);
        const T *in = static_cast<const T *>(p.walk.in) + at.from;
        T *out = static_cast<T *>(p.walk.out) + at.to;
        for (int r = row; r < FTR__TRANSPOSE_TILE; r += FTR__TILE_ROWS)
            if (at.last + r < last_size && at.across + column < across_size)
                tile[r * (FTR__TRANSPOSE_TILE + 1) + column] = in[r * stride + column];
        __syncthreads();
        for (int r = row; r < FTR__TRANSPOSE_TILE; r += FTR__TILE_ROWS)
            if (at.across + r < across_size && at.last + column < last_size)
                out[r * p.across_out + column] = tile[column * (FTR__TRANSPOSE_TILE + 1) + r];
        __syncthreads();
    }
}

/* Tiles pay where neither dimension is short. */
static ftr_status ftr__transpose_run(const ftr_kernel_call *call, const ftr__walk &walk) {
    ftr__tiles p = {};
    const int32_t last = walk.rank - 1;
    p.walk = walk;
    p.across = -1;
    for (int32_t d = 0; d < last; d++)
        if (walk.stride[d] == 1 && walk.stride[last] > 1 && walk.dim[d] >= 4 && walk.dim[last] >= 4) p.across = d;
    if (p.across < 0) return ftr__walk_run(call, walk);
    p.across_out = 1;
    for (int32_t d = p.across + 1; d < walk.rank; d++) p.across_out *= walk.dim[d];
    p.across_tiles = (walk.dim[p.across] + FTR__TRANSPOSE_TILE - 1) / FTR__TRANSPOSE_TILE;
    p.tiles = (walk.dim[last] + FTR__TRANSPOSE_TILE - 1) / FTR__TRANSPOSE_TILE;
    p.count = p.across_tiles * p.tiles * (walk.count / (walk.dim[p.across] * walk.dim[last]));
    return ftr__for_unit(static_cast<int64_t>(ftr_dtype_size(call->out[0].dtype)), [&](auto tag) {
        return FTR_LAUNCH(call, (ftr__transpose_tiles<decltype(tag)>), ftr__cuda_blocks(p.count, 1), FTR__CUDA_THREADS, p);
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_transpose(const ftr_kernel_call *call) {
    const ftr_shape *shape = &call->out[0].shape;
    ftr__walk p = ftr__walk_of(call);
    int64_t stride[FTR_MAX_RANK];
    if (p.count == 0) return FTR_OK;
    ftr__dense_strides(&call->in[0].shape, stride);
    for (int32_t d = 0; d < shape->rank; d++) ftr__walk_add(&p, shape->dim[d], stride[call->attr->axes_order.order[d]]);
    return ftr__transpose_run(call, p);
}

/* ---------------------------------------------------------------------------------------------------------- concat -- */

#define FTR__CONCAT_INPUTS 64 /* of a launch */

/* Rows of units; input k's rows are put behind those of the inputs before it. */
struct ftr__concat {
    int64_t rows, row; /* units of a row of the result */
    const void *in[FTR__CONCAT_INPUTS];
    int64_t begin[FTR__CONCAT_INPUTS], size[FTR__CONCAT_INPUTS];
};

template <typename T> FTR__KERNEL ftr__concat_kernel(ftr__concat p, T *out) {
    const int k = (int)blockIdx.y;
    const int64_t size = p.size[k];
    FTR__GRID_LOOP(i, p.rows * size) {
        const int64_t row = i / size;
        out[row * p.row + p.begin[k] + (i - row * size)] = static_cast<const T *>(p.in[k])[i];
    }
}

/* Inputs `first` to first + count - 1, whose rows begin `begin` bytes behind the result's; rows are in bytes. */
static ftr_status ftr__concat_some(const ftr_kernel_call *call, ftr__concat p, int32_t count) {
    int64_t unit = ftr__unit_of(ftr__unit_of(16, call->out[0].data), p.row), most = 0;
    for (int32_t k = 0; k < count; k++)
        unit = ftr__unit_of(ftr__unit_of(ftr__unit_of(unit, p.in[k]), p.begin[k]), p.size[k]);
    p.row /= unit;
    for (int32_t k = 0; k < count; k++) {
        p.begin[k] /= unit;
        p.size[k] /= unit;
        most = p.size[k] > most ? p.size[k] : most;
    }
    const dim3 grid(ftr__cuda_blocks(p.rows * most), static_cast<unsigned>(count));
    return ftr__for_unit(unit, [&](auto tag) {
        using T = decltype(tag);
        return FTR_LAUNCH(call, (ftr__concat_kernel<T>), grid, FTR__CUDA_THREADS, p, static_cast<T *>(call->out[0].data));
    });
}

FTR__CUDA_LIB ftr_status ftr__cuda_concat(const ftr_kernel_call *call) {
    const ftr_view *out = &call->out[0];
    const int32_t axis = call->attr->axis.axis;
    int64_t inner = static_cast<int64_t>(ftr_dtype_size(out->dtype)), begin = 0;
    ftr__concat p = {};
    if (out->count == 0) return FTR_OK;
    p.rows = 1;
    for (int32_t d = 0; d < axis; d++) p.rows *= out->shape.dim[d];
    for (int32_t d = axis + 1; d < out->shape.rank; d++) inner *= out->shape.dim[d];
    p.row = out->shape.dim[axis] * inner;
    int32_t count = 0;
    for (int32_t i = 0; i < call->in_count; i++) {
        if (call->in[i].count > 0) {
            p.in[count] = call->in[i].data;
            p.begin[count] = begin;
            p.size[count] = call->in[i].shape.dim[axis] * inner;
            begin += p.size[count++];
        }
        if (count == 0 || (count < FTR__CONCAT_INPUTS && i + 1 < call->in_count)) continue;
        const ftr_status status = ftr__concat_some(call, p, count);
        if (status) return status;
        count = 0;
    }
    return FTR_OK;
}

/* --------------------------------------------------------------------------------------------------------- padding -- */

/* The source lies in the result from coordinates `before` on, `step` apart; around and between there is `value`. Dimensions that
 * the source fills are part of the one before them. */
struct ftr__padding {
    const void *in;
    void *out;
    int32_t rank;
    int64_t count, dim[FTR_MAX_RANK], before[FTR_MAX_RANK], inside[FTR_MAX_RANK], step[FTR_MAX_RANK];
    uint64_t value[2]; /* as often as it fits */
};

template <typename T, typename I> FTR__KERNEL ftr__padding_kernel(ftr__padding p) {
    FTR__GRID_LOOP(i, p.count) {
        int64_t from = 0, size = 1;
        I rest = static_cast<I>(i);
        bool inside = true;
        for (int32_t d = p.rank - 1; d >= 0; d--) {
            const I next = rest / static_cast<I>(p.dim[d]);
            int64_t at = static_cast<int64_t>(rest - next * static_cast<I>(p.dim[d])) - p.before[d];
            if (p.step[d] != 1 && at > 0) {
                inside = inside && at % p.step[d] == 0;
                at /= p.step[d];
            }
            inside = inside && at >= 0 && at < p.inside[d];
            from += at * size;
            size *= p.inside[d];
            rest = next;
        }
        T value;
        if (inside)
            value = static_cast<const T *>(p.in)[from];
        else
            memcpy(&value, p.value, sizeof value);
        static_cast<T *>(p.out)[i] = value;
    }
}

static void ftr__padding_add(ftr__padding *p, int64_t dim, int64_t inside, int64_t before, int64_t step) {
    const int32_t last = p->rank - 1;
    if (dim == inside && p->rank > 0 && p->step[last] == 1) {
        p->dim[last] *= dim;
        p->before[last] *= dim;
        p->inside[last] *= dim;
        return;
    }
    p->dim[p->rank] = dim;
    p->before[p->rank] = before;
    p->inside[p->rank] = inside;
    p->step[p->rank++] = step;
}

static ftr_status ftr__padding_run(const ftr_kernel_call *call, ftr__padding p) {
    const int64_t size = static_cast<int64_t>(ftr_dtype_size(call->out[0].dtype));
    const int32_t last = p.rank - 1;
    int64_t unit = size;
    p.in = call->in[0].data;
    p.out = call->out[0].data;
    p.count = call->out[0].count;
    if (p.count == 0) return FTR_OK;
    if (last >= 0 && p.step[last] == 1) {
        unit = ftr__unit_of(ftr__unit_of(ftr__unit_of(16, p.in), p.out), p.dim[last] * size);
        unit = ftr__unit_of(ftr__unit_of(unit, p.before[last] * size), p.inside[last] * size);
        unit = unit < size ? size : unit;
        p.dim[last] /= unit / size;
        p.before[last] /= unit / size;
        p.inside[last] /= unit / size;
        p.count /= unit / size;
    }
    const unsigned blocks = ftr__cuda_blocks(p.count);
    return ftr__for_unit(unit, [&](auto tag) {
        using T = decltype(tag);
        if (p.count <= INT32_MAX) return FTR_LAUNCH(call, (ftr__padding_kernel<T, uint32_t>), blocks, FTR__CUDA_THREADS, p);
        return FTR_LAUNCH(call, (ftr__padding_kernel<T, uint64_t>), blocks, FTR__CUDA_THREADS, p);
    });
}

/* `value` as an element, in the low bits: integers are cut and saturated, NaN becomes 0. */
static uint64_t ftr__padding_bits(ftr_dtype dtype, double value) {
    const double whole = value != value ? 0.0 : value;
    const float real = static_cast<float>(value);
    uint32_t word;
    switch (dtype) {
    case FTR_F32: memcpy(&word, &real, sizeof word); return word;
    case FTR_F16: return __half_as_ushort(__double2half(value));
    case FTR_BF16: return __bfloat16_as_ushort(__double2bfloat16(value));
    case FTR_I32:
        return static_cast<uint32_t>(whole >= 2147483647.0    ? INT32_MAX
                                     : whole <= -2147483648.0 ? INT32_MIN
                                                              : static_cast<int32_t>(whole));
    case FTR_I64:
        return static_cast<uint64_t>(whole >= 9223372036854775808.0    ? INT64_MAX
                                     : whole <= -9223372036854775808.0 ? INT64_MIN
                                                                       : static_cast<int64_t>(whole));
    case FTR_U8: return whole >= 255.0 ? 255 : whole > 0.0 ? static_cast<uint64_t>(whole) : 0;
    default: return value != 0.0;
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_pad(const ftr_kernel_call *call) {
    const ftr_view *in = &call->in[0], *out = &call->out[0];
    ftr__padding p = {};
    uint64_t bits = ftr__padding_bits(in->dtype, call->attr->pad.value);
    for (size_t wide = ftr_dtype_size(in->dtype); wide < 8; wide *= 2) bits |= bits << 8 * wide;
    p.value[0] = p.value[1] = bits;
    for (int32_t d = 0; d < in->shape.rank; d++)
        ftr__padding_add(&p, out->shape.dim[d], in->shape.dim[d], call->attr->pad.before[d], 1);
    return ftr__padding_run(call, p);
}

FTR__CUDA_LIB ftr_status ftr__cuda_slice_grad(const ftr_kernel_call *call) {
    const ftr_view *in = &call->in[0], *out = &call->out[0];
    const int32_t axis = call->attr->slice.axis;
    ftr__padding p = {};
    for (int32_t d = 0; d < in->shape.rank; d++)
        ftr__padding_add(&p, out->shape.dim[d], in->shape.dim[d], d == axis ? call->attr->slice.begin : 0,
                         d == axis ? call->attr->slice.step : 1);
    return ftr__padding_run(call, p);
}
