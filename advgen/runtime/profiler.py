"""Some steps of a run under torch.profiler: between two steps of the training, which goes on as without it."""

from __future__ import annotations

import gzip
import json
import logging
import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from advgen.files import atomic, write_json, write_text
from advgen.game import Phase
from advgen.profiling.record import Figures, Profile, Rank, Recording
from advgen.profiling.trace import STEP, read_events, summarise
from advgen.profiling.words import line, page
from advgen.runtime.world import World
from advgen.watch import Watch

WARM_UP = 10
"""Steps that are left out before the recorded ones: compilation, caches and the allocator are then settled."""
DATA_WAIT = "data/wait"
"""The part of a step in which it waits for the loader."""

_log = logging.getLogger(__name__)
_unnamed = nullcontext()


def label(name: str) -> AbstractContextManager[Any]:
    """Names what is done within it as a part of a step; without a running profiler it does nothing."""
    return record_function(name) if torch.autograd._profiler_enabled() else _unnamed  # pyright: ignore[reportPrivateImportUsage]


class Profiler:
    """Records steps of the first phase that it is shown, and leaves the files in a folder.

    Args:
        steps: how many; None for none, and then it does nothing.
        folder: for ``rank-R.trace.json.gz``, ``profile.json`` and ``profile.md``.
        world: the ranks; each records itself.
    """

    def __init__(self, steps: int | None, folder: Path, world: World) -> None:
        self._asked, self._folder, self._world = steps or 0, folder, world
        self._begun, self._warm_up = 0, 0
        self._before: list[float] = []
        self._since = 0.0
        self._recorder: profile | None = None
        self._open = ExitStack()  # the annotation of the present step

    @contextmanager
    def watching(self, phase: Phase, first_step: int, left: int, watch: Watch) -> Iterator[None]:
        """Record within a phase; :meth:`step` is to be called where each of its steps begins, on all ranks.

        What was recorded is written as soon as there are enough steps, or when the phase or the job ends before that.
        An error of the training leaves nothing.

        Args:
            phase: that is played.
            first_step: the next one, counted from the run's beginning.
            left: steps that the phase has left, at least.
            watch: is told where the files lie, on the first rank.
        """
        if not self._asked:
            yield
            return
        self._warm_up = min(WARM_UP, max(0, left - self._asked))
        self._phase, self._first_step, self._watch = phase, first_step, watch
        try:
            yield
            if self._asked:
                self._finish()
        finally:
            self._stop()
            self._asked = 0

    def step(self) -> None:
        """A step begins; the one before it has ended, with all that belongs to it."""
        if not self._asked:
            return
        self._open.close()
        if self._recorder is None and self._begun:
            self._before.append(time.perf_counter() - self._since)
        if self._begun == self._warm_up + self._asked:
            self._finish()
            return
        if self._recorder is None and self._begun >= self._warm_up - 1:
            # One step early: the first one under a profiler is slower than those that follow. It gets no annotation.
            self._recorder = profile(activities=_activities(self._world.device))
            self._recorder.start()
        if self._begun == self._warm_up and self._world.device.type == "cuda":
            torch.cuda.synchronize(self._world.device)  # what earlier steps left to do is not this one's
        if self._begun >= self._warm_up:
            self._open.enter_context(record_function(STEP))
        self._begun += 1
        self._since = time.perf_counter()

    def _stop(self) -> profile | None:
        """Let go of the recorder, stopped; None if there was none."""
        self._open.close()
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.stop()
        return recorder

    def _finish(self) -> None:
        """Write what was recorded; a collective."""
        recorder, recorded = self._stop(), self._begun - self._warm_up
        if recorder is None or recorded < 1:
            if self._world.main:
                self._watch.told(f"{self._folder}: the job ended before a step was recorded")
            return
        figures: Figures | None = None
        try:
            figures = self._keep(recorder)
        except (OSError, ValueError) as error:  # ValueError: of a trace that a full disk cut short
            self._failed(error)
        ranks = self._ranks(figures)
        if figures is not None and self._world.main:
            about = Recording(
                self._asked,
                self._warm_up,
                self._first_step + self._warm_up,
                self._phase.name,
                self._phase.resolution,
                self._phase.batch_size,
                self._world.device.type,
                statistics.median(self._before) if self._before else None,
            )
            self._tell(Profile(about, figures, ranks))
        self._asked = 0

    def _keep(self, recorder: profile) -> Figures:
        """Write this rank's trace, and read its figures."""
        with tempfile.TemporaryDirectory() as place:
            raw = Path(place) / "trace.json"
            recorder.export_chrome_trace(str(raw))
            trace = raw.read_bytes()
        figures = summarise(read_events(json.loads(trace)["traceEvents"]))
        with atomic(self._folder / f"rank-{self._world.rank}.trace.json.gz") as temporary:
            temporary.write_bytes(gzip.compress(trace, 6))
        return figures

    def _ranks(self, figures: Figures | None) -> tuple[Rank, ...]:
        """A line for each rank."""
        row = [math.nan, math.nan]
        if figures is not None:
            row = [figures.seconds, sum(part.seconds for part in figures.parts if part.name == DATA_WAIT)]
        mine = torch.tensor([[self._world.rank, *row]], dtype=torch.float64, device=self._world.device)
        found = sorted(self._world.gather(mine).tolist())
        return tuple(Rank(int(rank), *(None if math.isnan(v) else v for v in values)) for rank, *values in found)

    def _failed(self, error: Exception) -> None:
        """A profile that cannot be written is no reason to end a training."""
        _log.warning("%s: could not be written (%s)", self._folder, error)
        if self._world.main:
            self._watch.warned(f"{self._folder}: the profile could not be written ({error}); the training goes on")

    def _tell(self, profile: Profile) -> None:
        try:
            write_json(self._folder / "profile.json", profile.plain())
            write_text(self._folder / "profile.md", page(profile))
        except OSError as error:
            self._failed(error)
            return
        self._watch.told(f"{self._folder}: {line(profile)}; see profile.md there")


def _activities(device: torch.device) -> list[ProfilerActivity]:
    if device.type == "cuda":
        return [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    # Kineto would write to the terminal that it found no GPU, and when it starts and stops.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    return [ProfilerActivity.CPU]
