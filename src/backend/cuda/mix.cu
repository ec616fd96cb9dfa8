/* Mixing of a batch: what is drawn, and the mixture of rows with their partners. */
#include "backend/cuda/random.cuh"
#include "backend/cuda/vector.cuh"

/* ------------------------------------------------------------------------------------------------- numbers one by one -- */

/* As core/draw.c has them, bit by bit: products are not fused with what comes after them. */

struct ftr__cuda_draw {
    ftr__cuda_rng rng;
    uint64_t next; /* number of the stream that comes next */
};

static __device__ __forceinline__ double ftr__draw_unit_at(const ftr__cuda_rng &rng, uint64_t number) {
    const uint32_t high = ftr__cuda_rng_at(rng, number) >> 5, low = ftr__cuda_rng_at(rng, number + 1) >> 6;
    return (double)((uint64_t)high << 26 | low) * 0x1p-53;
}

static __device__ __forceinline__ double ftr__draw_unit(ftr__cuda_draw *draw) {
    const double unit = ftr__draw_unit_at(draw->rng, draw->next);
    draw->next += 2;
    return unit;
}

static __device__ __forceinline__ int64_t ftr__draw_index_of(double unit, int64_t count) {
    const int64_t index = (int64_t)__dmul_rn(unit, (double)count);
    return index < count ? index : count - 1; /* the product may have been rounded up */
}

#define FTR__DRAW_LN2_HIGH 0x1.62e42fefa38p-1 /* ends in zeros: products with small integers are exact */
#define FTR__DRAW_LN2_LOW 0x1.ef35793c7673p-45

/* x = m 2^e with m from sqrt(1/2) to sqrt(2); log m = 2 artanh s of s = (m - 1) / (m + 1), whose series has odd powers. */
static __device__ __forceinline__ double ftr__draw_log(double x) {
    int exponent;
    double m = frexp(x, &exponent);
    if (m < 0x1.6a09e667f3bcdp-1) {
        m *= 2.0;
        exponent--;
    }
    const double s = (m - 1.0) / (m + 1.0), e = (double)exponent, square = __dmul_rn(s, s);
    double series = 0.0;
    for (int i = 11; i >= 0; i--) series = __dadd_rn(1.0 / (double)(2 * i + 1), __dmul_rn(series, square));
    const double small = __dadd_rn(__dmul_rn(2.0 * s, series), __dmul_rn(e, FTR__DRAW_LN2_LOW));
    return __dadd_rn(__dmul_rn(e, FTR__DRAW_LN2_HIGH), small);
}

/* x = k log 2 + r with |r| up to log(2) / 2; e^r by Taylor's series. */
static __device__ __forceinline__ double ftr__draw_exp(double x) {
    if (x > 710.0) return (double)INFINITY;
    if (x < -746.0) return 0.0;
    const double k = floor(__dadd_rn(__dmul_rn(x, 0x1.71547652b82fep0), 0.5));
    const double first = __dadd_rn(x, -__dmul_rn(k, FTR__DRAW_LN2_HIGH));
    const double r = __dadd_rn(first, -__dmul_rn(k, FTR__DRAW_LN2_LOW));
    double sum = 0.0, factorial = 1307674368000.0; /* of 15; each is exact */
    for (int i = 15; i >= 0; i--) {
        sum = __dadd_rn(1.0 / factorial, __dmul_rn(sum, r));
        if (i > 0) factorial /= (double)i;
    }
    return ldexp(sum, (int)k);
}

static __device__ __forceinline__ double ftr__draw_normal(ftr__cuda_draw *draw) {
    double x, size;
    do {
        x = 2.0 * ftr__draw_unit(draw) - 1.0;
        const double y = 2.0 * ftr__draw_unit(draw) - 1.0;
        size = __dadd_rn(__dmul_rn(x, x), __dmul_rn(y, y));
    } while (size >= 1.0 || size == 0.0);
    return __dmul_rn(x, sqrt(__dmul_rn(-2.0, ftr__draw_log(size)) / size));
}

static __device__ __forceinline__ double ftr__draw_gamma(ftr__cuda_draw *draw, double shape) {
    const double d = shape - 1.0 / 3.0, c = 1.0 / sqrt(__dmul_rn(9.0, d));
    for (;;) {
        const double x = ftr__draw_normal(draw), base = __dadd_rn(1.0, __dmul_rn(c, x));
        const double u = 1.0 - ftr__draw_unit(draw);
        if (base <= 0.0) continue;
        const double v = __dmul_rn(__dmul_rn(base, base), base);
        const double half_square = __dmul_rn(0.5, __dmul_rn(x, x));
        const double rest = __dmul_rn(d, __dadd_rn(1.0 - v, ftr__draw_log(v)));
        if (ftr__draw_log(u) < __dadd_rn(half_square, rest)) return __dmul_rn(d, v);
    }
}

static __device__ __forceinline__ double ftr__draw_beta(ftr__cuda_draw *draw, double alpha) {
    if (alpha > 1.0) {
        const double a = ftr__draw_gamma(draw, alpha), b = ftr__draw_gamma(draw, alpha);
        return a / __dadd_rn(a, b);
    }
    for (;;) { /* by logarithms: for a small alpha both powers may be below the smallest double */
        const double u = ftr__draw_log(1.0 - ftr__draw_unit(draw)), v = ftr__draw_log(1.0 - ftr__draw_unit(draw));
        if (__dadd_rn(ftr__draw_exp(u / alpha), ftr__draw_exp(v / alpha)) <= 1.0)
            return 1.0 / __dadd_rn(1.0, ftr__draw_exp((v - u) / alpha));
    }
}

/* ----------------------------------------------------------------------------------------------------- what is drawn -- */

#define FTR__MIX_SHARED 4096 /* rows that are permuted in shared memory; more of them in the workspace */

struct ftr__mix_drawing {
    ftr__cuda_stream_name name;
    double mixup, cutmix, mixup_alpha, cutmix_alpha;
    int64_t rows, image[2];
    bool permute;
    const float *mask; /* nullptr: all rows count */
    float *weights;
    int32_t *partners, *box;
    int32_t *list, *order, *picks; /* workspace, of as many elements as rows; list: the rows that count */
};

static __device__ __forceinline__ int32_t ftr__mix_clamp(int64_t x, int64_t most) {
    return (int32_t)(x < 0 ? 0 : x > most ? most : x);
}

/* Draws the box of cutmix; returns the share of the image that it leaves. */
static __device__ __forceinline__ double ftr__mix_box(ftr__cuda_draw *draw, const ftr__mix_drawing &p, double lambda) {
    const int64_t height = p.image[0], width = p.image[1];
    const int64_t column = ftr__draw_index_of(ftr__draw_unit(draw), width);
    const int64_t row = ftr__draw_index_of(ftr__draw_unit(draw), height);
    const double half = 0.5 * sqrt(1.0 - lambda);
    const int64_t half_width = (int64_t)__dmul_rn(half, (double)width);
    const int64_t half_height = (int64_t)__dmul_rn(half, (double)height);
    const int32_t top = ftr__mix_clamp(row - half_height, height), left = ftr__mix_clamp(column - half_width, width);
    const int32_t bottom = ftr__mix_clamp(row + half_height, height),
                  right = ftr__mix_clamp(column + half_width, width);
    p.box[0] = top;
    p.box[1] = left;
    p.box[2] = bottom;
    p.box[3] = right;
    const double area = __dmul_rn((double)(bottom - top), (double)(right - left));
    return 1.0 - area / __dmul_rn((double)height, (double)width);
}

static __device__ __forceinline__ void ftr__mix_weights(ftr__cuda_draw *draw, const ftr__mix_drawing &p) {
    const double choice = ftr__draw_unit(draw);
    double image = 1.0, target = 1.0; /* own weights */
    for (int i = 0; i < 4; i++) p.box[i] = 0;
    if (choice < p.mixup)
        image = target = ftr__draw_beta(draw, p.mixup_alpha);
    else if (choice < __dadd_rn(p.mixup, p.cutmix))
        target = ftr__mix_box(draw, p, ftr__draw_beta(draw, p.cutmix_alpha));
    p.weights[0] = static_cast<float>(image);
    p.weights[1] = static_cast<float>(1.0 - image);
    p.weights[2] = static_cast<float>(target);
    p.weights[3] = static_cast<float>(1.0 - target);
}

/* Lists the rows that count, in their order; the others are their own partners. Returns how many count. `counts`: shared
 * memory, an element a warp. */
static __device__ __forceinline__ int64_t ftr__mix_list(const ftr__mix_drawing &p, int *counts) {
    const int me = (int)threadIdx.x, warp = me / FTR__CUDA_WARP, lane = me % FTR__CUDA_WARP;
    int64_t total = 0;
    for (int64_t base = 0; base < p.rows; base += FTR__CUDA_THREADS) {
        const int64_t row = base + me;
        const bool takes_part = row < p.rows && (!p.mask || p.mask[row] != 0.0f);
        const unsigned votes = __ballot_sync(FTR__CUDA_FULL, takes_part);
        if (lane == 0) counts[warp] = __popc(votes);
        __syncthreads();
        int64_t place = total + __popc(votes & ((1u << lane) - 1u));
        for (int w = 0; w < FTR__CUDA_THREADS / FTR__CUDA_WARP; w++) {
            if (w < warp) place += counts[w];
            total += counts[w];
        }
        if (takes_part)
            p.list[place] = (int32_t)row;
        else if (row < p.rows)
            p.partners[row] = (int32_t)row;
        __syncthreads();
    }
    return total;
}

/* Fisher and Yates (Durstenfeld, CACM 7, 1964): what each place changes with is drawn by all threads, one thread then changes. */
static __device__ __forceinline__ void ftr__mix_shuffle(const ftr__cuda_draw &draw, int64_t count, int32_t *order,
                                                        int32_t *picks) {
    for (int64_t i = threadIdx.x; i < count; i += FTR__CUDA_THREADS) {
        const uint64_t number = draw.next + 2 * (uint64_t)(count - 1 - i);
        order[i] = (int32_t)i;
        picks[i] = (int32_t)ftr__draw_index_of(ftr__draw_unit_at(draw.rng, number), i + 1);
    }
    __syncthreads();
    if (threadIdx.x == 0)
        for (int64_t i = count - 1; i > 0; i--) {
            const int32_t moved = order[i], pick = picks[i];
            order[i] = order[pick];
            order[pick] = moved;
        }
    __syncthreads();
}

/* One block. */
FTR__ROOMY_KERNEL ftr__mix_draw(ftr__mix_drawing p) {
    FTR_SHARED(int32_t, order, FTR__MIX_SHARED);
    FTR_SHARED(int32_t, picks, FTR__MIX_SHARED);
    FTR_SHARED(int, counts, FTR__CUDA_WARP);
    FTR_SHARED(uint64_t, next, 1);
    ftr__cuda_draw draw = {ftr__cuda_rng_of(p.name), 0};
    if (threadIdx.x == 0) {
        ftr__mix_weights(&draw, p);
        next[0] = draw.next;
    }
    const int64_t count = ftr__mix_list(p, counts);
    __syncthreads();
    draw.next = next[0];
    if (!p.permute) { /* each row that counts gets the one before it, the first of them the last */
        for (int64_t i = threadIdx.x; i < count; i += FTR__CUDA_THREADS)
            p.partners[p.list[i]] = p.list[i > 0 ? i - 1 : count - 1];
        return;
    }
    const bool fits = count <= FTR__MIX_SHARED;
    int32_t *places = fits ? order : p.order;
    ftr__mix_shuffle(draw, count, places, fits ? picks : p.picks);
    for (int64_t i = threadIdx.x; i < count; i += FTR__CUDA_THREADS) p.partners[p.list[i]] = p.list[places[i]];
}

FTR__CUDA_LIB size_t ftr__cuda_mix_draw_workspace(const ftr_kernel_call *call) {
    return 3 * static_cast<size_t>(call->attr->mix.rows) * sizeof(int32_t);
}

FTR__CUDA_LIB ftr_status ftr__cuda_mix_draw(const ftr_kernel_call *call) {
    const ftr_op_attr *a = call->attr;
    ftr__mix_drawing p = {};
    p.name = ftr__cuda_stream_of(call, FTR__CUDA_RNG_MIX, a->mix.key);
    p.mixup = a->mix.mixup;
    p.cutmix = a->mix.cutmix;
    p.mixup_alpha = a->mix.mixup_alpha;
    p.cutmix_alpha = a->mix.cutmix_alpha;
    p.rows = a->mix.rows;
    p.image[0] = a->mix.image[0];
    p.image[1] = a->mix.image[1];
    p.permute = a->mix.pairs == FTR_MIX_PERMUTE;
    p.mask = ftr__optional_data<float>(call, 0);
    p.weights = static_cast<float *>(call->out[0].data);
    p.partners = static_cast<int32_t *>(call->out[1].data);
    p.box = static_cast<int32_t *>(call->out[2].data);
    p.list = static_cast<int32_t *>(call->workspace);
    p.order = p.list + p.rows;
    p.picks = p.order + p.rows;
    return FTR_LAUNCH(call, ftr__mix_draw, 1, FTR__CUDA_THREADS, p);
}

/* ----------------------------------------------------------------------------------------------------------- mixing -- */

/* A batch is n samples of `lines` lines; with a box a line is a row of pixels, `pixel` elements each. */
struct ftr__mixing {
    ftr__cuda_reporter reporter;
    int64_t rows, lines, length, pixel;
    const float *weights;          /* own, other */
    const int32_t *partners, *box; /* box: nullptr if there is none */
    const int32_t *first, *next;   /* of the gradient: lists of the rows that a row is the partner of; -1 ends */
};

static ftr__mixing ftr__mixing_of(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0];
    ftr__mixing p = {};
    p.reporter = ftr__cuda_reporter_of(call);
    p.weights = static_cast<const float *>(call->in[1].data) + (call->attr->mix.targets ? 2 : 0);
    p.partners = static_cast<const int32_t *>(call->in[2].data);
    p.box = ftr__optional_data<int32_t>(call, 3);
    p.rows = x->shape.dim[0];
    p.lines = p.box ? x->shape.dim[1] : 1;
    if (x->count == 0) return p;
    p.length = x->count / (p.rows * p.lines);
    p.pixel = p.box ? p.length / x->shape.dim[2] : 1;
    return p;
}

/* The lines and the elements of a line that are in the box; a box that does not fit is reported, and none. */
struct ftr__mix_bounds {
    int64_t top, bottom, left, right;
};

static __device__ __forceinline__ ftr__mix_bounds ftr__mix_bounds_of(const ftr__mixing &p) {
    if (!p.box) return {0, 0, 0, 0};
    const int64_t top = p.box[0], left = p.box[1], bottom = p.box[2], right = p.box[3], width = p.length / p.pixel;
    const bool rows = top >= 0 && top <= bottom && bottom <= p.lines;
    const bool columns = left >= 0 && left <= right && right <= width;
    if (rows && columns) return {top, bottom, left * p.pixel, right * p.pixel};
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        if (!rows)
            ftr__report(p.reporter, FTR__CUDA_FAULT_BOX_ROWS, top, bottom, p.lines);
        else
            ftr__report(p.reporter, FTR__CUDA_FAULT_BOX_COLUMNS, left, right, width);
    }
    return {0, 0, 0, 0};
}

/* A weight of 0 gives 0 whatever x is. */
static __device__ __forceinline__ float ftr__mix_share(float weight, float x) {
    return weight == 0.0f ? 0.0f : weight * x;
}

/* V elements lie in one line. */
template <typename T, int V> FTR__KERNEL ftr__mix_forward(ftr__mixing p, int64_t count, const T *x, T *y) {
    const ftr__mix_bounds box = ftr__mix_bounds_of(p);
    const float own = p.weights[0], other = p.weights[1];
    const int64_t packs = p.length / V;
    FTR__GRID_LOOP(i, count) {
        const int64_t line = i / packs, at = (i - line * packs) * V, row = line / p.lines,
                      in_row = line - row * p.lines;
        const int64_t partner = p.partners[row];
        const bool there = ftr__in_range(p.reporter, FTR__CUDA_FAULT_PARTNER, partner, row, p.rows);
        const bool crossed = in_row >= box.top && in_row < box.bottom;
        float a[V], b[V] = {};
        ftr__load_vector<T, V>(x + i * V, a);
        if (there && (other != 0.0f || crossed))
            ftr__load_vector<T, V>(x + (partner * p.lines + in_row) * p.length + at, b);
        FTR__UNROLL
        for (int k = 0; k < V; k++) {
            const bool inside = crossed && at + k >= box.left && at + k < box.right;
            a[k] = inside ? b[k] : ftr__mix_share(own, a[k]) + ftr__mix_share(other, b[k]);
        }
        ftr__store_vector<T, V>(y + i * V, a);
    }
}

/* The first row that a row is the partner of, and the next one with the same partner as a row. */
FTR__KERNEL ftr__mix_lists(ftr__mixing p, int32_t *first, int32_t *next) {
    FTR__GRID_LOOP(i, p.rows) {
        const int32_t partner = p.partners[i];
        (void)ftr__in_range(p.reporter, FTR__CUDA_FAULT_PARTNER, partner, i, p.rows);
        int64_t a = 0, b = i + 1;
        while (a < p.rows && p.partners[a] != i) a++;
        while (b < p.rows && p.partners[b] != partner) b++;
        first[i] = a < p.rows ? (int32_t)a : -1;
        next[i] = b < p.rows ? (int32_t)b : -1;
    }
}

/* dx = own dy outside the box, plus of each row that this one is the partner of, in their order, other dy outside and dy
 * inside. */
template <typename T, int V> FTR__KERNEL ftr__mix_backward(ftr__mixing p, int64_t count, const T *dy, T *dx) {
    const ftr__mix_bounds box = ftr__mix_bounds_of(p);
    const float own = p.weights[0], other = p.weights[1];
    const int64_t packs = p.length / V;
    FTR__GRID_LOOP(i, count) {
        const int64_t line = i / packs, at = (i - line * packs) * V, row = line / p.lines,
                      in_row = line - row * p.lines;
        const bool crossed = in_row >= box.top && in_row < box.bottom;
        float sum[V];
        ftr__load_vector<T, V>(dy + i * V, sum);
        FTR__UNROLL
        for (int k = 0; k < V; k++) {
            const bool inside = crossed && at + k >= box.left && at + k < box.right;
            sum[k] = inside ? 0.0f : ftr__mix_share(own, sum[k]);
        }
        for (int32_t from = p.first[row]; from >= 0; from = p.next[from]) {
            float d[V];
            ftr__load_vector<T, V>(dy + (from * p.lines + in_row) * p.length + at, d);
            FTR__UNROLL
            for (int k = 0; k < V; k++) {
                const bool inside = crossed && at + k >= box.left && at + k < box.right;
                sum[k] += inside ? d[k] : ftr__mix_share(other, d[k]);
            }
        }
        ftr__store_vector<T, V>(dx + i * V, sum);
    }
}

FTR__CUDA_LIB ftr_status ftr__cuda_mix(const ftr_kernel_call *call) {
    const ftr__mixing p = ftr__mixing_of(call);
    if (call->in[0].count == 0) return FTR_OK;
    return ftr__for_vectors(call, call->in[0].dtype, p.length, [&](auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const int64_t count = call->out[0].count / V;
        return FTR_LAUNCH(call, (ftr__mix_forward<T, V>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count,
                          static_cast<const T *>(call->in[0].data), static_cast<T *>(call->out[0].data));
    });
}

FTR__CUDA_LIB size_t ftr__cuda_mix_grad_workspace(const ftr_kernel_call *call) {
    return static_cast<size_t>(call->in[0].shape.dim[0]) * 2 * sizeof(int32_t);
}

FTR__CUDA_LIB ftr_status ftr__cuda_mix_grad(const ftr_kernel_call *call) {
    ftr__mixing p = ftr__mixing_of(call);
    if (call->in[0].count == 0) return FTR_OK;
    int32_t *first = static_cast<int32_t *>(call->workspace), *next = first + p.rows;
    p.first = first;
    p.next = next;
    const ftr_status status =
        FTR_LAUNCH(call, ftr__mix_lists, ftr__cuda_blocks(p.rows), FTR__CUDA_THREADS, p, first, next);
    if (status != FTR_OK) return status;
    return ftr__for_vectors(call, call->in[0].dtype, p.length, [&](auto tag, auto width) {
        using T = decltype(tag);
        constexpr int V = decltype(width)::value;
        const int64_t count = call->out[0].count / V;
        return FTR_LAUNCH(call, (ftr__mix_backward<T, V>), ftr__cuda_blocks(count), FTR__CUDA_THREADS, p, count,
                          static_cast<const T *>(call->in[0].data), static_cast<T *>(call->out[0].data));
    });
}
