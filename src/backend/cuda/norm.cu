/* Batch norm and group norm of [n, ..., c]: a matrix whose columns are channels, of the whole batch or of a sample.
 *
 * A block has a tile of columns, a vector of them a thread, and a chunk of rows, over which its threads go side by side. A
 * thread takes some rows at a time: their mean and the squared deviations from it are joined with those of the rows before
 * (Chan, Golub, LeVeque: Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979), all of it relative to
 * the chunk's first row that counts, so that a mean far from 0 costs no precision. A second kernel joins chunks, in double. */
#include "backend/cuda/vector.cuh"

#define FTR__NORM_BLOCKS 1024 /* that a matrix is cut into, about, if it is large */
#define FTR__NORM_BATCH 4     /* rows that a thread takes at a time */
#define FTR__NORM_LEAST 4     /* such batches of a thread, at least */

struct ftr__norm_tiles {
    int64_t samples, rows, columns; /* matrices; rows and columns of each */
    int64_t tiles, chunks, a_chunk; /* of a matrix; rows of a chunk */
    int lanes;                      /* threads side by side: a power of two */
    int64_t width, sets;            /* columns with common statistics, and how many such sets a sample has */
    const float *mask;              /* of samples of the batch; nullptr: all rows count */
    int64_t rows_per_mask;
};

static ftr__norm_tiles ftr__norm_tiles_of(int64_t samples, int64_t rows, int64_t columns, int64_t width, int vector) {
    ftr__norm_tiles p = {};
    const int64_t packs = columns / vector;
    p.samples = samples;
    p.rows = rows;
    p.columns = columns;
    p.width = width;
    for (p.lanes = 1; p.lanes < packs && p.lanes < FTR__CUDA_WARP;) p.lanes *= 2;
    p.tiles = (packs + p.lanes - 1) / p.lanes;
    const int64_t least = FTR__CUDA_THREADS / p.lanes * FTR__NORM_BATCH * FTR__NORM_LEAST;
    const int64_t wanted = FTR__NORM_BLOCKS / (samples * p.tiles + 1) + 1;
    const int64_t most = (rows + least - 1) / least, chunks = wanted < most ? wanted : most;
    p.a_chunk = chunks > 0 ? (rows + chunks - 1) / chunks : 1;
    p.chunks = (rows + p.a_chunk - 1) / p.a_chunk;
    return p;
}

/* A block's share and a thread's place in it. */
struct ftr__norm_place {
    int64_t sample, chunk, begin, end; /* rows of the sample's matrix */
    int64_t column;                    /* the thread's first one */
    int lane, line, lines;             /* rows begin + line, begin + line + lines, ... are the thread's */
    bool is_there;                     /* the column */
};

static __device__ __forceinline__ ftr__norm_place ftr__norm_place_of(const ftr__norm_tiles &p, int64_t task,
                                                                     int vector) {
    ftr__norm_place at;
    at.lane = (int)threadIdx.x & (p.lanes - 1);
    at.line = (int)threadIdx.x / p.lanes;
    at.lines = FTR__CUDA_THREADS / p.lanes;
    const int64_t tile = task % p.tiles, rest = task / p.tiles;
    at.chunk = rest % p.chunks;
    at.sample = rest / p.chunks;
    at.begin = at.chunk * p.a_chunk;
    at.end = min(p.rows, at.begin + p.a_chunk);
    at.column = (tile * p.lanes + at.lane) * vector;
    at.is_there = at.column < p.columns;
    return at;
}

static int64_t ftr__norm_tasks(const ftr__norm_tiles *p) { return p->tiles * p->chunks * p->samples; }

static __device__ __forceinline__ bool ftr__norm_counts(const ftr__norm_tiles &p, int64_t row) {
    return !p.mask || p.mask[row / p.rows_per_mask] != 0.0f;
}

/* ------------------------------------------------------------------------------------------------------ activations -- */

static __device__ __forceinline__ float ftr__norm_sigmoid(float x) {
    const float e = expf(-fabsf(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

static __device__ __forceinline__ float ftr__norm_activate(ftr_activation activation, float x) {
    switch (activation) {
    case FTR_ACT_RELU: return x < 0.0f ? 0.0f : x;
    case FTR_ACT_RELU6: return x < 0.0f ? 0.0f : x > 6.0f ? 6.0f : x;
    case FTR_ACT_HARDSWISH: return x <= -3.0f ? 0.0f : x >= 3.0f ? x : x * ((x + 3.0f) * (1.0f / 6.0f));
    case FTR_ACT_SILU: return x * ftr__norm_sigmoid(x);
    default: return x;
    }
}

/* d times the slope at x. */
static __device__ __forceinline__ float ftr__norm_slope(ftr_activation activation, float d, float x) {
    switch (activation) {
    case FTR_ACT_RELU: return x <= 0.0f ? 0.0f : d;
    case FTR_ACT_RELU6: return x > 0.0f && x < 6.0f ? d : 0.0f;
    case FTR_ACT_HARDSWISH: return x <= -3.0f ? 0.0f : x >= 3.0f ? d : d * (x * (1.0f / 3.0f) + 0.5f);
    case FTR_ACT_SILU: {
        const float s = ftr__norm_sigmoid(x);
        return d * (s + x * s * (1.0f - s));
    }
    default: return d;
    }
}

/* ------------------------------------------------------------------------------------------------------- statistics -- */

struct ftr__norm_moments {
    double count, mean, deviation; /* the sum of squared deviations from the mean */
};

static __device__ __forceinline__ void ftr__norm_join(ftr__norm_moments *a, const ftr__norm_moments &b) {
    if (b.count == 0.0) return;
    const double all = a->count + b.count, share = b.count / all, apart = b.mean - a->mean;
    a->deviation += b.deviation + apart * apart * a->count * share;
    a->mean += apart * share;
    a->count = all;
}

/* Joins moments of some rows with those of the rows before, in f32. `share`: of all rows, those that are new. */
static __device__ __forceinline__ void ftr__norm_join_f32(float *mean, float *deviation, float other_mean,
                                                          float other_deviation, float count, float share) {
    const float apart = other_mean - *mean;
    *deviation += other_deviation + apart * apart * count * share;
    *mean += apart * share;
}

/* partial: [samples][columns][chunks]. */
template <typename T, int V>
FTR__ROOMY_KERNEL ftr__norm_statistics(ftr__norm_tiles p, const T *x, ftr__norm_moments *partial) {
    FTR_SHARED(float, means, V *FTR__CUDA_THREADS);
    FTR_SHARED(float, deviations, V *FTR__CUDA_THREADS);
    FTR_SHARED(float, counts, FTR__CUDA_THREADS);
    const int me = (int)threadIdx.x;
    for (int64_t task = blockIdx.x; task < p.tiles * p.chunks * p.samples; task += gridDim.x) {
        const ftr__norm_place at = ftr__norm_place_of(p, task, V);
        const T *data = x + at.sample * p.rows * p.columns + at.column;
        float center[V] = {}, mean[V] = {}, deviation[V] = {}, count = 0.0f;
        int64_t first = at.begin;
        while (first < at.end && !ftr__norm_counts(p, first)) first = (first / p.rows_per_mask + 1) * p.rows_per_mask;
        if (at.is_there && first < at.end) ftr__load_vector<T, V>(data + first * p.columns, center);
        for (int64_t row = at.begin + at.line; row < at.end && at.is_there;
             row += (int64_t)at.lines * FTR__NORM_BATCH) {
            float v[FTR__NORM_BATCH][V], some = 0.0f;
            bool take[FTR__NORM_BATCH];
            FTR__UNROLL
            for (int i = 0; i < FTR__NORM_BATCH; i++) {
                const int64_t r = row + (int64_t)i * at.lines;
                take[i] = r < at.end && ftr__norm_counts(p, r);
                if (take[i]) ftr__load_vector<T, V>(data + r * p.columns, v[i]);
                some += take[i] ? 1.0f : 0.0f;
            }
            if (some == 0.0f) continue;
            const float share = some / (count + some), part = 1.0f / some;
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                float sum = 0.0f, squares = 0.0f, rest = 0.0f;
                FTR__UNROLL
                for (int i = 0; i < FTR__NORM_BATCH; i++) sum += take[i] ? v[i][k] - center[k] : 0.0f;
                const float its_mean = sum * part;
                FTR__UNROLL
                for (int i = 0; i < FTR__NORM_BATCH; i++) {
                    const float d = take[i] ? v[i][k] - center[k] - its_mean : 0.0f;
                    squares += d * d;
                    rest += d; /* of the mean's rounding */
                }
                ftr__norm_join_f32(&mean[k], &deviation[k], its_mean + rest * part, squares, count, share);
            }
            count += some;
        }
        FTR__UNROLL
        for (int k = 0; k < V; k++) {
            means[k * FTR__CUDA_THREADS + me] = mean[k];
            deviations[k * FTR__CUDA_THREADS + me] = deviation[k];
        }
        counts[me] = count;
        for (int step = at.lines / 2; step > 0; step /= 2) {
            __syncthreads();
            const int other = me + step * p.lanes;
            if (at.line >= step || counts[other] == 0.0f) continue;
            const float all = count + counts[other], share = counts[other] / all;
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                const int o = k * FTR__CUDA_THREADS + other;
                ftr__norm_join_f32(&mean[k], &deviation[k], means[o], deviations[o], count, share);
                means[k * FTR__CUDA_THREADS + me] = mean[k];
                deviations[k * FTR__CUDA_THREADS + me] = deviation[k];
            }
            count = all;
            counts[me] = count;
        }
        if (at.line == 0 && at.is_there) {
            FTR__UNROLL
            for (int k = 0; k < V; k++)
                partial[(at.sample * p.columns + at.column + k) * p.chunks + at.chunk] = {
                    count, (double)center[k] + (double)mean[k], deviation[k]};
        }
        __syncthreads();
    }
}

/* Of `count` partial results, by a warp; each lane has the result. */
static __device__ __forceinline__ ftr__norm_moments ftr__norm_join_parts(const ftr__norm_moments *part, int64_t count) {
    ftr__norm_moments all = {0.0, 0.0, 0.0};
    for (int64_t i = threadIdx.x % FTR__CUDA_WARP; i < count; i += FTR__CUDA_WARP) ftr__norm_join(&all, part[i]);
    for (int bits = 16; bits > 0; bits /= 2) {
        ftr__norm_moments other;
        other.count = __shfl_xor_sync(FTR__CUDA_FULL, all.count, bits);
        other.mean = __shfl_xor_sync(FTR__CUDA_FULL, all.mean, bits);
        other.deviation = __shfl_xor_sync(FTR__CUDA_FULL, all.deviation, bits);
        ftr__norm_join(&all, other);
    }
    all.count = __shfl_sync(FTR__CUDA_FULL, all.count, 0);
    all.mean = __shfl_sync(FTR__CUDA_FULL, all.mean, 0);
    all.deviation = __shfl_sync(FTR__CUDA_FULL, all.deviation, 0);
    return all;
}

/* What a kernel that makes coefficients needs besides the sizes. Of group norm variance and running statistics are missing. */
struct ftr__norm_parameters {
    const float *gamma, *beta; /* nullptr: 1, 0 */
    const float *running_mean, *running_variance;
    float *mean, *variance, *invstd;
    double eps;
    float *coefficients; /* [samples][3][columns]: mean, scale, shift */
};

/* A warp a set of columns. The shift makes up for the mean's rounding. The running statistics stand in where they are asked
 * for, and in training where no row counts. */
FTR__ROOMY_KERNEL ftr__norm_finish(ftr__norm_tiles p, ftr__norm_parameters q, const ftr__norm_moments *partial,
                                   bool use_running) {
    const int64_t warps = (int64_t)gridDim.x * (FTR__CUDA_THREADS / FTR__CUDA_WARP);
    const int64_t first = ((int64_t)blockIdx.x * FTR__CUDA_THREADS + threadIdx.x) / FTR__CUDA_WARP;
    const int lane = (int)threadIdx.x % FTR__CUDA_WARP;
    for (int64_t s = first; s < p.samples * p.sets; s += warps) {
        const int64_t items = use_running ? 0 : p.chunks * p.width;
        const ftr__norm_moments all = ftr__norm_join_parts(partial + s * items, items);
        double mean = all.mean, biased = all.deviation / all.count;
        double unbiased = all.deviation / (all.count > 1.0 ? all.count - 1.0 : 1.0);
        if (all.count == 0.0 && q.running_mean) {
            mean = q.running_mean[s];
            biased = unbiased = q.running_variance[s];
        } else if (all.count == 0.0) {
            mean = biased; /* NaN */
        }
        const double invstd = 1.0 / sqrt(biased + q.eps);
        const float rounded = static_cast<float>(mean);
        if (lane == 0) {
            q.mean[s] = rounded;
            if (q.variance) q.variance[s] = static_cast<float>(unbiased);
            q.invstd[s] = static_cast<float>(invstd);
        }
        float *to = q.coefficients + s / p.sets * 3 * p.columns;
        for (int64_t c = s % p.sets * p.width + lane; c < (s % p.sets + 1) * p.width; c += FTR__CUDA_WARP) {
            const double scale = q.gamma ? (double)q.gamma[c] * invstd : invstd;
            to[c] = rounded;
            to[p.columns + c] = static_cast<float>(scale);
            to[2 * p.columns + c] =
                static_cast<float>((q.beta ? (double)q.beta[c] : 0.0) + ((double)rounded - mean) * scale);
        }
    }
}

/* y = activation((x - mean) scale + shift + residual). y may be x. */
template <typename T, int V>
FTR__KERNEL ftr__norm_apply(ftr__norm_tiles p, const T *x, const float *coefficients, const T *residual,
                            ftr_activation activation, T *y) {
    for (int64_t task = blockIdx.x; task < p.tiles * p.chunks * p.samples; task += gridDim.x) {
        const ftr__norm_place at = ftr__norm_place_of(p, task, V);
        if (!at.is_there) continue;
        float mean[V], scale[V], shift[V];
        const float *from = coefficients + at.sample * 3 * p.columns + at.column;
        ftr__load_vector<float, V>(from, mean);
        ftr__load_vector<float, V>(from + p.columns, scale);
        ftr__load_vector<float, V>(from + 2 * p.columns, shift);
        int64_t index = (at.sample * p.rows + at.begin + at.line) * p.columns + at.column;
        const int64_t end = (at.sample * p.rows + at.end) * p.columns, step = at.lines * p.columns;
        for (; index < end; index += step) {
            float v[V], more[V] = {};
            ftr__load_vector<T, V>(x + index, v);
            if (residual) ftr__load_vector<T, V>(residual + index, more);
            FTR__UNROLL
            for (int k = 0; k < V; k++)
                v[k] = ftr__norm_activate(activation, fmaf(v[k] - mean[k], scale[k], shift[k]) + more[k]);
            ftr__store_vector<T, V>(y + index, v);
        }
    }
}

/* --------------------------------------------------------------------------------------------------------- gradient -- */

/* How dy gets through the activation behind a batch norm: where y is positive, or times the slope at
 * (x - mean) gamma / std + beta. */
template <typename T> struct ftr__norm_gate {
    ftr_activation activation;
    const T *y;
    const float *gamma, *invstd, *beta;
};

struct ftr__norm_sums {
    double sum, product; /* of g; of g (x - mean) */
};

/* g of a vector of dy; x is centered. */
template <typename T, int V>
static __device__ __forceinline__ void ftr__norm_through(const ftr__norm_gate<T> &gate, int64_t index, float (&d)[V],
                                                         const float (&x)[V], const float (&scale)[V],
                                                         const float (&shift)[V]) {
    if (gate.activation == FTR_ACT_NONE) return;
    if (gate.y) {
        float y[V];
        ftr__load_vector<T, V>(gate.y + index, y);
        FTR__UNROLL
        for (int k = 0; k < V; k++) d[k] = y[k] <= 0.0f ? 0.0f : d[k];
        return;
    }
    FTR__UNROLL
    for (int k = 0; k < V; k++) d[k] = ftr__norm_slope(gate.activation, d[k], fmaf(x[k], scale[k], shift[k]));
}

/* partial: [samples][columns][chunks]. */
template <typename T, int V>
FTR__KERNEL ftr__norm_grad_sums(ftr__norm_tiles p, const T *dy, const T *x, const float *mean, ftr__norm_gate<T> gate,
                                ftr__norm_sums *partial) {
    FTR_SHARED(float, sums, V *FTR__CUDA_THREADS);
    FTR_SHARED(float, products, V *FTR__CUDA_THREADS);
    const int me = (int)threadIdx.x;
    for (int64_t task = blockIdx.x; task < p.tiles * p.chunks * p.samples; task += gridDim.x) {
        const ftr__norm_place at = ftr__norm_place_of(p, task, V);
        const int64_t base = at.sample * p.rows * p.columns + at.column;
        float center[V] = {}, scale[V] = {}, shift[V] = {}, sum[V] = {}, product[V] = {};
        FTR__UNROLL
        for (int k = 0; k < V; k++) {
            if (!at.is_there) continue;
            const int64_t c = at.column + k;
            center[k] = mean[at.sample * p.sets + c / p.width];
            if (!gate.beta) continue;
            scale[k] = gate.gamma[c] * gate.invstd[c];
            shift[k] = gate.beta[c];
        }
        for (int64_t row = at.begin + at.line; row < at.end && at.is_there; row += at.lines) {
            const int64_t index = base + row * p.columns;
            float d[V], v[V];
            ftr__load_vector<T, V>(dy + index, d);
            ftr__load_vector<T, V>(x + index, v);
            FTR__UNROLL
            for (int k = 0; k < V; k++) v[k] -= center[k];
            ftr__norm_through<T, V>(gate, index, d, v, scale, shift);
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                sum[k] += d[k];
                product[k] = fmaf(d[k], v[k], product[k]);
            }
        }
        FTR__UNROLL
        for (int k = 0; k < V; k++) {
            sums[k * FTR__CUDA_THREADS + me] = sum[k];
            products[k * FTR__CUDA_THREADS + me] = product[k];
        }
        for (int step = at.lines / 2; step > 0; step /= 2) {
            __syncthreads();
            if (at.line >= step) continue;
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                const int o = k * FTR__CUDA_THREADS + me;
                sums[o] = sum[k] += sums[o + step * p.lanes];
                products[o] = product[k] += products[o + step * p.lanes];
            }
        }
        if (at.line == 0 && at.is_there) {
            FTR__UNROLL
            for (int k = 0; k < V; k++)
                partial[(at.sample * p.columns + at.column + k) * p.chunks + at.chunk] = {sum[k], product[k]};
        }
        __syncthreads();
    }
}

/* Of `count` partial results, by a warp; each lane has the result. */
static __device__ __forceinline__ ftr__norm_sums ftr__norm_add_parts(const ftr__norm_sums *part, int64_t count) {
    ftr__norm_sums all = {0.0, 0.0};
    for (int64_t i = threadIdx.x % FTR__CUDA_WARP; i < count; i += FTR__CUDA_WARP) {
        all.sum += part[i].sum;
        all.product += part[i].product;
    }
    all.sum = ftr__warp_sum(all.sum);
    all.product = ftr__warp_sum(all.product);
    return all;
}

/* A warp a channel: dgamma and dbeta, and with one sample and sets of one column, batch norm, the coefficients of
 * dx = g a + (x - mean) b + c. In training dx = gamma / std (g - dbeta / n - xhat dgamma / n) over the n rows that count (Ioffe,
 * Szegedy, 2015). */
FTR__KERNEL ftr__norm_grad_parameters(ftr__norm_tiles p, const float *gamma, const float *mean, const float *invstd,
                                      const ftr__norm_sums *partial, bool training, float *coefficients, float *dgamma,
                                      float *dbeta) {
    const int64_t warps = (int64_t)gridDim.x * (FTR__CUDA_THREADS / FTR__CUDA_WARP);
    const int64_t first = ((int64_t)blockIdx.x * FTR__CUDA_THREADS + threadIdx.x) / FTR__CUDA_WARP;
    const int lane = (int)threadIdx.x % FTR__CUDA_WARP;
    double count = 0.0;
    if (training) {
        const int64_t masks = p.mask && p.rows > 0 ? p.rows / p.rows_per_mask : 0;
        for (int64_t i = lane; i < masks; i += FTR__CUDA_WARP)
            count += p.mask[i] != 0.0f ? (double)p.rows_per_mask : 0.0;
        count = ftr__warp_sum(count);
        if (!p.mask) count = (double)p.rows;
    }
    const double share = count > 0.0 ? 1.0 / count : 0.0;
    for (int64_t c = first; c < p.columns; c += warps) {
        double sum = 0.0, product = 0.0;
        for (int64_t s = 0; s < p.samples && p.chunks > 0; s++) {
            const ftr__norm_sums all = ftr__norm_add_parts(partial + (s * p.columns + c) * p.chunks, p.chunks);
            sum += all.sum;
            product += all.product * (double)invstd[s * p.sets + c / p.width];
        }
        if (lane != 0) continue;
        if (dgamma) {
            dgamma[c] = static_cast<float>(product);
            dbeta[c] = static_cast<float>(sum);
        }
        if (!coefficients) continue;
        const double a = (double)gamma[c] * (double)invstd[c];
        coefficients[c] = mean[c];
        coefficients[p.columns + c] = static_cast<float>(a);
        coefficients[2 * p.columns + c] = static_cast<float>(-a * (double)invstd[c] * product * share);
        coefficients[3 * p.columns + c] = static_cast<float>(-a * sum * share);
    }
}

/* dx = g a + (x - mean) b + c, where b and c are 0 for rows that do not count. dx may be dy. */
template <typename T, int V>
FTR__ROOMY_KERNEL ftr__norm_grad_apply(ftr__norm_tiles p, const T *dy, const T *x, const float *coefficients,
                                       ftr__norm_gate<T> gate, T *dx) {
    for (int64_t task = blockIdx.x; task < p.tiles * p.chunks * p.samples; task += gridDim.x) {
        const ftr__norm_place at = ftr__norm_place_of(p, task, V);
        if (!at.is_there) continue;
        float mean[V], a[V], b[V], c[V], shift[V] = {};
        const float *from = coefficients + at.sample * 4 * p.columns + at.column;
        ftr__load_vector<float, V>(from, mean);
        ftr__load_vector<float, V>(from + p.columns, a);
        ftr__load_vector<float, V>(from + 2 * p.columns, b);
        ftr__load_vector<float, V>(from + 3 * p.columns, c);
        if (gate.beta) ftr__load_vector<float, V>(gate.beta + at.column, shift);
        int64_t row = at.begin + at.line, index = (at.sample * p.rows + row) * p.columns + at.column;
        const int64_t step = at.lines * p.columns;
        for (; row < at.end; row += at.lines, index += step) {
            const bool counts = ftr__norm_counts(p, row);
            float d[V], v[V];
            ftr__load_vector<T, V>(dy + index, d);
            ftr__load_vector<T, V>(x + index, v);
            FTR__UNROLL
            for (int k = 0; k < V; k++) v[k] -= mean[k];
            ftr__norm_through<T, V>(gate, index, d, v, a, shift);
            FTR__UNROLL
            for (int k = 0; k < V; k++) d[k] = fmaf(d[k], a[k], counts ? fmaf(v[k], b[k], c[k]) : 0.0f);
            ftr__store_vector<T, V>(dx + index, d);
        }
    }
}

/* ------------------------------------------------------------------------------------------------------- batch norm -- */

static ftr__norm_tiles ftr__batch_norm_tiles(const ftr_view *x, int vector) {
    const int64_t columns = x->shape.dim[x->shape.rank - 1], rows = columns > 0 ? x->count / columns : 0;
    ftr__norm_tiles p = ftr__norm_tiles_of(1, rows, columns, 1, vector);
    p.sets = columns;
    p.rows_per_mask = x->shape.dim[0] > 0 ? rows / x->shape.dim[0] : 1;
    return p;
}

static ftr__norm_tiles ftr__group_norm_tiles(const ftr_kernel_call *call, const ftr_view *x, int vector) {
    const int64_t columns = x->shape.dim[x->shape.rank - 1], groups = call->attr->row_norm.groups;
    int64_t rows = 1;
    for (int32_t d = 1; d < x->shape.rank - 1; d++) rows *= x->shape.dim[d];
    ftr__norm_tiles p = ftr__norm_tiles_of(x->shape.dim[0], rows, columns, columns / groups, vector);
    p.sets = groups;
    return p;
}

/* Partial results, then coefficients, whose place is a multiple of 16 bytes. */
static size_t ftr__norm_partial_bytes(const ftr__norm_tiles *p, size_t each) {
    return (static_cast<size_t>(p->samples * p->columns * p->chunks) * each + 15) / 16 * 16;
}

static float *ftr__norm_coefficients(const ftr_kernel_call *call, const ftr__norm_tiles *p, size_t each) {
    return reinterpret_cast<float *>(static_cast<unsigned char *>(call->workspace) + ftr__norm_partial_bytes(p, each));
}

/* How wide vectors are turns out when the kernel runs: enough for each width. */
template <typename F> static size_t ftr__norm_workspace(const ftr_view *x, size_t each, int32_t coefficients, F tiles) {
    const int widths[2] = {1, 16 / (int)ftr_dtype_size(x->dtype)};
    size_t most = 0;
    for (int i = 0; i < 2; i++) {
        const ftr__norm_tiles p = tiles(widths[i]);
        const size_t bytes = ftr__norm_partial_bytes(&p, each) +
                             static_cast<size_t>(coefficients * p.samples * p.columns) * sizeof(float);
        most = bytes > most ? bytes : most;
    }
    return most;
}

FTR__CUDA_LIB size_t ftr__cuda_batch_norm_workspace(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0];
    return ftr__norm_workspace(x, sizeof(ftr__norm_moments), 3, [&](int v) { return ftr__batch_norm_tiles(x, v); });
}

/* `p` has the mask. */
template <typename T, int V>
static ftr_status ftr__norm_forward(const ftr_kernel_call *call, ftr__norm_tiles p, ftr__norm_parameters q,
                                    bool use_running, const T *residual, ftr_activation activation) {
    ftr__norm_moments *partial = static_cast<ftr__norm_moments *>(call->workspace);
    const T *x = static_cast<const T *>(call->in[0].data);
    const unsigned blocks = ftr__cuda_blocks(ftr__norm_tasks(&p), 1);
    q.coefficients = ftr__norm_coefficients(call, &p, sizeof *partial);
    ftr_status status = FTR_OK;
    if (!use_running) status = FTR_LAUNCH(call, (ftr__norm_statistics<T, V>), blocks, FTR__CUDA_THREADS, p, x, partial);
    if (status == FTR_OK)
        status = FTR_LAUNCH(call, ftr__norm_finish, ftr__cuda_blocks(p.samples * p.sets * FTR__CUDA_WARP),
                            FTR__CUDA_THREADS, p, q, partial, use_running);
    if (status != FTR_OK) return status;
    return FTR_LAUNCH(call, (ftr__norm_apply<T, V>), blocks, FTR__CUDA_THREADS, p, x, q.coefficients, residual,
                      activation, static_cast<T *>(call->out[0].data));
}

FTR__CUDA_LIB ftr_status ftr__cuda_batch_norm(const ftr_kernel_call *call) {
    return ftr__for_channels(call, &call->in[0], [&](auto tag, auto width) {
        using T = decltype(tag);
        ftr__norm_tiles p = ftr__batch_norm_tiles(&call->in[0], width.value);
        ftr__norm_parameters q = {};
        p.mask = ftr__optional_data<float>(call, 5);
        q.gamma = static_cast<const float *>(call->in[1].data);
        q.beta = static_cast<const float *>(call->in[2].data);
        q.running_mean = static_cast<const float *>(call->in[3].data);
        q.running_variance = static_cast<const float *>(call->in[4].data);
        q.mean = static_cast<float *>(call->out[1].data);
        q.variance = static_cast<float *>(call->out[2].data);
        q.invstd = static_cast<float *>(call->out[3].data);
        q.eps = call->attr->norm.eps;
        return ftr__norm_forward<T, decltype(width)::value>(
            call, p, q, !call->attr->norm.training, ftr__optional_data<T>(call, 6), call->attr->norm.activation);
    });
}

FTR__CUDA_LIB size_t ftr__cuda_batch_norm_grad_workspace(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[1];
    return ftr__norm_workspace(x, sizeof(ftr__norm_sums), 4, [&](int v) { return ftr__batch_norm_tiles(x, v); });
}

/* With running statistics rows do not depend on each other, and the mask has no say. */
FTR__CUDA_LIB ftr_status ftr__cuda_batch_norm_grad(const ftr_kernel_call *call) {
    return ftr__for_channels(call, &call->in[1], [&](auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        ftr__norm_tiles p = ftr__batch_norm_tiles(&call->in[1], V);
        const bool training = call->attr->norm.training;
        if (training) p.mask = ftr__optional_data<float>(call, 5);
        const T *dy = static_cast<const T *>(call->in[0].data), *x = static_cast<const T *>(call->in[1].data);
        const float *gamma = static_cast<const float *>(call->in[2].data);
        const float *mean = static_cast<const float *>(call->in[3].data);
        const float *invstd = static_cast<const float *>(call->in[4].data);
        ftr__norm_gate<T> gate = {call->attr->norm.activation, ftr__optional_data<T>(call, 6), gamma, invstd,
                                  ftr__optional_data<float>(call, 7)};
        if (!gate.y && !gate.beta) gate.activation = FTR_ACT_NONE;
        ftr__norm_sums *partial = static_cast<ftr__norm_sums *>(call->workspace);
        float *coefficients = ftr__norm_coefficients(call, &p, sizeof *partial);
        const unsigned blocks = ftr__cuda_blocks(ftr__norm_tasks(&p), 1);
        ftr_status status =
            FTR_LAUNCH(call, (ftr__norm_grad_sums<T, V>), blocks, FTR__CUDA_THREADS, p, dy, x, mean, gate, partial);
        if (status == FTR_OK)
            status = FTR_LAUNCH(call, ftr__norm_grad_parameters, ftr__cuda_blocks(p.columns * FTR__CUDA_WARP),
                                FTR__CUDA_THREADS, p, gamma, mean, invstd, partial, training, coefficients,
                                static_cast<float *>(call->out[1].data), static_cast<float *>(call->out[2].data));
        if (status != FTR_OK) return status;
        return FTR_LAUNCH(call, (ftr__norm_grad_apply<T, V>), blocks, FTR__CUDA_THREADS, p, dy, x, coefficients, gate,
                          static_cast<T *>(call->out[0].data));
    });
}

/* ------------------------------------------------------------------------------------------------------- group norm -- */

/* A warp a group of a sample: the coefficients of dx = dy a + (x - mean) b + c. With u = dy gamma and z = (x - mean) / std it
 * is (u - mean of u - z mean of u z) / std. */
FTR__KERNEL ftr__group_norm_coefficients(ftr__norm_tiles p, const float *gamma, const float *mean, const float *invstd,
                                         const ftr__norm_sums *partial, float *coefficients) {
    const int64_t warps = (int64_t)gridDim.x * (FTR__CUDA_THREADS / FTR__CUDA_WARP);
    const int64_t first = ((int64_t)blockIdx.x * FTR__CUDA_THREADS + threadIdx.x) / FTR__CUDA_WARP;
    const int lane = (int)threadIdx.x % FTR__CUDA_WARP;
    for (int64_t s = first; s < p.samples * p.sets; s += warps) {
        const int64_t column = s % p.sets * p.width, items = p.chunks * p.width;
        double sum = 0.0, product = 0.0;
        for (int64_t i = lane; i < items; i += FTR__CUDA_WARP) {
            const ftr__norm_sums part = partial[s * items + i];
            const double factor = gamma ? (double)gamma[column + i / p.chunks] : 1.0;
            sum += factor * part.sum;
            product += factor * part.product;
        }
        sum = ftr__warp_sum(sum);
        product = ftr__warp_sum(product);
        const double inverse = (double)invstd[s], share = inverse / (double)(p.rows * p.width);
        float *to = coefficients + s / p.sets * 4 * p.columns;
        for (int64_t c = column + lane; c < column + p.width; c += FTR__CUDA_WARP) {
            to[c] = mean[s];
            to[p.columns + c] = static_cast<float>(gamma ? (double)gamma[c] * inverse : inverse);
            to[2 * p.columns + c] = static_cast<float>(-inverse * inverse * share * product);
            to[3 * p.columns + c] = static_cast<float>(-share * sum);
        }
    }
}

FTR__CUDA_LIB size_t ftr__cuda_group_norm_workspace(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0];
    return ftr__norm_workspace(x, sizeof(ftr__norm_moments), 3,
                               [&](int v) { return ftr__group_norm_tiles(call, x, v); });
}

FTR__CUDA_LIB ftr_status ftr__cuda_group_norm(const ftr_kernel_call *call) {
    return ftr__for_channels(call, &call->in[0], [&](auto tag, auto width) {
        using T = decltype(tag);
        const ftr__norm_tiles p = ftr__group_norm_tiles(call, &call->in[0], width.value);
        ftr__norm_parameters q = {};
        q.gamma = ftr__optional_data<float>(call, 1);
        q.beta = ftr__optional_data<float>(call, 2);
        q.mean = static_cast<float *>(call->out[1].data);
        q.invstd = static_cast<float *>(call->out[2].data);
        q.eps = call->attr->row_norm.eps;
        return ftr__norm_forward<T, decltype(width)::value>(call, p, q, false, nullptr, FTR_ACT_NONE);
    });
}

FTR__CUDA_LIB size_t ftr__cuda_group_norm_grad_workspace(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[1];
    return ftr__norm_workspace(x, sizeof(ftr__norm_sums), 4, [&](int v) { return ftr__group_norm_tiles(call, x, v); });
}

FTR__CUDA_LIB ftr_status ftr__cuda_group_norm_grad(const ftr_kernel_call *call) {
    return ftr__for_channels(call, &call->in[1], [&](auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const ftr__norm_tiles p = ftr__group_norm_tiles(call, &call->in[1], V);
        const T *dy = static_cast<const T *>(call->in[0].data), *x = static_cast<const T *>(call->in[1].data);
        const float *mean = static_cast<const float *>(call->in[2].data);
        const float *invstd = static_cast<const float *>(call->in[3].data);
        const float *gamma = ftr__optional_data<float>(call, 4);
        const ftr__norm_gate<T> open = {FTR_ACT_NONE, nullptr, nullptr, nullptr, nullptr};
        ftr__norm_sums *partial = static_cast<ftr__norm_sums *>(call->workspace);
        float *coefficients = ftr__norm_coefficients(call, &p, sizeof *partial), *none = nullptr;
        const unsigned blocks = ftr__cuda_blocks(ftr__norm_tasks(&p), 1);
        ftr_status status =
            FTR_LAUNCH(call, (ftr__norm_grad_sums<T, V>), blocks, FTR__CUDA_THREADS, p, dy, x, mean, open, partial);
        if (status == FTR_OK)
            status =
                FTR_LAUNCH(call, ftr__group_norm_coefficients, ftr__cuda_blocks(p.samples * p.sets * FTR__CUDA_WARP),
                           FTR__CUDA_THREADS, p, gamma, mean, invstd, partial, coefficients);
        if (status == FTR_OK && call->attr->row_norm.sums)
            status = FTR_LAUNCH(call, ftr__norm_grad_parameters, ftr__cuda_blocks(p.columns * FTR__CUDA_WARP),
                                FTR__CUDA_THREADS, p, gamma, mean, invstd, partial, false, none,
                                static_cast<float *>(call->out[1].data), static_cast<float *>(call->out[2].data));
        if (status != FTR_OK) return status;
        return FTR_LAUNCH(call, (ftr__norm_grad_apply<T, V>), blocks, FTR__CUDA_THREADS, p, dy, x, coefficients, open,
                          static_cast<T *>(call->out[0].data));
    });
}
