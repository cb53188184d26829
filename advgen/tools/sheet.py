"""What a folder of shards looks like: every sample decoded, counts, and a sheet of pictures."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advgen.data.decode import BadImage, decode, decode_ids, in_order
from advgen.data.manifest import Manifest, Shard, read_index
from advgen.data.parts import IDS
from advgen.data.places import Place
from advgen.data.shards import check_shard, load_manifest
from advgen.errors import UserError
from advgen.files import atomic


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Attributes:
        manifest: of the shards.
        wrong: what is wrong, a line each.
        bytes: histogram of the images' sizes: (smallest, largest, count) of bins that double, in bytes.
        classes: samples of each class, as they stand in the indexes.
    """

    manifest: Manifest
    wrong: list[str]
    bytes: list[tuple[int, int, int]]
    classes: list[tuple[str, int]]


def verify(folder: Path, *, threads: int = 2, progress: Callable[[int, int], None] | None = None) -> Verdict:
    """Check a folder of shards wholly: checksums, counts, keys and images that stand twice, and that all decode.

    Args:
        folder: of shards.
        threads: decode on so many.
        progress: called with (done, total) samples.

    Raises:
        UserError: there is no manifest, or it is damaged.
    """
    manifest = load_manifest(folder)
    wrong: list[str] = []
    for shard in manifest.files:
        try:
            check_shard(folder, shard)
        except UserError as error:
            wrong.append(str(error))
    place = Place(folder)
    keys, contents = Counter[str](), dict[bytes, str]()
    sizes, labels, done = Counter[int](), Counter[int](), 0
    for shard in manifest.shards:
        try:
            entries = read_index(place.read, shard, str(folder))
        except UserError as error:
            wrong += [str(error)] if str(error) not in wrong else []
            continue
        if len(entries) != shard.samples:
            wrong.append(f"{folder / shard.name}: has {len(entries)} samples, the manifest says {shard.samples}.")
        keys.update(entry.key for entry in entries)
        labels.update(entry.label for entry in entries if entry.label is not None)
        sizes.update((entry.spans[0][1]).bit_length() for entry in entries)
        check = partial(_check, folder, manifest, shard)
        checked = in_order(check, entries, threads=threads, ahead=64)
        for entry, (content, fault) in zip(entries, checked, strict=True):
            where = f"{folder / shard.name}:{entry.key} (made from {entry.name})"
            if fault:
                wrong.append(f"{where} {fault}.")
            elif (first := contents.setdefault(content, where)) != where:
                wrong.append(f"{where} has the same bytes as {first}.")
            done += 1
            if progress is not None and (done % 64 == 0 or done == manifest.samples):
                progress(done, manifest.samples)
    wrong += [f"{folder}: the key {key} stands {count} times." for key, count in keys.items() if count > 1]
    counted = [(each.name, labels[number]) for number, each in enumerate(manifest.classes)]
    if counted != [(each.name, each.count) for each in manifest.classes]:
        wrong.append(f"{folder}: classes have {counted}, the manifest says otherwise.")
    bins = [(1 << bits - 1, (1 << bits) - 1, count) for bits, count in sorted(sizes.items()) if bits]
    return Verdict(manifest, wrong, bins, counted)


def write_sheet(folder: Path, target: Path, *, columns: int = 12, rows: int = 8, side: int = 96) -> None:
    """Write a contact sheet (PNG): samples from all shards, evenly spread.

    Args:
        folder: of shards.
        target: the PNG.
        columns, rows: of the sheet.
        side: height of a picture on it, in pixels.
    """
    from PIL import Image

    manifest = load_manifest(folder)
    width = max(1, side * manifest.width // manifest.height)
    sheet = Image.new("RGB", (columns * (width + 2) + 2, rows * (side + 2) + 2), "white")
    chosen = np.linspace(0, manifest.samples - 1, min(columns * rows, manifest.samples)).round().astype(int)
    ends = np.cumsum([shard.samples for shard in manifest.shards])
    place = Place(folder)
    for number, index in enumerate(dict.fromkeys(chosen.tolist())):
        shard = int(np.searchsorted(ends, index, side="right"))
        entry = read_index(place.read, manifest.shards[shard], str(folder))[index - ends[shard]]
        try:
            pixels = _decoded(folder, manifest, manifest.shards[shard], entry.spans)[0]
        except BadImage:
            continue  # told by verify; its place stays white
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).convert("RGB")
        row, column = divmod(number, columns)
        sheet.paste(image.resize((width, side)), (2 + column * (width + 2), 2 + row * (side + 2)))
    with atomic(target) as temporary:
        sheet.save(temporary, "PNG")


def _check(folder: Path, manifest: Manifest, shard: Shard, entry) -> tuple[bytes, str]:  # type: ignore[no-untyped-def]
    """(hash of the image's bytes, what is wrong)."""
    try:
        _decoded(folder, manifest, shard, entry.spans)
        return hashlib.sha256(_bytes(folder, shard, entry.spans[0])).digest(), ""
    except BadImage as error:
        return b"", str(error)


def _decoded(folder: Path, manifest: Manifest, shard: Shard, spans) -> list[NDArray[np.generic]]:  # type: ignore[no-untyped-def]
    """Every part of a sample, of the right size."""
    found = []
    for part, span in zip(manifest.parts, spans, strict=True):
        data = _bytes(folder, shard, span)
        channels = 1 if part == "line_art" else manifest.channels
        pixels = decode_ids(data) if part in IDS else decode(data, channels)
        if pixels.shape[-2:] != (manifest.height, manifest.width):
            raise BadImage(f"has {pixels.shape[-1]} x {pixels.shape[-2]} pixels ({part})")
        found.append(pixels)
    return found


def _bytes(folder: Path, shard: Shard, span: tuple[int, int]) -> bytes:
    try:
        with (folder / shard.name).open("rb") as file:
            file.seek(span[0])
            return file.read(span[1])
    except OSError as error:
        raise BadImage(f"cannot be read ({error.strerror})") from None
