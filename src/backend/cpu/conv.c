#include "backend/cpu/gemm.h"

#include <string.h>

/* Sizes of a convolution, the same for the op and its gradients. Pairs are height, width. */
typedef struct ftr__conv {
    int64_t n, in[2], out[2], c, o; /* x is [n, in, c], y is [n, out, o] */
    int64_t kernel[2], stride[2], dilation[2], before[2];
    int64_t groups, cg, og, taps;
} ftr__conv;

static ftr__conv ftr__conv_make(const ftr_kernel_call *call, const ftr_shape *x, const ftr_shape *y) {
    ftr__conv v = {.n = y->dim[0], .c = x->dim[3], .o = y->dim[3], .groups = call->attr->conv.groups, .taps = 1};
    for (int32_t d = 0; d < 2; d++) {
        v.in[d] = x->dim[d + 1];
        v.out[d] = y->dim[d + 1];
        v.kernel[d] = call->attr->conv.kernel[d];
        v.stride[d] = call->attr->conv.stride[d];
        v.dilation[d] = call->attr->conv.dilation[d];
        v.before[d] = call->attr->conv.padding[2 * d];
        v.taps *= v.kernel[d];
    }
    v.cg = v.c / v.groups;
    v.og = v.o / v.groups;
    return v;
}

static bool ftr__conv_is_depthwise(const ftr__conv *v) { return v->cg == 1 && v->og == 1; }

/* ------------------------------------------------------------------------------------------------------------------
 * Gathering: point (a, b) of a grid reads, for tap (s, t), the pixel (origin + a * step + s * tap_step, ...) of an image;
 * outside the image it reads zeros. A forward convolution is one such; so is each stride phase of its gradient. */
typedef struct ftr__gather {
    const float *data, *zeros;
    int64_t size[2], channels; /* of the image */
    int64_t run;               /* channels of a group */
    int64_t grid[2], step[2], origin[2], taps[2], tap_step[2];
} ftr__gather;

static bool ftr__gather_is_plain(const ftr__gather *g) {
    for (int32_t d = 0; d < 2; d++) {
        if (g->taps[d] != 1 || g->step[d] != 1 || g->origin[d] != 0 || g->grid[d] != g->size[d]) return false;
    }
    return true;
}

/* Where the taps of one grid point start. */
static void ftr__gather_point(const ftr__gather *g, const float *image, int64_t y, int64_t x, int64_t first_tap,
                              int64_t count, int64_t width, const float **to) {
    const int64_t last_y = y + (g->taps[0] - 1) * g->tap_step[0], last_x = x + (g->taps[1] - 1) * g->tap_step[1];
    const bool inside = ftr__gemm_min(y, last_y) >= 0 && ftr__gemm_max(y, last_y) < g->size[0] &&
                        ftr__gemm_min(x, last_x) >= 0 && ftr__gemm_max(x, last_x) < g->size[1];
    int64_t s = first_tap / g->taps[1], t = first_tap % g->taps[1];
    for (int64_t i = 0; i < count; i++) {
        const int64_t py = y + s * g->tap_step[0], px = x + t * g->tap_step[1];
        const bool hit = inside || (py >= 0 && py < g->size[0] && px >= 0 && px < g->size[1]);
        to[i * width] = hit ? image + (py * g->size[1] + px) * g->channels : g->zeros;
        if (++t == g->taps[1]) {
            t = 0;
            s++;
        }
    }
}

static void ftr__gather_rows(const void *source, int64_t batch, int64_t first, int64_t count, int64_t first_segment,
                             int64_t segments, int64_t width, const float **to) {
    const ftr__gather *g = (const ftr__gather *)source;
    int64_t b = first % g->grid[1], a = first / g->grid[1] % g->grid[0];
    const float *image = g->data + batch * g->run;
    const int64_t image_size = g->size[0] * g->size[1] * g->channels;
    image += first / (g->grid[1] * g->grid[0]) * image_size;
    for (int64_t i = 0; i < count; i++) {
        ftr__gather_point(g, image, g->origin[0] + a * g->step[0], g->origin[1] + b * g->step[1], first_segment,
                          segments, width, to + i);
        if (++b < g->grid[1]) continue;
        b = 0;
        if (++a < g->grid[0]) continue;
        a = 0;
        image += image_size;
    }
}

/* One tap's channels for grid points k .. k + depth - 1: to[k' * width + channel]. A grid row at a time: what lies left of
 * the image, what lies in it, what lies right of it. */
static void ftr__gather_tap(const ftr__gather *g, const float *data, int64_t tap, int64_t channels, int64_t width,
                            int64_t k, int64_t depth, float *to) {
    const int64_t y0 = g->origin[0] + tap / g->taps[1] * g->tap_step[0];
    const int64_t x0 = g->origin[1] + tap % g->taps[1] * g->tap_step[1], step = g->step[1];
    const int64_t begin = x0 < 0 ? ftr__gemm_ceil(-x0, step) : 0;
    const int64_t end = x0 < g->size[1] ? ftr__gemm_ceil(g->size[1] - x0, step) : 0;
    while (depth > 0) {
        const int64_t b = k % g->grid[1], a = k / g->grid[1] % g->grid[0], n = k / (g->grid[1] * g->grid[0]);
        const int64_t count = ftr__gemm_min(g->grid[1] - b, depth), y = y0 + a * g->step[0];
        const bool row = y >= 0 && y < g->size[0];
        const int64_t left = row ? ftr__gemm_min(ftr__gemm_max(begin - b, 0), count) : count;
        const int64_t right = ftr__gemm_max(ftr__gemm_min(end - b, count), left);
        ftr__gemm_clear(left, channels, width, to);
        if (right > left) {
            const int64_t pixel = (n * g->size[0] + y) * g->size[1] + x0 + (b + left) * step;
            ftr__gemm_copy(right - left, channels, width, data + pixel * g->channels, step * g->channels,
                           to + left * width);
        }
        ftr__gemm_clear(count - right, channels, width, to + right * width);
        to += count * width;
        k += count;
        depth -= count;
    }
}

/* The gathered matrix with grid points as k and (tap, channel) as lines: B of a weight's gradient. */
static void ftr__gather_pack(const void *source, int64_t batch, int64_t first, int64_t count, int64_t width, int64_t k,
                             int64_t depth, float *to) {
    const ftr__gather *g = (const ftr__gather *)source;
    for (int64_t done = 0; done < count;) {
        const int64_t tap = (first + done) / g->run, channel = (first + done) % g->run;
        const int64_t channels = ftr__gemm_min(g->run - channel, count - done);
        ftr__gather_tap(g, g->data + batch * g->run + channel, tap, channels, width, k, depth, to + done);
        done += channels;
    }
    ftr__gemm_clear(depth, width - count, width, to + count);
}

/* ------------------------------------------------------------------------------------------------------------------
 * The three products. */

/* A product and what its operands point to. */
typedef struct ftr__conv_product {
    ftr__gather gather;
    ftr__gemm_matrix plain, other;
    ftr__gemm gemm;
    ftr__conv conv;
    int64_t phase[2], first_tap[2], tap_period[2]; /* of a phase of the input's gradient */
    const float *weight;
    float *dx;
} ftr__conv_product;

static size_t ftr__conv_zeros(int64_t channels) { return ftr__gemm_align((size_t)channels * sizeof(float)); }

static void ftr__conv_use_gather(ftr__conv_product *p) {
    if (ftr__gather_is_plain(&p->gather)) {
        p->plain = (ftr__gemm_matrix){.data = p->gather.data, .batch = p->gather.run, .stride = p->gather.channels};
        p->gemm.a = ftr__gemm_k_together(&p->plain, p->gemm.k);
    } else {
        p->gemm.a = (ftr__gemm_operand){.source = &p->gather, .segment = p->gather.run, .rows = ftr__gather_rows};
    }
}

/* The gather of the forward direction. */
static ftr__gather ftr__conv_gather(const ftr__conv *v, const float *x, const float *zeros) {
    ftr__gather g = {.data = x, .zeros = zeros, .channels = v->c, .run = v->cg};
    for (int32_t d = 0; d < 2; d++) {
        g.size[d] = v->in[d];
        g.grid[d] = v->out[d];
        g.step[d] = v->stride[d];
        g.origin[d] = -v->before[d];
        g.taps[d] = v->kernel[d];
        g.tap_step[d] = v->dilation[d];
    }
    return g;
}

/* y[pixel, o] = sum over (tap, c) of x[gathered pixel, c] * weight[o, (tap, c)]. */
static void ftr__conv_forward(const ftr_kernel_call *call, const ftr__conv *v, ftr__conv_product *p) {
    *p = (ftr__conv_product){.conv = *v};
    p->gather = ftr__conv_gather(v, (const float *)call->in[0].data, (const float *)call->workspace);
    const int64_t k = v->taps * v->cg;
    p->other = (ftr__gemm_matrix){.data = (const float *)call->in[1].data, .batch = v->og * k, .stride = k};
    p->gemm = (ftr__gemm){.batch = v->groups,
                          .m = v->n * v->out[0] * v->out[1],
                          .n = v->og,
                          .k = k,
                          .b = ftr__gemm_k_together(&p->other, k),
                          .c = (float *)call->out[0].data,
                          .c_batch = v->og,
                          .c_stride = v->o,
                          .bias = call->in_count > 2 ? (const float *)call->in[2].data : NULL,
                          .bias_batch = true,
                          .activation = call->attr->conv.activation};
    ftr__conv_use_gather(p);
}

/* dw[o, (tap, c)] = sum over pixels of dy[pixel, o] * x[gathered pixel, c]. */
static void ftr__conv_weight_gradient(const ftr_kernel_call *call, const ftr__conv *v, ftr__conv_product *p) {
    *p = (ftr__conv_product){.conv = *v};
    p->gather = ftr__conv_gather(v, (const float *)call->in[1].data, NULL);
    p->other = (ftr__gemm_matrix){.data = (const float *)call->in[0].data, .batch = v->og, .stride = v->o};
    p->gemm = (ftr__gemm){.batch = v->groups,
                          .m = v->og,
                          .n = v->taps * v->cg,
                          .k = v->n * v->out[0] * v->out[1],
                          .a = ftr__gemm_lines_together(&p->other),
                          .b = {.source = &p->gather, .pack = ftr__gather_pack},
                          .c = (float *)call->out[0].data,
                          .c_batch = v->og * v->taps * v->cg,
                          .c_stride = v->taps * v->cg,
                          .split = true};
}

/* weight[o, tap, c] as lines c and k = (tap of the phase, o). */
static void ftr__conv_pack_weight(const void *source, int64_t batch, int64_t first, int64_t count, int64_t width,
                                  int64_t k, int64_t depth, float *to) {
    const ftr__conv_product *p = (const ftr__conv_product *)source;
    const ftr__conv *v = &p->conv;
    for (int64_t done = 0; done < depth;) {
        const int64_t tap = (k + done) / v->og, o = (k + done) % v->og;
        const int64_t run = ftr__gemm_min(v->og - o, depth - done);
        const int64_t ky = p->first_tap[0] + tap / p->gather.taps[1] * p->tap_period[0];
        const int64_t kx = p->first_tap[1] + tap % p->gather.taps[1] * p->tap_period[1];
        const float *from = p->weight + ((batch * v->og + o) * v->taps + ky * v->kernel[1] + kx) * v->cg + first;
        ftr__gemm_copy(run, count, width, from, v->taps * v->cg, to + done * width);
        done += run;
    }
    ftr__gemm_clear(depth, width - count, width, to + count);
}

/* Where the phase's point `row` lies in dx. */
static float *ftr__conv_phase_row(const void *source, int64_t batch, int64_t row) {
    const ftr__conv_product *p = (const ftr__conv_product *)source;
    const ftr__conv *v = &p->conv;
    const int64_t b = row % p->gather.grid[1], a = row / p->gather.grid[1] % p->gather.grid[0];
    const int64_t n = row / (p->gather.grid[1] * p->gather.grid[0]);
    const int64_t y = p->phase[0] + a * v->stride[0], x = p->phase[1] + b * v->stride[1];
    return p->dx + ((n * v->in[0] + y) * v->in[1] + x) * v->c + batch * v->cg;
}

static int64_t ftr__conv_gcd(int64_t a, int64_t b) {
    while (b) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Input pixel i gets from output pixel (i + before - tap * dilation) / stride where that is whole. The pixels of one
 * residue of i modulo the stride share the taps that hit, every `period`-th, and read neighbours in dy. */
static void ftr__conv_phase(const ftr__conv *v, int32_t d, int64_t phase, ftr__conv_product *p) {
    const int64_t stride = v->stride[d], dilation = v->dilation[d], period = stride / ftr__conv_gcd(stride, dilation);
    ftr__gather *g = &p->gather;
    int64_t tap = 0;
    while (tap < period && (phase + v->before[d] - tap * dilation) % stride != 0) tap++;
    const bool any = tap < period && tap < v->kernel[d];
    p->phase[d] = phase;
    p->first_tap[d] = tap;
    p->tap_period[d] = period;
    g->size[d] = v->out[d];
    g->grid[d] = ftr__gemm_ceil(v->in[d] - phase, stride);
    g->step[d] = 1;
    g->taps[d] = any ? (v->kernel[d] - 1 - tap) / period + 1 : 0;
    g->origin[d] = any ? (phase + v->before[d] - tap * dilation) / stride : 0;
    g->tap_step[d] = -(period * dilation / stride);
}

/* dx[pixel of a phase, c] = sum over (tap, o) of dy[gathered pixel, o] * weight[o, tap, c]. */
static void ftr__conv_input_gradient(const ftr_kernel_call *call, const ftr__conv *v, int64_t phase_y, int64_t phase_x,
                                     ftr__conv_product *p) {
    *p = (ftr__conv_product){.conv = *v};
    p->gather = (ftr__gather){.data = (const float *)call->in[0].data,
                              .zeros = (const float *)call->workspace,
                              .channels = v->o,
                              .run = v->og};
    ftr__conv_phase(v, 0, phase_y, p);
    ftr__conv_phase(v, 1, phase_x, p);
    p->weight = (const float *)call->in[1].data;
    p->dx = (float *)call->out[0].data;
    p->gemm = (ftr__gemm){.batch = v->groups,
                          .m = v->n * p->gather.grid[0] * p->gather.grid[1],
                          .n = v->cg,
                          .k = p->gather.taps[0] * p->gather.taps[1] * v->og,
                          .b = {.source = p, .pack = ftr__conv_pack_weight},
                          .c = p->dx,
                          .c_batch = v->cg,
                          .c_stride = v->c};
    if (v->stride[0] != 1 || v->stride[1] != 1) {
        p->gemm.c_row = ftr__conv_phase_row;
        p->gemm.c_source = p;
    }
    ftr__conv_use_gather(p);
}

/* ------------------------------------------------------------------------------------------------------------------
 * Depthwise: vectors over channels. */

typedef struct ftr__depthwise {
    const ftr__cpu *cpu;
    ftr__conv conv;
    bool gradient; /* of the input: `from` is dy */
    const float *from, *other;
    float *to;
    float *weight; /* [taps, c] */
    const float *bias;
    bool relu;
    int64_t rows, task_rows; /* image rows of the result, in all and a task */
    const float **pointers;  /* 2 * taps a worker */
    float *partial;          /* [pieces, taps, c] */
} ftr__depthwise;

/* The pixel of the other side that tap `tap` connects with pixel i, or -1. */
static int64_t ftr__depthwise_partner(const ftr__depthwise *w, int32_t d, int64_t i, int64_t tap) {
    const ftr__conv *v = &w->conv;
    if (!w->gradient) {
        const int64_t at = i * v->stride[d] + tap * v->dilation[d] - v->before[d];
        return at >= 0 && at < v->in[d] ? at : -1;
    }
    const int64_t at = i + v->before[d] - tap * v->dilation[d];
    return at >= 0 && at % v->stride[d] == 0 && at / v->stride[d] < v->out[d] ? at / v->stride[d] : -1;
}

/* Rows of the result, pixel by pixel, over the taps that hit. */
static void ftr__depthwise_task(void *arg, int64_t task, int32_t worker) {
    const ftr__depthwise *w = (const ftr__depthwise *)arg;
    const ftr__conv *v = &w->conv;
    const int64_t *to_size = w->gradient ? v->in : v->out, *from_size = w->gradient ? v->out : v->in;
    const float **x = w->pointers + 2 * v->taps * worker, **k = x + v->taps;
    const int64_t end = ftr__gemm_min((task + 1) * w->task_rows, w->rows);
    for (int64_t row = task * w->task_rows; row < end; row++) {
        const int64_t n = row / to_size[0], a = row % to_size[0];
        for (int64_t b = 0; b < to_size[1]; b++) {
            int64_t taps = 0;
            for (int64_t s = 0; s < v->kernel[0]; s++) {
                const int64_t y = ftr__depthwise_partner(w, 0, a, s);
                for (int64_t t = 0; t < v->kernel[1] && y >= 0; t++) {
                    const int64_t at = ftr__depthwise_partner(w, 1, b, t);
                    if (at < 0) continue;
                    x[taps] = w->from + ((n * from_size[0] + y) * from_size[1] + at) * v->c;
                    k[taps++] = w->weight + (s * v->kernel[1] + t) * v->c;
                }
            }
            w->cpu->simd->gemm.depthwise(v->c, taps, x, k, w->bias, w->relu, w->to + (row * to_size[1] + b) * v->c);
        }
    }
}

static size_t ftr__depthwise_workspace(const ftr_kernel_call *call, const ftr__conv *v) {
    const size_t pointers = (size_t)(2 * v->taps * ftr__pool_threads(ftr__cpu_of(call)->pool)) * sizeof(float *);
    return ftr__gemm_align(pointers) + ftr__gemm_align((size_t)(v->taps * v->c) * sizeof(float));
}

/* The forward op or the input's gradient. */
static void ftr__depthwise_run(const ftr_kernel_call *call, const ftr__conv *v, bool gradient) {
    ftr__depthwise w = {.cpu = ftr__cpu_of(call), .conv = *v, .gradient = gradient};
    const float *weight = (const float *)call->in[1].data;
    const size_t pointers = (size_t)(2 * v->taps * ftr__pool_threads(w.cpu->pool)) * sizeof(float *);
    w.from = (const float *)call->in[0].data;
    w.to = (float *)call->out[0].data;
    w.pointers = (const float **)call->workspace;
    w.weight = (float *)(void *)((unsigned char *)call->workspace + ftr__gemm_align(pointers));
    for (int64_t t = 0; t < v->taps; t++) {
        for (int64_t c = 0; c < v->c; c++) w.weight[t * v->c + c] = weight[c * v->taps + t];
    }
    if (!gradient) {
        w.bias = call->in_count > 2 ? (const float *)call->in[2].data : NULL;
        w.relu = call->attr->conv.activation == FTR_ACT_RELU;
    }
    w.rows = v->n * (gradient ? v->in[0] : v->out[0]);
    const int64_t work = (gradient ? v->in[1] : v->out[1]) * v->c * v->taps;
    w.task_rows = (1 << 16) / ftr__gemm_max(work, 1) + 1;
    if (call->out[0].count == 0) return;
    ftr__pool_run(w.cpu->pool, ftr__gemm_ceil(w.rows, w.task_rows), ftr__depthwise_task, &w);
}

/* One piece of the weight's gradient: some rows of dy against the pixels that they meet, tap by tap. */
static void ftr__depthwise_weight_task(void *arg, int64_t task, int32_t worker) {
    const ftr__depthwise *w = (const ftr__depthwise *)arg;
    const ftr__conv *v = &w->conv;
    float *sum = w->partial + task * v->taps * v->c;
    const int64_t end = ftr__gemm_min((task + 1) * w->task_rows, w->rows), stride = v->stride[1];
    (void)worker;
    memset(sum, 0, (size_t)(v->taps * v->c) * sizeof(float));
    for (int64_t row = task * w->task_rows; row < end; row++) {
        const int64_t n = row / v->out[0], a = row % v->out[0];
        for (int64_t tap = 0; tap < v->taps; tap++) {
            const int64_t y = ftr__depthwise_partner(w, 0, a, tap / v->kernel[1]);
            const int64_t x0 = tap % v->kernel[1] * v->dilation[1] - v->before[1];
            const int64_t first = x0 < 0 ? ftr__gemm_ceil(-x0, stride) : 0;
            const int64_t last = x0 < v->in[1] ? ftr__gemm_min(ftr__gemm_ceil(v->in[1] - x0, stride), v->out[1]) : 0;
            if (y < 0 || last <= first) continue;
            const float *dy = w->other + (row * v->out[1] + first) * v->c;
            const float *x = w->from + ((n * v->in[0] + y) * v->in[1] + x0 + first * stride) * v->c;
            w->cpu->simd->gemm.depthwise_sum(v->c, last - first, dy, v->c, x, stride * v->c, sum + tap * v->c);
        }
    }
}

static int64_t ftr__depthwise_piece_rows(const ftr__conv *v) {
    return ftr__gemm_max(ftr__gemm_ceil(v->n * v->out[0], 16), 1);
}

static int64_t ftr__depthwise_pieces(const ftr__conv *v) {
    return ftr__gemm_ceil(v->n * v->out[0], ftr__depthwise_piece_rows(v));
}

static void ftr__depthwise_weight_gradient(const ftr_kernel_call *call, const ftr__conv *v) {
    ftr__depthwise w = {.cpu = ftr__cpu_of(call), .conv = *v};
    float *dw = (float *)call->out[0].data;
    w.other = (const float *)call->in[0].data;
    w.from = (const float *)call->in[1].data;
    w.partial = (float *)call->workspace;
    w.rows = v->n * v->out[0];
    w.task_rows = ftr__depthwise_piece_rows(v);
    const int64_t pieces = ftr__depthwise_pieces(v), size = v->taps * v->c;
    ftr__pool_run(w.cpu->pool, pieces, ftr__depthwise_weight_task, &w);
    for (int64_t c = 0; c < v->c; c++) {
        for (int64_t t = 0; t < v->taps; t++) {
            float sum = 0;
            for (int64_t s = 0; s < pieces; s++) sum += w.partial[s * size + t * v->c + c];
            dw[c * v->taps + t] = sum;
        }
    }
}

/* ------------------------------------------------------------------------------------------------------------------
 * Kernels. */

size_t ftr__cpu_conv2d_workspace(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->in[0].shape, &call->out[0].shape);
    if (ftr__conv_is_depthwise(&v)) return ftr__depthwise_workspace(call, &v);
    ftr__conv_product p;
    ftr__conv_forward(call, &v, &p);
    return ftr__conv_zeros(v.cg) + ftr__gemm_workspace(ftr__cpu_of(call), &p.gemm);
}

ftr_status ftr__cpu_conv2d(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->in[0].shape, &call->out[0].shape);
    if (ftr__conv_is_depthwise(&v)) {
        ftr__depthwise_run(call, &v, false);
        return FTR_OK;
    }
    ftr__conv_product p;
    ftr__conv_forward(call, &v, &p);
    memset(call->workspace, 0, ftr__conv_zeros(v.cg));
    ftr__gemm_run(ftr__cpu_of(call), &p.gemm, (unsigned char *)call->workspace + ftr__conv_zeros(v.cg));
    return FTR_OK;
}

size_t ftr__cpu_conv2d_grad_input_workspace(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->out[0].shape, &call->in[0].shape);
    if (ftr__conv_is_depthwise(&v)) return ftr__depthwise_workspace(call, &v);
    size_t most = 0;
    for (int64_t y = 0; y < ftr__gemm_min(v.stride[0], v.in[0]); y++) {
        for (int64_t x = 0; x < ftr__gemm_min(v.stride[1], v.in[1]); x++) {
            ftr__conv_product p;
            ftr__conv_input_gradient(call, &v, y, x, &p);
            const size_t bytes = ftr__gemm_workspace(ftr__cpu_of(call), &p.gemm);
            if (bytes > most) most = bytes;
        }
    }
    return ftr__conv_zeros(v.og) + most;
}

ftr_status ftr__cpu_conv2d_grad_input(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->out[0].shape, &call->in[0].shape);
    if (ftr__conv_is_depthwise(&v)) {
        ftr__depthwise_run(call, &v, true);
        return FTR_OK;
    }
    memset(call->workspace, 0, ftr__conv_zeros(v.og));
    for (int64_t y = 0; y < ftr__gemm_min(v.stride[0], v.in[0]); y++) {
        for (int64_t x = 0; x < ftr__gemm_min(v.stride[1], v.in[1]); x++) {
            ftr__conv_product p;
            ftr__conv_input_gradient(call, &v, y, x, &p);
            ftr__gemm_run(ftr__cpu_of(call), &p.gemm, (unsigned char *)call->workspace + ftr__conv_zeros(v.og));
        }
    }
    return FTR_OK;
}

size_t ftr__cpu_conv2d_grad_weight_workspace(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->in[1].shape, &call->in[0].shape);
    if (ftr__conv_is_depthwise(&v)) {
        return ftr__gemm_align((size_t)(ftr__depthwise_pieces(&v) * v.taps * v.c) * sizeof(float));
    }
    ftr__conv_product p;
    ftr__conv_weight_gradient(call, &v, &p);
    return ftr__gemm_workspace(ftr__cpu_of(call), &p.gemm);
}

ftr_status ftr__cpu_conv2d_grad_weight(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->in[1].shape, &call->in[0].shape);
    if (ftr__conv_is_depthwise(&v)) {
        ftr__depthwise_weight_gradient(call, &v);
        return FTR_OK;
    }
    ftr__conv_product p;
    ftr__conv_weight_gradient(call, &v, &p);
    ftr__gemm_run(ftr__cpu_of(call), &p.gemm, call->workspace);
    return FTR_OK;
}
