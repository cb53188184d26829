"""A sweep on this machine that is asked to stop: its member gets the wish, and the time to write a checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from advgen.runtime.preemption import REQUEUE
from pipelines.child import run_child
from tests.distributed.ranks import newest
from tests.distributed.runs import advgen, environment, make_shards, write_recipe


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("raise SystemExit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", 137),
        # The parent is asked while the child works: the child is told of SIGTERM, and not of SIGINT.
        ("import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)", 143),
        ("import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(0.5)", 130),
        ("import os, signal, time; signal.signal(10, lambda *a: 0); os.kill(os.getppid(), 10); time.sleep(1)", REQUEUE),
    ],
)
def test_exit_codes_of_a_child(program: str, code: int) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run_child([sys.executable, "-c", program]) == code
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_a_sweep_that_is_asked_to_stop_leaves_a_checkpoint_and_no_child(tmp_path: Path) -> None:
    make_shards(tmp_path)
    long = {"game__stabilize_kimg": 2.0, "game__fade_kimg": 2.0, "training__checkpoint_kimg": 100.0}
    recipe = write_recipe(tmp_path / "recipe.yaml", evaluation={"metrics": []}, **long)
    command = [sys.executable, "-m", "pipelines", "sweep", recipe.name, "--seeds", "2"]
    run = tmp_path / "runs" / "run-seed_3"
    for number in (signal.SIGINT, signal.SIGTERM):
        before = newest(run)
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, process_group=0)
        until = time.monotonic() + 120
        while newest(run) == before:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        before = newest(run)
        if number == signal.SIGINT:  # as a terminal does it: to all
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number
        assert newest(run) > before, "a wish to stop leaves a checkpoint"
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    advgen(tmp_path, "sweep", recipe.name, "--seeds", "2")
    assert {path.name for path in (tmp_path / "runs").glob("run-seed_*") if path.is_dir()} == {
        "run-seed_3",
        "run-seed_4",
    }
