/* Mixing of a batch: what is drawn, and the mixture of rows with their partners. */
#include "backend/cpu/cpu.h"
#include "core/draw.h"

#include <math.h>
#include <string.h>

#define FTR__MIX_GRAIN 16384 /* elements of a task */

/* ---------------------------------------------------------------------------------------------------- what is drawn -- */

/* The rows of the mask count, all if there is none. */
static bool ftr__mix_counts(const ftr_view *mask, int64_t row) {
    return !mask || ((const float *)mask->data)[row] != 0.0f;
}

/* Each row that counts gets the one before it, the first of them the last. */
static void ftr__mix_roll(const ftr_view *mask, int32_t *partners, int64_t rows) {
    int32_t first = -1, before = -1;
    for (int32_t i = 0; i < (int32_t)rows; i++) {
        partners[i] = i;
        if (!ftr__mix_counts(mask, i)) continue;
        if (before >= 0) partners[i] = before;
        if (first < 0) first = i;
        before = i;
    }
    if (first >= 0) partners[first] = before;
}

/* The row that counts and has `skip` such rows before it. */
static int64_t ftr__mix_row_at(const ftr_view *mask, int64_t skip) {
    int64_t row = mask ? 0 : skip;
    if (!mask) return row;
    while (!ftr__mix_counts(mask, row) || skip-- > 0) row++;
    return row;
}

/* Fisher and Yates (Durstenfeld, CACM 7, 1964) among the rows that count. */
static void ftr__mix_permute(ftr__draw *draw, const ftr_view *mask, int32_t *partners, int64_t rows) {
    int64_t count = 0;
    for (int64_t i = 0; i < rows; i++) {
        partners[i] = (int32_t)i;
        count += ftr__mix_counts(mask, i);
    }
    for (int64_t last = count - 1; last > 0; last--) {
        const int64_t a = ftr__mix_row_at(mask, last), b = ftr__mix_row_at(mask, ftr__draw_index(draw, last + 1));
        const int32_t moved = partners[a];
        partners[a] = partners[b];
        partners[b] = moved;
    }
}

static int32_t ftr__mix_clamp(int64_t x, int64_t most) { return (int32_t)(x < 0 ? 0 : x > most ? most : x); }

/* Draws the box of cutmix; returns the share of the image that it leaves. */
static double ftr__mix_box(ftr__draw *draw, const int64_t image[2], double lambda, int32_t box[4]) {
    const int64_t height = image[0], width = image[1];
    const int64_t column = ftr__draw_index(draw, width), row = ftr__draw_index(draw, height);
    const double half = 0.5 * sqrt(1.0 - lambda);
    const int64_t half_width = (int64_t)(half * (double)width), half_height = (int64_t)(half * (double)height);
    box[0] = ftr__mix_clamp(row - half_height, height);
    box[1] = ftr__mix_clamp(column - half_width, width);
    box[2] = ftr__mix_clamp(row + half_height, height);
    box[3] = ftr__mix_clamp(column + half_width, width);
    const double area = (double)(box[2] - box[0]) * (double)(box[3] - box[1]);
    return 1.0 - area / ((double)height * (double)width);
}

ftr_status ftr__cpu_mix_draw(const ftr_kernel_call *call) {
    const ftr_op_attr *a = call->attr;
    const ftr_view *mask = ftr__optional_input(call, 0);
    float *weights = call->out[0].data;
    int32_t *partners = call->out[1].data, *box = call->out[2].data;
    ftr__draw draw = {ftr__rng_make(call->seed, FTR__RNG_MIX, a->mix.key, call->step), 0};
    const double choice = ftr__draw_unit(&draw);
    double image = 1.0, target = 1.0; /* own weights */
    memset(box, 0, 4 * sizeof *box);
    if (choice < a->mix.mixup) {
        image = target = ftr__draw_beta(&draw, a->mix.mixup_alpha);
    } else if (choice < a->mix.mixup + a->mix.cutmix) {
        target = ftr__mix_box(&draw, a->mix.image, ftr__draw_beta(&draw, a->mix.cutmix_alpha), box);
    }
    weights[0] = (float)image;
    weights[1] = (float)(1.0 - image);
    weights[2] = (float)target;
    weights[3] = (float)(1.0 - target);
    if (a->mix.pairs == FTR_MIX_PERMUTE)
        ftr__mix_permute(&draw, mask, partners, a->mix.rows);
    else
        ftr__mix_roll(mask, partners, a->mix.rows);
    return FTR_OK;
}

/* ---------------------------------------------------------------------------------------------------------- mixing -- */

/* A batch is n samples of `lines` lines; with a box a line is a row of pixels, `pixel` elements each. */
typedef struct ftr__mix_job {
    const ftr__simd_math *math;
    const float *x;
    float *y;
    const int32_t *partners, *first, *next; /* first, next: lists of the rows that a row is the partner of; -1 ends */
    int64_t rows, lines, length, pixel, per_task;
    float own, other;
    int32_t box[4];
} ftr__mix_job;

static ftr__mix_job ftr__mix_job_of(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *box = ftr__optional_input(call, 3);
    const float *weights = (const float *)call->in[1].data + (call->attr->mix.targets ? 2 : 0);
    ftr__mix_job job = {.math = &ftr__cpu_of(call)->simd->math,
                        .x = x->data,
                        .y = call->out[0].data,
                        .partners = call->in[2].data,
                        .rows = x->shape.dim[0],
                        .lines = box ? x->shape.dim[1] : 1,
                        .own = weights[0],
                        .other = weights[1]};
    if (box) memcpy(job.box, box->data, sizeof job.box);
    if (x->count == 0) return job;
    job.length = x->count / (job.rows * job.lines);
    job.pixel = box ? job.length / x->shape.dim[2] : 1;
    job.per_task = 1 + FTR__MIX_GRAIN / job.length;
    return job;
}

/* Partners and a box outside of x: they may be the caller's. */
static ftr_status ftr__mix_check(const ftr_kernel_call *call, const ftr__mix_job *job) {
    const int64_t height = job->lines, width = job->pixel > 0 ? job->length / job->pixel : 0;
    const int32_t *b = job->box;
    for (int64_t i = 0; i < job->rows; i++)
        if (job->partners[i] < 0 || job->partners[i] >= job->rows)
            return ftr_backend_error(call, FTR_ERROR_DATA, "row %lld has the partner %d of %lld rows", (long long)i,
                                     (int)job->partners[i], (long long)job->rows);
    const bool fits = b[0] >= 0 && b[1] >= 0 && b[0] <= b[2] && b[1] <= b[3] && b[2] <= height && b[3] <= width;
    if (fits) return FTR_OK;
    return ftr_backend_error(call, FTR_ERROR_DATA, "a box from [%d, %d] to [%d, %d] in images of %lld x %lld",
                             (int)b[0], (int)b[1], (int)b[2], (int)b[3], (long long)height, (long long)width);
}

/* The elements of a line that are in the box: from *begin on, how many are returned. */
static int64_t ftr__mix_inside(const ftr__mix_job *job, int64_t line, int64_t *begin) {
    const int64_t row = line % job->lines;
    *begin = job->box[1] * job->pixel;
    return row >= job->box[0] && row < job->box[2] ? (job->box[3] - job->box[1]) * job->pixel : 0;
}

/* y = weight x; a weight of 0 gives 0 whatever x is. */
static void ftr__mix_scale(const ftr__mix_job *job, int64_t n, float weight, const float *x, float *y) {
    if (weight == 0.0f)
        memset(y, 0, (size_t)n * sizeof *y);
    else if (weight == 1.0f)
        memcpy(y, x, (size_t)n * sizeof *y);
    else
        job->math->binary[FTR__BINARY_MUL][FTR__OPERANDS_RIGHT_SCALAR](n, x, &weight, y);
}

static void ftr__mix_line(const ftr__mix_job *job, int64_t line) {
    const int64_t partner = job->partners[line / job->lines] * job->lines + line % job->lines;
    const float *x = job->x + line * job->length, *other = job->x + partner * job->length;
    float *y = job->y + line * job->length;
    int64_t begin, inside = ftr__mix_inside(job, line, &begin);
    ftr__mix_scale(job, job->length, job->own, x, y);
    if (job->other != 0.0f) job->math->axpy(job->length, job->other, other, y);
    if (inside > 0) memcpy(y + begin, other + begin, (size_t)inside * sizeof *y);
}

static void ftr__mix_task(void *arg, int64_t task, int32_t worker) {
    const ftr__mix_job *job = arg;
    const int64_t first = task * job->per_task, end = job->rows * job->lines;
    (void)worker;
    for (int64_t line = first; line < end && line < first + job->per_task; line++) ftr__mix_line(job, line);
}

ftr_status ftr__cpu_mix(const ftr_kernel_call *call) {
    ftr__mix_job job = ftr__mix_job_of(call);
    if (call->in[0].count == 0) return FTR_OK;
    const ftr_status status = ftr__mix_check(call, &job);
    if (status != FTR_OK) return status;
    const int64_t lines = job.rows * job.lines;
    ftr__pool_run(ftr__cpu_of(call)->pool, (lines + job.per_task - 1) / job.per_task, ftr__mix_task, &job);
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------------------- gradient -- */

/* dx = w0 dy outside the box, plus of each row that this one is the partner of, in their order, w1 dy outside and dy inside. */
static void ftr__mix_grad_line(const ftr__mix_job *job, int64_t line) {
    const int64_t row = line / job->lines, n = job->length;
    float *dx = job->y + line * n;
    int64_t begin, inside = ftr__mix_inside(job, line, &begin);
    const int64_t end = begin + inside;
    ftr__mix_scale(job, n, job->own, job->x + line * n, dx);
    if (inside > 0) memset(dx + begin, 0, (size_t)inside * sizeof *dx);
    for (int32_t from = job->first[row]; from >= 0; from = job->next[from]) {
        const float *dy = job->x + (from * job->lines + line % job->lines) * n;
        if (job->other != 0.0f) job->math->axpy(inside > 0 ? begin : n, job->other, dy, dx);
        if (job->other != 0.0f && inside > 0) job->math->axpy(n - end, job->other, dy + end, dx + end);
        if (inside > 0) job->math->axpy(inside, 1.0f, dy + begin, dx + begin);
    }
}

static void ftr__mix_grad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__mix_job *job = arg;
    const int64_t first = task * job->per_task, end = job->rows * job->lines;
    (void)worker;
    for (int64_t line = first; line < end && line < first + job->per_task; line++) ftr__mix_grad_line(job, line);
}

size_t ftr__cpu_mix_grad_workspace(const ftr_kernel_call *call) {
    return (size_t)call->in[0].shape.dim[0] * 2 * sizeof(int32_t);
}

ftr_status ftr__cpu_mix_grad(const ftr_kernel_call *call) {
    ftr__mix_job job = ftr__mix_job_of(call);
    if (call->in[0].count == 0) return FTR_OK;
    const ftr_status status = ftr__mix_check(call, &job);
    if (status != FTR_OK) return status;
    int32_t *first = call->workspace, *next = first + job.rows;
    for (int64_t i = 0; i < job.rows; i++) first[i] = -1;
    for (int32_t i = (int32_t)job.rows - 1; i >= 0; i--) {
        next[i] = first[job.partners[i]];
        first[job.partners[i]] = i;
    }
    job.first = first;
    job.next = next;
    const int64_t lines = job.rows * job.lines;
    ftr__pool_run(ftr__cpu_of(call)->pool, (lines + job.per_task - 1) / job.per_task, ftr__mix_grad_task, &job);
    return FTR_OK;
}
