"""Writes what test_gpt.c compares a training run with: python3 tests/models/make_gpt_goldens.py (torch, transformers,
numpy, safetensors, and Debian's bible-kjv for the text). Run by hand; its outputs are committed in data/.

genesis1.txt         the first chapter of the King James Bible, which is in the public domain
gpt_run.safetensors  the losses of 100 steps of AdamW of a small GPT-2 on that text, of PyTorch in double and in single
                     precision ("losses", "losses_f32"), and of each parameter after the run in double precision its
                     norm ("norm/<name>") and SKETCHES sums of its elements with random signs ("sketch/<name>")

First weights are functions of name and index, see first_weight(). Sequence `row` of step `step` starts at byte
(BATCH * step + row) * STRIDE mod the number of places.
"""

import pathlib
import subprocess
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "parity"))
import weights
from references import Gpt

STEPS, BATCH, CONTEXT, STRIDE, SKETCHES = 100, 8, 32, 601, 4
WIDTH, LAYERS, HEADS = 64, 2, 4
# A key's bias moves all of a query's scores alike and has no gradient but rounding errors: eps keeps it in its place.
ADAMW = {"lr": 2e-3, "weight_decay": 0.1, "eps": 1e-5}


def read_text():
    path = HERE / "data" / "genesis1.txt"
    if not path.exists():
        text = subprocess.run(["bible", "-f", "Gen1:1-31"], check=True, capture_output=True).stdout
        path.write_bytes(b"".join(line.partition(b" ")[2] + b"\n" for line in text.splitlines()))
    return np.frombuffer(path.read_bytes(), np.uint8)


def batch(tokens, step):
    starts = (np.arange(BATCH) + BATCH * step) * STRIDE % (len(tokens) - CONTEXT)
    rows = torch.from_numpy(np.stack([tokens[start : start + CONTEXT + 1] for start in starts]))
    return rows[:, :-1], rows[:, 1:]


def first_weight(name, shape):
    u = weights.uniform(name, int(np.prod(shape)))
    value = 0.3 * (u - 0.5) if len(shape) == 2 else u + 0.5 if name.endswith("weight") else 0.2 * (u - 0.5)
    return torch.from_numpy(value.astype(np.float32).reshape(shape))


def make_model(vocabulary):
    return Gpt(vocab_size=vocabulary, n_positions=CONTEXT, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, bos_token_id=0,
               eos_token_id=0)


def sketch(name, value):
    signs = [np.where(weights.uniform(f"{name}/{k}", value.size) < 0.5, -1.0, 1.0) for k in range(SKETCHES)]
    return np.array([sign @ value.ravel() for sign in signs])


def run(start, tokens, vocabulary, dtype):
    model = make_model(vocabulary)
    model.load_state_dict(start)
    model = model.to(dtype).train()
    optimizer = torch.optim.AdamW(model.parameters(), **ADAMW)
    losses = []
    for step in range(STEPS):
        x, y = batch(tokens, step)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses), {name: p.detach().double().numpy() for name, p in model.named_parameters()}


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    text = read_text()
    vocabulary, tokens = np.unique(text, return_inverse=True)
    start = {name: first_weight(name, tuple(p.shape)) for name, p in make_model(len(vocabulary)).named_parameters()}
    (losses, final), (losses_f32, final_f32) = (run(start, tokens.astype(np.int64), len(vocabulary), dtype)
                                                for dtype in (torch.float64, torch.float32))
    out = {"losses": losses, "losses_f32": losses_f32}
    for name, value in final.items():
        out["sketch/" + name] = sketch(name, value)
        out["norm/" + name] = np.array(np.linalg.norm(value))
    path = HERE / "data" / "gpt_run.safetensors"
    save_file(out, path, metadata={"made by": "make_gpt_goldens.py with PyTorch " + torch.__version__.split("+")[0]})
    path.chmod(0o644)
    off = {name: np.linalg.norm(final_f32[name] - v) / np.linalg.norm(v) for name, v in final.items()}
    worst = max(off, key=off.get)
    loss_off = np.max(np.abs(losses_f32 / losses - 1))
    print(f"{len(text)} bytes, vocabulary {len(vocabulary)}; loss {losses[0]:.4f} to {losses[-1]:.4f}; f32 differs from "
          f"f64 by {loss_off:.1e} in the loss, {off[worst]:.1e} in {worst} (both relative)")


if __name__ == "__main__":
    main()
