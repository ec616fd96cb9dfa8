"""The PyTorch models that fasttrain's are compared with: torchvision's, those of packages, and what neither has."""

import dataclasses
import math
from typing import Callable

import torch.nn.functional as F
import torchvision.models as tv
from torch import nn


@dataclasses.dataclass
class Reference:
    """`build` makes the model with dropout and stochastic depth off. `input` is the shape of a batch, images as NHWC;
    sizes are such that PyTorch's own error in single precision is small. `init(name, shape, model)` is the mean, the
    standard deviation and the bound (0: none) that the first values of a parameter or buffer are drawn with."""

    build: Callable[[], nn.Module]
    input: tuple
    classes: int
    init: Callable[[str, tuple, nn.Module], tuple]
    tokens: int = 0  # 0: images; otherwise the size of the vocabulary
    bias: float = 1.0  # of normalizations: see weights.py
    positive: bool = False
    seed: int = 0  # of the input
    file: str = "models"  # its goldens are in tests/goldens/<file>.safetensors


# ------------------------------------------------------------------------------------------------------- initialization


def normal(deviation, mean=0.0):
    return (mean, deviation, 0.0)


def uniform(bound):
    return (0.0, bound / math.sqrt(3.0), bound)


def fan_in(shape):
    return math.prod(shape[1:])


def fan_out(shape):
    return shape[0] * math.prod(shape[2:])


def default_init(name, shape, model):
    """PyTorch's own for its layers."""
    layer, _, field = name.rpartition(".")
    module = model.get_submodule(layer)
    if isinstance(module, nn.BatchNorm2d):
        return normal(0.0, 1.0 if field in ("weight", "running_var") else 0.0)
    return uniform(1.0 / math.sqrt(fan_in(module.weight.shape)))


def init_of(convolution, linear=None, zero_bias=False, zero=()):
    """`convolution` and `linear` give the first values of weights by shape, `linear` None PyTorch's default; biases are
    PyTorch's or 0; batch norms in `zero` (by the end of the layer's name) start with weight 0."""

    def init(name, shape, model):
        layer, _, field = name.rpartition(".")
        module = model.get_submodule(layer)
        if isinstance(module, nn.BatchNorm2d):
            return normal(0.0) if field == "weight" and layer.endswith(zero) else default_init(name, shape, model)
        if field == "bias":
            return normal(0.0) if zero_bias else default_init(name, shape, model)
        if isinstance(module, nn.Conv2d):
            return convolution(shape)
        return linear(shape) if linear else default_init(name, shape, model)

    return init


def kaiming_fan_out(shape):
    return normal(math.sqrt(2.0 / fan_out(shape)))


def kaiming_fan_in(shape):
    return normal(math.sqrt(2.0 / fan_in(shape)))


RESNET = init_of(kaiming_fan_out)
RESNET_ZERO_BASIC = init_of(kaiming_fan_out, zero=(".bn2",))
RESNET_ZERO_BOTTLENECK = init_of(kaiming_fan_out, zero=(".bn3",))
CIFAR = init_of(kaiming_fan_in, kaiming_fan_in)
MOBILENET = init_of(kaiming_fan_out, lambda shape: normal(0.01), zero_bias=True)
EFFICIENTNET = init_of(kaiming_fan_out, lambda shape: uniform(1.0 / math.sqrt(shape[0])), zero_bias=True)


def vit_init(name, shape, model):
    layer, _, field = name.rpartition(".")
    if name == "encoder.pos_embedding":
        return normal(0.02)
    if name == "class_token" or layer == "heads.head":
        return normal(0.0)
    if ".ln" in name:
        return normal(0.0, 1.0 if field == "weight" else 0.0)
    if field == "bias" and ".mlp." in name:
        return normal(1e-6)
    if field in ("bias", "in_proj_bias"):
        return normal(0.0)
    if layer == "conv_proj":
        return normal(1.0 / math.sqrt(fan_in(shape)))
    if layer.endswith("out_proj"):
        return uniform(1.0 / math.sqrt(fan_in(shape)))
    return uniform(math.sqrt(6.0 / (fan_in(shape) + fan_out(shape))))


def gpt_init(name, shape, model):
    layer, _, field = name.rpartition(".")
    if ".ln_" in "." + layer:
        return normal(0.0, 1.0 if field == "weight" else 0.0)
    if field == "bias":
        return normal(0.0)
    return normal(0.02 / (math.sqrt(2.0 * model.model.config.n_layer) if layer.endswith("c_proj") else 1.0))


# ------------------------------------------------------------------------------------------------------------- models


# Channels that ReLU6 clips now and then: one that it always clips has no variance, one that it never clips no gradient of
# its shift.
RELU6 = {"bias": 1.5, "positive": True}


def mlp(classes=10):
    return nn.Sequential(nn.Linear(20, 64), nn.SiLU(), nn.Linear(64, 32), nn.SiLU(), nn.Linear(32, classes))


class MnistCnn(nn.Module):
    """The network of github.com/pytorch/examples, mnist/main.py, up to its logits, without dropout."""

    def __init__(self, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, classes)
        self.relu = nn.ReLU()

    def forward(self, x):
        x = self.relu(self.conv2(self.relu(self.conv1(x))))
        x = F.max_pool2d(x, 2).flatten(1)
        return self.fc2(self.relu(self.fc1(x)))


def vit(size, width, classes=1000):
    from torchvision.models import VisionTransformer
    return VisionTransformer(size, 16, num_layers=12, num_heads=width // 64, hidden_dim=width, mlp_dim=4 * width,
                             num_classes=classes)


class Gpt(nn.Module):
    """Hugging Face's GPT2LMHeadModel (PyPI: transformers), its matrix for the logits not listed a second time if it is the
    tokens' embedding. `bare`: the names are those of GPT2Model and of published files, without "transformer."."""

    def __init__(self, bare=False, untied=False, **config):
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel
        model = GPT2LMHeadModel(GPT2Config(embd_pdrop=0, attn_pdrop=0, resid_pdrop=0, tie_word_embeddings=not untied,
                                           use_cache=False, **config))
        self.__dict__["model"] = model  # not a submodule
        if bare:
            for name in ("wte", "wpe", "h", "ln_f"):
                self.add_module(name, getattr(model.transformer, name))
        else:
            self.transformer = model.transformer
        if untied:
            self.lm_head = model.lm_head

    def forward(self, tokens):
        return self.model.train(self.training)(tokens).logits


CHARS = {"vocab_size": 256, "n_positions": 64, "n_embd": 128, "n_layer": 4, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}


def plain_resnet18(classes=1000):
    """torchvision's resnet18 with the usual stem for CIFAR: a 3x3 convolution, no pooling."""
    model = tv.resnet18(num_classes=classes, zero_init_residual=True)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


class CifarBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.stride, self.pad = stride, (outputs - inputs) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return self.relu(y + shortcut)


class CifarResNet(nn.Module):
    """He et al., section 4.2, with option A."""

    def __init__(self, depth, classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        inputs = 16
        for number, channels in enumerate((16, 32, 64), 1):
            blocks = []
            for i in range((depth - 2) // 6):
                blocks.append(CifarBlock(inputs, channels, 2 if number > 1 and i == 0 else 1))
                inputs = channels
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def efficientnet(variant, classes=1000):
    return getattr(tv, f"efficientnet_b{variant}")(dropout=0.0, stochastic_depth_prob=0.0, num_classes=classes)


def lite0(image_size, classes=1000):
    from efficientnet_lite_pytorch import EfficientNet
    return EfficientNet.from_name("efficientnet-lite0", image_size=image_size, dropout_rate=0.0, drop_connect_rate=0.0,
                                  num_classes=classes)


def mobilenet(name, **options):
    return lambda: getattr(tv, "mobilenet_" + name)(dropout=0.0, **options)


# Batches, images, biases and seeds are such that no activation is close to a kink (kinks.py).
REFERENCES = {
    "mlp": Reference(mlp, (8, 20), 10, default_init),
    "mnist_cnn": Reference(MnistCnn, (4, 28, 28, 1), 10, default_init, seed=2),
    "resnet18": Reference(tv.resnet18, (4, 64, 64, 3), 1000, RESNET, bias=4.0, seed=5),
    "resnet34": Reference(tv.resnet34, (4, 64, 64, 3), 1000, RESNET, bias=4.0, seed=5),
    "resnet50": Reference(lambda: tv.resnet50(zero_init_residual=True), (8, 32, 32, 3), 1000, RESNET_ZERO_BOTTLENECK,
                          bias=2.0, seed=0),
    "resnet101": Reference(tv.resnet101, (8, 32, 32, 3), 1000, RESNET, bias=2.0, seed=3),
    "resnet152": Reference(tv.resnet152, (8, 32, 32, 3), 1000, RESNET, bias=1.5, seed=0),
    "resnet18_small_images": Reference(plain_resnet18, (8, 16, 16, 3), 1000, RESNET_ZERO_BASIC, bias=4.0, seed=2),
    "resnet20": Reference(lambda: CifarResNet(20), (8, 16, 16, 3), 10, CIFAR, bias=4.0, seed=2),
    "resnet56": Reference(lambda: CifarResNet(56), (8, 16, 16, 3), 10, CIFAR, bias=4.0, seed=8),
    "mobilenet_v2": Reference(mobilenet("v2"), (8, 32, 32, 3), 1000, MOBILENET, **RELU6, seed=10),
    "mobilenet_v2_half": Reference(mobilenet("v2", width_mult=0.5), (8, 32, 32, 3), 1000, MOBILENET, **RELU6, seed=7),
    "mobilenet_v3_small": Reference(mobilenet("v3_small"), (8, 64, 64, 3), 1000, MOBILENET, seed=11),
    "mobilenet_v3_small_half": Reference(mobilenet("v3_small", width_mult=0.5), (8, 64, 64, 3), 1000, MOBILENET, seed=6),
    "mobilenet_v3_large": Reference(mobilenet("v3_large"), (8, 48, 48, 3), 1000, MOBILENET, seed=11),
    "efficientnet_b0": Reference(lambda: efficientnet(0), (8, 64, 64, 3), 1000, EFFICIENTNET),
    "efficientnet_b1": Reference(lambda: efficientnet(1), (8, 64, 64, 3), 1000, EFFICIENTNET),
    "efficientnet_b2": Reference(lambda: efficientnet(2), (8, 64, 64, 3), 1000, EFFICIENTNET),
    "efficientnet_lite0": Reference(lambda: lite0((32, 32)), (8, 32, 32, 3), 1000, default_init, **RELU6, seed=6),
    "vit_ti_16": Reference(lambda: vit(48, 192), (3, 48, 48, 3), 1000, vit_init, file="transformers"),
    "vit_s_16": Reference(lambda: vit(64, 384), (2, 64, 64, 3), 1000, vit_init, file="transformers"),
    "vit_b_16": Reference(lambda: vit(64, 768), (2, 64, 64, 3), 1000, vit_init, file="transformers"),
    "gpt2": Reference(Gpt, (2, 16), 50257, gpt_init, tokens=50257, file="transformers"),
    "gpt_chars": Reference(lambda: Gpt(**CHARS), (4, 40), 256, gpt_init, tokens=256, file="transformers"),
    "gpt_untied": Reference(lambda: Gpt(bare=True, untied=True, n_inner=200, **CHARS), (4, 64), 256, gpt_init, tokens=256, file="transformers"),
}


def as_input(reference, x):
    """A batch as the model takes it: NHWC images become NCHW."""
    return x.permute(0, 3, 1, 2) if x.dim() == 4 else x.long() if reference.tokens else x


def loss_of(logits, labels):
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten().long())
