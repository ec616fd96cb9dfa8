/* What several models are built of. Written, as all of models/, on the public API alone. */
#ifndef FTR_MODELS_BLOCKS_H
#define FTR_MODELS_BLOCKS_H

#include "api/models.h"
#include "core/lib.h"

/* The graph of an f32 image [n, h, w, c] of at least min_size x min_size pixels and one channel; NULL with the mistake
 * recorded under the model's name, or if the graph has failed before. */
FTR_LIB ftr_graph *ftr__model_image(const char *model, ftr_tensor image, int64_t min_size);

/* Whether a probability is one, NaN being none; otherwise the mistake is recorded with the option's name. */
FTR_LIB bool ftr__model_probability(ftr_graph *graph, const char *model, const char *option, double p);

/* `asked`, or `otherwise` where it is 0; 0 with the mistake recorded if it is negative. */
FTR_LIB int64_t ftr__model_classes(ftr_graph *graph, const char *model, int64_t asked, int64_t otherwise);

/* ftr_dropout(), or x itself where p is 0. */
FTR_LIB ftr_tensor ftr__model_dropout(ftr_tensor x, double p);

#endif
