/* Linear regression with the graph alone: parameters, a matrix product, an addition, a loss; no layers, no training
 * loop. Learns y = 3 a - 2 b + 0.5 from 64 points. */
#define FASTTRAIN_IMPLEMENTATION
#include "fasttrain.h"

#include <stdio.h>

#define POINTS 64
#define TRY(call)                                                                                                      \
    if ((call) != FTR_OK) return fprintf(stderr, "%s: %s\n", #call, ftr_error_message(context)), 1

int main(void) {
    float x_data[POINTS][2], y_data[POINTS][1];
    for (int i = 0; i < POINTS; i++) {
        x_data[i][0] = (float)(i % 8) / 8.0f;
        x_data[i][1] = (float)(i / 8) / 8.0f;
        y_data[i][0] = 3.0f * x_data[i][0] - 2.0f * x_data[i][1] + 0.5f;
    }

    ftr_context *context = NULL;
    if (ftr_context_create(NULL, &context) != FTR_OK) return 1;
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(POINTS, 2));
    ftr_tensor y = ftr_input(graph, "y", FTR_F32, FTR_SHAPE(POINTS, 1));
    ftr_init zeros = {FTR_INIT_ZEROS, 0, 0};
    ftr_tensor weight = ftr_parameter(graph, "weight", FTR_F32, FTR_SHAPE(2, 1), zeros);
    ftr_tensor bias = ftr_parameter(graph, "bias", FTR_F32, FTR_SHAPE(1), zeros);
    ftr_tensor prediction = ftr_add(ftr_matmul(x, weight, false, false), bias);
    ftr_tensor loss = ftr_mse(prediction, y, FTR_REDUCE_MEAN);

    ftr_optimizer sgd = ftr_sgd(0.2);
    sgd.momentum = 0.9;
    ftr_compile_desc desc = {.loss = loss, .optimizer = &sgd};
    ftr_plan *plan = NULL;
    TRY(ftr_compile(graph, &desc, &plan));
    TRY(ftr_feed(plan, x, x_data, sizeof x_data));
    TRY(ftr_feed(plan, y, y_data, sizeof y_data));
    ftr_step_info info = {0};
    for (int step = 0; step < 200; step++) {
        TRY(ftr_step(plan, &info));
        if (step % 50 == 0) printf("step %3d  loss %.6f\n", step, info.loss);
    }

    float w[2], b;
    TRY(ftr_variable_read(weight, w, sizeof w));
    TRY(ftr_variable_read(bias, &b, sizeof b));
    printf("learned y = %.3f a %+.3f b %+.3f (loss %.2g)\n", (double)w[0], (double)w[1], (double)b, info.loss);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
    return info.loss < 1e-4 ? 0 : 1;
}
