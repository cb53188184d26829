"""Laplacian pyramids (Burt and Adelson 1983), as the sliced Wasserstein distance of ProGAN's released code takes them.

Sums run in one order, picture by picture: a pyramid does not depend on what else is in the batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen.errors import UserError

COARSEST = 16
"""Pixels; no level's shorter side is below."""


def sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Of the levels, from the images' own down to one whose half would have a side below :data:`COARSEST`.

    Raises:
        UserError: the images are smaller than that, or a level with an odd side would have to be halved.
    """
    if min(height, width) < COARSEST:
        raise UserError(
            f"swd: images of {height}x{width} pixels have no Laplacian pyramid; {COARSEST} pixels a side are the "
            "least. Leave it out of evaluation.metrics."
        )
    found = [(height, width)]
    while min(found[-1]) // 2 >= COARSEST:
        height, width = found[-1]
        if height % 2 or width % 2:
            raise UserError(
                f"swd: a level of {height}x{width} pixels cannot be halved. Its Laplacian pyramid takes images whose "
                f"sides are powers of two, or multiples of enough of them. Leave it out of evaluation.metrics."
            )
        found.append((height // 2, width // 2))
    return found


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """What each level adds to the next coarser one, and the coarsest as it is.

    Args:
        images: [n, c, h, w], in any scale.

    Returns:
        float32 [n, c, h / 2^k, w / 2^k] of each of :func:`sizes`, finest first, in the same scale.

    Raises:
        UserError: as :func:`sizes`.
    """
    levels = [images.float()]
    for _ in sizes(*images.shape[-2:])[1:]:
        coarse = _blurred(levels[-1])[..., ::2, ::2]
        levels[-1] = levels[-1] - _doubled(coarse)
        levels.append(coarse)
    return levels


def _doubled(images: Tensor) -> Tensor:
    """Twice the size: zeros between the pixels, and four times the filter."""
    spread = images.new_zeros(*images.shape[:-2], 2 * images.shape[-2], 2 * images.shape[-1])
    spread[..., ::2, ::2] = images
    return 4 * _blurred(spread)


def _blurred(images: Tensor) -> Tensor:
    """Filtered by (1, 4, 6, 4, 1) / 16 along either side, mirrored about the outermost pixels."""
    return _weighted(_weighted(F.pad(images, (2, 2, 2, 2), mode="reflect"), -1), -2)


def _weighted(x: Tensor, side: int) -> Tensor:
    first, second, third, fourth, fifth = (x.narrow(side, k, x.shape[side] - 4) for k in range(5))
    return torch.add(first + fifth, second + fourth, alpha=4).add_(third, alpha=6).div_(16)
