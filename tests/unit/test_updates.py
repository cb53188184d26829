"""Updates of the engine ddp: the optimizer's rule in one kernel, and none where a gradient is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from advgen.clock import Clock
from advgen.ema import ConstantDecay
from advgen.game import Average, Batch, Context, Outcome, Phase, Player, Progress, Turn
from advgen.optim import Adam, Momentum, Optimizer
from advgen.runtime.config import TrainingConfig
from advgen.runtime.engine import DdpEngine, Moments, NoMoments
from advgen.runtime.world import World
from advgen.schedules import LearningRate
from advgen.turns import NotFinite, Step, Table

RULES = [Adam(betas=(0.5, 0.9)), Adam(clip_norm=0.3), Momentum(), Momentum(clip_norm=0.3), Momentum(momentum=0.0)]


@dataclass
class Stored:
    """Moments as a checkpoint has them: each laid out row by row."""

    values: dict[str, Tensor] = field(default_factory=dict)

    def names(self) -> Iterable[str]:
        return self.values

    def read(self, name: str) -> Tensor:
        return self.values[name].clone(memory_format=torch.contiguous_format)

    def read_range(self, name: str, start: int, count: int) -> Tensor:
        raise AssertionError(name)


def loss(context: Context, batch: Batch) -> Outcome:
    """A convolution's with a gradient penalty; the images scale it, so those that are not finite spoil it."""
    images = batch.images.requires_grad_(True)
    scores = context.networks["net"](images).square().mean(dim=(1, 2, 3))
    (slope,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return Outcome(scores.mean() + slope.square().sum(), {"loss": scores.detach().mean()})


class Played:
    """A network of one player, its engine and a step."""

    def __init__(self, rule: Optimizer, skips: int = 0, moments: Moments | None = None) -> None:
        config = TrainingConfig(device="cpu", on_nonfinite=f"skip:{skips}" if skips else "stop")
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Tanh(), nn.Conv2d(5, 4, 3))
        net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.networks = nn.ModuleDict({"net": net})
        self.average = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Tanh(), nn.Conv2d(5, 4, 3)).requires_grad_(False)
        self.average.load_state_dict(net.state_dict())
        self.player = Player("p", ("net",), rule, loss)
        rates = {"p": LearningRate(0.05)}
        self.phase = Phase("only", 1.0, 6, 4, (Turn((self.player,)),), ("net",), rates)
        world, networks = World(config), dict(self.networks.items())
        self.engine = DdpEngine(self.player, self.phase, networks, world, config, moments or NoMoments())
        averages = [(Average("ema", of="net", after="p", decay=ConstantDecay(decay=0.5)), self.average)]
        self.step = Step(Table(networks, averages, world, config, 0, torch.float32, labelled=False), {"p": self.engine})
        self.number = 0

    def play(self, factor: float = 1.0) -> dict[str, Tensor]:
        """A step whose images are multiplied by ``factor``."""
        images = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(self.number)) * factor
        clock = Clock(step=self.number, nimg=4 * self.number)
        self.number += 1
        progress = Progress(clock.step, clock.nimg, self.phase, clock.nimg)
        return self.step.play(
            clock, progress, iter([Batch(images.contiguous(memory_format=torch.channels_last))]), True
        )

    def state(self) -> dict[str, Tensor]:
        """Copies of weights and moments."""
        weights = {name: p.detach().clone() for name, p in self.networks.named_parameters()}
        return weights | {name: piece.values.clone() for name, piece in self.engine.state().items()}


def by_hand(rule: Optimizer, steps: int) -> Iterator[dict[str, Tensor]]:
    """Weights after each step in float64, by the rule as its paper writes it."""
    played = Played(rule)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Tanh(), nn.Conv2d(5, 4, 3))
    net.load_state_dict(played.networks["net"].state_dict())
    net.double()
    first = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    second = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    for number in range(steps):
        images = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(number)).double()
        context = Context({"net": net}, *([None] * 4))  # pyright: ignore[reportArgumentType]
        parameters = dict(net.named_parameters())
        total = loss(context, Batch(images)).loss
        found = torch.autograd.grad(total, list(parameters.values()))
        gradients = dict(zip(parameters, found, strict=True))
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
        clip = 1.0 if rule.clip_norm is None else min(1.0, rule.clip_norm / norm)
        with torch.no_grad():
            for name, parameter in parameters.items():
                g = clip * gradients[name]
                if isinstance(rule, Momentum):
                    first[name] = rule.momentum * first[name] + g
                    parameter -= 0.05 * first[name]
                    continue
                b1, b2 = rule.betas
                first[name] = b1 * first[name] + (1 - b1) * g
                second[name] = b2 * second[name] + (1 - b2) * g * g
                m, v = first[name] / (1 - b1 ** (number + 1)), second[name] / (1 - b2 ** (number + 1))
                parameter -= 0.05 * m / (v.sqrt() + rule.eps)
        yield {f"net.{name}": p.detach().clone() for name, p in parameters.items()}


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_steps_are_those_of_the_rule_in_float64(rule: Optimizer) -> None:
    """On weights that lie channels last, with gradients through a penalty; and again from stored moments."""
    played = Played(rule)
    for number, expected in enumerate(by_hand(rule, 6)):
        if number == 3:
            state = played.state()
            again = Played(rule, moments=Stored({name: v for name, v in state.items() if name.startswith("p/")}))
            with torch.no_grad():
                for name, parameter in again.networks.named_parameters():
                    parameter.copy_(state[name])
            again.number, played = number, again
        played.play()
        for name, parameter in played.networks.named_parameters():
            torch.testing.assert_close(parameter.detach().double(), expected[name], rtol=0, atol=2e-5)


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("before", [0, 2])
def test_an_update_that_is_not_finite_leaves_no_trace(rule: Optimizer, before: int) -> None:
    played, plain = Played(rule, skips=2), Played(rule, skips=2)
    for _ in range(before):
        played.play()
        plain.play()
    state = played.state()
    for factor in (math.nan, math.inf):
        scalars = played.play(factor)
        assert not scalars["p/gradient_norm"].isfinite()
    after = played.state()
    assert all(torch.equal(after[name], value) for name, value in state.items())
    played.play()
    played.step.settle()
    assert played.step.skipped == {"p": 0}
    plain.number = played.number - 1
    plain.play()
    ours, theirs = played.state(), plain.state()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_too_many_in_a_row_end_the_run_with_the_place_of_the_first_too_many(caplog: pytest.LogCaptureFixture) -> None:
    played = Played(Adam(), skips=1)
    played.play(math.nan)
    played.play()
    played.play(math.nan)
    played.play(math.nan)  # looked at when its player's next update comes
    state = played.state()
    with pytest.raises(NotFinite, match=r"'p'.*at step 3 \(12 images, phase 'only'\), the update number 2 in a row"):
        played.play()
    assert all(torch.equal(played.state()[name], value) for name, value in state.items())
    assert [record.args[1:] for record in caplog.records if isinstance(record.args, tuple)] == [
        ("step 0 (0 images, phase 'only')", 1, 1),
        ("step 2 (8 images, phase 'only')", 1, 1),
    ]
    stopping = Played(Adam())
    stopping.play(math.nan)
    with pytest.raises(NotFinite, match="at step 0"):
        stopping.step.settle()
    stopping.step.settle()  # told once


def test_an_average_goes_on_towards_its_network() -> None:
    """Where an update is left out it moves all the same: whether one was is not known on the host."""
    played = Played(Adam(), skips=1)
    played.play()
    gap = [a - p for a, p in zip(played.average.parameters(), played.networks.parameters(), strict=True)]
    played.play(math.nan)
    for a, p, before in zip(played.average.parameters(), played.networks.parameters(), gap, strict=True):
        torch.testing.assert_close(a - p.detach(), 0.5 * before.detach(), rtol=0, atol=1e-6)
