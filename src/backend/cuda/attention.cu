/* Attention without cuDNN: for f32, masks, dropout and what else its fused kernels refuse. Scores are never in memory: a warp
 * has a query (of the gradients of key and value: a key) and goes over the others, a lane each, so that every sum has a fixed
 * order. */
#include "backend/cuda/random.cuh"

#define FTR__ATTENTION_WARPS (FTR__CUDA_THREADS / FTR__CUDA_WARP)
#define FTR__ATTENTION_PART 512 /* elements of a head that a warp adds up at a time, in shared memory */

/* A tensor [n, t, heads, d], whose places may be apart by more than a row. */
struct ftr__heads {
    const void *data;
    ftr_dtype dtype;
    int64_t step, size; /* elements from one place to the next; of a sample */
};

struct ftr__attention {
    ftr__heads query, key, value, y, dy;
    ftr__heads dquery, dkey, dvalue; /* data nullptr: not wanted */
    int64_t n, tq, tk, heads, kv_heads, d, dv;
    const void *mask; /* nullptr: none */
    ftr_dtype mask_dtype;
    int64_t mask_stride[4];
    float *log_sum; /* [n, heads, tq] */
    float scale;
    bool causal, drops;
    ftr__cuda_stream_name stream;
    ftr__cuda_dropout_rule rule;
};

static __device__ __forceinline__ int64_t ftr__head_at(const ftr__heads &x, int64_t b, int64_t t, int64_t head, int64_t d) {
    return b * x.size + t * x.step + head * d;
}

/* Scaled, with the mask; -infinity for a key that is not seen. */
static __device__ __forceinline__ float ftr__attention_score(const ftr__attention &p, int64_t b, int64_t h, int64_t i, int64_t j) {
    if (p.causal && j > i) return -INFINITY;
    const int64_t q = ftr__head_at(p.query, b, i, h, p.d), k = ftr__head_at(p.key, b, j, h / (p.heads / p.kv_heads), p.d);
    float dot = 0.0f;
    for (int64_t e = 0; e < p.d; e++)
        dot = fmaf(ftr__load_real(p.query.data, p.query.dtype, q + e), ftr__load_real(p.key.data, p.key.dtype, k + e), dot);
    float score = dot * p.scale;
    if (p.mask)
        score += ftr__load_real(p.mask, p.mask_dtype,
                                b * p.mask_stride[0] + h * p.mask_stride[1] + i * p.mask_stride[2] + j * p.mask_stride[3]);
    return score;
}

/* What dropout multiplies a weight by. */
static __device__ __forceinline__ float ftr__attention_kept(const ftr__attention &p, const ftr__cuda_rng &rng, int64_t b, int64_t h,
                                                            int64_t i, int64_t j) {
    if (!p.drops) return 1.0f;
    const uint64_t group = (uint64_t)((b * p.heads + h) * ((p.tk + 3) / 4) + j / 4);
    const uint32_t number = ftr__cuda_rng_at(rng, 4 * (group * (uint64_t)p.tq + (uint64_t)i) + (uint64_t)(j % 4));
    return number < p.rule.threshold ? 0.0f : p.rule.scale;
}

/* The weight of a score; no key is seen where the log-sum is -infinity. */
static __device__ __forceinline__ float ftr__attention_weight(float score, float log_sum) {
    return log_sum == -INFINITY ? 0.0f : expf(score - log_sum);
}

/* Keys or queries behind the last one that a row sees. */
static __device__ __forceinline__ int64_t ftr__attention_end(const ftr__attention &p, int64_t i) {
    return p.causal && i + 1 < p.tk ? i + 1 : p.tk;
}

/* A warp a query: the largest score, the sum, then the result in parts of the head. */
FTR__ROOMY_KERNEL ftr__attention_forward(ftr__attention p, void *out, ftr_dtype out_dtype) {
    FTR_SHARED(float, sums, FTR__ATTENTION_WARPS * FTR__ATTENTION_PART);
    const int lane = (int)threadIdx.x % FTR__CUDA_WARP, warp = (int)threadIdx.x / FTR__CUDA_WARP;
    float *sum_of = sums + warp * FTR__ATTENTION_PART;
    const ftr__cuda_rng rng = ftr__cuda_rng_of(p.stream);
    const int64_t rows = p.n * p.heads * p.tq;
    for (int64_t row = (int64_t)blockIdx.x * FTR__ATTENTION_WARPS + warp; row < rows; row += (int64_t)gridDim.x * FTR__ATTENTION_WARPS) {
        const int64_t i = row % p.tq, h = row / p.tq % p.heads, b = row / p.tq / p.heads, g = h / (p.heads / p.kv_heads);
        const int64_t end = ftr__attention_end(p, i);
        float largest = -INFINITY, sum = 0.0f;
        for (int64_t j = lane; j < end; j += FTR__CUDA_WARP) largest = ftr__maximum(largest, ftr__attention_score(p, b, h, i, j));
        largest = ftr__warp_maximum(largest);
        const bool nothing = largest == -INFINITY;
        for (int64_t j = lane; j < end && !nothing; j += FTR__CUDA_WARP) sum += expf(ftr__attention_score(p, b, h, i, j) - largest);
        sum = ftr__warp_sum(sum);
        if (lane == 0) p.log_sum[row] = largest + (nothing ? 0.0f : logf(sum));
        const int64_t to = ((b * p.tq + i) * p.heads + h) * p.dv;
        for (int64_t first = 0; first < p.dv; first += FTR__ATTENTION_PART) {
            const int64_t part = min((int64_t)FTR__ATTENTION_PART, p.dv - first);
            for (int64_t e = lane; e < part; e += FTR__CUDA_WARP) sum_of[e] = 0.0f;
            for (int64_t from = 0; from < end; from += FTR__CUDA_WARP) {
                const int64_t j = from + lane;
                float weight = 0.0f;
                if (j < end && !nothing)
                    weight = expf(ftr__attention_score(p, b, h, i, j) - largest) / sum * ftr__attention_kept(p, rng, b, h, i, j);
                for (int k = 0; k < FTR__CUDA_WARP && from + k < end; k++) {
                    const float w = __shfl_sync(FTR__CUDA_FULL, weight, k);
                    const int64_t v = ftr__head_at(p.value, b, from + k, g, p.dv) + first;
                    for (int64_t e = lane; e < part; e += FTR__CUDA_WARP)
                        sum_of[e] = fmaf(w, ftr__load_real(p.value.data, p.value.dtype, v + e), sum_of[e]);
                }
            }
            for (int64_t e = lane; e < part; e += FTR__CUDA_WARP) ftr__store_real(out, out_dtype, to + first + e, sum_of[e]);
        }
    }
}

/* The mean of the weights' gradients, by the weights: the sum of dy y. A warp a row. */
FTR__KERNEL ftr__attention_means(ftr__attention p, float *means) {
    const int lane = (int)threadIdx.x % FTR__CUDA_WARP, warp = (int)threadIdx.x / FTR__CUDA_WARP;
    const int64_t rows = p.n * p.heads * p.tq;
    for (int64_t row = (int64_t)blockIdx.x * FTR__ATTENTION_WARPS + warp; row < rows; row += (int64_t)gridDim.x * FTR__ATTENTION_WARPS) {
        const int64_t i = row % p.tq, h = row / p.tq % p.heads, b = row / p.tq / p.heads, at = ((b * p.tq + i) * p.heads + h) * p.dv;
        float sum = 0.0f;
        for (int64_t e = lane; e < p.dv; e += FTR__CUDA_WARP)
            sum = fmaf(ftr__load_real(p.dy.data, p.dy.dtype, at + e), ftr__load_real(p.y.data, p.y.dtype, at + e), sum);
        sum = ftr__warp_sum(sum);
        if (lane == 0) means[row] = sum;
    }
}

/* dy of query i times value j. */
static __device__ __forceinline__ float ftr__attention_dweight(const ftr__attention &p, int64_t b, int64_t h, int64_t i, int64_t j) {
    const int64_t at = ((b * p.tq + i) * p.heads + h) * p.dv, v = ftr__head_at(p.value, b, j, h / (p.heads / p.kv_heads), p.dv);
    float sum = 0.0f;
    for (int64_t e = 0; e < p.dv; e++)
        sum = fmaf(ftr__load_real(p.dy.data, p.dy.dtype, at + e), ftr__load_real(p.value.data, p.value.dtype, v + e), sum);
    return sum;
}

/* A weight after dropout, and the gradient of its score. */
struct ftr__attention_pair {
    float kept, dscore;
};

static __device__ __forceinline__ ftr__attention_pair ftr__attention_pair_of(const ftr__attention &p, const ftr__cuda_rng &rng,
                                                                             const float *means, int64_t b, int64_t h, int64_t i,
                                                                             int64_t j) {
    const int64_t row = (b * p.heads + h) * p.tq + i;
    const float weight = ftr__attention_weight(ftr__attention_score(p, b, h, i, j), p.log_sum[row]);
    if (weight == 0.0f) return {0.0f, 0.0f};
    const float factor = ftr__attention_kept(p, rng, b, h, i, j);
    return {weight * factor, weight * (factor * ftr__attention_dweight(p, b, h, i, j) - means[row])};
}

/* A warp a query. */
FTR__ROOMY_KERNEL ftr__attention_grad_query(ftr__attention p, const float *means, void *out, ftr_dtype out_dtype) {
    FTR_SHARED(float, sums, FTR__ATTENTION_WARPS * FTR__ATTENTION_PART);
    const int lane = (int)threadIdx.x % FTR__CUDA_WARP, warp = (int)threadIdx.x / FTR__CUDA_WARP;
    float *sum_of = sums + warp * FTR__ATTENTION_PART;
    const ftr__cuda_rng rng = ftr__cuda_rng_of(p.stream);
    const int64_t rows = p.n * p.heads * p.tq;
    for (int64_t row = (int64_t)blockIdx.x * FTR__ATTENTION_WARPS + warp; row < rows; row += (int64_t)gridDim.x * FTR__ATTENTION_WARPS) {
        const int64_t i = row % p.tq, h = row / p.tq % p.heads, b = row / p.tq / p.heads, g = h / (p.heads / p.kv_heads);
        const int64_t end = ftr__attention_end(p, i), to = ftr__head_at(p.dquery, b, i, h, p.d);
        for (int64_t first = 0; first < p.d; first += FTR__ATTENTION_PART) {
            const int64_t part = min((int64_t)FTR__ATTENTION_PART, p.d - first);
            for (int64_t e = lane; e < part; e += FTR__CUDA_WARP) sum_of[e] = 0.0f;
            for (int64_t from = 0; from < end; from += FTR__CUDA_WARP) {
                const int64_t j = from + lane;
                const float dscore = j < end ? ftr__attention_pair_of(p, rng, means, b, h, i, j).dscore * p.scale : 0.0f;
                for (int k = 0; k < FTR__CUDA_WARP && from + k < end; k++) {
                    const float s = __shfl_sync(FTR__CUDA_FULL, dscore, k);
                    const int64_t at = ftr__head_at(p.key, b, from + k, g, p.d) + first;
                    for (int64_t e = lane; e < part; e += FTR__CUDA_WARP)
                        sum_of[e] = fmaf(s, ftr__load_real(p.key.data, p.key.dtype, at + e), sum_of[e]);
                }
            }
            for (int64_t e = lane; e < part; e += FTR__CUDA_WARP) ftr__store_real(out, out_dtype, to + first + e, sum_of[e]);
        }
    }
}

/* A warp a key: with FOR_VALUE the gradient of its value, otherwise its own. */
template <bool FOR_VALUE>
FTR__ROOMY_KERNEL ftr__attention_grad_key(ftr__attention p, const float *means, void *out, ftr_dtype out_dtype) {
    FTR_SHARED(float, sums, FTR__ATTENTION_WARPS * FTR__ATTENTION_PART);
    const int lane = (int)threadIdx.x % FTR__CUDA_WARP, warp = (int)threadIdx.x / FTR__CUDA_WARP;
    float *sum_of = sums + warp * FTR__ATTENTION_PART;
    const ftr__cuda_rng rng = ftr__cuda_rng_of(p.stream);
    const int64_t rows = p.n * p.kv_heads * p.tk, width = FOR_VALUE ? p.dv : p.d, group = p.heads / p.kv_heads;
    for (int64_t row = (int64_t)blockIdx.x * FTR__ATTENTION_WARPS + warp; row < rows; row += (int64_t)gridDim.x * FTR__ATTENTION_WARPS) {
        const int64_t j = row % p.tk, g = row / p.tk % p.kv_heads, b = row / p.tk / p.kv_heads;
        const int64_t begin = p.causal ? j / FTR__CUDA_WARP * FTR__CUDA_WARP : 0;
        const int64_t to = ftr__head_at(FOR_VALUE ? p.dvalue : p.dkey, b, j, g, width);
        for (int64_t first = 0; first < width; first += FTR__ATTENTION_PART) {
            const int64_t part = min((int64_t)FTR__ATTENTION_PART, width - first);
            for (int64_t e = lane; e < part; e += FTR__CUDA_WARP) sum_of[e] = 0.0f;
            for (int64_t h = g * group; h < (g + 1) * group; h++)
                for (int64_t from = begin; from < p.tq; from += FTR__CUDA_WARP) {
                    const int64_t i = from + lane;
                    ftr__attention_pair pair = {0.0f, 0.0f};
                    if (i < p.tq) pair = ftr__attention_pair_of(p, rng, means, b, h, i, j);
                    const float mine = FOR_VALUE ? pair.kept : pair.dscore * p.scale;
                    for (int k = 0; k < FTR__CUDA_WARP && from + k < p.tq; k++) {
                        const float s = __shfl_sync(FTR__CUDA_FULL, mine, k);
                        const int64_t at = FOR_VALUE ? ((b * p.tq + from + k) * p.heads + h) * p.dv + first
                                                     : ftr__head_at(p.query, b, from + k, h, p.d) + first;
                        const ftr__heads &x = FOR_VALUE ? p.dy : p.query;
                        for (int64_t e = lane; e < part; e += FTR__CUDA_WARP)
                            sum_of[e] = fmaf(s, ftr__load_real(x.data, x.dtype, at + e), sum_of[e]);
                    }
                }
            for (int64_t e = lane; e < part; e += FTR__CUDA_WARP) ftr__store_real(out, out_dtype, to + first + e, sum_of[e]);
        }
    }
}

/* A block an element of the mask: the sum over what it is stretched to. */
FTR__KERNEL ftr__attention_grad_mask(ftr__attention p, const float *means, void *out, ftr_dtype out_dtype, int64_t count) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    const ftr__cuda_rng rng = ftr__cuda_rng_of(p.stream);
    const int64_t size[4] = {p.n, p.heads, p.tq, p.tk};
    for (int64_t m = blockIdx.x; m < count; m += gridDim.x) {
        int64_t at[4], all[4], rest = m, places = 1;
        for (int d = 3; d >= 0; d--) {
            const int64_t here = p.mask_stride[d] ? size[d] : 1;
            at[d] = rest % here;
            rest /= here;
            all[d] = p.mask_stride[d] ? 1 : size[d];
            places *= all[d];
        }
        double sum = 0.0;
        for (int64_t s = threadIdx.x; s < places; s += blockDim.x) {
            int64_t left = s, c[4];
            for (int d = 3; d >= 0; d--) {
                c[d] = at[d] + left % all[d];
                left /= all[d];
            }
            sum += (double)ftr__attention_pair_of(p, rng, means, c[0], c[1], c[2], c[3]).dscore;
        }
        sum = ftr__block_sum(sum, room);
        if (threadIdx.x == 0) ftr__store_real(out, out_dtype, m, (float)sum);
    }
}

/* ------------------------------------------------------------------------------------------------------------ running -- */

static ftr__heads ftr__heads_of(const ftr_view *view, int64_t t, int64_t heads, int64_t d) {
    return {view->data, view->dtype, heads * d, t * heads * d};
}

static void ftr__attention_set_mask(const ftr_kernel_call *call, int32_t index, ftr__attention *p) {
    if (index >= call->in_count || call->in[index].dtype == FTR_DTYPE_NONE) return;
    const ftr_view *mask = &call->in[index];
    int64_t step = 1;
    p->mask = mask->data;
    p->mask_dtype = mask->dtype;
    for (int32_t d = 3; d >= 0; d--) {
        const int32_t from = d - (4 - mask->shape.rank);
        const int64_t size = from >= 0 ? mask->shape.dim[from] : 1;
        p->mask_stride[d] = size == 1 ? 0 : step;
        step *= size;
    }
}

/* Query, key and value may be one tensor [n, t, 3 heads d]: all queries of a place, then its keys, then its values. */
static void ftr__attention_set_packed(ftr__attention *p) {
    const int64_t width = p->heads * p->d;
    ftr__heads *const all[2][3] = {{&p->query, &p->key, &p->value}, {&p->dquery, &p->dkey, &p->dvalue}};
    for (int32_t a = 0; a < 2; a++)
        for (int32_t i = 0; i < 3; i++) {
            const char *first = static_cast<const char *>(all[a][0]->data);
            all[a][i]->dtype = all[a][0]->dtype;
            all[a][i]->step = 3 * width;
            all[a][i]->size = 3 * width * p->tq;
            if (i > 0) all[a][i]->data = first ? first + static_cast<size_t>(i * width) * ftr_dtype_size(all[a][0]->dtype) : nullptr;
        }
}

static ftr__attention ftr__attention_of(const ftr_kernel_call *call) {
    const bool grad = call->op == FTR_OP_attention_grad, packed = call->attr->attention.packed;
    const ftr_view *q = &call->in[grad ? 1 : 0], *k = packed ? q : q + 1, *v = packed ? q : q + 2;
    const ftr_view *shape = packed ? (grad ? &call->in[0] : &call->out[0]) : q; /* [n, t, heads, d] */
    ftr__attention p = {};
    p.n = shape->shape.dim[0], p.tq = shape->shape.dim[1], p.heads = shape->shape.dim[2], p.d = shape->shape.dim[3];
    p.tk = packed ? p.tq : k->shape.dim[1];
    p.kv_heads = packed ? p.heads : k->shape.dim[2];
    p.dv = packed ? p.d : v->shape.dim[3];
    p.query = ftr__heads_of(q, p.tq, p.heads, p.d);
    p.key = ftr__heads_of(k, p.tk, p.kv_heads, p.d);
    p.value = ftr__heads_of(v, p.tk, p.kv_heads, p.dv);
    if (grad) {
        p.dy = ftr__heads_of(&call->in[0], p.tq, p.heads, p.dv);
        p.y = ftr__heads_of(&call->in[4], p.tq, p.heads, p.dv);
        p.dquery = ftr__heads_of(&call->out[0], p.tq, p.heads, p.d);
        p.dkey = ftr__heads_of(&call->out[1], p.tk, p.kv_heads, p.d);
        p.dvalue = ftr__heads_of(&call->out[2], p.tk, p.kv_heads, p.dv);
    }
    if (packed) ftr__attention_set_packed(&p);
    ftr__attention_set_mask(call, grad ? 6 : 3, &p);
    p.log_sum = static_cast<float *>(grad ? call->in[5].data : call->out[1].data);
    p.scale = static_cast<float>(call->attr->attention.scale);
    p.causal = call->attr->attention.causal;
    p.drops = call->attr->attention.dropout > 0.0;
    p.stream = ftr__cuda_stream_of(call, FTR__CUDA_RNG_DROPOUT, call->attr->attention.key);
    p.rule = ftr__cuda_dropout_rule_of(call->attr->attention.dropout);
    return p;
}

FTR__CUDA_LIB ftr_status ftr__cuda_attention(const ftr_kernel_call *call) {
    const ftr__attention p = ftr__attention_of(call);
    return FTR_LAUNCH(call, ftr__attention_forward, ftr__cuda_blocks(p.n * p.heads * p.tq, FTR__ATTENTION_WARPS), FTR__CUDA_THREADS, p,
                      call->out[0].data, call->out[0].dtype);
}

/* A mean for each row. */
FTR__CUDA_LIB size_t ftr__cuda_attention_grad_workspace(const ftr_kernel_call *call) {
    const ftr__attention p = ftr__attention_of(call);
    return static_cast<size_t>(p.n * p.heads * p.tq) * sizeof(float);
}

FTR__CUDA_LIB ftr_status ftr__cuda_attention_grad(const ftr_kernel_call *call) {
    const ftr__attention p = ftr__attention_of(call);
    const uint32_t wanted = call->attr->attention.wanted;
    const unsigned queries = ftr__cuda_blocks(p.n * p.heads * p.tq, FTR__ATTENTION_WARPS);
    const unsigned keys = ftr__cuda_blocks(p.n * p.kv_heads * p.tk, FTR__ATTENTION_WARPS);
    float *means = static_cast<float *>(call->workspace);
    ftr_status status = FTR_LAUNCH(call, ftr__attention_means, queries, FTR__CUDA_THREADS, p, means);
    if (!status && wanted & 1)
        status = FTR_LAUNCH(call, ftr__attention_grad_query, queries, FTR__CUDA_THREADS, p, means, const_cast<void *>(p.dquery.data),
                            p.dquery.dtype);
    if (!status && wanted & 2)
        status = FTR_LAUNCH(call, (ftr__attention_grad_key<false>), keys, FTR__CUDA_THREADS, p, means,
                            const_cast<void *>(p.dkey.data), p.dkey.dtype);
    if (!status && wanted & 4)
        status = FTR_LAUNCH(call, (ftr__attention_grad_key<true>), keys, FTR__CUDA_THREADS, p, means,
                            const_cast<void *>(p.dvalue.data), p.dvalue.dtype);
    if (!status && wanted & 8)
        status = FTR_LAUNCH(call, ftr__attention_grad_mask, ftr__cuda_blocks(call->out[3].count, 1), FTR__CUDA_THREADS, p, means,
                            call->out[3].data, call->out[3].dtype, call->out[3].count);
    return status;
}
