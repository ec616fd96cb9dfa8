/* Transfer learning: EfficientNet-Lite0 with ImageNet's weights gets a new head for the classes of a set of pictures. Its
 * other layers are frozen, so they cost no gradient and no optimizer state, and their batch norms keep ImageNet's
 * statistics. README.md says where weights and pictures come from. */
#define FASTTRAIN_IMPLEMENTATION
#include "fasttrain.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 16

typedef struct options {
    const char *weights, *data, *save;
    bool classify;
    int threads, epochs;
    unsigned long long seed;
} options;

/* Pictures of a file made by tools/data.py: images [count, size, size, 3] of bytes, and their labels. */
typedef struct pictures {
    int64_t count, size;
    const unsigned char *images;
    const void *labels; /* i32 */
} pictures;

static ftr_status complain(const char *path, const char *sentence) {
    fprintf(stderr, "transfer: %s: %s\n", path, sentence);
    return FTR_ERROR_DATA;
}

/* One part of the file, "train" or "held_out". What it points to lives as long as the file. */
static ftr_status find_pictures(const ftr_safetensors *file, const char *path, const char *part, int64_t classes,
                                pictures *found) {
    ftr_safetensors_entry image, label;
    char name[64];
    snprintf(name, sizeof name, "%s.image", part);
    if (!ftr_safetensors_find(file, name, &image) || image.dtype != FTR_U8 || image.rank != 4 || image.dim[3] != 3 ||
        image.dim[1] != image.dim[2] || image.dim[0] < 1)
        return complain(path, "has no pictures: u8 [count, size, size, 3] under 'train.image' and 'held_out.image'");
    snprintf(name, sizeof name, "%s.label", part);
    if (!ftr_safetensors_find(file, name, &label) || label.dtype != FTR_I32 || label.rank != 1 ||
        label.dim[0] != image.dim[0])
        return complain(path, "does not have one i32 label a picture under 'train.label' and 'held_out.label'");
    for (int64_t i = 0; i < label.dim[0]; i++) {
        int32_t value;
        memcpy(&value, (const char *)label.data + i * (int64_t)sizeof value, sizeof value);
        if (value < 0 || value >= classes) return complain(path, "has a label that is none of its classes");
    }
    *found = (pictures){image.dim[0], image.dim[1], image.data, label.data};
    return FTR_OK;
}

/* Number of classes: their names stand in the metadata, with commas between. */
static int64_t count_classes(const ftr_safetensors *file) {
    const char *names = ftr_safetensors_metadata(file, "classes");
    int64_t count = names && *names ? 1 : 0;
    for (; names && *names; names++) count += *names == ',';
    return count;
}

/* Bytes to the range that the network was trained with. */
static ftr_tensor normalized(ftr_tensor image) {
    ftr_graph *graph = image.graph;
    ftr_tensor x = ftr_sub(ftr_cast(image, FTR_F32), ftr_scalar(graph, FTR_F32, 127.0));
    return ftr_mul(x, ftr_scalar(graph, FTR_F32, 1.0 / 128.0));
}

/* ------------------------------------------------------------------------------------------------------ classify -- */

/* The three likeliest of ImageNet's classes for each held-out picture. */
static ftr_status classify(ftr_context *context, const options *chosen, const pictures *from) {
    ftr_graph *graph = ftr_graph_create(context);
    ftr_tensor image = ftr_input(graph, "image", FTR_U8, FTR_SHAPE(1, from->size, from->size, 3));
    ftr_tensor logits = ftr_efficientnet_lite0(normalized(image), NULL), best, index;
    best = ftr_topk(ftr_softmax(logits, -1), 3, &index);
    ftr_plan *plan = NULL;
    ftr_status status = ftr_load_weights(graph, chosen->weights, NULL, NULL);
    ftr_tensor outputs[2] = {best, index};
    if (status == FTR_OK)
        status = ftr_compile(graph, &(ftr_compile_desc){.mode = FTR_MODE_EVAL, .outputs = outputs, .output_count = 2},
                             &plan);
    size_t bytes = (size_t)(from->size * from->size * 3);
    for (int64_t i = 0; i < from->count && status == FTR_OK; i++) {
        float probability[3];
        int64_t number[3];
        status = ftr_feed(plan, image, from->images + (size_t)i * bytes, bytes);
        if (status == FTR_OK) status = ftr_step(plan, NULL);
        if (status == FTR_OK) status = ftr_read(plan, best, probability, sizeof probability);
        if (status == FTR_OK) status = ftr_read(plan, index, number, sizeof number);
        for (int k = 0; k < 3 && status == FTR_OK; k++)
            printf("%s%lld (%.3f)", k ? ", " : "picture: class ", (long long)number[k], (double)probability[k]);
        if (status == FTR_OK) printf("\n");
    }
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    return status;
}

/* --------------------------------------------------------------------------------------------------------- train -- */

/* Everything from the file but the head; then everything but the head is frozen. */
static ftr_status load_and_freeze(ftr_graph *graph, const options *chosen) {
    static const char *const head[] = {"_fc.*"};
    ftr_load_report *report = NULL;
    ftr_status status =
        ftr_load_weights(graph, chosen->weights, &(ftr_load_desc){.skip = head, .skip_count = 1}, &report);
    ftr_load_report_print(report, ftr_write_file, status == FTR_OK ? stdout : stderr);
    ftr_load_report_destroy(report);
    if (status == FTR_OK) status = ftr_freeze(graph, "*", &(ftr_freeze_desc){.norm_eval = true});
    if (status == FTR_OK) status = ftr_unfreeze(graph, head[0]);
    return status;
}

static ftr_status make_source(ftr_context *context, const char *name, const pictures *from, ftr_source **source) {
    ftr_field fields[2] = {{"image", FTR_U8, FTR_SHAPE(from->size, from->size, 3)},
                           {"label", FTR_I32, ftr_scalar_shape()}};
    return ftr_memory_source(context, name, from->count, fields, (const void *[]){from->images, from->labels}, 2,
                             source);
}

static ftr_status train(ftr_context *context, const options *chosen, int64_t classes, const pictures *training,
                        const pictures *held_out) {
    ftr_graph *graph = ftr_graph_create(context);
    (void)ftr_batch_mask(graph, BATCH);
    ftr_tensor image = ftr_input(graph, "image", FTR_U8, FTR_SHAPE(BATCH, training->size, training->size, 3));
    ftr_tensor label = ftr_input(graph, "label", FTR_I32, FTR_SHAPE(BATCH));
    ftr_efficientnet_lite0_desc net = ftr_efficientnet_lite0_defaults();
    net.classes = classes;
    net.stochastic_depth = 0.0; /* the layers that it would leave out are not trained */
    ftr_tensor logits = ftr_efficientnet_lite0(normalized(image), &net);
    ftr_train_desc desc = ftr_train_defaults();
    desc.loss = ftr_cross_entropy(logits, label, NULL);
    desc.metrics[desc.metric_count++] = (ftr_metric){"accuracy", ftr_accuracy(logits, label)};
    desc.optimizer = ftr_adamw(3e-3);
    desc.epochs = chosen->epochs;
    desc.last_batch = FTR_LAST_BATCH_PAD;
    ftr_train_result result;
    ftr_status status = make_source(context, "pictures/train", training, &desc.train);
    if (status == FTR_OK) status = make_source(context, "pictures/held-out", held_out, &desc.eval);
    if (status == FTR_OK) status = load_and_freeze(graph, chosen);
    if (status == FTR_OK) {
        printf("%lld pictures of %lld classes to train on, %lld held out\n", (long long)training->count,
               (long long)classes, (long long)held_out->count);
        fflush(stdout);
        status = ftr_fit(graph, &desc, &result);
    }
    if (status == FTR_OK && chosen->save) status = ftr_save_weights(graph, chosen->save);
    if (status == FTR_OK) {
        printf("memory: parameters %.1f MB, gradients %.3f MB, optimizer %.3f MB, activations %.1f MB\n",
               (double)result.memory.parameters / 1e6, (double)result.memory.gradients / 1e6,
               (double)result.memory.optimizer_state / 1e6, (double)result.memory.activations / 1e6);
        printf("held-out accuracy: %.4f (%lld of %lld), %.1f s\n", result.eval_metrics[0],
               (long long)(result.eval_metrics[0] * (double)held_out->count + 0.5), (long long)held_out->count,
               result.seconds);
    }
    ftr_source_destroy(desc.train);
    ftr_source_destroy(desc.eval);
    ftr_graph_destroy(graph);
    return status;
}

/* ------------------------------------------------------------------------------------------------------- program -- */

static ftr_status run(ftr_context *context, const options *chosen) {
    ftr_safetensors *file = NULL;
    pictures training = {0}, held_out = {0};
    ftr_status status = ftr_safetensors_open(context, chosen->data, &file);
    int64_t classes = count_classes(file);
    if (status == FTR_OK) status = find_pictures(file, chosen->data, "held_out", classes, &held_out);
    if (status == FTR_OK && !chosen->classify) status = find_pictures(file, chosen->data, "train", classes, &training);
    if (status == FTR_OK && !chosen->classify && training.size != held_out.size)
        status = complain(chosen->data, "the pictures to train on and those held out are of two sizes");
    if (status == FTR_OK)
        status = chosen->classify ? classify(context, chosen, &held_out)
                                  : train(context, chosen, classes, &training, &held_out);
    ftr_safetensors_close(file);
    return status;
}

/* 0: go on; otherwise the exit status + 1. */
static int parse(int argc, char **argv, options *chosen) {
    for (int i = 1; i < argc; i += 2) {
        char *end = NULL;
        unsigned long long value = i + 1 < argc ? strtoull(argv[i + 1], &end, 10) : 0;
        bool number = end && end != argv[i + 1] && *end == '\0';
        bool small = number && value <= 1000;
        if (strcmp(argv[i], "--help") == 0) {
            printf(
                "usage: transfer [--weights FILE] [--data FILE] [--save FILE] [--epochs N] [--threads N] [--seed N]\n"
                "       transfer --classify FILE [--weights FILE]\n"
                "  --weights FILE   of EfficientNet-Lite0; build/data/efficientnet_lite0.safetensors\n"
                "  --data FILE      pictures and labels; build/data/patches.safetensors\n"
                "  --classify FILE  print ImageNet's classes of the held-out pictures of FILE, train nothing\n"
                "  --save FILE      write the weights with the new head\n"
                "  --epochs N       5      --threads N   0: one a core      --seed N   1\n");
            return 1;
        }
        if (strcmp(argv[i], "--weights") == 0 && i + 1 < argc)
            chosen->weights = argv[i + 1];
        else if (strcmp(argv[i], "--data") == 0 && i + 1 < argc)
            chosen->data = argv[i + 1];
        else if (strcmp(argv[i], "--classify") == 0 && i + 1 < argc)
            chosen->data = argv[i + 1], chosen->classify = true;
        else if (strcmp(argv[i], "--save") == 0 && i + 1 < argc)
            chosen->save = argv[i + 1];
        else if (strcmp(argv[i], "--threads") == 0 && small)
            chosen->threads = (int)value;
        else if (strcmp(argv[i], "--seed") == 0 && number)
            chosen->seed = value;
        else if (strcmp(argv[i], "--epochs") == 0 && small && value > 0)
            chosen->epochs = (int)value;
        else {
            fprintf(stderr, "transfer: '%s' is no option, or its value is missing; see --help\n", argv[i]);
            return 3;
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    options chosen = {.weights = "build/data/efficientnet_lite0.safetensors",
                      .data = "build/data/patches.safetensors",
                      .epochs = 5,
                      .seed = 1};
    int stop = parse(argc, argv, &chosen);
    if (stop) return stop - 1;
    ftr_context_desc desc = {.seed = chosen.seed, .threads = chosen.threads};
    ftr_context *context = NULL;
    if (ftr_context_create(&desc, &context) != FTR_OK) return 1;
    ftr_status status = run(context, &chosen);
    if (status != FTR_OK && ftr_error_status(context) != FTR_OK)
        fprintf(stderr, "transfer: %s\n", ftr_error_message(context));
    ftr_context_destroy(context);
    return status == FTR_OK ? 0 : 1;
}
