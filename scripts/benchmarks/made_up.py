"""Shards of made-up pictures as a recipe's data want them: for benchmarks, to which a picture is so many pixels."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from advgen.data.config import DataConfig, FolderImages, PairedImages, ShardingConfig
from advgen.data.shards import write_shards
from advgen.data.sources import open_source

_BLOCKS = 8  # a label map has so many patches a side


def make_up_shards(data: DataConfig, folder: Path, least: int = 32) -> Path:
    """Shards of smooth noise, with class labels, label maps and instance maps where the recipe's data have them.

    Args:
        data: the recipe's, which tells sizes and numbers of classes.
        folder: new; gets the pictures and the shards.
        least: how many pictures, if there are no more classes.

    Returns:
        The folder of the shards.
    """
    height, width = data.resolution, data.width or data.resolution
    count = max(least, data.classes)
    draw = np.random.default_rng(0)
    labels = [(f"{number:04d}.png", number % max(1, data.classes)) for number in range(count)]
    for name, _ in labels:
        small = draw.integers(0, 256, (_BLOCKS, _BLOCKS, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        _save(np.asarray(picture if data.channels == 3 else picture.convert("L")), folder / "images" / name)
        if data.label_map_classes:
            patches = draw.integers(0, data.label_map_classes, (_BLOCKS, _BLOCKS))
            _save(_enlarged(patches, height, width).astype(np.uint8), folder / "label-maps" / name)
        if data.instance_maps:
            numbers = np.arange(_BLOCKS**2).reshape(_BLOCKS, _BLOCKS)
            _save(_enlarged(numbers, height, width).astype(np.uint16), folder / "instance-maps" / name)
    how: dict[str, Any] = {"path": str(folder / "images")}
    if data.classes:
        with (folder / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("file", "label"), *labels])
        how["labels"] = str(folder / "labels.csv")
    if data.label_map_classes:
        how |= {"label_maps": str(folder / "label-maps"), "label_map_classes": data.label_map_classes}
        how |= {"instance_maps": str(folder / "instance-maps")} if data.instance_maps else {}
    source = open_source(PairedImages(**how) if data.label_map_classes else FolderImages(**how))
    write_shards(source, folder / "shards", resolution=(height, width), channels=data.channels, config=ShardingConfig())
    return folder / "shards"


def _enlarged(patches: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    rows, columns = (np.arange(size) * _BLOCKS // size for size in (height, width))
    return patches[rows][:, columns]


def _save(values: NDArray[Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
