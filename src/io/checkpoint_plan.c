/* What of a plan and its graph goes into a checkpoint, and how it gets back. */
#include "graph/op.h"
#include "io/checkpoint.h"
#include "passes/plan.h"

#include <stdio.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------------- weights -- */

static ftr_status ftr__checkpoint_no_memory(ftr_context *context, size_t bytes) {
    return ftr__out_of_memory(context, "checkpoint", bytes);
}

ftr_status ftr__checkpoint_variables(ftr_graph *graph, ftr__arena *arena, const char *name,
                                     ftr__checkpoint_section *section) {
    const size_t size = (size_t)graph->variable_count * sizeof *section->tensors;
    ftr__checkpoint_tensor *tensors = ftr__arena_alloc(arena, size);
    if (!tensors) return ftr__checkpoint_no_memory(graph->context, size);
    for (int32_t i = 0; i < graph->variable_count; i++) {
        const ftr__weight weight = ftr__weight_of(graph, i);
        tensors[i] = (ftr__checkpoint_tensor){.name = weight.name,
                                              .dtype = weight.dtype,
                                              .shape = weight.shape,
                                              .bytes = weight.bytes,
                                              .offset = graph->variables[i].offset,
                                              .permuted = weight.permuted,
                                              .window = weight.window};
    }
    *section = (ftr__checkpoint_section){
        .name = name, .tensors = tensors, .count = graph->variable_count, .bytes = graph->variable_bytes};
    return FTR_OK;
}

static ftr_status ftr__checkpoint_copy_weights(void *user, unsigned char *to) {
    const ftr_plan *plan = user;
    ftr_context *context = plan->context;
    return context->backend->download(context, context->backend_state, to, plan->source->variable_memory,
                                      plan->source->variable_bytes);
}

static ftr_status ftr__checkpoint_put_weight(void *user, int32_t index, const void *data) {
    const ftr_plan *plan = user;
    const ftr__variable *variable = &plan->source->variables[index];
    return ftr_variable_write((ftr_tensor){plan->source, variable->value}, data, variable->bytes);
}

/* --------------------------------------------------------------------------------------------- optimizer's state -- */

/* Whether a state is one of a convolution weight ("conv.weight.exp_avg" of "conv.weight") and laid out as it is. */
static bool ftr__checkpoint_is_conv_state(const ftr_graph *graph, const ftr_plan_state *state) {
    for (int32_t i = 0; i < graph->variable_count && state->shape.rank > 2; i++) {
        const ftr__variable *variable = &graph->variables[i];
        const ftr__value *value = &graph->values[variable->value];
        const char *name = graph->nodes[value->node].name;
        const size_t length = strlen(name);
        if (variable->conv_weight && state->shape.rank == value->shape.rank &&
            strncmp(state->name, name, length) == 0 && state->name[length] == '.')
            return true;
    }
    return false;
}

static ftr__checkpoint_tensor ftr__checkpoint_state(const ftr_plan *plan, const ftr_plan_state *state, size_t offset) {
    ftr__checkpoint_tensor tensor = {.name = state->name,
                                     .dtype = state->dtype,
                                     .shape = state->shape,
                                     .bytes = state->bytes,
                                     .offset = offset,
                                     .window = 1};
    tensor.permuted = ftr__checkpoint_is_conv_state(plan->source, state);
    if (!tensor.permuted) return tensor;
    tensor.shape = ftr__weight_shape(&state->shape, &tensor.window);
    return tensor;
}

typedef struct ftr__checkpoint_states {
    ftr_plan *plan;
    const ftr__checkpoint_tensor *tensors;
} ftr__checkpoint_states;

/* The tensors lie in the section as in the plan: one copy takes them all. */
static ftr_status ftr__checkpoint_copy_states(void *user, unsigned char *to) {
    const ftr_plan *plan = ((const ftr__checkpoint_states *)user)->plan;
    return plan->context->backend->download(plan->context, plan->context->backend_state, to,
                                            plan->memory[FTR__PLACE_STATE], plan->bytes[FTR__PLACE_STATE]);
}

static ftr_status ftr__checkpoint_put_state(void *user, int32_t index, const void *data) {
    const ftr__checkpoint_states *states = user;
    return ftr_plan_state_write(states->plan, states->tensors[index].name, data, states->tensors[index].bytes);
}

static ftr_status ftr__checkpoint_state_section(ftr_plan *plan, ftr__arena *arena, ftr__checkpoint_section *section) {
    const int32_t count = ftr_plan_state_count(plan);
    const size_t size = (size_t)count * sizeof(ftr__checkpoint_tensor);
    ftr__checkpoint_states *states = ftr__arena_alloc(arena, sizeof *states);
    ftr__checkpoint_tensor *tensors = ftr__arena_alloc(arena, size);
    if (!states || !tensors) return ftr__checkpoint_no_memory(plan->context, size);
    *states = (ftr__checkpoint_states){.plan = plan, .tensors = tensors};
    for (int32_t i = 0; i < count; i++) {
        ftr_plan_state state;
        const ftr_status status = ftr_plan_state_at(plan, i, &state);
        if (status != FTR_OK) return status;
        tensors[i] = ftr__checkpoint_state(plan, &state, ftr__plan_state_offset(plan, i));
    }
    *section = (ftr__checkpoint_section){.name = "optimizer",
                                         .tensors = tensors,
                                         .count = count,
                                         .bytes = plan->bytes[FTR__PLACE_STATE],
                                         .user = states,
                                         .copy = ftr__checkpoint_copy_states,
                                         .put = ftr__checkpoint_put_state};
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------ optimizer's settings -- */

/* The settings of an update. A run is resumed with those that it was begun with. */
typedef struct ftr__checkpoint_setting {
    const char *name;
    double value;
} ftr__checkpoint_setting;

#define FTR__CHECKPOINT_SETTINGS 32

/* All that ftr_op_attr.optimizer has. Returns how many. */
static int32_t ftr__checkpoint_settings(const ftr__node *node, ftr__checkpoint_setting to[FTR__CHECKPOINT_SETTINGS]) {
    const ftr_op_attr *a = &node->attr;
    const ftr__checkpoint_setting settings[] = {
        {"lr_scale", a->optimizer.lr_scale},
        {"clip_value", a->optimizer.clip_value},
        {"weight_decay", a->optimizer.weight_decay},
        {"momentum", a->optimizer.momentum},
        {"dampening", a->optimizer.dampening},
        {"beta1", a->optimizer.beta1},
        {"beta2", a->optimizer.beta2},
        {"eps", a->optimizer.eps},
        {"alpha", a->optimizer.alpha},
        {"lr_decay", a->optimizer.lr_decay},
        {"initial_accumulator", a->optimizer.initial_accumulator},
        {"trust_coefficient", a->optimizer.trust_coefficient},
        {"beta2_decay", a->optimizer.beta2_decay},
        {"parameter_eps", a->optimizer.parameter_eps},
        {"clip_threshold", a->optimizer.clip_threshold},
        {"ns_coefficient_0", a->optimizer.ns_coefficients[0]},
        {"ns_coefficient_1", a->optimizer.ns_coefficients[1]},
        {"ns_coefficient_2", a->optimizer.ns_coefficients[2]},
        {"ns_eps", a->optimizer.ns_eps},
        {"ns_steps", (double)a->optimizer.ns_steps},
        {"rate", (double)a->optimizer.rate},
        {"nesterov", (double)a->optimizer.nesterov},
        {"amsgrad", (double)a->optimizer.amsgrad},
        {"centered", (double)a->optimizer.centered},
        {"adapt", (double)a->optimizer.adapt},
        {"trust_clip", (double)a->optimizer.trust_clip},
        {"tensors", (double)node->in_count},
    };
    _Static_assert(sizeof settings <= FTR__CHECKPOINT_SETTINGS * sizeof *to, "FTR__CHECKPOINT_SETTINGS is too small");
    memcpy(to, settings, sizeof settings);
    return FTR__ARRAY_LENGTH(settings);
}

static int32_t ftr__checkpoint_average_settings(const ftr__node *node,
                                                ftr__checkpoint_setting to[FTR__CHECKPOINT_SETTINGS]) {
    const ftr_op_attr *a = &node->attr;
    const ftr__checkpoint_setting settings[] = {
        {"decay", a->average.decay},
        {"min_decay", a->average.min_decay},
        {"warmup_gamma", a->average.warmup_gamma},
        {"warmup_power", a->average.warmup_power},
        {"start", (double)a->average.start},
        {"every", (double)a->average.every},
        {"equal", (double)a->average.equal},
        {"copy", (double)a->average.copy},
    };
    memcpy(to, settings, sizeof settings);
    return FTR__ARRAY_LENGTH(settings);
}

/* The same of whatever takes part in a step: limits on the norm of all gradients, the loss scale's rule. */
static int32_t ftr__checkpoint_settings_of(const ftr__node *node,
                                           ftr__checkpoint_setting to[FTR__CHECKPOINT_SETTINGS]) {
    const ftr_op_attr *a = &node->attr;
    if (node->dead) return 0;
    switch (ftr__op_info_of(node->op)->attr) {
    case FTR__ATTR_optimizer: return ftr__checkpoint_settings(node, to);
    case FTR__ATTR_clip_scale: to[0] = (ftr__checkpoint_setting){"max_norm", a->clip_scale.max_norm}; return 1;
    case FTR__ATTR_grad_norm: to[0] = (ftr__checkpoint_setting){"max_norm", a->grad_norm.max_norm}; return 1;
    case FTR__ATTR_average: return ftr__checkpoint_average_settings(node, to);
    case FTR__ATTR_scale_update:
        to[0] = (ftr__checkpoint_setting){"growth", a->scale_update.growth};
        to[1] = (ftr__checkpoint_setting){"backoff", a->scale_update.backoff};
        to[2] = (ftr__checkpoint_setting){"interval", (double)a->scale_update.interval};
        return 3;
    default: return 0;
    }
}

/* Objects by the names of the nodes; an update's settings that are 0, as those are that it does not use, are left out.
 * */
static void ftr__checkpoint_write_settings(const ftr_plan *plan, ftr__checkpoint_out *out) {
    ftr__checkpoint_setting settings[FTR__CHECKPOINT_SETTINGS];
    ftr__checkpoint_open_object(out, "updates");
    for (int32_t n = 0; n < plan->graph->node_count; n++) {
        const ftr__node *node = &plan->graph->nodes[n];
        const int32_t count = ftr__checkpoint_settings_of(node, settings);
        if (count == 0) continue;
        ftr__checkpoint_open_object(out, node->name);
        ftr__checkpoint_put_string(out, "op", ftr_op_name(node->op));
        for (int32_t i = 0; i < count; i++)
            if (settings[i].value != 0.0) ftr__checkpoint_put_real(out, settings[i].name, settings[i].value);
        ftr__checkpoint_close_object(out);
    }
    ftr__checkpoint_close_object(out);
}

static ftr_status ftr__checkpoint_same_update(const ftr__checkpoint_values *updates, const ftr__node *node,
                                              const ftr__checkpoint_setting *settings, int32_t count) {
    const ftr__json *object = ftr__json_find(updates->object, node->name);
    if (!object || object->type != FTR__JSON_OBJECT)
        return ftr__error(updates->context, FTR_ERROR_STATE,
                          "%s: the checkpoint is of another run: its optimizer has no '%s', a %s", updates->path,
                          node->name, ftr_op_name(node->op));
    char section[96];
    snprintf(section, sizeof section, "plan.updates.%.64s", node->name);
    ftr__checkpoint_values values = *updates;
    values.object = object;
    values.section = section;
    ftr__checkpoint_same_string(&values, "op", ftr_op_name(node->op));
    for (int32_t i = 0; i < count; i++) ftr__checkpoint_same_real(&values, settings[i].name, settings[i].value, 0.0);
    return values.status;
}

static ftr_status ftr__checkpoint_same_settings(ftr__checkpoint_values *values, const ftr_plan *plan) {
    ftr__checkpoint_values updates = ftr__checkpoint_object(values, "updates", "plan.updates");
    int64_t nodes = 0;
    for (int32_t n = 0; n < plan->graph->node_count && updates.status == FTR_OK; n++) {
        ftr__checkpoint_setting settings[FTR__CHECKPOINT_SETTINGS];
        const int32_t count = ftr__checkpoint_settings_of(&plan->graph->nodes[n], settings);
        if (count == 0) continue;
        nodes++;
        updates.status = ftr__checkpoint_same_update(&updates, &plan->graph->nodes[n], settings, count);
    }
    if (updates.status == FTR_OK && nodes != updates.object->as.list.count)
        return ftr__error(plan->context, FTR_ERROR_STATE,
                          "%s: the checkpoint is of another run: its optimizer has %lld updates, the plan's %lld",
                          updates.path, (long long)updates.object->as.list.count, (long long)nodes);
    return updates.status;
}

/* -------------------------------------------------------------------------------------------------------- values -- */

/* "f32 [64, 8, 8, 1]" */
static const char *ftr__checkpoint_type_text(ftr_dtype dtype, const ftr_shape *shape, char text[FTR__SHAPE_TEXT + 16]) {
    char dims[FTR__SHAPE_TEXT];
    snprintf(text, FTR__SHAPE_TEXT + 16, "%s %s", ftr_dtype_name(dtype), ftr__shape_text(shape, dims));
    return text;
}

static const char *ftr__checkpoint_amp(ftr_amp amp) {
    return amp == FTR_AMP_FP16 ? "fp16" : amp == FTR_AMP_BF16 ? "bf16" : "off";
}

/* The seeds by purpose; a checkpoint has those that are not the run's `seed`. */
enum { FTR__CHECKPOINT_SEEDS = 5 };
typedef struct ftr__checkpoint_seed {
    const char *key;
    uint64_t value;
} ftr__checkpoint_seed;

static void ftr__checkpoint_seeds_of(const ftr_seeds *seeds, ftr__checkpoint_seed list[FTR__CHECKPOINT_SEEDS]) {
    list[0] = (ftr__checkpoint_seed){"seed_init", seeds->init};
    list[1] = (ftr__checkpoint_seed){"seed_order", seeds->order};
    list[2] = (ftr__checkpoint_seed){"seed_noise", seeds->noise};
    list[3] = (ftr__checkpoint_seed){"seed_augment", seeds->augment};
    list[4] = (ftr__checkpoint_seed){"seed_split", seeds->split};
}

static void ftr__checkpoint_write_seeds(const ftr_context *context, ftr__checkpoint_out *out) {
    ftr__checkpoint_seed list[FTR__CHECKPOINT_SEEDS];
    ftr__checkpoint_seeds_of(&context->seeds, list);
    for (int32_t i = 0; i < FTR__CHECKPOINT_SEEDS; i++)
        if (list[i].value != context->seed) ftr__checkpoint_put_digits(out, list[i].key, list[i].value);
}

static ftr_status ftr__checkpoint_same_seeds(ftr__checkpoint_values *values, const ftr_checkpoint_info *info) {
    ftr_context *context = values->context;
    if (info->seed != context->seed)
        return ftr__error(context, FTR_ERROR_STATE,
                          "%s: the checkpoint is of another run: its seed is %llu, the context's is %llu", info->path,
                          (unsigned long long)info->seed, (unsigned long long)context->seed);
    ftr__checkpoint_seed list[FTR__CHECKPOINT_SEEDS];
    ftr__checkpoint_seeds_of(&context->seeds, list);
    for (int32_t i = 0; i < FTR__CHECKPOINT_SEEDS && values->status == FTR_OK; i++) {
        const bool own = ftr__checkpoint_has(values, list[i].key);
        const uint64_t found = own ? ftr__checkpoint_digits(values, list[i].key) : info->seed;
        if (values->status != FTR_OK || found == list[i].value) continue;
        return ftr__error(context, FTR_ERROR_STATE,
                          "%s: the checkpoint is of another run: its %s is %llu, the context's is %llu", info->path,
                          list[i].key, (unsigned long long)found, (unsigned long long)list[i].value);
    }
    return values->status;
}

/* The inputs with their shapes, which the batch size is a part of. */
static void ftr__checkpoint_write_plan(void *user, ftr__checkpoint_out *out) {
    const ftr_plan *plan = user;
    const ftr_graph *graph = plan->graph;
    char text[FTR__SHAPE_TEXT + 16];
    ftr__checkpoint_put_integer(out, "steps", (int64_t)plan->steps_done);
    ftr__checkpoint_put_string(out, "amp", ftr__checkpoint_amp(plan->amp));
    ftr__checkpoint_write_seeds(plan->context, out);
    if (plan->accumulate > 1) ftr__checkpoint_put_integer(out, "accumulate", plan->accumulate);
    ftr__checkpoint_open_object(out, "inputs");
    for (int32_t n = 0; n < graph->node_count; n++) {
        const ftr__node *node = &graph->nodes[n];
        if (node->op != FTR_OP_input || node->dead) continue;
        const ftr__value *value = &graph->values[node->first_out];
        ftr__checkpoint_put_string(out, node->name, ftr__checkpoint_type_text(value->dtype, &value->shape, text));
    }
    ftr__checkpoint_close_object(out);
    ftr__checkpoint_write_settings(plan, out);
}

static ftr_status ftr__checkpoint_same_inputs(ftr__checkpoint_values *values, const ftr_plan *plan) {
    ftr__checkpoint_values list = ftr__checkpoint_object(values, "inputs", "plan.inputs");
    if (list.status != FTR_OK) return list.status;
    int64_t count = 0;
    char text[FTR__SHAPE_TEXT + 16];
    for (int32_t n = 0; n < plan->graph->node_count && list.status == FTR_OK; n++) {
        const ftr__node *node = &plan->graph->nodes[n];
        if (node->op != FTR_OP_input || node->dead) continue;
        count++;
        const ftr__value *value = &plan->graph->values[node->first_out];
        if (!ftr__checkpoint_has(&list, node->name))
            return ftr__error(plan->context, FTR_ERROR_NAME,
                              "%s: the checkpoint is of another model: it has no input '%.60s'", values->path,
                              node->name);
        ftr__checkpoint_same_string(&list, node->name, ftr__checkpoint_type_text(value->dtype, &value->shape, text));
    }
    if (list.status == FTR_OK && count != list.object->as.list.count)
        return ftr__error(plan->context, FTR_ERROR_NAME,
                          "%s: the checkpoint is of another model: it has %lld inputs, the plan has %lld", values->path,
                          (long long)list.object->as.list.count, (long long)count);
    return list.status;
}

/* Compares what is no tensor, first what says most: seed, inputs, weights, settings of the optimizer. Gives the number
 * of steps to go on from. */
static ftr_status ftr__checkpoint_same_plan(const ftr_checkpoint *checkpoint, const ftr_plan *plan,
                                            const ftr__checkpoint_section *weights, uint64_t *steps) {
    const ftr_checkpoint_info *info = &checkpoint->info;
    ftr__checkpoint_values values = ftr__checkpoint_values_of(checkpoint, "plan");
    if (ftr__checkpoint_same_seeds(&values, info) != FTR_OK) return plan->context->status;
    *steps = (uint64_t)ftr__checkpoint_integer(&values, "steps", 0, INT64_MAX);
    if (ftr__checkpoint_has(&values, "amp"))
        ftr__checkpoint_same_string(&values, "amp", ftr__checkpoint_amp(plan->amp));
    else if (values.status == FTR_OK && plan->amp != FTR_AMP_OFF) /* written before there was mixed precision */
        values.status =
            ftr__error(plan->context, FTR_ERROR_STATE,
                       "%s: the checkpoint is of another run: it is without mixed precision, the plan's is %s",
                       info->path, ftr__checkpoint_amp(plan->amp));
    ftr__checkpoint_same_real(&values, "accumulate", (double)plan->accumulate, 1.0);
    if (values.status == FTR_OK) values.status = ftr__checkpoint_same_inputs(&values, plan);
    if (values.status == FTR_OK) values.status = ftr__checkpoint_match(checkpoint, weights);
    return values.status == FTR_OK ? ftr__checkpoint_same_settings(&values, plan) : values.status;
}

ftr_status ftr__checkpoint_plan_sections(ftr_plan *plan, ftr__arena *arena,
                                         ftr__checkpoint_section sections[FTR__CHECKPOINT_PLAN_SECTIONS]) {
    const ftr_status status = ftr__checkpoint_variables(plan->source, arena, "weights", &sections[0]);
    if (status != FTR_OK) return status;
    sections[0].user = plan;
    sections[0].copy = ftr__checkpoint_copy_weights;
    sections[0].put = ftr__checkpoint_put_weight;
    sections[2] =
        (ftr__checkpoint_section){.name = "plan", .user = plan, .write = ftr__checkpoint_write_plan, .count = 0};
    return ftr__checkpoint_state_section(plan, arena, &sections[1]);
}

/* ----------------------------------------------------------------------------------------------------- restoring -- */

static ftr_status ftr__checkpoint_match_tensor(const ftr_checkpoint *checkpoint, const ftr__checkpoint_section *section,
                                               const ftr__checkpoint_tensor *tensor, const ftr_safetensors *file) {
    ftr_safetensors_entry entry;
    ftr_context *context = checkpoint->context;
    const char *path = checkpoint->info.path;
    char text[FTR__SHAPE_TEXT + 16], dims[FTR__SHAPE_TEXT];
    if (!ftr_safetensors_find(file, tensor->name, &entry))
        return ftr__error(context, FTR_ERROR_NAME,
                          "%s: the checkpoint is of another model or optimizer: %s: '%.100s' is missing, expected %s",
                          path, section->name, tensor->name,
                          ftr__checkpoint_type_text(tensor->dtype, &tensor->shape, text));
    bool same = entry.rank == tensor->shape.rank;
    for (int32_t i = 0; same && i < entry.rank; i++) same = entry.dim[i] == tensor->shape.dim[i];
    if (same && entry.dtype == tensor->dtype) return FTR_OK;
    return ftr__error(context, same ? FTR_ERROR_DTYPE : FTR_ERROR_SHAPE,
                      "%s: the checkpoint is of another model or optimizer: %s: '%.100s' is %s %s, expected %s", path,
                      section->name, tensor->name, entry.dtype_name,
                      ftr__dims_text(entry.rank, entry.dim, dims, sizeof dims),
                      ftr__checkpoint_type_text(tensor->dtype, &tensor->shape, text));
}

static bool ftr__checkpoint_section_has(const ftr__checkpoint_section *section, const char *name) {
    for (int32_t i = 0; i < section->count; i++)
        if (strcmp(section->tensors[i].name, name) == 0) return true;
    return false;
}

ftr_status ftr__checkpoint_match(const ftr_checkpoint *checkpoint, const ftr__checkpoint_section *section) {
    if (section->count == 0) return FTR_OK;
    const ftr_safetensors *file = ftr_checkpoint_tensors(checkpoint, section->name);
    if (!file)
        return ftr__error(checkpoint->context, FTR_ERROR_STATE, "%s: the checkpoint has no %s.safetensors",
                          checkpoint->info.path, section->name);
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < section->count && status == FTR_OK; i++)
        status = ftr__checkpoint_match_tensor(checkpoint, section, &section->tensors[i], file);
    if (status != FTR_OK || ftr_safetensors_count(file) == section->count) return status;
    ftr_safetensors_entry entry;
    for (int64_t i = 0; ftr_safetensors_at(file, i, &entry); i++)
        if (!ftr__checkpoint_section_has(section, entry.name)) break;
    return ftr__error(checkpoint->context, FTR_ERROR_NAME,
                      "%s: the checkpoint is of another model or optimizer: %s: '%.100s' is in it, and not here",
                      checkpoint->info.path, section->name, entry.name);
}

ftr_status ftr__checkpoint_put(const ftr_checkpoint *checkpoint, const ftr__checkpoint_section *section,
                               unsigned char *scratch) {
    const ftr_safetensors *file = ftr_checkpoint_tensors(checkpoint, section->name);
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < section->count && status == FTR_OK; i++) {
        const ftr__checkpoint_tensor *tensor = &section->tensors[i];
        ftr_safetensors_entry entry;
        if (!ftr_safetensors_find(file, tensor->name, &entry)) continue; /* all are there: they were compared */
        if (tensor->permuted)
            ftr__weight_transpose(scratch, entry.data, tensor->shape.dim[0], tensor->shape.dim[1], tensor->window,
                                  ftr_dtype_size(tensor->dtype));
        status = section->put(section->user, i, tensor->permuted ? scratch : entry.data);
    }
    return status;
}

static size_t ftr__checkpoint_largest_permuted(const ftr__checkpoint_section *section) {
    size_t bytes = 0;
    for (int32_t i = 0; i < section->count; i++)
        if (section->tensors[i].permuted && section->tensors[i].bytes > bytes) bytes = section->tensors[i].bytes;
    return bytes;
}

static ftr_status ftr__checkpoint_restore_sections(const ftr_checkpoint *checkpoint, ftr_plan *plan, ftr__arena *arena,
                                                   const ftr__checkpoint_section *more, int32_t more_count) {
    ftr__checkpoint_section own[FTR__CHECKPOINT_PLAN_SECTIONS];
    uint64_t steps = 0;
    ftr_status status = ftr__checkpoint_plan_sections(plan, arena, own);
    if (status == FTR_OK) status = ftr__checkpoint_same_plan(checkpoint, plan, &own[0], &steps);
    if (status != FTR_OK) return status;
    const int32_t count = FTR__CHECKPOINT_PLAN_SECTIONS + more_count;
    size_t bytes = 0;
    for (int32_t i = 0; i < count && status == FTR_OK; i++) {
        const ftr__checkpoint_section *section =
            i < FTR__CHECKPOINT_PLAN_SECTIONS ? &own[i] : &more[i - FTR__CHECKPOINT_PLAN_SECTIONS];
        const size_t largest = ftr__checkpoint_largest_permuted(section);
        status = ftr__checkpoint_match(checkpoint, section);
        if (largest > bytes) bytes = largest;
    }
    if (status != FTR_OK) return status;
    unsigned char *scratch = ftr__arena_alloc(arena, bytes);
    if (!scratch) return ftr__checkpoint_no_memory(plan->context, bytes);
    for (int32_t i = 0; i < FTR__CHECKPOINT_PLAN_SECTIONS && status == FTR_OK; i++)
        status = ftr__checkpoint_put(checkpoint, &own[i], scratch);
    for (int32_t i = 0; i < more_count && status == FTR_OK; i++)
        status = ftr__checkpoint_put(checkpoint, &more[i], scratch);
    if (status == FTR_OK) plan->steps_done = steps;
    return status;
}

ftr_status ftr__checkpoint_restore(const ftr_checkpoint *checkpoint, ftr_plan *plan,
                                   const ftr__checkpoint_section *sections, int32_t count) {
    ftr__arena arena;
    ftr_status status = ftr__refuse_average(plan, "ftr_checkpoint_restore");
    if (status != FTR_OK) return status;
    ftr__arena_init(&arena, plan->context);
    status = ftr__checkpoint_restore_sections(checkpoint, plan, &arena, sections, count);
    ftr__arena_free(&arena);
    return status;
}

ftr_status ftr_checkpoint_restore(const ftr_checkpoint *checkpoint, ftr_plan *plan) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    if (!checkpoint)
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "ftr_checkpoint_restore: checkpoint is NULL");
    return ftr__checkpoint_restore(checkpoint, plan, NULL, 0);
}

ftr_status ftr_checkpoint_load(ftr_plan *plan, const char *directory, ftr_checkpoint_point *point) {
    if (point) *point = (ftr_checkpoint_point){.step = -1};
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    ftr_checkpoint *checkpoint = NULL;
    ftr_status status = ftr_checkpoint_find(plan->context, directory, &checkpoint);
    if (status != FTR_OK || !checkpoint) return status;
    status = ftr__checkpoint_restore(checkpoint, plan, NULL, 0);
    if (status == FTR_OK && point) *point = checkpoint->info.point;
    ftr_checkpoint_close(checkpoint);
    return status;
}
