"""A profile as it is kept in ``profile/profile.json``; torch is not imported here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Part:
    """A named part of a step.

    Attributes:
        seconds: of the host, a step.
        share: of the step's time, in [0, 1].
        device_seconds: what the device computed of it, a step, wherever the host was by then.
        idle_seconds: in which the device computed nothing while the host was in this part, a step.
    """

    name: str
    seconds: float
    share: float
    device_seconds: float = 0.0
    idle_seconds: float = 0.0


@dataclass(frozen=True)
class Operation:
    """All calls of one operation or kernel.

    Attributes:
        calls: a step.
        seconds: of its own, without what it calls, a step.
        share: of the step's time; threads and streams run beside one another, so that the sum may pass 1.
    """

    name: str
    calls: float
    seconds: float
    share: float


@dataclass(frozen=True)
class Wait:
    """All calls of one kind at which the host waits for the device.

    Attributes:
        calls: a step.
        seconds: from call to return, a step.
        part: of a step, in which most of them were made.
    """

    name: str
    calls: float
    seconds: float
    part: str


@dataclass(frozen=True)
class Device:
    """How a GPU was used.

    Attributes:
        busy: share of the time in which anything ran on it, in [0, 1].
        launches: kernels, copies and fills, a step.
        seconds_each: mean length of one.
        longest_gap_seconds: in which nothing ran.
    """

    busy: float
    launches: float
    seconds_each: float
    longest_gap_seconds: float


@dataclass(frozen=True)
class Figures:
    """What one process's trace says.

    Attributes:
        steps: how many were recorded.
        seconds: a step, under the profiler: the mean, of which shares are taken.
        median_seconds: the median step.
        parts: by time; their shares add up to 1.
        operations: of the host, the most costly first.
        kernels: of the device, likewise.
        waits: most frequent first.
        device: None where there is none but the CPU.
    """

    steps: int
    seconds: float
    median_seconds: float
    parts: tuple[Part, ...]
    operations: tuple[Operation, ...]
    kernels: tuple[Operation, ...]
    waits: tuple[Wait, ...]
    device: Device | None


@dataclass(frozen=True)
class Recording:
    """What was recorded.

    Attributes:
        asked: steps that were asked for.
        warm_up: steps before them that were not recorded.
        first_step: the first recorded one, counted from the run's beginning.
        phase: name of the phase.
        resolution: of the phase; None for points.
        batch_size: of all processes together.
        device: cpu or cuda.
        seconds_before: a step, without the profiler: median of the warm-up steps; None without any.
    """

    asked: int
    warm_up: int
    first_step: int
    phase: str
    resolution: int | None
    batch_size: int
    device: str
    seconds_before: float | None


@dataclass(frozen=True)
class Rank:
    """One process: seconds a step, and those of them in which it waited for data; None where it kept no trace."""

    rank: int
    seconds: float | None
    data_wait_seconds: float | None


@dataclass(frozen=True)
class Profile:
    """All of it; ``figures`` are those of rank 0."""

    recording: Recording
    figures: Figures
    ranks: tuple[Rank, ...]

    def plain(self) -> dict[str, Any]:
        """As it is written to JSON."""
        return asdict(self)


def read_profile(path: Path) -> Profile:
    """The profile in a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no profile.
    """
    from pydantic import TypeAdapter

    return TypeAdapter(Profile).validate_json(path.read_bytes())
