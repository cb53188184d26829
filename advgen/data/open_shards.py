"""The files of a set of shards, a limited number of them open, read by (shard, place)."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advgen.data.decode import BadImage
from advgen.data.manifest import Manifest, Shard, read_index
from advgen.data.places import Place
from advgen.errors import UserError

MAX_OPEN = 128
"""Files kept open; a process may open 1,024 by default."""


class OpenShards:
    """Bytes of samples. May be used from several threads."""

    def __init__(self, place: Place, manifest: Manifest) -> None:
        self._place, self._manifest = place, manifest
        self._starts = np.cumsum([0] + [shard.samples for shard in manifest.shards]).astype(np.int64)
        self._levels = {manifest.height: manifest.shards} | {each.height: each.shards for each in manifest.levels}
        self._raw = {each.height for each in manifest.levels if each.raw}
        self._opened: OrderedDict[tuple[int, int], _Tar | _Raw] = OrderedDict()
        self._known: dict[int, NDArray[np.int64]] = {}
        self._height = manifest.height  # that was read last: hints are for it
        self._lock = threading.Lock()

    def locate(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(shards, places in them) of samples, int64 [n] each."""
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        return shards, indices - self._starts[shards]

    def read(self, number: int, place: int, height: int) -> list[bytes] | NDArray[np.uint8]:
        """The bytes of a sample's parts at a stored height; of a raw level the pixels uint8 [channels, h, w].

        Raises:
            BadImage: the file cannot be read there.
            UserError: the file is missing, damaged or cannot be fetched.
        """
        self._height = height
        return self._open(number, height).read(place)

    def labels(self, number: int) -> NDArray[np.int64]:
        """Labels of a shard's samples, int64 [n]; -1 without."""
        found = self._known.get(number)
        if found is None:
            entries = read_index(self._place.read, self._manifest.shards[number], self._place.show(""))
            found = np.array([-1 if entry.label is None else entry.label for entry in entries], np.int64)
            self._known[number] = found
        return found

    def want(self, numbers: Sequence[int]) -> None:
        """Fetch shards in the background, at the height that was read last."""
        for number in numbers:
            shard = self._levels[self._height][number]
            self._place.wanted(shard.name, shard.bytes, shard.sha256)

    def _open(self, number: int, height: int) -> _Tar | _Raw:
        with self._lock:
            shard = self._opened.get((number, height))
            if shard is not None:
                self._opened.move_to_end((number, height))
                return shard
        # Opening may mean fetching: other threads go on with what is open.
        found = self._levels[height][number]
        shard = _Raw(self._place, found) if height in self._raw else _Tar(self._place, found)
        with self._lock:
            self._opened[number, height] = shard
            while len(self._opened) > MAX_OPEN:
                # Another thread may still read from it: its file closes with the last reference.
                self._opened.popitem(last=False)
        return shard


class _File:
    """An open file. Reads at an offset share no file position, so threads do not meet."""

    def __init__(self, place: Place, shard: Shard) -> None:
        path = place.local(shard.name, shard.bytes, shard.sha256)
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UserError(
                f"{place.show(shard.name)}: cannot be opened ({error.strerror}). Copy it again, or run `advgen shard` "
                "again."
            ) from None
        weakref.finalize(self, os.close, self._file)
        size = os.fstat(self._file).st_size
        if size != shard.bytes:
            raise UserError(
                f"{place.show(shard.name)}: has {size:,} bytes, the manifest says {shard.bytes:,}. "
                "Copy it again, or run `advgen shard` again."
            )

    def _at(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._file, size, offset)
        except OSError as error:
            raise BadImage(f"cannot be read ({error.strerror})") from None


class _Tar(_File):
    def __init__(self, place: Place, shard: Shard) -> None:
        super().__init__(place, shard)
        entries = read_index(place.read, shard, place.show(""))
        self._spans: list[Any] = [entry.spans for entry in entries]

    def read(self, place: int) -> list[bytes]:
        return [self._at(offset, size) for offset, size in self._spans[place]]


class _Raw(_File):
    def __init__(self, place: Place, shard: Shard) -> None:
        super().__init__(place, shard)
        with os.fdopen(os.dup(self._file), "rb") as file:
            try:
                np.lib.format.read_magic(file)
                shape, _, kind = np.lib.format.read_array_header_1_0(file)
            except ValueError as error:
                raise UserError(f"{place.show(shard.name)}: is no array ({error}). Copy it again.") from None
            self._start, self._shape, self._size = file.tell(), shape[1:], int(np.prod(shape[1:]))
        if kind != np.uint8 or len(shape) != 4 or shape[0] != shard.samples:
            raise UserError(f"{place.show(shard.name)}: holds {kind} {list(shape)}. Copy it again.")

    def read(self, place: int) -> NDArray[np.uint8]:
        data = self._at(self._start + place * self._size, self._size)
        if len(data) != self._size:
            raise BadImage("is cut short")
        return np.frombuffer(data, np.uint8).reshape(self._shape)
