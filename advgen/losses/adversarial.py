"""Adversarial losses: functions of logits or critic scores, each a mean over the batch (0-d, float32 at least).

Scores are [n], or [n, ...] where a critic judges patches; reals score high. Every loss is minimised by its player. A
game chooses a pair by its name in :data:`LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from advgen.losses.config import LossName
from advgen.precision import at_least_float32


@dataclass(frozen=True)
class AdversarialLoss:
    """The losses of both players.

    Attributes:
        name: in recipes.
        discriminator: of scores at reals and at fakes.
        generator: of scores at fakes and, where ``compares``, at reals; else the latter may be None.
        compares: whether the generator's loss needs scores at reals.
    """

    name: LossName
    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor | None], Tensor]
    compares: bool = False


def logistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-E log sigmoid(D(x)) - E log(1 - sigmoid(D(G(z)))) (Goodfellow et al. 2014, eq. 1)."""
    return F.softplus(-at_least_float32(real)).mean() + F.softplus(at_least_float32(fake)).mean()


def saturating_generator(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """E log(1 - sigmoid(D(G(z)))), flat where fakes are told apart (Goodfellow et al. 2014, eq. 1)."""
    return -F.softplus(at_least_float32(fake)).mean()


def logistic_generator(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """-E log sigmoid(D(G(z))), the non-saturating form (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-at_least_float32(fake)).mean()


def least_squares_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E (D(x) - 1)^2 / 2 + E D(G(z))^2 / 2 (Mao et al. 2017, eq. 9: targets 1 and 0)."""
    return ((at_least_float32(real) - 1).square().mean() + at_least_float32(fake).square().mean()) / 2


def least_squares_generator(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """E (D(G(z)) - 1)^2 / 2 (Mao et al. 2017, eq. 9). Codes that halve the discriminator's only have twice this."""
    return (at_least_float32(fake) - 1).square().mean() / 2


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))) (Lim & Ye 2017; Miyato et al. 2018, eq. 16)."""
    return F.relu(1 - at_least_float32(real)).mean() + F.relu(1 + at_least_float32(fake)).mean()


def wasserstein_critic(real: Tensor, fake: Tensor) -> Tensor:
    """E D(G(z)) - E D(x) (Arjovsky et al. 2017, eq. 2)."""
    return at_least_float32(fake).mean() - at_least_float32(real).mean()


def wasserstein_generator(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """-E D(G(z)); the hinge loss has it too (Miyato et al. 2018, eq. 17)."""
    return -at_least_float32(fake).mean()


def relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-E log sigmoid(D(x) - D(G(z))) over pairs (Jolicoeur-Martineau 2018; Huang et al. 2024, eq. 2).

    Fake i is paired with real i. A batch cut into strided slices has the same pairs, so the mean is the same.
    """
    return F.softplus(at_least_float32(fake) - at_least_float32(real)).mean()


def relativistic_generator(fake: Tensor, real: Tensor | None) -> Tensor:
    """-E log sigmoid(D(G(z)) - D(x)) over the same pairs."""
    if real is None:
        raise ValueError("the relativistic loss needs scores at reals")
    return F.softplus(at_least_float32(real) - at_least_float32(fake)).mean()


LOSSES: dict[str, AdversarialLoss] = {
    loss.name: loss
    for loss in (
        AdversarialLoss("saturating", logistic_discriminator, saturating_generator),
        AdversarialLoss("non_saturating", logistic_discriminator, logistic_generator),
        AdversarialLoss("lsgan", least_squares_discriminator, least_squares_generator),
        AdversarialLoss("hinge", hinge_discriminator, wasserstein_generator),
        AdversarialLoss("wgan", wasserstein_critic, wasserstein_generator),
        AdversarialLoss("relativistic", relativistic_discriminator, relativistic_generator, compares=True),
    )
}
