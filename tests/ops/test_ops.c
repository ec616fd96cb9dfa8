/* Runs the table of op cases in its modes:
 *
 *   oracle [level]   values and gradients of the CPU backend in f32 against the oracle's in f64, for each instruction
 *                    set that the machine has, with and without the fuse pass
 *   half             the case in f16 and in bf16: each kernel against the oracle's in the same type, on the same inputs, and
 *                    the same bits with other numbers of threads
 *   bf16             products in bf16, with the CPU's instructions for them (FASTTRAIN_BF16=on) and without
 *   amp              the same of the case in f32 that is compiled for mixed precision
 *   gradient         the oracle's gradients against central differences in f64
 *   determinism      the same bits with 1, 2, 3 and 8 threads
 *   error            malformed ops: status and exact sentence (errors.c)
 *   coverage         every row of ops.def is in some case, every differentiable input in one of the gradient mode, and
 *                    every op has a malformed case (coverage.c says which cannot have one)
 *
 * The last line counts the cases of each mode. An argument keeps the tests whose name contains it; the environment's
 * FTR_TEST_OPS, modes with spaces between them, those of these modes. */
#include "case_tools.h"
#include "coverage.h"
#include "errors.h"
#include "oracle.h"
#include "shadow.h"
#include "tested.h"

/* The CPU computes in f32: an element may differ from the oracle's by this share of the largest element of its tensor,
 * or of FLOOR where all are smaller (results of cancellation). Integers and bools must be equal. */
static const double TOLERANCE = 1e-5;
/* The same where Winograd's form, which rounds more, is forced on convolutions of any size: optimizers that divide by the
 * gradient's own size show it. */
static const double WINOGRAD_TOLERANCE = 5e-5;
static const double FLOOR = 0.25;

/* Central differences in f64 with step DELTA: the error is about DELTA^2 plus 1e-16 / DELTA. */
static const double DIFFERENCE_TOLERANCE = 1e-6;
static const double DELTA = 1e-5;
enum { DIFFERENCES = 24 }; /* elements of a tensor that are tried */

/* ------------------------------------------------------------------------------------------------ running a case -- */

/* A tensor that a case computed. f32 and integers are exact as doubles, so that equal bits are equal doubles. */
typedef struct computed {
    char name[96];
    ftr_dtype dtype;
    int64_t count;
    double scale; /* of the terms that were added up, if that is known; otherwise 0 */
    double *values;
} computed;

typedef struct computed_list {
    computed items[64];
    int32_t count;
} computed_list;

typedef ftr_status (*reader)(ftr_plan *plan, ftr_tensor tensor, void *data, size_t bytes);

static ftr_status read_variable(ftr_plan *plan, ftr_tensor tensor, void *data, size_t bytes) {
    (void)plan;
    return ftr_variable_read(tensor, data, bytes);
}

static ftr_status read_into(ftr_plan *plan, reader read, ftr_tensor tensor, const char *what, computed *item) {
    ftr_shape shape = ftr_shape_of(tensor);
    item->dtype = ftr_dtype_of(tensor);
    item->count = ftr_shape_count(&shape);
    size_t bytes = (size_t)item->count * ftr_dtype_size(item->dtype);
    void *data = calloc(1, bytes + 1);
    ftr_status status = read(plan, tensor, data, bytes);
    item->values = calloc((size_t)item->count + 1, sizeof(double));
    op_to_double(item->dtype, data, item->count, item->values);
    free(data);
    snprintf(item->name, sizeof item->name, "%s %s", what, ftr_name_of(tensor));
    return status;
}

/* A tensor of the optimizer's state. */
static ftr_status read_state(ftr_plan *plan, int32_t index, computed *item) {
    ftr_plan_state state;
    ftr_status status = ftr_plan_state_at(plan, index, &state);
    void *data = calloc(1, state.bytes + 1);
    if (status == FTR_OK) {
        status = ftr_plan_state_read(plan, state.name, data, state.bytes);
    }
    item->dtype = state.dtype;
    item->count = ftr_shape_count(&state.shape);
    item->values = calloc((size_t)item->count + 1, sizeof(double));
    op_to_double(item->dtype, data, item->count, item->values);
    free(data);
    snprintf(item->name, sizeof item->name, "state %s", state.name);
    return status;
}

static void free_list(computed_list *list) {
    for (int32_t i = 0; i < list->count; i++) {
        free(list->items[i].values);
    }
    list->count = 0;
}

/* What a case's gradients are taken of: its inputs that want one, and all parameters. */
static int32_t collect_wanted(const op_build *b, ftr_tensor wanted[64]) {
    int32_t count = 0;
    for (int32_t i = 0; i < b->input_count && ftr_is_valid(b->loss); i++) {
        if (b->inputs[i].wanted) {
            wanted[count++] = b->inputs[i].tensor;
        }
    }
    for (int32_t i = 0; i < ftr_variable_count(b->graph) && ftr_is_valid(b->loss); i++) {
        if (ftr_is_parameter(ftr_variable_at(b->graph, i))) {
            wanted[count++] = ftr_variable_at(b->graph, i);
        }
    }
    return count;
}

static ftr_compile_desc compile_desc(const op_build *b, const ftr_tensor *wanted, int32_t count, bool no_fuse) {
    return (ftr_compile_desc){
        .mode = b->of->flags & OP_EVAL ? FTR_MODE_EVAL : FTR_MODE_TRAIN,
        .loss = b->loss,
        .outputs = b->outputs,
        .output_count = b->output_count,
        .gradients_of = wanted,
        .gradient_count = count,
        .optimizer = b->optimize ? &b->optimizer : NULL,
        .scaler = b->scaler.cookie ? &b->scaler : NULL,
        .accumulate = b->accumulate,
        .average = b->average.cookie ? &b->average : NULL,
        .no_fuse = no_fuse ? FTR_FUSE_ALL : 0,
    };
}

/* Sum of |output * weight|: what the loss was added up from. */
static double loss_scale(const op_build *b, const computed_list *list) {
    double scale = 0;
    int32_t weight = b->first_weight;
    for (int32_t i = 0; i < b->output_count; i++) {
        const computed *y = &list->items[i];
        for (int64_t k = 0; is_real(y->dtype) && k < y->count; k++) {
            scale += fabs(y->values[k] * b->inputs[weight].values[k]);
        }
        weight += is_real(y->dtype);
    }
    return scale;
}

static ftr_status collect(ftr_plan *plan, const op_build *b, const ftr_tensor *wanted, int32_t count,
                          computed_list *list) {
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < b->output_count && status == FTR_OK; i++) {
        status = read_into(plan, ftr_read, b->outputs[i], "output", &list->items[list->count++]);
    }
    if (ftr_is_valid(b->loss) && status == FTR_OK) {
        double scale = loss_scale(b, list);
        status = read_into(plan, ftr_read, b->loss, "loss", &list->items[list->count]);
        list->items[list->count++].scale = scale;
    }
    for (int32_t i = 0; i < count && status == FTR_OK; i++) {
        status = read_into(plan, ftr_read_gradient, wanted[i], "gradient of", &list->items[list->count++]);
    }
    for (int32_t i = 0; i < ftr_variable_count(b->graph) && status == FTR_OK; i++) {
        status = read_into(plan, read_variable, ftr_variable_at(b->graph, i), "variable", &list->items[list->count++]);
    }
    for (int32_t i = 0; i < ftr_plan_state_count(plan) && status == FTR_OK; i++) {
        status = read_state(plan, i, &list->items[list->count++]);
    }
    return status;
}

/* Feeds a case's own data. */
static void feed_all(ftr_context *context, ftr_plan *plan, const op_build *b) {
    for (int32_t i = 0; i < b->input_count; i++) {
        FTR_TEST_OK(context, op_feed(plan, b, i, b->inputs[i].values));
    }
}

static const uint64_t SEED = 20240229;

/* How a case is run. */
typedef struct run_settings {
    const ftr_backend *backend; /* NULL: the tested one */
    ftr_dtype real;
    ftr_amp amp;
    int32_t threads;
    bool no_fuse;
} run_settings;

/* Builds, compiles and runs a case; everything it computes goes into `list`. */
static void run_case(const op_case *of, run_settings how, computed_list *list) {
    ftr_test_memory memory = {0};
#ifdef FTR_TEST_DOUBLES
    ftr_double_reset();
    ftr_double_set(&(ftr_double_machine){1, 9, 0, (size_t)1 << 30, 13000, (uint64_t)how.threads});
#endif
    const ftr_backend *backend = how.backend ? how.backend : tested_backend();
    ftr_context *context = ftr_test_context_with(backend, SEED, how.threads, &memory);
    op_build b;
    op_build_case(of, context, how.real, &b);
    ftr_tensor wanted[64];
    int32_t count = collect_wanted(&b, wanted);
    ftr_compile_desc desc = compile_desc(&b, wanted, count, how.no_fuse);
    ftr_scaler_desc scaler = ftr_scaler_defaults();
    scaler.init_scale = 1; /* mixed precision: tolerances are for gradients of the size that cases have */
    desc.amp = how.amp;
    desc.scaler = desc.scaler ? desc.scaler : &scaler;
    ftr_plan *plan = NULL;
    FTR_TEST_OK(context, ftr_compile(b.graph, &desc, &plan));
    feed_all(context, plan, &b);
    for (int32_t step = 0; step < (of->flags & OP_STEPS ? 3 : 1); step++) {
        FTR_TEST_OK(context, ftr_step(plan, NULL));
    }
    if (b.swap_average) {
        FTR_TEST_OK(context, ftr_plan_swap_average(plan));
    }
    list->count = 0;
    FTR_TEST_OK(context, collect(plan, &b, wanted, count, list));
    ftr_plan_destroy(plan);
    op_build_free(&b);
    ftr_context_destroy(context);
    assert_int_equal(memory.live, 0);
    assert_int_equal(memory.wrong, 0);
#ifdef FTR_TEST_DOUBLES
    if (ftr_double_faults()) {
        fail_msg("%s", ftr_double_first_fault());
    }
    assert_int_equal(ftr_double_live(), 0);
#endif
}

/* -------------------------------------------------------------------------------------------------------- oracle -- */

/* Equal, or near enough. What overflows f32 is infinite there. */
static bool agree(double found, double expected, double scale) {
    if (isnan(expected) || isnan(found)) {
        return isnan(expected) && isnan(found);
    }
    if (isinf((float)expected) || isinf(found)) {
        return found == (double)(float)expected;
    }
    const char *winograd = getenv("FASTTRAIN_WINOGRAD");
    const double tolerance = winograd && strcmp(winograd, "on") == 0 ? WINOGRAD_TOLERANCE : TOLERANCE;
    return fabs(found - expected) <= tolerance * scale + 1.5e-45;
}

static double largest_of(const computed *item) {
    double largest = 0;
    for (int64_t k = 0; k < item->count; k++) {
        if (isfinite(item->values[k]) && fabs(item->values[k]) > largest) {
            largest = fabs(item->values[k]);
        }
    }
    return largest;
}

static void compare(const op_case *of, const char *what, const computed_list *found, const computed_list *expected) {
    assert_int_equal(found->count, expected->count);
    for (int32_t i = 0; i < found->count; i++) {
        const computed *f = &found->items[i], *e = &expected->items[i];
        assert_int_equal(f->count, e->count);
        bool real = is_real(e->dtype);
        double scale = fmax(fmax(largest_of(e), FLOOR), e->scale);
        for (int64_t k = 0; k < f->count; k++) {
            bool good = real ? agree(f->values[k], e->values[k], of->flags & OP_EACH ? fabs(e->values[k]) : scale)
                             : f->values[k] == e->values[k];
            if (!good) {
                fail_msg("%s, %s [%lld of %lld]: %.9g, expected %.9g (scale %.3g)", what, f->name, (long long)k,
                         (long long)f->count, f->values[k], e->values[k], scale);
            }
        }
    }
}

/* A test: a case in a mode. */
typedef struct op_test {
    const op_case *of;
    const char *level;        /* of the instruction set; NULL: whatever is there */
    computed_list *reference; /* the oracle's values, computed by the first test that needs them */
} op_test;

static void test_oracle(void **state) {
    const op_test *test = (const op_test *)*state;
    if (test->reference->count == 0) {
        run_case(test->of, (run_settings){ftr_test_oracle_backend(), FTR_F64, FTR_AMP_OFF, 1, true}, test->reference);
    }
    setenv("FASTTRAIN_SIMD", test->level, 1);
    for (int no_fuse = 0; no_fuse < 2; no_fuse++) {
        computed_list found = {.count = 0};
        run_case(test->of, (run_settings){NULL, FTR_F32, FTR_AMP_OFF, 2, no_fuse}, &found);
        compare(test->of, no_fuse ? "not fused" : "fused", &found, test->reference);
        free_list(&found);
    }
    unsetenv("FASTTRAIN_SIMD");
}

/* Every op that computes has a kernel. */
static void test_backend_is_complete(void **state) {
    (void)state;
    int missing = 0;
    for (int32_t op = FTR_OP_constant + 1; op < FTR_OP_COUNT; op++) {
        if (!tested_backend()->kernels[op].run) {
            print_error("the %s backend has no '%s'\n", tested_backend()->name, ftr_op_name((ftr_op)op));
            missing++;
        }
    }
    assert_int_equal(missing, 0);
}

static void test_level_missing(void **state) {
    (void)state;
    skip();
}

/* ------------------------------------------------------------------------------------------------------ gradient -- */

/* What evaluates the loss: a plan without gradients, or a new one each time if results depend on the plan's step. */
typedef struct evaluation {
    ftr_context *context;
    const op_build *b;
    ftr_plan *plan;
} evaluation;

static double loss_now(evaluation *e) {
    ftr_step_info info = {.loss = NAN};
    if (!e->plan || e->b->of->flags & OP_FRESH) {
        ftr_plan_destroy(e->plan);
        e->plan = NULL;
        ftr_compile_desc desc = compile_desc(e->b, NULL, 0, false);
        desc.outputs = NULL;
        desc.output_count = 0;
        FTR_TEST_OK(e->context, ftr_compile(e->b->graph, &desc, &e->plan));
        feed_all(e->context, e->plan, e->b);
    }
    FTR_TEST_OK(e->context, ftr_step(e->plan, &info));
    return info.loss;
}

/* Where the values of a tensor are kept: those of an input, or NULL for a parameter. */
static double *values_of(const op_build *b, ftr_tensor tensor, int32_t *input) {
    for (*input = 0; *input < b->input_count; ++*input) {
        if (b->inputs[*input].tensor.id == tensor.id) {
            return b->inputs[*input].values;
        }
    }
    return NULL;
}

/* The loss with one element of an input or parameter moved by `delta`. */
static double loss_moved(evaluation *e, ftr_tensor tensor, int64_t count, int64_t element, double delta) {
    int32_t input;
    double *values = values_of(e->b, tensor, &input), loss, kept;
    if (values) {
        kept = values[element];
        values[element] = kept + delta;
        FTR_TEST_OK(e->context, e->plan ? op_feed(e->plan, e->b, input, values) : FTR_OK);
        loss = loss_now(e);
        values[element] = kept;
        FTR_TEST_OK(e->context, op_feed(e->plan, e->b, input, values));
        return loss;
    }
    double *data = malloc((size_t)count * sizeof(double));
    size_t bytes = (size_t)count * sizeof(double);
    FTR_TEST_OK(e->context, ftr_variable_read(tensor, data, bytes));
    kept = data[element];
    data[element] = kept + delta;
    FTR_TEST_OK(e->context, ftr_variable_write(tensor, data, bytes));
    loss = loss_now(e);
    data[element] = kept;
    FTR_TEST_OK(e->context, ftr_variable_write(tensor, data, bytes));
    free(data);
    return loss;
}

static void check_gradient(evaluation *e, ftr_tensor tensor, const computed *gradient) {
    double scale = fmax(largest_of(gradient), 1.0);
    int64_t stride = gradient->count > DIFFERENCES ? (gradient->count + DIFFERENCES - 1) / DIFFERENCES : 1;
    for (int64_t k = 0; k < gradient->count; k += stride) {
        double above = loss_moved(e, tensor, gradient->count, k, DELTA);
        double below = loss_moved(e, tensor, gradient->count, k, -DELTA);
        double slope = (above - below) / (2 * DELTA);
        if (!(fabs(slope - gradient->values[k]) <= DIFFERENCE_TOLERANCE * scale)) {
            fail_msg("%s [%lld of %lld]: %.12g, central difference %.12g", gradient->name, (long long)k,
                     (long long)gradient->count, gradient->values[k], slope);
        }
    }
}

static void test_gradient(void **state) {
    const op_case *of = ((const op_test *)*state)->of;
    ftr_context *context = ftr_test_context_with(ftr_test_oracle_backend(), SEED, 1, NULL);
    op_build b;
    op_build_case(of, context, FTR_F64, &b);
    ftr_tensor wanted[64];
    int32_t count = collect_wanted(&b, wanted);
    ftr_compile_desc desc = compile_desc(&b, wanted, count, false);
    ftr_plan *plan = NULL;
    FTR_TEST_OK(context, ftr_compile(b.graph, &desc, &plan));
    feed_all(context, plan, &b);
    FTR_TEST_OK(context, ftr_step(plan, NULL));
    evaluation e = {.context = context, .b = &b};
    for (int32_t i = 0; i < count; i++) {
        computed gradient = {.count = 0};
        FTR_TEST_OK(context, read_into(plan, ftr_read_gradient, wanted[i], "gradient of", &gradient));
        check_gradient(&e, wanted[i], &gradient);
        free(gradient.values);
    }
    ftr_plan_destroy(e.plan);
    ftr_plan_destroy(plan);
    op_build_free(&b);
    ftr_context_destroy(context);
}

/* --------------------------------------------------------------------------------------------------- determinism -- */

static void compare_bits(const computed_list *list, const computed_list *first, int32_t threads) {
    assert_int_equal(list->count, first->count);
    for (int32_t i = 0; i < list->count; i++) {
        size_t bytes = (size_t)list->items[i].count * sizeof(double);
        if (memcmp(list->items[i].values, first->items[i].values, bytes) != 0) {
            fail_msg("%s differs between 1 and %d threads", list->items[i].name, (int)threads);
        }
    }
}

static void test_determinism(void **state) {
    const op_case *of = ((const op_test *)*state)->of;
    static const int32_t threads[] = {1, 2, 3, 8};
    computed_list first = {.count = 0};
    for (size_t t = 0; t < FTR_TEST_LENGTH(threads); t++) {
        computed_list list = {.count = 0};
        run_case(of, (run_settings){NULL, FTR_F32, FTR_AMP_OFF, threads[t], false}, &list);
        if (t > 0) {
            compare_bits(&list, &first, threads[t]);
        }
        if (t == 0) {
            first = list;
        } else {
            free_list(&list);
        }
    }
    free_list(&first);
}

/* ---------------------------------------------------------------------------------------------------------- half -- */

/* On the shadow backend, which compares each kernel with the oracle's; then with more threads. */
static void run_shadowed(const op_case *of, run_settings how) {
    computed_list first = {.count = 0}, list = {.count = 0};
    how.backend = op_shadow_backend(of->flags & OP_EACH);
    how.threads = 1;
    int64_t before = op_shadow_count();
    run_case(of, how, &first);
    /* what reads as a half type came out of a kernel with one; mixed precision folds casts to the type that is there */
    for (int32_t i = 0; i < first.count && how.amp == FTR_AMP_OFF; i++) {
        bool half = first.items[i].dtype == FTR_F16 || first.items[i].dtype == FTR_BF16;
        assert_true(!half || op_shadow_count() > before);
    }
    how.backend = NULL;
    how.threads = 3;
    run_case(of, how, &list);
    compare_bits(&list, &first, 3);
    free_list(&first);
    free_list(&list);
}

/* Fused in f16, not fused in bf16; large cases, which are there for how work is cut, in f16. */
static void test_half(void **state) {
    const op_case *of = ((const op_test *)*state)->of;
    run_shadowed(of, (run_settings){.real = FTR_F16});
    if (!(of->flags & OP_LARGE)) {
        run_shadowed(of, (run_settings){.real = FTR_BF16, .no_fuse = true});
    }
}

/* In f32 with casts by the ops' classes; large cases are in mode "half". */
static void test_amp(void **state) {
    const op_case *of = ((const op_test *)*state)->of;
    run_shadowed(of, (run_settings){.real = FTR_F32, .amp = FTR_AMP_FP16});
    run_shadowed(of, (run_settings){.real = FTR_F32, .amp = FTR_AMP_BF16, .no_fuse = true});
}

/* Ops with products, whose kernels have a form of their own for bf16 where the CPU multiplies it. */
static bool has_product(const op_case *of) {
    return strncmp(of->name, "matmul", 6) == 0 || strncmp(of->name, "linear", 6) == 0 ||
           strncmp(of->name, "conv2d", 6) == 0;
}

/* In bf16, by the CPU's own instructions even where they do not pay, and without; by them also where Winograd's form would pay
 * against f32, not against them. */
static void test_bf16(void **state) {
    const op_case *of = ((const op_test *)*state)->of;
    const char *winograd = getenv("FASTTRAIN_WINOGRAD");
    char before[16] = "";
    if (winograd) {
        snprintf(before, sizeof before, "%s", winograd);
    }
    setenv("FASTTRAIN_WINOGRAD", "off", 1);
    setenv("FASTTRAIN_BF16", "on", 1);
    run_shadowed(of, (run_settings){.real = FTR_BF16});
    setenv("FASTTRAIN_BF16", "off", 1);
    run_shadowed(of, (run_settings){.real = FTR_BF16});
    setenv("FASTTRAIN_BF16", "on", 1);
    setenv("FASTTRAIN_WINOGRAD", "auto", 1);
    run_shadowed(of, (run_settings){.real = FTR_BF16});
    unsetenv("FASTTRAIN_BF16");
    unsetenv("FASTTRAIN_WINOGRAD");
    if (winograd) {
        setenv("FASTTRAIN_WINOGRAD", before, 1);
    }
}

/* The words of the environment that choose algorithms. */
static void test_words(void **state) {
    (void)state;
    static const char *const variables[] = {"FASTTRAIN_BF16", "FASTTRAIN_WINOGRAD"};
    static const char *const words[] = {"", "auto", "on", "off", "yes", "of"};
    for (size_t v = 0; v < FTR_TEST_LENGTH(variables); v++) {
        char *old = getenv(variables[v]) ? strdup(getenv(variables[v])) : NULL;
        for (size_t w = 0; w < FTR_TEST_LENGTH(words); w++) {
            setenv(variables[v], words[w], 1);
            ftr_context *context = NULL;
            ftr_context_desc desc = {.threads = 1, .log_level = FTR_LOG_SILENT};
            const ftr_status status = ftr_context_create(&desc, &context);
            assert_int_equal(status, w < 4 ? FTR_OK : FTR_ERROR_INVALID_ARGUMENT);
            assert_true((context != NULL) == (status == FTR_OK));
            ftr_context_destroy(context);
        }
        unsetenv(variables[v]);
        if (old) {
            setenv(variables[v], old, 1);
        }
        free(old);
    }
}

/* ------------------------------------------------------------------------------------------------------ coverage -- */

static void collect_ops(void *user, const char *pass, const ftr_graph *graph) {
    (void)pass;
    op_add_ops(graph, (bool *)user);
}

static void test_coverage(void **state) {
    const op_test *tests = (const op_test *)*state;
    bool seen[FTR_OP_COUNT] = {false};
    ftr_context *context = ftr_test_context();
    for (int32_t i = 0; tests[i].of; i++) {
        op_build b;
        op_build_case(tests[i].of, context, FTR_F32, &b);
        ftr_tensor wanted[64];
        ftr_compile_desc desc = compile_desc(&b, wanted, collect_wanted(&b, wanted), false);
        desc.on_pass = collect_ops;
        desc.on_pass_user = seen;
        ftr_plan *plan = NULL;
        FTR_TEST_OK(context, ftr_compile(b.graph, &desc, &plan));
        ftr_plan_destroy(plan);
        op_build_free(&b);
    }
    ftr_context_destroy(context);
    int missing = 0;
    for (int32_t op = FTR_OP_NONE + 1; op < FTR_OP_COUNT; op++) {
        if (!seen[op]) {
            print_error("no case has the op '%s'\n", ftr_op_name((ftr_op)op));
            missing++;
        }
    }
    assert_int_equal(missing, 0);
}

/* Whether a case's gradients are compared with central differences. */
static bool has_differences(const op_case *of) { return !(of->flags & (OP_LARGE | OP_NO_DIFFERENCE | OP_NO_LOSS)); }

typedef struct gradients {
    const op_build *b;
    const ftr_tensor *wanted;
    int32_t count;
    uint32_t covered[FTR_OP_COUNT];
} gradients;

/* As lowered: without what the mode leaves out. */
static void collect_gradients(void *user, const char *pass, const ftr_graph *graph) {
    gradients *g = (gradients *)user;
    if (strcmp(pass, "lower") == 0) {
        op_add_gradients(graph, g->b->loss, g->wanted, g->count, g->covered);
    }
}

static void test_gradient_coverage(void **state) {
    const op_test *tests = (const op_test *)*state;
    gradients g = {.b = NULL};
    ftr_context *context = ftr_test_context_with(ftr_test_oracle_backend(), SEED, 1, NULL);
    for (int32_t i = 0; tests[i].of; i++) {
        op_build b;
        op_build_case(tests[i].of, context, FTR_F64, &b);
        if (has_differences(tests[i].of) && ftr_is_valid(b.loss)) {
            ftr_tensor wanted[64];
            g.b = &b;
            g.wanted = wanted;
            g.count = collect_wanted(&b, wanted);
            ftr_compile_desc desc = compile_desc(&b, wanted, g.count, true);
            desc.on_pass = collect_gradients;
            desc.on_pass_user = &g;
            ftr_plan *plan = NULL;
            FTR_TEST_OK(context, ftr_compile(b.graph, &desc, &plan));
            ftr_plan_destroy(plan);
        }
        op_build_free(&b);
    }
    ftr_context_destroy(context);
    int missing = 0;
    for (int32_t op = FTR_OP_NONE + 1; op < FTR_OP_COUNT; op++) {
        uint32_t left = op_differentiable_inputs(op) & ~g.covered[op];
        for (int32_t i = 0; left >> i; i++) {
            if (left >> i & 1) {
                print_error("no case compares the gradient of input %d of '%s' with differences\n", (int)i,
                            ftr_op_name((ftr_op)op));
                missing++;
            }
        }
        if (op_facts_of(op)->has_gradient && op_differentiable_inputs(op) == 0) {
            print_error("'%s' has a gradient, and no input that it is of\n", ftr_op_name((ftr_op)op));
            missing++;
        }
    }
    assert_int_equal(missing, 0);
}

static void test_error_coverage(void **state) {
    (void)state;
    int missing = 0;
    for (int32_t op = FTR_OP_NONE + 1; op < FTR_OP_COUNT; op++) {
        const char *name = ftr_op_name((ftr_op)op), *why = op_cannot_be_malformed(op);
        if (!op_error_names(name) && !why) {
            print_error("no malformed case names the op '%s'\n", name);
            missing++;
        }
        if (op_error_names(name) && why) {
            print_error("a malformed case names the op '%s', which %s\n", name, why);
            missing++;
        }
    }
    assert_int_equal(missing, 0);
}

/* The oracle has every op that computes. */
static void test_oracle_is_complete(void **state) {
    (void)state;
    for (int32_t op = FTR_OP_constant + 1; op < FTR_OP_COUNT; op++) {
        if (!ftr_test_oracle_backend()->kernels[op].run) {
            fail_msg("the oracle has no '%s'", ftr_op_name((ftr_op)op));
        }
    }
}

/* Known answers of Random123, the generator's reference implementation (kat_vectors: philox4x32, 10 rounds). */
static void test_philox_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } answers[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(answers); i++) {
        uint32_t out[4];
        ftr_test_philox(answers[i].counter, answers[i].key, out);
        assert_memory_equal(out, answers[i].out, sizeof out);
    }
}

/* ---------------------------------------------------------------------------------------------------------- main -- */

typedef struct suite {
    struct CMUnitTest *tests;
    size_t count, capacity;
} suite;

static void add_test(suite *s, const char *mode, const char *name, CMUnitTestFunction function, const void *state) {
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 1024;
        s->tests = realloc(s->tests, s->capacity * sizeof *s->tests);
    }
    char *full = malloc(strlen(mode) + strlen(name) + 2);
    sprintf(full, "%s %s", mode, name);
    s->tests[s->count++] =
        (struct CMUnitTest){.name = full, .test_func = function, .initial_state = (void *)(uintptr_t)state};
}

/* A GPU has one level; large cases are there for how the CPU cuts work. */
#ifdef FTR_TEST_CUDA
static const char *const levels[] = {"cuda"};

static bool has_level(const char *level) {
    (void)level;
    return true;
}

static bool is_tested(const op_case *of) { return !(of->flags & OP_LARGE); }
#else
static const char *const levels[] = {"portable", "avx2", "avx512", "neon"};

static bool is_tested(const op_case *of) {
    (void)of;
    return true;
}

static bool has_level(const char *level) {
    setenv("FASTTRAIN_SIMD", level, 1);
    ftr_context *context = NULL;
    ftr_context_desc desc = {.threads = 1, .log_level = FTR_LOG_SILENT};
    bool has = ftr_context_create(&desc, &context) == FTR_OK;
    ftr_context_destroy(context);
    unsetenv("FASTTRAIN_SIMD");
    return has;
}
#endif

/* Whether a name begins with one of the words of a list; NULL has all. */
static bool begins_with_any(const char *name, const char *words) {
    while (words && *words) {
        size_t length = strcspn(words, " ");
        if (length && strncmp(name, words, length) == 0 && name[length] == ' ') {
            return true;
        }
        words += length + strspn(words + length, " ");
    }
    return !words;
}

/* Keeps the tests whose name contains `part` and which are of one of the modes; NULL keeps all. */
static void filter(suite *s, const char *part, const char *modes) {
    size_t kept = 0;
    for (size_t i = 0; i < s->count; i++) {
        if ((!part || strstr(s->tests[i].name, part)) && begins_with_any(s->tests[i].name, modes)) {
            s->tests[kept++] = s->tests[i];
        } else {
            free((void *)(uintptr_t)s->tests[i].name);
        }
    }
    s->count = kept;
}

static int64_t count_tests(const suite *s, const char *mode) {
    int64_t count = 0;
    for (size_t i = 0; i < s->count; i++) {
        count += s->tests[i].initial_state && strncmp(s->tests[i].name, mode, strlen(mode)) == 0;
    }
    return count;
}

/* One line, which tests/run shows. */
static void print_counts(const suite *s) {
    static const char *const modes[] = {"gradient", "determinism", "half", "bf16", "amp", "error"};
    static const char *const names[] = {"gradient", "determinism", "half", "bf16", "amp", "malformed"};
    const char *before = "oracle ";
    printf("\nop cases: ");
    for (size_t l = 0; l < FTR_TEST_LENGTH(levels); l++) {
        char mode[32];
        snprintf(mode, sizeof mode, "oracle [%s]", levels[l]);
        int64_t count = count_tests(s, mode);
        if (count > 0) {
            printf("%s%s %lld, ", before, levels[l], (long long)count);
            before = "";
        }
    }
    for (size_t m = 0; m < FTR_TEST_LENGTH(modes); m++) {
        printf("%s%s %lld", m ? ", " : "", names[m], (long long)count_tests(s, modes[m]));
    }
    printf("\n");
}

int main(int argc, char **argv) {
    int32_t case_count;
    op_case *cases = op_cases(&case_count);
    op_test *tests = calloc((size_t)case_count * (1 + FTR_TEST_LENGTH(levels)) + 1, sizeof *tests), *next = tests;
    computed_list *references = calloc((size_t)case_count, sizeof *references);
    suite s = {0};
    for (int32_t i = 0; i < case_count; i++) {
        *next++ = (op_test){.of = &cases[i]};
    }
    next++; /* a case of NULL ends the list for the coverage test */
    add_test(&s, "oracle", "is complete", test_oracle_is_complete, NULL);
    add_test(&s, "backend", "is complete", test_backend_is_complete, NULL);
    add_test(&s, "oracle", "philox known answers", test_philox_answers, NULL);
    add_test(&s, "words", "of the environment", test_words, NULL);
    add_test(&s, "coverage", "every op of ops.def", test_coverage, tests);
    add_test(&s, "coverage", "every gradient of ops.def", test_gradient_coverage, tests);
    add_test(&s, "coverage", "malformed cases of ops.def", test_error_coverage, NULL);
    for (size_t l = 0; l < FTR_TEST_LENGTH(levels); l++) {
        char mode[32];
        snprintf(mode, sizeof mode, "oracle [%s]", levels[l]);
        if (!has_level(levels[l])) {
            add_test(&s, mode, "is not on this machine", test_level_missing, NULL);
            continue;
        }
        for (int32_t i = 0; i < case_count; i++) {
            if (!is_tested(&cases[i])) {
                continue;
            }
            *next = (op_test){&cases[i], levels[l], &references[i]};
            add_test(&s, mode, cases[i].name, test_oracle, next++);
        }
    }
    for (int32_t i = 0; i < case_count; i++) {
        if (has_differences(&cases[i])) {
            add_test(&s, "gradient", cases[i].name, test_gradient, &tests[i]);
        }
    }
    for (int32_t i = 0; i < case_count; i++) {
        if (!is_tested(&cases[i])) {
            continue;
        }
        add_test(&s, "determinism", cases[i].name, test_determinism, &tests[i]);
    }
    for (int32_t i = 0; i < case_count; i++) {
        if (!is_tested(&cases[i])) {
            continue;
        }
        add_test(&s, "half", cases[i].name, test_half, &tests[i]);
        if (has_product(&cases[i])) {
            add_test(&s, "bf16", cases[i].name, test_bf16, &tests[i]);
        }
        if (!(cases[i].flags & OP_LARGE)) {
            add_test(&s, "amp", cases[i].name, test_amp, &tests[i]);
        }
    }
    for (int32_t i = 0; i < op_error_count(); i++) {
        add_test(&s, "error", op_error_name(i), op_error_test, op_error_state(i));
    }
    filter(&s, argc > 1 ? argv[1] : NULL, getenv("FTR_TEST_OPS"));
    if (s.count == 0) {
        fprintf(stderr, "no test is called so\n");
        return EXIT_FAILURE;
    }
    int failed = _cmocka_run_group_tests("ops", s.tests, s.count, NULL, NULL);
    print_counts(&s);
    for (size_t i = 0; i < s.count; i++) {
        free((void *)(uintptr_t)s.tests[i].name);
    }
    for (int32_t i = 0; i < case_count; i++) {
        free_list(&references[i]);
    }
    free(references);
    free(tests);
    free(s.tests);
    free(cases);
    return failed;
}
