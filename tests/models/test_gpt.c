/* Trains a small GPT-2 as PyTorch did (make_gpt_goldens.py): losses and final weights, with each instruction set, and
 * the same bits for any number of threads. */
#include "ftr_test.h"
#include "model_zoo.h"

enum { BATCH = 8, CONTEXT = 32, STRIDE = 601, SKETCHES = 4, STEPS = 100, MAX_TEXT = 8192 };

#define DATA FTR_TEST_DATA "/models/data/"

/* The bytes of the text as indices into the ascending bytes that occur. */
typedef struct text {
    int32_t tokens[MAX_TEXT];
    int64_t count;
    int32_t vocabulary;
} text;

static text read_text(void) {
    static unsigned char bytes[MAX_TEXT];
    text t = {.count = 0};
    FILE *file = fopen(DATA "genesis1.txt", "rb");
    assert_non_null(file);
    t.count = (int64_t)fread(bytes, 1, MAX_TEXT, file);
    fclose(file);
    assert_in_range(t.count, 4000, MAX_TEXT - 1);
    int32_t token[256];
    for (int byte = 0; byte < 256; byte++) token[byte] = memchr(bytes, byte, (size_t)t.count) ? t.vocabulary++ : -1;
    for (int64_t i = 0; i < t.count; i++) t.tokens[i] = token[bytes[i]];
    return t;
}

typedef struct run {
    ftr_graph *graph;
    ftr_tensor tokens, next;
    ftr_plan *plan;
} run;

/* As first_weight() in make_gpt_goldens.py: a function of name and index. */
static void write_first_weights(ftr_context *context, ftr_tensor variable) {
    const char *name = ftr_name_of(variable);
    ftr_shape shape = ftr_shape_of(variable);
    int64_t count = ftr_shape_count(&shape);
    bool scale = strlen(name) > 6 && strcmp(name + strlen(name) - 6, "weight") == 0;
    float *data = malloc((size_t)count * sizeof *data);
    assert_non_null(data);
    for (int64_t i = 0; i < count; i++) {
        double u = zoo_uniform(name, i);
        data[i] = (float)(shape.rank == 2 ? 0.3 * (u - 0.5) : scale ? u + 0.5 : 0.2 * (u - 0.5));
    }
    FTR_TEST_OK(context, ftr_variable_write(variable, data, (size_t)count * sizeof *data));
    free(data);
}

static run start(ftr_context *context, const text *t) {
    run r = {.graph = ftr_graph_create(context)};
    r.tokens = ftr_input(r.graph, "tokens", FTR_I32, FTR_SHAPE(BATCH, CONTEXT));
    r.next = ftr_input(r.graph, "next", FTR_I32, FTR_SHAPE(BATCH, CONTEXT));
    ftr_gpt_desc desc = ftr_gpt_defaults(FTR_GPT_CHARS);
    desc.vocabulary = t->vocabulary;
    desc.context = CONTEXT;
    desc.width = 64;
    desc.layers = 2;
    desc.heads = 4;
    ftr_tensor loss = ftr_cross_entropy(ftr_gpt(r.tokens, &desc), r.next, NULL);
    FTR_TEST_GRAPH_OK(r.graph);
    ftr_optimizer adamw = ftr_adamw(2e-3);
    adamw.weight_decay = 0.1;
    adamw.eps = 1e-5;
    FTR_TEST_OK(context, ftr_compile(r.graph, &(ftr_compile_desc){.loss = loss, .optimizer = &adamw}, &r.plan));
    for (int32_t i = 0; i < ftr_variable_count(r.graph); i++) write_first_weights(context, ftr_variable_at(r.graph, i));
    return r;
}

static void stop(run *r) {
    ftr_plan_destroy(r->plan);
    ftr_graph_destroy(r->graph);
}

static double step(ftr_context *context, run *r, const text *t, int64_t number) {
    int32_t tokens[BATCH][CONTEXT], next[BATCH][CONTEXT];
    for (int64_t row = 0; row < BATCH; row++) {
        int64_t at = (BATCH * number + row) * STRIDE % (t->count - CONTEXT);
        memcpy(tokens[row], t->tokens + at, sizeof tokens[row]);
        memcpy(next[row], t->tokens + at + 1, sizeof next[row]);
    }
    ftr_step_info info;
    FTR_TEST_OK(context, ftr_feed(r->plan, r->tokens, tokens, sizeof tokens));
    FTR_TEST_OK(context, ftr_feed(r->plan, r->next, next, sizeof next));
    FTR_TEST_OK(context, ftr_step(r->plan, &info));
    return info.loss;
}

/* Element `index` of the f64 tensor `kind`/`name`. */
static double golden(const ftr_safetensors *file, const char *kind, const char *name, int64_t index) {
    char full[256];
    double value;
    ftr_safetensors_entry entry;
    snprintf(full, sizeof full, "%s%s", kind, name);
    if (!ftr_safetensors_find(file, full, &entry)) fail_msg("PyTorch's run has no %s", full);
    assert_int_equal(entry.dtype, FTR_F64);
    assert_true((size_t)(index + 1) * sizeof value <= entry.bytes);
    memcpy(&value, (const char *)entry.data + (size_t)index * sizeof value, sizeof value);
    return value;
}

static float *read_variable(ftr_context *context, ftr_tensor variable, int64_t *count) {
    ftr_shape shape = ftr_shape_of(variable);
    *count = ftr_shape_count(&shape);
    float *data = malloc((size_t)*count * sizeof *data);
    assert_non_null(data);
    FTR_TEST_OK(context, ftr_variable_read(variable, data, (size_t)*count * sizeof *data));
    return data;
}

/* The largest difference of a parameter's sums with random signs, of its norm. For a vector of differences d such a sum
 * has the expectation 0 and the variance |d|^2. */
static double sketch_deviation(ftr_context *context, ftr_tensor variable, const ftr_safetensors *file) {
    const char *name = ftr_name_of(variable);
    int64_t count;
    float *data = read_variable(context, variable, &count);
    double worst = 0;
    for (int k = 0; k < SKETCHES; k++) {
        char stream[256];
        double sum = 0;
        snprintf(stream, sizeof stream, "%s/%d", name, k);
        for (int64_t i = 0; i < count; i++) sum += zoo_uniform(stream, i) < 0.5 ? -(double)data[i] : (double)data[i];
        worst = fmax(worst, fabs(sum - golden(file, "sketch/", name, k)) / golden(file, "norm/", name, 0));
    }
    free(data);
    return worst;
}

/* PyTorch's own run in single precision differs by 4e-7 in the losses and 1e-5 in the weights (as norms). */
static void follow(ftr_context *context, const text *t, const ftr_safetensors *file) {
    run r = start(context, t);
    double worst_loss = 0, worst_weight = 0;
    for (int64_t i = 0; i < STEPS; i++) {
        double loss = step(context, &r, t, i), in_double = golden(file, "losses", "", i),
               in_single = golden(file, "losses_f32", "", i), off = fabs(loss / in_double - 1);
        worst_loss = fmax(worst_loss, off);
        if (!(off <= 1e-5) || !(fabs(loss / in_single - 1) <= 1e-5))
            fail_msg("%s: the loss of step %d is %.9g, PyTorch's %.9g in double precision, %.9g in single",
                     ftr_context_simd_name(context), (int)i, loss, in_double, in_single);
    }
    for (int32_t i = 0; i < ftr_variable_count(r.graph); i++) {
        double off = sketch_deviation(context, ftr_variable_at(r.graph, i), file);
        worst_weight = fmax(worst_weight, off);
        if (!(off <= 2e-4))
            fail_msg("%s: %s is off by %.1e after the run", ftr_context_simd_name(context),
                     ftr_name_of(ftr_variable_at(r.graph, i)), off);
    }
    print_message("    %s, %d threads: losses within %.1e, final weights within %.1e\n", ftr_context_simd_name(context),
                  (int)ftr_context_threads(context), worst_loss, worst_weight);
    stop(&r);
}

/* With each instruction set that the machine has; if the environment asks for one, that alone. */
static void losses_and_weights_follow_pytorch(void **state) {
    (void)state;
    static const char *const names[] = {"portable", "neon", "avx2", "avx512"};
    const char *environment = getenv("FASTTRAIN_SIMD");
    char only[32] = "";
    if (environment) snprintf(only, sizeof only, "%s", environment);
    text t = read_text();
    int done = 0;
    for (size_t i = 0; i < FTR_TEST_LENGTH(names); i++) {
        if (only[0] && strcmp(only, names[i]) != 0) continue;
        setenv("FASTTRAIN_SIMD", names[i], 1);
        ftr_context *context = NULL;
        ftr_context_desc desc = {.seed = 1, .threads = 2, .log_level = FTR_LOG_SILENT};
        ftr_status status = ftr_context_create(&desc, &context);
        if (only[0])
            setenv("FASTTRAIN_SIMD", only, 1);
        else
            unsetenv("FASTTRAIN_SIMD");
        if (status == FTR_ERROR_INVALID_ARGUMENT) continue; /* the machine lacks it */
        assert_int_equal(status, FTR_OK);
        ftr_safetensors *file = NULL;
        FTR_TEST_OK(context, ftr_safetensors_open(context, DATA "gpt_run.safetensors", &file));
        follow(context, &t, file);
        ftr_safetensors_close(file);
        ftr_context_destroy(context);
        done++;
    }
    assert_int_not_equal(done, 0);
}

static void threads_change_no_bit(void **state) {
    (void)state;
    text t = read_text();
    ftr_context *one = ftr_test_context_with(NULL, 1, 1, NULL), *three = ftr_test_context_with(NULL, 1, 3, NULL);
    run a = start(one, &t), b = start(three, &t);
    for (int64_t i = 0; i < 5; i++) {
        double loss_a = step(one, &a, &t, i), loss_b = step(three, &b, &t, i);
        assert_memory_equal(&loss_a, &loss_b, sizeof loss_a);
    }
    for (int32_t i = 0; i < ftr_variable_count(a.graph); i++) {
        int64_t count;
        float *data_a = read_variable(one, ftr_variable_at(a.graph, i), &count);
        float *data_b = read_variable(three, ftr_variable_at(b.graph, i), &count);
        assert_memory_equal(data_a, data_b, (size_t)count * sizeof *data_a);
        free(data_a);
        free(data_b);
    }
    stop(&a);
    stop(&b);
    ftr_context_destroy(one);
    ftr_context_destroy(three);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_and_weights_follow_pytorch),
        cmocka_unit_test(threads_change_no_bit),
    };
    return cmocka_run_group_tests_name("gpt", tests, NULL, NULL);
}
