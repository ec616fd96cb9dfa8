/* Cases of ops.safetensors and its kin: groups of tensors "<op>/<number>/<name>" as make_goldens.py writes them. */
#ifndef FTR_TESTS_GOLDENS_GOLDEN_CASES_H
#define FTR_TESTS_GOLDENS_GOLDEN_CASES_H

#include "ftr_test.h"

#define GOLDEN_MAX_INPUTS 8

/* One case while it is being built. */
typedef struct golden_case {
    ftr_context *context;
    const ftr_safetensors *file;
    char prefix[64]; /* "conv2d/3/" */
    ftr_graph *graph;
    ftr_mode mode;
    int32_t input_count;
    ftr_tensor inputs[GOLDEN_MAX_INPUTS];
    const char *input_names[GOLDEN_MAX_INPUTS];
    int32_t buffer_count; /* buffers whose value after the step is in the file */
    ftr_tensor buffers[GOLDEN_MAX_INPUTS];
    const char *buffer_names[GOLDEN_MAX_INPUTS];
    const char *buffer_results[GOLDEN_MAX_INPUTS];
} golden_case;

/* Builds the case's op and returns its result; NULL for an op whose run is a test of its own. */
typedef ftr_tensor (*golden_build_fn)(golden_case *c);

typedef struct golden_op {
    const char *name;
    golden_build_fn build;
} golden_op;

/* The ops of one file; golden_cases.c lists the files. */
typedef struct golden_family {
    const golden_op *ops;
    size_t count;
} golden_family;

extern const golden_family golden_rest;
extern const golden_family golden_attention; /* golden_attention.c */
extern const golden_family golden_image;     /* golden_image.c */
extern const golden_family golden_mix;       /* golden_mix.c */

/* Op number `index` of all families; NULL past the last. */
const golden_op *golden_op_at(size_t index);

/* The case's tensor of this name; false if there is none. */
bool golden_find(const golden_case *c, const char *name, ftr_safetensors_entry *entry);

/* The same; fails the test if there is none. */
ftr_safetensors_entry golden_get(const golden_case *c, const char *name);

ftr_shape golden_shape(const ftr_safetensors_entry *entry);

/* Inputs and buffers of the graph with the case's type, shape and data; the second is null if the case lacks it. */
ftr_tensor golden_in(golden_case *c, const char *name);
ftr_tensor golden_in_if_there(golden_case *c, const char *name);
ftr_tensor golden_buffer(golden_case *c, const char *name, const char *result);

/* Attributes. */
void golden_pair(const golden_case *c, const char *name, int32_t to[2]);
void golden_four(const golden_case *c, const char *name, int32_t to[4]);
ftr_axes golden_axes(const golden_case *c, const char *name);
ftr_shape golden_shape_of(const golden_case *c, const char *name);

/* The entry's elements in aligned memory of the caller's, to be freed. */
void *golden_copy(const ftr_safetensors_entry *entry);

/* Element `index` of an attribute. */
int64_t golden_i64(const golden_case *c, const char *name, int64_t index);
double golden_f64(const golden_case *c, const char *name, int64_t index);

/* Compares `count` elements with an entry's. f32: within 1e-5 of the value and 4e-6 of the largest finite value; NaN
 * and infinities must be the same. Other types must be equal. */
void golden_compare(const golden_case *c, const char *name, const ftr_safetensors_entry *expected, const void *actual);

#endif
