"""Metrics of generated images, as a table: a metric is one file in this folder and one line here.

Importing this module imports neither torch nor a network; the line's functions import their file when they are called.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from advgen.errors import UserError

if TYPE_CHECKING:
    from advgen.metrics.features import Extractor
    from advgen.metrics.statistics import FeatureStatistics


@dataclass(frozen=True, kw_only=True)
class MetricFiles:
    """What metrics need from outside: files that the recipe names, and settings of their features."""

    inception_weights: Path | None = None
    """FID's Inception weights (``evaluation.inception_weights``); needed by ``fid`` alone."""

    lite0_size: int = 64
    """Pixels a side to which ``fd_lite0`` resizes images."""


@dataclass(frozen=True)
class MetricSpec:
    """One metric: features, and a distance between the statistics of two sets of them.

    Attributes:
        name: as it stands in recipes and in ``metrics.jsonl``.
        describe: one line for a person, with unit and direction.
        load_extractor: builds the feature network; raises UserError where a file or package is missing.
        distance: from the statistics of two sets of features to the figure.
    """

    name: str
    describe: str
    load_extractor: Callable[[MetricFiles], Extractor]
    distance: Callable[[FeatureStatistics, FeatureStatistics], float]


def _lite0(given: MetricFiles) -> Extractor:
    from advgen.metrics.lite0 import load_lite0

    return load_lite0(given.lite0_size)


def _inception(given: MetricFiles) -> Extractor:
    from advgen.metrics.inception import load_inception

    return load_inception(given.inception_weights)


def _frechet(a: FeatureStatistics, b: FeatureStatistics) -> float:
    from advgen.metrics.frechet import frechet_distance

    return frechet_distance(a, b)


_TABLE = (
    MetricSpec("fd_lite0", "Frechet distance, EfficientNet-Lite0 features; not FID; lower is better", _lite0, _frechet),
    MetricSpec("fid", "Frechet Inception distance (Heusel et al. 2017); lower is better", _inception, _frechet),
)

METRICS: dict[str, MetricSpec] = {spec.name: spec for spec in _TABLE}
"""Every metric, by name."""


def metric(name: str) -> MetricSpec:
    """The metric called ``name``.

    Raises:
        UserError: there is none; names the nearest one and all others.
    """
    if name in METRICS:
        return METRICS[name]
    near = difflib.get_close_matches(name, METRICS, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise UserError(f"unknown metric '{name}'; {hint}Known metrics: {', '.join(sorted(METRICS))}.")
