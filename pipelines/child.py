"""A program of ours as a child: a wish to stop reaches it, and it gets the time that stopping takes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from types import FrameType

from advgen.runtime.preemption import StopRequest


def run_child(command: Sequence[str]) -> int:
    """Run a command to its end, however often one is asked to stop meanwhile.

    SIGTERM, SIGUSR1 and SIGUSR2 go on to the child. Ctrl-C does not: a terminal sends it to both, and two of them would
    make a training leave without a checkpoint. (``subprocess.run`` would kill the child a quarter of a second later.)

    Returns:
        The exit code, 128 + n of a child that signal n ended. If the child ended well though this process was asked to
        stop, :attr:`StopRequest.exit_code`.
    """
    with _PassedOn() as stop:
        stop.child = subprocess.Popen(command)
        stop.pass_on()  # what came while it was started
        code = stop.child.wait()
    if code == 0 and stop.asked:
        return stop.exit_code
    return code if code >= 0 else 128 - code


class _PassedOn(StopRequest):
    """A wish to stop that a child gets, too."""

    child: subprocess.Popen[bytes] | None = None

    def pass_on(self) -> None:
        """Send what came to the child."""
        if self.child is not None and self.signal not in (None, signal.SIGINT):
            self.child.send_signal(self.signal)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        super()._remember(number, frame)
        self.pass_on()
