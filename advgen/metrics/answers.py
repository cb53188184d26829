"""How often the game's own networks, or a probe of its features, take held-out images for another class."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from advgen.metrics.measures import Bench, Result
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Ranks


class Answers:
    """``classification_error`` and ``probe_error``.

    Raises:
        UserError: the data have no classes.
    """

    def __init__(self, bench: Bench, name: str, about: Mapping[str, Any] | None = None) -> None:
        bench.require(bench.spec.classes, (name,), "classes", "data.classes")
        self.samples, self._classes, self._about = bench.config.samples, bench.spec.classes, dict(about or {})

    def protocol(self, name: str, resolution: int) -> dict[str, Any]:
        """How answers were had, where all records do not say it."""
        return self._about

    def start(self, resolution: int, names: Collection[str]) -> _Errors:
        """Nothing seen yet."""
        return _Errors(self._classes, names)


class _Errors:
    def __init__(self, classes: int, names: Collection[str]) -> None:
        self._names = names
        self._seen, self._wrong = torch.zeros(2, classes, dtype=torch.int64)

    def add(self, pictures: Pictures) -> None:
        assert pictures.labels is not None and pictures.answers is not None
        labels, wrong = pictures.labels.cpu(), (pictures.answers != pictures.labels).cpu()
        self._seen += labels.bincount(minlength=len(self._seen))
        self._wrong += labels[wrong].bincount(minlength=len(self._seen))

    def gather(self, ranks: Ranks) -> None:
        self._seen, self._wrong = ranks.total(torch.stack((self._seen, self._wrong)))

    def results(self) -> dict[str, Result]:
        pairs = zip(self._wrong.tolist(), self._seen.tolist(), strict=True)
        by_class = tuple(wrong / seen if seen else None for wrong, seen in pairs)
        return dict.fromkeys(self._names, Result(int(self._wrong.sum()) / int(self._seen.sum()), by_class))
