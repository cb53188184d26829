"""Step time of the trainer against a bare loop of the same networks: one process, interleaved pairs.

    python scripts/bench_overhead.py                      # the demo's networks at 32 pixels
    python scripts/bench_overhead.py --channels 16 --pairs 60

The trainer trains a ProGAN at its last resolution through everything it does between two steps: reading ahead, logs,
the wish to stop, averages, checks of gradients. After each block of its steps the bare loop makes as many: the same
losses on images that lie in memory, Adam, the average, and nothing else. The time between two steps of the trainer is
its own; what stands below is the ratio of the blocks.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from advgen.build import build_game, build_trainer  # noqa: E402
from advgen.config import Recipe, load_recipe  # noqa: E402
from advgen.ema import update_average  # noqa: E402
from advgen.game import Batch, Context, Game, OneSlice, Progress  # noqa: E402
from advgen.runtime.preemption import StopRequest  # noqa: E402
from advgen.seeds import Noise  # noqa: E402
from advgen.watch import Status  # noqa: E402
from tests.distributed.runs import make_shards  # noqa: E402


class Bare:
    """The loop that a person would write: losses, backward, Adam, average."""

    def __init__(self, game: Game, images: torch.Tensor) -> None:
        self.game, self.images, self.phase = game, images, game.phases[-1]
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
        positions = torch.arange(self.step * size, (self.step + 1) * size)
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


class Pairs:
    """Watches the trainer: times its blocks, and lets the bare loop make its own after each."""

    def __init__(self, bare: Bare, block: int, warm: int) -> None:
        self.bare, self.block, self.warm = bare, block, warm
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
        now = time.perf_counter()
        self.steps += 1
        if self.steps > self.warm:
            self.spent += now - self.left
        if self.steps >= self.warm and (self.steps - self.warm) % self.block == 0:
            begun = time.perf_counter()
            for _ in range(self.block):
                self.bare.play()
            if self.steps > self.warm:
                self.ours.append(self.spent)
                self.theirs.append(time.perf_counter() - begun)
            self.spent = 0.0
        self.left = time.perf_counter()


def recipe_of(folder: Path, channels: int, steps: int, batch: int) -> Recipe:
    """A ProGAN that trains at 32 pixels alone, with widths in proportion to the demo's."""
    tiny = {"stabilize_kimg_by_resolution": {4: 0, 8: 0, 16: 0, 32: steps * batch / 1000}, "fade_kimg": 0}
    recipe: dict[str, Any] = {
        "name": "bench",
        "runs": str(folder / "runs"),
        "data": {"resolution": 32, "train": {"shards": str(folder / "shards")}},
        "game": {
            "kind": "progan",
            "latent_size": channels,
            "channels": {4: channels, 8: channels, 16: channels // 2, 32: channels // 4},
            "minibatch_group": 4,
            "batch_size": batch,
            "learning_rate": 0.001,
            "average": {"kind": "constant"},
            **tiny,
        },
        "training": {"threads": 1, "checkpoint_kimg": 1e6, "sample_kimg": 1e6},
        "tracking": {"wandb": "disabled"},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return load_recipe(path)


def main() -> None:
    """Measure and print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=64, help="at 4 and 8 pixels; half at 16, a quarter at 32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--block", type=int, default=10, help="steps a block")
    parser.add_argument("--pairs", type=int, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_shards(folder, resolution=32)
        warm = 10
        recipe = recipe_of(folder, given.channels, warm + given.block * given.pairs, given.batch)
        trainer, world = build_trainer(recipe)
        images = torch.from_numpy(trainer.stream.read(np.arange(given.batch)).images).float() / 127.5 - 1
        pairs = Pairs(Bare(build_game(recipe), images), given.block, warm)
        trainer.run(pairs, StopRequest())
        world.close()
    logs = [math.log(a / b) for a, b in zip(pairs.ours, pairs.theirs, strict=True)]
    mean, error = statistics.fmean(logs), statistics.stdev(logs) / math.sqrt(len(logs))
    step = statistics.median(pairs.theirs) / given.block
    print(
        f"{platform.machine()}, torch {torch.__version__}, 1 thread, 32 px, {given.channels} channels, batch "
        f"{given.batch}: bare step {1000 * step:.1f} ms; trainer / bare, {len(logs)} pairs of {given.block} steps: "
        f"mean {math.exp(mean):.4f}, 95 % bounds {math.exp(mean - 2.045 * error):.4f} to "
        f"{math.exp(mean + 2.045 * error):.4f}, median {math.exp(statistics.median(logs)):.4f}"
    )


if __name__ == "__main__":
    main()
