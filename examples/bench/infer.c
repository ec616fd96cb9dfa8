/* Inference plans: `infer rn50 16` is ResNet-50 at batch 16; rn50, mbv3 (MobileNetV3-Large) or effb0 (EfficientNet-B0)
 * on images of 224x224x3, at any batch size. See bench.h; infer.py is its twin. */
#include "bench.h"

static ftr_tensor rn50(ftr_tensor x) { return ftr_resnet(x, NULL); }
static ftr_tensor mbv3(ftr_tensor x) { return ftr_mobilenet_v3(x, NULL); }
static ftr_tensor effb0(ftr_tensor x) { return ftr_efficientnet(x, NULL); }

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        ftr_tensor (*network)(ftr_tensor x);
    } models[] = {{"rn50", rn50}, {"mbv3", mbv3}, {"effb0", effb0}};
    const long batch = argc > 2 ? strtol(argv[2], NULL, 10) : 0;
    for (int i = 0; i < 3 && batch > 0 && batch < 65536; i++) {
        if (strcmp(argv[1], models[i].name) != 0) continue;
        bench_workload work = {.input = FTR_SHAPE(batch, 224, 224, 3), .classes = 1000, .network = models[i].network};
        char name[64];
        snprintf(name, sizeof name, "infer-%s-b%ld", argv[1], batch);
        work.name = name;
        return bench_main(argc - 2, argv + 2, &work);
    }
    fprintf(stderr, "usage: infer rn50|mbv3|effb0 BATCH [OPTION]...\n");
    return EXIT_FAILURE;
}
