/* Dropout (Srivastava et al., JMLR 2014) and stochastic depth (Huang et al., ECCV 2016), scaled while training. */
#include "ops/registry.h"

#include "core/rng.h"

static ftr_tensor ftr__drop(ftr_op op, ftr_tensor x, double p) {
    ftr_op_attr attr = {.dropout = {p, 0}};
    return ftr__emit_one(op, &attr, x);
}

ftr_tensor ftr_dropout(ftr_tensor x, double p) { return ftr__drop(FTR_OP_dropout, x, p); }
ftr_tensor ftr_stochastic_depth(ftr_tensor x, double p) { return ftr__drop(FTR_OP_stochastic_depth, x, p); }

/* The key comes from the node's name, which depends on the program alone; a gradient brings its forward node's. */
ftr_status ftr__infer_dropout(ftr__infer *s) {
    double p = s->node->attr.dropout.p;
    ftr_status status = ftr__check_float(s, 0, "input");
    if (status != FTR_OK) return status;
    if (!(p >= 0.0 && p <= 1.0)) return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "p %g, expected 0 to 1", p);
    if (s->node->attr.dropout.key == 0) {
        uint64_t key = ftr__hash(s->node->name);
        s->node->attr.dropout.key = key != 0 ? key : 1;
    }
    return ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
}

ftr_status ftr__infer_stochastic_depth(ftr__infer *s) {
    if (s->in[0]->shape.rank < 1)
        return ftr__infer_error(s, FTR_ERROR_RANK, "input has rank 0, expected 1 or more (n, ...)");
    return ftr__infer_dropout(s);
}

/* The same op with the same key: the same mask. */
static void ftr__grad_drop(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_one(s->node->op, &s->node->attr, s->dout[0]);
}

void ftr__grad_dropout(ftr__grad *s) { ftr__grad_drop(s); }
void ftr__grad_stochastic_depth(ftr__grad *s) { ftr__grad_drop(s); }
