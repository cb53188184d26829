"""Kernel distance of features: the squared maximum mean discrepancy, which on Inception features is KID.

Bińkowski et al. 2018, "Demystifying MMD GANs", section 4: the unbiased estimate of MMD² with the polynomial kernel
k(x, y) = (x·y / d + 1)³, averaged over subsets of both sets. Unlike the Frechet distance it has no bias, so that
figures of different numbers of images compare; for equal distributions it is 0 on average, and may be negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgen.errors import UserError
from advgen.metrics import MetricFiles
from advgen.metrics.features import Extractor
from advgen.metrics.measures import Bench, Result
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Ranks
from advgen.metrics.rows import Rows
from advgen.seeds import key_of, permutation

DEGREE = 3


class Kernel:
    """``kid`` or ``kd_lite0``, by the extractor.

    Raises:
        UserError: a set has fewer images than a subset.
    """

    def __init__(self, bench: Bench, load: Callable[[MetricFiles], Extractor]) -> None:
        self.samples, self.seed, self.device = bench.config.samples, bench.config.seed, bench.device
        self.subsets, self.subset_size = bench.config.kernel_subsets, bench.config.kernel_subset_size
        self.extractor, self.reference = bench.extractor(load), bench.reference
        self.check("generated images", self.samples)
        self.check("training images", self.reference.count)

    def check(self, what: str, count: int) -> None:
        """Refuse too few images for a subset."""
        if count < self.subset_size:
            raise UserError(
                f"kernel distance: {count} {what} are fewer than the {self.subset_size} of a subset. Raise "
                "evaluation.samples, reference_samples and held_out_samples, or lower evaluation.kernel_subset_size."
            )

    def protocol(self, name: str, resolution: int) -> dict[str, Any]:
        """The extractor's identity, the kernel, and the subsets."""
        return {
            "extractor": dict(self.extractor.identity),
            "kernel": f"(x.y/d+1)^{DEGREE}",
            "subsets": self.subsets,
            "subset_size": self.subset_size,
        }

    def start(self, resolution: int, names: Collection[str]) -> _Tally:
        """Nothing seen yet."""
        return _Tally(self, resolution, names)


class _Tally:
    def __init__(self, measure: Kernel, resolution: int, names: Collection[str]) -> None:
        self._measure, self._resolution, self._names = measure, resolution, names
        self._rows = Rows(measure.extractor.dimensions, measure.device, labelled=False)

    def add(self, pictures: Pictures) -> None:
        self._rows.add(pictures.features(self._measure.extractor))

    def gather(self, ranks: Ranks) -> None:
        self._rows.gather(ranks)

    def results(self) -> dict[str, Result]:
        measure, fakes = self._measure, self._rows.taken()[0]
        measure.check("pictures", len(fakes))
        reals, _ = measure.reference.features(measure.extractor, self._resolution)
        found = kernel_distance(reals, fakes, measure.subsets, measure.subset_size, measure.seed)
        return dict.fromkeys(self._names, found)


def kernel_distance(a: Tensor, b: Tensor, subsets: int, size: int, seed: int = 0) -> Result:
    """Mean of :func:`squared_mmd` over pairs of subsets, drawn without replacement within one.

    Its standard error is of two sources. The drawn subsets are some of all: v / subsets, with v their variance. And the
    sets are finite themselves: with n images, the lesser number, a subset's figure varies by v / (1 - size / n) over
    sets, and that of all images, to first order, by size / n of it (a U-statistic's variance falls as 1 / n). The mean
    and standard *deviation* over subsets, which papers give, is ``subsets`` alone and takes the latter for nothing.

    Args:
        a, b: float32 or float64 [n, d] and [m, d].
        subsets: pairs that are drawn.
        size: images of each kind in a pair, at least 2.
        seed: of the draws.

    Returns:
        With the standard error; None where a set has no more images than a subset, or there is one subset.

    Raises:
        ValueError: a set is smaller than a subset.
    """
    count = min(len(a), len(b))
    if not 2 <= size <= count:
        raise ValueError(f"subsets of {size} cannot be drawn from {count} vectors.")
    drawn = [draw_subsets(seed, name, len(rows), subsets, size) for name, rows in (("a", a), ("b", b))]
    figures = torch.stack([squared_mmd(a[i], b[j]) for i, j in zip(*drawn, strict=True)])
    if subsets == 1 or size == count:
        return Result(float(figures.mean()))
    variance = float(figures.var()) * (1 / subsets + size / (count - size))
    return Result(float(figures.mean()), standard_error=math.sqrt(variance))


def draw_subsets(seed: int, name: str, count: int, subsets: int, size: int) -> Tensor:
    """int64 [subsets, size], each of its rows without repetition in 0..count - 1."""
    orders = [permutation(key_of(seed, "kernel subsets", name, number), count)[:size] for number in range(subsets)]
    return torch.from_numpy(np.stack(orders))


def squared_mmd(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased estimate of MMD² (Gretton et al. 2012, "A Kernel Two-Sample Test", eq. 3).

    Args:
        a, b: float [n, d] and [m, d], n and m at least 2.

    Returns:
        float64 scalar: the kernel's mean over pairs within ``a`` and within ``b``, no vector with itself, less twice
        the mean over pairs across.
    """
    a, b = a.double(), b.double()

    def within(rows: Tensor) -> Tensor:
        values = _kernel(rows, rows)
        return (values.sum() - values.diagonal().sum()) / (len(rows) * (len(rows) - 1))

    return within(a) + within(b) - 2.0 * _kernel(a, b).mean()


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1.0) ** DEGREE
