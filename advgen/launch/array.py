"""A sweep as job arrays: one array a stage, one task a member, each task after the one of its own number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from advgen.errors import UserError
from advgen.files import write_text
from advgen.launch import slurm
from advgen.launch.cluster import Cluster
from advgen.launch.plan import STAGES, Job
from advgen.launch.sbatch import Order, order
from advgen.launch.state import LaunchFolder, Submitted
from advgen.launch.submission import Step, Submission, under_way
from advgen.runtime.run_folder import RunFolder
from advgen.strict_config import digest, dump_yaml


class SweepSubmission:
    """The members of a sweep on one cluster.

    The images are sharded once, by the first member. Submitted again, each member goes on by itself, in single jobs.

    Args:
        folder: of the sweep, beside those of its members.
        members: a submission a member, with the stages that are wanted of a run alone.
        cluster: that is to run them.
        at_once: so many tasks at most at the same time; None leaves it to the cluster.

    Raises:
        UserError: members that differ in what they shard or in their stages.
    """

    def __init__(self, folder: Path, members: Sequence[Submission], cluster: Cluster, at_once: int | None) -> None:
        self.folder, self.members, self.cluster = LaunchFolder(folder / "launch"), members, cluster
        stages = [[job.stage for job in member.jobs] for member in members]
        if any(each != stages[0] for each in stages):
            raise UserError("The members of the sweep have different stages. Take metrics out of --grid.")
        shards = {job.inputs for member in members for job in member.jobs if job.stage == "shard"}
        if len(shards) > 1:
            raise UserError("The members of the sweep are to shard different images. Shard them before, one by one.")
        for member in members[1:]:
            member.stages = tuple(stage for stage in STAGES if stage != "shard")
        self._which = f"0-{len(members) - 1}" + ("" if at_once is None else f"%{at_once}")

    def orders(self) -> dict[str, Order]:
        """The jobs of a first submission, by stage: an array each but for the sharding."""
        return {stage: self._order(stage) for stage in (job.stage for job in self.members[0].jobs)}

    def submit(self, told: Callable[[str, Step], None]) -> None:
        """Hand the sweep in, or what is neither done nor on its way.

        Args:
            told: is called with a run's name and a stage as soon as that is settled; with the sweep's name for arrays.

        Raises:
            UserError: as :meth:`Submission.submit`.
        """
        with self.folder.locked():
            write_text(self.folder.members, "".join(f"{member.recipe.folder}\n" for member in self.members))
            if any(member.folder.read() for member in self.members):
                self._go_on(told)
            else:
                self._begin(told)

    def _go_on(self, told: Callable[[str, Step], None]) -> None:
        shard: str | None = None
        for number, member in enumerate(self.members):
            name = member.recipe.name
            member.submit(lambda step, name=name: told(name, step), shard)
            if number == 0 and (job := member.folder.read().get("shard")):
                shard = job.job if under_way(job) else None

    def _begin(self, told: Callable[[str, Step], None]) -> None:
        with ExitStack() as locks:
            for member in self.members:
                RunFolder(member.recipe.folder).claim(dump_yaml(member.recipe))
                locks.enter_context(member.folder.locked())
                member.prepare()
            known: list[dict[str, Submitted]] = [{} for _ in self.members]
            before: str | None = None
            array = False  # whether the job before is one
            for stage in (job.stage for job in self.members[0].jobs):
                each = self._order(stage)
                number = slurm.with_comment(each.comment) or slurm.submit(each.command(before, array), each.environment)
                for task, (member, jobs) in enumerate(zip(self.members, known, strict=True)):
                    if stage == "shard" and task:
                        continue
                    waits = f"{before}_{task}" if array else before
                    jobs[stage] = Submitted(
                        number if stage == "shard" else f"{number}_{task}", _job(member, stage).inputs, waits
                    )
                    member.folder.write(jobs)
                told(self.folder.path.parent.name, Step(stage, "submitted", number, before))
                before, array = number, stage != "shard"

    def _order(self, stage: str) -> Order:
        first = self.members[0]
        if stage == "shard":
            return order(_job(first, stage), self.cluster, first.recipe.folder)
        inputs = digest([_job(member, stage).inputs for member in self.members])
        job = Job(stage, (), many=stage == "train", inputs=inputs)
        return order(job, self.cluster, self.folder.path.parent, self._which)


def _job(member: Submission, stage: str) -> Job:
    return next(job for job in member.jobs if job.stage == stage)


def members_of(folder: Path) -> list[Path]:
    """The run folders of a sweep's members; empty if it is no sweep's folder."""
    members = LaunchFolder(folder / "launch").members
    return [Path(line) for line in members.read_text(encoding="utf-8").splitlines()] if members.is_file() else []
