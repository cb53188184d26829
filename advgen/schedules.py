"""Values that change over a run, as data: functions of the images seen."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LearningRate:
    """A base rate with an optional ramp-up at the run's start, ramp-down at its end, and drops in between.

    Attributes:
        base: the rate between the ramps.
        rampup_kimg: the rate rises over the first so many kimg as exp(-5 (1 - t)^2), the form of the
            original ProGAN code; 0 for none.
        rampdown_kimg: the rate falls linearly over the last so many kimg; 0 for none.
        total_kimg: where the run ends; needed for the ramp-down.
        drops_kimg: from each of these on the rate is a tenth of what it was before.
    """

    base: float
    rampup_kimg: float = 0.0
    rampdown_kimg: float = 0.0
    total_kimg: float = math.inf
    drops_kimg: tuple[float, ...] = ()

    def at(self, nimg: int) -> float:
        """The rate after ``nimg`` images."""
        rate = self.base
        kimg = nimg / 1000.0
        rate *= 0.1 ** sum(kimg >= drop for drop in self.drops_kimg)
        if kimg < self.rampup_kimg:
            rate *= math.exp(-5.0 * (1.0 - kimg / self.rampup_kimg) ** 2)
        left = self.total_kimg - kimg
        if left < self.rampdown_kimg:
            rate *= max(0.0, left) / self.rampdown_kimg
        return rate
