/* The training run that the fault tests break: convolution, batch norm, dropout, samples that are augmented as a pure
 * function of their index, a metric, an evaluation, early stopping with the best weights. */
#ifndef FTR_TESTS_FAULTS_TRAINEE_H
#define FTR_TESTS_FAULTS_TRAINEE_H

#include "ftr_folder.h"

enum { TRAINEE_STEPS_PER_EPOCH = 5, TRAINEE_OPTIMIZERS = 10 };

/* What stories vary. Whatever else a run keeps from step to step, or draws its data by, gets a field here, its
 * values in trainee_draw() and its settings in build(). Plain data: configurations are compared by their bytes. */
typedef struct trainee_config {
    int32_t optimizer; /* 0 .. TRAINEE_OPTIMIZERS - 1 */
    ftr_amp amp;       /* with FTR_AMP_FP16 the loss scale begins so high that steps are left out, and grows often */
    ftr_dtype state;   /* of the optimizer; Adafactor's is f32 */
    int32_t around;    /* not 0: updates by two micro-batches each, and evaluations by an average of the weights that
                        * warms up */
    int32_t mixes;     /* not 0: mixup and cutmix of the batches */
} trainee_config;

/* A configuration for story number `story`: in any ten that follow each other is each optimizer, in any thirty each of
 * them with each type of mixed precision. */
trainee_config trainee_draw(ftr_test_rng *rng, int story);

/* Whether loss scaling is sure to leave steps out. */
bool trainee_skips(const trainee_config *config);

typedef struct trainee_desc {
    trainee_config config;
    int32_t threads;
    int64_t epochs;
    unsigned microseconds; /* a sample takes at least */
    ftr_checkpoint_desc checkpoint;
    ftr_resume resume;
    bool handle_signals;
    int64_t signal_step; /* SIGTERM and SIGUSR1 come after this step; 0: never */
    ftr_test_memory *memory;
} trainee_desc;

/* Plain data: it goes through a pipe. */
typedef struct trainee_result {
    ftr_status status;
    char message[512];
    ftr_test_log log;
    ftr_train_result train;
    uint64_t digest; /* of the weights */
} trainee_result;

/* Four epochs of SGD in f32 on two threads, no checkpoints. */
trainee_desc trainee_defaults(void);

/* The whole run, context and all. */
void trainee_run(const trainee_desc *desc, trainee_result *result);

/* Fails the test unless both runs came to the same, bit by bit. */
void trainee_compare(const trainee_result *result, const trainee_result *expected);

#endif
