"""The sliced Wasserstein distance on Laplacian pyramids, ProGAN's own metric.

Karras et al. 2018, "Progressive Growing of GANs", section 5 (its distance is Rabin et al.'s 2011), as their released
code takes it: of each level of an image's pyramid 128 patches of 7x7 pixels, each channel normalised by its mean and
deviation over the patches of the set; the mean absolute difference of sorted projections on 4 x 128 random directions,
times 1,000. The paper's figures are of 16,384 images on either side. A distance of finitely many patches is above 0 for
equal distributions, more so for few: compare figures of equal counts only, and beside their floor.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgen.metrics.features import as_rgb
from advgen.metrics.measures import Bench, Result
from advgen.metrics.patches import A_PICTURE, SIDE, VALUES, Patches, drawn
from advgen.metrics.pictures import Pictures
from advgen.metrics.pyramid import laplacian_pyramid, sizes
from advgen.metrics.ranks import Ranks
from advgen.seeds import Noise

DIRECTIONS = 512
_PROJECTIONS = 1 << 25  # of a set, that are in memory at once: 128 MiB, and some six times that while they are compared


class SlicedWasserstein:
    """``swd``: the distance of pictures from the training images; by level in the figure's parts.

    Patches lie in temporary files in the folder of ``evaluation.cache`` (:class:`advgen.metrics.patches.Patches`),
    those of the training images of one resolution for as long as the measure is there. Memory is about 1 GiB, and more
    only above 33 million patches (260,000 images).

    Raises:
        UserError: the data have no such pyramid.
    """

    def __init__(self, bench: Bench) -> None:
        self.samples, self._spec = bench.config.samples, bench.spec
        self.heights(bench.spec.resolution)
        self.seed, self.device, self.folder = bench.config.seed, bench.device, Path(bench.config.cache)
        self._reference = bench.reference
        self._kept: tuple[int, Descriptors] | None = None

    def protocol(self, name: str, resolution: int) -> dict[str, Any]:
        """What is compared."""
        return {"patches": f"{A_PICTURE} of {SIDE}x{SIDE} pixels a level", "directions": DIRECTIONS, "scale": 1000}

    def start(self, resolution: int, names: Collection[str]) -> _Tally:
        """Nothing seen yet."""
        return _Tally(self, resolution, names)

    def heights(self, resolution: int) -> list[int]:
        """Of the levels of pictures of this height."""
        width = resolution * (self._spec.width or self._spec.resolution) // self._spec.resolution
        return [height for height, _ in sizes(resolution, width)]

    def reference(self, resolution: int) -> Descriptors:
        """This rank's slice of the training images."""
        if self._kept is None or self._kept[0] != resolution:
            self._kept = None  # its disk space first
            own = Descriptors(self, "reference", resolution)
            for pictures in self._reference.own_pictures(resolution):
                own.add(pictures.images, pictures.first)
            self._kept = resolution, own
        return self._kept[1]


class Descriptors:
    """Patches of a set of pictures, by the heights of their pyramids' levels, finest first.

    Args:
        measure: whose seed, device and folder they take.
        kind: of the pictures; the places of patches are drawn for each kind.
        resolution: height of the pictures.
    """

    def __init__(self, measure: SlicedWasserstein, kind: str, resolution: int) -> None:
        self._seed, self._kind = measure.seed, kind
        self.levels = {height: Patches(measure.folder) for height in measure.heights(resolution)}

    def add(self, images: Tensor, first: int) -> None:
        """Take in uint8 [n, 1 or 3, h, w]; the number of the first tells which places are looked at."""
        numbers = torch.arange(first, first + len(images))
        for level, (height, patches) in zip(laplacian_pyramid(as_rgb(images)), self.levels.items(), strict=True):
            patches.add(drawn(level, Noise(self._seed, ("swd", self._kind, height), numbers)))


class _Tally:
    def __init__(self, measure: SlicedWasserstein, resolution: int, names: Collection[str]) -> None:
        self._measure, self._resolution, self._names = measure, resolution, names
        self._own = Descriptors(measure, "pictures", resolution)
        self._found: dict[int, float] = {}

    def add(self, pictures: Pictures) -> None:
        self._own.add(pictures.images, pictures.first)

    def gather(self, ranks: Ranks) -> None:
        measure = self._measure
        real = measure.reference(self._resolution).levels
        for height, patches in self._own.levels.items():
            positions = torch.arange(DIRECTIONS)
            directions = Noise(measure.seed, ("swd", height), positions).normal("direction", VALUES)
            directions = (directions / directions.norm(dim=1, keepdim=True)).T.contiguous().to(measure.device)
            self._found[height] = 1000 * distance(patches, real[height], directions, ranks)

    def results(self) -> dict[str, Result]:
        parts = {str(height): value for height, value in self._found.items()}
        return dict.fromkeys(self._names, Result(sum(parts.values()) / len(parts), parts=parts))


def distance(a: Patches, b: Patches, directions: Tensor, ranks: Ranks) -> float:
    """Mean over directions of the 1-Wasserstein distance between projections of normalised patches; a collective.

    Args:
        a: this rank's of one set, normalised by the moments of all of that set.
        b: this rank's of the other.
        directions: float32 [147, k] of length 1; each rank sorts its share of them.
        ranks: that hold patches.
    """
    moments = [patches.moments(ranks) for patches in (a, b)]
    count = int(ranks.total(torch.tensor([max(a.count, b.count)])))
    total = torch.zeros(1, dtype=torch.float64)
    for some in directions.split(max(1, _PROJECTIONS // count), dim=1):
        ordered: list[Tensor] = []
        for patches, (mean, deviation) in zip((a, b), moments, strict=True):
            rows = ranks.rows(patches.projected(some, mean, deviation))
            ordered.append(_sorted(rows[:, ranks.index :: ranks.count].T.contiguous()))
        total += wasserstein(*ordered).sum().cpu()
    return float(ranks.total(total)) / directions.shape[1]


def _sorted(rows: Tensor) -> Tensor:
    """Each row by size. On the CPU by numpy, which takes less than half of torch's time."""
    return torch.from_numpy(np.sort(rows.numpy(), axis=1)) if rows.device.type == "cpu" else rows.sort(dim=1).values


def wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """The 1-Wasserstein distance of samples on a line: the integral of the difference of their quantile functions.

    For equal counts it is the mean absolute difference, rank by rank, that the released code takes.

    Args:
        a: [k, n], each row sorted.
        b: [k, m], each row sorted.

    Returns:
        float64 [k].
    """
    n, m = a.shape[1], b.shape[1]
    if n == m:
        return (a - b).abs().mean(dim=1, dtype=torch.float64)
    # Both quantile functions are steps; in units of 1 / nm theirs end at multiples of m and of n.
    steps = torch.cat((torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n)).unique()
    starts = torch.cat((torch.zeros(1, dtype=steps.dtype), steps[:-1]))
    lengths, of_a, of_b = (
        each.to(a.device) for each in ((steps - starts).double() / (n * m), starts // m, starts // n)
    )
    return (a[:, of_a] - b[:, of_b]).abs().double() @ lengths
