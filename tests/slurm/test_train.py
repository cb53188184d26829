"""One task a rank under srun, and jobs that are put back into the queue, on a real SLURM."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.ranks import newest, same
from tests.distributed.runs import ROOT, make_shards, run_advgen, torchrun, write_recipe
from tests.slurm.cluster import Cluster, wait_for

pytestmark = pytest.mark.slow

LONG: dict[str, Any] = {
    "game__stabilize_kimg": 0.8,
    "game__fade_kimg": 0.8,
    "training__checkpoint_kimg": 0.5,
    "training__collective_timeout_seconds": 20.0,
}
# The two nodes are one machine under names that mean nothing outside SLURM.
HERE = {"MASTER_ADDR": "127.0.0.1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slurm")
    make_shards(folder)
    program = folder / "advgen"  # the console command, from this checkout
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pipelines "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    recipe = write_recipe(folder / "quiet.yaml", name="quiet", **LONG)
    done = run_advgen(folder, "train", recipe.name, launcher=torchrun(2))
    assert done.returncode == 0, done.stderr
    return folder


def srun(cluster: Cluster, place: Path, recipe: Path, **more: str) -> subprocess.Popen[str]:
    """Two tasks on two nodes."""
    command = ["srun", "-N2", "--ntasks-per-node=1", "./advgen", "train", recipe.name]
    return subprocess.Popen(
        command,
        cwd=place,
        env={**cluster.environment, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_one_task_a_rank(cluster: Cluster, place: Path) -> None:
    process = srun(cluster, place, write_recipe(place / "tasks.yaml", name="tasks", **LONG), **HERE)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "training on cpu, 2 processes" in output
    assert output.count("done, 4.0 kimg") == 1
    run = place / "runs" / "tasks"
    assert sorted(path.name for path in (run / "logs").iterdir()) == ["rank-00000.log", "rank-00001.log"]
    same(place / "runs" / "quiet", run)


def test_a_rank_is_killed(cluster: Cluster, place: Path) -> None:
    process = srun(cluster, place, write_recipe(place / "killed.yaml", name="killed", **LONG), **HERE)
    run = place / "runs" / "killed"
    wait_for(lambda: newest(run) > 0, "a checkpoint")
    log = (run / "logs" / "rank-00001.log").read_text().split()
    os.kill(int(log[2]), signal.SIGKILL)  # date, time, process
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "another process of this run has ended" in errors


def test_a_host_without_a_name(cluster: Cluster, place: Path) -> None:
    process = srun(cluster, place, write_recipe(place / "nameless.yaml", name="nameless", **LONG))
    _, errors = process.communicate(timeout=90)
    assert process.returncode != 0
    assert "MASTER_ADDR=n0: no such host" in errors
    assert "Set MASTER_ADDR to an address of rank 0's host" in " ".join(errors.split())


def submit(cluster: Cluster, place: Path, name: str, *flags: str, **changes: Any) -> tuple[str, Path]:
    """Hand the template in for a new run; number of the job, and its log."""
    recipe = write_recipe(place / f"{name}.yaml", name=name, **LONG, **changes)
    variables = "--export=ALL,ADVGEN=./advgen,MASTER_ADDR=127.0.0.1"
    options = ("--nodes=2", "--ntasks-per-node=1", "--parsable", variables, *flags)
    template = str(ROOT / "slurm" / "train.sbatch")
    number = cluster.ask("sbatch", *options, template, recipe.name, where=place)
    return number, place / f"slurm-{number}.log"


def ended(cluster: Cluster, number: str) -> bool:
    return cluster.job(number)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")


def finished(cluster: Cluster, number: str, log: Path, restarts: int) -> None:
    wait_for(lambda: ended(cluster, number), "the job ends", 240)
    job = cluster.job(number)
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", str(restarts)), log.read_text()


def test_time_runs_short(cluster: Cluster, place: Path) -> None:
    """SLURM's own warning before the time limit, here asked for by hand: the shell gets it and passes it on."""
    number, log = submit(cluster, place, "short")
    run = place / "runs" / "short"
    wait_for(lambda: newest(run) > 0, "a checkpoint")
    cluster.ask("scancel", "--batch", "--signal=USR1", number)
    wait_for(lambda: cluster.job(number)["Restarts"] == "1", "the job is back in the queue")
    finished(cluster, number, log, 1)
    assert "stopped with a checkpoint (exit code 85, restart 0): back into the queue" in log.read_text()
    assert "going on from runs/short/checkpoints/" in log.read_text()
    same(place / "runs" / "quiet", run)


def test_preempted_by_a_job_of_a_higher_tier(cluster: Cluster, place: Path) -> None:
    number, log = submit(cluster, place, "preempted", "--partition=main", "--cpus-per-task=4")
    run = place / "runs" / "preempted"
    wait_for(lambda: newest(run) > 0, "a checkpoint")
    other = ("--partition=high", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=4", "--parsable")
    cluster.ask("sbatch", *other, "--output=/dev/null", "--wrap=sleep 3", where=place)
    wait_for(lambda: cluster.job(number)["Restarts"] == "1", "the job is back in the queue")
    finished(cluster, number, log, 1)
    same(place / "runs" / "quiet", run)


def test_cancelled_is_cancelled(cluster: Cluster, place: Path) -> None:
    number, log = submit(cluster, place, "cancelled")
    wait_for(lambda: newest(place / "runs" / "cancelled") > 0, "a checkpoint")
    cluster.ask("scancel", number)
    wait_for(lambda: ended(cluster, number), "the job ends", 60)
    job = cluster.job(number)
    assert (job["JobState"], job["Restarts"]) == ("CANCELLED", "0"), log.read_text()


def test_a_wrong_recipe_is_not_put_back(cluster: Cluster, place: Path) -> None:
    number, log = submit(cluster, place, "wrong", **{"sede": 1})
    wait_for(lambda: ended(cluster, number), "the job ends", 60)
    assert cluster.job(number)["JobState"] == "FAILED"
    assert cluster.job(number)["ExitCode"].startswith("2:"), log.read_text()
