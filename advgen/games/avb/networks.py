"""Encoders that take noise, a decoder, and an adversary of pairs (image, latent) (Mescheder et al. 2017, appendix).

Rectifiers are exponential linear units in encoder and decoder, and leaky ones in the adversary, as in the paper's code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen.game import Across, ImageSpec
from advgen.games.avb.config import AvbConfig
from advgen.precision import at_least_float32
from advgen.seeds import Noise

_LEAST = 4  # pixels a side at which convolutions end
_LAYERS = 2  # fully connected hidden layers, of perceptrons


@dataclass(frozen=True)
class Encoded:
    """Samples of q(z | x).

    Attributes:
        z: [n, latents].
        mean, variance: of q(z | x), [n, latents], where they are known; None otherwise. They carry gradients where q is
            Gaussian, and none where they are moments over the batch.
    """

    z: Tensor
    mean: Tensor | None = None
    variance: Tensor | None = None


class Features(nn.Module):
    """Images or points to [n, outputs], with noise added to each hidden layer by a linear map where there is any."""

    def __init__(
        self, config: AvbConfig, spec: ImageSpec, hidden: int, noise: int = 0, leak: float | None = None
    ) -> None:
        super().__init__()
        self.noise, self._leak = noise, leak
        self.layers, units = nn.ModuleList(), list[int]()
        if config.architecture == "conv":
            side, maps = spec.resolution, spec.channels
            while side > _LEAST:
                units.append(min(config.channels << len(units), 128))
                self.layers.append(nn.Conv2d(maps, units[-1], 5, 2, 2))
                side, maps = side // 2, units[-1]
            self.outputs = maps * _LEAST**2
        else:
            inputs = spec.channels * spec.resolution**2
            for number in range(_LAYERS):
                units.append(hidden)
                self.layers.append(nn.Linear(hidden if number else inputs, hidden))
            self.outputs = hidden
        self.noises = nn.ModuleList(nn.Linear(noise, count, bias=False) if noise else nn.Identity() for count in units)

    def forward(self, images: Tensor, noise: Noise | None = None) -> Tensor:
        """[n, c, r, r] to [n, outputs]."""
        x = images if isinstance(self.layers[0], nn.Conv2d) else images.flatten(1)
        for number, (layer, added) in enumerate(zip(self.layers, self.noises, strict=True)):
            x = layer(x)
            if self.noise:
                assert noise is not None
                moved = added(noise.normal(f"layer {number}", self.noise))
                x = x + (moved[:, :, None, None] if x.ndim == 4 else moved)
            x = F.elu(x) if self._leak is None else F.leaky_relu(x, self._leak)
        return x.flatten(1)


class GaussianEncoder(nn.Module):
    """Mean and logarithm of the deviation, of the image."""

    def __init__(self, config: AvbConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.features = Features(config, spec, config.hidden)
        self.last = nn.Linear(self.features.outputs, 2 * config.latent_size)

    def forward(self, images: Tensor, noise: Noise, across: Across | None = None) -> Encoded:
        """A sample of N(mean, deviation^2), and its moments."""
        mean, log_deviation = at_least_float32(self.last(self.features(images))).chunk(2, dim=1)
        z = mean + log_deviation.exp() * noise.normal("encoder", mean.shape[1])
        return Encoded(z, mean, (2 * log_deviation).exp())


class InjectedEncoder(nn.Module):
    """Noise goes into each hidden layer; nothing is known of q but its samples."""

    def __init__(self, config: AvbConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.features = Features(config, spec, config.hidden, config.noise_size)
        self.last = nn.Linear(self.features.outputs, config.latent_size)

    def forward(self, images: Tensor, noise: Noise, across: Across | None = None) -> Encoded:
        """A sample."""
        return Encoded(at_least_float32(self.last(self.features(images, noise))))


Moments = tuple[Tensor, Tensor]


class BasisEncoder(nn.Module):
    """z = z0(x) + sum_i a_i(x) v_i(e_i), unit by unit, with independent noise e_i (section 4 and appendix).

    The mean of z is z0 + sum a_i E v_i and its variance sum a_i^2 Var v_i; the moments of v_i are those over the batch.
    """

    def __init__(self, config: AvbConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.count, self.latents, self.noise = config.basis, config.latent_size, config.noise_size
        self.features = Features(config, spec, config.hidden)
        self.last = nn.Linear(self.features.outputs, (1 + self.count) * self.latents)
        widths = [self.noise, *3 * [config.basis_hidden], self.latents]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise(widths):
            bound = 1 / math.sqrt(inputs)
            self.weights.append(nn.Parameter(torch.empty(self.count, inputs, outputs).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(self.count, 1, outputs).uniform_(-bound, bound)))

    def basis(self, noise: Noise) -> Tensor:
        """v_i of fresh noise: [n, basis, latents]."""
        v = noise.normal("encoder", self.count, self.noise).transpose(0, 1)
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            v = torch.baddbmm(bias, F.elu(v) if number else v, weight)
        return at_least_float32(v.transpose(0, 1))

    def moments(self, noise: Noise) -> Moments:
        """Mean and variance of v_i over the noise's rows, [basis, latents] each."""
        with torch.no_grad():
            variance, mean = torch.var_mean(self.basis(noise), dim=0, correction=0)
        return mean, variance

    def forward(
        self, images: Tensor, noise: Noise, across: Across | None = None, moments: Moments | None = None
    ) -> Encoded:
        """A sample and its moments, through which no gradient flows.

        Args:
            images: [n, c, r, r].
            noise: a row an image.
            across: takes the moments of v_i over the batch.
            moments: of v_i, known from elsewhere. Without either only z is given.
        """
        # In float32 at least: moments, and z less its mean, would lose all their digits where q is narrow.
        last = at_least_float32(self.last(self.features(images)))
        z0, heads = last.split((self.latents, self.count * self.latents), dim=1)
        a = F.elu(heads.unflatten(1, (self.count, self.latents)) - 5) + 1
        v = self.basis(noise)
        z = z0 + (a * v).sum(dim=1)
        if moments is not None:
            mean, variance = moments
        elif across is not None:
            variance, mean = torch.var_mean(across.gather(v.detach()), dim=0, correction=0)
        else:
            return Encoded(z)
        return Encoded(z, (z0 + (a * mean).sum(dim=1)).detach(), (a.square() * variance).sum(dim=1).detach())


class Decoder(nn.Module):
    """Latents to logits or means of images or points."""

    def __init__(self, config: AvbConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.shape = (spec.channels, spec.resolution, spec.resolution)
        self.layers = nn.ModuleList()
        if config.architecture == "conv":
            halvings = spec.resolution.bit_length() - _LEAST.bit_length()
            widths = [min(config.channels << number, 128) for number in reversed(range(halvings))]
            self.first = nn.Linear(config.latent_size, widths[0] * _LEAST**2)
            for inputs, outputs in zip(widths, [*widths[1:], spec.channels], strict=True):
                self.layers.append(nn.ConvTranspose2d(inputs, outputs, 5, 2, 2, output_padding=1))
        else:
            self.first = nn.Linear(config.latent_size, config.hidden)
            for number in range(_LAYERS):
                last = number == _LAYERS - 1
                self.layers.append(nn.Linear(config.hidden, math.prod(self.shape) if last else config.hidden))

    def forward(self, z: Tensor) -> Tensor:
        """[n, latents] to [n, c, r, r], of any range."""
        x = self.first(z)
        if isinstance(self.layers[0], nn.ConvTranspose2d):
            x = x.unflatten(1, (-1, _LEAST, _LEAST))
        for layer in self.layers:
            x = layer(F.elu(x))
        return x.reshape(-1, *self.shape)


class Adversary(nn.Module):
    """T(x, z), the log-ratio of q(z | x) and what it is told from.

    conv: <t(x), s(z)> + t1(x) + s1(z), as in the paper's code; mlp: a perceptron of both together, as the shape of
    q(z | x) changes with x. Against the prior z'z / 2 of z in units of the prior's deviation is added, as -log p(z) has
    this term.
    """

    def __init__(self, config: AvbConfig, spec: ImageSpec, prior_deviation: float) -> None:
        super().__init__()
        units = config.adversary_hidden
        self.inner = config.architecture == "conv"
        self.quadratic = 0.0 if config.adaptive_contrast else 0.5 / prior_deviation**2
        if self.inner:
            self.features = Features(config, spec, units, leak=0.1)
            self.of_images = nn.Linear(self.features.outputs, units + 1)
            widths = [config.latent_size, units, units]
        else:
            widths = [spec.channels * spec.resolution**2 + config.latent_size, *3 * [units]]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.last = nn.Linear(units, units + 1 if self.inner else 1)

    def forward(self, images: Tensor, z: Tensor) -> Tensor:
        """[n, c, r, r] and [n, latents] to [n]."""
        y = z if self.inner else torch.cat((images.flatten(1), z), dim=1)
        for layer in self.layers:
            y = F.leaky_relu(layer(y), 0.1)
        y = self.last(y)
        if self.inner:
            t = self.of_images(self.features(images))
            y = (t[:, :-1] * y[:, :-1]).sum(dim=1, keepdim=True) / math.sqrt(y.shape[1] - 1) + t[:, -1:] + y[:, -1:]
        return at_least_float32(y[:, 0]) + self.quadratic * at_least_float32(z).square().sum(dim=1)
