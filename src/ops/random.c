/* Dropout (Srivastava et al., JMLR 2014), scaled while training. */
#include "ops/registry.h"

#include "core/rng.h"

ftr_tensor ftr_dropout(ftr_tensor x, double p) {
    ftr_op_attr attr = {.dropout = {p, 0}};
    return ftr__emit_one(FTR_OP_dropout, &attr, x);
}

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

void ftr__grad_dropout(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_one(FTR_OP_dropout, &s->node->attr, s->dout[0]);
}
