"""Settings of the progressive GAN; the defaults are the paper's (Karras et al. 2017, appendix A.1, CelebA-HQ)."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Discriminator

from advgen.ema import ConstantDecay, DecayRule
from advgen.losses.config import LossName, PenaltyConfig
from advgen.optim import Adam
from advgen.strict_config import configuration


@configuration
class WganGp:
    """Wasserstein loss with gradient penalty and drift (the paper's)."""

    kind: Literal["wgan_gp"] = "wgan_gp"
    weight: float = 10.0
    """Lambda, the weight of the gradient penalty."""
    target: float = 1.0
    """Gradient norm that is asked for (CIFAR-10: 750); the penalty is divided by its square."""
    drift: float = 0.001
    """Weight of the mean squared score of real images."""
    norm_at: Literal["output", "current"] = "output"
    """Where gradient norms are taken: with respect to the image enlarged to the output's resolution, as the original
    code does while it grows (the norm is then smaller by current / output), or at the current resolution."""

    def __post_init__(self) -> None:
        if self.weight < 0 or self.drift < 0 or self.target <= 0:
            raise ValueError("weight and drift must be at least 0, target positive")

    @property
    def name(self) -> LossName:
        """Of the adversarial loss."""
        return "wgan"

    def penalties_at(self, resolution: int) -> PenaltyConfig:
        """The penalties, the same at every resolution."""
        return PenaltyConfig(gp_weight=self.weight, gp_target=self.target, drift=self.drift)


@configuration
class ZeroCentred:
    """Another loss, with R1 on real and R2 on generated images at every so many steps."""

    kind: Literal["non_saturating", "hinge", "lsgan", "relativistic"] = "non_saturating"
    """Which; the first is the logistic loss in its non-saturating form, the last that of R3GAN."""
    r1_gamma: float = 10.0
    """Weight of R1: gamma / 2 times the mean squared gradient norm; 0 for none."""
    r1_gamma_by_resolution: dict[int, float] = field(default_factory=dict)
    """Other weights at some resolutions."""
    r1_every: int = 16
    """R1 is taken at every so many steps, its weight multiplied by them."""
    r2_gamma: float = 0.0
    """Weight of R2, the same at generated images, at all resolutions; 0 for none."""
    r2_every: int = 16
    """R2 is taken at every so many steps, its weight multiplied by them."""

    def __post_init__(self) -> None:
        if min(self.r1_every, self.r2_every) < 1:
            raise ValueError("r1_every and r2_every must be at least 1")
        if min(self.r1_gamma, *self.r1_gamma_by_resolution.values(), self.r2_gamma) < 0:
            raise ValueError("r1_gamma, r1_gamma_by_resolution and r2_gamma must be at least 0")

    @property
    def name(self) -> LossName:
        """Of the adversarial loss."""
        return self.kind

    def penalties_at(self, resolution: int) -> PenaltyConfig:
        """The penalties at ``resolution``."""
        r1_gamma = self.r1_gamma_by_resolution.get(resolution, self.r1_gamma)
        return PenaltyConfig(r1_gamma=r1_gamma, r1_every=self.r1_every, r2_gamma=self.r2_gamma, r2_every=self.r2_every)


@configuration
class ProganConfig:
    """Progressive growing of GANs."""

    kind: Literal["progan"] = "progan"
    latent_size: int | None = None
    """Size of the latent vector; null for the channels at 4x4, at most fmap_max."""
    fmap_base: int = 8192
    """Channels at resolution r are min(fmap_max, fmap_base / (r / 2)^fmap_decay)."""
    fmap_decay: float = 1.0
    """How fast channels fall with the resolution."""
    fmap_max: int = 512
    """Most channels of any layer."""
    channels: dict[int, int] = field(default_factory=dict)
    """Channels at some resolutions, instead of the rule's."""
    fused_downsampling: bool = False
    """The discriminator's mean over 2x2 pixels before bias and rectifier, in one strided convolution: a third less
    work. The paper has it after them; the authors' TensorFlow code fuses it by default."""
    minibatch_group: int | None = None
    """Samples in a group of the minibatch standard deviation; null for the whole global batch."""
    loss: Annotated[WganGp | ZeroCentred, Discriminator("kind")] = WganGp()
    """The adversarial loss."""
    conditioning: Literal["classifier", "projection"] = "classifier"
    """How the discriminator sees labels where the data have classes: it is an auxiliary classifier as well (AC-GAN,
    the original's), or its score has the inner product of the label's embedding with the last features in it."""
    label_weight: float = 1.0
    """classifier: weight of its cross-entropy in both players' losses."""
    optimizer: Adam = Adam()
    """Of both networks."""
    learning_rate: float = 0.001
    """Of both networks."""
    learning_rate_by_resolution: dict[int, float] = field(default_factory=dict)
    """Other learning rates at some resolutions."""
    generator_learning_rate_factor: float = 1.0
    """The generator's learning rate is that of the discriminator times this."""
    rampup_kimg: float = 40.0
    """The learning rates rise over the first so many kimg of the run."""
    rampdown_kimg: float = 0.0
    """The learning rates fall linearly over the last so many kimg of the run."""
    batch_size: int = 16
    """Global batch."""
    batch_size_by_resolution: dict[int, int] = field(default_factory=lambda: {256: 14, 512: 6, 1024: 3})
    """Other batches at some resolutions."""
    first_resolution: int = 4
    """Where growing begins."""
    stabilize_kimg: float = 800.0
    """Length of training at each resolution after its fade-in."""
    stabilize_kimg_by_resolution: dict[int, float] = field(default_factory=dict)
    """Other lengths at some resolutions."""
    fade_kimg: float = 800.0
    """Length of each fade-in."""
    fade_kimg_by_resolution: dict[int, float] = field(default_factory=dict)
    """Other lengths at some resolutions."""
    total_kimg: float | None = None
    """Length of the run, reached by a longer last phase; null for the sum of the phases."""
    reset_optimizers: bool = True
    """Adam begins anew at each fade's start and end."""
    critic_repeats: int = 1
    """Updates of the discriminator for each one of the generator, each on a fresh batch."""
    hold_steps: int = 4
    """Fade and learning rates are updated every so many steps (the original's minibatch_repeats)."""
    average: DecayRule = ConstantDecay()
    """Moving average of the generator, updated after each update of the discriminator."""

    def __post_init__(self) -> None:
        if self.first_resolution < 4 or self.first_resolution & (self.first_resolution - 1):
            raise ValueError("first_resolution must be a power of two of at least 4")
        if min(self.batch_size, *self.batch_size_by_resolution.values(), 1 << 30) < 1:
            raise ValueError("batch sizes must be at least 1")
        lengths = (*self.stabilize_kimg_by_resolution.values(), *self.fade_kimg_by_resolution.values())
        if min(self.stabilize_kimg, self.fade_kimg, *lengths) < 0:
            raise ValueError("lengths in kimg must not be negative")
        if (
            min(
                self.fmap_base, self.fmap_max, self.latent_size or 1, self.minibatch_group or 1, *self.channels.values()
            )
            < 1
        ):
            raise ValueError("channels, latent_size and minibatch_group must be at least 1")
        if self.critic_repeats < 1 or self.hold_steps < 1:
            raise ValueError("critic_repeats and hold_steps must be at least 1")
        if self.learning_rate <= 0:
            raise ValueError("learning_rate must be positive")

    def channels_at(self, resolution: int) -> int:
        """Channels of the layers at ``resolution``; 2 stands for the vector behind 4x4."""
        if resolution in self.channels:
            return self.channels[resolution]
        if resolution == 2 and 4 in self.channels:
            return self.channels[4]
        stage = resolution.bit_length() - 2
        return min(int(self.fmap_base / 2.0 ** (stage * self.fmap_decay)), self.fmap_max)

    @property
    def latents(self) -> int:
        """Size of the latent vector."""
        return self.latent_size or self.channels_at(2)
