"""Samples by position: sample number p of an endless, shuffled stream is a function of (seed, p) alone.

Nothing has a state: reading from any position, by any number of ranks that take strided positions, gives the same
samples. Single samples are read by their offset, so nothing before them is.
"""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from advgen.data.decode import BadImage, box_mean, decode, decode_ids
from advgen.data.decoded import Decoded
from advgen.data.manifest import MANIFEST, Manifest, parse_manifest
from advgen.data.open_shards import OpenShards
from advgen.data.order import Balanced, Order, Positions, Shuffled
from advgen.data.parts import IDS, Replaced, Samples
from advgen.data.places import Place, Remote
from advgen.errors import UserError
from advgen.seeds import key_of

_DRAWS = 4096  # random words made at a time
_SMALL = 64  # up to this height smaller levels are taken of whole batches


class Stream(Protocol):
    """Samples by position. May be used from several threads, and sent to another process."""

    def read(self, positions: Positions, level: int | None = None) -> Samples:
        """The samples at some positions; see :meth:`ImageStream.read`."""
        ...


class NumberedStream(Stream, Protocol):
    """A stream whose samples can be had by their number, too, as an evaluation wants them."""

    @property
    def digest(self) -> str:
        """Says which samples these are."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...

    def fetch(self, indices: NDArray[np.int64], level: int | None = None) -> Samples:
        """Samples by their number; see :meth:`ImageStream.fetch`."""
        ...


class ImageStream:
    """Reads a folder of shards by position.

    Attributes:
        manifest: of the shards.
    """

    def __init__(
        self,
        location: str | Path,
        *,
        seed: int,
        resolution: int,
        channels: int,
        width: int | None = None,
        block_shards: int = 16,
        lanes: int = 1,
        balanced: bool = False,
        mirror: bool = False,
        crop: int | None = None,
        cache_bytes: int = 512 << 20,
        remote: Remote | None = None,
    ) -> None:
        """Open the shards; nothing but the manifest is read yet.

        Args:
            location: folder of shards; local, or an address as ``s3://bucket/folder``.
            seed: of the order, of mirroring and of crops.
            resolution: height that the run expects, in pixels.
            channels: that the run expects.
            width: that the run expects; None: the height.
            block_shards: samples are shuffled over so many shards at a time.
            lanes: canonical nodes (:mod:`advgen.data.order`).
            balanced: show every class equally often.
            mirror: flip each position's sample left to right with probability 1/2.
            crop: cut each position's sample to a square of so many pixels at a random place.
            cache_bytes: memory for decoded images; what does not fit is decoded each time.
            remote: how remote places are read.

        Raises:
            UserError: no shards, damaged ones, ones of another size or number of channels, or classes without samples
                that are to be balanced.
        """
        self._made_of = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self._place = Place(location, remote)
        self.manifest = parse_manifest(self._place.read(MANIFEST), self._place.show(MANIFEST))
        found = (self.manifest.height, self.manifest.width, self.manifest.channels)
        wanted = (resolution, width or resolution, channels)
        if found != wanted:
            raise UserError(
                f"{location}: its images have {_size(*found)} and {found[2]} channels, the recipe says "
                f"{_size(*wanted)} and {wanted[2]}. Change the recipe, or write shards for it into another folder."
            )
        self._seed, self._mirror, self._crop, self._remote = seed, mirror, crop, remote is not None
        self._shards = OpenShards(self._place, self.manifest)
        sizes = [shard.samples for shard in self.manifest.shards]
        self._order: Order = Shuffled(seed, sizes, block_shards, lanes)
        if balanced:
            self._order = self._balanced(sizes)
        self._cache = Decoded(self.manifest, 0 if len(self.manifest.parts) > 1 else cache_bytes)
        self._hinted: tuple[int, tuple[int, ...]] = (0, ())
        self._own = threading.local()
        self._words = functools.lru_cache(32)(self._draw)

    def __reduce__(self) -> tuple[Any, ...]:
        """Sent to another process, a stream is opened anew."""
        return _opened, (self._made_of,)

    def __str__(self) -> str:
        return self._place.show("")

    @property
    def digest(self) -> str:
        """The manifest's."""
        return self.manifest.digest

    def __len__(self) -> int:
        """Samples in an epoch."""
        return self.manifest.samples

    def index_of(self, positions: Positions) -> NDArray[np.int64]:
        """Which sample stands at each position: a permutation of all samples in every epoch, unless balanced.

        Args:
            positions: int64 [n], from 0 on.

        Returns:
            int64 [n], numbers of samples in the order of the shards.
        """
        return self._order.index_of(positions)

    def keys_of(self, positions: Positions) -> list[str]:
        """The key in the tars of each position's sample."""
        shards, places = self._shards.locate(self.index_of(positions))
        keys = [""] * len(shards)
        for shard in np.unique(shards).tolist():
            entries = self._shards.entries(shard, self.manifest.height)
            for row in np.flatnonzero(shards == shard).tolist():
                keys[row] = entries[places[row]].key
        return keys

    def read(self, positions: Positions, level: int | None = None) -> Samples:
        """The samples at some positions.

        Args:
            positions: int64 [n], from 0 on; in any order, also repeated.
            level: height of the result in pixels, the stored one divided by a power of two; the mean over blocks of
                pixels, rounded, from the nearest stored level. Crops shrink with it. None: the stored height.

        Raises:
            UserError: a shard is missing or damaged, or no sample of it can be decoded; names shard, key and offset.
        """
        positions = np.asarray(positions, np.int64)
        if self._remote and len(positions):
            self._hint(int(positions[0]), self._stored(self._level(level)))
        flips = self.flips_of(positions) if self._mirror else None
        samples = self._fetched(self.index_of(positions), level, flips)
        if self._crop is not None:
            side = self._crop * self._level(level) // self.manifest.height
            samples = self._cropped(samples, positions, side, flips)
        return samples

    def fetch(self, indices: NDArray[np.int64], level: int | None = None) -> Samples:
        """Samples by their number in the order of the shards, never mirrored; otherwise like :meth:`read`."""
        return self._fetched(indices, level, None)

    def _fetched(self, indices: NDArray[np.int64], level: int | None, flips: NDArray[np.bool_] | None) -> Samples:
        manifest, level, count = self.manifest, self._level(level), len(indices)
        width = manifest.width * level // manifest.height
        stored = self._stored(level)
        images = np.empty((count, manifest.channels, level, width), np.uint8)
        ids = {p: np.empty((count, level, width), np.int32) for p in manifest.parts if p in IDS}
        lines = np.empty((count, 1, level, width), np.uint8) if "line_art" in manifest.parts else None
        used, replaced = indices.copy(), []
        kept, filled = self._cache.of_level(level)
        cached = np.zeros(count, bool)
        small = np.flatnonzero(indices < len(filled))
        cached[small] = filled[indices[small]]
        images[cached] = kept[indices[cached]]
        if flips is not None and (turned := cached & flips).any():
            images[turned] = images[turned][..., ::-1]
        missing = np.flatnonzero(~cached).tolist()
        # Mirrored on its way to its place, which costs a pass over the pixels less.
        ways = [slice(None, None, -1 if flips is not None and flips[row] else 1) for row in range(count)]

        def put(row: int, image: NDArray[np.uint8]) -> None:
            if (index := indices[row]) < len(filled) and used[row] == index:
                kept[index] = image
                filled[index] = True  # after the pixels: other threads look at it
            images[row] = image[..., ways[row]]

        shards, places = (each.tolist() for each in self._shards.locate(indices))
        step, whole = stored // level, []
        for row in missing:
            parts, shift, bad = self._decode(shards[row], places[row], stored)
            used[row] += shift
            replaced += bad
            if step > 1 and stored <= _SMALL:
                whole.append(parts["image"])
            else:
                put(row, box_mean(parts["image"], level))
            for part, values in ids.items():
                values[row] = parts[part][step // 2 :: step, step // 2 :: step][..., ways[row]]
            if lines is not None:
                lines[row] = box_mean(parts["line_art"], level)[..., ways[row]]
        if whole:
            for row, image in zip(missing, box_mean(np.stack(whole), level), strict=True):
                put(row, image)
        return Samples(images, self._labels(used), **ids, line_art=lines, replaced=tuple(replaced))

    def flips_of(self, positions: Positions) -> NDArray[np.bool_]:
        """Which positions are mirrored, bool [n]; whether this stream mirrors or not."""
        flips = np.empty(len(positions), bool)
        blocks = positions // _DRAWS
        for block in np.unique(blocks):
            chosen = blocks == block
            bits = self._words("mirror", int(block), _DRAWS // 64).view(np.uint8)
            flips[chosen] = np.unpackbits(bits, bitorder="little")[positions[chosen] % _DRAWS].astype(bool)
        return flips

    def _cropped(self, samples: Samples, positions: Positions, side: int, flips: NDArray[np.bool_] | None) -> Samples:
        h, w = samples.images.shape[2:]
        words = np.empty((len(positions), 2), np.uint64)
        for block in np.unique(positions // _DRAWS):
            chosen = positions // _DRAWS == block
            drawn = self._words("crop", int(block), 2 * _DRAWS).reshape(-1, 2)
            words[chosen] = drawn[positions[chosen] % _DRAWS]
        room = np.array([h - side + 1, w - side + 1], np.uint64)
        tops, lefts = ((words >> np.uint64(32)) * room >> np.uint64(32)).astype(np.int64).T
        if flips is not None:
            lefts = np.where(flips, w - side - lefts, lefts)  # the place that it is in before it is mirrored
        return samples.cropped(tops, lefts, side, side)

    def _draw(self, purpose: str, block: int, count: int) -> NDArray[np.uint64]:
        # A counter step gives 4 words of 64 bits, so blocks of counters do not overlap.
        stream = np.random.Philox(key=key_of(self._seed, purpose), counter=block * (count // 4))
        return stream.random_raw(count).astype("<u8")

    def _balanced(self, sizes: list[int]) -> Balanced:
        classes = self.manifest.classes
        empty = [each.name for each in classes if not each.count]
        if not classes or empty:
            what = f"class {empty[0]} has no sample" if empty else "the samples have no labels"
            raise UserError(f"{self._place.show('')}: {what}, so classes cannot be balanced. Set data.balance to none.")
        labels = np.concatenate([self._shards.labels(number) for number in range(len(sizes))])
        return Balanced(self._seed, labels, len(classes), sizes)

    def _hint(self, position: int, height: int) -> None:
        """Let the shards of this block and the next be fetched meanwhile."""
        now, later = self._order.shards_near(position)
        wanted = (height, (*now, *later))
        if wanted != self._hinted:
            self._hinted = wanted
            self._shards.want(wanted[1], height)

    def _stored(self, level: int) -> int:
        """The stored height from which a level is taken."""
        heights = (self.manifest.height, *(each.height for each in self.manifest.levels))
        return min(height for height in heights if height >= level)

    def _level(self, level: int | None) -> int:
        stored = self.manifest.height
        level = stored if level is None else level
        factor = stored // level if level > 0 else 0
        if factor * level != stored or factor & (factor - 1) or self.manifest.width % factor:
            raise ValueError(f"level {level} is not the stored resolution {stored} divided by a power of two")
        return level

    def _decode(self, number: int, place: int, stored: int) -> tuple[dict[str, NDArray[Any]], int, list[Replaced]]:
        """(parts, how far from the place they stand, what was replaced): the next of the shard that decodes."""
        count = self.manifest.shards[number].samples
        reason = ""
        for shift in range(count):
            other = (place + shift) % count
            try:
                parts = self._parts(number, other, stored)
            except BadImage as error:
                reason = reason or str(error)
                continue
            if not shift:
                return parts, 0, []
            by = self._shards.entries(number, self.manifest.height)[other].key
            return parts, other - place, [Replaced(self._where(number, place), reason, by)]
        raise UserError(
            f"{self._where(number, place)} {reason}, and so do all {count} of the shard. It is damaged: run "
            "`advgen shard` again, or copy it again and verify it (`advgen verify`)."
        )

    def _parts(self, number: int, place: int, stored: int) -> dict[str, NDArray[Any]]:
        manifest = self.manifest
        data = self._shards.read(number, place, stored)
        if isinstance(data, np.ndarray):
            return {"image": data}
        parts: dict[str, NDArray[Any]] = {}
        for part, content in zip(manifest.parts, data, strict=True):
            try:
                if part in IDS:
                    parts[part] = decode_ids(content)
                else:
                    into = self._memory(stored) if part == "image" and stored > _SMALL else None
                    parts[part] = decode(content, _channels(part, manifest), into)
                if parts[part].shape[-2:] != (stored, manifest.width * stored // manifest.height):
                    raise BadImage(f"has {parts[part].shape[-1]} x {parts[part].shape[-2]} pixels")
            except BadImage as error:
                raise error if part == "image" else BadImage(f"{error} ({part})") from None
        return parts

    def _memory(self, stored: int) -> NDArray[np.uint8]:
        """This thread's own memory for an image; what is in it is used before the thread decodes the next."""
        size = self.manifest.channels * stored * (self.manifest.width * stored // self.manifest.height)
        memory = getattr(self._own, "memory", None)
        if memory is None or memory.size < size:
            memory = self._own.memory = np.empty(size, np.uint8)
        return memory

    def _where(self, number: int, place: int) -> str:
        entry = self._shards.entries(number, self.manifest.height)[place]
        name = self._place.show(self.manifest.shards[number].name)
        return f"{name}:{entry.key}:{entry.spans[0][0]}: the image (made from {entry.name})"

    def _labels(self, indices: NDArray[np.int64]) -> NDArray[np.int64] | None:
        if not self.manifest.classes:
            return None
        shards, places = (each.tolist() for each in self._shards.locate(indices))
        return np.array([self._shards.labels(s)[p] for s, p in zip(shards, places, strict=True)], np.int64)


def _opened(made_of: dict[str, Any]) -> ImageStream:
    return ImageStream(**made_of)


def _size(height: int, width: int, _: int) -> str:
    return f"{height} px" if height == width else f"{width} x {height} px"


def _channels(part: str, manifest: Manifest) -> int:
    return 1 if part == "line_art" else manifest.channels
