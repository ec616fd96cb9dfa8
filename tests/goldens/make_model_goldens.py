"""Writes the golden values of models that tests/models/test_models.c compares fasttrain with.

    python3 tests/goldens/make_model_goldens.py [FILE ...]   # torch, torchvision, numpy, safetensors, efficientnet-lite-pytorch

Run by hand; its outputs (tests/goldens/FILE.safetensors, by default all) are committed. The models are those of
tests/parity/references.py, each in the file that its reference names, with the weights and inputs of
tests/parity/weights.py. Tensors of a model, all under "<model>/":

shapes    text, a line each parameter and buffer: name, "parameter" or "buffer", sizes as in a file
count     number of trained elements
init      a row each of these lines: mean and standard deviation of the first values, by formula, and their bound (0: none)
setting   bias and positive of weights.py, and the input's seed
input     shape of the batch
loss      of the training step
digests   a row each of: logits in evaluation, in training; then the lines of `shapes`: a parameter's gradient, a buffer
          after the training step. A row is scale, norm, PROJECTIONS sums of all elements with random signs, SAMPLES
          elements. The scale is the norm, or for a gradient that is zero in exact arithmetic that of the layer's weight.

Models without `setting` and what follows it are too large for the tests. Values are computed in double precision.
"""

import math
import pathlib
import sys

import numpy as np
import torch
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "parity"))
import kinks
import parity
import weights
from references import REFERENCES, as_input

PROJECTIONS, SAMPLES = 4, 16
MARGIN = 4.0  # see kinks.py
LARGEST = 30_000_000  # parameters of a model whose step the tests run


def digest(key, tensor, scale):
    """A row of `digests`. `key` names the random signs and positions."""
    values = np.asarray(tensor, np.float64).ravel()
    bits = weights.bits(key, values.size)
    signs = [((bits >> np.uint64(k)) & np.uint64(1)).astype(np.float64) * 2.0 - 1.0 for k in range(PROJECTIONS)]
    positions = np.floor(weights.uniform(key + "/at", SAMPLES) * values.size).astype(np.int64)
    return [scale, np.linalg.norm(values), *(values @ sign for sign in signs), *values[positions]]


def gradient_scale(name, gradients):
    norm = np.linalg.norm(gradients[name])
    sibling = gradients.get(name.rpartition(".")[0] + ".weight", gradients[name])
    return np.linalg.norm(sibling) if norm < parity.ZERO * np.linalg.norm(sibling) else norm


def digests(name, shapes, result):
    rows = [digest(f"{name}/{what}", result[what], np.linalg.norm(result[what])) for what in ("eval", "train")]
    for variable, (kind, _) in shapes.items():
        if kind == "parameter":
            tensor, scale = result["gradients"][variable], gradient_scale(variable, result["gradients"])
        else:
            tensor = result["buffers"][variable]
            scale = np.linalg.norm(tensor)
        rows.append(digest(f"{name}/{variable}", tensor, scale))
    return np.array(rows, np.float32)


def check_init(name, rows, shapes, model):
    """The formulas of references.py against one sample of PyTorch's."""
    state = model.state_dict()
    for (variable, (_, shape)), (mean, deviation, bound) in zip(shapes.items(), rows):
        sample, count = state[variable].double().numpy(), math.prod(shape)
        close = abs(sample.mean() - mean) <= 6 * deviation / math.sqrt(count)
        close &= count < 2 or abs(sample.std() - deviation) <= 6 * deviation / math.sqrt(count)
        if not close or (bound and np.abs(sample).max() > bound * (1 + 1e-6)):
            sys.exit(f"{name}: {variable} is not initialized as references.py says")


def goldens(name, reference):
    torch.manual_seed(1)
    fresh = reference.build()
    shapes = parity.state_shapes(fresh)
    rows = [reference.init(variable, shape, fresh) for variable, (_, shape) in shapes.items()]
    check_init(name, rows, shapes, fresh)
    text = "".join(f"{variable} {kind}{''.join(f' {n}' for n in shape)}\n" for variable, (kind, shape) in shapes.items())
    count = sum(p.numel() for p in fresh.parameters())
    tensors = {"shapes": np.frombuffer(text.encode(), np.uint8), "count": np.array(count, np.int64),
               "init": np.array(rows, np.float32)}
    if count <= LARGEST:
        model, _ = parity.model_with_weights(reference)
        x, y = parity.make_input(name, reference)
        margin = kinks.margin(model, as_input(reference, torch.from_numpy(x)))
        if margin < MARGIN:
            sys.exit(f"{name}: an activation is {margin:.1f} of its rounding from a kink; choose another seed with kinks.py")
        result = parity.step(model, reference, x, y, torch.float64)
        tensors |= {"setting": np.array([reference.bias, reference.positive, reference.seed], np.float64),
                    "input": np.array(reference.input, np.int64), "loss": np.array(result["loss"], np.float64),
                    "digests": digests(name, shapes, result)}
    return {f"{name}/{key}": value for key, value in tensors.items()}


def main():
    torch.set_num_threads(2)
    for file in sys.argv[1:] or sorted({reference.file for reference in REFERENCES.values()}):
        tensors = {}
        for name, reference in REFERENCES.items():
            if reference.file == file:
                tensors |= goldens(name, reference)
                print(file, name, flush=True)
        save_file(tensors, HERE / f"{file}.safetensors")


if __name__ == "__main__":
    main()
