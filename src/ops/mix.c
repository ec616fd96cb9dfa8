/* Mixup (Zhang et al., ICLR 2018) and cutmix (Yun et al., ICCV 2019) of a batch. */
#include "ops/registry.h"

#include "core/rng.h"

#include <math.h>
#include <string.h>

#define FTR__COOKIE_MIX 0x4d495821u

ftr_mix_desc ftr_mix_defaults(void) { return (ftr_mix_desc){FTR__COOKIE_MIX, 0.5, 0.5, 0.2, 1.0, FTR_MIX_ROLL}; }

/* ---- how a batch is mixed */

/* Whether another draw has the node's name, and thus its numbers. */
static bool ftr__mix_name_is_taken(const ftr_graph *graph, const ftr__node *node) {
    for (int32_t i = 0; i < graph->node_count; i++) {
        const ftr__node *other = &graph->nodes[i];
        if (other->op == FTR_OP_mix_draw && other != node && strcmp(other->name, node->name) == 0) return true;
    }
    return false;
}

ftr_mix ftr_mix_draw(ftr_tensor images, const char *name, const ftr_mix_desc *desc) {
    const ftr_mix none = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
    const ftr_mix_desc d = desc != NULL ? *desc : ftr_mix_defaults();
    ftr_graph *graph = ftr__common_graph("mix_draw", &images, 1, 1);
    if (graph == NULL) return none;
    const ftr_shape shape = ftr_shape_of(images);
    if (d.cookie != FTR__COOKIE_MIX) {
        (void)ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "mix_draw", NULL,
                                 "desc was not made by ftr_mix_defaults()");
        return none;
    }
    if ((name != NULL && name[0] == '\0') || shape.rank < 1) {
        (void)ftr__builder_error(graph, shape.rank < 1 ? FTR_ERROR_RANK : FTR_ERROR_NAME, "mix_draw", NULL,
                                 shape.rank < 1 ? "images have rank 0, expected 1 or more (n, ...)"
                                                : "the name is empty");
        return none;
    }
    ftr_op_attr attr = {.mix = {.mixup = d.mixup,
                                .cutmix = d.cutmix,
                                .mixup_alpha = d.mixup_alpha,
                                .cutmix_alpha = d.cutmix_alpha,
                                .rows = shape.dim[0],
                                .pairs = d.pairs}};
    for (int32_t i = 0; i < 2 && d.cutmix > 0.0; i++) attr.mix.image[i] = shape.rank > 2 ? shape.dim[i + 1] : 0;
    const ftr_tensor mask = ftr__row_mask(graph, &shape, FTR_F32);
    const ftr_tensor weights = ftr__emit(graph, FTR_OP_mix_draw, name, &attr, &mask, 1);
    const ftr__node *node = ftr__producer(weights);
    if (node == NULL) return none;
    if (ftr__mix_name_is_taken(graph, node)) {
        (void)ftr__builder_error(graph, FTR_ERROR_NAME, "mix_draw", node->name, "the name is used by another mix_draw");
        return none;
    }
    const ftr_tensor no_box = {NULL, 0};
    return (ftr_mix){weights, ftr__output(weights, 1), d.cutmix > 0.0 ? ftr__output(weights, 2) : no_box};
}

static ftr_status ftr__check_mix_draw(ftr__infer *s) {
    const ftr_op_attr *a = &s->node->attr;
    const double mixup = a->mix.mixup, cutmix = a->mix.cutmix;
    if (!(mixup >= 0.0 && cutmix >= 0.0 && mixup + cutmix <= 1.0))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT,
                                "mixup %g, cutmix %g: expected probabilities that add up to 1 or less", mixup, cutmix);
    const double alpha[2] = {a->mix.mixup_alpha, a->mix.cutmix_alpha};
    for (int32_t i = 0; i < 2; i++)
        if (!(alpha[i] > 0.0) || !isfinite(alpha[i]))
            return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "%s_alpha %g, expected a finite number above 0",
                                    i == 0 ? "mixup" : "cutmix", alpha[i]);
    if (a->mix.pairs != FTR_MIX_ROLL && a->mix.pairs != FTR_MIX_PERMUTE)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "pairs %d, expected FTR_MIX_ROLL or FTR_MIX_PERMUTE",
                                (int)a->mix.pairs);
    for (int32_t i = 0; i < 2 && cutmix > 0.0; i++)
        if (a->mix.image[i] < 1 || a->mix.image[i] > INT32_MAX)
            return ftr__infer_error(s, FTR_ERROR_SHAPE,
                                    "images of %lld x %lld with cutmix, expected [n, h, w, ..], h and w 1 to %d",
                                    (long long)a->mix.image[0], (long long)a->mix.image[1], INT32_MAX);
    if (a->mix.rows > INT32_MAX)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "a batch of %lld, expected up to %d", (long long)a->mix.rows,
                                INT32_MAX);
    return FTR_OK;
}

ftr_status ftr__infer_mix_draw(ftr__infer *s) {
    ftr_status status = ftr__check_mix_draw(s);
    if (status != FTR_OK) return status;
    ftr_op_attr *attr = &s->node->attr;
    attr->mix.key = ftr__hash(s->node->name);
    const ftr_shape rows = {1, {attr->mix.rows}}, four = {1, {4}};
    status = ftr__set_output(s, 0, FTR_F32, &four);
    if (status == FTR_OK) status = ftr__set_output(s, 1, FTR_I32, &rows);
    return status == FTR_OK ? ftr__set_output(s, 2, FTR_I32, &four) : status;
}

/* ---- mixing */

/* False, with the error recorded, if the mix was drawn for images of another size. */
static bool ftr__mix_fits(ftr_tensor x, ftr_mix mix) {
    const ftr__node *node = ftr__producer(mix.box);
    const ftr_shape shape = ftr_shape_of(x);
    if (node == NULL || node->op != FTR_OP_mix_draw || shape.rank < 3) return true;
    const int64_t *drawn = node->attr.mix.image;
    if (shape.dim[1] == drawn[0] && shape.dim[2] == drawn[1]) return true;
    (void)ftr__builder_error(x.graph, FTR_ERROR_SHAPE, "mix_images", NULL,
                             "x is %lld x %lld, '%s' was drawn for %lld x %lld", (long long)shape.dim[1],
                             (long long)shape.dim[2], node->name, (long long)drawn[0], (long long)drawn[1]);
    return false;
}

ftr_tensor ftr_mix_images(ftr_tensor x, ftr_mix mix) {
    const ftr_tensor in[4] = {x, mix.weights, mix.partners, mix.box};
    if (ftr__common_graph("mix_images", in, 4, 3) == NULL || !ftr__mix_fits(x, mix)) return (ftr_tensor){NULL, 0};
    const ftr_op_attr attr = {.mix = {.targets = false}};
    return ftr__emit(x.graph, FTR_OP_mix, NULL, &attr, in, 4);
}

ftr_tensor ftr_mix_targets(ftr_tensor targets, ftr_mix mix) {
    const ftr_tensor in[3] = {targets, mix.weights, mix.partners};
    if (ftr__common_graph("mix_targets", in, 3, 3) == NULL) return (ftr_tensor){NULL, 0};
    const ftr_op_attr attr = {.mix = {.targets = true}};
    return ftr__emit(targets.graph, FTR_OP_mix, NULL, &attr, in, 3);
}

/* [size] of a type. */
static ftr_status ftr__check_mix_vector(ftr__infer *s, int32_t input, const char *what, ftr_dtype dtype, int64_t size) {
    const ftr__value *value = s->in[input];
    char text[FTR__SHAPE_TEXT];
    if (value->dtype != dtype)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s are %s, expected %s", what, ftr_dtype_name(value->dtype),
                                ftr_dtype_name(dtype));
    if (value->shape.rank == 1 && value->shape.dim[0] == size) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s are %s, expected [%lld]", what,
                            ftr__shape_text(&value->shape, text), (long long)size);
}

static ftr_status ftr__mix_shape(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "input");
    if (status != FTR_OK) return status;
    const ftr_shape *shape = &s->in[0]->shape;
    const bool boxed = s->in_count > 3 && s->in[3] != NULL;
    if (shape->rank < (boxed ? 3 : 2))
        return ftr__infer_error(s, FTR_ERROR_RANK, "input has rank %d, expected %s", (int)shape->rank,
                                boxed ? "3 or more (n, h, w, ...)" : "2 or more (n, ...)");
    status = ftr__check_mix_vector(s, 1, "weights", FTR_F32, 4);
    if (status == FTR_OK) status = ftr__check_mix_vector(s, 2, "partners", FTR_I32, shape->dim[0]);
    if (status == FTR_OK && boxed) status = ftr__check_mix_vector(s, 3, "bounds of the box", FTR_I32, 4);
    return status == FTR_OK ? ftr__set_output(s, 0, s->in[0]->dtype, shape) : status;
}

ftr_status ftr__infer_mix(ftr__infer *s) { return ftr__mix_shape(s); }
ftr_status ftr__infer_mix_grad(ftr__infer *s) { return ftr__mix_shape(s); }

void ftr__grad_mix(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    const ftr_tensor none = {NULL, 0};
    const ftr_tensor in[4] = {s->dout[0], s->in[1], s->in[2], s->node->in_count > 3 ? s->in[3] : none};
    s->din[0] = ftr__emit(s->graph, FTR_OP_mix_grad, NULL, &s->node->attr, in, 4);
}
