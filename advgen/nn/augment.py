"""What a discriminator sees of an image, by the game's setting: the image, or an augmented one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from advgen.game import Context
from advgen.nn.ada import AdaptiveAugment
from advgen.nn.augment_config import AdaptiveAugmentConfig, AugmentConfig, DiffAugment
from advgen.nn.diffaugment import diffaugment


def augment_networks(config: AugmentConfig) -> dict[str, nn.Module]:
    """What a game adds to its networks: ADA's state, trained by nobody."""
    return {"augment": AdaptiveAugment(config)} if isinstance(config, AdaptiveAugmentConfig) else {}


def augmented(config: AugmentConfig, context: Context, images: Tensor, kind: str) -> Tensor:
    """Images [n, c, h, w] as the discriminator sees them; differentiable twice.

    Args:
        config: the game's setting.
        context: of the loss.
        images: in [-1, 1].
        kind: "real" or "fake"; each has random numbers of its own, the same at every call in a loss.
    """
    if isinstance(config, DiffAugment):
        return diffaugment(images, config.policy, context.noise, f"augment {kind}")
    if isinstance(config, AdaptiveAugmentConfig):
        return context.networks["augment"](images, context.noise, f"augment {kind}")
    return images


def adapt(networks: Mapping[str, nn.Module], context: Context, real_scores: Tensor) -> dict[str, Tensor]:
    """Let ADA's probability follow the discriminator; last in its loss. Returns the loss' own one, to be logged."""
    if "augment" not in networks:
        return {}
    augment = cast(AdaptiveAugment, networks["augment"])
    used = augment.p.clone()
    augment.observe(real_scores, context.across)
    augment.adjust(context.progress.phase.batch_size)
    return {"augment_p": used}
