/* Winograd's form of 3x3 convolutions. A block of tiles is transformed, meets each of the 36 points' matrices of the
 * transformed filters, and is transformed back, all in the scratch memory of one worker. The weight's gradient is the
 * transpose: blocks of tiles of x and of dy are transformed by all, then each point sums its products over the block's tiles,
 * block after block, so that the order of the sums is that of the tiles. */
#include "backend/cpu/winograd.h"

#include "backend/cpu/gemm.h"

#include <string.h>

#define FTR__WINOGRAD_LEAST 4         /* channels: with fewer the transforms are all that there is */
#define FTR__WINOGRAD_TILES 56        /* of a block at most */
#define FTR__WINOGRAD_BLOCK (3 << 18) /* floats of a block's transformed input at most */
#define FTR__WINOGRAD_COLUMNS 128     /* of the output that a block has in hand */
#define FTR__WINOGRAD_DEPTH 256       /* channels that a panel of filters is cut into */
#define FTR__WINOGRAD_TASKS 8         /* wanted at least */
#define FTR__WINOGRAD_PIECES 16       /* of the weight's gradient at most */
#define FTR__WINOGRAD_FEW_PIECES 4    /* with fewer, points are the tasks */
#define FTR__WINOGRAD_PIECE 32        /* tiles of one at least */
#define FTR__WINOGRAD_SUMS (5 << 18)  /* floats of all pieces' sums at most */
#define FTR__WINOGRAD_NEAR (1 << 16)  /* floats of a block of a piece: a part of the L2 cache */
#define FTR__WINOGRAD_SUM 128         /* tiles of a block of the weight's gradient without pieces */
#define FTR__WINOGRAD_GROUP 8         /* tiles of a task that transforms such a block */
#define FTR__WINOGRAD_ROWS 64         /* output channels of a task that sums products */

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
    w.columns = ftr__gemm_min(w.wide_o, ftr__winograd_round(FTR__WINOGRAD_COLUMNS, w.gemm->nr));
    if (w.o <= w.gemm->nr / 2) w.columns = w.gemm->nr / 2;
    int64_t most = FTR__WINOGRAD_BLOCK / (FTR__WINOGRAD_POINTS * w.wide_c) / w.gemm->mr * w.gemm->mr;
    most = ftr__gemm_min(ftr__gemm_max(most, w.gemm->mr), FTR__WINOGRAD_TILES / w.gemm->mr * w.gemm->mr);
    w.blocks = ftr__gemm_ceil(w.count, most);
    w.block = ftr__gemm_min(ftr__winograd_round(ftr__gemm_ceil(w.count, ftr__gemm_max(w.blocks, 1)), w.gemm->mr), most);
    w.blocks = ftr__gemm_ceil(w.count, w.block);
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

/* Of a row of a tile outside the image. */
static size_t ftr__winograd_zeros(int64_t channels) { return ftr__winograd_bytes(FTR__WINOGRAD_IN * channels); }

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

/* The weight's gradient. Of few channels: tiles are cut into pieces, each a task with sums of its own, which are added up in
 * order. Of many, for which that would be too much memory: one piece, whose points are the tasks. */
typedef struct ftr__winograd_sums {
    ftr__winograd of; /* of x */
    int64_t o, c;     /* channels of dy and x, rounded up to vectors */
    int64_t pieces, piece;
    int64_t block;        /* tiles that are transformed at once */
    int64_t first, tiles; /* of the block in hand, of one piece */
    const float *dy;
    float *dw;
    float *x_tiles, *sums; /* [workers or 1][36][c, o / lanes][block][lanes]; [pieces][36][o][c] */
} ftr__winograd_sums;

static ftr__winograd_sums ftr__winograd_sums_make(const ftr__cpu *cpu, const ftr__conv *v) {
    ftr__winograd_sums s = {.of = ftr__winograd_make(cpu, v, FTR__WINOGRAD_WEIGHT)};
    s.o = ftr__winograd_round(s.of.o, s.of.simd->lanes);
    s.c = ftr__winograd_round(s.of.c, s.of.simd->lanes);
    const int64_t room = FTR__WINOGRAD_SUMS / (FTR__WINOGRAD_POINTS * s.o * s.c);
    const int64_t most = ftr__gemm_min(room, s.of.count / FTR__WINOGRAD_PIECE);
    s.pieces = most < FTR__WINOGRAD_FEW_PIECES ? 1 : ftr__gemm_min(most, FTR__WINOGRAD_PIECES);
    s.piece = ftr__gemm_ceil(s.of.count, s.pieces);
    s.pieces = ftr__gemm_ceil(s.of.count, s.piece);
    const int64_t some = ftr__gemm_max(FTR__WINOGRAD_NEAR / (FTR__WINOGRAD_POINTS * (s.o + s.c)), 8);
    s.block = ftr__gemm_min(s.piece, s.pieces > 1 ? some : FTR__WINOGRAD_SUM);
    return s;
}

static size_t ftr__winograd_sums_worker(const ftr__winograd_sums *s) {
    return ftr__winograd_bytes(FTR__WINOGRAD_POINTS * s->block * (s->c + s->o));
}

size_t ftr__winograd_workspace(const ftr__cpu *cpu, const ftr__conv *v, ftr__winograd_pass pass) {
    if (pass == FTR__WINOGRAD_WEIGHT) {
        const ftr__winograd_sums s = ftr__winograd_sums_make(cpu, v);
        const size_t workers = s.pieces > 1 ? (size_t)ftr__pool_threads(cpu->pool) : 1;
        return ftr__winograd_zeros(ftr__gemm_max(s.c, s.o)) + workers * ftr__winograd_sums_worker(&s) +
               ftr__winograd_bytes(s.pieces * FTR__WINOGRAD_POINTS * s.o * s.c);
    }
    const ftr__winograd w = ftr__winograd_make(cpu, v, pass);
    return ftr__winograd_zeros(w.c) + ftr__winograd_filter_bytes(&w) +
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

/* `side` * `side` pixels of an image, from row y and column x on; `zeros` stand for rows that are not in it. */
static void ftr__winograd_window_at(const int64_t size[2], int64_t channels, const float *image, int64_t y, int64_t x,
                                    int64_t side, const float *zeros, ftr__winograd_window *to) {
    to->first = x < 0 ? ftr__gemm_min(-x, side) : 0;
    to->last = ftr__gemm_max(ftr__gemm_min(side, size[1] - x), to->first);
    to->ahead = FTR__WINOGRAD_OUT * size[1] * channels;
    for (int64_t i = 0; i < side; i++) {
        const bool there = y + i >= 0 && y + i < size[0] && to->first < to->last;
        to->row[i] = there ? image + ((y + i) * size[1] + x + to->first) * channels : zeros;
    }
}

static void ftr__winograd_input(const ftr__winograd *w, int64_t tile, const ftr__winograd_place *place) {
    const ftr__winograd_tile at = ftr__winograd_tile_at(w, tile);
    ftr__winograd_window window;
    ftr__winograd_window_at(w->in, w->c, w->from + at.n * w->in[0] * w->in[1] * w->c, at.y - w->before[0],
                            at.x - w->before[1], FTR__WINOGRAD_IN, w->zeros, &window);
    w->simd->input(w->c, &window, place);
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

/* The products of one point with one panel, channels from k on. Rows behind the block's tiles hold what no one reads. */
static void ftr__winograd_product(const ftr__winograd_part *p, int64_t point, int64_t panel, int64_t k, int64_t depth) {
    const ftr__winograd *w = p->w;
    const int64_t mr = w->gemm->mr, nr = w->gemm->nr, lanes = w->simd->lanes;
    const float *filters = ftr__winograd_panel(w, point, panel) + k * nr;
    const float *a = p->in + point * w->block * w->wide_c + k * w->block;
    float *c = p->out + point * w->block * w->columns + (panel - p->panel) * nr;
    for (int64_t row = 0; row < p->tiles; row += mr)
        w->simd->products(p->tiles - row, w->o - panel * nr <= nr / 2, depth, a + row * lanes, w->block * lanes,
                          filters, k > 0, c + row * w->columns, w->columns);
}

static void ftr__winograd_products(const ftr__winograd_part *p) {
    const ftr__winograd *w = p->w;
    for (int64_t point = 0; point < FTR__WINOGRAD_POINTS; point++)
        for (int64_t k = 0; k < w->c; k += FTR__WINOGRAD_DEPTH)
            for (int64_t panel = p->panel; panel < p->panel + p->panels; panel++)
                ftr__winograd_product(p, point, panel, k, ftr__gemm_min(FTR__WINOGRAD_DEPTH, w->c - k));
}

static void ftr__winograd_output(const ftr__winograd_part *p, int64_t tile) {
    const ftr__winograd *w = p->w;
    const ftr__winograd_tile at = ftr__winograd_tile_at(w, p->first + tile);
    const int64_t first = p->panel * w->gemm->nr, channels = ftr__gemm_min(p->panels * w->gemm->nr, w->o - first);
    const ftr__winograd_patch patch = {.to = w->to + ((at.n * w->out[0] + at.y) * w->out[1] + at.x) * w->o + first,
                                       .row = w->out[1] * w->o,
                                       .pixel = w->o,
                                       .rows = ftr__gemm_min(FTR__WINOGRAD_OUT, w->out[0] - at.y),
                                       .columns = ftr__gemm_min(FTR__WINOGRAD_OUT, w->out[1] - at.x)};
    w->simd->output(channels, p->out + tile * w->columns, w->block * w->columns, w->bias ? w->bias + first : NULL,
                    w->relu, &patch);
    if (!w->finish) return;
    float *pixels[FTR__WINOGRAD_OUT * FTR__WINOGRAD_OUT];
    int64_t count = 0;
    for (int64_t i = 0; i < patch.rows; i++)
        for (int64_t k = 0; k < patch.columns; k++) pixels[count++] = patch.to + i * patch.row + k * patch.pixel;
    ftr__conv_finish_rows(w->finish, count, first, channels, NULL, pixels);
}

static void ftr__winograd_block_task(void *arg, int64_t task, int32_t worker) {
    const ftr__winograd *w = arg;
    const int64_t block = task / w->splits, split = task % w->splits;
    const int64_t panels = ftr__gemm_ceil(w->columns, w->gemm->nr), lanes = w->simd->lanes;
    ftr__winograd_part p = {.w = w, .first = block * w->block};
    p.tiles = ftr__gemm_min(w->block, w->count - p.first);
    p.in = (float *)(void *)(w->scratch + (size_t)worker * w->worker);
    p.out = p.in + FTR__WINOGRAD_POINTS * w->block * w->wide_c;
    for (int64_t t = 0; t < p.tiles; t++) {
        const ftr__winograd_place place = {p.in + t * lanes, w->block * w->wide_c, w->block * lanes};
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
    unsigned char *next = (unsigned char *)memory->workspace + ftr__winograd_zeros(w.c);
    w.from = from, w.weight = weight, w.bias = bias, w.relu = relu, w.to = to, w.finish = finish;
    w.zeros = memory->workspace;
    w.filters = memory->kept ? memory->kept : (float *)(void *)next;
    w.scratch = next + ftr__winograd_filter_bytes(&w);
    w.worker = ftr__winograd_worker(&w);
    memset(w.zeros, 0, ftr__winograd_zeros(w.c));
    if (!memory->kept || !memory->made) ftr__pool_run(cpu->pool, w.panels, ftr__winograd_filters_task, &w);
    ftr__pool_run(cpu->pool, w.blocks * w.splits, ftr__winograd_block_task, &w);
}

/* ----------------------------------------------------------------------------------------------- weight's gradient -- */

/* Transforms tiles of x and dy, begin to end - 1 of those from `first` on; x's come first in `to`. */
static void ftr__winograd_transform(const ftr__winograd_sums *s, int64_t first, int64_t begin, int64_t end, float *to) {
    const ftr__winograd *w = &s->of;
    const int64_t lanes = w->simd->lanes, panel = s->block * lanes;
    float *dy_tiles = to + FTR__WINOGRAD_POINTS * s->block * s->c;
    for (int64_t t = begin; t < end; t++) {
        const ftr__winograd_tile at = ftr__winograd_tile_at(w, first + t);
        const ftr__winograd_place x = {to + t * lanes, s->block * s->c, panel};
        const ftr__winograd_place dy = {dy_tiles + t * lanes, s->block * s->o, panel};
        ftr__winograd_window window;
        ftr__winograd_input(w, first + t, &x);
        ftr__winograd_window_at(w->out, w->o, s->dy + at.n * w->out[0] * w->out[1] * w->o, at.y, at.x,
                                FTR__WINOGRAD_OUT, w->zeros, &window);
        w->simd->gradient(w->o, &window, &dy);
    }
}

/* Adds one point's products of `tiles` transformed tiles, for output channels begin to end - 1 and all input channels. */
static void ftr__winograd_add_point(const ftr__winograd_sums *s, const float *x_tiles, int64_t tiles, int64_t point,
                                    int64_t begin, int64_t end, bool load, float *sums) {
    const ftr__simd_winograd *simd = s->of.simd;
    const int64_t lanes = simd->lanes, panel = s->block * lanes;
    const float *x = x_tiles + point * s->block * s->c;
    const float *dy = x_tiles + FTR__WINOGRAD_POINTS * s->block * s->c + point * s->block * s->o;
    sums += point * s->o * s->c;
    for (int64_t c = 0; c < s->c; c += 2 * lanes) {
        const float *b = x + c / lanes * panel, *second = c + lanes < s->c ? b + panel : NULL;
        for (int64_t o = begin; o < end; o += second ? simd->tall : lanes)
            simd->sums(tiles, dy + o / lanes * panel + o % lanes, lanes, b, second, lanes, load, sums + o * s->c + c,
                       s->c);
    }
}

/* All of a piece. */
static void ftr__winograd_piece_task(void *arg, int64_t task, int32_t worker) {
    const ftr__winograd_sums *s = arg;
    const int64_t begin = task * s->piece, end = ftr__gemm_min(begin + s->piece, s->of.count);
    float *tiles = s->x_tiles + (size_t)worker * ftr__winograd_sums_worker(s) / sizeof(float);
    float *sums = s->sums + task * FTR__WINOGRAD_POINTS * s->o * s->c;
    for (int64_t first = begin; first < end; first += s->block) {
        const int64_t count = ftr__gemm_min(s->block, end - first);
        ftr__winograd_transform(s, first, 0, count, tiles);
        for (int64_t p = 0; p < FTR__WINOGRAD_POINTS; p++)
            ftr__winograd_add_point(s, tiles, count, p, 0, s->o, first > begin, sums);
    }
}

/* Of one piece: some tiles of the block in hand. */
static void ftr__winograd_transform_task(void *arg, int64_t task, int32_t worker) {
    const ftr__winograd_sums *s = arg;
    (void)worker;
    ftr__winograd_transform(s, s->first, task * FTR__WINOGRAD_GROUP,
                            ftr__gemm_min((task + 1) * FTR__WINOGRAD_GROUP, s->tiles), s->x_tiles);
}

/* One point's sums over the block's tiles, for some output channels and all input channels. */
static void ftr__winograd_sums_task(void *arg, int64_t task, int32_t worker) {
    const ftr__winograd_sums *s = arg;
    const int64_t groups = ftr__gemm_ceil(s->o, FTR__WINOGRAD_ROWS), begin = task % groups * FTR__WINOGRAD_ROWS;
    (void)worker;
    ftr__winograd_add_point(s, s->x_tiles, s->tiles, task / groups, begin,
                            ftr__gemm_min(begin + FTR__WINOGRAD_ROWS, s->o), s->first > 0, s->sums);
}

/* The filters of an output channel. Their sums over the pieces go to those of the first one. */
static void ftr__winograd_finish_task(void *arg, int64_t task, int32_t worker) {
    const ftr__winograd_sums *s = arg;
    const int64_t plane = s->o * s->c;
    float *sums = s->sums + task * s->c;
    (void)worker;
    for (int64_t p = 0; p < FTR__WINOGRAD_POINTS; p++)
        for (int64_t i = 1; i < s->pieces; i++)
            s->of.gemm->accumulate(s->c, sums + (i * FTR__WINOGRAD_POINTS + p) * plane, sums + p * plane);
    s->of.simd->filter_gradient(s->of.c, sums, plane, s->dw + task * 9 * s->of.c, s->of.c);
}

void ftr__winograd_weight_gradient(const ftr__cpu *cpu, const ftr__conv *v, const float *dy, const float *x, float *dw,
                                   void *workspace) {
    ftr__winograd_sums s = ftr__winograd_sums_make(cpu, v);
    const size_t zeros = ftr__winograd_zeros(ftr__gemm_max(s.c, s.o));
    const size_t workers = s.pieces > 1 ? (size_t)ftr__pool_threads(cpu->pool) : 1;
    s.of.from = x, s.dy = dy, s.dw = dw;
    s.of.zeros = workspace;
    s.x_tiles = (float *)(void *)((unsigned char *)workspace + zeros);
    s.sums = s.x_tiles + workers * ftr__winograd_sums_worker(&s) / sizeof(float);
    memset(workspace, 0, zeros);
    const int64_t groups = ftr__gemm_ceil(s.o, FTR__WINOGRAD_ROWS);
    if (s.pieces > 1) ftr__pool_run(cpu->pool, s.pieces, ftr__winograd_piece_task, &s);
    for (s.first = 0; s.pieces == 1 && s.first < s.of.count; s.first += s.block) {
        s.tiles = ftr__gemm_min(s.block, s.of.count - s.first);
        ftr__pool_run(cpu->pool, ftr__gemm_ceil(s.tiles, FTR__WINOGRAD_GROUP), ftr__winograd_transform_task, &s);
        ftr__pool_run(cpu->pool, FTR__WINOGRAD_POINTS * groups, ftr__winograd_sums_task, &s);
    }
    ftr__pool_run(cpu->pool, s.of.o, ftr__winograd_finish_task, &s);
}
