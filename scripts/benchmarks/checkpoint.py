"""How long a checkpoint of the paper-size ProGAN stops the training, and how long it is written beside it.

    python scripts/bench.py checkpoint

Networks, averages and moments are those of the last phase of `pipelines/recipes/progan-celebahq-1024.yaml`; the
optimizers have made a step of zero gradients (a real one takes minutes on a CPU). What is timed is what the trainer
does between two steps: equal on all ranks, finite, copied. The rest is a thread's.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from advgen.build import build_trainer
from advgen.clock import Clock
from advgen.config import load_recipe
from advgen.runtime.engine import NoMoments
from advgen.runtime.engines import build_engines, collect_state
from scripts.benchmarks.measure import ROOT, Report, parser_of, seconds, spread
from tests.distributed.runs import make_shards


def multiplications(duration: float) -> float:
    """Products of 512x512 matrices a second, as a stand-in for a training that goes on."""
    factor, count, began = torch.ones(512, 512), 0, time.perf_counter()
    while time.perf_counter() - began < duration:
        torch.mm(factor, factor)
        count += 1
    return count / (time.perf_counter() - began)


def measured(folder: Path, times: int, flags: Sequence[str]) -> dict[str, list[float]]:
    """Seconds that training stands still and until a checkpoint is whole, the speed of other work beside it, bytes."""
    make_shards(folder, resolution=1024)
    own = ["--data.train.shards", str(folder / "shards"), "--runs", str(folder / "runs")]
    own += ["--training.device", "cpu", "--training.threads", "1", "--tracking.wandb", "disabled"]
    recipe = load_recipe(ROOT / "pipelines/recipes/progan-celebahq-1024.yaml", [*own, *flags])
    trainer, world = build_trainer(recipe)
    last = trainer.timeline.phases[-1]
    engines = build_engines(last, trainer.networks, world, recipe.training, NoMoments())
    for engine in engines.values():
        for parameter in engine.parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        engine.update(0.0)
    trainer.journal.open()
    alone = multiplications(3.0)
    found: dict[str, list[float]] = {"stall": [], "whole": [], "beside": [], "bytes": []}
    for number in range(times):
        trainer.clock = replace(Clock(), nimg=number + 1, phase=len(trainer.timeline.phases) - 1, phase_step=1)
        began = time.perf_counter()
        found["stall"].append(seconds(lambda: trainer._save(collect_state(engines.values()), ended=None)))
        found["beside"].append(multiplications(1.0) / alone)
        trainer._saver.wait()
        found["whole"].append(time.perf_counter() - began)
        if trainer._saver.failure is not None:
            raise trainer._saver.failure
        newest = max(trainer.folder.checkpoints.glob("0*"))
        found["bytes"].append(float(sum(path.stat().st_size for path in newest.iterdir())))
    trainer.journal.close()
    return found


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = parser_of("checkpoint", __doc__)
    parser.add_argument("--times", type=int, default=5)
    given, flags = parser.parse_known_args(arguments)
    with Report(given) as report, tempfile.TemporaryDirectory() as place:
        found = report.figures["checkpoints"] = measured(Path(place), given.times, flags)
        report.say(
            f"1 thread; {given.times} checkpoints of {found['bytes'][-1] / 1e6:.0f} MB: medians (least to most)."
        )
        report.table(
            ["training stands still, s", "whole after, s", "speed of other work meanwhile"],
            [
                [
                    spread(found["stall"]).show(".2f"),
                    spread(found["whole"]).show(".1f"),
                    spread(found["beside"]).show(".0%"),
                ]
            ],
        )
