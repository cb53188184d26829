"""Pixels of images at other places, by index: linear in the images, so differentiable any number of times.

A gradient penalty through an augmentation needs two. torch's grid_sample long had one (pytorch issue 34704; 2.15 has
both, the oldest torch that this project takes may not), and its places between -1 and 1 would round whole moves. On a
GPU the sums in the backward pass come in no fixed order, as grid_sample's do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def pixels_at(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels images[n, :, rows, columns].

    Args:
        images: [n, c, h, w].
        rows, columns: int64, broadcast together to [n, h', w']; inside the image.

    Returns:
        [n, c, h', w'].
    """
    flat = rows * images.shape[3] + columns
    index = flat.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).unflatten(2, flat.shape[1:])


@dataclass(frozen=True)
class Sources:
    """An affine map for each sample, from a place in the output to the place in the input that is seen there.

    Places are (x to the right, y down) in pixels from the image's centre. A map is built from transforms of the image
    in the order in which they happen to it: each method returns the map after one more.

    Attributes:
        x, y: float64 [n, 2], where the unit vectors go: the columns of the matrix.
        offset: float64 [n, 2], where the centre goes.
    """

    x: Tensor
    y: Tensor
    offset: Tensor

    @classmethod
    def identity(cls, samples: int, like: Tensor) -> Sources:
        """Every place to itself, float64 on the device of ``like``."""
        unit = torch.eye(2, dtype=torch.float64, device=like.device).expand(samples, 2, 2)
        return cls(unit[:, 0], unit[:, 1], torch.zeros_like(unit[:, 0]))

    def scaled(self, x: Tensor, y: Tensor) -> Sources:
        """The image made ``x`` times as wide and ``y`` times as high, [n] each; negative: mirrored."""
        return Sources(self.x / x[:, None], self.y / y[:, None], self.offset)

    def turned(self, cos: Tensor, sin: Tensor) -> Sources:
        """The image turned by an angle, from the x axis towards y, [n] each."""
        c, s = cos[:, None], sin[:, None]
        return Sources(self.x * c - self.y * s, self.x * s + self.y * c, self.offset)

    def moved(self, x: Tensor, y: Tensor) -> Sources:
        """The image moved by so many pixels, [n] each."""
        return Sources(self.x, self.y, self.offset - self.x * x[:, None] - self.y * y[:, None])


def warp(images: Tensor, sources: Sources) -> Tensor:
    """Images resampled bilinearly, mirrored at their edges (the edge itself not repeated) as often as is needed.

    A map onto whole pixels moves values without changing them. All is done element by element: a matrix product would
    be rounded to bfloat16 or TF32, and places with it.

    Args:
        images: float32 at least, [n, c, h, w].
        sources: one map a sample, rounded to the dtype of the images.

    Returns:
        [n, c, h, w].
    """
    height, width = images.shape[2:]
    x = torch.arange(width, dtype=images.dtype, device=images.device) - (width - 1) / 2
    y = torch.arange(height, dtype=images.dtype, device=images.device)[:, None] - (height - 1) / 2

    def along(axis: int, size: int) -> tuple[tuple[Tensor, Tensor], ...]:
        """The two nearest pixels and their weights, [n, h, w] each."""
        parts = (sources.x, sources.y, sources.offset)
        a, b, c = (part[:, axis, None, None].to(images.dtype) for part in parts)
        place = a * x + b * y + c + (size - 1) / 2
        before = place.floor()
        weight, first = place - before, before.long()
        return (_mirrored(first, size), 1 - weight), (_mirrored(first + 1, size), weight)

    result = torch.zeros_like(images)
    columns = along(0, width)
    for row, row_weight in along(1, height):
        for column, column_weight in columns:
            result = result + (row_weight * column_weight)[:, None] * pixels_at(images, row, column)
    return result


def _mirrored(index: Tensor, size: int) -> Tensor:
    """Any index to one in [0, size): ... 2 1 0 1 2 ... size - 2, size - 1, size - 2 ..."""
    period = max(2 * (size - 1), 1)
    index = index % period
    return torch.minimum(index, period - index)
