"""Encoder, its heads, decoder and discriminators. Images inside are in [0, 1]."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from advgen.game import ImageSpec

_MOST_MAPS = 128


def hidden_layers(inputs: int, hidden: int) -> nn.Sequential:
    """Two layers of rectified units: [n, inputs] to [n, hidden]."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())


def maps_of(resolution: int) -> list[int]:
    """Of the convolutions, each of which halves the image, down to 4 pixels."""
    return [min(32 << number, _MOST_MAPS) for number in range(resolution.bit_length() - 3)]


class Encoder(nn.Module):
    """Images to hidden features, from which the heads read the code."""

    def __init__(self, spec: ImageSpec, hidden: int, convolutional: bool, noise_size: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential()
        channels, side = spec.channels, spec.resolution
        for maps in maps_of(side) if convolutional else ():
            self.convolutions.extend((nn.Conv2d(channels, maps, 4, 2, padding=1), nn.ReLU()))
            channels, side = maps, side // 2
        self.hidden = hidden_layers(channels * side * side + noise_size, hidden)

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """[n, c, r, r] in [0, 1], or beyond it with noise on them, and [n, noise_size] to [n, hidden]."""
        x = self.convolutions(images).flatten(1)
        return self.hidden(x if noise is None else torch.cat((x, noise), dim=1))


class Decoder(nn.Module):
    """Codes to images.

    Attributes:
        heads: [categories, latents], the place of each category among the codes, for dimension reduction; else None.
    """

    def __init__(
        self, spec: ImageSpec, inputs: int, hidden: int, convolutional: bool, heads: tuple[int, int] | None = None
    ) -> None:
        super().__init__()
        self.heads = None if heads is None else nn.Parameter(torch.randn(heads))
        self.shape = (spec.channels, spec.resolution, spec.resolution)
        maps = maps_of(spec.resolution)[::-1] if convolutional else []
        self.first = (maps[0], 4, 4) if maps else self.shape
        self.hidden = hidden_layers(inputs, hidden)
        self.last = nn.Linear(hidden, math.prod(self.first))
        self.convolutions = nn.Sequential()
        for here, there in zip(maps, [*maps[1:], spec.channels], strict=False):
            self.convolutions.extend((nn.ReLU(), nn.ConvTranspose2d(here, there, 4, 2, padding=1)))

    def place(self, style: Tensor, category: Tensor | None) -> Tensor:
        """The code of a style [n, k] and probabilities [n, m]: [n, k + m] side by side, or [n, k] by the heads."""
        if category is None:
            return style
        if self.heads is None:
            return torch.cat((category, style), dim=1)
        return style + category @ self.heads

    def forward(self, codes: Tensor) -> Tensor:
        """[n, inputs] to [n, c, r, r] in [0, 1]."""
        x = self.last(self.hidden(codes)).reshape(-1, *self.first)
        return torch.sigmoid(self.convolutions(x))


class Discriminator(nn.Module):
    """Codes to logits, high where they are the prior's."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden_layers(inputs, hidden)
        self.last = nn.Linear(hidden, 1)

    def forward(self, codes: Tensor) -> Tensor:
        """[n, inputs] to [n]."""
        return self.last(self.hidden(codes)).flatten()


def initialize(network: nn.Module, deviation: float | None) -> None:
    """Weights of all layers from N(0, deviation^2), or by their inputs where it is None; biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            if deviation is None:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.normal_(module.weight, 0.0, deviation)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
