// Uses the interface from C++: XOR by a small network, with ftr_fit().
#include HEADER

#include "dropin.h"
#include <cstdio>

static int fit_xor(ftr_context *context, ftr_graph *graph, ftr_source *source) {
    ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(4, 2));
    ftr_tensor y = ftr_input(graph, "y", FTR_I32, FTR_SHAPE(4));
    ftr_tensor hidden = ftr_tanh(ftr_linear(x, "hidden", 16, nullptr));
    ftr_tensor logits = ftr_linear(hidden, "out", 2, nullptr);

    ftr_train_desc desc = ftr_train_defaults();
    desc.loss = ftr_cross_entropy(logits, y, nullptr);
    desc.optimizer = ftr_adamw(0.02f);
    desc.train = source;
    desc.epochs = 500;
    desc.progress = FTR_PROGRESS_SILENT;
    ftr_train_result result;
    if (ftr_fit(graph, &desc, &result) != FTR_OK) {
        std::fprintf(stderr, "%s\n", ftr_error_message(context));
        return 1;
    }
    return !(result.loss < 0.05);
}

int train_xor() {
    static const float inputs[] = {0, 0, 0, 1, 1, 0, 1, 1};
    static const int32_t labels[] = {0, 1, 1, 0};
    const ftr_field fields[] = {{"x", FTR_F32, FTR_SHAPE(2)}, {"y", FTR_I32, ftr_scalar_shape()}};
    const void *const data[] = {inputs, labels};

    ftr_context_desc desc = ftr_context_desc();
    desc.seed = 7;
    ftr_context *context = nullptr;
    if (ftr_context_create(&desc, &context) != FTR_OK) return 1;
    ftr_graph *graph = ftr_graph_create(context);
    ftr_source *source = nullptr;
    int failed = ftr_memory_source(context, "xor", 4, fields, data, 2, &source) != FTR_OK;
    if (!failed) failed = fit_xor(context, graph, source);
    ftr_source_destroy(source);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
    return failed;
}
