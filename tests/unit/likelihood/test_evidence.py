"""Estimates of the evidence against closed forms and quadrature."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from advgen.likelihood.annealing import Annealing, Evidence, annealed_evidence
from advgen.likelihood.importance import importance_bound
from advgen.likelihood.models import LinearGaussian, Sprinkler
from advgen.seeds import Noise
from tests.unit.likelihood.test_models import grid

N = 24
HOW = Annealing(steps=100, chains=16, leapfrog=5)


def simulated(model: LinearGaussian | Sprinkler, count: int = N) -> tuple[Noise, Tensor, Tensor]:
    """Noise, latents and observations of the model."""
    noise = Noise(5, ("test",), torch.arange(count))
    z = model.deviation * noise.normal("z", 2)
    return noise, z, model.observe(z, noise)


def sprinkler_evidence(x: np.ndarray) -> np.ndarray:
    """By quadrature; the kinks of the mean lie on the grid."""
    model = Sprinkler()
    z, cell = grid(model.deviation)
    mean = 3 + (np.maximum(z, 0) ** 3).sum(1)
    prior = np.exp(-0.25 * (z**2).sum(1)) / (4 * np.pi) * cell
    return np.log([(prior * np.exp(-value / mean) / mean).sum() for value in x[:, 0]])


@pytest.mark.parametrize("model", [LinearGaussian(), Sprinkler()], ids=["linear_gaussian", "sprinkler"])
def test_annealing_brackets_the_evidence(model: LinearGaussian | Sprinkler) -> None:
    """Means over 24 observations within 0.05 nats, from both sides."""
    noise, exact_z, x = simulated(model)
    found = annealed_evidence(
        lambda z, rows: model.log_likelihood(x[rows], z),
        2,
        noise,
        HOW,
        prior_deviation=model.deviation,
        exact=exact_z,
    )
    exact = model.log_evidence(x.double()) if isinstance(model, LinearGaussian) else sprinkler_evidence(x.numpy())
    assert found.upper is not None
    assert abs(float((found.lower - torch.as_tensor(exact)).mean())) < 0.05
    assert abs(float((found.upper - torch.as_tensor(exact)).mean())) < 0.05
    assert 0.4 < found.accepted < 0.9
    assert (found.effective > 1).all() and (found.effective <= HOW.chains + 1e-6).all()


def test_few_targets_stay_below_and_above() -> None:
    """With four targets the two bounds are far apart, on the right sides of the evidence by more than the noise."""
    model = LinearGaussian()
    noise, exact_z, x = simulated(model, 200)
    found = annealed_evidence(
        lambda z, rows: model.log_likelihood(x[rows], z), 2, noise, Annealing(4, 2, 2), exact=exact_z
    )
    exact = model.log_evidence(x.double())
    assert found.upper is not None
    assert float((exact - found.lower).mean()) > 0.1
    assert float((found.upper - exact).mean()) > 0.1


def test_an_observation_s_chains_do_not_depend_on_the_others() -> None:
    model = LinearGaussian()
    noise, _, x = simulated(model, 6)

    def evidence(chosen: Tensor) -> Tensor:
        mine = Noise(5, ("test",), noise.positions[chosen])
        here = x[chosen]
        how = Annealing(10, 3, 2)
        return annealed_evidence(lambda z, rows: model.log_likelihood(here[rows], z), 2, mine, how).lower

    torch.testing.assert_close(evidence(torch.arange(6))[[1, 4]], evidence(torch.tensor([1, 4])), rtol=0, atol=1e-6)


def test_parts_that_memory_asks_for_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five observations two at a time, from both sides; what is told rises to its end."""
    model = LinearGaussian()
    noise, exact_z, x = simulated(model, 5)
    told: list[tuple[int, int]] = []

    def evidence() -> Evidence:
        return annealed_evidence(
            lambda z, rows: model.log_likelihood(x[rows], z),
            2,
            noise,
            Annealing(10, 3, 2),
            exact=exact_z,
            told=lambda done, of: told.append((done, of)),
        )

    whole = evidence()
    monkeypatch.setattr("advgen.likelihood.annealing._ROWS", 6)
    told.clear()
    parts = evidence()
    assert whole.upper is not None and parts.upper is not None
    for one, other in ((whole.lower, parts.lower), (whole.upper, parts.upper), (whole.effective, parts.effective)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert parts.accepted == pytest.approx(whole.accepted, abs=1e-6)
    assert told == [(done, 90) for done in range(1, 91)]


def test_chains_that_run_away_are_not_accepted() -> None:
    """A likelihood with a cliff behind which it is not a number."""

    def cliff(z: Tensor, rows: Tensor) -> Tensor:
        return torch.where(z[:, 0] > 1, z[:, 0] * math.nan, -z[:, 0].square())

    noise = Noise(2, ("test",), torch.arange(3))
    found = annealed_evidence(cliff, 1, noise, Annealing(20, 4, 3), prior_deviation=0.1)
    assert found.lower.isfinite().all()


def test_importance_bound() -> None:
    """With the exact posterior, but for correlation, 2,000 samples are within 0.02 nats, 20 too; one is below."""
    model = LinearGaussian()
    noise, _, x = simulated(model, 400)
    mean, covariance = model.posterior(x)
    exact = model.log_evidence(x.double())

    def bound(samples: int, deviation: Tensor) -> float:
        values = importance_bound(
            lambda z: model.log_likelihood(x, z), mean, deviation.expand_as(mean), noise, samples=samples
        )
        return float((values - exact).mean())

    deviation = covariance.diagonal().sqrt()
    assert abs(bound(2000, deviation)) < 0.02
    assert bound(1, deviation) < -0.05
    assert abs(bound(20, deviation)) < 0.02
    # A proposal that is far too narrow: the prior's part keeps the weights bounded.
    assert abs(bound(2000, deviation / 10)) < 0.15


@pytest.mark.parametrize("settings", [{"steps": 0}, {"chains": 0}, {"leapfrog": 0}, {"acceptance": 1.0}])
def test_annealing_refuses(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Annealing(**settings)  # pyright: ignore[reportArgumentType]


def test_importance_refuses() -> None:
    noise = Noise(0, ("test",), torch.arange(1))
    with pytest.raises(ValueError, match="samples must be at least 1"):
        importance_bound(lambda z: z[:, 0], torch.zeros(1, 2), torch.ones(1, 2), noise, samples=0)
