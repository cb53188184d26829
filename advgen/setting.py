"""What a trainer is told besides the game."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from advgen.game import ImageSpec
from advgen.runtime.config import TrainingConfig


@dataclass(frozen=True)
class Reading:
    """How batches are read ahead.

    Attributes:
        threads: that read, where no processes do.
        workers: processes that read; 0 for threads.
        bad_samples: samples that may be replaced before the run stops.
    """

    threads: int
    workers: int
    bad_samples: int


@dataclass(frozen=True)
class Inspection:
    """What looks at checkpoints while the training waits.

    Attributes:
        kimg: a checkpoint is written for it at every so many kimg.
        look: at the newest checkpoint; called on all ranks.
    """

    kimg: float
    look: Callable[[], None]


@dataclass(frozen=True)
class Setting:
    """What a trainer needs besides the game.

    Attributes:
        config: hardware, logging, checkpoints.
        seed: of all noise.
        reading: how batches are read ahead.
        spec: what the data provides.
        about: identifies the method and the data; a checkpoint with another one is refused.
        begins_with: loads another run's weights into networks and averages; None: as initialised.
        inspection: of checkpoints within phases; None for none.
        flops: of a step of a phase on all ranks together, by the phase's index; None if nobody wants to know.
    """

    config: TrainingConfig
    seed: int
    reading: Reading
    spec: ImageSpec
    about: Mapping[str, Any]
    begins_with: Callable[[Mapping[str, nn.Module]], None] | None = None
    inspection: Inspection | None = None
    flops: Callable[[int], float] | None = None
