"""A wish to stop, from a person, a cluster or a wall time: remembered, and granted at a step boundary."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any, Self

# "Stopped before the end, with a checkpoint: start me again." 128 + 15 of a SIGTERM means the same.
REQUEUE = 85

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest:
    """While entered, SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 set a flag; a second SIGINT interrupts at once.

    Args:
        max_minutes: after which to stop as well, counted from now; None for no limit.

    Attributes:
        signal: the signal that came, or None.
    """

    def __init__(self, max_minutes: float | None = None) -> None:
        self.signal: signal.Signals | None = None
        self._deadline = None if max_minutes is None else time.monotonic() + 60.0 * max_minutes
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)

    @property
    def asked(self) -> bool:
        """Whether a signal came, or time is up."""
        return self.signal is not None or (self._deadline is not None and time.monotonic() >= self._deadline)

    @property
    def by_person(self) -> bool:
        """Whether Ctrl-C asked, and not a cluster or a wall time, which start the job again."""
        return self.signal == signal.SIGINT

    @property
    def exit_code(self) -> int:
        """130 and 143 for SIGINT and SIGTERM, as shells report them; 85 for whatever else asks to be started again."""
        if self.signal == signal.SIGINT:
            return 130
        return 143 if self.signal == signal.SIGTERM else REQUEUE
