"""Section "amp" of parity.py: gradients of each model in mixed precision."""

import copy

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from references import as_input, loss_of
from rows import run

# The gradients of all parameters together may be this far from those in f32 (|difference| / |gradient|), or FACTOR times
# as far as PyTorch's autocast on the CPU is from PyTorch in f32, if that is more: networks with batch norm amplify
# roundings, the deeper the more, and with small images and batches.
SMALL = {"fp16": 5e-3, "bf16": 4e-2}
FACTOR = 1.5
# So far from autocast's own gradients: both have roundings of their own.
APART = 2.0
SCALE = 256.0  # of the loss
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def torch_gradients(model, reference, x, y, dtype):
    model = copy.deepcopy(model).train()
    x, y = as_input(reference, torch.from_numpy(x)), torch.from_numpy(y)
    with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        logits = model(x)
    (loss_of(logits.float(), y) * SCALE).backward()
    return {name: parameter.grad.numpy() / SCALE for name, parameter in model.named_parameters()}


def own_gradients(program, name, directory, dtype):
    run(program, "run", name, directory, *([dtype] if dtype else []))
    return load_file(directory / "gradients.safetensors")


def apart(a, b, of):
    """|a - b| / |of|, all tensors of `of` as one vector."""
    square = sum(float(((a[name].astype(np.float64) - b[name].astype(np.float64)) ** 2).sum()) for name in of)
    return (square / sum(float((tensor.astype(np.float64) ** 2).sum()) for tensor in of.values())) ** 0.5


def precision(program, name, reference, model, values, x, y, directory, report):
    save_file(values, directory / "weights.safetensors")
    save_file({"x": x, "y": y}, directory / "input.safetensors")
    own = own_gradients(program, name, directory, None)
    exact = torch_gradients(model, reference, x, y, None)
    for label, dtype in TYPES.items():
        half = own_gradients(program, name, directory, label)
        autocast = torch_gradients(model, reference, x, y, dtype)
        theirs = apart(autocast, exact, exact)
        bound = max(SMALL[label], FACTOR * theirs)
        report.row("amp", f"{name} {label}", apart(half, own, exact), bound, f"autocast's own {theirs:.1e}")
        bound = APART * max(SMALL[label], theirs)
        report.row("autocast", f"{name} {label}", apart(half, autocast, exact), bound)
