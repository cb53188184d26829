"""Tar files: written so that equal content gives equal bytes, read without trusting them."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from advgen.data.manifest import Entry, Shard, dump_index, index_name
from advgen.errors import UserError
from advgen.files import atomic


class Member(NamedTuple):
    """A file in a tar: its name, and where its bytes lie."""

    name: str
    offset: int
    size: int


class TarWriter:
    """A tar of samples in memory order; :meth:`close` writes it, its index, and describes it.

    No time, user or machine is written, so equal samples give equal bytes.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._entries: list[Entry] = []
        self._offset, self._hash = 0, hashlib.sha256()
        self._atomic = atomic(folder / name)
        self._file = self._atomic.__enter__().open("wb")

    def add(self, key: str, label: int | None, name: str, parts: list[tuple[str, bytes]]) -> None:
        """Append a sample: (extension, bytes) for each part."""
        spans = [(self._member(f"{key}.{extension}", data), len(data)) for extension, data in parts]
        if label is not None:
            self._member(f"{key}.cls", str(label).encode())
        self._entries.append(Entry(key, label, name, tuple(spans)))

    def _member(self, name: str, data: bytes) -> int:
        header = tarfile.TarInfo(name)  # its defaults: time 0, user 0, mode 644
        header.size = len(data)
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        offset = self._offset
        self._write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
        return offset

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._offset += len(data)

    def close(self) -> Shard:
        """Finish both files."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))  # the tar's end
        self._file.close()
        self._atomic.__exit__(None, None, None)
        index = dump_index(self._entries)
        with atomic(self._folder / index_name(self._name)) as temporary:
            temporary.write_bytes(index)
        digest, of_index = self._hash.hexdigest(), hashlib.sha256(index).hexdigest()
        return Shard(
            name=self._name,
            bytes=self._offset,
            sha256=digest,
            samples=len(self._entries),
            index_sha256=of_index,
        )

    def abort(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):  # a full disk fails once more for what is buffered
            self._file.close()
        self._atomic.__exit__(RuntimeError, RuntimeError("aborted"), None)


def write_array(folder: Path, name: str, pixels: NDArray[np.uint8]) -> Shard:
    """Write raw pixels uint8 [n, channels, height, width] as ``.npy``."""
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    data = buffer.getvalue()
    with atomic(folder / name) as temporary:
        temporary.write_bytes(data)
    return Shard(
        name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), samples=len(pixels), index_sha256=""
    )


def members(path: Path, links: list[str] | None = None) -> Iterator[Member]:
    """The regular files of a tar, in its order. Nothing is extracted.

    Args:
        path: the tar.
        links: gets the names of links, pipes and devices, which are not followed.

    Raises:
        UserError: the file is damaged or cut short, an entry says it is larger than what follows, something follows the
            tar's end, or a name is no plain relative one.
    """
    total, end = path.stat().st_size, 0
    try:
        with tarfile.open(path, "r:") as archive:
            for entry in archive:
                size = entry.size if entry.isfile() else 0
                end = entry.offset_data + size + -size % tarfile.BLOCKSIZE
                if not entry.isfile():
                    if links is not None and not entry.isdir():
                        links.append(entry.name)
                    continue
                if entry.issparse():
                    raise UserError(f"{path}: {entry.name!r} is stored with holes, which is not read. Pack it again.")
                check_name(str(path), entry.name)
                if entry.size < 0 or entry.offset_data + entry.size > total:
                    raise UserError(
                        f"{path}: {entry.name} says it has {entry.size:,} bytes, but the file ends before. "
                        "The tar is cut short or forged: copy it again."
                    )
                yield Member(entry.name, entry.offset_data, entry.size)
        _check_end(path, end)
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: is no readable uncompressed tar file ({error}). Copy it again.") from None


def _check_end(path: Path, end: int) -> None:
    """Refuse what tarfile takes for a tar's end without a word: a damaged header, or the end of a first tar of two."""
    with path.open("rb") as file:
        file.seek(end)
        first = file.read(tarfile.BLOCKSIZE)
        if len(first) < tarfile.BLOCKSIZE:
            raise UserError(f"{path}: ends without a tar's end mark. It is cut short: copy it again.")
        while first:
            if any(first):
                raise UserError(
                    f"{path}: something that is no entry follows byte {end:,}. It is damaged, or was put together from "
                    "several tars: copy it again, or give these as a folder."
                )
            first = file.read(1 << 20)


def check_name(where: str, name: str) -> None:
    """Refuse names that lead out of their place.

    Raises:
        UserError: an absolute name, one with ``..`` or one with a zero byte.
    """
    if name.startswith(("/", "\\")) or "\0" in name or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":":
        raise UserError(f"{where}: the name {name!r} leads out of it. Do not use it, or rename the file.")
