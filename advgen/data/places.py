"""Where a folder of shards lies: on this machine, or at an address that fsspec reads, through a cache."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from advgen.data.cache import Cache, Failed
from advgen.data.config import RemoteConfig
from advgen.data.tars import check_name
from advgen.errors import UserError

_CHUNK = 1 << 20
_INSTALL = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}


@dataclass(frozen=True)
class Remote:
    """How remote places are read.

    Attributes:
        folder: the cache; one for all runs and processes of a machine.
        limit_bytes: files used longest ago are removed beyond it; 0 keeps all.
        tries: times that a transfer is tried.
        pause_seconds: before the second try; doubled before each further one.
        stall_seconds: a transfer that brings no byte for so long is given up.
        options: for fsspec's file system, as ("endpoint_url", ...) for s3.
    """

    folder: Path
    limit_bytes: int = 0
    tries: int = 5
    pause_seconds: float = 1.0
    stall_seconds: float = 30.0
    options: tuple[tuple[str, str], ...] = ()


def remote_of(config: RemoteConfig) -> Remote:
    """What a recipe says."""
    return Remote(
        folder=Path(config.folder).expanduser(),
        limit_bytes=int(config.limit_gib * (1 << 30)),
        tries=config.tries,
        stall_seconds=config.stall_seconds,
        options=tuple(sorted(config.options.items())),
    )


class Place:
    """A folder of shards, wherever it is. May be used from several threads, and sent to another process."""

    def __init__(self, location: str | Path, remote: Remote | None = None) -> None:
        """
        Args:
            location: a path, or an address with ``://``.
            remote: how an address is read.
        """
        self._made_of = (location, remote)
        self._location = str(location).rstrip("/")
        self._remote = remote or Remote(Path("~/.cache/advgen/shards").expanduser())
        self._cache = Cache(self._remote.folder, self._remote.limit_bytes) if "://" in str(location) else None
        self._hints: deque[tuple[str, int, str]] = deque()
        self._fetching = False
        self._lock = threading.Lock()
        self._system: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Place, self._made_of

    def show(self, name: str) -> str:
        """Where a file is, for messages; without what may be a password."""
        if self._cache is None:
            return str(Path(self._location).expanduser() / name) if name else self._location
        parts = urlsplit(self._location)
        shown = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
        return f"{shown}/{name}" if name else shown

    def read(self, name: str, sha256: str | None = None) -> bytes:
        """The content of a small file.

        Args:
            name: within the folder.
            sha256: of the content; where it is known, the file is kept in the cache.

        Raises:
            UserError: the file is missing, cannot be read or fetched.
        """
        check_name(self.show(""), name)
        if self._cache is None:
            path = Path(self._location).expanduser() / name
            try:
                return path.read_bytes()
            except FileNotFoundError:
                raise UserError(self._missing(name)) from None
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror}). Copy it again.") from None
        if sha256 is not None:
            return self._read_cached(name, sha256)
        try:
            return self._cache.tried(
                lambda: b"".join(self._chunks(name)), self._remote.tries, self._remote.pause_seconds, self.show(name)
            )
        except FileNotFoundError:
            raise UserError(self._missing(name)) from None

    def _read_cached(self, name: str, sha256: str) -> bytes:
        assert self._cache is not None
        for _ in range(2):
            with os.fdopen(self.opened(name, None, sha256), "rb") as file:
                data = file.read()
            if hashlib.sha256(data).hexdigest() == sha256:
                return data
            self._cache.drop(sha256)
        raise UserError(
            f"{self._remote.folder}: what was written there of {self.show(name)} is read as something else. Check the "
            "disk, or set data.remote.folder."
        )

    def opened(self, name: str, size: int | None, sha256: str) -> int:
        """A file of this machine with the content, opened for reading: the file itself, or its copy in the cache.

        A fetched file's checksum is compared once, when it comes; one that lies here is not read.

        Returns:
            A file descriptor, the caller's own.

        Raises:
            UserError: the file is missing, or cannot be fetched; its checksum is wrong, twice; the disk is full.
        """
        check_name(self.show(""), name)
        try:
            if self._cache is None:
                return os.open(Path(self._location).expanduser() / name, os.O_RDONLY | os.O_CLOEXEC)
            file = self._cache.open(
                sha256,
                size,
                partial(self._chunks, name),
                self.show(name),
                tries=self._remote.tries,
                pause_seconds=self._remote.pause_seconds,
            )
        except FileNotFoundError:
            raise UserError(self._missing(name)) from None
        except OSError as error:
            raise UserError(
                f"{self.show(name)}: cannot be opened ({error.strerror}). Copy it again, or run `advgen shard` again."
            ) from None
        assert file is not None, "it is waited for"
        return file

    def wanted(self, files: Sequence[tuple[str, int, str]]) -> None:
        """Fetch files (name, size, SHA-256) in the background, and no longer those that were wanted before.

        What fails there is told when the file is asked for.
        """
        if self._cache is None:
            return
        missing = [file for file in files if not self._cache.has(file[2])]
        with self._lock:
            self._hints = deque(missing)
            if self._hints and not self._fetching:
                self._fetching = True
                threading.Thread(target=self._fetch_hints, name="advgen-fetch", daemon=True).start()

    def _fetch_hints(self) -> None:
        assert self._cache is not None
        while True:
            with self._lock:
                if not self._hints:
                    self._fetching = False
                    return
                name, size, sha256 = self._hints.popleft()
            with suppress(UserError, OSError):  # what fails comes again where the file is needed
                file = self._cache.open(sha256, size, partial(self._chunks, name), self.show(name), wait=False)
                if file is not None:
                    os.close(file)

    def _missing(self, name: str) -> str:
        if name == "manifest.json":
            return f"{self.show('')}: is no folder of shards (no manifest.json). Run `advgen shard` first."
        return f"{self.show(name)}: is missing or cannot be opened. Copy it again, or run `advgen shard` again."

    def _chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a remote file; read by a thread that may be left behind, so that no server can hold us.

        Raises:
            FileNotFoundError: there is no such file.
            Failed: anything else went wrong, or no byte came for ``stall_seconds``.
        """
        chunks: queue.Queue[bytes | BaseException | None] = queue.Queue(maxsize=4)
        gone = threading.Event()

        def hand(item: bytes | BaseException | None) -> bool:
            while not gone.is_set():
                try:
                    chunks.put(item, timeout=0.5)
                    return True
                except queue.Full:
                    continue
            return False

        def read() -> None:
            try:
                # Of HTTP one answer is read as it comes: not every server gives ranges.
                block = 0 if self._location.startswith(("http://", "https://")) else _CHUNK
                with self._files().open(f"{self._location}/{name}", "rb", block_size=block, cache_type="none") as file:
                    while data := file.read(_CHUNK):
                        if not hand(data):
                            return
                hand(None)
            except BaseException as error:
                hand(error)

        threading.Thread(target=read, name="advgen-transfer", daemon=True).start()
        try:
            while True:
                try:
                    item = chunks.get(timeout=self._remote.stall_seconds)
                except queue.Empty:
                    raise Failed(f"no byte came for {self._remote.stall_seconds:g} s") from None
                if item is None:
                    return
                if isinstance(item, bytes):
                    yield item
                else:
                    _explain(item, self.show(name))
        finally:
            gone.set()

    def _files(self) -> Any:
        """fsspec's file system; one a process."""
        with self._lock:
            if self._system is None:
                import fsspec

                protocol = urlsplit(self._location).scheme
                options: dict[str, Any] = dict(self._remote.options)
                if protocol in ("s3", "s3a") and "endpoint_url" in options:
                    options["client_kwargs"] = {"endpoint_url": options.pop("endpoint_url")}
                if protocol in ("http", "https"):
                    options = _unhurried(options, self._remote.stall_seconds)
                try:
                    self._system = fsspec.filesystem(protocol, skip_instance_cache=True, **options)
                except ImportError as error:
                    package = _INSTALL.get(protocol, "the package that it names")
                    raise UserError(
                        f"{self.show('')}: {protocol}:// cannot be read here ({error}). Install {package} "
                        f"(`pip install 'advgen[remote]'`)."
                    ) from None
                except ValueError as error:
                    raise UserError(f"{self.show('')}: {error}. s3, gs, https and hf are known.") from None
            return self._system


def _unhurried(options: dict[str, Any], stall_seconds: float) -> dict[str, Any]:
    """Options for HTTP by which a transfer may take longer than aiohttp's five minutes, if only bytes come."""
    with suppress(ImportError):  # told where the file system is made
        import aiohttp

        limits = aiohttp.ClientTimeout(total=None, sock_connect=stall_seconds, sock_read=2 * stall_seconds)
        options["client_kwargs"] = {"timeout": limits, **options.get("client_kwargs", {})}
    return options


def _explain(error: BaseException, shown: str) -> None:
    """Raise what a transfer's error means: not there, not allowed, or to be tried again."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and type(cause).__module__.startswith("aiohttp"):
        assert cause is not None
        error = cause  # fsspec's HTTP says "not found" of a server that refuses, fails or is not there, too
    if isinstance(error, UserError | FileNotFoundError):
        raise error
    status = getattr(error, "status", None) or getattr(error, "code", None)
    if isinstance(error, PermissionError) or status in (401, 403):
        raise UserError(
            f"{shown}: access is denied. Give this machine the rights to read it (the environment's credentials, or "
            "data.remote.options)."
        ) from None
    if status == 404:
        raise FileNotFoundError(shown) from None
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    raise Failed(text[:200]) from None
