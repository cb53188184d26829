"""Drawn pictures as shards, of the very format in which data are trained on: see :mod:`advgen.data.shards`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from advgen.data.config import ShardingConfig
from advgen.data.listing import Files
from advgen.data.manifest import Manifest
from advgen.data.shards import load_manifest, write_shards
from advgen.data.sources import Item, Source
from advgen.errors import UserError
from advgen.files import write_json
from advgen.tools.numbered import Numbered, write_numbered

DRAWN = "drawn.json"
"""The file beside the manifest that says what the pictures were drawn with."""


def write_drawn_shards(
    out: Path,
    pictures: Numbered,
    numbers: range,
    draw: Callable[[range], Iterator[Tensor]],
    progress: Callable[[int, int], None],
    *,
    classes: int,
    shape: tuple[int, int],
) -> Manifest:
    """Write numbered pictures into a folder of shards, in the order of their numbers, each PNG with its text.

    The files lie in a hidden folder beside ``out`` until the shards are whole, so that a killed run goes on. A
    finished folder of the same pictures is left alone.

    Args:
        out: the folder; new, or of the same pictures.
        pictures: names and texts; without sub-folders.
        numbers: of the pictures.
        draw: gives pictures uint8 [n, c, h, w] of consecutive numbers, batch by batch.
        progress: called with (done, total) pictures, as they are drawn and then again as they are packed.
        classes: how many classes the run tells apart, also where not all were drawn; 0 for none.
        shape: (channels, side in pixels).

    Raises:
        UserError: ``out`` holds something else.
    """
    drawn = {**pictures.about, "first": numbers.start, "count": len(numbers), "classes": list(pictures.series.classes)}
    hidden = out.parent / f".{out.name}.images"
    files = hidden / "files"
    if out.exists() and not hidden.is_dir():
        if not out.is_dir() or _read(out / DRAWN) != drawn:
            raise UserError(f"{out}: is there already, and holds other pictures than these. Name a new folder.")
        return load_manifest(out)
    write_numbered(files, pictures, numbers, draw, progress)
    items = tuple(
        Item(
            key=f"{place:08d}",
            name=pictures.name(number),
            files=(pictures.name(number),),
            size=(files / pictures.name(number)).stat().st_size,
            label=pictures.series.label(number),
        )
        for place, number in enumerate(numbers)
    )
    names = tuple(str(label) for label in range(classes))
    source = Source(str(files), Files("folder", files), items, names, unique=True)
    # Pictures that are the same are a finding, and no reason to drop one.
    config = ShardingConfig(shuffle_seed=None, duplicates="keep")
    channels, side = shape
    manifest = write_shards(source, out, resolution=side, channels=channels, config=config, progress=progress)
    write_json(out / DRAWN, drawn)
    shutil.rmtree(hidden)
    return manifest


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
