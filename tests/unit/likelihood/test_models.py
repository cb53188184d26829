"""Written-down models and likelihoods of decoders against numpy in float64, integrals by quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from advgen.likelihood.models import LinearGaussian, Sprinkler, log_normal
from advgen.likelihood.observation import Bernoulli, Gaussian
from advgen.seeds import Noise

N = 7


def noise(count: int = N, seed: int = 3) -> Noise:
    return Noise(seed, ("test",), torch.arange(count), torch.float64)


def grid(deviation: float, side: int = 601, reach: float = 7.0) -> tuple[np.ndarray, float]:
    """Points [side^2, 2] that cover the prior, and the area of a cell."""
    axis = np.linspace(-reach * deviation, reach * deviation, side)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2), float(axis[1] - axis[0]) ** 2


def test_log_normal() -> None:
    z, mean = (np.random.default_rng(seed).normal(size=(N, 3, 2)) for seed in (0, 1))
    deviation = np.array([0.3, 2.0])
    expected = (-0.5 * ((z - mean) / deviation) ** 2 - np.log(deviation) - 0.5 * np.log(2 * np.pi)).sum(axis=(1, 2))
    found = log_normal(torch.from_numpy(z), torch.from_numpy(mean), torch.from_numpy(deviation))
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_linear_gaussian_by_quadrature() -> None:
    """Evidence and the posterior's moments are integrals over z of what likelihood and prior say."""
    model = LinearGaussian()
    x = model.observe(noise().normal("z", 2), noise())
    z, cell = grid(1.0)
    weight, bias = np.array(model.weight), np.array(model.bias)
    mean, covariance = model.posterior(x)
    for row in range(N):
        errors = x[row].numpy() - z @ weight.T - bias
        joint = np.exp(-0.5 * (errors**2).sum(1) / model.noise_deviation**2 - 0.5 * (z**2).sum(1))
        joint *= cell / (2 * np.pi) ** 2.5 / model.noise_deviation**3
        assert model.log_evidence(x)[row].item() == pytest.approx(math.log(joint.sum()), abs=1e-8)
        weights = joint / joint.sum()
        np.testing.assert_allclose(mean[row].numpy(), weights @ z, rtol=0, atol=1e-8)
        np.testing.assert_allclose(covariance.numpy(), np.cov(z.T, aweights=weights, ddof=0), rtol=0, atol=1e-8)
    direct = model.log_likelihood(x, noise().normal("z", 2))
    errors = x.numpy() - noise().normal("z", 2).numpy() @ weight.T - bias
    expected = -0.5 * (errors**2).sum(1) / model.noise_deviation**2 - 1.5 * np.log(2 * np.pi * model.noise_deviation**2)
    np.testing.assert_allclose(direct.numpy(), expected, rtol=0, atol=1e-12)


def test_sprinkler_integrates_to_one_and_is_drawn_from_itself() -> None:
    model = Sprinkler()
    z = torch.tensor([[1.5, -1.0]], dtype=torch.float64)
    mean = 3 + 1.5**3
    x = np.linspace(0, 40 * mean, 400_001)
    density = np.exp(model.log_likelihood(torch.from_numpy(x)[:, None], z.expand(len(x), 2)).numpy())
    assert np.trapezoid(density, x) == pytest.approx(1, abs=1e-6)
    assert np.trapezoid(density * x, x) == pytest.approx(mean, rel=1e-6)
    count = 20_000
    drawn = model.observe(z.expand(count, 2), noise(count)).numpy()
    assert drawn.min() >= 0
    assert abs(drawn.mean() - mean) < 4 * mean / math.sqrt(count)  # an exponential's deviation is its mean
    assert abs((drawn > mean).mean() - math.exp(-1)) < 4 * math.sqrt(0.24 / count)


def test_bernoulli() -> None:
    images = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (N, 1, 2, 2)))
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(N, 1, 2, 2)))
    threshold = Bernoulli("threshold").observed(images, noise())
    np.testing.assert_array_equal(threshold.numpy(), (images.numpy() > 0).astype(float))
    chance = 1 / (1 + np.exp(-logits.numpy()))
    x = threshold.numpy()
    expected = (x * np.log(chance) + (1 - x) * np.log(1 - chance)).sum(axis=(1, 2, 3))
    found = Bernoulli("threshold").log_probability(threshold, logits)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(Bernoulli("threshold").images(logits).numpy(), 2 * chance - 1, rtol=0, atol=1e-12)
    many = torch.full((20_000, 1, 1, 1), 0.4, dtype=torch.float64)  # a grey of 0.7
    white = Bernoulli("stochastic").observed(many, noise(20_000))
    assert set(white.unique().tolist()) == {0.0, 1.0}
    assert abs(white.mean().item() - 0.7) < 4 * math.sqrt(0.21 / 20_000)
    drawn = Bernoulli("threshold").draw(torch.full((20_000, 1, 1, 1), math.log(3), dtype=torch.float64), noise(20_000))
    assert abs(drawn.mean().item() - 0.75) < 4 * math.sqrt(0.19 / 20_000)


def test_gaussian() -> None:
    images, means = (torch.from_numpy(np.random.default_rng(seed).normal(size=(N, 2, 1, 1))) for seed in (0, 1))
    likelihood = Gaussian(0.2)
    errors = (images - means).numpy()
    expected = (-0.5 * (errors / 0.2) ** 2 - math.log(0.2) - 0.5 * math.log(2 * math.pi)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(likelihood.log_probability(images, means).numpy(), expected, rtol=0, atol=1e-12)
    assert likelihood.observed(images, noise()) is images
    drawn = likelihood.draw(torch.ones(20_000, 1, 1, 1, dtype=torch.float64), noise(20_000))
    assert drawn.std().item() == pytest.approx(0.2, rel=0.03)
    assert drawn.mean().item() == pytest.approx(1, abs=0.006)
