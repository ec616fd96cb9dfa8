#include "golden_cases.h"

bool golden_find(const golden_case *c, const char *name, ftr_safetensors_entry *entry) {
    char full[128];
    snprintf(full, sizeof full, "%s%s", c->prefix, name);
    return ftr_safetensors_find(c->file, full, entry);
}

ftr_safetensors_entry golden_get(const golden_case *c, const char *name) {
    ftr_safetensors_entry entry = {0};
    if (!golden_find(c, name, &entry)) {
        fail_msg("the file has no %s%s", c->prefix, name);
    }
    return entry;
}

ftr_shape golden_shape(const ftr_safetensors_entry *entry) {
    ftr_shape shape = ftr_scalar_shape();
    assert_in_range(entry->rank, 0, FTR_MAX_RANK);
    shape.rank = entry->rank;
    for (int32_t i = 0; i < entry->rank; i++) {
        shape.dim[i] = entry->dim[i];
    }
    return shape;
}

void *golden_copy(const ftr_safetensors_entry *entry) {
    void *data = malloc(entry->bytes ? entry->bytes : 1);
    assert_non_null(data);
    memcpy(data, entry->data, entry->bytes);
    return data;
}

int64_t golden_i64(const golden_case *c, const char *name, int64_t index) {
    ftr_safetensors_entry entry = golden_get(c, name);
    int64_t value = 0;
    assert_int_equal(entry.dtype, FTR_I64);
    assert_true((size_t)(index + 1) * sizeof value <= entry.bytes);
    memcpy(&value, (const char *)entry.data + (size_t)index * sizeof value, sizeof value);
    return value;
}

double golden_f64(const golden_case *c, const char *name, int64_t index) {
    ftr_safetensors_entry entry = golden_get(c, name);
    double value = 0;
    assert_int_equal(entry.dtype, FTR_F64);
    assert_true((size_t)(index + 1) * sizeof value <= entry.bytes);
    memcpy(&value, (const char *)entry.data + (size_t)index * sizeof value, sizeof value);
    return value;
}

static double largest_finite(const float *data, size_t count) {
    double largest = 0;
    for (size_t i = 0; i < count; i++) {
        if (isfinite(data[i])) {
            largest = fmax(largest, fabs((double)data[i]));
        }
    }
    return largest;
}

static bool close_enough(float actual, float expected, double scale) {
    if (isnan(expected) || isinf(expected)) {
        return isnan(expected) ? isnan(actual) : actual == expected;
    }
    return fabs((double)actual - (double)expected) <= 1e-5 * fabs((double)expected) + 4e-6 * scale + 1e-30;
}

void golden_compare(const golden_case *c, const char *name, const ftr_safetensors_entry *expected, const void *actual) {
    const char *simd = ftr_context_simd_name(c->context);
    if (expected->dtype != FTR_F32) {
        if (expected->bytes && memcmp(actual, expected->data, expected->bytes) != 0) {
            fail_msg("%s%s (%s): the %s values differ", c->prefix, name, simd, expected->dtype_name);
        }
        return;
    }
    const float *got = (const float *)actual;
    float *want = (float *)golden_copy(expected);
    size_t count = expected->bytes / sizeof(float);
    double scale = largest_finite(want, count);
    for (size_t i = 0; i < count; i++) {
        if (!close_enough(got[i], want[i], scale)) {
            fail_msg("%s%s (%s): element %zu is %.9g, PyTorch has %.9g; the largest value is %g", c->prefix, name, simd,
                     i, (double)got[i], (double)want[i], scale);
        }
    }
    free(want);
}

/* -------------------------------------------------------------------------------------------- inputs and buffers -- */

/* An input of the shape and type that the file has. */
ftr_tensor golden_in(golden_case *c, const char *name) {
    ftr_safetensors_entry entry = golden_get(c, name);
    ftr_tensor tensor = ftr_input(c->graph, name, entry.dtype, golden_shape(&entry));
    assert_in_range(c->input_count, 0, GOLDEN_MAX_INPUTS - 1);
    c->inputs[c->input_count] = tensor;
    c->input_names[c->input_count++] = name;
    return tensor;
}

/* The same, or a null handle where the file has no such tensor. */
ftr_tensor golden_in_if_there(golden_case *c, const char *name) {
    ftr_safetensors_entry entry;
    return golden_find(c, name, &entry) ? golden_in(c, name) : (ftr_tensor){NULL, 0};
}

/* A buffer that starts as `name` and must be `result` after the step. */
ftr_tensor golden_buffer(golden_case *c, const char *name, const char *result) {
    ftr_safetensors_entry entry = golden_get(c, name);
    ftr_tensor tensor = ftr_buffer(c->graph, name, entry.dtype, golden_shape(&entry), (ftr_init){FTR_INIT_ZEROS, 0, 0});
    assert_in_range(c->buffer_count, 0, GOLDEN_MAX_INPUTS - 1);
    c->buffers[c->buffer_count] = tensor;
    c->buffer_names[c->buffer_count] = name;
    c->buffer_results[c->buffer_count++] = result;
    return tensor;
}

void golden_pair(const golden_case *c, const char *name, int32_t to[2]) {
    to[0] = (int32_t)golden_i64(c, name, 0);
    to[1] = (int32_t)golden_i64(c, name, 1);
}

void golden_four(const golden_case *c, const char *name, int32_t to[4]) {
    for (int64_t i = 0; i < 4; i++) {
        to[i] = (int32_t)golden_i64(c, name, i);
    }
}

ftr_axes golden_axes(const golden_case *c, const char *name) {
    ftr_safetensors_entry entry = golden_get(c, name);
    ftr_axes result = {.count = (int32_t)(entry.bytes / sizeof(int64_t))};
    if (result.count == 0) {
        return ftr_all_axes();
    }
    for (int32_t i = 0; i < result.count; i++) {
        result.axis[i] = (int32_t)golden_i64(c, name, i);
    }
    return result;
}

ftr_shape golden_shape_of(const golden_case *c, const char *name) {
    ftr_safetensors_entry entry = golden_get(c, name);
    ftr_shape result = {.rank = (int32_t)(entry.bytes / sizeof(int64_t))};
    assert_in_range(result.rank, 0, FTR_MAX_RANK);
    for (int32_t i = 0; i < result.rank; i++) {
        result.dim[i] = golden_i64(c, name, i);
    }
    return result;
}

/* --------------------------------------------------------------------------------------------------------------- ops
 * -- */

/* The order of evaluation of arguments is open in C; inputs are declared one by one. */
#define UNARY(name)                                                                                                    \
    static ftr_tensor build_##name(golden_case *c) { return ftr_##name(golden_in(c, "x")); }
#define BINARY(name)                                                                                                   \
    static ftr_tensor build_##name(golden_case *c) {                                                                   \
        ftr_tensor a = golden_in(c, "a"), b = golden_in(c, "b");                                                       \
        return ftr_##name(a, b);                                                                                       \
    }
#define REDUCTION(name)                                                                                                \
    static ftr_tensor build_##name(golden_case *c) {                                                                   \
        return ftr_##name(golden_in(c, "x"), golden_axes(c, "axes"), golden_i64(c, "keep", 0) != 0);                   \
    }
#define ALONG_AXIS(name)                                                                                               \
    static ftr_tensor build_##name(golden_case *c) {                                                                   \
        return ftr_##name(golden_in(c, "x"), (int32_t)golden_i64(c, "axis", 0));                                       \
    }

BINARY(add)
BINARY(sub)
BINARY(mul)
BINARY(div)
BINARY(pow)
BINARY(maximum)
BINARY(eq)
BINARY(ne)
BINARY(lt)
BINARY(le)
BINARY(gt)
BINARY(ge)
UNARY(neg)
UNARY(exp)
UNARY(log)
UNARY(sqrt)
UNARY(rsqrt)
UNARY(tanh)
UNARY(sigmoid)
UNARY(relu)
UNARY(global_avg_pool)
REDUCTION(sum)
REDUCTION(mean)
REDUCTION(max)
ALONG_AXIS(argmax)
ALONG_AXIS(softmax)
ALONG_AXIS(log_softmax)
ALONG_AXIS(flatten)

BINARY(minimum)
UNARY(abs)
UNARY(sign)
UNARY(sin)
UNARY(cos)
UNARY(erf)
UNARY(floor)
UNARY(round)
UNARY(relu6)
UNARY(silu)
UNARY(hardswish)
UNARY(hardsigmoid)
UNARY(stop_gradient)

static ftr_tensor build_clamp(golden_case *c) {
    return ftr_clamp(golden_in(c, "x"), golden_f64(c, "min", 0), golden_f64(c, "max", 0));
}

static ftr_tensor build_gelu(golden_case *c) {
    return ftr_gelu(golden_in(c, "x"), (ftr_gelu_form)golden_i64(c, "form", 0));
}

static ftr_tensor build_leaky_relu(golden_case *c) {
    return ftr_leaky_relu(golden_in(c, "x"), golden_f64(c, "slope", 0));
}

static ftr_tensor build_elu(golden_case *c) { return ftr_elu(golden_in(c, "x"), golden_f64(c, "alpha", 0)); }

static ftr_tensor build_softplus(golden_case *c) {
    return ftr_softplus(golden_in(c, "x"), golden_f64(c, "beta", 0), golden_f64(c, "threshold", 0));
}

static ftr_tensor build_where(golden_case *c) {
    ftr_tensor condition = golden_in(c, "c"), a = golden_in(c, "a"), b = golden_in(c, "b");
    return ftr_where(condition, a, b);
}

static ftr_tensor build_cast(golden_case *c) { return ftr_cast(golden_in(c, "x"), golden_get(c, "y").dtype); }

static ftr_tensor build_matmul(golden_case *c) {
    ftr_tensor a = golden_in(c, "a"), b = golden_in(c, "b");
    return ftr_matmul(a, b, golden_i64(c, "transpose_a", 0) != 0, golden_i64(c, "transpose_b", 0) != 0);
}

static ftr_tensor build_linear(golden_case *c) {
    ftr_tensor x = golden_in(c, "x"), weight = golden_in(c, "weight");
    return ftr_linear_with(x, weight, golden_in_if_there(c, "bias"));
}

static ftr_tensor build_conv2d(golden_case *c) {
    ftr_conv2d_desc desc = {.groups = (int32_t)golden_i64(c, "groups", 0)};
    golden_pair(c, "stride", desc.stride);
    golden_pair(c, "dilation", desc.dilation);
    golden_four(c, "padding", desc.padding);
    ftr_tensor x = golden_in(c, "x"), weight = golden_in(c, "weight");
    return ftr_conv2d_with(x, weight, golden_in_if_there(c, "bias"), &desc);
}

static ftr_tensor build_batch_norm(golden_case *c) {
    ftr_batch_norm_desc desc = ftr_batch_norm_defaults();
    desc.eps = golden_f64(c, "eps", 0);
    desc.momentum = golden_f64(c, "momentum", 0);
    c->mode = golden_i64(c, "training", 0) ? FTR_MODE_TRAIN : FTR_MODE_EVAL;
    ftr_tensor x = golden_in(c, "x"), gamma = golden_in(c, "gamma"), beta = golden_in(c, "beta");
    ftr_tensor mean = golden_buffer(c, "running_mean", "new_mean"), var = golden_buffer(c, "running_var", "new_var");
    return ftr_batch_norm_with(x, gamma, beta, mean, var, &desc);
}

static ftr_pool2d_desc pool_desc(const golden_case *c) {
    ftr_pool2d_desc desc = {.exclude_padding = golden_i64(c, "exclude_padding", 0) != 0};
    golden_pair(c, "stride", desc.stride);
    golden_four(c, "padding", desc.padding);
    return desc;
}

static ftr_tensor build_max_pool2d(golden_case *c) {
    ftr_pool2d_desc desc = pool_desc(c);
    int32_t kernel[2];
    golden_pair(c, "kernel", kernel);
    return ftr_max_pool2d(golden_in(c, "x"), kernel[0], kernel[1], &desc);
}

static ftr_tensor build_avg_pool2d(golden_case *c) {
    ftr_pool2d_desc desc = pool_desc(c);
    int32_t kernel[2];
    golden_pair(c, "kernel", kernel);
    return ftr_avg_pool2d(golden_in(c, "x"), kernel[0], kernel[1], &desc);
}

static ftr_tensor build_reshape(golden_case *c) { return ftr_reshape(golden_in(c, "x"), golden_shape_of(c, "shape")); }

static ftr_tensor build_expand(golden_case *c) { return ftr_expand(golden_in(c, "x"), golden_shape_of(c, "shape")); }

static ftr_tensor build_transpose(golden_case *c) { return ftr_transpose(golden_in(c, "x"), golden_axes(c, "order")); }

static ftr_tensor build_concat(golden_case *c) {
    static const char *const names[] = {"x0", "x1", "x2"};
    ftr_tensor parts[FTR_TEST_LENGTH(names)];
    ftr_safetensors_entry entry;
    int32_t count = 0;
    for (size_t i = 0; i < FTR_TEST_LENGTH(names) && golden_find(c, names[i], &entry); i++) {
        parts[count++] = golden_in(c, names[i]);
    }
    return ftr_concat(parts, count, (int32_t)golden_i64(c, "axis", 0));
}

static ftr_tensor build_slice(golden_case *c) {
    return ftr_slice(golden_in(c, "x"), (int32_t)golden_i64(c, "axis", 0), golden_i64(c, "begin", 0),
                     golden_i64(c, "end", 0), golden_i64(c, "step", 0));
}

static ftr_tensor build_pad(golden_case *c) {
    return ftr_pad(golden_in(c, "x"), golden_shape_of(c, "before"), golden_shape_of(c, "after"),
                   golden_f64(c, "value", 0));
}

static ftr_tensor build_cross_entropy(golden_case *c) {
    ftr_cross_entropy_desc desc = ftr_cross_entropy_defaults();
    desc.label_smoothing = golden_f64(c, "label_smoothing", 0);
    desc.ignore_index = golden_i64(c, "ignore_index", 0);
    desc.reduction = (ftr_reduction)golden_i64(c, "reduction", 0);
    ftr_tensor x = golden_in(c, "x"), labels = golden_in(c, "labels");
    desc.class_weights = golden_in_if_there(c, "class_weights");
    return ftr_cross_entropy(x, labels, &desc);
}

static ftr_tensor build_mse(golden_case *c) {
    ftr_tensor x = golden_in(c, "x"), target = golden_in(c, "target");
    return ftr_mse(x, target, (ftr_reduction)golden_i64(c, "reduction", 0));
}

static ftr_tensor build_accuracy(golden_case *c) {
    ftr_tensor x = golden_in(c, "x"), labels = golden_in(c, "labels");
    return ftr_accuracy(x, labels);
}

static ftr_tensor build_row_norm(golden_case *c, const char *op) {
    ftr_layer_norm_desc layer = ftr_layer_norm_defaults();
    ftr_rms_norm_desc rms = ftr_rms_norm_defaults();
    ftr_group_norm_desc group = ftr_group_norm_defaults();
    layer.eps = rms.eps = group.eps = golden_f64(c, "eps", 0);
    layer.dims = (int32_t)golden_i64(c, "dims", 0);
    ftr_tensor x = golden_in(c, "x"), gamma = golden_in_if_there(c, "gamma"), beta = golden_in_if_there(c, "beta");
    return *op == 'l'   ? ftr_layer_norm_with(x, gamma, beta, &layer)
           : *op == 'r' ? ftr_rms_norm_with(x, gamma, &rms)
                        : ftr_group_norm_with(x, (int32_t)golden_i64(c, "groups", 0), gamma, beta, &group);
}

static ftr_tensor build_layer_norm(golden_case *c) { return build_row_norm(c, "layer"); }
static ftr_tensor build_rms_norm(golden_case *c) { return build_row_norm(c, "rms"); }
static ftr_tensor build_group_norm(golden_case *c) { return build_row_norm(c, "group"); }

static ftr_tensor build_nll(golden_case *c) {
    ftr_cross_entropy_desc desc = ftr_cross_entropy_defaults();
    desc.ignore_index = golden_i64(c, "ignore_index", 0);
    desc.reduction = (ftr_reduction)golden_i64(c, "reduction", 0);
    ftr_tensor x = golden_in(c, "x"), labels = golden_in(c, "labels");
    desc.class_weights = golden_in_if_there(c, "class_weights");
    return ftr_nll(x, labels, &desc);
}

static ftr_tensor build_bce_with_logits(golden_case *c) {
    ftr_tensor x = golden_in(c, "x"), target = golden_in(c, "target");
    ftr_bce_desc desc = {.pos_weight = golden_in_if_there(c, "pos_weight")};
    desc.reduction = (ftr_reduction)golden_i64(c, "reduction", 0);
    return ftr_bce_with_logits(x, target, &desc);
}

static ftr_tensor build_kl_div(golden_case *c) {
    ftr_tensor x = golden_in(c, "x"), target = golden_in(c, "target");
    return ftr_kl_div(x, target, golden_i64(c, "log_target", 0) != 0, (ftr_reduction)golden_i64(c, "reduction", 0));
}

static ftr_tensor build_smooth_l1(golden_case *c) {
    ftr_tensor x = golden_in(c, "x"), target = golden_in(c, "target");
    return ftr_smooth_l1(x, target, golden_f64(c, "beta", 0), (ftr_reduction)golden_i64(c, "reduction", 0));
}

static ftr_tensor build_embedding(golden_case *c) {
    ftr_tensor weight = golden_in(c, "weight"), indices = golden_in(c, "indices");
    return ftr_embedding_with(weight, indices);
}

static ftr_tensor build_gather(golden_case *c) {
    ftr_tensor x = golden_in(c, "x"), index = golden_in(c, "index");
    return ftr_gather(x, (int32_t)golden_i64(c, "axis", 0), index);
}

static ftr_tensor build_scatter_add(golden_case *c) {
    ftr_tensor x = golden_in(c, "x"), index = golden_in(c, "index"), source = golden_in(c, "source");
    return ftr_scatter_add(x, (int32_t)golden_i64(c, "axis", 0), index, source);
}

static ftr_tensor build_one_hot(golden_case *c) {
    return ftr_one_hot(golden_in(c, "indices"), golden_i64(c, "classes", 0), golden_get(c, "y").dtype);
}

static ftr_tensor build_topk(golden_case *c) { return ftr_topk(golden_in(c, "x"), golden_i64(c, "k", 0), NULL); }

static ftr_tensor build_topk_indices(golden_case *c) {
    ftr_tensor indices;
    ftr_topk(golden_in(c, "x"), golden_i64(c, "k", 0), &indices);
    return indices;
}

static ftr_tensor build_cumsum(golden_case *c) {
    return ftr_cumsum(golden_in(c, "x"), (int32_t)golden_i64(c, "axis", 0), golden_i64(c, "reverse", 0) != 0);
}

REDUCTION(prod)
REDUCTION(logsumexp)

static ftr_tensor build_var(golden_case *c) {
    return ftr_var(golden_in(c, "x"), golden_axes(c, "axes"), (int32_t)golden_i64(c, "correction", 0),
                   golden_i64(c, "keep", 0) != 0);
}

static ftr_tensor build_norm(golden_case *c) {
    return ftr_norm(golden_in(c, "x"), golden_f64(c, "p", 0), golden_axes(c, "axes"), golden_i64(c, "keep", 0) != 0);
}

/* Part i, times i + 1, in the opposite order. */
static ftr_tensor build_split(golden_case *c) {
    int64_t sizes[4];
    ftr_tensor parts[4], scaled[4];
    ftr_safetensors_entry entry;
    int32_t axis = (int32_t)golden_i64(c, "axis", 0), count = (int32_t)golden_i64(c, "count", 0);
    bool given = golden_find(c, "sizes", &entry);
    for (int32_t i = 0; i < count && given; i++) {
        sizes[i] = golden_i64(c, "sizes", i);
    }
    ftr_split(golden_in(c, "x"), axis, given ? sizes : NULL, count, parts);
    for (int32_t i = 0; i < count; i++) {
        scaled[count - 1 - i] = ftr_mul(parts[i], ftr_scalar(c->graph, FTR_F32, i + 1));
    }
    return ftr_concat(scaled, count, axis);
}

static ftr_tensor build_stack(golden_case *c) {
    ftr_tensor x0 = golden_in(c, "x0"), x1 = golden_in(c, "x1"), x2 = golden_in(c, "x2");
    return ftr_stack((ftr_tensor[]){x0, x1, x2}, 3, (int32_t)golden_i64(c, "axis", 0));
}

#define ROW(name)                                                                                                      \
    { #name, build_##name }

static const golden_op plain_ops[] = {
    ROW(add),
    ROW(sub),
    ROW(mul),
    ROW(div),
    ROW(pow),
    ROW(maximum),
    ROW(eq),
    ROW(ne),
    ROW(lt),
    ROW(le),
    ROW(gt),
    ROW(ge),
    ROW(where),
    ROW(neg),
    ROW(exp),
    ROW(log),
    ROW(sqrt),
    ROW(rsqrt),
    ROW(tanh),
    ROW(sigmoid),
    ROW(relu),
    ROW(minimum),
    ROW(abs),
    ROW(sign),
    ROW(sin),
    ROW(cos),
    ROW(erf),
    ROW(floor),
    ROW(round),
    ROW(clamp),
    ROW(relu6),
    ROW(gelu),
    ROW(silu),
    ROW(hardswish),
    ROW(hardsigmoid),
    ROW(leaky_relu),
    ROW(elu),
    ROW(softplus),
    ROW(stop_gradient),
    ROW(cast),
    ROW(sum),
    ROW(mean),
    ROW(max),
    ROW(argmax),
    ROW(matmul),
    ROW(linear),
    ROW(conv2d),
    ROW(batch_norm),
    ROW(max_pool2d),
    ROW(avg_pool2d),
    ROW(reshape),
    ROW(flatten),
    ROW(expand),
    ROW(transpose),
    ROW(concat),
    ROW(slice),
    ROW(pad),
    ROW(softmax),
    ROW(log_softmax),
    ROW(cross_entropy),
    ROW(mse),
    ROW(accuracy),
    {"sgd", NULL},
    {"adamw", NULL},
    ROW(global_avg_pool),
    ROW(layer_norm),
    ROW(rms_norm),
    ROW(group_norm),
    ROW(nll),
    ROW(bce_with_logits),
    ROW(kl_div),
    ROW(smooth_l1),
    ROW(embedding),
    ROW(gather),
    ROW(scatter_add),
    ROW(one_hot),
    ROW(topk),
    ROW(topk_indices),
    ROW(cumsum),
    ROW(prod),
    ROW(logsumexp),
    ROW(var),
    ROW(norm),
    ROW(split),
    ROW(stack),
};

/* Files golden_<family>.c export a family each. */
static const golden_family *const families[] = {
    &(const golden_family){plain_ops, FTR_TEST_LENGTH(plain_ops)},
    &golden_rest,
    &golden_attention,
    &golden_image,
    &golden_mix,
};

const golden_op *golden_op_at(size_t index) {
    for (size_t f = 0; f < FTR_TEST_LENGTH(families); f++) {
        if (index < families[f]->count) {
            return &families[f]->ops[index];
        }
        index -= families[f]->count;
    }
    return NULL;
}
