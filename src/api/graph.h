#ifndef FTR_API_GRAPH_H
#define FTR_API_GRAPH_H

#include "api/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Graph: a static program over tensors. It also owns the model's memory: parameters (trained) and buffers (state that is
 * not trained, such as running statistics), which every plan compiled from it shares. */
typedef struct ftr_graph ftr_graph;

/* Handle of a value in a graph. Passed by value, never freed; valid as long as its graph. {NULL, 0} is invalid: a builder
 * that fails returns it, a builder that gets it does nothing, and ftr_compile() reports the first failure. */
typedef struct ftr_tensor {
    ftr_graph *graph;
    int32_t id; /* 1 or more */
} ftr_tensor;

/* Makes an empty graph. NULL (and the context's error set) when memory is short or `context` is NULL; builders accept a
 * NULL graph and return invalid handles. The caller owns it and frees it after all plans compiled from it. */
FTR_API ftr_graph *ftr_graph_create(ftr_context *context);

/* Frees a graph with its parameters. NULL is allowed. */
FTR_API void ftr_graph_destroy(ftr_graph *graph);

/* FTR_OK, or the first failure of a builder on this graph. Its sentence is ftr_graph_error(). */
FTR_API ftr_status ftr_graph_status(const ftr_graph *graph);

/* The sentence of the first failure of a builder on this graph; "" if none. Owned by the graph. */
FTR_API const char *ftr_graph_error(const ftr_graph *graph);

/* For builders of your own: records a mistake as the library's builders do. The sentence, made as by printf(), becomes
 * "what 'scope.name': sentence"; `name` may be NULL. The first mistake sticks to the graph, later ones change nothing.
 * `status` FTR_OK counts as FTR_ERROR_INVALID_ARGUMENT. `graph` may be NULL. Returns an invalid handle. */
FTR_API ftr_tensor ftr_graph_fail(ftr_graph *graph, ftr_status status, const char *what, const char *name,
                                  const char *format, ...) FTR_PRINTF(5, 6);

/* Whether the handle names a value of a graph. */
FTR_API bool ftr_is_valid(ftr_tensor tensor);

/* Shape of a tensor; rank 0 with dim 0 for an invalid handle. */
FTR_API ftr_shape ftr_shape_of(ftr_tensor tensor);

/* Element type of a tensor; FTR_DTYPE_NONE for an invalid handle. */
FTR_API ftr_dtype ftr_dtype_of(ftr_tensor tensor);

/* Full name of a tensor, scope included; "" for an invalid handle. Owned by the graph. */
FTR_API const char *ftr_name_of(ftr_tensor tensor);

/* Enters a scope: names given from now on become "scope.name". Scopes nest. Errors stick to the graph. */
FTR_API void ftr_scope_push(ftr_graph *graph, const char *name);

/* Leaves the innermost scope. */
FTR_API void ftr_scope_pop(ftr_graph *graph);

/* Declares data that the caller feeds before a step. Names are unique among inputs. */
FTR_API ftr_tensor ftr_input(ftr_graph *graph, const char *name, ftr_dtype dtype, ftr_shape shape);

/* Declares an f32 input "batch_mask" of shape [batch]: 1 for a real sample, 0 for padding of a last short batch. ftr_fit()
 * feeds it. From then on batch_norm (its statistics), cross_entropy, mse and accuracy on tensors whose leading dimension
 * is `batch` leave masked rows out. One a graph; declare it before the layers. */
FTR_API ftr_tensor ftr_batch_mask(ftr_graph *graph, int64_t batch);

/* A constant. `data` holds the elements in row-major order and is copied. */
FTR_API ftr_tensor ftr_constant(ftr_graph *graph, ftr_dtype dtype, ftr_shape shape, const void *data);

/* A scalar constant of a type; the value is converted to it. */
FTR_API ftr_tensor ftr_scalar(ftr_graph *graph, ftr_dtype dtype, double value);

/* How a parameter or buffer gets its first value. Random values are a pure function of (seed, full name, element): they
 * depend neither on the order of building nor on other parameters. */
typedef enum ftr_init_kind {
    FTR_INIT_DEFAULT = 0,    /* in the description of a layer: what the layer's comment says; otherwise zeros */
    FTR_INIT_ZEROS,
    FTR_INIT_CONSTANT,       /* a */
    FTR_INIT_UNIFORM,        /* from a to b */
    FTR_INIT_NORMAL,         /* mean a, standard deviation b */
    FTR_INIT_KAIMING_UNIFORM, /* bound sqrt(6 / ((1 + a*a) * fan_in)); a = negative slope (PyTorch's layers use sqrt(5)) */
    FTR_INIT_KAIMING_NORMAL_FAN_OUT, /* standard deviation sqrt(2 / fan_out) */
    FTR_INIT_KAIMING_NORMAL,         /* standard deviation sqrt(2 / fan_in) */
    FTR_INIT_XAVIER_UNIFORM,         /* bound sqrt(6 / (fan_in + fan_out)) */
    FTR_INIT_TRUNCATED_NORMAL        /* FTR_INIT_NORMAL, drawn again while beyond -2 or 2, as PyTorch's trunc_normal_ */
} ftr_init_kind;

typedef struct ftr_init {
    ftr_init_kind kind;
    double a, b;
} ftr_init;

/* Declares a trained tensor, f32 or f64: f16 and bf16 are too coarse to add small updates up in (mixed precision casts an
 * f32 parameter where it is used). Its full name is unique. Memory and first value come with the first compile. */
FTR_API ftr_tensor ftr_parameter(ftr_graph *graph, const char *name, ftr_dtype dtype, ftr_shape shape, ftr_init init);

/* Declares state that is saved with the model but not trained. */
FTR_API ftr_tensor ftr_buffer(ftr_graph *graph, const char *name, ftr_dtype dtype, ftr_shape shape, ftr_init init);

/* Number of parameters and buffers. */
FTR_API int32_t ftr_variable_count(const ftr_graph *graph);

/* Parameter or buffer number `index`, in the order of declaration; invalid when out of range. */
FTR_API ftr_tensor ftr_variable_at(ftr_graph *graph, int32_t index);

/* The parameter or buffer with this full name; invalid when there is none. */
FTR_API ftr_tensor ftr_variable_find(ftr_graph *graph, const char *name);

/* Whether a tensor is a parameter, frozen or not (and not a buffer or something else). */
FTR_API bool ftr_is_parameter(ftr_tensor tensor);

/* How ftr_freeze() freezes. All fields may be 0. */
typedef struct ftr_freeze_desc {
    bool norm_eval; /* batch norms whose gamma is frozen use their running statistics in training plans too, and leave
                     * them as they are: PyTorch's requires_grad_(False) with eval() */
} ftr_freeze_desc;

/* Freezes the parameters whose full names fit `pattern` ('*' stands for any characters or none, dots included, '?' for
 * one character): plans compiled from now on with an optimizer do not train them. They get no gradient, no optimizer
 * state and no memory for either, and no gradient is computed for what only they need. A gradient of one that
 * gradients_of names is computed all the same. Batch norms still follow the batch unless `desc` (NULL: all fields 0)
 * says otherwise. A later call decides anew for the parameters that its pattern fits. Plans already compiled stay as
 * they are.
 * Errors: FTR_ERROR_NAME (no parameter fits), FTR_ERROR_INVALID_ARGUMENT, the graph's first builder failure. */
FTR_API ftr_status ftr_freeze(ftr_graph *graph, const char *pattern, const ftr_freeze_desc *desc);

/* Undoes ftr_freeze() for the parameters whose full names fit `pattern`, frozen or not. Errors as ftr_freeze(). */
FTR_API ftr_status ftr_unfreeze(ftr_graph *graph, const char *pattern);

/* Whether a tensor is a frozen parameter. */
FTR_API bool ftr_is_frozen(ftr_tensor tensor);

/* Copies a parameter or buffer out, row-major. `bytes` must be its exact size.
 * Errors: FTR_ERROR_INVALID_TENSOR, FTR_ERROR_SHAPE (other size), FTR_ERROR_OUT_OF_MEMORY (first use allocates). */
FTR_API ftr_status ftr_variable_read(ftr_tensor variable, void *data, size_t bytes);

/* Copies a parameter or buffer in, row-major. Errors as ftr_variable_read(). */
FTR_API ftr_status ftr_variable_write(ftr_tensor variable, const void *data, size_t bytes);

typedef enum ftr_graph_format {
    FTR_GRAPH_TEXT = 0, /* a line a node */
    FTR_GRAPH_DOT       /* Graphviz */
} ftr_graph_format;

/* Prints a graph. */
FTR_API ftr_status ftr_graph_print(const ftr_graph *graph, ftr_graph_format format, ftr_write_fn write, void *user);

/* Prints a table of the layers under each scope: output shape, parameters, multiply-adds of one forward pass, memory of
 * the outputs in bytes; then totals, with frozen parameters apart. */
FTR_API ftr_status ftr_model_summary(const ftr_graph *graph, ftr_write_fn write, void *user);

#ifdef __cplusplus
}
#endif

#endif
