"""Each rank's own log file: what only one of many processes knows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class _FileHandler(logging.FileHandler):
    """A full disk must not put a traceback of the logging itself before the error that is told."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Left out."""


@contextmanager
def rank_log(folder: Path, rank: int) -> Iterator[None]:
    """Append the project's log records to ``folder/logs/rank-RRRRR.log`` while entered."""
    path = folder / "logs" / f"rank-{rank:05d}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("advgen")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        with suppress(OSError):
            handler.close()
