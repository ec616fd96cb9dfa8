/* Loss scaling (Micikevicius et al.: Mixed Precision Training, ICLR 2018) with the rules of PyTorch's GradScaler, and the
 * norm of gradients. All of it is nodes of the graph: a step asks the host for nothing. */
#include "optim/scaler.h"

#include <math.h>

#define FTR__COOKIE_SCALER 0x7363616cu

ftr_scaler_desc ftr_scaler_defaults(void) {
    const ftr_scaler_desc scaler = {.cookie = FTR__COOKIE_SCALER,
                                    .scaling = FTR_SCALING_AUTO,
                                    .init_scale = 65536.0,
                                    .growth_factor = 2.0,
                                    .backoff_factor = 0.5,
                                    .growth_interval = 2000};
    return scaler;
}

ftr_status ftr__scaler_check(ftr_context *context, const ftr_scaler_desc *scaler) {
    const ftr_status bad = FTR_ERROR_INVALID_ARGUMENT;
    if (scaler->cookie != FTR__COOKIE_SCALER)
        return ftr__error(context, bad, "scaler: the description was not made by ftr_scaler_defaults()");
    if ((int)scaler->scaling < (int)FTR_SCALING_AUTO || scaler->scaling > FTR_SCALING_FIXED)
        return ftr__error(context, bad, "scaler: scaling is %d, expected one of ftr_scaling", (int)scaler->scaling);
    if (!(scaler->init_scale > 0.0) || !isfinite((float)scaler->init_scale) || (float)scaler->init_scale == 0.0f)
        return ftr__error(context, bad, "scaler: init_scale is %g, expected a finite f32 above 0", scaler->init_scale);
    if (!(scaler->growth_factor > 1.0) || !isfinite(scaler->growth_factor))
        return ftr__error(context, bad, "scaler: growth_factor is %g, expected a finite number above 1",
                          scaler->growth_factor);
    if (!(scaler->backoff_factor > 0.0 && scaler->backoff_factor < 1.0))
        return ftr__error(context, bad, "scaler: backoff_factor is %g, expected more than 0 and less than 1",
                          scaler->backoff_factor);
    if (scaler->growth_interval < 1)
        return ftr__error(context, bad, "scaler: growth_interval is %lld, expected 1 or more",
                          (long long)scaler->growth_interval);
    return FTR_OK;
}

void ftr__scaler_begin(ftr_graph *graph, ftr__scaler *scaler) {
    scaler->scale = ftr__add_source(graph, FTR_OP_buffer, "scaler.scale", FTR_F32, ftr_scalar_shape()).id;
}

ftr_status ftr__scaler_measure(ftr_graph *graph, ftr__arena *arena, ftr__scaler *scaler, const int32_t *gradients,
                               int32_t count, const ftr_op_attr *attr) {
    const size_t bytes = ((size_t)count + 1) * sizeof(ftr_tensor);
    ftr_tensor *in = ftr__arena_alloc(arena, bytes);
    if (!in) return ftr__out_of_memory(graph->context, "grad_norm", bytes);
    if (scaler->scale) in[0] = (ftr_tensor){graph, scaler->scale};
    for (int32_t i = 0; i < count; i++) in[i + 1] = (ftr_tensor){graph, gradients[i]};
    const ftr_tensor norm = ftr__emit(graph, FTR_OP_grad_norm, "grad_norm", attr, in, count + 1);
    if (!ftr_is_valid(norm)) return graph->status;
    scaler->norm = norm.id;
    scaler->found_inf = norm.id + 1;
    scaler->factor = norm.id + 2;
    scaler->used = norm.id + 3;
    return FTR_OK;
}

/* Running statistics and the like: a step that is left out does not move them. */
static ftr_status ftr__scaler_hold_statistics(ftr_graph *graph, int32_t found_inf) {
    for (int32_t n = 0; n < graph->node_count; n++) {
        ftr__node *node = &graph->nodes[n];
        if (node->op != FTR_OP_ema_update || node->dead || (node->in_count > 2 && node->in[2])) continue;
        int32_t *in = ftr__arena_alloc(&graph->arena, 3 * sizeof *in);
        if (!in) return ftr__out_of_memory(graph->context, "scaler", 3 * sizeof *in);
        in[0] = node->in[0];
        in[1] = node->in[1];
        in[2] = found_inf;
        node->in = in;
        node->in_count = 3;
    }
    return FTR_OK;
}

ftr_status ftr__scaler_end(ftr_graph *graph, const ftr__scaler *scaler, const ftr_scaler_desc *desc) {
    if (!scaler->scale) return FTR_OK;
    const ftr_status status = ftr__scaler_hold_statistics(graph, scaler->found_inf);
    if (status || desc->scaling == FTR_SCALING_FIXED) return status;
    const ftr_tensor steps =
        ftr__add_source(graph, FTR_OP_buffer, "scaler.growth_tracker", FTR_I64, ftr_scalar_shape());
    const ftr_tensor in[3] = {{graph, scaler->scale}, steps, {graph, scaler->found_inf}};
    const ftr_op_attr attr = {.scale_update = {desc->growth_factor, desc->backoff_factor, desc->growth_interval}};
    ftr__emit(graph, FTR_OP_scale_update, "scaler", &attr, in, 3);
    return graph->status;
}
