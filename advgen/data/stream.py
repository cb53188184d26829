"""Images by position: sample number p of an endless, shuffled stream is a function of (seed, p) alone.

Nothing has a state: reading from any position, by any number of ranks that take strided positions, gives the
same images. Epoch ``p // n`` shuffles the shards, and then the samples inside blocks of a few shards, which
keeps reads near one another on disk; single samples are read by their offset.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advgen.data.decode import BadImage, box_mean, decode, in_order
from advgen.data.shards import Manifest, read_index
from advgen.errors import UserError
from advgen.seeds import key_of, permutation

Positions = NDArray[np.int64]

_OPEN_SHARDS = 128  # files kept open; a process may open 1,024 by default
_FLIPS = 4096  # mirror bits made at a time


@dataclass(frozen=True)
class Samples:
    """Images and labels of some positions, in their order.

    Attributes:
        images: uint8 [n, channels, r, r], 0..255, contiguous and the caller's own.
        labels: int64 [n], or None for images without classes.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None


class ImageStream:
    """Reads a folder of shards by position. May be used from several threads.

    Attributes:
        manifest: of the shards.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        resolution: int,
        channels: int,
        block_shards: int = 16,
        mirror: bool = False,
        cache_bytes: int = 512 << 20,
    ) -> None:
        """Open the shards; nothing but the manifest is read yet.

        Args:
            folder: of shards.
            seed: of the order and of mirroring.
            resolution: that the run expects, in pixels.
            channels: that the run expects.
            block_shards: samples are shuffled over so many shards at a time.
            mirror: flip each position's image left to right with probability 1/2.
            cache_bytes: memory for decoded images; what does not fit is decoded each time.

        Raises:
            UserError: no shards, damaged ones, or ones of another size or number of channels.
        """
        self.manifest = Manifest.load(folder)
        found, wanted = (self.manifest.resolution, self.manifest.channels), (resolution, channels)
        if found != wanted:
            raise UserError(
                f"{folder}: its images have {found[0]} px and {found[1]} channels, the recipe says {wanted[0]} px "
                f"and {wanted[1]}. Change the recipe, or write shards for it into another folder."
            )
        self._folder, self._seed, self._mirror, self._block_shards = folder, seed, mirror, block_shards
        self._starts = np.cumsum([0] + [shard.samples for shard in self.manifest.shards]).astype(np.int64)
        self._cache = _Cache(self.manifest.samples, channels, cache_bytes)
        self._opened: OrderedDict[int, _OpenShard] = OrderedDict()
        self._lock = threading.Lock()
        # Plans are small (8 bytes a sample) and asked for again and again.
        self._epoch = functools.lru_cache(4)(self._plan_epoch)
        self._block = functools.lru_cache(32)(self._plan_block)
        self._flips = functools.lru_cache(32)(self._plan_flips)

    def __len__(self) -> int:
        """Samples in an epoch."""
        return self.manifest.samples

    def index_of(self, positions: Positions) -> NDArray[np.int64]:
        """Which sample stands at each position: a permutation of all samples in every epoch.

        Args:
            positions: int64 [n], from 0 on.

        Returns:
            int64 [n], numbers of samples in the order of the shards.
        """
        positions = np.asarray(positions, np.int64)
        if positions.size and positions.min() < 0:
            raise ValueError("positions start at 0")
        epochs, places = np.divmod(positions, len(self))
        indices = np.empty_like(positions)
        for epoch in np.unique(epochs):
            of_epoch = np.flatnonzero(epochs == epoch)
            _, starts = self._epoch(int(epoch))
            blocks = np.searchsorted(starts, places[of_epoch], side="right") - 1
            for block in np.unique(blocks):
                of_block = of_epoch[blocks == block]
                indices[of_block] = self._block(int(epoch), int(block))[places[of_block] - starts[block]]
        return indices

    def read(self, positions: Positions, level: int | None = None) -> Samples:
        """The samples at some positions.

        Args:
            positions: int64 [n], from 0 on; in any order, also repeated.
            level: pixels a side of the result, the stored resolution divided by a power of two; the mean over
                blocks of pixels, rounded. None: the stored resolution.

        Raises:
            UserError: a shard is missing or damaged; names shard, key and offset.
        """
        positions = np.asarray(positions, np.int64)
        samples = self.fetch(self.index_of(positions), level)
        if self._mirror:
            flipped = self.flips_of(positions)
            samples.images[flipped] = samples.images[flipped][..., ::-1]
        return samples

    def fetch(self, indices: NDArray[np.int64], level: int | None = None) -> Samples:
        """Samples by their number in the order of the shards, never mirrored; otherwise like :meth:`read`."""
        level = self._level(level)
        images = np.empty((len(indices), self.manifest.channels, level, level), np.uint8)
        kept, filled = self._cache.of_level(level)
        cached = np.zeros(len(indices), bool)
        small = np.flatnonzero(indices < len(filled))
        cached[small] = filled[indices[small]]
        images[cached] = kept[indices[cached]]
        for row in np.flatnonzero(~cached):
            index = int(indices[row])
            images[row] = box_mean(self._decode(index), level)
            if index < len(filled):
                kept[index] = images[row]
                filled[index] = True  # after the pixels: other threads look at it
        return Samples(images, self._labels(indices))

    def flips_of(self, positions: Positions) -> NDArray[np.bool_]:
        """Which positions are mirrored, bool [n]; whether this stream mirrors or not."""
        flips = np.empty(len(positions), bool)
        blocks = positions // _FLIPS
        for block in np.unique(blocks):
            chosen = blocks == block
            flips[chosen] = self._flips(int(block))[positions[chosen] % _FLIPS]
        return flips

    def prefetch(
        self, requests: Iterable[tuple[Positions, int | None]], *, threads: int = 2, ahead: int = 2
    ) -> Prefetcher:
        """Read (positions, level) requests ahead of their use, in order; see :class:`Prefetcher`."""
        return Prefetcher(self, requests, threads=threads, ahead=ahead)

    def _level(self, level: int | None) -> int:
        stored = self.manifest.resolution
        level = stored if level is None else level
        factor = stored // level if level > 0 else 0
        if factor * level != stored or factor & (factor - 1):
            raise ValueError(f"level {level} is not the stored resolution {stored} divided by a power of two")
        return level

    def _plan_epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Order of the shards, and where each block of them starts in the epoch."""
        order = permutation(key_of(self._seed, "stream", epoch, "shards"), len(self.manifest.shards))
        sizes = np.diff(self._starts)[order]
        ends = np.cumsum(np.add.reduceat(sizes, np.arange(0, len(sizes), self._block_shards)))
        return order, np.concatenate(([0], ends)).astype(np.int64)

    def _plan_block(self, epoch: int, block: int) -> NDArray[np.int64]:
        """Numbers of the samples of a block, shuffled."""
        order, _ = self._epoch(epoch)
        shards = order[block * self._block_shards : (block + 1) * self._block_shards]
        members = np.concatenate([np.arange(int(self._starts[s]), int(self._starts[s + 1])) for s in shards])
        return members[permutation(key_of(self._seed, "stream", epoch, "block", block), len(members))]

    def _plan_flips(self, block: int) -> NDArray[np.bool_]:
        # A counter step gives 4 words of 64 bits, so blocks of counters do not overlap.
        stream = np.random.Philox(key=key_of(self._seed, "mirror"), counter=block * (_FLIPS // 256))
        words = stream.random_raw(_FLIPS // 64)
        return np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little").astype(bool)

    def _shard_of(self, index: int) -> tuple[int, int]:
        """(shard, place in it) of a sample."""
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return shard, index - int(self._starts[shard])

    def _open(self, number: int) -> _OpenShard:
        with self._lock:
            shard = self._opened.get(number)
            if shard is None:
                shard = self._opened[number] = _OpenShard(self._folder, self.manifest, number)
                if len(self._opened) > _OPEN_SHARDS:
                    # Another thread may still read from it: its file closes with the last reference.
                    self._opened.popitem(last=False)
            self._opened.move_to_end(number)
            return shard

    def _decode(self, index: int) -> NDArray[np.uint8]:
        number, place = self._shard_of(index)
        shard = self._open(number)
        manifest = self.manifest
        try:
            image = decode(shard.read(place), manifest.channels)
            if image.shape[1:] != (manifest.resolution, manifest.resolution):
                raise BadImage(f"has {image.shape[2]} x {image.shape[1]} pixels")
        except BadImage as error:
            entry = read_index(self._folder, manifest.shards[number])[place]
            raise UserError(
                f"{self._folder / manifest.shards[number].name}:{entry.key}:{entry.offset}: the image (made from "
                f"{entry.name}) {error}. The shard is damaged: run `advgen shard` again, or copy it again "
                "and verify it."
            ) from None
        return image

    def _labels(self, indices: NDArray[np.int64]) -> NDArray[np.int64] | None:
        if not self.manifest.classes:
            return None
        labels = np.empty(len(indices), np.int64)
        for row, index in enumerate(indices):
            shard, place = self._shard_of(int(index))
            labels[row] = self._open(shard).labels[place]
        return labels


class Prefetcher:
    """Batches that threads read ahead, in the order of the requests. A context manager and an iterator.

    Requests are taken on the consumer's thread. An error is raised where its batch would have come, and ends
    the iteration. Leaving the context, or :meth:`close`, ends the threads.
    """

    def __init__(
        self, stream: ImageStream, requests: Iterable[tuple[Positions, int | None]], *, threads: int = 2, ahead: int = 2
    ) -> None:
        self._batches = in_order(lambda request: stream.read(*request), requests, threads=threads, ahead=max(1, ahead))

    def __iter__(self) -> Iterator[Samples]:
        return self

    def __next__(self) -> Samples:
        return next(self._batches)

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; waits for the reads in work. May be called twice."""
        self._batches.close()


class _OpenShard:
    """The open tar file of a shard and where its samples lie."""

    def __init__(self, folder: Path, manifest: Manifest, number: int) -> None:
        shard = manifest.shards[number]
        entries = read_index(folder, shard)
        self._offsets = np.array([entry.offset for entry in entries], np.int64)
        self._sizes = np.array([entry.size for entry in entries], np.int64)
        self.labels = np.array([-1 if entry.label is None else entry.label for entry in entries], np.int64)
        path = folder / shard.name
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be opened ({error.strerror}). Copy it again, or run `advgen shard` again."
            ) from None
        weakref.finalize(self, os.close, self._file)
        size = os.fstat(self._file).st_size
        if size != shard.bytes:
            raise UserError(
                f"{path}: has {size:,} bytes, the manifest says {shard.bytes:,}. "
                "Copy it again, or run `advgen shard` again."
            )

    def read(self, place: int) -> bytes:
        """The image's bytes. Reads at an offset share no file position, so threads do not meet."""
        offset, size = int(self._offsets[place]), int(self._sizes[place])
        try:
            return os.pread(self._file, size, offset)
        except OSError as error:
            raise BadImage(f"cannot be read ({error.strerror})") from None


class _Cache:
    """Decoded images of the first samples, as many as fit; one array a level.

    Nothing is evicted image by image: an epoch visits every sample once, in another order each time, so that
    keeping a fixed part is hit as often as anything can be. A new level pushes out the one used longest ago.
    """

    def __init__(self, samples: int, channels: int, budget: int) -> None:
        self._samples, self._channels, self._budget = samples, channels, budget
        self._levels: OrderedDict[int, tuple[NDArray[np.uint8], NDArray[np.bool_]]] = OrderedDict()
        self._lock = threading.Lock()

    def of_level(self, level: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(images uint8 [m, channels, level, level], whether each is there bool [m]) of the first m samples."""
        with self._lock:
            if level not in self._levels:
                each = self._channels * level * level
                kept = min(self._samples, self._budget // each)
                while self._levels and sum(i.nbytes for i, _ in self._levels.values()) + kept * each > self._budget:
                    self._levels.popitem(last=False)
                shape = (kept, self._channels, level, level)
                self._levels[level] = (np.empty(shape, np.uint8), np.zeros(kept, bool))
            self._levels.move_to_end(level)
            return self._levels[level]
