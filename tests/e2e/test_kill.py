"""A run that is killed again and again ends as the run that was left alone, bit for bit."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.distributed.runs import advgen, environment, logged, make_shards, write_recipe

pytestmark = pytest.mark.slow


def start(folder: Path, recipe: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipelines", "train", recipe.name]
    return subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)


def newest(run: Path) -> str:
    return max((path.parent.name for path in run.glob("checkpoints/[0-9]*/complete.json")), default="")


def wait_for_progress(process: subprocess.Popen[bytes], run: Path, before: str) -> None:
    """Until the run has got past the checkpoint ``before``, or ended."""
    until = time.monotonic() + 120
    while newest(run) == before and process.poll() is None:
        assert time.monotonic() < until, "no progress in two minutes"
        time.sleep(0.01)


def same_end(one: Path, two: Path) -> None:
    """Parameters, averages, optimizer state, every logged value and every picture are the same."""
    assert newest(one) == newest(two)
    for name in ("networks.safetensors", "optimizers-00000-of-00001.safetensors"):
        place = Path("checkpoints") / newest(one) / name
        assert (one / place).read_bytes() == (two / place).read_bytes(), place
    assert logged(one) == logged(two)
    pictures = sorted(path.name for path in (one / "samples").glob("*.png"))
    assert pictures == sorted(path.name for path in (two / "samples").glob("*.png"))
    for name in pictures:
        assert (one / "samples" / name).read_bytes() == (two / "samples" / name).read_bytes(), name
    assert (one / "samples" / "index.jsonl").read_text() == (two / "samples" / "index.jsonl").read_text()


def test_killed_at_ten_random_moments(tmp_path: Path) -> None:
    make_shards(tmp_path)
    long = {"game__stabilize_kimg": 3.0, "game__fade_kimg": 3.0, "training__checkpoint_kimg": 0.25}
    quiet = write_recipe(tmp_path / "quiet.yaml", name="quiet", training__sample_kimg=1.0, **long)
    killed = write_recipe(tmp_path / "killed.yaml", name="killed", training__sample_kimg=1.0, **long)
    advgen(tmp_path, "train", quiet.name)
    run = tmp_path / "runs" / "killed"
    chance = random.Random(20)
    places = set()
    for attempt in range(10):
        before = newest(run)
        process = start(tmp_path, killed)
        if attempt % 5 == 4:
            time.sleep(chance.uniform(0.2, 8.0))  # anywhere, the start included
        else:
            wait_for_progress(process, run, before)
            time.sleep(chance.uniform(0.0, 1.5))
        assert process.poll() is None, "the run ended before it could be killed: make it longer"
        process.kill()
        assert process.wait() == -signal.SIGKILL
        places.add(newest(run))
    assert len(places) >= 6, "the kills must fall at different places"
    advgen(tmp_path, "train", killed.name)
    same_end(tmp_path / "runs" / "quiet", run)


def test_interrupted_by_a_person_and_by_a_cluster(tmp_path: Path) -> None:
    make_shards(tmp_path)
    long = {"game__stabilize_kimg": 2.0, "game__fade_kimg": 2.0, "training__checkpoint_kimg": 100.0}
    advgen(tmp_path, "train", write_recipe(tmp_path / "quiet.yaml", name="quiet", **long).name)
    recipe = write_recipe(tmp_path / "stopped.yaml", name="stopped", **long)
    run = tmp_path / "runs" / "stopped"
    for number in (signal.SIGINT, signal.SIGTERM):
        before = newest(run)
        process = start(tmp_path, recipe)
        wait_for_progress(process, run, before)
        time.sleep(0.3)
        process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number
        assert newest(run) != before, "a wish to stop leaves a checkpoint"
    advgen(tmp_path, "train", recipe.name)
    same_end(tmp_path / "runs" / "quiet", run)
