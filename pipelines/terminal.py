"""What a person sees while stages work: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from advgen.clock import duration

if TYPE_CHECKING:
    from advgen.watch import Status

# Names of files may look like markup.
_terminal = Console(highlight=False, soft_wrap=True, markup=False)
console = _terminal if _terminal.is_terminal else Console(highlight=False, soft_wrap=True, markup=False, width=120)


class Counting:
    """A callable (done, total) that shows how far a stage is."""

    def __init__(self, what: str, progress: Progress | None) -> None:
        self._what, self._progress = what, progress
        self._task = None if progress is None else progress.add_task(what, total=None)
        self._told = self._began = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)
        elif time.monotonic() - self._told > 10 or done == total:
            self._told = time.monotonic()
            rate = done / max(self._told - self._began, 1e-9)
            left = f", {_rate(rate)}, {duration((total - done) / rate)} left" if done else ""
            console.print(f"{self._what}: {done:,} of {total:,}{left}")


def _rate(speed: float) -> str:
    return f"{speed:,.{0 if speed >= 10 else 1}f}/s"


class _RateColumn(ProgressColumn):
    """How many are done a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else _rate(task.speed))


@contextmanager
def counting(what: str) -> Iterator[Counting]:
    """Show the progress of a countable piece of work."""
    if not console.is_terminal:
        yield Counting(what, None)
        return
    counts = (BarColumn(), MofNCompleteColumn(), _RateColumn(), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), *counts)
    with Progress(*columns, console=console, transient=True) as progress:
        yield Counting(what, progress)


class TrainingBar:
    """Shows the training; a :class:`advgen.watch.Watch`.

    Time left is that at the present rate: a later phase of a growing network is slower.
    """

    def __init__(self, quiet: bool = False, every_seconds: float = 15.0) -> None:
        self._quiet, self._every = quiet, every_seconds
        self._told = time.monotonic()
        self._progress: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> TrainingBar:
        if console.is_terminal and not self._quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rate]}"))
            self._progress = Progress(*columns, TimeElapsedColumn(), console=console)
            self._progress.start()
            self._task = self._progress.add_task("training", total=None, rate="")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def resumed(self, checkpoint: Path) -> None:
        """Tell where the run goes on."""
        if not self._quiet:
            console.print(f"going on from {checkpoint}")

    def warned(self, text: str) -> None:
        """Tell what is wrong."""
        if not self._quiet:
            console.print(text)

    def told(self, text: str) -> None:
        """Tell it."""
        if not self._quiet:
            console.print(text)

    def step(self, status: Status) -> None:
        """Show the step."""
        if self._quiet:
            return
        now = time.monotonic()
        if self._progress is None and now - self._told < self._every:
            return
        if self._progress is not None and now - self._told < 0.2:
            return
        self._told = now
        phase = status.phase + (f" {status.fade:4.0%}" if status.phase.startswith("fade") else "")
        rate = max(status.images_per_second, 1e-9)
        speed = (
            f"{status.nimg / 1000:.1f} of {status.total_nimg / 1000:.1f} kimg, {rate:.0f} img/s, "
            f"{1000 / rate:.1f} s/kimg, {duration((status.total_nimg - status.nimg) / rate)} left at this rate"
        )
        if self._progress is not None:
            self._progress.update(
                self._task, description=phase, completed=status.nimg, total=status.total_nimg, rate=speed
            )
        else:
            console.print(f"{phase}: {speed}")
