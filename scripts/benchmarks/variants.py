"""A step of a recipe under several settings of the hardware: images a second, share of the machine's ceiling, memory.

    python scripts/bench.py variants                                       # the paper's ProGAN, 64 to 1,024 pixels
    python scripts/bench.py variants --resolution 1024 --variants float32 all --batch 8
    python scripts/bench.py variants --recipe pipelines/recipes/pix2pixhd-cityscapes-1024.yaml --game.batch-size 4

Every row is a process of its own, so that its memory is its own, and one that does not fit ends no other. A step is the
trainer's, by its engines, of the run's first phase, on one batch that lies on the device; pictures are made up. Steps
are timed in blocks, at whose ends the device is waited for. FLOPs are counted (advgen.counting); MFU is their rate over
that of the machine's best large product in the same precision (advgen.runtime.ceiling).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from advgen.build import build_trainer
from advgen.config import Recipe, load_recipe
from advgen.errors import UserError
from advgen.runtime.ceiling import ceiling
from advgen.runtime.engines import close_engines
from scripts.benchmarks.made_up import make_up_shards
from scripts.benchmarks.measure import Report, command, parser_of, seconds, spread
from scripts.benchmarks.progan import paper_widths, progan_recipe
from scripts.benchmarks.step import TrainersLoop

# Batches of the paper's code on one GPU.
BATCHES = {64: 32, 128: 16, 256: 8, 512: 4, 1024: 4}
_LAST, _HALF = ("--training.channels-last",), ("--training.precision", "bf16")
_TRIED = ("--training.algorithms", "benchmark")
_COMPILED = ("--training.compile", "generator", "discriminator")
VARIANTS: dict[str, tuple[str, ...]] = {
    "float32": (),
    "tf32": ("--training.tf32",),
    "float32, channels_last": _LAST,
    "tf32, channels_last": ("--training.tf32", *_LAST),
    "bf16": _HALF,
    "bf16, channels_last": (*_HALF, *_LAST),
    "bf16, channels_last, benchmark": (*_HALF, *_LAST, *_TRIED),
    "bf16, channels_last, compiled": (*_HALF, *_LAST, *_COMPILED),
    "all": (*_HALF, *_LAST, *_COMPILED, *_TRIED, "--training.tf32"),
}


def measured(recipe: Recipe, warm: int, blocks: int, block: int) -> dict[str, Any]:
    """Seconds a step of each block, FLOPs of a step, the ceiling, bytes of memory at most."""
    trainer, world = build_trainer(recipe)
    loop = TrainersLoop(trainer, world, lambda name: None)
    cuda = world.device.type == "cuda"

    def play(steps: int) -> None:
        for _ in range(steps):
            loop.play()
        if cuda:
            torch.cuda.synchronize(world.device)

    play(warm)
    times = [seconds(lambda: play(block)) / block for _ in range(blocks)]
    # Linux counts in KiB.
    peak = torch.cuda.max_memory_allocated() if cuda else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {
        "batch": loop.phase.batch_size,
        "seconds": times,
        "flops": trainer.setting.flops(0) if trainer.setting.flops is not None else 0.0,
        "ceiling": ceiling(world.device, recipe.training.precision),
        "bytes": peak,
        "device": torch.cuda.get_device_name(world.device) if cuda else "cpu",
    }
    close_engines(loop.engines, world)
    world.close()
    return found


def recipe_of(given: argparse.Namespace, variant: str, flags: Sequence[str], place: Path) -> Recipe:
    """The recipe of a row, with shards of made-up pictures."""
    flags = [*VARIANTS[variant], *flags]
    if given.recipe is None:
        (resolution,) = given.resolution
        batch = given.batch or BATCHES.get(resolution, 16)
        return progan_recipe(place, resolution, batch, paper_widths(given.widest), flags=flags)
    flags += ["--runs", str(place / "runs"), "--tracking.wandb", "disabled"]
    shards = make_up_shards(load_recipe(given.recipe, flags).data, place)
    return load_recipe(given.recipe, [*flags, "--data.train.shards", str(shards)])


def alone(given: argparse.Namespace, variant: str, flags: Sequence[str]) -> dict[str, Any]:
    """A row in this process; ``error`` tells why there is none."""
    with tempfile.TemporaryDirectory() as place:
        try:
            return measured(recipe_of(given, variant, flags, Path(place)), given.warm, given.blocks, given.block)
        except torch.OutOfMemoryError:
            return {"error": "out of memory"}


def elsewhere(given: argparse.Namespace, resolution: int, variant: str, flags: Sequence[str]) -> dict[str, Any]:
    """A row in a process of its own; bad input, which would be that of other rows, too, is told and ends all."""
    sizes = ["--warm", given.warm, "--blocks", given.blocks, "--block", given.block, "--widest", given.widest]
    sizes += ["--batch", given.batch] if given.batch else []
    what = ["--recipe", given.recipe] if given.recipe else ["--resolution", resolution]
    with tempfile.TemporaryDirectory() as place:
        told = Path(place) / "told.json"
        row = command("variants", *what, "--variants", variant, *sizes, "--json", told, *flags)
        done = subprocess.run(row, capture_output=True, text=True)
        if done.returncode == 2:
            raise UserError(f"{variant}: {done.stderr.strip()}")
        if done.returncode:
            return {"error": ((done.stderr or done.stdout).strip().splitlines() or ["no word"])[-1]}
        (found,) = json.loads(told.read_text())["figures"]["rows"]
        return found


def shown(row: dict[str, Any], first: dict[str, Any] | None) -> list[str]:
    """Cells of a row; ``first`` is the row that it is set against."""
    if "error" in row:
        return [row["error"], "", "", "", "", ""]
    rates = spread([row["batch"] / each for each in row["seconds"]])
    flops = row["flops"] / spread(row["seconds"]).median
    times = f"{rates.median * spread(first['seconds']).median / first['batch']:.3f}" if first else ""
    return [
        rates.show(".4g"),
        f"{1000 / rates.median:.4g}",
        f"{flops / 1e12:.3g}",
        f"{flops / row['ceiling']:.1%}",
        f"{row['bytes'] / 2**30:.2f}",
        times,
    ]


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = parser_of("variants", __doc__)
    parser.add_argument("--resolution", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--batch", type=int, help=f"images a step; by resolution {BATCHES}, else 16")
    parser.add_argument("--widest", type=int, default=512, help="channels up to 32 pixels, then halved")
    parser.add_argument("--recipe", type=Path, help="measure this in the place of ProGAN")
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS)[:-1])
    parser.add_argument("--warm", type=int, default=3, help="steps before, which do not count")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--block", type=int, default=4, help="steps in a block")
    given, flags = parser.parse_known_args(arguments)
    if given.recipe is not None:
        if not given.recipe.is_file():
            raise UserError(f"{given.recipe} does not exist.")
        given.resolution = [0]  # the recipe has its own
    with Report(given) as report:
        rows: list[list[object]] = []
        report.figures["rows"] = []
        for resolution in given.resolution:
            first: dict[str, Any] | None = None
            for variant in given.variants:
                one = len(given.resolution) == len(given.variants) == 1
                row = alone(given, variant, flags) if one else elsewhere(given, resolution, variant, flags)
                report.figures["rows"].append({**row, "resolution": resolution, "variant": variant})
                what = given.recipe.stem if given.recipe else f"{resolution} px"
                rows.append([what, row.get("batch", ""), variant, *shown(row, first)])
                first = row if first is None and "error" not in row else first
                print(*rows[-1], sep="; ", file=sys.stderr, flush=True)
        columns = ["what", "batch", "settings", "images/s", "s/kimg", "TFLOP/s", "MFU", "GiB", "times the first"]
        report.table(columns, rows)
