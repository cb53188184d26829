"""How a run's jobs are, from what they left and what SLURM still knows."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from advgen.errors import UserError
from advgen.launch import slurm
from advgen.launch.plan import STAGES
from advgen.launch.state import CANCELLED, LaunchFolder

_TAIL_BYTES = 65_536

_STOPPED = ("stopped", "the stage before it did not end well")
_MEANING = {
    2: "bad input, a full disk or a loss that is not finite: the log tells what to do",
    71: "a rank hung",
    75: "a rank was lost",
    127: "the program was not found on the node",
    137: "killed, most often for want of memory",
    139: "crashed",
}


@dataclass(frozen=True)
class JobStatus:
    """How a stage is.

    Attributes:
        stage, job: which.
        state: waiting, running, done, failed, cancelled, stopped (not begun, since a stage before it failed), lost.
        detail: in words; may be empty.
        log: of its batch script, for states that have one.
    """

    stage: str
    job: str
    state: str
    detail: str
    log: Path | None

    @property
    def bad(self) -> bool:
        """Whether a person has to do something."""
        return self.state in ("failed", "cancelled", "stopped", "lost")


def run_status(run: Path) -> list[JobStatus]:
    """The stages of a run that were submitted, in order.

    Raises:
        UserError: nothing was submitted, or SLURM does not answer.
    """
    folder = LaunchFolder(run / "launch")
    jobs = folder.read()
    if not jobs:
        raise UserError(f"{run}: nothing of this run was submitted. `advgen submit RECIPE` does it.")
    asked = shutil.which("scontrol") is not None  # elsewhere, as on a laptop, only what the jobs left is known
    found: list[JobStatus] = []
    for stage in (stage for stage in STAGES if stage in jobs):
        job = jobs[stage]
        codes = folder.exit_codes(stage, job)
        state, detail = _judge(codes, slurm.queued(job.job) if asked else None)
        if state == "lost" and found and found[-1].bad:  # removed from the queue, since it could never begin
            state, detail = _STOPPED
        if job.tasks > 1:
            detail = f"{detail}, {codes.count(0)} of {job.tasks} tasks done".removeprefix(", ")
        # That of a task that failed, else of the first that has not ended.
        told = min(zip(codes, job.numbers, strict=True), key=lambda each: (each[0] == 0, each[0] is None))[1]
        log = folder.log(stage, told)
        found.append(JobStatus(stage, job.job, state, detail, log if log.is_file() else None))
    return found


def tail(log: Path, lines: int) -> list[str]:
    """The last lines of a log; empty if it is not there."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-lines:] if lines > 0 else []


def _judge(codes: list[int | None], known: slurm.Queued | None) -> tuple[str, str]:
    """State and detail of a job whose batch scripts, one or a job array's, ended with these codes."""
    if set(codes) == {0}:
        return "done", ""
    bad = [code for code in codes if code]
    if bad and not (len(codes) > 1 and known is not None and known.live):  # of an array, others may still run
        if set(bad) == {CANCELLED} or (known is not None and known.state == "CANCELLED"):
            return "cancelled", ""
        code = next(code for code in bad if code != CANCELLED)
        return "failed", f"exit code {code}{_meaning(code)}"
    if known is None:
        return "lost", "SLURM knows it no longer, and it left no exit code: cancelled, or killed without warning"
    return _by_slurm(known)


def _by_slurm(job: slurm.Queued) -> tuple[str, str]:
    again = f", restart {job.restarts}" if job.restarts else ""
    if job.reason == "DependencyNeverSatisfied":
        return _STOPPED
    if job.state in ("RUNNING", "COMPLETING", "SUSPENDED"):
        return "running", f"for {job.elapsed} on {job.nodes}{again}"
    if job.live:
        return "waiting", f"{job.reason or job.state.lower()}{again}"
    if job.state == "CANCELLED":
        return "cancelled", again.removeprefix(", ")
    told = {"TIMEOUT": "the wall time ended", "OUT_OF_MEMORY": "out of memory", "NODE_FAIL": "a node failed"}
    return "failed", told.get(job.state, f"{job.state.lower()}, exit code {job.exit_code}") + again


def _meaning(code: int) -> str:
    return f" ({_MEANING[code]})" if code in _MEANING else ""
