#include "exec/nonfinite.h"
#include "passes/plan.h"

#include <math.h>

static unsigned char *ftr__memory_of(const ftr_plan *plan, int32_t value) {
    const ftr__slot *slot = &plan->slots[value];
    return plan->memory[slot->place] ? plan->memory[slot->place] + slot->offset : NULL;
}

static ftr_status ftr__download(const ftr_plan *plan, int32_t value, void *data, size_t bytes) {
    ftr_context *context = plan->context;
    if (bytes == 0) return FTR_OK;
    return context->backend->download(context, context->backend_state, data, ftr__memory_of(plan, value), bytes);
}

/* The input's value in the plan's graph; 0 with the error recorded if it is none. Ids of inputs never change. */
static int32_t ftr__input_of(const ftr_plan *plan, ftr_tensor input) {
    if (!ftr_is_valid(input) || input.graph != plan->source) {
        ftr__error(plan->context, FTR_ERROR_INVALID_TENSOR, "feed: the tensor is null or belongs to another graph");
        return 0;
    }
    const ftr__node *node = ftr__producer(input);
    if (node->op != FTR_OP_input || input.id >= plan->renamed_count) {
        ftr__error(plan->context, FTR_ERROR_INVALID_TENSOR, "feed: %s '%s' is not an input of the plan",
                   ftr_op_name(node->op), node->name);
        return 0;
    }
    return input.id;
}

static ftr_status ftr__wrong_size(const ftr_plan *plan, const char *what, int32_t value, size_t bytes,
                                  size_t expected) {
    const ftr__value *v = &plan->graph->values[value];
    const char *name = plan->graph->nodes[v->node].name;
    char text[FTR__SHAPE_TEXT];
    ftr__shape_text(&v->shape, text);
    const size_t row = v->shape.rank > 0 && v->shape.dim[0] > 0 ? expected / (size_t)v->shape.dim[0] : 0;
    if (row > 0 && bytes % row == 0)
        return ftr__error(plan->context, FTR_ERROR_SHAPE,
                          "%s '%s': %zu bytes given, expected %zu (%s %s): a batch of %zu, planned for %lld", what,
                          name, bytes, expected, ftr_dtype_name(v->dtype), text, bytes / row,
                          (long long)v->shape.dim[0]);
    return ftr__error(plan->context, FTR_ERROR_SHAPE, "%s '%s': %zu bytes given, expected %zu (%s %s)", what, name,
                      bytes, expected, ftr_dtype_name(v->dtype), text);
}

static size_t ftr__bytes_of(const ftr_plan *plan, int32_t value) {
    const ftr__value *v = &plan->graph->values[value];
    return (size_t)ftr_shape_count(&v->shape) * ftr_dtype_size(v->dtype);
}

ftr_status ftr_feed(ftr_plan *plan, ftr_tensor input, const void *data, size_t bytes) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    const int32_t value = ftr__input_of(plan, input);
    if (!value) return FTR_ERROR_INVALID_TENSOR;
    ftr_context *context = plan->context;
    const size_t expected = ftr__bytes_of(plan, value);
    if (bytes != expected) return ftr__wrong_size(plan, "input", value, bytes, expected);
    if (!data && bytes)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "input '%s': data is NULL", ftr_name_of(input));
    plan->fed[value] = true;
    if (plan->slots[value].place == FTR__PLACE_NONE || bytes == 0) return FTR_OK;
    return context->backend->upload(context, context->backend_state, ftr__memory_of(plan, value), data, bytes);
}

void *ftr_input_memory(ftr_plan *plan, ftr_tensor input) {
    if (!plan) return NULL;
    const int32_t value = ftr__input_of(plan, input);
    if (!value) return NULL;
    if (!plan->context->backend->host_memory || plan->slots[value].place == FTR__PLACE_NONE) {
        ftr__error(plan->context, FTR_ERROR_STATE, "input '%s': %s", ftr_name_of(input),
                   plan->context->backend->host_memory ? "the plan does not use it"
                                                       : "the backend's memory cannot be written by the host");
        return NULL;
    }
    plan->fed[value] = true;
    return ftr__memory_of(plan, value);
}

static ftr_status ftr__check_fed(const ftr_plan *plan) {
    const ftr_graph *graph = plan->graph;
    for (int32_t n = 0; n < graph->node_count; n++) {
        const ftr__node *node = &graph->nodes[n];
        if (node->op != FTR_OP_input || node->dead || plan->fed[node->first_out]) continue;
        char text[FTR__SHAPE_TEXT];
        const ftr__value *value = &graph->values[node->first_out];
        return ftr__error(plan->context, FTR_ERROR_NOT_FED, "step: input '%s' (%s %s) was never fed", node->name,
                          ftr_dtype_name(value->dtype), ftr__shape_text(&value->shape, text));
    }
    return FTR_OK;
}

/* Whether the step to come ends a group of micro-batches. */
static bool ftr__ends_group(const ftr_plan *plan) { return (plan->steps_done + 1) % (uint64_t)plan->accumulate == 0; }

/* A floating-point scalar; NaN if there is none, or if it is no such. */
static ftr_status ftr__read_scalar(const ftr_plan *plan, int32_t value, double *number) {
    double room;
    *number = (double)NAN;
    if (!value) return FTR_OK;
    const ftr__value *v = &plan->graph->values[value];
    if (!ftr__is_float(v->dtype) || ftr_shape_count(&v->shape) != 1) return FTR_OK;
    const ftr_status status = ftr__download(plan, value, &room, ftr_dtype_size(v->dtype));
    if (!status) *number = ftr__element(v->dtype, &room, 0);
    return status;
}

/* Updates of the optimizer, which counts those that it applies. */
static ftr_status ftr__read_applied(const ftr_plan *plan, uint64_t *applied) {
    int64_t count = 0;
    const ftr_status status =
        plan->applied_steps ? ftr__download(plan, plan->applied_steps, &count, sizeof count) : FTR_OK;
    *applied = (uint64_t)count;
    return status;
}

/* `ended`: the step was the last of its group. */
static ftr_status ftr__report_step(const ftr_plan *plan, bool ended, ftr_step_info *info) {
    const ftr__scaler *scaler = &plan->scaler;
    double found_inf = 0.0;
    ftr_status status = ftr__read_scalar(plan, plan->loss, &info->loss);
    if (!status) status = ftr__read_scalar(plan, ended ? scaler->norm : 0, &info->grad_norm);
    if (!status && scaler->scale) status = ftr__read_scalar(plan, scaler->found_inf, &found_inf);
    info->loss_scale = 1.0;
    if (!status && scaler->scale) status = ftr__read_scalar(plan, scaler->used, &info->loss_scale);
    info->overflow = found_inf != 0.0;
    info->skipped = ended && info->overflow;
    info->updated = ended && plan->applied_steps && !info->overflow;
    return status ? status : ftr__read_applied(plan, &info->applied_steps);
}

static ftr_status ftr__run_step(ftr_plan *plan, ftr__step *step) {
    step->call.step = plan->steps_done;
    step->call.kept_is_made = plan->packed_version == plan->source->variable_version;
    const double start = plan->profiling ? ftr_time_seconds() : 0.0;
    const ftr_status status = step->run(&step->call);
    if (plan->profiling) plan->profile[step - plan->steps] += ftr_time_seconds() - start;
    if (status || !plan->debug_nonfinite) return status;
    return ftr__check_results(plan, &plan->graph->nodes[step->node]);
}

static ftr_status ftr__run_steps(ftr_plan *plan, int32_t end) {
    ftr_context *context = plan->context;
    const ftr_backend *backend = context->backend;
    bool replay = false;
    ftr_status status = FTR_OK;
    if (backend->begin_step)
        status = backend->begin_step(context, context->backend_state, plan, end, plan->steps_done,
                                     plan->profiling || plan->debug_nonfinite, &replay);
    if (status) return status;
    for (int32_t i = 0; i < end && !status && !replay; i++) status = ftr__run_step(plan, &plan->steps[i]);
    return backend->end_step ? backend->end_step(context, context->backend_state, status) : status;
}

ftr_status ftr_step(ftr_plan *plan, ftr_step_info *info) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    const double start = ftr_time_seconds();
    const bool ends = ftr__ends_group(plan);
    const int32_t end = ends ? plan->update_end : plan->micro_end;
    ftr_status status = ftr__refuse_average(plan, "step");
    if (!status) status = ftr__check_fed(plan);
    if (!status && plan->debug_nonfinite) status = ftr__check_sources(plan);
    if (plan->mode == FTR_MODE_TRAIN) plan->source->variable_version++;
    if (!status) status = ftr__run_steps(plan, end);
    if (status) return status;
    plan->packed_version = plan->source->variable_version;
    plan->steps_done++;
    plan->profiled_steps += plan->profiling;
    plan->has_run = true;
    if (!info) return FTR_OK;
    status = ftr__report_step(plan, ends, info);
    info->step = plan->steps_done;
    info->seconds = ftr_time_seconds() - start;
    return status;
}

static ftr_status ftr__read_value(ftr_plan *plan, const char *what, int32_t value, void *data, size_t bytes) {
    const size_t expected = ftr__bytes_of(plan, value);
    if (bytes != expected) return ftr__wrong_size(plan, what, value, bytes, expected);
    if (!data && bytes) return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "%s: data is NULL", what);
    if (!plan->has_run)
        return ftr__error(plan->context, FTR_ERROR_STATE, "%s '%s': no step was run yet", what,
                          plan->graph->nodes[plan->graph->values[value].node].name);
    return ftr__download(plan, value, data, bytes);
}

static bool ftr__is_kept(const ftr_plan *plan, int32_t value) {
    const ftr__node *node = &plan->graph->nodes[plan->graph->values[value].node];
    if (node->op == FTR_OP_input) return plan->slots[value].place != FTR__PLACE_NONE;
    for (int32_t i = 0; i < plan->kept_count; i++)
        if (plan->kept[i] == value) return true;
    return false;
}

static bool ftr__known(const ftr_plan *plan, ftr_tensor tensor) {
    return ftr_is_valid(tensor) && tensor.graph == plan->source && tensor.id < plan->renamed_count;
}

ftr_status ftr_read(ftr_plan *plan, ftr_tensor tensor, void *data, size_t bytes) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    if (!ftr__known(plan, tensor))
        return ftr__error(plan->context, FTR_ERROR_INVALID_TENSOR, "read: the tensor is null or unknown to the plan");
    const int32_t value = plan->renamed[tensor.id];
    if (!ftr__is_kept(plan, value))
        return ftr__error(plan->context, FTR_ERROR_INVALID_TENSOR,
                          "read: '%s' is neither the loss, nor one of the plan's outputs, nor an input",
                          ftr_name_of(tensor));
    return ftr__read_value(plan, "read", value, data, bytes);
}

/* Takes the loss scale, and of a sum the number of micro-batches, out of a gradient that was read; a product with the
 * inverse, as the optimizer's. */
static ftr_status ftr__unscale(const ftr_plan *plan, int32_t gradient, void *data) {
    const bool is_sum = plan->accumulate > 1 && plan->slots[gradient].place == FTR__PLACE_STATE;
    double used = 1.0;
    const ftr_status status = plan->scaler.scale ? ftr__read_scalar(plan, plan->scaler.used, &used) : FTR_OK;
    if (status || (!plan->scaler.scale && !is_sum)) return status;
    const ftr__value *value = &plan->graph->values[gradient];
    const float inverse = (float)(1.0 / (is_sum ? used * (double)plan->accumulate : used));
    const int64_t count = ftr_shape_count(&value->shape);
    for (int64_t i = 0; i < count; i++)
        ftr__set_element(value->dtype, data, i, ftr__element(value->dtype, data, i) * (double)inverse);
    return FTR_OK;
}

ftr_status ftr_read_gradient(ftr_plan *plan, ftr_tensor tensor, void *data, size_t bytes) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    if (!ftr__known(plan, tensor))
        return ftr__error(plan->context, FTR_ERROR_INVALID_TENSOR,
                          "read_gradient: the tensor is null or unknown to the plan");
    for (int32_t i = 0; i < plan->gradient_count; i++)
        if (plan->wrt[i] == plan->renamed[tensor.id] && plan->gradients[i]) {
            const ftr_status status = ftr__read_value(plan, "read_gradient", plan->gradients[i], data, bytes);
            return status ? status : ftr__unscale(plan, plan->gradients[i], data);
        }
    return ftr__error(plan->context, FTR_ERROR_INVALID_TENSOR, "read_gradient: the plan has no gradient of '%s'",
                      ftr_name_of(tensor));
}

ftr_status ftr_plan_set_lr(ftr_plan *plan, double lr) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    if (!plan->learning_rate) return ftr__error(plan->context, FTR_ERROR_STATE, "set_lr: the plan has no optimizer");
    if (!isfinite(lr) || lr < 0.0)
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT,
                          "set_lr: lr is %g, expected a finite number of 0 or more", lr);
    const float value = (float)lr;
    return plan->context->backend->upload(plan->context, plan->context->backend_state,
                                          ftr__memory_of(plan, plan->learning_rate), &value, sizeof value);
}

uint64_t ftr_plan_steps(const ftr_plan *plan) { return plan ? plan->steps_done : 0; }
