"""`advgen sample`: classes that are asked for, and label maps that are painted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from advgen.data.shards import load_manifest
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
        for name, data in (("cgan", LABELLED), ("pix2pixhd", PAIRED)):
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


def test_what_does_not_fit_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(place)
    Image.fromarray(np.full((16, 16), 9, np.uint8)).save(place / "nine.png")
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(place / "colour.png")
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(place / "low.png")
    (place / "text.png").write_text("no picture")
    (place / "nothing").mkdir()
    good, paint = "label-maps/0001.png", ["runs/pix2pixhd", "no.png", "--label-map"]
    for arguments, message in (
        (["runs/cgan", "no.png", "--classes", "2"], "this run has the classes 0 to 1"),
        (["runs/cgan", "no.png", "--label-map", good], "was not trained on label maps"),
        (["runs/pix2pixhd", "no.png"], "Name one: --label-map FILE"),
        (["runs/pix2pixhd", "no.png", "--classes", "1", "--label-map", good], "instances"),
        ([*paint, good], "These networks see instances"),
        ([*paint, "nine.png"], "nine.png: holds the ids [9]; this run knows 0 to 3"),
        ([*paint, "colour.png"], "colour.png: has colours (RGB)"),
        ([*paint, "text.png"], "text.png: is no image"),
        ([*paint, "gone.png"], "gone.png: cannot be read"),
        ([*paint, "nothing"], "holds no label map"),
        ([*paint, good, "--instances", "low.png"], "low.png: has 16 x 8 pixels, its label map 16 x 16"),
        ([*paint, "label-maps", "--instances", "some"], "has no instance map for 0000.png"),
        (["runs/cgan", "no.png", "--styles", "0"], "must be at least 1"),
    ):
        assert main(["sample", *arguments]) == 2, arguments
        assert message in " ".join(capsys.readouterr().err.split()), arguments
    assert not (place / "no.png").exists()


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
