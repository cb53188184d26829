"""A training that is killed again and again is one history in W&B's offline files, each nimg once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import environment
from tests.helpers import tiny_recipe
from tests.wandb_files import offline_folders, read_offline

pytestmark = pytest.mark.slow


def steps(folder: Path) -> list[int]:
    return [r["history"]["item"]["_step"] for r in read_offline(folder) if r["type"] == "history"]


def test_killed_three_times_and_asked_to_stop_once(tmp_path: Path) -> None:
    game = {"stabilize_kimg": 0.8, "fade_kimg": 0.8}
    recipe = tiny_recipe(
        tmp_path,
        game=game,
        training={"checkpoint_kimg": 0.2, "sample_kimg": 100},
        tracking={"wandb": "offline", "artifacts": "disabled"},
    )
    run = tmp_path / "runs" / "tiny"
    home = {**environment(), "HOME": str(tmp_path / "home")}
    ended = []
    for number in (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, None):
        before = {path.parent.name for path in run.glob("checkpoints/*/complete.json")}
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines", "train", str(recipe)],
            env=home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if number is not None:
            until = time.monotonic() + 120
            while len({p.parent.name for p in run.glob("checkpoints/*/complete.json")} - before) < 2:
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.01)
            time.sleep(0.2)
            process.send_signal(number)
        ended.append(process.wait(timeout=120))
    assert ended == [-signal.SIGKILL, -signal.SIGKILL, -signal.SIGKILL, 128 + signal.SIGTERM, 0]
    folders = offline_folders(run)
    assert len(folders) == 5
    assert len({r["run"]["run_id"] for folder in folders for r in read_offline(folder) if r["type"] == "run"}) == 1
    by_session = [steps(folder) for folder in folders]
    assert all(by_session), "every session has a part of the history"
    assert [step for session in by_session for step in session] == list(range(0, 4000 + 1, 8))
    kinds = [[record["type"] for record in read_offline(folder)] for folder in folders]
    assert [session.count("preempting") for session in kinds] == [0, 0, 0, 1, 0]
    assert [record["alert"]["title"] for record in read_offline(folders[-1]) if record["type"] == "alert"] == [
        "finished"
    ]
