"""Settings of augmentation for small sets; importing this imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator

from advgen.strict_config import configuration

Policy = Literal["color", "translation", "cutout"]
Transform = Literal[
    "xflip",
    "rotate90",
    "xint",
    "scale",
    "rotate",
    "aniso",
    "xfrac",
    "brightness",
    "contrast",
    "lumaflip",
    "hue",
    "saturation",
]


@configuration
class NoAugment:
    """The discriminator sees images as they are."""

    kind: Literal["none"] = "none"


@configuration
class DiffAugment:
    """The same augmentation at every step, of real and generated images alike (Zhao et al. 2020)."""

    kind: Literal["diffaugment"] = "diffaugment"
    policy: tuple[Policy, ...] = ("color", "translation", "cutout")
    """What is done, in order: color (brightness, saturation, contrast), translation by an eighth at most, cutout of a
    half a side."""

    def __post_init__(self) -> None:
        if not self.policy or len(set(self.policy)) != len(self.policy):
            raise ValueError("policy must name at least one augmentation, and none twice; for none use kind: none")


@configuration
class AdaptiveAugmentConfig:
    """Each transform with a probability that follows how far the discriminator overfits (ADA, Karras et al. 2020)."""

    kind: Literal["ada"] = "ada"
    target: float = 0.6
    """The mean sign of the discriminator's scores of real images that is aimed at; above it the probability rises."""
    kimg: float = 500.0
    """The probability takes so many kimg, as the discriminator sees them, from 0 to 1."""
    interval: int = 4
    """The probability moves every so many batches of the discriminator."""
    transforms: tuple[Transform, ...] = (
        *("xflip", "rotate90", "xint"),
        *("scale", "rotate", "aniso", "xfrac"),
        *("brightness", "contrast", "lumaflip", "hue", "saturation"),
    )
    """What may be done, always in the paper's order; all twelve are its set bgc (pixel blitting, geometry, colour)."""

    def __post_init__(self) -> None:
        if not -1 < self.target < 1:
            raise ValueError("target must lie in (-1, 1)")
        if self.kimg <= 0 or self.interval < 1:
            raise ValueError("kimg must be positive and interval at least 1")
        if not self.transforms or len(set(self.transforms)) != len(self.transforms):
            raise ValueError("transforms must name at least one, and none twice; for none use kind: none")


AugmentConfig = Annotated[NoAugment | DiffAugment | AdaptiveAugmentConfig, Discriminator("kind")]
