"""Curves of many runs for the page, thinned so that all together stay within a fixed number of points."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from advgen.report.compare_data import Comparison
from advgen.report.data import Curve
from advgen.report.figures import thinned

MOST_POINTS = 500_000
"""Of all curves of a page; about seven bytes each."""
_FEWEST, _LIMIT = 40, 1000  # points of one curve


def curves_of(comparison: Comparison) -> dict[str, Any]:
    """What the chart can show.

    Returns:
        ``names``: of values, as ``{"name", "kind"}``, metrics first. ``axes``: lists of ``[kimg...]`` and
        ``[hours...]`` (None where the run's log has no times) that several curves share. ``curves``: for each run, by
        index into ``names``, ``[axis, [value...]]``.
    """
    scalars = list(dict.fromkeys(name for run in comparison.runs for name in run.run.curves))
    # Losses first: they are what people look for.
    scalars.sort(key=lambda name: not name.endswith("loss"))
    names = [{"name": contest.title, "kind": "metric"} for contest in comparison.contests]
    names += [{"name": name, "kind": "scalar"} for name in scalars] + [{"name": "images per second", "kind": "speed"}]
    count = sum(len(run.run.curves) + 1 for run in comparison.runs)
    limit = min(_LIMIT, max(_FEWEST, MOST_POINTS // max(1, count)))
    axes: dict[Any, int] = {}
    stored: list[list[Any]] = []
    curves = []
    for run in comparison.runs:
        hours = _hours(run.run.elapsed)
        mine: dict[int, list[Any]] = {}
        for index, contest in enumerate(comparison.contests):
            if values := run.history.get(contest.figure):
                points = [(value.nimg, value.value) for value in values]
                mine[index] = _curve(points, hours, run.name, axes, stored)
        for index, name in enumerate(scalars, start=len(comparison.contests)):
            if (curve := run.run.curves.get(name)) and (points := _thin(curve, limit)):
                mine[index] = _curve(points, hours, run.name, axes, stored)
        if points := _thin(run.run.rate, limit):
            mine[len(names) - 1] = _curve(points, hours, run.name, axes, stored)
        curves.append(mine)
    return {"names": names, "axes": stored, "curves": curves}


def _thin(curve: Curve, limit: int) -> list[tuple[float, float]]:
    points = thinned(np.array(curve.points(), dtype=np.float64).reshape(-1, 4), limit)
    return [(x, y) for x, y in points[:, :2].tolist()]


def _curve(
    points: Sequence[tuple[float, float]],
    hours: Callable[[np.ndarray], np.ndarray] | None,
    run: str,
    axes: dict[Any, int],
    stored: list[list[Any]],
) -> list[Any]:
    nimg = tuple(x for x, _ in points)
    key = run, nimg
    if key not in axes:
        axes[key] = len(stored)
        times = None if hours is None else [_brief(hour) for hour in hours(np.array(nimg)).tolist()]
        stored.append([[_brief(x / 1000, 6) for x in nimg], times])
    return [axes[key], [_brief(y) for _, y in points]]


def _hours(elapsed: Curve) -> Callable[[np.ndarray], np.ndarray] | None:
    """Hours in steps by images seen; beyond the last reading at the mean rate so far. None without readings."""
    points = np.array(elapsed.points(), dtype=np.float64).reshape(-1, 4)
    if not len(points) or not points[-1, 0]:
        return None
    at, seconds = np.append(0.0, points[:, 0]), np.append(0.0, points[:, 1])
    rate = seconds[-1] / at[-1]

    def hours(nimg: np.ndarray) -> np.ndarray:
        return (np.interp(nimg, at, seconds) + np.maximum(nimg - at[-1], 0) * rate) / 3600

    return hours


def _brief(value: float, digits: int = 4) -> float | int:
    """Rounded to the digits that a chart can show, and whole where it is."""
    if not math.isfinite(value):
        raise ValueError("curves hold finite values only")
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
