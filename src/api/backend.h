#ifndef FTR_API_BACKEND_H
#define FTR_API_BACKEND_H

#include "api/profile.h"
#include "ops/ops.def"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * For writers of backends: the table through which fasttrain reaches a device. Programs that only train do not need it. */

/* FTR_OP_add, FTR_OP_sub, ...: one for each row of ops.def. */
typedef enum ftr_op {
    FTR_OP_NONE = 0,
#define FTR__OP_ENUM(name, attr, min_in, max_in, out, differentiable, overwritable, amp) FTR_OP_##name,
    FTR_OPS(FTR__OP_ENUM, FTR__OP_ENUM)
#undef FTR__OP_ENUM
    FTR_OP_COUNT
} ftr_op;

/* Name of an op, such as "conv2d". Never NULL. Thread safe. */
FTR_API const char *ftr_op_name(ftr_op op);

/* Inputs of an optimizer's update before the groups of its parameters: lr, step, grad_scale, found_inf. */
#define FTR_UPDATE_FIRST_GROUP 4

/* Inputs of an average_update before its pairs: averages taken, applied steps, found_inf. */
#define FTR_AVERAGE_FIRST_PAIR 3

/* Activation that a node applies to its result; set by the fuse pass. */
typedef enum ftr_activation {
    FTR_ACT_NONE = 0,
    FTR_ACT_RELU,
    FTR_ACT_RELU6, /* behind batch_norm only, as those below */
    FTR_ACT_HARDSWISH,
    FTR_ACT_SILU
} ftr_activation;

/* Attributes of a node, with all defaults resolved. Which member counts is in ops.def. */
typedef union ftr_op_attr {
    struct {
        ftr_dtype dtype;
    } cast;
    struct {
        double a, b; /* clamp: min, max; leaky_relu: slope; elu: alpha; softplus: beta, threshold */
    } pointwise;
    struct {
        ftr_gelu_form form;
    } gelu;
    struct {
        uint32_t mask; /* bit i: dimension i is reduced */
        bool keep;
    } axes;
    struct {
        bool transpose_a, transpose_b;
    } matmul;
    struct {
        ftr_activation activation;
        bool in_out; /* the fuse pass: the weight is [in, out] instead of [out, in] */
    } linear;
    struct {
        int32_t stride[2], padding[4], dilation[2], groups; /* padding: top, bottom, left, right */
        int32_t kernel[2];
        int64_t input[2]; /* height and width of x */
        ftr_activation activation;
        double eps; /* of a batch norm that was joined to it, with its running statistics */
    } conv;
    struct {
        double eps, momentum;
        bool training; /* batch statistics; otherwise the running ones */
        ftr_activation activation; /* applied after the residual was added */
    } norm;
    struct {
        double eps;
        int32_t dims;   /* the last ones, which a row is made of */
        int32_t groups; /* of channels */
        bool sums;      /* a gradient also computes dgamma and dbeta; otherwise these are of shape [0] */
    } row_norm;
    struct {
        int32_t kernel[2], stride[2], padding[4];
        int64_t input[2];
        bool exclude_padding;
    } pool;
    struct {
        int64_t input[2], output[2]; /* height, width */
    } adaptive;
    struct {
        int64_t input[2], output[2]; /* height, width */
        ftr_resize_mode mode;
        bool align_corners;
    } resize;
    struct {
        double p;
        uint64_t key; /* the Philox stream of the node; a gradient has the key of its forward node */
    } dropout;
    struct {
        float a, b;   /* uniform: low, high; normal: mean, standard deviation */
        uint64_t key; /* the Philox stream of the node */
        ftr_shape shape;
    } random;
    struct {
        double mixup, cutmix, mixup_alpha, cutmix_alpha; /* of a draw, as the next three; 0 elsewhere */
        int64_t rows, image[2];                          /* of the batch; height and width, 0 without cutmix */
        ftr_mix_pairs pairs;
        uint64_t key; /* the Philox stream of the draw */
        bool targets; /* of the others: the weights of targets, not those of images */
    } mix;
    struct {
        double scale, dropout;
        /* The dropout's Philox stream, as of an op dropout. The weight of query i and key j of head h of sample b uses
         * number j % 4 of block ((b * heads + h) * ceil(tk / 4) + j / 4) * tq + i. */
        uint64_t key;
        uint32_t wanted; /* of a gradient: bit i is set if output i is used; the others are of shape [0] */
        bool causal;
        /* The fuse pass: query, key and value are one tensor (three times an input), each of whose rows has all heads'
         * queries, then keys, then values; output 0 of the gradient is that tensor's, 1 and 2 are of shape [0]. */
        bool packed;
    } attention;
    struct {
        double base;
        int64_t first;
        int32_t dims;
        bool interleaved, inverse; /* inverse: by the negative angles, which is the gradient */
    } rotary;
    struct {
        ftr_shape shape; /* the result's */
    } shape;
    struct {
        int32_t order[FTR_MAX_RANK];
    } axes_order;
    struct {
        int32_t axis; /* 0 or more */
    } axis;
    struct {
        int32_t axis;
        int64_t begin, end, step; /* clamped */
        int64_t size;             /* of the dimension in the forward input */
    } slice;
    struct {
        int64_t before[FTR_MAX_RANK], after[FTR_MAX_RANK];
        double value;
    } pad;
    struct {
        double label_smoothing;
        int64_t ignore_index;
        ftr_reduction reduction;
    } cross_entropy;
    struct {
        int64_t rows; /* of the weight */
    } embedding;
    struct {
        int32_t axis;
        ftr_shape shape; /* the result's */
    } scatter;
    struct {
        int64_t classes;
        ftr_dtype dtype;
    } one_hot;
    struct {
        int64_t k;
    } topk;
    struct {
        int32_t axis;
        bool reverse; /* from the last element to the first */
    } cumsum;
    struct {
        double weight;
        bool cumulative; /* the weight is 1 / (the plan's steps, this one included): the state is their mean */
    } ema;
    struct {
        int64_t steps; /* in a group: a step is the first of one if the plan's steps before it are a multiple */
    } accumulate;
    /* An average is taken if found_inf is 0 and the applied steps are start, start + every, start + 2 every ..., but not 0.
     * With n taken before, the weight is 1 if n is 0 or `copy`; 1 / (n + 1) if `equal`; otherwise 1 - d, where d is decay,
     * with a warm-up (warmup_gamma > 0) max(min(1 - (1 + n / warmup_gamma)^-warmup_power, decay), min_decay). Counts,
     * unless `copy`. */
    struct {
        double decay, min_decay, warmup_gamma, warmup_power;
        int64_t start, every;
        bool equal, copy;
    } average;
    struct {
        double lr_scale;   /* the learning rate of the node's parameters is lr * lr_scale */
        double clip_value; /* gradients are limited to +-clip_value; 0: they are not */
        double weight_decay, momentum, dampening, beta1, beta2, eps;
        double alpha;                                      /* rmsprop */
        double lr_decay, initial_accumulator;              /* adagrad */
        double trust_coefficient;                          /* lars */
        double beta2_decay, parameter_eps, clip_threshold; /* adafactor */
        double ns_coefficients[3], ns_eps;                 /* muon */
        int32_t ns_steps;
        ftr_muon_rate rate;
        int32_t row_axis, column_axis; /* adafactor: neighbouring axes of p; both 0: none */
        bool nesterov, amsgrad, centered;
        bool adapt, trust_clip; /* lamb, lars */
    } optimizer;
    struct {
        double max_norm, eps;
    } clip_scale;
    struct {
        double max_norm; /* 0: the norm is not limited */
        double divisor;  /* gradients are multiples of this too, beside the loss scale */
    } grad_norm;
    struct {
        double growth, backoff; /* factors */
        int64_t interval;       /* steps without an infinity after which the scale grows */
    } scale_update;
} ftr_op_attr;

/* A tensor as a kernel sees it: dense, row-major. While a plan is made `data` is NULL. A missing input has dtype
 * FTR_DTYPE_NONE, count 0 and data NULL. */
typedef struct ftr_view {
    void *data;
    ftr_dtype dtype;
    ftr_shape shape;
    int64_t count;
} ftr_view;

/* All that a kernel gets. */
typedef struct ftr_kernel_call {
    ftr_context *context;
    void *backend; /* what open() returned */
    ftr_op op;
    const char *name; /* of the node */
    const ftr_op_attr *attr;
    const ftr_view *in;
    int32_t in_count;
    const ftr_view *out;
    int32_t out_count;
    void *workspace; /* 64-byte aligned; of the size that workspace() asked for */
    void *kept;      /* 64-byte aligned, of the size that kept() asked for: what the kernel makes of its second input, the
                      * weight, for itself. NULL: the weight may be another in each step */
    bool kept_is_made; /* the kernel has made it in an earlier step, and the weight is the same */
    uint64_t seed;   /* of the op's random numbers: one of ftr_context_seeds() */
    uint64_t step;   /* steps done by the plan before this one */
} ftr_kernel_call;

/* An op on a backend. run == NULL: the backend does not have it. */
typedef struct ftr_kernel {
    ftr_status (*run)(const ftr_kernel_call *call);
    ftr_status (*check)(const ftr_kernel_call *call); /* NULL: all; otherwise refuses through ftr_backend_error() */
    size_t (*workspace)(const ftr_kernel_call *call); /* NULL: none. Data pointers are NULL */
    size_t (*kept)(const ftr_kernel_call *call); /* bytes that may stay from step to step, see ftr_kernel_call.kept; NULL: none.
                                                  * Data pointers are NULL */
    const char *(*algorithm)(const ftr_kernel_call *call); /* NULL: there is no choice. Data pointers are NULL */
} ftr_kernel;

#define FTR_BACKEND_VERSION 2

/* A backend. The table lives as long as every context that uses it. */
typedef struct ftr_backend {
    uint32_t version; /* FTR_BACKEND_VERSION */
    const char *name;
    bool host_memory; /* its memory can be read and written by the host directly */
    ftr_status (*open)(ftr_context *context, int32_t threads, int32_t device, void **state); /* device -1: the backend chooses */
    void (*close)(ftr_context *context, void *state);
    void *(*allocate)(ftr_context *context, void *state, size_t size); /* 64-byte aligned or NULL */
    void (*release)(ftr_context *context, void *state, void *memory, size_t size);
    ftr_status (*upload)(ftr_context *context, void *state, void *to, const void *from, size_t size);
    ftr_status (*download)(ftr_context *context, void *state, void *to, const void *from, size_t size);
    ftr_status (*measure)(ftr_context *context, void *state, ftr_machine *machine); /* see ftr_measure_machine() */
    const ftr_kernel *kernels; /* FTR_OP_COUNT of them, indexed by ftr_op */

    /* The rest may be NULL. A step of a plan begins: `variant` tells apart which of its nodes run, `step` is the number of steps
     * done before. With *replay set the backend runs the nodes itself, as it saw them in an earlier step, and the caller does
     * not. `node_by_node`: each node is to be finished before the next one begins. */
    ftr_status (*begin_step)(ftr_context *context, void *state, const ftr_plan *plan, int32_t variant, uint64_t step,
                             bool node_by_node, bool *replay);
    /* A step that began is over, or was given up with `failure`. */
    ftr_status (*end_step)(ftr_context *context, void *state, ftr_status failure);
    /* A plan is about to be destroyed. */
    void (*forget_plan)(ftr_context *context, void *state, const ftr_plan *plan);
} ftr_backend;

/* The CPU backend. */
FTR_API const ftr_backend *ftr_cpu_backend(void);

/* Records a failure of a node on the call's context as "op 'name': sentence" and returns `status`. Called from the thread
 * that runs the kernel. */
FTR_API ftr_status ftr_backend_error(const ftr_kernel_call *call, ftr_status status, const char *format, ...);

/* Records a failure that is no node's on a context and returns `status`. */
FTR_API ftr_status ftr_backend_fail(ftr_context *context, ftr_status status, const char *format, ...);

/* Memory through the context's allocator hook, 64-byte aligned; NULL when there is none. */
FTR_API void *ftr_backend_allocate(ftr_context *context, size_t size);

/* Gives memory of ftr_backend_allocate() back. */
FTR_API void ftr_backend_release(ftr_context *context, void *memory, size_t size);

#ifdef __cplusplus
}
#endif

#endif
