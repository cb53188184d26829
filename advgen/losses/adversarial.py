"""Adversarial losses: functions of logits or critic scores [n], each a mean over the batch (0-d, float32)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def logistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """-E log sigmoid(D(x)) - E log(1 - sigmoid(D(G(z)))) (Goodfellow et al. 2014, eq. 1)."""
    return F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean()


def logistic_generator(fake: Tensor) -> Tensor:
    """-E log sigmoid(D(G(z))), the non-saturating form (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake.float()).mean()


def wasserstein_critic(real: Tensor, fake: Tensor) -> Tensor:
    """E D(G(z)) - E D(x) (Arjovsky et al. 2017, eq. 2)."""
    return fake.float().mean() - real.float().mean()


def wasserstein_generator(fake: Tensor) -> Tensor:
    """-E D(G(z))."""
    return -fake.float().mean()
