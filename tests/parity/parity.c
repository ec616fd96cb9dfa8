/* The fasttrain side of parity.py.
 *
 *   parity models                 the names of all models, one a line
 *   parity shapes MODEL           parameters and buffers as in a file: name, "parameter" or "buffer", sizes
 *   parity init MODEL PATH        writes the first weights (seed 1) to a safetensors file
 *   parity run MODEL DIRECTORY [fp16|bf16]
 *                                 one step, dropout off, in mixed precision if it is named: reads weights.safetensors and
 *                                 input.safetensors ("x", its layout NHWC, and "y", the labels); writes logits.safetensors
 *                                 ("eval", "train", "loss") and gradients.safetensors (gradients under the parameters'
 *                                 names, buffers after the step)
 *   parity copy MODEL FROM TO     loads a file of weights and saves them
 *   parity optimizers PATH        steps.h
 *   parity schedules FROM PATH
 *   parity scaler PATH
 */
#include "model_zoo.h"
#include "steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int complain(ftr_context *context, const char *what) {
    fprintf(stderr, "parity: %s: %s\n", what, ftr_error_message(context));
    return 1;
}

/* -------------------------------------------------------------------------------------------------------- shapes -- */

static int print_shapes(ftr_graph *graph) {
    for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
        const ftr_tensor variable = ftr_variable_at(graph, i);
        const ftr_shape s = ftr_shape_of(variable);
        static const int32_t file[] = {0, 3, 1, 2};
        printf("%s %s", ftr_name_of(variable), ftr_is_parameter(variable) ? "parameter" : "buffer");
        for (int32_t k = 0; k < s.rank; k++) printf(" %lld", (long long)s.dim[s.rank == 4 ? file[k] : k]);
        printf("\n");
    }
    return 0;
}

/* ----------------------------------------------------------------------------------------------------------- run -- */

static ftr_status feed_entry(ftr_plan *plan, ftr_tensor input, const ftr_safetensors *file, const char *name) {
    ftr_safetensors_entry entry;
    if (!ftr_safetensors_find(file, name, &entry)) return FTR_ERROR_NAME;
    return ftr_feed(plan, input, entry.data, entry.bytes);
}

static ftr_status step_of(ftr_plan *plan, const zoo_network *net, const ftr_safetensors *input, float *logits,
                          ftr_step_info *info) {
    ftr_status status = feed_entry(plan, net->x, input, "x");
    if (status == FTR_OK) status = feed_entry(plan, net->y, input, "y");
    if (status == FTR_OK) status = ftr_step(plan, info);
    return status == FTR_OK ? ftr_read(plan, net->logits, logits, zoo_bytes(net->logits)) : status;
}

/* Puts the gradients where the parameters are, so that a file of weights becomes one of gradients. */
static ftr_status gradients_to_parameters(ftr_graph *graph, ftr_plan *plan) {
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < ftr_variable_count(graph) && status == FTR_OK; i++) {
        const ftr_tensor variable = ftr_variable_at(graph, i);
        if (!ftr_is_parameter(variable)) continue;
        void *data = malloc(zoo_bytes(variable));
        status = data ? ftr_read_gradient(plan, variable, data, zoo_bytes(variable)) : FTR_ERROR_OUT_OF_MEMORY;
        if (status == FTR_OK) status = ftr_variable_write(variable, data, zoo_bytes(variable));
        free(data);
    }
    return status;
}

static ftr_status evaluate(ftr_graph *graph, const zoo_network *net, const ftr_safetensors *input, ftr_amp amp,
                           float *logits) {
    const ftr_compile_desc desc = {
        .mode = FTR_MODE_EVAL, .loss = net->loss, .outputs = &net->logits, .output_count = 1, .amp = amp};
    ftr_plan *plan = NULL;
    ftr_status status = ftr_compile(graph, &desc, &plan);
    if (status == FTR_OK) status = step_of(plan, net, input, logits, NULL);
    ftr_plan_destroy(plan);
    return status;
}

/* The loss scale is one that overflows in no model: gradients are those of the first step. */
static ftr_status train(ftr_graph *graph, const zoo_network *net, const ftr_safetensors *input, ftr_amp amp,
                        float *logits, double *loss) {
    ftr_scaler_desc scaler = ftr_scaler_defaults();
    scaler.init_scale = 256;
    ftr_compile_desc desc = {
        .loss = net->loss, .outputs = &net->logits, .output_count = 1, .amp = amp, .scaler = &scaler};
    ftr_tensor *parameters = zoo_parameters(graph, &desc.gradient_count);
    if (!parameters) return FTR_ERROR_OUT_OF_MEMORY;
    desc.gradients_of = parameters;
    ftr_plan *plan = NULL;
    ftr_step_info info = {0};
    ftr_status status = ftr_compile(graph, &desc, &plan);
    if (status == FTR_OK) status = step_of(plan, net, input, logits, &info);
    if (status == FTR_OK) status = gradients_to_parameters(graph, plan);
    *loss = info.loss;
    ftr_plan_destroy(plan);
    free(parameters);
    return status;
}

static ftr_status write_logits(ftr_context *context, const char *path, const zoo_network *net, const float *eval,
                               const float *trained, double loss) {
    const ftr_safetensors_item items[] = {{"eval", FTR_F32, ftr_shape_of(net->logits), eval},
                                          {"train", FTR_F32, ftr_shape_of(net->logits), trained},
                                          {"loss", FTR_F64, ftr_scalar_shape(), &loss}};
    return ftr_safetensors_write(context, path, items, 3, NULL, 0);
}

static const char *path_in(const char *directory, const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s.safetensors", directory, name);
    return path;
}

static int run(ftr_context *context, ftr_graph *graph, const zoo_model *model, const char *directory, ftr_amp amp) {
    ftr_safetensors *input = NULL;
    ftr_safetensors_entry x;
    ftr_status status = ftr_safetensors_open(context, path_in(directory, "input"), &input);
    if (status != FTR_OK) return complain(context, "input");
    if (!ftr_safetensors_find(input, "x", &x) || x.rank > FTR_MAX_RANK) return complain(context, "input without x");
    ftr_shape shape = {.rank = x.rank};
    memcpy(shape.dim, x.dim, (size_t)x.rank * sizeof shape.dim[0]);

    const zoo_network net = zoo_build(graph, model, shape, &(zoo_options){0});
    float *eval = malloc(zoo_bytes(net.logits) + 1), *trained = malloc(zoo_bytes(net.logits) + 1);
    double loss = 0;
    status =
        eval && trained ? ftr_load_weights(graph, path_in(directory, "weights"), NULL, NULL) : FTR_ERROR_OUT_OF_MEMORY;
    if (status == FTR_OK) status = evaluate(graph, &net, input, amp, eval);
    if (status == FTR_OK) status = train(graph, &net, input, amp, trained, &loss);
    if (status == FTR_OK) status = write_logits(context, path_in(directory, "logits"), &net, eval, trained, loss);
    if (status == FTR_OK) status = ftr_save_weights(graph, path_in(directory, "gradients"));
    free(trained);
    free(eval);
    ftr_safetensors_close(input);
    return status == FTR_OK ? 0 : complain(context, model->name);
}

/* ---------------------------------------------------------------------------------------------------------- main -- */

static int usage(void) {
    fprintf(stderr, "usage: parity models | shapes MODEL | init MODEL PATH | run MODEL DIRECTORY [fp16|bf16] |\n"
                    "       copy MODEL FROM TO | optimizers PATH | schedules FROM PATH | scaler PATH\n");
    return 2;
}

static int done(ftr_context *context, const char *what, ftr_status status) {
    return status == FTR_OK ? 0 : complain(context, what);
}

static int copy(ftr_context *context, ftr_graph *graph, const zoo_model *model, const char *from, const char *to) {
    const ftr_status status = ftr_load_weights(graph, from, NULL, NULL);
    return done(context, model->name, status == FTR_OK ? ftr_save_weights(graph, to) : status);
}

static int run_as(ftr_context *context, ftr_graph *graph, const zoo_model *model, const char *directory,
                  const char *type) {
    if (type && strcmp(type, "fp16") != 0 && strcmp(type, "bf16") != 0) return usage();
    const ftr_amp amp = !type ? FTR_AMP_OFF : strcmp(type, "fp16") == 0 ? FTR_AMP_FP16 : FTR_AMP_BF16;
    return run(context, graph, model, directory, amp);
}

static int act_on_model(ftr_context *context, ftr_graph *graph, int argc, char **argv) {
    const zoo_model *model = zoo_find(argv[2]);
    if (!model) {
        fprintf(stderr, "parity: there is no model '%s'\n", argv[2]);
        return 2;
    }
    if ((argc == 4 || argc == 5) && strcmp(argv[1], "run") == 0)
        return run_as(context, graph, model, argv[3], argc == 5 ? argv[4] : NULL);
    zoo_build(graph, model, model->input, &(zoo_options){0});
    if (ftr_graph_status(graph) != FTR_OK) return complain(context, model->name);
    if (argc == 3 && strcmp(argv[1], "shapes") == 0) return print_shapes(graph);
    if (argc == 4 && strcmp(argv[1], "init") == 0) return done(context, model->name, ftr_save_weights(graph, argv[3]));
    if (argc == 5 && strcmp(argv[1], "copy") == 0) return copy(context, graph, model, argv[3], argv[4]);
    return usage();
}

static int act(ftr_context *context, int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "optimizers") == 0)
        return done(context, argv[1], parity_optimizers(context, argv[2]));
    if (argc == 4 && strcmp(argv[1], "schedules") == 0)
        return done(context, argv[1], parity_schedules(context, argv[2], argv[3]));
    if (argc == 3 && strcmp(argv[1], "scaler") == 0) return done(context, argv[1], parity_scaler(context, argv[2]));
    ftr_graph *graph = ftr_graph_create(context);
    const int result = graph ? act_on_model(context, graph, argc, argv) : 1;
    ftr_graph_destroy(graph);
    return result;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "models") == 0) {
        for (int32_t i = 0; zoo_at(i); i++) printf("%s\n", zoo_at(i)->name);
        return 0;
    }
    if (argc < 3) return usage();
    ftr_context *context = NULL;
    if (ftr_context_create(&(ftr_context_desc){.seed = 1, .log_level = FTR_LOG_SILENT}, &context) != FTR_OK) return 1;
    const int result = act(context, argc, argv);
    ftr_context_destroy(context);
    return result;
}
