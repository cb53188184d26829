"""`advgen shard` as a person runs it, and as a batch system ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from advgen.data.shards import verify_shards
from tests.distributed.runs import environment, run_advgen, write_images

FLAGS = ("--resolution", "64", "--shard-samples", "40", "--workers", "2", "--validation", "0.2")


def contents(folder: Path) -> dict[str, bytes]:
    # The plan holds when the images were written, which is no part of the result.
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if path.name != "plan.json"}


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    write_images(tmp_path / "images", count=800, resolution=96)
    whole = run_advgen(tmp_path, "shard", "images", "whole", *FLAGS)
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "pipelines", "shard", "images", "cut", *FLAGS]
    unfinished = tmp_path / "cut" / ".train.partial"
    kept: dict[Path, int] = {}
    for shards in (1, 6):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL
        )
        while len(list(unfinished.glob("*.done"))) < shards and process.poll() is None:
            time.sleep(0.005)
        assert process.poll() is None, "it ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done = [path.with_suffix("") for path in unfinished.glob("*.done")]
        assert all(path.stat().st_mtime_ns == moment for path, moment in kept.items()), "what is done is not redone"
        kept = {path: path.stat().st_mtime_ns for path in done}
        assert not (tmp_path / "cut" / "train").exists()
    assert run_advgen(tmp_path, "shard", "images", "cut", *FLAGS).returncode == 0
    assert all((tmp_path / "cut" / "train" / path.name).stat().st_mtime_ns == kept[path] for path in kept)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert (
        verify_shards(tmp_path / "cut" / "train").samples + verify_shards(tmp_path / "cut" / "validation").samples
        == 800
    )
