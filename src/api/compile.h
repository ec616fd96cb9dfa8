#ifndef FTR_API_COMPILE_H
#define FTR_API_COMPILE_H

#include "api/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Optimizers. A description by value; ftr_compile() writes its step into the graph. */
typedef enum ftr_optimizer_kind { FTR_OPTIMIZER_NONE = 0, FTR_OPTIMIZER_SGD, FTR_OPTIMIZER_ADAMW } ftr_optimizer_kind;

/* From ftr_sgd() or ftr_adamw(); then any field may be changed. */
typedef struct ftr_optimizer {
    uint32_t cookie;
    ftr_optimizer_kind kind;
    double lr;           /* learning rate; ftr_plan_set_lr() changes it between steps */
    double clip_value;   /* each element of a gradient is limited to +-clip_value, as PyTorch's clip_grad_value_; 0: off */
    double weight_decay; /* SGD: added to the gradient (L2); AdamW: decoupled */
    double momentum;     /* SGD */
    double dampening;    /* SGD; the first step's momentum is the whole gradient, as PyTorch's */
    bool nesterov;      /* SGD; needs momentum > 0 and dampening 0 */
    double beta1, beta2; /* AdamW */
    double eps;          /* AdamW */
} ftr_optimizer;

/* Stochastic gradient descent without momentum or decay, as torch.optim.SGD. */
FTR_API ftr_optimizer ftr_sgd(double lr);

/* AdamW: betas 0.9 and 0.999, eps 1e-8, weight decay 0.01, as torch.optim.AdamW.
 * p *= 1 - lr wd;  p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps). */
FTR_API ftr_optimizer ftr_adamw(double lr);

/* ------------------------------------------------------------------------------------------------------------------
 * Plan: a graph compiled for one purpose. It is immutable, knows its memory before it runs, and running it allocates
 * nothing. */
typedef struct ftr_plan ftr_plan;

typedef enum ftr_mode {
    FTR_MODE_TRAIN = 0, /* batch statistics, dropout on */
    FTR_MODE_EVAL       /* running statistics, dropout off */
} ftr_mode;

/* Called after each pass with the graph as it then is (print it with ftr_graph_print()). */
typedef void (*ftr_pass_fn)(void *user, const char *pass, const ftr_graph *graph);

/* All fields may be 0. */
typedef struct ftr_compile_desc {
    ftr_mode mode;
    ftr_tensor loss;                /* scalar; needed for gradients and the optimizer */
    const ftr_tensor *outputs;      /* tensors to read after a step; the loss is always among them */
    int32_t output_count;
    const ftr_tensor *gradients_of; /* tensors whose gradient of the loss is wanted, see ftr_read_gradient() */
    int32_t gradient_count;
    const ftr_optimizer *optimizer; /* NULL: no update. Otherwise all parameters that the loss depends on are trained,
                                     * the frozen ones aside: see ftr_freeze() */
    bool no_fuse;                   /* leave the fuse pass out */
    ftr_pass_fn on_pass;            /* "lower", "autodiff", "fuse", "schedule", "memplan" */
    void *on_pass_user;
} ftr_compile_desc;

/* Compiles a graph. The caller owns *plan. Gradients of parameters (all that the optimizer trains, or those in
 * gradients_of) lie in one arena in order of declaration.
 * Errors: the graph's first builder failure; FTR_ERROR_INVALID_ARGUMENT; FTR_ERROR_SHAPE (loss not scalar);
 * FTR_ERROR_NOT_DIFFERENTIABLE; FTR_ERROR_UNSUPPORTED; FTR_ERROR_OUT_OF_MEMORY. *plan is then NULL. */
FTR_API ftr_status ftr_compile(ftr_graph *graph, const ftr_compile_desc *desc, ftr_plan **plan);

/* Frees a plan. NULL is allowed. The parameters stay with the graph. */
FTR_API void ftr_plan_destroy(ftr_plan *plan);

/* Bytes that a plan uses, known before step 0. `parameters` counts the graph's parameters and buffers, which plans share;
 * the rest is the plan's own. */
typedef struct ftr_memory {
    size_t parameters;
    size_t gradients;
    size_t optimizer_state;
    size_t activations; /* inputs, constants, results and all intermediate values, reused where lifetimes allow */
    size_t workspace;   /* scratch of the node that needs most */
    size_t bookkeeping; /* nodes, descriptions and tables on the host */
    size_t total;       /* the sum */
} ftr_memory;

/* The memory of a plan. */
FTR_API ftr_memory ftr_plan_memory(const ftr_plan *plan);

/* Prints the plan: each node in its order with shapes, offsets and what it was fused with. */
FTR_API ftr_status ftr_plan_print(const ftr_plan *plan, ftr_graph_format format, ftr_write_fn write, void *user);

/* Copies data into an input, row-major; it stays until it is fed again. `bytes` must be its exact size.
 * Errors: FTR_ERROR_INVALID_TENSOR (no input, or one the plan does not use: that is allowed and ignored),
 * FTR_ERROR_SHAPE (other size; the sentence says when it is a larger batch than planned). */
FTR_API ftr_status ftr_feed(ftr_plan *plan, ftr_tensor input, const void *data, size_t bytes);

/* Where an input's data lie, for writing them in place of ftr_feed(); counts as fed. NULL (and an error) if it is none of
 * the plan's inputs, or if the backend's memory is not the host's. Valid as long as the plan. */
FTR_API void *ftr_input_memory(ftr_plan *plan, ftr_tensor input);

/* What a step reports. */
typedef struct ftr_step_info {
    double loss;    /* value of the loss; NaN if the plan has none */
    uint64_t step;  /* steps done with this plan, this one included */
    double seconds; /* duration of the step */
} ftr_step_info;

/* Runs the plan once: forward, and with gradients and an optimizer also backward and update. `info` may be NULL. On an
 * error no parameter, buffer or optimizer state has changed.
 * Errors: FTR_ERROR_NOT_FED, FTR_ERROR_DATA. */
FTR_API ftr_status ftr_step(ftr_plan *plan, ftr_step_info *info);

/* Copies a result of the last step out; `tensor` is the loss, one of `outputs` or an input. `bytes` is its exact size.
 * Errors: FTR_ERROR_INVALID_TENSOR, FTR_ERROR_SHAPE, FTR_ERROR_STATE (no step yet). */
FTR_API ftr_status ftr_read(ftr_plan *plan, ftr_tensor tensor, void *data, size_t bytes);

/* Copies the gradient of the loss with respect to `tensor` out, as the last step left it. Errors as ftr_read(); a tensor
 * that is neither in gradients_of nor trained is an FTR_ERROR_INVALID_TENSOR. */
FTR_API ftr_status ftr_read_gradient(ftr_plan *plan, ftr_tensor tensor, void *data, size_t bytes);

/* Sets the learning rate of the steps to come. Errors: FTR_ERROR_STATE (no optimizer), FTR_ERROR_INVALID_ARGUMENT (not a
 * finite number of 0 or more). */
FTR_API ftr_status ftr_plan_set_lr(ftr_plan *plan, double lr);

/* Steps done with this plan. */
FTR_API uint64_t ftr_plan_steps(const ftr_plan *plan);

#ifdef __cplusplus
}
#endif

#endif
