/* Training steps of a CNN for MNIST: conv 3x3x32, ReLU, conv 3x3x64, ReLU, max pool 2, linear 128, ReLU, linear 10;
 * cross entropy, SGD, batch 128 of 28x28x1. See bench.h; cnn.py is its twin. */
#include "bench.h"

static ftr_tensor network(ftr_tensor x) {
    x = ftr_relu(ftr_conv2d(x, "conv1", 32, 3, NULL));
    x = ftr_relu(ftr_conv2d(x, "conv2", 64, 3, NULL));
    x = ftr_flatten(ftr_max_pool2d(x, 2, 2, NULL), 1);
    x = ftr_relu(ftr_linear(x, "fc1", 128, NULL));
    return ftr_linear(x, "fc2", 10, NULL);
}

int main(int argc, char **argv) {
    return bench_main(argc, argv, &(bench_workload){"cnn", FTR_SHAPE(128, 28, 28, 1), 10, network, bench_sgd(), false});
}
