"""The PyTorch models that fasttrain's are compared with: torchvision's, those of packages, and what neither has."""

import dataclasses
from typing import Callable

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class Reference:
    """`build` makes the model with dropout and stochastic depth off. `input` is the shape of a batch, images as NHWC;
    sizes are such that PyTorch's own error in single precision is small."""

    build: Callable[[], nn.Module]
    input: tuple
    classes: int
    tokens: int = 0  # 0: images; otherwise the size of the vocabulary
    bias: float = 1.0  # size of the biases of normalizations


def mlp(classes=10):
    return nn.Sequential(nn.Linear(20, 64), nn.SiLU(), nn.Linear(64, 32), nn.SiLU(), nn.Linear(32, classes))


class MnistCnn(nn.Module):
    """The network of github.com/pytorch/examples, mnist/main.py, up to its logits, without dropout."""

    def __init__(self, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, classes)

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = F.max_pool2d(x, 2).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


REFERENCES = {
    "mlp": Reference(mlp, (8, 20), 10),
    "mnist_cnn": Reference(MnistCnn, (4, 28, 28, 1), 10),
}


def as_input(reference, x):
    """A batch as the model takes it: NHWC images become NCHW."""
    return x.permute(0, 3, 1, 2) if x.dim() == 4 else x.long() if reference.tokens else x


def loss_of(logits, labels):
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten().long())
