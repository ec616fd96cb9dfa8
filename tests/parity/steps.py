"""Sections of parity.py without a model: optimizers, schedules and the loss scale, step by step against PyTorch and timm
as they are installed. The cases are those of tests/goldens/make_optimizers.py and tests/amp/make_goldens.py."""

import warnings

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from rows import load_script, run

STEPS = 1e-6  # of a tensor's largest element, or of a quarter where all are smaller
LION = 2.5e-6  # its steps all have one size: each may be rounded to the same side
BF16 = 1e-3  # state in bf16: a rounding that falls to the other side of a middle is carried on
FLOOR = 0.25
SCHEDULES = 1e-12


def bound_of(name):
    return BF16 if name.endswith("bf16") else LION if name.startswith("lion") else STEPS


def optimizers(program, directory, report):
    """100 steps in f32 against PyTorch's (LAMB, LARS, Lion: timm's) in double precision, Muon's iteration too."""
    script = load_script("goldens/make_optimizers.py")
    run(program, "optimizers", directory / "optimizers.safetensors")
    found = load_file(directory / "optimizers.safetensors")
    bfloat16, torch.bfloat16 = torch.bfloat16, torch.float64  # Muon asks for its iteration's type by this name
    try:
        for name, make in script.OPTIMIZERS.items():
            if name.endswith("skip"):  # the rest is in the section "scaler"
                continue
            expected = script.run(name, make, torch.float64)
            worst, where = 0.0, ""
            for parameter in script.PARAMETERS:
                value = expected[f"{name}/{parameter}/{script.STEPS}"]
                error = np.abs(found[f"{name}/{parameter}"] - value).max() / max(np.abs(value).max(), FLOOR)
                worst, where = max((worst, where), (float(error), parameter))
            report.row("optimizer", name, worst, bound_of(name), where)
    finally:
        torch.bfloat16 = bfloat16


def schedules(program, directory, report):
    """The rate of each of 240 steps, relative to PyTorch's."""
    script = load_script("goldens/make_optimizers.py")
    metric = np.array([script.metric(epoch) for epoch in range(script.LENGTH)], np.float64)
    save_file({"metric": metric}, directory / "metric.safetensors")
    run(program, "schedules", directory / "metric.safetensors", directory / "schedules.safetensors")
    found = load_file(directory / "schedules.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {name: script.rates(make) for name, make in script.SCHEDULES.items()}
        expected.update({f"plateau {name}": script.plateau_rates(s) for name, s in script.PLATEAUS.items()})
    for name, rates in expected.items():
        error = np.abs(found[name] - rates) / np.maximum(np.abs(rates), 1e-4 * script.BASE)
        report.row("schedule", name, float(error.max()), SCHEDULES, f"step {int(error.argmax())}")
    for name in found.keys() - expected.keys():
        report.row("schedule", name, 1.0, 0.0, "not in make_optimizers.py")


def scaler(program, directory, report):
    """GradScaler with an infinite gradient in one of the first 20 of 24 steps: the scales and which steps are left out are
    the same, and the parameters after each step."""
    script = load_script("amp/make_goldens.py")
    run(program, "scaler", directory / "scaler.safetensors")
    found = load_file(directory / "scaler.safetensors")
    for k in range(20):
        expected = script.scaler_run([i == k for i in range(24)], 65536.0, 2.0, 0.5, 5, 0.0)
        scales = int((found[f"{k}/scales"] != expected["scales"].numpy()[:24]).sum())
        skipped = int((found[f"{k}/skipped"] != expected["skipped"].numpy()).sum())
        parameters = int((found[f"{k}/parameters"] != expected["parameters"].numpy()).sum())
        note = f"scales {scales}, skipped steps {skipped}, parameters {parameters} differ"
        report.row("scaler", f"overflow in step {k + 1}", scales + skipped + parameters, 0.0, note)
