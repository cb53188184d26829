"""What a run folder says, read once, in memory that does not grow with the length of the log.

Nothing here trusts the files: a job may have been killed within a line, a loss may be NaN, an image may be gone.
What cannot be used is left out and told in :attr:`Run.notes`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advgen.errors import UserError
from advgen.report.lines import LARGEST, as_number, as_whole, records

CROSSES = " They are marked with red crosses and left out of the curve."
"""How a run's own page shows values that are not finite."""


class Curve:
    """One logged value over images seen, thinned while it is read.

    A point stands for ``stride`` records in a row: their mean, least and greatest value. Whenever ``limit`` points
    are there, neighbours are merged and the stride doubles, so a curve has between half of ``limit`` and ``limit``
    points however long the log is.
    """

    def __init__(self, limit: int = 2000) -> None:
        self.limit = limit
        self.stride = 1
        self.count = 0
        self.bad: list[int] = []
        self.bad_count = 0
        self._points: list[tuple[float, float, float, float]] = []
        self._open: list[tuple[int, float]] = []
        self._last = -1

    def add(self, nimg: int, value: float) -> None:
        """Append a record. One with an earlier nimg than the last takes the place of what was logged from there on."""
        if nimg < self._last:
            self._points = [point for point in self._points if point[0] < nimg]
            self._open = [item for item in self._open if item[0] < nimg]
            self.bad = [at for at in self.bad if at < nimg]
        self._last = nimg
        if not abs(value) < LARGEST:  # also true of NaN
            self.bad_count += 1
            if len(self.bad) < self.limit:
                self.bad.append(nimg)
            return
        self.count += 1
        if self.stride == 1:  # most records of most logs: worth a shorter way
            self._points.append((float(nimg), value, value, value))
        else:
            self._open.append((nimg, value))
            if len(self._open) < self.stride:
                return
            self._points.append(_point(self._open))
            self._open = []
        if len(self._points) >= self.limit:
            self._points = [_merged(*pair) for pair in zip(self._points[::2], self._points[1::2], strict=False)]
            self.stride *= 2

    def points(self) -> list[tuple[float, float, float, float]]:
        """(nimg, mean, least, greatest) of each point, the records of an unfinished point included."""
        return [*self._points, _point(self._open)] if self._open else list(self._points)


def _point(items: list[tuple[int, float]]) -> tuple[float, float, float, float]:
    values = [value for _, value in items]
    return sum(nimg for nimg, _ in items) / len(items), sum(values) / len(values), min(values), max(values)


def _merged(a: tuple[float, float, float, float], b: tuple[float, float, float, float]):
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2, min(a[2], b[2]), max(a[3], b[3])


@dataclass
class Span:
    """The images seen during which a phase ran."""

    phase: str
    resolution: int | None
    start: int
    end: int
    fading: bool = False
    ended: bool = False


@dataclass(frozen=True)
class Metric:
    """One line of ``metrics.jsonl``; a value that is no finite number is NaN."""

    name: str
    value: float
    nimg: int
    phase: str
    moment: str
    resolution: int | None
    protocol: dict[str, Any]
    checkpoint: str | None
    per_class: tuple[float, ...] = ()
    """By class id, NaN for a class without a figure; empty for a metric without classes."""
    standard_error: float = math.nan
    """NaN where the record has none."""

    @property
    def weights(self) -> str:
        """Which weights were measured, as the protocol says."""
        return str(self.protocol.get("weights", ""))


@dataclass(frozen=True)
class Grid:
    """One image of samples."""

    path: Path
    nimg: int
    phase: str
    resolution: int | None
    event: str


@dataclass
class Run:
    """All that the page shows of a run folder."""

    folder: Path
    config: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    rate: Curve = field(default_factory=Curve)
    elapsed: Curve = field(default_factory=Curve)
    """Seconds spent in steps so far, those of earlier jobs included."""
    seconds: float = 0.0
    spans: list[Span] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    reals: Path | None = None
    notes: list[str] = field(default_factory=list)
    step: int = 0
    nimg: int = 0
    wandb_ids: tuple[str, ...] = ()
    """Of its training and its evaluations, as far as they have some."""


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: it is none, or nothing was logged in it yet.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        raise UserError(
            f"{folder}: is not a run folder (it holds no config.yaml). Name a folder that training has made, "
            "usually runs/NAME."
        )
    run = Run(folder, config=config.read_text(encoding="utf-8", errors="replace"))
    _read_wandb_ids(run)
    _read_provenance(run)
    _read_log(run)
    run.metrics = read_metrics(folder / "metrics.jsonl", run.notes)
    if not run.curves and not run.rate.points() and not run.metrics:
        raise UserError(
            f"{folder}: nothing was logged yet (log.jsonl has no values). Wait until training has logged its first "
            "values, or look at the job's own output for why it has not."
        )
    _read_grids(run)
    for name, curve in run.curves.items():
        if curve.bad_count:
            first = f", first at {curve.bad[0] / 1000:,.1f} kimg" if curve.bad else ""
            run.notes.append(
                f"{name}: {curve.bad_count:,} of {curve.bad_count + curve.count:,} values are NaN or infinite{first}."
                + CROSSES
            )
    strides = [curve.stride for curve in (*run.curves.values(), run.rate)]
    if max(strides) > 1:
        run.notes.append(
            f"The log is long: one point of a curve stands for up to {max(strides):,} records in a row. "
            "The faint band reaches from the least to the greatest of them."
        )
    return run


def _read_wandb_ids(run: Run) -> None:
    paths = [run.folder / name for name in ("wandb-id", "wandb-id-evaluation")]
    found = [path.read_text(encoding="utf-8", errors="replace").strip() for path in paths if path.is_file()]
    run.wandb_ids = tuple(each for each in found if each)


def _read_provenance(run: Run) -> None:
    path = run.folder / "run.json"
    if not path.is_file():
        return
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        run.provenance = value
    else:
        run.notes.append("run.json: is not a JSON object and was left out.")


def _read_log(run: Run) -> None:
    fades: dict[str, tuple[float, float]] = {}
    before, seconds, odd = 0.0, 0.0, 0
    for record in records(run.folder / "log.jsonl", run.notes):
        kind = record.get("kind")
        if kind not in ("scalars", "rate", "phase"):
            continue
        nimg = as_whole(record.get("nimg"))
        if nimg is None:
            odd += 1
            continue
        run.nimg = nimg
        _extend(run.spans, record, nimg)
        if kind == "phase" and record.get("event") == "resume":
            before, seconds = before + seconds, 0.0  # the new job counts from zero
        if kind == "scalars":
            run.step = as_whole(record.get("step")) or run.step
            fade, phase = as_number(record.get("fade")), str(record.get("phase"))
            if fade is not None and math.isfinite(fade):
                low, high = fades.get(phase, (fade, fade))
                fades[phase] = min(low, fade), max(high, fade)
            values = record.get("values")
            for name, raw in values.items() if isinstance(values, dict) else ():
                value = as_number(raw)
                if value is not None:
                    if name not in run.curves:
                        run.curves[name] = Curve()
                    run.curves[name].add(nimg, value)
        elif kind == "rate":
            rate, elapsed = as_number(record.get("images_per_second")), as_number(record.get("elapsed_seconds"))
            if rate is not None:
                run.rate.add(nimg, rate)
            if elapsed is not None and math.isfinite(elapsed):
                if elapsed < seconds:  # resumed where a phase begins, which logs no "resume"
                    before += seconds
                seconds = elapsed
                run.elapsed.add(nimg, before + elapsed)
    run.seconds = before + seconds
    for span in run.spans:
        low, high = fades.get(span.phase, (1.0, 1.0))
        span.fading = "fade" in span.phase.lower() or low < high
    if odd:
        run.notes.append(f"log.jsonl: {odd:,} records say no nimg and were left out.")


def _extend(spans: list[Span], record: dict[str, Any], nimg: int) -> None:
    """Let the phases seen so far reach to this record; drop those that a resumed job went back behind."""
    phase = record.get("phase")
    if not isinstance(phase, str):
        return
    while spans and spans[-1].start > nimg:
        spans.pop()
    known = next((index for index, span in enumerate(spans) if span.phase == phase), None)
    if known is None:
        if spans:
            spans[-1].end = nimg if not spans[-1].ended else spans[-1].end
        # A record is written after its step: without an event the phase began where the one before it ended.
        start = nimg if record.get("kind") == "phase" else (spans[-1].end if spans else 0)
        spans.append(Span(phase, as_whole(record.get("resolution")), start, nimg))
    else:
        del spans[known + 1 :]
        spans[-1].end = nimg
    if record.get("kind") == "phase":
        spans[-1].ended = record.get("event") == "end"


def read_metrics(path: Path, notes: list[str]) -> list[Metric]:
    """The figures of a ``metrics.jsonl``; what cannot be used is told in ``notes``."""
    found: dict[tuple[Any, ...], Metric] = {}
    odd = 0
    for record in records(path, notes):
        name, value, nimg = record.get("name"), as_number(record.get("value")), as_whole(record.get("nimg") or 0)
        if not isinstance(name, str) or value is None or nimg is None:
            odd += 1
            continue
        by_class = record.get("per_class")
        protocol = record.get("protocol") if isinstance(record.get("protocol"), dict) else {}
        checkpoint = record.get("checkpoint")
        metric = Metric(
            name=name,
            value=_finite(value),
            nimg=nimg,
            phase=str(record.get("phase") or ""),
            moment=str(record.get("moment") or ""),
            resolution=as_whole(record.get("resolution")),
            protocol=dict(protocol or {}),
            checkpoint=None if checkpoint is None else str(checkpoint),
            per_class=tuple(_finite(each) for each in by_class) if isinstance(by_class, list) else (),
            standard_error=_finite(record.get("standard_error")),
        )
        key = (name, nimg, metric.moment, metric.resolution, json.dumps(protocol, sort_keys=True))
        found.pop(key, None)  # measured again: the later one counts, at its place in the file
        found[key] = metric
    if odd:
        notes.append(f"{path.name}: {odd:,} records have no name or value and were left out.")
    return list(found.values())


def _finite(value: Any) -> float:
    found = as_number(value)
    return found if found is not None and abs(found) < LARGEST else math.nan


def _read_grids(run: Run) -> None:
    samples = run.folder / "samples"
    inside, gone = run.folder.resolve(), 0
    for record in records(samples / "index.jsonl", run.notes):
        nimg, file = as_whole(record.get("nimg")), record.get("file")
        if nimg is None or not isinstance(file, str):
            continue
        places = [path for path in (samples / file, run.folder / file) if path.is_file()]
        if not places or not places[0].resolve().is_relative_to(inside):
            gone += 1
            continue
        resolution, event = as_whole(record.get("resolution")), str(record.get("event") or "")
        run.grids.append(Grid(places[0], nimg, str(record.get("phase") or ""), resolution, event))
    if gone:
        run.notes.append(f"samples/index.jsonl: {gone:,} of its images are not in the run folder.")
    if (samples / "reals.png").is_file():
        run.reals = samples / "reals.png"


def last_grids(grids: list[Grid]) -> list[Grid]:
    """For each phase, in order, its grid with event "end", else its latest."""
    best: dict[str, Grid] = {}
    for grid in grids:
        held = best.get(grid.phase)
        if held is None or (grid.event == "end", grid.nimg) >= (held.event == "end", held.nimg):
            best[grid.phase] = grid
    return sorted(best.values(), key=lambda grid: grid.nimg)
