"""Settings of the plain GAN at one resolution."""

from __future__ import annotations

from typing import Literal

from advgen.ema import ConstantDecay, DecayRule
from advgen.losses.config import LossName, PenaltyConfig
from advgen.nn.augment_config import AugmentConfig, NoAugment
from advgen.optim import Adam
from advgen.strict_config import configuration


@configuration
class GanConfig(PenaltyConfig):
    """Generative adversarial network (Goodfellow et al. 2014), with the non-saturating loss unless another is named.

    The defaults follow Mescheder et al. 2018: residual networks without normalisation, R1 at every step, a moving
    average of the generator. ``architecture: mlp`` with ``r1_gamma: 0`` is the form of 2014. ``loss: relativistic``
    with R1 and R2 is the loss of R3GAN (Huang et al. 2024).
    """

    kind: Literal["gan"] = "gan"
    architecture: Literal["resnet", "mlp"] = "resnet"
    """Residual convolutional networks, or perceptrons with two hidden layers."""
    latent_size: int = 256
    """Size of the latent vector, drawn from N(0, 1)."""
    width: int = 64
    """resnet: channels at the finest resolution; they double at each halving."""
    width_max: int = 512
    """resnet: most channels of any layer."""
    hidden: int = 1200
    """mlp: units of each hidden layer."""
    loss: LossName = "non_saturating"
    """The adversarial loss. wgan wants gp_weight, relativistic r1_gamma and r2_gamma, hinge spectral_norm."""
    r1_gamma: float = 10.0
    """Weight of R1: gamma / 2 times the mean squared gradient norm at real images; 0 for none."""
    spectral_norm: bool = False
    """The discriminator's weights are divided by their largest singular values (Miyato et al. 2018)."""
    augment: AugmentConfig = NoAugment()
    """What the discriminator sees of real and generated images instead of them; for sets of few thousand images."""
    optimizer: Adam = Adam()
    """Of both networks."""
    learning_rate: float = 1e-4
    """Of both networks."""
    rampdown_kimg: float = 0.0
    """The rate falls linearly to 0 over the last so many kimg."""
    batch_size: int = 64
    """Global batch."""
    total_kimg: float = 10_000.0
    """Length of the run in thousands of images."""
    critic_repeats: int = 1
    """Updates of the discriminator for each one of the generator (k in the paper), each on a fresh batch."""
    average: DecayRule = ConstantDecay()
    """Moving average of the generator."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("latent_size", "width", "width_max", "hidden", "batch_size", "critic_repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.learning_rate <= 0 or self.total_kimg <= 0 or self.rampdown_kimg < 0:
            raise ValueError("learning_rate and total_kimg must be positive, rampdown_kimg at least 0")
