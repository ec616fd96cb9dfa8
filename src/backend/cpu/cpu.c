#include "backend/cpu/cpu.h"

#include <string.h>

/* A kernel on f32 and integers. */
typedef struct ftr__cpu_kernel {
    ftr_status (*run)(const ftr_kernel_call *call);
    size_t (*workspace)(const ftr_kernel_call *call); /* NULL: none */
} ftr__cpu_kernel;

#define FTR__CPU_TAKES_HALF(op) case FTR_OP_##op:
static bool ftr__cpu_takes_half(const ftr_kernel_call *call) {
    switch (call->op) {
        FTR__CPU_HALF_KERNELS(FTR__CPU_TAKES_HALF) return true;
    case FTR_OP_matmul:
    case FTR_OP_linear: return ftr__cpu_matmul_takes_bf16(call);
    case FTR_OP_conv2d:
    case FTR_OP_conv2d_grad_input:
    case FTR_OP_conv2d_grad_weight: return ftr__cpu_conv2d_takes_bf16(call);
    default: return false;
    }
}

static const ftr__cpu_kernel ftr__cpu_functions[FTR_OP_COUNT] = {
#define FTR__CPU_FUNCTIONS(op, run_function, workspace_function)                                                       \
    [FTR_OP_##op] = {.run = run_function, .workspace = workspace_function},
    FTR__CPU_KERNELS(FTR__CPU_FUNCTIONS)
#undef FTR__CPU_FUNCTIONS
};

static bool ftr__cpu_needs_f32(const ftr_kernel_call *call) {
    bool half = false;
    for (int32_t i = 0; i < call->in_count; i++) half = half || ftr__is_half(call->in[i].dtype);
    for (int32_t i = 0; i < call->out_count; i++) half = half || ftr__is_half(call->out[i].dtype);
    return half && !ftr__cpu_takes_half(call);
}

/* f64 is for reference backends. All other types have passed the op's shape inference, so kernels do not check again. */
static ftr_status ftr__cpu_check(const ftr_kernel_call *call) {
    for (int32_t i = 0; i < call->in_count + call->out_count; i++) {
        const ftr_view *view = i < call->in_count ? &call->in[i] : &call->out[i - call->in_count];
        if (view->dtype == FTR_F64)
            return ftr_backend_error(call, FTR_ERROR_UNSUPPORTED, "the cpu backend has no f64 kernels");
    }
    if (call->in_count + call->out_count > FTR__CPU_HALF_VIEWS && ftr__cpu_needs_f32(call))
        return ftr_backend_error(call, FTR_ERROR_UNSUPPORTED,
                                 "%d inputs and outputs, expected at most %d with f16 or bf16",
                                 (int)(call->in_count + call->out_count), FTR__CPU_HALF_VIEWS);
    return FTR_OK;
}

static ftr_status ftr__cpu_run(const ftr_kernel_call *call) {
    const ftr__cpu_kernel *kernel = &ftr__cpu_functions[call->op];
    return ftr__cpu_needs_f32(call) ? ftr__cpu_half_run(call, kernel->run) : kernel->run(call);
}

static size_t ftr__cpu_workspace(const ftr_kernel_call *call) {
    const ftr__cpu_kernel *kernel = &ftr__cpu_functions[call->op];
    if (ftr__cpu_needs_f32(call)) return ftr__cpu_half_workspace(call, kernel->workspace);
    return kernel->workspace ? kernel->workspace(call) : 0;
}

static size_t ftr__cpu_kept(const ftr_kernel_call *call) {
    if (ftr__cpu_needs_f32(call)) return 0;
    switch (call->op) {
    case FTR_OP_conv2d: return ftr__cpu_conv2d_kept(call);
    case FTR_OP_linear: return ftr__cpu_linear_kept(call);
    default: return 0;
    }
}

static const char *ftr__cpu_algorithm(const ftr_kernel_call *call) {
    switch (call->op) {
    case FTR_OP_conv2d:
    case FTR_OP_conv2d_grad_input:
    case FTR_OP_conv2d_grad_weight: return ftr__cpu_conv2d_algorithm(call);
    default: return "";
    }
}

static const ftr_kernel ftr__cpu_kernels[FTR_OP_COUNT] = {
#define FTR__CPU_ENTRY(op, run_function, workspace_function)                                                           \
    [FTR_OP_##op] = {.run = ftr__cpu_run,                                                                              \
                     .check = ftr__cpu_check,                                                                          \
                     .workspace = ftr__cpu_workspace,                                                                  \
                     .kept = ftr__cpu_kept,                                                                            \
                     .algorithm = ftr__cpu_algorithm},
    FTR__CPU_KERNELS(FTR__CPU_ENTRY)
#undef FTR__CPU_ENTRY
};

static ftr_status ftr__winograd_choose(ftr_context *context, ftr__winograd_choice *choice) {
    static const char *const words[] = {"auto", "on", "off"};
    const char *word = ftr__environment("FASTTRAIN_WINOGRAD");
    *choice = FTR__WINOGRAD_AUTO;
    for (int32_t i = 0; i < FTR__ARRAY_LENGTH(words) && *word; i++) {
        *choice = (ftr__winograd_choice)i;
        if (strcmp(word, words[i]) == 0) return FTR_OK;
    }
    if (!*word) return FTR_OK;
    return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "FASTTRAIN_WINOGRAD is '%s', expected auto, on or off",
                      word);
}

/* Whether products of bf16 use the CPU's instructions for them: where they are faster than f32's, or, if FASTTRAIN_BF16 is on,
 * where they are there at this level. */
static ftr_status ftr__bf16_choose(ftr_context *context, ftr__simd_level level, const ftr__simd_bf16 **bf16) {
    static const char *const words[] = {"auto", "on", "off"};
    const char *word = ftr__environment("FASTTRAIN_BF16");
    int32_t choice = 0;
    while (*word && choice < FTR__ARRAY_LENGTH(words) && strcmp(word, words[choice]) != 0) choice++;
    if (choice == FTR__ARRAY_LENGTH(words))
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "FASTTRAIN_BF16 is '%s', expected auto, on or off", word);
    const bool has = level == FTR__SIMD_AVX512 && ftr__has_bf16();
    *bf16 = has && (choice == 1 || (choice == 0 && ftr__has_fast_bf16())) ? ftr__simd_bf16_table() : NULL;
    return FTR_OK;
}

static ftr_status ftr__cpu_open(ftr_context *context, int32_t threads, int32_t device, void **state) {
    (void)device;
    ftr__simd_level level;
    ftr__winograd_choice winograd;
    ftr_status status = ftr__simd_choose(context, &level);
    const ftr__simd_bf16 *bf16 = NULL;
    if (!status) status = ftr__winograd_choose(context, &winograd);
    if (!status) status = ftr__bf16_choose(context, level, &bf16);
    if (status) return status;
    ftr__cpu *cpu = ftr__allocate(context, sizeof *cpu);
    if (!cpu) return ftr__out_of_memory(context, "cpu backend", sizeof *cpu);
    *cpu = (ftr__cpu){.simd = ftr__simd_table(level), .level = level, .winograd = winograd};
    if (bf16) {
        cpu->bf16 = bf16;
        cpu->bf16_gemm = cpu->simd->gemm;
        cpu->bf16_gemm.tile = bf16->tile;
        cpu->bf16_gemm.tile_rows = bf16->tile_rows;
    }
    status = ftr__pool_create(context, threads, &cpu->pool);
    if (status) {
        ftr__release(context, cpu, sizeof *cpu);
        return status;
    }
    *state = cpu;
    return FTR_OK;
}

static void ftr__cpu_close(ftr_context *context, void *state) {
    ftr__cpu *cpu = state;
    ftr__pool_destroy(context, cpu->pool);
    ftr__release(context, cpu, sizeof *cpu);
}

static void *ftr__cpu_allocate(ftr_context *context, void *state, size_t size) {
    (void)state;
    return ftr__allocate(context, size);
}

static void ftr__cpu_release(ftr_context *context, void *state, void *memory, size_t size) {
    (void)state;
    ftr__release(context, memory, size);
}

static ftr_status ftr__cpu_upload(ftr_context *context, void *state, void *to, const void *from, size_t size) {
    (void)context;
    (void)state;
    memcpy(to, from, size);
    return FTR_OK;
}

/* A copy from this size on is cut into pieces for all threads, and goes past the caches. */
#define FTR__CPU_DOWNLOAD_LARGE ((size_t)4 << 20)
#define FTR__CPU_DOWNLOAD_PIECE ((size_t)256 << 10)

typedef struct ftr__cpu_download_job {
    const ftr__simd *simd;
    unsigned char *to;
    const unsigned char *from;
    size_t size;
} ftr__cpu_download_job;

static void ftr__cpu_download_task(void *arg, int64_t task, int32_t worker) {
    const ftr__cpu_download_job *job = arg;
    const size_t begin = (size_t)task * FTR__CPU_DOWNLOAD_PIECE, left = job->size - begin;
    (void)worker;
    job->simd->math.stream(left < FTR__CPU_DOWNLOAD_PIECE ? left : FTR__CPU_DOWNLOAD_PIECE, job->from + begin,
                           job->to + begin);
}

static ftr_status ftr__cpu_download(ftr_context *context, void *state, void *to, const void *from, size_t size) {
    const ftr__cpu *cpu = state;
    if (size < FTR__CPU_DOWNLOAD_LARGE) return ftr__cpu_upload(context, state, to, from, size);
    ftr__cpu_download_job job = {.simd = cpu->simd, .to = to, .from = from, .size = size};
    ftr__pool_run(cpu->pool, (int64_t)((size + FTR__CPU_DOWNLOAD_PIECE - 1) / FTR__CPU_DOWNLOAD_PIECE),
                  ftr__cpu_download_task, &job);
    return FTR_OK;
}

static const ftr_backend ftr__cpu_table = {
    .version = FTR_BACKEND_VERSION,
    .name = "cpu",
    .host_memory = true,
    .open = ftr__cpu_open,
    .close = ftr__cpu_close,
    .allocate = ftr__cpu_allocate,
    .release = ftr__cpu_release,
    .upload = ftr__cpu_upload,
    .download = ftr__cpu_download,
    .measure = ftr__cpu_measure,
    .kernels = ftr__cpu_kernels,
};

const ftr_backend *ftr_cpu_backend(void) { return &ftr__cpu_table; }

const char *ftr_context_simd_name(const ftr_context *context) {
    if (!context || context->backend != &ftr__cpu_table) return "";
    const ftr__cpu *cpu = context->backend_state;
    return ftr__simd_level_name(cpu->level);
}
