"""What tests of metrics share: an extractor of few numbers, as much of a bench as measures look at, slices of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from advgen.metrics.config import EvaluationConfig
from advgen.metrics.measures import Measure, Result
from advgen.metrics.pictures import Pictures
from advgen.metrics.statistics import FeatureStatistics
from tests.unit.metrics.threads import ThreadRanks, on_ranks


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


def taken_by(ranks: int, measure: Measure, name: str, images: Tensor) -> list[Result]:
    """The figures of so many ranks, each of which was shown its slice."""

    def work(rank: ThreadRanks) -> Result:
        start, stop = (len(images) * edge // rank.count for edge in (rank.index, rank.index + 1))
        tally = measure.start(1, [name])
        for pictures in batches(images[start:stop]) if stop > start else ():
            tally.add(pictures)
        tally.gather(rank)
        return tally.results()[name]

    return on_ranks(ranks, work)
