"""Step time of the trainer against a bare loop of the same networks, and how long the trainer waits for data.

    python scripts/bench.py train                         # the demo's networks, continued to 64 and 128 pixels
    python scripts/bench.py train --resolution 32 --channels 16 --batch 8 --pairs 60

The trainer trains a ProGAN at its last resolution through everything it does between two steps: reading ahead, logs,
the wish to stop, averages, checks of gradients. After each block of its steps the bare loop makes as many: the same
losses on images that lie in memory, Adam, the average, and nothing else. The time between two steps of the trainer is
its own; what stands below is the ratio of the blocks. Then the trainer makes further steps without the bare loop, which
would leave it time to read ahead; its log tells the share of them in which it waited for data.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from advgen.build import build_game, build_trainer
from advgen.ema import update_average
from advgen.game import Batch, Context, Game, OneSlice, Progress
from advgen.runtime.kernels import one_device
from advgen.runtime.preemption import StopRequest
from advgen.seeds import Noise
from advgen.watch import Status
from scripts.benchmarks.measure import Report, parser_of, ratio_of, spread
from scripts.benchmarks.progan import demo_widths, progan_recipe

BLOCKS = {32: 10, 64: 5, 128: 3}


class Bare:
    """The loop that a person would write: losses, backward, Adam, average."""

    def __init__(self, game: Game, images: torch.Tensor) -> None:
        self.game, self.images, self.phase = game, images, game.phases[-1]
        for network in game.networks.values():
            network.to(images.device)
        self.average = copy.deepcopy(game.networks["generator"])
        self.optimizers = {
            player.name: torch.optim.Adam(
                [p for name in player.trains for p in game.networks[name].parameters()], lr=0.001, betas=(0.0, 0.99)
            )
            for player in self.phase.players
        }
        self.step = 0

    def play(self) -> None:
        """One step of both players."""
        size = self.phase.batch_size
        positions = torch.arange(self.step * size, (self.step + 1) * size, device=self.images.device)
        batch = Batch(self.images[positions % len(self.images)])
        progress = Progress(self.step, self.step * size, self.phase, self.step * size)
        for player in self.phase.players:
            for name, network in self.game.networks.items():
                network.requires_grad_(name in player.trains)
            noise = Noise(0, ("bare", player.name), positions)
            outcome = player.loss(Context(self.game.networks, progress, noise, OneSlice()), batch)
            outcome.loss.backward()
            self.optimizers[player.name].step()
            self.optimizers[player.name].zero_grad(set_to_none=True)
        update_average(self.average, self.game.networks["generator"], 0.999)
        self.step += 1

    def now(self) -> float:
        """The time when the device has done what it was told, so that a block of steps holds its own work."""
        if self.images.is_cuda:
            torch.cuda.synchronize(self.images.device)
        return time.perf_counter()


class Pairs:
    """Watches the trainer: times its blocks, and lets the bare loop make its own after each."""

    def __init__(self, bare: Bare, block: int, warm: int, pairs: int) -> None:
        self.bare, self.block, self.warm, self.pairs = bare, block, warm, pairs
        self.steps, self.spent, self.left = 0, 0.0, 0.0
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def resumed(self, checkpoint: Path) -> None:
        """Never."""

    def warned(self, text: str) -> None:
        """Never."""

    def told(self, text: str) -> None:
        """Never."""

    def step(self, status: Status) -> None:
        """A step of the trainer was done."""
        self.steps += 1
        ends = self.steps >= self.warm and (self.steps - self.warm) % self.block == 0
        now = self.bare.now() if ends else time.perf_counter()
        if len(self.ours) == self.pairs:
            return
        if self.steps > self.warm:
            self.spent += now - self.left
        if ends:
            begun = now
            for _ in range(self.block):
                self.bare.play()
            ended = self.bare.now()
            if self.steps > self.warm:
                self.ours.append(self.spent)
                self.theirs.append(ended - begun)
            self.spent = 0.0
        self.left = time.perf_counter()


def warm_steps(bare: Bare) -> int:
    """Steps of four seconds, at least ten: the first record of the pace, for which FLOPs are counted once, is past."""
    seconds: list[float] = []
    for _ in range(3):
        begun = bare.now()
        bare.play()
        seconds.append(bare.now() - begun)
    return max(10, math.ceil(4.0 / min(seconds)))


def waits(log: Path, after: int) -> list[float]:
    """Shares of time waited for data, of readings that began after so many steps."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    rates = [record for record in records if record["kind"] == "rate"]
    return [late["data_wait"] for early, late in itertools.pairwise(rates) if early["step"] >= after]


def measured(
    folder: Path, resolution: int, channels: int, batch: int, block: int, pairs: int, alone: int, flags: Sequence[str]
) -> dict[str, Any]:
    """Seconds of the blocks of both, their ratio, and the shares of time waited for data."""
    widths = {**demo_widths(channels, resolution), "learning_rate": 0.001, "average": {"kind": "constant"}}
    recipe = progan_recipe(folder, resolution, batch, widths, flags=flags)
    nothing = torch.zeros(batch, 3, resolution, resolution, device=one_device(recipe.training))
    warm = warm_steps(Bare(build_game(recipe), nothing))
    steps = warm + block * pairs
    recipe = progan_recipe(folder, resolution, batch, widths, steps=steps + alone, flags=flags)
    trainer, world = build_trainer(recipe)
    images = torch.from_numpy(trainer.stream.read(np.arange(batch), resolution).images).to(world.device)
    watch = Pairs(Bare(build_game(recipe), images.float() / 127.5 - 1), block, warm, pairs)
    trainer.run(watch, StopRequest())
    world.close()
    found = {"batch": batch, "block": block, "trainer": watch.ours, "bare": watch.theirs}
    return {
        **found,
        "ratio": ratio_of(watch.ours, watch.theirs),
        "data_wait": waits(recipe.folder / "log.jsonl", steps),
    }


def main(arguments: Sequence[str]) -> None:
    """Measure and print a table."""
    parser = parser_of("train", __doc__)
    parser.add_argument("--resolution", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--channels", type=int, default=64, help="at 4 and 8 pixels, then halved with each doubling")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--block", type=int, help=f"steps a block; by resolution {BLOCKS}, else 3")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--alone", type=int, default=60, help="steps after the pairs, for the wait for data")
    given, flags = parser.parse_known_args(arguments)
    with Report(given) as report, tempfile.TemporaryDirectory() as place:
        rows = []
        for resolution in given.resolution:
            block = given.block or BLOCKS.get(resolution, 3)
            sizes = (given.channels, given.batch, block, given.pairs, given.alone)
            found = report.figures[str(resolution)] = measured(Path(place), resolution, *sizes, flags)
            ratio, wait = found["ratio"], found["data_wait"]
            rows.append(
                [
                    f"{resolution} px",
                    spread(found["bare"]).show(".1f", 1000 / block),
                    f"{ratio.mean:.4f}",
                    f"{ratio.low:.4f} to {ratio.high:.4f}",
                    f"{ratio.median:.4f}",
                    f"{spread(wait).median:.2%}, at most {max(wait):.2%}" if wait else "steps too few to say",
                ]
            )
        report.say(
            f"{torch.get_num_threads()} threads, {given.channels} channels, batch {given.batch}, {given.pairs} pairs"
            f"{', ' + ' '.join(flags) if flags else ''}; the wait is the trainer's own, in readings of about 2 s"
        )
        columns = ["resolution", "bare step, ms", "trainer / bare", "95 % bounds", "median", "waiting for data"]
        report.table(columns, rows)
