"""Compares fasttrain's models with PyTorch's: make parity PYTHON=/path/to/python (torch, torchvision, numpy, safetensors).

    python tests/parity/parity.py PROGRAM           all models; PROGRAM is what parity.c became
    python tests/parity/parity.py PROGRAM NAME ...  these

For each model: the names and shapes of parameters and buffers; whether PyTorch loads what fasttrain saved
(strict=True); the logits in evaluation and in training, the loss, the gradient of every parameter and the buffers after
one step, from the same weights (weights.py). PyTorch computes in double precision from the single-precision weights; a
tensor's error is ||a - b|| / ||b||, the bar 1e-4 ("zeros": the number of gradients that are zero in exact arithmetic, see
worst_gradient()). "f32" is the worst error of PyTorch's own gradients in single precision, "margin" how far the batch stays
from kinks (kinks.py).
"""

import copy
import math
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import kinks
import weights
from references import REFERENCES, as_input, loss_of

BAR = 1e-4
ZERO = 1e-10  # below this share of the weight's gradient a gradient in double precision is rounding


def relative_error(found, expected):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return math.inf
    norm = np.linalg.norm(expected)
    error = np.linalg.norm(found - expected)
    if not np.isfinite(error):
        return math.inf
    return error / norm if norm > 0 else (0.0 if error == 0 else math.inf)


def is_counter(name):
    return name.endswith("num_batches_tracked")


def state_shapes(model):
    """Name to (kind, shape), without the batch norms' counters."""
    parameters = {name for name, _ in model.named_parameters()}
    return {name: ("parameter" if name in parameters else "buffer", tuple(tensor.shape))
            for name, tensor in model.state_dict().items() if not is_counter(name)}


def listed_shapes(program, name):
    shapes = {}
    for line in subprocess.run([program, "shapes", name], check=True, capture_output=True, text=True).stdout.splitlines():
        variable, kind, *sizes = line.split()
        shapes[variable] = (kind, tuple(map(int, sizes)))
    return shapes


def make_input(name, reference):
    """x, images as NHWC, and the labels."""
    x, y = (f"{name}/{reference.seed}/{what}" for what in "xy")
    if reference.tokens:
        return (weights.integers(x, reference.input, reference.tokens),
                weights.integers(y, reference.input, reference.classes))
    return weights.image(x, reference.input), weights.integers(y, reference.input[:1], reference.classes)


def step(model, reference, x, y, dtype):
    """Logits in evaluation and training, the loss, gradients, and buffers after a training step."""
    model = copy.deepcopy(model).to(dtype)
    x = as_input(reference, torch.from_numpy(x))
    x = x.to(dtype) if x.is_floating_point() else x
    y = torch.from_numpy(y)
    with torch.no_grad():
        eval_logits = model.eval()(x)
    logits = model.train()(x)
    loss = loss_of(logits, y)
    loss.backward()
    return {
        "eval": eval_logits.numpy(),
        "train": logits.detach().numpy(),
        "loss": loss.item(),
        "gradients": {name: parameter.grad.numpy() for name, parameter in model.named_parameters()},
        "buffers": {name: b.numpy() for name, b in model.named_buffers() if not is_counter(name)},
    }


def worst(found, expected):
    """The largest error of a dict's tensors, and its name."""
    errors = {name: relative_error(found[name], tensor) if name in found else math.inf for name, tensor in expected.items()}
    return max(((error, name) for name, error in errors.items()), default=(0.0, ""))


def worst_gradient(found, expected):
    """As worst(). Some gradients are zero in exact arithmetic: of a shift that a later batch norm takes out again. Their
    error is taken relative to the gradient of the same layer's weight. Also returns how many there are."""
    errors, zeros = [], 0
    for name, gradient in expected.items():
        sibling = name.rpartition(".")[0] + ".weight"
        scale = np.linalg.norm(expected.get(sibling, gradient))
        if name not in found:
            errors.append((math.inf, name))
        elif np.linalg.norm(gradient) < ZERO * scale:
            errors.append((np.linalg.norm(found[name].astype(np.float64) - gradient) / scale, name))
            zeros += 1
        else:
            errors.append((relative_error(found[name], gradient), name))
    return (*max(errors), zeros)


def loads_strictly(program, name, model, directory):
    """Whether PyTorch takes what fasttrain saves."""
    path = directory / "init.safetensors"
    subprocess.run([program, "init", name, str(path)], check=True)
    state = load_torch(path)
    counters = {key: value for key, value in model.state_dict().items() if is_counter(key)}
    copy.deepcopy(model).load_state_dict({**state, **counters}, strict=True)


def model_with_weights(reference):
    """The reference with the values of weights.py, and these."""
    torch.manual_seed(0)
    model = reference.build()
    shapes = {name: shape for name, (_, shape) in state_shapes(model).items()}
    values = weights.weights(shapes, reference.bias, reference.positive)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()}, strict=False)
    return model, values


def compare(program, name, reference, directory):
    """One row of the table."""
    model, values = model_with_weights(reference)
    expected_shapes = state_shapes(model)
    row = {"parameters": sum(p.numel() for p in model.parameters()),
           "names": listed_shapes(program, name) == expected_shapes}
    if not row["names"]:
        return row
    loads_strictly(program, name, model, directory)
    x, y = make_input(name, reference)
    save_file(values, directory / "weights.safetensors")
    save_file({"x": x, "y": y}, directory / "input.safetensors")
    subprocess.run([program, "run", name, str(directory)], check=True)
    logits, state = load_file(directory / "logits.safetensors"), load_file(directory / "gradients.safetensors")
    double, single = (step(model, reference, x, y, dtype) for dtype in (torch.float64, torch.float32))
    row["eval"] = relative_error(logits["eval"], double["eval"])
    row["train"] = relative_error(logits["train"], double["train"])
    row["loss"] = relative_error(logits["loss"], double["loss"])
    row["buffers"], _ = worst(state, double["buffers"])
    row["gradient"], row["worst"], row["zeros"] = worst_gradient(state, double["gradients"])
    row["f32"], _, _ = worst_gradient(single["gradients"], double["gradients"])
    row["margin"] = kinks.margin(model, as_input(reference, torch.from_numpy(x)))
    return row


COLUMNS = ("eval", "train", "loss", "buffers", "gradient", "f32")  # errors


def print_row(name, row):
    errors = "".join(f"{row[column]:10.1e}" if column in row else f"{'-':>10}" for column in COLUMNS)
    print(f"{name:22}{row['parameters']:>12,}{'yes' if row['names'] else 'NO':>6}{row.get('zeros', ''):>6}{errors}{row.get('margin', 0.0):>8.1f}  {row.get('worst', '')}", flush=True)


def is_good(row):
    return row["names"] and all(row[column] <= BAR for column in COLUMNS if column != "f32")


def main():
    program, *names = sys.argv[1:]
    torch.set_num_threads(2)
    known = subprocess.run([program, "models"], check=True, capture_output=True, text=True).stdout.split()
    failed = [f"{name} (no reference)" for name in known if name not in REFERENCES]
    failed += [f"{name} (not in fasttrain)" for name in REFERENCES if name not in known]
    print(f"{'model':22}{'parameters':>12}{'names':>6}{'zeros':>6}" + "".join(f"{column:>10}" for column in COLUMNS) + f"{'margin':>8}  worst gradient")
    for name in names or [name for name in known if name in REFERENCES]:
        with tempfile.TemporaryDirectory() as directory:
            row = compare(program, name, REFERENCES[name], pathlib.Path(directory))
        print_row(name, row)
        if not is_good(row):
            failed.append(name)
    print("parity: all good" if not failed else "parity: failed: " + ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
