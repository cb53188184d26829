"""The clock of a run: images seen, never epochs; and wall-clock rates for people."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """Where a run stands. Everything else about its position is a function of this and the recipe.

    Attributes:
        step: steps done.
        nimg: images seen: each step adds the phase's batch size.
        samples: samples taken from the stream; more than nimg where a player repeats with fresh batches.
        phase: index of the current phase.
        phase_step: steps done in this phase.
        held_nimg: nimg when schedules were last updated (a phase may hold them for some steps).
    """

    step: int = 0
    nimg: int = 0
    samples: int = 0
    phase: int = 0
    phase_step: int = 0
    held_nimg: int = 0


def duration(seconds: float) -> str:
    """Seconds as a person reads them: ``48s``, ``7m 02s``, ``3h 20m``, ``2d 05h``."""
    whole = max(0, round(seconds))
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d {h:02d}h"
    if hours:
        return f"{hours}h {m:02d}m"
    return f"{minutes}m {s:02d}s" if minutes else f"{s}s"


@dataclass(frozen=True)
class Pace:
    """How fast the steps since the last reading were.

    Attributes:
        images_per_second: of all ranks together.
        waited: share of the time, in [0, 1], in which this process waited for data.
    """

    images_per_second: float
    waited: float


class Stopwatch:
    """Time spent in steps, without pauses for samples and checkpoints."""

    def __init__(self) -> None:
        self.total = 0.0
        self.recent_rate = 0.0
        self._began = self._seconds = self._waited = 0.0
        self._images = 0

    def start(self) -> None:
        """A step begins."""
        self._began = time.perf_counter()

    def add(self, images: int, waited: float = 0.0) -> None:
        """A step of so many images has ended, in which so many seconds were spent waiting for data."""
        spent = time.perf_counter() - self._began
        self.total += spent
        self._seconds += spent
        self._waited += waited
        self._images += images
        self.recent_rate = self._images / max(self._seconds, 1e-9)

    def reading(self, every_seconds: float) -> Pace | None:
        """The pace since the last reading, once so many seconds of steps have passed; else None."""
        if self._seconds < every_seconds:
            return None
        pace = Pace(self.recent_rate, min(self._waited / max(self._seconds, 1e-9), 1.0))
        self._seconds, self._waited, self._images = 0.0, 0.0, 0
        return pace
