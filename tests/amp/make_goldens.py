"""Writes the values of PyTorch that the tests of mixed precision compare fasttrain with.

    python3 tests/amp/make_goldens.py     # needs torch, numpy, safetensors

Run by hand; its outputs in tests/amp/data are committed.

half.safetensors    conversions. What is large is stored as an FNV-1a hash (64 bits, of little-endian elements, NaN as one
                    pattern): the f32 values of all 65536 numbers of a half type ("<type>/numbers"), and what f32 numbers on
                    and beside the middle between two neighbours become ("<type>/rounded").
scaler.safetensors  torch.amp.GradScaler("cpu") in loops with infinite gradients in some steps, "<case>/...": the steps with
                    an infinity, the scale before each step, whether it was skipped, the parameter behind it; and
                    torch.nn.utils.clip_grad_norm_, "clip/<number>/...".
"""

import os

import numpy as np
import torch
from safetensors.torch import save_file

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
HALF = {"f16": torch.float16, "bf16": torch.bfloat16}


def fnv(array):
    """FNV-1a of the bytes, as a signed 64-bit integer."""
    result = 0xCBF29CE484222325
    for byte in np.ascontiguousarray(array).tobytes():
        result = (result ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return torch.tensor(result - (1 << 64) if result >> 63 else result, dtype=torch.int64)


def all_numbers(dtype):
    return torch.from_numpy(np.arange(65536, dtype=np.uint16).view(np.int16)).view(dtype)


def single_bits(values):
    bits = values.float().numpy().view(np.uint32).copy()
    bits[np.isnan(values.float().numpy())] = 0x7FC00000
    return bits


def between(dtype):
    """The middles between neighbours, up to the one behind the largest number, and the f32 numbers beside them; then all of
    them negative."""
    infinity = int(torch.tensor(torch.inf, dtype=dtype).view(torch.int16))
    numbers = all_numbers(dtype)[: infinity + 1].double().numpy().copy()
    numbers[-1] = 2 * numbers[-2] - numbers[-3]
    middle = ((numbers[:-1] + numbers[1:]) / 2).astype(np.float32)
    away = np.stack([np.nextafter(middle, np.float32(0)), middle, np.nextafter(middle, np.float32(np.inf))], 1).reshape(-1)
    return np.concatenate([away, -away])


def half():
    tensors = {}
    integers = [0, 1, -1, 7, 2047, 2048, 2049, 2051, -4099, 65503, 65504, 65519, 65520, -65520, 70000, 255, 257, 16777217]
    integers += [33685505, 2**31 - 1, -(2**31), 2**40 + 2**32 + 1, -(2**62) - 1, 2**63 - 1, 123456789, -987654321]
    tensors["integers"] = torch.tensor(integers, dtype=torch.int64)
    generator = np.random.default_rng(5)
    reals = (generator.standard_normal(200) * 10.0 ** generator.integers(-9, 7, 200)).astype(np.float32)
    tensors["reals"] = torch.from_numpy(reals)
    for name, dtype in HALF.items():
        tensors[f"{name}/numbers"] = fnv(single_bits(all_numbers(dtype)))
        rounded = torch.from_numpy(between(dtype)).to(dtype)
        assert not rounded.isnan().any()
        tensors[f"{name}/rounded"] = fnv(rounded.view(torch.int16).numpy())
        tensors[f"{name}/of_integers"] = tensors["integers"].to(dtype)
        tensors[f"{name}/of_i32"] = tensors["integers"][:18].to(torch.int32).to(dtype)
        tensors[f"{name}/of_reals"] = tensors["reals"].to(dtype)
        values = tensors["reals"].to(dtype)
        values = values[(values > -2.0e9) & (values < 2.0e9)]
        tensors[f"{name}/values"] = values
        tensors[f"{name}/to_i32"] = values.to(torch.int32)
        tensors[f"{name}/to_i64"] = values.to(torch.int64)
        tensors[f"{name}/to_bool"] = values.to(torch.bool)
        other = HALF["bf16" if name == "f16" else "f16"]
        tensors[f"{name}/to_other"] = values.to(other)
    return tensors


def scaler_run(infinite, init, growth, backoff, interval, clip):
    """SGD with momentum on the loss sum(p x): gradients x, infinite in some steps."""
    p = torch.nn.Parameter(torch.tensor([0.5, -1.5, 2.0]))
    optimizer = torch.optim.SGD([p], lr=0.125, momentum=0.5)
    scaler = torch.amp.GradScaler(
        "cpu", init_scale=init, growth_factor=growth, backoff_factor=backoff, growth_interval=interval
    )
    scales, skipped, after = [], [], []
    for step, bad in enumerate(infinite):
        x = torch.tensor([0.25 * (step % 5) - 0.5, 1.0, torch.inf if bad else -0.75])
        scales.append(scaler.get_scale())
        before = p.detach().clone()
        optimizer.zero_grad()
        scaler.scale((p * x).sum()).backward()
        if clip:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_([p], clip)
        scaler.step(optimizer)
        scaler.update()
        skipped.append(bool((before == p).all()))
        after.append(p.detach().clone())
        assert skipped[-1] == bool(bad)
    scales.append(scaler.get_scale())
    return {
        "infinite": torch.tensor(infinite, dtype=torch.uint8),
        "constants": torch.tensor([init, growth, backoff, interval, clip], dtype=torch.float64),
        "scales": torch.tensor(scales, dtype=torch.float32),
        "skipped": torch.tensor(skipped, dtype=torch.uint8),
        "parameters": torch.stack(after),
    }


def scaler():
    tensors = {}
    runs = [([i == k for i in range(24)], 65536.0, 2.0, 0.5, 5, 0.0) for k in range(20)]
    generator = np.random.default_rng(7)
    often = [bool(b) for b in generator.random(40) < 0.3]
    runs.append((often, 65536.0, 2.0, 0.5, 3, 0.0))
    runs.append((often, 3.0, 1.7, 0.3, 1, 0.5))  # constants whose products are rounded; clipping
    runs.append(([i == 5 for i in range(9)], 1e38, 2.0, 0.5, 1, 0.0))  # a scale that would overflow stays
    for number, run in enumerate(runs):
        for name, value in scaler_run(*run).items():
            tensors[f"run{number}/{name}"] = value.contiguous()
    for number, (max_norm, size) in enumerate([(1.0, 3.0), (0.1, 0.02), (1000.0, 40.0), (0.5, 1e-12), (2.0, 1e15)]):
        generator = np.random.default_rng(100 + number)
        shapes = [(7, 5), (300,), (2, 3, 4), (1,)]
        gradients = [torch.from_numpy((generator.standard_normal(s) * size).astype(np.float32)) for s in shapes]
        parameters = [torch.nn.Parameter(torch.from_numpy(generator.standard_normal(s).astype(np.float32))) for s in shapes]
        for i, (p, g) in enumerate(zip(parameters, gradients)):
            tensors[f"clip/{number}/p{i}"] = p.detach().clone()
            tensors[f"clip/{number}/g{i}"] = g.clone()
            p.grad = g
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        torch.optim.SGD(parameters, lr=0.25).step()
        tensors[f"clip/{number}/max_norm"] = torch.tensor(max_norm, dtype=torch.float64)
        tensors[f"clip/{number}/norm"] = norm.double()
        for i, p in enumerate(parameters):
            tensors[f"clip/{number}/y{i}"] = p.detach().clone()
    return tensors


def main():
    os.makedirs(DATA, exist_ok=True)
    torch.set_num_threads(1)
    for name, tensors in {"half": half(), "scaler": scaler()}.items():
        path = os.path.join(DATA, name + ".safetensors")
        save_file(tensors, path, metadata={"made by": "make_goldens.py with PyTorch " + torch.__version__.split("+")[0]})
        os.chmod(path, 0o644)
        print(f"{name}.safetensors: {len(tensors)} tensors, {os.path.getsize(path)} bytes")


if __name__ == "__main__":
    main()
