"""A step's order: which player's gradient is taken and applied when, and on which batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import pytest
import torch
from torch import Tensor

from advgen.clock import Clock
from advgen.game import Batch, Context, Outcome, Phase, Player, Progress, Turn
from advgen.optim import Adam
from advgen.runtime.config import TrainingConfig
from advgen.runtime.engine import Update
from advgen.runtime.world import World
from advgen.schedules import LearningRate
from advgen.turns import Step, Table

Event = tuple[str, str, int]


class Told:
    """An engine that writes down what it is asked: (what, player, first sample of the batch)."""

    micro_batches = 1

    def __init__(self, name: str, events: list[Event]) -> None:
        self.name, self.events, self.batch = name, events, -1

    def backward(self, shares: Sequence[tuple[Context, Batch]]) -> Outcome:
        ((context, batch),) = shares
        assert context.noise.positions[0] == batch.images[0, 0, 0, 0], "noise goes with its batch"
        self.batch = int(batch.images[0, 0, 0, 0])
        self.events.append(("backward", self.name, self.batch))
        return Outcome(torch.zeros(()))

    def update(self, learning_rate: float) -> Update:
        self.events.append(("update", self.name, self.batch))
        return Update(gradient_norm=torch.ones(()), applied=torch.tensor(True))

    def weight_norm(self) -> Tensor:
        return torch.ones(())


def images(first: int) -> Tensor:
    return torch.arange(first, first + 4.0)[:, None, None, None]


@pytest.mark.parametrize(
    ("update", "expected"),
    [
        (
            "simultaneous",
            "backward d 0, update d 0, backward d 4, update d 4, backward d 8, backward g 8, update d 8, update g 8",
        ),
        (
            "alternating",
            "backward d 0, update d 0, backward d 4, update d 4, backward d 8, update d 8, backward g 8, update g 8",
        ),
    ],
)
def test_repeats_come_before_what_is_simultaneous(
    update: Literal["simultaneous", "alternating"], expected: str
) -> None:
    """Each on a fresh batch; the last gradient is of the point and the batch of the other player's."""

    def unused(context: Context, batch: Batch) -> Outcome:
        raise AssertionError

    players = (Player("d", (), Adam(), unused, repeat=3), Player("g", (), Adam(), unused))
    rates = {"d": LearningRate(0.1), "g": LearningRate(0.1)}
    phase = Phase("p", 1.0, 1, 4, (Turn(players, update=update),), (), rates)
    config = TrainingConfig(device="cpu")
    table = Table({}, (), World(config), config, 0, torch.float32, labelled=False)
    events: list[Event] = []
    step = Step(table, cast(Any, {name: Told(name, events) for name in ("d", "g")}))
    batches = iter(Batch(images(first)) for first in (0, 4, 8, 12))
    step.play(Clock(), Progress(0, 0, phase, 0), batches, logged=False)
    assert ", ".join(f"{what} {name} {first}" for what, name, first in events) == expected
