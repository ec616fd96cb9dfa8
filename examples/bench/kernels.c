/* `make bench-kernels`: single ops of the benchmarks' networks beside PyTorch's (kernels.py), as one table. From the
 * root:
 *
 *     build/bench/kernels [PYTHON=python3] [THREADS=2] [DTYPE=f32] [SECONDS=0.2] [SIMD=] [FAMILY]...
 *
 * Families: matmul, conv, depthwise, attention, norm; default all. DTYPE=bf16 takes operands of bf16 (the first three).
 *
 * A forward figure is the median step of an inference plan of the one op. The gradients of a loss = sum(op * r) come
 * out of a plan that computes the forward and d loss / d result anyway: figures of gradients are medians of what the
 * nodes of its backward pass take, by ftr_plan_profile(), less those of the same plan without the gradient.
 *
 * "of floor" is the share of what the machine can do: time = max(operations / peak, bytes / bandwidth), both measured
 * here first, each operand counted once, over the time that was taken. Operations are those of the definition: an
 * algorithm with fewer (Winograd) may show more than 100%, and so may data that lie in a cache. */
#include "bench.h"
#include "peak.h"
#include "side.h"

typedef enum pass { FORWARD, GRADIENT_X, GRADIENT_W, BACKWARD, PASSES } pass;

static const char *const pass_names[] = {"forward", "grad x", "grad w", "backward"};

/* One op: the family tells what the sizes mean. */
typedef struct problem {
    const char *family;
    int64_t size[8];
} problem;

/* matmul: batch, m, n, k: [m, k] times [k, n]. The squares, the layers of mlp and gpt, a matrix times a vector,
 * attention's. */
static const problem matmuls[] = {
    {"matmul", {1, 256, 256, 256}},    {"matmul", {1, 512, 512, 512}},   {"matmul", {1, 1024, 1024, 1024}},
    {"matmul", {1, 2048, 2048, 2048}}, {"matmul", {1, 128, 512, 784}},   {"matmul", {1, 128, 512, 512}},
    {"matmul", {1, 128, 10, 512}},     {"matmul", {1, 2048, 1152, 384}}, {"matmul", {1, 2048, 1536, 384}},
    {"matmul", {1, 2048, 384, 1536}},  {"matmul", {1, 16, 1000, 2048}},  {"matmul", {1, 1, 1000, 2048}},
    {"matmul", {1, 50176, 64, 64}},    {"matmul", {48, 256, 256, 64}},   {"matmul", {48, 256, 64, 256}},
};

/* conv and depthwise: batch, side of the square image, channels, channels of the result, kernel, stride. */
static const problem convolutions[] = {
    {"conv", {128, 28, 1, 32, 3, 1}},   {"conv", {64, 32, 3, 64, 3, 1}},     {"conv", {64, 32, 64, 64, 3, 1}},
    {"conv", {64, 32, 64, 128, 3, 2}},  {"conv", {64, 16, 128, 128, 3, 1}},  {"conv", {64, 16, 128, 256, 3, 2}},
    {"conv", {64, 8, 256, 256, 3, 1}},  {"conv", {64, 4, 512, 512, 3, 1}},   {"conv", {64, 32, 64, 128, 1, 2}},
    {"conv", {128, 32, 16, 16, 3, 1}},  {"conv", {16, 224, 3, 64, 7, 2}},    {"conv", {16, 56, 64, 64, 1, 1}},
    {"conv", {16, 56, 64, 64, 3, 1}},   {"conv", {16, 56, 64, 256, 1, 1}},   {"conv", {16, 56, 256, 64, 1, 1}},
    {"conv", {16, 56, 256, 128, 1, 1}}, {"conv", {16, 56, 128, 128, 3, 2}},  {"conv", {16, 28, 128, 512, 1, 1}},
    {"conv", {16, 28, 512, 128, 1, 1}}, {"conv", {16, 28, 128, 128, 3, 1}},  {"conv", {16, 56, 256, 512, 1, 2}},
    {"conv", {16, 28, 256, 256, 3, 2}}, {"conv", {16, 14, 256, 1024, 1, 1}}, {"conv", {16, 14, 1024, 256, 1, 1}},
    {"conv", {16, 14, 256, 256, 3, 1}}, {"conv", {16, 7, 512, 512, 3, 1}},   {"conv", {16, 7, 512, 2048, 1, 1}},
    {"conv", {16, 7, 2048, 512, 1, 1}},
};

static const problem depthwises[] = {
    {"depthwise", {16, 112, 16, 16, 3, 1}},   {"depthwise", {16, 112, 32, 32, 3, 1}},
    {"depthwise", {16, 112, 64, 64, 3, 2}},   {"depthwise", {16, 112, 96, 96, 3, 2}},
    {"depthwise", {16, 56, 72, 72, 3, 1}},    {"depthwise", {16, 56, 144, 144, 3, 1}},
    {"depthwise", {16, 56, 72, 72, 5, 2}},    {"depthwise", {16, 56, 144, 144, 5, 2}},
    {"depthwise", {16, 28, 120, 120, 5, 1}},  {"depthwise", {16, 28, 240, 240, 5, 1}},
    {"depthwise", {16, 28, 240, 240, 3, 2}},  {"depthwise", {16, 14, 200, 200, 3, 1}},
    {"depthwise", {16, 14, 480, 480, 3, 1}},  {"depthwise", {16, 14, 672, 672, 3, 1}},
    {"depthwise", {16, 14, 480, 480, 5, 1}},  {"depthwise", {16, 14, 672, 672, 5, 1}},
    {"depthwise", {16, 14, 672, 672, 5, 2}},  {"depthwise", {16, 7, 960, 960, 5, 1}},
    {"depthwise", {16, 7, 1152, 1152, 5, 1}}, {"depthwise", {16, 7, 1152, 1152, 3, 1}},
};

/* attention: batch, length, heads, width of a head, causal. */
static const problem attentions[] = {
    {"attention", {8, 256, 6, 64, 1}},
    {"attention", {2, 1024, 12, 64, 1}},
    {"attention", {16, 197, 12, 64, 0}},
};

/* batch norm (training): rows, channels. layer norm: rows, width. */
static const problem norms[] = {
    {"batch norm", {65536, 64}}, {"batch norm", {50176, 256}}, {"batch norm", {200704, 64}},
    {"batch norm", {3136, 960}}, {"layer norm", {2048, 384}},  {"layer norm", {3152, 768}},
};

typedef struct family {
    const char *name;
    const problem *problems;
    int count;
    bool bf16; /* has bf16 operands */
} family;

#define FAMILY(name, problems, bf16)                                                                                   \
    { name, problems, (int)(sizeof problems / sizeof problems[0]), bf16 }
static const family families[] = {
    FAMILY("matmul", matmuls, true),        FAMILY("conv", convolutions, true), FAMILY("depthwise", depthwises, true),
    FAMILY("attention", attentions, false), FAMILY("norm", norms, false),
};
enum { FAMILIES = sizeof families / sizeof families[0] };

typedef struct settings {
    const char *python, *simd, *dtype;
    int threads;
    double seconds;
    bool chosen[FAMILIES];
} settings;

typedef struct bench {
    settings options;
    ftr_context *context;
    side twin; /* pid 0: none */
    double flops, bandwidth;
} bench;

/* A graph of one op. */
typedef struct op {
    ftr_graph *graph;
    ftr_tensor input[4], result;
    int inputs;
    double work, bytes; /* operations, and bytes of operands and result, of the forward */
    double back_work;   /* of the backward as a whole over the forward's; a gradient of a product is as much as it */
} op;

/* ------------------------------------------------------------------------------------------------------ the graphs -- */

static ftr_tensor add_input(op *o, ftr_dtype dtype, ftr_shape shape) {
    char name[16];
    snprintf(name, sizeof name, "input%d", o->inputs);
    o->bytes += (double)ftr_shape_count(&shape) * (dtype == FTR_BF16 ? 2 : 4);
    return o->input[o->inputs++] = ftr_input(o->graph, name, dtype, shape);
}

static void build(op *o, const problem *p, ftr_dtype dtype) {
    const int64_t *s = p->size;
    if (strcmp(p->family, "matmul") == 0) {
        ftr_tensor a = add_input(o, dtype, s[0] > 1 ? FTR_SHAPE(s[0], s[1], s[3]) : FTR_SHAPE(s[1], s[3]));
        ftr_tensor b = add_input(o, dtype, s[0] > 1 ? FTR_SHAPE(s[0], s[3], s[2]) : FTR_SHAPE(s[3], s[2]));
        o->result = ftr_matmul(a, b, false, false);
        o->work = 2.0 * (double)(s[0] * s[1] * s[2] * s[3]);
    } else if (strcmp(p->family, "attention") == 0) {
        ftr_attention_desc desc = ftr_attention_defaults();
        desc.causal = s[4] != 0;
        for (int i = 0; i < 3; i++) add_input(o, dtype, FTR_SHAPE(s[0], s[1], s[2], s[3]));
        o->result = ftr_attention(o->input[0], o->input[1], o->input[2], &desc);
        o->work = (s[4] ? 2.0 : 4.0) * (double)(s[0] * s[2] * s[1] * s[1] * s[3]); /* half of the scores if causal */
        o->back_work = 2.5; /* five products, of which one again */
    } else if (strcmp(p->family, "batch norm") == 0 || strcmp(p->family, "layer norm") == 0) {
        ftr_tensor x = add_input(o, dtype, FTR_SHAPE(s[0], s[1]));
        ftr_tensor gamma = add_input(o, dtype, FTR_SHAPE(s[1])), beta = add_input(o, dtype, FTR_SHAPE(s[1]));
        const ftr_init zero = {.kind = FTR_INIT_ZEROS}, one = {.kind = FTR_INIT_CONSTANT, .a = 1};
        if (p->family[0] == 'b')
            o->result =
                ftr_batch_norm_with(x, gamma, beta, ftr_buffer(o->graph, "mean", FTR_F32, FTR_SHAPE(s[1]), zero),
                                    ftr_buffer(o->graph, "var", FTR_F32, FTR_SHAPE(s[1]), one), NULL);
        else
            o->result = ftr_layer_norm_with(x, gamma, beta, NULL);
    } else {
        const int64_t groups = p->family[0] == 'd' ? s[2] : 1;
        const int32_t pad = (int32_t)s[4] / 2, stride = (int32_t)s[5];
        const ftr_conv2d_desc desc = {
            .padding = {pad, pad, pad, pad}, .stride = {stride, stride}, .groups = (int32_t)groups};
        ftr_tensor x = add_input(o, dtype, FTR_SHAPE(s[0], s[1], s[1], s[2]));
        ftr_tensor weight = add_input(o, dtype, FTR_SHAPE(s[3], s[4], s[4], s[2] / groups));
        o->result = ftr_conv2d_with(x, weight, (ftr_tensor){NULL, 0}, &desc);
        const ftr_shape shape = ftr_shape_of(o->result);
        o->work = 2.0 * (double)(ftr_shape_count(&shape) * s[4] * s[4] * s[2] / groups);
    }
    const ftr_shape shape = ftr_shape_of(o->result);
    o->bytes += (double)ftr_shape_count(&shape) * (dtype == FTR_BF16 ? 2 : 4);
}

/* Which gradients a pass computes: inputs `from` to `to`. */
static void inputs_of(const op *o, pass which, int *from, int *to) {
    *from = which == GRADIENT_W ? 1 : 0;
    *to = which == GRADIENT_X ? 1 : o->inputs;
}

static ftr_status fill(ftr_plan *plan, ftr_tensor input) {
    const ftr_shape shape = ftr_shape_of(input);
    const size_t count = (size_t)ftr_shape_count(&shape), size = ftr_dtype_of(input) == FTR_BF16 ? 2 : 4;
    char *data = malloc(count * size);
    if (!data) return FTR_ERROR_OUT_OF_MEMORY;
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        const float value = (float)bench_random(&state) * 0x1p-24f - 0.5f;
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        bits >>= size == 2 ? 16 : 0; /* bf16 is the upper half of an f32 */
        if (size == 2)
            ((uint16_t *)(void *)data)[i] = (uint16_t)bits;
        else
            ((uint32_t *)(void *)data)[i] = bits;
    }
    const ftr_status status = ftr_feed(plan, input, data, count * size);
    free(data);
    return status;
}

/* ------------------------------------------------------------------------------------------------------------ time -- */

/* A step, and what it took; of a plan with a backward pass the time of that pass's nodes. */
static ftr_status timed_step(ftr_plan *plan, bool backward, double *seconds) {
    ftr_plan_node node;
    ftr_status status = backward ? ftr_plan_profile(plan, true) : FTR_OK; /* forgets the step before */
    const double start = ftr_time_seconds();
    if (!status) status = ftr_step(plan, NULL);
    *seconds = ftr_time_seconds() - start;
    if (!backward || status) return status;
    *seconds = 0;
    for (int32_t i = 0; i < ftr_plan_node_count(plan) && !status; i++) {
        status = ftr_plan_node_at(plan, i, &node);
        if (node.backward) *seconds += node.seconds;
    }
    return status;
}

/* Median of the steps of `plan`, or of what its backward pass takes more than that of `base`. */
static ftr_status measure(ftr_plan *plan, ftr_plan *base, double seconds, double *result) {
    enum { MOST = 1000, LEAST = 5, WARM_UP = 2 };
    double values[MOST];
    int count = -WARM_UP;
    ftr_status status = FTR_OK;
    for (double begin = 0; !status && count < MOST; count++) {
        double with, without = 0;
        if (count == 0) begin = ftr_time_seconds();
        if (count >= LEAST && ftr_time_seconds() - begin > seconds) break;
        if (base) status = timed_step(base, true, &without);
        if (!status) status = timed_step(plan, base != NULL, &with);
        if (!status && count >= 0) values[count] = with - without;
    }
    if (!status) *result = bench_median(values, count);
    return status;
}

static ftr_status forward(bench *b, op *o, double *result) {
    const bool trains = o->inputs == 3 && o->work == 0; /* norms: the statistics of the batch */
    const ftr_compile_desc desc = {
        .mode = trains ? FTR_MODE_TRAIN : FTR_MODE_EVAL, .outputs = &o->result, .output_count = 1};
    ftr_plan *plan = NULL;
    ftr_status status = ftr_compile(o->graph, &desc, &plan);
    for (int i = 0; i < o->inputs && !status; i++) status = fill(plan, o->input[i]);
    if (!status) status = measure(plan, NULL, b->options.seconds, result);
    ftr_plan_destroy(plan);
    return status;
}

static ftr_status gradients(bench *b, op *o, pass which, double *result) {
    ftr_tensor r = ftr_input(o->graph, "r", ftr_dtype_of(o->result), ftr_shape_of(o->result)), wanted[5] = {o->result};
    ftr_tensor loss = ftr_sum(ftr_cast(ftr_mul(o->result, r), FTR_F32), ftr_all_axes(), false);
    ftr_plan *plan[2] = {NULL, NULL}; /* without, with */
    int from, to, count = 1;
    inputs_of(o, which, &from, &to);
    for (int i = from; i < to; i++) wanted[count++] = o->input[i];
    ftr_status status = FTR_OK;
    for (int k = 0; k < 2 && !status; k++) {
        const ftr_compile_desc desc = {
            .loss = loss, .gradients_of = wanted, .gradient_count = k ? count : 1, .no_fuse = FTR_FUSE_ALL};
        status = ftr_compile(o->graph, &desc, &plan[k]);
        for (int i = 0; i < o->inputs && !status; i++) status = fill(plan[k], o->input[i]);
        if (!status) status = fill(plan[k], r);
    }
    if (!status) status = measure(plan[1], plan[0], b->options.seconds, result);
    ftr_plan_destroy(plan[0]);
    ftr_plan_destroy(plan[1]);
    return status;
}

/* ----------------------------------------------------------------------------------------------------------- table -- */

static void describe(const problem *p, char *text, size_t size) {
    const long long n = p->size[0], a = p->size[1], b = p->size[2], c = p->size[3], k = p->size[4], s = p->size[5];
    if (p->family[0] == 'm' && n > 1)
        snprintf(text, size, "%lld of %lldx%lldx%lld", n, a, b, c);
    else if (p->family[0] == 'm')
        snprintf(text, size, "%lldx%lldx%lld", a, b, c);
    else if (p->family[0] == 'a')
        snprintf(text, size, "%lld of %lld, %lld heads of %lld%s", n, a, b, c, k ? ", causal" : "");
    else if (strstr(p->family, "norm"))
        snprintf(text, size, "%lldx%lld", n, a);
    else if (p->family[0] == 'd')
        snprintf(text, size, "b%lld %lldx%lldx%lld, %lldx%lld%s", n, a, a, b, k, k, s > 1 ? " /2" : "");
    else
        snprintf(text, size, "b%lld %lldx%lldx%lld, %lldx%lldx%lld%s", n, a, a, b, k, k, c, s > 1 ? " /2" : "");
}

/* PyTorch's time; negative if it is not there or died, which is then said. */
static double ask_twin(bench *b, const problem *p, pass which) {
    char question[256], line[256];
    if (!b->twin.pid) return -1;
    int length = snprintf(question, sizeof question, "%s;%s;%.3f", p->family, pass_names[which], b->options.seconds);
    for (int i = 0; i < 6; i++)
        length += snprintf(question + length, sizeof question - (size_t)length, ";%lld", (long long)p->size[i]);
    snprintf(question + length, sizeof question - (size_t)length, "\n");
    if (side_ask(&b->twin, question, " seconds=", 120, line, sizeof line)) return side_number(line, "seconds");
    fprintf(stderr, "PyTorch died: %s\n", b->twin.reason);
    return -1;
}

static bool row(bench *b, const problem *p, pass which) {
    op o = {.graph = ftr_graph_create(b->context), .back_work = 1};
    char shape[64];
    double ours = 0;
    build(&o, p, strcmp(b->options.dtype, "bf16") == 0 ? FTR_BF16 : FTR_F32);
    ftr_status status = which == FORWARD ? forward(b, &o, &ours) : gradients(b, &o, which, &ours);
    ftr_graph_destroy(o.graph);
    describe(p, shape, sizeof shape);
    if (status) return fprintf(stderr, "%s %s: %s\n", p->family, shape, ftr_error_message(b->context)), false;
    const bool dead = !b->twin.pid;
    const double theirs = ask_twin(b, p, which);
    const double work = which == BACKWARD ? o.work * o.back_work : o.work;
    const double bytes = which == BACKWARD ? o.bytes * (o.work > 0 ? 2 : 1.5) : o.bytes; /* norms: dy, x and dx */
    const double floor = fmax(work / b->flops, bytes / b->bandwidth), unit = (work > 0 ? work : bytes) / 1e9;
    printf("%-10s %-30s %-8s", p->family, shape, pass_names[which]);
    if (ours > 0)
        printf(" %8.1f %4.0f%%", unit / ours, 100 * floor / ours);
    else
        printf(" %8s %5s", "noise", "");
    if (theirs > 0) printf("   %8.1f %4.0f%%   %5.2f", unit / theirs, 100 * floor / theirs, theirs / ours);
    printf("\n");
    fflush(stdout);
    return dead || theirs > 0;
}

static bool table(bench *b, const family *f) {
    const bool norm = strcmp(f->name, "norm") == 0, whole = norm || strcmp(f->name, "attention") == 0;
    bool good = true;
    printf("\n%-10s %-30s %-8s %14s   %14s   %5s\n", norm ? "GB/s" : "GFLOP/s", "", "", "fasttrain, of", "PyTorch, of",
           "ratio");
    for (int i = 0; i < f->count && good; i++)
        for (int k = 0; k < PASSES && good; k++)
            if (k == FORWARD || (k == BACKWARD) == whole) good = row(b, &f->problems[i], (pass)k);
    return good;
}

/* ------------------------------------------------------------------------------------------------------------ main -- */

static void start_twin(bench *b) {
    char threads[16], line[256],
        *none[] = {NULL},
        *avx2[] = {"ATEN_CPU_CAPABILITY=avx2", "ONEDNN_MAX_CPU_ISA=AVX2", "MKL_ENABLE_INSTRUCTIONS=AVX2", NULL};
    snprintf(threads, sizeof threads, "%d", b->options.threads);
    char *argv[] = {(char *)b->options.python, "examples/bench/kernels.py", threads, (char *)b->options.dtype, NULL};
    if (!*b->options.python) {
        printf("PYTHON names no interpreter with PyTorch: fasttrain alone\n");
        return;
    }
    if (side_start(&b->twin, "build/bench/kernels.log", argv, strcmp(b->options.simd, "avx2") == 0 ? avx2 : none) &&
        side_read(&b->twin, "torch", 300, line, sizeof line))
        printf("%s: %s\n", b->options.python, line);
    else
        printf("%s cannot run kernels.py (%s): fasttrain alone\n", b->options.python, b->twin.reason);
}

static bool parse(int argc, char **argv, settings *o) {
    *o = (settings){.python = "python3", .simd = "", .dtype = "f32", .threads = 2, .seconds = 0.2};
    bool any = false, good = true;
    for (int i = 1; i < argc; i++) {
        const char *value = strchr(argv[i], '=') ? strchr(argv[i], '=') + 1 : "";
        bool known = true;
        if (strncmp(argv[i], "PYTHON=", 7) == 0)
            o->python = value;
        else if (strncmp(argv[i], "SIMD=", 5) == 0)
            o->simd = value;
        else if (strncmp(argv[i], "DTYPE=", 6) == 0)
            o->dtype = value;
        else if (strncmp(argv[i], "THREADS=", 8) == 0)
            o->threads = atoi(value);
        else if (strncmp(argv[i], "SECONDS=", 8) == 0)
            o->seconds = strtod(value, NULL);
        else
            known = false;
        for (int k = 0; k < FAMILIES && !known; k++)
            if (strcmp(argv[i], families[k].name) == 0) known = any = o->chosen[k] = true;
        if (!known) good = false, fprintf(stderr, "kernels: '%s' is neither a setting nor a family\n", argv[i]);
    }
    for (int k = 0; k < FAMILIES && !any; k++) o->chosen[k] = true;
    if (o->threads < 1 || !(o->seconds > 0) || (strcmp(o->dtype, "f32") != 0 && strcmp(o->dtype, "bf16") != 0))
        good = false, fprintf(stderr, "kernels: THREADS is 1 or more, SECONDS above 0, DTYPE f32 or bf16\n");
    return good;
}

int main(int argc, char **argv) {
    bench b = {.twin = {.pid = 0}};
    bool good = true;
    if (!parse(argc, argv, &b.options)) return EXIT_FAILURE;
    const bool bf16 = strcmp(b.options.dtype, "bf16") == 0;
    if (*b.options.simd) setenv("FASTTRAIN_SIMD", b.options.simd, 1);
    const ftr_context_desc desc = {.threads = b.options.threads, .log_level = FTR_LOG_WARNING};
    const ftr_status status = ftr_context_create(&desc, &b.context);
    if (status) return fprintf(stderr, "kernels: no context: %s\n", ftr_status_name(status)), EXIT_FAILURE;
    const char *simd = ftr_context_simd_name(b.context);
    const double one = peak_flops(simd, bf16, 1), one_bandwidth = peak_bandwidth(1);
    b.flops = fmax(one, peak_flops(simd, bf16, b.options.threads));
    b.bandwidth = fmax(one_bandwidth, peak_bandwidth(b.options.threads));
    if (!(b.flops > 0 && b.bandwidth > 0))
        return fprintf(stderr, "kernels: no memory to measure the peak\n"), EXIT_FAILURE;
    printf("peak, %s, %s: 1 thread %.0f GFLOP/s, %.1f GB/s; %d threads %.0f GFLOP/s, %.1f GB/s\n", simd,
           b.options.dtype, one / 1e9, one_bandwidth / 1e9, b.options.threads, b.flops / 1e9, b.bandwidth / 1e9);
    start_twin(&b);
    for (int i = 0; i < FAMILIES && good; i++)
        if (b.options.chosen[i] && (families[i].bf16 || !bf16)) good = table(&b, &families[i]);
    side_stop(&b.twin, 10);
    ftr_context_destroy(b.context);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
