"""``advgen submit RECIPE --on cloud|kubernetes|machines``: a recipe as a file for machines that are not a SLURM's."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from advgen.config import Recipe
from advgen.errors import UserError
from advgen.files import write_text
from advgen.launch import kubernetes, machines, skypilot
from advgen.launch.plan import Job, plan
from advgen.launch.portable import check_portable
from advgen.launch.secrets import check_text
from advgen.launch.settings import load_settings
from advgen.launch.state import LaunchFolder
from advgen.runtime.run_folder import RunFolder
from advgen.strict_config import dump_yaml
from pipelines.terminal import console

PLACES = ("cloud", "kubernetes", "machines")


@dataclass(frozen=True)
class Handed:
    """What is written for a kind of machine.

    Attributes:
        ranks: processes that train.
        file: and its text.
        command: that hands it in; empty where a person does.
        missing: names of variables that the command needs and this shell does not have.
        install: what to do where the command is not found.
        hint: what a person does with the file.
        once: whether the command makes a second job when it is given again.
    """

    ranks: int
    file: Path
    text: str
    command: tuple[str, ...]
    missing: tuple[str, ...]
    install: str
    hint: str
    once: bool = False


def submit(
    recipe: Recipe, place: str, name: str, stages: Collection[str], show: bool, check: Callable[[int], object]
) -> int:
    """Write the file, and hand it in.

    Args:
        recipe: with all flags applied.
        place: of :data:`PLACES`.
        name: of the settings.
        stages: that are wanted.
        show: print instead.
        check: called with the number of ranks; raises where they cannot train the recipe.

    Raises:
        UserError: the settings or the recipe cannot be used there, a secret would be written, or the command is missing
            or refuses.
    """
    launch = LaunchFolder(recipe.folder / "launch")
    handed = {"cloud": _cloud, "kubernetes": _kubernetes, "machines": _machines}[place](recipe, name, stages, launch)
    check(handed.ranks)
    text = dump_yaml(recipe)
    check_text(text + handed.text, os.environ)
    if show:
        console.print(f"# {handed.file}")
        console.print(handed.text, end="")
        console.print(f"# {shlex.join(handed.command) if handed.command else handed.hint}")
        return 0
    mark = handed.file.with_suffix(".submitted")
    if handed.once and mark.is_file():
        raise UserError(
            f"{recipe.folder}: was handed in before, and two jobs would train in one folder. {handed.hint} To hand it "
            f"in again after its end, remove {mark}."
        )
    RunFolder(recipe.folder).claim(text)
    with launch.locked():
        write_text(launch.recipe, text)
        write_text(handed.file, handed.text)
    console.print(f"{handed.file}: written")
    if not handed.command:
        console.print(handed.hint)
        return 0
    if handed.missing:
        raise UserError(
            f"{', '.join(handed.missing)}: not set here; the jobs are to get it. Export it, and submit again."
        )
    if shutil.which(handed.command[0]) is None:
        raise UserError(f"{handed.command[0]}: not found. {handed.install} Then: {shlex.join(handed.command)}")
    code = subprocess.run(handed.command).returncode
    if code:
        raise UserError(f"{shlex.join(handed.command)}: ended with {code}; see what it says above. The file stays.")
    if handed.once:
        write_text(mark, "")
    console.print(handed.hint)
    return 0


def _wanted(recipe: Recipe, file: Path, stages: Collection[str]) -> list[Job]:
    return [job for job in plan(recipe, file) if job.stage in stages]


def _cloud(recipe: Recipe, name: str, stages: Collection[str], launch: LaunchFolder) -> Handed:
    cloud = load_settings(skypilot.Cloud, name, "cloud")
    check_portable(recipe, f"the bucket {cloud.bucket}")
    jobs = _wanted(recipe, skypilot.RECIPE, stages)
    file = launch.path / "skypilot.yaml"
    return Handed(
        ranks=cloud.ranks,
        file=file,
        text=skypilot.pipeline(recipe, jobs, cloud, launch.recipe),
        command=tuple(skypilot.command(file, recipe, cloud)),
        missing=tuple(key for key in cloud.secrets if not os.environ.get(key)),
        install="`uv tool install 'skypilot[aws]'` (or gcp, azure, ...) brings it; `sky check` tells what is set up.",
        hint="`sky jobs queue` tells how the stages are, `sky jobs logs NUMBER` what they say.",
        once=True,
    )


def _kubernetes(recipe: Recipe, name: str, stages: Collection[str], launch: LaunchFolder) -> Handed:
    cluster = load_settings(kubernetes.Kubernetes, name, "cloud")
    check_portable(recipe, f"the volume {cluster.claim}")
    jobs = _wanted(recipe, kubernetes.RECIPE, stages)
    file = launch.path / f"{cluster.operator}.yaml"
    kind, called = cluster.operator, kubernetes.object_name(recipe.name)
    return Handed(
        ranks=cluster.ranks,
        file=file,
        text=kubernetes.manifest(recipe, jobs, cluster),
        command=tuple(kubernetes.command(file)),
        missing=(),
        install="Install kubectl and choose a context, or give the file to somebody who has one.",
        hint=f"`kubectl get {kind} {called}` tells how it is, "
        f"`kubectl logs -f -l app.kubernetes.io/instance={called}` what it says.",
    )


def _machines(recipe: Recipe, name: str, stages: Collection[str], launch: LaunchFolder) -> Handed:
    chosen = load_settings(machines.Machines, name, "cloud")
    jobs = _wanted(recipe, launch.recipe, stages)
    file = launch.path / "machines.sh"
    return Handed(
        ranks=chosen.ranks,
        file=file,
        text=machines.script(recipe, jobs, chosen, launch.recipe),
        command=(),
        missing=(),
        install="",
        hint=f"On each machine, in {chosen.folder}: bash {file} NUMBER",
    )
