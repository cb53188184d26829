"""Adversarial losses in numpy, float64, written from the papers' formulae and from no code of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Scores = np.ndarray[Any, np.dtype[np.float64]]
Pair = tuple[Callable[[Scores, Scores], float], Callable[[Scores, Scores], float]]


def sigmoid(t: Scores) -> Scores:
    return 1 / (1 + np.exp(-t))


def logistic(real: Scores, fake: Scores) -> float:
    """-E log D(x) - E log(1 - D(G(z))), Goodfellow et al. 2014."""
    return float(-np.log(sigmoid(real)).mean() - np.log(1 - sigmoid(fake)).mean())


def hinge(real: Scores, fake: Scores) -> float:
    """-E min(0, D(x) - 1) - E min(0, -D(G(z)) - 1), Miyato et al. 2018."""
    return float(-np.minimum(0, real - 1).mean() - np.minimum(0, -fake - 1).mean())


# By name: the discriminator's and the generator's loss, each of (scores at reals, scores at fakes).
REFERENCE: dict[str, Pair] = {
    "saturating": (logistic, lambda real, fake: float(np.log(1 - sigmoid(fake)).mean())),
    "non_saturating": (logistic, lambda real, fake: float(-np.log(sigmoid(fake)).mean())),
    "lsgan": (
        lambda real, fake: float(0.5 * ((real - 1) ** 2).mean() + 0.5 * (fake**2).mean()),
        lambda real, fake: float(0.5 * ((fake - 1) ** 2).mean()),
    ),
    "hinge": (hinge, lambda real, fake: float(-fake.mean())),
    "wgan": (lambda real, fake: float(fake.mean() - real.mean()), lambda real, fake: float(-fake.mean())),
    "relativistic": (
        lambda real, fake: float(np.mean([-np.log(sigmoid(r - f)) for r, f in zip(real, fake, strict=True)])),
        lambda real, fake: float(np.mean([-np.log(sigmoid(f - r)) for r, f in zip(real, fake, strict=True)])),
    ),
}
