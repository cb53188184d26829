"""Shell scripts: shellcheck finds nothing in them, and those for sbatch count restarts as they say."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.distributed.runs import ROOT

SCRIPTS = [*ROOT.glob("slurm/*.sbatch"), *ROOT.glob("scripts/*.sh"), ROOT / ".ci" / "run"]


def test_shellcheck() -> None:
    program = shutil.which("shellcheck")
    if program is None:
        if os.environ.get("ADVGEN_REQUIRE_SLURM") == "1":
            pytest.fail("shellcheck is not installed")
        pytest.skip("shellcheck is not installed (Debian: apt-get install shellcheck)")
    done = subprocess.run([program, *map(str, SCRIPTS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def start(folder: Path, restart: int, code: int = 0, run: str = "run") -> subprocess.CompletedProcess[str]:
    """Run the batch script as SLURM would, with an srun that ends at once with ``code``; tests/slurm has a real one."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    for name, text in {"srun": f"exit {code}", "scontrol": 'echo "scontrol $*"; exit 1'}.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restart), "ADVGEN_RUN": run}
    return subprocess.run(
        ["bash", str(ROOT / "slurm/train.sbatch"), "recipe.yaml"],
        cwd=folder,
        env={**os.environ, **job, "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run" / "launch").mkdir(parents=True)
    return tmp_path


def exit_mark(folder: Path) -> str:
    return (folder / "run/launch/train-7.exit").read_text().strip()


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_the_exit_code_is_left(folder: Path, code: int) -> None:
    assert start(folder, 0, code).returncode == code
    assert exit_mark(folder) == str(code)


def test_by_hand_nothing_is_left(folder: Path) -> None:
    assert start(folder, 0, 7, run="").returncode == 7
    assert not any((folder / "run/launch").iterdir())


@pytest.mark.parametrize("code", [71, 75, 85, 134, 138])
def test_stopped_jobs_go_back_into_the_queue(folder: Path, code: int) -> None:
    assert "scontrol requeue 7" in start(folder, 0, code).stdout


def test_aborts_are_tried_again_only_where_they_are_counted(folder: Path) -> None:
    """NCCL aborts a rank that has lost another, and an abort of any other kind would go on for ever."""
    done = start(folder, 0, 134, run="")
    assert done.returncode == 134 and "requeue" not in done.stdout


def test_fruitless_restarts_end(folder: Path) -> None:
    """Three restarts without a new checkpoint are let pass; a checkpoint in between begins the count anew."""
    for restart in range(3):
        assert start(folder, restart, 85).returncode == 85
    checkpoint = folder / "run/checkpoints/000000001000"
    checkpoint.mkdir(parents=True)
    start(folder, 3, 85)  # without its mark the checkpoint is none
    assert (folder / "run/launch/train-7.progress").read_text() == "0 3\n"
    (checkpoint / "complete.json").touch()
    for restart in range(4, 8):
        done = start(folder, restart, 85)
        assert done.returncode == 85 and f"restart {restart}, 1000 images trained so far" in done.stdout
    done = start(folder, 8, 85)
    assert done.returncode == 1 and "4 restarts one after the other have trained nothing new" in done.stderr
    assert exit_mark(folder) == "1"
