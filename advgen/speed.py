"""How fast a training is: images a second, and what that is of what the machine could do."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from advgen.clock import Stopwatch
from advgen.game import Phase
from advgen.runtime.ceiling import ceiling
from advgen.runtime.world import World

_log = logging.getLogger(__name__)


class Speed:
    """Times the steps of a training, and makes records of their pace.

    Attributes:
        watch: of the steps, without pauses for samples and checkpoints.
    """

    def __init__(self, flops: Callable[[int], float] | None, world: World, precision: str) -> None:
        """
        Args:
            flops: of a step of a phase on all ranks together, by the phase's index; None to leave them out.
            world: the ranks; all are taken to be as fast as this one.
            precision: of the training (:attr:`advgen.runtime.config.TrainingConfig.precision`).
        """
        self.watch = Stopwatch()
        self._flops, self._world, self._precision = flops, world, precision
        self._ceiling = 0.0
        self._most = 0
        self._counts: dict[int, float] = {}

    def record(self, index: int, phase: Phase) -> dict[str, float] | None:
        """What the log says of the steps since the last record; None before two seconds of them.

        Args:
            index, phase: in which they were.

        Returns:
            ``images_per_second`` (all ranks together), ``seconds_per_kimg``, ``data_wait`` (share of the time, of this
            rank), ``tflops`` (10^12 FLOPs a second, all ranks together) and ``mfu`` (model FLOP utilisation, of the
            machine's ceiling), on a GPU ``gpu_memory_gib``, and ``elapsed_seconds`` of all steps.
        """
        pace = self.watch.reading(every_seconds=2.0)
        if pace is None:
            return None
        rate = pace.images_per_second
        record = {"images_per_second": rate, "seconds_per_kimg": 1000.0 / rate, "data_wait": pace.waited}
        if self._world.device.type == "cuda":  # before the ceiling is measured, which takes memory of its own
            self._most = max(self._most, torch.cuda.max_memory_allocated(self._world.device))
            record["gpu_memory_gib"] = self._most / 2**30
        if self._flops is not None and self._world.main:
            record |= self._effort(index, rate / phase.batch_size)
        return record | {"elapsed_seconds": round(self.watch.total, 3)}

    def _effort(self, index: int, steps_per_second: float) -> dict[str, float]:
        """FLOPs are counted once a phase, and the machine's ceiling once; neither takes random numbers."""
        if index not in self._counts:
            self._counts[index] = self._counted(index)
        flops = self._counts[index] * steps_per_second
        if not flops:
            return {}
        if not self._ceiling:
            self._ceiling = self._measured()
        share = flops / (self._ceiling * self._world.size)
        return {"tflops": flops / 1e12} | ({"mfu": share} if share else {})

    def _measured(self) -> float:
        device = self._world.device
        try:
            return ceiling(device, self._precision)
        except torch.OutOfMemoryError as error:  # a full GPU trains on without the figure
            _log.warning("the machine's ceiling is not measured: %s", error)
            return float("inf")
        finally:
            if device.type == "cuda":  # what it took is not the training's
                torch.cuda.reset_peak_memory_stats(device)

    def _counted(self, index: int) -> float:
        assert self._flops is not None
        try:
            return self._flops(index)
        except Exception as error:  # a figure for people must not end a run, whatever a game's loss does
            _log.warning("the FLOPs of phase %d are not counted: %s: %s", index, type(error).__name__, error)
            return 0.0
