from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advgen.data.config import DataConfig, DataSet, EarthTiles, FolderImages, PointsConfig
from advgen.errors import UserError
from advgen.strict_config import dump_yaml, parse, read_yaml

TRAIN = DataSet(shards="s")


@pytest.mark.parametrize("resolution", [0, 2, 24, -8])
def test_resolution_is_a_power_of_two(resolution: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        DataConfig(resolution=resolution, train=TRAIN)


def test_values_that_contradict_one_another_are_refused() -> None:
    earth = DataSet(shards="s", images=EarthTiles(path="t", split="train", resolution=32))
    with pytest.raises(ValueError, match="enlarged"):
        DataConfig(resolution=64, train=earth)
    with pytest.raises(ValueError, match="no labels"):
        DataConfig(resolution=32, classes=3, train=earth)
    with pytest.raises(ValueError, match="labels to 'folders'"):
        DataConfig(resolution=32, classes=3, train=DataSet(shards="s", images=FolderImages(path="p")))
    with pytest.raises(ValueError, match="same folder"):
        DataConfig(resolution=32, train=TRAIN, held_out=TRAIN)
    with pytest.raises(ValueError, match="leave canonical_nodes at 1"):
        DataConfig(resolution=32, classes=2, balance="classes", canonical_nodes=2, train=TRAIN)
    with pytest.raises(ValueError, match="at least 2"):
        DataConfig(resolution=32, classes=1, train=TRAIN)


GRID: dict[str, Any] = {"points": PointsConfig(kind="grid25"), "resolution": 1, "channels": 2}


def test_points_take_the_place_of_images() -> None:
    assert DataConfig(**GRID).train is None
    assert DataConfig(**GRID, classes=25).classes == 25
    DataConfig(points=PointsConfig(kind="sprinkler"), resolution=1, channels=1)
    with pytest.raises(ValueError, match="train is missing: name the folder of shards"):
        DataConfig(resolution=32)
    with pytest.raises(ValueError, match="channels of images must be 1 or 3, not 2"):
        DataConfig(resolution=32, channels=2, train=TRAIN)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": TRAIN}, "leave train out, or points"),
        ({"mirror": True, "held_out": TRAIN}, "leave held_out, mirror out"),
        ({"label_map_classes": 3, "instance_maps": True}, "leave label_map_classes, instance_maps out"),
        ({"balance": "classes", "classes": 25}, "leave balance out"),
        ({"channels": 3}, "points of grid25 have resolution 1 and channels 2, not 1 and 3"),
        ({"resolution": 4}, "resolution 1 and channels 2, not 4 and 2"),
        ({"classes": 8}, "classes of grid25 must be 0 or 25, one for each mode, not 8"),
        ({"points": PointsConfig(kind="swiss_roll"), "classes": 2}, "must be 0, as the set has no modes, not 2"),
    ],
)
def test_what_points_do_not_have_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        DataConfig(**{**GRID, **changes})


def test_an_unknown_set_is_told_with_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("points: {kind: grid}\nresolution: 1\nchannels: 2\n")
    with pytest.raises(UserError, match="points.kind: .*grid25"):
        parse(DataConfig, read_yaml(path), "r.yaml")


def test_yaml_there_and_back_with_both_kinds_of_images(tmp_path: Path) -> None:
    config = DataConfig(
        resolution=32,
        train=DataSet(shards="a", images=EarthTiles(path="t", split="train")),
        held_out=DataSet(shards="b", images=FolderImages(path="x.zip")),
    )
    (tmp_path / "r.yaml").write_text(dump_yaml(config))
    assert parse(DataConfig, read_yaml(tmp_path / "r.yaml"), "r.yaml") == config


def test_a_typing_error_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("resolution: 32\ntrain:\n  shards: s\n  images: {kind: folder, pth: x}\n")
    with pytest.raises(UserError) as caught:
        parse(DataConfig, read_yaml(path), "r.yaml")
    assert "train.images.pth: unknown key; did you mean 'path'?" in str(caught.value)
