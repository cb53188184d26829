"""Hands in what is not done and not on its way, and no job twice."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from advgen.config import Recipe
from advgen.errors import UserError
from advgen.files import write_text
from advgen.launch import slurm
from advgen.launch.cluster import Cluster
from advgen.launch.plan import STAGES, Job, plan
from advgen.launch.sbatch import Order, order, setup_file
from advgen.launch.state import LaunchFolder, Submitted
from advgen.runtime.run_folder import RunFolder
from advgen.strict_config import dump_yaml


@dataclass(frozen=True)
class Step:
    """What became of a stage.

    Attributes:
        stage: its name.
        what: "submitted", "on its way" (from an earlier submission), or "done".
        job: its number.
        after: number of the job that it waits for, None for none.
    """

    stage: str
    what: str
    job: str
    after: str | None


class Submission:
    """One recipe on one cluster.

    Args:
        recipe: with all flags applied.
        cluster: that is to run it.
        program: the command that stands for ``advgen`` on the nodes, where the cluster names none.
        stages: that are wanted.
    """

    def __init__(self, recipe: Recipe, cluster: Cluster, program: tuple[str, ...], stages: Collection[str]) -> None:
        self.recipe, self.cluster, self.stages = recipe, cluster, stages
        self.folder = LaunchFolder(recipe.folder / "launch")
        self.jobs = plan(recipe, self.folder.recipe)
        self.setup = setup_file(cluster, recipe, program)

    def orders(self) -> dict[str, Order]:
        """The wanted jobs as sbatch takes them, by stage."""
        return {job.stage: self._order(job) for job in self.jobs if job.stage in self.stages}

    def check(self) -> None:
        """Have SLURM look at every job without taking it.

        Raises:
            UserError: SLURM is not here, knows no such partition, or would refuse a job.
        """
        slurm.require()
        wanted = [getattr(self.cluster, job.stage).partition or self.cluster.partition for job in self.jobs]
        slurm.check_partitions(dict.fromkeys(name for name in wanted if name is not None))
        for each in self.orders().values():
            slurm.test(each.command(None), each.environment)

    def submit(self, told: Callable[[Step], None], after: str | None = None) -> None:
        """Hand in what is wanted.

        A stage is done if its last job ended well on the same inputs. One whose job waits or runs is left alone, unless
        a stage before it had to be handed in anew: then its job can never begin, and another takes its place.

        Args:
            told: is called with each stage as soon as it is settled.
            after: a job of another run that the first of this one is to wait for.

        Raises:
            UserError: the run folder is no run's, a job of the run is under way with other settings, or SLURM refuses.
        """
        RunFolder(self.recipe.folder).claim(dump_yaml(self.recipe))
        with self.folder.locked():
            known = self.folder.read()
            live = {stage: job for stage, job in known.items() if under_way(job)}
            self._refuse_others(live)
            self.prepare()
            before, renewed = after, False
            for job in self.jobs:
                last, running = known.get(job.stage), live.get(job.stage)
                if running is not None and renewed:
                    slurm.cancel([running.job])
                elif running is not None:
                    before = running.job
                    told(Step(job.stage, "on its way", running.job, running.after))
                    continue
                if job.stage not in self.stages:
                    continue
                if last is not None and not renewed and self._done(job, last):
                    told(Step(job.stage, "done", last.job, None))
                    continue
                each = self._order(job)
                # One that was handed in by a submission that was killed before it could write this down.
                lost = slurm.with_comment(each.comment, besides=None if last is None else last.job)
                number = lost or slurm.submit(each.command(before), each.environment)
                known[job.stage] = Submitted(number, job.inputs, before, each.tasks)
                self.folder.write(known)
                told(Step(job.stage, "submitted", number, before))
                before, renewed = number, True

    def prepare(self) -> None:
        """Write what the jobs read: the recipe, and the file that the batch scripts source."""
        write_text(self.folder.recipe, dump_yaml(self.recipe))
        write_text(self.folder.setup, self.setup)

    def _order(self, job: Job) -> Order:
        return order(job, self.cluster, self.recipe.folder)

    def _done(self, job: Job, last: Submitted) -> bool:
        return last.inputs == job.inputs and self.folder.ended_well(job.stage, last)

    def _refuse_others(self, live: dict[str, Submitted]) -> None:
        inputs = {job.stage: job.inputs for job in self.jobs}
        for stage, job in live.items():
            if job.inputs != inputs.get(stage):
                raise UserError(
                    f"{self.recipe.folder}: job {job.job} ({stage}) is under way with other settings. Wait for it, "
                    f"`advgen cancel {self.recipe.folder}`, or give the recipe another name."
                )


def cancel(folder: Path) -> list[tuple[str, str]]:
    """Cancel the jobs of a run that wait or run; those last in order first, so that none begins meanwhile.

    Args:
        folder: the run's.

    Returns:
        Stage and number of each.

    Raises:
        UserError: nothing was submitted, or SLURM refuses.
    """
    launch = LaunchFolder(folder / "launch")
    if not launch.jobs.is_file():
        raise UserError(f"{folder}: nothing of this run was submitted to SLURM.")
    slurm.require()
    with launch.locked():
        known = launch.read()
        live = [(stage, known[stage]) for stage in reversed(STAGES) if stage in known and under_way(known[stage])]
        slurm.cancel([job.job for _, job in live])
        for stage, job in live:
            launch.mark_cancelled(stage, job)
    return [(stage, job.job) for stage, job in live]


def under_way(job: Submitted) -> bool:
    """Whether a job waits or runs."""
    known = slurm.queued(job.job)
    return known is not None and known.live
