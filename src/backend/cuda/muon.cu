/* Muon: momentum, then Newton-Schulz iterations toward the nearest orthogonal matrix, one matrix after the other. Of a matrix
 * of R rows and C columns the smaller of the two Gram matrices is used: x x^T x = x (x^T x). */
#include "backend/cuda/update.cuh"

/* -------------------------------------------------------------------------------------------------- matrix products -- */

#define FTR__PRODUCT_TILE 64  /* rows and columns of a block's piece of the result */
#define FTR__PRODUCT_DEPTH 16 /* of a piece of the factors in shared memory */
#define FTR__PRODUCT_SIDE 16  /* threads along a side; each has 4 x 4 results */

/* c = alpha a b + beta add; a: m x k, b: k x n, in f32. c and add are row-major; add may be nullptr. */
struct ftr__muon_product {
    const float *a, *b, *add;
    float *c;
    int64_t m, n, k;
    int64_t a_row, a_column, b_row, b_column; /* strides, one of each two 1 */
    float alpha, beta;
};

/* A thread's 4 elements of a piece of a factor: `lines` are a's rows or b's columns. Neighbouring threads read along the
 * dimension whose stride is 1. */
struct ftr__product_piece {
    int line[4], k[4];
    float value[4];
};

static __device__ __forceinline__ void ftr__product_places(bool lines_together, ftr__product_piece *piece) {
    const int thread = static_cast<int>(threadIdx.x);
    for (int r = 0; r < 4; r++) {
        piece->line[r] = lines_together ? thread % FTR__PRODUCT_TILE : thread / FTR__PRODUCT_DEPTH + 16 * r;
        piece->k[r] = lines_together ? thread / FTR__PRODUCT_TILE + 4 * r : thread % FTR__PRODUCT_DEPTH;
    }
}

static __device__ __forceinline__ void ftr__product_fetch(const float *data, int64_t line_stride, int64_t k_stride,
                                                          int64_t line0, int64_t k0, int64_t lines, int64_t depth,
                                                          ftr__product_piece *piece) {
    for (int r = 0; r < 4; r++) {
        const int64_t line = line0 + piece->line[r], k = k0 + piece->k[r];
        piece->value[r] = line < lines && k < depth ? data[line * line_stride + k * k_stride] : 0.0f;
    }
}

/* A piece in shared memory is [DEPTH][TILE], 4 floats more a row. */
#define FTR__PRODUCT_ROW (FTR__PRODUCT_TILE / 4 + 1)

static __device__ __forceinline__ void ftr__product_put(const ftr__product_piece *piece, float4 *to) {
    for (int r = 0; r < 4; r++)
        reinterpret_cast<float *>(to)[piece->k[r] * 4 * FTR__PRODUCT_ROW + piece->line[r]] = piece->value[r];
}

FTR__KERNEL ftr__muon_product_kernel(const ftr__muon_product p, ftr__update_scalar found_inf) {
    FTR_SHARED(float4, shared_a, FTR__PRODUCT_DEPTH * FTR__PRODUCT_ROW);
    FTR_SHARED(float4, shared_b, FTR__PRODUCT_DEPTH * FTR__PRODUCT_ROW);
    if (ftr__update_skipped(found_inf)) return;
    const int64_t across = (p.n + FTR__PRODUCT_TILE - 1) / FTR__PRODUCT_TILE;
    const int64_t row0 = blockIdx.x / across * FTR__PRODUCT_TILE, column0 = blockIdx.x % across * FTR__PRODUCT_TILE;
    const int row = static_cast<int>(threadIdx.x) / FTR__PRODUCT_SIDE,
              column = static_cast<int>(threadIdx.x) % FTR__PRODUCT_SIDE;
    ftr__product_piece a, b;
    ftr__product_places(p.a_row == 1, &a);
    ftr__product_places(p.b_column == 1, &b);
    ftr__product_fetch(p.a, p.a_row, p.a_column, row0, 0, p.m, p.k, &a);
    ftr__product_fetch(p.b, p.b_column, p.b_row, column0, 0, p.n, p.k, &b);
    float sum[4][4] = {};
    for (int64_t k0 = 0; k0 < p.k; k0 += FTR__PRODUCT_DEPTH) {
        ftr__product_put(&a, shared_a);
        ftr__product_put(&b, shared_b);
        __syncthreads();
        if (k0 + FTR__PRODUCT_DEPTH < p.k) {
            ftr__product_fetch(p.a, p.a_row, p.a_column, row0, k0 + FTR__PRODUCT_DEPTH, p.m, p.k, &a);
            ftr__product_fetch(p.b, p.b_column, p.b_row, column0, k0 + FTR__PRODUCT_DEPTH, p.n, p.k, &b);
        }
        for (int k = 0; k < FTR__PRODUCT_DEPTH; k++) {
            const float4 x = shared_a[k * FTR__PRODUCT_ROW + row], y = shared_b[k * FTR__PRODUCT_ROW + column];
            const float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
            for (int i = 0; i < 4; i++)
                for (int j = 0; j < 4; j++) sum[i][j] += xs[i] * ys[j];
        }
        __syncthreads();
    }
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++) {
            const int64_t m = row0 + 4 * row + i, n = column0 + 4 * column + j, at = m * p.n + n;
            if (m < p.m && n < p.n) p.c[at] = p.add ? p.alpha * sum[i][j] + p.beta * p.add[at] : p.alpha * sum[i][j];
        }
    }
}

static ftr_status ftr__muon_product_run(const ftr_kernel_call *call, const ftr__muon_product *p, ftr__update_scalar found_inf) {
    const int64_t down = (p->m + FTR__PRODUCT_TILE - 1) / FTR__PRODUCT_TILE;
    const int64_t across = (p->n + FTR__PRODUCT_TILE - 1) / FTR__PRODUCT_TILE;
    return FTR_LAUNCH(call, ftr__muon_product_kernel, static_cast<unsigned>(down * across), FTR__CUDA_THREADS, *p,
                      found_inf);
}

/* ----------------------------------------------------------------------------------------------------------- passes -- */

struct ftr__muon {
    int64_t rows, columns, side; /* side: the smaller */
    int64_t chunks;
    float *p, *x, *next;  /* rows x columns */
    float *gram, *square; /* side x side */
    double *sums;         /* of squares of x, a chunk */
    double factor;        /* of the learning rate */
    double least;         /* of the norm that x is divided by */
};

/* x from the gradient and the momentum, and the sum of its squares; a block a chunk. */
template <typename S>
FTR__KERNEL ftr__muon_momentum(const ftr__muon muon, const ftr__update_from from, const float *g, S *moving) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    if (ftr__update_skipped(from.found_inf)) return;
    ftr__update_step step;
    ftr__update_read(from, &step);
    const int64_t begin = static_cast<int64_t>(blockIdx.x) * FTR__UPDATE_CHUNK;
    const int64_t end = min(muon.rows * muon.columns, begin + FTR__UPDATE_CHUNK);
    double sum = 0.0;
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
        const float d = ftr__update_gradient(step, g[i]), now = ftr__moved(ftr__to_float(moving[i]), d, step.fall);
        const float made = step.nesterov ? ftr__moved(d, now, step.momentum) : now;
        moving[i] = ftr__from_float<S>(now);
        muon.x[i] = made;
        sum += static_cast<double>(made) * static_cast<double>(made);
    }
    sum = ftr__block_sum(sum, room);
    if (threadIdx.x == 0) muon.sums[blockIdx.x] = sum;
}

/* x over its norm. Each block adds up the sums of the chunks by itself. */
FTR__KERNEL ftr__muon_normalize(const ftr__muon muon, ftr__update_scalar found_inf) {
    FTR_SHARED(double, room, FTR__CUDA_WARP);
    if (ftr__update_skipped(found_inf)) return;
    double squares = 0.0;
    for (int64_t c = threadIdx.x; c < muon.chunks; c += blockDim.x) squares += muon.sums[c];
    const double norm = sqrt(ftr__block_sum(squares, room));
    const float by = static_cast<float>(1.0 / (norm < muon.least ? muon.least : norm));
    FTR__GRID_LOOP(i, muon.rows * muon.columns) muon.x[i] *= by;
}

FTR__KERNEL ftr__muon_apply(const ftr__muon muon, const ftr__update_from from) {
    if (ftr__update_skipped(from.found_inf)) return;
    const double lr = ftr__update_lr(from);
    const float rate = static_cast<float>(lr * muon.factor), decay = static_cast<float>(lr * from.weight_decay);
    FTR__GRID_LOOP(i, muon.rows * muon.columns) {
        const float w = muon.p[i];
        muon.p[i] = w - (decay * w + rate * muon.x[i]);
    }
}

/* --------------------------------------------------------------------------------------------------------- running -- */

/* u u^T for symmetric or wide u, u^T u for tall u. */
static ftr__muon_product ftr__muon_gram(const float *u, int64_t rows, int64_t columns, float *c) {
    const bool wide = rows <= columns;
    ftr__muon_product p = {};
    p.a = p.b = u;
    p.c = c;
    p.m = p.n = wide ? rows : columns;
    p.k = wide ? columns : rows;
    p.a_row = p.b_column = wide ? columns : 1;
    p.a_column = p.b_row = wide ? 1 : columns;
    p.alpha = 1.0f;
    return p;
}

/* x = c0 x + (c1 gram + c2 gram gram) x, or with x on the left side. */
static ftr_status ftr__muon_iterate(const ftr_kernel_call *call, ftr__muon *muon, ftr__update_scalar found_inf) {
    const double *c = call->attr->optimizer.ns_coefficients;
    const ftr__muon_product gram = ftr__muon_gram(muon->x, muon->rows, muon->columns, muon->gram);
    ftr__muon_product square = ftr__muon_gram(muon->gram, muon->side, muon->side, muon->square);
    square.alpha = static_cast<float>(c[2]);
    square.beta = static_cast<float>(c[1]);
    square.add = muon->gram;
    const bool left = muon->rows <= muon->columns;
    ftr__muon_product next = {};
    next.a = left ? muon->square : muon->x;
    next.b = left ? muon->x : muon->square;
    next.c = muon->next;
    next.m = muon->rows;
    next.n = muon->columns;
    next.k = muon->side;
    next.a_row = muon->side;
    next.b_row = muon->columns;
    next.a_column = next.b_column = 1;
    next.alpha = 1.0f;
    next.beta = static_cast<float>(c[0]);
    next.add = muon->x;
    muon->next = muon->x;
    muon->x = next.c;
    ftr_status status = ftr__muon_product_run(call, &gram, found_inf);
    if (!status) status = ftr__muon_product_run(call, &square, found_inf);
    if (!status) status = ftr__muon_product_run(call, &next, found_inf);
    return status;
}

static double ftr__muon_factor(ftr_muon_rate rate, double rows, double columns) {
    switch (rate) {
    case FTR_MUON_RATE_MATCH_RMS_ADAMW: return 0.2 * sqrt(rows > columns ? rows : columns);
    case FTR_MUON_RATE_SPECTRAL: return sqrt(rows / columns);
    case FTR_MUON_RATE_ORIGINAL: break;
    }
    return sqrt(rows > columns ? rows / columns : 1.0);
}

static ftr_status ftr__muon_parameter(const ftr_kernel_call *call, const ftr_view *in, ftr__muon *muon,
                                      const ftr__update_from *from) {
    const unsigned blocks = static_cast<unsigned>(muon->chunks);
    const ftr__muon start = *muon;
    ftr_status status;
    if (in[2].dtype == FTR_BF16)
        status = FTR_LAUNCH(call, (ftr__muon_momentum<__nv_bfloat16>), blocks, FTR__CUDA_THREADS, start, *from,
                            in[1].data, in[2].data);
    else
        status = FTR_LAUNCH(call, (ftr__muon_momentum<float>), blocks, FTR__CUDA_THREADS, start, *from, in[1].data,
                            in[2].data);
    if (!status)
        status = FTR_LAUNCH(call, ftr__muon_normalize, blocks < 1024u ? blocks : 1024u, FTR__CUDA_THREADS, start,
                            from->found_inf);
    for (int32_t k = 0; k < call->attr->optimizer.ns_steps && !status; k++)
        status = ftr__muon_iterate(call, muon, from->found_inf);
    const ftr__muon end = *muon;
    return status ? status
                  : FTR_LAUNCH(call, ftr__muon_apply, ftr__cuda_blocks(in[0].count), FTR__CUDA_THREADS, end, *from);
}

/* Workspace of the largest matrix: elements and those of a Gram matrix. */
static void ftr__muon_largest(const ftr_kernel_call *call, int64_t *elements, int64_t *gram) {
    *elements = *gram = 0;
    for (int32_t i = FTR_UPDATE_FIRST_GROUP; i + 3 <= call->in_count; i += 3) {
        const int64_t count = call->in[i].count, rows = call->in[i].shape.dim[0],
                      columns = count > 0 ? count / rows : 0;
        const int64_t side = count == 0 ? 0 : rows < columns ? rows : columns;
        *elements = count > *elements ? count : *elements;
        *gram = side * side > *gram ? side * side : *gram;
    }
}

FTR__CUDA_LIB size_t ftr__cuda_muon_update_workspace(const ftr_kernel_call *call) {
    int64_t elements, gram;
    ftr__muon_largest(call, &elements, &gram);
    return 8 * static_cast<size_t>(ftr__update_chunks(elements, FTR__UPDATE_CHUNK)) +
           8 * static_cast<size_t>(elements + gram);
}

FTR__CUDA_LIB ftr_status ftr__cuda_muon_update(const ftr_kernel_call *call) {
    const ftr__update_from from = ftr__update_from_of(call);
    int64_t elements, gram;
    ftr__muon_largest(call, &elements, &gram);
    ftr_status status = FTR_OK;
    for (int32_t i = FTR_UPDATE_FIRST_GROUP; i + 3 <= call->in_count && !status; i += 3) {
        const ftr_view *in = &call->in[i];
        if (in[0].count == 0) continue;
        ftr__muon muon = {};
        muon.rows = in[0].shape.dim[0];
        muon.columns = in[0].count / muon.rows;
        muon.side = muon.rows < muon.columns ? muon.rows : muon.columns;
        muon.chunks = ftr__update_chunks(in[0].count, FTR__UPDATE_CHUNK);
        muon.p = static_cast<float *>(in[0].data);
        muon.sums = static_cast<double *>(call->workspace);
        muon.x = reinterpret_cast<float *>(muon.sums + ftr__update_chunks(elements, FTR__UPDATE_CHUNK));
        muon.next = muon.x + elements;
        muon.gram = muon.next + elements;
        muon.square = muon.gram + gram;
        muon.factor = ftr__muon_factor(call->attr->optimizer.rate, static_cast<double>(muon.rows),
                                       static_cast<double>(muon.columns));
        muon.least = call->attr->optimizer.ns_eps;
        status = ftr__muon_parameter(call, in, &muon, &from);
    }
    return status;
}
