"""What the recipes of classes tell a user to do with what was downloaded: the scripts, then `advgen shard`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from advgen.data.stream import ImageStream
from pipelines.shard import main
from scripts import torchvision_by_class
from tests.distributed.runs import ROOT, environment

EMOJI = {  # file: category, colour
    "1f600.png": ("Smileys & Emotion", (250, 200, 0)),
    "1f601.png": ("Smileys & Emotion", (250, 190, 10)),
    "1f43a.png": ("Animals & Nature", (90, 90, 90)),
    "1f3fb.png": ("Component", (240, 220, 190)),
}


def script(name: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)


def options_of(recipe: str) -> list[str]:
    """What stands in the recipe's header behind source and folder of its `advgen shard`."""
    text = (ROOT / "pipelines/recipes" / recipe).read_text()
    head = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    return head.split("`advgen shard ")[1].split("`")[0].split()[2:]


def shard(source: Path, out: Path, options: list[str]) -> None:
    assert main([str(source), str(out), *options, "--workers", "1"]) == 0


def make_package(folder: Path) -> Path:
    """The npm package as it lies there: transparent PNGs with a disc, and emoji.json."""
    images = folder / "package/img/twitter/64"
    images.mkdir(parents=True)
    y, x = np.mgrid[:64, :64]
    disc = (y - 31.5) ** 2 + (x - 31.5) ** 2 < 28**2
    # A drawing of another skin tone is there, too, and stands in no entry of its own.
    for name, colour in {**{name: colour for name, (_, colour) in EMOJI.items()}, "1f44b-1f3fb.png": (9, 9, 9)}.items():
        pixels = np.zeros((64, 64, 4), np.uint8)
        pixels[disc] = (*colour, 255)
        Image.fromarray(pixels).save(images / name)
    entries = [{"image": name, "category": category, "has_img_twitter": True} for name, (category, _) in EMOJI.items()]
    entries.append({"image": "1f9ff.png", "category": "Objects", "has_img_twitter": False})
    (folder / "package/emoji.json").write_text(json.dumps(entries))
    return folder / "package"


def test_emoji_become_classes_on_white(tmp_path: Path) -> None:
    assert script("emoji_by_class.py", make_package(tmp_path), tmp_path / "images").returncode == 0
    options = options_of("cgan-emoji.yaml")
    share = options.index("--validation")
    assert options[share + 1] == "0.1"
    del options[share : share + 2]  # of three images none would be held out
    shard(tmp_path / "images", tmp_path / "shards", options)
    stream = ImageStream(str(tmp_path / "shards"), seed=0, resolution=64, channels=3)
    names = [each.name for each in stream.manifest.classes]
    assert names == ["Animals & Nature", "Smileys & Emotion"]
    samples = stream.read(np.arange(len(stream)))
    assert samples.labels is not None
    assert (samples.images[:, :, 0, 0] == 255).all(), "what is transparent is white"
    colours = samples.images[:, :, 32, 32].tolist()
    found = {(names[label], tuple(colour)) for label, colour in zip(samples.labels, colours, strict=True)}
    assert found == {each for each in EMOJI.values() if each[0] != "Component"} and len(colours) == 3


def test_a_folder_that_is_no_package_is_told(tmp_path: Path) -> None:
    done = script("emoji_by_class.py", tmp_path, tmp_path / "images")
    assert done.returncode == 1 and "holds no emoji.json" in done.stderr


class Downloaded:
    """Stands for torchvision's sets: four images of two classes."""

    classes = ("airplane", "automobile")

    def __init__(self, root: str, train: bool, download: bool) -> None:
        assert Path(root).name == "download" and download
        self.shade = 200 if train else 50

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        return iter([(Image.new("L", (28, 28), self.shade + number), number % 2) for number in range(4)])


@pytest.mark.parametrize(("name", "classes"), [("mnist", ["0", "1"]), ("cifar10", ["airplane", "automobile"])])
def test_torchvision_s_sets_become_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, classes: list[str]
) -> None:
    stand_in: Any = Downloaded
    monkeypatch.setitem(torchvision_by_class.DATASETS, name, stand_in)
    torchvision_by_class.main(name, tmp_path / "images")
    for part, shade in (("train", 200), ("test", 50)):
        shard(tmp_path / "images" / part, tmp_path / part, options_of(f"cgan-{name}.yaml"))
        channels = 1 if name == "mnist" else 3
        stream = ImageStream(str(tmp_path / part), seed=0, resolution=32, channels=channels)
        assert ([each.name for each in stream.manifest.classes], len(stream)) == (classes, 4)
        with Image.open(tmp_path / "images" / part / classes[1] / "00003.png") as image:
            assert image.getpixel((0, 0)) == shade + 3


def test_a_black_border(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What avb-mnist.yaml asks for: 32 pixels without any that is new, sharded as they are."""
    stand_in: Any = Downloaded
    monkeypatch.setitem(torchvision_by_class.DATASETS, "mnist", stand_in)
    torchvision_by_class.main("mnist", tmp_path / "images", 2)
    shard(tmp_path / "images/train", tmp_path / "train", options_of("avb-mnist.yaml"))
    images = ImageStream(str(tmp_path / "train"), seed=0, resolution=32, channels=1).read(np.arange(4)).images
    assert (images[:, 0, 2:30, 2:30] >= 200).all()
    assert images.astype(int).sum() == images[:, 0, 2:30, 2:30].astype(int).sum()
