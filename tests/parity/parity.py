"""Compares fasttrain with PyTorch: make parity PYTHON=/path/to/python (its packages: README.md, "Tests").

    python tests/parity/parity.py PROGRAM [--sections "NAME ..."] [--models "NAME ..."]    PROGRAM is what parity.c became

Sections, all unless some are named; each row has a figure and its bound, the last line the sum, and a miss ends with
status 1:

models      for each model: the names and shapes of parameters and buffers; the logits in evaluation and in training, the
            loss, the gradient of every parameter and the buffers after one step, from the same weights (weights.py).
            PyTorch computes in double precision from the single-precision weights; a tensor's error is
            ||a - b|| / ||b||, the bar 1e-4 ("zeros": the number of gradients that are zero in exact arithmetic, see
            worst_gradient()). "f32" is the worst error of PyTorch's own gradients in single precision, "margin" how far
            the batch stays from kinks (kinks.py).
files       for each model: what fasttrain saves loads in PyTorch (strict=True) and is saved by it again as the same bytes;
            what PyTorch saves loads in fasttrain and is saved by it again as the same bytes
amp         for each model: gradients in fp16 and bf16 against those in f32, and against PyTorch's autocast (precision.py)
optimizers  100 steps of each (steps.py)
schedules   240 steps of each
scaler      GradScaler with an overflow in each of the first 20 steps
"""

import argparse
import copy
import math
import os
import pathlib
import sys
import tempfile

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch
from safetensors.torch import save_file as save_torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import kinks
import steps
import weights
from precision import precision
from references import REFERENCES, as_input, loss_of
from rows import Report, run

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
    for line in run(program, "shapes", name).splitlines():
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


def step_of(model, reference, x, y, dtype):
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


def different_bytes(a, b):
    a, b = a.read_bytes(), b.read_bytes()
    return sum(x != y for x, y in zip(a, b)) + abs(len(a) - len(b)) if a != b else 0


def save_as_torch(model, path):
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if not is_counter(name)}
    save_torch(state, path, metadata={"format": "pt"})


def files(program, name, model, directory, report):
    """Both ways: from one library into the other and back."""
    own, back = directory / "own.safetensors", directory / "back.safetensors"
    run(program, "init", name, own)
    other = copy.deepcopy(model)
    counters = {key: value for key, value in model.state_dict().items() if is_counter(key)}
    other.load_state_dict({**load_torch(own), **counters}, strict=True)
    save_as_torch(other, back)
    report.row("files", f"{name} to PyTorch", different_bytes(own, back), 0.0, f"{own.stat().st_size:,} bytes")
    theirs = directory / "theirs.safetensors"
    save_as_torch(model, theirs)
    run(program, "copy", name, theirs, back)
    report.row("files", f"{name} from PyTorch", different_bytes(theirs, back), 0.0)


def model_with_weights(reference):
    """The reference with the values of weights.py, and these."""
    torch.manual_seed(0)
    model = reference.build()
    shapes = {name: shape for name, (_, shape) in state_shapes(model).items()}
    values = weights.weights(shapes, reference.bias, reference.positive)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()}, strict=False)
    return model, values


def compare(program, name, reference, model, values, x, y, directory):
    """One row of the table."""
    expected_shapes = state_shapes(model)
    row = {"parameters": sum(p.numel() for p in model.parameters()),
           "names": listed_shapes(program, name) == expected_shapes}
    if not row["names"]:
        return row
    save_file(values, directory / "weights.safetensors")
    save_file({"x": x, "y": y}, directory / "input.safetensors")
    run(program, "run", name, directory)
    logits, state = load_file(directory / "logits.safetensors"), load_file(directory / "gradients.safetensors")
    double, single = (step_of(model, reference, x, y, dtype) for dtype in (torch.float64, torch.float32))
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
    print(f"model {name:22}{row['parameters']:>12,}{'yes' if row['names'] else 'NO':>6}{row.get('zeros', ''):>6}{errors}{row.get('margin', 0.0):>8.1f}  {row.get('worst', '')}", flush=True)


def is_good(row):
    return row["names"] and all(row[column] <= BAR for column in COLUMNS if column != "f32")


def compare_models(program, sections, names, report):
    if "models" in sections:
        print(f"{'':6}{'':22}{'parameters':>12}{'names':>6}{'zeros':>6}" + "".join(f"{column:>10}" for column in COLUMNS)
              + f"{'margin':>8}  worst gradient")
    for name in names:
        reference = REFERENCES[name]
        model, values = model_with_weights(reference)
        x, y = make_input(name, reference)
        with tempfile.TemporaryDirectory() as folder:
            directory = pathlib.Path(folder)
            if "models" in sections:
                row = compare(program, name, reference, model, values, x, y, directory)
                print_row(name, row)
                report.count(f"model {name}", is_good(row))
            if "files" in sections:
                files(program, name, model, directory, report)
            if "amp" in sections:
                precision(program, name, reference, model, values, x, y, directory, report)


MODEL_SECTIONS = ("models", "files", "amp")
STEP_SECTIONS = {"optimizers": steps.optimizers, "schedules": steps.schedules, "scaler": steps.scaler}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--sections", type=str.split, default=[])
    parser.add_argument("--models", type=str.split, default=[])
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    report = Report()
    known = run(options.program, "models").split()
    everything = [*MODEL_SECTIONS, *STEP_SECTIONS]
    sections = options.sections or (list(MODEL_SECTIONS) if options.models else everything)
    for name in [*(set(sections) - set(everything)), *(set(options.models) - set(known))]:
        parser.error(f"there is no section or model '{name}'; sections are {', '.join(everything)}")
    for name in known if not options.models else []:
        if name not in REFERENCES:
            report.count(f"model {name} (no reference)", False)
    for name in REFERENCES if not options.models else []:
        if name not in known:
            report.count(f"model {name} (not in fasttrain)", False)
    with tempfile.TemporaryDirectory() as directory:
        for name in STEP_SECTIONS:
            if name in sections:
                STEP_SECTIONS[name](options.program, pathlib.Path(directory), report)
    if set(sections) & set(MODEL_SECTIONS):
        names = options.models or [name for name in known if name in REFERENCES]
        compare_models(options.program, sections, names, report)
    misses = f": {', '.join(report.misses)}" if report.misses else ""
    print(f"parity: {report.rows - len(report.misses)} of {report.rows} rows within their bounds, "
          f"{len(report.misses)} missed{misses}")
    return 1 if report.misses or not report.rows else 0


if __name__ == "__main__":
    sys.exit(main())
