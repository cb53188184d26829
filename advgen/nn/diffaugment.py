"""Differentiable augmentation of all that a discriminator sees (DiffAugment, Zhao et al. 2020, arXiv:2006.10738).

In a game's loss, the generator's loss included::

    def critic(images: Tensor, purpose: str) -> Tensor:
        return discriminator(diffaugment(images, config.policy, context.noise, purpose))

    real_scores, fake_scores = critic(batch.images, "augment real"), critic(fake, "augment fake")
    r1 = penalties.r1(partial(critic, purpose="augment real"), batch.images)  # the same augmentation once more
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from advgen.nn.augment_config import Policy
from advgen.nn.warp import pixels_at
from advgen.precision import at_least_float32
from advgen.seeds import Noise

TRANSLATION, CUTOUT = 1 / 8, 1 / 2  # of each side


def diffaugment(images: Tensor, policy: Sequence[Policy], noise: Noise, purpose: str) -> Tensor:
    """Augment each sample with random numbers of its own; a function of its position, wherever it is computed.

    Values may leave [-1, 1], as in the paper. What is moved in from outside, or cut out, is 0, a mid grey.

    Args:
        images: [n, c, h, w] in [-1, 1].
        policy: what is done, in order.
        noise: one row a sample.
        purpose: names the draws; the same one gives the same augmentation again.

    Returns:
        [n, c, h, w] of the images' dtype, computed in float32 at least; twice differentiable.
    """
    x = at_least_float32(images)
    for name in policy:
        x = _AUGMENTATIONS[name](x, noise, f"{purpose}/{name}")
    return x.to(images.dtype)


def _color(x: Tensor, noise: Noise, purpose: str) -> Tensor:
    """Brightness by [-.5, .5), saturation times [0, 2), contrast times [.5, 1.5), in this order.

    Saturation scales around a pixel's mean over channels, contrast around the sample's mean over all.
    """
    brightness, saturation, contrast = noise.uniform(purpose, 3, 1, 1, 1).to(x.dtype).unbind(1)
    x = x + (brightness - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = grey + (x - grey) * (2 * saturation)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (x - mean) * (contrast + 0.5)


def _translation(x: Tensor, noise: Noise, purpose: str) -> Tensor:
    """By whole pixels, -s to s along each axis, s being an eighth of the side; zeros come in."""
    uniform = noise.uniform(purpose, 2, 1, 1)
    rows, columns = _axes(x)
    row_span, column_span = (int(size * TRANSLATION + 0.5) for size in x.shape[2:])
    rows = rows + _whole(uniform[:, 0], 2 * row_span + 1) - row_span
    columns = columns + _whole(uniform[:, 1], 2 * column_span + 1) - column_span
    height, width = x.shape[2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    moved = pixels_at(x, rows.clamp(0, height - 1), columns.clamp(0, width - 1))
    return moved * inside[:, None]


def _cutout(x: Tensor, noise: Noise, purpose: str) -> Tensor:
    """Zeros in a rectangle of half of each side, whose centre is anywhere in the image."""
    uniform = noise.uniform(purpose, 2, 1, 1)
    cut: list[Tensor] = []
    for axis, (place, size) in enumerate(zip(_axes(x), x.shape[2:], strict=True)):
        length = int(size * CUTOUT + 0.5)
        # An even length has its centre between pixels, of which there is one more.
        start = _whole(uniform[:, axis], size + 1 - length % 2) - length // 2
        cut.append((place >= start) & (place < start + length))
    return x * ~(cut[0] & cut[1])[:, None]


_AUGMENTATIONS = {"color": _color, "translation": _translation, "cutout": _cutout}


def _axes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column numbers, int64 [h, 1] and [w]."""
    height, width = x.shape[2:]
    return torch.arange(height, device=x.device)[:, None], torch.arange(width, device=x.device)


def _whole(uniform: Tensor, count: int) -> Tensor:
    """Numbers in [0, 1) to int64 in [0, count); exact in float64, where float32 may round up to the next number."""
    return (uniform.double() * count).long()
