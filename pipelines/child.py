"""A program of ours as a child: signals that ask it to stop reach it, and it gets the time that stopping takes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from types import FrameType

from advgen.runtime.preemption import REQUEUE

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def run_child(command: Sequence[str]) -> int:
    """Run a command to its end, however often one is asked to stop meanwhile.

    SIGTERM, SIGUSR1 and SIGUSR2 go on to the child. Ctrl-C does not: a terminal sends it to both, and two of them would
    make a training leave without a checkpoint. (``subprocess.run`` would kill the child a quarter of a second later.)

    Returns:
        The exit code, 128 + n of a child that signal n ended. If the child ended well though this process was asked to
        stop, what asks to be started again: 130 or 143 for SIGINT and SIGTERM, else 85.
    """
    asked: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if number != signal.SIGINT:
            for child in children:
                child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in _ASKING}
    try:
        children.append(subprocess.Popen(command))
        for number in asked:  # came while it was started
            children[0].send_signal(number)
        code = children[0].wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code == 0 and asked:
        return 128 + asked[0] if asked[0] in (signal.SIGINT, signal.SIGTERM) else REQUEUE
    return code if code >= 0 else 128 - code
