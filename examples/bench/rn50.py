"""PyTorch's twin of rn50.c."""

import torchvision
import twin

if __name__ == "__main__":
    twin.train(torchvision.models.resnet50, (16, 3, 224, 224), 1000, twin.sgd)
