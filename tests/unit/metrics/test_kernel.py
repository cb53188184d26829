"""The kernel distance against its definition, its standard error against repeated draws of both sets."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from advgen.errors import UserError
from advgen.metrics.kernel import Kernel, draw_subsets, kernel_distance, squared_mmd
from tests.unit.metrics.tallies import Pixels, bench, pixels, taken, taken_by


def by_definition(a: np.ndarray, b: np.ndarray) -> float:
    """Gretton et al. 2012, eq. 3, one pair at a time, with Binkowski et al.'s kernel."""

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (float(np.dot(x, y)) / len(x) + 1.0) ** 3

    n, m = len(a), len(b)
    within_a = sum(kernel(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_b = sum(kernel(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    across = sum(kernel(x, y) for x in a for y in b) / (n * m)
    return within_a + within_b - 2 * across


def sets(n: int, d: int, seed: int, shift: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    return a, b + shift


@pytest.mark.parametrize(("n", "d"), [(2, 3), (20, 4), (30, 1)])
def test_the_estimate_is_that_of_the_definition(n: int, d: int) -> None:
    a, b = sets(n, d, 0)
    b = b[: n - 3] if n > 10 else b
    assert squared_mmd(a, b).item() == pytest.approx(by_definition(a.numpy(), b.numpy()), rel=1e-10)


def test_the_estimate_is_0_on_average_for_equal_distributions() -> None:
    found = torch.stack([squared_mmd(*sets(20, 3, seed, shift=0.0)) for seed in range(400)])
    assert found.min() < 0
    assert abs(found.mean()) < 4 * found.std() / 20  # four standard errors of the mean of 400


def test_the_figure_is_the_mean_over_the_drawn_subsets() -> None:
    a, b = sets(60, 4, 0)
    b = b[:50]
    first, second = draw_subsets(3, "a", 60, 7, 20), draw_subsets(3, "b", 50, 7, 20)
    assert first.shape == (7, 20) and int(second.max()) < 50
    assert all(len(set(row)) == 20 for row in first.tolist())
    assert len({tuple(row) for row in first.tolist()}) == 7
    wanted = [by_definition(a[i].numpy(), b[j].numpy()) for i, j in zip(first, second, strict=True)]
    found = kernel_distance(a, b, 7, 20, seed=3)
    assert found.value == pytest.approx(np.mean(wanted), rel=1e-10)
    assert found.standard_error == pytest.approx(np.std(wanted, ddof=1) * np.sqrt(1 / 7 + 20 / 30), rel=1e-10)
    assert kernel_distance(a, b, 7, 20, seed=4).value != found.value
    assert kernel_distance(a, b, 1, 20).standard_error is None
    assert kernel_distance(a, b, 5, 50).standard_error is None  # all subsets of b are b


def test_the_standard_error_is_the_deviation_over_new_images() -> None:
    """That over the subsets alone would be of the draws, and about half as large here."""
    results = [kernel_distance(*sets(200, 3, seed), 50, 20, seed) for seed in range(150)]
    deviation = np.std([each.value for each in results], ddof=1)
    errors = [each.standard_error for each in results if each.standard_error is not None]
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(deviation, rel=0.2)  # 150 draws tell it to 6 %


def test_too_few_images_are_refused_before_any_is_drawn_and_when_they_are_there() -> None:
    reals, config = pixels(30, 3, 0), {"kernel_subset_size": 20, "kernel_subsets": 3}
    for given, samples, message in ((30, 19, "19 generated images"), (19, 30, "19 training images")):
        with pytest.raises(UserError, match=rf"{message} are fewer than the 20 .*kernel_subset_size"):
            Kernel(bench(reals[:given], Pixels(3), samples=samples, **config), cast(Any, None))
    measure = Kernel(bench(reals, Pixels(3), samples=30, **config), cast(Any, None))
    with pytest.raises(UserError, match="19 pictures are fewer"):
        taken(measure, "kid", pixels(19, 3, 1))
    with pytest.raises(ValueError, match="cannot be drawn"):
        kernel_distance(torch.zeros(3, 2), torch.zeros(9, 2), 1, 4)


def test_the_measure_compares_with_the_training_images_on_any_number_of_ranks() -> None:
    reals, fakes = pixels(40, 3, 0), pixels(37, 3, 1, low=60)
    config = {"samples": 37, "seed": 5, "kernel_subset_size": 20, "kernel_subsets": 3}
    measure = Kernel(bench(reals, Pixels(3), **config), cast(Any, None))
    assert measure.protocol("kid", 1) == {
        **{"extractor": {"name": "pixels"}, "kernel": "(x.y/d+1)^3", "subsets": 3, "subset_size": 20}
    }
    found = taken(measure, "kid", fakes)
    assert found == kernel_distance(reals.flatten(1).float(), fakes.flatten(1).float(), 3, 20, seed=5)
    for ranks in (1, 3, 40):  # of 40 ranks some were shown nothing
        assert taken_by(ranks, measure, "kid", fakes) == [found] * ranks
