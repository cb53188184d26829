"""Settings of the class-conditional GAN; the defaults are those of Miyato & Koyama 2018 for CIFAR-10."""

from __future__ import annotations

from typing import Literal

from advgen.ema import ConstantDecay, DecayRule
from advgen.losses.config import LossName, PenaltyConfig
from advgen.nn.augment_config import AugmentConfig, NoAugment
from advgen.optim import Adam
from advgen.strict_config import configuration


@configuration
class CGanConfig(PenaltyConfig):
    """Class-conditional GAN: labels go into the generator and into the discriminator.

    ``architecture: resnet`` is the recipe of Miyato & Koyama 2018 (residual blocks, conditional batch normalisation,
    projection discriminator, hinge loss), ``architecture: mlp`` the form of Mirza & Osindero 2014.
    """

    kind: Literal["cgan"] = "cgan"
    architecture: Literal["resnet", "mlp"] = "resnet"
    """Residual convolutional networks, or the perceptrons with maxout of 2014."""
    conditioning: Literal["projection", "concat"] = "projection"
    """resnet: the discriminator takes the inner product of the label's embedding with the features, or joins an
    embedding to the features of its third block."""
    width: int = 64
    """resnet: the unit of the channels. Up to 32 pixels the generator has 4 units everywhere and the discriminator 2;
    above, both go from 1 unit at the image to 16 at the coarsest features."""
    discriminator_width: int | None = None
    """resnet: the unit of the discriminator's channels; null for ``width``."""
    latent_size: int | None = None
    """Size of the latent vector; null for the paper's: 128 from N(0, 1) (resnet), 100 from U[0, 1) (mlp)."""
    dropout: float = 0.5
    """mlp: probability with which a hidden unit is left out in training; 0 for none."""
    loss: LossName | None = None
    """The adversarial loss; null for the paper's: hinge (resnet), non_saturating (mlp)."""
    spectral_norm: bool = True
    """resnet: the discriminator's weights are divided by their largest singular values (Miyato et al. 2018)."""
    augment: AugmentConfig = NoAugment()
    """What the discriminator sees of real and generated images instead of them; for sets of few thousand images."""
    optimizer: Adam = Adam(betas=(0.0, 0.9))
    """Of both networks."""
    learning_rate: float = 2e-4
    """Of both networks."""
    rampdown_kimg: float = 0.0
    """The learning rates fall linearly over the last so many kimg of the run."""
    batch_size: int = 64
    """Global batch."""
    total_kimg: float = 3200.0
    """Length of the run in thousands of images: batches of the generator's updates."""
    critic_repeats: int = 5
    """Updates of the discriminator for each one of the generator, each on a fresh batch."""
    average: DecayRule = ConstantDecay()
    """Moving average of the generator."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "batch_size", "critic_repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("latent_size", "discriminator_width"):
            if (size := getattr(self, name)) is not None and size < 1:
                raise ValueError(f"{name} must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError("dropout must lie in [0, 1)")
        if self.learning_rate <= 0 or self.total_kimg <= 0 or self.rampdown_kimg < 0:
            raise ValueError("learning_rate and total_kimg must be positive, rampdown_kimg at least 0")

    @property
    def latents(self) -> int:
        """Size of the latent vector."""
        return self.latent_size or (128 if self.architecture == "resnet" else 100)

    @property
    def critic_width(self) -> int:
        """The unit of the discriminator's channels."""
        return self.discriminator_width or self.width

    @property
    def adversarial(self) -> LossName:
        """Name of the adversarial loss."""
        return self.loss or ("hinge" if self.architecture == "resnet" else "non_saturating")
