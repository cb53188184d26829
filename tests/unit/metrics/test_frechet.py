"""The Frechet distance against scipy's matrix root and against closed forms."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import scipy.linalg
import torch

from advgen import files
from advgen.errors import UserError
from advgen.metrics.frechet import Frechet, covariance_factor, frechet_distance, trace_of_root
from advgen.metrics.statistics import FeatureStatistics
from tests.unit.metrics.tallies import Pixels, bench, pixels, taken


def _sample(n: int, d: int, seed: int, shift: float = 0.0) -> FeatureStatistics:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    statistics = FeatureStatistics(d)
    statistics.add(torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing + shift)
    return statistics


def _with_moments(mean: torch.Tensor, covariance: torch.Tensor) -> FeatureStatistics:
    """Statistics that have exactly these moments, of 11 vectors."""
    tensors = {"count": torch.tensor([11]), "mean": mean.double(), "scatter": covariance.double() * 10}
    return FeatureStatistics.from_tensors(tensors)


def _by_scipy(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Heusel et al. 2017, eq. 6, to the letter."""
    difference = (a.mean - b.mean).numpy()
    covariance_a, covariance_b = a.covariance.numpy(), b.covariance.numpy()
    root = np.real(np.asarray(scipy.linalg.sqrtm(covariance_a @ covariance_b)))
    return float(difference @ difference + np.trace(covariance_a + covariance_b - 2 * root))


@pytest.mark.parametrize(("n", "d"), [(500, 40), (1500, 300)])
def test_full_rank_equals_scipys_matrix_root(n: int, d: int):
    a, b = _sample(n, d, 0), _sample(n - 100, d, 1, shift=0.7)
    assert frechet_distance(a, b) == pytest.approx(_by_scipy(a, b), rel=1e-9)
    assert frechet_distance(a, b, covariance_factor(a.covariance)) == frechet_distance(a, b)


@pytest.mark.parametrize("n", [300, 61, 60, 30, 2])
def test_the_factor_is_one_of_the_covariance_and_has_its_rank(n: int):
    """With 60 dimensions, the rank is n - 1 or 60; rounding leaves pivots where Cholesky should meet none."""
    covariance = _sample(n, 60, 0).covariance
    factor = covariance_factor(covariance)
    assert factor.shape == (60, min(n - 1, 60))
    torch.testing.assert_close(factor @ factor.T, covariance, rtol=0, atol=1e-12 * covariance.diagonal().max().item())


@pytest.mark.parametrize(("n", "m"), [(30, 25), (2, 60), (61, 60), (400, 30)])
def test_fewer_vectors_than_dimensions_equal_the_nuclear_norm(n: int, m: int):
    """With C = xᵀx / (n - 1), the trace of the root is the sum of the singular values of x yᵀ, without any root."""
    rows = [np.random.default_rng(seed).standard_normal((count, 60)) for seed, count in enumerate((n, m))]
    a, b = FeatureStatistics(60), FeatureStatistics(60)
    for statistics, each in zip((a, b), rows, strict=True):
        statistics.add(torch.from_numpy(each))
    x, y = ((each - each.mean(0)) / np.sqrt(len(each) - 1) for each in rows)
    difference = rows[0].mean(0) - rows[1].mean(0)
    expected = difference @ difference + (x**2).sum() + (y**2).sum() - 2 * np.linalg.norm(x @ y.T, "nuc")
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_diagonal_gaussians_have_a_closed_form():
    generator = torch.Generator().manual_seed(0)
    mean_a, mean_b, deviation_a, deviation_b = torch.rand(4, 50, generator=generator, dtype=torch.float64)
    a, b = _with_moments(mean_a, (deviation_a**2).diag()), _with_moments(mean_b, (deviation_b**2).diag())
    expected = ((mean_a - mean_b) ** 2 + (deviation_a - deviation_b) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-12)


def test_singular_gaussians_on_other_axes_have_a_closed_form():
    """Two needles of variances 4 and 9 at an angle: only their overlap counts, tr((ab)^½) = 2 * 3 * |cos|."""
    angle = 0.3
    first = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    second = torch.tensor([math.cos(angle), math.sin(angle), 0.0], dtype=torch.float64)
    a, b = 4 * torch.outer(first, first), 9 * torch.outer(second, second)
    assert trace_of_root(covariance_factor(a), b).item() == pytest.approx(6 * math.cos(angle), rel=1e-12)
    # Orthogonal needles and a point: the root vanishes, and rounding noise (1e-16) must not grow to its root (1e-8).
    other = 9 * torch.diag(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    assert trace_of_root(covariance_factor(a), other).item() == 0.0
    assert trace_of_root(covariance_factor(torch.zeros(3, 3, dtype=torch.float64)), b).item() == 0.0


@pytest.mark.parametrize("n", [200, 30])
def test_it_is_zero_for_equal_statistics(n: int):
    a = _sample(n, 60, 0, shift=100.0)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-7 * a.covariance.trace().item())


@pytest.mark.parametrize(("n", "m"), [(200, 300), (30, 300), (30, 20)])
def test_it_is_symmetric(n: int, m: int):
    a, b = _sample(n, 60, 0), _sample(m, 60, 1)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-7)


def test_a_shift_of_the_mean_adds_its_square():
    a = _sample(200, 20, 0)
    b = _with_moments(a.mean + 3.0, a.covariance)
    assert frechet_distance(a, b) == pytest.approx(20 * 9.0, rel=1e-9)


def test_rotating_both_changes_nothing():
    a, b = _sample(200, 20, 0), _sample(300, 20, 1, shift=0.5)
    rotation = torch.linalg.qr(torch.randn(20, 20, generator=torch.Generator().manual_seed(5), dtype=torch.float64))[0]
    turned_a, turned_b = (_with_moments(rotation @ s.mean, rotation @ s.covariance @ rotation.T) for s in (a, b))
    assert frechet_distance(turned_a, turned_b) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_misuse_is_named():
    with pytest.raises(ValueError, match="no distance"):
        frechet_distance(_sample(9, 3, 0), _sample(9, 4, 0))
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(_sample(9, 3, 0), _sample(1, 3, 0))


def test_singular_covariances_do_not_enlarge_the_rounding_of_sums():
    """Fewer vectors than dimensions, taken in by other batches: the sums differ by 1e-16, and so does the distance."""
    generator = torch.Generator().manual_seed(0)
    rows, others = (100 + torch.randn(n, 300, generator=generator, dtype=torch.float64) for n in (120, 90))

    def by(batch: int, of: torch.Tensor) -> FeatureStatistics:
        statistics = FeatureStatistics(300)
        for part in of.split(batch):
            statistics.add(part)
        return statistics

    whole = frechet_distance(by(120, rows), by(90, others))
    for batch in (1, 7, 64):
        assert frechet_distance(by(batch, rows), by(batch, others)) == pytest.approx(whole, rel=1e-11)


def test_images_of_gaussian_pixels_have_the_gaussians_distance():
    """Through the whole measure: N(110, 20²) against N(120, 30²) in each of 4 pixels, 4 (10² + 10²) = 800 apart.

    Rounding to bytes adds 1/12 to each variance; 20,000 images leave some 10 of sampling error.
    """
    generator = torch.Generator().manual_seed(0)
    reals, fakes = (
        (deviation * torch.randn(20_000, 4, 1, 1, generator=generator) + mean).round().clamp(0, 255).byte()
        for mean, deviation in ((110, 20), (120, 30))
    )
    measure = Frechet(bench(reals, Pixels(4), samples=20_000), cast(Any, None))
    assert taken(measure, "fid", fakes).value == pytest.approx(800, rel=0.04)
    assert measure.protocol("fid", 1) == {"extractor": {"name": "pixels"}}


def test_published_statistics_stand_in_for_the_training_images(tmp_path: Path):
    reals, fakes = pixels(50, 4, 0), pixels(40, 4, 1, low=80)
    path = tmp_path / "reference.npz"
    features = reals.flatten(1).double().numpy()
    np.savez(path, mu=features.mean(0), sigma=np.cov(features, rowvar=False))
    own = Frechet(bench(reals, Pixels(4), samples=40), cast(Any, None))
    published = Frechet(bench(fakes, Pixels(4), samples=40), cast(Any, None), path)
    assert taken(published, "fid", fakes).value == pytest.approx(taken(own, "fid", fakes).value, rel=1e-12)
    protocol = published.protocol("fid", 1)
    assert protocol["reference"] == f"statistics {files.sha256(path)}" and protocol["reference_samples"] is None


def test_published_statistics_of_other_features_are_refused(tmp_path: Path):
    path = tmp_path / "reference.npz"
    np.savez(path, mu=np.zeros(5), sigma=np.eye(5))
    with pytest.raises(UserError, match=r"reference.npz: holds statistics of 5 dimensions; .* pixels have 4"):
        Frechet(bench(pixels(50, 4, 0), Pixels(4), samples=40), cast(Any, None), path)


@pytest.mark.parametrize(
    ("reals", "samples", "warnings"), [(5, 5, []), (4, 5, ["4 training images"]), (4, 4, ["4 generated", "4 training"])]
)
def test_covariances_that_are_singular_are_warned_of(
    caplog: pytest.LogCaptureFixture, reals: int, samples: int, warnings: list[str]
):
    with caplog.at_level(logging.WARNING):
        Frechet(bench(pixels(reals, 4, 0), Pixels(4), samples=samples), cast(Any, None))
    assert len(caplog.messages) == len(warnings)
    for wanted, message in zip(warnings, caplog.messages, strict=True):
        assert message.startswith(wanted) and "singular" in message
