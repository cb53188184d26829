"""The paper's generator and discriminator, built whole; a phase uses the part up to its resolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen.game import Across, ImageSpec
from advgen.games.progan.config import ProganConfig
from advgen.nn.equalized import SQRT2, EqualizedConv2d, EqualizedLinear
from advgen.nn.normalization import MinibatchStddev, pixel_norm


def resolutions(first: int, last: int) -> list[int]:
    """first, 2 first, ..., last."""
    return [first << i for i in range((last // first).bit_length())]


def leaky(x: Tensor) -> Tensor:
    """Leaky rectifier with slope 0.2, in the place of its argument, which no layer before it looks at again."""
    return F.leaky_relu(x, 0.2, inplace=True)


def fade_images(images: Tensor, fade: float) -> Tensor:
    """Blend images with their copy at half the resolution, as the networks' outputs are blended in a fade.

    Args:
        images: [n, c, r, r].
        fade: weight of the full resolution, in [0, 1].
    """
    if fade >= 1.0:
        return images
    coarse = F.interpolate(F.avg_pool2d(images, 2), scale_factor=2.0, mode="nearest")
    return coarse.lerp(images, fade)


class GeneratorStart(nn.Module):
    """Latent vector to features at 4x4."""

    def __init__(self, latents: int, channels: int) -> None:
        super().__init__()
        # The original's gain at this layer is a quarter of He's, to match its first implementation.
        self.dense = EqualizedLinear(latents, channels * 16, gain=SQRT2 / 4, bias=False)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.conv = EqualizedConv2d(channels, channels, 3)

    def forward(self, z: Tensor) -> Tensor:
        """[n, latents] to [n, channels, 4, 4]."""
        x = self.dense(pixel_norm(z)).unflatten(1, (-1, 4, 4))
        x = pixel_norm(leaky(x + self.bias.reshape(1, -1, 1, 1)))
        return pixel_norm(leaky(self.conv(x)))


class GeneratorBlock(nn.Module):
    """Doubles the resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0 = EqualizedConv2d(inputs, outputs, 3, resample="up")
        self.conv1 = EqualizedConv2d(outputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, r, r] to [n, outputs, 2 r, 2 r]."""
        x = pixel_norm(leaky(self.conv0(x)))
        return pixel_norm(leaky(self.conv1(x)))


class Generator(nn.Module):
    """Latent vectors (with one-hot labels) to images at any resolution of the growth."""

    def __init__(self, config: ProganConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.classes = spec.classes
        widths = {r: config.channels_at(r) for r in resolutions(4, spec.resolution)}
        self.blocks = nn.ModuleDict({"4": GeneratorStart(config.latents + spec.classes, widths[4])})
        self.blocks.update({str(r): GeneratorBlock(widths[r // 2], widths[r]) for r in widths if r > 4})
        self.to_rgb = nn.ModuleDict({str(r): EqualizedConv2d(widths[r], spec.channels, 1, gain=1.0) for r in widths})

    def forward(self, z: Tensor, labels: Tensor | None, resolution: int, fade: float) -> Tensor:
        """Images [n, c, r, r] at ``resolution``.

        Args:
            z: [n, latents]; normalised here, together with the labels.
            labels: int64 [n], or None without classes.
            fade: weight of the finest block; the rest is the upsampled image of the block before it.
        """
        x = torch.cat((z, F.one_hot(labels, self.classes).to(z.dtype)), dim=1) if labels is not None else z
        steps = resolutions(4, resolution)
        for r in steps[:-1]:
            x = self.blocks[str(r)](x)
        y = self.blocks[str(resolution)](x)
        image = self.to_rgb[str(resolution)](y)
        if fade < 1.0 and len(steps) > 1:
            coarse = F.interpolate(self.to_rgb[str(steps[-2])](x), scale_factor=2.0, mode="nearest")
            image = coarse.lerp(image, fade)
        return image


class GeneratorAt(nn.Module):
    """The generator at one resolution and fade, as a module of tensors alone."""

    def __init__(self, generator: Generator, resolution: int, fade: float) -> None:
        super().__init__()
        self.generator, self.resolution, self.fade = generator, resolution, fade

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """[n, latents] (and int64 [n]) to images [n, c, r, r]."""
        return self.generator(z, labels, self.resolution, self.fade)


class DiscriminatorBlock(nn.Module):
    """Halves the resolution."""

    def __init__(self, inputs: int, outputs: int, fused: bool) -> None:
        super().__init__()
        self.conv0 = EqualizedConv2d(inputs, inputs, 3)
        self.conv1 = EqualizedConv2d(inputs, outputs, 3, resample="down" if fused else None)
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, r, r] to [n, outputs, r / 2, r / 2]."""
        x = leaky(self.conv1(leaky(self.conv0(x))))
        return x if self.fused else F.avg_pool2d(x, 2)


class DiscriminatorEnd(nn.Module):
    """Features at 4x4 to a score, and to label logits or with the label's projection in the score.

    Args:
        channels, hidden: of the features at 4x4, and of the vector behind them.
        classes: 0 without labels.
        projects: whether labels are projected, instead of told apart.
        group: of the minibatch standard deviation.
    """

    def __init__(self, channels: int, hidden: int, classes: int, projects: bool, group: int | None) -> None:
        super().__init__()
        self.stddev = MinibatchStddev(group)
        self.conv = EqualizedConv2d(channels + 1, channels, 3)
        self.dense0 = EqualizedLinear(channels * 16, hidden)
        self.dense1 = EqualizedLinear(hidden, 1 if projects else 1 + classes, gain=1.0)
        # Every class has a weight vector such as the score has: the embedding, of the same scale.
        self.embedding = EqualizedLinear(hidden, classes, gain=1.0, bias=False) if projects and classes else None

    def forward(self, x: Tensor, labels: Tensor | None, across: Across) -> tuple[Tensor, Tensor]:
        """[n, channels, 4, 4] and int64 [n] to scores [n] and logits [n, classes], of which a projection has none.

        A projection's score is psi(h) + <embedding(y), h> (Miyato & Koyama 2018, section 3).
        """
        x = leaky(self.conv(self.stddev(x, across)))
        h = leaky(self.dense0(x.flatten(1)))
        out = self.dense1(h)
        scores = out[:, 0]
        if self.embedding is not None and labels is not None:
            scores = scores + self.embedding(h).gather(1, labels[:, None])[:, 0]
        return scores, out[:, 1:]


class Discriminator(nn.Module):
    """Images at any resolution of the growth to scores and label logits."""

    def __init__(self, config: ProganConfig, spec: ImageSpec) -> None:
        super().__init__()
        widths = {r: config.channels_at(r) for r in resolutions(4, spec.resolution)}
        self.from_rgb = nn.ModuleDict({str(r): EqualizedConv2d(spec.channels, widths[r], 1) for r in widths})
        fused = config.fused_downsampling
        self.blocks = nn.ModuleDict(
            {str(r): DiscriminatorBlock(widths[r], widths[r // 2], fused) for r in widths if r > 4}
        )
        projects, group = config.conditioning == "projection", config.minibatch_group
        self.blocks["4"] = DiscriminatorEnd(widths[4], config.channels_at(2), spec.classes, projects, group)

    def forward(self, images: Tensor, labels: Tensor | None, fade: float, across: Across) -> tuple[Tensor, Tensor]:
        """Scores [n], and label logits [n, classes] ([n, 0] where labels are projected into the scores).

        Args:
            images: [n, c, r, r].
            labels: int64 [n], or None without classes; only a projection looks at them.
            fade: weight of the finest block's features; the rest are those of the image at half the resolution.
            across: for the statistic over the batch.
        """
        steps = resolutions(4, images.shape[-1])
        x = leaky(self.from_rgb[str(steps[-1])](images))
        for r in reversed(steps[1:]):
            x = self.blocks[str(r)](x)
            if r == steps[-1] and fade < 1.0:
                coarse = leaky(self.from_rgb[str(r // 2)](F.avg_pool2d(images, 2)))
                x = coarse.lerp(x, fade)
        return self.blocks["4"](x, labels, across)
