"""Mean and covariance of features, gathered batch by batch.

Float64 throughout, and deviations instead of raw second moments: the usual sum of x xᵀ minus n m mᵀ loses as many
digits as the square of the mean exceeds the variance. Batches are merged by the pairwise update of Chan, Golub and
LeVeque 1979 ("Updating formulae and a pairwise algorithm for computing sample variances", eq. 2.1), in matrix form.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from advgen.metrics.ranks import Ranks


class FeatureStatistics:
    """Streaming count, mean and covariance of vectors.

    The result depends on neither the order nor the cut into batches, nor on the split over processes that are merged
    afterwards, but for float64 rounding.

    Attributes:
        dimensions: length of a vector.
        device: where the sums are held; the product of each batch is computed there.
    """

    def __init__(self, dimensions: int, device: torch.device | str = "cpu") -> None:
        self.dimensions = dimensions
        self.device = torch.device(device)
        self._count = 0
        self._mean = torch.zeros(dimensions, dtype=torch.float64, device=self.device)
        self._scatter = torch.zeros(dimensions, dimensions, dtype=torch.float64, device=self.device)

    def add(self, features: Tensor) -> None:
        """Take in a batch.

        Args:
            features: float [n, dimensions] on any device; n may be 0.

        Raises:
            ValueError: another shape, or values that are not finite (they would spoil the whole).
        """
        if features.ndim != 2 or features.shape[1] != self.dimensions:
            raise ValueError(f"expected features [n, {self.dimensions}], given {list(features.shape)}.")
        if not len(features):
            return
        batch = features.detach().to(self.device, torch.float64)
        mean = batch.mean(0)
        if not mean.isfinite().all():
            raise ValueError("features hold values that are not finite; the statistics are left as they were.")
        centred = batch - mean
        self._combine(len(batch), mean, centred.T @ centred)

    def merge(self, other: FeatureStatistics) -> None:
        """Take in all that ``other`` has seen; ``other`` is left as it is.

        Raises:
            ValueError: ``other`` has another number of dimensions.
        """
        if other.dimensions != self.dimensions:
            raise ValueError(f"cannot merge statistics of {other.dimensions} dimensions into {self.dimensions}.")
        self._combine(other._count, other._mean.to(self.device), other._scatter.to(self.device))

    def gather(self, ranks: Ranks) -> None:
        """Take in what the statistics of the other ranks have seen; a collective, after which all hold the same.

        Chan, Golub and LeVeque's update for many parts at once: with the common mean m, the scatter is the sum over
        parts of S_r + n_r (m_r - m)(m_r - m)ᵀ. So sums go round, and no rank holds the matrices of all.
        """
        if ranks.count == 1:
            return
        count = int(ranks.total(torch.tensor([self._count])))
        if not count:
            return
        mean = ranks.total(self._mean * (self._count / count))
        away = self._mean - mean
        self._scatter = ranks.total(self._scatter + torch.outer(away, away * self._count))
        self._mean, self._count = mean, count

    def _combine(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if not count:
            return
        total = self._count + count
        difference = mean - self._mean
        between = torch.outer(difference, difference * (self._count * count / total))
        self._scatter = self._scatter + scatter + between
        self._mean = self._mean + difference * (count / total)
        self._count = total

    @property
    def count(self) -> int:
        """How many vectors were taken in."""
        return self._count

    @property
    def mean(self) -> Tensor:
        """float64 [dimensions].

        Raises:
            ValueError: nothing was taken in.
        """
        if self._count < 1:
            raise ValueError("a mean needs at least one vector; none was added.")
        return self._mean.clone()

    @property
    def covariance(self) -> Tensor:
        """float64 [dimensions, dimensions], unbiased (divided by count - 1), exactly symmetric.

        Raises:
            ValueError: fewer than two vectors were taken in.
        """
        if self._count < 2:
            raise ValueError(f"a covariance needs at least two vectors; {self._count} were added.")
        return (self._scatter + self._scatter.T) / (2 * (self._count - 1))

    def to_tensors(self) -> dict[str, Tensor]:
        """The state as CPU tensors: ``count`` int64 [1], ``mean`` float64 [d], ``scatter`` float64 [d, d].

        ``scatter`` is the sum of the outer products of deviations from the mean.
        """
        return {
            "count": torch.tensor([self._count], dtype=torch.int64),
            "mean": self._mean.cpu().clone(),
            "scatter": self._scatter.cpu().clone(),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], device: torch.device | str = "cpu") -> FeatureStatistics:
        """The inverse of :meth:`to_tensors`.

        Raises:
            ValueError: a tensor is missing, surplus, or of another type or shape.
        """
        if set(tensors) != {"count", "mean", "scatter"}:
            raise ValueError(f"expected the tensors count, mean and scatter; given {sorted(tensors)}.")
        count, mean, scatter = tensors["count"], tensors["mean"], tensors["scatter"]
        well_formed = (
            (count.dtype, mean.dtype, scatter.dtype) == (torch.int64, torch.float64, torch.float64)
            and count.shape == (1,)
            and mean.ndim == 1
            and scatter.shape == (len(mean), len(mean))
            and int(count) >= 0
        )
        if not well_formed:
            raise ValueError("the tensors are no feature statistics: wrong type or shape.")
        result = cls(len(mean), device)
        result._count = int(count)
        result._mean = mean.to(result.device, copy=True)
        result._scatter = scatter.to(result.device, copy=True)
        return result
