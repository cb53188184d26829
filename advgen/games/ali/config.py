"""Settings of adversarially learned inference; the defaults are those of Dumoulin et al. 2016 for CIFAR-10."""

from __future__ import annotations

from typing import Literal

from advgen.ema import ConstantDecay, DecayRule
from advgen.optim import Adam
from advgen.strict_config import configuration

ArchitectureName = Literal["cifar10", "svhn", "celeba64", "mlp", "small"]


@configuration
class AliConfig:
    """Adversarially learned inference: an encoder beside the decoder, and a discriminator of pairs (image, latent).

    ``encoder: deterministic`` is the bidirectional GAN of Donahue et al. 2016.
    """

    kind: Literal["ali"] = "ali"
    encoder: Literal["gaussian", "deterministic"] = "gaussian"
    """Latents are drawn from N(mean, deviation^2) of the image, or are a function of it (BiGAN)."""
    architecture: ArchitectureName = "cifar10"
    """The paper's networks for 32 (cifar10, svhn) and 64 pixels (celeba64); perceptrons; small convolutional ones for
    any power of two from 8 on."""
    width: float = 1.0
    """All hidden widths are multiplied by it."""
    latent_size: int | None = None
    """Size of the latent vector, from N(0, 1); null for the architecture's: 64 (cifar10, small), 256 (svhn, celeba64),
    50 (mlp)."""
    dropout: float | None = None
    """Share of each discriminator layer's inputs that is left out; null for the architecture's, 0 for none."""
    batch_norm: bool = True
    """Layers are normalised where the architecture says so; false for none, as for points in the plane, whose places a
    batch's moments would blur."""
    initial_deviation: float | None = None
    """Of initial weights, which are normal; null for the architecture's: 0.01 (the paper's), 0.02 (mlp, small)."""
    conditional: bool = False
    """Labels go into all three networks."""
    log_odds_images: int = 500
    """Of so many images the decoder's last bias takes the log-odds of each pixel before the first step; 0 for none, as
    for points that are not bounded."""
    pair_gamma: float = 0.0
    """Weight of gamma / 2 times the discriminator's mean squared gradient with respect to pairs, at those of encoder
    and of decoder alike (R1 and R2 of Mescheder et al. 2018); 0, as in the paper, for none."""
    cycle_weight: float = 0.0
    """Weight, in the generator's loss, of the mean squared difference of pixels in [-1, 1] between an image and what
    the decoder makes of its latent: explicit cycle consistency (ALICE, Li et al. 2017, section 3.2); 0 for none. The
    discriminator alone bounds neither of the conditional entropies, so that reconstructions may be of anything."""
    optimizer: Adam = Adam(betas=(0.5, 0.999))
    """Of both players."""
    learning_rate: float = 1e-4
    """Of both players."""
    rampdown_kimg: float = 0.0
    """The rate falls linearly to 0 over the last so many kimg; the paper's does not."""
    batch_size: int = 100
    """Global batch."""
    total_kimg: float = 45.0 * 6475
    """Length of the run in thousands of images."""
    average: DecayRule = ConstantDecay()
    """Moving averages of encoder and decoder."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or (self.latent_size is not None and self.latent_size < 1):
            raise ValueError("batch_size and latent_size must be at least 1")
        if self.width <= 0 or self.learning_rate <= 0 or self.total_kimg <= 0:
            raise ValueError("width, learning_rate and total_kimg must be positive")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError("dropout must lie in [0, 1)")
        if self.initial_deviation is not None and self.initial_deviation <= 0:
            raise ValueError("initial_deviation must be positive")
        if min(self.log_odds_images, self.pair_gamma, self.cycle_weight, self.rampdown_kimg) < 0:
            raise ValueError("log_odds_images, pair_gamma, cycle_weight and rampdown_kimg must be at least 0")
