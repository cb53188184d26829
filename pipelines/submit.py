"""``advgen submit RECIPE --on slurm``: a recipe's stages as jobs that wait for one another."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from advgen.config import Recipe, load_recipe
from advgen.launch.cluster import load_cluster
from advgen.launch.plan import STAGES, chosen_stages
from advgen.launch.sbatch import Order, printable
from advgen.launch.submission import Step, Submission
from pipelines.elsewhere import PLACES
from pipelines.elsewhere import submit as elsewhere
from pipelines.expected import expected
from pipelines.terminal import console

if TYPE_CHECKING:
    from advgen.game import Game

_DESCRIPTION = f"""Hand a recipe's stages ({", ".join(STAGES)}) to SLURM, each to begin when the one before it has ended
well. Given again, the same command hands in what is not done and not on its way. Settings of the cluster (partition,
account, GPUs, times) stand in slurm/clusters/NAME.yaml. Every key of the recipe is a flag, as of `advgen train`.
--on cloud (SkyPilot), kubernetes or machines (torchrun) writes a file instead, with settings of cloud/NAME.yaml, and
hands it in where sky or kubectl is installed."""


def main(argv: list[str]) -> int:
    """Submit a recipe."""
    parser = argparse.ArgumentParser(prog="advgen submit", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("recipe", type=Path, help="YAML file, see pipelines/recipes")
    parser.add_argument("--on", choices=("slurm", *PLACES), default="slurm", help="what runs the jobs")
    parser.add_argument(
        "--cluster", default="default", metavar="NAME", help="of slurm/clusters or cloud, or a .yaml file"
    )
    parser.add_argument("--only", metavar="S,S", help="only these stages")
    parser.add_argument("--from", dest="first", metavar="S", help="this stage and those after it")
    parser.add_argument("--measured", type=Path, metavar="RUN", help="a run whose rates tell how long this one takes")
    parser.add_argument("--print", dest="show", action="store_true", help="show files and commands, submit nothing")
    given, overrides = parser.parse_known_args(argv)
    stages = chosen_stages(given.only, given.first)
    recipe = load_recipe(given.recipe, overrides, "submit")
    if given.on != "slurm":
        return elsewhere(recipe, given.on, given.cluster, stages, given.show, lambda ranks: checked_game(recipe, ranks))
    cluster = load_cluster(given.cluster)
    submission = Submission(recipe, cluster, (sys.executable, "-m", "pipelines"), stages)
    game = checked_game(recipe, cluster.train.ranks)
    told = expected(recipe, game, cluster, given.measured)
    if given.show:
        show(submission.orders(), submission, told)
        return 0
    submission.check()
    for line in told:
        console.print(line)
    submission.submit(_told)
    console.print(f"`advgen status {recipe.folder}` tells how they are.")
    return 0


def checked_game(recipe: Recipe, ranks: int) -> Game:
    """The recipe's game, if so many ranks can train it.

    Raises:
        UserError: the ranks do not divide a batch, or the settings cannot be combined.
    """
    from advgen.build import build_game
    from advgen.runtime.validation import check_setting

    game = build_game(recipe)
    check_setting(game, recipe.training, ranks)
    return game


def show(orders: dict[str, Order], submission: Submission, told: list[str]) -> None:
    """Print files and commands; what is no command is a comment of the shell."""
    for line in told:
        console.print(f"# {line}")
    console.print(f"# {submission.folder.setup}")
    console.print(submission.setup)
    for script in dict.fromkeys(each.script[0] for each in orders.values()):
        console.print(f"# {script}")
        console.print(Path(script).read_text(encoding="utf-8"))
    before = None
    for stage, each in orders.items():
        arrays = before is not None and "ADVGEN_MEMBERS" in orders[before].environment
        console.print(printable(each, stage, before, arrays))
        before = stage


def _told(step: Step) -> None:
    after = f", after job {step.after}" if step.after else ""
    console.print(f"{step.stage:<9} job {step.job} {step.what}{after}")
