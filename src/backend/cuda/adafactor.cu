/* Adafactor. A factored parameter is seen as [outer, a, b, inner] in memory, a and b being the two axes that its second moment
 * is factored over. The passes are: means over b; means over a, in parts; the mean of the rows' moments; sums of squares of p
 * and of the update; the rate; p. Each is a launch for many parameters: those along y, the tasks of each along x. */
#include "backend/cuda/update.cuh"

#define FTR__FACTORED_ROWS 64   /* rows of a part of a sum over a */
#define FTR__FACTORED_GRID 1024 /* blocks of a parameter, at most */
#define FTR__FACTORED_SETTINGS (sizeof(ftr__update_from) + 64)

/* --------------------------------------------------------------------------------------------- the moment kept whole -- */

static __device__ __forceinline__ void ftr__adafactor_begin(const ftr__update_from &from, ftr__update_step *step) {
    step->fresh2 = powf(static_cast<float>(ftr__update_number(from)), from.beta2_decay);
    step->eps = static_cast<float>(from.eps * from.eps);
}

static __device__ __forceinline__ void ftr__adafactor_prepare(const ftr__update_from &from, double rate,
                                                              ftr__update_step *step) {
    ftr__adafactor_begin(from, step);
    step->decay = static_cast<float>(ftr__update_lr(from) * from.weight_decay);
    step->lr = static_cast<float>(rate);
}

static __device__ __forceinline__ float ftr__adafactor_direction(const ftr__update_step &step, float d, float v) {
    return d / sqrtf(ftr__maximum(v, step.eps));
}

static __device__ __forceinline__ float ftr__adafactor_apply(const ftr__update_step &step, float w, float d, float v) {
    return w - (step.decay * w + step.lr * ftr__adafactor_direction(step, d, v));
}

/* From the sums of squares of the parameter, of `size` elements, and of its update. */
static __device__ __forceinline__ double ftr__adafactor_rate(const ftr__update_from &from, double p, double u,
                                                             int64_t size) {
    const double lr = ftr__update_lr(from), slow = 1.0 / sqrt(ftr__update_number(from)),
                 count = static_cast<double>(size);
    const double root = sqrt(p / count), over = sqrt(u / count) / from.clip_threshold;
    const double rate = (root > from.parameter_eps ? root : from.parameter_eps) * (lr < slow ? lr : slow);
    return over > 1.0 ? rate / over : rate;
}

struct ftr__adafactor_whole {
    enum { STATES = 1 };
    static __device__ __forceinline__ void begin(const ftr__update_from &from, ftr__update_step *step) {
        ftr__adafactor_begin(from, step);
    }
    static __device__ __forceinline__ void prepare(const ftr__update_from &from, double factor,
                                                   ftr__update_step *step) {
        ftr__adafactor_prepare(from, factor, step);
    }
    template <int N>
    static __device__ __forceinline__ void sums(const ftr__update_step &step, float w, float d, float (&s)[N],
                                                double *a, double *b) {
        const double p = w, u = ftr__adafactor_direction(step, d, ftr__moved(s[0], d * d, step.fresh2));
        *a += p * p;
        *b += u * u;
    }
    static __device__ __forceinline__ double factor(const ftr__update_from &from, double a, double b, int64_t size) {
        return ftr__adafactor_rate(from, a, b, size);
    }
    template <int N>
    static __device__ __forceinline__ float apply(const ftr__update_step &step, float w, float d, float (&s)[N]) {
        s[0] = ftr__moved(s[0], d * d, step.fresh2);
        return ftr__adafactor_apply(step, w, d, s[0]);
    }
};

/* ---------------------------------------------------------------------------------------------------- the factored one -- */

struct ftr__factored {
    float *p;
    const float *g;
    float *over_b; /* moments over b: [outer, a, inner] */
    float *over_a; /* moments over a: [outer, b, inner] */
    int64_t outer, a, b, inner, parts;
    /* places in the workspace */
    int64_t chunk;   /* of the first chunk's two sums */
    int64_t inverse; /* of 1 / the mean of the rows' moments: [outer, inner] */
    int64_t partial; /* of sums over a: [parts, outer, b, inner] */
};

/* The workspace: sums of chunks and rates of parameters, then floats. */
struct ftr__factored_list {
    enum { MOST = (FTR__UPDATE_ARGUMENTS - FTR__FACTORED_SETTINGS) / sizeof(ftr__factored) };
    int32_t count, before; /* parameters, and those in earlier lists */
    bool rows_first;       /* the rows' axis is a */
    double *sums, *rates;
    float *floats;
    ftr__factored of[MOST];
};

static __device__ __forceinline__ int64_t ftr__factored_count(const ftr__factored &f) {
    return f.outer * f.a * f.b * f.inner;
}

static __device__ __forceinline__ float ftr__factored_square(const ftr__update_step &step, float g) {
    const float d = ftr__update_gradient(step, g);
    return d * d;
}

/* A warp a mean if what is added up lies together, otherwise a thread. */
FTR__KERNEL ftr__factored_over_b(const ftr__factored_list list, const ftr__update_from from) {
    if (ftr__update_skipped(from.found_inf)) return;
    const ftr__factored &f = list.of[blockIdx.y];
    ftr__update_step step;
    ftr__update_read(from, &step);
    ftr__adafactor_begin(from, &step);
    const int64_t means = f.outer * f.a * f.inner;
    const int lane = static_cast<int>(threadIdx.x) % FTR__CUDA_WARP;
    const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int64_t threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
    const int64_t a_mean = f.inner == 1 ? FTR__CUDA_WARP : 1;
    for (int64_t i = thread / a_mean; i < means; i += threads / a_mean) {
        const float *g = f.g + i / f.inner * f.b * f.inner + i % f.inner;
        double sum = 0.0;
        for (int64_t b = f.inner == 1 ? lane : 0; b < f.b; b += a_mean)
            sum += ftr__factored_square(step, g[b * f.inner]);
        if (f.inner == 1) sum = ftr__warp_sum(sum);
        if (f.inner == 1 && lane != 0) continue;
        f.over_b[i] = ftr__moved(f.over_b[i], static_cast<float>(sum / static_cast<double>(f.b)), step.fresh2);
    }
}

FTR__KERNEL ftr__factored_over_a_part(const ftr__factored_list list, const ftr__update_from from) {
    if (ftr__update_skipped(from.found_inf)) return;
    const ftr__factored &f = list.of[blockIdx.y];
    ftr__update_step step;
    ftr__update_read(from, &step);
    const int64_t width = f.b * f.inner, columns = f.outer * width;
    FTR__GRID_LOOP(i, columns * f.parts) {
        const int64_t column = i % columns, outer = column / width, begin = i / columns * FTR__FACTORED_ROWS;
        const int64_t end = min(f.a, begin + FTR__FACTORED_ROWS);
        const float *g = f.g + outer * f.a * width + column % width;
        float sum = 0.0f;
        for (int64_t a = begin; a < end; a++) sum += ftr__factored_square(step, g[a * width]);
        list.floats[f.partial + i] = sum;
    }
}

FTR__KERNEL ftr__factored_over_a(const ftr__factored_list list, const ftr__update_from from) {
    if (ftr__update_skipped(from.found_inf)) return;
    const ftr__factored &f = list.of[blockIdx.y];
    ftr__update_step step;
    ftr__update_read(from, &step);
    ftr__adafactor_begin(from, &step);
    const int64_t columns = f.outer * f.b * f.inner;
    FTR__GRID_LOOP(i, columns) {
        double sum = 0.0;
        for (int64_t part = 0; part < f.parts; part++) sum += list.floats[f.partial + part * columns + i];
        f.over_a[i] = ftr__moved(f.over_a[i], static_cast<float>(sum / static_cast<double>(f.a)), step.fresh2);
    }
}

/* 1 / the mean of the rows' moments: a block a mean if they lie together, otherwise a thread. NaN stays NaN. */
FTR__KERNEL ftr__factored_inverse(const ftr__factored_list list, const ftr__update_from from) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    if (ftr__update_skipped(from.found_inf)) return;
    const ftr__factored &f = list.of[blockIdx.y];
    const int64_t count = list.rows_first ? f.a : f.b;
    const float *rows = list.rows_first ? f.over_b : f.over_a;
    float *to = list.floats + f.inverse;
    if (f.inner == 1) {
        for (int64_t o = blockIdx.x; o < f.outer; o += gridDim.x) {
            double mean = 0.0;
            for (int64_t r = threadIdx.x; r < count; r += blockDim.x) mean += rows[o * count + r];
            mean = ftr__block_sum(mean, room) / static_cast<double>(count);
            if (threadIdx.x == 0) to[o] = static_cast<float>(1.0 / (mean < from.eps ? from.eps : mean));
        }
        return;
    }
    FTR__GRID_LOOP(i, f.outer * f.inner) {
        const float *first = rows + i / f.inner * count * f.inner + i % f.inner;
        double mean = 0.0;
        for (int64_t r = 0; r < count; r++) mean += first[r * f.inner];
        mean /= static_cast<double>(count);
        to[i] = static_cast<float>(1.0 / (mean < from.eps ? from.eps : mean));
    }
}

/* Second moment of element i. */
static __device__ __forceinline__ float ftr__factored_moment(const ftr__factored &f, const float *floats, int64_t i) {
    const int64_t line = i / f.inner, inner = i - line * f.inner, slice = line / f.b, b = line - slice * f.b;
    const int64_t outer = slice / f.a;
    const float over_b = f.over_b[slice * f.inner + inner] * floats[f.inverse + outer * f.inner + inner];
    return over_b * f.over_a[(outer * f.b + b) * f.inner + inner];
}

/* A block a chunk. */
FTR__KERNEL ftr__factored_sums(const ftr__factored_list list, const ftr__update_from from) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    if (ftr__update_skipped(from.found_inf)) return;
    const ftr__factored &f = list.of[blockIdx.y];
    ftr__update_step step;
    ftr__update_read(from, &step);
    ftr__adafactor_begin(from, &step);
    const int64_t count = ftr__factored_count(f), chunks = (count + FTR__UPDATE_CHUNK - 1) / FTR__UPDATE_CHUNK;
    for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
        const int64_t begin = chunk * FTR__UPDATE_CHUNK, end = min(count, begin + FTR__UPDATE_CHUNK);
        double p = 0.0, u = 0.0;
        for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
            const double w = f.p[i];
            const double x = ftr__adafactor_direction(step, ftr__update_gradient(step, f.g[i]),
                                                      ftr__factored_moment(f, list.floats, i));
            p += w * w;
            u += x * x;
        }
        p = ftr__block_sum(p, room);
        u = ftr__block_sum(u, room);
        if (threadIdx.x == 0) {
            list.sums[2 * (f.chunk + chunk)] = p;
            list.sums[2 * (f.chunk + chunk) + 1] = u;
        }
    }
}

/* A block a parameter. */
FTR__KERNEL ftr__factored_rates(const ftr__factored_list list, const ftr__update_from from) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    if (ftr__update_skipped(from.found_inf)) return;
    const ftr__factored &f = list.of[blockIdx.x];
    const int64_t count = ftr__factored_count(f), chunks = (count + FTR__UPDATE_CHUNK - 1) / FTR__UPDATE_CHUNK;
    double p = 0.0, u = 0.0;
    for (int64_t chunk = threadIdx.x; chunk < chunks; chunk += blockDim.x) {
        p += list.sums[2 * (f.chunk + chunk)];
        u += list.sums[2 * (f.chunk + chunk) + 1];
    }
    p = ftr__block_sum(p, room);
    u = ftr__block_sum(u, room);
    if (threadIdx.x == 0)
        list.rates[list.before + static_cast<int32_t>(blockIdx.x)] = ftr__adafactor_rate(from, p, u, count);
}

FTR__KERNEL ftr__factored_apply(const ftr__factored_list list, const ftr__update_from from) {
    if (ftr__update_skipped(from.found_inf)) return;
    const ftr__factored &f = list.of[blockIdx.y];
    ftr__update_step step;
    ftr__update_read(from, &step);
    ftr__adafactor_prepare(from, list.rates[list.before + static_cast<int32_t>(blockIdx.y)], &step);
    FTR__GRID_LOOP(i, ftr__factored_count(f)) {
        const float d = ftr__update_gradient(step, f.g[i]);
        f.p[i] = ftr__adafactor_apply(step, f.p[i], d, ftr__factored_moment(f, list.floats, i));
    }
}

/* --------------------------------------------------------------------------------------------------------- running -- */

static bool ftr__adafactor_is_factored(const ftr_kernel_call *call) {
    return call->attr->optimizer.row_axis != call->attr->optimizer.column_axis;
}

/* The parameter whose group is at in[0]; places in the workspace are those behind what *chunks and *floats count, which go on. */
static ftr__factored ftr__factored_of(const ftr_kernel_call *call, const ftr_view *in, int64_t *chunks,
                                      int64_t *floats) {
    const int32_t row = call->attr->optimizer.row_axis, column = call->attr->optimizer.column_axis;
    const int32_t first = row < column ? row : column;
    ftr__factored f = {};
    f.outer = f.inner = 1;
    for (int32_t d = 0; d < first; d++) f.outer *= in[0].shape.dim[d];
    f.a = in[0].shape.dim[first];
    f.b = in[0].shape.dim[first + 1];
    for (int32_t d = first + 2; d < in[0].shape.rank; d++) f.inner *= in[0].shape.dim[d];
    f.parts = (f.a + FTR__FACTORED_ROWS - 1) / FTR__FACTORED_ROWS;
    f.p = static_cast<float *>(in[0].data);
    f.g = static_cast<const float *>(in[1].data);
    f.over_b = static_cast<float *>(in[row < column ? 2 : 3].data);
    f.over_a = static_cast<float *>(in[row < column ? 3 : 2].data);
    f.chunk = *chunks;
    f.inverse = *floats;
    f.partial = f.inverse + f.outer * f.inner;
    if (in[0].count > 0) {
        *chunks += ftr__update_chunks(in[0].count, FTR__UPDATE_CHUNK);
        *floats = f.partial + f.parts * f.outer * f.b * f.inner;
    }
    return f;
}

FTR__CUDA_LIB size_t ftr__cuda_adafactor_update_workspace(const ftr_kernel_call *call) {
    if (!ftr__adafactor_is_factored(call)) return ftr__update_sums_bytes(call, 3);
    int64_t chunks = 0, floats = 0;
    for (int32_t i = FTR_UPDATE_FIRST_GROUP; i + 4 <= call->in_count; i += 4)
        ftr__factored_of(call, &call->in[i], &chunks, &floats);
    return 8 * static_cast<size_t>(2 * chunks + ftr__update_count_groups(call, FTR_UPDATE_FIRST_GROUP, 4)) +
           4 * static_cast<size_t>(floats);
}

static unsigned ftr__factored_blocks(int64_t count, int64_t a_block) {
    const int64_t blocks = (count + a_block - 1) / a_block;
    return static_cast<unsigned>(blocks < FTR__FACTORED_GRID ? blocks : FTR__FACTORED_GRID);
}

/* Blocks of a parameter in each pass: as the largest one needs. */
static ftr_status ftr__factored_run(const ftr_kernel_call *call, const ftr__factored_list *list,
                                    const ftr__update_from *from) {
    static_assert(sizeof(ftr__factored_list) + sizeof(ftr__update_from) <= FTR__UPDATE_ARGUMENTS,
                  "arguments of a launch");
    unsigned over_b = 1, parts = 1, over_a = 1, inverse = 1, chunks = 1, all = 1;
    for (int32_t k = 0; k < list->count; k++) {
        const ftr__factored &f = list->of[k];
        const int64_t means = f.outer * f.a * f.inner, columns = f.outer * f.b * f.inner, count = means * f.b;
        over_b = max(
            over_b, ftr__factored_blocks(means, f.inner == 1 ? FTR__CUDA_THREADS / FTR__CUDA_WARP : FTR__CUDA_THREADS));
        parts = max(parts, ftr__factored_blocks(columns * f.parts, FTR__CUDA_THREADS));
        over_a = max(over_a, ftr__factored_blocks(columns, FTR__CUDA_THREADS));
        inverse = max(inverse, ftr__factored_blocks(f.outer * f.inner, f.inner == 1 ? 1 : FTR__CUDA_THREADS));
        chunks = max(chunks, ftr__factored_blocks(count, FTR__UPDATE_CHUNK));
        all = max(all, ftr__factored_blocks(count, 4 * FTR__CUDA_THREADS));
    }
    const unsigned n = static_cast<unsigned>(list->count);
    ftr_status status = FTR_LAUNCH(call, ftr__factored_over_b, dim3(over_b, n), FTR__CUDA_THREADS, *list, *from);
    if (!status) status = FTR_LAUNCH(call, ftr__factored_over_a_part, dim3(parts, n), FTR__CUDA_THREADS, *list, *from);
    if (!status) status = FTR_LAUNCH(call, ftr__factored_over_a, dim3(over_a, n), FTR__CUDA_THREADS, *list, *from);
    if (!status) status = FTR_LAUNCH(call, ftr__factored_inverse, dim3(inverse, n), FTR__CUDA_THREADS, *list, *from);
    if (!status) status = FTR_LAUNCH(call, ftr__factored_sums, dim3(chunks, n), FTR__CUDA_THREADS, *list, *from);
    if (!status) status = FTR_LAUNCH(call, ftr__factored_rates, n, FTR__CUDA_THREADS, *list, *from);
    if (!status) status = FTR_LAUNCH(call, ftr__factored_apply, dim3(all, n), FTR__CUDA_THREADS, *list, *from);
    return status;
}

FTR__CUDA_LIB ftr_status ftr__cuda_adafactor_update(const ftr_kernel_call *call) {
    const ftr__update_from from = ftr__update_from_of(call);
    if (!ftr__adafactor_is_factored(call)) return ftr__update_run_factors<ftr__adafactor_whole>(call, &from);
    ftr__factored_list list = {};
    int64_t chunks = 0, floats = 0;
    list.rows_first = call->attr->optimizer.row_axis < call->attr->optimizer.column_axis;
    list.sums = static_cast<double *>(call->workspace);
    list.rates = list.sums + 2 * ftr__update_count_chunks(call, FTR_UPDATE_FIRST_GROUP, 4, FTR__UPDATE_CHUNK);
    list.floats = reinterpret_cast<float *>(list.rates + ftr__update_count_groups(call, FTR_UPDATE_FIRST_GROUP, 4));
    for (int32_t i = FTR_UPDATE_FIRST_GROUP; i + 4 <= call->in_count; i += 4) {
        const ftr__factored f = ftr__factored_of(call, &call->in[i], &chunks, &floats);
        if (call->in[i].count == 0) continue;
        if (list.count == ftr__factored_list::MOST) {
            const ftr_status status = ftr__factored_run(call, &list, &from);
            if (status) return status;
            list.before += list.count;
            list.count = 0;
        }
        list.of[list.count++] = f;
    }
    return list.count > 0 ? ftr__factored_run(call, &list, &from) : FTR_OK;
}
