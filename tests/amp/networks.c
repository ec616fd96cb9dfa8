#include "networks.h"

#define NETWORK_PATH(name) FTR_TEST_DATA "/goldens/" name

const char *const network_names[NETWORK_COUNT] = {"mlp", "resnet8"};

static const struct {
    const char *start, *data;
    float offset, factor;
    double sgd, adamw; /* learning rates */
} settings[NETWORK_COUNT] = {
    {NETWORK_PATH("mlp_start.safetensors"), NETWORK_PATH("mlp_data.safetensors"), 0, 1.0f / 16, 0.05, 2e-3},
    {NETWORK_PATH("resnet8_start.safetensors"), NETWORK_PATH("resnet8_data.safetensors"), -128, 1.0f / 64, 0.005, 5e-4},
};

static ftr_tensor convolution(ftr_tensor x, const char *name, int64_t out, int32_t kernel, int32_t stride) {
    int32_t p = kernel / 2;
    ftr_conv2d_desc desc = {.stride = {stride, stride}, .padding = {p, p, p, p}, .no_bias = true};
    return ftr_conv2d(x, name, out, kernel, &desc);
}

static ftr_tensor block(ftr_tensor x, const char *stage, int64_t out, int32_t stride) {
    ftr_graph *graph = x.graph;
    ftr_scope_push(graph, stage);
    ftr_scope_push(graph, "0");
    ftr_tensor h = ftr_relu(ftr_batch_norm(convolution(x, "conv1", out, 3, stride), "bn1", NULL));
    h = ftr_batch_norm(convolution(h, "conv2", out, 3, 1), "bn2", NULL);
    if (stride != 1) {
        ftr_scope_push(graph, "downsample");
        x = ftr_batch_norm(convolution(x, "0", out, 1, stride), "1", NULL);
        ftr_scope_pop(graph);
    }
    ftr_scope_pop(graph);
    ftr_scope_pop(graph);
    return ftr_relu(ftr_add(h, x));
}

static ftr_tensor build_mlp(ftr_tensor x) {
    return ftr_linear(ftr_relu(ftr_linear(x, "fc1", 48, NULL)), "fc2", 10, NULL);
}

static ftr_tensor build_resnet8(ftr_tensor x) {
    x = ftr_relu(ftr_batch_norm(convolution(x, "conv1", 16, 3, 1), "bn1", NULL));
    x = block(x, "layer1", 16, 1);
    x = block(x, "layer2", 32, 2);
    x = block(x, "layer3", 64, 2);
    return ftr_linear(ftr_global_avg_pool(x), "fc", 10, NULL);
}

network network_open(ftr_context *context, network_kind kind) {
    network n = {.context = context, .offset = settings[kind].offset, .factor = settings[kind].factor};
    FTR_TEST_OK(context, ftr_safetensors_open(context, settings[kind].data, &n.data));
    assert_true(ftr_safetensors_find(n.data, "images", &n.images));
    assert_true(ftr_safetensors_find(n.data, "labels", &n.classes));
    n.steps = n.images.dim[0];
    n.batch = n.images.dim[1];
    ftr_shape shape = {.rank = n.images.rank - 1};
    memcpy(shape.dim, n.images.dim + 1, (size_t)shape.rank * sizeof *shape.dim);
    n.graph = ftr_graph_create(context);
    n.x = ftr_input(n.graph, "x", FTR_F32, shape);
    n.labels = ftr_input(n.graph, "y", FTR_I32, FTR_SHAPE(n.batch));
    n.logits = kind == NETWORK_MLP ? build_mlp(n.x) : build_resnet8(n.x);
    n.loss = ftr_cross_entropy(n.logits, n.labels, NULL);
    FTR_TEST_GRAPH_OK(n.graph);
    FTR_TEST_OK(context, ftr_load_weights(n.graph, settings[kind].start, NULL, NULL));
    return n;
}

void network_close(network *n) {
    ftr_graph_destroy(n->graph);
    ftr_safetensors_close(n->data);
    *n = (network){0};
}

void network_feed(const network *n, ftr_plan *plan, int64_t step) {
    ftr_shape shape = ftr_shape_of(n->x);
    int64_t count = ftr_shape_count(&shape);
    const unsigned char *image = (const unsigned char *)n->images.data + step * count;
    const unsigned char *label = (const unsigned char *)n->classes.data + step * n->batch;
    float *values = malloc((size_t)count * sizeof *values);
    int32_t *classes = malloc((size_t)n->batch * sizeof *classes);
    for (int64_t i = 0; i < count; i++) {
        values[i] = ((float)image[i] + n->offset) * n->factor;
    }
    for (int64_t i = 0; i < n->batch; i++) {
        classes[i] = label[i];
    }
    FTR_TEST_OK(n->context, ftr_feed(plan, n->x, values, (size_t)count * sizeof *values));
    FTR_TEST_OK(n->context, ftr_feed(plan, n->labels, classes, (size_t)n->batch * sizeof *classes));
    free(values);
    free(classes);
}

ftr_optimizer network_sgd(network_kind kind) {
    ftr_optimizer sgd = ftr_sgd(settings[kind].sgd);
    sgd.momentum = 0.9;
    return sgd;
}

ftr_optimizer network_adamw(network_kind kind) { return ftr_adamw(settings[kind].adamw); }
