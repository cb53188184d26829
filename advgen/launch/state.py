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
from advgen.files import write_json


@dataclass(frozen=True)
class Submitted:
    """A job that was handed in.

    Attributes:
        job: its number.
        inputs: of its :class:`advgen.launch.plan.Job`.
        after: number of the job that it waits for; None if for none.
        tasks: members of a job array; None for a job that is none.
    """

    job: str
    inputs: str
    after: str | None
    tasks: int | None = None


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

    def log(self, stage: str, job: str) -> Path:
        """What a job's batch script printed."""
        return self.path / f"{stage}-{job}.log"

    def exit_code(self, stage: str, job: str) -> int | None:
        """How a job's batch script ended; None as long as it has not, or where it was killed."""
        try:
            return int((self.path / f"{stage}-{job}.exit").read_text())
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
