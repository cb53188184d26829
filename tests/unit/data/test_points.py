"""Sets of points: a function of seed and position, and of the densities that their docstrings state."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from advgen.data.loader import Loader
from advgen.data.points import SETS, PointStream

N = 40_000
Floats = NDArray[np.float64]


def drawn(name: str, count: int = N, seed: int = 3) -> tuple[Floats, NDArray[np.int64] | None]:
    """Points [n, d] and their modes."""
    samples = PointStream(name, seed=seed, labelled=True).read(np.arange(count))
    return samples.images[:, :, 0, 0].astype(np.float64), samples.labels


def is_probability(event: NDArray[np.bool_], probability: float) -> None:
    """The event's share of its trials is its probability, within five standard errors."""
    assert abs(event.mean() - probability) < 5 * math.sqrt(probability * (1 - probability) / len(event))


def is_mean(values: Floats, expected: float) -> None:
    """Within five standard errors, by the deviation of the values."""
    assert abs(values.mean() - expected) < 5 * values.std() / math.sqrt(len(values))


@pytest.mark.parametrize("name", SETS)
def test_a_point_is_a_function_of_seed_and_position(name: str) -> None:
    stream = PointStream(name, seed=3, labelled=True)
    whole = stream.read(np.arange(100))
    assert whole.images.dtype == np.float32 and whole.images.shape == (100, SETS[name].dimensions, 1, 1)
    assert (whole.labels is None) == (SETS[name].modes == 0)
    chosen = np.array([7, 99, 0, 7])
    for again in (stream.read(chosen, 1), pickle.loads(pickle.dumps(stream)).fetch(chosen)):
        assert (again.images == whole.images[chosen]).all()
        assert whole.labels is None or (again.labels is not None and (again.labels == whole.labels[chosen]).all())
    if name != "four_points":
        assert len(np.unique(whole.images[:, 0])) == 100
        assert (PointStream(name, seed=4).read(np.arange(100)).images != whole.images).all()
    far = stream.read(np.array([2**40, 2**40 + 1])).images
    assert np.isfinite(far).all()
    assert PointStream(name, seed=3).read(np.arange(3)).labels is None


def test_a_level_that_points_do_not_have_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="height of 1, not 2"):
        PointStream("ring8", seed=0).read(np.arange(3), 2)


def test_threads_give_what_one_gives() -> None:
    stream = PointStream("grid25", seed=1, labelled=True)
    requests = [(np.arange(start, start + 50), 1) for start in range(0, 1000, 50)]
    with Loader(stream, requests, threads=4, ahead=4) as loader:
        batches = list(loader)
    whole = stream.read(np.arange(1000))
    labels = [batch.labels for batch in batches if batch.labels is not None]
    assert (np.concatenate([batch.images for batch in batches]) == whole.images).all()
    assert (np.concatenate(labels) == whole.labels).all()


@pytest.mark.parametrize(("name", "modes", "deviation"), [("grid25", 25, 0.05), ("ring8", 8, 0.02)])
def test_gaussian_modes(name: str, modes: int, deviation: float) -> None:
    points, labels = drawn(name)
    assert labels is not None and SETS[name].radius == pytest.approx(3 * deviation)
    if name == "grid25":
        centres = np.array([(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)], float)
    else:
        centres = np.array([(2 * math.cos(k * math.pi / 4), 2 * math.sin(k * math.pi / 4)) for k in range(8)])
    known = SETS[name].centres
    assert known is not None
    np.testing.assert_allclose(known, centres, atol=1e-12)
    for mode in range(modes):
        is_probability(labels == mode, 1 / modes)
    off = points - centres[labels]
    # The square of the distance is exponential in two dimensions: P(r < k deviations) = 1 - exp(-k^2 / 2).
    for k in (0.5, 1.0, 2.0, 3.0):
        is_probability(np.hypot(*off.T) < k * deviation, 1 - math.exp(-(k**2) / 2))
    for values in (off[:, 0], off[:, 1], off[:, 0] * off[:, 1]):
        is_mean(values, 0.0)
    for axis in (0, 1):
        is_mean(off[:, axis] ** 2, deviation**2)


def test_four_points() -> None:
    points, labels = drawn("four_points")
    assert labels is not None
    assert (points == 2 * np.eye(4)[labels] - 1).all()
    for mode in range(4):
        is_probability(labels == mode, 0.25)


def test_swiss_roll() -> None:
    points, labels = drawn("swiss_roll")
    assert labels is None
    low, high = 1.5 * math.pi, 4.5 * math.pi

    def mean_of(antiderivative: Callable[[float], float]) -> float:
        return (antiderivative(high) - antiderivative(low)) / (high - low)

    is_mean(points[:, 0], mean_of(lambda t: math.cos(t) + t * math.sin(t)) / 5)
    is_mean(points[:, 1], mean_of(lambda t: math.sin(t) - t * math.cos(t)) / 5)
    is_mean((points**2).sum(axis=1), mean_of(lambda t: t**3 / 3) / 25 + 2 * 0.05**2)
    # Off the spiral the points are Gaussian; far from its ends the nearest turn is the one they were drawn at.
    t = np.linspace(low, high, 20_001)
    spiral = np.stack((t * np.cos(t), t * np.sin(t)), axis=1) / 5
    few = points[:2000]
    off = np.min([np.hypot(*(few - part[:, None]).transpose(2, 0, 1)).min(0) for part in np.array_split(spiral, 40)], 0)
    is_probability(off < 0.05, math.erf(1 / math.sqrt(2)))
    is_probability(off < 0.1, math.erf(2 / math.sqrt(2)))


def test_linear_gaussian() -> None:
    points, labels = drawn("linear_gaussian")
    assert labels is None
    weights, bias = np.array([[1.0, 0.5], [-0.5, 1.0], [0.8, -0.6]]), np.array([0.5, -1.0, 0.25])
    covariance = weights @ weights.T + 0.3**2 * np.eye(3)
    off = points - bias
    for i in range(3):
        is_mean(off[:, i], 0.0)
        for j in range(i, 3):
            is_mean(off[:, i] * off[:, j], covariance[i, j])
    squared = np.einsum("ni,ij,nj->n", off, np.linalg.inv(covariance), off)
    for probability in (0.1, 0.5, 0.9, 0.99):
        is_probability(squared < stats.chi2(3).ppf(probability), probability)


def test_sprinkler() -> None:
    x = drawn("sprinkler")[0][:, 0]
    assert x.min() >= 0
    # E max(0, z)^3 is half of E |z|^3 = 2 sigma^3 sqrt(2 / pi), with sigma^2 = 2.
    is_mean(x, 3 + 2 * math.sqrt(2.0) ** 3 * math.sqrt(2 / math.pi))
    z = np.linspace(-12, 12, 1201)
    weight = stats.norm.pdf(z, scale=math.sqrt(2.0)) * (z[1] - z[0])
    cube = np.maximum(z, 0) ** 3
    mean = 3 + cube[:, None] + cube
    for c in (1.0, 5.0, 12.0, 50.0):
        is_probability(x > c, float(weight @ np.exp(-c / mean) @ weight))
