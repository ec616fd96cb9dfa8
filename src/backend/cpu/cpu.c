#include "backend/cpu/cpu.h"

#include <string.h>

/* f64 is for reference backends. All other types have passed the op's shape inference, so kernels do not check again. */
static ftr_status ftr__cpu_check(const ftr_kernel_call *call) {
    for (int32_t i = 0; i < call->in_count + call->out_count; i++) {
        const ftr_view *view = i < call->in_count ? &call->in[i] : &call->out[i - call->in_count];
        if (view->dtype == FTR_F64)
            return ftr_backend_error(call, FTR_ERROR_UNSUPPORTED, "the cpu backend has no f64 kernels");
    }
    return FTR_OK;
}

static const ftr_kernel ftr__cpu_kernels[FTR_OP_COUNT] = {
#define FTR__CPU_ENTRY(op, run_function, workspace_function) \
    [FTR_OP_##op] = {.run = run_function, .check = ftr__cpu_check, .workspace = workspace_function},
    FTR__CPU_KERNELS(FTR__CPU_ENTRY)
#undef FTR__CPU_ENTRY
};

static ftr_status ftr__cpu_open(ftr_context *context, int32_t threads, void **state) {
    ftr__simd_level level;
    ftr_status status = ftr__simd_choose(context, &level);
    if (status) return status;
    ftr__cpu *cpu = ftr__allocate(context, sizeof *cpu);
    if (!cpu) return ftr__out_of_memory(context, "cpu backend", sizeof *cpu);
    *cpu = (ftr__cpu){.simd = ftr__simd_table(level), .level = level};
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

static ftr_status ftr__cpu_copy(ftr_context *context, void *state, void *to, const void *from, size_t size) {
    (void)context;
    (void)state;
    memcpy(to, from, size);
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
    .upload = ftr__cpu_copy,
    .download = ftr__cpu_copy,
    .kernels = ftr__cpu_kernels,
};

const ftr_backend *ftr_cpu_backend(void) { return &ftr__cpu_table; }

const char *ftr_context_simd_name(const ftr_context *context) {
    if (!context || context->backend != &ftr__cpu_table) return "";
    const ftr__cpu *cpu = context->backend_state;
    return ftr__simd_level_name(cpu->level);
}
