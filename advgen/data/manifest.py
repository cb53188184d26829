"""What a folder of shards holds: one manifest, and an index of its samples beside each tar file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from advgen.errors import UserError
from advgen.strict_config import configuration, plain

VERSION = 2
MANIFEST = "manifest.json"
PARTS = ("image", "label_map", "instance_map", "line_art")
"""What a sample may be made of; the image always comes first."""


@configuration
class ClassCount:
    """A class and how many samples it has."""

    name: str
    count: int


@configuration
class Shard:
    """One file of samples; ``index_sha256`` is that of the ``.idx`` file beside it, empty for raw pixels."""

    name: str
    bytes: int
    sha256: str
    samples: int
    index_sha256: str


@configuration
class Level:
    """The same samples, smaller: shard for shard, sample for sample.

    Attributes:
        height: in pixels; the width goes along.
        raw: whether its files are arrays ``.npy`` uint8 [samples, channels, height, width] instead of tars.
        shards: as many as the set itself has.
    """

    height: int
    raw: bool
    shards: tuple[Shard, ...]


@configuration
class Manifest:
    """What a folder of shards holds.

    Attributes:
        version: of this format.
        height: of every image, in pixels.
        width: of every image, in pixels.
        channels: 1 or 3.
        parts: of each sample, from :data:`PARTS`.
        samples: in all shards.
        classes: names and counts, in the order of the labels; empty without labels.
        label_ids: ids that stand in the label maps, ascending.
        shards: in the order of the samples.
        levels: smaller versions, largest first.
        crop: how images were cut to the shape.
        resize_filter: that images were resized with; levels are means over square blocks.
        enlarged: how many images were smaller.
        changed: how many images were converted, by what was done.
        rejected: how many were left out; ``rejected.jsonl`` lists them.
        tool: names and versions of the programs that wrote the shards.
        duplicates: whether images of the same bytes were looked for: "reject" or "keep". Older sets do not say.
    """

    version: int
    height: int
    width: int
    channels: int
    parts: tuple[str, ...]
    samples: int
    classes: tuple[ClassCount, ...]
    label_ids: tuple[int, ...]
    shards: tuple[Shard, ...]
    levels: tuple[Level, ...]
    crop: str
    resize_filter: str
    enlarged: int
    changed: dict[str, int]
    rejected: int
    tool: str
    duplicates: str = "reject"

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over what a run depends on: the samples, and not how they came about."""
        told = ("crop", "resize_filter", "enlarged", "changed", "rejected", "tool", "duplicates")
        values = {name: value for name, value in plain(self).items() if name not in told}
        return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """Of all shards, without the levels."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def files(self) -> tuple[Shard, ...]:
        """All shards, those of the levels included."""
        return (*self.shards, *(shard for level in self.levels for shard in level.shards))


def dump_manifest(manifest: Manifest) -> str:
    """The text of ``manifest.json``."""
    return json.dumps({**plain(manifest), "digest": manifest.digest}, indent=1, sort_keys=True) + "\n"


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Read what :func:`dump_manifest` wrote.

    Args:
        data: content of the file.
        where: its place, for messages.

    Raises:
        UserError: it is damaged or edited, or of another version.
    """
    import pydantic

    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: cannot be read ({error}). Run `advgen shard` again.") from None
    if not isinstance(values, dict) or not isinstance(values.get("version"), int):
        raise UserError(f"{where}: is no manifest of shards. Name a folder that `advgen shard` wrote.")
    if values["version"] != VERSION:
        raise UserError(
            f"{where}: has format version {values['version']}, this advgen reads {VERSION}. "
            "Write the shards again with this advgen, into a new folder."
        )
    digest = values.pop("digest", None)
    try:
        manifest = pydantic.TypeAdapter(Manifest).validate_json(json.dumps(values))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"{where}: {first['loc']}: {first['msg']}. Run `advgen shard` again.") from None
    if manifest.digest != digest or manifest.samples != sum(shard.samples for shard in manifest.shards):
        raise UserError(f"{where}: was edited: its own digest does not fit. Run `advgen shard` again.")
    for shard in manifest.files:
        if shard.name.startswith("/") or "\\" in shard.name or ".." in shard.name.split("/"):
            raise UserError(f"{where}: '{shard.name}' leads out of the folder. Do not use these shards.")
    return manifest


class Entry(NamedTuple):
    """A line of an ``.idx`` file.

    Attributes:
        key: the sample's name in the tar.
        label: index into the classes, or None.
        name: path of the image that it was made from.
        spans: (offset, size) in the tar, in bytes, for each part.
    """

    key: str
    label: int | None
    name: str
    spans: tuple[tuple[int, int], ...]


def index_name(shard: str) -> str:
    """``shard-000000.tar`` to ``shard-000000.idx``."""
    return shard.removesuffix(".tar") + ".idx"


def dump_index(entries: list[Entry]) -> bytes:
    """The content of an ``.idx`` file: a JSON array a line."""
    return "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries).encode()


def read_index(
    read: Callable[[str, str], bytes], shard: Shard, where: str, manifest: Manifest | None = None
) -> list[Entry]:
    """The samples of one shard, in the tar's order.

    Args:
        read: gives the content of a file of the folder, by name and SHA-256.
        shard: whose index.
        where: the folder, for messages.
        manifest: whose parts and classes each sample must have.

    Raises:
        UserError: the ``.idx`` file is missing or not the manifest's, or says what cannot be of its tar.
    """
    name = index_name(shard.name)
    data = read(name, shard.index_sha256)
    if hashlib.sha256(data).hexdigest() != shard.index_sha256:
        raise UserError(f"{where}/{name}: is damaged or of other shards (SHA-256 differs). Run `advgen shard` again.")
    try:
        entries = [_entry(line, shard.bytes) for line in json.loads(b"[" + data.rstrip().replace(b"\n", b",") + b"]")]
        if len(entries) != shard.samples:
            raise ValueError(f"it lists {len(entries)} samples, the manifest says {shard.samples}")
        if manifest is not None:
            _check_entries(entries, manifest)
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{where}/{name}: is no index of its shard ({error}). Run `advgen shard` again.") from None
    return entries


def _entry(line: Any, end: int) -> Entry:
    key, label, name, spans = line
    if type(key) is not str or type(name) is not str or (label is not None and (type(label) is not int or label < 0)):
        raise ValueError(f"{line!r:.80} is no sample")
    for offset, size in spans:
        if type(offset) is not int or type(size) is not int or offset < 0 or size < 1 or offset + size > end:
            raise ValueError(f"a part of {key!r:.80} lies outside the {end:,} bytes of the tar")
    return Entry(key, label, name, tuple((offset, size) for offset, size in spans))


def _check_entries(entries: list[Entry], manifest: Manifest) -> None:
    parts, classes = len(manifest.parts), len(manifest.classes)
    for entry in entries:
        if len(entry.spans) != parts:
            raise ValueError(f"{entry.key!r:.80} has {len(entry.spans)} parts, the manifest says {parts}")
        if (entry.label is None) != (not classes) or (entry.label or 0) >= max(classes, 1):
            raise ValueError(f"the label of {entry.key!r:.80} is {entry.label}, the manifest has {classes} classes")
