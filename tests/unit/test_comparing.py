"""Metrics of a folder of images and of shards, and references that are computed ahead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from advgen.build import open_shards
from pipelines.__main__ import main
from tests.distributed.runs import write_images


class Means:
    """A feature network of the tests': means over quarters of each channel."""

    identity: ClassVar[dict[str, Any]] = {"name": "means"}
    dimensions = 12

    def __call__(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of real images and of others, the others as files, too."""
    folder = tmp_path_factory.mktemp("comparing")
    write_images(folder / "reals", 40, seed=1)
    write_images(folder / "others", 30, seed=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("reals", "others"):
            options = ("--resolution", "16", "--shuffle-seed", "None")
            assert main(["shard", name, f"{name}-shards", *options]) == 0
    return folder


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In that folder, with means in the place of EfficientNet-Lite0."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("advgen.metrics.lite0.load_lite0", lambda _: Means())
    yield place
    (place / "records.jsonl").unlink(missing_ok=True)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """By definition, with scipy's root."""
    from scipy.linalg import sqrtm

    def features(images: np.ndarray) -> np.ndarray:
        quarters = images.reshape(len(images), 3, 2, images.shape[2] // 2, 2, images.shape[3] // 2)
        return quarters.astype(np.float64).mean((3, 5)).reshape(len(images), 12)

    x, y = features(a), features(b)
    cx, cy = np.cov(x.T), np.cov(y.T)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx + cy - 2 * np.real(sqrtm(cx @ cy))))


def pixels(name: str) -> np.ndarray:
    stream = open_shards(name)
    return stream.fetch(np.arange(len(stream))).images


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["evaluate", *arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_folder_and_its_shards_have_the_figures_of_the_definition(capsys: pytest.CaptureFixture[str]) -> None:
    rest = ("--reference", "reals-shards", "--metrics", "fd_lite0,recall")
    folder, shards = printed(capsys, "folder", "others", *rest), printed(capsys, "shards", "others-shards", *rest)
    wanted = distance(pixels("others-shards"), pixels("reals-shards"))
    assert [record["name"] for record in folder] == ["fd_lite0", "recall"]
    assert folder[0]["value"] == pytest.approx(wanted, rel=1e-6)  # means in float32
    assert [record["value"] for record in shards] == [record["value"] for record in folder]
    protocol = folder[0]["protocol"]
    assert (protocol["samples"], protocol["reference_samples"], protocol["resolution"]) == (30, 40, 16)
    assert protocol["images"].startswith("folder ") and shards[0]["protocol"]["images"].startswith("shards ")


def test_both_sides_are_looked_at_smaller(capsys: pytest.CaptureFixture[str]) -> None:
    rest = ("--reference", "reals-shards", "--resolution", "8", "--samples", "30")
    (folder,), (shards,) = printed(capsys, "folder", "others", *rest), printed(capsys, "shards", "others-shards", *rest)
    assert folder["value"] == shards["value"] and folder["resolution"] == 8


def test_records_go_to_a_file_and_are_not_taken_again(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    arguments = ["evaluate", "folder", "others", "--reference", "reals-shards", "--out", "records.jsonl"]
    assert main(arguments) == 0
    content = (here / "records.jsonl").read_bytes()
    capsys.readouterr()
    assert main(arguments) == 0
    assert capsys.readouterr().out.strip().endswith("(known)") and (here / "records.jsonl").read_bytes() == content
    assert main([*arguments, "--metrics", "recall"]) == 0
    assert (here / "records.jsonl").read_bytes().startswith(content)


def test_a_reference_is_computed_ahead_and_refused_where_it_does_not_fit(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    assert main(["evaluate", "reference", "reals-shards", "--metrics", "fd_lite0,recall", "--cache", "ahead"]) == 0
    first, key, other = capsys.readouterr().out.splitlines()
    path = first.removeprefix("fd_lite0: ")
    assert json.loads(key)["count"] == 40 and other.startswith("recall: keeps nothing")
    rest = ("--reference", "reals-shards", "--reference-statistics", path, "--cache", "none")
    (record,) = printed(capsys, "folder", "others", *rest)
    assert not (here / "none").exists(), "it was not computed"
    (computed,) = printed(capsys, "folder", "others", *rest[:2])
    assert computed["value"] == record["value"]
    assert main(["evaluate", "folder", "others", *rest, "--resolution", "8"]) == 2
    assert "resolution: 16 in the file, 8 wanted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("folder", "nowhere"), "nowhere: no images there"),
        (("folder", "others", "--samples", "31"), "fd_lite0: is of 31 images, and others holds 30."),
        (("folder", "others", "--metrics", "fid50k_full"), "need a file with FID's Inception weights"),
        (("folder", "others", "--metrics", "style_diversity"), "style_diversity: is taken of a game's own images"),
        (("folder", "others", "--resolution", "12"), "others: its images are 16 pixels high"),
        (("shards", "nowhere"), "nowhere"),
        (("folder", "large"), "reals-shards: its images are 16 pixels high and cannot be looked at with 32"),
        (("folder", "mixed"), "mixed/1.png: has 8 x 8 pixels, and 0.png 16 x 16"),
        (("folder", "damaged"), "damaged/1.png: "),
        (("folder", "wide"), "wide: has images of 32 x 16 pixels, and reals-shards of 16 x 16: another shape"),
    ],
)
def test_what_cannot_be_compared_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], here: Path, arguments: tuple[str, ...], message: str
) -> None:
    sizes = {"large": [(32, 32)] * 2, "mixed": [(16, 16), (8, 8)], "damaged": [(16, 16)] * 2, "wide": [(32, 16)] * 2}
    for name, images in sizes.items():
        (here / name).mkdir(exist_ok=True)
        for index, size in enumerate(images):
            Image.new("RGB", size).save(here / name / f"{index}.png")
    (here / "damaged/1.png").write_bytes((here / "damaged/0.png").read_bytes()[:40])
    capsys.readouterr()
    assert main(["evaluate", *arguments, "--reference", "reals-shards", "--out", "records.jsonl"]) == 2
    assert message in capsys.readouterr().err
    assert not (here / "records.jsonl").exists()
