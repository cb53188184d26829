"""The Frechet distance between two Gaussians fitted to features (Heusel et al. 2017, eq. 6)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from advgen.errors import UserError
from advgen.metrics import MetricFiles
from advgen.metrics.features import Extractor
from advgen.metrics.measures import Bench, Result
from advgen.metrics.pictures import Pictures
from advgen.metrics.published import PublishedStatistics, read_statistics
from advgen.metrics.ranks import Ranks
from advgen.metrics.statistics import FeatureStatistics

_log = logging.getLogger(__name__)


class Gaussian(Protocol):
    """A mean and a covariance, of features that were seen or as somebody published them."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        ...

    @property
    def mean(self) -> Tensor:
        """float64 [dimensions]."""
        ...

    @property
    def covariance(self) -> Tensor:
        """float64 [dimensions, dimensions], symmetric."""
        ...


class Opposite:
    """What pictures are set against: the training images, or statistics from a file.

    Where either side has no more images than features have dimensions, that is logged as a warning: its covariance is
    singular, and the distance consists mostly of the estimate's bias.

    Attributes:
        extractor: of the features.

    Raises:
        UserError: the file cannot be read, or its statistics are of features of another length.
    """

    def __init__(self, bench: Bench, load: Callable[[MetricFiles], Extractor], published: Path | None = None) -> None:
        self.extractor, self._reference = bench.extractor(load), bench.reference
        self._published: PublishedStatistics | None = None
        seen = {"generated images": bench.config.samples}
        if published is None:
            seen["training images"] = bench.reference.count
        else:
            self._published = read_statistics(published)
            if self._published.dimensions != self.extractor.dimensions:
                raise UserError(
                    f"{published}: holds statistics of {self._published.dimensions} dimensions; the features of "
                    f"{self.extractor.identity['name']} have {self.extractor.dimensions}. Name a file that was made "
                    "with the same features."
                )
        for what, count in seen.items():
            if count <= self.extractor.dimensions:
                _log.warning(
                    "%d %s for %d features of %s: their covariance is singular, and the Frechet distance is mostly "
                    "bias. Compare it only with figures of the same numbers of images.",
                    *(count, what, self.extractor.dimensions, self.extractor.identity["name"]),
                )

    def protocol(self) -> dict[str, Any]:
        """The extractor's identity; the file's hash in place of the training images' where it stands in for them."""
        extractor = {"extractor": dict(self.extractor.identity)}
        if self._published is None:
            return extractor
        return {"reference": f"statistics {self._published.sha256}", "reference_samples": None, **extractor}

    def statistics(self, resolution: int) -> Gaussian:
        """Of the features of the training images at a resolution, or those that were published."""
        return self._published or self._reference.statistics(self.extractor, resolution)

    def prepare(self, resolution: int) -> Path:
        """Compute the training images' statistics, unless they are kept; the file that holds them. A collective."""
        self._reference.statistics(self.extractor, resolution)
        return self._reference.statistics_file(self.extractor, resolution)


class Frechet:
    """``fid``, ``fd_lite0`` or ``fd_dinov2``, by the extractor: the distance of pictures from the training images."""

    def __init__(self, bench: Bench, load: Callable[[MetricFiles], Extractor], published: Path | None = None) -> None:
        self.samples = bench.config.samples
        self._opposite, self._device = Opposite(bench, load, published), bench.device

    def protocol(self, name: str, resolution: int) -> dict[str, Any]:
        """The extractor's identity, and the published statistics' hash where there are any."""
        return self._opposite.protocol()

    def prepare(self, resolution: int) -> Path:
        """The training images' statistics, kept."""
        return self._opposite.prepare(resolution)

    def start(self, resolution: int, names: Collection[str]) -> _Tally:
        """Nothing seen yet."""
        return _Tally(self._opposite, self._device, resolution, names)


class _Tally:
    def __init__(self, opposite: Opposite, device: torch.device, resolution: int, names: Collection[str]) -> None:
        self._opposite, self._resolution, self._names = opposite, resolution, names
        self._statistics = FeatureStatistics(opposite.extractor.dimensions, device)

    def add(self, pictures: Pictures) -> None:
        self._statistics.add(pictures.features(self._opposite.extractor))

    def gather(self, ranks: Ranks) -> None:
        self._statistics.gather(ranks)

    def results(self) -> dict[str, Result]:
        reference = self._opposite.statistics(self._resolution)
        return dict.fromkeys(self._names, Result(frechet_distance(self._statistics, reference)))


def frechet_distance(a: Gaussian, b: Gaussian, factor: Tensor | None = None) -> float:
    """Squared Frechet (2-Wasserstein) distance of the Gaussians with the moments of ``a`` and ``b``.

    d² = |m_a - m_b|² + tr(C_a) + tr(C_b) - 2 tr((C_a C_b)^½), Heusel et al. 2017, "GANs Trained by a Two Time-Scale
    Update Rule Converge to a Local Nash Equilibrium", eq. 6; FID is this number on Inception features, squared as here.

    Args:
        a, b: the Gaussians.
        factor: :func:`covariance_factor` of the covariance of ``a``, where it is known.

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
    root = trace_of_root(covariance_factor(covariance_a) if factor is None else factor, covariance_b)
    return float(difference.dot(difference) + traces - 2.0 * root)


def covariance_factor(covariance: Tensor) -> Tensor:
    """f with f fᵀ = the covariance.

    Where that is positive definite, f is its Cholesky factor, which costs a tenth of an eigendecomposition. Where it is
    singular (no more images than dimensions), the columns of f are its eigenvectors, scaled by the roots of the
    eigenvalues; those of the null space (below d times the rounding unit, relative to the largest) are left out, so
    that its rounding noise has no root.

    Args:
        covariance: float64 [d, d], symmetric positive semidefinite.

    Returns:
        float64 [d, r], r at most d.
    """
    unit = len(covariance) * torch.finfo(covariance.dtype).eps
    lower, failed = torch.linalg.cholesky_ex(covariance)
    # Rounding may also let a singular matrix pass, with pivots of its own size.
    if not failed and lower.diagonal().square().min() > unit * covariance.diagonal().max():
        return lower
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > values[-1].clamp_min(0.0) * unit
    return vectors[:, kept] * values[kept].sqrt()


def trace_of_root(factor: Tensor, b: Tensor) -> Tensor:
    """tr((ab)^½) of two covariances, singular ones included.

    With a = f fᵀ, the product ab has, but for zeros, the eigenvalues of the symmetric fᵀ b f, and the trace is the sum
    of their roots. So a symmetric eigenproblem without vectors replaces the root of a non-symmetric matrix, which for
    fewer images than dimensions is defective in practice (scipy's ``sqrtm`` then answers with complex numbers).

    Where a or b is singular, eigenvalues that are 0 come out as rounding noise, of which the roots are eight digits
    larger: the trace is then the sum of the singular values of fᵀ g, with b = g gᵀ, whose noise stays noise.

    Args:
        factor: float64 [d, r], f.
        b: float64 [d, d], symmetric positive semidefinite.

    Returns:
        float64 scalar.
    """
    other = covariance_factor(b)
    if min(factor.shape[1], other.shape[1]) < len(b):
        return torch.linalg.svdvals(factor.T @ other).sum()
    product = factor.T @ b @ factor
    return torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0.0).sqrt().sum()
