/* Recomputation: the same bits as without it, no more of it than a budget asks for, about sqrt(n) for chains, by hand, and
 * what is said when nothing helps.
 *
 *   test_recompute [FILTER]   the tests whose name contains it */
#include "ftr_test.h"
#include "model_zoo.h"

/* -------------------------------------------------------------------------------------------------------- chains -- */

enum { ROWS = 256, WIDTH = 16, VALUE = ROWS * WIDTH * 4 };

typedef struct chain {
    ftr_graph *graph;
    ftr_tensor x, y, loss;
} chain;

/* tanh(linear()) n times; the tanh runs in place, so that a layer stores VALUE bytes. */
static chain build_chain(ftr_context *context, int32_t layers) {
    chain c = {.graph = ftr_graph_create(context)};
    c.x = ftr_input(c.graph, "x", FTR_F32, FTR_SHAPE(ROWS, WIDTH));
    c.y = ftr_input(c.graph, "y", FTR_F32, FTR_SHAPE(ROWS, WIDTH));
    ftr_tensor h = c.x;
    for (int32_t i = 0; i < layers; i++) {
        char name[32];
        snprintf(name, sizeof name, "layer.%d", (int)i);
        ftr_scope_push(c.graph, name);
        h = ftr_tanh(ftr_linear(h, "fc", WIDTH, NULL));
        ftr_scope_pop(c.graph);
    }
    c.loss = ftr_mse(h, c.y, FTR_REDUCE_MEAN);
    FTR_TEST_GRAPH_OK(c.graph);
    return c;
}

static ftr_memory needed(ftr_context *context, ftr_graph *graph, const ftr_compile_desc *desc) {
    ftr_memory memory;
    FTR_TEST_OK(context, ftr_memory_needed(graph, desc, &memory));
    return memory;
}

/* What the sentence of a budget of one byte says that the smallest plan needs. */
static size_t smallest(ftr_context *context, ftr_graph *graph, ftr_compile_desc desc) {
    ftr_memory memory;
    size_t total = 0;
    desc.memory_budget = 1;
    assert_int_equal(ftr_memory_needed(graph, &desc, &memory), FTR_ERROR_OUT_OF_MEMORY);
    assert_int_equal(memory.total, 0);
    assert_int_equal(
        sscanf(ftr_error_message(context), "compile: memory_budget is 1 bytes, the smallest plan needs %zu:", &total),
        1);
    return total;
}

static void a_budget_recomputes_no_more_than_it_must(void **state) {
    ftr_test_fixture *f = *state;
    const chain c = build_chain(f->context, 40);
    const ftr_optimizer sgd = ftr_sgd(0.1);
    ftr_compile_desc desc = {.loss = c.loss, .optimizer = &sgd};
    const ftr_memory plain = needed(f->context, c.graph, &desc);
    assert_int_equal(plain.recomputed_nodes, 0);
    desc.memory_budget = plain.total;
    assert_int_equal(needed(f->context, c.graph, &desc).recomputed_nodes, 0);
    desc.memory_budget = plain.total - 1;
    const ftr_memory little = needed(f->context, c.graph, &desc);
    assert_in_range(little.recomputed_nodes, 1, 4);
    int32_t before = 0;
    for (int64_t saved = 1; saved <= 28; saved += 3) {
        desc.memory_budget = plain.total - (size_t)saved * VALUE;
        const ftr_memory m = needed(f->context, c.graph, &desc);
        assert_true(m.total <= desc.memory_budget);
        assert_true(m.total + 2 * VALUE > desc.memory_budget);
        assert_true(m.recomputed_nodes >= before);
        assert_int_equal(m.recomputed_multiply_adds, (int64_t)m.recomputed_nodes / 2 * ROWS * WIDTH * WIDTH);
        assert_int_equal(m.recomputed_bytes, (int64_t)m.recomputed_nodes * VALUE);
        print_message("saved at least %lld of 40 layers: %lld bytes, %d nodes run twice\n", (long long)saved,
                      (long long)(plain.total - m.total), (int)m.recomputed_nodes);
        before = m.recomputed_nodes;
    }
    ftr_graph_destroy(c.graph);
}

/* sqrt(n) stored values and as many in a segment that is recomputed, and a few around the node that runs. */
static void a_chain_needs_its_root_twice(void **state) {
    ftr_test_fixture *f = *state;
    for (int32_t root = 4; root <= 20; root += 4) {
        const chain c = build_chain(f->context, root * root);
        const ftr_optimizer sgd = ftr_sgd(0.1);
        ftr_compile_desc desc = {.loss = c.loss, .optimizer = &sgd};
        const ftr_memory plain = needed(f->context, c.graph, &desc);
        desc.memory_budget = smallest(f->context, c.graph, desc);
        const double started = ftr_time_seconds();
        const ftr_memory m = needed(f->context, c.graph, &desc);
        print_message("%d layers: %.1f values, without recomputation %.1f; %.3f s\n", (int)(root * root),
                      (double)m.activations / VALUE, (double)plain.activations / VALUE, ftr_time_seconds() - started);
        assert_true(plain.activations + plain.gradients >= (size_t)(root * root) * VALUE);
        assert_true(m.activations <= (size_t)(2 * root + 3) * VALUE);
        assert_true(m.recomputed_nodes <= 2 * root * root); /* each at most once more */
        ftr_graph_destroy(c.graph);
    }
}

/* A chain with a skip connection around every second layer, and one from its beginning to its end. */
static void residual_chains_are_cut_between_blocks(void **state) {
    ftr_test_fixture *f = *state;
    enum { BLOCKS = 36 };
    ftr_graph *graph = f->graph;
    const ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(ROWS, WIDTH));
    ftr_tensor first = ftr_tanh(ftr_linear(x, "stem", WIDTH, NULL)), h = first;
    for (int32_t i = 0; i < BLOCKS; i++) {
        char name[32];
        snprintf(name, sizeof name, "block%d", (int)i);
        ftr_scope_push(graph, name);
        const ftr_tensor inner = ftr_tanh(ftr_linear(h, "fc1", WIDTH, NULL));
        h = ftr_add(h, ftr_tanh(ftr_linear(inner, "fc2", WIDTH, NULL)));
        ftr_scope_pop(graph);
    }
    const ftr_tensor loss = ftr_mean(ftr_mul(h, first), ftr_all_axes(), false);
    const ftr_optimizer sgd = ftr_sgd(0.1);
    ftr_compile_desc desc = {.loss = loss, .optimizer = &sgd};
    const ftr_memory plain = needed(f->context, graph, &desc);
    desc.memory_budget = smallest(f->context, graph, desc);
    const ftr_memory m = needed(f->context, graph, &desc);
    print_message("%d blocks: %.1f values, without recomputation %.1f\n", (int)BLOCKS, (double)m.activations / VALUE,
                  (double)plain.activations / VALUE);
    assert_true(plain.activations + plain.gradients >= (size_t)(3 * BLOCKS) * VALUE);
    assert_true(m.activations <= 26 * (size_t)VALUE); /* 2 sqrt(3 * 36) = 21, and some around the node that runs */
}

/* ----------------------------------------------------------------------------------------------------- same bits -- */

/* What training leaves: parameters, buffers, optimizer state, losses. */
typedef struct outcome {
    unsigned char *bytes;
    size_t size;
} outcome;

static void outcome_add(outcome *o, const void *data, size_t size) {
    o->bytes = realloc(o->bytes, o->size + size + 1);
    memcpy(o->bytes + o->size, data, size);
    o->size += size;
}

static void outcome_add_plan(outcome *o, ftr_context *context, ftr_graph *graph, ftr_plan *plan) {
    for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
        const ftr_tensor variable = ftr_variable_at(graph, i);
        unsigned char *data = malloc(zoo_bytes(variable) + 1);
        FTR_TEST_OK(context, ftr_variable_read(variable, data, zoo_bytes(variable)));
        outcome_add(o, data, zoo_bytes(variable));
        free(data);
    }
    for (int32_t i = 0; i < ftr_plan_state_count(plan); i++) {
        ftr_plan_state s;
        FTR_TEST_OK(context, ftr_plan_state_at(plan, i, &s));
        unsigned char *data = malloc(s.bytes + 1);
        FTR_TEST_OK(context, ftr_plan_state_read(plan, s.name, data, s.bytes));
        outcome_add(o, data, s.bytes);
        free(data);
    }
}

typedef struct model_case {
    const char *name;
    ftr_shape input;
} model_case;

/* Batches large enough for the peak to be activations and not the gradients at the end. */
static const model_case model_cases[] = {
    {"mlp", {2, {512, 20}}},
    {"resnet18_small_images", {4, {4, 16, 16, 3}}},
    {"resnet20", {4, {4, 32, 32, 3}}},
    {"resnet50", {4, {2, 32, 32, 3}}},
    {"mobilenet_v2_half", {4, {2, 64, 64, 3}}},
    {"mobilenet_v3_small_half", {4, {2, 64, 64, 3}}},
    {"mobilenet_v3_large", {4, {2, 48, 48, 3}}},
    {"efficientnet_b0", {4, {2, 48, 48, 3}}},
    {"efficientnet_lite0", {4, {2, 48, 48, 3}}},
    {"vit_ti_16", {4, {8, 96, 96, 3}}},
    {"gpt_chars", {2, {2, 32}}},
    {"gpt_untied", {2, {2, 32}}},
};

typedef struct budget_case {
    double part; /* of the way from the plain plan to the smallest one; less than 0: no budget */
    int32_t threads;
    const char *scope; /* recomputed by hand; NULL */
} budget_case;

static outcome train_model(const model_case *model, ftr_amp amp, const budget_case *budget, ftr_memory *memory) {
    enum { STEPS = 3 };
    ftr_context *context = ftr_test_context_with(NULL, 5, budget->threads, NULL);
    ftr_graph *graph = ftr_graph_create(context);
    const zoo_network net =
        zoo_build(graph, zoo_find(model->name), model->input, &(zoo_options){.classes = 10, .random = true});
    FTR_TEST_GRAPH_OK(graph);
    ftr_optimizer adamw = ftr_adamw(1e-3);
    adamw.clip_norm = 1.0;
    ftr_compile_desc desc = {
        .loss = net.loss, .optimizer = &adamw, .amp = amp, .outputs = &net.logits, .output_count = 1};
    const ftr_memory plain = needed(context, graph, &desc);
    desc.recompute = &budget->scope;
    desc.recompute_count = budget->scope != NULL;
    if (budget->part >= 0) {
        const size_t least = smallest(context, graph, desc);
        assert_true(least < plain.total);
        desc.memory_budget = plain.total - 1 - (size_t)(budget->part * (double)(plain.total - 1 - least));
    }
    ftr_plan *plan;
    FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
    *memory = ftr_plan_memory(plan);
    if (desc.memory_budget) assert_true(memory->total <= desc.memory_budget);
    if (desc.memory_budget || budget->scope) assert_true(memory->recomputed_nodes > 0);
    outcome o = {0};
    for (int32_t step = 0; step < STEPS; step++) {
        ftr_step_info info;
        char prefix[32];
        snprintf(prefix, sizeof prefix, "step%d", (int)step);
        FTR_TEST_OK(context, zoo_feed(plan, &net, prefix));
        FTR_TEST_OK(context, ftr_step(plan, &info));
        outcome_add(&o, &info.loss, sizeof info.loss);
        outcome_add(&o, &info.grad_norm, sizeof info.grad_norm);
    }
    float *logits = malloc(zoo_bytes(net.logits));
    FTR_TEST_OK(context, ftr_read(plan, net.logits, logits, zoo_bytes(net.logits)));
    outcome_add(&o, logits, zoo_bytes(net.logits));
    free(logits);
    outcome_add_plan(&o, context, graph, plan);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
    return o;
}

static void models_keep_their_bits(void **state) {
    const model_case *model = *state;
    static const budget_case plain = {-1, 2, NULL};
    static const budget_case budgets[] = {{0, 2, NULL}, {0.5, 1, NULL}, {1, 3, NULL}};
    if (!zoo_is_wanted(model->name)) return;
    for (int amp = FTR_AMP_OFF; amp <= FTR_AMP_BF16; amp++) {
        ftr_memory without, with;
        const outcome expected = train_model(model, (ftr_amp)amp, &plain, &without);
        for (size_t i = 0; i < FTR_TEST_LENGTH(budgets); i++) {
            if (amp && i == 0) continue;
            const outcome o = train_model(model, (ftr_amp)amp, &budgets[i], &with);
            assert_int_equal(o.size, expected.size);
            assert_memory_equal(o.bytes, expected.bytes, o.size);
            free(o.bytes);
            if (i == 2)
                print_message("%s, amp %d: activations %zu, smallest %zu, %d nodes twice\n", model->name, amp,
                              without.activations, with.activations, (int)with.recomputed_nodes);
        }
        free(expected.bytes);
    }
}

/* ------------------------------------------------------------------------------------------------- random graphs -- */

typedef struct web {
    ftr_test_rng rng;
    ftr_tensor value[64], kept[6];
    int32_t count, kept_count;
} web;

static ftr_tensor web_pick(web *w) {
    const int64_t back = ftr_test_integer(&w->rng, 1, w->count < 6 ? w->count : 6); /* mostly the last ones */
    return w->value[ftr_test_integer(&w->rng, 0, 9) ? w->count - back : ftr_test_integer(&w->rng, 0, w->count - 1)];
}

/* All values are [8, 6]. */
static ftr_tensor web_grow(web *w, int32_t number) {
    char name[32];
    snprintf(name, sizeof name, "n%d", (int)number);
    const ftr_tensor a = web_pick(w), b = web_pick(w);
    switch (ftr_test_integer(&w->rng, 0, 13)) {
    case 0: return ftr_add(a, b);
    case 1: return ftr_mul(a, b);
    case 2: return ftr_tanh(a);
    case 3: return ftr_relu(a);
    case 4: return ftr_linear(a, name, 6, NULL);
    case 5: return ftr_dropout(a, 0.3);
    case 6: return ftr_layer_norm(a, name, NULL);
    case 7: return ftr_reshape(ftr_gelu(ftr_reshape(a, FTR_SHAPE(4, 12)), FTR_GELU_TANH), FTR_SHAPE(8, 6));
    case 8: return ftr_sub(a, ftr_random_normal(a.graph, name, FTR_SHAPE(8, 6), 0, 1));
    case 9: return ftr_slice(ftr_concat((ftr_tensor[]){a, b}, 2, 1), 1, 3, 9, 1);
    case 10: return ftr_softmax(a, 1);
    case 11: return ftr_batch_norm(a, name, NULL);
    case 12: return ftr_mul(a, ftr_mean(b, FTR_AXES(1), true));
    default: return ftr_maximum(a, b);
    }
}

static outcome train_web(uint64_t seed, double part, int32_t threads) {
    ftr_context *context = ftr_test_context_with(NULL, seed, threads, NULL);
    ftr_graph *graph = ftr_graph_create(context);
    web w = {.rng = {seed}, .count = 1};
    w.value[0] = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(8, 6));
    for (int32_t i = 0; i < 40; i++) {
        w.value[w.count] = web_grow(&w, i);
        w.count++;
    }
    for (int32_t i = 0; i < 4; i++) w.kept[w.kept_count++] = web_pick(&w);
    const ftr_tensor last = ftr_linear(w.value[w.count - 1], "last", 6, NULL);
    const ftr_tensor loss = ftr_mean(ftr_mul(last, ftr_add(last, web_pick(&w))), ftr_all_axes(), false);
    FTR_TEST_GRAPH_OK(graph);
    const ftr_optimizer adam = ftr_adam(0.01);
    ftr_compile_desc desc = {.loss = loss, .optimizer = &adam, .outputs = w.kept, .output_count = w.kept_count};
    const ftr_memory plain = needed(context, graph, &desc);
    const size_t least = smallest(context, graph, desc);
    assert_true(least <= plain.total);
    if (part >= 0) desc.memory_budget = plain.total - (size_t)(part * (double)(plain.total - least));
    ftr_plan *plan;
    FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
    outcome o = {0};
    for (int32_t step = 0; step < 3; step++) {
        float data[48];
        ftr_step_info info;
        ftr_test_fill_f32(data, 48, &w.rng, -1, 1);
        FTR_TEST_OK(context, ftr_feed(plan, w.value[0], data, sizeof data));
        FTR_TEST_OK(context, ftr_step(plan, &info));
        outcome_add(&o, &info.loss, sizeof info.loss);
        for (int32_t i = 0; i < w.kept_count; i++) {
            FTR_TEST_OK(context, ftr_read(plan, w.kept[i], data, sizeof data));
            outcome_add(&o, data, sizeof data);
        }
    }
    outcome_add_plan(&o, context, graph, plan);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
    return o;
}

static void random_graphs_keep_their_bits(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        const outcome expected = train_web(seed, -1, 2);
        for (int i = 1; i <= 3; i++) {
            const outcome o = train_web(seed, i / 3.0, i);
            assert_int_equal(o.size, expected.size);
            if (memcmp(o.bytes, expected.bytes, o.size) != 0) fail_msg("seed %d, part %d of 3", (int)seed, i);
            free(o.bytes);
        }
        free(expected.bytes);
    }
}

/* ------------------------------------------------------------------------------------------------------- by hand -- */

static void scopes_are_recomputed_by_hand(void **state) {
    (void)state;
    static const model_case gpt = {"gpt_chars", {2, {8, 32}}};
    static const budget_case plain = {-1, 2, NULL}, blocks = {-1, 3, "transformer.h.?"},
                             both = {0.9, 1, "transformer.h.?"};
    ftr_memory without, with, tight;
    const outcome expected = train_model(&gpt, FTR_AMP_OFF, &plain, &without);
    const outcome by_hand = train_model(&gpt, FTR_AMP_OFF, &blocks, &with);
    const outcome with_budget = train_model(&gpt, FTR_AMP_OFF, &both, &tight);
    assert_true(with.activations < without.activations && tight.total < without.total);
    assert_memory_equal(by_hand.bytes, expected.bytes, expected.size);
    assert_memory_equal(with_budget.bytes, expected.bytes, expected.size);
    free(expected.bytes);
    free(by_hand.bytes);
    free(with_budget.bytes);
}

static int32_t occurrences(const char *text, const char *word) {
    int32_t count = 0;
    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word)) count++;
    return count;
}

/* Of each segment what comes in and goes out is stored: of 3 layers, the two inside. */
static void segments_store_their_ends(void **state) {
    ftr_test_fixture *f = *state;
    ftr_graph *graph = f->graph;
    ftr_tensor h = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(ROWS, WIDTH));
    for (int32_t block = 0; block < 6; block++) {
        char name[32];
        snprintf(name, sizeof name, "%s.%d", block < 4 ? "body" : "head", (int)block);
        ftr_scope_push(graph, name);
        for (int32_t i = 0; i < 3; i++) {
            snprintf(name, sizeof name, "fc%d", (int)i);
            h = ftr_tanh(ftr_linear(h, name, WIDTH, NULL));
        }
        ftr_scope_pop(graph);
    }
    const ftr_tensor loss = ftr_mean(h, ftr_all_axes(), false);
    const ftr_optimizer sgd = ftr_sgd(0.1);
    const char *const each[] = {"body.*"}, *const whole[] = {"body"}, *const two[] = {"body.0", "head.4"};
    const struct {
        const char *const *patterns;
        int32_t count, nodes;
    } cases[] = {{each, 1, 4 * 2 * 2}, {whole, 1, 11 * 2}, {two, 2, 2 * 2 * 2}};
    ftr_test_text *text = calloc(1, sizeof *text);
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        const ftr_compile_desc desc = {
            .loss = loss, .optimizer = &sgd, .recompute = cases[i].patterns, .recompute_count = cases[i].count};
        ftr_plan *plan;
        FTR_TEST_OK(f->context, ftr_compile(graph, &desc, &plan));
        assert_int_equal(ftr_plan_memory(plan).recomputed_nodes, cases[i].nodes);
        text->length = 0;
        FTR_TEST_OK(f->context, ftr_plan_print(plan, FTR_GRAPH_TEXT, ftr_test_text_write, text));
        assert_int_equal(occurrences(text->text, "[recomputed]"), cases[i].nodes);
        char line[64];
        snprintf(line, sizeof line, "recomputed: %d nodes, ", (int)cases[i].nodes);
        assert_non_null(strstr(text->text, line));
        text->length = 0;
        FTR_TEST_OK(f->context, ftr_plan_print(plan, FTR_GRAPH_DOT, ftr_test_text_write, text));
        assert_int_equal(occurrences(text->text, "\\nrecomputed"), cases[i].nodes);
        ftr_plan_destroy(plan);
    }
    free(text);
}

/* ------------------------------------------------------------------------------------------------------ mistakes -- */

static void bad_descriptions_are_named(void **state) {
    ftr_test_fixture *f = *state;
    const chain c = build_chain(f->context, 2);
    const ftr_optimizer sgd = ftr_sgd(0.1);
    const char *const none[] = {"layer.*", "body.*"}, *const null[] = {NULL};
    const struct {
        const char *const *patterns;
        int32_t count;
        ftr_status status;
        const char *sentence;
    } cases[] = {
        {none, 2, FTR_ERROR_NAME, "compile: recompute[1] 'body.*' fits no scope of the graph's 7 nodes"},
        {null, 1, FTR_ERROR_INVALID_ARGUMENT, "compile: recompute[0] is NULL"},
        {NULL, 1, FTR_ERROR_INVALID_ARGUMENT, "compile: recompute is NULL with a count of 1"},
        {none, -1, FTR_ERROR_INVALID_ARGUMENT, "compile: recompute is given with a count of -1"},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        const ftr_compile_desc desc = {
            .loss = c.loss, .optimizer = &sgd, .recompute = cases[i].patterns, .recompute_count = cases[i].count};
        ftr_plan *plan = (ftr_plan *)1;
        assert_int_equal(ftr_compile(c.graph, &desc, &plan), cases[i].status);
        assert_null(plan);
        assert_string_equal(ftr_error_message(f->context), cases[i].sentence);
    }
    ftr_memory memory;
    assert_int_equal(ftr_memory_needed(NULL, NULL, &memory), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_memory_needed(c.graph, NULL, &memory), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(f->context), "memory_needed: desc is NULL");
    assert_int_equal(ftr_memory_needed(c.graph, &(ftr_compile_desc){.loss = c.loss}, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(f->context), "memory_needed: memory is NULL");
    ftr_graph_destroy(c.graph);
}

/* In training and evaluation; the graph is as it was, and the parts add up. */
static void too_small_a_budget_is_explained(void **state) {
    (void)state;
    for (int mode = FTR_MODE_TRAIN; mode <= FTR_MODE_EVAL; mode++) {
        ftr_test_memory memory = {0};
        ftr_context *context = ftr_test_context_with(NULL, 1, 2, &memory);
        const chain c = build_chain(context, 9);
        const ftr_optimizer sgd = ftr_sgd(0.1);
        ftr_compile_desc desc = {.loss = c.loss, .mode = (ftr_mode)mode, .optimizer = mode ? NULL : &sgd};
        const size_t least = smallest(context, c.graph, desc), live = memory.live;
        desc.memory_budget = least - 1;
        ftr_plan *plan;
        assert_int_equal(ftr_compile(c.graph, &desc, &plan), FTR_ERROR_OUT_OF_MEMORY);
        assert_null(plan);
        assert_int_equal(memory.live, live);
        size_t n[8] = {0};
        assert_int_equal(
            sscanf(ftr_error_message(context),
                   "compile: memory_budget is %zu bytes, the smallest plan needs %zu: parameters %zu, gradients "
                   "%zu, optimizer state %zu, activations %zu, workspace %zu, bookkeeping %zu",
                   &n[0], &n[1], &n[2], &n[3], &n[4], &n[5], &n[6], &n[7]),
            8);
        assert_int_equal(n[0], least - 1);
        assert_int_equal(n[1], least);
        assert_int_equal(n[1], n[2] + n[3] + n[4] + n[5] + n[6] + n[7]);
        assert_true(
            ftr_is_valid(ftr_parameter(c.graph, "later", FTR_F32, FTR_SHAPE(1), (ftr_init){FTR_INIT_ZEROS, 0, 0})));
        ftr_graph_destroy(c.graph);
        ftr_context_destroy(context);
        assert_int_equal(memory.blocks, 0);
    }
}

/* ------------------------------------------------------------------------------------------------------ planning -- */

/* The same numbers as of a compiled plan, without its memory, and parameters can still be declared. */
static void memory_is_known_without_allocating(void **state) {
    (void)state;
    for (int tight = 0; tight < 2; tight++) {
        ftr_test_memory memory = {0};
        ftr_context *context = ftr_test_context_with(NULL, 1, 2, &memory);
        ftr_graph *graph = ftr_graph_create(context);
        const zoo_network net = zoo_build(graph, zoo_find("gpt_chars"), (ftr_shape){2, {64, 64}}, &(zoo_options){0});
        const ftr_optimizer adamw = ftr_adamw(1e-3);
        ftr_compile_desc desc = {.loss = net.loss, .optimizer = &adamw};
        ftr_memory planned;
        const size_t live = memory.live;
        memory.peak = live;
        if (tight) desc.memory_budget = smallest(context, graph, desc);
        FTR_TEST_OK(context, ftr_memory_needed(graph, &desc, &planned));
        assert_int_equal(memory.live, live);
        assert_true(memory.peak - live < planned.total / 10);
        assert_true(ftr_is_valid(ftr_buffer(graph, "later", FTR_F32, FTR_SHAPE(16), (ftr_init){FTR_INIT_ZEROS, 0, 0})));
        ftr_plan *plan;
        desc.memory_budget += desc.memory_budget ? 1024 : 0;
        FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
        ftr_memory m = ftr_plan_memory(plan);
        assert_int_equal(memory.live - live, m.total);
        assert_int_equal(m.parameters, planned.parameters + 64);
        assert_int_equal(m.activations, planned.activations);
        assert_int_equal(m.workspace, planned.workspace);
        assert_int_equal(m.optimizer_state, planned.optimizer_state);
        assert_int_equal(m.recomputed_nodes > 0, tight);
        ftr_plan_destroy(plan);
        ftr_graph_destroy(graph);
        ftr_context_destroy(context);
        assert_int_equal(memory.blocks, 0);
        assert_int_equal(memory.wrong, 0);
    }
}

typedef struct pass_log {
    char names[128];
    bool shown; /* the copies are in the graph that the pass left */
} pass_log;

static void log_pass(void *user, const char *pass, const ftr_graph *graph) {
    pass_log *log = user;
    snprintf(log->names + strlen(log->names), sizeof log->names - strlen(log->names), "%s ", pass);
    ftr_test_text *text = calloc(1, sizeof *text);
    assert_int_equal(ftr_graph_print(graph, FTR_GRAPH_TEXT, ftr_test_text_write, text), FTR_OK);
    if (strcmp(pass, "recompute") == 0) log->shown = occurrences(text->text, "[recomputed]") > 0;
    free(text);
}

/* Of all the trials the plan that is handed out alone is shown. */
static void passes_are_shown_once(void **state) {
    ftr_test_fixture *f = *state;
    const chain c = build_chain(f->context, 9);
    const ftr_optimizer sgd = ftr_sgd(0.1);
    pass_log log = {0};
    ftr_compile_desc desc = {.loss = c.loss, .optimizer = &sgd};
    desc.memory_budget = needed(f->context, c.graph, &desc).total - 3 * VALUE;
    desc.on_pass = log_pass;
    desc.on_pass_user = &log;
    ftr_plan *plan;
    FTR_TEST_OK(f->context, ftr_compile(c.graph, &desc, &plan));
    assert_string_equal(log.names, "lower autodiff amp fuse recompute schedule memplan ");
    assert_true(log.shown);
    assert_true(ftr_plan_memory(plan).total <= desc.memory_budget);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(c.graph);
}

/* ---------------------------------------------------------------------------------------------------------- ftr_fit -- */

enum { SAMPLES = 40 };

static ftr_status fit(ftr_context *context, size_t budget, const char *scope, ftr_train_result *result, outcome *o) {
    static float image[SAMPLES][24 * 24 * 3];
    static int32_t label[SAMPLES];
    ftr_test_rng rng = {3};
    ftr_test_fill_f32(image[0], SAMPLES * 24 * 24 * 3, &rng, -1, 1);
    ftr_test_fill_i32(label, SAMPLES, &rng, 0, 9);
    ftr_graph *graph = ftr_graph_create(context);
    const zoo_network net =
        zoo_build(graph, zoo_find("resnet20"), (ftr_shape){4, {8, 24, 24, 3}}, &(zoo_options){.classes = 10});
    const ftr_field fields[] = {{"x", FTR_F32, FTR_SHAPE(24, 24, 3)}, {"y", FTR_I32, ftr_scalar_shape()}};
    ftr_source *source;
    FTR_TEST_OK(context,
                ftr_memory_source(context, "train", SAMPLES, fields, (const void *[]){image, label}, 2, &source));
    ftr_train_desc t = ftr_train_defaults();
    t.loss = net.loss;
    t.optimizer = ftr_sgd(0.01);
    t.train = t.eval = source;
    t.epochs = 2;
    t.progress = FTR_PROGRESS_SILENT;
    t.memory_budget = budget;
    t.recompute = &scope;
    t.recompute_count = scope != NULL;
    const ftr_status status = ftr_fit(graph, &t, result);
    for (int32_t i = 0; i < ftr_variable_count(graph) && !status; i++) {
        const ftr_tensor variable = ftr_variable_at(graph, i);
        unsigned char *data = malloc(zoo_bytes(variable));
        FTR_TEST_OK(context, ftr_variable_read(variable, data, zoo_bytes(variable)));
        outcome_add(o, data, zoo_bytes(variable));
        free(data);
    }
    ftr_source_destroy(source);
    ftr_graph_destroy(graph);
    return status;
}

static void fitting_keeps_to_the_budget(void **state) {
    (void)state;
    ftr_train_result result;
    size_t peak = 0, plain = 0;
    outcome expected = {0};
    for (int i = 0; i < 3; i++) {
        ftr_test_memory memory = {0};
        ftr_context *context = ftr_test_context_with(NULL, 1, 2, &memory);
        const size_t live = memory.live, budget = i == 1 ? plain - 250000 : 0;
        outcome o = {0};
        FTR_TEST_OK(context, fit(context, budget, i == 2 ? "layer?.?" : NULL, &result, &o));
        if (i == 0) expected = o, plain = result.memory.total, peak = memory.peak - live;
        assert_memory_equal(o.bytes, expected.bytes, expected.size);
        assert_int_equal(result.memory.recomputed_nodes > 0, i > 0);
        if (i > 0) assert_true(memory.peak - live < peak - 200000);
        if (i > 0) free(o.bytes);
        ftr_context_destroy(context);
    }
    free(expected.bytes);
}

static void fitting_says_what_the_budget_lacks(void **state) {
    ftr_test_fixture *f = *state;
    ftr_train_result result;
    assert_int_equal(fit(f->context, 1000, NULL, &result, NULL), FTR_ERROR_OUT_OF_MEMORY);
    assert_non_null(
        strstr(ftr_error_message(f->context), "compile: memory_budget is 1000 bytes, the smallest plan needs "));
    size_t least = 0;
    sscanf(strstr(ftr_error_message(f->context), "needs "), "needs %zu", &least); /* of the evaluation */
    assert_int_equal(fit(f->context, least + 1000, NULL, &result, NULL), FTR_ERROR_OUT_OF_MEMORY);
    size_t whole = 0, evaluation = 0, left = 0;
    assert_int_equal(
        sscanf(ftr_error_message(f->context),
               "ftr_fit: of a memory_budget of %zu bytes the evaluation plan takes %zu; compile: memory_budget is "
               "%zu bytes, the smallest plan needs ",
               &whole, &evaluation, &left),
        3);
    assert_int_equal(whole, least + 1000);
    assert_int_equal(whole, evaluation + left);
}

int main(int argc, char **argv) {
    enum { MOST = 64 };
    static struct CMUnitTest tests[MOST];
    static char names[FTR_TEST_LENGTH(model_cases)][64];
    const struct CMUnitTest fixed[] = {
        cmocka_unit_test_setup_teardown(a_budget_recomputes_no_more_than_it_must, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test_setup_teardown(a_chain_needs_its_root_twice, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test_setup_teardown(residual_chains_are_cut_between_blocks, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test(random_graphs_keep_their_bits),
        cmocka_unit_test(scopes_are_recomputed_by_hand),
        cmocka_unit_test_setup_teardown(segments_store_their_ends, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test_setup_teardown(bad_descriptions_are_named, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test(too_small_a_budget_is_explained),
        cmocka_unit_test(memory_is_known_without_allocating),
        cmocka_unit_test_setup_teardown(passes_are_shown_once, ftr_test_setup, ftr_test_teardown),
        cmocka_unit_test(fitting_keeps_to_the_budget),
        cmocka_unit_test_setup_teardown(fitting_says_what_the_budget_lacks, ftr_test_setup, ftr_test_teardown),
    };
    size_t count = 0;
    for (size_t i = 0; i < FTR_TEST_LENGTH(fixed); i++)
        if (argc < 2 || strstr(fixed[i].name, argv[1])) tests[count++] = fixed[i];
    for (size_t i = 0; i < FTR_TEST_LENGTH(model_cases); i++) {
        snprintf(names[i], sizeof names[i], "%s keeps its bits", model_cases[i].name);
        if (argc < 2 || strstr(names[i], argv[1]))
            tests[count++] =
                (struct CMUnitTest){names[i], models_keep_their_bits, NULL, NULL, (void *)(uintptr_t)&model_cases[i]};
    }
    return _cmocka_run_group_tests("recomputation", tests, count, NULL, NULL);
}
