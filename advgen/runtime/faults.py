"""What ends a run that cannot go on: ranks that are gone or hang, and numbers that are none."""

from __future__ import annotations

import faulthandler
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch.distributed as dist

from advgen.errors import LostContact, reason_of

log = logging.getLogger(__name__)

# Beyond the collectives' own limit, so that a rank that only waits for another one gets to say so itself.
GRACE_SECONDS = 30.0
HUNG = 71


def lost_contact(error: BaseException, limit_seconds: float) -> LostContact | None:
    """What to tell where ``error`` came out of a collective; None for any other error."""
    text = str(error)
    signs = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL", "Socket", "Broken pipe")
    if not isinstance(error, dist.DistError) and not (
        isinstance(error, RuntimeError) and any(sign in text for sign in signs)
    ):
        return None
    reason = reason_of(error)[:200].rstrip(".")
    return LostContact(
        f"another process of this run has ended, or did not answer for {limit_seconds:g} s "
        f"(training.collective_timeout_seconds): {reason}. See the logs of all ranks; start the run again to go on "
        "from its last checkpoint."
    )


class Watchdog:
    """Ends the process when no step has been made for too long; a thread, so it works while the rank hangs.

    Args:
        limit_seconds: between two beats.
        name: of the rank, for the message.
        tell: is told the message before the process ends, for a few seconds at most.
    """

    def __init__(self, limit_seconds: float, name: str, tell: Callable[[str], None] | None = None) -> None:
        self._limit, self._name, self._tell = limit_seconds, name, tell
        self._last = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self.beat()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def beat(self) -> None:
        """All is well."""
        self._last = time.monotonic()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """No step is expected meanwhile."""
        self._last = math.inf
        try:
            yield
        finally:
            self.beat()

    def _watch(self) -> None:
        while not self._ended.wait(min(self._limit / 10, 5.0)):
            waited = time.monotonic() - self._last
            if waited > self._limit:
                text = f"{self._name} has made no step for {waited:.0f} s and ends itself; where it hung stands below."
                log.error(text)
                sys.stderr.write(f"advgen: {text}\n")
                faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
                sys.stderr.flush()
                if self._tell is not None:  # it may hang, too
                    telling = threading.Thread(target=self._tell, args=(text,), daemon=True)
                    telling.start()
                    telling.join(timeout=5.0)
                os._exit(HUNG)
