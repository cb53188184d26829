"""Distances between features of real and fake images (Wang et al. 2017, eq. 4, and the released code).

Each is a mean over the batch, 0-d, float32 at least. The real images' features get no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from advgen.precision import at_least_float32

Features = Sequence[Tensor]

VGG19_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Of relu1_1 to relu5_1, in the released code."""


def absolute_distance(real: Tensor, fake: Tensor) -> Tensor:
    """Mean of |fake - real| over everything, without gradient to ``real``."""
    return (at_least_float32(fake) - at_least_float32(real.detach())).abs().mean()


def feature_matching(real: Sequence[Features], fake: Sequence[Features]) -> Tensor:
    """Mean over scales of 4 / layers times the sum over layers of the features' distances, without the factor lambda.

    Args:
        real, fake: for each scale the layers' features and last the logits, which do not count.
    """
    total = torch.zeros((), device=fake[0][0].device)
    for real_scale, fake_scale in zip(real, fake, strict=True):
        weight = 4.0 / (len(fake_scale) - 1) / len(fake)
        for real_layer, fake_layer in zip(real_scale[:-1], fake_scale[:-1], strict=True):
            total = total + weight * absolute_distance(real_layer, fake_layer)
    return total


def perceptual(
    network: Callable[[Tensor], Features], real: Tensor, fake: Tensor, weights: Sequence[float] = VGG19_WEIGHTS
) -> Tensor:
    """Weighted sum over layers of the features' distances (Johnson et al. 2016 with L1), without the factor lambda.

    Args:
        network: images [n, 3, h, w] in [-1, 1] to the features of its layers.
        real, fake: such images.
        weights: one for each layer.
    """
    with torch.no_grad():
        real_features = network(real)
    layers = zip(weights, real_features, network(fake), strict=True)
    return torch.stack([weight * absolute_distance(a, b) for weight, a, b in layers]).sum()


def over_scales(loss: Callable[..., Tensor], *found: Sequence[Features]) -> Tensor:
    """Sum over scales of a loss of logits, such as ``loss(real, fake)`` or ``loss(fake)``.

    Args:
        loss: takes as many tensors of logits as there are ``found``.
        found: for each scale its features and last its logits.
    """
    return torch.stack([loss(*(scale[-1] for scale in scales)) for scales in zip(*found, strict=True)]).sum()
