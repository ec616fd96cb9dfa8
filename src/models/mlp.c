/* Multi-layer perceptron, and the small network of PyTorch's MNIST example. */
#include "models/blocks.h"

#include <stdio.h>

#define FTR__COOKIE_MNIST_CNN 0x4d4e4953u

/* ---- multi-layer perceptron */

static bool ftr__mlp_is_valid(ftr_graph *graph, ftr_tensor x, const ftr_mlp_desc *d) {
    if (!ftr_is_valid(x))
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_TENSOR, "mlp", NULL, "the input is a null tensor");
    else if (d->hidden_count < 0)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "mlp", NULL, "hidden_count is %d, expected 0 or more",
                             (int)d->hidden_count);
    else if (d->hidden_count > 0 && d->hidden == NULL)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "mlp", NULL, "hidden is NULL, expected %d sizes",
                             (int)d->hidden_count);
    else
        return ftr__model_probability(graph, "mlp", "dropout", d->dropout);
    return false;
}

/* Linear layer number `index` of the sequence. */
static ftr_tensor ftr__mlp_layer(ftr_tensor x, int32_t index, int64_t size) {
    char name[16];
    (void)snprintf(name, sizeof name, "%d", (int)index);
    return ftr_linear(x, name, size, NULL);
}

ftr_tensor ftr_mlp(ftr_tensor x, const ftr_mlp_desc *desc) {
    const ftr_tensor none = {NULL, 0};
    const ftr_mlp_desc defaults = {.hidden = NULL}, *d = desc != NULL ? desc : &defaults;
    if (ftr_graph_status(x.graph) != FTR_OK || !ftr__mlp_is_valid(x.graph, x, d)) return none;
    const int64_t classes = ftr__model_classes(x.graph, "mlp", d->classes, 10);
    if (classes == 0) return none;
    const int32_t members = d->dropout > 0.0 ? 3 : 2; /* of the sequence, each hidden layer */
    for (int32_t i = 0; i < d->hidden_count; i++) {
        x = ftr__mlp_layer(x, i * members, d->hidden[i]);
        x = d->activation != NULL ? d->activation(x) : ftr_relu(x);
        x = ftr_dropout(x, d->dropout);
    }
    return d->features_only ? x : ftr__mlp_layer(x, d->hidden_count * members, classes);
}

/* ---- MNIST */

ftr_mnist_cnn_desc ftr_mnist_cnn_defaults(void) {
    return (ftr_mnist_cnn_desc){.cookie = FTR__COOKIE_MNIST_CNN, .classes = 10, .dropout1 = 0.25, .dropout2 = 0.5};
}

ftr_tensor ftr_mnist_cnn(ftr_tensor image, const ftr_mnist_cnn_desc *desc) {
    const ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__model_image("mnist_cnn", image, 6);
    if (graph == NULL) return none;
    const ftr_mnist_cnn_desc d = desc != NULL ? *desc : ftr_mnist_cnn_defaults();
    if (!ftr__model_cookie(graph, "mnist_cnn", d.cookie == FTR__COOKIE_MNIST_CNN)) return none;
    const int64_t classes = ftr__model_classes(graph, "mnist_cnn", d.classes, 10);
    if (classes == 0 || !ftr__model_probability(graph, "mnist_cnn", "dropout1", d.dropout1) ||
        !ftr__model_probability(graph, "mnist_cnn", "dropout2", d.dropout2))
        return none;
    ftr_tensor x = ftr_relu(ftr_conv2d(image, "conv1", 32, 3, NULL));
    x = ftr_relu(ftr_conv2d(x, "conv2", 64, 3, NULL));
    x = ftr_dropout(ftr_max_pool2d(x, 2, 2, NULL), d.dropout1);
    x = ftr_flatten(ftr_transpose(x, FTR_AXES(0, 3, 1, 2)), 1); /* as PyTorch flattens */
    x = ftr_relu(ftr_linear(x, "fc1", 128, NULL));
    return d.features_only ? x : ftr_linear(ftr_dropout(x, d.dropout2), "fc2", classes, NULL);
}
