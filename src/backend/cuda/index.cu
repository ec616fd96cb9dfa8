/* Ops on indices. An index out of range is reported, and its element left out: 0 in a result, nothing in a sum. Sums are added in
 * the order of the positions: these are sorted by their keys, rows of a weight or elements of a result. */
#include "backend/cuda/cuda.cuh"

/* --------------------------------------------------------------------------------------------- sorting by keys -- */

/* Positions 0 to count - 1 of an index, whose keys are below `keys`. Those of key k are order[ends[k - 1]] to order[ends[k] - 1]
 * in the end, in ascending order. A position without a key is left out. */
struct ftr__sorting {
    const void *index;
    ftr_dtype index_dtype;
    int64_t count, keys, limit; /* limit: of an index */
    ftr__cuda_fault_kind kind;
    unsigned *ends, *order, *loose, *tiles; /* loose: as `order`, but without an order of those of one key; sums of tiles */
    /* Of scatter_add, whose keys are elements of the result: the index's dimensions, the result's and the source's strides. */
    int32_t rank, axis; /* rank 0: the index is the key */
    int64_t dim[FTR_MAX_RANK], stride[FTR_MAX_RANK], source_stride[FTR_MAX_RANK];
};

#define FTR__SORT_A_THREAD 16
#define FTR__SORT_TILE (FTR__CUDA_THREADS * FTR__SORT_A_THREAD)

static int64_t ftr__sort_tiles(int64_t keys) { return (keys + FTR__SORT_TILE - 1) / FTR__SORT_TILE; }

static size_t ftr__sort_bytes(int64_t count, int64_t keys) {
    return sizeof(unsigned) * static_cast<size_t>(keys + 2 * count + ftr__sort_tiles(keys));
}

/* The key of position i; -1 if its index is out of range. */
static __device__ __forceinline__ int64_t ftr__sort_key(const ftr__sorting &p, int64_t i) {
    const int64_t index = ftr__load_integer(p.index, p.index_dtype, i);
    if (index < 0 || index >= p.limit) return -1;
    if (p.rank == 0) return index;
    int64_t key = 0;
    for (int32_t d = p.rank - 1; d >= 0; d--) {
        const int64_t next = i / p.dim[d];
        key += (d == p.axis ? index : i - next * p.dim[d]) * p.stride[d];
        i = next;
    }
    return key;
}

FTR__KERNEL ftr__sort_count(ftr__sorting p, ftr__cuda_reporter to) {
    FTR__GRID_LOOP(i, p.count) {
        const int64_t key = ftr__sort_key(p, i);
        if (key >= 0)
            atomicAdd(&p.ends[key], 1u);
        else
            ftr__in_range(to, p.kind, ftr__load_integer(p.index, p.index_dtype, i), i, p.limit);
    }
}

/* A block a tile of keys: how many positions these have. */
FTR__KERNEL ftr__sort_tile_sums(ftr__sorting p) {
    FTR_SHARED(double, room, 32); /* exact: there are fewer than 2^32 positions */
    for (int64_t tile = blockIdx.x; tile < (p.keys + FTR__SORT_TILE - 1) / FTR__SORT_TILE; tile += gridDim.x) {
        double sum = 0.0;
        for (int k = 0; k < FTR__SORT_A_THREAD; k++) {
            const int64_t key = tile * FTR__SORT_TILE + k * FTR__CUDA_THREADS + threadIdx.x;
            if (key < p.keys) sum += (double)p.ends[key];
        }
        sum = ftr__block_sum(sum, room);
        if (threadIdx.x == 0) p.tiles[tile] = (unsigned)sum;
    }
}

/* The sum of what the block's threads before this one have; `all`: of all threads. `room`: 8 elements. */
static __device__ __forceinline__ unsigned ftr__block_before(unsigned x, unsigned *room, unsigned *all) {
    const int warp = (int)threadIdx.x / FTR__CUDA_WARP, lane = (int)threadIdx.x % FTR__CUDA_WARP;
    unsigned sum = x;
    for (int by = 1; by < FTR__CUDA_WARP; by *= 2) {
        const unsigned left = __shfl_up_sync(FTR__CUDA_FULL, sum, by);
        if (lane >= by) sum += left;
    }
    if (lane == FTR__CUDA_WARP - 1) room[warp] = sum;
    __syncthreads();
    unsigned before = 0;
    *all = 0;
    for (int w = 0; w < FTR__CUDA_THREADS / FTR__CUDA_WARP; w++) {
        if (w == warp) before = *all;
        *all += room[w];
    }
    __syncthreads();
    return before + sum - x;
}

/* One block: sums become where tiles begin. */
FTR__KERNEL ftr__sort_tile_begins(ftr__sorting p, int64_t tiles) {
    FTR_SHARED(unsigned, room, FTR__CUDA_THREADS / FTR__CUDA_WARP);
    unsigned begin = 0;
    for (int64_t first = 0; first < tiles; first += FTR__CUDA_THREADS) {
        const int64_t tile = first + threadIdx.x;
        unsigned all;
        const unsigned before = ftr__block_before(tile < tiles ? p.tiles[tile] : 0, room, &all);
        if (tile < tiles) p.tiles[tile] = begin + before;
        begin += all;
    }
}

/* Counts become where keys begin. */
FTR__KERNEL ftr__sort_begins(ftr__sorting p) {
    FTR_SHARED(unsigned, room, FTR__CUDA_THREADS / FTR__CUDA_WARP);
    for (int64_t tile = blockIdx.x; tile < (p.keys + FTR__SORT_TILE - 1) / FTR__SORT_TILE; tile += gridDim.x) {
        unsigned begin = p.tiles[tile];
        for (int k = 0; k < FTR__SORT_A_THREAD; k++) {
            const int64_t key = tile * FTR__SORT_TILE + k * FTR__CUDA_THREADS + threadIdx.x;
            unsigned all;
            const unsigned before = ftr__block_before(key < p.keys ? p.ends[key] : 0, room, &all);
            if (key < p.keys) p.ends[key] = begin + before;
            begin += all;
        }
    }
}

/* Positions to their keys' places, in any order; where keys begin becomes where they end. */
FTR__KERNEL ftr__sort_place(ftr__sorting p) {
    FTR__GRID_LOOP(i, p.count) {
        const int64_t key = ftr__sort_key(p, i);
        if (key >= 0) p.loose[atomicAdd(&p.ends[key], 1u)] = (unsigned)i;
    }
}

/* Each position's place among those of its key. */
FTR__KERNEL ftr__sort_rank(ftr__sorting p) {
    FTR__GRID_LOOP(i, p.count) {
        const int64_t key = ftr__sort_key(p, i);
        if (key < 0) continue;
        const unsigned begin = key > 0 ? p.ends[key - 1] : 0, end = p.ends[key];
        unsigned place = begin;
        for (unsigned j = begin; j < end; j++) place += p.loose[j] < (unsigned)i;
        p.order[place] = (unsigned)i;
    }
}

/* Fills in ends and order, which lie in the workspace. */
static ftr_status ftr__sort(const ftr_kernel_call *call, ftr__sorting *p) {
    const int64_t tiles = ftr__sort_tiles(p->keys);
    if (p->count > INT32_MAX)
        return ftr_backend_error(call, FTR_ERROR_UNSUPPORTED, "the cuda backend sums by %d indices at most, not %lld",
                                 INT32_MAX, static_cast<long long>(p->count));
    p->ends = static_cast<unsigned *>(call->workspace);
    p->order = p->ends + p->keys;
    p->loose = p->order + p->count;
    p->tiles = p->loose + p->count;
    ftr_status status = ftr__cuda_clear(call, p->ends, sizeof(unsigned) * static_cast<size_t>(p->keys));
    const unsigned blocks = ftr__cuda_blocks(p->count), tile_blocks = ftr__cuda_blocks(tiles, 1);
    if (!status) status = FTR_LAUNCH(call, ftr__sort_count, blocks, FTR__CUDA_THREADS, *p, ftr__cuda_reporter_of(call));
    if (!status) status = FTR_LAUNCH(call, ftr__sort_tile_sums, tile_blocks, FTR__CUDA_THREADS, *p);
    if (!status) status = FTR_LAUNCH(call, ftr__sort_tile_begins, 1, FTR__CUDA_THREADS, *p, tiles);
    if (!status) status = FTR_LAUNCH(call, ftr__sort_begins, tile_blocks, FTR__CUDA_THREADS, *p);
    if (!status) status = FTR_LAUNCH(call, ftr__sort_place, blocks, FTR__CUDA_THREADS, *p);
    if (!status) status = FTR_LAUNCH(call, ftr__sort_rank, blocks, FTR__CUDA_THREADS, *p);
    return status;
}

/* ------------------------------------------------------------------------------------------------------- embedding -- */

/* Rows of `width` units. */
template <typename T>
FTR__KERNEL ftr__embedding_kernel(const T *weight, const void *index, ftr_dtype index_dtype, T *out, int64_t count, int64_t width,
                                  int64_t rows, ftr__cuda_reporter to) {
    FTR__GRID_LOOP(i, count * width) {
        const int64_t at = i / width, c = i - at * width, row = ftr__load_integer(index, index_dtype, at);
        T value = {};
        if (row >= 0 && row < rows)
            value = weight[row * width + c];
        else if (c == 0)
            ftr__in_range(to, FTR__CUDA_FAULT_ROW, row, at, rows);
        out[i] = value;
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_embedding(const ftr_kernel_call *call) {
    const ftr_view *weight = &call->in[0], *index = &call->in[1], *out = &call->out[0];
    const int64_t rows = weight->shape.dim[0], bytes = weight->shape.dim[1] * static_cast<int64_t>(ftr_dtype_size(weight->dtype));
    const bool packed = bytes % 16 == 0 && reinterpret_cast<uintptr_t>(weight->data) % 16 == 0 &&
                        reinterpret_cast<uintptr_t>(out->data) % 16 == 0;
    const auto run = [&](auto tag) {
        using T = decltype(tag);
        const int64_t width = bytes / static_cast<int64_t>(sizeof(T));
        return FTR_LAUNCH(call, (ftr__embedding_kernel<T>), ftr__cuda_blocks(index->count * width), FTR__CUDA_THREADS,
                          static_cast<const T *>(weight->data), index->data, index->dtype, static_cast<T *>(out->data),
                          index->count, width, rows, ftr__cuda_reporter_of(call));
    };
    if (packed) return run(ftr__pack<uint32_t>());
    return ftr_dtype_size(weight->dtype) == 2 ? run(uint16_t()) : run(uint32_t());
}

#define FTR__PIECE 32 /* sorted positions that a block adds up */

/* Sums of dy's rows of each row of the weight. The sorted positions are cut into pieces; the sum of a row that goes on over
 * pieces is added up from theirs: of a piece, partial sum 0 is that of its first row, 1 of its last one if that is another. */
struct ftr__embedding_sums {
    ftr__sorting sort;
    const void *dy;
    void *dw;
    ftr_dtype dtype;
    int64_t width;
    float *partial;
};

/* Positions in all. */
static __device__ __forceinline__ int64_t ftr__sorted(const ftr__sorting &p) { return p.keys > 0 ? p.ends[p.keys - 1] : 0; }

FTR__KERNEL ftr__embedding_grad_pieces(ftr__embedding_sums p) {
    const int64_t all = ftr__sorted(p.sort), column = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    for (int64_t piece = blockIdx.x; piece * FTR__PIECE < all; piece += gridDim.x) {
        const int64_t first = piece * FTR__PIECE, last = min(all, first + FTR__PIECE);
        if (column >= p.width) continue;
        for (int64_t at = first; at < last;) {
            const int64_t row = ftr__sort_key(p.sort, p.sort.order[at]);
            const int64_t begin = row > 0 ? p.sort.ends[row - 1] : 0, end = p.sort.ends[row], stop = min(last, end);
            float sum = 0.0f;
            for (; at < stop; at++) sum += ftr__load_real(p.dy, p.dtype, p.sort.order[at] * p.width + column);
            if (begin >= first && end <= last)
                ftr__store_real(p.dw, p.dtype, row * p.width + column, sum);
            else
                p.partial[(2 * piece + (begin > first)) * p.width + column] = sum;
        }
    }
}

/* A block a piece: its last row, if that begins in it and ends in another one. */
FTR__ROOMY_KERNEL ftr__embedding_grad_join(ftr__embedding_sums p) {
    const int64_t all = ftr__sorted(p.sort), column = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    for (int64_t piece = blockIdx.x; (piece + 1) * FTR__PIECE < all; piece += gridDim.x) {
        const int64_t first = piece * FTR__PIECE, row = ftr__sort_key(p.sort, p.sort.order[first + FTR__PIECE - 1]);
        const int64_t begin = row > 0 ? p.sort.ends[row - 1] : 0, end = p.sort.ends[row];
        if (column >= p.width || begin < first || end <= first + FTR__PIECE) continue;
        double sum = (double)p.partial[(2 * piece + (begin > first)) * p.width + column];
        for (int64_t next = piece + 1; next * FTR__PIECE < end; next++)
            sum += (double)p.partial[2 * next * p.width + column];
        ftr__store_real(p.dw, p.dtype, row * p.width + column, static_cast<float>(sum));
    }
}

static int64_t ftr__embedding_pieces(int64_t count) { return (count + FTR__PIECE - 1) / FTR__PIECE; }

static size_t ftr__embedding_sort_bytes(const ftr_kernel_call *call) {
    return (ftr__sort_bytes(call->in[1].count, call->out[0].shape.dim[0]) + 63) / 64 * 64;
}

FTR__CUDA_LIB size_t ftr__cuda_embedding_grad_workspace(const ftr_kernel_call *call) {
    return ftr__embedding_sort_bytes(call) + 2 * sizeof(float) *
                                                 static_cast<size_t>(ftr__embedding_pieces(call->in[1].count)) *
                                                 static_cast<size_t>(call->out[0].shape.dim[1]);
}

FTR__CUDA_LIB ftr_status ftr__cuda_embedding_grad(const ftr_kernel_call *call) {
    const ftr_view *dy = &call->in[0], *index = &call->in[1], *out = &call->out[0];
    ftr__embedding_sums p = {};
    ftr__sorting *sort = &p.sort;
    sort->index = index->data;
    sort->index_dtype = index->dtype;
    sort->count = index->count;
    sort->keys = sort->limit = out->shape.dim[0];
    sort->kind = FTR__CUDA_FAULT_ROW;
    p.dy = dy->data;
    p.dw = out->data;
    p.dtype = out->dtype;
    p.width = out->shape.dim[1];
    p.partial = reinterpret_cast<float *>(static_cast<char *>(call->workspace) + ftr__embedding_sort_bytes(call));
    ftr_status status = ftr__cuda_clear(call, out->data, static_cast<size_t>(out->count) * ftr_dtype_size(out->dtype));
    if (!status && index->count > 0) status = ftr__sort(call, sort);
    if (status || index->count == 0 || out->count == 0) return status;
    const unsigned threads = p.width < FTR__CUDA_THREADS ? static_cast<unsigned>((p.width + 31) / 32 * 32) : FTR__CUDA_THREADS;
    const dim3 grid(ftr__cuda_blocks(ftr__embedding_pieces(index->count), 1), ftr__cuda_blocks(p.width, threads));
    status = FTR_LAUNCH(call, ftr__embedding_grad_pieces, grid, threads, p);
    return status ? status : FTR_LAUNCH(call, ftr__embedding_grad_join, grid, threads, p);
}

/* ---------------------------------------------------------------------------------------------- gather and scatter -- */

/* Dimensions of an index, and the strides of a tensor that has at least them, but for the axis. */
static void ftr__index_strides(const ftr_shape *index, const ftr_shape *shape, int64_t *dim, int64_t *stride) {
    int64_t step = 1;
    for (int32_t d = shape->rank - 1; d >= 0; d--) {
        dim[d] = index->dim[d];
        stride[d] = step;
        step *= shape->dim[d];
    }
}

template <typename T> FTR__KERNEL ftr__gather_kernel(ftr__sorting p, ftr__cuda_reporter to, const T *x, T *out) {
    FTR__GRID_LOOP(i, p.count) {
        const int64_t key = ftr__sort_key(p, i);
        T value = {};
        if (key >= 0)
            value = x[key];
        else
            ftr__in_range(to, p.kind, ftr__load_integer(p.index, p.index_dtype, i), i, p.limit);
        out[i] = value;
    }
}

/* Positions of the index, whose keys are elements of a tensor of this shape. */
static ftr__sorting ftr__index_keys(const ftr_view *index, const ftr_shape *shape, int32_t axis) {
    ftr__sorting p = {};
    p.index = index->data;
    p.index_dtype = index->dtype;
    p.count = index->count;
    p.limit = shape->dim[axis];
    p.kind = FTR__CUDA_FAULT_AXIS;
    p.rank = shape->rank;
    p.axis = axis;
    ftr__index_strides(&index->shape, shape, p.dim, p.stride);
    return p;
}

FTR__CUDA_LIB ftr_status ftr__cuda_gather(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *out = &call->out[0];
    const ftr__sorting p = ftr__index_keys(&call->in[1], &x->shape, call->attr->axis.axis);
    const auto run = [&](auto tag) {
        using T = decltype(tag);
        return FTR_LAUNCH(call, (ftr__gather_kernel<T>), ftr__cuda_blocks(p.count), FTR__CUDA_THREADS, p,
                          ftr__cuda_reporter_of(call), static_cast<const T *>(x->data), static_cast<T *>(out->data));
    };
    switch (ftr_dtype_size(out->dtype)) {
    case 1: return run(uint8_t());
    case 2: return run(uint16_t());
    case 4: return run(uint32_t());
    default: return run(uint64_t());
    }
}

/* A thread an element of the result: x's, or 0, and what comes to it in the order of the index. */
FTR__KERNEL ftr__scatter_kernel(ftr__sorting p, const void *source, const void *x, void *out, ftr_dtype dtype, bool real) {
    FTR__GRID_LOOP(k, p.keys) {
        const unsigned begin = p.count == 0 || k == 0 ? 0 : p.ends[k - 1], end = p.count == 0 ? 0 : p.ends[k];
        double sum = x && real ? (double)ftr__load_real(x, dtype, k) : 0.0;
        unsigned long long whole = x && !real ? (unsigned long long)ftr__load_integer(x, dtype, k) : 0;
        for (unsigned j = begin; j < end; j++) {
            int64_t at = 0, rest = p.order[j];
            for (int32_t d = p.rank - 1; d >= 0; d--) {
                const int64_t next = rest / p.dim[d];
                at += (rest - next * p.dim[d]) * p.source_stride[d];
                rest = next;
            }
            if (real)
                sum += (double)ftr__load_real(source, dtype, at);
            else
                whole += (unsigned long long)ftr__load_integer(source, dtype, at);
        }
        if (real)
            ftr__store_real(out, dtype, k, static_cast<float>(sum));
        else
            ftr__store_integer(out, dtype, k, (int64_t)whole);
    }
}

FTR__CUDA_LIB size_t ftr__cuda_scatter_add_workspace(const ftr_kernel_call *call) {
    return ftr__sort_bytes(call->in[0].count, call->out[0].count);
}

FTR__CUDA_LIB ftr_status ftr__cuda_scatter_add(const ftr_kernel_call *call) {
    const ftr_view *index = &call->in[0], *source = &call->in[1], *out = &call->out[0];
    ftr__sorting p = ftr__index_keys(index, &out->shape, call->attr->scatter.axis);
    ftr__index_strides(&index->shape, &source->shape, p.dim, p.source_stride);
    p.keys = out->count;
    const ftr_status status = p.count > 0 ? ftr__sort(call, &p) : FTR_OK;
    if (status) return status;
    return FTR_LAUNCH(call, ftr__scatter_kernel, ftr__cuda_blocks(p.keys), FTR__CUDA_THREADS, p, source->data,
                      call->in_count > 2 ? call->in[2].data : nullptr, out->data, out->dtype, ftr__cuda_is_real(out->dtype));
}

/* --------------------------------------------------------------------------------------------------------- one hot -- */

FTR__KERNEL ftr__one_hot_kernel(const void *index, ftr_dtype index_dtype, void *out, ftr_dtype dtype, bool real, int64_t count,
                                int64_t classes, ftr__cuda_reporter to) {
    FTR__GRID_LOOP(i, count * classes) {
        const int64_t row = i / classes, c = i - row * classes, hot = ftr__load_integer(index, index_dtype, row);
        if (c == 0) ftr__in_range(to, FTR__CUDA_FAULT_CLASS, hot, row, classes);
        if (real)
            ftr__store_real(out, dtype, i, c == hot ? 1.0f : 0.0f);
        else
            ftr__store_integer(out, dtype, i, c == hot);
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_one_hot(const ftr_kernel_call *call) {
    const ftr_view *index = &call->in[0], *out = &call->out[0];
    return FTR_LAUNCH(call, ftr__one_hot_kernel, ftr__cuda_blocks(out->count), FTR__CUDA_THREADS, index->data, index->dtype,
                      out->data, out->dtype, ftr__cuda_is_real(out->dtype), index->count, call->attr->one_hot.classes,
                      ftr__cuda_reporter_of(call));
}

/* ----------------------------------------------------------------------------------------------------------- top k -- */

/* A number that is larger for larger elements: NaN is the largest, -0 is 0. */
static __device__ __forceinline__ int64_t ftr__topk_key(const void *x, ftr_dtype dtype, bool real, int64_t i) {
    if (!real) return ftr__load_integer(x, dtype, i);
    const float value = ftr__load_real(x, dtype, i);
    if (value != value) return INT64_MAX;
    const int64_t size = (int64_t)(__float_as_int(value) & 0x7fffffff);
    return value < 0.0f ? -size : size;
}

/* An element and its place; of two the larger one comes first, then that with the smaller place. A place of -1: none. */
struct ftr__topk_item {
    int64_t key, at;
};

static __device__ __forceinline__ bool ftr__topk_before(ftr__topk_item a, ftr__topk_item b) {
    if (a.at < 0 || b.at < 0) return b.at < 0 && a.at >= 0;
    return a.key > b.key || (a.key == b.key && a.at < b.at);
}

/* A block a row, k times: the first of the elements that come behind the one found last. */
FTR__KERNEL ftr__topk_kernel(const void *x, ftr_dtype dtype, bool real, void *values, int64_t *places, int64_t rows, int64_t n,
                             int64_t k) {
    FTR_SHARED(ftr__topk_item, room, FTR__CUDA_THREADS / FTR__CUDA_WARP);
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        ftr__topk_item last = {0, -1};
        for (int64_t o = row * k; o < (row + 1) * k; o++) {
            ftr__topk_item best = {0, -1};
            for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
                const ftr__topk_item item = {ftr__topk_key(x, dtype, real, row * n + i), i};
                if ((last.at < 0 || ftr__topk_before(last, item)) && ftr__topk_before(item, best)) best = item;
            }
            for (int bits = 16; bits > 0; bits /= 2) {
                const ftr__topk_item other = {__shfl_xor_sync(FTR__CUDA_FULL, best.key, bits),
                                              __shfl_xor_sync(FTR__CUDA_FULL, best.at, bits)};
                if (ftr__topk_before(other, best)) best = other;
            }
            if (threadIdx.x % FTR__CUDA_WARP == 0) room[threadIdx.x / FTR__CUDA_WARP] = best;
            __syncthreads();
            last = room[0];
            for (int w = 1; w < FTR__CUDA_THREADS / FTR__CUDA_WARP; w++)
                if (ftr__topk_before(room[w], last)) last = room[w];
            __syncthreads();
            if (threadIdx.x != 0) continue;
            places[o] = last.at;
            if (real)
                ftr__store_real(values, dtype, o, ftr__load_real(x, dtype, row * n + last.at));
            else
                ftr__store_integer(values, dtype, o, last.key);
        }
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_topk(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0];
    const int64_t n = x->shape.dim[x->shape.rank - 1];
    if (call->out[0].count == 0) return FTR_OK;
    return FTR_LAUNCH(call, ftr__topk_kernel, ftr__cuda_blocks(x->count / n, 1), FTR__CUDA_THREADS, x->data, x->dtype,
                      ftr__cuda_is_real(x->dtype), call->out[0].data, static_cast<int64_t *>(call->out[1].data), x->count / n, n,
                      call->attr->topk.k);
}
