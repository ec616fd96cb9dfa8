/* Gradients under mixed precision against those in f32, of any graph. */
#ifndef FTR_TESTS_SUPPORT_AMP_CHECK_H
#define FTR_TESTS_SUPPORT_AMP_CHECK_H

#include "ftr_test.h"

/* How far all gradients of a graph's parameters together are from those in f32, and the worst of one parameter's. Both are
 * |difference| / |gradient| with Euclidean norms; of a parameter, a gradient smaller than 1% of all counts as that. */
typedef struct amp_deviation {
    double all, worst;
    char worst_name[96];
    double loss; /* |difference| of the loss, relative if it is more than 1 */
} amp_deviation;

/* Feeds a plan's inputs with the same data each time. */
typedef void (*amp_feed_fn)(void *user, ftr_plan *plan);

/* The gradients of all parameters, one behind the other, and the loss. */
static inline float *amp_gradients(ftr_graph *graph, ftr_context *context, ftr_tensor loss, ftr_amp amp,
                                   amp_feed_fn feed, void *user, double *loss_value) {
    int32_t variables = ftr_variable_count(graph), count = 0;
    ftr_tensor *wrt = malloc((size_t)variables * sizeof *wrt);
    int64_t elements = 0;
    for (int32_t i = 0; i < variables; i++) {
        ftr_tensor variable = ftr_variable_at(graph, i);
        ftr_shape shape = ftr_shape_of(variable);
        if (ftr_is_parameter(variable)) {
            wrt[count++] = variable;
            elements += ftr_shape_count(&shape);
        }
    }
    /* a scale that does not overflow: the first step's gradients are those that are compared */
    ftr_scaler_desc scaler = ftr_scaler_defaults();
    scaler.init_scale = 256;
    ftr_compile_desc desc = {.loss = loss, .gradients_of = wrt, .gradient_count = count, .amp = amp, .scaler = &scaler};
    ftr_plan *plan = NULL;
    FTR_TEST_OK(context, ftr_compile(graph, &desc, &plan));
    feed(user, plan);
    ftr_step_info info;
    FTR_TEST_OK(context, ftr_step(plan, &info));
    assert_false(info.skipped);
    *loss_value = info.loss;
    float *gradients = malloc((size_t)elements * sizeof *gradients), *next = gradients;
    for (int32_t i = 0; i < count; i++) {
        ftr_shape shape = ftr_shape_of(wrt[i]);
        FTR_TEST_OK(context, ftr_read_gradient(plan, wrt[i], next, (size_t)ftr_shape_count(&shape) * sizeof *next));
        next += ftr_shape_count(&shape);
    }
    ftr_plan_destroy(plan);
    free(wrt);
    return gradients;
}

/* Compares one step of `graph`, whose parameters have their values, under `amp` with one in f32. Running statistics move. */
static inline amp_deviation amp_compare_gradients(ftr_graph *graph, ftr_context *context, ftr_tensor loss, ftr_amp amp,
                                                  amp_feed_fn feed, void *user) {
    amp_deviation result = {0};
    double exact_loss, half_loss, all = 0, all_off = 0;
    float *exact = amp_gradients(graph, context, loss, FTR_AMP_OFF, feed, user, &exact_loss);
    float *half = amp_gradients(graph, context, loss, amp, feed, user, &half_loss);
    for (int pass = 0; pass < 2; pass++) { /* all together first */
        int64_t at = 0;
        for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
            ftr_tensor variable = ftr_variable_at(graph, i);
            ftr_shape shape = ftr_shape_of(variable);
            double norm = 0, off = 0;
            for (int64_t k = 0; ftr_is_parameter(variable) && k < ftr_shape_count(&shape); k++, at++) {
                double difference = (double)half[at] - (double)exact[at];
                norm += (double)exact[at] * (double)exact[at];
                off += difference * difference;
            }
            if (pass == 0) {
                all += norm;
                all_off += off;
                continue;
            }
            double relative = sqrt(off / fmax(norm, 1e-4 * all));
            if (relative > result.worst) {
                result.worst = relative;
                snprintf(result.worst_name, sizeof result.worst_name, "%s", ftr_name_of(variable));
            }
        }
    }
    result.all = sqrt(all_off / all);
    result.loss = fabs(half_loss - exact_loss) / fmax(1.0, fabs(exact_loss));
    free(exact);
    free(half);
    return result;
}

#endif
