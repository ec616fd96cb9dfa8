/* The optimizer's state by name: what the plan's graph holds in buffers of its own. */
#include "passes/plan.h"

#include <math.h>
#include <string.h>

static bool ftr__is_state(const ftr_plan *plan, int32_t node_index) {
    const ftr__node *node = &plan->graph->nodes[node_index];
    return node->op == FTR_OP_buffer && !node->dead && plan->slots[node->first_out].place == FTR__PLACE_STATE;
}

int32_t ftr_plan_state_count(const ftr_plan *plan) {
    int32_t count = 0;
    for (int32_t n = 0; plan && n < plan->graph->node_count; n++) count += ftr__is_state(plan, n);
    return count;
}

static ftr_plan_state ftr__describe_state(const ftr_plan *plan, int32_t node_index) {
    const ftr__node *node = &plan->graph->nodes[node_index];
    const ftr__value *value = &plan->graph->values[node->first_out];
    return (ftr_plan_state){.name = node->name,
                            .dtype = value->dtype,
                            .shape = value->shape,
                            .bytes = (size_t)ftr_shape_count(&value->shape) * ftr_dtype_size(value->dtype)};
}

size_t ftr__plan_state_offset(const ftr_plan *plan, int32_t index) {
    for (int32_t n = 0; n < plan->graph->node_count; n++)
        if (ftr__is_state(plan, n) && index-- == 0) return plan->slots[plan->graph->nodes[n].first_out].offset;
    return 0;
}

ftr_status ftr_plan_state_at(const ftr_plan *plan, int32_t index, ftr_plan_state *state) {
    if (!plan || !state) return FTR_ERROR_INVALID_ARGUMENT;
    int32_t left = index;
    for (int32_t n = 0; n < plan->graph->node_count && index >= 0; n++) {
        if (!ftr__is_state(plan, n) || left-- > 0) continue;
        *state = ftr__describe_state(plan, n);
        return FTR_OK;
    }
    memset(state, 0, sizeof *state);
    return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "plan_state_at: index is %d, the plan has %d states",
                      (int)index, (int)ftr_plan_state_count(plan));
}

/* Where the state lies. NULL with the error recorded. */
static unsigned char *ftr__find_state(const ftr_plan *plan, const char *what, const char *name, const void *data,
                                      size_t bytes, ftr_status *status) {
    for (int32_t n = 0; name && n < plan->graph->node_count; n++) {
        const ftr__node *node = &plan->graph->nodes[n];
        if (!ftr__is_state(plan, n) || strcmp(node->name, name) != 0) continue;
        const ftr_plan_state state = ftr__describe_state(plan, n);
        char text[FTR__SHAPE_TEXT];
        if (bytes != state.bytes)
            *status =
                ftr__error(plan->context, FTR_ERROR_SHAPE, "%s '%.100s': %zu bytes given, expected %zu (%s %s)", what,
                           name, bytes, state.bytes, ftr_dtype_name(state.dtype), ftr__shape_text(&state.shape, text));
        else if (!data && bytes)
            *status = ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "%s '%.100s': data is NULL", what, name);
        else
            *status = FTR_OK;
        return *status ? NULL : plan->memory[FTR__PLACE_STATE] + plan->slots[node->first_out].offset;
    }
    *status = name ? ftr__error(plan->context, FTR_ERROR_NAME, "%s: the plan has no state '%.100s'", what, name)
                   : ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "%s: name is NULL", what);
    return NULL;
}

ftr_status ftr_plan_state_read(const ftr_plan *plan, const char *name, void *data, size_t bytes) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    ftr_status status;
    const unsigned char *memory = ftr__find_state(plan, "plan_state_read", name, data, bytes, &status);
    if (!memory || bytes == 0) return status;
    return plan->context->backend->download(plan->context, plan->context->backend_state, data, memory, bytes);
}

ftr_status ftr_plan_state_write(ftr_plan *plan, const char *name, const void *data, size_t bytes) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    ftr_status status;
    unsigned char *memory = ftr__find_state(plan, "plan_state_write", name, data, bytes, &status);
    if (!memory || bytes == 0) return status;
    return plan->context->backend->upload(plan->context, plan->context->backend_state, memory, data, bytes);
}

static ftr_status ftr__download_state(const ftr_plan *plan, int32_t value, void *data, size_t bytes) {
    return plan->context->backend->download(plan->context, plan->context->backend_state, data,
                                            plan->memory[FTR__PLACE_STATE] + plan->slots[value].offset, bytes);
}

double ftr_plan_lr(const ftr_plan *plan) {
    float lr = 0.0f;
    if (!plan || !plan->learning_rate) return (double)NAN;
    return ftr__download_state(plan, plan->learning_rate, &lr, sizeof lr) == FTR_OK ? (double)lr : (double)NAN;
}

uint64_t ftr_plan_applied_steps(const ftr_plan *plan) {
    int64_t steps = 0;
    if (!plan || !plan->applied_steps) return 0;
    return ftr__download_state(plan, plan->applied_steps, &steps, sizeof steps) == FTR_OK ? (uint64_t)steps : 0;
}
