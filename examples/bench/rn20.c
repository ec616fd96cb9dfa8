/* Training steps of the ResNet-20 for CIFAR: cross entropy, SGD, batch 128 of 32x32x3. See bench.h; rn20.py is its
 * twin. */
#include "bench.h"

static ftr_tensor network(ftr_tensor x) { return ftr_resnet_cifar(x, NULL); }

int main(int argc, char **argv) {
    return bench_main(argc, argv,
                      &(bench_workload){"rn20", FTR_SHAPE(128, 32, 32, 3), 10, network, bench_sgd(), false});
}
