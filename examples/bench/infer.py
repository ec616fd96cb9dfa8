"""PyTorch's and ONNX Runtime's twin of infer.c: `infer.py rn50 16 --mode onnxruntime`.

ONNX Runtime reads a file that torch.onnx made in a process of its own, once; it is kept in build/bench. In PyTorch's modes the
batch norms are folded into the convolutions."""

import time

START = time.perf_counter()

import os
import pathlib
import subprocess
import sys

MODELS = {"rn50": "resnet50", "mbv3": "mobilenet_v3_large", "effb0": "efficientnet_b0"}


def network(model):
    import torchvision

    return getattr(torchvision.models, MODELS[model])().eval()


def export(model, batch, path):
    """Writes the ONNX file, and beside it the number of parameters, batch norms included."""
    import torch

    made = network(model)
    torch.onnx.export(made, (torch.rand(batch, 3, 224, 224),), path + ".part", dynamo=True, external_data=False)
    pathlib.Path(path + ".parameters").write_text(str(sum(parameter.numel() for parameter in made.parameters())))
    os.replace(path + ".part", path)


def with_onnxruntime(model, batch, path):
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        export_it = f"import infer; infer.export({model!r}, {batch}, {path!r})"
        subprocess.run([sys.executable, "-c", export_it], check=True, stdout=sys.stderr, cwd=os.path.dirname(__file__) or ".")
    start = time.perf_counter()
    import numpy
    import onnxruntime
    import rounds

    options = rounds.parse(("onnxruntime",))
    if options.dtype != "f32":
        sys.exit("the ONNX file is f32")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    (x,) = session.get_inputs()
    images = numpy.random.default_rng(1).random((rounds.POOL, *x.shape), dtype=numpy.float32)
    rounds.run(
        options,
        f"onnxruntime-{onnxruntime.__version__}",
        batch,
        int(pathlib.Path(path + ".parameters").read_text()),
        lambda index: session.run(None, {x.name: images[index % rounds.POOL]})[0],
        lambda logits: float((logits**2).mean() ** 0.5),
        start,
    )


def with_pytorch(model, batch):
    import rounds
    import torch
    import twin
    from torch.fx.experimental.optimization import fuse

    options = twin.parse()
    net = network(model)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    images = list(torch.rand(rounds.POOL, batch, 3, 224, 224))
    net = fuse(net)
    if "channels_last" in options.mode:
        net = net.to(memory_format=torch.channels_last)
        images = [batch.contiguous(memory_format=torch.channels_last) for batch in images]
    if "compile" in options.mode:
        torch._inductor.config.freezing = True  # weights become constants in the layout that the kernels like
        net = torch.compile(net)

    def step(index):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bf16"):
            return net(images[index % rounds.POOL])

    rounds.run(
        options, twin.ENGINE, batch, parameters, step, lambda logits: logits.float().square().mean().sqrt().item(), START
    )


if __name__ == "__main__":
    model, batch = sys.argv.pop(1), int(sys.argv.pop(1))
    sys.argv[0] = f"infer-{model}-b{batch}"
    if "onnxruntime" in sys.argv:
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/bench")
        with_onnxruntime(model, batch, os.path.abspath(os.path.join(folder, f"{model}-b{batch}.onnx")))
    else:
        with_pytorch(model, batch)
