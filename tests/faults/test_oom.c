/* Memory that runs out: the allocator fails at call 1, 2, 3 ... of building, compiling and training a small network. Each
 * time there is a status, nothing leaks, and nothing is given back twice or with another size. */
#include "ftr_test.h"

enum { BATCH = 4, SAMPLES = 10 };

static ftr_tensor model(ftr_graph *graph) {
    const ftr_tensor image = ftr_input(graph, "image", FTR_F32, FTR_SHAPE(BATCH, 6, 6, 2));
    const ftr_tensor label = ftr_input(graph, "label", FTR_I32, FTR_SHAPE(BATCH));
    ftr_batch_mask(graph, BATCH);
    ftr_tensor h = ftr_relu(ftr_batch_norm(ftr_conv2d(image, "conv", 4, 3, NULL), "norm", NULL));
    h = ftr_max_pool2d(h, 2, 2, NULL);
    h = ftr_dropout(ftr_linear(ftr_flatten(h, 1), "fc", 3, NULL), 0.2);
    return ftr_cross_entropy(h, label, NULL);
}

/* The whole life of a training run. */
static ftr_status run(ftr_test_memory *memory, ftr_amp amp, bool around) {
    static const float images[SAMPLES * 72] = {0};
    static const int32_t labels[SAMPLES] = {0, 1, 2, 0, 1, 2, 0, 1, 2, 0};
    ftr_context_desc desc = {
        .seed = 1, .threads = 2, .log_level = FTR_LOG_SILENT, .allocator = ftr_test_allocator(memory)};
    ftr_context *context;
    ftr_status status = ftr_context_create(&desc, &context);
    if (status) return status;
    ftr_source *source = NULL;
    const ftr_field fields[] = {{"image", FTR_F32, FTR_SHAPE(6, 6, 2)}, {"label", FTR_I32, ftr_scalar_shape()}};
    const void *const data[] = {images, labels};
    ftr_graph *graph = ftr_graph_create(context);
    status = graph ? ftr_memory_source(context, "train", SAMPLES, fields, data, 2, &source) : ftr_error_status(context);
    if (!status) {
        ftr_train_desc train = ftr_train_defaults();
        train.loss = model(graph);
        train.optimizer = ftr_adamw(1e-3);
        train.amp = amp;
        if (around) { /* the optimizer's step: groups of micro-batches, averages, statistics anew */
            train.accumulate = 2;
            train.average.kind = FTR_AVERAGE_EMA;
            train.average.copy_buffers = true;
            train.evaluate_average = true;
            train.optimizer.clip_norm = 1;
        }
        train.train = source;
        train.eval = source;
        train.last_batch = FTR_LAST_BATCH_PAD;
        train.progress = FTR_PROGRESS_SILENT;
        train.early_stop.metric = "loss";
        train.early_stop.patience = 5;
        train.early_stop.restore_best = true;
        status = ftr_graph_status(graph) ? ftr_graph_status(graph) : ftr_fit(graph, &train, NULL);
        if (!status && around) status = ftr_update_batch_norm(graph, &train);
    }
    if (status) assert_string_not_equal(ftr_error_message(context), "");
    ftr_source_destroy(source);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
    return status;
}

typedef struct variant {
    bool all_after;
    ftr_amp amp;
    bool around;
} variant;

static void every_allocation_may_fail(void **state) {
    const variant *v = *state;
    int64_t failures = 0;
    for (int64_t n = 1;; n++) {
        ftr_test_memory memory = {.fail_at = n, .fail_after = v->all_after};
        const ftr_status status = run(&memory, v->amp, v->around);
        assert_int_equal(memory.blocks, 0);
        assert_int_equal(memory.live, 0);
        assert_int_equal(memory.wrong, 0);
        if (memory.calls < n) {
            assert_int_equal(status, FTR_OK);
            break;
        }
        assert_int_equal(status, FTR_ERROR_OUT_OF_MEMORY);
        failures++;
    }
    assert_true(failures > 10);
    print_message("%lld allocations failed in turn\n", (long long)failures);
}

int main(void) {
    static variant one, after = {.all_after = true}, mixed = {.amp = FTR_AMP_FP16};
    static variant around = {.around = true}, both = {.around = true, .amp = FTR_AMP_FP16};
    const struct CMUnitTest tests[] = {
        {"one allocation fails", every_allocation_may_fail, NULL, NULL, &one},
        {"all allocations from one on fail", every_allocation_may_fail, NULL, NULL, &after},
        {"one allocation fails, mixed precision", every_allocation_may_fail, NULL, NULL, &mixed},
        {"one allocation fails, groups and averages", every_allocation_may_fail, NULL, NULL, &around},
        {"one allocation fails, groups and averages in mixed precision", every_allocation_may_fail, NULL, NULL, &both},
    };
    return cmocka_run_group_tests_name("out of memory", tests, NULL, NULL);
}
