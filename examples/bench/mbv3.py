"""PyTorch's twin of mbv3.c."""

import torchvision
import twin

if __name__ == "__main__":
    twin.train(torchvision.models.mobilenet_v3_large, (16, 3, 224, 224), 1000, twin.sgd)
