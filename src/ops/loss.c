/* Softmax, losses and accuracy. */
#include "ops/registry.h"

#include <math.h>

#define FTR__COOKIE_CROSS_ENTROPY 0x43524f53u

/* ---- softmax */

static ftr_tensor ftr__axis_op(ftr_op op, ftr_tensor x, int32_t axis) {
    ftr_op_attr attr = {.axis = {axis}};
    return ftr__emit_one(op, &attr, x);
}

ftr_tensor ftr_softmax(ftr_tensor x, int32_t axis) { return ftr__axis_op(FTR_OP_softmax, x, axis); }
ftr_tensor ftr_log_softmax(ftr_tensor x, int32_t axis) { return ftr__axis_op(FTR_OP_log_softmax, x, axis); }

static ftr_status ftr__softmax_shape(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, s->in_count > 1 ? "dy" : "input");
    if (status == FTR_OK) status = ftr__check_axis(s, &s->node->attr.axis.axis, s->in[0]->shape.rank);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
}

static ftr_status ftr__softmax_grad_shape(ftr__infer *s) {
    ftr_status status = ftr__check_same_type(s, 0, 1, "dy", "y");
    if (status == FTR_OK) status = ftr__check_same_shape(s, 0, 1, "dy", "y");
    return status != FTR_OK ? status : ftr__softmax_shape(s);
}

ftr_status ftr__infer_softmax(ftr__infer *s) { return ftr__softmax_shape(s); }
ftr_status ftr__infer_log_softmax(ftr__infer *s) { return ftr__softmax_shape(s); }
ftr_status ftr__infer_softmax_grad(ftr__infer *s) { return ftr__softmax_grad_shape(s); }
ftr_status ftr__infer_log_softmax_grad(ftr__infer *s) { return ftr__softmax_grad_shape(s); }

void ftr__grad_softmax(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_two(FTR_OP_softmax_grad, &s->node->attr, s->dout[0], s->out[0]);
}

void ftr__grad_log_softmax(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_two(FTR_OP_log_softmax_grad, &s->node->attr, s->dout[0], s->out[0]);
}

/* ---- masked rows */

ftr_tensor ftr__row_mask(ftr_graph *graph, const ftr_shape *shape, ftr_dtype dtype) {
    ftr_tensor none = {NULL, 0};
    if (graph->batch_mask == 0 || shape->rank < 1 || !ftr__is_float(dtype)) return none;
    ftr_tensor mask = {graph, graph->batch_mask};
    if (ftr_shape_of(mask).dim[0] != shape->dim[0]) return none;
    return ftr__cast_to(mask, dtype);
}

/* x [n, ..] with the masked rows as 0, whatever they hold. */
static ftr_tensor ftr__zero_masked_rows(ftr_tensor x, ftr_tensor mask) {
    ftr_shape rows = ftr_shape_of(x);
    ftr_tensor zero = ftr_scalar(x.graph, ftr_dtype_of(x), 0.0);
    for (int32_t i = 1; i < rows.rank; i++) rows.dim[i] = 1;
    return ftr_where(ftr_ne(ftr__reshape_to(mask, &rows), zero), x, zero);
}

/* Sum or mean of x [n, ..] over the rows that count. */
static ftr_tensor ftr__reduce_real_rows(ftr_tensor x, ftr_reduction reduction) {
    ftr_shape shape = ftr_shape_of(x);
    ftr_dtype dtype = ftr_dtype_of(x);
    if (!ftr_is_valid(x)) return x;
    ftr_tensor mask = ftr__row_mask(x.graph, &shape, dtype);
    if (ftr_is_valid(mask)) x = ftr__zero_masked_rows(x, mask);
    if (reduction == FTR_REDUCE_NONE) return x;
    if (reduction == FTR_REDUCE_SUM) return ftr_sum(x, ftr_all_axes(), false);
    if (reduction == FTR_REDUCE_BATCH_MEAN) {
        ftr_tensor rows = ftr_is_valid(mask) ? ftr_sum(mask, ftr_all_axes(), false)
                                             : ftr_scalar(x.graph, dtype, (double)shape.dim[0]);
        return ftr_div(ftr_sum(x, ftr_all_axes(), false), rows);
    }
    if (!ftr_is_valid(mask)) return ftr_mean(x, ftr_all_axes(), false);
    double trailing = 1.0;
    for (int32_t i = 1; i < shape.rank; i++) trailing *= (double)shape.dim[i];
    ftr_tensor count = ftr_sum(mask, ftr_all_axes(), false);
    if (shape.rank > 1) count = ftr_mul(count, ftr_scalar(x.graph, dtype, trailing));
    return ftr_div(ftr_sum(x, ftr_all_axes(), false), count);
}

/* ---- cross entropy */

ftr_cross_entropy_desc ftr_cross_entropy_defaults(void) {
    ftr_cross_entropy_desc desc = {FTR__COOKIE_CROSS_ENTROPY, 0.0, -100, {NULL, 0}, FTR_REDUCE_MEAN};
    return desc;
}

/* Refuses what ftr__soft_cross_entropy() does not take. */
static bool ftr__check_soft_targets(ftr_tensor logits, ftr_tensor targets, const ftr_cross_entropy_desc *d) {
    const char *what = "cross_entropy";
    ftr_graph *graph = logits.graph;
    const ftr_shape shape = ftr_shape_of(logits), shape_targets = ftr_shape_of(targets);
    const ftr_shape weights = ftr_shape_of(d->class_weights);
    const ftr_dtype dtype = ftr_dtype_of(logits), other = ftr_dtype_of(targets);
    const int64_t classes = shape.dim[shape.rank - 1];
    const bool weighted = d->class_weights.graph != NULL;
    char text[FTR__SHAPE_TEXT], text_logits[FTR__SHAPE_TEXT];
    (void)ftr__shape_text(&shape, text_logits);
    if (!(d->label_smoothing >= 0.0 && d->label_smoothing <= 1.0))
        (void)ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, NULL, "label_smoothing %g, expected 0 to 1",
                                 d->label_smoothing);
    else if ((int)d->reduction < (int)FTR_REDUCE_MEAN || (int)d->reduction > (int)FTR_REDUCE_NONE)
        (void)ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, NULL, "reduction %d, expected 0 to %d",
                                 (int)d->reduction, (int)FTR_REDUCE_NONE);
    else if (d->ignore_index >= 0)
        (void)ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, NULL,
                                 "ignore_index %lld with class probabilities as targets, expected a number below 0",
                                 (long long)d->ignore_index);
    else if (dtype != other)
        (void)ftr__builder_error(graph, FTR_ERROR_DTYPE, what, NULL, "class probabilities are %s, logits are %s",
                                 ftr_dtype_name(other), ftr_dtype_name(dtype));
    else if (!ftr_shape_equal(&shape, &shape_targets))
        (void)ftr__builder_error(graph, FTR_ERROR_SHAPE, what, NULL, "class probabilities are %s, logits are %s",
                                 ftr__shape_text(&shape_targets, text), text_logits);
    else if (classes < 1)
        (void)ftr__builder_error(graph, FTR_ERROR_SHAPE, what, NULL, "logits %s have no classes", text_logits);
    else if (weighted && (weights.rank != 1 || weights.dim[0] != classes))
        (void)ftr__builder_error(graph, FTR_ERROR_SHAPE, what, NULL, "class weights is %s, expected [%lld]",
                                 ftr__shape_text(&weights, text), (long long)classes);
    else if (weighted && ftr_dtype_of(d->class_weights) != dtype)
        (void)ftr__builder_error(graph, FTR_ERROR_DTYPE, what, NULL, "class weights is %s, expected %s",
                                 ftr_dtype_name(ftr_dtype_of(d->class_weights)), ftr_dtype_name(dtype));
    else
        return true;
    return false;
}

/* - sum over classes of w[c] ((1 - e) t[c] + e / C) log p[c], of each row. */
static ftr_tensor ftr__soft_cross_entropy(ftr_tensor logits, ftr_tensor targets, const ftr_cross_entropy_desc *d) {
    if (!ftr__check_soft_targets(logits, targets, d)) return (ftr_tensor){NULL, 0};
    const ftr_shape shape = ftr_shape_of(logits);
    const double e = d->label_smoothing, classes = (double)shape.dim[shape.rank - 1];
    const int32_t last = shape.rank - 1;
    if (e > 0.0)
        targets =
            ftr_add(ftr_mul(targets, ftr__scalar_beside(targets, 1.0 - e)), ftr__scalar_beside(targets, e / classes));
    if (d->class_weights.graph != NULL) targets = ftr_mul(targets, d->class_weights);
    const ftr_tensor terms = ftr_mul(ftr_log_softmax(logits, -1), targets);
    const ftr_tensor rows = ftr_neg(ftr__sum_mask(terms, 1u << last, false));
    return ftr__reduce_real_rows(rows, d->reduction);
}

ftr_tensor ftr_cross_entropy(ftr_tensor logits, ftr_tensor labels, const ftr_cross_entropy_desc *desc) {
    ftr_tensor none = {NULL, 0};
    ftr_cross_entropy_desc d = desc != NULL ? *desc : ftr_cross_entropy_defaults();
    bool known = d.cookie == FTR__COOKIE_CROSS_ENTROPY;
    ftr_tensor in[4] = {logits, labels, known ? d.class_weights : none, none};
    ftr_graph *graph = ftr__common_graph("cross_entropy", in, 3, 2);
    if (graph == NULL) return none;
    if (!known)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "cross_entropy", NULL,
                                  "desc was not made by ftr_cross_entropy_defaults()");
    ftr_shape rows = ftr_shape_of(labels);
    if (ftr__is_float(ftr_dtype_of(labels)) && rows.rank > 0 && rows.rank == ftr_shape_of(logits).rank) {
        const int32_t first = ftr__node_count(logits);
        return ftr__keep_f32(ftr__soft_cross_entropy(logits, labels, &d), first);
    }
    in[3] = ftr__row_mask(graph, &rows, ftr_dtype_of(logits));
    ftr_op_attr attr = {.cross_entropy = {d.label_smoothing, d.ignore_index, d.reduction}};
    return ftr__emit(graph, FTR_OP_cross_entropy, NULL, &attr, in, 4);
}

static ftr_status ftr__check_cross_entropy_attr(ftr__infer *s) {
    double smoothing = s->node->attr.cross_entropy.label_smoothing;
    int reduction = (int)s->node->attr.cross_entropy.reduction;
    if (!(smoothing >= 0.0 && smoothing <= 1.0))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "label_smoothing %g, expected 0 to 1", smoothing);
    if (reduction < (int)FTR_REDUCE_MEAN || reduction > (int)FTR_REDUCE_NONE)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "reduction %d, expected 0 to %d", reduction,
                                (int)FTR_REDUCE_NONE);
    return FTR_OK;
}

/* logits [.., classes] against labels [..], which are inputs `first` and first + 1. */
static ftr_status ftr__check_labels(ftr__infer *s, int32_t first) {
    const ftr__value *logits = s->in[first], *labels = s->in[first + 1];
    const bool nll = s->node->op == FTR_OP_nll || s->node->op == FTR_OP_nll_grad;
    const char *what = nll ? "log-probabilities" : "logits";
    ftr_status status = ftr__check_float(s, first, what);
    if (status != FTR_OK) return status;
    if (labels->dtype != FTR_I32 && labels->dtype != FTR_I64)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "labels are %s, expected i32 or i64",
                                ftr_dtype_name(labels->dtype));
    if (logits->shape.rank < 1)
        return ftr__infer_error(s, FTR_ERROR_RANK, "%s have rank 0, expected 1 or more (..., classes)", what);
    char text[FTR__SHAPE_TEXT], text_logits[FTR__SHAPE_TEXT], text_rows[FTR__SHAPE_TEXT];
    if (logits->shape.dim[logits->shape.rank - 1] < 1)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s %s have no classes", what,
                                ftr__shape_text(&logits->shape, text_logits));
    ftr_shape rows = logits->shape;
    rows.rank--;
    if (ftr_shape_equal(&rows, &labels->shape)) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "labels are %s, expected %s for %s %s",
                            ftr__shape_text(&labels->shape, text), ftr__shape_text(&rows, text_rows), what,
                            ftr__shape_text(&logits->shape, text_logits));
}

static ftr_status ftr__check_row_weights(ftr__infer *s, int32_t weights, const ftr__value *logits,
                                         const ftr__value *labels) {
    if (s->in_count > weights && s->in[weights] != NULL) {
        ftr_status status = ftr__check_vector(s, weights, "class weights", logits->shape.dim[logits->shape.rank - 1]);
        if (status != FTR_OK) return status;
    }
    if (s->in_count <= weights + 1 || s->in[weights + 1] == NULL) return FTR_OK;
    return ftr__check_vector(s, weights + 1, "row mask", labels->shape.rank > 0 ? labels->shape.dim[0] : 1);
}

ftr_status ftr__infer_cross_entropy(ftr__infer *s) {
    ftr_status status = ftr__check_cross_entropy_attr(s);
    if (status == FTR_OK) status = ftr__check_labels(s, 0);
    if (status == FTR_OK) status = ftr__check_row_weights(s, 2, s->in[0], s->in[1]);
    if (status != FTR_OK) return status;
    ftr_dtype dtype = s->in[0]->dtype;
    ftr_shape scalar = ftr_scalar_shape(), rows = s->in[1]->shape;
    bool each = s->node->attr.cross_entropy.reduction == FTR_REDUCE_NONE;
    status = ftr__set_output(s, 0, dtype, each ? &rows : &scalar);
    if (status == FTR_OK) status = ftr__set_output(s, 1, dtype, &rows);
    return status != FTR_OK ? status : ftr__set_output(s, 2, dtype, &scalar);
}

ftr_status ftr__infer_cross_entropy_grad(ftr__infer *s) {
    ftr_status status = ftr__check_cross_entropy_attr(s);
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dloss", "logits");
    if (status == FTR_OK) status = ftr__check_labels(s, 1);
    if (status == FTR_OK) status = ftr__check_same_shape(s, 2, 3, "labels", "log of the sums");
    if (status == FTR_OK) status = ftr__check_row_weights(s, 5, s->in[1], s->in[2]);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[1]->dtype, &s->in[1]->shape);
}

void ftr__grad_cross_entropy(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_tensor none = {NULL, 0};
    int32_t count = s->node->in_count;
    ftr_tensor in[7] = {
        s->dout[0], s->in[0], s->in[1], s->out[1], s->out[2], count > 2 ? s->in[2] : none, count > 3 ? s->in[3] : none};
    s->din[0] = ftr__emit(s->graph, FTR_OP_cross_entropy_grad, NULL, &s->node->attr, in, 7);
}

/* ---- losses made of other ops */

/* The graph of two operands of one floating type and shape, and a reduction up to `last`; NULL with the error
 * recorded. */
static ftr_graph *ftr__loss_begin(const char *what, const char *word, ftr_tensor prediction, ftr_tensor target,
                                  ftr_reduction reduction, ftr_reduction last) {
    ftr_tensor in[2] = {prediction, target};
    ftr_graph *graph = ftr__common_graph(what, in, 2, 2);
    if (graph == NULL) return NULL;
    ftr_dtype found = ftr_dtype_of(prediction), other = ftr_dtype_of(target);
    ftr_shape shape = ftr_shape_of(prediction), shape_target = ftr_shape_of(target);
    char text[FTR__SHAPE_TEXT], text_target[FTR__SHAPE_TEXT];
    if ((int)reduction < (int)FTR_REDUCE_MEAN || (int)reduction > (int)last)
        (void)ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, NULL, "reduction %d, expected 0 to %d",
                                 (int)reduction, (int)last);
    else if (!ftr__is_float(found))
        (void)ftr__builder_error(graph, FTR_ERROR_DTYPE, what, NULL, "%s is %s, expected floating point", word,
                                 ftr_dtype_name(found));
    else if (found != other)
        (void)ftr__builder_error(graph, FTR_ERROR_DTYPE, what, NULL, "%s is %s, target is %s: both must have one type",
                                 word, ftr_dtype_name(found), ftr_dtype_name(other));
    else if (!ftr_shape_equal(&shape, &shape_target))
        (void)ftr__builder_error(graph, FTR_ERROR_SHAPE, what, NULL, "%s is %s, target is %s: both must have one shape",
                                 word, ftr__shape_text(&shape, text), ftr__shape_text(&shape_target, text_target));
    else
        return graph;
    return NULL;
}

static ftr_tensor ftr__mse_nodes(ftr_tensor prediction, ftr_tensor target, ftr_reduction reduction) {
    if (ftr__loss_begin("mse", "prediction", prediction, target, reduction, FTR_REDUCE_NONE) == NULL)
        return (ftr_tensor){NULL, 0};
    ftr_tensor difference = ftr_sub(prediction, target);
    return ftr__reduce_real_rows(ftr_mul(difference, difference), reduction);
}

ftr_tensor ftr_mse(ftr_tensor prediction, ftr_tensor target, ftr_reduction reduction) {
    const int32_t first = ftr__node_count(prediction);
    return ftr__keep_f32(ftr__mse_nodes(prediction, target, reduction), first);
}

/* |x|; its gradient at 0 is 0, for the maximum shares it. */
static ftr_tensor ftr__loss_size(ftr_tensor x) { return ftr_maximum(x, ftr_neg(x)); }

/* With m = min(|d|, beta): m (|d| - m / 2) / beta, which is |d| where beta is 0. */
static ftr_tensor ftr__smooth_l1_nodes(ftr_tensor prediction, ftr_tensor target, double beta, ftr_reduction reduction) {
    ftr_graph *graph = ftr__loss_begin("smooth_l1", "prediction", prediction, target, reduction, FTR_REDUCE_NONE);
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    if (!(beta >= 0.0) || !isfinite(beta))
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "smooth_l1", NULL,
                                  "beta %g, expected a finite number of 0 or more", beta);
    ftr_dtype dtype = ftr_dtype_of(prediction);
    ftr_tensor size = ftr__loss_size(ftr_sub(prediction, target));
    if (beta == 0.0) return ftr__reduce_real_rows(size, reduction);
    ftr_tensor least = ftr_neg(ftr_maximum(ftr_neg(size), ftr_scalar(graph, dtype, -beta)));
    ftr_tensor rest = ftr_sub(size, ftr_mul(least, ftr_scalar(graph, dtype, 0.5)));
    return ftr__reduce_real_rows(ftr_mul(ftr_div(least, ftr_scalar(graph, dtype, beta)), rest), reduction);
}

ftr_tensor ftr_smooth_l1(ftr_tensor prediction, ftr_tensor target, double beta, ftr_reduction reduction) {
    const int32_t first = ftr__node_count(prediction);
    return ftr__keep_f32(ftr__smooth_l1_nodes(prediction, target, beta, reduction), first);
}

/* (1 - t) x + (1 + (w - 1) t) log(1 + e^-x) */
static ftr_tensor ftr__bce_with_logits_nodes(ftr_tensor logits, ftr_tensor target, const ftr_bce_desc *desc) {
    ftr_tensor none = {NULL, 0}, in[3] = {logits, target, desc != NULL ? desc->pos_weight : none};
    ftr_reduction reduction = desc != NULL ? desc->reduction : FTR_REDUCE_MEAN;
    ftr_graph *graph = ftr__common_graph("bce_with_logits", in, 3, 2);
    if (graph == NULL) return none;
    graph = ftr__loss_begin("bce_with_logits", "logits", logits, target, reduction, FTR_REDUCE_NONE);
    if (graph == NULL) return none;
    ftr_dtype dtype = ftr_dtype_of(logits);
    const bool weighted = in[2].graph != NULL;
    ftr_shape shape = ftr_shape_of(logits), shape_weight = ftr_shape_of(in[2]), both;
    char text[FTR__SHAPE_TEXT], text_weight[FTR__SHAPE_TEXT];
    if (weighted && ftr_dtype_of(in[2]) != dtype)
        return ftr__builder_error(graph, FTR_ERROR_DTYPE, "bce_with_logits", NULL, "pos_weight is %s, expected %s",
                                  ftr_dtype_name(ftr_dtype_of(in[2])), ftr_dtype_name(dtype));
    if (weighted && (!ftr__broadcast_shape(&shape, &shape_weight, &both) || !ftr_shape_equal(&shape, &both)))
        return ftr__builder_error(graph, FTR_ERROR_SHAPE, "bce_with_logits", NULL,
                                  "pos_weight %s does not broadcast to logits %s",
                                  ftr__shape_text(&shape_weight, text_weight), ftr__shape_text(&shape, text));
    ftr_tensor one = ftr_scalar(graph, dtype, 1.0), positive = ftr_softplus(ftr_neg(logits), 1.0, INFINITY);
    if (weighted) positive = ftr_mul(ftr_add(ftr_mul(ftr_sub(in[2], one), target), one), positive);
    return ftr__reduce_real_rows(ftr_add(ftr_mul(ftr_sub(one, target), logits), positive), reduction);
}

ftr_tensor ftr_bce_with_logits(ftr_tensor logits, ftr_tensor target, const ftr_bce_desc *desc) {
    const int32_t first = ftr__node_count(logits);
    return ftr__keep_f32(ftr__bce_with_logits_nodes(logits, target, desc), first);
}

/* t (log t - x) with 0 log 0 = 0, or e^t (t - x). */
static ftr_tensor ftr__kl_div_nodes(ftr_tensor input, ftr_tensor target, bool log_target, ftr_reduction reduction) {
    ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__loss_begin("kl_div", "input", input, target, reduction, FTR_REDUCE_BATCH_MEAN);
    if (graph == NULL) return none;
    ftr_dtype dtype = ftr_dtype_of(input);
    if (reduction == FTR_REDUCE_BATCH_MEAN && ftr_shape_of(input).rank < 1)
        return ftr__builder_error(graph, FTR_ERROR_RANK, "kl_div", NULL,
                                  "input has rank 0, a batch mean needs 1 or more");
    if (log_target) return ftr__reduce_real_rows(ftr_mul(ftr_exp(target), ftr_sub(target, input)), reduction);
    ftr_tensor absent = ftr_eq(target, ftr_scalar(graph, dtype, 0.0));
    ftr_tensor present = ftr_where(absent, ftr_scalar(graph, dtype, 1.0), target);
    return ftr__reduce_real_rows(ftr_mul(target, ftr_sub(ftr_log(present), input)), reduction);
}

ftr_tensor ftr_kl_div(ftr_tensor input, ftr_tensor target, bool log_target, ftr_reduction reduction) {
    const int32_t first = ftr__node_count(input);
    return ftr__keep_f32(ftr__kl_div_nodes(input, target, log_target, reduction), first);
}

/* ---- negative log-likelihood */

ftr_tensor ftr_nll(ftr_tensor log_probabilities, ftr_tensor labels, const ftr_cross_entropy_desc *desc) {
    ftr_tensor none = {NULL, 0};
    ftr_cross_entropy_desc d = desc != NULL ? *desc : ftr_cross_entropy_defaults();
    bool known = d.cookie == FTR__COOKIE_CROSS_ENTROPY;
    ftr_tensor in[4] = {log_probabilities, labels, known ? d.class_weights : none, none};
    ftr_graph *graph = ftr__common_graph("nll", in, 3, 2);
    if (graph == NULL) return none;
    if (!known)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "nll", NULL,
                                  "desc was not made by ftr_cross_entropy_defaults()");
    if (d.label_smoothing != 0.0)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "nll", NULL, "label_smoothing %g, expected 0",
                                  d.label_smoothing);
    ftr_shape rows = ftr_shape_of(labels);
    in[3] = ftr__row_mask(graph, &rows, ftr_dtype_of(log_probabilities));
    ftr_op_attr attr = {.cross_entropy = {0.0, d.ignore_index, d.reduction}};
    return ftr__emit(graph, FTR_OP_nll, NULL, &attr, in, 4);
}

ftr_status ftr__infer_nll(ftr__infer *s) {
    ftr_status status = ftr__check_cross_entropy_attr(s);
    if (status == FTR_OK) status = ftr__check_labels(s, 0);
    if (status == FTR_OK) status = ftr__check_row_weights(s, 2, s->in[0], s->in[1]);
    if (status != FTR_OK) return status;
    ftr_shape scalar = ftr_scalar_shape();
    bool each = s->node->attr.cross_entropy.reduction == FTR_REDUCE_NONE;
    status = ftr__set_output(s, 0, s->in[0]->dtype, each ? &s->in[1]->shape : &scalar);
    return status != FTR_OK ? status : ftr__set_output(s, 1, s->in[0]->dtype, &scalar);
}

ftr_status ftr__infer_nll_grad(ftr__infer *s) {
    ftr_status status = ftr__check_cross_entropy_attr(s);
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dloss", "log-probabilities");
    if (status == FTR_OK) status = ftr__check_labels(s, 1);
    if (status == FTR_OK) status = ftr__check_row_weights(s, 4, s->in[1], s->in[2]);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[1]->dtype, &s->in[1]->shape);
}

void ftr__grad_nll(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_tensor none = {NULL, 0};
    int32_t count = s->node->in_count;
    ftr_tensor in[6] = {s->dout[0], s->in[0], s->in[1], s->out[1], none, none};
    for (int32_t i = 2; i < count; i++) in[i + 2] = s->in[i];
    s->din[0] = ftr__emit(s->graph, FTR_OP_nll_grad, NULL, &s->node->attr, in, 6);
}

/* ---- accuracy */

ftr_tensor ftr_accuracy(ftr_tensor logits, ftr_tensor labels) {
    ftr_tensor in[2] = {logits, labels}, none = {NULL, 0};
    ftr_graph *graph = ftr__common_graph("accuracy", in, 2, 2);
    if (graph == NULL) return none;
    ftr_dtype dtype = ftr_dtype_of(logits), label_type = ftr_dtype_of(labels);
    if (!ftr__is_float(dtype))
        return ftr__builder_error(graph, FTR_ERROR_DTYPE, "accuracy", NULL, "logits are %s, expected floating point",
                                  ftr_dtype_name(dtype));
    if (label_type != FTR_I32 && label_type != FTR_I64)
        return ftr__builder_error(graph, FTR_ERROR_DTYPE, "accuracy", NULL, "labels are %s, expected i32 or i64",
                                  ftr_dtype_name(label_type));
    ftr_shape rows = ftr_shape_of(logits), found = ftr_shape_of(labels);
    if (rows.rank < 1)
        return ftr__builder_error(graph, FTR_ERROR_RANK, "accuracy", NULL,
                                  "logits have rank 0, expected 1 or more (..., classes)");
    char text[FTR__SHAPE_TEXT], text_logits[FTR__SHAPE_TEXT], text_rows[FTR__SHAPE_TEXT];
    (void)ftr__shape_text(&rows, text_logits);
    rows.rank--;
    if (!ftr_shape_equal(&rows, &found))
        return ftr__builder_error(graph, FTR_ERROR_SHAPE, "accuracy", NULL, "labels are %s, expected %s for logits %s",
                                  ftr__shape_text(&found, text), ftr__shape_text(&rows, text_rows), text_logits);
    ftr_tensor best = ftr_argmax(logits, -1);
    ftr_tensor correct = ftr_cast(ftr_eq(best, ftr__cast_to(labels, FTR_I64)), dtype);
    return ftr__reduce_real_rows(correct, FTR_REDUCE_MEAN);
}
