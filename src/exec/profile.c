/* What a plan costs, node by node. */
#include "graph/cost.h"
#include "graph/print.h"
#include "passes/plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define FTR__PROFILE_REACHED 0.8 /* of the floor's rates: what good kernels come to */

ftr_status ftr_measure_machine(ftr_context *context, ftr_machine *machine) {
    if (!context) return FTR_ERROR_INVALID_ARGUMENT;
    if (!machine) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "measure_machine: machine is NULL");
    *machine = (ftr_machine){0};
    if (!context->backend->measure)
        return ftr__error(context, FTR_ERROR_UNSUPPORTED, "measure_machine: the %s backend cannot",
                          context->backend->name);
    return context->backend->measure(context, context->backend_state, machine);
}

ftr_status ftr_plan_profile(ftr_plan *plan, bool on) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    const size_t bytes = ((size_t)plan->step_count + 1) * sizeof *plan->profile;
    if (on && !plan->profile) plan->profile = ftr__arena_alloc(&plan->arena, bytes);
    if (on && !plan->profile) return ftr__out_of_memory(plan->context, "plan_profile", bytes);
    if (on) memset(plan->profile, 0, bytes);
    if (on) plan->profiled_steps = 0;
    plan->profiling = on;
    return FTR_OK;
}

int32_t ftr_plan_node_count(const ftr_plan *plan) { return plan ? plan->update_end : 0; }

static const char *ftr__profile_algorithm(const ftr_plan *plan, const ftr__step *step) {
    const ftr_kernel *kernel = &plan->context->backend->kernels[step->call.op];
    return kernel->algorithm ? kernel->algorithm(&step->call) : "";
}

ftr_status ftr_plan_node_at(const ftr_plan *plan, int32_t index, ftr_plan_node *out) {
    if (out) *out = (ftr_plan_node){0};
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    if (!out || index < 0 || index >= plan->update_end)
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT,
                          out ? "plan_node_at: index is %d, expected 0 to %d" : "plan_node_at: node is NULL",
                          (int)index, (int)plan->update_end - 1);
    const ftr__step *step = &plan->steps[index];
    const ftr__node *node = &plan->graph->nodes[step->node];
    const double steps = (double)plan->profiled_steps;
    *out = (ftr_plan_node){.name = node->name,
                           .op = ftr_op_name(node->op),
                           .fused = node->fused ? node->fused : "",
                           .algorithm = ftr__profile_algorithm(plan, step),
                           .backward = node->backward,
                           .operations = 2.0 * (double)ftr__node_multiply_adds(plan->graph, node),
                           .bytes = (double)ftr__node_bytes(plan->graph, node),
                           .seconds = steps > 0.0 ? plan->profile[index] / steps : (double)NAN};
    return FTR_OK;
}

double ftr_plan_node_floor(const ftr_plan_node *node, const ftr_machine *machine) {
    return fmax(node->operations / machine->flops, node->bytes / machine->bandwidth);
}

/* ------------------------------------------------------------------------------------------------------ explain -- */

typedef struct ftr__explained {
    double operations, bytes, floor, seconds;
} ftr__explained;

static void ftr__explain_numbers(const ftr__explained *e, ftr_write_fn write, void *user) {
    ftr__print(write, user, "%9.4f %9.3f %9.1f %9.1f", e->operations * 1e-9, e->bytes * 1e-6, e->floor * 1e6,
               e->floor / FTR__PROFILE_REACHED * 1e6);
    if (isnan(e->seconds)) return;
    ftr__print(write, user, " %9.1f %5.0f%%", e->seconds * 1e6, e->seconds > 0.0 ? 100.0 * e->floor / e->seconds : 0.0);
}

static void ftr__explain_node(const ftr_plan_node *node, const ftr__explained *e, ftr_write_fn write, void *user) {
    ftr__print(write, user, "%-8s %-24s ", node->backward ? "backward" : "forward", node->op);
    ftr__explain_numbers(e, write, user);
    ftr__print(write, user, "  %s", node->name);
    if (node->fused[0]) ftr__print(write, user, " + %s", node->fused);
    if (node->algorithm[0]) ftr__print(write, user, " (%s)", node->algorithm);
    ftr__print(write, user, "\n");
}

ftr_status ftr_plan_explain(const ftr_plan *plan, const ftr_machine *machine, ftr_write_fn write, void *user) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    if (!write) return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "plan_explain: write is NULL");
    ftr_machine measured;
    if (!machine) {
        const ftr_status status = ftr_measure_machine(plan->context, &measured);
        if (status) return status;
        machine = &measured;
    }
    if (!(machine->flops > 0.0) || !(machine->bandwidth > 0.0))
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT,
                          "plan_explain: machine is %g operations and %g bytes a second, expected more than 0",
                          machine->flops, machine->bandwidth);
    ftr__print(write, user, "machine: %.1f GFLOP/s, %.1f GB/s\n%-8s %-24s %9s %9s %9s %9s %9s %6s  node\n",
               machine->flops * 1e-9, machine->bandwidth * 1e-9, "pass", "op", "GFLOP", "MB", "floor us", "expect us",
               "took us", "share");
    ftr__explained sum = {0};
    for (int32_t i = 0; i < plan->update_end; i++) {
        ftr_plan_node node;
        const ftr_status status = ftr_plan_node_at(plan, i, &node);
        if (status) return status;
        const ftr__explained e = {node.operations, node.bytes, ftr_plan_node_floor(&node, machine), node.seconds};
        ftr__explain_node(&node, &e, write, user);
        sum = (ftr__explained){sum.operations + e.operations, sum.bytes + e.bytes, sum.floor + e.floor,
                               sum.seconds + e.seconds};
    }
    ftr__print(write, user, "%-8s %-24s ", "sum", "");
    ftr__explain_numbers(&sum, write, user);
    ftr__print(write, user, "\n");
    return FTR_OK;
}
