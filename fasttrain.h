/* fasttrain: a deep-learning trainer in one file. MIT license, at the end of the file.
 * Generated from src/ by `make amalgamate`: a change belongs there.
 *
 *     #define FASTTRAIN_IMPLEMENTATION   in exactly one .c file, before other headers
 *     #include "fasttrain.h"
 *
 * Link with -lm -lpthread. */
#ifndef FTR__TEMPLATE_PASS
#ifndef FASTTRAIN_H
#define FASTTRAIN_H

/* ---- src/api/manual.h ---- */
/* fasttrain - a deep-learning trainer in a header.                                          MIT license, see LICENSE.
 *
 * MANUAL
 *
 *   1  What it is              5  Evaluating, saving, loading      9  Reproducibility
 *   2  Adding it to a program  6  Your own loop                   10  Seeing inside
 *   3  Concepts                7  Ownership and memory            11  Build switches and environment
 *   4  A first program         8  Errors and threads              12  What it does not do
 *
 * 1  WHAT IT IS
 *
 * fasttrain trains neural networks from C and C++. A model is a static graph: forward, backward and the optimizer's step
 * are nodes of it. The graph is compiled into a plan, which knows its memory before it runs and allocates nothing while it
 * runs. Everything needed is in this file; it needs libm and pthreads and nothing else.
 *
 * 2  ADDING IT TO A PROGRAM
 *
 * Copy fasttrain.h. In exactly one C file:
 *
 *     #define FASTTRAIN_IMPLEMENTATION
 *     #include "fasttrain.h"
 *
 * and in all others only the #include. In that one file fasttrain.h comes before any other header, because it asks the
 * system for POSIX functions. The interface is C11 and C++17; the implementation is C11, for GCC and Clang on Linux and
 * macOS, x86-64 and arm64. Compile it with -O2; link with -lm -lpthread.
 *
 * 3  CONCEPTS
 *
 *   context    everything that would be global elsewhere: memory, threads, logger, seed, the last error
 *   graph      the program, and the model's parameters and buffers
 *   tensor     a handle of a value in a graph: {graph, id}, passed by value
 *   layer      a builder that declares parameters under a name and adds ops: ftr_linear(x, "fc1", 64, NULL) makes
 *              "fc1.weight" and "fc1.bias"
 *   plan       a graph compiled for training or for evaluation
 *   source     where samples come from
 *
 * Images are NHWC: [batch, height, width, channels]. Convolution weights are OHWI in memory and OIHW in files, as PyTorch
 * writes them. Linear weights are [out, in]. Batch sizes are part of the graph's shapes.
 *
 * A step is: feed the inputs, run the plan, read what you asked for. ftr_fit() does this over a source, epoch by epoch.
 *
 * 4  A FIRST PROGRAM
 *
 *     ftr_context *ctx;
 *     if (ftr_context_create(NULL, &ctx)) return 1;
 *     ftr_graph *g = ftr_graph_create(ctx);
 *     ftr_tensor x = ftr_input(g, "image", FTR_F32, FTR_SHAPE(64, 8, 8, 1));
 *     ftr_tensor y = ftr_input(g, "label", FTR_I32, FTR_SHAPE(64));
 *     ftr_tensor h = ftr_relu(ftr_batch_norm(ftr_conv2d(x, "conv1", 32, 3, NULL), "bn1", NULL));
 *     ftr_tensor logits = ftr_linear(ftr_global_avg_pool(h), "fc", 10, NULL);
 *
 *     ftr_field fields[] = {{"image", FTR_F32, FTR_SHAPE(8, 8, 1)}, {"label", FTR_I32, ftr_scalar_shape()}};
 *     const void *data[] = {images, labels};
 *     ftr_source *train;
 *     ftr_memory_source(ctx, "train", 1437, fields, data, 2, &train);
 *
 *     ftr_train_desc t = ftr_train_defaults();
 *     t.loss = ftr_cross_entropy(logits, y, NULL);
 *     t.metrics[t.metric_count++] = (ftr_metric){"accuracy", ftr_accuracy(logits, y)};
 *     t.optimizer = ftr_adamw(1e-3);
 *     t.train = train;
 *     t.epochs = 10;
 *     if (ftr_fit(g, &t, NULL)) fprintf(stderr, "%s\n", ftr_error_message(ctx));
 *
 *     ftr_source_destroy(train);
 *     ftr_graph_destroy(g);
 *     ftr_context_destroy(ctx);
 *
 * 5  EVALUATING, SAVING, LOADING
 *
 * ftr_evaluate() runs a source through an evaluation plan. ftr_save_weights() writes parameters and buffers as safetensors;
 * a PyTorch module with the same names loads the file, and ftr_load_weights() reads what PyTorch wrote, in half
 * precision too.
 *
 * Training goes on from another model's weights (transfer learning) by loading all but the layers that are new, and, if
 * the others are to stay as they are, by freezing them:
 *
 *     const char *head[] = {"fc.*"};
 *     ftr_load_desc load = {.skip = head, .skip_count = 1};
 *     ftr_load_report *report;
 *     ftr_status status = ftr_load_weights(g, "resnet50.safetensors", &load, &report);
 *     if (report) ftr_load_report_print(report, ftr_write_file, stderr);
 *     ftr_load_report_destroy(report);
 *     if (status) ...
 *     ftr_freeze(g, "*", &(ftr_freeze_desc){.norm_eval = true});
 *     ftr_unfreeze(g, "fc.*");
 *     ... train the head ...
 *     ftr_unfreeze(g, "*");
 *     ... train all of it, at a lower rate ...
 *
 * A load is complete or refused: what is missing, unexpected or of another shape is an error, and the report has all of
 * it. FTR_LOAD_BY_NAME takes what both sides have. Patterns know '*' (any characters, dots too) and '?' (one). Frozen
 * layers cost no gradients, no optimizer state and no backward pass below the lowest trained one.
 *
 * 6  YOUR OWN LOOP
 *
 *     ftr_optimizer sgd = ftr_sgd(0.1);
 *     ftr_plan *plan;
 *     if (ftr_compile(g, &(ftr_compile_desc){.loss = loss, .optimizer = &sgd}, &plan)) ...
 *     for (...) {
 *         ftr_feed(plan, x, images, sizeof images);
 *         ftr_feed(plan, y, labels, sizeof labels);
 *         ftr_step_info info;
 *         if (ftr_step(plan, &info)) ...
 *     }
 *     ftr_plan_destroy(plan);
 *
 * 7  OWNERSHIP AND MEMORY
 *
 * What a ..._create() or ftr_compile() hands out is yours and goes back through its ..._destroy(), children first: plans,
 * then graphs and sources, then the context. Tensors are never freed. Data that you pass in are copied, unless the
 * function's comment says otherwise (ftr_memory_source() keeps your pointers). All memory comes from the allocator hook of
 * ftr_context_desc. ftr_plan_memory() says what a plan uses; running it allocates nothing.
 *
 * 8  ERRORS AND THREADS
 *
 * Every call that can fail returns an ftr_status, and ftr_error_message() has a sentence that names the node, field or file,
 * what was found and what was expected. Builders return handles instead: the first mistake sticks to the graph, later
 * builders do nothing, and ftr_compile() returns it. So a model is written without checks, and checked once. The library
 * never exits, aborts or prints, other than through the logger hook.
 *
 * A context with its graphs, plans and sources is used by one thread at a time. Different contexts are independent.
 *
 * 9  REPRODUCIBILITY
 *
 * On one machine type the numbers depend on the seed alone: not on the number of threads. Random numbers are counter-based:
 * a parameter's first value is a function of (seed, name), dropout of (seed, node, step), the order of samples of (seed,
 * epoch).
 *
 * 10  SEEING INSIDE
 *
 * ftr_model_summary() prints layers, shapes, parameters and multiply-adds; ftr_graph_print() the graph as text or for
 * Graphviz; ftr_compile_desc.on_pass shows it after each pass; ftr_plan_print() what will run, in order, and where each
 * value lies.
 *
 * 11  BUILD SWITCHES AND ENVIRONMENT
 *
 *   FASTTRAIN_IMPLEMENTATION   this file also defines the functions
 *   FASTTRAIN_SELF             this file's name in quotes, if you rename it: the implementation includes it once an
 *                              instruction set
 *   FTR_API                    what stands before public functions; extern by default
 *   FASTTRAIN_SIMD             environment: portable, avx2, avx512 or neon, to use less than the CPU has
 *
 * 12  WHAT IT DOES NOT DO
 *
 * Shapes are static: there are no dynamic graphs. Kernels are f32 (f64 is for reference backends). Windows is not supported. */

/* The implementation uses POSIX. These have to stand before the first system header of the .c file. */
#ifdef FASTTRAIN_IMPLEMENTATION
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#if defined(__APPLE__) && !defined(_DARWIN_C_SOURCE)
#define _DARWIN_C_SOURCE
#endif
#endif

/* ---- src/api/base.h ---- */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FTR_VERSION_MAJOR 0
#define FTR_VERSION_MINOR 1
#define FTR_VERSION_PATCH 0

/* Put in front of every public function. Define it before the header is included to add visibility or calling
 * convention attributes. */
#ifndef FTR_API
#define FTR_API extern
#endif

/* Behind a function whose argument number `text` is a format of printf() for those from number `first` on: the compiler
 * compares them. */
#if defined(__GNUC__) || defined(__clang__)
#define FTR_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define FTR_PRINTF(text, first)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Status. Every call that can fail returns one; ftr_error_message() has the sentence that goes with the last failure.
 * Handles that are returned by graph builders are checked for the caller: the first failure sticks to the graph and
 * ftr_compile() returns it. */
typedef enum ftr_status {
    FTR_OK = 0,
    FTR_ERROR_INVALID_ARGUMENT,   /* a field of a description is outside what is documented for it */
    FTR_ERROR_OUT_OF_MEMORY,      /* the allocator hook returned NULL */
    FTR_ERROR_INVALID_TENSOR,     /* a null handle, or one that belongs to another graph */
    FTR_ERROR_RANK,               /* a tensor has another number of dimensions than the op takes */
    FTR_ERROR_SHAPE,              /* a dimension does not fit */
    FTR_ERROR_DTYPE,              /* an element type that the op does not take */
    FTR_ERROR_NAME,               /* a name that is missing, used twice or unknown */
    FTR_ERROR_NOT_DIFFERENTIABLE, /* a gradient was asked for through an op that has none */
    FTR_ERROR_UNSUPPORTED,        /* the backend has no kernel for the node */
    FTR_ERROR_NOT_FED,            /* an input was never given data */
    FTR_ERROR_DATA,               /* the data itself is outside its range, for instance a label beyond the classes */
    FTR_ERROR_STATE,              /* a call that is not possible now, for instance a new parameter after compiling */
    FTR_ERROR_IO,                 /* a file could not be opened, read or written */
    FTR_ERROR_FORMAT,             /* a file's content breaks its format */
    FTR_ERROR_THREAD,             /* the operating system refused a thread */
    FTR_ERROR_CALLBACK            /* a function of the caller's reported a failure */
} ftr_status;

/* Name of a status, such as "FTR_ERROR_SHAPE". Never NULL. Thread safe. */
FTR_API const char *ftr_status_name(ftr_status status);

/* ------------------------------------------------------------------------------------------------------------------
 * Element types and shapes. */
typedef enum ftr_dtype {
    FTR_DTYPE_NONE = 0,
    FTR_F32,
    FTR_F64, /* for reference backends: the CPU backend has no f64 kernels */
    FTR_I32,
    FTR_I64,
    FTR_U8,
    FTR_BOOL, /* one byte, 0 or 1 */
    FTR_DTYPE_COUNT
} ftr_dtype;

/* Bytes of one element; 0 for an unknown type. Thread safe. */
FTR_API size_t ftr_dtype_size(ftr_dtype dtype);

/* Name of a type, such as "f32". Never NULL. Thread safe. */
FTR_API const char *ftr_dtype_name(ftr_dtype dtype);

#define FTR_MAX_RANK 6

/* Sizes of a tensor, outermost first. Rank 0 is a scalar; a dimension may be 0. */
typedef struct ftr_shape {
    int32_t rank;
    int64_t dim[FTR_MAX_RANK];
} ftr_shape;

#define FTR__NTH(a, b, c, d, e, f, g, h, i, ...) i
#define FTR__COUNT_ARGS(...) FTR__NTH(__VA_ARGS__, 8, 7, 6, 5, 4, 3, 2, 1, 0)

/* FTR_SHAPE(64, 8, 8, 1): a shape from its dimensions, 1 to FTR_MAX_RANK of them. */
#ifdef __cplusplus
#define FTR_SHAPE(...) (ftr_shape{FTR__COUNT_ARGS(__VA_ARGS__), {__VA_ARGS__}})
#else
#define FTR_SHAPE(...) ((ftr_shape){FTR__COUNT_ARGS(__VA_ARGS__), {__VA_ARGS__}})
#endif

/* The shape of a scalar: rank 0, one element. Thread safe. */
FTR_API ftr_shape ftr_scalar_shape(void);

/* Number of elements, the product of the dimensions; 1 for rank 0; -1 if the rank or a dimension is out of range or the
 * product overflows. Thread safe. */
FTR_API int64_t ftr_shape_count(const ftr_shape *shape);

/* Whether two shapes have the same rank and dimensions. Thread safe. */
FTR_API bool ftr_shape_equal(const ftr_shape *a, const ftr_shape *b);

/* ------------------------------------------------------------------------------------------------------------------
 * Text output: reports are handed to a function, in pieces, so that they can go to a file, a buffer or a window. */
typedef void (*ftr_write_fn)(void *user, const char *text, size_t length);

/* An ftr_write_fn whose `user` is a FILE* of the caller's. */
FTR_API void ftr_write_file(void *user, const char *text, size_t length);

#ifdef __cplusplus
}
#endif

/* ---- src/api/context.h ---- */

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Context: everything that would be global in another library. Memory, threads, the logger, the seed and the last error
 * hang from it. Several contexts in one process do not know of each other. A context and all that was made from it are
 * used by one thread at a time. */
typedef struct ftr_context ftr_context;
struct ftr_backend;

/* Where all memory comes from. `allocate` returns memory aligned to `alignment` (a power of two, at most 64) or NULL;
 * `release` gets the size and alignment that were asked for. Both are called from the thread that uses the context,
 * never from worker threads. */
typedef struct ftr_allocator {
    void *user;
    void *(*allocate)(void *user, size_t size, size_t alignment);
    void (*release)(void *user, void *memory, size_t size, size_t alignment);
} ftr_allocator;

typedef enum ftr_log_level {
    FTR_LOG_DEBUG = 0,
    FTR_LOG_INFO,
    FTR_LOG_WARNING,
    FTR_LOG_ERROR,
    FTR_LOG_SILENT /* as a threshold only: nothing is logged */
} ftr_log_level;

/* Takes one message, without a line end. `transient` is set for a progress line that the next message replaces; an empty
 * transient message clears it. */
typedef struct ftr_logger {
    void *user;
    void (*write)(void *user, ftr_log_level level, bool transient, const char *message);
} ftr_logger;

/* All fields may be 0: system allocator, messages to stderr, seed 0, one thread a core, the CPU backend. */
typedef struct ftr_context_desc {
    uint64_t seed;           /* the only source of randomness */
    int32_t threads;         /* of the CPU backend, the caller's included; 0 is one for each core the process may use */
    ftr_allocator allocator; /* allocate == NULL: aligned memory of the system */
    ftr_logger logger;       /* write == NULL: stderr */
    ftr_log_level log_level; /* messages below it are dropped; 0 shows everything, FTR_LOG_SILENT nothing */
    const struct ftr_backend *backend; /* NULL: the CPU backend */
} ftr_context_desc;

/* Makes a context. `desc` may be NULL. The caller owns *context and gives it back with ftr_context_destroy() after all
 * graphs and plans made from it.
 * Errors: FTR_ERROR_INVALID_ARGUMENT, FTR_ERROR_OUT_OF_MEMORY, FTR_ERROR_THREAD; *context is then NULL.
 * The environment variable FASTTRAIN_SIMD (portable, avx2, avx512, neon) lowers the instruction set that is used; a level
 * the CPU lacks, or an unknown word, is an FTR_ERROR_INVALID_ARGUMENT. Thread safe. */
FTR_API ftr_status ftr_context_create(const ftr_context_desc *desc, ftr_context **context);

/* Frees a context. NULL is allowed. */
FTR_API void ftr_context_destroy(ftr_context *context);

/* The sentence that goes with the last failure on this context: it names the node or file, the field, what was found and
 * what was expected. "" when nothing failed yet. Owned by the context, valid until the next call on it. */
FTR_API const char *ftr_error_message(const ftr_context *context);

/* The code of the last failure; FTR_OK when nothing failed yet. */
FTR_API ftr_status ftr_error_status(const ftr_context *context);

/* Forgets the last failure. */
FTR_API void ftr_error_clear(ftr_context *context);

/* Number of threads in use, the caller's included. */
FTR_API int32_t ftr_context_threads(const ftr_context *context);

/* Name of the backend, such as "cpu". */
FTR_API const char *ftr_context_backend_name(const ftr_context *context);

/* Instruction set of the CPU backend: "portable", "avx2", "avx512" or "neon". */
FTR_API const char *ftr_context_simd_name(const ftr_context *context);

/* Seconds on a clock that never goes back. Thread safe. */
FTR_API double ftr_time_seconds(void);

#ifdef __cplusplus
}
#endif

/* ---- src/api/graph.h ---- */

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

/* Declares a trained tensor (f32 or f64). Its full name is unique. Memory and first value come with the first compile. */
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

/* ---- src/api/ops.h ---- */

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Ops. Each adds one node (or a few) and returns its value. All report through the graph's sticky error and return an
 * invalid handle on a mistake. Images are NHWC, convolution weights OHWI (out, height, width, in / groups), linear weights
 * [out, in]. Binary ops broadcast as NumPy does: shapes are aligned at the last dimension, a size of 1 stretches. Both
 * operands have one type; nothing is converted silently. */

/* Pointwise arithmetic on f32, f64, i32 and i64. Integer division truncates. */
FTR_API ftr_tensor ftr_add(ftr_tensor a, ftr_tensor b);
/* a - b, as ftr_add(). */
FTR_API ftr_tensor ftr_sub(ftr_tensor a, ftr_tensor b);
/* a * b, as ftr_add(). */
FTR_API ftr_tensor ftr_mul(ftr_tensor a, ftr_tensor b);
/* a / b, as ftr_add(). An integer divided by zero gives 0. */
FTR_API ftr_tensor ftr_div(ftr_tensor a, ftr_tensor b);
/* a to the power b, floating point only. Gradient as PyTorch's: d/da is 0 where b is 0, d/db is 0 where a is 0 and b >= 0. */
FTR_API ftr_tensor ftr_pow(ftr_tensor a, ftr_tensor b);
/* The larger of a and b; a NaN in either gives NaN. Where both are equal the gradient is split in halves, as PyTorch's. */
FTR_API ftr_tensor ftr_maximum(ftr_tensor a, ftr_tensor b);

/* Comparisons on numbers (and bool for eq and ne); the result is bool. */
FTR_API ftr_tensor ftr_eq(ftr_tensor a, ftr_tensor b);
/* a != b. */
FTR_API ftr_tensor ftr_ne(ftr_tensor a, ftr_tensor b);
/* a < b. */
FTR_API ftr_tensor ftr_lt(ftr_tensor a, ftr_tensor b);
/* a <= b. */
FTR_API ftr_tensor ftr_le(ftr_tensor a, ftr_tensor b);
/* a > b. */
FTR_API ftr_tensor ftr_gt(ftr_tensor a, ftr_tensor b);
/* a >= b. */
FTR_API ftr_tensor ftr_ge(ftr_tensor a, ftr_tensor b);

/* condition ? a : b, element by element; `condition` is bool; all three broadcast. */
FTR_API ftr_tensor ftr_where(ftr_tensor condition, ftr_tensor a, ftr_tensor b);

/* -x. */
FTR_API ftr_tensor ftr_neg(ftr_tensor x);
/* e to the x, floating point only, as the following. */
FTR_API ftr_tensor ftr_exp(ftr_tensor x);
/* Natural logarithm. */
FTR_API ftr_tensor ftr_log(ftr_tensor x);
/* Square root. Its gradient at 0 is infinite, as PyTorch's. */
FTR_API ftr_tensor ftr_sqrt(ftr_tensor x);
/* 1 / sqrt(x). */
FTR_API ftr_tensor ftr_rsqrt(ftr_tensor x);
/* Hyperbolic tangent. */
FTR_API ftr_tensor ftr_tanh(ftr_tensor x);
/* 1 / (1 + e^-x). */
FTR_API ftr_tensor ftr_sigmoid(ftr_tensor x);
/* max(x, 0); NaN stays NaN; gradient 0 at 0. */
FTR_API ftr_tensor ftr_relu(ftr_tensor x);

/* The smaller of a and b, otherwise as ftr_maximum(). */
FTR_API ftr_tensor ftr_minimum(ftr_tensor a, ftr_tensor b);
/* |x| of f32, f64, i32 and i64. Gradient 0 at 0. */
FTR_API ftr_tensor ftr_abs(ftr_tensor x);
/* -1, 0 or 1 by the sign of x (f32, f64, i32, i64); 0 for NaN, as PyTorch. The gradient is 0 everywhere. */
FTR_API ftr_tensor ftr_sign(ftr_tensor x);
/* Sine of x radians; floating point only, as the following. */
FTR_API ftr_tensor ftr_sin(ftr_tensor x);
/* Cosine of x radians. */
FTR_API ftr_tensor ftr_cos(ftr_tensor x);
/* Error function, 2 / sqrt(pi) times the integral of e^-t^2 from 0 to x. */
FTR_API ftr_tensor ftr_erf(ftr_tensor x);
/* Largest whole number that is not above x. The gradient is 0 everywhere. */
FTR_API ftr_tensor ftr_floor(ftr_tensor x);
/* Nearest whole number; halves go to the even one. The gradient is 0 everywhere. */
FTR_API ftr_tensor ftr_round(ftr_tensor x);
/* x limited to min..max; either may be infinite, min <= max. NaN stays NaN. The gradient passes strictly between the
 * bounds and is 0 on them, as PyTorch 2.15's. */
FTR_API ftr_tensor ftr_clamp(ftr_tensor x, double min, double max);
/* ftr_clamp() to 0..6. */
FTR_API ftr_tensor ftr_relu6(ftr_tensor x);

/* How ftr_gelu() is computed: x Phi(x) with the normal distribution's Phi, or its approximation by a hyperbolic
 * tangent, x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 (Hendrycks and Gimpel, arXiv:1606.08415), as GPT-2
 * has it. */
typedef enum ftr_gelu_form { FTR_GELU_EXACT = 0, FTR_GELU_TANH } ftr_gelu_form;

/* Gaussian error linear unit. */
FTR_API ftr_tensor ftr_gelu(ftr_tensor x, ftr_gelu_form form);
/* x / (1 + e^-x), also called swish. */
FTR_API ftr_tensor ftr_silu(ftr_tensor x);
/* x min(max(x + 3, 0), 6) / 6. Gradient 0 at -3 and 1 at 3, as PyTorch's. */
FTR_API ftr_tensor ftr_hardswish(ftr_tensor x);
/* min(max(x + 3, 0), 6) / 6. Gradient 0 at -3 and 3. */
FTR_API ftr_tensor ftr_hardsigmoid(ftr_tensor x);
/* x where x > 0, slope * x elsewhere. PyTorch's default slope is 0.01. */
FTR_API ftr_tensor ftr_leaky_relu(ftr_tensor x, double slope);
/* x where x > 0, alpha (e^x - 1) elsewhere. PyTorch's default alpha is 1. */
FTR_API ftr_tensor ftr_elu(ftr_tensor x, double alpha);
/* log(1 + e^(beta x)) / beta, and x where beta x > threshold; beta > 0. PyTorch's defaults are 1 and 20. */
FTR_API ftr_tensor ftr_softplus(ftr_tensor x, double beta, double threshold);
/* x, of any type, as a constant: no gradient flows to what it was computed from. */
FTR_API ftr_tensor ftr_stop_gradient(ftr_tensor x);

/* Converts between element types. Floating to integer truncates toward zero (out of range saturates, NaN gives 0); to bool
 * is x != 0. Differentiable between floating types. */
FTR_API ftr_tensor ftr_cast(ftr_tensor x, ftr_dtype dtype);

/* Axes: FTR_AXES(1, 2); a negative one counts from the end. No axes at all, as ftr_all_axes() gives, mean all of them. */
typedef struct ftr_axes {
    int32_t count;
    int32_t axis[FTR_MAX_RANK];
} ftr_axes;

/* FTR_AXES(0, -1): a list of axes, as an argument of ftr_sum() and its kin. */
#ifdef __cplusplus
#define FTR_AXES(...) (ftr_axes{FTR__COUNT_ARGS(__VA_ARGS__), {__VA_ARGS__}})
#else
#define FTR_AXES(...) ((ftr_axes){FTR__COUNT_ARGS(__VA_ARGS__), {__VA_ARGS__}})
#endif

/* All axes of a tensor of any rank. */
FTR_API ftr_axes ftr_all_axes(void);

/* Sum over axes; with `keep` they stay as size 1. f32, f64, i32, i64. The order of additions is fixed. Over nothing: 0. */
FTR_API ftr_tensor ftr_sum(ftr_tensor x, ftr_axes axes, bool keep);
/* Mean over axes, floating point only. Over nothing: NaN. */
FTR_API ftr_tensor ftr_mean(ftr_tensor x, ftr_axes axes, bool keep);
/* Maximum over axes; NaN wins. The gradient is shared evenly among equal maxima, as PyTorch's amax; where the maximum is NaN
 * it is NaN for all. A reduction over nothing is an error. */
FTR_API ftr_tensor ftr_max(ftr_tensor x, ftr_axes axes, bool keep);
/* Index (i64) of the first maximum along one axis; NaN counts as the largest. The axis goes away. No gradient. f32, f64, i32,
 * i64. */
FTR_API ftr_tensor ftr_argmax(ftr_tensor x, int32_t axis);

/* Matrix product over the last two dimensions, [.., m, k] x [.., k, n]; the leading ones broadcast. `transpose_a` takes
 * a as [.., k, m], `transpose_b` takes b as [.., n, k]. Rank 2 or more. f32, f64. */
FTR_API ftr_tensor ftr_matmul(ftr_tensor a, ftr_tensor b, bool transpose_a, bool transpose_b);
/* Einstein summation of two tensors, or of one if b is a null handle, as torch.einsum: "bij,bjk->bik" names each dimension
 * by a letter; what the result lacks is summed over. A letter twice in one operand is its diagonal. "..." stands for
 * dimensions without a name, which broadcast. Of one letter a size of 1 stretches to the other operand's. Without "->" the
 * result has the dimensions of "...", then the letters that are there once, in the order of ASCII. Spaces do not count.
 * f32, f64, i32, i64. It becomes sums, transposes and one matmul, or mul if there is nothing to sum over together. */
FTR_API ftr_tensor ftr_einsum(const char *equation, ftr_tensor a, ftr_tensor b);

/* Same elements in another shape. One dimension may be -1: it follows from the others. */
FTR_API ftr_tensor ftr_reshape(ftr_tensor x, ftr_shape shape);
/* Joins all dimensions from `axis` on into one. */
FTR_API ftr_tensor ftr_flatten(ftr_tensor x, int32_t axis);
/* Permutes dimensions: dimension i of the result is dimension order[i] of x. order has the rank of x. */
FTR_API ftr_tensor ftr_transpose(ftr_tensor x, ftr_axes order);
/* Repeats dimensions of size 1 to reach a shape, aligned at the last dimension. */
FTR_API ftr_tensor ftr_expand(ftr_tensor x, ftr_shape shape);
/* Joins 1 to 16 tensors along an axis; the other dimensions are equal. */
FTR_API ftr_tensor ftr_concat(const ftr_tensor *tensors, int32_t count, int32_t axis);
/* Elements begin, begin + step, ... below end along one axis; negative begin and end count from the size; both are clamped
 * to it as in Python; step is 1 or more. */
FTR_API ftr_tensor ftr_slice(ftr_tensor x, int32_t axis, int64_t begin, int64_t end, int64_t step);
/* Adds before[i] and after[i] (0 or more) elements of `value` along dimension i. Both shapes have the rank of x. */
FTR_API ftr_tensor ftr_pad(ftr_tensor x, ftr_shape before, ftr_shape after, double value);

/* exp(x) / sum exp(x) along an axis. */
FTR_API ftr_tensor ftr_softmax(ftr_tensor x, int32_t axis);
/* log of ftr_softmax(), computed stably. */
FTR_API ftr_tensor ftr_log_softmax(ftr_tensor x, int32_t axis);

/* While training: sets elements to 0 with probability p and scales the others by 1 / (1 - p). In evaluation: x. The mask
 * is a pure function of (seed, node, step, element). 0 <= p <= 1. */
FTR_API ftr_tensor ftr_dropout(ftr_tensor x, double p);
/* ftr_dropout() of whole samples, as torchvision's stochastic_depth in mode "row": while training each row of the leading
 * dimension is set to 0 with probability p, the others are scaled by 1 / (1 - p). The mask is a pure function of (seed,
 * node, step, row). x of rank 1 or more. A residual block that is left out for some samples (Huang et al., ECCV 2016):
 * ftr_add(x, ftr_stochastic_depth(block, p)). */
FTR_API ftr_tensor ftr_stochastic_depth(ftr_tensor x, double p);

/* An f32 tensor of random numbers from low to high (not included, unless it equals low), new ones in each step, while
 * training and in evaluation. The numbers are a pure function of (seed, full name, step, element): with a name, which no
 * other random tensor has, the rest of the graph does not change them. With NULL the name is "random_uniform_" and the
 * node's number, which depends on the nodes before it. */
FTR_API ftr_tensor ftr_random_uniform(ftr_graph *graph, const char *name, ftr_shape shape, double low, double high);
/* The same, normally distributed with a mean and a standard deviation of 0 or more. No number is further than 5.8 deviations
 * from the mean. */
FTR_API ftr_tensor ftr_random_normal(ftr_graph *graph, const char *name, ftr_shape shape, double mean, double std);

/* --------------------------------------------------------------------------------------------------- attention -- */

/* From ftr_attention_defaults(). */
typedef struct ftr_attention_desc {
    uint32_t cookie;
    bool causal;     /* query i sees the keys 0 to i, whatever tq and tk are, as PyTorch's is_causal; false */
    ftr_tensor mask; /* added to the scores; broadcasts to [n, heads, tq, tk]; -inf excludes a key. A null handle: none */
    double scale;    /* of the scores; 0 is 1 / sqrt(d); 0 */
    double dropout;  /* while training: probability that a weight is set to 0; the others are scaled; 0 */
} ftr_attention_desc;

/* No mask, scale 1 / sqrt(d), no dropout. */
FTR_API ftr_attention_desc ftr_attention_defaults(void);

/* Scaled dot-product attention (Vaswani et al.: Attention Is All You Need, 2017): softmax over the keys of
 * scale * query . key + mask, times the values. query [n, tq, heads, d], key [n, tk, kv_heads, d], value [n, tk,
 * kv_heads, dv] give [n, tq, heads, dv]; kv_heads divides heads, and heads / kv_heads neighbouring query heads share
 * one of key and value (grouped-query attention, Ainslie et al. 2023). Causal and a mask both apply if both are given.
 * A query that sees no key gives 0, with gradient 0, as PyTorch's. The matrix of scores is never in memory: it is
 * computed by tiles, in the gradient once more (Dao et al.: FlashAttention, 2022). f32 and f64, all of one type. The
 * mask has a gradient. `desc` may be NULL. */
FTR_API ftr_tensor ftr_attention(ftr_tensor query, ftr_tensor key, ftr_tensor value, const ftr_attention_desc *desc);

/* From ftr_rotary_defaults(). */
typedef struct ftr_rotary_desc {
    uint32_t cookie;
    double base;      /* 10000 */
    int64_t first;    /* position of row 0; 0 */
    int32_t dims;     /* how many of the d elements are rotated, the first ones; even; 0 is all; 0 */
    bool interleaved; /* a pair is elements 2 i and 2 i + 1, as in GPT-J, instead of i and i + dims / 2, as in GPT-NeoX
                       * and Llama; false */
} ftr_rotary_desc;

/* Base 10000, from position 0, all of d, pairs of halves. */
FTR_API ftr_rotary_desc ftr_rotary_defaults(void);

/* Rotary position embedding (Su et al.: RoFormer, 2021) of queries or keys [n, t, heads, d]: pair i of row p is rotated
 * by the angle (first + p) * base^(-2 i / dims). Elements from `dims` on stay. `desc` may be NULL. */
FTR_API ftr_tensor ftr_rotary(ftr_tensor x, const ftr_rotary_desc *desc);

/* ------------------------------------------------------------------------------------------- indices and scans -- */

/* Rows of weight [rows, width]: indices [..] (i32 or i64) to [.., width]. An index outside 0 to rows - 1 fails the step
 * with FTR_ERROR_DATA and changes no parameter. Rows that come up several times get the sum of their gradients, added
 * in the order of the indices. */
FTR_API ftr_tensor ftr_embedding_with(ftr_tensor weight, ftr_tensor indices);

/* 0 in a field means its default. */
typedef struct ftr_embedding_desc {
    ftr_dtype dtype; /* of the weight; default FTR_F32 */
    ftr_init weight_init;
} ftr_embedding_desc;

/* Layer: ftr_embedding_with() on the parameter "name.weight" [rows, width], normal with mean 0 and deviation 1 as
 * PyTorch's. `desc` may be NULL. */
FTR_API ftr_tensor ftr_embedding(ftr_tensor indices, const char *name, int64_t rows, int64_t width,
                                 const ftr_embedding_desc *desc);

/* Picks elements along an axis, as torch.gather: result[i][j][k] = x[i][index[i][j][k]][k] for axis 1. `index` (i32 or
 * i64) has the rank of x and is in no other dimension larger; the result has its shape. Any element type. An index
 * outside the axis fails the step with FTR_ERROR_DATA. */
FTR_API ftr_tensor ftr_gather(ftr_tensor x, int32_t axis, ftr_tensor index);
/* x with elements of `source` added along an axis, as torch.scatter_add: for axis 1 source[i][j][k] is added to
 * result[i][index[i][j][k]][k], in the order of j. `index` (i32 or i64) has the rank of x and `source`, is in no
 * dimension larger than `source` and in none but the axis larger than x. f32, f64, i32, i64. An index outside the axis
 * fails the step with FTR_ERROR_DATA. */
FTR_API ftr_tensor ftr_scatter_add(ftr_tensor x, int32_t axis, ftr_tensor index, ftr_tensor source);
/* indices [..] (i32 or i64) to [.., classes] of a type: 1 at the index, 0 elsewhere. An index outside 0 to classes - 1
 * fails the step with FTR_ERROR_DATA. No gradient. */
FTR_API ftr_tensor ftr_one_hot(ftr_tensor indices, int64_t classes, ftr_dtype dtype);
/* The k largest elements along the last axis, in descending order; of equal ones the first come first, NaN is larger
 * than all. `indices` (may be NULL) gets their positions, i64. f32, f64, i32, i64; 0 <= k <= size of the axis. */
FTR_API ftr_tensor ftr_topk(ftr_tensor x, int64_t k, ftr_tensor *indices);

/* Sums of the elements up to each along an axis; with `reverse`, of those from each on. f32, f64, i32, i64. */
FTR_API ftr_tensor ftr_cumsum(ftr_tensor x, int32_t axis, bool reverse);
/* Product over axes, as ftr_sum(); its gradient is right with zeros too. f32, f64, i32, i64. Over nothing: 1. */
FTR_API ftr_tensor ftr_prod(ftr_tensor x, ftr_axes axes, bool keep);
/* log of the sum of e^x over axes, computed stably, floating point only. Over nothing, or where all are -inf: -inf. The
 * gradient is e^(x - result), which is softmax(x); where the result is inf, it is NaN for an infinite x, 0 for the others. */
FTR_API ftr_tensor ftr_logsumexp(ftr_tensor x, ftr_axes axes, bool keep);
/* Variance over axes: sum of (x - mean)^2 / (n - correction) for n elements; correction 0 (biased) or 1 (unbiased).
 * Floating point only. NaN where n - correction is not positive. */
FTR_API ftr_tensor ftr_var(ftr_tensor x, ftr_axes axes, int32_t correction, bool keep);
/* Norm over axes, floating point only: p = 1 (sum of |x|), 2 (square root of the sum of squares) or INFINITY (largest
 * |x|, over nothing an error). The gradient at 0 is 0, as PyTorch's; for INFINITY equal maxima share it. */
FTR_API ftr_tensor ftr_norm(ftr_tensor x, double p, ftr_axes axes, bool keep);

/* Cuts x along an axis into `count` parts of the given sizes, which add up to the axis, or into equal ones if `sizes`
 * is NULL. On a mistake all parts are invalid. */
FTR_API void ftr_split(ftr_tensor x, int32_t axis, const int64_t *sizes, int32_t count, ftr_tensor *parts);
/* Joins 1 to 16 tensors of one shape along a new axis: -1 puts it last, 0 first. */
FTR_API ftr_tensor ftr_stack(const ftr_tensor *tensors, int32_t count, int32_t axis);

/* --------------------------------------------------------------------------------------------------- convolution -- */

/* 0 in a field means its default. */
typedef struct ftr_conv2d_desc {
    int32_t stride[2];   /* height, width; default 1 */
    int32_t padding[4];  /* zeros added at top, bottom, left, right; default 0 */
    int32_t dilation[2]; /* default 1 */
    int32_t groups;      /* default 1; divides both channel counts */
    bool no_bias;        /* the layer form only, as the following: leave the bias out */
    ftr_init weight_init, bias_init;
} ftr_conv2d_desc;

/* 2-D convolution (cross-correlation, as PyTorch's) of x [n, h, w, c] with weight [o, kh, kw, c / groups] and bias [o],
 * which may be a null handle. Result [n, oh, ow, o], oh = (h + top + bottom - dilation * (kh - 1) - 1) / stride + 1.
 * `desc` may be NULL. */
FTR_API ftr_tensor ftr_conv2d_with(ftr_tensor x, ftr_tensor weight, ftr_tensor bias, const ftr_conv2d_desc *desc);

/* Layer: ftr_conv2d_with() on parameters "name.weight" [out_channels, kernel, kernel, c / groups] and "name.bias", with
 * PyTorch's default initialization unless the description has another. */
FTR_API ftr_tensor ftr_conv2d(ftr_tensor x, const char *name, int64_t out_channels, int32_t kernel,
                              const ftr_conv2d_desc *desc);

/* 0 in a field means its default. */
typedef struct ftr_pool2d_desc {
    int32_t stride[2];      /* default: the window */
    int32_t padding[4];     /* top, bottom, left, right; default 0, at most half the window */
    bool exclude_padding;   /* average only: divide by the number of real elements, not by the window */
} ftr_pool2d_desc;

/* Maximum over windows of [n, h, w, c]; the first of equal elements gets the gradient; padding never wins. */
FTR_API ftr_tensor ftr_max_pool2d(ftr_tensor x, int32_t kernel_h, int32_t kernel_w, const ftr_pool2d_desc *desc);
/* Mean over windows of [n, h, w, c]; padding counts as zeros unless exclude_padding is set. */
FTR_API ftr_tensor ftr_avg_pool2d(ftr_tensor x, int32_t kernel_h, int32_t kernel_w, const ftr_pool2d_desc *desc);
/* Mean over height and width: [n, h, w, c] to [n, c]. */
FTR_API ftr_tensor ftr_global_avg_pool(ftr_tensor x);

/* ----------------------------------------------------------------------------------------------- linear and norm -- */

/* x weight^T + bias: x [.., in], weight [out, in], bias [out] or a null handle. */
FTR_API ftr_tensor ftr_linear_with(ftr_tensor x, ftr_tensor weight, ftr_tensor bias);

/* 0 in a field means its default. */
typedef struct ftr_linear_desc {
    bool no_bias;
    ftr_init weight_init, bias_init;
} ftr_linear_desc;

/* Layer: ftr_linear_with() on parameters "name.weight" and "name.bias" with PyTorch's default initialization
 * unless the description has another. */
FTR_API ftr_tensor ftr_linear(ftr_tensor x, const char *name, int64_t out_features, const ftr_linear_desc *desc);

/* From ftr_batch_norm_defaults(). */
typedef struct ftr_batch_norm_desc {
    uint32_t cookie;
    double eps;      /* added to the variance; 1e-5 */
    double momentum; /* weight of the new batch in the running statistics; 0.1 */
} ftr_batch_norm_desc;

/* eps 1e-5, momentum 0.1. */
FTR_API ftr_batch_norm_desc ftr_batch_norm_defaults(void);

/* Normalizes each channel (the last dimension of x, rank 2 or more) by its statistics over all other dimensions, then
 * scales by gamma and adds beta (each [c]). In a training plan the batch's statistics are used (biased variance) and the
 * running ones move by momentum (unbiased variance, as PyTorch); in an evaluation plan the running ones are used. */
FTR_API ftr_tensor ftr_batch_norm_with(ftr_tensor x, ftr_tensor gamma, ftr_tensor beta, ftr_tensor running_mean,
                                       ftr_tensor running_var, const ftr_batch_norm_desc *desc);

/* Layer: parameters "name.weight" (1), "name.bias" (0), buffers "name.running_mean" (0), "name.running_var" (1). */
FTR_API ftr_tensor ftr_batch_norm(ftr_tensor x, const char *name, const ftr_batch_norm_desc *desc);

/* From ftr_layer_norm_defaults(). */
typedef struct ftr_layer_norm_desc {
    uint32_t cookie;
    double eps;   /* added to the variance; 1e-5 */
    int32_t dims; /* dimensions of a row, the last ones; 0 is gamma's rank (or beta's), 1 without both; 0 */
    bool no_bias; /* leave the bias out (the layer form only) */
} ftr_layer_norm_desc;

/* eps 1e-5, rows as gamma has them, a bias. */
FTR_API ftr_layer_norm_desc ftr_layer_norm_defaults(void);

/* Normalizes each row of x, its last `dims` dimensions, by the row's mean and biased variance, then multiplies by gamma
 * and adds beta, as PyTorch's layer_norm. gamma and beta have the shape of a row; each may be a null handle. (Ba,
 * Kiros, Hinton: Layer Normalization, 2016.) `desc` may be NULL. */
FTR_API ftr_tensor ftr_layer_norm_with(ftr_tensor x, ftr_tensor gamma, ftr_tensor beta,
                                       const ftr_layer_norm_desc *desc);

/* Layer over the last dimension: parameters "name.weight" (1) and "name.bias" (0). */
FTR_API ftr_tensor ftr_layer_norm(ftr_tensor x, const char *name, const ftr_layer_norm_desc *desc);

/* From ftr_rms_norm_defaults(). */
typedef struct ftr_rms_norm_desc {
    uint32_t cookie;
    double eps; /* added to the mean square; 2^-23, which is PyTorch's default for f32 */
} ftr_rms_norm_desc;

/* eps 2^-23. */
FTR_API ftr_rms_norm_desc ftr_rms_norm_defaults(void);

/* x / sqrt(mean of x^2 + eps) over the last dimension, times gamma [size of it], which may be a null handle. (Zhang,
 * Sennrich: Root Mean Square Layer Normalization, 2019.) `desc` may be NULL. */
FTR_API ftr_tensor ftr_rms_norm_with(ftr_tensor x, ftr_tensor gamma, const ftr_rms_norm_desc *desc);

/* Layer: parameter "name.weight" (1). */
FTR_API ftr_tensor ftr_rms_norm(ftr_tensor x, const char *name, const ftr_rms_norm_desc *desc);

/* From ftr_group_norm_defaults(). */
typedef struct ftr_group_norm_desc {
    uint32_t cookie;
    double eps; /* added to the variance; 1e-5 */
} ftr_group_norm_desc;

/* eps 1e-5. */
FTR_API ftr_group_norm_desc ftr_group_norm_defaults(void);

/* Normalizes x [n, .., c] by the mean and biased variance of each sample's groups of c / groups neighbouring channels,
 * then scales by gamma and adds beta, each [c] or a null handle. As PyTorch's group_norm, but that the channels are the
 * last dimension. (Wu, He: Group Normalization, 2018.) `desc` may be NULL. */
FTR_API ftr_tensor ftr_group_norm_with(ftr_tensor x, int32_t groups, ftr_tensor gamma, ftr_tensor beta,
                                       const ftr_group_norm_desc *desc);

/* Layer: parameters "name.weight" (1) and "name.bias" (0). */
FTR_API ftr_tensor ftr_group_norm(ftr_tensor x, const char *name, int32_t groups, const ftr_group_norm_desc *desc);

/* -------------------------------------------------------------------------------------------- losses and metrics -- */

typedef enum ftr_reduction {
    FTR_REDUCE_MEAN = 0,
    FTR_REDUCE_SUM,
    FTR_REDUCE_NONE,
    FTR_REDUCE_BATCH_MEAN /* the sum divided by the number of rows; ftr_kl_div() only */
} ftr_reduction;

/* From ftr_cross_entropy_defaults(). */
typedef struct ftr_cross_entropy_desc {
    uint32_t cookie;
    double label_smoothing;   /* 0 to 1; 0 */
    int64_t ignore_index;     /* rows with this label count for nothing; -100 */
    ftr_tensor class_weights; /* [classes]; a null handle is 1 for each. The mean divides by the sum of the rows' weights */
    ftr_reduction reduction;  /* FTR_REDUCE_NONE gives one loss a row, 0 for ignored ones */
} ftr_cross_entropy_desc;

/* No smoothing, ignore_index -100, no weights, mean. */
FTR_API ftr_cross_entropy_desc ftr_cross_entropy_defaults(void);

/* Cross entropy of softmax(logits) [.., classes] against labels [..] (i32 or i64), as PyTorch's cross_entropy. A label
 * outside the classes that is not ignore_index fails the step with FTR_ERROR_DATA and changes no parameter. The mean over
 * no rows at all is NaN. `desc` may be NULL. */
FTR_API ftr_tensor ftr_cross_entropy(ftr_tensor logits, ftr_tensor labels, const ftr_cross_entropy_desc *desc);

/* Mean (or sum, or each) of (prediction - target)^2; equal shapes. */
FTR_API ftr_tensor ftr_mse(ftr_tensor prediction, ftr_tensor target, ftr_reduction reduction);

/* Negative log-likelihood: as ftr_cross_entropy(), of log-probabilities [.., classes] (ftr_log_softmax()) instead of
 * logits. desc->label_smoothing must be 0. `desc` may be NULL. */
FTR_API ftr_tensor ftr_nll(ftr_tensor log_probabilities, ftr_tensor labels, const ftr_cross_entropy_desc *desc);

/* 0 in a field means its default. */
typedef struct ftr_bce_desc {
    ftr_tensor pos_weight;   /* factor of the positive targets' term; broadcasts to the logits; default 1 */
    ftr_reduction reduction; /* default: mean */
} ftr_bce_desc;

/* Binary cross entropy of sigmoid(logits) against targets from 0 to 1, computed stably; equal shapes. As PyTorch's
 * binary_cross_entropy_with_logits. `desc` may be NULL. */
FTR_API ftr_tensor ftr_bce_with_logits(ftr_tensor logits, ftr_tensor target, const ftr_bce_desc *desc);

/* Kullback-Leibler divergence, target * (log target - input), of log-probabilities `input` from probabilities `target`,
 * or from log-probabilities with log_target; equal shapes. A target of 0 gives 0, and -input as its gradient. The mean
 * is over all elements, as PyTorch's kl_div; FTR_REDUCE_BATCH_MEAN is the mathematical one. */
FTR_API ftr_tensor ftr_kl_div(ftr_tensor input, ftr_tensor target, bool log_target, ftr_reduction reduction);

/* Of the differences d: d^2 / (2 beta) where |d| < beta, |d| - beta / 2 elsewhere; equal shapes. beta is 0 or more; 0
 * is the absolute error, whose gradient at 0 is 0. */
FTR_API ftr_tensor ftr_smooth_l1(ftr_tensor prediction, ftr_tensor target, double beta, ftr_reduction reduction);

/* Share of rows whose largest logit is at the label: a scalar, without a gradient. logits [.., classes], labels [..]. */
FTR_API ftr_tensor ftr_accuracy(ftr_tensor logits, ftr_tensor labels);

#ifdef __cplusplus
}
#endif

/* ---- src/api/models.h ---- */

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Models. Each builder adds one network to the graph of its input and returns the logits [n, classes]. They are written
 * with the functions of this header alone, so each can serve as a pattern for a network of your own.
 *
 * Parameters and buffers lie in the current scope and are named and initialized as in the PyTorch model that the comment
 * names: ftr_load_weights() reads its state_dict, saved as safetensors, and the other way round.
 *
 * Images are f32 [n, h, w, channels] with any number of channels. `desc` may be NULL. With `features_only` the classifier
 * is left out, its dropout and its hidden layer included, and the result is what it would have got, [n, features].
 *
 * A mistake (an image that is too small or of another rank, an option outside what is documented) is the graph's sticky
 * error: FTR_ERROR_INVALID_TENSOR, FTR_ERROR_RANK, FTR_ERROR_DTYPE, FTR_ERROR_SHAPE or FTR_ERROR_INVALID_ARGUMENT. */

/* 0 in a field means its default. */
typedef struct ftr_mlp_desc {
    const int64_t *hidden;                  /* sizes of the hidden layers; read while building */
    int32_t hidden_count;                   /* default 0: a linear classifier */
    int64_t classes;                        /* size of the last layer; default 10 */
    ftr_tensor (*activation)(ftr_tensor x); /* after each hidden layer; default ftr_relu() */
    double dropout;                         /* after each activation; default 0, no dropout */
    bool features_only;                     /* without the last layer */
} ftr_mlp_desc;

/* Multi-layer perceptron on x [.., features]; result [.., classes]. Names are those of an nn.Sequential of Linear,
 * activation, Linear, activation, ..., Linear: "0.weight", "0.bias", "2.weight", ...; with dropout each hidden layer has
 * three members: "0.weight", "0.bias", "3.weight", ... PyTorch's default initialization. */
FTR_API ftr_tensor ftr_mlp(ftr_tensor x, const ftr_mlp_desc *desc);

/* From ftr_mnist_cnn_defaults(). */
typedef struct ftr_mnist_cnn_desc {
    uint32_t cookie;
    int64_t classes; /* 10 */
    double dropout1; /* after the pooling; 0.25 */
    double dropout2; /* after fc1; 0.5 */
    bool features_only;
} ftr_mnist_cnn_desc;

/* 10 classes, dropout 0.25 and 0.5. */
FTR_API ftr_mnist_cnn_desc ftr_mnist_cnn_defaults(void);

/* The network of PyTorch's MNIST example (github.com/pytorch/examples, mnist/main.py) up to its logits: conv1 (32, 3x3),
 * conv2 (64, 3x3), maximum pooling 2x2, dropout, fc1 (128), dropout, fc2. Images of 6x6 or more; 28x28 is what its weights
 * fit. Names conv1, conv2, fc1, fc2; fc1 reads its inputs in PyTorch's order of channel, row, column. PyTorch's default
 * initialization. With `features_only` the result is [n, 128], after fc1 and its activation. */
FTR_API ftr_tensor ftr_mnist_cnn(ftr_tensor image, const ftr_mnist_cnn_desc *desc);

#ifdef __cplusplus
}
#endif

/* ---- src/api/models_transformer.h ---- */

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Transformers. What is said above of models holds for these too: names, shapes and first values are those of the
 * PyTorch model that the comment names, and a mistake is the graph's sticky error. */

/* Sizes of ftr_vit(), by embedding width, layers and heads. */
typedef enum ftr_vit_size {
    FTR_VIT_TINY = 0, /* Ti: 192, 12, 3; the sizes Ti and S are those of Touvron and others, arXiv:2012.12877 */
    FTR_VIT_SMALL,    /* S: 384, 12, 6 */
    FTR_VIT_BASE      /* B: 768, 12, 12 */
} ftr_vit_size;

/* From ftr_vit_defaults(); then any field may be changed. */
typedef struct ftr_vit_desc {
    uint32_t cookie;
    int64_t classes;          /* 1000 */
    int64_t patch;            /* side of a patch in pixels, which divides the image's height and width; 16 */
    int64_t width;            /* of the embedding; the heads divide it */
    int32_t layers;           /* 1 or more */
    int32_t heads;            /* 1 or more */
    int64_t mlp_width;        /* of the hidden layer of a block's MLP; 0: 4 times the width; 0 */
    double dropout;           /* of the embeddings, and after each linear layer of a block but the first; 0 */
    double attention_dropout; /* of the attention's weights; 0 */
    bool features_only;       /* without the classifier: the result is the class token, [n, width] */
} ftr_vit_desc;

/* A size of the table, patches of 16, 1000 classes, no dropout. A `size` that is none gives a description that
 * ftr_vit() refuses. */
FTR_API ftr_vit_desc ftr_vit_defaults(ftr_vit_size size);

/* Vision transformer (Dosovitskiy and others, arXiv:2010.11929): image [n, h, w, channels] to logits [n, classes].
 * Names are those of torchvision's VisionTransformer: class_token, conv_proj, encoder.pos_embedding,
 * encoder.layers.encoder_layer_0.ln_1, .self_attention.in_proj_weight, .self_attention.out_proj, .ln_2, .mlp.0,
 * .mlp.3, encoder.ln, heads.head; so are the first values: the classifier starts at 0. Layer norms add 1e-6. `desc`
 * NULL is ViT-B/16. The position embedding has a row for the class token and one for each patch, hence the image's
 * size is part of the weights' shapes; image height and width may differ. */
FTR_API ftr_tensor ftr_vit(ftr_tensor image, const ftr_vit_desc *desc);

/* Sizes of ftr_gpt(). */
typedef enum ftr_gpt_size {
    FTR_GPT2 = 0, /* GPT-2 of 124,439,808 parameters: vocabulary 50257, context 1024, width 768, 12 layers, 12 heads,
                   * dropout 0.1 everywhere */
    FTR_GPT_CHARS /* a small one for characters or bytes: 256, context 64, width 128, 4 layers, 4 heads, no dropout */
} ftr_gpt_size;

/* From ftr_gpt_defaults(); then any field may be changed. */
typedef struct ftr_gpt_desc {
    uint32_t cookie;
    int64_t vocabulary; /* tokens are 0 to vocabulary - 1 */
    int64_t context;    /* longest sequence: rows of the position embedding */
    int64_t width;      /* of the embedding; the heads divide it */
    int32_t layers;     /* 1 or more */
    int32_t heads;      /* 1 or more */
    int64_t mlp_width;  /* of the hidden layer of a block's MLP; 0: 4 times the width; 0 */
    double embedding_dropout, attention_dropout, residual_dropout; /* embd_pdrop, attn_pdrop, resid_pdrop */
    bool untied;        /* a matrix of its own, "lm_head.weight", in place of the token embedding; false */
    bool bare_names;    /* leave "transformer." out of the names, as GPT2Model does; false */
    bool features_only; /* without the logits: the result is [n, t, width]; false */
} ftr_gpt_desc;

/* A size of the table. A `size` that is none gives a description that ftr_gpt() refuses. */
FTR_API ftr_gpt_desc ftr_gpt_defaults(ftr_gpt_size size);

/* GPT-2 (Radford and others: Language Models are Unsupervised Multitask Learners, 2019): tokens [n, t], i32 or i64, to
 * logits [n, t, vocabulary] of the token that follows each; t is at most desc->context. A token outside the vocabulary
 * fails the step with FTR_ERROR_DATA.
 *
 * Names, shapes and first values are those of Hugging Face's GPT2LMHeadModel: transformer.wte.weight,
 * transformer.wpe.weight, transformer.h.0.ln_1, .attn.c_attn, .attn.c_proj, .ln_2, .mlp.c_fc, .mlp.c_proj,
 * transformer.ln_f. The weights of c_attn, c_proj and c_fc are [in, out], as its Conv1D has them, unlike a linear
 * layer's. The embedding of tokens is also the matrix that makes the logits, hence there is no lm_head unless
 * desc->untied is set. Published files (huggingface.co/openai-community/gpt2, model.safetensors) have the names
 * without "transformer.": desc->bare_names is for those. They also hold causal masks, which a graph has no use for:
 * ftr_load_desc.skip takes "h.*.attn.bias". `desc` NULL is FTR_GPT2. */
FTR_API ftr_tensor ftr_gpt(ftr_tensor tokens, const ftr_gpt_desc *desc);

#ifdef __cplusplus
}
#endif

/* ---- src/api/compile.h ---- */

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

/* ---- src/api/data.h ---- */

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Data sources. A source has `count` samples of the same fields (an image and its label, say); fields are matched with a
 * graph's inputs by name. */
#define FTR_MAX_FIELDS 16

/* One field of a source. */
typedef struct ftr_field {
    const char *name; /* of the graph input it feeds; copied */
    ftr_dtype dtype;
    ftr_shape shape; /* of one sample; the graph's input has the batch in front of it */
} ftr_field;

typedef struct ftr_source ftr_source;

/* A source of the caller's making. `read` writes sample `index` (0 <= index < count) into fields[f], each of its field's
 * size; a status other than FTR_OK stops the run and is reported with the index. */
typedef struct ftr_source_desc {
    const char *name; /* for messages; copied */
    int64_t count;
    const ftr_field *fields;
    int32_t field_count;
    void *user;
    ftr_status (*read)(void *user, int64_t index, void *const *fields);
} ftr_source_desc;

/* Makes a source from functions. The caller owns *source. Errors: FTR_ERROR_INVALID_ARGUMENT, FTR_ERROR_NAME (two fields of
 * one name), FTR_ERROR_OUT_OF_MEMORY. */
FTR_API ftr_status ftr_source_create(ftr_context *context, const ftr_source_desc *desc, ftr_source **source);

/* Makes a source from arrays: data[f] holds `count` samples of fields[f] one after another. The arrays are not copied and
 * must outlive the source. The caller owns *source. Errors as ftr_source_create(). */
FTR_API ftr_status ftr_memory_source(ftr_context *context, const char *name, int64_t count, const ftr_field *fields,
                                     const void *const *data, int32_t field_count, ftr_source **source);

/* Frees a source. NULL is allowed. */
FTR_API void ftr_source_destroy(ftr_source *source);

/* Number of samples. */
FTR_API int64_t ftr_source_count(const ftr_source *source);

/* Position `position` (0 <= position < count) of epoch `epoch` in shuffled order: a pure function, a permutation of
 * 0 .. count - 1 for each (seed, epoch). Needs no memory. -1 if position is out of range. Thread safe. */
FTR_API int64_t ftr_shuffled_index(uint64_t seed, uint64_t epoch, int64_t position, int64_t count);

#ifdef __cplusplus
}
#endif

/* ---- src/api/train.h ---- */

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Training loop. */
#define FTR_MAX_METRICS 8

/* A scalar of the graph that is averaged over an epoch, each batch by its number of real samples. */
typedef struct ftr_metric {
    const char *name;
    ftr_tensor value; /* for instance ftr_accuracy(); f32 scalar */
} ftr_metric;

typedef enum ftr_progress {
    FTR_PROGRESS_AUTO = 0, /* a bar if messages go to a terminal, lines otherwise */
    FTR_PROGRESS_BAR,
    FTR_PROGRESS_LINES, /* one line an epoch */
    FTR_PROGRESS_SILENT
} ftr_progress;

typedef enum ftr_last_batch {
    FTR_LAST_BATCH_DROP = 0, /* a last short batch of an epoch is left out */
    FTR_LAST_BATCH_PAD       /* it is padded with zeros and masked; the graph needs ftr_batch_mask() */
} ftr_last_batch;

/* What a callback is told. Values that are not known yet are NaN. */
typedef struct ftr_train_event {
    enum { FTR_EVENT_STEP, FTR_EVENT_EPOCH } kind; /* after a step; after an epoch and its evaluation */
    int64_t epoch;             /* from 0 */
    int64_t step;              /* steps done in the whole run */
    int64_t steps_per_epoch;
    double loss;               /* of this step; or mean of the epoch */
    double eval_loss;          /* after an evaluation */
    int32_t metric_count;
    const char *const *metric_names;
    const double *metrics;      /* of this step; or mean of the epoch */
    const double *eval_metrics; /* after an evaluation */
    double samples_per_second;
    ftr_plan *plan;             /* the training plan: ftr_plan_set_lr() is allowed here */
} ftr_train_event;

/* Returns true to stop the run after this event, without an evaluation of a cut epoch. */
typedef bool (*ftr_train_fn)(void *user, const ftr_train_event *event);

/* From ftr_train_defaults(). */
typedef struct ftr_train_desc {
    uint32_t cookie;
    ftr_tensor loss;
    ftr_optimizer optimizer;
    ftr_source *train; /* its fields feed the inputs of the same names */
    ftr_source *eval;  /* NULL: no evaluation. A last short batch needs ftr_batch_mask(), whatever last_batch says */
    int64_t epochs;    /* 1 */
    int64_t max_steps; /* 0: no limit; an epoch that it cuts short is evaluated, but not counted in result.epochs */
    bool no_shuffle;
    ftr_last_batch last_batch; /* of the training source */
    ftr_metric metrics[FTR_MAX_METRICS];
    int32_t metric_count;
    ftr_progress progress;
    ftr_train_fn on_event; /* may be NULL */
    void *on_event_user;
    struct {
        const char *metric; /* "loss" or a metric's name, of the evaluation (of training if there is none); NULL: off */
        int32_t patience;   /* epochs without improvement before the run stops */
        double min_delta;   /* what counts as an improvement */
        bool maximize;      /* larger is better */
        bool restore_best;  /* put the best epoch's parameters and buffers back at the end */
    } early_stop;
} ftr_train_desc;

/* One epoch, shuffled, progress on. */
FTR_API ftr_train_desc ftr_train_defaults(void);

/* What a run came to. */
typedef struct ftr_train_result {
    int64_t epochs; /* done */
    int64_t steps;
    double loss;      /* mean of the last epoch */
    double eval_loss; /* NaN without an evaluation */
    double metrics[FTR_MAX_METRICS];
    double eval_metrics[FTR_MAX_METRICS];
    int64_t best_epoch; /* of early stopping; -1 without it */
    bool stopped_early; /* by early stopping or by a callback */
    double seconds;
    double samples_per_second; /* of training steps alone */
    ftr_memory memory;         /* of the training plan */
} ftr_train_result;

/* Trains a graph on a source: compiles it, shuffles, feeds, steps, evaluates, reports. `result` may be NULL.
 * The batch size is the leading dimension of the inputs. Errors: all of ftr_compile() and ftr_step(); FTR_ERROR_NAME (an
 * input without a field), FTR_ERROR_SHAPE, FTR_ERROR_DTYPE (a field that does not fit its input), FTR_ERROR_DATA (fewer
 * samples than one batch). Not to be called twice at a time on one context. */
FTR_API ftr_status ftr_fit(ftr_graph *graph, const ftr_train_desc *desc, ftr_train_result *result);

/* Runs `source` once through an evaluation plan: mean loss and metrics, each weighted by real samples. Only loss, eval,
 * metrics and metric_count of `desc` are used; result's eval_loss and eval_metrics are filled. Errors as ftr_fit(). */
FTR_API ftr_status ftr_evaluate(ftr_graph *graph, const ftr_train_desc *desc, ftr_train_result *result);

#ifdef __cplusplus
}
#endif

/* ---- src/api/io.h ---- */

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * safetensors (format: github.com/huggingface/safetensors). A file is checked completely before any of it is used; errors
 * carry the names of the reference implementation. Files hold PyTorch's layout, OIHW for convolution weights. */
typedef struct ftr_safetensors ftr_safetensors;

/* A tensor of a file. `dtype` is FTR_DTYPE_NONE for an element type that fasttrain does not compute with (BF16, say);
 * dtype_name has the file's word. The data lie in the file's memory, in C order, not necessarily aligned. */
typedef struct ftr_safetensors_entry {
    const char *name;
    const char *dtype_name;
    ftr_dtype dtype;
    int32_t rank; /* as in the file; may be more than FTR_MAX_RANK, dim then points to all of them all the same */
    const int64_t *dim;
    const void *data;
    size_t bytes;
} ftr_safetensors_entry;

/* Reads and checks a file. The caller owns *file. Errors: FTR_ERROR_IO, FTR_ERROR_FORMAT (the sentence starts with the path
 * and the reference's error name, such as "InvalidHeaderLength"), FTR_ERROR_OUT_OF_MEMORY. */
FTR_API ftr_status ftr_safetensors_open(ftr_context *context, const char *path, ftr_safetensors **file);

/* As ftr_safetensors_open(), from memory, which is copied. `label` stands for the path in messages. */
FTR_API ftr_status ftr_safetensors_parse(ftr_context *context, const char *label, const void *data, size_t bytes,
                                         ftr_safetensors **file);

/* Frees a file. NULL is allowed. */
FTR_API void ftr_safetensors_close(ftr_safetensors *file);

/* Number of tensors. */
FTR_API int64_t ftr_safetensors_count(const ftr_safetensors *file);

/* Tensor number `index` in the order of names. False if out of range. The pointers live as long as the file. */
FTR_API bool ftr_safetensors_at(const ftr_safetensors *file, int64_t index, ftr_safetensors_entry *entry);

/* The tensor of this name. False if there is none. */
FTR_API bool ftr_safetensors_find(const ftr_safetensors *file, const char *name, ftr_safetensors_entry *entry);

/* The value of a key of __metadata__; NULL if there is none. Owned by the file. */
FTR_API const char *ftr_safetensors_metadata(const ftr_safetensors *file, const char *key);

/* One tensor to be written. */
typedef struct ftr_safetensors_item {
    const char *name;
    ftr_dtype dtype;
    ftr_shape shape;
    const void *data;
} ftr_safetensors_item;

/* Writes a file as the reference does: sorted by alignment, then name; header padded to 8 bytes. metadata is
 * key, value, key, value ... (metadata_count pairs) or NULL. The file appears complete or not at all: it is written beside
 * `path`, flushed and renamed. Errors: FTR_ERROR_IO, FTR_ERROR_NAME (a name twice, or "__metadata__"),
 * FTR_ERROR_OUT_OF_MEMORY. */
FTR_API ftr_status ftr_safetensors_write(ftr_context *context, const char *path, const ftr_safetensors_item *items,
                                         int64_t count, const char *const *metadata, int64_t metadata_count);

/* Writes all parameters and buffers of a graph; a PyTorch module with the same names loads the file with
 * load_state_dict(). Convolution weights become OIHW. Errors as ftr_safetensors_write(). */
FTR_API ftr_status ftr_save_weights(ftr_graph *graph, const char *path);

/* What ftr_load_weights() asks of a file.
 * STRICT: every variable is in the file and every tensor of the file in the graph, as PyTorch's load_state_dict(); but
 * "*.num_batches_tracked", which PyTorch's batch norms carry, may be extra.
 * BY_NAME: variables that the file lacks keep their values, tensors that the graph lacks are ignored; that nothing at
 * all is loaded is an error. */
typedef enum ftr_load_mode { FTR_LOAD_STRICT = 0, FTR_LOAD_BY_NAME } ftr_load_mode;

/* All fields may be 0. Patterns are compared with full names; '*' stands for any characters or none, dots included, '?'
 * for one character. */
typedef struct ftr_load_desc {
    ftr_load_mode mode;
    const char *const *skip; /* patterns of variables that are not read even if the file has them, a replaced head for
                              * instance: "classifier.*". Tensors of such names that the graph lacks are passed over
                              * too. A pattern that fits neither a variable nor a tensor of the file is an error */
    int32_t skip_count;
    const char *file_prefix; /* what stands before each variable's name in the file, "module." for instance; a tensor
                              * without it is one that the graph lacks. NULL: nothing */
} ftr_load_desc;

/* What became of a variable or of a tensor of the file. */
typedef enum ftr_load_outcome {
    FTR_LOAD_LOADED = 0, /* read; of a refused load: fits */
    FTR_LOAD_MISSING,    /* variables that the file lacks */
    FTR_LOAD_UNEXPECTED, /* tensors that the graph lacks, "*.num_batches_tracked" aside */
    FTR_LOAD_MISMATCHED, /* in both, but type, shape or a bool's byte does not fit */
    FTR_LOAD_SKIPPED,    /* passed over because of a pattern of `skip` */
    FTR_LOAD_OUTCOME_COUNT
} ftr_load_outcome;

/* Shapes are those of files: OIHW for convolution weights. */
typedef struct ftr_load_entry {
    const char *name;        /* a variable's full name; of a tensor that the graph lacks, its name in the file */
    const char *found_dtype; /* the file's word, "BF16" for instance; NULL: the file lacks it */
    int32_t found_rank;      /* may be more than FTR_MAX_RANK */
    const int64_t *found_dim;
    ftr_dtype expected_dtype; /* FTR_DTYPE_NONE: the graph lacks it */
    ftr_shape expected_shape;
    ftr_status fault; /* why the load is refused: FTR_ERROR_NAME, FTR_ERROR_DTYPE, FTR_ERROR_SHAPE or FTR_ERROR_DATA;
                       * FTR_OK if not for this one */
} ftr_load_entry;

/* What a load found, by outcome. */
typedef struct ftr_load_report ftr_load_report;

/* Reads parameters and buffers by name; convolution weights come as OIHW. `desc` NULL is strict, with nothing skipped.
 * A variable that is not skipped must have the file's shape and type in every mode, save that F16, BF16, F32 and F64
 * become f32 or f64 as in PyTorch: rounded to the nearest, ties to even, what is too large to infinity. Nothing is
 * changed on an error; the sentence names the first tensor that does not fit and how many more there are. `report` may
 * be NULL; *report is made if the load succeeds or names, types, shapes or values refuse it, otherwise it becomes NULL.
 * It is the caller's, who gives it back with ftr_load_report_destroy() before the context.
 * Errors: FTR_ERROR_INVALID_ARGUMENT, FTR_ERROR_NAME, FTR_ERROR_SHAPE, FTR_ERROR_DTYPE, FTR_ERROR_DATA (a bool that is
 * neither 0 nor 1), and those of ftr_safetensors_open(). */
FTR_API ftr_status ftr_load_weights(ftr_graph *graph, const char *path, const ftr_load_desc *desc,
                                    ftr_load_report **report);

/* Number of entries with this outcome; 0 for a NULL report. */
FTR_API int32_t ftr_load_report_count(const ftr_load_report *report, ftr_load_outcome outcome);

/* Entry number `index` with this outcome: variables in the order of declaration, then tensors that the graph lacks in
 * the order of names. False if out of range. The pointers live as long as the report. */
FTR_API bool ftr_load_report_at(const ftr_load_report *report, ftr_load_outcome outcome, int32_t index,
                                ftr_load_entry *entry);

/* Prints a line with the counts, then a line for each entry that was not loaded. */
FTR_API void ftr_load_report_print(const ftr_load_report *report, ftr_write_fn write, void *user);

/* Frees a report. NULL is allowed. */
FTR_API void ftr_load_report_destroy(ftr_load_report *report);

#ifdef __cplusplus
}
#endif

/* ---- src/ops/ops.def ---- */
/* The ops, one row each. This list is the only place that an op's facts stand in: enumeration, names, registry, printing
 * and the backends' tables are made from it.
 *
 *   D(name, attr, min_in, max_in, out, differentiable, overwritable, amp)   a row with `ftr__grad_<name>`
 *   N(name, attr, min_in, max_in, out, differentiable, overwritable, amp)   a row without a gradient
 *
 * Every row has `ftr__infer_<name>`; a D row without its grad function does not compile.
 * attr            member of ftr_op_attr that the node uses
 * min_in, max_in  number of inputs; FTR_VARIADIC is any number. Inputs past min_in may be missing (null)
 * out             number of outputs
 * differentiable  bit i set: a gradient flows to input i
 * overwritable    bit i set: output 0 may lie in input i's memory, if shape and type agree
 * amp             mixed-precision class: LOW (runs in half precision), F32 (always f32), WIDEST (widest of its inputs),
 *                 ANY (follows its input), NONE (not a floating-point computation)
 */
#define FTR_VARIADIC 0x7fff

#define FTR_OPS(D, N) \
    /* sources: values that exist before a step */ \
    N(input, none, 0, 0, 1, 0x0, 0x0, NONE) \
    N(parameter, none, 0, 0, 1, 0x0, 0x0, NONE) \
    N(buffer, none, 0, 0, 1, 0x0, 0x0, NONE) \
    N(constant, none, 0, 0, 1, 0x0, 0x0, NONE) \
    /* pointwise */ \
    D(add, none, 2, 2, 1, 0x3, 0x3, WIDEST) \
    D(sub, none, 2, 2, 1, 0x3, 0x3, WIDEST) \
    D(mul, none, 2, 2, 1, 0x3, 0x3, WIDEST) \
    D(div, none, 2, 2, 1, 0x3, 0x3, WIDEST) \
    D(pow, none, 2, 2, 1, 0x3, 0x3, F32) \
    D(maximum, none, 2, 2, 1, 0x3, 0x3, WIDEST) \
    N(eq, none, 2, 2, 1, 0x0, 0x0, WIDEST) \
    N(ne, none, 2, 2, 1, 0x0, 0x0, WIDEST) \
    N(lt, none, 2, 2, 1, 0x0, 0x0, WIDEST) \
    N(le, none, 2, 2, 1, 0x0, 0x0, WIDEST) \
    N(gt, none, 2, 2, 1, 0x0, 0x0, WIDEST) \
    N(ge, none, 2, 2, 1, 0x0, 0x0, WIDEST) \
    D(where, none, 3, 3, 1, 0x6, 0x6, WIDEST) \
    D(neg, none, 1, 1, 1, 0x1, 0x1, ANY) \
    D(exp, none, 1, 1, 1, 0x1, 0x1, F32) \
    D(log, none, 1, 1, 1, 0x1, 0x1, F32) \
    D(sqrt, none, 1, 1, 1, 0x1, 0x1, ANY) \
    D(rsqrt, none, 1, 1, 1, 0x1, 0x1, F32) \
    D(tanh, none, 1, 1, 1, 0x1, 0x1, ANY) \
    D(sigmoid, none, 1, 1, 1, 0x1, 0x1, ANY) \
    D(relu, none, 1, 1, 1, 0x1, 0x1, ANY) \
    D(minimum, none, 2, 2, 1, 0x3, 0x3, WIDEST) \
    D(abs, none, 1, 1, 1, 0x1, 0x1, ANY) \
    D(sin, none, 1, 1, 1, 0x1, 0x1, F32) \
    D(cos, none, 1, 1, 1, 0x1, 0x1, F32) \
    D(erf, none, 1, 1, 1, 0x1, 0x1, F32) \
    D(floor, none, 1, 1, 1, 0x1, 0x1, ANY) \
    D(round, none, 1, 1, 1, 0x1, 0x1, ANY) \
    D(sign, none, 1, 1, 1, 0x1, 0x1, ANY) \
    D(clamp, pointwise, 1, 1, 1, 0x1, 0x1, ANY) \
    D(gelu, gelu, 1, 1, 1, 0x1, 0x1, ANY) \
    D(silu, none, 1, 1, 1, 0x1, 0x1, ANY) \
    D(hardswish, none, 1, 1, 1, 0x1, 0x1, ANY) \
    D(hardsigmoid, none, 1, 1, 1, 0x1, 0x1, ANY) \
    D(leaky_relu, pointwise, 1, 1, 1, 0x1, 0x1, ANY) \
    D(elu, pointwise, 1, 1, 1, 0x1, 0x1, ANY) \
    D(softplus, pointwise, 1, 1, 1, 0x1, 0x1, F32) \
    N(clamp_grad, pointwise, 2, 2, 1, 0x0, 0x3, ANY)      /* dy, x or y */ \
    N(gelu_grad, gelu, 2, 2, 1, 0x0, 0x3, ANY)            /* dy, x */ \
    N(silu_grad, none, 2, 2, 1, 0x0, 0x3, ANY)            /* dy, x */ \
    N(hardswish_grad, none, 2, 2, 1, 0x0, 0x3, ANY)       /* dy, x */ \
    N(leaky_relu_grad, pointwise, 2, 2, 1, 0x0, 0x3, ANY) /* dy, x */ \
    N(elu_grad, pointwise, 2, 2, 1, 0x0, 0x3, ANY)        /* dy, x */ \
    N(softplus_grad, pointwise, 2, 2, 1, 0x0, 0x3, F32)   /* dy, x */ \
    N(stop_gradient, none, 1, 1, 1, 0x0, 0x1, ANY) \
    D(cast, cast, 1, 1, 1, 0x1, 0x0, NONE) \
    N(tanh_grad, none, 2, 2, 1, 0x0, 0x3, ANY)    /* dy, y */ \
    N(sigmoid_grad, none, 2, 2, 1, 0x0, 0x3, ANY) /* dy, y */ \
    N(relu_grad, none, 2, 2, 1, 0x0, 0x3, ANY)    /* dy, y */ \
    /* reductions */ \
    D(sum, axes, 1, 1, 1, 0x1, 0x0, F32) \
    D(mean, axes, 1, 1, 1, 0x1, 0x0, F32) \
    D(max, axes, 1, 1, 1, 0x1, 0x0, ANY) \
    N(argmax, axes, 1, 1, 1, 0x0, 0x0, ANY) \
    /* matrix products */ \
    D(matmul, matmul, 2, 2, 1, 0x3, 0x0, LOW) \
    D(linear, linear, 2, 3, 1, 0x7, 0x0, LOW) /* x, weight, bias */ \
    /* convolution */ \
    D(conv2d, conv, 2, 3, 1, 0x7, 0x0, LOW)            /* x, weight, bias */ \
    N(conv2d_grad_input, conv, 2, 2, 1, 0x0, 0x0, LOW)  /* dy, weight */ \
    N(conv2d_grad_weight, conv, 2, 2, 1, 0x0, 0x0, LOW) /* dy, x */ \
    /* normalization: outputs y, batch mean, unbiased batch variance, 1 / sqrt(variance + eps) as used */ \
    D(batch_norm, norm, 5, 7, 4, 0x7, 0x1, ANY) /* x, gamma, beta, running mean, running var, row mask, residual */ \
    N(batch_norm_grad, norm, 5, 7, 3, 0x0, 0x1, ANY) /* dy, x, gamma, mean, 1/std, row mask, y; gives dx, dgamma, dbeta */ \
    /* of rows or groups: x, gamma, beta; y, mean, 1 / std; the gradients have dx, dgamma, dbeta */ \
    D(layer_norm, row_norm, 1, 3, 3, 0x7, 0x1, F32) \
    N(layer_norm_grad, row_norm, 4, 5, 3, 0x0, 0x1, F32) /* dy, x, mean, 1/std, gamma */ \
    D(rms_norm, row_norm, 1, 2, 2, 0x3, 0x1, F32)        /* x, gamma; y, 1 / root of the mean square */ \
    N(rms_norm_grad, row_norm, 3, 4, 2, 0x0, 0x1, F32)   /* dy, x, 1/rms, gamma; dx, dgamma */ \
    D(group_norm, row_norm, 1, 3, 3, 0x7, 0x1, F32) \
    N(group_norm_grad, row_norm, 4, 5, 3, 0x0, 0x1, F32) /* dy, x, mean, 1/std, gamma */ \
    /* pooling */ \
    D(max_pool2d, pool, 1, 1, 2, 0x1, 0x0, ANY) /* y, index (i32: row * width + column in the input plane) */ \
    N(max_pool2d_grad, pool, 2, 2, 1, 0x0, 0x0, ANY) /* dy, index */ \
    D(avg_pool2d, pool, 1, 1, 1, 0x1, 0x0, ANY) \
    N(avg_pool2d_grad, pool, 1, 1, 1, 0x0, 0x0, ANY) /* dy */ \
    /* random */ \
    D(dropout, dropout, 1, 1, 1, 0x1, 0x1, ANY) \
    D(stochastic_depth, dropout, 1, 1, 1, 0x1, 0x1, ANY) \
    N(random_uniform, random, 0, 0, 1, 0x0, 0x0, NONE) \
    N(random_normal, random, 0, 0, 1, 0x0, 0x0, NONE) \
    /* attention: query, key, value, mask; y, log of the sum of e^score of each row [n, heads, tq] */ \
    D(attention, attention, 3, 4, 2, 0xf, 0x0, LOW) \
    /* dy, query, key, value, y, log-sums, mask; gives dquery, dkey, dvalue, dmask, of shape [0] if not wanted */ \
    N(attention_grad, attention, 6, 7, 4, 0x0, 0x0, LOW) \
    D(rotary, rotary, 1, 1, 1, 0x1, 0x1, F32) \
    /* shape */ \
    D(reshape, shape, 1, 1, 1, 0x1, 0x1, ANY) \
    D(expand, shape, 1, 1, 1, 0x1, 0x0, ANY) \
    D(transpose, axes_order, 1, 1, 1, 0x1, 0x0, ANY) \
    D(concat, axis, 1, FTR_VARIADIC, 1, 0xffffffff, 0x0, WIDEST) \
    D(slice, slice, 1, 1, 1, 0x1, 0x0, ANY) \
    N(slice_grad, slice, 1, 1, 1, 0x0, 0x0, ANY) /* dy */ \
    D(pad, pad, 1, 1, 1, 0x1, 0x0, ANY) \
    /* softmax and losses */ \
    D(softmax, axis, 1, 1, 1, 0x1, 0x1, F32) \
    N(softmax_grad, axis, 2, 2, 1, 0x0, 0x1, F32) /* dy, y */ \
    D(log_softmax, axis, 1, 1, 1, 0x1, 0x1, F32) \
    N(log_softmax_grad, axis, 2, 2, 1, 0x0, 0x1, F32) /* dy, y */ \
    /* logits, labels, class weights, row mask; gives loss, log of the sum of exp(logit - the
     * row's largest logit), which stays exact for large logits, sum of the rows' weights */ \
    D(cross_entropy, cross_entropy, 2, 4, 3, 0x1, 0x0, F32) \
    /* dloss, logits, labels, log of the rows' sums, sum of weights, class weights, row mask */ \
    N(cross_entropy_grad, cross_entropy, 5, 7, 1, 0x0, 0x0, F32) \
    /* log-probabilities, labels, class weights, row mask; gives loss, sum of the rows' weights */ \
    D(nll, cross_entropy, 2, 4, 2, 0x1, 0x0, F32) \
    /* dloss, log-probabilities, labels, sum of weights, class weights, row mask */ \
    N(nll_grad, cross_entropy, 4, 6, 1, 0x0, 0x0, F32) \
    /* indices and scans */ \
    D(embedding, none, 2, 2, 1, 0x1, 0x0, ANY) /* weight, indices */ \
    N(embedding_grad, embedding, 2, 2, 1, 0x0, 0x0, F32) /* dy, indices */ \
    D(gather, axis, 2, 2, 1, 0x1, 0x0, ANY) /* x, index */ \
    D(scatter_add, scatter, 2, 3, 1, 0x6, 0x0, F32) /* index, source, x (zeros if missing) */ \
    N(one_hot, one_hot, 1, 1, 1, 0x0, 0x0, NONE) \
    D(topk, topk, 1, 1, 2, 0x1, 0x0, ANY) /* values, i64 indices */ \
    D(cumsum, cumsum, 1, 1, 1, 0x1, 0x1, F32) \
    D(prod, axis, 1, 1, 1, 0x1, 0x0, F32) \
    N(prod_grad, axis, 2, 2, 1, 0x0, 0x0, F32) /* dy, x */ \
    D(logsumexp, axis, 1, 1, 1, 0x1, 0x0, F32) \
    N(logsumexp_grad, axis, 2, 2, 1, 0x0, 0x2, F32) /* dy, x */ \
    /* updates: no outputs; they change states among their inputs in place and run after all other nodes */ \
    N(ema_update, ema, 2, 2, 0, 0x0, 0x0, NONE) /* state, value: state += weight * (value - state) */ \
    N(count_update, none, 1, 1, 0, 0x0, 0x0, NONE) /* i64 scalar: state += 1 */ \
    N(sgd_update, optimizer, 3, FTR_VARIADIC, 0, 0x0, 0x0, NONE)   /* lr, step, then (p, g, momentum) a parameter */ \
    N(adamw_update, optimizer, 3, FTR_VARIADIC, 0, 0x0, 0x0, NONE) /* lr, step, then (p, g, m, v) a parameter */

/* ---- src/api/backend.h ---- */

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

/* Activation that a node applies to its result; set by the fuse pass. */
typedef enum ftr_activation { FTR_ACT_NONE = 0, FTR_ACT_RELU } ftr_activation;

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
    } linear;
    struct {
        int32_t stride[2], padding[4], dilation[2], groups; /* padding: top, bottom, left, right */
        int32_t kernel[2];
        int64_t input[2]; /* height and width of x */
        ftr_activation activation;
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
        double p;
        uint64_t key; /* the Philox stream of the node; a gradient has the key of its forward node */
    } dropout;
    struct {
        float a, b;   /* uniform: low, high; normal: mean, standard deviation */
        uint64_t key; /* the Philox stream of the node */
        ftr_shape shape;
    } random;
    struct {
        double scale, dropout;
        /* The dropout's Philox stream, as of an op dropout. The weight of query i and key j of head h of sample b uses
         * number j % 4 of block ((b * heads + h) * ceil(tk / 4) + j / 4) * tq + i. */
        uint64_t key;
        uint32_t wanted; /* of a gradient: bit i is set if output i is used; the others are of shape [0] */
        bool causal;
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
    } ema;
    struct {
        double weight_decay, momentum, dampening, beta1, beta2, eps;
        bool nesterov;
    } optimizer;
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
    uint64_t seed;   /* of the context */
    uint64_t step;   /* steps done by the plan before this one */
} ftr_kernel_call;

/* An op on a backend. run == NULL: the backend does not have it. */
typedef struct ftr_kernel {
    ftr_status (*run)(const ftr_kernel_call *call);
    ftr_status (*check)(const ftr_kernel_call *call); /* NULL: all; otherwise refuses through ftr_backend_error() */
    size_t (*workspace)(const ftr_kernel_call *call); /* NULL: none. Data pointers are NULL */
} ftr_kernel;

#define FTR_BACKEND_VERSION 1

/* A backend. The table lives as long as every context that uses it. */
typedef struct ftr_backend {
    uint32_t version; /* FTR_BACKEND_VERSION */
    const char *name;
    bool host_memory; /* its memory can be read and written by the host directly */
    ftr_status (*open)(ftr_context *context, int32_t threads, void **state);
    void (*close)(ftr_context *context, void *state);
    void *(*allocate)(ftr_context *context, void *state, size_t size); /* 64-byte aligned or NULL */
    void (*release)(ftr_context *context, void *state, void *memory, size_t size);
    ftr_status (*upload)(ftr_context *context, void *state, void *to, const void *from, size_t size);
    ftr_status (*download)(ftr_context *context, void *state, void *to, const void *from, size_t size);
    const ftr_kernel *kernels; /* FTR_OP_COUNT of them, indexed by ftr_op */
} ftr_backend;

/* The CPU backend. */
FTR_API const ftr_backend *ftr_cpu_backend(void);

/* Records a failure of a node on the call's context as "op 'name': sentence" and returns `status`. Called from the thread
 * that runs the kernel. */
FTR_API ftr_status ftr_backend_error(const ftr_kernel_call *call, ftr_status status, const char *format, ...);

/* Memory through the context's allocator hook, 64-byte aligned; NULL when there is none. */
FTR_API void *ftr_backend_allocate(ftr_context *context, size_t size);

/* Gives memory of ftr_backend_allocate() back. */
FTR_API void ftr_backend_release(ftr_context *context, void *memory, size_t size);

#ifdef __cplusplus
}
#endif

#endif /* FASTTRAIN_H */

#if defined(FASTTRAIN_IMPLEMENTATION) && !defined(FASTTRAIN_IMPLEMENTATION_DONE)
#define FASTTRAIN_IMPLEMENTATION_DONE
#ifdef __cplusplus
#error "fasttrain.h: define FASTTRAIN_IMPLEMENTATION in a .c file; the implementation is C11"
#endif
#if defined(__GLIBC__) && !defined(__USE_MISC)
#error "fasttrain.h: where FASTTRAIN_IMPLEMENTATION is defined, include fasttrain.h before other headers"
#endif
#define FTR_LIB static
/* How this file includes itself, once an instruction set. Where it has another name and the compiler does not know
 * __FILE_NAME__ (gcc before 12), define FASTTRAIN_SELF to that name, in quotes. */
#ifndef FASTTRAIN_SELF
#ifdef __FILE_NAME__
#define FASTTRAIN_SELF __FILE_NAME__
#else
#define FASTTRAIN_SELF "fasttrain.h"
#endif
#endif

/* ---- src/core/lib.h ---- */
/* Private functions that several files share. The single file makes them static; a split build links them. */

#ifndef FTR_LIB
#define FTR_LIB extern
#endif

/* ---- src/core/core.h ---- */
/* What every file of the implementation uses: linkage, context, errors, memory, log. */

#define FTR__PRINTF(text, first) FTR_PRINTF(text, first)

#define FTR__ALIGNMENT 64
#define FTR__MESSAGE_SIZE 512
#define FTR__ARRAY_LENGTH(array) ((int32_t)(sizeof(array) / sizeof((array)[0])))

struct ftr_context {
    ftr_allocator allocator;
    ftr_logger logger;
    ftr_log_level log_level;
    bool log_to_terminal; /* the logger is the default one and stderr is a terminal */
    uint64_t seed;
    int32_t threads;
    const ftr_backend *backend;
    void *backend_state;
    ftr_status status;
    char message[FTR__MESSAGE_SIZE];
};

/* Records a failure on a context (NULL is allowed) and returns `status`. */
FTR_LIB ftr_status ftr__error(ftr_context *context, ftr_status status, const char *format, ...) FTR__PRINTF(3, 4);

/* FTR_ERROR_OUT_OF_MEMORY with "what: N bytes could not be allocated". */
FTR_LIB ftr_status ftr__out_of_memory(ftr_context *context, const char *what, size_t bytes);

FTR_LIB void ftr__log(const ftr_context *context, ftr_log_level level, const char *format, ...) FTR__PRINTF(3, 4);
FTR_LIB void ftr__log_transient(const ftr_context *context, const char *format, ...) FTR__PRINTF(2, 3);

/* Memory through the hook, aligned to FTR__ALIGNMENT; not cleared; NULL when there is none. release allows NULL. */
FTR_LIB void *ftr__allocate(const ftr_context *context, size_t size);
FTR_LIB void ftr__release(const ftr_context *context, void *memory, size_t size);

/* Memory that lives as long as its owner: chunks from the hook, handed out one piece after another, all freed at once. */
typedef struct ftr__arena_chunk ftr__arena_chunk;
typedef struct ftr__arena {
    const ftr_context *context;
    ftr__arena_chunk *chunks; /* newest first */
    size_t bytes;             /* taken from the hook */
} ftr__arena;

FTR_LIB void ftr__arena_init(ftr__arena *arena, const ftr_context *context);
FTR_LIB void ftr__arena_free(ftr__arena *arena);
/* Cleared memory, aligned to 16; NULL when there is none. Size 0 gives a valid pointer. */
FTR_LIB void *ftr__arena_alloc(ftr__arena *arena, size_t size);
FTR_LIB char *ftr__arena_string(ftr__arena *arena, const char *text);
/* Makes room for one more element in an array of `count` with room for `*capacity`; the old array stays in the arena.
 * False when memory is short; the array is then unchanged. */
FTR_LIB bool ftr__arena_grow(ftr__arena *arena, void **array, int32_t count, int32_t *capacity, size_t element_size);

/* "[64, 8, 8, 1]"; the text is cut to what fits. Returns `text`. */
#define FTR__SHAPE_TEXT 128
FTR_LIB const char *ftr__shape_text(const ftr_shape *shape, char text[FTR__SHAPE_TEXT]);

/* The same of any number of dimensions, with "..." for those that do not fit. `size` is 40 or more. */
FTR_LIB const char *ftr__dims_text(int32_t rank, const int64_t *dim, char *text, size_t size);

/* Whether a name fits a pattern: '*' stands for any characters or none, dots included, and '?' for one (of UTF-8). */
FTR_LIB bool ftr__glob_match(const char *pattern, const char *name);

/* printf through a writer, in pieces of at most 1 KiB. */
FTR_LIB void ftr__print(ftr_write_fn write, void *user, const char *format, ...) FTR__PRINTF(3, 4);

/* ---- src/core/platform.h ---- */
/* What differs between operating systems and CPUs. */

typedef enum ftr__simd_level {
    FTR__SIMD_PORTABLE = 0,
    FTR__SIMD_NEON,
    FTR__SIMD_AVX2,
    FTR__SIMD_AVX512
} ftr__simd_level;

/* The best level that this CPU and operating system run. */
FTR_LIB ftr__simd_level ftr__simd_detect(void);

/* ftr__simd_detect(), lowered by FASTTRAIN_SIMD. Errors: an unknown word, a level that is not there. */
FTR_LIB ftr_status ftr__simd_choose(ftr_context *context, ftr__simd_level *level);

FTR_LIB const char *ftr__simd_level_name(ftr__simd_level level);

FTR_LIB bool ftr__stderr_is_terminal(void);

/* ---- src/core/rng.h ---- */
/* Counter-based random numbers: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3,
 * SC 2011). A stream is named by (seed, purpose, stream); a position in it is a 128-bit counter. */

typedef enum ftr__rng_purpose {
    FTR__RNG_INIT = 1, /* stream: hash of the parameter's name */
    FTR__RNG_DROPOUT,  /* dropout and stochastic depth; stream: the node's key */
    FTR__RNG_SHUFFLE,  /* stream: epoch */
    FTR__RNG_TENSOR    /* random tensors; stream: the node's key */
} ftr__rng_purpose;

typedef struct ftr__rng {
    uint32_t key[2];
    uint32_t stream[2]; /* upper half of the counter */
} ftr__rng;

/* The raw generator: 10 rounds. */
FTR_LIB void ftr__philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* A stream. Two different (seed, purpose, stream, substream) give independent numbers. The substream is the step, say. */
FTR_LIB ftr__rng ftr__rng_make(uint64_t seed, ftr__rng_purpose purpose, uint64_t stream, uint64_t substream);

/* The four numbers of block `block`. */
FTR_LIB void ftr__rng_block(const ftr__rng *rng, uint64_t block, uint32_t out[4]);

/* Number `index` of the stream: element index % 4 of block index / 4. */
FTR_LIB uint32_t ftr__rng_at(const ftr__rng *rng, uint64_t index);

/* [0, 1) with 24 bits, exact in f32. */
FTR_LIB double ftr__rng_uniform(uint32_t bits);

/* Dropout's rule, shared by every backend: an element is dropped when its number is below this threshold, p * 2^32.
 * p == 1 drops all. The element with row-major index i uses number i of the stream (seed, FTR__RNG_DROPOUT, key, step);
 * of stochastic depth it is row i of the leading dimension. */
FTR_LIB uint64_t ftr__dropout_threshold(double p);

/* The rule of random tensors, shared by every backend. The element with row-major index i comes from the numbers of block
 * i / 4 of the stream (seed, FTR__RNG_TENSOR, key, step), each made a number u in [0, 1) by ftr__rng_uniform(): uniform is
 * low + (high - low) u of number i % 4, in f32 below high. Normal is mean + std z, z by Box and Muller (1958) from the pair
 * of numbers 0 and 1 or 2 and 3: with r = sqrt(-2 log(1 - u)) of the first and v the second, r cos(2 pi v) for an even i and
 * r sin(2 pi v) for an odd one. */

/* FNV-1a, for names. */
FTR_LIB uint64_t ftr__hash(const char *text);

/* ---- src/core/threads.h ---- */
/* Thread pool. A job is cut into tasks by the caller, from the problem alone; threads take tasks in any order. Results
 * are the same for any number of threads because a task's work depends only on its number. */

typedef struct ftr__pool ftr__pool;

/* `worker` is 0 .. threads - 1 and serves to pick a scratch area; 0 is the calling thread. */
typedef void (*ftr__task_fn)(void *arg, int64_t task, int32_t worker);

/* A pool of `threads` threads, the caller's included. */
FTR_LIB ftr_status ftr__pool_create(ftr_context *context, int32_t threads, ftr__pool **pool);
FTR_LIB void ftr__pool_destroy(ftr_context *context, ftr__pool *pool);
FTR_LIB int32_t ftr__pool_threads(const ftr__pool *pool);

/* Runs task 0 .. tasks - 1 and returns when all are done. Not reentrant. */
FTR_LIB void ftr__pool_run(ftr__pool *pool, int64_t tasks, ftr__task_fn fn, void *arg);

/* Cores that this process may use. */
FTR_LIB int32_t ftr__core_count(void);

/* ---- src/core/sort.h ---- */
/* Sorting without memory of its own: the C library's qsort() may allocate behind the hook and fixes no order. */

/* Negative, 0 or positive, as strcmp(). */
typedef int (*ftr__compare_fn)(const void *a, const void *b);

/* Sorts pointers in place, ascending; n log n steps in the worst case. Not stable: the order must be a total one. */
FTR_LIB void ftr__sort(const void **items, int64_t count, ftr__compare_fn compare);

/* ---- src/core/json.h ---- */
/* JSON (RFC 8259), strict: valid UTF-8 only, no duplicate keys, numbers within the range of a double. */

/* Arrays and objects inside each other, the outermost included; serde_json's limit, which safetensors files meet. */
#define FTR__JSON_MAX_DEPTH 127

typedef enum ftr__json_type {
    FTR__JSON_NULL = 0,
    FTR__JSON_BOOL,
    FTR__JSON_NUMBER,
    FTR__JSON_STRING,
    FTR__JSON_ARRAY,
    FTR__JSON_OBJECT
} ftr__json_type;

/* A value. Texts are UTF-8 and end with a NUL that the length does not count; they may hold others (\u0000). */
typedef struct ftr__json {
    ftr__json_type type;
    const char *key; /* of a member of an object; otherwise NULL */
    size_t key_length;
    const struct ftr__json *next; /* element or member behind this one; NULL for the last */
    union {
        bool boolean;
        struct {
            double value;
            int64_t integer; /* exact, if `is_integer` */
            bool is_integer; /* written without fraction and exponent, in the range of int64_t and not "-0" */
        } number;
        struct {
            const char *text;
            size_t length;
        } string;
        struct {
            const struct ftr__json *first;
            int64_t count;
            const void **by_key; /* of an object: its members (ftr__json), sorted by key */
        } list;
    } as;
} ftr__json;

/* Why a text is not JSON: "byte 7: found '}', expected a value". */
typedef struct ftr__json_error {
    char message[160];
} ftr__json_error;

/* Parses `length` bytes into values that live in the arena. Errors: FTR_ERROR_FORMAT (with `error` filled),
 * FTR_ERROR_OUT_OF_MEMORY; neither is recorded on the context. */
FTR_LIB ftr_status ftr__json_parse(ftr__arena *arena, const char *text, size_t length, const ftr__json **root,
                                   ftr__json_error *error);

/* The member of an object with this key; NULL if there is none. */
FTR_LIB const ftr__json *ftr__json_find(const ftr__json *object, const char *key);

/* "a number", "an object" ... for messages. */
FTR_LIB const char *ftr__json_type_text(const ftr__json *value);

/* Index of the first byte that is not UTF-8 (RFC 3629: no overlong forms, no surrogates); -1 if all is. */
FTR_LIB int64_t ftr__utf8_invalid_at(const char *text, size_t length);

/* Output. With text == NULL only the length is counted, so that the same calls first measure and then write. */
typedef struct ftr__json_writer {
    char *text;
    size_t length;
} ftr__json_writer;

/* Text as it is: punctuation. */
FTR_LIB void ftr__json_put(ftr__json_writer *writer, const char *text);
/* A string with quotes and escapes. `text` is UTF-8. */
FTR_LIB void ftr__json_put_string(ftr__json_writer *writer, const char *text);
FTR_LIB void ftr__json_put_integer(ftr__json_writer *writer, int64_t value);

/* ---- src/core/context.c ---- */

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FTR__MAX_THREADS 1024

static void *ftr__system_allocate(void *user, size_t size, size_t alignment) {
    (void)user;
    if (size > SIZE_MAX - alignment) return NULL;
    return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static void ftr__system_release(void *user, void *memory, size_t size, size_t alignment) {
    (void)user;
    (void)size;
    (void)alignment;
    free(memory);
}

static void ftr__stderr_write(void *user, ftr_log_level level, bool transient, const char *message) {
    (void)user;
    if (transient) {
        fprintf(stderr, "\r\x1b[K%s", message);
        fflush(stderr);
        return;
    }
    const char *prefix = level == FTR_LOG_WARNING ? "warning: " : level == FTR_LOG_ERROR ? "error: " : "";
    fprintf(stderr, "%s%s%s\n", ftr__stderr_is_terminal() ? "\r\x1b[K" : "", prefix, message);
}

const char *ftr_status_name(ftr_status status) {
    switch (status) {
    case FTR_OK: return "FTR_OK";
    case FTR_ERROR_INVALID_ARGUMENT: return "FTR_ERROR_INVALID_ARGUMENT";
    case FTR_ERROR_OUT_OF_MEMORY: return "FTR_ERROR_OUT_OF_MEMORY";
    case FTR_ERROR_INVALID_TENSOR: return "FTR_ERROR_INVALID_TENSOR";
    case FTR_ERROR_RANK: return "FTR_ERROR_RANK";
    case FTR_ERROR_SHAPE: return "FTR_ERROR_SHAPE";
    case FTR_ERROR_DTYPE: return "FTR_ERROR_DTYPE";
    case FTR_ERROR_NAME: return "FTR_ERROR_NAME";
    case FTR_ERROR_NOT_DIFFERENTIABLE: return "FTR_ERROR_NOT_DIFFERENTIABLE";
    case FTR_ERROR_UNSUPPORTED: return "FTR_ERROR_UNSUPPORTED";
    case FTR_ERROR_NOT_FED: return "FTR_ERROR_NOT_FED";
    case FTR_ERROR_DATA: return "FTR_ERROR_DATA";
    case FTR_ERROR_STATE: return "FTR_ERROR_STATE";
    case FTR_ERROR_IO: return "FTR_ERROR_IO";
    case FTR_ERROR_FORMAT: return "FTR_ERROR_FORMAT";
    case FTR_ERROR_THREAD: return "FTR_ERROR_THREAD";
    case FTR_ERROR_CALLBACK: return "FTR_ERROR_CALLBACK";
    }
    return "unknown status";
}

/* Before there is a context its creator can only be told through the logger. */
static ftr_status ftr__context_refuse(ftr_context *draft) {
    ftr__log(draft, FTR_LOG_ERROR, "%s", draft->message);
    return draft->status;
}

static ftr_status ftr__context_fill(const ftr_context_desc *desc, ftr_context *draft) {
    memset(draft, 0, sizeof *draft);
    draft->logger = desc->logger;
    draft->log_level = desc->log_level;
    if (!draft->logger.write) {
        draft->logger.write = ftr__stderr_write;
        draft->log_to_terminal = ftr__stderr_is_terminal();
    }
    draft->allocator = desc->allocator;
    if (!draft->allocator.allocate && !draft->allocator.release) {
        draft->allocator.allocate = ftr__system_allocate;
        draft->allocator.release = ftr__system_release;
    }
    if (!draft->allocator.allocate || !draft->allocator.release)
        return ftr__error(draft, FTR_ERROR_INVALID_ARGUMENT, "context: allocator.%s is NULL, expected both or neither",
                          draft->allocator.allocate ? "release" : "allocate");
    if (desc->threads < 0 || desc->threads > FTR__MAX_THREADS)
        return ftr__error(draft, FTR_ERROR_INVALID_ARGUMENT, "context: threads is %d, expected 0 to %d", desc->threads,
                          FTR__MAX_THREADS);
    if (desc->log_level < FTR_LOG_DEBUG || desc->log_level > FTR_LOG_SILENT)
        return ftr__error(draft, FTR_ERROR_INVALID_ARGUMENT, "context: log_level is %d, expected %d to %d",
                          (int)desc->log_level, (int)FTR_LOG_DEBUG, (int)FTR_LOG_SILENT);
    draft->seed = desc->seed;
    draft->threads = desc->threads ? desc->threads : ftr__core_count();
    draft->backend = desc->backend ? desc->backend : ftr_cpu_backend();
    if (draft->backend->version != FTR_BACKEND_VERSION)
        return ftr__error(draft, FTR_ERROR_INVALID_ARGUMENT, "context: backend has version %u, expected %d",
                          (unsigned)draft->backend->version, FTR_BACKEND_VERSION);
    return FTR_OK;
}

ftr_status ftr_context_create(const ftr_context_desc *desc, ftr_context **context) {
    if (!context) return FTR_ERROR_INVALID_ARGUMENT;
    *context = NULL;
    const ftr_context_desc none = {0};
    ftr_context draft;
    if (ftr__context_fill(desc ? desc : &none, &draft)) return ftr__context_refuse(&draft);
    ftr_context *made = ftr__allocate(&draft, sizeof *made);
    if (!made) {
        ftr__out_of_memory(&draft, "context", sizeof *made);
        return ftr__context_refuse(&draft);
    }
    *made = draft;
    if (made->backend->open(made, made->threads, &made->backend_state)) {
        draft = *made;
        ftr__release(&draft, made, sizeof *made);
        return ftr__context_refuse(&draft);
    }
    *context = made;
    return FTR_OK;
}

void ftr_context_destroy(ftr_context *context) {
    if (!context) return;
    context->backend->close(context, context->backend_state);
    const ftr_context copy = *context;
    ftr__release(&copy, context, sizeof *context);
}

const char *ftr_error_message(const ftr_context *context) { return context ? context->message : ""; }

ftr_status ftr_error_status(const ftr_context *context) { return context ? context->status : FTR_OK; }

void ftr_error_clear(ftr_context *context) {
    if (!context) return;
    context->status = FTR_OK;
    context->message[0] = '\0';
}

int32_t ftr_context_threads(const ftr_context *context) { return context ? context->threads : 0; }

const char *ftr_context_backend_name(const ftr_context *context) { return context ? context->backend->name : ""; }

ftr_status ftr__error(ftr_context *context, ftr_status status, const char *format, ...) {
    if (!context) return status;
    context->status = status;
    va_list args;
    va_start(args, format);
    vsnprintf(context->message, sizeof context->message, format, args);
    va_end(args);
    return status;
}

ftr_status ftr__out_of_memory(ftr_context *context, const char *what, size_t bytes) {
    return ftr__error(context, FTR_ERROR_OUT_OF_MEMORY, "%s: %zu bytes could not be allocated", what, bytes);
}

static bool ftr__log_wanted(const ftr_context *context, ftr_log_level level) {
    return context && level >= context->log_level && context->log_level != FTR_LOG_SILENT;
}

void ftr__log(const ftr_context *context, ftr_log_level level, const char *format, ...) {
    if (!ftr__log_wanted(context, level)) return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    context->logger.write(context->logger.user, level, false, text);
}

void ftr__log_transient(const ftr_context *context, const char *format, ...) {
    if (!ftr__log_wanted(context, FTR_LOG_INFO)) return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    context->logger.write(context->logger.user, FTR_LOG_INFO, true, text);
}

ftr_status ftr_backend_error(const ftr_kernel_call *call, ftr_status status, const char *format, ...) {
    char text[FTR__MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return ftr__error(call->context, status, "%s '%s': %s", ftr_op_name(call->op), call->name, text);
}

/* ---- src/core/arena.c ---- */

#define FTR__CHUNK_SIZE ((size_t)16 * 1024)

struct ftr__arena_chunk {
    ftr__arena_chunk *next;
    size_t size; /* of the whole chunk, this head included */
    size_t used;
};

void *ftr__allocate(const ftr_context *context, size_t size) {
    return context->allocator.allocate(context->allocator.user, size ? size : 1, FTR__ALIGNMENT);
}

void ftr__release(const ftr_context *context, void *memory, size_t size) {
    if (memory) context->allocator.release(context->allocator.user, memory, size ? size : 1, FTR__ALIGNMENT);
}

void *ftr_backend_allocate(ftr_context *context, size_t size) { return ftr__allocate(context, size); }

void ftr_backend_release(ftr_context *context, void *memory, size_t size) { ftr__release(context, memory, size); }

void ftr__arena_init(ftr__arena *arena, const ftr_context *context) {
    arena->context = context;
    arena->chunks = NULL;
    arena->bytes = 0;
}

void ftr__arena_free(ftr__arena *arena) {
    for (ftr__arena_chunk *chunk = arena->chunks; chunk;) {
        ftr__arena_chunk *next = chunk->next;
        ftr__release(arena->context, chunk, chunk->size);
        chunk = next;
    }
    arena->chunks = NULL;
    arena->bytes = 0;
}

static size_t ftr__round_up_16(size_t size) { return (size + 15) / 16 * 16; }

static ftr__arena_chunk *ftr__arena_add_chunk(ftr__arena *arena, size_t need) {
    const size_t head = ftr__round_up_16(sizeof(ftr__arena_chunk));
    size_t size = FTR__CHUNK_SIZE;
    if (need > size - head) size = head + need;
    ftr__arena_chunk *chunk = ftr__allocate(arena->context, size);
    if (!chunk) return NULL;
    chunk->size = size;
    chunk->used = head;
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    arena->bytes += size;
    return chunk;
}

void *ftr__arena_alloc(ftr__arena *arena, size_t size) {
    if (size > SIZE_MAX / 2) return NULL;
    size = ftr__round_up_16(size ? size : 1);
    ftr__arena_chunk *chunk = arena->chunks;
    if (!chunk || chunk->size - chunk->used < size) chunk = ftr__arena_add_chunk(arena, size);
    if (!chunk) return NULL;
    unsigned char *memory = (unsigned char *)chunk + chunk->used;
    chunk->used += size;
    return memset(memory, 0, size);
}

char *ftr__arena_string(ftr__arena *arena, const char *text) {
    const size_t size = strlen(text) + 1;
    char *copy = ftr__arena_alloc(arena, size);
    return copy ? memcpy(copy, text, size) : NULL;
}

bool ftr__arena_grow(ftr__arena *arena, void **array, int32_t count, int32_t *capacity, size_t element_size) {
    if (count < *capacity) return true;
    if (*capacity > INT32_MAX / 2) return false;
    const int32_t wanted = *capacity ? *capacity * 2 : 16;
    void *larger = ftr__arena_alloc(arena, (size_t)wanted * element_size);
    if (!larger) return false;
    if (*capacity > 0) memcpy(larger, *array, (size_t)count * element_size);
    *array = larger;
    *capacity = wanted;
    return true;
}

/* ---- src/core/text.c ---- */

#include <inttypes.h>

const char *ftr__shape_text(const ftr_shape *shape, char text[FTR__SHAPE_TEXT]) {
    size_t used = 0;
    text[used++] = '[';
    for (int32_t i = 0; i < shape->rank && i < FTR_MAX_RANK && used < FTR__SHAPE_TEXT - 2; i++) {
        const int n = snprintf(text + used, FTR__SHAPE_TEXT - 2 - used, "%s%" PRId64, i ? ", " : "", shape->dim[i]);
        used += n > 0 ? (size_t)n : 0;
        if (used > FTR__SHAPE_TEXT - 2) used = FTR__SHAPE_TEXT - 2;
    }
    text[used++] = ']';
    text[used] = '\0';
    return text;
}

const char *ftr__dims_text(int32_t rank, const int64_t *dim, char *text, size_t size) {
    const size_t room = size - 32; /* one more dimension, "..." and "]" always fit behind it */
    size_t used = (size_t)snprintf(text, size, "[");
    int32_t i = 0;
    for (; i < rank && used < room; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, i ? ", " : "", dim[i]);
    snprintf(text + used, size - used, i < rank ? ", ...]" : "]");
    return text;
}

/* The character behind the one that `text` starts with. */
static const char *ftr__next_character(const char *text) {
    for (text++; ((unsigned char)*text & 0xc0) == 0x80;) text++;
    return text;
}

/* After a mismatch the last '*' is made to stand for one character more. Earlier ones need not change: what they stand
 * for is as short as can be. */
bool ftr__glob_match(const char *pattern, const char *name) {
    const char *behind_star = NULL, *rest = NULL; /* rest: what of the name the pattern behind the star has to fit */
    while (*name) {
        if (*pattern == '*') {
            behind_star = ++pattern;
            rest = name;
        } else if (*pattern == '?') {
            pattern++;
            name = ftr__next_character(name);
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (behind_star) {
            pattern = behind_star;
            name = rest = ftr__next_character(rest);
        } else {
            return false;
        }
    }
    while (*pattern == '*') pattern++;
    return *pattern == '\0';
}

void ftr__print(ftr_write_fn write, void *user, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n > 0) write(user, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

void ftr_write_file(void *user, const char *text, size_t length) { fwrite(text, 1, length, (FILE *)user); }

/* ---- src/core/platform.c ---- */

#include <time.h>
#include <unistd.h>

double ftr_time_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

bool ftr__stderr_is_terminal(void) { return isatty(fileno(stderr)) == 1; }

const char *ftr__simd_level_name(ftr__simd_level level) {
    switch (level) {
    case FTR__SIMD_PORTABLE: return "portable";
    case FTR__SIMD_NEON: return "neon";
    case FTR__SIMD_AVX2: return "avx2";
    case FTR__SIMD_AVX512: return "avx512";
    }
    return "unknown";
}

/* With FASTTRAIN_EMULATE_AVX512 the 16-wide code is built from AVX2 instructions, so AVX2 is all that it needs. */
ftr__simd_level ftr__simd_detect(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#ifdef FASTTRAIN_EMULATE_AVX512
    return avx2 ? FTR__SIMD_AVX512 : FTR__SIMD_PORTABLE;
#else
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    return avx2 && avx512 ? FTR__SIMD_AVX512 : avx2 ? FTR__SIMD_AVX2 : FTR__SIMD_PORTABLE;
#endif
#elif defined(__aarch64__)
    return FTR__SIMD_NEON;
#else
    return FTR__SIMD_PORTABLE;
#endif
}

/* AVX-512 includes AVX2, and everything includes portable C. */
static bool ftr__simd_includes(ftr__simd_level best, ftr__simd_level level) {
    return level == best || level == FTR__SIMD_PORTABLE || (best == FTR__SIMD_AVX512 && level == FTR__SIMD_AVX2);
}

ftr_status ftr__simd_choose(ftr_context *context, ftr__simd_level *level) {
    const ftr__simd_level best = ftr__simd_detect();
    *level = best;
    const char *word = getenv("FASTTRAIN_SIMD");
    if (!word || !*word) return FTR_OK;
    for (int i = FTR__SIMD_PORTABLE; i <= FTR__SIMD_AVX512; i++) {
        const ftr__simd_level candidate = (ftr__simd_level)i;
        if (strcmp(word, ftr__simd_level_name(candidate)) != 0) continue;
        if (!ftr__simd_includes(best, candidate))
            return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "FASTTRAIN_SIMD is '%s', but this CPU has '%s'", word,
                              ftr__simd_level_name(best));
        *level = candidate;
        return FTR_OK;
    }
    return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                      "FASTTRAIN_SIMD is '%s', expected portable, neon, avx2 or avx512", word);
}

/* ---- src/core/rng.c ---- */

void ftr__philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        const uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        const uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The key is what tells runs and purposes apart: one Philox block of (seed, purpose). What differs inside a run, stream and
 * substream, is hashed by a second block into the key and the counter's upper half. */
ftr__rng ftr__rng_make(uint64_t seed, ftr__rng_purpose purpose, uint64_t stream, uint64_t substream) {
    const uint32_t seed_key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t purpose_counter[4] = {(uint32_t)purpose, 0, 0, 0x66747221u};
    uint32_t purpose_block[4], block[4];
    ftr__philox(purpose_counter, seed_key, purpose_block);
    const uint32_t stream_counter[4] = {(uint32_t)stream, (uint32_t)(stream >> 32), (uint32_t)substream,
                                        (uint32_t)(substream >> 32)};
    ftr__philox(stream_counter, purpose_block, block);
    return (ftr__rng){.key = {block[0], block[1]}, .stream = {block[2], block[3]}};
}

void ftr__rng_block(const ftr__rng *rng, uint64_t block, uint32_t out[4]) {
    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), rng->stream[0], rng->stream[1]};
    ftr__philox(counter, rng->key, out);
}

uint32_t ftr__rng_at(const ftr__rng *rng, uint64_t index) {
    uint32_t out[4];
    ftr__rng_block(rng, index / 4, out);
    return out[index % 4];
}

double ftr__rng_uniform(uint32_t bits) { return (double)(bits >> 8) * (1.0 / 16777216.0); }

uint64_t ftr__dropout_threshold(double p) { return (uint64_t)(p * 4294967296.0); }

uint64_t ftr__hash(const char *text) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    return hash;
}

/* ---- src/core/threads.c ---- */
/* A job is open while tasks may be taken from it. Workers join an open job under the mutex and count as active until they
 * found no task left; the caller works too, then closes the job and waits for the active ones. A worker that wakes late
 * finds the job closed and never touches it. Between jobs a worker spins for some microseconds, because the nodes of a step
 * follow each other closely, and sleeps then. With more threads than cores nobody spins. */

#include <pthread.h>
#include <stdatomic.h>

#if defined(__linux__)
#include <sched.h>
#endif

#define FTR__SPINS 1500

typedef struct ftr__worker {
    ftr__pool *pool;
    int32_t index;
    pthread_t thread;
} ftr__worker;

struct ftr__pool {
    int32_t threads;
    int32_t started; /* workers that run */
    int32_t spins;
    ftr__worker *workers; /* threads - 1 of them */

    pthread_mutex_t mutex;
    pthread_cond_t job_opened;
    pthread_cond_t all_left;
    int32_t sleeping;
    bool caller_sleeping;
    bool open, stop;
    atomic_int generation; /* counts jobs; written under the mutex */
    atomic_int active;     /* workers in the open job; written under the mutex */

    ftr__task_fn fn;
    void *arg;
    int64_t tasks;
    atomic_llong next;
};

static inline void ftr__pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static void ftr__take_tasks(ftr__pool *pool, int32_t worker) {
    for (;;) {
        const int64_t task = (int64_t)atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (task >= pool->tasks) return;
        pool->fn(pool->arg, task, worker);
    }
}

static void *ftr__worker_main(void *arg) {
    ftr__worker *worker = arg;
    ftr__pool *pool = worker->pool;
    int seen = 0;
    for (;;) {
        for (int32_t i = 0; i < pool->spins && atomic_load_explicit(&pool->generation, memory_order_acquire) == seen; i++)
            ftr__pause();
        pthread_mutex_lock(&pool->mutex);
        while (!pool->stop && atomic_load_explicit(&pool->generation, memory_order_relaxed) == seen) {
            pool->sleeping++;
            pthread_cond_wait(&pool->job_opened, &pool->mutex);
            pool->sleeping--;
        }
        seen = atomic_load_explicit(&pool->generation, memory_order_relaxed);
        const bool stop = pool->stop, join = pool->open && !pool->stop;
        if (join) atomic_fetch_add_explicit(&pool->active, 1, memory_order_relaxed);
        pthread_mutex_unlock(&pool->mutex);
        if (stop) return NULL;
        if (!join) continue;
        ftr__take_tasks(pool, worker->index);
        pthread_mutex_lock(&pool->mutex);
        if (atomic_fetch_sub_explicit(&pool->active, 1, memory_order_release) == 1 && pool->caller_sleeping)
            pthread_cond_signal(&pool->all_left);
        pthread_mutex_unlock(&pool->mutex);
    }
}

static void ftr__pool_open_job(ftr__pool *pool, int64_t tasks, ftr__task_fn fn, void *arg) {
    pthread_mutex_lock(&pool->mutex);
    pool->fn = fn;
    pool->arg = arg;
    pool->tasks = tasks;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->open = true;
    atomic_fetch_add_explicit(&pool->generation, 1, memory_order_release);
    if (pool->sleeping > 0) pthread_cond_broadcast(&pool->job_opened);
    pthread_mutex_unlock(&pool->mutex);
}

static void ftr__pool_close_job(ftr__pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    pool->open = false;
    pthread_mutex_unlock(&pool->mutex);
    for (int32_t i = 0; i < pool->spins && atomic_load_explicit(&pool->active, memory_order_acquire) > 0; i++) ftr__pause();
    pthread_mutex_lock(&pool->mutex);
    pool->caller_sleeping = true;
    while (atomic_load_explicit(&pool->active, memory_order_acquire) > 0) pthread_cond_wait(&pool->all_left, &pool->mutex);
    pool->caller_sleeping = false;
    pthread_mutex_unlock(&pool->mutex);
}

void ftr__pool_run(ftr__pool *pool, int64_t tasks, ftr__task_fn fn, void *arg) {
    if (pool->started == 0 || tasks <= 1) {
        for (int64_t task = 0; task < tasks; task++) fn(arg, task, 0);
        return;
    }
    ftr__pool_open_job(pool, tasks, fn, arg);
    ftr__take_tasks(pool, 0);
    ftr__pool_close_job(pool);
}

int32_t ftr__pool_threads(const ftr__pool *pool) { return pool->threads; }

static ftr_status ftr__pool_start(ftr_context *context, ftr__pool *pool) {
    for (int32_t i = 0; i < pool->threads - 1; i++) {
        ftr__worker *worker = &pool->workers[i];
        worker->pool = pool;
        worker->index = i + 1;
        const int code = pthread_create(&worker->thread, NULL, ftr__worker_main, worker);
        if (code)
            return ftr__error(context, FTR_ERROR_THREAD, "context: thread %d of %d could not be started (error %d)", i + 2,
                              pool->threads, code);
        pool->started++;
    }
    return FTR_OK;
}

ftr_status ftr__pool_create(ftr_context *context, int32_t threads, ftr__pool **pool) {
    *pool = NULL;
    const size_t worker_bytes = (size_t)threads * sizeof(ftr__worker);
    ftr__pool *made = ftr__allocate(context, sizeof *made + worker_bytes);
    if (!made) return ftr__out_of_memory(context, "thread pool", sizeof *made + worker_bytes);
    *made = (ftr__pool){.threads = threads, .workers = (ftr__worker *)(made + 1)};
    made->spins = threads <= ftr__core_count() ? FTR__SPINS : 0;
    atomic_init(&made->generation, 0);
    atomic_init(&made->active, 0);
    atomic_init(&made->next, 0);
    pthread_mutex_init(&made->mutex, NULL);
    pthread_cond_init(&made->job_opened, NULL);
    pthread_cond_init(&made->all_left, NULL);
    const ftr_status status = ftr__pool_start(context, made);
    if (status) {
        ftr__pool_destroy(context, made);
        return status;
    }
    *pool = made;
    return FTR_OK;
}

void ftr__pool_destroy(ftr_context *context, ftr__pool *pool) {
    if (!pool) return;
    pthread_mutex_lock(&pool->mutex);
    pool->stop = true;
    atomic_fetch_add_explicit(&pool->generation, 1, memory_order_release);
    pthread_cond_broadcast(&pool->job_opened);
    pthread_mutex_unlock(&pool->mutex);
    for (int32_t i = 0; i < pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->all_left);
    pthread_cond_destroy(&pool->job_opened);
    pthread_mutex_destroy(&pool->mutex);
    ftr__release(context, pool, sizeof *pool + (size_t)pool->threads * sizeof(ftr__worker));
}

int32_t ftr__core_count(void) {
#if defined(__linux__) && defined(CPU_COUNT)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return (int32_t)CPU_COUNT(&set);
#endif
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online <= 1024 ? (int32_t)online : 1;
}

/* ---- src/core/sort.c ---- */

/* Heap sort (Williams, 1964): restores the heap below `root`. */
static void ftr__sort_sift(const void **items, int64_t root, int64_t count, ftr__compare_fn compare) {
    const void *moved = items[root];
    for (;;) {
        int64_t child = 2 * root + 1;
        if (child >= count) break;
        if (child + 1 < count && compare(items[child], items[child + 1]) < 0) child++;
        if (compare(moved, items[child]) >= 0) break;
        items[root] = items[child];
        root = child;
    }
    items[root] = moved;
}

void ftr__sort(const void **items, int64_t count, ftr__compare_fn compare) {
    for (int64_t root = count / 2 - 1; root >= 0; root--) ftr__sort_sift(items, root, count, compare);
    for (int64_t last = count - 1; last > 0; last--) {
        const void *largest = items[0];
        items[0] = items[last];
        items[last] = largest;
        ftr__sort_sift(items, 0, last, compare);
    }
}

/* ---- src/core/json.c ---- */

#include <math.h>

typedef struct ftr__json_parser {
    ftr__arena *arena;
    const char *text;
    size_t length;
    size_t at;
    int32_t depth;
    ftr__json_error *error;
} ftr__json_parser;

static ftr_status ftr__json_value(ftr__json_parser *parser, ftr__json *value);

/* --------------------------------------------------------------------------------------------------------- UTF-8 -- */

/* Bytes of the character at `text`, 0 if it is none. Ranges of the second byte: RFC 3629, section 4. */
static size_t ftr__utf8_character(const unsigned char *text, size_t length) {
    unsigned char lead = text[0];
    if (lead < 0x80) return 1;
    size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (lead < 0xC2 || lead > 0xF4 || size > length) return 0;
    unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (text[1] < low || text[1] > high) return 0;
    for (size_t i = 2; i < size; i++) {
        if ((text[i] & 0xC0) != 0x80) return 0;
    }
    return size;
}

int64_t ftr__utf8_invalid_at(const char *text, size_t length) {
    const unsigned char *bytes = (const unsigned char *)text;
    size_t at = 0;
    while (at < length) {
        size_t size = ftr__utf8_character(bytes + at, length - at);
        if (size == 0) return (int64_t)at;
        at += size;
    }
    return -1;
}

/* Writes a code point as UTF-8; returns where the text goes on. */
static char *ftr__utf8_put(char *to, uint32_t point) {
    if (point < 0x80) {
        *to++ = (char)point;
        return to;
    }
    if (point < 0x800) {
        *to++ = (char)(0xC0 | (point >> 6));
    } else {
        if (point < 0x10000) {
            *to++ = (char)(0xE0 | (point >> 12));
        } else {
            *to++ = (char)(0xF0 | (point >> 18));
            *to++ = (char)(0x80 | ((point >> 12) & 0x3F));
        }
        *to++ = (char)(0x80 | ((point >> 6) & 0x3F));
    }
    *to++ = (char)(0x80 | (point & 0x3F));
    return to;
}

/* -------------------------------------------------------------------------------------------------------- errors -- */

static ftr_status ftr__json_error_at(ftr__json_parser *parser, const char *format, ...) FTR__PRINTF(2, 3);

static ftr_status ftr__json_error_at(ftr__json_parser *parser, const char *format, ...) {
    char *message = parser->error->message;
    size_t size = sizeof(parser->error->message);
    int used = snprintf(message, size, "byte %zu: ", parser->at);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message + used, size - (size_t)used, format, arguments);
    va_end(arguments);
    return FTR_ERROR_FORMAT;
}

/* Says what stands at the parser's place instead of `expected`. */
static ftr_status ftr__json_unexpected(ftr__json_parser *parser, const char *expected) {
    if (parser->at >= parser->length) return ftr__json_error_at(parser, "found the end, expected %s", expected);
    unsigned char found = (unsigned char)parser->text[parser->at];
    if (found < 0x20 || found > 0x7E)
        return ftr__json_error_at(parser, "found byte 0x%02X, expected %s", found, expected);
    return ftr__json_error_at(parser, "found '%c', expected %s", found, expected);
}

/* -------------------------------------------------------------------------------------------------------- tokens -- */

/* The byte at the parser's place; NUL, which no token starts with, at the end. */
static char ftr__json_peek(const ftr__json_parser *parser) {
    return parser->at < parser->length ? parser->text[parser->at] : '\0';
}

static void ftr__json_skip_space(ftr__json_parser *parser) {
    for (;;) {
        char c = ftr__json_peek(parser);
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return;
        parser->at++;
    }
}

/* Passes over digits; returns how many there are. */
static size_t ftr__json_skip_digits(ftr__json_parser *parser) {
    size_t start = parser->at;
    while (ftr__json_peek(parser) >= '0' && ftr__json_peek(parser) <= '9') parser->at++;
    return parser->at - start;
}

static ftr_status ftr__json_literal(ftr__json_parser *parser, const char *word) {
    for (; *word != '\0'; word++, parser->at++) {
        if (ftr__json_peek(parser) != *word) return ftr__json_unexpected(parser, "null, true or false");
    }
    return FTR_OK;
}

/* The value of digits if it is an exact int64_t. */
static bool ftr__json_integer(const char *digits, size_t count, bool negative, int64_t *integer) {
    uint64_t limit = negative ? (uint64_t)INT64_MAX + 1 : (uint64_t)INT64_MAX;
    uint64_t value = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t digit = (uint64_t)(digits[i] - '0');
        if (value > (limit - digit) / 10) return false;
        value = value * 10 + digit;
    }
    if (negative && value == 0) return false;
    *integer = negative ? -(int64_t)(value - 1) - 1 : (int64_t)value;
    return true;
}

/* The double next to a number: whole digits, fraction digits and an exponent. strtod() gets it without a decimal point,
 * because it takes the point of the locale: 1.25e3 becomes 125e1. */
static ftr_status ftr__json_real(ftr__json_parser *parser, size_t start, size_t whole, size_t fraction,
                                 int64_t exponent, double *value) {
    size_t size = whole + fraction + 32;
    char *text = ftr__arena_alloc(parser->arena, size);
    if (text == NULL) return FTR_ERROR_OUT_OF_MEMORY;
    memcpy(text, parser->text + start, whole);
    if (fraction > 0) memcpy(text + whole, parser->text + start + whole + 1, fraction);
    snprintf(text + whole + fraction, size - whole - fraction, "e%" PRId64, exponent - (int64_t)fraction);
    *value = strtod(text, NULL);
    return FTR_OK;
}

/* After 'e' or 'E'. Far outside the range of a double the exact exponent does not matter. */
static ftr_status ftr__json_exponent(ftr__json_parser *parser, int64_t *exponent) {
    const int64_t limit = INT64_C(1000000000000);
    bool negative = ftr__json_peek(parser) == '-';
    if (negative || ftr__json_peek(parser) == '+') parser->at++;
    size_t start = parser->at;
    size_t count = ftr__json_skip_digits(parser);
    if (count == 0) return ftr__json_unexpected(parser, "a digit");
    int64_t value = 0;
    for (size_t i = 0; i < count && value < limit; i++) value = value * 10 + (parser->text[start + i] - '0');
    *exponent = negative ? -value : value;
    return FTR_OK;
}

static ftr_status ftr__json_number(ftr__json_parser *parser, ftr__json *value) {
    value->type = FTR__JSON_NUMBER;
    size_t number = parser->at;
    bool negative = ftr__json_peek(parser) == '-';
    if (negative) parser->at++;
    size_t start = parser->at, fraction = 0;
    size_t whole = ftr__json_skip_digits(parser);
    if (whole == 0) return ftr__json_unexpected(parser, "a digit");
    if (whole > 1 && parser->text[start] == '0') {
        parser->at = start;
        return ftr__json_error_at(parser, "found a number with a leading zero");
    }
    bool plain = true;
    int64_t exponent = 0;
    if (ftr__json_peek(parser) == '.') {
        plain = false;
        parser->at++;
        fraction = ftr__json_skip_digits(parser);
        if (fraction == 0) return ftr__json_unexpected(parser, "a digit");
    }
    if (ftr__json_peek(parser) == 'e' || ftr__json_peek(parser) == 'E') {
        plain = false;
        parser->at++;
        ftr_status status = ftr__json_exponent(parser, &exponent);
        if (status != FTR_OK) return status;
    }
    if (plain && ftr__json_integer(parser->text + start, whole, negative, &value->as.number.integer)) {
        value->as.number.is_integer = true;
        value->as.number.value = (double)value->as.number.integer;
        return FTR_OK;
    }
    double real = 0;
    ftr_status status = ftr__json_real(parser, start, whole, fraction, exponent, &real);
    if (status != FTR_OK) return status;
    if (!isfinite(real)) {
        parser->at = number;
        return ftr__json_error_at(parser, "found a number beyond the range of a double");
    }
    value->as.number.value = negative ? -real : real;
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------- strings -- */

/* Four hexadecimal digits of \uXXXX. */
static ftr_status ftr__json_hex(ftr__json_parser *parser, uint32_t *unit) {
    *unit = 0;
    for (int32_t i = 0; i < 4; i++, parser->at++) {
        char c = ftr__json_peek(parser);
        uint32_t digit = 0;
        if (c >= '0' && c <= '9') {
            digit = (uint32_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            digit = (uint32_t)(c - 'a') + 10;
        } else if (c >= 'A' && c <= 'F') {
            digit = (uint32_t)(c - 'A') + 10;
        } else {
            return ftr__json_unexpected(parser, "a hexadecimal digit");
        }
        *unit = *unit << 4 | digit;
    }
    return FTR_OK;
}

/* After \u: a code point, which may be two surrogates. */
static ftr_status ftr__json_code_point(ftr__json_parser *parser, uint32_t *point) {
    ftr_status status = ftr__json_hex(parser, point);
    if (status != FTR_OK) return status;
    if (*point < 0xD800 || *point > 0xDFFF) return FTR_OK;
    if (*point > 0xDBFF) return ftr__json_error_at(parser, "found a low surrogate without a high one");
    uint32_t low = 0;
    if (ftr__json_peek(parser) != '\\') return ftr__json_unexpected(parser, "the escape of a low surrogate");
    parser->at++;
    if (ftr__json_peek(parser) != 'u') return ftr__json_unexpected(parser, "the escape of a low surrogate");
    parser->at++;
    status = ftr__json_hex(parser, &low);
    if (status != FTR_OK) return status;
    if (low < 0xDC00 || low > 0xDFFF) return ftr__json_error_at(parser, "found a high surrogate without a low one");
    *point = 0x10000 + ((*point - 0xD800) << 10) + (low - 0xDC00);
    return FTR_OK;
}

/* After a backslash; writes what it stands for. */
static ftr_status ftr__json_escape(ftr__json_parser *parser, char **to) {
    static const char names[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    char c = ftr__json_peek(parser);
    if (c == 'u') {
        parser->at++;
        uint32_t point = 0;
        ftr_status status = ftr__json_code_point(parser, &point);
        if (status == FTR_OK) *to = ftr__utf8_put(*to, point);
        return status;
    }
    const char *name = c == '\0' ? NULL : strchr(names, c);
    if (name == NULL) return ftr__json_unexpected(parser, "an escape");
    *(*to)++ = meanings[name - names];
    parser->at++;
    return FTR_OK;
}

/* Distance to the quote that ends a string, or to the end of the text. No escape is shorter than what it stands for. */
static size_t ftr__json_raw_length(const ftr__json_parser *parser) {
    size_t at = parser->at;
    while (at < parser->length && parser->text[at] != '"') at += parser->text[at] == '\\' ? 2 : 1;
    return (at < parser->length ? at : parser->length) - parser->at;
}

static ftr_status ftr__json_string(ftr__json_parser *parser, const char **text, size_t *length) {
    if (ftr__json_peek(parser) != '"') return ftr__json_unexpected(parser, "a string");
    parser->at++;
    char *start = ftr__arena_alloc(parser->arena, ftr__json_raw_length(parser) + 1);
    if (start == NULL) return FTR_ERROR_OUT_OF_MEMORY;
    char *to = start;
    for (;;) {
        if (parser->at >= parser->length) return ftr__json_unexpected(parser, "'\"'");
        char c = parser->text[parser->at];
        if ((unsigned char)c < 0x20) return ftr__json_unexpected(parser, "an escape for a control character");
        parser->at++;
        if (c == '"') break;
        if (c == '\\') {
            ftr_status status = ftr__json_escape(parser, &to);
            if (status != FTR_OK) return status;
        } else {
            *to++ = c;
        }
    }
    *to = '\0';
    *text = start;
    *length = (size_t)(to - start);
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------- arrays and objects -- */

static int ftr__json_compare_keys(const char *a, size_t a_length, const char *b, size_t b_length) {
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    if (order != 0) return order;
    return a_length < b_length ? -1 : a_length > b_length;
}

static int ftr__json_compare_members(const void *a, const void *b) {
    const ftr__json *left = a;
    const ftr__json *right = b;
    return ftr__json_compare_keys(left->key, left->key_length, right->key, right->key_length);
}

/* Fills an object's by_key and looks for keys that come twice. */
static ftr_status ftr__json_index(ftr__json_parser *parser, ftr__json *object) {
    int64_t count = object->as.list.count;
    const void **by_key = ftr__arena_alloc(parser->arena, (size_t)count * sizeof(*by_key));
    if (by_key == NULL) return FTR_ERROR_OUT_OF_MEMORY;
    int64_t at = 0;
    for (const ftr__json *member = object->as.list.first; member != NULL; member = member->next) by_key[at++] = member;
    ftr__sort(by_key, count, ftr__json_compare_members);
    for (int64_t i = 1; i < count; i++) {
        if (ftr__json_compare_members(by_key[i - 1], by_key[i]) == 0) {
            const ftr__json *member = by_key[i];
            return ftr__json_error_at(parser, "found key '%.80s' twice in the object that ends here", member->key);
        }
    }
    object->as.list.by_key = by_key;
    return FTR_OK;
}

/* "key": of a member. */
static ftr_status ftr__json_key(ftr__json_parser *parser, ftr__json *member) {
    ftr_status status = ftr__json_string(parser, &member->key, &member->key_length);
    if (status != FTR_OK) return status;
    ftr__json_skip_space(parser);
    if (ftr__json_peek(parser) != ':') return ftr__json_unexpected(parser, "':'");
    parser->at++;
    ftr__json_skip_space(parser);
    return FTR_OK;
}

/* Elements or members up to and with the closing bracket; the opening one has been read. */
static ftr_status ftr__json_elements(ftr__json_parser *parser, ftr__json *list) {
    bool is_object = list->type == FTR__JSON_OBJECT;
    char close = is_object ? '}' : ']';
    const ftr__json **end = &list->as.list.first;
    ftr__json_skip_space(parser);
    if (ftr__json_peek(parser) == close) return FTR_OK;
    for (;;) {
        ftr__json *element = ftr__arena_alloc(parser->arena, sizeof(*element));
        if (element == NULL) return FTR_ERROR_OUT_OF_MEMORY;
        ftr_status status = is_object ? ftr__json_key(parser, element) : FTR_OK;
        if (status == FTR_OK) status = ftr__json_value(parser, element);
        if (status != FTR_OK) return status;
        *end = element;
        end = &element->next;
        list->as.list.count++;
        ftr__json_skip_space(parser);
        if (ftr__json_peek(parser) == close) return FTR_OK;
        if (ftr__json_peek(parser) != ',') return ftr__json_unexpected(parser, is_object ? "',' or '}'" : "',' or ']'");
        parser->at++;
        ftr__json_skip_space(parser);
    }
}

static ftr_status ftr__json_list(ftr__json_parser *parser, ftr__json *list) {
    list->type = ftr__json_peek(parser) == '{' ? FTR__JSON_OBJECT : FTR__JSON_ARRAY;
    if (parser->depth == FTR__JSON_MAX_DEPTH) {
        return ftr__json_error_at(parser, "found nesting deeper than %d", FTR__JSON_MAX_DEPTH);
    }
    parser->at++;
    parser->depth++;
    ftr_status status = ftr__json_elements(parser, list);
    if (status == FTR_OK && list->type == FTR__JSON_OBJECT) status = ftr__json_index(parser, list);
    parser->depth--;
    parser->at++;
    return status;
}

static ftr_status ftr__json_value(ftr__json_parser *parser, ftr__json *value) {
    char c = ftr__json_peek(parser);
    switch (c) {
    case '{':
    case '[': return ftr__json_list(parser, value);
    case '"':
        value->type = FTR__JSON_STRING;
        return ftr__json_string(parser, &value->as.string.text, &value->as.string.length);
    case 'n': value->type = FTR__JSON_NULL; return ftr__json_literal(parser, "null");
    case 't':
    case 'f':
        value->type = FTR__JSON_BOOL;
        value->as.boolean = c == 't';
        return ftr__json_literal(parser, value->as.boolean ? "true" : "false");
    default:
        if (c == '-' || (c >= '0' && c <= '9')) return ftr__json_number(parser, value);
        return ftr__json_unexpected(parser, "a value");
    }
}

ftr_status ftr__json_parse(ftr__arena *arena, const char *text, size_t length, const ftr__json **root,
                           ftr__json_error *error) {
    *root = NULL;
    ftr__json_parser parser = {.arena = arena, .text = text, .length = length, .error = error};
    int64_t invalid = ftr__utf8_invalid_at(text, length);
    if (invalid >= 0) {
        parser.at = (size_t)invalid;
        return ftr__json_unexpected(&parser, "UTF-8");
    }
    ftr__json *value = ftr__arena_alloc(arena, sizeof(*value));
    if (value == NULL) return FTR_ERROR_OUT_OF_MEMORY;
    ftr__json_skip_space(&parser);
    ftr_status status = ftr__json_value(&parser, value);
    if (status != FTR_OK) return status;
    ftr__json_skip_space(&parser);
    if (parser.at < length) return ftr__json_unexpected(&parser, "the end");
    *root = value;
    return FTR_OK;
}

const ftr__json *ftr__json_find(const ftr__json *object, const char *key) {
    size_t length = strlen(key);
    int64_t low = 0, high = object->as.list.count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        const ftr__json *member = object->as.list.by_key[middle];
        int order = ftr__json_compare_keys(member->key, member->key_length, key, length);
        if (order == 0) return member;
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

const char *ftr__json_type_text(const ftr__json *value) {
    static const char *const texts[] = {"null", "a bool", "a number", "a string", "an array", "an object"};
    return texts[value->type];
}

/* -------------------------------------------------------------------------------------------------------- output -- */

static void ftr__json_put_bytes(ftr__json_writer *writer, const char *bytes, size_t count) {
    if (writer->text != NULL) memcpy(writer->text + writer->length, bytes, count);
    writer->length += count;
}

void ftr__json_put(ftr__json_writer *writer, const char *text) { ftr__json_put_bytes(writer, text, strlen(text)); }

void ftr__json_put_string(ftr__json_writer *writer, const char *text) {
    ftr__json_put(writer, "\"");
    for (; *text != '\0'; text++) {
        char escape[8];
        switch (*text) {
        case '"': ftr__json_put(writer, "\\\""); break;
        case '\\': ftr__json_put(writer, "\\\\"); break;
        case '\b': ftr__json_put(writer, "\\b"); break;
        case '\f': ftr__json_put(writer, "\\f"); break;
        case '\n': ftr__json_put(writer, "\\n"); break;
        case '\r': ftr__json_put(writer, "\\r"); break;
        case '\t': ftr__json_put(writer, "\\t"); break;
        default:
            if ((unsigned char)*text >= 0x20) {
                ftr__json_put_bytes(writer, text, 1);
            } else {
                snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)*text);
                ftr__json_put(writer, escape);
            }
        }
    }
    ftr__json_put(writer, "\"");
}

void ftr__json_put_integer(ftr__json_writer *writer, int64_t value) {
    char text[24];
    snprintf(text, sizeof(text), "%" PRId64, value);
    ftr__json_put(writer, text);
}

/* ---- src/tensor/tensor.h ---- */
/* What the implementation asks of element types beside the public functions. */

/* Types that can have a gradient. */
FTR_LIB bool ftr__is_float(ftr_dtype dtype);

/* ---- src/tensor/tensor.c ---- */

bool ftr__is_float(ftr_dtype dtype) { return dtype == FTR_F32 || dtype == FTR_F64; }

size_t ftr_dtype_size(ftr_dtype dtype) {
    switch (dtype) {
    case FTR_F32:
    case FTR_I32: return 4;
    case FTR_F64:
    case FTR_I64: return 8;
    case FTR_U8:
    case FTR_BOOL: return 1;
    case FTR_DTYPE_NONE:
    case FTR_DTYPE_COUNT: break;
    }
    return 0;
}

const char *ftr_dtype_name(ftr_dtype dtype) {
    switch (dtype) {
    case FTR_F32: return "f32";
    case FTR_F64: return "f64";
    case FTR_I32: return "i32";
    case FTR_I64: return "i64";
    case FTR_U8: return "u8";
    case FTR_BOOL: return "bool";
    case FTR_DTYPE_NONE:
    case FTR_DTYPE_COUNT: break;
    }
    return "none";
}

ftr_shape ftr_scalar_shape(void) {
    const ftr_shape scalar = {0, {0}};
    return scalar;
}

int64_t ftr_shape_count(const ftr_shape *shape) {
    if (shape->rank < 0 || shape->rank > FTR_MAX_RANK) return -1;
    /* 2^47 elements of 8 bytes are beyond any address space, so byte counts cannot overflow either. */
    const int64_t limit = (int64_t)1 << 47;
    int64_t count = 1;
    bool empty = false;
    for (int32_t i = 0; i < shape->rank; i++) {
        const int64_t size = shape->dim[i];
        if (size < 0) return -1;
        if (size == 0) empty = true;
        else if (count > limit / size) return -1;
        else count *= size;
    }
    return empty ? 0 : count;
}

bool ftr_shape_equal(const ftr_shape *a, const ftr_shape *b) {
    if (a->rank != b->rank) return false;
    for (int32_t i = 0; i < a->rank && i < FTR_MAX_RANK; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

/* ---- src/graph/graph.h ---- */
/* The graph's insides. Nodes and values are arrays; a value's id is its index, 0 is invalid. A node's outputs are
 * consecutive values. Nodes only refer to values of earlier nodes, so the order of creation is a topological one. */

#define FTR__MAX_OUTPUTS 4

typedef struct ftr__value {
    int32_t node;   /* that produces it */
    int32_t output; /* which of the node's outputs */
    ftr_dtype dtype;
    ftr_shape shape;
} ftr__value;

typedef struct ftr__node {
    ftr_op op;
    const char *name; /* full: scope included. Unnamed ops get "<scope.>op_<number>" */
    ftr_op_attr attr;
    int32_t in_count;
    int32_t *in; /* value ids; 0 for a missing optional input */
    int32_t first_out;
    int32_t out_count;
    int32_t variable;    /* parameter, buffer: index; otherwise -1 */
    const void *constant; /* constant: its data, owned by the graph */
    bool dead;           /* removed by a pass */
    const char *fused;   /* what the fuse pass put into it, for printing; NULL */
} ftr__node;

typedef struct ftr__variable {
    int32_t value;
    bool trainable; /* parameter, not buffer */
    bool conv_weight; /* OHWI in memory, OIHW in files; of one dimension OWI and OIW */
    bool frozen;      /* a parameter that optimizers leave alone */
    bool norm_eval;   /* frozen: batch norms that it is the gamma of keep to their running statistics */
    ftr_init init;
    size_t offset; /* in the graph's variable memory, a multiple of FTR__ALIGNMENT */
    size_t bytes;
} ftr__variable;

struct ftr_graph {
    ftr_context *context;
    ftr__arena arena;
    ftr__node *nodes;
    int32_t node_count, node_capacity;
    ftr__value *values; /* values[0] is unused */
    int32_t value_count, value_capacity;
    ftr__variable *variables;
    int32_t variable_count, variable_capacity;
    char scope[256];
    uint8_t scope_ends[128]; /* length of the scope's text before each push */
    int32_t scope_depth;
    int32_t batch_mask; /* value id or 0 */
    ftr_status status;
    char message[FTR__MESSAGE_SIZE];
    unsigned char *variable_memory; /* NULL until the first compile, read or write */
    size_t variable_bytes;          /* parameters first, then buffers */
};

/* Adds a node; infers its outputs; returns the first of them. On any error: records it (if it is the graph's first) and
 * returns an invalid handle. `name` may be NULL; it is put behind the scope. in[i] may be null where the op allows. A node
 * without outputs (an update) returns an invalid handle without an error. */
FTR_LIB ftr_tensor ftr__emit(ftr_graph *graph, ftr_op op, const char *name, const ftr_op_attr *attr, const ftr_tensor *in,
                             int32_t in_count);

/* Adds an input, parameter, buffer or constant (its name may be NULL): checks name, type and shape. */
FTR_LIB ftr_tensor ftr__add_source(ftr_graph *graph, ftr_op op, const char *name, ftr_dtype dtype, ftr_shape shape);

/* Output `index` of the node that produced `first`. */
FTR_LIB ftr_tensor ftr__output(ftr_tensor first, int32_t index);

/* The graph that valid handles among these belong to; NULL, with the error recorded, if one of the first `required` is
 * null or two graphs are mixed. For builders that look at shapes before they emit. */
FTR_LIB ftr_graph *ftr__common_graph(const char *what, const ftr_tensor *in, int32_t count, int32_t required);

/* Records a builder's failure as "what 'name': sentence" (name NULL: "what: sentence"); the first one sticks. Returns an
 * invalid handle. */
FTR_LIB ftr_tensor ftr__builder_error(ftr_graph *graph, ftr_status status, const char *what, const char *name,
                                      const char *format, ...) FTR__PRINTF(5, 6);

FTR_LIB const ftr__value *ftr__value_of(ftr_tensor tensor); /* NULL for an invalid handle */
FTR_LIB const ftr__node *ftr__producer(ftr_tensor tensor);  /* NULL for an invalid handle */

/* Allocates and initializes the variables' memory if that has not happened. */
FTR_LIB ftr_status ftr__graph_materialize(ftr_graph *graph);

/* A copy for a plan to work on: same ids; its own arena; no variable memory of its own. */
FTR_LIB ftr_graph *ftr__graph_clone(const ftr_graph *graph);

/* Makes every use of value `from` a use of `to`. */
FTR_LIB void ftr__graph_replace(ftr_graph *graph, int32_t from, int32_t to);

/* ---- src/graph/op.h ---- */
/* What a graph asks of an op: its facts, its shape inference and its gradient. ops/ answers. */

#define FTR__INFER_INPUTS 16

/* Shape inference: reads op, name, attr (which it may complete) and inputs; fills dtype and shape of each output. */
typedef struct ftr__infer {
    ftr_graph *graph;
    ftr__node *node;
    const ftr__value *in[FTR__INFER_INPUTS]; /* NULL where missing; of an update's inputs only the first ones */
    int32_t in_count;
    ftr_dtype out_dtype[FTR__MAX_OUTPUTS];
    ftr_shape out_shape[FTR__MAX_OUTPUTS];
} ftr__infer;

/* Gradient: emits nodes that turn the outputs' gradients into the inputs'. `node` is a copy, so emitting is safe.
 * wanted[i] says whether input i's gradient is used; dout[i] is null where no gradient arrives. Leave din[i] null for 0. */
typedef struct ftr__grad {
    ftr_graph *graph;
    const ftr__node *node;
    const ftr_tensor *in;
    const ftr_tensor *out;
    const ftr_tensor *dout;
    const bool *wanted;
    ftr_tensor *din;
} ftr__grad;

typedef enum ftr__amp_class {
    FTR__AMP_NONE = 0,
    FTR__AMP_LOW,
    FTR__AMP_F32,
    FTR__AMP_WIDEST,
    FTR__AMP_ANY
} ftr__amp_class;

typedef enum ftr__attr_kind {
    FTR__ATTR_none,
    FTR__ATTR_cast,
    FTR__ATTR_pointwise,
    FTR__ATTR_gelu,
    FTR__ATTR_axes,
    FTR__ATTR_matmul,
    FTR__ATTR_linear,
    FTR__ATTR_conv,
    FTR__ATTR_norm,
    FTR__ATTR_row_norm,
    FTR__ATTR_pool,
    FTR__ATTR_dropout,
    FTR__ATTR_random,
    FTR__ATTR_attention,
    FTR__ATTR_rotary,
    FTR__ATTR_shape,
    FTR__ATTR_axes_order,
    FTR__ATTR_axis,
    FTR__ATTR_slice,
    FTR__ATTR_pad,
    FTR__ATTR_cross_entropy,
    FTR__ATTR_embedding,
    FTR__ATTR_scatter,
    FTR__ATTR_one_hot,
    FTR__ATTR_topk,
    FTR__ATTR_cumsum,
    FTR__ATTR_ema,
    FTR__ATTR_optimizer
} ftr__attr_kind;

typedef struct ftr__op_info {
    const char *name;
    ftr__attr_kind attr;
    int32_t min_in, max_in, out_count;
    uint32_t differentiable, overwritable;
    ftr__amp_class amp;
    ftr_status (*infer)(ftr__infer *);
    void (*grad)(ftr__grad *); /* NULL: not differentiable */
} ftr__op_info;

FTR_LIB const ftr__op_info *ftr__op_info_of(ftr_op op);

/* ---- src/graph/graph.c ---- */

static const ftr_tensor ftr__null_tensor = {NULL, 0};

ftr_graph *ftr_graph_create(ftr_context *context) {
    if (!context) return NULL;
    ftr_graph *graph = ftr__allocate(context, sizeof *graph);
    if (!graph) {
        ftr__out_of_memory(context, "graph", sizeof *graph);
        return NULL;
    }
    memset(graph, 0, sizeof *graph);
    graph->context = context;
    graph->value_count = 1; /* value 0 is the invalid one; its slot is made with the first real value */
    ftr__arena_init(&graph->arena, context);
    return graph;
}

void ftr_graph_destroy(ftr_graph *graph) {
    if (!graph) return;
    ftr_context *context = graph->context;
    if (graph->variable_memory)
        context->backend->release(context, context->backend_state, graph->variable_memory, graph->variable_bytes);
    ftr__arena_free(&graph->arena);
    ftr__release(context, graph, sizeof *graph);
}

ftr_status ftr_graph_status(const ftr_graph *graph) { return graph ? graph->status : FTR_ERROR_INVALID_ARGUMENT; }

const char *ftr_graph_error(const ftr_graph *graph) { return graph ? graph->message : ""; }

bool ftr_is_valid(ftr_tensor tensor) {
    return tensor.graph && tensor.id > 0 && tensor.id < tensor.graph->value_count;
}

const ftr__value *ftr__value_of(ftr_tensor tensor) {
    return ftr_is_valid(tensor) ? &tensor.graph->values[tensor.id] : NULL;
}

const ftr__node *ftr__producer(ftr_tensor tensor) {
    const ftr__value *value = ftr__value_of(tensor);
    return value ? &tensor.graph->nodes[value->node] : NULL;
}

ftr_shape ftr_shape_of(ftr_tensor tensor) {
    const ftr__value *value = ftr__value_of(tensor);
    return value ? value->shape : ftr_scalar_shape();
}

ftr_dtype ftr_dtype_of(ftr_tensor tensor) {
    const ftr__value *value = ftr__value_of(tensor);
    return value ? value->dtype : FTR_DTYPE_NONE;
}

const char *ftr_name_of(ftr_tensor tensor) {
    const ftr__node *node = ftr__producer(tensor);
    return node ? node->name : "";
}

ftr_tensor ftr__builder_error(ftr_graph *graph, ftr_status status, const char *what, const char *name, const char *format,
                              ...) {
    if (!graph || graph->status) return ftr__null_tensor;
    char text[FTR__MESSAGE_SIZE / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    graph->status = status;
    if (name) snprintf(graph->message, sizeof graph->message, "%.100s '%.100s': %s", what, name, text);
    else snprintf(graph->message, sizeof graph->message, "%.100s: %s", what, text);
    ftr__error(graph->context, status, "%s", graph->message);
    return ftr__null_tensor;
}

ftr_tensor ftr_graph_fail(ftr_graph *graph, ftr_status status, const char *what, const char *name, const char *format,
                          ...) {
    if (!graph || graph->status) return ftr__null_tensor;
    char sentence[FTR__MESSAGE_SIZE], full[FTR__MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    const bool named = name && *name, scoped = graph->scope[0] != '\0';
    snprintf(full, sizeof full, "%s%s%.200s", graph->scope, named && scoped ? "." : "", named ? name : "");
    return ftr__builder_error(graph, status == FTR_OK ? FTR_ERROR_INVALID_ARGUMENT : status,
                              what && *what ? what : "graph", *full ? full : NULL, "%s", sentence);
}

static ftr_tensor ftr__graph_out_of_memory(ftr_graph *graph) {
    return ftr__builder_error(graph, FTR_ERROR_OUT_OF_MEMORY, "graph", NULL, "a node could not be allocated");
}

ftr_graph *ftr__common_graph(const char *what, const ftr_tensor *in, int32_t count, int32_t required) {
    ftr_graph *graph = NULL;
    for (int32_t i = 0; i < count && !graph; i++)
        if (ftr_is_valid(in[i])) graph = in[i].graph;
    if (!graph || graph->status) return NULL;
    for (int32_t i = 0; i < count; i++) {
        const bool valid = ftr_is_valid(in[i]);
        if (!valid && (i < required || in[i].graph))
            ftr__builder_error(graph, FTR_ERROR_INVALID_TENSOR, what, NULL, "input %d is a null tensor", i);
        if (valid && in[i].graph != graph)
            ftr__builder_error(graph, FTR_ERROR_INVALID_TENSOR, what, NULL, "input %d belongs to another graph", i);
    }
    return graph->status ? NULL : graph;
}

/* --------------------------------------------------------------------------------------------------------- names -- */

void ftr_scope_push(ftr_graph *graph, const char *name) {
    if (!graph || graph->status) return;
    if (!name || !*name) {
        ftr__builder_error(graph, FTR_ERROR_NAME, "scope", NULL, "the name is empty");
        return;
    }
    const size_t used = strlen(graph->scope), size = strlen(name);
    if (used + size + 2 > sizeof graph->scope) {
        ftr__builder_error(graph, FTR_ERROR_NAME, "scope", name, "nested names are longer than %zu characters",
                           sizeof graph->scope - 1);
        return;
    }
    if (used) graph->scope[used] = '.';
    memcpy(graph->scope + used + (used ? 1 : 0), name, size + 1);
    graph->scope_ends[graph->scope_depth++] = (uint8_t)used;
}

void ftr_scope_pop(ftr_graph *graph) {
    if (!graph || graph->status) return;
    if (graph->scope_depth == 0) {
        ftr__builder_error(graph, FTR_ERROR_STATE, "scope", NULL, "there is none to leave");
        return;
    }
    graph->scope[graph->scope_ends[--graph->scope_depth]] = '\0';
}

static char *ftr__full_name(ftr_graph *graph, const char *name) {
    const size_t scope = strlen(graph->scope), size = strlen(name);
    char *full = ftr__arena_alloc(&graph->arena, scope + size + 2);
    if (!full) return NULL;
    if (scope) {
        memcpy(full, graph->scope, scope);
        full[scope] = '.';
    }
    memcpy(full + scope + (scope ? 1 : 0), name, size + 1);
    return full;
}

static char *ftr__node_name(ftr_graph *graph, ftr_op op, const char *name) {
    if (name) return ftr__full_name(graph, name);
    char text[64];
    snprintf(text, sizeof text, "%s_%d", ftr_op_name(op), graph->node_count);
    return ftr__full_name(graph, text);
}

/* --------------------------------------------------------------------------------------------------------- nodes -- */

/* Appends a node with room for its inputs. NULL when memory is short. */
static ftr__node *ftr__append_node(ftr_graph *graph, ftr_op op, const char *name, int32_t in_count) {
    if (!ftr__arena_grow(&graph->arena, (void **)&graph->nodes, graph->node_count, &graph->node_capacity,
                         sizeof *graph->nodes))
        return NULL;
    int32_t *in = ftr__arena_alloc(&graph->arena, (size_t)in_count * sizeof *in);
    char *full = ftr__node_name(graph, op, name);
    if (!in || !full) return NULL;
    ftr__node *node = &graph->nodes[graph->node_count];
    memset(node, 0, sizeof *node);
    node->op = op;
    node->name = full;
    node->in = in;
    node->in_count = in_count;
    node->variable = -1;
    return node;
}

/* Makes the appended node part of the graph, with its outputs. */
static ftr_tensor ftr__commit_node(ftr_graph *graph, int32_t out_count, const ftr_dtype *dtype, const ftr_shape *shape) {
    for (int32_t i = 0; i < out_count; i++)
        if (!ftr__arena_grow(&graph->arena, (void **)&graph->values, graph->value_count + i, &graph->value_capacity,
                             sizeof *graph->values))
            return ftr__graph_out_of_memory(graph);
    ftr__node *node = &graph->nodes[graph->node_count];
    node->first_out = graph->value_count;
    node->out_count = out_count;
    for (int32_t i = 0; i < out_count; i++)
        graph->values[graph->value_count++] =
            (ftr__value){.node = graph->node_count, .output = i, .dtype = dtype[i], .shape = shape[i]};
    graph->node_count++;
    return out_count ? (ftr_tensor){graph, node->first_out} : ftr__null_tensor;
}

static bool ftr__inputs_are_valid(ftr_graph *graph, const ftr__op_info *info, const char *name, const ftr_tensor *in,
                                  int32_t in_count) {
    if (in_count < info->min_in || in_count > info->max_in) {
        ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, info->name, name, "%d inputs, expected %d to %d", in_count,
                           info->min_in, info->max_in);
        return false;
    }
    for (int32_t i = 0; i < in_count; i++) {
        const bool missing = !in[i].graph && in[i].id == 0;
        if (missing && i >= info->min_in) continue;
        if (!ftr_is_valid(in[i])) {
            ftr__builder_error(graph, FTR_ERROR_INVALID_TENSOR, info->name, name, "input %d is a null tensor", i);
            return false;
        }
        if (in[i].graph != graph) {
            ftr__builder_error(graph, FTR_ERROR_INVALID_TENSOR, info->name, name, "input %d belongs to another graph", i);
            return false;
        }
    }
    return true;
}

ftr_tensor ftr__emit(ftr_graph *graph, ftr_op op, const char *name, const ftr_op_attr *attr, const ftr_tensor *in,
                     int32_t in_count) {
    for (int32_t i = 0; i < in_count && !graph; i++)
        if (ftr_is_valid(in[i])) graph = in[i].graph;
    if (!graph || graph->status) return ftr__null_tensor;
    const ftr__op_info *info = ftr__op_info_of(op);
    if (!ftr__inputs_are_valid(graph, info, name, in, in_count)) return ftr__null_tensor;
    ftr__node *node = ftr__append_node(graph, op, name, in_count);
    if (!node) return ftr__graph_out_of_memory(graph);
    if (attr) node->attr = *attr;
    ftr__infer infer = {.graph = graph, .node = node, .in_count = in_count};
    for (int32_t i = 0; i < in_count; i++) {
        node->in[i] = in[i].id;
        if (i < FTR__INFER_INPUTS) infer.in[i] = in[i].id ? &graph->values[in[i].id] : NULL;
    }
    const ftr_status status = info->infer(&infer);
    if (status) {
        ftr__builder_error(graph, status, info->name, node->name, "shapes could not be inferred");
        return ftr__null_tensor;
    }
    for (int32_t i = 0; i < info->out_count; i++)
        if (ftr_shape_count(&infer.out_shape[i]) < 0) {
            char text[FTR__SHAPE_TEXT];
            return ftr__builder_error(graph, FTR_ERROR_SHAPE, info->name, node->name, "result %s has too many elements",
                                      ftr__shape_text(&infer.out_shape[i], text));
        }
    return ftr__commit_node(graph, info->out_count, infer.out_dtype, infer.out_shape);
}

ftr_tensor ftr__output(ftr_tensor first, int32_t index) {
    if (!ftr_is_valid(first)) return ftr__null_tensor;
    const ftr__node *node = ftr__producer(first);
    return index < node->out_count ? (ftr_tensor){first.graph, node->first_out + index} : ftr__null_tensor;
}

/* ------------------------------------------------------------------------------------------------------- sources -- */

static bool ftr__source_is_valid(ftr_graph *graph, ftr_op op, const char *name, ftr_dtype dtype, const ftr_shape *shape) {
    if (!graph || graph->status) return false;
    const char *what = ftr_op_name(op);
    if (op != FTR_OP_constant && (!name || !*name)) {
        ftr__builder_error(graph, FTR_ERROR_NAME, what, NULL, "the name is empty");
    } else if (dtype <= FTR_DTYPE_NONE || dtype >= FTR_DTYPE_COUNT) {
        ftr__builder_error(graph, FTR_ERROR_DTYPE, what, name, "dtype is %d, expected one of ftr_dtype", (int)dtype);
    } else if (shape->rank < 0 || shape->rank > FTR_MAX_RANK) {
        ftr__builder_error(graph, FTR_ERROR_RANK, what, name, "rank is %d, expected 0 to %d", shape->rank, FTR_MAX_RANK);
    } else if (ftr_shape_count(shape) < 0) {
        char text[FTR__SHAPE_TEXT];
        ftr__builder_error(graph, FTR_ERROR_SHAPE, what, name, "shape %s has a negative or too large size",
                           ftr__shape_text(shape, text));
    }
    return !graph->status;
}

ftr_tensor ftr__add_source(ftr_graph *graph, ftr_op op, const char *name, ftr_dtype dtype, ftr_shape shape) {
    if (!ftr__source_is_valid(graph, op, name, dtype, &shape)) return ftr__null_tensor;
    if (!ftr__append_node(graph, op, name, 0)) return ftr__graph_out_of_memory(graph);
    for (int32_t i = shape.rank; i < FTR_MAX_RANK; i++) shape.dim[i] = 0;
    return ftr__commit_node(graph, 1, &dtype, &shape);
}

ftr_tensor ftr_input(ftr_graph *graph, const char *name, ftr_dtype dtype, ftr_shape shape) {
    const ftr_tensor input = ftr__add_source(graph, FTR_OP_input, name, dtype, shape);
    if (!ftr_is_valid(input)) return input;
    const char *full = ftr_name_of(input);
    for (int32_t i = 0; i < graph->node_count - 1; i++)
        if (graph->nodes[i].op == FTR_OP_input && strcmp(graph->nodes[i].name, full) == 0)
            return ftr__builder_error(graph, FTR_ERROR_NAME, "input", full, "the name is used by another input");
    return input;
}

ftr_tensor ftr_batch_mask(ftr_graph *graph, int64_t batch) {
    if (!graph || graph->status) return ftr__null_tensor;
    if (graph->batch_mask)
        return ftr__builder_error(graph, FTR_ERROR_STATE, "batch_mask", NULL, "the graph has one already");
    if (batch < 1)
        return ftr__builder_error(graph, FTR_ERROR_SHAPE, "batch_mask", NULL, "batch is %lld, expected 1 or more",
                                  (long long)batch);
    const char scope = graph->scope[0];
    graph->scope[0] = '\0'; /* its name is the same wherever it is declared */
    const ftr_tensor mask = ftr_input(graph, "batch_mask", FTR_F32, FTR_SHAPE(batch));
    graph->scope[0] = scope;
    graph->batch_mask = mask.id;
    return mask;
}

ftr_tensor ftr_constant(ftr_graph *graph, ftr_dtype dtype, ftr_shape shape, const void *data) {
    if (!graph || graph->status) return ftr__null_tensor;
    const int64_t count = ftr_shape_count(&shape);
    const size_t bytes = count > 0 ? (size_t)count * ftr_dtype_size(dtype) : 0;
    if (!data && bytes)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "constant", NULL, "data is NULL, expected %zu bytes",
                                  bytes);
    void *copy = ftr__arena_alloc(&graph->arena, bytes);
    if (!copy) return ftr__graph_out_of_memory(graph);
    if (bytes) memcpy(copy, data, bytes);
    const ftr_tensor constant = ftr__add_source(graph, FTR_OP_constant, NULL, dtype, shape);
    if (ftr_is_valid(constant)) graph->nodes[graph->node_count - 1].constant = copy;
    return constant;
}

ftr_tensor ftr_scalar(ftr_graph *graph, ftr_dtype dtype, double value) {
    const union {
        float f32;
        double f64;
        int32_t i32;
        int64_t i64;
        uint8_t u8;
    } data[] = {{.f32 = (float)value}, {.f64 = value}, {.i32 = (int32_t)value}, {.i64 = (int64_t)value},
                {.u8 = (uint8_t)value}, {.u8 = value != 0.0}};
    const int32_t kind = (int32_t)dtype - (int32_t)FTR_F32;
    const bool known = kind >= 0 && kind < FTR__ARRAY_LENGTH(data);
    return ftr_constant(graph, dtype, ftr_scalar_shape(), known ? &data[kind] : NULL);
}

/* --------------------------------------------------------------------------------------------------------- edits -- */

ftr_graph *ftr__graph_clone(const ftr_graph *graph) {
    ftr_graph *clone = ftr__allocate(graph->context, sizeof *clone);
    if (!clone) return NULL;
    *clone = *graph;
    ftr__arena_init(&clone->arena, graph->context);
    clone->scope[0] = '\0';
    clone->scope_depth = 0;
    clone->variable_memory = NULL;
    clone->variable_bytes = 0;
    clone->nodes = ftr__arena_alloc(&clone->arena, (size_t)graph->node_capacity * sizeof *graph->nodes);
    clone->values = ftr__arena_alloc(&clone->arena, (size_t)graph->value_capacity * sizeof *graph->values);
    clone->variables = ftr__arena_alloc(&clone->arena, (size_t)graph->variable_capacity * sizeof *graph->variables);
    bool complete = clone->nodes && clone->values && clone->variables;
    if (complete && graph->node_count) {
        memcpy(clone->nodes, graph->nodes, (size_t)graph->node_count * sizeof *graph->nodes);
        memcpy(clone->values, graph->values, (size_t)graph->value_count * sizeof *graph->values);
        if (graph->variable_count)
            memcpy(clone->variables, graph->variables, (size_t)graph->variable_count * sizeof *graph->variables);
    }
    for (int32_t i = 0; complete && i < graph->node_count; i++) {
        ftr__node *node = &clone->nodes[i];
        const size_t bytes = (size_t)node->in_count * sizeof *node->in;
        int32_t *in = ftr__arena_alloc(&clone->arena, bytes);
        complete = in != NULL;
        if (in && bytes) memcpy(in, node->in, bytes);
        node->in = in;
    }
    if (complete) return clone;
    ftr_graph_destroy(clone);
    return NULL;
}

void ftr__graph_replace(ftr_graph *graph, int32_t from, int32_t to) {
    for (int32_t i = 0; i < graph->node_count; i++)
        for (int32_t k = 0; k < graph->nodes[i].in_count; k++)
            if (graph->nodes[i].in[k] == from) graph->nodes[i].in[k] = to;
}

/* ---- src/graph/variable.c ---- */
/* Parameters and buffers: one flat memory, owned by the graph and shared by its plans. Parameters come first, in the order
 * of declaration, so that an optimizer can run over them as one array. */

static const double ftr__pi = 3.14159265358979323846;

static bool ftr__variable_is_valid(ftr_graph *graph, const char *what, const char *name, ftr_dtype dtype,
                                   const ftr_init *init, bool trainable) {
    if (graph->variable_memory) {
        ftr__builder_error(graph, FTR_ERROR_STATE, what, name,
                           "declared after the graph was compiled, or a variable was read or written");
    } else if (trainable && !ftr__is_float(dtype)) {
        ftr__builder_error(graph, FTR_ERROR_DTYPE, what, name, "dtype is %s, expected f32 or f64", ftr_dtype_name(dtype));
    } else if (init->kind < FTR_INIT_DEFAULT || init->kind > FTR_INIT_TRUNCATED_NORMAL) {
        ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, name, "init.kind is %d, expected one of ftr_init_kind",
                           (int)init->kind);
    } else if (!isfinite(init->a) || !isfinite(init->b)) {
        ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, name, "init.a and init.b must be finite");
    } else if (!ftr__is_float(dtype) && init->kind > FTR_INIT_CONSTANT) {
        ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, name, "random values for %s, expected f32 or f64",
                           ftr_dtype_name(dtype));
    }
    return !graph->status;
}

static ftr_tensor ftr__declare_variable(ftr_graph *graph, const char *name, ftr_dtype dtype, ftr_shape shape, ftr_init init,
                                        bool trainable) {
    const ftr_tensor none = {NULL, 0};
    const char *what = trainable ? "parameter" : "buffer";
    if (!graph || graph->status || !ftr__variable_is_valid(graph, what, name, dtype, &init, trainable)) return none;
    const ftr_tensor tensor = ftr__add_source(graph, trainable ? FTR_OP_parameter : FTR_OP_buffer, name, dtype, shape);
    if (!ftr_is_valid(tensor)) return none;
    const char *full = ftr_name_of(tensor);
    if (ftr_is_valid(ftr_variable_find(graph, full)))
        return ftr__builder_error(graph, FTR_ERROR_NAME, what, full, "the name is used by another parameter or buffer");
    if (!ftr__arena_grow(&graph->arena, (void **)&graph->variables, graph->variable_count, &graph->variable_capacity,
                         sizeof *graph->variables))
        return ftr__builder_error(graph, FTR_ERROR_OUT_OF_MEMORY, what, full, "it could not be allocated");
    graph->nodes[graph->values[tensor.id].node].variable = graph->variable_count;
    graph->variables[graph->variable_count++] =
        (ftr__variable){.value = tensor.id,
                        .trainable = trainable,
                        .init = init,
                        .bytes = (size_t)ftr_shape_count(&shape) * ftr_dtype_size(dtype)};
    return tensor;
}

ftr_tensor ftr_parameter(ftr_graph *graph, const char *name, ftr_dtype dtype, ftr_shape shape, ftr_init init) {
    return ftr__declare_variable(graph, name, dtype, shape, init, true);
}

ftr_tensor ftr_buffer(ftr_graph *graph, const char *name, ftr_dtype dtype, ftr_shape shape, ftr_init init) {
    return ftr__declare_variable(graph, name, dtype, shape, init, false);
}

int32_t ftr_variable_count(const ftr_graph *graph) { return graph ? graph->variable_count : 0; }

ftr_tensor ftr_variable_at(ftr_graph *graph, int32_t index) {
    const bool there = graph && index >= 0 && index < graph->variable_count;
    return there ? (ftr_tensor){graph, graph->variables[index].value} : (ftr_tensor){NULL, 0};
}

ftr_tensor ftr_variable_find(ftr_graph *graph, const char *name) {
    for (int32_t i = 0; name && i < ftr_variable_count(graph); i++) {
        const ftr_tensor tensor = ftr_variable_at(graph, i);
        if (strcmp(ftr_name_of(tensor), name) == 0) return tensor;
    }
    return (ftr_tensor){NULL, 0};
}

bool ftr_is_parameter(ftr_tensor tensor) {
    const ftr__node *node = ftr__producer(tensor);
    return node && node->op == FTR_OP_parameter;
}

/* ------------------------------------------------------------------------------------------------------ freezing -- */

static ftr_status ftr__set_frozen(ftr_graph *graph, const char *what, const char *pattern, bool frozen,
                                  bool norm_eval) {
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    if (!pattern) return ftr__error(graph->context, FTR_ERROR_INVALID_ARGUMENT, "%s: pattern is NULL", what);
    if (graph->status) return ftr__error(graph->context, graph->status, "%s", graph->message);
    int32_t matches = 0, parameters = 0;
    for (int32_t i = 0; i < graph->variable_count; i++) {
        ftr__variable *variable = &graph->variables[i];
        if (!variable->trainable) continue;
        parameters++;
        if (!ftr__glob_match(pattern, ftr_name_of(ftr_variable_at(graph, i)))) continue;
        matches++;
        variable->frozen = frozen;
        variable->norm_eval = norm_eval;
    }
    if (matches > 0) return FTR_OK;
    return ftr__error(graph->context, FTR_ERROR_NAME, "%s: pattern '%.100s' fits none of the graph's %d parameters",
                      what, pattern, parameters);
}

ftr_status ftr_freeze(ftr_graph *graph, const char *pattern, const ftr_freeze_desc *desc) {
    return ftr__set_frozen(graph, "ftr_freeze", pattern, true, desc && desc->norm_eval);
}

ftr_status ftr_unfreeze(ftr_graph *graph, const char *pattern) {
    return ftr__set_frozen(graph, "ftr_unfreeze", pattern, false, false);
}

bool ftr_is_frozen(ftr_tensor tensor) {
    const ftr__node *node = ftr__producer(tensor);
    return node && node->variable >= 0 && tensor.graph->variables[node->variable].frozen;
}

/* ------------------------------------------------------------------------------------------------ initialization -- */

static double ftr__fan_in(const ftr_shape *shape) {
    const int64_t count = ftr_shape_count(shape);
    return shape->rank > 0 && shape->dim[0] > 0 ? (double)(count / shape->dim[0]) : 1.0;
}

static double ftr__fan_out(const ftr_shape *shape) {
    const int64_t count = ftr_shape_count(shape);
    const int64_t last = shape->rank > 1 ? shape->dim[shape->rank - 1] : 1;
    return last > 0 ? (double)(count / last) : 1.0;
}

/* Element `index` of a standard normal distribution: Box-Muller on numbers 2 * index and 2 * index + 1 of the stream. */
static double ftr__normal_at(const ftr__rng *rng, uint64_t index) {
    const double u = 1.0 - ftr__rng_uniform(ftr__rng_at(rng, 2 * index)); /* (0, 1] */
    const double v = ftr__rng_uniform(ftr__rng_at(rng, 2 * index + 1));
    return sqrt(-2.0 * log(u)) * cos(2.0 * ftr__pi * v);
}

static double ftr__init_value(const ftr_init *init, const ftr_shape *shape, const ftr__rng *rng, uint64_t index) {
    switch (init->kind) {
    case FTR_INIT_DEFAULT:
    case FTR_INIT_ZEROS: return 0.0;
    case FTR_INIT_CONSTANT: return init->a;
    case FTR_INIT_UNIFORM: return init->a + (init->b - init->a) * ftr__rng_uniform(ftr__rng_at(rng, index));
    case FTR_INIT_NORMAL: return init->a + init->b * ftr__normal_at(rng, index);
    case FTR_INIT_KAIMING_UNIFORM: {
        const double bound = sqrt(6.0 / ((1.0 + init->a * init->a) * ftr__fan_in(shape)));
        return bound * (2.0 * ftr__rng_uniform(ftr__rng_at(rng, index)) - 1.0);
    }
    case FTR_INIT_KAIMING_NORMAL_FAN_OUT: return sqrt(2.0 / ftr__fan_out(shape)) * ftr__normal_at(rng, index);
    case FTR_INIT_KAIMING_NORMAL: return sqrt(2.0 / ftr__fan_in(shape)) * ftr__normal_at(rng, index);
    case FTR_INIT_XAVIER_UNIFORM: {
        const double bound = sqrt(6.0 / (ftr__fan_in(shape) + ftr__fan_out(shape)));
        return bound * (2.0 * ftr__rng_uniform(ftr__rng_at(rng, index)) - 1.0);
    }
    case FTR_INIT_TRUNCATED_NORMAL: {
        double value = 0.0;
        for (uint64_t attempt = 0; attempt < 64; attempt++) { /* a mean far outside has no truncated distribution */
            value = init->a + init->b * ftr__normal_at(rng, index + (attempt << 48));
            if (fabs(value) <= 2.0) return value;
        }
        return value < 0.0 ? -2.0 : 2.0;
    }
    }
    return 0.0;
}

static void ftr__store_value(void *memory, ftr_dtype dtype, int64_t index, double value) {
    switch (dtype) {
    case FTR_F32: ((float *)memory)[index] = (float)value; break;
    case FTR_F64: ((double *)memory)[index] = value; break;
    case FTR_I32: ((int32_t *)memory)[index] = (int32_t)value; break;
    case FTR_I64: ((int64_t *)memory)[index] = (int64_t)value; break;
    case FTR_U8: ((uint8_t *)memory)[index] = (uint8_t)value; break;
    case FTR_BOOL: ((uint8_t *)memory)[index] = value != 0.0; break;
    case FTR_DTYPE_NONE:
    case FTR_DTYPE_COUNT: break;
    }
}

static void ftr__fill_variable(const ftr_graph *graph, const ftr__variable *variable, void *memory) {
    const ftr__value *value = &graph->values[variable->value];
    const ftr__rng rng =
        ftr__rng_make(graph->context->seed, FTR__RNG_INIT, ftr__hash(graph->nodes[value->node].name), 0);
    const int64_t count = ftr_shape_count(&value->shape);
    for (int64_t i = 0; i < count; i++)
        ftr__store_value(memory, value->dtype, i, ftr__init_value(&variable->init, &value->shape, &rng, (uint64_t)i));
}

static size_t ftr__place_variables(ftr_graph *graph) {
    size_t offset = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int32_t i = 0; i < graph->variable_count; i++) {
            ftr__variable *variable = &graph->variables[i];
            if (variable->trainable != (pass == 0)) continue;
            variable->offset = offset;
            offset += (variable->bytes + FTR__ALIGNMENT - 1) / FTR__ALIGNMENT * FTR__ALIGNMENT;
        }
    return offset ? offset : FTR__ALIGNMENT;
}

/* The first values are made on the host in one block and handed over, so that any backend's memory will do. */
ftr_status ftr__graph_materialize(ftr_graph *graph) {
    if (graph->variable_memory) return FTR_OK;
    ftr_context *context = graph->context;
    const size_t bytes = ftr__place_variables(graph);
    unsigned char *host = ftr__allocate(context, bytes);
    if (!host) return ftr__out_of_memory(context, "parameters", bytes);
    memset(host, 0, bytes);
    for (int32_t i = 0; i < graph->variable_count; i++)
        ftr__fill_variable(graph, &graph->variables[i], host + graph->variables[i].offset);
    const ftr_backend *backend = context->backend;
    unsigned char *memory = backend->allocate(context, context->backend_state, bytes);
    ftr_status status = memory ? backend->upload(context, context->backend_state, memory, host, bytes)
                               : ftr__out_of_memory(context, "parameters", bytes);
    ftr__release(context, host, bytes);
    if (status && memory) backend->release(context, context->backend_state, memory, bytes);
    if (status) return status;
    graph->variable_memory = memory;
    graph->variable_bytes = bytes;
    return FTR_OK;
}

/* The variable behind a handle, its memory made. NULL with the error recorded. */
static const ftr__variable *ftr__variable_of(ftr_tensor tensor, size_t bytes) {
    const ftr__node *node = ftr__producer(tensor);
    ftr_context *context = tensor.graph ? tensor.graph->context : NULL;
    if (!node || node->variable < 0) {
        ftr__error(context, FTR_ERROR_INVALID_TENSOR, "variable: the tensor is neither a parameter nor a buffer");
        return NULL;
    }
    const ftr__variable *variable = &tensor.graph->variables[node->variable];
    if (variable->bytes != bytes) {
        ftr__error(context, FTR_ERROR_SHAPE, "variable '%s': %zu bytes given, expected %zu", node->name, bytes,
                   variable->bytes);
        return NULL;
    }
    return ftr__graph_materialize(tensor.graph) ? NULL : variable;
}

ftr_status ftr_variable_read(ftr_tensor tensor, void *data, size_t bytes) {
    const ftr__variable *variable = ftr__variable_of(tensor, bytes);
    if (!variable) return tensor.graph ? tensor.graph->context->status : FTR_ERROR_INVALID_TENSOR;
    if (bytes == 0) return FTR_OK;
    ftr_context *context = tensor.graph->context;
    if (!data) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "variable '%s': data is NULL", ftr_name_of(tensor));
    return context->backend->download(context, context->backend_state, data,
                                      tensor.graph->variable_memory + variable->offset, bytes);
}

ftr_status ftr_variable_write(ftr_tensor tensor, const void *data, size_t bytes) {
    const ftr__variable *variable = ftr__variable_of(tensor, bytes);
    if (!variable) return tensor.graph ? tensor.graph->context->status : FTR_ERROR_INVALID_TENSOR;
    if (bytes == 0) return FTR_OK;
    ftr_context *context = tensor.graph->context;
    if (!data) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "variable '%s': data is NULL", ftr_name_of(tensor));
    return context->backend->upload(context, context->backend_state, tensor.graph->variable_memory + variable->offset, data,
                                    bytes);
}

/* ---- src/graph/print.h ---- */
/* Text of a node, shared by the printouts of graphs and plans. */

/* One printout: where it goes, and the graph. */
typedef struct ftr__printer {
    const ftr_graph *graph;
    ftr_write_fn write;
    void *user;
} ftr__printer;

/* "%12 = conv2d 'conv1' (%3, %4, %5) stride 1x1 -> f32 [64, 8, 8, 16]", without a line end. */
FTR_LIB void ftr__print_node(const ftr__printer *printer, const ftr__node *node);

/* A Graphviz digraph of the live nodes. `note` (may be NULL) adds a line to a node's label. */
FTR_LIB void ftr__print_dot(const ftr__printer *printer, void (*note)(const void *arg, int32_t node, char text[64]),
                            const void *arg);

/* ---- src/graph/print.c ---- */

static void ftr__print_window(const ftr__printer *p, const int32_t kernel[2], const int32_t stride[2],
                              const int32_t padding[4]) {
    ftr__print(p->write, p->user, " kernel %dx%d stride %dx%d padding %d,%d,%d,%d", kernel[0], kernel[1], stride[0],
               stride[1], padding[0], padding[1], padding[2], padding[3]);
}

static void ftr__print_activation(const ftr__printer *p, ftr_activation activation) {
    if (activation == FTR_ACT_RELU) ftr__print(p->write, p->user, " relu");
}

static void ftr__print_axes(const ftr__printer *p, uint32_t mask) {
    ftr__print(p->write, p->user, " axes");
    for (int32_t i = 0; i < FTR_MAX_RANK; i++)
        if (mask >> i & 1u) ftr__print(p->write, p->user, " %d", i);
}

static void ftr__print_order(const ftr__printer *p, const ftr__node *node) {
    const int32_t rank = p->graph->values[node->first_out].shape.rank;
    ftr__print(p->write, p->user, " order");
    for (int32_t i = 0; i < rank; i++) ftr__print(p->write, p->user, " %d", node->attr.axes_order.order[i]);
}

static void ftr__print_pointwise(const ftr__printer *p, const ftr__node *node) {
    const double a = node->attr.pointwise.a, b = node->attr.pointwise.b;
    switch (node->op) {
    case FTR_OP_leaky_relu:
    case FTR_OP_leaky_relu_grad: ftr__print(p->write, p->user, " slope %g", a); break;
    case FTR_OP_elu:
    case FTR_OP_elu_grad: ftr__print(p->write, p->user, " alpha %g", a); break;
    case FTR_OP_softplus:
    case FTR_OP_softplus_grad: ftr__print(p->write, p->user, " beta %g threshold %g", a, b); break;
    default: ftr__print(p->write, p->user, " min %g max %g", a, b); break;
    }
}

static void ftr__print_random(const ftr__printer *p, const ftr__node *node) {
    const double a = (double)node->attr.random.a, b = (double)node->attr.random.b;
    ftr__print(p->write, p->user, node->op == FTR_OP_random_uniform ? " from %g to %g" : " mean %g std %g", a, b);
}

static void ftr__print_attr(const ftr__printer *p, const ftr__node *node) {
    const ftr_op_attr *a = &node->attr;
    switch (ftr__op_info_of(node->op)->attr) {
    case FTR__ATTR_none:
    case FTR__ATTR_cast: /* the results' types and shapes say it */
    case FTR__ATTR_shape: break;
    case FTR__ATTR_pointwise: ftr__print_pointwise(p, node); break;
    case FTR__ATTR_gelu: ftr__print(p->write, p->user, a->gelu.form == FTR_GELU_TANH ? " by tanh" : " exact"); break;
    case FTR__ATTR_axes: ftr__print_axes(p, a->axes.mask); break;
    case FTR__ATTR_matmul:
        ftr__print(p->write, p->user, "%s%s", a->matmul.transpose_a ? " transpose_a" : "",
                   a->matmul.transpose_b ? " transpose_b" : "");
        break;
    case FTR__ATTR_linear: ftr__print_activation(p, a->linear.activation); break;
    case FTR__ATTR_conv:
        ftr__print_window(p, a->conv.kernel, a->conv.stride, a->conv.padding);
        ftr__print(p->write, p->user, " dilation %dx%d groups %d", a->conv.dilation[0], a->conv.dilation[1], a->conv.groups);
        ftr__print_activation(p, a->conv.activation);
        break;
    case FTR__ATTR_norm:
        ftr__print(p->write, p->user, " %s eps %g", a->norm.training ? "batch statistics" : "running statistics", a->norm.eps);
        ftr__print_activation(p, a->norm.activation);
        break;
    case FTR__ATTR_row_norm:
        if (a->row_norm.groups) ftr__print(p->write, p->user, " groups %d", a->row_norm.groups);
        ftr__print(p->write, p->user, " eps %g", a->row_norm.eps);
        break;
    case FTR__ATTR_pool: ftr__print_window(p, a->pool.kernel, a->pool.stride, a->pool.padding); break;
    case FTR__ATTR_dropout: ftr__print(p->write, p->user, " p %g", a->dropout.p); break;
    case FTR__ATTR_random: ftr__print_random(p, node); break;
    case FTR__ATTR_attention:
        ftr__print(p->write, p->user, "%s scale %g", a->attention.causal ? " causal" : "", a->attention.scale);
        if (a->attention.dropout > 0.0) ftr__print(p->write, p->user, " dropout %g", a->attention.dropout);
        break;
    case FTR__ATTR_rotary:
        ftr__print(p->write, p->user, "%s%s base %g first %lld dims %d", a->rotary.inverse ? " inverse" : "",
                   a->rotary.interleaved ? " interleaved" : "", a->rotary.base, (long long)a->rotary.first,
                   a->rotary.dims);
        break;
    case FTR__ATTR_axes_order: ftr__print_order(p, node); break;
    case FTR__ATTR_axis: ftr__print(p->write, p->user, " axis %d", a->axis.axis); break;
    case FTR__ATTR_slice:
        ftr__print(p->write, p->user, " axis %d from %lld to %lld step %lld", a->slice.axis, (long long)a->slice.begin,
                   (long long)a->slice.end, (long long)a->slice.step);
        break;
    case FTR__ATTR_pad: ftr__print(p->write, p->user, " value %g", a->pad.value); break;
    case FTR__ATTR_cross_entropy:
        ftr__print(p->write, p->user, " smoothing %g ignore %lld", a->cross_entropy.label_smoothing,
                   (long long)a->cross_entropy.ignore_index);
        break;
    case FTR__ATTR_embedding: ftr__print(p->write, p->user, " rows %lld", (long long)a->embedding.rows); break;
    case FTR__ATTR_scatter: ftr__print(p->write, p->user, " axis %d", a->scatter.axis); break;
    case FTR__ATTR_one_hot: ftr__print(p->write, p->user, " classes %lld", (long long)a->one_hot.classes); break;
    case FTR__ATTR_topk: ftr__print(p->write, p->user, " k %lld", (long long)a->topk.k); break;
    case FTR__ATTR_cumsum:
        ftr__print(p->write, p->user, " axis %d%s", a->cumsum.axis, a->cumsum.reverse ? " reverse" : "");
        break;
    case FTR__ATTR_ema: ftr__print(p->write, p->user, " weight %g", a->ema.weight); break;
    case FTR__ATTR_optimizer:
        ftr__print(p->write, p->user, " weight_decay %g momentum %g beta1 %g beta2 %g eps %g", a->optimizer.weight_decay,
                   a->optimizer.momentum, a->optimizer.beta1, a->optimizer.beta2, a->optimizer.eps);
        break;
    }
}

void ftr__print_node(const ftr__printer *p, const ftr__node *node) {
    for (int32_t i = 0; i < node->out_count; i++)
        ftr__print(p->write, p->user, "%s%%%d", i ? ", " : "", node->first_out + i);
    ftr__print(p->write, p->user, "%s%s '%s'", node->out_count ? " = " : "", ftr_op_name(node->op), node->name);
    for (int32_t i = 0; i < node->in_count; i++) {
        ftr__print(p->write, p->user, i ? ", " : " (");
        if (node->in[i]) ftr__print(p->write, p->user, "%%%d", node->in[i]);
        else ftr__print(p->write, p->user, "-");
    }
    if (node->in_count) ftr__print(p->write, p->user, ")");
    ftr__print_attr(p, node);
    if (node->variable >= 0 && p->graph->variables[node->variable].frozen) ftr__print(p->write, p->user, " frozen");
    for (int32_t i = 0; i < node->out_count; i++) {
        const ftr__value *value = &p->graph->values[node->first_out + i];
        char text[FTR__SHAPE_TEXT];
        ftr__print(p->write, p->user, "%s%s %s", i ? ", " : " -> ", ftr_dtype_name(value->dtype),
                   ftr__shape_text(&value->shape, text));
    }
    if (node->fused) ftr__print(p->write, p->user, " [fused: %s]", node->fused);
}

void ftr__print_dot(const ftr__printer *p, void (*note)(const void *arg, int32_t node, char text[64]), const void *arg) {
    const ftr_graph *graph = p->graph;
    ftr__print(p->write, p->user, "digraph fasttrain {\n  node [shape=box, fontname=\"sans-serif\", fontsize=10];\n");
    for (int32_t n = 0; n < graph->node_count; n++) {
        const ftr__node *node = &graph->nodes[n];
        if (node->dead) continue;
        char text[FTR__SHAPE_TEXT] = "", extra[64] = "";
        if (node->out_count) ftr__shape_text(&graph->values[node->first_out].shape, text);
        if (note) note(arg, n, extra);
        ftr__print(p->write, p->user, "  n%d [label=\"%s\\n%s\\n%s", n, ftr_op_name(node->op), node->name, text);
        ftr__print(p->write, p->user, "%s%s\"];\n", extra[0] ? "\\n" : "", extra);
        for (int32_t i = 0; i < node->in_count; i++)
            if (node->in[i]) ftr__print(p->write, p->user, "  n%d -> n%d;\n", graph->values[node->in[i]].node, n);
    }
    ftr__print(p->write, p->user, "}\n");
}

ftr_status ftr_graph_print(const ftr_graph *graph, ftr_graph_format format, ftr_write_fn write, void *user) {
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    if (!write || (format != FTR_GRAPH_TEXT && format != FTR_GRAPH_DOT))
        return ftr__error(graph->context, FTR_ERROR_INVALID_ARGUMENT, "graph_print: %s",
                          write ? "format is not one of ftr_graph_format" : "write is NULL");
    const ftr__printer printer = {graph, write, user};
    if (format == FTR_GRAPH_DOT) {
        ftr__print_dot(&printer, NULL, NULL);
        return FTR_OK;
    }
    for (int32_t n = 0; n < graph->node_count; n++) {
        if (graph->nodes[n].dead) continue;
        ftr__print_node(&printer, &graph->nodes[n]);
        ftr__print(write, user, "\n");
    }
    return FTR_OK;
}

/* ---- src/ops/registry.h ---- */
/* What the library knows of an op besides its kernels: made from ops.def. */

/* Records "op 'name': sentence" on the graph and returns `status`. */
FTR_LIB ftr_status ftr__infer_error(ftr__infer *infer, ftr_status status, const char *format, ...) FTR__PRINTF(3, 4);

#define FTR__DECLARE_INFER_GRAD(op, attr, min_in, max_in, out, differentiable, overwritable, amp) \
    FTR_LIB ftr_status ftr__infer_##op(ftr__infer *s);                                             \
    FTR_LIB void ftr__grad_##op(ftr__grad *s);
#define FTR__DECLARE_INFER(op, attr, min_in, max_in, out, differentiable, overwritable, amp) \
    FTR_LIB ftr_status ftr__infer_##op(ftr__infer *s);
FTR_OPS(FTR__DECLARE_INFER_GRAD, FTR__DECLARE_INFER)

/* What the op files share. Checks record the failure with the node's name; `what` names the input in the sentence. */
FTR_LIB ftr_status ftr__check_float(ftr__infer *s, int32_t input, const char *what);
FTR_LIB ftr_status ftr__check_arithmetic(ftr__infer *s, int32_t input, const char *what); /* f32, f64, i32, i64 */
FTR_LIB ftr_status ftr__check_same_type(ftr__infer *s, int32_t a, int32_t b, const char *what_a, const char *what_b);
FTR_LIB ftr_status ftr__check_same_shape(ftr__infer *s, int32_t a, int32_t b, const char *what_a, const char *what_b);
FTR_LIB ftr_status ftr__check_rank(ftr__infer *s, int32_t input, const char *what, int32_t rank, const char *layout);
/* Shape [size] and the type of input 0. */
FTR_LIB ftr_status ftr__check_vector(ftr__infer *s, int32_t input, const char *what, int64_t size);
/* Turns a negative axis into the one it means. */
FTR_LIB ftr_status ftr__check_axis(ftr__infer *s, int32_t *axis, int32_t rank);
/* Sets an output; fails if its elements cannot be counted. */
FTR_LIB ftr_status ftr__set_output(ftr__infer *s, int32_t output, ftr_dtype dtype, const ftr_shape *shape);
/* The shape that two shapes broadcast to; false if there is none. */
FTR_LIB bool ftr__broadcast_shape(const ftr_shape *a, const ftr_shape *b, ftr_shape *out);

/* A layer's failure before its node exists: as ftr__builder_error(), the name put behind the scope. */
FTR_LIB ftr_tensor ftr__layer_error(ftr_graph *graph, ftr_status status, const char *what, const char *name,
                                    const char *format, ...) FTR__PRINTF(5, 6);
/* The graph of a layer's input x, or NULL with the error recorded: x is floating point and of rank min_rank to
 * max_rank, the layer has a name. */
FTR_LIB ftr_graph *ftr__layer_begin(const char *what, const char *name, ftr_tensor x, int32_t min_rank,
                                    int32_t max_rank, const char *layout);
/* Parameter or buffer "layer.field". */
FTR_LIB ftr_tensor ftr__layer_variable(ftr_graph *graph, const char *what, const char *layer, const char *field,
                                       bool trainable, ftr_dtype dtype, const ftr_shape *shape, ftr_init init);
/* What a layer's description asks for; `otherwise` if it says nothing. */
FTR_LIB ftr_init ftr__init_or(const ftr_init *asked, ftr_init otherwise);
/* PyTorch's bound of a bias: 1 / sqrt(fan_in) to either side. */
FTR_LIB ftr_init ftr__bias_init(int64_t fan_in);

FTR_LIB bool ftr__has_gradient(const ftr__grad *s); /* of output 0 */
FTR_LIB ftr_tensor ftr__emit_one(ftr_op op, const ftr_op_attr *attr, ftr_tensor x);
FTR_LIB ftr_tensor ftr__emit_two(ftr_op op, const ftr_op_attr *attr, ftr_tensor a, ftr_tensor b);
/* x itself if it has the type or shape already. */
FTR_LIB ftr_tensor ftr__cast_to(ftr_tensor x, ftr_dtype dtype);
FTR_LIB ftr_tensor ftr__reshape_to(ftr_tensor x, const ftr_shape *shape);
/* Sum over the axes in which `shape` was broadcast to that of x: the gradient of broadcasting. */
FTR_LIB ftr_tensor ftr__reduce_to(ftr_tensor x, const ftr_shape *shape);
FTR_LIB ftr_tensor ftr__sum_mask(ftr_tensor x, uint32_t mask, bool keep);
/* The bits of a list of axes of x; no list is all of them. False, with the error recorded, if one is out of range or
 * twice. */
FTR_LIB bool ftr__axes_mask(const char *op, ftr_tensor x, const ftr_axes *axes, uint32_t *mask);
/* The shape with the axes of `mask` as size 1. */
FTR_LIB ftr_shape ftr__kept_shape(const ftr_shape *shape, uint32_t mask);
/* The graph's batch mask, of a type, if `shape` has its leading dimension; otherwise a null handle. */
FTR_LIB ftr_tensor ftr__row_mask(ftr_graph *graph, const ftr_shape *shape, ftr_dtype dtype);

/* ---- src/ops/registry.c ---- */

#define FTR__INFO_GRAD(op, attr, min_in, max_in, out, differentiable, overwritable, amp)                               \
    {#op,          FTR__ATTR_##attr, min_in,          max_in,        out, differentiable,                              \
     overwritable, FTR__AMP_##amp,   ftr__infer_##op, ftr__grad_##op},
#define FTR__INFO(op, attr, min_in, max_in, out, differentiable, overwritable, amp)                                    \
    {#op, FTR__ATTR_##attr, min_in, max_in, out, differentiable, overwritable, FTR__AMP_##amp, ftr__infer_##op, NULL},

/* In the order of ftr_op, which comes from the same list. */
static const ftr__op_info ftr__op_table[FTR_OP_COUNT] = {
    {"none", FTR__ATTR_none, 0, 0, 0, 0, 0, FTR__AMP_NONE, NULL, NULL}, FTR_OPS(FTR__INFO_GRAD, FTR__INFO)};

const ftr__op_info *ftr__op_info_of(ftr_op op) {
    bool known = (int)op > 0 && (int)op < (int)FTR_OP_COUNT;
    return &ftr__op_table[known ? (int)op : 0];
}

const char *ftr_op_name(ftr_op op) { return ftr__op_info_of(op)->name; }

ftr_status ftr__infer_error(ftr__infer *infer, ftr_status status, const char *format, ...) {
    char sentence[FTR__MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    (void)ftr__builder_error(infer->graph, status, ftr_op_name(infer->node->op), infer->node->name, "%s", sentence);
    return status;
}

/* The graph makes its sources itself, with the type and shape that the caller declares. */
static ftr_status ftr__infer_source(ftr__infer *s) {
    return ftr__infer_error(s, FTR_ERROR_STATE, "a source is declared, its shape is not inferred");
}

ftr_status ftr__infer_input(ftr__infer *s) { return ftr__infer_source(s); }
ftr_status ftr__infer_parameter(ftr__infer *s) { return ftr__infer_source(s); }
ftr_status ftr__infer_buffer(ftr__infer *s) { return ftr__infer_source(s); }
ftr_status ftr__infer_constant(ftr__infer *s) { return ftr__infer_source(s); }

ftr_status ftr__check_float(ftr__infer *s, int32_t input, const char *what) {
    ftr_dtype dtype = s->in[input]->dtype;
    if (ftr__is_float(dtype)) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s is %s, expected f32 or f64", what, ftr_dtype_name(dtype));
}

ftr_status ftr__check_arithmetic(ftr__infer *s, int32_t input, const char *what) {
    ftr_dtype dtype = s->in[input]->dtype;
    if (ftr__is_float(dtype) || dtype == FTR_I32 || dtype == FTR_I64) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s is %s, expected f32, f64, i32 or i64", what, ftr_dtype_name(dtype));
}

ftr_status ftr__check_same_type(ftr__infer *s, int32_t a, int32_t b, const char *what_a, const char *what_b) {
    ftr_dtype type_a = s->in[a]->dtype, type_b = s->in[b]->dtype;
    if (type_a == type_b) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s is %s, %s is %s: both must have one type", what_a,
                            ftr_dtype_name(type_a), what_b, ftr_dtype_name(type_b));
}

ftr_status ftr__check_same_shape(ftr__infer *s, int32_t a, int32_t b, const char *what_a, const char *what_b) {
    const ftr_shape *shape_a = &s->in[a]->shape, *shape_b = &s->in[b]->shape;
    if (ftr_shape_equal(shape_a, shape_b)) return FTR_OK;
    char text_a[FTR__SHAPE_TEXT], text_b[FTR__SHAPE_TEXT];
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s is %s, %s is %s: both must have one shape", what_a,
                            ftr__shape_text(shape_a, text_a), what_b, ftr__shape_text(shape_b, text_b));
}

ftr_status ftr__check_rank(ftr__infer *s, int32_t input, const char *what, int32_t rank, const char *layout) {
    int32_t found = s->in[input]->shape.rank;
    if (found == rank) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_RANK, "%s has rank %d, expected %d (%s)", what, (int)found, (int)rank, layout);
}

ftr_status ftr__check_vector(ftr__infer *s, int32_t input, const char *what, int64_t size) {
    const ftr__value *value = s->in[input];
    if (value->dtype != s->in[0]->dtype)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s is %s, expected %s", what, ftr_dtype_name(value->dtype),
                                ftr_dtype_name(s->in[0]->dtype));
    if (value->shape.rank == 1 && value->shape.dim[0] == size) return FTR_OK;
    char text[FTR__SHAPE_TEXT];
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s is %s, expected [%lld]", what, ftr__shape_text(&value->shape, text),
                            (long long)size);
}

ftr_status ftr__check_axis(ftr__infer *s, int32_t *axis, int32_t rank) {
    if (*axis < -rank || *axis >= rank)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "axis %d of a tensor of rank %d", (int)*axis, (int)rank);
    if (*axis < 0) *axis += rank;
    return FTR_OK;
}

ftr_status ftr__set_output(ftr__infer *s, int32_t output, ftr_dtype dtype, const ftr_shape *shape) {
    s->out_dtype[output] = dtype;
    s->out_shape[output] = *shape;
    for (int32_t i = shape->rank; i < FTR_MAX_RANK; i++) s->out_shape[output].dim[i] = 0;
    if (ftr_shape_count(shape) >= 0) return FTR_OK;
    char text[FTR__SHAPE_TEXT];
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "the result %s has too many elements", ftr__shape_text(shape, text));
}

bool ftr__broadcast_shape(const ftr_shape *a, const ftr_shape *b, ftr_shape *out) {
    memset(out, 0, sizeof *out);
    out->rank = a->rank > b->rank ? a->rank : b->rank;
    for (int32_t i = 1; i <= out->rank; i++) {
        int64_t size_a = i <= a->rank ? a->dim[a->rank - i] : 1;
        int64_t size_b = i <= b->rank ? b->dim[b->rank - i] : 1;
        if (size_a != size_b && size_a != 1 && size_b != 1) return false;
        out->dim[out->rank - i] = size_a == 1 ? size_b : size_a;
    }
    return true;
}

ftr_tensor ftr__layer_error(ftr_graph *graph, ftr_status status, const char *what, const char *name, const char *format,
                            ...) {
    char sentence[FTR__MESSAGE_SIZE], full[FTR__MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    (void)snprintf(full, sizeof full, "%s%s%s", graph->scope, graph->scope[0] ? "." : "", name);
    return ftr__builder_error(graph, status, what, full, "%s", sentence);
}

ftr_graph *ftr__layer_begin(const char *what, const char *name, ftr_tensor x, int32_t min_rank, int32_t max_rank,
                            const char *layout) {
    ftr_graph *graph = ftr__common_graph(what, &x, 1, 1);
    if (graph == NULL) return NULL;
    const ftr__value *value = ftr__value_of(x);
    if (value == NULL) return NULL;
    if (name == NULL || name[0] == '\0') {
        (void)ftr__builder_error(graph, FTR_ERROR_NAME, what, NULL, "the layer has no name");
        return NULL;
    }
    if (value->shape.rank < min_rank || value->shape.rank > max_rank) {
        (void)ftr__layer_error(graph, FTR_ERROR_RANK, what, name, "input has rank %d, expected %d%s (%s)",
                               (int)value->shape.rank, (int)min_rank, min_rank < max_rank ? " or more" : "", layout);
        return NULL;
    }
    if (!ftr__is_float(value->dtype)) {
        (void)ftr__layer_error(graph, FTR_ERROR_DTYPE, what, name, "input is %s, expected f32 or f64",
                               ftr_dtype_name(value->dtype));
        return NULL;
    }
    return graph;
}

ftr_tensor ftr__layer_variable(ftr_graph *graph, const char *what, const char *layer, const char *field, bool trainable,
                               ftr_dtype dtype, const ftr_shape *shape, ftr_init init) {
    char name[256];
    int length = snprintf(name, sizeof name, "%s.%s", layer, field);
    if (length < 0 || (size_t)length >= sizeof name)
        return ftr__builder_error(graph, FTR_ERROR_NAME, what, NULL, "the layer's name has more than %d characters",
                                  (int)(sizeof name - 2 - strlen(field)));
    return trainable ? ftr_parameter(graph, name, dtype, *shape, init) : ftr_buffer(graph, name, dtype, *shape, init);
}

ftr_init ftr__init_or(const ftr_init *asked, ftr_init otherwise) {
    return asked != NULL && asked->kind != FTR_INIT_DEFAULT ? *asked : otherwise;
}

ftr_init ftr__bias_init(int64_t fan_in) {
    double bound = fan_in > 0 ? 1.0 / sqrt((double)fan_in) : 0.0;
    return (ftr_init){FTR_INIT_UNIFORM, -bound, bound};
}

bool ftr__has_gradient(const ftr__grad *s) { return ftr_is_valid(s->dout[0]); }

ftr_tensor ftr__emit_one(ftr_op op, const ftr_op_attr *attr, ftr_tensor x) {
    return ftr__emit(x.graph, op, NULL, attr, &x, 1);
}

ftr_tensor ftr__emit_two(ftr_op op, const ftr_op_attr *attr, ftr_tensor a, ftr_tensor b) {
    ftr_tensor in[2] = {a, b};
    return ftr__emit(a.graph != NULL ? a.graph : b.graph, op, NULL, attr, in, 2);
}

/* ---- src/ops/pointwise.c ---- */
/* Pointwise ops: arithmetic, comparisons, where, functions of one value, cast. */

/* ---- builders */

ftr_tensor ftr_add(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_add, NULL, a, b); }
ftr_tensor ftr_sub(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_sub, NULL, a, b); }
ftr_tensor ftr_mul(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_mul, NULL, a, b); }
ftr_tensor ftr_div(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_div, NULL, a, b); }
ftr_tensor ftr_pow(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_pow, NULL, a, b); }
ftr_tensor ftr_maximum(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_maximum, NULL, a, b); }
ftr_tensor ftr_eq(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_eq, NULL, a, b); }
ftr_tensor ftr_ne(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_ne, NULL, a, b); }
ftr_tensor ftr_lt(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_lt, NULL, a, b); }
ftr_tensor ftr_le(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_le, NULL, a, b); }
ftr_tensor ftr_gt(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_gt, NULL, a, b); }
ftr_tensor ftr_ge(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_ge, NULL, a, b); }

ftr_tensor ftr_where(ftr_tensor condition, ftr_tensor a, ftr_tensor b) {
    ftr_tensor in[3] = {condition, a, b};
    ftr_graph *graph = condition.graph != NULL ? condition.graph : a.graph != NULL ? a.graph : b.graph;
    return ftr__emit(graph, FTR_OP_where, NULL, NULL, in, 3);
}

ftr_tensor ftr_neg(ftr_tensor x) { return ftr__emit_one(FTR_OP_neg, NULL, x); }
ftr_tensor ftr_exp(ftr_tensor x) { return ftr__emit_one(FTR_OP_exp, NULL, x); }
ftr_tensor ftr_log(ftr_tensor x) { return ftr__emit_one(FTR_OP_log, NULL, x); }
ftr_tensor ftr_sqrt(ftr_tensor x) { return ftr__emit_one(FTR_OP_sqrt, NULL, x); }
ftr_tensor ftr_rsqrt(ftr_tensor x) { return ftr__emit_one(FTR_OP_rsqrt, NULL, x); }
ftr_tensor ftr_tanh(ftr_tensor x) { return ftr__emit_one(FTR_OP_tanh, NULL, x); }
ftr_tensor ftr_sigmoid(ftr_tensor x) { return ftr__emit_one(FTR_OP_sigmoid, NULL, x); }
ftr_tensor ftr_relu(ftr_tensor x) { return ftr__emit_one(FTR_OP_relu, NULL, x); }

ftr_tensor ftr_minimum(ftr_tensor a, ftr_tensor b) { return ftr__emit_two(FTR_OP_minimum, NULL, a, b); }
ftr_tensor ftr_abs(ftr_tensor x) { return ftr__emit_one(FTR_OP_abs, NULL, x); }
ftr_tensor ftr_sign(ftr_tensor x) { return ftr__emit_one(FTR_OP_sign, NULL, x); }
ftr_tensor ftr_sin(ftr_tensor x) { return ftr__emit_one(FTR_OP_sin, NULL, x); }
ftr_tensor ftr_cos(ftr_tensor x) { return ftr__emit_one(FTR_OP_cos, NULL, x); }
ftr_tensor ftr_erf(ftr_tensor x) { return ftr__emit_one(FTR_OP_erf, NULL, x); }
ftr_tensor ftr_floor(ftr_tensor x) { return ftr__emit_one(FTR_OP_floor, NULL, x); }
ftr_tensor ftr_round(ftr_tensor x) { return ftr__emit_one(FTR_OP_round, NULL, x); }
ftr_tensor ftr_silu(ftr_tensor x) { return ftr__emit_one(FTR_OP_silu, NULL, x); }
ftr_tensor ftr_hardswish(ftr_tensor x) { return ftr__emit_one(FTR_OP_hardswish, NULL, x); }
ftr_tensor ftr_hardsigmoid(ftr_tensor x) { return ftr__emit_one(FTR_OP_hardsigmoid, NULL, x); }
ftr_tensor ftr_stop_gradient(ftr_tensor x) { return ftr__emit_one(FTR_OP_stop_gradient, NULL, x); }

static ftr_tensor ftr__with_parameters(ftr_op op, ftr_tensor x, double a, double b) {
    const ftr_op_attr attr = {.pointwise = {a, b}};
    return ftr__emit_one(op, &attr, x);
}

ftr_tensor ftr_clamp(ftr_tensor x, double min, double max) { return ftr__with_parameters(FTR_OP_clamp, x, min, max); }
ftr_tensor ftr_relu6(ftr_tensor x) { return ftr_clamp(x, 0.0, 6.0); }
ftr_tensor ftr_leaky_relu(ftr_tensor x, double slope) { return ftr__with_parameters(FTR_OP_leaky_relu, x, slope, 0.0); }
ftr_tensor ftr_elu(ftr_tensor x, double alpha) { return ftr__with_parameters(FTR_OP_elu, x, alpha, 0.0); }

ftr_tensor ftr_softplus(ftr_tensor x, double beta, double threshold) {
    return ftr__with_parameters(FTR_OP_softplus, x, beta, threshold);
}

ftr_tensor ftr_gelu(ftr_tensor x, ftr_gelu_form form) {
    const ftr_op_attr attr = {.gelu = {form}};
    return ftr__emit_one(FTR_OP_gelu, &attr, x);
}

ftr_tensor ftr_cast(ftr_tensor x, ftr_dtype dtype) {
    ftr_op_attr attr = {.cast = {dtype}};
    return ftr__emit_one(FTR_OP_cast, &attr, x);
}

ftr_tensor ftr__cast_to(ftr_tensor x, ftr_dtype dtype) { return ftr_dtype_of(x) == dtype ? x : ftr_cast(x, dtype); }

/* ---- shapes and types */

static ftr_status ftr__binary_shape(ftr__infer *s, ftr_dtype result) {
    ftr_status status = ftr__check_same_type(s, 0, 1, "a", "b");
    if (status != FTR_OK) return status;
    const ftr_shape *a = &s->in[0]->shape, *b = &s->in[1]->shape;
    ftr_shape out;
    if (ftr__broadcast_shape(a, b, &out)) return ftr__set_output(s, 0, result, &out);
    char text_a[FTR__SHAPE_TEXT], text_b[FTR__SHAPE_TEXT];
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "shapes %s and %s do not broadcast", ftr__shape_text(a, text_a),
                            ftr__shape_text(b, text_b));
}

static ftr_status ftr__infer_arithmetic(ftr__infer *s) {
    ftr_status status = ftr__check_arithmetic(s, 0, "a");
    if (status == FTR_OK) status = ftr__check_arithmetic(s, 1, "b");
    return status != FTR_OK ? status : ftr__binary_shape(s, s->in[0]->dtype);
}

ftr_status ftr__infer_add(ftr__infer *s) { return ftr__infer_arithmetic(s); }
ftr_status ftr__infer_sub(ftr__infer *s) { return ftr__infer_arithmetic(s); }
ftr_status ftr__infer_mul(ftr__infer *s) { return ftr__infer_arithmetic(s); }
ftr_status ftr__infer_div(ftr__infer *s) { return ftr__infer_arithmetic(s); }
ftr_status ftr__infer_maximum(ftr__infer *s) { return ftr__infer_arithmetic(s); }

ftr_status ftr__infer_pow(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "a");
    if (status == FTR_OK) status = ftr__check_float(s, 1, "b");
    return status != FTR_OK ? status : ftr__binary_shape(s, s->in[0]->dtype);
}

static ftr_status ftr__infer_order(ftr__infer *s) {
    for (int32_t i = 0; i < 2; i++)
        if (s->in[i]->dtype == FTR_BOOL)
            return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s is bool, expected numbers", i == 0 ? "a" : "b");
    return ftr__binary_shape(s, FTR_BOOL);
}

ftr_status ftr__infer_eq(ftr__infer *s) { return ftr__binary_shape(s, FTR_BOOL); }
ftr_status ftr__infer_ne(ftr__infer *s) { return ftr__binary_shape(s, FTR_BOOL); }
ftr_status ftr__infer_lt(ftr__infer *s) { return ftr__infer_order(s); }
ftr_status ftr__infer_le(ftr__infer *s) { return ftr__infer_order(s); }
ftr_status ftr__infer_gt(ftr__infer *s) { return ftr__infer_order(s); }
ftr_status ftr__infer_ge(ftr__infer *s) { return ftr__infer_order(s); }

ftr_status ftr__infer_where(ftr__infer *s) {
    if (s->in[0]->dtype != FTR_BOOL)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "condition is %s, expected bool", ftr_dtype_name(s->in[0]->dtype));
    ftr_status status = ftr__check_same_type(s, 1, 2, "a", "b");
    if (status != FTR_OK) return status;
    ftr_shape values, out;
    if (ftr__broadcast_shape(&s->in[1]->shape, &s->in[2]->shape, &values) &&
        ftr__broadcast_shape(&s->in[0]->shape, &values, &out))
        return ftr__set_output(s, 0, s->in[1]->dtype, &out);
    char text[3][FTR__SHAPE_TEXT];
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "shapes %s, %s and %s do not broadcast",
                            ftr__shape_text(&s->in[0]->shape, text[0]), ftr__shape_text(&s->in[1]->shape, text[1]),
                            ftr__shape_text(&s->in[2]->shape, text[2]));
}

static ftr_status ftr__infer_float_unary(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "input");
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
}

ftr_status ftr__infer_neg(ftr__infer *s) {
    ftr_status status = ftr__check_arithmetic(s, 0, "input");
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
}

ftr_status ftr__infer_exp(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_log(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_sqrt(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_rsqrt(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_tanh(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_sigmoid(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_relu(ftr__infer *s) { return ftr__infer_float_unary(s); }

ftr_status ftr__infer_minimum(ftr__infer *s) { return ftr__infer_arithmetic(s); }
ftr_status ftr__infer_abs(ftr__infer *s) { return ftr__infer_neg(s); }
ftr_status ftr__infer_sign(ftr__infer *s) { return ftr__infer_neg(s); }
ftr_status ftr__infer_sin(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_cos(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_erf(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_floor(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_round(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_silu(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_hardswish(ftr__infer *s) { return ftr__infer_float_unary(s); }
ftr_status ftr__infer_hardsigmoid(ftr__infer *s) { return ftr__infer_float_unary(s); }

ftr_status ftr__infer_stop_gradient(ftr__infer *s) { return ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape); }

ftr_status ftr__infer_clamp(ftr__infer *s) {
    const double min = s->node->attr.pointwise.a, max = s->node->attr.pointwise.b;
    if (!(min <= max))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "min %g, max %g: expected min <= max", min, max);
    return ftr__infer_float_unary(s);
}

ftr_status ftr__infer_leaky_relu(ftr__infer *s) {
    const double slope = s->node->attr.pointwise.a;
    if (!isfinite(slope))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "slope %g, expected a finite number", slope);
    return ftr__infer_float_unary(s);
}

ftr_status ftr__infer_elu(ftr__infer *s) {
    const double alpha = s->node->attr.pointwise.a;
    if (!isfinite(alpha))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "alpha %g, expected a finite number", alpha);
    return ftr__infer_float_unary(s);
}

ftr_status ftr__infer_softplus(ftr__infer *s) {
    const double beta = s->node->attr.pointwise.a, threshold = s->node->attr.pointwise.b;
    if (!isfinite(beta) || beta <= 0.0)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "beta %g, expected a finite number above 0", beta);
    if (isnan(threshold))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "threshold %g, expected a number", threshold);
    return ftr__infer_float_unary(s);
}

ftr_status ftr__infer_gelu(ftr__infer *s) {
    const ftr_gelu_form form = s->node->attr.gelu.form;
    if (form != FTR_GELU_EXACT && form != FTR_GELU_TANH)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "form %d, expected FTR_GELU_EXACT or FTR_GELU_TANH",
                                (int)form);
    return ftr__infer_float_unary(s);
}

ftr_status ftr__infer_cast(ftr__infer *s) {
    ftr_dtype dtype = s->node->attr.cast.dtype;
    if ((int)dtype <= (int)FTR_DTYPE_NONE || (int)dtype >= (int)FTR_DTYPE_COUNT)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "dtype %d, expected f32, f64, i32, i64, u8 or bool",
                                (int)dtype);
    return ftr__set_output(s, 0, dtype, &s->in[0]->shape);
}

static ftr_status ftr__infer_activation_grad(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "dy");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dy", "y");
    if (status == FTR_OK) status = ftr__check_same_shape(s, 0, 1, "dy", "y");
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
}

ftr_status ftr__infer_tanh_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }
ftr_status ftr__infer_sigmoid_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }
ftr_status ftr__infer_relu_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }

ftr_status ftr__infer_clamp_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }
ftr_status ftr__infer_gelu_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }
ftr_status ftr__infer_silu_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }
ftr_status ftr__infer_hardswish_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }
ftr_status ftr__infer_leaky_relu_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }
ftr_status ftr__infer_elu_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }
ftr_status ftr__infer_softplus_grad(ftr__infer *s) { return ftr__infer_activation_grad(s); }

/* ---- gradients */

/* Gives input i the gradient `d`, which has the shape of the result. */
static void ftr__give(ftr__grad *s, int32_t i, ftr_tensor d) {
    ftr_shape shape = ftr_shape_of(s->in[i]);
    s->din[i] = ftr__reduce_to(d, &shape);
}

static ftr_tensor ftr__like(const ftr__grad *s, double value) {
    return ftr_scalar(s->graph, ftr_dtype_of(s->dout[0]), value);
}

void ftr__grad_add(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    if (s->wanted[0]) ftr__give(s, 0, s->dout[0]);
    if (s->wanted[1]) ftr__give(s, 1, s->dout[0]);
}

void ftr__grad_sub(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    if (s->wanted[0]) ftr__give(s, 0, s->dout[0]);
    if (!s->wanted[1]) return;
    ftr__give(s, 1, s->dout[0]);
    s->din[1] = ftr_neg(s->din[1]); /* after the sum, where it is smaller */
}

void ftr__grad_mul(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    if (s->wanted[0]) ftr__give(s, 0, ftr_mul(s->dout[0], s->in[1]));
    if (s->wanted[1]) ftr__give(s, 1, ftr_mul(s->dout[0], s->in[0]));
}

/* d(a / b) = da / b - y db / b */
void ftr__grad_div(ftr__grad *s) {
    if (!ftr__has_gradient(s) || (!s->wanted[0] && !s->wanted[1])) return;
    ftr_tensor quotient = ftr_div(s->dout[0], s->in[1]);
    if (s->wanted[0]) ftr__give(s, 0, quotient);
    if (!s->wanted[1]) return;
    ftr__give(s, 1, ftr_mul(quotient, s->out[0]));
    s->din[1] = ftr_neg(s->din[1]);
}

/* d/da = b a^(b-1), 0 where b is 0;  d/db = a^b log a, 0 where a is 0 and b >= 0. */
void ftr__grad_pow(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    ftr_tensor a = s->in[0], b = s->in[1], dy = s->dout[0], zero = ftr__like(s, 0.0);
    if (s->wanted[0]) {
        ftr_tensor slope = ftr_mul(b, ftr_pow(a, ftr_sub(b, ftr__like(s, 1.0))));
        ftr__give(s, 0, ftr_where(ftr_eq(b, zero), zero, ftr_mul(dy, slope)));
    }
    if (s->wanted[1]) {
        ftr_tensor d = ftr_mul(dy, ftr_mul(s->out[0], ftr_log(a)));
        ftr__give(s, 1, ftr_where(ftr_eq(a, zero), ftr_where(ftr_ge(b, zero), zero, d), d));
    }
}

void ftr__grad_maximum(ftr__grad *s) {
    if (!ftr__has_gradient(s) || (!s->wanted[0] && !s->wanted[1])) return;
    ftr_tensor a = s->in[0], b = s->in[1], dy = s->dout[0], zero = ftr__like(s, 0.0);
    ftr_tensor shared = ftr_where(ftr_eq(a, b), ftr_mul(dy, ftr__like(s, 0.5)), dy);
    if (s->wanted[0]) ftr__give(s, 0, ftr_where(ftr_lt(a, b), zero, shared));
    if (s->wanted[1]) ftr__give(s, 1, ftr_where(ftr_lt(b, a), zero, shared));
}

void ftr__grad_where(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    ftr_tensor dy = s->dout[0];
    if (s->wanted[1]) ftr__give(s, 1, ftr_where(s->in[0], dy, ftr__like(s, 0.0)));
    if (s->wanted[2]) ftr__give(s, 2, ftr_where(s->in[0], ftr__like(s, 0.0), dy));
}

static bool ftr__grad_of_one(const ftr__grad *s) { return ftr__has_gradient(s) && s->wanted[0]; }

void ftr__grad_neg(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr_neg(s->dout[0]);
}

void ftr__grad_exp(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr_mul(s->dout[0], s->out[0]);
}

void ftr__grad_log(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr_div(s->dout[0], s->in[0]);
}

/* dy / (2 y) */
void ftr__grad_sqrt(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr_div(ftr_mul(s->dout[0], ftr__like(s, 0.5)), s->out[0]);
}

/* -dy y^3 / 2 */
void ftr__grad_rsqrt(ftr__grad *s) {
    if (!ftr__grad_of_one(s)) return;
    ftr_tensor y = s->out[0];
    s->din[0] = ftr_mul(ftr_mul(s->dout[0], ftr__like(s, -0.5)), ftr_mul(y, ftr_mul(y, y)));
}

void ftr__grad_tanh(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr__emit_two(FTR_OP_tanh_grad, NULL, s->dout[0], s->out[0]);
}

void ftr__grad_sigmoid(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr__emit_two(FTR_OP_sigmoid_grad, NULL, s->dout[0], s->out[0]);
}

void ftr__grad_relu(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr__emit_two(FTR_OP_relu_grad, NULL, s->dout[0], s->out[0]);
}

void ftr__grad_minimum(ftr__grad *s) {
    if (!ftr__has_gradient(s) || (!s->wanted[0] && !s->wanted[1])) return;
    ftr_tensor a = s->in[0], b = s->in[1], dy = s->dout[0], zero = ftr__like(s, 0.0);
    ftr_tensor shared = ftr_where(ftr_eq(a, b), ftr_mul(dy, ftr__like(s, 0.5)), dy);
    if (s->wanted[0]) ftr__give(s, 0, ftr_where(ftr_gt(a, b), zero, shared));
    if (s->wanted[1]) ftr__give(s, 1, ftr_where(ftr_gt(b, a), zero, shared));
}

void ftr__grad_abs(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr_mul(s->dout[0], ftr_sign(s->in[0]));
}

void ftr__grad_sin(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr_mul(s->dout[0], ftr_cos(s->in[0]));
}

void ftr__grad_cos(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr_neg(ftr_mul(s->dout[0], ftr_sin(s->in[0])));
}

/* dy 2 / sqrt(pi) e^(-x^2) */
void ftr__grad_erf(ftr__grad *s) {
    if (!ftr__grad_of_one(s)) return;
    ftr_tensor bell = ftr_exp(ftr_neg(ftr_mul(s->in[0], s->in[0])));
    s->din[0] = ftr_mul(ftr_mul(s->dout[0], ftr__like(s, 1.1283791670955126)), bell);
}

/* Of a function that is constant between its steps: zeros, not a missing gradient, so that training can go on. */
static void ftr__grad_of_steps(ftr__grad *s) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr_expand(ftr__like(s, 0.0), ftr_shape_of(s->in[0]));
}

void ftr__grad_floor(ftr__grad *s) { ftr__grad_of_steps(s); }
void ftr__grad_round(ftr__grad *s) { ftr__grad_of_steps(s); }
void ftr__grad_sign(ftr__grad *s) { ftr__grad_of_steps(s); }

/* By an op of its own that takes dy, x and the forward node's attributes. */
static void ftr__grad_by_op(ftr__grad *s, ftr_op op, ftr_tensor x) {
    if (ftr__grad_of_one(s)) s->din[0] = ftr__emit_two(op, &s->node->attr, s->dout[0], x);
}

/* The result is strictly between the bounds where x is, and its memory may be that of x. */
void ftr__grad_clamp(ftr__grad *s) { ftr__grad_by_op(s, FTR_OP_clamp_grad, s->out[0]); }
void ftr__grad_gelu(ftr__grad *s) { ftr__grad_by_op(s, FTR_OP_gelu_grad, s->in[0]); }
void ftr__grad_silu(ftr__grad *s) { ftr__grad_by_op(s, FTR_OP_silu_grad, s->in[0]); }
void ftr__grad_hardswish(ftr__grad *s) { ftr__grad_by_op(s, FTR_OP_hardswish_grad, s->in[0]); }
void ftr__grad_leaky_relu(ftr__grad *s) { ftr__grad_by_op(s, FTR_OP_leaky_relu_grad, s->in[0]); }
void ftr__grad_elu(ftr__grad *s) { ftr__grad_by_op(s, FTR_OP_elu_grad, s->in[0]); }
void ftr__grad_softplus(ftr__grad *s) { ftr__grad_by_op(s, FTR_OP_softplus_grad, s->in[0]); }

/* dy / 6 for x strictly between -3 and 3 */
void ftr__grad_hardsigmoid(ftr__grad *s) {
    if (!ftr__grad_of_one(s)) return;
    const ftr_op_attr attr = {.pointwise = {-3.0, 3.0}};
    s->din[0] = ftr_mul(ftr__emit_two(FTR_OP_clamp_grad, &attr, s->dout[0], s->in[0]), ftr__like(s, 1.0 / 6.0));
}

void ftr__grad_cast(ftr__grad *s) {
    ftr_dtype dtype = ftr_dtype_of(s->in[0]);
    if (!ftr__grad_of_one(s) || !ftr__is_float(dtype) || !ftr__is_float(ftr_dtype_of(s->dout[0]))) return;
    s->din[0] = ftr_cast(s->dout[0], dtype);
}

/* ---- src/ops/reduce.c ---- */
/* Reductions over axes: sum, mean, max, argmax. */

ftr_axes ftr_all_axes(void) {
    ftr_axes axes;
    memset(&axes, 0, sizeof axes);
    return axes;
}

bool ftr__axes_mask(const char *op, ftr_tensor x, const ftr_axes *axes, uint32_t *mask) {
    ftr_graph *graph = ftr__common_graph(op, &x, 1, 1);
    const ftr__value *value = graph != NULL ? ftr__value_of(x) : NULL;
    if (value == NULL) return false;
    char what[32];
    (void)snprintf(what, sizeof what, "%s of", op);
    int32_t rank = value->shape.rank;
    *mask = axes->count == 0 ? (1u << rank) - 1u : 0;
    if (axes->count < 0 || axes->count > FTR_MAX_RANK) {
        (void)ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, ftr_name_of(x), "%d axes, expected 0 to %d",
                                 (int)axes->count, FTR_MAX_RANK);
        return false;
    }
    for (int32_t i = 0; i < axes->count; i++) {
        int32_t axis = axes->axis[i];
        if (axis < -rank || axis >= rank) {
            (void)ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, ftr_name_of(x),
                                     "axis %d of a tensor of rank %d", (int)axis, (int)rank);
            return false;
        }
        uint32_t bit = 1u << (uint32_t)(axis < 0 ? axis + rank : axis);
        if ((*mask & bit) != 0) {
            (void)ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, ftr_name_of(x), "axis %d is there twice",
                                     (int)axis);
            return false;
        }
        *mask |= bit;
    }
    return true;
}

static ftr_tensor ftr__reduce(ftr_op op, ftr_tensor x, const ftr_axes *axes, bool keep) {
    ftr_op_attr attr = {.axes = {0, keep}};
    if (!ftr__axes_mask(ftr_op_name(op), x, axes, &attr.axes.mask)) return (ftr_tensor){NULL, 0};
    return ftr__emit_one(op, &attr, x);
}

ftr_tensor ftr_sum(ftr_tensor x, ftr_axes axes, bool keep) { return ftr__reduce(FTR_OP_sum, x, &axes, keep); }
ftr_tensor ftr_mean(ftr_tensor x, ftr_axes axes, bool keep) { return ftr__reduce(FTR_OP_mean, x, &axes, keep); }
ftr_tensor ftr_max(ftr_tensor x, ftr_axes axes, bool keep) { return ftr__reduce(FTR_OP_max, x, &axes, keep); }

ftr_tensor ftr_argmax(ftr_tensor x, int32_t axis) {
    ftr_axes axes = FTR_AXES(axis);
    return ftr__reduce(FTR_OP_argmax, x, &axes, false);
}

ftr_tensor ftr__sum_mask(ftr_tensor x, uint32_t mask, bool keep) {
    ftr_op_attr attr = {.axes = {mask, keep}};
    return ftr__emit_one(FTR_OP_sum, &attr, x);
}

ftr_tensor ftr__reduce_to(ftr_tensor x, const ftr_shape *shape) {
    if (!ftr_is_valid(x)) return x;
    ftr_shape from = ftr_shape_of(x);
    int32_t extra = from.rank - shape->rank;
    uint32_t mask = 0;
    for (int32_t i = 0; i < from.rank; i++) {
        int64_t size = i < extra ? 1 : shape->dim[i - extra];
        if (size == 1 && from.dim[i] != 1) mask |= 1u << (uint32_t)i;
    }
    if (mask != 0) x = ftr__sum_mask(x, mask, extra == 0);
    return ftr__reshape_to(x, shape);
}

/* ---- shapes and types */

ftr_shape ftr__kept_shape(const ftr_shape *shape, uint32_t mask) {
    ftr_shape kept = *shape;
    for (int32_t i = 0; i < kept.rank; i++)
        if ((mask >> i & 1u) != 0) kept.dim[i] = 1;
    return kept;
}

static ftr_status ftr__reduced_shape(ftr__infer *s, ftr_dtype dtype) {
    const ftr_shape *in = &s->in[0]->shape;
    uint32_t mask = s->node->attr.axes.mask;
    if (mask >> in->rank != 0)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "axes 0x%x of a tensor of rank %d", (unsigned)mask,
                                (int)in->rank);
    ftr_shape out = {0, {0}};
    for (int32_t i = 0; i < in->rank; i++) {
        bool reduced = (mask >> i & 1u) != 0;
        if (!reduced || s->node->attr.axes.keep) out.dim[out.rank++] = reduced ? 1 : in->dim[i];
    }
    return ftr__set_output(s, 0, dtype, &out);
}

/* The maximum of nothing is undefined. */
static ftr_status ftr__check_not_empty(ftr__infer *s) {
    const ftr_shape *in = &s->in[0]->shape;
    for (int32_t i = 0; i < in->rank; i++) {
        if ((s->node->attr.axes.mask >> i & 1u) == 0 || in->dim[i] != 0) continue;
        char text[FTR__SHAPE_TEXT];
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "axis %d of %s has size 0, expected 1 or more", (int)i,
                                ftr__shape_text(in, text));
    }
    return FTR_OK;
}

ftr_status ftr__infer_sum(ftr__infer *s) {
    ftr_status status = ftr__check_arithmetic(s, 0, "input");
    return status != FTR_OK ? status : ftr__reduced_shape(s, s->in[0]->dtype);
}

ftr_status ftr__infer_mean(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "input");
    return status != FTR_OK ? status : ftr__reduced_shape(s, s->in[0]->dtype);
}

ftr_status ftr__infer_max(ftr__infer *s) {
    ftr_status status = ftr__check_arithmetic(s, 0, "input");
    if (status == FTR_OK) status = ftr__check_not_empty(s);
    return status != FTR_OK ? status : ftr__reduced_shape(s, s->in[0]->dtype);
}

ftr_status ftr__infer_argmax(ftr__infer *s) {
    ftr_status status = ftr__check_arithmetic(s, 0, "input");
    if (status == FTR_OK) status = ftr__check_not_empty(s);
    uint32_t mask = s->node->attr.axes.mask;
    if (status == FTR_OK && (mask == 0 || (mask & (mask - 1u)) != 0))
        status = ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "axes 0x%x, expected one axis", (unsigned)mask);
    return status != FTR_OK ? status : ftr__reduced_shape(s, FTR_I64);
}

/* ---- gradients */

void ftr__grad_sum(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_shape shape = ftr_shape_of(s->in[0]);
    ftr_shape kept = ftr__kept_shape(&shape, s->node->attr.axes.mask);
    ftr_tensor dy = ftr__reshape_to(s->dout[0], &kept);
    s->din[0] = ftr_shape_equal(&shape, &kept) ? dy : ftr_expand(dy, shape);
}

void ftr__grad_mean(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_shape shape = ftr_shape_of(s->in[0]);
    ftr_shape kept = ftr__kept_shape(&shape, s->node->attr.axes.mask);
    if (ftr_shape_equal(&shape, &kept)) {
        s->din[0] = ftr__reshape_to(s->dout[0], &shape);
        return;
    }
    double count = 1.0;
    for (int32_t i = 0; i < shape.rank; i++)
        if ((s->node->attr.axes.mask >> i & 1u) != 0) count *= (double)shape.dim[i];
    ftr_tensor scale = ftr_scalar(s->graph, ftr_dtype_of(s->dout[0]), count > 0.0 ? 1.0 / count : 0.0);
    s->din[0] = ftr_expand(ftr_mul(ftr__reshape_to(s->dout[0], &kept), scale), shape);
}

/* Each of k equal maxima gets dy / k. NaN equals nothing: for a maximum of NaN all gradients are 0 / 0, as PyTorch's. */
void ftr__grad_max(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_shape shape = ftr_shape_of(s->in[0]);
    ftr_dtype dtype = ftr_dtype_of(s->dout[0]);
    uint32_t mask = s->node->attr.axes.mask;
    ftr_shape kept = ftr__kept_shape(&shape, mask);
    ftr_tensor dy = ftr__reshape_to(s->dout[0], &kept);
    if (ftr_shape_equal(&shape, &kept)) {
        s->din[0] = dy;
        return;
    }
    ftr_tensor at_max = ftr_eq(s->in[0], ftr__reshape_to(s->out[0], &kept));
    ftr_tensor ties = ftr__sum_mask(ftr_cast(at_max, dtype), mask, true);
    ftr_tensor zero = ftr_div(ftr_scalar(s->graph, dtype, 0.0), ties);
    s->din[0] = ftr_where(at_max, ftr_div(dy, ties), zero);
}

/* ---- src/ops/matmul.c ---- */
/* Matrix products: matmul and the linear layer. */

/* ---- builders */

ftr_tensor ftr_matmul(ftr_tensor a, ftr_tensor b, bool transpose_a, bool transpose_b) {
    ftr_op_attr attr = {.matmul = {transpose_a, transpose_b}};
    return ftr__emit_two(FTR_OP_matmul, &attr, a, b);
}

static ftr_tensor ftr__linear_named(ftr_tensor x, ftr_tensor weight, ftr_tensor bias, const char *name) {
    ftr_tensor in[3] = {x, weight, bias};
    ftr_op_attr attr = {.linear = {FTR_ACT_NONE}};
    return ftr__emit(x.graph != NULL ? x.graph : weight.graph, FTR_OP_linear, name, &attr, in, 3);
}

ftr_tensor ftr_linear_with(ftr_tensor x, ftr_tensor weight, ftr_tensor bias) {
    return ftr__linear_named(x, weight, bias, NULL);
}

ftr_tensor ftr_linear(ftr_tensor x, const char *name, int64_t out_features, const ftr_linear_desc *desc) {
    ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__layer_begin("linear", name, x, 1, FTR_MAX_RANK, "..., in");
    if (graph == NULL) return none;
    if (out_features < 1)
        return ftr__layer_error(graph, FTR_ERROR_INVALID_ARGUMENT, "linear", name,
                                "out_features %lld, expected 1 or more", (long long)out_features);
    ftr_shape shape = ftr_shape_of(x);
    ftr_dtype dtype = ftr_dtype_of(x);
    int64_t in_features = shape.dim[shape.rank - 1];
    ftr_shape weight_shape = FTR_SHAPE(out_features, in_features), bias_shape = FTR_SHAPE(out_features);
    ftr_init init = ftr__init_or(desc != NULL ? &desc->weight_init : NULL,
                                 (ftr_init){FTR_INIT_KAIMING_UNIFORM, sqrt(5.0), 0.0});
    ftr_tensor weight = ftr__layer_variable(graph, "linear", name, "weight", true, dtype, &weight_shape, init);
    ftr_tensor bias = none;
    if (desc == NULL || !desc->no_bias)
        bias = ftr__layer_variable(graph, "linear", name, "bias", true, dtype, &bias_shape,
                                   ftr__init_or(desc != NULL ? &desc->bias_init : NULL, ftr__bias_init(in_features)));
    return ftr__linear_named(x, weight, bias, name);
}

/* ---- shapes and types */

ftr_status ftr__infer_matmul(ftr__infer *s) {
    const ftr_shape *a = &s->in[0]->shape, *b = &s->in[1]->shape;
    ftr_status status = ftr__check_float(s, 0, "a");
    if (status == FTR_OK) status = ftr__check_float(s, 1, "b");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "a", "b");
    if (status != FTR_OK) return status;
    for (int32_t i = 0; i < 2; i++)
        if (s->in[i]->shape.rank < 2)
            return ftr__infer_error(s, FTR_ERROR_RANK, "%s has rank %d, expected 2 or more", i == 0 ? "a" : "b",
                                    (int)s->in[i]->shape.rank);
    bool ta = s->node->attr.matmul.transpose_a, tb = s->node->attr.matmul.transpose_b;
    int64_t m = a->dim[a->rank - (ta ? 1 : 2)], inner_a = a->dim[a->rank - (ta ? 2 : 1)];
    int64_t n = b->dim[b->rank - (tb ? 2 : 1)], inner_b = b->dim[b->rank - (tb ? 1 : 2)];
    char text_a[FTR__SHAPE_TEXT], text_b[FTR__SHAPE_TEXT];
    if (inner_a != inner_b)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "a is %s%s, b is %s%s: inner sizes %lld and %lld differ",
                                ftr__shape_text(a, text_a), ta ? " transposed" : "", ftr__shape_text(b, text_b),
                                tb ? " transposed" : "", (long long)inner_a, (long long)inner_b);
    ftr_shape batch_a = *a, batch_b = *b, out;
    batch_a.rank -= 2;
    batch_b.rank -= 2;
    if (!ftr__broadcast_shape(&batch_a, &batch_b, &out))
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "a is %s, b is %s: the leading dimensions do not broadcast",
                                ftr__shape_text(a, text_a), ftr__shape_text(b, text_b));
    out.dim[out.rank++] = m;
    out.dim[out.rank++] = n;
    return ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

ftr_status ftr__infer_linear(ftr__infer *s) {
    const ftr_shape *x = &s->in[0]->shape, *weight = &s->in[1]->shape;
    ftr_status status = ftr__check_float(s, 0, "input");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "input", "weight");
    if (status == FTR_OK) status = ftr__check_rank(s, 1, "weight", 2, "out, in");
    if (status != FTR_OK) return status;
    if (x->rank < 1) return ftr__infer_error(s, FTR_ERROR_RANK, "input has rank 0, expected 1 or more (..., in)");
    if (x->dim[x->rank - 1] != weight->dim[1])
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "input has %lld features, weight expects %lld",
                                (long long)x->dim[x->rank - 1], (long long)weight->dim[1]);
    if (s->in_count > 2 && s->in[2] != NULL) {
        status = ftr__check_vector(s, 2, "bias", weight->dim[0]);
        if (status != FTR_OK) return status;
    }
    ftr_shape out = *x;
    out.dim[out.rank - 1] = weight->dim[0];
    return ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

/* ---- gradients */

/* [.., n] as [rows, n]. */
static ftr_tensor ftr__as_rows(ftr_tensor x) {
    ftr_shape shape = ftr_shape_of(x);
    if (shape.rank < 1) return x;
    int64_t rows = 1;
    for (int32_t i = 0; i + 1 < shape.rank; i++) rows *= shape.dim[i];
    ftr_shape flat = FTR_SHAPE(rows, shape.dim[shape.rank - 1]);
    return ftr__reshape_to(x, &flat);
}

/* With A and B as stored and dY = dL/dY:  Y = A B: dA = dY B^T, dB = A^T dY; a transposed operand's gradient is the
 * transpose of that product, which is had by swapping the factors. */
void ftr__grad_matmul(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    bool ta = s->node->attr.matmul.transpose_a, tb = s->node->attr.matmul.transpose_b;
    ftr_tensor a = s->in[0], b = s->in[1], dy = s->dout[0];
    ftr_shape shape_a = ftr_shape_of(a), shape_b = ftr_shape_of(b);
    if (s->wanted[0]) {
        ftr_tensor da = ta ? ftr_matmul(b, dy, tb, true) : ftr_matmul(dy, b, false, !tb);
        s->din[0] = ftr__reduce_to(da, &shape_a);
    }
    if (!s->wanted[1]) return;
    if (shape_a.rank > 2 && shape_b.rank == 2 && !ta) { /* one product over all rows instead of a sum of products */
        a = ftr__as_rows(a);
        dy = ftr__as_rows(dy);
    }
    ftr_tensor db = tb ? ftr_matmul(dy, a, true, ta) : ftr_matmul(a, dy, !ta, false);
    s->din[1] = ftr__reduce_to(db, &shape_b);
}

/* y = x W^T + b:  dx = dy W,  dW = dy^T x,  db = sum of dy over rows. */
void ftr__grad_linear(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    ftr_tensor dy = ftr__as_rows(s->dout[0]);
    if (s->wanted[0]) {
        ftr_shape shape = ftr_shape_of(s->in[0]);
        s->din[0] = ftr__reshape_to(ftr_matmul(dy, s->in[1], false, false), &shape);
    }
    if (s->wanted[1]) s->din[1] = ftr_matmul(dy, ftr__as_rows(s->in[0]), true, false);
    if (s->node->in_count > 2 && s->wanted[2]) s->din[2] = ftr__sum_mask(dy, 1u, false);
}

/* ---- src/ops/einsum.c ---- */
/* Einstein summation. It makes no op of its own: it is built of diagonals (a slice of a reshape), sums, transposes, and one
 * product of what remains: a matrix product if an index is summed over that both operands have, else mul. */

/* Indices: a letter's character code, or for the dimensions of '...' those from here on, counted from the last one. */
#define FTR__EINSUM_DOTS 128

/* One operand, or the result (x is null, size unused). */
typedef struct ftr__einsum_term {
    ftr_tensor x;
    int32_t rank; /* while the equation is read: the number of letters, of which the first FTR_MAX_RANK are kept */
    int32_t dots; /* letters before '...'; -1: there is none */
    int32_t index[FTR_MAX_RANK];
    int64_t size[FTR_MAX_RANK];
} ftr__einsum_term;

typedef struct ftr__einsum {
    ftr_graph *graph;
    const char *equation;
    ftr__einsum_term in[2], out;
    int32_t count; /* of operands */
} ftr__einsum;

#define FTR__EINSUM_ERROR(e, status, ...)                                                                              \
    ((void)ftr__builder_error((e)->graph, status, "einsum", (e)->equation, __VA_ARGS__), false)

/* ---- reading the equation */

static bool ftr__einsum_is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* Reads letters and '...' up to what does not belong to a term. `what` names the term in the sentence. */
static bool ftr__einsum_read_term(const ftr__einsum *e, const char **at, ftr__einsum_term *term, const char *what) {
    for (const char *c = *at;; c++) {
        if (*c == ' ') continue;
        if (ftr__einsum_is_letter(*c)) {
            if (term->rank < FTR_MAX_RANK) term->index[term->rank] = *c;
            term->rank++;
        } else if (strncmp(c, "...", 3) == 0) {
            if (term->dots >= 0) return FTR__EINSUM_ERROR(e, FTR_ERROR_INVALID_ARGUMENT, "%s has '...' twice", what);
            term->dots = term->rank;
            c += 2;
        } else {
            *at = c;
            return true;
        }
    }
}

/* Operands, and the result if the equation has it: then *explicit is set. */
static bool ftr__einsum_read(ftr__einsum *e, bool *explicit_result) {
    static const char *const names[2] = {"operand 0", "operand 1"};
    const char *at = e->equation;
    int32_t terms = 0;
    e->in[0].dots = e->in[1].dots = e->out.dots = -1;
    for (bool next = true; next; terms++) {
        ftr__einsum_term more = {.dots = -1}; /* operands past the second are read, to count them */
        ftr__einsum_term *term = terms < 2 ? &e->in[terms] : &more;
        if (!ftr__einsum_read_term(e, &at, term, terms < 2 ? names[terms] : "an operand")) return false;
        next = *at == ',';
        if (next) at++;
    }
    *explicit_result = strncmp(at, "->", 2) == 0;
    if (*explicit_result) {
        at += 2;
        if (!ftr__einsum_read_term(e, &at, &e->out, "the result")) return false;
    }
    if (*at != '\0')
        return FTR__EINSUM_ERROR(e, FTR_ERROR_INVALID_ARGUMENT,
                                 "'%c' at position %d, expected letters, '...', ',' between operands, one '->'",
                                 *at > ' ' && *at <= '~' ? *at : '?', (int)(at - e->equation));
    if (terms > 2) return FTR__EINSUM_ERROR(e, FTR_ERROR_INVALID_ARGUMENT, "%d operands, expected 1 or 2", (int)terms);
    if (terms != e->count)
        return FTR__EINSUM_ERROR(e, FTR_ERROR_INVALID_ARGUMENT,
                                 "%d in the equation, %d given: operands must be as many", (int)terms, (int)e->count);
    return true;
}

/* ---- what the indices are */

/* Puts `dots` dimensions in the place of '...', if the term has it. */
static void ftr__einsum_spread(ftr__einsum_term *term, int32_t dots) {
    if (term->dots < 0) return;
    for (int32_t d = term->rank - 1; d >= term->dots; d--) term->index[d + dots] = term->index[d];
    for (int32_t d = 0; d < dots; d++) term->index[term->dots + d] = FTR__EINSUM_DOTS + dots - 1 - d;
    term->rank += dots;
}

/* The position of an index in a term; -1 if it is not there. */
static int32_t ftr__einsum_find(const ftr__einsum_term *term, int32_t index) {
    for (int32_t d = 0; d < term->rank; d++)
        if (term->index[d] == index) return d;
    return -1;
}

/* An operand's indices against its tensor; *dots grows to the dimensions of its '...'. */
static bool ftr__einsum_match(ftr__einsum *e, int32_t operand, int32_t *dots) {
    ftr__einsum_term *term = &e->in[operand];
    const ftr_shape shape = ftr_shape_of(term->x);
    const ftr_dtype dtype = ftr_dtype_of(term->x), first = ftr_dtype_of(e->in[0].x);
    char text[FTR__SHAPE_TEXT];
    if (!ftr__is_float(dtype) && dtype != FTR_I32 && dtype != FTR_I64)
        return FTR__EINSUM_ERROR(e, FTR_ERROR_DTYPE, "operand %d is %s, expected f32, f64, i32 or i64", (int)operand,
                                 ftr_dtype_name(dtype));
    if (dtype != first)
        return FTR__EINSUM_ERROR(e, FTR_ERROR_DTYPE, "operand 0 is %s, operand 1 is %s: both must have one type",
                                 ftr_dtype_name(first), ftr_dtype_name(dtype));
    const int32_t rest = shape.rank - term->rank;
    if (rest < 0 || (rest > 0 && term->dots < 0))
        return FTR__EINSUM_ERROR(e, FTR_ERROR_RANK, "operand %d has %d %s%s, its tensor is %s", (int)operand,
                                 (int)term->rank, term->rank == 1 ? "index" : "indices",
                                 term->dots < 0 ? "" : " beside '...'", ftr__shape_text(&shape, text));
    ftr__einsum_spread(term, rest);
    memcpy(term->size, shape.dim, sizeof term->size);
    if (term->dots >= 0 && rest > *dots) *dots = rest;
    return true;
}

static const char *ftr__einsum_name(int32_t index, char text[4]) {
    text[0] = (char)index;
    text[1] = '\0';
    return index < FTR__EINSUM_DOTS ? text : "...";
}

/* Equal sizes of one index; between two operands one of them may be 1. */
static bool ftr__einsum_check_sizes(const ftr__einsum *e) {
    char text[4];
    for (int32_t o = 0; o < e->count; o++)
        for (int32_t d = 0; d < e->in[o].rank; d++) {
            const ftr__einsum_term *term = &e->in[o];
            const int32_t before = ftr__einsum_find(term, term->index[d]);
            const int32_t other = o > 0 ? ftr__einsum_find(&e->in[0], term->index[d]) : -1;
            const int64_t size = term->size[d], size_other = other >= 0 ? e->in[0].size[other] : size;
            if (term->size[before] != size)
                return FTR__EINSUM_ERROR(e, FTR_ERROR_SHAPE, "index '%s' is %lld and %lld in operand %d",
                                         ftr__einsum_name(term->index[d], text), (long long)term->size[before],
                                         (long long)size, (int)o);
            if (size != size_other && size != 1 && size_other != 1)
                return FTR__EINSUM_ERROR(e, FTR_ERROR_SHAPE, "index '%s' is %lld in operand 0 and %lld in operand 1",
                                         ftr__einsum_name(term->index[d], text), (long long)size_other,
                                         (long long)size);
        }
    return true;
}

/* How often the operands have an index. */
static int32_t ftr__einsum_uses(const ftr__einsum *e, int32_t index) {
    int32_t uses = 0;
    for (int32_t o = 0; o < e->count; o++)
        for (int32_t d = 0; d < e->in[o].rank; d++) uses += e->in[o].index[d] == index;
    return uses;
}

/* Without "->": the dimensions of '...', then the letters that are there once, in the order of their codes. */
static void ftr__einsum_imply(ftr__einsum *e, bool has_dots) {
    e->out.dots = has_dots ? 0 : -1;
    for (int32_t index = 'A'; index <= 'z'; index++)
        if (ftr__einsum_uses(e, index) == 1) {
            if (e->out.rank < FTR_MAX_RANK) e->out.index[e->out.rank] = index;
            e->out.rank++;
        }
}

static bool ftr__einsum_check_result(ftr__einsum *e, int32_t dots) {
    ftr__einsum_term *out = &e->out;
    const int32_t rank = out->rank + (out->dots >= 0 ? dots : 0);
    if (rank > FTR_MAX_RANK)
        return FTR__EINSUM_ERROR(e, FTR_ERROR_RANK, "the result has rank %d, expected %d or less", (int)rank,
                                 FTR_MAX_RANK);
    for (int32_t d = 0; d < out->rank; d++) {
        if (ftr__einsum_uses(e, out->index[d]) == 0)
            return FTR__EINSUM_ERROR(e, FTR_ERROR_INVALID_ARGUMENT, "index '%c' of the result is in no operand",
                                     (char)out->index[d]);
        if (ftr__einsum_find(out, out->index[d]) != d)
            return FTR__EINSUM_ERROR(e, FTR_ERROR_INVALID_ARGUMENT, "index '%c' is twice in the result",
                                     (char)out->index[d]);
    }
    ftr__einsum_spread(out, dots);
    return true;
}

/* ---- an operand by itself */

static void ftr__einsum_remove(ftr__einsum_term *term, int32_t d) {
    term->rank--;
    for (; d < term->rank; d++) {
        term->index[d] = term->index[d + 1];
        term->size[d] = term->size[d + 1];
    }
}

static ftr_shape ftr__einsum_shape(const ftr__einsum_term *term) {
    ftr_shape shape = {term->rank, {0}};
    for (int32_t d = 0; d < term->rank; d++) shape.dim[d] = term->size[d];
    return shape;
}

/* Orders the dimensions so that the index at place i of `order` is dimension i; `order` has all of them. */
static void ftr__einsum_arrange(ftr__einsum_term *term, const int32_t *order) {
    const ftr__einsum_term from = *term;
    ftr_axes axes = {term->rank, {0}};
    bool same = true;
    for (int32_t i = 0; i < term->rank; i++) {
        axes.axis[i] = ftr__einsum_find(&from, order[i]);
        same = same && axes.axis[i] == i;
        term->index[i] = order[i];
        term->size[i] = from.size[axes.axis[i]];
    }
    if (!same) term->x = ftr_transpose(from.x, axes);
}

/* An index that is there twice: of the dimensions [n, n] at the end the elements 0, n + 1, 2 (n + 1), ... are kept. */
static void ftr__einsum_take_diagonal(ftr__einsum_term *term, int32_t first, int32_t second) {
    const int64_t n = term->size[first];
    const int32_t index = term->index[first];
    ftr_axes axes = {term->rank, {0}};
    int32_t kept = 0;
    for (int32_t d = 0; d < term->rank; d++)
        if (d != first && d != second) axes.axis[kept++] = d;
    axes.axis[kept] = first;
    axes.axis[kept + 1] = second;
    term->x = ftr_transpose(term->x, axes);
    ftr__einsum_remove(term, second);
    ftr__einsum_remove(term, first);
    term->index[term->rank] = index;
    term->size[term->rank++] = n * n;
    const ftr_shape flat = ftr__einsum_shape(term);
    term->x = ftr_slice(ftr__reshape_to(term->x, &flat), term->rank - 1, 0, n * n, n + 1);
    term->size[term->rank - 1] = n;
}

static void ftr__einsum_take_diagonals(ftr__einsum_term *term) {
    for (int32_t d = 1; d < term->rank; d++) {
        const int32_t first = ftr__einsum_find(term, term->index[d]);
        if (first == d) continue;
        ftr__einsum_take_diagonal(term, first, d);
        d = 0; /* the dimensions have moved */
    }
}

/* Takes out dimensions of size 1 that the other operand has larger: they broadcast. */
static void ftr__einsum_squeeze(ftr__einsum_term *term, const ftr__einsum_term *other) {
    for (int32_t d = term->rank - 1; d >= 0; d--) {
        const int32_t there = ftr__einsum_find(other, term->index[d]);
        if (there >= 0 && term->size[d] == 1 && other->size[there] != 1) ftr__einsum_remove(term, d);
    }
    const ftr_shape shape = ftr__einsum_shape(term);
    term->x = ftr__reshape_to(term->x, &shape);
}

/* Sums over what neither the other operand nor the result has. */
static void ftr__einsum_sum(ftr__einsum_term *term, const ftr__einsum_term *other, const ftr__einsum_term *out) {
    uint32_t mask = 0;
    for (int32_t d = 0; d < term->rank; d++)
        if (ftr__einsum_find(other, term->index[d]) < 0 && ftr__einsum_find(out, term->index[d]) < 0)
            mask |= 1u << (uint32_t)d;
    if (mask != 0) term->x = ftr__sum_mask(term->x, mask, false);
    for (int32_t d = term->rank - 1; d >= 0; d--)
        if ((mask >> d & 1u) != 0) ftr__einsum_remove(term, d);
}

/* ---- the product of two operands, whose indices are the other's or the result's by now */

/* The indices of `term` that the other operand has or lacks (shared) and that the result has or lacks (kept), in the order
 * in which `order` has them. */
static ftr__einsum_term ftr__einsum_select(const ftr__einsum *e, const ftr__einsum_term *order,
                                           const ftr__einsum_term *term, const ftr__einsum_term *other, bool shared,
                                           bool kept) {
    ftr__einsum_term list;
    memset(&list, 0, sizeof list);
    for (int32_t d = 0; d < order->rank; d++) {
        const int32_t index = order->index[d], at = ftr__einsum_find(term, index);
        if (at < 0 || (ftr__einsum_find(other, index) >= 0) != shared) continue;
        if ((ftr__einsum_find(&e->out, index) >= 0) != kept) continue;
        list.index[list.rank] = index;
        list.size[list.rank++] = term->size[at];
    }
    return list;
}

static int64_t ftr__einsum_elements(const ftr__einsum_term *list) {
    int64_t count = 1;
    for (int32_t d = 0; d < list->rank; d++) count *= list->size[d];
    return count;
}

/* Appends the indices of a list to a term. */
static void ftr__einsum_append(ftr__einsum_term *term, const ftr__einsum_term *list) {
    for (int32_t d = 0; d < list->rank; d++) {
        term->index[term->rank] = list->index[d];
        term->size[term->rank++] = list->size[d];
    }
}

/* Nothing to sum over: both in the order of the result, with size 1 for what they lack. */
static ftr_tensor ftr__einsum_multiply(ftr__einsum *e) {
    ftr_tensor factor[2];
    for (int32_t o = 0; o < 2; o++) {
        ftr__einsum_term *term = &e->in[o];
        ftr_shape wide = {e->out.rank, {0}};
        int32_t order[FTR_MAX_RANK], count = 0;
        for (int32_t d = 0; d < e->out.rank; d++) {
            const int32_t at = ftr__einsum_find(term, e->out.index[d]);
            wide.dim[d] = at >= 0 ? term->size[at] : 1;
            if (at >= 0) order[count++] = e->out.index[d];
        }
        ftr__einsum_arrange(term, order);
        factor[o] = ftr__reshape_to(term->x, &wide);
    }
    return ftr_mul(factor[0], factor[1]);
}

typedef struct ftr__einsum_matrix {
    ftr_tensor x;
    int64_t batch, free, summed;
    bool summed_first; /* [batch, summed, free]; otherwise [batch, free, summed] */
} ftr__einsum_matrix;

/* Joins the dimensions of an operand by kind, and orders them if they do not lie in one of the two orders. */
static ftr__einsum_matrix ftr__einsum_as_matrix(ftr__einsum_term *term, const ftr__einsum_term *batch,
                                                const ftr__einsum_term *rows, const ftr__einsum_term *summed) {
    ftr__einsum_term order[2];
    memset(order, 0, sizeof order);
    for (int32_t form = 0; form < 2; form++) {
        ftr__einsum_append(&order[form], batch);
        ftr__einsum_append(&order[form], form == 0 ? rows : summed);
        ftr__einsum_append(&order[form], form == 0 ? summed : rows);
    }
    const bool summed_first = memcmp(term->index, order[1].index, (size_t)term->rank * sizeof term->index[0]) == 0;
    ftr__einsum_arrange(term, order[summed_first ? 1 : 0].index);
    return (ftr__einsum_matrix){term->x, ftr__einsum_elements(batch), ftr__einsum_elements(rows),
                                ftr__einsum_elements(summed), summed_first};
}

/* [batch, free of a, free of b]: of floats by matmul; of integers, which it does not take, as a sum of products. */
static ftr_tensor ftr__einsum_matrix_product(const ftr__einsum_matrix *a, const ftr__einsum_matrix *b) {
    const int64_t batch = a->batch, m = a->free, n = b->free, k = a->summed;
    ftr_shape left = a->summed_first ? FTR_SHAPE(batch, k, m) : FTR_SHAPE(batch, m, k);
    ftr_shape right = b->summed_first ? FTR_SHAPE(batch, k, n) : FTR_SHAPE(batch, n, k);
    ftr_tensor x = ftr__reshape_to(a->x, &left), y = ftr__reshape_to(b->x, &right);
    if (ftr__is_float(ftr_dtype_of(x))) return ftr_matmul(x, y, a->summed_first, !b->summed_first);
    if (a->summed_first) x = ftr_transpose(x, FTR_AXES(0, 2, 1));
    if (b->summed_first) y = ftr_transpose(y, FTR_AXES(0, 2, 1));
    x = ftr_reshape(x, FTR_SHAPE(batch, m, 1, k));
    y = ftr_reshape(y, FTR_SHAPE(batch, 1, n, k));
    return ftr__sum_mask(ftr_mul(x, y), 1u << 3, false);
}

/* The operands as matrices; `a` is the one whose free indices come first in the result. */
static ftr_tensor ftr__einsum_contract(const ftr__einsum *e, ftr__einsum_term *a, ftr__einsum_term *b) {
    const ftr__einsum_term batch = ftr__einsum_select(e, &e->out, a, b, true, true);
    const ftr__einsum_term summed = ftr__einsum_select(e, a, a, b, true, false);
    const ftr__einsum_term free_a = ftr__einsum_select(e, &e->out, a, b, false, true);
    const ftr__einsum_term free_b = ftr__einsum_select(e, &e->out, b, a, false, true);
    const ftr__einsum_matrix left = ftr__einsum_as_matrix(a, &batch, &free_a, &summed);
    const ftr__einsum_matrix right = ftr__einsum_as_matrix(b, &batch, &free_b, &summed);
    ftr__einsum_term made;
    memset(&made, 0, sizeof made);
    ftr__einsum_append(&made, &batch);
    ftr__einsum_append(&made, &free_a);
    ftr__einsum_append(&made, &free_b);
    const ftr_shape shape = ftr__einsum_shape(&made);
    made.x = ftr__einsum_matrix_product(&left, &right);
    made.x = ftr__reshape_to(made.x, &shape);
    ftr__einsum_arrange(&made, e->out.index);
    return made.x;
}

static ftr_tensor ftr__einsum_product(ftr__einsum *e) {
    ftr__einsum_term *a = &e->in[0], *b = &e->in[1];
    const ftr__einsum_term *out = &e->out;
    bool contracts = false;
    for (int32_t d = 0; d < a->rank; d++) contracts = contracts || ftr__einsum_find(out, a->index[d]) < 0;
    if (!contracts) return ftr__einsum_multiply(e);
    for (int32_t d = 0; d < out->rank; d++) {
        const bool in_a = ftr__einsum_find(a, out->index[d]) >= 0, in_b = ftr__einsum_find(b, out->index[d]) >= 0;
        if (in_a && in_b) continue;
        return in_a ? ftr__einsum_contract(e, a, b) : ftr__einsum_contract(e, b, a);
    }
    return ftr__einsum_contract(e, a, b);
}

/* ---- builder */

/* Reads and checks everything; nothing is built before. */
static bool ftr__einsum_prepare(ftr__einsum *e) {
    bool explicit_result;
    int32_t dots = 0;
    if (!ftr__einsum_read(e, &explicit_result)) return false;
    const bool has_dots = e->in[0].dots >= 0 || e->in[1].dots >= 0;
    for (int32_t o = 0; o < e->count; o++)
        if (!ftr__einsum_match(e, o, &dots)) return false;
    if (!ftr__einsum_check_sizes(e)) return false;
    if (!explicit_result) ftr__einsum_imply(e, has_dots);
    return ftr__einsum_check_result(e, dots);
}

ftr_tensor ftr_einsum(const char *equation, ftr_tensor a, ftr_tensor b) {
    const ftr_tensor none = {NULL, 0}, in[2] = {a, b};
    ftr__einsum e;
    memset(&e, 0, sizeof e);
    e.graph = ftr__common_graph("einsum", in, 2, 1);
    if (e.graph == NULL) return none;
    if (equation == NULL)
        return ftr__builder_error(e.graph, FTR_ERROR_INVALID_ARGUMENT, "einsum", NULL, "the equation is NULL");
    e.equation = equation;
    e.count = ftr_is_valid(b) ? 2 : 1;
    e.in[0].x = a;
    e.in[1].x = b;
    if (!ftr__einsum_prepare(&e)) return none;
    for (int32_t o = 0; o < e.count; o++) ftr__einsum_take_diagonals(&e.in[o]);
    for (int32_t o = 0; o < e.count; o++) ftr__einsum_squeeze(&e.in[o], &e.in[1 - o]);
    for (int32_t o = 0; o < e.count; o++) ftr__einsum_sum(&e.in[o], &e.in[1 - o], &e.out);
    if (e.count == 2) return ftr__einsum_product(&e);
    ftr__einsum_arrange(&e.in[0], e.out.index);
    return e.in[0].x;
}

/* ---- src/ops/conv.c ---- */
/* 2-D convolution over NHWC with OHWI weights. */

/* ---- builders */

static int32_t ftr__or_default(int32_t value, int32_t otherwise) { return value == 0 ? otherwise : value; }

static ftr_op_attr ftr__conv_attr(const ftr_conv2d_desc *desc) {
    ftr_conv2d_desc d;
    memset(&d, 0, sizeof d);
    if (desc != NULL) d = *desc;
    ftr_op_attr attr;
    memset(&attr, 0, sizeof attr);
    for (int32_t i = 0; i < 2; i++) {
        attr.conv.stride[i] = ftr__or_default(d.stride[i], 1);
        attr.conv.dilation[i] = ftr__or_default(d.dilation[i], 1);
    }
    for (int32_t i = 0; i < 4; i++) attr.conv.padding[i] = d.padding[i];
    attr.conv.groups = ftr__or_default(d.groups, 1);
    attr.conv.activation = FTR_ACT_NONE;
    return attr;
}

static ftr_tensor ftr__conv2d_named(ftr_tensor x, ftr_tensor weight, ftr_tensor bias, const ftr_conv2d_desc *desc,
                                    const char *name) {
    ftr_tensor in[3] = {x, weight, bias};
    ftr_op_attr attr = ftr__conv_attr(desc);
    ftr_tensor y = ftr__emit(x.graph != NULL ? x.graph : weight.graph, FTR_OP_conv2d, name, &attr, in, 3);
    if (!ftr_is_valid(y)) return y;
    const ftr__node *producer = ftr__producer(weight);
    if (producer != NULL && producer->variable >= 0) y.graph->variables[producer->variable].conv_weight = true;
    return y;
}

ftr_tensor ftr_conv2d_with(ftr_tensor x, ftr_tensor weight, ftr_tensor bias, const ftr_conv2d_desc *desc) {
    return ftr__conv2d_named(x, weight, bias, desc, NULL);
}

/* What the parameters' shapes depend on; the rest is checked with the node. */
static bool ftr__conv_layer_fits(ftr_graph *graph, const char *name, int64_t channels, int64_t out_channels,
                                 int32_t kernel, int32_t groups) {
    const ftr_status bad = FTR_ERROR_INVALID_ARGUMENT;
    if (out_channels < 1)
        (void)ftr__layer_error(graph, bad, "conv2d", name, "out_channels %lld, expected 1 or more",
                               (long long)out_channels);
    else if (kernel < 1)
        (void)ftr__layer_error(graph, bad, "conv2d", name, "kernel %d, expected 1 or more", (int)kernel);
    else if (groups < 1)
        (void)ftr__layer_error(graph, bad, "conv2d", name, "groups %d, expected 1 or more", (int)groups);
    else if (channels % groups != 0)
        (void)ftr__layer_error(graph, FTR_ERROR_SHAPE, "conv2d", name,
                               "input has %lld channels, which groups %d does not divide", (long long)channels,
                               (int)groups);
    else if (out_channels % groups != 0)
        (void)ftr__layer_error(graph, FTR_ERROR_SHAPE, "conv2d", name,
                               "weight has %lld output channels, which groups %d does not divide",
                               (long long)out_channels, (int)groups);
    else
        return true;
    return false;
}

ftr_tensor ftr_conv2d(ftr_tensor x, const char *name, int64_t out_channels, int32_t kernel,
                      const ftr_conv2d_desc *desc) {
    ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__layer_begin("conv2d", name, x, 4, 4, "n, h, w, c");
    if (graph == NULL) return none;
    ftr_dtype dtype = ftr_dtype_of(x);
    int64_t channels = ftr_shape_of(x).dim[3];
    int32_t groups = ftr__or_default(desc != NULL ? desc->groups : 0, 1);
    if (!ftr__conv_layer_fits(graph, name, channels, out_channels, kernel, groups)) return none;
    ftr_shape weight_shape = FTR_SHAPE(out_channels, kernel, kernel, channels / groups);
    ftr_shape bias_shape = FTR_SHAPE(out_channels);
    if (ftr_shape_count(&weight_shape) < 0) {
        char text[FTR__SHAPE_TEXT];
        return ftr__layer_error(graph, FTR_ERROR_SHAPE, "conv2d", name, "the weight %s has too many elements",
                                ftr__shape_text(&weight_shape, text));
    }
    int64_t fan_in = channels / groups * kernel * kernel;
    ftr_init init = ftr__init_or(desc != NULL ? &desc->weight_init : NULL,
                                 (ftr_init){FTR_INIT_KAIMING_UNIFORM, sqrt(5.0), 0.0});
    ftr_tensor weight = ftr__layer_variable(graph, "conv2d", name, "weight", true, dtype, &weight_shape, init);
    ftr_tensor bias = none;
    if (desc == NULL || !desc->no_bias)
        bias = ftr__layer_variable(graph, "conv2d", name, "bias", true, dtype, &bias_shape,
                                   ftr__init_or(desc != NULL ? &desc->bias_init : NULL, ftr__bias_init(fan_in)));
    return ftr__conv2d_named(x, weight, bias, desc, name);
}

/* ---- shapes and types */

static ftr_status ftr__check_conv_attr(ftr__infer *s) {
    const ftr_op_attr *attr = &s->node->attr;
    for (int32_t i = 0; i < 2; i++) {
        if (attr->conv.stride[i] < 1)
            return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "stride %d, expected 1 or more",
                                    (int)attr->conv.stride[i]);
        if (attr->conv.dilation[i] < 1)
            return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "dilation %d, expected 1 or more",
                                    (int)attr->conv.dilation[i]);
    }
    for (int32_t i = 0; i < 4; i++)
        if (attr->conv.padding[i] < 0)
            return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "padding %d, expected 0 or more",
                                    (int)attr->conv.padding[i]);
    if (attr->conv.groups < 1)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "groups %d, expected 1 or more", (int)attr->conv.groups);
    return FTR_OK;
}

static ftr_status ftr__check_conv_channels(ftr__infer *s, const ftr_shape *x, const ftr_shape *weight) {
    int64_t groups = s->node->attr.conv.groups;
    if (x->dim[3] % groups != 0)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "input has %lld channels, which groups %d does not divide",
                                (long long)x->dim[3], (int)groups);
    if (weight->dim[0] % groups != 0)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "weight has %lld output channels, which groups %d does not divide",
                                (long long)weight->dim[0], (int)groups);
    if (weight->dim[3] != x->dim[3] / groups) {
        int64_t expected = weight->dim[3] > INT64_MAX / groups ? INT64_MAX : weight->dim[3] * groups;
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "input has %lld channels, weight expects %lld (groups %d)",
                                (long long)x->dim[3], (long long)expected, (int)groups);
    }
    return FTR_OK;
}

static ftr_status ftr__conv_does_not_fit(ftr__infer *s, const int64_t padded[2]) {
    const ftr_op_attr *attr = &s->node->attr;
    char dilation[32];
    if (attr->conv.dilation[0] == attr->conv.dilation[1])
        (void)snprintf(dilation, sizeof dilation, "%d", (int)attr->conv.dilation[0]);
    else
        (void)snprintf(dilation, sizeof dilation, "%d x %d", (int)attr->conv.dilation[0], (int)attr->conv.dilation[1]);
    return ftr__infer_error(
        s, FTR_ERROR_SHAPE, "kernel %d x %d (dilation %s) does not fit the padded input of %lld x %lld",
        (int)attr->conv.kernel[0], (int)attr->conv.kernel[1], dilation, (long long)padded[0], (long long)padded[1]);
}

/* Completes the attributes with kernel and input size, and fills height and width of the result. */
static ftr_status ftr__conv_window(ftr__infer *s, const ftr_shape *x, const ftr_shape *weight, ftr_shape *out) {
    ftr_op_attr *attr = &s->node->attr;
    int64_t padded[2], span[2];
    for (int32_t i = 0; i < 2; i++) {
        if (weight->dim[1 + i] < 1 || weight->dim[1 + i] > INT32_MAX)
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "kernel %lld x %lld, expected 1 or more",
                                    (long long)weight->dim[1], (long long)weight->dim[2]);
        attr->conv.kernel[i] = (int32_t)weight->dim[1 + i];
        attr->conv.input[i] = x->dim[1 + i];
        int64_t padding = (int64_t)attr->conv.padding[2 * i] + attr->conv.padding[2 * i + 1];
        if (x->dim[1 + i] > INT64_MAX - padding)
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "the padded input has too many elements");
        padded[i] = x->dim[1 + i] + padding;
        span[i] = (int64_t)attr->conv.dilation[i] * (weight->dim[1 + i] - 1) + 1;
    }
    if (span[0] > padded[0] || span[1] > padded[1]) return ftr__conv_does_not_fit(s, padded);
    for (int32_t i = 0; i < 2; i++) out->dim[1 + i] = (padded[i] - span[i]) / attr->conv.stride[i] + 1;
    return FTR_OK;
}

ftr_status ftr__infer_conv2d(ftr__infer *s) {
    const ftr_shape *x = &s->in[0]->shape, *weight = &s->in[1]->shape;
    ftr_shape out = {4, {x->dim[0], 0, 0, weight->dim[0]}};
    ftr_status status = ftr__check_rank(s, 0, "input", 4, "n, h, w, c");
    if (status == FTR_OK) status = ftr__check_rank(s, 1, "weight", 4, "o, kh, kw, c / groups");
    if (status == FTR_OK) status = ftr__check_float(s, 0, "input");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "input", "weight");
    if (status == FTR_OK) status = ftr__check_conv_attr(s);
    if (status == FTR_OK) status = ftr__check_conv_channels(s, x, weight);
    if (status == FTR_OK && s->in_count > 2 && s->in[2] != NULL)
        status = ftr__check_vector(s, 2, "bias", weight->dim[0]);
    if (status == FTR_OK) status = ftr__conv_window(s, x, weight, &out);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

ftr_status ftr__infer_conv2d_grad_input(ftr__infer *s) {
    const ftr_shape *dy = &s->in[0]->shape, *weight = &s->in[1]->shape;
    ftr_status status = ftr__check_rank(s, 0, "dy", 4, "n, oh, ow, o");
    if (status == FTR_OK) status = ftr__check_rank(s, 1, "weight", 4, "o, kh, kw, c / groups");
    if (status == FTR_OK) status = ftr__check_float(s, 0, "dy");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dy", "weight");
    if (status != FTR_OK) return status;
    const ftr_op_attr *attr = &s->node->attr;
    ftr_shape dx = FTR_SHAPE(dy->dim[0], attr->conv.input[0], attr->conv.input[1], weight->dim[3] * attr->conv.groups);
    return ftr__set_output(s, 0, s->in[0]->dtype, &dx);
}

ftr_status ftr__infer_conv2d_grad_weight(ftr__infer *s) {
    const ftr_shape *dy = &s->in[0]->shape, *x = &s->in[1]->shape;
    ftr_status status = ftr__check_rank(s, 0, "dy", 4, "n, oh, ow, o");
    if (status == FTR_OK) status = ftr__check_rank(s, 1, "input", 4, "n, h, w, c");
    if (status == FTR_OK) status = ftr__check_float(s, 0, "dy");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dy", "input");
    if (status == FTR_OK) status = ftr__check_conv_attr(s);
    if (status != FTR_OK) return status;
    const ftr_op_attr *attr = &s->node->attr;
    ftr_shape dw = FTR_SHAPE(dy->dim[3], attr->conv.kernel[0], attr->conv.kernel[1], x->dim[3] / attr->conv.groups);
    return ftr__set_output(s, 0, s->in[0]->dtype, &dw);
}

/* ---- gradient */

void ftr__grad_conv2d(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    ftr_op_attr attr = s->node->attr;
    attr.conv.activation = FTR_ACT_NONE;
    ftr_tensor dy = s->dout[0];
    if (s->wanted[0]) s->din[0] = ftr__emit_two(FTR_OP_conv2d_grad_input, &attr, dy, s->in[1]);
    if (s->wanted[1]) s->din[1] = ftr__emit_two(FTR_OP_conv2d_grad_weight, &attr, dy, s->in[0]);
    if (s->node->in_count > 2 && s->wanted[2]) s->din[2] = ftr__sum_mask(dy, 0x7u, false);
}

/* ---- src/ops/norm.c ---- */
/* Batch normalization over the last dimension's channels (Ioffe, Szegedy: Batch Normalization, ICML 2015). */

#define FTR__COOKIE_BATCH_NORM 0x424e4f52u

/* ---- builders */

ftr_batch_norm_desc ftr_batch_norm_defaults(void) {
    ftr_batch_norm_desc desc = {FTR__COOKIE_BATCH_NORM, 1e-5, 0.1};
    return desc;
}

static ftr_tensor ftr__batch_norm_named(ftr_tensor x, const ftr_tensor state[4], const ftr_batch_norm_desc *desc,
                                        const char *name) {
    ftr_tensor none = {NULL, 0};
    ftr_tensor in[7] = {x, state[0], state[1], state[2], state[3], none, none};
    ftr_graph *graph = ftr__common_graph("batch_norm", in, 5, 5);
    if (graph == NULL) return none;
    ftr_batch_norm_desc d = desc != NULL ? *desc : ftr_batch_norm_defaults();
    if (d.cookie != FTR__COOKIE_BATCH_NORM)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "batch_norm", name,
                                  "desc was not made by ftr_batch_norm_defaults()");
    ftr_shape shape = ftr_shape_of(x);
    in[5] = ftr__row_mask(graph, &shape, ftr_dtype_of(x));
    ftr_op_attr attr = {.norm = {d.eps, d.momentum, true, FTR_ACT_NONE}};
    return ftr__emit(graph, FTR_OP_batch_norm, name, &attr, in, 7);
}

ftr_tensor ftr_batch_norm_with(ftr_tensor x, ftr_tensor gamma, ftr_tensor beta, ftr_tensor running_mean,
                               ftr_tensor running_var, const ftr_batch_norm_desc *desc) {
    ftr_tensor state[4] = {gamma, beta, running_mean, running_var};
    return ftr__batch_norm_named(x, state, desc, NULL);
}

ftr_tensor ftr_batch_norm(ftr_tensor x, const char *name, const ftr_batch_norm_desc *desc) {
    static const struct {
        const char *field;
        bool trainable;
        double value;
    } states[4] = {
        {"weight", true, 1.0}, {"bias", true, 0.0}, {"running_mean", false, 0.0}, {"running_var", false, 1.0}};
    ftr_graph *graph = ftr__layer_begin("batch_norm", name, x, 2, FTR_MAX_RANK, "n, ..., c");
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    ftr_shape shape = ftr_shape_of(x);
    ftr_shape channels = FTR_SHAPE(shape.dim[shape.rank - 1]);
    ftr_tensor state[4];
    for (int32_t i = 0; i < 4; i++) {
        ftr_init init = {FTR_INIT_CONSTANT, states[i].value, 0.0};
        state[i] = ftr__layer_variable(graph, "batch_norm", name, states[i].field, states[i].trainable, ftr_dtype_of(x),
                                       &channels, init);
        if (!ftr_is_valid(state[i])) return state[i];
    }
    return ftr__batch_norm_named(x, state, desc, name);
}

/* ---- shapes and types */

/* Input `index`, if given, marks the rows of x that count. */
static ftr_status ftr__check_row_mask(ftr__infer *s, int32_t index, int64_t rows) {
    if (s->in_count <= index || s->in[index] == NULL) return FTR_OK;
    return ftr__check_vector(s, index, "row mask", rows);
}

static ftr_status ftr__norm_outputs(ftr__infer *s, const ftr_shape *x, int32_t vectors) {
    ftr_shape channels = FTR_SHAPE(x->dim[x->rank - 1]);
    ftr_status status = ftr__set_output(s, 0, s->in[0]->dtype, x);
    for (int32_t i = 1; i <= vectors && status == FTR_OK; i++)
        status = ftr__set_output(s, i, s->in[0]->dtype, &channels);
    return status;
}

static ftr_status ftr__check_norm_attr(ftr__infer *s) {
    double eps = s->node->attr.norm.eps, momentum = s->node->attr.norm.momentum;
    if (!(eps >= 0.0) || !isfinite(eps))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "eps %g, expected a finite number of 0 or more", eps);
    if (!(momentum >= 0.0 && momentum <= 1.0))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "momentum %g, expected 0 to 1", momentum);
    return FTR_OK;
}

ftr_status ftr__infer_batch_norm(ftr__infer *s) {
    static const char *const words[5] = {"input", "gamma", "beta", "running mean", "running variance"};
    const ftr_shape *x = &s->in[0]->shape;
    ftr_status status = ftr__check_float(s, 0, "input");
    if (status != FTR_OK) return status;
    if (x->rank < 2)
        return ftr__infer_error(s, FTR_ERROR_RANK, "input has rank %d, expected 2 or more (n, ..., c)", (int)x->rank);
    status = ftr__check_norm_attr(s);
    for (int32_t i = 1; i < 5 && status == FTR_OK; i++) status = ftr__check_vector(s, i, words[i], x->dim[x->rank - 1]);
    if (status == FTR_OK) status = ftr__check_row_mask(s, 5, x->dim[0]);
    if (status == FTR_OK && s->in_count > 6 && s->in[6] != NULL) {
        status = ftr__check_same_type(s, 0, 6, "input", "residual");
        if (status == FTR_OK) status = ftr__check_same_shape(s, 0, 6, "input", "residual");
    }
    return status != FTR_OK ? status : ftr__norm_outputs(s, x, 3);
}

ftr_status ftr__infer_batch_norm_grad(ftr__infer *s) {
    static const char *const words[5] = {"dy", "input", "gamma", "mean", "1 / std"};
    const ftr_shape *x = &s->in[1]->shape;
    ftr_status status = ftr__check_float(s, 0, "dy");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dy", "input");
    if (status == FTR_OK) status = ftr__check_same_shape(s, 0, 1, "dy", "input");
    if (status != FTR_OK) return status;
    if (x->rank < 2)
        return ftr__infer_error(s, FTR_ERROR_RANK, "input has rank %d, expected 2 or more (n, ..., c)", (int)x->rank);
    for (int32_t i = 2; i < 5 && status == FTR_OK; i++) status = ftr__check_vector(s, i, words[i], x->dim[x->rank - 1]);
    if (status == FTR_OK) status = ftr__check_row_mask(s, 5, x->dim[0]);
    if (status == FTR_OK && s->in_count > 6 && s->in[6] != NULL) status = ftr__check_same_shape(s, 0, 6, "dy", "y");
    return status != FTR_OK ? status : ftr__norm_outputs(s, x, 2);
}

/* ---- gradient */

void ftr__grad_batch_norm(ftr__grad *s) {
    if (!ftr__has_gradient(s) || (!s->wanted[0] && !s->wanted[1] && !s->wanted[2])) return;
    ftr_tensor none = {NULL, 0};
    const ftr_op_attr *attr = &s->node->attr;
    ftr_tensor in[7] = {s->dout[0],
                        s->in[0],
                        s->in[1],
                        attr->norm.training ? s->out[1] : s->in[3],
                        s->out[3],
                        s->node->in_count > 5 ? s->in[5] : none,
                        attr->norm.activation != FTR_ACT_NONE ? s->out[0] : none};
    ftr_tensor dx = ftr__emit(s->graph, FTR_OP_batch_norm_grad, NULL, attr, in, 7);
    if (!ftr_is_valid(dx)) return;
    for (int32_t i = 0; i < 3; i++)
        if (s->wanted[i]) s->din[i] = ftr__output(dx, i);
}

/* ---- src/ops/row_norm.c ---- */
/* Normalization within a sample: layer norm and RMS norm over rows, group norm over groups of channels. */

#define FTR__COOKIE_LAYER_NORM 0x4c4e4f52u
#define FTR__COOKIE_RMS_NORM 0x524d534eu
#define FTR__COOKIE_GROUP_NORM 0x474e4f52u

/* ---- builders */

ftr_layer_norm_desc ftr_layer_norm_defaults(void) {
    ftr_layer_norm_desc desc = {FTR__COOKIE_LAYER_NORM, 1e-5, 0, false};
    return desc;
}

ftr_rms_norm_desc ftr_rms_norm_defaults(void) {
    ftr_rms_norm_desc desc = {FTR__COOKIE_RMS_NORM, 0x1p-23};
    return desc;
}

ftr_group_norm_desc ftr_group_norm_defaults(void) {
    ftr_group_norm_desc desc = {FTR__COOKIE_GROUP_NORM, 1e-5};
    return desc;
}

/* `known`: the description's cookie is right; it is NULL or the attributes were made of it. */
static ftr_tensor ftr__row_norm_node(ftr_op op, bool known, const ftr_op_attr *attr, const ftr_tensor *in,
                                     int32_t in_count, const char *name) {
    const char *what = ftr_op_name(op);
    ftr_graph *graph = ftr__common_graph(what, in, in_count, 1);
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    if (!known)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, name,
                                  "desc was not made by ftr_%s_defaults()", what);
    return ftr__emit(graph, op, name, attr, in, in_count);
}

/* Parameters "name.weight" and, if asked for, "name.bias" over the last dimension; false on an error. */
static bool ftr__row_norm_parameters(ftr_op op, const char *name, ftr_tensor x, int32_t min_rank, const char *layout,
                                     ftr_tensor *weight, ftr_tensor *bias) {
    ftr_graph *graph = ftr__layer_begin(ftr_op_name(op), name, x, min_rank, FTR_MAX_RANK, layout);
    if (graph == NULL) return false;
    ftr_shape shape = ftr_shape_of(x), size = FTR_SHAPE(shape.dim[shape.rank - 1]);
    ftr_init one = {FTR_INIT_CONSTANT, 1.0, 0.0}, zero = {FTR_INIT_ZEROS, 0.0, 0.0};
    ftr_dtype dtype = ftr_dtype_of(x);
    *weight = ftr__layer_variable(graph, ftr_op_name(op), name, "weight", true, dtype, &size, one);
    if (ftr_is_valid(*weight) && bias != NULL)
        *bias = ftr__layer_variable(graph, ftr_op_name(op), name, "bias", true, dtype, &size, zero);
    return ftr_is_valid(*weight) && (bias == NULL || ftr_is_valid(*bias));
}

static ftr_tensor ftr__layer_norm_named(ftr_tensor x, ftr_tensor gamma, ftr_tensor beta,
                                        const ftr_layer_norm_desc *desc, const char *name) {
    ftr_layer_norm_desc d = desc != NULL ? *desc : ftr_layer_norm_defaults();
    ftr_tensor in[3] = {x, gamma, beta};
    ftr_op_attr attr = {.row_norm = {.eps = d.eps, .dims = d.dims}};
    if (d.dims == 0)
        attr.row_norm.dims = ftr_is_valid(gamma)  ? ftr_shape_of(gamma).rank
                             : ftr_is_valid(beta) ? ftr_shape_of(beta).rank
                                                  : 1;
    return ftr__row_norm_node(FTR_OP_layer_norm, d.cookie == FTR__COOKIE_LAYER_NORM, &attr, in, 3, name);
}

ftr_tensor ftr_layer_norm_with(ftr_tensor x, ftr_tensor gamma, ftr_tensor beta, const ftr_layer_norm_desc *desc) {
    return ftr__layer_norm_named(x, gamma, beta, desc, NULL);
}

ftr_tensor ftr_layer_norm(ftr_tensor x, const char *name, const ftr_layer_norm_desc *desc) {
    ftr_tensor none = {NULL, 0}, weight = none, bias = none;
    bool with_bias = desc == NULL || !desc->no_bias;
    if (!ftr__row_norm_parameters(FTR_OP_layer_norm, name, x, 1, "..., features", &weight, with_bias ? &bias : NULL))
        return none;
    return ftr__layer_norm_named(x, weight, bias, desc, name);
}

static ftr_tensor ftr__rms_norm_named(ftr_tensor x, ftr_tensor gamma, const ftr_rms_norm_desc *desc,
                                      const char *name) {
    ftr_rms_norm_desc d = desc != NULL ? *desc : ftr_rms_norm_defaults();
    ftr_tensor in[2] = {x, gamma};
    ftr_op_attr attr = {.row_norm = {.eps = d.eps, .dims = 1}};
    return ftr__row_norm_node(FTR_OP_rms_norm, d.cookie == FTR__COOKIE_RMS_NORM, &attr, in, 2, name);
}

ftr_tensor ftr_rms_norm_with(ftr_tensor x, ftr_tensor gamma, const ftr_rms_norm_desc *desc) {
    return ftr__rms_norm_named(x, gamma, desc, NULL);
}

ftr_tensor ftr_rms_norm(ftr_tensor x, const char *name, const ftr_rms_norm_desc *desc) {
    ftr_tensor none = {NULL, 0}, weight = none;
    if (!ftr__row_norm_parameters(FTR_OP_rms_norm, name, x, 1, "..., features", &weight, NULL)) return none;
    return ftr__rms_norm_named(x, weight, desc, name);
}

static ftr_tensor ftr__group_norm_named(ftr_tensor x, int32_t groups, ftr_tensor gamma, ftr_tensor beta,
                                        const ftr_group_norm_desc *desc, const char *name) {
    ftr_group_norm_desc d = desc != NULL ? *desc : ftr_group_norm_defaults();
    ftr_tensor in[3] = {x, gamma, beta};
    ftr_op_attr attr = {.row_norm = {.eps = d.eps, .dims = 1, .groups = groups}};
    return ftr__row_norm_node(FTR_OP_group_norm, d.cookie == FTR__COOKIE_GROUP_NORM, &attr, in, 3, name);
}

ftr_tensor ftr_group_norm_with(ftr_tensor x, int32_t groups, ftr_tensor gamma, ftr_tensor beta,
                               const ftr_group_norm_desc *desc) {
    return ftr__group_norm_named(x, groups, gamma, beta, desc, NULL);
}

ftr_tensor ftr_group_norm(ftr_tensor x, const char *name, int32_t groups, const ftr_group_norm_desc *desc) {
    ftr_tensor none = {NULL, 0}, weight = none, bias = none;
    if (!ftr__row_norm_parameters(FTR_OP_group_norm, name, x, 2, "n, ..., c", &weight, &bias)) return none;
    return ftr__group_norm_named(x, groups, weight, bias, desc, name);
}

/* ---- shapes and types */

/* Of x, which is input `index`: the shape that gamma and beta have, and that of the statistics. */
static ftr_status ftr__row_norm_shapes(ftr__infer *s, int32_t index, ftr_shape *row, ftr_shape *statistics) {
    const ftr_shape *x = &s->in[index]->shape;
    const double eps = s->node->attr.row_norm.eps;
    const int32_t dims = s->node->attr.row_norm.dims, groups = s->node->attr.row_norm.groups;
    const bool grouped = s->node->op == FTR_OP_group_norm || s->node->op == FTR_OP_group_norm_grad;
    ftr_status status = ftr__check_float(s, index, "input");
    if (status != FTR_OK) return status;
    if (!(eps >= 0.0) || !isfinite(eps))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "eps %g, expected a finite number of 0 or more", eps);
    if (dims < 1) return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "dims %d, expected 1 or more", (int)dims);
    if (x->rank < dims || (grouped && x->rank < 2))
        return ftr__infer_error(s, FTR_ERROR_RANK, "input has rank %d, expected %d or more%s", (int)x->rank,
                                grouped ? 2 : (int)dims, grouped ? " (n, ..., c)" : "");
    row->rank = dims;
    for (int32_t i = 0; i < dims; i++) row->dim[i] = x->dim[x->rank - dims + i];
    *statistics = *x;
    statistics->rank -= dims;
    if (!grouped) return FTR_OK;
    if (groups < 1 || row->dim[0] % groups != 0)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "input has %lld channels, which groups %d does not divide",
                                (long long)row->dim[0], (int)groups);
    statistics->rank = 2;
    statistics->dim[1] = groups;
    return FTR_OK;
}

/* Input `index`, if it is given, has x's type and this shape. */
static ftr_status ftr__row_norm_input(ftr__infer *s, int32_t index, const char *what, const ftr_shape *shape) {
    if (index >= s->in_count || s->in[index] == NULL) return FTR_OK;
    const ftr__value *value = s->in[index];
    char text[FTR__SHAPE_TEXT], expected[FTR__SHAPE_TEXT];
    if (value->dtype != s->in[0]->dtype)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s is %s, expected %s", what, ftr_dtype_name(value->dtype),
                                ftr_dtype_name(s->in[0]->dtype));
    if (ftr_shape_equal(&value->shape, shape)) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s is %s, expected %s", what, ftr__shape_text(&value->shape, text),
                            ftr__shape_text(shape, expected));
}

static ftr_status ftr__infer_row_norm(ftr__infer *s) {
    ftr_shape row = {0}, statistics;
    ftr_status status = ftr__row_norm_shapes(s, 0, &row, &statistics);
    if (status == FTR_OK) status = ftr__row_norm_input(s, 1, "gamma", &row);
    if (status == FTR_OK) status = ftr__row_norm_input(s, 2, "beta", &row);
    if (status == FTR_OK) status = ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
    const int32_t outputs = s->node->op == FTR_OP_rms_norm ? 2 : 3;
    for (int32_t i = 1; i < outputs && status == FTR_OK; i++)
        status = ftr__set_output(s, i, s->in[0]->dtype, &statistics);
    return status;
}

static ftr_status ftr__infer_row_norm_grad(ftr__infer *s) {
    const bool rms = s->node->op == FTR_OP_rms_norm_grad;
    ftr_shape row = {0}, statistics, nothing = FTR_SHAPE(0);
    ftr_status status = ftr__check_same_type(s, 0, 1, "dy", "input");
    if (status == FTR_OK) status = ftr__check_same_shape(s, 0, 1, "dy", "input");
    if (status == FTR_OK) status = ftr__row_norm_shapes(s, 1, &row, &statistics);
    if (status == FTR_OK && !rms) status = ftr__row_norm_input(s, 2, "mean", &statistics);
    if (status == FTR_OK) status = ftr__row_norm_input(s, rms ? 2 : 3, "1 / std", &statistics);
    if (status == FTR_OK) status = ftr__row_norm_input(s, rms ? 3 : 4, "gamma", &row);
    if (status == FTR_OK) status = ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
    for (int32_t i = 1; i < (rms ? 2 : 3) && status == FTR_OK; i++)
        status = ftr__set_output(s, i, s->in[0]->dtype, s->node->attr.row_norm.sums ? &row : &nothing);
    return status;
}

ftr_status ftr__infer_layer_norm(ftr__infer *s) { return ftr__infer_row_norm(s); }
ftr_status ftr__infer_rms_norm(ftr__infer *s) { return ftr__infer_row_norm(s); }
ftr_status ftr__infer_group_norm(ftr__infer *s) { return ftr__infer_row_norm(s); }
ftr_status ftr__infer_layer_norm_grad(ftr__infer *s) { return ftr__infer_row_norm_grad(s); }
ftr_status ftr__infer_rms_norm_grad(ftr__infer *s) { return ftr__infer_row_norm_grad(s); }
ftr_status ftr__infer_group_norm_grad(ftr__infer *s) { return ftr__infer_row_norm_grad(s); }

/* ---- gradient */

static void ftr__grad_row_norm(ftr__grad *s, ftr_op op) {
    const int32_t inputs = op == FTR_OP_rms_norm_grad ? 2 : 3;
    bool wanted[3] = {false, false, false};
    for (int32_t i = 0; i < inputs; i++)
        wanted[i] = i < s->node->in_count && ftr_is_valid(s->in[i]) && s->wanted[i];
    if (!ftr__has_gradient(s) || (!wanted[0] && !wanted[1] && !wanted[2])) return;
    ftr_op_attr attr = s->node->attr;
    attr.row_norm.sums = wanted[1] || wanted[2];
    ftr_tensor in[5] = {s->dout[0], s->in[0], s->out[1]};
    if (inputs == 3) in[3] = s->out[2];
    if (s->node->in_count > 1) in[inputs + 1] = s->in[1];
    ftr_tensor dx = ftr__emit(s->graph, op, NULL, &attr, in, inputs + 2);
    for (int32_t i = 0; i < inputs && ftr_is_valid(dx); i++)
        if (wanted[i]) s->din[i] = ftr__output(dx, i);
}

void ftr__grad_layer_norm(ftr__grad *s) { ftr__grad_row_norm(s, FTR_OP_layer_norm_grad); }
void ftr__grad_rms_norm(ftr__grad *s) { ftr__grad_row_norm(s, FTR_OP_rms_norm_grad); }
void ftr__grad_group_norm(ftr__grad *s) { ftr__grad_row_norm(s, FTR_OP_group_norm_grad); }

/* ---- src/ops/pool.c ---- */
/* Pooling over windows of NHWC images. */

/* ---- builders */

static ftr_tensor ftr__pool2d(ftr_op op, ftr_tensor x, int32_t kernel_h, int32_t kernel_w,
                              const ftr_pool2d_desc *desc) {
    ftr_op_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.pool.kernel[0] = kernel_h;
    attr.pool.kernel[1] = kernel_w;
    for (int32_t i = 0; i < 2; i++) {
        int32_t stride = desc != NULL ? desc->stride[i] : 0;
        attr.pool.stride[i] = stride == 0 ? attr.pool.kernel[i] : stride;
    }
    for (int32_t i = 0; i < 4; i++) attr.pool.padding[i] = desc != NULL ? desc->padding[i] : 0;
    attr.pool.exclude_padding = desc != NULL && desc->exclude_padding;
    return ftr__emit_one(op, &attr, x);
}

ftr_tensor ftr_max_pool2d(ftr_tensor x, int32_t kernel_h, int32_t kernel_w, const ftr_pool2d_desc *desc) {
    return ftr__pool2d(FTR_OP_max_pool2d, x, kernel_h, kernel_w, desc);
}

ftr_tensor ftr_avg_pool2d(ftr_tensor x, int32_t kernel_h, int32_t kernel_w, const ftr_pool2d_desc *desc) {
    return ftr__pool2d(FTR_OP_avg_pool2d, x, kernel_h, kernel_w, desc);
}

ftr_tensor ftr_global_avg_pool(ftr_tensor x) {
    ftr_graph *graph = ftr__common_graph("global_avg_pool", &x, 1, 1);
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    int32_t rank = ftr_shape_of(x).rank;
    if (rank != 4)
        return ftr__builder_error(graph, FTR_ERROR_RANK, "global_avg_pool of", ftr_name_of(x),
                                  "input has rank %d, expected 4 (n, h, w, c)", (int)rank);
    return ftr_mean(x, FTR_AXES(1, 2), false);
}

/* ---- shapes and types */

static ftr_status ftr__check_pool_attr(ftr__infer *s) {
    const ftr_op_attr *attr = &s->node->attr;
    const int32_t *kernel = attr->pool.kernel;
    if (kernel[0] < 1 || kernel[1] < 1)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "window %d x %d, expected 1 or more", (int)kernel[0],
                                (int)kernel[1]);
    for (int32_t i = 0; i < 2; i++)
        if (attr->pool.stride[i] < 1)
            return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "stride %d, expected 1 or more",
                                    (int)attr->pool.stride[i]);
    for (int32_t i = 0; i < 4; i++)
        if (attr->pool.padding[i] < 0 || attr->pool.padding[i] > kernel[i / 2] / 2)
            return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "padding %d, expected 0 to %d (half the window)",
                                    (int)attr->pool.padding[i], (int)(kernel[i / 2] / 2));
    return FTR_OK;
}

/* Completes the attributes with the input size and fills the result's shape. */
static ftr_status ftr__pooled_shape(ftr__infer *s, ftr_shape *out) {
    const ftr_shape *x = &s->in[0]->shape;
    ftr_op_attr *attr = &s->node->attr;
    ftr_status status = ftr__check_rank(s, 0, "input", 4, "n, h, w, c");
    if (status == FTR_OK) status = ftr__check_float(s, 0, "input");
    if (status == FTR_OK) status = ftr__check_pool_attr(s);
    if (status != FTR_OK) return status;
    if (x->dim[1] < 1 || x->dim[2] < 1 || x->dim[1] > INT32_MAX / x->dim[2])
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "input is %lld x %lld, expected 1 to %d elements",
                                (long long)x->dim[1], (long long)x->dim[2], (int)INT32_MAX);
    int64_t padded[2];
    for (int32_t i = 0; i < 2; i++) {
        attr->pool.input[i] = x->dim[1 + i];
        padded[i] = x->dim[1 + i] + attr->pool.padding[2 * i] + attr->pool.padding[2 * i + 1];
    }
    if (attr->pool.kernel[0] > padded[0] || attr->pool.kernel[1] > padded[1])
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "window %d x %d does not fit the padded input of %lld x %lld",
                                (int)attr->pool.kernel[0], (int)attr->pool.kernel[1], (long long)padded[0],
                                (long long)padded[1]);
    *out = *x;
    for (int32_t i = 0; i < 2; i++) out->dim[1 + i] = (padded[i] - attr->pool.kernel[i]) / attr->pool.stride[i] + 1;
    return FTR_OK;
}

ftr_status ftr__infer_max_pool2d(ftr__infer *s) {
    ftr_shape out;
    ftr_status status = ftr__pooled_shape(s, &out);
    if (status == FTR_OK) status = ftr__set_output(s, 0, s->in[0]->dtype, &out);
    return status != FTR_OK ? status : ftr__set_output(s, 1, FTR_I32, &out);
}

ftr_status ftr__infer_avg_pool2d(ftr__infer *s) {
    ftr_shape out;
    ftr_status status = ftr__pooled_shape(s, &out);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

static ftr_status ftr__pool_grad_shape(ftr__infer *s) {
    ftr_status status = ftr__check_rank(s, 0, "dy", 4, "n, oh, ow, c");
    if (status == FTR_OK) status = ftr__check_float(s, 0, "dy");
    if (status != FTR_OK) return status;
    ftr_shape dx = s->in[0]->shape;
    for (int32_t i = 0; i < 2; i++) dx.dim[1 + i] = s->node->attr.pool.input[i];
    return ftr__set_output(s, 0, s->in[0]->dtype, &dx);
}

ftr_status ftr__infer_avg_pool2d_grad(ftr__infer *s) { return ftr__pool_grad_shape(s); }

ftr_status ftr__infer_max_pool2d_grad(ftr__infer *s) {
    if (s->in[1]->dtype != FTR_I32)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "index is %s, expected i32", ftr_dtype_name(s->in[1]->dtype));
    ftr_status status = ftr__check_same_shape(s, 0, 1, "dy", "index");
    return status != FTR_OK ? status : ftr__pool_grad_shape(s);
}

/* ---- gradients */

void ftr__grad_max_pool2d(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_two(FTR_OP_max_pool2d_grad, &s->node->attr, s->dout[0], s->out[1]);
}

void ftr__grad_avg_pool2d(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_one(FTR_OP_avg_pool2d_grad, &s->node->attr, s->dout[0]);
}

/* ---- src/ops/random.c ---- */
/* Dropout (Srivastava et al., JMLR 2014) and stochastic depth (Huang et al., ECCV 2016), scaled while training; random
 * tensors. */

static ftr_tensor ftr__drop(ftr_op op, ftr_tensor x, double p) {
    ftr_op_attr attr = {.dropout = {p, 0}};
    return ftr__emit_one(op, &attr, x);
}

ftr_tensor ftr_dropout(ftr_tensor x, double p) { return ftr__drop(FTR_OP_dropout, x, p); }
ftr_tensor ftr_stochastic_depth(ftr_tensor x, double p) { return ftr__drop(FTR_OP_stochastic_depth, x, p); }

/* The key comes from the node's name, which depends on the program alone; a gradient brings its forward node's. */
ftr_status ftr__infer_dropout(ftr__infer *s) {
    double p = s->node->attr.dropout.p;
    ftr_status status = ftr__check_float(s, 0, "input");
    if (status != FTR_OK) return status;
    if (!(p >= 0.0 && p <= 1.0)) return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "p %g, expected 0 to 1", p);
    if (s->node->attr.dropout.key == 0) {
        uint64_t key = ftr__hash(s->node->name);
        s->node->attr.dropout.key = key != 0 ? key : 1;
    }
    return ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
}

ftr_status ftr__infer_stochastic_depth(ftr__infer *s) {
    if (s->in[0]->shape.rank < 1)
        return ftr__infer_error(s, FTR_ERROR_RANK, "input has rank 0, expected 1 or more (n, ...)");
    return ftr__infer_dropout(s);
}

/* The same op with the same key: the same mask. */
static void ftr__grad_drop(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_one(s->node->op, &s->node->attr, s->dout[0]);
}

void ftr__grad_dropout(ftr__grad *s) { ftr__grad_drop(s); }
void ftr__grad_stochastic_depth(ftr__grad *s) { ftr__grad_drop(s); }

/* ---- random tensors */

static ftr_tensor ftr__random_tensor(ftr_graph *graph, ftr_op op, const char *name, const ftr_shape *shape, double a,
                                     double b) {
    ftr_tensor none = {NULL, 0};
    if (graph == NULL) return none;
    if (name != NULL && name[0] == '\0')
        return ftr__builder_error(graph, FTR_ERROR_NAME, ftr_op_name(op), NULL, "the name is empty");
    ftr_op_attr attr = {.random = {(float)a, (float)b, 0, *shape}};
    ftr_tensor tensor = ftr__emit(graph, op, name, &attr, NULL, 0);
    const ftr__node *node = ftr__producer(tensor);
    for (int32_t i = 0; node != NULL && i < graph->node_count; i++) {
        const ftr__node *other = &graph->nodes[i];
        bool random = other->op == FTR_OP_random_uniform || other->op == FTR_OP_random_normal;
        if (random && other != node && strcmp(other->name, node->name) == 0)
            return ftr__builder_error(graph, FTR_ERROR_NAME, ftr_op_name(op), node->name,
                                      "the name is used by another random tensor");
    }
    return tensor;
}

ftr_tensor ftr_random_uniform(ftr_graph *graph, const char *name, ftr_shape shape, double low, double high) {
    return ftr__random_tensor(graph, FTR_OP_random_uniform, name, &shape, low, high);
}

ftr_tensor ftr_random_normal(ftr_graph *graph, const char *name, ftr_shape shape, double mean, double std) {
    return ftr__random_tensor(graph, FTR_OP_random_normal, name, &shape, mean, std);
}

static ftr_status ftr__infer_random(ftr__infer *s) {
    ftr_op_attr *attr = &s->node->attr;
    const ftr_shape *shape = &attr->random.shape;
    char text[FTR__SHAPE_TEXT];
    if (shape->rank < 0 || shape->rank > FTR_MAX_RANK)
        return ftr__infer_error(s, FTR_ERROR_RANK, "rank is %d, expected 0 to %d", (int)shape->rank, FTR_MAX_RANK);
    if (ftr_shape_count(shape) < 0)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "shape %s has a negative or too large size",
                                ftr__shape_text(shape, text));
    attr->random.key = ftr__hash(s->node->name);
    return ftr__set_output(s, 0, FTR_F32, shape);
}

ftr_status ftr__infer_random_uniform(ftr__infer *s) {
    const float low = s->node->attr.random.a, high = s->node->attr.random.b;
    if (!(low <= high) || !isfinite(high - low))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT,
                                "low %g, high %g: expected low <= high and a difference that f32 holds", (double)low,
                                (double)high);
    return ftr__infer_random(s);
}

ftr_status ftr__infer_random_normal(ftr__infer *s) {
    const float mean = s->node->attr.random.a, std = s->node->attr.random.b;
    if (!isfinite(mean) || !isfinite(std) || std < 0.0f)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT,
                                "mean %g, std %g: expected finite numbers, std of 0 or more", (double)mean,
                                (double)std);
    return ftr__infer_random(s);
}

/* ---- src/ops/attention.c ---- */
/* Scaled dot-product attention and rotary position embedding. */

#define FTR__COOKIE_ATTENTION 0x4154544eu
#define FTR__COOKIE_ROTARY 0x524f5445u

/* ---- builders */

ftr_attention_desc ftr_attention_defaults(void) {
    ftr_attention_desc desc = {FTR__COOKIE_ATTENTION, false, {NULL, 0}, 0.0, 0.0};
    return desc;
}

ftr_tensor ftr_attention(ftr_tensor query, ftr_tensor key, ftr_tensor value, const ftr_attention_desc *desc) {
    const ftr_attention_desc d = desc != NULL ? *desc : ftr_attention_defaults();
    const bool known = d.cookie == FTR__COOKIE_ATTENTION;
    const ftr_tensor none = {NULL, 0}, in[4] = {query, key, value, known ? d.mask : none};
    ftr_graph *graph = ftr__common_graph("attention", in, 4, 3);
    if (graph == NULL) return none;
    if (!known)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "attention", NULL,
                                  "desc was not made by ftr_attention_defaults()");
    const ftr_op_attr attr = {.attention = {.scale = d.scale, .dropout = d.dropout, .causal = d.causal}};
    return ftr__emit(graph, FTR_OP_attention, NULL, &attr, in, 4);
}

ftr_rotary_desc ftr_rotary_defaults(void) {
    ftr_rotary_desc desc = {FTR__COOKIE_ROTARY, 10000.0, 0, 0, false};
    return desc;
}

ftr_tensor ftr_rotary(ftr_tensor x, const ftr_rotary_desc *desc) {
    const ftr_rotary_desc d = desc != NULL ? *desc : ftr_rotary_defaults();
    ftr_graph *graph = ftr__common_graph("rotary", &x, 1, 1);
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    if (d.cookie != FTR__COOKIE_ROTARY)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "rotary", NULL,
                                  "desc was not made by ftr_rotary_defaults()");
    const ftr_op_attr attr = {
        .rotary = {.base = d.base, .first = d.first, .dims = d.dims, .interleaved = d.interleaved}};
    return ftr__emit_one(FTR_OP_rotary, &attr, x);
}

/* ---- shapes and types */

/* Input `index`, and the two after it, are query, key and value that fit together. */
static ftr_status ftr__attention_check(ftr__infer *s, int32_t index) {
    static const char *const what[3] = {"query", "key", "value"};
    static const char *const layout[3] = {"n, tq, heads, d", "n, tk, kv_heads, d", "n, tk, kv_heads, dv"};
    ftr_status status = ftr__check_float(s, index, what[0]);
    for (int32_t i = 0; i < 3 && status == FTR_OK; i++) {
        status = ftr__check_rank(s, index + i, what[i], 4, layout[i]);
        if (status == FTR_OK && i > 0) status = ftr__check_same_type(s, index, index + i, what[0], what[i]);
    }
    if (status != FTR_OK) return status;
    const ftr_shape *q = &s->in[index]->shape, *k = &s->in[index + 1]->shape, *v = &s->in[index + 2]->shape;
    char text_a[FTR__SHAPE_TEXT], text_b[FTR__SHAPE_TEXT];
    if (q->dim[0] != k->dim[0] || q->dim[3] != k->dim[3])
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "query is %s, key is %s: both must have one n and one d",
                                ftr__shape_text(q, text_a), ftr__shape_text(k, text_b));
    if (k->dim[0] != v->dim[0] || k->dim[1] != v->dim[1] || k->dim[2] != v->dim[2])
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "key is %s, value is %s: both must have one n, tk and kv_heads",
                                ftr__shape_text(k, text_a), ftr__shape_text(v, text_b));
    if (k->dim[2] < 1 || q->dim[2] % k->dim[2] != 0)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "query has %lld heads, which the %lld of key do not divide",
                                (long long)q->dim[2], (long long)k->dim[2]);
    return FTR_OK;
}

/* The mask, if it is given, has the queries' type and broadcasts to the scores. */
static ftr_status ftr__attention_mask(ftr__infer *s, int32_t query, int32_t mask) {
    if (mask >= s->in_count || s->in[mask] == NULL) return FTR_OK;
    const ftr_shape *q = &s->in[query]->shape, *m = &s->in[mask]->shape;
    const ftr_shape scores = FTR_SHAPE(q->dim[0], q->dim[2], q->dim[1], s->in[query + 1]->shape.dim[1]);
    ftr_shape both;
    char text[FTR__SHAPE_TEXT], expected[FTR__SHAPE_TEXT];
    const ftr_status status = ftr__check_same_type(s, query, mask, "query", "mask");
    if (status != FTR_OK) return status;
    if (ftr__broadcast_shape(m, &scores, &both) && ftr_shape_equal(&both, &scores)) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "mask is %s, which does not broadcast to %s (n, heads, tq, tk)",
                            ftr__shape_text(m, text), ftr__shape_text(&scores, expected));
}

/* [n, heads, tq] */
static ftr_shape ftr__attention_rows(const ftr_shape *query) {
    return FTR_SHAPE(query->dim[0], query->dim[2], query->dim[1]);
}

/* Completes the attributes: the scale, and the stream of a dropout (as ftr__infer_dropout() makes it). */
static ftr_status ftr__attention_attributes(ftr__infer *s) {
    const double scale = s->node->attr.attention.scale, p = s->node->attr.attention.dropout;
    const int64_t d = s->in[0]->shape.dim[3];
    if (!isfinite(scale))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "scale %g, expected a finite number", scale);
    if (!(p >= 0.0 && p <= 1.0))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "dropout %g, expected 0 to 1", p);
    if (scale == 0.0) s->node->attr.attention.scale = d > 0 ? 1.0 / sqrt((double)d) : 1.0;
    const uint64_t key = ftr__hash(s->node->name);
    s->node->attr.attention.key = key != 0 ? key : 1;
    return FTR_OK;
}

ftr_status ftr__infer_attention(ftr__infer *s) {
    ftr_status status = ftr__attention_check(s, 0);
    if (status == FTR_OK) status = ftr__attention_mask(s, 0, 3);
    if (status == FTR_OK) status = ftr__attention_attributes(s);
    if (status != FTR_OK) return status;
    ftr_shape y = s->in[0]->shape;
    const ftr_shape rows = ftr__attention_rows(&y);
    y.dim[3] = s->in[2]->shape.dim[3];
    status = ftr__set_output(s, 0, s->in[0]->dtype, &y);
    return status == FTR_OK ? ftr__set_output(s, 1, s->in[0]->dtype, &rows) : status;
}

ftr_status ftr__infer_attention_grad(ftr__infer *s) {
    ftr_status status = ftr__attention_check(s, 1);
    if (status == FTR_OK) status = ftr__attention_mask(s, 1, 6);
    if (status == FTR_OK) status = ftr__check_same_shape(s, 0, 4, "dy", "y");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dy", "query");
    if (status != FTR_OK) return status;
    const ftr_shape nothing = FTR_SHAPE(0);
    for (int32_t i = 0; i < 4 && status == FTR_OK; i++) {
        const int32_t input = i < 3 ? 1 + i : 6;
        const bool wanted = (s->node->attr.attention.wanted >> i & 1u) != 0 && input < s->in_count && s->in[input];
        status = ftr__set_output(s, i, s->in[1]->dtype, wanted ? &s->in[input]->shape : &nothing);
    }
    return status;
}

ftr_status ftr__infer_rotary(ftr__infer *s) {
    const int32_t dims = s->node->attr.rotary.dims;
    const double base = s->node->attr.rotary.base;
    ftr_status status = ftr__check_float(s, 0, "input");
    if (status == FTR_OK) status = ftr__check_rank(s, 0, "input", 4, "n, t, heads, d");
    if (status != FTR_OK) return status;
    const int64_t d = s->in[0]->shape.dim[3], rotated = dims != 0 ? dims : d;
    if (!(base > 0.0) || !isfinite(base))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "base %g, expected a finite number above 0", base);
    if (rotated < 0 || rotated > d || rotated % 2 != 0 || rotated > INT32_MAX)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "dims %lld of rows of %lld, expected an even number up to that",
                                (long long)rotated, (long long)d);
    s->node->attr.rotary.dims = (int32_t)rotated;
    return ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
}

/* ---- gradients */

void ftr__grad_attention(ftr__grad *s) {
    ftr_op_attr attr = s->node->attr;
    attr.attention.wanted = 0;
    for (int32_t i = 0; i < s->node->in_count; i++)
        if (ftr_is_valid(s->in[i]) && s->wanted[i]) attr.attention.wanted |= 1u << i;
    if (!ftr__has_gradient(s) || attr.attention.wanted == 0) return;
    const ftr_tensor in[7] = {s->dout[0], s->in[0], s->in[1], s->in[2], s->out[0], s->out[1], s->in[3]};
    const ftr_tensor first = ftr__emit(s->graph, FTR_OP_attention_grad, NULL, &attr, in, 7);
    for (int32_t i = 0; i < s->node->in_count && ftr_is_valid(first); i++)
        if (attr.attention.wanted >> i & 1u) s->din[i] = ftr__output(first, i);
}

void ftr__grad_rotary(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_op_attr attr = s->node->attr;
    attr.rotary.inverse = !attr.rotary.inverse;
    s->din[0] = ftr__emit_one(FTR_OP_rotary, &attr, s->dout[0]);
}

/* ---- src/ops/shape.c ---- */
/* Ops that move elements: reshape, expand, transpose, concat, slice, pad. */

/* ---- builders */

static ftr_tensor ftr__shape_op(ftr_op op, ftr_tensor x, const ftr_shape *shape) {
    ftr_op_attr attr = {.shape = {*shape}};
    return ftr__emit_one(op, &attr, x);
}

ftr_tensor ftr_reshape(ftr_tensor x, ftr_shape shape) { return ftr__shape_op(FTR_OP_reshape, x, &shape); }

ftr_tensor ftr__reshape_to(ftr_tensor x, const ftr_shape *shape) {
    ftr_shape from = ftr_shape_of(x);
    return !ftr_is_valid(x) || ftr_shape_equal(&from, shape) ? x : ftr__shape_op(FTR_OP_reshape, x, shape);
}

ftr_tensor ftr_expand(ftr_tensor x, ftr_shape shape) { return ftr__shape_op(FTR_OP_expand, x, &shape); }

ftr_tensor ftr_flatten(ftr_tensor x, int32_t axis) {
    ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__common_graph("flatten", &x, 1, 1);
    if (graph == NULL) return none;
    ftr_shape shape = ftr_shape_of(x);
    if (axis < -shape.rank || axis >= shape.rank)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "flatten of", ftr_name_of(x),
                                  "axis %d of a tensor of rank %d", (int)axis, (int)shape.rank);
    if (axis < 0) axis += shape.rank;
    for (int32_t i = axis + 1; i < shape.rank; i++) {
        shape.dim[axis] *= shape.dim[i];
        shape.dim[i] = 0;
    }
    shape.rank = axis + 1;
    return ftr__shape_op(FTR_OP_reshape, x, &shape);
}

ftr_tensor ftr_transpose(ftr_tensor x, ftr_axes order) {
    ftr_graph *graph = ftr__common_graph("transpose", &x, 1, 1);
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    int32_t rank = ftr_shape_of(x).rank;
    if (order.count != rank)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "transpose of", ftr_name_of(x),
                                  "order has %d axes, expected %d", (int)order.count, (int)rank);
    ftr_op_attr attr;
    memset(&attr, 0, sizeof attr);
    memcpy(attr.axes_order.order, order.axis, sizeof order.axis);
    return ftr__emit_one(FTR_OP_transpose, &attr, x);
}

ftr_tensor ftr_concat(const ftr_tensor *tensors, int32_t count, int32_t axis) {
    ftr_graph *graph = NULL;
    for (int32_t i = 0; tensors != NULL && i < count && graph == NULL; i++) graph = tensors[i].graph;
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    if (count > FTR__INFER_INPUTS)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "concat", NULL, "%d tensors, expected 1 to %d",
                                  (int)count, FTR__INFER_INPUTS);
    for (int32_t i = 0; i < count; i++)
        if (!ftr_is_valid(tensors[i]))
            return ftr__builder_error(graph, FTR_ERROR_INVALID_TENSOR, "concat", NULL, "input %d is a null tensor",
                                      (int)i);
    ftr_op_attr attr = {.axis = {axis}};
    return ftr__emit(graph, FTR_OP_concat, NULL, &attr, tensors, count);
}

ftr_tensor ftr_slice(ftr_tensor x, int32_t axis, int64_t begin, int64_t end, int64_t step) {
    ftr_op_attr attr = {.slice = {axis, begin, end, step, 0}};
    return ftr__emit_one(FTR_OP_slice, &attr, x);
}

ftr_tensor ftr_pad(ftr_tensor x, ftr_shape before, ftr_shape after, double value) {
    ftr_graph *graph = ftr__common_graph("pad", &x, 1, 1);
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    int32_t rank = ftr_shape_of(x).rank;
    if (before.rank != rank || after.rank != rank)
        return ftr__builder_error(graph, FTR_ERROR_RANK, "pad of", ftr_name_of(x),
                                  "before has rank %d, after has rank %d, expected %d", (int)before.rank,
                                  (int)after.rank, (int)rank);
    ftr_op_attr attr;
    memset(&attr, 0, sizeof attr);
    for (int32_t i = 0; i < rank; i++) {
        attr.pad.before[i] = before.dim[i];
        attr.pad.after[i] = after.dim[i];
    }
    attr.pad.value = value;
    return ftr__emit_one(FTR_OP_pad, &attr, x);
}

/* ---- shapes and types */

static ftr_status ftr__check_target(ftr__infer *s, const ftr_shape *shape, int64_t least) {
    if (shape->rank < 0 || shape->rank > FTR_MAX_RANK)
        return ftr__infer_error(s, FTR_ERROR_RANK, "the new shape has rank %d, expected 0 to %d", (int)shape->rank,
                                FTR_MAX_RANK);
    for (int32_t i = 0; i < shape->rank; i++)
        if (shape->dim[i] < least)
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "dimension %d of the new shape is %lld, expected %lld or more",
                                    (int)i, (long long)shape->dim[i], (long long)least);
    return FTR_OK;
}

/* Replaces a -1 by the size that keeps the number of elements. */
static ftr_status ftr__resolve_reshape(ftr__infer *s, const ftr_shape *in, ftr_shape *shape) {
    int32_t open = -1;
    char text[FTR__SHAPE_TEXT], text_in[FTR__SHAPE_TEXT];
    ftr_shape rest = *shape;
    for (int32_t i = 0; i < shape->rank; i++) {
        if (shape->dim[i] != -1) continue;
        if (open >= 0)
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s has more than one -1", ftr__shape_text(shape, text));
        open = i;
        rest.dim[i] = 1;
    }
    int64_t count = ftr_shape_count(in), other = ftr_shape_count(&rest);
    if (open < 0) return FTR_OK;
    if (other <= 0 || count % other != 0)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s has %lld elements, which do not fit %s",
                                ftr__shape_text(in, text_in), (long long)count, ftr__shape_text(shape, text));
    shape->dim[open] = count / other;
    return FTR_OK;
}

ftr_status ftr__infer_reshape(ftr__infer *s) {
    const ftr_shape *in = &s->in[0]->shape;
    ftr_shape *shape = &s->node->attr.shape.shape;
    ftr_status status = ftr__check_target(s, shape, -1);
    if (status == FTR_OK) status = ftr__resolve_reshape(s, in, shape);
    if (status == FTR_OK) status = ftr__set_output(s, 0, s->in[0]->dtype, shape);
    if (status != FTR_OK) return status;
    int64_t found = ftr_shape_count(in), wanted = ftr_shape_count(shape);
    if (found == wanted) return FTR_OK;
    char text[FTR__SHAPE_TEXT], text_in[FTR__SHAPE_TEXT];
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s has %lld elements, %s has %lld", ftr__shape_text(in, text_in),
                            (long long)found, ftr__shape_text(shape, text), (long long)wanted);
}

ftr_status ftr__infer_expand(ftr__infer *s) {
    const ftr_shape *in = &s->in[0]->shape, *shape = &s->node->attr.shape.shape;
    ftr_shape out;
    ftr_status status = ftr__check_target(s, shape, 0);
    if (status != FTR_OK) return status;
    if (ftr__broadcast_shape(in, shape, &out) && ftr_shape_equal(&out, shape))
        return ftr__set_output(s, 0, s->in[0]->dtype, shape);
    char text[FTR__SHAPE_TEXT], text_in[FTR__SHAPE_TEXT];
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s does not expand to %s", ftr__shape_text(in, text_in),
                            ftr__shape_text(shape, text));
}

ftr_status ftr__infer_transpose(ftr__infer *s) {
    const ftr_shape *in = &s->in[0]->shape;
    int32_t *order = s->node->attr.axes_order.order;
    ftr_shape out = {in->rank, {0}};
    uint32_t seen = 0;
    for (int32_t i = 0; i < in->rank; i++) {
        ftr_status status = ftr__check_axis(s, &order[i], in->rank);
        if (status != FTR_OK) return status;
        uint32_t bit = 1u << (uint32_t)order[i];
        if ((seen & bit) != 0)
            return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "axis %d is there twice", (int)order[i]);
        seen |= bit;
        out.dim[i] = in->dim[order[i]];
    }
    return ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

/* Input i must agree with input 0 in everything but the size along the axis. */
static ftr_status ftr__check_concat_input(ftr__infer *s, int32_t i, int32_t axis) {
    const ftr__value *first = s->in[0], *value = s->in[i];
    char text[FTR__SHAPE_TEXT], text_first[FTR__SHAPE_TEXT];
    if (value->dtype != first->dtype)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "input 0 is %s, input %d is %s: all must have one type",
                                ftr_dtype_name(first->dtype), (int)i, ftr_dtype_name(value->dtype));
    if (value->shape.rank != first->shape.rank)
        return ftr__infer_error(s, FTR_ERROR_RANK, "input 0 has rank %d, input %d has rank %d", (int)first->shape.rank,
                                (int)i, (int)value->shape.rank);
    for (int32_t d = 0; d < first->shape.rank; d++)
        if (d != axis && value->shape.dim[d] != first->shape.dim[d])
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "input 0 is %s, input %d is %s: dimension %d differs",
                                    ftr__shape_text(&first->shape, text_first), (int)i,
                                    ftr__shape_text(&value->shape, text), (int)d);
    return FTR_OK;
}

ftr_status ftr__infer_concat(ftr__infer *s) {
    int32_t *axis = &s->node->attr.axis.axis;
    ftr_shape out = s->in[0]->shape;
    if (s->in_count > FTR__INFER_INPUTS)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "%d tensors, expected 1 to %d", (int)s->in_count,
                                FTR__INFER_INPUTS);
    ftr_status status = ftr__check_axis(s, axis, out.rank);
    for (int32_t i = 1; i < s->in_count && status == FTR_OK; i++) {
        if (s->in[i] == NULL) return ftr__infer_error(s, FTR_ERROR_INVALID_TENSOR, "input %d is a null tensor", (int)i);
        status = ftr__check_concat_input(s, i, *axis);
        if (status != FTR_OK) return status;
        if (s->in[i]->shape.dim[*axis] > INT64_MAX - out.dim[*axis])
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "the result has too many elements");
        out.dim[*axis] += s->in[i]->shape.dim[*axis];
    }
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

/* A negative bound counts from the size; both ends are clamped to it. */
static int64_t ftr__clamp_bound(int64_t bound, int64_t size) {
    if (bound < 0) bound += size;
    return bound < 0 ? 0 : bound > size ? size : bound;
}

ftr_status ftr__infer_slice(ftr__infer *s) {
    ftr_op_attr *attr = &s->node->attr;
    ftr_shape out = s->in[0]->shape;
    ftr_status status = ftr__check_axis(s, &attr->slice.axis, out.rank);
    if (status != FTR_OK) return status;
    if (attr->slice.step < 1)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "step %lld, expected 1 or more",
                                (long long)attr->slice.step);
    int64_t size = out.dim[attr->slice.axis];
    attr->slice.size = size;
    attr->slice.begin = ftr__clamp_bound(attr->slice.begin, size);
    attr->slice.end = ftr__clamp_bound(attr->slice.end, size);
    if (attr->slice.end < attr->slice.begin) attr->slice.end = attr->slice.begin;
    int64_t length = attr->slice.end - attr->slice.begin;
    out.dim[attr->slice.axis] = length / attr->slice.step + (length % attr->slice.step != 0 ? 1 : 0);
    return ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

ftr_status ftr__infer_slice_grad(ftr__infer *s) {
    ftr_op_attr *attr = &s->node->attr;
    ftr_shape out = s->in[0]->shape;
    ftr_status status = ftr__check_axis(s, &attr->slice.axis, out.rank);
    if (status != FTR_OK) return status;
    out.dim[attr->slice.axis] = attr->slice.size;
    return ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

ftr_status ftr__infer_pad(ftr__infer *s) {
    const ftr_op_attr *attr = &s->node->attr;
    ftr_shape out = s->in[0]->shape;
    for (int32_t i = 0; i < out.rank; i++) {
        int64_t before = attr->pad.before[i], after = attr->pad.after[i];
        if (before < 0 || after < 0)
            return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT,
                                    "dimension %d is padded by %lld and %lld, expected 0 or more", (int)i,
                                    (long long)before, (long long)after);
        if (before > INT64_MAX - out.dim[i] || after > INT64_MAX - out.dim[i] - before)
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "the result has too many elements");
        out.dim[i] += before + after;
    }
    return ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

/* ---- gradients */

void ftr__grad_reshape(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_shape shape = ftr_shape_of(s->in[0]);
    s->din[0] = ftr__reshape_to(s->dout[0], &shape);
}

void ftr__grad_expand(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_shape shape = ftr_shape_of(s->in[0]);
    s->din[0] = ftr__reduce_to(s->dout[0], &shape);
}

void ftr__grad_transpose(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_axes inverse = {ftr_shape_of(s->in[0]).rank, {0}};
    for (int32_t i = 0; i < inverse.count; i++) inverse.axis[s->node->attr.axes_order.order[i]] = i;
    s->din[0] = ftr_transpose(s->dout[0], inverse);
}

void ftr__grad_concat(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    int32_t axis = s->node->attr.axis.axis;
    int64_t begin = 0;
    for (int32_t i = 0; i < s->node->in_count; i++) {
        int64_t end = begin + ftr_shape_of(s->in[i]).dim[axis];
        if (s->wanted[i]) s->din[i] = ftr_slice(s->dout[0], axis, begin, end, 1);
        begin = end;
    }
}

void ftr__grad_slice(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_one(FTR_OP_slice_grad, &s->node->attr, s->dout[0]);
}

void ftr__grad_pad(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    const ftr_op_attr *attr = &s->node->attr;
    ftr_shape shape = ftr_shape_of(s->in[0]);
    ftr_tensor d = s->dout[0];
    for (int32_t i = 0; i < shape.rank; i++) {
        int64_t before = attr->pad.before[i];
        if (before != 0 || attr->pad.after[i] != 0) d = ftr_slice(d, i, before, before + shape.dim[i], 1);
    }
    s->din[0] = d;
}

/* ---- split and stack, made of slices, reshapes and concat */

/* Whether the parts fit the axis; if not, the error is recorded. */
static bool ftr__check_split(ftr_tensor x, int32_t axis, const int64_t *sizes, int32_t count) {
    ftr_shape shape = ftr_shape_of(x);
    const char *name = ftr_name_of(x);
    if (axis < -shape.rank || axis >= shape.rank) {
        (void)ftr__builder_error(x.graph, FTR_ERROR_INVALID_ARGUMENT, "split of", name,
                                 "axis %d of a tensor of rank %d", (int)axis, (int)shape.rank);
        return false;
    }
    int64_t size = shape.dim[axis < 0 ? axis + shape.rank : axis], left = size;
    if (count < 1) {
        (void)ftr__builder_error(x.graph, FTR_ERROR_INVALID_ARGUMENT, "split of", name, "%d parts, expected 1 or more",
                                 (int)count);
        return false;
    }
    if (sizes == NULL && size % count != 0) {
        (void)ftr__builder_error(x.graph, FTR_ERROR_SHAPE, "split of", name, "%d equal parts of an axis of size %lld",
                                 (int)count, (long long)size);
        return false;
    }
    for (int32_t i = 0; sizes != NULL && i < count && left >= 0; i++)
        left = sizes[i] < 0 || sizes[i] > left ? -1 : left - sizes[i];
    if (sizes == NULL || left == 0) return true;
    (void)ftr__builder_error(x.graph, FTR_ERROR_SHAPE, "split of", name,
                             "the sizes of the %d parts do not add up to %lld, the size of axis %d", (int)count,
                             (long long)size, (int)axis);
    return false;
}

void ftr_split(ftr_tensor x, int32_t axis, const int64_t *sizes, int32_t count, ftr_tensor *parts) {
    if (parts == NULL) return;
    for (int32_t i = 0; i < count; i++) parts[i] = (ftr_tensor){NULL, 0};
    if (ftr__common_graph("split", &x, 1, 1) == NULL || !ftr__check_split(x, axis, sizes, count)) return;
    ftr_shape shape = ftr_shape_of(x);
    int64_t equal = shape.dim[axis < 0 ? axis + shape.rank : axis] / count, begin = 0;
    for (int32_t i = 0; i < count; i++) {
        int64_t end = begin + (sizes != NULL ? sizes[i] : equal);
        parts[i] = ftr_slice(x, axis, begin, end, 1);
        begin = end;
    }
}

ftr_tensor ftr_stack(const ftr_tensor *tensors, int32_t count, int32_t axis) {
    ftr_tensor none = {NULL, 0}, parts[FTR__INFER_INPUTS];
    ftr_graph *graph = NULL;
    for (int32_t i = 0; tensors != NULL && i < count && graph == NULL; i++) graph = tensors[i].graph;
    if (graph == NULL) return none;
    if (count > FTR__INFER_INPUTS)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "stack", NULL, "%d tensors, expected 1 to %d",
                                  (int)count, FTR__INFER_INPUTS);
    if (ftr__common_graph("stack", tensors, count, count) == NULL) return none;
    ftr_shape first = ftr_shape_of(tensors[0]);
    if (first.rank == FTR_MAX_RANK)
        return ftr__builder_error(graph, FTR_ERROR_RANK, "stack", NULL, "tensors have rank %d, expected %d or less",
                                  (int)first.rank, FTR_MAX_RANK - 1);
    if (axis < -first.rank - 1 || axis > first.rank)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "stack", NULL,
                                  "new axis %d for tensors of rank %d", (int)axis, (int)first.rank);
    if (axis < 0) axis += first.rank + 1;
    ftr_shape wider = first;
    wider.dim[wider.rank++] = 1;
    for (int32_t d = first.rank; d > axis; d--) wider.dim[d] = first.dim[d - 1];
    wider.dim[axis] = 1;
    for (int32_t i = 0; i < count; i++) {
        ftr_shape shape = ftr_shape_of(tensors[i]);
        char text[FTR__SHAPE_TEXT], text_first[FTR__SHAPE_TEXT];
        if (!ftr_shape_equal(&shape, &first))
            return ftr__builder_error(graph, FTR_ERROR_SHAPE, "stack", NULL,
                                      "input 0 is %s, input %d is %s: all must have one shape",
                                      ftr__shape_text(&first, text_first), (int)i, ftr__shape_text(&shape, text));
        parts[i] = ftr__reshape_to(tensors[i], &wider);
    }
    return ftr_concat(parts, count, axis);
}

/* ---- src/ops/loss.c ---- */
/* Softmax, losses and accuracy. */

#define FTR__COOKIE_CROSS_ENTROPY 0x43524f53u

/* ---- softmax */

static ftr_tensor ftr__axis_op(ftr_op op, ftr_tensor x, int32_t axis) {
    ftr_op_attr attr = {.axis = {axis}};
    return ftr__emit_one(op, &attr, x);
}

ftr_tensor ftr_softmax(ftr_tensor x, int32_t axis) { return ftr__axis_op(FTR_OP_softmax, x, axis); }
ftr_tensor ftr_log_softmax(ftr_tensor x, int32_t axis) { return ftr__axis_op(FTR_OP_log_softmax, x, axis); }

static ftr_status ftr__softmax_shape(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, s->in_count > 1 ? "dy" : "input");
    if (status == FTR_OK) status = ftr__check_axis(s, &s->node->attr.axis.axis, s->in[0]->shape.rank);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
}

static ftr_status ftr__softmax_grad_shape(ftr__infer *s) {
    ftr_status status = ftr__check_same_type(s, 0, 1, "dy", "y");
    if (status == FTR_OK) status = ftr__check_same_shape(s, 0, 1, "dy", "y");
    return status != FTR_OK ? status : ftr__softmax_shape(s);
}

ftr_status ftr__infer_softmax(ftr__infer *s) { return ftr__softmax_shape(s); }
ftr_status ftr__infer_log_softmax(ftr__infer *s) { return ftr__softmax_shape(s); }
ftr_status ftr__infer_softmax_grad(ftr__infer *s) { return ftr__softmax_grad_shape(s); }
ftr_status ftr__infer_log_softmax_grad(ftr__infer *s) { return ftr__softmax_grad_shape(s); }

void ftr__grad_softmax(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_two(FTR_OP_softmax_grad, &s->node->attr, s->dout[0], s->out[0]);
}

void ftr__grad_log_softmax(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_two(FTR_OP_log_softmax_grad, &s->node->attr, s->dout[0], s->out[0]);
}

/* ---- masked rows */

ftr_tensor ftr__row_mask(ftr_graph *graph, const ftr_shape *shape, ftr_dtype dtype) {
    ftr_tensor none = {NULL, 0};
    if (graph->batch_mask == 0 || shape->rank < 1 || !ftr__is_float(dtype)) return none;
    ftr_tensor mask = {graph, graph->batch_mask};
    if (ftr_shape_of(mask).dim[0] != shape->dim[0]) return none;
    return ftr__cast_to(mask, dtype);
}

/* x [n, ..] with the masked rows as 0, whatever they hold. */
static ftr_tensor ftr__zero_masked_rows(ftr_tensor x, ftr_tensor mask) {
    ftr_shape rows = ftr_shape_of(x);
    ftr_tensor zero = ftr_scalar(x.graph, ftr_dtype_of(x), 0.0);
    for (int32_t i = 1; i < rows.rank; i++) rows.dim[i] = 1;
    return ftr_where(ftr_ne(ftr__reshape_to(mask, &rows), zero), x, zero);
}

/* Sum or mean of x [n, ..] over the rows that count. */
static ftr_tensor ftr__reduce_real_rows(ftr_tensor x, ftr_reduction reduction) {
    ftr_shape shape = ftr_shape_of(x);
    ftr_dtype dtype = ftr_dtype_of(x);
    if (!ftr_is_valid(x)) return x;
    ftr_tensor mask = ftr__row_mask(x.graph, &shape, dtype);
    if (ftr_is_valid(mask)) x = ftr__zero_masked_rows(x, mask);
    if (reduction == FTR_REDUCE_NONE) return x;
    if (reduction == FTR_REDUCE_SUM) return ftr_sum(x, ftr_all_axes(), false);
    if (reduction == FTR_REDUCE_BATCH_MEAN) {
        ftr_tensor rows = ftr_is_valid(mask) ? ftr_sum(mask, ftr_all_axes(), false)
                                             : ftr_scalar(x.graph, dtype, (double)shape.dim[0]);
        return ftr_div(ftr_sum(x, ftr_all_axes(), false), rows);
    }
    if (!ftr_is_valid(mask)) return ftr_mean(x, ftr_all_axes(), false);
    double trailing = 1.0;
    for (int32_t i = 1; i < shape.rank; i++) trailing *= (double)shape.dim[i];
    ftr_tensor count = ftr_sum(mask, ftr_all_axes(), false);
    if (shape.rank > 1) count = ftr_mul(count, ftr_scalar(x.graph, dtype, trailing));
    return ftr_div(ftr_sum(x, ftr_all_axes(), false), count);
}

/* ---- cross entropy */

ftr_cross_entropy_desc ftr_cross_entropy_defaults(void) {
    ftr_cross_entropy_desc desc = {FTR__COOKIE_CROSS_ENTROPY, 0.0, -100, {NULL, 0}, FTR_REDUCE_MEAN};
    return desc;
}

ftr_tensor ftr_cross_entropy(ftr_tensor logits, ftr_tensor labels, const ftr_cross_entropy_desc *desc) {
    ftr_tensor none = {NULL, 0};
    ftr_cross_entropy_desc d = desc != NULL ? *desc : ftr_cross_entropy_defaults();
    bool known = d.cookie == FTR__COOKIE_CROSS_ENTROPY;
    ftr_tensor in[4] = {logits, labels, known ? d.class_weights : none, none};
    ftr_graph *graph = ftr__common_graph("cross_entropy", in, 3, 2);
    if (graph == NULL) return none;
    if (!known)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "cross_entropy", NULL,
                                  "desc was not made by ftr_cross_entropy_defaults()");
    ftr_shape rows = ftr_shape_of(labels);
    in[3] = ftr__row_mask(graph, &rows, ftr_dtype_of(logits));
    ftr_op_attr attr = {.cross_entropy = {d.label_smoothing, d.ignore_index, d.reduction}};
    return ftr__emit(graph, FTR_OP_cross_entropy, NULL, &attr, in, 4);
}

static ftr_status ftr__check_cross_entropy_attr(ftr__infer *s) {
    double smoothing = s->node->attr.cross_entropy.label_smoothing;
    int reduction = (int)s->node->attr.cross_entropy.reduction;
    if (!(smoothing >= 0.0 && smoothing <= 1.0))
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "label_smoothing %g, expected 0 to 1", smoothing);
    if (reduction < (int)FTR_REDUCE_MEAN || reduction > (int)FTR_REDUCE_NONE)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "reduction %d, expected 0 to %d", reduction,
                                (int)FTR_REDUCE_NONE);
    return FTR_OK;
}

/* logits [.., classes] against labels [..], which are inputs `first` and first + 1. */
static ftr_status ftr__check_labels(ftr__infer *s, int32_t first) {
    const ftr__value *logits = s->in[first], *labels = s->in[first + 1];
    const bool nll = s->node->op == FTR_OP_nll || s->node->op == FTR_OP_nll_grad;
    const char *what = nll ? "log-probabilities" : "logits";
    ftr_status status = ftr__check_float(s, first, what);
    if (status != FTR_OK) return status;
    if (labels->dtype != FTR_I32 && labels->dtype != FTR_I64)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "labels are %s, expected i32 or i64",
                                ftr_dtype_name(labels->dtype));
    if (logits->shape.rank < 1)
        return ftr__infer_error(s, FTR_ERROR_RANK, "%s have rank 0, expected 1 or more (..., classes)", what);
    char text[FTR__SHAPE_TEXT], text_logits[FTR__SHAPE_TEXT], text_rows[FTR__SHAPE_TEXT];
    if (logits->shape.dim[logits->shape.rank - 1] < 1)
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "%s %s have no classes", what,
                                ftr__shape_text(&logits->shape, text_logits));
    ftr_shape rows = logits->shape;
    rows.rank--;
    if (ftr_shape_equal(&rows, &labels->shape)) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_SHAPE, "labels are %s, expected %s for %s %s",
                            ftr__shape_text(&labels->shape, text), ftr__shape_text(&rows, text_rows), what,
                            ftr__shape_text(&logits->shape, text_logits));
}

static ftr_status ftr__check_row_weights(ftr__infer *s, int32_t weights, const ftr__value *logits,
                                         const ftr__value *labels) {
    if (s->in_count > weights && s->in[weights] != NULL) {
        ftr_status status = ftr__check_vector(s, weights, "class weights", logits->shape.dim[logits->shape.rank - 1]);
        if (status != FTR_OK) return status;
    }
    if (s->in_count <= weights + 1 || s->in[weights + 1] == NULL) return FTR_OK;
    return ftr__check_vector(s, weights + 1, "row mask", labels->shape.rank > 0 ? labels->shape.dim[0] : 1);
}

ftr_status ftr__infer_cross_entropy(ftr__infer *s) {
    ftr_status status = ftr__check_cross_entropy_attr(s);
    if (status == FTR_OK) status = ftr__check_labels(s, 0);
    if (status == FTR_OK) status = ftr__check_row_weights(s, 2, s->in[0], s->in[1]);
    if (status != FTR_OK) return status;
    ftr_dtype dtype = s->in[0]->dtype;
    ftr_shape scalar = ftr_scalar_shape(), rows = s->in[1]->shape;
    bool each = s->node->attr.cross_entropy.reduction == FTR_REDUCE_NONE;
    status = ftr__set_output(s, 0, dtype, each ? &rows : &scalar);
    if (status == FTR_OK) status = ftr__set_output(s, 1, dtype, &rows);
    return status != FTR_OK ? status : ftr__set_output(s, 2, dtype, &scalar);
}

ftr_status ftr__infer_cross_entropy_grad(ftr__infer *s) {
    ftr_status status = ftr__check_cross_entropy_attr(s);
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dloss", "logits");
    if (status == FTR_OK) status = ftr__check_labels(s, 1);
    if (status == FTR_OK) status = ftr__check_same_shape(s, 2, 3, "labels", "log of the sums");
    if (status == FTR_OK) status = ftr__check_row_weights(s, 5, s->in[1], s->in[2]);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[1]->dtype, &s->in[1]->shape);
}

void ftr__grad_cross_entropy(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_tensor none = {NULL, 0};
    int32_t count = s->node->in_count;
    ftr_tensor in[7] = {
        s->dout[0], s->in[0], s->in[1], s->out[1], s->out[2], count > 2 ? s->in[2] : none, count > 3 ? s->in[3] : none};
    s->din[0] = ftr__emit(s->graph, FTR_OP_cross_entropy_grad, NULL, &s->node->attr, in, 7);
}

/* ---- losses made of other ops */

/* The graph of two operands of one floating type and shape, and a reduction up to `last`; NULL with the error
 * recorded. */
static ftr_graph *ftr__loss_begin(const char *what, const char *word, ftr_tensor prediction, ftr_tensor target,
                                  ftr_reduction reduction, ftr_reduction last) {
    ftr_tensor in[2] = {prediction, target};
    ftr_graph *graph = ftr__common_graph(what, in, 2, 2);
    if (graph == NULL) return NULL;
    ftr_dtype found = ftr_dtype_of(prediction), other = ftr_dtype_of(target);
    ftr_shape shape = ftr_shape_of(prediction), shape_target = ftr_shape_of(target);
    char text[FTR__SHAPE_TEXT], text_target[FTR__SHAPE_TEXT];
    if ((int)reduction < (int)FTR_REDUCE_MEAN || (int)reduction > (int)last)
        (void)ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, what, NULL, "reduction %d, expected 0 to %d",
                                 (int)reduction, (int)last);
    else if (!ftr__is_float(found))
        (void)ftr__builder_error(graph, FTR_ERROR_DTYPE, what, NULL, "%s is %s, expected f32 or f64", word,
                                 ftr_dtype_name(found));
    else if (found != other)
        (void)ftr__builder_error(graph, FTR_ERROR_DTYPE, what, NULL, "%s is %s, target is %s: both must have one type",
                                 word, ftr_dtype_name(found), ftr_dtype_name(other));
    else if (!ftr_shape_equal(&shape, &shape_target))
        (void)ftr__builder_error(graph, FTR_ERROR_SHAPE, what, NULL, "%s is %s, target is %s: both must have one shape",
                                 word, ftr__shape_text(&shape, text), ftr__shape_text(&shape_target, text_target));
    else
        return graph;
    return NULL;
}

ftr_tensor ftr_mse(ftr_tensor prediction, ftr_tensor target, ftr_reduction reduction) {
    if (ftr__loss_begin("mse", "prediction", prediction, target, reduction, FTR_REDUCE_NONE) == NULL)
        return (ftr_tensor){NULL, 0};
    ftr_tensor difference = ftr_sub(prediction, target);
    return ftr__reduce_real_rows(ftr_mul(difference, difference), reduction);
}

/* |x|; its gradient at 0 is 0, for the maximum shares it. */
static ftr_tensor ftr__loss_size(ftr_tensor x) { return ftr_maximum(x, ftr_neg(x)); }

/* With m = min(|d|, beta): m (|d| - m / 2) / beta, which is |d| where beta is 0. */
ftr_tensor ftr_smooth_l1(ftr_tensor prediction, ftr_tensor target, double beta, ftr_reduction reduction) {
    ftr_graph *graph = ftr__loss_begin("smooth_l1", "prediction", prediction, target, reduction, FTR_REDUCE_NONE);
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    if (!(beta >= 0.0) || !isfinite(beta))
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "smooth_l1", NULL,
                                  "beta %g, expected a finite number of 0 or more", beta);
    ftr_dtype dtype = ftr_dtype_of(prediction);
    ftr_tensor size = ftr__loss_size(ftr_sub(prediction, target));
    if (beta == 0.0) return ftr__reduce_real_rows(size, reduction);
    ftr_tensor least = ftr_neg(ftr_maximum(ftr_neg(size), ftr_scalar(graph, dtype, -beta)));
    ftr_tensor rest = ftr_sub(size, ftr_mul(least, ftr_scalar(graph, dtype, 0.5)));
    return ftr__reduce_real_rows(ftr_mul(ftr_div(least, ftr_scalar(graph, dtype, beta)), rest), reduction);
}

/* (1 - t) x + (1 + (w - 1) t) log(1 + e^-x) */
ftr_tensor ftr_bce_with_logits(ftr_tensor logits, ftr_tensor target, const ftr_bce_desc *desc) {
    ftr_tensor none = {NULL, 0}, in[3] = {logits, target, desc != NULL ? desc->pos_weight : none};
    ftr_reduction reduction = desc != NULL ? desc->reduction : FTR_REDUCE_MEAN;
    ftr_graph *graph = ftr__common_graph("bce_with_logits", in, 3, 2);
    if (graph == NULL) return none;
    graph = ftr__loss_begin("bce_with_logits", "logits", logits, target, reduction, FTR_REDUCE_NONE);
    if (graph == NULL) return none;
    ftr_dtype dtype = ftr_dtype_of(logits);
    const bool weighted = in[2].graph != NULL;
    ftr_shape shape = ftr_shape_of(logits), shape_weight = ftr_shape_of(in[2]), both;
    char text[FTR__SHAPE_TEXT], text_weight[FTR__SHAPE_TEXT];
    if (weighted && ftr_dtype_of(in[2]) != dtype)
        return ftr__builder_error(graph, FTR_ERROR_DTYPE, "bce_with_logits", NULL, "pos_weight is %s, expected %s",
                                  ftr_dtype_name(ftr_dtype_of(in[2])), ftr_dtype_name(dtype));
    if (weighted && (!ftr__broadcast_shape(&shape, &shape_weight, &both) || !ftr_shape_equal(&shape, &both)))
        return ftr__builder_error(graph, FTR_ERROR_SHAPE, "bce_with_logits", NULL,
                                  "pos_weight %s does not broadcast to logits %s",
                                  ftr__shape_text(&shape_weight, text_weight), ftr__shape_text(&shape, text));
    ftr_tensor one = ftr_scalar(graph, dtype, 1.0), positive = ftr_softplus(ftr_neg(logits), 1.0, INFINITY);
    if (weighted) positive = ftr_mul(ftr_add(ftr_mul(ftr_sub(in[2], one), target), one), positive);
    return ftr__reduce_real_rows(ftr_add(ftr_mul(ftr_sub(one, target), logits), positive), reduction);
}

/* t (log t - x) with 0 log 0 = 0, or e^t (t - x). */
ftr_tensor ftr_kl_div(ftr_tensor input, ftr_tensor target, bool log_target, ftr_reduction reduction) {
    ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__loss_begin("kl_div", "input", input, target, reduction, FTR_REDUCE_BATCH_MEAN);
    if (graph == NULL) return none;
    ftr_dtype dtype = ftr_dtype_of(input);
    if (reduction == FTR_REDUCE_BATCH_MEAN && ftr_shape_of(input).rank < 1)
        return ftr__builder_error(graph, FTR_ERROR_RANK, "kl_div", NULL,
                                  "input has rank 0, a batch mean needs 1 or more");
    if (log_target) return ftr__reduce_real_rows(ftr_mul(ftr_exp(target), ftr_sub(target, input)), reduction);
    ftr_tensor absent = ftr_eq(target, ftr_scalar(graph, dtype, 0.0));
    ftr_tensor present = ftr_where(absent, ftr_scalar(graph, dtype, 1.0), target);
    return ftr__reduce_real_rows(ftr_mul(target, ftr_sub(ftr_log(present), input)), reduction);
}

/* ---- negative log-likelihood */

ftr_tensor ftr_nll(ftr_tensor log_probabilities, ftr_tensor labels, const ftr_cross_entropy_desc *desc) {
    ftr_tensor none = {NULL, 0};
    ftr_cross_entropy_desc d = desc != NULL ? *desc : ftr_cross_entropy_defaults();
    bool known = d.cookie == FTR__COOKIE_CROSS_ENTROPY;
    ftr_tensor in[4] = {log_probabilities, labels, known ? d.class_weights : none, none};
    ftr_graph *graph = ftr__common_graph("nll", in, 3, 2);
    if (graph == NULL) return none;
    if (!known)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "nll", NULL,
                                  "desc was not made by ftr_cross_entropy_defaults()");
    if (d.label_smoothing != 0.0)
        return ftr__builder_error(graph, FTR_ERROR_INVALID_ARGUMENT, "nll", NULL, "label_smoothing %g, expected 0",
                                  d.label_smoothing);
    ftr_shape rows = ftr_shape_of(labels);
    in[3] = ftr__row_mask(graph, &rows, ftr_dtype_of(log_probabilities));
    ftr_op_attr attr = {.cross_entropy = {0.0, d.ignore_index, d.reduction}};
    return ftr__emit(graph, FTR_OP_nll, NULL, &attr, in, 4);
}

ftr_status ftr__infer_nll(ftr__infer *s) {
    ftr_status status = ftr__check_cross_entropy_attr(s);
    if (status == FTR_OK) status = ftr__check_labels(s, 0);
    if (status == FTR_OK) status = ftr__check_row_weights(s, 2, s->in[0], s->in[1]);
    if (status != FTR_OK) return status;
    ftr_shape scalar = ftr_scalar_shape();
    bool each = s->node->attr.cross_entropy.reduction == FTR_REDUCE_NONE;
    status = ftr__set_output(s, 0, s->in[0]->dtype, each ? &s->in[1]->shape : &scalar);
    return status != FTR_OK ? status : ftr__set_output(s, 1, s->in[0]->dtype, &scalar);
}

ftr_status ftr__infer_nll_grad(ftr__infer *s) {
    ftr_status status = ftr__check_cross_entropy_attr(s);
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dloss", "log-probabilities");
    if (status == FTR_OK) status = ftr__check_labels(s, 1);
    if (status == FTR_OK) status = ftr__check_row_weights(s, 4, s->in[1], s->in[2]);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[1]->dtype, &s->in[1]->shape);
}

void ftr__grad_nll(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_tensor none = {NULL, 0};
    int32_t count = s->node->in_count;
    ftr_tensor in[6] = {s->dout[0], s->in[0], s->in[1], s->out[1], none, none};
    for (int32_t i = 2; i < count; i++) in[i + 2] = s->in[i];
    s->din[0] = ftr__emit(s->graph, FTR_OP_nll_grad, NULL, &s->node->attr, in, 6);
}

/* ---- accuracy */

ftr_tensor ftr_accuracy(ftr_tensor logits, ftr_tensor labels) {
    ftr_tensor in[2] = {logits, labels}, none = {NULL, 0};
    ftr_graph *graph = ftr__common_graph("accuracy", in, 2, 2);
    if (graph == NULL) return none;
    ftr_dtype dtype = ftr_dtype_of(logits), label_type = ftr_dtype_of(labels);
    if (!ftr__is_float(dtype))
        return ftr__builder_error(graph, FTR_ERROR_DTYPE, "accuracy", NULL, "logits are %s, expected f32 or f64",
                                  ftr_dtype_name(dtype));
    if (label_type != FTR_I32 && label_type != FTR_I64)
        return ftr__builder_error(graph, FTR_ERROR_DTYPE, "accuracy", NULL, "labels are %s, expected i32 or i64",
                                  ftr_dtype_name(label_type));
    ftr_shape rows = ftr_shape_of(logits), found = ftr_shape_of(labels);
    if (rows.rank < 1)
        return ftr__builder_error(graph, FTR_ERROR_RANK, "accuracy", NULL,
                                  "logits have rank 0, expected 1 or more (..., classes)");
    char text[FTR__SHAPE_TEXT], text_logits[FTR__SHAPE_TEXT], text_rows[FTR__SHAPE_TEXT];
    (void)ftr__shape_text(&rows, text_logits);
    rows.rank--;
    if (!ftr_shape_equal(&rows, &found))
        return ftr__builder_error(graph, FTR_ERROR_SHAPE, "accuracy", NULL, "labels are %s, expected %s for logits %s",
                                  ftr__shape_text(&found, text), ftr__shape_text(&rows, text_rows), text_logits);
    ftr_tensor best = ftr_argmax(logits, -1);
    ftr_tensor correct = ftr_cast(ftr_eq(best, ftr__cast_to(labels, FTR_I64)), dtype);
    return ftr__reduce_real_rows(correct, FTR_REDUCE_MEAN);
}

/* ---- src/ops/index.c ---- */
/* Ops on indices: embedding, gather, scatter_add, one_hot, topk. */

/* ---- builders */

ftr_tensor ftr_embedding_with(ftr_tensor weight, ftr_tensor indices) {
    return ftr__emit_two(FTR_OP_embedding, NULL, weight, indices);
}

ftr_tensor ftr_embedding(ftr_tensor indices, const char *name, int64_t rows, int64_t width,
                         const ftr_embedding_desc *desc) {
    ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__common_graph("embedding", &indices, 1, 1);
    if (graph == NULL) return none;
    if (name == NULL || name[0] == '\0')
        return ftr__builder_error(graph, FTR_ERROR_NAME, "embedding", NULL, "the layer has no name");
    if (rows < 1 || width < 1)
        return ftr__layer_error(graph, FTR_ERROR_INVALID_ARGUMENT, "embedding", name,
                                "rows %lld, width %lld, expected 1 or more", (long long)rows, (long long)width);
    ftr_dtype dtype = desc != NULL && desc->dtype != FTR_DTYPE_NONE ? desc->dtype : FTR_F32;
    ftr_shape shape = FTR_SHAPE(rows, width);
    ftr_init init = ftr__init_or(desc != NULL ? &desc->weight_init : NULL, (ftr_init){FTR_INIT_NORMAL, 0.0, 1.0});
    ftr_tensor weight = ftr__layer_variable(graph, "embedding", name, "weight", true, dtype, &shape, init);
    ftr_tensor in[2] = {weight, indices};
    return ftr_is_valid(weight) ? ftr__emit(graph, FTR_OP_embedding, name, NULL, in, 2) : none;
}

ftr_tensor ftr_gather(ftr_tensor x, int32_t axis, ftr_tensor index) {
    ftr_op_attr attr = {.axis = {axis}};
    return ftr__emit_two(FTR_OP_gather, &attr, x, index);
}

ftr_tensor ftr_scatter_add(ftr_tensor x, int32_t axis, ftr_tensor index, ftr_tensor source) {
    ftr_tensor in[3] = {index, source, x};
    ftr_graph *graph = ftr__common_graph("scatter_add", in, 3, 3);
    if (graph == NULL) return (ftr_tensor){NULL, 0};
    ftr_op_attr attr = {.scatter = {axis, ftr_shape_of(x)}};
    return ftr__emit(graph, FTR_OP_scatter_add, NULL, &attr, in, 3);
}

ftr_tensor ftr_one_hot(ftr_tensor indices, int64_t classes, ftr_dtype dtype) {
    ftr_op_attr attr = {.one_hot = {classes, dtype}};
    return ftr__emit_one(FTR_OP_one_hot, &attr, indices);
}

ftr_tensor ftr_topk(ftr_tensor x, int64_t k, ftr_tensor *indices) {
    ftr_op_attr attr = {.topk = {k}};
    ftr_tensor values = ftr__emit_one(FTR_OP_topk, &attr, x);
    if (indices != NULL) *indices = ftr_is_valid(values) ? ftr__output(values, 1) : values;
    return values;
}

/* ---- shapes and types */

static ftr_status ftr__check_indices(ftr__infer *s, int32_t input, const char *what) {
    ftr_dtype found = s->in[input]->dtype;
    if (found == FTR_I32 || found == FTR_I64) return FTR_OK;
    return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s %s, expected i32 or i64", what, ftr_dtype_name(found));
}

/* The shape with one more dimension at its end. */
static ftr_status ftr__set_wider(ftr__infer *s, ftr_dtype dtype, const ftr_shape *shape, int64_t size) {
    ftr_shape out = *shape;
    if (out.rank == FTR_MAX_RANK)
        return ftr__infer_error(s, FTR_ERROR_RANK, "indices have rank %d, expected %d or less", (int)out.rank,
                                FTR_MAX_RANK - 1);
    out.dim[out.rank++] = size;
    return ftr__set_output(s, 0, dtype, &out);
}

ftr_status ftr__infer_embedding(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "weight");
    if (status == FTR_OK) status = ftr__check_rank(s, 0, "weight", 2, "rows, width");
    if (status == FTR_OK) status = ftr__check_indices(s, 1, "indices are");
    return status != FTR_OK ? status
                            : ftr__set_wider(s, s->in[0]->dtype, &s->in[1]->shape, s->in[0]->shape.dim[1]);
}

ftr_status ftr__infer_embedding_grad(ftr__infer *s) {
    const ftr_shape *dy = &s->in[0]->shape;
    ftr_status status = ftr__check_float(s, 0, "dy");
    if (status == FTR_OK) status = ftr__check_indices(s, 1, "indices are");
    if (status != FTR_OK) return status;
    ftr_shape rows = *dy;
    if (rows.rank > 0) rows.rank--;
    char text[FTR__SHAPE_TEXT], text_dy[FTR__SHAPE_TEXT];
    if (dy->rank < 1 || !ftr_shape_equal(&rows, &s->in[1]->shape))
        return ftr__infer_error(s, FTR_ERROR_SHAPE, "dy is %s, indices are %s: expected theirs and the width",
                                ftr__shape_text(dy, text_dy), ftr__shape_text(&s->in[1]->shape, text));
    ftr_shape out = FTR_SHAPE(s->node->attr.embedding.rows, dy->dim[dy->rank - 1]);
    return ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

/* Rank of the index is that of a shape; where the dimension is not `but`, it is not larger. */
static ftr_status ftr__check_index_fits(ftr__infer *s, const ftr_shape *index, const ftr_shape *shape, const char *what,
                                        int32_t but) {
    if (index->rank != shape->rank || index->rank < 1)
        return ftr__infer_error(s, FTR_ERROR_RANK, "index has rank %d, %s has rank %d, expected one rank of 1 or more",
                                (int)index->rank, what, (int)shape->rank);
    char text[FTR__SHAPE_TEXT], text_index[FTR__SHAPE_TEXT];
    for (int32_t d = 0; d < index->rank; d++)
        if (d != but && index->dim[d] > shape->dim[d])
            return ftr__infer_error(s, FTR_ERROR_SHAPE, "index is %s, %s is %s: dimension %d is larger",
                                    ftr__shape_text(index, text_index), what, ftr__shape_text(shape, text), (int)d);
    return FTR_OK;
}

ftr_status ftr__infer_gather(ftr__infer *s) {
    const ftr_shape *x = &s->in[0]->shape, *index = &s->in[1]->shape;
    int32_t *axis = &s->node->attr.axis.axis;
    ftr_status status = ftr__check_indices(s, 1, "index is");
    if (status == FTR_OK) status = ftr__check_axis(s, axis, x->rank);
    if (status == FTR_OK) status = ftr__check_index_fits(s, index, x, "x", *axis);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, index);
}

ftr_status ftr__infer_scatter_add(ftr__infer *s) {
    ftr_op_attr *attr = &s->node->attr;
    const ftr_shape *index = &s->in[0]->shape, *source = &s->in[1]->shape;
    ftr_status status = ftr__check_indices(s, 0, "index is");
    if (status == FTR_OK) status = ftr__check_arithmetic(s, 1, "source");
    if (status == FTR_OK && s->in_count > 2 && s->in[2] != NULL) {
        attr->scatter.shape = s->in[2]->shape;
        status = ftr__check_same_type(s, 2, 1, "x", "source");
    }
    if (status == FTR_OK) status = ftr__check_axis(s, &attr->scatter.axis, attr->scatter.shape.rank);
    if (status == FTR_OK) status = ftr__check_index_fits(s, index, &attr->scatter.shape, "x", attr->scatter.axis);
    if (status == FTR_OK) status = ftr__check_index_fits(s, index, source, "source", -1);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[1]->dtype, &attr->scatter.shape);
}

ftr_status ftr__infer_one_hot(ftr__infer *s) {
    const ftr_op_attr *attr = &s->node->attr;
    ftr_status status = ftr__check_indices(s, 0, "indices are");
    if (status != FTR_OK) return status;
    if (attr->one_hot.classes < 1)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "classes %lld, expected 1 or more",
                                (long long)attr->one_hot.classes);
    if (ftr_dtype_size(attr->one_hot.dtype) == 0)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "dtype %d, expected f32, f64, i32, i64, u8 or bool",
                                (int)attr->one_hot.dtype);
    return ftr__set_wider(s, attr->one_hot.dtype, &s->in[0]->shape, attr->one_hot.classes);
}

ftr_status ftr__infer_topk(ftr__infer *s) {
    ftr_shape out = s->in[0]->shape;
    int64_t k = s->node->attr.topk.k;
    ftr_status status = ftr__check_arithmetic(s, 0, "input");
    if (status != FTR_OK) return status;
    if (out.rank < 1) return ftr__infer_error(s, FTR_ERROR_RANK, "input has rank 0, expected 1 or more");
    if (k < 0 || k > out.dim[out.rank - 1])
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "k %lld, expected 0 to %lld", (long long)k,
                                (long long)out.dim[out.rank - 1]);
    out.dim[out.rank - 1] = k;
    status = ftr__set_output(s, 0, s->in[0]->dtype, &out);
    return status != FTR_OK ? status : ftr__set_output(s, 1, FTR_I64, &out);
}

/* ---- gradients */

/* Zeros of the shape of x with dy added at the indices. */
static ftr_tensor ftr__scatter_like(ftr_tensor x, int32_t axis, ftr_tensor index, ftr_tensor dy) {
    ftr_op_attr attr = {.scatter = {axis, ftr_shape_of(x)}};
    return ftr__emit_two(FTR_OP_scatter_add, &attr, index, dy);
}

void ftr__grad_embedding(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    ftr_op_attr attr = {.embedding = {ftr_shape_of(s->in[0]).dim[0]}};
    s->din[0] = ftr__emit_two(FTR_OP_embedding_grad, &attr, s->dout[0], s->in[1]);
}

void ftr__grad_gather(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__scatter_like(s->in[0], s->node->attr.axis.axis, s->in[1], s->dout[0]);
}

/* Elements of the source that the index does not reach have no gradient. */
void ftr__grad_scatter_add(ftr__grad *s) {
    if (!ftr__has_gradient(s)) return;
    if (s->node->in_count > 2 && s->wanted[2]) s->din[2] = s->dout[0];
    if (!s->wanted[1]) return;
    ftr_shape index = ftr_shape_of(s->in[0]), source = ftr_shape_of(s->in[1]), before = source;
    s->din[1] = ftr_gather(s->dout[0], s->node->attr.scatter.axis, s->in[0]);
    if (ftr_shape_equal(&index, &source)) return;
    for (int32_t d = 0; d < source.rank; d++) {
        before.dim[d] = 0;
        source.dim[d] -= index.dim[d];
    }
    s->din[1] = ftr_pad(s->din[1], before, source, 0.0);
}

void ftr__grad_topk(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__scatter_like(s->in[0], ftr_shape_of(s->in[0]).rank - 1, s->out[1], s->dout[0]);
}

/* ---- src/ops/scan.c ---- */
/* Ops along a line of elements: cumulative sum, product, log-sum-exp; variance and norms, made of other ops. */

/* ---- builders */

ftr_tensor ftr_cumsum(ftr_tensor x, int32_t axis, bool reverse) {
    ftr_op_attr attr = {.cumsum = {axis, reverse}};
    return ftr__emit_one(FTR_OP_cumsum, &attr, x);
}

/* x with the axes of `mask` joined into one: in their place if they are neighbours, otherwise at the end. */
static ftr_tensor ftr__join_axes(ftr_tensor x, uint32_t mask, int32_t *axis) {
    ftr_shape shape = ftr_shape_of(x), joined = {0, {0}};
    ftr_axes order = {0, {0}};
    int64_t size = 1;
    int32_t reduced = 0, first = shape.rank;
    for (int32_t i = 0; i < shape.rank; i++) {
        if ((mask >> i & 1u) == 0) {
            order.axis[order.count++] = i;
            continue;
        }
        if (reduced++ == 0) first = i;
        size *= shape.dim[i];
    }
    bool neighbours = mask == ((1u << reduced) - 1u) << first;
    *axis = neighbours ? first : order.count;
    for (int32_t i = 0; i < order.count; i++) {
        if (i == *axis) joined.dim[joined.rank++] = size;
        joined.dim[joined.rank++] = shape.dim[order.axis[i]];
    }
    if (*axis == order.count) joined.dim[joined.rank++] = size;
    if (!neighbours) {
        for (int32_t i = 0; i < shape.rank; i++)
            if ((mask >> i & 1u) != 0) order.axis[order.count++] = i;
        x = ftr_transpose(x, order);
    }
    return ftr__reshape_to(x, &joined);
}

/* An op that reduces one axis, over any. */
static ftr_tensor ftr__reduce_line(ftr_op op, ftr_tensor x, const ftr_axes *axes, bool keep) {
    uint32_t mask;
    if (!ftr__axes_mask(ftr_op_name(op), x, axes, &mask)) return (ftr_tensor){NULL, 0};
    ftr_shape shape = ftr_shape_of(x), kept = ftr__kept_shape(&shape, mask);
    ftr_op_attr attr;
    memset(&attr, 0, sizeof attr);
    ftr_tensor y = ftr__emit_one(op, &attr, ftr__join_axes(x, mask, &attr.axis.axis));
    return keep ? ftr__reshape_to(y, &kept) : y;
}

ftr_tensor ftr_prod(ftr_tensor x, ftr_axes axes, bool keep) { return ftr__reduce_line(FTR_OP_prod, x, &axes, keep); }

ftr_tensor ftr_logsumexp(ftr_tensor x, ftr_axes axes, bool keep) {
    return ftr__reduce_line(FTR_OP_logsumexp, x, &axes, keep);
}

/* The elements that are reduced, x being floating point; -1, with the error recorded, if something is wrong. */
static int64_t ftr__count_reduced(const char *op, const char *what, ftr_tensor x, const ftr_axes *axes) {
    uint32_t mask;
    if (!ftr__axes_mask(op, x, axes, &mask)) return -1;
    ftr_shape shape = ftr_shape_of(x);
    if (!ftr__is_float(ftr_dtype_of(x))) {
        (void)ftr__builder_error(x.graph, FTR_ERROR_DTYPE, what, ftr_name_of(x), "input is %s, expected f32 or f64",
                                 ftr_dtype_name(ftr_dtype_of(x)));
        return -1;
    }
    int64_t count = 1;
    for (int32_t i = 0; i < shape.rank; i++)
        if ((mask >> i & 1u) != 0) count *= shape.dim[i];
    return count;
}

ftr_tensor ftr_var(ftr_tensor x, ftr_axes axes, int32_t correction, bool keep) {
    ftr_tensor none = {NULL, 0};
    int64_t count = ftr__count_reduced("var", "var of", x, &axes);
    if (count < 0) return none;
    if (correction != 0 && correction != 1)
        return ftr__builder_error(x.graph, FTR_ERROR_INVALID_ARGUMENT, "var of", ftr_name_of(x),
                                  "correction %d, expected 0 or 1", (int)correction);
    /* The gradient through the mean is 0, the differences from it adding up to 0. */
    ftr_tensor difference = ftr_sub(x, ftr_stop_gradient(ftr_mean(x, axes, true)));
    double divisor = count > correction ? (double)(count - correction) : 0.0;
    return ftr_div(ftr_sum(ftr_mul(difference, difference), axes, keep), ftr_scalar(x.graph, ftr_dtype_of(x), divisor));
}

/* At 0 the two operands of maximum are equal and their gradients cancel; the square root is taken of 1 instead of 0. */
ftr_tensor ftr_norm(ftr_tensor x, double p, ftr_axes axes, bool keep) {
    ftr_tensor none = {NULL, 0};
    if (ftr__count_reduced("norm", "norm of", x, &axes) < 0) return none;
    if (p != 1.0 && p != 2.0 && !(isinf(p) && p > 0.0))
        return ftr__builder_error(x.graph, FTR_ERROR_INVALID_ARGUMENT, "norm of", ftr_name_of(x),
                                  "p %g, expected 1, 2 or INFINITY", p);
    if (p == 1.0) return ftr_sum(ftr_maximum(x, ftr_neg(x)), axes, keep);
    if (p != 2.0) return ftr_max(ftr_maximum(x, ftr_neg(x)), axes, keep);
    ftr_dtype dtype = ftr_dtype_of(x);
    ftr_tensor sum = ftr_sum(ftr_mul(x, x), axes, keep), zero = ftr_scalar(x.graph, dtype, 0.0);
    ftr_tensor at_zero = ftr_eq(sum, zero);
    return ftr_where(at_zero, zero, ftr_sqrt(ftr_where(at_zero, ftr_scalar(x.graph, dtype, 1.0), sum)));
}

/* ---- shapes and types */

ftr_status ftr__infer_cumsum(ftr__infer *s) {
    ftr_status status = ftr__check_arithmetic(s, 0, "input");
    if (status == FTR_OK) status = ftr__check_axis(s, &s->node->attr.cumsum.axis, s->in[0]->shape.rank);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[0]->dtype, &s->in[0]->shape);
}

static ftr_status ftr__infer_line(ftr__infer *s) {
    const ftr_shape *in = &s->in[0]->shape;
    int32_t *axis = &s->node->attr.axis.axis;
    ftr_status status = ftr__check_axis(s, axis, in->rank);
    if (status != FTR_OK) return status;
    ftr_shape out = {0, {0}};
    for (int32_t i = 0; i < in->rank; i++)
        if (i != *axis) out.dim[out.rank++] = in->dim[i];
    return ftr__set_output(s, 0, s->in[0]->dtype, &out);
}

ftr_status ftr__infer_prod(ftr__infer *s) {
    ftr_status status = ftr__check_arithmetic(s, 0, "input");
    return status != FTR_OK ? status : ftr__infer_line(s);
}

ftr_status ftr__infer_logsumexp(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "input");
    return status != FTR_OK ? status : ftr__infer_line(s);
}

static ftr_status ftr__infer_line_grad(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "dy");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "dy", "x");
    if (status == FTR_OK) status = ftr__check_axis(s, &s->node->attr.axis.axis, s->in[1]->shape.rank);
    return status != FTR_OK ? status : ftr__set_output(s, 0, s->in[1]->dtype, &s->in[1]->shape);
}

ftr_status ftr__infer_prod_grad(ftr__infer *s) { return ftr__infer_line_grad(s); }
ftr_status ftr__infer_logsumexp_grad(ftr__infer *s) { return ftr__infer_line_grad(s); }

/* ---- gradients */

void ftr__grad_cumsum(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr_cumsum(s->dout[0], s->node->attr.cumsum.axis, !s->node->attr.cumsum.reverse);
}

void ftr__grad_prod(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_two(FTR_OP_prod_grad, &s->node->attr, s->dout[0], s->in[0]);
}

/* dx = dy e^(x - y), computed as dy softmax(x), for y is rounded, which e^ makes a large error where y is large. The two
 * differ where an x is infinite, so that softmax itself will not do. */
void ftr__grad_logsumexp(ftr__grad *s) {
    if (!ftr__has_gradient(s) || !s->wanted[0]) return;
    s->din[0] = ftr__emit_two(FTR_OP_logsumexp_grad, &s->node->attr, s->dout[0], s->in[0]);
}

/* ---- src/ops/update.c ---- */
/* Updates: they have no outputs; inference checks that states and values agree. */

/* Inputs past FTR__INFER_INPUTS are not seen here. */
static bool ftr__update_sees(const ftr__infer *s, int32_t input) {
    return input < s->in_count && input < FTR__INFER_INPUTS && s->in[input] != NULL;
}

static ftr_status ftr__check_update_scalar(ftr__infer *s, int32_t input, const char *what, bool floating) {
    const ftr__value *value = s->in[input];
    bool fits = floating ? ftr__is_float(value->dtype) : value->dtype == FTR_I64;
    if (!fits)
        return ftr__infer_error(s, FTR_ERROR_DTYPE, "%s is %s, expected %s", what, ftr_dtype_name(value->dtype),
                                floating ? "f32 or f64" : "i64");
    return ftr_shape_count(&value->shape) == 1
               ? FTR_OK
               : ftr__infer_error(s, FTR_ERROR_RANK, "%s has rank %d, expected a scalar", what, (int)value->shape.rank);
}

ftr_status ftr__infer_ema_update(ftr__infer *s) {
    ftr_status status = ftr__check_float(s, 0, "state");
    if (status == FTR_OK) status = ftr__check_same_type(s, 0, 1, "state", "value");
    return status != FTR_OK ? status : ftr__check_same_shape(s, 0, 1, "state", "value");
}

ftr_status ftr__infer_count_update(ftr__infer *s) { return ftr__check_update_scalar(s, 0, "state", false); }

/* lr, step, then groups of `stride` inputs: the parameter, its gradient and its states. */
static ftr_status ftr__check_optimizer(ftr__infer *s, int32_t stride) {
    if ((s->in_count - 2) % stride != 0)
        return ftr__infer_error(s, FTR_ERROR_INVALID_ARGUMENT, "%d inputs, expected 2 and %d a parameter",
                                (int)s->in_count, (int)stride);
    ftr_status status = ftr__check_update_scalar(s, 0, "lr", true);
    if (status == FTR_OK) status = ftr__check_update_scalar(s, 1, "step", false);
    for (int32_t i = 2; i < s->in_count && status == FTR_OK; i++) {
        int32_t parameter = i - (i - 2) % stride;
        if (i == parameter || !ftr__update_sees(s, i) || !ftr__update_sees(s, parameter)) continue;
        char what[32];
        (void)snprintf(what, sizeof what, "input %d", (int)i);
        status = ftr__check_same_type(s, parameter, i, "parameter", what);
        if (status == FTR_OK) status = ftr__check_same_shape(s, parameter, i, "parameter", what);
    }
    return status;
}

/* Without momentum there is no state. */
ftr_status ftr__infer_sgd_update(ftr__infer *s) {
    return ftr__check_optimizer(s, s->node->attr.optimizer.momentum != 0.0 ? 3 : 2);
}

ftr_status ftr__infer_adamw_update(ftr__infer *s) { return ftr__check_optimizer(s, 4); }

/* ---- src/autodiff/autodiff.h ---- */
/* Reverse-mode differentiation of a graph: gradients are nodes of the same graph. */

/* Emits the gradients of the scalar `loss` with respect to `count` values (ids). gradients[i] becomes the id of a value of
 * its own, of wrt[i]'s shape, or 0 when `loss` does not depend on wrt[i] through differentiable ops: that is an error if
 * `required`. Memory comes from `arena`.
 * Errors: FTR_ERROR_SHAPE and FTR_ERROR_DTYPE of the loss, FTR_ERROR_NOT_DIFFERENTIABLE, FTR_ERROR_OUT_OF_MEMORY. */
FTR_LIB ftr_status ftr__differentiate(ftr_graph *graph, ftr__arena *arena, int32_t loss, const int32_t *wrt, int32_t count,
                                      const bool *required, int32_t *gradients);

/* ---- src/autodiff/autodiff.c ---- */

typedef struct ftr__tape {
    ftr_graph *graph;
    ftr__arena *arena;
    int32_t values;       /* of the forward graph */
    bool *depends;        /* value: differentiably depends on something of wrt */
    ftr_tensor *gradient; /* value: gradient of the loss, as far as it is known */
} ftr__tape;

/* Whether a gradient flows from the node to its input number `index`. */
static bool ftr__flows_to(const ftr__node *node, const ftr__op_info *info, int32_t index) {
    return node->in[index] != 0 && info->grad && (info->differentiable >> (index < 31 ? index : 31) & 1u);
}

static void ftr__mark_dependent(ftr__tape *tape, const int32_t *wrt, int32_t count) {
    for (int32_t i = 0; i < count; i++) tape->depends[wrt[i]] = true;
    for (int32_t n = 0; n < tape->graph->node_count; n++) {
        const ftr__node *node = &tape->graph->nodes[n];
        const ftr__op_info *info = ftr__op_info_of(node->op);
        bool depends = false;
        for (int32_t i = 0; i < node->in_count && !depends; i++)
            depends = ftr__flows_to(node, info, i) && tape->depends[node->in[i]];
        for (int32_t i = 0; depends && i < node->out_count; i++)
            if (ftr__is_float(tape->graph->values[node->first_out + i].dtype)) tape->depends[node->first_out + i] = true;
    }
}

static void ftr__accumulate(ftr__tape *tape, int32_t value, ftr_tensor gradient) {
    ftr_tensor *sum = &tape->gradient[value];
    *sum = ftr_is_valid(*sum) ? ftr_add(*sum, gradient) : gradient;
}

/* Emits the gradient of one node. The arrays that the grad function sees are copies: emitting moves the graph's own. */
static ftr_status ftr__differentiate_node(ftr__tape *tape, int32_t index) {
    ftr_graph *graph = tape->graph;
    const ftr__node node = graph->nodes[index];
    const ftr__op_info *info = ftr__op_info_of(node.op);
    bool arrives = false;
    for (int32_t i = 0; i < node.out_count; i++) arrives = arrives || ftr_is_valid(tape->gradient[node.first_out + i]);
    if (!arrives || !info->grad) return FTR_OK;
    const size_t count = (size_t)node.in_count;
    ftr_tensor *in = ftr__arena_alloc(tape->arena, count * sizeof *in);
    ftr_tensor *din = ftr__arena_alloc(tape->arena, count * sizeof *din);
    bool *wanted = ftr__arena_alloc(tape->arena, count * sizeof *wanted);
    if (!in || !din || !wanted) return ftr__out_of_memory(graph->context, "autodiff", count * sizeof *in);
    bool any = false;
    for (int32_t i = 0; i < node.in_count; i++) {
        if (node.in[i]) in[i] = (ftr_tensor){graph, node.in[i]};
        wanted[i] = ftr__flows_to(&node, info, i) && tape->depends[node.in[i]];
        any = any || wanted[i];
    }
    if (!any) return FTR_OK;
    ftr_tensor out[FTR__MAX_OUTPUTS] = {{NULL, 0}};
    for (int32_t i = 0; i < node.out_count; i++) out[i] = (ftr_tensor){graph, node.first_out + i};
    ftr__grad grad = {.graph = graph, .node = &node, .in = in, .out = out, .dout = &tape->gradient[node.first_out],
                      .wanted = wanted, .din = din};
    info->grad(&grad);
    for (int32_t i = 0; i < node.in_count && !graph->status; i++)
        if (wanted[i] && ftr_is_valid(din[i])) ftr__accumulate(tape, node.in[i], din[i]);
    return graph->status ? ftr__error(graph->context, graph->status, "%s", graph->message) : FTR_OK;
}

/* Names what stands between a tensor and the loss. */
static ftr_status ftr__not_differentiable(const ftr__tape *tape, int32_t wrt, int32_t loss) {
    const ftr_graph *graph = tape->graph;
    const char *name = graph->nodes[graph->values[wrt].node].name;
    bool *reached = ftr__arena_alloc(tape->arena, (size_t)tape->values);
    if (!reached) return ftr__out_of_memory(graph->context, "autodiff", (size_t)tape->values);
    reached[wrt] = true;
    const ftr__node *barrier = NULL;
    for (int32_t n = 0; n < graph->node_count && graph->nodes[n].first_out < tape->values; n++) {
        const ftr__node *node = &graph->nodes[n];
        for (int32_t i = 0; i < node->in_count; i++) {
            if (!node->in[i] || !reached[node->in[i]]) continue;
            if (!ftr__flows_to(node, ftr__op_info_of(node->op), i) && !barrier) barrier = node;
            for (int32_t k = 0; k < node->out_count; k++) reached[node->first_out + k] = true;
        }
    }
    if (reached[loss] && barrier)
        return ftr__error(graph->context, FTR_ERROR_NOT_DIFFERENTIABLE,
                          "gradient of '%s': the loss depends on it only through %s '%s', which has no gradient", name,
                          ftr_op_name(barrier->op), barrier->name);
    return ftr__error(graph->context, FTR_ERROR_NOT_DIFFERENTIABLE, "gradient of '%s': the loss does not depend on it", name);
}

static ftr_status ftr__check_loss(const ftr_graph *graph, int32_t loss) {
    const ftr__value *value = &graph->values[loss];
    const char *name = graph->nodes[value->node].name;
    char text[FTR__SHAPE_TEXT];
    if (ftr_shape_count(&value->shape) != 1)
        return ftr__error(graph->context, FTR_ERROR_SHAPE, "loss '%s': shape is %s, expected a scalar", name,
                          ftr__shape_text(&value->shape, text));
    if (!ftr__is_float(value->dtype))
        return ftr__error(graph->context, FTR_ERROR_DTYPE, "loss '%s': dtype is %s, expected f32 or f64", name,
                          ftr_dtype_name(value->dtype));
    return FTR_OK;
}

ftr_status ftr__differentiate(ftr_graph *graph, ftr__arena *arena, int32_t loss, const int32_t *wrt, int32_t count,
                              const bool *required, int32_t *gradients) {
    ftr_status status = ftr__check_loss(graph, loss);
    if (status) return status;
    ftr__tape tape = {.graph = graph, .arena = arena, .values = graph->value_count};
    tape.depends = ftr__arena_alloc(arena, (size_t)tape.values * sizeof *tape.depends);
    tape.gradient = ftr__arena_alloc(arena, (size_t)tape.values * sizeof *tape.gradient);
    if (!tape.depends || !tape.gradient)
        return ftr__out_of_memory(graph->context, "autodiff", (size_t)tape.values * sizeof *tape.gradient);
    ftr__mark_dependent(&tape, wrt, count);
    for (int32_t i = 0; i < count; i++) gradients[i] = 0;
    if (tape.depends[loss]) {
        const ftr__value *value = &graph->values[loss];
        const ftr_shape shape = value->shape;
        tape.gradient[loss] = ftr_expand(ftr_scalar(graph, value->dtype, 1.0), shape);
        for (int32_t n = graph->values[loss].node; n >= 0 && !status; n--) status = ftr__differentiate_node(&tape, n);
    }
    for (int32_t i = 0; i < count && !status; i++) {
        const ftr_tensor gradient = tape.gradient[wrt[i]];
        if (!ftr_is_valid(gradient)) {
            if (required[i]) status = ftr__not_differentiable(&tape, wrt[i], loss);
            continue;
        }
        /* A value of its own, even if two tensors share their gradient. Where it can, the memory plan makes it an alias. */
        gradients[i] = ftr_reshape(gradient, graph->values[wrt[i]].shape).id;
    }
    if (!status && graph->status) status = ftr__error(graph->context, graph->status, "%s", graph->message);
    return status;
}

/* ---- src/optim/optim.h ---- */
/* Optimizers as graph builders. */

/* Checks a description: cookie and ranges. */
FTR_LIB ftr_status ftr__optimizer_check(ftr_context *context, const ftr_optimizer *optimizer);

/* Emits the update of `count` parameters by their gradients (ids of values), with its state as buffers of the graph.
 * `lr` becomes the id of the learning rate, an f32 scalar buffer that the plan fills. */
FTR_LIB ftr_status ftr__optimizer_emit(ftr_graph *graph, ftr__arena *arena, const ftr_optimizer *optimizer,
                                       const int32_t *parameters, const int32_t *gradients, int32_t count, int32_t *lr);

/* ---- src/optim/optim.c ---- */

#define FTR__COOKIE_OPTIMIZER 0x6f707431u

ftr_optimizer ftr_sgd(double lr) {
    const ftr_optimizer sgd = {.cookie = FTR__COOKIE_OPTIMIZER, .kind = FTR_OPTIMIZER_SGD, .lr = lr};
    return sgd;
}

ftr_optimizer ftr_adamw(double lr) {
    const ftr_optimizer adamw = {.cookie = FTR__COOKIE_OPTIMIZER,
                                 .kind = FTR_OPTIMIZER_ADAMW,
                                 .lr = lr,
                                 .weight_decay = 0.01,
                                 .beta1 = 0.9,
                                 .beta2 = 0.999,
                                 .eps = 1e-8};
    return adamw;
}

typedef struct ftr__range {
    const char *field;
    double value, low, high; /* low <= value < high */
} ftr__range;

ftr_status ftr__optimizer_check(ftr_context *context, const ftr_optimizer *o) {
    if (o->cookie != FTR__COOKIE_OPTIMIZER)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "optimizer: the description was not made by ftr_sgd() or ftr_adamw()");
    if (o->kind != FTR_OPTIMIZER_SGD && o->kind != FTR_OPTIMIZER_ADAMW)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "optimizer: kind is %d, expected one of ftr_optimizer_kind",
                          (int)o->kind);
    const ftr__range ranges[] = {{"lr", o->lr, 0.0, HUGE_VAL},
                                 {"weight_decay", o->weight_decay, 0.0, HUGE_VAL},
                                 {"momentum", o->momentum, 0.0, HUGE_VAL},
                                 {"dampening", o->dampening, -HUGE_VAL, HUGE_VAL},
                                 {"beta1", o->beta1, 0.0, 1.0},
                                 {"beta2", o->beta2, 0.0, 1.0},
                                 {"eps", o->eps, 0.0, HUGE_VAL}};
    for (int32_t i = 0; i < FTR__ARRAY_LENGTH(ranges); i++) {
        const ftr__range *r = &ranges[i];
        if (!(r->value >= r->low && r->value < r->high))
            return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "optimizer: %s is %g, expected at least %g and below %g",
                              r->field, r->value, r->low, r->high);
    }
    if (o->nesterov && (o->momentum <= 0.0 || o->dampening != 0.0))
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "optimizer: nesterov with momentum %g and dampening %g, expected momentum above 0 and dampening 0",
                          o->momentum, o->dampening);
    return FTR_OK;
}

static ftr_tensor ftr__optimizer_state(ftr_graph *graph, int32_t parameter, const char *what) {
    const ftr__value value = graph->values[parameter];
    char name[320];
    snprintf(name, sizeof name, "%.250s.%s", graph->nodes[value.node].name, what);
    return ftr__add_source(graph, FTR_OP_buffer, name, value.dtype, value.shape);
}

ftr_status ftr__optimizer_emit(ftr_graph *graph, ftr__arena *arena, const ftr_optimizer *o, const int32_t *parameters,
                               const int32_t *gradients, int32_t count, int32_t *lr) {
    static const char *const sgd_states[] = {"momentum_buffer"};
    static const char *const adamw_states[] = {"exp_avg", "exp_avg_sq"};
    const bool sgd = o->kind == FTR_OPTIMIZER_SGD;
    const char *const *states = sgd ? sgd_states : adamw_states;
    const int32_t state_count = sgd ? (o->momentum != 0.0 ? 1 : 0) : 2;
    const int32_t stride = 2 + state_count, total = 2 + stride * count;
    ftr_tensor *in = ftr__arena_alloc(arena, (size_t)total * sizeof *in);
    if (!in) return ftr__out_of_memory(graph->context, "optimizer", (size_t)total * sizeof *in);
    in[0] = ftr__add_source(graph, FTR_OP_buffer, "optimizer.lr", FTR_F32, ftr_scalar_shape());
    in[1] = ftr__add_source(graph, FTR_OP_buffer, "optimizer.step", FTR_I64, ftr_scalar_shape());
    for (int32_t i = 0; i < count; i++) {
        in[2 + stride * i] = (ftr_tensor){graph, parameters[i]};
        in[3 + stride * i] = (ftr_tensor){graph, gradients[i]};
    }
    /* One kind of state after the other, each in the order of the parameters: flat arrays parallel to theirs. */
    for (int32_t k = 0; k < state_count; k++)
        for (int32_t i = 0; i < count; i++)
            in[4 + k + stride * i] = ftr__optimizer_state(graph, parameters[i], states[k]);
    const ftr_op_attr attr = {.optimizer = {.weight_decay = o->weight_decay,
                                            .momentum = o->momentum,
                                            .dampening = o->dampening,
                                            .beta1 = o->beta1,
                                            .beta2 = o->beta2,
                                            .eps = o->eps,
                                            .nesterov = o->nesterov}};
    ftr__emit(graph, sgd ? FTR_OP_sgd_update : FTR_OP_adamw_update, "optimizer", &attr, in, total);
    ftr__emit(graph, FTR_OP_count_update, "optimizer.count", NULL, &in[1], 1);
    *lr = in[0].id;
    return graph->status;
}

/* ---- src/passes/plan.h ---- */
/* A plan, and the passes that make it. Each pass works on the plan's own copy of the graph and runs in this order: lower,
 * autodiff (with the optimizer's nodes), fuse, schedule, memplan. */

/* Which memory a value lies in. */
typedef enum ftr__place {
    FTR__PLACE_NONE = 0,   /* not used by the plan */
    FTR__PLACE_VARIABLE,   /* the graph's parameters and buffers */
    FTR__PLACE_STATE,      /* the optimizer's state */
    FTR__PLACE_GRADIENT,   /* gradients of parameters */
    FTR__PLACE_ACTIVATION, /* everything else */
    FTR__PLACE_COUNT
} ftr__place;

typedef struct ftr__slot {
    int32_t root; /* the value whose memory this one shares; its own id if it has memory of its own */
    ftr__place place;
    size_t offset, bytes;
    int32_t first, last; /* steps of the schedule between which the memory is in use; kept until the end if `kept` */
    bool kept;           /* readable after the step: never reused */
} ftr__slot;

/* One kernel launch. */
typedef struct ftr__step {
    ftr_kernel_call call;
    ftr_status (*run)(const ftr_kernel_call *call);
    int32_t node;
} ftr__step;

struct ftr_plan {
    ftr_context *context;
    ftr_graph *source; /* what was compiled; owns the variables' memory */
    ftr_graph *graph;  /* the plan's copy, changed by the passes */
    ftr__arena arena;
    ftr_mode mode;
    int32_t loss;     /* value id or 0 */
    int32_t *kept;    /* values to be readable after a step: loss, outputs */
    int32_t kept_count;
    int32_t *renamed; /* by id of the source graph: the value that took its place */
    int32_t renamed_count;
    int32_t *wrt, *gradients; /* values and their gradients (0: none) */
    int32_t gradient_count;
    int32_t learning_rate; /* the optimizer's lr, value id or 0 */

    int32_t *order; /* nodes in the order of execution */
    int32_t order_count;
    ftr__slot *slots; /* by value id */
    size_t workspace_bytes;
    size_t bytes[FTR__PLACE_COUNT]; /* size of each memory */

    unsigned char *memory[FTR__PLACE_COUNT];
    unsigned char *workspace;
    ftr__step *steps;
    int32_t step_count;
    bool *fed; /* by value id, for inputs */
    uint64_t steps_done;
};

/* Fixes what depends on the mode: batch norm's statistics and their updates, dropout, stochastic depth. */
FTR_LIB ftr_status ftr__pass_lower(ftr_plan *plan);

/* Joins nodes: activations into the node that feeds them, residual additions into batch norm, activation gradients into
 * batch norm's gradient. Each pattern leaves the result the same up to rounding of a fused multiply. */
FTR_LIB ftr_status ftr__pass_fuse(ftr_plan *plan);

/* Drops what nothing needs and fixes the order: inputs before users, updates of state last. */
FTR_LIB ftr_status ftr__pass_schedule(ftr_plan *plan);

/* Gives each value its memory: aliases, in-place results, then offsets by lifetime. Fills slots and bytes. */
FTR_LIB ftr_status ftr__pass_memplan(ftr_plan *plan);

/* Marks the nodes that the plan's kept values, gradients and updates need. `needed` has room for each node of the graph. */
FTR_LIB ftr_status ftr__mark_needed(const ftr_plan *plan, bool *needed);

/* Makes `to` take the place of `from`: for users and for what the caller asked to keep. */
FTR_LIB void ftr__plan_rename(ftr_plan *plan, int32_t from, int32_t to);

/* ---- src/passes/lower.c ---- */

static ftr_status ftr__lower_error(const ftr_plan *plan) {
    return ftr__error(plan->context, plan->graph->status, "%s", plan->graph->message);
}

/* The running statistics follow the batch's: running += momentum * (batch - running). */
static void ftr__emit_statistics_update(ftr_graph *graph, const ftr__node *node) {
    for (int32_t k = 0; k < 2; k++) {
        const int32_t running = node->in[3 + k];
        const ftr_op source = graph->nodes[graph->values[running].node].op;
        if (source != FTR_OP_buffer && source != FTR_OP_parameter) continue; /* a constant: nothing to update */
        const ftr_op_attr attr = {.ema = {.weight = node->attr.norm.momentum}};
        const ftr_tensor in[2] = {{graph, running}, {graph, node->first_out + 1 + k}};
        ftr__emit(graph, FTR_OP_ema_update, NULL, &attr, in, 2);
    }
}

/* Whether a batch norm was frozen together with its statistics. */
static bool ftr__is_norm_frozen(const ftr_graph *graph, const ftr__node *node) {
    const int32_t gamma = graph->nodes[graph->values[node->in[1]].node].variable;
    return gamma >= 0 && graph->variables[gamma].frozen && graph->variables[gamma].norm_eval;
}

static void ftr__lower_node(ftr_plan *plan, int32_t index) {
    ftr_graph *graph = plan->graph;
    ftr__node *node = &graph->nodes[index];
    const bool training = plan->mode == FTR_MODE_TRAIN;
    if (node->op == FTR_OP_batch_norm) {
        node->attr.norm.training = training && !ftr__is_norm_frozen(graph, node);
        const ftr__node copy = *node;
        if (copy.attr.norm.training) ftr__emit_statistics_update(graph, &copy);
        else if (node->in_count > 5) node->in[5] = 0; /* running statistics leave no row out: the mask need not be fed */
    } else if (node->op == FTR_OP_dropout || node->op == FTR_OP_stochastic_depth) {
        if (!training || node->attr.dropout.p <= 0.0) ftr__plan_rename(plan, node->first_out, node->in[0]);
    } else if (node->op == FTR_OP_attention && !training) {
        node->attr.attention.dropout = 0.0;
    }
}

ftr_status ftr__pass_lower(ftr_plan *plan) {
    ftr_graph *graph = plan->graph;
    const int32_t count = graph->node_count;
    bool *needed = ftr__arena_alloc(&plan->arena, (size_t)count);
    if (!needed) return ftr__out_of_memory(plan->context, "lower", (size_t)count);
    const ftr_status status = ftr__mark_needed(plan, needed);
    if (status) return status;
    for (int32_t i = 0; i < count; i++)
        if (needed[i]) ftr__lower_node(plan, i);
    return graph->status ? ftr__lower_error(plan) : FTR_OK;
}

/* ---- src/passes/fuse.c ---- */

typedef struct ftr__fuser {
    ftr_plan *plan;
    ftr_graph *graph;
    int32_t *uses; /* of each value; one more if it is kept */
    bool *needed;  /* nodes */
} ftr__fuser;

static void ftr__count_uses(ftr__fuser *f) {
    for (int32_t v = 0; v < f->graph->value_count; v++) f->uses[v] = 0;
    for (int32_t n = 0; n < f->graph->node_count; n++) {
        const ftr__node *node = &f->graph->nodes[n];
        for (int32_t i = 0; f->needed[n] && i < node->in_count; i++) f->uses[node->in[i]]++;
    }
    for (int32_t i = 0; i < f->plan->kept_count; i++) f->uses[f->plan->kept[i]]++;
    for (int32_t i = 0; i < f->plan->gradient_count; i++) f->uses[f->plan->gradients[i]]++;
}

/* The live node that produces a value which only one other node uses; NULL otherwise. */
static ftr__node *ftr__only_for_next(const ftr__fuser *f, int32_t value) {
    if (value == 0 || f->uses[value] != 1) return NULL;
    ftr__node *node = &f->graph->nodes[f->graph->values[value].node];
    return node->dead || node->first_out != value ? NULL : node;
}

static void ftr__remove(ftr__fuser *f, ftr__node *node, int32_t replacement) {
    node->dead = true;
    f->uses[replacement] += f->uses[node->first_out] - 1; /* minus the removed node's own use */
    ftr__plan_rename(f->plan, node->first_out, replacement);
}

static ftr_activation *ftr__activation_of(ftr__node *node) {
    switch (node->op) {
    case FTR_OP_linear: return &node->attr.linear.activation;
    case FTR_OP_conv2d: return &node->attr.conv.activation;
    case FTR_OP_batch_norm: return &node->attr.norm.activation;
    default: return NULL;
    }
}

static bool ftr__same_shape(const ftr_graph *graph, int32_t a, int32_t b) {
    return ftr_shape_equal(&graph->values[a].shape, &graph->values[b].shape);
}

/* Copies the node's inputs into an array with room for `count`. False when memory is short. */
static bool ftr__widen_inputs(ftr__fuser *f, ftr__node *node, int32_t count) {
    int32_t *in = ftr__arena_alloc(&f->graph->arena, (size_t)count * sizeof *in);
    if (!in) return false;
    for (int32_t i = 0; i < count; i++) in[i] = i < node->in_count ? node->in[i] : 0;
    node->in = in;
    node->in_count = count;
    return true;
}

/* batch_norm(x) + residual, the residual being the sum's other operand. It cannot depend on the batch norm, whose only user
 * is the sum; it may come from a later node, which the schedule takes care of. */
static ftr__node *ftr__fuse_residual(ftr__fuser *f, ftr__node *add) {
    for (int32_t k = 0; k < 2; k++) {
        ftr__node *norm = ftr__only_for_next(f, add->in[k]);
        const int32_t residual = add->in[1 - k];
        if (!norm || norm->op != FTR_OP_batch_norm || norm->attr.norm.activation != FTR_ACT_NONE) continue;
        if (norm->in_count == 7 && norm->in[6]) continue;
        if (!ftr__same_shape(f->graph, residual, add->first_out) || !ftr__same_shape(f->graph, add->in[k], residual)) continue;
        if (!ftr__widen_inputs(f, norm, 7)) return NULL;
        norm->in[6] = residual;
        ftr__remove(f, add, norm->first_out);
        return norm;
    }
    return NULL;
}

/* relu(f(x)) and relu(batch_norm(x) + residual). */
static void ftr__fuse_relu(ftr__fuser *f, ftr__node *relu) {
    ftr__node *producer = ftr__only_for_next(f, relu->in[0]);
    if (!producer) return;
    const bool with_residual = producer->op == FTR_OP_add;
    if (with_residual) producer = ftr__fuse_residual(f, producer);
    ftr_activation *activation = producer ? ftr__activation_of(producer) : NULL;
    if (!activation || *activation != FTR_ACT_NONE) return;
    *activation = FTR_ACT_RELU;
    producer->fused = with_residual ? "add, relu" : "relu";
    ftr__remove(f, relu, producer->first_out);
}

/* batch_norm_grad(relu_grad(dy, y)): the gradient masks dy itself. */
static void ftr__fuse_relu_grad(ftr__fuser *f, ftr__node *grad) {
    ftr__node *mask = ftr__only_for_next(f, grad->in[0]);
    if (!mask || mask->op != FTR_OP_relu_grad || grad->attr.norm.activation != FTR_ACT_NONE) return;
    const int32_t dy = mask->in[0], y = mask->in[1];
    if (!ftr__same_shape(f->graph, dy, grad->in[1]) || !ftr__widen_inputs(f, grad, 7)) return;
    grad->in[6] = y;
    grad->attr.norm.activation = FTR_ACT_RELU;
    grad->fused = "relu_grad";
    ftr__remove(f, mask, dy);
}

ftr_status ftr__pass_fuse(ftr_plan *plan) {
    ftr_graph *graph = plan->graph;
    const size_t values = (size_t)graph->value_count, nodes = (size_t)graph->node_count;
    ftr__fuser f = {.plan = plan, .graph = graph};
    f.uses = ftr__arena_alloc(&plan->arena, values * sizeof *f.uses);
    f.needed = ftr__arena_alloc(&plan->arena, nodes);
    if (!f.uses || !f.needed) return ftr__out_of_memory(plan->context, "fuse", values * sizeof *f.uses);
    const ftr_status status = ftr__mark_needed(plan, f.needed);
    if (status) return status;
    ftr__count_uses(&f);
    for (int32_t n = 0; n < graph->node_count; n++) {
        ftr__node *node = &graph->nodes[n];
        if (!f.needed[n] || node->dead) continue;
        if (node->op == FTR_OP_relu) ftr__fuse_relu(&f, node);
        else if (node->op == FTR_OP_batch_norm_grad) ftr__fuse_relu_grad(&f, node);
    }
    return FTR_OK;
}

/* ---- src/passes/schedule.c ---- */

/* Updates have no outputs; they are what a step is run for, if it trains. */
static bool ftr__is_update(const ftr__node *node) { return node->out_count == 0; }

static bool ftr__is_source(const ftr__node *node) {
    return node->op == FTR_OP_input || node->op == FTR_OP_parameter || node->op == FTR_OP_buffer ||
           node->op == FTR_OP_constant;
}

static void ftr__mark_value(const ftr_graph *graph, bool *needed, int32_t value) {
    if (value) needed[graph->values[value].node] = true;
}

/* Fusing may have made a node use a later one, so one sweep from the end is not always enough. */
static void ftr__close_needed(const ftr_graph *graph, bool *needed) {
    for (bool changed = true; changed;) {
        changed = false;
        for (int32_t n = graph->node_count - 1; n >= 0; n--) {
            const ftr__node *node = &graph->nodes[n];
            if (!needed[n] || node->dead) continue;
            for (int32_t i = 0; i < node->in_count; i++) {
                const int32_t producer = node->in[i] ? graph->values[node->in[i]].node : n;
                changed = changed || (!needed[producer] && producer > n);
                needed[producer] = true;
            }
        }
    }
}

ftr_status ftr__mark_needed(const ftr_plan *plan, bool *needed) {
    const ftr_graph *graph = plan->graph;
    memset(needed, 0, (size_t)graph->node_count);
    for (int32_t i = 0; i < plan->kept_count; i++) ftr__mark_value(graph, needed, plan->kept[i]);
    for (int32_t i = 0; i < plan->gradient_count; i++) ftr__mark_value(graph, needed, plan->gradients[i]);
    for (int32_t i = 0; i < plan->gradient_count; i++) ftr__mark_value(graph, needed, plan->wrt[i]);
    for (int32_t n = 0; n < graph->node_count; n++)
        if (ftr__is_update(&graph->nodes[n]) && !graph->nodes[n].dead) needed[n] = true;
    ftr__close_needed(graph, needed);
    return FTR_OK;
}

void ftr__plan_rename(ftr_plan *plan, int32_t from, int32_t to) {
    ftr__graph_replace(plan->graph, from, to);
    for (int32_t i = 0; i < plan->kept_count; i++)
        if (plan->kept[i] == from) plan->kept[i] = to;
    for (int32_t i = 0; i < plan->gradient_count; i++) {
        if (plan->gradients[i] == from) plan->gradients[i] = to;
        if (plan->wrt[i] == from) plan->wrt[i] = to;
    }
    for (int32_t i = 0; i < plan->renamed_count; i++)
        if (plan->renamed[i] == from) plan->renamed[i] = to;
    if (plan->loss == from) plan->loss = to;
}

typedef struct ftr__sorter {
    ftr_plan *plan;
    bool *placed;   /* nodes */
    int32_t *stack; /* nodes whose inputs are being placed */
    int32_t *next;  /* by node: the input to look at next */
} ftr__sorter;

/* Places a node after its inputs: a depth-first walk without recursion, for networks of any depth. */
static void ftr__place_node(ftr__sorter *s, int32_t node) {
    const ftr_graph *graph = s->plan->graph;
    int32_t depth = 0;
    if (s->placed[node]) return;
    s->stack[depth++] = node;
    while (depth > 0) {
        const int32_t top = s->stack[depth - 1];
        const ftr__node *n = &graph->nodes[top];
        int32_t waiting = -1;
        while (s->next[top] < n->in_count && waiting < 0) {
            const int32_t value = n->in[s->next[top]++];
            if (value && !s->placed[graph->values[value].node]) waiting = graph->values[value].node;
        }
        if (waiting >= 0) {
            s->stack[depth++] = waiting;
            continue;
        }
        depth--;
        if (s->placed[top]) continue;
        s->placed[top] = true;
        if (!ftr__is_source(n)) s->plan->order[s->plan->order_count++] = top;
    }
}

ftr_status ftr__pass_schedule(ftr_plan *plan) {
    ftr_graph *graph = plan->graph;
    const size_t count = (size_t)graph->node_count;
    bool *needed = ftr__arena_alloc(&plan->arena, count);
    ftr__sorter s = {.plan = plan};
    s.placed = ftr__arena_alloc(&plan->arena, count);
    s.stack = ftr__arena_alloc(&plan->arena, (count + 1) * sizeof *s.stack);
    s.next = ftr__arena_alloc(&plan->arena, count * sizeof *s.next);
    plan->order = ftr__arena_alloc(&plan->arena, count * sizeof *plan->order);
    if (!needed || !s.placed || !s.stack || !s.next || !plan->order)
        return ftr__out_of_memory(plan->context, "schedule", count * sizeof *plan->order);
    const ftr_status status = ftr__mark_needed(plan, needed);
    if (status) return status;
    for (int32_t n = 0; n < graph->node_count; n++) graph->nodes[n].dead = graph->nodes[n].dead || !needed[n];
    for (int32_t pass = 0; pass < 2; pass++)
        for (int32_t n = 0; n < graph->node_count; n++)
            if (!graph->nodes[n].dead && ftr__is_update(&graph->nodes[n]) == (pass == 1)) ftr__place_node(&s, n);
    return FTR_OK;
}

/* ---- src/passes/memplan.c ---- */
/* Memory by lifetime. Values that are readable after a step, inputs and constants live for the whole step; others from the
 * node that makes them to their last user. A reshape is an alias of its input. A result may take over its input's memory
 * where ops.def allows and nothing uses the input later. The rest are placed largest first, each at the lowest offset that
 * is free during its lifetime (the greedy-by-size method of Pisarchyk and Lee, 2020, arXiv:2001.03288). */

static size_t ftr__align(size_t bytes) { return (bytes + FTR__ALIGNMENT - 1) / FTR__ALIGNMENT * FTR__ALIGNMENT; }

static size_t ftr__value_bytes(const ftr__value *value) {
    return (size_t)ftr_shape_count(&value->shape) * ftr_dtype_size(value->dtype);
}

static ftr__slot *ftr__root_slot(ftr_plan *plan, int32_t value) { return &plan->slots[plan->slots[value].root]; }

/* A slot for each value that the schedule touches, in memory of its own. */
static void ftr__open_slots(ftr_plan *plan) {
    const ftr_graph *graph = plan->graph;
    for (int32_t n = 0; n < graph->node_count; n++) {
        const ftr__node *node = &graph->nodes[n];
        for (int32_t i = 0; i < node->out_count && !node->dead; i++) {
            const int32_t value = node->first_out + i;
            ftr__slot *slot = &plan->slots[value];
            *slot = (ftr__slot){.root = value, .place = FTR__PLACE_ACTIVATION, .first = -1, .last = -1};
            slot->bytes = ftr__value_bytes(&graph->values[value]);
            if (node->variable >= 0) {
                slot->place = FTR__PLACE_VARIABLE;
                slot->offset = plan->source->variables[node->variable].offset;
            } else if (node->op == FTR_OP_buffer) {
                slot->place = FTR__PLACE_STATE;
            }
            slot->kept = node->op == FTR_OP_input || node->op == FTR_OP_constant;
        }
    }
    for (int32_t i = 0; i < plan->kept_count; i++) plan->slots[plan->kept[i]].kept = true;
    for (int32_t i = 0; i < plan->gradient_count; i++) {
        if (!plan->gradients[i]) continue;
        ftr__slot *slot = &plan->slots[plan->gradients[i]];
        slot->kept = true;
        if (plan->slots[plan->wrt[i]].place == FTR__PLACE_VARIABLE) slot->place = FTR__PLACE_GRADIENT;
    }
}

static void ftr__find_lifetimes(ftr_plan *plan) {
    const ftr_graph *graph = plan->graph;
    for (int32_t s = 0; s < plan->order_count; s++) {
        const ftr__node *node = &graph->nodes[plan->order[s]];
        for (int32_t i = 0; i < node->out_count; i++) {
            plan->slots[node->first_out + i].first = s;
            plan->slots[node->first_out + i].last = s;
        }
        for (int32_t i = 0; i < node->in_count; i++)
            if (node->in[i]) plan->slots[node->in[i]].last = s;
    }
}

static void ftr__share(ftr_plan *plan, int32_t value, int32_t root) {
    ftr__slot *slot = &plan->slots[value], *shared = &plan->slots[root];
    slot->root = root;
    if (slot->last > shared->last) shared->last = slot->last;
    shared->kept = shared->kept || slot->kept;
}

/* A reshape shares its input's memory, unless it must stay readable while its input is a variable that an update changes.
 * A gradient that has a fixed place hands that place to the value it is a view of, if that one is free to move. */
static void ftr__alias_reshape(ftr_plan *plan, const ftr__node *node) {
    const int32_t out = node->first_out, root = plan->slots[node->in[0]].root;
    ftr__slot *slot = &plan->slots[out], *shared = &plan->slots[root];
    if (slot->place == FTR__PLACE_GRADIENT) {
        if (shared->place != FTR__PLACE_ACTIVATION || shared->kept) return; /* runs as a copy */
        shared->place = FTR__PLACE_GRADIENT;
    } else if (slot->kept && shared->place != FTR__PLACE_ACTIVATION) {
        return;
    }
    ftr__share(plan, out, root);
}

/* Output 0 over an input that ends here. */
static void ftr__try_in_place(ftr_plan *plan, const ftr__node *node, int32_t step) {
    const uint32_t overwritable = ftr__op_info_of(node->op)->overwritable;
    const ftr_graph *graph = plan->graph;
    const int32_t out = node->first_out;
    if (plan->slots[out].place != FTR__PLACE_ACTIVATION) return;
    for (int32_t i = 0; i < node->in_count && i < 31; i++) {
        const int32_t in = node->in[i];
        if (!(overwritable >> i & 1u) || !in) continue;
        const ftr__slot *root = ftr__root_slot(plan, in);
        if (root->place != FTR__PLACE_ACTIVATION || root->kept || root->last != step) continue;
        const ftr__value *a = &graph->values[in], *b = &graph->values[out];
        if (a->dtype != b->dtype || !ftr_shape_equal(&a->shape, &b->shape)) continue;
        bool alone = true; /* another view of the same memory would be read in another order */
        for (int32_t k = 0; k < node->in_count; k++)
            alone = alone && (k == i || !node->in[k] || node->in[k] == in || plan->slots[node->in[k]].root != root->root);
        if (!alone) continue;
        ftr__share(plan, out, root->root);
        return;
    }
}

static void ftr__share_memory(ftr_plan *plan) {
    for (int32_t s = 0; s < plan->order_count; s++) {
        const ftr__node *node = &plan->graph->nodes[plan->order[s]];
        if (node->op == FTR_OP_reshape) ftr__alias_reshape(plan, node);
        else if (node->out_count > 0) ftr__try_in_place(plan, node, s);
    }
}

typedef struct ftr__lease {
    int32_t value, first, last;
    size_t bytes, offset;
} ftr__lease;

static int ftr__larger_first(const void *a, const void *b) {
    const ftr__lease *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
    return x->value < y->value ? -1 : 1;
}

static bool ftr__overlaps(const ftr__lease *a, const ftr__lease *b) { return a->first <= b->last && b->first <= a->last; }

/* The lowest offset where `lease` fits beside the placed ones that live at the same time: start at 0 and step over every
 * one in the way until none is. */
static size_t ftr__lowest_offset(const void *const *placed, int32_t count, const ftr__lease *lease) {
    size_t offset = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int32_t i = 0; i < count; i++) {
            const ftr__lease *other = placed[i];
            const bool in_way = offset < other->offset + other->bytes && other->offset < offset + lease->bytes;
            if (!in_way || !ftr__overlaps(other, lease)) continue;
            offset = other->offset + other->bytes;
            moved = true;
        }
    }
    return offset;
}

static ftr_status ftr__place_activations(ftr_plan *plan) {
    const int32_t values = plan->graph->value_count;
    ftr__lease *leases = ftr__arena_alloc(&plan->arena, (size_t)values * sizeof *leases);
    const void **order = ftr__arena_alloc(&plan->arena, (size_t)values * sizeof *order);
    if (!leases || !order) return ftr__out_of_memory(plan->context, "memplan", (size_t)values * sizeof *leases);
    int32_t count = 0;
    for (int32_t v = 1; v < values; v++) {
        const ftr__slot *slot = &plan->slots[v];
        if (slot->place != FTR__PLACE_ACTIVATION || slot->root != v) continue;
        leases[count] = (ftr__lease){.value = v,
                                     .first = slot->kept ? -1 : slot->first,
                                     .last = slot->kept ? plan->order_count : slot->last,
                                     .bytes = ftr__align(slot->bytes)};
        order[count] = &leases[count];
        count++;
    }
    ftr__sort(order, count, ftr__larger_first);
    size_t top = 0;
    for (int32_t i = 0; i < count; i++) {
        ftr__lease *lease = &leases[(const ftr__lease *)order[i] - leases];
        lease->offset = ftr__lowest_offset(order, i, lease);
        plan->slots[lease->value].offset = lease->offset;
        if (lease->offset + lease->bytes > top) top = lease->offset + lease->bytes;
    }
    plan->bytes[FTR__PLACE_ACTIVATION] = top;
    return FTR_OK;
}

/* Gradients lie in the order of their parameters, state in the order of its declaration: flat arrays for the optimizer. */
static void ftr__place_flat(ftr_plan *plan) {
    size_t top = 0;
    for (int32_t i = 0; i < plan->gradient_count; i++) {
        if (!plan->gradients[i]) continue;
        ftr__slot *slot = ftr__root_slot(plan, plan->gradients[i]);
        if (slot->place != FTR__PLACE_GRADIENT) continue;
        slot->offset = top;
        top += ftr__align(slot->bytes);
    }
    plan->bytes[FTR__PLACE_GRADIENT] = top;
    top = 0;
    for (int32_t v = 1; v < plan->graph->value_count; v++) {
        ftr__slot *slot = &plan->slots[v];
        if (slot->place != FTR__PLACE_STATE) continue;
        slot->offset = top;
        top += ftr__align(slot->bytes);
    }
    plan->bytes[FTR__PLACE_STATE] = top;
}

ftr_status ftr__pass_memplan(ftr_plan *plan) {
    const size_t values = (size_t)plan->graph->value_count;
    plan->slots = ftr__arena_alloc(&plan->arena, values * sizeof *plan->slots);
    if (!plan->slots) return ftr__out_of_memory(plan->context, "memplan", values * sizeof *plan->slots);
    ftr__open_slots(plan);
    ftr__find_lifetimes(plan);
    ftr__share_memory(plan);
    const ftr_status status = ftr__place_activations(plan);
    if (status) return status;
    ftr__place_flat(plan);
    for (int32_t v = 1; v < plan->graph->value_count; v++) {
        ftr__slot *slot = &plan->slots[v];
        if (slot->place == FTR__PLACE_NONE) continue;
        const ftr__slot *root = ftr__root_slot(plan, v);
        slot->place = root->place;
        slot->offset = root->offset;
    }
    return FTR_OK;
}

/* ---- src/exec/compile.c ---- */

void ftr_plan_destroy(ftr_plan *plan) {
    if (!plan) return;
    ftr_context *context = plan->context;
    for (int place = FTR__PLACE_STATE; place < FTR__PLACE_COUNT; place++)
        if (plan->memory[place])
            context->backend->release(context, context->backend_state, plan->memory[place], plan->bytes[place]);
    if (plan->workspace)
        context->backend->release(context, context->backend_state, plan->workspace, plan->workspace_bytes);
    ftr_graph_destroy(plan->graph);
    ftr__arena_free(&plan->arena);
    ftr__release(context, plan, sizeof *plan);
}

static ftr_status ftr__compile_out_of_memory(const ftr_plan *plan, size_t bytes) {
    return ftr__out_of_memory(plan->context, "compile", bytes);
}

/* ----------------------------------------------------------------------------------------------- the description -- */

/* `index` is -1 for a field that is no list. */
static ftr_status ftr__check_tensor(const ftr_plan *plan, ftr_tensor tensor, const char *field, int32_t index) {
    if (ftr_is_valid(tensor) && tensor.graph == plan->source) return FTR_OK;
    const char *fault = ftr_is_valid(tensor) ? "belongs to another graph" : "is a null tensor";
    if (index < 0) return ftr__error(plan->context, FTR_ERROR_INVALID_TENSOR, "compile: %s %s", field, fault);
    return ftr__error(plan->context, FTR_ERROR_INVALID_TENSOR, "compile: %s[%d] %s", field, index, fault);
}

static ftr_status ftr__check_list(const ftr_plan *plan, const ftr_tensor *list, int32_t count, const char *field) {
    if (count < 0 || (count > 0 && !list))
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "compile: %s is %s with a count of %d", field,
                          list ? "given" : "NULL", count);
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < count && !status; i++) status = ftr__check_tensor(plan, list[i], field, i);
    return status;
}

static ftr_status ftr__check_desc(const ftr_plan *plan, const ftr_compile_desc *desc) {
    if (desc->mode != FTR_MODE_TRAIN && desc->mode != FTR_MODE_EVAL)
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "compile: mode is %d, expected one of ftr_mode",
                          (int)desc->mode);
    ftr_status status = ftr__check_list(plan, desc->outputs, desc->output_count, "outputs");
    if (!status) status = ftr__check_list(plan, desc->gradients_of, desc->gradient_count, "gradients_of");
    if (status) return status;
    const bool has_loss = desc->loss.graph || desc->loss.id;
    if (has_loss) status = ftr__check_tensor(plan, desc->loss, "loss", -1);
    else if (desc->gradient_count || desc->optimizer)
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "compile: %s is given without a loss",
                          desc->optimizer ? "optimizer" : "gradients_of");
    else if (!desc->output_count)
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "compile: neither loss nor outputs is given");
    if (!status && desc->optimizer) status = ftr__optimizer_check(plan->context, desc->optimizer);
    return status;
}

static ftr_status ftr__take_desc(ftr_plan *plan, const ftr_compile_desc *desc) {
    const ftr_graph *graph = plan->graph;
    plan->mode = desc->mode;
    plan->loss = desc->loss.id;
    plan->kept = ftr__arena_alloc(&plan->arena, ((size_t)desc->output_count + 1) * sizeof *plan->kept);
    plan->renamed = ftr__arena_alloc(&plan->arena, (size_t)graph->value_count * sizeof *plan->renamed);
    if (!plan->kept || !plan->renamed)
        return ftr__compile_out_of_memory(plan, (size_t)graph->value_count * sizeof *plan->renamed);
    if (plan->loss) plan->kept[plan->kept_count++] = plan->loss;
    for (int32_t i = 0; i < desc->output_count; i++) plan->kept[plan->kept_count++] = desc->outputs[i].id;
    plan->renamed_count = graph->value_count;
    for (int32_t v = 0; v < graph->value_count; v++) plan->renamed[v] = v;
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------ autodiff -- */

static bool ftr__wants_gradient(const ftr_plan *plan, const ftr_compile_desc *desc, int32_t value) {
    for (int32_t i = 0; i < desc->gradient_count; i++)
        if (plan->renamed[desc->gradients_of[i].id] == value) return true;
    return false;
}

static bool ftr__already_wanted(const ftr_plan *plan, int32_t value) {
    for (int32_t i = 0; i < plan->gradient_count; i++)
        if (plan->wrt[i] == value) return true;
    return false;
}

static ftr_status ftr__collect_wrt(ftr_plan *plan, const ftr_compile_desc *desc, bool **required) {
    const ftr_graph *graph = plan->graph;
    const size_t most = (size_t)graph->variable_count + (size_t)desc->gradient_count + 1;
    plan->wrt = ftr__arena_alloc(&plan->arena, most * sizeof *plan->wrt);
    plan->gradients = ftr__arena_alloc(&plan->arena, most * sizeof *plan->gradients);
    *required = ftr__arena_alloc(&plan->arena, most);
    if (!plan->wrt || !plan->gradients || !*required) return ftr__compile_out_of_memory(plan, most * sizeof *plan->wrt);
    for (int32_t i = 0; i < graph->variable_count; i++) {
        const int32_t value = graph->variables[i].value;
        const bool asked = ftr__wants_gradient(plan, desc, value);
        const bool trained = desc->optimizer && !graph->variables[i].frozen;
        if (!graph->variables[i].trainable || (!trained && !asked)) continue;
        (*required)[plan->gradient_count] = asked;
        plan->wrt[plan->gradient_count++] = value;
    }
    for (int32_t i = 0; i < desc->gradient_count; i++) {
        const int32_t value = plan->renamed[desc->gradients_of[i].id];
        if (ftr__already_wanted(plan, value)) continue;
        const ftr_dtype dtype = graph->values[value].dtype;
        if (!ftr__is_float(dtype))
            return ftr__error(plan->context, FTR_ERROR_DTYPE, "gradient of '%s': dtype is %s, expected f32 or f64",
                              ftr_name_of(desc->gradients_of[i]), ftr_dtype_name(dtype));
        (*required)[plan->gradient_count] = true;
        plan->wrt[plan->gradient_count++] = value;
    }
    return FTR_OK;
}

/* Whether the optimizer changes a value of plan->wrt. */
static bool ftr__is_trained(const ftr_graph *graph, int32_t value) {
    const ftr__node *node = &graph->nodes[graph->values[value].node];
    return node->op == FTR_OP_parameter && !graph->variables[node->variable].frozen;
}

static ftr_status ftr__nothing_to_train(const ftr_plan *plan) {
    int32_t frozen = 0;
    for (int32_t i = 0; i < plan->graph->variable_count; i++) frozen += plan->graph->variables[i].frozen;
    if (frozen == 0)
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT,
                          "compile: optimizer is given, but the loss depends on no parameter");
    return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT,
                      "compile: optimizer is given, but the loss depends on no parameter that is not frozen (%d %s)",
                      frozen, frozen == 1 ? "is" : "are");
}

static ftr_status ftr__pass_autodiff(ftr_plan *plan, const ftr_compile_desc *desc) {
    if (!desc->optimizer && !desc->gradient_count) return FTR_OK;
    bool *required;
    ftr_status status = ftr__collect_wrt(plan, desc, &required);
    if (!status)
        status = ftr__differentiate(plan->graph, &plan->arena, plan->loss, plan->wrt, plan->gradient_count, required,
                                    plan->gradients);
    if (status || !desc->optimizer) return status;
    const size_t bytes = (size_t)plan->gradient_count * sizeof(int32_t);
    int32_t *parameters = ftr__arena_alloc(&plan->arena, bytes), *gradients = ftr__arena_alloc(&plan->arena, bytes);
    if (!parameters || !gradients) return ftr__compile_out_of_memory(plan, bytes);
    int32_t count = 0;
    for (int32_t i = 0; i < plan->gradient_count; i++) {
        if (!plan->gradients[i] || !ftr__is_trained(plan->graph, plan->wrt[i])) continue;
        parameters[count] = plan->wrt[i];
        gradients[count++] = plan->gradients[i];
    }
    if (count == 0) return ftr__nothing_to_train(plan);
    status = ftr__optimizer_emit(plan->graph, &plan->arena, desc->optimizer, parameters, gradients, count,
                                 &plan->learning_rate);
    return status ? ftr__error(plan->context, status, "%s", plan->graph->message) : FTR_OK;
}

/* -------------------------------------------------------------------------------------------------------- passes -- */

static ftr_status ftr__run_passes(ftr_plan *plan, const ftr_compile_desc *desc) {
    static const char *const names[] = {"lower", "autodiff", "fuse", "schedule", "memplan"};
    for (int32_t i = 0; i < FTR__ARRAY_LENGTH(names); i++) {
        ftr_status status = FTR_OK;
        switch (i) {
        case 0: status = ftr__pass_lower(plan); break;
        case 1: status = ftr__pass_autodiff(plan, desc); break;
        case 2: status = desc->no_fuse ? FTR_OK : ftr__pass_fuse(plan); break;
        case 3: status = ftr__pass_schedule(plan); break;
        default: status = ftr__pass_memplan(plan); break;
        }
        if (status) return status;
        if (desc->on_pass) desc->on_pass(desc->on_pass_user, names[i], plan->graph);
    }
    return FTR_OK;
}

/* --------------------------------------------------------------------------------------------------------- steps -- */

static ftr_view ftr__view_of(const ftr_plan *plan, int32_t value) {
    if (!value) return (ftr_view){.data = NULL, .dtype = FTR_DTYPE_NONE};
    const ftr__value *v = &plan->graph->values[value];
    const ftr__slot *slot = &plan->slots[value];
    unsigned char *base = plan->memory[slot->place];
    return (ftr_view){.data = base ? base + slot->offset : NULL,
                      .dtype = v->dtype,
                      .shape = v->shape,
                      .count = ftr_shape_count(&v->shape)};
}

static ftr_status ftr__make_step(ftr_plan *plan, int32_t node_index, ftr__step *step) {
    const ftr__node *node = &plan->graph->nodes[node_index];
    const ftr_kernel *kernel = &plan->context->backend->kernels[node->op];
    if (!kernel->run)
        return ftr__error(plan->context, FTR_ERROR_UNSUPPORTED, "%s '%s': the %s backend has no kernel for it",
                          ftr_op_name(node->op), node->name, plan->context->backend->name);
    const size_t views = (size_t)(node->in_count + node->out_count);
    ftr_view *view = ftr__arena_alloc(&plan->arena, views * sizeof *view);
    if (!view) return ftr__compile_out_of_memory(plan, views * sizeof *view);
    step->node = node_index;
    step->run = kernel->run;
    step->call = (ftr_kernel_call){.context = plan->context,
                                   .backend = plan->context->backend_state,
                                   .op = node->op,
                                   .name = node->name,
                                   .attr = &node->attr,
                                   .in = view,
                                   .in_count = node->in_count,
                                   .out = view + node->in_count,
                                   .out_count = node->out_count,
                                   .seed = plan->context->seed};
    for (int32_t i = 0; i < node->in_count; i++) view[i] = ftr__view_of(plan, node->in[i]);
    for (int32_t i = 0; i < node->out_count; i++) view[node->in_count + i] = ftr__view_of(plan, node->first_out + i);
    const ftr_status status = kernel->check ? kernel->check(&step->call) : FTR_OK;
    if (status) return status;
    const size_t workspace = kernel->workspace ? kernel->workspace(&step->call) : 0;
    if (workspace > plan->workspace_bytes) plan->workspace_bytes = workspace;
    return FTR_OK;
}

static bool ftr__is_alias(const ftr_plan *plan, const ftr__node *node) {
    return node->op == FTR_OP_reshape && plan->slots[node->first_out].root == plan->slots[node->in[0]].root;
}

static ftr_status ftr__make_steps(ftr_plan *plan) {
    const size_t bytes = (size_t)plan->order_count * sizeof *plan->steps;
    plan->steps = ftr__arena_alloc(&plan->arena, bytes);
    plan->fed = ftr__arena_alloc(&plan->arena, (size_t)plan->graph->value_count);
    if (!plan->steps || !plan->fed) return ftr__compile_out_of_memory(plan, bytes);
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < plan->order_count && !status; i++)
        if (!ftr__is_alias(plan, &plan->graph->nodes[plan->order[i]]))
            status = ftr__make_step(plan, plan->order[i], &plan->steps[plan->step_count++]);
    return status;
}

/* -------------------------------------------------------------------------------------------------------- memory -- */

static ftr_status ftr__upload_zeros(const ftr_plan *plan, unsigned char *memory, size_t bytes) {
    static const unsigned char zeros[4096] = {0};
    const ftr_backend *backend = plan->context->backend;
    ftr_status status = FTR_OK;
    for (size_t done = 0; done < bytes && !status; done += sizeof zeros) {
        const size_t piece = bytes - done < sizeof zeros ? bytes - done : sizeof zeros;
        status = backend->upload(plan->context, plan->context->backend_state, memory + done, zeros, piece);
    }
    return status;
}

static ftr_status ftr__upload_constants(const ftr_plan *plan) {
    const ftr_backend *backend = plan->context->backend;
    ftr_status status = FTR_OK;
    for (int32_t n = 0; n < plan->graph->node_count && !status; n++) {
        const ftr__node *node = &plan->graph->nodes[n];
        if (node->op != FTR_OP_constant || node->dead) continue;
        const ftr__slot *slot = &plan->slots[node->first_out];
        if (slot->bytes)
            status = backend->upload(plan->context, plan->context->backend_state,
                                     plan->memory[FTR__PLACE_ACTIVATION] + slot->offset, node->constant, slot->bytes);
    }
    return status;
}

static ftr_status ftr__allocate_place(const ftr_plan *plan, const char *what, size_t bytes, unsigned char **memory) {
    if (!bytes) return FTR_OK;
    *memory = plan->context->backend->allocate(plan->context, plan->context->backend_state, bytes);
    return *memory ? FTR_OK : ftr__out_of_memory(plan->context, what, bytes);
}

static ftr_status ftr__allocate_memory(ftr_plan *plan) {
    static const char *const names[FTR__PLACE_COUNT] = {"", "", "optimizer state", "gradients", "activations"};
    plan->memory[FTR__PLACE_VARIABLE] = plan->source->variable_memory;
    ftr_status status = ftr__allocate_place(plan, "workspace", plan->workspace_bytes, &plan->workspace);
    for (int place = FTR__PLACE_STATE; place < FTR__PLACE_COUNT && !status; place++)
        status = ftr__allocate_place(plan, names[place], plan->bytes[place], &plan->memory[place]);
    for (int place = FTR__PLACE_STATE; place < FTR__PLACE_COUNT && !status; place++)
        status = ftr__upload_zeros(plan, plan->memory[place], plan->bytes[place]);
    if (!status) status = ftr__upload_constants(plan);
    return status;
}

/* Steps were made without memory so that the kernels could say what workspace they need; now they get their pointers. */
static void ftr__bind_steps(ftr_plan *plan) {
    for (int32_t s = 0; s < plan->step_count; s++) {
        ftr__step *step = &plan->steps[s];
        const ftr__node *node = &plan->graph->nodes[step->node];
        ftr_view *view = (ftr_view *)(uintptr_t)step->call.in; /* the plan's own array, const only to the kernels */
        for (int32_t i = 0; i < node->in_count; i++) view[i] = ftr__view_of(plan, node->in[i]);
        for (int32_t i = 0; i < node->out_count; i++) view[node->in_count + i] = ftr__view_of(plan, node->first_out + i);
        step->call.workspace = plan->workspace;
    }
}

static ftr_status ftr__compile_into(ftr_plan *plan, const ftr_compile_desc *desc) {
    ftr_status status = ftr__check_desc(plan, desc);
    if (!status) status = ftr__graph_materialize(plan->source);
    if (status) return status;
    plan->graph = ftr__graph_clone(plan->source);
    if (!plan->graph) return ftr__compile_out_of_memory(plan, sizeof *plan->graph);
    status = ftr__take_desc(plan, desc);
    if (!status) status = ftr__run_passes(plan, desc);
    if (!status) status = ftr__make_steps(plan);
    if (!status) status = ftr__allocate_memory(plan);
    if (status) return status;
    ftr__bind_steps(plan);
    return desc->optimizer ? ftr_plan_set_lr(plan, desc->optimizer->lr) : FTR_OK;
}

ftr_status ftr_compile(ftr_graph *graph, const ftr_compile_desc *desc, ftr_plan **plan) {
    if (plan) *plan = NULL;
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    ftr_context *context = graph->context;
    if (!plan || !desc)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "compile: %s is NULL", plan ? "desc" : "plan");
    if (graph->status) return ftr__error(context, graph->status, "%s", graph->message);
    ftr_plan *made = ftr__allocate(context, sizeof *made);
    if (!made) return ftr__out_of_memory(context, "compile", sizeof *made);
    memset(made, 0, sizeof *made);
    made->context = context;
    made->source = graph;
    ftr__arena_init(&made->arena, context);
    const ftr_status status = ftr__compile_into(made, desc);
    if (status) {
        ftr_plan_destroy(made);
        return status;
    }
    *plan = made;
    return FTR_OK;
}

ftr_memory ftr_plan_memory(const ftr_plan *plan) {
    ftr_memory memory = {0};
    if (!plan) return memory;
    memory.parameters = plan->source->variable_bytes;
    memory.gradients = plan->bytes[FTR__PLACE_GRADIENT];
    memory.optimizer_state = plan->bytes[FTR__PLACE_STATE];
    memory.activations = plan->bytes[FTR__PLACE_ACTIVATION];
    memory.workspace = plan->workspace_bytes;
    memory.bookkeeping = sizeof *plan + sizeof *plan->graph + plan->arena.bytes + plan->graph->arena.bytes;
    memory.total = memory.parameters + memory.gradients + memory.optimizer_state + memory.activations + memory.workspace +
                   memory.bookkeeping;
    return memory;
}

/* ---- src/exec/run.c ---- */

static unsigned char *ftr__memory_of(const ftr_plan *plan, int32_t value) {
    const ftr__slot *slot = &plan->slots[value];
    return plan->memory[slot->place] ? plan->memory[slot->place] + slot->offset : NULL;
}

static ftr_status ftr__download(const ftr_plan *plan, int32_t value, void *data, size_t bytes) {
    ftr_context *context = plan->context;
    if (bytes == 0) return FTR_OK;
    return context->backend->download(context, context->backend_state, data, ftr__memory_of(plan, value), bytes);
}

/* The input's value in the plan's graph; 0 with the error recorded if it is none. Ids of inputs never change. */
static int32_t ftr__input_of(const ftr_plan *plan, ftr_tensor input) {
    if (!ftr_is_valid(input) || input.graph != plan->source) {
        ftr__error(plan->context, FTR_ERROR_INVALID_TENSOR, "feed: the tensor is null or belongs to another graph");
        return 0;
    }
    const ftr__node *node = ftr__producer(input);
    if (node->op != FTR_OP_input || input.id >= plan->renamed_count) {
        ftr__error(plan->context, FTR_ERROR_INVALID_TENSOR, "feed: %s '%s' is not an input of the plan",
                   ftr_op_name(node->op), node->name);
        return 0;
    }
    return input.id;
}

static ftr_status ftr__wrong_size(const ftr_plan *plan, const char *what, int32_t value, size_t bytes, size_t expected) {
    const ftr__value *v = &plan->graph->values[value];
    const char *name = plan->graph->nodes[v->node].name;
    char text[FTR__SHAPE_TEXT];
    ftr__shape_text(&v->shape, text);
    const size_t row = v->shape.rank > 0 && v->shape.dim[0] > 0 ? expected / (size_t)v->shape.dim[0] : 0;
    if (row > 0 && bytes % row == 0)
        return ftr__error(plan->context, FTR_ERROR_SHAPE,
                          "%s '%s': %zu bytes given, expected %zu (%s %s): a batch of %zu, planned for %lld", what, name,
                          bytes, expected, ftr_dtype_name(v->dtype), text, bytes / row, (long long)v->shape.dim[0]);
    return ftr__error(plan->context, FTR_ERROR_SHAPE, "%s '%s': %zu bytes given, expected %zu (%s %s)", what, name, bytes,
                      expected, ftr_dtype_name(v->dtype), text);
}

static size_t ftr__bytes_of(const ftr_plan *plan, int32_t value) {
    const ftr__value *v = &plan->graph->values[value];
    return (size_t)ftr_shape_count(&v->shape) * ftr_dtype_size(v->dtype);
}

ftr_status ftr_feed(ftr_plan *plan, ftr_tensor input, const void *data, size_t bytes) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    const int32_t value = ftr__input_of(plan, input);
    if (!value) return FTR_ERROR_INVALID_TENSOR;
    ftr_context *context = plan->context;
    const size_t expected = ftr__bytes_of(plan, value);
    if (bytes != expected) return ftr__wrong_size(plan, "input", value, bytes, expected);
    if (!data && bytes)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "input '%s': data is NULL", ftr_name_of(input));
    plan->fed[value] = true;
    if (plan->slots[value].place == FTR__PLACE_NONE || bytes == 0) return FTR_OK;
    return context->backend->upload(context, context->backend_state, ftr__memory_of(plan, value), data, bytes);
}

void *ftr_input_memory(ftr_plan *plan, ftr_tensor input) {
    if (!plan) return NULL;
    const int32_t value = ftr__input_of(plan, input);
    if (!value) return NULL;
    if (!plan->context->backend->host_memory || plan->slots[value].place == FTR__PLACE_NONE) {
        ftr__error(plan->context, FTR_ERROR_STATE, "input '%s': %s", ftr_name_of(input),
                   plan->context->backend->host_memory ? "the plan does not use it"
                                                       : "the backend's memory cannot be written by the host");
        return NULL;
    }
    plan->fed[value] = true;
    return ftr__memory_of(plan, value);
}

static ftr_status ftr__check_fed(const ftr_plan *plan) {
    const ftr_graph *graph = plan->graph;
    for (int32_t n = 0; n < graph->node_count; n++) {
        const ftr__node *node = &graph->nodes[n];
        if (node->op != FTR_OP_input || node->dead || plan->fed[node->first_out]) continue;
        char text[FTR__SHAPE_TEXT];
        const ftr__value *value = &graph->values[node->first_out];
        return ftr__error(plan->context, FTR_ERROR_NOT_FED, "step: input '%s' (%s %s) was never fed", node->name,
                          ftr_dtype_name(value->dtype), ftr__shape_text(&value->shape, text));
    }
    return FTR_OK;
}

static ftr_status ftr__read_loss(const ftr_plan *plan, double *loss) {
    *loss = (double)NAN;
    if (!plan->loss) return FTR_OK;
    union {
        float f32;
        double f64;
    } value = {0};
    const ftr_dtype dtype = plan->graph->values[plan->loss].dtype;
    const size_t bytes = ftr__bytes_of(plan, plan->loss);
    if (bytes > sizeof value || !ftr__is_float(dtype)) return FTR_OK;
    const ftr_status status = ftr__download(plan, plan->loss, &value, bytes);
    *loss = dtype == FTR_F32 ? (double)value.f32 : value.f64;
    return status;
}

ftr_status ftr_step(ftr_plan *plan, ftr_step_info *info) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    const double start = ftr_time_seconds();
    ftr_status status = ftr__check_fed(plan);
    for (int32_t i = 0; i < plan->step_count && !status; i++) {
        ftr__step *step = &plan->steps[i];
        step->call.step = plan->steps_done;
        status = step->run(&step->call);
    }
    if (status) return status;
    plan->steps_done++;
    if (!info) return FTR_OK;
    status = ftr__read_loss(plan, &info->loss);
    info->step = plan->steps_done;
    info->seconds = ftr_time_seconds() - start;
    return status;
}

static ftr_status ftr__read_value(ftr_plan *plan, const char *what, int32_t value, void *data, size_t bytes) {
    const size_t expected = ftr__bytes_of(plan, value);
    if (bytes != expected) return ftr__wrong_size(plan, what, value, bytes, expected);
    if (!data && bytes) return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "%s: data is NULL", what);
    if (plan->steps_done == 0)
        return ftr__error(plan->context, FTR_ERROR_STATE, "%s '%s': no step was run yet", what,
                          plan->graph->nodes[plan->graph->values[value].node].name);
    return ftr__download(plan, value, data, bytes);
}

static bool ftr__is_kept(const ftr_plan *plan, int32_t value) {
    const ftr__node *node = &plan->graph->nodes[plan->graph->values[value].node];
    if (node->op == FTR_OP_input) return plan->slots[value].place != FTR__PLACE_NONE;
    for (int32_t i = 0; i < plan->kept_count; i++)
        if (plan->kept[i] == value) return true;
    return false;
}

static bool ftr__known(const ftr_plan *plan, ftr_tensor tensor) {
    return ftr_is_valid(tensor) && tensor.graph == plan->source && tensor.id < plan->renamed_count;
}

ftr_status ftr_read(ftr_plan *plan, ftr_tensor tensor, void *data, size_t bytes) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    if (!ftr__known(plan, tensor))
        return ftr__error(plan->context, FTR_ERROR_INVALID_TENSOR, "read: the tensor is null or unknown to the plan");
    const int32_t value = plan->renamed[tensor.id];
    if (!ftr__is_kept(plan, value))
        return ftr__error(plan->context, FTR_ERROR_INVALID_TENSOR,
                          "read: '%s' is neither the loss, nor one of the plan's outputs, nor an input", ftr_name_of(tensor));
    return ftr__read_value(plan, "read", value, data, bytes);
}

ftr_status ftr_read_gradient(ftr_plan *plan, ftr_tensor tensor, void *data, size_t bytes) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    if (!ftr__known(plan, tensor))
        return ftr__error(plan->context, FTR_ERROR_INVALID_TENSOR,
                          "read_gradient: the tensor is null or unknown to the plan");
    for (int32_t i = 0; i < plan->gradient_count; i++)
        if (plan->wrt[i] == plan->renamed[tensor.id] && plan->gradients[i])
            return ftr__read_value(plan, "read_gradient", plan->gradients[i], data, bytes);
    return ftr__error(plan->context, FTR_ERROR_INVALID_TENSOR, "read_gradient: the plan has no gradient of '%s'",
                      ftr_name_of(tensor));
}

ftr_status ftr_plan_set_lr(ftr_plan *plan, double lr) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    if (!plan->learning_rate) return ftr__error(plan->context, FTR_ERROR_STATE, "set_lr: the plan has no optimizer");
    if (!isfinite(lr) || lr < 0.0)
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "set_lr: lr is %g, expected a finite number of 0 or more",
                          lr);
    const float value = (float)lr;
    return plan->context->backend->upload(plan->context, plan->context->backend_state,
                                          ftr__memory_of(plan, plan->learning_rate), &value, sizeof value);
}

uint64_t ftr_plan_steps(const ftr_plan *plan) { return plan ? plan->steps_done : 0; }

/* ---- src/exec/print.c ---- */

static const char *ftr__place_name(ftr__place place) {
    switch (place) {
    case FTR__PLACE_NONE: return "none";
    case FTR__PLACE_VARIABLE: return "parameters";
    case FTR__PLACE_STATE: return "optimizer";
    case FTR__PLACE_GRADIENT: return "gradients";
    case FTR__PLACE_ACTIVATION: return "activations";
    case FTR__PLACE_COUNT: break;
    }
    return "unknown";
}

/* Where the node's first result lies: "activations +4096", and whose memory it took over. */
static void ftr__memory_note(const void *arg, int32_t node_index, char text[64]) {
    const ftr_plan *plan = arg;
    const ftr__node *node = &plan->graph->nodes[node_index];
    text[0] = '\0';
    if (!node->out_count) return;
    const ftr__slot *slot = &plan->slots[node->first_out];
    const int n = snprintf(text, 64, "%s +%zu", ftr__place_name(slot->place), slot->offset);
    if (slot->root != node->first_out && n > 0 && n < 64) snprintf(text + n, 64 - (size_t)n, " over %%%d", slot->root);
}

static void ftr__print_memory(const ftr_plan *plan, ftr_write_fn write, void *user) {
    const ftr_memory m = ftr_plan_memory(plan);
    ftr__print(write, user,
               "memory: parameters %zu, gradients %zu, optimizer state %zu, activations %zu, workspace %zu, bookkeeping %zu, "
               "total %zu bytes\n",
               m.parameters, m.gradients, m.optimizer_state, m.activations, m.workspace, m.bookkeeping, m.total);
}

ftr_status ftr_plan_print(const ftr_plan *plan, ftr_graph_format format, ftr_write_fn write, void *user) {
    if (!plan) return FTR_ERROR_INVALID_ARGUMENT;
    if (!write || (format != FTR_GRAPH_TEXT && format != FTR_GRAPH_DOT))
        return ftr__error(plan->context, FTR_ERROR_INVALID_ARGUMENT, "plan_print: %s",
                          write ? "format is not one of ftr_graph_format" : "write is NULL");
    const ftr__printer printer = {plan->graph, write, user};
    if (format == FTR_GRAPH_DOT) {
        ftr__print_dot(&printer, ftr__memory_note, plan);
        return FTR_OK;
    }
    for (int32_t i = 0; i < plan->order_count; i++) {
        char text[64];
        ftr__print(write, user, "%4d  ", i);
        ftr__print_node(&printer, &plan->graph->nodes[plan->order[i]]);
        ftr__memory_note(plan, plan->order[i], text);
        ftr__print(write, user, "%s%s\n", text[0] ? "  @ " : "", text);
    }
    ftr__print_memory(plan, write, user);
    return FTR_OK;
}

/* ---- src/backend/cpu/simd_math.h ---- */
/* SIMD functions for everything but matrix products: inner loops over contiguous rows. Unless said otherwise an
 * output may be the same pointer as an input, and an element's result does not depend on where in a row it stands or
 * how rows are cut. */

typedef enum ftr__simd_binary {
    FTR__BINARY_ADD = 0,
    FTR__BINARY_SUB,
    FTR__BINARY_MUL,
    FTR__BINARY_DIV,
    FTR__BINARY_MAXIMUM, /* NaN wins */
    FTR__BINARY_MINIMUM,
    FTR__BINARY_COUNT
} ftr__simd_binary;

typedef enum ftr__simd_unary {
    FTR__UNARY_NEG = 0,
    FTR__UNARY_EXP,
    FTR__UNARY_LOG,
    FTR__UNARY_SQRT,
    FTR__UNARY_RSQRT,
    FTR__UNARY_TANH,
    FTR__UNARY_SIGMOID,
    FTR__UNARY_RELU,
    FTR__UNARY_COUNT
} ftr__simd_unary;

typedef enum ftr__simd_activation_grad {
    FTR__GRAD_TANH = 0,
    FTR__GRAD_SIGMOID,
    FTR__GRAD_RELU,
    FTR__GRAD_COUNT
} ftr__simd_activation_grad;

/* Functions of x and up to two constants, a and b. */
typedef enum ftr__simd_activation {
    FTR__ACTIVATION_CLAMP = 0,  /* a: min, b: max */
    FTR__ACTIVATION_LEAKY_RELU, /* a: slope */
    FTR__ACTIVATION_ELU,        /* a: alpha */
    FTR__ACTIVATION_SOFTPLUS,   /* a: beta, b: threshold */
    FTR__ACTIVATION_HARDSWISH,
    FTR__ACTIVATION_SILU,
    FTR__ACTIVATION_GELU,
    FTR__ACTIVATION_GELU_TANH,
    FTR__ACTIVATION_SLOPES, /* those above have a function for the gradient */
    FTR__ACTIVATION_HARDSIGMOID = FTR__ACTIVATION_SLOPES,
    FTR__ACTIVATION_ERF,
    FTR__ACTIVATION_COUNT
} ftr__simd_activation;

/* Which operand of a binary function is one element. */
typedef enum ftr__simd_operands {
    FTR__OPERANDS_ROWS = 0,
    FTR__OPERANDS_RIGHT_SCALAR,
    FTR__OPERANDS_LEFT_SCALAR,
    FTR__OPERANDS_COUNT
} ftr__simd_operands;

/* A Philox stream (core/rng.h) and dropout's rule. */
typedef struct ftr__dropout_stream {
    uint32_t key[2], counter[2]; /* counter: its upper half */
    uint64_t threshold;          /* an element with a number below it is dropped */
    float scale;                 /* of the others */
} ftr__dropout_stream;

/* A Philox stream and the distribution that is drawn from it: offset + scale u, at most `most`, or offset + scale z. */
typedef struct ftr__random_stream {
    uint32_t key[2], counter[2];
    float offset, scale, most;
} ftr__random_stream;

/* Constants of one optimizer step, computed in double. */
typedef struct ftr__sgd_step {
    float lr, weight_decay, momentum;
    float gradient; /* weight of the gradient in the momentum: 1 - dampening */
    bool nesterov;
    bool first; /* the momentum is the whole gradient; what its memory holds does not count */
} ftr__sgd_step;

typedef struct ftr__adamw_step {
    float decay; /* 1 - lr * weight decay */
    float beta1, one_minus_beta1;
    float beta2, one_minus_beta2;
    float rate;   /* lr / (1 - beta1^t) */
    float second; /* 1 / sqrt(1 - beta2^t) */
    float eps;
} ftr__adamw_step;

typedef struct ftr__simd_math {
    void (*binary[FTR__BINARY_COUNT][FTR__OPERANDS_COUNT])(int64_t n, const float *a, const float *b, float *out);
    void (*unary[FTR__UNARY_COUNT])(int64_t n, const float *x, float *out);
    void (*activation_grad[FTR__GRAD_COUNT])(int64_t n, const float *dy, const float *y, float *dx);
    void (*activation[FTR__ACTIVATION_COUNT])(int64_t n, const float *x, float a, float b, float *out);
    void (*activation_slope[FTR__ACTIVATION_SLOPES])(int64_t n, const float *dy, const float *x, float a, float b,
                                                     float *dx);

    /* Of a row; sums of blocks are in f32 with many partial sums, blocks are added in double. */
    double (*sum)(int64_t n, const float *x);
    double (*dot)(int64_t n, const float *a, const float *b);
    float (*maximum)(int64_t n, const float *x); /* -inf over nothing; NaN wins */

    /* Of the columns of a matrix, `stride` elements from row to row: out[j] += sum over rows of x, of x - center[j],
     * or of (x - center[j] - mean[j])^2; or out[j] = max(out[j], x). */
    void (*column_sum)(int64_t rows, int64_t columns, const float *x, int64_t stride, float *out);
    void (*column_centered_sum)(int64_t rows, int64_t columns, const float *x, int64_t stride, const float *center,
                                float *out);
    void (*column_deviation)(int64_t rows, int64_t columns, const float *x, int64_t stride, const float *center,
                             const float *mean, float *out);
    void (*column_maximum)(int64_t rows, int64_t columns, const float *x, int64_t stride, float *out);

    /* y = (x - mean) * scale + shift, plus the residual if there is one, then max(., 0) if relu. Rows are dense. */
    void (*norm_apply)(int64_t rows, int64_t columns, const float *x, const float *mean, const float *scale,
                       const float *shift, const float *residual, bool relu, float *y);
    /* g = dy, 0 where y (which may be NULL) is not positive: sum[j] += sum of g, product[j] += sum of g * (x -
     * mean[j]). Rows are `stride` apart. */
    void (*norm_grad_sums)(int64_t rows, int64_t columns, int64_t stride, const float *dy, const float *x,
                           const float *y, const float *mean, float *sum, float *product);
    /* dx = g * a[j] + (x - mean[j]) * b[j] + c[j]. Rows are dense. */
    void (*norm_grad_apply)(int64_t rows, int64_t columns, const float *dy, const float *x, const float *y,
                            const float *mean, const float *a, const float *b, const float *c, float *dx);

    /* u = dy * gamma, just dy if gamma is NULL, x - mean if dy is NULL: sums[0] = sum of u, sums[1] = sum of u * (x -
     * mean), added as `sum` does. */
    void (*row_moments)(int64_t n, const float *x, float mean, const float *dy, const float *gamma, double sums[2]);
    /* y = ((x - mean) * scale + shift) * gamma + beta; gamma and beta may be NULL. */
    void (*row_norm)(int64_t n, const float *x, float mean, float scale, float shift, const float *gamma,
                     const float *beta, float *y);
    /* dx = (dy * gamma + (x - mean) * b + c) * a; gamma may be NULL. */
    void (*row_norm_grad)(int64_t n, const float *dy, const float *x, float mean, const float *gamma, float a, float b,
                          float c, float *dx);
    /* sum += dy; product += dy * (x - mean) * scale. */
    void (*row_norm_sums)(int64_t n, const float *dy, const float *x, float mean, float scale, float *sum,
                          float *product);

    /* out = e^(x - shift), which is not stored if out is NULL; returns the sum as `sum` does. */
    double (*exp_sum)(int64_t n, const float *x, float shift, float *out);
    /* out = scale * e^(x - shift) + add. */
    void (*exp_scale_add)(int64_t n, const float *x, float shift, float scale, float add, float *out);
    /* out = (x - a) - b. */
    void (*subtract_twice)(int64_t n, const float *x, float a, float b, float *out);
    /* dx = y * (dy - sum), and dx = dy - e^y * sum. */
    void (*softmax_grad)(int64_t n, const float *dy, const float *y, float sum, float *dx);
    void (*log_softmax_grad)(int64_t n, const float *dy, const float *y, float sum, float *dx);
    /* y += a * x; and y += a * (x - y). */
    void (*axpy)(int64_t n, float a, const float *x, float *y);
    void (*blend)(int64_t n, float a, const float *x, float *y);

    /* Maximum over a window of rows x columns pixels of `channels` each, from x on; `width` pixels are in an image
     * row. The first maximum wins, NaN is the largest. index = first_index + row * width + column. */
    void (*window_maximum)(int64_t channels, const float *x, int64_t rows, int64_t columns, int64_t width,
                           int32_t first_index, float *out, int32_t *index);
    /* out = sum over the window / divisor. */
    void (*window_mean)(int64_t channels, const float *x, int64_t rows, int64_t columns, int64_t width, float divisor,
                        float *out);
    /* dx += dy where index is `pixel`. */
    void (*scatter_add)(int64_t channels, const float *dy, const int32_t *index, int32_t pixel, float *dx);

    /* Element i uses number i of the stream from its block `block` on. */
    void (*dropout)(int64_t n, const ftr__dropout_stream *stream, uint64_t block, const float *x, float *y);
    /* The rules of core/rng.h; out begins with the first element of block `block`. */
    void (*random_uniform)(int64_t n, const ftr__random_stream *stream, uint64_t block, float *out);
    void (*random_normal)(int64_t n, const ftr__random_stream *stream, uint64_t block, float *out);

    void (*sgd)(int64_t n, const ftr__sgd_step *step, float *p, const float *g);
    void (*sgd_momentum)(int64_t n, const ftr__sgd_step *step, float *p, const float *g, float *m);
    void (*adamw)(int64_t n, const ftr__adamw_step *step, float *p, const float *g, float *m, float *v);
} ftr__simd_math;

/* ---- src/backend/cpu/simd_gemm.h ---- */
/* SIMD functions of the matrix product and of convolution: one table an instruction set. */

/* Bounds over all levels, for buffers on the stack. */
#define FTR__GEMM_MAX_MR 14
#define FTR__GEMM_MAX_NR 32

/* Where a tile of the result goes and what is done on the way: c = relu(c * load + tile + bias). All rows have nr
 * elements; the driver points rows that do not exist at a buffer of its own. */
typedef struct ftr__gemm_tile {
    float *c[FTR__GEMM_MAX_MR];
    const float *bias; /* nr of them, or NULL */
    bool load;         /* add to what is there */
    bool relu;
    bool narrow; /* only the first nr / 2 columns count; the others may be left as they are */
} ftr__gemm_tile;

typedef struct ftr__simd_gemm {
    int64_t mr, nr; /* size of a tile */

    /* Tile of packed A, a[k * mr + i], and B, b[k * b_stride + j]. */
    void (*tile)(int64_t depth, const float *a, const float *b, int64_t b_stride, const ftr__gemm_tile *tile);

    /* The same with A read in place: k runs over `segments` runs of `length` elements; run s of row i starts at
     * a[s * mr + i]. Only the first `rows` rows are needed. */
    void (*tile_rows)(int64_t rows, int64_t segments, int64_t length, const float *const *a, const float *b,
                      int64_t b_stride, const ftr__gemm_tile *tile);

    /* to[k * to_stride + i] = from[i][k] for i < width, k < depth. */
    void (*interleave)(int64_t width, int64_t depth, const float *const *from, float *to, int64_t to_stride);

    /* out[j] = sum over k of x[k] * y[j][k], four of them. */
    void (*dot4)(int64_t depth, const float *x, const float *const y[4], float out[4]);

    /* y[i] += x[i]. */
    void (*accumulate)(int64_t count, const float *x, float *y);
} ftr__simd_gemm;

/* ---- src/backend/cpu/simd_attention.h ---- */
/* SIMD functions of attention and rotary embedding. A tile of scores lies transposed: a row is a key, a column (a lane
 * of a vector) is a query, and rows are `stride` elements apart, a multiple of two vectors. Columns that fill up the
 * last vector are computed too, from whatever is there; none of them touches another. Scores are in units of log 2:
 * e^score is 2^(what lies in the tile). */

/* Dropout of a tile whose first key is a multiple of 4: the weight of key k and column c has number k % 4 of block
 * first + k / 4 * step + c of the stream. */
typedef struct ftr__attention_dropout {
    ftr__dropout_stream stream;
    uint64_t first, step;
} ftr__attention_dropout;

typedef struct ftr__simd_attention {
    /* As `tile` of ftr__simd_gemm, A being a[k * a_stride + i]. Only the first `rows` rows are needed. */
    void (*tile_columns)(int64_t rows, int64_t depth, const float *a, int64_t a_stride, const float *b,
                         int64_t b_stride, const ftr__gemm_tile *tile);

    /* s[k][c] += factor * x[k * x_stride + c], or factor * x[k]. */
    void (*add_tile)(int64_t keys, int64_t columns, int64_t stride, float factor, const float *x, int64_t x_stride,
                     float *s);
    void (*add_keys)(int64_t keys, int64_t columns, int64_t stride, float factor, const float *x, float *s);

    /* One step of the softmax over tiles of keys: the maximum and the sum of 2^(score - maximum) of each column move
     * on, rescale[c] = 2^(old maximum - new), and s becomes 2^(score - maximum), after the sum with dropout if there is
     * one. A maximum of -inf counts as 0. */
    void (*softmax)(int64_t keys, int64_t columns, int64_t stride, const ftr__attention_dropout *dropout,
                    float *maximum, float *sum, float *rescale, float *s);
    /* Of all tiles together: log_sum[c] = ln(sum * 2^maximum), inverse[c] = 1 / sum; -inf and 0 where the sum is 0. */
    void (*softmax_end)(int64_t columns, const float *maximum, const float *sum, float *log_sum, float *inverse);
    /* The weights once more, and the gradient of the scores from that of the weights: p = e^(score - log_sum[c]), s =
     * p, ds = p * (ds - mean[c]); with dropout s = p * f and ds = p * (f * ds - mean[c]), f being 0 or the scale. */
    void (*softmax_grad)(int64_t keys, int64_t columns, int64_t stride, const ftr__attention_dropout *dropout,
                         const float *log_sum, const float *mean, float *s, float *ds);

    /* y = factor[r * factor_step] * x of each row r. */
    void (*scale_rows)(int64_t rows, int64_t columns, const float *factor, int64_t factor_step, const float *x,
                       int64_t x_stride, float *y, int64_t y_stride);

    /* Rotates pairs of a row of 2 * half elements by angles of cosine c[i] and sine s[i]: elements i and i + half, or 2
     * i and 2 i + 1; there c and s have each number twice, and s has the sign that the other element gets. */
    void (*rotate_halves)(int64_t half, const float *c, const float *s, const float *x, float *y);
    void (*rotate_pairs)(int64_t half, const float *c, const float *s, const float *x, float *y);
} ftr__simd_attention;

/* ---- src/backend/cpu/simd_depthwise.h ---- */
/* SIMD functions of convolutions that work channel by channel: vectors run along the channels, pixels are blocked in
 * registers. One table an instruction set. Places and steps are in elements. */

#define FTR__DEPTHWISE_BLOCK 6 /* pixels or rows of the result, at most, that are computed at once */
#define FTR__DEPTHWISE_TAPS 5  /* neighbouring taps, at most, whose sums are computed at once */

/* Up to FTR__DEPTHWISE_BLOCK rows of the result, or pixels of a row, that have the same taps: x, w and y say where their
 * first one and its first tap are; those of a row and a pixel are added. */
typedef struct ftr__depthwise_span {
    int64_t x, w, y, count, taps;
} ftr__depthwise_span;

/* For each pair of a row and a pixel:
 * y[c] = relu(bias[c] + sum over planes, the row's taps, the pixel's taps of x[tap][c] * w[tap][c]). */
typedef struct ftr__depthwise_run {
    int64_t channels;
    int64_t chunk; /* channels that go through all rows together */
    int64_t planes, row_span_count, pixel_span_count;
    const ftr__depthwise_span *row_spans, *pixel_spans;
    int64_t x_row, y_row, x_pixel, y_pixel; /* from one of a span to the next */
    const float *x;
    int64_t x_plane, x_tap_row, x_tap;
    const float *w;
    int64_t w_plane, w_tap_row, w_tap;
    const float *bias; /* NULL: none */
    bool relu;
    float *y;
} ftr__depthwise_run;

/* What some taps get from rows of dy that all rows of these taps meet x in; column t of the taps meets it from pixel
 * first[t] up to, not including, last[t]:
 * sum[s][t][c] += sum over rows and pixels of dy[pixel][c] * x[at + tap (s, t) + pixel][c]. */
typedef struct ftr__depthwise_sums {
    int64_t channels, rows;
    int64_t tap_rows, taps; /* taps: 1, 3 or FTR__DEPTHWISE_TAPS */
    int64_t first[FTR__DEPTHWISE_TAPS], last[FTR__DEPTHWISE_TAPS];
    const float *dy;
    int64_t dy_row, dy_pixel;
    const float *x;
    int64_t at; /* of pixel 0 of the first tap; may lie in front of x */
    int64_t x_row, x_pixel, x_tap_row, x_tap;
    float *sum;
    int64_t sum_tap_row, sum_tap;
} ftr__depthwise_sums;

typedef struct ftr__simd_depthwise {
    void (*run)(const ftr__depthwise_run *run);
    void (*sums)(const ftr__depthwise_sums *sums);
} ftr__simd_depthwise;

/* ---- src/backend/cpu/simd.h ---- */
/* SIMD functions, one table an instruction set. They are written once, in simd_*.inc.h, with vector extensions, and
 * instantiated by simd.c. */

typedef struct ftr__simd {
    ftr__simd_gemm gemm; /* matrix product and convolution */
    ftr__simd_attention attention;
    ftr__simd_depthwise depthwise;
    ftr__simd_math math; /* everything else */
} ftr__simd;

/* The table of a level that this build contains; NULL for one that it does not. */
FTR_LIB const ftr__simd *ftr__simd_table(ftr__simd_level level);

/* ---- src/backend/cpu/cpu.h ---- */
/* The CPU backend's insides: state, the SIMD tables, and the kernels by family. */

typedef struct ftr__cpu {
    ftr__pool *pool;
    const ftr__simd *simd;
    ftr__simd_level level;
} ftr__cpu;

static inline const ftr__cpu *ftr__cpu_of(const ftr_kernel_call *call) { return (const ftr__cpu *)call->backend; }

/* Input `index`; NULL if it is missing. */
static inline const ftr_view *ftr__optional_input(const ftr_kernel_call *call, int32_t index) {
    return index < call->in_count && call->in[index].dtype != FTR_DTYPE_NONE ? &call->in[index] : NULL;
}

/* Which function runs an op and which sizes its workspace (0: none): X(op, run, workspace). An op that is missing here is not supported. */
#define FTR__CPU_KERNELS(X)                                                                                      \
    /* pointwise.c */                                                                                            \
    X(add, ftr__cpu_binary, 0)                                                                          \
    X(sub, ftr__cpu_binary, 0)                                                                          \
    X(mul, ftr__cpu_binary, 0)                                                                          \
    X(div, ftr__cpu_binary, 0)                                                                          \
    X(pow, ftr__cpu_binary, 0)                                                                          \
    X(maximum, ftr__cpu_binary, 0)                                                                      \
    X(eq, ftr__cpu_compare, 0)                                                                          \
    X(ne, ftr__cpu_compare, 0)                                                                          \
    X(lt, ftr__cpu_compare, 0)                                                                          \
    X(le, ftr__cpu_compare, 0)                                                                          \
    X(gt, ftr__cpu_compare, 0)                                                                          \
    X(ge, ftr__cpu_compare, 0)                                                                          \
    X(where, ftr__cpu_where, 0)                                                                         \
    X(neg, ftr__cpu_unary, 0)                                                                           \
    X(exp, ftr__cpu_unary, 0)                                                                           \
    X(log, ftr__cpu_unary, 0)                                                                           \
    X(sqrt, ftr__cpu_unary, 0)                                                                          \
    X(rsqrt, ftr__cpu_unary, 0)                                                                         \
    X(tanh, ftr__cpu_unary, 0)                                                                          \
    X(sigmoid, ftr__cpu_unary, 0)                                                                       \
    X(relu, ftr__cpu_unary, 0)                                                                          \
    X(minimum, ftr__cpu_binary, 0)                                                                      \
    X(abs, ftr__cpu_plain, 0)                                                                           \
    X(sign, ftr__cpu_plain, 0)                                                                          \
    X(sin, ftr__cpu_plain, 0)                                                                           \
    X(cos, ftr__cpu_plain, 0)                                                                           \
    X(floor, ftr__cpu_plain, 0)                                                                         \
    X(round, ftr__cpu_plain, 0)                                                                         \
    X(erf, ftr__cpu_activation, 0)                                                                      \
    X(clamp, ftr__cpu_activation, 0)                                                                    \
    X(gelu, ftr__cpu_activation, 0)                                                                     \
    X(silu, ftr__cpu_activation, 0)                                                                     \
    X(hardswish, ftr__cpu_activation, 0)                                                                \
    X(hardsigmoid, ftr__cpu_activation, 0)                                                              \
    X(leaky_relu, ftr__cpu_activation, 0)                                                               \
    X(elu, ftr__cpu_activation, 0)                                                                      \
    X(softplus, ftr__cpu_activation, 0)                                                                 \
    X(clamp_grad, ftr__cpu_activation_slope, 0)                                                         \
    X(gelu_grad, ftr__cpu_activation_slope, 0)                                                          \
    X(silu_grad, ftr__cpu_activation_slope, 0)                                                          \
    X(hardswish_grad, ftr__cpu_activation_slope, 0)                                                     \
    X(leaky_relu_grad, ftr__cpu_activation_slope, 0)                                                    \
    X(elu_grad, ftr__cpu_activation_slope, 0)                                                           \
    X(softplus_grad, ftr__cpu_activation_slope, 0)                                                      \
    X(stop_gradient, ftr__cpu_reshape, 0)                                                               \
    X(cast, ftr__cpu_cast, 0)                                                                           \
    X(tanh_grad, ftr__cpu_activation_grad, 0)                                                           \
    X(sigmoid_grad, ftr__cpu_activation_grad, 0)                                                        \
    X(relu_grad, ftr__cpu_activation_grad, 0)                                                           \
    /* reduce.c */                                                                                               \
    X(sum, ftr__cpu_reduce, ftr__cpu_reduce_workspace)                                                  \
    X(mean, ftr__cpu_reduce, ftr__cpu_reduce_workspace)                                                 \
    X(max, ftr__cpu_reduce, ftr__cpu_reduce_workspace)                                                  \
    X(argmax, ftr__cpu_argmax, 0)                                                                       \
    /* matmul.c */                                                                                               \
    X(matmul, ftr__cpu_matmul, ftr__cpu_matmul_workspace)                                               \
    X(linear, ftr__cpu_linear, ftr__cpu_linear_workspace)                                               \
    /* conv.c */                                                                                                 \
    X(conv2d, ftr__cpu_conv2d, ftr__cpu_conv2d_workspace)                                               \
    X(conv2d_grad_input, ftr__cpu_conv2d_grad_input, ftr__cpu_conv2d_grad_input_workspace)              \
    X(conv2d_grad_weight, ftr__cpu_conv2d_grad_weight, ftr__cpu_conv2d_grad_weight_workspace)           \
    /* norm.c */                                                                                                 \
    X(batch_norm, ftr__cpu_batch_norm, ftr__cpu_batch_norm_workspace)                                   \
    X(batch_norm_grad, ftr__cpu_batch_norm_grad, ftr__cpu_batch_norm_grad_workspace)                    \
    /* row_norm.c */                                                                                             \
    X(layer_norm, ftr__cpu_row_norm, 0)                                                                 \
    X(layer_norm_grad, ftr__cpu_row_norm_grad, ftr__cpu_row_norm_grad_workspace)                        \
    X(rms_norm, ftr__cpu_row_norm, 0)                                                                   \
    X(rms_norm_grad, ftr__cpu_row_norm_grad, ftr__cpu_row_norm_grad_workspace)                          \
    X(group_norm, ftr__cpu_group_norm, ftr__cpu_group_norm_workspace)                                   \
    X(group_norm_grad, ftr__cpu_group_norm_grad, ftr__cpu_group_norm_grad_workspace)                    \
    /* pool.c */                                                                                                 \
    X(max_pool2d, ftr__cpu_max_pool2d, 0)                                                               \
    X(max_pool2d_grad, ftr__cpu_max_pool2d_grad, 0)                                                     \
    X(avg_pool2d, ftr__cpu_avg_pool2d, 0)                                                               \
    X(avg_pool2d_grad, ftr__cpu_avg_pool2d_grad, 0)                                                     \
    /* random.c */                                                                                               \
    X(dropout, ftr__cpu_dropout, 0)                                                                     \
    X(stochastic_depth, ftr__cpu_stochastic_depth, 0)                                                   \
    X(random_uniform, ftr__cpu_random, 0)                                                               \
    X(random_normal, ftr__cpu_random, 0)                                                                \
    /* attention.c */                                                                                            \
    X(attention, ftr__cpu_attention, ftr__cpu_attention_workspace)                                      \
    X(attention_grad, ftr__cpu_attention_grad, ftr__cpu_attention_grad_workspace)                       \
    X(rotary, ftr__cpu_rotary, ftr__cpu_rotary_workspace)                                               \
    /* shape.c */                                                                                                \
    X(reshape, ftr__cpu_reshape, 0)                                                                     \
    X(expand, ftr__cpu_expand, 0)                                                                       \
    X(transpose, ftr__cpu_transpose, 0)                                                                 \
    X(concat, ftr__cpu_concat, 0)                                                                       \
    X(slice, ftr__cpu_slice, 0)                                                                         \
    X(slice_grad, ftr__cpu_slice_grad, 0)                                                               \
    X(pad, ftr__cpu_pad, 0)                                                                             \
    /* loss.c */                                                                                                 \
    X(softmax, ftr__cpu_softmax, 0)                                                                     \
    X(softmax_grad, ftr__cpu_softmax_grad, 0)                                                           \
    X(log_softmax, ftr__cpu_softmax, 0)                                                                 \
    X(log_softmax_grad, ftr__cpu_softmax_grad, 0)                                                       \
    X(cross_entropy, ftr__cpu_cross_entropy, ftr__cpu_cross_entropy_workspace)                          \
    X(cross_entropy_grad, ftr__cpu_cross_entropy_grad, 0)                                               \
    X(nll, ftr__cpu_cross_entropy, ftr__cpu_cross_entropy_workspace)                                    \
    X(nll_grad, ftr__cpu_cross_entropy_grad, 0)                                                         \
    /* index.c */                                                                                       \
    X(embedding, ftr__cpu_embedding, ftr__cpu_embedding_workspace)                                      \
    X(embedding_grad, ftr__cpu_embedding_grad, ftr__cpu_embedding_grad_workspace)                       \
    X(gather, ftr__cpu_gather, ftr__cpu_gather_workspace)                                               \
    X(scatter_add, ftr__cpu_scatter_add, ftr__cpu_scatter_add_workspace)                                \
    X(one_hot, ftr__cpu_one_hot, ftr__cpu_one_hot_workspace)                                            \
    X(topk, ftr__cpu_topk, 0)                                                                           \
    /* scan.c */                                                                                        \
    X(cumsum, ftr__cpu_cumsum, 0)                                                                       \
    X(prod, ftr__cpu_prod, 0)                                                                           \
    X(prod_grad, ftr__cpu_prod_grad, 0)                                                                 \
    X(logsumexp, ftr__cpu_logsumexp, 0)                                                                 \
    X(logsumexp_grad, ftr__cpu_logsumexp_grad, 0)                                                       \
    /* update.c */                                                                                               \
    X(ema_update, ftr__cpu_ema_update, 0)                                                               \
    X(count_update, ftr__cpu_count_update, 0)                                                           \
    X(sgd_update, ftr__cpu_sgd_update, 0)                                                               \
    X(adamw_update, ftr__cpu_adamw_update, 0)

#define FTR__CPU_RUN(name) FTR_LIB ftr_status name(const ftr_kernel_call *call);
#define FTR__CPU_WORKSPACE(name) FTR_LIB size_t name(const ftr_kernel_call *call);

FTR__CPU_RUN(ftr__cpu_binary)
FTR__CPU_RUN(ftr__cpu_compare)
FTR__CPU_RUN(ftr__cpu_where)
FTR__CPU_RUN(ftr__cpu_unary)
FTR__CPU_RUN(ftr__cpu_cast)
FTR__CPU_RUN(ftr__cpu_activation_grad)
FTR__CPU_RUN(ftr__cpu_plain)
FTR__CPU_RUN(ftr__cpu_activation)
FTR__CPU_RUN(ftr__cpu_activation_slope)
FTR__CPU_RUN(ftr__cpu_reduce)
FTR__CPU_WORKSPACE(ftr__cpu_reduce_workspace)
FTR__CPU_RUN(ftr__cpu_argmax)
FTR__CPU_RUN(ftr__cpu_matmul)
FTR__CPU_WORKSPACE(ftr__cpu_matmul_workspace)
FTR__CPU_RUN(ftr__cpu_linear)
FTR__CPU_WORKSPACE(ftr__cpu_linear_workspace)
FTR__CPU_RUN(ftr__cpu_conv2d)
FTR__CPU_WORKSPACE(ftr__cpu_conv2d_workspace)
FTR__CPU_RUN(ftr__cpu_conv2d_grad_input)
FTR__CPU_WORKSPACE(ftr__cpu_conv2d_grad_input_workspace)
FTR__CPU_RUN(ftr__cpu_conv2d_grad_weight)
FTR__CPU_WORKSPACE(ftr__cpu_conv2d_grad_weight_workspace)
FTR__CPU_RUN(ftr__cpu_batch_norm)
FTR__CPU_WORKSPACE(ftr__cpu_batch_norm_workspace)
FTR__CPU_RUN(ftr__cpu_batch_norm_grad)
FTR__CPU_WORKSPACE(ftr__cpu_batch_norm_grad_workspace)
FTR__CPU_RUN(ftr__cpu_row_norm)
FTR__CPU_RUN(ftr__cpu_row_norm_grad)
FTR__CPU_WORKSPACE(ftr__cpu_row_norm_grad_workspace)
FTR__CPU_RUN(ftr__cpu_group_norm)
FTR__CPU_WORKSPACE(ftr__cpu_group_norm_workspace)
FTR__CPU_RUN(ftr__cpu_group_norm_grad)
FTR__CPU_WORKSPACE(ftr__cpu_group_norm_grad_workspace)
FTR__CPU_RUN(ftr__cpu_max_pool2d)
FTR__CPU_RUN(ftr__cpu_max_pool2d_grad)
FTR__CPU_RUN(ftr__cpu_avg_pool2d)
FTR__CPU_RUN(ftr__cpu_avg_pool2d_grad)
FTR__CPU_RUN(ftr__cpu_dropout)
FTR__CPU_RUN(ftr__cpu_stochastic_depth)
FTR__CPU_RUN(ftr__cpu_random)
FTR__CPU_RUN(ftr__cpu_attention)
FTR__CPU_WORKSPACE(ftr__cpu_attention_workspace)
FTR__CPU_RUN(ftr__cpu_attention_grad)
FTR__CPU_WORKSPACE(ftr__cpu_attention_grad_workspace)
FTR__CPU_RUN(ftr__cpu_rotary)
FTR__CPU_WORKSPACE(ftr__cpu_rotary_workspace)
FTR__CPU_RUN(ftr__cpu_reshape)
FTR__CPU_RUN(ftr__cpu_expand)
FTR__CPU_RUN(ftr__cpu_transpose)
FTR__CPU_RUN(ftr__cpu_concat)
FTR__CPU_RUN(ftr__cpu_slice)
FTR__CPU_RUN(ftr__cpu_slice_grad)
FTR__CPU_RUN(ftr__cpu_pad)
FTR__CPU_RUN(ftr__cpu_softmax)
FTR__CPU_RUN(ftr__cpu_softmax_grad)
FTR__CPU_RUN(ftr__cpu_cross_entropy)
FTR__CPU_WORKSPACE(ftr__cpu_cross_entropy_workspace)
FTR__CPU_RUN(ftr__cpu_cross_entropy_grad)
FTR__CPU_RUN(ftr__cpu_embedding)
FTR__CPU_WORKSPACE(ftr__cpu_embedding_workspace)
FTR__CPU_RUN(ftr__cpu_embedding_grad)
FTR__CPU_WORKSPACE(ftr__cpu_embedding_grad_workspace)
FTR__CPU_RUN(ftr__cpu_gather)
FTR__CPU_WORKSPACE(ftr__cpu_gather_workspace)
FTR__CPU_RUN(ftr__cpu_scatter_add)
FTR__CPU_WORKSPACE(ftr__cpu_scatter_add_workspace)
FTR__CPU_RUN(ftr__cpu_one_hot)
FTR__CPU_WORKSPACE(ftr__cpu_one_hot_workspace)
FTR__CPU_RUN(ftr__cpu_topk)
FTR__CPU_RUN(ftr__cpu_cumsum)
FTR__CPU_RUN(ftr__cpu_prod)
FTR__CPU_RUN(ftr__cpu_prod_grad)
FTR__CPU_RUN(ftr__cpu_logsumexp)
FTR__CPU_RUN(ftr__cpu_logsumexp_grad)
FTR__CPU_RUN(ftr__cpu_ema_update)
FTR__CPU_RUN(ftr__cpu_count_update)
FTR__CPU_RUN(ftr__cpu_sgd_update)
FTR__CPU_RUN(ftr__cpu_adamw_update)

/* ---- src/backend/cpu/gemm.h ---- */
/* The driver of the matrix product: c[b] = a[b] * b[b] for each b of a batch, packed, blocked for the caches and cut into
 * tasks. Convolutions and their gradients are products whose operands are gathered while they are packed. Blocking as in
 * Goto, van de Geijn: Anatomy of High-Performance Matrix Multiplication, ACM TOMS 34(3), 2008; A read through pointers
 * as in Dukhan: The Indirect Convolution Algorithm, 2019. */

/* An operand: A has m "lines", its rows; B has n, its columns. Each line has k elements. `rows` or `pack` is set.
 *
 * rows  the elements of a line lie together, in runs of `segment` elements (a tap of a convolution, or the whole line):
 *       to[s * width + i] = where run first_segment + s of line first + i starts, for s < segments and i < count.
 *       B has one run, the whole line
 * pack  to[k' * width + i] = element k + k' of line first + i, for k' < depth and i < count; 0 for i >= count */
typedef struct ftr__gemm_operand {
    const void *source;
    int64_t segment;
    void (*rows)(const void *source, int64_t batch, int64_t first, int64_t count, int64_t first_segment,
                 int64_t segments, int64_t width, const float **to);
    void (*pack)(const void *source, int64_t batch, int64_t first, int64_t count, int64_t width, int64_t k,
                 int64_t depth, float *to);
    /* B only, may be NULL: elements of k, lines first .. lie together here, those of k + 1 `stride` further on. */
    const float *(*at)(const void *source, int64_t batch, int64_t k, int64_t first);
    int64_t stride;
} ftr__gemm_operand;

typedef struct ftr__gemm {
    int64_t batch, m, n, k;
    ftr__gemm_operand a, b;

    /* The result: row i of batch b at c + b * c_batch + i * c_stride, or where c_rows says. */
    float *c;
    int64_t c_batch, c_stride;
    float *(*c_row)(const void *source, int64_t batch, int64_t row);
    const void *c_source;

    const float *bias; /* n, or batch * n when there is one for each; NULL */
    bool bias_batch;
    ftr_activation activation;
    bool
        split; /* k may be cut: the result is then dense (c_stride == n, c_batch == m * n), without bias and activation */
} ftr__gemm;

/* Bytes that ftr__gemm_run() needs. Depends on sizes, operand kinds and threads, not on data pointers. */
FTR_LIB size_t ftr__gemm_workspace(const ftr__cpu *cpu, const ftr__gemm *gemm);
FTR_LIB void ftr__gemm_run(const ftr__cpu *cpu, const ftr__gemm *gemm, void *workspace);

/* Operands in memory, as lines of k elements. */
typedef struct ftr__gemm_matrix {
    const float *data;
    int64_t batch;  /* elements from one matrix to the next */
    int64_t stride; /* elements from one line to the next (k together), or from one k to the next (lines together) */
    const int64_t *batch_offset; /* instead of `batch`, or NULL */
} ftr__gemm_matrix;

FTR_LIB ftr__gemm_operand ftr__gemm_k_together(const ftr__gemm_matrix *matrix, int64_t k);
FTR_LIB ftr__gemm_operand ftr__gemm_lines_together(const ftr__gemm_matrix *matrix);

/* For packing: to[k * width + i] = from[k * stride + i], or 0, for k < depth and i < count. */
FTR_LIB void ftr__gemm_copy(int64_t depth, int64_t count, int64_t width, const float *from, int64_t stride, float *to);
FTR_LIB void ftr__gemm_clear(int64_t depth, int64_t count, int64_t width, float *to);

/* Rounds a workspace part up, so that the next one is aligned. */
static inline size_t ftr__gemm_align(size_t bytes) {
    return (bytes + FTR__ALIGNMENT - 1) & ~(size_t)(FTR__ALIGNMENT - 1);
}

static inline int64_t ftr__gemm_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t ftr__gemm_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ftr__gemm_ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* ---- src/backend/cpu/conv.h ---- */
/* What the convolution kernels share. */

/* Sizes of a convolution, the same for the op and its gradients. Pairs are height, width. */
typedef struct ftr__conv {
    int64_t n, in[2], out[2], c, o; /* x is [n, in, c], y is [n, out, o] */
    int64_t kernel[2], stride[2], dilation[2], before[2];
    int64_t groups, cg, og, taps;
} ftr__conv;

/* Whether depthwise.c is the one to compute it: few channels a group. */
FTR_LIB bool ftr__conv_is_depthwise(const ftr__conv *v);

/* For such a convolution: the op or its gradient of the input, and the gradient of the weight. */
FTR_LIB size_t ftr__depthwise_workspace(const ftr_kernel_call *call, const ftr__conv *v, bool gradient);
FTR_LIB void ftr__depthwise(const ftr_kernel_call *call, const ftr__conv *v, bool gradient);
FTR_LIB size_t ftr__depthwise_weight_workspace(const ftr_kernel_call *call, const ftr__conv *v);
FTR_LIB void ftr__depthwise_weight_gradient(const ftr_kernel_call *call, const ftr__conv *v);

static inline int64_t ftr__conv_gcd(int64_t a, int64_t b) {
    while (b) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* ---- src/backend/cpu/simd.c ---- */

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define FTR__SIMD_LEVEL 0
#define FTR__TEMPLATE_PASS 1
#include FASTTRAIN_SELF
#undef FTR__TEMPLATE_PASS
#undef FTR__SIMD_LEVEL

#if defined(__aarch64__)
#define FTR__SIMD_LEVEL 1
#define FTR__TEMPLATE_PASS 1
#include FASTTRAIN_SELF
#undef FTR__TEMPLATE_PASS
#undef FTR__SIMD_LEVEL
#endif

#if defined(__x86_64__)
#define FTR__SIMD_LEVEL 2
#define FTR__TEMPLATE_PASS 1
#include FASTTRAIN_SELF
#undef FTR__TEMPLATE_PASS
#undef FTR__SIMD_LEVEL
#define FTR__SIMD_LEVEL 3
#define FTR__TEMPLATE_PASS 1
#include FASTTRAIN_SELF
#undef FTR__TEMPLATE_PASS
#undef FTR__SIMD_LEVEL
#endif

const ftr__simd *ftr__simd_table(ftr__simd_level level) {
    switch (level) {
    case FTR__SIMD_PORTABLE: return &ftr__simd_portable;
#if defined(__aarch64__)
    case FTR__SIMD_NEON: return &ftr__simd_neon;
#endif
#if defined(__x86_64__)
    case FTR__SIMD_AVX2: return &ftr__simd_avx2;
    case FTR__SIMD_AVX512: return &ftr__simd_avx512;
#endif
    default: return NULL;
    }
}

/* ---- src/backend/cpu/cpu.c ---- */

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

/* ---- src/backend/cpu/pointwise.c ---- */
/* Pointwise kernels. Shapes are brought to one form first: neighbouring dimensions that broadcast alike are merged,
 * so that the usual cases (equal shapes, a scalar, a vector per row) are one or two loops over long rows. */

#define FTR__POINTWISE_GRAIN 16384 /* elements of a task */
#define FTR__POINTWISE_INPUTS 3

/* Rows of `n` elements. Within a row an input's stride is 0 or 1; from row to row it follows the outer dimensions. */
typedef struct ftr__broadcast {
    int64_t n, rows;
    int64_t chunks;        /* of a row, if a row is longer than a task */
    int64_t rows_per_task; /* if it is shorter */
    int64_t tasks;
    int32_t inputs, outer;
    int64_t dim[FTR_MAX_RANK];
    int64_t stride[FTR__POINTWISE_INPUTS][FTR_MAX_RANK];
    int64_t inner[FTR__POINTWISE_INPUTS];
} ftr__broadcast;

/* Stride of each dimension of `shape` of an input, in the input: 0 where it is stretched. */
static void ftr__broadcast_strides(const ftr_view *in, const ftr_shape *shape, int64_t *stride) {
    int64_t step = 1;
    for (int32_t d = shape->rank - 1; d >= 0; d--) {
        const int32_t from = d - (shape->rank - in->shape.rank);
        const int64_t size = from >= 0 ? in->shape.dim[from] : 1;
        stride[d] = size == 1 ? 0 : step;
        step *= size;
    }
}

static void ftr__broadcast_tasks(ftr__broadcast *b) {
    b->rows = 1;
    for (int32_t d = 0; d < b->outer; d++) b->rows *= b->dim[d];
    b->chunks = b->n > FTR__POINTWISE_GRAIN ? (b->n + FTR__POINTWISE_GRAIN - 1) / FTR__POINTWISE_GRAIN : 1;
    b->rows_per_task = b->chunks > 1 || b->n == 0 ? 1 : FTR__POINTWISE_GRAIN / b->n;
    b->tasks = b->n == 0 ? 0 : (b->rows + b->rows_per_task - 1) / b->rows_per_task * b->chunks;
}

static void ftr__broadcast_plan(ftr__broadcast *b, const ftr_kernel_call *call) {
    const ftr_shape *shape = &call->out[0].shape;
    int64_t full[FTR__POINTWISE_INPUTS][FTR_MAX_RANK];
    int32_t count = 0;
    *b = (ftr__broadcast){.inputs = call->in_count};
    for (int32_t i = 0; i < b->inputs; i++) ftr__broadcast_strides(&call->in[i], shape, full[i]);
    for (int32_t d = 0; d < shape->rank; d++) {
        if (shape->dim[d] == 1) continue;
        bool merge = count > 0;
        for (int32_t i = 0; i < b->inputs && merge; i++) merge = b->stride[i][count - 1] == full[i][d] * shape->dim[d];
        if (!merge) count++;
        b->dim[count - 1] = merge ? b->dim[count - 1] * shape->dim[d] : shape->dim[d];
        for (int32_t i = 0; i < b->inputs; i++) b->stride[i][count - 1] = full[i][d];
    }
    b->n = count > 0 ? b->dim[count - 1] : 1;
    b->outer = count > 0 ? count - 1 : 0;
    for (int32_t i = 0; i < b->inputs; i++) b->inner[i] = count > 0 ? b->stride[i][count - 1] : 0;
    if (call->out[0].count == 0) b->n = 0;
    ftr__broadcast_tasks(b);
}

/* Where row `row` begins in each input. */
static void ftr__broadcast_row(const ftr__broadcast *b, int64_t row, int64_t *offset) {
    for (int32_t i = 0; i < b->inputs; i++) offset[i] = 0;
    for (int32_t d = b->outer - 1; d >= 0; d--) {
        const int64_t at = row % b->dim[d];
        row /= b->dim[d];
        for (int32_t i = 0; i < b->inputs; i++) offset[i] += at * b->stride[i][d];
    }
}

typedef struct ftr__pointwise_job ftr__pointwise_job;

/* Computes n elements; in[i] and out point at the first; in[i] is one element if its inner stride is 0. */
typedef void (*ftr__pointwise_row_fn)(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out);

struct ftr__pointwise_job {
    ftr__broadcast plan;
    const ftr_kernel_call *call;
    ftr__pointwise_row_fn row;
    const ftr__simd_math *math;
    size_t in_size[FTR__POINTWISE_INPUTS], out_size;
};

static void ftr__pointwise_part(const ftr__pointwise_job *job, int64_t row, int64_t begin, int64_t n) {
    const ftr__broadcast *b = &job->plan;
    int64_t offset[FTR__POINTWISE_INPUTS];
    const void *in[FTR__POINTWISE_INPUTS];
    ftr__broadcast_row(b, row, offset);
    for (int32_t i = 0; i < b->inputs; i++)
        in[i] = (const char *)job->call->in[i].data + (size_t)(offset[i] + begin * b->inner[i]) * job->in_size[i];
    job->row(job, n, in, (char *)job->call->out[0].data + (size_t)(row * b->n + begin) * job->out_size);
}

static void ftr__pointwise_task(void *arg, int64_t task, int32_t worker) {
    const ftr__pointwise_job *job = arg;
    const ftr__broadcast *b = &job->plan;
    (void)worker;
    if (b->chunks > 1) {
        const int64_t begin = task % b->chunks * FTR__POINTWISE_GRAIN;
        const int64_t n = b->n - begin < FTR__POINTWISE_GRAIN ? b->n - begin : FTR__POINTWISE_GRAIN;
        ftr__pointwise_part(job, task / b->chunks, begin, n);
        return;
    }
    const int64_t first = task * b->rows_per_task;
    const int64_t last = b->rows - first < b->rows_per_task ? b->rows : first + b->rows_per_task;
    for (int64_t row = first; row < last; row++) ftr__pointwise_part(job, row, 0, b->n);
}

static ftr_status ftr__pointwise_run(const ftr_kernel_call *call, ftr__pointwise_row_fn row) {
    ftr__pointwise_job job = {.call = call, .row = row, .math = &ftr__cpu_of(call)->simd->math};
    ftr__broadcast_plan(&job.plan, call);
    for (int32_t i = 0; i < call->in_count; i++) job.in_size[i] = ftr_dtype_size(call->in[i].dtype);
    job.out_size = ftr_dtype_size(call->out[0].dtype);
    ftr__pool_run(ftr__cpu_of(call)->pool, job.plan.tasks, ftr__pointwise_task, &job);
    return FTR_OK;
}

static ftr_status ftr__pointwise_dtype_error(const ftr_kernel_call *call, ftr_dtype dtype) {
    return ftr_backend_error(call, FTR_ERROR_UNSUPPORTED, "the CPU backend has no kernel for %s",
                             ftr_dtype_name(dtype));
}

/* ---------------------------------------------------------------------------------------------------- arithmetic -- */

static void ftr__binary_row_f32(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const ftr__simd_operands operands = job->plan.inner[0] == job->plan.inner[1] ? FTR__OPERANDS_ROWS
                                        : job->plan.inner[1] == 0                ? FTR__OPERANDS_RIGHT_SCALAR
                                                                                 : FTR__OPERANDS_LEFT_SCALAR;
    ftr__simd_binary op;
    switch (job->call->op) {
    case FTR_OP_add: op = FTR__BINARY_ADD; break;
    case FTR_OP_sub: op = FTR__BINARY_SUB; break;
    case FTR_OP_mul: op = FTR__BINARY_MUL; break;
    case FTR_OP_div: op = FTR__BINARY_DIV; break;
    case FTR_OP_minimum: op = FTR__BINARY_MINIMUM; break;
    default: op = FTR__BINARY_MAXIMUM; break;
    }
    job->math->binary[op][operands](n, in[0], in[1], out);
}

static void ftr__pow_row(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const float *a = in[0], *b = in[1];
    const int64_t sa = job->plan.inner[0], sb = job->plan.inner[1];
    float *y = out;
    for (int64_t i = 0; i < n; i++) y[i] = powf(a[i * sa], b[i * sb]);
}

/* A loop for each op over integers; sums and products are computed unsigned, where overflow wraps. */
#define FTR__INTEGER_CASE(op, result)                                                                                  \
    case FTR_OP_##op:                                                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                                              \
            const type_t x = a[i * sa], z = b[i * sb];                                                                 \
            y[i] = result;                                                                                             \
        }                                                                                                              \
        break

static void ftr__binary_row_i32(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    typedef int32_t type_t;
    const type_t *a = in[0], *b = in[1];
    const int64_t sa = job->plan.inner[0], sb = job->plan.inner[1];
    type_t *y = out;
    switch (job->call->op) {
        FTR__INTEGER_CASE(add, (type_t)((uint32_t)x + (uint32_t)z));
        FTR__INTEGER_CASE(sub, (type_t)((uint32_t)x - (uint32_t)z));
        FTR__INTEGER_CASE(mul, (type_t)((uint32_t)x * (uint32_t)z));
        FTR__INTEGER_CASE(div, z == 0 ? 0 : z == -1 ? (type_t)(0u - (uint32_t)x) : x / z);
        FTR__INTEGER_CASE(maximum, x > z ? x : z);
        FTR__INTEGER_CASE(minimum, x < z ? x : z);
    default: break;
    }
}

static void ftr__binary_row_i64(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    typedef int64_t type_t;
    const type_t *a = in[0], *b = in[1];
    const int64_t sa = job->plan.inner[0], sb = job->plan.inner[1];
    type_t *y = out;
    switch (job->call->op) {
        FTR__INTEGER_CASE(add, (type_t)((uint64_t)x + (uint64_t)z));
        FTR__INTEGER_CASE(sub, (type_t)((uint64_t)x - (uint64_t)z));
        FTR__INTEGER_CASE(mul, (type_t)((uint64_t)x * (uint64_t)z));
        FTR__INTEGER_CASE(div, z == 0 ? 0 : z == -1 ? (type_t)(0u - (uint64_t)x) : x / z);
        FTR__INTEGER_CASE(maximum, x > z ? x : z);
        FTR__INTEGER_CASE(minimum, x < z ? x : z);
    default: break;
    }
}

ftr_status ftr__cpu_binary(const ftr_kernel_call *call) {
    const ftr_dtype dtype = call->in[0].dtype;
    if (dtype == FTR_F32) return ftr__pointwise_run(call, call->op == FTR_OP_pow ? ftr__pow_row : ftr__binary_row_f32);
    if (call->op != FTR_OP_pow) {
        if (dtype == FTR_I32) return ftr__pointwise_run(call, ftr__binary_row_i32);
        if (dtype == FTR_I64) return ftr__pointwise_run(call, ftr__binary_row_i64);
    }
    return ftr__pointwise_dtype_error(call, dtype);
}

/* --------------------------------------------------------------------------------------------------- comparisons -- */

#define FTR__COMPARE_CASE(op, relation)                                                                                \
    case FTR_OP_##op:                                                                                                  \
        for (int64_t i = 0; i < n; i++) y[i] = a[i * sa] relation b[i * sb];                                           \
        break

#define FTR__COMPARE_FUNCTION(name, type)                                                                              \
    static void name(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {                     \
        const type *a = in[0], *b = in[1];                                                                             \
        const int64_t sa = job->plan.inner[0], sb = job->plan.inner[1];                                                \
        uint8_t *y = out;                                                                                              \
        switch (job->call->op) {                                                                                       \
            FTR__COMPARE_CASE(eq, ==);                                                                                 \
            FTR__COMPARE_CASE(ne, !=);                                                                                 \
            FTR__COMPARE_CASE(lt, <);                                                                                  \
            FTR__COMPARE_CASE(le, <=);                                                                                 \
            FTR__COMPARE_CASE(gt, >);                                                                                  \
            FTR__COMPARE_CASE(ge, >=);                                                                                 \
        default: break;                                                                                                \
        }                                                                                                              \
    }

FTR__COMPARE_FUNCTION(ftr__compare_row_f32, float)
FTR__COMPARE_FUNCTION(ftr__compare_row_i32, int32_t)
FTR__COMPARE_FUNCTION(ftr__compare_row_i64, int64_t)
FTR__COMPARE_FUNCTION(ftr__compare_row_u8, uint8_t)

ftr_status ftr__cpu_compare(const ftr_kernel_call *call) {
    switch (call->in[0].dtype) {
    case FTR_F32: return ftr__pointwise_run(call, ftr__compare_row_f32);
    case FTR_I32: return ftr__pointwise_run(call, ftr__compare_row_i32);
    case FTR_I64: return ftr__pointwise_run(call, ftr__compare_row_i64);
    case FTR_U8:
    case FTR_BOOL: return ftr__pointwise_run(call, ftr__compare_row_u8);
    default: return ftr__pointwise_dtype_error(call, call->in[0].dtype);
    }
}

/* -------------------------------------------------------------------------------------------------------- choice -- */

#define FTR__WHERE_FUNCTION(name, type)                                                                                \
    static void name(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {                     \
        const uint8_t *condition = in[0];                                                                              \
        const type *a = in[1], *b = in[2];                                                                             \
        const int64_t sc = job->plan.inner[0], sa = job->plan.inner[1], sb = job->plan.inner[2];                       \
        type *y = out;                                                                                                 \
        for (int64_t i = 0; i < n; i++) y[i] = condition[i * sc] ? a[i * sa] : b[i * sb];                              \
    }

FTR__WHERE_FUNCTION(ftr__where_row_1, uint8_t)
FTR__WHERE_FUNCTION(ftr__where_row_f32, float)
FTR__WHERE_FUNCTION(ftr__where_row_i32, int32_t)
FTR__WHERE_FUNCTION(ftr__where_row_i64, int64_t)

ftr_status ftr__cpu_where(const ftr_kernel_call *call) {
    switch (call->out[0].dtype) {
    case FTR_F32: return ftr__pointwise_run(call, ftr__where_row_f32);
    case FTR_I32: return ftr__pointwise_run(call, ftr__where_row_i32);
    case FTR_I64: return ftr__pointwise_run(call, ftr__where_row_i64);
    case FTR_U8:
    case FTR_BOOL: return ftr__pointwise_run(call, ftr__where_row_1);
    default: return ftr__pointwise_dtype_error(call, call->out[0].dtype);
    }
}

/* --------------------------------------------------------------------------------------------------- one operand -- */

static void ftr__unary_row_f32(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    ftr__simd_unary op;
    switch (job->call->op) {
    case FTR_OP_neg: op = FTR__UNARY_NEG; break;
    case FTR_OP_exp: op = FTR__UNARY_EXP; break;
    case FTR_OP_log: op = FTR__UNARY_LOG; break;
    case FTR_OP_sqrt: op = FTR__UNARY_SQRT; break;
    case FTR_OP_rsqrt: op = FTR__UNARY_RSQRT; break;
    case FTR_OP_tanh: op = FTR__UNARY_TANH; break;
    case FTR_OP_sigmoid: op = FTR__UNARY_SIGMOID; break;
    default: op = FTR__UNARY_RELU; break;
    }
    job->math->unary[op](n, in[0], out);
}

static void ftr__integer_unary_row_i32(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const int32_t *x = in[0];
    int32_t *y = out;
    if (job->call->op == FTR_OP_neg)
        for (int64_t i = 0; i < n; i++) y[i] = (int32_t)(0u - (uint32_t)x[i]);
    else
        for (int64_t i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] : 0;
}

static void ftr__integer_unary_row_i64(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const int64_t *x = in[0];
    int64_t *y = out;
    if (job->call->op == FTR_OP_neg)
        for (int64_t i = 0; i < n; i++) y[i] = (int64_t)(UINT64_C(0) - (uint64_t)x[i]);
    else
        for (int64_t i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] : 0;
}

ftr_status ftr__cpu_unary(const ftr_kernel_call *call) {
    const ftr_dtype dtype = call->in[0].dtype;
    if (dtype == FTR_F32) return ftr__pointwise_run(call, ftr__unary_row_f32);
    if (call->op == FTR_OP_neg || call->op == FTR_OP_relu) {
        if (dtype == FTR_I32) return ftr__pointwise_run(call, ftr__integer_unary_row_i32);
        if (dtype == FTR_I64) return ftr__pointwise_run(call, ftr__integer_unary_row_i64);
    }
    return ftr__pointwise_dtype_error(call, dtype);
}

static void ftr__activation_grad_row(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const ftr__simd_activation_grad op = job->call->op == FTR_OP_tanh_grad      ? FTR__GRAD_TANH
                                         : job->call->op == FTR_OP_sigmoid_grad ? FTR__GRAD_SIGMOID
                                                                                : FTR__GRAD_RELU;
    job->math->activation_grad[op](n, in[0], in[1], out);
}

ftr_status ftr__cpu_activation_grad(const ftr_kernel_call *call) {
    if (call->in[0].dtype != FTR_F32) return ftr__pointwise_dtype_error(call, call->in[0].dtype);
    return ftr__pointwise_run(call, ftr__activation_grad_row);
}

/* Functions that memory bounds, or that libm does better: a plain loop for each. */
#define FTR__PLAIN_CASE(op, result)                                                                                    \
    case FTR_OP_##op:                                                                                                  \
        for (int64_t i = 0; i < n; i++) y[i] = result;                                                                 \
        break

static void ftr__plain_row_f32(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const float *x = in[0];
    float *y = out;
    switch (job->call->op) {
        FTR__PLAIN_CASE(abs, fabsf(x[i]));
        FTR__PLAIN_CASE(sign, (float)((x[i] > 0.0f) - (x[i] < 0.0f)));
        FTR__PLAIN_CASE(sin, sinf(x[i]));
        FTR__PLAIN_CASE(cos, cosf(x[i]));
        FTR__PLAIN_CASE(floor, floorf(x[i]));
        FTR__PLAIN_CASE(round, rintf(x[i]));
    default: break;
    }
}

static void ftr__plain_row_i32(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const int32_t *x = in[0];
    int32_t *y = out;
    switch (job->call->op) {
        FTR__PLAIN_CASE(abs, x[i] < 0 ? (int32_t)(0u - (uint32_t)x[i]) : x[i]);
        FTR__PLAIN_CASE(sign, (x[i] > 0) - (x[i] < 0));
    default: break;
    }
}

static void ftr__plain_row_i64(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const int64_t *x = in[0];
    int64_t *y = out;
    switch (job->call->op) {
        FTR__PLAIN_CASE(abs, x[i] < 0 ? (int64_t)(UINT64_C(0) - (uint64_t)x[i]) : x[i]);
        FTR__PLAIN_CASE(sign, (x[i] > 0) - (x[i] < 0));
    default: break;
    }
}

ftr_status ftr__cpu_plain(const ftr_kernel_call *call) {
    const ftr_dtype dtype = call->in[0].dtype;
    if (dtype == FTR_F32) return ftr__pointwise_run(call, ftr__plain_row_f32);
    if (call->op == FTR_OP_abs || call->op == FTR_OP_sign) {
        if (dtype == FTR_I32) return ftr__pointwise_run(call, ftr__plain_row_i32);
        if (dtype == FTR_I64) return ftr__pointwise_run(call, ftr__plain_row_i64);
    }
    return ftr__pointwise_dtype_error(call, dtype);
}

/* --------------------------------------------------------------------------------------------------- activations -- */

/* What computes an op, or the op of its gradient, and with which constants. */
typedef struct ftr__activation_call {
    ftr__simd_activation function;
    float a, b;
} ftr__activation_call;

static ftr__activation_call ftr__activation_function(const ftr_kernel_call *call) {
    const float a = (float)call->attr->pointwise.a, b = (float)call->attr->pointwise.b;
    switch (call->op) {
    case FTR_OP_gelu:
    case FTR_OP_gelu_grad: {
        const bool exact = call->attr->gelu.form == FTR_GELU_EXACT;
        return (ftr__activation_call){exact ? FTR__ACTIVATION_GELU : FTR__ACTIVATION_GELU_TANH, 0.0f, 0.0f};
    }
    case FTR_OP_silu:
    case FTR_OP_silu_grad: return (ftr__activation_call){FTR__ACTIVATION_SILU, 0.0f, 0.0f};
    case FTR_OP_hardswish:
    case FTR_OP_hardswish_grad: return (ftr__activation_call){FTR__ACTIVATION_HARDSWISH, 0.0f, 0.0f};
    case FTR_OP_hardsigmoid: return (ftr__activation_call){FTR__ACTIVATION_HARDSIGMOID, 0.0f, 0.0f};
    case FTR_OP_erf: return (ftr__activation_call){FTR__ACTIVATION_ERF, 0.0f, 0.0f};
    case FTR_OP_leaky_relu:
    case FTR_OP_leaky_relu_grad: return (ftr__activation_call){FTR__ACTIVATION_LEAKY_RELU, a, b};
    case FTR_OP_elu:
    case FTR_OP_elu_grad: return (ftr__activation_call){FTR__ACTIVATION_ELU, a, b};
    case FTR_OP_softplus:
    case FTR_OP_softplus_grad: return (ftr__activation_call){FTR__ACTIVATION_SOFTPLUS, a, b};
    default: return (ftr__activation_call){FTR__ACTIVATION_CLAMP, a, b};
    }
}

static void ftr__activation_row(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const ftr__activation_call use = ftr__activation_function(job->call);
    job->math->activation[use.function](n, in[0], use.a, use.b, out);
}

static void ftr__activation_slope_row(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {
    const ftr__activation_call use = ftr__activation_function(job->call);
    job->math->activation_slope[use.function](n, in[0], in[1], use.a, use.b, out);
}

ftr_status ftr__cpu_activation(const ftr_kernel_call *call) {
    if (call->in[0].dtype != FTR_F32) return ftr__pointwise_dtype_error(call, call->in[0].dtype);
    return ftr__pointwise_run(call, ftr__activation_row);
}

ftr_status ftr__cpu_activation_slope(const ftr_kernel_call *call) {
    if (call->in[0].dtype != FTR_F32) return ftr__pointwise_dtype_error(call, call->in[0].dtype);
    return ftr__pointwise_run(call, ftr__activation_slope_row);
}

/* --------------------------------------------------------------------------------------------------- conversions -- */

/* Truncates toward 0, saturates, NaN gives 0. The upper bounds are the powers of two behind the largest values. */
static inline int32_t ftr__f32_to_i32(float x) {
    return x != x ? 0 : x >= 2147483648.0f ? INT32_MAX : x < -2147483648.0f ? INT32_MIN : (int32_t)x;
}

static inline int64_t ftr__f32_to_i64(float x) {
    return x != x ? 0 : x >= 9223372036854775808.0f ? INT64_MAX : x < -9223372036854775808.0f ? INT64_MIN : (int64_t)x;
}

static inline uint8_t ftr__f32_to_u8(float x) { return x >= 256.0f ? 255 : x > 0.0f ? (uint8_t)x : 0; }

#define FTR__CAST_CASE(dtype, type, result)                                                                            \
    case dtype: {                                                                                                      \
        type *y = out;                                                                                                 \
        for (int64_t i = 0; i < n; i++) y[i] = result;                                                                 \
        break;                                                                                                         \
    }

/* Integers are narrowed modulo 2^bits, as C and PyTorch do. */
#define FTR__CAST_FUNCTION(name, from, to_i32, to_i64, to_u8)                                                          \
    static void name(const ftr__pointwise_job *job, int64_t n, const void *const *in, void *out) {                     \
        const from *x = in[0];                                                                                         \
        switch (job->call->out[0].dtype) {                                                                             \
            FTR__CAST_CASE(FTR_F32, float, (float)x[i])                                                                \
            FTR__CAST_CASE(FTR_I32, int32_t, to_i32(x[i]))                                                             \
            FTR__CAST_CASE(FTR_I64, int64_t, to_i64(x[i]))                                                             \
            FTR__CAST_CASE(FTR_U8, uint8_t, to_u8(x[i]))                                                               \
            FTR__CAST_CASE(FTR_BOOL, uint8_t, x[i] != 0)                                                               \
        default: break;                                                                                                \
        }                                                                                                              \
    }

FTR__CAST_FUNCTION(ftr__cast_row_f32, float, ftr__f32_to_i32, ftr__f32_to_i64, ftr__f32_to_u8)
FTR__CAST_FUNCTION(ftr__cast_row_i32, int32_t, (int32_t), (int64_t), (uint8_t))
FTR__CAST_FUNCTION(ftr__cast_row_i64, int64_t, (int32_t), (int64_t), (uint8_t))
FTR__CAST_FUNCTION(ftr__cast_row_u8, uint8_t, (int32_t), (int64_t), (uint8_t))

ftr_status ftr__cpu_cast(const ftr_kernel_call *call) {
    const ftr_dtype to = call->out[0].dtype;
    if (to == FTR_F64 || to == FTR_DTYPE_NONE) return ftr__pointwise_dtype_error(call, to);
    switch (call->in[0].dtype) {
    case FTR_F32: return ftr__pointwise_run(call, ftr__cast_row_f32);
    case FTR_I32: return ftr__pointwise_run(call, ftr__cast_row_i32);
    case FTR_I64: return ftr__pointwise_run(call, ftr__cast_row_i64);
    case FTR_U8:
    case FTR_BOOL: return ftr__pointwise_run(call, ftr__cast_row_u8);
    default: return ftr__pointwise_dtype_error(call, call->in[0].dtype);
    }
}

/* ---- src/backend/cpu/reduce.c ---- */
/* Reductions over any set of axes. Neighbouring axes of one kind are merged; what remains is, for each outer kept
 * index, a set of rows of `columns` neighbouring elements (1 if the last axis is reduced) that are combined column
 * by column. Long sets are cut into chunks whose partial results are combined in order, in double. */

#define FTR__REDUCE_TILE 256    /* columns of a task */
#define FTR__REDUCE_CHUNK 32768 /* elements of a chunk */
#define FTR__REDUCE_SPAN 2048   /* rows that are added in f32 at most */
#define FTR__REDUCE_GRAIN 16384

typedef union ftr__reduce_cell {
    double real;
    int64_t whole;
} ftr__reduce_cell;

typedef struct ftr__reduce_dim {
    int64_t size, stride;
} ftr__reduce_dim;

typedef struct ftr__reduce_plan {
    ftr__reduce_dim kept[FTR_MAX_RANK], reduced[FTR_MAX_RANK]; /* the outer ones */
    int32_t kept_count, reduced_count;
    int64_t outer;     /* product of the kept ones */
    int64_t neighbors; /* rows that follow each other in memory */
    int64_t rows;      /* combined into one */
    int64_t columns, tiles;
    int64_t chunks, rows_per_chunk;
    int64_t units_per_task; /* a unit is a tile of an outer index; more than 1 only without chunks */
} ftr__reduce_plan;

typedef struct ftr__reduce_job {
    ftr__reduce_plan plan;
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    ftr__reduce_cell *partial; /* [outer][chunks][columns] */
    bool maximum;
} ftr__reduce_job;

static void ftr__reduce_cut(ftr__reduce_plan *p) {
    const int64_t width = p->columns < FTR__REDUCE_TILE ? p->columns : FTR__REDUCE_TILE;
    p->tiles = (p->columns + FTR__REDUCE_TILE - 1) / FTR__REDUCE_TILE;
    p->rows_per_chunk = width > 0 ? FTR__REDUCE_CHUNK / width : 1;
    p->chunks = p->rows > 2 * p->rows_per_chunk ? (p->rows + p->rows_per_chunk - 1) / p->rows_per_chunk : 1;
    if (p->chunks == 1) p->rows_per_chunk = p->rows;
    p->units_per_task = 1;
    if (p->chunks == 1 && p->rows * width < FTR__REDUCE_GRAIN)
        p->units_per_task = FTR__REDUCE_GRAIN / (p->rows * width > 0 ? p->rows * width : 1);
}

static void ftr__reduce_make_plan(ftr__reduce_plan *p, const ftr_shape *shape, uint32_t mask) {
    ftr__reduce_dim merged[FTR_MAX_RANK];
    bool is_reduced[FTR_MAX_RANK];
    int32_t count = 0; /* innermost first */
    int64_t stride = 1;
    *p = (ftr__reduce_plan){.outer = 1, .neighbors = 1, .rows = 1, .columns = 1};
    for (int32_t d = shape->rank - 1; d >= 0; d--) {
        const bool reduced = (mask >> d & 1u) != 0;
        if (shape->dim[d] == 1) continue;
        if (count > 0 && is_reduced[count - 1] == reduced) {
            merged[count - 1].size *= shape->dim[d];
        } else {
            merged[count] = (ftr__reduce_dim){shape->dim[d], stride};
            is_reduced[count++] = reduced;
        }
        stride *= shape->dim[d];
    }
    int32_t at = 0;
    if (at < count && !is_reduced[at]) p->columns = merged[at++].size;
    if (at < count && is_reduced[at]) p->neighbors = merged[at++].size;
    p->rows = p->neighbors;
    for (; at < count; at++) {
        if (is_reduced[at]) {
            p->reduced[p->reduced_count++] = merged[at];
            p->rows *= merged[at].size;
        } else {
            p->kept[p->kept_count++] = merged[at];
            p->outer *= merged[at].size;
        }
    }
    ftr__reduce_cut(p);
}

static int64_t ftr__reduce_offset(const ftr__reduce_dim *dims, int32_t count, int64_t index) {
    int64_t offset = 0;
    for (int32_t i = 0; i < count; i++) {
        offset += index % dims[i].size * dims[i].stride;
        index /= dims[i].size;
    }
    return offset;
}

static void ftr__reduce_combine(const ftr__reduce_job *job, ftr__reduce_cell *into, ftr__reduce_cell value) {
    if (job->call->in[0].dtype == FTR_F32) {
        if (!job->maximum)
            into->real += value.real;
        else if (value.real > into->real || isnan(value.real))
            into->real = value.real;
    } else {
        if (!job->maximum)
            into->whole = (int64_t)((uint64_t)into->whole + (uint64_t)value.whole);
        else if (value.whole > into->whole)
            into->whole = value.whole;
    }
}

static ftr__reduce_cell ftr__reduce_identity(const ftr__reduce_job *job) {
    ftr__reduce_cell cell;
    if (job->call->in[0].dtype == FTR_F32)
        cell.real = job->maximum ? -(double)INFINITY : 0.0;
    else
        cell.whole = job->maximum ? INT64_MIN : 0;
    return cell;
}

/* Combines rows of `width` neighbouring columns, `columns` apart, into cells. */
static void ftr__reduce_span_f32(const ftr__reduce_job *job, int64_t offset, int64_t rows, int64_t width,
                                 ftr__reduce_cell *cells) {
    const float *x = (const float *)job->call->in[0].data + offset;
    float tile[FTR__REDUCE_TILE];
    if (job->plan.columns == 1) {
        const ftr__reduce_cell value = {.real = job->maximum ? (double)job->math->maximum(rows, x)
                                                             : job->math->sum(rows, x)};
        ftr__reduce_combine(job, cells, value);
        return;
    }
    while (rows > 0) {
        const int64_t part = rows < FTR__REDUCE_SPAN ? rows : FTR__REDUCE_SPAN;
        for (int64_t j = 0; j < width; j++) tile[j] = job->maximum ? -INFINITY : 0.0f;
        if (job->maximum)
            job->math->column_maximum(part, width, x, job->plan.columns, tile);
        else
            job->math->column_sum(part, width, x, job->plan.columns, tile);
        for (int64_t j = 0; j < width; j++)
            ftr__reduce_combine(job, &cells[j], (ftr__reduce_cell){.real = (double)tile[j]});
        x += part * job->plan.columns;
        rows -= part;
    }
}

static void ftr__reduce_span(const ftr__reduce_job *job, int64_t offset, int64_t rows, int64_t width,
                             ftr__reduce_cell *cells) {
    const ftr_view *in = &job->call->in[0];
    if (in->dtype == FTR_F32) {
        ftr__reduce_span_f32(job, offset, rows, width, cells);
        return;
    }
    for (int64_t r = 0; r < rows; r++, offset += job->plan.columns)
        for (int64_t j = 0; j < width; j++) {
            const int64_t value = in->dtype == FTR_I32 ? ((const int32_t *)in->data)[offset + j]
                                                       : ((const int64_t *)in->data)[offset + j];
            ftr__reduce_combine(job, &cells[j], (ftr__reduce_cell){.whole = value});
        }
}

/* Rows first to last (not included) of an outer index, a tile of columns from `column` on. */
static void ftr__reduce_rows(const ftr__reduce_job *job, int64_t outer, int64_t column, int64_t width, int64_t first,
                             int64_t last, ftr__reduce_cell *cells) {
    const ftr__reduce_plan *p = &job->plan;
    const int64_t base = ftr__reduce_offset(p->kept, p->kept_count, outer) + column;
    for (int64_t j = 0; j < width; j++) cells[j] = ftr__reduce_identity(job);
    while (first < last) {
        const int64_t inside = first % p->neighbors;
        const int64_t rows = p->neighbors - inside < last - first ? p->neighbors - inside : last - first;
        const int64_t offset = ftr__reduce_offset(p->reduced, p->reduced_count, first / p->neighbors);
        ftr__reduce_span(job, base + offset + inside * p->columns, rows, width, cells);
        first += rows;
    }
}

static void ftr__reduce_store(const ftr__reduce_job *job, int64_t at, ftr__reduce_cell cell) {
    const ftr_view *out = &job->call->out[0];
    if (job->call->op == FTR_OP_mean) cell.real /= (double)job->plan.rows;
    switch (out->dtype) {
    case FTR_F32: ((float *)out->data)[at] = (float)cell.real; break;
    case FTR_I32: ((int32_t *)out->data)[at] = (int32_t)cell.whole; break;
    default: ((int64_t *)out->data)[at] = cell.whole; break;
    }
}

static inline int64_t ftr__reduce_width(const ftr__reduce_plan *p, int64_t column) {
    return p->columns - column < FTR__REDUCE_TILE ? p->columns - column : FTR__REDUCE_TILE;
}

static void ftr__reduce_task(void *arg, int64_t task, int32_t worker) {
    const ftr__reduce_job *job = arg;
    const ftr__reduce_plan *p = &job->plan;
    ftr__reduce_cell cells[FTR__REDUCE_TILE];
    (void)worker;
    if (p->chunks > 1) {
        const int64_t chunk = task % p->chunks, unit = task / p->chunks;
        const int64_t outer = unit / p->tiles, column = unit % p->tiles * FTR__REDUCE_TILE;
        const int64_t first = chunk * p->rows_per_chunk;
        const int64_t last = p->rows - first < p->rows_per_chunk ? p->rows : first + p->rows_per_chunk;
        const int64_t width = ftr__reduce_width(p, column);
        ftr__reduce_rows(job, outer, column, width, first, last, cells);
        ftr__reduce_cell *to = job->partial + (outer * p->chunks + chunk) * p->columns + column;
        for (int64_t j = 0; j < width; j++) to[j] = cells[j];
        return;
    }
    const int64_t units = p->outer * p->tiles, begin = task * p->units_per_task;
    for (int64_t unit = begin; unit < units && unit < begin + p->units_per_task; unit++) {
        const int64_t outer = unit / p->tiles, column = unit % p->tiles * FTR__REDUCE_TILE;
        const int64_t width = ftr__reduce_width(p, column);
        ftr__reduce_rows(job, outer, column, width, 0, p->rows, cells);
        for (int64_t j = 0; j < width; j++) ftr__reduce_store(job, outer * p->columns + column + j, cells[j]);
    }
}

/* Combines the chunks of one tile, in order. */
static void ftr__reduce_combine_task(void *arg, int64_t task, int32_t worker) {
    const ftr__reduce_job *job = arg;
    const ftr__reduce_plan *p = &job->plan;
    const int64_t outer = task / p->tiles, column = task % p->tiles * FTR__REDUCE_TILE;
    const int64_t width = ftr__reduce_width(p, column);
    ftr__reduce_cell cells[FTR__REDUCE_TILE];
    (void)worker;
    for (int64_t j = 0; j < width; j++) cells[j] = ftr__reduce_identity(job);
    for (int64_t chunk = 0; chunk < p->chunks; chunk++) {
        const ftr__reduce_cell *from = job->partial + (outer * p->chunks + chunk) * p->columns + column;
        for (int64_t j = 0; j < width; j++) ftr__reduce_combine(job, &cells[j], from[j]);
    }
    for (int64_t j = 0; j < width; j++) ftr__reduce_store(job, outer * p->columns + column + j, cells[j]);
}

size_t ftr__cpu_reduce_workspace(const ftr_kernel_call *call) {
    ftr__reduce_plan p;
    ftr__reduce_make_plan(&p, &call->in[0].shape, call->attr->axes.mask);
    return p.chunks > 1 ? (size_t)(p.outer * p.chunks * p.columns) * sizeof(ftr__reduce_cell) : 0;
}

ftr_status ftr__cpu_reduce(const ftr_kernel_call *call) {
    if (call->out[0].count == 0) return FTR_OK;
    ftr__reduce_job job = {.call = call, .math = &ftr__cpu_of(call)->simd->math, .partial = call->workspace};
    ftr__reduce_make_plan(&job.plan, &call->in[0].shape, call->attr->axes.mask);
    job.maximum = call->op == FTR_OP_max;
    const ftr__reduce_plan *p = &job.plan;
    const int64_t units = p->outer * p->tiles;
    const int64_t tasks = p->chunks > 1 ? units * p->chunks : (units + p->units_per_task - 1) / p->units_per_task;
    ftr__pool_run(ftr__cpu_of(call)->pool, tasks, ftr__reduce_task, &job);
    if (p->chunks > 1) ftr__pool_run(ftr__cpu_of(call)->pool, units, ftr__reduce_combine_task, &job);
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------------------- argmax -- */

typedef struct ftr__argmax_job {
    const ftr_kernel_call *call;
    int64_t size, inner, count, per_task;
} ftr__argmax_job;

static int64_t ftr__argmax_f32(const float *x, int64_t size, int64_t stride) {
    int64_t best = 0;
    for (int64_t i = 1; i < size; i++) {
        const float value = x[i * stride], most = x[best * stride];
        if (value > most || (isnan(value) && !isnan(most))) best = i;
    }
    return best;
}

#define FTR__ARGMAX_FUNCTION(name, type)                                                                               \
    static int64_t name(const type *x, int64_t size, int64_t stride) {                                                 \
        int64_t best = 0;                                                                                              \
        for (int64_t i = 1; i < size; i++)                                                                             \
            if (x[i * stride] > x[best * stride]) best = i;                                                            \
        return best;                                                                                                   \
    }

FTR__ARGMAX_FUNCTION(ftr__argmax_i32, int32_t)
FTR__ARGMAX_FUNCTION(ftr__argmax_i64, int64_t)

static void ftr__argmax_task(void *arg, int64_t task, int32_t worker) {
    const ftr__argmax_job *job = arg;
    const ftr_view *in = &job->call->in[0];
    int64_t *out = job->call->out[0].data;
    const int64_t first = task * job->per_task;
    const int64_t last = job->count - first < job->per_task ? job->count : first + job->per_task;
    (void)worker;
    for (int64_t i = first; i < last; i++) {
        const int64_t at = i / job->inner * job->size * job->inner + i % job->inner;
        switch (in->dtype) {
        case FTR_F32: out[i] = ftr__argmax_f32((const float *)in->data + at, job->size, job->inner); break;
        case FTR_I32: out[i] = ftr__argmax_i32((const int32_t *)in->data + at, job->size, job->inner); break;
        default: out[i] = ftr__argmax_i64((const int64_t *)in->data + at, job->size, job->inner); break;
        }
    }
}

ftr_status ftr__cpu_argmax(const ftr_kernel_call *call) {
    const ftr_view *in = &call->in[0];
    int32_t axis = 0;
    while (axis < in->shape.rank - 1 && (call->attr->axes.mask >> axis & 1u) == 0) axis++;
    ftr__argmax_job job = {.call = call, .size = 1, .inner = 1, .count = call->out[0].count};
    if (axis < in->shape.rank) job.size = in->shape.dim[axis];
    for (int32_t d = axis + 1; d < in->shape.rank; d++) job.inner *= in->shape.dim[d];
    if (job.count == 0) return FTR_OK;
    job.per_task = 1 + FTR__REDUCE_GRAIN / (job.size > 0 ? job.size : 1);
    ftr__pool_run(ftr__cpu_of(call)->pool, (job.count + job.per_task - 1) / job.per_task, ftr__argmax_task, &job);
    return FTR_OK;
}

/* ---- src/backend/cpu/gemm.c ---- */

#define FTR__GEMM_KC 256              /* depth of a block: a panel of B fits the L1 cache */
#define FTR__GEMM_MC 192              /* rows of a task at most: a block of A fits the L2 cache */
#define FTR__GEMM_IN_PLACE 16         /* panels of B up to which A is read in place */
#define FTR__GEMM_SHARED (2 << 20)    /* floats of B packed at once */
#define FTR__GEMM_TASKS 16            /* wanted, so that threads end at about the same time */
#define FTR__GEMM_TASK_WORK (1 << 18) /* multiply-adds that a task should have */
#define FTR__GEMM_TILES 4             /* tiles of rows that a panel of B should meet */
#define FTR__GEMM_PIECE 512           /* least depth of a piece of k */

/* How a product is cut. All of it follows from the product and the tile, not from the threads. */
typedef struct ftr__gemm_plan {
    const ftr__gemm *gemm;
    const ftr__simd_gemm *simd;
    int64_t kc;     /* depth of a block */
    int64_t tm, tn; /* rows and columns of a task */
    int64_t mb, nb; /* tasks along m, and along the columns of a chunk */
    int64_t pieces; /* of k, each with a result of its own */
    int64_t piece;  /* depth of one */
    int64_t ks, nc; /* a chunk of B: ks deep, nc wide */
    bool shared;    /* a chunk of B is packed by all before the tasks start; otherwise tasks pack for themselves */
    bool in_place;  /* A is read through pointers */
    size_t worker;  /* bytes of scratch a worker: pointers, then a block of A, then a panel of B */
    size_t pointer_bytes, a_bytes;
    int64_t pointers_b; /* where B's pointers begin */
    size_t b_bytes;     /* the packed chunk */
    size_t piece_bytes; /* the pieces' results */
    /* the chunk at work */
    int64_t j0, j1, k0, k1;
    float *b_packed, *partial;
    unsigned char *scratch;
} ftr__gemm_plan;

/* Depth of a block: equal parts of k, or of a segment if that is long, or whole segments if they are short. */
static int64_t ftr__gemm_block_depth(const ftr__gemm *gemm) {
    const int64_t run = gemm->a.rows && gemm->a.segment > 0 ? gemm->a.segment : gemm->k;
    if (run >= FTR__GEMM_KC) return ftr__gemm_ceil(ftr__gemm_ceil(run, ftr__gemm_ceil(run, FTR__GEMM_KC)), 4) * 4;
    if (run <= 0) return 1;
    const int64_t runs = gemm->k / run, blocks = ftr__gemm_ceil(gemm->k, FTR__GEMM_KC);
    return ftr__gemm_max(ftr__gemm_ceil(runs, ftr__gemm_max(blocks, 1)) * run, 1);
}

/* Rows and columns of a task, in tiles. With B packed for all, short tasks along m cost nothing, but each task along n packs
 * its rows of A again; otherwise a task packs both and is better square. */
static void ftr__gemm_grid(ftr__gemm_plan *p) {
    const ftr__gemm *g = p->gemm;
    const int64_t mr = p->simd->mr, nr = p->simd->nr;
    const int64_t mt = ftr__gemm_ceil(g->m, mr), nt = ftr__gemm_ceil(p->nc, nr);
    const int64_t others = ftr__gemm_max(g->batch * p->pieces, 1);
    const double work = (double)g->batch * (double)(mt * mr) * (double)(nt * nr) * (double)g->k / FTR__GEMM_TASK_WORK;
    const int64_t wanted = work < FTR__GEMM_TASKS ? (int64_t)work : FTR__GEMM_TASKS;
    int64_t mb = ftr__gemm_max(ftr__gemm_ceil(mt, FTR__GEMM_MC / mr), 1), nb = 1;
    if (p->shared) mb = ftr__gemm_max(mb, ftr__gemm_min(wanted, mt / FTR__GEMM_TILES));
    while (mb * nb * others < wanted) {
        const int64_t tm = ftr__gemm_ceil(mt, mb), tn = ftr__gemm_ceil(nt, nb);
        if (tn > 1 && (p->shared || tn * nr >= tm * mr || tm == 1))
            nb = ftr__gemm_min(nb * 2, nt);
        else if (tm > 1)
            mb = ftr__gemm_min(mb * 2, mt);
        else
            break;
    }
    p->tm = ftr__gemm_max(ftr__gemm_ceil(mt, mb), 1) * mr;
    p->tn = ftr__gemm_max(ftr__gemm_ceil(nt, nb), 1) * nr;
    p->mb = ftr__gemm_ceil(g->m, p->tm);
    p->nb = ftr__gemm_ceil(p->nc, p->tn);
}

/* Cuts k when rows and columns alone do not make tasks enough. */
static void ftr__gemm_split(ftr__gemm_plan *p) {
    const ftr__gemm *g = p->gemm;
    const int64_t tasks = ftr__gemm_ceil(g->m, FTR__GEMM_MC) * ftr__gemm_ceil(g->n, FTR__GEMM_MC) * g->batch;
    const int64_t wanted = ftr__gemm_ceil(FTR__GEMM_TASKS, ftr__gemm_max(tasks, 1));
    const int64_t pieces = ftr__gemm_max(ftr__gemm_min(wanted, g->k / FTR__GEMM_PIECE), 1);
    p->piece = ftr__gemm_ceil(ftr__gemm_ceil(g->k, pieces), 8) * 8;
    p->pieces = ftr__gemm_max(ftr__gemm_ceil(g->k, ftr__gemm_max(p->piece, 1)), 1);
    if (p->pieces > 1) p->piece_bytes = ftr__gemm_align((size_t)(g->batch * p->pieces * g->m * g->n) * sizeof(float));
}

static ftr__gemm_plan ftr__gemm_make_plan(const ftr__cpu *cpu, const ftr__gemm *g) {
    ftr__gemm_plan p = {.gemm = g, .simd = &cpu->simd->gemm, .pieces = 1, .piece = g->k, .ks = g->k, .nc = g->n};
    const int64_t mr = p.simd->mr, nr = p.simd->nr;
    p.kc = ftr__gemm_block_depth(g);
    /* Pointers cost as much as copies when a run is short. Copies pay when the block is read often. */
    p.in_place = g->a.rows && !g->split && (g->a.segment >= 8 || g->k == 0) &&
                 (g->n <= FTR__GEMM_IN_PLACE * nr || g->m <= 2 * mr);
    p.shared = g->batch == 1 && !g->split && g->m > 2 * mr;
    if (g->split) ftr__gemm_split(&p);
    if (p.shared) {
        const int64_t blocks = ftr__gemm_max(4096 / p.kc, 1);
        p.ks = ftr__gemm_min(g->k, blocks * p.kc);
        const int64_t columns = FTR__GEMM_SHARED / ftr__gemm_max(p.ks, 1) / nr * nr;
        p.nc = ftr__gemm_min(g->n, ftr__gemm_max(columns, 4 * nr));
        p.b_bytes = ftr__gemm_align((size_t)(p.ks * ftr__gemm_ceil(p.nc, nr) * nr) * sizeof(float));
    }
    ftr__gemm_grid(&p);
    const int64_t runs = g->a.rows ? p.kc / ftr__gemm_max(ftr__gemm_min(g->a.segment, p.kc), 1) + 2 : 0;
    p.pointers_b = runs * (p.in_place ? p.tm : mr);
    p.pointer_bytes = ftr__gemm_align((size_t)(p.pointers_b + nr) * sizeof(float *));
    p.a_bytes = p.in_place ? 0 : ftr__gemm_align((size_t)(p.tm * p.kc) * sizeof(float));
    p.worker = p.pointer_bytes + p.a_bytes + (p.shared ? 0 : ftr__gemm_align((size_t)(p.kc * nr) * sizeof(float)));
    return p;
}

size_t ftr__gemm_workspace(const ftr__cpu *cpu, const ftr__gemm *gemm) {
    const ftr__gemm_plan p = ftr__gemm_make_plan(cpu, gemm);
    return p.worker * (size_t)ftr__pool_threads(cpu->pool) + p.b_bytes + p.piece_bytes;
}

/* Packs lines of an operand, through `pointers` if it has `rows`. */
static void ftr__gemm_pack(const ftr__gemm_plan *p, const ftr__gemm_operand *x, int64_t batch, int64_t first,
                           int64_t count, int64_t width, int64_t k, int64_t depth, const float **pointers, float *to) {
    if (depth <= 0) return;
    if (x->pack) {
        x->pack(x->source, batch, first, count, width, k, depth, to);
        return;
    }
    const int64_t run = x->segment, s0 = k / run, s1 = (k + depth - 1) / run;
    x->rows(x->source, batch, first, count, s0, s1 - s0 + 1, width, pointers);
    for (int64_t s = s0; s <= s1; s++, pointers += width) {
        const int64_t begin = ftr__gemm_max(k - s * run, 0), end = ftr__gemm_min(k + depth - s * run, run);
        for (int64_t i = 0; i < count; i++) pointers[i] += begin;
        p->simd->interleave(count, end - begin, pointers, to + (s * run + begin - k) * width, width);
    }
    ftr__gemm_clear(depth, width - count, width, to + count);
}

/* Packs one panel of the chunk of B. */
static void ftr__gemm_pack_task(void *arg, int64_t task, int32_t worker) {
    const ftr__gemm_plan *p = (const ftr__gemm_plan *)arg;
    const int64_t nr = p->simd->nr, j = p->j0 + task * nr;
    const float **pointers = (const float **)(void *)(p->scratch + (size_t)worker * p->worker);
    ftr__gemm_pack(p, &p->gemm->b, 0, j, ftr__gemm_min(nr, p->j1 - j), nr, p->k0, p->k1 - p->k0, pointers,
                   p->b_packed + task * p->ks * nr);
}

/* One task at one block of k. */
typedef struct ftr__gemm_block {
    const ftr__gemm_plan *plan;
    int64_t batch, i0, i1, j0, j1;
    int64_t k, depth;
    int64_t segments, length; /* of A in place */
    bool load, last;
    float *c; /* dense result of a piece; NULL: where the product says */
    const float **pointers;
    float *a, *b;
} ftr__gemm_block;

/* Depth of the block that begins at k: not across segments, unless it takes whole ones. */
static int64_t ftr__gemm_depth_at(const ftr__gemm_plan *p, int64_t k, int64_t k1) {
    const ftr__gemm_operand *a = &p->gemm->a;
    int64_t depth = ftr__gemm_min(p->kc, k1 - k);
    if (a->rows && a->segment > p->kc) depth = ftr__gemm_min(depth, a->segment - k % a->segment);
    return ftr__gemm_max(depth, 0);
}

/* The block of A: pointers to its runs, or a packed copy. */
static void ftr__gemm_prepare_a(ftr__gemm_block *t) {
    const ftr__gemm_plan *p = t->plan;
    const ftr__gemm_operand *a = &p->gemm->a;
    const int64_t mr = p->simd->mr;
    const int64_t run = p->in_place ? ftr__gemm_max(a->segment, 1) : 1, offset = t->k % run;
    t->segments = t->depth > run ? t->depth / run : ftr__gemm_min(t->depth, 1);
    t->length = t->depth > run ? run : t->depth;
    for (int64_t i = t->i0; i < t->i1; i += mr) {
        const int64_t count = ftr__gemm_min(mr, t->i1 - i), tile = (i - t->i0) / mr;
        if (!p->in_place) {
            ftr__gemm_pack(p, a, t->batch, i, count, mr, t->k, t->depth, t->pointers, t->a + tile * mr * p->kc);
            continue;
        }
        if (t->segments == 0) continue;
        const float **to = t->pointers + tile * mr * t->segments;
        a->rows(a->source, t->batch, i, count, t->k / run, t->segments, mr, to);
        for (int64_t s = 0; s < t->segments; s++) {
            for (int64_t r = 0; r < mr; r++)
                to[s * mr + r] = to[s * mr + (r < count ? r : 0)] + (r < count ? offset : 0);
        }
    }
}

/* The panel of B at columns j, and its stride. */
static const float *ftr__gemm_prepare_b(const ftr__gemm_block *t, int64_t j, int64_t *stride) {
    const ftr__gemm_plan *p = t->plan;
    const ftr__gemm_operand *b = &p->gemm->b;
    const int64_t nr = p->simd->nr, count = ftr__gemm_min(nr, t->j1 - j);
    *stride = nr;
    if (p->shared) return p->b_packed + (j - p->j0) * p->ks + (t->k - p->k0) * nr;
    if (b->at && count == nr && p->gemm->m <= p->simd->mr && t->depth > 0) { /* read once: a copy does not pay */
        *stride = b->stride;
        return b->at(b->source, t->batch, t->k, j);
    }
    ftr__gemm_pack(p, b, t->batch, j, count, nr, t->k, t->depth, t->pointers + p->pointers_b, t->b);
    return t->b;
}

static float *ftr__gemm_row(const ftr__gemm_block *t, int64_t i) {
    const ftr__gemm *g = t->plan->gemm;
    if (t->c) return t->c + i * g->n;
    if (g->c_row) return g->c_row(g->c_source, t->batch, i);
    return g->c + t->batch * g->c_batch + i * g->c_stride;
}

static void ftr__gemm_multiply(const ftr__gemm_block *t, int64_t i, const float *b, int64_t b_stride,
                               const ftr__gemm_tile *tile) {
    const ftr__gemm_plan *p = t->plan;
    const int64_t mr = p->simd->mr, index = (i - t->i0) / mr;
    if (p->in_place) {
        p->simd->tile_rows(ftr__gemm_min(mr, t->i1 - i), t->segments, t->length, t->pointers + index * mr * t->segments,
                           b, b_stride, tile);
    } else {
        p->simd->tile(t->depth, t->a + index * mr * p->kc, b, b_stride, tile);
    }
}

/* A panel of B against all rows of the task. Tiles that stick out at the right go through a buffer. */
static void ftr__gemm_panel(const ftr__gemm_block *t, int64_t j) {
    const ftr__gemm_plan *p = t->plan;
    const ftr__gemm *g = p->gemm;
    const int64_t mr = p->simd->mr, nr = p->simd->nr, width = ftr__gemm_min(nr, t->j1 - j);
    const size_t bytes = (size_t)width * sizeof(float);
    float edge[FTR__GEMM_MAX_MR * FTR__GEMM_MAX_NR], none[FTR__GEMM_MAX_NR], bias[FTR__GEMM_MAX_NR];
    int64_t b_stride;
    const float *b = ftr__gemm_prepare_b(t, j, &b_stride);
    ftr__gemm_tile tile = {.load = t->load, .relu = t->last && g->activation == FTR_ACT_RELU};
    tile.narrow = width <= nr / 2;
    memset(none, 0, sizeof none);
    if (width < nr) memset(edge, 0, sizeof edge);
    if (t->last && g->bias) {
        const float *from = g->bias + (g->bias_batch ? t->batch * g->n : 0) + j;
        memset(bias, 0, sizeof bias);
        memcpy(bias, from, bytes);
        tile.bias = bias;
    }
    for (int64_t i = t->i0; i < t->i1; i += mr) {
        const int64_t rows = ftr__gemm_min(mr, t->i1 - i);
        float *c[FTR__GEMM_MAX_MR];
        for (int64_t r = 0; r < rows; r++) c[r] = ftr__gemm_row(t, i + r) + j;
        for (int64_t r = 0; r < mr; r++) tile.c[r] = r >= rows ? none : width < nr ? edge + r * nr : c[r];
        if (width < nr && t->load) {
            for (int64_t r = 0; r < rows; r++) memcpy(edge + r * nr, c[r], bytes);
        }
        ftr__gemm_multiply(t, i, b, b_stride, &tile);
        if (width < nr) {
            for (int64_t r = 0; r < rows; r++) memcpy(c[r], edge + r * nr, bytes);
        }
    }
}

static void ftr__gemm_task(void *arg, int64_t task, int32_t worker) {
    const ftr__gemm_plan *p = (const ftr__gemm_plan *)arg;
    const ftr__gemm *g = p->gemm;
    unsigned char *scratch = p->scratch + (size_t)worker * p->worker;
    const int64_t nj = task % p->nb, mi = task / p->nb % p->mb, piece = task / (p->nb * p->mb) % p->pieces;
    ftr__gemm_block t = {.plan = p, .batch = task / (p->nb * p->mb * p->pieces)};
    t.i0 = mi * p->tm;
    t.i1 = ftr__gemm_min(t.i0 + p->tm, g->m);
    t.j0 = p->j0 + nj * p->tn;
    t.j1 = ftr__gemm_min(t.j0 + p->tn, p->j1);
    t.pointers = (const float **)(void *)scratch;
    t.a = (float *)(void *)(scratch + p->pointer_bytes);
    t.b = (float *)(void *)(scratch + p->pointer_bytes + p->a_bytes);
    if (p->pieces > 1) t.c = p->partial + (t.batch * p->pieces + piece) * g->m * g->n;
    const int64_t begin = p->k0 + piece * p->piece, end = ftr__gemm_min(begin + p->piece, p->k1);
    t.k = begin;
    do {
        t.depth = ftr__gemm_depth_at(p, t.k, end);
        t.load = t.k > (p->pieces > 1 ? begin : 0);
        t.last = t.k + t.depth >= g->k;
        ftr__gemm_prepare_a(&t);
        for (int64_t j = t.j0; j < t.j1; j += p->simd->nr) ftr__gemm_panel(&t, j);
        t.k += t.depth;
    } while (t.k < end);
}

#define FTR__GEMM_SUM_CHUNK 4096

/* Adds the pieces of a chunk of the result in their order. */
static void ftr__gemm_sum_task(void *arg, int64_t task, int32_t worker) {
    const ftr__gemm_plan *p = (const ftr__gemm_plan *)arg;
    const int64_t size = p->gemm->m * p->gemm->n, chunks = ftr__gemm_ceil(size, FTR__GEMM_SUM_CHUNK);
    const int64_t batch = task / chunks, first = task % chunks * FTR__GEMM_SUM_CHUNK;
    const int64_t count = ftr__gemm_min(FTR__GEMM_SUM_CHUNK, size - first);
    const float *from = p->partial + batch * p->pieces * size + first;
    float *to = p->gemm->c + batch * size + first;
    (void)worker;
    memcpy(to, from, (size_t)count * sizeof(float));
    for (int64_t s = 1; s < p->pieces; s++) p->simd->accumulate(count, from + s * size, to);
}

void ftr__gemm_run(const ftr__cpu *cpu, const ftr__gemm *g, void *workspace) {
    if (g->batch == 0 || g->m == 0 || g->n == 0) return;
    ftr__gemm_plan p = ftr__gemm_make_plan(cpu, g);
    p.scratch = (unsigned char *)workspace;
    unsigned char *next = p.scratch + p.worker * (size_t)ftr__pool_threads(cpu->pool);
    p.b_packed = (float *)(void *)next;
    p.partial = (float *)(void *)(next + p.b_bytes);
    for (p.j0 = 0; p.j0 < g->n; p.j0 = p.j1) {
        p.j1 = ftr__gemm_min(p.j0 + p.nc, g->n);
        p.k0 = 0;
        do {
            p.k1 = ftr__gemm_min(p.k0 + p.ks, g->k);
            if (p.shared && p.k1 > p.k0) {
                ftr__pool_run(cpu->pool, ftr__gemm_ceil(p.j1 - p.j0, p.simd->nr), ftr__gemm_pack_task, &p);
            }
            const int64_t nb = ftr__gemm_ceil(p.j1 - p.j0, p.tn);
            p.nb = nb;
            ftr__pool_run(cpu->pool, g->batch * p.pieces * p.mb * nb, ftr__gemm_task, &p);
            p.k0 = p.k1;
        } while (p.k0 < g->k);
    }
    if (p.pieces > 1) {
        const int64_t chunks = ftr__gemm_ceil(g->m * g->n, FTR__GEMM_SUM_CHUNK);
        ftr__pool_run(cpu->pool, g->batch * chunks, ftr__gemm_sum_task, &p);
    }
}

/* With a constant count the copies are a few instructions. */
#define FTR__GEMM_COPY(n)                                                                                              \
    case n:                                                                                                            \
        for (int64_t k = 0; k < depth; k++) memcpy(to + k * width, from + k * stride, (n) * sizeof(float));            \
        break;

void ftr__gemm_copy(int64_t depth, int64_t count, int64_t width, const float *from, int64_t stride, float *to) {
    switch (count) {
        FTR__GEMM_COPY(1)
        FTR__GEMM_COPY(3)
        FTR__GEMM_COPY(4)
        FTR__GEMM_COPY(6)
        FTR__GEMM_COPY(8)
        FTR__GEMM_COPY(14)
        FTR__GEMM_COPY(16)
        FTR__GEMM_COPY(32)
    default:
        for (int64_t k = 0; k < depth; k++) memcpy(to + k * width, from + k * stride, (size_t)count * sizeof(float));
    }
}
#undef FTR__GEMM_COPY

void ftr__gemm_clear(int64_t depth, int64_t count, int64_t width, float *to) {
    if (count <= 0) return;
    for (int64_t k = 0; k < depth; k++) memset(to + k * width, 0, (size_t)count * sizeof(float));
}

/* Operands in memory. */
static const float *ftr__gemm_matrix_at(const ftr__gemm_matrix *x, int64_t batch) {
    return x->data + (x->batch_offset ? x->batch_offset[batch] : batch * x->batch);
}

static void ftr__gemm_matrix_rows(const void *source, int64_t batch, int64_t first, int64_t count,
                                  int64_t first_segment, int64_t segments, int64_t width, const float **to) {
    const ftr__gemm_matrix *x = (const ftr__gemm_matrix *)source;
    const float *from = ftr__gemm_matrix_at(x, batch) + first * x->stride;
    (void)first_segment; /* there is one */
    (void)segments;
    (void)width;
    for (int64_t i = 0; i < count; i++) to[i] = from + i * x->stride;
}

static void ftr__gemm_matrix_pack(const void *source, int64_t batch, int64_t first, int64_t count, int64_t width,
                                  int64_t k, int64_t depth, float *to) {
    const ftr__gemm_matrix *x = (const ftr__gemm_matrix *)source;
    const float *from = ftr__gemm_matrix_at(x, batch) + k * x->stride + first;
    ftr__gemm_copy(depth, count, width, from, x->stride, to);
    ftr__gemm_clear(depth, width - count, width, to + count);
}

static const float *ftr__gemm_matrix_in_place(const void *source, int64_t batch, int64_t k, int64_t first) {
    const ftr__gemm_matrix *x = (const ftr__gemm_matrix *)source;
    return ftr__gemm_matrix_at(x, batch) + k * x->stride + first;
}

ftr__gemm_operand ftr__gemm_k_together(const ftr__gemm_matrix *matrix, int64_t k) {
    return (ftr__gemm_operand){.source = matrix, .segment = k, .rows = ftr__gemm_matrix_rows};
}

ftr__gemm_operand ftr__gemm_lines_together(const ftr__gemm_matrix *matrix) {
    return (ftr__gemm_operand){
        .source = matrix, .pack = ftr__gemm_matrix_pack, .at = ftr__gemm_matrix_in_place, .stride = matrix->stride};
}

/* ---- src/backend/cpu/matmul.c ---- */

/* Batches and sizes of a matmul node. */
typedef struct ftr__matmul {
    int64_t batch, m, n, k;
    ftr__gemm_matrix a, b;
} ftr__matmul;

/* Elements of one operand's matrix for result batch `index`, with broadcasting (aligned at the last dimension). */
static int64_t ftr__matmul_offset(const ftr_shape *x, const ftr_shape *out, int64_t index) {
    int64_t offset = 0, step = x->dim[x->rank - 1] * x->dim[x->rank - 2];
    for (int32_t d = out->rank - 3; d >= 0; d--) {
        const int64_t at = index % out->dim[d];
        const int32_t own = d - (out->rank - x->rank);
        index /= out->dim[d];
        if (own < 0) continue;
        if (x->dim[own] != 1) offset += at * step;
        step *= x->dim[own];
    }
    return offset;
}

static int64_t ftr__matmul_batches(const ftr_shape *shape) {
    int64_t count = 1;
    for (int32_t d = 0; d < shape->rank - 2; d++) count *= shape->dim[d];
    return count;
}

static ftr__matmul ftr__matmul_make(const ftr_kernel_call *call) {
    const ftr_shape *a = &call->in[0].shape, *b = &call->in[1].shape, *c = &call->out[0].shape;
    const bool ta = call->attr->matmul.transpose_a, tb = call->attr->matmul.transpose_b;
    ftr__matmul x = {.batch = ftr__matmul_batches(c), .m = c->dim[c->rank - 2], .n = c->dim[c->rank - 1]};
    x.k = a->dim[a->rank - (ta ? 2 : 1)];
    /* One B for all of them: the batch is more rows. */
    if (!ta && ftr__matmul_batches(b) == 1 && ftr__matmul_batches(a) == x.batch) {
        x.m *= x.batch;
        x.batch = 1;
    }
    x.a = (ftr__gemm_matrix){.data = (const float *)call->in[0].data, .stride = ta ? x.m : x.k};
    x.b = (ftr__gemm_matrix){.data = (const float *)call->in[1].data, .stride = tb ? x.k : x.n};
    return x;
}

static ftr__gemm ftr__matmul_gemm(const ftr_kernel_call *call, const ftr__matmul *x) {
    const bool ta = call->attr->matmul.transpose_a, tb = call->attr->matmul.transpose_b;
    return (ftr__gemm){.batch = x->batch,
                       .m = x->m,
                       .n = x->n,
                       .k = x->k,
                       .a = ta ? ftr__gemm_lines_together(&x->a) : ftr__gemm_k_together(&x->a, x->k),
                       .b = tb ? ftr__gemm_k_together(&x->b, x->k) : ftr__gemm_lines_together(&x->b),
                       .c = (float *)call->out[0].data,
                       .c_batch = x->m * x->n,
                       .c_stride = x->n,
                       .split = x->k >= 4096 && ta};
}

/* A product with at most 8 rows or columns: dot products, nothing is packed. */
typedef struct ftr__skinny {
    const ftr__simd_gemm *simd;
    const float *x, *y; /* lines of k elements; c[i * c_x + j * c_y] = x[i] . y[j] */
    int64_t count_x, count_y, k, chunk;
    int64_t c_x, c_y;
    float *c;
    const float *bias; /* of y's lines if bias_y, otherwise of x's; NULL */
    bool bias_y, relu;
} ftr__skinny;

#define FTR__SKINNY_LINES 8

static void ftr__skinny_put(const ftr__skinny *s, int64_t i, int64_t j, float value) {
    if (s->bias) value += s->bias[s->bias_y ? j : i];
    s->c[i * s->c_x + j * s->c_y] = s->relu && value < 0 ? 0 : value;
}

/* A chunk of y's lines against the few of x. */
static void ftr__skinny_task(void *arg, int64_t task, int32_t worker) {
    const ftr__skinny *s = (const ftr__skinny *)arg;
    const int64_t end = ftr__gemm_min((task + 1) * s->chunk, s->count_y);
    (void)worker;
    for (int64_t j = task * s->chunk; j < end; j += 4) {
        const int64_t count = ftr__gemm_min(4, end - j);
        const float *y[4];
        for (int64_t r = 0; r < 4; r++) y[r] = s->y + (j + (r < count ? r : 0)) * s->k;
        for (int64_t i = 0; i < s->count_x; i++) {
            float out[4];
            s->simd->dot4(s->k, s->x + i * s->k, y, out);
            for (int64_t r = 0; r < count; r++) ftr__skinny_put(s, i, j + r, out[r]);
        }
    }
}

/* Rows of a [m, k] against rows of b [n, k], if one of the two has few; otherwise returns false and does nothing. */
static bool ftr__skinny_run(const ftr__cpu *cpu, const float *a, const float *b, int64_t m, int64_t n, int64_t k,
                            const float *bias, bool relu, float *c) {
    ftr__skinny s = {.simd = &cpu->simd->gemm, .k = k, .bias = bias, .relu = relu, .c = c};
    if (m == 0 || n == 0) return true;
    if (k < 8) return false;
    if (m <= FTR__SKINNY_LINES) {
        s.x = a, s.y = b, s.count_x = m, s.count_y = n, s.c_x = n, s.c_y = 1, s.bias_y = true;
    } else if (n <= FTR__SKINNY_LINES) {
        s.x = b, s.y = a, s.count_x = n, s.count_y = m, s.c_x = 1, s.c_y = n;
    } else {
        return false;
    }
    const int64_t lines = (1 << 16) / (k * s.count_x) + 4; /* of work worth a task */
    s.chunk = ftr__gemm_max(lines / 4 * 4, ftr__gemm_ceil(s.count_y, 256) * 4);
    ftr__pool_run(cpu->pool, ftr__gemm_ceil(s.count_y, s.chunk), ftr__skinny_task, &s);
    return true;
}

static size_t ftr__matmul_offset_bytes(const ftr__matmul *x) {
    return x->batch > 1 ? ftr__gemm_align((size_t)(2 * x->batch) * sizeof(int64_t)) : 0;
}

size_t ftr__cpu_matmul_workspace(const ftr_kernel_call *call) {
    const ftr__matmul x = ftr__matmul_make(call);
    const ftr__gemm g = ftr__matmul_gemm(call, &x);
    return ftr__matmul_offset_bytes(&x) + ftr__gemm_workspace(ftr__cpu_of(call), &g);
}

ftr_status ftr__cpu_matmul(const ftr_kernel_call *call) {
    const ftr__cpu *cpu = ftr__cpu_of(call);
    ftr__matmul x = ftr__matmul_make(call);
    const bool ta = call->attr->matmul.transpose_a, tb = call->attr->matmul.transpose_b;
    if (call->out[0].count == 0) return FTR_OK;
    const bool a_lines = !ta || x.m == 1, b_lines = tb || x.n == 1;
    if (x.batch == 1 && a_lines && b_lines &&
        ftr__skinny_run(cpu, x.a.data, x.b.data, x.m, x.n, x.k, NULL, false, (float *)call->out[0].data)) {
        return FTR_OK;
    }
    unsigned char *workspace = (unsigned char *)call->workspace;
    if (x.batch > 1) {
        int64_t *offset = (int64_t *)(void *)workspace;
        for (int64_t i = 0; i < x.batch; i++) {
            offset[i] = ftr__matmul_offset(&call->in[0].shape, &call->out[0].shape, i);
            offset[x.batch + i] = ftr__matmul_offset(&call->in[1].shape, &call->out[0].shape, i);
        }
        x.a.batch_offset = offset;
        x.b.batch_offset = offset + x.batch;
        workspace += ftr__matmul_offset_bytes(&x);
    }
    const ftr__gemm g = ftr__matmul_gemm(call, &x);
    ftr__gemm_run(cpu, &g, workspace);
    return FTR_OK;
}

/* The operands' descriptions must outlive the product's, so they are the caller's. */
static ftr__gemm ftr__linear_gemm(const ftr_kernel_call *call, ftr__gemm_matrix *x, ftr__gemm_matrix *weight) {
    const ftr_shape *w = &call->in[1].shape, *y = &call->out[0].shape;
    const int64_t n = w->dim[0], k = w->dim[1];
    int64_t m = 1;
    for (int32_t d = 0; d < y->rank - 1; d++) m *= y->dim[d];
    *x = (ftr__gemm_matrix){.data = (const float *)call->in[0].data, .stride = k};
    *weight = (ftr__gemm_matrix){.data = (const float *)call->in[1].data, .stride = k};
    return (ftr__gemm){.batch = 1,
                       .m = m,
                       .n = n,
                       .k = k,
                       .a = ftr__gemm_k_together(x, k),
                       .b = ftr__gemm_k_together(weight, k),
                       .c = (float *)call->out[0].data,
                       .c_stride = n,
                       .bias = call->in_count > 2 ? (const float *)call->in[2].data : NULL,
                       .activation = call->attr->linear.activation};
}

size_t ftr__cpu_linear_workspace(const ftr_kernel_call *call) {
    ftr__gemm_matrix x, weight;
    const ftr__gemm g = ftr__linear_gemm(call, &x, &weight);
    return ftr__gemm_workspace(ftr__cpu_of(call), &g);
}

ftr_status ftr__cpu_linear(const ftr_kernel_call *call) {
    const ftr__cpu *cpu = ftr__cpu_of(call);
    ftr__gemm_matrix x, weight;
    const ftr__gemm g = ftr__linear_gemm(call, &x, &weight);
    const bool relu = g.activation == FTR_ACT_RELU;
    if (!ftr__skinny_run(cpu, x.data, weight.data, g.m, g.n, g.k, g.bias, relu, g.c)) {
        ftr__gemm_run(cpu, &g, call->workspace);
    }
    return FTR_OK;
}

/* ---- src/backend/cpu/conv.c ---- */

static ftr__conv ftr__conv_make(const ftr_kernel_call *call, const ftr_shape *x, const ftr_shape *y) {
    ftr__conv v = {.n = y->dim[0], .c = x->dim[3], .o = y->dim[3], .groups = call->attr->conv.groups, .taps = 1};
    for (int32_t d = 0; d < 2; d++) {
        v.in[d] = x->dim[d + 1];
        v.out[d] = y->dim[d + 1];
        v.kernel[d] = call->attr->conv.kernel[d];
        v.stride[d] = call->attr->conv.stride[d];
        v.dilation[d] = call->attr->conv.dilation[d];
        v.before[d] = call->attr->conv.padding[2 * d];
        v.taps *= v.kernel[d];
    }
    v.cg = v.c / v.groups;
    v.og = v.o / v.groups;
    return v;
}

/* ------------------------------------------------------------------------------------------------------------------
 * Gathering: point (a, b) of a grid reads, for tap (s, t), the pixel (origin + a * step + s * tap_step, ...) of an image;
 * outside the image it reads zeros. A forward convolution is one such; so is each stride phase of its gradient. */
typedef struct ftr__gather {
    const float *data, *zeros;
    int64_t size[2], channels; /* of the image */
    int64_t run;               /* channels of a group */
    int64_t grid[2], step[2], origin[2], taps[2], tap_step[2];
} ftr__gather;

static bool ftr__gather_is_plain(const ftr__gather *g) {
    for (int32_t d = 0; d < 2; d++) {
        if (g->taps[d] != 1 || g->step[d] != 1 || g->origin[d] != 0 || g->grid[d] != g->size[d]) return false;
    }
    return true;
}

/* Where the taps of one grid point start. */
static void ftr__gather_point(const ftr__gather *g, const float *image, int64_t y, int64_t x, int64_t first_tap,
                              int64_t count, int64_t width, const float **to) {
    const int64_t last_y = y + (g->taps[0] - 1) * g->tap_step[0], last_x = x + (g->taps[1] - 1) * g->tap_step[1];
    const bool inside = ftr__gemm_min(y, last_y) >= 0 && ftr__gemm_max(y, last_y) < g->size[0] &&
                        ftr__gemm_min(x, last_x) >= 0 && ftr__gemm_max(x, last_x) < g->size[1];
    int64_t s = first_tap / g->taps[1], t = first_tap % g->taps[1];
    for (int64_t i = 0; i < count; i++) {
        const int64_t py = y + s * g->tap_step[0], px = x + t * g->tap_step[1];
        const bool hit = inside || (py >= 0 && py < g->size[0] && px >= 0 && px < g->size[1]);
        to[i * width] = hit ? image + (py * g->size[1] + px) * g->channels : g->zeros;
        if (++t == g->taps[1]) {
            t = 0;
            s++;
        }
    }
}

static void ftr__gather_rows(const void *source, int64_t batch, int64_t first, int64_t count, int64_t first_segment,
                             int64_t segments, int64_t width, const float **to) {
    const ftr__gather *g = (const ftr__gather *)source;
    int64_t b = first % g->grid[1], a = first / g->grid[1] % g->grid[0];
    const float *image = g->data + batch * g->run;
    const int64_t image_size = g->size[0] * g->size[1] * g->channels;
    image += first / (g->grid[1] * g->grid[0]) * image_size;
    for (int64_t i = 0; i < count; i++) {
        ftr__gather_point(g, image, g->origin[0] + a * g->step[0], g->origin[1] + b * g->step[1], first_segment,
                          segments, width, to + i);
        if (++b < g->grid[1]) continue;
        b = 0;
        if (++a < g->grid[0]) continue;
        a = 0;
        image += image_size;
    }
}

/* One tap's channels for grid points k .. k + depth - 1: to[k' * width + channel]. A grid row at a time: what lies left of
 * the image, what lies in it, what lies right of it. */
static void ftr__gather_tap(const ftr__gather *g, const float *data, int64_t tap, int64_t channels, int64_t width,
                            int64_t k, int64_t depth, float *to) {
    const int64_t y0 = g->origin[0] + tap / g->taps[1] * g->tap_step[0];
    const int64_t x0 = g->origin[1] + tap % g->taps[1] * g->tap_step[1], step = g->step[1];
    const int64_t begin = x0 < 0 ? ftr__gemm_ceil(-x0, step) : 0;
    const int64_t end = x0 < g->size[1] ? ftr__gemm_ceil(g->size[1] - x0, step) : 0;
    while (depth > 0) {
        const int64_t b = k % g->grid[1], a = k / g->grid[1] % g->grid[0], n = k / (g->grid[1] * g->grid[0]);
        const int64_t count = ftr__gemm_min(g->grid[1] - b, depth), y = y0 + a * g->step[0];
        const bool row = y >= 0 && y < g->size[0];
        const int64_t left = row ? ftr__gemm_min(ftr__gemm_max(begin - b, 0), count) : count;
        const int64_t right = ftr__gemm_max(ftr__gemm_min(end - b, count), left);
        ftr__gemm_clear(left, channels, width, to);
        if (right > left) {
            const int64_t pixel = (n * g->size[0] + y) * g->size[1] + x0 + (b + left) * step;
            ftr__gemm_copy(right - left, channels, width, data + pixel * g->channels, step * g->channels,
                           to + left * width);
        }
        ftr__gemm_clear(count - right, channels, width, to + right * width);
        to += count * width;
        k += count;
        depth -= count;
    }
}

/* The gathered matrix with grid points as k and (tap, channel) as lines: B of a weight's gradient. */
static void ftr__gather_pack(const void *source, int64_t batch, int64_t first, int64_t count, int64_t width, int64_t k,
                             int64_t depth, float *to) {
    const ftr__gather *g = (const ftr__gather *)source;
    for (int64_t done = 0; done < count;) {
        const int64_t tap = (first + done) / g->run, channel = (first + done) % g->run;
        const int64_t channels = ftr__gemm_min(g->run - channel, count - done);
        ftr__gather_tap(g, g->data + batch * g->run + channel, tap, channels, width, k, depth, to + done);
        done += channels;
    }
    ftr__gemm_clear(depth, width - count, width, to + count);
}

/* ------------------------------------------------------------------------------------------------------------------
 * The three products. */

/* A product and what its operands point to. */
typedef struct ftr__conv_product {
    ftr__gather gather;
    ftr__gemm_matrix plain, other;
    ftr__gemm gemm;
    ftr__conv conv;
    int64_t phase[2], first_tap[2], tap_period[2]; /* of a phase of the input's gradient */
    const float *weight;
    float *dx;
} ftr__conv_product;

static size_t ftr__conv_zeros(int64_t channels) { return ftr__gemm_align((size_t)channels * sizeof(float)); }

static void ftr__conv_use_gather(ftr__conv_product *p) {
    if (ftr__gather_is_plain(&p->gather)) {
        p->plain = (ftr__gemm_matrix){.data = p->gather.data, .batch = p->gather.run, .stride = p->gather.channels};
        p->gemm.a = ftr__gemm_k_together(&p->plain, p->gemm.k);
    } else {
        p->gemm.a = (ftr__gemm_operand){.source = &p->gather, .segment = p->gather.run, .rows = ftr__gather_rows};
    }
}

/* The gather of the forward direction. */
static ftr__gather ftr__conv_gather(const ftr__conv *v, const float *x, const float *zeros) {
    ftr__gather g = {.data = x, .zeros = zeros, .channels = v->c, .run = v->cg};
    for (int32_t d = 0; d < 2; d++) {
        g.size[d] = v->in[d];
        g.grid[d] = v->out[d];
        g.step[d] = v->stride[d];
        g.origin[d] = -v->before[d];
        g.taps[d] = v->kernel[d];
        g.tap_step[d] = v->dilation[d];
    }
    return g;
}

/* y[pixel, o] = sum over (tap, c) of x[gathered pixel, c] * weight[o, (tap, c)]. */
static void ftr__conv_forward(const ftr_kernel_call *call, const ftr__conv *v, ftr__conv_product *p) {
    *p = (ftr__conv_product){.conv = *v};
    p->gather = ftr__conv_gather(v, (const float *)call->in[0].data, (const float *)call->workspace);
    const int64_t k = v->taps * v->cg;
    p->other = (ftr__gemm_matrix){.data = (const float *)call->in[1].data, .batch = v->og * k, .stride = k};
    p->gemm = (ftr__gemm){.batch = v->groups,
                          .m = v->n * v->out[0] * v->out[1],
                          .n = v->og,
                          .k = k,
                          .b = ftr__gemm_k_together(&p->other, k),
                          .c = (float *)call->out[0].data,
                          .c_batch = v->og,
                          .c_stride = v->o,
                          .bias = call->in_count > 2 ? (const float *)call->in[2].data : NULL,
                          .bias_batch = true,
                          .activation = call->attr->conv.activation};
    ftr__conv_use_gather(p);
}

/* dw[o, (tap, c)] = sum over pixels of dy[pixel, o] * x[gathered pixel, c]. */
static void ftr__conv_weight_gradient(const ftr_kernel_call *call, const ftr__conv *v, ftr__conv_product *p) {
    *p = (ftr__conv_product){.conv = *v};
    p->gather = ftr__conv_gather(v, (const float *)call->in[1].data, NULL);
    p->other = (ftr__gemm_matrix){.data = (const float *)call->in[0].data, .batch = v->og, .stride = v->o};
    p->gemm = (ftr__gemm){.batch = v->groups,
                          .m = v->og,
                          .n = v->taps * v->cg,
                          .k = v->n * v->out[0] * v->out[1],
                          .a = ftr__gemm_lines_together(&p->other),
                          .b = {.source = &p->gather, .pack = ftr__gather_pack},
                          .c = (float *)call->out[0].data,
                          .c_batch = v->og * v->taps * v->cg,
                          .c_stride = v->taps * v->cg,
                          .split = true};
}

/* weight[o, tap, c] as lines c and k = (tap of the phase, o). */
static void ftr__conv_pack_weight(const void *source, int64_t batch, int64_t first, int64_t count, int64_t width,
                                  int64_t k, int64_t depth, float *to) {
    const ftr__conv_product *p = (const ftr__conv_product *)source;
    const ftr__conv *v = &p->conv;
    for (int64_t done = 0; done < depth;) {
        const int64_t tap = (k + done) / v->og, o = (k + done) % v->og;
        const int64_t run = ftr__gemm_min(v->og - o, depth - done);
        const int64_t ky = p->first_tap[0] + tap / p->gather.taps[1] * p->tap_period[0];
        const int64_t kx = p->first_tap[1] + tap % p->gather.taps[1] * p->tap_period[1];
        const float *from = p->weight + ((batch * v->og + o) * v->taps + ky * v->kernel[1] + kx) * v->cg + first;
        ftr__gemm_copy(run, count, width, from, v->taps * v->cg, to + done * width);
        done += run;
    }
    ftr__gemm_clear(depth, width - count, width, to + count);
}

/* Where the phase's point `row` lies in dx. */
static float *ftr__conv_phase_row(const void *source, int64_t batch, int64_t row) {
    const ftr__conv_product *p = (const ftr__conv_product *)source;
    const ftr__conv *v = &p->conv;
    const int64_t b = row % p->gather.grid[1], a = row / p->gather.grid[1] % p->gather.grid[0];
    const int64_t n = row / (p->gather.grid[1] * p->gather.grid[0]);
    const int64_t y = p->phase[0] + a * v->stride[0], x = p->phase[1] + b * v->stride[1];
    return p->dx + ((n * v->in[0] + y) * v->in[1] + x) * v->c + batch * v->cg;
}

/* Input pixel i gets from output pixel (i + before - tap * dilation) / stride where that is whole. The pixels of one
 * residue of i modulo the stride share the taps that hit, every `period`-th, and read neighbours in dy. */
static void ftr__conv_phase(const ftr__conv *v, int32_t d, int64_t phase, ftr__conv_product *p) {
    const int64_t stride = v->stride[d], dilation = v->dilation[d], period = stride / ftr__conv_gcd(stride, dilation);
    ftr__gather *g = &p->gather;
    int64_t tap = 0;
    while (tap < period && (phase + v->before[d] - tap * dilation) % stride != 0) tap++;
    const bool any = tap < period && tap < v->kernel[d];
    p->phase[d] = phase;
    p->first_tap[d] = tap;
    p->tap_period[d] = period;
    g->size[d] = v->out[d];
    g->grid[d] = ftr__gemm_ceil(v->in[d] - phase, stride);
    g->step[d] = 1;
    g->taps[d] = any ? (v->kernel[d] - 1 - tap) / period + 1 : 0;
    g->origin[d] = any ? (phase + v->before[d] - tap * dilation) / stride : 0;
    g->tap_step[d] = -(period * dilation / stride);
}

/* dx[pixel of a phase, c] = sum over (tap, o) of dy[gathered pixel, o] * weight[o, tap, c]. */
static void ftr__conv_input_gradient(const ftr_kernel_call *call, const ftr__conv *v, int64_t phase_y, int64_t phase_x,
                                     ftr__conv_product *p) {
    *p = (ftr__conv_product){.conv = *v};
    p->gather = (ftr__gather){.data = (const float *)call->in[0].data,
                              .zeros = (const float *)call->workspace,
                              .channels = v->o,
                              .run = v->og};
    ftr__conv_phase(v, 0, phase_y, p);
    ftr__conv_phase(v, 1, phase_x, p);
    p->weight = (const float *)call->in[1].data;
    p->dx = (float *)call->out[0].data;
    p->gemm = (ftr__gemm){.batch = v->groups,
                          .m = v->n * p->gather.grid[0] * p->gather.grid[1],
                          .n = v->cg,
                          .k = p->gather.taps[0] * p->gather.taps[1] * v->og,
                          .b = {.source = p, .pack = ftr__conv_pack_weight},
                          .c = p->dx,
                          .c_batch = v->cg,
                          .c_stride = v->c};
    if (v->stride[0] != 1 || v->stride[1] != 1) {
        p->gemm.c_row = ftr__conv_phase_row;
        p->gemm.c_source = p;
    }
    ftr__conv_use_gather(p);
}

/* ------------------------------------------------------------------------------------------------------------------
 * Kernels. */

size_t ftr__cpu_conv2d_workspace(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->in[0].shape, &call->out[0].shape);
    if (ftr__conv_is_depthwise(&v)) return ftr__depthwise_workspace(call, &v, false);
    ftr__conv_product p;
    ftr__conv_forward(call, &v, &p);
    return ftr__conv_zeros(v.cg) + ftr__gemm_workspace(ftr__cpu_of(call), &p.gemm);
}

ftr_status ftr__cpu_conv2d(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->in[0].shape, &call->out[0].shape);
    if (ftr__conv_is_depthwise(&v)) {
        ftr__depthwise(call, &v, false);
        return FTR_OK;
    }
    ftr__conv_product p;
    ftr__conv_forward(call, &v, &p);
    memset(call->workspace, 0, ftr__conv_zeros(v.cg));
    ftr__gemm_run(ftr__cpu_of(call), &p.gemm, (unsigned char *)call->workspace + ftr__conv_zeros(v.cg));
    return FTR_OK;
}

size_t ftr__cpu_conv2d_grad_input_workspace(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->out[0].shape, &call->in[0].shape);
    if (ftr__conv_is_depthwise(&v)) return ftr__depthwise_workspace(call, &v, true);
    size_t most = 0;
    for (int64_t y = 0; y < ftr__gemm_min(v.stride[0], v.in[0]); y++) {
        for (int64_t x = 0; x < ftr__gemm_min(v.stride[1], v.in[1]); x++) {
            ftr__conv_product p;
            ftr__conv_input_gradient(call, &v, y, x, &p);
            const size_t bytes = ftr__gemm_workspace(ftr__cpu_of(call), &p.gemm);
            if (bytes > most) most = bytes;
        }
    }
    return ftr__conv_zeros(v.og) + most;
}

ftr_status ftr__cpu_conv2d_grad_input(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->out[0].shape, &call->in[0].shape);
    if (ftr__conv_is_depthwise(&v)) {
        ftr__depthwise(call, &v, true);
        return FTR_OK;
    }
    memset(call->workspace, 0, ftr__conv_zeros(v.og));
    for (int64_t y = 0; y < ftr__gemm_min(v.stride[0], v.in[0]); y++) {
        for (int64_t x = 0; x < ftr__gemm_min(v.stride[1], v.in[1]); x++) {
            ftr__conv_product p;
            ftr__conv_input_gradient(call, &v, y, x, &p);
            ftr__gemm_run(ftr__cpu_of(call), &p.gemm, (unsigned char *)call->workspace + ftr__conv_zeros(v.og));
        }
    }
    return FTR_OK;
}

size_t ftr__cpu_conv2d_grad_weight_workspace(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->in[1].shape, &call->in[0].shape);
    if (ftr__conv_is_depthwise(&v)) return ftr__depthwise_weight_workspace(call, &v);
    ftr__conv_product p;
    ftr__conv_weight_gradient(call, &v, &p);
    return ftr__gemm_workspace(ftr__cpu_of(call), &p.gemm);
}

ftr_status ftr__cpu_conv2d_grad_weight(const ftr_kernel_call *call) {
    const ftr__conv v = ftr__conv_make(call, &call->in[1].shape, &call->in[0].shape);
    if (ftr__conv_is_depthwise(&v)) {
        ftr__depthwise_weight_gradient(call, &v);
        return FTR_OK;
    }
    ftr__conv_product p;
    ftr__conv_weight_gradient(call, &v, &p);
    ftr__gemm_run(ftr__cpu_of(call), &p.gemm, call->workspace);
    return FTR_OK;
}

/* ---- src/backend/cpu/depthwise.c ---- */
/* Depthwise convolutions, and others with few channels a group: vectors run along the channels of the result.
 *
 * A channel of the result needs all channels of the source's group, one a plane. A depthwise convolution has one plane, the
 * source itself. Otherwise the planes are made, a block of rows and channels at a time: channel c of plane j is channel j of
 * the group that the result's channel c belongs to. */

#define FTR__DEPTHWISE_GROUP 8                /* channels a group, at most */
#define FTR__DEPTHWISE_TASK_BYTES (1 << 18)   /* of the larger side of a task */
#define FTR__DEPTHWISE_TASKS 16               /* that there should be at least */
#define FTR__DEPTHWISE_PLANES_BYTES (1 << 18) /* of a task's planes, if a block of channels is not larger */
#define FTR__DEPTHWISE_CHANNELS 192           /* of a task of the weight's gradient, about */
#define FTR__DEPTHWISE_ROWS 4                 /* that go by while sums are in registers */
#define FTR__DEPTHWISE_PIECES 32              /* that the weight's gradient is summed in, at most */
#define FTR__DEPTHWISE_VECTORS 32             /* channels, whole vectors on all levels */
#define FTR__DEPTHWISE_NEAR_BYTES 24576       /* of what is read again and again, to be kept in the nearest cache */
#define FTR__DEPTHWISE_MOVED 64               /* channels of a task that only moves weights */

bool ftr__conv_is_depthwise(const ftr__conv *v) {
    if (v->cg < 1 || v->og < 1 || v->cg > FTR__DEPTHWISE_GROUP || v->og > FTR__DEPTHWISE_GROUP) return false;
    return v->groups > 1 || v->cg * v->og == 1;
}

/* The taps through which a position of the result meets the source, along one dimension: tap `first` at position `from`,
 * the others tap_step taps and from_step positions further each. */
typedef struct ftr__depthwise_taps {
    int64_t count, first, from;
} ftr__depthwise_taps;

/* For the gradient of the input dy is the source and dx the result. */
typedef struct ftr__depthwise_job {
    const ftr__cpu *cpu;
    ftr__conv conv;
    bool gradient;
    int64_t to[2], from[2];
    int64_t to_channels, from_channels, to_group, from_group;
    int64_t phases[2],
        from_phase[2]; /* from a pixel of the result to the next with the same taps; its step in the source */
    int64_t tap_step[2], from_step[2];
    bool direct;         /* the source is the one plane */
    int64_t rows, block; /* rows and channels of the result a task */
    int64_t chunk;       /* channels that go through its rows together */
    int64_t parts, blocks;
    int64_t pixel; /* elements from a pixel of a plane to the next */
    size_t weight_bytes, pixel_bytes, row_bytes, plane_bytes;
    const float *source, *given_weight, *bias, *dy;
    bool relu;
    float *result;
    float *weight; /* [planes, taps, to_channels] */
    ftr__depthwise_span *pixel_spans;
    int64_t pixel_span_count;
    unsigned char *row_spans, *planes; /* row_bytes and plane_bytes a thread */
    int64_t pieces, piece_rows;
    float *partial; /* [pieces, planes, taps, to_channels] */
} ftr__depthwise_job;

/* The position of the source that a tap connects with position i of the result, or -1. */
static int64_t ftr__depthwise_at(const ftr__depthwise_job *w, int32_t d, int64_t i, int64_t tap) {
    const ftr__conv *v = &w->conv;
    if (!w->gradient) {
        const int64_t at = i * v->stride[d] + tap * v->dilation[d] - v->before[d];
        return at >= 0 && at < v->in[d] ? at : -1;
    }
    const int64_t at = i + v->before[d] - tap * v->dilation[d];
    return at >= 0 && at % v->stride[d] == 0 && at / v->stride[d] < v->out[d] ? at / v->stride[d] : -1;
}

static ftr__depthwise_taps ftr__depthwise_taps_at(const ftr__depthwise_job *w, int32_t d, int64_t i) {
    ftr__depthwise_taps taps = {0, 0, 0};
    const int64_t kernel = w->conv.kernel[d];
    for (int64_t k = 0; k < kernel; k++) {
        const int64_t tap = w->gradient ? kernel - 1 - k : k; /* forward in the source */
        const int64_t at = ftr__depthwise_at(w, d, i, tap);
        if (at < 0) continue;
        if (taps.count == 0) taps = (ftr__depthwise_taps){0, tap, at};
        taps.count++;
    }
    return taps;
}

/* The rows of the source that rows first to end - 1 of the result need. */
static void ftr__depthwise_source_rows(const ftr__depthwise_job *w, int64_t first, int64_t end, int64_t *low,
                                       int64_t *high) {
    *low = w->from[0];
    *high = 0;
    for (int64_t row = first; row < end; row++) {
        const ftr__depthwise_taps taps = ftr__depthwise_taps_at(w, 0, row);
        if (taps.count == 0) continue;
        *low = ftr__gemm_min(*low, taps.from);
        *high = ftr__gemm_max(*high, taps.from + (taps.count - 1) * w->from_step[0] + 1);
    }
    *high = ftr__gemm_max(*high, *low);
}

/* Whole groups, and whole vectors on all levels, nearest above `channels`. */
static int64_t ftr__depthwise_whole(const ftr__depthwise_job *w, int64_t channels) {
    const int64_t unit = FTR__DEPTHWISE_VECTORS * w->to_group / ftr__conv_gcd(FTR__DEPTHWISE_VECTORS, w->to_group);
    return ftr__gemm_min(ftr__gemm_ceil(ftr__gemm_max(channels, 1), unit) * unit, w->to_channels);
}

/* Memory for the planes of a task, a channel. */
static int64_t ftr__depthwise_plane_bytes(const ftr__depthwise_job *w) {
    int64_t rows = 0;
    for (int64_t first = 0; first < w->to[0]; first += w->rows) {
        int64_t low, high;
        ftr__depthwise_source_rows(w, first, ftr__gemm_min(first + w->rows, w->to[0]), &low, &high);
        rows = ftr__gemm_max(rows, high - low);
    }
    return (int64_t)sizeof(float) * w->from_group * rows * w->from[1];
}

/* Cuts images into rows of about the same number, and channels into blocks where planes would get too large or there would
 * be few tasks. */
static void ftr__depthwise_cut(ftr__depthwise_job *w) {
    const int64_t to = w->to[0] * w->to[1] * w->to_channels, from = w->from[0] * w->from[1] * w->from_channels;
    const int64_t bytes = (int64_t)sizeof(float) * ftr__gemm_max(to, from);
    const int64_t parts = ftr__gemm_max(ftr__gemm_ceil(bytes, FTR__DEPTHWISE_TASK_BYTES), 1);
    w->rows = ftr__gemm_ceil(ftr__gemm_max(w->to[0], 1), ftr__gemm_min(parts, ftr__gemm_max(w->to[0], 1)));
    w->parts = ftr__gemm_ceil(w->to[0], w->rows);
    const int64_t split = ftr__gemm_ceil(FTR__DEPTHWISE_TASKS, ftr__gemm_max(w->conv.n * w->parts, 1));
    w->block = ftr__depthwise_whole(w, ftr__gemm_ceil(w->to_channels, split));
    if (!w->direct) {
        const int64_t channel = ftr__depthwise_plane_bytes(w);
        const int64_t fit = FTR__DEPTHWISE_PLANES_BYTES / ftr__gemm_max(channel, 1);
        w->block = ftr__gemm_min(w->block, ftr__depthwise_whole(w, fit));
        w->plane_bytes = ftr__gemm_align((size_t)(channel * w->block));
    }
    w->blocks = ftr__gemm_ceil(w->to_channels, w->block);
    w->pixel = w->direct ? w->from_channels : w->block;
}

static void ftr__depthwise_open(const ftr_kernel_call *call, const ftr__conv *v, bool gradient, ftr__depthwise_job *w) {
    *w = (ftr__depthwise_job){.cpu = ftr__cpu_of(call), .conv = *v, .gradient = gradient};
    for (int32_t d = 0; d < 2; d++) {
        const int64_t period = v->stride[d] / ftr__conv_gcd(v->stride[d], v->dilation[d]);
        w->to[d] = gradient ? v->in[d] : v->out[d];
        w->from[d] = gradient ? v->out[d] : v->in[d];
        w->tap_step[d] = gradient ? -period : 1;
        w->from_step[d] = gradient ? period * v->dilation[d] / v->stride[d] : v->dilation[d];
        w->phases[d] = gradient ? v->stride[d] : 1;
        w->from_phase[d] = gradient ? 1 : v->stride[d];
    }
    w->to_channels = gradient ? v->c : v->o;
    w->from_channels = gradient ? v->o : v->c;
    w->to_group = gradient ? v->cg : v->og;
    w->from_group = gradient ? v->og : v->cg;
    w->direct = w->to_group == 1 && w->from_group == 1;
    w->weight_bytes = ftr__gemm_align((size_t)(w->from_group * v->taps * w->to_channels) * sizeof(float));
    w->pixel_bytes = ftr__gemm_align((size_t)w->to[1] * sizeof(ftr__depthwise_span));
    ftr__depthwise_cut(w);
    w->row_bytes = ftr__gemm_align((size_t)w->rows * sizeof(ftr__depthwise_span));
}

static size_t ftr__depthwise_threads(const ftr__depthwise_job *w) { return (size_t)ftr__pool_threads(w->cpu->pool); }

/* ------------------------------------------------------------------------------------------------------- planes -- */

/* What a task reads: plane j, row y, pixel x at data + j * plane + (y - first_row) * row + x * pixel of the job. */
typedef struct ftr__depthwise_source {
    const float *data;
    int64_t first_row, plane, row;
} ftr__depthwise_source;

/* A pixel's groups into the planes. With a constant group the copies are a few instructions. */
#define FTR__DEPTHWISE_SPREAD(size)                                                                                    \
    for (int64_t g = 0; g < groups; g++) {                                                                             \
        for (int64_t j = 0; j < from_group; j++) {                                                                     \
            float *const to = planes + j * plane + g * (size);                                                         \
            for (int64_t k = 0; k < (size); k++) to[k] = from[g * from_group + j];                                     \
        }                                                                                                              \
    }                                                                                                                  \
    break;

static void ftr__depthwise_spread(int64_t groups, int64_t from_group, int64_t to_group, const float *restrict from,
                                  int64_t plane, float *restrict planes) {
    switch (to_group) {
    case 1: FTR__DEPTHWISE_SPREAD(1)
    case 2: FTR__DEPTHWISE_SPREAD(2)
    case 4: FTR__DEPTHWISE_SPREAD(4)
    case 8: FTR__DEPTHWISE_SPREAD(8)
    default: FTR__DEPTHWISE_SPREAD(to_group)
    }
}
#undef FTR__DEPTHWISE_SPREAD

/* The source of rows first to end - 1 and channels c on of the result's image n. */
static ftr__depthwise_source ftr__depthwise_source_of(const ftr__depthwise_job *w, int64_t n, int64_t first,
                                                      int64_t end, int64_t c, int64_t channels, int32_t worker) {
    const int64_t row = w->from[1] * w->from_channels;
    const float *image = w->source + n * w->from[0] * row;
    if (w->direct) return (ftr__depthwise_source){image + c, 0, 0, row};
    float *planes = (float *)(void *)(w->planes + (size_t)worker * w->plane_bytes);
    int64_t low, high;
    ftr__depthwise_source_rows(w, first, end, &low, &high);
    const int64_t plane = (high - low) * w->from[1] * w->pixel;
    const float *from = image + low * row + c / w->to_group * w->from_group;
    for (int64_t pixel = 0; pixel < (high - low) * w->from[1]; pixel++)
        ftr__depthwise_spread(channels / w->to_group, w->from_group, w->to_group, from + pixel * w->from_channels,
                              plane, planes + pixel * w->pixel);
    return (ftr__depthwise_source){planes, low, plane, w->from[1] * w->pixel};
}

/* ------------------------------------------------------------------------------- the op and the input's gradient -- */

/* Some channels of the weight as planes, taps, channels. */
static void ftr__depthwise_weight_task(void *arg, int64_t task, int32_t worker) {
    const ftr__depthwise_job *w = (const ftr__depthwise_job *)arg;
    const ftr__conv *v = &w->conv;
    const int64_t first = task * FTR__DEPTHWISE_MOVED;
    const int64_t some = ftr__gemm_min(FTR__DEPTHWISE_MOVED, w->to_channels - first);
    (void)worker;
    for (int64_t c = first; c < first + some; c++) {
        for (int64_t j = 0; j < w->from_group; j++) {
            const int64_t o = w->gradient ? c / v->cg * v->og + j : c, i = w->gradient ? c % v->cg : j;
            const float *from = w->given_weight + o * v->taps * v->cg + i;
            float *to = w->weight + j * v->taps * w->to_channels + c;
            for (int64_t tap = 0; tap < v->taps; tap++) to[tap * w->to_channels] = from[tap * v->cg];
        }
    }
}

/* Rows first to end - 1 of the result, or pixels of its rows, as spans; those of all phases come side by side. Steps are
 * from position `from` of the source, from a tap, from a row or pixel of the result to the next. */
static int64_t ftr__depthwise_make_spans(const ftr__depthwise_job *w, int32_t d, int64_t first, int64_t end,
                                         int64_t from, const int64_t step[3], ftr__depthwise_span *spans) {
    int64_t count = 0;
    for (int64_t begin = first; begin < end; begin += FTR__DEPTHWISE_BLOCK * w->phases[d]) {
        const int64_t stop = ftr__gemm_min(begin + FTR__DEPTHWISE_BLOCK * w->phases[d], end);
        for (int64_t phase = begin; phase < ftr__gemm_min(begin + w->phases[d], end); phase++) {
            ftr__depthwise_span *last = NULL;
            for (int64_t i = phase; i < stop; i += w->phases[d]) {
                const ftr__depthwise_taps taps = ftr__depthwise_taps_at(w, d, i);
                if (last == NULL || last->taps != taps.count || last->w != taps.first * step[1]) {
                    last = &spans[count++];
                    last->x = taps.count > 0 ? (taps.from - from) * step[0] : 0;
                    last->w = taps.first * step[1];
                    last->y = (i - first) * step[2];
                    last->taps = taps.count;
                    last->count = 0;
                }
                last->count++;
            }
        }
    }
    return count;
}

static void ftr__depthwise_task(void *arg, int64_t task, int32_t worker) {
    const ftr__depthwise_job *w = (const ftr__depthwise_job *)arg;
    const ftr__conv *v = &w->conv;
    const int64_t c = task % w->blocks * w->block, part = task / w->blocks % w->parts;
    const int64_t n = task / (w->blocks * w->parts), first = part * w->rows;
    const int64_t end = ftr__gemm_min(first + w->rows, w->to[0]);
    const int64_t channels = ftr__gemm_min(w->block, w->to_channels - c);
    const ftr__depthwise_source source = ftr__depthwise_source_of(w, n, first, end, c, channels, worker);
    const int64_t row[3] = {source.row, v->kernel[1] * w->to_channels, w->to[1] * w->to_channels};
    ftr__depthwise_span *spans = (ftr__depthwise_span *)(void *)(w->row_spans + (size_t)worker * w->row_bytes);
    const ftr__depthwise_run run = {
        .channels = channels,
        .chunk = w->chunk,
        .planes = w->from_group,
        .row_span_count = ftr__depthwise_make_spans(w, 0, first, end, source.first_row, row, spans),
        .row_spans = spans,
        .pixel_span_count = w->pixel_span_count,
        .pixel_spans = w->pixel_spans,
        .x = source.data,
        .x_row = w->from_phase[0] * source.row,
        .x_pixel = w->from_phase[1] * w->pixel,
        .x_plane = source.plane,
        .x_tap_row = w->from_step[0] * source.row,
        .x_tap = w->from_step[1] * w->pixel,
        .w = w->weight + c,
        .w_plane = v->taps * w->to_channels,
        .w_tap_row = w->tap_step[0] * row[1],
        .w_tap = w->tap_step[1] * w->to_channels,
        .bias = w->bias ? w->bias + c : NULL,
        .relu = w->relu,
        .y = w->result + (n * w->to[0] + first) * row[2] + c,
        .y_row = w->phases[0] * row[2],
        .y_pixel = w->phases[1] * w->to_channels,
    };
    w->cpu->simd->depthwise.run(&run);
}

/* Channels that go through a task's rows together: the pixels that a block meets fit the nearest cache. */
static int64_t ftr__depthwise_chunk(const ftr__depthwise_job *w) {
    const ftr__conv *v = &w->conv;
    const int64_t pixels = (v->kernel[1] - 1) * w->from_step[1] + (FTR__DEPTHWISE_BLOCK - 1) * w->from_phase[1] + 1;
    const int64_t channel = (int64_t)sizeof(float) * w->from_group * v->kernel[0] * pixels;
    return ftr__gemm_max(FTR__DEPTHWISE_NEAR_BYTES / channel / FTR__DEPTHWISE_VECTORS, 1) * FTR__DEPTHWISE_VECTORS;
}

size_t ftr__depthwise_workspace(const ftr_kernel_call *call, const ftr__conv *v, bool gradient) {
    ftr__depthwise_job w;
    ftr__depthwise_open(call, v, gradient, &w);
    return w.weight_bytes + w.pixel_bytes + (w.row_bytes + w.plane_bytes) * ftr__depthwise_threads(&w);
}

void ftr__depthwise(const ftr_kernel_call *call, const ftr__conv *v, bool gradient) {
    if (call->out[0].count == 0) return;
    ftr__depthwise_job w;
    ftr__depthwise_open(call, v, gradient, &w);
    unsigned char *next = (unsigned char *)call->workspace;
    w.weight = (float *)(void *)next;
    w.pixel_spans = (ftr__depthwise_span *)(void *)(next + w.weight_bytes);
    w.row_spans = next + w.weight_bytes + w.pixel_bytes;
    w.planes = w.row_spans + w.row_bytes * ftr__depthwise_threads(&w);
    w.source = (const float *)call->in[0].data;
    w.given_weight = (const float *)call->in[1].data;
    w.result = (float *)call->out[0].data;
    if (!gradient) {
        w.bias = call->in_count > 2 ? (const float *)call->in[2].data : NULL;
        w.relu = call->attr->conv.activation == FTR_ACT_RELU;
    }
    w.chunk = ftr__depthwise_chunk(&w);
    const int64_t pixel[3] = {w.pixel, w.to_channels, w.to_channels};
    w.pixel_span_count = ftr__depthwise_make_spans(&w, 1, 0, w.to[1], 0, pixel, w.pixel_spans);
    ftr__pool *pool = w.cpu->pool;
    ftr__pool_run(pool, ftr__gemm_ceil(w.to_channels, FTR__DEPTHWISE_MOVED), ftr__depthwise_weight_task, &w);
    ftr__pool_run(pool, v->n * w.parts * w.blocks, ftr__depthwise_task, &w);
}

/* ---------------------------------------------------------------------------------------- the weight's gradient -- */

/* Neighbouring taps that the SIMD function takes at once. */
static int64_t ftr__depthwise_tap_run(int64_t left) {
    return left >= FTR__DEPTHWISE_TAPS ? FTR__DEPTHWISE_TAPS : left >= 3 ? 3 : 1;
}

/* The pixels of a row of dy that a column of taps connects with x: first to last - 1. */
static void ftr__depthwise_reach(const ftr__conv *v, int64_t tap, int64_t *first, int64_t *last) {
    const int64_t at = tap * v->dilation[1] - v->before[1], stride = v->stride[1];
    *first = at < 0 ? ftr__gemm_ceil(-at, stride) : 0;
    *last = at < v->in[1] ? ftr__gemm_min(ftr__gemm_ceil(v->in[1] - at, stride), v->out[1]) : 0;
    *last = ftr__gemm_max(*first, *last);
}

/* Adds what rows first to first + sums->rows - 1 of dy, which have the same taps, give to `sum`, which has the place of
 * the first channel. */
static void ftr__depthwise_add_rows(const ftr__depthwise_job *w, const ftr__depthwise_source *source,
                                    const ftr__depthwise_taps *taps, ftr__depthwise_sums *sums, float *sum) {
    const ftr__conv *v = &w->conv;
    sums->tap_rows = taps->count;
    for (int64_t j = 0; j < w->from_group; j++) {
        sums->x = source->data + j * source->plane;
        for (int64_t t = 0; t < v->kernel[1]; t += sums->taps) {
            sums->taps = ftr__depthwise_tap_run(v->kernel[1] - t);
            for (int64_t i = 0; i < sums->taps; i++) ftr__depthwise_reach(v, t + i, &sums->first[i], &sums->last[i]);
            sums->at = (taps->from - source->first_row) * source->row + (t * v->dilation[1] - v->before[1]) * w->pixel;
            sums->sum = sum + ((j * v->kernel[0] + taps->first) * v->kernel[1] + t) * v->o;
            w->cpu->simd->depthwise.sums(sums);
        }
    }
}

/* Rows first to end - 1 of dy's image n, for `channels` channels from c on. */
static void ftr__depthwise_add_image(const ftr__depthwise_job *w, int64_t n, int64_t first, int64_t end, int64_t c,
                                     int64_t channels, int32_t worker, float *sum) {
    const ftr__conv *v = &w->conv;
    const ftr__depthwise_source source = ftr__depthwise_source_of(w, n, first, end, c, channels, worker);
    ftr__depthwise_sums sums = {.channels = channels, .dy_row = v->out[1] * v->o, .dy_pixel = v->o};
    sums.x_row = v->stride[0] * source.row;
    sums.x_pixel = v->stride[1] * w->pixel;
    sums.x_tap_row = v->dilation[0] * source.row;
    sums.x_tap = v->dilation[1] * w->pixel;
    sums.sum_tap_row = v->kernel[1] * v->o;
    sums.sum_tap = v->o;
    for (int64_t row = first; row < end; row += sums.rows) {
        const ftr__depthwise_taps taps = ftr__depthwise_taps_at(w, 0, row);
        for (sums.rows = 1; sums.rows < FTR__DEPTHWISE_ROWS && row + sums.rows < end; sums.rows++) {
            const ftr__depthwise_taps next = ftr__depthwise_taps_at(w, 0, row + sums.rows);
            if (next.count != taps.count || next.first != taps.first) break;
        }
        sums.dy = w->dy + (n * v->out[0] + row) * sums.dy_row + c;
        if (taps.count > 0) ftr__depthwise_add_rows(w, &source, &taps, &sums, sum + c);
    }
}

/* One piece of the rows of dy, one block of channels. */
static void ftr__depthwise_piece_task(void *arg, int64_t task, int32_t worker) {
    const ftr__depthwise_job *w = (const ftr__depthwise_job *)arg;
    const ftr__conv *v = &w->conv;
    const int64_t c = task % w->blocks * w->block, piece = task / w->blocks, planes = w->from_group * v->taps;
    const int64_t channels = ftr__gemm_min(w->block, v->o - c);
    const int64_t end = ftr__gemm_min((piece + 1) * w->piece_rows, v->n * v->out[0]);
    float *sum = w->partial + piece * planes * v->o;
    for (int64_t k = 0; k < planes; k++) memset(sum + k * v->o + c, 0, (size_t)channels * sizeof(float));
    for (int64_t row = piece * w->piece_rows; row < end;) {
        const int64_t n = row / v->out[0], a = row % v->out[0];
        const int64_t rows = ftr__gemm_min(ftr__gemm_min(w->rows - a % w->rows, v->out[0] - a), end - row);
        ftr__depthwise_add_image(w, n, a, a + rows, c, channels, worker, sum);
        row += rows;
    }
}

/* Adds the pieces in their order, and puts some channels of the sum where the weight's are. */
static void ftr__depthwise_sum_task(void *arg, int64_t task, int32_t worker) {
    const ftr__depthwise_job *w = (const ftr__depthwise_job *)arg;
    const ftr__conv *v = &w->conv;
    const int64_t first = task * FTR__DEPTHWISE_MOVED, count = ftr__gemm_min(FTR__DEPTHWISE_MOVED, v->o - first);
    const int64_t planes = w->from_group * v->taps;
    (void)worker;
    for (int64_t k = 0; k < planes; k++) {
        const int64_t j = k / v->taps, tap = k % v->taps;
        float *sum = w->partial + k * v->o + first;
        for (int64_t p = 1; p < w->pieces; p++) w->cpu->simd->gemm.accumulate(count, sum + p * planes * v->o, sum);
        for (int64_t o = 0; o < count; o++) w->result[((first + o) * v->taps + tap) * v->cg + j] = sum[o];
    }
}

/* Pieces that make enough tasks, and whose sums are small beside what they are the sums of. */
static void ftr__depthwise_open_sums(const ftr_kernel_call *call, const ftr__conv *v, ftr__depthwise_job *w) {
    ftr__depthwise_open(call, v, false, w);
    const int64_t rows = v->n * v->out[0], useful = rows * v->out[1] / (8 * v->taps * w->from_group);
    w->pieces = ftr__gemm_max(ftr__gemm_min(ftr__gemm_min(useful, rows), FTR__DEPTHWISE_PIECES), 1);
    w->piece_rows = ftr__gemm_max(ftr__gemm_ceil(rows, w->pieces), 1);
    w->pieces = ftr__gemm_max(ftr__gemm_ceil(rows, w->piece_rows), 1);
    if (w->direct) {
        w->rows = ftr__gemm_max(v->out[0], 1);
        w->block = ftr__depthwise_whole(w, ftr__gemm_ceil(v->o, ftr__gemm_ceil(v->o, FTR__DEPTHWISE_CHANNELS)));
        w->blocks = ftr__gemm_ceil(v->o, w->block);
    }
}

static size_t ftr__depthwise_partial_bytes(const ftr__depthwise_job *w) {
    const ftr__conv *v = &w->conv;
    return ftr__gemm_align((size_t)(w->pieces * w->from_group * v->taps * v->o) * sizeof(float));
}

size_t ftr__depthwise_weight_workspace(const ftr_kernel_call *call, const ftr__conv *v) {
    ftr__depthwise_job w;
    ftr__depthwise_open_sums(call, v, &w);
    return ftr__depthwise_partial_bytes(&w) + w.plane_bytes * ftr__depthwise_threads(&w);
}

void ftr__depthwise_weight_gradient(const ftr_kernel_call *call, const ftr__conv *v) {
    ftr__depthwise_job w;
    ftr__depthwise_open_sums(call, v, &w);
    w.partial = (float *)call->workspace;
    w.planes = (unsigned char *)call->workspace + ftr__depthwise_partial_bytes(&w);
    w.dy = (const float *)call->in[0].data;
    w.source = (const float *)call->in[1].data;
    w.result = (float *)call->out[0].data;
    ftr__pool_run(w.cpu->pool, w.pieces * w.blocks, ftr__depthwise_piece_task, &w);
    ftr__pool_run(w.cpu->pool, ftr__gemm_ceil(v->o, FTR__DEPTHWISE_MOVED), ftr__depthwise_sum_task, &w);
}

/* ---- src/backend/cpu/norm.c ---- */
/* Batch normalization. Statistics: each chunk of rows gives a mean and a sum of squared deviations from it; chunks
 * are combined in order, in double (Chan, Golub, LeVeque: Updating Formulae and a Pairwise Algorithm for Computing
 * Sample Variances, 1979). All of it is relative to the first row that counts, so that a mean far from 0 costs no
 * precision. */

#define FTR__NORM_TILE 256    /* channels of a task that computes statistics */
#define FTR__NORM_CHUNK 32768 /* elements of such a task */
#define FTR__NORM_GRAIN 16384 /* elements of a task that computes results */

typedef struct ftr__norm_job {
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    int64_t rows, channels, tiles, chunks, rows_per_chunk, rows_per_task;
    const float *mask;       /* NULL: all rows count */
    int64_t rows_per_sample; /* a sample has one element of the mask */
    int64_t center;          /* the first row that counts */
    float *partial;          /* [chunks][2][channels] */
    float *coefficients;     /* [4][channels]; forward: scale and shift; gradient: a, b, c, zeros */
} ftr__norm_job;

/* The sizes; data pointers are not looked at. */
static ftr__norm_job ftr__norm_job_of(const ftr_kernel_call *call, const ftr_view *x) {
    ftr__norm_job job = {.call = call, .channels = x->shape.dim[x->shape.rank - 1]};
    job.rows = job.channels > 0 ? x->count / job.channels : 0;
    const int64_t width = job.channels < FTR__NORM_TILE ? job.channels : FTR__NORM_TILE;
    job.tiles = (job.channels + FTR__NORM_TILE - 1) / FTR__NORM_TILE;
    job.rows_per_chunk = width > 0 ? FTR__NORM_CHUNK / width : 1;
    job.chunks = (job.rows + job.rows_per_chunk - 1) / job.rows_per_chunk;
    job.rows_per_task = 1 + FTR__NORM_GRAIN / (job.channels > 0 ? job.channels : 1);
    job.rows_per_sample = x->shape.dim[0] > 0 ? job.rows / x->shape.dim[0] : 1;
    return job;
}

static size_t ftr__norm_workspace(const ftr__norm_job *job) {
    return (size_t)((job->chunks * 2 + 4) * job->channels) * sizeof(float);
}

static void ftr__norm_prepare(ftr__norm_job *job, const ftr_view *mask) {
    job->math = &ftr__cpu_of(job->call)->simd->math;
    job->partial = job->call->workspace;
    job->coefficients = job->partial + job->chunks * 2 * job->channels;
    job->mask = mask ? mask->data : NULL;
}

/* The end of the run of rows from `row` on that all count or all do not count; *counts says which. */
static int64_t ftr__norm_run(const ftr__norm_job *job, int64_t row, int64_t end, bool *counts) {
    *counts = true;
    if (!job->mask) return end;
    int64_t sample = row / job->rows_per_sample;
    *counts = job->mask[sample] != 0.0f;
    while (row < end && (job->mask[sample] != 0.0f) == *counts) row = ++sample * job->rows_per_sample;
    return row < end ? row : end;
}

static int64_t ftr__norm_chunk_end(const ftr__norm_job *job, int64_t begin) {
    return job->rows - begin < job->rows_per_chunk ? job->rows : begin + job->rows_per_chunk;
}

static int64_t ftr__norm_tile_width(const ftr__norm_job *job, int64_t column) {
    return job->channels - column < FTR__NORM_TILE ? job->channels - column : FTR__NORM_TILE;
}

/* Rows of a chunk that count. */
static int64_t ftr__norm_count(const ftr__norm_job *job, int64_t chunk) {
    const int64_t begin = chunk * job->rows_per_chunk, end = ftr__norm_chunk_end(job, begin);
    int64_t count = 0;
    for (int64_t row = begin; row < end;) {
        bool counts;
        const int64_t stop = ftr__norm_run(job, row, end, &counts);
        if (counts) count += stop - row;
        row = stop;
    }
    return count;
}

/* ------------------------------------------------------------------------------------------------------- forward -- */

/* Mean and squared deviations of one chunk and tile: two passes over data that fit the cache. */
static void ftr__norm_statistics_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const int64_t chunk = task / job->tiles, column = task % job->tiles * FTR__NORM_TILE;
    const int64_t begin = chunk * job->rows_per_chunk, end = ftr__norm_chunk_end(job, begin);
    const int64_t width = ftr__norm_tile_width(job, column), stride = job->channels;
    const float *x = (const float *)job->call->in[0].data + column, *center = x + job->center * stride;
    float *mean = job->partial + chunk * 2 * job->channels + column, *deviation = mean + job->channels;
    (void)worker;
    for (int64_t j = 0; j < width; j++) mean[j] = deviation[j] = 0.0f;
    const int64_t count = ftr__norm_count(job, chunk);
    if (count == 0) return;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t row = begin; row < end;) {
            bool counts;
            const int64_t stop = ftr__norm_run(job, row, end, &counts);
            if (counts && pass == 0)
                job->math->column_centered_sum(stop - row, width, x + row * stride, stride, center, mean);
            if (counts && pass == 1)
                job->math->column_deviation(stop - row, width, x + row * stride, stride, center, mean, deviation);
            row = stop;
        }
        if (pass == 0)
            for (int64_t j = 0; j < width; j++) mean[j] /= (float)count;
    }
}

/* Fills mean, unbiased variance, 1 / std, and scale and shift of one channel. The shift makes up for the mean's
 * rounding. */
static void ftr__norm_finish(const ftr__norm_job *job, int64_t channel, double mean, double biased, double unbiased) {
    const ftr_kernel_call *call = job->call;
    const double invstd = 1.0 / sqrt(biased + call->attr->norm.eps);
    const double scale = (double)((const float *)call->in[1].data)[channel] * invstd;
    const float rounded = (float)mean;
    ((float *)call->out[1].data)[channel] = rounded;
    ((float *)call->out[2].data)[channel] = (float)unbiased;
    ((float *)call->out[3].data)[channel] = (float)invstd;
    job->coefficients[channel] = (float)scale;
    job->coefficients[job->channels + channel] =
        (float)((double)((const float *)call->in[2].data)[channel] + ((double)rounded - mean) * scale);
}

/* The running statistics stand in where they are asked for, and in training where no row counts. */
static void ftr__norm_use_running(const ftr__norm_job *job, int64_t column, int64_t width) {
    const float *mean = job->call->in[3].data, *variance = job->call->in[4].data;
    for (int64_t c = column; c < column + width; c++)
        ftr__norm_finish(job, c, (double)mean[c], (double)variance[c], (double)variance[c]);
}

/* Combines the chunks of one tile. */
static void ftr__norm_combine_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const int64_t column = task * FTR__NORM_TILE, width = ftr__norm_tile_width(job, column);
    double mean[FTR__NORM_TILE] = {0}, deviation[FTR__NORM_TILE] = {0}, total = 0;
    (void)worker;
    for (int64_t chunk = 0; chunk < job->chunks; chunk++) {
        const double count = (double)ftr__norm_count(job, chunk);
        if (count == 0) continue;
        const float *chunk_mean = job->partial + chunk * 2 * job->channels + column;
        const float *chunk_deviation = chunk_mean + job->channels;
        const double share = count / (total + count), between = total * share;
        for (int64_t j = 0; j < width; j++) {
            const double apart = (double)chunk_mean[j] - mean[j];
            mean[j] += apart * share;
            deviation[j] += (double)chunk_deviation[j] + apart * apart * between;
        }
        total += count;
    }
    if (total == 0) {
        ftr__norm_use_running(job, column, width);
        return;
    }
    const float *center = (const float *)job->call->in[0].data + job->center * job->channels + column;
    for (int64_t j = 0; j < width; j++)
        ftr__norm_finish(job, column + j, (double)center[j] + mean[j], deviation[j] / total,
                         deviation[j] / (total > 1 ? total - 1 : 1));
}

static void ftr__norm_apply_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const ftr_view *residual = ftr__optional_input(call, 6);
    const int64_t first = task * job->rows_per_task, at = first * job->channels;
    const int64_t rows = job->rows - first < job->rows_per_task ? job->rows - first : job->rows_per_task;
    (void)worker;
    job->math->norm_apply(rows, job->channels, (const float *)call->in[0].data + at, call->out[1].data,
                          job->coefficients, job->coefficients + job->channels,
                          residual ? (const float *)residual->data + at : NULL,
                          call->attr->norm.activation == FTR_ACT_RELU, (float *)call->out[0].data + at);
}

size_t ftr__cpu_batch_norm_workspace(const ftr_kernel_call *call) {
    const ftr__norm_job job = ftr__norm_job_of(call, &call->in[0]);
    return ftr__norm_workspace(&job);
}

ftr_status ftr__cpu_batch_norm(const ftr_kernel_call *call) {
    ftr__pool *pool = ftr__cpu_of(call)->pool;
    ftr__norm_job job = ftr__norm_job_of(call, &call->in[0]);
    ftr__norm_prepare(&job, ftr__optional_input(call, 5));
    if (call->attr->norm.training) {
        bool counts = true;
        const int64_t stop = ftr__norm_run(&job, 0, job.rows, &counts);
        job.center = counts || stop == job.rows ? 0 : stop;
        ftr__pool_run(pool, job.chunks * job.tiles, ftr__norm_statistics_task, &job);
        ftr__pool_run(pool, job.tiles, ftr__norm_combine_task, &job);
    } else {
        ftr__norm_use_running(&job, 0, job.channels);
    }
    ftr__pool_run(pool, (job.rows + job.rows_per_task - 1) / job.rows_per_task, ftr__norm_apply_task, &job);
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------ gradient -- */

/* y, where the gradient passes only the positive ones; NULL without an activation. */
static const float *ftr__norm_grad_y(const ftr_kernel_call *call) {
    const ftr_view *y = call->attr->norm.activation == FTR_ACT_RELU ? ftr__optional_input(call, 6) : NULL;
    return y ? y->data : NULL;
}

static void ftr__norm_grad_sums_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const int64_t chunk = task / job->tiles, column = task % job->tiles * FTR__NORM_TILE;
    const int64_t begin = chunk * job->rows_per_chunk, end = ftr__norm_chunk_end(job, begin);
    const int64_t width = ftr__norm_tile_width(job, column), stride = job->channels;
    const float *dy = (const float *)call->in[0].data + column, *x = (const float *)call->in[1].data + column;
    const float *y = ftr__norm_grad_y(call), *mean = (const float *)call->in[3].data + column;
    float *sum = job->partial + chunk * 2 * job->channels + column, *product = sum + job->channels;
    (void)worker;
    for (int64_t j = 0; j < width; j++) sum[j] = product[j] = 0.0f;
    const int64_t at = begin * stride;
    job->math->norm_grad_sums(end - begin, width, stride, dy + at, x + at, y ? y + column + at : NULL, mean, sum, product);
}

/* dgamma and dbeta of one tile, and the coefficients of dx = g a + (x - mean) b + c. In training
 * dx = gamma / std * (g - dbeta / n - xhat * dgamma / n) over the n rows that count (Ioffe, Szegedy, 2015). Rows that do not
 * count are normalized by the others' statistics: they give to dgamma and dbeta, and for their own dx b and c are 0. */
static void ftr__norm_grad_combine_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const int64_t column = task * FTR__NORM_TILE, width = ftr__norm_tile_width(job, column);
    double sum[FTR__NORM_TILE] = {0}, product[FTR__NORM_TILE] = {0}, total = 0;
    (void)worker;
    for (int64_t chunk = 0; chunk < job->chunks; chunk++) {
        const float *chunk_sum = job->partial + chunk * 2 * job->channels + column;
        for (int64_t j = 0; j < width; j++) sum[j] += (double)chunk_sum[j];
        for (int64_t j = 0; j < width; j++) product[j] += (double)chunk_sum[job->channels + j];
        total += (double)ftr__norm_count(job, chunk);
    }
    const double share = call->attr->norm.training && total > 0 ? 1.0 / total : 0.0;
    for (int64_t j = 0; j < width; j++) {
        const int64_t c = column + j;
        const double invstd = (double)((const float *)call->in[4].data)[c], dgamma = product[j] * invstd;
        const double a = (double)((const float *)call->in[2].data)[c] * invstd;
        ((float *)call->out[1].data)[c] = (float)dgamma;
        ((float *)call->out[2].data)[c] = (float)sum[j];
        job->coefficients[c] = (float)a;
        job->coefficients[job->channels + c] = (float)(-a * invstd * dgamma * share);
        job->coefficients[2 * job->channels + c] = (float)(-a * sum[j] * share);
        job->coefficients[3 * job->channels + c] = 0.0f;
    }
}

static void ftr__norm_grad_apply_task(void *arg, int64_t task, int32_t worker) {
    const ftr__norm_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const int64_t begin = task * job->rows_per_task, channels = job->channels;
    const int64_t end = job->rows - begin < job->rows_per_task ? job->rows : begin + job->rows_per_task;
    const float *dy = call->in[0].data, *x = call->in[1].data, *y = ftr__norm_grad_y(call), *a = job->coefficients;
    const float *zeros = a + 3 * channels;
    float *dx = call->out[0].data;
    (void)worker;
    for (int64_t row = begin; row < end;) {
        bool counts;
        const int64_t stop = ftr__norm_run(job, row, end, &counts), at = row * channels;
        job->math->norm_grad_apply(stop - row, channels, dy + at, x + at, y ? y + at : NULL, call->in[3].data, a,
                                   counts ? a + channels : zeros, counts ? a + 2 * channels : zeros, dx + at);
        row = stop;
    }
}

size_t ftr__cpu_batch_norm_grad_workspace(const ftr_kernel_call *call) {
    const ftr__norm_job job = ftr__norm_job_of(call, &call->in[1]);
    return ftr__norm_workspace(&job);
}

ftr_status ftr__cpu_batch_norm_grad(const ftr_kernel_call *call) {
    ftr__pool *pool = ftr__cpu_of(call)->pool;
    ftr__norm_job job = ftr__norm_job_of(call, &call->in[1]);
    /* With running statistics rows do not depend on each other, and the mask has no say. */
    ftr__norm_prepare(&job, call->attr->norm.training ? ftr__optional_input(call, 5) : NULL);
    ftr__pool_run(pool, job.chunks * job.tiles, ftr__norm_grad_sums_task, &job);
    ftr__pool_run(pool, job.tiles, ftr__norm_grad_combine_task, &job);
    ftr__pool_run(pool, (job.rows + job.rows_per_task - 1) / job.rows_per_task, ftr__norm_grad_apply_task, &job);
    return FTR_OK;
}

/* ---- src/backend/cpu/row_norm.c ---- */
/* Layer norm, RMS norm and group norm. Statistics take two passes: sums of x - x0 give the mean, sums of x - mean and
 * of their squares the variance, with what the rounding of the mean left over. Sums for gamma and beta are in f32
 * within a chunk of rows; chunks are added in order, in double. */

#define FTR__ROW_NORM_GRAIN 16384 /* elements of a task that computes rows */
#define FTR__ROW_NORM_TILE 512    /* columns of a task that computes dgamma and dbeta */
#define FTR__ROW_NORM_CHUNK 32768 /* elements of such a task */
#define FTR__ROW_NORM_ROWS 256    /* rows of such a task, at most */

typedef struct ftr__row_norm_job {
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    const float *gamma, *mean, *invstd; /* NULL where missing */
    int64_t n, rows, rows_per_task, tiles, chunks, rows_per_chunk;
    bool rms;
    float *partial; /* [chunks][2][n] */
} ftr__row_norm_job;

/* The sizes; data pointers are not looked at. */
static ftr__row_norm_job ftr__row_norm_job_of(const ftr_kernel_call *call, const ftr_view *x) {
    ftr__row_norm_job job = {.call = call, .n = 1, .rows = 1};
    const int32_t leading = x->shape.rank - call->attr->row_norm.dims;
    for (int32_t d = 0; d < x->shape.rank; d++) *(d < leading ? &job.rows : &job.n) *= x->shape.dim[d];
    job.rms = call->op == FTR_OP_rms_norm || call->op == FTR_OP_rms_norm_grad;
    job.rows_per_task = 1 + FTR__ROW_NORM_GRAIN / (job.n > 0 ? job.n : 1);
    const int64_t width = job.n < FTR__ROW_NORM_TILE ? job.n : FTR__ROW_NORM_TILE;
    job.rows_per_chunk = width > 0 ? FTR__ROW_NORM_CHUNK / width : 1;
    if (job.rows_per_chunk > FTR__ROW_NORM_ROWS) job.rows_per_chunk = FTR__ROW_NORM_ROWS;
    job.tiles = (job.n + FTR__ROW_NORM_TILE - 1) / FTR__ROW_NORM_TILE;
    job.chunks = (job.rows + job.rows_per_chunk - 1) / job.rows_per_chunk;
    return job;
}

static const float *ftr__row_norm_data(const ftr_kernel_call *call, int32_t input) {
    const ftr_view *view = ftr__optional_input(call, input);
    return view ? view->data : NULL;
}

static int64_t ftr__row_norm_end(int64_t begin, int64_t some, int64_t end) {
    return end - begin < some ? end : begin + some;
}

/* --------------------------------------------------------------------------------------------layer and RMS norm -- */

static void ftr__row_norm_row(const ftr__row_norm_job *job, int64_t row, const float *beta) {
    const ftr_kernel_call *call = job->call;
    const double n = (double)job->n;
    const float *x = (const float *)call->in[0].data + row * job->n;
    float *statistics = (float *)call->out[1].data + row, rounded = 0.0f;
    double sums[2] = {0, 0}, left = 0;
    if (!job->rms) {
        const float first = job->n > 0 ? x[0] : 0.0f;
        job->math->row_moments(job->n, x, first, NULL, NULL, sums);
        rounded = (float)((double)first + sums[0] / n);
        *statistics = rounded;
        statistics = (float *)call->out[2].data + row;
    }
    job->math->row_moments(job->n, x, rounded, NULL, NULL, sums);
    if (!job->rms) left = sums[0] / n;
    const double variance = sums[1] / n - left * left;
    const double invstd = 1.0 / sqrt((variance > 0 || isnan(variance) ? variance : 0.0) + call->attr->row_norm.eps);
    *statistics = (float)invstd;
    job->math->row_norm(job->n, x, rounded, (float)invstd, (float)(-left * invstd), job->gamma, beta,
                        (float *)call->out[0].data + row * job->n);
}

static void ftr__row_norm_task(void *arg, int64_t task, int32_t worker) {
    const ftr__row_norm_job *job = arg;
    const int64_t begin = task * job->rows_per_task, end = ftr__row_norm_end(begin, job->rows_per_task, job->rows);
    const float *beta = ftr__row_norm_data(job->call, 2);
    (void)worker;
    for (int64_t row = begin; row < end; row++) ftr__row_norm_row(job, row, beta);
}

ftr_status ftr__cpu_row_norm(const ftr_kernel_call *call) {
    ftr__row_norm_job job = ftr__row_norm_job_of(call, &call->in[0]);
    job.math = &ftr__cpu_of(call)->simd->math;
    job.gamma = ftr__row_norm_data(call, 1);
    ftr__pool_run(ftr__cpu_of(call)->pool, (job.rows + job.rows_per_task - 1) / job.rows_per_task, ftr__row_norm_task,
                  &job);
    return FTR_OK;
}

/* With u = dy gamma and z = (x - mean) / std: dx = (u - mean of u - z mean of u z) / std; RMS norm has no mean of u. */
static void ftr__row_norm_grad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__row_norm_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const int64_t begin = task * job->rows_per_task, end = ftr__row_norm_end(begin, job->rows_per_task, job->rows);
    (void)worker;
    for (int64_t row = begin; row < end; row++) {
        const int64_t at = row * job->n;
        const float *dy = (const float *)call->in[0].data + at, *x = (const float *)call->in[1].data + at;
        const float mean = job->rms ? 0.0f : job->mean[row];
        const double invstd = (double)job->invstd[row], n = (double)job->n;
        double sums[2];
        job->math->row_moments(job->n, x, mean, dy, job->gamma, sums);
        const double b = -invstd * invstd * sums[1] / n, c = job->rms ? 0.0 : -sums[0] / n;
        job->math->row_norm_grad(job->n, dy, x, mean, job->gamma, (float)invstd, (float)b, (float)c,
                                 (float *)call->out[0].data + at);
    }
}

static void ftr__row_norm_sums_task(void *arg, int64_t task, int32_t worker) {
    const ftr__row_norm_job *job = arg;
    const int64_t chunk = task / job->tiles, column = task % job->tiles * FTR__ROW_NORM_TILE;
    const int64_t begin = chunk * job->rows_per_chunk, end = ftr__row_norm_end(begin, job->rows_per_chunk, job->rows);
    const int64_t width = ftr__row_norm_end(column, FTR__ROW_NORM_TILE, job->n) - column;
    const float *dy = (const float *)job->call->in[0].data + column;
    const float *x = (const float *)job->call->in[1].data + column;
    float *sum = job->partial + chunk * 2 * job->n + column, *product = sum + job->n;
    (void)worker;
    for (int64_t j = 0; j < width; j++) sum[j] = product[j] = 0.0f;
    for (int64_t row = begin; row < end; row++)
        job->math->row_norm_sums(width, dy + row * job->n, x + row * job->n, job->rms ? 0.0f : job->mean[row],
                                 job->invstd[row], sum, product);
}

static void ftr__row_norm_combine_task(void *arg, int64_t task, int32_t worker) {
    const ftr__row_norm_job *job = arg;
    const int64_t column = task * FTR__ROW_NORM_TILE;
    const int64_t width = ftr__row_norm_end(column, FTR__ROW_NORM_TILE, job->n) - column;
    double sum[FTR__ROW_NORM_TILE] = {0}, product[FTR__ROW_NORM_TILE] = {0};
    (void)worker;
    for (int64_t chunk = 0; chunk < job->chunks; chunk++) {
        const float *from = job->partial + chunk * 2 * job->n + column;
        for (int64_t j = 0; j < width; j++) sum[j] += (double)from[j];
        for (int64_t j = 0; j < width; j++) product[j] += (double)from[job->n + j];
    }
    for (int64_t j = 0; j < width; j++) ((float *)job->call->out[1].data)[column + j] = (float)product[j];
    for (int64_t j = 0; j < width && !job->rms; j++) ((float *)job->call->out[2].data)[column + j] = (float)sum[j];
}

size_t ftr__cpu_row_norm_grad_workspace(const ftr_kernel_call *call) {
    const ftr__row_norm_job job = ftr__row_norm_job_of(call, &call->in[1]);
    return call->attr->row_norm.sums ? (size_t)(job.chunks * 2 * job.n) * sizeof(float) : 0;
}

/* The sums come first: dx may lie in dy's memory. */
ftr_status ftr__cpu_row_norm_grad(const ftr_kernel_call *call) {
    ftr__pool *pool = ftr__cpu_of(call)->pool;
    ftr__row_norm_job job = ftr__row_norm_job_of(call, &call->in[1]);
    job.math = &ftr__cpu_of(call)->simd->math;
    job.mean = job.rms ? NULL : call->in[2].data;
    job.invstd = call->in[job.rms ? 2 : 3].data;
    job.gamma = ftr__row_norm_data(call, job.rms ? 3 : 4);
    job.partial = call->workspace;
    if (call->attr->row_norm.sums) {
        ftr__pool_run(pool, job.chunks * job.tiles, ftr__row_norm_sums_task, &job);
        ftr__pool_run(pool, job.tiles, ftr__row_norm_combine_task, &job);
    }
    ftr__pool_run(pool, (job.rows + job.rows_per_task - 1) / job.rows_per_task, ftr__row_norm_grad_task, &job);
    return FTR_OK;
}

/* ----------------------------------------------------------------------------------------------------group norm -- */

/* Sums of a channel over chunks of a sample's positions; then of a group over its channels, in double. */
typedef struct ftr__group_norm_job {
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    const float *gamma; /* NULL where missing */
    int64_t samples, positions, channels, width; /* width: channels of a group */
    int64_t chunks, positions_per_chunk;         /* of a sample */
    float *partial;      /* [samples][chunks][2][channels] */
    float *coefficients; /* [samples][4][channels]; forward: mean, scale, shift; gradient: mean, a, b, c */
} ftr__group_norm_job;

/* The sizes; data pointers are not looked at. */
static ftr__group_norm_job ftr__group_norm_job_of(const ftr_kernel_call *call, const ftr_view *x) {
    ftr__group_norm_job job = {.call = call, .samples = x->shape.dim[0], .positions = 1};
    job.channels = x->shape.dim[x->shape.rank - 1];
    job.width = job.channels / call->attr->row_norm.groups;
    for (int32_t d = 1; d < x->shape.rank - 1; d++) job.positions *= x->shape.dim[d];
    job.positions_per_chunk = 1 + FTR__ROW_NORM_CHUNK / (job.channels > 0 ? job.channels : 1);
    job.chunks = (job.positions + job.positions_per_chunk - 1) / job.positions_per_chunk;
    return job;
}

static size_t ftr__group_norm_workspace(const ftr__group_norm_job *job) {
    return (size_t)(job->samples * (job->chunks * 2 + 4) * job->channels) * sizeof(float);
}

static void ftr__group_norm_prepare(ftr__group_norm_job *job, int32_t gamma) {
    job->math = &ftr__cpu_of(job->call)->simd->math;
    job->gamma = ftr__row_norm_data(job->call, gamma);
    job->partial = job->call->workspace;
    job->coefficients = job->partial + job->samples * job->chunks * 2 * job->channels;
}

/* Positions of a chunk, which begin at element *at; its partial sums are set to 0. */
static int64_t ftr__group_norm_chunk(const ftr__group_norm_job *job, int64_t task, int64_t *at, float **partial) {
    const int64_t begin = task % job->chunks * job->positions_per_chunk;
    *at = (task / job->chunks * job->positions + begin) * job->channels;
    *partial = job->partial + task * 2 * job->channels;
    for (int64_t j = 0; j < 2 * job->channels; j++) (*partial)[j] = 0.0f;
    return ftr__row_norm_end(begin, job->positions_per_chunk, job->positions) - begin;
}

/* Each channel's mean, relative to the sample's first position, and its squared deviations from it. */
static void ftr__group_norm_statistics_task(void *arg, int64_t task, int32_t worker) {
    const ftr__group_norm_job *job = arg;
    const float *data = job->call->in[0].data, *center = data + task / job->chunks * job->positions * job->channels;
    int64_t at;
    float *mean;
    (void)worker;
    const int64_t count = ftr__group_norm_chunk(job, task, &at, &mean);
    job->math->column_centered_sum(count, job->channels, data + at, job->channels, center, mean);
    for (int64_t j = 0; j < job->channels; j++) mean[j] /= (float)count;
    job->math->column_deviation(count, job->channels, data + at, job->channels, center, mean, mean + job->channels);
}

/* Combines what has been counted with another part's mean and squared deviations. */
static void ftr__group_norm_merge(double *count, double *mean, double *deviation, double other_count, double other_mean,
                                  double other_deviation) {
    const double apart = other_mean - *mean, share = other_count / (*count + other_count);
    *deviation += other_deviation + apart * apart * *count * share;
    *mean += apart * share;
    *count += other_count;
}

static void ftr__group_norm_combine_task(void *arg, int64_t sample, int32_t worker) {
    const ftr__group_norm_job *job = arg;
    const ftr_kernel_call *call = job->call;
    const int64_t channels = job->channels, groups = call->attr->row_norm.groups;
    const float *center = (const float *)call->in[0].data + sample * job->positions * channels;
    const float *partial = job->partial + sample * job->chunks * 2 * channels, *beta = ftr__row_norm_data(call, 2);
    float *coefficients = job->coefficients + sample * 4 * channels;
    (void)worker;
    for (int64_t g = 0; g < groups; g++) {
        double count = 0, mean = 0, deviation = 0;
        for (int64_t c = g * job->width; c < (g + 1) * job->width; c++)
            for (int64_t chunk = 0; chunk < job->chunks; chunk++) {
                const int64_t begin = chunk * job->positions_per_chunk;
                const int64_t end = ftr__row_norm_end(begin, job->positions_per_chunk, job->positions);
                const float *part = partial + chunk * 2 * channels + c;
                ftr__group_norm_merge(&count, &mean, &deviation, (double)(end - begin),
                                      (double)center[c] + (double)part[0], (double)part[channels]);
            }
        const double invstd = 1.0 / sqrt(deviation / count + call->attr->row_norm.eps);
        const float rounded = (float)(count > 0 ? mean : NAN);
        ((float *)call->out[1].data)[sample * groups + g] = rounded;
        ((float *)call->out[2].data)[sample * groups + g] = (float)invstd;
        for (int64_t c = g * job->width; c < (g + 1) * job->width; c++) {
            const double scale = job->gamma ? (double)job->gamma[c] * invstd : invstd;
            coefficients[c] = rounded;
            coefficients[channels + c] = (float)scale;
            coefficients[2 * channels + c] =
                (float)((beta ? (double)beta[c] : 0.0) + ((double)rounded - mean) * scale);
        }
    }
}

static void ftr__group_norm_apply_task(void *arg, int64_t task, int32_t worker) {
    const ftr__group_norm_job *job = arg;
    const int64_t sample = task / job->chunks, begin = task % job->chunks * job->positions_per_chunk;
    const int64_t count = ftr__row_norm_end(begin, job->positions_per_chunk, job->positions) - begin;
    const int64_t at = (sample * job->positions + begin) * job->channels;
    const float *mean = job->coefficients + sample * 4 * job->channels, *scale = mean + job->channels;
    (void)worker;
    job->math->norm_apply(count, job->channels, (const float *)job->call->in[0].data + at, mean, scale,
                          scale + job->channels, NULL, false, (float *)job->call->out[0].data + at);
}

size_t ftr__cpu_group_norm_workspace(const ftr_kernel_call *call) {
    const ftr__group_norm_job job = ftr__group_norm_job_of(call, &call->in[0]);
    return ftr__group_norm_workspace(&job);
}

ftr_status ftr__cpu_group_norm(const ftr_kernel_call *call) {
    ftr__pool *pool = ftr__cpu_of(call)->pool;
    ftr__group_norm_job job = ftr__group_norm_job_of(call, &call->in[0]);
    ftr__group_norm_prepare(&job, 1);
    ftr__pool_run(pool, job.samples * job.chunks, ftr__group_norm_statistics_task, &job);
    ftr__pool_run(pool, job.samples, ftr__group_norm_combine_task, &job);
    ftr__pool_run(pool, job.samples * job.chunks, ftr__group_norm_apply_task, &job);
    return FTR_OK;
}

/* A channel has the mean of its group. */
static void ftr__group_norm_mean_task(void *arg, int64_t sample, int32_t worker) {
    const ftr__group_norm_job *job = arg;
    const float *mean = (const float *)job->call->in[2].data + sample * job->call->attr->row_norm.groups;
    (void)worker;
    for (int64_t c = 0; c < job->channels; c++)
        job->coefficients[sample * 4 * job->channels + c] = mean[c / job->width];
}

static void ftr__group_norm_grad_sums_task(void *arg, int64_t task, int32_t worker) {
    const ftr__group_norm_job *job = arg;
    const float *mean = job->coefficients + task / job->chunks * 4 * job->channels;
    int64_t at;
    float *sum;
    (void)worker;
    const int64_t count = ftr__group_norm_chunk(job, task, &at, &sum);
    job->math->norm_grad_sums(count, job->channels, job->channels, (const float *)job->call->in[0].data + at,
                              (const float *)job->call->in[1].data + at, NULL, mean, sum, sum + job->channels);
}

/* Sums of dy and of dy (x - mean) of one channel of a sample. */
static void ftr__group_norm_channel(const ftr__group_norm_job *job, int64_t sample, int64_t c, double sums[2]) {
    sums[0] = sums[1] = 0;
    for (int64_t chunk = 0; chunk < job->chunks; chunk++) {
        const float *part = job->partial + (sample * job->chunks + chunk) * 2 * job->channels + c;
        sums[0] += (double)part[0];
        sums[1] += (double)part[job->channels];
    }
}

/* The coefficients of dx = dy a + (x - mean) b + c; as a row of layer norm. */
static void ftr__group_norm_grad_combine_task(void *arg, int64_t sample, int32_t worker) {
    const ftr__group_norm_job *job = arg;
    const int64_t channels = job->channels, groups = job->call->attr->row_norm.groups;
    float *a = job->coefficients + (sample * 4 + 1) * channels;
    (void)worker;
    for (int64_t g = 0; g < groups; g++) {
        const double invstd = (double)((const float *)job->call->in[3].data)[sample * groups + g];
        const double share = invstd / (double)(job->positions * job->width);
        double sum = 0, product = 0;
        for (int64_t c = g * job->width; c < (g + 1) * job->width; c++) {
            const double gamma = job->gamma ? (double)job->gamma[c] : 1.0;
            double sums[2];
            ftr__group_norm_channel(job, sample, c, sums);
            sum += gamma * sums[0];
            product += gamma * sums[1];
            a[c] = (float)(gamma * invstd);
        }
        for (int64_t c = g * job->width; c < (g + 1) * job->width; c++) {
            a[channels + c] = (float)(-invstd * invstd * share * product);
            a[2 * channels + c] = (float)(-share * sum);
        }
    }
}

static void ftr__group_norm_parameters_task(void *arg, int64_t task, int32_t worker) {
    const ftr__group_norm_job *job = arg;
    const int64_t begin = task * FTR__ROW_NORM_TILE, groups = job->call->attr->row_norm.groups;
    const int64_t end = ftr__row_norm_end(begin, FTR__ROW_NORM_TILE, job->channels);
    (void)worker;
    for (int64_t c = begin; c < end; c++) {
        double dgamma = 0, dbeta = 0, sums[2];
        for (int64_t sample = 0; sample < job->samples && job->chunks > 0; sample++) {
            ftr__group_norm_channel(job, sample, c, sums);
            dgamma += sums[1] * (double)((const float *)job->call->in[3].data)[sample * groups + c / job->width];
            dbeta += sums[0];
        }
        ((float *)job->call->out[1].data)[c] = (float)dgamma;
        ((float *)job->call->out[2].data)[c] = (float)dbeta;
    }
}

static void ftr__group_norm_grad_apply_task(void *arg, int64_t task, int32_t worker) {
    const ftr__group_norm_job *job = arg;
    const int64_t sample = task / job->chunks, begin = task % job->chunks * job->positions_per_chunk;
    const int64_t count = ftr__row_norm_end(begin, job->positions_per_chunk, job->positions) - begin;
    const int64_t at = (sample * job->positions + begin) * job->channels, channels = job->channels;
    const float *mean = job->coefficients + sample * 4 * channels, *a = mean + channels;
    (void)worker;
    job->math->norm_grad_apply(count, channels, (const float *)job->call->in[0].data + at,
                               (const float *)job->call->in[1].data + at, NULL, mean, a, a + channels, a + 2 * channels,
                               (float *)job->call->out[0].data + at);
}

size_t ftr__cpu_group_norm_grad_workspace(const ftr_kernel_call *call) {
    const ftr__group_norm_job job = ftr__group_norm_job_of(call, &call->in[1]);
    return ftr__group_norm_workspace(&job);
}

ftr_status ftr__cpu_group_norm_grad(const ftr_kernel_call *call) {
    ftr__pool *pool = ftr__cpu_of(call)->pool;
    ftr__group_norm_job job = ftr__group_norm_job_of(call, &call->in[1]);
    ftr__group_norm_prepare(&job, 4);
    ftr__pool_run(pool, job.samples, ftr__group_norm_mean_task, &job);
    ftr__pool_run(pool, job.samples * job.chunks, ftr__group_norm_grad_sums_task, &job);
    ftr__pool_run(pool, job.samples, ftr__group_norm_grad_combine_task, &job);
    if (call->attr->row_norm.sums)
        ftr__pool_run(pool, (job.channels + FTR__ROW_NORM_TILE - 1) / FTR__ROW_NORM_TILE,
                      ftr__group_norm_parameters_task, &job);
    ftr__pool_run(pool, job.samples * job.chunks, ftr__group_norm_grad_apply_task, &job);
    return FTR_OK;
}

/* ---- src/backend/cpu/pool.c ---- */
/* Pooling over [n, h, w, c]: vectors run along the channels. A task is a number of rows of the result. The gradients
 * gather: each input pixel looks up the windows that cover it, so that no two tasks write to one place. */

#define FTR__POOL_GRAIN 16384

typedef struct ftr__pool2d_job {
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    int64_t channels, in_h, in_w, out_h, out_w;
    int64_t kernel_h, kernel_w, stride_h, stride_w, top, left;
    int64_t rows, rows_per_task; /* of what is computed, over all images */
    bool maximum;
} ftr__pool2d_job;

/* A range, begin to end, end not included. */
typedef struct ftr__pool_range {
    int64_t begin, end;
} ftr__pool_range;

/* The input positions of a window: output `at` along one dimension. */
static ftr__pool_range ftr__pool_window(int64_t at, int64_t stride, int64_t padding, int64_t kernel, int64_t size) {
    const int64_t begin = at * stride - padding, end = begin + kernel;
    return (ftr__pool_range){begin > 0 ? begin : 0, end < size ? end : size};
}

/* The output positions whose windows cover input `at` along one dimension. */
static ftr__pool_range ftr__pool_covering(int64_t at, int64_t stride, int64_t padding, int64_t kernel, int64_t size) {
    const int64_t last = (at + padding) / stride, before = at + padding - kernel;
    const int64_t first = before >= 0 ? before / stride + 1 : 0;
    return (ftr__pool_range){first, last + 1 < size ? last + 1 : size};
}

static ftr__pool2d_job ftr__pool2d_job_of(const ftr_kernel_call *call, const ftr_shape *output, bool gradient) {
    ftr__pool2d_job job = {
        .call = call,
        .math = &ftr__cpu_of(call)->simd->math,
        .channels = output->dim[3],
        .in_h = call->attr->pool.input[0],
        .in_w = call->attr->pool.input[1],
        .out_h = output->dim[1],
        .out_w = output->dim[2],
        .kernel_h = call->attr->pool.kernel[0],
        .kernel_w = call->attr->pool.kernel[1],
        .stride_h = call->attr->pool.stride[0],
        .stride_w = call->attr->pool.stride[1],
        .top = call->attr->pool.padding[0],
        .left = call->attr->pool.padding[2],
    };
    const int64_t width = (gradient ? job.in_w : job.out_w) * job.channels;
    job.rows = output->dim[0] * (gradient ? job.in_h : job.out_h);
    job.rows_per_task = 1 + FTR__POOL_GRAIN / (width > 0 ? width : 1);
    return job;
}

static ftr_status ftr__pool2d_run(ftr__pool2d_job *job, ftr__task_fn task) {
    if (job->call->out[0].count == 0) return FTR_OK;
    ftr__pool_run(ftr__cpu_of(job->call)->pool, (job->rows + job->rows_per_task - 1) / job->rows_per_task, task, job);
    return FTR_OK;
}

/* What the mean over a window is divided by. */
static float ftr__pool_divisor(const ftr__pool2d_job *job, ftr__pool_range h, ftr__pool_range w) {
    if (!job->call->attr->pool.exclude_padding) return (float)(job->kernel_h * job->kernel_w);
    const int64_t area = (h.end - h.begin) * (w.end - w.begin);
    return (float)(area > 0 ? area : 1);
}

/* ------------------------------------------------------------------------------------------------------- forward -- */

static void ftr__pool2d_row(const ftr__pool2d_job *job, int64_t row) {
    const int64_t image = row / job->out_h;
    const ftr__pool_range h = ftr__pool_window(row % job->out_h, job->stride_h, job->top, job->kernel_h, job->in_h);
    const float *x = (const float *)job->call->in[0].data + image * job->in_h * job->in_w * job->channels;
    for (int64_t ow = 0; ow < job->out_w; ow++) {
        const ftr__pool_range w = ftr__pool_window(ow, job->stride_w, job->left, job->kernel_w, job->in_w);
        const int64_t pixel = h.begin * job->in_w + w.begin, at = (row * job->out_w + ow) * job->channels;
        const float *window = x + pixel * job->channels;
        float *y = (float *)job->call->out[0].data + at;
        if (job->maximum)
            job->math->window_maximum(job->channels, window, h.end - h.begin, w.end - w.begin, job->in_w,
                                      (int32_t)pixel, y, (int32_t *)job->call->out[1].data + at);
        else
            job->math->window_mean(job->channels, window, h.end - h.begin, w.end - w.begin, job->in_w,
                                   ftr__pool_divisor(job, h, w), y);
    }
}

static void ftr__pool2d_task(void *arg, int64_t task, int32_t worker) {
    const ftr__pool2d_job *job = arg;
    const int64_t first = task * job->rows_per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++) ftr__pool2d_row(job, row);
}

ftr_status ftr__cpu_max_pool2d(const ftr_kernel_call *call) {
    ftr__pool2d_job job = ftr__pool2d_job_of(call, &call->out[0].shape, false);
    job.maximum = true;
    return ftr__pool2d_run(&job, ftr__pool2d_task);
}

ftr_status ftr__cpu_avg_pool2d(const ftr_kernel_call *call) {
    ftr__pool2d_job job = ftr__pool2d_job_of(call, &call->out[0].shape, false);
    return ftr__pool2d_run(&job, ftr__pool2d_task);
}

/* ------------------------------------------------------------------------------------------------------ gradient -- */

/* Adds to the gradient of one input pixel what comes from one output pixel. */
static void ftr__pool2d_grad_add(const ftr__pool2d_job *job, int64_t image, int64_t oh, int64_t ow, int64_t pixel,
                                 float *dx) {
    const int64_t at = ((image * job->out_h + oh) * job->out_w + ow) * job->channels;
    const float *dy = (const float *)job->call->in[0].data + at;
    if (job->maximum) {
        const int32_t *index = (const int32_t *)job->call->in[1].data + at;
        job->math->scatter_add(job->channels, dy, index, (int32_t)pixel, dx);
        return;
    }
    const ftr__pool_range h = ftr__pool_window(oh, job->stride_h, job->top, job->kernel_h, job->in_h);
    const ftr__pool_range w = ftr__pool_window(ow, job->stride_w, job->left, job->kernel_w, job->in_w);
    job->math->axpy(job->channels, 1.0f / ftr__pool_divisor(job, h, w), dy, dx);
}

static void ftr__pool2d_grad_row(const ftr__pool2d_job *job, int64_t row) {
    const int64_t image = row / job->in_h, ih = row % job->in_h;
    const ftr__pool_range h = ftr__pool_covering(ih, job->stride_h, job->top, job->kernel_h, job->out_h);
    float *dx = (float *)job->call->out[0].data + row * job->in_w * job->channels;
    memset(dx, 0, (size_t)(job->in_w * job->channels) * sizeof *dx);
    for (int64_t iw = 0; iw < job->in_w; iw++, dx += job->channels) {
        const ftr__pool_range w = ftr__pool_covering(iw, job->stride_w, job->left, job->kernel_w, job->out_w);
        for (int64_t oh = h.begin; oh < h.end; oh++)
            for (int64_t ow = w.begin; ow < w.end; ow++)
                ftr__pool2d_grad_add(job, image, oh, ow, ih * job->in_w + iw, dx);
    }
}

static void ftr__pool2d_grad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__pool2d_job *job = arg;
    const int64_t first = task * job->rows_per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++)
        ftr__pool2d_grad_row(job, row);
}

ftr_status ftr__cpu_max_pool2d_grad(const ftr_kernel_call *call) {
    ftr__pool2d_job job = ftr__pool2d_job_of(call, &call->in[0].shape, true);
    job.maximum = true;
    return ftr__pool2d_run(&job, ftr__pool2d_grad_task);
}

ftr_status ftr__cpu_avg_pool2d_grad(const ftr_kernel_call *call) {
    ftr__pool2d_job job = ftr__pool2d_job_of(call, &call->in[0].shape, true);
    return ftr__pool2d_run(&job, ftr__pool2d_grad_task);
}

/* ---- src/backend/cpu/random.c ---- */
/* Dropout, stochastic depth, random tensors. An element's or a row's fate depends on its index and the stream alone. */

#define FTR__RANDOM_GRAIN 16384 /* a multiple of 4, the numbers of a Philox block */

typedef struct ftr__dropout_job {
    const ftr__simd_math *math;
    const float *x;
    float *y;
    int64_t count;
    ftr__dropout_stream stream;
} ftr__dropout_job;

static void ftr__dropout_task(void *arg, int64_t task, int32_t worker) {
    const ftr__dropout_job *job = arg;
    const int64_t begin = task * FTR__RANDOM_GRAIN;
    const int64_t n = job->count - begin < FTR__RANDOM_GRAIN ? job->count - begin : FTR__RANDOM_GRAIN;
    (void)worker;
    job->math->dropout(n, &job->stream, (uint64_t)begin / 4, job->x + begin, job->y + begin);
}

ftr_status ftr__cpu_dropout(const ftr_kernel_call *call) {
    const double p = call->attr->dropout.p;
    const ftr__rng rng = ftr__rng_make(call->seed, FTR__RNG_DROPOUT, call->attr->dropout.key, call->step);
    ftr__dropout_job job = {
        .math = &ftr__cpu_of(call)->simd->math,
        .x = call->in[0].data,
        .y = call->out[0].data,
        .count = call->out[0].count,
        .stream = {.key = {rng.key[0], rng.key[1]},
                   .counter = {rng.stream[0], rng.stream[1]},
                   .threshold = ftr__dropout_threshold(p),
                   .scale = p < 1.0 ? (float)(1.0 / (1.0 - p)) : 0.0f},
    };
    ftr__pool_run(ftr__cpu_of(call)->pool, (job.count + FTR__RANDOM_GRAIN - 1) / FTR__RANDOM_GRAIN, ftr__dropout_task,
                  &job);
    return FTR_OK;
}

/* ---------------------------------------------------------------------------------------------- stochastic depth -- */

typedef struct ftr__depth_job {
    const ftr__simd_math *math;
    const float *x;
    float *y;
    int64_t count, row; /* elements: all, and of a row */
    ftr__rng rng;
    uint64_t threshold;
    float scale;
} ftr__depth_job;

/* A task is a piece of the elements, of one row or of several. */
static void ftr__depth_task(void *arg, int64_t task, int32_t worker) {
    const ftr__depth_job *job = arg;
    const int64_t begin = task * FTR__RANDOM_GRAIN;
    const int64_t end = job->count - begin < FTR__RANDOM_GRAIN ? job->count : begin + FTR__RANDOM_GRAIN;
    (void)worker;
    for (int64_t at = begin; at < end;) {
        const int64_t row = at / job->row, left = (row + 1) * job->row - at, n = left < end - at ? left : end - at;
        if (ftr__rng_at(&job->rng, (uint64_t)row) < job->threshold)
            memset(job->y + at, 0, (size_t)n * sizeof *job->y);
        else
            job->math->binary[FTR__BINARY_MUL][FTR__OPERANDS_RIGHT_SCALAR](n, job->x + at, &job->scale, job->y + at);
        at += n;
    }
}

ftr_status ftr__cpu_stochastic_depth(const ftr_kernel_call *call) {
    const double p = call->attr->dropout.p;
    const ftr_view *x = &call->in[0];
    if (x->count == 0) return FTR_OK;
    ftr__depth_job job = {
        .math = &ftr__cpu_of(call)->simd->math,
        .x = x->data,
        .y = call->out[0].data,
        .count = x->count,
        .row = x->count / x->shape.dim[0],
        .rng = ftr__rng_make(call->seed, FTR__RNG_DROPOUT, call->attr->dropout.key, call->step),
        .threshold = ftr__dropout_threshold(p),
        .scale = p < 1.0 ? (float)(1.0 / (1.0 - p)) : 0.0f,
    };
    ftr__pool_run(ftr__cpu_of(call)->pool, (job.count + FTR__RANDOM_GRAIN - 1) / FTR__RANDOM_GRAIN, ftr__depth_task,
                  &job);
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------ random tensors -- */

typedef struct ftr__random_job {
    void (*fill)(int64_t n, const ftr__random_stream *stream, uint64_t block, float *out);
    float *out;
    int64_t count;
    ftr__random_stream stream;
} ftr__random_job;

static void ftr__random_task(void *arg, int64_t task, int32_t worker) {
    const ftr__random_job *job = arg;
    const int64_t begin = task * FTR__RANDOM_GRAIN;
    const int64_t n = job->count - begin < FTR__RANDOM_GRAIN ? job->count - begin : FTR__RANDOM_GRAIN;
    (void)worker;
    job->fill(n, &job->stream, (uint64_t)begin / 4, job->out + begin);
}

ftr_status ftr__cpu_random(const ftr_kernel_call *call) {
    const ftr__simd_math *math = &ftr__cpu_of(call)->simd->math;
    const ftr__rng rng = ftr__rng_make(call->seed, FTR__RNG_TENSOR, call->attr->random.key, call->step);
    const float a = call->attr->random.a, b = call->attr->random.b;
    const bool uniform = call->op == FTR_OP_random_uniform;
    ftr__random_job job = {
        .fill = uniform ? math->random_uniform : math->random_normal,
        .out = call->out[0].data,
        .count = call->out[0].count,
        .stream = {.key = {rng.key[0], rng.key[1]},
                   .counter = {rng.stream[0], rng.stream[1]},
                   .offset = a,
                   .scale = uniform ? b - a : b,
                   .most = uniform && a < b ? nextafterf(b, a) : b},
    };
    ftr__pool_run(ftr__cpu_of(call)->pool, (job.count + FTR__RANDOM_GRAIN - 1) / FTR__RANDOM_GRAIN, ftr__random_task,
                  &job);
    return FTR_OK;
}

/* ---- src/backend/cpu/attention.c ---- */
/* Attention by tiles of queries and keys, with an online softmax (Milakov, Gimelshein: Online normalizer calculation
 * for softmax, 2018; Dao et al.: FlashAttention, 2022): the scores of all queries and keys are never in memory. A tile
 * of scores lies transposed, queries along a row, so that all of the softmax goes across rows of vectors, and both
 * products with it read it as it lies. Tasks are cut, and sums ordered, by the problem alone. */

#define FTR__ATTENTION_QUERIES 64    /* of a tile; the last one takes up to half as many more */
#define FTR__ATTENTION_KEYS 112      /* of a tile, at most */
#define FTR__ATTENTION_TASKS 32      /* wanted of the forward pass */
#define FTR__ATTENTION_GRAD_TASKS 16 /* wanted of the gradient: more cost memory */

static const float ftr__attention_log2_e = 1.44269504f;

/* Sizes and operands of an attention node or of its gradient. */
typedef struct ftr__attention {
    const ftr_kernel_call *call;
    const ftr__simd *simd;
    int64_t n, tq, tk, heads, kv_heads, group, d, dv; /* group: query heads of one head of key and value */
    const float *query, *key, *value, *mask;
    bool masked;                   /* there is a mask, also while a plan is made */
    const float *dy, *y, *log_sum; /* gradient */
    int64_t mask_step[4];          /* over n, heads, tq, tk; 0 where it is broadcast */
    bool causal;
    float scale;
    double p;
    ftr__attention_dropout dropout;

    int64_t query_tiles, key_tiles;
    int64_t stride; /* of a row of scores: the widest tile's queries, padded */
    int64_t keys;   /* of a tile */
    int64_t d_pad, dv_pad;
    int64_t pieces;      /* tasks that share a head of key and value */
    int64_t piece_tiles; /* gradient: tiles of keys of one piece, at most */
    bool grad;

    unsigned char *scratch; /* of worker 0 */
    size_t scratch_bytes;   /* of a worker */
    float *partial;         /* gradient of the queries: one of each piece, if there are several */
} ftr__attention;

/* A worker's memory. */
typedef struct ftr__attention_memory {
    float *query_panels, *dy_panels; /* [panel][element][nr]: the B operands of products with keys and values */
    float *queries, *dy;             /* rows of d_pad, dv_pad */
    float *keys, *values;            /* the same, of the keys of the task */
    float *dkeys, *dvalues;
    float *scores, *dscores, *mask, *dmask;                    /* [keys][stride] */
    float *result;                                             /* y, or the gradient of the queries */
    float *maximum, *sum, *rescale, *inverse, *log_sum, *mean; /* of each query */
    float *none;                                               /* where rows go that do not exist */
    const float **rows;                                        /* pointers to rows of an A operand */
} ftr__attention_memory;

/* A tile of scores. */
typedef struct ftr__attention_tile {
    int64_t b, h, q0, queries, k0, keys;
    bool diagonal; /* some of its keys are hidden from some of its queries */
    bool first;    /* gradient: nothing was added to that of the keys and values yet */
} ftr__attention_tile;

/* --------------------------------------------------------------------------------------------------- the problem -- */

static int64_t ftr__attention_pad(int64_t size, int64_t multiple) { return ftr__gemm_ceil(size, multiple) * multiple; }

static bool ftr__attention_wants(const ftr__attention *a, int32_t output) {
    return (a->call->attr->attention.wanted >> output & 1u) != 0;
}

static void ftr__attention_set_mask(ftr__attention *a, const ftr_view *mask) {
    if (!mask) return;
    a->mask = (const float *)mask->data;
    a->masked = true;
    int64_t step = 1;
    for (int32_t i = 3; i >= 0; i--) {
        const int32_t own = i - (4 - mask->shape.rank);
        const int64_t size = own >= 0 ? mask->shape.dim[own] : 1;
        a->mask_step[i] = size == 1 ? 0 : step;
        step *= size;
    }
}

static void ftr__attention_set_dropout(ftr__attention *a) {
    const ftr_kernel_call *call = a->call;
    a->p = call->attr->attention.dropout;
    if (a->p <= 0.0) return;
    const ftr__rng rng = ftr__rng_make(call->seed, FTR__RNG_DROPOUT, call->attr->attention.key, call->step);
    a->dropout.stream = (ftr__dropout_stream){.key = {rng.key[0], rng.key[1]},
                                              .counter = {rng.stream[0], rng.stream[1]},
                                              .threshold = ftr__dropout_threshold(a->p),
                                              .scale = a->p < 1.0 ? (float)(1.0 / (1.0 - a->p)) : 0.0f};
    a->dropout.step = (uint64_t)a->tq;
}

/* Tiles, and how the work on a head of key and value is cut. */
static void ftr__attention_cut(ftr__attention *a) {
    const int64_t mr = a->simd->gemm.mr, nr = a->simd->gemm.nr, heads = ftr__gemm_max(a->n * a->kv_heads, 1);
    const int64_t rest = FTR__ATTENTION_QUERIES / 2 - 1;
    a->query_tiles = ftr__gemm_max((a->tq + rest) / FTR__ATTENTION_QUERIES, 1);
    a->stride = ftr__attention_pad(a->tq - (a->query_tiles - 1) * FTR__ATTENTION_QUERIES, nr);
    if (a->query_tiles > 1) a->stride = ftr__gemm_max(a->stride, FTR__ATTENTION_QUERIES);
    a->keys = FTR__ATTENTION_KEYS / (2 * mr) * (2 * mr);
    a->key_tiles = ftr__gemm_ceil(a->tk, a->keys);
    a->d_pad = ftr__attention_pad(a->d, nr);
    a->dv_pad = ftr__attention_pad(a->dv, nr);
    const int64_t tiles = a->grad ? a->key_tiles : a->query_tiles * a->group;
    const int64_t wanted = a->grad ? FTR__ATTENTION_GRAD_TASKS : FTR__ATTENTION_TASKS;
    a->pieces = ftr__gemm_max(ftr__gemm_min(wanted / heads, tiles), 1);
    a->piece_tiles = ftr__gemm_ceil(a->key_tiles, a->pieces);
}

static ftr__attention ftr__attention_of(const ftr_kernel_call *call) {
    const bool grad = call->op == FTR_OP_attention_grad;
    const ftr_view *q = &call->in[grad ? 1 : 0], *k = q + 1, *v = q + 2;
    ftr__attention a = {.call = call, .simd = ftr__cpu_of(call)->simd, .grad = grad};
    a.query = (const float *)q->data, a.key = (const float *)k->data, a.value = (const float *)v->data;
    a.n = q->shape.dim[0], a.tq = q->shape.dim[1], a.heads = q->shape.dim[2], a.d = q->shape.dim[3];
    a.tk = k->shape.dim[1], a.kv_heads = k->shape.dim[2], a.dv = v->shape.dim[3];
    a.group = a.heads / a.kv_heads;
    a.causal = call->attr->attention.causal;
    a.scale = (float)call->attr->attention.scale;
    if (grad) {
        a.dy = (const float *)call->in[0].data;
        a.y = (const float *)call->in[4].data;
        a.log_sum = (const float *)call->in[5].data;
    }
    ftr__attention_set_mask(&a, ftr__optional_input(call, grad ? 6 : 3));
    ftr__attention_set_dropout(&a);
    ftr__attention_cut(&a);
    return a;
}

/* Takes `floats` from memory at *offset, which may be NULL. */
static float *ftr__attention_take(unsigned char *memory, size_t *offset, int64_t floats) {
    float *taken = memory ? (float *)(void *)(memory + *offset) : NULL;
    *offset += ftr__gemm_align((size_t)floats * sizeof(float));
    return taken;
}

/* Divides a worker's scratch; returns the bytes. `scratch` is NULL while a plan is made. */
static size_t ftr__attention_divide(const ftr__attention *a, unsigned char *scratch, ftr__attention_memory *m) {
    const int64_t nr = a->simd->gemm.nr, columns = a->stride, tile = a->keys * a->stride;
    const int64_t keys = a->grad ? a->piece_tiles * a->keys : a->tk;
    size_t bytes = 0;
    memset(m, 0, sizeof *m);
    m->query_panels = ftr__attention_take(scratch, &bytes, columns * a->d);
    m->queries = ftr__attention_take(scratch, &bytes, columns * a->d_pad);
    m->scores = ftr__attention_take(scratch, &bytes, tile);
    m->result = ftr__attention_take(scratch, &bytes, columns * (a->grad ? a->d_pad : a->dv_pad));
    m->keys = ftr__attention_take(scratch, &bytes, keys * a->d_pad);
    m->values = ftr__attention_take(scratch, &bytes, keys * a->dv_pad);
    m->log_sum = ftr__attention_take(scratch, &bytes, columns);
    m->none = ftr__attention_take(scratch, &bytes, nr);
    if (a->masked) m->mask = ftr__attention_take(scratch, &bytes, tile);
    if (a->grad) {
        m->dy_panels = ftr__attention_take(scratch, &bytes, columns * a->dv);
        m->dscores = ftr__attention_take(scratch, &bytes, tile);
        m->dy = ftr__attention_take(scratch, &bytes, columns * a->dv_pad);
        m->dkeys = ftr__attention_take(scratch, &bytes, keys * a->d_pad);
        m->dvalues = ftr__attention_take(scratch, &bytes, keys * a->dv_pad);
        m->mean = ftr__attention_take(scratch, &bytes, columns);
        if (ftr__attention_wants(a, 3)) m->dmask = ftr__attention_take(scratch, &bytes, tile);
    } else {
        m->maximum = ftr__attention_take(scratch, &bytes, columns);
        m->sum = ftr__attention_take(scratch, &bytes, columns);
        m->rescale = ftr__attention_take(scratch, &bytes, columns);
        m->inverse = ftr__attention_take(scratch, &bytes, columns);
    }
    if (scratch) m->rows = (const float **)(void *)(scratch + bytes);
    return bytes + ftr__gemm_align((size_t)(a->keys + a->stride + nr) * sizeof(float *));
}

/* Sizes the scratch of a worker; the bytes of all of them. */
static size_t ftr__attention_scratch(ftr__attention *a) {
    ftr__attention_memory m;
    a->scratch_bytes = ftr__attention_divide(a, NULL, &m);
    return a->scratch_bytes * (size_t)ftr__pool_threads(ftr__cpu_of(a->call)->pool);
}

/* ------------------------------------------------------------------------------------------------------ products -- */

static void ftr__attention_point(const float **rows, const float *first, int64_t stride, int64_t count, int64_t mr) {
    for (int64_t i = 0; i < count; i++) rows[i] = first + i * stride;
    for (int64_t i = count; i < ftr__attention_pad(count, mr); i++) rows[i] = first;
}

static void ftr__attention_result(ftr__gemm_tile *tile, int64_t mr, int64_t rows, float *c, int64_t stride,
                                  float *none) {
    for (int64_t r = 0; r < mr; r++) tile->c[r] = r < rows ? c + r * stride : none;
}

/* out[k][q] = x[k] . panel's column q: the scores, or the gradient of the weights. What is hidden may be left out. */
static void ftr__attention_against_panels(const ftr__attention *a, const ftr__attention_memory *m,
                                          const ftr__attention_tile *t, const float *x, int64_t x_stride, int64_t depth,
                                          const float *panels, float *out) {
    const int64_t mr = a->simd->gemm.mr, nr = a->simd->gemm.nr;
    ftr__attention_point(m->rows, x, x_stride, t->keys, mr);
    for (int64_t k = 0; k < t->keys; k += mr) {
        const int64_t rows = ftr__gemm_min(mr, t->keys - k);
        for (int64_t q = 0; q < t->queries; q += nr) {
            if (t->diagonal && t->k0 + k > t->q0 + q + nr - 1) continue;
            ftr__gemm_tile tile = {.narrow = t->queries - q <= nr / 2};
            ftr__attention_result(&tile, mr, rows, out + k * a->stride + q, a->stride, m->none);
            a->simd->gemm.tile_rows(rows, 1, depth, m->rows + k, panels + q * depth, nr, &tile);
        }
    }
}

/* out[q] (+)= sum over k of s[k][q] x[k]: the values by the weights, or the keys by the gradient of the scores. */
static void ftr__attention_sum_keys(const ftr__attention *a, const ftr__attention_memory *m,
                                    const ftr__attention_tile *t, const float *s, const float *x, int64_t width,
                                    bool load, float *out) {
    const int64_t mr = a->simd->gemm.mr, nr = a->simd->gemm.nr, x_stride = ftr__attention_pad(width, nr);
    for (int64_t e = 0; e < width; e += nr) {
        for (int64_t q = 0; q < t->queries; q += mr) {
            const int64_t rows = ftr__gemm_min(mr, t->queries - q);
            const int64_t depth = t->diagonal ? ftr__gemm_min(t->keys, t->q0 + q + rows - t->k0) : t->keys;
            if (load && depth <= 0) continue;
            ftr__gemm_tile tile = {.load = load, .narrow = width - e <= nr / 2};
            ftr__attention_result(&tile, mr, rows, out + q * x_stride + e, x_stride, m->none);
            a->simd->attention.tile_columns(rows, depth, s + q, a->stride, x + e, x_stride, &tile);
        }
    }
}

/* out[k] (+)= sum over q of s[k][q] x[q]: the gradients of values and keys. */
static void ftr__attention_sum_queries(const ftr__attention *a, const ftr__attention_memory *m,
                                       const ftr__attention_tile *t, const float *s, const float *x, int64_t width,
                                       float *out) {
    const int64_t mr = a->simd->gemm.mr, nr = a->simd->gemm.nr, x_stride = ftr__attention_pad(width, nr);
    for (int64_t k = 0; k < t->keys; k += mr) {
        const int64_t rows = ftr__gemm_min(mr, t->keys - k);
        const int64_t first = t->diagonal ? ftr__gemm_max(t->k0 + k - t->q0, 0) : 0;
        if (first >= t->queries) continue;
        ftr__attention_point(m->rows, s + k * a->stride + first, a->stride, rows, mr);
        for (int64_t e = 0; e < width; e += nr) {
            ftr__gemm_tile tile = {.load = !t->first, .narrow = width - e <= nr / 2};
            ftr__attention_result(&tile, mr, rows, out + k * x_stride + e, x_stride, m->none);
            a->simd->gemm.tile_rows(rows, 1, t->queries - first, m->rows, x + first * x_stride + e, x_stride, &tile);
        }
    }
}

/* Padded rows as panels [panel][element][nr], multiplied. Columns that fill up the last panel are 0. */
static void ftr__attention_pack(const ftr__attention *a, const ftr__attention_memory *m, const float *x, int64_t count,
                                int64_t depth, float factor, float *to) {
    const int64_t nr = a->simd->gemm.nr, stride = ftr__attention_pad(depth, nr);
    for (int64_t i = 0; i < count; i += nr, to += nr * depth) {
        const int64_t some = ftr__gemm_min(nr, count - i);
        for (int64_t r = 0; r < some; r++) m->rows[r] = x + (i + r) * stride;
        a->simd->gemm.interleave(some, depth, m->rows, to, nr);
        ftr__gemm_clear(depth, nr - some, nr, to + some);
        if (factor != 1.0f) a->simd->attention.scale_rows(1, depth * nr, &factor, 0, to, 0, to, 0);
    }
}

/* Rows one after another, padded to a multiple of nr with 0. */
static void ftr__attention_copy(const ftr__attention *a, const float *x, int64_t stride, int64_t count, int64_t width,
                                float *to) {
    const int64_t padded = ftr__attention_pad(width, a->simd->gemm.nr);
    if (width == 0) return;
    ftr__gemm_copy(count, width, padded, x, stride, to);
    ftr__gemm_clear(count, padded - width, padded, to + width);
}

/* -------------------------------------------------------------------------------------------------------- a tile -- */

static ftr__attention_tile ftr__attention_query_tile(const ftr__attention *a, int64_t b, int64_t h, int64_t index) {
    ftr__attention_tile t = {.b = b, .h = h, .q0 = index * FTR__ATTENTION_QUERIES};
    t.queries = index + 1 == a->query_tiles ? a->tq - t.q0 : FTR__ATTENTION_QUERIES;
    return t;
}

/* Moves on to a tile of keys; false if the queries see none of them. */
static bool ftr__attention_key_tile(const ftr__attention *a, int64_t index, ftr__attention_tile *t) {
    t->k0 = index * a->keys;
    t->keys = ftr__gemm_min(a->keys, a->tk - t->k0);
    if (!a->causal) return t->keys > 0;
    t->keys = ftr__gemm_min(t->keys, t->q0 + t->queries - t->k0);
    t->diagonal = t->k0 + t->keys - 1 > t->q0;
    return t->keys > 0;
}

static int64_t ftr__attention_row(const ftr__attention *a, const ftr__attention_tile *t) {
    return (t->b * a->tq + t->q0) * a->heads + t->h;
}

/* Adds the mask to a tile of scores. */
static void ftr__attention_add_mask(const ftr__attention *a, const ftr__attention_memory *m,
                                    const ftr__attention_tile *t) {
    const int64_t *step = a->mask_step, nr = a->simd->gemm.nr;
    const float *mask = a->mask + t->b * step[0] + t->h * step[1] + t->q0 * step[2] + t->k0 * step[3];
    if (step[2] == 0) {
        for (int64_t k = 0; k < t->keys; k++) m->mask[k] = mask[k * step[3]];
        a->simd->attention.add_keys(t->keys, t->queries, a->stride, ftr__attention_log2_e, m->mask, m->scores);
        return;
    }
    if (step[3] == 0) {
        for (int64_t q = 0; q < t->queries; q++) m->mask[q] = mask[q * step[2]];
        a->simd->attention.add_tile(t->keys, t->queries, a->stride, ftr__attention_log2_e, m->mask, 0, m->scores);
        return;
    }
    for (int64_t q = 0; q < t->queries; q += nr) {
        const int64_t some = ftr__gemm_min(nr, t->queries - q);
        for (int64_t i = 0; i < some; i++) m->rows[i] = mask + (q + i) * step[2];
        a->simd->gemm.interleave(some, t->keys, m->rows, m->mask + q, a->stride);
    }
    a->simd->attention.add_tile(t->keys, t->queries, a->stride, ftr__attention_log2_e, m->mask, a->stride, m->scores);
}

/* Sets the elements of hidden keys. */
static void ftr__attention_hide(const ftr__attention *a, const ftr__attention_tile *t, float value, float *s) {
    for (int64_t k = ftr__gemm_max(t->q0 - t->k0, 0); k < t->keys; k++) {
        const int64_t hidden = ftr__gemm_min(t->k0 + k - t->q0, t->queries);
        for (int64_t q = 0; q < hidden; q++) s[k * a->stride + q] = value;
    }
}

/* The scores of a tile; `keys` are its keys. */
static void ftr__attention_scores(const ftr__attention *a, const ftr__attention_memory *m, const ftr__attention_tile *t,
                                  const float *keys) {
    ftr__attention_against_panels(a, m, t, keys, a->d_pad, a->d, m->query_panels, m->scores);
    if (a->masked) ftr__attention_add_mask(a, m, t);
    if (t->diagonal) ftr__attention_hide(a, t, -INFINITY, m->scores);
}

/* The tile's dropout, in *to; NULL if there is none. */
static const ftr__attention_dropout *ftr__attention_dropout_of(const ftr__attention *a, const ftr__attention_tile *t,
                                                               ftr__attention_dropout *to) {
    if (a->p <= 0.0) return NULL;
    const int64_t group = (t->b * a->heads + t->h) * ftr__gemm_ceil(a->tk, 4) + t->k0 / 4;
    *to = a->dropout;
    to->first = (uint64_t)(group * a->tq + t->q0);
    return to;
}

/* Queries, as rows and as panels. The panels are multiplied by the scale and by log2(e), so that the products are
 * scores in units of log 2. */
static void ftr__attention_load_queries(const ftr__attention *a, const ftr__attention_memory *m,
                                        const ftr__attention_tile *t) {
    const float *query = a->query + ftr__attention_row(a, t) * a->d;
    ftr__attention_copy(a, query, a->heads * a->d, t->queries, a->d, m->queries);
    ftr__attention_pack(a, m, m->queries, t->queries, a->d, a->scale * ftr__attention_log2_e, m->query_panels);
}

/* ------------------------------------------------------------------------------------------------------- forward -- */

static void ftr__attention_forward_tile(const ftr__attention *a, const ftr__attention_memory *m,
                                        ftr__attention_tile *t) {
    const ftr__simd_attention *simd = &a->simd->attention;
    bool begun = false;
    for (int64_t q = 0; q < a->stride; q++) m->maximum[q] = -INFINITY, m->sum[q] = 0.0f;
    ftr__attention_load_queries(a, m, t);
    for (int64_t i = 0; i < a->key_tiles && ftr__attention_key_tile(a, i, t); i++) {
        ftr__attention_dropout dropout;
        ftr__attention_scores(a, m, t, m->keys + t->k0 * a->d_pad);
        simd->softmax(t->keys, t->queries, a->stride, ftr__attention_dropout_of(a, t, &dropout), m->maximum, m->sum,
                      m->rescale, m->scores);
        if (begun) simd->scale_rows(t->queries, a->dv_pad, m->rescale, 1, m->result, a->dv_pad, m->result, a->dv_pad);
        ftr__attention_sum_keys(a, m, t, m->scores, m->values + t->k0 * a->dv_pad, a->dv, begun, m->result);
        begun = true;
    }
    if (!begun) ftr__gemm_clear(t->queries, a->dv_pad, a->dv_pad, m->result);
    float *y = (float *)a->call->out[0].data + ftr__attention_row(a, t) * a->dv;
    float *log_sum = (float *)a->call->out[1].data + (t->b * a->heads + t->h) * a->tq + t->q0;
    simd->softmax_end(t->queries, m->maximum, m->sum, m->log_sum, m->inverse);
    memcpy(log_sum, m->log_sum, (size_t)t->queries * sizeof(float));
    simd->scale_rows(t->queries, a->dv, m->inverse, 1, m->result, a->dv_pad, y, a->heads * a->dv);
}

/* Some of the tiles of queries of one head of key and value. */
static void ftr__attention_task(void *arg, int64_t task, int32_t worker) {
    const ftr__attention *a = (const ftr__attention *)arg;
    const int64_t piece = task % a->pieces, g = task / a->pieces % a->kv_heads, b = task / a->pieces / a->kv_heads;
    ftr__attention_memory m;
    ftr__attention_divide(a, a->scratch + (size_t)worker * a->scratch_bytes, &m);
    const int64_t first = b * a->tk * a->kv_heads + g, seen = a->causal ? ftr__gemm_min(a->tq, a->tk) : a->tk;
    ftr__attention_copy(a, a->key + first * a->d, a->kv_heads * a->d, seen, a->d, m.keys);
    ftr__attention_copy(a, a->value + first * a->dv, a->kv_heads * a->dv, seen, a->dv, m.values);
    for (int64_t i = piece; i < a->group * a->query_tiles; i += a->pieces) {
        ftr__attention_tile t = ftr__attention_query_tile(a, b, g * a->group + i / a->query_tiles, i % a->query_tiles);
        ftr__attention_forward_tile(a, &m, &t);
    }
}

size_t ftr__cpu_attention_workspace(const ftr_kernel_call *call) {
    ftr__attention a = ftr__attention_of(call);
    return ftr__attention_scratch(&a);
}

ftr_status ftr__cpu_attention(const ftr_kernel_call *call) {
    ftr__attention a = ftr__attention_of(call);
    if (call->out[1].count == 0) return FTR_OK;
    (void)ftr__attention_scratch(&a);
    a.scratch = (unsigned char *)call->workspace;
    ftr__pool_run(ftr__cpu_of(call)->pool, a.n * a.kv_heads * a.pieces, ftr__attention_task, &a);
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------ gradient -- */

/* Queries, gradient of y, log-sums, and the mean of the weights' gradients, which is y . dy. */
static void ftr__attention_load_rows(const ftr__attention *a, const ftr__attention_memory *m,
                                     const ftr__attention_tile *t) {
    const int64_t row = ftr__attention_row(a, t), stride = a->heads * a->dv;
    const float *dy = a->dy + row * a->dv, *y = a->y + row * a->dv;
    ftr__attention_load_queries(a, m, t);
    ftr__attention_copy(a, dy, stride, t->queries, a->dv, m->dy);
    ftr__attention_pack(a, m, m->dy, t->queries, a->dv, 1.0f, m->dy_panels);
    memcpy(m->log_sum, a->log_sum + (t->b * a->heads + t->h) * a->tq + t->q0, (size_t)t->queries * sizeof(float));
    for (int64_t q = 0; q < t->queries; q++)
        m->mean[q] = (float)a->simd->math.dot(a->dv, m->dy + q * a->dv_pad, y + q * stride);
}

/* The weights of a tile, and the gradient of its scores. */
static void ftr__attention_slopes(const ftr__attention *a, const ftr__attention_memory *m, const ftr__attention_tile *t,
                                  const float *keys, const float *values) {
    ftr__attention_dropout dropout;
    ftr__attention_scores(a, m, t, keys);
    ftr__attention_against_panels(a, m, t, values, a->dv_pad, a->dv, m->dy_panels, m->dscores);
    if (t->diagonal) ftr__attention_hide(a, t, 0.0f, m->dscores);
    a->simd->attention.softmax_grad(t->keys, t->queries, a->stride, ftr__attention_dropout_of(a, t, &dropout),
                                    m->log_sum, m->mean, m->scores, m->dscores);
}

/* A tile of queries against the keys of a piece. */
static void ftr__attention_backward_tile(const ftr__attention *a, const ftr__attention_memory *m, int64_t piece,
                                         ftr__attention_tile *t) {
    const int64_t row = ftr__attention_row(a, t), size = a->n * a->tq * a->heads * a->d;
    bool begun = false;
    ftr__attention_load_rows(a, m, t);
    for (int64_t i = piece; i < a->key_tiles && ftr__attention_key_tile(a, i, t); i += a->pieces) {
        const int64_t first = i / a->pieces * a->keys;
        const float *keys = m->keys + first * a->d_pad, *values = m->values + first * a->dv_pad;
        ftr__attention_slopes(a, m, t, keys, values);
        if (ftr__attention_wants(a, 2))
            ftr__attention_sum_queries(a, m, t, m->scores, m->dy, a->dv, m->dvalues + first * a->dv_pad);
        if (ftr__attention_wants(a, 1))
            ftr__attention_sum_queries(a, m, t, m->dscores, m->queries, a->d, m->dkeys + first * a->d_pad);
        if (ftr__attention_wants(a, 0)) ftr__attention_sum_keys(a, m, t, m->dscores, keys, a->d, begun, m->result);
        begun = true;
    }
    if (!ftr__attention_wants(a, 0)) return;
    if (!begun) ftr__gemm_clear(t->queries, a->d_pad, a->d_pad, m->result);
    float *dquery = a->pieces > 1 ? a->partial + piece * size : (float *)a->call->out[0].data;
    a->simd->attention.scale_rows(t->queries, a->d, &a->scale, 0, m->result, a->d_pad, dquery + row * a->d,
                                  a->heads * a->d);
}

/* Some of the keys of one head, against all queries. */
static void ftr__attention_grad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__attention *a = (const ftr__attention *)arg;
    const int64_t piece = task % a->pieces, g = task / a->pieces % a->kv_heads, b = task / a->pieces / a->kv_heads;
    const int64_t keys = a->piece_tiles * a->keys, stride = a->kv_heads * a->d, v_stride = a->kv_heads * a->dv;
    ftr__attention_memory m;
    ftr__attention_divide(a, a->scratch + (size_t)worker * a->scratch_bytes, &m);
    /* Otherwise the first tile of queries reaches all keys. */
    const bool clear = a->causal || a->tq == 0 || a->heads == 0;
    if (clear) {
        ftr__gemm_clear(keys, a->d_pad, a->d_pad, m.dkeys);
        ftr__gemm_clear(keys, a->dv_pad, a->dv_pad, m.dvalues);
    }
    for (int64_t i = piece; i < a->key_tiles; i += a->pieces) {
        const int64_t k0 = i * a->keys, count = ftr__gemm_min(a->keys, a->tk - k0), to = i / a->pieces * a->keys;
        const int64_t first = (b * a->tk + k0) * a->kv_heads + g;
        ftr__attention_copy(a, a->key + first * a->d, stride, count, a->d, m.keys + to * a->d_pad);
        ftr__attention_copy(a, a->value + first * a->dv, v_stride, count, a->dv, m.values + to * a->dv_pad);
    }
    for (int64_t i = 0; i < a->group * a->query_tiles; i++) {
        ftr__attention_tile t = ftr__attention_query_tile(a, b, g * a->group + i / a->query_tiles, i % a->query_tiles);
        t.first = !clear && i == 0;
        if (t.queries > 0) ftr__attention_backward_tile(a, &m, piece, &t);
    }
    for (int64_t i = piece; i < a->key_tiles; i += a->pieces) {
        const int64_t k0 = i * a->keys, count = ftr__gemm_min(a->keys, a->tk - k0), from = i / a->pieces * a->keys;
        const int64_t first = (b * a->tk + k0) * a->kv_heads + g;
        const float one = 1.0f;
        if (ftr__attention_wants(a, 1))
            a->simd->attention.scale_rows(count, a->d, &a->scale, 0, m.dkeys + from * a->d_pad, a->d_pad,
                                          (float *)a->call->out[1].data + first * a->d, stride);
        if (ftr__attention_wants(a, 2))
            a->simd->attention.scale_rows(count, a->dv, &one, 0, m.dvalues + from * a->dv_pad, a->dv_pad,
                                          (float *)a->call->out[2].data + first * a->dv, v_stride);
    }
}

#define FTR__ATTENTION_SUM_CHUNK 4096

/* Adds the pieces of the queries' gradient in their order. */
static void ftr__attention_sum_task(void *arg, int64_t task, int32_t worker) {
    const ftr__attention *a = (const ftr__attention *)arg;
    const int64_t size = a->n * a->tq * a->heads * a->d, first = task * FTR__ATTENTION_SUM_CHUNK;
    const int64_t count = ftr__gemm_min(FTR__ATTENTION_SUM_CHUNK, size - first);
    float *to = (float *)a->call->out[0].data + first;
    (void)worker;
    memcpy(to, a->partial + first, (size_t)count * sizeof(float));
    for (int64_t p = 1; p < a->pieces; p++) a->simd->gemm.accumulate(count, a->partial + p * size + first, to);
}

/* A part of the mask: of one sample and head, or all of them, and of a tile of queries and keys, or all tiles, as the
 * mask was broadcast. */
typedef struct ftr__attention_part {
    int64_t begin[4], end[4]; /* samples, heads, tiles of queries, tiles of keys */
} ftr__attention_part;

static ftr__attention_part ftr__attention_part_of(const ftr__attention *a, int64_t task) {
    const int64_t size[4] = {a->n, a->heads, a->query_tiles, a->key_tiles};
    ftr__attention_part part;
    for (int32_t i = 3; i >= 0; i--) {
        const bool one = a->mask_step[i] != 0;
        part.begin[i] = one ? task % size[i] : 0;
        part.end[i] = one ? part.begin[i] + 1 : size[i];
        if (one) task /= size[i];
    }
    return part;
}

static int64_t ftr__attention_part_count(const ftr__attention *a) {
    const int64_t size[4] = {a->n, a->heads, a->query_tiles, a->key_tiles};
    int64_t count = 1;
    for (int32_t i = 0; i < 4; i++) count *= a->mask_step[i] ? size[i] : 1;
    return count;
}

/* Adds the gradients of all scores that a tile of queries has in a part. */
static void ftr__attention_mask_tile(const ftr__attention *a, const ftr__attention_memory *m,
                                     const ftr__attention_part *part, ftr__attention_tile *t) {
    ftr__attention_load_rows(a, m, t);
    for (int64_t j = part->begin[3]; j < part->end[3] && ftr__attention_key_tile(a, j, t); j++) {
        const int64_t first = (t->b * a->tk + t->k0) * a->kv_heads + t->h / a->group;
        ftr__attention_copy(a, a->key + first * a->d, a->kv_heads * a->d, t->keys, a->d, m->keys);
        ftr__attention_copy(a, a->value + first * a->dv, a->kv_heads * a->dv, t->keys, a->dv, m->values);
        ftr__attention_slopes(a, m, t, m->keys, m->values);
        for (int64_t k = 0; k < t->keys; k++)
            a->simd->gemm.accumulate(t->queries, m->dscores + k * a->stride, m->dmask + k * a->stride);
    }
}

/* Of the tile of sums, what one element of the mask was added to; q or k is -1 for all of them. */
static float ftr__attention_mask_sum(const ftr__attention *a, const float *tile, int64_t q, int64_t k) {
    const int64_t q0 = q < 0 ? 0 : q, q1 = q < 0 ? a->stride : q + 1, k0 = k < 0 ? 0 : k, k1 = k < 0 ? a->keys : k + 1;
    double sum = 0.0;
    for (int64_t i = k0; i < k1; i++)
        for (int64_t j = q0; j < q1; j++) sum += (double)tile[i * a->stride + j];
    return (float)sum;
}

static void ftr__attention_mask_task(void *arg, int64_t task, int32_t worker) {
    const ftr__attention *a = (const ftr__attention *)arg;
    const ftr__attention_part part = ftr__attention_part_of(a, task);
    const int64_t *step = a->mask_step;
    ftr__attention_memory m;
    ftr__attention_divide(a, a->scratch + (size_t)worker * a->scratch_bytes, &m);
    ftr__gemm_clear(a->keys, a->stride, a->stride, m.dmask);
    for (int64_t b = part.begin[0]; b < part.end[0]; b++)
        for (int64_t h = part.begin[1]; h < part.end[1]; h++)
            for (int64_t i = part.begin[2]; i < part.end[2]; i++) {
                ftr__attention_tile t = ftr__attention_query_tile(a, b, h, i);
                if (t.queries > 0) ftr__attention_mask_tile(a, &m, &part, &t);
            }
    const ftr__attention_tile t = ftr__attention_query_tile(a, part.begin[0], part.begin[1], part.begin[2]);
    const int64_t k0 = part.begin[3] * a->keys, keys = step[3] ? ftr__gemm_min(a->keys, a->tk - k0) : 1;
    const int64_t queries = step[2] ? t.queries : 1;
    float *to = (float *)a->call->out[3].data + t.b * step[0] + t.h * step[1] + t.q0 * step[2] + k0 * step[3];
    for (int64_t q = 0; q < queries; q++)
        for (int64_t k = 0; k < keys; k++)
            to[q * step[2] + k * step[3]] = ftr__attention_mask_sum(a, m.dmask, step[2] ? q : -1, step[3] ? k : -1);
}

static size_t ftr__attention_partial_bytes(const ftr__attention *a) {
    if (a->pieces == 1 || !ftr__attention_wants(a, 0)) return 0;
    return (size_t)(a->pieces * a->n * a->tq * a->heads * a->d) * sizeof(float);
}

size_t ftr__cpu_attention_grad_workspace(const ftr_kernel_call *call) {
    ftr__attention a = ftr__attention_of(call);
    return ftr__attention_scratch(&a) + ftr__attention_partial_bytes(&a);
}

ftr_status ftr__cpu_attention_grad(const ftr_kernel_call *call) {
    ftr__attention a = ftr__attention_of(call);
    ftr__pool *pool = ftr__cpu_of(call)->pool;
    const size_t scratch = ftr__attention_scratch(&a);
    a.scratch = (unsigned char *)call->workspace;
    a.partial = (float *)(void *)(a.scratch + scratch);
    if ((call->attr->attention.wanted & 7u) != 0)
        ftr__pool_run(pool, a.n * a.kv_heads * a.pieces, ftr__attention_grad_task, &a);
    if (ftr__attention_partial_bytes(&a) > 0)
        ftr__pool_run(pool, ftr__gemm_ceil(call->out[0].count, FTR__ATTENTION_SUM_CHUNK), ftr__attention_sum_task, &a);
    if (call->out[3].count > 0) ftr__pool_run(pool, ftr__attention_part_count(&a), ftr__attention_mask_task, &a);
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------------------- rotary -- */

#define FTR__ROTARY_GRAIN 65536 /* elements of a task */

typedef struct ftr__rotary {
    const ftr_kernel_call *call;
    const ftr__simd_attention *simd;
    int64_t n, t, heads, d, half, rows_per_task;
    double *scratch;
    int64_t scratch_size; /* doubles, of a worker */
} ftr__rotary;

static ftr__rotary ftr__rotary_of(const ftr_kernel_call *call) {
    const ftr_shape *x = &call->in[0].shape;
    ftr__rotary r = {.call = call, .simd = &ftr__cpu_of(call)->simd->attention, .half = call->attr->rotary.dims / 2};
    r.n = x->dim[0], r.t = x->dim[1], r.heads = x->dim[2], r.d = x->dim[3];
    r.rows_per_task = 1 + FTR__ROTARY_GRAIN / ftr__gemm_max(r.n * r.heads * r.d, 1);
    r.scratch_size = 6 * r.half + FTR__ALIGNMENT / (int64_t)sizeof(double);
    r.scratch = (double *)call->workspace;
    return r;
}

/* Cosines and sines as the SIMD functions read them. */
static void ftr__rotary_row(const ftr__rotary *r, const double *turn, float *c, float *s) {
    const bool pairs = r->call->attr->rotary.interleaved, inverse = r->call->attr->rotary.inverse;
    for (int64_t i = 0; i < r->half; i++) {
        const float cosine = (float)turn[2 * i], sine = (float)(inverse ? -turn[2 * i + 1] : turn[2 * i + 1]);
        if (pairs) {
            c[2 * i] = c[2 * i + 1] = cosine;
            s[2 * i] = -sine;
            s[2 * i + 1] = sine;
        } else {
            c[i] = cosine;
            s[i] = sine;
        }
    }
}

/* Some positions, of all samples. From one position to the next angles grow by a constant: their cosines and sines
 * follow from the first ones by the addition theorem, in double. */
static void ftr__rotary_task(void *arg, int64_t task, int32_t worker) {
    const ftr__rotary *r = (const ftr__rotary *)arg;
    const int64_t begin = task * r->rows_per_task, end = ftr__gemm_min(begin + r->rows_per_task, r->t);
    double *turn = r->scratch + worker * r->scratch_size, *step = turn + 2 * r->half;
    float *c = (float *)(void *)(step + 2 * r->half), *s = c + 2 * r->half;
    for (int64_t i = 0; i < r->half; i++) {
        const double angle = pow(r->call->attr->rotary.base, -(double)i / (double)r->half);
        const double first = (double)(r->call->attr->rotary.first + begin) * angle;
        turn[2 * i] = cos(first), turn[2 * i + 1] = sin(first);
        step[2 * i] = cos(angle), step[2 * i + 1] = sin(angle);
    }
    for (int64_t p = begin; p < end; p++) {
        ftr__rotary_row(r, turn, c, s);
        for (int64_t i = 0; i < r->n * r->heads; i++) {
            const int64_t at = ((i / r->heads * r->t + p) * r->heads + i % r->heads) * r->d, rest = r->d - 2 * r->half;
            const float *x = (const float *)r->call->in[0].data + at;
            float *y = (float *)r->call->out[0].data + at;
            if (r->call->attr->rotary.interleaved)
                r->simd->rotate_pairs(r->half, c, s, x, y);
            else
                r->simd->rotate_halves(r->half, c, s, x, y);
            if (rest > 0 && x != y) memcpy(y + 2 * r->half, x + 2 * r->half, (size_t)rest * sizeof(float));
        }
        for (int64_t i = 0; i < r->half; i++) {
            const double cosine = turn[2 * i], sine = turn[2 * i + 1];
            turn[2 * i] = cosine * step[2 * i] - sine * step[2 * i + 1];
            turn[2 * i + 1] = sine * step[2 * i] + cosine * step[2 * i + 1];
        }
    }
}

size_t ftr__cpu_rotary_workspace(const ftr_kernel_call *call) {
    const ftr__rotary r = ftr__rotary_of(call);
    return (size_t)(r.scratch_size * ftr__pool_threads(ftr__cpu_of(call)->pool)) * sizeof(double);
}

ftr_status ftr__cpu_rotary(const ftr_kernel_call *call) {
    ftr__rotary r = ftr__rotary_of(call);
    if (call->out[0].count == 0) return FTR_OK;
    ftr__pool_run(ftr__cpu_of(call)->pool, ftr__gemm_ceil(r.t, r.rows_per_task), ftr__rotary_task, &r);
    return FTR_OK;
}

/* ---- src/backend/cpu/shape.c ---- */
/* Kernels that move elements. They look at the size of an element only. */

#define FTR__MOVE_GRAIN 16384 /* elements of a task */
#define FTR__MOVE_BLOCK 32    /* side of a square that is transposed at once */

/* Copies n elements of 1, 4 or 8 bytes that are `stride` elements apart to a row. */
static void ftr__gather_elements(size_t size, char *out, const char *in, int64_t n, int64_t stride) {
    if (stride == 1) {
        memcpy(out, in, (size_t)n * size);
    } else if (size == 4) {
        uint32_t value;
        for (int64_t i = 0; i < n; i++, in += 4 * stride, out += 4) {
            memcpy(&value, in, 4);
            memcpy(out, &value, 4);
        }
    } else if (size == 8) {
        uint64_t value;
        for (int64_t i = 0; i < n; i++, in += 8 * stride, out += 8) {
            memcpy(&value, in, 8);
            memcpy(out, &value, 8);
        }
    } else {
        for (int64_t i = 0; i < n; i++, in += stride) out[i] = *in;
    }
}

/* The result is dense with these dimensions; from element to element the source moves by the strides. */
typedef struct ftr__move_job {
    size_t size; /* of an element */
    const char *in;
    char *out;
    int32_t rank;
    int64_t dim[FTR_MAX_RANK], stride[FTR_MAX_RANK];
    int64_t rows, chunks, rows_per_task;
    int32_t across;     /* dimension along which the source is dense while the result is not; -1 for none */
    int64_t blocks;     /* of that dimension */
    int64_t across_out; /* its stride in the result */
} ftr__move_job;

static void ftr__move_add_dim(ftr__move_job *job, int64_t size, int64_t stride) {
    const int32_t last = job->rank - 1;
    if (size == 1) return;
    if (job->rank > 0 && job->stride[last] == stride * size) {
        job->dim[last] *= size;
        job->stride[last] = stride;
        return;
    }
    job->dim[job->rank] = size;
    job->stride[job->rank++] = stride;
}

static void ftr__move_task(void *arg, int64_t task, int32_t worker) {
    const ftr__move_job *job = arg;
    const int32_t last = job->rank - 1;
    const int64_t begin = task % job->chunks * FTR__MOVE_GRAIN;
    const int64_t left = job->dim[last] - begin, n = job->chunks > 1 && left > FTR__MOVE_GRAIN ? FTR__MOVE_GRAIN : left;
    const int64_t first = task / job->chunks * job->rows_per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++) {
        int64_t from = begin * job->stride[last];
        for (int64_t d = last - 1, rest = row; d >= 0; rest /= job->dim[d--])
            from += rest % job->dim[d] * job->stride[d];
        ftr__gather_elements(job->size, job->out + (size_t)(row * job->dim[last] + begin) * job->size,
                             job->in + from * (int64_t)job->size, n, job->stride[last]);
    }
}

/* One strip: FTR__MOVE_BLOCK indices of the `across` dimension, all of the last one, block by block, so that both
 * sides stay in cache lines that are used completely. */
static void ftr__move_strip(const ftr__move_job *job, int64_t unit) {
    const int32_t last = job->rank - 1;
    const int64_t a0 = unit % job->blocks * FTR__MOVE_BLOCK, stride = job->stride[last];
    const int64_t a1 = job->dim[job->across] - a0 < FTR__MOVE_BLOCK ? job->dim[job->across] : a0 + FTR__MOVE_BLOCK;
    int64_t from = 0, to = 0, step = 1, rest = unit / job->blocks;
    for (int32_t d = last; d >= 0; step *= job->dim[d--]) {
        if (d == last || d == job->across) continue;
        from += rest % job->dim[d] * job->stride[d];
        to += rest % job->dim[d] * step;
        rest /= job->dim[d];
    }
    for (int64_t k = 0; k < job->dim[last]; k += FTR__MOVE_BLOCK) {
        const int64_t n = job->dim[last] - k < FTR__MOVE_BLOCK ? job->dim[last] - k : FTR__MOVE_BLOCK;
        for (int64_t a = a0; a < a1; a++)
            ftr__gather_elements(job->size, job->out + (size_t)(to + a * job->across_out + k) * job->size,
                                 job->in + (from + a + k * stride) * (int64_t)job->size, n, stride);
    }
}

static void ftr__move_strip_task(void *arg, int64_t task, int32_t worker) {
    const ftr__move_job *job = arg;
    const int64_t first = task * job->rows_per_task;
    (void)worker;
    for (int64_t unit = first; unit < job->rows && unit < first + job->rows_per_task; unit++)
        ftr__move_strip(job, unit);
}

static void ftr__move_cut_strips(ftr__move_job *job) {
    job->blocks = (job->dim[job->across] + FTR__MOVE_BLOCK - 1) / FTR__MOVE_BLOCK;
    job->across_out = 1;
    for (int32_t d = job->across + 1; d < job->rank; d++) job->across_out *= job->dim[d];
    job->rows = job->blocks;
    for (int32_t d = 0; d < job->rank - 1; d++)
        if (d != job->across) job->rows *= job->dim[d];
    job->rows_per_task = 1 + FTR__MOVE_GRAIN / (FTR__MOVE_BLOCK * job->dim[job->rank - 1]);
}

/* The job's dimensions were added, outermost first; none of them is 0. */
static void ftr__move_run(const ftr_kernel_call *call, ftr__move_job *job) {
    ftr__pool *pool = ftr__cpu_of(call)->pool;
    if (job->rank == 0) {
        job->dim[0] = job->stride[0] = 1;
        job->rank = 1;
    }
    const int32_t last = job->rank - 1;
    job->across = -1;
    for (int32_t d = 0; d < last; d++)
        if (job->stride[d] == 1 && job->stride[last] > 1) job->across = d;
    if (job->across >= 0) {
        ftr__move_cut_strips(job);
        ftr__pool_run(pool, (job->rows + job->rows_per_task - 1) / job->rows_per_task, ftr__move_strip_task, job);
        return;
    }
    job->rows = 1;
    for (int32_t d = 0; d < last; d++) job->rows *= job->dim[d];
    job->chunks = (job->dim[last] + FTR__MOVE_GRAIN - 1) / FTR__MOVE_GRAIN;
    job->rows_per_task = job->chunks > 1 ? 1 : 1 + FTR__MOVE_GRAIN / job->dim[last];
    const int64_t groups = (job->rows + job->rows_per_task - 1) / job->rows_per_task;
    ftr__pool_run(pool, groups * job->chunks, ftr__move_task, job);
}

/* Strides of a dense tensor. */
static void ftr__dense_strides(const ftr_shape *shape, int64_t *stride) {
    int64_t step = 1;
    for (int32_t d = shape->rank - 1; d >= 0; d--) {
        stride[d] = step;
        step *= shape->dim[d];
    }
}

static ftr__move_job ftr__move_job_of(const ftr_kernel_call *call) {
    return (ftr__move_job){
        .size = ftr_dtype_size(call->out[0].dtype), .in = call->in[0].data, .out = call->out[0].data};
}

ftr_status ftr__cpu_reshape(const ftr_kernel_call *call) {
    ftr__move_job job = ftr__move_job_of(call);
    if (call->out[0].count == 0 || job.in == job.out) return FTR_OK;
    ftr__move_add_dim(&job, call->out[0].count, 1);
    ftr__move_run(call, &job);
    return FTR_OK;
}

ftr_status ftr__cpu_expand(const ftr_kernel_call *call) {
    const ftr_shape *shape = &call->out[0].shape, *from = &call->in[0].shape;
    ftr__move_job job = ftr__move_job_of(call);
    int64_t stride[FTR_MAX_RANK];
    if (call->out[0].count == 0) return FTR_OK;
    ftr__dense_strides(from, stride);
    for (int32_t d = 0; d < shape->rank; d++) {
        const int32_t source = d - (shape->rank - from->rank);
        ftr__move_add_dim(&job, shape->dim[d], source < 0 || from->dim[source] == 1 ? 0 : stride[source]);
    }
    ftr__move_run(call, &job);
    return FTR_OK;
}

ftr_status ftr__cpu_transpose(const ftr_kernel_call *call) {
    const ftr_shape *shape = &call->out[0].shape;
    ftr__move_job job = ftr__move_job_of(call);
    int64_t stride[FTR_MAX_RANK];
    if (call->out[0].count == 0) return FTR_OK;
    ftr__dense_strides(&call->in[0].shape, stride);
    for (int32_t d = 0; d < shape->rank; d++)
        ftr__move_add_dim(&job, shape->dim[d], stride[call->attr->axes_order.order[d]]);
    ftr__move_run(call, &job);
    return FTR_OK;
}

ftr_status ftr__cpu_slice(const ftr_kernel_call *call) {
    const ftr_shape *shape = &call->out[0].shape;
    const int32_t axis = call->attr->slice.axis;
    ftr__move_job job = ftr__move_job_of(call);
    int64_t stride[FTR_MAX_RANK];
    if (call->out[0].count == 0) return FTR_OK;
    ftr__dense_strides(&call->in[0].shape, stride);
    job.in += call->attr->slice.begin * stride[axis] * (int64_t)job.size;
    for (int32_t d = 0; d < shape->rank; d++)
        ftr__move_add_dim(&job, shape->dim[d], d == axis ? stride[d] * call->attr->slice.step : stride[d]);
    ftr__move_run(call, &job);
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------------------- concat -- */

/* Blocks of bytes from dense to `out_stride` apart. */
typedef struct ftr__place_job {
    const char *in;
    char *out;
    int64_t rows, row_bytes, out_stride;
    int64_t chunks, rows_per_task;
} ftr__place_job;

#define FTR__PLACE_GRAIN (4 * FTR__MOVE_GRAIN) /* bytes of a task */

static void ftr__place_task(void *arg, int64_t task, int32_t worker) {
    const ftr__place_job *job = arg;
    const int64_t begin = task % job->chunks * FTR__PLACE_GRAIN, first = task / job->chunks * job->rows_per_task;
    const int64_t left = job->row_bytes - begin, bytes = left < FTR__PLACE_GRAIN ? left : FTR__PLACE_GRAIN;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++)
        memcpy(job->out + row * job->out_stride + begin, job->in + row * job->row_bytes + begin, (size_t)bytes);
}

ftr_status ftr__cpu_concat(const ftr_kernel_call *call) {
    const ftr_view *out = &call->out[0];
    const int32_t axis = call->attr->axis.axis;
    int64_t outer = 1, inner_bytes = (int64_t)ftr_dtype_size(out->dtype), offset = 0;
    for (int32_t d = 0; d < axis; d++) outer *= out->shape.dim[d];
    for (int32_t d = axis + 1; d < out->shape.rank; d++) inner_bytes *= out->shape.dim[d];
    for (int32_t i = 0; i < call->in_count; i++) {
        const ftr_view *in = &call->in[i];
        if (in->count == 0) continue;
        ftr__place_job job = {.in = in->data, .out = (char *)out->data + offset, .rows = outer};
        job.row_bytes = in->shape.dim[axis] * inner_bytes;
        job.out_stride = out->shape.dim[axis] * inner_bytes;
        job.chunks = (job.row_bytes + FTR__PLACE_GRAIN - 1) / FTR__PLACE_GRAIN;
        job.rows_per_task = job.chunks > 1 ? 1 : 1 + FTR__PLACE_GRAIN / job.row_bytes;
        const int64_t groups = (outer + job.rows_per_task - 1) / job.rows_per_task;
        ftr__pool_run(ftr__cpu_of(call)->pool, groups * job.chunks, ftr__place_task, &job);
        offset += job.row_bytes;
    }
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------- padding -- */

typedef union ftr__pad_value {
    float f32;
    int32_t i32;
    int64_t i64;
    uint8_t u8;
    char bytes[8];
} ftr__pad_value;

/* The result's dimensions; unpadded ones are part of the one before them. */
typedef struct ftr__pad_job {
    size_t size;
    const char *in;
    char *out;
    int32_t rank;
    int64_t dim[FTR_MAX_RANK], before[FTR_MAX_RANK], inside[FTR_MAX_RANK];
    int64_t rows, rows_per_task;
    ftr__pad_value value;
} ftr__pad_job;

static void ftr__pad_add_dim(ftr__pad_job *job, int64_t inside, int64_t before, int64_t after) {
    const int32_t last = job->rank - 1;
    if (before == 0 && after == 0 && job->rank > 0) {
        job->dim[last] *= inside;
        job->before[last] *= inside;
        job->inside[last] *= inside;
        return;
    }
    job->dim[job->rank] = before + inside + after;
    job->before[job->rank] = before;
    job->inside[job->rank++] = inside;
}

static void ftr__pad_fill(const ftr__pad_job *job, char *out, int64_t n) {
    if (job->value.i64 == 0) {
        memset(out, 0, (size_t)n * job->size);
        return;
    }
    for (int64_t i = 0; i < n; i++, out += job->size) memcpy(out, job->value.bytes, job->size);
}

static void ftr__pad_row(const ftr__pad_job *job, int64_t row) {
    const int32_t last = job->rank - 1;
    const int64_t n = job->dim[last], before = job->before[last], inside = job->inside[last];
    char *out = job->out + (size_t)(row * n) * job->size;
    int64_t from = 0, step = inside;
    bool covered = inside > 0;
    for (int32_t d = last - 1; d >= 0; d--) {
        const int64_t at = row % job->dim[d] - job->before[d];
        row /= job->dim[d];
        covered = covered && at >= 0 && at < job->inside[d];
        from += at * step;
        step *= job->inside[d];
    }
    if (!covered) {
        ftr__pad_fill(job, out, n);
        return;
    }
    ftr__pad_fill(job, out, before);
    memcpy(out + (size_t)before * job->size, job->in + from * (int64_t)job->size, (size_t)inside * job->size);
    ftr__pad_fill(job, out + (size_t)(before + inside) * job->size, n - before - inside);
}

static void ftr__pad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__pad_job *job = arg;
    const int64_t first = task * job->rows_per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++) ftr__pad_row(job, row);
}

static void ftr__pad_run(const ftr_kernel_call *call, ftr__pad_job *job) {
    if (call->out[0].count == 0) return;
    if (job->rank == 0) ftr__pad_add_dim(job, 1, 0, 0);
    job->rows = 1;
    for (int32_t d = 0; d < job->rank - 1; d++) job->rows *= job->dim[d];
    job->rows_per_task = 1 + FTR__MOVE_GRAIN / job->dim[job->rank - 1];
    ftr__pool_run(ftr__cpu_of(call)->pool, (job->rows + job->rows_per_task - 1) / job->rows_per_task, ftr__pad_task,
                  job);
}

/* `value` in the element type: truncated and saturated, NaN as 0 for integers. */
static ftr__pad_value ftr__pad_value_of(ftr_dtype dtype, double value) {
    ftr__pad_value made = {.i64 = 0};
    const double whole = value != value ? 0.0 : value;
    switch (dtype) {
    case FTR_F32: made.f32 = (float)value; break;
    case FTR_I32:
        made.i32 = whole >= 2147483647.0 ? INT32_MAX : whole <= -2147483648.0 ? INT32_MIN : (int32_t)whole;
        break;
    case FTR_I64:
        made.i64 = whole >= 9223372036854775808.0    ? INT64_MAX
                   : whole <= -9223372036854775808.0 ? INT64_MIN
                                                     : (int64_t)whole;
        break;
    case FTR_U8: made.u8 = whole >= 255.0 ? 255 : whole > 0.0 ? (uint8_t)whole : 0; break;
    default: made.u8 = value != 0.0; break;
    }
    return made;
}

ftr_status ftr__cpu_pad(const ftr_kernel_call *call) {
    const ftr_view *in = &call->in[0];
    ftr__pad_job job = {.size = ftr_dtype_size(in->dtype), .in = in->data, .out = call->out[0].data};
    job.value = ftr__pad_value_of(in->dtype, call->attr->pad.value);
    for (int32_t d = 0; d < in->shape.rank; d++)
        ftr__pad_add_dim(&job, in->shape.dim[d], call->attr->pad.before[d], call->attr->pad.after[d]);
    ftr__pad_run(call, &job);
    return FTR_OK;
}

/* --------------------------------------------------------------------------------------------- gradient of slice -- */

/* A slice with a step: lines of `inner` bytes; those of the slice are copied, the others are 0. */
typedef struct ftr__spread_job {
    const ftr_kernel_call *call;
    int64_t lines, lines_per_task, size, taken, inner;
} ftr__spread_job;

static void ftr__spread_task(void *arg, int64_t task, int32_t worker) {
    const ftr__spread_job *job = arg;
    const int64_t first = task * job->lines_per_task, begin = job->call->attr->slice.begin;
    const int64_t step = job->call->attr->slice.step;
    char *out = job->call->out[0].data;
    (void)worker;
    for (int64_t line = first; line < job->lines && line < first + job->lines_per_task; line++) {
        const int64_t at = line % job->size - begin, which = at / step;
        if (at >= 0 && at % step == 0 && which < job->taken)
            memcpy(out + line * job->inner,
                   (const char *)job->call->in[0].data + (line / job->size * job->taken + which) * job->inner,
                   (size_t)job->inner);
        else
            memset(out + line * job->inner, 0, (size_t)job->inner);
    }
}

ftr_status ftr__cpu_slice_grad(const ftr_kernel_call *call) {
    const ftr_view *in = &call->in[0], *out = &call->out[0];
    const int32_t axis = call->attr->slice.axis;
    const int64_t begin = call->attr->slice.begin;
    if (out->count == 0) return FTR_OK;
    if (call->attr->slice.step == 1) {
        ftr__pad_job job = {.size = ftr_dtype_size(out->dtype), .in = in->data, .out = out->data, .value = {.i64 = 0}};
        for (int32_t d = 0; d < out->shape.rank; d++) {
            const int64_t extra = out->shape.dim[d] - in->shape.dim[d];
            ftr__pad_add_dim(&job, in->shape.dim[d], d == axis && extra > 0 ? begin : 0,
                             d == axis && extra > 0 ? extra - begin : 0);
        }
        ftr__pad_run(call, &job);
        return FTR_OK;
    }
    ftr__spread_job job = {.call = call, .size = out->shape.dim[axis], .taken = in->shape.dim[axis]};
    job.inner = (int64_t)ftr_dtype_size(out->dtype);
    for (int32_t d = axis + 1; d < out->shape.rank; d++) job.inner *= out->shape.dim[d];
    job.lines = out->count * (int64_t)ftr_dtype_size(out->dtype) / job.inner;
    job.lines_per_task = 1 + FTR__PLACE_GRAIN / job.inner;
    ftr__pool_run(ftr__cpu_of(call)->pool, (job.lines + job.lines_per_task - 1) / job.lines_per_task, ftr__spread_task,
                  &job);
    return FTR_OK;
}

/* ---- src/backend/cpu/loss.c ---- */
/* Softmax along an axis and cross entropy over the last one. */

#define FTR__SOFTMAX_GRAIN 16384 /* elements of a task */
#define FTR__SOFTMAX_TILE 256    /* neighbouring columns that are handled together when the axis is not the last one */

typedef struct ftr__softmax_job {
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    int64_t n, inner, tiles, units, per_task; /* a unit is a row, or a tile of columns */
    bool log;
} ftr__softmax_job;

static void ftr__softmax_row(const ftr__softmax_job *job, int64_t row) {
    const ftr__simd_math *math = job->math;
    const float *x = (const float *)job->call->in[0].data + row * job->n;
    float *out = (float *)job->call->out[0].data + row * job->n;
    const float most = math->maximum(job->n, x);
    const double sum = math->exp_sum(job->n, x, most, job->log ? NULL : out);
    const float scale = (float)(1.0 / sum);
    if (job->log)
        math->subtract_twice(job->n, x, most, (float)log(sum), out);
    else
        math->binary[FTR__BINARY_MUL][FTR__OPERANDS_RIGHT_SCALAR](job->n, out, &scale, out);
}

static void ftr__softmax_columns(const ftr__softmax_job *job, int64_t offset, int64_t width) {
    const ftr__simd_math *math = job->math;
    const float *x = (const float *)job->call->in[0].data + offset;
    float *out = (float *)job->call->out[0].data + offset;
    float most[FTR__SOFTMAX_TILE], last[FTR__SOFTMAX_TILE], made[FTR__SOFTMAX_TILE];
    double sum[FTR__SOFTMAX_TILE] = {0};
    for (int64_t j = 0; j < width; j++) most[j] = -INFINITY;
    math->column_maximum(job->n, width, x, job->inner, most);
    for (int64_t r = 0; r < job->n; r++) {
        float *e = job->log ? made : out + r * job->inner;
        math->binary[FTR__BINARY_SUB][FTR__OPERANDS_ROWS](width, x + r * job->inner, most, e);
        math->unary[FTR__UNARY_EXP](width, e, e);
        for (int64_t j = 0; j < width; j++) sum[j] += (double)e[j];
    }
    for (int64_t j = 0; j < width; j++) last[j] = (float)(job->log ? log(sum[j]) : 1.0 / sum[j]);
    for (int64_t r = 0; r < job->n; r++) {
        float *to = out + r * job->inner;
        if (job->log) math->binary[FTR__BINARY_SUB][FTR__OPERANDS_ROWS](width, x + r * job->inner, most, to);
        math->binary[job->log ? FTR__BINARY_SUB : FTR__BINARY_MUL][FTR__OPERANDS_ROWS](width, to, last, to);
    }
}

static void ftr__softmax_grad_row(const ftr__softmax_job *job, int64_t row) {
    const float *dy = (const float *)job->call->in[0].data + row * job->n;
    const float *y = (const float *)job->call->in[1].data + row * job->n;
    float *dx = (float *)job->call->out[0].data + row * job->n;
    if (job->log)
        job->math->log_softmax_grad(job->n, dy, y, (float)job->math->sum(job->n, dy), dx);
    else
        job->math->softmax_grad(job->n, dy, y, (float)job->math->dot(job->n, dy, y), dx);
}

static void ftr__softmax_grad_columns(const ftr__softmax_job *job, int64_t offset, int64_t width) {
    const float *dy = (const float *)job->call->in[0].data + offset, *y = (const float *)job->call->in[1].data + offset;
    float *dx = (float *)job->call->out[0].data + offset, e[FTR__SOFTMAX_TILE];
    double sum[FTR__SOFTMAX_TILE] = {0};
    for (int64_t r = 0; r < job->n; r++)
        for (int64_t j = 0, at = r * job->inner; j < width; j++, at++)
            sum[j] += job->log ? (double)dy[at] : (double)dy[at] * (double)y[at];
    for (int64_t r = 0; r < job->n; r++) {
        const int64_t at = r * job->inner;
        if (job->log) {
            job->math->unary[FTR__UNARY_EXP](width, y + at, e);
            for (int64_t j = 0; j < width; j++) dx[at + j] = (float)((double)dy[at + j] - (double)e[j] * sum[j]);
        } else {
            for (int64_t j = 0; j < width; j++) dx[at + j] = (float)((double)y[at + j] * ((double)dy[at + j] - sum[j]));
        }
    }
}

static void ftr__softmax_task(void *arg, int64_t task, int32_t worker) {
    const ftr__softmax_job *job = arg;
    const bool gradient = job->call->op == FTR_OP_softmax_grad || job->call->op == FTR_OP_log_softmax_grad;
    const int64_t first = task * job->per_task;
    (void)worker;
    for (int64_t unit = first; unit < job->units && unit < first + job->per_task; unit++) {
        if (job->inner == 1) {
            (gradient ? ftr__softmax_grad_row : ftr__softmax_row)(job, unit);
            continue;
        }
        const int64_t column = unit % job->tiles * FTR__SOFTMAX_TILE, left = job->inner - column;
        const int64_t offset = unit / job->tiles * job->n * job->inner + column;
        (gradient ? ftr__softmax_grad_columns
                  : ftr__softmax_columns)(job, offset, left < FTR__SOFTMAX_TILE ? left : FTR__SOFTMAX_TILE);
    }
}

static ftr_status ftr__softmax_run(const ftr_kernel_call *call, bool log) {
    const ftr_view *x = &call->in[0];
    const int32_t axis = call->attr->axis.axis;
    if (x->count == 0) return FTR_OK;
    ftr__softmax_job job = {.call = call, .math = &ftr__cpu_of(call)->simd->math, .inner = 1, .log = log};
    job.n = x->shape.rank > 0 ? x->shape.dim[axis] : 1;
    for (int32_t d = axis + 1; d < x->shape.rank; d++) job.inner *= x->shape.dim[d];
    job.tiles = job.inner == 1 ? 1 : (job.inner + FTR__SOFTMAX_TILE - 1) / FTR__SOFTMAX_TILE;
    job.units = x->count / (job.n * job.inner) * job.tiles;
    const int64_t width = job.inner < FTR__SOFTMAX_TILE ? job.inner : FTR__SOFTMAX_TILE;
    job.per_task = 1 + FTR__SOFTMAX_GRAIN / (job.n * width);
    ftr__pool_run(ftr__cpu_of(call)->pool, (job.units + job.per_task - 1) / job.per_task, ftr__softmax_task, &job);
    return FTR_OK;
}

ftr_status ftr__cpu_softmax(const ftr_kernel_call *call) {
    return ftr__softmax_run(call, call->op == FTR_OP_log_softmax);
}

ftr_status ftr__cpu_softmax_grad(const ftr_kernel_call *call) {
    return ftr__softmax_run(call, call->op == FTR_OP_log_softmax_grad);
}

/* ------------------------------------------------------------------------------------------------- cross entropy -- */

/* What the rows of a task give. */
typedef struct ftr__loss_part {
    double loss, weight;
    int64_t bad_row; /* the first one whose label is outside the classes; -1 */
} ftr__loss_part;

typedef struct ftr__loss_job {
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    const ftr_view *logits, *labels;
    const float *class_weights, *mask; /* NULL where missing */
    int64_t classes, rows, rows_per_task, tasks, rows_per_mask;
    double smoothing, all_weights; /* all_weights: sum of the class weights */
    bool nll;                      /* the logits are log-probabilities already */
} ftr__loss_job;

/* The sizes; data pointers are not looked at. */
static ftr__loss_job ftr__loss_job_of(const ftr_kernel_call *call, const ftr_view *logits) {
    ftr__loss_job job = {.call = call, .logits = logits, .labels = logits + 1};
    job.classes = logits->shape.dim[logits->shape.rank - 1];
    job.rows = job.labels->count;
    job.rows_per_task = 1 + FTR__SOFTMAX_GRAIN / (job.classes > 0 ? job.classes : 1);
    job.tasks = (job.rows + job.rows_per_task - 1) / job.rows_per_task;
    job.smoothing = call->attr->cross_entropy.label_smoothing;
    job.nll = call->op == FTR_OP_nll || call->op == FTR_OP_nll_grad;
    return job;
}

static void ftr__loss_prepare(ftr__loss_job *job, const ftr_view *class_weights, const ftr_view *mask) {
    job->math = &ftr__cpu_of(job->call)->simd->math;
    job->class_weights = class_weights ? class_weights->data : NULL;
    job->mask = mask ? mask->data : NULL;
    job->rows_per_mask = mask && mask->count > 0 ? job->rows / mask->count : 1;
    job->all_weights = class_weights ? 0.0 : (double)job->classes;
    for (int64_t c = 0; class_weights && c < job->classes; c++) job->all_weights += (double)job->class_weights[c];
}

static int64_t ftr__loss_label(const ftr__loss_job *job, int64_t row) {
    return job->labels->dtype == FTR_I32 ? ((const int32_t *)job->labels->data)[row]
                                         : ((const int64_t *)job->labels->data)[row];
}

static double ftr__loss_mask(const ftr__loss_job *job, int64_t row) {
    return job->mask ? (double)job->mask[row / job->rows_per_mask] : 1.0;
}

static double ftr__loss_class_weight(const ftr__loss_job *job, int64_t label) {
    return job->class_weights ? (double)job->class_weights[label] : 1.0;
}

/* Sum over classes of weight * -log p, where log p = x - most - log_sum. */
static double ftr__loss_smooth_sum(const ftr__loss_job *job, const float *x, float most, double log_sum) {
    double sum = 0;
    for (int64_t c = 0; c < job->classes; c++)
        sum += ftr__loss_class_weight(job, c) * ((double)most - (double)x[c] + log_sum);
    return sum;
}

/* PyTorch's cross_entropy for one row: (1 - e) w[label] nll + e / C * sum of w[c] * -log p[c]. */
static void ftr__loss_row(const ftr__loss_job *job, int64_t row, ftr__loss_part *part) {
    const float *x = (const float *)job->logits->data + row * job->classes;
    const float most = job->nll ? 0.0f : job->math->maximum(job->classes, x);
    const double log_sum = job->nll ? 0.0 : log(job->math->exp_sum(job->classes, x, most, NULL));
    const int64_t label = ftr__loss_label(job, row);
    const double mask = ftr__loss_mask(job, row);
    double loss = 0, weight = 0;
    if (!job->nll) ((float *)job->call->out[1].data)[row] = (float)log_sum;
    if (mask != 0.0 && label != job->call->attr->cross_entropy.ignore_index) {
        if (label < 0 || label >= job->classes) {
            if (part->bad_row < 0) part->bad_row = row;
            return;
        }
        weight = mask * ftr__loss_class_weight(job, label);
        loss = (1.0 - job->smoothing) * weight * ((double)most - (double)x[label] + log_sum);
        if (job->smoothing > 0)
            loss += mask * job->smoothing / (double)job->classes * ftr__loss_smooth_sum(job, x, most, log_sum);
    }
    if (job->call->attr->cross_entropy.reduction == FTR_REDUCE_NONE)
        ((float *)job->call->out[0].data)[row] = (float)loss;
    part->loss += loss;
    part->weight += weight;
}

static void ftr__loss_task(void *arg, int64_t task, int32_t worker) {
    const ftr__loss_job *job = arg;
    const int64_t first = task * job->rows_per_task;
    ftr__loss_part part = {.bad_row = -1};
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++)
        ftr__loss_row(job, row, &part);
    ((ftr__loss_part *)job->call->workspace)[task] = part;
}

size_t ftr__cpu_cross_entropy_workspace(const ftr_kernel_call *call) {
    const ftr__loss_job job = ftr__loss_job_of(call, &call->in[0]);
    return (size_t)job.tasks * sizeof(ftr__loss_part);
}

ftr_status ftr__cpu_cross_entropy(const ftr_kernel_call *call) {
    ftr__loss_job job = ftr__loss_job_of(call, &call->in[0]);
    ftr__loss_prepare(&job, ftr__optional_input(call, 2), ftr__optional_input(call, 3));
    ftr__pool_run(ftr__cpu_of(call)->pool, job.tasks, ftr__loss_task, &job);
    double loss = 0, weight = 0;
    for (int64_t task = 0; task < job.tasks; task++) {
        const ftr__loss_part *part = (const ftr__loss_part *)call->workspace + task;
        if (part->bad_row >= 0)
            return ftr_backend_error(call, FTR_ERROR_DATA, "label %lld at row %lld is outside the %lld classes",
                                     (long long)ftr__loss_label(&job, part->bad_row), (long long)part->bad_row,
                                     (long long)job.classes);
        loss += part->loss;
        weight += part->weight;
    }
    const ftr_reduction reduction = call->attr->cross_entropy.reduction;
    if (reduction != FTR_REDUCE_NONE)
        *(float *)call->out[0].data = (float)(reduction == FTR_REDUCE_MEAN ? loss / weight : loss);
    *(float *)call->out[job.nll ? 1 : 2].data = (float)weight;
    return FTR_OK;
}

/* d loss / d x[c] = g ((1 - e) w[label] (p[c] - [c == label]) + e / C (p[c] sum of w - w[c])). */
static void ftr__loss_grad_row(const ftr__loss_job *job, int64_t row) {
    const ftr_kernel_call *call = job->call;
    const ftr_reduction reduction = call->attr->cross_entropy.reduction;
    const int64_t label = ftr__loss_label(job, row);
    const double mask = ftr__loss_mask(job, row);
    const float *x = (const float *)job->logits->data + row * job->classes, *dloss = call->in[0].data;
    float *dx = (float *)call->out[0].data + row * job->classes;
    if (mask == 0.0 || label == call->attr->cross_entropy.ignore_index || label < 0 || label >= job->classes) {
        memset(dx, 0, (size_t)job->classes * sizeof *dx);
        return;
    }
    double g = mask * (double)dloss[reduction == FTR_REDUCE_NONE ? row : 0];
    if (reduction == FTR_REDUCE_MEAN) g /= (double)*(const float *)call->in[job->nll ? 3 : 4].data;
    if (job->nll) {
        memset(dx, 0, (size_t)job->classes * sizeof *dx);
        dx[label] = (float)(-g * ftr__loss_class_weight(job, label));
        return;
    }
    const double at_label = g * (1.0 - job->smoothing) * ftr__loss_class_weight(job, label);
    const double at_each = job->smoothing > 0 ? g * job->smoothing / (double)job->classes : 0.0;
    const double sum = exp((double)((const float *)call->in[3].data)[row]);
    job->math->exp_scale_add(job->classes, x, job->math->maximum(job->classes, x),
                             (float)((at_label + at_each * job->all_weights) / sum),
                             job->class_weights ? 0.0f : (float)-at_each, dx);
    if (job->class_weights && job->smoothing > 0)
        job->math->axpy(job->classes, (float)-at_each, job->class_weights, dx);
    dx[label] -= (float)at_label;
}

static void ftr__loss_grad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__loss_job *job = arg;
    const int64_t first = task * job->rows_per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->rows_per_task; row++) ftr__loss_grad_row(job, row);
}

ftr_status ftr__cpu_cross_entropy_grad(const ftr_kernel_call *call) {
    ftr__loss_job job = ftr__loss_job_of(call, &call->in[1]);
    const int32_t weights = job.nll ? 4 : 5;
    ftr__loss_prepare(&job, ftr__optional_input(call, weights), ftr__optional_input(call, weights + 1));
    ftr__pool_run(ftr__cpu_of(call)->pool, job.tasks, ftr__loss_grad_task, &job);
    return FTR_OK;
}

/* ---- src/backend/cpu/index.c ---- */
/* Ops on indices. Before anything is read or written through an index, all of them are checked. Tasks own what they
 * write, and add in the order of the indices: the same bits on any number of threads. */

#define FTR__INDEX_GRAIN 16384 /* elements of a task */
#define FTR__INDEX_TILE 256    /* columns of a row that are summed together */
#define FTR__INDEX_SPAN 2048   /* rows that are added in f32 at most */

static inline int64_t ftr__index_at(const ftr_view *index, int64_t i) {
    return index->dtype == FTR_I32 ? ((const int32_t *)index->data)[i] : ((const int64_t *)index->data)[i];
}

static inline int64_t ftr__index_tasks(int64_t units, int64_t per_task) { return (units + per_task - 1) / per_task; }

/* ------------------------------------------------------------------------------------------------------ checking -- */

typedef struct ftr__index_check {
    const ftr_view *index;
    int64_t limit;
    int64_t *bad; /* of a task: the first position that is out of range, or -1 */
} ftr__index_check;

static void ftr__index_check_task(void *arg, int64_t task, int32_t worker) {
    const ftr__index_check *job = arg;
    const int64_t first = task * FTR__INDEX_GRAIN, left = job->index->count - first;
    const int64_t last = first + (left < FTR__INDEX_GRAIN ? left : FTR__INDEX_GRAIN);
    (void)worker;
    job->bad[task] = -1;
    for (int64_t i = last - 1; i >= first; i--)
        if ((uint64_t)ftr__index_at(job->index, i) >= (uint64_t)job->limit) job->bad[task] = i;
}

static size_t ftr__index_check_bytes(const ftr_view *index) {
    return (size_t)ftr__index_tasks(index->count, FTR__INDEX_GRAIN) * sizeof(int64_t);
}

/* The first position whose index is not in 0 to limit - 1; -1 if there is none. Uses the head of the workspace. */
static int64_t ftr__index_first_bad(const ftr_kernel_call *call, const ftr_view *index, int64_t limit) {
    ftr__index_check job = {.index = index, .limit = limit, .bad = call->workspace};
    const int64_t tasks = ftr__index_tasks(index->count, FTR__INDEX_GRAIN);
    ftr__pool_run(ftr__cpu_of(call)->pool, tasks, ftr__index_check_task, &job);
    for (int64_t task = 0; task < tasks; task++)
        if (job.bad[task] >= 0) return job.bad[task];
    return -1;
}

/* ----------------------------------------------------------------------------------------------------- embedding -- */

typedef struct ftr__embedding_job {
    const ftr_kernel_call *call;
    int64_t rows, width, count, per_task; /* of the weight; indices */
    int64_t tiles;
    const int64_t *ends, *order; /* positions, sorted by their index: those of row r end at ends[r] */
} ftr__embedding_job;

static ftr_status ftr__embedding_check(const ftr_kernel_call *call, int64_t rows) {
    const ftr_view *index = &call->in[1];
    const int64_t bad = ftr__index_first_bad(call, index, rows);
    if (bad < 0) return FTR_OK;
    return ftr_backend_error(call, FTR_ERROR_DATA, "index %lld at position %lld is outside the %lld rows",
                             (long long)ftr__index_at(index, bad), (long long)bad, (long long)rows);
}

static void ftr__embedding_task(void *arg, int64_t task, int32_t worker) {
    const ftr__embedding_job *job = arg;
    const float *weight = job->call->in[0].data;
    float *out = job->call->out[0].data;
    const int64_t first = task * job->per_task;
    (void)worker;
    for (int64_t i = first; i < job->count && i < first + job->per_task; i++)
        memcpy(out + i * job->width, weight + ftr__index_at(&job->call->in[1], i) * job->width,
               (size_t)job->width * sizeof *out);
}

size_t ftr__cpu_embedding_workspace(const ftr_kernel_call *call) { return ftr__index_check_bytes(&call->in[1]); }

ftr_status ftr__cpu_embedding(const ftr_kernel_call *call) {
    ftr__embedding_job job = {.call = call, .rows = call->in[0].shape.dim[0], .width = call->in[0].shape.dim[1]};
    job.count = call->in[1].count;
    const ftr_status status = ftr__embedding_check(call, job.rows);
    if (status || call->out[0].count == 0) return status;
    job.per_task = 1 + FTR__INDEX_GRAIN / job.width;
    ftr__pool_run(ftr__cpu_of(call)->pool, ftr__index_tasks(job.count, job.per_task), ftr__embedding_task, &job);
    return FTR_OK;
}

/* A tile of one row: the sum of the gradients at its positions; spans of them are added in double. */
static void ftr__embedding_grad_row(const ftr__embedding_job *job, int64_t row, int64_t column, int64_t width) {
    const float *dy = (const float *)job->call->in[0].data + column;
    float *out = (float *)job->call->out[0].data + row * job->width + column;
    int64_t at = row > 0 ? job->ends[row - 1] : 0;
    const int64_t end = job->ends[row];
    const bool spans = end - at > FTR__INDEX_SPAN;
    double total[FTR__INDEX_TILE];
    memset(out, 0, (size_t)width * sizeof *out);
    if (spans) memset(total, 0, sizeof total);
    while (at < end) {
        const int64_t last = end - at < FTR__INDEX_SPAN ? end : at + FTR__INDEX_SPAN;
        for (; at < last; at++)
            ftr__cpu_of(job->call)->simd->math.axpy(width, 1.0f, dy + job->order[at] * job->width, out);
        for (int64_t j = 0; spans && j < width; j++) {
            total[j] += (double)out[j];
            out[j] = at < end ? 0.0f : (float)total[j];
        }
    }
}

static void ftr__embedding_grad_task(void *arg, int64_t task, int32_t worker) {
    const ftr__embedding_job *job = arg;
    const int64_t column = task % job->tiles * FTR__INDEX_TILE, left = job->width - column;
    const int64_t first = task / job->tiles * job->per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->per_task; row++)
        ftr__embedding_grad_row(job, row, column, left < FTR__INDEX_TILE ? left : FTR__INDEX_TILE);
}

/* The check's cells, then ends and order. */
size_t ftr__cpu_embedding_grad_workspace(const ftr_kernel_call *call) {
    return ftr__index_check_bytes(&call->in[1]) +
           (size_t)(call->out[0].shape.dim[0] + call->in[1].count) * sizeof(int64_t);
}

ftr_status ftr__cpu_embedding_grad(const ftr_kernel_call *call) {
    const ftr_view *index = &call->in[1];
    ftr__embedding_job job = {.call = call, .rows = call->out[0].shape.dim[0], .width = call->out[0].shape.dim[1]};
    job.count = index->count;
    const ftr_status status = ftr__embedding_check(call, job.rows);
    if (status || call->out[0].count == 0) return status;
    int64_t *ends = (int64_t *)call->workspace + ftr__index_tasks(job.count, FTR__INDEX_GRAIN);
    int64_t *order = ends + job.rows, begin = 0;
    memset(ends, 0, (size_t)job.rows * sizeof *ends);
    for (int64_t i = 0; i < job.count; i++) ends[ftr__index_at(index, i)]++;
    for (int64_t row = 0; row < job.rows; row++) { /* where the row begins; filling moves it to its end */
        const int64_t size = ends[row];
        ends[row] = begin;
        begin += size;
    }
    for (int64_t i = 0; i < job.count; i++) order[ends[ftr__index_at(index, i)]++] = i;
    job.ends = ends;
    job.order = order;
    job.tiles = ftr__index_tasks(job.width, FTR__INDEX_TILE);
    const int64_t width = job.width < FTR__INDEX_TILE ? job.width : FTR__INDEX_TILE;
    job.per_task = 1 + FTR__INDEX_GRAIN / ((1 + job.count / job.rows) * width);
    ftr__pool_run(ftr__cpu_of(call)->pool, ftr__index_tasks(job.rows, job.per_task) * job.tiles,
                  ftr__embedding_grad_task, &job);
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------- gather and scatter -- */

/* The index as blocks of rows x columns elements: rows run along the axis, columns along the last dimension; if that is
 * the axis there is one row. A block has a place in the index, in x (the gathered or the scattered-to tensor) and in
 * the dense partner (gather's result, scatter's source). */
typedef struct ftr__gather_job {
    const ftr_kernel_call *call;
    const ftr_view *index;
    const char *from; /* gather: x; scatter: the source */
    char *to;         /* gather: the result; scatter: x and more */
    int32_t outer_rank;
    int64_t outer[FTR_MAX_RANK], index_stride[FTR_MAX_RANK], x_stride[FTR_MAX_RANK], partner_stride[FTR_MAX_RANK];
    int64_t blocks, rows, columns;
    int64_t index_row, partner_row; /* from row to row */
    int64_t x_step;                 /* from index to index */
    int64_t x_column;               /* from column to column: 0 if the last dimension is the axis */
    int64_t row_cut, column_cut, row_cuts, column_cuts, per_task;
} ftr__gather_job;

/* A piece of a block. */
typedef struct ftr__gather_piece {
    int64_t index, x, partner; /* offsets of its first row and column */
    int64_t rows, columns;
} ftr__gather_piece;

static void ftr__gather_plan(ftr__gather_job *job, const ftr_shape *x, const ftr_shape *partner, int32_t axis) {
    const ftr_shape *index = &job->index->shape;
    const int32_t last = index->rank - 1;
    int64_t index_stride = 1, x_stride = 1, partner_stride = 1;
    job->blocks = job->rows = 1;
    for (int32_t d = last; d >= 0; d--) {
        if (d == axis) job->x_step = x_stride;
        if (d == last) {
            job->columns = index->dim[d];
            job->x_column = d == axis ? 0 : 1;
        } else if (d == axis) {
            job->rows = index->dim[d];
            job->index_row = index_stride;
            job->partner_row = partner_stride;
        } else {
            const int32_t at = job->outer_rank++;
            job->outer[at] = index->dim[d];
            job->index_stride[at] = index_stride;
            job->x_stride[at] = x_stride;
            job->partner_stride[at] = partner_stride;
            job->blocks *= index->dim[d];
        }
        index_stride *= index->dim[d];
        x_stride *= x->dim[d];
        partner_stride *= partner->dim[d];
    }
}

/* Cuts blocks into pieces; returns the number of tasks. */
static int64_t ftr__gather_cut(ftr__gather_job *job, int64_t row_cut, int64_t column_cut) {
    job->row_cut = row_cut < job->rows ? row_cut : job->rows;
    job->column_cut = column_cut < job->columns ? column_cut : job->columns;
    job->row_cuts = ftr__index_tasks(job->rows, job->row_cut);
    job->column_cuts = ftr__index_tasks(job->columns, job->column_cut);
    job->per_task = 1 + FTR__INDEX_GRAIN / (job->row_cut * job->column_cut);
    return ftr__index_tasks(job->blocks * job->row_cuts * job->column_cuts, job->per_task);
}

static ftr__gather_piece ftr__gather_piece_at(const ftr__gather_job *job, int64_t number) {
    const int64_t column = number % job->column_cuts * job->column_cut;
    const int64_t row = number / job->column_cuts % job->row_cuts * job->row_cut;
    int64_t block = number / job->column_cuts / job->row_cuts;
    ftr__gather_piece piece = {row * job->index_row + column, column * job->x_column, row * job->partner_row + column,
                               job->rows - row, job->columns - column};
    if (piece.rows > job->row_cut) piece.rows = job->row_cut;
    if (piece.columns > job->column_cut) piece.columns = job->column_cut;
    for (int32_t i = 0; i < job->outer_rank; i++) {
        const int64_t at = block % job->outer[i];
        block /= job->outer[i];
        piece.index += at * job->index_stride[i];
        piece.x += at * job->x_stride[i];
        piece.partner += at * job->partner_stride[i];
    }
    return piece;
}

/* Called with a constant size. */
static inline void ftr__gather_copy(const ftr__gather_job *job, ftr__gather_piece piece, int64_t size) {
    for (int64_t r = 0; r < piece.rows; r++)
        for (int64_t j = 0; j < piece.columns; j++) {
            const int64_t k = ftr__index_at(job->index, piece.index + r * job->index_row + j);
            memcpy(job->to + (piece.partner + r * job->partner_row + j) * size,
                   job->from + (piece.x + k * job->x_step + j * job->x_column) * size, (size_t)size);
        }
}

static void ftr__gather_task(void *arg, int64_t task, int32_t worker) {
    const ftr__gather_job *job = arg;
    const int64_t first = task * job->per_task, pieces = job->blocks * job->row_cuts * job->column_cuts;
    (void)worker;
    for (int64_t i = first; i < pieces && i < first + job->per_task; i++) {
        const ftr__gather_piece piece = ftr__gather_piece_at(job, i);
        switch (ftr_dtype_size(job->call->out[0].dtype)) {
        case 1: ftr__gather_copy(job, piece, 1); break;
        case 4: ftr__gather_copy(job, piece, 4); break;
        default: ftr__gather_copy(job, piece, 8); break;
        }
    }
}

static ftr_status ftr__gather_check(const ftr_kernel_call *call, const ftr_view *index, const ftr_shape *x,
                                    int32_t axis) {
    const int64_t bad = ftr__index_first_bad(call, index, x->dim[axis]);
    if (bad < 0) return FTR_OK;
    return ftr_backend_error(
        call, FTR_ERROR_DATA, "index %lld at position %lld is outside axis %d, which has size %lld",
        (long long)ftr__index_at(index, bad), (long long)bad, (int)axis, (long long)x->dim[axis]);
}

size_t ftr__cpu_gather_workspace(const ftr_kernel_call *call) { return ftr__index_check_bytes(&call->in[1]); }

ftr_status ftr__cpu_gather(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *index = &call->in[1];
    const int32_t axis = call->attr->axis.axis;
    const ftr_status status = ftr__gather_check(call, index, &x->shape, axis);
    if (status || index->count == 0) return status;
    ftr__gather_job job = {.call = call, .index = index, .from = x->data, .to = call->out[0].data};
    ftr__gather_plan(&job, &x->shape, &index->shape, axis);
    const int64_t cut = job.columns < FTR__INDEX_GRAIN ? FTR__INDEX_GRAIN / job.columns : 1;
    ftr__pool_run(ftr__cpu_of(call)->pool, ftr__gather_cut(&job, cut, FTR__INDEX_GRAIN), ftr__gather_task, &job);
    return FTR_OK;
}

/* Adds in the order of the index; `through` is unsigned for integers, whose sums wrap. */
#define FTR__SCATTER_FUNCTION(name, type, through)                                                                     \
    static void name(const ftr__gather_job *job, ftr__gather_piece piece) {                                            \
        const type *from = (const type *)(const void *)job->from + piece.partner;                                      \
        type *to = (type *)(void *)job->to + piece.x;                                                                  \
        for (int64_t r = 0; r < piece.rows; r++)                                                                       \
            for (int64_t j = 0; j < piece.columns; j++) {                                                              \
                const int64_t k = ftr__index_at(job->index, piece.index + r * job->index_row + j);                     \
                type *cell = to + k * job->x_step + j * job->x_column;                                                 \
                *cell = (type)((through)*cell + (through)from[r * job->partner_row + j]);                              \
            }                                                                                                          \
    }

FTR__SCATTER_FUNCTION(ftr__scatter_f32, float, float)
FTR__SCATTER_FUNCTION(ftr__scatter_i32, int32_t, uint32_t)
FTR__SCATTER_FUNCTION(ftr__scatter_i64, int64_t, uint64_t)

static void ftr__scatter_task(void *arg, int64_t task, int32_t worker) {
    const ftr__gather_job *job = arg;
    const int64_t first = task * job->per_task, pieces = job->blocks * job->column_cuts;
    (void)worker;
    for (int64_t i = first; i < pieces && i < first + job->per_task; i++) {
        const ftr__gather_piece piece = ftr__gather_piece_at(job, i);
        switch (job->call->out[0].dtype) {
        case FTR_F32: ftr__scatter_f32(job, piece); break;
        case FTR_I32: ftr__scatter_i32(job, piece); break;
        default: ftr__scatter_i64(job, piece); break;
        }
    }
}

/* The result before anything is added: x, or zeros. */
static void ftr__scatter_start_task(void *arg, int64_t task, int32_t worker) {
    const ftr_kernel_call *call = arg;
    const ftr_view *x = ftr__optional_input(call, 2), *out = &call->out[0];
    const int64_t size = (int64_t)ftr_dtype_size(out->dtype), begin = task * 4 * FTR__INDEX_GRAIN;
    const int64_t left = out->count * size - begin, bytes = left < 4 * FTR__INDEX_GRAIN ? left : 4 * FTR__INDEX_GRAIN;
    (void)worker;
    if (x)
        memcpy((char *)out->data + begin, (const char *)x->data + begin, (size_t)bytes);
    else
        memset((char *)out->data + begin, 0, (size_t)bytes);
}

size_t ftr__cpu_scatter_add_workspace(const ftr_kernel_call *call) { return ftr__index_check_bytes(&call->in[0]); }

ftr_status ftr__cpu_scatter_add(const ftr_kernel_call *call) {
    const ftr_view *index = &call->in[0], *source = &call->in[1], *out = &call->out[0];
    const int32_t axis = call->attr->scatter.axis;
    const ftr_status status = ftr__gather_check(call, index, &out->shape, axis);
    if (status || out->count == 0) return status;
    const int64_t bytes = out->count * (int64_t)ftr_dtype_size(out->dtype);
    ftr_kernel_call copy = *call;
    ftr__pool_run(ftr__cpu_of(call)->pool, ftr__index_tasks(bytes, 4 * FTR__INDEX_GRAIN), ftr__scatter_start_task,
                  &copy);
    if (index->count == 0) return FTR_OK;
    ftr__gather_job job = {.call = call, .index = index, .from = source->data, .to = out->data};
    ftr__gather_plan(&job, &out->shape, &source->shape, axis);
    /* Two rows may add to one element, so a task has all rows of a block; and all columns, if they are along the axis. */
    const int64_t cut = job.x_column == 0 ? job.columns : FTR__INDEX_TILE;
    ftr__pool_run(ftr__cpu_of(call)->pool, ftr__gather_cut(&job, job.rows, cut), ftr__scatter_task, &job);
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------- one hot -- */

typedef struct ftr__one_hot_job {
    const ftr_kernel_call *call;
    int64_t row_bytes, per_task;
} ftr__one_hot_job;

static void ftr__one_hot_task(void *arg, int64_t task, int32_t worker) {
    const ftr__one_hot_job *job = arg;
    const ftr_view *index = &job->call->in[0], *out = &job->call->out[0];
    const int64_t first = task * job->per_task;
    (void)worker;
    for (int64_t i = first; i < index->count && i < first + job->per_task; i++) {
        char *row = (char *)out->data + i * job->row_bytes;
        const int64_t at = ftr__index_at(index, i);
        memset(row, 0, (size_t)job->row_bytes);
        switch (out->dtype) {
        case FTR_F32: ((float *)(void *)row)[at] = 1.0f; break;
        case FTR_I32: ((int32_t *)(void *)row)[at] = 1; break;
        case FTR_I64: ((int64_t *)(void *)row)[at] = 1; break;
        default: row[at] = 1; break;
        }
    }
}

size_t ftr__cpu_one_hot_workspace(const ftr_kernel_call *call) { return ftr__index_check_bytes(&call->in[0]); }

ftr_status ftr__cpu_one_hot(const ftr_kernel_call *call) {
    const ftr_view *index = &call->in[0];
    const int64_t classes = call->attr->one_hot.classes, bad = ftr__index_first_bad(call, index, classes);
    if (bad >= 0)
        return ftr_backend_error(call, FTR_ERROR_DATA, "index %lld at position %lld is outside the %lld classes",
                                 (long long)ftr__index_at(index, bad), (long long)bad, (long long)classes);
    ftr__one_hot_job job = {.call = call, .row_bytes = classes * (int64_t)ftr_dtype_size(call->out[0].dtype)};
    job.per_task = 1 + 4 * FTR__INDEX_GRAIN / job.row_bytes;
    ftr__pool_run(ftr__cpu_of(call)->pool, ftr__index_tasks(index->count, job.per_task), ftr__one_hot_task, &job);
    return FTR_OK;
}

/* --------------------------------------------------------------------------------------------------------- top k -- */

typedef struct ftr__topk_job {
    const ftr_kernel_call *call;
    int64_t rows, n, k, per_task;
} ftr__topk_job;

/* A number that is larger for larger elements: NaN is the largest, -0 is 0. */
static inline int64_t ftr__topk_key(const ftr_view *x, int64_t i) {
    if (x->dtype == FTR_I32) return ((const int32_t *)x->data)[i];
    if (x->dtype == FTR_I64) return ((const int64_t *)x->data)[i];
    const float value = ((const float *)x->data)[i];
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const int64_t size = (int64_t)(bits & 0x7fffffffu);
    if (size > 0x7f800000) return INT64_MAX;
    return bits >> 31 ? -size : size;
}

/* Whether position i of the row at `base` comes before position j. */
static inline bool ftr__topk_before(const ftr_view *x, int64_t base, int64_t i, int64_t j) {
    const int64_t a = ftr__topk_key(x, base + i), b = ftr__topk_key(x, base + j);
    return a > b || (a == b && i < j);
}

/* Restores a heap whose root is the last of its positions. */
static void ftr__topk_sift(const ftr_view *x, int64_t base, int64_t *heap, int64_t count, int64_t at) {
    const int64_t moved = heap[at];
    for (int64_t child = 2 * at + 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && ftr__topk_before(x, base, heap[child], heap[child + 1])) child++;
        if (ftr__topk_before(x, base, heap[child], moved)) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

/* A heap of the best k, in the result's own memory, which is sorted in the end. */
static void ftr__topk_row(const ftr__topk_job *job, int64_t row) {
    const ftr_view *x = &job->call->in[0];
    const int64_t base = row * job->n, size = (int64_t)ftr_dtype_size(x->dtype);
    int64_t *heap = (int64_t *)job->call->out[1].data + row * job->k;
    char *values = (char *)job->call->out[0].data + row * job->k * size;
    for (int64_t i = 0; i < job->k; i++) heap[i] = i;
    for (int64_t i = job->k / 2; i-- > 0;) ftr__topk_sift(x, base, heap, job->k, i);
    for (int64_t i = job->k; i < job->n; i++) {
        if (!ftr__topk_before(x, base, i, heap[0])) continue;
        heap[0] = i;
        ftr__topk_sift(x, base, heap, job->k, 0);
    }
    for (int64_t end = job->k - 1; end > 0; end--) {
        const int64_t worst = heap[0];
        heap[0] = heap[end];
        heap[end] = worst;
        ftr__topk_sift(x, base, heap, end, 0);
    }
    for (int64_t i = 0; i < job->k; i++)
        memcpy(values + i * size, (const char *)x->data + (base + heap[i]) * size, (size_t)size);
}

static void ftr__topk_task(void *arg, int64_t task, int32_t worker) {
    const ftr__topk_job *job = arg;
    const int64_t first = task * job->per_task;
    (void)worker;
    for (int64_t row = first; row < job->rows && row < first + job->per_task; row++) ftr__topk_row(job, row);
}

ftr_status ftr__cpu_topk(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0];
    ftr__topk_job job = {.call = call, .n = x->shape.dim[x->shape.rank - 1], .k = call->attr->topk.k};
    if (call->out[0].count == 0) return FTR_OK;
    job.rows = x->count / job.n;
    job.per_task = 1 + FTR__INDEX_GRAIN / job.n;
    ftr__pool_run(ftr__cpu_of(call)->pool, ftr__index_tasks(job.rows, job.per_task), ftr__topk_task, &job);
    return FTR_OK;
}

/* ---- src/backend/cpu/scan.c ---- */
/* Ops along an axis: cumulative sum, product, log-sum-exp, and their gradients. A unit is a tile of neighbouring columns
 * (one if the axis is the last one), which are handled together; sums and products are kept in double. */

#define FTR__SCAN_GRAIN 16384 /* elements of a task */
#define FTR__SCAN_TILE 256    /* columns of a unit */

typedef struct ftr__scan_job ftr__scan_job;

struct ftr__scan_job {
    const ftr_kernel_call *call;
    int64_t n, inner, tiles, units, per_task;
    void (*unit)(const ftr__scan_job *job, int64_t outer, int64_t column, int64_t width);
};

static void ftr__scan_task(void *arg, int64_t task, int32_t worker) {
    const ftr__scan_job *job = arg;
    const int64_t first = task * job->per_task;
    (void)worker;
    for (int64_t unit = first; unit < job->units && unit < first + job->per_task; unit++) {
        const int64_t column = unit % job->tiles * FTR__SCAN_TILE, left = job->inner - column;
        job->unit(job, unit / job->tiles, column, left < FTR__SCAN_TILE ? left : FTR__SCAN_TILE);
    }
}

/* Runs over x, the input whose lines along `axis` are worked on. */
static void ftr__scan_run(ftr__scan_job *job, const ftr_view *x, int32_t axis) {
    int64_t outer = 1;
    job->n = x->shape.dim[axis];
    job->inner = 1;
    for (int32_t d = 0; d < axis; d++) outer *= x->shape.dim[d];
    for (int32_t d = axis + 1; d < x->shape.rank; d++) job->inner *= x->shape.dim[d];
    if (outer == 0 || job->inner == 0) return;
    const int64_t width = job->inner < FTR__SCAN_TILE ? job->inner : FTR__SCAN_TILE;
    job->tiles = (job->inner + FTR__SCAN_TILE - 1) / FTR__SCAN_TILE;
    job->units = outer * job->tiles;
    job->per_task = 1 + FTR__SCAN_GRAIN / ((job->n > 0 ? job->n : 1) * width);
    ftr__pool_run(ftr__cpu_of(job->call)->pool, (job->units + job->per_task - 1) / job->per_task, ftr__scan_task, job);
}

/* Integers wrap: they are added and multiplied as unsigned ones. */
static inline uint64_t ftr__scan_whole(const ftr_view *x, int64_t i) {
    return x->dtype == FTR_I32 ? (uint64_t)((const int32_t *)x->data)[i] : (uint64_t)((const int64_t *)x->data)[i];
}

static inline void ftr__scan_store(const ftr_view *y, int64_t i, uint64_t value) {
    if (y->dtype == FTR_I32)
        ((int32_t *)y->data)[i] = (int32_t)(uint32_t)value;
    else
        ((int64_t *)y->data)[i] = (int64_t)value;
}

/* ------------------------------------------------------------------------------------------------ cumulative sum -- */

static void ftr__cumsum_unit(const ftr__scan_job *job, int64_t outer, int64_t column, int64_t width) {
    const ftr_view *x = &job->call->in[0], *y = &job->call->out[0];
    const bool reverse = job->call->attr->cumsum.reverse, real = x->dtype == FTR_F32;
    double sum[FTR__SCAN_TILE];
    uint64_t whole[FTR__SCAN_TILE];
    for (int64_t j = 0; j < width; j++) {
        sum[j] = 0.0;
        whole[j] = 0;
    }
    for (int64_t r = 0; r < job->n; r++) {
        const int64_t at = (outer * job->n + (reverse ? job->n - 1 - r : r)) * job->inner + column;
        if (real) {
            const float *from = (const float *)x->data + at;
            float *to = (float *)y->data + at;
            for (int64_t j = 0; j < width; j++) {
                sum[j] += (double)from[j];
                to[j] = (float)sum[j];
            }
        } else {
            for (int64_t j = 0; j < width; j++) {
                whole[j] += ftr__scan_whole(x, at + j);
                ftr__scan_store(y, at + j, whole[j]);
            }
        }
    }
}

ftr_status ftr__cpu_cumsum(const ftr_kernel_call *call) {
    ftr__scan_job job = {.call = call, .unit = ftr__cumsum_unit};
    ftr__scan_run(&job, &call->in[0], call->attr->cumsum.axis);
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------------- product -- */

static void ftr__prod_unit(const ftr__scan_job *job, int64_t outer, int64_t column, int64_t width) {
    const ftr_view *x = &job->call->in[0], *y = &job->call->out[0];
    const int64_t base = outer * job->n * job->inner + column, to = outer * job->inner + column;
    double real[FTR__SCAN_TILE];
    uint64_t whole[FTR__SCAN_TILE];
    for (int64_t j = 0; j < width; j++) {
        real[j] = 1.0;
        whole[j] = 1;
    }
    for (int64_t r = 0; r < job->n; r++) {
        const int64_t at = base + r * job->inner;
        for (int64_t j = 0; j < width; j++) {
            if (x->dtype == FTR_F32)
                real[j] *= (double)((const float *)x->data)[at + j];
            else
                whole[j] *= ftr__scan_whole(x, at + j);
        }
    }
    for (int64_t j = 0; j < width; j++) {
        if (y->dtype == FTR_F32)
            ((float *)y->data)[to + j] = (float)real[j];
        else
            ftr__scan_store(y, to + j, whole[j]);
    }
}

/* The product of the elements that are not 0, and how many are 0: a single one alone has a gradient; of two, none. */
static void ftr__prod_grad_unit(const ftr__scan_job *job, int64_t outer, int64_t column, int64_t width) {
    const float *dy = (const float *)job->call->in[0].data + outer * job->inner + column;
    const int64_t base = outer * job->n * job->inner + column;
    const float *x = (const float *)job->call->in[1].data + base;
    float *dx = (float *)job->call->out[0].data + base;
    double product[FTR__SCAN_TILE];
    int64_t zeros[FTR__SCAN_TILE];
    for (int64_t j = 0; j < width; j++) {
        product[j] = 1.0;
        zeros[j] = 0;
    }
    for (int64_t r = 0; r < job->n; r++)
        for (int64_t j = 0; j < width; j++) {
            const float value = x[r * job->inner + j];
            if (value == 0.0f)
                zeros[j]++;
            else
                product[j] *= (double)value;
        }
    for (int64_t r = 0; r < job->n; r++)
        for (int64_t j = 0; j < width; j++) {
            const int64_t at = r * job->inner + j;
            double others = 0.0;
            if (zeros[j] == 0)
                others = product[j] / (double)x[at];
            else if (zeros[j] == 1 && x[at] == 0.0f)
                others = product[j];
            dx[at] = (float)((double)dy[j] * others);
        }
}

ftr_status ftr__cpu_prod(const ftr_kernel_call *call) {
    ftr__scan_job job = {.call = call, .unit = ftr__prod_unit};
    ftr__scan_run(&job, &call->in[0], call->attr->axis.axis);
    return FTR_OK;
}

ftr_status ftr__cpu_prod_grad(const ftr_kernel_call *call) {
    ftr__scan_job job = {.call = call, .unit = ftr__prod_grad_unit};
    ftr__scan_run(&job, &call->in[1], call->attr->axis.axis);
    return FTR_OK;
}

/* --------------------------------------------------------------------------------------------------- log-sum-exp -- */

/* x - most is NaN where both are infinite: then nothing is taken off. */
static inline float ftr__logsumexp_shift(float most) { return isinf(most) ? 0.0f : most; }

static void ftr__logsumexp_unit(const ftr__scan_job *job, int64_t outer, int64_t column, int64_t width) {
    const ftr__simd_math *math = &ftr__cpu_of(job->call)->simd->math;
    const float *x = (const float *)job->call->in[0].data + outer * job->n * job->inner + column;
    float *y = (float *)job->call->out[0].data + outer * job->inner + column;
    float most[FTR__SCAN_TILE], made[FTR__SCAN_TILE];
    double sum[FTR__SCAN_TILE] = {0};
    if (job->inner == 1) {
        most[0] = ftr__logsumexp_shift(math->maximum(job->n, x));
        *y = (float)((double)most[0] + log(math->exp_sum(job->n, x, most[0], NULL)));
        return;
    }
    for (int64_t j = 0; j < width; j++) most[j] = -INFINITY;
    math->column_maximum(job->n, width, x, job->inner, most);
    for (int64_t j = 0; j < width; j++) most[j] = ftr__logsumexp_shift(most[j]);
    for (int64_t r = 0; r < job->n; r++) {
        math->binary[FTR__BINARY_SUB][FTR__OPERANDS_ROWS](width, x + r * job->inner, most, made);
        math->unary[FTR__UNARY_EXP](width, made, made);
        for (int64_t j = 0; j < width; j++) sum[j] += (double)made[j];
    }
    for (int64_t j = 0; j < width; j++) y[j] = (float)((double)most[j] + log(sum[j]));
}

ftr_status ftr__cpu_logsumexp(const ftr_kernel_call *call) {
    ftr__scan_job job = {.call = call, .unit = ftr__logsumexp_unit};
    ftr__scan_run(&job, &call->in[0], call->attr->axis.axis);
    return FTR_OK;
}

/* dx = dy e^(x - most) / sum. Where the largest is inf, y is too: dy e^(x - y) is NaN for the infinite x, else 0. */
static inline float ftr__logsumexp_scale(float dy, float most, double sum) {
    return isinf(most) && most > 0.0f ? dy : (float)((double)dy / sum);
}

static void ftr__logsumexp_grad_unit(const ftr__scan_job *job, int64_t outer, int64_t column, int64_t width) {
    const ftr__simd_math *math = &ftr__cpu_of(job->call)->simd->math;
    const int64_t base = outer * job->n * job->inner + column;
    const float *dy = (const float *)job->call->in[0].data + outer * job->inner + column;
    const float *x = (const float *)job->call->in[1].data + base;
    float *dx = (float *)job->call->out[0].data + base, most[FTR__SCAN_TILE], scale[FTR__SCAN_TILE];
    double sum[FTR__SCAN_TILE] = {0};
    if (job->inner == 1) {
        most[0] = math->maximum(job->n, x);
        scale[0] = ftr__logsumexp_scale(*dy, most[0], math->exp_sum(job->n, x, most[0], dx));
        math->binary[FTR__BINARY_MUL][FTR__OPERANDS_RIGHT_SCALAR](job->n, dx, scale, dx);
        return;
    }
    for (int64_t j = 0; j < width; j++) most[j] = -INFINITY;
    math->column_maximum(job->n, width, x, job->inner, most);
    for (int64_t r = 0; r < job->n; r++) {
        float *e = dx + r * job->inner;
        math->binary[FTR__BINARY_SUB][FTR__OPERANDS_ROWS](width, x + r * job->inner, most, e);
        math->unary[FTR__UNARY_EXP](width, e, e);
        for (int64_t j = 0; j < width; j++) sum[j] += (double)e[j];
    }
    for (int64_t j = 0; j < width; j++) scale[j] = ftr__logsumexp_scale(dy[j], most[j], sum[j]);
    for (int64_t r = 0; r < job->n; r++)
        math->binary[FTR__BINARY_MUL][FTR__OPERANDS_ROWS](width, dx + r * job->inner, scale, dx + r * job->inner);
}

ftr_status ftr__cpu_logsumexp_grad(const ftr_kernel_call *call) {
    ftr__scan_job job = {.call = call, .unit = ftr__logsumexp_grad_unit};
    ftr__scan_run(&job, &call->in[1], call->attr->axis.axis);
    return FTR_OK;
}

/* ---- src/backend/cpu/update.c ---- */
/* Updates: they change states among their inputs in place. An optimizer step is one job over all parameters: their
 * elements are numbered through, and a task is a range of numbers. */

#define FTR__UPDATE_GRAIN 16384 /* elements of a task */

typedef struct ftr__update_job {
    const ftr_kernel_call *call;
    const ftr__simd_math *math;
    int32_t first_in, group; /* inputs from first_in on come in groups, one a parameter */
    int64_t count;           /* elements of all parameters */
    ftr__sgd_step sgd;
    ftr__adamw_step adamw;
} ftr__update_job;

/* Elements `begin` to `begin + n` of the parameter whose group of inputs starts at `in`. */
static void ftr__update_part(const ftr__update_job *job, const ftr_view *in, int64_t begin, int64_t n) {
    float *p = (float *)in[0].data + begin;
    const float *g = (const float *)in[1].data + begin;
    switch (job->call->op) {
    case FTR_OP_ema_update: job->math->blend(n, (float)job->call->attr->ema.weight, g, p); break;
    case FTR_OP_sgd_update:
        if (job->group == 3)
            job->math->sgd_momentum(n, &job->sgd, p, g, (float *)in[2].data + begin);
        else
            job->math->sgd(n, &job->sgd, p, g);
        break;
    default: job->math->adamw(n, &job->adamw, p, g, (float *)in[2].data + begin, (float *)in[3].data + begin); break;
    }
}

static void ftr__update_task(void *arg, int64_t task, int32_t worker) {
    const ftr__update_job *job = arg;
    int64_t begin = task * FTR__UPDATE_GRAIN, left = FTR__UPDATE_GRAIN;
    (void)worker;
    for (int32_t i = job->first_in; i + job->group <= job->call->in_count && left > 0; i += job->group) {
        const ftr_view *in = &job->call->in[i];
        if (begin < in->count) {
            const int64_t n = in->count - begin < left ? in->count - begin : left;
            ftr__update_part(job, in, begin, n);
            left -= n;
            begin = 0;
        } else {
            begin -= in->count;
        }
    }
}

static ftr_status ftr__update_run(const ftr_kernel_call *call, ftr__update_job *job, int32_t first_in, int32_t group) {
    job->call = call;
    job->math = &ftr__cpu_of(call)->simd->math;
    job->first_in = first_in;
    job->group = group;
    for (int32_t i = first_in; i + group <= call->in_count; i += group) job->count += call->in[i].count;
    ftr__pool_run(ftr__cpu_of(call)->pool, (job->count + FTR__UPDATE_GRAIN - 1) / FTR__UPDATE_GRAIN, ftr__update_task,
                  job);
    return FTR_OK;
}

ftr_status ftr__cpu_ema_update(const ftr_kernel_call *call) {
    ftr__update_job job = {.count = 0};
    return ftr__update_run(call, &job, 0, 2);
}

ftr_status ftr__cpu_count_update(const ftr_kernel_call *call) {
    int64_t *state = call->in[0].data;
    *state = (int64_t)((uint64_t)*state + 1u);
    return FTR_OK;
}

/* torch.optim.SGD: the first momentum is the whole gradient. */
ftr_status ftr__cpu_sgd_update(const ftr_kernel_call *call) {
    const float lr = *(const float *)call->in[0].data;
    const bool first = *(const int64_t *)call->in[1].data == 0;
    const double momentum = call->attr->optimizer.momentum;
    ftr__update_job job = {
        .sgd = {.lr = lr,
                .weight_decay = (float)call->attr->optimizer.weight_decay,
                .momentum = (float)momentum,
                .gradient = (float)(1.0 - call->attr->optimizer.dampening),
                .nesterov = call->attr->optimizer.nesterov,
                .first = first},
    };
    return ftr__update_run(call, &job, 2, momentum != 0.0 ? 3 : 2);
}

/* torch.optim.AdamW (Loshchilov, Hutter: Decoupled Weight Decay Regularization, 2019). */
ftr_status ftr__cpu_adamw_update(const ftr_kernel_call *call) {
    const double lr = (double)*(const float *)call->in[0].data, t = (double)*(const int64_t *)call->in[1].data + 1.0;
    const double beta1 = call->attr->optimizer.beta1, beta2 = call->attr->optimizer.beta2;
    ftr__update_job job = {
        .adamw = {.decay = (float)(1.0 - lr * call->attr->optimizer.weight_decay),
                  .beta1 = (float)beta1,
                  .one_minus_beta1 = (float)(1.0 - beta1),
                  .beta2 = (float)beta2,
                  .one_minus_beta2 = (float)(1.0 - beta2),
                  .rate = (float)(lr / (1.0 - pow(beta1, t))),
                  .second = (float)(1.0 / sqrt(1.0 - pow(beta2, t))),
                  .eps = (float)call->attr->optimizer.eps},
    };
    return ftr__update_run(call, &job, 2, 4);
}

/* ---- src/data/data.h ---- */
/* A source's insides, for the training loop. */

typedef struct ftr__source_field {
    const char *name;
    ftr_dtype dtype;
    ftr_shape shape;           /* of one sample */
    int64_t bytes;             /* of one sample */
    const unsigned char *data; /* memory sources: all samples, owned by the caller; otherwise NULL */
} ftr__source_field;

struct ftr_source {
    ftr_context *context;
    ftr__arena arena;
    const char *name;
    int64_t count;
    int32_t field_count;
    ftr__source_field fields[FTR_MAX_FIELDS];
    void *user;
    ftr_status (*read)(void *user, int64_t index, void *const *fields);
};

/* Field number of a name; -1 if the source has none. */
FTR_LIB int32_t ftr__source_find(const ftr_source *source, const char *name);

/* Reads one sample; a failure is recorded with the source's name and the index. */
FTR_LIB ftr_status ftr__source_read(const ftr_source *source, int64_t index, void *const *fields);

/* ---- src/data/source.c ---- */
/* Data sources: descriptions checked once, samples read through a function; arrays in memory are one such function. */

/* Errors of a source start with its name, or with the call's when it has none. */
static const char *ftr__source_label(const char *name) { return name && *name ? name : "?"; }

static ftr_status ftr__check_field(ftr_context *context, const char *source, const ftr_field *fields, int32_t index) {
    const ftr_field *field = &fields[index];
    if (!field->name || !*field->name)
        return ftr__error(context, FTR_ERROR_NAME, "source '%s': field %d has no name", source, (int)index);
    for (int32_t i = 0; i < index; i++)
        if (strcmp(fields[i].name, field->name) == 0)
            return ftr__error(context, FTR_ERROR_NAME, "source '%s': fields %d and %d are both named '%s'", source,
                              (int)i, (int)index, field->name);
    if (ftr_dtype_size(field->dtype) == 0)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': field '%s' has the unknown dtype %d",
                          source, field->name, (int)field->dtype);
    if (field->shape.rank < 0 || field->shape.rank >= FTR_MAX_RANK)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': field '%s' has rank %d, expected 0 to %d",
                          source, field->name, (int)field->shape.rank, FTR_MAX_RANK - 1);
    char text[FTR__SHAPE_TEXT];
    if (ftr_shape_count(&field->shape) < 0)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': field '%s' has the impossible shape %s",
                          source, field->name, ftr__shape_text(&field->shape, text));
    return FTR_OK;
}

static ftr_status ftr__check_source(ftr_context *context, const char *name, int64_t count, const ftr_field *fields,
                                    int32_t field_count) {
    const char *label = ftr__source_label(name);
    if (!name || !*name) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source: name is missing");
    if (count < 1)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': count is %lld, expected 1 or more", label,
                          (long long)count);
    if (field_count < 1 || field_count > FTR_MAX_FIELDS)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': field_count is %d, expected 1 to %d",
                          label, (int)field_count, FTR_MAX_FIELDS);
    if (!fields) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': fields is NULL", label);
    for (int32_t i = 0; i < field_count; i++) {
        ftr_status status = ftr__check_field(context, label, fields, i);
        if (status != FTR_OK) return status;
    }
    return FTR_OK;
}

/* A source whose description has been checked; read and user are the caller's to set. */
static ftr_status ftr__source_new(ftr_context *context, const char *name, int64_t count, const ftr_field *fields,
                                  int32_t field_count, ftr_source **result) {
    ftr_source *source = ftr__allocate(context, sizeof *source);
    if (!source) return ftr__out_of_memory(context, "source", sizeof *source);
    memset(source, 0, sizeof *source);
    source->context = context;
    ftr__arena_init(&source->arena, context);
    source->count = count;
    source->field_count = field_count;
    source->name = ftr__arena_string(&source->arena, name);
    bool complete = source->name != NULL;
    for (int32_t i = 0; i < field_count; i++) {
        ftr__source_field *field = &source->fields[i];
        field->name = ftr__arena_string(&source->arena, fields[i].name);
        field->dtype = fields[i].dtype;
        field->shape = fields[i].shape;
        field->bytes = ftr_shape_count(&field->shape) * (int64_t)ftr_dtype_size(field->dtype);
        complete = complete && field->name;
    }
    if (!complete) {
        ftr_source_destroy(source);
        return ftr__out_of_memory(context, "source: names", strlen(name));
    }
    *result = source;
    return FTR_OK;
}

ftr_status ftr_source_create(ftr_context *context, const ftr_source_desc *desc, ftr_source **source) {
    if (source) *source = NULL;
    if (!context) return FTR_ERROR_INVALID_ARGUMENT;
    if (!source) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "ftr_source_create: source is NULL");
    if (!desc) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "ftr_source_create: desc is NULL");
    ftr_status status = ftr__check_source(context, desc->name, desc->count, desc->fields, desc->field_count);
    if (status != FTR_OK) return status;
    if (!desc->read) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': read is NULL", desc->name);
    status = ftr__source_new(context, desc->name, desc->count, desc->fields, desc->field_count, source);
    if (status != FTR_OK) return status;
    (*source)->user = desc->user;
    (*source)->read = desc->read;
    return FTR_OK;
}

static ftr_status ftr__memory_source_read(void *user, int64_t index, void *const *fields) {
    const ftr_source *source = user;
    for (int32_t i = 0; i < source->field_count; i++) {
        const ftr__source_field *field = &source->fields[i];
        if (field->bytes > 0) memcpy(fields[i], field->data + index * field->bytes, (size_t)field->bytes);
    }
    return FTR_OK;
}

ftr_status ftr_memory_source(ftr_context *context, const char *name, int64_t count, const ftr_field *fields,
                             const void *const *data, int32_t field_count, ftr_source **source) {
    if (source) *source = NULL;
    if (!context) return FTR_ERROR_INVALID_ARGUMENT;
    if (!source) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "ftr_memory_source: source is NULL");
    ftr_status status = ftr__check_source(context, name, count, fields, field_count);
    if (status != FTR_OK) return status;
    if (!data) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': data is NULL", name);
    for (int32_t i = 0; i < field_count; i++)
        if (!data[i])
            return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': field '%s' has no data", name,
                              fields[i].name);
    status = ftr__source_new(context, name, count, fields, field_count, source);
    if (status != FTR_OK) return status;
    for (int32_t i = 0; i < field_count; i++) {
        ftr__source_field *field = &(*source)->fields[i];
        field->data = data[i];
        if (field->bytes > 0 && count > INT64_MAX / field->bytes) {
            status = ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                                "source '%s': %lld samples of field '%s' are more than memory can hold", name,
                                (long long)count, field->name);
            ftr_source_destroy(*source);
            *source = NULL;
            return status;
        }
    }
    (*source)->user = *source;
    (*source)->read = ftr__memory_source_read;
    return FTR_OK;
}

void ftr_source_destroy(ftr_source *source) {
    if (!source) return;
    ftr__arena_free(&source->arena);
    ftr__release(source->context, source, sizeof *source);
}

int64_t ftr_source_count(const ftr_source *source) { return source ? source->count : 0; }

int32_t ftr__source_find(const ftr_source *source, const char *name) {
    for (int32_t i = 0; i < source->field_count; i++)
        if (strcmp(source->fields[i].name, name) == 0) return i;
    return -1;
}

ftr_status ftr__source_read(const ftr_source *source, int64_t index, void *const *fields) {
    ftr_status status = source->read(source->user, index, fields);
    if (status == FTR_OK) return FTR_OK;
    return ftr__error(source->context, status, "source '%s': reading sample %lld failed with %s", source->name,
                      (long long)index, ftr_status_name(status));
}

/* ---- src/data/sampler.c ---- */
/* The order of samples: a permutation that is computed, not stored. A balanced Feistel network over 2h bits is a
 * bijection of 0 .. 4^h - 1 whatever its round function is (Luby and Rackoff: How to Construct Pseudorandom
 * Permutations, SIAM J. Comput. 17, 1988); values outside 0 .. count - 1 are sent through it again until one is inside,
 * which keeps it a bijection there (cycle walking; Black and Rogaway: Ciphers with Arbitrary Finite Domains, CT-RSA
 * 2002). */

/* Four rounds are pseudorandom for large halves; small counts need more before all orders come out alike. */
#define FTR__SHUFFLE_ROUNDS 12

/* Half the bits of the smallest domain that holds `count` values; at least FTR__SHUFFLE_MIN_BITS. */
#define FTR__SHUFFLE_MIN_BITS 3
static int ftr__shuffle_half_bits(uint64_t count) {
    int half = FTR__SHUFFLE_MIN_BITS;
    while (half < 32 && ((uint64_t)1 << (2 * half)) < count) half++;
    return half;
}

/* One pass through the network. Round r takes number r << 32 | right of the epoch's stream. */
static uint64_t ftr__shuffle_pass(const ftr__rng *rng, int half, uint64_t value) {
    uint64_t mask = ((uint64_t)1 << half) - 1;
    uint64_t left = value >> half, right = value & mask;
    for (uint64_t round = 0; round < FTR__SHUFFLE_ROUNDS; round++) {
        uint64_t next = left ^ (ftr__rng_at(rng, round << 32 | right) & mask);
        left = right;
        right = next;
    }
    return left << half | right;
}

int64_t ftr_shuffled_index(uint64_t seed, uint64_t epoch, int64_t position, int64_t count) {
    if (position < 0 || position >= count) return -1;
    ftr__rng rng = ftr__rng_make(seed, FTR__RNG_SHUFFLE, epoch, 0);
    int half = ftr__shuffle_half_bits((uint64_t)count);
    uint64_t value = (uint64_t)position;
    do value = ftr__shuffle_pass(&rng, half, value);
    while (value >= (uint64_t)count);
    return (int64_t)value;
}

/* ---- src/io/file.h ---- */
/* Files as a whole: read into memory, written so that they appear complete or not at all. */

/* Reads a regular file into memory of ftr__allocate(), which the caller releases with *size. */
FTR_LIB ftr_status ftr__file_read(ftr_context *context, const char *path, unsigned char **bytes, size_t *size);

/* A file being written: its bytes go to a temporary one beside it. The first failure sticks and is returned by the end. */
typedef struct ftr__file_writer {
    ftr_context *context;
    const char *path;
    char *temporary; /* NULL: there is none */
    size_t temporary_size;
    int descriptor;
    ftr_status status;
} ftr__file_writer;

/* `path` must live until ftr__file_end(). */
FTR_LIB void ftr__file_begin(ftr__file_writer *writer, ftr_context *context, const char *path);
FTR_LIB void ftr__file_append(ftr__file_writer *writer, const void *data, size_t size);

/* Flushes to the disk and gives the file its name, in place of what had it. After a failure the temporary file is removed
 * and what had the name is as it was. */
FTR_LIB ftr_status ftr__file_end(ftr__file_writer *writer);

/* ---- src/io/file.c ---- */

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define FTR__FILE_PIECE ((size_t)1 << 30) /* of one read or write: macOS takes less than 2 GiB, Linux a little more */
#define FTR__FILE_TEMPORARIES 1000        /* names to try: others may write beside the same path */

static ftr_status ftr__file_error(ftr_context *context, const char *path, const char *what) {
    return ftr__error(context, FTR_ERROR_IO, "%s: %s: %s", path, what, strerror(errno));
}

/* open(), which child processes do not inherit. */
static int ftr__file_open(const char *path, int flags) {
#ifdef O_CLOEXEC
    flags |= O_CLOEXEC;
#endif
    int descriptor;
    do {
        descriptor = open(path, flags, 0666);
    } while (descriptor < 0 && errno == EINTR);
    return descriptor;
}

static ftr_status ftr__file_read_all(ftr_context *context, const char *path, int descriptor, unsigned char *bytes,
                                     size_t size) {
    size_t at = 0;
    while (at < size) {
        const size_t piece = size - at < FTR__FILE_PIECE ? size - at : FTR__FILE_PIECE;
        const ssize_t got = read(descriptor, bytes + at, piece);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return ftr__file_error(context, path, "cannot be read");
        if (got == 0)
            return ftr__error(context, FTR_ERROR_IO, "%s: found %zu bytes, expected the %zu of its size", path, at,
                              size);
        at += (size_t)got;
    }
    return FTR_OK;
}

static ftr_status ftr__file_read_open(ftr_context *context, const char *path, int descriptor, unsigned char **bytes,
                                      size_t *size) {
    struct stat info;
    if (fstat(descriptor, &info) != 0) return ftr__file_error(context, path, "cannot be read");
    if (!S_ISREG(info.st_mode))
        return ftr__error(context, FTR_ERROR_IO, "%s: found a directory or device, expected a regular file", path);
    if ((uint64_t)info.st_size > SIZE_MAX / 2)
        return ftr__error(context, FTR_ERROR_OUT_OF_MEMORY, "%s: the file is larger than the address space", path);
    *size = (size_t)info.st_size;
    *bytes = ftr__allocate(context, *size);
    if (!*bytes) return ftr__out_of_memory(context, path, *size);
    const ftr_status status = ftr__file_read_all(context, path, descriptor, *bytes, *size);
    if (status != FTR_OK) {
        ftr__release(context, *bytes, *size);
        *bytes = NULL;
    }
    return status;
}

ftr_status ftr__file_read(ftr_context *context, const char *path, unsigned char **bytes, size_t *size) {
    *bytes = NULL;
    *size = 0;
    /* O_NONBLOCK: a FIFO without a writer would block here; for regular files it changes nothing. */
    const int descriptor = ftr__file_open(path, O_RDONLY | O_NONBLOCK);
    if (descriptor < 0) return ftr__file_error(context, path, "cannot be opened");
    const ftr_status status = ftr__file_read_open(context, path, descriptor, bytes, size);
    close(descriptor);
    return status;
}

void ftr__file_begin(ftr__file_writer *writer, ftr_context *context, const char *path) {
    *writer = (ftr__file_writer){.context = context, .path = path, .descriptor = -1};
    writer->temporary_size = strlen(path) + 48;
    writer->temporary = ftr__allocate(context, writer->temporary_size);
    if (!writer->temporary) {
        writer->status = ftr__out_of_memory(context, path, writer->temporary_size);
        return;
    }
    for (int i = 0; i < FTR__FILE_TEMPORARIES && writer->descriptor < 0; i++) {
        snprintf(writer->temporary, writer->temporary_size, "%s.%ld.%d.tmp", path, (long)getpid(), i);
        writer->descriptor = ftr__file_open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL);
        if (writer->descriptor < 0 && errno != EEXIST) break;
    }
    if (writer->descriptor < 0) writer->status = ftr__file_error(context, path, "cannot be written");
}

void ftr__file_append(ftr__file_writer *writer, const void *data, size_t size) {
    const unsigned char *bytes = data;
    size_t at = 0;
    while (at < size && writer->status == FTR_OK) {
        const size_t piece = size - at < FTR__FILE_PIECE ? size - at : FTR__FILE_PIECE;
        const ssize_t written = write(writer->descriptor, bytes + at, piece);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) {
            writer->status = ftr__file_error(writer->context, writer->path, "cannot be written");
        } else {
            at += (size_t)written;
        }
    }
}

/* Waits until the disk has the bytes. On macOS fsync() only hands them to the drive (fsync(2)). */
static int ftr__file_sync(int descriptor) {
#ifdef F_FULLFSYNC
    if (fcntl(descriptor, F_FULLFSYNC) == 0) return 0;
#endif
    int result;
    do {
        result = fsync(descriptor);
    } while (result != 0 && errno == EINTR);
    return result;
}

/* Makes the new name durable. Not every file system can sync a directory; the file is complete all the same. */
static void ftr__file_sync_directory(char *path) {
    char *slash = strrchr(path, '/');
    if (slash) slash[slash == path ? 1 : 0] = '\0';
    const int descriptor = ftr__file_open(slash ? path : ".", O_RDONLY);
    if (descriptor < 0) return;
    ftr__file_sync(descriptor);
    close(descriptor);
}

ftr_status ftr__file_end(ftr__file_writer *writer) {
    if (writer->descriptor >= 0) {
        if (writer->status == FTR_OK && ftr__file_sync(writer->descriptor) != 0)
            writer->status = ftr__file_error(writer->context, writer->path, "cannot be written");
        if (close(writer->descriptor) != 0 && writer->status == FTR_OK)
            writer->status = ftr__file_error(writer->context, writer->path, "cannot be written");
        if (writer->status == FTR_OK && rename(writer->temporary, writer->path) != 0)
            writer->status = ftr__file_error(writer->context, writer->path, "cannot be replaced");
        if (writer->status == FTR_OK) {
            ftr__file_sync_directory(writer->temporary);
        } else {
            unlink(writer->temporary);
        }
    }
    ftr__release(writer->context, writer->temporary, writer->temporary_size);
    writer->temporary = NULL;
    writer->descriptor = -1;
    return writer->status;
}

/* ---- src/io/safetensors.c ---- */

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "fasttrain reads and writes little-endian files as they are: it needs a little-endian machine"
#endif

#define FTR__SAFETENSORS_MAX_HEADER 100000000
#define FTR__SAFETENSORS_METADATA "__metadata__"

/* An element type of the format. */
typedef struct ftr__safetensors_type {
    const char *name;
    uint32_t bits;
    ftr_dtype dtype;
} ftr__safetensors_type;

/* In the order of the reference's enum `Dtype` (safetensors 0.8), which is the order of alignment that files are sorted by. */
static const ftr__safetensors_type ftr__safetensors_types[] = {
    {"BOOL", 8, FTR_BOOL},
    {"F4", 4, FTR_DTYPE_NONE},
    {"F6_E2M3", 6, FTR_DTYPE_NONE},
    {"F6_E3M2", 6, FTR_DTYPE_NONE},
    {"U8", 8, FTR_U8},
    {"I8", 8, FTR_DTYPE_NONE},
    {"F8_E5M2", 8, FTR_DTYPE_NONE},
    {"F8_E4M3", 8, FTR_DTYPE_NONE},
    {"F8_E8M0", 8, FTR_DTYPE_NONE},
    {"F8_E4M3FNUZ", 8, FTR_DTYPE_NONE},
    {"F8_E5M2FNUZ", 8, FTR_DTYPE_NONE},
    {"I16", 16, FTR_DTYPE_NONE},
    {"U16", 16, FTR_DTYPE_NONE},
    {"F16", 16, FTR_DTYPE_NONE},
    {"BF16", 16, FTR_DTYPE_NONE},
    {"I32", 32, FTR_I32},
    {"U32", 32, FTR_DTYPE_NONE},
    {"F32", 32, FTR_F32},
    {"C64", 64, FTR_DTYPE_NONE},
    {"F64", 64, FTR_F64},
    {"I64", 64, FTR_I64},
    {"U64", 64, FTR_DTYPE_NONE},
};

/* A tensor of an open file. Offsets count from the start of the data. */
typedef struct ftr__safetensors_tensor {
    const char *name;
    const ftr__safetensors_type *type;
    int32_t rank;
    int64_t *dim;
    int64_t begin, end;
} ftr__safetensors_tensor;

struct ftr_safetensors {
    ftr_context *context;
    const char *label; /* path for messages; only valid while the file is checked */
    ftr__arena arena;
    unsigned char *bytes; /* the whole file */
    size_t size;
    const unsigned char *data;        /* behind the header */
    int64_t count;                    /* of tensors */
    ftr__safetensors_tensor *tensors; /* sorted by name */
    const ftr__json *metadata;        /* object; NULL if there is none */
};

/* ------------------------------------------------------------------------------------------------------ messages -- */

#define FTR__SAFETENSORS_TEXT 80

/* "F32 [2, 3]", with "..." for what does not fit. */
static const char *ftr__safetensors_type_text(const ftr__safetensors_tensor *tensor, char text[FTR__SAFETENSORS_TEXT]) {
    const size_t used = (size_t)snprintf(text, FTR__SAFETENSORS_TEXT, "%s ", tensor->type->name);
    ftr__dims_text(tensor->rank, tensor->dim, text + used, FTR__SAFETENSORS_TEXT - used);
    return text;
}

/* The header is JSON but says something else than it should. `tensor` NULL: about the metadata; `value` NULL: missing. */
static ftr_status ftr__safetensors_found(const ftr_safetensors *file, const char *tensor, const char *field,
                                         const ftr__json *value, const char *expected) {
    char found[64];
    if (!value) {
        snprintf(found, sizeof found, "nothing");
    } else if (value->type == FTR__JSON_NUMBER && value->as.number.is_integer) {
        snprintf(found, sizeof found, "%" PRId64, value->as.number.integer);
    } else if (value->type == FTR__JSON_NUMBER) {
        snprintf(found, sizeof found, "the number %.17g", value->as.number.value);
    } else if (value->type == FTR__JSON_STRING) {
        snprintf(found, sizeof found, "'%.40s'", value->as.string.text);
    } else {
        snprintf(found, sizeof found, "%s", ftr__json_type_text(value));
    }
    return ftr__error(file->context, FTR_ERROR_FORMAT,
                      "%s: InvalidHeaderDeserialization: %s%.100s%s%s: found %s, expected %s", file->label,
                      tensor ? "tensor '" : FTR__SAFETENSORS_METADATA, tensor ? tensor : "", tensor ? "'" : "", field,
                      found, expected);
}

/* ----------------------------------------------------------------------------------------------- reading: header -- */

/* The reference's first checks; on success the header is *length bytes behind the first 8. */
static ftr_status ftr__safetensors_header(const ftr_safetensors *file, size_t *length) {
    const char *label = file->label;
    if (file->size < 8)
        return ftr__error(file->context, FTR_ERROR_FORMAT, "%s: HeaderTooSmall: found %zu bytes, expected at least 8",
                          label, file->size);
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | file->bytes[i];
    if (n > FTR__SAFETENSORS_MAX_HEADER)
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: HeaderTooLarge: found a header of %" PRIu64 " bytes, expected at most %d", label, n,
                          FTR__SAFETENSORS_MAX_HEADER);
    if (n > file->size - 8)
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: InvalidHeaderLength: found a header of %" PRIu64
                          " bytes, expected at most the remaining %zu",
                          label, n, file->size - 8);
    *length = (size_t)n;
    const int64_t invalid = ftr__utf8_invalid_at((const char *)file->bytes + 8, *length);
    if (invalid >= 0)
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: InvalidHeader: found 0x%02X at byte %" PRId64 " of the header, expected UTF-8", label,
                          file->bytes[8 + invalid], invalid);
    return FTR_OK;
}

/* Whether a text can be handed out as a C string. */
static bool ftr__safetensors_is_plain(const char *text, size_t length) { return !memchr(text, '\0', length); }

static ftr_status ftr__safetensors_read_metadata(ftr_safetensors *file, const ftr__json *metadata) {
    if (metadata->type == FTR__JSON_NULL) return FTR_OK; /* the reference takes it for none */
    if (metadata->type != FTR__JSON_OBJECT) return ftr__safetensors_found(file, NULL, "", metadata, "an object");
    for (const ftr__json *member = metadata->as.list.first; member; member = member->next) {
        if (member->type != FTR__JSON_STRING) return ftr__safetensors_found(file, NULL, "", member, "a string");
        if (!ftr__safetensors_is_plain(member->key, member->key_length) ||
            !ftr__safetensors_is_plain(member->as.string.text, member->as.string.length))
            return ftr__error(file->context, FTR_ERROR_FORMAT,
                              "%s: InvalidHeaderDeserialization: " FTR__SAFETENSORS_METADATA
                              ": found the character U+0000, expected none",
                              file->label);
    }
    file->metadata = metadata;
    return FTR_OK;
}

/* Integers of an array, which are not negative. */
static ftr_status ftr__safetensors_integers(const ftr_safetensors *file, const char *tensor, const char *field,
                                            const ftr__json *array, int64_t *integers) {
    for (const ftr__json *element = array->as.list.first; element; element = element->next) {
        if (element->type != FTR__JSON_NUMBER || !element->as.number.is_integer || element->as.number.integer < 0)
            return ftr__safetensors_found(file, tensor, field, element, "an integer from 0 to 9223372036854775807");
        *integers++ = element->as.number.integer;
    }
    return FTR_OK;
}

static ftr_status ftr__safetensors_read_dtype(const ftr_safetensors *file, const ftr__json *entry,
                                              ftr__safetensors_tensor *tensor) {
    const ftr__json *dtype = ftr__json_find(entry, "dtype");
    if (dtype && dtype->type == FTR__JSON_STRING) {
        for (int32_t i = 0; i < FTR__ARRAY_LENGTH(ftr__safetensors_types); i++) {
            const ftr__safetensors_type *type = &ftr__safetensors_types[i];
            if (strlen(type->name) == dtype->as.string.length && strcmp(type->name, dtype->as.string.text) == 0)
                tensor->type = type;
        }
    }
    return tensor->type ? FTR_OK
                        : ftr__safetensors_found(file, entry->key, ": dtype", dtype, "an element type of the format");
}

/* An entry of the header, not yet compared with others and with the file. */
static ftr_status ftr__safetensors_read_entry(ftr_safetensors *file, const ftr__json *entry,
                                              ftr__safetensors_tensor *tensor) {
    tensor->name = entry->key;
    if (!ftr__safetensors_is_plain(entry->key, entry->key_length))
        return ftr__error(
            file->context, FTR_ERROR_FORMAT,
            "%s: InvalidHeaderDeserialization: tensor '%.100s...': found the character U+0000 in its name, "
            "expected none",
            file->label, entry->key);
    if (entry->type != FTR__JSON_OBJECT) return ftr__safetensors_found(file, entry->key, "", entry, "an object");
    ftr_status status = ftr__safetensors_read_dtype(file, entry, tensor);
    if (status != FTR_OK) return status;

    const ftr__json *shape = ftr__json_find(entry, "shape");
    if (!shape || shape->type != FTR__JSON_ARRAY)
        return ftr__safetensors_found(file, entry->key, ": shape", shape, "an array");
    const size_t size = (size_t)shape->as.list.count * sizeof(int64_t);
    tensor->rank = (int32_t)shape->as.list.count; /* fits: the header is at most 100 MB */
    tensor->dim = ftr__arena_alloc(&file->arena, size);
    if (!tensor->dim) return ftr__out_of_memory(file->context, file->label, size);
    status = ftr__safetensors_integers(file, entry->key, ": shape", shape, tensor->dim);
    if (status != FTR_OK) return status;

    const ftr__json *offsets = ftr__json_find(entry, "data_offsets");
    if (!offsets || offsets->type != FTR__JSON_ARRAY)
        return ftr__safetensors_found(file, entry->key, ": data_offsets", offsets, "an array");
    if (offsets->as.list.count != 2)
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: InvalidHeaderDeserialization: tensor '%.100s': data_offsets: found %" PRId64
                          " elements, expected 2",
                          file->label, entry->key, offsets->as.list.count);
    int64_t range[2] = {0, 0};
    status = ftr__safetensors_integers(file, entry->key, ": data_offsets", offsets, range);
    tensor->begin = range[0];
    tensor->end = range[1];
    return status;
}

/* Fills file->tensors in the order of names, which the index of the JSON object has. */
static ftr_status ftr__safetensors_read_entries(ftr_safetensors *file, const ftr__json *root) {
    const size_t size = (size_t)root->as.list.count * sizeof(*file->tensors);
    file->tensors = ftr__arena_alloc(&file->arena, size);
    if (!file->tensors) return ftr__out_of_memory(file->context, file->label, size);
    for (int64_t i = 0; i < root->as.list.count; i++) {
        const ftr__json *entry = root->as.list.by_key[i];
        ftr_status status = FTR_OK;
        if (strcmp(entry->key, FTR__SAFETENSORS_METADATA) == 0 &&
            entry->key_length == strlen(FTR__SAFETENSORS_METADATA)) {
            status = ftr__safetensors_read_metadata(file, entry);
        } else {
            status = ftr__safetensors_read_entry(file, entry, &file->tensors[file->count++]);
        }
        if (status != FTR_OK) return status;
    }
    return FTR_OK;
}

static ftr_status ftr__safetensors_read_header(ftr_safetensors *file, size_t length) {
    const ftr__json *root = NULL;
    ftr__json_error error;
    const ftr_status status = ftr__json_parse(&file->arena, (const char *)file->bytes + 8, length, &root, &error);
    if (status == FTR_ERROR_OUT_OF_MEMORY) return ftr__out_of_memory(file->context, file->label, length);
    if (status != FTR_OK)
        return ftr__error(file->context, status, "%s: InvalidHeaderDeserialization: %s", file->label, error.message);
    if (root->type != FTR__JSON_OBJECT)
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: InvalidHeaderDeserialization: the header: found %s, expected an object", file->label,
                          ftr__json_type_text(root));
    return ftr__safetensors_read_entries(file, root);
}

/* ---------------------------------------------------------------------------------------------- reading: offsets -- */

static int ftr__safetensors_compare_offsets(const void *a, const void *b) {
    const ftr__safetensors_tensor *left = a;
    const ftr__safetensors_tensor *right = b;
    if (left->begin != right->begin) return left->begin < right->begin ? -1 : 1;
    if (left->end != right->end) return left->end < right->end ? -1 : 1;
    return strcmp(left->name, right->name);
}

/* Whether a tensor's offsets start where the last one ended, and fit its type and shape. */
static ftr_status ftr__safetensors_check(const ftr_safetensors *file, const ftr__safetensors_tensor *tensor,
                                         int64_t start) {
    const char *label = file->label;
    if (tensor->begin != start || tensor->end < tensor->begin)
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: InvalidOffset: tensor '%.100s': found data_offsets [%" PRId64 ", %" PRId64
                          "], expected a begin of %" PRId64 " and an end that is not less",
                          label, tensor->name, tensor->begin, tensor->end, start);
    char text[FTR__SAFETENSORS_TEXT];
    uint64_t bits = 1;
    bool overflow = false;
    for (int32_t i = 0; i < tensor->rank; i++) {
        overflow = overflow || __builtin_mul_overflow(bits, (uint64_t)tensor->dim[i], &bits);
    }
    if (overflow || __builtin_mul_overflow(bits, (uint64_t)tensor->type->bits, &bits))
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: ValidationOverflow: tensor '%.100s': found %s, expected fewer than 2^64 bits", label,
                          tensor->name, ftr__safetensors_type_text(tensor, text));
    if (bits % 8 != 0)
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: MisalignedSlice: tensor '%.100s': found %s of %" PRIu64 " bits, expected whole bytes",
                          label, tensor->name, ftr__safetensors_type_text(tensor, text), bits);
    if ((uint64_t)(tensor->end - tensor->begin) != bits / 8)
        return ftr__error(
            file->context, FTR_ERROR_FORMAT,
            "%s: TensorInvalidInfo: tensor '%.100s': found %" PRId64 " bytes, expected %" PRIu64 " for %s", label,
            tensor->name, tensor->end - tensor->begin, bits / 8, ftr__safetensors_type_text(tensor, text));
    return FTR_OK;
}

/* The tensors must cover the data without holes and overlaps. */
static ftr_status ftr__safetensors_check_all(ftr_safetensors *file, size_t data_size) {
    const size_t size = (size_t)file->count * sizeof(void *);
    const void **by_offset = ftr__arena_alloc(&file->arena, size);
    if (!by_offset) return ftr__out_of_memory(file->context, file->label, size);
    for (int64_t i = 0; i < file->count; i++) by_offset[i] = &file->tensors[i];
    ftr__sort(by_offset, file->count, ftr__safetensors_compare_offsets);
    int64_t start = 0;
    for (int64_t i = 0; i < file->count; i++) {
        const ftr__safetensors_tensor *tensor = by_offset[i];
        const ftr_status status = ftr__safetensors_check(file, tensor, start);
        if (status != FTR_OK) return status;
        start = tensor->end;
    }
    if ((uint64_t)start != data_size)
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: MetadataIncompleteBuffer: found %zu bytes of data, expected %" PRId64 " for all tensors",
                          file->label, data_size, start);
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------ reading: files -- */

static ftr_status ftr__safetensors_read(ftr_safetensors *file) {
    size_t length = 0;
    ftr_status status = ftr__safetensors_header(file, &length);
    if (status == FTR_OK) status = ftr__safetensors_read_header(file, length);
    if (status == FTR_OK) status = ftr__safetensors_check_all(file, file->size - 8 - length);
    file->data = file->bytes + 8 + length;
    return status;
}

/* Takes the bytes over. */
static ftr_status ftr__safetensors_take(ftr_context *context, const char *label, unsigned char *bytes, size_t size,
                                        ftr_safetensors **file) {
    ftr_safetensors *opened = ftr__allocate(context, sizeof *opened);
    if (!opened) {
        ftr__release(context, bytes, size);
        return ftr__out_of_memory(context, label, sizeof *opened);
    }
    *opened = (ftr_safetensors){.context = context, .label = label, .bytes = bytes, .size = size};
    ftr__arena_init(&opened->arena, context);
    const ftr_status status = ftr__safetensors_read(opened);
    opened->label = NULL;
    if (status == FTR_OK) {
        *file = opened;
    } else {
        ftr_safetensors_close(opened);
    }
    return status;
}

ftr_status ftr_safetensors_open(ftr_context *context, const char *path, ftr_safetensors **file) {
    if (file) *file = NULL;
    if (!context || !path || !file)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "ftr_safetensors_open: context, path or file is NULL");
    unsigned char *bytes = NULL;
    size_t size = 0;
    const ftr_status status = ftr__file_read(context, path, &bytes, &size);
    return status == FTR_OK ? ftr__safetensors_take(context, path, bytes, size, file) : status;
}

ftr_status ftr_safetensors_parse(ftr_context *context, const char *label, const void *data, size_t bytes,
                                 ftr_safetensors **file) {
    if (file) *file = NULL;
    if (!context || !label || (!data && bytes > 0) || !file)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_safetensors_parse: context, label, data or file is NULL");
    unsigned char *copy = ftr__allocate(context, bytes);
    if (!copy) return ftr__out_of_memory(context, label, bytes);
    if (bytes > 0) memcpy(copy, data, bytes);
    return ftr__safetensors_take(context, label, copy, bytes, file);
}

void ftr_safetensors_close(ftr_safetensors *file) {
    if (!file) return;
    ftr__arena_free(&file->arena);
    ftr__release(file->context, file->bytes, file->size);
    ftr__release(file->context, file, sizeof *file);
}

int64_t ftr_safetensors_count(const ftr_safetensors *file) { return file ? file->count : 0; }

bool ftr_safetensors_at(const ftr_safetensors *file, int64_t index, ftr_safetensors_entry *entry) {
    if (!file || !entry || index < 0 || index >= file->count) return false;
    const ftr__safetensors_tensor *tensor = &file->tensors[index];
    *entry = (ftr_safetensors_entry){
        .name = tensor->name,
        .dtype_name = tensor->type->name,
        .dtype = tensor->type->dtype,
        .rank = tensor->rank,
        .dim = tensor->dim,
        .data = file->data + tensor->begin,
        .bytes = (size_t)(tensor->end - tensor->begin),
    };
    return true;
}

bool ftr_safetensors_find(const ftr_safetensors *file, const char *name, ftr_safetensors_entry *entry) {
    if (!file || !name || !entry) return false;
    int64_t low = 0, high = file->count;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        const int order = strcmp(file->tensors[middle].name, name);
        if (order == 0) return ftr_safetensors_at(file, middle, entry);
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return false;
}

const char *ftr_safetensors_metadata(const ftr_safetensors *file, const char *key) {
    if (!file || !key || !file->metadata) return NULL;
    const ftr__json *value = ftr__json_find(file->metadata, key);
    return value ? value->as.string.text : NULL;
}

/* ------------------------------------------------------------------------------------------------------- writing -- */

/* A tensor to be written. */
typedef struct ftr__safetensors_output {
    const ftr_safetensors_item *item;
    int32_t type; /* index in ftr__safetensors_types */
    int64_t bytes;
} ftr__safetensors_output;

/* All that a file is made of. */
typedef struct ftr__safetensors_writer {
    ftr_context *context;
    const char *path;
    ftr__arena arena;
    const void **outputs; /* ftr__safetensors_output, in the order of the file */
    int64_t count;
    const char *const *metadata;
    int64_t metadata_count;
} ftr__safetensors_writer;

static int ftr__safetensors_compare_names(const void *a, const void *b) {
    const ftr__safetensors_output *left = a;
    const ftr__safetensors_output *right = b;
    return strcmp(left->item->name, right->item->name);
}

static int ftr__safetensors_compare_alignment(const void *a, const void *b) {
    const ftr__safetensors_output *left = a;
    const ftr__safetensors_output *right = b;
    if (left->type != right->type) return left->type > right->type ? -1 : 1;
    return ftr__safetensors_compare_names(a, b);
}

static int ftr__safetensors_compare_keys(const void *a, const void *b) { return strcmp(a, b); }

static bool ftr__safetensors_is_utf8(const char *text) { return ftr__utf8_invalid_at(text, strlen(text)) < 0; }

static ftr_status ftr__safetensors_add(ftr__safetensors_writer *writer, const ftr_safetensors_item *item,
                                       ftr__safetensors_output *output) {
    ftr_context *context = writer->context;
    if (!item->name)
        return ftr__error(context, FTR_ERROR_NAME, "%s: item %td: name is NULL", writer->path,
                          (ptrdiff_t)writer->count);
    if (strcmp(item->name, FTR__SAFETENSORS_METADATA) == 0)
        return ftr__error(context, FTR_ERROR_NAME, "%s: tensor '%s': found the format's own name, expected another",
                          writer->path, item->name);
    if (!ftr__safetensors_is_utf8(item->name))
        return ftr__error(context, FTR_ERROR_NAME, "%s: item %td: found a name that is not UTF-8", writer->path,
                          (ptrdiff_t)writer->count);
    output->item = item;
    output->type = -1;
    for (int32_t i = 0; i < FTR__ARRAY_LENGTH(ftr__safetensors_types); i++) {
        if (item->dtype != FTR_DTYPE_NONE && ftr__safetensors_types[i].dtype == item->dtype) output->type = i;
    }
    if (output->type < 0)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "%s: tensor '%.100s': dtype is %d, expected an element type", writer->path, item->name,
                          (int)item->dtype);
    const int64_t count = ftr_shape_count(&item->shape);
    if (count < 0)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "%s: tensor '%.100s': shape is out of range",
                          writer->path, item->name);
    output->bytes = count * (int64_t)ftr_dtype_size(item->dtype); /* fits: see ftr_shape_count() */
    if (output->bytes > 0 && !item->data)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "%s: tensor '%.100s': data is NULL", writer->path,
                          item->name);
    writer->outputs[writer->count++] = output;
    return FTR_OK;
}

static ftr_status ftr__safetensors_add_all(ftr__safetensors_writer *writer, const ftr_safetensors_item *items,
                                           int64_t count) {
    writer->outputs = ftr__arena_alloc(&writer->arena, (size_t)count * sizeof(*writer->outputs));
    ftr__safetensors_output *outputs = ftr__arena_alloc(&writer->arena, (size_t)count * sizeof(*outputs));
    if (!writer->outputs || !outputs)
        return ftr__out_of_memory(writer->context, writer->path, (size_t)count * sizeof(*outputs));
    int64_t total = 0;
    for (int64_t i = 0; i < count; i++) {
        const ftr_status status = ftr__safetensors_add(writer, &items[i], &outputs[i]);
        if (status != FTR_OK) return status;
        if (outputs[i].bytes > INT64_MAX - total)
            return ftr__error(writer->context, FTR_ERROR_INVALID_ARGUMENT,
                              "%s: tensor '%.100s': the file is out of range", writer->path, items[i].name);
        total += outputs[i].bytes;
    }
    ftr__sort(writer->outputs, count, ftr__safetensors_compare_names);
    for (int64_t i = 1; i < count; i++) {
        if (ftr__safetensors_compare_names(writer->outputs[i - 1], writer->outputs[i]) != 0) continue;
        const ftr__safetensors_output *output = writer->outputs[i];
        return ftr__error(writer->context, FTR_ERROR_NAME, "%s: tensor '%.100s': found twice, expected once",
                          writer->path, output->item->name);
    }
    ftr__sort(writer->outputs, count, ftr__safetensors_compare_alignment);
    return FTR_OK;
}

static ftr_status ftr__safetensors_check_metadata(ftr__safetensors_writer *writer) {
    const int64_t count = writer->metadata_count;
    const void **keys = ftr__arena_alloc(&writer->arena, (size_t)count * sizeof(*keys));
    if (!keys) return ftr__out_of_memory(writer->context, writer->path, (size_t)count * sizeof(*keys));
    for (int64_t i = 0; i < count; i++) {
        const char *key = writer->metadata[2 * i], *value = writer->metadata[2 * i + 1];
        if (!key || !value || !ftr__safetensors_is_utf8(key) || !ftr__safetensors_is_utf8(value))
            return ftr__error(writer->context, FTR_ERROR_NAME, "%s: metadata pair %td: found NULL or no UTF-8",
                              writer->path, (ptrdiff_t)i);
        keys[i] = key;
    }
    ftr__sort(keys, count, ftr__safetensors_compare_keys);
    for (int64_t i = 1; i < count; i++) {
        if (strcmp(keys[i - 1], keys[i]) == 0)
            return ftr__error(writer->context, FTR_ERROR_NAME, "%s: metadata '%.100s': found twice, expected once",
                              writer->path, (const char *)keys[i]);
    }
    return FTR_OK;
}

/* Writes the header, or only measures it. */
static void ftr__safetensors_put_header(const ftr__safetensors_writer *writer, ftr__json_writer *json) {
    const char *comma = "";
    ftr__json_put(json, "{");
    for (int64_t i = 0; i < writer->metadata_count; i++) {
        ftr__json_put(json, i == 0 ? "\"" FTR__SAFETENSORS_METADATA "\":{" : ",");
        ftr__json_put_string(json, writer->metadata[2 * i]);
        ftr__json_put(json, ":");
        ftr__json_put_string(json, writer->metadata[2 * i + 1]);
        if (i + 1 == writer->metadata_count) ftr__json_put(json, "}");
        comma = ",";
    }
    int64_t begin = 0;
    for (int64_t i = 0; i < writer->count; i++) {
        const ftr__safetensors_output *output = writer->outputs[i];
        ftr__json_put(json, comma);
        ftr__json_put_string(json, output->item->name);
        ftr__json_put(json, ":{\"dtype\":");
        ftr__json_put_string(json, ftr__safetensors_types[output->type].name);
        ftr__json_put(json, ",\"shape\":[");
        for (int32_t d = 0; d < output->item->shape.rank; d++) {
            if (d > 0) ftr__json_put(json, ",");
            ftr__json_put_integer(json, output->item->shape.dim[d]);
        }
        ftr__json_put(json, "],\"data_offsets\":[");
        ftr__json_put_integer(json, begin);
        ftr__json_put(json, ",");
        begin += output->bytes;
        ftr__json_put_integer(json, begin);
        ftr__json_put(json, "]}");
        comma = ",";
    }
    ftr__json_put(json, "}");
    while (json->length % 8 != 0) ftr__json_put(json, " ");
}

static ftr_status ftr__safetensors_write_file(ftr__safetensors_writer *writer) {
    ftr__json_writer json = {.text = NULL};
    ftr__safetensors_put_header(writer, &json);
    const size_t length = json.length;
    if (length > FTR__SAFETENSORS_MAX_HEADER)
        return ftr__error(writer->context, FTR_ERROR_INVALID_ARGUMENT,
                          "%s: HeaderTooLarge: found a header of %zu bytes, expected at most %d", writer->path, length,
                          FTR__SAFETENSORS_MAX_HEADER);
    unsigned char *header = ftr__arena_alloc(&writer->arena, 8 + length);
    if (!header) return ftr__out_of_memory(writer->context, writer->path, 8 + length);
    for (int i = 0; i < 8; i++) header[i] = (unsigned char)((uint64_t)length >> (8 * i));
    json = (ftr__json_writer){.text = (char *)header + 8};
    ftr__safetensors_put_header(writer, &json);

    ftr__file_writer file;
    ftr__file_begin(&file, writer->context, writer->path);
    ftr__file_append(&file, header, 8 + length);
    for (int64_t i = 0; i < writer->count; i++) {
        const ftr__safetensors_output *output = writer->outputs[i];
        ftr__file_append(&file, output->item->data, (size_t)output->bytes);
    }
    return ftr__file_end(&file);
}

ftr_status ftr_safetensors_write(ftr_context *context, const char *path, const ftr_safetensors_item *items,
                                 int64_t count, const char *const *metadata, int64_t metadata_count) {
    if (!context || !path)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "ftr_safetensors_write: context or path is NULL");
    if (count < 0 || (count > 0 && !items) || metadata_count < 0 || (metadata_count > 0 && !metadata))
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "%s: items or metadata do not fit their counts", path);
    ftr__safetensors_writer writer = {
        .context = context, .path = path, .metadata = metadata, .metadata_count = metadata_count};
    ftr__arena_init(&writer.arena, context);
    ftr_status status = ftr__safetensors_add_all(&writer, items, count);
    if (status == FTR_OK) status = ftr__safetensors_check_metadata(&writer);
    if (status == FTR_OK) status = ftr__safetensors_write_file(&writer);
    ftr__arena_free(&writer.arena);
    return status;
}

/* ---- src/io/load_report.h ---- */
/* What a load found, filled by io/weights.c. */

typedef struct ftr__load_list {
    ftr_load_entry *entries;
    int32_t count, capacity;
} ftr__load_list;

struct ftr_load_report {
    ftr_context *context;
    ftr__arena arena;
    const char *path;
    ftr__load_list lists[FTR_LOAD_OUTCOME_COUNT];
    ftr_status fault; /* of the first entry that has one */
    int32_t fault_count;
    bool refused;
    char sentence[FTR__MESSAGE_SIZE]; /* about the first fault, path included */
};

/* An empty report on a file; NULL with the error recorded when memory is short. */
FTR_LIB ftr_load_report *ftr__load_report_create(ftr_context *context, const char *path);

/* Adds a copy of an entry. `why` is the sentence of its fault, without the path. False when memory is short. */
FTR_LIB bool ftr__load_report_add(ftr_load_report *report, ftr_load_outcome outcome, const ftr_load_entry *entry,
                                  const char *why);

/* Records the first fault as the context's error and returns it; FTR_OK if there is none. */
FTR_LIB ftr_status ftr__load_report_verdict(ftr_load_report *report);

/* "F32 [2, 3]" of what the file has, "f32 [2, 3]" of what the graph has. Return `text`. */
#define FTR__LOAD_TEXT 160
FTR_LIB const char *ftr__load_found_text(const ftr_load_entry *entry, char text[FTR__LOAD_TEXT]);
FTR_LIB const char *ftr__load_expected_text(const ftr_load_entry *entry, char text[FTR__LOAD_TEXT]);

/* ---- src/io/load_report.c ---- */

ftr_load_report *ftr__load_report_create(ftr_context *context, const char *path) {
    ftr_load_report *report = ftr__allocate(context, sizeof *report);
    if (!report) {
        ftr__out_of_memory(context, path, sizeof *report);
        return NULL;
    }
    memset(report, 0, sizeof *report);
    report->context = context;
    ftr__arena_init(&report->arena, context);
    report->path = ftr__arena_string(&report->arena, path);
    if (report->path) return report;
    ftr__out_of_memory(context, path, strlen(path) + 1);
    ftr_load_report_destroy(report);
    return NULL;
}

void ftr_load_report_destroy(ftr_load_report *report) {
    if (!report) return;
    ftr__arena_free(&report->arena);
    ftr__release(report->context, report, sizeof *report);
}

bool ftr__load_report_add(ftr_load_report *report, ftr_load_outcome outcome, const ftr_load_entry *entry,
                          const char *why) {
    ftr__load_list *list = &report->lists[outcome];
    const size_t size = (size_t)entry->found_rank * sizeof *entry->found_dim;
    char *name = ftr__arena_string(&report->arena, entry->name);
    int64_t *dim = ftr__arena_alloc(&report->arena, size);
    if (!name || !dim ||
        !ftr__arena_grow(&report->arena, (void **)&list->entries, list->count, &list->capacity, sizeof *list->entries))
        return false;
    ftr_load_entry *added = &list->entries[list->count++];
    *added = *entry;
    added->name = name;
    if (size > 0) memcpy(dim, entry->found_dim, size);
    added->found_dim = dim; /* the type's word is a constant of safetensors.c */
    if (entry->fault == FTR_OK) return true;
    if (report->fault_count++ > 0) return true;
    report->fault = entry->fault;
    snprintf(report->sentence, sizeof report->sentence, "%s: %s", report->path, why);
    return true;
}

ftr_status ftr__load_report_verdict(ftr_load_report *report) {
    if (report->fault_count == 0) return FTR_OK;
    report->refused = true;
    if (report->fault_count == 1) return ftr__error(report->context, report->fault, "%s", report->sentence);
    const int32_t more = report->fault_count - 1;
    return ftr__error(report->context, report->fault, "%s, and %d more %s not fit", report->sentence, more,
                      more == 1 ? "does" : "do");
}

int32_t ftr_load_report_count(const ftr_load_report *report, ftr_load_outcome outcome) {
    const bool known = (int)outcome >= 0 && outcome < FTR_LOAD_OUTCOME_COUNT;
    return report && known ? report->lists[outcome].count : 0;
}

bool ftr_load_report_at(const ftr_load_report *report, ftr_load_outcome outcome, int32_t index, ftr_load_entry *entry) {
    if (!entry || index < 0 || index >= ftr_load_report_count(report, outcome)) return false;
    *entry = report->lists[outcome].entries[index];
    return true;
}

const char *ftr__load_found_text(const ftr_load_entry *entry, char text[FTR__LOAD_TEXT]) {
    char dims[FTR__SHAPE_TEXT];
    ftr__dims_text(entry->found_rank, entry->found_dim, dims, sizeof dims);
    snprintf(text, FTR__LOAD_TEXT, "%s %s", entry->found_dtype, dims);
    return text;
}

const char *ftr__load_expected_text(const ftr_load_entry *entry, char text[FTR__LOAD_TEXT]) {
    char dims[FTR__SHAPE_TEXT];
    ftr__shape_text(&entry->expected_shape, dims);
    snprintf(text, FTR__LOAD_TEXT, "%s %s", ftr_dtype_name(entry->expected_dtype), dims);
    return text;
}

static void ftr__load_print_entry(const char *outcome, const ftr_load_entry *entry, ftr_write_fn write, void *user) {
    char text[FTR__LOAD_TEXT];
    ftr__print(write, user, "%-10s  ", outcome);
    write(user, entry->name, strlen(entry->name));
    ftr__print(write, user, ": ");
    if (entry->found_dtype) ftr__print(write, user, "found %s", ftr__load_found_text(entry, text));
    if (entry->found_dtype && entry->expected_dtype) ftr__print(write, user, ", ");
    if (entry->expected_dtype) ftr__print(write, user, "expected %s", ftr__load_expected_text(entry, text));
    ftr__print(write, user, "\n");
}

void ftr_load_report_print(const ftr_load_report *report, ftr_write_fn write, void *user) {
    static const char *const words[FTR_LOAD_OUTCOME_COUNT] = {"loaded", "missing", "unexpected", "mismatched",
                                                              "skipped"};
    if (!report || !write) return;
    write(user, report->path, strlen(report->path));
    ftr__print(write, user, ": %s", report->refused ? "refused, nothing is changed: " : "");
    for (int32_t i = 0; i < FTR_LOAD_OUTCOME_COUNT; i++)
        ftr__print(write, user, "%s%d %s", i ? ", " : "", report->lists[i].count,
                   i == FTR_LOAD_LOADED && report->refused ? "fit" : words[i]);
    ftr__print(write, user, "\n");
    for (int32_t i = FTR_LOAD_MISSING; i < FTR_LOAD_OUTCOME_COUNT; i++)
        for (int32_t k = 0; k < report->lists[i].count; k++)
            ftr__load_print_entry(words[i], &report->lists[i].entries[k], write, user);
}

/* ---- src/io/weights.c ---- */

/* A variable beside its tensor in a file. `shape` is the file's: OIHW for convolution weights, whose memory is OHWI
 * (OIW and OWI of one dimension): the last dimension moves to the second place. */
typedef struct ftr__weight {
    ftr_tensor tensor;
    const char *name;
    ftr_dtype dtype;
    ftr_shape shape;
    size_t bytes;
    bool permuted;
    int64_t window; /* positions of a permuted one's kernel: H * W */
} ftr__weight;

static ftr__weight ftr__weight_of(ftr_graph *graph, int32_t index) {
    const ftr__variable *variable = &graph->variables[index];
    const ftr_tensor tensor = {graph, variable->value};
    ftr__weight weight = {
        .tensor = tensor,
        .name = ftr_name_of(tensor),
        .dtype = ftr_dtype_of(tensor),
        .shape = ftr_shape_of(tensor),
        .bytes = variable->bytes,
        .window = 1,
    };
    const ftr_shape memory = weight.shape;
    weight.permuted = variable->conv_weight && memory.rank > 2;
    if (!weight.permuted) return weight;
    weight.shape.dim[1] = memory.dim[memory.rank - 1];
    for (int32_t i = 2; i < memory.rank; i++) {
        weight.shape.dim[i] = memory.dim[i - 1];
        weight.window *= memory.dim[i - 1];
    }
    return weight;
}

/* Copies [count, rows, columns] to [count, columns, rows]. OHWI to OIHW is this with H*W rows and I columns; back, with I
 * rows and H*W columns. Neither side need be aligned. */
static void ftr__weight_transpose(void *to, const void *from, int64_t count, int64_t rows, int64_t columns,
                                  size_t size) {
    unsigned char *target = to;
    const unsigned char *source = from;
    for (int64_t n = 0; n < count; n++) {
        for (int64_t c = 0; c < columns; c++) {
            for (int64_t r = 0; r < rows; r++) {
                memcpy(target, source + (size_t)((n * rows + r) * columns + c) * size, size);
                target += size;
            }
        }
    }
}

/* Bytes of the largest convolution weight. */
static size_t ftr__weights_scratch_size(ftr_graph *graph) {
    size_t size = 0;
    for (int32_t i = 0; i < graph->variable_count; i++) {
        const ftr__variable *variable = &graph->variables[i];
        if (variable->conv_weight && variable->bytes > size) size = variable->bytes;
    }
    return size;
}

/* A graph whose building failed has no weights to speak of. */
static ftr_status ftr__weights_begin(ftr_graph *graph, const char *path, const char *what) {
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    if (!path) return ftr__error(graph->context, FTR_ERROR_INVALID_ARGUMENT, "%s: path is NULL", what);
    if (graph->status != FTR_OK) return ftr__error(graph->context, graph->status, "%s", graph->message);
    return FTR_OK;
}

/* -------------------------------------------------------------------------------------------------------- saving -- */

/* Reads all variables into `data` as the file has them. */
static ftr_status ftr__weights_collect(ftr_graph *graph, unsigned char *data, unsigned char *scratch,
                                       ftr_safetensors_item *items) {
    for (int32_t i = 0; i < graph->variable_count; i++) {
        const ftr__weight weight = ftr__weight_of(graph, i);
        const ftr_status status = ftr_variable_read(weight.tensor, weight.permuted ? scratch : data, weight.bytes);
        if (status != FTR_OK) return status;
        if (weight.permuted)
            ftr__weight_transpose(data, scratch, weight.shape.dim[0], weight.window, weight.shape.dim[1],
                                  ftr_dtype_size(weight.dtype));
        items[i] =
            (ftr_safetensors_item){.name = weight.name, .dtype = weight.dtype, .shape = weight.shape, .data = data};
        data += weight.bytes;
    }
    return FTR_OK;
}

ftr_status ftr_save_weights(ftr_graph *graph, const char *path) {
    static const char *const metadata[] = {"format", "pt"}; /* PyTorch's layout; transformers wants the word */
    ftr_status status = ftr__weights_begin(graph, path, "ftr_save_weights");
    if (status != FTR_OK) return status;
    ftr_context *context = graph->context;
    const size_t scratch_size = ftr__weights_scratch_size(graph);
    const size_t items_size = (size_t)graph->variable_count * sizeof(ftr_safetensors_item);
    size_t data_size = 0;
    for (int32_t i = 0; i < graph->variable_count; i++) data_size += graph->variables[i].bytes;

    ftr_safetensors_item *items = ftr__allocate(context, items_size);
    unsigned char *data = ftr__allocate(context, data_size);
    unsigned char *scratch = ftr__allocate(context, scratch_size);
    status = items && data && scratch ? ftr__weights_collect(graph, data, scratch, items)
                                      : ftr__out_of_memory(context, path, items_size + data_size + scratch_size);
    if (status == FTR_OK) status = ftr_safetensors_write(context, path, items, graph->variable_count, metadata, 1);
    ftr__release(context, scratch, scratch_size);
    ftr__release(context, data, data_size);
    ftr__release(context, items, items_size);
    return status;
}

/* ------------------------------------------------------------------------------------------------ floating types -- */

/* The floating types of files that become f32 or f64. */
typedef enum ftr__file_float {
    FTR__FILE_NO_FLOAT = 0,
    FTR__FILE_F16,
    FTR__FILE_BF16,
    FTR__FILE_F32,
    FTR__FILE_F64
} ftr__file_float;

static ftr__file_float ftr__file_float_of(const ftr_safetensors_entry *entry) {
    if (entry->dtype == FTR_F32) return FTR__FILE_F32;
    if (entry->dtype == FTR_F64) return FTR__FILE_F64;
    if (strcmp(entry->dtype_name, "F16") == 0) return FTR__FILE_F16;
    return strcmp(entry->dtype_name, "BF16") == 0 ? FTR__FILE_BF16 : FTR__FILE_NO_FLOAT;
}

static float ftr__float_of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE 754 binary16: 1 bit of sign, 5 of exponent with bias 15, 10 of fraction. */
static float ftr__half_to_float(uint32_t half) {
    const uint32_t sign = half >> 15 << 31, exponent = half >> 10 & 0x1fu, fraction = half & 0x3ffu;
    if (exponent == 0x1f) return ftr__float_of_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent != 0) return ftr__float_of_bits(sign | (exponent + (127 - 15)) << 23 | fraction << 13);
    const float size = (float)fraction * 0x1p-24f;
    return sign ? -size : size;
}

/* Element `index` of a file's floating tensor, without a rounding. */
static double ftr__file_float_at(const unsigned char *data, ftr__file_float type, size_t index) {
    uint16_t half;
    float single;
    double value;
    switch (type) {
    case FTR__FILE_F16: memcpy(&half, data + index * sizeof half, sizeof half); return (double)ftr__half_to_float(half);
    case FTR__FILE_BF16:
        memcpy(&half, data + index * sizeof half, sizeof half);
        return (double)ftr__float_of_bits((uint32_t)half << 16);
    case FTR__FILE_F32: memcpy(&single, data + index * sizeof single, sizeof single); return (double)single;
    default: memcpy(&value, data + index * sizeof value, sizeof value); return value;
    }
}

/* The conversion to float rounds to nearest, ties to even, and gives infinity beyond the largest (C11, annex F). */
static void ftr__weight_convert(unsigned char *to, const ftr__weight *weight, const ftr_safetensors_entry *entry) {
    const ftr__file_float type = ftr__file_float_of(entry);
    const size_t size = ftr_dtype_size(weight->dtype), count = weight->bytes / size;
    for (size_t i = 0; i < count; i++) {
        const double value = ftr__file_float_at(entry->data, type, i);
        const float single = (float)value;
        memcpy(to + i * size, weight->dtype == FTR_F32 ? (const void *)&single : (const void *)&value, size);
    }
}

/* ------------------------------------------------------------------------------------------------------- loading -- */

typedef struct ftr__load {
    ftr_graph *graph;
    const char *path;
    const ftr_load_desc *desc;
    ftr_safetensors *file;
    ftr_load_report *report;
    ftr_safetensors_entry *found; /* by variable: what it is read from; name NULL: it is not read */
} ftr__load;

static ftr_status ftr__load_out_of_memory(const ftr__load *load, size_t bytes) {
    return ftr__out_of_memory(load->graph->context, load->path, bytes);
}

static ftr_status ftr__load_check_desc(ftr_context *context, const ftr_load_desc *desc) {
    const ftr_status bad = FTR_ERROR_INVALID_ARGUMENT;
    if (desc->mode != FTR_LOAD_STRICT && desc->mode != FTR_LOAD_BY_NAME)
        return ftr__error(context, bad, "ftr_load_weights: mode is %d, expected one of ftr_load_mode", (int)desc->mode);
    if (desc->skip_count < 0 || (desc->skip_count > 0 && !desc->skip))
        return ftr__error(context, bad, "ftr_load_weights: skip is %s with a count of %d",
                          desc->skip ? "given" : "NULL", desc->skip_count);
    for (int32_t i = 0; i < desc->skip_count; i++) {
        if (!desc->skip[i]) return ftr__error(context, bad, "ftr_load_weights: skip[%d] is NULL", i);
    }
    return FTR_OK;
}

static bool ftr__load_skips(const ftr_load_desc *desc, const char *name) {
    for (int32_t i = 0; i < desc->skip_count; i++) {
        if (ftr__glob_match(desc->skip[i], name)) return true;
    }
    return false;
}

/* A variable's name in the file; NULL when memory is short. */
static const char *ftr__load_file_name(const ftr__load *load, const char *name) {
    const char *prefix = load->desc->file_prefix;
    if (!prefix || !*prefix) return name;
    const size_t before = strlen(prefix), size = strlen(name) + 1;
    char *text = ftr__arena_alloc(&load->report->arena, before + size);
    if (!text) return NULL;
    memcpy(text, prefix, before);
    memcpy(text + before, name, size);
    return text;
}

/* A tensor's name without the prefix; NULL if it has another beginning. */
static const char *ftr__load_graph_name(const ftr__load *load, const char *name) {
    const char *prefix = load->desc->file_prefix ? load->desc->file_prefix : "";
    const size_t length = strlen(prefix);
    return strncmp(name, prefix, length) == 0 ? name + length : NULL;
}

/* The counter of PyTorch's batch norms, which have no use for it unless their momentum is None. */
static bool ftr__weight_is_counter(const char *name) {
    static const char suffix[] = ".num_batches_tracked";
    const size_t length = strlen(name);
    return length >= sizeof suffix - 1 && strcmp(name + length - (sizeof suffix - 1), suffix) == 0;
}

static bool ftr__weight_fits_type(const ftr__weight *weight, const ftr_safetensors_entry *entry) {
    return entry->dtype == weight->dtype ||
           (ftr__is_float(weight->dtype) && ftr__file_float_of(entry) != FTR__FILE_NO_FLOAT);
}

static bool ftr__weight_fits_shape(const ftr__weight *weight, const ftr_safetensors_entry *entry) {
    if (entry->rank != weight->shape.rank) return false;
    for (int32_t i = 0; i < entry->rank; i++) {
        if (entry->dim[i] != weight->shape.dim[i]) return false;
    }
    return true;
}

#define FTR__LOAD_WHY FTR__MESSAGE_SIZE

/* A tensor of other type or shape. */
static ftr_status ftr__load_mismatch(const char *name, const ftr_load_entry *entry, bool type_fits, bool shape_fits,
                                     char why[FTR__LOAD_WHY]) {
    char found[FTR__SHAPE_TEXT], expected[FTR__SHAPE_TEXT];
    ftr__dims_text(entry->found_rank, entry->found_dim, found, sizeof found);
    ftr__shape_text(&entry->expected_shape, expected);
    const char *type = ftr_dtype_name(entry->expected_dtype);
    if (type_fits)
        snprintf(why, FTR__LOAD_WHY, "tensor '%.100s': shape %s, expected %s", name, found, expected);
    else if (shape_fits)
        snprintf(why, FTR__LOAD_WHY, "tensor '%.100s': dtype %s, expected %s", name, entry->found_dtype, type);
    else
        snprintf(why, FTR__LOAD_WHY, "tensor '%.100s': dtype %s and shape %s, expected %s %s", name, entry->found_dtype,
                 found, type, expected);
    return type_fits ? FTR_ERROR_SHAPE : FTR_ERROR_DTYPE;
}

/* Compares type, shape, and the bytes of a bool. */
static ftr_status ftr__load_compare(const ftr__weight *weight, const ftr_safetensors_entry *found,
                                    const ftr_load_entry *entry, char why[FTR__LOAD_WHY]) {
    const bool type_fits = ftr__weight_fits_type(weight, found), shape_fits = ftr__weight_fits_shape(weight, found);
    if (!type_fits || !shape_fits) return ftr__load_mismatch(found->name, entry, type_fits, shape_fits, why);
    for (size_t i = 0; found->dtype == FTR_BOOL && i < found->bytes; i++) {
        const int value = ((const unsigned char *)found->data)[i];
        if (value <= 1) continue;
        snprintf(why, FTR__LOAD_WHY, "tensor '%.100s': element %zu is %d, expected 0 or 1", found->name, i, value);
        return FTR_ERROR_DATA;
    }
    return FTR_OK;
}

static void ftr__load_set_found(ftr_load_entry *entry, const ftr_safetensors_entry *found) {
    entry->found_dtype = found->dtype_name;
    entry->found_rank = found->rank;
    entry->found_dim = found->dim;
}

/* Looks a variable up in the file. */
static ftr_status ftr__load_variable(ftr__load *load, int32_t index) {
    const ftr__weight weight = ftr__weight_of(load->graph, index);
    const char *name = ftr__load_file_name(load, weight.name);
    if (!name) return ftr__load_out_of_memory(load, strlen(weight.name));
    ftr_load_entry entry = {.name = weight.name, .expected_dtype = weight.dtype, .expected_shape = weight.shape};
    ftr_load_outcome outcome = FTR_LOAD_LOADED;
    ftr_safetensors_entry found;
    char why[FTR__LOAD_WHY] = "", shape[FTR__SHAPE_TEXT];
    const bool is_there = ftr_safetensors_find(load->file, name, &found);
    if (is_there) ftr__load_set_found(&entry, &found);
    if (ftr__load_skips(load->desc, weight.name)) {
        outcome = FTR_LOAD_SKIPPED;
    } else if (is_there) {
        entry.fault = ftr__load_compare(&weight, &found, &entry, why);
        if (entry.fault != FTR_OK)
            outcome = FTR_LOAD_MISMATCHED;
        else
            load->found[index] = found;
    } else {
        outcome = FTR_LOAD_MISSING;
        if (load->desc->mode == FTR_LOAD_STRICT) entry.fault = FTR_ERROR_NAME;
        snprintf(why, sizeof why, "tensor '%.100s' of shape %s is missing", name,
                 ftr__shape_text(&weight.shape, shape));
    }
    return ftr__load_report_add(load->report, outcome, &entry, why) ? FTR_OK
                                                                    : ftr__load_out_of_memory(load, sizeof entry);
}

/* Looks for a tensor of the file in the graph. Those that are there have been dealt with. */
static ftr_status ftr__load_tensor(ftr__load *load, const ftr_safetensors_entry *found) {
    const char *name = ftr__load_graph_name(load, found->name);
    if (ftr__weight_is_counter(found->name) || ftr_is_valid(ftr_variable_find(load->graph, name))) return FTR_OK;
    const bool skipped = ftr__load_skips(load->desc, name ? name : found->name);
    ftr_load_entry entry = {.name = found->name};
    ftr__load_set_found(&entry, found);
    if (!skipped && load->desc->mode == FTR_LOAD_STRICT) entry.fault = FTR_ERROR_NAME;
    char why[FTR__LOAD_WHY], shape[FTR__SHAPE_TEXT];
    ftr__dims_text(found->rank, found->dim, shape, sizeof shape);
    if (name)
        snprintf(why, sizeof why, "tensor '%.100s' of shape %s is not in the graph", found->name, shape);
    else
        snprintf(why, sizeof why, "tensor '%.100s' of shape %s lacks the prefix '%.60s'", found->name, shape,
                 load->desc->file_prefix);
    return ftr__load_report_add(load->report, skipped ? FTR_LOAD_SKIPPED : FTR_LOAD_UNEXPECTED, &entry, why)
               ? FTR_OK
               : ftr__load_out_of_memory(load, sizeof entry);
}

/* Fills the report and `found`. */
static ftr_status ftr__load_look_up(ftr__load *load) {
    const size_t size = (size_t)load->graph->variable_count * sizeof *load->found;
    load->found = ftr__arena_alloc(&load->report->arena, size);
    if (!load->found) return ftr__load_out_of_memory(load, size);
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < load->graph->variable_count && status == FTR_OK; i++) status = ftr__load_variable(load, i);
    ftr_safetensors_entry found;
    for (int64_t i = 0; status == FTR_OK && ftr_safetensors_at(load->file, i, &found); i++)
        status = ftr__load_tensor(load, &found);
    return status;
}

static bool ftr__load_pattern_fits(const ftr__load *load, const char *pattern) {
    for (int32_t i = 0; i < load->graph->variable_count; i++) {
        if (ftr__glob_match(pattern, ftr_name_of(ftr_variable_at(load->graph, i)))) return true;
    }
    ftr_safetensors_entry found;
    for (int64_t i = 0; ftr_safetensors_at(load->file, i, &found); i++) {
        const char *name = ftr__load_graph_name(load, found.name);
        if (ftr__glob_match(pattern, name ? name : found.name)) return true;
    }
    return false;
}

/* A pattern for nothing is a mistake, and what follows from it is not what should be told. */
static ftr_status ftr__load_check_patterns(const ftr__load *load) {
    for (int32_t i = 0; i < load->desc->skip_count; i++) {
        if (ftr__load_pattern_fits(load, load->desc->skip[i])) continue;
        return ftr__error(load->graph->context, FTR_ERROR_NAME,
                          "%s: skip[%d], '%.100s', fits no variable of the graph and no tensor of the file", load->path,
                          i, load->desc->skip[i]);
    }
    return FTR_OK;
}

/* By name all may be missing; that is a mistake all the same. */
static ftr_status ftr__load_check_any(const ftr__load *load) {
    const ftr_load_report *report = load->report;
    ftr_load_entry missing, unexpected;
    if (load->desc->mode != FTR_LOAD_BY_NAME || ftr_load_report_count(report, FTR_LOAD_LOADED) > 0) return FTR_OK;
    const char *prefix = load->desc->file_prefix ? load->desc->file_prefix : "";
    char instance[FTR__LOAD_WHY] = "";
    if (ftr_load_report_at(report, FTR_LOAD_MISSING, 0, &missing) &&
        ftr_load_report_at(report, FTR_LOAD_UNEXPECTED, 0, &unexpected))
        snprintf(instance, sizeof instance, " (for instance '%.60s%.100s'; the file has '%.100s')", prefix,
                 missing.name, unexpected.name);
    const int32_t variables = load->graph->variable_count, absent = ftr_load_report_count(report, FTR_LOAD_MISSING);
    return ftr__error(load->graph->context, FTR_ERROR_NAME,
                      "%s: nothing to load: of the graph's %d variables %d are skipped and %d are missing%s",
                      load->path, variables, variables - absent, absent, instance);
}

static ftr_status ftr__load_check(ftr__load *load) {
    ftr_status status = ftr__load_look_up(load);
    if (status != FTR_OK) return status;
    status = ftr__load_check_patterns(load);
    if (status == FTR_OK) status = ftr__load_report_verdict(load->report);
    if (status == FTR_OK) status = ftr__load_check_any(load);
    load->report->refused = status != FTR_OK;
    return status;
}

/* Copies the file's tensors into the variables. `converted` and `permuted` have room for the largest that needs them.
 * */
static ftr_status ftr__load_copy(const ftr__load *load, unsigned char *converted, unsigned char *permuted) {
    ftr_status status = FTR_OK;
    for (int32_t i = 0; i < load->graph->variable_count && status == FTR_OK; i++) {
        const ftr__weight weight = ftr__weight_of(load->graph, i);
        const ftr_safetensors_entry *found = &load->found[i];
        if (!found->name) continue;
        const void *data = found->data;
        if (found->dtype != weight.dtype) {
            ftr__weight_convert(converted, &weight, found);
            data = converted;
        }
        if (weight.permuted) {
            ftr__weight_transpose(permuted, data, weight.shape.dim[0], weight.shape.dim[1], weight.window,
                                  ftr_dtype_size(weight.dtype));
            data = permuted;
        }
        status = ftr_variable_write(weight.tensor, data, weight.bytes);
    }
    return status;
}

static ftr_status ftr__load_apply(const ftr__load *load) {
    ftr_context *context = load->graph->context;
    size_t convert = 0;
    for (int32_t i = 0; i < load->graph->variable_count; i++) {
        const ftr__weight weight = ftr__weight_of(load->graph, i);
        const ftr_safetensors_entry *found = &load->found[i];
        if (found->name && found->dtype != weight.dtype && weight.bytes > convert) convert = weight.bytes;
    }
    const size_t permute = ftr__weights_scratch_size(load->graph);
    unsigned char *scratch = ftr__allocate(context, convert + permute);
    if (!scratch) return ftr__load_out_of_memory(load, convert + permute);
    const ftr_status status = ftr__load_copy(load, scratch, scratch + convert);
    ftr__release(context, scratch, convert + permute);
    return status;
}

/* The file is open. */
static ftr_status ftr__load_file(ftr__load *load, ftr_load_report **report) {
    ftr_context *context = load->graph->context;
    load->report = ftr__load_report_create(context, load->path);
    if (!load->report) return context->status;
    ftr_status status = ftr__load_check(load);
    if (status == FTR_OK)
        status = ftr__graph_materialize(load->graph); /* what may fail comes before the first change */
    if (status == FTR_OK) status = ftr__load_apply(load);
    if (report && (status == FTR_OK || load->report->refused))
        *report = load->report;
    else
        ftr_load_report_destroy(load->report);
    return status;
}

ftr_status ftr_load_weights(ftr_graph *graph, const char *path, const ftr_load_desc *desc, ftr_load_report **report) {
    const ftr_load_desc strict = {FTR_LOAD_STRICT, NULL, 0, NULL};
    ftr__load load = {.graph = graph, .path = path, .desc = desc ? desc : &strict};
    if (report) *report = NULL;
    ftr_status status = ftr__weights_begin(graph, path, "ftr_load_weights");
    if (status == FTR_OK) status = ftr__load_check_desc(graph->context, load.desc);
    if (status == FTR_OK) status = ftr_safetensors_open(graph->context, path, &load.file);
    if (status == FTR_OK) status = ftr__load_file(&load, report);
    ftr_safetensors_close(load.file);
    return status;
}

/* ---- src/train/summary.c ---- */
/* ftr_model_summary(): a table made from the graph alone. A row is a layer (a node that takes parameters or buffers), a
 * matrix product or a pooling; everything else is counted in one row at the end. */

#define FTR__SUMMARY_COLUMNS 6
#define FTR__SUMMARY_CELL 160

typedef struct ftr__summary_row {
    const char *name;                                   /* may be longer than a cell */
    char cell[FTR__SUMMARY_COLUMNS][FTR__SUMMARY_CELL]; /* cell[0] is unused: the name stands there */
} ftr__summary_row;

typedef struct ftr__summary {
    ftr_write_fn write;
    void *user;
    size_t width[FTR__SUMMARY_COLUMNS];
    bool measuring;                      /* rows only widen the columns; otherwise they are printed */
    int64_t multiply_adds, output_bytes; /* of all nodes */
    int64_t other_nodes, other_bytes;    /* of those without a row */
} ftr__summary;

static int64_t ftr__summary_count(const ftr_graph *graph, int32_t value) {
    int64_t count = ftr_shape_count(&graph->values[value].shape);
    return count > 0 ? count : 0;
}

static const ftr__node *ftr__summary_producer(const ftr_graph *graph, int32_t value) {
    return value > 0 ? &graph->nodes[graph->values[value].node] : NULL;
}

/* Whether a node before `node` takes the same variable: a shared parameter counts where it is used first. */
static bool ftr__summary_seen(const ftr_graph *graph, const ftr__node *node, int32_t input) {
    for (const ftr__node *other = graph->nodes; other <= node; other++)
        for (int32_t i = 0; i < (other == node ? input : other->in_count); i++)
            if (other->in[i] == node->in[input]) return true;
    return false;
}

/* Elements of the parameters that a node uses first; `variables` is set if it takes any parameter or buffer at all. */
static int64_t ftr__summary_parameters(const ftr_graph *graph, const ftr__node *node, bool *variables) {
    int64_t count = 0;
    *variables = false;
    for (int32_t i = 0; i < node->in_count; i++) {
        const ftr__node *producer = ftr__summary_producer(graph, node->in[i]);
        if (!producer || producer->variable < 0) continue;
        *variables = true;
        bool trained = graph->variables[producer->variable].trainable;
        if (trained && !ftr__summary_seen(graph, node, i)) count += ftr__summary_count(graph, node->in[i]);
    }
    return count;
}

/* Multiply-adds of matrix products and convolutions: output elements times the length of the sum behind each. */
static int64_t ftr__summary_multiply_adds(const ftr_graph *graph, const ftr__node *node) {
    if (node->op != FTR_OP_matmul && node->op != FTR_OP_linear && node->op != FTR_OP_conv2d) return 0;
    int64_t out = ftr__summary_count(graph, node->first_out);
    const ftr_shape *a = &graph->values[node->in[0]].shape, *b = &graph->values[node->in[1]].shape;
    if (node->op == FTR_OP_conv2d) return out * b->dim[1] * b->dim[2] * b->dim[3];
    if (node->op == FTR_OP_linear) return out * b->dim[1];
    return out * a->dim[a->rank - (node->attr.matmul.transpose_a ? 2 : 1)];
}

static int64_t ftr__summary_bytes(const ftr_graph *graph, const ftr__node *node) {
    if (node->out_count < 1) return 0;
    const ftr__value *value = &graph->values[node->first_out];
    return ftr__summary_count(graph, node->first_out) * (int64_t)ftr_dtype_size(value->dtype);
}

/* 1,234,567. */
static void ftr__summary_number(char *text, int64_t number) {
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)number);
    size_t used = 0;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) text[used++] = ',';
        text[used++] = digits[i];
    }
    text[used] = '\0';
}

static bool ftr__summary_is_source(const ftr__node *node) { return node->op <= FTR_OP_constant; }

/* Fills a node's row and adds it to the totals; false if it has none of its own. */
static bool ftr__summary_fill(ftr__summary *summary, const ftr_graph *graph, const ftr__node *node,
                              ftr__summary_row *row) {
    if (node->dead || (ftr__summary_is_source(node) && node->op != FTR_OP_input)) return false;
    bool input = node->op == FTR_OP_input, variables;
    int64_t parameters = ftr__summary_parameters(graph, node, &variables);
    int64_t multiply_adds = ftr__summary_multiply_adds(graph, node), bytes = ftr__summary_bytes(graph, node);
    summary->multiply_adds += multiply_adds;
    summary->output_bytes += bytes;
    bool pool = node->op == FTR_OP_max_pool2d || node->op == FTR_OP_avg_pool2d;
    if (!input && !variables && !pool && node->op != FTR_OP_matmul) {
        summary->other_nodes++;
        summary->other_bytes += bytes;
        return false;
    }
    row->name = node->name;
    snprintf(row->cell[1], FTR__SUMMARY_CELL, "%s", ftr_op_name(node->op));
    char shape[FTR__SHAPE_TEXT];
    const ftr_shape none = {0};
    const ftr_shape *out = node->out_count > 0 ? &graph->values[node->first_out].shape : &none;
    snprintf(row->cell[2], FTR__SUMMARY_CELL, "%s", ftr__shape_text(out, shape));
    row->cell[3][0] = row->cell[4][0] = '\0';
    if (!input) ftr__summary_number(row->cell[3], parameters);
    if (!input) ftr__summary_number(row->cell[4], multiply_adds);
    ftr__summary_number(row->cell[5], bytes);
    return true;
}

static void ftr__summary_spaces(const ftr__summary *summary, size_t count) {
    for (; count > 0; count--) summary->write(summary->user, " ", 1);
}

/* Columns 0 to 2 are text and stand left, the others are numbers and stand right. */
static void ftr__summary_print(const ftr__summary *summary, const ftr__summary_row *row) {
    for (int32_t i = 0; i < FTR__SUMMARY_COLUMNS; i++) {
        const char *text = i == 0 ? row->name : row->cell[i];
        size_t length = strlen(text), blanks = summary->width[i] - length;
        if (i > 0) ftr__summary_spaces(summary, 2);
        if (i > 2) ftr__summary_spaces(summary, blanks);
        summary->write(summary->user, text, length);
        if (i <= 2) ftr__summary_spaces(summary, blanks);
    }
    summary->write(summary->user, "\n", 1);
}

static void ftr__summary_emit(ftr__summary *summary, const ftr__summary_row *row) {
    if (!summary->measuring) {
        ftr__summary_print(summary, row);
        return;
    }
    for (int32_t i = 0; i < FTR__SUMMARY_COLUMNS; i++) {
        size_t length = strlen(i == 0 ? row->name : row->cell[i]);
        if (length > summary->width[i]) summary->width[i] = length;
    }
}

static void ftr__summary_other(const ftr__summary *summary, ftr__summary_row *row) {
    memset(row, 0, sizeof *row);
    row->name = "others";
    char number[32];
    ftr__summary_number(number, summary->other_nodes);
    snprintf(row->cell[1], FTR__SUMMARY_CELL, "%s %s", number, summary->other_nodes == 1 ? "op" : "ops");
    ftr__summary_number(row->cell[3], 0);
    ftr__summary_number(row->cell[4], 0);
    ftr__summary_number(row->cell[5], summary->other_bytes);
}

/* All rows once. The totals start from zero each time. */
static void ftr__summary_rows(ftr__summary *summary, const ftr_graph *graph, bool measuring) {
    ftr__summary_row row = {"layer", {"", "op", "output shape", "parameters", "multiply-adds", "output bytes"}};
    summary->measuring = measuring;
    summary->multiply_adds = summary->output_bytes = summary->other_nodes = summary->other_bytes = 0;
    ftr__summary_emit(summary, &row);
    for (int32_t n = 0; n < graph->node_count; n++)
        if (ftr__summary_fill(summary, graph, &graph->nodes[n], &row)) ftr__summary_emit(summary, &row);
    if (summary->other_nodes == 0) return;
    ftr__summary_other(summary, &row);
    ftr__summary_emit(summary, &row);
}

static void ftr__summary_totals(const ftr__summary *summary, const ftr_graph *graph) {
    int64_t count[3] = {0}, bytes = 0; /* trained, frozen, in buffers */
    for (int32_t i = 0; i < graph->variable_count; i++) {
        const ftr__variable *variable = &graph->variables[i];
        const int32_t kind = !variable->trainable ? 2 : variable->frozen ? 1 : 0;
        count[kind] += ftr__summary_count(graph, variable->value);
        bytes += (int64_t)variable->bytes;
    }
    char a[32], b[32], c[32];
    ftr__summary_number(a, count[0]);
    ftr__summary_number(b, count[1]);
    ftr__print(summary->write, summary->user, "parameters: %s trained", a);
    if (count[1] > 0) ftr__print(summary->write, summary->user, ", %s frozen", b);
    ftr__summary_number(b, count[2]);
    ftr__summary_number(c, bytes);
    ftr__print(summary->write, summary->user, ", %s in buffers, %s bytes together\n", b, c);
    ftr__summary_number(a, summary->multiply_adds);
    ftr__summary_number(b, summary->output_bytes);
    ftr__print(summary->write, summary->user,
               "one forward pass of the whole batch: %s multiply-adds (matrix products and convolutions), %s bytes of "
               "outputs\n",
               a, b);
}

ftr_status ftr_model_summary(const ftr_graph *graph, ftr_write_fn write, void *user) {
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    if (!write) return ftr__error(graph->context, FTR_ERROR_INVALID_ARGUMENT, "ftr_model_summary: write is NULL");
    if (graph->status != FTR_OK) return ftr__error(graph->context, graph->status, "%s", graph->message);
    ftr__summary summary = {.write = write, .user = user};
    ftr__summary_rows(&summary, graph, true);
    ftr__summary_rows(&summary, graph, false);
    ftr__summary_totals(&summary, graph);
    return FTR_OK;
}

/* ---- src/train/feed.h ---- */
/* From a source to a plan's inputs: which field feeds which input, and batches of samples written where the plan reads
 * them. */

typedef struct ftr__feed_input {
    ftr_tensor tensor;
    int32_t field; /* of the source; -1 for the batch mask */
    int64_t sample_bytes;
    unsigned char *memory; /* one batch: the plan's own memory, or a part of `staging` */
    bool staged;           /* goes through ftr_feed() */
} ftr__feed_input;

typedef struct ftr__feed {
    ftr_context *context;
    const char *caller; /* "ftr_fit", for messages */
    const ftr_source *source;
    ftr_plan *plan;
    int64_t batch;
    int32_t input_count;
    ftr__feed_input inputs[FTR_MAX_FIELDS + 1];
    ftr__feed_input *mask;                 /* among inputs; NULL if the tensors asked for do not depend on one */
    unsigned char *target[FTR_MAX_FIELDS]; /* where sample 0 of each field of the source goes */
    int64_t stride[FTR_MAX_FIELDS];        /* 0 for a field that feeds nothing */
    unsigned char *staging;
    size_t staging_bytes;
} ftr__feed;

/* Matches the inputs that `roots` depend on with the source's fields. ftr__feed_free() is right after any outcome. */
FTR_LIB ftr_status ftr__feed_match(ftr__feed *feed, const char *caller, ftr_graph *graph, const ftr_source *source,
                                   const ftr_tensor *roots, int32_t root_count);

/* Finds or makes the memory that batches are written to. Nothing is allocated after this. */
FTR_LIB ftr_status ftr__feed_bind(ftr__feed *feed, ftr_plan *plan);

/* Feeds samples first .. first + real - 1 of an order; the rest of the batch is zeros and masked. `order` is NULL for
 * the source's own. */
typedef struct ftr__feed_order {
    uint64_t seed, epoch;
} ftr__feed_order;
FTR_LIB ftr_status ftr__feed_batch(ftr__feed *feed, const ftr__feed_order *order, int64_t first, int64_t real);

FTR_LIB void ftr__feed_free(ftr__feed *feed);

/* ---- src/train/feed.c ---- */
/* Matching and writing of batches. */

/* Marks the values that `roots` depend on. Nodes refer to earlier nodes only, so one pass from the last to the first
 * does. */
static void ftr__feed_mark(const ftr_graph *graph, const ftr_tensor *roots, int32_t root_count, bool *used) {
    for (int32_t i = 0; i < root_count; i++) used[roots[i].id] = true;
    for (int32_t n = graph->node_count - 1; n >= 0; n--) {
        const ftr__node *node = &graph->nodes[n];
        bool needed = false;
        for (int32_t i = 0; i < node->out_count; i++) needed = needed || used[node->first_out + i];
        for (int32_t i = 0; needed && i < node->in_count; i++) used[node->in[i]] = true;
    }
}

static ftr_status ftr__feed_check_field(const ftr__feed *feed, const char *name, const ftr__value *value,
                                        const ftr__source_field *field) {
    const char *source = feed->source->name;
    if (value->dtype != field->dtype)
        return ftr__error(feed->context, FTR_ERROR_DTYPE, "%s: input '%s' is %s, source '%s' gives %s", feed->caller,
                          name, ftr_dtype_name(value->dtype), source, ftr_dtype_name(field->dtype));
    ftr_shape sample = {.rank = value->shape.rank - 1};
    for (int32_t i = 0; i < sample.rank; i++) sample.dim[i] = value->shape.dim[i + 1];
    char found[FTR__SHAPE_TEXT], expected[FTR__SHAPE_TEXT];
    if (!ftr_shape_equal(&sample, &field->shape))
        return ftr__error(feed->context, FTR_ERROR_SHAPE,
                          "%s: input '%s' takes samples of shape %s, source '%s' gives %s", feed->caller, name,
                          ftr__shape_text(&sample, expected), source, ftr__shape_text(&field->shape, found));
    return FTR_OK;
}

static ftr_status ftr__feed_check_batch(ftr__feed *feed, const char *name, const ftr__value *value) {
    if (value->shape.rank < 1)
        return ftr__error(feed->context, FTR_ERROR_RANK,
                          "%s: input '%s' is a scalar, expected a batch as its first dimension", feed->caller, name);
    int64_t batch = value->shape.dim[0];
    if (batch < 1)
        return ftr__error(feed->context, FTR_ERROR_SHAPE, "%s: input '%s' has a batch of %lld, expected 1 or more",
                          feed->caller, name, (long long)batch);
    if (feed->batch == 0) feed->batch = batch;
    if (batch != feed->batch)
        return ftr__error(feed->context, FTR_ERROR_SHAPE,
                          "%s: input '%s' has a batch of %lld, an earlier input has %lld", feed->caller, name,
                          (long long)batch, (long long)feed->batch);
    return FTR_OK;
}

static ftr_status ftr__feed_add(ftr__feed *feed, ftr_graph *graph, const ftr__node *node) {
    const ftr__value *value = &graph->values[node->first_out];
    ftr_status status = ftr__feed_check_batch(feed, node->name, value);
    if (status != FTR_OK) return status;
    bool is_mask = node->first_out == graph->batch_mask;
    int32_t field = is_mask ? -1 : ftr__source_find(feed->source, node->name);
    if (!is_mask && field < 0)
        return ftr__error(feed->context, FTR_ERROR_NAME, "%s: input '%s' has no field of this name in source '%s'",
                          feed->caller, node->name, feed->source->name);
    if (!is_mask) status = ftr__feed_check_field(feed, node->name, value, &feed->source->fields[field]);
    if (status != FTR_OK) return status;
    ftr__feed_input *input = &feed->inputs[feed->input_count++];
    input->tensor = (ftr_tensor){graph, node->first_out};
    input->field = field;
    input->sample_bytes = is_mask ? (int64_t)sizeof(float) : feed->source->fields[field].bytes;
    if (is_mask) feed->mask = input;
    return FTR_OK;
}

ftr_status ftr__feed_match(ftr__feed *feed, const char *caller, ftr_graph *graph, const ftr_source *source,
                           const ftr_tensor *roots, int32_t root_count) {
    memset(feed, 0, sizeof *feed);
    feed->context = graph->context;
    feed->caller = caller;
    feed->source = source;
    if (source->context != graph->context)
        return ftr__error(graph->context, FTR_ERROR_INVALID_ARGUMENT, "%s: source '%s' belongs to another context",
                          caller, source->name);
    size_t bytes = (size_t)graph->value_count * sizeof(bool);
    bool *used = ftr__allocate(graph->context, bytes);
    if (!used) return ftr__out_of_memory(graph->context, caller, bytes);
    memset(used, 0, bytes);
    ftr__feed_mark(graph, roots, root_count, used);
    ftr_status status = FTR_OK;
    for (int32_t n = 0; n < graph->node_count && status == FTR_OK; n++) {
        const ftr__node *node = &graph->nodes[n];
        if (node->op == FTR_OP_input && used[node->first_out]) status = ftr__feed_add(feed, graph, node);
    }
    ftr__release(graph->context, used, bytes);
    if (status == FTR_OK && feed->batch == 0)
        status = ftr__error(graph->context, FTR_ERROR_INVALID_ARGUMENT, "%s: the loss depends on no input", caller);
    return status;
}

/* Inputs whose memory the host cannot write, and fields that no input takes, get a part of one staging buffer. */
static size_t ftr__feed_place(ftr__feed *feed, unsigned char *staging) {
    size_t used = 0;
    for (int32_t i = 0; i < feed->input_count; i++) {
        ftr__feed_input *input = &feed->inputs[i];
        if (!input->staged) continue;
        if (staging) input->memory = staging + used;
        size_t bytes = (size_t)(input->sample_bytes * feed->batch);
        used += (bytes + FTR__ALIGNMENT - 1) / FTR__ALIGNMENT * FTR__ALIGNMENT;
    }
    for (int32_t f = 0; f < feed->source->field_count; f++) {
        feed->stride[f] = 0;
        for (int32_t i = 0; i < feed->input_count; i++)
            if (feed->inputs[i].field == f) {
                feed->target[f] = feed->inputs[i].memory;
                feed->stride[f] = feed->source->fields[f].bytes;
            }
        if (feed->stride[f] != 0) continue;
        if (staging) feed->target[f] = staging + used;
        used += ((size_t)feed->source->fields[f].bytes + FTR__ALIGNMENT - 1) / FTR__ALIGNMENT * FTR__ALIGNMENT;
    }
    return used;
}

ftr_status ftr__feed_bind(ftr__feed *feed, ftr_plan *plan) {
    feed->plan = plan;
    bool host = feed->context->backend->host_memory;
    for (int32_t i = 0; i < feed->input_count; i++) {
        ftr__feed_input *input = &feed->inputs[i];
        input->memory = host ? ftr_input_memory(plan, input->tensor) : NULL;
        input->staged = !input->memory;
    }
    if (host) ftr_error_clear(feed->context); /* an input that the plan does not use is no failure here */
    feed->staging_bytes = ftr__feed_place(feed, NULL);
    if (feed->staging_bytes == 0) return FTR_OK;
    feed->staging = ftr__allocate(feed->context, feed->staging_bytes);
    if (!feed->staging) return ftr__out_of_memory(feed->context, feed->caller, feed->staging_bytes);
    ftr__feed_place(feed, feed->staging);
    return FTR_OK;
}

static void ftr__feed_pad(ftr__feed *feed, int64_t real) {
    for (int32_t i = 0; i < feed->input_count; i++) {
        const ftr__feed_input *input = &feed->inputs[i];
        if (input == feed->mask || real == feed->batch) continue;
        memset(input->memory + real * input->sample_bytes, 0, (size_t)((feed->batch - real) * input->sample_bytes));
    }
    if (!feed->mask) return;
    float *mask = (float *)(void *)feed->mask->memory;
    for (int64_t i = 0; i < feed->batch; i++) mask[i] = i < real ? 1.0f : 0.0f;
}

ftr_status ftr__feed_batch(ftr__feed *feed, const ftr__feed_order *order, int64_t first, int64_t real) {
    void *fields[FTR_MAX_FIELDS];
    int64_t count = feed->source->count;
    for (int64_t i = 0; i < real; i++) {
        for (int32_t f = 0; f < feed->source->field_count; f++) fields[f] = feed->target[f] + i * feed->stride[f];
        int64_t index = order ? ftr_shuffled_index(order->seed, order->epoch, first + i, count) : first + i;
        ftr_status status = ftr__source_read(feed->source, index, fields);
        if (status != FTR_OK) return status;
    }
    ftr__feed_pad(feed, real);
    for (int32_t i = 0; i < feed->input_count; i++) {
        const ftr__feed_input *input = &feed->inputs[i];
        if (!input->staged) continue;
        ftr_status status =
            ftr_feed(feed->plan, input->tensor, input->memory, (size_t)(input->sample_bytes * feed->batch));
        if (status != FTR_OK) return status;
    }
    return FTR_OK;
}

void ftr__feed_free(ftr__feed *feed) {
    if (!feed->staging) return;
    ftr__release(feed->context, feed->staging, feed->staging_bytes);
    feed->staging = NULL;
    feed->staging_bytes = 0;
}

/* ---- src/train/progress.h ---- */
/* What a run tells while it goes on: a bar that is redrawn in place, or one line an epoch. */

typedef struct ftr__progress_report {
    int64_t epoch, epochs; /* from 0, and how many */
    int64_t step, steps;   /* done in this epoch, and how many it has */
    double loss;           /* mean of the epoch so far */
    int32_t metric_count;
    const char *const *names;
    const double *metrics;
    bool evaluated; /* the following two count */
    double eval_loss;
    const double *eval_metrics;
    double samples_per_second;
    double seconds;      /* of the run so far */
    double seconds_left; /* of the run, estimated */
} ftr__progress_report;

#define FTR__PROGRESS_WIDTH 79 /* a bar's longest line: it must not wrap, or it could not be redrawn */
#define FTR__PROGRESS_TEXT 512

/* "epoch 2/5 [======>     ] 12/23  loss 0.4321  accuracy 0.8812  23.1k/s  0:03 left"; metrics that do not fit
 * are left out. Returns `text`. */
FTR_LIB const char *ftr__progress_bar(const ftr__progress_report *report, char text[FTR__PROGRESS_TEXT]);

/* "epoch 2/5  loss 0.4321  accuracy 0.8812  eval loss 0.3901  eval accuracy 0.9012  23.1k samples/s  0:02". */
FTR_LIB const char *ftr__progress_line(const ftr__progress_report *report, char text[FTR__PROGRESS_TEXT]);

typedef struct ftr__progress {
    const ftr_context *context;
    ftr_progress kind; /* BAR, LINES or SILENT */
    bool drawn;        /* a bar stands in the last line */
    double drawn_at;
} ftr__progress;

FTR_LIB ftr__progress ftr__progress_begin(const ftr_context *context, ftr_progress kind);
/* Whether a bar would be drawn now: at most ten times a second. */
FTR_LIB bool ftr__progress_due(const ftr__progress *progress);
FTR_LIB void ftr__progress_step(ftr__progress *progress, const ftr__progress_report *report);
FTR_LIB void ftr__progress_epoch(ftr__progress *progress, const ftr__progress_report *report);
/* Clears a bar that is left. */
FTR_LIB void ftr__progress_end(ftr__progress *progress);

/* ---- src/train/progress.c ---- */
/* Progress texts are made by pure functions; only the last part of this file talks to the logger. */

#define FTR__PROGRESS_INTERVAL 0.1 /* seconds between two drawings of a bar */
#define FTR__PROGRESS_BAR_MIN 6
#define FTR__PROGRESS_BAR_MAX 24

/* Appends to a text of FTR__PROGRESS_TEXT bytes; what does not fit is cut. */
static void ftr__progress_append(char *text, const char *format, ...) FTR__PRINTF(2, 3);
static void ftr__progress_append(char *text, const char *format, ...) {
    size_t used = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + used, FTR__PROGRESS_TEXT - used, format, args);
    va_end(args);
}

static void ftr__progress_value(char *text, const char *prefix, const char *name, double value) {
    if (isnan(value)) { /* printf would show its sign */
        ftr__progress_append(text, "  %s%s nan", prefix, name);
        return;
    }
    double size = fabs(value);
    bool plain = size == 0.0 || (size >= 1e-3 && size < 1e5);
    ftr__progress_append(text, plain ? "  %s%s %.4f" : "  %s%s %.3e", prefix, name, value);
}

static void ftr__progress_speed(char *text, double speed, const char *unit) {
    if (!(speed < 1e15)) return; /* nothing measured yet */
    if (speed < 1e4)
        ftr__progress_append(text, "  %.0f%s", speed, unit);
    else if (speed < 1e6)
        ftr__progress_append(text, "  %.1fk%s", speed / 1e3, unit);
    else
        ftr__progress_append(text, "  %.1fM%s", speed / 1e6, unit);
}

static void ftr__progress_time(char *text, double seconds) {
    if (!(seconds < 1e12)) return;
    long long whole = seconds > 0 ? (long long)(seconds + 0.5) : 0;
    if (whole < 3600)
        ftr__progress_append(text, "  %lld:%02lld", whole / 60, whole % 60);
    else
        ftr__progress_append(text, "  %lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
}

/* Numbers are padded to the width of the total, so that lines stand below one another. */
static void ftr__progress_count(char *text, int64_t done, int64_t total) {
    char last[24];
    int width = snprintf(last, sizeof last, "%lld", (long long)total);
    ftr__progress_append(text, "%*lld/%s", width, (long long)done, last);
}

static void ftr__progress_draw(char *text, int64_t step, int64_t steps, int width) {
    int filled = steps > 0 ? (int)((double)step / (double)steps * width) : width;
    ftr__progress_append(text, " [");
    for (int i = 0; i < width; i++) ftr__progress_append(text, "%c", i < filled ? '=' : i == filled ? '>' : ' ');
    ftr__progress_append(text, "] ");
}

const char *ftr__progress_bar(const ftr__progress_report *report, char text[FTR__PROGRESS_TEXT]) {
    char count[FTR__PROGRESS_TEXT] = "", values[FTR__PROGRESS_TEXT] = "", times[FTR__PROGRESS_TEXT] = "";
    text[0] = '\0';
    ftr__progress_append(text, "epoch ");
    ftr__progress_count(text, report->epoch + 1, report->epochs);
    ftr__progress_count(count, report->step, report->steps);
    ftr__progress_speed(times, report->samples_per_second, "/s");
    ftr__progress_time(times, report->seconds_left);
    if (report->seconds_left < 1e12) ftr__progress_append(times, " left");
    size_t fixed = strlen(text) + strlen(" [] ") + strlen(count) + strlen(times);
    ftr__progress_value(values, "", "loss", report->loss);
    for (int32_t i = 0; i < report->metric_count; i++) {
        size_t before = strlen(values);
        ftr__progress_value(values, "", report->names[i], report->metrics[i]);
        if (fixed + strlen(values) + FTR__PROGRESS_BAR_MIN <= FTR__PROGRESS_WIDTH) continue;
        values[before] = '\0';
        break;
    }
    int room = FTR__PROGRESS_WIDTH - (int)(fixed + strlen(values));
    int width = room > FTR__PROGRESS_BAR_MAX ? FTR__PROGRESS_BAR_MAX : room;
    ftr__progress_draw(text, report->step, report->steps,
                       width < FTR__PROGRESS_BAR_MIN ? FTR__PROGRESS_BAR_MIN : width);
    ftr__progress_append(text, "%s%s%s", count, values, times);
    if (strlen(text) > FTR__PROGRESS_WIDTH) text[FTR__PROGRESS_WIDTH] = '\0';
    return text;
}

const char *ftr__progress_line(const ftr__progress_report *report, char text[FTR__PROGRESS_TEXT]) {
    text[0] = '\0';
    ftr__progress_append(text, "epoch ");
    ftr__progress_count(text, report->epoch + 1, report->epochs);
    ftr__progress_value(text, "", "loss", report->loss);
    for (int32_t i = 0; i < report->metric_count; i++)
        ftr__progress_value(text, "", report->names[i], report->metrics[i]);
    if (report->evaluated) ftr__progress_value(text, "eval ", "loss", report->eval_loss);
    for (int32_t i = 0; report->evaluated && i < report->metric_count; i++)
        ftr__progress_value(text, "eval ", report->names[i], report->eval_metrics[i]);
    ftr__progress_speed(text, report->samples_per_second, " samples/s");
    ftr__progress_time(text, report->seconds);
    return text;
}

ftr__progress ftr__progress_begin(const ftr_context *context, ftr_progress kind) {
    if (kind == FTR_PROGRESS_AUTO) kind = context->log_to_terminal ? FTR_PROGRESS_BAR : FTR_PROGRESS_LINES;
    return (ftr__progress){.context = context, .kind = kind, .drawn_at = -1.0};
}

bool ftr__progress_due(const ftr__progress *progress) {
    if (progress->kind != FTR_PROGRESS_BAR) return false;
    return ftr_time_seconds() - progress->drawn_at >= FTR__PROGRESS_INTERVAL;
}

void ftr__progress_step(ftr__progress *progress, const ftr__progress_report *report) {
    char text[FTR__PROGRESS_TEXT];
    if (!ftr__progress_due(progress)) return;
    ftr__log_transient(progress->context, "%s", ftr__progress_bar(report, text));
    progress->drawn = true;
    progress->drawn_at = ftr_time_seconds();
}

void ftr__progress_epoch(ftr__progress *progress, const ftr__progress_report *report) {
    char text[FTR__PROGRESS_TEXT];
    if (progress->kind == FTR_PROGRESS_SILENT) return;
    ftr__log(progress->context, FTR_LOG_INFO, "%s", ftr__progress_line(report, text));
    progress->drawn = false;
}

void ftr__progress_end(ftr__progress *progress) {
    if (progress->drawn) ftr__log_transient(progress->context, "%s", "");
    progress->drawn = false;
}

/* ---- src/train/fit.c ---- */
/* The training loop. All memory is taken before the first step; from then on only the source, the plan and the logger
 * are called. */

#define FTR__TRAIN_COOKIE 0x7472616eu

typedef struct ftr__fit_totals {
    double loss, metrics[FTR_MAX_METRICS]; /* sums over samples */
    int64_t samples;
} ftr__fit_totals;

typedef struct ftr__fit {
    ftr_context *context;
    ftr_graph *graph;
    const ftr_train_desc *desc;
    const char *caller;
    const char *names[FTR_MAX_METRICS];
    ftr_plan *train_plan, *eval_plan;
    ftr__feed train_feed, eval_feed;
    int64_t steps_per_epoch, steps_planned;
    int64_t epoch, steps;
    ftr__fit_totals totals;      /* of the current epoch's training steps */
    double began, epoch_seconds; /* epoch_seconds: training steps alone */
    double train_seconds;        /* of epochs before this one */
    int64_t train_samples;
    double eval_loss, eval_metrics[FTR_MAX_METRICS]; /* of the last evaluation; NaN before it */
    ftr__progress progress;
    bool stop, warned;
    double best_value;
    int64_t best_epoch, epochs_done;
    int32_t epochs_without;
    unsigned char *best; /* copy of all variables; NULL if it is not wanted */
    size_t best_bytes;
} ftr__fit;

ftr_train_desc ftr_train_defaults(void) {
    ftr_train_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.cookie = FTR__TRAIN_COOKIE;
    desc.epochs = 1;
    return desc;
}

/* --------------------------------------------------------------------------------------------------- description -- */

static ftr_status ftr__fit_check_tensor(const ftr__fit *fit, const char *what, ftr_tensor tensor) {
    if (!ftr_is_valid(tensor))
        return ftr__error(fit->context, FTR_ERROR_INVALID_TENSOR, "%s: %s is a null tensor", fit->caller, what);
    if (tensor.graph != fit->graph)
        return ftr__error(fit->context, FTR_ERROR_INVALID_TENSOR, "%s: %s belongs to another graph", fit->caller, what);
    const ftr__value *value = ftr__value_of(tensor);
    char text[FTR__SHAPE_TEXT];
    if (value->shape.rank != 0)
        return ftr__error(fit->context, FTR_ERROR_SHAPE, "%s: %s has shape %s, expected a scalar", fit->caller, what,
                          ftr__shape_text(&value->shape, text));
    if (value->dtype != FTR_F32 && value->dtype != FTR_F64)
        return ftr__error(fit->context, FTR_ERROR_DTYPE, "%s: %s is %s, expected f32", fit->caller, what,
                          ftr_dtype_name(value->dtype));
    return FTR_OK;
}

static ftr_status ftr__fit_check_metrics(ftr__fit *fit) {
    const ftr_train_desc *desc = fit->desc;
    if (desc->metric_count < 0 || desc->metric_count > FTR_MAX_METRICS)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT, "%s: metric_count is %d, expected 0 to %d",
                          fit->caller, (int)desc->metric_count, FTR_MAX_METRICS);
    for (int32_t i = 0; i < desc->metric_count; i++) {
        const char *name = desc->metrics[i].name;
        if (!name || !*name)
            return ftr__error(fit->context, FTR_ERROR_NAME, "%s: metric %d has no name", fit->caller, (int)i);
        if (strcmp(name, "loss") == 0)
            return ftr__error(fit->context, FTR_ERROR_NAME,
                              "%s: metric %d is named 'loss', which is the loss's own name", fit->caller, (int)i);
        for (int32_t k = 0; k < i; k++)
            if (strcmp(desc->metrics[k].name, name) == 0)
                return ftr__error(fit->context, FTR_ERROR_NAME, "%s: metrics %d and %d are both named '%s'",
                                  fit->caller, (int)k, (int)i, name);
        char what[FTR__MESSAGE_SIZE / 2];
        snprintf(what, sizeof what, "metric '%s'", name);
        ftr_status status = ftr__fit_check_tensor(fit, what, desc->metrics[i].value);
        if (status != FTR_OK) return status;
        fit->names[i] = name;
    }
    return FTR_OK;
}

static ftr_status ftr__fit_check_loop(const ftr__fit *fit) {
    const ftr_train_desc *desc = fit->desc;
    if (!desc->train)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: train is NULL, expected a source");
    if (desc->epochs < 1)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT, "ftr_fit: epochs is %lld, expected 1 or more",
                          (long long)desc->epochs);
    if (desc->max_steps < 0)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: max_steps is %lld, expected 0 (no limit) or more", (long long)desc->max_steps);
    if (desc->last_batch != FTR_LAST_BATCH_DROP && desc->last_batch != FTR_LAST_BATCH_PAD)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: last_batch is %d, expected FTR_LAST_BATCH_DROP or FTR_LAST_BATCH_PAD",
                          (int)desc->last_batch);
    if ((int)desc->progress < (int)FTR_PROGRESS_AUTO || desc->progress > FTR_PROGRESS_SILENT)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: progress is %d, expected one of ftr_progress", (int)desc->progress);
    if (desc->optimizer.kind == FTR_OPTIMIZER_NONE)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: optimizer is missing, expected ftr_sgd() or "
                          "ftr_adamw()");
    return FTR_OK;
}

static ftr_status ftr__fit_check_early_stop(const ftr__fit *fit) {
    const ftr_train_desc *desc = fit->desc;
    const char *metric = desc->early_stop.metric;
    if (!metric) return FTR_OK;
    bool known = strcmp(metric, "loss") == 0;
    for (int32_t i = 0; i < desc->metric_count; i++) known = known || strcmp(metric, fit->names[i]) == 0;
    if (!known)
        return ftr__error(fit->context, FTR_ERROR_NAME,
                          "ftr_fit: early_stop.metric is '%s', expected 'loss' or the name of a metric", metric);
    if (desc->early_stop.patience < 1)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: early_stop.patience is %d, expected 1 or more", (int)desc->early_stop.patience);
    if (!(desc->early_stop.min_delta >= 0.0))
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_fit: early_stop.min_delta is %g, expected 0 or more", desc->early_stop.min_delta);
    return FTR_OK;
}

/* What ftr_fit() and ftr_evaluate() both look at. */
static ftr_status ftr__fit_begin(ftr__fit *fit, const char *caller, ftr_graph *graph, const ftr_train_desc *desc) {
    memset(fit, 0, sizeof *fit);
    fit->context = graph->context;
    fit->graph = graph;
    fit->desc = desc;
    fit->caller = caller;
    fit->best_epoch = -1;
    fit->eval_loss = NAN;
    for (int32_t i = 0; i < FTR_MAX_METRICS; i++) fit->eval_metrics[i] = NAN;
    if (!desc) return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT, "%s: desc is NULL", caller);
    if (desc->cookie != FTR__TRAIN_COOKIE)
        return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT, "%s: desc was not made by ftr_train_defaults()",
                          caller);
    if (graph->status != FTR_OK) return ftr__error(fit->context, graph->status, "%s", graph->message);
    ftr_status status = ftr__fit_check_tensor(fit, "loss", desc->loss);
    return status == FTR_OK ? ftr__fit_check_metrics(fit) : status;
}

/* --------------------------------------------------------------------------------------------------- preparation -- */

/* Loss and metrics. Returns how many. */
static int32_t ftr__fit_outputs(const ftr__fit *fit, ftr_tensor outputs[FTR_MAX_METRICS + 1]) {
    outputs[0] = fit->desc->loss;
    for (int32_t i = 0; i < fit->desc->metric_count; i++) outputs[i + 1] = fit->desc->metrics[i].value;
    return fit->desc->metric_count + 1;
}

static ftr_status ftr__fit_match(ftr__fit *fit, ftr__feed *feed, const ftr_source *source) {
    ftr_tensor outputs[FTR_MAX_METRICS + 1];
    int32_t count = ftr__fit_outputs(fit, outputs);
    return ftr__feed_match(feed, fit->caller, fit->graph, source, outputs, count);
}

static ftr_status ftr__fit_match_eval(ftr__fit *fit) {
    const ftr_source *source = fit->desc->eval;
    ftr_status status = ftr__fit_match(fit, &fit->eval_feed, source);
    if (status != FTR_OK) return status;
    int64_t batch = fit->eval_feed.batch, rest = source->count % batch;
    if (rest == 0 || fit->eval_feed.mask) return FTR_OK;
    return ftr__error(fit->context, FTR_ERROR_INVALID_ARGUMENT,
                      "%s: evaluation source '%s' has %lld samples, which leaves a last batch of %lld of %lld: declare "
                      "ftr_batch_mask() before the layers, or evaluate on a multiple of the batch",
                      fit->caller, source->name, (long long)source->count, (long long)rest, (long long)batch);
}

static ftr_status ftr__fit_match_train(ftr__fit *fit) {
    const ftr_source *source = fit->desc->train;
    ftr_status status = ftr__fit_match(fit, &fit->train_feed, source);
    if (status != FTR_OK) return status;
    int64_t batch = fit->train_feed.batch, full = source->count / batch;
    bool pad = fit->desc->last_batch == FTR_LAST_BATCH_PAD && source->count % batch != 0;
    if (pad && !fit->train_feed.mask)
        return ftr__error(
            fit->context, FTR_ERROR_INVALID_ARGUMENT,
            "ftr_fit: last_batch is FTR_LAST_BATCH_PAD and source '%s' leaves a last batch of %lld of %lld, "
            "but the loss uses no ftr_batch_mask(): declare one before the layers",
            source->name, (long long)(source->count % batch), (long long)batch);
    if (full == 0 && !pad)
        return ftr__error(fit->context, FTR_ERROR_DATA,
                          "ftr_fit: source '%s' has %lld samples, fewer than one batch of %lld", source->name,
                          (long long)source->count, (long long)batch);
    fit->steps_per_epoch = full + (pad ? 1 : 0);
    bool overflow = fit->desc->epochs > INT64_MAX / fit->steps_per_epoch;
    fit->steps_planned = overflow ? INT64_MAX : fit->desc->epochs * fit->steps_per_epoch;
    if (fit->desc->max_steps > 0 && fit->desc->max_steps < fit->steps_planned)
        fit->steps_planned = fit->desc->max_steps;
    return FTR_OK;
}

static ftr_status ftr__fit_compile(ftr__fit *fit, ftr_mode mode, ftr__feed *feed, ftr_plan **plan) {
    ftr_tensor outputs[FTR_MAX_METRICS + 1];
    ftr_compile_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.mode = mode;
    desc.loss = fit->desc->loss;
    desc.output_count = ftr__fit_outputs(fit, outputs);
    desc.outputs = outputs;
    desc.optimizer = mode == FTR_MODE_TRAIN ? &fit->desc->optimizer : NULL;
    ftr_status status = ftr_compile(fit->graph, &desc, plan);
    return status == FTR_OK ? ftr__feed_bind(feed, *plan) : status;
}

static ftr_status ftr__fit_prepare(ftr__fit *fit) {
    ftr_status status = ftr__fit_check_loop(fit);
    if (status == FTR_OK) status = ftr__fit_check_early_stop(fit);
    if (status == FTR_OK) status = ftr__fit_match_train(fit);
    if (status == FTR_OK && fit->desc->eval) status = ftr__fit_match_eval(fit);
    if (status == FTR_OK) status = ftr__fit_compile(fit, FTR_MODE_TRAIN, &fit->train_feed, &fit->train_plan);
    if (status == FTR_OK && fit->desc->eval)
        status = ftr__fit_compile(fit, FTR_MODE_EVAL, &fit->eval_feed, &fit->eval_plan);
    if (status != FTR_OK || !fit->desc->early_stop.metric || !fit->desc->early_stop.restore_best) return status;
    fit->best_bytes = fit->graph->variable_bytes;
    fit->best = ftr__allocate(fit->context, fit->best_bytes);
    return fit->best ? FTR_OK : ftr__out_of_memory(fit->context, "ftr_fit: best parameters", fit->best_bytes);
}

static void ftr__fit_free(ftr__fit *fit) {
    if (fit->best) ftr__release(fit->context, fit->best, fit->best_bytes);
    ftr__feed_free(&fit->train_feed);
    ftr__feed_free(&fit->eval_feed);
    ftr_plan_destroy(fit->eval_plan);
    ftr_plan_destroy(fit->train_plan);
}

/* --------------------------------------------------------------------------------------------------------- steps -- */

static void ftr__fit_add(ftr__fit_totals *totals, double loss, const double *metrics, int32_t count, int64_t samples) {
    totals->loss += loss * (double)samples;
    for (int32_t i = 0; i < count; i++) totals->metrics[i] += metrics[i] * (double)samples;
    totals->samples += samples;
}

/* NaN as long as there are no samples. */
static double ftr__fit_means(const ftr__fit_totals *totals, double means[FTR_MAX_METRICS]) {
    double samples = totals->samples > 0 ? (double)totals->samples : NAN;
    for (int32_t i = 0; i < FTR_MAX_METRICS; i++) means[i] = totals->metrics[i] / samples;
    return totals->loss / samples;
}

static ftr_status ftr__fit_read_scalar(ftr_plan *plan, ftr_tensor tensor, double *result) {
    float single = 0.0f;
    bool is_double = ftr_dtype_of(tensor) == FTR_F64;
    ftr_status status =
        is_double ? ftr_read(plan, tensor, result, sizeof *result) : ftr_read(plan, tensor, &single, sizeof single);
    if (!is_double) *result = (double)single;
    return status;
}

/* Feeds a batch, runs the plan, reads loss and metrics. */
static ftr_status ftr__fit_run(ftr__fit *fit, ftr__feed *feed, const ftr__feed_order *order, int64_t first,
                               int64_t real, double *loss, double metrics[FTR_MAX_METRICS]) {
    ftr_step_info info;
    ftr_status status = ftr__feed_batch(feed, order, first, real);
    if (status == FTR_OK) status = ftr_step(feed->plan, &info);
    if (status != FTR_OK) return status;
    *loss = info.loss;
    for (int32_t i = 0; i < fit->desc->metric_count && status == FTR_OK; i++)
        status = ftr__fit_read_scalar(feed->plan, fit->desc->metrics[i].value, &metrics[i]);
    return status;
}

static ftr_status ftr__fit_evaluate(ftr__fit *fit) {
    ftr__fit_totals totals = {0};
    ftr__feed *feed = &fit->eval_feed;
    for (int64_t first = 0; first < feed->source->count; first += feed->batch) {
        int64_t left = feed->source->count - first, real = left < feed->batch ? left : feed->batch;
        double loss = NAN, metrics[FTR_MAX_METRICS];
        ftr_status status = ftr__fit_run(fit, feed, NULL, first, real, &loss, metrics);
        if (status != FTR_OK) return status;
        ftr__fit_add(&totals, loss, metrics, fit->desc->metric_count, real);
    }
    fit->eval_loss = ftr__fit_means(&totals, fit->eval_metrics);
    return FTR_OK;
}

static double ftr__fit_speed(const ftr__fit *fit) {
    return fit->epoch_seconds > 0.0 ? (double)fit->totals.samples / fit->epoch_seconds : NAN;
}

/* Tells the callback; it may ask for the run to stop. */
static void ftr__fit_tell(ftr__fit *fit, bool epoch_ended, double loss, const double *metrics) {
    if (!fit->desc->on_event) return;
    ftr_train_event event = {
        .kind = epoch_ended ? FTR_EVENT_EPOCH : FTR_EVENT_STEP,
        .epoch = fit->epoch,
        .step = fit->steps,
        .steps_per_epoch = fit->steps_per_epoch,
        .loss = loss,
        .eval_loss = fit->eval_loss,
        .metric_count = fit->desc->metric_count,
        .metric_names = fit->names,
        .metrics = metrics,
        .eval_metrics = fit->eval_metrics,
        .samples_per_second = ftr__fit_speed(fit),
        .plan = fit->train_plan,
    };
    if (fit->desc->on_event(fit->desc->on_event_user, &event)) fit->stop = true;
}

/* `means` has the epoch's metrics so far. */
static ftr__progress_report ftr__fit_report(const ftr__fit *fit, int64_t step, double loss, const double *means) {
    double seconds = ftr_time_seconds() - fit->began;
    return (ftr__progress_report){
        .epoch = fit->epoch,
        .epochs = fit->desc->epochs,
        .step = step,
        .steps = fit->steps_per_epoch,
        .loss = loss,
        .metric_count = fit->desc->metric_count,
        .names = fit->names,
        .metrics = means,
        .evaluated = fit->desc->eval != NULL,
        .eval_loss = fit->eval_loss,
        .eval_metrics = fit->eval_metrics,
        .samples_per_second = ftr__fit_speed(fit),
        .seconds = seconds,
        .seconds_left = seconds / (double)fit->steps * (double)(fit->steps_planned - fit->steps),
    };
}

/* Once a run: whoever reads the log should know where it began. */
static void ftr__fit_warn(ftr__fit *fit, double loss) {
    if (fit->warned || isfinite(loss)) return;
    ftr__log(fit->context, FTR_LOG_WARNING, "ftr_fit: the loss is %s at step %lld (epoch %lld); training goes on",
             isnan(loss) ? "NaN" : "infinite", (long long)fit->steps, (long long)fit->epoch + 1);
    fit->warned = true;
}

static ftr_status ftr__fit_step(ftr__fit *fit, int64_t step) {
    ftr__feed *feed = &fit->train_feed;
    ftr__feed_order order = {fit->context->seed, (uint64_t)fit->epoch};
    int64_t first = step * feed->batch, left = feed->source->count - first;
    int64_t real = left < feed->batch ? left : feed->batch;
    double loss = NAN, metrics[FTR_MAX_METRICS], means[FTR_MAX_METRICS];
    double before = ftr_time_seconds();
    ftr_status status = ftr__fit_run(fit, feed, fit->desc->no_shuffle ? NULL : &order, first, real, &loss, metrics);
    if (status != FTR_OK) return status;
    fit->epoch_seconds += ftr_time_seconds() - before;
    fit->steps++;
    ftr__fit_add(&fit->totals, loss, metrics, fit->desc->metric_count, real);
    ftr__fit_warn(fit, loss);
    if (ftr__progress_due(&fit->progress)) {
        double mean = ftr__fit_means(&fit->totals, means);
        ftr__progress_report report = ftr__fit_report(fit, step + 1, mean, means);
        ftr__progress_step(&fit->progress, &report);
    }
    ftr__fit_tell(fit, false, loss, metrics);
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------ early stopping -- */

/* Copies all variables out to `best`, or back. They lie one after another, each at its offset in the graph's memory. */
static ftr_status ftr__fit_copy_best(ftr__fit *fit, bool back) {
    for (int32_t i = 0; i < fit->graph->variable_count; i++) {
        const ftr__variable *variable = &fit->graph->variables[i];
        ftr_tensor tensor = {fit->graph, variable->value};
        unsigned char *copy = fit->best + variable->offset;
        ftr_status status =
            back ? ftr_variable_write(tensor, copy, variable->bytes) : ftr_variable_read(tensor, copy, variable->bytes);
        if (status != FTR_OK) return status;
    }
    return FTR_OK;
}

static ftr_status ftr__fit_early_stop(ftr__fit *fit, double loss, const double *metrics) {
    const ftr_train_desc *desc = fit->desc;
    if (!desc->early_stop.metric) return FTR_OK;
    double value = desc->eval ? fit->eval_loss : loss;
    for (int32_t i = 0; i < desc->metric_count; i++)
        if (strcmp(desc->early_stop.metric, fit->names[i]) == 0) value = desc->eval ? fit->eval_metrics[i] : metrics[i];
    double gain = desc->early_stop.maximize ? value - fit->best_value : fit->best_value - value;
    bool improved = fit->best_epoch < 0 ? !isnan(value) : gain > desc->early_stop.min_delta;
    if (improved) {
        fit->best_value = value;
        fit->best_epoch = fit->epoch;
        fit->epochs_without = 0;
        return fit->best ? ftr__fit_copy_best(fit, false) : FTR_OK;
    }
    if (++fit->epochs_without >= desc->early_stop.patience) fit->stop = true;
    return FTR_OK;
}

/* ---------------------------------------------------------------------------------------------------------- loop -- */

static ftr_status ftr__fit_epoch(ftr__fit *fit) {
    memset(&fit->totals, 0, sizeof fit->totals);
    fit->epoch_seconds = 0.0;
    ftr_status status = FTR_OK;
    int64_t step = 0;
    while (step < fit->steps_per_epoch && fit->steps < fit->steps_planned && !fit->stop) {
        status = ftr__fit_step(fit, step++);
        if (status != FTR_OK) return status;
    }
    fit->train_samples += fit->totals.samples;
    fit->train_seconds += fit->epoch_seconds;
    if (step == fit->steps_per_epoch) fit->epochs_done++;
    if (fit->stop && step < fit->steps_per_epoch) return FTR_OK; /* the callback wants no more of this epoch */
    if (fit->desc->eval) status = ftr__fit_evaluate(fit);
    if (status != FTR_OK) return status;
    double means[FTR_MAX_METRICS], loss = ftr__fit_means(&fit->totals, means);
    ftr__progress_report report = ftr__fit_report(fit, step, loss, means);
    ftr__progress_epoch(&fit->progress, &report);
    status = ftr__fit_early_stop(fit, loss, means);
    if (status == FTR_OK) ftr__fit_tell(fit, true, loss, means);
    return status;
}

static ftr_status ftr__fit_loop(ftr__fit *fit) {
    fit->progress = ftr__progress_begin(fit->context, fit->desc->progress);
    fit->began = ftr_time_seconds();
    ftr_status status = FTR_OK;
    for (fit->epoch = 0; fit->steps < fit->steps_planned && !fit->stop && status == FTR_OK; fit->epoch++)
        status = ftr__fit_epoch(fit);
    ftr__progress_end(&fit->progress);
    if (status == FTR_OK && fit->best && fit->best_epoch >= 0) status = ftr__fit_copy_best(fit, true);
    return status;
}

static void ftr__fit_result(const ftr__fit *fit, ftr_train_result *result) {
    result->epochs = fit->epochs_done;
    result->steps = fit->steps;
    result->loss = ftr__fit_means(&fit->totals, result->metrics);
    result->eval_loss = fit->eval_loss;
    memcpy(result->eval_metrics, fit->eval_metrics, sizeof fit->eval_metrics);
    result->best_epoch = fit->best_epoch;
    result->stopped_early = fit->stop;
    result->seconds = fit->began > 0.0 ? ftr_time_seconds() - fit->began : 0.0;
    result->samples_per_second = fit->train_seconds > 0.0 ? (double)fit->train_samples / fit->train_seconds : NAN;
    if (fit->train_plan) result->memory = ftr_plan_memory(fit->train_plan);
}

ftr_status ftr_fit(ftr_graph *graph, const ftr_train_desc *desc, ftr_train_result *result) {
    if (result) memset(result, 0, sizeof *result);
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    ftr__fit fit;
    ftr_status status = ftr__fit_begin(&fit, "ftr_fit", graph, desc);
    if (status == FTR_OK) status = ftr__fit_prepare(&fit);
    if (status == FTR_OK) status = ftr__fit_loop(&fit);
    if (result) ftr__fit_result(&fit, result);
    ftr__fit_free(&fit);
    return status;
}

ftr_status ftr_evaluate(ftr_graph *graph, const ftr_train_desc *desc, ftr_train_result *result) {
    if (result) memset(result, 0, sizeof *result);
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    ftr__fit fit;
    ftr_status status = ftr__fit_begin(&fit, "ftr_evaluate", graph, desc);
    if (status == FTR_OK && !desc->eval)
        status = ftr__error(fit.context, FTR_ERROR_INVALID_ARGUMENT, "ftr_evaluate: eval is NULL, expected a source");
    if (status == FTR_OK) status = ftr__fit_match_eval(&fit);
    if (status == FTR_OK) status = ftr__fit_compile(&fit, FTR_MODE_EVAL, &fit.eval_feed, &fit.eval_plan);
    fit.began = ftr_time_seconds();
    if (status == FTR_OK) status = ftr__fit_evaluate(&fit);
    if (result) ftr__fit_result(&fit, result);
    ftr__fit_free(&fit);
    return status;
}

/* ---- src/models/blocks.h ---- */
/* What several models are built of. Written, as all of models/, on the public API alone. */

/* The graph of an f32 image [n, h, w, c] of at least min_size x min_size pixels and one channel; NULL with the mistake
 * recorded under the model's name, or if the graph has failed before. */
FTR_LIB ftr_graph *ftr__model_image(const char *model, ftr_tensor image, int64_t min_size);

/* Whether a probability is one, NaN being none; otherwise the mistake is recorded with the option's name. */
FTR_LIB bool ftr__model_probability(ftr_graph *graph, const char *model, const char *option, double p);

/* `asked`, or `otherwise` where it is 0; 0 with the mistake recorded if it is negative. */
FTR_LIB int64_t ftr__model_classes(ftr_graph *graph, const char *model, int64_t asked, int64_t otherwise);

/* ftr_dropout(), or x itself where p is 0. */
FTR_LIB ftr_tensor ftr__model_dropout(ftr_tensor x, double p);

/* ---- src/models/blocks.c ---- */

static ftr_graph *ftr__model_image_error(ftr_graph *graph, ftr_status status, const char *model, const char *sentence) {
    (void)ftr_graph_fail(graph, status, model, NULL, "%s", sentence);
    return NULL;
}

ftr_graph *ftr__model_image(const char *model, ftr_tensor image, int64_t min_size) {
    ftr_graph *graph = image.graph;
    if (ftr_graph_status(graph) != FTR_OK) return NULL;
    if (!ftr_is_valid(image))
        return ftr__model_image_error(graph, FTR_ERROR_INVALID_TENSOR, model, "the image is a null tensor");
    const ftr_shape shape = ftr_shape_of(image);
    if (shape.rank != 4)
        (void)ftr_graph_fail(graph, FTR_ERROR_RANK, model, NULL, "the image has rank %d, expected 4 (n, h, w, c)",
                             (int)shape.rank);
    else if (ftr_dtype_of(image) != FTR_F32 && ftr_dtype_of(image) != FTR_F64)
        (void)ftr_graph_fail(graph, FTR_ERROR_DTYPE, model, NULL, "the image is %s, expected f32 or f64",
                             ftr_dtype_name(ftr_dtype_of(image)));
    else if (shape.dim[1] < min_size || shape.dim[2] < min_size)
        (void)ftr_graph_fail(graph, FTR_ERROR_SHAPE, model, NULL,
                             "the image has %lld x %lld pixels, expected %lld x %lld or more", (long long)shape.dim[1],
                             (long long)shape.dim[2], (long long)min_size, (long long)min_size);
    else if (shape.dim[3] < 1)
        return ftr__model_image_error(graph, FTR_ERROR_SHAPE, model, "the image has 0 channels, expected 1 or more");
    return ftr_graph_status(graph) == FTR_OK ? graph : NULL;
}

bool ftr__model_probability(ftr_graph *graph, const char *model, const char *option, double p) {
    if (p >= 0.0 && p <= 1.0) return true;
    (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, model, NULL, "%s is %g, expected 0 to 1", option, p);
    return false;
}

int64_t ftr__model_classes(ftr_graph *graph, const char *model, int64_t asked, int64_t otherwise) {
    if (asked >= 0) return asked == 0 ? otherwise : asked;
    (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, model, NULL, "classes is %lld, expected 1 or more",
                         (long long)asked);
    return 0;
}

ftr_tensor ftr__model_dropout(ftr_tensor x, double p) { return p == 0.0 ? x : ftr_dropout(x, p); }

/* ---- src/models/mlp.c ---- */
/* Multi-layer perceptron, and the small network of PyTorch's MNIST example. */

#define FTR__COOKIE_MNIST_CNN 0x4d4e4953u

/* ---- multi-layer perceptron */

static bool ftr__mlp_is_valid(ftr_graph *graph, ftr_tensor x, const ftr_mlp_desc *d) {
    if (!ftr_is_valid(x))
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_TENSOR, "mlp", NULL, "the input is a null tensor");
    else if (d->hidden_count < 0)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "mlp", NULL, "hidden_count is %d, expected 0 or more",
                             (int)d->hidden_count);
    else if (d->hidden_count > 0 && d->hidden == NULL)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "mlp", NULL, "hidden is NULL, expected %d sizes",
                             (int)d->hidden_count);
    else
        return ftr__model_probability(graph, "mlp", "dropout", d->dropout);
    return false;
}

/* Linear layer number `index` of the sequence. */
static ftr_tensor ftr__mlp_layer(ftr_tensor x, int32_t index, int64_t size) {
    char name[16];
    (void)snprintf(name, sizeof name, "%d", (int)index);
    return ftr_linear(x, name, size, NULL);
}

ftr_tensor ftr_mlp(ftr_tensor x, const ftr_mlp_desc *desc) {
    const ftr_tensor none = {NULL, 0};
    const ftr_mlp_desc defaults = {.hidden = NULL}, *d = desc != NULL ? desc : &defaults;
    if (ftr_graph_status(x.graph) != FTR_OK || !ftr__mlp_is_valid(x.graph, x, d)) return none;
    const int64_t classes = ftr__model_classes(x.graph, "mlp", d->classes, 10);
    if (classes == 0) return none;
    const int32_t members = d->dropout > 0.0 ? 3 : 2; /* of the sequence, each hidden layer */
    for (int32_t i = 0; i < d->hidden_count; i++) {
        x = ftr__mlp_layer(x, i * members, d->hidden[i]);
        x = d->activation != NULL ? d->activation(x) : ftr_relu(x);
        x = ftr__model_dropout(x, d->dropout);
    }
    return d->features_only ? x : ftr__mlp_layer(x, d->hidden_count * members, classes);
}

/* ---- MNIST */

ftr_mnist_cnn_desc ftr_mnist_cnn_defaults(void) {
    return (ftr_mnist_cnn_desc){.cookie = FTR__COOKIE_MNIST_CNN, .classes = 10, .dropout1 = 0.25, .dropout2 = 0.5};
}

ftr_tensor ftr_mnist_cnn(ftr_tensor image, const ftr_mnist_cnn_desc *desc) {
    const ftr_tensor none = {NULL, 0};
    ftr_graph *graph = ftr__model_image("mnist_cnn", image, 6);
    if (graph == NULL) return none;
    const ftr_mnist_cnn_desc d = desc != NULL ? *desc : ftr_mnist_cnn_defaults();
    if (d.cookie != FTR__COOKIE_MNIST_CNN)
        return ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "mnist_cnn", NULL,
                              "desc was not made by ftr_mnist_cnn_defaults()");
    const int64_t classes = ftr__model_classes(graph, "mnist_cnn", d.classes, 10);
    if (classes == 0 || !ftr__model_probability(graph, "mnist_cnn", "dropout1", d.dropout1) ||
        !ftr__model_probability(graph, "mnist_cnn", "dropout2", d.dropout2))
        return none;
    ftr_tensor x = ftr_relu(ftr_conv2d(image, "conv1", 32, 3, NULL));
    x = ftr_relu(ftr_conv2d(x, "conv2", 64, 3, NULL));
    x = ftr__model_dropout(ftr_max_pool2d(x, 2, 2, NULL), d.dropout1);
    x = ftr_flatten(ftr_transpose(x, FTR_AXES(0, 3, 1, 2)), 1); /* as PyTorch flattens */
    x = ftr_relu(ftr_linear(x, "fc1", 128, NULL));
    return d.features_only ? x : ftr_linear(ftr__model_dropout(x, d.dropout2), "fc2", classes, NULL);
}

/* ---- src/models/transformer.h ---- */
/* What the transformers share. */

typedef struct ftr__transformer_size {
    int64_t width, mlp_width; /* mlp_width 0: 4 * width */
    int32_t layers, heads;
} ftr__transformer_size;

/* Whether the sizes are possible; otherwise the mistake is recorded under the model's name. */
FTR_LIB bool ftr__transformer_is_valid(ftr_graph *graph, const char *model, ftr__transformer_size size);

/* Attention of n sequences of length t with themselves. x is [n * t, 3 * width] or [n, t, 3 * width]: queries, keys and
 * values, one after another. The result is [n, t, heads, width / heads]. */
FTR_LIB ftr_tensor ftr__transformer_attention(ftr_tensor x, int64_t n, int64_t t, int32_t heads,
                                              const ftr_attention_desc *desc);

/* ---- src/models/transformer.c ---- */

bool ftr__transformer_is_valid(ftr_graph *graph, const char *model, ftr__transformer_size size) {
    if (size.layers < 1)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, model, NULL, "layers is %d, expected 1 or more",
                             (int)size.layers);
    else if (size.heads < 1)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, model, NULL, "heads is %d, expected 1 or more",
                             (int)size.heads);
    else if (size.width < 1 || size.width > INT32_MAX || size.width % size.heads != 0)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, model, NULL,
                             "width is %lld, expected a multiple of heads, %d, from %d to %d", (long long)size.width,
                             (int)size.heads, (int)size.heads, INT32_MAX);
    else if (size.mlp_width < 0)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, model, NULL, "mlp_width is %lld, expected 0 or more",
                             (long long)size.mlp_width);
    else
        return true;
    return false;
}

ftr_tensor ftr__transformer_attention(ftr_tensor x, int64_t n, int64_t t, int32_t heads,
                                      const ftr_attention_desc *desc) {
    const ftr_shape shape = ftr_shape_of(x);
    if (shape.rank < 1) return (ftr_tensor){NULL, 0};
    const int64_t width = shape.dim[shape.rank - 1] / 3;
    ftr_tensor part[3];
    ftr_split(x, -1, NULL, 3, part);
    for (int i = 0; i < 3; i++) part[i] = ftr_reshape(part[i], FTR_SHAPE(n, t, heads, width / heads));
    return ftr_attention(part[0], part[1], part[2], desc);
}

/* ---- src/models/vit.c ---- */
/* Vision transformer. */

#define FTR__COOKIE_VIT 0x56495431u

ftr_vit_desc ftr_vit_defaults(ftr_vit_size size) {
    static const int32_t widths[] = {192, 384, 768};
    if (size < FTR_VIT_TINY || size > FTR_VIT_BASE) return (ftr_vit_desc){.cookie = 0};
    return (ftr_vit_desc){.cookie = FTR__COOKIE_VIT,
                          .classes = 1000,
                          .patch = 16,
                          .width = widths[size],
                          .layers = 12,
                          .heads = widths[size] / 64};
}

/* The options; the image was checked before. */
static bool ftr__vit_is_valid(ftr_graph *graph, ftr_shape image, const ftr_vit_desc *d) {
    if (d->cookie != FTR__COOKIE_VIT)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "vit", NULL, "desc was not made by ftr_vit_defaults()");
    else if (d->classes < 1 && !d->features_only)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "vit", NULL, "classes is %lld, expected 1 or more",
                             (long long)d->classes);
    else if (d->patch < 1 || d->patch > INT32_MAX)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "vit", NULL, "patch is %lld, expected 1 or more",
                             (long long)d->patch);
    else if (image.dim[1] % d->patch != 0 || image.dim[2] % d->patch != 0)
        (void)ftr_graph_fail(graph, FTR_ERROR_SHAPE, "vit", NULL,
                             "the image has %lld x %lld pixels, expected multiples of the patch, %lld",
                             (long long)image.dim[1], (long long)image.dim[2], (long long)d->patch);
    else
        return ftr__transformer_is_valid(graph, "vit",
                                         (ftr__transformer_size){d->width, d->mlp_width, d->layers, d->heads}) &&
               ftr__model_probability(graph, "vit", "dropout", d->dropout) &&
               ftr__model_probability(graph, "vit", "attention_dropout", d->attention_dropout);
    return false;
}

static ftr_tensor ftr__vit_norm(ftr_tensor x, const char *name) {
    ftr_layer_norm_desc desc = ftr_layer_norm_defaults();
    desc.eps = 1e-6;
    return ftr_layer_norm(x, name, &desc);
}

/* Multi-head attention of x [n, t, width] with itself, as nn.MultiheadAttention: one matrix makes queries, keys and
 * values, one after another in its rows. */
static ftr_tensor ftr__vit_attention(ftr_tensor x, const ftr_vit_desc *d) {
    ftr_graph *graph = x.graph;
    const ftr_shape shape = ftr_shape_of(x);
    const ftr_dtype dtype = ftr_dtype_of(x);
    ftr_scope_push(graph, "self_attention");
    const ftr_tensor weight = ftr_parameter(graph, "in_proj_weight", dtype, FTR_SHAPE(3 * d->width, d->width),
                                            (ftr_init){FTR_INIT_XAVIER_UNIFORM, 0.0, 0.0});
    const ftr_tensor bias =
        ftr_parameter(graph, "in_proj_bias", dtype, FTR_SHAPE(3 * d->width), (ftr_init){FTR_INIT_ZEROS, 0.0, 0.0});
    ftr_attention_desc attention = ftr_attention_defaults();
    attention.dropout = d->attention_dropout;
    x = ftr__transformer_attention(ftr_linear_with(x, weight, bias), shape.dim[0], shape.dim[1], d->heads, &attention);
    x = ftr_reshape(x, shape);
    x = ftr_linear(x, "out_proj", d->width, &(ftr_linear_desc){.bias_init = {FTR_INIT_ZEROS, 0.0, 0.0}});
    ftr_scope_pop(graph);
    return ftr_dropout(x, d->dropout);
}

static ftr_tensor ftr__vit_mlp(ftr_tensor x, const ftr_vit_desc *d) {
    const ftr_linear_desc linear = {.weight_init = {FTR_INIT_XAVIER_UNIFORM, 0.0, 0.0},
                                    .bias_init = {FTR_INIT_NORMAL, 0.0, 1e-6}};
    ftr_graph *graph = x.graph;
    ftr_scope_push(graph, "mlp");
    x = ftr_linear(x, "0", d->mlp_width > 0 ? d->mlp_width : 4 * d->width, &linear);
    x = ftr_dropout(ftr_gelu(x, FTR_GELU_EXACT), d->dropout);
    x = ftr_linear(x, "3", d->width, &linear);
    ftr_scope_pop(graph);
    return ftr_dropout(x, d->dropout);
}

static ftr_tensor ftr__vit_block(ftr_tensor x, int32_t index, const ftr_vit_desc *d) {
    ftr_graph *graph = x.graph;
    char name[32];
    (void)snprintf(name, sizeof name, "encoder_layer_%d", (int)index);
    ftr_scope_push(graph, name);
    x = ftr_add(x, ftr__vit_attention(ftr__vit_norm(x, "ln_1"), d));
    x = ftr_add(x, ftr__vit_mlp(ftr__vit_norm(x, "ln_2"), d));
    ftr_scope_pop(graph);
    return x;
}

/* The class token and the patches: [n, 1 + patches, width]. */
static ftr_tensor ftr__vit_tokens(ftr_tensor image, const ftr_vit_desc *d) {
    ftr_graph *graph = image.graph;
    const ftr_shape shape = ftr_shape_of(image);
    const int64_t n = shape.dim[0], patches = shape.dim[1] / d->patch * (shape.dim[2] / d->patch);
    const int32_t patch = (int32_t)d->patch;
    const ftr_conv2d_desc conv = {
        .stride = {patch, patch},
        .weight_init = {FTR_INIT_TRUNCATED_NORMAL, 0.0, sqrt(1.0 / (double)(shape.dim[3] * d->patch * d->patch))},
        .bias_init = {FTR_INIT_ZEROS, 0.0, 0.0}};
    const ftr_tensor token = ftr_parameter(graph, "class_token", ftr_dtype_of(image), FTR_SHAPE(1, 1, d->width),
                                           (ftr_init){FTR_INIT_ZEROS, 0.0, 0.0});
    const ftr_tensor x = ftr_conv2d(image, "conv_proj", d->width, patch, &conv);
    const ftr_tensor part[2] = {ftr_expand(token, FTR_SHAPE(n, 1, d->width)),
                                ftr_reshape(x, FTR_SHAPE(n, patches, d->width))};
    return ftr_concat(part, 2, 1);
}

/* [n, t, width] to the class token's row, [n, width]. The last norm is over that row alone: the result is that of a
 * norm over all rows and taking the first. */
static ftr_tensor ftr__vit_encoder(ftr_tensor x, const ftr_vit_desc *d) {
    ftr_graph *graph = x.graph;
    const ftr_shape shape = ftr_shape_of(x);
    ftr_scope_push(graph, "encoder");
    const ftr_tensor position =
        ftr_parameter(graph, "pos_embedding", ftr_dtype_of(x), FTR_SHAPE(1, shape.dim[1], d->width),
                      (ftr_init){FTR_INIT_NORMAL, 0.0, 0.02});
    x = ftr_dropout(ftr_add(x, position), d->dropout);
    ftr_scope_push(graph, "layers");
    for (int32_t i = 0; i < d->layers; i++) x = ftr__vit_block(x, i, d);
    ftr_scope_pop(graph);
    x = ftr_reshape(ftr_slice(x, 1, 0, 1, 1), FTR_SHAPE(shape.dim[0], d->width));
    x = ftr__vit_norm(x, "ln");
    ftr_scope_pop(graph);
    return x;
}

ftr_tensor ftr_vit(ftr_tensor image, const ftr_vit_desc *desc) {
    ftr_graph *graph = ftr__model_image("vit", image, 1);
    const ftr_vit_desc d = desc != NULL ? *desc : ftr_vit_defaults(FTR_VIT_BASE);
    if (graph == NULL || !ftr__vit_is_valid(graph, ftr_shape_of(image), &d)) return (ftr_tensor){NULL, 0};
    ftr_tensor x = ftr__vit_encoder(ftr__vit_tokens(image, &d), &d);
    if (d.features_only) return x;
    const ftr_linear_desc zeros = {.weight_init = {FTR_INIT_ZEROS, 0.0, 0.0}, .bias_init = {FTR_INIT_ZEROS, 0.0, 0.0}};
    ftr_scope_push(graph, "heads");
    x = ftr_linear(x, "head", d.classes, &zeros);
    ftr_scope_pop(graph);
    return x;
}

/* ---- src/models/gpt.c ---- */
/* GPT-2. All between the embedding and the logits is on rows, [n * t, width]. */

#define FTR__COOKIE_GPT 0x47505432u

ftr_gpt_desc ftr_gpt_defaults(ftr_gpt_size size) {
    switch (size) {
    case FTR_GPT2:
        return (ftr_gpt_desc){.cookie = FTR__COOKIE_GPT,
                              .vocabulary = 50257,
                              .context = 1024,
                              .width = 768,
                              .layers = 12,
                              .heads = 12,
                              .embedding_dropout = 0.1,
                              .attention_dropout = 0.1,
                              .residual_dropout = 0.1};
    case FTR_GPT_CHARS:
        return (ftr_gpt_desc){
            .cookie = FTR__COOKIE_GPT, .vocabulary = 256, .context = 64, .width = 128, .layers = 4, .heads = 4};
    }
    return (ftr_gpt_desc){.cookie = 0};
}

/* ---- checks */

static ftr_tensor ftr__gpt_wrong(ftr_graph *graph, const char *field, int64_t value) {
    return ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "gpt", NULL, "%s is %lld, expected 1 or more", field,
                          (long long)value);
}

static bool ftr__gpt_desc_is_valid(ftr_graph *graph, const ftr_gpt_desc *d) {
    if (d->cookie != FTR__COOKIE_GPT)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "gpt", NULL, "desc was not made by ftr_gpt_defaults()");
    else if (d->vocabulary < 1)
        (void)ftr__gpt_wrong(graph, "vocabulary", d->vocabulary);
    else if (d->context < 1)
        (void)ftr__gpt_wrong(graph, "context", d->context);
    else
        return ftr__transformer_is_valid(graph, "gpt",
                                         (ftr__transformer_size){d->width, d->mlp_width, d->layers, d->heads}) &&
               ftr__model_probability(graph, "gpt", "embedding_dropout", d->embedding_dropout) &&
               ftr__model_probability(graph, "gpt", "attention_dropout", d->attention_dropout) &&
               ftr__model_probability(graph, "gpt", "residual_dropout", d->residual_dropout);
    return false;
}

static bool ftr__gpt_tokens_are_valid(ftr_tensor tokens, const ftr_gpt_desc *d) {
    ftr_graph *graph = tokens.graph;
    const ftr_shape shape = ftr_shape_of(tokens);
    const ftr_dtype dtype = ftr_dtype_of(tokens);
    if (!ftr_is_valid(tokens))
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_TENSOR, "gpt", NULL, "tokens is a null tensor");
    else if (shape.rank != 2)
        (void)ftr_graph_fail(graph, FTR_ERROR_RANK, "gpt", NULL, "tokens have rank %d, expected 2 (n, t)",
                             (int)shape.rank);
    else if (dtype != FTR_I32 && dtype != FTR_I64)
        (void)ftr_graph_fail(graph, FTR_ERROR_DTYPE, "gpt", NULL, "tokens are %s, expected i32 or i64",
                             ftr_dtype_name(dtype));
    else if (shape.dim[0] < 1)
        (void)ftr_graph_fail(graph, FTR_ERROR_SHAPE, "gpt", NULL, "no sequences, expected 1 or more");
    else if (shape.dim[1] < 1 || shape.dim[1] > d->context)
        (void)ftr_graph_fail(graph, FTR_ERROR_SHAPE, "gpt", NULL,
                             "sequences of %lld tokens, expected 1 to the context, %lld", (long long)shape.dim[1],
                             (long long)d->context);
    else
        return true;
    return false;
}

/* ---- blocks */

static ftr_init ftr__gpt_normal(double deviation) { return (ftr_init){FTR_INIT_NORMAL, 0.0, deviation}; }

/* x [rows, in] weight + bias, the weight being [in, out], as Hugging Face's Conv1D. */
static ftr_tensor ftr__gpt_linear(ftr_tensor x, const char *name, int64_t out, double deviation) {
    ftr_graph *graph = x.graph;
    const ftr_shape shape = ftr_shape_of(x);
    ftr_scope_push(graph, name);
    const ftr_tensor weight =
        ftr_parameter(graph, "weight", FTR_F32, FTR_SHAPE(shape.dim[1], out), ftr__gpt_normal(deviation));
    const ftr_tensor bias = ftr_parameter(graph, "bias", FTR_F32, FTR_SHAPE(out), (ftr_init){FTR_INIT_ZEROS, 0.0, 0.0});
    x = ftr_add(ftr_matmul(x, weight, false, false), bias);
    ftr_scope_pop(graph);
    return x;
}

/* What adds to the residual stream starts smaller, so that the stream's variance does not grow with the depth. */
static double ftr__gpt_residual_deviation(const ftr_gpt_desc *d) { return 0.02 / sqrt(2.0 * (double)d->layers); }

static ftr_tensor ftr__gpt_attention(ftr_tensor x, int64_t n, const ftr_gpt_desc *d) {
    ftr_graph *graph = x.graph;
    const ftr_shape shape = ftr_shape_of(x);
    ftr_attention_desc attention = ftr_attention_defaults();
    attention.causal = true;
    attention.dropout = d->attention_dropout;
    ftr_scope_push(graph, "attn");
    x = ftr__transformer_attention(ftr__gpt_linear(x, "c_attn", 3 * d->width, 0.02), n, shape.dim[0] / n, d->heads,
                                   &attention);
    x = ftr_reshape(x, shape);
    x = ftr__gpt_linear(x, "c_proj", d->width, ftr__gpt_residual_deviation(d));
    ftr_scope_pop(graph);
    return ftr_dropout(x, d->residual_dropout);
}

static ftr_tensor ftr__gpt_mlp(ftr_tensor x, const ftr_gpt_desc *d) {
    ftr_graph *graph = x.graph;
    ftr_scope_push(graph, "mlp");
    x = ftr__gpt_linear(x, "c_fc", d->mlp_width > 0 ? d->mlp_width : 4 * d->width, 0.02);
    x = ftr__gpt_linear(ftr_gelu(x, FTR_GELU_TANH), "c_proj", d->width, ftr__gpt_residual_deviation(d));
    ftr_scope_pop(graph);
    return ftr_dropout(x, d->residual_dropout);
}

static ftr_tensor ftr__gpt_block(ftr_tensor x, int32_t index, int64_t n, const ftr_gpt_desc *d) {
    ftr_graph *graph = x.graph;
    char name[16];
    (void)snprintf(name, sizeof name, "%d", (int)index);
    ftr_scope_push(graph, name);
    x = ftr_add(x, ftr__gpt_attention(ftr_layer_norm(x, "ln_1", NULL), n, d));
    x = ftr_add(x, ftr__gpt_mlp(ftr_layer_norm(x, "ln_2", NULL), d));
    ftr_scope_pop(graph);
    return x;
}

/* The embeddings of tokens and places, as rows. */
static ftr_tensor ftr__gpt_embedding(ftr_tensor tokens, ftr_tensor token_weight, const ftr_gpt_desc *d) {
    const ftr_shape shape = ftr_shape_of(tokens);
    const ftr_tensor place_weight =
        ftr_parameter(tokens.graph, "wpe.weight", FTR_F32, FTR_SHAPE(d->context, d->width), ftr__gpt_normal(0.02));
    const ftr_tensor places = shape.dim[1] < d->context ? ftr_slice(place_weight, 0, 0, shape.dim[1], 1) : place_weight;
    const ftr_tensor x = ftr_add(ftr_embedding_with(token_weight, tokens), places);
    return ftr_reshape(ftr_dropout(x, d->embedding_dropout), FTR_SHAPE(shape.dim[0] * shape.dim[1], d->width));
}

ftr_tensor ftr_gpt(ftr_tensor tokens, const ftr_gpt_desc *desc) {
    ftr_graph *graph = tokens.graph;
    const ftr_gpt_desc d = desc != NULL ? *desc : ftr_gpt_defaults(FTR_GPT2);
    if (ftr_graph_status(graph) != FTR_OK || !ftr__gpt_desc_is_valid(graph, &d) ||
        !ftr__gpt_tokens_are_valid(tokens, &d))
        return (ftr_tensor){NULL, 0};
    const ftr_shape shape = ftr_shape_of(tokens), matrix = FTR_SHAPE(d.vocabulary, d.width);
    if (!d.bare_names) ftr_scope_push(graph, "transformer");
    ftr_tensor head = ftr_parameter(graph, "wte.weight", FTR_F32, matrix, ftr__gpt_normal(0.02));
    ftr_tensor x = ftr__gpt_embedding(tokens, head, &d);
    ftr_scope_push(graph, "h");
    for (int32_t i = 0; i < d.layers; i++) x = ftr__gpt_block(x, i, shape.dim[0], &d);
    ftr_scope_pop(graph);
    x = ftr_layer_norm(x, "ln_f", NULL);
    if (!d.bare_names) ftr_scope_pop(graph);
    if (d.features_only) return ftr_reshape(x, FTR_SHAPE(shape.dim[0], shape.dim[1], d.width));
    if (d.untied) head = ftr_parameter(graph, "lm_head.weight", FTR_F32, matrix, ftr__gpt_normal(0.02));
    x = ftr_linear_with(x, head, (ftr_tensor){NULL, 0});
    return ftr_reshape(x, FTR_SHAPE(shape.dim[0], shape.dim[1], d.vocabulary));
}

#endif /* FASTTRAIN_IMPLEMENTATION */

#else /* FTR__TEMPLATE_PASS: this file was included by itself */
#if FTR__TEMPLATE_PASS == 1

/* ---- src/backend/cpu/simd_pass.inc.h ---- */
/* One instantiation of all SIMD functions, for the instruction set FTR__SIMD_LEVEL (0 portable, 1 NEON, 2 AVX2 with FMA,
 * 3 AVX-512). Names end in the level: FTR__S(axpy) is ftr__axpy_avx2. No include guard: it is included once a level. */

/* ---- src/backend/cpu/simd_begin.inc.h ---- */
/* Opens an instantiation: target, vector types and the few operations that the vector extensions lack.
 *
 *   FTR__W        floats in a vector
 *   FTR__VF       vector of float, FTR__VI of int32_t, FTR__VU of uint32_t
 *   FTR__FMA      a * b + c
 *   FTR__S(x)     the level's name of x
 *
 * Arithmetic and comparison operators work on vectors directly; a comparison gives FTR__VI, -1 where true. */
#if FTR__SIMD_LEVEL == 0
#define FTR__S(name) ftr__##name##_portable
#define FTR__W 4
#elif FTR__SIMD_LEVEL == 1
#define FTR__S(name) ftr__##name##_neon
#define FTR__W 4
#elif FTR__SIMD_LEVEL == 2
#define FTR__S(name) ftr__##name##_avx2
#define FTR__W 8
#define FTR__TARGET "avx2,fma"
#elif FTR__SIMD_LEVEL == 3
#define FTR__S(name) ftr__##name##_avx512
#define FTR__W 16
/* FASTTRAIN_EMULATE_AVX512 runs the 16-wide code on an AVX2 machine: for tests of its logic. */
#ifdef FASTTRAIN_EMULATE_AVX512
#define FTR__TARGET "avx2,fma"
#else
#define FTR__TARGET "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"
#endif
#endif

#ifdef FTR__TARGET
#if defined(__clang__)
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma"))), apply_to = function)
#else
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#endif
#else
#pragma GCC push_options
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")
#else
#pragma GCC target("avx2,fma")
#endif
#endif
#endif

typedef float FTR__S(vf) __attribute__((vector_size(4 * FTR__W)));
typedef int32_t FTR__S(vi) __attribute__((vector_size(4 * FTR__W)));
typedef uint32_t FTR__S(vu) __attribute__((vector_size(4 * FTR__W)));
#define FTR__VF FTR__S(vf)
#define FTR__VI FTR__S(vi)
#define FTR__VU FTR__S(vu)

#define FTR__INLINE static inline __attribute__((always_inline))

/* Unaligned. */
FTR__INLINE FTR__VF FTR__S(load)(const float *p) {
    FTR__VF v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

FTR__INLINE void FTR__S(store)(float *p, FTR__VF v) { __builtin_memcpy(p, &v, sizeof v); }

FTR__INLINE FTR__VF FTR__S(splat)(float x) { return x - (FTR__VF){0}; }

FTR__INLINE FTR__VF FTR__S(fma)(FTR__VF a, FTR__VF b, FTR__VF c) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (FTR__VF)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif FTR__SIMD_LEVEL == 2
    return (FTR__VF)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif FTR__SIMD_LEVEL == 1
    return (FTR__VF)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

/* mask ? a : b, the mask being a comparison's result. */
FTR__INLINE FTR__VF FTR__S(select)(FTR__VI mask, FTR__VF a, FTR__VF b) {
    return (FTR__VF)((mask & (FTR__VI)a) | (~mask & (FTR__VI)b));
}

#define FTR__LOAD FTR__S(load)
#define FTR__STORE FTR__S(store)
#define FTR__SPLAT FTR__S(splat)
#define FTR__FMA FTR__S(fma)
#define FTR__SELECT FTR__S(select)

/* ---- src/backend/cpu/simd_math.inc.h ---- */
/* ftr__simd_math of one instruction set. Included once a level; it has no include guard. The end of a row that does
 * not fill a vector is copied into a padded one and goes through the same code. */
#undef FTR__SIMD_MATH_FUNCTIONS

/* Columns are handled this many vectors at a time; partial sums span this many rows, so that rounding errors stay
 * small. */
#define FTR__COLUMN_VECTORS 4
#define FTR__COLUMN_BLOCK 64
/* Small loops over vectors that live in registers; clang unrolls them without being told. */
#if defined(__clang__)
#define FTR__UNROLL
#else
#define FTR__UNROLL _Pragma("GCC unroll 4")
#endif
/* Vectors in a block of a row's sum, for each of four partial sums. */
#define FTR__SUM_BLOCK 32

FTR__INLINE FTR__VF FTR__S(load_part)(const float *p, int64_t n) {
    FTR__VF v = {0};
    float lanes[FTR__W] = {0};
    for (int64_t i = 0; i < n; i++) lanes[i] = p[i];
    __builtin_memcpy(&v, lanes, sizeof v);
    return v;
}

FTR__INLINE void FTR__S(store_part)(float *p, FTR__VF v, int64_t n) {
    float lanes[FTR__W];
    __builtin_memcpy(lanes, &v, sizeof v);
    for (int64_t i = 0; i < n; i++) p[i] = lanes[i];
}

/* A vector, or its first n elements if n is less than a vector. */
FTR__INLINE FTR__VF FTR__S(load_some)(const float *p, int64_t n) {
    return n >= FTR__W ? FTR__LOAD(p) : FTR__S(load_part)(p, n);
}

FTR__INLINE void FTR__S(store_some)(float *p, FTR__VF v, int64_t n) {
    if (n >= FTR__W)
        FTR__STORE(p, v);
    else
        FTR__S(store_part)(p, v, n);
}

#define FTR__LOAD_SOME FTR__S(load_some)
#define FTR__STORE_SOME FTR__S(store_some)

FTR__INLINE FTR__VF FTR__S(square_root)(FTR__VF x) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (FTR__VF)_mm512_sqrt_ps((__m512)x);
#elif FTR__SIMD_LEVEL == 2
    return (FTR__VF)_mm256_sqrt_ps((__m256)x);
#elif FTR__SIMD_LEVEL == 1
    return (FTR__VF)vsqrtq_f32((float32x4_t)x);
#elif FTR__SIMD_LEVEL == 0 && defined(__x86_64__)
    return (FTR__VF)_mm_sqrt_ps((__m128)x);
#else
    FTR__VF root;
    for (int i = 0; i < FTR__W; i++) root[i] = __builtin_sqrtf(x[i]);
    return root;
#endif
}

FTR__INLINE FTR__VF FTR__S(keep_positive)(FTR__VF x) { return FTR__SELECT(x <= 0.0f, FTR__SPLAT(0.0f), x); }

FTR__INLINE FTR__VF FTR__S(maximum_of)(FTR__VF a, FTR__VF b) { return FTR__SELECT((a > b) | (a != a), a, b); }

FTR__INLINE FTR__VF FTR__S(minimum_of)(FTR__VF a, FTR__VF b) { return FTR__SELECT((a < b) | (a != a), a, b); }

/* e^r - 1 for |r| <= ln(2) / 2: r + r^2 P(r), P a minimax polynomial (relative error of e^r 4e-9). */
FTR__INLINE FTR__VF FTR__S(exponential_less_one)(FTR__VF r) {
    FTR__VF p = FTR__SPLAT(0.00138141739f);
    p = FTR__FMA(p, r, FTR__SPLAT(0.00836892147f));
    p = FTR__FMA(p, r, FTR__SPLAT(0.0416684076f));
    p = FTR__FMA(p, r, FTR__SPLAT(0.166665196f));
    p = FTR__FMA(p, r, FTR__SPLAT(0.49999994f));
    return FTR__FMA(p, r * r, r);
}

/* e^x = 2^n e^r with n = round(x / ln 2) and |r| <= ln(2) / 2. 2^n is applied in two halves, so that results below the
 * normal range are rounded once. */
FTR__INLINE FTR__VF FTR__S(exponential)(FTR__VF x) {
    const FTR__VF round = FTR__SPLAT(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    x = FTR__SELECT(x > 89.0f, FTR__SPLAT(89.0f), x);
    x = FTR__SELECT(x < -104.0f, FTR__SPLAT(-104.0f), x);
    const FTR__VF shifted = FTR__FMA(x, FTR__SPLAT(1.44269504089f), round);
    const FTR__VF whole = shifted - round;
    /* ln 2 in two parts; the first has few bits, so that its product is exact. */
    FTR__VF r = FTR__FMA(whole, FTR__SPLAT(-0.693359375f), x);
    r = FTR__FMA(whole, FTR__SPLAT(2.12194440e-4f), r);
    const FTR__VF p = FTR__S(exponential_less_one)(r) + 1.0f;
    const FTR__VI n = (FTR__VI)((FTR__VU)shifted - (FTR__VU)round);
    const FTR__VI half = n >> 1;
    const FTR__VF first = (FTR__VF)(((FTR__VU)half + 127u) << 23);
    const FTR__VF second = (FTR__VF)(((FTR__VU)n - (FTR__VU)half + 127u) << 23);
    return p * first * second;
}

/* ln x = e ln 2 + ln(1 + f), x = 2^e (1 + f) with 1 + f from sqrt(1/2) to sqrt(2); ln(1 + f) = f - f^2 / 2 + f^3
 * P(f), P a minimax polynomial (relative error 4e-9). Subnormal x is scaled first. */
FTR__INLINE FTR__VF FTR__S(logarithm)(FTR__VF x) {
    const FTR__VI tiny = x < 1.17549435e-38f;
    const FTR__VU bits = (FTR__VU)FTR__SELECT(tiny, x * 8388608.0f, x) - 0x3f3504f3u;
    const FTR__VI exponent = ((FTR__VI)bits >> 23) - (tiny & 23);
    const FTR__VF e = __builtin_convertvector(exponent, FTR__VF);
    const FTR__VF f = (FTR__VF)((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    const FTR__VF square = f * f;
    FTR__VF p = FTR__SPLAT(0.0674659833f);
    p = FTR__FMA(p, f, FTR__SPLAT(-0.116796538f));
    p = FTR__FMA(p, f, FTR__SPLAT(0.118903235f));
    p = FTR__FMA(p, f, FTR__SPLAT(-0.124051355f));
    p = FTR__FMA(p, f, FTR__SPLAT(0.142192245f));
    p = FTR__FMA(p, f, FTR__SPLAT(-0.166680068f));
    p = FTR__FMA(p, f, FTR__SPLAT(0.200021341f));
    p = FTR__FMA(p, f, FTR__SPLAT(-0.250000089f));
    p = FTR__FMA(p, f, FTR__SPLAT(0.333333135f));
    FTR__VF r = f * square * p;
    r = FTR__FMA(e, FTR__SPLAT(-2.12194440e-4f), r);
    r = FTR__FMA(square, FTR__SPLAT(-0.5f), r) + f;
    r = FTR__FMA(e, FTR__SPLAT(0.693359375f), r);
    r = FTR__SELECT(x < __builtin_inff(), r, x); /* +inf and NaN */
    r = FTR__SELECT(x == 0.0f, FTR__SPLAT(-__builtin_inff()), r);
    return FTR__SELECT(x < 0.0f, FTR__SPLAT(__builtin_nanf("")), r);
}

/* x + x^3 P(x^2) for |x| < 0.625 (P minimax, relative error 9e-9), else 1 - 2 / (e^2|x| + 1) with the sign of x. */
FTR__INLINE FTR__VF FTR__S(hyperbolic_tangent)(FTR__VF x) {
    const FTR__VU sign = (FTR__VU)x & 0x80000000u;
    const FTR__VF size = (FTR__VF)((FTR__VU)x ^ sign);
    const FTR__VF large = 1.0f - 2.0f / (FTR__S(exponential)(size + size) + 1.0f);
    const FTR__VF square = x * x;
    FTR__VF p = FTR__SPLAT(-0.00570498686f);
    p = FTR__FMA(p, square, FTR__SPLAT(0.0206390861f));
    p = FTR__FMA(p, square, FTR__SPLAT(-0.0537397154f));
    p = FTR__FMA(p, square, FTR__SPLAT(0.133314416f));
    p = FTR__FMA(p, square, FTR__SPLAT(-0.333332807f));
    const FTR__VF small = FTR__FMA(p * square, x, x);
    return FTR__SELECT(size < 0.625f, small, (FTR__VF)((FTR__VU)large | sign));
}

/* With e = e^-|x|: 1 / (1 + e) for x >= 0, e / (1 + e) below, which keeps its precision toward 0. */
FTR__INLINE FTR__VF FTR__S(logistic)(FTR__VF x) {
    const FTR__VF e = FTR__S(exponential)((FTR__VF)((FTR__VU)x | 0x80000000u));
    return FTR__SELECT(x < 0.0f, e, FTR__SPLAT(1.0f)) / (1.0f + e);
}

/* Phi(-|x|) of the normal distribution, and e^(-x^2 / 2): the first is the second times N(|x|) / D(|x|), a minimax
 * rational function on 0..16 (relative error 7e-9); further out both are 0. All coefficients are positive: nothing
 * cancels. What rounding loses of x^2 is made up for, as the exponential would magnify it. */
FTR__INLINE FTR__VF FTR__S(normal_tail)(FTR__VF x, FTR__VF *bell) {
    FTR__VF size = (FTR__VF)((FTR__VU)x & 0x7fffffffu);
    size = FTR__SELECT(size > 16.0f, FTR__SPLAT(16.0f), size);
    const FTR__VF high = (FTR__VF)((FTR__VU)size & 0xfffff000u); /* 12 bits: its square is exact */
    const FTR__VF rest = (size - high) * (size + high), square = high * high + rest;
    const FTR__VF lost = (high * high - square) + rest;
    const FTR__VF e = FTR__S(exponential)(square * -0.5f);
    *bell = FTR__FMA(e * lost, FTR__SPLAT(-0.5f), e);
    FTR__VF above = FTR__FMA(size, FTR__SPLAT(0.0042221112f), FTR__SPLAT(0.0413415904f));
    above = FTR__FMA(above, size, FTR__SPLAT(0.185328864f));
    above = FTR__FMA(above, size, FTR__SPLAT(0.441108223f));
    above = FTR__FMA(above, size, FTR__SPLAT(0.5f));
    FTR__VF below = FTR__FMA(size, FTR__SPLAT(0.0105831655f), FTR__SPLAT(0.103633538f));
    below = FTR__FMA(below, size, FTR__SPLAT(0.474999747f));
    below = FTR__FMA(below, size, FTR__SPLAT(1.21117919f));
    below = FTR__FMA(below, size, FTR__SPLAT(1.6801015f));
    below = FTR__FMA(below, size, FTR__SPLAT(1.0f));
    return *bell * (above / below);
}

/* x P(x^2) for |x| < 1 (P minimax, relative error 1e-9), else 1 - 2 Phi(-sqrt(2) |x|) with the sign of x. */
FTR__INLINE FTR__VF FTR__S(error_function)(FTR__VF x) {
    const FTR__VU sign = (FTR__VU)x & 0x80000000u;
    const FTR__VF size = (FTR__VF)((FTR__VU)x ^ sign), square = x * x;
    FTR__VF bell;
    const FTR__VF large = 1.0f - 2.0f * FTR__S(normal_tail)(x * 1.41421356f, &bell);
    FTR__VF p = FTR__SPLAT(7.85386114e-05f);
    p = FTR__FMA(p, square, FTR__SPLAT(-0.000801019356f));
    p = FTR__FMA(p, square, FTR__SPLAT(0.00518832768f));
    p = FTR__FMA(p, square, FTR__SPLAT(-0.0268538119f));
    p = FTR__FMA(p, square, FTR__SPLAT(0.112835851f));
    p = FTR__FMA(p, square, FTR__SPLAT(-0.376126258f));
    p = FTR__FMA(p, square, FTR__SPLAT(1.12837917f));
    return FTR__SELECT(size < 1.0f, p * x, (FTR__VF)((FTR__VU)large | sign));
}

FTR__INLINE FTR__VF FTR__S(limited)(FTR__VF x, float low, float high) {
    x = FTR__SELECT(x < low, FTR__SPLAT(low), x);
    return FTR__SELECT(x > high, FTR__SPLAT(high), x);
}

FTR__INLINE FTR__VF FTR__S(gelu)(FTR__VF x) {
    FTR__VF bell;
    const FTR__VF tail = FTR__S(normal_tail)(x, &bell);
    return x * FTR__SELECT(x < 0.0f, tail, 1.0f - tail);
}

/* Phi(x) + x phi(x) */
FTR__INLINE FTR__VF FTR__S(gelu_slope)(FTR__VF x) {
    FTR__VF bell;
    const FTR__VF tail = FTR__S(normal_tail)(x, &bell);
    return FTR__FMA(x * bell, FTR__SPLAT(0.398942280f), FTR__SELECT(x < 0.0f, tail, 1.0f - tail));
}

/* (1 + tanh u) / 2 = 1 / (1 + e^-2u), with 2u = x (2 c + 2 c 0.044715 x^2) and c = sqrt(2 / pi). */
FTR__INLINE FTR__VF FTR__S(gelu_tanh)(FTR__VF x) {
    return x * FTR__S(logistic)(x * FTR__FMA(x * x, FTR__SPLAT(0.0713548163f), FTR__SPLAT(1.59576912f)));
}

/* s + x s (1 - s) d(2u)/dx with s = 1 / (1 + e^-2u). Beyond +-16 s is 0 or 1; x^2 must not overflow there. */
FTR__INLINE FTR__VF FTR__S(gelu_tanh_slope)(FTR__VF x) {
    x = FTR__S(limited)(x, -16.0f, 16.0f);
    const FTR__VF square = x * x;
    const FTR__VF twice_u = x * FTR__FMA(square, FTR__SPLAT(0.0713548163f), FTR__SPLAT(1.59576912f));
    const FTR__VF e = FTR__S(exponential)((FTR__VF)((FTR__VU)twice_u | 0x80000000u)), part = 1.0f / (1.0f + e);
    const FTR__VF inner = x * FTR__FMA(square, FTR__SPLAT(0.214064449f), FTR__SPLAT(1.59576912f));
    return FTR__FMA(inner, e * part, FTR__SELECT(x < 0.0f, e, FTR__SPLAT(1.0f))) * part;
}

/* x / (1 + e^-x). For x < 0 x e^x / (1 + e^x), the exponential in two halves so that only the result may underflow. */
FTR__INLINE FTR__VF FTR__S(silu)(FTR__VF x) {
    const FTR__VF half = FTR__S(exponential)((FTR__VF)((FTR__VU)x | 0x80000000u) * 0.5f);
    return FTR__SELECT(x < 0.0f, x * half * half, x) / FTR__FMA(half, half, FTR__SPLAT(1.0f));
}

/* s + x s (1 - s) with s = 1 / (1 + e^-x). */
FTR__INLINE FTR__VF FTR__S(silu_slope)(FTR__VF x) {
    const FTR__VF e = FTR__S(exponential)((FTR__VF)((FTR__VU)x | 0x80000000u)), part = 1.0f / (1.0f + e);
    return FTR__FMA(x, e * part, FTR__SELECT(x < 0.0f, e, FTR__SPLAT(1.0f))) * part;
}

FTR__INLINE FTR__VF FTR__S(hardsigmoid)(FTR__VF x) { return FTR__S(limited)(x + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f); }

FTR__INLINE FTR__VF FTR__S(hardswish_grad)(FTR__VF d, FTR__VF x) {
    const FTR__VF inside = d * FTR__FMA(x, FTR__SPLAT(1.0f / 3.0f), FTR__SPLAT(0.5f));
    return FTR__SELECT(x <= -3.0f, FTR__SPLAT(0.0f), FTR__SELECT(x >= 3.0f, d, inside));
}

FTR__INLINE FTR__VF FTR__S(elu)(FTR__VF x, float alpha) {
    const FTR__VF far = FTR__S(exponential)(x) - 1.0f;
    const FTR__VF below = FTR__SELECT(x > -0.34657359f, FTR__S(exponential_less_one)(x), far);
    return FTR__SELECT(x > 0.0f, x, alpha * below);
}

/* max(z, 0) + log(1 + q) with z = beta x and q = e^-|z|; what is lost of q in 1 + q is added to the logarithm. */
FTR__INLINE FTR__VF FTR__S(softplus)(FTR__VF x, float beta, float threshold) {
    const FTR__VF z = x * beta, q = FTR__S(exponential)((FTR__VF)((FTR__VU)z | 0x80000000u)), sum = 1.0f + q;
    const FTR__VF log_sum = FTR__S(logarithm)(sum) + (q - (sum - 1.0f)) / sum;
    return FTR__SELECT(z > threshold, x, (FTR__SELECT(z > 0.0f, z, FTR__SPLAT(0.0f)) + log_sum) / beta);
}

/* Loops over a row: `body` computes the result from what `loads` has loaded at element i, where n - i are left. */
#define FTR__ROW_LOOP(loads, body, out)                                                                                \
    for (int64_t i = 0; i + FTR__W <= n; i += FTR__W) {                                                                \
        const int64_t left = FTR__W;                                                                                   \
        loads;                                                                                                         \
        const FTR__VF made = body;                                                                                     \
        FTR__STORE_SOME((out) + i, made, left);                                                                        \
    }                                                                                                                  \
    if (n % FTR__W) {                                                                                                  \
        const int64_t left = n % FTR__W, i = n - left;                                                                 \
        loads;                                                                                                         \
        const FTR__VF made = body;                                                                                     \
        FTR__STORE_SOME((out) + i, made, left);                                                                        \
    }

#define FTR__ROW(name, p) const FTR__VF name = FTR__LOAD_SOME((p) + i, left)

#define FTR__BINARY_FUNCTION(name, body)                                                                               \
    static void FTR__S(name##_rows)(int64_t n, const float *a, const float *b, float *out) {                           \
        FTR__ROW_LOOP(FTR__ROW(u, a); FTR__ROW(v, b), body, out)                                                       \
    }                                                                                                                  \
    static void FTR__S(name##_right)(int64_t n, const float *a, const float *b, float *out) {                          \
        const FTR__VF v = FTR__SPLAT(*b);                                                                              \
        FTR__ROW_LOOP(FTR__ROW(u, a), body, out)                                                                       \
    }                                                                                                                  \
    static void FTR__S(name##_left)(int64_t n, const float *a, const float *b, float *out) {                           \
        const FTR__VF u = FTR__SPLAT(*a);                                                                              \
        FTR__ROW_LOOP(FTR__ROW(v, b), body, out)                                                                       \
    }

FTR__BINARY_FUNCTION(row_add, u + v)
FTR__BINARY_FUNCTION(row_sub, u - v)
FTR__BINARY_FUNCTION(row_mul, u *v)
FTR__BINARY_FUNCTION(row_div, u / v)
FTR__BINARY_FUNCTION(row_maximum, FTR__S(maximum_of)(u, v))
FTR__BINARY_FUNCTION(row_minimum, FTR__S(minimum_of)(u, v))

#define FTR__UNARY_FUNCTION(name, body)                                                                                \
    static void FTR__S(name)(int64_t n, const float *x, float *out) { FTR__ROW_LOOP(FTR__ROW(v, x), body, out) }

FTR__UNARY_FUNCTION(row_neg, -v)
FTR__UNARY_FUNCTION(row_exp, FTR__S(exponential)(v))
FTR__UNARY_FUNCTION(row_log, FTR__S(logarithm)(v))
FTR__UNARY_FUNCTION(row_sqrt, FTR__S(square_root)(v))
FTR__UNARY_FUNCTION(row_rsqrt, 1.0f / FTR__S(square_root)(v))
FTR__UNARY_FUNCTION(row_tanh, FTR__S(hyperbolic_tangent)(v))
FTR__UNARY_FUNCTION(row_sigmoid, FTR__S(logistic)(v))
FTR__UNARY_FUNCTION(row_relu, FTR__S(keep_positive)(v))

#define FTR__GRAD_FUNCTION(name, body)                                                                                 \
    static void FTR__S(name)(int64_t n, const float *dy, const float *y, float *dx) {                                  \
        FTR__ROW_LOOP(FTR__ROW(d, dy); FTR__ROW(v, y), body, dx)                                                       \
    }

FTR__GRAD_FUNCTION(row_tanh_grad, d *(1.0f - v * v))
FTR__GRAD_FUNCTION(row_sigmoid_grad, d *v *(1.0f - v))
FTR__GRAD_FUNCTION(row_relu_grad, FTR__SELECT(v <= 0.0f, FTR__SPLAT(0.0f), d))

/* One body for vectors and for the row's end: these are long. */
#define FTR__ACTIVATION_FUNCTION(name, body)                                                                           \
    static void FTR__S(name)(int64_t n, const float *x, float a, float b, float *out) {                                \
        (void)a, (void)b;                                                                                              \
        for (int64_t i = 0; i < n; i += FTR__W) {                                                                      \
            const int64_t left = n - i;                                                                                \
            FTR__ROW(v, x);                                                                                            \
            const FTR__VF made = body;                                                                                 \
            FTR__STORE_SOME(out + i, made, left);                                                                      \
        }                                                                                                              \
    }

FTR__ACTIVATION_FUNCTION(row_clamp, FTR__S(limited)(v, a, b))
FTR__ACTIVATION_FUNCTION(row_leaky_relu, FTR__SELECT(v > 0.0f, v, v *a))
FTR__ACTIVATION_FUNCTION(row_elu, FTR__S(elu)(v, a))
FTR__ACTIVATION_FUNCTION(row_softplus, FTR__S(softplus)(v, a, b))
FTR__ACTIVATION_FUNCTION(row_hardswish, v *FTR__S(hardsigmoid)(v))
FTR__ACTIVATION_FUNCTION(row_silu, FTR__S(silu)(v))
FTR__ACTIVATION_FUNCTION(row_gelu, FTR__S(gelu)(v))
FTR__ACTIVATION_FUNCTION(row_gelu_tanh, FTR__S(gelu_tanh)(v))
FTR__ACTIVATION_FUNCTION(row_hardsigmoid, FTR__S(hardsigmoid)(v))
FTR__ACTIVATION_FUNCTION(row_erf, FTR__S(error_function)(v))

#define FTR__SLOPE_FUNCTION(name, body)                                                                                \
    static void FTR__S(name)(int64_t n, const float *dy, const float *x, float a, float b, float *dx) {                \
        (void)a, (void)b;                                                                                              \
        for (int64_t i = 0; i < n; i += FTR__W) {                                                                      \
            const int64_t left = n - i;                                                                                \
            FTR__ROW(d, dy);                                                                                           \
            FTR__ROW(v, x);                                                                                            \
            const FTR__VF made = body;                                                                                 \
            FTR__STORE_SOME(dx + i, made, left);                                                                       \
        }                                                                                                              \
    }

FTR__SLOPE_FUNCTION(row_clamp_slope, FTR__SELECT((v > a) & (v < b), d, FTR__SPLAT(0.0f)))
FTR__SLOPE_FUNCTION(row_leaky_relu_slope, FTR__SELECT(v > 0.0f, d, d *a))
FTR__SLOPE_FUNCTION(row_elu_slope, FTR__SELECT(v > 0.0f, d, d *a *FTR__S(exponential)(v)))
FTR__SLOPE_FUNCTION(row_softplus_slope, FTR__SELECT(v *a > b, d, d *FTR__S(logistic)(v *a)))
FTR__SLOPE_FUNCTION(row_hardswish_slope, FTR__S(hardswish_grad)(d, v))
FTR__SLOPE_FUNCTION(row_silu_slope, d *FTR__S(silu_slope)(v))
FTR__SLOPE_FUNCTION(row_gelu_slope, d *FTR__S(gelu_slope)(v))
FTR__SLOPE_FUNCTION(row_gelu_tanh_slope, d *FTR__S(gelu_tanh_slope)(v))

static void FTR__S(exp_scale_add)(int64_t n, const float *x, float shift, float scale, float add, float *out) {
    FTR__ROW_LOOP(FTR__ROW(v, x), FTR__S(exponential)(v - shift) * scale + add, out)
}

static void FTR__S(subtract_twice)(int64_t n, const float *x, float a, float b, float *out) {
    FTR__ROW_LOOP(FTR__ROW(v, x), (v - a) - b, out)
}

static void FTR__S(softmax_grad)(int64_t n, const float *dy, const float *y, float sum, float *dx) {
    FTR__ROW_LOOP(FTR__ROW(d, dy); FTR__ROW(v, y), v * (d - sum), dx)
}

static void FTR__S(log_softmax_grad)(int64_t n, const float *dy, const float *y, float sum, float *dx) {
    FTR__ROW_LOOP(FTR__ROW(d, dy); FTR__ROW(v, y), d - FTR__S(exponential)(v) * sum, dx)
}

static void FTR__S(axpy)(int64_t n, float a, const float *x, float *y) {
    const FTR__VF factor = FTR__SPLAT(a);
    FTR__ROW_LOOP(FTR__ROW(u, x); FTR__ROW(v, y), FTR__FMA(factor, u, v), y)
}

static void FTR__S(blend)(int64_t n, float a, const float *x, float *y) {
    const FTR__VF factor = FTR__SPLAT(a);
    FTR__ROW_LOOP(FTR__ROW(u, x); FTR__ROW(v, y), FTR__FMA(factor, u - v, v), y)
}

static void FTR__S(scatter_add)(int64_t channels, const float *dy, const int32_t *index, int32_t pixel, float *dx) {
    const int64_t n = channels;
    int64_t i = 0;
    for (; i + FTR__W <= n; i += FTR__W) {
        FTR__VI where;
        __builtin_memcpy(&where, index + i, sizeof where);
        FTR__STORE(dx + i, FTR__LOAD(dx + i) + FTR__SELECT(where == pixel, FTR__LOAD(dy + i), FTR__SPLAT(0.0f)));
    }
    for (; i < n; i++) dx[i] += index[i] == pixel ? dy[i] : 0.0f;
}

/* ------------------------------------------------------------------------------------------------ row reductions -- */

FTR__INLINE double FTR__S(lanes_sum)(FTR__VF v) {
    double sum = 0;
    for (int i = 0; i < FTR__W; i++) sum += (double)v[i];
    return sum;
}

/* Adds `body`, made of what is loaded at element i, over a row. An element that is not there must give 0 or be left
 * out by FTR__FIRST_LANES. */
#define FTR__ROW_SUM(loads, body)                                                                                      \
    double total = 0;                                                                                                  \
    int64_t at = 0;                                                                                                    \
    while (at + 4 * FTR__W <= n) {                                                                                     \
        FTR__VF partial[4] = {{0}, {0}, {0}, {0}};                                                                     \
        for (int block = 0; block < FTR__SUM_BLOCK && at + 4 * FTR__W <= n; block++, at += 4 * FTR__W)                 \
            for (int k = 0; k < 4; k++) {                                                                              \
                const int64_t i = at + k * FTR__W, left = FTR__W;                                                      \
                loads;                                                                                                 \
                partial[k] += body;                                                                                    \
            }                                                                                                          \
        total += FTR__S(lanes_sum)((partial[0] + partial[1]) + (partial[2] + partial[3]));                             \
    }                                                                                                                  \
    FTR__VF rest = {0};                                                                                                \
    for (; at < n; at += FTR__W) {                                                                                     \
        const int64_t i = at, left = n - at < FTR__W ? n - at : FTR__W;                                                \
        loads;                                                                                                         \
        rest += body;                                                                                                  \
    }                                                                                                                  \
    return total + FTR__S(lanes_sum)(rest)

FTR__INLINE FTR__VF FTR__S(first_lanes)(FTR__VF v, int64_t n) {
    if (n >= FTR__W) return v;
    float lanes[FTR__W];
    __builtin_memcpy(lanes, &v, sizeof v);
    return FTR__S(load_part)(lanes, n);
}

static double FTR__S(row_sum)(int64_t n, const float *x) { FTR__ROW_SUM(FTR__ROW(v, x), v); }

static double FTR__S(row_dot)(int64_t n, const float *a, const float *b) {
    FTR__ROW_SUM(FTR__ROW(u, a); FTR__ROW(v, b), u * v);
}

static double FTR__S(exp_sum_only)(int64_t n, const float *x, float shift) {
    FTR__ROW_SUM(FTR__ROW(v, x), FTR__S(first_lanes)(FTR__S(exponential)(v - shift), left));
}

static double FTR__S(exp_sum)(int64_t n, const float *x, float shift, float *out) {
    if (!out) return FTR__S(exp_sum_only)(n, x, shift);
    FTR__ROW_SUM(FTR__ROW(v, x); const FTR__VF e = FTR__S(exponential)(v - shift);
                 FTR__STORE_SOME(out + i, e, left), FTR__S(first_lanes)(e, left));
}

static float FTR__S(row_maximum)(int64_t n, const float *x) {
    float best = -__builtin_inff();
    int64_t i = 0;
    if (n >= FTR__W) {
        FTR__VF most[2] = {FTR__LOAD(x), FTR__LOAD(x)};
        for (i = FTR__W; i + 2 * FTR__W <= n; i += 2 * FTR__W)
            for (int k = 0; k < 2; k++) most[k] = FTR__S(maximum_of)(FTR__LOAD(x + i + k * FTR__W), most[k]);
        most[0] = FTR__S(maximum_of)(most[0], most[1]);
        for (int k = 0; k < FTR__W; k++) best = most[0][k] > best || most[0][k] != most[0][k] ? most[0][k] : best;
    }
    for (; i < n; i++) best = x[i] > best || x[i] != x[i] ? x[i] : best;
    return best;
}

/* A vector's share of row_moments. */
FTR__INLINE void FTR__S(moments_take)(int64_t i, int64_t left, const float *x, float mean, const float *dy,
                                      const float *gamma, FTR__VF *sum, FTR__VF *product) {
    const FTR__VF apart = FTR__S(first_lanes)(FTR__LOAD_SOME(x + i, left) - mean, left);
    FTR__VF u = dy ? FTR__LOAD_SOME(dy + i, left) : apart;
    if (gamma) u *= FTR__LOAD_SOME(gamma + i, left);
    *sum += u;
    *product = FTR__FMA(u, apart, *product);
}

static void FTR__S(row_moments)(int64_t n, const float *x, float mean, const float *dy, const float *gamma,
                                double sums[2]) {
    sums[0] = sums[1] = 0;
    for (int64_t at = 0; at < n;) {
        FTR__VF sum[2] = {{0}, {0}}, product[2] = {{0}, {0}};
        for (int block = 0; block < FTR__SUM_BLOCK && at + 2 * FTR__W <= n; block++, at += 2 * FTR__W)
            for (int k = 0; k < 2; k++)
                FTR__S(moments_take)(at + k * FTR__W, FTR__W, x, mean, dy, gamma, &sum[k], &product[k]);
        for (; at < n && n - at < 2 * FTR__W; at += FTR__W)
            FTR__S(moments_take)(at, n - at < FTR__W ? n - at : FTR__W, x, mean, dy, gamma, &sum[0], &product[0]);
        sums[0] += FTR__S(lanes_sum)(sum[0] + sum[1]);
        sums[1] += FTR__S(lanes_sum)(product[0] + product[1]);
    }
}

static void FTR__S(row_norm)(int64_t n, const float *x, float mean, float scale, float shift, const float *gamma,
                             const float *beta, float *y) {
    const FTR__VF a = FTR__SPLAT(scale), b = FTR__SPLAT(shift);
    FTR__ROW_LOOP(FTR__ROW(v, x); FTR__VF t = FTR__FMA(v - mean, a, b); if (gamma) t *= FTR__LOAD_SOME(gamma + i, left);
                  if (beta) t += FTR__LOAD_SOME(beta + i, left), t, y)
}

static void FTR__S(row_norm_grad)(int64_t n, const float *dy, const float *x, float mean, const float *gamma, float a,
                                  float b, float c, float *dx) {
    const FTR__VF fb = FTR__SPLAT(b), fc = FTR__SPLAT(c);
    FTR__ROW_LOOP(FTR__ROW(v, x); FTR__ROW(u, dy); FTR__VF t = u; if (gamma) t *= FTR__LOAD_SOME(gamma + i, left),
                  (t + FTR__FMA(v - mean, fb, fc)) * a, dx)
}

static void FTR__S(row_norm_sums)(int64_t n, const float *dy, const float *x, float mean, float scale, float *sum,
                                  float *product) {
    FTR__ROW_LOOP(FTR__ROW(d, dy); FTR__ROW(v, x);
                  FTR__STORE_SOME(product + i,
                                  FTR__FMA(d, (v - mean) * scale, FTR__LOAD_SOME(product + i, left)), left),
                  d + FTR__LOAD_SOME(sum + i, left), sum)
}

/* --------------------------------------------------------------------------------------------- column reductions -- */

/* Rows of a matrix from which a whole vector can be read at a column after which `left` columns follow, for the last
 * rows end with the memory. */
FTR__INLINE int64_t FTR__S(safe_rows)(int64_t rows, int64_t left, int64_t stride) {
    if (left >= FTR__W) return rows;
    const int64_t short_rows = (FTR__W - left + stride - 1) / stride;
    return rows > short_rows ? rows - short_rows : 0;
}

typedef enum FTR__S(column_kind) {
    FTR__S(COLUMN_SUM),
    FTR__S(COLUMN_CENTERED),
    FTR__S(COLUMN_DEVIATION),
    FTR__S(COLUMN_MAXIMUM)
} FTR__S(column_kind);

/* Takes one vector of a row into `sum`. `kind` is a constant where this is inlined. */
FTR__INLINE FTR__VF FTR__S(column_take)(FTR__S(column_kind) kind, FTR__VF sum, FTR__VF value, FTR__VF center,
                                        FTR__VF mean) {
    if (kind == FTR__S(COLUMN_MAXIMUM)) return FTR__S(maximum_of)(value, sum);
    if (kind == FTR__S(COLUMN_SUM)) return sum + value;
    if (kind == FTR__S(COLUMN_CENTERED)) return sum + (value - center);
    const FTR__VF apart = (value - center) - mean;
    return FTR__FMA(apart, apart, sum);
}

/* A block of rows of one tile of `vectors` vectors; `left` columns are there, and whole vectors can be read from the
 * first `safe` rows. `vectors` and `kind` are constants where this is inlined. */
FTR__INLINE void FTR__S(column_tile)(FTR__S(column_kind) kind, int vectors, int64_t left, int64_t rows, int64_t safe,
                                     const float *x, int64_t stride, const float *center, const float *mean,
                                     float *out) {
    const bool maximum = kind == FTR__S(COLUMN_MAXIMUM);
    FTR__VF sum[FTR__COLUMN_VECTORS], c[FTR__COLUMN_VECTORS], m[FTR__COLUMN_VECTORS];
    FTR__UNROLL for (int v = 0; v < vectors; v++) {
        const int64_t at = v * FTR__W;
        sum[v] = maximum ? FTR__LOAD_SOME(out + at, left - at) : FTR__SPLAT(0.0f);
        c[v] = kind == FTR__S(COLUMN_SUM) || maximum ? FTR__SPLAT(0.0f) : FTR__LOAD_SOME(center + at, left - at);
        m[v] = kind == FTR__S(COLUMN_DEVIATION) ? FTR__LOAD_SOME(mean + at, left - at) : FTR__SPLAT(0.0f);
    }
    for (int64_t r = 0; r < rows; r++, x += stride) {
        FTR__UNROLL for (int v = 0; v < vectors; v++) {
            const bool whole = vectors > 1 || r < safe;
            const FTR__VF value = whole ? FTR__LOAD(x + v * FTR__W) : FTR__S(load_part)(x, left);
            sum[v] = FTR__S(column_take)(kind, sum[v], value, c[v], m[v]);
        }
    }
    FTR__UNROLL for (int v = 0; v < vectors; v++) {
        const int64_t at = v * FTR__W;
        if (!maximum) sum[v] += FTR__LOAD_SOME(out + at, left - at);
        FTR__STORE_SOME(out + at, sum[v], left - at);
    }
}

/* center and mean are read by the kinds that use them. Blocks of rows are the outer loop: they stay in the cache. */
FTR__INLINE void FTR__S(columns)(FTR__S(column_kind) kind, int64_t rows, int64_t count, const float *x, int64_t stride,
                                 const float *center, const float *mean, float *out) {
    const int64_t tile = FTR__COLUMN_VECTORS * FTR__W;
    for (int64_t begin = 0; begin < rows; begin += FTR__COLUMN_BLOCK) {
        const int64_t some = rows - begin < FTR__COLUMN_BLOCK ? rows - begin : FTR__COLUMN_BLOCK;
        const float *row = x + begin * stride;
        int64_t j = 0;
        for (; j + tile <= count; j += tile) FTR__S(column_tile)
        (kind, FTR__COLUMN_VECTORS, tile, some, some, row + j, stride, center + j, mean + j, out + j);
        for (; j < count; j += FTR__W) FTR__S(column_tile)
        (kind, 1, count - j, some, FTR__S(safe_rows)(rows, count - j, stride) - begin, row + j, stride, center + j,
         mean + j, out + j);
    }
}

static void FTR__S(column_sum)(int64_t rows, int64_t count, const float *x, int64_t stride, float *out) {
    FTR__S(columns)(FTR__S(COLUMN_SUM), rows, count, x, stride, out, out, out);
}

static void FTR__S(column_centered_sum)(int64_t rows, int64_t count, const float *x, int64_t stride,
                                        const float *center, float *out) {
    FTR__S(columns)(FTR__S(COLUMN_CENTERED), rows, count, x, stride, center, center, out);
}

static void FTR__S(column_deviation)(int64_t rows, int64_t count, const float *x, int64_t stride, const float *center,
                                     const float *mean, float *out) {
    FTR__S(columns)(FTR__S(COLUMN_DEVIATION), rows, count, x, stride, center, mean, out);
}

static void FTR__S(column_maximum)(int64_t rows, int64_t count, const float *x, int64_t stride, float *out) {
    FTR__S(columns)(FTR__S(COLUMN_MAXIMUM), rows, count, x, stride, out, out, out);
}

/* ------------------------------------------------------------------------------------------------- normalization -- */

/* `with_residual` and `relu` are constants where this is inlined. */
FTR__INLINE void FTR__S(norm_rows)(bool with_residual, bool relu, int64_t rows, int64_t columns, const float *x,
                                   const float *mean, const float *scale, const float *shift, const float *residual,
                                   float *y) {
    for (int64_t r = 0; r < rows; r++) {
        const int64_t n = columns, row = r * columns;
        FTR__ROW_LOOP(FTR__ROW(v, x + row); FTR__ROW(m, mean); FTR__ROW(a, scale); FTR__ROW(b, shift);
                      FTR__VF t = FTR__FMA(v - m, a, b);
                      if (with_residual) t += FTR__LOAD_SOME(residual + row + i, left),
                      relu ? FTR__S(keep_positive)(t) : t, y + row)
    }
}

static void FTR__S(norm_apply)(int64_t rows, int64_t columns, const float *x, const float *mean, const float *scale,
                               const float *shift, const float *residual, bool relu, float *y) {
    if (residual && relu)
        FTR__S(norm_rows)(true, true, rows, columns, x, mean, scale, shift, residual, y);
    else if (residual)
        FTR__S(norm_rows)(true, false, rows, columns, x, mean, scale, shift, residual, y);
    else if (relu)
        FTR__S(norm_rows)(false, true, rows, columns, x, mean, scale, shift, NULL, y);
    else
        FTR__S(norm_rows)(false, false, rows, columns, x, mean, scale, shift, NULL, y);
}

/* A block of rows of one tile, as column_tile; `vectors` and `masked` are constants. */
FTR__INLINE void FTR__S(norm_grad_tile)(bool masked, int vectors, int64_t left, int64_t rows, int64_t safe,
                                        int64_t stride, const float *dy, const float *x, const float *y,
                                        const float *mean, float *sum, float *product) {
    FTR__VF sums[2], products[2], center[2];
    FTR__UNROLL for (int v = 0; v < vectors; v++) {
        sums[v] = products[v] = FTR__SPLAT(0.0f);
        center[v] = FTR__LOAD_SOME(mean + v * FTR__W, left - v * FTR__W);
    }
    for (int64_t r = 0; r < rows; r++) {
        FTR__UNROLL for (int v = 0; v < vectors; v++) {
            const int64_t at = r * stride + v * FTR__W, lanes = vectors > 1 || r < safe ? FTR__W : left;
            FTR__VF g = FTR__LOAD_SOME(dy + at, lanes);
            if (masked) g = FTR__SELECT(FTR__LOAD_SOME(y + at, lanes) <= 0.0f, FTR__SPLAT(0.0f), g);
            sums[v] += g;
            products[v] = FTR__FMA(g, FTR__LOAD_SOME(x + at, lanes) - center[v], products[v]);
        }
    }
    FTR__UNROLL for (int v = 0; v < vectors; v++) {
        const int64_t at = v * FTR__W;
        FTR__STORE_SOME(sum + at, sums[v] + FTR__LOAD_SOME(sum + at, left - at), left - at);
        FTR__STORE_SOME(product + at, products[v] + FTR__LOAD_SOME(product + at, left - at), left - at);
    }
}

FTR__INLINE void FTR__S(norm_grad_columns)(bool masked, int64_t rows, int64_t columns, int64_t stride, const float *dy,
                                           const float *x, const float *y, const float *mean, float *sum,
                                           float *product) {
    for (int64_t begin = 0; begin < rows; begin += FTR__COLUMN_BLOCK) {
        const int64_t some = rows - begin < FTR__COLUMN_BLOCK ? rows - begin : FTR__COLUMN_BLOCK;
        int64_t j = 0, at = begin * stride;
        for (; j + 2 * FTR__W <= columns; j += 2 * FTR__W, at += 2 * FTR__W) FTR__S(norm_grad_tile)
        (masked, 2, 2 * FTR__W, some, some, stride, dy + at, x + at, masked ? y + at : NULL, mean + j, sum + j,
         product + j);
        for (; j < columns; j += FTR__W, at += FTR__W) FTR__S(norm_grad_tile)
        (masked, 1, columns - j, some, FTR__S(safe_rows)(rows, columns - j, stride) - begin, stride, dy + at, x + at,
         masked ? y + at : NULL, mean + j, sum + j, product + j);
    }
}

static void FTR__S(norm_grad_sums)(int64_t rows, int64_t columns, int64_t stride, const float *dy, const float *x,
                                   const float *y, const float *mean, float *sum, float *product) {
    if (y)
        FTR__S(norm_grad_columns)(true, rows, columns, stride, dy, x, y, mean, sum, product);
    else
        FTR__S(norm_grad_columns)(false, rows, columns, stride, dy, x, NULL, mean, sum, product);
}

FTR__INLINE void FTR__S(norm_grad_rows)(bool masked, int64_t rows, int64_t columns, const float *dy, const float *x,
                                        const float *y, const float *mean, const float *a, const float *b,
                                        const float *c, float *dx) {
    for (int64_t r = 0; r < rows; r++) {
        const int64_t n = columns, row = r * columns;
        FTR__ROW_LOOP(FTR__ROW(d, dy + row); FTR__ROW(v, x + row); FTR__ROW(m, mean); FTR__ROW(fa, a); FTR__ROW(fb, b);
                      FTR__ROW(fc, c); FTR__VF g = d;
                      if (masked) g = FTR__SELECT(FTR__LOAD_SOME(y + row + i, left) <= 0.0f, FTR__SPLAT(0.0f), g),
                      FTR__FMA(g, fa, FTR__FMA(v - m, fb, fc)), dx + row)
    }
}

static void FTR__S(norm_grad_apply)(int64_t rows, int64_t columns, const float *dy, const float *x, const float *y,
                                    const float *mean, const float *a, const float *b, const float *c, float *dx) {
    if (y)
        FTR__S(norm_grad_rows)(true, rows, columns, dy, x, y, mean, a, b, c, dx);
    else
        FTR__S(norm_grad_rows)(false, rows, columns, dy, x, NULL, mean, a, b, c, dx);
}

/* ------------------------------------------------------------------------------------------------------- pooling -- */

static void FTR__S(window_maximum)(int64_t channels, const float *x, int64_t rows, int64_t columns, int64_t width,
                                   int32_t first_index, float *out, int32_t *index) {
    for (int64_t c = 0; c < channels; c += FTR__W) {
        const int64_t left = channels - c;
        FTR__VF best = FTR__SPLAT(-__builtin_inff());
        FTR__VI where = (FTR__VI){0} + first_index;
        for (int64_t h = 0; h < rows; h++)
            for (int64_t w = 0; w < columns; w++) {
                const FTR__VF v = FTR__LOAD_SOME(x + (h * width + w) * channels + c, left);
                const FTR__VI take = (v > best) | ((v != v) & (best == best));
                const FTR__VI here = (FTR__VI){0} + (first_index + (int32_t)(h * width + w));
                best = FTR__SELECT(take, v, best);
                where = (take & here) | (~take & where);
            }
        FTR__STORE_SOME(out + c, best, left);
        const int64_t lanes = left < FTR__W ? left : FTR__W;
        __builtin_memcpy(index + c, &where, (size_t)lanes * sizeof *index);
    }
}

static void FTR__S(window_mean)(int64_t channels, const float *x, int64_t rows, int64_t columns, int64_t width,
                                float divisor, float *out) {
    for (int64_t c = 0; c < channels; c += FTR__W) {
        const int64_t left = channels - c;
        FTR__VF sum = {0};
        for (int64_t h = 0; h < rows; h++)
            for (int64_t w = 0; w < columns; w++) sum += FTR__LOAD_SOME(x + (h * width + w) * channels + c, left);
        FTR__STORE_SOME(out + c, sum / divisor, left);
    }
}

/* ------------------------------------------------------------------------------------------------------- dropout -- */

typedef uint64_t FTR__S(vw) __attribute__((vector_size(4 * FTR__W)));

/* Products of the lower halves of 64-bit numbers. */
FTR__INLINE FTR__S(vw) FTR__S(multiply_wide)(FTR__S(vw) a, FTR__S(vw) b) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (FTR__S(vw))_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif FTR__SIMD_LEVEL == 2
    return (FTR__S(vw))_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif FTR__SIMD_LEVEL == 0 && defined(__x86_64__)
    return (FTR__S(vw))_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

/* The upper halves as lower ones; what the upper ones become does not matter. */
FTR__INLINE FTR__S(vw) FTR__S(upper_half)(FTR__S(vw) a) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (FTR__S(vw))_mm512_movehdup_ps((__m512)a);
#elif FTR__SIMD_LEVEL == 2
    return (FTR__S(vw))_mm256_movehdup_ps((__m256)a);
#else
    return a >> 32;
#endif
}

/* Philox 4x32-10 for FTR__W blocks from `block` on, one a lane, as ftr__philox(). Lane l of numbers[k] is number k
 * of block block + l. `counter` is the upper half. Even and odd blocks are computed apart (c and d), each number in the lower half of 64 bits, as
 * multiplications have it; what is in the upper halves does not matter. */
FTR__INLINE void FTR__S(philox)(const uint32_t key[2], const uint32_t counter[2], uint64_t block, FTR__VU numbers[4]) {
    const FTR__S(vw) zero = {0}, factor0 = zero + 0xD2511F53u, factor1 = zero + 0xCD9E8D57u;
    const uint64_t even[8] = {0, 2, 4, 6, 8, 10, 12, 14};
    FTR__S(vw) c0, c2 = zero + counter[0], c3 = zero + counter[1], d2 = c2, d3 = c3;
    __builtin_memcpy(&c0, even, sizeof c0);
    c0 += block;
    FTR__S(vw) d0 = c0 + 1, c1 = c0 >> 32, d1 = d0 >> 32;
    FTR__S(vw) key0 = zero + key[0], key1 = zero + key[1];
    for (int round = 0; round < 10; round++, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u) {
        const FTR__S(vw) c_first = FTR__S(multiply_wide)(c0, factor0), c_second = FTR__S(multiply_wide)(c2, factor1);
        const FTR__S(vw) d_first = FTR__S(multiply_wide)(d0, factor0), d_second = FTR__S(multiply_wide)(d2, factor1);
        c0 = FTR__S(upper_half)(c_second) ^ (c1 ^ key0), c2 = FTR__S(upper_half)(c_first) ^ (c3 ^ key1);
        d0 = FTR__S(upper_half)(d_second) ^ (d1 ^ key0), d2 = FTR__S(upper_half)(d_first) ^ (d3 ^ key1);
        c1 = c_second, c3 = c_first;
        d1 = d_second, d3 = d_first;
    }
    numbers[0] = (FTR__VU)((c0 & 0xffffffffu) | (d0 << 32));
    numbers[1] = (FTR__VU)((c1 & 0xffffffffu) | (d1 << 32));
    numbers[2] = (FTR__VU)((c2 & 0xffffffffu) | (d2 << 32));
    numbers[3] = (FTR__VU)((c3 & 0xffffffffu) | (d3 << 32));
}

static void FTR__S(dropout)(int64_t n, const ftr__dropout_stream *stream, uint64_t block, const float *x, float *y) {
    for (int64_t i = 0; i < n; i += 4 * FTR__W, block += FTR__W) {
        FTR__VU numbers[4];
        uint32_t lanes[4][FTR__W];
        FTR__S(philox)(stream->key, stream->counter, block, numbers);
        __builtin_memcpy(lanes, numbers, sizeof lanes);
        const int64_t some = n - i < 4 * FTR__W ? n - i : 4 * FTR__W;
        for (int64_t k = 0; k < some; k++) {
            const uint32_t number = lanes[k % 4][k / 4];
            const uint32_t keep =
                0u - (uint32_t)(number >= stream->threshold); /* a mask: a branch is guessed wrongly */
            const float scaled = x[i + k] * stream->scale;
            uint32_t bits;
            __builtin_memcpy(&bits, &scaled, sizeof bits);
            bits &= keep;
            __builtin_memcpy(&y[i + k], &bits, sizeof bits);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ random tensors -- */

/* [0, 1) with 24 bits, as ftr__rng_uniform(). */
FTR__INLINE FTR__VF FTR__S(unit)(FTR__VU number) {
    return __builtin_convertvector((FTR__VI)(number >> 8), FTR__VF) * FTR__SPLAT(0x1p-24f);
}

/* Lane l of made[k] is element 4 l + k. */
FTR__INLINE void FTR__S(store_blocks)(int64_t n, const FTR__VF made[4], float *out) {
    float lanes[4][FTR__W];
    __builtin_memcpy(lanes, made, sizeof lanes);
    for (int64_t k = 0; k < 4 * FTR__W && k < n; k++) out[k] = lanes[k % 4][k / 4];
}

static void FTR__S(random_uniform)(int64_t n, const ftr__random_stream *stream, uint64_t block, float *out) {
    const FTR__VF low = FTR__SPLAT(stream->offset), range = FTR__SPLAT(stream->scale), most = FTR__SPLAT(stream->most);
    for (int64_t i = 0; i < n; i += 4 * FTR__W, block += FTR__W) {
        FTR__VU numbers[4];
        FTR__VF made[4];
        FTR__S(philox)(stream->key, stream->counter, block, numbers);
        for (int k = 0; k < 4; k++) made[k] = FTR__S(minimum_of)(FTR__FMA(range, FTR__S(unit)(numbers[k]), low), most);
        FTR__S(store_blocks)(n - i, made, out + i);
    }
}

/* Cosine and sine of 2 pi v for v in [0, 1): of the angle to the nearest quarter turn, at most pi / 4, by minimax
 * polynomials (relative error 9e-9), then turned. v has 24 bits, so that the difference is exact. */
FTR__INLINE void FTR__S(turn)(FTR__VF v, FTR__VF *cosine, FTR__VF *sine) {
    const FTR__VF round = FTR__SPLAT(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    const FTR__VF shifted = v * 4.0f + round;
    const FTR__VU quarter = (FTR__VU)shifted - (FTR__VU)round;
    const FTR__VF a = (v - (shifted - round) * 0.25f) * FTR__SPLAT(6.28318530718f), square = a * a;
    FTR__VF s = FTR__FMA(FTR__SPLAT(-0.000195152825f), square, FTR__SPLAT(0.0083321603f));
    s = FTR__FMA(s, square, FTR__SPLAT(-0.166666552f));
    s = FTR__FMA(s * square, a, a);
    FTR__VF c = FTR__FMA(FTR__SPLAT(2.44331568e-05f), square, FTR__SPLAT(-0.00138873165f));
    c = FTR__FMA(c, square, FTR__SPLAT(0.0416666456f));
    c = FTR__FMA(c * square, square, FTR__FMA(square, FTR__SPLAT(-0.5f), FTR__SPLAT(1.0f)));
    const FTR__VI odd = (FTR__VI)(quarter & 1u) != 0;
    *cosine = (FTR__VF)((FTR__VU)FTR__SELECT(odd, s, c) ^ ((quarter + 1u) & 2u) << 30);
    *sine = (FTR__VF)((FTR__VU)FTR__SELECT(odd, c, s) ^ (quarter & 2u) << 30);
}

static void FTR__S(random_normal)(int64_t n, const ftr__random_stream *stream, uint64_t block, float *out) {
    const FTR__VF mean = FTR__SPLAT(stream->offset), deviation = FTR__SPLAT(stream->scale);
    for (int64_t i = 0; i < n; i += 4 * FTR__W, block += FTR__W) {
        FTR__VU numbers[4];
        FTR__VF made[4];
        FTR__S(philox)(stream->key, stream->counter, block, numbers);
        for (int k = 0; k < 4; k += 2) {
            const FTR__VF log = FTR__S(logarithm)(1.0f - FTR__S(unit)(numbers[k]));
            const FTR__VF radius = deviation * FTR__S(square_root)(log * -2.0f);
            FTR__VF cosine, sine;
            FTR__S(turn)(FTR__S(unit)(numbers[k + 1]), &cosine, &sine);
            made[k] = FTR__FMA(radius, cosine, mean);
            made[k + 1] = FTR__FMA(radius, sine, mean);
        }
        FTR__S(store_blocks)(n - i, made, out + i);
    }
}

/* ---------------------------------------------------------------------------------------------------- optimizers -- */

static void FTR__S(sgd)(int64_t n, const ftr__sgd_step *step, float *p, const float *g) {
    const FTR__VF decay = FTR__SPLAT(step->weight_decay), rate = FTR__SPLAT(-step->lr);
    FTR__ROW_LOOP(FTR__ROW(w, p); FTR__ROW(d, g), FTR__FMA(rate, FTR__FMA(decay, w, d), w), p)
}

static void FTR__S(sgd_momentum)(int64_t n, const ftr__sgd_step *step, float *p, const float *g, float *m) {
    const FTR__VF decay = FTR__SPLAT(step->weight_decay), rate = FTR__SPLAT(-step->lr);
    const FTR__VF momentum = FTR__SPLAT(step->momentum), gradient = FTR__SPLAT(step->gradient);
    const bool nesterov = step->nesterov, first = step->first;
    FTR__ROW_LOOP(FTR__ROW(w, p); FTR__ROW(d, g); FTR__ROW(before, m); const FTR__VF full = FTR__FMA(decay, w, d);
                  const FTR__VF moving = first ? full : FTR__FMA(momentum, before, gradient * full);
                  FTR__STORE_SOME(m + i, moving, left),
                  FTR__FMA(rate, nesterov ? FTR__FMA(momentum, moving, full) : moving, w), p)
}

static void FTR__S(adamw)(int64_t n, const ftr__adamw_step *step, float *p, const float *g, float *m, float *v) {
    const FTR__VF beta1 = FTR__SPLAT(step->beta1), beta2 = FTR__SPLAT(step->beta2), eps = FTR__SPLAT(step->eps);
    const FTR__VF fresh1 = FTR__SPLAT(step->one_minus_beta1), fresh2 = FTR__SPLAT(step->one_minus_beta2);
    const FTR__VF decay = FTR__SPLAT(step->decay), rate = FTR__SPLAT(step->rate), second = FTR__SPLAT(step->second);
    FTR__ROW_LOOP(
        FTR__ROW(w, p); FTR__ROW(d, g); FTR__ROW(m0, m); FTR__ROW(v0, v);
        const FTR__VF m1 = FTR__FMA(beta1, m0, fresh1 * d); const FTR__VF v1 = FTR__FMA(beta2, v0, fresh2 * d * d);
        FTR__STORE_SOME(m + i, m1, left); FTR__STORE_SOME(v + i, v1, left);
        const FTR__VF below = FTR__FMA(FTR__S(square_root)(v1), second, eps), w * decay - rate * m1 / below, p)
}

#define FTR__SIMD_MATH_BINARY(name)                                                                                    \
    { FTR__S(name##_rows), FTR__S(name##_right), FTR__S(name##_left) }
#define FTR__SIMD_MATH_FUNCTIONS                                                                                       \
    {                                                                                                                  \
        .binary = {FTR__SIMD_MATH_BINARY(row_add),     FTR__SIMD_MATH_BINARY(row_sub),                                 \
                   FTR__SIMD_MATH_BINARY(row_mul),     FTR__SIMD_MATH_BINARY(row_div),                                 \
                   FTR__SIMD_MATH_BINARY(row_maximum), FTR__SIMD_MATH_BINARY(row_minimum)},                            \
        .unary = {FTR__S(row_neg),   FTR__S(row_exp),  FTR__S(row_log),     FTR__S(row_sqrt),                          \
                  FTR__S(row_rsqrt), FTR__S(row_tanh), FTR__S(row_sigmoid), FTR__S(row_relu)},                         \
        .activation_grad = {FTR__S(row_tanh_grad), FTR__S(row_sigmoid_grad), FTR__S(row_relu_grad)},                   \
        .row_moments = FTR__S(row_moments), .row_norm = FTR__S(row_norm),                                              \
        .row_norm_grad = FTR__S(row_norm_grad), .row_norm_sums = FTR__S(row_norm_sums),                                \
        .activation = {FTR__S(row_clamp),       FTR__S(row_leaky_relu), FTR__S(row_elu),  FTR__S(row_softplus),        \
                       FTR__S(row_hardswish),   FTR__S(row_silu),       FTR__S(row_gelu), FTR__S(row_gelu_tanh),       \
                       FTR__S(row_hardsigmoid), FTR__S(row_erf)},                                                      \
        .activation_slope = {FTR__S(row_clamp_slope),    FTR__S(row_leaky_relu_slope), FTR__S(row_elu_slope),          \
                             FTR__S(row_softplus_slope), FTR__S(row_hardswish_slope),  FTR__S(row_silu_slope),         \
                             FTR__S(row_gelu_slope),     FTR__S(row_gelu_tanh_slope)},                                 \
        .sum = FTR__S(row_sum), .dot = FTR__S(row_dot), .maximum = FTR__S(row_maximum),                                \
        .column_sum = FTR__S(column_sum), .column_centered_sum = FTR__S(column_centered_sum),                          \
        .column_deviation = FTR__S(column_deviation), .column_maximum = FTR__S(column_maximum),                        \
        .norm_apply = FTR__S(norm_apply), .norm_grad_sums = FTR__S(norm_grad_sums),                                    \
        .norm_grad_apply = FTR__S(norm_grad_apply), .exp_sum = FTR__S(exp_sum),                                        \
        .exp_scale_add = FTR__S(exp_scale_add), .subtract_twice = FTR__S(subtract_twice),                              \
        .softmax_grad = FTR__S(softmax_grad), .log_softmax_grad = FTR__S(log_softmax_grad), .axpy = FTR__S(axpy),      \
        .blend = FTR__S(blend), .window_maximum = FTR__S(window_maximum), .window_mean = FTR__S(window_mean),          \
        .scatter_add = FTR__S(scatter_add), .dropout = FTR__S(dropout),                                                    \
        .random_uniform = FTR__S(random_uniform), .random_normal = FTR__S(random_normal), .sgd = FTR__S(sgd),          \
        .sgd_momentum = FTR__S(sgd_momentum), .adamw = FTR__S(adamw),                                                  \
    }

#undef FTR__COLUMN_VECTORS
#undef FTR__COLUMN_BLOCK
#undef FTR__SUM_BLOCK
#undef FTR__LOAD_SOME
#undef FTR__STORE_SOME
#undef FTR__ROW_LOOP
#undef FTR__ROW
#undef FTR__BINARY_FUNCTION
#undef FTR__UNARY_FUNCTION
#undef FTR__GRAD_FUNCTION
#undef FTR__ACTIVATION_FUNCTION
#undef FTR__SLOPE_FUNCTION
#undef FTR__ROW_SUM

/* ---- src/backend/cpu/simd_gemm.inc.h ---- */
/* Micro-kernels of the matrix product, and what convolution needs beside them. Included once a level. */
#undef FTR__SIMD_GEMM_FUNCTIONS

/* Rows of a tile: as many as leave registers for two vectors of B and one of A. */
#if FTR__SIMD_LEVEL == 3
#define FTR__MR 14
#define FTR__ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13)
#elif FTR__SIMD_LEVEL == 1
#define FTR__MR 8
#define FTR__ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#else
#define FTR__MR 6
#define FTR__ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5)
#endif

/* A row of vectors on its way to memory. */
FTR__INLINE void FTR__S(gemm_store)(const ftr__gemm_tile *tile, int32_t row, int32_t part, FTR__VF sum) {
    float *c = tile->c[row] + part * FTR__W;
    if (tile->load) sum += FTR__LOAD(c);
    if (tile->bias) sum += FTR__LOAD(tile->bias + part * FTR__W);
    if (tile->relu) sum = FTR__SELECT(sum < (FTR__VF){0}, (FTR__VF){0}, sum);
    FTR__STORE(c, sum);
}

/* `rows` and `narrow` are constants where these two are used, so that what is not needed falls away. */
#define FTR__TILE_ZERO(i) FTR__VF lo##i = {0}, hi##i = {0};
#define FTR__TILE_STORE(i)                                                                                             \
    if (i < rows) {                                                                                                    \
        FTR__S(gemm_store)(tile, i, 0, lo##i);                                                                         \
        if (!narrow) FTR__S(gemm_store)(tile, i, 1, hi##i);                                                            \
    }

FTR__INLINE void FTR__S(gemm_packed)(bool narrow, int64_t depth, const float *a, const float *b, int64_t b_stride,
                                     const ftr__gemm_tile *tile) {
    const int32_t rows = FTR__MR;
    FTR__ROWS(FTR__TILE_ZERO)
    for (int64_t k = 0; k < depth; k++) {
        const FTR__VF b0 = FTR__LOAD(b), b1 = narrow ? (FTR__VF){0} : FTR__LOAD(b + FTR__W);
#define FTR__TILE_STEP(i)                                                                                              \
    {                                                                                                                  \
        const FTR__VF x = FTR__SPLAT(a[i]);                                                                            \
        lo##i = FTR__FMA(x, b0, lo##i);                                                                                \
        if (!narrow) hi##i = FTR__FMA(x, b1, hi##i);                                                                   \
    }
        FTR__ROWS(FTR__TILE_STEP)
#undef FTR__TILE_STEP
        a += FTR__MR;
        b += b_stride;
    }
    FTR__ROWS(FTR__TILE_STORE)
}

FTR__INLINE void FTR__S(gemm_in_place)(int32_t rows, bool narrow, int64_t segments, int64_t length,
                                       const float *const *a, const float *b, int64_t b_stride,
                                       const ftr__gemm_tile *tile) {
    FTR__ROWS(FTR__TILE_ZERO)
    for (int64_t s = 0; s < segments; s++, a += FTR__MR) {
#define FTR__TILE_POINTER(i) const float *const a##i = a[i];
        FTR__ROWS(FTR__TILE_POINTER)
#undef FTR__TILE_POINTER
        for (int64_t k = 0; k < length; k++) {
            const FTR__VF b0 = FTR__LOAD(b), b1 = narrow ? (FTR__VF){0} : FTR__LOAD(b + FTR__W);
#define FTR__TILE_STEP(i)                                                                                              \
    if (i < rows) {                                                                                                    \
        const FTR__VF x = FTR__SPLAT(a##i[k]);                                                                         \
        lo##i = FTR__FMA(x, b0, lo##i);                                                                                \
        if (!narrow) hi##i = FTR__FMA(x, b1, hi##i);                                                                   \
    }
            FTR__ROWS(FTR__TILE_STEP)
#undef FTR__TILE_STEP
            b += b_stride;
        }
    }
    FTR__ROWS(FTR__TILE_STORE)
}

static void FTR__S(gemm_tile)(int64_t depth, const float *a, const float *b, int64_t b_stride,
                              const ftr__gemm_tile *tile) {
    if (tile->narrow)
        FTR__S(gemm_packed)(true, depth, a, b, b_stride, tile);
    else
        FTR__S(gemm_packed)(false, depth, a, b, b_stride, tile);
}

static void FTR__S(gemm_tile_rows)(int64_t rows, int64_t segments, int64_t length, const float *const *a,
                                   const float *b, int64_t b_stride, const ftr__gemm_tile *tile) {
    if (rows <= 1)
        FTR__S(gemm_in_place)(1, false, segments, length, a, b, b_stride, tile);
    else if (rows <= 2)
        FTR__S(gemm_in_place)(2, false, segments, length, a, b, b_stride, tile);
    else if (rows <= 4)
        FTR__S(gemm_in_place)(4, false, segments, length, a, b, b_stride, tile);
#if FTR__MR > 8
    else if (rows <= 8)
        FTR__S(gemm_in_place)(8, false, segments, length, a, b, b_stride, tile);
#endif
    else if (tile->narrow)
        FTR__S(gemm_in_place)(FTR__MR, true, segments, length, a, b, b_stride, tile);
    else
        FTR__S(gemm_in_place)(FTR__MR, false, segments, length, a, b, b_stride, tile);
}
#undef FTR__TILE_ZERO
#undef FTR__TILE_STORE

/* Transposes 4 x 4 blocks in 16-byte vectors, which every level has. */
typedef float FTR__S(v4) __attribute__((vector_size(16)));
#ifdef __clang__
#define FTR__SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t FTR__S(v4i) __attribute__((vector_size(16)));
#define FTR__SHUFFLE4(a, b, i, j, k, l) __builtin_shuffle(a, b, (FTR__S(v4i)){i, j, k, l})
#endif

FTR__INLINE void FTR__S(transpose4)(const float *const *from, int64_t k, float *to, int64_t stride) {
    FTR__S(v4) r[4];
    for (int32_t i = 0; i < 4; i++) __builtin_memcpy(&r[i], from[i] + k, 16);
    const FTR__S(v4) a = FTR__SHUFFLE4(r[0], r[1], 0, 4, 1, 5), b = FTR__SHUFFLE4(r[2], r[3], 0, 4, 1, 5);
    const FTR__S(v4) c = FTR__SHUFFLE4(r[0], r[1], 2, 6, 3, 7), d = FTR__SHUFFLE4(r[2], r[3], 2, 6, 3, 7);
    const FTR__S(v4) t0 = FTR__SHUFFLE4(a, b, 0, 1, 4, 5), t1 = FTR__SHUFFLE4(a, b, 2, 3, 6, 7);
    const FTR__S(v4) t2 = FTR__SHUFFLE4(c, d, 0, 1, 4, 5), t3 = FTR__SHUFFLE4(c, d, 2, 3, 6, 7);
    __builtin_memcpy(to, &t0, 16);
    __builtin_memcpy(to + stride, &t1, 16);
    __builtin_memcpy(to + 2 * stride, &t2, 16);
    __builtin_memcpy(to + 3 * stride, &t3, 16);
}
#undef FTR__SHUFFLE4

static void FTR__S(gemm_interleave)(int64_t width, int64_t depth, const float *const *from, float *to,
                                    int64_t to_stride) {
    const int64_t whole = width < 4 ? 0 : depth - depth % 4;
    for (int64_t k = 0; k < whole; k += 4) {
        for (int64_t i = 0; i < width; i += 4) {
            const int64_t at = i + 4 <= width ? i : width - 4; /* the last block may overlap the one before */
            FTR__S(transpose4)(from + at, k, to + k * to_stride + at, to_stride);
        }
    }
    for (int64_t k = whole; k < depth; k++) {
        for (int64_t i = 0; i < width; i++) to[k * to_stride + i] = from[i][k];
    }
}

FTR__INLINE float FTR__S(gemm_lanes)(FTR__VF v) {
    float lane[FTR__W], sum = 0;
    FTR__STORE(lane, v);
    for (int32_t i = 0; i < FTR__W; i++) sum += lane[i];
    return sum;
}

static void FTR__S(gemm_dot4)(int64_t depth, const float *x, const float *const y[4], float out[4]) {
    const float *const y0 = y[0], *const y1 = y[1], *const y2 = y[2], *const y3 = y[3];
    FTR__VF s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    int64_t k = 0;
    for (; k + FTR__W <= depth; k += FTR__W) {
        const FTR__VF v = FTR__LOAD(x + k);
        s0 = FTR__FMA(v, FTR__LOAD(y0 + k), s0);
        s1 = FTR__FMA(v, FTR__LOAD(y1 + k), s1);
        s2 = FTR__FMA(v, FTR__LOAD(y2 + k), s2);
        s3 = FTR__FMA(v, FTR__LOAD(y3 + k), s3);
    }
    out[0] = FTR__S(gemm_lanes)(s0);
    out[1] = FTR__S(gemm_lanes)(s1);
    out[2] = FTR__S(gemm_lanes)(s2);
    out[3] = FTR__S(gemm_lanes)(s3);
    for (; k < depth; k++) {
        for (int32_t j = 0; j < 4; j++) out[j] += x[k] * y[j][k];
    }
}

static void FTR__S(gemm_accumulate)(int64_t count, const float *x, float *y) {
    int64_t i = 0;
    for (; i + FTR__W <= count; i += FTR__W) FTR__STORE(y + i, FTR__LOAD(y + i) + FTR__LOAD(x + i));
    for (; i < count; i++) y[i] += x[i];
}

#define FTR__SIMD_GEMM_FUNCTIONS                                                                                       \
    {                                                                                                                  \
        .mr = FTR__SIMD_GEMM_MR, .nr = 2 * FTR__W, .tile = FTR__S(gemm_tile), .tile_rows = FTR__S(gemm_tile_rows),     \
        .interleave = FTR__S(gemm_interleave), .dot4 = FTR__S(gemm_dot4), .accumulate = FTR__S(gemm_accumulate),       \
    }
#undef FTR__SIMD_GEMM_MR
#if FTR__MR == 14
#define FTR__SIMD_GEMM_MR 14
#elif FTR__MR == 8
#define FTR__SIMD_GEMM_MR 8
#else
#define FTR__SIMD_GEMM_MR 6
#endif

/* ---- src/backend/cpu/simd_attention.inc.h ---- */
/* ftr__simd_attention of one instruction set. Included once a level, after simd_math.inc.h and simd_gemm.inc.h. */
#undef FTR__SIMD_ATTENTION_FUNCTIONS

/* ----------------------------------------------------------------------------------------------- matrix products -- */

#define FTR__TILE_ZERO(i) FTR__VF lo##i = {0}, hi##i = {0};
#define FTR__TILE_STEP(i)                                                                                              \
    if (i < rows) {                                                                                                    \
        const FTR__VF x = FTR__SPLAT(a[i]);                                                                            \
        lo##i = FTR__FMA(x, b0, lo##i);                                                                                \
        if (!narrow) hi##i = FTR__FMA(x, b1, hi##i);                                                                   \
    }
#define FTR__TILE_STORE(i)                                                                                             \
    if (i < rows) {                                                                                                    \
        FTR__S(gemm_store)(tile, i, 0, lo##i);                                                                         \
        if (!narrow) FTR__S(gemm_store)(tile, i, 1, hi##i);                                                            \
    }

/* `rows` and `narrow` are constants where this is used. */
FTR__INLINE void FTR__S(attention_columns)(int32_t rows, bool narrow, int64_t depth, const float *a, int64_t a_stride,
                                           const float *b, int64_t b_stride, const ftr__gemm_tile *tile) {
    FTR__ROWS(FTR__TILE_ZERO)
    for (int64_t k = 0; k < depth; k++) {
        const FTR__VF b0 = FTR__LOAD(b), b1 = narrow ? (FTR__VF){0} : FTR__LOAD(b + FTR__W);
        FTR__ROWS(FTR__TILE_STEP)
        a += a_stride;
        b += b_stride;
    }
    FTR__ROWS(FTR__TILE_STORE)
}
#undef FTR__TILE_ZERO
#undef FTR__TILE_STEP
#undef FTR__TILE_STORE

static void FTR__S(attention_tile_columns)(int64_t rows, int64_t depth, const float *a, int64_t a_stride,
                                           const float *b, int64_t b_stride, const ftr__gemm_tile *tile) {
    if (rows <= 4) FTR__S(attention_columns)(4, false, depth, a, a_stride, b, b_stride, tile);
#if FTR__MR > 8
    else if (rows <= 8)
        FTR__S(attention_columns)(8, false, depth, a, a_stride, b, b_stride, tile);
#endif
    else if (tile->narrow)
        FTR__S(attention_columns)(FTR__MR, true, depth, a, a_stride, b, b_stride, tile);
    else
        FTR__S(attention_columns)(FTR__MR, false, depth, a, a_stride, b, b_stride, tile);
}

/* ------------------------------------------------------------------------------------------------------- softmax -- */

/* a if it is larger, otherwise b: also if one of them is NaN. */
FTR__INLINE FTR__VF FTR__S(larger)(FTR__VF a, FTR__VF b) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (FTR__VF)_mm512_max_ps((__m512)a, (__m512)b);
#elif FTR__SIMD_LEVEL == 2
    return (FTR__VF)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return FTR__SELECT(a > b, a, b);
#endif
}

/* 2^x for x <= 0 and NaN; below 2^-126 it is 0. x = n + r with |r| <= 1/2; 2^r = 1 + r P(r), P a minimax polynomial
 * (relative error 1e-7); n is added to the exponent. */
FTR__INLINE FTR__VF FTR__S(power_of_two)(FTR__VF x) {
    const FTR__VF round = FTR__SPLAT(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    const FTR__VF shifted = x + round;
    const FTR__VF r = x - (shifted - round);
    FTR__VF p = FTR__SPLAT(0.00132647273f);
    p = FTR__FMA(p, r, FTR__SPLAT(0.00967151299f));
    p = FTR__FMA(p, r, FTR__SPLAT(0.0555073358f));
    p = FTR__FMA(p, r, FTR__SPLAT(0.240222424f));
    p = FTR__FMA(p, r, FTR__SPLAT(0.693147004f));
    p = FTR__FMA(p, r, FTR__SPLAT(1.0f));
    p = (FTR__VF)((FTR__VU)p + ((FTR__VU)shifted << 23));
    return (FTR__VF)((FTR__VI)p & ~(x < -126.0f));
}

/* What the weights of keys k to k + 3 are multiplied by: 0 or the scale. */
FTR__INLINE void FTR__S(dropout_factors)(const ftr__attention_dropout *dropout, int64_t k, int64_t column,
                                         FTR__VF factor[4]) {
    const uint64_t all = 0xffffffffu, threshold = dropout->stream.threshold;
    const uint32_t limit = (uint32_t)(threshold < all ? threshold : all); /* p = 1: the scale is 0 */
    FTR__VU numbers[4];
    FTR__S(philox)
    (dropout->stream.key, dropout->stream.counter,
     dropout->first + (uint64_t)(k / 4) * dropout->step + (uint64_t)column, numbers);
    FTR__UNROLL
    for (int32_t i = 0; i < 4; i++)
        factor[i] = (FTR__VF)((FTR__VI)FTR__SPLAT(dropout->stream.scale) & (FTR__VI)(numbers[i] >= limit));
}

static void FTR__S(attention_add_tile)(int64_t keys, int64_t columns, int64_t stride, float factor, const float *x,
                                       int64_t x_stride, float *s) {
    for (int64_t k = 0; k < keys; k++, x += x_stride, s += stride) {
        for (int64_t c = 0; c < columns; c += FTR__W)
            FTR__STORE(s + c, FTR__FMA(FTR__LOAD(x + c), FTR__SPLAT(factor), FTR__LOAD(s + c)));
    }
}

static void FTR__S(attention_add_keys)(int64_t keys, int64_t columns, int64_t stride, float factor, const float *x,
                                       float *s) {
    for (int64_t k = 0; k < keys; k++, s += stride) {
        const FTR__VF add = FTR__SPLAT(factor * x[k]);
        for (int64_t c = 0; c < columns; c += FTR__W) FTR__STORE(s + c, FTR__LOAD(s + c) + add);
    }
}

/* One vector of columns; four rows are on their way at a time. */
FTR__INLINE FTR__VF FTR__S(column_maxima)(int64_t keys, int64_t stride, const float *s, FTR__VF most) {
    FTR__VF m0 = most, m1 = most, m2 = most, m3 = most;
    int64_t k = 0;
    for (; k + 4 <= keys; k += 4, s += 4 * stride) {
        m0 = FTR__S(larger)(FTR__LOAD(s), m0);
        m1 = FTR__S(larger)(FTR__LOAD(s + stride), m1);
        m2 = FTR__S(larger)(FTR__LOAD(s + 2 * stride), m2);
        m3 = FTR__S(larger)(FTR__LOAD(s + 3 * stride), m3);
    }
    for (; k < keys; k++, s += stride) m0 = FTR__S(larger)(FTR__LOAD(s), m0);
    return FTR__S(larger)(FTR__S(larger)(m0, m1), FTR__S(larger)(m2, m3));
}

FTR__INLINE FTR__VF FTR__S(column_weights)(int64_t keys, int64_t stride, FTR__VF shift,
                                           const ftr__attention_dropout *dropout, int64_t column, float *s) {
    FTR__VF sum[4] = {{0}, {0}, {0}, {0}}, factor[4];
    int64_t k = 0;
    for (; k + 4 <= keys; k += 4, s += 4 * stride) {
        if (dropout) FTR__S(dropout_factors)(dropout, k, column, factor);
        FTR__UNROLL
        for (int32_t i = 0; i < 4; i++) {
            const FTR__VF p = FTR__S(power_of_two)(FTR__LOAD(s + i * stride) - shift);
            sum[i] += p;
            FTR__STORE(s + i * stride, dropout ? p * factor[i] : p);
        }
    }
    if (dropout && k < keys) FTR__S(dropout_factors)(dropout, k, column, factor);
    for (int32_t i = 0; k + i < keys; i++, s += stride) {
        const FTR__VF p = FTR__S(power_of_two)(FTR__LOAD(s) - shift);
        sum[0] += p;
        FTR__STORE(s, dropout ? p * factor[i] : p);
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static void FTR__S(attention_softmax)(int64_t keys, int64_t columns, int64_t stride,
                                      const ftr__attention_dropout *dropout, float *maximum, float *sum, float *rescale,
                                      float *s) {
    for (int64_t c = 0; c < columns; c += FTR__W) {
        const FTR__VF before = FTR__LOAD(maximum + c), most = FTR__S(column_maxima)(keys, stride, s + c, before);
        const FTR__VF shift = FTR__SELECT(most == -__builtin_inff(), FTR__SPLAT(0.0f), most);
        const FTR__VF factor = FTR__S(power_of_two)(before - shift);
        const FTR__VF more = dropout ? FTR__S(column_weights)(keys, stride, shift, dropout, c, s + c)
                                     : FTR__S(column_weights)(keys, stride, shift, NULL, c, s + c);
        FTR__STORE(maximum + c, most);
        FTR__STORE(rescale + c, factor);
        FTR__STORE(sum + c, FTR__FMA(FTR__LOAD(sum + c), factor, more));
    }
}

static void FTR__S(attention_softmax_end)(int64_t columns, const float *maximum, const float *sum, float *log_sum,
                                          float *inverse) {
    for (int64_t c = 0; c < columns; c += FTR__W) {
        const FTR__VF total = FTR__LOAD(sum + c), most = FTR__LOAD(maximum + c);
        const FTR__VI none = total == 0.0f;
        const FTR__VF log = FTR__FMA(most, FTR__SPLAT(0.693147181f), FTR__S(logarithm)(total));
        FTR__STORE(log_sum + c, FTR__SELECT(none, FTR__SPLAT(-__builtin_inff()), log));
        FTR__STORE(inverse + c, FTR__SELECT(none, FTR__SPLAT(0.0f), 1.0f / total));
    }
}

/* One element; `factor` is NULL without dropout. The product with log2(e) is not rounded before the difference: both
 * are large where scores are. */
FTR__INLINE void FTR__S(attention_slope)(FTR__VF log_sum, FTR__VF mean, const FTR__VF *factor, float *s, float *ds) {
    const FTR__VF p = FTR__S(power_of_two)(FTR__FMA(log_sum, FTR__SPLAT(-1.44269504f), FTR__LOAD(s)));
    FTR__VF d = FTR__LOAD(ds);
    if (factor) d *= *factor;
    FTR__STORE(ds, p * (d - mean));
    FTR__STORE(s, factor ? p * *factor : p);
}

FTR__INLINE void FTR__S(column_slopes)(int64_t keys, int64_t stride, FTR__VF log_sum, FTR__VF mean,
                                       const ftr__attention_dropout *dropout, int64_t column, float *s, float *ds) {
    FTR__VF factor[4];
    int64_t k = 0;
    for (; k + 4 <= keys; k += 4, s += 4 * stride, ds += 4 * stride) {
        if (dropout) FTR__S(dropout_factors)(dropout, k, column, factor);
        FTR__UNROLL
        for (int32_t i = 0; i < 4; i++)
            FTR__S(attention_slope)(log_sum, mean, dropout ? &factor[i] : NULL, s + i * stride, ds + i * stride);
    }
    if (dropout && k < keys) FTR__S(dropout_factors)(dropout, k, column, factor);
    for (int32_t i = 0; k + i < keys; i++, s += stride, ds += stride)
        FTR__S(attention_slope)(log_sum, mean, dropout ? &factor[i] : NULL, s, ds);
}

static void FTR__S(attention_softmax_grad)(int64_t keys, int64_t columns, int64_t stride,
                                           const ftr__attention_dropout *dropout, const float *log_sum,
                                           const float *mean, float *s, float *ds) {
    for (int64_t c = 0; c < columns; c += FTR__W) {
        const FTR__VF natural = FTR__LOAD(log_sum + c), average = FTR__LOAD(mean + c);
        /* Where no key is seen all weights are 0. */
        const FTR__VF log = FTR__SELECT(natural == -__builtin_inff(), FTR__SPLAT(__builtin_inff()), natural);
        if (dropout)
            FTR__S(column_slopes)(keys, stride, log, average, dropout, c, s + c, ds + c);
        else
            FTR__S(column_slopes)(keys, stride, log, average, NULL, c, s + c, ds + c);
    }
}

static void FTR__S(attention_scale_rows)(int64_t rows, int64_t columns, const float *factor, int64_t factor_step,
                                         const float *x, int64_t x_stride, float *y, int64_t y_stride) {
    for (int64_t r = 0; r < rows; r++, factor += factor_step, x += x_stride, y += y_stride) {
        const FTR__VF scale = FTR__SPLAT(*factor);
        int64_t c = *factor == 1.0f && x == y ? columns : 0;
        for (; c + FTR__W <= columns; c += FTR__W) FTR__STORE(y + c, FTR__LOAD(x + c) * scale);
        for (; c < columns; c++) y[c] = x[c] * *factor;
    }
}

/* -------------------------------------------------------------------------------------------------------- rotary -- */

static void FTR__S(rotate_halves)(int64_t half, const float *c, const float *s, const float *x, float *y) {
    for (int64_t i = 0; i < half; i += FTR__W) {
        const int64_t left = half - i;
        const FTR__VF cosine = FTR__S(load_some)(c + i, left), sine = FTR__S(load_some)(s + i, left);
        const FTR__VF a = FTR__S(load_some)(x + i, left), b = FTR__S(load_some)(x + half + i, left);
        FTR__S(store_some)(y + i, FTR__FMA(a, cosine, -(b * sine)), left);
        FTR__S(store_some)(y + half + i, FTR__FMA(b, cosine, a * sine), left);
    }
}

static void FTR__S(rotate_pairs)(int64_t half, const float *c, const float *s, const float *x, float *y) {
    typedef uint64_t pair __attribute__((vector_size(4 * FTR__W)));
    for (int64_t i = 0; i < 2 * half; i += FTR__W) {
        const int64_t left = 2 * half - i;
        const FTR__VF a = FTR__S(load_some)(x + i, left);
        const FTR__VF other = (FTR__VF)(((pair)a << 32) | ((pair)a >> 32));
        const FTR__VF turned = other * FTR__S(load_some)(s + i, left);
        FTR__S(store_some)(y + i, FTR__FMA(a, FTR__S(load_some)(c + i, left), turned), left);
    }
}

#define FTR__SIMD_ATTENTION_FUNCTIONS                                                                                  \
    {                                                                                                                  \
        .tile_columns = FTR__S(attention_tile_columns), .add_tile = FTR__S(attention_add_tile),                        \
        .add_keys = FTR__S(attention_add_keys), .softmax = FTR__S(attention_softmax),                                  \
        .softmax_end = FTR__S(attention_softmax_end), .softmax_grad = FTR__S(attention_softmax_grad),                  \
        .scale_rows = FTR__S(attention_scale_rows), .rotate_halves = FTR__S(rotate_halves),                            \
        .rotate_pairs = FTR__S(rotate_pairs),                                                                          \
    }

/* ---- src/backend/cpu/simd_depthwise.inc.h ---- */
/* ftr__simd_depthwise of one instruction set. Included once a level. Channels that do not fill two vectors go one vector
 * at a time, of which only the lanes that exist are read and written. */
#undef FTR__SIMD_DEPTHWISE_FUNCTIONS

#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
#define FTR__LANES __mmask16
#elif FTR__SIMD_LEVEL == 2
#define FTR__LANES __m256i
#else
#define FTR__LANES int64_t
#endif

/* The first n lanes, all of them if there are more. */
FTR__INLINE FTR__LANES FTR__S(depthwise_lanes)(int64_t n) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (__mmask16)(n >= FTR__W ? 0xffffu : (1u << n) - 1u);
#elif FTR__SIMD_LEVEL == 2
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n >= FTR__W ? FTR__W : (int32_t)n),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
#else
    return n;
#endif
}

FTR__INLINE FTR__VF FTR__S(depthwise_load)(const float *p, FTR__LANES lanes) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (FTR__VF)_mm512_maskz_loadu_ps(lanes, p);
#elif FTR__SIMD_LEVEL == 2
    return (FTR__VF)_mm256_maskload_ps(p, lanes);
#else
    return FTR__S(load_some)(p, lanes);
#endif
}

FTR__INLINE void FTR__S(depthwise_store)(float *p, FTR__VF v, FTR__LANES lanes) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    _mm512_mask_storeu_ps(p, lanes, (__m512)v);
#elif FTR__SIMD_LEVEL == 2
    _mm256_maskstore_ps(p, lanes, (__m256)v);
#else
    FTR__S(store_some)(p, v, lanes);
#endif
}

/* Pixels of the result, side by side or one below the other, that have the same taps: the lists below hold up to
 * FTR__DEPTHWISE_BLOCK of them. `pixels` and `two` are constants where it is used. */
#define FTR__PIXELS(X) X(0) X(1) X(2) X(3) X(4) X(5)
#define FTR__PIXEL_START(i)                                                                                            \
    const float *const x##i = x + (i < pixels ? i : 0) * x_step;                                                       \
    FTR__VF lo##i = bias0, hi##i = bias1;
#define FTR__PIXEL_STEP(i)                                                                                             \
    if (i < pixels) {                                                                                                  \
        lo##i = FTR__FMA(two ? FTR__LOAD(x##i + at) : FTR__S(depthwise_load)(x##i + at, lanes), w0, lo##i);            \
        if (two) hi##i = FTR__FMA(FTR__LOAD(x##i + at + FTR__W), w1, hi##i);                                           \
    }
#define FTR__PIXEL_RELU(i)                                                                                             \
    if (i < pixels) lo##i = FTR__SELECT(lo##i < (FTR__VF){0}, (FTR__VF){0}, lo##i);                                    \
    if (i < pixels && two) hi##i = FTR__SELECT(hi##i < (FTR__VF){0}, (FTR__VF){0}, hi##i);
#define FTR__PIXEL_END(i)                                                                                              \
    if (i < pixels) {                                                                                                  \
        if (two) FTR__STORE(y, lo##i);                                                                                 \
        if (two) FTR__STORE(y + FTR__W, hi##i);                                                                        \
        if (!two) FTR__S(depthwise_store)(y, lo##i, lanes);                                                            \
        y += y_step;                                                                                                   \
    }

FTR__INLINE void FTR__S(depthwise_block)(int32_t pixels, bool two, const ftr__depthwise_run *r, int64_t c,
                                         int64_t tap_rows, int64_t taps, int64_t x_step, int64_t y_step, const float *x,
                                         const float *w, float *y) {
    const FTR__LANES lanes = FTR__S(depthwise_lanes)(r->channels - c);
    const int64_t x_tap = r->x_tap, w_tap = r->w_tap;
    FTR__VF bias0 = {0}, bias1 = {0};
    if (r->bias) bias0 = two ? FTR__LOAD(r->bias + c) : FTR__S(depthwise_load)(r->bias + c, lanes);
    if (r->bias && two) bias1 = FTR__LOAD(r->bias + c + FTR__W);
    FTR__PIXELS(FTR__PIXEL_START)
    for (int64_t p = 0; p < r->planes; p++) {
        for (int64_t s = 0; s < tap_rows; s++) {
            const float *wt = w + p * r->w_plane + s * r->w_tap_row;
            int64_t at = p * r->x_plane + s * r->x_tap_row;
            for (int64_t t = 0; t < taps; t++, at += x_tap, wt += w_tap) {
                const FTR__VF w0 = two ? FTR__LOAD(wt) : FTR__S(depthwise_load)(wt, lanes);
                const FTR__VF w1 = two ? FTR__LOAD(wt + FTR__W) : (FTR__VF){0};
                FTR__PIXELS(FTR__PIXEL_STEP)
            }
        }
    }
    if (r->relu) {
        FTR__PIXELS(FTR__PIXEL_RELU)
    }
    FTR__PIXELS(FTR__PIXEL_END)
}
#undef FTR__PIXELS
#undef FTR__PIXEL_START
#undef FTR__PIXEL_STEP
#undef FTR__PIXEL_RELU
#undef FTR__PIXEL_END

/* Channels c to end - 1 of such pixels. */
typedef struct FTR__S(depthwise_pixels) {
    int64_t c, end, x_step, y_step, tap_rows, taps;
    const float *x, *w;
    float *y;
} FTR__S(depthwise_pixels);

FTR__INLINE void FTR__S(depthwise_channels)(int32_t pixels, const ftr__depthwise_run *r,
                                            const FTR__S(depthwise_pixels) * p) {
    int64_t c = p->c;
    for (; c + 2 * FTR__W <= p->end; c += 2 * FTR__W) FTR__S(depthwise_block)
    (pixels, true, r, c, p->tap_rows, p->taps, p->x_step, p->y_step, p->x + c, p->w + c, p->y + c);
    for (; c < p->end; c += FTR__W) FTR__S(depthwise_block)
    (pixels, false, r, c, p->tap_rows, p->taps, p->x_step, p->y_step, p->x + c, p->w + c, p->y + c);
}

static void FTR__S(depthwise_any)(int64_t pixels, const ftr__depthwise_run *r, const FTR__S(depthwise_pixels) * p) {
    switch (pixels) {
    case 1: FTR__S(depthwise_channels)(1, r, p); break;
    case 2: FTR__S(depthwise_channels)(2, r, p); break;
    case 3: FTR__S(depthwise_channels)(3, r, p); break;
    case 4: FTR__S(depthwise_channels)(4, r, p); break;
    case 5: FTR__S(depthwise_channels)(5, r, p); break;
    default: FTR__S(depthwise_channels)(6, r, p);
    }
}

/* A span of rows by a span of pixels, in blocks along the longer of the two. */
FTR__INLINE void FTR__S(depthwise_spans)(const ftr__depthwise_run *r, const ftr__depthwise_span *row,
                                         const ftr__depthwise_span *pixel, int64_t c, int64_t end) {
    FTR__S(depthwise_pixels) p = {.c = c, .end = end, .tap_rows = row->taps, .taps = pixel->taps};
    const bool along = pixel->count >= row->count;
    p.x_step = along ? r->x_pixel : r->x_row;
    p.y_step = along ? r->y_pixel : r->y_row;
    p.x = r->x + row->x + pixel->x;
    p.w = r->w + row->w + pixel->w;
    p.y = r->y + row->y + pixel->y;
    for (int64_t i = 0; i < (along ? row->count : pixel->count); i++) {
        FTR__S(depthwise_any)(along ? pixel->count : row->count, r, &p);
        p.x += along ? r->x_row : r->x_pixel;
        p.y += along ? r->y_row : r->y_pixel;
    }
}

static void FTR__S(depthwise_run)(const ftr__depthwise_run *r) {
    for (int64_t c = 0; c < r->channels; c += r->chunk) {
        const int64_t end = c + r->chunk < r->channels ? c + r->chunk : r->channels;
        for (int64_t i = 0; i < r->row_span_count; i++)
            for (int64_t k = 0; k < r->pixel_span_count; k++)
                FTR__S(depthwise_spans)(r, &r->row_spans[i], &r->pixel_spans[k], c, end);
    }
}

/* Shapes of taps whose sums are in registers while the pixels go by: rows by columns. */
/* clang-format off */
#define FTR__TAPS_1X1(X) X(0, 0)
#define FTR__TAPS_1X3(X) X(0, 0) X(0, 1) X(0, 2)
#define FTR__TAPS_3X3(X) FTR__TAPS_1X3(X) X(1, 0) X(1, 1) X(1, 2) X(2, 0) X(2, 1) X(2, 2)
#define FTR__TAPS_1X5(X) X(0, 0) X(0, 1) X(0, 2) X(0, 3) X(0, 4)
#define FTR__TAPS_2X5(X) FTR__TAPS_1X5(X) X(1, 0) X(1, 1) X(1, 2) X(1, 3) X(1, 4)
#define FTR__TAPS_5X5(X) FTR__TAPS_2X5(X) \
    X(2, 0) X(2, 1) X(2, 2) X(2, 3) X(2, 4) \
    X(3, 0) X(3, 1) X(3, 2) X(3, 3) X(3, 4) \
    X(4, 0) X(4, 1) X(4, 2) X(4, 3) X(4, 4)
/* clang-format on */

/* The pixels that some columns of taps meet x from, and those that all do. */
typedef struct FTR__S(depthwise_range) {
    int64_t begin, inner_begin, inner_end, end;
} FTR__S(depthwise_range);

FTR__INLINE FTR__S(depthwise_range) FTR__S(depthwise_range_of)(const ftr__depthwise_sums *r) {
    FTR__S(depthwise_range) all = {r->first[0], r->first[0], r->last[0], r->last[0]};
    for (int64_t t = 1; t < r->taps; t++) {
        all.begin = r->first[t] < all.begin ? r->first[t] : all.begin;
        all.end = r->last[t] > all.end ? r->last[t] : all.end;
        all.inner_begin = r->first[t] > all.inner_begin ? r->first[t] : all.inner_begin;
        all.inner_end = r->last[t] < all.inner_end ? r->last[t] : all.inner_end;
    }
    if (all.inner_end < all.inner_begin) all.inner_begin = all.inner_end = all.end;
    return all;
}

#define FTR__TAP_LOAD(p) (whole ? FTR__LOAD(p) : FTR__S(depthwise_load)(p, lanes))
#define FTR__TAP_START(s, t) FTR__VF sum##s##t = {0};
#define FTR__TAP_STEP(s, t) sum##s##t = FTR__FMA(d, FTR__TAP_LOAD(x##s + (at + t * x_tap)), sum##s##t);
#define FTR__TAP_EDGE(s, t)                                                                                            \
    if (i >= r->first[t] && i < r->last[t]) FTR__TAP_STEP(s, t)
#define FTR__TAP_END(s, t)                                                                                             \
    {                                                                                                                  \
        float *const to = r->sum + (row + s) * r->sum_tap_row + t * r->sum_tap + c;                                    \
        if (whole)                                                                                                     \
            FTR__STORE(to, FTR__LOAD(to) + sum##s##t);                                                                 \
        else                                                                                                           \
            FTR__S(depthwise_store)(to, FTR__TAP_LOAD(to) + sum##s##t, lanes);                                         \
    }
#define FTR__TAP_PIXELS(taps, step, end)                                                                               \
    for (; i < (end); i++, dy += dy_pixel, at += x_pixel) {                                                            \
        const FTR__VF d = FTR__TAP_LOAD(dy);                                                                           \
        taps(step)                                                                                                     \
    }
/* A function for one shape, whose first row is row `row` of all taps; `whole` is a constant where it is used. */
#define FTR__TAP_SUMS(name, taps)                                                                                      \
    FTR__INLINE void FTR__S(name)(bool whole, const ftr__depthwise_sums *r, const FTR__S(depthwise_range) * all,       \
                                  int64_t row, int64_t c) {                                                            \
        const FTR__LANES lanes = FTR__S(depthwise_lanes)(r->channels - c);                                             \
        const int64_t dy_pixel = r->dy_pixel, x_pixel = r->x_pixel, x_tap = r->x_tap, next = r->x_tap_row;             \
        const float *const x0 = r->x, *const x1 = x0 + next, *const x2 = x1 + next, *const x3 = x2 + next;             \
        const float *const x4 = x3 + next;                                                                             \
        (void)x1, (void)x2, (void)x3, (void)x4;                                                                        \
        taps(FTR__TAP_START);                                                                                          \
        for (int64_t k = 0; k < r->rows; k++) {                                                                        \
            int64_t i = all->begin, at = r->at + k * r->x_row + row * next + c + i * x_pixel;                          \
            const float *dy = r->dy + k * r->dy_row + c + i * dy_pixel;                                                \
            FTR__TAP_PIXELS(taps, FTR__TAP_EDGE, all->inner_begin)                                                     \
            FTR__TAP_PIXELS(taps, FTR__TAP_STEP, all->inner_end)                                                       \
            FTR__TAP_PIXELS(taps, FTR__TAP_EDGE, all->end)                                                             \
        }                                                                                                              \
        taps(FTR__TAP_END)                                                                                             \
    }
FTR__TAP_SUMS(depthwise_sums_1x1, FTR__TAPS_1X1)
FTR__TAP_SUMS(depthwise_sums_1x3, FTR__TAPS_1X3)
FTR__TAP_SUMS(depthwise_sums_3x3, FTR__TAPS_3X3)
FTR__TAP_SUMS(depthwise_sums_1x5, FTR__TAPS_1X5)
FTR__TAP_SUMS(depthwise_sums_2x5, FTR__TAPS_2X5)
#if FTR__SIMD_LEVEL == 1 || FTR__SIMD_LEVEL == 3 /* 32 registers */
FTR__TAP_SUMS(depthwise_sums_5x5, FTR__TAPS_5X5)
#endif
#undef FTR__TAP_LOAD
#undef FTR__TAP_START
#undef FTR__TAP_STEP
#undef FTR__TAP_EDGE
#undef FTR__TAP_END
#undef FTR__TAP_PIXELS
#undef FTR__TAP_SUMS
#undef FTR__TAPS_1X1
#undef FTR__TAPS_1X3
#undef FTR__TAPS_3X3
#undef FTR__TAPS_1X5
#undef FTR__TAPS_2X5
#undef FTR__TAPS_5X5

/* The sums of one vector of channels, as many taps at once as there is a shape for. */
FTR__INLINE void FTR__S(depthwise_sums_at)(bool whole, const ftr__depthwise_sums *r,
                                           const FTR__S(depthwise_range) * all, int64_t c) {
    int64_t row = 0;
#if FTR__SIMD_LEVEL == 1 || FTR__SIMD_LEVEL == 3
    for (; r->taps == 5 && row + 5 <= r->tap_rows; row += 5) FTR__S(depthwise_sums_5x5)(whole, r, all, row, c);
#endif
    for (; r->taps == 5 && row + 2 <= r->tap_rows; row += 2) FTR__S(depthwise_sums_2x5)(whole, r, all, row, c);
    for (; r->taps == 3 && row + 3 <= r->tap_rows; row += 3) FTR__S(depthwise_sums_3x3)(whole, r, all, row, c);
    for (; row < r->tap_rows; row++) {
        if (r->taps == 5)
            FTR__S(depthwise_sums_1x5)(whole, r, all, row, c);
        else if (r->taps == 3)
            FTR__S(depthwise_sums_1x3)(whole, r, all, row, c);
        else
            FTR__S(depthwise_sums_1x1)(whole, r, all, row, c);
    }
}

static void FTR__S(depthwise_sums)(const ftr__depthwise_sums *r) {
    const FTR__S(depthwise_range) all = FTR__S(depthwise_range_of)(r);
    int64_t c = 0;
    for (; c + FTR__W <= r->channels; c += FTR__W) FTR__S(depthwise_sums_at)(true, r, &all, c);
    if (c < r->channels) FTR__S(depthwise_sums_at)(false, r, &all, c);
}
#undef FTR__LANES

#define FTR__SIMD_DEPTHWISE_FUNCTIONS                                                                                  \
    { .run = FTR__S(depthwise_run), .sums = FTR__S(depthwise_sums) }

static const ftr__simd FTR__S(simd) = {
    .gemm = FTR__SIMD_GEMM_FUNCTIONS,
    .depthwise = FTR__SIMD_DEPTHWISE_FUNCTIONS,
    .math = FTR__SIMD_MATH_FUNCTIONS,
    .attention = FTR__SIMD_ATTENTION_FUNCTIONS,
};

/* ---- src/backend/cpu/simd_end.inc.h ---- */
/* Closes what simd_begin.inc.h opened. */
#ifdef FTR__TARGET
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
#undef FTR__TARGET
#undef FTR__S
#undef FTR__W
#undef FTR__UNROLL
#undef FTR__MR
#undef FTR__ROWS
#undef FTR__VF
#undef FTR__VI
#undef FTR__VU
#undef FTR__INLINE
#undef FTR__LOAD
#undef FTR__STORE
#undef FTR__SPLAT
#undef FTR__FMA
#undef FTR__SELECT
#endif
#endif /* FTR__TEMPLATE_PASS */

/*
MIT License

Copyright (c) 2026 The fasttrain authors

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
*/
