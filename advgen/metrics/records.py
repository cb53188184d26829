"""The records of a run's ``metrics.jsonl``: a figure each, with its whole protocol."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advgen.errors import UserError
from advgen.files import write_text

if TYPE_CHECKING:
    from advgen.metrics.measures import Result

Record = dict[str, Any]
"""``name``, ``nimg``, ``phase``, ``moment``, ``resolution``, ``checkpoint``, ``checkpoint_sha256``, ``protocol``,
``value``, and ``standard_error``, ``per_class`` (by class id, null for a class with too few images) and ``parts`` (by
name) for metrics that have them."""


class Records:
    """The file's records, those that are added included; the file is whole after each.

    Several processes may add to one file, as one that follows a run and one that a person starts.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._known = path, read_records(path)

    def find(self, wanted: Record) -> Record | None:
        """The record that agrees with ``wanted``, a record without its figures, in all that it says."""
        return next((r for r in self._known if all(r.get(key) == value for key, value in wanted.items())), None)

    def add(self, wanted: Record, result: Result) -> Record:
        """Write a record with its figures; returns it, or one that another process has written meanwhile."""
        record = wanted | figures_of(result)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_name(f".{self._path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._known = read_records(self._path)
            if (known := self.find(wanted)) is not None:
                return known
            self._known.append(record)
            write_text(self._path, "".join(json.dumps(each) + "\n" for each in self._known))
        return record


def record_of_images(name: str, moment: str, resolution: int, protocol: Mapping[str, Any]) -> Record:
    """A record of images that no checkpoint has drawn, without its figures."""
    return {
        "name": name,
        "nimg": 0,
        "phase": f"{resolution}x{resolution}",
        "moment": moment,
        "resolution": resolution,
        "checkpoint": None,
        "checkpoint_sha256": None,
        "protocol": dict(protocol),
    }


def figures_of(result: Result) -> Record:
    """What a record says of a result."""
    found: Record = {"value": result.value}
    if result.standard_error is not None:
        found["standard_error"] = result.standard_error
    if result.per_class is not None:
        found["per_class"] = list(result.per_class)
    if result.parts is not None:
        found["parts"] = dict(result.parts)
    return found


def read_records(path: Path) -> list[Record]:
    """The records of a ``metrics.jsonl``; none where there is no file.

    Raises:
        UserError: the file holds something else.
    """
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise UserError(f"{path}: is not a list of JSON records ({error}). Remove it and evaluate again.") from None
