"""Draws from the priors of codes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from advgen.games.aae.config import GaussianPrior, MixturePrior, Prior
from advgen.seeds import Noise


def draw(
    prior: Prior, size: int, noise: Noise, labels: Tensor | None = None, classes: int = 0, purpose: str = "prior"
) -> Tensor:
    """Codes of a prior, [n, size], one a noise row.

    Args:
        prior: which.
        size: of a code.
        noise: rows.
        labels: int64 [n], below ``classes``: each code is of its label's component or stretch. None: of any.
        classes: that the prior is shared out among.
        purpose: of the noise.
    """
    normal = noise.normal(purpose, size)
    if isinstance(prior, GaussianPrior):
        return prior.deviation * normal
    # float64: an angle of float32 would be off by more on one kind of device than on another
    share = noise.uniform(f"{purpose} place").double()
    if isinstance(prior, MixturePrior):
        component = (share * prior.components).floor() if labels is None else labels.double()
        angle = 2 * math.pi / prior.components * component
        along, across = (deviation * column for deviation, column in zip(prior.deviations, normal.T, strict=True))
        along = prior.distance + along
        points = (along * angle.cos() - across * angle.sin(), along * angle.sin() + across * angle.cos())
        return torch.stack(points, dim=1).to(normal.dtype)
    if labels is not None:
        share = (labels + share) / classes
    way = share.sqrt()  # a turn further out is longer, and has more points
    angle = 2 * math.pi * prior.turns * way
    points = prior.radius * way[:, None] * torch.stack((angle.cos(), angle.sin()), dim=1)
    return (points + prior.deviation * normal).to(normal.dtype)
