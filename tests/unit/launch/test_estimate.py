"""What a recipe is expected to take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advgen.launch.cluster import Cluster, Resources
from advgen.launch.estimate import checkpoint_bytes, kept_checkpoints, read_rates, reduction_seconds, training_time
from advgen.runtime.config import BestCheckpoint, TrainingConfig
from pipelines.expected import expected
from tests.unit.launch.recipes import four_stages


def measured(folder: Path, ranks: int = 2) -> Path:
    readings = [("a", 100.0), ("a", 300.0), ("a", 200.0), ("b", 50.0)]
    lines = [json.dumps({"kind": "rate", "phase": phase, "images_per_second": rate}) for phase, rate in readings]
    (folder / "log.jsonl").write_text("\n".join([*lines, '{"kind": "scalars"}', "torn {"]))
    (folder / "run.json").write_text(json.dumps({"world_size": ranks}))
    return folder


def test_training_time(tmp_path: Path) -> None:
    rates = read_rates(measured(tmp_path))
    assert rates is not None and rates.images_per_second == {"a": 200.0, "b": 50.0}
    wanted = Resources(nodes=2, ranks_per_node=4, gpus_per_node=4, time="1:00:00")
    # 8 ranks in place of 2 are 4 times as fast: 800 and 200 images a second.
    taken = training_time([("a", 2400.0), ("b", 300.0), ("c", 1.0)], rates, wanted)
    assert taken.seconds == pytest.approx(2_400_000 / 800 + 300_000 / 200)
    assert taken.gpu_hours == pytest.approx(8 * 4500 / 3600)
    assert (taken.jobs, taken.unmeasured) == (2, ("c",))


def test_no_rate_no_estimate(tmp_path: Path) -> None:
    assert read_rates(tmp_path) is None
    (measured(tmp_path) / "log.jsonl").write_text("")
    assert read_rates(tmp_path) is None


def test_storage() -> None:
    assert checkpoint_bytes(parameters=1000, averaged=400) == 4 * (1000 + 2 * 1000 + 400)
    config = TrainingConfig(keep_checkpoints=2, keep_every_kimg=100.0, keep_best=BestCheckpoint(metric="fid"))
    assert kept_checkpoints([("a", 150.0), ("b", 200.0)], config) == 1 + 2 + 2 + 3 + 1


def test_reduction() -> None:
    # 1 GB at 8 Gbit/s: three quarters of it there, and back; ZeRO sends as much of the new weights once more, one way.
    assert reduction_seconds(1e9, "ddp", 4, 8.0) == pytest.approx(1.5)
    assert reduction_seconds(1e9, "zero2", 4, 8.0) == pytest.approx(2.25)
    assert reduction_seconds(1e9, "zero0", 4, 8.0) == pytest.approx(1.5)
    assert reduction_seconds(1e9, "ddp", 1, 8.0) == 0.0


def test_submit_says_what_the_network_adds(tmp_path: Path) -> None:
    from advgen.build import build_game

    recipe = four_stages(game={"kind": "gan", "width": 8, "batch_size": 16, "total_kimg": 160.0})
    game = build_game(recipe)
    (phase,) = game.phases
    line = {"kind": "rate", "phase": phase.name, "images_per_second": 100.0}
    (tmp_path / "log.jsonl").write_text(json.dumps(line))
    (tmp_path / "run.json").write_text(json.dumps({"world_size": 1}))
    gradients = 4 * sum(p.numel() for network in game.networks.values() for p in network.parameters())
    # 10,000 steps of 1/10 s beside 400 s by the rate: three quarters of all gradients, there and back.
    gbit = 8 * gradients * 1.5 / 0.1 / 1e9
    train = Resources(nodes=1, ranks_per_node=4)
    (told, _) = expected(recipe, game, Cluster(train=train, network_gbit_per_rank=gbit), tmp_path)
    assert "expected time of training: 6m 40s on 1 x 4 ranks" in told
    assert "if 4 are 4 times as fast); 23m 20s if gradients go at" in told
    (told, _) = expected(recipe, game, Cluster(train=train), tmp_path)
    assert "gradients" not in told
