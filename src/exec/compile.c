#include "autodiff/autodiff.h"
#include "optim/optim.h"
#include "passes/plan.h"

#include <string.h>

void ftr_plan_destroy(ftr_plan *plan) {
    if (!plan) return;
    ftr_context *context = plan->context;
    if (context->backend->forget_plan) context->backend->forget_plan(context, context->backend_state, plan);
    for (int place = FTR__PLACE_STATE; place < FTR__PLACE_COUNT; place++)
        if (plan->memory[place])
            context->backend->release(context, context->backend_state, plan->memory[place], plan->bytes[place]);
    if (plan->workspace)
        context->backend->release(context, context->backend_state, plan->workspace, plan->workspace_bytes);
    if (plan->packed) context->backend->release(context, context->backend_state, plan->packed, plan->packed_bytes);
    ftr_graph_destroy(plan->graph);
    ftr__arena_free(&plan->arena);
    ftr__release(context, plan, sizeof *plan);
}

static ftr_status ftr__compile_out_of_memory(const ftr_plan *plan, size_t bytes) {
    return ftr__out_of_memory(plan->context, "compile", bytes);
}

/* ----------------------------------------------------------------------------------------------- the description -- */

/* `index` is -1 for a field that is no list. */
static ftr_status ftr__check_tensor(const ftr_plan *plan, ftr_tensor tensor, const char *field, int32_t index) {
    if (ftr_is_valid(tensor) && tensor.graph == plan->source) return FTR_OK;
    const char *fault = ftr_is_valid(tensor) ? "belongs to another graph" : "is a null tensor";
    if (index < 0) return ftr__error(plan->context, FTR_ERROR_INVALID_TENSOR, "compile: %s %s", field, fault);
    return ftr__error(plan->context, FTR_ERROR_INVALID_TENSOR, "compile: %s[%d] %s", field, index, fault);
}

static ftr_status ftr__check_list(const ftr_plan *plan, const ftr_tensor *list, int32_t count, const char *field) {
    if (count < 0 || (count > 0 && !list))
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "compile: %s is %s with a count of %d", field,
                          list ? "given" : "NULL", count);
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < count && !status; i++) status = ftr__check_tensor(plan, list[i], field, i);
    return status;
}

/* What needs no graph. */
static ftr_status ftr__check_settings(const ftr_plan *plan, const ftr_compile_desc *desc) {
    const ftr_status bad = FTR_ERROR_INVALID_ARGUMENT;
    if (desc->no_fuse & ~(uint32_t)FTR_FUSE_ALL)
        return ftr__error(plan->context, bad, "compile: no_fuse is %u, expected fusions that add up to %d at most",
                          (unsigned)desc->no_fuse, (int)FTR_FUSE_ALL);
    if (desc->accumulate < 0)
        return ftr__error(plan->context, bad, "compile: accumulate is %lld, expected 0 or more",
                          (long long)desc->accumulate);
    if (desc->accumulate > 1 && !desc->optimizer)
        return ftr__error(plan->context, bad, "compile: accumulate is %lld without an optimizer",
                          (long long)desc->accumulate);
    const ftr_status status = desc->average ? ftr__average_check(plan->context, desc->average) : FTR_OK;
    if (!status && desc->average && desc->average->kind != FTR_AVERAGE_NONE && !desc->optimizer)
        return ftr__error(plan->context, bad, "compile: average is given without an optimizer");
    return status;
}

static ftr_status ftr__check_desc(const ftr_plan *plan, const ftr_compile_desc *desc) {
    if (desc->mode != FTR_MODE_TRAIN && desc->mode != FTR_MODE_EVAL)
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "compile: mode is %d, expected one of ftr_mode",
                          (int)desc->mode);
    if ((int)desc->amp < (int)FTR_AMP_OFF || desc->amp > FTR_AMP_BF16)
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "compile: amp is %d, expected one of ftr_amp",
                          (int)desc->amp);
    if ((int)desc->debug_nonfinite < (int)FTR_NONFINITE_ALLOWED || desc->debug_nonfinite > FTR_NONFINITE_REPORTED_ALL)
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT,
                          "compile: debug_nonfinite is %d, expected one of ftr_nonfinite", (int)desc->debug_nonfinite);
    ftr_status status = ftr__check_list(plan, desc->outputs, desc->output_count, "outputs");
    if (!status) status = ftr__check_list(plan, desc->gradients_of, desc->gradient_count, "gradients_of");
    if (status) return status;
    const bool has_loss = desc->loss.graph || desc->loss.id;
    if (has_loss)
        status = ftr__check_tensor(plan, desc->loss, "loss", -1);
    else if (desc->gradient_count || desc->optimizer)
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "compile: %s is given without a loss",
                          desc->optimizer ? "optimizer" : "gradients_of");
    else if (!desc->output_count)
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "compile: neither loss nor outputs is given");
    if (!status && desc->recompute_count != 0 && (desc->recompute_count < 0 || !desc->recompute))
        status = ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "compile: recompute is %s with a count of %d",
                            desc->recompute ? "given" : "NULL", (int)desc->recompute_count);
    if (!status) status = ftr__recompute_check(plan->source, desc->recompute, desc->recompute_count);
    if (!status && desc->optimizer) status = ftr__optimizer_check(plan->source, desc->optimizer);
    if (!status) status = ftr__check_settings(plan, desc);
    if (!status && desc->scaler) status = ftr__scaler_check(plan->context, desc->scaler);
    return status;
}

static ftr_status ftr__take_desc(ftr_plan *plan, const ftr_compile_desc *desc) {
    const ftr_graph *graph = plan->graph;
    plan->mode = desc->mode;
    plan->amp = desc->amp;
    plan->packs = !desc->memory_budget;
    plan->loss = desc->loss.id;
    plan->debug_nonfinite = desc->debug_nonfinite;
    plan->cumulative_statistics = desc->cumulative_statistics;
    plan->accumulate = desc->accumulate > 1 ? desc->accumulate : 1;
    plan->scaler_desc = desc->scaler ? *desc->scaler : ftr_scaler_defaults();
    plan->kept = ftr__arena_alloc(&plan->arena, ((size_t)desc->output_count + 4) * sizeof *plan->kept);
    plan->renamed = ftr__arena_alloc(&plan->arena, (size_t)graph->value_count * sizeof *plan->renamed);
    if (!plan->kept || !plan->renamed)
        return ftr__compile_out_of_memory(plan, (size_t)graph->value_count * sizeof *plan->renamed);
    if (plan->loss) plan->kept[plan->kept_count++] = plan->loss;
    for (int32_t i = 0; i < desc->output_count; i++) plan->kept[plan->kept_count++] = desc->outputs[i].id;
    plan->renamed_count = graph->value_count;
    for (int32_t v = 0; v < graph->value_count; v++) plan->renamed[v] = v;
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------ autodiff -- */

static bool ftr__scales_loss(const ftr_plan *plan, const ftr_compile_desc *desc) {
    const ftr_scaling scaling = plan->scaler_desc.scaling;
    return scaling == FTR_SCALING_AUTO ? desc->amp == FTR_AMP_FP16 : scaling != FTR_SCALING_OFF;
}

static bool ftr__wants_gradient(const ftr_plan *plan, const ftr_compile_desc *desc, int32_t value) {
    for (int32_t i = 0; i < desc->gradient_count; i++)
        if (plan->renamed[desc->gradients_of[i].id] == value) return true;
    return false;
}

static bool ftr__already_wanted(const ftr_plan *plan, int32_t value) {
    for (int32_t i = 0; i < plan->gradient_count; i++)
        if (plan->wrt[i] == value) return true;
    return false;
}

static ftr_status ftr__collect_wrt(ftr_plan *plan, const ftr_compile_desc *desc, bool **required) {
    const ftr_graph *graph = plan->graph;
    const size_t most = (size_t)graph->variable_count + (size_t)desc->gradient_count + 1;
    plan->wrt = ftr__arena_alloc(&plan->arena, most * sizeof *plan->wrt);
    plan->gradients = ftr__arena_alloc(&plan->arena, most * sizeof *plan->gradients);
    *required = ftr__arena_alloc(&plan->arena, most);
    if (!plan->wrt || !plan->gradients || !*required) return ftr__compile_out_of_memory(plan, most * sizeof *plan->wrt);
    for (int32_t i = 0; i < graph->variable_count; i++) {
        const int32_t value = graph->variables[i].value;
        const bool asked = ftr__wants_gradient(plan, desc, value);
        const bool trained = desc->optimizer && !graph->variables[i].frozen;
        if (!graph->variables[i].trainable || (!trained && !asked)) continue;
        (*required)[plan->gradient_count] = asked;
        plan->wrt[plan->gradient_count++] = value;
    }
    for (int32_t i = 0; i < desc->gradient_count; i++) {
        const int32_t value = plan->renamed[desc->gradients_of[i].id];
        if (ftr__already_wanted(plan, value)) continue;
        const ftr_dtype dtype = graph->values[value].dtype;
        if (!ftr__is_float(dtype))
            return ftr__error(plan->context, FTR_ERROR_DTYPE, "gradient of '%s': dtype is %s, expected floating point",
                              ftr_name_of(desc->gradients_of[i]), ftr_dtype_name(dtype));
        (*required)[plan->gradient_count] = true;
        plan->wrt[plan->gradient_count++] = value;
    }
    return FTR_OK;
}

/* Whether the optimizer changes a value of plan->wrt. */
static bool ftr__is_trained(const ftr_graph *graph, int32_t value) {
    const ftr__node *node = &graph->nodes[graph->values[value].node];
    return node->op == FTR_OP_parameter && !graph->variables[node->variable].frozen;
}

static ftr_status ftr__nothing_to_train(const ftr_plan *plan) {
    int32_t frozen = 0;
    for (int32_t i = 0; i < plan->graph->variable_count; i++) frozen += plan->graph->variables[i].frozen;
    if (frozen == 0)
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT,
                          "compile: optimizer is given, but the loss depends on no parameter");
    return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT,
                      "compile: optimizer is given, but the loss depends on no parameter that is not frozen (%d %s)",
                      frozen, frozen == 1 ? "is" : "are");
}

/* Adds the gradients of what is trained up over a group of micro-batches; the sums take their place. */
static ftr_status ftr__sum_gradients(ftr_plan *plan, const int32_t *parameters, int32_t *gradients, int32_t count) {
    const ftr_status status =
        ftr__accumulation_emit(plan->graph, &plan->arena, parameters, gradients, count, plan->accumulate);
    for (int32_t i = 0; i < plan->gradient_count && !status; i++)
        for (int32_t k = 0; k < count; k++)
            if (plan->wrt[i] == parameters[k]) plan->gradients[i] = gradients[k];
    return status;
}

/* What the optimizer trains, or else all that gradients were asked of. */
static ftr_status ftr__collect_trained(ftr_plan *plan, const ftr_compile_desc *desc, ftr__trained *trained) {
    const size_t bytes = (size_t)plan->gradient_count * sizeof(int32_t);
    int32_t *parameters = ftr__arena_alloc(&plan->arena, bytes), *gradients = ftr__arena_alloc(&plan->arena, bytes);
    if (!parameters || !gradients) return ftr__compile_out_of_memory(plan, bytes);
    int32_t count = 0;
    for (int32_t i = 0; i < plan->gradient_count; i++) {
        if (!plan->gradients[i] || (desc->optimizer && !ftr__is_trained(plan->graph, plan->wrt[i]))) continue;
        parameters[count] = plan->wrt[i];
        gradients[count++] = plan->gradients[i];
    }
    *trained = (ftr__trained){.parameters = parameters, .gradients = gradients, .count = count};
    if (count == 0 && desc->optimizer) return ftr__nothing_to_train(plan);
    return plan->accumulate > 1 ? ftr__sum_gradients(plan, parameters, gradients, count) : FTR_OK;
}

/* The factor of gradients that nothing else scales: it makes a mean of the sum over a group of micro-batches. */
static int32_t ftr__emit_mean(const ftr_plan *plan) {
    const float factor = (float)(1.0 / (double)plan->accumulate);
    return plan->accumulate > 1 ? ftr_constant(plan->graph, FTR_F32, ftr_scalar_shape(), &factor).id : 0;
}

static ftr_status ftr__emit_average(ftr_plan *plan, const ftr_compile_desc *desc, const ftr__trained *trained) {
    if (!desc->average || desc->average->kind == FTR_AVERAGE_NONE) return FTR_OK;
    const ftr__averaged of = {.parameters = trained->parameters,
                              .count = trained->count,
                              .applied = plan->applied_steps,
                              .found_inf = trained->found_inf};
    return ftr__average_emit(plan->graph, &plan->arena, desc->average, &of, &plan->averages);
}

/* All behind the sums of gradients runs once a group of micro-batches, but for the norm with loss scaling: it tells running
 * statistics whether the gradients are finite so far. */
static void ftr__set_stages(const ftr_plan *plan, int32_t first) {
    const ftr_graph *graph = plan->graph;
    for (int32_t n = first; n < graph->node_count; n++) {
        ftr__node *node = &graph->nodes[n];
        const bool measures = node->op == FTR_OP_grad_norm && plan->scaler.scale;
        if (node->stage == FTR__STAGE_COMPUTE) node->stage = measures ? FTR__STAGE_MEASURE : FTR__STAGE_UPDATE;
    }
}

/* Behind the gradients: their sums over micro-batches, their norm, where something needs it, the optimizer's step, the
 * scale's, the averages of the weights. */
static ftr_status ftr__emit_step(ftr_plan *plan, const ftr_compile_desc *desc) {
    ftr_graph *graph = plan->graph;
    const double clip_norm = desc->optimizer ? desc->optimizer->clip_norm : 0.0;
    ftr__scaler *scaler = &plan->scaler;
    ftr__trained trained;
    ftr_status status = ftr__collect_trained(plan, desc, &trained);
    const int32_t first = graph->node_count;
    const ftr_op_attr measure = {.grad_norm = {.max_norm = clip_norm, .divisor = (double)plan->accumulate}};
    if (!status && (scaler->scale || clip_norm > 0.0))
        status = ftr__scaler_measure(graph, &plan->arena, scaler, trained.gradients, trained.count, &measure);
    if (status) return status;
    if (scaler->norm) {
        trained.grad_scale = scaler->factor;
        trained.found_inf = scaler->scale ? scaler->found_inf : 0;
        plan->kept[plan->kept_count++] = scaler->norm; /* what ftr_step() reports */
        plan->kept[plan->kept_count++] = scaler->found_inf;
        plan->kept[plan->kept_count++] = scaler->used;
    } else {
        trained.grad_scale = ftr__emit_mean(plan);
    }
    if (desc->optimizer)
        status = ftr__optimizer_emit(graph, &plan->arena, desc->optimizer, &trained, &plan->learning_rate,
                                     &plan->applied_steps);
    if (!status) status = ftr__scaler_end(graph, scaler, &plan->scaler_desc);
    if (!status) status = ftr__emit_average(plan, desc, &trained);
    if (!status) ftr__set_stages(plan, first);
    return status;
}

static ftr_status ftr__pass_autodiff(ftr_plan *plan, const ftr_compile_desc *desc) {
    if (!desc->optimizer && !desc->gradient_count) return FTR_OK;
    ftr_graph *graph = plan->graph;
    const int32_t forward = graph->node_count;
    bool *required;
    ftr_status status = ftr__collect_wrt(plan, desc, &required);
    if (status) return status;
    if (ftr__scales_loss(plan, desc)) ftr__scaler_begin(graph, &plan->scaler);
    const ftr__differentiation of = {.loss = plan->loss,
                                     .wrt = plan->wrt,
                                     .count = plan->gradient_count,
                                     .required = required,
                                     .gradients = plan->gradients,
                                     .seed = plan->scaler.scale,
                                     .marks = desc->amp != FTR_AMP_OFF};
    status = ftr__differentiate(graph, &plan->arena, &of);
    if (!status) status = ftr__emit_step(plan, desc);
    for (int32_t n = forward; n < graph->node_count; n++) graph->nodes[n].backward = true;
    return status && graph->status ? ftr__error(plan->context, status, "%s", graph->message) : status;
}

/* ------------------------------------------------------------------------------------------------------- scratch -- */

static ftr_view ftr__shape_view(const ftr_plan *plan, int32_t value) {
    if (!value) return (ftr_view){.data = NULL, .dtype = FTR_DTYPE_NONE};
    const ftr__value *v = &plan->graph->values[value];
    return (ftr_view){.dtype = v->dtype, .shape = v->shape, .count = ftr_shape_count(&v->shape)};
}

/* Of the op's random numbers, if it draws any. */
static uint64_t ftr__seed_of(const ftr_context *context, ftr_op op) {
    return op == FTR_OP_mix_draw ? context->seeds.augment : context->seeds.noise;
}

/* A node's call without memory; `view` has room for its inputs and outputs. */
static ftr_kernel_call ftr__call_of(const ftr_plan *plan, const ftr__node *node, ftr_view *view) {
    for (int32_t i = 0; i < node->in_count; i++) view[i] = ftr__shape_view(plan, node->in[i]);
    for (int32_t i = 0; i < node->out_count; i++) view[node->in_count + i] = ftr__shape_view(plan, node->first_out + i);
    return (ftr_kernel_call){.context = plan->context,
                             .backend = plan->context->backend_state,
                             .op = node->op,
                             .name = node->name,
                             .attr = &node->attr,
                             .in = view,
                             .in_count = node->in_count,
                             .out = view + node->in_count,
                             .out_count = node->out_count,
                             .seed = ftr__seed_of(plan->context, node->op)};
}

/* What each node of the order needs besides its inputs and outputs: memory is planned with it. A reshape may be no more than a
 * view; what lacks a kernel is reported when the steps are made. */
static ftr_status ftr__find_scratch(ftr_plan *plan) {
    const size_t count = (size_t)plan->order_count + 1;
    size_t views = 1;
    for (int32_t s = 0; s < plan->order_count; s++) {
        const ftr__node *node = &plan->graph->nodes[plan->order[s]];
        const size_t needed = (size_t)(node->in_count + node->out_count);
        if (needed > views) views = needed;
    }
    plan->scratch = ftr__arena_alloc(&plan->arena, count * sizeof *plan->scratch);
    ftr_view *view = ftr__arena_alloc(&plan->arena, views * sizeof *view);
    if (!plan->scratch || !view) return ftr__compile_out_of_memory(plan, count * sizeof *plan->scratch);
    ftr_status status = FTR_OK;
    for (int32_t s = 0; s < plan->order_count && !status; s++) {
        const ftr__node *node = &plan->graph->nodes[plan->order[s]];
        const ftr_kernel *kernel = &plan->context->backend->kernels[node->op];
        const ftr_kernel_call call = ftr__call_of(plan, node, view);
        plan->scratch[s] = (ftr__scratch){.bytes = 0};
        if (node->op == FTR_OP_reshape || !kernel->run) continue;
        if (kernel->check) status = kernel->check(&call);
        if (!status && kernel->workspace) plan->scratch[s].bytes = kernel->workspace(&call);
    }
    return status;
}

/* -------------------------------------------------------------------------------------------------------- passes -- */

static ftr_status ftr__run_recompute(ftr_plan *plan, const ftr_compile_desc *desc, size_t target) {
    const ftr__recompute_desc wish = {
        .target = target, .patterns = desc->recompute, .pattern_count = desc->recompute_count};
    return target < SIZE_MAX || desc->recompute_count > 0 ? ftr__pass_recompute(plan, &wish) : FTR_OK;
}

/* `target`: bytes of activations to come to, see ftr__recompute_desc. */
static ftr_status ftr__run_passes(ftr_plan *plan, const ftr_compile_desc *desc, size_t target) {
    static const char *const names[] = {"lower", "autodiff", "amp", "fuse", "recompute", "schedule", "memplan"};
    for (int32_t i = 0; i < FTR__ARRAY_LENGTH(names); i++) {
        ftr_status status = FTR_OK;
        switch (i) {
        case 0: status = ftr__pass_lower(plan); break;
        case 1: status = ftr__pass_autodiff(plan, desc); break;
        case 2: status = desc->amp == FTR_AMP_OFF ? FTR_OK : ftr__pass_amp(plan, desc->amp); break;
        case 3: status = ftr__pass_fuse(plan, desc->no_fuse); break;
        case 4: status = ftr__run_recompute(plan, desc, target); break;
        case 5: status = ftr__pass_schedule(plan); break;
        default:
            status = ftr__find_scratch(plan);
            if (!status) status = ftr__pass_memplan(plan);
        }
        if (status) return status;
        if (desc->on_pass) desc->on_pass(desc->on_pass_user, names[i], plan->graph);
    }
    return FTR_OK;
}

/* --------------------------------------------------------------------------------------------------------- steps -- */

static ftr_view ftr__view_of(const ftr_plan *plan, int32_t value) {
    ftr_view view = ftr__shape_view(plan, value);
    const ftr__slot *slot = &plan->slots[value];
    if (value && plan->memory[slot->place]) view.data = plan->memory[slot->place] + slot->offset;
    return view;
}

/* Whether a node's second input is a variable, or a cast of one, in a plan that changes none and may keep copies. */
static bool ftr__weights_stay(const ftr_plan *plan, const ftr__node *node) {
    const ftr_graph *graph = plan->graph;
    if (!plan->packs || plan->mode != FTR_MODE_EVAL || plan->gradient_count > 0 || node->in_count < 2 || !node->in[1])
        return false;
    const ftr__node *weight = &graph->nodes[graph->values[node->in[1]].node];
    if (weight->op == FTR_OP_cast) weight = &graph->nodes[graph->values[weight->in[0]].node];
    return weight->variable >= 0;
}

static ftr_status ftr__make_step(ftr_plan *plan, int32_t place, ftr__step *step) {
    const ftr__node *node = &plan->graph->nodes[plan->order[place]];
    const ftr_kernel *kernel = &plan->context->backend->kernels[node->op];
    const size_t workspace = plan->scratch[place].bytes;
    if (!kernel->run)
        return ftr__error(plan->context, FTR_ERROR_UNSUPPORTED, "%s '%s': the %s backend has no kernel for it",
                          ftr_op_name(node->op), node->name, plan->context->backend->name);
    const size_t views = (size_t)(node->in_count + node->out_count);
    ftr_view *view = ftr__arena_alloc(&plan->arena, views * sizeof *view);
    if (!view) return ftr__compile_out_of_memory(plan, views * sizeof *view);
    step->node = plan->order[place];
    step->place = place;
    step->run = kernel->run;
    step->call = ftr__call_of(plan, node, view);
    if (workspace <= FTR__SCRATCH_SHARED && workspace > plan->workspace_bytes) plan->workspace_bytes = workspace;
    if (!kernel->kept || !ftr__weights_stay(plan, node)) return FTR_OK;
    step->kept_offset = plan->packed_bytes;
    step->kept_bytes = kernel->kept(&step->call);
    plan->packed_bytes += (step->kept_bytes + FTR__ALIGNMENT - 1) / FTR__ALIGNMENT * FTR__ALIGNMENT;
    return FTR_OK;
}

static bool ftr__is_alias(const ftr_plan *plan, const ftr__node *node) {
    return node->op == FTR_OP_reshape && plan->slots[node->first_out].root == plan->slots[node->in[0]].root;
}

static ftr__stage ftr__stage_of(const ftr_plan *plan, int32_t step) {
    return plan->graph->nodes[plan->steps[step].node].stage;
}

static ftr_status ftr__make_steps(ftr_plan *plan) {
    const size_t bytes = (size_t)plan->order_count * sizeof *plan->steps;
    plan->steps = ftr__arena_alloc(&plan->arena, bytes);
    plan->fed = ftr__arena_alloc(&plan->arena, (size_t)plan->graph->value_count);
    if (!plan->steps || !plan->fed) return ftr__compile_out_of_memory(plan, bytes);
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < plan->order_count && !status; i++)
        if (!ftr__is_alias(plan, &plan->graph->nodes[plan->order[i]]))
            status = ftr__make_step(plan, i, &plan->steps[plan->step_count++]);
    while (plan->micro_end < plan->step_count && ftr__stage_of(plan, plan->micro_end) < FTR__STAGE_UPDATE)
        plan->micro_end++;
    plan->update_end = plan->micro_end;
    while (plan->update_end < plan->step_count && ftr__stage_of(plan, plan->update_end) < FTR__STAGE_SWAP)
        plan->update_end++;
    return status;
}

/* -------------------------------------------------------------------------------------------------------- memory -- */

static ftr_status ftr__upload_zeros(const ftr_plan *plan, unsigned char *memory, size_t bytes) {
    static const unsigned char zeros[4096] = {0};
    const ftr_backend *backend = plan->context->backend;
    ftr_status status = FTR_OK;
    for (size_t done = 0; done < bytes && !status; done += sizeof zeros) {
        const size_t piece = bytes - done < sizeof zeros ? bytes - done : sizeof zeros;
        status = backend->upload(plan->context, plan->context->backend_state, memory + done, zeros, piece);
    }
    return status;
}

static ftr_status ftr__upload_constants(const ftr_plan *plan) {
    const ftr_backend *backend = plan->context->backend;
    ftr_status status = FTR_OK;
    for (int32_t n = 0; n < plan->graph->node_count && !status; n++) {
        const ftr__node *node = &plan->graph->nodes[n];
        if (node->op != FTR_OP_constant || node->dead) continue;
        const ftr__slot *slot = &plan->slots[node->first_out];
        if (slot->bytes)
            status = backend->upload(plan->context, plan->context->backend_state,
                                     plan->memory[FTR__PLACE_ACTIVATION] + slot->offset, node->constant, slot->bytes);
    }
    return status;
}

static ftr_status ftr__allocate_place(const ftr_plan *plan, const char *what, size_t bytes, unsigned char **memory) {
    if (!bytes) return FTR_OK;
    *memory = plan->context->backend->allocate(plan->context, plan->context->backend_state, bytes);
    return *memory ? FTR_OK : ftr__out_of_memory(plan->context, what, bytes);
}

static ftr_status ftr__allocate_memory(ftr_plan *plan) {
    static const char *const names[FTR__PLACE_COUNT] = {"", "", "optimizer state", "activations"};
    plan->memory[FTR__PLACE_VARIABLE] = plan->source->variable_memory;
    ftr_status status = ftr__allocate_place(plan, "workspace", plan->workspace_bytes, &plan->workspace);
    if (!status) status = ftr__allocate_place(plan, "weights of kernels", plan->packed_bytes, &plan->packed);
    for (int place = FTR__PLACE_STATE; place < FTR__PLACE_COUNT && !status; place++)
        status = ftr__allocate_place(plan, names[place], plan->bytes[place], &plan->memory[place]);
    for (int place = FTR__PLACE_STATE; place < FTR__PLACE_COUNT && !status; place++)
        status = ftr__upload_zeros(plan, plan->memory[place], plan->bytes[place]);
    if (!status) status = ftr__upload_constants(plan);
    return status;
}

/* Steps were made without memory; now they get their pointers. */
static void ftr__bind_steps(ftr_plan *plan) {
    for (int32_t s = 0; s < plan->step_count; s++) {
        ftr__step *step = &plan->steps[s];
        const ftr__node *node = &plan->graph->nodes[step->node];
        ftr_view *view = (ftr_view *)(uintptr_t)step->call.in; /* the plan's own array, const only to the kernels */
        for (int32_t i = 0; i < node->in_count; i++) view[i] = ftr__view_of(plan, node->in[i]);
        for (int32_t i = 0; i < node->out_count; i++)
            view[node->in_count + i] = ftr__view_of(plan, node->first_out + i);
        const ftr__scratch *scratch = &plan->scratch[step->place];
        step->call.workspace = scratch->bytes > FTR__SCRATCH_SHARED
                                   ? plan->memory[FTR__PLACE_ACTIVATION] + scratch->offset
                                   : plan->workspace;
        step->call.kept = step->kept_bytes ? plan->packed + step->kept_offset : NULL;
    }
}

/* The loss scale before the first step. */
static ftr_status ftr__write_scale(const ftr_plan *plan) {
    const ftr_backend *backend = plan->context->backend;
    const ftr__slot *slot = &plan->slots[plan->scaler.scale];
    const float scale = (float)plan->scaler_desc.init_scale;
    return backend->upload(plan->context, plan->context->backend_state, plan->memory[slot->place] + slot->offset,
                           &scale, sizeof scale);
}

/* ---------------------------------------------------------------------------------------------------------- plan -- */

static ftr_status ftr__plan_fill(ftr_plan *plan, const ftr_compile_desc *desc, size_t target) {
    ftr_status status = ftr__check_desc(plan, desc);
    if (status) return status;
    plan->variable_bytes = ftr__graph_place_variables(plan->source);
    plan->graph = ftr__graph_clone(plan->source);
    if (!plan->graph) return ftr__compile_out_of_memory(plan, sizeof *plan->graph);
    status = ftr__take_desc(plan, desc);
    if (!status) status = ftr__run_passes(plan, desc, target);
    return status ? status : ftr__make_steps(plan);
}

/* A plan that knows its memory, and has none. */
static ftr_status ftr__plan_make(ftr_graph *graph, const ftr_compile_desc *desc, size_t target, ftr_plan **plan) {
    ftr_plan *made = ftr__allocate(graph->context, sizeof *made);
    *plan = NULL;
    if (!made) return ftr__out_of_memory(graph->context, "compile", sizeof *made);
    memset(made, 0, sizeof *made);
    made->context = graph->context;
    made->source = graph;
    ftr__arena_init(&made->arena, graph->context);
    const ftr_status status = ftr__plan_fill(made, desc, target);
    if (status)
        ftr_plan_destroy(made);
    else
        *plan = made;
    return status;
}

static ftr_status ftr__over_budget(ftr_context *context, size_t budget, const ftr_memory *m) {
    return ftr__error(
        context, FTR_ERROR_OUT_OF_MEMORY,
        "compile: memory_budget is %zu bytes, the smallest plan needs %zu: parameters %zu, gradients %zu, "
        "optimizer state %zu, activations %zu, workspace %zu, bookkeeping %zu",
        budget, m->total, m->parameters, m->gradients, m->optimizer_state, m->activations, m->workspace,
        m->bookkeeping);
}

/* What the activations may take for the plan to come down to the budget. The pass goes by what is live at one step, which the
 * memory plan may miss by some gaps, and copies of nodes need bookkeeping: what a trial was over comes off the target of the
 * next, and more of it from trial to trial. 0 asks for the smallest plan. */
static size_t ftr__next_target(const ftr_plan *plan, const ftr_memory *memory, size_t budget, int32_t trial) {
    enum { TRIALS = 16 };
    const size_t over = memory->total - budget, step = over + over / 4 * (size_t)trial;
    const size_t now = trial > 0 ? plan->recomputed.live : plan->bytes[FTR__PLACE_ACTIVATION];
    return now > step && trial < TRIALS ? now - step : 0;
}

ftr_status ftr__plan_within(ftr_graph *graph, const ftr_compile_desc *desc, ftr_plan **plan, ftr_memory *memory,
                            bool *fits) {
    ftr_compile_desc quiet = *desc;
    ftr_memory least = {.total = SIZE_MAX}; /* of the trials: beside small values the bookkeeping of copies counts */
    size_t target = SIZE_MAX;
    *fits = true;
    if (desc->memory_budget) quiet.on_pass = NULL; /* trials are not shown */
    for (int32_t trial = 0;; trial++) {
        const ftr_status status = ftr__plan_make(graph, &quiet, target, plan);
        if (status) return status;
        *memory = ftr_plan_memory(*plan);
        if (!desc->memory_budget || memory->total <= desc->memory_budget) break;
        if (memory->total < least.total) least = *memory;
        *fits = !(*plan)->recomputed.smallest;
        if (*fits) target = ftr__next_target(*plan, memory, desc->memory_budget, trial);
        ftr_plan_destroy(*plan);
        *plan = NULL;
        if (*fits) continue;
        *memory = least;
        return ftr__over_budget(graph->context, desc->memory_budget, memory);
    }
    if (!desc->memory_budget || !desc->on_pass) return FTR_OK;
    ftr_plan_destroy(*plan);
    return ftr__plan_make(graph, desc, target, plan);
}

static ftr_status ftr__plan_bring_up(ftr_plan *plan, const ftr_compile_desc *desc) {
    ftr_status status = ftr__graph_materialize(plan->source);
    if (!status) status = ftr__allocate_memory(plan);
    if (status) return status;
    ftr__bind_steps(plan);
    if (plan->scaler.scale) status = ftr__write_scale(plan);
    return !status && desc->optimizer ? ftr_plan_set_lr(plan, desc->optimizer->lr) : status;
}

ftr_status ftr_compile(ftr_graph *graph, const ftr_compile_desc *desc, ftr_plan **plan) {
    if (plan) *plan = NULL;
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    if (!plan || !desc)
        return ftr__error(graph->context, FTR_ERROR_INVALID_ARGUMENT, "compile: %s is NULL", plan ? "desc" : "plan");
    if (graph->status) return ftr__error(graph->context, graph->status, "%s", graph->message);
    ftr_memory memory;
    bool fits;
    ftr_plan *made;
    ftr_status status = ftr__plan_within(graph, desc, &made, &memory, &fits);
    if (!status) status = ftr__plan_bring_up(made, desc);
    if (!status)
        *plan = made;
    else
        ftr_plan_destroy(made);
    return status;
}

ftr_status ftr_memory_needed(ftr_graph *graph, const ftr_compile_desc *desc, ftr_memory *memory) {
    if (memory) memset(memory, 0, sizeof *memory);
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    if (!memory || !desc)
        return ftr__error(graph->context, FTR_ERROR_INVALID_ARGUMENT, "memory_needed: %s is NULL",
                          memory ? "desc" : "memory");
    if (graph->status) return ftr__error(graph->context, graph->status, "%s", graph->message);
    bool fits;
    ftr_plan *plan;
    const ftr_status status = ftr__plan_within(graph, desc, &plan, memory, &fits);
    if (status) memset(memory, 0, sizeof *memory);
    ftr_plan_destroy(plan);
    return status;
}

ftr_memory ftr_plan_memory(const ftr_plan *plan) {
    ftr_memory memory = {0};
    if (!plan) return memory;
    memory.parameters = plan->variable_bytes;
    memory.gradients = plan->gradient_bytes;
    memory.optimizer_state = plan->bytes[FTR__PLACE_STATE];
    memory.activations = plan->bytes[FTR__PLACE_ACTIVATION] - plan->gradient_bytes;
    memory.workspace = plan->workspace_bytes + plan->packed_bytes;
    memory.bookkeeping = sizeof *plan + sizeof *plan->graph + plan->arena.bytes + plan->graph->arena.bytes;
    memory.total = memory.parameters + memory.gradients + memory.optimizer_state + memory.activations +
                   memory.workspace + memory.bookkeeping;
    memory.recomputed_nodes = plan->recomputed.nodes;
    memory.recomputed_multiply_adds = plan->recomputed.multiply_adds;
    memory.recomputed_bytes = plan->recomputed.bytes;
    return memory;
}
