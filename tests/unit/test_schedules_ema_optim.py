from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from advgen.ema import ConstantDecay, HalfLife, update_average
from advgen.optim import Adam, build_optimizer, export_state, import_state
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
def parameters_of(*names: str) -> dict[str, nn.Parameter]:
    """Parameters that depend on their names only."""
    return {n: nn.Parameter(torch.randn(3, 2, generator=torch.Generator().manual_seed(len(n)))) for n in names}


def step(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], number: int) -> None:
    """One step on gradients that depend on the parameter's name and the step's number only."""
    for name, parameter in parameters.items():
        parameter.grad = torch.randn(3, 2, generator=torch.Generator().manual_seed(1000 * number + len(name)))
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    optimizer.step()


@pytest.mark.parametrize("betas", [(0.0, 0.99), (0.9, 0.999)])
def test_going_on_from_exported_state_is_bitwise_the_same(betas: tuple[float, float]) -> None:
    config = Adam(betas=betas)
    whole = parameters_of("a", "bb", "ccc")
    optimizer = build_optimizer(config, whole)
    for number in range(3):
        step(optimizer, whole, number)
    state = {name: tensor.clone() for name, tensor in export_state(optimizer, whole).items()}
    assert set(state) == {f"{n}/{m}" for n in whole for m in ("step", "exp_avg", "exp_avg_sq")}

    # Another order, as another engine might have.
    resumed = {name: nn.Parameter(whole[name].detach().clone()) for name in ("ccc", "a", "bb")}
    again = build_optimizer(config, resumed)
    import_state(again, resumed, state)
    for number in range(3, 6):
        step(optimizer, whole, number)
        step(again, resumed, number)
    for name, parameter in whole.items():
        assert torch.equal(parameter, resumed[name])
    exported = export_state(again, resumed)
    assert all(torch.equal(value, exported[key]) for key, value in export_state(optimizer, whole).items())
    assert state["a/step"] == 3  # importing has copied: what was handed over has not moved


def test_parameters_that_vanish_are_left_out_and_new_ones_begin_anew() -> None:
    before = parameters_of("a", "bb")
    optimizer = build_optimizer(Adam(), before)
    for number in range(4):
        step(optimizer, before, number)
    after = {"bb": nn.Parameter(before["bb"].detach().clone()), **parameters_of("ccc")}
    grown = build_optimizer(Adam(), after)
    import_state(grown, after, export_state(optimizer, before))
    assert set(export_state(grown, after)) == {"bb/step", "bb/exp_avg", "bb/exp_avg_sq"}
    step(grown, after, 4)
    step(optimizer, before, 4)
    fresh = parameters_of("ccc")
    step(build_optimizer(Adam(), fresh), fresh, 4)
    assert torch.equal(after["bb"], before["bb"])
    assert torch.equal(after["ccc"], fresh["ccc"])
    assert export_state(grown, after)["bb/step"] == 5
    assert export_state(grown, after)["ccc/step"] == 1


def test_parameters_that_were_never_updated_have_no_state() -> None:
    parameters = parameters_of("a", "bb")
    optimizer = build_optimizer(Adam(), parameters)
    assert export_state(optimizer, parameters) == {}


@pytest.mark.parametrize("bad", [{"betas": (1.0, 0.9)}, {"betas": (0.0, -0.1)}, {"eps": 0.0}])
def test_optimizers_that_cannot_work_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="betas must lie"):
        Adam(**bad)  # type: ignore[arg-type]
