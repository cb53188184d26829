"""``advgen sync RUN...``: send runs to their trackers, from their own logs."""

from __future__ import annotations

import argparse
from pathlib import Path

from advgen.config import Recipe
from advgen.errors import UserError
from advgen.runtime.run_folder import RunFolder
from advgen.strict_config import parse, plain, read_yaml
from pipelines.terminal import console

DESCRIPTION = """Send what a tracker does not have of runs: from log.jsonl, metrics.jsonl and samples/, and not from
W&B's offline folders. What was sent is remembered, so the command may be given again, also while a training goes on."""


def main(argv: list[str]) -> int:
    """Send runs."""
    parser = argparse.ArgumentParser(prog="advgen sync", description=DESCRIPTION)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, such as runs/NAME")
    parser.add_argument("--to", choices=("wandb", "tensorboard"), default="wandb", help="where to; wandb by default")
    parser.add_argument("--rebuild", action="store_true", help="a new W&B run, or new TensorBoard files, of everything")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="S", help="seconds that W&B may take for a run")
    given = parser.parse_args(argv)
    if given.timeout <= 0:
        parser.error("--timeout takes a number above 0")
    folders = [RunFolder(path).require() for path in given.runs]
    failed: list[str] = []
    for folder in folders:
        try:
            _sync(folder, given)
        except UserError as error:
            failed.append(str(error))
    if failed:
        raise UserError("\n".join(failed))
    return 0


def _sync(folder: RunFolder, given: argparse.Namespace) -> None:
    from advgen.runtime.syncing import sync_tensorboard, sync_wandb
    from advgen.runtime.tracking import Subject

    recipe = parse(Recipe, read_yaml(folder.config), str(folder.config))
    subject = Subject(folder.path, recipe.name, plain(recipe))
    if given.to == "wandb":
        counts = sync_wandb(recipe.tracking, subject, rebuild=given.rebuild, patience_seconds=given.timeout)
    else:
        counts = sync_tensorboard(recipe.tracking, subject, rebuild=given.rebuild)
    told = ", ".join(f"{count:,} rows of the {job}" for job, count in counts.items() if count)
    console.print(f"{folder.path}: {told or 'nothing new'}")
