/* What the benchmarks share: options, a training loop over random batches in memory, and one line of figures.
 *
 *     build/bench/mlp --threads 2 --seconds 5
 *
 * `run` beside this file compares them with their PyTorch twins. Each program makes a network from the public API, trains
 * it for the given time and prints
 *
 *     samples_per_second   batch size / median time of a step (feeding included, the first 3 steps excluded)
 *     first_step_seconds   from the start of the program to the end of its first step
 *     peak_rss_mib         largest resident memory of the process
 *     plan_mib             what the plan said it would use, before step 0
 *
 * The images are random and lie in memory: this measures training steps, not accuracy and not a data loader. */
#ifndef BENCH_H
#define BENCH_H

#include "fasttrain.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { BENCH_BATCH = 128, BENCH_CLASSES = 10, BENCH_POOL = 8, BENCH_WARM_UP = 3, BENCH_MAX_STEPS = 1 << 18 };

typedef struct bench_options {
    int threads; /* 0: all cores */
    double seconds;
} bench_options;

/* False, with a message, for anything but "--threads N" and "--seconds S". */
static inline bool bench_parse(int argc, char **argv, bench_options *options) {
    *options = (bench_options){.threads = 0, .seconds = 5};
    for (int i = 1; i < argc; i += 2) {
        char *end = argv[i];
        double value = i + 1 < argc ? strtod(argv[i + 1], &end) : 0;
        bool number = i + 1 < argc && end != argv[i + 1] && *end == 0 && value >= 0 && value < 1e6;
        if (number && strcmp(argv[i], "--threads") == 0) {
            options->threads = (int)value;
        } else if (number && strcmp(argv[i], "--seconds") == 0) {
            options->seconds = value;
        } else {
            fprintf(stderr, "usage: %s [--threads N] [--seconds S]\n", argv[0]);
            return false;
        }
    }
    return true;
}

/* BENCH_POOL batches of random images and labels. */
typedef struct bench_data {
    float *images;
    int32_t *labels;
    size_t pixels; /* of a batch */
} bench_data;

static inline bool bench_fill(bench_data *data, int64_t pixels) {
    data->pixels = (size_t)pixels;
    data->images = malloc(BENCH_POOL * data->pixels * sizeof *data->images);
    data->labels = malloc((size_t)BENCH_POOL * BENCH_BATCH * sizeof *data->labels);
    if (!data->images || !data->labels) {
        return false;
    }
    uint32_t state = 1; /* a linear congruential generator (Numerical Recipes, 3rd edition, 7.1) */
    for (size_t i = 0; i < BENCH_POOL * data->pixels; i++) {
        state = state * 1664525u + 1013904223u;
        data->images[i] = (float)(state >> 8) * 0x1p-24f;
    }
    for (size_t i = 0; i < (size_t)BENCH_POOL * BENCH_BATCH; i++) {
        state = state * 1664525u + 1013904223u;
        data->labels[i] = (int32_t)((state >> 16) % BENCH_CLASSES);
    }
    return true;
}

static inline int bench_compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double bench_peak_rss_mib(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) {
        return NAN;
    }
#ifdef __APPLE__
    return (double)usage.ru_maxrss / 1048576; /* bytes there, KiB on Linux */
#else
    return (double)usage.ru_maxrss / 1024;
#endif
}

/* Steps until the time is over; durations[] gets each step's. */
static inline ftr_status bench_steps(ftr_plan *plan, ftr_tensor image, ftr_tensor label, const bench_data *data,
                                     double seconds, double start, double *durations, int *count, double *first_step) {
    ftr_status status = FTR_OK;
    double begin = 0;
    *count = 0;
    for (int step = 0; status == FTR_OK && *count < BENCH_MAX_STEPS; step++) {
        double before = ftr_time_seconds();
        size_t batch = (size_t)(step % BENCH_POOL);
        status = ftr_feed(plan, image, data->images + batch * data->pixels, data->pixels * sizeof(float));
        if (status == FTR_OK) {
            status = ftr_feed(plan, label, data->labels + batch * BENCH_BATCH, BENCH_BATCH * sizeof(int32_t));
        }
        if (status == FTR_OK) {
            status = ftr_step(plan, NULL);
        }
        double now = ftr_time_seconds();
        if (step == 0) {
            *first_step = now - start;
        }
        if (step < BENCH_WARM_UP) {
            begin = now;
            continue;
        }
        durations[(*count)++] = now - before;
        if (now - begin >= seconds) {
            break;
        }
    }
    return status;
}

static inline int bench_report(const char *name, ftr_context *context, ftr_plan *plan, double *durations, int count,
                               double first_step) {
    qsort(durations, (size_t)count, sizeof *durations, bench_compare);
    double median = count % 2 ? durations[count / 2] : 0.5 * (durations[count / 2 - 1] + durations[count / 2]);
    printf("%s fasttrain %s threads=%d steps=%d samples_per_second=%.1f first_step_seconds=%.3f peak_rss_mib=%.1f "
           "plan_mib=%.1f\n",
           name, ftr_context_simd_name(context), (int)ftr_context_threads(context), count, BENCH_BATCH / median,
           first_step, bench_peak_rss_mib(), (double)ftr_plan_memory(plan).total / 1048576);
    return EXIT_SUCCESS;
}

/* Trains what `network` makes of images of the given shape with AdamW, and reports. */
static inline int bench_main(const char *name, int argc, char **argv, ftr_shape shape,
                             ftr_tensor (*network)(ftr_tensor x)) {
    double start = ftr_time_seconds(), first_step = 0;
    bench_options options;
    if (!bench_parse(argc, argv, &options)) {
        return EXIT_FAILURE;
    }
    ftr_context *context = NULL;
    ftr_status status =
        ftr_context_create(&(ftr_context_desc){.threads = options.threads, .log_level = FTR_LOG_WARNING}, &context);
    if (status != FTR_OK) {
        fprintf(stderr, "%s: %s\n", name, ftr_status_name(status));
        return EXIT_FAILURE;
    }
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor image = ftr_input(graph, "image", FTR_F32, shape);
    ftr_tensor label = ftr_input(graph, "label", FTR_I32, FTR_SHAPE(BENCH_BATCH));
    ftr_optimizer optimizer = ftr_adamw(1e-3f);
    ftr_compile_desc desc = {.loss = ftr_cross_entropy(network(image), label, NULL), .optimizer = &optimizer};
    ftr_plan *plan = NULL;
    bench_data data = {NULL, NULL, 0};
    double *durations = malloc(BENCH_MAX_STEPS * sizeof *durations);
    int count = 0, result = EXIT_FAILURE;
    if (!durations || !bench_fill(&data, ftr_shape_count(&shape))) {
        fprintf(stderr, "%s: out of memory\n", name);
    } else if (ftr_compile(graph, &desc, &plan) != FTR_OK ||
               bench_steps(plan, image, label, &data, options.seconds, start, durations, &count, &first_step) !=
                   FTR_OK) {
        fprintf(stderr, "%s: %s\n", name, ftr_error_message(context));
    } else {
        result = bench_report(name, context, plan, durations, count, first_step);
    }
    free(durations);
    free(data.images);
    free(data.labels);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
    return result;
}

#endif
