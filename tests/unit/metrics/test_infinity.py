"""The extrapolated Frechet distance: Gaussians whose distance is known, and lines through points."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import scipy.stats
import torch

from advgen.errors import UserError
from advgen.metrics.frechet import frechet_distance
from advgen.metrics.infinity import Infinity, extrapolated_distance, intercept
from advgen.metrics.statistics import FeatureStatistics
from tests.unit.metrics.tallies import Pixels, bench, pixels, taken, taken_by

D = 24


def gaussian() -> FeatureStatistics:
    """The moments of N(0, 1) themselves."""
    tensors = {"count": torch.tensor([11]), "mean": torch.zeros(D).double(), "scatter": 10 * torch.eye(D).double()}
    return FeatureStatistics.from_tensors(tensors)


def test_the_line_is_that_of_scipy() -> None:
    draw = np.random.default_rng(0)
    x = 1 / np.linspace(500, 5000, 15)
    y = 3 + 700 * x + 0.01 * draw.standard_normal(15)
    found, wanted = intercept(x, y), cast(Any, scipy.stats.linregress(x, y))
    assert found.value == pytest.approx(wanted.intercept, rel=1e-12)
    assert found.standard_error == pytest.approx(wanted.intercept_stderr, rel=1e-9)


def test_the_bias_of_finitely_many_images_is_gone() -> None:
    """N(0, 1) from itself in 24 dimensions."""
    estimates, plain = [], []
    for seed in range(10):
        features = torch.randn(2000, D, generator=torch.Generator().manual_seed(seed))
        estimates.append(extrapolated_distance(features, gaussian(), range(200, 2001, 200), seed).value)
        statistics = FeatureStatistics(D)
        statistics.add(features)
        plain.append(frechet_distance(statistics, gaussian()))
    # A mean is off by D / n on average, a covariance's root by D (D + 1) / 4n.
    assert np.mean(plain) == pytest.approx(D / 2000 + D * (D + 1) / 8000, rel=0.05)
    assert abs(np.mean(estimates)) < 0.1 * np.mean(plain)


def test_the_measure_gives_the_same_on_any_number_of_ranks() -> None:
    reals, fakes = pixels(80, 3, 0), pixels(61, 3, 1, low=40)
    measure = Infinity(bench(reals, Pixels(3), samples=61, seed=4), cast(Any, None))
    sizes = measure.sizes(61)
    assert len(sizes) == 15 and (sizes[0], sizes[-1]) == (6, 61)
    assert measure.protocol("fid_infinity", 1)["extrapolation"] == {"points": 15, "smallest": 6}
    found = taken(measure, "fid_infinity", fakes)
    reference = measure.opposite.statistics(1)
    assert found == extrapolated_distance(fakes.flatten(1).float(), reference, sizes, seed=4)
    for ranks in (1, 3, 70):
        assert taken_by(ranks, measure, "fid_infinity", fakes) == [found] * ranks


def test_too_few_images_for_the_dimensions_are_refused() -> None:
    with pytest.raises(UserError, match="at least 8 images, twice the 3 features and one, and has 7"):
        Infinity(bench(pixels(80, 3, 0), Pixels(3), samples=7), cast(Any, None))
    measure = Infinity(bench(pixels(80, 3, 0), Pixels(3), samples=8), cast(Any, None))
    assert measure.sizes(8)[0] == 4
    with pytest.raises(UserError, match="held_out_samples"):
        taken(measure, "fid_infinity", pixels(7, 3, 1))
