"""Adversarial losses: functions of logits or critic scores [n], each a mean over the batch (0-d, float32 at least).

A game chooses a pair by its name in :data:`LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from advgen.precision import at_least_float32


@dataclass(frozen=True)
class AdversarialLoss:
    """The losses of both players.

    Attributes:
        discriminator: of scores at reals and at fakes.
        generator: of scores at fakes; those at reals, if it needs them.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor | None], Tensor]


def logistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-E log sigmoid(D(x)) - E log(1 - sigmoid(D(G(z)))) (Goodfellow et al. 2014, eq. 1)."""
    return F.softplus(-at_least_float32(real)).mean() + F.softplus(at_least_float32(fake)).mean()


def logistic_generator(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """-E log sigmoid(D(G(z))), the non-saturating form (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-at_least_float32(fake)).mean()


def wasserstein_critic(real: Tensor, fake: Tensor) -> Tensor:
    """E D(G(z)) - E D(x) (Arjovsky et al. 2017, eq. 2)."""
    return at_least_float32(fake).mean() - at_least_float32(real).mean()


def wasserstein_generator(fake: Tensor, real: Tensor | None = None) -> Tensor:
    """-E D(G(z)); the hinge loss has it too (Miyato et al. 2018, eq. 17)."""
    return -at_least_float32(fake).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))) (Lim & Ye 2017; Miyato et al. 2018, eq. 16)."""
    return F.relu(1.0 - at_least_float32(real)).mean() + F.relu(1.0 + at_least_float32(fake)).mean()


LOSSES = {
    "hinge": AdversarialLoss(hinge_discriminator, wasserstein_generator),
    "non_saturating": AdversarialLoss(logistic_discriminator, logistic_generator),
}
