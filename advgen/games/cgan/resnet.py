"""Residual networks with conditional batch normalisation and a projection discriminator.

Forms and widths are those of Miyato et al. 2018 (arXiv:1802.05957, appendix B) at 32 pixels, and of Miyato & Koyama
2018 (arXiv:1802.05637) at 64 and 128; above 128 the rule goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen.game import Across, ImageSpec
from advgen.games.cgan.config import CGanConfig
from advgen.nn.batch_norm import BatchNorm
from advgen.nn.convolution import Conv2d

CONCAT_CHANNELS = 128  # of the label's embedding that is joined to features
CONCAT_BLOCK = 3  # it is joined before this block, counted from 0


@dataclass(frozen=True)
class Layers:
    """What the discriminator is made of.

    Attributes:
        conv: makes a convolution of (inputs, outputs, kernel, padding).
        linear: makes a linear layer of (inputs, outputs).
        embedding: makes a table of (classes, features).
    """

    conv: Callable[..., nn.Module] = Conv2d
    linear: Callable[..., nn.Module] = nn.Linear
    embedding: Callable[..., nn.Module] = nn.Embedding


def glorot(layer: nn.Module, gain: float = 1.0) -> nn.Module:
    """The layer with weights from Glorot's uniform distribution times ``gain``, and no bias at first."""
    weight, bias = layer.weight, getattr(layer, "bias", None)
    assert isinstance(weight, Tensor)
    nn.init.xavier_uniform_(weight, gain)
    if isinstance(bias, Tensor):
        nn.init.zeros_(bias)
    return layer


def generator_channels(width: int, resolution: int) -> list[int]:
    """Channels of the features at 4x4 and behind each block."""
    blocks = int(math.log2(resolution // 4))
    if resolution <= 32:
        return [4 * width] * (blocks + 1)
    return [width * min(16, 1 << (blocks - block)) for block in range(blocks + 1)]


def discriminator_channels(width: int, resolution: int) -> list[tuple[int, bool]]:
    """Channels behind each block, and whether it halves the resolution; the last features are 2x2 to 8x8."""
    if resolution <= 32:
        return [(2 * width, True), (2 * width, True), (2 * width, False), (2 * width, False)]
    halvings = max(5, int(math.log2(resolution // 4)))
    blocks = [(width * min(16, 1 << block), True) for block in range(halvings)]
    return blocks if resolution == 64 else [*blocks, (16 * width, False)]


class GeneratorBlock(nn.Module):
    """Doubles the resolution; the short way does so behind its 1x1 convolution, which is the same and less work.

    Convolutions have no bias: the normalisations behind them (behind the sum and the short ways, that at the network's
    end) take it out again.
    """

    def __init__(self, inputs: int, outputs: int, classes: int) -> None:
        super().__init__()
        self.norm0 = BatchNorm(inputs, classes)
        self.conv0 = glorot(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), math.sqrt(2))
        self.norm1 = BatchNorm(outputs, classes)
        self.conv1 = glorot(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), math.sqrt(2))
        self.short = glorot(nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor, labels: Tensor, across: Across | None) -> Tensor:
        """[n, inputs, r, r] to [n, outputs, 2 r, 2 r]."""
        y = self.conv0(upsample(F.relu(self.norm0(x, across, labels))))
        y = self.conv1(F.relu(self.norm1(y, across, labels)))
        return y + upsample(self.short(x))


class ResnetGenerator(nn.Module):
    """Latent vectors and labels to images [n, c, r, r] in [-1, 1]."""

    def __init__(self, config: CGanConfig, spec: ImageSpec) -> None:
        super().__init__()
        channels = generator_channels(config.width, spec.resolution)
        self.first = glorot(nn.Linear(config.latents, channels[0] * 16))
        self.blocks = nn.ModuleList(GeneratorBlock(a, b, spec.classes) for a, b in pairwise(channels))
        self.norm = BatchNorm(channels[-1])
        self.last = glorot(nn.Conv2d(channels[-1], spec.channels, 3, padding=1))

    def forward(self, z: Tensor, labels: Tensor, across: Across | None = None) -> Tensor:
        """[n, latents] and int64 [n] to [n, c, r, r].

        Args:
            z: from N(0, 1).
            labels: numbers of classes.
            across: normalises by the moments of the batch on all ranks; None for the running statistics.
        """
        x = self.first(z).unflatten(1, (-1, 4, 4))
        for block in self.blocks:
            x = block(x, labels, across)
        return self.last(F.relu(self.norm(x, across))).tanh()


class DiscriminatorBlock(nn.Module):
    """Two convolutions beside a short way; halves the resolution if asked.

    The first block of the network has no rectifier before its first convolution, which sees the image. Means over 2x2
    pixels come before the short way's 1x1 convolution, as in the paper's "optimised" block: the same function as
    behind it, for a quarter of the work.
    """

    def __init__(self, inputs: int, outputs: int, halve: bool, layers: Layers, first: bool = False) -> None:
        super().__init__()
        hidden = outputs if first else inputs
        self.first, self.halve = first, halve
        self.conv0 = glorot(layers.conv(inputs, hidden, 3, padding=1), math.sqrt(2))
        self.conv1 = glorot(layers.conv(hidden, outputs, 3, padding=1), math.sqrt(2))
        learned = halve or inputs != outputs
        self.short = glorot(layers.conv(inputs, outputs, 1)) if learned else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, r, r] to [n, outputs, r, r] or [n, outputs, r / 2, r / 2]."""
        y = self.conv1(F.relu(self.conv0(x if self.first else F.relu(x))))
        if self.halve:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        return y + self.short(x)


class ResnetDiscriminator(nn.Module):
    """Images and labels to logits: psi(f) + <embedding(y), f> of features f, summed over pixels (section 3)."""

    def __init__(self, config: CGanConfig, spec: ImageSpec, layers: Layers) -> None:
        super().__init__()
        self.projects = config.conditioning == "projection"
        blocks: list[DiscriminatorBlock] = []
        inputs = spec.channels
        for index, (outputs, halve) in enumerate(discriminator_channels(config.critic_width, spec.resolution)):
            if index == CONCAT_BLOCK and not self.projects:
                inputs += CONCAT_CHANNELS
            blocks.append(DiscriminatorBlock(inputs, outputs, halve, layers, first=index == 0))
            inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.last = glorot(layers.linear(inputs, 1))
        self.embedding = glorot(layers.embedding(spec.classes, inputs if self.projects else CONCAT_CHANNELS))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """[n, c, r, r] and int64 [n] to [n]."""
        x, label = images, self.embedding(labels)
        for index, block in enumerate(self.blocks):
            if index == CONCAT_BLOCK and not self.projects:
                x = torch.cat((x, label[:, :, None, None].expand(-1, -1, *x.shape[2:]).to(x.dtype)), dim=1)
            x = block(x)
        features = F.relu(x).sum(dim=(2, 3))
        scores = self.last(features)[:, 0]
        return scores + (label * features).sum(dim=1) if self.projects else scores


def upsample(x: Tensor) -> Tensor:
    """Every pixel twice in each direction."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
