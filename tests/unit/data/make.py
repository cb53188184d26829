"""Small images and shards for the tests of this folder."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from advgen.data.config import FolderImages, ShardingConfig
from advgen.data.manifest import MANIFEST, Manifest, dump_manifest
from advgen.data.shards import write_shards
from advgen.data.sources import open_source
from advgen.data.tars import TarWriter


def picture(number: int, size: int = 8, channels: int = 3) -> np.ndarray:
    """uint8 [size, size(, 3)], another one for each number."""
    shape = (size, size, 3) if channels == 3 else (size, size)
    return np.random.RandomState(number).randint(0, 256, shape).astype(np.uint8)


def encoded(pixels: np.ndarray, format: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format=format)
    return out.getvalue()


def folder_of(folder: Path, count: int, size: int = 8, classes: int = 0) -> Path:
    for number in range(count):
        parent = folder / f"class{number % classes}" if classes else folder
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"{number}.png").write_bytes(encoded(picture(number, size)))
    return folder


def shards_of(folder: Path, count: int, shard_samples: int, size: int = 8, classes: int = 0) -> Manifest:
    """Shards in ``folder / "shards"``; without classes, sample i is ``picture(i)``."""
    images = folder_of(folder / "images", count, size, classes)
    source = open_source(FolderImages(path=str(images), labels="folders" if classes else "none"))
    config = ShardingConfig(shard_samples=shard_samples, shuffle_seed=None)
    return write_shards(source, folder / "shards", resolution=size, channels=3, config=config)


def uneven_shards(folder: Path, sizes: list[int]) -> list[Path]:
    """Shards of these sizes in ``folder / "shards"``; sample i is ``picture(i, 4)``. Returns their tars."""
    manifest = shards_of(folder, 1, 1, size=4)
    place, first, shards = folder / "shards", 0, []
    for number, size in enumerate(sizes):
        writer = TarWriter(place, f"uneven-{number:06d}.tar")
        for sample in range(first, first + size):
            writer.add(f"{sample:08d}", None, f"{sample}.png", [("png", encoded(picture(sample, 4)))])
        shards.append(writer.close())
        first += size
    manifest = replace(manifest, samples=first, shards=tuple(shards), levels=())
    (place / MANIFEST).write_text(dump_manifest(manifest))
    return [place / shard.name for shard in shards]
