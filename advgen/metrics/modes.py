"""How many modes of a set of points are covered, and what share of points lies at one (Srivastava et al. 2017)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from advgen.data.points import SETS
from advgen.errors import UserError
from advgen.metrics.measures import Bench, Result
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Ranks

LEAST, OF = 20, 10_000
"""A mode is covered that so many of so many points are near to; of fewer or more points in proportion."""


class ModesOfPoints:
    """``modes`` and ``high_quality``: points within three standard deviations of a centre, and the modes they cover.

    Raises:
        UserError: the data are no set of points with modes.
    """

    def __init__(self, bench: Bench) -> None:
        known = None if bench.spec.points is None else SETS[bench.spec.points]
        if known is None or known.centres is None:
            raise UserError(
                f"modes, high_quality: are of points with modes, and data.points is {bench.spec.points}. Leave them "
                "out of evaluation.metrics."
            )
        self.samples = bench.config.samples
        self._centres, self._radius = torch.from_numpy(known.centres).to(bench.device), known.radius

    def protocol(self, name: str, resolution: int) -> dict[str, Any]:
        """What near and covered mean."""
        return {"radius": self._radius, "covered": f"{LEAST} of {OF}"}

    def start(self, resolution: int, names: Collection[str]) -> _Near:
        """Nothing seen yet."""
        return _Near(self._centres, self._radius, names)


class _Near:
    def __init__(self, centres: Tensor, radius: float, names: Collection[str]) -> None:
        self._centres, self._radius, self._names = centres, radius, names
        self._counts, self._seen = torch.zeros(len(centres), dtype=torch.int64), 0

    def add(self, pictures: Pictures) -> None:
        self._counts += near(pictures.images, self._centres, self._radius).cpu()
        self._seen += len(pictures)

    def gather(self, ranks: Ranks) -> None:
        *counts, seen = ranks.total(torch.tensor([*self._counts.tolist(), self._seen])).tolist()
        self._counts, self._seen = torch.tensor(counts), seen

    def results(self) -> dict[str, Result]:
        covered = self._counts * OF >= LEAST * self._seen
        found = {"modes": float(covered.sum()), "high_quality": float(self._counts.sum()) / self._seen}
        return {name: Result(found[name]) for name in self._names}


def near(points: Tensor, centres: Tensor, radius: float) -> Tensor:
    """How many points lie at each centre: int64 [modes]. The nearest centre counts, within the radius.

    Args:
        points: float [n, d, 1, 1].
        centres: float64 [modes, d].
        radius: greatest Euclidean distance.
    """
    distances, nearest = torch.cdist(points.flatten(1).double(), centres).min(dim=1)
    return nearest[distances <= radius].bincount(minlength=len(centres))
