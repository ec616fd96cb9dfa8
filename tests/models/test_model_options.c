/* The models' options and mistakes, and the same bits for any number of threads. */
#include "ftr_test.h"
#include "model_zoo.h"

/* ------------------------------------------------------------------------------------------------------ mistakes -- */

typedef struct fixture {
    ftr_context *context;
    ftr_graph *graph;
    ftr_tensor image; /* f32 [2, 32, 32, 3] */
} fixture;

typedef struct mistake {
    ftr_status status;
    const char *sentence;
    ftr_tensor (*make)(const fixture *f);
} mistake;

static ftr_tensor image_of(const fixture *f, ftr_dtype dtype, ftr_shape shape) {
    return ftr_input(f->graph, "other", dtype, shape);
}

static ftr_tensor resnet_null(const fixture *f) { return ftr_resnet((ftr_tensor){f->graph, 0}, NULL); }

static ftr_tensor resnet_rank(const fixture *f) { return ftr_resnet(image_of(f, FTR_F32, FTR_SHAPE(2, 32, 32)), NULL); }

static ftr_tensor resnet_dtype(const fixture *f) {
    return ftr_resnet(image_of(f, FTR_U8, FTR_SHAPE(2, 32, 32, 3)), NULL);
}

static ftr_tensor resnet_channels(const fixture *f) {
    return ftr_resnet(image_of(f, FTR_F32, FTR_SHAPE(2, 32, 32, 0)), NULL);
}

static ftr_tensor resnet_size(const fixture *f) {
    return ftr_resnet(image_of(f, FTR_F32, FTR_SHAPE(2, 0, 32, 3)), NULL);
}

static ftr_tensor resnet_depth(const fixture *f) { return ftr_resnet(f->image, &(ftr_resnet_desc){.depth = 20}); }

static ftr_tensor resnet_classes(const fixture *f) { return ftr_resnet(f->image, &(ftr_resnet_desc){.classes = -3}); }

static ftr_tensor resnet_scope(const fixture *f) {
    ftr_scope_push(f->graph, "teacher");
    return ftr_resnet(f->image, &(ftr_resnet_desc){.depth = -18});
}

static ftr_tensor resnet_twice(const fixture *f) {
    ftr_resnet_cifar(f->image, &(ftr_resnet_cifar_desc){.depth = 8});
    return ftr_resnet_cifar(f->image, &(ftr_resnet_cifar_desc){.depth = 8});
}

static ftr_tensor cifar_depth(const fixture *f) {
    return ftr_resnet_cifar(f->image, &(ftr_resnet_cifar_desc){.depth = 18});
}

static ftr_tensor cifar_depth_two(const fixture *f) {
    return ftr_resnet_cifar(f->image, &(ftr_resnet_cifar_desc){.depth = 2});
}

static ftr_tensor cifar_rank(const fixture *f) {
    return ftr_resnet_cifar(image_of(f, FTR_F32, FTR_SHAPE(32, 3)), NULL);
}

static ftr_tensor mlp_null(const fixture *f) { return ftr_mlp((ftr_tensor){f->graph, 0}, NULL); }

static ftr_tensor mlp_hidden(const fixture *f) { return ftr_mlp(f->image, &(ftr_mlp_desc){.hidden_count = 2}); }

static ftr_tensor mlp_hidden_count(const fixture *f) { return ftr_mlp(f->image, &(ftr_mlp_desc){.hidden_count = -1}); }

static ftr_tensor mlp_hidden_size(const fixture *f) {
    static const int64_t hidden[] = {8, 0};
    return ftr_mlp(f->image, &(ftr_mlp_desc){.hidden = hidden, .hidden_count = 2});
}

static ftr_tensor mlp_dropout(const fixture *f) { return ftr_mlp(f->image, &(ftr_mlp_desc){.dropout = 1.5}); }

static ftr_tensor mlp_scalar(const fixture *f) {
    return ftr_mlp(ftr_input(f->graph, "other", FTR_F32, ftr_scalar_shape()), NULL);
}

static ftr_tensor mnist_size(const fixture *f) {
    return ftr_mnist_cnn(image_of(f, FTR_F32, FTR_SHAPE(2, 28, 5, 1)), NULL);
}

static ftr_tensor mnist_cookie(const fixture *f) {
    return ftr_mnist_cnn(f->image, &(ftr_mnist_cnn_desc){.classes = 10});
}

static ftr_tensor mnist_dropout(const fixture *f) {
    ftr_mnist_cnn_desc desc = ftr_mnist_cnn_defaults();
    desc.dropout2 = -0.5;
    return ftr_mnist_cnn(f->image, &desc);
}

static ftr_tensor v2_cookie(const fixture *f) {
    return ftr_mobilenet_v2(f->image, &(ftr_mobilenet_v2_desc){.width = 1.0});
}

static ftr_tensor v2_width(const fixture *f) {
    ftr_mobilenet_v2_desc desc = ftr_mobilenet_v2_defaults();
    desc.width = 0.0;
    return ftr_mobilenet_v2(f->image, &desc);
}

static ftr_tensor v2_width_nan(const fixture *f) {
    ftr_mobilenet_v2_desc desc = ftr_mobilenet_v2_defaults();
    desc.width = (double)NAN;
    return ftr_mobilenet_v2(f->image, &desc);
}

static ftr_tensor v2_dropout(const fixture *f) {
    ftr_mobilenet_v2_desc desc = ftr_mobilenet_v2_defaults();
    desc.dropout = 2.0;
    return ftr_mobilenet_v2(f->image, &desc);
}

static ftr_tensor v3_cookie(const fixture *f) {
    return ftr_mobilenet_v3(f->image, &(ftr_mobilenet_v3_desc){.small = true});
}

static ftr_tensor v3_width(const fixture *f) {
    ftr_mobilenet_v3_desc desc = ftr_mobilenet_v3_defaults();
    desc.width = 17.0;
    return ftr_mobilenet_v3(f->image, &desc);
}

static ftr_tensor v3_classes(const fixture *f) {
    ftr_mobilenet_v3_desc desc = ftr_mobilenet_v3_defaults();
    desc.classes = -1;
    return ftr_mobilenet_v3(f->image, &desc);
}

static ftr_tensor efficientnet_cookie(const fixture *f) {
    return ftr_efficientnet(f->image, &(ftr_efficientnet_desc){.variant = 1});
}

static ftr_tensor efficientnet_variant(const fixture *f) {
    const ftr_efficientnet_desc desc = ftr_efficientnet_defaults(9);
    return ftr_efficientnet(f->image, &desc);
}

static ftr_tensor efficientnet_depth(const fixture *f) {
    ftr_efficientnet_desc desc = ftr_efficientnet_defaults(0);
    desc.stochastic_depth = (double)NAN;
    return ftr_efficientnet(f->image, &desc);
}

static ftr_tensor efficientnet_dropout(const fixture *f) {
    ftr_efficientnet_desc desc = ftr_efficientnet_defaults(0);
    desc.dropout = -1.0;
    return ftr_efficientnet(f->image, &desc);
}

static ftr_tensor lite0_cookie(const fixture *f) {
    return ftr_efficientnet_lite0(f->image, &(ftr_efficientnet_lite0_desc){.dropout = 0.2});
}

static ftr_tensor lite0_depth(const fixture *f) {
    ftr_efficientnet_lite0_desc desc = ftr_efficientnet_lite0_defaults();
    desc.stochastic_depth = 1.25;
    return ftr_efficientnet_lite0(f->image, &desc);
}

static const mistake mistakes[] = {
    {FTR_ERROR_INVALID_TENSOR, "resnet: the image is a null tensor", resnet_null},
    {FTR_ERROR_RANK, "resnet: the image has rank 3, expected 4 (n, h, w, c)", resnet_rank},
    {FTR_ERROR_DTYPE, "resnet: the image is u8, expected f32 or f64", resnet_dtype},
    {FTR_ERROR_SHAPE, "resnet: the image has 0 channels, expected 1 or more", resnet_channels},
    {FTR_ERROR_SHAPE, "resnet: the image has 0 x 32 pixels, expected 1 x 1 or more", resnet_size},
    {FTR_ERROR_INVALID_ARGUMENT, "resnet: depth is 20, expected 18, 34, 50, 101 or 152", resnet_depth},
    {FTR_ERROR_INVALID_ARGUMENT, "resnet: classes is -3, expected 1 or more", resnet_classes},
    {FTR_ERROR_INVALID_ARGUMENT, "resnet 'teacher': depth is -18, expected 18, 34, 50, 101 or 152", resnet_scope},
    {FTR_ERROR_NAME, "parameter 'conv1.weight': the name is used by another parameter or buffer", resnet_twice},
    {FTR_ERROR_INVALID_ARGUMENT, "resnet_cifar: depth is 18, expected 6 n + 2: 8, 14, 20, 26 ...", cifar_depth},
    {FTR_ERROR_INVALID_ARGUMENT, "resnet_cifar: depth is 2, expected 6 n + 2: 8, 14, 20, 26 ...", cifar_depth_two},
    {FTR_ERROR_RANK, "resnet_cifar: the image has rank 2, expected 4 (n, h, w, c)", cifar_rank},
    {FTR_ERROR_INVALID_TENSOR, "mlp: the input is a null tensor", mlp_null},
    {FTR_ERROR_INVALID_ARGUMENT, "mlp: hidden is NULL, expected 2 sizes", mlp_hidden},
    {FTR_ERROR_INVALID_ARGUMENT, "mlp: hidden_count is -1, expected 0 or more", mlp_hidden_count},
    {FTR_ERROR_INVALID_ARGUMENT, "linear '2': out_features 0, expected 1 or more", mlp_hidden_size},
    {FTR_ERROR_INVALID_ARGUMENT, "mlp: dropout is 1.5, expected 0 to 1", mlp_dropout},
    {FTR_ERROR_RANK, "linear '0': input has rank 0, expected 1 or more (..., in)", mlp_scalar},
    {FTR_ERROR_SHAPE, "mnist_cnn: the image has 28 x 5 pixels, expected 6 x 6 or more", mnist_size},
    {FTR_ERROR_INVALID_ARGUMENT, "mnist_cnn: desc was not made by ftr_mnist_cnn_defaults()", mnist_cookie},
    {FTR_ERROR_INVALID_ARGUMENT, "mnist_cnn: dropout2 is -0.5, expected 0 to 1", mnist_dropout},
    {FTR_ERROR_INVALID_ARGUMENT, "mobilenet_v2: desc was not made by ftr_mobilenet_v2_defaults()", v2_cookie},
    {FTR_ERROR_INVALID_ARGUMENT, "mobilenet_v2: width is 0, expected above 0 to 16", v2_width},
    {FTR_ERROR_INVALID_ARGUMENT, "mobilenet_v2: width is nan, expected above 0 to 16", v2_width_nan},
    {FTR_ERROR_INVALID_ARGUMENT, "mobilenet_v2: dropout is 2, expected 0 to 1", v2_dropout},
    {FTR_ERROR_INVALID_ARGUMENT, "mobilenet_v3: desc was not made by ftr_mobilenet_v3_defaults()", v3_cookie},
    {FTR_ERROR_INVALID_ARGUMENT, "mobilenet_v3: width is 17, expected above 0 to 16", v3_width},
    {FTR_ERROR_INVALID_ARGUMENT, "mobilenet_v3: classes is -1, expected 1 or more", v3_classes},
    {FTR_ERROR_INVALID_ARGUMENT, "efficientnet: desc was not made by ftr_efficientnet_defaults()", efficientnet_cookie},
    {FTR_ERROR_INVALID_ARGUMENT, "efficientnet: variant is 9, expected 0 to 2", efficientnet_variant},
    {FTR_ERROR_INVALID_ARGUMENT, "efficientnet: stochastic_depth is nan, expected 0 to 1", efficientnet_depth},
    {FTR_ERROR_INVALID_ARGUMENT, "efficientnet: dropout is -1, expected 0 to 1", efficientnet_dropout},
    {FTR_ERROR_INVALID_ARGUMENT, "efficientnet_lite0: desc was not made by ftr_efficientnet_lite0_defaults()",
     lite0_cookie},
    {FTR_ERROR_INVALID_ARGUMENT, "efficientnet_lite0: stochastic_depth is 1.25, expected 0 to 1", lite0_depth},
};

static void test_mistakes(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    for (size_t i = 0; i < FTR_TEST_LENGTH(mistakes); i++) {
        fixture f = {.context = context, .graph = ftr_graph_create(context)};
        f.image = ftr_input(f.graph, "image", FTR_F32, FTR_SHAPE(2, 32, 32, 3));
        assert_false(ftr_is_valid(mistakes[i].make(&f)));
        assert_string_equal(ftr_graph_error(f.graph), mistakes[i].sentence);
        assert_int_equal(ftr_graph_status(f.graph), mistakes[i].status);
        ftr_graph_destroy(f.graph);
    }
    ftr_context_destroy(context);
}

/* A handle without a graph has nowhere to report; what is built on the model does. */
static void test_null_image(void **state) {
    (void)state;
    const ftr_tensor none = {NULL, 0};
    assert_false(ftr_is_valid(ftr_mlp(none, NULL)));
    assert_false(ftr_is_valid(ftr_mnist_cnn(none, NULL)));
    assert_false(ftr_is_valid(ftr_resnet(none, NULL)));
    assert_false(ftr_is_valid(ftr_resnet_cifar(none, NULL)));
    assert_false(ftr_is_valid(ftr_mobilenet_v2(none, NULL)));
    assert_false(ftr_is_valid(ftr_mobilenet_v3(none, NULL)));
    assert_false(ftr_is_valid(ftr_efficientnet(none, NULL)));
    assert_false(ftr_is_valid(ftr_efficientnet_lite0(none, NULL)));
}

/* The first failure sticks; models built after it add nothing and say nothing. */
static void test_failed_graph(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    const ftr_tensor image = ftr_input(graph, "image", FTR_F32, FTR_SHAPE(2, 32, 32, 3));
    ftr_scope_pop(graph);
    for (int32_t i = 0; zoo_at(i); i++) assert_false(ftr_is_valid(zoo_at(i)->build(image, &(zoo_options){0})));
    assert_string_equal(ftr_graph_error(graph), "scope: there is none to leave");
    assert_int_equal(ftr_variable_count(graph), 0);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

/* Memory that runs out anywhere while building is the graph's error, and nothing is lost. */
static void test_out_of_memory(void **state) {
    (void)state;
    int64_t failures = 0;
    for (int64_t at = 2;; at++) {
        ftr_test_memory memory = {.fail_at = at, .fail_after = true};
        ftr_context_desc desc = {.threads = 1, .log_level = FTR_LOG_SILENT, .allocator = ftr_test_allocator(&memory)};
        ftr_context *context = NULL;
        if (ftr_context_create(&desc, &context) != FTR_OK) continue;
        ftr_graph *graph = ftr_graph_create(context);
        const ftr_tensor logits = ftr_efficientnet(ftr_input(graph, "image", FTR_F32, FTR_SHAPE(1, 32, 32, 3)), NULL);
        const bool failed = !graph || ftr_graph_status(graph) != FTR_OK;
        assert_int_equal(failed, !ftr_is_valid(logits));
        if (graph && failed) assert_int_equal(ftr_graph_status(graph), FTR_ERROR_OUT_OF_MEMORY);
        ftr_graph_destroy(graph);
        ftr_context_destroy(context);
        assert_true(memory.blocks == 0 && memory.wrong == 0);
        if (!failed) break;
        failures++;
    }
    assert_true(failures > 3);
}

/* ------------------------------------------------------------------------------------------------------- options -- */

static const char *const heads[] = {"classifier.", "fc.", "fc2.", "linear.", "_fc.", "head.", "heads.", "lm_head."};

static bool is_head(const char *name) {
    for (size_t i = 0; i < FTR_TEST_LENGTH(heads); i++)
        if (strncmp(name, heads[i], strlen(heads[i])) == 0) return true;
    return false;
}

/* Without the classifier the parameters are all others, and the features have the size that the classifier takes. */
static void test_features_only(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    for (int32_t m = 0; zoo_at(m); m++) {
        const zoo_model *model = zoo_at(m);
        if (model->input_dtype != FTR_F32 || strcmp(model->name, "mlp") == 0) continue;
        ftr_graph *whole = ftr_graph_create(context), *part = ftr_graph_create(context);
        zoo_build(whole, model, model->input, &(zoo_options){0});
        const ftr_tensor x = ftr_input(part, "x", model->input_dtype, model->input);
        const ftr_tensor features = model->build(x, &(zoo_options){.features_only = true});
        FTR_TEST_GRAPH_OK(whole);
        FTR_TEST_GRAPH_OK(part);
        int32_t others = 0;
        int64_t size = 0;
        for (int32_t i = 0; i < ftr_variable_count(whole); i++) {
            const ftr_tensor variable = ftr_variable_at(whole, i);
            const char *name = ftr_name_of(variable);
            if (!is_head(name)) {
                assert_true(ftr_is_valid(ftr_variable_find(part, name)));
                others++;
            } else if (size == 0) { /* the classifier's first weight */
                size = ftr_shape_of(variable).dim[1];
            }
        }
        assert_int_equal(ftr_variable_count(part), others);
        const ftr_shape shape = ftr_shape_of(features), expected = FTR_SHAPE(model->input.dim[0], size);
        if (!ftr_shape_equal(&shape, &expected)) fail_msg("%s: the features have another shape", model->name);
        ftr_graph_destroy(part);
        ftr_graph_destroy(whole);
    }
    ftr_context_destroy(context);
}

static void evaluate(ftr_context *context, ftr_graph *graph, const zoo_network *net, float *logits) {
    const ftr_compile_desc desc = {.mode = FTR_MODE_EVAL, .outputs = &net->logits, .output_count = 1};
    ftr_plan *plan = NULL;
    FTR_TEST_GRAPH_OK(graph);
    FTR_TEST_OK(context, zoo_fill_weights(graph, 1.0, false));
    FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
    FTR_TEST_OK(context, zoo_feed(plan, net, "head"));
    FTR_TEST_OK(context, ftr_step(plan, NULL));
    FTR_TEST_OK(context, ftr_read(plan, net->logits, logits, zoo_bytes(net->logits)));
    ftr_plan_destroy(plan);
}

/* The features with a linear layer under the classifier's name are the whole model, to the bit. */
static void test_own_head(void **state) {
    (void)state;
    static const struct {
        const char *model, *head;
    } cases[] = {{"mlp", "4"},
                 {"mnist_cnn", "fc2"},
                 {"resnet20", "linear"},
                 {"mobilenet_v2_half", "classifier.1"},
                 {"efficientnet_lite0", "_fc"}};
    ftr_context *context = ftr_test_context();
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        const zoo_model *model = zoo_find(cases[i].model);
        ftr_graph *whole = ftr_graph_create(context), *part = ftr_graph_create(context);
        float expected[10], found[10];
        const zoo_network net = zoo_build(whole, model, model->input, &(zoo_options){.classes = 10});
        evaluate(context, whole, &net, expected);
        zoo_network own = {.x = ftr_input(part, "x", FTR_F32, model->input)};
        own.y = ftr_input(part, "y", FTR_I32, FTR_SHAPE(1));
        own.logits = ftr_linear(model->build(own.x, &(zoo_options){.features_only = true}), cases[i].head, 10, NULL);
        evaluate(context, part, &own, found);
        assert_memory_equal(found, expected, sizeof expected);
        ftr_graph_destroy(part);
        ftr_graph_destroy(whole);
    }
    ftr_context_destroy(context);
}

/* Two models in one graph, and other numbers of channels and sizes of images than usual. */
static void test_scopes_and_sizes(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    const ftr_tensor image = ftr_input(graph, "image", FTR_F32, FTR_SHAPE(2, 33, 47, 5));
    ftr_scope_push(graph, "student");
    const ftr_tensor a = ftr_resnet_cifar(image, &(ftr_resnet_cifar_desc){.depth = 8, .classes = 7});
    ftr_scope_pop(graph);
    ftr_scope_push(graph, "teacher");
    const ftr_tensor b = ftr_resnet(image, &(ftr_resnet_desc){.depth = 18, .classes = 7});
    ftr_scope_pop(graph);
    const ftr_tensor c = ftr_efficientnet_lite0(image, NULL);
    FTR_TEST_GRAPH_OK(graph);
    const ftr_shape shape_a = ftr_shape_of(a), shape_b = ftr_shape_of(b), shape_c = ftr_shape_of(c);
    assert_true(ftr_shape_equal(&shape_a, &FTR_SHAPE(2, 7)) && ftr_shape_equal(&shape_b, &FTR_SHAPE(2, 7)));
    assert_true(ftr_shape_equal(&shape_c, &FTR_SHAPE(2, 1000)));
    assert_true(ftr_is_valid(ftr_variable_find(graph, "student.layer1.0.conv1.weight")));
    assert_true(ftr_is_valid(ftr_variable_find(graph, "teacher.layer1.0.conv1.weight")));
    const ftr_shape stem = ftr_shape_of(ftr_variable_find(graph, "teacher.conv1.weight"));
    assert_true(ftr_shape_equal(&stem, &FTR_SHAPE(64, 7, 7, 5)));
    assert_true(ftr_is_valid(ftr_variable_find(graph, "_conv_stem.weight")));
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

/* ftr_write_fn: collects text of any length. */
typedef struct growing_text {
    char *text;
    size_t length;
} growing_text;

static void grow(void *user, const char *text, size_t length) {
    growing_text *into = user;
    into->text = realloc(into->text, into->length + length + 1);
    memcpy(into->text + into->length, text, length);
    into->length += length;
    into->text[into->length] = '\0';
}

/* The probabilities above 0 of a graph's nodes of one op, in order. */
static int32_t probabilities_of(ftr_graph *graph, const char *op, double *p, int32_t capacity) {
    growing_text text = {0};
    int32_t count = 0;
    char pattern[64], *next = NULL;
    snprintf(pattern, sizeof pattern, " = %s '", op);
    assert_int_equal(ftr_graph_print(graph, FTR_GRAPH_TEXT, grow, &text), FTR_OK);
    for (char *line = strtok_r(text.text, "\n", &next); line; line = strtok_r(NULL, "\n", &next)) {
        const char *at = strstr(line, pattern), *value = strstr(line, " p ");
        if (!at || !value || strtod(value + 3, NULL) <= 0) continue;
        assert_in_range(count, 0, capacity - 1);
        p[count++] = strtod(value + 3, NULL);
    }
    free(text.text);
    return count;
}

/* Stochastic depth grows linearly over the blocks; those without a shortcut have none. Dropout stands before the
 * classifier, with the rate that the reference has. */
static void test_rates(void **state) {
    (void)state;
    static const int32_t shortcuts[] = {2, 4, 6, 7, 9, 10, 12, 13, 14}; /* of B0's 16 blocks, from 0 */
    static const struct {
        const char *model;
        int32_t depths, blocks; /* nodes of stochastic depth, of how many blocks */
        double dropout;
    } cases[] = {{"efficientnet_b0", 9, 16, 0.2},  {"efficientnet_b1", 16, 23, 0.2},
                 {"efficientnet_b2", 16, 23, 0.3}, {"efficientnet_lite0", 9, 16, 0.2},
                 {"mobilenet_v2", 0, 0, 0.2},      {"mobilenet_v3_large", 0, 0, 0.2},
                 {"mobilenet_v3_small", 0, 0, 0.2}};
    ftr_context *context = ftr_test_context();
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        const zoo_model *model = zoo_find(cases[i].model);
        ftr_graph *graph = ftr_graph_create(context);
        double p[32], dropout[32];
        zoo_build(graph, model, model->input, &(zoo_options){.random = true});
        FTR_TEST_GRAPH_OK(graph);
        assert_int_equal(probabilities_of(graph, "stochastic_depth", p, 32), cases[i].depths);
        assert_int_equal(probabilities_of(graph, "dropout", dropout, 32), 1);
        assert_true(fabs(dropout[0] - cases[i].dropout) <= 1e-6);
        for (int32_t k = 0; k < cases[i].depths && cases[i].blocks == 16; k++)
            assert_true(fabs(p[k] - 0.2 * shortcuts[k] / 16) <= 1e-5);
        for (int32_t k = 1; k < cases[i].depths; k++) assert_true(p[k] > p[k - 1] && p[k] < 0.2);
        ftr_graph_destroy(graph);
    }
    ftr_context_destroy(context);
}

/* ---------------------------------------------------------------------------------------------------------- bits -- */

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) hash = (hash ^ ((const unsigned char *)data)[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* A hash of the logits and all gradients of a training step with dropout. */
static uint64_t step_hash(const zoo_model *model, int32_t threads) {
    ftr_context *context = ftr_test_context_with(NULL, 3, threads, NULL);
    ftr_graph *graph = ftr_graph_create(context);
    ftr_shape input = model->input;
    input.dim[0] = 3;
    if (input.rank == 4 && input.dim[1] > 40) input.dim[1] = 48, input.dim[2] = 32; /* whole patches */
    const zoo_network net = zoo_build(graph, model, input, &(zoo_options){.classes = 11, .random = true});
    FTR_TEST_GRAPH_OK(graph);
    FTR_TEST_OK(context, zoo_fill_weights(graph, 1.0, false));
    ftr_compile_desc desc = {.loss = net.loss, .outputs = &net.logits, .output_count = 1};
    ftr_tensor *parameters = zoo_parameters(graph, &desc.gradient_count);
    desc.gradients_of = parameters;
    ftr_plan *plan = NULL;
    FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
    FTR_TEST_OK(context, zoo_feed(plan, &net, "bits"));
    FTR_TEST_OK(context, ftr_step(plan, NULL));
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (int32_t i = -1; i < desc.gradient_count; i++) {
        const ftr_tensor tensor = i < 0 ? net.logits : parameters[i];
        void *data = malloc(zoo_bytes(tensor));
        FTR_TEST_OK(context, i < 0 ? ftr_read(plan, tensor, data, zoo_bytes(tensor))
                                   : ftr_read_gradient(plan, tensor, data, zoo_bytes(tensor)));
        hash = hash_bytes(hash, data, zoo_bytes(tensor));
        free(data);
    }
    ftr_plan_destroy(plan);
    free(parameters);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
    return hash;
}

/* Larger ones of a family, with the same kinds of layers: one number of threads is compared with another. */
static const char *const large[] = {"resnet34",        "resnet101", "resnet152", "efficientnet_b1",
                                    "efficientnet_b2", "vit_s_16",  "vit_b_16",  "gpt2"};

static bool is_large(const char *name) {
    for (size_t i = 0; i < FTR_TEST_LENGTH(large); i++)
        if (strcmp(large[i], name) == 0) return true;
    return false;
}

static void test_same_bits(void **state) {
    const zoo_model *model = *state;
    const uint64_t one = step_hash(model, 1);
    assert_true(step_hash(model, 3) == one);
    if (is_large(model->name)) return;
    assert_true(step_hash(model, 2) == one);
    assert_true(step_hash(model, 8) == one);
}

/* ------------------------------------------------------------------------------------------------------ training -- */

/* A network with dropout and stochastic depth as they are learns eight random images. */
static void test_learns(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_graph *graph = ftr_graph_create(context);
    const zoo_network net = zoo_build(graph, zoo_find("resnet20"), FTR_SHAPE(8, 16, 16, 3), &(zoo_options){0});
    ftr_optimizer adamw = ftr_adamw(2e-3);
    const ftr_compile_desc desc = {.loss = net.loss, .optimizer = &adamw};
    ftr_plan *plan = NULL;
    FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
    FTR_TEST_OK(context, zoo_feed(plan, &net, "learns"));
    ftr_step_info info;
    FTR_TEST_OK(context, ftr_step(plan, &info));
    assert_true(info.loss > 1.0);
    for (int i = 0; i < 30; i++) FTR_TEST_OK(context, ftr_step(plan, &info));
    if (!(info.loss < 0.1)) fail_msg("the loss is %g after 31 steps", info.loss);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
}

/* ---------------------------------------------------------------------------------------------------------- main -- */

int main(void) {
    static struct CMUnitTest tests[128] = {
        cmocka_unit_test(test_mistakes),      cmocka_unit_test(test_null_image),
        cmocka_unit_test(test_failed_graph),  cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_features_only), cmocka_unit_test(test_own_head),
        cmocka_unit_test(test_rates),         cmocka_unit_test(test_scopes_and_sizes),
        cmocka_unit_test(test_learns)};
    static char names[128][96];
    size_t count = 9;
    for (int32_t i = 0; zoo_at(i); i++) {
        if (!zoo_is_wanted(zoo_at(i)->name)) continue;
        snprintf(names[count], sizeof names[count], "%s: same bits", zoo_at(i)->name);
        tests[count].name = names[count];
        tests[count].test_func = test_same_bits;
        tests[count++].initial_state = (void *)(uintptr_t)zoo_at(i);
    }
    return _cmocka_run_group_tests("model options", tests, count, NULL, NULL);
}
