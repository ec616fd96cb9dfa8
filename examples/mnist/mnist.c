/* Reads handwritten digits of 28x28 pixels: MNIST's IDX files, the whole of it or the 5,000 images that `make data`
 * fetches. README.md says where they come from. Each image is seen in ten variants, turned, scaled and shifted a
 * little, so that a few thousand of them are enough. */
#define FASTTRAIN_IMPLEMENTATION
#include "fasttrain.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIDE 28
#define PIXELS (SIDE * SIDE)
#define VARIANTS 10 /* of each image */
#define BATCH 64

typedef struct options {
    const char *folder;
    int threads, epochs;
    unsigned long long seed;
    double lr;
} options;

/* Images and labels of one pair of files. */
typedef struct digits {
    int64_t count;
    unsigned char *images; /* [count][28][28] */
    unsigned char *labels;
} digits;

/* ---------------------------------------------------------------------------------------------------- IDX files -- */

/* Reads a whole IDX file of bytes: 0, 0, type 8, rank, the sizes as big-endian numbers, the data. Its dimensions but the
 * first must be `inner`. NULL with a sentence on stderr if it is anything else. */
static unsigned char *read_idx(const char *folder, const char *name, int rank, const uint32_t *inner, int64_t *count) {
    char path[1024];
    unsigned char header[16] = {0}, *data = NULL;
    size_t head = 4 + 4 * (size_t)rank, each = 1;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file) {
        fprintf(stderr, "mnist: %s: cannot be opened. `make data` fetches 5,000 images to build/data/mnist\n", path);
        return NULL;
    }
    size_t got = fread(header, 1, head, file);
    uint32_t size[3] = {0};
    for (int i = 0; i < rank; i++)
        for (int b = 0; b < 4; b++) size[i] = size[i] << 8 | header[4 + 4 * i + b];
    bool right = got == head && header[0] == 0 && header[1] == 0 && header[2] == 8 && header[3] == rank;
    for (int i = 1; i < rank; i++) {
        right = right && size[i] == inner[i - 1];
        each *= size[i];
    }
    if (got < head)
        fprintf(stderr, "mnist: %s: %zu bytes, expected a header of %zu\n", path, got, head);
    else if (header[0] == 0x1f && header[1] == 0x8b)
        fprintf(stderr, "mnist: %s: is compressed: gunzip it first\n", path);
    else if (!right)
        fprintf(stderr, "mnist: %s: header %02x%02x%02x%02x with sizes %u %u %u, expected 0000080%d with sizes N%s\n",
                path, header[0], header[1], header[2], header[3], size[0], size[1], size[2], rank,
                rank == 3 ? " 28 28" : "");
    else if (size[0] == 0)
        fprintf(stderr, "mnist: %s: holds no items\n", path);
    else if (!(data = malloc(size[0] * each + 1)))
        fprintf(stderr, "mnist: %s: no memory for %zu bytes\n", path, size[0] * each);
    else if ((got = fread(data, 1, size[0] * each + 1, file)) != size[0] * each) {
        fprintf(stderr, "mnist: %s: %s%zu bytes of data, expected %zu\n", path,
                got > size[0] * each ? "more than " : "", got > size[0] * each ? size[0] * each : got, size[0] * each);
        free(data);
        data = NULL;
    }
    fclose(file);
    *count = size[0];
    return data;
}

static bool read_digits(const char *folder, const char *part, digits *to) {
    static const uint32_t inner[2] = {SIDE, SIDE};
    char name[64];
    int64_t labels = 0;
    snprintf(name, sizeof name, "%s-images-idx3-ubyte", part);
    to->images = read_idx(folder, name, 3, inner, &to->count);
    snprintf(name, sizeof name, "%s-labels-idx1-ubyte", part);
    if (to->images) to->labels = read_idx(folder, name, 1, NULL, &labels);
    if (!to->images || !to->labels) return false;
    if (labels != to->count) {
        fprintf(stderr, "mnist: %s: %lld images, but %lld labels\n", part, (long long)to->count, (long long)labels);
        return false;
    }
    for (int64_t i = 0; i < labels; i++)
        if (to->labels[i] > 9) {
            fprintf(stderr, "mnist: %s: label %lld is %d, expected 0 to 9\n", part, (long long)i, to->labels[i]);
            return false;
        }
    return true;
}

/* ------------------------------------------------------------------------------------------------------- sources -- */

/* A pure function of `index`: uniform from -1 to 1. */
static double noise(uint64_t index) {
    index = (index + 1) * 0x9e3779b97f4a7c15u;
    index = (index ^ index >> 30) * 0xbf58476d1ce4e5b9u;
    index = (index ^ index >> 27) * 0x94d049bb133111ebu;
    return (double)((index ^ index >> 31) >> 11) / (double)(1ull << 52) - 1.0;
}

/* The brightness at a place between pixels, black outside. */
static double pixel_at(const unsigned char *image, double y, double x) {
    double top = floor(y), left = floor(x), value = 0.0;
    for (int corner = 0; corner < 4; corner++) {
        double row = top + corner / 2, column = left + corner % 2;
        double share = (1.0 - fabs(y - row)) * (1.0 - fabs(x - column));
        if (row >= 0 && row < SIDE && column >= 0 && column < SIDE)
            value += share * image[(int)row * SIDE + (int)column];
    }
    return value / 255.0;
}

/* The image turned by up to 12 degrees, scaled by up to 12% each way, and shifted by up to 2 pixels. */
static void copy_distorted(const unsigned char *from, uint64_t key, float *to) {
    double turn = 0.21 * noise(key * 5), middle = (SIDE - 1) / 2.0;
    double tall = 1.0 + 0.12 * noise(key * 5 + 1), wide = 1.0 + 0.12 * noise(key * 5 + 2);
    double down = 2.0 * noise(key * 5 + 3), right = 2.0 * noise(key * 5 + 4);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            double v = (y - middle - down) * tall, h = (x - middle - right) * wide;
            to[y * SIDE + x] =
                (float)pixel_at(from, middle + v * cos(turn) - h * sin(turn), middle + v * sin(turn) + h * cos(turn));
        }
}

static ftr_status read_training(void *user, int64_t index, void *const *fields) {
    const digits *from = user;
    copy_distorted(from->images + index / VARIANTS * PIXELS, (uint64_t)index, fields[0]);
    *(int32_t *)fields[1] = from->labels[index / VARIANTS];
    return FTR_OK;
}

static ftr_status read_held_out(void *user, int64_t index, void *const *fields) {
    const digits *from = user;
    for (int p = 0; p < PIXELS; p++) ((float *)fields[0])[p] = (float)from->images[index * PIXELS + p] / 255.0f;
    *(int32_t *)fields[1] = from->labels[index];
    return FTR_OK;
}

static ftr_status make_source(ftr_context *context, const char *name, digits *from, bool distorted,
                              ftr_source **source) {
    ftr_field fields[2] = {{"image", FTR_F32, FTR_SHAPE(SIDE, SIDE, 1)}, {"label", FTR_I32, ftr_scalar_shape()}};
    ftr_source_desc desc = {.name = name,
                            .count = distorted ? from->count * VARIANTS : from->count,
                            .fields = fields,
                            .field_count = 2,
                            .user = from,
                            .read = distorted ? read_training : read_held_out};
    return ftr_source_create(context, &desc, source);
}

/* ------------------------------------------------------------------------------------------------------- network -- */

/* 3x3 convolution, batch norm, ReLU. */
static ftr_tensor block(ftr_tensor x, const char *name, int64_t channels) {
    ftr_conv2d_desc desc = {.padding = {1, 1, 1, 1}, .no_bias = true};
    ftr_scope_push(x.graph, name);
    x = ftr_relu(ftr_batch_norm(ftr_conv2d(x, "conv", channels, 3, &desc), "bn", NULL));
    ftr_scope_pop(x.graph);
    return x;
}

static ftr_tensor build(ftr_tensor image) {
    ftr_tensor x = block(image, "block1", 16);
    x = ftr_max_pool2d(x, 2, 2, NULL);
    x = block(x, "block2", 32);
    x = ftr_max_pool2d(x, 2, 2, NULL);
    x = block(x, "block3", 64);
    x = ftr_max_pool2d(x, 2, 2, &(ftr_pool2d_desc){.padding = {0, 1, 0, 1}}); /* 7x7 to 4x4 */
    x = block(x, "block4", 128);
    return ftr_linear(ftr_dropout(ftr_flatten(x, 1), 0.3), "classifier", 10, NULL);
}

/* The learning rate rises for a tenth of the run, then falls to zero along half a cosine. */
static bool on_event(void *user, const ftr_train_event *event) {
    const options *chosen = user;
    double done = (double)event->step / (double)(event->steps_per_epoch * chosen->epochs);
    double share = done < 0.1 ? done / 0.1 : 0.5 * (1.0 + cos(3.14159265358979323846 * (done - 0.1) / 0.9));
    ftr_plan_set_lr(event->plan, chosen->lr * (share > 0.01 ? share : 0.01));
    return false;
}

static ftr_status train(ftr_context *context, ftr_graph *graph, options *chosen, digits *training, digits *held_out) {
    (void)ftr_batch_mask(graph, BATCH);
    ftr_tensor image = ftr_input(graph, "image", FTR_F32, FTR_SHAPE(BATCH, SIDE, SIDE, 1));
    ftr_tensor label = ftr_input(graph, "label", FTR_I32, FTR_SHAPE(BATCH));
    ftr_tensor logits = build(image);
    ftr_source *train_source = NULL, *held_out_source = NULL;
    ftr_status status = make_source(context, "mnist/train", training, true, &train_source);
    if (status == FTR_OK) status = make_source(context, "mnist/held-out", held_out, false, &held_out_source);
    if (status == FTR_OK) status = ftr_model_summary(graph, ftr_write_file, stdout);
    printf("\n%lld images to train on, in %d variants each, %lld held out; %d thread(s), %s\n\n",
           (long long)training->count, VARIANTS, (long long)held_out->count, (int)ftr_context_threads(context),
           ftr_context_simd_name(context));
    fflush(stdout);
    ftr_train_desc desc = ftr_train_defaults();
    ftr_train_result result;
    desc.loss = ftr_cross_entropy(logits, label, NULL);
    desc.metrics[desc.metric_count++] = (ftr_metric){"accuracy", ftr_accuracy(logits, label)};
    desc.optimizer = ftr_adamw(chosen->lr * 0.01);
    desc.train = train_source;
    desc.eval = held_out_source;
    desc.epochs = chosen->epochs;
    desc.on_event = on_event;
    desc.on_event_user = chosen;
    if (status == FTR_OK) status = ftr_fit(graph, &desc, &result);
    ftr_source_destroy(train_source);
    ftr_source_destroy(held_out_source);
    if (status != FTR_OK) return status;
    printf("\ntrained %lld epochs in %.1f s, %.0f samples/s\n", (long long)result.epochs, result.seconds,
           result.samples_per_second);
    printf("held-out accuracy: %.4f (%lld of %lld)\n", result.eval_metrics[0],
           (long long)(result.eval_metrics[0] * (double)held_out->count + 0.5), (long long)held_out->count);
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------- program -- */

/* 0: go on; otherwise the exit status + 1. */
static int parse(int argc, char **argv, options *chosen) {
    for (int i = 1; i < argc; i += 2) {
        char *end = NULL;
        unsigned long long value = i + 1 < argc ? strtoull(argv[i + 1], &end, 10) : 0;
        bool number = end && end != argv[i + 1] && *end == '\0';
        bool small = number && value <= 1000;
        if (strcmp(argv[i], "--help") == 0) {
            printf(
                "usage: mnist [--data FOLDER] [--threads N] [--seed N] [--epochs N]\n"
                "  --data FOLDER  with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and\n"
                "                 t10k-labels-idx1-ubyte; build/data/mnist\n"
                "  --threads N    threads to use; 0, the default, is one for each core\n"
                "  --seed N       of the first weights, the order of images and dropout; 1\n"
                "  --epochs N     times that all variants of all images are seen; 2\n");
            return 1;
        }
        if (strcmp(argv[i], "--data") == 0 && i + 1 < argc)
            chosen->folder = argv[i + 1];
        else if (strcmp(argv[i], "--threads") == 0 && small)
            chosen->threads = (int)value;
        else if (strcmp(argv[i], "--seed") == 0 && number)
            chosen->seed = value;
        else if (strcmp(argv[i], "--epochs") == 0 && small && value > 0)
            chosen->epochs = (int)value;
        else {
            fprintf(stderr, "mnist: '%s' is no option, or its value is missing; see --help\n", argv[i]);
            return 3;
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    options chosen = {.folder = "build/data/mnist", .epochs = 2, .seed = 1, .lr = 4e-3};
    int stop = parse(argc, argv, &chosen);
    if (stop) return stop - 1;
    digits training = {0}, held_out = {0};
    ftr_context *context = NULL;
    ftr_status status = FTR_ERROR_IO;
    if (read_digits(chosen.folder, "train", &training) && read_digits(chosen.folder, "t10k", &held_out)) {
        ftr_context_desc desc = {.seed = chosen.seed, .threads = chosen.threads};
        status = ftr_context_create(&desc, &context);
        ftr_graph *graph = ftr_graph_create(context);
        if (status == FTR_OK) status = train(context, graph, &chosen, &training, &held_out);
        if (status != FTR_OK) fprintf(stderr, "mnist: %s\n", context ? ftr_error_message(context) : "no context");
        ftr_graph_destroy(graph);
    }
    ftr_context_destroy(context);
    free(training.images);
    free(training.labels);
    free(held_out.images);
    free(held_out.labels);
    return status == FTR_OK ? 0 : 1;
}
