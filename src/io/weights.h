/* Variables as files have them: PyTorch's names and layout. */
#ifndef FTR_IO_WEIGHTS_H
#define FTR_IO_WEIGHTS_H

#include "graph/graph.h"

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

/* What a file calls the shape of a convolution weight, or of what is laid out as one; *window becomes H * W. The rank
 * is more than 2. */
FTR_LIB ftr_shape ftr__weight_shape(const ftr_shape *memory, int64_t *window);

/* Variable number `index`. */
FTR_LIB ftr__weight ftr__weight_of(ftr_graph *graph, int32_t index);

/* Copies [count, rows, columns] to [count, columns, rows]. OHWI to OIHW is this with H*W rows and I columns; back, with
 * I rows and H*W columns. Neither side need be aligned. */
FTR_LIB void ftr__weight_transpose(void *to, const void *from, int64_t count, int64_t rows, int64_t columns,
                                   size_t size);

#endif
