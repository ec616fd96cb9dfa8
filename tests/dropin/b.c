/* Uses the interface: y = 2 x - 1 by gradient descent, with a loop of its own. */
#include HEADER

#include "dropin.h"
#include <math.h>
#include <stdio.h>

static int fit_line(ftr_context *context, ftr_graph *graph) {
    const ftr_init zero = {FTR_INIT_ZEROS, 0.0, 0.0};
    ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(8));
    ftr_tensor y = ftr_input(graph, "y", FTR_F32, FTR_SHAPE(8));
    ftr_tensor slope = ftr_parameter(graph, "slope", FTR_F32, FTR_SHAPE(1), zero);
    ftr_tensor offset = ftr_parameter(graph, "offset", FTR_F32, FTR_SHAPE(1), zero);
    ftr_tensor loss = ftr_mse(ftr_add(ftr_mul(x, slope), offset), y, FTR_REDUCE_MEAN);

    ftr_optimizer sgd = ftr_sgd(0.1f);
    ftr_compile_desc desc = {0};
    desc.loss = loss;
    desc.optimizer = &sgd;
    ftr_plan *plan = NULL;
    if (ftr_compile(graph, &desc, &plan) != FTR_OK) {
        fprintf(stderr, "%s\n", ftr_error_message(context));
        return 1;
    }
    float xs[8], ys[8], learned[2] = {0.0f, 0.0f};
    for (int i = 0; i < 8; i++) {
        xs[i] = (float)i / 4.0f - 1.0f;
        ys[i] = 2.0f * xs[i] - 1.0f;
    }
    ftr_status status = ftr_feed(plan, x, xs, sizeof xs);
    if (status == FTR_OK) status = ftr_feed(plan, y, ys, sizeof ys);
    for (int step = 0; step < 500 && status == FTR_OK; step++) status = ftr_step(plan, NULL);
    if (status == FTR_OK) status = ftr_variable_read(slope, &learned[0], sizeof learned[0]);
    if (status == FTR_OK) status = ftr_variable_read(offset, &learned[1], sizeof learned[1]);
    if (status != FTR_OK) fprintf(stderr, "%s\n", ftr_error_message(context));
    ftr_plan_destroy(plan);
    return status != FTR_OK || fabsf(learned[0] - 2.0f) > 1e-3f || fabsf(learned[1] + 1.0f) > 1e-3f;
}

int train_line(void) {
    ftr_context *context = NULL;
    if (ftr_context_create(NULL, &context) != FTR_OK) return 1;
    ftr_graph *graph = ftr_graph_create(context);
    int failed = fit_line(context, graph);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
    return failed;
}
