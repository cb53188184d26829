"""A folder from which recipes are submitted, as on a login node of the cluster."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.__main__ import main
from tests.slurm.cluster import Cluster, wait_for

SETTINGS = """
partition: main
train: {nodes: 2, cpus_per_rank: 4, time: "0:30:00"}
environment: {MASTER_ADDR: 127.0.0.1, OMP_NUM_THREADS: "1"}
"""

# Sharding in the source's order; ZeRO on two nodes; patient, since the machine may be busy.
CHANGES: dict[str, Any] = {
    "data__train": {"shards": "shards", "images": {"kind": "folder", "path": "images"}},
    "data__held_out": {"shards": "held-out", "images": {"kind": "folder", "path": "held-out-images"}},
    "data__sharding": {"shuffle_seed": None, "shard_samples": 40},
    "game__stabilize_kimg": 0.8,
    "game__fade_kimg": 0.8,
    "training__engine": "zero2",
    "training__checkpoint_kimg": 0.25,
    "training__collective_timeout_seconds": 240.0,
    # Frechet distances of 1,280 features would take most of these tests' time.
    "evaluation": {"metrics": ["precision"], "samples": 16, "batch_size": 16, "checkpoints": "every"},
}


class Place:
    """A folder in which the program is run as on a login node of the cluster."""

    def __init__(self, folder: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.cluster, self._capsys = folder, cluster, capsys

    def advgen(self, *arguments: str, code: int = 0) -> str:
        """What a command prints."""
        self._capsys.readouterr()
        assert main(list(arguments)) == code, self._capsys.readouterr()
        told = self._capsys.readouterr()
        return told.out + told.err

    def jobs(self, name: str) -> dict[str, str]:
        """Numbers of a run's jobs by stage."""
        stored = json.loads((self.folder / "runs" / name / "launch" / "launch.json").read_text())
        return {stage: values["job"] for stage, values in stored.items()}

    def state(self, job: str) -> str:
        """A job's state; of a job array that of a task that is not done yet."""
        states = re.findall(r"JobState=(\S+)", self.cluster.ask("scontrol", "show", "job", job))
        return next((state for state in states if state != "COMPLETED"), "COMPLETED")

    def preempt(self) -> None:
        """Have a job of a partition that goes before take both nodes for some seconds."""
        options = ("--partition=high", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=4", "--output=/dev/null")
        self.cluster.ask("sbatch", *options, "--wrap=sleep 3", where=self.folder)

    def finished(self, name: str, seconds: float = 900) -> None:
        """Until the last stage has ended well; a failure on the way ends the wait."""

        def settled() -> bool:
            states = {stage: self.state(job) for stage, job in self.jobs(name).items()}
            bad = {stage for stage, state in states.items() if state in ("FAILED", "CANCELLED", "TIMEOUT")}
            assert not bad, "\n".join(
                path.read_text() for path in sorted((self.folder / "runs" / name / "launch").glob("*.log"))
            )
            return set(states.values()) == {"COMPLETED"}

        wait_for(settled, f"{name} is through", seconds)


def submitted(told: str) -> list[str]:
    """Stages that a submission handed in."""
    return [line.split()[0] for line in told.splitlines() if "submitted" in line]
