/* A training loop of one's own: batches made by hand, a learning rate that falls, a second plan for evaluation. Both
 * plans share the graph's parameters. The task: is a point of the plane on the left or the right arm of a spiral? */
#define FASTTRAIN_IMPLEMENTATION
#include "fasttrain.h"

#include <math.h>
#include <stdio.h>

#define BATCH 50
#define STEPS 2000
#define TRY(call)                                                                                                      \
    if ((call) != FTR_OK) return fprintf(stderr, "%s: %s\n", #call, ftr_error_message(context)), 1
/* Sample `index`: angle and radius grow together; odd samples are the even ones turned by half a circle. */
static void make_batch(int64_t first, float x[BATCH][2], int32_t label[BATCH]) {
    for (int64_t i = 0; i < BATCH; i++) {
        double t = (double)((first + i) * 37 % 1000) / 1000.0, sign = (first + i) % 2 ? -1.0 : 1.0;
        x[i][0] = (float)(sign * t * cos(6.0 * t));
        x[i][1] = (float)(sign * t * sin(6.0 * t));
        label[i] = (int32_t)((first + i) % 2);
    }
}

int main(void) {
    ftr_context *context = NULL;
    if (ftr_context_create(NULL, &context) != FTR_OK) return 1;
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(BATCH, 2));
    ftr_tensor label = ftr_input(graph, "label", FTR_I32, FTR_SHAPE(BATCH));
    ftr_tensor hidden = ftr_relu(ftr_linear(ftr_relu(ftr_linear(x, "fc1", 64, NULL)), "fc2", 64, NULL));
    ftr_tensor logits = ftr_linear(hidden, "fc3", 2, NULL);
    ftr_tensor loss = ftr_cross_entropy(logits, label, NULL), accuracy = ftr_accuracy(logits, label);

    ftr_optimizer adamw = ftr_adamw(0.01);
    ftr_plan *train = NULL, *eval = NULL;
    TRY(ftr_compile(graph, &(ftr_compile_desc){.loss = loss, .optimizer = &adamw}, &train));
    TRY(ftr_compile(graph, &(ftr_compile_desc){.mode = FTR_MODE_EVAL, .outputs = &accuracy, .output_count = 1}, &eval));

    float points[BATCH][2], share = 0.0f;
    int32_t labels[BATCH];
    ftr_step_info info;
    for (int step = 0; step < STEPS; step++) {
        make_batch((int64_t)step * BATCH % 900, points, labels); /* samples 900 to 999 are never trained on */
        TRY(ftr_feed(train, x, points, sizeof points));
        TRY(ftr_feed(train, label, labels, sizeof labels));
        TRY(ftr_plan_set_lr(train, 0.01 * (1.0 - (double)step / STEPS)));
        TRY(ftr_step(train, &info));
        if ((step + 1) % 500 != 0) continue;
        make_batch(900 + (step + 1) % 1000 / 10, points, labels);
        TRY(ftr_feed(eval, x, points, sizeof points));
        TRY(ftr_feed(eval, label, labels, sizeof labels));
        TRY(ftr_step(eval, NULL));
        TRY(ftr_read(eval, accuracy, &share, sizeof share));
        printf("step %4d  loss %.4f  held-out accuracy %.2f\n", step + 1, info.loss, (double)share);
    }
    ftr_plan_destroy(train);
    ftr_plan_destroy(eval);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
    return share >= 0.95f ? 0 : 1;
}
