"""Modes and high quality, counted by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from advgen.errors import UserError
from advgen.game import ImageSpec
from advgen.metrics import METRICS
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.measures import Bench
from advgen.metrics.modes import near
from advgen.metrics.pictures import Pictures

NAMES = ("modes", "high_quality")


def bench(points: str | None) -> Bench:
    spec = ImageSpec(1, 2, points=points, bounded=False)
    reals: Any = SimpleNamespace(device=torch.device("cpu"))
    return cast(Bench, SimpleNamespace(config=EvaluationConfig(metrics=NAMES), spec=spec, device=reals.device))


def figures(*batches: list[tuple[float, ...]], points: str = "grid25") -> dict[str, float]:
    """The two figures of points that come in batches."""
    tally = METRICS["modes"].measure(bench(points)).start(1, NAMES)
    for rows in batches:
        tally.add(Pictures(torch.tensor(rows)[:, :, None, None]))
    return {name: result.value for name, result in tally.results().items()}


def test_near_means_within_the_radius_of_the_nearest_centre() -> None:
    centres = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    points = torch.tensor([[0.0, 0.15], [0.0, 0.16], [2.1, 0.1], [1.0, 0.0], [2.0, 0.0]])[:, :, None, None]
    assert near(points, centres, 0.1501).tolist() == [1, 2]
    assert near(points, centres, 10.0).sum() == 5


def test_a_mode_is_covered_by_twenty_of_ten_thousand() -> None:
    far = (100.0, 100.0)
    covered, bare = [(4.0, -4.0)] * 20, [(-2.0, 0.14)] * 19
    rest = [far] * (10_000 - 39)
    assert figures(covered + bare, rest) == {"modes": 1.0, "high_quality": pytest.approx(39 / 10_000)}


def test_of_fewer_points_as_many_in_proportion() -> None:
    # 1,000 points: two cover a mode, one does not.
    rows = [(0.0, 0.0)] * 2 + [(2.0, 2.0)] + [(1.0, 1.0)] * 997
    assert figures(rows) == {"modes": 1.0, "high_quality": pytest.approx(3 / 1000)}


def test_four_points_have_a_radius_of_their_own() -> None:
    rows = [(1.0, -1.0, -1.0, -1.0), (-0.8, 0.8, -0.8, -0.8), (-1.0, -1.0, 0.4, -1.0), (-1.0, -1.0, -1.0, 0.6)]
    assert figures(rows, points="four_points") == {"modes": 3.0, "high_quality": 0.75}


@pytest.mark.parametrize("points", [None, "swiss_roll"])
def test_data_without_modes_are_refused(points: str | None) -> None:
    with pytest.raises(UserError, match=f"^modes, high_quality: .* data.points is {points}"):
        METRICS["modes"].measure(bench(points))
