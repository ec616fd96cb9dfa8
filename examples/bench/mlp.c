/* Training steps of an MLP 784-512-512-10: ReLU, cross entropy, AdamW, batch 128. See bench.h; mlp.py is its twin. */
#include "bench.h"

static ftr_tensor network(ftr_tensor x) {
    x = ftr_relu(ftr_linear(x, "fc1", 512, NULL));
    x = ftr_relu(ftr_linear(x, "fc2", 512, NULL));
    return ftr_linear(x, "fc3", 10, NULL);
}

int main(int argc, char **argv) {
    return bench_main(argc, argv, &(bench_workload){"mlp", FTR_SHAPE(128, 784), 10, network, ftr_adamw(1e-3), false});
}
