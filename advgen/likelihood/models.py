"""Generative models p(z) p(x | z) that are written down, not learned: inference on them has a known answer.

Latents and observations are rows, [n, latents] and [n, observed]; log-densities are [n], in nats. The prior of both
models is a centred Gaussian with independent coordinates. Their numbers are those of the sets of points that are drawn
from them (``data.points``).
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from advgen.likelihood.constants import LINEAR_BIAS, LINEAR_SIGMA, LINEAR_WEIGHTS, SPRINKLER_BASE, SPRINKLER_VARIANCE
from advgen.seeds import Noise

LOG_2_PI = math.log(2 * math.pi)


class GenerativeModel(Protocol):
    """A prior N(0, deviation^2 I) and a likelihood without parameters.

    Attributes:
        latents, observed: sizes of z and x.
        deviation: of the prior, in each coordinate.
    """

    latents: int
    observed: int
    deviation: float

    def mean(self, z: Tensor) -> Tensor:
        """E[x | z], [n, observed]."""
        ...

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z), [n]; differentiable in both."""
        ...

    def observe(self, z: Tensor, noise: Noise) -> Tensor:
        """x of p(x | z), one a row of z and of the noise."""
        ...

    def tamed(self, x: Tensor) -> Tensor:
        """What a network should be shown of x: without a long tail."""
        ...


def log_normal(z: Tensor, mean: Tensor | float = 0.0, deviation: Tensor | float = 1.0) -> Tensor:
    """Log-density of independent Gaussians, summed over all axes but the first: [n].

    Args:
        z: [n, ...].
        mean, deviation: numbers, or what broadcasts with z.
    """
    logarithm = deviation.log() if isinstance(deviation, Tensor) else math.log(deviation)
    terms = -0.5 * (((z - mean) / deviation).square() + LOG_2_PI) - logarithm
    return terms.flatten(1).sum(dim=1)


class LinearGaussian:
    """x = W z + b + s e with z in two and x in three dimensions, e and z from N(0, I)."""

    latents, observed, deviation = 2, 3, 1.0
    weight, bias, noise_deviation = LINEAR_WEIGHTS, LINEAR_BIAS, LINEAR_SIGMA
    """W, row by row; b; s."""

    def _parts(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return like.new_tensor(self.weight), like.new_tensor(self.bias)

    def mean(self, z: Tensor) -> Tensor:
        """W z + b."""
        # Numbers, as a tensor of them would have to be copied to z's device.
        rows = zip(self.weight, self.bias, strict=True)
        return torch.stack([a * z[:, 0] + b * z[:, 1] + c for (a, b), c in rows], dim=1)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log N(x; W z + b, s^2 I)."""
        return log_normal(x, self.mean(z), self.noise_deviation)

    def observe(self, z: Tensor, noise: Noise) -> Tensor:
        """W z + b + s e."""
        return self.mean(z) + self.noise_deviation * noise.normal("observation", self.observed)

    def tamed(self, x: Tensor) -> Tensor:
        """x itself."""
        return x

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean [n, 2] and covariance [2, 2] of p(z | x) (Bishop 2006, eq. 2.116)."""
        weight, bias = self._parts(x)
        precision = torch.eye(2, dtype=x.dtype, device=x.device) + weight.T @ weight / self.noise_deviation**2
        covariance = torch.linalg.inv(precision)
        return (x - bias) @ weight @ covariance / self.noise_deviation**2, covariance

    def log_evidence(self, x: Tensor) -> Tensor:
        """log N(x; b, W W' + s^2 I), [n] (Bishop 2006, eq. 2.115)."""
        weight, bias = self._parts(x)
        covariance = weight @ weight.T + self.noise_deviation**2 * torch.eye(3, dtype=x.dtype, device=x.device)
        return torch.distributions.MultivariateNormal(bias, covariance).log_prob(x)


class Sprinkler:
    """Two causes for one effect: the mean of x is 3 + max(0, z1)^3 + max(0, z2)^3 (Huszar 2017).

    x is exponential; z1 and z2 have variance 2. A large x has two explanations, so its posterior has two arms.
    """

    latents, observed, deviation = 2, 1, math.sqrt(SPRINKLER_VARIANCE)

    def mean(self, z: Tensor) -> Tensor:
        """3 + max(0, z1)^3 + max(0, z2)^3."""
        return SPRINKLER_BASE + z.clamp_min(0).pow(3).sum(dim=1, keepdim=True)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """-log m - x / m, m being the mean; x must not be negative."""
        mean = self.mean(z)[:, 0]
        return -mean.log() - x.flatten(1)[:, 0] / mean

    def observe(self, z: Tensor, noise: Noise) -> Tensor:
        """-m log(1 - u)."""
        return -self.mean(z) * torch.log1p(-noise.uniform("observation", 1))

    def tamed(self, x: Tensor) -> Tensor:
        """log(1 + x)."""
        return x.log1p()


MODELS: dict[str, type[LinearGaussian] | type[Sprinkler]] = {
    "linear_gaussian": LinearGaussian,
    "sprinkler": Sprinkler,
}
"""By name."""
