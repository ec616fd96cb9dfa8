#ifndef FTR_API_MODELS_H
#define FTR_API_MODELS_H

#include "api/ops.h"

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

#endif
