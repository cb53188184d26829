"""Coarse-to-fine generator and multi-scale discriminators (Wang et al. 2017, sections 3.1 and 3.2; released code).

No convolution before a norm has a bias: an instance norm takes it out again, so that its gradient is 0 but for
rounding, on which Adam would walk, and a layer norm has one of its own. Weights of convolutions begin at N(0, 0.02),
biases at 0.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.games.pix2pixhd.config import Norm, Pix2PixHdConfig
from advgen.nn.initialization import initialize_convolutions

DEVIATION = 0.02
"""Of first weights."""


def halved(x: Tensor) -> Tensor:
    """[n, c, h, w] to [n, c, ceil(h / 2), ceil(w / 2)]: means over 3x3 pixels, at the border over those there are."""
    return F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)


def check_sides(height: int, width: int, multiple: int) -> None:
    """Refuse images that :func:`padded` does.

    Raises:
        UserError: a side is not above ``multiple``: at the coarsest level fewer than 2 pixels would be left of it.
    """
    if min(height, width) <= multiple:
        raise UserError(
            f"Images of {height}x{width} are too small for a network that halves them to 1/{multiple}: both sides must "
            f"be above {multiple}. Lower game.downsamplings or game.encoder_downsamplings, or use larger images."
        )


def padded(x: Tensor, multiple: int) -> Tensor:
    """``x`` [n, c, h, w] continued by reflection, below and to the right, to sides that are multiples of ``multiple``.

    Raises:
        UserError: see :func:`check_sides`.
    """
    height, width = x.shape[-2:]
    check_sides(height, width, multiple)
    below, right = -height % multiple, -width % multiple
    return F.pad(x, (0, right, 0, below), mode="reflect") if below or right else x


def normalization(norm: Norm, channels: int) -> nn.Module:
    """Instance norm: each channel of an image by its own statistics, so that nothing is left of what is the same all
    over the picture. Layer norm: all channels by statistics in common, then each with a learned scale and offset."""
    return nn.InstanceNorm2d(channels) if norm == "instance" else nn.GroupNorm(1, channels)


def normalized(conv: nn.Module, channels: int, norm: Norm) -> nn.Sequential:
    """A convolution, a norm and rectifier."""
    return nn.Sequential(conv, normalization(norm, channels), nn.ReLU(inplace=True))


def wide(inputs: int, outputs: int, norm: Norm) -> nn.Sequential:
    """A 7x7 convolution that keeps the size."""
    conv = nn.Conv2d(inputs, outputs, 7, padding=3, padding_mode="reflect", bias=False)
    return normalized(conv, outputs, norm)


def down(inputs: int, outputs: int, norm: Norm) -> nn.Sequential:
    """A 3x3 convolution that halves the size."""
    return normalized(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), outputs, norm)


def up(inputs: int, outputs: int, norm: Norm) -> nn.Sequential:
    """A transposed 3x3 convolution that doubles the size."""
    conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False)
    return normalized(conv, outputs, norm)


def to_image(inputs: int, outputs: int) -> nn.Sequential:
    """A 7x7 convolution and tanh."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 7, padding=3, padding_mode="reflect"), nn.Tanh())


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), with 3x3 convolutions."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv0 = normalized(self._conv(channels), channels, norm)
        self.conv1 = nn.Sequential(self._conv(channels), normalization(norm, channels))

    @staticmethod
    def _conv(channels: int) -> nn.Conv2d:
        return nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] to the same."""
        return x + self.conv1(self.conv0(x))


def hourglass(inputs: int, width: int, downsamplings: int, blocks: int, norm: Norm) -> nn.Sequential:
    """[n, inputs, h, w] to [n, width, h, w], by way of width 2^downsamplings channels at the coarsest level.

    The sides must be multiples of 2^downsamplings.
    """
    pairs = [(width << level, width << (level + 1)) for level in range(downsamplings)]
    return nn.Sequential(
        wide(inputs, width, norm),
        *(down(a, b, norm) for a, b in pairs),
        *(ResidualBlock(width << downsamplings, norm) for _ in range(blocks)),
        *(up(b, a, norm) for a, b in reversed(pairs)),
    )


class GlobalGenerator(nn.Module):
    """G1: a ``trunk`` whose features an enhancer takes, and ``to_image``, which it leaves out."""

    def __init__(self, config: Pix2PixHdConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.trunk = hourglass(inputs, config.ngf, config.downsamplings, config.global_blocks, config.norm)
        self.to_image = to_image(config.ngf, outputs)

    def forward(self, condition: Tensor) -> Tensor:
        """[n, inputs, h, w] to features [n, ngf, h, w]."""
        return self.trunk(condition)


class LocalEnhancer(nn.Module):
    """G2 and further: doubles the resolution of the features before it."""

    def __init__(self, config: Pix2PixHdConfig, number: int, inputs: int, outputs: int) -> None:
        super().__init__()
        width, norm = config.ngf >> number, config.norm
        self.down = nn.Sequential(wide(inputs, width, norm), down(width, 2 * width, norm))
        blocks = (ResidualBlock(2 * width, norm) for _ in range(config.local_blocks))
        self.body = nn.Sequential(*blocks, up(2 * width, width, norm))
        self.to_image = to_image(width, outputs)

    def forward(self, condition: Tensor, coarse: Tensor) -> Tensor:
        """[n, inputs, h, w] and features [n, 2 width, h / 2, w / 2] to features [n, width, h, w]."""
        return self.body(self.down(condition) + coarse)


class Generator(nn.Module):
    """The global generator and all enhancers, built whole; a stage uses the part up to its resolution.

    The parts are named "global", "enhancer1", "enhancer2" ..., so that a phase can name what learns.

    Args:
        inputs: channels of the condition: classes, boundary, instance features.
        outputs: channels of the image.
    """

    def __init__(self, config: Pix2PixHdConfig, inputs: int, outputs: int = 3) -> None:
        super().__init__()
        self.last, self.multiple = config.enhancers, 1 << config.downsamplings
        self.add_module("global", GlobalGenerator(config, inputs, outputs))
        for number in range(1, self.last + 1):
            self.add_module(f"enhancer{number}", LocalEnhancer(config, number, inputs, outputs))
        initialize_convolutions(self, DEVIATION)

    def forward(self, condition: Tensor, stage: int | None = None) -> Tensor:
        """Images [n, outputs, h, w] in [-1, 1].

        Args:
            condition: [n, inputs, h, w] at the stage's resolution, any h and w above 2^(downsamplings + stage).
            stage: enhancers that are used: 0 for the global generator alone, None for all.
        """
        stage = self.last if stage is None else stage
        height, width = condition.shape[-2:]
        pyramid = [padded(condition, self.multiple << stage)]
        for _ in range(stage):
            pyramid.append(halved(pyramid[-1]))
        part = cast("GlobalGenerator | LocalEnhancer", self.get_submodule("global"))
        features = part(pyramid[stage])
        for number in range(1, stage + 1):
            part = cast(LocalEnhancer, self.get_submodule(f"enhancer{number}"))
            features = part(pyramid[stage - number], features)
        return part.to_image(features)[..., :height, :width]

    def used(self, stage: int) -> list[str]:
        """Names of the parts that ``stage`` uses: a part before the last without its layers to an image."""
        earlier = ["global", *(f"enhancer{number}" for number in range(1, stage + 1))]
        last = earlier.pop()
        inner = [f"{part}.{name}" for part in earlier for name, _ in self.get_submodule(part).named_children()]
        return [*(name for name in inner if not name.endswith(".to_image")), last]


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017) that shows its features: 4x4 convolutions, all but the last two with stride 2."""

    def __init__(self, config: Pix2PixHdConfig, inputs: int) -> None:
        super().__init__()
        layers = config.discriminator_layers
        channels = [min(config.ndf << n, config.discriminator_channels_max) for n in range(layers + 1)]
        first = nn.Sequential(nn.Conv2d(inputs, channels[0], 4, stride=2, padding=2), nn.LeakyReLU(0.2, inplace=True))
        self.layers = nn.ModuleList([first])
        for n in range(1, layers + 1):
            conv = nn.Conv2d(channels[n - 1], channels[n], 4, stride=2 if n < layers else 1, padding=2, bias=False)
            self.layers.append(nn.Sequential(conv, nn.InstanceNorm2d(channels[n]), nn.LeakyReLU(0.2, inplace=True)))
        self.layers.append(nn.Conv2d(channels[-1], 1, 4, padding=2))

    def forward(self, x: Tensor) -> list[Tensor]:
        """[n, inputs, h, w] to the features of all layers, finest first, and last the logits [n, 1, h', w']."""
        found: list[Tensor] = []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        return found


class MultiscaleDiscriminator(nn.Module):
    """Discriminators of one form at the image's resolution, at half of it ..., each with weights of its own.

    Args:
        inputs: channels of condition and image together.
    """

    def __init__(self, config: Pix2PixHdConfig, inputs: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(PatchDiscriminator(config, inputs) for _ in range(config.discriminators))
        initialize_convolutions(self, DEVIATION)

    def forward(self, condition: Tensor, images: Tensor) -> list[list[Tensor]]:
        """Features and logits of each scale, finest first (see :class:`PatchDiscriminator`).

        Args:
            condition: [n, c, h, w]; without instance features, as the released code has it.
            images: [n, 3, h, w] in [-1, 1].
        """
        x = torch.cat((condition, images), dim=1)
        found: list[list[Tensor]] = []
        for number, scale in enumerate(self.scales):
            x = halved(x) if number else x
            found.append(scale(x))
        return found
