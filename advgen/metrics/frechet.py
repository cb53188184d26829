"""The Frechet distance between two Gaussians fitted to features (Heusel et al. 2017, eq. 6)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advgen.metrics import MetricFiles
from advgen.metrics.features import Extractor
from advgen.metrics.measures import Bench, Result
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Ranks
from advgen.metrics.reals import Reals
from advgen.metrics.statistics import FeatureStatistics


class Frechet:
    """``fd_lite0`` or ``fid``, by the extractor: the distance of pictures from the training images."""

    def __init__(self, bench: Bench, load: Callable[[MetricFiles], Extractor]) -> None:
        self.samples = bench.config.samples
        self._reference, self._extractor = bench.reference, bench.extractor(load)

    def protocol(self, name: str, resolution: int) -> dict[str, Any]:
        """The extractor's identity."""
        return {"extractor": dict(self._extractor.identity)}

    def prepare(self, resolution: int) -> Path:
        """The training images' statistics, kept."""
        self._reference.statistics(self._extractor, resolution)
        return self._reference.statistics_file(self._extractor, resolution)

    def start(self, resolution: int, names: Collection[str]) -> _Tally:
        """Nothing seen yet."""
        return _Tally(self._extractor, self._reference, resolution, names)


class _Tally:
    def __init__(self, extractor: Extractor, reference: Reals, resolution: int, names: Collection[str]) -> None:
        self._extractor, self._reference, self._resolution, self._names = extractor, reference, resolution, names
        self._statistics = FeatureStatistics(extractor.dimensions, reference.device)

    def add(self, pictures: Pictures) -> None:
        self._statistics.add(pictures.features(self._extractor))

    def gather(self, ranks: Ranks) -> None:
        self._statistics.gather(ranks)

    def results(self) -> dict[str, Result]:
        reference = self._reference.statistics(self._extractor, self._resolution)
        return dict.fromkeys(self._names, Result(frechet_distance(self._statistics, reference)))


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Squared Frechet (2-Wasserstein) distance of the Gaussians with the moments of ``a`` and ``b``.

    d² = |m_a - m_b|² + tr(C_a) + tr(C_b) - 2 tr((C_a C_b)^½), Heusel et al. 2017, "GANs Trained by a Two Time-Scale
    Update Rule Converge to a Local Nash Equilibrium", eq. 6; FID is this number on Inception features, squared as here.

    Returns:
        The distance in squared units of the features, computed in float64 on the CPU. Symmetric, and 0 for equal
        statistics, to about 1e-7 of the larger trace; rounding may leave a negative number of that size, which is
        returned as it is. The estimate is biased upwards, more so for few images: compare only figures of equal counts.

    Raises:
        ValueError: the dimensions differ, or a side has fewer than two vectors.
    """
    if a.dimensions != b.dimensions:
        raise ValueError(f"features of {a.dimensions} and {b.dimensions} dimensions have no distance.")
    covariance_a, covariance_b = a.covariance.cpu(), b.covariance.cpu()
    difference = a.mean.cpu() - b.mean.cpu()
    traces = covariance_a.trace() + covariance_b.trace()
    return float(difference.dot(difference) + traces - 2.0 * trace_of_root(covariance_a, covariance_b))


def trace_of_root(a: Tensor, b: Tensor) -> Tensor:
    """tr((ab)^½) of two covariances, singular ones included.

    With a = f fᵀ, the product ab has the eigenvalues of the symmetric fᵀ b f, and the trace is the sum of their roots.
    So two symmetric eigenproblems replace the root of a non-symmetric matrix, which for fewer images than dimensions
    is defective in practice (scipy's ``sqrtm`` then answers with complex numbers). The columns of f are eigenvectors
    of a, scaled by the roots of the eigenvalues; those of the null space (below d times the rounding unit, relative to
    the largest) are left out, so that its rounding noise has no root either.

    Args:
        a: float64 [d, d], symmetric positive semidefinite.
        b: float64 [d, d], likewise.

    Returns:
        float64 scalar.
    """
    values, vectors = torch.linalg.eigh(a)
    kept = values > values[-1].clamp_min(0.0) * (len(values) * torch.finfo(values.dtype).eps)
    if not kept.any():
        return values.new_zeros(())
    factor = vectors[:, kept] * values[kept].sqrt()
    product = factor.T @ b @ factor
    return torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0.0).sqrt().sum()
