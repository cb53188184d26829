"""Means of figures over seeds, held to scipy's interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from advgen.metrics.repeats import summaries


def record(value: float, seed: int, **changes: Any) -> dict[str, Any]:
    about = {"name": "fid", "nimg": 8, "phase": "a", "moment": "end", "checkpoint_sha256": "ab"}
    protocol = {"samples": 10, **({"samples_seed": seed} if seed else {})}
    return {**about, "protocol": protocol, "value": value, **changes}


def test_the_interval_is_student_s() -> None:
    values = [10.0, 11.5, 9.25, 10.5]
    others = [record(1.0, 0, nimg=16), record(2.0, 0, name="kid"), record(3.0, 1, name="kid")]
    first, second = summaries([*(record(value, seed) for seed, value in enumerate(values)), *others])
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert first.record["name"] == "fid" and first.count == 4
    assert (first.mean - first.within, first.mean + first.within) == pytest.approx((low, high), rel=1e-12)
    assert (second.record["name"], second.count, second.mean) == ("kid", 2, 2.5)


def test_a_figure_that_stands_alone_has_none() -> None:
    assert summaries([record(1.0, 0), record(1.0, 0, moment="start")]) == []
