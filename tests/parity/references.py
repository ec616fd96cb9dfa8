"""The PyTorch models that fasttrain's are compared with: torchvision's, those of packages, and what neither has."""

import dataclasses
from typing import Callable

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class Reference:
    """`build` makes the model with dropout and stochastic depth off. `input` is the shape of a batch, images as NHWC;
    sizes are such that PyTorch's own error in single precision is small."""

    build: Callable[[], nn.Module]
    input: tuple
    classes: int
    tokens: int = 0  # 0: images; otherwise the size of the vocabulary
    bias: float = 1.0  # size of the biases of normalizations


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

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = F.max_pool2d(x, 2).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


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

REFERENCES = {
    "mlp": Reference(mlp, (8, 20), 10),
    "mnist_cnn": Reference(MnistCnn, (4, 28, 28, 1), 10),
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
