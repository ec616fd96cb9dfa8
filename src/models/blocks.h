/* What several models are built of. Written, as all of models/, on the public API alone. */
#ifndef FTR_MODELS_BLOCKS_H
#define FTR_MODELS_BLOCKS_H

#include "api/models.h"
#include "core/linkage.h"

typedef ftr_tensor (*ftr__activation_fn)(ftr_tensor x);

/* ------------------------------------------------------------------------------------------------------- options -- */

/* The graph of a floating-point image [n, h, w, c] of at least min_size x min_size pixels and one channel; NULL with the
 * mistake recorded under the model's name, or if the graph has failed before. */
FTR_LIB ftr_graph *ftr__model_image(const char *model, ftr_tensor image, int64_t min_size);

/* Whether a probability is one, NaN being none; otherwise the mistake is recorded with the option's name. */
FTR_LIB bool ftr__model_probability(ftr_graph *graph, const char *model, const char *option, double p);

/* Whether a description has its cookie; otherwise the mistake is recorded with the name of the function that sets it. */
FTR_LIB bool ftr__model_cookie(ftr_graph *graph, const char *model, bool right);

/* `asked`, or `otherwise` where it is 0; 0 with the mistake recorded if it is negative. */
FTR_LIB int64_t ftr__model_classes(ftr_graph *graph, const char *model, int64_t asked, int64_t otherwise);

/* `channels`, rounded to the nearest multiple of 8 that is at least 8 and at least 9/10 of it. */
FTR_LIB int64_t ftr__divisible_channels(double channels);

/* -------------------------------------------------------------------------------------------------------- blocks -- */

/* ftr_scope_push() of a name made as by printf(). */
FTR_LIB void ftr__model_scope(ftr_graph *graph, const char *format, ...) FTR_PRINTF(2, 3);

/* torchvision's Conv2dNormActivation. */
typedef struct ftr__conv_norm_act {
    int64_t channels; /* of the result */
    int32_t kernel, stride;
    bool depthwise;
    const ftr_batch_norm_desc *norm;
    ftr__activation_fn activation; /* NULL: none */
} ftr__conv_norm_act;

/* "scope.0", a convolution without bias whose padding keeps the size, Kaiming normal by fan_out; "scope.1", batch norm;
 * the activation. */
FTR_LIB ftr_tensor ftr__conv_norm(ftr_tensor x, const char *scope, const ftr__conv_norm_act *layer);

/* torchvision's SqueezeExcitation (Hu et al., CVPR 2018), its linear layers as 1x1 convolutions "scope.fc1" and
 * "scope.fc2": x times gate(fc2(activation(fc1(mean of x over the image)))). */
FTR_LIB ftr_tensor ftr__squeeze_excite(ftr_tensor x, const char *scope, int64_t squeezed, ftr__activation_fn activation,
                                       ftr__activation_fn gate);

/* The block of MobileNetV3 and EfficientNet. */
typedef struct ftr__inverted_residual {
    int64_t expanded, channels; /* in between, of the result */
    int64_t squeezed;           /* 0: no squeeze-excite */
    int32_t kernel, stride;
    const ftr_batch_norm_desc *norm;
    ftr__activation_fn activation, squeeze_activation, gate;
    double stochastic_depth;
} ftr__inverted_residual;

/* In the scope "block", numbered from 0 without gaps: 1x1 expansion if it changes the number of channels, depthwise
 * convolution, squeeze-excite, 1x1 projection; plus x where shapes allow and the stride is 1. */
FTR_LIB ftr_tensor ftr__inverted_residual_block(ftr_tensor x, const ftr__inverted_residual *block);

#endif
