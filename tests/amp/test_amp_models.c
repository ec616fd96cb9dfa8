/* Gradients of the library's models under mixed precision against those in f32. */
#include "amp_check.h"
#include "model_zoo.h"

/* How far the gradients of all parameters together may be from those in f32 (|difference| / |gradient|), in f16 and in bf16:
 * two to three times what was found. Networks with batch norm amplify roundings at their first weights, the deeper the more,
 * and with small images and batches; autocast of PyTorch 2.15 on the CPU is as far off (torchvision's models, the same
 * sizes, f16 and bf16): resnet18 0.13 and 0.35, mobilenet_v2 of half the width 0.51 and 1.05, mobilenet_v3_small 0.023 and
 * 0.08, efficientnet_b0 0.027 and 0.23. Gradients that have nothing to do with each other are 1.4 apart. */
static const struct {
    const char *name;
    ftr_shape input; /* rank 0: the zoo's, with a batch of 2 */
    double f16, bf16;
} models[] = {
    {"mlp", {0}, 2e-3, 1.2e-2},
    {"mnist_cnn", {0}, 5e-3, 4e-2},
    {"resnet18", {4, {4, 64, 64, 3}}, 0.3, 0.8},
    {"resnet50", {4, {8, 32, 32, 3}}, 0.15, 0.4},
    {"resnet18_small_images", {4, {8, 16, 16, 3}}, 0.05, 0.15},
    {"resnet20", {4, {8, 32, 32, 3}}, 0.2, 0.5},
    {"mobilenet_v2_half", {4, {8, 64, 64, 3}}, 0.9, 1.3},
    {"mobilenet_v3_small", {4, {8, 64, 64, 3}}, 0.08, 0.3},
    {"mobilenet_v3_large", {4, {8, 64, 64, 3}}, 0.2, 0.6},
    {"efficientnet_b0", {4, {8, 64, 64, 3}}, 0.08, 0.5},
    {"efficientnet_lite0", {4, {8, 64, 64, 3}}, 0.9, 1.3},
    {"vit_ti_16", {0}, 5e-3, 4e-2},
    {"gpt_chars", {2, {2, 64}}, 2e-3, 1.5e-2},
    {"gpt_untied", {2, {2, 64}}, 2e-3, 1.5e-2},
};

/* The other models of the zoo are the same builders' with more blocks or channels; `make parity` compares all. */
static const struct {
    const char *name, *like;
} others[] = {
    {"resnet34", "resnet18"},
    {"resnet101", "resnet50"},
    {"resnet152", "resnet50"},
    {"resnet56", "resnet20"},
    {"mobilenet_v2", "mobilenet_v2_half"},
    {"mobilenet_v3_small_half", "mobilenet_v3_small"},
    {"efficientnet_b1", "efficientnet_b0"},
    {"efficientnet_b2", "efficientnet_b0"},
    {"vit_s_16", "vit_ti_16"},
    {"vit_b_16", "vit_ti_16"},
    {"gpt2", "gpt_chars"},
};

enum { LOSS_F16 = 20, LOSS_BF16 = 60 }; /* thousandths that the loss may be off, of itself if it is more than 1 */

typedef struct batch {
    ftr_context *context;
    zoo_network net;
} batch;

static void feed_batch(void *user, ftr_plan *plan) {
    const batch *b = user;
    FTR_TEST_OK(b->context, zoo_feed(plan, &b->net, "amp"));
}

static void gradients_of_a_model(const zoo_model *model, ftr_shape input, double f16, double bf16) {
    ftr_context *context = ftr_test_context();
    const zoo_options options = {.classes = model->input_dtype == FTR_I32 ? 0 : 10};
    for (int amp = FTR_AMP_FP16; amp <= FTR_AMP_BF16; amp++) {
        ftr_graph *graph = ftr_graph_create(context);
        batch b = {context, zoo_build(graph, model, input, &options)};
        FTR_TEST_GRAPH_OK(graph);
        if (strncmp(model->name, "vit", 3) == 0) { /* its head is 0 at first, and lets no gradient through */
            FTR_TEST_OK(context, zoo_fill_weights(graph, 0, false));
        }
        amp_deviation d = amp_compare_gradients(graph, context, b.net.loss, (ftr_amp)amp, feed_batch, &b);
        print_message("    %s in %s: gradients within %.1e, the worst, %s, within %.1e, loss within %.1e\n",
                      model->name, amp == FTR_AMP_FP16 ? "f16" : "bf16", d.all, d.worst_name, d.worst, d.loss);
        assert_true(d.all > 0 && d.all <= (amp == FTR_AMP_FP16 ? f16 : bf16));
        assert_true(d.loss <= (amp == FTR_AMP_FP16 ? LOSS_F16 : LOSS_BF16) / 1000.0);
        ftr_graph_destroy(graph);
    }
    ftr_context_destroy(context);
}

static void gradients_are_near_those_in_f32(void **state) {
    size_t i = (size_t)(uintptr_t)*state;
    const zoo_model *model = zoo_find(models[i].name);
    assert_non_null(model);
    ftr_shape input = models[i].input;
    if (input.rank == 0) {
        input = model->input;
        input.dim[0] = 2;
    }
    gradients_of_a_model(model, input, models[i].f16, models[i].bf16);
}

static bool is_compared(const char *name) {
    for (size_t i = 0; i < FTR_TEST_LENGTH(models); i++)
        if (strcmp(models[i].name, name) == 0) return true;
    return false;
}

/* No model of the zoo is left out. */
static void each_model_is_compared(void **state) {
    (void)state;
    for (int32_t i = 0; zoo_at(i); i++) {
        const char *name = zoo_at(i)->name;
        bool found = is_compared(name);
        for (size_t k = 0; k < FTR_TEST_LENGTH(others); k++)
            found = found || (strcmp(others[k].name, name) == 0 && is_compared(others[k].like));
        if (!found) fail_msg("%s is neither compared nor like a model that is", name);
    }
}

int main(void) {
    struct CMUnitTest tests[FTR_TEST_LENGTH(models) + 1];
    size_t count = 0;
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(each_model_is_compared);
    for (size_t i = 0; i < FTR_TEST_LENGTH(models); i++) {
        if (!zoo_is_wanted(models[i].name)) continue;
        tests[count++] = (struct CMUnitTest){.name = models[i].name,
                                             .test_func = gradients_are_near_those_in_f32,
                                             .initial_state = (void *)(uintptr_t)i};
    }
    return _cmocka_run_group_tests("amp of models", tests, count, NULL, NULL);
}
