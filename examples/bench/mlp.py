"""PyTorch's twin of mlp.c."""

import twin
from torch import nn

network = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))

if __name__ == "__main__":
    twin.main("mlp", network, (784,))
