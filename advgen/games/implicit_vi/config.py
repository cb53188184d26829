"""Settings of variational inference with an implicit encoder (Huszar 2017)."""

from __future__ import annotations

from typing import Literal

from advgen.ema import ConstantDecay, DecayRule
from advgen.optim import Adam
from advgen.strict_config import configuration


@configuration
class ImplicitViConfig:
    """Inference in a model that is written down, by an encoder q(z | x) that can be drawn from but has no density.

    ``contrast`` and ``estimator`` together name the four methods of Huszar 2017: PC-Adv, JC-Adv, PC-Den, JC-Den.
    """

    kind: Literal["implicit_vi"] = "implicit_vi"
    model: Literal["linear_gaussian", "sprinkler"] = "sprinkler"
    """The generative model p(z) p(x | z), of advgen.likelihood.models; nothing of it is learned."""
    contrast: Literal["prior", "joint"] = "prior"
    """q(z | x) is compared with p(z), and log p(x | z) added; or the joint q(z | x) p0(x) with p(x, z), p0 being the
    data's distribution, which asks for samples of the model only."""
    estimator: Literal["adversarial", "denoising"] = "adversarial"
    """A classifier learns the log-ratio of the two densities, or denoisers learn the gradients of their logarithms."""
    denoising_deviation: float = 0.2
    """denoising: deviation of the noise, as a share of the prior's; the gradients are those of densities so blurred."""
    noise_size: int = 4
    """How many numbers from N(0, 1) the encoder takes beside x."""
    hidden: int = 64
    """Units of each hidden layer of all networks."""
    layers: int = 3
    """Hidden layers of all networks."""
    opponent_steps: int = 3
    """Updates of the classifier or the denoisers before each of the encoder; each takes a fresh batch."""
    optimizer: Adam = Adam(betas=(0.5, 0.999))
    """Of both players."""
    learning_rate: float = 1e-3
    """Of the encoder."""
    opponent_learning_rate: float = 1e-3
    """Of the classifier or the denoisers."""
    rampdown_kimg: float = 0.0
    """Both rates fall linearly to 0 over the last so many thousands of points."""
    batch_size: int = 256
    """Global batch."""
    total_kimg: float = 5000.0
    """Length of the run in thousands of points, as the encoder sees them."""
    average: DecayRule = ConstantDecay()
    """Moving average of the encoder."""

    def __post_init__(self) -> None:
        if min(self.noise_size, self.hidden, self.layers, self.opponent_steps, self.batch_size) < 1:
            raise ValueError("noise_size, hidden, layers, opponent_steps and batch_size must be at least 1")
        if min(self.denoising_deviation, self.learning_rate, self.opponent_learning_rate, self.total_kimg) <= 0:
            raise ValueError("denoising_deviation, the learning rates and total_kimg must be positive")
        if self.rampdown_kimg < 0:
            raise ValueError("rampdown_kimg must not be negative")
