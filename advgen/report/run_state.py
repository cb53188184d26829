"""How a run is, as far as its files tell, without reading all of them: for lists of many runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from advgen.report.data import Metric, read_metrics
from advgen.report.lines import as_whole
from advgen.report.settings import settings_of
from advgen.runtime.run_folder import RunFolder

State = Literal["running", "finished", "stopped", "failed"]
_TAIL_BYTES = 65_536


@dataclass(frozen=True)
class RunState:
    """How a run is.

    Attributes:
        folder: of the run.
        state: running: a process holds the folder's lock. finished: all images were seen. failed: the newest training
            ended with an error that it could log. stopped: none of these, so also killed without a word.
        nimg: images seen, as logged.
        total_nimg: that it is to see; None where neither run.json nor config.yaml tells.
        updated: when its log was last written, seconds since the epoch; None without a log.
        metrics: the newest figure of each metric, of trained networks; of their averages where both are there.
    """

    folder: Path
    state: State
    nimg: int
    total_nimg: int | None
    updated: float | None
    metrics: tuple[Metric, ...]


def state_of(folder: Path) -> RunState:
    """Look at a run folder.

    Raises:
        UserError: it is none.
    """
    names = RunFolder(folder).require()
    nimg = 0
    for line in reversed(_tail(names.log)):
        record = _json(line)
        if isinstance(record, Mapping) and (seen := as_whole(record.get("nimg"))) is not None:
            nimg = seen
            break
    total = _total(names)
    if names.busy():
        state: State = "running"
    elif total is not None and nimg >= total:
        state = "finished"
    else:
        state = "failed" if _failed(folder) else "stopped"
    updated = names.log.stat().st_mtime if names.log.is_file() else None
    latest: dict[str, Metric] = {}
    for metric in read_metrics(names.metrics, []):
        if metric.moment not in ("floor", "untrained"):
            held = latest.get(metric.name)
            if held is None or (metric.nimg, metric.weights != "raw") >= (held.nimg, held.weights != "raw"):
                latest[metric.name] = metric
    return RunState(folder, state, nimg, total, updated, tuple(latest.values()))


def find_runs(folder: Path) -> list[Path]:
    """The run folders in a folder, by name; the folder itself if it is one."""
    if (folder / "config.yaml").is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob("*/config.yaml")) if folder.is_dir() else []


def _total(names: RunFolder) -> int | None:
    about = _json(names.provenance.read_bytes()) if names.provenance.is_file() else None
    told = as_whole(about.get("total_nimg")) if isinstance(about, Mapping) and "total_nimg" in about else None
    if told is not None:
        return told
    kimg = settings_of(names.config.read_text(encoding="utf-8", errors="replace")).get("game.total_kimg")
    return round(1000 * kimg) if isinstance(kimg, (int, float)) else None


def _failed(folder: Path) -> bool:
    """Whether the newest training that the main rank's log tells of ended with an error."""
    for line in reversed(_tail(folder / "logs" / "rank-00000.log")):
        if b"advgen.trainer: rank 0 " in line:
            return b" ERROR " in line
    return False


def _tail(path: Path) -> list[bytes]:
    """The last lines of a file, none where there is no file; the first of them may be cut."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        return file.read().splitlines()


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
