#include "exec/nonfinite.h"

#include <math.h>
#include <stdio.h>

#define FTR__NONFINITE_PART 1024 /* elements that are fetched at a time */

/* The first element that is not finite, and its number; -1 if there is none. */
static ftr_status ftr__find_nonfinite(const ftr_plan *plan, int32_t value, int64_t *index, double *found) {
    const ftr_backend *backend = plan->context->backend;
    const ftr__slot *slot = &plan->slots[value];
    const ftr__value *v = &plan->graph->values[value];
    const int64_t count = ftr_shape_count(&v->shape);
    const size_t size = ftr_dtype_size(v->dtype);
    double part[FTR__NONFINITE_PART]; /* room for elements of any type */
    *index = -1;
    for (int64_t done = 0; done < count; done += FTR__NONFINITE_PART) {
        const int64_t n = count - done < FTR__NONFINITE_PART ? count - done : FTR__NONFINITE_PART;
        const ftr_status status =
            backend->download(plan->context, plan->context->backend_state, part,
                              plan->memory[slot->place] + slot->offset + (size_t)done * size, (size_t)n * size);
        if (status) return status;
        for (int64_t i = 0; i < n; i++) {
            *found = ftr__element(v->dtype, part, i);
            if (isfinite(*found)) continue;
            *index = done + i;
            return FTR_OK;
        }
    }
    return FTR_OK;
}

/* "[1, 0, 2]": where element `index` stands. */
static const char *ftr__index_text(const ftr_shape *shape, int64_t index, char text[FTR__SHAPE_TEXT]) {
    ftr_shape at = *shape;
    for (int32_t d = shape->rank - 1; d >= 0; d--) {
        at.dim[d] = index % shape->dim[d];
        index /= shape->dim[d];
    }
    return ftr__shape_text(&at, text);
}

/* `what` stands between the node's name and the value's type. */
static ftr_status ftr__check_value(const ftr_plan *plan, const ftr__node *node, int32_t value, const char *what) {
    const ftr__value *v = &plan->graph->values[value];
    int64_t index;
    double found;
    if (!ftr__is_float(v->dtype) || plan->slots[value].place == FTR__PLACE_NONE) return FTR_OK;
    const ftr_status status = ftr__find_nonfinite(plan, value, &index, &found);
    if (status || index < 0) return status;
    char shape[FTR__SHAPE_TEXT], at[FTR__SHAPE_TEXT];
    return ftr__error(plan->context, FTR_ERROR_NONFINITE,
                      "%s '%s'%s (%s %s): element %lld, at %s, is %s, expected a finite number", ftr_op_name(node->op),
                      node->name, what, ftr_dtype_name(v->dtype), ftr__shape_text(&v->shape, shape), (long long)index,
                      ftr__index_text(&v->shape, index, at),
                      isnan(found)  ? "nan"
                      : found > 0.0 ? "inf"
                                    : "-inf");
}

ftr_status ftr__check_sources(const ftr_plan *plan) {
    const ftr_graph *graph = plan->graph;
    ftr_status status = FTR_OK;
    for (int32_t n = 0; n < graph->node_count && !status; n++) {
        const ftr__node *node = &graph->nodes[n];
        if (!node->dead && (node->op == FTR_OP_input || node->variable >= 0))
            status = ftr__check_value(plan, node, node->first_out, "");
    }
    return status;
}

ftr_status ftr__check_results(const ftr_plan *plan, const ftr__node *node) {
    const bool handled = plan->scaler.scale && node->backward; /* by the loss scaler */
    if (handled && plan->debug_nonfinite != FTR_NONFINITE_REPORTED_ALL) return FTR_OK;
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < node->out_count && !status; i++) {
        const ftr__slot *slot = &plan->slots[node->first_out + i];
        char what[48];
        if (slot->last <= slot->first && !slot->kept) continue; /* nothing looks at it, and a kernel may leave it out */
        snprintf(what, sizeof what, ", %s, result %d", node->backward ? "backward" : "forward", (int)i);
        status = ftr__check_value(plan, node, node->first_out + i, what);
    }
    return status;
}
