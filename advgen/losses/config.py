"""Names of losses and settings of penalties, for the games' configurations. Torch is not imported here."""

from __future__ import annotations

from typing import Literal

from advgen.strict_config import configuration

LossName = Literal["saturating", "non_saturating", "lsgan", "hinge", "wgan", "relativistic"]
"""Keys of :data:`advgen.losses.adversarial.LOSSES`."""

RatioLossName = Literal["logistic", "exponential", "lsif", "kliep"]
"""Keys of :data:`advgen.losses.ratio.RATIO_LOSSES`."""


@configuration
class PenaltyConfig:
    """Penalties on a discriminator; all are off by default."""

    r1_gamma: float = 0.0
    """Weight of R1: gamma / 2 times the mean squared gradient norm at real images; 0 for none."""
    r1_every: int = 1
    """R1 is taken at every so many steps, its weight multiplied by them."""
    r2_gamma: float = 0.0
    """Weight of R2: gamma / 2 times the mean squared gradient norm at generated images; 0 for none."""
    r2_every: int = 1
    """R2 is taken at every so many steps, its weight multiplied by them."""
    gp_weight: float = 0.0
    """Weight of the gradient penalty between real and generated images (WGAN-GP: 10); 0 for none."""
    gp_target: float = 1.0
    """Gradient norm that it asks for; it is divided by the target's square."""
    drift: float = 0.0
    """Weight of the mean squared score of real images."""

    def __post_init__(self) -> None:
        if self.r1_every < 1 or self.r2_every < 1:
            raise ValueError("r1_every and r2_every must be at least 1")
        if min(self.r1_gamma, self.r2_gamma, self.gp_weight, self.drift) < 0:
            raise ValueError("r1_gamma, r2_gamma, gp_weight and drift must be at least 0")
        if self.gp_target <= 0:
            raise ValueError("gp_target must be positive")
