"""Writes the golden values of optimizers and schedules that tests/optim compares fasttrain with.

    python3 tests/goldens/make_optimizers.py              # needs torch, timm, numpy, safetensors
    python3 tests/goldens/make_optimizers.py schedules    # this file only: "optimizers" or "schedules"

Run by hand; its outputs are committed.

optimizers.safetensors  "<case>/<parameter>/<step>": parameters after some of the steps, f32, in fasttrain's layout (weights
                        of convolutions OHWI). First values and gradients are not stored: both sides compute them by one
                        formula, `number`. PyTorch runs in double precision; Muon's iteration, which PyTorch does in
                        bfloat16, too. LAMB, LARS and Lion are timm's.
schedules.safetensors   "<case>": the learning rate of each step, f64, as PyTorch's schedulers set it; "plateau <case>":
                        that after each epoch, whose "metric" is there too.
"""

import math
import os
import sys
import warnings

import numpy as np
import timm
import timm.optim
import torch
from safetensors.numpy import save_file
from torch.optim import lr_scheduler

HERE = os.path.dirname(os.path.abspath(__file__))

# ----------------------------------------------------------------------------------------------------------- optimizers

STEPS = 100
KEPT = (2, 20, 100)
# Names and shapes in fasttrain's layout.
PARAMETERS = {
    "scalar": (),
    "norm.weight": (7,),
    "fc.weight": (13, 10),
    "fc.bias": (13,),
    "conv.weight": (6, 3, 3, 4),
    "tall.weight": (23, 6),
}


def numbers(tensor, step, shape):
    """Numbers from -1 to 1 that are exact in f32; element i of the tensor with index `tensor` at a step."""
    count = int(np.prod(shape, dtype=np.int64))
    mask = np.uint64(0xFFFFFFFF)
    i = np.arange(count, dtype=np.uint64)
    h = (i * np.uint64(2654435769) + np.uint64(tensor * 40503 + step * 2246822519)) & mask
    for shift, factor in ((16, 2146121005), (15, 2221713035)):
        h = ((h ^ (h >> np.uint64(shift))) * np.uint64(factor)) & mask
    h = h ^ (h >> np.uint64(16))
    return np.asarray((h >> np.uint64(8)).astype(np.float64) / 2**23 - 1).reshape(shape)


def start(index, shape):
    return np.asarray(numbers(index, 0, shape) / 2)


def gradient(index, step, shape):
    """Each tensor has its own size of gradients."""
    return np.asarray(numbers(index, step, shape) / 4**index)


def to_torch(name, value):
    return value.transpose(0, 3, 1, 2) if name == "conv.weight" else value


def from_torch(name, value):
    return value.transpose(0, 2, 3, 1) if name == "conv.weight" else value


def is_matrix(name):
    return len(PARAMETERS[name]) in (2, 4)


def one_group(make):
    """`make` gets a list of parameters or groups."""
    return lambda p: [make(list(p.values()))]


def muon(**settings):
    """Matrices by Muon, the rest by AdamW. Convolutions are flattened to [out, rest]."""

    def make(p):
        matrices = [q for n, q in p.items() if is_matrix(n)]
        others = [q for n, q in p.items() if not is_matrix(n)]
        adamw = torch.optim.AdamW(others, lr=settings["lr"], weight_decay=settings.get("weight_decay", 0.1))
        return [torch.optim.Muon(matrices, **settings), adamw]

    return make


def muon_groups(p):
    by_adamw = [q for n, q in p.items() if not is_matrix(n) or n.startswith("tall")]
    matrices = [q for n, q in p.items() if is_matrix(n) and not n.startswith("tall")]
    return [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(by_adamw, lr=0.01, weight_decay=0.1)]


def groups(kind, **settings):
    """The first that fits: "fc.*" at a tenth of the rate with more decay; "*bias" without decay; the rest."""

    def make(p):
        fc = [q for n, q in p.items() if n.startswith("fc.")]
        vectors = [q for n, q in p.items() if len(PARAMETERS[n]) <= 1 and not n.startswith("fc.")]
        rest = [q for n, q in p.items() if len(PARAMETERS[n]) > 1 and not n.startswith("fc.")]
        lr = settings["lr"]
        return [
            kind(
                [
                    {"params": fc, "lr": lr / 10, "weight_decay": 0.2},
                    {"params": vectors, "weight_decay": 0.0},
                    {"params": rest},
                ],
                **settings,
            )
        ]

    return make


SGD, Adam, AdamW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
RMSprop, Adagrad, Adafactor = torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adafactor
Lamb, Lars, Lion = timm.optim.Lamb, timm.optim.Lars, timm.optim.Lion
BFLOAT16 = torch.bfloat16  # torch.bfloat16 is changed below
F32_EPS = 2.0**-23  # what Adafactor's eps of None is in f32

OPTIMIZERS = {
    "sgd": one_group(lambda p: SGD(p, lr=0.05)),
    "sgd momentum": one_group(lambda p: SGD(p, lr=0.02, momentum=0.9, dampening=0.25, weight_decay=0.01)),
    "sgd nesterov": one_group(lambda p: SGD(p, lr=0.01, momentum=0.95, nesterov=True, weight_decay=5e-4)),
    "adam": one_group(lambda p: Adam(p, lr=1e-3)),
    "adam decay": one_group(lambda p: Adam(p, lr=1e-2, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)),
    "adam amsgrad": one_group(lambda p: Adam(p, lr=3e-3, betas=(0.9, 0.9), amsgrad=True, weight_decay=0.01)),
    "adamw": one_group(lambda p: AdamW(p, lr=1e-3)),
    "adamw amsgrad": one_group(lambda p: AdamW(p, lr=1e-2, betas=(0.9, 0.9), amsgrad=True, weight_decay=0.1)),
    "rmsprop": one_group(lambda p: RMSprop(p, lr=1e-3)),
    "rmsprop momentum": one_group(lambda p: RMSprop(p, lr=1e-3, alpha=0.9, momentum=0.9, weight_decay=0.01)),
    "rmsprop centered": one_group(lambda p: RMSprop(p, lr=1e-3, alpha=0.95, centered=True)),
    "rmsprop both": one_group(lambda p: RMSprop(p, lr=1e-3, eps=1e-4, momentum=0.5, centered=True)),
    "adagrad": one_group(lambda p: Adagrad(p, lr=1e-2)),
    "adagrad all": one_group(
        lambda p: Adagrad(p, lr=0.05, lr_decay=0.01, weight_decay=0.01, initial_accumulator_value=0.1, eps=1e-6)
    ),
    "lamb": one_group(lambda p: Lamb(p, lr=1e-2)),
    "lamb no limit": one_group(lambda p: Lamb(p, lr=1e-2, max_grad_norm=None, betas=(0.8, 0.95), trust_clip=True)),
    "lamb always": one_group(lambda p: Lamb(p, lr=5e-3, weight_decay=0.0, always_adapt=True, max_grad_norm=0.5)),
    "lars": one_group(lambda p: Lars(p, lr=1.0, momentum=0.9, weight_decay=1e-2)),
    "lars nesterov": one_group(lambda p: Lars(p, lr=0.5, momentum=0.9, nesterov=True, weight_decay=1e-2, trust_clip=True)),
    "lars always": one_group(lambda p: Lars(p, lr=0.5, momentum=0.5, dampening=0.5, trust_coeff=0.02, always_adapt=True)),
    "lion": one_group(lambda p: Lion(p, lr=1e-3)),
    "lion decay": one_group(lambda p: Lion(p, lr=1e-3, betas=(0.95, 0.98), weight_decay=0.1)),
    "adafactor": one_group(lambda p: Adafactor(p, lr=1e-2, eps=(F32_EPS, 1e-3))),
    "adafactor decay": one_group(
        lambda p: Adafactor(p, lr=0.2, beta2_decay=-0.5, eps=(1e-4, 1e-2), d=1.5, weight_decay=0.01)
    ),
    "muon": muon(lr=0.02),
    "muon adamw rate": muon(lr=3e-3, momentum=0.9, nesterov=False, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
    "muon spectral": muon(lr=0.02, ns_steps=4, ns_coefficients=(3.0, -3.2, 1.2), adjust_lr_fn="spectral_unclamped"),
    "sgd groups": groups(SGD, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adamw groups": groups(AdamW, lr=1e-2, weight_decay=0.05),
    "lamb groups": groups(Lamb, lr=1e-2, weight_decay=0.05),
    "adafactor groups": groups(Adafactor, lr=1e-2, eps=(F32_EPS, 1e-3), weight_decay=0.05),
    "muon groups": muon_groups,
    # Gradients limited to +-clip, the number behind "clip".
    "sgd clip 0.01": one_group(lambda p: SGD(p, lr=0.05, momentum=0.9)),
    "adam clip 0.02": one_group(lambda p: Adam(p, lr=1e-3)),
    "lars clip 0.01": one_group(lambda p: Lars(p, lr=1.0, momentum=0.9, weight_decay=1e-2)),
    "lion clip 0.01": one_group(lambda p: Lion(p, lr=1e-3)),
    "adafactor clip 0.01": one_group(lambda p: Adafactor(p, lr=1e-2, eps=(F32_EPS, 1e-3))),
    "muon clip 0.01": muon(lr=0.02),
    # Steps that are left out: `is_skipped`.
    "sgd skip": one_group(lambda p: SGD(p, lr=0.02, momentum=0.9, dampening=0.25)),
    "adamw skip": one_group(lambda p: AdamW(p, lr=1e-3)),
    "rmsprop skip": one_group(lambda p: RMSprop(p, lr=1e-3, alpha=0.9, momentum=0.9, centered=True)),
    "adagrad skip": one_group(lambda p: Adagrad(p, lr=0.05, lr_decay=0.01, initial_accumulator_value=0.1)),
    "lamb skip": one_group(lambda p: Lamb(p, lr=1e-2)),
    "lars skip": one_group(lambda p: Lars(p, lr=1.0, momentum=0.9, weight_decay=1e-2)),
    "lion skip": one_group(lambda p: Lion(p, lr=1e-3, weight_decay=0.1)),
    "adafactor skip": one_group(lambda p: Adafactor(p, lr=1e-2, eps=(F32_EPS, 1e-3))),
    "muon skip": muon(lr=0.02),
    # Momenta and moments that are rounded to bfloat16 after each step: `round_states`.
    "sgd bf16": one_group(lambda p: SGD(p, lr=0.02, momentum=0.9, nesterov=True, weight_decay=0.01)),
    "adam bf16": one_group(lambda p: Adam(p, lr=3e-3, betas=(0.9, 0.9), amsgrad=True, weight_decay=0.01)),
    "adamw bf16": one_group(lambda p: AdamW(p, lr=1e-3, betas=(0.9, 0.98))),
    "rmsprop bf16": one_group(lambda p: RMSprop(p, lr=1e-3, alpha=0.9, eps=1e-4, momentum=0.5, centered=True)),
    "adagrad bf16": one_group(lambda p: Adagrad(p, lr=1e-2)),
    "lamb bf16": one_group(lambda p: Lamb(p, lr=1e-2, betas=(0.9, 0.98))),
    "lars bf16": one_group(lambda p: Lars(p, lr=1.0, momentum=0.9, weight_decay=1e-2)),
    "lion bf16": one_group(lambda p: Lion(p, lr=1e-3)),
    "muon bf16": muon(lr=0.02),
}


def is_skipped(name, step):
    return name.endswith("skip") and (step == 1 or step % 7 == 3)


def round_states(optimizers):
    """Rounds what belongs to single elements to bfloat16."""
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                if torch.is_tensor(value) and value.shape == parameter.shape and key != "step":
                    value.copy_(value.to(torch.float32).to(BFLOAT16).to(value.dtype))


def run(name, make, dtype):
    """Parameters after each of the KEPT steps, in fasttrain's layout."""
    tensors, parameters = {}, {}
    flat = name.startswith("muon")
    for index, (key, shape) in enumerate(PARAMETERS.items()):
        value = torch.from_numpy(to_torch(key, start(index, shape)).copy()).to(dtype)
        parameters[key] = (value.flatten(1) if flat and value.ndim == 4 else value).requires_grad_()
    optimizers = make(parameters)
    for step in range(1, STEPS + 1):
        for index, (key, shape) in enumerate(PARAMETERS.items()):
            g = torch.from_numpy(to_torch(key, gradient(index, step, shape)).copy()).to(dtype)
            parameters[key].grad = g.reshape(parameters[key].shape)
        if not is_skipped(name, step):
            if "clip" in name:
                torch.nn.utils.clip_grad_value_(parameters.values(), float(name.split()[-1]))
            for optimizer in optimizers:
                optimizer.step()
            if name.endswith("bf16"):
                round_states(optimizers)
        if step in KEPT:
            for index, (key, shape) in enumerate(PARAMETERS.items()):
                value = parameters[key].detach().numpy()
                value = value.reshape(to_torch(key, np.empty(shape)).shape)
                tensors[f"{name}/{key}/{step}"] = from_torch(key, value).copy()
    return tensors


def optimizers():
    tensors, worst = {}, {}
    bfloat16 = torch.bfloat16
    for name, make in OPTIMIZERS.items():
        torch.bfloat16 = torch.float64  # Muon's iteration, which asks for it by this name
        wide = run(name, make, torch.float64)
        torch.bfloat16 = torch.float32
        single = run(name, make, torch.float32)
        torch.bfloat16 = bfloat16
        tensors.update({key: value.astype(np.float32) for key, value in wide.items()})
        worst[name] = max(np.max(np.abs(single[k] - v)) / np.max(np.abs(v)) for k, v in wide.items())
        if name == "muon":
            real = run(name, make, torch.float32)
            off = max(np.max(np.abs(real[k] - v)) / np.max(np.abs(v)) for k, v in wide.items())
            print(f"muon as PyTorch has it, in bfloat16: differs by {off:.1e} of a tensor's largest element")
    for name, off in worst.items():
        print(f"  {name:24} PyTorch's f32 differs by {off:.1e}")
    save("optimizers", tensors)


# ------------------------------------------------------------------------------------------------------------ schedules

LENGTH = 240
BASE = 0.3


def warmed(steps, factor, make):
    """A linear warm-up in front of a scheduler."""

    def both(o):
        first = lr_scheduler.LinearLR(o, start_factor=factor, end_factor=1.0, total_iters=steps)
        return lr_scheduler.SequentialLR(o, [first, make(o)], milestones=[steps])

    return both


def stable_decay(warmup, stable, decay, shape, end=0.0):
    """PyTorch has none: the definition, as a LambdaLR."""

    def factor(t):
        if t < warmup:
            return t / warmup
        x = min(max(t - warmup - stable, 0) / decay, 1)
        way = {"linear": x, "sqrt": math.sqrt(x), "cosine": (1 - math.cos(math.pi * x)) / 2}[shape]
        return 1 + (end - 1) * way

    return lambda o: lr_scheduler.LambdaLR(o, factor)


S = lr_scheduler
SCHEDULES = {
    "constant": lambda o: S.LambdaLR(o, lambda t: 1.0),
    "step": lambda o: S.StepLR(o, 30, 0.5),
    "multi step": lambda o: S.MultiStepLR(o, [10, 50, 51, 200], 0.1),
    "exponential": lambda o: S.ExponentialLR(o, 0.97),
    "cosine": lambda o: S.CosineAnnealingLR(o, 200),
    "cosine min": lambda o: S.CosineAnnealingLR(o, 70, 0.01),  # beyond its end: it rises and falls again
    "restarts": lambda o: S.CosineAnnealingWarmRestarts(o, 35),
    "restarts longer": lambda o: S.CosineAnnealingWarmRestarts(o, 10, 2, 0.001),
    "linear": lambda o: S.LinearLR(o, 1 / 3, 1.0, 50),
    "linear down": lambda o: S.LinearLR(o, 1.0, 0.05, 180),
    "polynomial": lambda o: S.PolynomialLR(o, 150),
    "polynomial 2": lambda o: S.PolynomialLR(o, 230, 2.5),
    "one cycle": lambda o: S.OneCycleLR(o, BASE, total_steps=LENGTH),
    "one cycle linear": lambda o: S.OneCycleLR(
        o, BASE, total_steps=LENGTH, pct_start=0.45, anneal_strategy="linear", div_factor=10, final_div_factor=100
    ),
    "one cycle three": lambda o: S.OneCycleLR(o, BASE, total_steps=LENGTH, pct_start=0.4, three_phase=True),
    "one cycle three linear": lambda o: S.OneCycleLR(
        o, BASE, total_steps=LENGTH, pct_start=0.25, three_phase=True, anneal_strategy="linear"
    ),
    "warm cosine": warmed(20, 0.01, lambda o: S.CosineAnnealingLR(o, 210)),
    "warm step": warmed(7, 0.5, lambda o: S.StepLR(o, 40, 0.3)),
    "warm constant": warmed(100, 1e-3, lambda o: S.LambdaLR(o, lambda t: 1.0)),
    "warm polynomial": warmed(15, 1 / 15, lambda o: S.PolynomialLR(o, 200, 0.9)),
    "stable decay": stable_decay(20, 120, 80, "linear"),
    "stable decay sqrt": stable_decay(0, 100, 130, "sqrt", 0.1),
    "stable decay cosine": stable_decay(40, 0, 200, "cosine", 0.01),
    "function": lambda o: S.LambdaLR(o, lambda t: 1 / math.sqrt(t + 1)),
    "chain": lambda o: S.SequentialLR(
        o, [S.LinearLR(o, 0.1, 1.0, 30), S.ExponentialLR(o, 0.98), S.CosineAnnealingLR(o, 60, 0.002)], [30, 150]
    ),
    "chain of steps": lambda o: S.SequentialLR(o, [S.StepLR(o, 10, 0.9), S.CosineAnnealingWarmRestarts(o, 9, 2)], [77]),
}

# Metrics of epochs, and ReduceLROnPlateau on them.
PLATEAUS = {
    "default": {},
    "short": dict(factor=0.5, patience=2, cooldown=3, min_lr=1e-3),
    "max": dict(mode="max", factor=0.3, patience=3, threshold=0.01),
    "absolute": dict(factor=0.7, patience=1, threshold=0.05, threshold_mode="abs", eps=1e-3),
    "max absolute": dict(mode="max", factor=0.5, patience=0, threshold=0.02, threshold_mode="abs", cooldown=5),
}


def metric(epoch):
    """Falls, then only wavers; NaN at times."""
    if epoch % 41 == 17:
        return math.nan
    return float(np.float32(1 / (1 + epoch / 8) + 0.02 * ((epoch * 37) % 11 - 5) / 5))


def rates(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE)
        scheduler = make(optimizer)
        lr = []
        for t in range(LENGTH):
            lr.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if t + 1 < LENGTH:
                scheduler.step()
    return np.array(lr, np.float64)


def plateau_rates(settings):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=BASE)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, **settings)
    lr = []
    for epoch in range(LENGTH):
        scheduler.step(metric(epoch))
        lr.append(optimizer.param_groups[0]["lr"])
    return np.array(lr, np.float64)


def schedules():
    tensors = {name: rates(make) for name, make in SCHEDULES.items()}
    tensors.update({f"plateau {name}": plateau_rates(settings) for name, settings in PLATEAUS.items()})
    tensors["metric"] = np.array([metric(epoch) for epoch in range(LENGTH)], np.float64)
    save("schedules", tensors)


def save(name, tensors):
    path = os.path.join(HERE, name + ".safetensors")
    tensors = {key: np.ascontiguousarray(value).reshape(value.shape) for key, value in tensors.items()}
    version = torch.__version__.split("+")[0]
    save_file(tensors, path, metadata={"made by": f"make_optimizers.py with PyTorch {version}, timm {timm.__version__}"})
    os.chmod(path, 0o644)
    print(f"{name}.safetensors: {len(tensors)} tensors, {os.path.getsize(path)} bytes")


def main():
    torch.set_num_threads(1)
    files = {"optimizers": optimizers, "schedules": schedules}
    for name, make in files.items():
        if not sys.argv[1:] or name in sys.argv[1:]:
            make()


if __name__ == "__main__":
    main()
