"""What the trainer tells somebody who watches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Status:
    """What a person watching may want to see."""

    nimg: int
    total_nimg: int
    phase: str
    fade: float
    images_per_second: float


class Watch(Protocol):
    """Somebody who watches the training."""

    def resumed(self, checkpoint: Path) -> None:
        """The run goes on from a checkpoint."""
        ...

    def warned(self, text: str) -> None:
        """Something is wrong that does not end the run."""
        ...

    def told(self, text: str) -> None:
        """Something that was asked for is there."""
        ...

    def step(self, status: Status) -> None:
        """A step was done."""
        ...
