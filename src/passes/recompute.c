/* Recomputation (gradient checkpointing: Griewank and Walther, ACM TOMS 26(1), 2000; Chen et al., arXiv:1604.06174). Values
 * of the forward pass that the backward pass reads are computed a second time, just before their first use there, instead
 * of being stored. Each node runs at most twice, with the same inputs, attributes and random numbers, so that results keep
 * their bits; fusing is done already, for the same reason.
 *
 * What is dropped is chosen by two methods, whichever is cheaper:
 *   - one by one, the cheapest for its bytes first, as long as the memory falls: good for what takes no chains;
 *   - in segments: cuts through the forward pass, at which what crosses is stored, and all else is dropped. The cuts are
 *     those that store least among all whose segments hold at most so many bytes; the limit is varied. In a chain of n equal
 *     layers this finds about sqrt(n) segments.
 * Behind either, whatever still fits is stored again, the most expensive for its bytes first. */
#include "passes/recompute.h"

#include "core/sort.h"
#include "graph/cost.h"

#include <math.h>
#include <string.h>

typedef struct ftr__candidate {
    int32_t value;
    double ratio; /* cost of recomputation a byte */
} ftr__candidate;

typedef struct ftr__selection {
    ftr__recompute *r;
    size_t target; /* bytes of activations */
    ftr__candidate *candidates;
    const void **order; /* of candidates */
    int32_t count, chunk;
    /* segments, by step of the forward pass */
    double *inside, *across; /* bytes that are dropped up to a step; that are stored if the cut is behind it */
    double *best;
    int32_t *from;
    /* the best choice so far */
    bool *choice;
    bool *changed; /* scratch, by place in the order */
    bool *copied;  /* scratch, by node */
    bool found, fits;
    size_t peak;
    double cost;
} ftr__selection;

enum {
    FTR__RECOMPUTE_TRIALS = 64,    /* at least so many decisions */
    FTR__RECOMPUTE_WORK = 1500000, /* decisions times steps of the schedule */
    FTR__RECOMPUTE_LIMITS = 32,    /* of segments that are looked at */
    FTR__RECOMPUTE_PRUNED = 3      /* of segments that are tried out */
};

static bool ftr__selection_open(ftr__selection *s) {
    ftr__recompute *r = s->r;
    const size_t values = (size_t)r->values, steps = (size_t)r->late;
    s->candidates = ftr__arena_alloc(r->arena, values * sizeof *s->candidates);
    s->order = ftr__arena_alloc(r->arena, values * sizeof *s->order);
    s->inside = ftr__arena_alloc(r->arena, (steps + 1) * sizeof *s->inside);
    s->across = ftr__arena_alloc(r->arena, (steps + 1) * sizeof *s->across);
    s->best = ftr__arena_alloc(r->arena, (steps + 1) * sizeof *s->best);
    s->from = ftr__arena_alloc(r->arena, (steps + 1) * sizeof *s->from);
    s->choice = ftr__arena_alloc(r->arena, values);
    s->changed = ftr__arena_alloc(r->arena, values);
    s->copied = ftr__arena_alloc(r->arena, (size_t)r->nodes);
    return s->candidates && s->order && s->inside && s->across && s->best && s->from && s->choice && s->changed &&
           s->copied;
}

/* Takes the present choice, measured, if it is better than what there is: one that fits before one that does not; then the
 * cheaper or the smaller one. */
static void ftr__selection_take(ftr__selection *s) {
    const ftr__recompute *r = s->r;
    const bool fits = r->peak <= s->target;
    const bool smaller = r->peak < s->peak || (r->peak == s->peak && r->total_cost < s->cost);
    const bool cheaper = r->total_cost < s->cost || (!(r->total_cost > s->cost) && r->peak < s->peak);
    if (s->found && (fits != s->fits ? s->fits : fits ? !cheaper : !smaller)) return;
    memcpy(s->choice, r->dropped, (size_t)r->values);
    s->found = true;
    s->fits = fits;
    s->peak = r->peak;
    s->cost = r->total_cost;
}

/* ---------------------------------------------------------------------------------------------------- one by one -- */

static int ftr__cheaper_first(const void *a, const void *b) {
    const ftr__candidate *x = a, *y = b;
    if (x->ratio < y->ratio || x->ratio > y->ratio) return x->ratio < y->ratio ? -1 : 1;
    return x->value < y->value ? -1 : 1;
}

/* How many candidates are decided upon together: as many as keep the time within bounds, for looking at one decision takes a
 * walk over the schedule. 1 in graphs of up to about a thousand nodes. */
static int32_t ftr__chunk_of(const ftr__recompute *r) {
    int32_t count = 0;
    for (int32_t v = 1; v < r->values; v++) count += r->free_to_drop[v] && !r->by_hand[v];
    const int32_t trials = FTR__RECOMPUTE_WORK / r->order_count;
    return 1 + count / (trials < FTR__RECOMPUTE_TRIALS ? FTR__RECOMPUTE_TRIALS : trials);
}

/* Sorts what may be dropped by the cost of that alone, what else must be recomputed for it included. */
static void ftr__selection_rank(ftr__selection *s) {
    ftr__recompute *r = s->r;
    s->chunk = ftr__chunk_of(r);
    s->count = 0;
    ftr__recompute_measure(r);
    const double before = r->total_cost;
    for (int32_t v = 1; v < r->values; v++) {
        if (!r->free_to_drop[v] || r->by_hand[v]) continue;
        ftr__candidate *c = &s->candidates[s->count];
        *c = (ftr__candidate){.value = v, .ratio = r->cost[r->graph->values[v].node] / (double)r->bytes[v]};
        if (!r->dropped[v] && s->chunk == 1) {
            r->dropped[v] = true;
            ftr__recompute_measure(r);
            r->dropped[v] = false;
            c->ratio = (r->total_cost - before) / (double)r->bytes[v];
        }
        s->order[s->count++] = c;
    }
    ftr__sort(s->order, s->count, ftr__cheaper_first);
}

static int32_t ftr__candidate_value(const ftr__selection *s, int32_t index) {
    return ((const ftr__candidate *)s->order[index])->value;
}

/* Drops, or stores again, candidates `begin` to `end`. False if there is nothing to change. */
static bool ftr__turn(ftr__selection *s, int32_t begin, int32_t end, bool drop) {
    ftr__recompute *r = s->r;
    bool any = false;
    for (int32_t i = begin; i < end; i++) {
        const int32_t v = ftr__candidate_value(s, i);
        s->changed[i] = r->dropped[v] != drop && (drop || r->copied[r->graph->values[v].node]);
        if (s->changed[i]) r->dropped[v] = drop;
        any = any || s->changed[i];
    }
    return any;
}

static void ftr__turn_back(ftr__selection *s, int32_t begin, int32_t end) {
    bool *dropped = s->r->dropped;
    for (int32_t i = begin; i < end; i++)
        if (s->changed[i]) dropped[ftr__candidate_value(s, i)] = !dropped[ftr__candidate_value(s, i)];
}

/* Drops values as long as the memory falls; twice, for what was of no use may have become so. */
static void ftr__drop_one_by_one(ftr__selection *s) {
    ftr__recompute *r = s->r;
    ftr__recompute_measure(r);
    for (int32_t round = 0; round < 2; round++) {
        for (int32_t begin = 0; begin < s->count && r->peak > s->target; begin += s->chunk) {
            const int32_t end = begin + s->chunk < s->count ? begin + s->chunk : s->count;
            const size_t before = r->peak;
            if (!ftr__turn(s, begin, end, true)) continue;
            ftr__recompute_measure(r);
            if (r->peak < before) continue;
            ftr__turn_back(s, begin, end);
            r->peak = before;
        }
    }
    ftr__recompute_measure(r);
}

/* ------------------------------------------------------------------------------------------------------ segments -- */

static void ftr__measure_segments(ftr__selection *s) {
    const ftr__recompute *r = s->r;
    for (int32_t v = 1; v < r->values; v++) {
        if (!r->free_to_drop[v] || r->made[v] < 0) continue;
        if (r->used_late[v]) s->inside[r->made[v]] += (double)r->bytes[v];
        if (r->early[v] <= r->made[v] || r->by_hand[v]) continue;
        s->across[r->made[v]] += (double)r->bytes[v];
        s->across[r->early[v]] -= (double)r->bytes[v];
    }
    for (int32_t i = 1; i < r->late; i++) {
        s->inside[i] += s->inside[i - 1];
        s->across[i] += s->across[i - 1];
    }
}

/* Bytes that are dropped between the cuts behind steps `from` (-1: the beginning) and `to`. */
static double ftr__segment_bytes(const ftr__selection *s, int32_t from, int32_t to) {
    return s->inside[to] - (from >= 0 ? s->inside[from] : 0.0);
}

/* The cheapest way to a cut behind each step: best[i] bytes stored, by way of the cut behind from[i]. */
static void ftr__find_cuts(ftr__selection *s, double limit) {
    for (int32_t to = 0; to < s->r->late; to++) {
        s->best[to] = INFINITY;
        for (int32_t from = to - 1; from >= -1; from--) {
            if (from < to - 1 && ftr__segment_bytes(s, from, to) > limit) break;
            const double stored = (from >= 0 ? s->best[from] : 0.0) + s->across[to];
            if (!(stored < s->best[to])) continue;
            s->best[to] = stored;
            s->from[to] = from;
        }
    }
}

/* The last cut: the segment behind it holds no more than the limit, and the way to it stores least. -1: no cut. */
static int32_t ftr__last_cut(const ftr__selection *s, double limit) {
    const int32_t end = s->r->late - 1;
    int32_t cut = end - 1;
    for (int32_t from = end - 1; from >= -1; from--) {
        if (from < end - 1 && ftr__segment_bytes(s, from, end) > limit) break;
        if (from < 0 || s->best[from] < s->best[cut]) cut = from;
    }
    return cut;
}

/* Drops everything but what crosses the cuts. */
static void ftr__drop_segments(ftr__selection *s, double limit) {
    ftr__recompute *r = s->r;
    ftr__find_cuts(s, limit);
    for (int32_t v = 1; v < r->values; v++) r->dropped[v] = r->free_to_drop[v];
    for (int32_t cut = ftr__last_cut(s, limit); cut >= 0; cut = s->from[cut])
        for (int32_t v = 1; v < r->values; v++)
            if (r->made[v] >= 0 && r->made[v] <= cut && r->early[v] > cut) r->dropped[v] = r->by_hand[v];
    ftr__recompute_measure(r);
}

/* -------------------------------------------------------------------------------------------------------- choice -- */

/* Stores again what fits, the most expensive first. */
static void ftr__store_what_fits(ftr__selection *s) {
    ftr__recompute *r = s->r;
    for (int32_t end = s->count; end > 0; end -= s->chunk) {
        const int32_t begin = end > s->chunk ? end - s->chunk : 0;
        if (!ftr__turn(s, begin, end, false)) continue;
        memcpy(s->copied, r->copied, (size_t)r->nodes);
        ftr__recompute_measure(r);
        if (r->peak <= s->target) continue;
        ftr__turn_back(s, begin, end);
        memcpy(r->copied, s->copied, (size_t)r->nodes);
    }
    ftr__recompute_measure(r);
}

/* Turns over single decisions as long as the memory falls; not in large graphs, for which it takes too long. */
static void ftr__shrink(ftr__selection *s) {
    ftr__recompute *r = s->r;
    for (int32_t i = 0; i < s->count && r->peak > s->target && s->chunk == 1; i++) {
        const int32_t v = ftr__candidate_value(s, i);
        const size_t before = r->peak;
        r->dropped[v] = !r->dropped[v];
        ftr__recompute_measure(r);
        if (r->peak < before) continue;
        r->dropped[v] = !r->dropped[v];
        r->peak = before;
    }
    ftr__recompute_measure(r);
}

static void ftr__try_segments(ftr__selection *s, double limit) {
    ftr__drop_segments(s, limit);
    ftr__shrink(s);
    if (s->r->peak <= s->target) ftr__store_what_fits(s);
    ftr__selection_take(s);
}

/* Limits from all that may be dropped down to the largest step of it, by factors of the square root of 2. Those that come to
 * the least memory are tried out. */
static void ftr__search_segments(ftr__selection *s) {
    ftr__recompute *r = s->r;
    double limit[FTR__RECOMPUTE_PRUNED] = {0};
    size_t peak[FTR__RECOMPUTE_PRUNED];
    for (int k = 0; k < FTR__RECOMPUTE_PRUNED; k++) peak[k] = SIZE_MAX;
    ftr__measure_segments(s);
    const double all = s->inside[r->late - 1];
    for (int32_t i = 0; i < FTR__RECOMPUTE_LIMITS; i++) {
        const double tried = all * pow(0.5, 0.5 * i);
        ftr__drop_segments(s, tried);
        for (int k = 0; k < FTR__RECOMPUTE_PRUNED; k++) {
            if (r->peak >= peak[k]) continue;
            for (int m = FTR__RECOMPUTE_PRUNED - 1; m > k; m--) limit[m] = limit[m - 1], peak[m] = peak[m - 1];
            limit[k] = tried;
            peak[k] = r->peak;
            break;
        }
    }
    for (int k = 0; k < FTR__RECOMPUTE_PRUNED && peak[k] < SIZE_MAX; k++) ftr__try_segments(s, limit[k]);
}

/* Leaves the choice in r->dropped, measured. */
static void ftr__search(ftr__selection *s) {
    ftr__recompute *r = s->r;
    ftr__recompute_measure(r);
    ftr__selection_take(s);
    if (!s->fits && r->late > 0 && r->late < r->order_count) {
        ftr__selection_rank(s);
        ftr__drop_one_by_one(s);
        if (r->peak <= s->target) ftr__store_what_fits(s);
        ftr__selection_take(s);
        ftr__search_segments(s);
    }
    memcpy(r->dropped, s->choice, (size_t)r->values);
    ftr__recompute_measure(r);
}

/* ------------------------------------------------------------------------------------------------------- by hand -- */

/* Length of the shortest scope of a node's name that a pattern fits: of "h.3.attn.proj", "h" comes first, then "h.3". 0:
 * none does. */
static size_t ftr__scope_of(const char *const *patterns, int32_t count, const char *name, char *scope) {
    for (size_t length = 1; *name && length <= strlen(name); length++) {
        if (name[length] != '.' && name[length] != '\0') continue;
        memcpy(scope, name, length);
        scope[length] = '\0';
        for (int32_t i = 0; i < count; i++)
            if (ftr__glob_match(patterns[i], scope)) return length;
    }
    return 0;
}

ftr_status ftr__recompute_check(const ftr_graph *graph, const char *const *patterns, int32_t count) {
    ftr__arena arena;
    ftr__arena_init(&arena, graph->context);
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < count && !status; i++) {
        bool fits = false;
        int32_t nodes = 0;
        for (int32_t n = 0; n < graph->node_count && !status && patterns[i]; n++) {
            if (graph->nodes[n].op <= FTR_OP_constant) continue;
            const size_t size = strlen(graph->nodes[n].name) + 1;
            char *scope = ftr__arena_alloc(&arena, size);
            if (!scope) status = ftr__out_of_memory(graph->context, "compile", size);
            fits = fits || (scope && ftr__scope_of(&patterns[i], 1, graph->nodes[n].name, scope) > 0);
            nodes++;
        }
        if (!patterns[i])
            status = ftr__error(graph->context, FTR_ERROR_INVALID_ARGUMENT, "compile: recompute[%d] is NULL", (int)i);
        else if (!fits && !status)
            status = ftr__error(graph->context, FTR_ERROR_NAME,
                                "compile: recompute[%d] '%.100s' fits no scope of the graph's %d nodes", (int)i,
                                patterns[i], (int)nodes);
    }
    ftr__arena_free(&arena);
    return status;
}

/* Whether two nodes lie in one segment. */
static bool ftr__same_scope(const ftr__recompute *r, const size_t *scope, int32_t a, int32_t b) {
    return scope[a] == scope[b] && strncmp(r->graph->nodes[a].name, r->graph->nodes[b].name, scope[a]) == 0;
}

/* A scope that a pattern fits is a segment: its results and what comes into it are stored, the rest is dropped. */
static bool ftr__drop_by_hand(ftr__recompute *r, const char *const *patterns, int32_t count) {
    const ftr_graph *graph = r->graph;
    size_t longest = 0, *scope = ftr__arena_alloc(r->arena, (size_t)r->nodes * sizeof *scope);
    for (int32_t s = 0; s < r->late; s++) {
        const size_t length = strlen(graph->nodes[r->order[s]].name);
        if (length > longest) longest = length;
    }
    char *text = ftr__arena_alloc(r->arena, longest + 1);
    if (!scope || !text) return false;
    for (int32_t s = 0; s < r->late; s++) {
        const ftr__node *node = &graph->nodes[r->order[s]];
        scope[r->order[s]] = ftr__scope_of(patterns, count, node->name, text);
        for (int32_t i = 0; i < node->out_count; i++)
            r->by_hand[node->first_out + i] = scope[r->order[s]] > 0 && r->free_to_drop[node->first_out + i];
    }
    for (int32_t s = 0; s < r->late; s++) {
        const int32_t n = r->order[s];
        const ftr__node *node = &graph->nodes[n];
        for (int32_t i = 0; i < node->in_count && node->op != FTR_OP_reshape; i++) {
            const int32_t a = r->anchor[node->in[i]], maker = graph->values[a].node;
            if (r->made[a] < 0 || ftr__same_scope(r, scope, n, maker)) continue;
            r->by_hand[a] = false;
            if (scope[n] > 0 || scope[maker] > 0) r->dropped[a] = false;
        }
    }
    for (int32_t v = 1; v < r->values; v++) r->dropped[v] = r->dropped[v] || r->by_hand[v];
    return true;
}

/* --------------------------------------------------------------------------------------------------------- graph -- */

/* Makes room for the copies, and for no more than that: it counts as the plan's memory. */
static bool ftr__reserve_copies(const ftr__recompute *r) {
    ftr_graph *graph = r->plan->graph;
    int32_t nodes = graph->node_count, values = graph->value_count;
    for (int32_t n = 0; n < r->nodes; n++) {
        nodes += r->copied[n];
        values += r->copied[n] ? graph->nodes[n].out_count : 0;
    }
    if (nodes > graph->node_capacity) {
        ftr__node *larger = ftr__arena_alloc(&graph->arena, (size_t)nodes * sizeof *larger);
        if (!larger) return false;
        graph->nodes = memcpy(larger, graph->nodes, (size_t)graph->node_count * sizeof *larger);
        graph->node_capacity = nodes;
    }
    if (values > graph->value_capacity) {
        ftr__value *larger = ftr__arena_alloc(&graph->arena, (size_t)values * sizeof *larger);
        if (!larger) return false;
        graph->values = memcpy(larger, graph->values, (size_t)graph->value_count * sizeof *larger);
        graph->value_capacity = values;
    }
    return true;
}

/* Appends the copy of a node. copy_of: by value. False when memory is short. */
static bool ftr__append_copy(const ftr__recompute *r, int32_t index, int32_t *copy_of) {
    ftr_graph *graph = r->plan->graph;
    ftr__node node = graph->nodes[index];
    int32_t *in = ftr__arena_alloc(&graph->arena, (size_t)node.in_count * sizeof *in);
    if (!in) return false;
    for (int32_t i = 0; i < node.in_count; i++)
        in[i] = ftr__is_dropped(r, node.in[i]) ? copy_of[node.in[i]] : node.in[i];
    for (int32_t i = 0; i < node.out_count; i++) {
        ftr__value value = graph->values[node.first_out + i];
        value.node = graph->node_count;
        copy_of[node.first_out + i] = graph->value_count;
        graph->values[graph->value_count++] = value;
    }
    node.first_out = copy_of[node.first_out];
    node.in = in;
    node.recomputed = node.backward = true;
    graph->nodes[graph->node_count++] = node;
    return true;
}

/* Puts the copies into the graph, where the schedule places them before their first user, and makes the later nodes read
 * them. */
static bool ftr__insert_copies(const ftr__recompute *r) {
    ftr_plan *plan = r->plan;
    ftr_graph *graph = plan->graph;
    int32_t *copy_of = ftr__arena_alloc(r->arena, (size_t)r->values * sizeof *copy_of);
    if (!copy_of || !ftr__reserve_copies(r)) return false;
    for (int32_t s = 0; s < r->length; s++) {
        const int32_t n = r->sequence[s] - r->nodes;
        if (n < 0) continue;
        if (!ftr__append_copy(r, n, copy_of)) return false;
        const ftr__node *node = &graph->nodes[n];
        if (node->op == FTR_OP_reshape) continue; /* a view */
        plan->recomputed.nodes++;
        plan->recomputed.multiply_adds += ftr__node_multiply_adds(graph, node);
        for (int32_t i = 0; i < node->out_count; i++) {
            const ftr__value *value = &graph->values[node->first_out + i];
            plan->recomputed.bytes += (int64_t)ftr_dtype_size(value->dtype) * ftr_shape_count(&value->shape);
        }
    }
    for (int32_t s = r->late; s < r->order_count; s++) {
        ftr__node *node = &graph->nodes[r->order[s]];
        for (int32_t i = 0; i < node->in_count; i++)
            if (ftr__is_dropped(r, node->in[i])) node->in[i] = copy_of[node->in[i]];
    }
    return true;
}

/* ---------------------------------------------------------------------------------------------------------- pass -- */

static ftr_status ftr__recompute_run(ftr__recompute *r, const ftr__recompute_desc *desc) {
    ftr__selection s = {.r = r, .target = desc->target};
    bool memory = ftr__recompute_open(r) && ftr__selection_open(&s);
    if (memory && desc->pattern_count > 0) memory = ftr__drop_by_hand(r, desc->patterns, desc->pattern_count);
    if (memory) ftr__search(&s);
    if (memory) memory = ftr__insert_copies(r);
    r->plan->recomputed.live = r->peak;
    r->plan->recomputed.smallest = memory && !s.fits;
    return memory ? FTR_OK : ftr__out_of_memory(r->plan->context, "recompute", (size_t)r->values * sizeof(int32_t));
}

/* The plan without recomputation is made in memory of the pass's own. */
ftr_status ftr__pass_recompute(ftr_plan *plan, const ftr__recompute_desc *desc) {
    const ftr__arena own = plan->arena;
    ftr__arena_init(&plan->arena, plan->context);
    ftr_status status = ftr__pass_schedule(plan);
    if (!status) status = ftr__pass_memplan(plan);
    ftr__arena scratch = plan->arena;
    plan->arena = own;
    ftr__recompute r = {.plan = plan, .arena = &scratch};
    if (!status) status = ftr__recompute_run(&r, desc);
    plan->order = NULL;
    plan->order_count = 0;
    plan->slots = NULL;
    memset(plan->bytes, 0, sizeof plan->bytes);
    ftr__arena_free(&scratch);
    return status;
}
