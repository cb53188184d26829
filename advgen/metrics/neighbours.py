"""Precision, recall, density and coverage: what nearest neighbours among features say of fidelity and of variety.

Around each feature vector lies a ball; its radius is the distance to the k-th nearest neighbour in its own set, itself
not counted. Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models", eqs. 1
and 2, k = 3: precision is the share of fakes within the ball of some real, recall the share of reals within that of
some fake. Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models", eqs. 4 and 5, k = 5:
density is the number of reals' balls in which a fake lies, over k, on average; coverage the share of reals with a fake
in their ball. Balls are closed in the former two and open in the latter two, as in the authors' code.

The search is exact, by squared distances |a - b|² = |a|² + |b|² - 2 a·b in float32, a tile of rows at a time: memory is
that of the features, of a copy of the reals' and of a tile. Features are taken relative to the reals' mean, which
leaves less to cancel.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor

from advgen.errors import UserError
from advgen.metrics import MetricFiles
from advgen.metrics.features import Extractor, full_float32
from advgen.metrics.measures import Bench, Result
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Ranks
from advgen.metrics.rows import Rows

K = {"precision": 3, "recall": 3, "density": 5, "coverage": 5}
"""Whose ball: that of the k-th neighbour. On other features than the table's own the names go on: recall_inception."""
_TOO_FEW = (
    f"{', '.join(K)}: need more than {max(K.values())} images of each kind. Raise evaluation.samples, "
    "evaluation.reference_samples and evaluation.held_out_samples, or shard more images."
)
TILE = 1 << 25
"""Distances that are held at a time; 128 MiB."""


class Neighbours:
    """The four figures, of all pictures and, where the data have classes, of each class against the reals of it."""

    def __init__(self, bench: Bench, load: Callable[[MetricFiles], Extractor]) -> None:
        self.samples, self.classes = bench.config.samples, bench.spec.classes
        self.extractor, self._reference, self.device = bench.extractor(load), bench.reference, bench.device
        self._known: tuple[int, Cloud] | None = None
        if min(self.samples, self._reference.count) <= max(K.values()):
            raise UserError(_TOO_FEW)

    def protocol(self, name: str, resolution: int) -> dict[str, Any]:
        """The extractor's identity, and k."""
        return {"extractor": dict(self.extractor.identity), "k": K[_figure(name)]}

    def start(self, resolution: int, names: Collection[str]) -> _Tally:
        """Nothing seen yet."""
        return _Tally(self, resolution, names)

    def reals(self, resolution: int) -> Cloud:
        """The training images' features and their neighbours; those of the last resolution are kept."""
        if self._known is None or self._known[0] != resolution:
            self._known = None  # before the next are there
            self._known = resolution, Cloud(*self._reference.features(self.extractor, resolution))
        return self._known[1]


class Cloud:
    """Features of one set, copied, with the neighbours of each within the set, found once.

    Attributes:
        centre: float32 [d], the features' mean.
        rows: float32 [n, d], the features less their mean.
        labels: int64 [n], or None.
    """

    def __init__(self, rows: Tensor, labels: Tensor | None = None) -> None:
        self.centre = rows.mean(0, dtype=torch.float64).float()
        self.rows, self.labels = rows - self.centre, labels
        self._near: dict[int | None, Tensor] = {}

    def of(self, label: int | None) -> tuple[Tensor, Tensor]:
        """The rows of a class, or all of them, and the distances of :func:`nearest`."""
        rows = _of(self.rows, self.labels, label)
        if label not in self._near:
            self._near[label] = nearest(rows)
        return rows, self._near[label]


class _Tally:
    def __init__(self, measure: Neighbours, resolution: int, names: Collection[str]) -> None:
        self._measure, self._resolution = measure, resolution
        self._figures = {name: _figure(name) for name in names}
        self._rows = Rows(measure.extractor.dimensions, measure.device, labelled=measure.classes > 0)

    def add(self, pictures: Pictures) -> None:
        self._rows.add(pictures.features(self._measure.extractor), pictures.labels)

    def gather(self, ranks: Ranks) -> None:
        self._rows.gather(ranks)

    def results(self) -> dict[str, Result]:
        fakes, labels = self._rows.taken()
        reals, classes = self._measure.reals(self._resolution), self._measure.classes
        fakes.sub_(reals.centre)
        asked = self._figures.values()
        whole = figures(*reals.of(None), fakes, asked)
        by_class = [figures(*reals.of(c), _of(fakes, labels, c), asked) for c in range(classes)]
        return {n: self._result(whole[f], [each[f] for each in by_class]) for n, f in self._figures.items()}

    def _result(self, value: float | None, by_class: list[float | None]) -> Result:
        if value is None:
            raise UserError(_TOO_FEW)
        return Result(value, tuple(by_class) if by_class else None)


def _figure(name: str) -> str:
    """Which of the four a metric is, whatever its features."""
    return name.partition("_")[0]


def _of(rows: Tensor, labels: Tensor | None, label: int | None) -> Tensor:
    return rows if label is None or labels is None else rows[labels == label]


def nearest(rows: Tensor, tile: int = TILE) -> Tensor:
    """Squared distances from each row to its nearest others.

    Args:
        rows: float32 [n, d].
        tile: distances to hold at a time.

    Returns:
        float32 [n, min(5, n - 1)], ascending.
    """
    count = max(min(max(K.values()), len(rows) - 1), 0)
    found = [rows.new_empty(0, count)]
    for start, distances in _tiles(rows, rows, tile):
        distances.diagonal(start).fill_(torch.inf)  # not a neighbour of itself
        found.append(distances.topk(count, largest=False).values)
    return torch.cat(found)


def figures(
    reals: Tensor, near: Tensor, fakes: Tensor, names: Collection[str], tile: int = TILE
) -> dict[str, float | None]:
    """The figures of one set of fakes.

    Args:
        reals: float32 [n, d].
        near: what :func:`nearest` says of them.
        fakes: float32 [m, d].
        names: which figures.
        tile: distances to hold at a time.

    Returns:
        By name; None where there are too few: k reals or fewer, no fake, or, for recall, k fakes or fewer.
    """
    n, m = len(reals), len(fakes)
    wanted = {name for name in names if m > (K[name] if name == "recall" else 0) and n > K[name]}
    if not wanted:
        return dict.fromkeys(names)
    around = {name: near[:, K[name] - 1] for name in wanted - {"recall"}}
    reach = nearest(fakes, tile)[:, K["recall"] - 1] if "recall" in wanted else None
    within = torch.zeros(m, dtype=torch.bool, device=fakes.device)
    balls, covered, recalled = 0, 0, 0
    for start, distances in _tiles(reals, fakes, tile):
        rows = slice(start, start + len(distances))
        if "precision" in wanted:
            within |= (distances <= around["precision"][rows, None]).any(0)
        if "density" in wanted:
            balls += int((distances < around["density"][rows, None]).sum())
        if "coverage" in wanted:
            covered += int((distances.amin(1) < around["coverage"][rows]).sum())
        if reach is not None:
            recalled += int((distances <= reach).any(1).sum())
    found = {
        "precision": int(within.sum()) / m,
        "recall": recalled / n,
        "density": balls / (K["density"] * m),
        "coverage": covered / n,
    }
    return {name: found[name] if name in wanted else None for name in names}


def _tiles(a: Tensor, b: Tensor, tile: int) -> Iterator[tuple[int, Tensor]]:
    """The number of a first row of ``a``, and squared distances from some rows to all of ``b``, the caller's own."""
    lengths = b.square().sum(1)
    for start in range(0, len(a), size := max(1, tile // max(1, len(b)))):
        rows = a[start : start + size]
        with full_float32():
            products = torch.addmm(lengths, rows, b.T, alpha=-2.0)
        yield start, products.add_(rows.square().sum(1, keepdim=True)).clamp_min_(0.0)
