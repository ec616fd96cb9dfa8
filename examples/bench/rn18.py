"""PyTorch's twin of rn18.c."""

import torchvision
import twin
from torch import nn


def network():
    made = torchvision.models.resnet18(num_classes=10)
    made.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(made.conv1.weight, mode="fan_out", nonlinearity="relu")
    made.maxpool = nn.Identity()
    return made


if __name__ == "__main__":
    twin.train(network, (64, 3, 32, 32), 10, twin.sgd)
