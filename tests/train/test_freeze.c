/* Freezing: what is frozen keeps its bits and costs nothing, and the rest trains as if the frozen part were data. */
#include "ftr_test.h"

enum { BATCH = 6, CLASSES = 5, IMAGE = BATCH * 8 * 8 * 3, MOST = 4096 };

static const ftr_freeze_desc with_statistics = {.norm_eval = true};

/* Two convolutions with batch norm, the body; another one and a linear layer, the head. */
typedef struct network {
    ftr_graph *graph;
    ftr_tensor input, label, features, logits, loss;
} network;

static ftr_tensor stage(ftr_tensor x, const char *name, int64_t channels, int32_t stride) {
    const ftr_conv2d_desc desc = {.stride = {stride, stride}, .padding = {1, 1, 1, 1}};
    ftr_scope_push(x.graph, name);
    x = ftr_relu(ftr_batch_norm(ftr_conv2d(x, "conv", channels, 3, &desc), "bn", NULL));
    ftr_scope_pop(x.graph);
    return x;
}

static void add_head(network *n) {
    n->label = ftr_input(n->graph, "label", FTR_I32, FTR_SHAPE(BATCH));
    n->logits = ftr_linear(ftr_global_avg_pool(stage(n->features, "head", 10, 1)), "fc", CLASSES, NULL);
    n->loss = ftr_cross_entropy(n->logits, n->label, NULL);
    FTR_TEST_GRAPH_OK(n->graph);
}

static network build(ftr_context *context) {
    network n = {.graph = ftr_graph_create(context)};
    n.input = ftr_input(n.graph, "image", FTR_F32, FTR_SHAPE(BATCH, 8, 8, 3));
    n.features = stage(stage(n.input, "body.0", 8, 1), "body.1", 6, 2);
    add_head(&n);
    return n;
}

/* The head alone, fed with features. Its parameters start as those of the whole: their names are the same. */
static network build_head(ftr_context *context) {
    network n = {.graph = ftr_graph_create(context)};
    n.input = n.features = ftr_input(n.graph, "features", FTR_F32, FTR_SHAPE(BATCH, 4, 4, 6));
    add_head(&n);
    return n;
}

static size_t bytes_of(ftr_tensor tensor) {
    const ftr_shape shape = ftr_shape_of(tensor);
    return (size_t)ftr_shape_count(&shape) * ftr_dtype_size(ftr_dtype_of(tensor));
}

static ftr_plan *compile(ftr_context *context, const network *n, const ftr_optimizer *optimizer) {
    ftr_plan *plan = NULL;
    FTR_TEST_OK(context, ftr_compile(n->graph, &(ftr_compile_desc){.loss = n->loss, .optimizer = optimizer}, &plan));
    return plan;
}

static ftr_optimizer momentum(void) {
    ftr_optimizer sgd = ftr_sgd(0.05);
    sgd.momentum = 0.9;
    sgd.weight_decay = 1e-3;
    return sgd;
}

static void make_batch(uint64_t seed, float image[IMAGE], int32_t label[BATCH]) {
    ftr_test_rng rng = {seed};
    ftr_test_fill_f32(image, IMAGE, &rng, -1.0, 1.0);
    ftr_test_fill_i32(label, BATCH, &rng, 0, CLASSES - 1);
}

static double step(ftr_context *context, const network *n, ftr_plan *plan, uint64_t seed) {
    float image[IMAGE];
    int32_t label[BATCH];
    ftr_step_info info;
    make_batch(seed, image, label);
    FTR_TEST_OK(context, ftr_feed(plan, n->input, image, sizeof image));
    FTR_TEST_OK(context, ftr_feed(plan, n->label, label, sizeof label));
    FTR_TEST_OK(context, ftr_step(plan, &info));
    return info.loss;
}

/* The bytes of all variables, and which of them have changed since. */
typedef struct snapshot {
    unsigned char data[24][MOST];
} snapshot;

static snapshot *take(ftr_graph *graph) {
    snapshot *s = malloc(sizeof *s);
    assert_true(ftr_variable_count(graph) <= 24);
    for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
        const ftr_tensor tensor = ftr_variable_at(graph, i);
        assert_true(bytes_of(tensor) <= MOST);
        assert_int_equal(ftr_variable_read(tensor, s->data[i], bytes_of(tensor)), FTR_OK);
    }
    return s;
}

static bool changed(ftr_graph *graph, const snapshot *before, int32_t index) {
    unsigned char now[MOST];
    const ftr_tensor tensor = ftr_variable_at(graph, index);
    assert_int_equal(ftr_variable_read(tensor, now, bytes_of(tensor)), FTR_OK);
    return memcmp(now, before->data[index], bytes_of(tensor)) != 0;
}

static bool starts_with(const char *text, const char *start) { return strncmp(text, start, strlen(start)) == 0; }

static bool is_statistic(ftr_tensor variable) { return strstr(ftr_name_of(variable), ".running_") != NULL; }

/* -------------------------------------------------------------------------------------------------------- values -- */

/* The body is frozen in one call, or by layers, with the optimizers that have state and decay. */
static void frozen_values_keep_their_bits(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    const ftr_optimizer optimizers[] = {momentum(), ftr_adamw(1e-2)};
    for (int variant = 0; variant < 4; variant++) {
        const bool norm_eval = variant % 2;
        network n = build(context);
        FTR_TEST_OK(context, ftr_freeze(n.graph, "body.*", norm_eval ? &with_statistics : NULL));
        snapshot *before = take(n.graph);
        ftr_plan *plan = compile(context, &n, &optimizers[variant / 2]);
        for (uint64_t i = 0; i < 4; i++) step(context, &n, plan, i);
        for (int32_t i = 0; i < ftr_variable_count(n.graph); i++) {
            const ftr_tensor variable = ftr_variable_at(n.graph, i);
            const bool in_body = starts_with(ftr_name_of(variable), "body.");
            assert_int_equal(ftr_is_frozen(variable), in_body && ftr_is_parameter(variable));
            const bool still = in_body && (norm_eval || !is_statistic(variable));
            if (changed(n.graph, before, i) == still) fail_msg("%s", ftr_name_of(variable));
        }
        free(before);
        ftr_plan_destroy(plan);
        ftr_graph_destroy(n.graph);
    }
    ftr_context_destroy(context);
}

/* A training run of the head, on any number of threads, has the bits of one on features that were computed before. */
static void the_rest_trains_as_on_constants(void **state) {
    (void)state;
    snapshot *first = NULL;
    for (int32_t threads = 1; threads <= 3; threads++) {
        ftr_context *context = ftr_test_context_with(NULL, 1, threads, NULL);
        const ftr_optimizer sgd = momentum();
        network whole = build(context), head = build_head(context);
        FTR_TEST_OK(context, ftr_freeze(whole.graph, "body.*", &with_statistics));
        ftr_plan *plan = compile(context, &whole, &sgd), *head_plan = compile(context, &head, &sgd), *body_plan;
        const ftr_compile_desc body = {.mode = FTR_MODE_EVAL, .outputs = &whole.features, .output_count = 1};
        FTR_TEST_OK(context, ftr_compile(whole.graph, &body, &body_plan));
        for (uint64_t i = 0; i < 5; i++) {
            float image[IMAGE], features[BATCH * 4 * 4 * 6];
            int32_t label[BATCH];
            ftr_step_info info;
            make_batch(i, image, label);
            FTR_TEST_OK(context, ftr_feed(body_plan, whole.input, image, sizeof image));
            FTR_TEST_OK(context, ftr_step(body_plan, NULL));
            FTR_TEST_OK(context, ftr_read(body_plan, whole.features, features, sizeof features));
            FTR_TEST_OK(context, ftr_feed(head_plan, head.input, features, sizeof features));
            FTR_TEST_OK(context, ftr_feed(head_plan, head.label, label, sizeof label));
            FTR_TEST_OK(context, ftr_step(head_plan, &info));
            assert_true(step(context, &whole, plan, i) == info.loss);
        }
        for (int32_t i = 0; i < ftr_variable_count(head.graph); i++) {
            const ftr_tensor a = ftr_variable_at(head.graph, i), b = ftr_variable_find(whole.graph, ftr_name_of(a));
            unsigned char left[MOST], right[MOST];
            FTR_TEST_OK(context, ftr_variable_read(a, left, bytes_of(a)));
            FTR_TEST_OK(context, ftr_variable_read(b, right, bytes_of(a)));
            assert_memory_equal(left, right, bytes_of(a));
        }
        if (!first) first = take(whole.graph);
        for (int32_t i = 0; i < ftr_variable_count(whole.graph); i++) assert_false(changed(whole.graph, first, i));
        ftr_plan_destroy(plan);
        ftr_plan_destroy(head_plan);
        ftr_plan_destroy(body_plan);
        ftr_graph_destroy(whole.graph);
        ftr_graph_destroy(head.graph);
        ftr_context_destroy(context);
    }
    free(first);
}

/* A frozen layer above a trained one: the gradient passes through it, by running statistics, to what is below. */
static void gradients_pass_through_frozen_layers(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    network n = build(context);
    FTR_TEST_OK(context, ftr_freeze(n.graph, "*", &with_statistics));
    FTR_TEST_OK(context, ftr_unfreeze(n.graph, "body.0.conv.*"));
    const ftr_optimizer sgd = momentum();
    ftr_plan *plan = compile(context, &n, &sgd);
    snapshot *before = take(n.graph);
    const double first = step(context, &n, plan, 1);
    double last = first;
    for (int i = 0; i < 20; i++) last = step(context, &n, plan, 1);
    assert_true(last < first);
    for (int32_t i = 0; i < ftr_variable_count(n.graph); i++) {
        const bool trained = starts_with(ftr_name_of(ftr_variable_at(n.graph, i)), "body.0.conv.");
        assert_int_equal(changed(n.graph, before, i), trained);
    }
    free(before);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(n.graph);
    ftr_context_destroy(context);
}

/* gradients_of has its way: the same gradient as without freezing, and no update. */
static void a_frozen_gradient_can_be_asked_for(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    float gradient[2][MOST / sizeof(float)];
    for (int frozen = 0; frozen < 2; frozen++) {
        network n = build(context);
        const ftr_tensor weight = ftr_variable_find(n.graph, "body.1.conv.weight");
        if (frozen) FTR_TEST_OK(context, ftr_freeze(n.graph, "body.*", NULL));
        const ftr_optimizer sgd = momentum();
        const ftr_compile_desc desc = {.loss = n.loss, .optimizer = &sgd, .gradients_of = &weight, .gradient_count = 1};
        ftr_plan *plan;
        FTR_TEST_OK(context, ftr_compile(n.graph, &desc, &plan));
        snapshot *before = take(n.graph);
        step(context, &n, plan, 3);
        FTR_TEST_OK(context, ftr_read_gradient(plan, weight, gradient[frozen], bytes_of(weight)));
        for (int32_t i = 0; i < ftr_variable_count(n.graph); i++) {
            const ftr_tensor variable = ftr_variable_at(n.graph, i);
            assert_int_equal(changed(n.graph, before, i), !ftr_is_frozen(variable));
        }
        /* another frozen one has no gradient */
        const ftr_tensor other = ftr_variable_find(n.graph, "body.0.conv.weight");
        float unused[MOST / sizeof(float)];
        assert_int_equal(ftr_read_gradient(plan, other, unused, bytes_of(other)),
                         frozen ? FTR_ERROR_INVALID_TENSOR : FTR_OK);
        if (frozen) assert_memory_equal(gradient[0], gradient[1], bytes_of(weight));
        free(before);
        ftr_plan_destroy(plan);
        ftr_graph_destroy(n.graph);
    }
    ftr_context_destroy(context);
}

/* ---------------------------------------------------------------------------------------------------------- cost -- */

/* Gradients and state are those of the trained parameters to the byte; activations are fewer. */
static void the_plan_is_smaller(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    const ftr_optimizer adamw = ftr_adamw(1e-3);
    ftr_memory memory[2];
    for (int frozen = 0; frozen < 2; frozen++) {
        network n = build(context);
        if (frozen) FTR_TEST_OK(context, ftr_freeze(n.graph, "body.*", NULL));
        ftr_plan *plan = compile(context, &n, &adamw);
        memory[frozen] = ftr_plan_memory(plan);
        size_t trained = 0;
        for (int32_t i = 0; i < ftr_variable_count(n.graph); i++) {
            const ftr_tensor variable = ftr_variable_at(n.graph, i);
            if (!ftr_is_parameter(variable) || ftr_is_frozen(variable)) continue;
            trained += (bytes_of(variable) + 63) / 64 * 64;
        }
        assert_int_equal(memory[frozen].gradients, trained);
        assert_int_equal(memory[frozen].optimizer_state, 2 * trained + 2 * 64); /* two moments, lr, step */
        ftr_plan_destroy(plan);
        ftr_graph_destroy(n.graph);
    }
    assert_int_equal(memory[0].parameters, memory[1].parameters);
    assert_true(memory[1].activations < memory[0].activations);
    assert_true(memory[1].total < memory[0].total);
    ftr_context_destroy(context);
}

typedef struct printout {
    const char *pass;
    ftr_test_text text;
} printout;

static void print_after(void *user, const char *pass, const ftr_graph *graph) {
    printout *p = user;
    if (strcmp(pass, p->pass) == 0)
        assert_int_equal(ftr_graph_print(graph, FTR_GRAPH_TEXT, ftr_test_text_write, &p->text), FTR_OK);
}

static int count_of(const char *text, const char *word) {
    int count = 0;
    for (; (text = strstr(text, word)) != NULL; text += strlen(word)) count++;
    return count;
}

/* The nodes that are left for each set of frozen layers: none of the backward pass below the lowest trained one. */
static void no_gradient_node_is_left_for_frozen_layers(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    const struct {
        const char *frozen;
        bool norm_eval;
        int weight_gradients, input_gradients, norm_gradients, statistics;
    } cases[] = {
        {NULL, false, 3, 2, 3, 6},         {"body.0.*", false, 2, 1, 2, 6}, {"body.*", false, 1, 0, 1, 6},
        {"body.*", true, 1, 0, 1, 2},      {"*.*.*", true, 0, 0, 0, 0},     {"*conv.weight", false, 0, 2, 3, 6},
        {"body.1.bn.*", true, 3, 2, 3, 4},
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        network n = build(context);
        if (cases[i].frozen) {
            const ftr_freeze_desc desc = {.norm_eval = cases[i].norm_eval};
            FTR_TEST_OK(context, ftr_freeze(n.graph, cases[i].frozen, &desc));
        }
        printout *p = calloc(1, sizeof *p);
        p->pass = "schedule";
        const ftr_optimizer sgd = momentum();
        const ftr_compile_desc desc = {.loss = n.loss, .optimizer = &sgd, .on_pass = print_after, .on_pass_user = p};
        ftr_plan *plan;
        FTR_TEST_OK(context, ftr_compile(n.graph, &desc, &plan));
        assert_int_equal(count_of(p->text.text, "conv2d_grad_weight '"), cases[i].weight_gradients);
        assert_int_equal(count_of(p->text.text, "conv2d_grad_input '"), cases[i].input_gradients);
        assert_int_equal(count_of(p->text.text, "batch_norm_grad '"), cases[i].norm_gradients);
        assert_int_equal(count_of(p->text.text, "ema_update '"), cases[i].statistics);
        int frozen = 0, momenta = 0;
        for (int32_t k = 0; k < ftr_variable_count(n.graph); k++) {
            const ftr_tensor variable = ftr_variable_at(n.graph, k);
            frozen += ftr_is_frozen(variable);
            momenta += ftr_is_parameter(variable) && !ftr_is_frozen(variable);
        }
        assert_int_equal(count_of(p->text.text, " frozen -> "), frozen);
        assert_int_equal(count_of(p->text.text, ".momentum_buffer'"), momenta);
        free(p);
        ftr_plan_destroy(plan);
        ftr_graph_destroy(n.graph);
    }
    ftr_context_destroy(context);
}

/* ------------------------------------------------------------------------------------------------ between compiles -- */

/* A plan keeps to what was frozen when it was compiled. */
static void plans_stay_as_compiled(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    network n = build(context);
    const ftr_optimizer sgd = momentum();
    const ftr_tensor weight = ftr_variable_find(n.graph, "body.0.conv.weight");
    int32_t index = 0;
    while (ftr_variable_at(n.graph, index).id != weight.id) index++;
    ftr_plan *free_plan = compile(context, &n, &sgd);
    FTR_TEST_OK(context, ftr_freeze(n.graph, "*.conv.*", NULL));
    ftr_plan *frozen_plan = compile(context, &n, &sgd);
    FTR_TEST_OK(context, ftr_unfreeze(n.graph, "body.0.conv.weight"));
    assert_false(ftr_is_frozen(weight));
    assert_true(ftr_is_frozen(ftr_variable_find(n.graph, "body.0.conv.bias")));
    ftr_plan *later_plan = compile(context, &n, &sgd);
    ftr_plan *const plans[] = {free_plan, frozen_plan, later_plan};
    for (int i = 0; i < 3; i++) {
        snapshot *before = take(n.graph);
        step(context, &n, plans[i], 1);
        assert_int_equal(changed(n.graph, before, index), i != 1);
        free(before);
        ftr_plan_destroy(plans[i]);
    }
    ftr_graph_destroy(n.graph);
    ftr_context_destroy(context);
}

/* The last call decides, about the statistics too; evaluation plans do not care. */
static void the_last_call_decides(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    network n = build(context);
    const ftr_optimizer sgd = momentum();
    int32_t index = 0;
    while (strcmp(ftr_name_of(ftr_variable_at(n.graph, index)), "body.0.bn.running_mean") != 0) index++;
    for (int i = 0; i < 4; i++) {
        const bool norm_eval = i == 1, frozen = i != 3;
        if (frozen)
            FTR_TEST_OK(context, ftr_freeze(n.graph, "body.?.bn.*", norm_eval ? &with_statistics : NULL));
        else
            FTR_TEST_OK(context, ftr_unfreeze(n.graph, "*"));
        assert_int_equal(ftr_is_frozen(ftr_variable_find(n.graph, "body.0.bn.weight")), frozen);
        ftr_plan *plan = compile(context, &n, &sgd);
        snapshot *before = take(n.graph);
        step(context, &n, plan, 1);
        assert_int_equal(changed(n.graph, before, index), !norm_eval);
        free(before);
        ftr_plan_destroy(plan);
    }
    ftr_graph_destroy(n.graph);
    ftr_context_destroy(context);
}

/* Statistics that do not follow the batch leave no row out, so the mask need not be fed. */
static void frozen_statistics_need_no_batch_mask(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    ftr_batch_mask(graph, 4);
    const ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(4, 3));
    const ftr_tensor y = ftr_batch_norm(x, "bn", NULL);
    const float data[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    float result[12];
    FTR_TEST_OK(context, ftr_freeze(graph, "bn.weight", &with_statistics)); /* gamma decides */
    ftr_plan *plan;
    FTR_TEST_OK(context, ftr_compile(graph, &(ftr_compile_desc){.outputs = &y, .output_count = 1}, &plan));
    FTR_TEST_OK(context, ftr_feed(plan, x, data, sizeof data));
    FTR_TEST_OK(context, ftr_step(plan, NULL));
    FTR_TEST_OK(context, ftr_read(plan, y, result, sizeof result));
    for (int i = 0; i < 12; i++) assert_true(fabsf(result[i] - data[i] / sqrtf(1 + 1e-5f)) < 1e-5f);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

static void fit_trains_the_rest(void **state) {
    (void)state;
    static float images[2][IMAGE];
    static int32_t labels[2][BATCH];
    ftr_context *context = ftr_test_context();
    for (int i = 0; i < 2; i++) make_batch((uint64_t)i, images[i], labels[i]);
    const ftr_field fields[] = {{"image", FTR_F32, FTR_SHAPE(8, 8, 3)}, {"label", FTR_I32, ftr_scalar_shape()}};
    ftr_source *source;
    FTR_TEST_OK(context,
                ftr_memory_source(context, "images", 2 * BATCH, fields, (const void *[]){images, labels}, 2, &source));
    network n = build(context);
    FTR_TEST_OK(context, ftr_freeze(n.graph, "*", &with_statistics));
    FTR_TEST_OK(context, ftr_unfreeze(n.graph, "head.*"));
    snapshot *before = take(n.graph);
    ftr_train_desc desc = ftr_train_defaults();
    desc.loss = n.loss;
    desc.optimizer = ftr_adamw(1e-2);
    desc.train = desc.eval = source;
    desc.epochs = 8;
    desc.progress = FTR_PROGRESS_SILENT;
    ftr_train_result first, last;
    FTR_TEST_OK(context, ftr_evaluate(n.graph, &desc, &first));
    FTR_TEST_OK(context, ftr_fit(n.graph, &desc, &last));
    assert_true(last.eval_loss < first.eval_loss);
    for (int32_t i = 0; i < ftr_variable_count(n.graph); i++) {
        const bool trained = starts_with(ftr_name_of(ftr_variable_at(n.graph, i)), "head.");
        assert_int_equal(changed(n.graph, before, i), trained);
    }
    free(before);
    ftr_source_destroy(source);
    ftr_graph_destroy(n.graph);
    ftr_context_destroy(context);
}

/* -------------------------------------------------------------------------------------------------------- errors -- */

static void errors(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    network n = build(context);
    assert_int_equal(ftr_freeze(NULL, "*", NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_unfreeze(NULL, "*"), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_freeze(n.graph, NULL, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context), "ftr_freeze: pattern is NULL");
    assert_int_equal(ftr_freeze(n.graph, "backbone.*", NULL), FTR_ERROR_NAME);
    assert_string_equal(ftr_error_message(context),
                        "ftr_freeze: pattern 'backbone.*' fits none of the graph's 14 parameters");
    assert_int_equal(ftr_unfreeze(n.graph, "body.?.bn.running_*"), FTR_ERROR_NAME); /* buffers are not trained */
    assert_string_equal(ftr_error_message(context),
                        "ftr_unfreeze: pattern 'body.?.bn.running_*' fits none of the graph's 14 parameters");
    for (int32_t i = 0; i < ftr_variable_count(n.graph); i++) assert_false(ftr_is_frozen(ftr_variable_at(n.graph, i)));
    assert_false(ftr_is_frozen(n.input));
    assert_false(ftr_is_frozen((ftr_tensor){NULL, 0}));
    assert_int_equal(ftr_graph_status(n.graph), FTR_OK); /* nothing sticks to the graph */

    const ftr_optimizer sgd = ftr_sgd(0.1);
    ftr_plan *plan;
    FTR_TEST_OK(context, ftr_freeze(n.graph, "*", NULL));
    assert_int_equal(ftr_compile(n.graph, &(ftr_compile_desc){.loss = n.loss, .optimizer = &sgd}, &plan),
                     FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context), "compile: optimizer is given, but the loss depends on no parameter "
                                                    "that is not frozen (14 are)");
    FTR_TEST_OK(context, ftr_compile(n.graph, &(ftr_compile_desc){.loss = n.loss}, &plan)); /* nobody trains: fine */
    ftr_plan_destroy(plan);
    ftr_graph_destroy(n.graph);

    ftr_graph *graph = ftr_graph_create(context);
    const ftr_init zeros = {FTR_INIT_ZEROS, 0, 0};
    const ftr_tensor p = ftr_parameter(graph, "p", FTR_F32, FTR_SHAPE(2), zeros);
    const ftr_tensor unused = ftr_parameter(graph, "unused", FTR_F32, FTR_SHAPE(2), zeros);
    const ftr_tensor loss = ftr_sum(p, ftr_all_axes(), false);
    FTR_TEST_OK(context, ftr_freeze(graph, "p", NULL));
    assert_int_equal(ftr_compile(graph, &(ftr_compile_desc){.loss = loss, .optimizer = &sgd}, &plan),
                     FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context), "compile: optimizer is given, but the loss depends on no parameter "
                                                    "that is not frozen (1 is)");
    FTR_TEST_OK(context, ftr_unfreeze(graph, "p"));
    const ftr_tensor constant = ftr_scalar(graph, FTR_F32, 1.0);
    assert_int_equal(ftr_compile(graph, &(ftr_compile_desc){.loss = constant, .optimizer = &sgd}, &plan),
                     FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(context),
                        "compile: optimizer is given, but the loss depends on no parameter");
    assert_true(ftr_is_valid(unused));
    ftr_parameter(graph, "p", FTR_F32, FTR_SHAPE(2), zeros); /* the name is taken, and the graph done for */
    assert_int_equal(ftr_freeze(graph, "p", NULL), ftr_graph_status(graph));
    assert_string_equal(ftr_error_message(context), ftr_graph_error(graph));
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frozen_values_keep_their_bits),
        cmocka_unit_test(the_rest_trains_as_on_constants),
        cmocka_unit_test(gradients_pass_through_frozen_layers),
        cmocka_unit_test(a_frozen_gradient_can_be_asked_for),
        cmocka_unit_test(the_plan_is_smaller),
        cmocka_unit_test(no_gradient_node_is_left_for_frozen_layers),
        cmocka_unit_test(plans_stay_as_compiled),
        cmocka_unit_test(the_last_call_decides),
        cmocka_unit_test(frozen_statistics_need_no_batch_mask),
        cmocka_unit_test(fit_trains_the_rest),
        cmocka_unit_test(errors),
    };
    return cmocka_run_group_tests_name("freezing", tests, NULL, NULL);
}
