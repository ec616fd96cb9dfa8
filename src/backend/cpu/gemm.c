#include "backend/cpu/gemm.h"

#include <string.h>

#define FTR__GEMM_KC 384              /* depth of a block: a panel of B about fills the L1 cache */
#define FTR__GEMM_PAIRS_KC 512        /* of pairs: rounding waits for the last block, so one block is best */
#define FTR__GEMM_PAIRS_TN 512        /* columns of a task whose sums wait in its scratch */
#define FTR__GEMM_PAIRS_SHARED 16384  /* pairs of k up to which B is packed at once */
#define FTR__GEMM_ZIP 448             /* words zipped at once: a multiple of all widths of tiles */
#define FTR__GEMM_MC 192              /* rows of a task at most: a block of A fits the L2 cache */
#define FTR__GEMM_IN_PLACE 16         /* panels of B up to which A is read in place */
#define FTR__GEMM_IN_PLACE_WHOLE 64   /* the same, if B is packed as a whole: a task has few of them */
#define FTR__GEMM_SHARED (2 << 20)    /* floats of B packed at once */
#define FTR__GEMM_WHOLE (4 << 20)     /* floats of B up to which it is packed as a whole, if it is to be */
#define FTR__GEMM_TASKS 16            /* wanted, so that threads end at about the same time */
#define FTR__GEMM_TASK_WORK (1 << 18) /* multiply-adds that a task should have */
#define FTR__GEMM_TILES 4             /* tiles of rows that a panel of B should meet */
#define FTR__GEMM_AHEAD 6             /* rows that packing asks for before it needs them */
#define FTR__GEMM_ROWS_AHEAD 32       /* rows of A that are asked for before they are needed */
#define FTR__GEMM_PIECE 512           /* least depth of a piece of k */
#define FTR__GEMM_DIRECT (3 << 15)    /* floats of a block of operands read where they lie, at most: the L2 cache */
#define FTR__GEMM_DIRECT_DEPTH 84     /* least depth of such a block */
#define FTR__GEMM_PANELS 2            /* of B that a task packs for itself, at least: rows of them are read */
#define FTR__GEMM_PACK_DEPTH 64       /* of a task that packs */
#define FTR__GEMM_NEAR 4096           /* floats of B that stay in the L1 cache while rows go by */
#define FTR__GEMM_ROWS 4              /* tiles of rows that go by at once, if all of B is that near */
#define FTR__GEMM_APART 16 /* floats between tiles of A that are packed side by side: not all in one set of a cache */
#define FTR__GEMM_SHORT 64 /* depth of a tile that ends before memory answers */
#define FTR__GEMM_FEW_ROWS 512 /* of A up to which a block of all of it fits the L2 cache */

/* How a product is cut. All of it follows from the product and the tile, not from the threads. */
typedef struct ftr__gemm_plan {
    const ftr__gemm *gemm;
    const ftr__simd_gemm *simd;
    const ftr__simd_bf16 *bf16;
    int64_t kc;     /* depth of a block */
    int64_t tm, tn; /* rows and columns of a task */
    int64_t mb, nb; /* tasks along m, and along the columns of a chunk */
    int64_t pieces; /* of k, each with a result of its own */
    int64_t piece;  /* depth of one */
    int64_t ks, nc; /* a chunk of B: ks deep, nc wide */
    bool shared;    /* a chunk of B is packed by all before the tasks start; otherwise tasks pack for themselves */
    bool shared_a;  /* a chunk of all of A is packed before the tasks start; each packs its columns of B for itself */
    bool in_place;  /* A is read through pointers */
    bool whole_b;   /* a task packs all its panels of B at once */
    bool direct;    /* both operands are read where they lie */
    int64_t panel;  /* columns of a panel: of a tile; half as many where fewer than those of a tile can be read */
    bool rounded;   /* of pairs: tasks round sums to bf16 when the last block of k has been added */
    bool sums;      /* those of more than one block wait in the task's scratch */
    size_t worker;  /* bytes of scratch a worker: pointers, a block of A, sums that wait, a panel of B */
    size_t pointer_bytes, a_bytes, sum_bytes;
    int64_t pointers_b; /* where B's pointers begin */
    int64_t a_tile;     /* floats from one packed tile of A to the next */
    size_t b_bytes;     /* the packed chunk, of A if that is shared */
    size_t piece_bytes; /* the pieces' results */
    /* the chunk at work */
    int64_t j0, j1, k0, k1;
    float *packed, *partial;
    unsigned char *scratch;
} ftr__gemm_plan;

/* Depth of a block: equal parts of k, or of a segment if that is long, or whole segments if they are short. */
static int64_t ftr__gemm_block_depth(const ftr__gemm *gemm) {
    const int64_t run = gemm->a.rows && gemm->a.segment > 0 ? gemm->a.segment : gemm->k;
    const int64_t most = gemm->pairs ? FTR__GEMM_PAIRS_KC : FTR__GEMM_KC;
    if (run >= most) return ftr__gemm_ceil(ftr__gemm_ceil(run, ftr__gemm_ceil(run, most)), 4) * 4;
    if (run <= 0) return 1;
    const int64_t runs = gemm->k / run, blocks = ftr__gemm_ceil(gemm->k, most);
    return ftr__gemm_max(ftr__gemm_ceil(runs, ftr__gemm_max(blocks, 1)) * run, 1);
}

/* Rows and columns of a task, in tiles. With B packed for all, short tasks along m cost nothing, but each task along n packs
 * its rows of A again; otherwise a task packs both and is better square. */
static void ftr__gemm_grid(ftr__gemm_plan *p) {
    const ftr__gemm *g = p->gemm;
    const int64_t mr = p->simd->mr, nr = p->simd->nr;
    const int64_t mt = ftr__gemm_ceil(g->m, mr), nt = ftr__gemm_ceil(p->nc, nr);
    const int64_t others = ftr__gemm_max(g->batch * p->pieces, 1);
    const double work = (double)g->batch * (double)(mt * mr) * (double)(nt * nr) * (double)g->k / FTR__GEMM_TASK_WORK;
    const int64_t wanted = work < FTR__GEMM_TASKS ? (int64_t)work : FTR__GEMM_TASKS;
    int64_t mb = ftr__gemm_max(ftr__gemm_ceil(mt, FTR__GEMM_MC / mr), 1), nb = 1;
    if (p->shared) mb = ftr__gemm_max(mb, ftr__gemm_min(wanted, mt / FTR__GEMM_TILES));
    while (mb * nb * others < wanted) {
        const int64_t tm = ftr__gemm_ceil(mt, mb), tn = ftr__gemm_ceil(nt, nb);
        if (tn > 1 && (p->shared || tn * nr >= tm * mr || tm == 1))
            nb = ftr__gemm_min(nb * 2, nt);
        else if (tm > 1)
            mb = ftr__gemm_min(mb * 2, mt);
        else
            break;
    }
    if (p->sums) nb = ftr__gemm_max(nb, ftr__gemm_ceil(p->nc, FTR__GEMM_PAIRS_TN));
    p->tm = ftr__gemm_max(ftr__gemm_ceil(mt, mb), 1) * mr;
    p->tn = ftr__gemm_max(ftr__gemm_ceil(nt, nb), 1) * nr;
    p->mb = ftr__gemm_ceil(g->m, p->tm);
    p->nb = ftr__gemm_ceil(p->nc, p->tn);
}

/* A packed for all: tasks are columns. */
static void ftr__gemm_grid_columns(ftr__gemm_plan *p) {
    const ftr__gemm *g = p->gemm;
    const int64_t mr = p->simd->mr, nr = p->simd->nr, nt = ftr__gemm_ceil(g->n, nr);
    p->tm = ftr__gemm_ceil(g->m, mr) * mr;
    p->tn = ftr__gemm_ceil(nt, ftr__gemm_min(FTR__GEMM_TASKS, ftr__gemm_ceil(nt, FTR__GEMM_PANELS))) * nr;
    p->mb = 1;
    p->nb = ftr__gemm_ceil(g->n, p->tn);
}

/* Cuts k when rows and columns alone do not make tasks enough. */
static void ftr__gemm_split(ftr__gemm_plan *p) {
    const ftr__gemm *g = p->gemm;
    const int64_t tasks = ftr__gemm_ceil(g->m, FTR__GEMM_MC) * ftr__gemm_ceil(g->n, FTR__GEMM_MC) * g->batch;
    const int64_t wanted = ftr__gemm_ceil(FTR__GEMM_TASKS, ftr__gemm_max(tasks, 1));
    const int64_t pieces = ftr__gemm_max(ftr__gemm_min(wanted, g->k / FTR__GEMM_PIECE), 1);
    p->piece = ftr__gemm_ceil(ftr__gemm_ceil(g->k, pieces), 8) * 8;
    p->pieces = ftr__gemm_max(ftr__gemm_ceil(g->k, ftr__gemm_max(p->piece, 1)), 1);
    if (p->pieces > 1) p->piece_bytes = ftr__gemm_align((size_t)(g->batch * p->pieces * g->m * g->n) * sizeof(float));
}

/* Of a deep product of few rows and columns whose lines lie together, a block of all of A and B fits the L2 cache, and a
 * copy would cost as much as the product. The last tiles overlap those before them: nothing behind a line is read. */
static bool ftr__gemm_is_direct(const ftr__gemm_plan *p) {
    const ftr__gemm *g = p->gemm;
    return !g->pairs && g->split && g->batch == 1 && g->a.at && g->b.at && !g->b.change && g->m >= p->simd->mr &&
           g->n >= p->simd->nr / 2 && g->m + g->n <= FTR__GEMM_DIRECT / FTR__GEMM_DIRECT_DEPTH;
}

static ftr__gemm_plan ftr__gemm_make_plan(const ftr__cpu *cpu, const ftr__gemm *g) {
    ftr__gemm_plan p = {.gemm = g,
                        .simd = g->pairs ? &cpu->bf16_gemm : &cpu->simd->gemm,
                        .bf16 = cpu->bf16,
                        .pieces = 1,
                        .piece = g->k,
                        .ks = g->k,
                        .nc = g->n};
    const int64_t mr = p.simd->mr, nr = p.simd->nr;
    p.kc = ftr__gemm_block_depth(g);
    p.direct = ftr__gemm_is_direct(&p);
    p.panel = p.direct && g->n < nr ? nr / 2 : nr;
    if (p.direct) p.kc = ftr__gemm_min(p.kc, FTR__GEMM_DIRECT / (g->m + g->n));
    const bool few = g->whole && !g->pairs; /* for few rows too */
    /* Pointers cost as much as copies when a run is short. Copies pay when the block is read often. */
    p.in_place = g->a.rows && !g->split && (g->a.segment >= 8 || g->k == 0) &&
                 (g->n <= (few ? FTR__GEMM_IN_PLACE_WHOLE : FTR__GEMM_IN_PLACE) * nr || g->m <= 2 * mr);
    const bool shared =
        g->batch == 1 && !g->split && (g->m > 2 * mr || few) && (!g->pairs || g->k <= FTR__GEMM_PAIRS_SHARED);
    p.shared_a = shared && !few && !g->pairs && g->m <= FTR__GEMM_FEW_ROWS && g->m <= g->n && g->b.at &&
                 (g->a.at || g->a.segment == g->k);
    p.shared = shared && !p.shared_a;
    p.in_place = p.in_place && !p.shared_a;
    if (g->split) ftr__gemm_split(&p);
    p.rounded = g->pairs && p.pieces == 1;
    p.sums = p.rounded && p.kc < g->k;
    const bool whole = few && p.shared && g->k * g->n <= FTR__GEMM_WHOLE;
    if (shared && !whole && !g->pairs) p.ks = ftr__gemm_min(g->k, ftr__gemm_max(4096 / p.kc, 1) * p.kc);
    if (p.shared && !whole) {
        const int64_t columns = FTR__GEMM_SHARED / ftr__gemm_max(p.ks, 1) / nr * nr;
        p.nc = ftr__gemm_min(g->n, ftr__gemm_max(columns, 4 * nr));
    }
    if (p.shared) {
        p.b_bytes = ftr__gemm_align((size_t)(p.ks * ftr__gemm_ceil(p.nc, nr) * nr) * sizeof(float));
    }
    if (p.shared_a)
        ftr__gemm_grid_columns(&p);
    else
        ftr__gemm_grid(&p);
    p.a_tile = mr * (p.shared_a ? p.ks : p.kc) + (p.shared_a ? FTR__GEMM_APART : 0);
    if (p.shared_a) p.b_bytes = ftr__gemm_align((size_t)(p.tm / mr * p.a_tile) * sizeof(float));
    const int64_t runs = g->a.rows ? p.kc / ftr__gemm_max(ftr__gemm_min(g->a.segment, p.kc), 1) + 2 : 0;
    p.pointers_b = runs * (p.in_place ? p.tm : mr);
    p.pointer_bytes = ftr__gemm_align((size_t)(p.pointers_b + nr) * sizeof(float *));
    p.a_bytes = p.in_place || p.direct || p.shared_a ? 0 : ftr__gemm_align((size_t)(p.tm * p.kc) * sizeof(float));
    p.sum_bytes = p.sums ? ftr__gemm_align((size_t)(p.tm * p.tn) * sizeof(float)) : 0;
    p.whole_b = !p.shared && !p.direct && g->b.at && g->m > mr;
    const int64_t b_columns = p.shared || p.direct ? 0 : p.whole_b ? p.tn : nr;
    p.worker = p.pointer_bytes + p.a_bytes + p.sum_bytes + ftr__gemm_align((size_t)(p.kc * b_columns) * sizeof(float));
    return p;
}

size_t ftr__gemm_workspace(const ftr__cpu *cpu, const ftr__gemm *gemm) {
    const ftr__gemm_plan p = ftr__gemm_make_plan(cpu, gemm);
    return p.worker * (size_t)ftr__pool_threads(cpu->pool) + p.b_bytes + p.piece_bytes;
}

size_t ftr__gemm_kept(const ftr__cpu *cpu, const ftr__gemm *gemm) {
    const ftr__gemm_plan p = ftr__gemm_make_plan(cpu, gemm);
    return p.shared && !gemm->pairs && p.nc >= gemm->n && p.ks >= gemm->k ? p.b_bytes : 0;
}

/* Packs all tiles of `count` lines that lie together in memory, one k after the other, so that memory is read in its order:
 * a tile at a time would read a little of each row. Tiles are `tile` floats apart. */
static void ftr__gemm_pack_tiles(const ftr__simd_gemm *simd, const ftr__gemm_operand *x, int64_t batch, int64_t first,
                                 int64_t count, int64_t width, int64_t k, int64_t depth, int64_t tile, float *to) {
    const float *from = (const float *)x->at(x->source, batch, k, first);
    const int64_t whole = count / width, rest = count % width;
    simd->spread(depth, whole, width, from, x->stride, tile, to);
    if (rest == 0) return;
    ftr__gemm_copy(depth, rest, width, from + whole * width, x->stride, to + whole * tile);
    ftr__gemm_clear(depth, width - rest, width, to + whole * tile + rest);
}

/* Packs lines of an operand, through `pointers` if it has `rows`. */
static void ftr__gemm_pack(const ftr__gemm_plan *p, const ftr__gemm_operand *x, int64_t batch, int64_t first,
                           int64_t count, int64_t width, int64_t k, int64_t depth, const float **pointers, float *to) {
    if (depth <= 0) return;
    if (x->at && !x->change && !p->gemm->pairs) {
        ftr__gemm_pack_tiles(p->simd, x, batch, first, count, width, k, depth, 0, to);
        return;
    }
    if (x->pack) {
        x->pack(x->source, batch, first, count, width, k, depth, to);
        for (int64_t d = 0; d < depth && x->change; d++, to += width)
            x->change(x->change_source, k + d, first, count, to, to);
        return;
    }
    const int64_t run = x->segment, s0 = k / run, s1 = (k + depth - 1) / run;
    x->rows(x->source, batch, first, count, s0, s1 - s0 + 1, width, pointers);
    for (int64_t s = s0; s <= s1; s++, pointers += width) {
        const int64_t begin = ftr__gemm_max(k - s * run, 0), end = ftr__gemm_min(k + depth - s * run, run);
        for (int64_t i = 0; i < count; i++) pointers[i] += begin;
        p->simd->interleave(count, end - begin, pointers, to + (s * run + begin - k) * width, width);
    }
    ftr__gemm_clear(depth, width - count, width, to + count);
}

/* Packs one panel of the chunk of B. */
static void ftr__gemm_pack_task(void *arg, int64_t task, int32_t worker) {
    const ftr__gemm_plan *p = (const ftr__gemm_plan *)arg;
    const int64_t nr = p->simd->nr, j = p->j0 + task * nr;
    const float **pointers = (const float **)(void *)(p->scratch + (size_t)worker * p->worker);
    ftr__gemm_pack(p, &p->gemm->b, 0, j, ftr__gemm_min(nr, p->j1 - j), nr, p->k0, p->k1 - p->k0, pointers,
                   p->packed + task * p->ks * nr);
}

/* One task at one block of k. */
typedef struct ftr__gemm_block {
    const ftr__gemm_plan *plan;
    int64_t batch, i0, i1, j0, j1;
    int64_t k, depth;
    int64_t segments, length; /* of A in place */
    int64_t tiles, ask_step;  /* of rows; elements of the next panel that a tile asks for, for each k */
    bool load, last;
    float *c; /* row c_i, column c_j of f32 results on their way; NULL: they go where the product says */
    int64_t c_i, c_j, c_stride;
    const float **pointers;
    float *a, *b;
} ftr__gemm_block;

/* Depth of the block that begins at k: not across segments, unless it takes whole ones. */
static int64_t ftr__gemm_depth_at(const ftr__gemm_plan *p, int64_t k, int64_t k1) {
    const ftr__gemm_operand *a = &p->gemm->a;
    int64_t depth = ftr__gemm_min(p->kc, k1 - k);
    if (a->rows && a->segment > p->kc) depth = ftr__gemm_min(depth, a->segment - k % a->segment);
    return ftr__gemm_max(depth, 0);
}

/* The same of lines that are changed. */
static void ftr__gemm_change_tiles(const ftr__gemm_operand *x, int64_t batch, int64_t first, int64_t count,
                                   int64_t width, int64_t k, int64_t depth, int64_t tile, float *to) {
    const float *from = (const float *)x->at(x->source, batch, k, first);
    const int64_t chunk = FTR__GEMM_ZIP / width * width;
    float row[FTR__GEMM_ZIP];
    for (int64_t d = 0; d < depth; d++, from += x->stride, to += width) {
        for (int64_t i = 0; i < count; i += 16) __builtin_prefetch(from + FTR__GEMM_AHEAD * x->stride + i);
        for (int64_t i = 0; i < count; i += chunk) {
            const int64_t some = ftr__gemm_min(chunk, count - i), tiles = ftr__gemm_ceil(some, width);
            x->change(x->change_source, k + d, first + i, some, from + i, row);
            for (int64_t r = some; r < tiles * width; r++) row[r] = 0;
            ftr__gemm_scatter(tiles, width, row, tile, to + i / width * tile);
        }
    }
}

/* The same of pairs. */
static void ftr__gemm_zip_tiles(const ftr__gemm_plan *p, const ftr__gemm_operand *x, int64_t batch, int64_t first,
                                int64_t count, int64_t width, int64_t k, int64_t depth, int64_t tile, float *to) {
    const uint16_t *from = (const uint16_t *)x->at(x->source, batch, k, first);
    const int64_t chunk = FTR__GEMM_ZIP / width * width;
    float words[FTR__GEMM_ZIP];
    for (int64_t d = 0; d < depth; d++, from += 2 * x->stride, to += width) {
        const uint16_t *second = 2 * (k + d) + 1 < x->elements ? from + x->stride : NULL;
        for (int64_t i = 0; i < count; i += 32) {
            __builtin_prefetch(from + FTR__GEMM_AHEAD * x->stride + i);
            __builtin_prefetch(from + (FTR__GEMM_AHEAD + 1) * x->stride + i);
        }
        for (int64_t i = 0; i < count; i += chunk) {
            const int64_t some = ftr__gemm_min(chunk, count - i), tiles = ftr__gemm_ceil(some, width);
            p->bf16->zip(some, from + i, second ? second + i : NULL, words);
            for (int64_t r = some; r < tiles * width; r++) words[r] = 0;
            ftr__gemm_scatter(tiles, width, words, tile, to + i / width * tile);
        }
    }
}

static void ftr__gemm_pack_lines(const ftr__gemm_plan *p, const ftr__gemm_operand *x, int64_t batch, int64_t first,
                                 int64_t count, int64_t width, int64_t k, int64_t depth, int64_t tile, float *to) {
    if (p->gemm->pairs)
        ftr__gemm_zip_tiles(p, x, batch, first, count, width, k, depth, tile, to);
    else if (x->change)
        ftr__gemm_change_tiles(x, batch, first, count, width, k, depth, tile, to);
    else
        ftr__gemm_pack_tiles(p->simd, x, batch, first, count, width, k, depth, tile, to);
}

/* Packs a part of the chunk of A: a tile of rows, or a block of k of all of them, in the order in which they lie. */
static void ftr__gemm_pack_a_task(void *arg, int64_t task, int32_t worker) {
    const ftr__gemm_plan *p = (const ftr__gemm_plan *)arg;
    const ftr__gemm *g = p->gemm;
    const int64_t mr = p->simd->mr;
    if (g->a.at) {
        const int64_t k = p->k0 + task * FTR__GEMM_PACK_DEPTH;
        ftr__gemm_pack_tiles(p->simd, &g->a, 0, 0, g->m, mr, k, ftr__gemm_min(FTR__GEMM_PACK_DEPTH, p->k1 - k),
                             p->a_tile, p->packed + task * FTR__GEMM_PACK_DEPTH * mr);
    } else {
        const float **pointers = (const float **)(void *)(p->scratch + (size_t)worker * p->worker);
        ftr__gemm_pack(p, &g->a, 0, task * mr, ftr__gemm_min(mr, g->m - task * mr), mr, p->k0, p->k1 - p->k0, pointers,
                       p->packed + task * p->a_tile);
    }
}

/* Packs what all tasks read, if anything. */
static void ftr__gemm_pack_shared(const ftr__cpu *cpu, ftr__gemm_plan *p) {
    if (p->k1 <= p->k0) return;
    if (p->shared) ftr__pool_run(cpu->pool, ftr__gemm_ceil(p->j1 - p->j0, p->simd->nr), ftr__gemm_pack_task, p);
    if (p->shared_a) {
        const int64_t tasks = p->gemm->a.at ? ftr__gemm_ceil(p->k1 - p->k0, FTR__GEMM_PACK_DEPTH) : p->tm / p->simd->mr;
        ftr__pool_run(cpu->pool, tasks, ftr__gemm_pack_a_task, p);
    }
}

/* The block of A: pointers to its runs, or a packed copy. */
static void ftr__gemm_prepare_a(ftr__gemm_block *t) {
    const ftr__gemm_plan *p = t->plan;
    const ftr__gemm_operand *a = &p->gemm->a;
    const int64_t mr = p->simd->mr;
    if (p->direct) return;
    if (p->shared_a) {
        t->a = p->packed + (t->k - p->k0) * mr;
        return;
    }
    if (a->at && t->depth > 0) {
        ftr__gemm_pack_lines(p, a, t->batch, t->i0, t->i1 - t->i0, mr, t->k, t->depth, p->a_tile, t->a);
        return;
    }
    const int64_t run = p->in_place ? ftr__gemm_max(a->segment, 1) : 1, offset = t->k % run;
    t->segments = t->depth > run ? t->depth / run : ftr__gemm_min(t->depth, 1);
    t->length = t->depth > run ? run : t->depth;
    for (int64_t i = t->i0; i < t->i1; i += mr) {
        const int64_t count = ftr__gemm_min(mr, t->i1 - i), tile = (i - t->i0) / mr;
        if (!p->in_place) {
            ftr__gemm_pack(p, a, t->batch, i, count, mr, t->k, t->depth, t->pointers, t->a + tile * p->a_tile);
            continue;
        }
        if (t->segments == 0) continue;
        const float **to = t->pointers + tile * mr * t->segments;
        a->rows(a->source, t->batch, i, count, t->k / run, t->segments, mr, to);
        for (int64_t s = 0; s < t->segments; s++) {
            for (int64_t r = 0; r < mr; r++)
                to[s * mr + r] = to[s * mr + (r < count ? r : 0)] + (r < count ? offset : 0);
        }
    }
}

/* The row and the column where a tile of operands that are read where they lie begins. */
static int64_t ftr__gemm_direct_row(const ftr__gemm_plan *p, int64_t i) {
    return ftr__gemm_min(i, p->gemm->m - p->simd->mr);
}

static int64_t ftr__gemm_direct_column(const ftr__gemm_plan *p, int64_t j) {
    const int64_t half = p->simd->nr / 2, n = p->gemm->n;
    return ftr__gemm_min(j, n - (n - j <= half ? half : p->panel));
}

/* The panel of B at columns j, and its stride. */
static const float *ftr__gemm_prepare_b(const ftr__gemm_block *t, int64_t j, int64_t *stride) {
    const ftr__gemm_plan *p = t->plan;
    const ftr__gemm_operand *b = &p->gemm->b;
    const int64_t nr = p->simd->nr, count = ftr__gemm_min(nr, t->j1 - j);
    *stride = nr;
    if (p->direct) {
        *stride = b->stride;
        return (const float *)b->at(b->source, t->batch, t->k, ftr__gemm_direct_column(p, j));
    }
    if (p->shared) return p->packed + (j - p->j0) * p->ks + (t->k - p->k0) * nr;
    if (b->at && !b->change && !p->gemm->pairs && count == nr && p->gemm->m <= p->simd->mr && t->depth > 0) {
        *stride = b->stride; /* read once: a copy does not pay */
        return (const float *)b->at(b->source, t->batch, t->k, j);
    }
    if (p->whole_b) return t->b + (j - t->j0) * p->kc;
    ftr__gemm_pack(p, b, t->batch, j, count, nr, t->k, t->depth, t->pointers + p->pointers_b, t->b);
    return t->b;
}

/* Where row i goes from column j on; f32 results. */
static float *ftr__gemm_row(const ftr__gemm_block *t, int64_t i, int64_t j) {
    const ftr__gemm *g = t->plan->gemm;
    if (t->c) return t->c + (i - t->c_i) * t->c_stride + j - t->c_j;
    if (g->c_row) return (float *)g->c_row(g->c_source, t->batch, i) + j;
    return (float *)g->c + t->batch * g->c_batch + i * g->c_stride + j;
}

/* Rounds rows i .. of f32 results into bf16 ones. */
static void ftr__gemm_round(const ftr__gemm_block *t, int64_t i, int64_t rows, int64_t j, int64_t count,
                            float *const *from) {
    const ftr__gemm *g = t->plan->gemm;
    uint16_t *to[FTR__GEMM_MAX_MR];
    for (int64_t r = 0; r < rows; r++)
        to[r] = (g->c_row ? (uint16_t *)g->c_row(g->c_source, t->batch, i + r)
                          : (uint16_t *)g->c + t->batch * g->c_batch + (i + r) * g->c_stride) +
                j;
    t->plan->bf16->narrow(rows, count, from, to);
}

static void ftr__gemm_bias(const ftr__gemm_block *t, int64_t j, int64_t count, float *to) {
    const ftr__gemm *g = t->plan->gemm;
    const int64_t at = (g->bias_batch ? t->batch * g->n : 0) + j;
    if (!g->bias_bf16) {
        memcpy(to, (const float *)g->bias + at, (size_t)count * sizeof(float));
        return;
    }
    for (int64_t i = 0; i < count; i++) to[i] = ftr__half_value(FTR_BF16, ((const uint16_t *)g->bias)[at + i]);
}

static void ftr__gemm_multiply(const ftr__gemm_block *t, int64_t i, int64_t index, const float *b, int64_t b_stride,
                               const ftr__gemm_tile *tile) {
    const ftr__gemm_plan *p = t->plan;
    const int64_t mr = p->simd->mr;
    if (p->in_place) {
        p->simd->tile_rows(ftr__gemm_min(mr, t->i1 - i), t->segments, t->length, t->pointers + index * mr * t->segments,
                           b, b_stride, tile);
    } else if (p->direct) {
        const ftr__gemm_operand *a = &p->gemm->a;
        p->simd->tile(t->depth, (const float *)a->at(a->source, t->batch, t->k, ftr__gemm_direct_row(p, i)), a->stride,
                      b, b_stride, tile);
    } else {
        p->simd->tile(t->depth, t->a + index * p->a_tile, mr, b, b_stride, tile);
    }
}

/* A part of the next block of operands that are read where they lie, for each tile one: first of B, then of A. */
static const float *ftr__gemm_direct_ahead(const ftr__gemm_block *t, int64_t index, int64_t j, const float *b) {
    const ftr__gemm_plan *p = t->plan;
    const ftr__gemm *g = p->gemm;
    const int64_t of_b = ftr__gemm_ceil(g->n, 16), part = (j - t->j0) / p->panel * t->tiles + index;
    if (g->a.stride != g->m || g->b.stride != g->n || t->k + 2 * t->depth > g->k) return b;
    if (part < of_b) return (const float *)g->b.at(g->b.source, t->batch, t->k + t->depth, 0) + part * t->depth * 16;
    return (const float *)g->a.at(g->a.source, t->batch, t->k + t->depth, 0) + (part - of_b) * t->depth * 16;
}

/* A strip of the lines of an operand that the task packs next: those at the next block of k or, of the last one, those of
 * the next task at the first. Memory is slow to answer where a row's part is short. False if there is none. */
static bool ftr__gemm_ask_strip(const ftr__gemm_block *t, const ftr__gemm_operand *x, int64_t first, int64_t end,
                                int64_t lines, int64_t strip, ftr__gemm_tile *tile) {
    const ftr__gemm_plan *p = t->plan;
    int64_t k = t->k + t->depth;
    if (p->gemm->pairs || !x->at || p->pieces > 1 || (strip + 1) * 16 > end - first) return false;
    if (k >= p->k1) k = p->k0, first = end, end = lines;
    first += strip * 16;
    if (first + 16 > end || k + t->depth > p->k1) return false;
    tile->ahead = (const float *)x->at(x->source, t->batch, k, first);
    tile->ahead_step = x->stride;
    return true;
}

/* What tile `index` of rows and the panel at j ask for: a part of the next panel, which comes from far away if B is packed for
 * all. All tiles of rows ask for a part: memory answers no faster. */
static void ftr__gemm_ask_ahead(const ftr__gemm_block *t, int64_t index, int64_t j, const float *b,
                                ftr__gemm_tile *tile) {
    const ftr__gemm_plan *p = t->plan;
    const ftr__gemm *g = p->gemm;
    const int64_t nr = p->simd->nr;
    tile->ahead_step = 16;
    tile->ahead = b;
    if (p->direct) {
        tile->ahead = ftr__gemm_direct_ahead(t, index, j, b);
    } else if (p->in_place && g->a.dense && j == t->j0) {
        tile->ahead = t->pointers[index * p->simd->mr * t->segments] + FTR__GEMM_ROWS_AHEAD * t->depth;
    } else if (p->shared_a) {
        if (p->whole_b && j == t->j0 + nr && ftr__gemm_ask_strip(t, &g->b, t->j0, t->j1, g->n, index, tile)) return;
        tile->ahead = t->a + (index + 1) * p->a_tile;
    } else if (p->shared && index + 1 == t->tiles &&
               ftr__gemm_ask_strip(t, &g->a, t->i0, t->i1, g->m, (j - t->j0) / nr, tile)) {
        return;
    } else if (p->shared && j + nr < t->j1) {
        tile->ahead_step = t->ask_step;
        tile->ahead = b + p->ks * nr + index * t->depth * tile->ahead_step;
    }
}

/* Where rows of the result are, at column j. */
static void ftr__gemm_rows_of(const ftr__gemm_block *t, int64_t i, int64_t rows, int64_t j, float **c) {
    const ftr__gemm *g = t->plan->gemm;
    if (g->c_row && !t->c) {
        for (int64_t r = 0; r < rows; r++) c[r] = ftr__gemm_row(t, i + r, j);
        return;
    }
    float *const row = ftr__gemm_row(t, i, j);
    const int64_t step = t->c ? t->c_stride : g->c_stride;
    for (int64_t r = 0; r < rows; r++) c[r] = row + r * step;
}

/* Of pairs whose sums this task rounds: a panel of B against its rows i0 to i1 - 1. Sums wait in its scratch or, of one block of
 * k, pass through a buffer. */
static void ftr__gemm_panel_rounded(const ftr__gemm_block *t, int64_t j, int64_t i0, int64_t i1) {
    const ftr__gemm_plan *p = t->plan;
    const ftr__gemm *g = p->gemm;
    const int64_t mr = p->simd->mr, nr = p->simd->nr, width = ftr__gemm_min(nr, t->j1 - j);
    float buffer[FTR__GEMM_MAX_MR * FTR__GEMM_MAX_NR], none[FTR__GEMM_MAX_NR] = {0}, bias[FTR__GEMM_MAX_NR] = {0};
    int64_t b_stride;
    const float *b = ftr__gemm_prepare_b(t, j, &b_stride);
    ftr__gemm_tile tile = {.load = t->load, .relu = t->last && g->activation == FTR_ACT_RELU};
    tile.narrow = width <= nr / 2;
    if (t->last && g->bias) {
        ftr__gemm_bias(t, j, width, bias);
        tile.bias = bias;
    }
    int64_t index = (i0 - t->i0) / mr;
    for (int64_t i = i0; i < i1; i += mr, index++) {
        const int64_t rows = ftr__gemm_min(mr, i1 - i);
        for (int64_t r = 0; r < mr; r++)
            tile.c[r] = r >= rows ? none : p->sums ? ftr__gemm_row(t, i + r, j) : buffer + r * nr;
        ftr__gemm_ask_ahead(t, index, j, b, &tile);
        ftr__gemm_multiply(t, i, index, b, b_stride, &tile);
        if (t->last) ftr__gemm_round(t, i, rows, j, width, tile.c);
    }
}

/* The batch norm of columns j to j + width - 1, for tiles whose sums are complete. */
static void ftr__gemm_norm(const ftr__gemm_block *t, int64_t j, int64_t width, ftr__norm_apply *norm,
                           ftr__gemm_tile *tile) {
    const ftr__gemm *g = t->plan->gemm;
    const int64_t at = t->batch * g->n + j;
    if (!t->last || !g->norm.mean) return;
    *norm = (ftr__norm_apply){g->norm.mean + at, g->norm.scale + at, g->norm.shift + at, g->norm.activation};
    tile->norm = norm;
    tile->columns = width;
}

/* A panel of B against rows i0 to i1 - 1 of the task. Tiles that stick out at the right go through a buffer, unless a norm
 * follows. */
static void ftr__gemm_panel(const ftr__gemm_block *t, int64_t j, int64_t i0, int64_t i1) {
    const ftr__gemm_plan *p = t->plan;
    const ftr__gemm *g = p->gemm;
    const int64_t mr = p->simd->mr, nr = p->simd->nr, width = ftr__gemm_min(p->panel, t->j1 - j);
    float edge[FTR__GEMM_MAX_MR * FTR__GEMM_MAX_NR], none[FTR__GEMM_MAX_NR], bias[FTR__GEMM_MAX_NR];
    float *c[FTR__GEMM_MAX_MR], *inside[FTR__GEMM_MAX_MR]; /* rows of the result, and those in the buffer */
    int64_t b_stride;
    const float *b = ftr__gemm_prepare_b(t, j, &b_stride);
    ftr__gemm_tile tile = {.load = t->load, .relu = t->last && g->activation == FTR_ACT_RELU};
    tile.narrow = width <= nr / 2;
    memset(none, 0, sizeof none);
    if (width < nr && t->load) memset(edge, 0, sizeof edge);
    if (t->last && g->bias) {
        memset(bias, 0, sizeof bias);
        ftr__gemm_bias(t, j, width, bias);
        tile.bias = bias;
    }
    const int64_t skip = p->direct ? j - ftr__gemm_direct_column(p, j) : 0; /* columns that another panel has */
    const bool whole = !p->direct && (width == nr || width == nr / 2);
    ftr__norm_apply norm;
    ftr__gemm_norm(t, j, width, &norm, &tile);
    const bool together = !g->c_row || t->c;
    if (together && t->depth < FTR__GEMM_SHORT) tile.ask = mr * (t->c ? t->c_stride : g->c_stride);
    for (int64_t r = 0; r < mr; r++) inside[r] = edge + r * nr + skip;
    int64_t index = (i0 - t->i0) / mr;
    for (int64_t i = i0; i < i1; i += mr, index++) {
        const int64_t rows = ftr__gemm_min(mr, i1 - i), above = p->direct ? i - ftr__gemm_direct_row(p, i) : 0;
        const bool buffered = !tile.norm && (width < nr / 2 || (width < nr && !(whole && rows == mr)));
        ftr__gemm_rows_of(t, i, rows, j, c);
        for (int64_t r = 0; r < mr; r++) {
            const bool there = r >= above && r < above + rows;
            tile.c[r] = !there ? none : buffered ? edge + (r - above) * nr : c[r - above];
            if (tile.norm && g->residual) tile.residual[r] = there ? g->residual + (c[r] - (float *)g->c) : none;
        }
        if (buffered && t->load) p->simd->copy_tile(rows, width, (const float *const *)c, inside);
        tile.asks = !buffered;
        ftr__gemm_ask_ahead(t, index, j, b, &tile);
        ftr__gemm_multiply(t, i, index, b, b_stride, &tile);
        if (buffered) p->simd->copy_tile(rows, width, (const float *const *)inside, c);
    }
}

static void ftr__gemm_task(void *arg, int64_t task, int32_t worker) {
    const ftr__gemm_plan *p = (const ftr__gemm_plan *)arg;
    const ftr__gemm *g = p->gemm;
    unsigned char *scratch = p->scratch + (size_t)worker * p->worker;
    const int64_t nj = task % p->nb, mi = task / p->nb % p->mb, piece = task / (p->nb * p->mb) % p->pieces;
    ftr__gemm_block t = {.plan = p, .batch = task / (p->nb * p->mb * p->pieces)};
    t.i0 = mi * p->tm;
    t.i1 = ftr__gemm_min(t.i0 + p->tm, g->m);
    t.j0 = p->j0 + nj * p->tn;
    t.j1 = ftr__gemm_min(t.j0 + p->tn, p->j1);
    t.tiles = ftr__gemm_ceil(t.i1 - t.i0, p->simd->mr);
    t.ask_step = ftr__gemm_min(ftr__gemm_ceil(p->simd->nr, t.tiles), 16);
    t.pointers = (const float **)(void *)scratch;
    t.a = (float *)(void *)(scratch + p->pointer_bytes);
    t.b = (float *)(void *)(scratch + p->pointer_bytes + p->a_bytes + p->sum_bytes);
    if (p->pieces > 1) {
        t.c = p->partial + (t.batch * p->pieces + piece) * g->m * g->n;
        t.c_stride = g->n;
    } else if (p->sums) {
        t.c = (float *)(void *)(scratch + p->pointer_bytes + p->a_bytes);
        t.c_i = t.i0, t.c_j = t.j0, t.c_stride = p->tn;
    }
    const int64_t begin = p->k0 + piece * p->piece, end = ftr__gemm_min(begin + p->piece, p->k1);
    t.k = begin;
    do {
        t.depth = ftr__gemm_depth_at(p, t.k, end);
        t.load = t.k > (p->pieces > 1 ? begin : 0);
        t.last = t.k + t.depth >= g->k;
        ftr__gemm_prepare_a(&t);
        if (p->whole_b && t.depth > 0)
            ftr__gemm_pack_lines(p, &g->b, t.batch, t.j0, t.j1 - t.j0, p->simd->nr, t.k, t.depth, p->simd->nr * p->kc,
                                 t.b);
        const bool near = p->shared && t.depth * (t.j1 - t.j0) <= FTR__GEMM_NEAR;
        const int64_t rows = near ? FTR__GEMM_ROWS * p->simd->mr : p->tm;
        for (int64_t i = t.i0; i < t.i1; i += rows) {
            const int64_t end_row = ftr__gemm_min(i + rows, t.i1);
            for (int64_t j = t.j0; j < t.j1; j += p->panel) {
                if (p->rounded)
                    ftr__gemm_panel_rounded(&t, j, i, end_row);
                else
                    ftr__gemm_panel(&t, j, i, end_row);
            }
        }
        t.k += t.depth;
    } while (t.k < end);
}

#define FTR__GEMM_SUM_CHUNK 4096

/* Adds the pieces of a chunk of the result in their order. */
static void ftr__gemm_sum_task(void *arg, int64_t task, int32_t worker) {
    const ftr__gemm_plan *p = (const ftr__gemm_plan *)arg;
    const int64_t size = p->gemm->m * p->gemm->n, chunks = ftr__gemm_ceil(size, FTR__GEMM_SUM_CHUNK);
    const int64_t batch = task / chunks, first = task % chunks * FTR__GEMM_SUM_CHUNK;
    const int64_t count = ftr__gemm_min(FTR__GEMM_SUM_CHUNK, size - first);
    float *from = p->partial + batch * p->pieces * size + first;
    float *to = p->gemm->pairs ? from : (float *)p->gemm->c + batch * size + first;
    (void)worker;
    if (to != from) memcpy(to, from, (size_t)count * sizeof(float));
    for (int64_t s = 1; s < p->pieces; s++) p->simd->accumulate(count, from + s * size, to);
    if (to == from) p->bf16->narrow(1, count, &to, (uint16_t *[]){(uint16_t *)p->gemm->c + batch * size + first});
}

void ftr__gemm_run(const ftr__cpu *cpu, const ftr__gemm *g, void *workspace) {
    if (g->batch == 0 || g->m == 0 || g->n == 0) return;
    ftr__gemm_plan p = ftr__gemm_make_plan(cpu, g);
    p.scratch = (unsigned char *)workspace;
    unsigned char *next = p.scratch + p.worker * (size_t)ftr__pool_threads(cpu->pool);
    p.packed = g->kept ? g->kept : (float *)(void *)next;
    p.partial = (float *)(void *)(next + p.b_bytes);
    for (p.j0 = 0; p.j0 < g->n; p.j0 = p.j1) {
        p.j1 = ftr__gemm_min(p.j0 + p.nc, g->n);
        p.k0 = 0;
        do {
            p.k1 = ftr__gemm_min(p.k0 + p.ks, g->k);
            if (!(g->kept && g->kept_is_made)) ftr__gemm_pack_shared(cpu, &p);
            const int64_t nb = ftr__gemm_ceil(p.j1 - p.j0, p.tn);
            p.nb = nb;
            ftr__pool_run(cpu->pool, g->batch * p.pieces * p.mb * nb, ftr__gemm_task, &p);
            p.k0 = p.k1;
        } while (p.k0 < g->k);
    }
    if (p.pieces > 1) {
        const int64_t chunks = ftr__gemm_ceil(g->m * g->n, FTR__GEMM_SUM_CHUNK);
        ftr__pool_run(cpu->pool, g->batch * chunks, ftr__gemm_sum_task, &p);
    }
}

/* With a constant width the copies are a few instructions. */
#define FTR__GEMM_SCATTER(n)                                                                                           \
    case n:                                                                                                            \
        for (int64_t i = 0; i < count; i++) memcpy(to + i * tile, from + i * (n), (n) * sizeof(float));                \
        break;

void ftr__gemm_scatter(int64_t count, int64_t width, const float *from, int64_t tile, float *to) {
    switch (width) {
        FTR__GEMM_SCATTER(6)
        FTR__GEMM_SCATTER(8)
        FTR__GEMM_SCATTER(14)
        FTR__GEMM_SCATTER(16)
        FTR__GEMM_SCATTER(32)
    default:
        for (int64_t i = 0; i < count; i++) memcpy(to + i * tile, from + i * width, (size_t)width * sizeof(float));
    }
}
#undef FTR__GEMM_SCATTER

/* With a constant count the copies are a few instructions. */
#define FTR__GEMM_COPY(n)                                                                                              \
    case n:                                                                                                            \
        for (int64_t k = 0; k < depth; k++) memcpy(to + k * width, from + k * stride, (n) * sizeof(float));            \
        break;

void ftr__gemm_copy(int64_t depth, int64_t count, int64_t width, const float *from, int64_t stride, float *to) {
    switch (count) {
        FTR__GEMM_COPY(1)
        FTR__GEMM_COPY(3)
        FTR__GEMM_COPY(4)
        FTR__GEMM_COPY(6)
        FTR__GEMM_COPY(8)
        FTR__GEMM_COPY(9)
        FTR__GEMM_COPY(14)
        FTR__GEMM_COPY(16)
        FTR__GEMM_COPY(32)
    default:
        for (int64_t k = 0; k < depth; k++) memcpy(to + k * width, from + k * stride, (size_t)count * sizeof(float));
    }
}
#undef FTR__GEMM_COPY

void ftr__gemm_clear(int64_t depth, int64_t count, int64_t width, float *to) {
    if (count <= 0) return;
    for (int64_t k = 0; k < depth; k++) memset(to + k * width, 0, (size_t)count * sizeof(float));
}

/* Operands in memory. */
static const float *ftr__gemm_matrix_at(const ftr__gemm_matrix *x, int64_t batch) {
    return (const float *)x->data + (x->batch_offset ? x->batch_offset[batch] : batch * x->batch);
}

static void ftr__gemm_matrix_rows(const void *source, int64_t batch, int64_t first, int64_t count,
                                  int64_t first_segment, int64_t segments, int64_t width, const float **to) {
    const ftr__gemm_matrix *x = (const ftr__gemm_matrix *)source;
    const float *from = ftr__gemm_matrix_at(x, batch) + first * x->stride;
    (void)first_segment; /* there is one */
    (void)segments;
    (void)width;
    for (int64_t i = 0; i < count; i++) to[i] = from + i * x->stride;
}

static void ftr__gemm_matrix_pack(const void *source, int64_t batch, int64_t first, int64_t count, int64_t width,
                                  int64_t k, int64_t depth, float *to) {
    const ftr__gemm_matrix *x = (const ftr__gemm_matrix *)source;
    const float *from = ftr__gemm_matrix_at(x, batch) + k * x->stride + first;
    ftr__gemm_copy(depth, count, width, from, x->stride, to);
    ftr__gemm_clear(depth, width - count, width, to + count);
}

static const void *ftr__gemm_matrix_in_place(const void *source, int64_t batch, int64_t k, int64_t first) {
    const ftr__gemm_matrix *x = (const ftr__gemm_matrix *)source;
    return ftr__gemm_matrix_at(x, batch) + k * x->stride + first;
}

ftr__gemm_operand ftr__gemm_k_together(const ftr__gemm_matrix *matrix, int64_t k) {
    return (ftr__gemm_operand){
        .source = matrix, .segment = k, .rows = ftr__gemm_matrix_rows, .dense = matrix->stride == k};
}

ftr__gemm_operand ftr__gemm_lines_together(const ftr__gemm_matrix *matrix) {
    return (ftr__gemm_operand){
        .source = matrix, .pack = ftr__gemm_matrix_pack, .at = ftr__gemm_matrix_in_place, .stride = matrix->stride};
}

/* The same of bf16, as pairs. */
static const uint16_t *ftr__gemm_pairs_of(const ftr__gemm_matrix *x, int64_t batch) {
    return (const uint16_t *)x->data + (x->batch_offset ? x->batch_offset[batch] : batch * x->batch);
}

static void ftr__gemm_pairs_rows(const void *source, int64_t batch, int64_t first, int64_t count, int64_t first_segment,
                                 int64_t segments, int64_t width, const float **to) {
    const ftr__gemm_matrix *x = (const ftr__gemm_matrix *)source;
    const uint16_t *from = ftr__gemm_pairs_of(x, batch) + first * x->stride;
    (void)first_segment; /* there is one */
    (void)segments;
    (void)width;
    for (int64_t i = 0; i < count; i++) to[i] = (const float *)(const void *)(from + i * x->stride);
}

static const void *ftr__gemm_pairs_at(const void *source, int64_t batch, int64_t k, int64_t first) {
    const ftr__gemm_matrix *x = (const ftr__gemm_matrix *)source;
    return ftr__gemm_pairs_of(x, batch) + 2 * k * x->stride + first;
}

static void ftr__gemm_pairs_pack(const void *source, int64_t batch, int64_t first, int64_t count, int64_t width,
                                 int64_t k, int64_t depth, float *to) {
    const ftr__gemm_matrix *x = (const ftr__gemm_matrix *)source;
    const uint16_t *from = ftr__gemm_pairs_of(x, batch) + 2 * k * x->stride + first;
    for (int64_t d = 0; d < depth; d++, from += 2 * x->stride)
        x->bf16->zip(count, from, 2 * (k + d) + 1 < x->elements ? from + x->stride : NULL, to + d * width);
    ftr__gemm_clear(depth, width - count, width, to + count);
}

ftr__gemm_operand ftr__gemm_pairs_k_together(const ftr__gemm_matrix *matrix, int64_t k) {
    return (ftr__gemm_operand){.source = matrix, .segment = k / 2, .rows = ftr__gemm_pairs_rows};
}

ftr__gemm_operand ftr__gemm_pairs_lines_together(const ftr__gemm_matrix *matrix) {
    return (ftr__gemm_operand){.source = matrix,
                               .pack = ftr__gemm_pairs_pack,
                               .at = ftr__gemm_pairs_at,
                               .stride = matrix->stride,
                               .elements = matrix->elements};
}
