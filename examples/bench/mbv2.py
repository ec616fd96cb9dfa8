"""PyTorch's twin of mbv2.c."""

import torchvision
import twin

if __name__ == "__main__":
    twin.train(torchvision.models.mobilenet_v2, (16, 3, 224, 224), 1000, twin.sgd)
