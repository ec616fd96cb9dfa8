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

/* Position in a file's layout (OIHW for a rank of 4, that is of convolution weights) of element `index` in memory. */
int64_t zoo_file_index(const ftr_shape *shape, int64_t index);

/* A number from 0 to 1 (2^-24 below it), a function of name and index alone: output number `index` of the generator
 * splitmix64 whose state is the FNV-1a hash of the name; its upper 24 bits. */
double zoo_uniform(const char *name, int64_t index);

/* Fills an image of `count` numbers with mean 0 and variance 1, labels or tokens from 0 to limit - 1. */
void zoo_fill_image(const char *name, float *data, int64_t count);
void zoo_fill_integers(const char *name, int32_t *data, int64_t count, int64_t limit);

/* Gives all parameters and buffers the values that tests/parity/weights.py gives them: see weight_value() there,
 * also for `bias` and `positive`. */
ftr_status zoo_fill_weights(ftr_graph *graph, double bias, bool positive);

#endif
