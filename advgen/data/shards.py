"""Shards: plain WebDataset tar files, an index beside each, and one manifest that describes them all.

A sample is ``KEY.png`` or ``KEY.jpg``, then ``KEY.cls`` (the label as text) where there are classes. The tars
are uncompressed, so that the index's offsets lead straight to the image's bytes. Equal images give equal
bytes: no time, user or machine is written.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

from advgen.data.decode import BadImage, Fitted, fit, in_order
from advgen.data.sources import Source, SourceImage, new_folder
from advgen.errors import UserError
from advgen.files import sha256, write_json
from advgen.strict_config import configuration, plain

VERSION = 1


@configuration
class ClassCount:
    """A class and how many samples it has."""

    name: str
    count: int


@configuration
class Shard:
    """One tar file; ``index_sha256`` is that of the ``.idx`` file beside it."""

    name: str
    bytes: int
    sha256: str
    samples: int
    index_sha256: str


@configuration
class Skipped:
    """An image that was left out, and why."""

    name: str
    reason: str


@configuration
class Manifest:
    """What a folder of shards holds.

    Attributes:
        version: of this format.
        resolution: side of every image, in pixels.
        channels: 1 or 3.
        samples: images in all shards.
        classes: names and counts, in the order of the labels; empty without labels.
        shards: in the order of the source.
        enlarged: how many images were smaller than the resolution.
        skipped: images left out because they could not be decoded.
        tool: name and version of the program that wrote the shards.
    """

    version: int
    resolution: int
    channels: int
    samples: int
    classes: tuple[ClassCount, ...]
    shards: tuple[Shard, ...]
    enlarged: int
    skipped: tuple[Skipped, ...]
    tool: str

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over what a run depends on: all but ``enlarged``, ``skipped`` and ``tool``."""
        values = {k: v for k, v in plain(self).items() if k not in ("enlarged", "skipped", "tool")}
        return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read the manifest of a folder of shards.

        Raises:
            UserError: there is none, it is damaged or edited, or of another version.
        """
        import pydantic

        path = folder / "manifest.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{folder}: is no folder of shards (no manifest.json). Run `advgen shard` first.") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}). Run `advgen shard` again.") from None
        if not isinstance(values, dict) or not isinstance(values.get("version"), int):
            raise UserError(f"{path}: is no manifest of shards. Name a folder that `advgen shard` wrote.")
        if values["version"] != VERSION:
            raise UserError(
                f"{path}: has format version {values['version']}, this advgen reads {VERSION}. "
                "Write the shards again with this advgen, into a new folder."
            )
        digest = values.pop("digest", None)
        try:
            manifest = pydantic.TypeAdapter(cls).validate_json(json.dumps(values))
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise UserError(f"{path}: {first['loc']}: {first['msg']}. Run `advgen shard` again.") from None
        if manifest.digest != digest or manifest.samples != sum(shard.samples for shard in manifest.shards):
            raise UserError(f"{path}: was edited: its own digest does not fit. Run `advgen shard` again.")
        return manifest


class Entry(NamedTuple):
    """A line of an ``.idx`` file.

    Attributes:
        key: the sample's name in the tar.
        offset: of the image's first byte in the tar.
        size: of the image, in bytes.
        label: index into the classes, or None.
        name: path of the image that it was made from.
    """

    key: str
    offset: int
    size: int
    label: int | None
    name: str


def index_name(shard: str) -> str:
    """``shard-000000.tar`` to ``shard-000000.idx``."""
    return shard.removesuffix(".tar") + ".idx"


def read_index(folder: Path, shard: Shard) -> list[Entry]:
    """The samples of one shard, in the tar's order.

    Raises:
        UserError: the ``.idx`` file is missing or not the manifest's.
    """
    path = folder / index_name(shard.name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Run `advgen shard` again.") from None
    if hashlib.sha256(data).hexdigest() != shard.index_sha256:
        raise UserError(f"{path}: is damaged or of other shards (SHA-256 differs). Run `advgen shard` again.")
    return [Entry(*fields) for fields in json.loads(b"[" + data.rstrip().replace(b"\n", b",") + b"]")]


def write_shards(
    source: Source,
    out: Path,
    *,
    resolution: int,
    channels: int,
    shard_samples: int,
    on_bad: Literal["stop", "skip"] = "stop",
    threads: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write all images of ``source`` into a folder of shards, whole or not at all.

    Every image is decoded once. One that fits is stored byte for byte, others as :func:`decode.fit` makes
    them. A folder of the same shards is replaced, file by file, so that it is valid at every moment.

    Args:
        source: the images.
        out: the folder; new, empty, or one with the same shards.
        resolution: side in pixels.
        channels: 1 or 3.
        shard_samples: samples a shard; the last one may hold fewer.
        on_bad: an image that cannot be decoded stops the writing, or is left out and listed.
        threads: decode and encode on so many; the result does not depend on it.
        progress: called with (done, total) images.

    Raises:
        UserError: an image is bad, all are, or ``out`` holds something else.
    """
    _check_out(out, resolution, channels)
    done, enlarged = 0, 0
    skipped: list[Skipped] = []
    counts = [0] * len(source.classes)
    with new_folder(out, replace=True) as folder:
        writer = _Writer(folder, shard_samples)
        work = in_order(lambda image: _fitted(image, resolution, channels), source, threads=threads, ahead=32)
        with closing(writer), closing(work):
            for image, fitted in work:
                if isinstance(fitted, BadImage):
                    if on_bad == "stop":
                        raise UserError(
                            f"{source.where}: {image.name} {fitted}. Remove it, or leave out all such images "
                            "with --on-bad-image skip."
                        )
                    skipped.append(Skipped(name=image.name, reason=str(fitted)))
                else:
                    writer.add(image, fitted)
                    enlarged += fitted.enlarged
                    if image.label is not None:
                        counts[image.label] += 1
                done += 1
                if progress is not None:
                    progress(done, len(source))
        if not writer.shards:
            first = skipped[0]
            raise UserError(f"{source.where}: no image can be decoded; the first: {first.name} {first.reason}.")
        manifest = Manifest(
            version=VERSION,
            resolution=resolution,
            channels=channels,
            samples=done - len(skipped),
            classes=tuple(ClassCount(name=n, count=c) for n, c in zip(source.classes, counts, strict=True)),
            shards=tuple(writer.shards),
            enlarged=enlarged,
            skipped=tuple(skipped),
            tool=f"advgen {_version()}",
        )
        _check_same(out, manifest)
        write_json(folder / "manifest.json", {**plain(manifest), "digest": manifest.digest})
    return manifest


def verify_shards(folder: Path, progress: Callable[[int, int], None] | None = None) -> Manifest:
    """Compare every shard and index with the manifest: sizes, counts, SHA-256. Reads all bytes once.

    Args:
        folder: of shards.
        progress: called with (done, total) shards.

    Raises:
        UserError: names the first shard that is missing or differs.
    """
    manifest = Manifest.load(folder)
    keys: set[str] = set()
    for number, shard in enumerate(manifest.shards):
        path = folder / shard.name
        if not path.is_file():
            raise UserError(f"{path}: is missing. Copy the folder again, or run `advgen shard` again.")
        if path.stat().st_size != shard.bytes:
            sizes = f"{path.stat().st_size:,} bytes, the manifest says {shard.bytes:,}"
            raise UserError(f"{path}: has {sizes}. Copy it again, or run `advgen shard` again.")
        if sha256(path) != shard.sha256:
            raise UserError(f"{path}: its content changed (SHA-256 differs). Copy it or run `advgen shard` again.")
        entries = read_index(folder, shard)
        keys.update(entry.key for entry in entries)
        if len(entries) != shard.samples:
            raise UserError(f"{path}: its index has {len(entries)} samples, the manifest says {shard.samples}.")
        if progress is not None:
            progress(number + 1, len(manifest.shards))
    if len(keys) != manifest.samples:
        raise UserError(f"{folder}: {manifest.samples - len(keys)} keys stand twice. Run `advgen shard` again.")
    return manifest


class _Writer:
    """Tar files of ``shard_samples`` samples, their indexes and their description."""

    def __init__(self, folder: Path, shard_samples: int) -> None:
        self.shards: list[Shard] = []
        self._folder, self._shard_samples = folder, shard_samples
        self._file: Any = None
        self._entries: list[Entry] = []

    def add(self, image: SourceImage, fitted: Fitted) -> None:
        if self._file is None:
            self._name = f"shard-{len(self.shards):06d}.tar"
            self._file = (self._folder / self._name).open("wb")
            self._hash, self._offset, self._entries = hashlib.sha256(), 0, []
        offset = self._member(f"{image.key}.{fitted.extension}", fitted.data)
        if image.label is not None:
            self._member(f"{image.key}.cls", str(image.label).encode())
        self._entries.append(Entry(image.key, offset, len(fitted.data), image.label, image.name))
        if len(self._entries) == self._shard_samples:
            self.close()

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

    def close(self) -> None:
        if self._file is None:
            return
        self._write(bytes(2 * tarfile.BLOCKSIZE))  # the tar's end
        self._file.close()
        self._file = None
        index = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in self._entries).encode()
        (self._folder / index_name(self._name)).write_bytes(index)
        self.shards.append(
            Shard(
                name=self._name,
                bytes=self._offset,
                sha256=self._hash.hexdigest(),
                samples=len(self._entries),
                index_sha256=hashlib.sha256(index).hexdigest(),
            )
        )


def _fitted(image: SourceImage, resolution: int, channels: int) -> tuple[SourceImage, Fitted | BadImage]:
    try:
        return image, fit(image.bytes, resolution, channels)
    except BadImage as error:
        return image, error


def _check_out(out: Path, resolution: int, channels: int) -> None:
    """Refuse early what would be refused at the end."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / "manifest.json").is_file():
        raise UserError(f"{out}: exists and is no folder of shards. Name a new folder.")
    old = Manifest.load(out)
    if (old.resolution, old.channels) != (resolution, channels):
        raise UserError(
            f"{out}: holds shards of {old.resolution} px and {old.channels} channels, not {resolution} px and "
            f"{channels}. Name a new folder, or remove this one if no run needs it."
        )


def _check_same(out: Path, manifest: Manifest) -> None:
    if (out / "manifest.json").is_file() and Manifest.load(out).digest != manifest.digest:
        raise UserError(
            f"{out}: holds other shards; runs that were started on them could not be resumed. "
            "Name a new folder, or remove this one if no run needs it."
        )


def _version() -> str:
    try:
        return importlib.metadata.version("advgen")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
