/* What stands around an optimizer's step: gradients of several micro-batches added up, and averages of the weights, against
 * PyTorch's (make_goldens.py) and, for each optimizer, against one large batch. */
#include "ftr_test.h"
#include "oracle.h"

#include <unistd.h>

#define STEPS_FILE FTR_TEST_DATA "/optim/data/steps.safetensors"

enum { BATCH = 6, IN = 5, HIDDEN = 8, OUT = 3, MOST = 64 };

/* A value may differ from PyTorch's, computed in double precision, by this share of the largest element of its tensor, or of
 * FLOOR where all are smaller. */
static const double TOLERANCE = 3e-6, FLOOR = 0.25;

/* ------------------------------------------------------------------------------------------------------- network -- */

/* Two layers, with or without a batch norm. The loss is the mean square error times w, of which each sample has the same. */
typedef struct network {
    ftr_context *context;
    ftr_graph *graph;
    ftr_tensor x, t, w, y, loss;
    ftr_dtype dtype;
} network;

static network network_on(ftr_context *context, ftr_dtype dtype, int64_t batch, bool norm) {
    network n = {.context = context, .graph = ftr_graph_create(context), .dtype = dtype};
    n.x = ftr_input(n.graph, "x", dtype, FTR_SHAPE(batch, IN));
    n.t = ftr_input(n.graph, "t", dtype, FTR_SHAPE(batch, OUT));
    n.w = ftr_input(n.graph, "w", dtype, FTR_SHAPE(batch));
    ftr_tensor h = ftr_linear(n.x, "fc1", HIDDEN, &(ftr_linear_desc){.no_bias = norm});
    n.y = ftr_linear(ftr_tanh(norm ? ftr_batch_norm(h, "bn", NULL) : h), "fc2", OUT, NULL);
    ftr_tensor factor = ftr_mean(n.w, ftr_all_axes(), false);
    n.loss = ftr_mul(ftr_mse(n.y, n.t, FTR_REDUCE_MEAN), factor);
    FTR_TEST_GRAPH_OK(n.graph);
    return n;
}

static network make_network(bool norm) { return network_on(ftr_test_context(), FTR_F32, BATCH, norm); }

static void free_network(network *n) {
    ftr_graph_destroy(n->graph);
    ftr_context_destroy(n->context);
}

static void feed_one(const network *n, ftr_plan *plan, ftr_tensor input, const float *data, int64_t count) {
    double wide[512];
    assert_true(count <= 512);
    for (int64_t i = 0; i < count; i++) {
        wide[i] = data[i];
    }
    bool is_double = n->dtype == FTR_F64;
    FTR_TEST_OK(n->context, ftr_feed(plan, input, is_double ? (const void *)wide : data,
                                     (size_t)count * (is_double ? sizeof *wide : sizeof *data)));
}

static void feed(const network *n, ftr_plan *plan, int64_t batch, const float *x, const float *t, float w) {
    float factor[128];
    for (int64_t i = 0; i < batch; i++) {
        factor[i] = w;
    }
    feed_one(n, plan, n->x, x, batch * IN);
    feed_one(n, plan, n->t, t, batch * OUT);
    feed_one(n, plan, n->w, factor, batch);
}

/* A variable's elements in double. */
static int64_t read_variable(const network *n, ftr_tensor variable, double *values) {
    ftr_shape shape = ftr_shape_of(variable);
    int64_t count = ftr_shape_count(&shape);
    float narrow[MOST];
    assert_true(count <= MOST);
    bool is_double = ftr_dtype_of(variable) == FTR_F64;
    size_t bytes = (size_t)count * (is_double ? sizeof *values : sizeof *narrow);
    FTR_TEST_OK(n->context, ftr_variable_read(variable, is_double ? (void *)values : narrow, bytes));
    for (int64_t i = 0; i < count && !is_double; i++) {
        values[i] = narrow[i];
    }
    return count;
}

/* The drawn batch of a step. */
static void draw(uint64_t step, int64_t batch, float *x, float *t) {
    ftr_test_rng rng = {step * 31 + 5};
    ftr_test_fill_f32(x, batch * IN, &rng, -2, 2);
    ftr_test_fill_f32(t, batch * OUT, &rng, -2, 2);
}

static ftr_status take_step(const network *n, ftr_plan *plan, uint64_t step, float w, ftr_step_info *info) {
    float x[BATCH * IN], t[BATCH * OUT];
    draw(step, BATCH, x, t);
    feed(n, plan, BATCH, x, t, w);
    return ftr_step(plan, info);
}

/* All variables, one after another. Returns how many elements. */
static int64_t read_all(const network *n, double *values) {
    int64_t count = 0;
    for (int32_t i = 0; i < ftr_variable_count(n->graph); i++) {
        count += read_variable(n, ftr_variable_at(n->graph, i), values + count);
    }
    return count;
}

/* ------------------------------------------------------------------------------------------------------- goldens -- */

enum { ADAMW, ACCUMULATE, CLIP_NORM, CLIP_VALUE, SCALED, NORM, KIND, DECAY, WARMUP, COPY_BUFFERS, START, EVERY };

typedef struct goldens {
    ftr_context *context;
    ftr_safetensors *file;
    char run[16];
} goldens;

static bool has(const goldens *g, const char *name, const char *of, ftr_safetensors_entry *entry) {
    char full[96];
    snprintf(full, sizeof full, "%s/%s%s", g->run, name, of);
    return ftr_safetensors_find(g->file, full, entry);
}

static double at(const goldens *g, const char *name, const char *of, int64_t i) {
    ftr_safetensors_entry entry;
    if (!has(g, name, of, &entry)) {
        fail_msg("no %s/%s%s", g->run, name, of);
    }
    size_t size = ftr_dtype_size(entry.dtype);
    assert_true((size_t)(i + 1) * size <= entry.bytes);
    double aligned, result;
    memcpy(&aligned, (const char *)entry.data + (size_t)i * size, size);
    assert_true(ftr_convert(entry.dtype, &aligned, FTR_F64, &result, 1));
    return result;
}

static void compare(const goldens *g, const char *name, const char *of, int64_t row, const double *found,
                    int64_t count) {
    double scale = FLOOR;
    for (int64_t i = 0; i < count; i++) {
        scale = fmax(scale, fabs(at(g, name, of, row * count + i)));
    }
    for (int64_t i = 0; i < count; i++) {
        double expected = at(g, name, of, row * count + i);
        if (!(fabs(found[i] - expected) <= TOLERANCE * scale)) {
            fail_msg("%s step %d: %s%s[%d] is %.9g, PyTorch has %.9g", g->run, (int)row, name, of, (int)i, found[i],
                     expected);
        }
    }
}

static void start_at(const goldens *g, const network *n) {
    for (int32_t i = 0; i < ftr_variable_count(n->graph); i++) {
        ftr_tensor variable = ftr_variable_at(n->graph, i);
        ftr_shape shape = ftr_shape_of(variable);
        float values[MOST];
        for (int64_t k = 0; k < ftr_shape_count(&shape); k++) {
            values[k] = (float)at(g, "value/", ftr_name_of(variable), k);
        }
        FTR_TEST_OK(n->context, ftr_variable_write(variable, values, (size_t)ftr_shape_count(&shape) * sizeof *values));
    }
}

static ftr_optimizer golden_optimizer(const goldens *g) {
    ftr_optimizer o = at(g, "config", "", ADAMW) != 0 ? ftr_adamw(0.02) : ftr_sgd(0.125);
    if (o.kind == FTR_OPTIMIZER_ADAMW) {
        o.weight_decay = 0.125;
    } else {
        o.momentum = 0.875;
    }
    o.clip_norm = at(g, "config", "", CLIP_NORM);
    o.clip_value = at(g, "config", "", CLIP_VALUE);
    return o;
}

static ftr_average_desc golden_average(const goldens *g) {
    ftr_average_desc a = ftr_average_defaults();
    a.kind = (ftr_average_kind)at(g, "config", "", KIND);
    a.decay = at(g, "config", "", DECAY);
    a.warmup = at(g, "config", "", WARMUP) != 0;
    a.copy_buffers = at(g, "config", "", COPY_BUFFERS) != 0;
    a.start = (int64_t)at(g, "config", "", START);
    a.every = (int64_t)at(g, "config", "", EVERY);
    return a;
}

static void compare_info(const goldens *g, int64_t i, const ftr_step_info *info) {
    double norm = at(g, "norm", "", i);
    const bool measured = at(g, "config", "", SCALED) != 0 || at(g, "config", "", CLIP_NORM) != 0;
    const int64_t group = (int64_t)at(g, "config", "", ACCUMULATE),
                  before = i > 0 ? (int64_t)at(g, "applied", "", i - 1) : 0;
    const bool ends = (i + 1) % group == 0, updated = (int64_t)at(g, "applied", "", i) > before;
    assert_int_equal(info->step, i + 1);
    assert_int_equal(info->applied_steps, (int64_t)at(g, "applied", "", i));
    assert_true(info->loss_scale == at(g, "scale", "", i));
    assert_int_equal(info->updated, updated);
    assert_int_equal(info->skipped, ends && !updated);
    assert_true(!info->skipped || info->overflow);
    if (!measured || !ends) {
        assert_true(isnan(info->grad_norm));
    } else if (isfinite(norm)) {
        assert_true(fabs(info->grad_norm - norm) <= 1e-6 * norm);
    } else {
        assert_false(isfinite(info->grad_norm));
    }
}

/* The averages by the names of the plan's states. */
static void compare_averages(const goldens *g, const network *n, ftr_plan *plan, int64_t i) {
    int64_t taken = (int64_t)at(g, "taken", "", i), state = -1;
    FTR_TEST_OK(n->context, ftr_plan_state_read(plan, "average.count", &state, sizeof state));
    assert_int_equal(state, taken);
    assert_int_equal(ftr_plan_average_count(plan), taken);
    for (int32_t v = 0; v < ftr_variable_count(n->graph); v++) {
        const char *name = ftr_name_of(ftr_variable_at(n->graph, v));
        ftr_shape shape = ftr_shape_of(ftr_variable_at(n->graph, v));
        int64_t count = ftr_shape_count(&shape);
        char full[64];
        float values[MOST];
        double wide[MOST];
        snprintf(full, sizeof full, "%s.average", name);
        FTR_TEST_OK(n->context, ftr_plan_state_read(plan, full, values, (size_t)count * sizeof *values));
        for (int64_t k = 0; k < count; k++) {
            wide[k] = values[k];
        }
        compare(g, "average/", name, i, wide, count);
    }
}

/* PyTorch's update_bn() of the averaged model. */
static void compare_update_bn(const goldens *g, network *n, int64_t steps) {
    enum { SAMPLES = 24 * BATCH };
    static float x[SAMPLES][IN], t[SAMPLES][OUT], w[SAMPLES];
    for (int64_t i = 0; i < steps * BATCH; i++) {
        for (int k = 0; k < IN; k++) {
            x[i][k] = (float)at(g, "x", "", i * IN + k);
        }
        w[i] = 1;
    }
    const ftr_field fields[] = {
        {"x", FTR_F32, FTR_SHAPE(IN)}, {"t", FTR_F32, FTR_SHAPE(OUT)}, {"w", FTR_F32, ftr_scalar_shape()}};
    ftr_train_desc desc = ftr_train_defaults();
    desc.loss = n->loss;
    FTR_TEST_OK(n->context,
                ftr_memory_source(n->context, "x", steps * BATCH, fields, (const void *[]){x, t, w}, 3, &desc.train));
    for (int again = 0; again < 2; again++) { /* whatever was there before */
        FTR_TEST_OK(n->context, ftr_update_batch_norm(n->graph, &desc));
        for (int32_t v = 0; v < ftr_variable_count(n->graph); v++) {
            ftr_tensor variable = ftr_variable_at(n->graph, v);
            double found[MOST];
            if (!ftr_is_parameter(variable)) {
                compare(g, "bn/", ftr_name_of(variable), 0, found, read_variable(n, variable, found));
            }
        }
    }
    ftr_source_destroy(desc.train);
}

static void run_golden(const goldens *g) {
    network n = make_network(at(g, "config", "", NORM) != 0);
    start_at(g, &n);
    ftr_optimizer optimizer = golden_optimizer(g);
    ftr_average_desc average = golden_average(g);
    ftr_scaler_desc scaler = ftr_scaler_defaults();
    scaler.scaling = at(g, "config", "", SCALED) != 0 ? FTR_SCALING_DYNAMIC : FTR_SCALING_OFF;
    scaler.init_scale = 256;
    scaler.growth_interval = 2;
    ftr_compile_desc desc = {.loss = n.loss, .optimizer = &optimizer, .scaler = &scaler, .average = &average};
    desc.accumulate = (int64_t)at(g, "config", "", ACCUMULATE);
    ftr_plan *plan = NULL;
    FTR_TEST_OK(n.context, ftr_compile(n.graph, &desc, &plan));
    ftr_safetensors_entry entry;
    assert_true(has(g, "w", "", &entry));
    for (int64_t i = 0; i < entry.dim[0]; i++) {
        float x[BATCH * IN], t[BATCH * OUT];
        ftr_step_info info;
        for (int k = 0; k < BATCH * IN; k++) {
            x[k] = (float)at(g, "x", "", i * BATCH * IN + k);
        }
        for (int k = 0; k < BATCH * OUT; k++) {
            t[k] = (float)at(g, "t", "", i * BATCH * OUT + k);
        }
        feed(&n, plan, BATCH, x, t, (float)at(g, "w", "", i));
        FTR_TEST_OK(n.context, ftr_step(plan, &info));
        compare_info(g, i, &info);
        for (int32_t v = 0; v < ftr_variable_count(n.graph); v++) {
            ftr_tensor variable = ftr_variable_at(n.graph, v);
            double found[MOST];
            compare(g, "value/", ftr_name_of(variable), i + 1, found, read_variable(&n, variable, found));
        }
        if (average.kind) {
            compare_averages(g, &n, plan, i);
        }
    }
    if (average.kind && at(g, "config", "", NORM) != 0) {
        FTR_TEST_OK(n.context, ftr_plan_swap_average(plan));
        compare_update_bn(g, &n, entry.dim[0]);
    }
    ftr_plan_destroy(plan);
    free_network(&n);
}

static void steps_are_pytorchs(void **state) {
    (void)state;
    goldens g = {.context = ftr_test_context()};
    FTR_TEST_OK(g.context, ftr_safetensors_open(g.context, STEPS_FILE, &g.file));
    ftr_safetensors_entry entry;
    int runs = 0;
    for (;; runs++) {
        snprintf(g.run, sizeof g.run, "run%d", runs);
        if (!has(&g, "config", "", &entry)) {
            break;
        }
        run_golden(&g);
    }
    assert_int_equal(runs, 14);
    ftr_safetensors_close(g.file);
    ftr_context_destroy(g.context);
}

/* -------------------------------------------------------------------------------------------------- a large batch -- */

static ftr_optimizer optimizer_at(int index) {
    ftr_optimizer all[] = {ftr_sgd(0.1),   ftr_adamw(0.02), ftr_adam(0.02), ftr_rmsprop(0.01),   ftr_adagrad(0.1),
                           ftr_lamb(0.02), ftr_lars(1.0),   ftr_lion(0.01), ftr_adafactor(0.05), ftr_muon(0.02)};
    all[0].momentum = 0.9;
    all[3].centered = true;
    return all[index];
}

/* The variables after some updates, each by `micro` batches of BATCH samples or by one batch of all of them. */
static int64_t train_on(ftr_context *context, ftr_dtype dtype, const ftr_optimizer *optimizer, ftr_scaling scaling,
                        int64_t group, bool whole, double *values) {
    enum { UPDATES = 4, MOST_GROUP = 5 };
    static float x[MOST_GROUP * BATCH * IN], t[MOST_GROUP * BATCH * OUT];
    const int64_t batch = whole ? group * BATCH : BATCH;
    network n = network_on(context, dtype, batch, false);
    ftr_scaler_desc scaler = ftr_scaler_defaults();
    scaler.scaling = scaling;
    scaler.init_scale = 1024;
    ftr_compile_desc desc = {.loss = n.loss, .optimizer = optimizer, .scaler = &scaler};
    desc.accumulate = whole ? 0 : group;
    ftr_plan *plan = NULL;
    FTR_TEST_OK(context, ftr_compile(n.graph, &desc, &plan));
    for (uint64_t update = 0; update < UPDATES; update++) {
        draw(update, group * BATCH, x, t);
        for (int64_t i = 0; i < (whole ? 1 : group); i++) {
            feed(&n, plan, batch, x + i * BATCH * IN, t + i * BATCH * OUT, 1);
            FTR_TEST_OK(context, ftr_step(plan, NULL));
        }
    }
    assert_int_equal(ftr_plan_applied_steps(plan), UPDATES);
    int64_t count = read_all(&n, values);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(n.graph);
    return count;
}

static void compare_to_large(const ftr_optimizer *optimizer, const char *what) {
    const struct {
        const ftr_backend *backend;
        ftr_dtype dtype;
        double tolerance;
    } places[] = {{NULL, FTR_F32, 1e-5}, {ftr_test_oracle_backend(), FTR_F64, 1e-7}}; /* 1/3 and the limit are f32 */
    for (size_t p = 0; p < FTR_TEST_LENGTH(places); p++) {
        ftr_context *context = ftr_test_context_with(places[p].backend, 1, 2, NULL);
        for (int64_t group = 2; group < 6; group++) {
            for (int scaled = 0; scaled < 2; scaled++) {
                double one[4 * MOST], sums[4 * MOST];
                ftr_scaling scaling = scaled ? FTR_SCALING_FIXED : FTR_SCALING_OFF;
                int64_t count = train_on(context, places[p].dtype, optimizer, scaling, group, true, one);
                train_on(context, places[p].dtype, optimizer, scaling, group, false, sums);
                for (int64_t i = 0; i < count; i++) {
                    if (!(fabs(sums[i] - one[i]) <= places[p].tolerance * fmax(1, fabs(one[i])))) {
                        fail_msg("%s optimizer %d, group of %d, %s: element %d is %.9g, with one batch %.9g", what,
                                 (int)optimizer->kind, (int)group, ftr_dtype_name(places[p].dtype), (int)i, sums[i],
                                 one[i]);
                    }
                }
            }
        }
        ftr_context_destroy(context);
    }
}

static void groups_are_large_batches(void **state) {
    (void)state;
    ftr_param_group slow = ftr_param_group_defaults();
    slow.pattern = "fc2.*";
    slow.lr_scale = 0.25;
    slow.weight_decay = 0.25;
    for (int i = 0; i < 10; i++) {
        ftr_optimizer plain = optimizer_at(i), clipped = plain, grouped = plain;
        clipped.clip_norm = 0.5;
        clipped.max_grad_norm = 0; /* LAMB's own limit */
        clipped.clip_value = 0.0625;
        grouped.groups = &slow;
        grouped.group_count = 1;
        compare_to_large(&plain, "plain");
        compare_to_large(&clipped, "clipped");
        compare_to_large(&grouped, "grouped");
    }
}

/* -------------------------------------------------------------------------------------------------- accumulation -- */

static void gradient_of(const network *n, ftr_plan *plan, const char *name, double values[MOST], int64_t count) {
    float narrow[MOST];
    ftr_tensor variable = strcmp(name, "x") == 0 ? n->x : ftr_variable_find(n->graph, name);
    FTR_TEST_OK(n->context, ftr_read_gradient(plan, variable, narrow, (size_t)count * sizeof *narrow));
    for (int64_t i = 0; i < count; i++) {
        values[i] = narrow[i];
    }
}

/* In the midst of a group: what has come together so far, as part of the mean; of an input, that of the micro-batch. */
static void gradients_can_be_read(void **state) {
    (void)state;
    for (int scaled = 0; scaled < 2; scaled++) {
        network n = make_network(false), alone = make_network(false);
        ftr_optimizer still = ftr_sgd(0);
        ftr_scaler_desc scaler = ftr_scaler_defaults();
        scaler.scaling = scaled ? FTR_SCALING_DYNAMIC : FTR_SCALING_OFF;
        const ftr_tensor of[] = {n.x, ftr_variable_find(alone.graph, "fc2.weight"), alone.x};
        ftr_compile_desc desc = {.loss = n.loss, .optimizer = &still, .scaler = &scaler, .accumulate = 3};
        desc.gradients_of = of;
        desc.gradient_count = 1;
        ftr_plan *plan = NULL, *single = NULL;
        FTR_TEST_OK(n.context, ftr_compile(n.graph, &desc, &plan));
        ftr_compile_desc plain = {.loss = alone.loss, .gradients_of = of + 1, .gradient_count = 2};
        FTR_TEST_OK(alone.context, ftr_compile(alone.graph, &plain, &single));
        double sum[OUT * HIDDEN] = {0}, one[MOST], found[MOST];
        for (uint64_t step = 0; step < 7; step++) {
            FTR_TEST_OK(n.context, take_step(&n, plan, step, 1, NULL));
            FTR_TEST_OK(alone.context, take_step(&alone, single, step, 1, NULL));
            gradient_of(&alone, single, "fc2.weight", one, OUT * HIDDEN);
            gradient_of(&n, plan, "fc2.weight", found, OUT * HIDDEN);
            for (int i = 0; i < OUT * HIDDEN; i++) {
                sum[i] = (step % 3 == 0 ? 0 : sum[i]) + one[i] / 3;
                assert_true(fabs(found[i] - sum[i]) < 1e-6);
            }
            gradient_of(&alone, single, "x", one, BATCH * IN);
            gradient_of(&n, plan, "x", found, BATCH * IN);
            for (int i = 0; i < BATCH * IN; i++) {
                assert_true(fabs(found[i] - one[i]) < 1e-6);
            }
        }
        ftr_plan_destroy(plan);
        ftr_plan_destroy(single);
        free_network(&n);
        free_network(&alone);
    }
}

/* Gradients are gone once they are added up: the plan keeps the sums, and less besides than all gradients. */
static void gradients_take_little_memory(void **state) {
    (void)state;
    enum { LAYERS = 12, WIDTH = 64, ONE = WIDTH * WIDTH * 4 };
    ftr_context *context = ftr_test_context();
    ftr_memory memory[3];
    for (int how = 0; how < 3; how++) { /* plain, accumulated, and while infinities are looked for */
        ftr_graph *graph = ftr_graph_create(context);
        ftr_tensor h = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(2, WIDTH));
        for (int i = 0; i < LAYERS; i++) {
            char name[16];
            snprintf(name, sizeof name, "fc%d", i);
            h = ftr_tanh(ftr_linear(h, name, WIDTH, &(ftr_linear_desc){.no_bias = true}));
        }
        ftr_optimizer sgd = ftr_sgd(0.1);
        ftr_compile_desc desc = {.loss = ftr_sum(h, ftr_all_axes(), false), .optimizer = &sgd};
        desc.accumulate = how ? 4 : 0;
        desc.debug_nonfinite = how == 2 ? FTR_NONFINITE_REPORTED : FTR_NONFINITE_ALLOWED;
        ftr_plan *plan = NULL;
        FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
        memory[how] = ftr_plan_memory(plan);
        ftr_plan_destroy(plan);
        ftr_graph_destroy(graph);
    }
    ftr_context_destroy(context);
    assert_int_equal(memory[0].gradients, LAYERS * ONE);
    assert_int_equal(memory[1].gradients, 0);
    assert_int_equal(memory[1].optimizer_state - memory[0].optimizer_state, LAYERS * ONE);
    assert_true(memory[1].activations <= memory[0].activations + 2 * ONE);
    assert_true(memory[2].activations >= LAYERS * ONE);
}

/* Which nodes a step in the midst of a group leaves out: all behind the sums; loss scaling looks at them in each. */
static void a_plan_shows_its_stages(void **state) {
    (void)state;
    for (int scaled = 0; scaled < 2; scaled++) {
        network n = make_network(true);
        ftr_optimizer sgd = ftr_sgd(0.1);
        sgd.clip_norm = 1;
        ftr_scaler_desc scaler = ftr_scaler_defaults();
        scaler.scaling = scaled ? FTR_SCALING_DYNAMIC : FTR_SCALING_OFF;
        ftr_average_desc average = ftr_average_defaults();
        average.kind = FTR_AVERAGE_SWA;
        ftr_compile_desc desc = {.loss = n.loss, .optimizer = &sgd, .scaler = &scaler, .accumulate = 4};
        desc.average = &average;
        ftr_plan *plan = NULL;
        FTR_TEST_OK(n.context, ftr_compile(n.graph, &desc, &plan));
        ftr_plan_node last; /* of a step: the exchange is none */
        FTR_TEST_OK(n.context, ftr_plan_node_at(plan, ftr_plan_node_count(plan) - 1, &last));
        assert_string_equal(last.op, "average_update");
        static ftr_test_text text;
        text.length = 0;
        ftr_plan_print(plan, FTR_GRAPH_TEXT, ftr_test_text_write, &text);
        char late[256] = "";
        bool ended = false;
        for (char *line = strtok(text.text, "\n"); line; line = strtok(NULL, "\n")) {
            const bool at_end = strstr(line, "[at a group's end]"), exchange = strstr(line, "[at an exchange]");
            const char *op = strchr(line, '=') ? strchr(line, '=') + 2 : line + 6; /* behind "%3 = " or the number */
            if (at_end || exchange) {
                snprintf(late + strlen(late), sizeof late - strlen(late), "%.*s ", (int)strcspn(op, " "), op);
            }
            assert_true(!ended || at_end || exchange || strncmp(line, "memory", 6) == 0);
            ended = ended || at_end || exchange;
        }
        assert_string_equal(late, scaled ? "sgd_update count_update scale_update average_update swap_update "
                                         : "grad_norm sgd_update count_update average_update swap_update ");
        ftr_plan_destroy(plan);
        free_network(&n);
    }
}

/* Loss scaling: from an infinity on running statistics wait for the next group; without one they move in each step. */
static void statistics_wait_for_the_group(void **state) {
    (void)state;
    network n = make_network(true);
    ftr_optimizer sgd = ftr_sgd(0.1);
    ftr_scaler_desc scaler = ftr_scaler_defaults();
    scaler.scaling = FTR_SCALING_DYNAMIC;
    ftr_compile_desc desc = {.loss = n.loss, .optimizer = &sgd, .scaler = &scaler, .accumulate = 4};
    ftr_plan *plan = NULL;
    FTR_TEST_OK(n.context, ftr_compile(n.graph, &desc, &plan));
    double before[MOST], after[MOST];
    ftr_tensor mean = ftr_variable_find(n.graph, "bn.running_mean");
    read_variable(&n, mean, before);
    for (uint64_t step = 0; step < 12; step++) {
        ftr_step_info info;
        FTR_TEST_OK(n.context, take_step(&n, plan, step, step == 5 ? INFINITY : 1, &info));
        int64_t count = read_variable(&n, mean, after);
        const bool waits = step >= 5 && step < 8, moved = memcmp(before, after, (size_t)count * sizeof *before) != 0;
        assert_int_equal(moved, !waits);
        assert_int_equal(info.overflow, waits);
        assert_int_equal(info.skipped, step == 7);
        assert_int_equal(info.updated, step == 3 || step == 11);
        memcpy(before, after, sizeof before);
    }
    ftr_plan_destroy(plan);
    free_network(&n);
}

/* A step that ends with an error has added nothing to the sums, though gradients that are finite came before the one that is
 * not: the run is that without it. The backward of sqrt at 0 is infinite. */
static void an_error_leaves_the_sums(void **state) {
    (void)state;
    enum { SIZE = 3 };
    float values[2][2][SIZE];
    for (int bad = 0; bad < 2; bad++) {
        ftr_context *context = ftr_test_context();
        ftr_graph *graph = ftr_graph_create(context);
        ftr_init ones = {FTR_INIT_CONSTANT, 1, 0};
        ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(SIZE));
        ftr_tensor p = ftr_parameter(graph, "p", FTR_F32, FTR_SHAPE(SIZE), ones);
        ftr_tensor q = ftr_parameter(graph, "q", FTR_F32, FTR_SHAPE(SIZE), ones);
        ftr_tensor root = ftr_sum(ftr_sqrt(ftr_mul(p, x)), ftr_all_axes(), false);
        ftr_tensor plain = ftr_sum(ftr_mul(q, ftr_add(x, ftr_scalar(graph, FTR_F32, 1))), ftr_all_axes(), false);
        ftr_optimizer adamw = ftr_adamw(0.05);
        ftr_compile_desc desc = {.loss = ftr_add(root, plain), .optimizer = &adamw, .accumulate = 3};
        desc.debug_nonfinite = FTR_NONFINITE_REPORTED;
        ftr_plan *plan = NULL;
        FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
        for (int step = 0; step < 6; step++) {
            const float zero[SIZE] = {1, 0, 1}, good[SIZE] = {1, (float)(step + 1), 0.5f};
            if (bad) {
                FTR_TEST_OK(context, ftr_feed(plan, x, zero, sizeof zero));
                assert_int_equal(ftr_step(plan, NULL), FTR_ERROR_NONFINITE);
                assert_non_null(strstr(ftr_error_message(context), ", backward, result 0"));
            }
            FTR_TEST_OK(context, ftr_feed(plan, x, good, sizeof good));
            FTR_TEST_OK(context, ftr_step(plan, NULL));
        }
        FTR_TEST_OK(context, ftr_variable_read(p, values[bad][0], sizeof values[bad][0]));
        FTR_TEST_OK(context, ftr_variable_read(q, values[bad][1], sizeof values[bad][1]));
        ftr_plan_destroy(plan);
        ftr_graph_destroy(graph);
        ftr_context_destroy(context);
    }
    assert_memory_equal(values[0], values[1], sizeof values[0]);
}

/* A label out of range is found before a gradient is added, though gradients are added as soon as they are there. */
static void bad_data_leave_the_sums(void **state) {
    (void)state;
    enum { WORDS = 5, CLASSES = 3 };
    float values[2][WORDS * 4];
    for (int bad = 0; bad < 2; bad++) {
        ftr_context *context = ftr_test_context();
        ftr_graph *graph = ftr_graph_create(context);
        ftr_tensor word = ftr_input(graph, "word", FTR_I32, FTR_SHAPE(BATCH));
        ftr_tensor label = ftr_input(graph, "label", FTR_I32, FTR_SHAPE(BATCH));
        ftr_tensor h = ftr_embedding(word, "words", WORDS, 4, NULL);
        ftr_tensor logits = ftr_linear(h, "fc", CLASSES, NULL);
        ftr_tensor accuracy = ftr_accuracy(logits, label), loss = ftr_cross_entropy(logits, label, NULL);
        FTR_TEST_GRAPH_OK(graph);
        ftr_optimizer adamw = ftr_adamw(0.05);
        ftr_compile_desc desc = {.loss = loss, .optimizer = &adamw, .accumulate = 3};
        desc.outputs = &accuracy;
        desc.output_count = 1;
        ftr_plan *plan = NULL;
        FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
        for (int32_t step = 0; step < 6; step++) {
            int32_t words[BATCH], labels[BATCH];
            for (int32_t i = 0; i < BATCH; i++) {
                words[i] = (i + step) % WORDS;
                labels[i] = (i * step + i) % CLASSES;
            }
            FTR_TEST_OK(context, ftr_feed(plan, label, labels, sizeof labels));
            FTR_TEST_OK(context, ftr_feed(plan, word, words, sizeof words));
            for (int which = 0; which < 2 && bad; which++) {
                int32_t *wrong = which ? labels : words;
                wrong[BATCH - 1] += 100;
                FTR_TEST_OK(context, ftr_feed(plan, which ? label : word, wrong, sizeof labels));
                assert_int_equal(ftr_step(plan, NULL), FTR_ERROR_DATA);
                wrong[BATCH - 1] -= 100;
                FTR_TEST_OK(context, ftr_feed(plan, which ? label : word, wrong, sizeof labels));
            }
            FTR_TEST_OK(context, ftr_step(plan, NULL));
        }
        FTR_TEST_OK(context,
                    ftr_variable_read(ftr_variable_find(graph, "words.weight"), values[bad], sizeof values[0]));
        ftr_plan_destroy(plan);
        ftr_graph_destroy(graph);
        ftr_context_destroy(context);
    }
    assert_memory_equal(values[0], values[1], sizeof values[0]);
}

/* ------------------------------------------------------------------------------------------------------ averages -- */

static ftr_average_desc ema(double decay) {
    ftr_average_desc average = ftr_average_defaults();
    average.kind = FTR_AVERAGE_EMA;
    average.decay = decay;
    return average;
}

static void expect_state_error(const network *n, ftr_status status, const char *message) {
    assert_int_equal(status, FTR_ERROR_STATE);
    assert_string_equal(ftr_error_message(n->context), message);
}

#define AVERAGES_ARE_IN                                                                                                \
    ": the averages of the weights are in the graph's variables: put them back first (ftr_plan_swap_average)"

/* Other plans and files see the averages while they are in; twice exchanged, all is as before. */
static void averages_change_places(void **state) {
    (void)state;
    network n = make_network(true);
    ftr_optimizer adamw = ftr_adamw(0.05);
    ftr_average_desc average = ema(0.5);
    average.start = 2;
    ftr_plan *plan = NULL, *eval = NULL, *none = NULL;
    ftr_compile_desc desc = {.loss = n.loss, .optimizer = &adamw, .average = &average};
    FTR_TEST_OK(n.context, ftr_compile(n.graph, &desc, &plan));
    FTR_TEST_OK(n.context, ftr_compile(n.graph, &(ftr_compile_desc){.loss = n.loss, .mode = FTR_MODE_EVAL}, &eval));
    FTR_TEST_OK(n.context, ftr_compile(n.graph, &(ftr_compile_desc){.loss = n.loss, .optimizer = &adamw}, &none));
    expect_state_error(&n, ftr_plan_swap_average(none), "swap_average: the plan keeps no averages of weights");
    assert_int_equal(ftr_plan_average_count(none), 0);
    assert_int_equal(ftr_plan_swap_average(NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_plan_average_count(NULL), 0);
    FTR_TEST_OK(n.context, take_step(&n, plan, 0, 1, NULL));
    expect_state_error(&n, ftr_plan_swap_average(plan), "swap_average: no average was taken yet");
    for (uint64_t step = 1; step < 5; step++) {
        FTR_TEST_OK(n.context, take_step(&n, plan, step, 1, NULL));
    }
    assert_int_equal(ftr_plan_average_count(plan), 4);
    double plain[4 * MOST], averaged[4 * MOST], again[4 * MOST];
    float kept[HIDDEN * IN];
    const size_t size = (size_t)read_all(&n, plain) * sizeof(double);
    ftr_step_info with, without;
    FTR_TEST_OK(n.context, take_step(&n, eval, 50, 1, &without));
    FTR_TEST_OK(n.context, ftr_plan_state_read(plan, "fc1.weight.average", kept, sizeof kept));
    assert_false(ftr_plan_average_is_in(plan));
    FTR_TEST_OK(n.context, ftr_plan_swap_average(plan));
    assert_true(ftr_plan_average_is_in(plan));
    read_all(&n, averaged);
    for (int i = 0; i < HIDDEN * IN; i++) {
        assert_true(averaged[i] == kept[i]);
    }
    FTR_TEST_OK(n.context, take_step(&n, eval, 50, 1, &with));
    assert_true(with.loss != without.loss);
    expect_state_error(&n, take_step(&n, plan, 9, 1, NULL), "step" AVERAGES_ARE_IN);
    char folder[] = "/tmp/ftr_steps_XXXXXX", path[64], command[96];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/w.safetensors", folder);
    FTR_TEST_OK(n.context, ftr_save_weights(n.graph, path));
    ftr_checkpointer *writer = NULL;
    FTR_TEST_OK(n.context, ftr_checkpointer_create(plan, &(ftr_checkpoint_desc){.directory = folder}, &writer));
    expect_state_error(&n, ftr_checkpoint_save(writer, &(ftr_checkpoint_point){.step = 5}),
                       "ftr_checkpoint_save" AVERAGES_ARE_IN);
    FTR_TEST_OK(n.context, ftr_plan_swap_average(plan));
    read_all(&n, again);
    assert_memory_equal(plain, again, size);
    FTR_TEST_OK(n.context, ftr_checkpoint_save(writer, &(ftr_checkpoint_point){.step = 5}));
    FTR_TEST_OK(n.context, ftr_checkpointer_wait(writer));
    FTR_TEST_OK(n.context, take_step(&n, plan, 9, 1, NULL));
    FTR_TEST_OK(n.context, ftr_plan_swap_average(plan));
    ftr_checkpoint_point point;
    expect_state_error(&n, ftr_checkpoint_load(plan, folder, &point), "ftr_checkpoint_restore" AVERAGES_ARE_IN);
    FTR_TEST_OK(n.context, ftr_plan_swap_average(plan));
    FTR_TEST_OK(n.context, ftr_checkpoint_load(plan, folder, &point));
    read_all(&n, again);
    assert_memory_equal(plain, again, size);
    FTR_TEST_OK(n.context, ftr_plan_swap_average(plan));
    read_all(&n, again);
    assert_memory_equal(averaged, again, size);
    FTR_TEST_OK(n.context, ftr_plan_swap_average(plan));
    FTR_TEST_OK(n.context, ftr_load_weights(n.graph, path, NULL, NULL)); /* what was saved are the averages */
    read_all(&n, again);
    assert_memory_equal(averaged, again, size);
    ftr_checkpointer_destroy(writer);
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
    ftr_plan_destroy(plan);
    ftr_plan_destroy(eval);
    ftr_plan_destroy(none);
    free_network(&n);
}

/* Frozen parameters and the statistics of their batch norms do not change, so they have no averages. */
static void what_is_frozen_has_no_average(void **state) {
    (void)state;
    network n = make_network(true);
    FTR_TEST_OK(n.context, ftr_freeze(n.graph, "bn.*", &(ftr_freeze_desc){.norm_eval = true}));
    ftr_optimizer sgd = ftr_sgd(0.1);
    ftr_average_desc average = ema(0.9);
    ftr_compile_desc desc = {.loss = n.loss, .optimizer = &sgd, .average = &average, .accumulate = 2};
    ftr_plan *plan = NULL;
    FTR_TEST_OK(n.context, ftr_compile(n.graph, &desc, &plan));
    char names[1024] = "";
    for (int32_t i = 0; i < ftr_plan_state_count(plan); i++) {
        ftr_plan_state one;
        FTR_TEST_OK(n.context, ftr_plan_state_at(plan, i, &one));
        sprintf(names + strlen(names), "%s ", one.name);
    }
    assert_string_equal(names, "fc1.weight.grad_sum fc2.weight.grad_sum fc2.bias.grad_sum optimizer.lr optimizer.step "
                               "average.count fc1.weight.average fc2.weight.average fc2.bias.average ");
    ftr_plan_destroy(plan);
    free_network(&n);
}

static void wrong_descriptions(void **state) {
    (void)state;
    network n = make_network(false);
    ftr_optimizer sgd = ftr_sgd(0.1);
    ftr_plan *plan = NULL;
#define BAD(change, text)                                                                                              \
    do {                                                                                                               \
        ftr_average_desc a = ema(0.9);                                                                                 \
        ftr_compile_desc desc = {.loss = n.loss, .optimizer = &sgd, .average = &a};                                    \
        change;                                                                                                        \
        assert_int_equal(ftr_compile(n.graph, &desc, &plan), FTR_ERROR_INVALID_ARGUMENT);                              \
        assert_string_equal(ftr_error_message(n.context), text);                                                       \
        assert_null(plan);                                                                                             \
    } while (0)
    BAD(desc.accumulate = -2, "compile: accumulate is -2, expected 0 or more");
    BAD(desc.accumulate = 2; desc.optimizer = NULL, "compile: accumulate is 2 without an optimizer");
    BAD(desc.optimizer = NULL, "compile: average is given without an optimizer");
    BAD(a.cookie = 1, "average: the description was not made by ftr_average_defaults()");
    BAD(a.kind = (ftr_average_kind)3, "average: kind is 3, expected one of ftr_average_kind");
    BAD(a.decay = 1.5, "average: decay is 1.5, expected 0 to 1");
    BAD(a.decay = fabs((double)NAN), "average: decay is nan, expected 0 to 1");
    BAD(a.min_decay = -0.5, "average: min_decay is -0.5, expected 0 to 1");
    BAD(a.warmup_gamma = 0, "average: warmup_gamma is 0, expected a finite number above 0");
    BAD(a.warmup_power = INFINITY, "average: warmup_power is inf, expected a finite number above 0");
    BAD(a.start = -1, "average: start is -1, expected 0 or more");
    BAD(a.every = 0, "average: every is 0, expected 1 or more");
#undef BAD
    free_network(&n);
}

/* -------------------------------------------------------------------------------------------------- training runs -- */

enum { SAMPLES = 32, HELD_OUT = 12 };

/* Reads as a memory source does, but fails at a sample. */
typedef struct reader {
    float x[SAMPLES][IN], t[SAMPLES][OUT];
    int64_t fails_at; /* -1: never */
} reader;

static ftr_status read_sample(void *user, int64_t index, void *const *fields) {
    const reader *r = user;
    const float one = 1;
    if (index == r->fails_at) {
        return FTR_ERROR_DATA;
    }
    memcpy(fields[0], r->x[index], sizeof r->x[index]);
    memcpy(fields[1], r->t[index], sizeof r->t[index]);
    memcpy(fields[2], &one, sizeof one);
    return FTR_OK;
}

static ftr_source *source_of(const network *n, reader *r, const char *name, int64_t count) {
    static const ftr_field fields[] = {{"x", FTR_F32, {1, {IN}}}, {"t", FTR_F32, {1, {OUT}}}, {"w", FTR_F32, {0, {0}}}};
    ftr_source_desc desc = {.name = name, .count = count, .fields = fields, .field_count = 3};
    desc.read = read_sample;
    desc.user = r;
    ftr_source *source = NULL;
    FTR_TEST_OK(n->context, ftr_source_create(n->context, &desc, &source));
    return source;
}

typedef struct training {
    network n;
    reader r, held_out;
    ftr_train_desc desc;
} training;

static training *make_training(void) {
    training *t = calloc(1, sizeof *t);
    t->n = make_network(true);
    ftr_test_rng rng = {12};
    t->r.fails_at = t->held_out.fails_at = -1;
    for (int i = 0; i < SAMPLES; i++) {
        ftr_test_fill_f32(t->r.x[i], IN, &rng, -2, 2);
        ftr_test_fill_f32(t->held_out.x[i], IN, &rng, -2, 2);
        for (int k = 0; k < OUT; k++) {
            t->r.t[i][k] = tanhf(t->r.x[i][k] + t->r.x[i][k + 1]);
            t->held_out.t[i][k] = tanhf(t->held_out.x[i][k] + t->held_out.x[i][k + 1]);
        }
    }
    t->desc = ftr_train_defaults();
    t->desc.loss = t->n.loss;
    t->desc.optimizer = ftr_adamw(0.05);
    t->desc.train = source_of(&t->n, &t->r, "train", SAMPLES); /* 5 steps an epoch */
    t->desc.eval = source_of(&t->n, &t->held_out, "held out", HELD_OUT);
    t->desc.progress = FTR_PROGRESS_SILENT;
    t->desc.epochs = 5;
    return t;
}

static void free_training(training *t) {
    ftr_source_destroy(t->desc.train);
    ftr_source_destroy(t->desc.eval);
    free_network(&t->n);
    free(t);
}

typedef struct watcher {
    training *t;
    double averaged[8], plain[8]; /* losses of the evaluations by both, made by the watcher, by epoch */
    double told[8], weights[8][4 * MOST];
    int64_t updates, last_applied;
    bool broken;
} watcher;

/* Evaluates by hand. */
static double evaluate(training *t) {
    ftr_train_result result;
    FTR_TEST_OK(t->n.context, ftr_evaluate(t->n.graph, &t->desc, &result));
    return result.eval_loss;
}

static bool watch(void *user, const ftr_train_event *event) {
    watcher *w = user;
    if (event->kind == FTR_EVENT_STEP) {
        w->updates += event->updated;
        w->broken = w->broken || event->applied_steps != w->updates;
        return false;
    }
    w->told[event->epoch] = event->eval_loss;
    w->plain[event->epoch] = evaluate(w->t);
    w->averaged[event->epoch] = NAN;
    if (ftr_plan_average_count(event->plan) == 0) {
        return false;
    }
    FTR_TEST_OK(w->t->n.context, ftr_plan_swap_average(event->plan));
    w->averaged[event->epoch] = evaluate(w->t);
    read_all(&w->t->n, w->weights[event->epoch]);
    FTR_TEST_OK(w->t->n.context, ftr_plan_swap_average(event->plan));
    return false;
}

/* Evaluations are by the averages if that is asked for, once there are some; the end leaves what was asked for. */
static void training_by_averages(void **state) {
    (void)state;
    for (int how = 0; how < 6; how++) {
        const bool evaluates = how & 1, finishes = how & 2, best = how & 4;
        training *t = make_training();
        watcher *w = calloc(1, sizeof *w);
        w->t = t;
        t->desc.accumulate = 2;
        t->desc.average = ema(0.75);
        t->desc.average.start = 4; /* the fourth update is in the second epoch */
        t->desc.evaluate_average = evaluates;
        t->desc.finish_with_average = finishes;
        t->desc.early_stop.metric = best ? "loss" : NULL;
        t->desc.early_stop.patience = 100;
        t->desc.early_stop.restore_best = best;
        t->desc.on_event = watch;
        t->desc.on_event_user = w;
        ftr_train_result result;
        FTR_TEST_OK(t->n.context, ftr_fit(t->n.graph, &t->desc, &result));
        assert_int_equal(result.steps, 25);
        assert_int_equal(result.applied_steps, 12); /* groups go on over the ends of epochs */
        assert_int_equal(result.unapplied_steps, 1);
        assert_int_equal(w->updates, 12);
        assert_false(w->broken);
        assert_true(isnan(w->averaged[0]) && !isnan(w->averaged[1]));
        for (int e = 0; e < 5; e++) {
            double expected = evaluates && e > 0 ? w->averaged[e] : w->plain[e];
            assert_true(w->told[e] == expected);
            assert_true(w->averaged[e] != w->plain[e]);
        }
        int epoch = 4;
        for (int e = 0; e < 5 && best; e++) {
            epoch = w->told[e] < w->told[epoch] ? e : epoch;
        }
        assert_int_equal(result.best_epoch, best ? epoch : -1);
        double expected = best ? w->told[epoch] : finishes ? w->averaged[4] : w->plain[4];
        assert_true(evaluate(t) == expected);
        double values[4 * MOST];
        int64_t count = read_all(&t->n, values);
        if (finishes && !best) {
            assert_memory_equal(values, w->weights[4], (size_t)count * sizeof *values);
        }
        free(w);
        free_training(t);
    }
}

static void wrong_training(void **state) {
    (void)state;
    training *t = make_training();
    const ftr_train_desc good = t->desc;
#define BAD(change, text)                                                                                              \
    do {                                                                                                               \
        t->desc = good;                                                                                                \
        change;                                                                                                        \
        assert_int_equal(ftr_fit(t->n.graph, &t->desc, NULL), FTR_ERROR_INVALID_ARGUMENT);                             \
        assert_string_equal(ftr_error_message(t->n.context), text);                                                    \
    } while (0)
    BAD(t->desc.evaluate_average = true, "ftr_fit: evaluate_average is set, but average.kind is FTR_AVERAGE_NONE");
    BAD(t->desc.finish_with_average = true,
        "ftr_fit: finish_with_average is set, but average.kind is FTR_AVERAGE_NONE");
    BAD(t->desc.evaluate_average = true; t->desc.average = ema(0.9);
        t->desc.eval = NULL, "ftr_fit: evaluate_average is set, but eval is NULL");
    BAD(t->desc.accumulate = -1, "compile: accumulate is -1, expected 0 or more");
    BAD(t->desc.average.every = -1, "average: every is -1, expected 1 or more");
#undef BAD
    t->desc = good;
    t->desc.train = NULL;
    assert_int_equal(ftr_update_batch_norm(t->n.graph, &t->desc), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(t->n.context), "ftr_update_batch_norm: train is NULL, expected a source");
    assert_int_equal(ftr_update_batch_norm(NULL, &t->desc), FTR_ERROR_INVALID_ARGUMENT);
    t->desc = good;
    free_training(t);
}

/* A failure leaves the graph as it was; parameters never change. */
static void batch_norm_anew(void **state) {
    (void)state;
    training *t = make_training();
    double before[4 * MOST], after[4 * MOST];
    const size_t size = (size_t)read_all(&t->n, before) * sizeof *before;
    t->r.fails_at = 20;
    assert_int_equal(ftr_update_batch_norm(t->n.graph, &t->desc), FTR_ERROR_DATA);
    read_all(&t->n, after);
    assert_memory_equal(before, after, size);
    t->r.fails_at = -1;
    FTR_TEST_OK(t->n.context, ftr_update_batch_norm(t->n.graph, &t->desc));
    read_all(&t->n, after);
    assert_memory_equal(before, after, HIDDEN * IN * sizeof *before); /* fc1.weight */
    assert_true(memcmp(before, after, size) != 0);
    free_training(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_are_pytorchs),       cmocka_unit_test(groups_are_large_batches),
        cmocka_unit_test(gradients_can_be_read),    cmocka_unit_test(gradients_take_little_memory),
        cmocka_unit_test(a_plan_shows_its_stages),  cmocka_unit_test(statistics_wait_for_the_group),
        cmocka_unit_test(an_error_leaves_the_sums), cmocka_unit_test(bad_data_leave_the_sums),
        cmocka_unit_test(averages_change_places),   cmocka_unit_test(what_is_frozen_has_no_average),
        cmocka_unit_test(wrong_descriptions),       cmocka_unit_test(training_by_averages),
        cmocka_unit_test(wrong_training),           cmocka_unit_test(batch_norm_anew),
    };
    return cmocka_run_group_tests_name("steps", tests, NULL, NULL);
}
