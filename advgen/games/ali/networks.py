"""Encoder, decoder and the discriminator of pairs, from an :class:`Architecture`.

Images inside are in [0, 1]; points that are not bounded are taken and given as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen.game import Across, ImageSpec
from advgen.games.ali.architectures import Architecture, Layer, Layers
from advgen.nn.batch_norm import BatchNorm
from advgen.nn.dropout import dropout_mask
from advgen.nn.initialization import initialize_convolutions
from advgen.nn.pointwise import PointwiseConv2d
from advgen.seeds import Noise


def dropped(x: Tensor, rate: float, noise: Noise | None, purpose: str) -> Tensor:
    """``x`` with inputs left out with probability ``rate``, the others divided by 1 - rate.

    Args:
        x: [k * n, ...], k batches one after the other.
        rate: probability.
        noise: of n rows; None for no dropout.
        purpose: of the noise.
    """
    if noise is None or rate == 0:
        return x
    batches = len(x) // len(noise.positions)
    return x * dropout_mask(noise, purpose, rate, batches, *x.shape[1:]).transpose(0, 1).flatten(0, 1).to(x.dtype)


class Block(nn.Module):
    """Dropout, convolution, batch normalisation, and a leaky rectifier or maxout (Goodfellow et al. 2013)."""

    def __init__(self, inputs: int, layer: Layer, leak: float, pieces: int) -> None:
        super().__init__()
        self.conv = _convolution(inputs, layer)
        self.norm = BatchNorm(layer.maps, momentum=0.05) if layer.norm else None
        self.dropout, self.leak, self.pieces = layer.dropout, leak, pieces

    def forward(self, x: Tensor, across: Across | None, noise: Noise | None = None, purpose: str = "") -> Tensor:
        """[n, inputs, h, w] to [n, maps / pieces, h', w']; the pieces of a map are neighbours."""
        x = self.conv(dropped(x, self.dropout, noise, purpose))
        if self.norm is not None:
            x = self.norm(x, across)
        if self.pieces > 1:
            return x.unflatten(1, (-1, self.pieces)).amax(dim=2)
        return F.leaky_relu(x, self.leak)


def _convolution(inputs: int, layer: Layer) -> nn.Module:
    biased = not layer.norm  # normalisation takes a bias out again
    if (layer.kernel, layer.stride, layer.padding, layer.up) == (1, 1, 0, False):
        return PointwiseConv2d(inputs, layer.maps, biased)
    conv = nn.ConvTranspose2d if layer.up else nn.Conv2d
    return conv(inputs, layer.maps, layer.kernel, layer.stride, padding=layer.padding, bias=biased)


class Stack(nn.Module):
    """Blocks one after the other; ``outputs`` are the last one's channels."""

    def __init__(self, inputs: int, layers: Layers, leak: float, pieces: int = 1) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for layer in layers:
            self.blocks.append(Block(inputs, layer, leak, pieces))
            inputs = layer.maps // pieces
        self.outputs = inputs

    def forward(self, x: Tensor, across: Across | None, noise: Noise | None = None, purpose: str = "") -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h', w']."""
        for number, block in enumerate(self.blocks):
            x = block(x, across, noise, f"{purpose} {number}")
        return x


def with_labels(x: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """[n, c, 1, 1] with a channel for each class behind; with the next 1x1 layer that is a linear embedding."""
    if not classes:
        return x
    assert labels is not None, "the game has seen to it"
    return torch.cat((x, F.one_hot(labels, classes).to(x.dtype)[:, :, None, None]), dim=1)


def unit(images: Tensor, flat: bool, bounded: bool) -> Tensor:
    """[n, c, r, r] in [-1, 1] to [0, 1], or unchanged where not bounded; flat: as [n, c * r * r, 1, 1]."""
    x = (images + 1) / 2 if bounded else images
    return x.flatten(1)[:, :, None, None] if flat else x


class Encoder(nn.Module):
    """Images to means of latents, and their logarithmic deviations where it is Gaussian."""

    def __init__(self, architecture: Architecture, spec: ImageSpec, classes: int, gaussian: bool) -> None:
        super().__init__()
        self.classes, self.gaussian, self.flat = classes, gaussian, architecture.resolution == 0
        self.bounded = spec.bounded
        channels = spec.channels * (spec.resolution**2 if self.flat else 1)
        self.stack = Stack(channels, architecture.encoder, architecture.leak)
        self.last = PointwiseConv2d(self.stack.outputs + classes, architecture.latents * (2 if gaussian else 1))
        initialize_convolutions(self, architecture.deviation)

    def forward(
        self, images: Tensor, epsilon: Tensor | None, labels: Tensor | None = None, across: Across | None = None
    ) -> Tensor:
        """[n, c, r, r] in [-1, 1] to [n, latents]: mean + exp(log deviation) * epsilon.

        Args:
            images: real ones.
            epsilon: [n, latents] from N(0, 1); None for the mean.
            labels: int64 [n], where the game is conditional.
            across: takes moments over the batch; None for running statistics.
        """
        x = self.stack(unit(images, self.flat, self.bounded), across)
        x = self.last(with_labels(x, labels, self.classes)).flatten(1)
        if not self.gaussian:
            return x
        mean, log_deviation = x.chunk(2, dim=1)
        return mean if epsilon is None else mean + log_deviation.exp() * epsilon

    def features(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """[n, c, r, r] to [n, k]: the last three hidden layers, flattened, and what the last layer puts out.

        Those of the probe in Dumoulin et al. 2016, by the running statistics.
        """
        kept, x = list[Tensor](), unit(images, self.flat, self.bounded)
        for block in self.stack.blocks:
            x = block(x, None)
            kept.append(x.flatten(1))
        last = self.last(with_labels(x, labels, self.classes)).flatten(1)
        return torch.cat((*kept[-3:], last), dim=1)


class Decoder(nn.Module):
    """Latents to images; the last layer has a bias for every pixel."""

    def __init__(self, architecture: Architecture, spec: ImageSpec, classes: int) -> None:
        super().__init__()
        self.classes, self.shape = classes, (spec.channels, spec.resolution, spec.resolution)
        self.bounded = spec.bounded
        flat = architecture.resolution == 0
        self.stack = Stack(architecture.latents + classes, architecture.decoder, architecture.leak)
        channels = spec.channels * (spec.resolution**2 if flat else 1)
        self.last = PointwiseConv2d(self.stack.outputs, channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(self.shape))
        initialize_convolutions(self, architecture.deviation)

    def forward(self, z: Tensor, labels: Tensor | None = None, across: Across | None = None) -> Tensor:
        """[n, latents] to [n, c, r, r] in [-1, 1]: 2 sigmoid(a) - 1; a itself where not bounded."""
        x = self.stack(with_labels(z[:, :, None, None], labels, self.classes), across)
        a = self.last(x).reshape(-1, *self.shape) + self.bias
        return 2 * torch.sigmoid(a) - 1 if self.bounded else a


class Discriminator(nn.Module):
    """Pairs of images and latents to logits, high where the latent was made of the image."""

    def __init__(self, architecture: Architecture, spec: ImageSpec, classes: int) -> None:
        super().__init__()
        self.classes, self.flat, self.dropout = classes, architecture.resolution == 0, architecture.dropout_last
        self.bounded = spec.bounded
        leak, pieces = architecture.leak, architecture.pieces
        channels = spec.channels * (spec.resolution**2 if self.flat else 1)
        self.images = Stack(channels, architecture.images, leak, pieces)
        self.latent = Stack(architecture.latents, architecture.latent, leak, pieces)
        joined = self.images.outputs + self.latent.outputs + classes
        self.joint = Stack(joined, architecture.joint, leak, pieces)
        self.last = PointwiseConv2d(self.joint.outputs, 1)
        initialize_convolutions(self, architecture.deviation)

    def forward(
        self,
        images: Tensor,
        latents: Tensor,
        labels: Tensor | None = None,
        across: Across | None = None,
        noise: Noise | None = None,
    ) -> Tensor:
        """[k n, c, r, r], [k n, latents] and int64 [k n] to [k n]; moments are those of all k batches together.

        Args:
            images, latents, labels: k batches one after the other.
            across: takes moments over the batches; None for running statistics.
            noise: of dropout, n rows; None for none.
        """
        x = self.images(unit(images, self.flat, self.bounded), across, noise, "image")
        z = self.latent(latents[:, :, None, None], across, noise, "latent")
        joined = with_labels(torch.cat((x, z), dim=1), labels, self.classes)
        y = self.joint(joined, across, noise, "joint")
        return self.last(dropped(y, self.dropout, noise, "last")).flatten()
