"""PyTorch's twin of effb0.c."""

import torchvision
import twin

if __name__ == "__main__":
    twin.train(torchvision.models.efficientnet_b0, (16, 3, 224, 224), 1000, twin.sgd)
