/* Graphs and execution plans of cuDNN, through its graph API in C. A plan is made once for each node's op, types, shapes and
 * attributes, when a plan of fasttrain is compiled, and kept until the context ends; what cuDNN refuses is kept too, with its
 * reason. Plans are made from a description of the device, which is the one in use or, where there is none, one that a file
 * describes (see ftr__dnn_open()). */
#ifndef FTR_BACKEND_CUDA_CUDNN_CUH
#define FTR_BACKEND_CUDA_CUDNN_CUH

#include "backend/cuda/cuda.cuh"

#include <cudnn.h>

#define FTR__DNN_MOST_DESCRIPTORS 96
#define FTR__DNN_MOST_OPERATIONS 16
#define FTR__DNN_MOST_TENSORS 16
#define FTR__DNN_REASON 256

/* A graph that is being built. The first failure sticks, later calls do nothing. */
struct ftr__dnn_graph {
    cudnnStatus_t status;
    char reason[FTR__DNN_REASON];
    int32_t descriptor_count, operation_count;
    cudnnBackendDescriptor_t descriptors[FTR__DNN_MOST_DESCRIPTORS]; /* all, to be destroyed */
    cudnnBackendDescriptor_t operations[FTR__DNN_MOST_OPERATIONS];
};

/* What tells plans apart; its bytes are compared. */
struct ftr__dnn_key {
    int32_t op, pattern;
    int32_t numbers[24]; /* of the attributes */
    int32_t dtypes[4];
    ftr_shape shapes[4];
};

struct ftr__dnn_plan {
    ftr__dnn_key key;
    cudnnBackendDescriptor_t made; /* nullptr: refused */
    size_t workspace;
    int32_t engines, deterministic; /* configurations that the heuristics gave, and those looked at that give the same bits always */
    char reason[FTR__DNN_REASON];
    const char *pattern; /* in words */
    ftr__dnn_graph graph; /* its descriptors live as long as the plan */
    ftr__dnn_plan *next;
};

/* Describes a node's operations. */
typedef void (*ftr__dnn_build)(ftr__dnn_graph *graph, const ftr_kernel_call *call, int32_t pattern);

/* A tensor of up to four dimensions in cuDNN's order, here n, c, h, w. Virtual ones stay inside of a kernel. */
FTR__CUDA_LIB cudnnBackendDescriptor_t ftr__dnn_tensor(ftr__dnn_graph *graph, int64_t id, ftr_dtype dtype, const int64_t *dims,
                                                       const int64_t *strides, bool is_virtual);

/* An image [n, h, w, c] or weights [o, h, w, i] as they lie in memory. */
FTR__CUDA_LIB cudnnBackendDescriptor_t ftr__dnn_image(ftr__dnn_graph *graph, int64_t id, ftr_dtype dtype, const ftr_shape *shape,
                                                      bool is_virtual);

/* A value for each channel: [1, c, 1, 1]. */
FTR__CUDA_LIB cudnnBackendDescriptor_t ftr__dnn_channels(ftr__dnn_graph *graph, int64_t id, ftr_dtype dtype, int64_t channels);

enum ftr__dnn_convolution_kind { FTR__DNN_FORWARD, FTR__DNN_GRAD_INPUT, FTR__DNN_GRAD_WEIGHT };

/* x, w, y are the forward convolution's, or their gradients where these are computed. */
FTR__CUDA_LIB void ftr__dnn_convolution(ftr__dnn_graph *graph, ftr__dnn_convolution_kind kind, const ftr_op_attr *attr,
                                        cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t w, cudnnBackendDescriptor_t y);

/* y = f(x) or f(x, b), computed in f32. */
FTR__CUDA_LIB void ftr__dnn_pointwise(ftr__dnn_graph *graph, cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t x,
                                      cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y);

/* The plan for a node, made if there is none yet; `made` of it is nullptr if cuDNN refuses it. nullptr: no memory. */
FTR__CUDA_LIB ftr__dnn_plan *ftr__dnn_plan_of(const ftr_kernel_call *call, const ftr__dnn_key *key, const char *pattern,
                                              ftr__dnn_build build);

/* Runs a plan with its tensors: ids and where they lie. */
FTR__CUDA_LIB ftr_status ftr__dnn_run(const ftr_kernel_call *call, const ftr__dnn_plan *plan, int32_t count, const int64_t *ids,
                                      void *const *data, void *workspace);

#endif
