"""What trackers show of a run, read from the run folder's own logs, which are the truth.

A row of a training is all that was logged at one ``nimg``; a row of the evaluations is a record of ``metrics.jsonl``,
whose step is its place in that file, as checkpoints are evaluated in any order. So each row has one step, whoever sends
it and however often.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Job = Literal["training", "evaluation"]
JOBS: tuple[Job, ...] = ("training", "evaluation")


@dataclass
class Row:
    """What is shown at one step.

    Attributes:
        step: rises from row to row.
        nimg: images seen.
        values: scalars by name.
        pictures: files by name.
    """

    step: int
    nimg: int
    values: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)


def shown(record: Mapping[str, Any]) -> dict[str, float]:
    """The scalars that trackers show of a record of ``log.jsonl``; values that are not finite are left out."""
    kind = record.get("kind")
    if kind == "scalars":
        return _finite(record["values"])
    if kind == "rate":
        names = ("images_per_second", "seconds_per_kimg", "data_wait", "tflops", "mfu", "gpu_memory_gib")
        return _finite({f"speed/{name}": record[name] for name in names if name in record})
    return {}


def shown_metric(record: Mapping[str, Any]) -> dict[str, float]:
    """The scalar that trackers show of a record of ``metrics.jsonl``: its name says what is not as usual."""
    moment = record.get("moment")
    usual = moment in ("untrained", "within", "end")
    raw = (record.get("protocol") or {}).get("weights") == "raw"
    name = metric_name(record["name"], record["resolution"], raw=raw, moment="" if usual else str(moment))
    return _finite({name: record["value"]})


def metric_name(name: str, resolution: int | None, *, raw: bool, moment: str = "") -> str:
    """What trackers call a figure; ``moment`` only where it is no usual one, ``raw`` for weights without average."""
    return f"{name}/{resolution}{f' {moment}' if moment else ''}{' raw' if raw else ''}"


def rows(folder: Path, job: Job, after: int = -1) -> Iterator[Row]:
    """The rows of a run folder that come after a step, in order.

    Args:
        folder: the run's.
        job: whose rows.
        after: the last step that is not asked for; -1 for all rows.
    """
    found = _training(folder) if job == "training" else _evaluation(folder)
    return (row for row in found if row.step > after)


def _training(folder: Path) -> Iterator[Row]:
    found: dict[int, dict[str, Path]] = {}
    if (folder / "samples" / "reals.png").is_file():
        found[0] = {"reals": folder / "samples" / "reals.png"}
    for record in _records(folder / "samples" / "index.jsonl"):
        found.setdefault(record["nimg"], {})["samples"] = folder / "samples" / record["file"]
    pictures = deque(sorted(found.items()))
    row: Row | None = None
    for record in _records(folder / "log.jsonl"):
        nimg = record["nimg"]
        if row is None or nimg != row.nimg:
            if row is not None:
                yield row
            while pictures and pictures[0][0] < nimg:
                yield _of_pictures(*pictures.popleft())
            row = _of_pictures(*pictures.popleft()) if pictures and pictures[0][0] == nimg else Row(nimg, nimg)
        row.values.update(shown(record))
        if record["kind"] == "picture":
            row.pictures.update(_there({record["name"]: folder / record["file"]}))
    if row is not None:
        yield row
    yield from (_of_pictures(*later) for later in pictures)


def _evaluation(folder: Path) -> Iterator[Row]:
    for number, record in enumerate(_records(folder / "metrics.jsonl")):
        yield Row(number, record["nimg"], shown_metric(record))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of lines, up to one that a kill tore."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                return
            if isinstance(record, dict) and isinstance(record.get("nimg"), int):
                yield record


def _of_pictures(nimg: int, pictures: Mapping[str, Path]) -> Row:
    return Row(nimg, nimg, pictures=_there(pictures))


def _there(pictures: Mapping[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in pictures.items() if path.is_file()}


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if isinstance(value, (int, float)) and math.isfinite(value)}
