"""Writes the golden values that test_goldens.c compares fasttrain with.

    python3 tests/goldens/make_goldens.py            # needs torch, torchvision, numpy, safetensors, scikit-learn
    python3 tests/goldens/make_goldens.py pointwise  # this file only: "ops" or another of OP_FILES; or "transfer": its files

Run by hand; its outputs are committed. Everything follows from fixed seeds, on one thread.

ops.safetensors     one group of tensors a case, named "<op>/<number>/<tensor>": inputs, the outputs "y", and where a
                    gradient is defined the weights "w" and the gradients "d<input>" of sum(y * w). Attributes are small
                    i64 or f64 tensors. Layouts are fasttrain's: images NHWC, convolution weights OHWI.
pointwise.safetensors, norms_losses.safetensors, index.safetensors, rest.safetensors, attention.safetensors,
image.safetensors, mix.safetensors
                    the same, of the other pointwise ops; of normalization within a sample and the losses beside cross
                    entropy; of ops on indices and along lines; of einsum and stochastic depth, and
                    edges of all: NaN, infinities, ties, empty tensors; of attention and rotary embedding;
                    of transposed and one-dimensional convolution, adaptive pooling and resizing; of mixup, cutmix
                    and cross entropy of class probabilities.
mlp_*.safetensors   whole training runs: "*_data" has the batches and the loss of each step, the others are
resnet8_*           state_dicts in PyTorch's own names and layouts (OIHW), before and after.
transfer_*          the same, with the first layers frozen: "frozen" by requires_grad_(False), "still" by eval() as well.

Values are computed in double precision from inputs that are exact in single precision, then rounded to it. For the
whole runs PyTorch's single-precision losses are stored as well ("losses_f32").
"""

import os
import sys
import zlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from torch import nn
from torchvision.transforms import v2

HERE = os.path.dirname(os.path.abspath(__file__))
STEPS = 50


# ---------------------------------------------------------------------------------------------------------------- cases


class Cases:
    """Collects cases; each gets random numbers of its own, so that adding one changes no other."""

    def __init__(self):
        self.tensors = {}
        self.counts = {}

    def begin(self, op):
        index = self.counts.get(op, 0)
        self.counts[op] = index + 1
        self.prefix = f"{op}/{index}/"
        return np.random.default_rng(zlib.crc32(self.prefix.encode()))

    def put(self, name, value):
        if isinstance(value, torch.Tensor):
            value = value.detach().numpy()
        value = np.asarray(value)
        if value.dtype == np.float64 and name not in self.attributes:
            with np.errstate(over="ignore"):
                value = value.astype(np.float32)
        self.tensors[self.prefix + name] = value

    def add(self, op, inputs, compute, attributes=None, grad=None):
        """`inputs`: name to array, shape (normal numbers) or function of a generator. `compute` gets them as tensors
        (f32 ones as f64) and returns y, or a dict of outputs with "y" among them. `grad`: names whose gradients are
        stored; None is every f32 input."""
        rng = self.begin(op)
        self.attributes = set(attributes or {})
        tensors = {}
        for name, value in inputs.items():
            if callable(value):
                value = value(rng)
            elif isinstance(value, tuple):
                value = rng.standard_normal(value)
            value = np.asarray(value)
            if value.dtype == np.float64:
                value = value.astype(np.float32)
            self.put(name, value)
            tensors[name] = torch.from_numpy(value.copy())
        wanted = [n for n, t in tensors.items() if t.dtype == torch.float32] if grad is None else grad
        for name, tensor in tensors.items():
            if tensor.dtype == torch.float32:
                tensors[name] = tensor.double().requires_grad_(name in wanted)
        outputs = compute(*tensors.values())
        if isinstance(outputs, torch.Tensor):
            outputs = {"y": outputs}
        y = outputs["y"]
        if wanted:
            w = torch.from_numpy(rng.standard_normal(tuple(y.shape), dtype=np.float32)).double()
            self.put("w", w)
            gradients = torch.autograd.grad((y * w).sum(), [tensors[name] for name in wanted])
            for name, gradient in zip(wanted, gradients):
                self.put("d" + name, gradient)
        for name, value in outputs.items():
            self.put(name, value)
        for name, value in (attributes or {}).items():
            value = np.asarray(value)
            self.put(name, value.astype(np.float64 if value.dtype.kind == "f" else np.int64))


def uniform(low, high, *shape):
    return lambda rng: rng.uniform(low, high, shape)


def ints(low, high, *shape, dtype=np.int32):
    return lambda rng: rng.integers(low, high, shape).astype(dtype)


def bools(*shape):
    return lambda rng: rng.integers(0, 2, shape).astype(bool)


def f32(*values):
    return np.array(values, dtype=np.float32)


# ------------------------------------------------------------------------------------------------------------ pointwise


def pointwise(cases):
    inf, nan = np.inf, np.nan
    broadcasts = [((7,), (7,)), ((3, 1, 5), (4, 1)), ((2, 3, 4), ()), ((5, 1), (1, 33)), ((2, 9, 9, 8), (8,))]
    binary = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "maximum": torch.maximum}
    for op, compute in binary.items():
        for a, b in broadcasts:
            divisor = uniform(0.5, 2, *b) if op == "div" else b
            cases.add(op, {"a": a, "b": divisor}, compute)
        divisor = ints(1, 6, 4) if op == "div" else ints(-9, 9, 4)
        integer = (lambda a, b: torch.div(a, b, rounding_mode="trunc")) if op == "div" else compute
        cases.add(op, {"a": ints(-20, 20, 3, 4), "b": divisor}, integer)
    cases.add("div", {"a": f32(1, -1, 0, inf, 5), "b": f32(0, 0, 0, 2, inf)}, torch.div, grad=[])
    cases.add("maximum", {"a": f32(1, 2, 0, -3, 5), "b": f32(1, 1, 0, -3, 7)}, torch.maximum)  # ties: halves
    cases.add("maximum", {"a": f32(nan, 1, inf, -inf), "b": f32(1, nan, 1, -inf)}, torch.maximum, grad=[])
    cases.add("pow", {"a": uniform(0.2, 3, 4, 5), "b": uniform(-2, 3, 5)}, torch.pow)
    cases.add("pow", {"a": uniform(0.2, 3, 3, 1), "b": uniform(-2, 3, 1, 6)}, torch.pow)
    cases.add("pow", {"a": f32(0, 0, 0, 0, -2, -1.5), "b": f32(0, 1, 2, 0.5, 3, 2)}, torch.pow, grad=["a"])
    cases.add("pow", {"a": f32(0, 0, 0, 0, 3, 1), "b": f32(0, 1, 2, 0.5, 0, 7)}, torch.pow, grad=["b"])
    cases.add("pow", {"a": f32(0, -2, inf), "b": f32(-1, 0.5, 2)}, torch.pow, grad=[])
    comparisons = {"eq": torch.eq, "ne": torch.ne, "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge}
    for op, compute in comparisons.items():
        cases.add(op, {"a": f32(1, 2, 3, nan, 0, inf), "b": f32(1, 3, 2, nan, -0.0, inf)}, compute, grad=[])
        cases.add(op, {"a": ints(-3, 3, 4, 5), "b": ints(-3, 3, 5)}, compute, grad=[])
    cases.add("where", {"c": bools(4, 5), "a": (4, 5), "b": (4, 5)}, torch.where)
    cases.add("where", {"c": bools(4, 1), "a": (5,), "b": ()}, torch.where)
    cases.add("where", {"c": bools(3), "a": (2, 3), "b": (2, 1)}, torch.where)
    cases.add("neg", {"x": (3, 5)}, lambda x: -x)
    cases.add("neg", {"x": ints(-5, 5, 6)}, lambda x: -x)
    cases.add("exp", {"x": (5, 7)}, torch.exp)
    cases.add("exp", {"x": f32(0, -0.0, -30, 30, 80, -80)}, torch.exp)
    cases.add("exp", {"x": f32(200, -200, inf, -inf, nan)}, torch.exp, grad=[])
    cases.add("log", {"x": uniform(0.01, 9, 5, 7)}, torch.log)
    cases.add("log", {"x": f32(1, 0, 1e-30, 1e30, inf)}, torch.log)
    cases.add("log", {"x": f32(-1, nan)}, torch.log, grad=[])
    cases.add("sqrt", {"x": uniform(0.01, 9, 5, 7)}, torch.sqrt)
    cases.add("sqrt", {"x": f32(0, 1, 4, 1e20)}, torch.sqrt)
    cases.add("rsqrt", {"x": uniform(0.05, 9, 5, 7)}, torch.rsqrt)
    cases.add("rsqrt", {"x": f32(0, inf, 4, 1e-20)}, torch.rsqrt, grad=[])
    for op, compute in {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}.items():
        cases.add(op, {"x": (5, 13)}, compute)
        cases.add(op, {"x": f32(0, -0.0, 1e-6, -1e-6, 100, -100, 8, -8)}, compute)
    cases.add("relu", {"x": f32(nan, inf, -inf, 1)}, torch.relu, grad=[])
    cases.add("cast", {"x": f32(1.9, -1.9, 0, 0.5, -0.5, 300)}, lambda x: x.int(), grad=[])
    cases.add("cast", {"x": f32(1.9, 0, -0.0, nan, -3)}, lambda x: x.bool(), grad=[])
    cases.add("cast", {"x": f32(1.9, 0, 255, 77.5)}, lambda x: x.to(torch.uint8), grad=[])
    cases.add("cast", {"x": ints(0, 256, 5, dtype=np.uint8)}, lambda x: x.double(), grad=[])
    cases.add("cast", {"x": ints(-9, 9, 5, dtype=np.int64)}, lambda x: x.double(), grad=[])
    cases.add("cast", {"x": ints(-9, 9, 5)}, lambda x: x.long(), grad=[])
    cases.add("cast", {"x": bools(6)}, lambda x: x.double(), grad=[])


def activations(cases):
    inf, nan = np.inf, np.nan
    odd = f32(0, -0.0, 1e-6, -1e-6, 1, -1, 3, -3, 6, -6, 0.5, 1.5, -0.5, -1.5, 2.5, 12, -9, 30, -30)
    wild = f32(nan, inf, -inf, 1e20, -1e20)
    for a, b in [((7,), (7,)), ((3, 1, 5), (4, 1)), ((2, 9, 9, 8), (8,))]:
        cases.add("minimum", {"a": a, "b": b}, torch.minimum)
    cases.add("minimum", {"a": f32(1, 2, 0, -3, 5), "b": f32(1, 1, 0, -3, 7)}, torch.minimum)  # ties: halves
    cases.add("minimum", {"a": f32(nan, 1, inf, -inf), "b": f32(1, nan, 1, -inf)}, torch.minimum, grad=[])
    cases.add("minimum", {"a": ints(-20, 20, 3, 4), "b": ints(-9, 9, 4)}, torch.minimum)
    plain = {"abs": torch.abs, "sign": torch.sign, "sin": torch.sin, "cos": torch.cos, "erf": torch.erf}
    plain.update({"floor": torch.floor, "round": torch.round, "relu6": F.relu6, "silu": F.silu})
    plain.update({"hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid})
    for op, compute in plain.items():
        cases.add(op, {"x": uniform(-4, 4, 5, 17)}, compute)
        cases.add(op, {"x": odd}, compute)
        cases.add(op, {"x": f32(nan) if op in ("sin", "cos") else wild}, compute, grad=[])
    for op in ("abs", "sign"):
        cases.add(op, {"x": ints(-3, 4, 11)}, plain[op])
        cases.add(op, {"x": ints(-3, 4, 11, dtype=np.int64)}, plain[op])
    cases.add("sin", {"x": f32(1e3, -1e5, 16777217, 3e9, -1e20)}, torch.sin, grad=[])
    cases.add("cos", {"x": f32(1e3, -1e5, 16777217, 3e9, -1e20)}, torch.cos, grad=[])
    for op in ("erf", "round", "relu6", "hardswish", "hardsigmoid"):
        cases.add(op, {"x": f32(3.5, 4.5, -3.5, 7, -7, 3, -3, 6, 0)}, plain[op])

    def parametric(op, compute, attributes):
        cases.add(op, {"x": uniform(-4, 4, 5, 17)}, compute, attributes)
        cases.add(op, {"x": odd}, compute, attributes)
        cases.add(op, {"x": wild}, compute, attributes, grad=[])

    for low, high in [(-1.0, 1.5), (-inf, 0.5), (-3.0, inf), (1.0, 1.0), (-inf, inf), (0.0, 6.0)]:
        parametric("clamp", lambda x, l=low, h=high: torch.clamp(x, l, h), {"min": low, "max": high})
    for form, name in enumerate(("none", "tanh")):
        parametric("gelu", lambda x, n=name: F.gelu(x, approximate=n), {"form": form})
    for slope in (0.01, 0.25, -0.5, 1.5):
        parametric("leaky_relu", lambda x, s=slope: F.leaky_relu(x, s), {"slope": slope})
    for alpha in (1.0, 0.5, -1.25):
        parametric("elu", lambda x, a=alpha: F.elu(x, a), {"alpha": alpha})
    for beta, threshold in [(1.0, 20.0), (2.0, 5.0), (0.5, 1.0), (1.5, -1.0)]:
        settings = {"beta": beta, "threshold": threshold}
        parametric("softplus", lambda x, b=beta, t=threshold: F.softplus(x, b, t), settings)
    cases.add("stop_gradient", {"x": (3, 5)}, lambda x: x.detach().clone(), grad=[])
    cases.add("stop_gradient", {"x": ints(-9, 9, 5)}, lambda x: x.detach().clone(), grad=[])


# ------------------------------------------------------------------------------------- reductions, products and shapes


def reductions(cases):
    shapes = [
        ((6,), []),
        ((3, 4, 5), [1]),
        ((3, 4, 5), [0, 2]),
        ((3, 4, 5), [-1]),
        ((4, 3, 3, 17), [0, 1, 2]),
        ((2, 70), [1]),
    ]
    for keep in (0, 1):
        for shape, axes in shapes:
            attributes = {"axes": np.array(axes, np.int64), "keep": keep}
            dims = axes or list(range(len(shape)))
            for op, compute in {"sum": torch.sum, "mean": torch.mean, "max": torch.amax}.items():
                cases.add(
                    op, {"x": shape}, lambda x, c=compute, d=dims, k=keep: c(x, dim=d, keepdim=bool(k)), attributes
                )
    empty = np.zeros((0, 3), np.float32)
    cases.add("sum", {"x": empty}, lambda x: x.sum(0), {"axes": [0], "keep": 0}, grad=[])
    cases.add("mean", {"x": empty}, lambda x: x.mean(0), {"axes": [0], "keep": 0}, grad=[])
    cases.add("sum", {"x": ints(-50, 50, 4, 5)}, lambda x: x.sum(1).int(), {"axes": [1], "keep": 0}, grad=[])
    ties = np.array([[1, 3, 3, 0], [2, 2, 2, 2], [-1, -5, -1, -9]], np.float32)
    cases.add("max", {"x": ties}, lambda x: torch.amax(x, dim=1), {"axes": [1], "keep": 0})  # shared evenly
    cases.add("max", {"x": f32(1, np.nan, 3)}, lambda x: torch.amax(x, dim=0), {"axes": [0], "keep": 0}, grad=[])
    cases.add("argmax", {"x": (4, 9)}, lambda x: x.argmax(1), {"axis": 1}, grad=[])
    cases.add("argmax", {"x": (4, 3, 5)}, lambda x: x.argmax(0), {"axis": 0}, grad=[])
    cases.add("argmax", {"x": ties}, lambda x: x.argmax(-1), {"axis": -1}, grad=[])
    nans = np.array([[1, np.nan, 9, np.nan]], np.float32)
    cases.add("argmax", {"x": nans}, lambda x: x.argmax(1), {"axis": 1}, grad=[])


def products(cases):
    shapes = [
        ((5, 7), (7, 3)),
        ((1, 1), (1, 1)),
        ((33, 17), (17, 65)),
        ((2, 4, 6), (2, 6, 5)),
        ((3, 1, 4, 6), (2, 6, 5)),
        ((4, 6), (3, 6, 2)),
    ]
    for a, b in shapes:
        for ta, tb in ((0, 0), (0, 1), (1, 0), (1, 1)):
            swap = lambda s, t: (*s[:-2], s[-1], s[-2]) if t else s
            compute = lambda a, b, ta=ta, tb=tb: (a.mT if ta else a) @ (b.mT if tb else b)
            cases.add("matmul", {"a": swap(a, ta), "b": swap(b, tb)}, compute, {"transpose_a": ta, "transpose_b": tb})
    nothing = {"a": np.zeros((3, 0), np.float32), "b": np.zeros((0, 4), np.float32)}
    cases.add("matmul", nothing, lambda a, b: a @ b, {"transpose_a": 0, "transpose_b": 0}, grad=[])
    for x, out in [((4, 6), 5), ((1, 1), 1), ((3, 2, 17), 33), ((37, 64), 48), ((6,), 3)]:
        cases.add("linear", {"x": x, "weight": (out, x[-1]), "bias": (out,)}, F.linear)
        cases.add("linear", {"x": x, "weight": (out, x[-1])}, F.linear)


def shapes(cases):
    cases.add("reshape", {"x": (4, 6)}, lambda x: x.reshape(2, -1, 3), {"shape": [2, -1, 3]})
    cases.add("reshape", {"x": (2, 3, 4)}, lambda x: x.reshape(24), {"shape": [24]})
    cases.add("flatten", {"x": (2, 3, 4, 5)}, lambda x: x.flatten(1), {"axis": 1})
    cases.add("flatten", {"x": (2, 3, 4)}, lambda x: x.flatten(0), {"axis": 0})
    cases.add("expand", {"x": (3, 1)}, lambda x: x.expand(2, 3, 4), {"shape": [2, 3, 4]})
    cases.add("expand", {"x": ()}, lambda x: x.expand(5), {"shape": [5]})
    cases.add("expand", {"x": (4,)}, lambda x: x.expand(3, 4), {"shape": [3, 4]})
    for order in ([1, 0, 2], [2, 1, 0], [0, 2, 1], [1, 2, 0]):
        cases.add("transpose", {"x": (3, 4, 5)}, lambda x, o=order: x.permute(o), {"order": order})
    cases.add("transpose", {"x": (2, 3, 4, 5)}, lambda x: x.permute(0, 3, 1, 2), {"order": [0, 3, 1, 2]})
    cases.add(
        "concat", {"x0": (2, 3), "x1": (2, 1), "x2": (2, 4)}, lambda x0, x1, x2: torch.cat([x0, x1, x2], 1), {"axis": 1}
    )
    cases.add("concat", {"x0": (2, 3, 4), "x1": (1, 3, 4)}, lambda x0, x1: torch.cat([x0, x1], 0), {"axis": 0})
    cases.add("concat", {"x0": (2, 3, 4), "x1": (2, 3, 5)}, lambda x0, x1: torch.cat([x0, x1], -1), {"axis": -1})
    cases.add("concat", {"x0": (3,)}, lambda x0: torch.cat([x0], 0), {"axis": 0})
    for axis, begin, end, step in [
        (0, 1, 4, 1),
        (1, 0, 7, 2),
        (1, -3, 7, 1),
        (1, 2, -1, 3),
        (0, -100, 100, 2),
        (1, 5, 2, 1),
    ]:
        cut = lambda x, a=axis, s=slice(begin, end, step): x[s] if a == 0 else x[:, s]
        grad = None if begin != 5 else []
        cases.add("slice", {"x": (5, 7)}, cut, {"axis": axis, "begin": begin, "end": end, "step": step}, grad=grad)
    cases.add(
        "pad",
        {"x": (3, 4)},
        lambda x: F.pad(x, (2, 1, 0, 3), value=-1.5),
        {"before": [0, 2], "after": [3, 1], "value": -1.5},
    )
    cases.add(
        "pad",
        {"x": (2, 3, 3, 4)},
        lambda x: F.pad(x, (0, 0, 1, 2, 0, 1)),
        {"before": [0, 0, 1, 0], "after": [0, 1, 2, 0], "value": 0.0},
    )


# ------------------------------------------------------------------------------------ convolution, norms and pooling


def conv_case(cases, image, out, kernel, stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), groups=1, bias=True):
    def compute(x, weight, bias=None):
        top, bottom, left, right = padding
        x = F.pad(x.permute(0, 3, 1, 2), (left, right, top, bottom))
        y = F.conv2d(x, weight.permute(0, 3, 1, 2), bias, stride=stride, dilation=dilation, groups=groups)
        return y.permute(0, 2, 3, 1)

    inputs = {"x": image, "weight": (out, *kernel, image[3] // groups)}
    if bias:
        inputs["bias"] = (out,)
    attributes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    cases.add("conv2d", inputs, compute, {name: np.array(value, np.int64) for name, value in attributes.items()})


def convolutions(cases):
    same = (1, 1, 1, 1)
    conv_case(cases, (2, 5, 6, 3), 4, (1, 1))
    conv_case(cases, (2, 7, 7, 3), 5, (3, 3), padding=same)
    conv_case(cases, (1, 8, 8, 16), 32, (3, 3), padding=same, bias=False)
    conv_case(cases, (2, 9, 11, 8), 8, (3, 3), stride=(2, 2), padding=same)
    conv_case(cases, (1, 12, 12, 16), 16, (3, 3), padding=same)
    conv_case(cases, (3, 6, 5, 4), 6, (3, 3), groups=2)
    conv_case(cases, (2, 7, 8, 6), 6, (3, 3), padding=same, groups=6)
    conv_case(cases, (2, 7, 8, 4), 8, (3, 3), stride=(2, 2), padding=same, groups=4, bias=False)
    conv_case(cases, (1, 10, 9, 3), 4, (3, 3), dilation=(2, 2), padding=(2, 2, 2, 2))
    conv_case(cases, (1, 9, 9, 3), 4, (3, 2), stride=(2, 1), padding=(0, 1, 2, 0), dilation=(1, 2))
    conv_case(cases, (2, 9, 7, 3), 8, (7, 7), stride=(2, 2), padding=(3, 3, 3, 3), bias=False)
    conv_case(cases, (1, 5, 8, 2), 3, (1, 5), padding=(0, 0, 2, 2))
    conv_case(cases, (2, 6, 6, 8), 16, (1, 1), stride=(2, 2), bias=False)
    conv_case(cases, (2, 5, 5, 5), 3, (5, 5), padding=(2, 2, 2, 2))
    conv_case(cases, (2, 4, 4, 7), 9, (4, 4))
    conv_case(cases, (1, 1, 1, 1), 1, (1, 1))


def norm_case(cases, shape, training, eps=1e-5, momentum=0.1, mean=0.0):
    def compute(x, gamma, beta, running_mean, running_var):
        moved_mean, moved_var = running_mean.detach().clone(), running_var.detach().clone()
        y = F.batch_norm(x.movedim(-1, 1), moved_mean, moved_var, gamma, beta, training, momentum, eps).movedim(1, -1)
        return {"y": y, "new_mean": moved_mean, "new_var": moved_var}

    c = (shape[-1],)
    inputs = {
        "x": lambda rng: rng.standard_normal(shape) * 1.5 + mean,
        "gamma": uniform(0.5, 1.5, *c),
        "beta": c,
        "running_mean": c,
        "running_var": uniform(0.5, 2, *c),
    }
    attributes = {"training": int(training), "eps": eps, "momentum": momentum}
    cases.add("batch_norm", inputs, compute, attributes, grad=["x", "gamma", "beta"])


def norms(cases):
    for training in (True, False):
        norm_case(cases, (9, 5), training)
        norm_case(cases, (3, 4, 5, 8), training)
        norm_case(cases, (2, 3, 3, 17), training, eps=1e-3, momentum=0.01)
        norm_case(cases, (4, 6, 3), training, momentum=1.0)
    norm_case(cases, (8, 4, 4, 16), True, mean=10.0)
    norm_case(cases, (3, 1), True)


def pool_case(cases, op, image, kernel, stride=None, padding=(0, 0, 0, 0), exclude=False, values=None):
    stride = stride or kernel
    top, bottom, left, right = padding

    def compute(x):
        x = x.permute(0, 3, 1, 2)
        if op == "max_pool2d":
            y = F.max_pool2d(F.pad(x, (left, right, top, bottom), value=-np.inf), kernel, stride)
        else:
            assert top == bottom and left == right
            y = F.avg_pool2d(x, kernel, stride, (top, left), count_include_pad=not exclude)
        return y.permute(0, 2, 3, 1)

    attributes = {"kernel": kernel, "stride": stride, "padding": padding, "exclude_padding": int(exclude)}
    attributes = {name: np.array(value, np.int64) for name, value in attributes.items()}
    cases.add(op, {"x": image if values is None else values}, compute, attributes)


def pools(cases):
    pool_case(cases, "max_pool2d", (2, 6, 8, 3), (2, 2))
    pool_case(cases, "max_pool2d", (1, 7, 7, 16), (3, 3), (2, 2), (1, 1, 1, 1))
    pool_case(cases, "max_pool2d", (2, 7, 5, 9), (3, 2), (1, 2), (1, 0, 0, 1))
    ties = np.array([[1, 1, 2, 2], [1, 1, 2, 3], [0, -1, 5, 5], [-1, 0, 5, 5]], np.float32).reshape(1, 4, 4, 1)
    pool_case(cases, "max_pool2d", None, (2, 2), values=ties)
    pool_case(cases, "max_pool2d", None, (3, 3), (1, 1), (1, 1, 1, 1), values=ties)
    pool_case(cases, "max_pool2d", None, (3, 3), (2, 2), (1, 1, 1, 1), values=-1 - np.abs(ties))  # padding never wins
    pool_case(cases, "avg_pool2d", (2, 6, 8, 3), (2, 2))
    for exclude in (False, True):
        pool_case(cases, "avg_pool2d", (1, 7, 7, 16), (3, 3), (2, 2), (1, 1, 1, 1), exclude)
        pool_case(cases, "avg_pool2d", (2, 5, 7, 5), (3, 2), (1, 2), (1, 1, 1, 1), exclude)
    cases.add("global_avg_pool", {"x": (2, 5, 7, 6)}, lambda x: x.mean((1, 2)))
    cases.add("global_avg_pool", {"x": (3, 1, 1, 17)}, lambda x: x.mean((1, 2)))


# --------------------------------------------------------------------------------------------------- softmax and losses


def losses(cases):
    softmaxes = {"softmax": torch.softmax, "log_softmax": torch.log_softmax}
    large = np.array([[1e4, 0, -1e4, 9999], [88, 89, 90, 91], [-1e30, 1e30, 0, 1]], np.float32)
    for op, compute in softmaxes.items():
        for shape, axis in [((5, 10), 1), ((5, 10), 0), ((3, 4, 17), -1), ((3, 4, 5), 1), ((4, 1), 1), ((6,), 0)]:
            cases.add(op, {"x": shape}, lambda x, c=compute, a=axis: c(x, a), {"axis": axis})
        cases.add(op, {"x": large}, lambda x, c=compute: c(x, 1), {"axis": 1})

    reductions = ("mean", "sum", "none")
    settings = [
        {},
        {"smoothing": 0.1},
        {"ignore": 2},
        {"weights": True},
        {"weights": True, "smoothing": 0.2, "ignore": 1},
    ]
    for setting in settings:
        for reduction in range(3):
            entropy_case(cases, (7, 5), ints(0, 5, 7), reduction, reductions, **setting)
    entropy_case(cases, (2, 3, 4), ints(0, 4, 2, 3, dtype=np.int64), 0, reductions)
    entropy_case(cases, (2, 3, 4), ints(0, 4, 2, 3), 2, reductions, weights=True, smoothing=0.1)
    entropy_case(cases, (3, 4), np.array([0, 3, 1], np.int32), 0, reductions, values=large)
    entropy_case(cases, (3, 4), np.array([0, -100, 1], np.int64), 0, reductions)  # the default of ignore_index
    entropy_case(cases, (2, 4), np.array([-100, -100], np.int32), 0, reductions, gradient=False)  # NaN
    entropy_case(cases, (33, 100), ints(0, 100, 33), 0, reductions)

    for reduction, name in enumerate(reductions):
        cases.add(
            "mse",
            {"x": (3, 5), "target": (3, 5)},
            lambda x, target, n=name: F.mse_loss(x, target, reduction=n),
            {"reduction": reduction},
        )
    hits = lambda x, labels: (x.argmax(-1) == labels).double().mean()
    cases.add("accuracy", {"x": (20, 3), "labels": ints(0, 3, 20)}, hits, grad=[])
    cases.add("accuracy", {"x": (4, 5, 2), "labels": ints(0, 2, 4, 5, dtype=np.int64)}, hits, grad=[])


def entropy_case(
    cases, shape, labels, reduction, names, smoothing=0.0, ignore=-100, weights=False, values=None, gradient=True
):
    def compute(x, labels, class_weights=None):
        y = F.cross_entropy(
            x.movedim(-1, 1),
            labels.long(),
            class_weights,
            ignore_index=ignore,
            reduction=names[reduction],
            label_smoothing=smoothing,
        )
        return y

    inputs = {"x": shape if values is None else values, "labels": labels}
    if weights:
        inputs["class_weights"] = uniform(0.2, 2, shape[-1])
    attributes = {"reduction": reduction, "ignore_index": ignore, "label_smoothing": smoothing}
    cases.add("cross_entropy", inputs, compute, attributes, grad=["x"] if gradient else [])


# ------------------------------------------------------------------------------ normalization within a sample, losses


def row_norm_case(cases, op, shape, row, gamma=True, beta=True, eps=1e-5, mean=0.0, groups=0, grad=None):
    """`row`: the shape of gamma and beta; both missing, the case has its rank as an attribute."""

    def compute(x, *parameters):
        parameters = list(parameters)
        weight = parameters.pop(0) if gamma else None
        bias = parameters.pop(0) if beta else None
        if op == "layer_norm":
            return F.layer_norm(x, row, weight, bias, eps)
        if op == "rms_norm":
            return F.rms_norm(x, row, weight, eps)
        return F.group_norm(x.movedim(-1, 1), groups, weight, bias, eps).movedim(1, -1)

    inputs = {"x": lambda rng: rng.standard_normal(shape) * 1.5 + mean}
    if gamma:
        inputs["gamma"] = uniform(0.5, 1.5, *row)
    if beta:
        inputs["beta"] = row
    cases.add(op, inputs, compute, {"eps": eps, "dims": len(row), "groups": groups}, grad=grad)


def row_norms(cases):
    for gamma, beta in ((True, True), (True, False), (False, True), (False, False)):
        row_norm_case(cases, "layer_norm", (7, 5), (5,), gamma, beta)
        row_norm_case(cases, "layer_norm", (2, 3, 4, 9), (4, 9), gamma, beta, eps=1e-3)
        row_norm_case(cases, "group_norm", (3, 4, 5, 6), (6,), gamma, beta, groups=3)
        row_norm_case(cases, "group_norm", (5, 8), (8,), gamma, beta, eps=1e-2, groups=2)
    row_norm_case(cases, "layer_norm", (19,), (19,))
    row_norm_case(cases, "layer_norm", (3, 2, 65), (65,), mean=8.0)
    row_norm_case(cases, "layer_norm", (4, 1), (1,), grad=["beta"])  # the others are PyTorch's rounding
    row_norm_case(cases, "group_norm", (2, 3, 7), (7,), groups=7)
    row_norm_case(cases, "group_norm", (2, 5, 3, 18), (18,), groups=1, mean=8.0)
    for gamma in (True, False):
        row_norm_case(cases, "rms_norm", (7, 5), (5,), gamma, False, eps=2.0**-23)
        row_norm_case(cases, "rms_norm", (3, 2, 65), (65,), gamma, False, eps=1e-3, mean=8.0)
        row_norm_case(cases, "rms_norm", (19,), (19,), gamma, False, eps=1e-6)


def more_losses(cases):
    names = ("mean", "sum", "none", "batchmean")
    inf = np.inf
    for reduction in range(3):
        n = names[reduction]
        for shape, labels, ignore, weighted in [
            ((7, 5), ints(0, 5, 7), -100, False),
            ((7, 5), ints(0, 5, 7, dtype=np.int64), 2, True),
            ((2, 3, 4), ints(0, 4, 2, 3), 1, True),
        ]:
            inputs = {"x": shape, "labels": labels}
            if weighted:
                inputs["class_weights"] = uniform(0.2, 2, shape[-1])
            cases.add(
                "nll",
                inputs,
                lambda x, t, w=None, n=n, i=ignore: F.nll_loss(
                    x.movedim(-1, 1), t.long(), w, ignore_index=i, reduction=n
                ),
                {"reduction": reduction, "ignore_index": ignore},
                grad=["x"],
            )
        for weight in (None, (5,), (3, 5), ()):
            inputs = {"x": (3, 5), "target": uniform(0, 1, 3, 5)}
            if weight is not None:
                inputs["pos_weight"] = uniform(0.5, 3, *weight)
            cases.add(
                "bce_with_logits",
                inputs,
                lambda x, t, w=None, n=n: F.binary_cross_entropy_with_logits(x, t, reduction=n, pos_weight=w),
                {"reduction": reduction},
                grad=["x", "target"],
            )
        for beta in (1.0, 0.25, 0.0):
            cases.add(
                "smooth_l1",
                {"x": (3, 5), "target": (3, 5)},
                lambda x, t, n=n, b=beta: F.smooth_l1_loss(x, t, reduction=n, beta=b),
                {"reduction": reduction, "beta": beta},
            )
    edges = f32(0, -0.0, 90, -90, 300, -300, 1e-4, 0)
    cases.add(
        "bce_with_logits",
        {"x": edges, "target": f32(0, 1, 1, 1, 0, 0, 1, 0.5)},
        lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="none"),
        {"reduction": 2},
    )
    cases.add(  # infinite logits: NaN where the right answer is infinitely sure
        "bce_with_logits",
        {"x": f32(inf, -inf, inf, -inf), "target": f32(1, 0, 0, 1)},
        lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="none"),
        {"reduction": 2},
        grad=[],
    )
    for beta in (0.5, 0.0):  # differences of 0, of beta, and far beyond it
        cases.add(
            "smooth_l1",
            {"x": f32(1, 2.5, 1.5, 3, -7), "target": f32(1, 2, 2, 1e4, 7)},
            lambda x, t, b=beta: F.smooth_l1_loss(x, t, reduction="none", beta=b),
            {"reduction": 2, "beta": beta},
        )
    for reduction, n in enumerate(names):
        for log_target in (0, 1):
            target = uniform(-4, 0, 4, 2, 3) if log_target else uniform(0.05, 1, 4, 2, 3)
            cases.add(
                "kl_div",
                {"x": uniform(-4, 0, 4, 2, 3), "target": target},
                lambda x, t, n=n, k=log_target: F.kl_div(x, t, reduction=n, log_target=bool(k)),
                {"reduction": reduction, "log_target": log_target},
            )
    cases.add(  # targets of 0; PyTorch has no gradient of them there
        "kl_div",
        {"x": uniform(-4, 0, 4), "target": f32(0, 0.5, 0, 1)},
        lambda x, t: F.kl_div(x, t, reduction="none"),
        {"reduction": 2, "log_target": 0},
        grad=["x"],
    )
    cases.add(
        "kl_div",
        {"x": f32(-1, -inf, -2), "target": f32(-1, 0.5, 0)},
        lambda x, t: F.kl_div(x, t, reduction="none"),
        {"reduction": 2, "log_target": 0},
        grad=[],
    )
    no_rows = {"x": (2, 4), "labels": np.array([-100, -100], np.int32)}
    compute = lambda x, t: F.nll_loss(x, t.long())
    cases.add("nll", no_rows, compute, {"reduction": 0, "ignore_index": -100}, grad=[])  # NaN


# ----------------------------------------------------------------------------------------------------------- optimizers


def optimizer_case(cases, op, shape, rates, **settings):
    """A parameter, the gradient of each step ("g"), and the parameter after each step ("y")."""
    rng = cases.begin(op)
    cases.attributes = {"lr", *settings}
    p0 = rng.standard_normal(shape, dtype=np.float32)
    gradients = rng.standard_normal((len(rates), *shape), dtype=np.float32)
    gradients[:, 0] = 0  # a parameter that never gets a gradient
    p = torch.from_numpy(p0.copy()).double().requires_grad_()
    if op == "adamw":
        named = {"betas": (settings["beta1"], settings["beta2"]), "eps": settings["eps"]}
        optimizer = torch.optim.AdamW([p], lr=rates[0], weight_decay=settings["weight_decay"], **named)
    else:
        optimizer = torch.optim.SGD([p], lr=rates[0], **{**settings, "nesterov": bool(settings["nesterov"])})
    after = []
    for rate, gradient in zip(rates, gradients):
        optimizer.param_groups[0]["lr"] = rate
        p.grad = torch.from_numpy(gradient).double()
        optimizer.step()
        after.append(p.detach().clone())
    cases.put("p", p0)
    cases.put("g", gradients)
    cases.put("y", torch.stack(after))
    cases.put("lr", np.array(rates))
    for name, value in settings.items():
        cases.put(name, np.float64(value))


def optimizers(cases):
    def sgd(shape, rates, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=0):
        settings = {"momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov}
        optimizer_case(cases, "sgd", shape, rates, **settings)

    def adamw(shape, rates, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
        optimizer_case(cases, "adamw", shape, rates, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)

    sgd((5,), [0.1] * 4)
    sgd((3, 7), [0.1] * 4, weight_decay=0.05)
    sgd((3, 7), [0.1] * 6, momentum=0.9)
    sgd((17,), [0.1] * 6, momentum=0.9, dampening=0.4, weight_decay=0.01)
    sgd((17,), [0.1] * 6, momentum=0.9, nesterov=1, weight_decay=0.01)
    sgd((17,), [0.1, 0.05, 0.0, 0.2], momentum=0.9)
    adamw((5,), [1e-3] * 5)
    adamw((3, 7), [0.1, 0.05, 0.0, 0.2], weight_decay=0.1)
    adamw((17,), [0.01] * 20, beta1=0.5, beta2=0.9, eps=1e-3, weight_decay=0.0)


# --------------------------------------------------------------------------------------------------- indices and scans


def indices(cases):
    """The cases of index.safetensors."""
    inf, nan = np.inf, np.nan
    for rows, width, shape in [(7, 5, (4,)), (5, 1, (2, 3)), (3, 4, ()), (2, 33, (3, 2, 4)), (30, 7, (50,))]:
        for dtype in (np.int32, np.int64):
            inputs = {"weight": (rows, width), "indices": ints(0, rows, *shape, dtype=dtype)}
            cases.add("embedding", inputs, lambda weight, i: F.embedding(i.long(), weight))
    for x, index, source, axis in [
        ((5,), (7,), (7,), 0),
        ((3, 4), (3, 6), (3, 6), 1),
        ((3, 4), (2, 3), (2, 3), -1),
        ((4, 3, 5), (4, 6, 5), (4, 6, 5), 1),
        ((4, 3, 5), (2, 2, 4), (2, 2, 4), 0),
        ((2, 3, 4, 5), (1, 3, 2, 7), (1, 3, 2, 7), 3),
        ((3, 10), (20, 10), (20, 10), 0),
    ]:
        at = {"axis": axis}
        i32, i64 = (ints(0, x[axis], *index, dtype=dtype) for dtype in (np.int32, np.int64))
        cases.add("gather", {"x": x, "index": i32}, lambda x, i, a=axis: x.gather(a, i.long()), at)
        add = lambda x, i, s, a=axis: x.scatter_add(a, i, s)
        cases.add("scatter_add", {"x": x, "index": i64, "source": source}, add, at)
    # Of the source, which is larger than the index, PyTorch has no gradient.
    larger = {"x": (3, 4), "index": ints(0, 4, 2, 3), "source": (3, 9)}
    cases.add("scatter_add", larger, lambda x, i, s: x.scatter_add(1, i.long(), s), {"axis": 1}, grad=["x"])
    whole = {"x": ints(-9, 9, 4), "index": ints(0, 4, 9), "source": ints(-9, 9, 9)}
    cases.add("scatter_add", whole, lambda x, i, s: x.scatter_add(0, i.long(), s), {"axis": 0})
    for shape, classes in [((6,), 4), ((2, 3), 5), ((), 3)]:
        hot = lambda i, c=classes: F.one_hot(i.long(), c)
        cases.add("one_hot", {"indices": ints(0, classes, *shape)}, hot, {"classes": classes})
        hot = lambda i, c=classes: F.one_hot(i.long(), c).double()
        cases.add("one_hot", {"indices": ints(0, classes, *shape, dtype=np.int64)}, hot, {"classes": classes})
    for shape, k in [((9,), 4), ((3, 7), 7), ((2, 3, 40), 5), ((4, 1), 1)]:
        cases.add("topk", {"x": shape}, lambda x, k=k: x.topk(k).values, {"k": k})
        cases.add("topk_indices", {"x": shape}, lambda x, k=k: x.topk(k).indices, {"k": k}, grad=[])
    # topk gives no promise for ties; a stable sort does.
    ties = np.array([[1, 3, 3, 0, 3], [2, 2, 2, 2, 2], [nan, -5, -inf, nan, inf]], np.float32)
    first = lambda x: torch.sort(x, descending=True, stable=True)
    cases.add("topk", {"x": ties}, lambda x: first(x).values[:, :3], {"k": 3}, grad=[])
    cases.add("topk_indices", {"x": ties}, lambda x: first(x).indices[:, :3], {"k": 3}, grad=[])
    for shape, axis in [((9,), 0), ((3, 4, 5), 1), ((3, 4, 5), 0), ((3, 4, 5), -1), ((2, 60), 1)]:
        for reverse in (0, 1):
            sums = lambda x, a=axis: x.cumsum(a)
            if reverse:
                sums = lambda x, a=axis: x.flip(a).cumsum(a).flip(a)
            cases.add("cumsum", {"x": shape}, sums, {"axis": axis, "reverse": reverse})
    cases.add("cumsum", {"x": ints(-9, 9, 3, 5)}, lambda x: x.cumsum(1).int(), {"axis": 1, "reverse": 0})

    def prod(x, dims, keep):
        for d in sorted((d % x.dim() for d in dims), reverse=True):
            x = x.prod(d, keepdim=keep)
        return x

    lines = {
        "prod": prod,
        "logsumexp": torch.logsumexp,
        "var": lambda x, d, k: torch.var(x, dim=d, correction=1, keepdim=k),
        "var_biased": lambda x, d, k: torch.var(x, dim=d, correction=0, keepdim=k),
    }
    for p in (1, 2, inf):
        lines[f"norm_{p}"] = lambda x, d, k, p=p: torch.linalg.vector_norm(x, p, dim=d, keepdim=k)

    def line(name, x, axes, keep, grad=None):
        dims = axes or list(range(np.ndim(x) if isinstance(x, np.ndarray) else len(x)))
        op, compute, attributes = name, lines[name], {"axes": np.array(axes, np.int64), "keep": keep}
        if name.startswith("var"):
            op, attributes["correction"] = "var", 0 if name == "var_biased" else 1
        if name.startswith("norm"):
            op, attributes["p"] = "norm", float(name[5:])
        cases.add(op, {"x": x}, lambda x: compute(x, dims, bool(keep)), attributes, grad=grad)

    for name in lines:
        shapes = [((6,), []), ((3, 4, 5), [1]), ((3, 4, 5), [0, 2]), ((3, 4, 5), [-1]), ((4, 3, 3, 7), [0, 1, 2])]
        for x, axes in shapes:
            line(name, x, axes, 1 if axes else 0)
        line(name, (2, 3, 20), [2, 0], 0)
        line(name, (2, 30), [1], 0)
    zeros = np.array([[0, 0, 0], [0, 2, -3], [0, 0, 4], [1, -2, 5]], np.float32)
    for name in lines:
        line(name, zeros, [1], 0)
    line("norm_1", np.zeros((2, 3), np.float32), [], 0)
    line("norm_2", np.zeros((2, 3), np.float32), [], 0)
    line("norm_inf", np.array([[1, -2, 2, 2], [0, 0, 0, 0]], np.float32), [1], 0)
    infinite = np.array([[-inf, -inf, -inf], [-inf, 0, 1], [nan, 0, 1], [1000, 999, -1000]], np.float32)
    line("logsumexp", infinite, [1], 0)
    line("logsumexp", f32(1, inf, -inf), [0], 0, grad=[])
    line("logsumexp", np.zeros((2, 0), np.float32), [1], 0, grad=[])
    line("prod", np.zeros((2, 0), np.float32), [1], 0, grad=[])
    line("var", np.array([[3], [4]], np.float32), [1], 0)
    line("var", 1000 + np.arange(12, dtype=np.float32).reshape(3, 4), [1], 0)
    cases.add("prod", {"x": ints(-9, 9, 3, 5)}, lambda x: x.prod(1).int(), {"axes": [1], "keep": 0})
    backwards = lambda parts, a: torch.cat([p * (i + 1) for i, p in enumerate(parts)][::-1], a)
    cases.add("split", {"x": (3, 9)}, lambda x: backwards(x.split(3, 1), 1), {"axis": 1, "count": 3})
    cases.add("split", {"x": (8, 2)}, lambda x: backwards(x.split(4, 0), 0), {"axis": 0, "count": 2})
    sizes = {"axis": -1, "count": 3, "sizes": np.array([2, 1, 4], np.int64)}
    cases.add("split", {"x": (3, 7)}, lambda x: backwards(x.split([2, 1, 4], -1), -1), sizes)
    for shape, axis in [((3,), 0), ((2, 3), -1), ((2, 3), 1), ((), 0), ((2, 1, 4), 2)]:
        parts = {"x0": shape, "x1": shape, "x2": shape}
        cases.add("stack", parts, lambda *p, a=axis: torch.stack(p, a), {"axis": axis})


# ------------------------------------------------------------------------------------------- einsum, stochastic depth


def einsums(cases):
    equations = [
        ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
        ("ij,jk", (3, 4), (4, 5)),
        ("ij,jk->ki", (3, 4), (4, 5)),
        ("ji,kj->ik", (4, 3), (5, 4)),
        ("i,i->", (7,), (7,)),
        ("i,j->ji", (3,), (4,)),
        ("ij,ij->j", (3, 4), (3, 4)),
        ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)),
        ("bqhd,hdm->bqm", (2, 3, 2, 4), (2, 4, 5)),
        ("ijk,jil->kl", (3, 4, 2), (4, 3, 5)),
        ("ijx,jky->ik", (3, 4, 2), (4, 5, 3)),
        ("aibj,bkaj->kji", (2, 3, 4, 2), (4, 3, 2, 2)),
        ("ij,jk->ik", (3, 1), (4, 5)),
        ("ij,jk->ijk", (3, 1), (4, 5)),
        ("bi,bj->bij", (1, 3), (4, 2)),
        ("bij,bjk->bik", (1, 3, 4), (2, 4, 1)),
        ("iji,ij->j", (3, 2, 3), (3, 2)),
        ("...ij,...jk->...ik", (2, 1, 3, 4), (3, 4, 2)),
        ("i...,...j", (2, 3), (3, 4)),
        ("i...,...j->...", (2, 3), (3, 4)),
        ("...i,...i->", (2, 1, 3), (4, 3)),
        ("...,...", (2, 3), (3,)),
        (" i j , j k -> i k ", (3, 4), (4, 5)),
        ("Ba,ac", (2, 3), (3, 4)),
        (",i->i", (), (5,)),
        ("ij->ji", (3, 4)),
        ("ij->i", (3, 4)),
        ("ij->", (3, 4)),
        ("ij", (3, 4)),
        ("ba", (3, 4)),
        ("Bca", (2, 3, 4)),
        ("ii->i", (4, 4)),
        ("ii", (4, 4)),
        ("iiji->ij", (2, 2, 3, 2)),
        ("b...", (2, 3, 4)),
        ("...ij->ij", (2, 3, 4)),
        ("ij->...ij", (3, 4)),
        ("", ()),
    ]
    for equation, *shapes in equations:
        inputs = dict(zip("ab", shapes))
        sums = lambda *x, e=equation: torch.einsum(e, *x).clone()
        cases.add("einsum", inputs, sums, {"equation": np.array([ord(c) for c in equation], np.int64)})
    whole = {"a": ints(-9, 9, 3, 4), "b": ints(-9, 9, 4, 5)}
    cases.add("einsum", whole, lambda a, b: torch.einsum("ij,jk->ki", a, b), {"equation": [ord(c) for c in "ij,jk->ki"]})


def depths(cases):
    """Where the result does not depend on the random numbers."""
    from torchvision.ops import stochastic_depth

    for p, training in [(0.5, False), (1.0, False), (0.0, True), (1.0, True)]:
        drop = lambda x, p=p, t=training: stochastic_depth(x, p, "row", t)
        cases.add("stochastic_depth", {"x": (3, 2, 5)}, drop, {"p": p, "training": int(training)})


# --------------------------------------------------------------------------------------------------------------- edges


def edges(cases):
    """NaN, infinities, ties and empty tensors, with gradients."""
    inf, nan = np.inf, np.nan
    rows = lambda *lines: np.array(lines, np.float32)

    for op, compute in {"maximum": torch.maximum, "minimum": torch.minimum}.items():
        cases.add(op, {"a": f32(nan, 1, nan, 1, -0.0, inf, 2), "b": f32(1, nan, nan, 1, 0.0, inf, 3)}, compute)
    unary = {"sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "exp": torch.exp, "log": torch.log, "abs": torch.abs}
    unary.update({"sign": torch.sign, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "sin": torch.sin, "cos": torch.cos})
    unary.update({"erf": torch.erf, "floor": torch.floor, "round": torch.round, "relu": torch.relu, "neg": torch.neg})
    unary.update({"silu": F.silu, "hardsigmoid": F.hardsigmoid})
    for op, compute in unary.items():
        cases.add(op, {"x": f32(nan, inf, -inf, 0, -0.0, -1, 1)}, compute)
    wild, infinite = {"x": f32(nan, inf, -inf, 0, -0.0)}, {"x": f32(inf, -inf, 0, -0.0)}
    cases.add("clamp", wild, lambda x: torch.clamp(x, -1, 1), {"min": -1.0, "max": 1.0})
    cases.add("leaky_relu", wild, lambda x: F.leaky_relu(x, 0.1), {"slope": 0.1})
    cases.add("softplus", wild, lambda x: F.softplus(x, 1.0, 20.0), {"beta": 1.0, "threshold": 20.0})
    # Of NaN the gradients of these are 0 or 1 in PyTorch, those of the others are NaN.
    cases.add("elu", infinite, lambda x: F.elu(x, 1.5), {"alpha": 1.5})
    cases.add("hardswish", infinite, F.hardswish)
    cases.add("relu6", infinite, F.relu6)
    cases.add("div", {"a": f32(1, 0, inf, -1, 0), "b": f32(0, 0, inf, 0, -0.0)}, torch.div)
    bases, powers = f32(0, 0, -1, inf, nan, 1, 0), f32(0, -1, 0.5, 0, 0, nan, nan)
    cases.add("pow", {"a": bases, "b": powers}, torch.pow)

    def line(name, compute, lines, **attributes):
        """Along the last axis and along the first one."""
        axis = "axis" in attributes
        for a, x in ((1, lines), (0, np.ascontiguousarray(lines.T))):
            where = {"axis": a} if axis else {"axes": np.array([a]), "keep": 0}
            cases.add(name, {"x": x}, lambda x, a=a: compute(x, a), {**attributes, **where})

    odd = rows([1, nan, 3], [nan, nan, 2], [inf, inf, 3], [-inf, -inf, -inf], [2, 2, 2], [inf, -inf, 0], [-inf, 0, 1])
    sums = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "logsumexp": torch.logsumexp}
    for op, compute in sums.items():
        line(op, compute, odd)
    line("logsumexp", torch.logsumexp, rows([inf, 0, 1, -inf], [inf, inf, 1e30, -1], [inf, nan, 1, 0], [-1e30, -inf, 0, 0]))
    line("prod", torch.prod, rows([2, 0, 1], [0, 0, 3], [0, 0, 0], [-1, 2, 3]))
    for correction in (0, 1):
        spread = lambda x, a, c=correction: torch.var(x, dim=a, correction=c)
        line("var", spread, rows([inf, 0, 1], [nan, 2, 1], [3, 3, 3]), correction=correction)
    for p in (1.0, 2.0, inf):
        size = lambda x, a, p=p: torch.linalg.vector_norm(x, p, dim=a)
        some = rows([0, 0, 0], [nan, 1, 2], [inf, 1, 2], [inf, -inf, 2], [-2, 2, 1], [0, 0, -3])
        line("norm", size, some[some[:, 0] == some[:, 0]] if p == inf else some, p=p)
    for op, compute in {"softmax": torch.softmax, "log_softmax": torch.log_softmax}.items():
        line(op, compute, rows([inf, 0, -inf], [-inf, -inf, -inf], [nan, 1, 2], [-inf, 0, 1], [1e30, -1e30, 0]), axis=0)
    line("cumsum", torch.cumsum, rows([1, inf, 2, -inf, 3], [1, nan, 2, 3, 4]), axis=0, reverse=0)
    for x in (odd, np.ascontiguousarray(odd.T)):
        cases.add("argmax", {"x": x}, lambda x: x.argmax(1), {"axis": 1}, grad=[])
        cases.add("argmax", {"x": x}, lambda x: x.argmax(0), {"axis": 0}, grad=[])
    # topk gives no promise for ties; a stable sort does.
    best = lambda x: torch.sort(x, dim=1, descending=True, stable=True)
    cases.add("topk", {"x": odd}, lambda x: best(x).values[:, :2], {"k": 2})
    cases.add("topk_indices", {"x": odd}, lambda x: best(x).indices[:, :2], {"k": 2}, grad=[])
    # Where a window has several NaN, PyTorch's gradient goes to the last of them.
    images = np.array([[nan, 1, -inf, -inf], [2, 1, -inf, -inf], [1, 1, 3, 4], [1, 1, nan, 3]], np.float32)
    pool_case(cases, "max_pool2d", None, (2, 2), values=images.reshape(1, 4, 4, 1))

    nothing = np.zeros((2, 0), np.float32)
    empty = {"sum": torch.sum, "mean": torch.mean, "prod": torch.prod, "logsumexp": torch.logsumexp}
    for op, compute in empty.items():
        line(op, compute, nothing)
    line("var", lambda x, a: torch.var(x, dim=a, correction=0), nothing, correction=0)
    for p in (1.0, 2.0):
        line("norm", lambda x, a, p=p: torch.linalg.vector_norm(x, p, dim=a), nothing, p=p)
    for op, compute in {"softmax": torch.softmax, "log_softmax": torch.log_softmax}.items():
        line(op, compute, nothing, axis=0)
    line("cumsum", torch.cumsum, nothing, axis=0, reverse=0)
    for shape in ((0,), (2, 0)):
        hot = lambda i: F.one_hot(i.long(), 5)
        cases.add("one_hot", {"indices": np.zeros(shape, np.int32)}, hot, {"classes": 5})

    names = ("mean", "sum", "none")
    ignored, some = np.array([-100, -100], np.int32), np.array([-100, 1], np.int32)
    for reduction, name in enumerate(names):
        for labels in (ignored, some):
            entropy_case(cases, (2, 4), labels, reduction, names)
        for losses, labels in (("cross_entropy", ignored), ("nll", ignored), ("nll", some)):
            compute = lambda x, t, n=name, l=losses: getattr(F, l if l != "nll" else "nll_loss")(x, t.long(), reduction=n)
            attributes = {"reduction": reduction, "ignore_index": -100}
            if losses == "cross_entropy":
                attributes["label_smoothing"] = 0.0
            cases.add(losses, {"x": (2, 4), "labels": labels}, compute, attributes, grad=["x"])
        infinite = rows([-inf, 2, 1], [3, -inf, 1], [1, -inf, 1], [nan, 1, 2])
        entropy_case(cases, None, np.array([0, 1, 0, 1], np.int32), reduction, names, values=infinite)
        entropy_case(cases, None, np.array([0], np.int32), reduction, names, values=rows([inf, 2, 1]))
    small = f32(20, -30, 50, -80, 17, 0.5, -0.5)
    for targets in (f32(1, 1, 1, 1, 1, 1, 1), f32(0, 0, 0, 0, 0, 0, 0), f32(0.5, 0, 1, 1, 1, 1, 0)):
        loss = lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="none")
        cases.add("bce_with_logits", {"x": small, "target": targets}, loss, {"reduction": 2})
    sure = lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction="none")
    cases.add("bce_with_logits", {"x": f32(18, 25, 40, 80), "target": f32(1, 1, 1, 1)}, sure, {"reduction": 2})
    cases.add("smooth_l1", {"x": f32(inf, -inf, nan, 1e30), "target": f32(0, 0, 0, 0)},
              lambda x, t: F.smooth_l1_loss(x, t, reduction="none"), {"reduction": 2, "beta": 1.0})  # fmt: skip
    cases.add("mse", {"x": f32(inf, -inf, nan, 1e10), "target": f32(0, 0, 0, 0)},
              lambda x, t: F.mse_loss(x, t, reduction="none"), {"reduction": 2})  # fmt: skip
    cases.add("kl_div", {"x": f32(-1, -inf, -1, -inf), "target": f32(0, 0.5, -1, 0)},
              lambda x, t: F.kl_div(x, t, reduction="none"), {"reduction": 2, "log_target": 0}, grad=["x"])  # fmt: skip
# ------------------------------------------------------------------------------------------------------------ attention


def attention_case(cases, n, tq, tk, heads, kv_heads, d, dv, mask=None, causal=0, scale=0.0, grad=None):
    inputs = {"query": (n, tq, heads, d), "key": (n, tk, kv_heads, d), "value": (n, tk, kv_heads, dv)}
    if mask is not None:
        inputs["mask"] = mask

    def compute(query, key, value, mask=None):
        if causal and mask is not None:  # PyTorch takes one of both
            hidden = torch.ones(tq, tk, dtype=torch.bool).triu(1)
            mask = mask.expand(n, heads, tq, tk).masked_fill(hidden, -np.inf)
        y = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            mask,
            is_causal=bool(causal) and mask is None,
            scale=scale or None,
            enable_gqa=heads != kv_heads,
        )
        return y.transpose(1, 2)

    cases.add("attention", inputs, compute, {"causal": causal, "scale": scale}, grad)


def attention(cases):
    """The cases of attention.safetensors."""
    inf, nan = np.inf, np.nan

    def holes(*shape, blind=0):
        """Masks with -inf here and there, and in the first `blind` elements."""

        def fill(rng):
            values = np.where(rng.random(shape) < 0.3, -inf, rng.standard_normal(shape))
            values.reshape(-1)[:blind] = -inf
            return values

        return fill

    for causal in (0, 1):
        attention_case(cases, 2, 5, 5, 2, 2, 8, 8, causal=causal)
        attention_case(cases, 1, 3, 7, 4, 2, 4, 6, causal=causal)
        attention_case(cases, 1, 7, 3, 3, 1, 5, 2, causal=causal)
        attention_case(cases, 1, 70, 130, 1, 1, 20, 9, causal=causal)
        attention_case(cases, 2, 4, 5, 2, 1, 4, 4, mask=(2, 2, 4, 5), causal=causal)
        attention_case(cases, 2, 4, 5, 2, 1, 4, 4, mask=holes(2, 2, 4, 5, blind=5), causal=causal)
        attention_case(cases, 1, 1, 1, 1, 1, 1, 1, causal=causal)
    for mask in [(4, 5), (2, 1, 1, 5), (2, 4, 1), (2, 1, 4, 5), (2, 2, 4, 1)]:
        # The gradients of a row's scores add up to 0: where the mask has one element for all of them, PyTorch has rounding.
        grad = ["query", "key", "value"] if mask[-1] == 1 else None
        attention_case(cases, 2, 4, 5, 2, 2, 4, 4, mask=mask, grad=grad)
        attention_case(cases, 2, 4, 5, 2, 2, 4, 4, mask=holes(*mask, blind=5), grad=grad)
    attention_case(cases, 2, 5, 6, 2, 2, 8, 8, scale=0.3)
    attention_case(cases, 2, 5, 6, 2, 2, 8, 8, scale=-2.0)
    attention_case(cases, 2, 3, 0, 2, 2, 4, 4)
    attention_case(cases, 2, 3, 4, 2, 2, 0, 4, scale=1.0)
    special = np.zeros((3, 4), np.float32)
    special[0, 1], special[1, 2] = nan, inf
    attention_case(cases, 1, 3, 4, 1, 1, 4, 4, mask=special, grad=[])
    attention_case(cases, 1, 3, 4, 1, 1, 4, 4, mask=f32(0, -1e4, 0, -1e9))


def rotary(cases):
    def add(shape, base=10000.0, first=0, dims=0, interleaved=0):
        size = dims or shape[3]
        position = torch.arange(first, first + shape[1], dtype=torch.float64)
        angle = torch.outer(position, base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size))[:, None]

        def compute(x):
            turned, rest = x[..., :size], x[..., size:]
            if interleaved:  # pairs are complex numbers
                pairs = torch.view_as_complex(turned.reshape(*shape[:3], size // 2, 2).contiguous())
                turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)
            else:
                cosine, sine = torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()
                a, b = turned.chunk(2, -1)
                turned = turned * cosine + torch.cat([-b, a], -1) * sine
            return torch.cat([turned, rest], -1)

        attributes = {"base": base, "first": first, "dims": dims, "interleaved": interleaved}
        cases.add("rotary", {"x": shape}, compute, attributes)

    for interleaved in (0, 1):
        add((2, 5, 3, 8), interleaved=interleaved)
        add((1, 4, 2, 10), base=100.0, first=7, dims=6, interleaved=interleaved)
        add((1, 40, 1, 34), base=500000.0, first=4000, interleaved=interleaved)
        add((1, 3, 1, 2), first=-1, interleaved=interleaved)


# --------------------------------------------------------------------------------------------------------------- images


def transposed(cases):
    """Transposed convolution. PyTorch's padding is the same on both sides: what differs is cut off here."""

    def add(image, out, kernel, stride=(1, 1), padding=(0, 0, 0, 0), more=(0, 0), dilation=(1, 1), groups=1, bias=True):
        def compute(x, weight, bias=None):
            top, bottom, left, right = padding
            even = min(top, bottom), min(left, right)
            y = F.conv_transpose2d(
                x.permute(0, 3, 1, 2), weight.permute(0, 3, 1, 2), bias, stride, even, more, groups, dilation
            ).permute(0, 2, 3, 1)
            rows, columns = y.shape[1] - (bottom - even[0]), y.shape[2] - (right - even[1])
            return y[:, top - even[0] : rows, left - even[1] : columns]

        inputs = {"x": image, "weight": (image[3], *kernel, out // groups)}
        if bias:
            inputs["bias"] = (out,)
        attributes = {"stride": stride, "padding": padding, "output_padding": more, "dilation": dilation}
        attributes = {name: np.array(value, np.int64) for name, value in attributes.items()}
        cases.add("conv_transpose2d", inputs, compute, {**attributes, "groups": groups})

    same = (1, 1, 1, 1)
    add((2, 5, 6, 3), 4, (1, 1))
    add((2, 4, 5, 3), 5, (3, 3))
    add((1, 1, 1, 4), 2, (2, 3))
    add((2, 5, 4, 6), 3, (2, 2), stride=(2, 2), bias=False)
    add((1, 6, 5, 8), 9, (3, 3), stride=(2, 2), padding=same, more=(1, 1))
    add((2, 4, 4, 6), 4, (4, 4), stride=(2, 2), padding=same)
    add((1, 5, 4, 2), 3, (3, 2), stride=(3, 1), padding=(0, 2, 1, 0), more=(2, 0))
    add((1, 3, 4, 2), 2, (2, 2), stride=(3, 4), bias=False)
    add((1, 4, 5, 3), 2, (3, 3), dilation=(2, 3), padding=(2, 2, 3, 3))
    add((1, 4, 5, 3), 2, (2, 3), dilation=(3, 2), more=(2, 1))  # output padding of a stride and more
    add((2, 3, 4, 4), 4, (3, 2), stride=(1, 2), dilation=(4, 5), padding=(1, 1, 2, 2), more=(3, 4), groups=4)
    add((2, 4, 3, 4), 6, (3, 3), groups=2)
    add((1, 5, 6, 7), 7, (3, 3), stride=(2, 2), padding=same, more=(1, 0), groups=7)
    add((1, 3, 3, 3), 6, (2, 2), groups=3, bias=False)
    add((1, 6, 7, 2), 2, (1, 2), padding=(2, 2, 2, 2))
    add((1, 7, 6, 20), 17, (3, 3), stride=(2, 2), padding=same)


def lines(cases):
    def add(x, out, kernel, stride=1, padding=(0, 0), dilation=1, groups=1, bias=True):
        def compute(x, weight, bias=None):
            x = F.pad(x.permute(0, 2, 1), padding)
            return F.conv1d(x, weight.permute(0, 2, 1), bias, stride, 0, dilation, groups).permute(0, 2, 1)

        inputs = {"x": x, "weight": (out, kernel, x[2] // groups)}
        if bias:
            inputs["bias"] = (out,)
        attributes = {"stride": stride, "dilation": dilation, "groups": groups, "padding": np.array(padding, np.int64)}
        cases.add("conv1d", inputs, compute, attributes)

    add((2, 7, 3), 4, 3)
    add((2, 5, 4), 3, 1, bias=False)
    add((1, 4, 2), 3, 4)
    add((2, 30, 8), 12, 5, padding=(2, 2))
    add((1, 9, 3), 3, 3, padding=(4, 0), dilation=2)
    add((2, 11, 2), 3, 3, stride=2, padding=(1, 0))
    add((1, 9, 2), 2, 2, stride=3, bias=False)
    add((2, 6, 4), 6, 3, groups=2)
    add((2, 19, 7), 7, 5, stride=2, padding=(2, 2), groups=7)
    add((1, 1, 1), 1, 1)


def sizes(cases):
    """Adaptive pooling and resizing."""
    pairs = [
        ((1, 4, 5, 2), (4, 5)),
        ((2, 6, 4, 3), (3, 2)),
        ((2, 3, 4, 3), (6, 8)),
        ((1, 7, 6, 2), (3, 4)),
        ((1, 3, 5, 2), (7, 6)),
        ((1, 5, 4, 2), (9, 3)),
        ((2, 5, 3, 4), (1, 1)),
        ((2, 1, 1, 3), (3, 4)),
        ((1, 1, 7, 2), (2, 5)),
        ((1, 11, 10, 1), (10, 11)),
        ((1, 4, 3, 19), (3, 5)),
        ((1, 14, 13, 8), (7, 7)),
    ]
    for image, size in pairs:
        attributes = {"size": np.array(size, np.int64)}
        channels_last = lambda op: lambda x: op(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        pool = channels_last(lambda x, size=size: F.adaptive_avg_pool2d(x, size))
        cases.add("adaptive_avg_pool2d", {"x": image}, pool, attributes)
        for bilinear, corners in [(0, 0), (1, 0), (1, 1)]:
            settings = {"mode": "bilinear", "align_corners": bool(corners)} if bilinear else {"mode": "nearest"}
            resize = channels_last(lambda x, size=size, s=settings: F.interpolate(x, size, **s))
            cases.add("resize2d", {"x": image}, resize, {**attributes, "bilinear": bilinear, "align_corners": corners})
    # Which pixel is the nearest follows from products in single precision: these sizes tell them from exact ones.
    for rows, size in nearest_by_rounding():
        single = lambda x, size=size: F.interpolate(x.float().permute(0, 3, 1, 2), (size, 1))
        nearest = lambda x, single=single: single(x).permute(0, 2, 3, 1).double()
        attributes = {"size": np.array([size, 1], np.int64), "bilinear": 0, "align_corners": 0}
        cases.add("resize2d", {"x": (1, rows, 1, 1)}, nearest, attributes)


def nearest_by_rounding(count=8):
    """Sizes (from, to) where floor(i * from / to) is another one if it is computed in single precision."""
    found = []
    for to in range(3, 200):
        for rows in range(2, 200):
            i = np.arange(to)
            scale = np.float32(rows) / np.float32(to)
            if (np.floor(i.astype(np.float32) * scale).astype(np.int64) != i * rows // to).any():
                found.append((rows, to))
    return found[:: len(found) // count]


# ----------------------------------------------------------------------------------------------------------- whole runs


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 48)
        self.fc2 = nn.Linear(48, 10)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, channels, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        h = torch.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        return torch.relu(h + (x if self.downsample is None else self.downsample(x)))


class ResNet8(nn.Module):
    """Its batch norms start with a bias above 0. With PyTorch's 0 many values lie at ReLU's kink; one that falls on the
    other side by rounding changes a channel's gradient by a percent, and after 50 steps PyTorch's own single and double
    precision losses differ by 1e-3 and more. Like this, and with the learning rates below, they differ by 1e-6, also
    when the starting weights are off by a rounding error, so that 1e-4 is a test."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16, 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2))
        self.layer3 = nn.Sequential(Block(32, 64, 2))
        self.fc = nn.Linear(64, 10)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.2, 0.6)
                nn.init.uniform_(module.bias, 1, 2)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


class Transfer(nn.Module):
    """Its first layers have statistics as if they had been trained."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, 2, 1)
        self.bn2 = nn.BatchNorm2d(12)
        self.fc = nn.Linear(12, 10)
        nn.init.uniform_(self.bn1.running_mean, -0.3, 0.3)
        nn.init.uniform_(self.bn1.running_var, 0.5, 2)
        for norm in (self.bn1, self.bn2):
            nn.init.uniform_(norm.weight, 0.2, 0.6)
            nn.init.uniform_(norm.bias, 1, 2)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))

    def freeze(self, still):
        for module in (self.conv1, self.bn1):
            module.requires_grad_(False)
            module.train(not still)


def digits_batches(batch):
    """Batches of UCI's handwritten digits (scikit-learn carries them; CC BY 4.0): u8 [steps, batch, 64], 0 to 16."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(1).permutation(len(digits.target))[: STEPS * batch]
    images = digits.data[order].astype(np.uint8).reshape(STEPS, batch, 64)
    return images, digits.target[order].astype(np.uint8).reshape(STEPS, batch)


def pattern_batches(batch, size):
    """Images NHWC of a smooth pattern a class under noise: u8 [steps, batch, size, size, 3]."""
    rng = np.random.default_rng(2)
    coarse = torch.from_numpy(rng.standard_normal((10, 3, 4, 4)))
    patterns = F.interpolate(coarse, size=(size, size), mode="bilinear").permute(0, 2, 3, 1).numpy()
    labels = rng.integers(0, 10, (STEPS, batch)).astype(np.uint8)
    noise = rng.standard_normal((STEPS, batch, size, size, 3))
    images = np.clip(np.rint(128 + 50 * patterns[labels] + 10 * noise), 0, 255).astype(np.uint8)
    return images, labels


def train(model, make_optimizer, images, labels, prepare, dtype):
    model = model.to(dtype)
    optimizer = make_optimizer(model.parameters())
    losses = []
    for image, label in zip(images, labels):
        x = prepare(torch.from_numpy(image).to(dtype))
        loss = F.cross_entropy(model(x), torch.from_numpy(label).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses), {name: value.detach() for name, value in model.state_dict().items()}


def single(state):
    return {name: (v.float() if v.is_floating_point() else v).numpy() for name, v in state.items()}


def whole_run(name, make_model, images, labels, prepare, optimizers, freeze=lambda model, kind: None):
    torch.manual_seed(3)
    start = {key: value.clone() for key, value in make_model().state_dict().items()}
    save(f"{name}_start", single(start))
    data = {"images": images, "labels": labels}
    for kind, make_optimizer in optimizers.items():
        results = []
        for dtype in (torch.float64, torch.float32):
            model = make_model()
            model.load_state_dict(start)
            freeze(model, kind)
            results.append(train(model, make_optimizer, images, labels, prepare, dtype))
        (losses, final), (losses_f32, final_f32) = results
        data[f"{kind}/losses"] = losses
        data[f"{kind}/losses_f32"] = losses_f32
        save(f"{name}_{kind}", single(final))
        off = [(final[k] - final_f32[k].double()).norm() / v.norm() for k, v in final.items() if v.is_floating_point()]
        worst = max(off).item()
        print(
            f"{name} {kind}: loss {losses[0]:.4f} to {losses[-1]:.4f}; f32 differs from f64 by "
            f"{np.max(np.abs(losses_f32 / losses - 1)):.1e} in the loss, {worst:.1e} in the weights (both relative)"
        )
    save(f"{name}_data", data)


# --------------------------------------------------------------------------------------------------- mixing of a batch


def mix_case(cases, op, shape, transform, params, weights, box=None):
    """torchvision's transform with given parameters. `shape`: of images, NHWC, or of class probabilities."""

    def compute(x, weights, partners, box=None):
        labels = torch.zeros(len(x)) if x.ndim == 4 else x
        images = x.movedim(-1, 1) if x.ndim == 4 else x
        y = transform.transform(images, {"labels": labels, "batch_size": len(x), **params})
        return y.movedim(1, -1) if x.ndim == 4 else y

    inputs = {"x": shape, "weights": f32(*weights), "partners": np.roll(np.arange(shape[0], dtype=np.int32), 1)}
    if box is not None:
        inputs["box"] = np.array(box, np.int32)
    cases.add(op, inputs, compute, grad=["x"])


def mixing(cases):
    mixup, cutmix = v2.MixUp(num_classes=3), v2.CutMix(num_classes=3)
    for lam in (0.75, 0.1, 1.0, 0.0, 1e-4):
        lam = float(np.float32(lam))
        weights = (lam, 1 - lam, lam, 1 - lam)
        mix_case(cases, "mix_images", (5, 6, 4, 3), mixup, {"lam": lam}, weights)
        mix_case(cases, "mix_targets", (5, 3), mixup, {"lam": lam}, weights)
    for x1, y1, x2, y2 in ((1, 2, 3, 6), (0, 0, 4, 6), (2, 2, 2, 4), (3, 0, 4, 1)):
        lam = 1 - (x2 - x1) * (y2 - y1) / 24
        params, weights = {"box": (x1, y1, x2, y2), "lam_adjusted": lam}, (1, 0, lam, 1 - lam)
        mix_case(cases, "mix_images", (5, 6, 4, 3), cutmix, params, weights, (y1, x1, y2, x2))
        mix_case(cases, "mix_targets", (5, 3), cutmix, params, weights)


def soft_targets(cases):
    names = ["mean", "sum", "none"]

    def add(shape, reduction, smoothing=0.0, weights=False, sums_to_one=True):
        def compute(x, target, class_weights=None):
            return F.cross_entropy(
                x.movedim(-1, 1) if x.ndim > 1 else x,
                target.movedim(-1, 1) if x.ndim > 1 else target,
                class_weights,
                reduction=names[reduction],
                label_smoothing=smoothing,
            )

        def target(rng):
            t = rng.uniform(0, 1, shape)
            return t / t.sum(-1, keepdims=True) if sums_to_one else t

        inputs = {"x": shape, "target": target}
        if weights:
            inputs["class_weights"] = uniform(0.2, 2, shape[-1])
        attributes = {"reduction": reduction, "label_smoothing": smoothing}
        cases.add("cross_entropy_soft", inputs, compute, attributes, grad=["x", "target"])

    for reduction in range(3):
        for weights in (False, True):
            add((6, 5), reduction, 0.1 if weights else 0.0, weights)
            add((4, 3, 7), reduction, 0.0 if weights else 0.25, weights, sums_to_one=False)
    add((9,), 0, 0.5)
    add((2, 3, 2, 4), 0, 1.0, True)


def save(name, tensors):
    path = os.path.join(HERE, name + ".safetensors")
    tensors = {key: np.ascontiguousarray(value).reshape(value.shape) for key, value in tensors.items()}
    # One key: the order of several is not fixed, and the files are to be the same each time.
    save_file(tensors, path, metadata={"made by": "make_goldens.py with PyTorch " + torch.__version__.split("+")[0]})
    os.chmod(path, 0o644)
    print(f"{name}.safetensors: {len(tensors)} tensors, {os.path.getsize(path)} bytes")


OP_FILES = {
    "ops": (pointwise, reductions, products, shapes, convolutions, norms, pools, losses, optimizers),
    "pointwise": (activations,),
    "norms_losses": (row_norms, more_losses),
    "index": (indices,),
    "rest": (einsums, depths, edges),
    "attention": (attention, rotary),
    "image": (transposed, lines, sizes),
    "mix": (mixing, soft_targets),
}


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name, families in OP_FILES.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        cases = Cases()
        for family in families:
            family(cases)
        save(name, cases.tensors)
        print(f"{sum(cases.counts.values())} cases of {len(cases.counts)} ops")
    image = lambda x: (x.permute(0, 3, 1, 2) - 128) / 64
    if not sys.argv[1:] or "transfer" in sys.argv[1:]:
        images, labels = (data[:20] for data in pattern_batches(8, 8))
        sgd = lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=0.01)
        freeze = lambda model, kind: model.freeze(kind == "still")
        whole_run("transfer", Transfer, images, labels, image, {"frozen": sgd, "still": sgd}, freeze)
    if sys.argv[1:]:
        return

    def runs(lr, adam_lr):
        return {
            "sgd": lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9),
            "nesterov": lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4),
            "adamw": lambda p: torch.optim.AdamW(p, lr=adam_lr, weight_decay=0.01),
        }

    whole_run("mlp", Mlp, *digits_batches(32), lambda x: x / 16, runs(0.05, 2e-3))
    whole_run("resnet8", ResNet8, *pattern_batches(16, 16), image, runs(0.005, 5e-4))


if __name__ == "__main__":
    main()
