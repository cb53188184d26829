"""Run folders made up for comparisons: small, and of known figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.unit.report.conftest import save_grid, write_lines

PROTOCOL = {"samples": 5000, "reference": "c0ffee", "resize": "bicubic", "weights": "average"}


def metric(value: float, nimg: int = 1000, name: str = "fid", **changes: Any) -> dict[str, Any]:
    """A record of ``metrics.jsonl``; ``protocol`` is merged into the usual one."""
    protocol = {**PROTOCOL, **changes.pop("protocol", {})}
    record = {"name": name, "value": value, "nimg": nimg, "phase": "train", "moment": "end", "resolution": 32}
    return {**record, "checkpoint": f"checkpoints/{nimg:012d}", "protocol": protocol, **changes}


def make_small_run(
    folder: Path,
    *,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    metrics: Sequence[Mapping[str, Any]] = (),
    curves: Mapping[str, Sequence[float]] | None = None,
    about: Mapping[str, Any] | None = None,
    grids: int = 3,
) -> Path:
    """A run of 1 kimg on one GPU in 100 seconds.

    Args:
        settings: of the game.
        metrics: of :func:`metric`.
        curves: logged values, evenly over the training.
        about: on top of the usual ``run.json``.
        grids: how many sample grids.
    """
    (folder / "samples").mkdir(parents=True)
    recipe = {"name": folder.name, "seed": seed, "game": {"kind": "gan", "loss": "non_saturating", **(settings or {})}}
    (folder / "config.yaml").write_text(yaml.safe_dump(recipe))
    provenance = {"commit": "0b844c3d9f", "device": "cuda:0", "world_size": 2, "threads": 4, "total_nimg": 1000}
    (folder / "run.json").write_text(json.dumps({**provenance, "manifest": "9a3f", **(about or {})}))
    values = {"player/loss": [2.0, 1.5, 1.25, 1.0, 0.5], **(curves or {})}
    log: list[dict[str, Any]] = []
    for name, numbers in values.items():
        for index, value in enumerate(numbers, start=1):
            nimg = round(1000 * index / len(numbers))
            log.append({"kind": "scalars", "nimg": nimg, "phase": "train", "resolution": 32, "values": {name: value}})
    log.sort(key=lambda record: record["nimg"])
    log += [
        {"kind": "rate", "nimg": nimg, "phase": "train", "images_per_second": 10.0, "elapsed_seconds": nimg / 10}
        for nimg in (500, 1000)
    ]
    write_lines(folder / "log.jsonl", log)
    index = []
    for number in range(grids):
        nimg = 1000 * number // max(1, grids - 1)
        save_grid(folder / "samples" / f"{nimg:06d}.png", 16, np.random.default_rng(seed + nimg), columns=4, rows=2)
        index.append({"nimg": nimg, "file": f"{nimg:06d}.png", "phase": "train", "resolution": 16, "event": "interval"})
    write_lines(folder / "samples" / "index.jsonl", index)
    write_lines(folder / "metrics.jsonl", list(map(dict, metrics)))
    return folder
