"""A training under the profiler: what it leaves, and that it is the training it would have been."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from advgen.build import build_trainer
from advgen.config import load_recipe
from advgen.profiling.record import Profile, read_profile
from advgen.runtime.preemption import StopRequest
from advgen.runtime.profiler import label
from advgen.watch import Status
from tests.distributed.runs import environment, final_tensors, logged
from tests.helpers import tiny_recipe

# Of the tiny recipe: 26 steps of 8 images in phases of 6, 4, 6, 4 and 6 steps.
PARTS = {
    *(f"{player}/{part}" for player in ("discriminator", "generator") for part in ("loss", "backward", "update")),
    *("data/wait", "data/copy", "average", "log", "checkpoint", "other"),
}


class Listener:
    """Keeps what is told and warned of; after so many steps it asks for a stop, or fails."""

    def __init__(self, stop_after: int | None = None, fail_after: int | None = None) -> None:
        self.stop, self.stop_after, self.fail_after = StopRequest(), stop_after, fail_after
        self.heard: list[str] = []
        self.warnings: list[str] = []
        self.seen = 0

    def resumed(self, checkpoint: Path) -> None: ...

    def warned(self, text: str) -> None:
        self.warnings.append(text)

    def told(self, text: str) -> None:
        self.heard.append(text)

    def step(self, status: Status) -> None:
        self.seen += 1
        if self.seen == self.stop_after:
            self.stop.signal = signal.SIGTERM
        if self.seen == self.fail_after:
            raise RuntimeError("made to fail")


def play(folder: Path, name: str, steps: int | None, listener: Listener | None = None) -> tuple[Path, Listener]:
    """Train the tiny recipe in ``folder/runs/NAME``, recording ``steps``."""
    listener = listener or Listener()
    threads = torch.get_num_threads()
    changes = {"training": {"profile_steps": steps, "checkpoint_kimg": 100.0}}
    try:
        trainer, _ = build_trainer(load_recipe(tiny_recipe(folder, name=name, **changes)))
        trainer.run(listener, listener.stop)
    finally:
        torch.set_num_threads(threads)
    return folder / "runs" / name, listener


def profile_of(run: Path) -> Profile:
    return read_profile(run / "profile" / "profile.json")


def assert_same_run(one: Path, two: Path) -> None:
    ends = final_tensors(one), final_tensors(two)
    assert ends[0].keys() == ends[1].keys()
    assert all(ends[0][name].tobytes() == ends[1][name].tobytes() for name in ends[0])
    assert logged(one) == logged(two)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profiled")


@pytest.fixture(scope="module")
def plain(place: Path) -> Path:
    """The run without a profiler."""
    run, listener = play(place, "plain", None)
    assert not (run / "profile").exists() and listener.heard == []
    return run


def test_a_label_does_nothing_where_no_profiler_runs() -> None:
    assert label("a") is label("b")
    with profile(activities=[ProfilerActivity.CPU]) as recorder, label("named"):
        torch.ones(2)
    assert "named" in {event.key for event in recorder.key_averages()}
    assert label("a") is label("b")


def test_the_run_is_the_same_bit_for_bit_and_its_profile_is_there(place: Path, plain: Path) -> None:
    run, listener = play(place, "profiled", 4)
    assert_same_run(plain, run)
    found = profile_of(run)
    assert (found.recording.warm_up, found.recording.first_step, found.recording.phase) == (2, 2, "train 4x4")
    assert found.recording.seconds_before is not None and found.recording.seconds_before > 0
    assert (found.figures.steps, found.figures.device, len(found.ranks)) == (4, None, 1)
    assert {part.name for part in found.figures.parts} == PARTS
    assert sum(part.share for part in found.figures.parts) == pytest.approx(1)
    assert found.ranks[0].seconds == found.figures.seconds
    calls = {operation.name: operation.calls for operation in found.figures.operations}
    assert calls["aten::mul"] > 10
    (heard,) = listener.heard
    assert heard.startswith(f"{run / 'profile'}: 4 steps recorded, ") and heard.count(" %") == 3
    assert "| discriminator/loss |" in (run / "profile" / "profile.md").read_text()
    with gzip.open(run / "profile" / "rank-0.trace.json.gz") as file:
        names = [event["name"] for event in json.load(file)["traceEvents"]]
    assert names.count("step") == 4
    assert sorted(os.listdir(run / "profile")) == ["profile.json", "profile.md", "rank-0.trace.json.gz"]


def test_a_phase_that_is_shorter_than_asked_for_is_told(place: Path, plain: Path) -> None:
    run, listener = play(place, "short", 50)
    assert_same_run(plain, run)
    found = profile_of(run)
    assert (found.figures.steps, found.recording.warm_up, found.recording.seconds_before) == (6, 0, None)
    assert "Only 6 of the 50 steps" in (run / "profile" / "profile.md").read_text()
    assert len(listener.heard) == 1, "later phases are not recorded"


def test_a_job_that_is_stopped_leaves_what_it_has_and_goes_on_without(place: Path, plain: Path) -> None:
    run, listener = play(place, "stopped", 3, Listener(stop_after=5))
    assert profile_of(run).figures.steps == 2
    assert "2 steps recorded" in listener.heard[0]
    play(place, "stopped", None)
    assert_same_run(plain, run)


def test_a_job_that_is_stopped_in_the_warm_up_says_so(place: Path) -> None:
    run, listener = play(place, "early", 3, Listener(stop_after=2))
    assert listener.heard == [f"{run / 'profile'}: the job ended before a step was recorded"]
    assert not (run / "profile").exists()


def test_an_error_of_the_training_leaves_nothing_and_no_profiler_on(place: Path) -> None:
    with pytest.raises(RuntimeError, match="made to fail"):
        play(place, "failed", 3, Listener(fail_after=5))
    assert not (place / "runs/failed/profile").exists()
    assert not torch.autograd._profiler_enabled()  # pyright: ignore[reportPrivateImportUsage]


def test_a_profile_that_cannot_be_written_does_not_end_the_training(place: Path, plain: Path) -> None:
    run, first = play(place, "blocked", None, Listener(stop_after=1))
    assert first.seen == 1
    (run / "profile").write_text("a file where the folder would be")
    run, listener = play(place, "blocked", 3)
    assert_same_run(plain, run)
    (warning,) = listener.warnings
    assert "could not be written" in warning and listener.heard == []


def test_a_trace_that_was_cut_short_is_kept_by_nobody(
    place: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(recorder: profile, path: str) -> None:
        Path(path).write_text('{"traceEvents": [{"ph": "X", ')

    monkeypatch.setattr(profile, "export_chrome_trace", cut)
    run, listener = play(place, "cut", 3)
    assert_same_run(plain, run)
    assert "could not be written" in listener.warnings[0] and not (run / "profile").exists()


def test_a_kill_while_it_is_written_leaves_no_half_file(place: Path, plain: Path) -> None:
    recipe = tiny_recipe(place, name="killed", training={"checkpoint_kimg": 100.0})
    program = (
        "import os, signal, sys, advgen.files as files\n"
        "sync = files.sync_file\n"
        "def killed(path):\n"
        "    sync(path)\n"
        "    if path.parent.name == 'profile': os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.sync_file = killed\n"
        "from pipelines.__main__ import main\n"
        "sys.exit(main(['train', sys.argv[1], '--profile', '3']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(recipe)], env=environment(), capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    run = place / "runs" / "killed"
    (left,) = (run / "profile").iterdir()
    assert left.name.startswith(".rank-0.trace.json.gz.") and left.name.endswith(".tmp")
    play(place, "killed", 3)
    assert_same_run(plain, run)
    assert profile_of(run).figures.steps == 3
