"""Metrics taken while a run is trained: the same figures as afterwards, and the same run as without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advgen.metrics.records import read_records
from tests.distributed.ranks import same
from tests.distributed.runs import advgen, torchrun, write_recipe

GAME = {"kind": "gan", "architecture": "mlp", "hidden": 16, "latent_size": 2, "r1_gamma": 0, "batch_size": 20}
DATA = {"points": {"kind": "grid25"}, "resolution": 1, "channels": 2}
MEASURED = {"metrics": ["modes", "high_quality"], "samples": 300, "threads": 1}


def trained(place: Path, name: str, launcher: tuple[str, ...], **evaluation: Any) -> Path:
    game = {**GAME, "total_kimg": 0.3}
    training = {"threads": 1, "device": "cpu", "log_every_steps": 1, "checkpoint_kimg": 1.0, "keep_checkpoints": 9}
    changes = {"game": game, "data": DATA, "training": training, "evaluation": {**MEASURED, **evaluation}}
    recipe = write_recipe(place / f"{name}.yaml", name=name, **changes)
    advgen(place, "train", recipe.name, launcher=launcher)
    return place / "runs" / name


def figures(run: Path) -> list[tuple[object, ...]]:
    """Of checkpoints within the phase."""
    records = [r for r in read_records(run / "metrics.jsonl") if r["moment"] == "within"]
    return sorted((r["nimg"], r["name"], r["value"], r["protocol"]["samples"]) for r in records)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_that_is_evaluated_within_is_the_same_run(tmp_path: Path, processes: int) -> None:
    launcher = torchrun(processes) if processes > 1 else ()
    within = trained(tmp_path, "within", launcher, every_kimg=0.1)
    assert [nimg for nimg, *_ in figures(within)] == [100, 100, 200, 200]
    plain = trained(tmp_path, "plain", launcher)
    assert not (plain / "metrics.jsonl").exists()
    same(within, plain)
    before = figures(within)
    (within / "metrics.jsonl").unlink()
    advgen(tmp_path, "evaluate", "runs/within", "--every")
    assert figures(within) == before
