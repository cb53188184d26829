"""``advgen sweep RECIPE --grid a.b=1,2 --seeds 3``: many runs of one recipe, here or as job arrays."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from advgen.config import Recipe, load_recipe
from advgen.errors import UserError
from advgen.files import write_text
from advgen.launch.array import SweepSubmission
from advgen.launch.cluster import load_cluster
from advgen.launch.plan import STAGES
from advgen.launch.secrets import check_text
from advgen.launch.submission import Step, Submission
from advgen.launch.sweep import axes, members
from advgen.launch.wandb_sweep import sweep_file
from advgen.runtime.preemption import REQUEUE
from advgen.strict_config import dump_yaml
from pipelines.child import run_child
from pipelines.run import main as run
from pipelines.submit import checked_game, show
from pipelines.terminal import console

_DESCRIPTION = """Run a recipe with every combination of some values and several seeds. Each member is a run of its own,
called after what it differs in. Given again, the same command goes on. Other flags are those of `advgen train`, for all
members."""


def main(argv: list[str]) -> int:
    """Run a sweep."""
    parser = argparse.ArgumentParser(prog="advgen sweep", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("recipe", type=Path, help="YAML file, see pipelines/recipes")
    parser.add_argument("--grid", action="append", default=[], metavar="KEY=V,V", help="values of one key")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each combination")
    parser.add_argument("--on", choices=("here", "slurm"), default="here", help="one after the other, or as job arrays")
    parser.add_argument("--cluster", default="default", metavar="NAME", help="of slurm/clusters, or a .yaml file")
    parser.add_argument("--at-once", type=int, metavar="N", help="members that run at the same time, on slurm")
    parser.add_argument("--print", dest="show", action="store_true", help="show members and jobs, run nothing")
    agents = parser.add_mutually_exclusive_group()
    agents.add_argument(
        "--wandb-sweep", type=Path, metavar="FILE", help="write a file for `wandb sweep`; its agents run the members"
    )
    agents.add_argument(
        "--member", nargs="+", metavar="KEY=V", help="run the one member with these values, as W&B's agents do"
    )
    given, overrides = parser.parse_known_args(argv)
    if given.at_once is not None and given.at_once < 1:
        raise UserError("--at-once must be at least 1.")
    base = load_recipe(given.recipe, overrides, "sweep")
    if given.member:
        return _member(given.recipe, base, overrides, given.member)
    found = members(base.name, base.seed, given.grid, given.seeds)
    folder = Path(base.runs) / f"{base.name}-sweep"
    if base.tracking.group is None:
        overrides = [*overrides, "--tracking.group", folder.name]
    if given.wandb_sweep is not None:
        command = ("advgen", "sweep", str(given.recipe), *overrides, "--member")
        varied = axes(base.seed, given.grid, given.seeds)
        text = sweep_file(folder.name, base.tracking.project, varied, command)
        return _for_agents(given.wandb_sweep, text, given.show)
    recipes = [load_recipe(given.recipe, [*overrides, *member.flags], "sweep") for member in found]
    if given.on == "here":
        return _here(recipes, given.show)
    cluster = load_cluster(given.cluster)
    program = (sys.executable, "-m", "pipelines")
    submissions = [Submission(each, cluster, program, STAGES) for each in recipes]
    sweep = SweepSubmission(folder, submissions, cluster, given.at_once)
    for each in recipes:
        checked_game(each, cluster.train.ranks)
    if given.show:
        told = [f"member {number}: {each.name}" for number, each in enumerate(recipes)]
        show(sweep.orders(), submissions[0], told)
        return 0
    submissions[0].check()
    sweep.submit(_told)
    console.print(f"`advgen status {folder}` tells how the members are.")
    return 0


def _here(recipes: list[Recipe], show_only: bool) -> int:
    """One after the other; a member that fails does not keep the others from running."""
    failed: list[str] = []
    for number, recipe in enumerate(recipes):
        console.print(f"member {number + 1} of {len(recipes)}: {recipe.folder}")
        if show_only:
            continue
        code = run_child([sys.executable, "-m", "pipelines", "run", str(_write(recipe))])
        if code in (REQUEUE, 130, 143):  # asked to stop
            return code
        if code:
            failed.append(f"{recipe.name} (exit code {code})")
    if failed:
        raise UserError(f"{len(failed)} of {len(recipes)} members failed: {', '.join(failed)}. See above.")
    return 0


def _for_agents(file: Path, text: str, show_only: bool) -> int:
    """Write what `wandb sweep` takes."""
    check_text(text, os.environ)
    if show_only:
        console.print(f"# {file}\n{text}")
        return 0
    write_text(file, text)
    console.print(f"{file} is written. `wandb sweep {file}` makes the sweep and tells its ID; then, here or elsewhere,")
    console.print("`wandb agent ENTITY/PROJECT/ID`, or `sbatch --array=1-8 ... slurm/agent.sbatch ENTITY/PROJECT/ID`.")
    return 0


def _member(file: Path, base: Recipe, overrides: list[str], values: list[str]) -> int:
    """Run one member in this process, so that an agent's signals reach the training."""
    found = members(base.name, base.seed, values, 1)
    if len(found) > 1:
        raise UserError(f"--member {' '.join(values)}: is {len(found)} members. Give each key one value.")
    return run([str(_write(load_recipe(file, [*overrides, *found[0].flags], "sweep")))])


def _write(recipe: Recipe) -> Path:
    """The member's recipe as a file beside its run folder."""
    file = recipe.folder.with_name(f"{recipe.name}.yaml")
    write_text(file, dump_yaml(recipe))
    return file


def _told(name: str, step: Step) -> None:
    after = f", after job {step.after}" if step.after else ""
    console.print(f"{name}: {step.stage} job {step.job} {step.what}{after}")
