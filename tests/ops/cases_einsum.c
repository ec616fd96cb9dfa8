#include "case_tools.h"

/* Shapes of rank -1: there is no second operand. */
static const struct {
    const char *equation;
    ftr_shape a, b;
    int flags;
} equations[] = {
    {"bij,bjk->bik", {3, {2, 3, 4}}, {3, {2, 4, 5}}, 0},
    {"ij,jk->ik", {2, {3, 4}}, {2, {4, 5}}, 0},
    {"ij,jk", {2, {3, 4}}, {2, {4, 5}}, 0},
    {"ij,jk->ki", {2, {3, 4}}, {2, {4, 5}}, 0},
    {"ji,jk->ik", {2, {4, 3}}, {2, {4, 5}}, 0},
    {"ji,kj->ik", {2, {4, 3}}, {2, {5, 4}}, 0},
    {"ij,kj->ik", {2, {3, 4}}, {2, {5, 4}}, 0},
    {"i,i->", {1, {7}}, {1, {7}}, 0},
    {"i,i->i", {1, {7}}, {1, {7}}, 0},
    {"i,j->ij", {1, {3}}, {1, {4}}, 0},
    {"i,j->ji", {1, {3}}, {1, {4}}, 0},
    {"ij,ij->", {2, {3, 4}}, {2, {3, 4}}, 0},
    {"ij,ij->j", {2, {3, 4}}, {2, {3, 4}}, 0},
    {"ij,ji->", {2, {3, 4}}, {2, {4, 3}}, 0},
    {"bhqd,bhkd->bhqk", {4, {2, 3, 4, 5}}, {4, {2, 3, 6, 5}}, 0},
    {"bhqk,bkhd->bqhd", {4, {2, 3, 4, 5}}, {4, {2, 5, 3, 6}}, 0},
    {"bqhd,hdm->bqm", {4, {2, 3, 2, 4}}, {3, {2, 4, 5}}, 0},
    {"nhwc,oc->nhwo", {4, {2, 3, 2, 4}}, {2, {5, 4}}, 0},
    {"nhwc,nc->nhwc", {4, {2, 3, 2, 4}}, {2, {2, 4}}, 0},
    {"ijk,jil->kl", {3, {3, 4, 2}}, {3, {4, 3, 5}}, 0},
    {"aibj,bkaj->kji", {4, {2, 3, 4, 2}}, {4, {4, 3, 2, 2}}, 0},
    {"ijx,jky->ik", {3, {3, 4, 2}}, {3, {4, 5, 3}}, 0},
    {"abcdef,fedcba->", {6, {1, 2, 1, 2, 3, 2}}, {6, {2, 3, 2, 1, 2, 1}}, 0},
    {"abc,def->abcdef", {3, {2, 1, 2}}, {3, {1, 3, 2}}, 0},
    {"abk,kcdef->fbcade", {3, {2, 1, 3}}, {5, {3, 2, 1, 2, 2}}, 0},
    {"ij,jk->ik", {2, {3, 1}}, {2, {4, 5}}, 0},
    {"bi,bj->bij", {2, {1, 3}}, {2, {4, 2}}, 0},
    {"bij,bjk->bik", {3, {1, 3, 4}}, {3, {2, 4, 1}}, 0},
    {"ij,jk->ik", {2, {3, 0}}, {2, {0, 5}}, 0},
    {"ij,jk->ik", {2, {0, 4}}, {2, {4, 5}}, 0},
    {"iij,jk->ik", {3, {3, 3, 4}}, {2, {4, 5}}, 0},
    {"ii,jj->", {2, {3, 3}}, {2, {4, 4}}, 0},
    {"iji,ij->j", {3, {3, 2, 3}}, {2, {3, 2}}, 0},
    {"...ij,...jk->...ik", {4, {2, 1, 3, 4}}, {3, {3, 4, 2}}, 0},
    {"...ij,jk", {3, {2, 3, 4}}, {2, {4, 2}}, 0},
    {"i...,i...->...", {3, {3, 2, 4}}, {2, {3, 4}}, 0},
    {"...,...", {2, {2, 3}}, {1, {3}}, 0},
    {"...i,...i->i", {3, {2, 1, 3}}, {2, {4, 3}}, 0},
    {" i j , j k -> i k ", {2, {3, 4}}, {2, {4, 5}}, 0},
    {"Ba,ac", {2, {2, 3}}, {2, {3, 4}}, 0},
    {",i->i", {0, {0}}, {1, {5}}, 0},
    {",", {0, {0}}, {0, {0}}, 0},
    {"ij->ji", {2, {3, 4}}, {-1, {0}}, 0},
    {"ij->i", {2, {3, 4}}, {-1, {0}}, 0},
    {"ij->", {2, {3, 4}}, {-1, {0}}, 0},
    {"ii->i", {2, {4, 4}}, {-1, {0}}, 0},
    {"ii", {2, {4, 4}}, {-1, {0}}, 0},
    {"iiji->ij", {4, {2, 2, 3, 2}}, {-1, {0}}, 0},
    {"ijij->ji", {4, {2, 3, 2, 3}}, {-1, {0}}, 0},
    {"cab", {3, {2, 3, 4}}, {-1, {0}}, 0},
    {"b...a", {4, {2, 3, 4, 2}}, {-1, {0}}, 0},
    {"...ii->...i", {3, {2, 3, 3}}, {-1, {0}}, 0},
    {"bij,bjk->bik", {3, {5, 37, 65}}, {3, {5, 65, 50}}, OP_LARGE},
    {"bqhd,bkhd->bhqk", {4, {2, 33, 3, 40}}, {4, {2, 50, 3, 40}}, OP_LARGE},
};

/* p: equation */
static void build_einsum(op_build *b) {
    const int32_t i = b->of->p[0];
    ftr_tensor x = uniform_input(b, equations[i].a), y = {0};
    if (equations[i].b.rank >= 0) {
        y = uniform_input(b, equations[i].b);
    }
    /* An equation may leave a tensor as it is. */
    output(b, ftr_neg(ftr_einsum(equations[i].equation, x, y)));
}

static void build_einsum_self(op_build *b) {
    ftr_tensor x = uniform_input(b, FTR_SHAPE(4, 3));
    output(b, ftr_einsum("ki,kj->ij", x, x));
}

/* p: equation, type */
static void build_einsum_integer(op_build *b) {
    const int32_t i = b->of->p[0];
    ftr_dtype type = all_types[b->of->p[1]];
    ftr_tensor x = integer_input(b, type, equations[i].a, -99, 99), y = {0};
    if (equations[i].b.rank >= 0) {
        y = integer_input(b, type, equations[i].b, -99, 99);
    }
    output(b, ftr_neg(ftr_einsum(equations[i].equation, x, y)));
}

void add_einsum(table *t) {
    for (int32_t i = 0; i < LENGTH(equations); i++) {
        WITH(add(t, build_einsum, equations[i].flags, "einsum %d %s", (int)i, equations[i].equation), i);
        if (i % 2) {
            WITH(add(t, build_einsum_integer, 0, "einsum %d %s %s", (int)i, equations[i].equation,
                     type_name(1 + i / 2 % 2)),
                 i, 1 + i / 2 % 2);
        }
    }
    add(t, build_einsum_self, 0, "einsum of one tensor");
}
