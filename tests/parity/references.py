"""The PyTorch models that fasttrain's are compared with: torchvision's, those of packages, and what neither has."""

import dataclasses
from typing import Callable

import torch.nn.functional as F
import torchvision.models as tv
from torch import nn


@dataclasses.dataclass
class Reference:
    """`build` makes the model with dropout and stochastic depth off. `input` is the shape of a batch, images as NHWC;
    sizes are such that PyTorch's own error in single precision is small."""

    build: Callable[[], nn.Module]
    input: tuple
    classes: int
    tokens: int = 0  # 0: images; otherwise the size of the vocabulary
    bias: float = 1.0  # of normalizations: see weights.py
    positive: bool = False
    seed: int = 0  # of the input


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


# Batches, images, biases and seeds are such that no activation is close to a kink (kinks.py).
REFERENCES = {
    "mlp": Reference(mlp, (8, 20), 10),
    "mnist_cnn": Reference(MnistCnn, (4, 28, 28, 1), 10),
    "resnet18": Reference(tv.resnet18, (4, 64, 64, 3), 1000, bias=4.0),
    "resnet34": Reference(tv.resnet34, (4, 64, 64, 3), 1000, bias=4.0),
    "resnet50": Reference(lambda: tv.resnet50(zero_init_residual=True), (8, 32, 32, 3), 1000, bias=2.0),
    "resnet101": Reference(tv.resnet101, (8, 32, 32, 3), 1000, bias=2.0),
    "resnet152": Reference(tv.resnet152, (8, 32, 32, 3), 1000, bias=1.5),
    "resnet18_small_images": Reference(plain_resnet18, (8, 16, 16, 3), 1000, bias=4.0),
    "resnet20": Reference(lambda: CifarResNet(20), (8, 16, 16, 3), 10, bias=4.0),
    "resnet56": Reference(lambda: CifarResNet(56), (8, 16, 16, 3), 10, bias=4.0),
    "mobilenet_v2": Reference(lambda: tv.mobilenet_v2(dropout=0.0), (8, 32, 32, 3), 1000, **RELU6),
    "mobilenet_v2_half": Reference(lambda: tv.mobilenet_v2(dropout=0.0, width_mult=0.5), (8, 32, 32, 3), 1000, **RELU6),
    "mobilenet_v3_small": Reference(lambda: tv.mobilenet_v3_small(dropout=0.0), (8, 64, 64, 3), 1000),
    "mobilenet_v3_small_half": Reference(lambda: tv.mobilenet_v3_small(dropout=0.0, width_mult=0.5), (8, 64, 64, 3), 1000),
    "mobilenet_v3_large": Reference(lambda: tv.mobilenet_v3_large(dropout=0.0), (8, 64, 64, 3), 1000),
    "efficientnet_b0": Reference(lambda: efficientnet(0), (8, 64, 64, 3), 1000),
    "efficientnet_b1": Reference(lambda: efficientnet(1), (8, 64, 64, 3), 1000),
    "efficientnet_b2": Reference(lambda: efficientnet(2), (8, 64, 64, 3), 1000),
    "efficientnet_lite0": Reference(lambda: lite0((32, 32)), (8, 32, 32, 3), 1000, **RELU6),
    "vit_ti_16": Reference(lambda: vit(48, 192), (3, 48, 48, 3), 1000),
    "vit_s_16": Reference(lambda: vit(64, 384), (2, 64, 64, 3), 1000),
    "vit_b_16": Reference(lambda: vit(64, 768), (2, 64, 64, 3), 1000),
    "gpt2": Reference(Gpt, (2, 16), 50257, tokens=50257),
    "gpt_chars": Reference(lambda: Gpt(**CHARS), (4, 40), 256, tokens=256),
    "gpt_untied": Reference(lambda: Gpt(bare=True, untied=True, n_inner=200, **CHARS), (4, 64), 256, tokens=256),
}


def as_input(reference, x):
    """A batch as the model takes it: NHWC images become NCHW."""
    return x.permute(0, 3, 1, 2) if x.dim() == 4 else x.long() if reference.tokens else x


def loss_of(logits, labels):
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten().long())
