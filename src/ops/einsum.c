/* Einstein summation. It makes no op of its own: it is built of diagonals (a slice of a reshape), sums, transposes, and one
 * product of what remains: a matrix product if an index is summed over that both operands have, else mul. */
#include "ops/registry.h"

#include <string.h>

/* Indices: a letter's character code, or for the dimensions of '...' those from here on, counted from the last one. */
#define FTR__EINSUM_DOTS 128

/* One operand, or the result (x is null, size unused). */
typedef struct ftr__einsum_term {
    ftr_tensor x;
    int32_t rank; /* while the equation is read: the number of letters, of which the first FTR_MAX_RANK are kept */
    int32_t dots; /* letters before '...'; -1: there is none */
    int32_t index[FTR_MAX_RANK];
    int64_t size[FTR_MAX_RANK];
} ftr__einsum_term;

typedef struct ftr__einsum {
    ftr_graph *graph;
    const char *equation;
    ftr__einsum_term in[2], out;
    int32_t count; /* of operands */
} ftr__einsum;

#define FTR__EINSUM_ERROR(e, status, ...)                                                                              \
    ((void)ftr__builder_error((e)->graph, status, "einsum", (e)->equation, __VA_ARGS__), false)

/* ---- reading the equation */

static bool ftr__einsum_is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* Reads letters and '...' up to what does not belong to a term. `what` names the term in the sentence. */
static bool ftr__einsum_read_term(const ftr__einsum *e, const char **at, ftr__einsum_term *term, const char *what) {
    for (const char *c = *at;; c++) {
        if (*c == ' ') continue;
        if (ftr__einsum_is_letter(*c)) {
            if (term->rank < FTR_MAX_RANK) term->index[term->rank] = *c;
            term->rank++;
        } else if (strncmp(c, "...", 3) == 0) {
            if (term->dots >= 0) return FTR__EINSUM_ERROR(e, FTR_ERROR_INVALID_ARGUMENT, "%s has '...' twice", what);
            term->dots = term->rank;
            c += 2;
        } else {
            *at = c;
            return true;
        }
    }
}

/* Operands, and the result if the equation has it: then *explicit is set. */
static bool ftr__einsum_read(ftr__einsum *e, bool *explicit_result) {
    static const char *const names[2] = {"operand 0", "operand 1"};
    const char *at = e->equation;
    int32_t terms = 0;
    e->in[0].dots = e->in[1].dots = e->out.dots = -1;
    for (bool next = true; next; terms++) {
        ftr__einsum_term more = {.dots = -1}; /* operands past the second are read, to count them */
        ftr__einsum_term *term = terms < 2 ? &e->in[terms] : &more;
        if (!ftr__einsum_read_term(e, &at, term, terms < 2 ? names[terms] : "an operand")) return false;
        next = *at == ',';
        if (next) at++;
    }
    *explicit_result = strncmp(at, "->", 2) == 0;
    if (*explicit_result) {
        at += 2;
        if (!ftr__einsum_read_term(e, &at, &e->out, "the result")) return false;
    }
    if (*at != '\0')
        return FTR__EINSUM_ERROR(e, FTR_ERROR_INVALID_ARGUMENT,
                                 "'%c' at position %d, expected letters, '...', ',' between operands, one '->'",
                                 *at > ' ' && *at <= '~' ? *at : '?', (int)(at - e->equation));
    if (terms > 2) return FTR__EINSUM_ERROR(e, FTR_ERROR_INVALID_ARGUMENT, "%d operands, expected 1 or 2", (int)terms);
    if (terms != e->count)
        return FTR__EINSUM_ERROR(e, FTR_ERROR_INVALID_ARGUMENT,
                                 "%d in the equation, %d given: operands must be as many", (int)terms, (int)e->count);
    return true;
}

/* ---- what the indices are */

/* Puts `dots` dimensions in the place of '...', if the term has it. */
static void ftr__einsum_spread(ftr__einsum_term *term, int32_t dots) {
    if (term->dots < 0) return;
    for (int32_t d = term->rank - 1; d >= term->dots; d--) term->index[d + dots] = term->index[d];
    for (int32_t d = 0; d < dots; d++) term->index[term->dots + d] = FTR__EINSUM_DOTS + dots - 1 - d;
    term->rank += dots;
}

/* The position of an index in a term; -1 if it is not there. */
static int32_t ftr__einsum_find(const ftr__einsum_term *term, int32_t index) {
    for (int32_t d = 0; d < term->rank; d++)
        if (term->index[d] == index) return d;
    return -1;
}

/* An operand's indices against its tensor; *dots grows to the dimensions of its '...'. */
static bool ftr__einsum_match(ftr__einsum *e, int32_t operand, int32_t *dots) {
    ftr__einsum_term *term = &e->in[operand];
    const ftr_shape shape = ftr_shape_of(term->x);
    const ftr_dtype dtype = ftr_dtype_of(term->x), first = ftr_dtype_of(e->in[0].x);
    char text[FTR__SHAPE_TEXT];
    if (!ftr__is_float(dtype) && dtype != FTR_I32 && dtype != FTR_I64)
        return FTR__EINSUM_ERROR(e, FTR_ERROR_DTYPE, "operand %d is %s, expected floating point, i32 or i64",
                                 (int)operand, ftr_dtype_name(dtype));
    if (dtype != first)
        return FTR__EINSUM_ERROR(e, FTR_ERROR_DTYPE, "operand 0 is %s, operand 1 is %s: both must have one type",
                                 ftr_dtype_name(first), ftr_dtype_name(dtype));
    const int32_t rest = shape.rank - term->rank;
    if (rest < 0 || (rest > 0 && term->dots < 0))
        return FTR__EINSUM_ERROR(e, FTR_ERROR_RANK, "operand %d has %d %s%s, its tensor is %s", (int)operand,
                                 (int)term->rank, term->rank == 1 ? "index" : "indices",
                                 term->dots < 0 ? "" : " beside '...'", ftr__shape_text(&shape, text));
    ftr__einsum_spread(term, rest);
    memcpy(term->size, shape.dim, sizeof term->size);
    if (term->dots >= 0 && rest > *dots) *dots = rest;
    return true;
}

static const char *ftr__einsum_name(int32_t index, char text[4]) {
    text[0] = (char)index;
    text[1] = '\0';
    return index < FTR__EINSUM_DOTS ? text : "...";
}

/* Equal sizes of one index; between two operands one of them may be 1. */
static bool ftr__einsum_check_sizes(const ftr__einsum *e) {
    char text[4];
    for (int32_t o = 0; o < e->count; o++)
        for (int32_t d = 0; d < e->in[o].rank; d++) {
            const ftr__einsum_term *term = &e->in[o];
            const int32_t before = ftr__einsum_find(term, term->index[d]);
            const int32_t other = o > 0 ? ftr__einsum_find(&e->in[0], term->index[d]) : -1;
            const int64_t size = term->size[d], size_other = other >= 0 ? e->in[0].size[other] : size;
            if (term->size[before] != size)
                return FTR__EINSUM_ERROR(e, FTR_ERROR_SHAPE, "index '%s' is %lld and %lld in operand %d",
                                         ftr__einsum_name(term->index[d], text), (long long)term->size[before],
                                         (long long)size, (int)o);
            if (size != size_other && size != 1 && size_other != 1)
                return FTR__EINSUM_ERROR(e, FTR_ERROR_SHAPE, "index '%s' is %lld in operand 0 and %lld in operand 1",
                                         ftr__einsum_name(term->index[d], text), (long long)size_other,
                                         (long long)size);
        }
    return true;
}

/* How often the operands have an index. */
static int32_t ftr__einsum_uses(const ftr__einsum *e, int32_t index) {
    int32_t uses = 0;
    for (int32_t o = 0; o < e->count; o++)
        for (int32_t d = 0; d < e->in[o].rank; d++) uses += e->in[o].index[d] == index;
    return uses;
}

/* Without "->": the dimensions of '...', then the letters that are there once, in the order of their codes. */
static void ftr__einsum_imply(ftr__einsum *e, bool has_dots) {
    e->out.dots = has_dots ? 0 : -1;
    for (int32_t index = 'A'; index <= 'z'; index++)
        if (ftr__einsum_uses(e, index) == 1) {
            if (e->out.rank < FTR_MAX_RANK) e->out.index[e->out.rank] = index;
            e->out.rank++;
        }
}

static bool ftr__einsum_check_result(ftr__einsum *e, int32_t dots) {
    ftr__einsum_term *out = &e->out;
    const int32_t rank = out->rank + (out->dots >= 0 ? dots : 0);
    if (rank > FTR_MAX_RANK)
        return FTR__EINSUM_ERROR(e, FTR_ERROR_RANK, "the result has rank %d, expected %d or less", (int)rank,
                                 FTR_MAX_RANK);
    for (int32_t d = 0; d < out->rank; d++) {
        if (ftr__einsum_uses(e, out->index[d]) == 0)
            return FTR__EINSUM_ERROR(e, FTR_ERROR_INVALID_ARGUMENT, "index '%c' of the result is in no operand",
                                     (char)out->index[d]);
        if (ftr__einsum_find(out, out->index[d]) != d)
            return FTR__EINSUM_ERROR(e, FTR_ERROR_INVALID_ARGUMENT, "index '%c' is twice in the result",
                                     (char)out->index[d]);
    }
    ftr__einsum_spread(out, dots);
    return true;
}

/* ---- an operand by itself */

static void ftr__einsum_remove(ftr__einsum_term *term, int32_t d) {
    term->rank--;
    for (; d < term->rank; d++) {
        term->index[d] = term->index[d + 1];
        term->size[d] = term->size[d + 1];
    }
}

static ftr_shape ftr__einsum_shape(const ftr__einsum_term *term) {
    ftr_shape shape = {term->rank, {0}};
    for (int32_t d = 0; d < term->rank; d++) shape.dim[d] = term->size[d];
    return shape;
}

/* Orders the dimensions so that the index at place i of `order` is dimension i; `order` has all of them. */
static void ftr__einsum_arrange(ftr__einsum_term *term, const int32_t *order) {
    const ftr__einsum_term from = *term;
    ftr_axes axes = {term->rank, {0}};
    bool same = true;
    for (int32_t i = 0; i < term->rank; i++) {
        axes.axis[i] = ftr__einsum_find(&from, order[i]);
        same = same && axes.axis[i] == i;
        term->index[i] = order[i];
        term->size[i] = from.size[axes.axis[i]];
    }
    if (!same) term->x = ftr_transpose(from.x, axes);
}

/* An index that is there twice: of the dimensions [n, n] at the end the elements 0, n + 1, 2 (n + 1), ... are kept. */
static void ftr__einsum_take_diagonal(ftr__einsum_term *term, int32_t first, int32_t second) {
    const int64_t n = term->size[first];
    const int32_t index = term->index[first];
    ftr_axes axes = {term->rank, {0}};
    int32_t kept = 0;
    for (int32_t d = 0; d < term->rank; d++)
        if (d != first && d != second) axes.axis[kept++] = d;
    axes.axis[kept] = first;
    axes.axis[kept + 1] = second;
    term->x = ftr_transpose(term->x, axes);
    ftr__einsum_remove(term, second);
    ftr__einsum_remove(term, first);
    term->index[term->rank] = index;
    term->size[term->rank++] = n * n;
    const ftr_shape flat = ftr__einsum_shape(term);
    term->x = ftr_slice(ftr__reshape_to(term->x, &flat), term->rank - 1, 0, n * n, n + 1);
    term->size[term->rank - 1] = n;
}

static void ftr__einsum_take_diagonals(ftr__einsum_term *term) {
    for (int32_t d = 1; d < term->rank; d++) {
        const int32_t first = ftr__einsum_find(term, term->index[d]);
        if (first == d) continue;
        ftr__einsum_take_diagonal(term, first, d);
        d = 0; /* the dimensions have moved */
    }
}

/* Takes out dimensions of size 1 that the other operand has larger: they broadcast. */
static void ftr__einsum_squeeze(ftr__einsum_term *term, const ftr__einsum_term *other) {
    for (int32_t d = term->rank - 1; d >= 0; d--) {
        const int32_t there = ftr__einsum_find(other, term->index[d]);
        if (there >= 0 && term->size[d] == 1 && other->size[there] != 1) ftr__einsum_remove(term, d);
    }
    const ftr_shape shape = ftr__einsum_shape(term);
    term->x = ftr__reshape_to(term->x, &shape);
}

/* Sums over what neither the other operand nor the result has. */
static void ftr__einsum_sum(ftr__einsum_term *term, const ftr__einsum_term *other, const ftr__einsum_term *out) {
    uint32_t mask = 0;
    for (int32_t d = 0; d < term->rank; d++)
        if (ftr__einsum_find(other, term->index[d]) < 0 && ftr__einsum_find(out, term->index[d]) < 0)
            mask |= 1u << (uint32_t)d;
    if (mask != 0) term->x = ftr__sum_mask(term->x, mask, false);
    for (int32_t d = term->rank - 1; d >= 0; d--)
        if ((mask >> d & 1u) != 0) ftr__einsum_remove(term, d);
}

/* ---- the product of two operands, whose indices are the other's or the result's by now */

/* The indices of `term` that the other operand has or lacks (shared) and that the result has or lacks (kept), in the order
 * in which `order` has them. */
static ftr__einsum_term ftr__einsum_select(const ftr__einsum *e, const ftr__einsum_term *order,
                                           const ftr__einsum_term *term, const ftr__einsum_term *other, bool shared,
                                           bool kept) {
    ftr__einsum_term list;
    memset(&list, 0, sizeof list);
    for (int32_t d = 0; d < order->rank; d++) {
        const int32_t index = order->index[d], at = ftr__einsum_find(term, index);
        if (at < 0 || (ftr__einsum_find(other, index) >= 0) != shared) continue;
        if ((ftr__einsum_find(&e->out, index) >= 0) != kept) continue;
        list.index[list.rank] = index;
        list.size[list.rank++] = term->size[at];
    }
    return list;
}

static int64_t ftr__einsum_elements(const ftr__einsum_term *list) {
    int64_t count = 1;
    for (int32_t d = 0; d < list->rank; d++) count *= list->size[d];
    return count;
}

/* Appends the indices of a list to a term. */
static void ftr__einsum_append(ftr__einsum_term *term, const ftr__einsum_term *list) {
    for (int32_t d = 0; d < list->rank; d++) {
        term->index[term->rank] = list->index[d];
        term->size[term->rank++] = list->size[d];
    }
}

/* Nothing to sum over: both in the order of the result, with size 1 for what they lack. */
static ftr_tensor ftr__einsum_multiply(ftr__einsum *e) {
    ftr_tensor factor[2];
    for (int32_t o = 0; o < 2; o++) {
        ftr__einsum_term *term = &e->in[o];
        ftr_shape wide = {e->out.rank, {0}};
        int32_t order[FTR_MAX_RANK], count = 0;
        for (int32_t d = 0; d < e->out.rank; d++) {
            const int32_t at = ftr__einsum_find(term, e->out.index[d]);
            wide.dim[d] = at >= 0 ? term->size[at] : 1;
            if (at >= 0) order[count++] = e->out.index[d];
        }
        ftr__einsum_arrange(term, order);
        factor[o] = ftr__reshape_to(term->x, &wide);
    }
    return ftr_mul(factor[0], factor[1]);
}

typedef struct ftr__einsum_matrix {
    ftr_tensor x;
    int64_t batch, free, summed;
    bool summed_first; /* [batch, summed, free]; otherwise [batch, free, summed] */
} ftr__einsum_matrix;

/* Joins the dimensions of an operand by kind, and orders them if they do not lie in one of the two orders. */
static ftr__einsum_matrix ftr__einsum_as_matrix(ftr__einsum_term *term, const ftr__einsum_term *batch,
                                                const ftr__einsum_term *rows, const ftr__einsum_term *summed) {
    ftr__einsum_term order[2];
    memset(order, 0, sizeof order);
    for (int32_t form = 0; form < 2; form++) {
        ftr__einsum_append(&order[form], batch);
        ftr__einsum_append(&order[form], form == 0 ? rows : summed);
        ftr__einsum_append(&order[form], form == 0 ? summed : rows);
    }
    const bool summed_first = memcmp(term->index, order[1].index, (size_t)term->rank * sizeof term->index[0]) == 0;
    ftr__einsum_arrange(term, order[summed_first ? 1 : 0].index);
    return (ftr__einsum_matrix){term->x, ftr__einsum_elements(batch), ftr__einsum_elements(rows),
                                ftr__einsum_elements(summed), summed_first};
}

/* [batch, free of a, free of b]: of floats by matmul; of integers, which it does not take, as a sum of products. */
static ftr_tensor ftr__einsum_matrix_product(const ftr__einsum_matrix *a, const ftr__einsum_matrix *b) {
    const int64_t batch = a->batch, m = a->free, n = b->free, k = a->summed;
    ftr_shape left = a->summed_first ? FTR_SHAPE(batch, k, m) : FTR_SHAPE(batch, m, k);
    ftr_shape right = b->summed_first ? FTR_SHAPE(batch, k, n) : FTR_SHAPE(batch, n, k);
    ftr_tensor x = ftr__reshape_to(a->x, &left), y = ftr__reshape_to(b->x, &right);
    if (ftr__is_float(ftr_dtype_of(x))) return ftr_matmul(x, y, a->summed_first, !b->summed_first);
    if (a->summed_first) x = ftr_transpose(x, FTR_AXES(0, 2, 1));
    if (b->summed_first) y = ftr_transpose(y, FTR_AXES(0, 2, 1));
    x = ftr_reshape(x, FTR_SHAPE(batch, m, 1, k));
    y = ftr_reshape(y, FTR_SHAPE(batch, 1, n, k));
    return ftr__sum_mask(ftr_mul(x, y), 1u << 3, false);
}

/* The operands as matrices; `a` is the one whose free indices come first in the result. */
static ftr_tensor ftr__einsum_contract(const ftr__einsum *e, ftr__einsum_term *a, ftr__einsum_term *b) {
    const ftr__einsum_term batch = ftr__einsum_select(e, &e->out, a, b, true, true);
    const ftr__einsum_term summed = ftr__einsum_select(e, a, a, b, true, false);
    const ftr__einsum_term free_a = ftr__einsum_select(e, &e->out, a, b, false, true);
    const ftr__einsum_term free_b = ftr__einsum_select(e, &e->out, b, a, false, true);
    const ftr__einsum_matrix left = ftr__einsum_as_matrix(a, &batch, &free_a, &summed);
    const ftr__einsum_matrix right = ftr__einsum_as_matrix(b, &batch, &free_b, &summed);
    ftr__einsum_term made;
    memset(&made, 0, sizeof made);
    ftr__einsum_append(&made, &batch);
    ftr__einsum_append(&made, &free_a);
    ftr__einsum_append(&made, &free_b);
    const ftr_shape shape = ftr__einsum_shape(&made);
    made.x = ftr__einsum_matrix_product(&left, &right);
    made.x = ftr__reshape_to(made.x, &shape);
    ftr__einsum_arrange(&made, e->out.index);
    return made.x;
}

static ftr_tensor ftr__einsum_product(ftr__einsum *e) {
    ftr__einsum_term *a = &e->in[0], *b = &e->in[1];
    const ftr__einsum_term *out = &e->out;
    bool contracts = false;
    for (int32_t d = 0; d < a->rank; d++) contracts = contracts || ftr__einsum_find(out, a->index[d]) < 0;
    if (!contracts) return ftr__einsum_multiply(e);
    for (int32_t d = 0; d < out->rank; d++) {
        const bool in_a = ftr__einsum_find(a, out->index[d]) >= 0, in_b = ftr__einsum_find(b, out->index[d]) >= 0;
        if (in_a && in_b) continue;
        return in_a ? ftr__einsum_contract(e, a, b) : ftr__einsum_contract(e, b, a);
    }
    return ftr__einsum_contract(e, a, b);
}

/* ---- builder */

/* Reads and checks everything; nothing is built before. */
static bool ftr__einsum_prepare(ftr__einsum *e) {
    bool explicit_result;
    int32_t dots = 0;
    if (!ftr__einsum_read(e, &explicit_result)) return false;
    const bool has_dots = e->in[0].dots >= 0 || e->in[1].dots >= 0;
    for (int32_t o = 0; o < e->count; o++)
        if (!ftr__einsum_match(e, o, &dots)) return false;
    if (!ftr__einsum_check_sizes(e)) return false;
    if (!explicit_result) ftr__einsum_imply(e, has_dots);
    return ftr__einsum_check_result(e, dots);
}

ftr_tensor ftr_einsum(const char *equation, ftr_tensor a, ftr_tensor b) {
    const ftr_tensor none = {NULL, 0}, in[2] = {a, b};
    ftr__einsum e;
    memset(&e, 0, sizeof e);
    e.graph = ftr__common_graph("einsum", in, 2, 1);
    if (e.graph == NULL) return none;
    if (equation == NULL)
        return ftr__builder_error(e.graph, FTR_ERROR_INVALID_ARGUMENT, "einsum", NULL, "the equation is NULL");
    e.equation = equation;
    e.count = ftr_is_valid(b) ? 2 : 1;
    e.in[0].x = a;
    e.in[1].x = b;
    if (!ftr__einsum_prepare(&e)) return none;
    for (int32_t o = 0; o < e.count; o++) ftr__einsum_take_diagonals(&e.in[o]);
    for (int32_t o = 0; o < e.count; o++) ftr__einsum_squeeze(&e.in[o], &e.in[1 - o]);
    for (int32_t o = 0; o < e.count; o++) ftr__einsum_sum(&e.in[o], &e.in[1 - o], &e.out);
    if (e.count == 2) return ftr__einsum_product(&e);
    ftr__einsum_arrange(&e.in[0], e.out.index);
    return e.in[0].x;
}
