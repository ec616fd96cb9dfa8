/* Cross-validation: how well a small network reads the digits of examples/digits, told by five folds. First a range test
 * looks for a learning rate; then each fold trains a network of the same first weights, with and without mixed batches (mixup
 * and cutmix), on four fifths of the images, every digit in proportion, and evaluates it on the rest. A network as small as
 * this one, trained for so short a time, does not gain by mixing: it shows how it is done. */
#define FASTTRAIN_IMPLEMENTATION
#include "fasttrain.h"

#include "examples/digits/digits_data.h"

#include <math.h>
#include <stdio.h>

#define TRY(call)                                                                                                      \
    if ((call) != FTR_OK) return fprintf(stderr, "%s: %s\n", #call, ftr_error_message(context)), 1

enum { IMAGES = 1797, BATCH = 32, FOLDS = 5 };

static float images[IMAGES][64];
static int32_t labels[IMAGES];

/* The network, and what it is trained for. */
static ftr_graph *build(ftr_context *context, bool mixed, ftr_train_desc *train) {
    ftr_graph *graph = ftr_graph_create(context);
    ftr_batch_mask(graph, BATCH); /* the last batch of an evaluation is short */
    ftr_tensor x = ftr_input(graph, "image", FTR_F32, FTR_SHAPE(BATCH, 8, 8, 1));
    ftr_tensor y = ftr_input(graph, "label", FTR_I32, FTR_SHAPE(BATCH));
    ftr_tensor target = ftr_one_hot(y, 10, FTR_F32);
    if (mixed) {
        ftr_mix mix = ftr_mix_draw(x, "mix", NULL);
        x = ftr_mix_images(x, mix), target = ftr_mix_targets(target, mix);
    }
    ftr_tensor h = ftr_relu(ftr_linear(ftr_flatten(x, 1), "fc1", 128, NULL));
    ftr_tensor logits = ftr_linear(ftr_relu(ftr_linear(h, "fc2", 64, NULL)), "fc3", 10, NULL);
    train->loss = ftr_cross_entropy(logits, target, NULL);
    train->metric_count = 1;
    train->metrics[0] = (ftr_metric){"accuracy", ftr_accuracy(logits, y)};
    return graph;
}

/* The steepest point of a range test on all images. */
static ftr_status find_rate(ftr_context *context, ftr_source *all, ftr_train_desc *train) {
    ftr_lr_curve curve;
    ftr_graph *graph = build(context, false, train);
    ftr_find_lr_desc desc = ftr_find_lr_defaults();
    desc.min_lr = 1e-5, desc.max_lr = 1;
    train->train = all;
    ftr_status status = ftr_find_lr(graph, train, &desc, &curve);
    if (status == FTR_OK) {
        printf("range test: %lld steps up to %.2g; steepest at %.2g, a tenth of the lowest is %.2g\n",
               (long long)curve.count, curve.lr[curve.count - 1], curve.suggestion, curve.tenth_of_lowest);
        train->optimizer.lr = curve.suggestion;
    }
    ftr_lr_curve_free(&curve);
    ftr_graph_destroy(graph);
    return status;
}

/* Trains on all folds but one, and evaluates on that one. */
static ftr_status run_fold(ftr_context *context, ftr_source *all, int fold_number, bool mixed, ftr_train_desc *train,
                           double *accuracy) {
    ftr_fold fold;
    ftr_graph *graph = build(context, mixed, train);
    ftr_status status =
        ftr_k_fold(context, &(ftr_fold_desc){.count = IMAGES, .labels = labels}, FOLDS, fold_number, &fold);
    train->train = train->eval = NULL;
    if (!status) status = ftr_source_subset(all, "train", fold.train, fold.train_count, &train->train);
    if (!status) status = ftr_source_subset(all, "held out", fold.test, fold.test_count, &train->eval);
    ftr_train_result result;
    if (!status) status = ftr_fit(graph, train, &result);
    if (!status) *accuracy = result.eval_metrics[0];
    ftr_source_destroy(train->train);
    ftr_source_destroy(train->eval);
    ftr_graph_destroy(graph);
    ftr_fold_free(&fold);
    return status;
}

int main(void) {
    for (int i = 0; i < IMAGES; i++) {
        for (int k = 0; k < 64; k++) images[i][k] = (float)(digits_data[i][k] - 'a') / 16.0f;
        labels[i] = digits_data[i][64] - '0';
    }
    ftr_context *context;
    if (ftr_context_create(&(ftr_context_desc){.seed = 1}, &context) != FTR_OK) return 1;
    const ftr_field fields[] = {{"image", FTR_F32, FTR_SHAPE(8, 8, 1)}, {"label", FTR_I32, ftr_scalar_shape()}};
    ftr_source *all;
    TRY(ftr_memory_source(context, "digits", IMAGES, fields, (const void *[]){images, labels}, 2, &all));
    ftr_train_desc train = ftr_train_defaults();
    train.optimizer = ftr_adamw(1e-3);
    train.epochs = 40;
    train.progress = FTR_PROGRESS_SILENT;
    TRY(find_rate(context, all, &train));
    for (int mixed = 0; mixed < 2; mixed++) {
        double sum = 0, squares = 0, accuracy;
        printf("%s", mixed ? "mixed batches: " : "plain batches: ");
        for (int fold = 0; fold < FOLDS; fold++) {
            TRY(run_fold(context, all, fold, mixed, &train, &accuracy));
            printf(" %.4f", accuracy);
            sum += accuracy, squares += accuracy * accuracy;
        }
        const double mean = sum / FOLDS;
        printf("   mean %.4f, deviation %.4f\n", mean, sqrt((squares - FOLDS * mean * mean) / (FOLDS - 1)));
    }
    ftr_source_destroy(all);
    ftr_context_destroy(context);
    return 0;
}
