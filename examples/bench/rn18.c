/* Training steps of ResNet-18 for CIFAR (3x3 stem, no pooling): cross entropy, SGD, batch 64 of 32x32x3.
 * See bench.h; rn18.py is its twin. */
#include "bench.h"

static ftr_tensor network(ftr_tensor x) {
    return ftr_resnet(x, &(ftr_resnet_desc){.depth = 18, .classes = 10, .small_images = true});
}

int main(int argc, char **argv) {
    return bench_main(argc, argv, &(bench_workload){"rn18", FTR_SHAPE(64, 32, 32, 3), 10, network, bench_sgd(), false});
}
