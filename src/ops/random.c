/* Dropout (Srivastava et al., JMLR 2014) and stochastic depth (Huang et al., ECCV 2016), scaled while training; random
 * tensors. */
#include "ops/registry.h"

#include "core/rng.h"

#include <math.h>
#include <string.h>

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

/* ---- random tensors */

static ftr_tensor ftr__random_tensor(ftr_graph *graph, ftr_op op, const char *name, const ftr_shape *shape, double a,
                                     double b) {
    ftr_tensor none = {NULL, 0};
    if (graph == NULL) return none;
    if (name != NULL && name[0] == '\0')
        return ftr__builder_error(graph, FTR_ERROR_NAME, ftr_op_name(op), NULL, "the name is empty");
    ftr_op_attr attr = {.random = {(float)a, (float)b, 0, *shape}};
    ftr_tensor tensor = ftr__emit(graph, op, name, &attr, NULL, 0);
    const ftr__node *node = ftr__producer(tensor);
    for (int32_t i = 0; node != NULL && i < graph->node_count; i++) {
        const ftr__node *other = &graph->nodes[i];
        bool random = other->op == FTR_OP_random_uniform || other->op == FTR_OP_random_normal;
        if (random && other != node && strcmp(other->name, node->name) == 0)
            return ftr__builder_error(graph, FTR_ERROR_NAME, ftr_op_name(op), node->name,
                                      "the name is used by another random tensor");
    }
    return tensor;
}

ftr_tensor ftr_random_uniform(ftr_graph *graph, const char *name, ftr_shape shape, double low, double high) {
    return ftr__random_tensor(graph, FTR_OP_random_uniform, name, &shape, low, high);
}

ftr_tensor ftr_random_normal(ftr_graph *graph, const char *name, ftr_shape shape, double mean, double std) {
    return ftr__random_tensor(graph, FTR_OP_random_normal, name, &shape, mean, std);
}

static ftr_status ftr__infer_random(ftr__infer *s) {
    ftr_op_attr *attr = &s->node->attr;
    const ftr_shape *shape = &attr->random.shape;
    char text[FTR__SHAPE_TEXT];
    if (shape->rank < 0 || shape->rank > FTR_MAX_RANK)
        return ftr__infer_error(s, FTR_ERROR_RANK, "rank is %d, expected 0 to %d", (int)shape->rank, FTR_MAX_RANK);
    if (ftr_shape_count(shape) < 0)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "shape %s has a negative or too large size",
                                ftr__shape_text(shape, text));
    attr->random.key = ftr__hash(s->node->name);
    return ftr__set_output(s, 0, FTR_F32, shape);
}

ftr_status ftr__infer_random_uniform(ftr__infer *s) {
    const float low = s->node->attr.random.a, high = s->node->attr.random.b;
    if (!(low <= high) || !isfinite(high - low))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT,
                                "low %g, high %g: expected low <= high and a difference that f32 holds", (double)low,
                                (double)high);
    return ftr__infer_random(s);
}

ftr_status ftr__infer_random_normal(ftr__infer *s) {
    const float mean = s->node->attr.random.a, std = s->node->attr.random.b;
    if (!isfinite(mean) || !isfinite(std) || std < 0.0f)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT,
                                "mean %g, std %g: expected finite numbers, std of 0 or more", (double)mean,
                                (double)std);
    return ftr__infer_random(s);
}
