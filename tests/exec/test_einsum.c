/* einsum against its definition, on equations drawn at random: for every value of all indices, the product of the operands'
 * elements is added to the result's. */
#include "ftr_test.h"

enum { MOST = FTR_MAX_RANK, ELEMENTS = 4096, LETTERS = 5, EQUATIONS = 1500 };

/* An operand or the result: its letters, as numbers from 0. */
typedef struct term {
    int rank, letter[MOST];
    ftr_shape shape;
    int64_t count;
    double values[ELEMENTS], gradient[ELEMENTS];
} term;

typedef struct drawing {
    term in[2], out;
    int operands;
    int64_t size[LETTERS];
    char equation[64];
} drawing;

static void write_letters(char *equation, const term *t, ftr_test_rng *rng) {
    for (int d = 0; d < t->rank; d++) {
        if (ftr_test_integer(rng, 0, 4) == 0) {
            strcat(equation, " ");
        }
        strncat(equation, &"aXbzQ"[t->letter[d]], 1);
    }
}

static void draw_operand(drawing *d, term *t, ftr_test_rng *rng) {
    t->rank = (int)ftr_test_integer(rng, 0, 4);
    t->shape.rank = t->rank;
    t->count = 1;
    for (int i = 0; i < t->rank; i++) {
        t->letter[i] = (int)ftr_test_integer(rng, 0, LETTERS - 1);
        t->shape.dim[i] = d->size[t->letter[i]];
        t->count *= t->shape.dim[i];
    }
    for (int i = 0; i < t->rank; i++) { /* sometimes a letter is 1 here and stretches */
        int times = 0;
        for (int k = 0; k < t->rank; k++) {
            times += t->letter[k] == t->letter[i];
        }
        if (times == 1 && t->shape.dim[i] > 1 && ftr_test_integer(rng, 0, 9) == 0) {
            t->count /= t->shape.dim[i];
            t->shape.dim[i] = 1;
        }
    }
    for (int64_t i = 0; i < t->count; i++) {
        t->values[i] = (double)ftr_test_integer(rng, -8, 8) / 4;
    }
}

/* What a letter's values go to: the largest of its sizes. */
static void settle_sizes(drawing *d) {
    for (int l = 0; l < LETTERS; l++) {
        int64_t size = -1;
        for (int o = 0; o < d->operands; o++) {
            for (int i = 0; i < d->in[o].rank; i++) {
                int64_t found = d->in[o].shape.dim[i];
                size = d->in[o].letter[i] == l && (size < 0 || size == 1) ? found : size;
            }
        }
        d->size[l] = size;
    }
}

static void draw_equation(drawing *d, ftr_test_rng *rng) {
    memset(d, 0, sizeof *d);
    d->operands = (int)ftr_test_integer(rng, 1, 2);
    for (int l = 0; l < LETTERS; l++) {
        d->size[l] = ftr_test_integer(rng, ftr_test_integer(rng, 0, 9) > 0, 4);
    }
    for (int o = 0; o < d->operands; o++) {
        draw_operand(d, &d->in[o], rng);
        strcat(d->equation, o ? "," : "");
        write_letters(d->equation, &d->in[o], rng);
    }
    settle_sizes(d);
    int order[LETTERS] = {0};
    for (int l = 0; l < LETTERS; l++) {
        int other = (int)ftr_test_integer(rng, 0, l);
        order[l] = order[other];
        order[other] = l;
    }
    d->out.count = 1;
    for (int i = 0; i < LETTERS; i++) {
        if (d->size[order[i]] >= 0 && ftr_test_integer(rng, 0, 2) > 0) {
            d->out.letter[d->out.rank] = order[i];
            d->out.shape.dim[d->out.rank++] = d->size[order[i]];
            d->out.count *= d->size[order[i]];
        }
    }
    d->out.shape.rank = d->out.rank;
    for (int64_t i = 0; i < d->out.count; i++) {
        d->out.gradient[i] = (double)ftr_test_integer(rng, -4, 4) / 2;
    }
    strcat(d->equation, "->");
    write_letters(d->equation, &d->out, rng);
}

static int64_t element(const term *t, const int64_t at[LETTERS]) {
    int64_t index = 0;
    for (int i = 0; i < t->rank; i++) {
        index = index * t->shape.dim[i] + (t->shape.dim[i] == 1 ? 0 : at[t->letter[i]]);
    }
    return index;
}

static void compute(drawing *d) {
    int64_t total = 1, at[LETTERS];
    for (int l = 0; l < LETTERS; l++) {
        total *= d->size[l] >= 0 ? d->size[l] : 1;
    }
    for (int64_t i = 0; i < total; i++) {
        int64_t rest = i;
        for (int l = 0; l < LETTERS; l++) {
            int64_t size = d->size[l] >= 0 ? d->size[l] : 1;
            at[l] = rest % size;
            rest /= size;
        }
        int64_t a = element(&d->in[0], at), b = d->operands > 1 ? element(&d->in[1], at) : 0, y = element(&d->out, at);
        double other = d->operands > 1 ? d->in[1].values[b] : 1;
        d->out.values[y] += d->in[0].values[a] * other;
        d->in[0].gradient[a] += d->out.gradient[y] * other;
        d->in[1].gradient[b] += d->out.gradient[y] * d->in[0].values[a];
    }
}

/* Values are quarters, sums are exact in f32. */
static void compare(const drawing *d, const char *what, const double *expected, const float *found, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        if ((double)found[i] != expected[i]) {
            fail_msg("'%s', %s [%lld of %lld]: %.9g, expected %.9g", d->equation, what, (long long)i, (long long)count,
                     (double)found[i], expected[i]);
        }
    }
}

static void feed(ftr_context *context, ftr_plan *plan, ftr_tensor tensor, const double *values, int64_t count) {
    float data[ELEMENTS];
    for (int64_t i = 0; i < count; i++) {
        data[i] = (float)values[i];
    }
    FTR_TEST_OK(context, ftr_feed(plan, tensor, data, (size_t)count * sizeof *data));
}

static void run(ftr_context *context, drawing *d) {
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor in[2] = {ftr_input(graph, "a", FTR_F32, d->in[0].shape)}, w;
    if (d->operands > 1) {
        in[1] = ftr_input(graph, "b", FTR_F32, d->in[1].shape);
    }
    ftr_tensor y = ftr_einsum(d->equation, in[0], in[1]);
    FTR_TEST_GRAPH_OK(graph);
    ftr_shape shape = ftr_shape_of(y);
    if (!ftr_shape_equal(&shape, &d->out.shape)) {
        fail_msg("'%s': the result has another shape", d->equation);
    }
    w = ftr_input(graph, "w", FTR_F32, shape);
    ftr_compile_desc desc = {.outputs = &y, .output_count = 1, .gradients_of = in, .gradient_count = d->operands};
    desc.loss = ftr_sum(ftr_mul(y, w), ftr_all_axes(), false);
    ftr_plan *plan = NULL;
    FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
    for (int o = 0; o < d->operands; o++) {
        feed(context, plan, in[o], d->in[o].values, d->in[o].count);
    }
    feed(context, plan, w, d->out.gradient, d->out.count);
    FTR_TEST_OK(context, ftr_step(plan, NULL));
    float data[ELEMENTS];
    FTR_TEST_OK(context, ftr_read(plan, y, data, (size_t)d->out.count * sizeof *data));
    compare(d, "result", d->out.values, data, d->out.count);
    for (int o = 0; o < d->operands; o++) {
        FTR_TEST_OK(context, ftr_read_gradient(plan, in[o], data, (size_t)d->in[o].count * sizeof *data));
        compare(d, o ? "gradient of operand 1" : "gradient of operand 0", d->in[o].gradient, data, d->in[o].count);
    }
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
}

static void random_equations(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_test_rng rng = {3};
    static drawing d;
    for (int i = 0; i < EQUATIONS; i++) {
        draw_equation(&d, &rng);
        compute(&d);
        run(context, &d);
    }
    ftr_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_equations)};
    return cmocka_run_group_tests_name("einsum", tests, NULL, NULL);
}
