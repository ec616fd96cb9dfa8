#include "trainee.h"

#include <signal.h>

enum { BATCH = 4, SAMPLES = 22, HELD_OUT = 9, SIDE = 6, CLASSES = 3 };

typedef struct reader {
    unsigned microseconds;
    bool augments;
} reader;

/* A picture with a bar; the training source turns and dims it by its index. */
static ftr_status read_sample(void *user, int64_t index, void *const *fields) {
    const reader *r = user;
    float picture[SIDE][SIDE] = {{0}};
    ftr_test_rng rng = {(uint64_t)index * 31 + (r->augments ? 7 : 1000003)};
    const int32_t label = (int32_t)(index % CLASSES);
    const int at = (int)ftr_test_integer(&rng, 1, SIDE - 2);
    const bool turned = r->augments && (ftr_test_random(&rng) & 1);
    const float light = (float)ftr_test_uniform(&rng, 0.5, 1.0);
    for (int i = 0; i < SIDE; i++) {
        const int k = turned ? SIDE - 1 - i : i;
        if (label == 0) picture[at][k] = light;
        if (label == 1) picture[k][at] = light;
        if (label == 2) picture[k][(i + at) % SIDE] = light;
    }
    for (int i = 0; i < SIDE * SIDE; i++) (&picture[0][0])[i] += (float)ftr_test_uniform(&rng, 0.0, 0.3);
    memcpy(fields[0], picture, sizeof picture);
    *(int32_t *)fields[1] = label;
    if (r->microseconds > 0) usleep(r->microseconds);
    return FTR_OK;
}

enum { SGD, ADAMW, ADAM, RMSPROP, ADAGRAD, LAMB, LARS, LION, ADAFACTOR, MUON };

trainee_config trainee_draw(ftr_test_rng *rng, int story) {
    trainee_config config;
    memset(&config, 0, sizeof config);
    config.optimizer = story % TRAINEE_OPTIMIZERS;
    config.amp = (ftr_amp)(story % 3);
    const bool bf16 = (ftr_test_random(rng) & 1) && config.optimizer != ADAFACTOR;
    config.state = bf16 ? FTR_BF16 : FTR_F32;
    config.around = (int32_t)(ftr_test_random(rng) & 1); /* checkpoints within groups */
    config.mixes = (int32_t)(ftr_test_random(rng) & 1);
    return config;
}

bool trainee_skips(const trainee_config *config) { return config->amp == FTR_AMP_FP16; }

static ftr_optimizer make_optimizer(const trainee_config *config) {
    ftr_optimizer optimizers[TRAINEE_OPTIMIZERS] = {
        ftr_sgd(0.1),   ftr_adamw(0.02), ftr_adam(0.02), ftr_rmsprop(0.01),  ftr_adagrad(0.1),
        ftr_lamb(0.02), ftr_lars(1.0),   ftr_lion(0.01), ftr_adafactor(0.1), ftr_muon(0.02)};
    optimizers[SGD].momentum = 0.9;
    optimizers[LARS].momentum = 0.9;
    optimizers[ADAM].amsgrad = true;
    optimizers[RMSPROP].momentum = 0.5;
    ftr_optimizer optimizer = optimizers[config->optimizer];
    optimizer.state_dtype = config->state;
    if (config->state == FTR_BF16 && optimizer.beta2 > 0.98) optimizer.beta2 = 0.98;
    return optimizer;
}

trainee_desc trainee_defaults(void) {
    trainee_desc desc = {.threads = 2, .epochs = 4};
    desc.config.state = FTR_F32;
    return desc;
}

typedef struct model {
    ftr_graph *graph;
    ftr_source *train, *eval;
    reader train_reader, eval_reader;
    ftr_train_desc desc;
    int64_t signal_step;
} model;

static bool raise_signals(void *user, const ftr_train_event *event) {
    const model *m = user;
    if (event->kind == FTR_EVENT_STEP && event->step == m->signal_step) {
        kill(getpid(), SIGTERM);
        kill(getpid(), SIGUSR1);
    }
    return false;
}

static ftr_status build(ftr_context *context, const trainee_desc *desc, model *m) {
    m->graph = ftr_graph_create(context);
    ftr_batch_mask(m->graph, BATCH);
    const ftr_tensor x = ftr_input(m->graph, "x", FTR_F32, FTR_SHAPE(BATCH, SIDE, SIDE, 1));
    const ftr_tensor label = ftr_input(m->graph, "label", FTR_I32, FTR_SHAPE(BATCH));
    ftr_tensor images = x, targets = label;
    if (desc->config.mixes) {
        const ftr_mix mix = ftr_mix_draw(x, "mix", NULL);
        images = ftr_mix_images(x, mix);
        targets = ftr_mix_targets(ftr_one_hot(label, CLASSES, FTR_F32), mix);
    }
    ftr_tensor h = ftr_relu(ftr_batch_norm(ftr_conv2d(images, "conv", 6, 3, NULL), "bn", NULL));
    h = ftr_linear(ftr_dropout(ftr_flatten(ftr_max_pool2d(h, 2, 2, NULL), 1), 0.3), "fc", CLASSES, NULL);
    m->train_reader = (reader){desc->microseconds, true};
    m->eval_reader = (reader){desc->microseconds, false};
    m->desc = ftr_train_defaults();
    m->desc.loss = ftr_cross_entropy(h, targets, NULL);
    m->desc.metrics[m->desc.metric_count++] = (ftr_metric){"accuracy", ftr_accuracy(h, label)};
    m->desc.optimizer = make_optimizer(&desc->config);
    m->desc.amp = desc->config.amp;
    m->desc.scaler.init_scale = 0x1p18;
    m->desc.scaler.growth_interval = 4;
    if (desc->config.around) {
        m->desc.accumulate = 2;
        m->desc.average.kind = FTR_AVERAGE_EMA;
        m->desc.average.decay = 0.75;
        m->desc.average.warmup = true;
        m->desc.evaluate_average = true;
    }
    m->desc.epochs = desc->epochs;
    m->desc.early_stop.metric = "loss";
    m->desc.early_stop.patience = 2;
    m->desc.early_stop.restore_best = true;
    m->desc.progress = FTR_PROGRESS_SILENT;
    m->desc.checkpoint = desc->checkpoint;
    m->desc.resume = desc->resume;
    m->desc.handle_signals = desc->handle_signals;
    m->signal_step = desc->signal_step;
    m->desc.on_event = raise_signals;
    m->desc.on_event_user = m;
    const ftr_field fields[] = {{"x", FTR_F32, FTR_SHAPE(SIDE, SIDE, 1)}, {"label", FTR_I32, ftr_scalar_shape()}};
    ftr_source_desc source = {.name = "train", .count = SAMPLES, .fields = fields, .field_count = 2};
    source.read = read_sample;
    source.user = &m->train_reader;
    ftr_status status = ftr_graph_status(m->graph);
    if (!m->graph) status = FTR_ERROR_OUT_OF_MEMORY;
    if (status == FTR_OK) status = ftr_source_create(context, &source, &m->train);
    source.name = "held out";
    source.count = HELD_OUT;
    source.user = &m->eval_reader;
    if (status == FTR_OK) status = ftr_source_create(context, &source, &m->eval);
    m->desc.train = m->train;
    m->desc.eval = m->eval;
    return status;
}

/* FNV-1a. */
static uint64_t weights_digest(ftr_graph *graph) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    unsigned char data[8192];
    for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
        const ftr_shape shape = ftr_shape_of(ftr_variable_at(graph, i));
        const size_t bytes = (size_t)ftr_shape_count(&shape) * sizeof(float);
        if (bytes > sizeof data || ftr_variable_read(ftr_variable_at(graph, i), data, bytes) != FTR_OK) return 0;
        for (size_t b = 0; b < bytes; b++) hash = (hash ^ data[b]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

void trainee_run(const trainee_desc *desc, trainee_result *result) {
    memset(result, 0, sizeof *result);
    ftr_context_desc context_desc = {.seed = 5, .threads = desc->threads, .log_level = FTR_LOG_WARNING};
    context_desc.logger = ftr_test_logger(&result->log);
    if (desc->memory) context_desc.allocator = ftr_test_allocator(desc->memory);
    ftr_context *context = NULL;
    result->status = ftr_context_create(&context_desc, &context);
    if (result->status != FTR_OK) { /* what went wrong is in the log alone */
        snprintf(result->message, sizeof result->message, "%.500s", result->log.text);
        return;
    }
    model m;
    memset(&m, 0, sizeof m);
    result->status = build(context, desc, &m);
    if (result->status == FTR_OK) result->status = ftr_fit(m.graph, &m.desc, &result->train);
    if (result->status != FTR_OK) snprintf(result->message, sizeof result->message, "%s", ftr_error_message(context));
    if (result->status == FTR_OK) result->digest = weights_digest(m.graph);
    ftr_source_destroy(m.train);
    ftr_source_destroy(m.eval);
    ftr_graph_destroy(m.graph);
    ftr_context_destroy(context);
}

static void compare_doubles(const char *what, const double *a, const double *b) {
    if (memcmp(a, b, sizeof *a) != 0) fail_msg("%s is %.17g, expected %.17g", what, *a, *b);
}

void trainee_compare(const trainee_result *result, const trainee_result *expected) {
    if (result->status != FTR_OK) fail_msg("%s: %s", ftr_status_name(result->status), result->message);
    const ftr_train_result *a = &result->train, *b = &expected->train;
    if (result->digest != expected->digest)
        fail_msg("the weights' digest is %llx, expected %llx", (unsigned long long)result->digest,
                 (unsigned long long)expected->digest);
    assert_int_equal(a->steps, b->steps);
    assert_int_equal(a->applied_steps, b->applied_steps);
    assert_int_equal(a->unapplied_steps, b->unapplied_steps);
    assert_int_equal(a->epochs, b->epochs);
    assert_int_equal(a->best_epoch, b->best_epoch);
    assert_int_equal(a->stopped_early, b->stopped_early);
    assert_int_equal(a->preempted, b->preempted);
    assert_int_equal(a->skipped_steps, b->skipped_steps);
    compare_doubles("loss", &a->loss, &b->loss);
    compare_doubles("eval_loss", &a->eval_loss, &b->eval_loss);
    compare_doubles("accuracy", &a->metrics[0], &b->metrics[0]);
    compare_doubles("eval accuracy", &a->eval_metrics[0], &b->eval_metrics[0]);
}
