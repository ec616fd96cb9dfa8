/* XOR with a multilayer perceptron, through ftr_fit(): a source of four samples, a network of two layers, AdamW. */
#define FASTTRAIN_IMPLEMENTATION
#include "fasttrain.h"

#include <stdio.h>

#define TRY(call)                                                                                                      \
    if ((call) != FTR_OK) return fprintf(stderr, "%s: %s\n", #call, ftr_error_message(context)), 1

int main(void) {
    static const float points[4][2] = {{0, 0}, {0, 1}, {1, 0}, {1, 1}};
    static const float answers[4][1] = {{0}, {1}, {1}, {0}};

    ftr_context_desc context_desc = {.seed = 1};
    ftr_context *context = NULL;
    if (ftr_context_create(&context_desc, &context) != FTR_OK) return 1;

    /* Fields are matched with the graph's inputs by name; a field has the shape of one sample. */
    ftr_field fields[2] = {{"point", FTR_F32, FTR_SHAPE(2)}, {"answer", FTR_F32, FTR_SHAPE(1)}};
    const void *data[2] = {points, answers};
    ftr_source *source = NULL;
    TRY(ftr_memory_source(context, "xor", 4, fields, data, 2, &source));

    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor point = ftr_input(graph, "point", FTR_F32, FTR_SHAPE(4, 2));
    ftr_tensor answer = ftr_input(graph, "answer", FTR_F32, FTR_SHAPE(4, 1));
    ftr_tensor hidden = ftr_tanh(ftr_linear(point, "hidden", 8, NULL));
    ftr_tensor output = ftr_sigmoid(ftr_linear(hidden, "output", 1, NULL));
    ftr_tensor loss = ftr_mse(output, answer, FTR_REDUCE_MEAN);

    ftr_train_desc train = ftr_train_defaults();
    train.loss = loss;
    train.optimizer = ftr_adamw(0.05);
    train.train = source;
    train.epochs = 500;
    train.progress = FTR_PROGRESS_SILENT;
    ftr_train_result result;
    TRY(ftr_fit(graph, &train, &result));
    printf("%lld steps, loss %.6f\n", (long long)result.steps, result.loss);

    ftr_compile_desc desc = {.mode = FTR_MODE_EVAL, .outputs = &output, .output_count = 1};
    ftr_plan *plan = NULL;
    TRY(ftr_compile(graph, &desc, &plan));
    TRY(ftr_feed(plan, point, points, sizeof points));
    TRY(ftr_step(plan, NULL));
    float found[4];
    TRY(ftr_read(plan, output, found, sizeof found));
    int right = 0;
    for (int i = 0; i < 4; i++) {
        printf("%.0f xor %.0f = %.3f\n", (double)points[i][0], (double)points[i][1], (double)found[i]);
        right += (found[i] > 0.5f) == (answers[i][0] > 0.5f);
    }
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_source_destroy(source);
    ftr_context_destroy(context);
    return right == 4 ? 0 : 1;
}
