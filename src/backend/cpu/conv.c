#include "backend/cpu/conv.h"
#include "backend/cpu/gemm.h"
#include "backend/cpu/winograd.h"

#include <string.h>

#define FTR__CONV_THIN 8         /* channels below which runs are short */
#define FTR__CONV_SUMS (3 << 13) /* floats of a weight whose gradient's sums stay near while images go by, at most */
#define FTR__CONV_NEAR_SUMS (1 << 13) /* the same, while rows go by */
#define FTR__CONV_ROW 8               /* pixels of a row of the result at least, where rows are summed */
#define FTR__CONV_PIECES 16           /* of the images */

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

/* ------------------------------------------------------------------------------------------------------------------
 * Gathering: point (a, b) of a grid reads, for tap (s, t), the pixel (origin + a * step + s * tap_step, ...) of an image;
 * outside the image it reads zeros. A forward convolution is one such; so is each stride phase of its gradient. */
typedef struct ftr__gather {
    const void *data, *zeros;
    const ftr__simd_bf16 *bf16; /* elements are bf16, read in pairs; NULL: f32 */
    int64_t element;            /* bytes of one */
    int64_t size[2], channels;  /* of the image */
    int64_t run;                /* channels of a group */
    int64_t grid[2], step[2], origin[2], taps[2], tap_step[2];
    int64_t points; /* of all images' grids; of pairs */
} ftr__gather;

static bool ftr__gather_is_plain(const ftr__gather *g) {
    for (int32_t d = 0; d < 2; d++) {
        if (g->taps[d] != 1 || g->step[d] != 1 || g->origin[d] != 0 || g->grid[d] != g->size[d]) return false;
    }
    return true;
}

/* Where the taps of `count` points of a grid row start, the first of which reads pixel (y, x) for tap (0, 0). */
static void ftr__gather_run(const ftr__gather *g, const char *image, int64_t y, int64_t x, int64_t count,
                            int64_t first_tap, int64_t taps, int64_t width, const float **to) {
    const int64_t step = g->step[1], pixel = g->channels * g->element, next = step * pixel;
    int64_t s = first_tap / g->taps[1], t = first_tap % g->taps[1];
    for (int64_t i = 0; i < taps; i++, to += width) {
        const int64_t py = y + s * g->tap_step[0], px = x + t * g->tap_step[1];
        const bool row = py >= 0 && py < g->size[0];
        const int64_t from = (py * g->size[1] + px) * pixel;
        if (row && px >= 0 && px + (count - 1) * step < g->size[1]) {
            for (int64_t j = 0; j < count; j++) to[j] = (const float *)(const void *)(image + (from + j * next));
        } else {
            for (int64_t j = 0, at = px; j < count; j++, at += step) {
                const void *there = row && at >= 0 && at < g->size[1] ? image + (from + j * next) : g->zeros;
                to[j] = (const float *)there;
            }
        }
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
    const char *image = (const char *)g->data + batch * g->run * g->element;
    const int64_t image_size = g->size[0] * g->size[1] * g->channels * g->element;
    image += first / (g->grid[1] * g->grid[0]) * image_size;
    while (count > 0) {
        const int64_t some = ftr__gemm_min(g->grid[1] - b, count);
        ftr__gather_run(g, image, g->origin[0] + a * g->step[0], g->origin[1] + b * g->step[1], some, first_segment,
                        segments, width, to);
        to += some;
        count -= some;
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
        ftr__gather_tap(g, (const float *)g->data + batch * g->run + channel, tap, channels, width, k, depth,
                        to + done);
        done += channels;
    }
    ftr__gemm_clear(depth, width - count, width, to + count);
}

/* Where grid point k reads a tap: NULL outside the image. */
static const uint16_t *ftr__gather_pixel(const ftr__gather *g, const uint16_t *data, const int64_t tap[2], int64_t k) {
    const int64_t b = k % g->grid[1], a = k / g->grid[1] % g->grid[0], n = k / (g->grid[1] * g->grid[0]);
    const int64_t y = g->origin[0] + tap[0] * g->tap_step[0] + a * g->step[0];
    const int64_t x = g->origin[1] + tap[1] * g->tap_step[1] + b * g->step[1];
    if (y < 0 || y >= g->size[0] || x < 0 || x >= g->size[1]) return NULL;
    return data + ((n * g->size[0] + y) * g->size[1] + x) * g->channels;
}

/* The same of bf16: grid points 2 k and 2 k + 1 are pair k. */
static void ftr__gather_pack_pairs(const void *source, int64_t batch, int64_t first, int64_t count, int64_t width,
                                   int64_t k, int64_t depth, float *to) {
    const ftr__gather *g = (const ftr__gather *)source;
    for (int64_t done = 0; done < count;) {
        const int64_t tap = (first + done) / g->run, channel = (first + done) % g->run;
        const int64_t channels = ftr__gemm_min(g->run - channel, count - done);
        const int64_t at[2] = {tap / g->taps[1], tap % g->taps[1]};
        const uint16_t *data = (const uint16_t *)g->data + batch * g->run + channel, *zeros = g->zeros;
        for (int64_t d = 0; d < depth; d++) {
            const uint16_t *one = ftr__gather_pixel(g, data, at, 2 * (k + d));
            const uint16_t *two = 2 * (k + d) + 1 < g->points ? ftr__gather_pixel(g, data, at, 2 * (k + d) + 1) : NULL;
            g->bf16->zip(channels, one ? one : zeros, two, to + d * width + done);
        }
        done += channels;
    }
    ftr__gemm_clear(depth, width - count, width, to + count);
}

/* ------------------------------------------------------------------------------------------------------------------
 * The three products. */

/* What was done to the input of a 1x1 convolution before, and is done again while a weight's gradient reads it. */
typedef struct ftr__conv_input {
    const ftr__simd_math *math;
    const float *mean, *scale, *shift; /* of a batch norm; NULL: none */
    ftr_activation activation;
    const float *factors; /* of each image's channels; NULL: none */
    int64_t pixels, channels;
} ftr__conv_input;

/* A product and what its operands point to. */
typedef struct ftr__conv_product {
    ftr__conv_input input;
    ftr__gather gather;
    ftr__gemm_matrix plain, other;
    ftr__gemm gemm;
    ftr__conv conv;
    int64_t phase[2], first_tap[2], tap_period[2]; /* of a phase of the input's gradient */
    const void *weight;
    void *dx;
} ftr__conv_product;

/* A call that keeps its bf16 tensors has passed ftr__cpu_conv2d_takes_bf16(). */
static const ftr__simd_bf16 *ftr__conv_bf16(const ftr_kernel_call *call) {
    return call->in[0].dtype == FTR_BF16 ? ftr__cpu_of(call)->bf16 : NULL;
}

/* Words of `count` elements, which are pairs of bf16 or f32. */
static int64_t ftr__conv_words(const ftr__gather *g, int64_t count) {
    return g->bf16 ? ftr__gemm_ceil(count, 2) : count;
}

static size_t ftr__conv_zeros(int64_t channels) { return ftr__gemm_align((size_t)channels * sizeof(float)); }

static void ftr__conv_use_gather(ftr__conv_product *p) {
    const ftr__gather *g = &p->gather;
    if (ftr__gather_is_plain(g)) {
        p->plain = (ftr__gemm_matrix){.data = g->data, .batch = g->run, .stride = g->channels};
        p->gemm.a =
            g->bf16 ? ftr__gemm_pairs_k_together(&p->plain, 2 * p->gemm.k) : ftr__gemm_k_together(&p->plain, p->gemm.k);
    } else {
        p->gemm.a = (ftr__gemm_operand){.source = g, .segment = ftr__conv_words(g, g->run), .rows = ftr__gather_rows};
    }
}

/* The gather of the forward direction. */
static ftr__gather ftr__conv_gather(const ftr__conv *v, const void *x, const void *zeros, const ftr__simd_bf16 *bf16) {
    ftr__gather g = {.data = x, .zeros = zeros, .bf16 = bf16, .channels = v->c, .run = v->cg};
    g.element = bf16 ? (int64_t)sizeof(uint16_t) : (int64_t)sizeof(float);
    g.points = v->n * v->out[0] * v->out[1];
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

/* Few channels make short runs. Of an image with its padding around it, the taps of a row are one run, and none of them lies
 * outside: such images are copied first. Not those of bf16, whose runs might be odd. */
static bool ftr__conv_is_thin(const ftr_kernel_call *call, const ftr__conv *v) {
    return call->in[0].dtype == FTR_F32 && v->groups == 1 && v->c < FTR__CONV_THIN && v->kernel[1] > 1 &&
           v->dilation[1] == 1 && v->out[0] > 0 && v->out[1] > 0;
}

/* Size of the padded image: what the taps reach. */
static int64_t ftr__conv_padded(const ftr__conv *v, int32_t d) {
    return (v->out[d] - 1) * v->stride[d] + (v->kernel[d] - 1) * v->dilation[d] + 1;
}

static size_t ftr__conv_thin_bytes(const ftr_kernel_call *call, const ftr__conv *v) {
    if (!ftr__conv_is_thin(call, v)) return 0;
    return ftr__gemm_align((size_t)(v->n * ftr__conv_padded(v, 0) * ftr__conv_padded(v, 1) * v->c) * sizeof(float));
}

typedef struct ftr__conv_padding {
    const ftr__conv *conv;
    const float *x;
    float *padded;
} ftr__conv_padding;

/* A row of the padded images. */
static void ftr__conv_pad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__conv_padding *job = (const ftr__conv_padding *)arg;
    const ftr__conv *v = job->conv;
    const int64_t rows = ftr__conv_padded(v, 0), width = ftr__conv_padded(v, 1);
    const int64_t n = task / rows, y = task % rows - v->before[0];
    const int64_t left = ftr__gemm_min(v->before[1], width), some = ftr__gemm_min(v->in[1], width - left);
    float *to = job->padded + task * width * v->c;
    (void)worker;
    if (y < 0 || y >= v->in[0]) {
        memset(to, 0, (size_t)(width * v->c) * sizeof(float));
        return;
    }
    memset(to, 0, (size_t)(left * v->c) * sizeof(float));
    memcpy(to + left * v->c, job->x + (n * v->in[0] + y) * v->in[1] * v->c, (size_t)(some * v->c) * sizeof(float));
    memset(to + (left + some) * v->c, 0, (size_t)((width - left - some) * v->c) * sizeof(float));
}

static void ftr__conv_pad(const ftr__cpu *cpu, const ftr__conv *v, const float *x, float *padded) {
    ftr__conv_padding job = {.conv = v, .x = x, .padded = padded};
    ftr__pool_run(cpu->pool, v->n * ftr__conv_padded(v, 0), ftr__conv_pad_task, &job);
}

/* The gather of the forward direction from padded images. */
static ftr__gather ftr__conv_thin_gather(const ftr__conv *v, const float *padded) {
    ftr__gather g = {.data = padded, .zeros = padded, .channels = v->c, .run = v->kernel[1] * v->c};
    g.element = (int64_t)sizeof(float);
    for (int32_t d = 0; d < 2; d++) {
        g.size[d] = ftr__conv_padded(v, d);
        g.grid[d] = v->out[d];
        g.step[d] = v->stride[d];
        g.taps[d] = d == 0 ? v->kernel[d] : 1;
        g.tap_step[d] = v->dilation[d];
    }
    return g;
}

/* y[pixel, o] = sum over (tap, c) of x[gathered pixel, c] * weight[o, (tap, c)]. */
static void ftr__conv_forward(const ftr_kernel_call *call, const ftr__conv *v, const void *zeros, const float *padded,
                              ftr__conv_product *p) {
    *p = (ftr__conv_product){.conv = *v};
    p->gather = ftr__conv_is_thin(call, v) ? ftr__conv_thin_gather(v, padded)
                                           : ftr__conv_gather(v, call->in[0].data, zeros, ftr__conv_bf16(call));
    const bool pairs = p->gather.bf16 != NULL;
    const ftr_view *bias = ftr__optional_input(call, 2);
    const int64_t k = v->taps * v->cg;
    p->other = (ftr__gemm_matrix){.data = call->in[1].data, .batch = v->og * k, .stride = k};
    p->gemm = (ftr__gemm){.batch = v->groups,
                          .m = v->n * v->out[0] * v->out[1],
                          .n = v->og,
                          .k = ftr__conv_words(&p->gather, k),
                          .b = pairs ? ftr__gemm_pairs_k_together(&p->other, k) : ftr__gemm_k_together(&p->other, k),
                          .pairs = pairs,
                          .c = call->out[0].data,
                          .c_batch = v->og,
                          .c_stride = v->o,
                          .bias = bias ? bias->data : NULL,
                          .bias_bf16 = bias && bias->dtype == FTR_BF16,
                          .bias_batch = true,
                          .activation = call->attr->conv.activation,
                          .whole = true};
    ftr__conv_use_gather(p);
}

/* ftr__gemm_operand.change */
static void ftr__conv_change(const void *source, int64_t k, int64_t first, int64_t count, const float *from,
                             float *to) {
    const ftr__conv_input *in = (const ftr__conv_input *)source;
    if (in->mean)
        in->math->norm_apply(1, count, from, in->mean + first, in->scale + first, in->shift + first, NULL,
                             in->activation, to);
    if (in->factors)
        in->math->binary[FTR__BINARY_MUL][FTR__OPERANDS_ROWS](count, in->mean ? to : from,
                                                              in->factors + k / in->pixels * in->channels + first, to);
}

static bool ftr__conv_changes_input(const ftr_kernel_call *call) {
    return ftr__optional_input(call, 2) != NULL || ftr__optional_input(call, 6) != NULL;
}

/* gamma / std for each channel lies in `scale`. */
static void ftr__conv_use_input(const ftr_kernel_call *call, const ftr__conv *v, float *scale, ftr__conv_product *p) {
    const ftr_view *gamma = ftr__optional_input(call, 2), *factors = ftr__optional_input(call, 6);
    p->input = (ftr__conv_input){.math = &ftr__cpu_of(call)->simd->math,
                                 .activation = call->attr->conv.activation,
                                 .factors = factors ? factors->data : NULL,
                                 .pixels = v->out[0] * v->out[1],
                                 .channels = v->c};
    if (gamma) {
        p->input.scale = scale;
        p->input.shift = call->in[3].data;
        p->input.mean = call->in[4].data;
    }
    for (int64_t c = 0; c < v->c && gamma && scale; c++)
        scale[c] = (float)((double)((const float *)gamma->data)[c] * (double)((const float *)call->in[5].data)[c]);
    p->gemm.b.change = ftr__conv_change;
    p->gemm.b.change_source = &p->input;
}

/* dw[o, (tap, c)] = sum over pixels of dy[pixel, o] * x[gathered pixel, c]. `memory` has padded images or, for bf16, zeros;
 * for an input that is changed it is written. */
static void ftr__conv_weight_gradient(const ftr_kernel_call *call, const ftr__conv *v, void *memory,
                                      ftr__conv_product *p) {
    *p = (ftr__conv_product){.conv = *v};
    const ftr__simd_bf16 *bf16 = ftr__conv_bf16(call);
    p->gather = ftr__conv_is_thin(call, v) ? ftr__conv_thin_gather(v, (const float *)memory)
                                           : ftr__conv_gather(v, call->in[1].data, memory, bf16);
    const int64_t k = v->n * v->out[0] * v->out[1];
    p->other =
        (ftr__gemm_matrix){.data = call->in[0].data, .batch = v->og, .stride = v->o, .elements = k, .bf16 = bf16};
    p->plain = (ftr__gemm_matrix){
        .data = p->gather.data, .batch = p->gather.run, .stride = p->gather.channels, .elements = k, .bf16 = bf16};
    p->gemm = (ftr__gemm){.batch = v->groups,
                          .m = v->og,
                          .n = v->taps * v->cg,
                          .k = ftr__conv_words(&p->gather, k),
                          .a = bf16 ? ftr__gemm_pairs_lines_together(&p->other) : ftr__gemm_lines_together(&p->other),
                          .pairs = bf16 != NULL,
                          .c = call->out[0].data,
                          .c_batch = v->og * v->taps * v->cg,
                          .c_stride = v->taps * v->cg,
                          .split = true};
    if (!ftr__gather_is_plain(&p->gather))
        p->gemm.b = (ftr__gemm_operand){.source = &p->gather, .pack = bf16 ? ftr__gather_pack_pairs : ftr__gather_pack};
    else
        p->gemm.b = bf16 ? ftr__gemm_pairs_lines_together(&p->plain) : ftr__gemm_lines_together(&p->plain);
    if (ftr__conv_changes_input(call)) ftr__conv_use_input(call, v, (float *)memory, p);
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
        const float *from =
            (const float *)p->weight + ((batch * v->og + o) * v->taps + ky * v->kernel[1] + kx) * v->cg + first;
        ftr__gemm_copy(run, count, width, from, v->taps * v->cg, to + done * width);
        done += run;
    }
    ftr__gemm_clear(depth, width - count, width, to + count);
}

/* The same of bf16: a pair is of one tap. */
static void ftr__conv_pack_weight_pairs(const void *source, int64_t batch, int64_t first, int64_t count, int64_t width,
                                        int64_t k, int64_t depth, float *to) {
    const ftr__conv_product *p = (const ftr__conv_product *)source;
    const ftr__conv *v = &p->conv;
    for (int64_t d = 0; d < depth; d++) {
        const int64_t tap = 2 * (k + d) / v->og, o = 2 * (k + d) % v->og;
        const int64_t ky = p->first_tap[0] + tap / p->gather.taps[1] * p->tap_period[0];
        const int64_t kx = p->first_tap[1] + tap % p->gather.taps[1] * p->tap_period[1];
        const uint16_t *from =
            (const uint16_t *)p->weight + ((batch * v->og + o) * v->taps + ky * v->kernel[1] + kx) * v->cg + first;
        p->gather.bf16->zip(count, from, from + v->taps * v->cg, to + d * width);
    }
    ftr__gemm_clear(depth, width - count, width, to + count);
}

/* Where the phase's point `row` lies in dx. */
static void *ftr__conv_phase_row(const void *source, int64_t batch, int64_t row) {
    const ftr__conv_product *p = (const ftr__conv_product *)source;
    const ftr__conv *v = &p->conv;
    const int64_t b = row % p->gather.grid[1], a = row / p->gather.grid[1] % p->gather.grid[0];
    const int64_t n = row / (p->gather.grid[1] * p->gather.grid[0]);
    const int64_t y = p->phase[0] + a * v->stride[0], x = p->phase[1] + b * v->stride[1];
    return (char *)p->dx + (((n * v->in[0] + y) * v->in[1] + x) * v->c + batch * v->cg) * p->gather.element;
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
    const ftr__simd_bf16 *bf16 = ftr__conv_bf16(call);
    p->gather = (ftr__gather){.data = call->in[0].data,
                              .zeros = call->workspace,
                              .bf16 = bf16,
                              .element = bf16 ? (int64_t)sizeof(uint16_t) : (int64_t)sizeof(float),
                              .channels = v->o,
                              .run = v->og};
    ftr__conv_phase(v, 0, phase_y, p);
    ftr__conv_phase(v, 1, phase_x, p);
    p->weight = call->in[1].data;
    p->dx = call->out[0].data;
    p->gemm = (ftr__gemm){.batch = v->groups,
                          .m = v->n * p->gather.grid[0] * p->gather.grid[1],
                          .n = v->cg,
                          .k = ftr__conv_words(&p->gather, p->gather.taps[0] * p->gather.taps[1] * v->og),
                          .b = {.source = p, .pack = bf16 ? ftr__conv_pack_weight_pairs : ftr__conv_pack_weight},
                          .pairs = bf16 != NULL,
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
 * The gradient of a small weight, as sums over rows of pixels read where they lie: a copy would cost as much as the sums. The
 * images are cut into pieces, each a task with sums of its own. */
typedef struct ftr__conv_sums {
    const ftr__conv *conv;
    const ftr__cpu *cpu;
    bool thin;
    int64_t pieces;
    const float *x, *dy; /* x padded if it is thin */
    float *sums;         /* of each piece [tap][o][c], or [row of taps, run of channels][o] if it is thin */
    float *dw;
} ftr__conv_sums;

/* Channels fill vectors: the result's, and the input's unless it is thin. */
static bool ftr__conv_is_summed(const ftr_kernel_call *call, const ftr__conv *v) {
    const int64_t lanes = ftr__cpu_of(call)->simd->winograd.lanes;
    if (call->in[0].dtype != FTR_F32 || v->groups != 1 || v->n < 2 || v->o % lanes || v->out[1] < FTR__CONV_ROW)
        return false;
    if (ftr__conv_is_thin(call, v)) return v->o <= 2 * lanes;
    return v->c % lanes == 0 && v->taps > 1 && v->taps * v->c * v->o <= FTR__CONV_SUMS;
}

static int64_t ftr__conv_pieces(const ftr__conv *v) { return ftr__gemm_min(v->n, FTR__CONV_PIECES); }

static size_t ftr__conv_sums_bytes(const ftr__conv *v) {
    return ftr__gemm_align((size_t)(ftr__conv_pieces(v) * v->taps * v->c * v->o) * sizeof(float));
}

/* Adds a row of padded pixels' products, a run of channels of each row of taps at a time. */
static void ftr__conv_sum_thin_row(const ftr__conv_sums *s, int64_t n, int64_t y, float *sums) {
    const ftr__conv *v = s->conv;
    const ftr__simd_gemm *gemm = &s->cpu->simd->gemm;
    const int64_t run = v->kernel[1] * v->c, mr = gemm->mr, nr = gemm->nr;
    const float *dy = s->dy + (n * v->out[0] + y) * v->out[1] * v->o;
    float none[FTR__GEMM_MAX_NR] = {0};
    for (int64_t tap = 0; tap < v->kernel[0]; tap++) {
        const int64_t row = n * ftr__conv_padded(v, 0) + y * v->stride[0] + tap * v->dilation[0];
        const float *x = s->x + row * ftr__conv_padded(v, 1) * v->c;
        for (int64_t j = 0; j < v->o; j += nr) {
            for (int64_t i = 0; i < run; i += mr) {
                ftr__gemm_tile tile = {.ahead = dy + j, .load = true, .narrow = v->o - j <= nr / 2};
                for (int64_t r = 0; r < mr; r++) tile.c[r] = i + r < run ? sums + (tap * run + i + r) * v->o + j : none;
                gemm->tile(v->out[1], x + i, v->stride[1] * v->c, dy + j, v->o, &tile);
            }
        }
    }
}

/* Adds a tap's products of a row of the result; nothing where the tap lies outside the image. */
static void ftr__conv_sum_row(const ftr__conv_sums *s, int64_t n, int64_t y, int64_t tap, float *sums) {
    const ftr__conv *v = s->conv;
    const ftr__simd_winograd *simd = &s->cpu->simd->winograd;
    const int64_t at_y = y * v->stride[0] - v->before[0] + tap / v->kernel[1] * v->dilation[0];
    const int64_t at_x = tap % v->kernel[1] * v->dilation[1] - v->before[1], step = v->stride[1] * v->c;
    const int64_t begin = at_x < 0 ? ftr__gemm_ceil(-at_x, v->stride[1]) : 0;
    const int64_t end = at_x < v->in[1] ? ftr__gemm_min(ftr__gemm_ceil(v->in[1] - at_x, v->stride[1]), v->out[1]) : 0;
    if (at_y < 0 || at_y >= v->in[0] || begin >= end) return;
    const float *dy = s->dy + ((n * v->out[0] + y) * v->out[1] + begin) * v->o;
    const float *x = s->x + ((n * v->in[0] + at_y) * v->in[1] + at_x + begin * v->stride[1]) * v->c;
    for (int64_t c = 0; c < v->c; c += 2 * simd->lanes) {
        const float *second = c + simd->lanes < v->c ? x + c + simd->lanes : NULL;
        for (int64_t o = 0; o < v->o; o += second ? simd->tall : simd->lanes)
            simd->sums(end - begin, dy + o, v->o, x + c, second, step, true, sums + (tap * v->o + o) * v->c + c, v->c);
    }
}

static void ftr__conv_sums_task(void *arg, int64_t task, int32_t worker) {
    const ftr__conv_sums *s = (const ftr__conv_sums *)arg;
    const ftr__conv *v = s->conv;
    const int64_t size = v->taps * v->c * v->o, band = size <= FTR__CONV_NEAR_SUMS ? 1 : v->out[0];
    float *sums = s->sums + task * size;
    (void)worker;
    memset(sums, 0, (size_t)size * sizeof(float));
    for (int64_t n = v->n * task / s->pieces; n < v->n * (task + 1) / s->pieces; n++) {
        for (int64_t y = 0; s->thin && y < v->out[0]; y++) ftr__conv_sum_thin_row(s, n, y, sums);
        for (int64_t first = 0; !s->thin && first < v->out[0]; first += band)
            for (int64_t tap = 0; tap < v->taps; tap++)
                for (int64_t y = first; y < first + band; y++) ftr__conv_sum_row(s, n, y, tap, sums);
    }
}

/* The weights of an output channel: the pieces' sums in their order. */
static void ftr__conv_sums_finish_task(void *arg, int64_t task, int32_t worker) {
    const ftr__conv_sums *s = (const ftr__conv_sums *)arg;
    const ftr__conv *v = s->conv;
    const int64_t size = v->taps * v->c * v->o;
    (void)worker;
    for (int64_t i = 0; i < v->taps * v->c; i++) {
        const float *from = s->sums + (s->thin ? i * v->o + task : (i / v->c * v->o + task) * v->c + i % v->c);
        float sum = from[0];
        for (int64_t p = 1; p < s->pieces; p++) sum += from[p * size];
        s->dw[task * v->taps * v->c + i] = sum;
    }
}

/* A tile of a thin one may read behind the last run. */
static size_t ftr__conv_summed_workspace(const ftr_kernel_call *call, const ftr__conv *v) {
    return ftr__conv_sums_bytes(v) + ftr__conv_thin_bytes(call, v) + FTR__GEMM_MAX_MR * sizeof(float);
}

static void ftr__conv_summed_gradient(const ftr_kernel_call *call, const ftr__conv *v) {
    ftr__conv_sums s = {.conv = v, .cpu = ftr__cpu_of(call), .thin = ftr__conv_is_thin(call, v)};
    float *padded = (float *)(void *)((unsigned char *)call->workspace + ftr__conv_sums_bytes(v));
    s.pieces = ftr__conv_pieces(v);
    s.dy = (const float *)call->in[0].data;
    s.x = s.thin ? padded : (const float *)call->in[1].data;
    s.sums = (float *)call->workspace;
    s.dw = (float *)call->out[0].data;
    if (s.thin) ftr__conv_pad(s.cpu, v, (const float *)call->in[1].data, padded);
    ftr__pool_run(s.cpu->pool, s.pieces, ftr__conv_sums_task, &s);
    ftr__pool_run(s.cpu->pool, v->o, ftr__conv_sums_finish_task, &s);
}

/* ------------------------------------------------------------------------------------------------------------------
 * Kernels. */

/* A call that keeps its bf16 tensors is a plain product: where Winograd's form pays, it comes with f32 ones. */
static bool ftr__conv_use_winograd(const ftr_kernel_call *call, const ftr__conv *v, ftr__winograd_pass pass) {
    return call->in[0].dtype == FTR_F32 && ftr__winograd_pays(ftr__cpu_of(call), v, pass, 1.0);
}

size_t ftr__cpu_conv2d_workspace(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->in[0].shape, &call->out[0].shape);
    const ftr__cpu *cpu = ftr__cpu_of(call);
    const size_t finish = ftr__conv_finish_bytes(call);
    if (ftr__conv_is_depthwise(&v)) return finish + ftr__depthwise_workspace(call, &v, false);
    if (ftr__conv_use_winograd(call, &v, FTR__WINOGRAD_FORWARD))
        return finish + ftr__winograd_workspace(cpu, &v, FTR__WINOGRAD_FORWARD);
    ftr__conv_product p;
    ftr__conv_forward(call, &v, NULL, NULL, &p);
    return finish + ftr__conv_zeros(v.cg) + ftr__conv_thin_bytes(call, &v) + ftr__gemm_workspace(cpu, &p.gemm);
}

size_t ftr__cpu_conv2d_kept(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->in[0].shape, &call->out[0].shape);
    const ftr__cpu *cpu = ftr__cpu_of(call);
    if (ftr__conv_is_depthwise(&v)) return 0;
    if (ftr__conv_use_winograd(call, &v, FTR__WINOGRAD_FORWARD)) return ftr__winograd_kept(cpu, &v);
    ftr__conv_product p;
    ftr__conv_forward(call, &v, NULL, NULL, &p);
    return ftr__gemm_kept(cpu, &p.gemm);
}

ftr_status ftr__cpu_conv2d(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->in[0].shape, &call->out[0].shape);
    const ftr__cpu *cpu = ftr__cpu_of(call);
    unsigned char *workspace = (unsigned char *)call->workspace + ftr__conv_finish_bytes(call);
    ftr__conv_finish normed;
    const ftr__conv_finish *finish = ftr__conv_finish_open(call, call->workspace, &normed) ? &normed : NULL;
    if (ftr__conv_is_depthwise(&v)) {
        ftr__depthwise(call, &v, false, workspace, finish);
        return FTR_OK;
    }
    if (ftr__conv_use_winograd(call, &v, FTR__WINOGRAD_FORWARD)) {
        const ftr_view *bias = ftr__optional_input(call, 2);
        ftr__winograd_run(cpu, &v, FTR__WINOGRAD_FORWARD, (const float *)call->in[0].data,
                          (const float *)call->in[1].data, bias ? (const float *)bias->data : NULL,
                          !finish && call->attr->conv.activation == FTR_ACT_RELU, finish, (float *)call->out[0].data,
                          &(ftr__winograd_memory){workspace, call->kept, call->kept_is_made});
        return FTR_OK;
    }
    ftr__conv_product p;
    float *padded = (float *)(void *)(workspace + ftr__conv_zeros(v.cg));
    ftr__conv_forward(call, &v, workspace, padded, &p);
    p.gemm.kept = call->kept;
    p.gemm.kept_is_made = call->kept_is_made;
    if (finish) {
        p.gemm.norm = (ftr__norm_apply){finish->mean, finish->scale, finish->shift, finish->activation};
        p.gemm.residual = finish->residual;
        p.gemm.activation = FTR_ACT_NONE;
    }
    memset(workspace, 0, ftr__conv_zeros(v.cg));
    if (ftr__conv_is_thin(call, &v)) ftr__conv_pad(cpu, &v, (const float *)call->in[0].data, padded);
    ftr__gemm_run(cpu, &p.gemm, workspace + ftr__conv_zeros(v.cg) + ftr__conv_thin_bytes(call, &v));
    return FTR_OK;
}

size_t ftr__cpu_conv2d_grad_input_workspace(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->out[0].shape, &call->in[0].shape);
    if (ftr__conv_is_depthwise(&v)) return ftr__depthwise_workspace(call, &v, true);
    if (ftr__conv_use_winograd(call, &v, FTR__WINOGRAD_INPUT))
        return ftr__winograd_workspace(ftr__cpu_of(call), &v, FTR__WINOGRAD_INPUT);
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
        ftr__depthwise(call, &v, true, call->workspace, NULL);
        return FTR_OK;
    }
    if (ftr__conv_use_winograd(call, &v, FTR__WINOGRAD_INPUT)) {
        ftr__winograd_run(ftr__cpu_of(call), &v, FTR__WINOGRAD_INPUT, (const float *)call->in[0].data,
                          (const float *)call->in[1].data, NULL, false, NULL, (float *)call->out[0].data,
                          &(ftr__winograd_memory){.workspace = call->workspace});
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

/* Bytes of padded images, of zeros for bf16, or of what a changed input needs. */
static size_t ftr__conv_weight_memory(const ftr_kernel_call *call, const ftr__conv *v) {
    if (ftr__conv_changes_input(call)) return ftr__gemm_align((size_t)v->c * sizeof(float));
    return ftr__conv_bf16(call) ? ftr__conv_zeros(v->cg) : ftr__conv_thin_bytes(call, v);
}

size_t ftr__cpu_conv2d_grad_weight_workspace(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->in[1].shape, &call->in[0].shape);
    if (!ftr__conv_changes_input(call) && ftr__conv_is_depthwise(&v)) return ftr__depthwise_weight_workspace(call, &v);
    if (ftr__conv_use_winograd(call, &v, FTR__WINOGRAD_WEIGHT))
        return ftr__winograd_workspace(ftr__cpu_of(call), &v, FTR__WINOGRAD_WEIGHT);
    if (ftr__conv_is_summed(call, &v)) return ftr__conv_summed_workspace(call, &v);
    ftr__conv_product p;
    ftr__conv_weight_gradient(call, &v, NULL, &p);
    return ftr__conv_weight_memory(call, &v) + ftr__gemm_workspace(ftr__cpu_of(call), &p.gemm);
}

ftr_status ftr__cpu_conv2d_grad_weight(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->in[1].shape, &call->in[0].shape);
    if (!ftr__conv_changes_input(call) && ftr__conv_is_depthwise(&v)) {
        ftr__depthwise_weight_gradient(call, &v);
        return FTR_OK;
    }
    if (ftr__conv_use_winograd(call, &v, FTR__WINOGRAD_WEIGHT)) {
        ftr__winograd_weight_gradient(ftr__cpu_of(call), &v, (const float *)call->in[0].data,
                                      (const float *)call->in[1].data, (float *)call->out[0].data, call->workspace);
        return FTR_OK;
    }
    if (ftr__conv_is_summed(call, &v)) {
        ftr__conv_summed_gradient(call, &v);
        return FTR_OK;
    }
    ftr__conv_product p;
    const size_t bytes = ftr__conv_weight_memory(call, &v);
    ftr__conv_weight_gradient(call, &v, call->workspace, &p);
    if (p.gemm.pairs) memset(call->workspace, 0, bytes);
    if (ftr__conv_is_thin(call, &v))
        ftr__conv_pad(ftr__cpu_of(call), &v, (const float *)call->in[1].data, (float *)call->workspace);
    ftr__gemm_run(ftr__cpu_of(call), &p.gemm, (unsigned char *)call->workspace + bytes);
    return FTR_OK;
}

/* x, then y, of an op and its gradients. */
static ftr__conv ftr__conv_of(const ftr_kernel_call *call, ftr__winograd_pass pass) {
    const ftr_shape *in[] = {&call->in[0].shape, &call->out[0].shape, &call->in[1].shape};
    const ftr_shape *out[] = {&call->out[0].shape, &call->in[0].shape, &call->in[0].shape};
    return ftr__conv_make(call, in[pass], out[pass]);
}

static ftr__winograd_pass ftr__conv_pass(const ftr_kernel_call *call) {
    return call->op == FTR_OP_conv2d              ? FTR__WINOGRAD_FORWARD
           : call->op == FTR_OP_conv2d_grad_input ? FTR__WINOGRAD_INPUT
                                                  : FTR__WINOGRAD_WEIGHT;
}

/* Dot products of pairs make the direct sum twice as fast. The channels that are read as pairs must not be odd; a weight's
 * gradient has pixels for pairs. A batch norm that follows needs results in f32. */
bool ftr__cpu_conv2d_takes_bf16(const ftr_kernel_call *call) {
    const ftr__winograd_pass pass = ftr__conv_pass(call);
    if (!ftr__cpu_of(call)->bf16 || call->in[0].dtype != FTR_BF16 || call->in[1].dtype != FTR_BF16 ||
        call->out[0].dtype != FTR_BF16 || (pass == FTR__WINOGRAD_WEIGHT && ftr__conv_changes_input(call)))
        return false;
    const ftr__conv v = ftr__conv_of(call, pass);
    if (ftr__conv_is_depthwise(&v) || (pass == FTR__WINOGRAD_FORWARD && ftr__conv_finish_bytes(call) > 0) ||
        ftr__winograd_pays(ftr__cpu_of(call), &v, pass, 2.0))
        return false;
    return pass == FTR__WINOGRAD_WEIGHT || (pass == FTR__WINOGRAD_FORWARD ? v.cg : v.og) % 2 == 0;
}

const char *ftr__cpu_conv2d_algorithm(const ftr_kernel_call *call) {
    const ftr__winograd_pass pass = ftr__conv_pass(call);
    const ftr__conv v = ftr__conv_of(call, pass);
    if (pass == FTR__WINOGRAD_WEIGHT && ftr__conv_changes_input(call)) return "product";
    if (ftr__conv_is_depthwise(&v)) return "depthwise";
    const bool winograd = !ftr__cpu_conv2d_takes_bf16(call) && ftr__winograd_pays(ftr__cpu_of(call), &v, pass, 1.0);
    if (winograd) return "winograd 4x4";
    return pass == FTR__WINOGRAD_WEIGHT && ftr__conv_is_summed(call, &v) ? "sums of rows" : "product";
}
