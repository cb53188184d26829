"""The Frechet distance extrapolated to infinitely many generated images (Chong & Forsyth 2020).

Chong & Forsyth 2020, "Effectively Unbiased FID and Inception Score and where to find them", section 3: the bias of the
Frechet distance of n images falls as 1 / n, by a factor that depends on the generator, so that models may change places
with n. A line through distances of subsets of several sizes, over 1 / n, gives the value at 1 / n = 0. What is left is
the bias of the reference's own finite number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgen.errors import UserError
from advgen.metrics import MetricFiles
from advgen.metrics.features import Extractor
from advgen.metrics.frechet import Gaussian, Opposite, covariance_factor, frechet_distance
from advgen.metrics.measures import Bench, Result
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Ranks
from advgen.metrics.rows import Rows
from advgen.metrics.statistics import FeatureStatistics
from advgen.seeds import key_of, permutation

POINTS = 15
"""Subsets on the line, as in the authors' code."""
_ROWS = 4096  # at a time in float64


class Infinity:
    """``fid_infinity`` or ``fd_lite0_infinity``, by the extractor.

    Raises:
        UserError: too few images for a line: the smallest subset is a tenth of them, and has more images than features
            have dimensions.
    """

    def __init__(self, bench: Bench, load: Callable[[MetricFiles], Extractor], published: Path | None = None) -> None:
        self.samples, self.seed, self.device = bench.config.samples, bench.config.seed, bench.device
        self.opposite = Opposite(bench, load, published)
        self.sizes(self.samples)

    def sizes(self, count: int) -> list[int]:
        """Of the subsets of so many images, ascending; the last is all of them."""
        dimensions = self.opposite.extractor.dimensions
        smallest = max(count // 10, dimensions + 1)
        if count < 2 * smallest:
            raise UserError(
                f"extrapolated Frechet distance: needs at least {2 * (dimensions + 1)} images, twice the "
                f"{dimensions} features and one, and has {count}. Raise evaluation.samples and "
                "evaluation.held_out_samples, or take the distance itself."
            )
        return np.linspace(smallest, count, POINTS).astype(int).tolist()

    def protocol(self, name: str, resolution: int) -> dict[str, Any]:
        """As that of the distance itself, and the subsets."""
        sizes = self.sizes(self.samples)
        return {**self.opposite.protocol(), "extrapolation": {"points": POINTS, "smallest": sizes[0]}}

    def start(self, resolution: int, names: Collection[str]) -> _Tally:
        """Nothing seen yet."""
        return _Tally(self, resolution, names)


class _Tally:
    def __init__(self, measure: Infinity, resolution: int, names: Collection[str]) -> None:
        self._measure, self._resolution, self._names = measure, resolution, names
        self._rows = Rows(measure.opposite.extractor.dimensions, measure.device, labelled=False)

    def add(self, pictures: Pictures) -> None:
        self._rows.add(pictures.features(self._measure.opposite.extractor))

    def gather(self, ranks: Ranks) -> None:
        self._rows.gather(ranks)

    def results(self) -> dict[str, Result]:
        measure, features = self._measure, self._rows.taken()[0]
        reference, sizes = measure.opposite.statistics(self._resolution), measure.sizes(len(features))
        return dict.fromkeys(self._names, extrapolated_distance(features, reference, sizes, measure.seed))


def extrapolated_distance(features: Tensor, reference: Gaussian, sizes: Collection[int], seed: int = 0) -> Result:
    """The Frechet distance from ``reference`` at 1 / n = 0.

    Args:
        features: float32 [n, d].
        reference: the other side, of fixed size.
        sizes: of subsets, each drawn anew and without replacement, at most n; at least three.
        seed: of the draws.

    Returns:
        The intercept of the least-squares line of the distances over 1 / size, and its standard error by the residuals:
        how well the points lie on a line. As the subsets are parts of one set of images, it does not say how far the
        figure would be off for other images.
    """
    factor = covariance_factor(reference.covariance.cpu())
    distances = []
    for size in sizes:
        chosen = torch.from_numpy(permutation(key_of(seed, "extrapolation", size), len(features))[:size])
        statistics = FeatureStatistics(features.shape[1], features.device)
        for rows in chosen.to(features.device).split(_ROWS):
            statistics.add(features[rows])
        distances.append(frechet_distance(reference, statistics, factor))
    return intercept(1.0 / np.array(list(sizes)), np.array(distances))


def intercept(x: np.ndarray, y: np.ndarray) -> Result:
    """Of the least-squares line through points, float64 [k], k at least 3; with its standard error.

    Its square is s² (1 / k + x̄² / Σ(x - x̄)²), with s² the residuals' sum of squares over k - 2.
    """
    away = x - x.mean()
    slope = (away @ y) / (away @ away)
    value = y.mean() - slope * x.mean()
    residuals = y - value - slope * x
    variance = (residuals @ residuals) / (len(x) - 2) * (1 / len(x) + x.mean() ** 2 / (away @ away))
    return Result(float(value), standard_error=math.sqrt(variance))
