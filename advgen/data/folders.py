"""Folders that are either whole or not there."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from advgen.errors import UserError
from advgen.files import sync_file, sync_folder


@contextmanager
def new_folder(out: Path, *, replace: bool = False, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary folder beside ``out`` (flat: files only); on success it is synced and becomes ``out``.

    Args:
        out: new or empty; with ``replace`` it may hold files of the same names, which are replaced one by one.
        sync: wait until every file is on the disk; slow for thousands of files that can be made again.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    start, host = f".{out.name}.", socket.gethostname()
    for left in out.parent.glob(f"{start}{host}.*.tmp"):
        if not _runs(left.name.split(".")[-2]):
            shutil.rmtree(left, ignore_errors=True)  # of a process of this machine that was killed
    temporary = out.parent / f"{start}{host}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if sync:
            for path in temporary.iterdir():
                sync_file(path)
            sync_folder(temporary)
        if replace and out.is_dir() and any(out.iterdir()):
            for path in temporary.iterdir():
                os.replace(path, out / path.name)
            sync_folder(out)
        else:
            os.replace(temporary, out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except OSError:
        return True  # another user's
    return True


@contextmanager
def exclusive(out: Path, what: str) -> Iterator[Path]:
    """Yield the hidden folder beside ``out`` where unfinished work lies; no other process has it meanwhile.

    Args:
        out: the folder that is to be.
        what: is made, for messages.

    Raises:
        UserError: another process is making it.
    """
    out = Path(os.path.abspath(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / f".{out.name}.lock").open("w") as lock:
        try:
            # The kernel lets go when the process ends, however it ends. The file stays: removing it would be a race.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{out}: another process is writing {what} there. Wait for it, or end it.") from None
        yield out.parent / f".{out.name}.partial"
