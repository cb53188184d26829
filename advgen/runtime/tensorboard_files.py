"""TensorBoard: event files in the run folder, from which a killed job's last steps are not shown twice."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from advgen.errors import UserError
from advgen.runtime.history import Row, rows
from advgen.runtime.tracking import Subject

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Writes ``RUN/tensorboard/training`` and ``RUN/tensorboard/evaluation``.

    What was written at the last step before a kill may be a part of it: TensorBoard is told to forget that step
    (``purge_step``), and it is written again. Evaluations are few, and written anew each time.

    Attributes:
        known: the last step that is in the files whole; below 0 for none.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self, subject: Subject) -> None:
        writer = require_tensorboard()
        self._subject = subject
        folder = subject.folder / "tensorboard" / subject.job
        last = -1
        if subject.job == "training":
            last = last_step(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        self.known = last - 1
        self._writer = writer(str(folder), purge_step=last if last >= 0 else None)

    def scalars(self, values: Mapping[str, float], nimg: int) -> None:
        """See :class:`advgen.runtime.tracking.Mirror`, as of the methods below."""
        if nimg > self.known:
            self._write(Row(nimg, nimg, values=dict(values)))

    def picture(self, name: str, path: Path, nimg: int) -> None:
        """A picture."""
        if nimg > self.known:
            self._write(Row(nimg, nimg, pictures={name: path}))

    def catch_up(self) -> None:
        """What is missing."""
        self.show(rows(self._subject.folder, self._subject.job, self.known))

    def show(self, found: Iterable[Row]) -> int:
        """Write whole rows; returns how many."""
        count = 0
        for row in found:
            self._write(row)
            self.known = row.step
            count += 1
        self._writer.flush()
        return count

    def checkpoints(self, paths: Sequence[Path]) -> None:
        """TensorBoard knows none."""

    def alert(self, title: str, text: str) -> None:
        """TensorBoard tells nobody."""

    def preempting(self) -> None:
        """Nothing to do."""

    def close(self, exit_code: int = 0) -> None:
        """The end."""
        self._writer.close()

    def _write(self, row: Row) -> None:
        for name, value in row.values.items():
            self._writer.add_scalar(name, value, row.nimg)
        for name, path in row.pictures.items():
            with Image.open(path) as image:
                self._writer.add_image(name, np.asarray(image.convert("RGB")), row.nimg, dataformats="HWC")


def require_tensorboard() -> type[SummaryWriter]:
    """What writes its files.

    Raises:
        UserError: the package is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "tracking.tensorboard: the package tensorboard is not installed. `pip install 'advgen[tensorboard]'`, or "
            "set it to false."
        ) from None
    return SummaryWriter


def last_step(folder: Path) -> int:
    """The last step in the event files of a folder; -1 for none. A file that a kill tore counts up to there."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for path in sorted(folder.glob("events.out.tfevents.*"), reverse=True):
        steps = [event.step for event in EventFileLoader(str(path)).Load() if event.HasField("summary")]
        if steps:
            return max(steps)
    return -1
