"""What a folder of shards looks like: every sample decoded, counts, and a sheet of pictures."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advgen.data.decode import BadImage, decode, decode_ids, in_order
from advgen.data.manifest import MANIFEST, Entry, Level, Manifest, Shard, parse_manifest, read_index
from advgen.data.parts import IDS
from advgen.data.places import Place
from advgen.data.shards import check_shard
from advgen.errors import UserError
from advgen.files import atomic


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Attributes:
        manifest: of the shards.
        wrong: what is wrong, a line each.
        remarks: what is as it was asked for, and worth knowing.
        bytes: histogram of the images' sizes: (smallest, largest, count) of bins that double, in bytes.
        classes: samples of each class, as they stand in the indexes.
    """

    manifest: Manifest
    wrong: list[str]
    remarks: list[str]
    bytes: list[tuple[int, int, int]]
    classes: list[tuple[str, int]]


def verify(location: str | Path, *, threads: int = 2, progress: Callable[[int, int], None] | None = None) -> Verdict:
    """Check a folder of shards wholly: checksums, counts, keys and images that stand twice, and that all decode,
    the smaller levels included.

    Args:
        location: of the shards: a folder, or an address, whose files are fetched into the cache.
        threads: decode on so many.
        progress: called with (done, total) images.

    Raises:
        UserError: there is no manifest, or it is damaged.
    """
    place = Place(location)
    folder = None if "://" in str(location) else Path(location).expanduser()
    manifest = _manifest(place)
    checking = _Checking(place, folder, manifest, threads, progress)
    keys, contents, again = Counter[str](), dict[bytes, str](), 0
    sizes, labels = Counter[int](), Counter[int]()
    for number, shard in enumerate(manifest.shards):
        entries: list[Entry] = []
        for entry, content in checking.samples(shard, manifest.height):
            entries.append(entry)
            where = f"{place.show(shard.name)}:{entry.key} (made from {entry.name})"
            if content and (first := contents.setdefault(content, where)) != where:
                again += 1
                if manifest.duplicates != "keep":
                    checking.wrong.append(f"{where} has the same bytes as {first}.")
        keys.update(entry.key for entry in entries)
        labels.update(entry.label for entry in entries if entry.label is not None)
        sizes.update(int(entry.spans[0][1]).bit_length() for entry in entries)
        for level in manifest.levels:
            checking.level(level, level.shards[number], shard, entries)
    wrong = list(dict.fromkeys(checking.wrong))
    wrong += [f"{place.show('')}: the key {key} stands {count} times." for key, count in keys.items() if count > 1]
    counted = [(each.name, labels[number]) for number, each in enumerate(manifest.classes)]
    if counted != [(each.name, each.count) for each in manifest.classes]:
        wrong.append(f"{place.show('')}: classes have {counted}, the manifest says otherwise.")
    bins = [(1 << bits - 1, (1 << bits) - 1, count) for bits, count in sorted(sizes.items()) if bits]
    allowed = again and manifest.duplicates == "keep"
    remarks = [f"{again:,} images have the same bytes as an earlier one, as was allowed"] if allowed else []
    return Verdict(manifest, wrong, remarks, bins, counted)


class _Checking:
    """Goes through shards and gathers what is wrong."""

    def __init__(
        self,
        place: Place,
        folder: Path | None,
        manifest: Manifest,
        threads: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._place, self._folder, self._manifest, self._threads = place, folder, manifest, threads
        self._progress = progress
        self._done, self._total = 0, manifest.samples * (1 + sum(not level.raw for level in manifest.levels))
        self.wrong: list[str] = []

    def samples(self, shard: Shard, height: int) -> Iterator[tuple[Entry, bytes]]:
        """Decode the samples of a tar; gives each with the hash of its image's bytes, empty where it is bad."""
        where = self._place.show(shard.name)
        with self._opened(shard) as file:
            try:
                entries = read_index(self._place.read, shard, self._place.show(""), self._manifest)
            except UserError as error:
                self.wrong.append(str(error))
                return
            check = partial(_check, file, self._manifest, height)
            checked = in_order(check, entries, threads=self._threads, ahead=64)
            for entry, (content, fault) in zip(entries, checked, strict=True):
                if fault and file is not None:  # else the whole file is missing, which is told
                    self.wrong.append(f"{where}:{entry.key} (made from {entry.name}) {fault}.")
                yield entry, content
                self._done += 1
                if self._progress is not None and (self._done % 64 == 0 or self._done == self._total):
                    self._progress(self._done, self._total)

    def level(self, level: Level, small: Shard, shard: Shard, wanted: list[Entry]) -> None:
        """Check that a level's file holds the same samples, and whole ones."""
        where = self._place.show(small.name)
        if not level.raw:
            found = [entry for entry, _ in self.samples(small, level.height)]
            if wanted and found and [e[:2] for e in found] != [e[:2] for e in wanted]:
                self.wrong.append(f"{where}: holds other samples than {shard.name}.")
            return
        with self._opened(small) as file:
            if file is None:
                return
            shape = (shard.samples, self._manifest.channels, level.height, _width(self._manifest, level.height))
            try:
                with os.fdopen(os.dup(file), "rb") as stream:
                    pixels = np.load(stream, allow_pickle=False)
                if pixels.dtype != np.uint8 or pixels.shape != shape:
                    self.wrong.append(f"{where}: holds {pixels.dtype} {list(pixels.shape)}, not uint8 {list(shape)}.")
            except (ValueError, OSError, EOFError) as error:
                self.wrong.append(f"{where}: is no array ({error}).")

    @contextmanager
    def _opened(self, shard: Shard) -> Iterator[int | None]:
        """The checked file, open; None if there is none."""
        file = None
        try:
            if self._folder is None:  # what is fetched is checked as it comes
                file = self._place.opened(shard.name, shard.bytes, shard.sha256)
            else:
                with suppress(OSError):  # told by check_shard
                    file = os.open(self._folder / shard.name, os.O_RDONLY)
                check_shard(self._folder, shard)
        except (UserError, OSError) as error:
            self.wrong.append(str(error))
        try:
            yield file
        finally:
            if file is not None:
                os.close(file)


def write_sheet(location: str | Path, target: Path, *, columns: int = 12, rows: int = 8, side: int = 96) -> None:
    """Write a contact sheet (PNG): samples from all shards, evenly spread. The place of what is damaged stays white.

    Args:
        location: of the shards.
        target: the PNG.
        columns, rows: of the sheet.
        side: height of a picture on it, in pixels.
    """
    from PIL import Image

    place = Place(location)
    manifest = _manifest(place)
    width = max(1, side * manifest.width // manifest.height)
    sheet = Image.new("RGB", (columns * (width + 2) + 2, rows * (side + 2) + 2), "white")
    chosen = np.linspace(0, manifest.samples - 1, min(columns * rows, manifest.samples)).round().astype(int)
    ends = np.cumsum([shard.samples for shard in manifest.shards])
    for number, index in enumerate(dict.fromkeys(chosen.tolist())):
        shard = manifest.shards[at := int(np.searchsorted(ends, index, side="right"))]
        try:
            entry = read_index(place.read, shard, place.show(""), manifest)[index - ends[at]]
            file = place.opened(shard.name, shard.bytes, shard.sha256)
        except (UserError, OSError, IndexError):
            continue  # told by verify
        try:
            pixels = _decoded(file, manifest, manifest.height, entry.spans)[1]
        except BadImage:
            continue
        finally:
            os.close(file)
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).convert("RGB")
        row, column = divmod(number, columns)
        sheet.paste(image.resize((width, side)), (2 + column * (width + 2), 2 + row * (side + 2)))
    with atomic(target) as temporary:
        sheet.save(temporary, "PNG")


def _manifest(place: Place) -> Manifest:
    return parse_manifest(place.read(MANIFEST), place.show(MANIFEST))


def _width(manifest: Manifest, height: int) -> int:
    return manifest.width * height // manifest.height


def _check(file: int | None, manifest: Manifest, height: int, entry: Entry) -> tuple[bytes, str]:
    """(hash of the image's bytes, what is wrong)."""
    if file is None:
        return b"", "cannot be read"
    try:
        return hashlib.sha256(_decoded(file, manifest, height, entry.spans)[0]).digest(), ""
    except BadImage as error:
        return b"", str(error)


def _decoded(
    file: int, manifest: Manifest, height: int, spans: tuple[tuple[int, int], ...]
) -> tuple[bytes, NDArray[np.uint8]]:
    """(bytes, pixels) of a sample's image; all its parts are decoded, and of the right size."""
    found: list[tuple[bytes, NDArray[np.uint8]]] = []
    for part, (offset, size) in zip(manifest.parts, spans, strict=True):
        try:
            data = os.pread(file, size, offset)
        except (OSError, OverflowError, MemoryError, ValueError) as error:
            raise BadImage(f"cannot be read ({error})") from None
        channels = 1 if part == "line_art" else manifest.channels
        pixels = decode_ids(data) if part in IDS else decode(data, channels)
        if pixels.shape[-2:] != (height, _width(manifest, height)):
            raise BadImage(f"has {pixels.shape[-1]} x {pixels.shape[-2]} pixels ({part})")
        found.append((data, pixels))  # type: ignore[arg-type]
    return found[0]
