"""What tests of metrics share: an extractor of few numbers, as much of a bench as measures look at, ranks in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from advgen.metrics.config import EvaluationConfig
from advgen.metrics.measures import Measure, Result, Tally
from advgen.metrics.pictures import Pictures
from advgen.metrics.statistics import FeatureStatistics


class Pixels:
    """Pixels as features; a linear map of them as logits."""

    identity: ClassVar[dict[str, Any]] = {"name": "pixels"}

    def __init__(self, dimensions: int, classes: int = 5) -> None:
        self.dimensions = dimensions
        self.matrix = torch.randn(dimensions, classes, generator=torch.Generator().manual_seed(9)) / 100

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1).float()

    def logits(self, features: Tensor) -> Tensor:
        return features @ self.matrix


def pixels(count: int, dimensions: int, seed: int, low: int = 0) -> Tensor:
    """uint8 [count, dimensions, 1, 1] in low..255."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(low, 256, (count, dimensions, 1, 1), generator=draw, dtype=torch.uint8)


def batches(images: Tensor, size: int = 16) -> Iterator[Pictures]:
    for part in images.split(size):
        yield Pictures(part)


def bench(reals: Tensor, extractor: Any, **config: Any) -> Any:
    """Of these real images, without classes; what is asked to load an extractor gives this one."""

    def statistics(extractor: Any, resolution: int) -> FeatureStatistics:
        found = FeatureStatistics(extractor.dimensions)
        found.add(extractor(reals))
        return found

    def features(extractor: Any, resolution: int) -> tuple[Tensor, None]:
        return extractor(reals), None

    return SimpleNamespace(
        config=EvaluationConfig(**config),
        device=torch.device("cpu"),
        extractor=lambda load: extractor,
        reference=SimpleNamespace(
            pictures=lambda resolution: batches(reals), features=features, statistics=statistics, count=len(reals)
        ),
    )


def taken(measure: Measure, name: str, images: Tensor) -> Result:
    """The figure of one process."""
    tally = measure.start(1, [name])
    for pictures in batches(images):
        tally.add(pictures)
    return tally.results()[name]


class Slice:
    """One of several ranks, which are threads of this process."""

    def __init__(self, index: int, count: int, shared: list[Any], barrier: threading.Barrier) -> None:
        self.index, self.count, self._shared, self._barrier = index, count, shared, barrier

    def _exchange(self, values: Tensor) -> list[Tensor]:
        self._shared[self.index] = values
        self._barrier.wait(60)
        found = list(self._shared)
        self._barrier.wait(60)
        return found

    def total(self, values: Tensor) -> Tensor:
        return torch.stack(self._exchange(values)).sum(0)

    def rows(self, rows: Tensor) -> Tensor:
        return torch.cat(self._exchange(rows))


def taken_by(ranks: int, measure: Measure, name: str, images: Tensor) -> list[Result]:
    """The figures of so many ranks, each of which was shown its slice."""
    shared: list[Any] = [None] * ranks
    barrier, results = threading.Barrier(ranks), [Result(0.0)] * ranks

    def work(index: int, tally: Tally) -> None:
        start, stop = (len(images) * edge // ranks for edge in (index, index + 1))
        for pictures in batches(images[start:stop]) if stop > start else ():
            tally.add(pictures)
        tally.gather(Slice(index, ranks, shared, barrier))
        results[index] = tally.results()[name]

    work_of: Callable[[int], threading.Thread] = lambda i: threading.Thread(  # noqa: E731
        target=work, args=(i, measure.start(1, [name]))
    )
    threads = [work_of(index) for index in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
