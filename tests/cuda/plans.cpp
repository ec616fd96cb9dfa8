/* Asks the installed libcudnn for every execution plan that the networks need, for GPUs that are not there: compiles each
 * network with the CUDA backend on the double of the runtime, the real cuDNN and the description of a device.
 *
 *   plans EXPECTED DEVICE.json NAME    prints a table; fails if a plan that EXPECTED lists is gone
 *   plans --write EXPECTED DEVICE.json NAME
 *
 * EXPECTED has a line for each plan: device, network, type, mode, pattern, shapes. */
#include "emulator.h"

#include "backend/cuda/cudnn.cuh"
#include "doubles.h"
#include "fasttrain.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>

namespace {

struct network {
    const char *name;
    ftr_shape input;
    bool tokens;
    ftr_tensor (*build)(ftr_tensor input);
};

ftr_shape shape(int64_t a, int64_t b, int64_t c = 0, int64_t d = 0) {
    ftr_shape s = {};
    s.rank = c ? 4 : 2;
    s.dim[0] = a, s.dim[1] = b, s.dim[2] = c, s.dim[3] = d;
    return s;
}

ftr_tensor resnet50(ftr_tensor x) { return ftr_resnet(x, nullptr); }
ftr_tensor mobilenet(ftr_tensor x) { return ftr_mobilenet_v3(x, nullptr); }
ftr_tensor efficientnet(ftr_tensor x) { return ftr_efficientnet(x, nullptr); }
ftr_tensor vit_s(ftr_tensor x) {
    const ftr_vit_desc desc = ftr_vit_defaults(FTR_VIT_SMALL);
    return ftr_vit(x, &desc);
}
ftr_tensor gpt2(ftr_tensor tokens) { return ftr_gpt(tokens, nullptr); }

const network networks[] = {
    {"resnet50", shape(256, 224, 224, 3), false, resnet50},        {"mobilenet_v3_large", shape(256, 224, 224, 3), false, mobilenet},
    {"efficientnet_b0", shape(128, 224, 224, 3), false, efficientnet}, {"vit_s_16", shape(128, 224, 224, 3), false, vit_s},
    {"gpt2", shape(16, 1024), true, gpt2},
};

void *cuda_state; /* of the context that was opened last */

ftr_status open_and_look(ftr_context *context, int32_t threads, int32_t device, void **state) {
    const ftr_status status = ftr_cuda_backend()->open(context, threads, device, state);
    cuda_state = status ? nullptr : *state;
    return status;
}

const char *const type_names[] = {"f32", "fp16", "bf16"};
const ftr_amp types[] = {FTR_AMP_OFF, FTR_AMP_FP16, FTR_AMP_BF16};

struct counts {
    int made, refused;
};

std::string describe(const char *where, const ftr__dnn_plan *plan) {
    std::string line = std::string(where) + " " + plan->pattern + " " + std::to_string(plan->key.pattern) + ":";
    for (int i = 0; i < 4 && plan->key.shapes[i].rank; i++) {
        line += i ? ", [" : " [";
        for (int d = 0; d < plan->key.shapes[i].rank; d++)
            line += (d ? " " : "") + std::to_string((long long)plan->key.shapes[i].dim[d]);
        line += "]";
    }
    return line;
}

/* Compiles a network and notes its plans. */
int compile(const char *device, const network &n, int type, bool train, std::set<std::string> &lines, counts &sum) {
    static ftr_backend backend = *ftr_cuda_backend();
    backend.open = open_and_look;
    ftr_context *context = nullptr;
    ftr_context_desc context_desc = {};
    context_desc.backend = &backend;
    context_desc.log_level = FTR_LOG_ERROR;
    if (ftr_context_create(&context_desc, &context)) return 1;
    ftr_graph *graph = ftr_graph_create(context);
    const ftr_tensor x = ftr_input(graph, "input", n.tokens ? FTR_I32 : FTR_F32, n.input), y = n.build(x);
    ftr_compile_desc desc = {};
    const ftr_optimizer optimizer = n.tokens ? ftr_adamw(1e-3) : ftr_sgd(0.1);
    desc.amp = types[type];
    if (train) {
        ftr_shape rows = {};
        rows.rank = 1;
        rows.dim[0] = n.input.dim[0];
        desc.loss = ftr_cross_entropy(y, ftr_input(graph, "label", FTR_I32, n.tokens ? n.input : rows), nullptr);
        desc.optimizer = &optimizer;
    } else {
        desc.mode = FTR_MODE_EVAL;
        desc.outputs = &y;
        desc.output_count = 1;
    }
    ftr_plan *plan = nullptr;
    const ftr_status status = ftr_compile(graph, &desc, &plan);
    const std::string where = std::string(device) + " " + n.name + " " + type_names[type] + (train ? " training" : " inference");
    if (status) {
        printf("%s: %s: %s\n", where.c_str(), ftr_status_name(status), ftr_error_message(context));
        ftr_context_destroy(context);
        return 1;
    }
    counts here = {0, 0};
    printf("%s\n", where.c_str());
    for (const ftr__dnn_plan *p = ((const ftr__cuda *)cuda_state)->dnn_plans; p; p = p->next) {
        (p->made ? here.made : here.refused)++;
        printf("  %-12s %3d engines, %2d deterministic looked at, workspace %9zu  %s  %s\n", p->made ? "plan" : "REFUSED", p->engines,
               p->deterministic, p->workspace, describe("", p).c_str() + 1, p->made ? "" : p->reason);
        if (p->made) lines.insert(describe(where.c_str(), p));
    }
    printf("  %d plans, %d refused\n", here.made, here.refused);
    for (int32_t i = 0; i < ftr_plan_node_count(plan); i++) {
        ftr_plan_node node;
        if (ftr_plan_node_at(plan, i, &node) == FTR_OK && strstr(node.algorithm, "direct"))
            printf("  fallback: %s '%s': %s\n", node.op, node.name, node.algorithm);
    }
    sum.made += here.made, sum.refused += here.refused;
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    ftr_context_destroy(context);
    return 0;
}

std::set<std::string> read_lines(const char *path, const char *device) {
    std::set<std::string> lines;
    char line[1024];
    FILE *file = fopen(path, "r");
    if (!file) return lines;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, device, strlen(device)) == 0 && line[strlen(device)] == ' ') lines.insert(line);
    }
    fclose(file);
    return lines;
}

} // namespace

int main(int argc, char **argv) {
    const bool write = argc == 5 && strcmp(argv[1], "--write") == 0;
    if (argc != 4 && !write) {
        fprintf(stderr, "usage: plans [--write] EXPECTED DEVICE.json NAME\n");
        return 2;
    }
    const char *expected = argv[argc - 3], *device = argv[argc - 1];
    setenv("FASTTRAIN_CUDNN_DEVICE", argv[argc - 2], 1);
    const ftr_double_machine machine = {1, 9, 0, (size_t)1 << 40, 13000, 1};
    ftr_double_reset();
    ftr_double_set(&machine);
    std::set<std::string> lines;
    counts sum = {0, 0};
    int failed = 0;
    for (const network &n : networks)
        for (int type = 0; type < 3; type++)
            for (int train = 1; train >= 0; train--) failed += compile(device, n, type, train, lines, sum);
    if (write) {
        FILE *file = fopen(expected, "a");
        for (const std::string &line : lines) fprintf(file, "%s\n", line.c_str());
        fclose(file);
    }
    for (const std::string &line : read_lines(expected, device))
        if (!lines.count(line)) {
            printf("gone: %s\n", line.c_str());
            failed++;
        }
    printf("%s: %d plans, %d refused, %d failures\n", device, sum.made, sum.refused, failed);
    return failed != 0;
}
