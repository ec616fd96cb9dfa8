/* The graph's insides. Nodes and values are arrays; a value's id is its index, 0 is invalid. A node's outputs are
 * consecutive values. Nodes only refer to values of earlier nodes, so the order of creation is a topological one. */
#ifndef FTR_GRAPH_GRAPH_H
#define FTR_GRAPH_GRAPH_H

#include "tensor/tensor.h"

#define FTR__MAX_OUTPUTS 4

typedef struct ftr__value {
    int32_t node;   /* that produces it */
    int32_t output; /* which of the node's outputs */
    ftr_dtype dtype;
    ftr_shape shape;
} ftr__value;

/* When a node of a plan runs. */
typedef enum ftr__stage {
    FTR__STAGE_COMPUTE = 0, /* in each step: forward, backward, sums of gradients, running statistics */
    FTR__STAGE_MEASURE,     /* in each step, behind the sums of gradients */
    FTR__STAGE_UPDATE,      /* in the step that ends a group of micro-batches */
    FTR__STAGE_SWAP         /* not in a step: when the averages are exchanged with the variables */
} ftr__stage;

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
    bool backward;       /* made by differentiation, or of what it made */
    ftr__stage stage;
    bool recomputed;     /* a second run of a forward node, for the backward pass */
    bool keep_f32;       /* mixed precision takes it for an op of class F32 */
    int32_t like; /* cast: mixed precision gives the result the type of this value, a gradient's; 0: attr says it */
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
    uint64_t variable_version;      /* counts what may have changed it */
    size_t variable_bytes;          /* parameters first, then buffers */
};

/* Adds a node; infers its outputs; returns the first of them. On any error: records it (if it is the graph's first) and
 * returns an invalid handle. `name` may be NULL; it is put behind the scope. in[i] may be null where the op allows. A node
 * without outputs (an update) returns an invalid handle without an error. */
FTR_LIB ftr_tensor ftr__emit(ftr_graph *graph, ftr_op op, const char *name, const ftr_op_attr *attr, const ftr_tensor *in,
                             int32_t in_count);

/* Adds an input, parameter, buffer or constant (its name may be NULL): checks name, type and shape. */
FTR_LIB ftr_tensor ftr__add_source(ftr_graph *graph, ftr_op op, const char *name, ftr_dtype dtype, ftr_shape shape);

/* The types of a node's outputs with its inputs as they are now. False if the op does not take them; that is recorded as
 * ftr__emit() does, unless `quiet`. */
FTR_LIB bool ftr__infer_types(ftr_graph *graph, const ftr__node *node, bool quiet, ftr_dtype types[FTR__MAX_OUTPUTS]);

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

/* Fixes where each variable will lie, and gives the bytes of all of them together. */
FTR_LIB size_t ftr__graph_place_variables(ftr_graph *graph);

/* Allocates and initializes the variables' memory if that has not happened. */
FTR_LIB ftr_status ftr__graph_materialize(ftr_graph *graph);

/* A copy for a plan to work on: same ids; its own arena; no variable memory of its own. */
FTR_LIB ftr_graph *ftr__graph_clone(const ftr_graph *graph);

/* Makes every use of value `from` a use of `to`. */
FTR_LIB void ftr__graph_replace(ftr_graph *graph, int32_t from, int32_t to);

#endif
