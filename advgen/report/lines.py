"""Lines of a log, and the numbers in them, as they may be after a job was killed or a loss became NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LARGEST = 3.0e38
"""Beyond float32 a value counts as not finite, so that sums over the log stay finite."""


def records(path: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file of lines; none where there is no file. A torn last line is no mistake."""
    if not path.is_file():
        return
    bad = 0
    with path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                bad += line.endswith(b"\n") and bool(line.strip())
                continue
            if isinstance(record, dict):
                yield record
            else:
                bad += 1
    if bad:
        notes.append(f"{path.name}: {bad:,} lines could not be read and were left out.")


def as_number(value: Any) -> float | None:
    """A logged number; NaN for null or a text like "Infinity"; None for what is no number at all."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.inf
    except ValueError:
        return None
    return None if isinstance(value, str) and math.isfinite(number) else number


def as_whole(value: Any) -> int | None:
    """A logged whole number; None for what is no finite number."""
    number = None if isinstance(value, str) else as_number(value)
    return None if number is None or not math.isfinite(number) else int(number)
