"""Means over pairs of pictures, for metrics of how much pictures differ from one another.

Pairs are neighbours: of the pictures in their order, or of those of each class where there are classes, every picture
with the next. Generated pictures are independent of one another, so that these are random pairs. Released codes pair
pictures 0 and 1, 2 and 3 ...: of as many pictures half as many pairs, with the same expectation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from advgen.errors import UserError
from advgen.metrics.features import as_rgb
from advgen.metrics.measures import Bench, Result
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Ranks

PAIRS = "neighbours in the order of the pictures, within their class where there are classes"
"""What records say of them."""

Compare = Callable[[Tensor, Tensor], Tensor]
"""Two batches uint8 [n, 3, h, w] to a figure for each pair, [n]."""


class NeighbourPairs:
    """A tally of what pairs come to. In memory are two pictures of each class, in uint8.

    Args:
        compare: takes the figure of each pair, which must not depend on the other pairs.
        bench: whose data and device they are of.
        resolution: height of the pictures.
        names: of the metric.
    """

    def __init__(self, compare: Compare, bench: Bench, resolution: int, names: Collection[str]) -> None:
        spec = bench.spec
        self._compare, self._names, self._classes, self._device = compare, names, spec.classes, bench.device
        self._shape = (3, resolution, resolution * (spec.width or spec.resolution) // spec.resolution)
        self._first: dict[int, Tensor] = {}
        self._last: dict[int, Tensor] = {}
        self._sums = torch.zeros(2, max(1, spec.classes), dtype=torch.float64)  # of the figures, and of the pairs

    def add(self, pictures: Pictures) -> None:
        labels = [0] * len(pictures) if pictures.labels is None else pictures.labels.tolist()
        pairs: list[tuple[int, Tensor, Tensor]] = []
        for label, image in zip(labels, as_rgb(pictures.images), strict=True):
            if label in self._last:
                pairs.append((label, self._last[label], image))
            self._first.setdefault(label, image)
            self._last[label] = image
        # Copies: rows of the batch would keep all of it.
        for ends in (self._first, self._last):
            ends.update({label: ends[label].clone() for label in set(labels)})
        self._sums += self._of(pairs)

    def _of(self, pairs: list[tuple[int, Tensor, Tensor]]) -> Tensor:
        """Sums of figures and of pairs, float64 [2, classes]."""
        sums = torch.zeros_like(self._sums)
        if pairs:
            labels, one, other = zip(*pairs, strict=True)
            figures = self._compare(torch.stack(one), torch.stack(other)).double().cpu()
            sums.index_add_(1, torch.tensor(labels), torch.stack((figures, torch.ones_like(figures))))
        return sums

    def gather(self, ranks: Ranks) -> None:
        self._sums = ranks.total(self._sums)
        there = torch.zeros(1, self._sums.shape[1], dtype=torch.int64)
        there[0, list(self._first)] = 1
        there = ranks.rows(there)
        firsts, lasts = (iter(ranks.rows(self._rows(ends))) for ends in (self._first, self._last))
        pairs: list[tuple[int, Tensor, Tensor]] = []
        before: dict[int, Tensor] = {}
        for own in there:  # rank by rank, where one's pictures end and the next one's begin
            for label in own.nonzero()[:, 0].tolist():
                first = next(firsts)
                if label in before:
                    pairs.append((label, before[label], first))
                before[label] = next(lasts)
        self._sums += self._of(pairs)

    def _rows(self, ends: dict[int, Tensor]) -> Tensor:
        """uint8 [classes that are there, 3, h, w], in the order of the classes."""
        found = [ends[label] for label in sorted(ends)]
        return torch.stack(found) if found else torch.empty(0, *self._shape, dtype=torch.uint8, device=self._device)

    def results(self) -> dict[str, Result]:
        figures, pairs = self._sums
        if not pairs.any():
            raise UserError(f"{', '.join(self._names)}: no two pictures are of one class. Raise evaluation.samples.")
        by_class = tuple(
            value / count if count else None for value, count in zip(figures.tolist(), pairs.tolist(), strict=True)
        )
        overall = float(figures.sum() / pairs.sum())
        return dict.fromkeys(self._names, Result(overall, by_class if self._classes else None))
