"""What the PyTorch twins of the benchmarks share; bench.h says what the figures mean.

    python3 examples/bench/mlp.py --mode compile --threads 2 --seconds 5

The fastest PyTorch has on a CPU in f32 is what counts: the optimizer is the fused AdamW, gradients are set to None, the
loss is not read back, and `--mode` picks the layout and torch.compile.
"""

import time

START = time.perf_counter()  # the imports below are part of the time to the first step

import argparse
import resource
import statistics
import sys

import torch
import torch.nn.functional as F

BATCH, CLASSES, POOL, WARM_UP = 128, 10, 8, 3
MODES = ("eager", "channels_last", "compile", "compile_channels_last")


def main(name, network, shape):
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=MODES, default="eager")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)

    images, labels = torch.rand(POOL, BATCH, *shape), torch.randint(CLASSES, (POOL, BATCH))
    batches = list(images)
    if "channels_last" in options.mode:
        network = network.to(memory_format=torch.channels_last)
        batches = [batch.contiguous(memory_format=torch.channels_last) for batch in batches]
    model = torch.compile(network) if "compile" in options.mode else network
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)

    def step(index):
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(batches[index % POOL]), labels[index % POOL]).backward()
        optimizer.step()

    step(0)
    first_step = time.perf_counter() - START
    for index in range(1, WARM_UP):
        step(index)
    durations, begin = [], time.perf_counter()
    while not durations or time.perf_counter() - begin < options.seconds:
        before = time.perf_counter()
        step(WARM_UP + len(durations))
        durations.append(time.perf_counter() - before)
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    print(
        f"{name} torch-{torch.__version__.split('+')[0]} {options.mode} threads={options.threads} "
        f"steps={len(durations)} samples_per_second={BATCH / statistics.median(durations):.1f} "
        f"first_step_seconds={first_step:.3f} peak_rss_mib={rss:.1f}"
    )
