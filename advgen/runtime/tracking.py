"""The run's logs: ``log.jsonl`` always, and trackers (W&B, TensorBoard) that mirror it."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from advgen.errors import UserError, reason_of
from advgen.runtime.config import TrackingConfig
from advgen.runtime.history import Job

_log = logging.getLogger(__name__)


class JsonLines:
    """Appends JSON objects, one a line; knows its length, so that a resumed run can cut it back."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record, for others to see at once."""
        try:
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()
        except OSError as error:  # a write does not say where it failed
            raise OSError(error.errno, error.strerror, self._file.name) from None

    def sync(self) -> int:
        """Make everything so far durable; returns the length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def cut(self, length: int) -> None:
        """Forget what comes after ``length`` bytes; a file that is shorter (removed by hand, say) stays as it is."""
        self._file.truncate(min(length, self.sync()))
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close; every record was flushed when it was written, so a disk that is full by now is no news."""
        with suppress(OSError):
            self._file.close()


@dataclass(frozen=True)
class Subject:
    """What a tracker shows.

    Attributes:
        folder: the run's.
        name: of the run.
        recipe: resolved, as plain values.
        job: whose records.
    """

    folder: Path
    name: str
    recipe: Mapping[str, Any]
    job: Job = "training"


class Mirror(Protocol):
    """A service that shows scalars and pictures beside the run folder's own logs.

    What it shows already it leaves out, so that a run that goes on from a checkpoint doubles nothing.
    """

    def scalars(self, values: Mapping[str, float], nimg: int) -> None:
        """Show scalars at ``nimg`` images."""
        ...

    def picture(self, name: str, path: Path, nimg: int) -> None:
        """Show a picture at ``nimg`` images."""
        ...

    def catch_up(self) -> None:
        """Show what the run folder's logs say and this does not show yet."""
        ...

    def checkpoints(self, paths: Sequence[Path]) -> None:
        """Name checkpoints that are to stay."""
        ...

    def alert(self, title: str, text: str) -> None:
        """Tell a person."""
        ...

    def preempting(self) -> None:
        """The job was asked to stop, and will be started again."""
        ...

    def close(self, exit_code: int = 0) -> None:
        """Send or store what is left."""
        ...


class Mirrors:
    """Any number of mirrors as one; one that fails is left out from there on, with a warning, and nothing is raised.

    Before :meth:`open` they are told nothing: a process that has no right to a run is not to touch what shows it.

    Args:
        openings: what makes each mirror, by the name for the warning.
    """

    def __init__(self, openings: Mapping[str, Callable[[], Mirror]]) -> None:
        self._openings = openings
        self._mirrors: dict[str, Mirror] = {}

    def open(self) -> None:
        """Open each; one that cannot be opened is left out.

        Raises:
            UserError: what is asked for is not installed.
        """
        for name, opening in self._openings.items():
            try:
                self._mirrors[name] = opening()
            except UserError:  # what is asked for is not there: better told before hours of training
                raise
            except Exception as error:
                _warn(name, error)

    def scalars(self, values: Mapping[str, float], nimg: int) -> None:
        """See :class:`Mirror`, as of the methods below."""
        self._each(lambda mirror: mirror.scalars(values, nimg))

    def picture(self, name: str, path: Path, nimg: int) -> None:
        """A picture."""
        self._each(lambda mirror: mirror.picture(name, path, nimg))

    def catch_up(self) -> None:
        """What is missing."""
        self._each(lambda mirror: mirror.catch_up())

    def checkpoints(self, paths: Sequence[Path]) -> None:
        """Checkpoints that stay."""
        self._each(lambda mirror: mirror.checkpoints(paths))

    def alert(self, title: str, text: str) -> None:
        """A message to a person."""
        self._each(lambda mirror: mirror.alert(title, text))

    def preempting(self) -> None:
        """To be started again."""
        self._each(lambda mirror: mirror.preempting())

    def close(self, exit_code: int = 0) -> None:
        """The end."""
        closing, self._mirrors = self._mirrors, {}
        for name, mirror in closing.items():
            try:
                mirror.close(exit_code)
            except Exception as error:
                _warn(name, error)

    def _each(self, tell: Callable[[Mirror], None]) -> None:
        for name, mirror in list(self._mirrors.items()):
            try:
                tell(mirror)
            except Exception as error:
                self._mirrors.pop(name, None)
                _warn(name, error)
                with suppress(Exception):  # one that is left open would hold up the end of the process
                    mirror.close(1)


def _warn(name: str, error: Exception) -> None:
    _log.warning(
        "%s failed and is left out from here on: %s. The run and its logs go on; `advgen sync` sends them later.",
        name,
        reason_of(error),
    )


def mirrors_of(config: TrackingConfig, subject: Subject) -> Mirrors:
    """The mirrors that the recipe asks for, not opened yet."""
    openings: dict[str, Callable[[], Mirror]] = {}
    if config.wandb != "disabled":

        def wandb() -> Mirror:
            from advgen.runtime.wandb_run import open_run

            return open_run(config, subject)

        openings["W&B"] = wandb
    if config.tensorboard:

        def tensorboard() -> Mirror:
            from advgen.runtime.tensorboard_files import TensorBoard

            return TensorBoard(subject)

        openings["TensorBoard"] = tensorboard
    return Mirrors(openings)


class EvaluationMirror:
    """Shows a run's ``metrics.jsonl``, by one process at a time: where several evaluate, the first does it for all.

    What those add after it has ended is shown by the next evaluation or `advgen sync`.
    """

    def __init__(self, config: TrackingConfig, subject: Subject) -> None:
        self._lock = (subject.folder / ".tracking.lock").open("a")
        self._mirrors = Mirrors({})
        with suppress(BlockingIOError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._mirrors = mirrors_of(config, subject)
            self._mirrors.open()

    def catch_up(self) -> None:
        """Show the records that are not shown yet."""
        self._mirrors.catch_up()

    def close(self) -> None:
        """Send or store what is left."""
        self._mirrors.close()
        self._lock.close()
