"""What a run knows of its jobs: ``launch/launch.json`` in the run folder, and a file from each job that ended.

SLURM forgets a job minutes after its end, and many clusters keep no accounts: so the batch script leaves its
exit code in ``launch/STAGE-JOB.exit``.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from advgen.errors import UserError
from advgen.files import write_json, write_text

CANCELLED = 143
"""Exit code of a job that was ended by SIGTERM and not put back into the queue: 128 + 15."""


@dataclass(frozen=True)
class Submitted:
    """A job that was handed in.

    Attributes:
        job: its number; of a task of a job array such as ``12_3``.
        inputs: of its :class:`advgen.launch.plan.Job`.
        after: number of the job that it waits for; None if for none.
        tasks: of a job array that shares the stage; 1 for a job that is none.
    """

    job: str
    inputs: str
    after: str | None
    tasks: int = 1

    @property
    def numbers(self) -> tuple[str, ...]:
        """Under which its batch scripts leave their logs and exit codes."""
        return (self.job,) if self.tasks == 1 else tuple(f"{self.job}_{task}" for task in range(self.tasks))


@dataclass(frozen=True)
class LaunchFolder:
    """Names inside ``RUN/launch``."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The recipe with all flags applied, which the jobs read."""
        return self.path / "recipe.yaml"

    @property
    def setup(self) -> Path:
        """What the batch scripts read first."""
        return self.path / "setup.sh"

    @property
    def jobs(self) -> Path:
        """The newest job of each stage."""
        return self.path / "launch.json"

    @property
    def members(self) -> Path:
        """Of a sweep: the run folders of its members, one a line."""
        return self.path / "members.txt"

    def log(self, stage: str, number: str) -> Path:
        """What a job's batch script printed."""
        return self.path / f"{stage}-{number}.log"

    def exit_codes(self, stage: str, job: Submitted) -> list[int | None]:
        """How each of a job's batch scripts ended; None as long as it has not, or where it was killed."""
        return [self._exit_code(stage, number) for number in job.numbers]

    def ended_well(self, stage: str, job: Submitted) -> bool:
        """Whether all of a job's batch scripts have."""
        return set(self.exit_codes(stage, job)) == {0}

    def mark_cancelled(self, stage: str, job: Submitted) -> None:
        """Leave what a job leaves that is ended by SIGTERM: one that has not begun cannot, and SLURM forgets it."""
        for number, code in zip(job.numbers, self.exit_codes(stage, job), strict=True):
            if job.tasks == 1 or code is None:
                write_text(self.path / f"{stage}-{number}.exit", f"{CANCELLED}\n")

    def _exit_code(self, stage: str, number: str) -> int | None:
        try:
            return int((self.path / f"{stage}-{number}.exit").read_text())
        except (OSError, ValueError):
            return None

    def read(self) -> dict[str, Submitted]:
        """The newest job of each stage; empty where nothing was submitted.

        Raises:
            UserError: the file is damaged.
        """
        if not self.jobs.is_file():
            return {}
        try:
            stored = json.loads(self.jobs.read_text(encoding="utf-8"))
            return {stage: Submitted(**values) for stage, values in stored.items()}
        except (ValueError, TypeError, AttributeError):
            raise UserError(
                f"{self.jobs}: is damaged. See `squeue --me` for jobs of this run, cancel them, and remove the file."
            ) from None

    def write(self, jobs: dict[str, Submitted]) -> None:
        """Remember the jobs."""
        write_json(self.jobs, {stage: asdict(job) for stage, job in jobs.items()})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other submissions of this run out.

        Raises:
            UserError: another one is at work.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{self.path}: another `advgen submit` or `cancel` is at work here. Wait.") from None
            yield
