from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from advgen.ema import ConstantDecay, HalfLife, update_average
from advgen.optim import Adam, Momentum, build_optimizer
from advgen.schedules import LearningRate

GOLDEN = json.loads((Path(__file__).parents[1] / "games" / "golden" / "progan.json").read_text())


# ----------------------------------------------------------------------------------------------------------- schedules
def test_without_ramps_the_rate_is_constant() -> None:
    rate = LearningRate(0.002)
    assert {rate.at(nimg) for nimg in (0, 1, 10**6, 10**12)} == {0.002}


def test_the_ramp_up_is_the_original_codes() -> None:
    rate = LearningRate(0.002, rampup_kimg=40)
    for nimg, factor in GOLDEN["rampup_40kimg"]:
        assert rate.at(nimg) == pytest.approx(0.002 * factor, rel=1e-12)
    assert rate.at(0) == pytest.approx(0.002 * math.exp(-5))
    assert rate.at(40_000) == 0.002


def test_the_ramp_down_is_linear_and_ends_at_zero() -> None:
    rate = LearningRate(1.0, rampdown_kimg=10, total_kimg=100)
    assert rate.at(89_000) == rate.at(90_000) == 1.0
    assert rate.at(92_500) == pytest.approx(0.75)
    assert rate.at(99_999) == pytest.approx(1e-4)
    assert rate.at(100_000) == rate.at(100_064) == 0.0  # the last step may overshoot


def test_ramps_that_overlap_multiply() -> None:
    rate = LearningRate(1.0, rampup_kimg=80, rampdown_kimg=60, total_kimg=100)
    assert rate.at(60_000) == pytest.approx(math.exp(-5 * 0.25**2) * 40 / 60)


def test_each_drop_divides_the_rate_by_ten() -> None:
    rate = LearningRate(0.01, drops_kimg=(3.0, 60.0))
    found = [rate.at(nimg) for nimg in (0, 2999, 3000, 59_999, 60_000, 10**9)]
    assert found == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001], rel=1e-12)


# ------------------------------------------------------------------------------------------------------------ averages
def test_constant_decay_is_one_weight() -> None:
    assert {ConstantDecay(decay=0.9).at(nimg, batch) for nimg in (0, 10**7) for batch in (1, 64)} == {0.9}


@pytest.mark.parametrize("batch", [1, 8, 64, 1000])
def test_after_a_half_life_half_of_the_old_value_is_left(batch: int) -> None:
    rule = HalfLife(kimg=8)
    assert math.prod(rule.at(n * batch, batch) for n in range(8000 // batch)) == pytest.approx(0.5)


def test_the_half_life_is_short_in_the_beginning() -> None:
    rule = HalfLife(kimg=10, rampup=0.05)
    assert rule.at(0, 16) == 0.0
    assert rule.at(1000, 16) == pytest.approx(0.5 ** (16 / 50))
    assert rule.at(200_000, 16) == rule.at(10**9, 16) == pytest.approx(0.5 ** (16 / 10_000))


@pytest.mark.parametrize("bad", [1.0, -0.1])
def test_decays_outside_zero_to_one_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        ConstantDecay(decay=bad)


@pytest.mark.parametrize(("kimg", "rampup"), [(0.0, 0.05), (10.0, 0.0)])
def test_half_lives_are_positive(kimg: float, rampup: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        HalfLife(kimg=kimg, rampup=rampup)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.5, 0.999])
def test_the_average_moves_as_in_float64_and_buffers_are_copied(decay: float) -> None:
    torch.manual_seed(0)
    average, network = (nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5)) for _ in range(2))
    expected = [p.detach().double() for p in average.parameters()]
    for step in range(20):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_()
            network.get_buffer("1.running_mean").normal_()
            network.get_buffer("1.num_batches_tracked").fill_(step)
        update_average(average, network, decay)
        expected = [
            decay * e + (1 - decay) * p.detach().double() for e, p in zip(expected, network.parameters(), strict=True)
        ]
        for ours, theirs in zip(average.parameters(), expected, strict=True):
            torch.testing.assert_close(ours.detach().double(), theirs, rtol=0, atol=2e-6)
        assert torch.equal(average.get_buffer("1.running_mean"), network.get_buffer("1.running_mean"))
        assert average.get_buffer("1.num_batches_tracked") == step
    if decay == 0:
        assert all(torch.equal(a, b) for a, b in zip(average.parameters(), network.parameters(), strict=True))


# ---------------------------------------------------------------------------------------------------------- optimizers
@pytest.mark.parametrize("bad", [{"betas": (1.0, 0.9)}, {"betas": (0.0, -0.1)}, {"eps": 0.0}])
def test_optimizers_that_cannot_work_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="betas must lie"):
        Adam(**bad)  # type: ignore[arg-type]


def test_a_norm_to_clip_at_is_positive() -> None:
    with pytest.raises(ValueError, match="clip_norm must be positive"):
        Adam(clip_norm=0.0)


def test_momentum_is_a_sum_of_past_gradients_that_fade() -> None:
    parameter = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = build_optimizer(Momentum(momentum=0.9), {"p": parameter})
    weight, velocity = np.zeros(3), np.zeros(3)
    for number, rate in enumerate((0.1, 0.1, 0.01)):
        gradient = np.random.default_rng(number).normal(size=3)
        parameter.grad = torch.from_numpy(gradient)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        velocity = 0.9 * velocity + gradient
        weight -= rate * velocity
    np.testing.assert_allclose(parameter.detach(), weight, rtol=1e-12)
    np.testing.assert_allclose(optimizer.state[parameter]["momentum_buffer"], velocity, rtol=1e-12)


@pytest.mark.parametrize("bad", [{"momentum": 1.0}, {"momentum": -0.1}, {"clip_norm": 0.0}])
def test_momentum_that_cannot_work_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="momentum must lie|clip_norm must be"):
        Momentum(**bad)
