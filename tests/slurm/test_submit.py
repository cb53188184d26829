"""A recipe's stages as jobs of a real SLURM: in order, once, through a preemption, a failure and a cancellation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.__main__ import main
from tests.distributed.ranks import newest, same
from tests.distributed.runs import write_images, write_recipe
from tests.slurm.conftest import Cluster, wait_for

pytestmark = pytest.mark.slow

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
    "evaluation": {"metrics": ["fd_lite0"], "samples": 16, "batch_size": 16},
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
        return self.cluster.job(job)["JobState"]

    def finished(self, name: str, seconds: float = 400) -> None:
        """Until the last stage has ended well; a failure on the way ends the wait."""

        def settled() -> bool:
            states = {stage: self.state(job) for stage, job in self.jobs(name).items()}
            bad = {stage for stage, state in states.items() if state in ("FAILED", "CANCELLED", "TIMEOUT")}
            assert not bad, "\n".join(
                path.read_text() for path in sorted((self.folder / "runs" / name / "launch").glob("*.log"))
            )
            return set(states.values()) == {"COMPLETED"}

        wait_for(settled, f"{name} is through", seconds)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("submitted")
    write_images(made / "images")
    write_images(made / "held-out-images", 32, seed=8)
    (made / "here.yaml").write_text(SETTINGS)
    return made


@pytest.fixture
def place(folder: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Place:
    monkeypatch.chdir(folder)
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    return Place(folder, cluster, capsys)


def submitted(told: str) -> list[str]:
    """Stages that a submission handed in."""
    return [line.split()[0] for line in told.splitlines() if "submitted" in line]


def test_the_whole_chain_with_a_preemption_in_the_middle(place: Place) -> None:
    """Shards, training by ZeRO on two nodes, evaluation and report, twice: left alone, and preempted while training."""
    stages = ["shard", "train", "evaluate", "report"]
    quiet = write_recipe(place.folder / "quiet.yaml", name="quiet", **CHANGES)
    told = place.advgen("submit", quiet.name, "--on", "slurm", "--cluster", "here.yaml")
    assert submitted(told) == stages
    jobs = place.jobs("quiet")
    for before, after in zip(stages, stages[1:], strict=False):
        assert place.cluster.job(jobs[after])["Dependency"].startswith(f"afterok:{jobs[before]}")
    assert submitted(place.advgen("submit", quiet.name, "--cluster", "here.yaml")) == []
    wait_for(lambda: newest(place.folder / "runs" / "quiet") > 0, "a checkpoint", 240)
    assert "train     job" in (status := place.advgen("status", "runs/quiet")) and "running" in status
    again = place.advgen("submit", quiet.name, "--cluster", "here.yaml")
    assert submitted(again) == [] and "done" in again and place.jobs("quiet") == jobs
    place.finished("quiet")
    began = [place.cluster.job(jobs[stage])["StartTime"] for stage in stages]
    ended = [place.cluster.job(jobs[stage])["EndTime"] for stage in stages]
    assert all(end <= start for end, start in zip(ended, began[1:], strict=False))
    assert (place.folder / "runs/quiet/report.html").stat().st_size > 10_000
    assert "fd_lite0" in (place.folder / "runs/quiet/metrics.jsonl").read_text()
    assert place.advgen("status", "runs/quiet").count(" done") == 4
    assert submitted(place.advgen("submit", quiet.name, "--cluster", "here.yaml")) == []

    hurt = write_recipe(place.folder / "hurt.yaml", name="hurt", **CHANGES)
    place.advgen("submit", hurt.name, "--cluster", "here.yaml")
    jobs = place.jobs("hurt")
    wait_for(lambda: newest(place.folder / "runs" / "hurt") > 0, "a checkpoint", 240)
    other = ("--partition=high", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=4", "--parsable")
    place.cluster.ask("sbatch", *other, "--output=/dev/null", "--wrap=sleep 3", where=place.folder)
    wait_for(lambda: place.cluster.job(jobs["train"])["Restarts"] == "1", "the training is back in the queue")
    assert submitted(place.advgen("submit", hurt.name, "--cluster", "here.yaml")) == []
    assert place.state(jobs["evaluate"]) == "PENDING"
    place.finished("hurt")
    log = (place.folder / "runs/hurt/launch" / f"train-{jobs['train']}.log").read_text()
    assert "restart 1," in log and "going on from runs/hurt/checkpoints/" in log
    same(place.folder / "runs/quiet", place.folder / "runs/hurt")


def test_a_failing_stage_stops_those_after_it_and_the_next_submission_goes_on(place: Place) -> None:
    changes = CHANGES | {"data__train": {"shards": "late", "images": {"kind": "folder", "path": "late-images"}}}
    recipe = write_recipe(place.folder / "late.yaml", name="late", **changes)
    place.advgen("submit", recipe.name, "--cluster", "here.yaml")
    jobs = place.jobs("late")
    wait_for(lambda: all(place.state(job) in ("FAILED", "CANCELLED") for job in jobs.values()), "all have ended")
    told = place.advgen("status", "runs/late", code=1)
    assert f"shard     job {jobs['shard']:<8} failed  exit code 2 (bad input" in told
    assert "late-images" in told.split(".log:")[1]  # the log's end says what is missing
    assert told.count("stopped  the stage before it did not end well") == 3

    shutil.copytree(place.folder / "images", place.folder / "late-images")
    assert len(submitted(place.advgen("submit", recipe.name, "--cluster", "here.yaml"))) == 4
    anew = place.jobs("late")
    assert not set(anew.values()) & set(jobs.values())
    wait_for(lambda: place.state(anew["train"]) == "RUNNING", "the training begins")
    refused = place.advgen("submit", recipe.name, "--cluster", "here.yaml", "--seed", "4", code=2)
    assert "is under way with other settings" in refused
    assert place.advgen("cancel", "runs/late").count("cancelled") == 3
    wait_for(lambda: {place.state(anew[s]) for s in ("train", "evaluate", "report")} == {"CANCELLED"}, "cancelled")
    assert place.cluster.job(anew["train"])["Restarts"] == "0"
    assert "train     job" in (told := place.advgen("status", "runs/late", code=1)) and told.count(" cancelled") == 3
    assert place.advgen("cancel", "runs/late") == "no job waits or runs\n"
    assert submitted(place.advgen("submit", recipe.name, "--cluster", "here.yaml")) == ["train", "evaluate", "report"]
    place.advgen("cancel", "runs/late")


@pytest.mark.parametrize(
    ("settings", "flags", "text"),
    [
        ("partition: fast", [], "partition fast: this SLURM has none. Known: high, main"),
        ("train: {nodes: 5}", [], "sbatch refuses: "),
        ("train: {nodes: 3}", [], "has a global batch of 16, which 3 processes do not divide"),
        ("{partition: main, account: [a]}", [], "account"),
    ],
)
def test_refused_before_anything_is_handed_in(place: Place, settings: str, flags: list[str], text: str) -> None:
    recipe = write_recipe(place.folder / "no.yaml", name="no", **CHANGES)
    (place.folder / "wrong.yaml").write_text(settings)
    before = place.cluster.ask("squeue", "--noheader", "--format=%i")
    assert text in place.advgen("submit", recipe.name, "--cluster", "wrong.yaml", *flags, code=2)
    assert not (place.folder / "runs" / "no").exists()
    assert place.cluster.ask("squeue", "--noheader", "--format=%i") == before
