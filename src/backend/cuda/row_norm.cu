/* Layer norm and RMS norm: a warp or a block has a row, in registers if it fits. Statistics take two passes: sums of x - x0
 * give the mean, sums of x - mean and of their squares the variance, with what the rounding of the mean left over. */
#include "backend/cuda/vector.cuh"

struct ftr__row_norm {
    int64_t rows, n;
    bool rms;
    float eps;
    const float *gamma, *beta; /* nullptr where missing */
    float *mean, *invstd;      /* of the gradient only read; mean of layer norm alone */
};

static ftr__row_norm ftr__row_norm_of(const ftr_kernel_call *call, const ftr_view *x) {
    ftr__row_norm p = {};
    const int32_t leading = x->shape.rank - call->attr->row_norm.dims;
    p.rows = p.n = 1;
    for (int32_t d = 0; d < x->shape.rank; d++) *(d < leading ? &p.rows : &p.n) *= x->shape.dim[d];
    p.rms = call->op == FTR_OP_rms_norm || call->op == FTR_OP_rms_norm_grad;
    p.eps = static_cast<float>(call->attr->row_norm.eps);
    return p;
}

/* Of the threads that share a row. */
template <int LANES> static __device__ __forceinline__ float ftr__row_sum(float x, float *room) {
    if (LANES == FTR__CUDA_WARP) return ftr__warp_sum(x);
    return ftr__block_sum(x, room);
}

/* A row's elements of one thread, V at a time: up to PACKS times, held; PACKS 0: any number, read again in each pass. f(x, at, k)
 * is called for each, `at` being its place in the row. */
template <typename T, int V, int LANES, int PACKS> struct ftr__norm_row {
    float held[PACKS > 0 ? PACKS : 1][V];
    const T *from;
    int64_t n;
    int lane;

    __device__ __forceinline__ void open(const T *row, int64_t count) {
        from = row;
        n = count;
        lane = (int)threadIdx.x % LANES;
        if constexpr (PACKS > 0) {
            FTR__UNROLL
            for (int i = 0; i < PACKS; i++) {
                const int64_t at = (int64_t)(i * LANES + lane) * V;
                if (at < n) ftr__load_vector<T, V>(row + at, held[i]);
            }
        }
    }

    /* Calls f with each vector, which is kept as f leaves it, if it is held. */
    template <typename F> __device__ __forceinline__ void each(F f) {
        if constexpr (PACKS == 0) {
            for (int64_t at = (int64_t)lane * V; at < n; at += LANES * V) {
                ftr__load_vector<T, V>(from + at, held[0]);
                f(held[0], at);
            }
        } else {
            FTR__UNROLL
            for (int i = 0; i < PACKS; i++) {
                const int64_t at = (int64_t)(i * LANES + lane) * V;
                if (at < n) f(held[i], at);
            }
        }
    }
};

/* y may be x. */
template <typename T, int V, int LANES, int PACKS> FTR__KERNEL ftr__row_norm_kernel(ftr__row_norm p, const T *x, T *y) {
    FTR_SHARED(float, room, FTR__CUDA_WARP);
    constexpr int rows = FTR__CUDA_THREADS / LANES; /* of a block */
    const float n = static_cast<float>(p.n);
    for (int64_t row = (int64_t)blockIdx.x * rows + threadIdx.x / LANES; row < p.rows;
         row += (int64_t)gridDim.x * rows) {
        ftr__norm_row<T, V, LANES, PACKS> mine;
        mine.open(x + row * p.n, p.n);
        float mean = 0.0f, left = 0.0f;
        if (!p.rms) {
            const float first = p.n > 0 ? ftr__to_float(x[row * p.n]) : 0.0f;
            float sum = 0.0f;
            mine.each([&](float(&v)[V], int64_t) {
                FTR__UNROLL
                for (int k = 0; k < V; k++) sum += v[k] - first;
            });
            mean = first + ftr__row_sum<LANES>(sum, room) / n;
        }
        float sum = 0.0f, squares = 0.0f;
        mine.each([&](float(&v)[V], int64_t) {
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                const float d = v[k] - mean;
                sum += d;
                squares = fmaf(d, d, squares);
            }
        });
        if (!p.rms) left = ftr__row_sum<LANES>(sum, room) / n;
        const float variance = ftr__row_sum<LANES>(squares, room) / n - left * left;
        const float invstd = 1.0f / sqrtf((variance <= 0.0f ? 0.0f : variance) + p.eps);
        if (threadIdx.x % LANES == 0) {
            if (!p.rms) p.mean[row] = mean;
            p.invstd[row] = invstd;
        }
        T *to = y + row * p.n;
        const float shift = -left * invstd;
        mine.each([&](float(&v)[V], int64_t at) {
            float scale[V] = {}, more[V] = {}, z[V];
            if (p.gamma) ftr__load_vector<float, V>(p.gamma + at, scale);
            if (p.beta) ftr__load_vector<float, V>(p.beta + at, more);
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                z[k] = fmaf(v[k] - mean, invstd, shift);
                if (p.gamma) z[k] *= scale[k];
                if (p.beta) z[k] += more[k];
            }
            ftr__store_vector<T, V>(to + at, z);
        });
    }
}

/* With u = dy gamma and z = (x - mean) / std: dx = (u - mean of u - z mean of u z) / std; RMS norm has no mean of u. dx may be
 * dy. */
template <typename T, int V, int LANES, int PACKS>
FTR__ROOMY_KERNEL ftr__row_norm_grad_kernel(ftr__row_norm p, const T *dy, const T *x, T *dx) {
    FTR_SHARED(float, room, FTR__CUDA_WARP);
    constexpr int rows = FTR__CUDA_THREADS / LANES;
    const float n = static_cast<float>(p.n);
    for (int64_t row = (int64_t)blockIdx.x * rows + threadIdx.x / LANES; row < p.rows;
         row += (int64_t)gridDim.x * rows) {
        ftr__norm_row<T, V, LANES, PACKS> mine;
        mine.open(dy + row * p.n, p.n);
        const float mean = p.rms ? 0.0f : p.mean[row], invstd = p.invstd[row];
        const T *source = x + row * p.n;
        T *to = dx + row * p.n;
        float sum = 0.0f, product = 0.0f;
        mine.each([&](float(&u)[V], int64_t at) {
            float v[V], scale[V] = {};
            ftr__load_vector<T, V>(source + at, v);
            if (p.gamma) ftr__load_vector<float, V>(p.gamma + at, scale);
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                if (p.gamma) u[k] *= scale[k];
                sum += u[k];
                product = fmaf(u[k], (v[k] - mean) * invstd, product);
            }
        });
        sum = p.rms ? 0.0f : ftr__row_sum<LANES>(sum, room) / n;
        product = ftr__row_sum<LANES>(product, room) / n;
        mine.each([&](float(&u)[V], int64_t at) {
            float v[V], scale[V] = {}, d[V];
            ftr__load_vector<T, V>(source + at, v);
            if (PACKS == 0 && p.gamma) ftr__load_vector<float, V>(p.gamma + at, scale);
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                if (PACKS == 0 && p.gamma) u[k] *= scale[k];
                d[k] = invstd * (u[k] - sum - (v[k] - mean) * invstd * product);
            }
            ftr__store_vector<T, V>(to + at, d);
        });
    }
}

/* Calls run(vector width, lanes, packs) with integral constants that fit rows of n elements. */
template <typename T, typename F> static ftr_status ftr__row_norm_dispatch(int64_t n, bool aligned, F run) {
    constexpr int width = ftr__vector_width<T>();
    constexpr ftr__constant<FTR__CUDA_WARP> warp = {};
    constexpr ftr__constant<FTR__CUDA_THREADS> block = {};
    constexpr ftr__constant<width> wide = {};
    if (!aligned || n % width != 0)
        return n <= 1024 ? run(ftr__constant<1>(), warp, ftr__constant<0>())
                         : run(ftr__constant<1>(), block, ftr__constant<0>());
    if (n <= 8 * FTR__CUDA_WARP) return run(wide, warp, ftr__constant<8 / width>());
    if (n <= 32 * FTR__CUDA_WARP) return run(wide, warp, ftr__constant<32 / width>());
    if (n <= 8 * FTR__CUDA_THREADS) return run(wide, block, ftr__constant<8 / width>());
    if (n <= 32 * FTR__CUDA_THREADS) return run(wide, block, ftr__constant<32 / width>());
    return run(wide, block, ftr__constant<0>());
}

static unsigned ftr__row_norm_blocks(const ftr__row_norm *p, int lanes) {
    return ftr__cuda_blocks(p->rows, FTR__CUDA_THREADS / lanes);
}

FTR__CUDA_LIB ftr_status ftr__cuda_row_norm(const ftr_kernel_call *call) {
    ftr__row_norm p = ftr__row_norm_of(call, &call->in[0]);
    p.gamma = ftr__optional_data<float>(call, 1);
    p.beta = p.rms ? nullptr : ftr__optional_data<float>(call, 2);
    if (!p.rms) p.mean = static_cast<float *>(call->out[1].data);
    p.invstd = static_cast<float *>(call->out[p.rms ? 1 : 2].data);
    return ftr__for_real(call, call->in[0].dtype, [&](auto tag) {
        using T = decltype(tag);
        return ftr__row_norm_dispatch<T>(p.n, ftr__all_aligned(call), [&](auto width, auto lanes, auto packs) {
            constexpr int V = decltype(width)::value, LANES = decltype(lanes)::value, PACKS = decltype(packs)::value;
            return FTR_LAUNCH(call, (ftr__row_norm_kernel<T, V, LANES, PACKS>), ftr__row_norm_blocks(&p, LANES),
                              FTR__CUDA_THREADS, p, static_cast<const T *>(call->in[0].data),
                              static_cast<T *>(call->out[0].data));
        });
    });
}

/* ---------------------------------------------------------------------------------------------- gamma's and beta's -- */

#define FTR__ROW_NORM_TILE 32  /* columns of a block */
#define FTR__ROW_NORM_LINES 8  /* rows that it takes at a time */
#define FTR__ROW_NORM_LEAST 32 /* rows of a chunk, at least */
#define FTR__ROW_NORM_BLOCKS 1024

struct ftr__row_norm_chunks {
    int64_t tiles, chunks, a_chunk;
};

static ftr__row_norm_chunks ftr__row_norm_chunks_of(const ftr__row_norm *p) {
    ftr__row_norm_chunks c = {};
    c.tiles = (p->n + FTR__ROW_NORM_TILE - 1) / FTR__ROW_NORM_TILE;
    const int64_t wanted = FTR__ROW_NORM_BLOCKS / (c.tiles + 1) + 1;
    const int64_t most = (p->rows + FTR__ROW_NORM_LEAST - 1) / FTR__ROW_NORM_LEAST;
    const int64_t chunks = wanted < most ? wanted : most;
    c.a_chunk = chunks > 0 ? (p->rows + chunks - 1) / chunks : 1;
    c.chunks = (p->rows + c.a_chunk - 1) / c.a_chunk;
    return c;
}

/* Shares of dgamma and dbeta, of a chunk of rows and a tile of columns: partial is [chunks][2][n]. */
template <typename T>
FTR__KERNEL ftr__row_norm_parameter_sums(ftr__row_norm p, ftr__row_norm_chunks c, const T *dy, const T *x,
                                         float *partial) {
    FTR_SHARED(float, gammas, FTR__CUDA_THREADS);
    FTR_SHARED(float, betas, FTR__CUDA_THREADS);
    const int lane = (int)threadIdx.x % FTR__ROW_NORM_TILE, line = (int)threadIdx.x / FTR__ROW_NORM_TILE;
    for (int64_t task = blockIdx.x; task < c.tiles * c.chunks; task += gridDim.x) {
        const int64_t column = task % c.tiles * FTR__ROW_NORM_TILE + lane, chunk = task / c.tiles;
        const int64_t begin = chunk * c.a_chunk, end = min(p.rows, begin + c.a_chunk);
        float dgamma = 0.0f, dbeta = 0.0f;
        for (int64_t row = begin + line; row < end; row += FTR__ROW_NORM_LINES) {
            if (column >= p.n) break;
            const float d = ftr__to_float(dy[row * p.n + column]), v = ftr__to_float(x[row * p.n + column]);
            dgamma = fmaf(d, (v - (p.rms ? 0.0f : p.mean[row])) * p.invstd[row], dgamma);
            dbeta += d;
        }
        gammas[threadIdx.x] = dgamma;
        betas[threadIdx.x] = dbeta;
        __syncthreads();
        if (line == 0 && column < p.n) {
            for (int i = 1; i < FTR__ROW_NORM_LINES; i++) {
                dgamma += gammas[i * FTR__ROW_NORM_TILE + lane];
                dbeta += betas[i * FTR__ROW_NORM_TILE + lane];
            }
            partial[chunk * 2 * p.n + column] = dgamma;
            partial[(chunk * 2 + 1) * p.n + column] = dbeta;
        }
        __syncthreads();
    }
}

/* The sum over chunks: a tile of columns a block, whose warps take chunks by turns. */
FTR__KERNEL ftr__row_norm_parameters(ftr__row_norm p, ftr__row_norm_chunks c, const float *partial, float *dgamma,
                                     float *dbeta) {
    FTR_SHARED(double, gammas, FTR__CUDA_THREADS);
    FTR_SHARED(double, betas, FTR__CUDA_THREADS);
    const int lane = (int)threadIdx.x % FTR__ROW_NORM_TILE, line = (int)threadIdx.x / FTR__ROW_NORM_TILE;
    for (int64_t tile = blockIdx.x; tile < c.tiles; tile += gridDim.x) {
        const int64_t column = tile * FTR__ROW_NORM_TILE + lane;
        double sum = 0.0, product = 0.0;
        for (int64_t chunk = line; chunk < c.chunks && column < p.n; chunk += FTR__ROW_NORM_LINES) {
            product += partial[chunk * 2 * p.n + column];
            sum += partial[(chunk * 2 + 1) * p.n + column];
        }
        gammas[threadIdx.x] = product;
        betas[threadIdx.x] = sum;
        __syncthreads();
        if (line == 0 && column < p.n) {
            for (int i = 1; i < FTR__ROW_NORM_LINES; i++) {
                product += gammas[i * FTR__ROW_NORM_TILE + lane];
                sum += betas[i * FTR__ROW_NORM_TILE + lane];
            }
            dgamma[column] = static_cast<float>(product);
            if (dbeta) dbeta[column] = static_cast<float>(sum);
        }
        __syncthreads();
    }
}

FTR__CUDA_LIB size_t ftr__cuda_row_norm_grad_workspace(const ftr_kernel_call *call) {
    const ftr__row_norm p = ftr__row_norm_of(call, &call->in[1]);
    const ftr__row_norm_chunks c = ftr__row_norm_chunks_of(&p);
    return call->attr->row_norm.sums ? static_cast<size_t>(c.chunks * 2 * p.n) * sizeof(float) : 0;
}

/* dgamma and dbeta come first, for dx may lie in dy's memory. */
FTR__CUDA_LIB ftr_status ftr__cuda_row_norm_grad(const ftr_kernel_call *call) {
    ftr__row_norm p = ftr__row_norm_of(call, &call->in[1]);
    if (!p.rms) p.mean = static_cast<float *>(call->in[2].data);
    p.invstd = static_cast<float *>(call->in[p.rms ? 2 : 3].data);
    p.gamma = ftr__optional_data<float>(call, p.rms ? 3 : 4);
    return ftr__for_real(call, call->in[1].dtype, [&](auto tag) {
        using T = decltype(tag);
        const T *dy = static_cast<const T *>(call->in[0].data), *x = static_cast<const T *>(call->in[1].data);
        if (call->attr->row_norm.sums) {
            const ftr__row_norm_chunks c = ftr__row_norm_chunks_of(&p);
            float *partial = static_cast<float *>(call->workspace);
            float *dbeta = p.rms ? nullptr : static_cast<float *>(call->out[2].data);
            ftr_status status =
                FTR_LAUNCH(call, (ftr__row_norm_parameter_sums<T>), ftr__cuda_blocks(c.tiles * c.chunks, 1),
                           FTR__CUDA_THREADS, p, c, dy, x, partial);
            if (status == FTR_OK)
                status = FTR_LAUNCH(call, ftr__row_norm_parameters, ftr__cuda_blocks(c.tiles, 1), FTR__CUDA_THREADS, p,
                                    c, partial, static_cast<float *>(call->out[1].data), dbeta);
            if (status != FTR_OK) return status;
        }
        return ftr__row_norm_dispatch<T>(p.n, ftr__all_aligned(call), [&](auto width, auto lanes, auto packs) {
            constexpr int V = decltype(width)::value, LANES = decltype(lanes)::value, PACKS = decltype(packs)::value;
            return FTR_LAUNCH(call, (ftr__row_norm_grad_kernel<T, V, LANES, PACKS>), ftr__row_norm_blocks(&p, LANES),
                              FTR__CUDA_THREADS, p, dy, x, static_cast<T *>(call->out[0].data));
        });
    });
}
