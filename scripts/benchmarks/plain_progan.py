"""ProGAN as a person writes it down from the paper: the yardstick of `bench.py step`.

The same function of the same parameters as `advgen.games.progan` at its last resolution, under the same names, so that
one loads the other's weights; written as the well known ports are: eager, NCHW, float32, upsampling and convolution
apart, Adam as torch makes it, the average parameter by parameter. A generator's backward pass goes through the
discriminator's parameters, too, whose gradients the next `zero_grad` throws away: that is left as the ports have it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes of both networks.

    Attributes:
        widths: channels at 4, 8, ... pixels, to the last resolution.
        latents, hidden: sizes of the latent vector and of the vector behind 4x4.
        group: samples in a group of the minibatch standard deviation.
        early_pool: whether the discriminator halves before bias and rectifier, or after.
        colours: channels of an image.
    """

    widths: Mapping[int, int]
    latents: int
    hidden: int
    group: int
    early_pool: bool = False
    colours: int = 3


class ScaledConv(nn.Module):
    """3x3 or 1x1 convolution, its weight times gain / sqrt(fan-in) at each call."""

    def __init__(self, inputs: int, outputs: int, kernel: int, gain: float = math.sqrt(2)) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain / math.sqrt(inputs * kernel**2)
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h, w]."""
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class ScaledLinear(nn.Module):
    """Linear layer, its weight times gain / sqrt(inputs) at each call."""

    def __init__(self, inputs: int, outputs: int, gain: float = math.sqrt(2), bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = gain / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs] to [n, outputs]."""
        return F.linear(x, self.weight * self.scale, self.bias)


class PixelNorm(nn.Module):
    """Each pixel's vector divided by its root mean square."""

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, ...] to the same shape."""
        return x / torch.sqrt(torch.mean(x**2, dim=1, keepdim=True) + 1e-8)


class Start(nn.Module):
    """Latents to 4x4."""

    def __init__(self, latents: int, width: int) -> None:
        super().__init__()
        self.dense = ScaledLinear(latents, width * 16, gain=math.sqrt(2) / 4, bias=False)
        self.bias = nn.Parameter(torch.zeros(width))
        self.conv = ScaledConv(width, width, 3)
        self.norm, self.act = PixelNorm(), nn.LeakyReLU(0.2)

    def forward(self, z: Tensor) -> Tensor:
        """[n, latents] to [n, width, 4, 4]."""
        x = self.dense(self.norm(z)).view(len(z), -1, 4, 4) + self.bias.view(1, -1, 1, 1)
        x = self.norm(self.act(x))
        return self.norm(self.act(self.conv(x)))


class Up(nn.Module):
    """Upsampling, then two convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0, self.conv1 = ScaledConv(inputs, outputs, 3), ScaledConv(outputs, outputs, 3)
        self.norm, self.act = PixelNorm(), nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, r, r] to [n, outputs, 2 r, 2 r]."""
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = self.norm(self.act(self.conv0(x)))
        return self.norm(self.act(self.conv1(x)))


class PlainGenerator(nn.Module):
    """Latents [n, latents] to images [n, colours, R, R]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        rows = sorted(shape.widths)
        self.blocks = nn.ModuleDict({"4": Start(shape.latents, shape.widths[4])})
        self.blocks.update({str(r): Up(shape.widths[r // 2], shape.widths[r]) for r in rows[1:]})
        self.to_rgb = nn.ModuleDict({str(rows[-1]): ScaledConv(shape.widths[rows[-1]], shape.colours, 1, gain=1.0)})
        self.rows = rows

    def forward(self, z: Tensor) -> Tensor:
        """See the class."""
        x = z
        for r in self.rows:
            x = self.blocks[str(r)](x)
        return self.to_rgb[str(self.rows[-1])](x)


class Down(nn.Module):
    """Two convolutions, then a mean over 2x2 pixels."""

    def __init__(self, inputs: int, outputs: int, early_pool: bool) -> None:
        super().__init__()
        self.conv0, self.conv1 = ScaledConv(inputs, inputs, 3), ScaledConv(inputs, outputs, 3)
        self.act, self.early_pool = nn.LeakyReLU(0.2), early_pool

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, r, r] to [n, outputs, r / 2, r / 2]."""
        x = self.conv1(self.act(self.conv0(x)))
        return self.act(F.avg_pool2d(x, 2)) if self.early_pool else F.avg_pool2d(self.act(x), 2)


class End(nn.Module):
    """4x4 to a score, with the minibatch standard deviation."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.widths[4]
        self.conv = ScaledConv(width + 1, width, 3)
        self.dense0 = ScaledLinear(width * 16, shape.hidden)
        self.dense1 = ScaledLinear(shape.hidden, 1, gain=1.0)
        self.act, self.group = nn.LeakyReLU(0.2), shape.group

    def forward(self, x: Tensor) -> Tensor:
        """[n, width, 4, 4] to [n]."""
        n, c, h, w = x.shape
        group = min(self.group, n)
        y = x.view(group, -1, c, h, w)
        y = torch.sqrt(((y - y.mean(0, keepdim=True)) ** 2).mean(0) + 1e-8).mean([1, 2, 3])
        y = y.view(-1, 1, 1, 1).repeat(group, 1, h, w)
        x = self.act(self.conv(torch.cat([x, y], 1)))
        return self.dense1(self.act(self.dense0(x.view(n, -1))))[:, 0]


class PlainDiscriminator(nn.Module):
    """Images [n, colours, R, R] to scores [n]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        rows = sorted(shape.widths)
        self.from_rgb = nn.ModuleDict({str(rows[-1]): ScaledConv(shape.colours, shape.widths[rows[-1]], 1)})
        self.blocks = nn.ModuleDict(
            {str(r): Down(shape.widths[r], shape.widths[r // 2], shape.early_pool) for r in rows[1:]}
        )
        self.blocks["4"] = End(shape)
        self.act, self.rows = nn.LeakyReLU(0.2), rows

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        x = self.act(self.from_rgb[str(self.rows[-1])](images))
        for r in reversed(self.rows):
            x = self.blocks[str(r)](x)
        return x


class PlainLoop:
    """WGAN-GP with drift: a step of the discriminator, a step of the generator (Karras et al. 2017, appendix A.1).

    Args:
        shape: of both networks.
        images: the batch of every step, [n, colours, R, R] in [-1, 1].
        rate: Adam's learning rate.
        lap: is told what was just done: "discriminator", "generator" or "rest" (the average).
    """

    def __init__(self, shape: Shape, images: Tensor, rate: float, lap: Callable[[str], None]) -> None:
        self.generator = PlainGenerator(shape).to(images.device)
        self.discriminator = PlainDiscriminator(shape).to(images.device)
        self.average = copy.deepcopy(self.generator)
        self.images, self.latents, self.lap = images, shape.latents, lap
        self.d_optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=rate, betas=(0.0, 0.99))
        self.g_optimizer = torch.optim.Adam(self.generator.parameters(), lr=rate, betas=(0.0, 0.99))

    def discriminator_loss(self, z: Tensor, mixing: Tensor) -> Tensor:
        """Of latents [n, latents] and weights of the fakes in the penalty's images, [n, 1, 1, 1]."""
        real, fake = self.images, self.generator(z).detach()
        real_scores, fake_scores = self.discriminator(real), self.discriminator(fake)
        mixed = (mixing * fake + (1 - mixing) * real).requires_grad_(True)
        scores = self.discriminator(mixed)
        (gradient,) = torch.autograd.grad(scores, mixed, torch.ones_like(scores), create_graph=True, retain_graph=True)
        penalty = ((gradient.view(len(real), -1).norm(2, dim=1) - 1) ** 2).mean()
        return fake_scores.mean() - real_scores.mean() + 10 * penalty + 0.001 * (real_scores**2).mean()

    def generator_loss(self, z: Tensor) -> Tensor:
        """Of latents [n, latents]."""
        return -self.discriminator(self.generator(z)).mean()

    def play(self) -> None:
        """One step of both."""
        n, device = len(self.images), self.images.device
        loss = self.discriminator_loss(
            torch.randn(n, self.latents, device=device), torch.rand(n, 1, 1, 1, device=device)
        )
        self.d_optimizer.zero_grad()
        loss.backward()
        self.d_optimizer.step()
        self.lap("discriminator")
        with torch.no_grad():
            for p_ema, p in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                p_ema.lerp_(p, 1 - 0.999)
        self.lap("rest")
        loss = self.generator_loss(torch.randn(n, self.latents, device=device))
        self.g_optimizer.zero_grad()
        loss.backward()
        self.g_optimizer.step()
        self.lap("generator")
