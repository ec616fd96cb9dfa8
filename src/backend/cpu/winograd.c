/* Winograd's form of 3x3 convolutions. A block of tiles is transformed, meets each of the 36 points' matrices of the
 * transformed filters, and is transformed back, all in the scratch memory of one worker. The weight's gradient is the
 * transpose: blocks of tiles of x and of dy are transformed by all, then each point sums its products over the block's tiles,
 * block after block, so that the order of the sums is that of the tiles. Where one block has all tiles, some output channels
 * at a time are summed and transformed back, which takes less memory. */
#include "backend/cpu/winograd.h"

#include "backend/cpu/gemm.h"

#include <string.h>

#define FTR__WINOGRAD_LEAST 4         /* channels: with fewer the transforms are all that there is */
#define FTR__WINOGRAD_TILES 56        /* of a block at most */
#define FTR__WINOGRAD_BLOCK (3 << 18) /* floats of a block's transformed input at most */
#define FTR__WINOGRAD_COLUMNS 128     /* of the output that a block has in hand */
#define FTR__WINOGRAD_DEPTH 256       /* channels that a panel of filters is cut into */
#define FTR__WINOGRAD_TASKS 8         /* wanted at least */
#define FTR__WINOGRAD_SUM 128         /* tiles of a block of the weight's gradient */
#define FTR__WINOGRAD_GROUP 8         /* tiles of a task that transforms such a block */
#define FTR__WINOGRAD_ROWS 64         /* output channels of a task that sums products */
#define FTR__WINOGRAD_SUMS (5 << 18)  /* floats of sums in hand at most, if one block has all tiles */

/* A convolution from `from` [n, in, c] to `to` [n, out, o]; that of the input's gradient goes from dy to dx. */
typedef struct ftr__winograd {
    const ftr__cpu *cpu;
    const ftr__simd_winograd *simd;
    const ftr__simd_gemm *gemm;
    int64_t n, in[2], out[2], c, o, before[2];
    int64_t tiles[2], count; /* of an image; of all */
    int64_t wide_c, wide_o;  /* rounded up to vectors, and to panels of the product */
    int64_t panels;          /* of the output's channels */
    int64_t block, blocks;   /* tiles of one, how many */
    int64_t columns, parts;  /* output channels of a part, parts that a block is computed in */
    int64_t splits;          /* tasks that share a block's parts */
    bool transposed;         /* the filters are turned round, and their channels exchanged */
    const float *from, *weight, *bias;
    float *to;
    bool relu;
    const ftr__conv_finish *finish; /* NULL: none */
    float *filters, *zeros;
    unsigned char *scratch;
    size_t worker;
} ftr__winograd;

static int64_t ftr__winograd_round(int64_t value, int64_t to) { return ftr__gemm_ceil(value, to) * to; }

static ftr__winograd ftr__winograd_make(const ftr__cpu *cpu, const ftr__conv *v, ftr__winograd_pass pass) {
    const bool turned = pass == FTR__WINOGRAD_INPUT;
    ftr__winograd w = {
        .cpu = cpu, .simd = &cpu->simd->winograd, .gemm = &cpu->simd->gemm, .n = v->n, .transposed = turned};
    w.c = turned ? v->o : v->c;
    w.o = turned ? v->c : v->o;
    for (int32_t d = 0; d < 2; d++) {
        w.in[d] = turned ? v->out[d] : v->in[d];
        w.out[d] = turned ? v->in[d] : v->out[d];
        w.before[d] = turned ? 2 - v->before[d] : v->before[d];
        w.tiles[d] = ftr__gemm_ceil(w.out[d], FTR__WINOGRAD_OUT);
    }
    w.count = w.n * w.tiles[0] * w.tiles[1];
    w.wide_c = ftr__winograd_round(w.c, w.simd->lanes);
    w.panels = ftr__gemm_ceil(w.o, w.gemm->nr);
    w.wide_o = w.panels * w.gemm->nr;
    int64_t most = FTR__WINOGRAD_BLOCK / (FTR__WINOGRAD_POINTS * w.wide_c) / w.gemm->mr * w.gemm->mr;
    most = ftr__gemm_min(ftr__gemm_max(most, w.gemm->mr), FTR__WINOGRAD_TILES / w.gemm->mr * w.gemm->mr);
    w.blocks = ftr__gemm_ceil(w.count, most);
    w.block = ftr__gemm_min(ftr__winograd_round(ftr__gemm_ceil(w.count, ftr__gemm_max(w.blocks, 1)), w.gemm->mr), most);
    w.blocks = ftr__gemm_ceil(w.count, w.block);
    w.columns = ftr__gemm_min(w.wide_o, ftr__winograd_round(FTR__WINOGRAD_COLUMNS, w.gemm->nr));
    w.parts = ftr__gemm_ceil(w.wide_o, w.columns);
    w.splits = ftr__gemm_min(ftr__gemm_ceil(FTR__WINOGRAD_TASKS, ftr__gemm_max(w.blocks, 1)), w.parts);
    return w;
}

/* ------------------------------------------------------------------------------------------------ cost and memory -- */

/* Vector operations of the direct sum against those here: products, and transforms of input, output and filters, each
 * counted by loads, sums and stores. A weight's gradient has the same transforms, or their transposes. */
bool ftr__winograd_pays(const ftr__cpu *cpu, const ftr__conv *v, ftr__winograd_pass pass, double direct_speed) {
    for (int32_t d = 0; d < 2; d++)
        if (v->kernel[d] != 3 || v->stride[d] != 1 || v->dilation[d] != 1 || v->before[d] > 2 || v->out[d] < 1)
            return false;
    if (v->groups != 1 || v->c < FTR__WINOGRAD_LEAST || v->o < FTR__WINOGRAD_LEAST || v->n < 1 ||
        cpu->winograd == FTR__WINOGRAD_OFF)
        return false;
    if (cpu->winograd == FTR__WINOGRAD_ON) return true;
    const ftr__winograd w = ftr__winograd_make(cpu, v, pass);
    const double lanes = (double)w.simd->lanes, c = (double)w.wide_c,
                 o = (double)ftr__winograd_round(w.o, w.simd->lanes);
    const double tiles = (double)w.count, pixels = (double)w.n * (double)w.out[0] * (double)w.out[1];
    const double direct = pixels * 9.0 * (double)w.c * o / lanes;
    const double transforms = tiles * (c * 280.0 + o * 200.0) / lanes + c * o * 100.0 / lanes;
    const double rows = tiles > (double)w.gemm->mr ? tiles : (double)w.gemm->mr; /* fewer wait for the filters */
    return rows * FTR__WINOGRAD_POINTS * (double)w.c * o / lanes + transforms < 0.75 * direct / direct_speed;
}

static size_t ftr__winograd_bytes(int64_t floats) { return ftr__gemm_align((size_t)floats * sizeof(float)); }

static size_t ftr__winograd_filter_bytes(const ftr__winograd *w) {
    return ftr__winograd_bytes(FTR__WINOGRAD_POINTS * w->c * w->wide_o);
}

/* Of transformed filters before they are packed: a panel's, for as many channels as a vector has. */
static int64_t ftr__winograd_loose(const ftr__winograd *w) {
    return FTR__WINOGRAD_POINTS * w->gemm->nr * w->simd->lanes;
}

static size_t ftr__winograd_worker(const ftr__winograd *w) {
    const int64_t tiles = FTR__WINOGRAD_POINTS * w->block * (w->wide_c + w->columns);
    return ftr__winograd_bytes(ftr__gemm_max(tiles, ftr__winograd_loose(w)));
}

/* The weight's gradient: transformed blocks of x (panels of the product) and dy (vectors), and the sums. */
typedef struct ftr__winograd_sums {
    ftr__winograd of;     /* of x */
    int64_t o;            /* output channels, rounded up to vectors */
    int64_t c;            /* input channels, rounded up to panels */
    int64_t block;        /* tiles */
    int64_t first, tiles; /* of the block in hand */
    int64_t rows, row;    /* output channels whose sums are in hand: how many at most, the first */
    const float *dy;
    float *dw;
    float *x_tiles, *dy_tiles, *sums;
} ftr__winograd_sums;

static ftr__winograd_sums ftr__winograd_sums_make(const ftr__cpu *cpu, const ftr__conv *v) {
    ftr__winograd_sums s = {.of = ftr__winograd_make(cpu, v, FTR__WINOGRAD_WEIGHT)};
    s.o = ftr__winograd_round(s.of.o, s.of.simd->lanes);
    s.c = ftr__winograd_round(s.of.c, s.of.gemm->nr);
    s.block = ftr__gemm_min(s.of.count, FTR__WINOGRAD_SUM);
    const int64_t fit = FTR__WINOGRAD_SUMS / (FTR__WINOGRAD_POINTS * s.c) / FTR__WINOGRAD_ROWS * FTR__WINOGRAD_ROWS;
    s.rows = s.block < s.of.count ? s.o : ftr__gemm_min(ftr__gemm_max(fit, FTR__WINOGRAD_ROWS), s.o);
    return s;
}

size_t ftr__winograd_workspace(const ftr__cpu *cpu, const ftr__conv *v, ftr__winograd_pass pass) {
    if (pass == FTR__WINOGRAD_WEIGHT) {
        const ftr__winograd_sums s = ftr__winograd_sums_make(cpu, v);
        return ftr__winograd_bytes(ftr__gemm_max(s.c, s.o)) +
               ftr__winograd_bytes(FTR__WINOGRAD_POINTS * s.block * s.c) +
               ftr__winograd_bytes(FTR__WINOGRAD_POINTS * s.block * s.o) +
               ftr__winograd_bytes(FTR__WINOGRAD_POINTS * s.rows * s.c);
    }
    const ftr__winograd w = ftr__winograd_make(cpu, v, pass);
    return ftr__winograd_bytes(w.wide_c) + ftr__winograd_filter_bytes(&w) +
           ftr__winograd_worker(&w) * (size_t)ftr__pool_threads(cpu->pool);
}

size_t ftr__winograd_kept(const ftr__cpu *cpu, const ftr__conv *v) {
    const ftr__winograd w = ftr__winograd_make(cpu, v, FTR__WINOGRAD_FORWARD);
    return ftr__winograd_filter_bytes(&w);
}

/* --------------------------------------------------------------------------------------------------------- tiles -- */

/* A tile's place among all. */
typedef struct ftr__winograd_tile {
    int64_t n, y, x; /* image, first row and column of the output */
} ftr__winograd_tile;

static ftr__winograd_tile ftr__winograd_tile_at(const ftr__winograd *w, int64_t tile) {
    const int64_t per_row = w->tiles[1], per_image = w->tiles[0] * per_row;
    return (ftr__winograd_tile){.n = tile / per_image,
                                .y = tile % per_image / per_row * FTR__WINOGRAD_OUT,
                                .x = tile % per_row * FTR__WINOGRAD_OUT};
}

/* Where `side` * `side` pixels of an image lie, from row y and column x on; `outside` for those that are not in it. */
static void ftr__winograd_pixels(const int64_t size[2], int64_t channels, const float *image, int64_t y, int64_t x,
                                 int32_t side, const float *outside, const float **to) {
    for (int32_t i = 0; i < side; i++) {
        const bool row = y + i >= 0 && y + i < size[0];
        for (int32_t k = 0; k < side; k++) {
            const bool hit = row && x + k >= 0 && x + k < size[1];
            to[i * side + k] = hit ? image + ((y + i) * size[1] + x + k) * channels : outside;
        }
    }
}

static void ftr__winograd_input(const ftr__winograd *w, int64_t tile, const ftr__winograd_place *place) {
    const ftr__winograd_tile at = ftr__winograd_tile_at(w, tile);
    const float *pixels[FTR__WINOGRAD_POINTS];
    ftr__winograd_pixels(w->in, w->c, w->from + at.n * w->in[0] * w->in[1] * w->c, at.y - w->before[0],
                         at.x - w->before[1], FTR__WINOGRAD_IN, w->zeros, pixels);
    w->simd->input(w->c, pixels, place);
}

/* ------------------------------------------------------------------------------------------------------- filters -- */

/* A panel of `nr` output channels: point p, channel k, lane j of panel i at filters[((p * panels + i) * c + k) * nr + j]. */
static float *ftr__winograd_panel(const ftr__winograd *w, int64_t point, int64_t panel) {
    return w->filters + (point * w->panels + panel) * w->c * w->gemm->nr;
}

/* The filters of the gradient: o and c exchanged, so that a panel's lanes lie together in memory. */
static void ftr__winograd_turned_filters(const ftr__winograd *w, int64_t panel) {
    const int64_t nr = w->gemm->nr, first = panel * nr, lanes = ftr__gemm_min(nr, w->o - first);
    const int64_t plane = w->panels * w->c * nr;
    for (int64_t k = 0; k < w->c; k++) {
        float *to = ftr__winograd_panel(w, 0, panel) + k * nr;
        if (lanes < nr)
            for (int64_t p = 0; p < FTR__WINOGRAD_POINTS; p++) memset(to + p * plane, 0, (size_t)nr * sizeof *to);
        w->simd->filter(lanes, w->weight + (k * 9 + 8) * w->o + first, -w->o, to, plane);
    }
}

/* Those of the forward pass: transformed along the channels, then packed. */
static void ftr__winograd_straight_filters(const ftr__winograd *w, int64_t panel, float *loose) {
    const int64_t nr = w->gemm->nr, first = panel * nr, count = ftr__gemm_min(nr, w->o - first);
    const int64_t chunk = w->simd->lanes, plane = nr * chunk;
    const float *lines[FTR__GEMM_MAX_NR];
    for (int64_t k = 0; k < w->c; k += chunk) {
        const int64_t depth = ftr__gemm_min(chunk, w->c - k);
        for (int64_t j = 0; j < count; j++)
            w->simd->filter(depth, w->weight + (first + j) * 9 * w->c + k, w->c, loose + j * chunk, plane);
        for (int64_t p = 0; p < FTR__WINOGRAD_POINTS; p++) {
            float *to = ftr__winograd_panel(w, p, panel) + k * nr;
            for (int64_t j = 0; j < count; j++) lines[j] = loose + p * plane + j * chunk;
            w->gemm->interleave(count, depth, lines, to, nr);
            ftr__gemm_clear(depth, nr - count, nr, to + count);
        }
    }
}

static void ftr__winograd_filters_task(void *arg, int64_t task, int32_t worker) {
    const ftr__winograd *w = arg;
    if (w->transposed)
        ftr__winograd_turned_filters(w, task);
    else
        ftr__winograd_straight_filters(w, task, (float *)(void *)(w->scratch + (size_t)worker * w->worker));
}

/* ------------------------------------------------------------------------------------------- forward and gradient -- */

/* A part of the output of a block, in a worker's scratch. */
typedef struct ftr__winograd_part {
    const ftr__winograd *w;
    int64_t first, tiles;  /* of the block */
    int64_t panel, panels; /* of the part */
    float *in, *out;
} ftr__winograd_part;

/* The products of one point with one panel, rows `row` to `row` + mr - 1 of the block's tiles, channels from k on. */
static void ftr__winograd_product(const ftr__winograd_part *p, int64_t point, int64_t panel, int64_t row, int64_t k,
                                  int64_t depth) {
    const ftr__winograd *w = p->w;
    const int64_t mr = w->gemm->mr, nr = w->gemm->nr, rows = ftr__gemm_min(mr, p->tiles - row);
    const float *a[FTR__GEMM_MAX_MR];
    float none[FTR__GEMM_MAX_NR];
    ftr__gemm_tile tile = {.load = k > 0, .narrow = w->o - panel * nr <= nr / 2};
    if (rows < mr) memset(none, 0, sizeof none);
    for (int64_t i = 0; i < mr; i++) {
        const int64_t t = row + (i < rows ? i : 0);
        a[i] = p->in + (point * w->block + t) * w->wide_c + k;
        tile.c[i] = i < rows ? p->out + (point * w->block + t) * w->columns + (panel - p->panel) * nr : none;
    }
    tile.ahead = ftr__winograd_panel(w, point, panel) + k * nr;
    w->gemm->tile_rows(rows, 1, depth, a, tile.ahead, nr, &tile);
}

static void ftr__winograd_products(const ftr__winograd_part *p) {
    const ftr__winograd *w = p->w;
    for (int64_t point = 0; point < FTR__WINOGRAD_POINTS; point++)
        for (int64_t k = 0; k < w->c; k += FTR__WINOGRAD_DEPTH)
            for (int64_t panel = p->panel; panel < p->panel + p->panels; panel++)
                for (int64_t row = 0; row < p->tiles; row += w->gemm->mr)
                    ftr__winograd_product(p, point, panel, row, k, ftr__gemm_min(FTR__WINOGRAD_DEPTH, w->c - k));
}

static void ftr__winograd_output(const ftr__winograd_part *p, int64_t tile) {
    const ftr__winograd *w = p->w;
    const ftr__winograd_tile at = ftr__winograd_tile_at(w, p->first + tile);
    const int64_t first = p->panel * w->gemm->nr, channels = ftr__gemm_min(p->panels * w->gemm->nr, w->o - first);
    float *image = w->to + at.n * w->out[0] * w->out[1] * w->o + first;
    float *pixels[FTR__WINOGRAD_OUT * FTR__WINOGRAD_OUT];
    for (int64_t i = 0; i < FTR__WINOGRAD_OUT; i++) {
        for (int64_t k = 0; k < FTR__WINOGRAD_OUT; k++) {
            const bool hit = at.y + i < w->out[0] && at.x + k < w->out[1];
            pixels[i * FTR__WINOGRAD_OUT + k] = hit ? image + ((at.y + i) * w->out[1] + at.x + k) * w->o : NULL;
        }
    }
    w->simd->output(channels, p->out + tile * w->columns, w->block * w->columns, w->bias ? w->bias + first : NULL,
                    w->relu, pixels);
    if (w->finish)
        ftr__conv_finish_rows(w->finish, FTR__WINOGRAD_OUT * FTR__WINOGRAD_OUT, first, channels, NULL, pixels);
}

static void ftr__winograd_block_task(void *arg, int64_t task, int32_t worker) {
    const ftr__winograd *w = arg;
    const int64_t block = task / w->splits, split = task % w->splits, panels = w->columns / w->gemm->nr;
    ftr__winograd_part p = {.w = w, .first = block * w->block};
    p.tiles = ftr__gemm_min(w->block, w->count - p.first);
    p.in = (float *)(void *)(w->scratch + (size_t)worker * w->worker);
    p.out = p.in + FTR__WINOGRAD_POINTS * w->block * w->wide_c;
    for (int64_t t = 0; t < p.tiles; t++) {
        const ftr__winograd_place place = {p.in + t * w->wide_c, w->block * w->wide_c, w->wide_c, 0};
        ftr__winograd_input(w, p.first + t, &place);
    }
    for (int64_t part = w->parts * split / w->splits; part < w->parts * (split + 1) / w->splits; part++) {
        p.panel = part * panels;
        p.panels = ftr__gemm_min(panels, w->panels - p.panel);
        ftr__winograd_products(&p);
        for (int64_t t = 0; t < p.tiles; t++) ftr__winograd_output(&p, t);
    }
}

void ftr__winograd_run(const ftr__cpu *cpu, const ftr__conv *v, ftr__winograd_pass pass, const float *from,
                       const float *weight, const float *bias, bool relu, const ftr__conv_finish *finish, float *to,
                       const ftr__winograd_memory *memory) {
    ftr__winograd w = ftr__winograd_make(cpu, v, pass);
    unsigned char *next = (unsigned char *)memory->workspace + ftr__winograd_bytes(w.wide_c);
    w.from = from, w.weight = weight, w.bias = bias, w.relu = relu, w.to = to, w.finish = finish;
    w.zeros = memory->workspace;
    w.filters = memory->kept ? memory->kept : (float *)(void *)next;
    w.scratch = next + ftr__winograd_filter_bytes(&w);
    w.worker = ftr__winograd_worker(&w);
    memset(w.zeros, 0, (size_t)w.wide_c * sizeof(float));
    if (!memory->kept || !memory->made) ftr__pool_run(cpu->pool, w.panels, ftr__winograd_filters_task, &w);
    ftr__pool_run(cpu->pool, w.blocks * w.splits, ftr__winograd_block_task, &w);
}

/* ----------------------------------------------------------------------------------------------- weight's gradient -- */

/* Transforms some tiles of x and of dy. */
static void ftr__winograd_transform_task(void *arg, int64_t task, int32_t worker) {
    const ftr__winograd_sums *s = arg;
    const ftr__winograd *w = &s->of;
    const int64_t nr = w->gemm->nr, lanes = w->simd->lanes;
    const int64_t end = ftr__gemm_min((task + 1) * FTR__WINOGRAD_GROUP, s->tiles);
    const float *pixels[FTR__WINOGRAD_OUT * FTR__WINOGRAD_OUT];
    (void)worker;
    for (int64_t t = task * FTR__WINOGRAD_GROUP; t < end; t++) {
        const ftr__winograd_tile at = ftr__winograd_tile_at(w, s->first + t);
        const ftr__winograd_place x = {s->x_tiles + t * nr, s->block * s->c, nr, s->block * nr};
        const ftr__winograd_place dy = {s->dy_tiles + t * lanes, s->block * s->o, lanes, s->block * lanes};
        ftr__winograd_input(w, s->first + t, &x);
        ftr__winograd_pixels(w->out, w->o, s->dy + at.n * w->out[0] * w->out[1] * w->o, at.y, at.x, FTR__WINOGRAD_OUT,
                             w->zeros, pixels);
        w->simd->gradient(w->o, pixels, &dy);
    }
}

/* One point's sums over the block's tiles, for some output channels and all input channels. */
static void ftr__winograd_sums_task(void *arg, int64_t task, int32_t worker) {
    const ftr__winograd_sums *s = arg;
    const ftr__winograd *w = &s->of;
    const int64_t nr = w->gemm->nr, lanes = w->simd->lanes, groups = ftr__gemm_ceil(s->rows, FTR__WINOGRAD_ROWS);
    const int64_t point = task / groups, begin = s->row + task % groups * FTR__WINOGRAD_ROWS;
    const int64_t end = ftr__gemm_min(ftr__gemm_min(begin + FTR__WINOGRAD_ROWS, s->row + s->rows), s->o);
    const float *x = s->x_tiles + point * s->block * s->c, *dy = s->dy_tiles + point * s->block * s->o;
    float *sums = s->sums + point * s->rows * s->c;
    (void)worker;
    for (int64_t c = 0; c < s->c; c += nr)
        for (int64_t o = begin; o < end; o += w->simd->rows)
            w->simd->products(s->tiles, dy + o / lanes * lanes * s->block + o % lanes, x + c * s->block, s->first > 0,
                              sums + (o - s->row) * s->c + c, s->c);
}

static void ftr__winograd_finish_task(void *arg, int64_t task, int32_t worker) {
    const ftr__winograd_sums *s = arg;
    (void)worker;
    s->of.simd->filter_gradient(s->of.c, s->sums + task * s->c, s->rows * s->c, s->dw + (s->row + task) * 9 * s->of.c,
                                s->of.c);
}

/* Lanes of a panel that no channel has: a transform writes vectors, which may leave the panel's second one out. */
static void ftr__winograd_clear_panel(const ftr__winograd_sums *s) {
    const int64_t nr = s->of.gemm->nr, written = ftr__winograd_round(s->of.c, s->of.simd->lanes), rest = s->c - written;
    for (int64_t p = 0; p < FTR__WINOGRAD_POINTS && rest > 0; p++)
        ftr__gemm_clear(s->block, rest, nr, s->x_tiles + p * s->block * s->c + (s->c - nr) * s->block + nr - rest);
}

void ftr__winograd_weight_gradient(const ftr__cpu *cpu, const ftr__conv *v, const float *dy, const float *x, float *dw,
                                   void *workspace) {
    ftr__winograd_sums s = ftr__winograd_sums_make(cpu, v);
    const size_t zeros = ftr__winograd_bytes(ftr__gemm_max(s.c, s.o));
    s.of.from = x, s.dy = dy, s.dw = dw;
    s.of.zeros = workspace;
    s.x_tiles = (float *)(void *)((unsigned char *)workspace + zeros);
    s.dy_tiles = s.x_tiles + ftr__winograd_bytes(FTR__WINOGRAD_POINTS * s.block * s.c) / sizeof(float);
    s.sums = s.dy_tiles + ftr__winograd_bytes(FTR__WINOGRAD_POINTS * s.block * s.o) / sizeof(float);
    memset(workspace, 0, zeros);
    ftr__winograd_clear_panel(&s);
    const int64_t sums = FTR__WINOGRAD_POINTS * ftr__gemm_ceil(s.rows, FTR__WINOGRAD_ROWS);
    for (s.first = 0; s.first < s.of.count; s.first += s.block) {
        s.tiles = ftr__gemm_min(s.block, s.of.count - s.first);
        ftr__pool_run(cpu->pool, ftr__gemm_ceil(s.tiles, FTR__WINOGRAD_GROUP), ftr__winograd_transform_task, &s);
        if (s.first + s.block < s.of.count) ftr__pool_run(cpu->pool, sums, ftr__winograd_sums_task, &s);
    }
    s.first -= s.block;
    for (s.row = 0; s.row < s.of.o; s.row += s.rows) {
        ftr__pool_run(cpu->pool, sums, ftr__winograd_sums_task, &s);
        ftr__pool_run(cpu->pool, ftr__gemm_min(s.rows, s.of.o - s.row), ftr__winograd_finish_task, &s);
    }
}
