"""Writes the values of PyTorch that tests/optim/test_steps.c compares fasttrain with: what stands around an optimizer's step.

    python3 tests/optim/make_goldens.py     # needs torch, timm, safetensors

Run by hand; its output, tests/optim/data/steps.safetensors, is committed. Small networks in double precision, whose
values are stored as f32:

"<run>/config"    the settings, in the order of FIELDS
"<run>/x", "t", "w"  inputs, targets and the loss's factor, which is infinite in some steps, of each micro-batch
"<run>/value/NAME"   parameters and running statistics before the first micro-batch and after each
"<run>/average/NAME" their averages (torch.optim.swa_utils.AveragedModel, timm.utils.ModelEmaV3), after each; 0 before the first
"<run>/taken", "applied", "scale", "norm"  values in the averages, updates, loss scale of the micro-batch, norm of a group's mean
"<run>/bn/NAME"   running statistics of the averaged model after torch.optim.swa_utils.update_bn() over all micro-batches
"""

import math
import os

import torch
from safetensors.torch import save_file
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import swa_utils

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "steps.safetensors")
BATCH, IN, HIDDEN, OUT = 6, 5, 8, 3
FIELDS = "adamw accumulate clip_norm clip_value scaled norm kind decay warmup copy_buffers start every".split()
NONE, EMA, SWA = range(3)
DEFAULTS = dict(adamw=0, accumulate=1, clip_norm=0, clip_value=0, scaled=0, norm=1, kind=NONE, decay=0, warmup=0)
DEFAULTS.update(copy_buffers=0, start=0, every=1, steps=12, infinite=())
RUNS = [
    dict(adamw=1, accumulate=4),
    dict(accumulate=3, clip_norm=0.125),
    dict(accumulate=2, clip_value=0.03125),
    dict(adamw=1, accumulate=3, clip_norm=0.25, clip_value=0.0625, norm=0),
    dict(adamw=1, accumulate=4, scaled=1, norm=0, infinite=(5,), steps=24),
    dict(accumulate=3, clip_norm=0.125, scaled=1, norm=0, infinite=(2, 12), steps=24),
    dict(accumulate=5, clip_value=0.03125, scaled=1, norm=0, infinite=(9,), steps=23),
    dict(adamw=1, kind=EMA, decay=0.875),
    dict(accumulate=2, kind=EMA, decay=0.96875, warmup=1, steps=24),
    dict(adamw=1, kind=EMA, decay=0.75, copy_buffers=1, start=3, every=2),
    dict(kind=SWA, start=2, every=3),
    dict(adamw=1, accumulate=2, kind=SWA, copy_buffers=1, steps=16),
    dict(adamw=1, accumulate=2, kind=EMA, decay=0.75, scaled=1, norm=0, clip_norm=0.25, infinite=(4, 11), steps=16),
    dict(kind=SWA, scaled=1, norm=0, infinite=(0, 3, 7)),
]


def network(norm):
    layers = [nn.Linear(IN, HIDDEN, bias=not norm)] + [nn.BatchNorm1d(HIDDEN)] * norm + [nn.Tanh(), nn.Linear(HIDDEN, OUT)]
    model = nn.Sequential(*layers).double()
    for p in model.parameters():
        p.data = p.data.float().double()
    return model


def names(norm):
    return {"0": "fc1", "1": "bn", "3": "fc2"} if norm else {"0": "fc1", "2": "fc2"}


def values(model, norm):
    result = {}
    for name, value in model.state_dict().items():
        layer, rest = name.split(".")
        if rest != "num_batches_tracked":
            result[f"{names(norm)[layer]}.{rest}"] = value.detach().clone()
    return result


class Averages:
    def __init__(self, run, model):
        self.run, self.taken, self.model = run, 0, None
        if run["kind"] == NONE:
            return
        if run["warmup"]:
            self.model = ModelEmaV3(model, decay=run["decay"], use_warmup=True)
        elif run["kind"] == EMA:
            function = swa_utils.get_ema_multi_avg_fn(run["decay"])
            self.model = swa_utils.AveragedModel(model, multi_avg_fn=function, use_buffers=not run["copy_buffers"])
        else:
            self.model = swa_utils.AveragedModel(model, use_buffers=not run["copy_buffers"])

    def update(self, model, applied):
        start, every = self.run["start"], self.run["every"]
        if self.model is None or applied < start or (applied - start) % every != 0:
            return
        self.taken += 1
        if self.run["warmup"]:
            self.model.update(model, step=self.taken)
        else:
            self.model.update_parameters(model)


def train(run, generator):
    run = DEFAULTS | run
    model = network(run["norm"])
    group = run["accumulate"]
    if run["adamw"]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.125)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.125, momentum=0.875)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=2, enabled=bool(run["scaled"]))
    averages = Averages(run, model)
    x = torch.randn(run["steps"], BATCH, IN, generator=generator).double()
    t = torch.randn(run["steps"], BATCH, OUT, generator=generator).double()
    w = torch.ones(run["steps"]).double()
    w[list(run["infinite"])] = math.inf
    out = {"config": torch.tensor([float(run[f]) for f in FIELDS], dtype=torch.float64)}
    out |= {"x": x.float(), "t": t.float(), "w": w.float()}
    rows, means = [values(model, run["norm"])], []
    taken, applied, scales, norms = [], [], [], []
    updates = 0
    for i in range(run["steps"]):
        scales.append(scaler.get_scale())
        loss = nn.functional.mse_loss(model(x[i]), t[i]) * w[i]
        scaler.scale(loss / group).backward()
        norm = math.nan
        if (i + 1) % group == 0:
            scaler.unscale_(optimizer)
            finite = all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())
            norm = float(torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in model.parameters()])))
            if run["clip_norm"]:
                nn.utils.clip_grad_norm_(model.parameters(), run["clip_norm"])
            if run["clip_value"]:
                nn.utils.clip_grad_value_(model.parameters(), run["clip_value"])
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            if finite:
                updates += 1
                averages.update(model, updates)
        rows.append(values(model, run["norm"]))
        norms.append(norm)
        applied.append(updates)
        taken.append(averages.taken)
        zeros = {name: torch.zeros_like(value) for name, value in rows[0].items()}
        means.append(values(averages.model.module, run["norm"]) if averages.taken else zeros)
    for name in rows[0]:
        out["value/" + name] = torch.stack([row[name] for row in rows]).float()
        if run["kind"]:
            out["average/" + name] = torch.stack([row[name] for row in means]).float()
    out["taken"] = torch.tensor(taken, dtype=torch.int64)
    out["applied"] = torch.tensor(applied, dtype=torch.int64)
    out["scale"] = torch.tensor(scales, dtype=torch.float64)
    out["norm"] = torch.tensor(norms, dtype=torch.float64)
    if run["kind"] and run["norm"]:
        swa_utils.update_bn(list(x), averages.model.module)
        for name, value in values(averages.model.module, 1).items():
            if "running" in name:
                out["bn/" + name] = value.float()
    return out


def main():
    torch.manual_seed(3)
    generator = torch.Generator().manual_seed(7)
    tensors = {}
    for i, run in enumerate(RUNS):
        tensors |= {f"run{i}/{name}": value.contiguous() for name, value in train(run, generator).items()}
    save_file(tensors, PATH)
    print(PATH, os.path.getsize(PATH))


main()
