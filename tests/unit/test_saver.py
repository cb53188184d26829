"""Which checkpoint a metric calls the best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from advgen.runtime.saver import best_by


def record(nimg: int, value: float, **others: Any) -> dict[str, Any]:
    return {"nimg": nimg, "value": value, "resolution": 16, "name": "fd", "checkpoint": "c", **others}


def test_the_best_among_the_finest_images(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert best_by(path, "fd", True) is None
    records = [
        record(100, 1.0, resolution=8),  # coarser images are easier
        record(200, 30.0),
        record(300, 20.0),
        record(400, 25.0),
        record(500, 1.0, name="kid"),
        record(0, 0.5, checkpoint=None),  # the floor, of real images
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    assert best_by(path, "fd", True) == 300
    assert best_by(path, "fd", False) == 200
    assert best_by(path, "precision", False) is None


def test_which_way_a_metric_goes_is_known(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for name, best in (("fd_lite0", 200), ("recall", 100), ("unknown", 200)):
        path.write_text("".join(json.dumps(record(n, v, name=name)) + "\n" for n, v in ((100, 0.9), (200, 0.1))))
        assert best_by(path, name) == best
