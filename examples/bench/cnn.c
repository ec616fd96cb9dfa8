/* Training steps of a CNN for MNIST: conv 3x3x32, ReLU, conv 3x3x64, ReLU, max pool 2, linear 128, ReLU, linear 10; cross
 * entropy, AdamW, batch 128 of 28x28x1. See bench.h; cnn.py is its twin. */
#define FASTTRAIN_IMPLEMENTATION
#include "fasttrain.h"

#include "bench.h"

static ftr_tensor network(ftr_tensor x) {
    x = ftr_relu(ftr_conv2d(x, "conv1", 32, 3, NULL));
    x = ftr_relu(ftr_conv2d(x, "conv2", 64, 3, NULL));
    x = ftr_flatten(ftr_max_pool2d(x, 2, 2, NULL), 1);
    x = ftr_relu(ftr_linear(x, "fc1", 128, NULL));
    return ftr_linear(x, "fc2", BENCH_CLASSES, NULL);
}

int main(int argc, char **argv) { return bench_main("cnn", argc, argv, FTR_SHAPE(BENCH_BATCH, 28, 28, 1), network); }
