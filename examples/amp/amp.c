/* Mixed precision: the digits of examples/digits and one small network, trained in f32, bf16 and f16 side by side from the
 * same first weights on the same batches. Prints the losses as they go, f16's loss scale and the steps that it left out,
 * then what each has come to on held-out images and the memory of its activations. The scale grows every 50 steps here
 * instead of every 2000, so that the short run shows it overflow: a step is left out, and the scale is halved. */
#define FASTTRAIN_IMPLEMENTATION
#include "fasttrain.h"

#include "examples/digits/digits_data.h"

#include <stdio.h>

enum { IMAGES = 1797, TRAINED = 1437, BATCH = 40, EPOCHS = 20, BATCHES = TRAINED / BATCH, EVERY = 50 };

static float images[IMAGES][64];
static int32_t labels[IMAGES];

static void decode(void) {
    for (int i = 0; i < IMAGES; i++) {
        const int64_t from = ftr_shuffled_index(20, 0, i, IMAGES);
        for (int k = 0; k < 64; k++) images[i][k] = (float)(digits_data[from][k] - 'a') / 16.0f;
        labels[i] = digits_data[from][64] - '0';
    }
}

/* A network, its plan, and how it has gone since the last line of the table. */
typedef struct run {
    const char *name;
    ftr_amp amp;
    ftr_graph *graph;
    ftr_tensor x, y, loss, accuracy;
    ftr_plan *plan;
    ftr_step_info last;
    double losses;
    int skipped;
} run;

static ftr_tensor block(ftr_tensor x, const char *conv, const char *norm, int64_t channels, int32_t stride) {
    const ftr_conv2d_desc desc = {.stride = {stride, stride}, .padding = {1, 1, 1, 1}, .no_bias = true};
    return ftr_relu(ftr_batch_norm(ftr_conv2d(x, conv, channels, 3, &desc), norm, NULL));
}

/* The network knows nothing of mixed precision: compiling it with `amp` is all. */
static ftr_status prepare(ftr_context *context, run *r) {
    r->graph = ftr_graph_create(context);
    r->x = ftr_input(r->graph, "image", FTR_F32, FTR_SHAPE(BATCH, 8, 8, 1));
    r->y = ftr_input(r->graph, "label", FTR_I32, FTR_SHAPE(BATCH));
    ftr_tensor h = block(block(block(r->x, "conv1", "bn1", 32, 1), "conv2", "bn2", 64, 2), "conv3", "bn3", 128, 2);
    ftr_tensor logits = ftr_linear(ftr_global_avg_pool(h), "fc", 10, NULL);
    r->loss = ftr_cross_entropy(logits, r->y, NULL);
    r->accuracy = ftr_accuracy(logits, r->y);
    ftr_optimizer optimizer = ftr_adamw(1e-3);
    optimizer.clip_norm = 1.0;
    ftr_scaler_desc scaler = ftr_scaler_defaults(); /* for f16 alone */
    scaler.growth_interval = EVERY;
    const ftr_compile_desc desc = {.loss = r->loss, .optimizer = &optimizer, .amp = r->amp, .scaler = &scaler};
    return ftr_compile(r->graph, &desc, &r->plan);
}

static ftr_status train_step(run *r, const int64_t *batch) {
    float *x = ftr_input_memory(r->plan, r->x);
    int32_t *y = ftr_input_memory(r->plan, r->y);
    if (!x || !y) return FTR_ERROR_INVALID_TENSOR;
    for (int i = 0; i < BATCH; i++) {
        for (int k = 0; k < 64; k++) x[64 * i + k] = images[batch[i]][k];
        y[i] = labels[batch[i]];
    }
    const ftr_status status = ftr_step(r->plan, &r->last);
    r->losses += r->last.loss;
    r->skipped += r->last.skipped;
    return status;
}

/* The share of held-out images that are read rightly, in the type of the training. */
static ftr_status evaluate(ftr_context *context, run *r, double *accuracy) {
    const ftr_field fields[] = {{"image", FTR_F32, FTR_SHAPE(8, 8, 1)}, {"label", FTR_I32, ftr_scalar_shape()}};
    ftr_source *held_out;
    ftr_status status = ftr_memory_source(context, "held out", IMAGES - TRAINED, fields,
                                          (const void *[]){images[TRAINED], labels + TRAINED}, 2, &held_out);
    if (status != FTR_OK) return status;
    ftr_train_desc t = ftr_train_defaults();
    t.loss = r->loss;
    t.metrics[t.metric_count++] = (ftr_metric){"accuracy", r->accuracy};
    t.amp = r->amp;
    t.eval = held_out;
    ftr_train_result result;
    status = ftr_evaluate(r->graph, &t, &result);
    if (status == FTR_OK) *accuracy = result.eval_metrics[0];
    ftr_source_destroy(held_out);
    return status;
}

static ftr_status train(run runs[3]) {
    ftr_status status = FTR_OK;
    printf("%-6s %9s %9s %9s   %10s %9s\n", "", "f32", "bf16", "f16", "f16's", "left");
    printf("%-6s %9s %9s %9s   %10s %9s\n", "step", "loss", "loss", "loss", "scale", "out");
    for (int step = 1; step <= EPOCHS * BATCHES; step++) {
        int64_t batch[BATCH];
        for (int i = 0; i < BATCH; i++)
            batch[i] = ftr_shuffled_index(1, (step - 1) / BATCHES, (step - 1) % BATCHES * BATCH + i, TRAINED);
        for (int k = 0; k < 3; k++)
            if ((status = train_step(&runs[k], batch)) != FTR_OK) return status;
        if (step % EVERY != 0) continue;
        printf("%-6d %9.5f %9.5f %9.5f   %10.0f %9d\n", step, runs[0].losses / EVERY, runs[1].losses / EVERY,
               runs[2].losses / EVERY, runs[2].last.loss_scale, runs[2].skipped);
        for (int k = 0; k < 3; k++) runs[k].losses = 0;
        runs[2].skipped = 0;
    }
    return status;
}

int main(void) {
    decode();
    ftr_context *context;
    if (ftr_context_create(&(ftr_context_desc){.seed = 1}, &context) != FTR_OK) return 1;
    run runs[3] = {{.name = "f32", .amp = FTR_AMP_OFF},
                   {.name = "bf16", .amp = FTR_AMP_BF16},
                   {.name = "f16", .amp = FTR_AMP_FP16}};
    ftr_status status = FTR_OK;
    for (int k = 0; k < 3 && status == FTR_OK; k++) status = prepare(context, &runs[k]);
    if (status == FTR_OK) status = train(runs);
    if (status == FTR_OK) printf("\n%-6s %9s   %12s   %10s\n", "", "held out", "activations", "steps");
    for (int k = 0; k < 3 && status == FTR_OK; k++) {
        double accuracy = 0;
        status = evaluate(context, &runs[k], &accuracy);
        if (status == FTR_OK)
            printf("%-6s %7.2f %%   %6zu bytes   %10llu\n", runs[k].name, 100.0 * accuracy,
                   ftr_plan_memory(runs[k].plan).activations, (unsigned long long)runs[k].last.applied_steps);
    }
    if (status != FTR_OK) fprintf(stderr, "%s\n", ftr_error_message(context));
    for (int k = 0; k < 3; k++) {
        ftr_plan_destroy(runs[k].plan);
        ftr_graph_destroy(runs[k].graph);
    }
    ftr_context_destroy(context);
    return status != FTR_OK;
}
