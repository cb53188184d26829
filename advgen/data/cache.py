"""Files that were fetched, by the hash of their content; verified when written, shared by a machine's processes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, TypeVar

from advgen.errors import UserError
from advgen.files import sync_file

Result = TypeVar("Result")


class Failed(Exception):
    """A transfer that may succeed when it is tried again; the text says why it did not."""


class Cache:
    """A folder of files named by their SHA-256.

    A file is there wholly or not at all. One process of a machine fetches it while the others wait; the kernel frees
    the lock of a process that is killed.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit = folder, limit_bytes

    def has(self, sha256: str) -> bool:
        """Whether a file is there."""
        return self._path(sha256).exists()

    def drop(self, sha256: str) -> None:
        """Forget a file, whose content turned out to be another."""
        self._path(sha256).unlink(missing_ok=True)

    def open(
        self,
        sha256: str,
        size: int | None,
        chunks: Callable[[], Iterator[bytes]],
        shown: str,
        *,
        tries: int = 1,
        pause_seconds: float = 1.0,
        wait: bool = True,
    ) -> int | None:
        """The file with this content, opened; fetched if it is not there. It stays readable when it is removed.

        Args:
            sha256: of the content, hex.
            size: in bytes, if known.
            chunks: starts a transfer; raises :class:`Failed`.
            shown: the address, for messages.
            tries: times that it is tried.
            pause_seconds: before the second try; doubled before each further one.
            wait: for another process that is fetching it; else there is no file.

        Returns:
            A file descriptor, the caller's own.

        Raises:
            FileNotFoundError: there is no such file at the address.
            UserError: it cannot be fetched, also where the fetch of another was waited for; it has another content,
                twice, or the disk is full.
        """
        asked = time.time_ns()
        try:
            if (file := self._opened(sha256, size)) is not None:
                return file
            with self._locked(sha256, wait) as lock:
                if lock is None:
                    return None
                if (file := self._opened(sha256, size)) is not None:
                    return file
                if message := _failed_since(lock, asked):
                    raise UserError(message)
                try:
                    return self.tried(lambda: self._fetch(sha256, size, chunks, shown), tries, pause_seconds, shown)
                except UserError as error:
                    if wait:  # one that would not wait has not tried all it could
                        lock.truncate(0)
                        lock.write(f"{time.time_ns()} {error}")
                    raise
        except OSError as error:
            if isinstance(error, FileNotFoundError) and error.filename is None:
                raise
            raise UserError(
                f"{self._folder}: the cache for {shown} cannot be written ({error.strerror}). Free the disk, or set "
                "data.remote.folder and data.remote.limit_gib."
            ) from None

    def _opened(self, sha256: str, size: int | None) -> int | None:
        path = self._path(sha256)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if size is not None and os.fstat(file).st_size != size:
            os.close(file)
            return None
        with suppress(OSError):  # it may be removed meanwhile
            os.utime(path)
        return file

    def tried(self, action: Callable[[], Result], tries: int, pause_seconds: float, shown: str) -> Result:
        """Do a transfer, again and again with growing pauses.

        Raises:
            UserError: it failed ``tries`` times.
        """
        for number in range(tries):
            try:
                return action()
            except Failed as error:
                if number + 1 == tries:
                    raise UserError(
                        f"{shown}: cannot be fetched after {tries} tries ({error}). Try again when the server answers; "
                        "data.remote.tries and data.remote.stall_seconds say how long to go on."
                    ) from None
                time.sleep(pause_seconds * 2**number)
        raise AssertionError("tries is at least 1")

    def _fetch(self, sha256: str, size: int | None, chunks: Callable[[], Iterator[bytes]], shown: str) -> int:
        path = self._path(sha256)
        if self._limit and size is not None and size > self._limit:
            raise UserError(
                f"{shown}: has {size:,} bytes, more than the whole cache may have ({self._limit:,}). Raise "
                "data.remote.limit_gib."
            )
        found = ""
        for _ in range(2):
            self._make_room(size or 0)
            try:
                found = self._written(path, size, chunks)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                # The limit is more than the disk has: what is oldest goes, and then it fits or it does not.
                self._make_room(size or 0, everything=True)
                found = self._written(path, size, chunks)
            if found == sha256:
                # Opened before others may remove it.
                file = os.open(self._temporary(path), os.O_RDONLY | os.O_CLOEXEC)
                os.replace(self._temporary(path), path)
                return file
            self._temporary(path).unlink()
        raise UserError(
            f"{shown}: has another content than the manifest says, twice (SHA-256 {found[:16]}... instead of "
            f"{sha256[:16]}...). Upload it again, or run `advgen shard` again."
        )

    def _written(self, path: Path, size: int | None, chunks: Callable[[], Iterator[bytes]]) -> str:
        """Write a transfer to the temporary file; returns its hash."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, content, count = self._temporary(path), hashlib.sha256(), 0
        try:
            with temporary.open("wb") as file:
                for chunk in chunks():
                    content.update(chunk)
                    count += len(chunk)
                    if size is not None and count > size:
                        break
                    file.write(chunk)
            if size is not None and count < size:
                raise Failed(f"it ended after {count:,} of {size:,} bytes")
            sync_file(temporary)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return content.hexdigest()

    def _make_room(self, size: int, everything: bool = False) -> None:
        """Remove what was used longest ago, and what killed processes left."""
        with self._locked("room", wait=True):
            known: list[tuple[float, int, Path]] = []
            for path in self._folder.glob("[0-9a-f][0-9a-f]/*"):
                try:
                    about = path.stat()
                except OSError:
                    continue
                if path.suffix == ".tmp" and not _runs(path.name.split(".")[-2]):
                    path.unlink(missing_ok=True)
                elif path.suffix != ".tmp":
                    known.append((about.st_mtime, about.st_size, path))
            total = sum(bytes for _, bytes, _ in known)
            room = 0 if everything else self._limit - size if self._limit else total
            for _, bytes, path in sorted(known):
                if total <= room:
                    break
                # Whoever has it open goes on reading it.
                path.unlink(missing_ok=True)
                total -= bytes

    @contextmanager
    def _locked(self, name: str, wait: bool) -> Iterator[TextIO | None]:
        """Hold a lock of all processes and threads; gives its file, or None where another holds it."""
        folder = self._folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name[:16]}.lock").open("a+", encoding="utf-8", errors="replace") as file:
            try:
                # Each opening has a lock of its own, so threads exclude one another as processes do.
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            yield file

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def _temporary(self, path: Path) -> Path:
        return path.with_name(f"{path.name}.{threading.get_ident()}.{os.getpid()}.tmp")


def _failed_since(lock: TextIO, asked: int) -> str:
    """Why a fetch failed that ended after a time, as its lock's file says."""
    lock.seek(0)
    ended, _, message = lock.read().partition(" ")
    return message if ended.isdigit() and int(ended) > asked else ""


def _runs(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except OSError:
        return True  # another user's
    return True
