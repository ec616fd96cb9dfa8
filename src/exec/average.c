/* The averages of a plan's weights: how many were taken, and their exchange with the graph's variables. */
#include "passes/plan.h"

int64_t ftr_plan_average_count(const ftr_plan *plan) {
    int64_t count = 0;
    if (!plan || !plan->averages) return 0;
    const ftr_status status = plan->context->backend->download(
        plan->context, plan->context->backend_state, &count,
        plan->memory[FTR__PLACE_STATE] + plan->slots[plan->averages].offset, sizeof count);
    return status ? 0 : count;
}

bool ftr_plan_average_is_in(const ftr_plan *plan) { return plan && plan->average_is_in; }

ftr_status ftr_plan_swap_average(ftr_plan *plan) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    if (!plan->averages)
        return ftr__error(plan->context, FTR_ERROR_STATE, "swap_average: the plan keeps no averages of weights");
    if (!plan->average_is_in && ftr_plan_average_count(plan) == 0)
        return ftr__error(plan->context, FTR_ERROR_STATE, "swap_average: no average was taken yet");
    plan->source->variable_version++;
    for (int32_t i = plan->update_end; i < plan->step_count; i++) {
        const ftr_status status = plan->steps[i].run(&plan->steps[i].call);
        if (status) return status;
    }
    plan->average_is_in = !plan->average_is_in;
    return FTR_OK;
}

ftr_status ftr__refuse_average(const ftr_plan *plan, const char *what) {
    if (!plan->average_is_in) return FTR_OK;
    return ftr__error(plan->context, FTR_ERROR_STATE,
                      "%s: the averages of the weights are in the graph's variables: put them back first "
                      "(ftr_plan_swap_average)",
                      what);
}
