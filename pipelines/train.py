"""``advgen train RECIPE``: train, or go on from the newest checkpoint."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from advgen.config import Recipe, load_recipe
from advgen.runtime.slurm import adopt_task
from pipelines.dry_run import describe
from pipelines.ranks import among_ranks
from pipelines.telling import tell
from pipelines.terminal import TrainingBar, console

DESCRIPTION = """Train a recipe's game; if its run folder has a checkpoint, go on from there.
Works alone, under `accelerate launch -m pipelines train RECIPE`, `torchrun -m pipelines train RECIPE`, and as tasks of
`srun advgen train RECIPE`, one a rank.
Every key of the recipe is a flag, such as --training.threads 2; `advgen train RECIPE --help` lists them."""


def main(argv: list[str]) -> int:
    """Train a recipe."""
    adopt_task(os.environ)
    recipe, dry_run = recipe_from(argv, "train", DESCRIPTION)
    return describe(recipe) if dry_run else train(recipe)


def recipe_from(argv: list[str], stage: str, description: str) -> tuple[Recipe, bool]:
    """The recipe that the arguments name, with overrides, and whether ``--dry-run`` stands there."""
    parser = argparse.ArgumentParser(
        prog=f"advgen {stage}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("recipe", type=Path, nargs="?", help="YAML file, see pipelines/recipes")
    parser.add_argument("--dry-run", action="store_true", help="print phases, players and parameter counts, and stop")
    parser.add_argument("--max-minutes", metavar="M", help="stop with a checkpoint after M minutes, exit code 85")
    parser.add_argument(
        "--on-nonfinite", metavar="stop|skip:N", help="what to do when a loss or gradient is NaN or infinite"
    )
    parser.add_argument(
        "--profile",
        metavar="N",
        type=int,
        nargs="?",
        const=10,
        help="record N steps (10) after some of warm-up, and tell in RUN/profile/ where their time goes",
    )
    parser.add_argument(
        "--from", dest="init_from", metavar="RUN@NIMG", help="begin with the weights of a checkpoint of another run"
    )
    parser.add_argument("-h", "--help", action="store_true", help="this text; with a recipe, also its keys and values")
    given, overrides = parser.parse_known_args(argv)
    if given.help or given.recipe is None:
        parser.print_help()
        if given.recipe is None:
            raise SystemExit(0 if given.help else 2)
        overrides = ["--help"]
    for flag in ("max_minutes", "on_nonfinite"):
        if (value := getattr(given, flag)) is not None:
            overrides += [f"--training.{flag.replace('_', '-')}", value]
    if given.profile is not None:
        overrides += ["--training.profile-steps", str(given.profile)]
    if given.init_from is not None:
        overrides += ["--init-from", given.init_from]
    return load_recipe(given.recipe, overrides, stage), given.dry_run


def train(recipe: Recipe) -> int:
    """Train; 0 at the end, else the code of the wish to stop that was granted (130 Ctrl-C, 143 SIGTERM, 85 others)."""
    with among_ranks(recipe.training.collective_timeout_seconds):
        return _train(recipe)


def _train(recipe: Recipe) -> int:
    from advgen.build import build_trainer
    from advgen.runtime.preemption import StopRequest

    with StopRequest(recipe.training.max_minutes) as stop:
        trainer, world = build_trainer(recipe, tell, lambda: stop.asked)
        if world.main:  # a launcher that started fewer processes than one meant should not go unseen
            processes = f"{world.size} processes" if world.size > 1 else "1 process"
            console.print(f"{recipe.folder}: training on {world.device.type}, {processes}")
        code = 1
        try:
            with TrainingBar(quiet=not world.main) as bar:
                finished = trainer.run(bar, stop)
            code = 0 if finished else stop.exit_code
            if not finished and not stop.by_person:
                trainer.journal.mirror.preempting()
        finally:
            trainer.journal.mirror.close(code)
        world.close()  # only where all went well: after an error the other ranks are elsewhere, and waiting would hang
        if world.main:
            nimg = trainer.clock.nimg
            told = "done" if finished else "stopped; the same command goes on from here"
            console.print(f"{recipe.folder}: {told}, {nimg / 1000:.1f} kimg")
        return code
