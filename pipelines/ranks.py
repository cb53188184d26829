"""What stages have in common that may run as several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def among_ranks(timeout_seconds: float) -> Iterator[None]:
    """Run a stage's work; where contact with other processes is lost, that is what is told.

    Of several processes each takes one thread where nothing else is said, as torch reads when it is imported: enter
    this before.

    Args:
        timeout_seconds: of collectives, for the message.

    Raises:
        LostContact: another process has ended, or does not answer.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    from advgen.runtime.faults import lost_contact

    try:
        yield
    except Exception as error:
        lost = lost_contact(error, timeout_seconds)
        if lost is None:
            raise
        raise lost from error
