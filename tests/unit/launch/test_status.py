"""What is told of jobs that SLURM knows no longer, and how its lists of tasks are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from advgen.errors import UserError
from advgen.launch.slurm import tasks
from advgen.launch.state import CANCELLED, LaunchFolder, Submitted
from advgen.launch.status import run_status, tail


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose jobs have ended, looked at where there is no SLURM."""
    monkeypatch.setenv("PATH", "/nowhere")
    jobs = {stage: Submitted(str(number), "x", None) for number, stage in enumerate(("shard", "train", "report"))}
    LaunchFolder(tmp_path / "launch").write(jobs)
    for name, code in {"shard-0": 0, "train-1": 137}.items():
        (tmp_path / "launch" / f"{name}.exit").write_text(f"{code}\n")
    return tmp_path


def test_jobs_of_the_past(run: Path) -> None:
    found = {job.stage: job for job in run_status(run)}
    assert list(found) == ["shard", "train", "report"]
    assert [job.state for job in found.values()] == ["done", "failed", "stopped"]
    assert found["train"].detail == "exit code 137 (killed, most often for want of memory)"
    assert [job.bad for job in found.values()] == [False, True, True]


def test_killed_without_a_word_and_cancelled(run: Path) -> None:
    (run / "launch/train-1.exit").unlink()
    assert [job.state for job in run_status(run)] == ["done", "lost", "stopped"]
    LaunchFolder(run / "launch").mark_cancelled("train", Submitted("1", "x", None))
    assert [job.state for job in run_status(run)] == ["done", "cancelled", "stopped"]


@pytest.mark.parametrize(
    ("codes", "state", "detail"),
    [
        ([0, 0, 0], "done", "3 of 3 tasks done"),
        ([0, 2, None], "failed", "exit code 2 (bad input, a full disk or a loss that is not finite: "),
        ([0, CANCELLED, 1], "failed", "exit code 1, 1 of 3 tasks done"),
        ([0, CANCELLED, CANCELLED], "cancelled", "1 of 3 tasks done"),
        ([0, None, 0], "lost", "SLURM knows it no longer, and it left no exit code: cancelled, or killed without "),
    ],
)
def test_a_job_array(run: Path, codes: list[int | None], state: str, detail: str) -> None:
    folder, job = LaunchFolder(run / "launch"), Submitted("7", "x", None, tasks=3)
    folder.write({"evaluate": job})
    for number, code in zip(job.numbers, codes, strict=True):
        folder.log("evaluate", number).touch()
        if code is not None:
            (run / "launch" / f"evaluate-{number}.exit").write_text(f"{code}\n")
    (found,) = run_status(run)
    assert found.state == state and found.detail.startswith(detail)
    assert found.bad == (state != "done") == (not folder.ended_well("evaluate", job))
    worst = next((index for index, code in enumerate(codes) if code), 1 if None in codes else 0)
    assert found.log == folder.log("evaluate", f"7_{worst}")
    folder.mark_cancelled("evaluate", job)  # those that have ended stay as they are
    assert folder.exit_codes("evaluate", job) == [CANCELLED if code is None else code for code in codes]


def test_what_was_read_is_what_was_written(run: Path) -> None:
    assert LaunchFolder(run / "launch").read()["train"] == Submitted("1", "x", None)


def test_nothing_submitted_and_damage(run: Path) -> None:
    with pytest.raises(UserError, match="nothing of this run was submitted"):
        run_status(run / "elsewhere")
    for text in ("{", "[]", '{"train": {"job": "1"}}', '{"train": 3}'):
        (run / "launch/launch.json").write_text(text)
        with pytest.raises(UserError, match="launch.json: is damaged"):
            run_status(run)


def test_two_submissions_at_once(run: Path) -> None:
    folder = LaunchFolder(run / "launch")
    refused = pytest.raises(UserError, match="another `advgen submit` or `cancel` is at work")
    with folder.locked(), refused, folder.locked():
        pass


def test_tail(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log, 3) == []
    log.write_bytes(b"\xff\n" + b"".join(b"%d\n" % number for number in range(50_000)))
    assert tail(log, 2) == ["49998", "49999"]
    assert tail(log, 0) == []


@pytest.mark.parametrize(
    ("text", "found"), [("", set()), ("3", {3}), ("0-2", {0, 1, 2}), ("0,4-5%2", {0, 4, 5}), ("7%1", {7})]
)
def test_tasks_of_an_array(text: str, found: set[int]) -> None:
    assert tasks(text) == found
