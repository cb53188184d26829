"""Every game in the table: gradients reach what a player trains and nothing else, and 200 steps stay finite.

A new game is here as soon as it stands in the table and in ``GAME_SETTINGS``, without which test_resume.py fails.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advgen.build import GAMES, build_game, spec_of
from advgen.clock import Clock
from advgen.config import Recipe, load_recipe
from advgen.data.points import PointStream
from advgen.game import Batch, Context, Game, ImageSpec, Outcome, Phase, Player, Progress
from advgen.runtime.engine import DdpEngine, Engine, NoMoments, Update
from advgen.runtime.world import World
from advgen.timeline import Timeline
from advgen.turns import Step, Table, averages_of
from tests.distributed.runs import LABELLED, LINEAR, POINTS, write_recipe
from tests.games.test_resume import GAME_DATA, GAME_SETTINGS

ADA = {"kind": "ada", "target": -0.9, "kimg": 0.5, "interval": 3}

AAE_SMALL = {"architecture": "small", "encoder": "universal"}
PETALS = {"kind": "mixture", "components": 2, "conditioned": True}

# Options that change which parameters there are, or the way of the gradients: game, its settings, data.
OPTIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "aae small universal": ("aae", {"variant": "unsupervised", "labelled": None, **AAE_SMALL}, {}),
    "aae supervised": ("aae", {"variant": "supervised", "labelled": None}, {}),
    "aae clustering": ("aae", {"variant": "clustering", "labelled": None, "clusters": 3, "optimizer": "adam"}, {}),
    "aae dimension reduction": ("aae", {"variant": "dimension_reduction"}, {}),
    "aae conditioned": ("aae", {"variant": "unsupervised", "latent_size": 2, "prior": PETALS}, {}),
    "ali bigan points": (
        "ali",
        {"encoder": "deterministic", "architecture": "mlp", "width": 0.02},
        {**POINTS, "data": {**POINTS["data"], "classes": 25}},
    ),
    "ali points": ("ali", {"architecture": "mlp", "width": 0.02, "conditional": False}, POINTS),
    "ali bigan mlp": ("ali", {"encoder": "deterministic", "architecture": "mlp", "width": 0.02}, {}),
    "avb injected": ("avb", {"adaptive_contrast": False, "architecture": "mlp"}, {}),
    "avb vae": ("avb", {"encoder": "gaussian", "likelihood": "gaussian"}, {}),
    "avb linear": ("avb", {"model": "linear_gaussian", "architecture": "mlp", "latent_size": 2}, LINEAR),
    "cgan concat": ("cgan", {"conditioning": "concat", "loss": "non_saturating", "r1_gamma": 1.0}, {}),
    "cgan mlp": ("cgan", {"architecture": "mlp"}, {}),
    "gan mlp": ("gan", {"architecture": "mlp", "hidden": 16, "gp_weight": 1.0, "drift": 0.1}, {}),
    "gan points": ("gan", {"architecture": "mlp", "hidden": 16, "r1_gamma": 1.0}, POINTS),
    "gan r3gan with ada": ("gan", {"loss": "relativistic", "r2_gamma": 1.0, "spectral_norm": True, "augment": ADA}, {}),
    "implicit_vi jc-adv": ("implicit_vi", {"contrast": "joint"}, {}),
    "implicit_vi jc-den": ("implicit_vi", {"contrast": "joint", "estimator": "denoising"}, {}),
    "implicit_vi linear pc-den": ("implicit_vi", {"model": "linear_gaussian", "estimator": "denoising"}, LINEAR),
    "pix2pixhd global": ("pix2pixhd", {"enhancers": 0, "encoder_features": 0, "pool_size": 0}, {}),
    "pix2pixhd layer norm": ("pix2pixhd", {"norm": "layer"}, {}),
    "progan classifier": ("progan", {"conditioning": "classifier"}, LABELLED),
    "progan projection": ("progan", {"conditioning": "projection", "loss": {"kind": "hinge", "r1_every": 2}}, LABELLED),
}
CASES = {**{name: (name, {}, {}) for name in GAMES}, **OPTIONS}
QUICK = {*GAMES, "progan projection"}

# A constant added to all scores cancels in their difference, and in hinges none of which is open or all of which are.
MAY_BE_NOUGHT = {"discriminator.last.bias", "discriminator.blocks.4.dense1.bias"}
STEPS = 200


def recipe_of(folder: Path, case: str) -> Recipe:
    name, changes, data = CASES[case]
    game = {**GAME_SETTINGS[name], **changes}
    data = {"data__resolution": 8, **GAME_DATA.get(name, {}), **data}
    return load_recipe(write_recipe(folder / "recipe.yaml", game=game, **data))


def batches(spec: ImageSpec, phase: Phase) -> Iterator[Batch]:
    """Noise with labels and maps where the data have them, or points, for ever."""
    draw = torch.Generator().manual_seed(0)
    n, r = phase.batch_size, phase.resolution
    width = r * (spec.width or spec.resolution) // spec.resolution

    def numbers(below: int, *shape: int) -> Tensor | None:
        return torch.randint(below, shape, generator=draw) if below else None

    for start in itertools.count(0, n):
        if spec.points is None:
            images = 2 * torch.rand(n, spec.channels, r, width, generator=draw) - 1
        else:
            points = PointStream(spec.points, seed=0)
            images = torch.from_numpy(points.read(np.arange(start, start + n)).images)
        maps = numbers(spec.label_map_classes, n, r, width), numbers(9 * spec.instance_maps, n, r, width)
        yield Batch(images, numbers(spec.classes, n), *maps)


@dataclass
class Watched:
    """An engine, with a record of where its gradients arrive and what its updates move.

    Attributes:
        reached: names of parameters whose gradient a backward changed.
        pushed: of those, the ones whose gradient is not nought everywhere.
        moved: names of parameters that an update changed.
    """

    engine: Engine
    networks: Mapping[str, nn.Module]
    reached: set[str] = field(default_factory=set)
    pushed: set[str] = field(default_factory=set)
    moved: set[str] = field(default_factory=set)

    @property
    def micro_batches(self) -> int:
        return self.engine.micro_batches

    def backward(self, shares: Sequence[tuple[Context, Batch]]) -> Outcome:
        before = {name: None if p.grad is None else p.grad.clone() for name, p in parameters(self.networks)}
        outcome = self.engine.backward(shares)
        for name, parameter in parameters(self.networks):
            old, new = before[name], parameter.grad
            if new is not None and (old is None or not torch.equal(old, new)):
                self.reached.add(name)
                if new.any():
                    self.pushed.add(name)
        return outcome

    def weight_norm(self) -> Tensor:
        return self.engine.weight_norm()

    def update(self, learning_rate: float) -> Update:
        before = {name: p.detach().clone() for name, p in parameters(self.networks)}
        update = self.engine.update(learning_rate)
        self.moved |= {name for name, p in parameters(self.networks) if not torch.equal(before[name], p)}
        return update


def parameters(networks: Mapping[str, nn.Module]) -> list[tuple[str, nn.Parameter]]:
    return [(f"{name}.{path}", p) for name, network in networks.items() for path, p in network.named_parameters()]


def table_of(game: Game, recipe: Recipe, world: World) -> Table:
    averages = averages_of(game.averages, game.networks)
    return Table(game.networks, averages, world, recipe.training, recipe.seed, torch.float32, labelled=True)


def engines_of(phase: Phase, table: Table) -> dict[str, Engine]:
    made = (phase, table.networks, table.world, table.config, NoMoments())
    return {player.name: DdpEngine(player, *made) for player in phase.players}


def progress_at(game: Game, index: int, share: float, step: int) -> Progress:
    """After so large a share of a phase's length."""
    start = Timeline(game.phases).start_of(index)
    seen = round(share * 1000 * game.phases[index].kimg)
    return Progress(step, start + seen, game.phases[index], seen)


@pytest.fixture
def game(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Game, Recipe, Table]]:
    threads = torch.get_num_threads()
    recipe = recipe_of(tmp_path, request.param)
    world = World(recipe.training)
    built = build_game(recipe, trained=True)
    yield built, recipe, table_of(built, recipe, world)
    torch.set_num_threads(threads)


def owned(player: Player, phase: Phase, networks: Mapping[str, nn.Module]) -> set[str]:
    """What the phase says that the player trains."""
    names = [name for name, _ in parameters(networks) if name.split(".")[0] in player.trains]
    return {name for name in names if any(f"{name}.".startswith(f"{prefix}.") for prefix in phase.trains)}


@pytest.mark.parametrize("game", CASES, indirect=True)
def test_gradients_reach_exactly_what_each_player_trains(game: tuple[Game, Recipe, Table]) -> None:
    """In each phase's middle; a gradient left for an opponent, or one that a simultaneous turn adds to, is found."""
    built, recipe, table = game
    ever: set[str] = set()
    for index, phase in enumerate(built.phases):
        engines = engines_of(phase, table)
        watched = {name: Watched(engine, table.networks) for name, engine in engines.items()}
        clock = Clock(step=0, phase=index)
        Step(table, cast(Any, watched)).play(
            clock, progress_at(built, index, 0.5, 0), batches(spec_of(recipe), phase), True
        )
        for player in phase.players:
            seen, wanted = watched[player.name], owned(player, phase, table.networks)
            where = f"{phase.name}, {player.name}"
            assert seen.reached == wanted, where
            assert wanted - seen.pushed <= MAY_BE_NOUGHT, where
            assert seen.moved == seen.pushed, where
            ever |= seen.moved
        for engine in engines.values():
            engine.close()
    never = {name for name, _ in parameters(table.networks)} - ever
    assert never <= MAY_BE_NOUGHT, "what no phase trains"


@pytest.mark.parametrize(
    "game", [pytest.param(case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES], indirect=True
)
def test_two_hundred_steps_are_finite(game: tuple[Game, Recipe, Table]) -> None:
    """Spread over all phases, whose schedules run through from end to end; an update that is not finite raises."""
    built, recipe, table = game
    count = math.ceil(STEPS / len(built.phases))
    clock = Clock()
    for index, phase in enumerate(built.phases):
        engines = engines_of(phase, table)
        step, shown = Step(table, engines), batches(spec_of(recipe), phase)
        for number in range(count):
            progress = progress_at(built, index, (number + 0.5) / count, clock.step)
            scalars = step.play(replace(clock, nimg=progress.nimg), progress, shown, True)
            assert {name.split("/")[0] for name in scalars} == {player.name for player in phase.players}
            assert all(value.isfinite() for value in scalars.values()), (phase.name, number, scalars)
            taken = phase.batch_size * phase.batches_a_step
            clock = replace(clock, step=clock.step + 1, samples=clock.samples + taken)
        step.settle()
        for engine in engines.values():
            engine.close()
    assert clock.step >= STEPS
    states = {**table.networks, **{average.name: network for average, network in table.averages}}
    for name, network in states.items():
        for path, value in network.state_dict().items():
            assert value.isfinite().all(), f"{name}.{path}"
