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
 * names: ftr_load_weights() reads its state_dict, saved as safetensors, and PyTorch reads what ftr_save_weights() wrote.
 *
 * Images are f32 [n, h, w, channels] with any number of channels. `desc` may be NULL. With `features_only` the classifier
 * is left out, its dropout and its hidden layer included; the result is what it would have got, [n, features].
 *
 * A mistake (an image of another rank, type or size, an option outside what is documented) is the graph's sticky error,
 * which names the model and its scope. */

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

/* 0 in a field means its default. */
typedef struct ftr_resnet_desc {
    int32_t depth;           /* 18, 34, 50, 101 or 152; default 50 */
    int64_t classes;         /* default 1000 */
    bool small_images;       /* for images as CIFAR's: conv1 is 3x3 with stride 1, and no pooling follows it */
    bool zero_init_residual; /* the last batch norm of each block starts with weight 0, so that the block starts as x */
    bool features_only;      /* [n, 512], from depth 50 on [n, 2048] */
} ftr_resnet_desc;

/* ResNet (He et al.: Deep Residual Learning for Image Recognition, CVPR 2016) as torchvision's resnet18 to resnet152: from
 * depth 50 on the stride is on the 3x3 convolution ("v1.5"). */
FTR_API ftr_tensor ftr_resnet(ftr_tensor image, const ftr_resnet_desc *desc);

/* 0 in a field means its default. */
typedef struct ftr_resnet_cifar_desc {
    int32_t depth;      /* 6 n + 2: 20, 32, 44, 56, 110 ...; default 20 */
    int64_t classes;    /* default 10 */
    bool features_only; /* [n, 64] */
} ftr_resnet_cifar_desc;

/* The small ResNet of section 4.2 of the same paper: 3 groups of n blocks with 16, 32 and 64 channels; where the size
 * changes the shortcut takes every second pixel and pads the channels with zeros, half in front and half behind (its
 * "option A", without parameters). Names conv1, bn1, layer1.0.conv1, ..., linear. Kaiming normal initialization by
 * fan_in of convolutions and of linear.weight. */
FTR_API ftr_tensor ftr_resnet_cifar(ftr_tensor image, const ftr_resnet_cifar_desc *desc);

/* From ftr_mobilenet_v2_defaults(). */
typedef struct ftr_mobilenet_v2_desc {
    uint32_t cookie;
    int64_t classes;    /* 1000 */
    double width;       /* factor of the numbers of channels, above 0 to 16; 1 */
    double dropout;     /* 0.2 */
    bool features_only; /* [n, 1280] */
} ftr_mobilenet_v2_desc;

/* 1000 classes, width 1, dropout 0.2. */
FTR_API ftr_mobilenet_v2_desc ftr_mobilenet_v2_defaults(void);

/* MobileNetV2 (Sandler et al., CVPR 2018) as torchvision's mobilenet_v2. */
FTR_API ftr_tensor ftr_mobilenet_v2(ftr_tensor image, const ftr_mobilenet_v2_desc *desc);

/* From ftr_mobilenet_v3_defaults(). */
typedef struct ftr_mobilenet_v3_desc {
    uint32_t cookie;
    bool small;         /* the small network; otherwise the large one */
    int64_t classes;    /* 1000 */
    double width;       /* factor of the numbers of channels, above 0 to 16; 1 */
    double dropout;     /* 0.2 */
    bool features_only; /* [n, 960], small [n, 576]: before both linear layers */
} ftr_mobilenet_v3_desc;

/* The large network, 1000 classes, width 1, dropout 0.2. */
FTR_API ftr_mobilenet_v3_desc ftr_mobilenet_v3_defaults(void);

/* MobileNetV3 (Howard et al.: Searching for MobileNetV3, ICCV 2019) as torchvision's mobilenet_v3_large and
 * mobilenet_v3_small. */
FTR_API ftr_tensor ftr_mobilenet_v3(ftr_tensor image, const ftr_mobilenet_v3_desc *desc);

/* From ftr_efficientnet_defaults(). */
typedef struct ftr_efficientnet_desc {
    uint32_t cookie;
    int32_t variant;         /* 0, 1, 2: B0, B1, B2 */
    int64_t classes;         /* 1000 */
    double dropout;          /* B0 and B1 0.2, B2 0.3 */
    double stochastic_depth; /* block i of n is left out with probability stochastic_depth * i / n; 0.2 */
    bool features_only;      /* [n, 1280], B2 [n, 1408] */
} ftr_efficientnet_desc;

/* A variant with 1000 classes, its dropout, stochastic depth 0.2. */
FTR_API ftr_efficientnet_desc ftr_efficientnet_defaults(int32_t variant);

/* EfficientNet (Tan, Le: EfficientNet, ICML 2019) as torchvision's efficientnet_b0 to efficientnet_b2. NULL is B0. */
FTR_API ftr_tensor ftr_efficientnet(ftr_tensor image, const ftr_efficientnet_desc *desc);

/* From ftr_efficientnet_lite0_defaults(). */
typedef struct ftr_efficientnet_lite0_desc {
    uint32_t cookie;
    int64_t classes;         /* 1000 */
    double dropout;          /* 0.2 */
    double stochastic_depth; /* block i of n is left out with probability stochastic_depth * i / n; 0.2 */
    bool features_only;      /* [n, 1280] */
} ftr_efficientnet_lite0_desc;

/* 1000 classes, dropout 0.2, stochastic depth 0.2. */
FTR_API ftr_efficientnet_lite0_desc ftr_efficientnet_lite0_defaults(void);

/* EfficientNet-Lite0 (TensorFlow's efficientnet/lite: B0 with ReLU6 and without squeeze-excite) with the names of the
 * package efficientnet-lite-pytorch: _conv_stem, _bn0, _blocks.0._depthwise_conv, ..., _fc. Convolutions with a stride pad
 * as TensorFlow's "same" for the image at hand: the odd row and column at bottom and right. PyTorch's default
 * initialization. */
FTR_API ftr_tensor ftr_efficientnet_lite0(ftr_tensor image, const ftr_efficientnet_lite0_desc *desc);

#ifdef __cplusplus
}
#endif

#endif
