"""Small patches of many images, too many for memory, and their projections on directions."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from advgen.errors import UserError
from advgen.metrics.features import full_float32
from advgen.metrics.ranks import Ranks
from advgen.seeds import Noise

SIDE = 7
"""Pixels a side of a patch."""
A_PICTURE = 128
"""Patches of a picture, or of a level of its pyramid."""
CHANNELS = 3
VALUES = CHANNELS * SIDE**2
"""Of a patch."""

_BLOCK = 1 << 14  # patches that are read at once, 9 MiB


def drawn(images: Tensor, noise: Noise) -> Tensor:
    """Patches at random places.

    Args:
        images: float32 [n, 3, h, w].
        noise: a row an image.

    Returns:
        float32 [n * 128, 147]: those of the first image, then of the next, each channel by channel. All places where a
        patch fits have the same chance.
    """
    count, _, height, width = images.shape
    free = torch.tensor((height - SIDE + 1, width - SIDE + 1))
    corners = (noise.uniform("corner", A_PICTURE, 2) * free).long().flatten(0, 1)
    corners = corners.to(images.device)[:, :, None, None, None]
    within = torch.arange(SIDE, device=images.device)
    picture = torch.arange(count, device=images.device).repeat_interleave(A_PICTURE)[:, None, None, None]
    channel = torch.arange(CHANNELS, device=images.device)[:, None, None]
    rows, columns = corners[:, 0] + within[:, None], corners[:, 1] + within
    return images[picture, channel, rows, columns].flatten(1)


class Patches:
    """Patches in a temporary file, with the moments of each channel.

    The file has 588 bytes a patch: 74 KiB an image, 1.2 GB for 16,384 images. It has no name, so that nothing is left
    of it when the process ends, however it does. In memory are 16,384 patches at a time.

    Args:
        folder: where the file lies; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - lives as long as this object
        except OSError as error:
            raise self._unwritten(error) from None
        weakref.finalize(self, self._file.close)
        self.count = 0
        self._sums = torch.zeros(2, CHANNELS, dtype=torch.float64)

    def _unwritten(self, error: OSError) -> UserError:
        return UserError(
            f"{self._folder}: patches for swd could not be written ({error.strerror or error}). They take 74 KiB for "
            "each image and level of its pyramid; make room, or name another folder in evaluation.cache."
        )

    def add(self, patches: Tensor) -> None:
        """Take in float32 [n, 147].

        Raises:
            UserError: the disk is full.
        """
        by_channel = patches.double().unflatten(1, (CHANNELS, -1))
        self._sums += torch.stack((by_channel.sum((0, 2)), by_channel.square().sum((0, 2)))).cpu()
        try:
            # Without a buffer, whose rest would be lost in silence or found out on closing; so a write may be short.
            rest = patches.contiguous().cpu().numpy().data.cast("B")
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise self._unwritten(error) from None
        self.count += len(patches)

    def moments(self, ranks: Ranks) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each channel over the patches of all ranks, float64 [3] each; a collective."""
        count = int(ranks.total(torch.tensor([self.count]))) * SIDE**2
        mean, square = ranks.total(self._sums) / count
        return mean, (square - mean.square()).clamp_min(0).sqrt()

    def projected(self, directions: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """Projections of the patches, each channel less its mean and over its deviation.

        In float32, as in ProGAN's released code; a patch's own arithmetic does not depend on the others.

        Args:
            directions: float32 [147, k].
            mean: float64 [3].
            deviation: float64 [3]; where it is 0, all values count as the mean.

        Returns:
            float32 [n, k], on the device of ``directions``.
        """
        shift, scale = (
            each.repeat_interleave(SIDE**2).to(directions)
            for each in (mean, torch.where(deviation > 0, 1 / deviation, 0))
        )
        found = directions.new_empty(self.count, directions.shape[1])
        start = 0
        for block in self._blocks():
            normalised = (block.to(directions.device) - shift) * scale
            with full_float32():
                torch.mm(normalised, directions, out=found[start : start + len(block)])
            start += len(block)
        return found

    def _blocks(self) -> Iterator[Tensor]:
        self._file.seek(0)
        while len(block := np.fromfile(self._file, np.float32, _BLOCK * VALUES)):
            yield torch.from_numpy(block).unflatten(0, (-1, VALUES))
