"""What a recipe is expected to take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advgen.launch.cluster import Resources
from advgen.launch.estimate import checkpoint_bytes, kept_checkpoints, read_rates, training_time
from advgen.runtime.config import BestCheckpoint, TrainingConfig


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
