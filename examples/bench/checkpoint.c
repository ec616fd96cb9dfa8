/* What checkpoints cost: ResNet-18 (11.7 million parameters, AdamW) on batches of 64 random images of 32x32, in rounds of
 * --steps steps without and with a checkpoint each --every steps, in turn. --state bf16 keeps the moments in bf16.
 *
 *     build/bench/checkpoint [--steps 100] [--every 50] [--rounds 5] [--threads 0] [--state f32]
 *                            [--directory bench_checkpoints]
 *
 * Prints the plan's memory; for each pair of rounds the seconds of both, on the clock and of the processors; then the
 * stall of a save, that is what a step waits for it (mean and longest), the time until it is on disk, and the slowdown of
 * the median pair. On a machine that others use the seconds of the processors say more. */
#ifndef BENCH_LIBRARY /* see bench.h */
#define FASTTRAIN_IMPLEMENTATION
#endif
#include "fasttrain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCH = 64, SIDE = 32, CLASSES = 1000, POOL = 256, MOST_ROUNDS = 64 };

typedef struct options {
    long steps, every, rounds, threads;
    const char *directory, *state;
} options;

static ftr_tensor conv_norm(ftr_tensor x, const char *conv, const char *norm, int64_t channels, int32_t kernel,
                            int32_t stride) {
    const int32_t p = kernel / 2;
    const ftr_conv2d_desc desc = {.padding = {p, p, p, p}, .stride = {stride, stride}, .no_bias = true};
    return ftr_batch_norm(ftr_conv2d(x, conv, channels, kernel, &desc), norm, NULL);
}

static ftr_tensor block(ftr_graph *graph, ftr_tensor x, const char *name, int64_t channels, int32_t stride) {
    ftr_scope_push(graph, name);
    ftr_tensor h = ftr_relu(conv_norm(x, "conv1", "bn1", channels, 3, stride));
    h = conv_norm(h, "conv2", "bn2", channels, 3, 1);
    if (stride > 1) {
        ftr_scope_push(graph, "downsample");
        x = conv_norm(x, "0", "1", channels, 1, stride);
        ftr_scope_pop(graph);
    }
    ftr_scope_pop(graph);
    return ftr_relu(ftr_add(h, x));
}

static ftr_tensor resnet18(ftr_graph *graph, ftr_tensor x) {
    static const char *const layers[] = {"layer1", "layer2", "layer3", "layer4"};
    const ftr_pool2d_desc pool = {.padding = {1, 1, 1, 1}};
    x = ftr_max_pool2d(ftr_relu(conv_norm(x, "conv1", "bn1", 64, 7, 2)), 3, 2, &pool);
    for (int i = 0; i < 4; i++) {
        ftr_scope_push(graph, layers[i]);
        x = block(graph, x, "0", (int64_t)64 << i, i > 0 ? 2 : 1);
        x = block(graph, x, "1", (int64_t)64 << i, 1);
        ftr_scope_pop(graph);
    }
    return ftr_linear(ftr_global_avg_pool(x), "fc", CLASSES, NULL);
}

typedef struct setup {
    ftr_context *context;
    ftr_graph *graph;
    ftr_plan *plan;
    ftr_tensor x, y;
    float *images;
    int32_t *labels;
    double longest_stall;
} setup;

static ftr_status make(setup *s, const options *o) {
    const ftr_context_desc desc = {.threads = (int32_t)o->threads};
    ftr_status status = ftr_context_create(&desc, &s->context);
    if (status) return status;
    s->graph = ftr_graph_create(s->context);
    s->x = ftr_input(s->graph, "image", FTR_F32, FTR_SHAPE(BATCH, SIDE, SIDE, 3));
    s->y = ftr_input(s->graph, "label", FTR_I32, FTR_SHAPE(BATCH));
    ftr_optimizer adamw = ftr_adamw(1e-3);
    if (strcmp(o->state, "bf16") == 0) adamw.state_dtype = FTR_BF16, adamw.beta2 = 0.98;
    const ftr_compile_desc compile = {.loss = ftr_cross_entropy(resnet18(s->graph, s->x), s->y, NULL),
                                      .optimizer = &adamw};
    status = ftr_compile(s->graph, &compile, &s->plan);
    const size_t pixels = (size_t)BATCH * SIDE * SIDE * 3;
    s->images = malloc(POOL / BATCH * pixels * sizeof(float));
    s->labels = malloc(POOL * sizeof(int32_t));
    if (!s->images || !s->labels) return FTR_ERROR_OUT_OF_MEMORY;
    uint32_t state = 1; /* a linear congruential generator (Numerical Recipes, 3rd edition, 7.1) */
    for (size_t i = 0; i < POOL / BATCH * pixels; i++) {
        state = state * 1664525u + 1013904223u;
        s->images[i] = (float)(state >> 8) * 0x1p-24f;
    }
    for (int i = 0; i < POOL; i++) s->labels[i] = (int32_t)((unsigned)i * 37 % CLASSES);
    return status;
}

typedef struct seconds {
    double clock, processors;
} seconds;

/* Duration of a round; `c` NULL: without checkpoints. The last save is waited for after the clock has stopped, as the
 * next steps would go on beside it. */
static ftr_status round_of(setup *s, const options *o, ftr_checkpointer *c, int64_t *step, seconds *took) {
    const size_t pixels = (size_t)BATCH * SIDE * SIDE * 3;
    const double begun = ftr_time_seconds(), processors = (double)clock() / CLOCKS_PER_SEC;
    ftr_status status = FTR_OK;
    for (long i = 0; i < o->steps && status == FTR_OK; i++, ++*step) {
        const int64_t batch = *step % (POOL / BATCH);
        status = ftr_feed(s->plan, s->x, s->images + (size_t)batch * pixels, pixels * sizeof(float));
        if (!status) status = ftr_feed(s->plan, s->y, s->labels + batch * BATCH, BATCH * sizeof(int32_t));
        if (!status) status = ftr_step(s->plan, NULL);
        const ftr_checkpoint_point point = {.step = *step};
        if (status || !c || *step % o->every != 0) continue;
        status = ftr_checkpoint_save(c, &point);
        const double stall = ftr_checkpointer_stats(c).last_stall_seconds;
        if (stall > s->longest_stall) s->longest_stall = stall;
    }
    took->clock = ftr_time_seconds() - begun;
    if (status == FTR_OK && c) status = ftr_checkpointer_wait(c);
    took->processors = (double)clock() / CLOCKS_PER_SEC - processors; /* the last save's included */
    return status;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static ftr_status measure(setup *s, const options *o) {
    const ftr_checkpoint_desc desc = {.directory = o->directory, .keep_last = 2, .on_failure = FTR_CHECKPOINT_STOP};
    ftr_checkpointer *c = NULL;
    ftr_status status = ftr_checkpointer_create(s->plan, &desc, &c);
    double ratio[MOST_ROUNDS], work[MOST_ROUNDS];
    seconds without, with;
    int64_t step = 1;
    options warm_up = *o;
    warm_up.steps = 5;
    if (!status) status = round_of(s, &warm_up, NULL, &step, &without);
    for (long r = 0; r < o->rounds && !status; r++) {
        status = round_of(s, o, NULL, &step, &without);
        if (!status) status = round_of(s, o, c, &step, &with);
        if (status) break;
        ratio[r] = with.clock / without.clock;
        work[r] = with.processors / without.processors;
        printf("round %ld: %.2f s without, %.2f s with (%+.1f%%); of processors %.2f and %.2f (%+.1f%%)\n", r + 1,
               without.clock, with.clock, 100.0 * (ratio[r] - 1.0), without.processors, with.processors,
               100.0 * (work[r] - 1.0));
    }
    const ftr_checkpoint_stats stats = ftr_checkpointer_stats(c);
    ftr_checkpointer_destroy(c);
    if (status) return status;
    qsort(ratio, (size_t)o->rounds, sizeof *ratio, compare);
    qsort(work, (size_t)o->rounds, sizeof *work, compare);
    printf("%lld saves of %.1f MB: stall %.1f ms each, %.1f the longest, on disk after %.2f s; slowdown %.1f%%, of "
           "processors %.1f%% (medians)\n",
           (long long)stats.saved, (double)stats.bytes / 1e6, 1e3 * stats.stall_seconds / (double)stats.saved,
           1e3 * s->longest_stall, stats.write_seconds / (double)stats.saved, 100.0 * (ratio[o->rounds / 2] - 1.0),
           100.0 * (work[o->rounds / 2] - 1.0));
    return FTR_OK;
}

static bool parse(int argc, char **argv, options *o) {
    *o = (options){.steps = 100, .every = 50, .rounds = 5, .directory = "bench_checkpoints", .state = "f32"};
    const struct {
        const char *name;
        long *value;
    } numbers[] = {
        {"--steps", &o->steps}, {"--every", &o->every}, {"--rounds", &o->rounds}, {"--threads", &o->threads}};
    for (int i = 1; i < argc; i += 2) {
        bool known = i + 1 < argc && strcmp(argv[i], "--directory") == 0;
        if (known) o->directory = argv[i + 1];
        if (i + 1 < argc && strcmp(argv[i], "--state") == 0) o->state = argv[i + 1], known = true;
        for (int k = 0; k < 4 && i + 1 < argc; k++) {
            if (strcmp(argv[i], numbers[k].name) != 0) continue;
            *numbers[k].value = strtol(argv[i + 1], NULL, 10);
            known = true;
        }
        if (!known) return false;
    }
    if (strcmp(o->state, "f32") != 0 && strcmp(o->state, "bf16") != 0) return false;
    return o->steps > 0 && o->every > 0 && o->rounds > 0 && o->rounds <= MOST_ROUNDS && o->threads >= 0;
}

int main(int argc, char **argv) {
    options o;
    setup s = {0};
    if (!parse(argc, argv, &o))
        return fprintf(stderr,
                       "usage: %s [--steps N] [--every N] [--rounds N] [--threads N] [--state f32|bf16] "
                       "[--directory PATH]\n",
                       argv[0]),
               1;
    ftr_status status = make(&s, &o);
    if (!status) {
        const ftr_memory m = ftr_plan_memory(s.plan);
        printf("memory: %.1f MB, %.1f of it the optimizer's state (%s)\n", (double)m.total / 1e6,
               (double)m.optimizer_state / 1e6, o.state);
        status = measure(&s, &o);
    }
    if (status) fprintf(stderr, "%s\n", s.context ? ftr_error_message(s.context) : ftr_status_name(status));
    ftr_plan_destroy(s.plan);
    ftr_graph_destroy(s.graph);
    ftr_context_destroy(s.context);
    free(s.images);
    free(s.labels);
    return status ? 1 : 0;
}
