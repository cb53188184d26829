"""Precision, recall, density and coverage, held to their definitions written out in float64."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch

from advgen.errors import UserError
from advgen.metrics.neighbours import Cloud, K, Neighbours, figures, nearest
from advgen.metrics.pictures import Pictures

NAMES = tuple(K)


def reference(reals: np.ndarray, fakes: np.ndarray) -> dict[str, float]:
    """By the papers' equations, one pair at a time: Kynkaanniemi et al. (1, 2), Naeem et al. (4, 5)."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.sqrt(((a - b) ** 2).sum()))

    def radius(points: np.ndarray, i: int, k: int) -> float:
        return sorted(distance(points[i], points[j]) for j in range(len(points)) if j != i)[k - 1]

    n, m = len(reals), len(fakes)
    three, five = ([radius(reals, i, k) for i in range(n)] for k in (3, 5))
    of_fakes = [radius(fakes, j, 3) for j in range(m)]
    between = [[distance(reals[i], fakes[j]) for j in range(m)] for i in range(n)]
    return {
        "precision": sum(any(between[i][j] <= three[i] for i in range(n)) for j in range(m)) / m,
        "recall": sum(any(between[i][j] <= of_fakes[j] for j in range(m)) for i in range(n)) / n,
        "density": sum(between[i][j] < five[i] for i in range(n) for j in range(m)) / (5 * m),
        "coverage": sum(min(between[i]) < five[i] for i in range(n)) / n,
    }


def clouds(n: int, m: int, dimensions: int, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Reals of a normal distribution; of the fakes half far off, half of one side of it: no figure is 0 or 1."""
    draw = np.random.default_rng(n + m + dimensions)
    reals = draw.standard_normal((n, dimensions))
    fakes = 0.8 * draw.standard_normal((m, dimensions))
    fakes[:, 0] = abs(fakes[:, 0])
    fakes[::2] += 4.0
    return (reals + offset).astype(np.float32), (fakes + offset).astype(np.float32)


@pytest.mark.parametrize("offset", [0.0, 300.0])
@pytest.mark.parametrize(("n", "m", "dimensions"), [(60, 45, 3), (40, 30, 6), (6, 6, 2)])
def test_the_figures_are_those_of_the_definitions(n: int, m: int, dimensions: int, offset: float) -> None:
    # Counts: equal as long as float32 puts no distance on the other side of a radius. Far off zero it would, had the
    # features not been centred.
    reals, fakes = clouds(n, m, dimensions, offset)
    cloud = Cloud(torch.from_numpy(reals.copy()))
    found = figures(*cloud.of(None), torch.from_numpy(fakes) - cloud.centre, NAMES)
    wanted = reference(reals.astype(np.float64), fakes.astype(np.float64))
    assert found == pytest.approx(wanted, abs=1e-12)
    if n > 6:
        assert all(0.05 < value < 0.95 for value in wanted.values()), wanted


@pytest.mark.parametrize("tile", [1, 100, 333, 1 << 20])
def test_tiles_do_not_change_the_figures(tile: int) -> None:
    reals, fakes = (torch.from_numpy(each) for each in clouds(70, 90, 5))
    near = nearest(reals)
    assert near.shape == (70, 5)
    assert torch.allclose(nearest(reals, tile), near, rtol=1e-5)
    assert figures(reals, nearest(reals, tile), fakes, NAMES, tile) == figures(reals, near, fakes, NAMES)


def test_the_same_set_twice_is_wholly_covered() -> None:
    # Each fake is a real: in its own ball, and in those of the reals whose neighbour it is. In an open ball lie a real
    # itself and k - 1 neighbours, as the k-th lies on the edge: density is 1, but for float32 at the edges.
    reals, _ = (torch.from_numpy(each) for each in clouds(50, 10, 4))
    found = figures(reals, nearest(reals), reals, NAMES)
    assert (found["precision"], found["recall"], found["coverage"]) == (1.0, 1.0, 1.0)
    assert found["density"] == pytest.approx(1.0, abs=0.1)


def test_only_what_is_asked_for_is_given_and_too_few_give_none() -> None:
    reals, fakes = (torch.from_numpy(each) for each in clouds(20, 20, 4))
    near = nearest(reals)
    whole = figures(reals, near, fakes, NAMES)
    assert figures(reals, near, fakes, ["coverage"]) == {"coverage": whole["coverage"]}
    few = figures(reals[:4], nearest(reals[:4]), fakes, NAMES)
    assert [name for name, value in few.items() if value is None] == ["density", "coverage"]
    few = figures(reals, near, fakes[:3], NAMES)
    assert [name for name, value in few.items() if value is None] == ["recall"]
    for n, m in ((0, 20), (1, 20), (20, 0), (0, 0)):
        assert set(figures(reals[:n], nearest(reals[:n]), fakes[:m], NAMES).values()) == {None}


class Extractor:
    identity: ClassVar[dict[str, Any]] = {"name": "pixels"}
    dimensions = 3

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1).float()


def bench(reals: torch.Tensor, labels: torch.Tensor | None, samples: int, classes: int) -> Any:
    """As much of a bench as neighbours look at."""

    def features(extractor: Extractor, resolution: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        return extractor(reals), labels

    return SimpleNamespace(
        config=SimpleNamespace(samples=samples),
        spec=SimpleNamespace(classes=classes),
        extractor=lambda load: load(None),
        reference=SimpleNamespace(features=features, count=len(reals)),
        device=torch.device("cpu"),
    )


def batches(images: torch.Tensor) -> list[tuple[torch.Tensor, slice]]:
    return [(images[start : start + 16], slice(start, start + 16)) for start in range(0, len(images), 16)]


def pixels(count: int, seed: int) -> torch.Tensor:
    """Images of one pixel, three channels."""
    draw = np.random.default_rng(seed)
    return torch.from_numpy(draw.integers(0, 256, (count, 3, 1, 1), dtype=np.uint8))


def test_each_class_is_held_against_the_reals_of_it() -> None:
    reals, fakes = pixels(60, 1), pixels(50, 2)
    # Of class 2 there are five reals (k + 1 is six), of class 3 no fake, of class 4 neither.
    of_reals = torch.tensor([0] * 30 + [1] * 15 + [2] * 5 + [3] * 10)
    of_fakes = torch.arange(50) % 3
    measure = Neighbours(bench(reals, of_reals, 50, 5), cast(Any, lambda _: Extractor()))
    assert measure.protocol("recall", 1) == {"extractor": {"name": "pixels"}, "k": 3}
    assert measure.protocol("density", 1)["k"] == 5
    tally = measure.start(1, NAMES)
    for part, rows in batches(fakes):
        tally.add(Pictures(part, of_fakes[rows]))
    results = tally.results()
    a, b = (each.flatten(1).numpy().astype(np.float64) for each in (reals, fakes))
    whole = reference(a, b)
    classes = [reference(a[(of_reals == c).numpy()], b[(of_fakes == c).numpy()]) for c in (0, 1)]
    for name in NAMES:
        assert results[name].value == pytest.approx(whole[name], abs=1e-12)
        by_class = results[name].per_class
        assert by_class is not None and len(by_class) == 5
        assert by_class[:2] == pytest.approx([each[name] for each in classes], abs=1e-12)
        assert (by_class[2] is None) == (K[name] == 5) and by_class[3:] == (None, None)


def test_too_few_images_are_refused_before_any_is_drawn() -> None:
    for reals, samples in ((60, 5), (5, 60)):
        with pytest.raises(UserError, match=r"precision, recall, density, coverage: need more than 5 .*samples"):
            Neighbours(bench(pixels(reals, 1), None, samples, 0), cast(Any, lambda _: Extractor()))


def test_data_without_classes_have_no_figures_of_classes() -> None:
    measure = Neighbours(bench(pixels(20, 1), None, 20, 0), cast(Any, lambda _: Extractor()))
    tally = measure.start(1, ["precision"])
    tally.add(Pictures(pixels(20, 3)))
    assert tally.results()["precision"].per_class is None
