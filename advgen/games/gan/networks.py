"""Residual networks without normalisation (the form of Mescheder et al. 2018), and perceptrons.

A discriminator's layers may be spectrally normalised.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from advgen.game import ImageSpec
from advgen.games.gan.config import GanConfig
from advgen.nn.convolution import Conv2d
from advgen.nn.spectral import SpectralConv2d, SpectralLinear


class ResidualBlock(nn.Module):
    """x + 0.1 f(x), with a 1x1 convolution on the short way where the width changes.

    Args:
        inputs, outputs: channels in and out.
        spectral: whether the convolutions are spectrally normalised.
    """

    def __init__(self, inputs: int, outputs: int, spectral: bool = False) -> None:
        super().__init__()
        hidden = min(inputs, outputs)
        conv = SpectralConv2d if spectral else Conv2d
        self.conv0 = conv(inputs, hidden, 3, padding=1)
        self.conv1 = conv(hidden, outputs, 3, padding=1)
        self.short = conv(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h, w]."""
        y = self.conv0(F.leaky_relu(x, 0.2))
        return self.short(x) + 0.1 * self.conv1(F.leaky_relu(y, 0.2, inplace=True))


def widths(config: GanConfig, resolution: int) -> list[int]:
    """Channels from 4x4 to the finest resolution."""
    levels = int(math.log2(resolution // 4))
    return [min(config.width << (levels - level), config.width_max) for level in range(levels + 1)]


class ResnetGenerator(nn.Module):
    """Latent vectors [n, latents] to images [n, c, r, r] in [-1, 1]."""

    def __init__(self, config: GanConfig, spec: ImageSpec) -> None:
        super().__init__()
        channels = widths(config, spec.resolution)
        self.first = nn.Linear(config.latent_size, channels[0] * 16)
        pairs = zip(channels, [*channels[1:], channels[-1]], strict=True)
        self.blocks = nn.ModuleList(ResidualBlock(a, b) for a, b in pairs)
        self.last = nn.Conv2d(channels[-1], spec.channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """[n, latents] to [n, c, r, r]."""
        x = self.first(z).unflatten(1, (-1, 4, 4))
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index < len(self.blocks) - 1:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.last(F.leaky_relu(x, 0.2)).tanh()


class ResnetDiscriminator(nn.Module):
    """Images [n, c, r, r] to logits [n]."""

    def __init__(self, config: GanConfig, spec: ImageSpec) -> None:
        super().__init__()
        channels = widths(config, spec.resolution)[::-1]
        conv, linear = (SpectralConv2d, SpectralLinear) if config.spectral_norm else (Conv2d, nn.Linear)
        self.first = conv(spec.channels, channels[0], 3, padding=1)
        pairs = zip(channels, [*channels[1:], channels[-1]], strict=True)
        self.blocks = nn.ModuleList(ResidualBlock(a, b, config.spectral_norm) for a, b in pairs)
        self.last = linear(channels[-1] * 16, 1)

    def forward(self, images: Tensor) -> Tensor:
        """[n, c, r, r] to [n]."""
        x = self.first(images)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index < len(self.blocks) - 1:
                x = F.avg_pool2d(x, 2)
        return self.last(F.leaky_relu(x, 0.2).flatten(1))[:, 0]


class MlpGenerator(nn.Module):
    """Latent vectors [n, latents] to images [n, c, r, r] in [-1, 1]; without the last tanh where data are unbounded."""

    def __init__(self, config: GanConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.shape = (spec.channels, spec.resolution, spec.resolution)
        self.layers = nn.Sequential(
            nn.Linear(config.latent_size, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, math.prod(self.shape)),
            nn.Tanh() if spec.bounded else nn.Identity(),
        )

    def forward(self, z: Tensor) -> Tensor:
        """[n, latents] to [n, c, r, r]."""
        return self.layers(z).reshape(-1, *self.shape)


class MlpDiscriminator(nn.Module):
    """Images [n, c, r, r] to logits [n]."""

    def __init__(self, config: GanConfig, spec: ImageSpec) -> None:
        super().__init__()
        linear = SpectralLinear if config.spectral_norm else nn.Linear
        self.layers = nn.Sequential(
            linear(spec.channels * spec.resolution**2, config.hidden),
            nn.LeakyReLU(0.2),
            linear(config.hidden, config.hidden),
            nn.LeakyReLU(0.2),
            linear(config.hidden, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """[n, c, r, r] to [n]."""
        return self.layers(images.flatten(1))[:, 0]
