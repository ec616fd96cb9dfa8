/* Depthwise convolutions, and others with few channels a group: vectors run along the channels of the result.
 *
 * A channel of the result needs all channels of the source's group, one a plane. A depthwise convolution has one plane,
 * the source itself. Otherwise the planes are made, a block of rows and channels at a time: channel c of plane j is
 * channel j of the group that the result's channel c belongs to. */
#include "backend/cpu/conv.h"
#include "backend/cpu/gemm.h"

#include <string.h>

#define FTR__DEPTHWISE_GROUP 8                /* channels a group, at most */
#define FTR__DEPTHWISE_TASK_BYTES (1 << 18)   /* of the larger side of a task */
#define FTR__DEPTHWISE_TASKS 16               /* that there should be at least */
#define FTR__DEPTHWISE_LEAST_ROWS 2           /* of a task, if rows are cut for their number */
#define FTR__DEPTHWISE_PLANES_BYTES (1 << 18) /* of a task's planes, if a block of channels is not larger */
#define FTR__DEPTHWISE_CHANNELS 192           /* of a task of the weight's gradient, about */
#define FTR__DEPTHWISE_ROWS 4                 /* that go by while sums are in registers */
#define FTR__DEPTHWISE_PIECES 32              /* that the weight's gradient is summed in, at most */
#define FTR__DEPTHWISE_VECTORS 32             /* channels, whole vectors on all levels */
#define FTR__DEPTHWISE_NEAR_BYTES 24576       /* of what is read again and again, to be kept in the nearest cache */
#define FTR__DEPTHWISE_MOVED 64               /* channels of a task that only moves weights */

bool ftr__conv_is_depthwise(const ftr__conv *v) {
    if (v->cg < 1 || v->og < 1 || v->cg > FTR__DEPTHWISE_GROUP || v->og > FTR__DEPTHWISE_GROUP) return false;
    return v->groups > 1 || v->cg * v->og == 1;
}

/* The taps through which a position of the result meets the source, along one dimension: tap `first` at position
 * `from`, the others tap_step taps and from_step positions further each. */
typedef struct ftr__depthwise_taps {
    int64_t count, first, from;
} ftr__depthwise_taps;

/* For the gradient of the input dy is the source and dx the result. */
typedef struct ftr__depthwise_job {
    const ftr__cpu *cpu;
    ftr__conv conv;
    bool gradient;
    int64_t to[2], from[2];
    int64_t to_channels, from_channels, to_group, from_group;
    int64_t phases[2],
        from_phase[2]; /* from a pixel of the result to the next with the same taps; its step in the source */
    int64_t tap_step[2], from_step[2];
    bool direct;         /* the source is the one plane */
    int64_t rows, block; /* rows and channels of the result a task */
    int64_t chunk;       /* channels that go through its rows together */
    int64_t parts, blocks;
    int64_t pixel; /* elements from a pixel of a plane to the next */
    size_t weight_bytes, pixel_bytes, row_bytes, plane_bytes;
    const float *source, *given_weight, *bias, *dy;
    bool relu;
    const ftr__conv_finish *finish; /* NULL: none */
    float *result;
    float *weight; /* [planes, taps, to_channels] */
    ftr__depthwise_span *pixel_spans;
    int64_t pixel_span_count;
    unsigned char *row_spans, *planes; /* row_bytes and plane_bytes a thread */
    int64_t pieces, piece_rows;
    float *partial; /* [pieces, planes, taps, to_channels] */
} ftr__depthwise_job;

/* The position of the source that a tap connects with position i of the result, or -1. */
static int64_t ftr__depthwise_at(const ftr__depthwise_job *w, int32_t d, int64_t i, int64_t tap) {
    const ftr__conv *v = &w->conv;
    if (!w->gradient) {
        const int64_t at = i * v->stride[d] + tap * v->dilation[d] - v->before[d];
        return at >= 0 && at < v->in[d] ? at : -1;
    }
    const int64_t at = i + v->before[d] - tap * v->dilation[d];
    return at >= 0 && at % v->stride[d] == 0 && at / v->stride[d] < v->out[d] ? at / v->stride[d] : -1;
}

static ftr__depthwise_taps ftr__depthwise_taps_at(const ftr__depthwise_job *w, int32_t d, int64_t i) {
    ftr__depthwise_taps taps = {0, 0, 0};
    const int64_t kernel = w->conv.kernel[d];
    for (int64_t k = 0; k < kernel; k++) {
        const int64_t tap = w->gradient ? kernel - 1 - k : k; /* forward in the source */
        const int64_t at = ftr__depthwise_at(w, d, i, tap);
        if (at < 0) continue;
        if (taps.count == 0) taps = (ftr__depthwise_taps){0, tap, at};
        taps.count++;
    }
    return taps;
}

/* The rows of the source that rows first to end - 1 of the result need. */
static void ftr__depthwise_source_rows(const ftr__depthwise_job *w, int64_t first, int64_t end, int64_t *low,
                                       int64_t *high) {
    *low = w->from[0];
    *high = 0;
    for (int64_t row = first; row < end; row++) {
        const ftr__depthwise_taps taps = ftr__depthwise_taps_at(w, 0, row);
        if (taps.count == 0) continue;
        *low = ftr__gemm_min(*low, taps.from);
        *high = ftr__gemm_max(*high, taps.from + (taps.count - 1) * w->from_step[0] + 1);
    }
    *high = ftr__gemm_max(*high, *low);
}

/* Whole groups, and whole vectors on all levels, nearest above `channels`. */
static int64_t ftr__depthwise_whole(const ftr__depthwise_job *w, int64_t channels) {
    const int64_t unit = FTR__DEPTHWISE_VECTORS * w->to_group / ftr__conv_gcd(FTR__DEPTHWISE_VECTORS, w->to_group);
    return ftr__gemm_min(ftr__gemm_ceil(ftr__gemm_max(channels, 1), unit) * unit, w->to_channels);
}

/* Memory for the planes of a task, a channel. */
static int64_t ftr__depthwise_plane_bytes(const ftr__depthwise_job *w) {
    int64_t rows = 0;
    for (int64_t first = 0; first < w->to[0]; first += w->rows) {
        int64_t low, high;
        ftr__depthwise_source_rows(w, first, ftr__gemm_min(first + w->rows, w->to[0]), &low, &high);
        rows = ftr__gemm_max(rows, high - low);
    }
    return (int64_t)sizeof(float) * w->from_group * rows * w->from[1];
}

/* Cuts images into rows of about the same number, and channels into blocks where planes would get too large or there
 * would be few tasks. Rows first: the node before has left them in the caches so. */
static void ftr__depthwise_cut(ftr__depthwise_job *w) {
    const int64_t to = w->to[0] * w->to[1] * w->to_channels, from = w->from[0] * w->from[1] * w->from_channels;
    const int64_t bytes = (int64_t)sizeof(float) * ftr__gemm_max(to, from);
    const int64_t wanted = ftr__gemm_ceil(FTR__DEPTHWISE_TASKS, ftr__gemm_max(w->conv.n, 1));
    const int64_t parts = ftr__gemm_max(ftr__gemm_ceil(bytes, FTR__DEPTHWISE_TASK_BYTES),
                                        ftr__gemm_min(wanted, w->to[0] / FTR__DEPTHWISE_LEAST_ROWS));
    w->rows = ftr__gemm_ceil(ftr__gemm_max(w->to[0], 1), ftr__gemm_max(ftr__gemm_min(parts, w->to[0]), 1));
    w->parts = ftr__gemm_ceil(w->to[0], w->rows);
    const int64_t split = ftr__gemm_ceil(FTR__DEPTHWISE_TASKS, ftr__gemm_max(w->conv.n * w->parts, 1));
    w->block = ftr__depthwise_whole(w, ftr__gemm_ceil(w->to_channels, split));
    if (!w->direct) {
        const int64_t channel = ftr__depthwise_plane_bytes(w);
        const int64_t fit = FTR__DEPTHWISE_PLANES_BYTES / ftr__gemm_max(channel, 1);
        w->block = ftr__gemm_min(w->block, ftr__depthwise_whole(w, fit));
        w->plane_bytes = ftr__gemm_align((size_t)(channel * w->block));
    }
    w->blocks = ftr__gemm_ceil(w->to_channels, w->block);
    w->pixel = w->direct ? w->from_channels : w->block;
}

static void ftr__depthwise_open(const ftr_kernel_call *call, const ftr__conv *v, bool gradient, ftr__depthwise_job *w) {
    *w = (ftr__depthwise_job){.cpu = ftr__cpu_of(call), .conv = *v, .gradient = gradient};
    for (int32_t d = 0; d < 2; d++) {
        const int64_t period = v->stride[d] / ftr__conv_gcd(v->stride[d], v->dilation[d]);
        w->to[d] = gradient ? v->in[d] : v->out[d];
        w->from[d] = gradient ? v->out[d] : v->in[d];
        w->tap_step[d] = gradient ? -period : 1;
        w->from_step[d] = gradient ? period * v->dilation[d] / v->stride[d] : v->dilation[d];
        w->phases[d] = gradient ? v->stride[d] : 1;
        w->from_phase[d] = gradient ? 1 : v->stride[d];
    }
    w->to_channels = gradient ? v->c : v->o;
    w->from_channels = gradient ? v->o : v->c;
    w->to_group = gradient ? v->cg : v->og;
    w->from_group = gradient ? v->og : v->cg;
    w->direct = w->to_group == 1 && w->from_group == 1;
    w->weight_bytes = ftr__gemm_align((size_t)(w->from_group * v->taps * w->to_channels) * sizeof(float));
    w->pixel_bytes = ftr__gemm_align((size_t)w->to[1] * sizeof(ftr__depthwise_span));
    ftr__depthwise_cut(w);
    w->row_bytes = ftr__gemm_align((size_t)w->rows * sizeof(ftr__depthwise_span));
}

static size_t ftr__depthwise_threads(const ftr__depthwise_job *w) { return (size_t)ftr__pool_threads(w->cpu->pool); }

/* ------------------------------------------------------------------------------------------------------- planes -- */

/* What a task reads: plane j, row y, pixel x at data + j * plane + (y - first_row) * row + x * pixel of the job. */
typedef struct ftr__depthwise_source {
    const float *data;
    int64_t first_row, plane, row;
} ftr__depthwise_source;

/* A pixel's groups into the planes. With a constant group the copies are a few instructions. */
#define FTR__DEPTHWISE_SPREAD(size)                                                                                    \
    for (int64_t g = 0; g < groups; g++) {                                                                             \
        for (int64_t j = 0; j < from_group; j++) {                                                                     \
            float *const to = planes + j * plane + g * (size);                                                         \
            for (int64_t k = 0; k < (size); k++) to[k] = from[g * from_group + j];                                     \
        }                                                                                                              \
    }                                                                                                                  \
    break;

static void ftr__depthwise_spread(int64_t groups, int64_t from_group, int64_t to_group, const float *restrict from,
                                  int64_t plane, float *restrict planes) {
    switch (to_group) {
    case 1: FTR__DEPTHWISE_SPREAD(1)
    case 2: FTR__DEPTHWISE_SPREAD(2)
    case 4: FTR__DEPTHWISE_SPREAD(4)
    case 8: FTR__DEPTHWISE_SPREAD(8)
    default: FTR__DEPTHWISE_SPREAD(to_group)
    }
}
#undef FTR__DEPTHWISE_SPREAD

/* The source of rows first to end - 1 and channels c on of the result's image n. */
static ftr__depthwise_source ftr__depthwise_source_of(const ftr__depthwise_job *w, int64_t n, int64_t first,
                                                      int64_t end, int64_t c, int64_t channels, int32_t worker) {
    const int64_t row = w->from[1] * w->from_channels;
    const float *image = w->source + n * w->from[0] * row;
    if (w->direct) return (ftr__depthwise_source){image + c, 0, 0, row};
    float *planes = (float *)(void *)(w->planes + (size_t)worker * w->plane_bytes);
    int64_t low, high;
    ftr__depthwise_source_rows(w, first, end, &low, &high);
    const int64_t plane = (high - low) * w->from[1] * w->pixel;
    const float *from = image + low * row + c / w->to_group * w->from_group;
    for (int64_t pixel = 0; pixel < (high - low) * w->from[1]; pixel++)
        ftr__depthwise_spread(channels / w->to_group, w->from_group, w->to_group, from + pixel * w->from_channels,
                              plane, planes + pixel * w->pixel);
    return (ftr__depthwise_source){planes, low, plane, w->from[1] * w->pixel};
}

/* ------------------------------------------------------------------------------- the op and the input's gradient -- */

/* Some channels of the weight as planes, taps, channels. */
static void ftr__depthwise_weight_task(void *arg, int64_t task, int32_t worker) {
    const ftr__depthwise_job *w = (const ftr__depthwise_job *)arg;
    const ftr__conv *v = &w->conv;
    const int64_t first = task * FTR__DEPTHWISE_MOVED;
    const int64_t some = ftr__gemm_min(FTR__DEPTHWISE_MOVED, w->to_channels - first);
    (void)worker;
    for (int64_t c = first; c < first + some; c++) {
        for (int64_t j = 0; j < w->from_group; j++) {
            const int64_t o = w->gradient ? c / v->cg * v->og + j : c, i = w->gradient ? c % v->cg : j;
            const float *from = w->given_weight + o * v->taps * v->cg + i;
            float *to = w->weight + j * v->taps * w->to_channels + c;
            for (int64_t tap = 0; tap < v->taps; tap++) to[tap * w->to_channels] = from[tap * v->cg];
        }
    }
}

/* Rows first to end - 1 of the result, or pixels of its rows, as spans; those of all phases come side by side. Steps
 * are from a position of the source, a tap, a row or pixel of the result to the next; `from` is the source's first. */
static int64_t ftr__depthwise_make_spans(const ftr__depthwise_job *w, int32_t d, int64_t first, int64_t end,
                                         int64_t from, const int64_t step[3], ftr__depthwise_span *spans) {
    int64_t count = 0;
    for (int64_t begin = first; begin < end; begin += FTR__DEPTHWISE_BLOCK * w->phases[d]) {
        const int64_t stop = ftr__gemm_min(begin + FTR__DEPTHWISE_BLOCK * w->phases[d], end);
        for (int64_t phase = begin; phase < ftr__gemm_min(begin + w->phases[d], end); phase++) {
            ftr__depthwise_span *last = NULL;
            for (int64_t i = phase; i < stop; i += w->phases[d]) {
                const ftr__depthwise_taps taps = ftr__depthwise_taps_at(w, d, i);
                if (last == NULL || last->taps != taps.count || last->w != taps.first * step[1]) {
                    last = &spans[count++];
                    last->x = taps.count > 0 ? (taps.from - from) * step[0] : 0;
                    last->w = taps.first * step[1];
                    last->y = (i - first) * step[2];
                    last->taps = taps.count;
                    last->count = 0;
                }
                last->count++;
            }
        }
    }
    return count;
}

/* Channels c to c + channels - 1 of rows first to end - 1 of image n, which are complete. */
static void ftr__depthwise_finish(const ftr__depthwise_job *w, int64_t n, int64_t first, int64_t end, int64_t c,
                                  int64_t channels) {
    const int64_t pixels = (end - first) * w->to[1];
    float *from = w->result + (n * w->to[0] + first) * w->to[1] * w->to_channels + c;
    float *y[FTR__CONV_FINISH_ROWS];
    for (int64_t i = 0; i < pixels; i += FTR__CONV_FINISH_ROWS) {
        const int64_t rows = ftr__gemm_min(FTR__CONV_FINISH_ROWS, pixels - i);
        for (int64_t r = 0; r < rows; r++) y[r] = from + (i + r) * w->to_channels;
        ftr__conv_finish_rows(w->finish, rows, c, channels, NULL, y);
    }
}

static void ftr__depthwise_task(void *arg, int64_t task, int32_t worker) {
    const ftr__depthwise_job *w = (const ftr__depthwise_job *)arg;
    const ftr__conv *v = &w->conv;
    const int64_t c = task % w->blocks * w->block, part = task / w->blocks % w->parts;
    const int64_t n = task / (w->blocks * w->parts), first = part * w->rows;
    const int64_t end = ftr__gemm_min(first + w->rows, w->to[0]);
    const int64_t channels = ftr__gemm_min(w->block, w->to_channels - c);
    const ftr__depthwise_source source = ftr__depthwise_source_of(w, n, first, end, c, channels, worker);
    const int64_t row[3] = {source.row, v->kernel[1] * w->to_channels, w->to[1] * w->to_channels};
    ftr__depthwise_span *spans = (ftr__depthwise_span *)(void *)(w->row_spans + (size_t)worker * w->row_bytes);
    const ftr__conv_finish *f = w->finish;
    const bool in_registers = f && !f->residual;
    ftr__norm_apply norm;
    if (in_registers) norm = (ftr__norm_apply){f->mean + c, f->scale + c, f->shift + c, f->activation};
    const ftr__depthwise_run run = {
        .channels = channels,
        .chunk = w->chunk,
        .planes = w->from_group,
        .row_span_count = ftr__depthwise_make_spans(w, 0, first, end, source.first_row, row, spans),
        .row_spans = spans,
        .pixel_span_count = w->pixel_span_count,
        .pixel_spans = w->pixel_spans,
        .x = source.data,
        .x_row = w->from_phase[0] * source.row,
        .x_pixel = w->from_phase[1] * w->pixel,
        .x_plane = source.plane,
        .x_tap_row = w->from_step[0] * source.row,
        .x_tap = w->from_step[1] * w->pixel,
        .w = w->weight + c,
        .w_plane = v->taps * w->to_channels,
        .w_tap_row = w->tap_step[0] * row[1],
        .w_tap = w->tap_step[1] * w->to_channels,
        .bias = w->bias ? w->bias + c : NULL,
        .relu = w->relu,
        .norm = in_registers ? &norm : NULL,
        .fetch = w->phases[1] > 1,
        .y = w->result + (n * w->to[0] + first) * row[2] + c,
        .y_row = w->phases[0] * row[2],
        .y_pixel = w->phases[1] * w->to_channels,
    };
    w->cpu->simd->depthwise.run(&run);
    if (f && !in_registers) ftr__depthwise_finish(w, n, first, end, c, channels);
}

/* Channels that go through a task's rows together: the pixels that a block meets fit the nearest cache. */
static int64_t ftr__depthwise_chunk(const ftr__depthwise_job *w) {
    const ftr__conv *v = &w->conv;
    const int64_t pixels = (v->kernel[1] - 1) * w->from_step[1] + (FTR__DEPTHWISE_BLOCK - 1) * w->from_phase[1] + 1;
    const int64_t channel = (int64_t)sizeof(float) * w->from_group * v->kernel[0] * pixels;
    return ftr__gemm_max(FTR__DEPTHWISE_NEAR_BYTES / channel / FTR__DEPTHWISE_VECTORS, 1) * FTR__DEPTHWISE_VECTORS;
}

size_t ftr__depthwise_workspace(const ftr_kernel_call *call, const ftr__conv *v, bool gradient) {
    ftr__depthwise_job w;
    ftr__depthwise_open(call, v, gradient, &w);
    return w.weight_bytes + w.pixel_bytes + (w.row_bytes + w.plane_bytes) * ftr__depthwise_threads(&w);
}

void ftr__depthwise(const ftr_kernel_call *call, const ftr__conv *v, bool gradient, void *workspace,
                    const ftr__conv_finish *finish) {
    if (call->out[0].count == 0) return;
    ftr__depthwise_job w;
    ftr__depthwise_open(call, v, gradient, &w);
    unsigned char *next = workspace;
    w.finish = finish;
    w.weight = (float *)(void *)next;
    w.pixel_spans = (ftr__depthwise_span *)(void *)(next + w.weight_bytes);
    w.row_spans = next + w.weight_bytes + w.pixel_bytes;
    w.planes = w.row_spans + w.row_bytes * ftr__depthwise_threads(&w);
    w.source = (const float *)call->in[0].data;
    w.given_weight = (const float *)call->in[1].data;
    w.result = (float *)call->out[0].data;
    if (!gradient) {
        const ftr_view *bias = ftr__optional_input(call, 2);
        w.bias = bias ? (const float *)bias->data : NULL;
        w.relu = !finish && call->attr->conv.activation == FTR_ACT_RELU;
    }
    w.chunk = ftr__depthwise_chunk(&w);
    const int64_t pixel[3] = {w.pixel, w.to_channels, w.to_channels};
    w.pixel_span_count = ftr__depthwise_make_spans(&w, 1, 0, w.to[1], 0, pixel, w.pixel_spans);
    ftr__pool *pool = w.cpu->pool;
    ftr__pool_run(pool, ftr__gemm_ceil(w.to_channels, FTR__DEPTHWISE_MOVED), ftr__depthwise_weight_task, &w);
    ftr__pool_run(pool, v->n * w.parts * w.blocks, ftr__depthwise_task, &w);
}

/* ---------------------------------------------------------------------------------------- the weight's gradient -- */

/* Neighbouring taps that the SIMD function takes at once. */
static int64_t ftr__depthwise_tap_run(int64_t left) {
    return left >= FTR__DEPTHWISE_TAPS ? FTR__DEPTHWISE_TAPS : left >= 3 ? 3 : 1;
}

/* The pixels of a row of dy that a column of taps connects with x: first to last - 1. */
static void ftr__depthwise_reach(const ftr__conv *v, int64_t tap, int64_t *first, int64_t *last) {
    const int64_t at = tap * v->dilation[1] - v->before[1], stride = v->stride[1];
    *first = at < 0 ? ftr__gemm_ceil(-at, stride) : 0;
    *last = at < v->in[1] ? ftr__gemm_min(ftr__gemm_ceil(v->in[1] - at, stride), v->out[1]) : 0;
    *last = ftr__gemm_max(*first, *last);
}

/* Adds what rows first to first + sums->rows - 1 of dy, which have the same taps, give to `sum`, which has the place of
 * the first channel. */
static void ftr__depthwise_add_rows(const ftr__depthwise_job *w, const ftr__depthwise_source *source,
                                    const ftr__depthwise_taps *taps, ftr__depthwise_sums *sums, float *sum) {
    const ftr__conv *v = &w->conv;
    sums->tap_rows = taps->count;
    for (int64_t j = 0; j < w->from_group; j++) {
        sums->x = source->data + j * source->plane;
        for (int64_t t = 0; t < v->kernel[1]; t += sums->taps) {
            sums->taps = ftr__depthwise_tap_run(v->kernel[1] - t);
            for (int64_t i = 0; i < sums->taps; i++) ftr__depthwise_reach(v, t + i, &sums->first[i], &sums->last[i]);
            sums->at = (taps->from - source->first_row) * source->row + (t * v->dilation[1] - v->before[1]) * w->pixel;
            sums->sum = sum + ((j * v->kernel[0] + taps->first) * v->kernel[1] + t) * v->o;
            w->cpu->simd->depthwise.sums(sums);
        }
    }
}

/* Rows first to end - 1 of dy's image n, for `channels` channels from c on. */
static void ftr__depthwise_add_image(const ftr__depthwise_job *w, int64_t n, int64_t first, int64_t end, int64_t c,
                                     int64_t channels, int32_t worker, float *sum) {
    const ftr__conv *v = &w->conv;
    const ftr__depthwise_source source = ftr__depthwise_source_of(w, n, first, end, c, channels, worker);
    ftr__depthwise_sums sums = {.channels = channels, .dy_row = v->out[1] * v->o, .dy_pixel = v->o};
    sums.x_row = v->stride[0] * source.row;
    sums.x_pixel = v->stride[1] * w->pixel;
    sums.x_tap_row = v->dilation[0] * source.row;
    sums.x_tap = v->dilation[1] * w->pixel;
    sums.sum_tap_row = v->kernel[1] * v->o;
    sums.sum_tap = v->o;
    for (int64_t row = first; row < end; row += sums.rows) {
        const ftr__depthwise_taps taps = ftr__depthwise_taps_at(w, 0, row);
        for (sums.rows = 1; sums.rows < FTR__DEPTHWISE_ROWS && row + sums.rows < end; sums.rows++) {
            const ftr__depthwise_taps next = ftr__depthwise_taps_at(w, 0, row + sums.rows);
            if (next.count != taps.count || next.first != taps.first) break;
        }
        sums.dy = w->dy + (n * v->out[0] + row) * sums.dy_row + c;
        if (taps.count > 0) ftr__depthwise_add_rows(w, &source, &taps, &sums, sum + c);
    }
}

/* One piece of the rows of dy, one block of channels. */
static void ftr__depthwise_piece_task(void *arg, int64_t task, int32_t worker) {
    const ftr__depthwise_job *w = (const ftr__depthwise_job *)arg;
    const ftr__conv *v = &w->conv;
    const int64_t c = task % w->blocks * w->block, piece = task / w->blocks, planes = w->from_group * v->taps;
    const int64_t channels = ftr__gemm_min(w->block, v->o - c);
    const int64_t end = ftr__gemm_min((piece + 1) * w->piece_rows, v->n * v->out[0]);
    float *sum = w->partial + piece * planes * v->o;
    for (int64_t k = 0; k < planes; k++) memset(sum + k * v->o + c, 0, (size_t)channels * sizeof(float));
    for (int64_t row = piece * w->piece_rows; row < end;) {
        const int64_t n = row / v->out[0], a = row % v->out[0];
        const int64_t rows = ftr__gemm_min(ftr__gemm_min(w->rows - a % w->rows, v->out[0] - a), end - row);
        ftr__depthwise_add_image(w, n, a, a + rows, c, channels, worker, sum);
        row += rows;
    }
}

/* Adds the pieces in their order, and puts some channels of the sum where the weight's are. */
static void ftr__depthwise_sum_task(void *arg, int64_t task, int32_t worker) {
    const ftr__depthwise_job *w = (const ftr__depthwise_job *)arg;
    const ftr__conv *v = &w->conv;
    const int64_t first = task * FTR__DEPTHWISE_MOVED, count = ftr__gemm_min(FTR__DEPTHWISE_MOVED, v->o - first);
    const int64_t planes = w->from_group * v->taps;
    (void)worker;
    for (int64_t k = 0; k < planes; k++) {
        const int64_t j = k / v->taps, tap = k % v->taps;
        float *sum = w->partial + k * v->o + first;
        for (int64_t p = 1; p < w->pieces; p++) w->cpu->simd->gemm.accumulate(count, sum + p * planes * v->o, sum);
        for (int64_t o = 0; o < count; o++) w->result[((first + o) * v->taps + tap) * v->cg + j] = sum[o];
    }
}

/* Pieces that make enough tasks, and whose sums are small beside what they are the sums of. */
static void ftr__depthwise_open_sums(const ftr_kernel_call *call, const ftr__conv *v, ftr__depthwise_job *w) {
    ftr__depthwise_open(call, v, false, w);
    const int64_t rows = v->n * v->out[0], useful = rows * v->out[1] / (8 * v->taps * w->from_group);
    w->pieces = ftr__gemm_max(ftr__gemm_min(ftr__gemm_min(useful, rows), FTR__DEPTHWISE_PIECES), 1);
    w->piece_rows = ftr__gemm_max(ftr__gemm_ceil(rows, w->pieces), 1);
    w->pieces = ftr__gemm_max(ftr__gemm_ceil(rows, w->piece_rows), 1);
    if (w->direct) {
        w->rows = ftr__gemm_max(v->out[0], 1);
        w->block = ftr__depthwise_whole(w, ftr__gemm_ceil(v->o, ftr__gemm_ceil(v->o, FTR__DEPTHWISE_CHANNELS)));
        w->blocks = ftr__gemm_ceil(v->o, w->block);
    }
}

static size_t ftr__depthwise_partial_bytes(const ftr__depthwise_job *w) {
    const ftr__conv *v = &w->conv;
    return ftr__gemm_align((size_t)(w->pieces * w->from_group * v->taps * v->o) * sizeof(float));
}

size_t ftr__depthwise_weight_workspace(const ftr_kernel_call *call, const ftr__conv *v) {
    ftr__depthwise_job w;
    ftr__depthwise_open_sums(call, v, &w);
    return ftr__depthwise_partial_bytes(&w) + w.plane_bytes * ftr__depthwise_threads(&w);
}

void ftr__depthwise_weight_gradient(const ftr_kernel_call *call, const ftr__conv *v) {
    ftr__depthwise_job w;
    ftr__depthwise_open_sums(call, v, &w);
    w.partial = (float *)call->workspace;
    w.planes = (unsigned char *)call->workspace + ftr__depthwise_partial_bytes(&w);
    w.dy = (const float *)call->in[0].data;
    w.source = (const float *)call->in[1].data;
    w.result = (float *)call->out[0].data;
    ftr__pool_run(w.cpu->pool, w.pieces * w.blocks, ftr__depthwise_piece_task, &w);
    ftr__pool_run(w.cpu->pool, ftr__gemm_ceil(v->o, FTR__DEPTHWISE_MOVED), ftr__depthwise_sum_task, &w);
}
