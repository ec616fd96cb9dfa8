#include "backend/cuda/cudnn.cuh"

#include <cstdio>
#include <cstdlib>
#include <cstring>

/* The least version whose plans are made from a description of the device. */
#define FTR__DNN_LEAST_VERSION 90800

static cudnnDataType_t ftr__dnn_type(ftr_dtype dtype) {
    switch (dtype) {
    case FTR_F16: return CUDNN_DATA_HALF;
    case FTR_BF16: return CUDNN_DATA_BFLOAT16;
    case FTR_I32: return CUDNN_DATA_INT32;
    case FTR_I64: return CUDNN_DATA_INT64;
    default: return CUDNN_DATA_FLOAT;
    }
}

/* ---------------------------------------------------------------------------------------------------------- opening -- */

static ftr_status ftr__dnn_failed(ftr_context *context, cudnnStatus_t status, const char *what) {
    char text[FTR__DNN_REASON] = "";
    cudnnGetLastErrorString(text, sizeof text);
    return ftr_backend_fail(context, FTR_ERROR_DEVICE, "cuda: %s: %s%s%s", what, cudnnGetErrorString(status), *text ? ": " : "",
                            text);
}

#define FTR__DNN_TRY(context, call, what)                                                                              \
    do {                                                                                                               \
        const cudnnStatus_t ftr__status_of_call = (call);                                                              \
        if (ftr__status_of_call != CUDNN_STATUS_SUCCESS) return ftr__dnn_failed(context, ftr__status_of_call, what);   \
    } while (0)

/* A whole small file with a 0 behind it. */
static ftr_status ftr__dnn_read(ftr_context *context, const char *path, char *text, size_t size, size_t *length) {
    FILE *file = fopen(path, "rb");
    if (!file) return ftr_backend_fail(context, FTR_ERROR_IO, "FASTTRAIN_CUDNN_DEVICE: %s could not be opened", path);
    *length = fread(text, 1, size - 1, file);
    const bool whole = !ferror(file) && *length < size - 1;
    fclose(file);
    if (!whole)
        return ftr_backend_fail(context, FTR_ERROR_IO, "FASTTRAIN_CUDNN_DEVICE: %s could not be read, or has %zu bytes or more", path,
                                size - 1);
    text[*length] = 0;
    return FTR_OK;
}

/* FASTTRAIN_CUDNN_DEVICE names a file with the description of another device, as cuDNN writes it: plans can then be made and
 * looked at, not run. */
static ftr_status ftr__dnn_describe(ftr_context *context, ftr__cuda *cuda) {
    const char *path = getenv("FASTTRAIN_CUDNN_DEVICE");
    FTR__DNN_TRY(context, cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &cuda->dnn_device),
                 "cudnnBackendCreateDescriptor");
    if (path && *path) {
        char text[4096];
        size_t length = 0;
        const ftr_status status = ftr__dnn_read(context, path, text, sizeof text, &length);
        if (status) return status;
        FTR__DNN_TRY(context,
                     cudnnBackendSetAttribute(cuda->dnn_device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                                              static_cast<int64_t>(length) + 1, text),
                     "cudnnBackendSetAttribute");
    } else {
        const int32_t device = cuda->device;
        FTR__DNN_TRY(context, cudnnCreate(&cuda->dnn), "cudnnCreate");
        FTR__DNN_TRY(context, cudnnSetStream(cuda->dnn, cuda->stream), "cudnnSetStream");
        FTR__DNN_TRY(context,
                     cudnnBackendSetAttribute(cuda->dnn_device, CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, 1, &device),
                     "cudnnBackendSetAttribute");
    }
    FTR__DNN_TRY(context, cudnnBackendFinalize(cuda->dnn_device), "cudnnBackendFinalize");
    return FTR_OK;
}

FTR__CUDA_LIB ftr_status ftr__dnn_open(ftr_context *context, ftr__cuda *cuda) {
    const size_t version = cudnnGetVersion();
    if (version < FTR__DNN_LEAST_VERSION)
        return ftr_backend_fail(context, FTR_ERROR_DEVICE, "cuda: libcudnn is version %zu.%zu.%zu, expected %d.%d or newer", version / 10000,
                                version / 100 % 100, version % 100, FTR__DNN_LEAST_VERSION / 10000,
                                FTR__DNN_LEAST_VERSION / 100 % 100);
    return ftr__dnn_describe(context, cuda);
}

static void ftr__dnn_drop(ftr__dnn_graph *graph) {
    while (graph->descriptor_count > 0) (void)cudnnBackendDestroyDescriptor(graph->descriptors[--graph->descriptor_count]);
}

FTR__CUDA_LIB void ftr__dnn_close(ftr_context *context, ftr__cuda *cuda) {
    while (cuda->dnn_plans) {
        ftr__dnn_plan *plan = cuda->dnn_plans;
        cuda->dnn_plans = plan->next;
        if (plan->made) (void)cudnnBackendDestroyDescriptor(plan->made);
        ftr__dnn_drop(&plan->graph);
        ftr_backend_release(context, plan, sizeof *plan);
    }
    if (cuda->dnn_device) (void)cudnnBackendDestroyDescriptor(cuda->dnn_device);
    if (cuda->dnn) (void)cudnnDestroy(cuda->dnn);
}

/* --------------------------------------------------------------------------------------------------------- building -- */

static void ftr__dnn_refuse(ftr__dnn_graph *graph, cudnnStatus_t status, const char *what) {
    char text[FTR__DNN_REASON] = "";
    if (graph->status != CUDNN_STATUS_SUCCESS) return;
    graph->status = status;
    cudnnGetLastErrorString(text, sizeof text);
    snprintf(graph->reason, sizeof graph->reason, "%s: %.200s", what, *text ? text : cudnnGetErrorString(status));
}

static cudnnBackendDescriptor_t ftr__dnn_make(ftr__dnn_graph *graph, cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t made = nullptr;
    if (graph->status != CUDNN_STATUS_SUCCESS) return nullptr;
    if (graph->descriptor_count == FTR__DNN_MOST_DESCRIPTORS) {
        ftr__dnn_refuse(graph, CUDNN_STATUS_INTERNAL_ERROR, "too many descriptors");
        return nullptr;
    }
    const cudnnStatus_t status = cudnnBackendCreateDescriptor(type, &made);
    if (status != CUDNN_STATUS_SUCCESS) {
        ftr__dnn_refuse(graph, status, "cudnnBackendCreateDescriptor");
        return nullptr;
    }
    graph->descriptors[graph->descriptor_count++] = made;
    return made;
}

static void ftr__dnn_set(ftr__dnn_graph *graph, cudnnBackendDescriptor_t to, cudnnBackendAttributeName_t name,
                         cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    if (graph->status != CUDNN_STATUS_SUCCESS) return;
    const cudnnStatus_t status = cudnnBackendSetAttribute(to, name, type, count, values);
    if (status != CUDNN_STATUS_SUCCESS) ftr__dnn_refuse(graph, status, "cudnnBackendSetAttribute");
}

static void ftr__dnn_set_descriptor(ftr__dnn_graph *graph, cudnnBackendDescriptor_t to, cudnnBackendAttributeName_t name,
                                    cudnnBackendDescriptor_t value) {
    ftr__dnn_set(graph, to, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void ftr__dnn_finish(ftr__dnn_graph *graph, cudnnBackendDescriptor_t what) {
    if (graph->status != CUDNN_STATUS_SUCCESS) return;
    const cudnnStatus_t status = cudnnBackendFinalize(what);
    if (status != CUDNN_STATUS_SUCCESS) ftr__dnn_refuse(graph, status, "cudnnBackendFinalize");
}

static void ftr__dnn_add(ftr__dnn_graph *graph, cudnnBackendDescriptor_t operation) {
    ftr__dnn_finish(graph, operation);
    if (graph->status != CUDNN_STATUS_SUCCESS) return;
    if (graph->operation_count == FTR__DNN_MOST_OPERATIONS)
        ftr__dnn_refuse(graph, CUDNN_STATUS_INTERNAL_ERROR, "too many operations");
    else
        graph->operations[graph->operation_count++] = operation;
}

FTR__CUDA_LIB cudnnBackendDescriptor_t ftr__dnn_tensor(ftr__dnn_graph *graph, int64_t id, ftr_dtype dtype, const int64_t *dims,
                                                       const int64_t *strides, bool is_virtual) {
    const cudnnBackendDescriptor_t made = ftr__dnn_make(graph, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    const cudnnDataType_t type = ftr__dnn_type(dtype);
    const int64_t alignment = 16;
    ftr__dnn_set(graph, made, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    ftr__dnn_set(graph, made, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    ftr__dnn_set(graph, made, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    ftr__dnn_set(graph, made, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
    ftr__dnn_set(graph, made, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    ftr__dnn_set(graph, made, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    ftr__dnn_finish(graph, made);
    return made;
}

FTR__CUDA_LIB cudnnBackendDescriptor_t ftr__dnn_image(ftr__dnn_graph *graph, int64_t id, ftr_dtype dtype, const ftr_shape *shape,
                                                      bool is_virtual) {
    const int64_t n = shape->dim[0], h = shape->dim[1], w = shape->dim[2], c = shape->dim[3];
    const int64_t dims[4] = {n, c, h, w}, strides[4] = {h * w * c, 1, w * c, c};
    return ftr__dnn_tensor(graph, id, dtype, dims, strides, is_virtual);
}

FTR__CUDA_LIB cudnnBackendDescriptor_t ftr__dnn_channels(ftr__dnn_graph *graph, int64_t id, ftr_dtype dtype, int64_t channels) {
    const int64_t dims[4] = {1, channels, 1, 1}, strides[4] = {channels, 1, channels, channels};
    return ftr__dnn_tensor(graph, id, dtype, dims, strides, false);
}

/* Attributes of an operation, which the three kinds of a convolution have under names of their own. */
struct ftr__dnn_convolution_names {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t alpha, beta, description, x, w, y;
};

FTR__CUDA_LIB void ftr__dnn_convolution(ftr__dnn_graph *graph, ftr__dnn_convolution_kind kind, const ftr_op_attr *attr,
                                        cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t w, cudnnBackendDescriptor_t y) {
    static const ftr__dnn_convolution_names all[] = {
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY},
        {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY}};
    const ftr__dnn_convolution_names *names = &all[kind];
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t spatial = 2, strides[2] = {attr->conv.stride[0], attr->conv.stride[1]};
    const int64_t before[2] = {attr->conv.padding[0], attr->conv.padding[2]};
    const int64_t after[2] = {attr->conv.padding[1], attr->conv.padding[3]};
    const int64_t dilations[2] = {attr->conv.dilation[0], attr->conv.dilation[1]};
    const cudnnBackendDescriptor_t how = ftr__dnn_make(graph, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    ftr__dnn_set(graph, how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    ftr__dnn_set(graph, how, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    ftr__dnn_set(graph, how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &spatial);
    ftr__dnn_set(graph, how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides);
    ftr__dnn_set(graph, how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before);
    ftr__dnn_set(graph, how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, after);
    ftr__dnn_set(graph, how, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilations);
    ftr__dnn_finish(graph, how);
    const float one = 1.0f, zero = 0.0f;
    const cudnnBackendDescriptor_t operation = ftr__dnn_make(graph, names->type);
    ftr__dnn_set_descriptor(graph, operation, names->description, how);
    ftr__dnn_set_descriptor(graph, operation, names->x, x);
    ftr__dnn_set_descriptor(graph, operation, names->w, w);
    ftr__dnn_set_descriptor(graph, operation, names->y, y);
    ftr__dnn_set(graph, operation, names->alpha, CUDNN_TYPE_FLOAT, 1, &one);
    ftr__dnn_set(graph, operation, names->beta, CUDNN_TYPE_FLOAT, 1, &zero);
    ftr__dnn_add(graph, operation);
}

FTR__CUDA_LIB void ftr__dnn_pointwise(ftr__dnn_graph *graph, cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t x,
                                      cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y) {
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const cudnnBackendDescriptor_t how = ftr__dnn_make(graph, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    ftr__dnn_set(graph, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    ftr__dnn_set(graph, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    ftr__dnn_finish(graph, how);
    const cudnnBackendDescriptor_t operation = ftr__dnn_make(graph, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    ftr__dnn_set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    ftr__dnn_set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (b) ftr__dnn_set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    ftr__dnn_set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    ftr__dnn_add(graph, operation);
}

/* ----------------------------------------------------------------------------------------------------------- choosing -- */

#define FTR__DNN_MOST_CONFIGURATIONS 32

/* Whether a configuration's engine gives the same bits always, and computes in the precision that was asked for: f32 tensors
 * not by tensor cores, which round them to TF32, unless that is allowed. */
static bool ftr__dnn_is_wanted(const ftr__cuda *cuda, cudnnBackendDescriptor_t configuration, bool f32, bool *deterministic) {
    cudnnBackendDescriptor_t engine = nullptr;
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t count = 0;
    bool wanted = false;
    *deterministic = false;
    if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) != CUDNN_STATUS_SUCCESS) return false;
    if (cudnnBackendGetAttribute(configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &engine) ==
            CUDNN_STATUS_SUCCESS &&
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                 CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes) == CUDNN_STATUS_SUCCESS) {
        wanted = *deterministic = true;
        for (int64_t i = 0; i < count; i++) {
            if (notes[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) wanted = *deterministic = false;
            if (notes[i] == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION) wanted = false;
            if (f32 && !cuda->tf32 &&
                (notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE || notes[i] == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS))
                wanted = false;
        }
    }
    (void)cudnnBackendDestroyDescriptor(engine);
    return wanted;
}

/* An execution plan of a configuration; nullptr if it is refused. */
static cudnnBackendDescriptor_t ftr__dnn_try(const ftr__cuda *cuda, cudnnBackendDescriptor_t configuration, size_t *workspace,
                                             ftr__dnn_graph *graph) {
    cudnnBackendDescriptor_t plan = nullptr;
    int64_t bytes = 0, count = 0;
    cudnnStatus_t status = cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                          &configuration);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendSetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                          &cuda->dnn_device);
    if (status == CUDNN_STATUS_SUCCESS) status = cudnnBackendFinalize(plan);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count, &bytes);
    if (status == CUDNN_STATUS_SUCCESS) {
        *workspace = static_cast<size_t>(bytes);
        return plan;
    }
    if (!*graph->reason) { /* the reason of the first one is kept */
        ftr__dnn_refuse(graph, status, "the execution plan");
        graph->status = CUDNN_STATUS_SUCCESS;
    }
    if (plan) (void)cudnnBackendDestroyDescriptor(plan);
    return nullptr;
}

/* The first configuration of the heuristics' list that will do. */
static void ftr__dnn_choose(const ftr__cuda *cuda, ftr__dnn_graph *graph, cudnnBackendDescriptor_t operations,
                            cudnnBackendHeurMode_t mode, bool f32, ftr__dnn_plan *plan) {
    const cudnnBackendDescriptor_t heuristics = ftr__dnn_make(graph, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    ftr__dnn_set_descriptor(graph, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, operations);
    ftr__dnn_set(graph, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    ftr__dnn_set_descriptor(graph, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, cuda->dnn_device);
    ftr__dnn_finish(graph, heuristics);
    if (graph->status != CUDNN_STATUS_SUCCESS) return;
    cudnnBackendDescriptor_t configurations[FTR__DNN_MOST_CONFIGURATIONS];
    int64_t count = 0;
    int64_t chosen = -1;
    int32_t made = 0;
    while (made < FTR__DNN_MOST_CONFIGURATIONS &&
           cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configurations[made]) == CUDNN_STATUS_SUCCESS)
        made++;
    const cudnnStatus_t status = cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                                          made, &count, configurations);
    if (status != CUDNN_STATUS_SUCCESS) ftr__dnn_refuse(graph, status, "the heuristics");
    count = count < made ? count : made;
    plan->engines += status == CUDNN_STATUS_SUCCESS ? static_cast<int32_t>(count) : 0;
    for (int64_t i = 0; i < count && status == CUDNN_STATUS_SUCCESS && !plan->made; i++) {
        bool deterministic;
        const bool wanted = ftr__dnn_is_wanted(cuda, configurations[i], f32, &deterministic);
        plan->deterministic += deterministic;
        if (wanted) plan->made = ftr__dnn_try(cuda, configurations[i], &plan->workspace, graph);
        if (plan->made) chosen = i;
    }
    for (int32_t i = 0; i < made; i++) {
        if (i == chosen && graph->descriptor_count < FTR__DNN_MOST_DESCRIPTORS)
            graph->descriptors[graph->descriptor_count++] = configurations[i];
        else
            (void)cudnnBackendDestroyDescriptor(configurations[i]);
    }
}

/* Heuristics A are the quick ones; the fallback's engines are slower and take more. */
static void ftr__dnn_plan_make(const ftr__cuda *cuda, ftr__dnn_graph *graph, bool f32, ftr__dnn_plan *plan) {
    const cudnnBackendDescriptor_t operations = ftr__dnn_make(graph, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    ftr__dnn_set(graph, operations, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, graph->operation_count,
                 graph->operations);
    ftr__dnn_finish(graph, operations);
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    for (int32_t m = 0; m < 2 && !plan->made && graph->status == CUDNN_STATUS_SUCCESS; m++)
        ftr__dnn_choose(cuda, graph, operations, modes[m], f32, plan);
    if (!plan->made)
        snprintf(plan->reason, sizeof plan->reason, "%s",
                 *graph->reason ? graph->reason : "no engine is deterministic and of the precision that was asked for");
}

FTR__CUDA_LIB ftr__dnn_plan *ftr__dnn_plan_of(const ftr_kernel_call *call, const ftr__dnn_key *key, const char *pattern,
                                              ftr__dnn_build build) {
    ftr__cuda *cuda = ftr__cuda_of(call);
    for (ftr__dnn_plan *plan = cuda->dnn_plans; plan; plan = plan->next)
        if (memcmp(&plan->key, key, sizeof *key) == 0) return plan;
    ftr__dnn_plan *plan = static_cast<ftr__dnn_plan *>(ftr_backend_allocate(call->context, sizeof *plan));
    if (!plan) return nullptr;
    memset(static_cast<void *>(plan), 0, sizeof *plan);
    plan->key = *key;
    plan->pattern = pattern;
    plan->next = cuda->dnn_plans;
    cuda->dnn_plans = plan;
    build(&plan->graph, call, key->pattern);
    bool f32 = true;
    for (int32_t i = 0; i < 4; i++) f32 = f32 && !ftr__cuda_is_half(static_cast<ftr_dtype>(key->dtypes[i]));
    ftr__dnn_plan_make(cuda, &plan->graph, f32, plan);
    if (!plan->made) ftr__dnn_drop(&plan->graph);
    return plan;
}

/* ----------------------------------------------------------------------------------------------------------- running -- */

FTR__CUDA_LIB ftr_status ftr__dnn_run(const ftr_kernel_call *call, const ftr__dnn_plan *plan, int32_t count, const int64_t *ids,
                                      void *const *data, void *workspace) {
    const ftr__cuda *cuda = ftr__cuda_of(call);
    if (!cuda->dnn)
        return ftr_backend_error(call, FTR_ERROR_STATE, "the plan was made for the device of FASTTRAIN_CUDNN_DEVICE, and cannot run");
    cudnnBackendDescriptor_t pack = nullptr;
    cudnnStatus_t status = cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, ids);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, data);
    if (status == CUDNN_STATUS_SUCCESS)
        status = cudnnBackendSetAttribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    if (status == CUDNN_STATUS_SUCCESS) status = cudnnBackendFinalize(pack);
    if (status == CUDNN_STATUS_SUCCESS) status = cudnnBackendExecute(cuda->dnn, plan->made, pack);
    if (pack) (void)cudnnBackendDestroyDescriptor(pack);
    if (status == CUDNN_STATUS_SUCCESS) return FTR_OK;
    char text[FTR__DNN_REASON] = "";
    cudnnGetLastErrorString(text, sizeof text);
    return ftr_backend_error(call, FTR_ERROR_DEVICE, "cuDNN: %s%s%s", cudnnGetErrorString(status), *text ? ": " : "", text);
}
