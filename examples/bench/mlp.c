/* Training steps of an MLP 784-512-512-10: ReLU, cross entropy, AdamW, batch 128. See bench.h; mlp.py is its twin. */
#define FASTTRAIN_IMPLEMENTATION
#include "fasttrain.h"

#include "bench.h"

static ftr_tensor network(ftr_tensor x) {
    x = ftr_relu(ftr_linear(x, "fc1", 512, NULL));
    x = ftr_relu(ftr_linear(x, "fc2", 512, NULL));
    return ftr_linear(x, "fc3", BENCH_CLASSES, NULL);
}

int main(int argc, char **argv) { return bench_main("mlp", argc, argv, FTR_SHAPE(BENCH_BATCH, 784), network); }
