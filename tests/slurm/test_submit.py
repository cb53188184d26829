"""A recipe's stages as jobs of a real SLURM: in order, once, through a preemption, a failure and a cancellation."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest

from advgen.metrics.records import read_records
from tests.distributed.ranks import newest, same
from tests.distributed.runs import write_recipe
from tests.slurm.cluster import wait_for
from tests.slurm.place import CHANGES, SETTINGS, Place, submitted

pytestmark = pytest.mark.slow


def test_the_whole_chain_with_a_preemption_in_the_middle(place: Place) -> None:
    """Shards, training by ZeRO on two nodes, evaluation and report, twice: left alone, and preempted while training.

    The second time the evaluation is a job array of three tasks; the figures are the same, each there once. Its report
    sets the two runs against one another.
    """
    stages = ["shard", "train", "evaluate", "report"]
    quiet = write_recipe(place.folder / "quiet.yaml", name="quiet", **CHANGES)
    told = place.advgen("submit", quiet.name, "--on", "slurm", "--cluster", "here.yaml")
    assert submitted(told) == stages
    jobs = place.jobs("quiet")
    for before, after in itertools.pairwise(stages):
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
    assert "precision" in (place.folder / "runs/quiet/metrics.jsonl").read_text()
    assert place.advgen("status", "runs/quiet").count(" done") == 4
    assert submitted(place.advgen("submit", quiet.name, "--cluster", "here.yaml")) == []

    hurt = write_recipe(place.folder / "hurt.yaml", name="hurt", compare_with=["runs/quiet"], **CHANGES)
    (place.folder / "shared.yaml").write_text(SETTINGS + "evaluate_tasks: 3\n")
    place.advgen("submit", hurt.name, "--cluster", "shared.yaml")
    jobs = place.jobs("hurt")
    wait_for(lambda: newest(place.folder / "runs" / "hurt") > 0, "a checkpoint", 240)
    place.preempt()
    wait_for(lambda: place.cluster.job(jobs["train"])["Restarts"] == "1", "the training is back in the queue")
    assert submitted(place.advgen("submit", hurt.name, "--cluster", "shared.yaml")) == []
    assert place.state(jobs["evaluate"]) == "PENDING"
    place.finished("hurt")
    log = (place.folder / "runs/hurt/launch" / f"train-{jobs['train']}.log").read_text()
    assert "restart 1," in log and "going on from runs/hurt/checkpoints/" in log
    same(place.folder / "runs/quiet", place.folder / "runs/hurt")
    assert figures(place.folder / "runs/hurt") == figures(place.folder / "runs/quiet")
    assert "quiet" in (place.folder / "runs/hurt/compare.html").read_text()
    told = place.advgen("status", "runs/hurt")
    assert f"evaluate  job {jobs['evaluate']:<8} done  3 of 3 tasks done" in told and told.count(" done") == 5
    tasks = [place.folder / "runs/hurt/launch" / f"evaluate-{jobs['evaluate']}_{task}.log" for task in range(3)]
    assert all("precision end" in log.read_text() for log in tasks)
    assert submitted(place.advgen("submit", hurt.name, "--cluster", "shared.yaml")) == []


def figures(run: Path) -> list[tuple[object, ...]]:
    """What a run's records say, in an order of their own."""
    records = read_records(run / "metrics.jsonl")
    keys = ("name", "nimg", "phase", "moment", "resolution", "value")
    return sorted(tuple(record[key] for key in keys) for record in records)


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


def test_the_wall_time_comes(place: Place) -> None:
    """SLURM's own warning a minute before the limit: a checkpoint, back into the queue, on from there."""
    settings = SETTINGS.replace('"0:30:00"}', '"0:02:00"}\nwarn_seconds: 60\nmax_fruitless: 9')
    (place.folder / "short.yaml").write_text(settings)
    changes = CHANGES | {"training__engine": "ddp", "game__stabilize_kimg": 200.0}
    recipe = write_recipe(place.folder / "long.yaml", name="long", **changes)
    place.advgen("submit", recipe.name, "--cluster", "short.yaml")
    log = place.folder / "runs/long/launch" / f"train-{place.jobs('long')['train']}.log"
    told = "stopped with a checkpoint (exit code 85, restart 0): back into the queue"
    wait_for(lambda: log.exists() and told in log.read_text(), "the warning is answered", 400)
    wait_for(lambda: "going on from runs/long/checkpoints/" in log.read_text(), "it goes on", 400)
    assert "restart 1," in log.read_text()
    assert "restart 1" in place.advgen("status", "runs/long")
    place.advgen("cancel", "runs/long")
    wait_for(lambda: place.state(place.jobs("long")["train"]) == "CANCELLED", "it is cancelled")


def test_restarts_that_train_nothing_end(place: Place) -> None:
    """A program that always wants to be started again, and never gets anywhere."""
    program = "\nprogram: [sh, -c, 'exit 85']\nmax_fruitless: 1"
    (place.folder / "useless.yaml").write_text(SETTINGS + program)
    recipe = write_recipe(place.folder / "useless-recipe.yaml", name="useless", **CHANGES | {"data__held_out": None})
    place.advgen("submit", recipe.name, "--cluster", "useless.yaml", "--only", "train")
    job = place.jobs("useless")["train"]
    wait_for(lambda: place.state(job) == "FAILED", "it gives up", 240)
    told = place.advgen("status", "runs/useless", code=1)
    assert "2 restarts one after the other have trained nothing new: giving up" in told
    assert place.cluster.job(job)["Restarts"] == "2"


def test_cancelled_after_a_preemption_stays_cancelled(place: Place) -> None:
    program = "\nprogram: [bash, -c, 'trap \"exit 143\" TERM; sleep 300 & wait']"
    (place.folder / "idle.yaml").write_text(SETTINGS + program)
    recipe = write_recipe(place.folder / "idle-recipe.yaml", name="waits", **CHANGES)
    place.advgen("submit", recipe.name, "--cluster", "idle.yaml", "--only", "train")
    job = place.jobs("waits")["train"]
    wait_for(lambda: place.state(job) == "RUNNING", "it runs")
    place.preempt()
    wait_for(lambda: place.cluster.job(job)["Restarts"] == "1", "it is back in the queue")
    wait_for(lambda: place.state(job) == "RUNNING", "it runs again")
    log = place.folder / "runs/waits/launch" / f"train-{job}.log"
    wait_for(lambda: "restart 1," in log.read_text(), "its script is under way")
    place.advgen("cancel", "runs/waits")
    wait_for(lambda: place.state(job) == "CANCELLED", "it is cancelled")
    assert place.cluster.job(job)["Restarts"] == "1" and log.read_text().count("back into the queue") == 1
    assert "cancelled" in place.advgen("status", "runs/waits", code=1)


def test_a_submission_that_was_killed_leaves_no_second_job(place: Place) -> None:
    """The jobs are known by their comments where no file tells of them."""
    (place.folder / "held.yaml").write_text(SETTINGS + "options: [--hold]")
    recipe = write_recipe(place.folder / "held-recipe.yaml", name="held", **CHANGES)
    place.advgen("submit", recipe.name, "--cluster", "held.yaml")
    jobs = place.jobs("held")
    (place.folder / "runs/held/launch/launch.json").unlink()
    place.advgen("submit", recipe.name, "--cluster", "held.yaml")
    assert place.jobs("held") == jobs
    assert place.advgen("cancel", "runs/held").count("cancelled") == 4
    place.advgen("submit", recipe.name, "--cluster", "held.yaml")
    assert not set(place.jobs("held").values()) & set(jobs.values())
    place.advgen("cancel", "runs/held")


def test_shards_are_copied_to_the_node(place: Place) -> None:
    """A program that tells what it was called with, and what lies there."""
    settings = """
train: {cpus_per_rank: 1}
node_scratch: scratch room
program: [bash, -c, 'printf "<%s>\\n" "$@"; ls "${@: -1}"', advgen]
"""
    (place.folder / "scratch.yaml").write_text(settings)
    shards = place.folder / "the shards"
    shards.mkdir()
    (shards / "manifest.json").write_text("{}")
    changes = CHANGES | {"data__train": {"shards": shards.name}, "data__held_out": None}
    recipe = write_recipe(place.folder / "scratch-recipe.yaml", name="scratch", **changes)
    place.advgen("submit", recipe.name, "--cluster", "scratch.yaml", "--only", "train")
    job = place.jobs("scratch")["train"]
    wait_for(lambda: place.state(job) == "COMPLETED", "it has run")
    log = (place.folder / "runs/scratch/launch" / f"train-{job}.log").read_text()
    copy = f"scratch room/advgen-{job}/data.train.shards"
    called = ["train", "runs/scratch/launch/recipe.yaml", "--data.train.shards", copy]
    assert "\n".join([*(f"<{word}>" for word in called), "manifest.json"]) in log
    assert not any((place.folder / "scratch room").iterdir())


@pytest.mark.parametrize(
    ("settings", "flags", "text"),
    [
        ("partition: fast", [], "partition fast: this SLURM has none. Known: high, main"),
        ("train: {nodes: 8}", [], "sbatch refuses: "),
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
