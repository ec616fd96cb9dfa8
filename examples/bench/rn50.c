/* Training steps of ResNet-50: cross entropy, SGD, batch 16 of 224x224x3. See bench.h; rn50.py is its twin. */
#include "bench.h"

static ftr_tensor network(ftr_tensor x) { return ftr_resnet(x, NULL); }

int main(int argc, char **argv) {
    return bench_main(argc, argv,
                      &(bench_workload){"rn50", FTR_SHAPE(16, 224, 224, 3), 1000, network, bench_sgd(), false});
}
