/* All optimizers on one task: the digits of examples/digits, a small convolutional network, four epochs under one
 * schedule. Prints for each the losses, the share of held-out images that are read rightly, the time of a step, and
 * the memory of the optimizer's state. Learning rates are ordinary ones, not tuned: the table compares costs, not
 * optimizers. */
#define FASTTRAIN_IMPLEMENTATION
#include "fasttrain.h"

#include "examples/digits/digits_data.h"

#include <stdio.h>

enum { IMAGES = 1797, TRAINED = 1437, BATCH = 48, EPOCHS = 4 };

static float images[IMAGES][64];
static int32_t labels[IMAGES];

static void decode(void) {
    for (int i = 0; i < IMAGES; i++) {
        const int64_t from = ftr_shuffled_index(20, 0, i, IMAGES);
        for (int k = 0; k < 64; k++) images[i][k] = (float)(digits_data[from][k] - 'a') / 16.0f;
        labels[i] = digits_data[from][64] - '0';
    }
}

static ftr_optimizer sgd(void) { return ftr_sgd(0.2); }

static ftr_optimizer nesterov(void) {
    ftr_optimizer o = ftr_sgd(0.05);
    o.momentum = 0.9, o.nesterov = true, o.weight_decay = 1e-4;
    return o;
}

static ftr_optimizer adam(void) { return ftr_adam(3e-3); }
static ftr_optimizer adamw(void) { return ftr_adamw(3e-3); }

static ftr_optimizer amsgrad(void) {
    ftr_optimizer o = ftr_adamw(3e-3);
    o.amsgrad = true;
    return o;
}

static ftr_optimizer rmsprop(void) { return ftr_rmsprop(1e-3); }
static ftr_optimizer adagrad(void) { return ftr_adagrad(2e-2); }
static ftr_optimizer lamb(void) { return ftr_lamb(2e-2); }

static ftr_optimizer lars(void) {
    ftr_optimizer o = ftr_lars(20.0);
    o.momentum = 0.9, o.weight_decay = 1e-4;
    return o;
}

static ftr_optimizer lion(void) {
    ftr_optimizer o = ftr_lion(2e-3);
    o.weight_decay = 0.1;
    return o;
}

static ftr_optimizer adafactor(void) { return ftr_adafactor(3e-2); }

/* The convolutions by Muon; the last layer, like all that is no matrix, by AdamW. The group lives as long as the
 * program. */
static ftr_optimizer muon(void) {
    static ftr_param_group last;
    last = ftr_param_group_defaults();
    last.pattern = "fc.*";
    last.kind = FTR_OPTIMIZER_ADAMW;
    ftr_optimizer o = ftr_muon(1e-2);
    o.rate = FTR_MUON_RATE_MATCH_RMS_ADAMW; /* so that AdamW can have the same learning rate */
    o.groups = &last;
    o.group_count = 1;
    return o;
}

static const struct {
    const char *name;
    ftr_optimizer (*make)(void);
} optimizers[] = {{"SGD", sgd},
                  {"SGD Nesterov", nesterov},
                  {"Adam", adam},
                  {"AdamW", adamw},
                  {"AMSGrad", amsgrad},
                  {"RMSprop", rmsprop},
                  {"Adagrad", adagrad},
                  {"LAMB", lamb},
                  {"LARS", lars},
                  {"Lion", lion},
                  {"Adafactor", adafactor},
                  {"Muon + AdamW", muon}};

static ftr_tensor block(ftr_tensor x, const char *conv, const char *norm, int64_t channels, int32_t stride) {
    const ftr_conv2d_desc desc = {.stride = {stride, stride}, .padding = {1, 1, 1, 1}, .no_bias = true};
    return ftr_relu(ftr_batch_norm(ftr_conv2d(x, conv, channels, 3, &desc), norm, NULL));
}

/* What the first epoch came to. */
static bool remember(void *user, const ftr_train_event *event) {
    if (event->kind == FTR_EVENT_EPOCH && event->epoch == 0) *(double *)user = event->loss;
    return false;
}

static ftr_status train(ftr_context *context, const char *name, const ftr_optimizer *optimizer, ftr_source *source,
                        ftr_source *held_out) {
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor x = ftr_input(graph, "image", FTR_F32, FTR_SHAPE(BATCH, 8, 8, 1));
    ftr_tensor y = ftr_input(graph, "label", FTR_I32, FTR_SHAPE(BATCH));
    ftr_batch_mask(graph, BATCH);
    ftr_tensor h = block(block(block(x, "conv1", "bn1", 32, 1), "conv2", "bn2", 64, 2), "conv3", "bn3", 128, 2);
    ftr_tensor logits = ftr_linear(ftr_global_avg_pool(h), "fc", 10, NULL);
    double first = 0;
    ftr_train_desc t = ftr_train_defaults();
    t.loss = ftr_cross_entropy(logits, y, NULL);
    t.metrics[t.metric_count++] = (ftr_metric){"accuracy", ftr_accuracy(logits, y)};
    t.optimizer = *optimizer;
    t.optimizer.no_decay_norms_biases = true;
    t.schedule = ftr_schedule_cosine(EPOCHS * (TRAINED / BATCH) - 10, 0.0);
    t.schedule.warmup_steps = 10;
    t.schedule.warmup_factor = 0.1;
    t.train = source, t.eval = held_out, t.epochs = EPOCHS;
    t.progress = FTR_PROGRESS_SILENT, t.on_event = remember, t.on_event_user = &first;
    ftr_train_result r;
    const ftr_status status = ftr_fit(graph, &t, &r);
    ftr_graph_destroy(graph);
    if (status != FTR_OK) return status;
    printf("%-14s %8.4f %8.4f   %6.2f %%   %8.3f   %9zu\n", name, first, r.loss, 100.0 * r.eval_metrics[0],
           1e3 * BATCH / r.samples_per_second, r.memory.optimizer_state);
    return FTR_OK;
}

int main(void) {
    decode();
    ftr_context *context;
    if (ftr_context_create(&(ftr_context_desc){.seed = 1}, &context) != FTR_OK) return 1;
    const ftr_field fields[] = {{"image", FTR_F32, FTR_SHAPE(8, 8, 1)}, {"label", FTR_I32, ftr_scalar_shape()}};
    ftr_source *source = NULL, *held_out = NULL;
    ftr_status status =
        ftr_memory_source(context, "digits", TRAINED, fields, (const void *[]){images, labels}, 2, &source);
    if (status == FTR_OK)
        status = ftr_memory_source(context, "held out", IMAGES - TRAINED, fields,
                                   (const void *[]){images[TRAINED], labels + TRAINED}, 2, &held_out);
    printf("%-14s %8s %8s   %8s   %8s   %9s\n", "", "loss,", "loss,", "held", "ms", "state,");
    printf("%-14s %8s %8s   %8s   %8s   %9s\n", "", "epoch 1", "epoch 4", "out", "a step", "bytes");
    for (size_t i = 0; i < sizeof optimizers / sizeof *optimizers && status == FTR_OK; i++) {
        const ftr_optimizer optimizer = optimizers[i].make();
        status = train(context, optimizers[i].name, &optimizer, source, held_out);
    }
    if (status != FTR_OK) fprintf(stderr, "%s\n", ftr_error_message(context));
    ftr_source_destroy(source);
    ftr_source_destroy(held_out);
    ftr_context_destroy(context);
    return status != FTR_OK;
}
