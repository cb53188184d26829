"""Pictures painted in overlapping tiles, for sizes whose activations do not fit into memory at once.

A network whose every pixel depended on its surroundings alone would paint the same picture. One with instance or
layer norm does not: each tile is normalised by its own statistics, so that colours may drift from one to the next. The
overlap hides the seam and not the drift.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from advgen.errors import UserError


def check_tile(tile: int, stride: int) -> None:
    """Refuse tiles that would be too small for a network that halves them to 1 / ``stride``.

    Raises:
        UserError: fewer than twice ``stride`` pixels a side.
    """
    if tile < 2 * stride:
        raise UserError(f"tiles of {tile} pixels are too small for this network: take at least {2 * stride}.")


def cut(length: int, tile: int, stride: int) -> list[tuple[int, int]]:
    """Where the tiles of a side begin and end, evenly spread over it.

    They overlap by a quarter of a tile at least, and begin at multiples of ``stride``, so that a strided network meets
    the same pixels in a tile as in the whole.

    Args:
        length: of the side.
        tile: of a tile, at least twice ``stride``; rounded up to a multiple of it.
        stride: of the network.
    """
    tile = -(-tile // stride) * stride
    overlap = -(-tile // (4 * stride)) * stride
    if length <= tile:
        return [(0, length)]
    steps = -(-(length - tile) // (tile - overlap))
    last = -(-(length - tile) // stride) * stride
    starts = [last * step // (steps * stride) * stride for step in range(steps + 1)]
    return [(start, min(start + tile, length)) for start in starts]


def shares(tiles: list[tuple[int, int]], length: int) -> Tensor:
    """What each tile counts at each pixel of a side, float32 [tiles, length]: linear where two overlap, in sum 1."""
    pixels = torch.arange(length, dtype=torch.float64) + 0.5
    begun = [torch.ones_like(pixels)]  # how far a tile has taken over from those before it
    for (_, end), (start, _) in pairwise(tiles):
        begun.append(((pixels - start) / (end - start)).clamp(0.0, 1.0))
    begun.append(torch.zeros_like(pixels))
    return torch.stack([own - following for own, following in pairwise(begun)]).float()


def tiled(paint: Callable[[Tensor], Tensor], planes: Tensor, tile: int, stride: int) -> Tensor:
    """``paint(planes)`` put together from tiles; the very same where one tile covers it.

    Args:
        paint: [n, planes, h, w] of any size above ``stride`` to [n, c, h, w].
        planes: of the whole picture.
        tile: side of a tile in pixels, at least twice ``stride``.
        stride: of the network.
    """
    height, width = planes.shape[-2:]
    rows, columns = cut(height, tile, stride), cut(width, tile, stride)
    if len(rows) == len(columns) == 1:
        return paint(planes)
    down, across = (shares(found, side).to(planes.device) for found, side in ((rows, height), (columns, width)))
    whole: Tensor | None = None
    for (top, bottom), vertical in zip(rows, down, strict=True):
        for (left, right), horizontal in zip(columns, across, strict=True):
            picture = paint(planes[..., top:bottom, left:right]).float()
            if whole is None:
                whole = picture.new_zeros(*picture.shape[:2], height, width)
            share = vertical[top:bottom, None] * horizontal[left:right]
            whole[..., top:bottom, left:right] += picture * share
    assert whole is not None
    return whole
