/* The CUDA backend on machines that are not as it wants them, with calls that fail, and in whole training runs beside the CPU:
 * under the emulator and the doubles of CUDA's libraries. */
#include "ftr_test.h"

#include "emulator/doubles.h"
#include "model_zoo.h"

static const ftr_double_machine usual = {1, 9, 0, (size_t)1 << 30, 13000, 1};

static void machine(ftr_double_machine what) {
    ftr_double_reset();
    ftr_double_set(&what);
}

static void nothing_is_left(void) {
    if (ftr_double_faults()) {
        fail_msg("%s", ftr_double_first_fault());
    }
    assert_int_equal(ftr_double_live(), 0);
}

/* ------------------------------------------------------------------------------------------------------- machines -- */

/* A context on "cuda" is refused, with this status and sentence. */
static void expect_refusal(const char *device, ftr_status status, const char *sentence) {
    ftr_test_log log = {.length = 0};
    ftr_context *context = NULL;
    ftr_context_desc desc = {.device = device, .logger = ftr_test_logger(&log), .log_level = FTR_LOG_ERROR};
    assert_int_equal(ftr_context_create(&desc, &context), status);
    assert_null(context);
    assert_int_equal(log.messages, 1);
    log.text[strcspn(log.text, "\n")] = 0;
    assert_string_equal(log.text, sentence);
    nothing_is_left();
}

static void test_bad_machines(void **state) {
    (void)state;
    ftr_double_machine m = usual;
    m.driver = 0;
    machine(m);
    expect_refusal("cuda", FTR_ERROR_DEVICE,
                   "cuda: there is no NVIDIA driver: install one for CUDA 13 or newer, or use device \"cpu\"");
    m.driver = 12040;
    machine(m);
    expect_refusal("cuda", FTR_ERROR_DEVICE,
                   "cuda: the driver is for CUDA 12.4, the program for 13.0: install a newer driver");
    m = usual;
    m.devices = 0;
    machine(m);
    expect_refusal("cuda", FTR_ERROR_DEVICE, "cuda: the driver found no GPU: use device \"cpu\"");
    m = usual;
    m.compute_major = 7, m.compute_minor = 5;
    machine(m);
    expect_refusal("cuda", FTR_ERROR_DEVICE,
                   "cuda: device 0 (emulated device 7.5) has compute capability 7.5, expected 8.0 or more: use another device or "
                   "\"cpu\"");
    machine(usual);
    expect_refusal("cuda:3", FTR_ERROR_DEVICE, "cuda: device 3 was asked for, there are 1 (cuda:0 to cuda:0)");
}

static void test_device_words(void **state) {
    (void)state;
    machine(usual);
    static const char *const words[] = {"", "gpu", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cuda:99999", "CUDA"};
    for (size_t i = 0; i < FTR_TEST_LENGTH(words); i++) {
        char sentence[128];
        snprintf(sentence, sizeof sentence, "context: device is '%s', expected cpu, cuda or cuda:NUMBER", words[i]);
        expect_refusal(words[i], FTR_ERROR_INVALID_ARGUMENT, sentence);
    }
    setenv("FASTTRAIN_CUDA_STEPS", "graphs", 1);
    expect_refusal("cuda", FTR_ERROR_INVALID_ARGUMENT, "FASTTRAIN_CUDA_STEPS is 'graphs', expected graph, nodes or wait");
    unsetenv("FASTTRAIN_CUDA_STEPS");
}

/* Of several devices the one with the most free memory; the double's have the same, so the first. */
static void test_choosing(void **state) {
    (void)state;
    ftr_double_machine m = usual;
    m.devices = 3;
    for (int i = 0; i < 4; i++) {
        static const char *const names[] = {"cuda", "cuda:0", "cuda:2", "cuda:1"};
        machine(m);
        ftr_context *context = NULL;
        ftr_context_desc desc = {.device = names[i]};
        assert_int_equal(ftr_context_create(&desc, &context), FTR_OK);
        assert_string_equal(ftr_context_backend_name(context), "cuda");
        ftr_context_destroy(context);
        nothing_is_left();
    }
}

/* --------------------------------------------------------------------------------------------------- training runs -- */

typedef struct network {
    const char *name; /* of the zoo, or "resnet8" */
    ftr_shape input;
    ftr_optimizer (*optimizer)(double lr);
    double lr;
} network;

static ftr_optimizer sgd_momentum(double lr) {
    ftr_optimizer o = ftr_sgd(lr);
    o.momentum = 0.9;
    return o;
}

static ftr_tensor resnet8(ftr_tensor image, const zoo_options *options) {
    return ftr_resnet_cifar(image, &(ftr_resnet_cifar_desc){.depth = 8, .classes = options->classes});
}

static const zoo_model smallest_resnet = {"resnet8", FTR_F32, FTR_SHAPE(1, 32, 32, 3), resnet8};

/* Little of everything that calls a library. */
static ftr_tensor little(ftr_tensor image, const zoo_options *options) {
    const ftr_tensor h = ftr_relu(ftr_batch_norm(ftr_conv2d(image, "conv", 4, 3, NULL), "bn", NULL));
    return ftr_linear(ftr_global_avg_pool(h), "fc", options->classes, NULL);
}

static const zoo_model little_net = {"little", FTR_F32, FTR_SHAPE(1, 8, 8, 3), little};

/* Built on a context, with the values of the parity harness; ready to step. */
typedef struct run {
    ftr_context *context;
    ftr_graph *graph;
    ftr_plan *plan;
} run;

static ftr_status run_open(run *r, const network *n, const char *device, ftr_amp amp, const ftr_allocator *allocator) {
    *r = (run){NULL, NULL, NULL};
    ftr_context_desc desc = {.seed = 7, .threads = 2, .device = device, .log_level = FTR_LOG_SILENT};
    if (allocator) desc.allocator = *allocator;
    ftr_status status = ftr_context_create(&desc, &r->context);
    if (status) return status;
    const zoo_model *model = strcmp(n->name, "resnet8") == 0  ? &smallest_resnet
                             : strcmp(n->name, "little") == 0 ? &little_net
                                                              : zoo_find(n->name);
    r->graph = ftr_graph_create(r->context);
    if (!r->graph) return ftr_error_status(r->context);
    zoo_network net = zoo_build(r->graph, model, n->input, &(zoo_options){.classes = 10});
    ftr_optimizer optimizer = n->optimizer(n->lr);
    ftr_compile_desc compile = {.loss = net.loss, .optimizer = &optimizer, .amp = amp};
    status = ftr_compile(r->graph, &compile, &r->plan);
    if (status == FTR_OK) status = zoo_fill_weights(r->graph, 0, true);
    if (status == FTR_OK) status = zoo_feed(r->plan, &net, "cuda");
    return status;
}

static void run_close(run *r) {
    ftr_plan_destroy(r->plan);
    ftr_graph_destroy(r->graph);
    ftr_context_destroy(r->context);
}

static const network networks[] = {
    {"mlp", FTR_SHAPE(8, 20), ftr_adamw, 1e-3},
    {"resnet8", FTR_SHAPE(4, 16, 16, 3), sgd_momentum, 1e-2},
    {"mobilenet_v3_small_half", FTR_SHAPE(4, 64, 64, 3), sgd_momentum, 1e-3},
    {"gpt_chars", FTR_SHAPE(2, 12), ftr_adamw, 1e-3},
};

/* How far losses may be apart, relative to the loss, after `step` steps: rounding grows with the run. */
static double tolerance(ftr_amp amp, int step) {
    const double first = amp == FTR_AMP_OFF ? 2e-5 : amp == FTR_AMP_FP16 ? 4e-3 : 3e-2;
    return first * (1 + step);
}

static void train_beside_cpu(const network *n, ftr_amp amp, const char *steps) {
    machine(usual);
    run cpu, cuda;
    setenv("FASTTRAIN_CUDA_STEPS", steps, 1);
    FTR_TEST_OK(cpu.context, run_open(&cpu, n, "cpu", amp, NULL));
    FTR_TEST_OK(cuda.context, run_open(&cuda, n, "cuda", amp, NULL));
    for (int step = 0; step < 4; step++) {
        ftr_step_info a, b;
        FTR_TEST_OK(cpu.context, ftr_step(cpu.plan, &a));
        FTR_TEST_OK(cuda.context, ftr_step(cuda.plan, &b));
        assert_int_equal(a.skipped, b.skipped);
        assert_int_equal(a.applied_steps, b.applied_steps);
        if (!(fabs(a.loss - b.loss) <= tolerance(amp, step) * fmax(1, fabs(a.loss)))) {
            fail_msg("%s, step %d: loss %.8g on cuda, %.8g on the CPU", n->name, step, b.loss, a.loss);
        }
    }
    run_close(&cpu);
    run_close(&cuda);
    unsetenv("FASTTRAIN_CUDA_STEPS");
    nothing_is_left();
}

static void test_training_f32(void **state) {
    (void)state;
    for (size_t i = 0; i < FTR_TEST_LENGTH(networks); i++) {
        train_beside_cpu(&networks[i], FTR_AMP_OFF, "graph");
    }
}

static void test_training_fp16(void **state) {
    (void)state;
    for (size_t i = 0; i < FTR_TEST_LENGTH(networks); i++) {
        train_beside_cpu(&networks[i], FTR_AMP_FP16, "graph");
    }
}

static void test_training_bf16(void **state) {
    (void)state;
    for (size_t i = 0; i < FTR_TEST_LENGTH(networks); i++) {
        train_beside_cpu(&networks[i], FTR_AMP_BF16, "graph");
    }
}

/* Node by node as in graphs, to the last bit. */
static void test_ways_to_step(void **state) {
    (void)state;
    static const char *const ways[] = {"graph", "nodes", "wait"};
    double losses[3][5];
    for (int w = 0; w < 3; w++) {
        machine(usual);
        run r;
        setenv("FASTTRAIN_CUDA_STEPS", ways[w], 1);
        FTR_TEST_OK(r.context, run_open(&r, &networks[1], "cuda", FTR_AMP_OFF, NULL));
        for (int step = 0; step < 5; step++) {
            ftr_step_info info;
            FTR_TEST_OK(r.context, ftr_step(r.plan, &info));
            losses[w][step] = info.loss;
        }
        run_close(&r);
        nothing_is_left();
    }
    unsetenv("FASTTRAIN_CUDA_STEPS");
    assert_memory_equal(losses[0], losses[1], sizeof losses[0]);
    assert_memory_equal(losses[0], losses[2], sizeof losses[0]);
}

static void test_out_of_memory(void **state) {
    (void)state;
    ftr_double_machine m = usual;
    m.memory = (size_t)8 << 20;
    machine(m);
    run r;
    const network wide = {"resnet8", FTR_SHAPE(64, 64, 64, 3), sgd_momentum, 1e-2};
    assert_int_equal(run_open(&r, &wide, "cuda", FTR_AMP_OFF, NULL), FTR_ERROR_OUT_OF_MEMORY);
    assert_non_null(strstr(ftr_error_message(r.context), "bytes"));
    run_close(&r);
    nothing_is_left();
}

/* A label beyond the classes is told of when the loss is read, by node. */
static void test_fault_in_data(void **state) {
    (void)state;
    machine(usual);
    ftr_context *context = NULL;
    ftr_context_desc desc = {.device = "cuda", .log_level = FTR_LOG_SILENT};
    FTR_TEST_OK(context, ftr_context_create(&desc, &context));
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(2, 3)), y = ftr_input(graph, "y", FTR_I32, FTR_SHAPE(2));
    ftr_compile_desc compile = {.mode = FTR_MODE_EVAL, .loss = ftr_cross_entropy(x, y, NULL)};
    ftr_plan *plan = NULL;
    FTR_TEST_OK(context, ftr_compile(graph, &compile, &plan));
    const float logits[6] = {0, 1, 2, 3, 4, 5};
    const int32_t bad[2] = {1, 7}, good[2] = {1, 2};
    ftr_step_info info;
    FTR_TEST_OK(context, ftr_feed(plan, x, logits, sizeof logits));
    FTR_TEST_OK(context, ftr_feed(plan, y, bad, sizeof bad));
    assert_int_equal(ftr_step(plan, &info), FTR_ERROR_DATA);
    assert_non_null(strstr(ftr_error_message(context), "label 7 at row 1 is outside the 3 classes"));
    FTR_TEST_OK(context, ftr_feed(plan, y, good, sizeof good));
    FTR_TEST_OK(context, ftr_step(plan, &info)); /* it is told of once */
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
    nothing_is_left();
}

/* --------------------------------------------------------------------------------------------------- calls that fail -- */

/* Opens, compiles and makes four steps; where it ends is `status`. */
static ftr_status story(const network *n, ftr_test_memory *memory, char *message, size_t size) {
    run r;
    const ftr_allocator allocator = ftr_test_allocator(memory);
    ftr_status status = run_open(&r, n, "cuda", FTR_AMP_FP16, &allocator);
    for (int step = 0; step < 4 && status == FTR_OK; step++) {
        ftr_step_info info;
        status = ftr_step(r.plan, &info);
    }
    snprintf(message, size, "%s", r.context ? ftr_error_message(r.context) : "the context was not made");
    run_close(&r);
    return status;
}

/* Each call of CUDA, cuBLASLt and cuDNN fails in turn: a status and a sentence, or a fallback, and nothing left behind. */
static void test_each_call_fails(void **state) {
    (void)state;
    char message[512];
    const network small = {"little", FTR_SHAPE(2, 8, 8, 3), sgd_momentum, 1e-2};
    machine(usual);
    ftr_test_memory memory = {0};
    assert_int_equal(story(&small, &memory, message, sizeof message), FTR_OK);
    const int64_t calls = ftr_double_calls();
    nothing_is_left();
    int64_t failed = 0, kept_on = 0;
    const int64_t stride = getenv("FTR_FAULT") ? 1 : 1 + calls / 150;
    for (int64_t call = 1; call <= calls; call += stride) {
        machine(usual);
        ftr_double_fail(call);
        memory = (ftr_test_memory){0};
        const ftr_status status = story(&small, &memory, message, sizeof message);
        const char *name = ftr_double_failed();
        assert_int_equal(memory.live, 0);
        if (status == FTR_OK) { /* what cuDNN or cuBLASLt refuses has a fallback; a wait at the end has no status */
            kept_on++;
        } else {
            failed++;
            assert_true(strlen(message) > 10);
            assert_true(status == FTR_ERROR_DEVICE || status == FTR_ERROR_OUT_OF_MEMORY);
        }
        if (ftr_double_live() != 0) {
            fail_msg("%s (call %lld) leaves %lld objects behind", name, (long long)call, (long long)ftr_double_live());
        }
    }
    printf("%lld of %lld calls failed: %lld ended the run, %lld did not\n", (long long)(failed + kept_on), (long long)calls,
           (long long)failed, (long long)kept_on);
    assert_true(failed > 30);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_machines),  cmocka_unit_test(test_device_words),  cmocka_unit_test(test_choosing),
        cmocka_unit_test(test_training_f32),  cmocka_unit_test(test_training_fp16), cmocka_unit_test(test_training_bf16),
        cmocka_unit_test(test_ways_to_step),  cmocka_unit_test(test_out_of_memory), cmocka_unit_test(test_fault_in_data),
        cmocka_unit_test(test_each_call_fails),
    };
    return cmocka_run_group_tests_name("cuda device", tests, NULL, NULL);
}
