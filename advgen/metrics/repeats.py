"""Figures over several sets of fakes: their mean, and how far it may be from that of endless sets."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev

from advgen.metrics.records import Record

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """The figures of one metric at one view of one checkpoint.

    Attributes:
        record: the first of them.
        count: how many, of a seed each.
        mean: of them.
        within: the mean of endless sets lies so near, with the probability :data:`CONFIDENCE`, if figures are normal.
    """

    record: Record
    count: int
    mean: float
    within: float


def summaries(records: Iterable[Record]) -> list[Summary]:
    """Of all records that differ in nothing but the seed of the fakes; none of those that stand alone."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        protocol = {key: value for key, value in record["protocol"].items() if key != "samples_seed"}
        where = [record[key] for key in ("name", "nimg", "phase", "moment", "checkpoint_sha256")]
        groups.setdefault(json.dumps([*where, protocol], sort_keys=True), []).append(record)
    return [_summary(group) for group in groups.values() if len(group) > 1]


def _summary(group: list[Record]) -> Summary:
    from scipy.stats import t

    values = [record["value"] for record in group]
    factor = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return Summary(group[0], len(values), fmean(values), factor * stdev(values) / math.sqrt(len(values)))
