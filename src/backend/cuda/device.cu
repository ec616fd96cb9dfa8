/* The device: choosing and opening it, memory, copies, and steps, which become one CUDA graph once they have run. */
#include "backend/cuda/blas.cuh"

#include <cstdlib>
#include <cstring>

/* The least that is supported: tensor cores with bf16. */
#define FTR__CUDA_LEAST_MAJOR 8

/* A plan's step with one set of nodes. It is run twice: as it comes, so that everything is loaded that loads itself on first
 * use, then into a capture; from then on the graph is launched. */
struct ftr__cuda_graph {
    const ftr_plan *plan;
    int32_t variant;
    cudaGraphExec_t made; /* nullptr: not yet */
    ftr__cuda_graph *next;
};

static ftr_status ftr__cuda_failed(ftr_context *context, cudaError_t error, const char *what) {
    const ftr_status status = error == cudaErrorMemoryAllocation ? FTR_ERROR_OUT_OF_MEMORY : FTR_ERROR_DEVICE;
    return ftr_backend_fail(context, status, "cuda: %s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

/* Returns from the function with a failure of CUDA's. */
#define FTR__CUDA_TRY(context, call, what)                                                                             \
    do {                                                                                                               \
        const cudaError_t ftr__error_of_call = (call);                                                                 \
        if (ftr__error_of_call != cudaSuccess) return ftr__cuda_failed(context, ftr__error_of_call, what);             \
    } while (0)

/* ---------------------------------------------------------------------------------------------------------- opening -- */

static ftr_status ftr__cuda_count(ftr_context *context, int32_t *count) {
    int found = 0, driver = 0;
    const cudaError_t error = cudaGetDeviceCount(&found);
    if (error == cudaErrorInsufficientDriver) {
        if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
            return ftr_backend_fail(context, FTR_ERROR_DEVICE,
                                    "cuda: there is no NVIDIA driver: install one for CUDA %d or newer, or use device \"cpu\"",
                                    CUDART_VERSION / 1000);
        return ftr_backend_fail(context, FTR_ERROR_DEVICE,
                                "cuda: the driver is for CUDA %d.%d, the program for %d.%d: install a newer driver",
                                driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    }
    if (error == cudaErrorNoDevice || (error == cudaSuccess && found == 0))
        return ftr_backend_fail(context, FTR_ERROR_DEVICE, "cuda: the driver found no GPU: use device \"cpu\"");
    if (error != cudaSuccess) return ftr__cuda_failed(context, error, "cudaGetDeviceCount");
    *count = found;
    return FTR_OK;
}

/* The device with the most free memory. */
static ftr_status ftr__cuda_roomiest(ftr_context *context, int32_t count, int32_t *device) {
    size_t most = 0;
    *device = 0;
    for (int32_t i = 0; i < count && count > 1; i++) {
        size_t free_bytes = 0, total = 0;
        FTR__CUDA_TRY(context, cudaSetDevice(i), "cudaSetDevice");
        FTR__CUDA_TRY(context, cudaMemGetInfo(&free_bytes, &total), "cudaMemGetInfo");
        if (free_bytes > most) {
            most = free_bytes;
            *device = i;
        }
    }
    return FTR_OK;
}

static ftr_status ftr__cuda_choose(ftr_context *context, int32_t asked, ftr__cuda *cuda) {
    int32_t count = 0;
    ftr_status status = ftr__cuda_count(context, &count);
    if (status) return status;
    cuda->device = asked;
    if (asked < 0) status = ftr__cuda_roomiest(context, count, &cuda->device);
    if (status) return status;
    if (cuda->device >= count)
        return ftr_backend_fail(context, FTR_ERROR_DEVICE, "cuda: device %d was asked for, there are %d (cuda:0 to cuda:%d)",
                                (int)asked, (int)count, (int)count - 1);
    FTR__CUDA_TRY(context, cudaGetDeviceProperties(&cuda->properties, cuda->device), "cudaGetDeviceProperties");
    if (cuda->properties.major < FTR__CUDA_LEAST_MAJOR)
        return ftr_backend_fail(context, FTR_ERROR_DEVICE,
                                "cuda: device %d (%s) has compute capability %d.%d, expected %d.0 or more: use another device "
                                "or \"cpu\"",
                                (int)cuda->device, cuda->properties.name, cuda->properties.major, cuda->properties.minor,
                                FTR__CUDA_LEAST_MAJOR);
    FTR__CUDA_TRY(context, cudaSetDevice(cuda->device), "cudaSetDevice");
    return FTR_OK;
}

/* FASTTRAIN_CUDA_STEPS: graph (the default), nodes (launched one by one), wait (and each waited for, so that a failure is the
 * node's that caused it). */
static ftr_status ftr__cuda_steps(ftr_context *context, ftr__cuda *cuda) {
    const char *word = getenv("FASTTRAIN_CUDA_STEPS");
    if (!word || !*word) word = "graph";
    cuda->capture = strcmp(word, "graph") == 0;
    cuda->synchronous = strcmp(word, "wait") == 0;
    if (cuda->capture || cuda->synchronous || strcmp(word, "nodes") == 0) return FTR_OK;
    return ftr_backend_fail(context, FTR_ERROR_INVALID_ARGUMENT,
                            "FASTTRAIN_CUDA_STEPS is '%s', expected graph, nodes or wait", word);
}

/* FASTTRAIN_TF32: off (the default) or on. */
static ftr_status ftr__cuda_take_tf32(ftr_context *context, ftr__cuda *cuda) {
    const char *word = getenv("FASTTRAIN_TF32");
    if (!word || !*word) word = "off";
    cuda->tf32 = strcmp(word, "on") == 0;
    if (cuda->tf32 || strcmp(word, "off") == 0) return FTR_OK;
    return ftr_backend_fail(context, FTR_ERROR_INVALID_ARGUMENT, "FASTTRAIN_TF32 is '%s', expected on or off", word);
}

static ftr_status ftr__cuda_prepare(ftr_context *context, int32_t device, ftr__cuda *cuda) {
    ftr_status status = ftr__cuda_steps(context, cuda);
    if (!status) status = ftr__cuda_take_tf32(context, cuda);
    if (!status) status = ftr__cuda_choose(context, device, cuda);
    if (status) return status;
    void *memory = nullptr;
    FTR__CUDA_TRY(context, cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    FTR__CUDA_TRY(context, cudaMalloc(&memory, sizeof(uint64_t)), "cudaMalloc");
    cuda->step = static_cast<uint64_t *>(memory);
    FTR__CUDA_TRY(context, cudaMalloc(&memory, sizeof(ftr__cuda_fault)), "cudaMalloc");
    cuda->fault = static_cast<ftr__cuda_fault *>(memory);
    FTR__CUDA_TRY(context, cudaMallocHost(&memory, sizeof(ftr__cuda_fault)), "cudaMallocHost");
    cuda->seen_fault = static_cast<ftr__cuda_fault *>(memory);
    memset(cuda->seen_fault, 0, sizeof *cuda->seen_fault);
    FTR__CUDA_TRY(context, cudaMemsetAsync(cuda->fault, 0, sizeof *cuda->fault, cuda->stream), "cudaMemsetAsync");
    FTR__CUDA_TRY(context, cudaStreamSynchronize(cuda->stream), "cudaStreamSynchronize");
    status = ftr__dnn_open(context, cuda);
    return status ? status : ftr__blas_open(context, cuda);
}

static void ftr__cuda_close(ftr_context *context, void *state) {
    ftr__cuda *cuda = static_cast<ftr__cuda *>(state);
    if (cuda->stream) (void)cudaStreamSynchronize(cuda->stream);
    ftr__dnn_close(context, cuda);
    ftr__blas_close(context, cuda);
    if (cuda->stream) (void)cudaStreamDestroy(cuda->stream);
    if (cuda->step) (void)cudaFree(cuda->step);
    if (cuda->fault) (void)cudaFree(cuda->fault);
    if (cuda->seen_fault) (void)cudaFreeHost(cuda->seen_fault);
    ftr_backend_release(context, cuda, sizeof *cuda);
}

static ftr_status ftr__cuda_open(ftr_context *context, int32_t threads, int32_t device, void **state) {
    (void)threads;
    ftr__cuda *cuda = static_cast<ftr__cuda *>(ftr_backend_allocate(context, sizeof *cuda));
    if (!cuda)
        return ftr_backend_fail(context, FTR_ERROR_OUT_OF_MEMORY, "cuda: %zu bytes could not be allocated", sizeof *cuda);
    memset(static_cast<void *>(cuda), 0, sizeof *cuda);
    cuda->context = context;
    const ftr_status status = ftr__cuda_prepare(context, device, cuda);
    if (status)
        ftr__cuda_close(context, cuda);
    else
        *state = cuda;
    return status;
}

/* ------------------------------------------------------------------------------------------------- memory and copies -- */

static void *ftr__cuda_allocate(ftr_context *context, void *state, size_t size) {
    void *memory = nullptr;
    (void)state;
    const cudaError_t error = cudaMalloc(&memory, size ? size : 1);
    if (error == cudaSuccess) return memory;
    size_t free_bytes = 0, total = 0;
    if (error == cudaErrorMemoryAllocation && cudaMemGetInfo(&free_bytes, &total) == cudaSuccess)
        (void)ftr_backend_fail(context, FTR_ERROR_OUT_OF_MEMORY,
                               "cuda: %zu bytes of device memory were asked for, %zu of %zu are free", size, free_bytes, total);
    else
        (void)ftr__cuda_failed(context, error, "cudaMalloc");
    (void)cudaGetLastError(); /* it is told of once */
    return nullptr;
}

static void ftr__cuda_release(ftr_context *context, void *state, void *memory, size_t size) {
    (void)context;
    (void)state;
    (void)size;
    (void)cudaFree(memory);
}

/* The sentence of a fault, as the CPU backend has it. */
static ftr_status ftr__cuda_tell(ftr_context *context, const ftr__cuda_fault *fault) {
    static const char *const forms[] = {
        "",
        "%s '%s': index %lld at position %lld is outside the %lld rows",
        "%s '%s': index %lld at position %lld is outside the axis, which has size %lld",
        "%s '%s': index %lld at position %lld is outside the %lld classes",
        "%s '%s': label %lld at row %lld is outside the %lld classes",
        "%s '%s': the partner %lld of row %lld is outside the %lld rows",
        "%s '%s': a box from row %lld to row %lld in images of height %lld",
        "%s '%s': a box from column %lld to column %lld in images of width %lld",
    };
    return ftr_backend_fail(context, FTR_ERROR_DATA, forms[fault->kind], fault->op, fault->node,
                            static_cast<long long>(fault->found), static_cast<long long>(fault->position),
                            static_cast<long long>(fault->limit));
}

/* Reports the fault that a finished step left, once. */
static ftr_status ftr__cuda_take_fault(ftr_context *context, ftr__cuda *cuda) {
    const ftr__cuda_fault fault = *cuda->seen_fault;
    if (fault.kind == FTR__CUDA_FAULT_NONE) return FTR_OK;
    FTR__CUDA_TRY(context, cudaStreamSynchronize(cuda->stream), "cudaStreamSynchronize");
    memset(cuda->seen_fault, 0, sizeof *cuda->seen_fault);
    FTR__CUDA_TRY(context, cudaMemsetAsync(cuda->fault, 0, sizeof *cuda->fault, cuda->stream), "cudaMemsetAsync");
    return ftr__cuda_tell(context, &fault);
}

/* `from` may be used again when it returns: CUDA has then copied it, or a copy of it waits in the stream. */
static ftr_status ftr__cuda_upload(ftr_context *context, void *state, void *to, const void *from, size_t size) {
    const ftr__cuda *cuda = static_cast<ftr__cuda *>(state);
    FTR__CUDA_TRY(context, cudaMemcpyAsync(to, from, size, cudaMemcpyHostToDevice, cuda->stream), "cudaMemcpyAsync");
    return FTR_OK;
}

static ftr_status ftr__cuda_download(ftr_context *context, void *state, void *to, const void *from, size_t size) {
    ftr__cuda *cuda = static_cast<ftr__cuda *>(state);
    FTR__CUDA_TRY(context, cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToHost, cuda->stream), "cudaMemcpyAsync");
    FTR__CUDA_TRY(context, cudaStreamSynchronize(cuda->stream), "cudaStreamSynchronize");
    return ftr__cuda_take_fault(context, cuda);
}

/* What the data sheet says: multiply-adds in f32 of all multiprocessors, and the memory's bus. */
static ftr_status ftr__cuda_measure(ftr_context *context, void *state, ftr_machine *machine) {
    const ftr__cuda *cuda = static_cast<ftr__cuda *>(state);
    int clock = 0, memory_clock = 0, bus = 0;
    FTR__CUDA_TRY(context, cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, cuda->device), "cudaDeviceGetAttribute");
    FTR__CUDA_TRY(context, cudaDeviceGetAttribute(&memory_clock, cudaDevAttrMemoryClockRate, cuda->device),
                  "cudaDeviceGetAttribute");
    FTR__CUDA_TRY(context, cudaDeviceGetAttribute(&bus, cudaDevAttrGlobalMemoryBusWidth, cuda->device),
                  "cudaDeviceGetAttribute");
    machine->flops = 2.0 * 128.0 * cuda->properties.multiProcessorCount * clock * 1e3;
    machine->bandwidth = 2.0 * memory_clock * 1e3 * bus / 8.0;
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------------ steps -- */

FTR__KERNEL ftr__set_step(uint64_t *to, uint64_t step) { *to = step; }

static ftr__cuda_graph *ftr__cuda_graph_of(ftr_context *context, ftr__cuda *cuda, const ftr_plan *plan, int32_t variant,
                                           bool *fresh) {
    *fresh = false;
    for (ftr__cuda_graph *g = cuda->graphs; g; g = g->next)
        if (g->plan == plan && g->variant == variant) return g;
    ftr__cuda_graph *made = static_cast<ftr__cuda_graph *>(ftr_backend_allocate(context, sizeof *made));
    if (!made) return nullptr;
    *made = ftr__cuda_graph{plan, variant, nullptr, cuda->graphs};
    cuda->graphs = made;
    *fresh = true;
    return made;
}

static ftr_status ftr__cuda_begin_step(ftr_context *context, void *state, const ftr_plan *plan, int32_t variant,
                                       uint64_t step, bool node_by_node, bool *replay) {
    ftr__cuda *cuda = static_cast<ftr__cuda *>(state);
    const ftr_status status = ftr__cuda_take_fault(context, cuda);
    if (status) return status;
    cuda->node_by_node = node_by_node || cuda->synchronous;
    cuda->capturing = nullptr;
    FTR__CUDA_TRY(context, ftr__cuda_start("ftr__set_step", ftr__set_step, dim3(1), dim3(1), cuda->stream, cuda->step, step),
                  "ftr__set_step");
    if (!cuda->capture || cuda->node_by_node) return FTR_OK;
    bool fresh;
    ftr__cuda_graph *graph = ftr__cuda_graph_of(context, cuda, plan, variant, &fresh);
    if (!graph)
        return ftr_backend_fail(context, FTR_ERROR_OUT_OF_MEMORY, "cuda: %zu bytes could not be allocated", sizeof *graph);
    if (graph->made) {
        FTR__CUDA_TRY(context, cudaGraphLaunch(graph->made, cuda->stream), "cudaGraphLaunch");
        *replay = true;
    } else if (!fresh) {
        FTR__CUDA_TRY(context, cudaStreamBeginCapture(cuda->stream, cudaStreamCaptureModeThreadLocal),
                      "cudaStreamBeginCapture");
        cuda->capturing = graph;
    }
    return FTR_OK;
}

/* Makes the captured nodes a graph and launches it. */
static ftr_status ftr__cuda_end_capture(ftr_context *context, ftr__cuda *cuda, ftr_status failure) {
    ftr__cuda_graph *graph = cuda->capturing;
    cudaGraph_t nodes = nullptr;
    cuda->capturing = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(cuda->stream, &nodes);
    cudaError_t error = ended;
    if (!failure && error == cudaSuccess) error = cudaGraphInstantiate(&graph->made, nodes, 0);
    if (nodes) (void)cudaGraphDestroy(nodes);
    if (failure) return failure;
    FTR__CUDA_TRY(context, error, ended == cudaSuccess ? "cudaGraphInstantiate" : "cudaStreamEndCapture");
    FTR__CUDA_TRY(context, cudaGraphLaunch(graph->made, cuda->stream), "cudaGraphLaunch");
    return FTR_OK;
}

static ftr_status ftr__cuda_end_step(ftr_context *context, void *state, ftr_status failure) {
    ftr__cuda *cuda = static_cast<ftr__cuda *>(state);
    if (cuda->capturing) failure = ftr__cuda_end_capture(context, cuda, failure);
    if (failure) return failure;
    FTR__CUDA_TRY(context,
                  cudaMemcpyAsync(cuda->seen_fault, cuda->fault, sizeof *cuda->fault, cudaMemcpyDeviceToHost, cuda->stream),
                  "cudaMemcpyAsync");
    return FTR_OK;
}

static void ftr__cuda_forget_plan(ftr_context *context, void *state, const ftr_plan *plan) {
    ftr__cuda *cuda = static_cast<ftr__cuda *>(state);
    (void)cudaStreamSynchronize(cuda->stream);
    for (ftr__cuda_graph **at = &cuda->graphs; *at;) {
        ftr__cuda_graph *graph = *at;
        if (graph->plan != plan) {
            at = &graph->next;
            continue;
        }
        *at = graph->next;
        if (graph->made) (void)cudaGraphExecDestroy(graph->made);
        ftr_backend_release(context, graph, sizeof *graph);
    }
}

/* ------------------------------------------------------------------------------------------------------- the kernels -- */

/* What an op's kernels are. */
struct ftr__cuda_kernel {
    ftr_status (*run)(const ftr_kernel_call *call);
    size_t (*workspace)(const ftr_kernel_call *call);
};

static ftr__cuda_kernel ftr__cuda_kernel_of(ftr_op op) {
    switch (op) {
#define FTR__CUDA_CASE(name, run, workspace) case FTR_OP_##name: return {run, workspace};
        FTR__CUDA_KERNELS(FTR__CUDA_CASE)
#undef FTR__CUDA_CASE
    default: return {nullptr, nullptr};
    }
}

static ftr_status ftr__cuda_run(const ftr_kernel_call *call) {
    const ftr__cuda *cuda = ftr__cuda_of(call);
    const ftr_status status = ftr__cuda_kernel_of(call->op).run(call);
    if (status || !cuda->node_by_node) return status;
    return ftr__cuda_check(call, cudaStreamSynchronize(cuda->stream), "the node's kernels");
}

static size_t ftr__cuda_workspace(const ftr_kernel_call *call) {
    const ftr__cuda_kernel kernel = ftr__cuda_kernel_of(call->op);
    return kernel.workspace ? kernel.workspace(call) : 0;
}

static const char *ftr__cuda_algorithm(const ftr_kernel_call *call) {
    switch (call->op) {
    case FTR_OP_conv2d:
    case FTR_OP_conv2d_grad_input:
    case FTR_OP_conv2d_grad_weight: return ftr__cuda_conv2d_algorithm(call);
    case FTR_OP_matmul:
    case FTR_OP_linear: return ftr__cuda_matmul_algorithm(call);
    default: return "";
    }
}

static ftr_status ftr__cuda_check_call(const ftr_kernel_call *call) {
    for (int32_t i = 0; i < call->in_count + call->out_count; i++) {
        const ftr_view *view = i < call->in_count ? &call->in[i] : &call->out[i - call->in_count];
        if (view->dtype == FTR_F64) return ftr_backend_error(call, FTR_ERROR_UNSUPPORTED, "the cuda backend has no f64 kernels");
    }
    return FTR_OK;
}

/* C++17 has no designated entries of arrays: a constant expression fills the table. */
struct ftr__cuda_entries {
    ftr_kernel of[FTR_OP_COUNT];
};

static constexpr ftr__cuda_entries ftr__cuda_make_entries() {
    ftr__cuda_entries entries = {};
#define FTR__CUDA_ENTRY(name, run_function, workspace_function)                                                        \
    entries.of[FTR_OP_##name] = ftr_kernel{ftr__cuda_run, ftr__cuda_check_call, ftr__cuda_workspace, nullptr,          \
                                            ftr__cuda_algorithm};
    FTR__CUDA_KERNELS(FTR__CUDA_ENTRY)
#undef FTR__CUDA_ENTRY
    return entries;
}

static constexpr ftr__cuda_entries ftr__cuda_table = ftr__cuda_make_entries();

static const ftr_backend ftr__cuda_backend = {
    FTR_BACKEND_VERSION,  "cuda",
    false,                ftr__cuda_open,
    ftr__cuda_close,      ftr__cuda_allocate,
    ftr__cuda_release,    ftr__cuda_upload,
    ftr__cuda_download,   ftr__cuda_measure,
    ftr__cuda_table.of,   ftr__cuda_begin_step,
    ftr__cuda_end_step,   ftr__cuda_forget_plan,
};

const ftr_backend *ftr_cuda_backend(void) { return &ftr__cuda_backend; }
