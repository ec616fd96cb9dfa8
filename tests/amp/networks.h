/* The networks of tests/goldens, an MLP on handwritten digits and a ResNet-8 on 16x16 patterns, with their first weights and
 * their 50 batches, for the tests of mixed precision. */
#ifndef FTR_TESTS_AMP_NETWORKS_H
#define FTR_TESTS_AMP_NETWORKS_H

#include "ftr_test.h"

typedef enum network_kind { NETWORK_MLP, NETWORK_RESNET8, NETWORK_COUNT } network_kind;

typedef struct network {
    ftr_context *context;
    ftr_graph *graph;
    ftr_tensor x, labels, logits, loss;
    ftr_safetensors *data;
    ftr_safetensors_entry images, classes; /* [steps, batch, ...] */
    float offset, factor;                  /* from u8 to the input */
    int64_t steps, batch;
} network;

extern const char *const network_names[NETWORK_COUNT];

/* Builds the graph and loads the weights that the goldens' runs start from. */
network network_open(ftr_context *context, network_kind kind);
void network_close(network *n);

/* Feeds batch number `step`. */
void network_feed(const network *n, ftr_plan *plan, int64_t step);

/* The optimizers of the goldens' runs: SGD with momentum, AdamW. */
ftr_optimizer network_sgd(network_kind kind);
ftr_optimizer network_adamw(network_kind kind);

#endif
