/* The library's models by name, as tests and the parity harness build them, and values for their weights that Python
 * computes alike (tests/parity/weights.py). */
#ifndef FTR_TESTS_SUPPORT_MODEL_ZOO_H
#define FTR_TESTS_SUPPORT_MODEL_ZOO_H

#include "fasttrain.h"

typedef struct zoo_options {
    int64_t classes;    /* 0: the model's default */
    bool random;        /* dropout and stochastic depth as they are by default; otherwise both are 0 */
    bool features_only; /* without the classifier */
} zoo_options;

typedef struct zoo_model {
    const char *name;
    ftr_dtype input_dtype;                                             /* FTR_F32: an image, FTR_I32: tokens */
    ftr_shape input;                                                   /* a usual one, of a batch of 1 */
    ftr_tensor (*build)(ftr_tensor input, const zoo_options *options); /* the logits [.., classes] */
} zoo_model;

/* Model number `index`; NULL past the last. */
const zoo_model *zoo_at(int32_t index);

/* The model of this name; NULL if there is none. */
const zoo_model *zoo_find(const char *name);

/* Whether the tests are to run a model: of the environment variable FTR_TEST_MODELS, names with spaces between them, or
 * all of them without it. The sanitizers' targets choose some: the others have the same kinds of layers. */
bool zoo_is_wanted(const char *name);

/* A model with its inputs and the loss that the tests train it by, cross entropy. */
typedef struct zoo_network {
    ftr_tensor x, y; /* "x", and the labels "y", of the logits' shape without the last dimension */
    ftr_tensor logits, loss;
} zoo_network;

/* Builds a model on an input of a shape. */
zoo_network zoo_build(ftr_graph *graph, const zoo_model *model, ftr_shape input, const zoo_options *options);

/* The graph's parameters, in the order of declaration. The caller frees the list; NULL when memory is short. */
ftr_tensor *zoo_parameters(ftr_graph *graph, int32_t *count);

/* Bytes of a tensor. */
size_t zoo_bytes(ftr_tensor tensor);

/* ------------------------------------------------------------------------------------- values as in weights.py -- */

/* FNV-1a of a name, the state of a generator splitmix64; that generator's output number `index`; the upper 24 bits of it
 * as a number from 0 to 1. */
uint64_t zoo_hash(const char *name);
uint64_t zoo_bits(uint64_t hash, int64_t index);
double zoo_uniform(const char *name, int64_t index);

/* Position in a file's layout (OIHW for a rank of 4, that is of convolution weights) of element `index` in memory. */
int64_t zoo_file_index(const ftr_shape *shape, int64_t index);

/* Gives all parameters and buffers the values of weights.weights(), also for `bias` and `positive`. */
ftr_status zoo_fill_weights(ftr_graph *graph, double bias, bool positive);

/* Feeds what parity.make_input() makes of "prefix/x" and "prefix/y": images with mean 0 and variance 1; labels and tokens
 * below the number of classes. */
ftr_status zoo_feed(ftr_plan *plan, const zoo_network *net, const char *prefix);

#endif
