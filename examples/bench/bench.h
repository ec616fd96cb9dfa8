/* What the benchmarks share: options, steps over random batches in memory, and one line of figures. A program is this
 * file and a short one with a network in it:
 *
 *     cc -O2 -I. examples/bench/mlp.c -o mlp -lm -lpthread && ./mlp --threads 2 --seconds 5
 *
 * --threads N      of the library; 0, the default: all cores
 * --seconds S      how long to measure, after a warm-up of 3 steps; at least 3 steps are measured; 5
 * --dtype bf16     mixed precision; f32
 * --check          the first step only: prints the number of parameters and the first loss
 * --explain        prints what each node of the plan takes, beside the least that the machine allows for it
 * --serve          for `run`: each line on stdin is a number of seconds to measure, and gets a line of figures
 *
 *     samples_per_second   batch size / median time of a step, feeding included
 *     first_step_seconds   from the start of the program to the end of its first step
 *     peak_rss_mib         largest resident memory of the process
 *     plan_mib             what the plan said it would use, before step 0
 *     parameters, loss     to see that the twin beside it (NAME.py, in PyTorch) does the same work; of an inference
 *                          plan in place of the loss the root mean square of the logits
 *
 * The data are random and lie in memory: this measures steps, not accuracy and not a data loader. */
#ifndef BENCH_H
#define BENCH_H

#ifndef BENCH_LIBRARY /* defined: the program is linked with the library instead of holding it */
#define FASTTRAIN_IMPLEMENTATION
#endif
#include "fasttrain.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { BENCH_POOL = 4, BENCH_WARM_UP = 3, BENCH_MIN_STEPS = 3, BENCH_MAX_STEPS = 1 << 18 };

typedef struct bench_workload {
    const char *name;
    ftr_shape input;                     /* [batch, features], [batch, h, w, channels]; tokens: [batch, length] */
    int64_t classes;                     /* of the labels, and of the tokens */
    ftr_tensor (*network)(ftr_tensor x); /* logits [.., classes] */
    ftr_optimizer optimizer;             /* trains on the cross entropy; none of its kinds: an inference plan */
    bool tokens;                         /* the input is i32, and each token has a label */
} bench_workload;

/* The optimizer of the convolutional networks. */
static inline ftr_optimizer bench_sgd(void) {
    ftr_optimizer sgd = ftr_sgd(0.01);
    sgd.momentum = 0.9;
    sgd.weight_decay = 1e-4;
    return sgd;
}

typedef struct bench_options {
    int threads;
    double seconds;
    bool bf16, check, explain, serve;
} bench_options;

typedef struct bench_state {
    const bench_workload *work;
    bench_options options;
    ftr_context *context;
    ftr_graph *graph;
    ftr_tensor input, label, logits;
    ftr_plan *plan;
    char *inputs; /* BENCH_POOL batches */
    int32_t *labels;
    size_t input_bytes, label_bytes, logit_count;
    double *durations;
    int steps; /* since the start */
    int64_t parameters;
    double start, first_step, loss;
} bench_state;

static inline bool bench_parse(int argc, char **argv, bench_options *options) {
    *options = (bench_options){.seconds = 5};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        char *end = NULL;
        double number = strtod(value, &end);
        bool is_number = end != value && *end == 0 && number >= 0 && number < 1e6;
        if (strcmp(argv[i], "--check") == 0)
            options->check = true;
        else if (strcmp(argv[i], "--explain") == 0)
            options->explain = true;
        else if (strcmp(argv[i], "--serve") == 0)
            options->serve = true;
        else if (strcmp(argv[i], "--threads") == 0 && is_number)
            options->threads = (int)number, i++;
        else if (strcmp(argv[i], "--seconds") == 0 && is_number)
            options->seconds = number, i++;
        else if (strcmp(argv[i], "--dtype") == 0 && (strcmp(value, "f32") == 0 || strcmp(value, "bf16") == 0))
            options->bf16 = value[0] == 'b', i++;
        else {
            fprintf(stderr,
                    "%s: '%s' is no option, or what is behind it no value: [--threads N] [--seconds S] "
                    "[--dtype f32|bf16] [--check] [--explain] [--serve]\n",
                    argv[0], argv[i]);
            return false;
        }
    }
    return true;
}

/* A linear congruential generator (Numerical Recipes, 3rd edition, 7.1): 24 bits. */
static inline uint32_t bench_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* BENCH_POOL batches: images from 0 to 1, or tokens, and labels. */
static inline bool bench_fill(bench_state *s) {
    const size_t count = (size_t)ftr_shape_count(&s->work->input);
    const size_t labels = s->work->tokens ? count : (size_t)s->work->input.dim[0];
    const uint32_t classes = (uint32_t)s->work->classes;
    s->input_bytes = count * 4, s->label_bytes = labels * 4;
    s->inputs = malloc(BENCH_POOL * s->input_bytes);
    s->labels = malloc(BENCH_POOL * s->label_bytes);
    s->durations = malloc(BENCH_MAX_STEPS * sizeof *s->durations);
    if (!s->inputs || !s->labels || !s->durations) return false;
    uint32_t state = 1;
    for (size_t i = 0; i < BENCH_POOL * count; i++) {
        const uint32_t bits = bench_random(&state);
        if (s->work->tokens)
            ((int32_t *)(void *)s->inputs)[i] = (int32_t)(bits % classes);
        else
            ((float *)(void *)s->inputs)[i] = (float)bits * 0x1p-24f;
    }
    for (size_t i = 0; i < BENCH_POOL * labels; i++) s->labels[i] = (int32_t)(bench_random(&state) % classes);
    return true;
}

static inline bool bench_trains(const bench_state *s) { return s->work->optimizer.kind != FTR_OPTIMIZER_NONE; }

static inline ftr_status bench_compile(bench_state *s) {
    const bench_workload *work = s->work;
    ftr_shape rows = FTR_SHAPE(work->input.dim[0]);
    s->graph = ftr_graph_create(s->context);
    s->input = ftr_input(s->graph, "input", work->tokens ? FTR_I32 : FTR_F32, work->input);
    s->logits = work->network(s->input);
    ftr_compile_desc desc = {.amp = s->options.bf16 ? FTR_AMP_BF16 : FTR_AMP_OFF};
    if (bench_trains(s)) {
        s->label = ftr_input(s->graph, "label", FTR_I32, work->tokens ? work->input : rows);
        desc.loss = ftr_cross_entropy(s->logits, s->label, NULL);
        desc.optimizer = &work->optimizer;
    } else {
        desc.mode = FTR_MODE_EVAL;
        desc.outputs = &s->logits, desc.output_count = 1;
    }
    ftr_status status = ftr_compile(s->graph, &desc, &s->plan);
    for (int32_t i = 0; i < ftr_variable_count(s->graph); i++) {
        const ftr_tensor variable = ftr_variable_at(s->graph, i);
        const ftr_shape shape = ftr_shape_of(variable);
        if (ftr_is_parameter(variable)) s->parameters += ftr_shape_count(&shape);
    }
    return status;
}

static inline ftr_status bench_step(bench_state *s, ftr_step_info *info) {
    const size_t batch = (size_t)(s->steps++ % BENCH_POOL);
    ftr_status status = ftr_feed(s->plan, s->input, s->inputs + batch * s->input_bytes, s->input_bytes);
    if (!status && bench_trains(s))
        status = ftr_feed(s->plan, s->label, (char *)s->labels + batch * s->label_bytes, s->label_bytes);
    return status ? status : ftr_step(s->plan, info);
}

/* The root mean square of the logits. */
static inline ftr_status bench_output(bench_state *s, double *result) {
    const ftr_shape shape = ftr_shape_of(s->logits);
    const size_t count = (size_t)ftr_shape_count(&shape);
    float *values = malloc(count * sizeof *values);
    if (!values) return FTR_ERROR_OUT_OF_MEMORY;
    ftr_status status = ftr_read(s->plan, s->logits, values, count * sizeof *values);
    double sum = 0;
    for (size_t i = 0; i < count && !status; i++) sum += (double)values[i] * values[i];
    *result = sqrt(sum / (double)count);
    free(values);
    return status;
}

static inline ftr_status bench_warm_up(bench_state *s) {
    ftr_step_info info;
    ftr_status status = bench_step(s, &info);
    s->first_step = ftr_time_seconds() - s->start;
    s->loss = info.loss;
    if (!status && !bench_trains(s)) status = bench_output(s, &s->loss);
    while (!status && !s->options.check && s->steps < BENCH_WARM_UP) status = bench_step(s, NULL);
    return status;
}

static inline int bench_compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double bench_median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, bench_compare);
    return count % 2 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}

static inline double bench_peak_rss_mib(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return NAN;
#ifdef __APPLE__
    return (double)usage.ru_maxrss / 1048576; /* bytes there, KiB on Linux */
#else
    return (double)usage.ru_maxrss / 1024;
#endif
}

/* The line of figures; without steps what is known after the first. */
static inline void bench_print(const bench_state *s, int steps, double median) {
    printf("%s fasttrain %s dtype=%s threads=%d parameters=%lld loss=%.4g first_step_seconds=%.3f", s->work->name,
           ftr_context_simd_name(s->context), s->options.bf16 ? "bf16" : "f32", (int)ftr_context_threads(s->context),
           (long long)s->parameters, s->loss, s->first_step);
    if (steps)
        printf(" steps=%d samples_per_second=%.5g peak_rss_mib=%.1f plan_mib=%.1f", steps,
               (double)s->work->input.dim[0] / median, bench_peak_rss_mib(),
               (double)ftr_plan_memory(s->plan).total / 1048576);
    printf("\n");
    fflush(stdout);
}

static inline ftr_status bench_round(bench_state *s, double seconds) {
    ftr_status status = FTR_OK;
    int count = 0;
    for (double begin = ftr_time_seconds(), before = begin, now = begin;
         !status && count < BENCH_MAX_STEPS && (now - begin < seconds || count < BENCH_MIN_STEPS); before = now) {
        status = bench_step(s, NULL);
        now = ftr_time_seconds();
        s->durations[count++] = now - before;
    }
    if (!status) bench_print(s, count, bench_median(s->durations, count));
    return status;
}

static inline ftr_status bench_serve(bench_state *s) {
    char line[64];
    bench_print(s, 0, 0);
    ftr_status status = FTR_OK;
    while (!status && fgets(line, sizeof line, stdin)) status = bench_round(s, strtod(line, NULL));
    return status;
}

static inline ftr_status bench_explain(bench_state *s) {
    ftr_status status = ftr_plan_profile(s->plan, true);
    for (int i = 0; i < BENCH_MIN_STEPS && !status; i++) status = bench_step(s, NULL);
    return status ? status : ftr_plan_explain(s->plan, NULL, ftr_write_file, stdout);
}

static inline ftr_status bench_run(bench_state *s) {
    const ftr_context_desc desc = {.threads = s->options.threads, .log_level = FTR_LOG_WARNING};
    ftr_status status = ftr_context_create(&desc, &s->context);
    if (!status && !bench_fill(s)) status = FTR_ERROR_OUT_OF_MEMORY;
    if (!status) status = bench_compile(s);
    if (!status) status = bench_warm_up(s);
    if (status) return status;
    if (s->options.explain) return bench_explain(s);
    if (s->options.check) return bench_print(s, 0, 0), FTR_OK;
    return s->options.serve ? bench_serve(s) : bench_round(s, s->options.seconds);
}

/* What main() returns. */
static inline int bench_main(int argc, char **argv, const bench_workload *work) {
    bench_state s = {.work = work, .start = ftr_time_seconds()};
    if (!bench_parse(argc, argv, &s.options)) return EXIT_FAILURE;
    const ftr_status status = bench_run(&s);
    if (status) {
        const char *sentence = s.context ? ftr_error_message(s.context) : "";
        fprintf(stderr, "%s: %s\n", work->name, *sentence ? sentence : ftr_status_name(status));
    }
    free(s.inputs), free(s.labels), free(s.durations);
    ftr_plan_destroy(s.plan);
    ftr_graph_destroy(s.graph);
    ftr_context_destroy(s.context);
    return status ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
