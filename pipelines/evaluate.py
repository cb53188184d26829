"""``advgen evaluate``: metrics of a run's checkpoints, of a folder of images or of shards."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from advgen.config import Recipe
from advgen.metrics import METRICS
from advgen.metrics.protocols import PROTOCOLS, asked
from advgen.metrics.repeats import summaries
from advgen.runtime.run_folder import RunFolder
from advgen.runtime.slurm import adopt_task
from advgen.strict_config import YamlText, parse, plain, read_yaml
from pipelines import evaluate_images
from pipelines.ranks import among_ranks
from pipelines.telling import figure, tell
from pipelines.terminal import Counting, console

if TYPE_CHECKING:
    from advgen.evaluation import Evaluator, Told
    from advgen.metrics.records import Record
    from advgen.runtime.preemption import StopRequest
    from advgen.runtime.tracking import EvaluationMirror

DESCRIPTION = """Take metrics of a run's checkpoints (the recipe's evaluation.checkpoints: if it does not say otherwise,
phase ends and the newest), with the real-versus-real floor.
Figures that are there by the same protocol are not taken again. Works alone, under torchrun, accelerate launch and srun
(see `advgen train --help`): each process draws and looks at its share, and the figures stay the same.

  advgen evaluate folder DIR --reference SHARDS     metrics of a folder of images
  advgen evaluate shards SHARDS --reference SHARDS  metrics of shards
  advgen evaluate reference SHARDS                  statistics of real images, ahead of time
"""


@dataclass(frozen=True)
class How:
    """Which checkpoints are evaluated, and how.

    Attributes:
        which: see :data:`advgen.evaluation.Which`; None for the recipe's evaluation.checkpoints.
        watch: seconds between looks for new checkpoints, until the run is done; None: one look.
        repeats: sets of generated images, each of a seed of its own.
        share: which of how many shares of these checkpoints, counted from 1.
    """

    which: Literal["ends", "latest", "every"] | int | None = None
    watch: float | None = None
    repeats: int = 1
    share: tuple[int, int] = (1, 1)


def main(argv: list[str]) -> int:
    """Evaluate a run, or images."""
    adopt_task(os.environ)
    if argv and argv[0] in evaluate_images.KINDS:
        return evaluate_images.main(argv)
    known = "; ".join(f"{spec.name}: {spec.describe}; {spec.better} is better" for spec in METRICS.values())
    parser = argparse.ArgumentParser(
        prog="advgen evaluate",
        description=DESCRIPTION,
        epilog=f"Metrics: {known}. Protocols: {', '.join(PROTOCOLS)}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="run folder, such as runs/NAME")
    parser.add_argument(
        "--metrics", help="names of metrics and protocols, separated by commas; the recipe's by default"
    )
    parser.add_argument("--samples", type=int, help="generated images; the recipe's number by default")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--latest", action="store_const", dest="which", const="latest", help="the newest checkpoint only"
    )
    which.add_argument("--every", action="store_const", dest="which", const="every", help="all checkpoints")
    which.add_argument("--checkpoint", type=int, dest="which", metavar="NIMG", help="the one at so many images")
    which.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=30.0,
        metavar="SECONDS",
        help="all checkpoints, and new ones as they appear, until the run is done; looks every 30 seconds by default",
    )
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="figures of N sets of generated images")
    parser.add_argument("--batch-size", type=int, help="images at a time; changes no figure")
    parser.add_argument(
        "--inception-weights", help="file with the weights of FID's Inception network, for fid, kid ..."
    )
    parser.add_argument(
        "--reference-statistics",
        help=".npz file of mu and sigma that fid is taken against, or a file of `advgen evaluate reference`",
    )
    parser.add_argument("--dinov2", help="TorchScript file, for fd_dinov2")
    parser.add_argument("--segmenter", help="TorchScript file, for miou and pixel_accuracy; else one is trained")
    parser.add_argument("--classifier", help="TorchScript file, for recognised; else one is trained")
    parser.add_argument("--lpips", help="TorchScript file, for lpips_diversity and ppl")
    parser.add_argument("--judge-images", type=int, help="images that a segmenter or classifier is trained on")
    given = parser.parse_args(argv)
    if given.repeats < 1 or (given.watch is not None and given.watch <= 0):
        parser.error("--repeats and --watch take numbers above 0")
    folder = RunFolder(given.run).require()
    recipe = parse(Recipe, read_yaml(folder.config), str(folder.config))
    changes: dict[str, object] = {}
    if given.metrics:
        changes["metrics"] = tuple(name.strip() for name in given.metrics.split(","))
        asked(changes["metrics"])
    judges = ("segmenter", "classifier", "judge_images")
    for name in ("samples", "batch_size", "inception_weights", "reference_statistics", "dinov2", "lpips", *judges):
        if getattr(given, name) is not None:
            changes[name] = getattr(given, name)
    values = plain(recipe)
    values["evaluation"].update(changes)
    recipe = parse(Recipe, YamlText(values, {}), "flags")
    return evaluate(recipe, folder, How("every" if given.watch else given.which, given.watch, given.repeats))


def evaluate(recipe: Recipe, folder: RunFolder, how: How = How()) -> int:
    """Take the recipe's metrics and tell each figure; 0, or the code of the wish to stop that was granted."""
    asked(recipe.evaluation.metrics)
    with among_ranks(recipe.training.collective_timeout_seconds):
        return _evaluate(recipe, folder, how)


def _evaluate(recipe: Recipe, folder: RunFolder, how: How) -> int:
    from advgen.build import build_evaluator, evaluation_world
    from advgen.runtime.preemption import StopRequest

    with StopRequest() as stop, contextlib.closing(_Telling(recipe, folder)) as told:
        world = evaluation_world(recipe.training, recipe.evaluation)
        learned = Counting("judge, images learned from", None) if world.main else None
        evaluator = build_evaluator(recipe, folder, learned, world)
        if how.watch is None:
            share, shares = how.share
            checkpoints = evaluator.checkpoints(how.which or recipe.evaluation.checkpoints)[share - 1 :: shares]
            evaluator.run(told, checkpoints, lambda: stop.asked, how.repeats)
        else:
            _follow(evaluator, told, stop, how.watch, how.repeats)
        stopped = evaluator.agreed(stop.asked)
        if world.main and how.repeats > 1:
            for each in summaries(told.records):
                where = f"{each.record['name']} {each.record['moment']:<10} {each.record['phase']:<14}"
                interval = f"{figure(each.mean)} ± {figure(each.within)} (95 % of the mean of {each.count} seeds)"
                console.print(f"{where} {each.record['nimg'] / 1000:8.1f} kimg {interval}")
        world.close()
        return stop.exit_code if stopped else 0


def _follow(evaluator: Evaluator, told: Told, stop: StopRequest, seconds: float, repeats: int) -> None:
    """Evaluate checkpoints as they appear, until the run has ended."""
    seen: set[Path] = set()
    while True:
        over = evaluator.finished()  # before the look, which then finds the last one, too
        new = [path for path in evaluator.checkpoints("every", wait=True) if path not in seen]
        evaluator.run(told, new, lambda: stop.asked, repeats)
        seen.update(new)
        until = time.monotonic() + seconds
        while not (ended := evaluator.agreed(over or stop.asked)) and evaluator.agreed(time.monotonic() < until):
            time.sleep(min(1.0, seconds))
        if ended:
            return


class _Telling:
    """Prints records, and shows new ones to the trackers."""

    def __init__(self, recipe: Recipe, folder: RunFolder) -> None:
        self._recipe, self._folder = recipe, folder
        self._mirror: EvaluationMirror | None = None
        self.records: list[Record] = []

    def __call__(self, record: Record, before: bool) -> None:
        self.records.append(record)
        tell(record, before)
        if before:
            return
        if self._mirror is None:  # not before there is something to show: it may take seconds
            from advgen.runtime.tracking import EvaluationMirror, Subject

            subject = Subject(self._folder.path, self._recipe.name, plain(self._recipe), "evaluation")
            self._mirror = EvaluationMirror(self._recipe.tracking, subject)
        self._mirror.catch_up()

    def close(self) -> None:
        """Send or store what is left."""
        if self._mirror is not None:
            self._mirror.close()
