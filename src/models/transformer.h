/* What the transformers share. */
#ifndef FTR_MODELS_TRANSFORMER_H
#define FTR_MODELS_TRANSFORMER_H

#include "api/models_transformer.h"
#include "models/blocks.h"

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

#endif
