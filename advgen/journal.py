"""What a run tells of its progress while it trains: its logs, its pictures, and the trackers beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from advgen.clock import Clock
from advgen.game import Phase, Progress
from advgen.pictures import Pictures
from advgen.runtime.checkpoint import lasting_checkpoints
from advgen.runtime.history import shown
from advgen.runtime.run_folder import RunFolder
from advgen.runtime.tracking import JsonLines, Mirrors

_LOG, _SAMPLES = "log.jsonl", "samples/index.jsonl"


class Journal:
    """Writes and shows on the first rank, and does nothing on the others.

    Args:
        folder: of the run.
        mirror: the trackers.
        pictures: draws them.
        columns: of a grid of samples.
        writes: whether this is the first rank.
    """

    def __init__(self, folder: RunFolder, mirror: Mirrors, pictures: Pictures, columns: int, writes: bool) -> None:
        self.folder, self.mirror = folder, mirror
        self._pictures, self._columns, self._writes = pictures, columns, writes
        self._logs: dict[str, JsonLines] = {}

    def open(self) -> None:
        """Open the logs, to append to them, and the trackers: once no other process trains in the folder."""
        if self._writes:
            self._logs = {name: JsonLines(self.folder.path / name) for name in (_LOG, _SAMPLES)}
            self.mirror.open()

    def close(self) -> None:
        """Close the logs; whoever knows how the run ended closes the trackers."""
        for log in self._logs.values():
            log.close()

    def lengths(self) -> dict[str, int]:
        """Make the logs durable; their lengths in bytes, for :meth:`cut`."""
        return {name: log.sync() for name, log in self._logs.items()}

    def cut(self, lengths: Mapping[str, int] | None) -> None:
        """Forget what was logged after a checkpoint with these lengths; None: all of it."""
        for name, log in self._logs.items():
            log.cut(0 if lengths is None else lengths[name])

    def log(self, record: Mapping[str, Any], clock: Clock, phase: Phase) -> None:
        """Log a record that has a ``kind``."""
        if self._writes:
            place = {"step": clock.step, "nimg": clock.nimg, "phase": phase.name, "resolution": phase.resolution}
            self._logs[_LOG].write({"kind": record["kind"], **place, **record})

    def show(self, record: Mapping[str, Any], clock: Clock, phase: Phase) -> None:
        """Log a record of figures, and show it to the trackers."""
        self.log(record, clock, phase)
        if values := shown(record):
            self.mirror.scalars(values, clock.nimg)

    def show_checkpoints(self) -> None:
        """Tell the trackers of the checkpoints that stay: the newest, and those at phase ends."""
        if self._writes:
            self.mirror.checkpoints(lasting_checkpoints(self.folder.checkpoints))

    def draw_reals(self, clock: Clock) -> None:
        """A grid of real images."""
        if self._writes:
            self.mirror.picture("reals", self._pictures.reals(), clock.nimg)

    def draw(self, networks: Mapping[str, nn.Module], progress: Progress, clock: Clock, event: str) -> None:
        """A grid of samples from the fixed latents, and what the game makes of real images.

        Args:
            networks: to draw with.
            progress: where they are looked at.
            clock: where the run stands.
            event: start, interval or end.
        """
        if not self._writes:
            return
        name = f"{clock.nimg:012d}{'-start' if event == 'start' else ''}"
        path = self._pictures.draw(networks, progress, name)
        if path is None:
            return
        record = {"nimg": clock.nimg, "phase": progress.phase.name, "resolution": progress.phase.resolution}
        self._logs[_SAMPLES].write({**record, "file": path.name, "columns": self._columns, "event": event})
        self.mirror.picture("samples", path, clock.nimg)
        for kind, of_reals in self._pictures.of_reals(networks, progress, name).items():
            file = f"{self.folder.samples.name}/{of_reals.name}"
            self.log({"kind": "picture", "name": kind, "file": file}, clock, progress.phase)
            self.mirror.picture(kind, of_reals, clock.nimg)
