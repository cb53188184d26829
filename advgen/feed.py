"""The trainer's batches: which samples a step takes, read ahead and brought to the device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from advgen.clock import Clock
from advgen.data.loader import Loader
from advgen.data.parts import Replaced
from advgen.data.stream import Stream
from advgen.game import Batch
from advgen.runtime.transfer import Transfer
from advgen.setting import Reading
from advgen.timeline import Timeline
from advgen.turns import Table

_log = logging.getLogger(__name__)


class Feed:
    """Batches of a stream for the phases of a run, this rank's share of each."""

    def __init__(self, stream: Stream, timeline: Timeline, table: Table, reading: Reading) -> None:
        self._stream, self._timeline, self._table, self._reading = stream, timeline, table, reading
        self._bad: set[str] = set()  # places of samples that were replaced, in all phases

    @contextmanager
    def batches(self, clock: Clock, told: Callable[[Replaced], None]) -> Iterator[Transfer[Batch]]:
        """All batches from the clock to its phase's end, on the device.

        Args:
            clock: where the run stands.
            told: is called with each sample that is replaced, once.
        """

        def noted(bad: Replaced) -> None:
            _log.warning("%s", bad)
            told(bad)

        device = self._table.world.device
        with Loader(
            self._stream,
            self._requests(clock),
            threads=self._reading.threads,
            workers=self._reading.workers,
            pin=device.type == "cuda",
            bad_samples=self._reading.bad_samples,
            known=self._bad,
            told=noted,
        ) as loader:
            yield Transfer(loader, self._table.batch, Batch.tensors, device)

    def first(self, index: int, count: int) -> Iterator[Batch]:
        """Whole batches of phase ``index`` from the beginning of the stream, the same on every rank."""
        phase = self._timeline.phases[index]
        for start in range(0, count, phase.batch_size):
            positions = np.arange(start, min(start + phase.batch_size, count))
            yield self._table.batch(self._stream.read(positions, phase.resolution))

    def _requests(self, clock: Clock) -> Iterator[tuple[np.ndarray, int | None]]:
        """Positions of the batches; computed ahead, as they depend on nothing else."""
        index, phase = clock.phase, self._timeline.phases[clock.phase]
        while clock.phase == index:
            for number in range(phase.batches_a_step):
                start = clock.samples + number * phase.batch_size
                yield self._table.world.positions(start, phase.batch_size).numpy(), phase.resolution
            clock = self._timeline.advance(clock)
