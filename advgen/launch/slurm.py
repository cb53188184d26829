"""SLURM's commands, given as lists and read as text; ``squeue`` and ``scontrol`` of any version since 20.11."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from advgen.errors import UserError

# States in which SLURM still means to do something with a job (squeue's manual, "JOB STATE CODES").
_LIVE = {
    *("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"),
    *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"),
}


@dataclass(frozen=True)
class Queued:
    """What SLURM tells of a job, or of one task of a job array.

    Attributes:
        job: number of the job, or of the array.
        task: number in the array, or those that still wait, such as ``2-5``; empty for a job that is none.
        state: in SLURM's words, such as PENDING.
        reason: why it waits; empty if it does not.
        restarts: how often it was put back into the queue.
        elapsed: time that it has run since its last start, as SLURM writes it.
        nodes: where it runs or ran; empty before.
        exit_code: of the batch script, and the signal that ended it.
    """

    job: str
    task: str
    state: str
    reason: str
    restarts: int
    elapsed: str
    nodes: str
    exit_code: str

    @property
    def live(self) -> bool:
        """Whether it runs or is going to."""
        return self.state in _LIVE and self.reason != "DependencyNeverSatisfied"


def require() -> None:
    """See that SLURM's commands are here.

    Raises:
        UserError: they are not.
    """
    missing = [name for name in ("sbatch", "squeue", "scontrol", "scancel") if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"SLURM's {', '.join(missing)} not found. Run this on a login node of the cluster, or load its module; "
            "`--print` shows the jobs without it."
        )


def check_partitions(names: Iterable[str]) -> None:
    """See that SLURM knows the partitions.

    Raises:
        UserError: it does not, with those that it knows.
    """
    known = set(re.findall(r"PartitionName=(\S+)", _ask(["scontrol", "show", "partition", "--oneliner"])))
    for name in names:
        for part in name.split(","):
            if part not in known:
                raise UserError(f"partition {part}: this SLURM has none. Known: {', '.join(sorted(known))}.")


def submit(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Hand a job in; returns its number.

    Args:
        command: of ``sbatch --parsable ...``.
        environment: variables beside those of this process.

    Raises:
        UserError: SLURM refuses it, in its own words.
    """
    return _ask(command, environment).split(";")[0].strip()


def test(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Have SLURM look at a job without taking it.

    Raises:
        UserError: SLURM would refuse it, in its own words.
    """
    _ask([command[0], "--test-only", *command[1:]], environment)


def queued(job: str) -> Queued | None:
    """What SLURM knows of a job, or of one task of a job array (``12_3``); None where it knows none (any more).

    Of an array as a whole it is what is known of a task that runs, else of one that waits, else of one that failed.

    Raises:
        UserError: SLURM does not answer.
    """
    # Tasks that wait, or were cancelled before they began, stand in one record, which only the array's number finds.
    number, _, task = job.partition("_")
    done = _run(["scontrol", "show", "job", "--oneliner", number])
    if done.returncode:
        if "Invalid job id" in done.stderr or "not found" in done.stdout:
            return None
        raise UserError(f"scontrol show job {number}: {done.stderr.strip()}")
    found = [_read(line) for line in done.stdout.splitlines() if line.startswith("JobId=")]
    found = [each for each in found if not task or int(task) in tasks(each.task)]
    return min(found, key=lambda each: (not each.live, each.state in ("PENDING", "COMPLETED")), default=None)


def tasks(text: str) -> set[int]:
    """Numbers of an array's tasks as scontrol writes them: ``3``, ``0-2``, ``0,4-5%2``; of any other job none."""
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text.split("%")[0]):
        found.update(range(int(first), int(last or first) + 1))
    return found


def with_comment(comment: str, besides: str | None = None) -> str | None:
    """Number of a waiting or running job of this user with that comment; the newest, None if there is none.

    Args:
        comment: whole.
        besides: a number that does not count.
    """
    found = _ask(["squeue", "--me", "--noheader", "--format=%F|%k"])
    jobs = [line.split("|", 1)[0] for line in found.splitlines() if line.split("|", 1)[-1].strip() == comment]
    return max((job for job in jobs if job != besides), key=int, default=None)


def cancel(jobs: Sequence[str]) -> None:
    """End jobs; those that have ended are left as they are.

    Raises:
        UserError: SLURM refuses.
    """
    if jobs:
        _ask(["scancel", "--quiet", *jobs])


def _read(line: str) -> Queued:
    words = dict(word.split("=", 1) for word in line.split() if "=" in word)
    reason = words.get("Reason", "")
    return Queued(
        job=words.get("ArrayJobId", words["JobId"]),
        task=words.get("ArrayTaskId", ""),
        state=words["JobState"],
        reason="" if reason == "None" else reason,
        restarts=int(words.get("Restarts", "0")),
        elapsed=words.get("RunTime", ""),
        nodes=words.get("NodeList", "").removeprefix("(null)"),
        exit_code=words.get("ExitCode", ""),
    )


def _ask(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    done = _run(command, environment)
    if done.returncode:
        told = " ".join(line.split(": ", 1)[-1].strip() for line in done.stderr.splitlines() if line.strip())
        raise UserError(
            f"{command[0]} refuses: {told.rstrip('.')}. Mend the cluster's file, and give the command again."
        )
    return done.stdout


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    # Within a job (salloc, a login job) its own variables would become options of the new one.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    kept |= {name: value for name, value in os.environ.items() if name == "SLURM_CONF"}
    try:
        return subprocess.run(
            list(command),
            env={**kept, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
    except FileNotFoundError:
        raise UserError(f"{command[0]}: not found. Run this on a login node of the cluster.") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{command[0]}: SLURM does not answer within two minutes. Try again later.") from None
