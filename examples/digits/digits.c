/* Learns to read handwritten digits: a small convolutional network with batch norm, AdamW with a learning rate that
 * falls to zero, dropout and label smoothing. README.md says where the images come from and how they are split. */
#define FASTTRAIN_IMPLEMENTATION
#include "fasttrain.h"

#include "digits_data.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define IMAGES 1797
#define HELD_OUT 360 /* 20% */
#define TRAINED (IMAGES - HELD_OUT)
#define PIXELS 64
#define BATCH 64
#define LEARNING_RATE 2e-3
#define SPLIT_SEED 20 /* fixed: the split does not follow --seed */

typedef struct dataset {
    float images[IMAGES][PIXELS]; /* the held-out ones first */
    int32_t labels[IMAGES];
} dataset;

typedef struct network {
    ftr_tensor image, label, mask, logits, loss, accuracy;
} network;

typedef struct options {
    int threads, epochs;
    unsigned long long seed;
} options;

static void load(dataset *data) {
    for (int64_t i = 0; i < IMAGES; i++) {
        const char *row = digits_data[ftr_shuffled_index(SPLIT_SEED, 0, i, IMAGES)];
        for (int p = 0; p < PIXELS; p++) data->images[i][p] = (float)(row[p] - 'a') / 16.0f;
        data->labels[i] = row[PIXELS] - '0';
    }
}

static ftr_source *make_source(ftr_context *context, const char *name, const dataset *data, int64_t first,
                               int64_t count) {
    ftr_field fields[2] = {{"image", FTR_F32, FTR_SHAPE(8, 8, 1)}, {"label", FTR_I32, ftr_scalar_shape()}};
    const void *arrays[2] = {data->images[first], &data->labels[first]};
    ftr_source *source = NULL;
    ftr_memory_source(context, name, count, fields, arrays, 2, &source);
    return source;
}

/* 3x3 convolution, batch norm, ReLU. */
static ftr_tensor block(ftr_graph *graph, ftr_tensor x, const char *name, int64_t channels) {
    ftr_conv2d_desc desc = {.padding = {1, 1, 1, 1}, .no_bias = true};
    ftr_scope_push(graph, name);
    x = ftr_relu(ftr_batch_norm(ftr_conv2d(x, "conv", channels, 3, &desc), "bn", NULL));
    ftr_scope_pop(graph);
    return x;
}

static network build(ftr_graph *graph) {
    network net;
    net.mask = ftr_batch_mask(graph, BATCH); /* 360 is no multiple of 64: the rest of the last batch is masked */
    net.image = ftr_input(graph, "image", FTR_F32, FTR_SHAPE(BATCH, 8, 8, 1));
    net.label = ftr_input(graph, "label", FTR_I32, FTR_SHAPE(BATCH));
    ftr_tensor x = block(graph, net.image, "block1", 32);
    x = ftr_max_pool2d(block(graph, x, "block2", 64), 2, 2, NULL);
    x = ftr_dropout(ftr_flatten(block(graph, x, "block3", 64), 1), 0.3);
    net.logits = ftr_linear(x, "classifier", 10, NULL);
    ftr_cross_entropy_desc smooth = ftr_cross_entropy_defaults();
    smooth.label_smoothing = 0.1;
    net.loss = ftr_cross_entropy(net.logits, net.label, &smooth);
    net.accuracy = ftr_accuracy(net.logits, net.label);
    return net;
}

/* The learning rate falls to zero along half a cosine. */
static bool on_event(void *user, const ftr_train_event *event) {
    const options *chosen = user;
    double done = (double)event->step / (double)(event->steps_per_epoch * chosen->epochs);
    ftr_plan_set_lr(event->plan, LEARNING_RATE * 0.5 * (1.0 + cos(3.14159265358979323846 * done)));
    return false;
}

static ftr_status train(ftr_context *context, ftr_graph *graph, const network *net, const dataset *data,
                        options *chosen, ftr_train_result *result) {
    ftr_source *training = make_source(context, "digits/train", data, HELD_OUT, TRAINED);
    ftr_source *held_out = make_source(context, "digits/held-out", data, 0, HELD_OUT);
    ftr_train_desc desc = ftr_train_defaults();
    desc.loss = net->loss;
    desc.optimizer = ftr_adamw(LEARNING_RATE);
    desc.train = training;
    desc.eval = held_out;
    desc.epochs = chosen->epochs;
    desc.metrics[desc.metric_count++] = (ftr_metric){"accuracy", net->accuracy};
    desc.on_event = on_event;
    desc.on_event_user = chosen;
    ftr_status status = ftr_error_status(context);
    if (status == FTR_OK) status = ftr_fit(graph, &desc, result);
    ftr_source_destroy(training);
    ftr_source_destroy(held_out);
    return status;
}

/* The network's answers for the held-out images, a batch at a time. */
static ftr_status predict(ftr_graph *graph, const network *net, const dataset *data, int answers[HELD_OUT]) {
    ftr_compile_desc desc = {.mode = FTR_MODE_EVAL, .outputs = &net->logits, .output_count = 1};
    ftr_plan *plan = NULL;
    ftr_status status = ftr_compile(graph, &desc, &plan);
    for (int first = 0; first < HELD_OUT && status == FTR_OK; first += BATCH) {
        int count = HELD_OUT - first < BATCH ? HELD_OUT - first : BATCH;
        float logits[BATCH][10], images[BATCH][PIXELS] = {{0}}, mask[BATCH] = {0};
        for (int i = 0; i < count; i++) mask[i] = 1.0f;
        memcpy(images, data->images[first], (size_t)count * sizeof images[0]);
        status = ftr_feed(plan, net->image, images, sizeof images);
        if (status == FTR_OK) status = ftr_feed(plan, net->mask, mask, sizeof mask);
        if (status == FTR_OK) status = ftr_step(plan, NULL);
        if (status == FTR_OK) status = ftr_read(plan, net->logits, logits, sizeof logits);
        for (int i = 0; i < count; i++) {
            int best = 0;
            for (int digit = 1; digit < 10; digit++) best = logits[i][digit] > logits[i][best] ? digit : best;
            answers[first + i] = best;
        }
    }
    ftr_plan_destroy(plan);
    return status;
}

static void print_confusion(const dataset *data, const int answers[HELD_OUT]) {
    int counts[10][10] = {{0}};
    for (int i = 0; i < HELD_OUT; i++) counts[data->labels[i]][answers[i]]++;
    printf("\nheld-out images: a row is the true digit, a column the answer\n\n    ");
    for (int digit = 0; digit < 10; digit++) printf("%4d", digit);
    printf("\n");
    for (int truth = 0; truth < 10; truth++) {
        printf("%4d", truth);
        for (int digit = 0; digit < 10; digit++)
            counts[truth][digit] ? printf("%4d", counts[truth][digit]) : printf("   .");
        printf("\n");
    }
}

/* Up to six images side by side: the mistakes first, then the first ones that are right. */
static void print_digits(const dataset *data, const int answers[HELD_OUT]) {
    int shown[6], count = 0;
    for (int wrong = 1; wrong >= 0; wrong--)
        for (int i = 0; i < HELD_OUT && count < 6; i++)
            if ((answers[i] != data->labels[i]) == (wrong == 1)) shown[count++] = i;
    printf("\n");
    for (int row = 0; row < 8; row++) {
        for (int k = 0; k < count; k++) {
            const float *pixels = &data->images[shown[k]][row * 8];
            for (int column = 0; column < 8; column++) {
                char shade = " .:-=+*#%@"[(int)(pixels[column] * 9.0f + 0.5f)];
                printf("%c%c", shade, shade);
            }
            printf(k + 1 < count ? "   " : "\n");
        }
    }
    for (int k = 0; k < count; k++) {
        bool right = answers[shown[k]] == data->labels[shown[k]];
        printf("%s %d, is %d%s", right ? "says" : "SAYS", answers[shown[k]], data->labels[shown[k]],
               k + 1 < count ? "         " : "\n");
    }
}

/* FNV-1a over the bytes of all parameters and buffers. */
static ftr_status hash_weights(ftr_graph *graph, uint64_t *hash) {
    *hash = 0xcbf29ce484222325u;
    for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
        ftr_tensor variable = ftr_variable_at(graph, i);
        ftr_shape shape = ftr_shape_of(variable);
        size_t bytes = (size_t)ftr_shape_count(&shape) * ftr_dtype_size(ftr_dtype_of(variable));
        unsigned char *values = malloc(bytes + 1);
        ftr_status status = values ? ftr_variable_read(variable, values, bytes) : FTR_ERROR_OUT_OF_MEMORY;
        for (size_t b = 0; b < bytes && status == FTR_OK; b++) *hash = (*hash ^ values[b]) * 0x100000001b3u;
        free(values);
        if (status != FTR_OK) return status;
    }
    return FTR_OK;
}

static ftr_status run(ftr_context *context, ftr_graph *graph, const dataset *data, options *chosen) {
    network net = build(graph);
    ftr_status status = ftr_model_summary(graph, ftr_write_file, stdout);
    printf("\n%d images to train on, %d held out; %d thread(s), %s\n\n", TRAINED, HELD_OUT,
           (int)ftr_context_threads(context), ftr_context_simd_name(context));
    fflush(stdout);
    ftr_train_result result;
    int answers[HELD_OUT], right = 0;
    uint64_t hash = 0;
    if (status == FTR_OK) status = train(context, graph, &net, data, chosen, &result);
    if (status == FTR_OK) status = predict(graph, &net, data, answers);
    if (status == FTR_OK) status = hash_weights(graph, &hash);
    if (status != FTR_OK) return status;
    for (int i = 0; i < HELD_OUT; i++) right += answers[i] == data->labels[i];
    print_confusion(data, answers);
    print_digits(data, answers);
    printf("\ntrained %lld epochs in %.1f s, %.0f samples/s\n", (long long)result.epochs, result.seconds,
           result.samples_per_second);
    printf("weights: %016llx\n", (unsigned long long)hash);
    printf("held-out accuracy: %.4f (%d of %d)\n", (double)right / HELD_OUT, right, HELD_OUT);
    return FTR_OK;
}

/* 0: go on; otherwise the exit status + 1. */
static int parse(int argc, char **argv, options *chosen) {
    for (int i = 1; i < argc; i += 2) {
        char *end = NULL;
        unsigned long long value = i + 1 < argc ? strtoull(argv[i + 1], &end, 10) : 0;
        bool number = end && end != argv[i + 1] && *end == '\0';
        bool small = number && value <= 1000;
        if (strcmp(argv[i], "--help") == 0) {
            printf("usage: digits [--threads N] [--seed N] [--epochs N]\n"
                   "  --threads N  threads to use; 0, the default, is one for each core\n"
                   "  --seed N     of the first weights, the order of images and dropout; 1\n"
                   "  --epochs N   times that all images are seen; 12\n");
            return 1;
        }
        if (strcmp(argv[i], "--threads") == 0 && small)
            chosen->threads = (int)value;
        else if (strcmp(argv[i], "--seed") == 0 && number)
            chosen->seed = value;
        else if (strcmp(argv[i], "--epochs") == 0 && small && value > 0)
            chosen->epochs = (int)value;
        else {
            fprintf(stderr, "digits: '%s' is no option, or its number is missing; see --help\n", argv[i]);
            return 3;
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    options chosen = {.threads = 0, .epochs = 12, .seed = 1};
    int stop = parse(argc, argv, &chosen);
    if (stop) return stop - 1;
    dataset *data = malloc(sizeof *data);
    ftr_context_desc desc = {.seed = chosen.seed, .threads = chosen.threads};
    ftr_context *context = NULL;
    if (!data || ftr_context_create(&desc, &context) != FTR_OK) {
        free(data);
        return 1;
    }
    load(data);
    ftr_graph *graph = ftr_graph_create(context);
    ftr_status status = graph ? run(context, graph, data, &chosen) : FTR_ERROR_OUT_OF_MEMORY;
    if (status != FTR_OK) fprintf(stderr, "digits: %s\n", ftr_error_message(context));
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
    free(data);
    return status == FTR_OK ? 0 : 1;
}
