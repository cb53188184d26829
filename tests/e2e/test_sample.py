"""`advgen sample`: classes that are asked for, and label maps that are painted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from advgen.data.shards import load_manifest
from advgen.tools.palette import colours
from pipelines.__main__ import main
from tests.distributed.runs import LABELLED, PAIRED, make_labelled_shards, make_paired_shards, write_recipe
from tests.games.test_resume import GAME_SETTINGS, play

SMALL = {"training__sample_rows": 1, "training__sample_columns": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    make_labelled_shards(folder)
    make_paired_shards(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, data in (("ali", LABELLED), ("cgan", LABELLED), ("pix2pixhd", PAIRED)):
            recipe = write_recipe(folder / f"{name}.yaml", name=name, game=GAME_SETTINGS[name], **data, **SMALL)
            assert play(recipe, None)
    return folder


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_classes_in_turn_or_those_that_are_asked_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    size = ("--rows", "2", "--columns", "2")
    for name, more in (("all", ()), ("ones", ("--classes", "1")), ("both", ("--classes", "0", "1"))):
        assert main(["sample", "runs/cgan", f"{name}.png", *size, *more]) == 0
    whole, ones = pixels(place / "all.png"), pixels(place / "ones.png")
    assert whole.shape == (32, 32, 3) and (whole == pixels(place / "both.png")).all()
    # The second column is of class 1 in both pictures, the first of class 0 in one of them.
    assert (whole[:, 16:] == ones[:, 16:]).all() and (whole[:, :16] != ones[:, :16]).any()


def test_real_images_beside_what_is_made_of_them(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    size = ("--rows", "2", "--images", "labelled")
    assert main(["sample", "runs/ali", "again.png", "--reconstruct", "--columns", "2", *size]) == 0
    assert main(["sample", "runs/ali", "others.png", "--reconstruct", "--columns", "2", *size, "--seed", "1"]) == 0
    assert main(["sample", "runs/ali", "way.png", "--interpolate", "--columns", "5", "--rows", "1", *size[2:]]) == 0
    again, others, way = (pixels(place / f"{name}.png") for name in ("again", "others", "way"))
    assert again.shape == (32, 32, 3) and way.shape == (16, 80, 3)
    first, *between, second = np.split(way, 5, axis=1)
    # The same two images are the ends of the way; both ends of what lies between are their reconstructions.
    assert (first == again[:16, :16]).all() and (second == again[16:, :16]).all()
    assert (between[0] == again[:16, 16:]).all() and (between[2] == again[16:, 16:]).all()
    assert (again[:, :16] != others[:, :16]).any()


def test_maps_are_painted_in_styles(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    one = ["sample", "runs/pix2pixhd", "one.png", "--label-map", "label-maps/0003.png"]
    assert main([*one, "--instances", "instance-maps/0003.png"]) == 0
    assert pixels(place / "one.png").shape == (16, 16, 3)
    (place / "some").mkdir()
    for name in ("0001", "0003"):
        (place / "some" / f"{name}.png").write_bytes((place / "label-maps" / f"{name}.png").read_bytes())
    wide = np.arange(40, dtype=np.uint8).reshape(1, 40).repeat(24, 0) % 4
    Image.fromarray(wide).save(place / "some" / "wide.png")
    Image.fromarray(wide).save(place / "instance-maps" / "wide.png")
    all_of_them = ["--label-map", "some", "--instances", "instance-maps", "--styles", "2"]
    assert main(["sample", "runs/pix2pixhd", "painted", *all_of_them]) == 0
    found = sorted(path.name for path in (place / "painted").iterdir())
    assert found == [f"{name}-{style}.png" for name in ("0001", "0003", "wide") for style in (0, 1)]
    assert pixels(place / "painted/wide-0.png").shape == (24, 40, 3)
    assert (pixels(place / "painted/0003-0.png") == pixels(place / "one.png")).all()
    assert (pixels(place / "painted/0003-0.png") != pixels(place / "painted/0003-1.png")).any()


def test_a_sheet_shows_maps_beside_their_pictures(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    (place / "two").mkdir()
    for name in ("0001", "0003"):
        shutil.copy(place / "label-maps" / f"{name}.png", place / "two")
    maps = ("--label-map", "two", "--instances", "instance-maps", "--styles", "2")
    assert main(["sample", "runs/pix2pixhd", "two-painted", *maps]) == 0
    assert main(["sample", "runs/pix2pixhd", "sheet.png", *maps, "--sheet"]) == 0
    sheet = pixels(place / "sheet.png")
    assert sheet.shape == (32, 48, 3)
    for row, name in enumerate(("0001", "0003")):
        labels = np.asarray(Image.open(place / "two" / f"{name}.png"))
        first, *painted = np.split(sheet[16 * row : 16 * row + 16], 3, axis=1)
        assert (first == np.array(colours(4))[labels]).all()
        for style, picture in enumerate(painted):
            assert (picture == pixels(place / f"two-painted/{name}-{style}.png")).all()
    Image.fromarray(np.zeros((24, 16), np.uint8)).save(place / "two" / "high.png")
    Image.fromarray(np.zeros((24, 16), np.uint8)).save(place / "instance-maps" / "high.png")
    assert main(["sample", "runs/pix2pixhd", "no.png", *maps, "--sheet"]) == 2
    assert "high.png: is not of the size of two/0001.png" in " ".join(capsys.readouterr().err.split())
    assert not (place / "no.png").exists()


ONE = ("--label-map", "label-maps/0003.png", "--instances", "instance-maps/0003.png")


def test_one_instance_gets_another_style(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for name, style in (("seed", ()), ("first", ("--style-of", "905=0")), ("second", ("--style-of", "905=1", "900=0"))):
        assert main(["sample", "runs/pix2pixhd", f"{name}.png", *ONE, *style]) == 0
    assert main(["sample", "runs/pix2pixhd", "edits", *ONE, "--styles", "2", "--style-of", "905=0"]) == 0
    seed, first, second = (pixels(place / f"{name}.png") for name in ("seed", "first", "second"))
    assert (first != second).any()
    assert (seed != first).any() or (seed != second).any()
    assert (pixels(place / "edits/0003-0.png") == first).all() and (pixels(place / "edits/0003-1.png") != first).any()


@pytest.mark.parametrize(("height", "width"), [(70, 53), (32, 64)])
def test_large_maps_are_painted_in_tiles_and_in_half_precision(
    place: Path, monkeypatch: pytest.MonkeyPatch, height: int, width: int
) -> None:
    monkeypatch.chdir(place)
    draw = np.random.default_rng(0)
    for name, low in (("labels", 0), ("ids", 900)):
        blocks = draw.integers(low, low + 4, (height // 8 + 1, width // 8 + 1), dtype=np.uint16)
        Image.fromarray(blocks.repeat(8, 0).repeat(8, 1)[:height, :width]).save(place / f"{name}.png")
    paint = ["--label-map", "labels.png", "--instances", "ids.png", "--style-of", "902=1"]
    for name, more in (
        ("whole", ()),
        ("one", ("--tile", "72")),
        ("tiles", ("--tile", "24")),
        ("half", ("--precision", "bf16")),
        ("both", ("--precision", "bf16", "--tile", "24")),
    ):
        assert main(["sample", "runs/pix2pixhd", f"{name}.png", *paint, *more]) == 0
    whole, one, tiles, half, both = (
        pixels(place / f"{name}.png").astype(int) for name in ("whole", "one", "tiles", "half", "both")
    )
    assert whole.shape == (height, width, 3) and whole.std() > 1
    assert (one == whole).all(), "a tile that covers the map"
    assert (tiles != whole).any() and (half != whole).any()
    # The network's weights are of the size of 0.02, so that its pictures are faint.
    assert abs(tiles - whole).mean() < whole.std() and abs(half - whole).max() <= 2 and abs(both - tiles).max() <= 2


def edited(place: Path, name: str, old: str, new: str) -> str:
    """A copy of the run with another configuration."""
    shutil.copytree(place / "runs/pix2pixhd", place / "runs" / name)
    config = place / "runs" / name / "config.yaml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    return f"runs/{name}"


def test_what_does_not_fit_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(place)
    good, paint = "label-maps/0001.png", ["runs/pix2pixhd", "no.png", "--label-map"]
    whole = [*paint, good, "--instances", "instance-maps/0001.png"]
    Image.fromarray(np.full((16, 16), 9, np.uint8)).save(place / "nine.png")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(place / "colour.png")
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(place / "low.png")
    Image.fromarray(np.zeros((3, 16), np.uint8)).save(place / "flat.png")
    (place / "text.png").write_text("no picture")
    (place / "nothing").mkdir()
    for folder, last in (("good-bad", "nine.png"), ("good-flat", "flat.png"), ("good-other", "label-maps/0002.png")):
        (place / folder).mkdir()
        for name, source in (("0001.png", good), ("0002.png", last)):
            shutil.copy(place / source, place / folder / name)
    instances = np.asarray(Image.open(place / "instance-maps/0002.png"))
    (place / "other-ids").mkdir()
    shutil.copy(place / "instance-maps/0001.png", place / "other-ids/0001.png")
    Image.fromarray(instances + 100).save(place / "other-ids/0002.png")
    (place / "flat-ids").mkdir()
    shutil.copy(place / "instance-maps/0001.png", place / "flat-ids/0001.png")
    shutil.copy(place / "flat.png", place / "flat-ids/0002.png")
    (place / "twice").mkdir()
    for ending in ("png", "tif"):
        Image.open(place / good).save(place / "twice" / f"0001.{ending}")
    three = edited(place, "three", "label_map_classes: 4", "label_map_classes: 3")
    for arguments, message in (
        (["runs/cgan", "no.png", "--classes", "2"], "this run has the classes 0 to 1"),
        (["runs/cgan", "no.png", "--label-map", good], "was not trained on label maps"),
        (["runs/pix2pixhd", "no.png"], "Name one: --label-map FILE"),
        (["runs/pix2pixhd", "no.png", "--classes", "1", "--label-map", good], "--classes: goes with a grid"),
        (["runs/pix2pixhd", "no.png", "--instances", "instance-maps"], "goes with --label-map"),
        ([*paint, good], f"{good}: These networks see instances"),
        ([*paint, "nine.png"], "nine.png: holds the ids [9]; this run knows 0 to 3"),
        ([*paint, "colour.png"], "colour.png: has colours (RGB)"),
        ([*paint, "text.png"], "text.png: is no image"),
        ([*paint, "gone.png"], "gone.png: cannot be read"),
        ([*paint, "nothing"], "holds no label map"),
        ([*paint, "twice", "--instances", "instance-maps"], "0001.png: another map there has the same name"),
        ([*paint, "flat.png", "--instances", "flat.png"], "flat.png: Images of 3x16 are too small"),
        ([*paint, good, "--instances", "low.png"], "low.png: has 16 x 8 pixels, its label map 16 x 16"),
        ([*paint, good, "--instances", "text.png"], "text.png: is no image"),
        ([*paint, "label-maps", "--instances", "some"], "has no instance map for 0000.png"),
        # Of several maps none is painted where one is wrong, and there is no folder.
        ([*paint, "good-bad", "--instances", "instance-maps"], "0002.png: holds the ids [9]; this run knows 0 to 3"),
        ([*paint, "good-flat", "--instances", "flat-ids"], "0002.png: Images of 3x16 are too small"),
        ([*paint, "good-other"], "0001.png: These networks see instances"),
        (
            [*paint, "good-other", "--instances", "other-ids", "--style-of", "903=0"],
            "0002.png: no instance has the id 903; ids are 1000, 1001",
        ),
        ([*whole, "--style-of", "903"], "--style-of 903: give an instance's id and the number of a style"),
        ([*whole, "--style-of", "903=0", "903=1"], "instance 903 stands there twice"),
        ([*whole, "--style-of", "4=0"], "0001.png: no instance has the id 4; ids are 900, 901"),
        ([*whole, "--style-of", "903=2"], "which has the styles 0 to 1, and no 2"),
        ([*whole, "--tile", "7"], "tiles of 7 pixels are too small for this network: take at least 8"),
        ([three, *whole[1:]], "The checkpoint does not fit the recipe's network 'generator'"),
        (["runs/cgan", "no.png", "--reconstruct"], "This run's game finds no latents of images"),
        (["runs/cgan", "no.png", "--interpolate"], "This run's game finds no latents of images"),
        (["runs/ali", "no.png", "--interpolate", "--images", "labelled", "--rows", "49"], "images, and 98 are asked"),
        (["runs/ali", "no.png", "--reconstruct"], "held no images out (data.held_out)"),
        (["runs/ali", "no.png", "--reconstruct", "--columns", "3"], "--columns must be even"),
        (["runs/ali", "no.png", "--interpolate", "--columns", "3"], "--columns must be at least 4"),
        (["runs/ali", "no.png", "--images", "labelled"], "goes with --reconstruct or --interpolate"),
        (["runs/cgan", "no.png", "--styles", "0"], "must be at least 1"),
    ):
        assert main(["sample", *arguments]) == 2, arguments
        assert message in " ".join(capsys.readouterr().err.split()), arguments
        assert not (place / "no.png").exists(), arguments


@pytest.mark.parametrize("name", ["cgan", "pix2pixhd"])
def test_figures_are_taken_with_the_data_s_labels_and_maps(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `demo` is not installed")
    monkeypatch.chdir(place)
    assert main(["evaluate", f"runs/{name}", "--metrics", "fd_lite0", "--samples", "8", "--latest"]) == 0
    records = [json.loads(line) for line in (place / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    digest = load_manifest(place / {"cgan": "labelled", "pix2pixhd": "paired"}[name]).digest
    assert records and all(record["protocol"]["conditions"] == digest for record in records)
