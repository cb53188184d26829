"""``advgen shard SOURCE OUT``: images into WebDataset shards."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg

from advgen.data.config import FolderImages, PairedImages, ShardingConfig
from advgen.data.duplicates import without_duplicates
from advgen.data.manifest import Manifest
from advgen.data.shards import REJECTED, write_shards
from advgen.data.sources import Source, open_source
from advgen.data.splitting import split
from advgen.errors import UserError
from pipelines.terminal import console, counting

DESCRIPTION = """Write images (a folder, .zip, WebDataset tars, or pairs of images and maps) into WebDataset tars with a
manifest, on all cores. A killed run goes on where it was; a finished folder is checked, and damaged shards are made
again. Images that need no change are stored byte for byte."""


@dataclasses.dataclass
class Arguments:
    source: Positional[str]
    """Folder (searched through), .zip, .tar, or folder of .tar files."""
    out: Positional[Path]
    """Folder of shards to write."""
    resolution: str
    """Pixels a side, as 256, or width x height, as 2048x1024."""
    sharding: OmitArgPrefixes[ShardingConfig]
    """How shards are written."""
    channels: Literal[1, 3] = 3
    """1 grey, 3 colour."""
    labels: str = "none"
    """none, folders (classes from first-level folders), cls (from tars), or a dataset.json or .csv file; cls not
    with --label-maps."""
    label_maps: str | None = None
    """Folder of label maps, matched by name; the source is then the folder of the images."""
    label_map_classes: int | None = None
    """Ids in the label maps are below this."""
    ignore_label: int | None = None
    """An id in the label maps that stands for no class."""
    instance_maps: str | None = None
    """Folder of instance maps."""
    line_art: str | None = None
    """Folder of drawings."""
    image_suffix: str = ""
    """What names of images have before the ending, as _leftImg8bit."""
    label_map_suffix: str = ""
    """The same of label maps."""
    instance_map_suffix: str = ""
    """The same of instance maps."""
    line_art_suffix: str = ""
    """The same of drawings."""
    validation: Annotated[float, arg(metavar="SHARE")] = 0.0
    """This share of the samples goes to OUT/validation and the others to OUT/train."""
    validation_by: Literal["key", "group"] = "key"
    """Samples are divided one by one, or by group (the table's column `group`, else the folder)."""


def main(argv: list[str]) -> int:
    """Shard images."""
    try:
        given = tyro.cli(Arguments, args=argv, prog="advgen shard", description=DESCRIPTION)
        images = _images(given)
    except ValueError as error:
        raise UserError(str(error)) from None
    shape = _shape(given.resolution)
    if not 0 <= given.validation < 1:
        raise UserError(f"--validation {given.validation}: must be at least 0 and below 1.")
    source = open_source(images)
    if not given.validation:
        _write(source, given.out, shape, given)
        return 0
    if given.sharding.duplicates == "reject":
        source = without_duplicates(source)  # before it is divided: one of two would be trained on, the other held out
    parts = split(source, given.validation, by_group=given.validation_by == "group")
    for name, part in parts.items():
        if not len(part):
            raise UserError(f"{given.source}: no sample falls to {name}. Take another share, or divide by key.")
    for name, part in parts.items():
        _write(part, given.out / name, shape, given)
    return 0


def _write(source: Source, out: Path, shape: tuple[int, int], given: Arguments) -> None:
    with counting("images") as progress:
        manifest = write_shards(
            source, out, resolution=shape, channels=given.channels, config=given.sharding, progress=progress
        )
    console.print(f"{out}: {summary(manifest)}")
    if source.others:
        console.print(f"  {source.others:,} other files are no pictures that were asked for, and not read")
    if manifest.rejected:
        reasons = Counter(_kind(line) for line in (out / REJECTED).read_text(encoding="utf-8").splitlines())
        for reason, count in reasons.most_common(5):
            console.print(f"  {count:,} left out: each {reason}")
        console.print(f"  all of them: {out / REJECTED}")


def summary(manifest: Manifest) -> str:
    """What a folder of shards holds, in a line."""
    levels = sum(shard.bytes for level in manifest.levels for shard in level.shards)
    size = f"{manifest.bytes / 1e6:,.1f} MB"
    if manifest.levels:
        heights = ", ".join(str(level.height) for level in manifest.levels)
        size += f" and {levels / manifest.bytes:.0%} more for levels of {heights} px"
    about = [f"{manifest.samples:,} images in {len(manifest.shards)} shards", size]
    about += [f"{len(manifest.classes)} classes"] if manifest.classes else []
    about += [f"{manifest.enlarged:,} were smaller and are enlarged"] if manifest.enlarged else []
    about += [f"{count:,} {what}" for what, count in manifest.changed.items()]
    about += [f"{manifest.rejected:,} left out"] if manifest.rejected else []
    return "; ".join(about)


def _kind(line: str) -> str:
    """A reason without the numbers and names that differ from image to image."""
    import json

    return re.sub(r"[0-9]+|\(.*\)|(?<= as ).*", "...", json.loads(line)["reason"])


def _shape(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
    if not found:
        raise UserError(f"--resolution {text}: give pixels a side, as 256, or width x height, as 2048x1024.")
    width = int(found[1])
    height = int(found[2] or width)
    if found[2] is None and (width < 4 or width & (width - 1)):
        raise UserError(f"--resolution {text}: must be a power of two and at least 4.")
    if min(height, width) < 4:
        raise UserError(f"--resolution {text}: must be at least 4 pixels a side.")
    return height, width


def _images(given: Arguments) -> FolderImages | PairedImages:
    if given.label_maps is None:
        if given.instance_maps or given.line_art:
            raise UserError("--instance-maps and --line-art go with --label-maps; name their folder, too.")
        return FolderImages(path=given.source, labels=given.labels)
    if given.label_map_classes is None:
        raise UserError("--label-maps needs --label-map-classes: ids in the maps are below it.")
    shared = {field.name for field in dataclasses.fields(PairedImages)} - {"path", "kind"}
    if given.labels == "cls":
        raise UserError("--labels cls: is for tars. Classes of pairs come from folders, or a .json or .csv file.")
    return PairedImages(path=given.source, **{name: getattr(given, name) for name in shared})
