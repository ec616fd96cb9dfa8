"""What the PyTorch twins of the benchmarks share; bench.h says what the options and the figures mean.

    python3 examples/bench/mlp.py --mode compile --threads 2 --seconds 5

The fastest that PyTorch has on a CPU is what counts: the optimizer is the fused one, gradients are set to None, the loss is
not read back, `--mode` picks the layout and torch.compile (forward and loss in one function), and --dtype bf16 is autocast.
"""

import time

START = time.perf_counter()  # the imports below are part of the time to the first step

import rounds
import torch
import torch.nn.functional as F

ENGINE = f"torch-{torch.__version__.split('+')[0]}"


def parse():
    options = rounds.parse(("eager", "channels_last", "compile", "compile_channels_last"))
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    return options


def adamw(lr):
    return lambda parameters: torch.optim.AdamW(parameters, lr=lr, fused=True)


def sgd(parameters):
    """The optimizer of the convolutional networks."""
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=1e-4, fused=True)


def data(shape, classes, tokens):
    """Batches of images, or of tokens, and their labels."""
    if tokens:
        return torch.randint(classes, (2, rounds.POOL, *shape))
    return torch.rand(rounds.POOL, *shape), torch.randint(classes, (rounds.POOL, shape[0]))


def train(make_network, shape, classes, optimizer, tokens=False):
    """Trains a network on the cross entropy; `shape` is a batch's, images as NCHW."""
    options = parse()
    network = make_network()
    inputs, labels = (list(part) for part in data(shape, classes, tokens))
    if "channels_last" in options.mode:
        network = network.to(memory_format=torch.channels_last)
        inputs = [batch.contiguous(memory_format=torch.channels_last) for batch in inputs]

    def forward(x, y):
        with torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bf16"):
            return F.cross_entropy(network(x).flatten(0, -2), y.flatten())

    loss_of = torch.compile(forward) if "compile" in options.mode else forward
    updates = optimizer(network.parameters())

    def step(index):
        updates.zero_grad(set_to_none=True)
        loss = loss_of(inputs[index % rounds.POOL], labels[index % rounds.POOL])
        loss.backward()
        updates.step()
        return loss.detach()

    parameters = sum(parameter.numel() for parameter in network.parameters())
    rounds.run(options, ENGINE, shape[0], parameters, step, torch.Tensor.item, START)
