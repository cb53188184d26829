"""The files of a set of shards, a limited number of them open, read by (shard, place)."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from advgen.data.decode import BadImage
from advgen.data.manifest import Entry, Manifest, Shard, read_index
from advgen.data.places import Place
from advgen.errors import UserError

MAX_OPEN = 128
"""Files kept open; a process may open 1,024 by default."""
INDEX_BYTES = 128 << 20
"""Memory for indexes of shards: 5 million samples of one part."""


class _Index(NamedTuple):
    """What is kept of a shard's index.

    Attributes:
        labels: int64 [n], -1 without.
        spans: (offset, size) of each part, int64 [n, parts, 2].
    """

    labels: NDArray[np.int64]
    spans: NDArray[np.int64]


class OpenShards:
    """Bytes of samples. May be used from several threads."""

    def __init__(self, place: Place, manifest: Manifest) -> None:
        self._place, self._manifest = place, manifest
        self._starts = np.cumsum([0] + [shard.samples for shard in manifest.shards]).astype(np.int64)
        self._levels = {manifest.height: manifest.shards} | {each.height: each.shards for each in manifest.levels}
        self._raw = {each.height for each in manifest.levels if each.raw}
        self._opened: OrderedDict[tuple[int, int], _File] = OrderedDict()
        self._indexes: OrderedDict[tuple[int, int], _Index] = OrderedDict()
        self._indexed = 0  # bytes in them
        self._lock = threading.Lock()
        # Keys and names are asked for where something is told, shard after shard.
        self.entries = functools.lru_cache(2)(self._entries)

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
        file = self._open(number, height)
        if isinstance(file, _Raw):
            return file.read(place)
        return [file.at(offset, size) for offset, size in self._index(number, height).spans[place].tolist()]

    def labels(self, number: int) -> NDArray[np.int64]:
        """Labels of a shard's samples, int64 [n]; -1 without."""
        return self._index(number, self._manifest.height).labels

    def want(self, numbers: Sequence[int], height: int) -> None:
        """Fetch shards in the background, as they are stored at a height."""
        shards = [self._levels[height][number] for number in numbers]
        self._place.wanted([(shard.name, shard.bytes, shard.sha256) for shard in shards])

    def _entries(self, number: int, height: int) -> list[Entry]:
        return read_index(self._place.read, self._levels[height][number], self._place.show(""), self._manifest)

    def _index(self, number: int, height: int) -> _Index:
        with self._lock:
            index = self._indexes.get((number, height))
            if index is not None:
                self._indexes.move_to_end((number, height))
                return index
        entries = self._entries(number, height)
        labels = np.array([-1 if entry.label is None else entry.label for entry in entries], np.int64)
        spans = np.array([entry.spans for entry in entries], np.int64).reshape(-1, len(self._manifest.parts), 2)
        index = _Index(labels, spans)
        with self._lock:
            if (number, height) not in self._indexes:
                self._indexes[number, height] = index
                self._indexed += labels.nbytes + spans.nbytes
            while self._indexed > INDEX_BYTES and len(self._indexes) > 1:
                _, oldest = self._indexes.popitem(last=False)
                self._indexed -= oldest.labels.nbytes + oldest.spans.nbytes
        return index

    def _open(self, number: int, height: int) -> _File:
        with self._lock:
            shard = self._opened.get((number, height))
            if shard is not None:
                self._opened.move_to_end((number, height))
                return shard
        # Opening may mean fetching: other threads go on with what is open.
        shard = (_Raw if height in self._raw else _File)(self._place, self._levels[height][number])
        with self._lock:
            self._opened[number, height] = shard
            while len(self._opened) > MAX_OPEN:
                # Another thread may still read from it: its file closes with the last reference.
                self._opened.popitem(last=False)
        return shard


class _File:
    """An open file. Reads at an offset share no file position, so threads do not meet."""

    def __init__(self, place: Place, shard: Shard) -> None:
        self._file = place.opened(shard.name, shard.bytes, shard.sha256)
        weakref.finalize(self, os.close, self._file)
        size = os.fstat(self._file).st_size
        if size != shard.bytes:
            raise UserError(
                f"{place.show(shard.name)}: has {size:,} bytes, the manifest says {shard.bytes:,}. "
                "Copy it again, or run `advgen shard` again."
            )

    def at(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._file, size, offset)
        except OSError as error:
            raise BadImage(f"cannot be read ({error.strerror})") from None


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
        data = self.at(self._start + place * self._size, self._size)
        if len(data) != self._size:
            raise BadImage("is cut short")
        return np.frombuffer(data, np.uint8).reshape(self._shape)
