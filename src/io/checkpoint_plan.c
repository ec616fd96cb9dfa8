/* What of a plan and its graph goes into a checkpoint, and how it gets back. */
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

/* ----------------------------------------------------------------------------------------------- optimizer's state -- */

/* The variable that a state belongs to ("fc.weight" of "fc.weight.exp_avg") if its layout is that of a convolution
 * weight; NULL otherwise. */
static const ftr__variable *ftr__checkpoint_conv_of(const ftr_graph *graph, const char *state, const ftr_shape *shape) {
    for (int32_t i = 0; i < graph->variable_count; i++) {
        const ftr__variable *variable = &graph->variables[i];
        const ftr__value *value = &graph->values[variable->value];
        const char *name = graph->nodes[value->node].name;
        const size_t length = strlen(name);
        if (variable->conv_weight && shape->rank > 2 && ftr_shape_equal(shape, &value->shape) &&
            strncmp(state, name, length) == 0 && state[length] == '.')
            return variable;
    }
    return NULL;
}

/* States are the buffers of the plan's own graph that are none of the model's. */
static bool ftr__checkpoint_is_state(const ftr__node *node) {
    return node->op == FTR_OP_buffer && node->variable < 0 && !node->dead;
}

typedef struct ftr__checkpoint_states {
    ftr_plan *plan;
    int32_t *values; /* ids, in the order of declaration */
    const ftr__checkpoint_tensor *tensors;
    int32_t count;
} ftr__checkpoint_states;

static unsigned char *ftr__checkpoint_state_memory(const ftr__checkpoint_states *states, int32_t index) {
    const ftr__slot *slot = &states->plan->slots[states->values[index]];
    return states->plan->memory[slot->place] + slot->offset;
}

static ftr_status ftr__checkpoint_copy_states(void *user, unsigned char *to) {
    const ftr__checkpoint_states *states = user;
    ftr_context *context = states->plan->context;
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < states->count && status == FTR_OK; i++)
        status = context->backend->download(context, context->backend_state, to + states->tensors[i].offset,
                                            ftr__checkpoint_state_memory(states, i), states->tensors[i].bytes);
    return status;
}

static ftr_status ftr__checkpoint_put_state(void *user, int32_t index, const void *data) {
    const ftr__checkpoint_states *states = user;
    ftr_context *context = states->plan->context;
    return context->backend->upload(context, context->backend_state, ftr__checkpoint_state_memory(states, index), data,
                                    states->tensors[index].bytes);
}

static ftr__checkpoint_tensor ftr__checkpoint_state(const ftr_plan *plan, int32_t value, size_t offset) {
    const ftr__value *v = &plan->graph->values[value];
    ftr__checkpoint_tensor tensor = {.name = plan->graph->nodes[v->node].name,
                                     .dtype = v->dtype,
                                     .shape = v->shape,
                                     .bytes = (size_t)ftr_shape_count(&v->shape) * ftr_dtype_size(v->dtype),
                                     .offset = offset,
                                     .window = 1};
    const ftr__variable *conv = ftr__checkpoint_conv_of(plan->source, tensor.name, &v->shape);
    if (!conv) return tensor;
    const ftr__weight weight = ftr__weight_of(plan->source, (int32_t)(conv - plan->source->variables));
    tensor.shape = weight.shape;
    tensor.permuted = weight.permuted;
    tensor.window = weight.window;
    return tensor;
}

static ftr_status ftr__checkpoint_state_section(ftr_plan *plan, ftr__arena *arena, ftr__checkpoint_section *section) {
    const ftr_graph *graph = plan->graph;
    int32_t count = 0;
    for (int32_t n = 0; n < graph->node_count; n++) count += ftr__checkpoint_is_state(&graph->nodes[n]);
    const size_t size = (size_t)count * sizeof(ftr__checkpoint_tensor);
    ftr__checkpoint_states *states = ftr__arena_alloc(arena, sizeof *states);
    ftr__checkpoint_tensor *tensors = ftr__arena_alloc(arena, size);
    int32_t *values = ftr__arena_alloc(arena, (size_t)count * sizeof *values);
    if (!states || !tensors || !values) return ftr__checkpoint_no_memory(plan->context, size);
    *states = (ftr__checkpoint_states){.plan = plan, .values = values, .tensors = tensors};
    size_t bytes = 0;
    for (int32_t n = 0; n < graph->node_count; n++) {
        const ftr__node *node = &graph->nodes[n];
        if (!ftr__checkpoint_is_state(node)) continue;
        values[states->count] = node->first_out;
        tensors[states->count] = ftr__checkpoint_state(plan, node->first_out, bytes);
        bytes += (tensors[states->count].bytes + FTR__ALIGNMENT - 1) / FTR__ALIGNMENT * FTR__ALIGNMENT;
        states->count++;
    }
    *section = (ftr__checkpoint_section){.name = "optimizer",
                                         .tensors = tensors,
                                         .count = count,
                                         .bytes = bytes,
                                         .user = states,
                                         .copy = ftr__checkpoint_copy_states,
                                         .put = ftr__checkpoint_put_state};
    return FTR_OK;
}

ftr_status ftr__checkpoint_applied_steps(ftr_plan *plan, int64_t *steps) {
    const ftr_graph *graph = plan->graph;
    *steps = 0;
    for (int32_t n = 0; n < graph->node_count; n++) {
        const ftr__node *node = &graph->nodes[n];
        if (!ftr__checkpoint_is_state(node) || strcmp(node->name, "optimizer.step") != 0) continue;
        const ftr__slot *slot = &plan->slots[node->first_out];
        return plan->context->backend->download(plan->context, plan->context->backend_state, steps,
                                                plan->memory[slot->place] + slot->offset, sizeof *steps);
    }
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------------------- values -- */

/* "f32 [64, 8, 8, 1]" */
static const char *ftr__checkpoint_type_text(ftr_dtype dtype, const ftr_shape *shape, char text[FTR__SHAPE_TEXT + 16]) {
    char dims[FTR__SHAPE_TEXT];
    snprintf(text, FTR__SHAPE_TEXT + 16, "%s %s", ftr_dtype_name(dtype), ftr__shape_text(shape, dims));
    return text;
}

/* The inputs with their shapes, which the batch size is a part of. */
static void ftr__checkpoint_write_plan(void *user, ftr__checkpoint_out *out) {
    const ftr_plan *plan = user;
    const ftr_graph *graph = plan->graph;
    char text[FTR__SHAPE_TEXT + 16];
    ftr__checkpoint_put_integer(out, "steps", (int64_t)plan->steps_done);
    ftr__checkpoint_open_object(out, "inputs");
    for (int32_t n = 0; n < graph->node_count; n++) {
        const ftr__node *node = &graph->nodes[n];
        if (node->op != FTR_OP_input || node->dead) continue;
        const ftr__value *value = &graph->values[node->first_out];
        ftr__checkpoint_put_string(out, node->name, ftr__checkpoint_type_text(value->dtype, &value->shape, text));
    }
    ftr__checkpoint_close_object(out);
}

static ftr_status ftr__checkpoint_same_inputs(ftr__checkpoint_values *values, const ftr_plan *plan) {
    const ftr__json *inputs = ftr__json_find(values->object, "inputs");
    if (!inputs || inputs->type != FTR__JSON_OBJECT)
        return ftr__error(plan->context, FTR_ERROR_FORMAT,
                          "%s/" FTR__CHECKPOINT_JSON ": plan.inputs: found %s, expected an object", values->path,
                          inputs ? ftr__json_type_text(inputs) : "nothing");
    ftr__checkpoint_values list = *values;
    list.section = "plan.inputs";
    list.object = inputs;
    int64_t count = 0;
    char text[FTR__SHAPE_TEXT + 16];
    for (int32_t n = 0; n < plan->graph->node_count; n++) {
        const ftr__node *node = &plan->graph->nodes[n];
        if (node->op != FTR_OP_input || node->dead) continue;
        count++;
        const ftr__value *value = &plan->graph->values[node->first_out];
        if (!ftr__json_find(inputs, node->name))
            return ftr__error(plan->context, FTR_ERROR_NAME,
                              "%s: the checkpoint is of another model: it has no input '%.60s'", values->path,
                              node->name);
        ftr__checkpoint_same_string(&list, node->name, ftr__checkpoint_type_text(value->dtype, &value->shape, text));
    }
    if (list.status == FTR_OK && count != inputs->as.list.count)
        return ftr__error(plan->context, FTR_ERROR_NAME,
                          "%s: the checkpoint is of another model: it has %lld inputs, the plan has %lld", values->path,
                          (long long)inputs->as.list.count, (long long)count);
    return list.status;
}

/* Compares what is no tensor; gives the number of steps to go on from. */
static ftr_status ftr__checkpoint_same_plan(const ftr_checkpoint *checkpoint, const ftr_plan *plan, uint64_t *steps) {
    const ftr_checkpoint_info *info = &checkpoint->info;
    if (info->seed != plan->context->seed)
        return ftr__error(plan->context, FTR_ERROR_STATE,
                          "%s: the checkpoint is of another run: its seed is %llu, the context's is %llu", info->path,
                          (unsigned long long)info->seed, (unsigned long long)plan->context->seed);
    ftr__checkpoint_values values = ftr__checkpoint_values_of(checkpoint, "plan");
    *steps = (uint64_t)ftr__checkpoint_integer(&values, "steps", 0, INT64_MAX);
    return values.status == FTR_OK ? ftr__checkpoint_same_inputs(&values, plan) : values.status;
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
                      "%s: the checkpoint is of another model or optimizer: %s: '%.100s' is not there any more",
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
    ftr_status status = ftr__checkpoint_same_plan(checkpoint, plan, &steps);
    if (status == FTR_OK) status = ftr__checkpoint_plan_sections(plan, arena, own);
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
    ftr__arena_init(&arena, plan->context);
    const ftr_status status = ftr__checkpoint_restore_sections(checkpoint, plan, &arena, sections, count);
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
