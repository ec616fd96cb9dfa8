#ifndef FTR_API_COMPILE_H
#define FTR_API_COMPILE_H

#include "api/optim.h"
#include "api/schedule.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Mixed precision. The graph is written in f32; compiling it with an `amp` puts the casts in. Matrix products,
 * convolutions and attention run in the half type; exponentials, losses, softmax, sums and layer norms in f32; everything
 * else in the type of what it gets: the rules of PyTorch's autocast, op by op (the last column of ops.def). Parameters,
 * optimizer state, running statistics, the loss and what the caller reads keep their declared types; a parameter is cast
 * once a step however often it is used, and gradients of parameters are f32. On the CPU the half types halve
 * the memory of activations. Each op computes in f32 and rounds its results; products of bf16 multiply pairs with
 * avx512_bf16 where that is faster (FASTTRAIN_BF16, see ftr_context_create()). */
typedef enum ftr_amp {
    FTR_AMP_OFF = 0,
    FTR_AMP_FP16, /* f16: more exact than bf16, but gradients below 6e-8 vanish without loss scaling */
    FTR_AMP_BF16  /* bf16: the range of f32, no loss scaling needed */
} ftr_amp;

/* Loss scaling: the loss's gradient starts from a scale instead of 1, so that small gradients do not vanish in f16; the
 * scale is taken out as the optimizer reads them. A step whose gradients hold an infinity or NaN is left out: parameters,
 * optimizer state, running statistics and the count of applied steps stay as they are. */
typedef enum ftr_scaling {
    FTR_SCALING_AUTO = 0, /* dynamic with FTR_AMP_FP16, otherwise off */
    FTR_SCALING_OFF,
    FTR_SCALING_DYNAMIC, /* the scale follows the gradients, as PyTorch's GradScaler: times backoff_factor after a step that
                          * was left out, times growth_factor after growth_interval steps in a row that were not */
    FTR_SCALING_FIXED    /* the scale stays init_scale */
} ftr_scaling;

/* From ftr_scaler_defaults(). */
typedef struct ftr_scaler_desc {
    uint32_t cookie;
    ftr_scaling scaling;
    double init_scale;       /* 65536 */
    double growth_factor;    /* 2; more than 1 */
    double backoff_factor;   /* 0.5; more than 0, less than 1 */
    int64_t growth_interval; /* 2000 */
} ftr_scaler_desc;

/* GradScaler's constants, FTR_SCALING_AUTO. */
FTR_API ftr_scaler_desc ftr_scaler_defaults(void);

/* ------------------------------------------------------------------------------------------------------------------
 * Averages of the weights: beside each trained parameter, and each running statistic of batch norms, the plan keeps an
 * average of the values that the optimizer's steps leave behind. It often generalizes better than the last values do. */
typedef enum ftr_average_kind {
    FTR_AVERAGE_NONE = 0,
    FTR_AVERAGE_EMA, /* average = d average + (1 - d) value, as PyTorch's AveragedModel with get_ema_multi_avg_fn(decay); the
                      * first is the value */
    FTR_AVERAGE_SWA  /* the mean of all values that were taken, as PyTorch's AveragedModel */
} ftr_average_kind;

/* From ftr_average_defaults(). A value is taken after the applied steps start, start + every, start + 2 every and so on, but
 * not before the first: start 5 and every 1 begin with what the fifth update left. Steps that loss scaling leaves out do not
 * count. */
typedef struct ftr_average_desc {
    uint32_t cookie;
    ftr_average_kind kind; /* FTR_AVERAGE_NONE */
    double decay;          /* EMA: d; 0.999 */
    bool warmup;           /* EMA: d = max(min(1 - (1 + n / warmup_gamma)^-warmup_power, decay), min_decay), n being the
                            * values taken before, as timm's ModelEmaV3 with use_warmup */
    double warmup_gamma, warmup_power, min_decay; /* 1, 2/3, 0 */
    int64_t start;                                /* 0 */
    int64_t every;                                /* 1 */
    bool copy_buffers; /* running statistics are those of the last value taken: AveragedModel's use_buffers=False.
                        * Otherwise they are averaged as parameters are */
} ftr_average_desc;

/* No average; the settings of get_ema_multi_avg_fn() and ModelEmaV3. */
FTR_API ftr_average_desc ftr_average_defaults(void);

/* A search for the origin of an infinity or NaN: after each node all elements of its results are looked at, which takes
 * time. The first that is not finite ends ftr_step() with FTR_ERROR_NONFINITE and a sentence that names op, node, forward
 * or backward, result, element, value and shape; inputs and parameters are looked at before the first node. */
typedef enum ftr_nonfinite {
    FTR_NONFINITE_ALLOWED = 0, /* no search */
    FTR_NONFINITE_REPORTED,    /* with loss scaling the backward is left to the scaler */
    FTR_NONFINITE_REPORTED_ALL /* the backward with loss scaling too */
} ftr_nonfinite;

/* ------------------------------------------------------------------------------------------------------------------
 * Plan: a graph compiled for one purpose. It is immutable, knows its memory before it runs, and running it allocates
 * nothing. */
typedef struct ftr_plan ftr_plan;

typedef enum ftr_mode {
    FTR_MODE_TRAIN = 0, /* batch statistics, dropout on */
    FTR_MODE_EVAL       /* running statistics, dropout off */
} ftr_mode;

/* What the fuse pass joins: each a switch for ftr_compile_desc.no_fuse and, by its name, for the environment variable
 * FASTTRAIN_NO_FUSE. A fusion changes results by rounding alone. */
typedef enum ftr_fusion {
    FTR_FUSE_BIAS = 1 << 0,       /* "bias": a product and the sum with a bias, as a linear layer */
    FTR_FUSE_RELU = 1 << 1,       /* "relu": ReLU in the linear layer, convolution or batch norm before it */
    FTR_FUSE_RESIDUAL = 1 << 2,   /* "residual": the sum with a residual in the batch norm before it */
    FTR_FUSE_RELU_GRAD = 1 << 3,  /* "relu_grad": ReLU's gradient in that of batch norm */
    FTR_FUSE_ACTIVATION = 1 << 4, /* "activation": SiLU, hardswish and ReLU6 in batch norm, their gradients in its gradient,
                                   * which computes again what went into them */
    FTR_FUSE_CONV_NORM = 1 << 5,  /* "conv_norm": batch norm with running statistics, and what it has taken over, in the
                                   * convolution before it */
    FTR_FUSE_ATTENTION = 1 << 6,  /* "attention": attention reads queries, keys and values, and writes their gradients,
                                   * where they lie in one tensor */
    FTR_FUSE_INPUT = 1 << 7,      /* "input": the gradient of a 1x1 convolution's weight computes its input again while it
                                   * reads it (batch norm and ReLU, a scale of each image's channels), which is not kept then */
    FTR_FUSE_ALL = (1 << 8) - 1
} ftr_fusion;

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
    ftr_amp amp;                    /* mixed precision, for training and evaluation alike */
    const ftr_scaler_desc *scaler;  /* NULL: ftr_scaler_defaults() */
    int64_t accumulate; /* steps (micro-batches) of an update: their gradients are added up, and the last step of each
                         * group updates by the mean. With losses that are means, groups of n batches of b samples are
                         * then batches of n b, batch norm's statistics aside. 0 and 1: each step updates. See ftr_step() */
    const ftr_average_desc *average; /* NULL: none */
    bool cumulative_statistics; /* running statistics of batch norms become the mean over the plan's steps, from its first
                                 * one on, whatever they were: PyTorch's momentum=None */
    ftr_nonfinite debug_nonfinite;
    size_t memory_budget;           /* bytes that the plan may take (ftr_memory.total); 0: no limit. See below */
    const char *const *recompute;   /* scopes whose values are recomputed in the backward pass. See below */
    int32_t recompute_count;
    uint32_t no_fuse;               /* fusions to leave out: ftr_fusion, added up. The environment variable FASTTRAIN_NO_FUSE
                                     * ("relu bias", names with spaces between them, or "all") leaves out more */
    ftr_pass_fn on_pass;            /* "lower", "autodiff", "amp", "fuse", "recompute", "schedule", "memplan" */
    void *on_pass_user;
} ftr_compile_desc;

/* Recomputation (gradient checkpointing, Chen et al., arXiv:1604.06174): values of the forward pass that the backward pass
 * reads are computed a second time there instead of being stored. It costs time, at most that of a second forward pass,
 * and changes no bit of any result: dropout drops the same elements, running statistics are updated once.
 *
 * With a memory_budget the plan takes no more than that. If it would, as much is recomputed as is needed for it to fit, the
 * cheapest for its bytes first (a matrix product of what is stored is dear, an activation function is cheap), and nothing
 * if it fits anyway. If it cannot fit, ftr_compile() fails with FTR_ERROR_OUT_OF_MEMORY and says what the smallest plan
 * needs. Of a chain of n equal layers the smallest plan holds the values of about 2 sqrt(n). ftr_memory says what
 * recomputation costs, and in the graph's printout its nodes are marked.
 *
 * By hand, `recompute` lists patterns of scopes ('*' any characters, '?' one), as torch.utils.checkpoint is put around
 * modules: "layer1" makes all of that scope one segment, "h.*" each scope h.0, h.1, ... one of its own (a name's shortest
 * scope that fits counts). Of a segment what comes in and what goes out is stored, everything between is recomputed. Both
 * together recompute at least what the patterns say. */

/* Compiles a graph. The caller owns *plan.
 * Errors: the graph's first builder failure; FTR_ERROR_INVALID_ARGUMENT; FTR_ERROR_SHAPE (loss not scalar);
 * FTR_ERROR_NOT_DIFFERENTIABLE; FTR_ERROR_UNSUPPORTED; FTR_ERROR_NAME (a pattern of `recompute` that fits nothing, a word
 * of FASTTRAIN_NO_FUSE that is no fusion);
 * FTR_ERROR_OUT_OF_MEMORY, also if memory_budget is too small. *plan is then NULL. */
FTR_API ftr_status ftr_compile(ftr_graph *graph, const ftr_compile_desc *desc, ftr_plan **plan);

/* Frees a plan. NULL is allowed. The parameters stay with the graph. */
FTR_API void ftr_plan_destroy(ftr_plan *plan);

/* Bytes that a plan uses, known before step 0. `parameters` counts the graph's parameters and buffers, which plans share;
 * the rest is the plan's own. */
typedef struct ftr_memory {
    size_t parameters;
    size_t gradients;
    size_t optimizer_state; /* sums of gradients and averages included */
    size_t activations; /* inputs, constants, results, all intermediate values and large scratch of nodes, reused where
                         * lifetimes allow: what they take beyond the memory of the gradients, in which they lie until those
                         * are computed */
    size_t workspace;   /* small scratch, which all nodes share; without gradients also the weights as kernels like them, which
                         * are made anew only when the weights have changed; not with a memory_budget */
    size_t bookkeeping; /* nodes, descriptions and tables on the host */
    size_t total;       /* the sum */
    /* What recomputation costs a step: nodes that run a second time, their multiply-adds (matrix products, convolutions and
     * attention) and the bytes of their results. */
    int32_t recomputed_nodes;
    int64_t recomputed_multiply_adds, recomputed_bytes;
} ftr_memory;

/* The memory of a plan. */
FTR_API ftr_memory ftr_plan_memory(const ftr_plan *plan);

/* What ftr_compile() would need for this description, without allocating it: no parameter is initialized. Errors as
 * ftr_compile(); *memory is then all 0. */
FTR_API ftr_status ftr_memory_needed(ftr_graph *graph, const ftr_compile_desc *desc, ftr_memory *memory);

/* Builds a graph for a batch size: adds everything to the empty `graph` and fills `desc`, which is all 0. What desc points
 * at must stay until the next call or the end of ftr_find_batch(). Any status but FTR_OK ends the search. */
typedef ftr_status (*ftr_batch_fn)(void *user, int64_t batch, ftr_graph *graph, ftr_compile_desc *desc);

/* Fields that are 0 have the default that is named. */
typedef struct ftr_batch_search {
    ftr_batch_fn build;
    void *user;
    size_t memory;    /* bytes that a plan may take; 0: nine tenths of what the machine has free (Linux: MemAvailable, or
                       * less if the process's control group has a limit; macOS: free and inactive pages) */
    int64_t min, max; /* smallest and largest batch to consider; 1 and 2^20 */
    int64_t multiple; /* the batch is to be a multiple of this; 1 */
} ftr_batch_search;

/* Finds the largest batch whose plan takes no more than search->memory bytes, by doubling and bisection over plans that are
 * made without their memory: nothing is allocated for them, and nothing runs. The next larger multiple does not fit, unless
 * it is beyond max. Graphs belong to the search, which frees them. With a desc.memory_budget the plans recompute to come to
 * that: set to search->memory, the batch is the largest that fits with recomputation. *batch is 0 after an error; `memory`
 * (NULL is allowed) gets the memory of the plan that was found.
 * Errors: FTR_ERROR_OUT_OF_MEMORY (not even the smallest batch fits; the sentence says what it needs);
 * FTR_ERROR_INVALID_ARGUMENT; FTR_ERROR_UNSUPPORTED (memory is 0, and what is free is not known, as with a backend whose
 * memory is not the host's); what `build` returns, and errors of its graph and of ftr_compile(), with the batch in the
 * sentence. */
FTR_API ftr_status ftr_find_batch(ftr_context *context, const ftr_batch_search *search, int64_t *batch, ftr_memory *memory);

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
    double grad_norm;  /* norm of all gradients (of the trained parameters, or those in gradients_of), without the loss
                        * scale and before clipping; NaN if neither clip_norm nor loss scaling needs it. With accumulation
                        * that of the group's mean, in its last step; NaN in the others */
    double loss_scale; /* that this step's gradients were computed with; 1 without loss scaling */
    bool skipped;      /* the gradients, or those of the group that ends here, held an infinity or NaN, so that loss
                        * scaling left the update out */
    bool overflow;     /* loss scaling has found an infinity or NaN in this step or, with accumulation, in this step or one
                        * before it in its group */
    bool updated;      /* the optimizer has changed the parameters: not in the midst of a group, nor if `skipped` */
    uint64_t applied_steps; /* updates of the optimizer so far: those that were left out do not count */
} ftr_step_info;

/* Runs the plan once: forward, and with gradients and an optimizer also backward and update. `info` may be NULL. On an
 * error no parameter, buffer or optimizer state has changed.
 *
 * With accumulate = n a step is one micro-batch, wherever steps are counted; steps n, 2 n, 3 n ... of the plan, those of a
 * checkpoint that it goes on from included, end a group. Only they clip, update, move the loss scale (which stays while a
 * group is under way) and average weights. One infinity in a group leaves its update out. Running statistics move with each
 * micro-batch; with loss scaling not from an infinity on to the end of its group. An unfinished group stays unapplied.
 * Errors: FTR_ERROR_NOT_FED, FTR_ERROR_DATA, FTR_ERROR_NONFINITE (if debug_nonfinite asks for it), FTR_ERROR_STATE (averages
 * are in the variables, see ftr_plan_swap_average()). */
FTR_API ftr_status ftr_step(ftr_plan *plan, ftr_step_info *info);

/* Copies a result of the last step out; `tensor` is the loss, one of `outputs` or an input. `bytes` is its exact size.
 * Errors: FTR_ERROR_INVALID_TENSOR, FTR_ERROR_SHAPE, FTR_ERROR_STATE (no step yet). */
FTR_API ftr_status ftr_read(ftr_plan *plan, ftr_tensor tensor, void *data, size_t bytes);

/* Copies the gradient of the loss with respect to `tensor` out, as the last step left it: before clipping, the loss scale
 * taken out. With accumulation, that of a trained parameter is what its group has come to so far: the sum over the group's
 * micro-batches, divided by their full number, which PyTorch's .grad is too if the losses are divided by it; of other tensors
 * it is that of the last micro-batch. Errors as ftr_read(); a tensor that is neither in gradients_of nor trained is an FTR_ERROR_INVALID_TENSOR. */
FTR_API ftr_status ftr_read_gradient(ftr_plan *plan, ftr_tensor tensor, void *data, size_t bytes);

/* Sets the learning rate of the steps to come. Errors: FTR_ERROR_STATE (no optimizer), FTR_ERROR_INVALID_ARGUMENT (not a
 * finite number of 0 or more). */
FTR_API ftr_status ftr_plan_set_lr(ftr_plan *plan, double lr);

/* The learning rate of the steps to come; NaN without an optimizer. */
FTR_API double ftr_plan_lr(const ftr_plan *plan);

/* Steps done with this plan. */
FTR_API uint64_t ftr_plan_steps(const ftr_plan *plan);

/* Updates that the optimizer has applied: those of its state, which may come from a checkpoint, less those that were left
 * out because gradients were not finite. 0 without an optimizer. */
FTR_API uint64_t ftr_plan_applied_steps(const ftr_plan *plan);

/* How many values the averages of the weights have been made of; 0 without them. */
FTR_API int64_t ftr_plan_average_count(const ftr_plan *plan);

/* Exchanges the averages of the weights with the graph's variables, so that other plans of the graph, ftr_save_weights() and
 * ftr_variable_read() see them; called once more, puts both back. In between the plan takes no step and is not saved, and
 * freeing it leaves the averages in the graph. Errors: FTR_ERROR_STATE (the plan keeps no averages, or has taken none
 * yet). */
FTR_API ftr_status ftr_plan_swap_average(ftr_plan *plan);

/* Whether the averages are in the graph's variables now. */
FTR_API bool ftr_plan_average_is_in(const ftr_plan *plan);

/* A tensor of the optimizer's state. The names are "optimizer.lr" (f32 scalar), "optimizer.step" (i64 scalar, the applied
 * steps), and PyTorch's words behind the parameter's name: "fc1.weight.exp_avg". Shapes are those in memory. With
 * accumulation there are "fc1.weight.grad_sum", the sum of the group's gradients, multiples of the loss scale; with averages
 * "fc1.weight.average" and "average.count" (i64 scalar). */
typedef struct ftr_plan_state {
    const char *name; /* owned by the plan */
    ftr_dtype dtype;
    ftr_shape shape;
    size_t bytes;
} ftr_plan_state;

/* How many tensors the plan's optimizer keeps between steps; 0 without one. */
FTR_API int32_t ftr_plan_state_count(const ftr_plan *plan);

/* Describes state number `index`; two plans compiled from one graph with one description have the same order. Errors:
 * FTR_ERROR_INVALID_ARGUMENT (out of range; *state is then cleared). */
FTR_API ftr_status ftr_plan_state_at(const ftr_plan *plan, int32_t index, ftr_plan_state *state);

/* Copies a state out, row-major. `bytes` is its exact size. Errors: FTR_ERROR_NAME (no such state), FTR_ERROR_SHAPE (other
 * size), FTR_ERROR_INVALID_ARGUMENT. */
FTR_API ftr_status ftr_plan_state_read(const ftr_plan *plan, const char *name, void *data, size_t bytes);

/* Copies a state in, row-major, between two steps. Errors as ftr_plan_state_read(). */
FTR_API ftr_status ftr_plan_state_write(ftr_plan *plan, const char *name, const void *data, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
