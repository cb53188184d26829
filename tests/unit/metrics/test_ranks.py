"""One figure on any number of ranks: slices, what goes round, and every tally that was there before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from advgen.game import ImageSpec
from advgen.metrics import MetricFiles
from advgen.metrics.answers import Answers
from advgen.metrics.conditions import Judged, Styles
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.frechet import Frechet
from advgen.metrics.measures import Bench, Measure, Result
from advgen.metrics.modes import ModesOfPoints
from advgen.metrics.neighbours import Neighbours
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import GROUP, Alone, Ranks, any_of, batches_of, bytes_of_first, flags_of_first, slice_of
from advgen.metrics.reals import Reals
from advgen.metrics.reference import reference_statistics
from advgen.metrics.statistics import FeatureStatistics
from advgen.metrics.two_sample import TwoSample
from tests.unit.metrics.threads import ThreadRanks, on_ranks

FAKES, REALS, CLASSES = 300, 260, 3


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("pictures", [0, 1, 63, 64, 65, 200, 1000])
def test_slices_are_of_whole_groups_and_leave_nothing_out(pictures: int, count: int) -> None:
    ranks = [cast(Ranks, SimpleNamespace(index=index, count=count)) for index in range(count)]
    slices = [slice_of(pictures, each) for each in ranks]
    assert [number for each in slices for number in each] == list(range(pictures))
    assert all(each.start % GROUP == 0 or not each for each in slices)
    groups = [-(-len(each) // GROUP) for each in slices]
    assert max(groups) - min(groups) <= 1
    for each, own in zip(ranks, slices, strict=True):
        for size in (1, 7, 64, 100):
            batches = list(batches_of(pictures, each, size))
            assert [number for batch in batches for number in batch] == list(own)
            assert all(batch.start % GROUP == 0 and (len(batch) >= size or batch is batches[-1]) for batch in batches)


def test_what_the_first_rank_says_is_known_to_all() -> None:
    def said(ranks: ThreadRanks) -> tuple[bytes, bytes, list[bool], bool, bool]:
        first = ranks.index == 0
        return (
            bytes_of_first(b"runs \xc3\xa9" if first else b"something else", ranks),
            bytes_of_first(b"", ranks),
            flags_of_first([first, not first], ranks),
            any_of(ranks.index == 2, ranks),
            any_of(False, ranks),
        )

    assert on_ranks(3, said) == [(b"runs \xc3\xa9", b"", [True, False], True, False)] * 3


class Pixels:
    """A feature network of the tests': the pixels."""

    dimensions = 3

    def __init__(self) -> None:
        self.identity: dict[str, Any] = {"name": "pixels"}

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1).float()


class Stream:
    """Images of one pixel with labels."""

    digest = "pixels"

    def __init__(self, count: int, seed: int, shift: float) -> None:
        draw = np.random.default_rng(seed)
        values = 128 + 20 * draw.standard_normal((count, 3, 1, 1)) + shift
        self.images = values.round().clip(0, 255).astype(np.uint8)
        self.labels = draw.integers(0, CLASSES, count)

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, indices: Any, level: int | None = None) -> Any:
        return SimpleNamespace(images=self.images[indices], labels=self.labels[indices], label_map=None)


def bench(ranks: Ranks, cache: Path) -> Bench:
    config = EvaluationConfig(samples=FAKES, cache=str(cache))
    reals = Reals(cast(Any, Stream(REALS, 1, 0.0)), REALS, config, torch.device("cpu"), labelled=True, ranks=ranks)
    spec = ImageSpec(1, 3, CLASSES, points="grid25")
    return Bench(config, MetricFiles(), spec, reals, None)


def judged(bench: Bench) -> Measure:
    judge: Any = lambda images: images.flatten(1).long().sum(1) % CLASSES  # noqa: E731
    return Judged(bench, "classifier", lambda bench, resolution: judge, lambda pictures: pictures.labels, CLASSES)


def styles(bench: Bench) -> Measure:
    measure = Styles.__new__(Styles)  # its features need packages of an extra; they are not what is looked at
    measure.samples = FAKES
    measure._distance = cast(Any, lambda images: float(images.double().std()))
    return measure


MEASURES: dict[str, tuple[Callable[[Bench], Measure], tuple[str, ...]]] = {
    "frechet": (lambda bench: Frechet(bench, cast(Any, lambda _: Pixels())), ("fd_lite0",)),
    "neighbours": (
        lambda bench: Neighbours(bench, cast(Any, lambda _: Pixels())),
        ("precision", "recall", "density", "coverage"),
    ),
    "two sample": (lambda bench: TwoSample(bench, cast(Any, lambda _: Pixels())), ("c2st", "ratio_kl")),
    "answers": (lambda bench: Answers(bench, "classification_error"), ("classification_error",)),
    "judged": (judged, ("recognised",)),
    "styles": (styles, ("style_diversity",)),
    "modes": (ModesOfPoints, ("modes", "high_quality")),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_figure_is_the_same_on_any_number_of_ranks(name: str, tmp_path: Path) -> None:
    """Of five ranks one has no picture at all."""
    make, names = MEASURES[name]
    fakes = Stream(FAKES, 2, 8.0)

    def shown(own: range) -> Iterator[Pictures]:
        for start in range(own.start, own.stop, 37):
            rows = slice(start, min(start + 37, own.stop))
            images, labels = torch.from_numpy(fakes.images[rows]), torch.from_numpy(fakes.labels[rows])
            points = images.float() / 32 - 4 if name == "modes" else images
            points = points[:, :2] if name == "modes" else points

            def again(number: int, images: Tensor = images) -> Tensor:
                return images + number

            yield Pictures(points, labels, answers=(labels + images[:, 0, 0, 0]) % CLASSES, again=again)

    def taken(ranks: Ranks) -> dict[str, Result]:
        cache = tmp_path / f"{ranks.count}"
        tally = make(bench(ranks, cache)).start(1, names)
        for pictures in shown(slice_of(FAKES, ranks)):
            tally.add(pictures)
        tally.gather(ranks)
        return dict(tally.results())

    alone = taken(Alone())
    assert set(alone) == set(names) and all(result.value != 0 for result in alone.values())
    for count in (2, 5):
        for found in on_ranks(count, taken):
            for metric, result in alone.items():
                assert found[metric].value == pytest.approx(result.value, rel=1e-9), (metric, count)
                assert found[metric].per_class == result.per_class, (metric, count)


def test_features_of_the_reference_are_taken_once_for_all_that_ask(tmp_path: Path) -> None:
    seen: list[int] = []

    class Counted(Pixels):
        def __call__(self, images: Tensor) -> Tensor:
            seen.append(len(images))
            return super().__call__(images)

    of, extractor = bench(Alone(), tmp_path), Counted()
    names = ("recall", "c2st")
    measures = [make(of, cast(Any, lambda _: extractor)) for make in (Neighbours, TwoSample)]
    pictures = torch.from_numpy(Stream(FAKES, 2, 8.0).images)
    figures: list[Result] = []
    for measure, name in [*zip(measures, names, strict=True)] * 2:
        tally = measure.start(1, (name,))
        tally.add(Pictures(pictures, torch.zeros(FAKES, dtype=torch.int64)))
        figures.append(tally.results()[name])
    assert sum(seen) == REALS + 4 * FAKES
    assert figures[:2] == figures[2:]  # what one makes of them does not change them for the other
    other = Counted()
    assert torch.equal(of.reference.features(other, 1)[0], of.reference.features(Pixels(), 1)[0])
    assert sum(seen) == 2 * REALS + 4 * FAKES


def test_statistics_of_parts_are_those_of_the_whole() -> None:
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((200, 5)) + 1000.0)
    parts = [rows[:70], rows[:0], rows[70:]]

    def gathered(ranks: ThreadRanks) -> FeatureStatistics:
        statistics = FeatureStatistics(5)
        statistics.add(parts[ranks.index])
        statistics.gather(ranks)
        return statistics

    for found in on_ranks(3, gathered):
        assert found.count == 200
        np.testing.assert_allclose(found.mean, np.mean(rows.numpy(), 0), rtol=1e-13)
        np.testing.assert_allclose(found.covariance, np.cov(rows.numpy().T), rtol=1e-10, atol=1e-12)


def test_only_the_first_rank_reads_and_writes_the_cache(tmp_path: Path) -> None:
    """The others see an empty disk of their own, and yet hold the same."""
    calls: list[int] = []

    def asked(ranks: ThreadRanks) -> FeatureStatistics:
        def compute() -> FeatureStatistics:
            calls.append(ranks.index)
            statistics = FeatureStatistics(2)
            statistics.add(torch.randn(9, 2, generator=torch.Generator().manual_seed(ranks.index)))
            statistics.gather(ranks)
            return statistics

        return reference_statistics({"what": "a"}, tmp_path / f"disk-of-{ranks.index}", compute, ranks)

    first = on_ranks(3, asked)
    assert sorted(calls) == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["disk-of-0"]
    second = on_ranks(3, asked)
    assert len(calls) == 3, "what is there is not computed again"
    for found in (*first, *second):
        assert found.count == 27 and torch.equal(found.mean, first[0].mean)
        assert torch.equal(found.covariance, first[0].covariance)
