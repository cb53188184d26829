"""Figures of several runs, told apart by how they were measured: what has another protocol is another figure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from advgen.metrics.protocols import metric_of
from advgen.report.data import Metric
from advgen.report.settings import differing, shown
from advgen.strict_config import flatten

_SEED_OF_FAKES = "samples_seed"


@dataclass(frozen=True)
class Figure:
    """One thing that was measured of several runs, always alike.

    Attributes:
        name: of the metric.
        resolution: of the pictures.
        protocol: as JSON, without the seed of the fakes: other fakes are a repetition.
    """

    name: str
    resolution: int | None
    protocol: str

    @property
    def better(self) -> Literal["lower", "higher"] | None:
        """Which values are the good ones; None where the name is not known."""
        known = metric_of(self.name)
        return known.better if known else None

    @property
    def averaged(self) -> bool:
        """Whether it is of the weights' moving average, or of a game that keeps none."""
        return json.loads(self.protocol).get("weights") != "raw"

    def sign(self) -> float:
        """By which a value is multiplied so that less is better."""
        return -1.0 if self.better == "higher" else 1.0


@dataclass(frozen=True)
class Value:
    """A figure of one checkpoint.

    Attributes:
        nimg: images that the checkpoint has seen.
        value: the mean where there are several sets of fakes.
        standard_error: of the measurement: as recorded, or by the sets of fakes; NaN where neither is there.
        freedom: degrees of freedom of the standard error: by few sets it is a rough guess. One that was recorded is
            taken for exact.
    """

    nimg: int
    value: float
    standard_error: float
    freedom: float = math.inf


def figure_of(metric: Metric) -> Figure:
    """What a record is a figure of."""
    protocol = {key: value for key, value in metric.protocol.items() if key != _SEED_OF_FAKES}
    return Figure(metric.name, metric.resolution, json.dumps(protocol, sort_keys=True))


def histories(metrics: Iterable[Metric]) -> dict[Figure, list[Value]]:
    """The finite figures of one run's trained networks, by images seen."""
    found: dict[Figure, dict[int, list[Metric]]] = {}
    for metric in metrics:
        if metric.moment not in ("floor", "untrained") and math.isfinite(metric.value):
            found.setdefault(figure_of(metric), {}).setdefault(metric.nimg, []).append(metric)
    return {figure: [_value(nimg, at[nimg]) for nimg in sorted(at)] for figure, at in found.items()}


def _value(nimg: int, records: Sequence[Metric]) -> Value:
    """Of the records of one checkpoint; those of another moment than the last (a fade's start, say) do not count."""
    alike = [record for record in records if record.moment == records[-1].moment]
    values = [record.value for record in alike]
    if len(values) == 1:
        return Value(nimg, values[0], alike[0].standard_error)
    return Value(nimg, fmean(values), stdev(values) / math.sqrt(len(values)), len(values) - 1)


def best_of(figure: Figure, values: Sequence[Value]) -> Value:
    """The best one; the last where the metric's direction is not known."""
    return min(values, key=lambda value: figure.sign() * value.value) if figure.better else values[-1]


def finals(all_histories: Iterable[Mapping[Figure, Sequence[Value]]]) -> list[Figure]:
    """The figures that runs end in, in the order of first sight; those of coarser pictures on the way are left out."""
    found: dict[Figure, None] = {}
    for history in all_histories:
        finest: dict[tuple[str, bool], int] = {}
        for figure in history:
            key = figure.name, figure.averaged
            finest[key] = max(finest.get(key, 0), figure.resolution or 0)
        found |= {f: None for f in history if (f.resolution or 0) == finest[f.name, f.averaged]}
    names = list(dict.fromkeys(figure.name for figure in found))
    return sorted(found, key=lambda figure: names.index(figure.name))


def titles(figures: Sequence[Figure]) -> dict[Figure, tuple[str, str]]:
    """For each figure (a short title that no other one has, in what it differs from others of its name).

    What differs is empty for the only figure of a name.
    """
    result: dict[Figure, tuple[str, str]] = {}
    for name in dict.fromkeys(figure.name for figure in figures):
        mine = [figure for figure in figures if figure.name == name]
        protocols = [{"resolution": figure.resolution, **flatten(json.loads(figure.protocol))} for figure in mine]
        keys = differing(protocols)
        for number, (figure, protocol) in enumerate(zip(mine, protocols, strict=True), start=1):
            what = ", ".join(f"{key} {_brief(protocol.get(key))}" for key in keys)
            result[figure] = (name, "") if len(mine) == 1 else (f"{name} [{number}]", what)
    return result


def _brief(value: Any) -> str:
    """A digest by its beginning."""
    text = shown(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
