/* Compares fasttrain with values that PyTorch computed: every op with its gradient, the optimizers' steps, and whole
 * training runs. make_goldens.py in this folder says how the files were made. */
#include "golden_cases.h"

#define GOLDEN_PATH(name) FTR_TEST_DATA "/goldens/" name

/* The files that hold cases of ops. */
static const char *const op_files[] = {
    GOLDEN_PATH("ops.safetensors"),
    GOLDEN_PATH("pointwise.safetensors"),
    GOLDEN_PATH("norms_losses.safetensors"),
    GOLDEN_PATH("index.safetensors"),
    GOLDEN_PATH("rest.safetensors"),
    GOLDEN_PATH("attention.safetensors"),
    GOLDEN_PATH("image.safetensors"),
    GOLDEN_PATH("mix.safetensors"),
};

/* One context for each instruction set that this machine has. */
typedef struct level {
    const char *name;
    ftr_context *context;
} level;

static level levels[] = {{"portable", NULL}, {"neon", NULL}, {"avx2", NULL}, {"avx512", NULL}};

/* The instruction set that the environment asks for; "" if it asks for none. */
static char only[32];

/* A context limited to an instruction set; NULL if the machine lacks it. */
static ftr_context *context_of(const char *simd, int32_t threads) {
    ftr_context_desc desc = {.seed = 1, .threads = threads, .log_level = FTR_LOG_SILENT};
    ftr_context *context = NULL;
    setenv("FASTTRAIN_SIMD", simd, 1);
    ftr_status status = ftr_context_create(&desc, &context);
    if (only[0]) {
        setenv("FASTTRAIN_SIMD", only, 1);
    } else {
        unsetenv("FASTTRAIN_SIMD");
    }
    if (status != FTR_OK && status != FTR_ERROR_INVALID_ARGUMENT) {
        fail_msg("no context: %s", ftr_status_name(status));
    }
    return context;
}

/* If the environment asks for an instruction set, it is the only one that is tested. */
static int open_levels(void **state) {
    (void)state;
    const char *environment = getenv("FASTTRAIN_SIMD");
    if (environment) {
        snprintf(only, sizeof only, "%s", environment);
    }
    for (size_t i = 0; i < FTR_TEST_LENGTH(levels); i++) {
        if (!only[0] || strcmp(only, levels[i].name) == 0) {
            levels[i].context = context_of(levels[i].name, 2);
        }
    }
    return 0;
}

static int close_levels(void **state) {
    (void)state;
    for (size_t i = 0; i < FTR_TEST_LENGTH(levels); i++) {
        ftr_context_destroy(levels[i].context);
        levels[i].context = NULL;
    }
    return 0;
}

static ftr_safetensors *open_file(ftr_context *context, const char *path) {
    ftr_safetensors *file = NULL;
    FTR_TEST_OK(context, ftr_safetensors_open(context, path, &file));
    return file;
}

/* --------------------------------------------------------------------------------------------------------------- ops
 * -- */

static void feed(ftr_context *context, ftr_plan *plan, ftr_tensor input, const ftr_safetensors_entry *entry) {
    void *data = golden_copy(entry);
    FTR_TEST_OK(context, ftr_feed(plan, input, data, entry->bytes));
    free(data);
}

/* The tensors whose gradients the file has. */
static int32_t differentiated(const golden_case *c, ftr_tensor tensors[], char names[][32]) {
    int32_t count = 0;
    for (int32_t i = 0; i < c->input_count; i++) {
        ftr_safetensors_entry entry;
        snprintf(names[count], 32, "d%s", c->input_names[i]);
        if (golden_find(c, names[count], &entry)) {
            tensors[count++] = c->inputs[i];
        }
    }
    return count;
}

static void check_result(const golden_case *c, ftr_plan *plan, ftr_tensor y) {
    ftr_safetensors_entry expected = golden_get(c, "y");
    void *data = golden_copy(&expected);
    memset(data, 0x5a, expected.bytes);
    FTR_TEST_OK(c->context, ftr_read(plan, y, data, expected.bytes));
    golden_compare(c, "y", &expected, data);
    free(data);
}

static void check_gradient(const golden_case *c, ftr_plan *plan, ftr_tensor tensor, const char *name) {
    ftr_safetensors_entry expected = golden_get(c, name);
    float *data = (float *)golden_copy(&expected);
    FTR_TEST_OK(c->context, ftr_read_gradient(plan, tensor, data, expected.bytes));
    golden_compare(c, name, &expected, data);
    free(data);
}

static void start_buffers(const golden_case *c) {
    for (int32_t i = 0; i < c->buffer_count; i++) {
        ftr_safetensors_entry start = golden_get(c, c->buffer_names[i]);
        void *data = golden_copy(&start);
        FTR_TEST_OK(c->context, ftr_variable_write(c->buffers[i], data, start.bytes));
        free(data);
    }
}

static void check_buffers(const golden_case *c) {
    for (int32_t i = 0; i < c->buffer_count; i++) {
        ftr_safetensors_entry expected = golden_get(c, c->buffer_results[i]);
        float *data = (float *)golden_copy(&expected);
        FTR_TEST_OK(c->context, ftr_variable_read(c->buffers[i], data, expected.bytes));
        golden_compare(c, c->buffer_results[i], &expected, data);
        free(data);
    }
}

/* Results, gradients of sum(y * w), and buffers after the step. */
static void run_op_case(golden_case *c, golden_build_fn build) {
    c->graph = ftr_graph_create(c->context);
    ftr_tensor y = build(c);
    FTR_TEST_GRAPH_OK(c->graph);
    ftr_shape found = ftr_shape_of(y);
    ftr_safetensors_entry expected = golden_get(c, "y"), weights;
    ftr_shape wanted = golden_shape(&expected);
    if (!ftr_shape_equal(&found, &wanted) || ftr_dtype_of(y) != expected.dtype) {
        fail_msg("%sy: the result has another shape or type than PyTorch's", c->prefix);
    }

    ftr_tensor gradients_of[GOLDEN_MAX_INPUTS];
    char gradient_names[GOLDEN_MAX_INPUTS + 1][32];
    ftr_compile_desc desc = {.mode = c->mode, .outputs = &y, .output_count = 1, .gradients_of = gradients_of};
    desc.gradient_count = differentiated(c, gradients_of, gradient_names);
    ftr_tensor w = {NULL, 0};
    assert_int_equal(desc.gradient_count > 0, golden_find(c, "w", &weights));
    if (desc.gradient_count > 0) {
        weights = golden_get(c, "w");
        w = ftr_input(c->graph, "w", FTR_F32, golden_shape(&weights));
        desc.loss = ftr_sum(ftr_mul(y, w), ftr_all_axes(), false);
    }
    ftr_plan *plan = NULL;
    FTR_TEST_OK(c->context, ftr_compile(c->graph, &desc, &plan));
    for (int32_t i = 0; i < c->input_count; i++) {
        ftr_safetensors_entry entry = golden_get(c, c->input_names[i]);
        feed(c->context, plan, c->inputs[i], &entry);
    }
    start_buffers(c);
    if (desc.gradient_count > 0) {
        feed(c->context, plan, w, &weights);
    }
    FTR_TEST_OK(c->context, ftr_step(plan, NULL));
    check_result(c, plan, y);
    for (int32_t i = 0; i < desc.gradient_count; i++) {
        check_gradient(c, plan, gradients_of[i], gradient_names[i]);
    }
    check_buffers(c);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(c->graph);
}

static ftr_optimizer optimizer_of(const golden_case *c) {
    ftr_safetensors_entry entry;
    bool adamw = golden_find(c, "beta1", &entry);
    ftr_optimizer optimizer = adamw ? ftr_adamw(0) : ftr_sgd(0);
    optimizer.lr = (float)golden_f64(c, "lr", 0);
    optimizer.weight_decay = (float)golden_f64(c, "weight_decay", 0);
    if (adamw) {
        optimizer.beta1 = (float)golden_f64(c, "beta1", 0);
        optimizer.beta2 = (float)golden_f64(c, "beta2", 0);
        optimizer.eps = (float)golden_f64(c, "eps", 0);
    } else {
        optimizer.momentum = (float)golden_f64(c, "momentum", 0);
        optimizer.dampening = (float)golden_f64(c, "dampening", 0);
        optimizer.nesterov = golden_f64(c, "nesterov", 0) != 0;
    }
    return optimizer;
}

/* The loss sum(p * g) has the gradient g: each step's gradient is fed. */
static void run_optimizer_case(golden_case *c) {
    ftr_safetensors_entry start = golden_get(c, "p"), gradients = golden_get(c, "g"), after = golden_get(c, "y");
    float *value = (float *)golden_copy(&start);
    c->graph = ftr_graph_create(c->context);
    ftr_tensor p = ftr_parameter(c->graph, "p", FTR_F32, golden_shape(&start), (ftr_init){FTR_INIT_ZEROS, 0, 0});
    ftr_tensor g = ftr_input(c->graph, "g", FTR_F32, golden_shape(&start));
    ftr_optimizer optimizer = optimizer_of(c);
    ftr_compile_desc desc = {.loss = ftr_sum(ftr_mul(p, g), ftr_all_axes(), false), .optimizer = &optimizer};
    ftr_plan *plan = NULL;
    FTR_TEST_OK(c->context, ftr_compile(c->graph, &desc, &plan));
    FTR_TEST_OK(c->context, ftr_variable_write(p, value, start.bytes));
    for (int64_t step = 0; step < gradients.dim[0]; step++) {
        ftr_safetensors_entry gradient = start, expected = start;
        gradient.data = (const char *)gradients.data + (size_t)step * start.bytes;
        expected.data = (const char *)after.data + (size_t)step * start.bytes;
        feed(c->context, plan, g, &gradient);
        FTR_TEST_OK(c->context, ftr_plan_set_lr(plan, (float)golden_f64(c, "lr", step)));
        FTR_TEST_OK(c->context, ftr_step(plan, NULL));
        FTR_TEST_OK(c->context, ftr_variable_read(p, value, start.bytes));
        golden_compare(c, "y", &expected, value);
    }
    free(value);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(c->graph);
}

/* The cases of an op in one file; how many they are. */
static int64_t test_op_file(ftr_context *context, const golden_op *op, const char *path) {
    ftr_safetensors *file = open_file(context, path);
    int64_t count = 0;
    for (;; count++) {
        golden_case c = {.context = context, .file = file};
        ftr_safetensors_entry entry;
        snprintf(c.prefix, sizeof c.prefix, "%s/%d/", op->name, (int)count);
        if (!golden_find(&c, "y", &entry)) {
            break;
        }
        if (op->build) {
            run_op_case(&c, op->build);
        } else {
            run_optimizer_case(&c);
        }
    }
    ftr_safetensors_close(file);
    return count;
}

/* All cases of an op, with each instruction set. */
static void test_op(void **state) {
    const golden_op *op = (const golden_op *)*state;
    int64_t count = 0;
    for (size_t i = 0; i < FTR_TEST_LENGTH(levels); i++) {
        for (size_t f = 0; f < FTR_TEST_LENGTH(op_files) && levels[i].context; f++) {
            count += test_op_file(levels[i].context, op, op_files[f]);
        }
    }
    assert_int_not_equal(count, 0);
}

static bool is_known(const char *name) {
    size_t length = strcspn(name, "/");
    for (size_t i = 0; golden_op_at(i); i++) {
        const char *known = golden_op_at(i)->name;
        if (strlen(known) == length && strncmp(known, name, length) == 0) {
            return true;
        }
    }
    return false;
}

/* The files have no op that this program does not test. */
static void test_all_ops_known(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    for (size_t f = 0; f < FTR_TEST_LENGTH(op_files); f++) {
        ftr_safetensors *file = open_file(context, op_files[f]);
        for (int64_t i = 0; i < ftr_safetensors_count(file); i++) {
            ftr_safetensors_entry entry;
            assert_true(ftr_safetensors_at(file, i, &entry));
            if (!is_known(entry.name)) {
                fail_msg("no test for %s", entry.name);
            }
        }
        ftr_safetensors_close(file);
    }
    ftr_context_destroy(context);
}

/* ---------------------------------------------------------------------------------------------------- whole runs -- */

/* Scales u8 images to the model's input. */
typedef struct scaling {
    float offset, factor;
} scaling;

typedef struct whole_run {
    const char *name; /* of the test */
    const char *start, *final, *data;
    const char *losses, *losses_f32;
    ftr_tensor (*model)(ftr_tensor x);
    scaling scaling;
    ftr_optimizer (*optimizer)(void);
    bool small; /* also without SIMD and on one thread */
    void (*freeze)(ftr_context *context, ftr_graph *graph);
} whole_run;

static ftr_tensor mlp(ftr_tensor x) { return ftr_linear(ftr_relu(ftr_linear(x, "fc1", 48, NULL)), "fc2", 10, NULL); }

static ftr_tensor convolution(ftr_tensor x, const char *name, int64_t out, int32_t kernel, int32_t stride) {
    int32_t p = kernel / 2;
    ftr_conv2d_desc desc = {.stride = {stride, stride}, .padding = {p, p, p, p}, .no_bias = true};
    return ftr_conv2d(x, name, out, kernel, &desc);
}

static ftr_tensor block(ftr_tensor x, const char *stage, int64_t out, int32_t stride) {
    ftr_graph *graph = x.graph;
    ftr_scope_push(graph, stage);
    ftr_scope_push(graph, "0");
    ftr_tensor h = ftr_relu(ftr_batch_norm(convolution(x, "conv1", out, 3, stride), "bn1", NULL));
    h = ftr_batch_norm(convolution(h, "conv2", out, 3, 1), "bn2", NULL);
    if (stride != 1) {
        ftr_scope_push(graph, "downsample");
        x = ftr_batch_norm(convolution(x, "0", out, 1, stride), "1", NULL);
        ftr_scope_pop(graph);
    }
    ftr_scope_pop(graph);
    ftr_scope_pop(graph);
    return ftr_relu(ftr_add(h, x));
}

static ftr_tensor resnet8(ftr_tensor x) {
    x = ftr_relu(ftr_batch_norm(convolution(x, "conv1", 16, 3, 1), "bn1", NULL));
    x = block(x, "layer1", 16, 1);
    x = block(x, "layer2", 32, 2);
    x = block(x, "layer3", 64, 2);
    return ftr_linear(ftr_global_avg_pool(x), "fc", 10, NULL);
}

static ftr_tensor transfer(ftr_tensor x) {
    const ftr_conv2d_desc desc = {.stride = {2, 2}, .padding = {1, 1, 1, 1}};
    x = ftr_relu(ftr_batch_norm(convolution(x, "conv1", 8, 3, 1), "bn1", NULL));
    x = ftr_relu(ftr_batch_norm(ftr_conv2d(x, "conv2", 12, 3, &desc), "bn2", NULL));
    return ftr_linear(ftr_global_avg_pool(x), "fc", 10, NULL);
}

static void freeze_nothing(ftr_context *context, ftr_graph *graph) { (void)context, (void)graph; }

static void freeze_parameters(ftr_context *context, ftr_graph *graph) {
    FTR_TEST_OK(context, ftr_freeze(graph, "*1.*", NULL));
}

static void freeze_statistics_too(ftr_context *context, ftr_graph *graph) {
    const ftr_freeze_desc desc = {.norm_eval = true};
    FTR_TEST_OK(context, ftr_freeze(graph, "*1.*", &desc));
}

static ftr_optimizer momentum(float lr, bool nesterov) {
    ftr_optimizer optimizer = ftr_sgd(lr);
    optimizer.momentum = 0.9f;
    optimizer.nesterov = nesterov;
    optimizer.weight_decay = nesterov ? 5e-4f : 0;
    return optimizer;
}

static ftr_optimizer mlp_sgd(void) { return momentum(0.05f, false); }
static ftr_optimizer mlp_nesterov(void) { return momentum(0.05f, true); }
static ftr_optimizer mlp_adamw(void) { return ftr_adamw(2e-3f); }
static ftr_optimizer resnet8_sgd(void) { return momentum(0.005f, false); }
static ftr_optimizer resnet8_nesterov(void) { return momentum(0.005f, true); }
static ftr_optimizer resnet8_adamw(void) { return ftr_adamw(5e-4f); }

static ftr_optimizer transfer_frozen(void) {
    ftr_optimizer optimizer = momentum(0.02f, false);
    optimizer.weight_decay = 0.01;
    return optimizer;
}

#define transfer_still transfer_frozen

#define WHOLE_RUN(model_name, kind, offset, factor, small, freeze)                                                     \
    {                                                                                                                  \
#model_name " " #kind, GOLDEN_PATH(#model_name "_start.safetensors"),                                          \
            GOLDEN_PATH(#model_name "_" #kind ".safetensors"), GOLDEN_PATH(#model_name "_data.safetensors"),           \
            #kind "/losses", #kind "/losses_f32", model_name, {offset, factor }, model_name##_##kind, small, freeze    \
    }

static const whole_run whole_runs[] = {
    WHOLE_RUN(mlp, sgd, 0, 1.0f / 16, true, freeze_nothing),
    WHOLE_RUN(mlp, nesterov, 0, 1.0f / 16, true, freeze_nothing),
    WHOLE_RUN(mlp, adamw, 0, 1.0f / 16, true, freeze_nothing),
    WHOLE_RUN(resnet8, sgd, -128, 1.0f / 64, false, freeze_nothing),
    WHOLE_RUN(resnet8, nesterov, -128, 1.0f / 64, false, freeze_nothing),
    WHOLE_RUN(resnet8, adamw, -128, 1.0f / 64, false, freeze_nothing),
    WHOLE_RUN(transfer, frozen, -128, 1.0f / 64, true, freeze_parameters),
    WHOLE_RUN(transfer, still, -128, 1.0f / 64, true, freeze_statistics_too),
};

/* Worst relative deviations of a run. */
typedef struct deviation {
    double loss, weights;
} deviation;

static void feed_batch(ftr_context *context, ftr_plan *plan, const whole_run *run, ftr_tensor x, ftr_tensor labels,
                       const unsigned char *image, const unsigned char *label) {
    ftr_shape shape = ftr_shape_of(x);
    int64_t count = ftr_shape_count(&shape), batch = shape.dim[0];
    float *values = (float *)malloc((size_t)count * sizeof *values);
    int32_t *classes = (int32_t *)malloc((size_t)batch * sizeof *classes);
    assert_non_null(values);
    assert_non_null(classes);
    for (int64_t i = 0; i < count; i++) {
        values[i] = ((float)image[i] + run->scaling.offset) * run->scaling.factor;
    }
    for (int64_t i = 0; i < batch; i++) {
        classes[i] = label[i];
    }
    FTR_TEST_OK(context, ftr_feed(plan, x, values, (size_t)count * sizeof *values));
    FTR_TEST_OK(context, ftr_feed(plan, labels, classes, (size_t)batch * sizeof *classes));
    free(values);
    free(classes);
}

static double loss_deviation(const ftr_safetensors *data, const char *name, int64_t step, double loss) {
    ftr_safetensors_entry entry;
    double expected = NAN;
    assert_true(ftr_safetensors_find(data, name, &entry));
    assert_int_equal(entry.dtype, FTR_F64);
    memcpy(&expected, (const char *)entry.data + (size_t)step * sizeof expected, sizeof expected);
    return fabs(loss - expected) / fabs(expected);
}

/* Position of element `i` of a tensor as memory has it (OHWI if rank 4) in the file (OIHW). */
static int64_t file_position(const ftr_shape *shape, int64_t i) {
    if (shape->rank != 4) {
        return i;
    }
    int64_t height = shape->dim[1], width = shape->dim[2], in = shape->dim[3];
    int64_t c = i % in, x = i / in % width, y = i / in / width % height, o = i / in / width / height;
    return ((o * in + c) * height + y) * width + x;
}

/* |actual - expected| / |expected|, Euclidean norms. */
static double weight_deviation(ftr_context *context, ftr_tensor variable, const ftr_safetensors *final) {
    ftr_safetensors_entry entry;
    if (!ftr_safetensors_find(final, ftr_name_of(variable), &entry)) {
        fail_msg("PyTorch's model has no %s", ftr_name_of(variable));
    }
    ftr_shape shape = ftr_shape_of(variable);
    float *expected = (float *)golden_copy(&entry), *actual = (float *)golden_copy(&entry);
    FTR_TEST_OK(context, ftr_variable_read(variable, actual, entry.bytes));
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < ftr_shape_count(&shape); i++) {
        double e = (double)expected[file_position(&shape, i)], d = (double)actual[i] - e;
        difference += d * d;
        norm += e * e;
    }
    free(expected);
    free(actual);
    return sqrt(difference / norm);
}

static deviation train(ftr_context *context, const whole_run *run) {
    ftr_safetensors *data = open_file(context, run->data), *final = open_file(context, run->final);
    ftr_safetensors_entry images, labels;
    assert_true(ftr_safetensors_find(data, "images", &images));
    assert_true(ftr_safetensors_find(data, "labels", &labels));
    int64_t steps = images.dim[0], batch = images.dim[1];
    ftr_shape shape = {.rank = images.rank - 1};
    memcpy(shape.dim, images.dim + 1, (size_t)shape.rank * sizeof *shape.dim);
    size_t image_bytes = images.bytes / (size_t)steps;

    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "x", FTR_F32, shape), y = ftr_input(graph, "y", FTR_I32, FTR_SHAPE(batch));
    ftr_optimizer optimizer = run->optimizer();
    ftr_compile_desc desc = {.loss = ftr_cross_entropy(run->model(x), y, NULL), .optimizer = &optimizer};
    FTR_TEST_OK(context, ftr_load_weights(graph, run->start, NULL, NULL));
    run->freeze(context, graph);
    ftr_plan *plan = NULL;
    FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));

    deviation worst = {0, 0};
    for (int64_t step = 0; step < steps; step++) {
        ftr_step_info info;
        feed_batch(context, plan, run, x, y, (const unsigned char *)images.data + (size_t)step * image_bytes,
                   (const unsigned char *)labels.data + step * batch);
        FTR_TEST_OK(context, ftr_step(plan, &info));
        worst.loss = fmax(worst.loss, loss_deviation(data, run->losses, step, info.loss));
        double single = loss_deviation(data, run->losses_f32, step, info.loss);
        if (!(worst.loss <= 1e-4) || !(single <= 1e-4)) {
            fail_msg(
                "%s (%s): the loss of step %d is %.9g, off by %.1e of PyTorch's in double precision, %.1e in single",
                run->name, ftr_context_simd_name(context), (int)step, info.loss, worst.loss, single);
        }
    }
    for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
        ftr_tensor variable = ftr_variable_at(graph, i);
        double off = weight_deviation(context, variable, final);
        worst.weights = fmax(worst.weights, off);
        if (!(off <= 1e-3)) {
            fail_msg("%s (%s): %s is off by %.1e after the run", run->name, ftr_context_simd_name(context),
                     ftr_name_of(variable), off);
        }
    }
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_safetensors_close(data);
    ftr_safetensors_close(final);
    return worst;
}

static void train_and_tell(ftr_context *context, const whole_run *run) {
    deviation worst = train(context, run);
    print_message("    %s, %s, %d threads: losses within %.1e, final weights within %.1e\n", run->name,
                  ftr_context_simd_name(context), (int)ftr_context_threads(context), worst.loss, worst.weights);
}

static void test_whole_run(void **state) {
    const whole_run *run = (const whole_run *)*state;
    bool done = false;
    for (size_t i = FTR_TEST_LENGTH(levels); i-- > 0;) {
        if (!levels[i].context || (!run->small && done && i == 0)) {
            continue;
        }
        train_and_tell(levels[i].context, run);
        if (run->small) {
            ftr_context *one = context_of(levels[i].name, 1);
            train_and_tell(one, run);
            ftr_context_destroy(one);
        }
        done = true;
    }
    assert_true(done);
}

int main(void) {
    struct CMUnitTest tests[256] = {{.name = "all ops known", .test_func = test_all_ops_known}};
    size_t count = 1;
    for (size_t i = 0; golden_op_at(i); i++) {
        tests[count].name = golden_op_at(i)->name;
        tests[count].test_func = test_op;
        tests[count++].initial_state = (void *)(uintptr_t)golden_op_at(i);
    }
    for (size_t i = 0; i < FTR_TEST_LENGTH(whole_runs); i++) {
        tests[count].name = whole_runs[i].name;
        tests[count].test_func = test_whole_run;
        tests[count++].initial_state = (void *)(uintptr_t)&whole_runs[i];
    }
    return _cmocka_run_group_tests("goldens", tests, count, open_levels, close_levels);
}
