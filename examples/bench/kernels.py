"""PyTorch's side of kernels.c: `kernels.py THREADS DTYPE` gets a line an op, and answers with its median time. Images are
tried in both layouts, the faster counts."""

import statistics
import sys
import time

import torch
import torch.nn.functional as F

LEAST = 5


def operands(family, size, dtype):
    """The inputs, and the op as a function of them."""
    random = lambda *shape: torch.rand(*shape, dtype=dtype) - 0.5
    if family == "matmul":
        batch, m, n, k = size[:4]
        lead = (batch,) if batch > 1 else ()
        return [random(*lead, m, k), random(*lead, k, n)], torch.matmul
    if family == "attention":
        n, t, heads, width, causal = size[:5]
        attend = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=bool(causal))
        return [random(n, heads, t, width) for _ in range(3)], attend
    if family == "batch norm":
        rows, channels = size[:2]
        side = int((rows / 16) ** 0.5)  # an image, as batch norm of rows alone is a poor case of PyTorch's
        shape = (16, channels, side, side) if 16 * side * side == rows else (rows // 64, channels, 8, 8)
        mean, var = torch.zeros(channels), torch.ones(channels)
        norm = lambda x, gamma, beta: F.batch_norm(x, mean, var, gamma, beta, True)
        return [random(*shape), random(channels), random(channels)], norm
    if family == "layer norm":
        rows, width = size[:2]
        norm = lambda x, gamma, beta: F.layer_norm(x, (width,), gamma, beta)
        return [random(rows, width), random(width), random(width)], norm
    n, side, inputs, outputs, kernel, stride = size
    groups = inputs if family == "depthwise" else 1
    convolve = lambda x, w: F.conv2d(x, w, None, stride, kernel // 2, 1, groups)
    return [random(n, inputs, side, side), random(outputs, inputs // groups, kernel, kernel)], convolve


def median(run, seconds):
    run(), run()
    times, begin = [], time.perf_counter()
    while len(times) < LEAST or time.perf_counter() - begin < seconds:
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def measure(function, inputs, part, seconds):
    if part == "forward":
        with torch.no_grad():
            return median(lambda: function(*inputs), seconds)
    wanted = {"grad x": inputs[:1], "grad w": inputs[1:], "backward": inputs}[part]
    for tensor in wanted:
        tensor.requires_grad_()
    result = function(*inputs)
    gradient = torch.rand_like(result) - 0.5  # in the result's layout
    return median(lambda: torch.autograd.grad(result, wanted, gradient, retain_graph=True), seconds)


def main():
    torch.set_num_threads(int(sys.argv[1]))
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[sys.argv[2]]
    print("torch", torch.__version__, flush=True)
    while line := sys.stdin.readline():
        family, part, seconds, *size = line.strip().split(";")
        inputs, function = operands(family, [int(number) for number in size], dtype)
        times = [measure(function, inputs, part, float(seconds))]
        if inputs[0].dim() == 4 and family != "attention":
            inputs = [
                tensor.detach().contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor.detach()
                for tensor in inputs
            ]
            times.append(measure(function, inputs, part, float(seconds)))
        print(f"{family} seconds={min(times):.9f}", flush=True)


if __name__ == "__main__":
    main()
