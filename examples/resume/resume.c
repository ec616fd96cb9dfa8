/* A run that is killed and resumed comes to the same weights as one that is not, bit by bit. A network with dropout and
 * batch norm learns the digits of examples/digits, with a checkpoint every 10 steps. First a process trains it to the
 * end; then another one is killed with SIGKILL in the middle of an epoch, while a checkpoint may be half written; a
 * third one goes on from the newest that is complete.
 *
 *     build/examples/resume [DIRECTORY]      checkpoints go to DIRECTORY (resume_checkpoints), which must not exist */
#define FASTTRAIN_IMPLEMENTATION
#include "fasttrain.h"

#include "examples/digits/digits_data.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { IMAGES = 1797, TRAINED = 1437, PIXELS = 64, BATCH = 32, EPOCHS = 4, KILLED_AT = 100 };

typedef struct job {
    const char *directory; /* NULL: no checkpoints */
    int64_t killed_at;     /* step after which the process dies; 0: none */
} job;

static bool on_event(void *user, const ftr_train_event *event) {
    const job *j = user;
    if (event->kind == FTR_EVENT_STEP && event->step == j->killed_at) raise(SIGKILL);
    return false;
}

/* FNV-1a over the bytes of all parameters and buffers. */
static uint64_t hash_weights(ftr_graph *graph) {
    static float values[BATCH * PIXELS * PIXELS];
    uint64_t hash = 0xcbf29ce484222325u;
    for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
        const ftr_shape shape = ftr_shape_of(ftr_variable_at(graph, i));
        const size_t bytes = (size_t)ftr_shape_count(&shape) * sizeof(float);
        if (bytes > sizeof values || ftr_variable_read(ftr_variable_at(graph, i), values, bytes) != FTR_OK) return 0;
        for (size_t b = 0; b < bytes; b++) hash = (hash ^ ((const unsigned char *)values)[b]) * 0x100000001b3u;
    }
    return hash;
}

/* The whole life of one process's run. */
static int train(job *j) {
    static float image[IMAGES][PIXELS];
    static int32_t label[IMAGES];
    for (int i = 0; i < IMAGES; i++) {
        for (int k = 0; k < PIXELS; k++) image[i][k] = (float)(digits_data[i][k] - 'a') / 16.0f;
        label[i] = digits_data[i][PIXELS] - '0';
    }
    ftr_context *context;
    if (ftr_context_create(&(ftr_context_desc){.seed = 1}, &context)) return 1;
    ftr_graph *graph = ftr_graph_create(context);
    ftr_batch_mask(graph, BATCH);
    ftr_tensor x = ftr_input(graph, "image", FTR_F32, FTR_SHAPE(BATCH, 8, 8, 1));
    ftr_tensor y = ftr_input(graph, "label", FTR_I32, FTR_SHAPE(BATCH));
    ftr_tensor h = ftr_relu(ftr_batch_norm(ftr_conv2d(x, "conv", 16, 3, NULL), "bn", NULL));
    h = ftr_linear(ftr_dropout(ftr_flatten(h, 1), 0.3), "fc", 10, NULL);

    ftr_field fields[] = {{"image", FTR_F32, FTR_SHAPE(8, 8, 1)}, {"label", FTR_I32, ftr_scalar_shape()}};
    ftr_source *training, *held_out;
    ftr_memory_source(context, "train", TRAINED, fields, (const void *[]){image, label}, 2, &training);
    ftr_memory_source(context, "held out", IMAGES - TRAINED, fields, (const void *[]){image[TRAINED], label + TRAINED},
                      2, &held_out);
    ftr_train_desc t = ftr_train_defaults();
    t.loss = ftr_cross_entropy(h, y, NULL);
    t.metrics[t.metric_count++] = (ftr_metric){"accuracy", ftr_accuracy(h, y)};
    t.optimizer = ftr_adamw(2e-3);
    t.train = training, t.eval = held_out, t.epochs = EPOCHS;
    t.progress = FTR_PROGRESS_LINES;
    t.on_event = on_event, t.on_event_user = j;
    t.checkpoint.directory = j->directory;
    t.checkpoint.every_steps = j->directory ? 10 : 0;
    t.resume = j->directory ? FTR_RESUME_AUTO : FTR_RESUME_NEVER;

    ftr_train_result result;
    const ftr_status status = ftr_fit(graph, &t, &result);
    if (status)
        fprintf(stderr, "%s\n", ftr_error_message(context));
    else
        printf("%" PRId64 " steps, loss %.17g, held-out accuracy %.17g, weights %016" PRIx64 "\n", result.steps,
               result.loss, result.eval_metrics[0], hash_weights(graph));
    ftr_source_destroy(training);
    ftr_source_destroy(held_out);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
    return status ? 1 : 0;
}

/* Runs a job in a process of its own; `line` is what it says at the end, "" if it was killed. False if it failed. */
static bool run(const char *title, job j, char line[256]) {
    int ends[2], how = 0;
    printf("\n%s\n", title);
    fflush(stdout);
    *line = 0;
    if (pipe(ends) != 0) return false;
    const pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        dup2(ends[1], STDOUT_FILENO);
        exit(train(&j));
    }
    close(ends[1]);
    FILE *said = fdopen(ends[0], "r");
    if (said && !fgets(line, 256, said)) *line = 0;
    if (said) fclose(said);
    if (child < 0 || waitpid(child, &how, 0) != child) return false;
    printf("%s", *line ? line : "(killed)\n");
    return j.killed_at ? WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL : WIFEXITED(how) && WEXITSTATUS(how) == 0;
}

int main(int argc, char **argv) {
    const char *directory = argc > 1 ? argv[1] : "resume_checkpoints";
    char whole[256], killed[256], resumed[256];
    if (!run("A run without a break:", (job){NULL, 0}, whole) ||
        !run("The same with checkpoints, killed after step 100:", (job){directory, KILLED_AT}, killed) ||
        !run("Resumed:", (job){directory, 0}, resumed))
        return fprintf(stderr, "a run did not end as it should\n"), 1;
    const bool same = strcmp(whole, resumed) == 0;
    printf("\n%s\n", same ? "The same, to the last bit." : "THEY DIFFER.");
    return same ? 0 : 1;
}
