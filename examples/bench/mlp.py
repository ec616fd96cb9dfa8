"""PyTorch's twin of mlp.c."""

import twin
from torch import nn


def network():
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


if __name__ == "__main__":
    twin.train(network, (128, 784), 10, twin.adamw(1e-3))
