"""A step of ProGAN (WGAN-GP) as the trainer makes it, beside the same step written in the obvious way.

    python scripts/bench.py step                                        # 32, 64 and 128 pixels, one thread
    python scripts/bench.py step --resolution 64 --channels-last --rounds 20
    python scripts/bench.py step --game.fused-downsampling              # any key of a recipe, as for `advgen train`

Both are in one process, begin with the same weights, see the same batch, which lies on the device, and take turns round
by round; `plain` is scripts/benchmarks/plain_progan.py, `advgen` the trainer's engines through advgen.turns.Step. Told
are samples (images of a batch) a second, medians and least to most, and advgen / plain as the mean of the logarithms of
the rounds' ratios with its 95 % interval; then the same by player, and for the rest, which is the average and what
stands between players. FLOPs are counted by advgen.counting in one step of each, for which compiled networks run
eagerly; they tell how much of the ratio is less work.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from advgen.build import build_trainer
from advgen.config import Recipe
from advgen.counting import Ledger, PlayerCount
from advgen.errors import UserError
from advgen.games.progan.config import ProganConfig
from advgen.runtime.engine import Engine, NoMoments
from advgen.runtime.engines import build_engines, close_engines
from advgen.runtime.world import World
from advgen.trainer import Trainer
from advgen.turns import Step
from scripts.benchmarks.measure import Laps, Report, in_turns, parser_of, ratio_of, spread
from scripts.benchmarks.plain_progan import PlainLoop, Shape
from scripts.benchmarks.progan import paper_widths, progan_recipe

PARTS = ("discriminator", "generator", "rest")
BATCHES = {32: 16, 64: 16, 128: 8}


class LappedEngine:
    """An engine whose backward pass and update are counted as its player's."""

    def __init__(self, engine: Engine, lap: Callable[[str], None]) -> None:
        self.engine, self._lap = engine, lap

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def backward(self, *arguments: Any) -> Any:
        """What stands before it is what the step does between players, the average among it."""
        self._lap("rest")
        outcome = self.engine.backward(*arguments)
        self._lap(self.engine.player.name)
        return outcome

    def update(self, *arguments: Any) -> Any:
        """As the engine's."""
        update = self.engine.update(*arguments)
        self._lap(self.engine.player.name)
        return update


class TrainersLoop:
    """Steps of a trainer's first phase, on one batch."""

    def __init__(self, trainer: Trainer, world: World, lap: Callable[[str], None]) -> None:
        self.phase, self._timeline, self._clock = trainer.timeline.phases[0], trainer.timeline, trainer.clock
        self.engines = build_engines(self.phase, trainer.networks, world, trainer.config, NoMoments())
        lapped = {name: cast(Engine, LappedEngine(engine, lap)) for name, engine in self.engines.items()}
        self._step = Step(trainer._table, lapped)
        samples = trainer.stream.read(np.arange(self.phase.batch_size), self.phase.resolution)
        self.batch = trainer._table.batch(samples)
        self._every = trainer.config.log_every_steps

    def play(self) -> None:
        """One step of both players."""
        clock, progress = self._clock, self._timeline.progress(self._clock)
        self._step.play(clock, progress, itertools.repeat(self.batch), clock.step % self._every == 0)
        self._clock = self._timeline.advance(clock)


@dataclass
class Pair:
    """Both loops, and what shares out their time."""

    plain: PlainLoop
    advgen: TrainersLoop
    laps: Laps

    def lap(self, name: str) -> None:
        """For both."""
        self.laps.lap(name)


def clock_of(device: torch.device) -> Laps:
    """Seconds; of a GPU by its own events, which wait for nothing."""
    if device.type != "cuda":
        return Laps(time.perf_counter, lambda before, after: after - before)

    def now() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(before: torch.cuda.Event, after: torch.cuda.Event) -> float:
        after.synchronize()
        return before.elapsed_time(after) / 1000

    return Laps(now, between)


def build_pair(recipe: Recipe, trainer: Trainer, world: World) -> Pair:
    """Both loops with the same weights and batch."""
    config = cast(ProganConfig, recipe.game)
    rows = [4 << i for i in range(recipe.data.resolution.bit_length() - 2)]
    assert config.minibatch_group is not None
    shape = Shape(
        {r: config.channels_at(r) for r in rows},
        config.latents,
        config.channels_at(2),
        config.minibatch_group,
        config.fused_downsampling,
        recipe.data.channels,
    )
    holder: list[Pair] = []
    ours = TrainersLoop(trainer, world, lambda name: holder[0].lap(name))
    images = ours.batch.images.contiguous()
    plain = PlainLoop(shape, images, config.learning_rate, lambda name: holder[0].lap(name))
    for name, network in (("generator", plain.generator), ("discriminator", plain.discriminator)):
        theirs = trainer.networks[name].state_dict()
        network.load_state_dict({key: theirs[key] for key in network.state_dict()})
    plain.average.load_state_dict(plain.generator.state_dict())
    holder.append(Pair(plain, ours, clock_of(world.device)))
    return holder[0]


def measured(pair: Pair, rounds: int, warm: int, block: int) -> dict[str, dict[str, list[float]]]:
    """Seconds a step by loop and player, of each round; `step` is the whole."""
    found: dict[str, dict[str, list[float]]] = {}

    def work(name: str, play: Callable[[], None]) -> Callable[[], float]:
        def once() -> float:
            pair.laps.start()
            for _ in range(block):
                play()
            parts = {player: value / block for player, value in pair.laps.read().items()}
            for player, value in (*parts.items(), ("step", sum(parts.values()))):
                found.setdefault(name, {}).setdefault(player, []).append(value)
            return parts["discriminator"]

        return once

    in_turns({"plain": work("plain", pair.plain.play), "advgen": work("advgen", pair.advgen.play)}, rounds, warm)
    return {name: {part: values[warm:] for part, values in parts.items()} for name, parts in found.items()}


def counted(pair: Pair) -> dict[str, dict[str, float]]:
    """FLOPs of a step by loop and player."""
    timed, found = pair.laps, {}
    try:
        with torch.compiler.set_stance("force_eager"):
            for name, play in (("plain", pair.plain.play), ("advgen", pair.advgen.play)):
                count = PlayerCount()
                with Ledger() as ledger, ledger.counting(count):
                    pair.laps = Laps(partial(getattr, count, "flops"), lambda before, after: float(after - before))
                    pair.laps.start()
                    play()
                    found[name] = pair.laps.read()
    finally:
        pair.laps = timed
    return found


def tell(report: Report, figures: Mapping[int, Mapping[str, Any]]) -> None:
    """Both tables."""
    whole, players = [], []
    for resolution, of in figures.items():
        batch, times, flops = of["batch"], of["seconds"], of["flops"]
        rates = {name: spread([batch / value for value in parts["step"]]) for name, parts in times.items()}
        less = sum(flops["plain"].values()) / sum(flops["advgen"].values())
        whole.append(
            [
                f"{resolution} px",
                batch,
                f"{spread(times['plain']['step']).median:.3f}",
                *(rates[name].show(".1f") for name in ("plain", "advgen")),
                of["ratio"]["step"].show(),
                f"{less:.2f}",
            ]
        )
        for player in PARTS:
            share = flops["advgen"].get(player, 0.0) / sum(flops["advgen"].values())
            players.append(
                [
                    f"{resolution} px",
                    player,
                    *(f"{1000 * spread(times[name][player]).median:.1f}" for name in ("plain", "advgen")),
                    of["ratio"][player].show(),
                    *(f"{flops[name].get(player, 0.0) / batch / 1e9:.3f}" for name in ("plain", "advgen")),
                    f"{share:.1%}",
                ]
            )
    rates = ("plain samples/s", "advgen samples/s", "advgen / plain (95 %)")
    report.table(["resolution", "batch", "plain s/step", *rates, "FLOPs plain / advgen"], whole)
    columns = ["resolution", "player", "plain ms", "advgen ms", "speed advgen / plain (95 %)"]
    report.table([*columns, "plain GFLOP/sample", "advgen GFLOP/sample", "share of advgen's FLOPs"], players)


def arguments_of(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What was given, and flags of the recipe."""
    parser = parser_of("step", __doc__)
    parser.add_argument("--resolution", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--batch", type=int, help=f"images a step; by resolution {BATCHES}, else 8")
    parser.add_argument(
        "--widest", type=int, default=64, help="channels up to 32 pixels, then halved; the paper's: 512"
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--warm", type=int, default=3, help="rounds before, which do not count")
    parser.add_argument("--block", type=int, default=1, help="steps of each in a round")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", nargs="+", default=[], metavar="NETWORK")
    parser.add_argument("--precision", default="float32")
    given, flags = parser.parse_known_args(arguments)
    if given.widest < (least := max(given.resolution) // 32):
        raise UserError(f"--widest {given.widest} leaves no channel at {max(given.resolution)} px: at least {least}.")
    flags += ["--training.precision", given.precision]
    flags += ["--training.channels-last"] if given.channels_last else []
    flags += ["--training.compile", *given.compile] if given.compile else []
    return given, flags


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    given, flags = arguments_of(arguments)
    with Report(given) as report, tempfile.TemporaryDirectory() as place:
        figures: dict[int, dict[str, Any]] = {}
        for resolution in given.resolution:
            batch = given.batch or BATCHES.get(resolution, 8)
            recipe = progan_recipe(Path(place), resolution, batch, paper_widths(given.widest), flags=flags)
            trainer, world = build_trainer(recipe)
            pair = build_pair(recipe, trainer, world)
            times = measured(pair, given.rounds, given.warm, given.block)
            ratio = {part: ratio_of(values, times["advgen"][part]) for part, values in times["plain"].items()}
            figures[resolution] = {"batch": batch, "seconds": times, "ratio": ratio, "flops": counted(pair)}
            close_engines(pair.advgen.engines, world)
            world.close()
        report.figures["flags"] = flags
        report.figures["resolutions"] = figures
        report.say(
            f"{torch.get_num_threads()} threads, {world.device.type}; widest {given.widest}; advgen with "
            f"{' '.join(flags)}; {given.rounds} rounds of {given.block} after {given.warm}: medians (least to most)."
        )
        tell(report, figures)
