"""The phases of a game laid end to end: what a clock means in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from advgen.clock import Clock
from advgen.game import Phase, Progress


class Timeline:
    """The phases laid end to end: turns a clock into progress, and moves it on.

    A phase ends at the first update of its schedules at which the images seen reach the sum of the phases'
    lengths so far; an overshoot shortens the next phase, as with the original ProGAN's running count.
    """

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.phases = tuple(phases)
        self._starts = [0]
        for phase in self.phases:
            self._starts.append(self._starts[-1] + round(phase.kimg * 1000))

    @property
    def total_nimg(self) -> int:
        """Images at which the run ends."""
        return self._starts[-1]

    def start_of(self, index: int) -> int:
        """Images at which phase ``index`` nominally begins."""
        return self._starts[index]

    def done(self, clock: Clock) -> bool:
        """Whether the last phase has ended."""
        return clock.phase >= len(self.phases)

    def reopened(self, clock: Clock) -> Clock:
        """The clock of a finished run in a timeline whose last phase was made longer: back in that phase."""
        if not self.done(clock) or clock.held_nimg >= self.total_nimg:
            return clock
        # Any number of steps above 0 that ends a hold will do: the phase has begun, and moments are kept.
        return replace(clock, phase=len(self.phases) - 1, phase_step=self.phases[-1].hold)

    def progress(self, clock: Clock) -> Progress:
        """What schedules see at ``clock``."""
        return Progress(
            step=clock.step,
            nimg=clock.held_nimg,
            phase=self.phases[clock.phase],
            phase_nimg=clock.held_nimg - self._starts[clock.phase],
        )

    def at_end_of(self, index: int) -> Progress:
        """Progress at the very end of phase ``index``: its fade is complete."""
        end = self._starts[index + 1]
        return Progress(step=0, nimg=end, phase=self.phases[index], phase_nimg=end - self._starts[index])

    def at_start_of(self, index: int) -> Progress:
        """Progress at the very start of phase ``index``: its fade has not begun."""
        return Progress(step=0, nimg=self._starts[index], phase=self.phases[index], phase_nimg=0)

    def advance(self, clock: Clock) -> Clock:
        """The clock after one more step."""
        phase = self.phases[clock.phase]
        nimg = clock.nimg + phase.batch_size
        moved = replace(
            clock,
            step=clock.step + 1,
            nimg=nimg,
            samples=clock.samples + phase.batch_size * phase.batches_a_step,
            phase_step=clock.phase_step + 1,
        )
        if moved.phase_step % phase.hold:
            return moved
        moved = replace(moved, held_nimg=nimg)
        while not self.done(moved) and nimg >= self._starts[moved.phase + 1]:
            moved = replace(moved, phase=moved.phase + 1, phase_step=0)
        return moved
