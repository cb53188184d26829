"""A sweep as job arrays on a real SLURM: each member a run, each stage of it after its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.distributed.runs import POINTS, ROOT, write_recipe
from tests.slurm.cluster import Cluster, wait_for
from tests.slurm.place import Place
from tests.slurm.sweep_server import SweepServer, serving

pytestmark = pytest.mark.slow

NAMES = ["points-learning_rate_0.001-seed_3", "points-learning_rate_0.001-seed_4"]
SWEEP = ("sweep", "points.yaml", "--grid", "game.learning_rate=0.001", "--seeds", "2", "--on", "slurm")

GAME = {"kind": "gan", "architecture": "mlp", "hidden": 8, "latent_size": 2, "batch_size": 16, "total_kimg": 0.16}


def test_a_sweep_as_job_arrays(place: Place) -> None:
    write_recipe(place.folder / "points.yaml", name="points", **POINTS, evaluation__samples=64, game=GAME)
    (place.folder / "one.yaml").write_text("train: {cpus_per_rank: 2}\nevaluate: {cpus_per_rank: 2}")
    told = place.advgen(*SWEEP, "--cluster", "one.yaml")
    arrays = [line.split("job ")[1].split()[0] for line in told.splitlines() if "submitted" in line]
    assert len(arrays) == 3  # points need no shards
    states = place.cluster.ask("squeue", "--noheader", "--array", "--format=%i %E")
    assert f"{arrays[1]}_1 aftercorr:{arrays[0]}" in states
    for number, name in enumerate(NAMES):
        assert [place.jobs(name)[stage] for stage in ("train", "evaluate", "report")] == [
            f"{array}_{number}" for array in arrays
        ]
    for _ in range(2):
        assert "submitted" not in place.advgen(*SWEEP, "--cluster", "one.yaml")
    assert "train " in place.advgen("status", "runs/points-sweep")
    wait_for(lambda: "report    2 done" in place.advgen("status", "runs/points-sweep"), "all reports are there", 900)
    for number, name in enumerate(NAMES):
        assert (place.folder / "runs" / name / "report.html").is_file()
        provenance = json.loads((place.folder / "runs" / name / "run.json").read_text())
        assert provenance["world_size"] == 1
        assert f"seed: {3 + number}" in (place.folder / "runs" / name / "config.yaml").read_text()
        assert place.advgen("status", f"runs/{name}").count(" done") == 3
    assert "submitted" not in place.advgen(*SWEEP, "--cluster", "one.yaml")


def test_agents_of_wandb_run_a_sweep(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B's own `wandb sweep` and `wandb agent`; only the server, which hands out the combinations, is ours."""
    recipe = {**POINTS, "evaluation": {"metrics": []}}
    write_recipe(place.folder / "agents.yaml", name="agents", **recipe, game=GAME)
    place.advgen("sweep", "agents.yaml", "--grid", "game.learning_rate=0.002", "--wandb-sweep", "sweep.yaml")
    programs = f"{Path(sys.executable).parent}:{place.cluster.environment['PATH']}"
    server = SweepServer()
    with serving(server) as address:
        client = {"PATH": programs, "WANDB_BASE_URL": address, "WANDB_API_KEY": 40 * "0"}
        there = Cluster(place.folder, {**place.cluster.environment, **client})
        there.ask("wandb", "sweep", "sweep.yaml", where=place.folder)
        agent = (str(ROOT / "slurm/agent.sbatch"), "me/advgen/s1")
        number = there.ask("sbatch", "--parsable", "--array=0", *agent, where=place.folder)
        log = place.folder / f"slurm-{number}_0.log"
        wait_for(lambda: place.state(number) in ("COMPLETED", "FAILED"), "the agent has ended", 400)
    assert server.given == [{"game.learning_rate": 0.002}]
    assert "done, 0.2 kimg" in log.read_text()
    assert (place.folder / "runs/agents-learning_rate_0.002/report.html").is_file()


def test_a_waiting_sweep_is_cancelled(place: Place) -> None:
    write_recipe(place.folder / "points.yaml", name="idle", **POINTS, game=GAME)
    (place.folder / "held.yaml").write_text("options: [--hold]")
    place.advgen(*SWEEP, "--cluster", "held.yaml")
    assert place.advgen("cancel", "runs/idle-sweep").count("cancelled") == 6
    assert place.advgen("status", "runs/idle-sweep", code=1).count("train cancelled") == 2
    assert "no job waits" in place.advgen("cancel", "runs/idle-sweep")
