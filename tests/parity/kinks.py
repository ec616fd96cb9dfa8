"""How far a batch stays from the kinks of piecewise activations.

    python tests/parity/kinks.py NAME ...   tries seeds for these models (references.py), prints the margin of each

Rounding may put a value next to a kink on its other side, which changes gradients by far more than rounding does. The
margin of a batch is the smallest distance of any activation's input from a kink, in units of the rounding error of its
channel (the root mean square difference of PyTorch's single and double precision)."""

import copy
import dataclasses
import math
import sys

import torch
from torch import nn

KINKS = {nn.ReLU: (0.0,), nn.ReLU6: (0.0, 6.0), nn.Hardswish: (-3.0, 3.0), nn.Hardsigmoid: (-3.0, 3.0)}


def activation_inputs(model, x, dtype):
    """(kinks, values) of each use of an activation in a training step's forward pass."""
    found = []
    model = copy.deepcopy(model).to(dtype).train()
    for module in model.modules():
        if type(module) in KINKS:
            module.register_forward_pre_hook(lambda m, inputs: found.append((KINKS[type(m)], inputs[0].double().clone())))
    with torch.no_grad():
        model(x.to(dtype) if x.is_floating_point() else x)
    return found


def margin(model, x):
    """x is a batch as the model takes it. Infinite for a model without kinks."""
    smallest = math.inf
    for (kinks, exact), (_, rounded) in zip(*(activation_inputs(model, x, t) for t in (torch.float64, torch.float32))):
        dims = [d for d in range(exact.dim()) if d != 1]
        noise = ((exact - rounded) ** 2).mean(dims, keepdim=True).sqrt().clamp_min(1e-30)
        for kink in kinks:
            smallest = min(smallest, ((exact - kink).abs() / noise).min().item())
    return smallest


def main():
    from parity import make_input, model_with_weights
    from references import REFERENCES, as_input
    for name in sys.argv[1:]:
        for seed in range(12):
            reference = dataclasses.replace(REFERENCES[name], seed=seed)
            model, _ = model_with_weights(reference)
            x = as_input(reference, torch.from_numpy(make_input(name, reference)[0]))
            print(f"{name} seed {seed}: margin {margin(model, x):.2f}", flush=True)


if __name__ == "__main__":
    main()
