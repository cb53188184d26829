"""What a decoder's outputs say of data: p(x | z) as a density or a probability, not as a distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen.likelihood.models import log_normal
from advgen.precision import at_least_float32
from advgen.seeds import Noise


class Observation(Protocol):
    """A likelihood of data, given what a decoder puts out."""

    def observed(self, images: Tensor, noise: Noise | None) -> Tensor:
        """What the likelihood is of: the images themselves, or pixels that were made black or white; [n, ...].

        Without noise nothing is drawn: a pixel is white where its grey is above 1/2.
        """
        ...

    def log_probability(self, observed: Tensor, outputs: Tensor) -> Tensor:
        """log p(x | z) in nats, summed over a sample's values: [n]."""
        ...

    def draw(self, outputs: Tensor, noise: Noise) -> Tensor:
        """x of p(x | z), as :meth:`observed` gives it."""
        ...

    def images(self, outputs: Tensor) -> Tensor:
        """The mean of p(x | z) in the range of the data."""
        ...


@dataclass(frozen=True)
class Bernoulli:
    """Black and white pixels; the decoder puts out logits.

    Attributes:
        binarization: how a grey g in [0, 1] becomes black or white: white with probability g, drawn anew each time
            (Salakhutdinov & Murray 2008), or where g > 1/2.
    """

    binarization: Literal["stochastic", "threshold"]

    def observed(self, images: Tensor, noise: Noise | None) -> Tensor:
        """Images in [-1, 1] to 0 and 1, of the same shape."""
        grey = (images + 1) / 2
        if self.binarization == "threshold" or noise is None:
            return (grey > 0.5).to(images.dtype)
        return (noise.uniform("binarization", *images.shape[1:]) < grey).to(images.dtype)

    def log_probability(self, observed: Tensor, outputs: Tensor) -> Tensor:
        """-cross-entropy of the pixels, summed."""
        wide = at_least_float32(outputs)
        return (
            -F.binary_cross_entropy_with_logits(wide, observed.to(wide.dtype), reduction="none").flatten(1).sum(dim=1)
        )

    def draw(self, outputs: Tensor, noise: Noise) -> Tensor:
        """0 and 1."""
        return (noise.uniform("observation", *outputs.shape[1:]) < torch.sigmoid(outputs)).to(outputs.dtype)

    def images(self, outputs: Tensor) -> Tensor:
        """Probabilities as greys in [-1, 1]."""
        return 2 * torch.sigmoid(outputs) - 1


@dataclass(frozen=True)
class Gaussian:
    """Values with independent Gaussian errors; the decoder puts out means.

    The density is one over values as the data give them: for bytes it can exceed 1, and figures compare only with
    figures of the same range and deviation.

    Attributes:
        deviation: of the errors, in units of the data (images: [-1, 1]).
    """

    deviation: float

    def observed(self, images: Tensor, noise: Noise | None) -> Tensor:
        """The images themselves."""
        return images

    def log_probability(self, observed: Tensor, outputs: Tensor) -> Tensor:
        """log N(x; outputs, deviation^2), summed."""
        wide = at_least_float32(outputs)
        return log_normal(observed.to(wide.dtype), wide, self.deviation)

    def draw(self, outputs: Tensor, noise: Noise) -> Tensor:
        """Outputs and errors."""
        return outputs + self.deviation * noise.normal("observation", *outputs.shape[1:])

    def images(self, outputs: Tensor) -> Tensor:
        """The means."""
        return outputs
