"""docs/data-sets.md: its commands, word for word, on small folders of the layout that the sets have."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from advgen.data.manifest import MANIFEST, parse_manifest
from pipelines import shard
from tests.distributed.runs import ROOT

COMMANDS = [line for line in (ROOT / "docs/data-sets.md").read_text().splitlines() if line.startswith("advgen shard ")]
# Folder of a command's images: names of the files, and their mode and size in pixels.
LAYOUT = {
    "CelebAMask-HQ/CelebA-HQ-img": (["{}.jpg"], "RGB", (40, 40)),
    "images1024x1024": (["00000/0000{}.png"], "RGB", (40, 40)),
    "bedroom": (["0/a{}.webp"], "RGB", (48, 40)),
    "leftImg8bit/train": (["aachen/aachen_00000{}_000019_leftImg8bit.png"], "RGB", (64, 32)),
    "leftImg8bit/val": (["munster/munster_00000{}_000019_leftImg8bit.png"], "RGB", (64, 32)),
    "gtFine/train": (
        [f"aachen/aachen_00000{{}}_000019_gtFine_{kind}.png" for kind in ("labelIds", "instanceIds", "color")],
        "L",
        (64, 32),
    ),
    "gtFine/val": (
        [f"munster/munster_00000{{}}_000019_gtFine_{kind}.png" for kind in ("labelIds", "instanceIds", "color")],
        "L",
        (64, 32),
    ),
    "ADEChallengeData2016/images/training": (["ADE_train_0000000{}.jpg"], "RGB", (50, 36)),
    "ADEChallengeData2016/images/validation": (["ADE_val_0000000{}.jpg"], "RGB", (50, 36)),
    "ADEChallengeData2016/annotations/training": (["ADE_train_0000000{}.png"], "L", (50, 36)),
    "ADEChallengeData2016/annotations/validation": (["ADE_val_0000000{}.png"], "L", (50, 36)),
}


def write(folder: Path, names: list[str], mode: str, size: tuple[int, int]) -> None:
    draw = np.random.default_rng(1)
    for number in range(2):
        for name in names:
            path = folder / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            shape = (*size[::-1], 3) if mode == "RGB" else size[::-1]
            Image.fromarray(draw.integers(0, 30, shape, dtype=np.uint8)).save(path)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[3])
def test_command(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, (names, mode, size) in LAYOUT.items():
        write(tmp_path / name, names, mode, size)
    words = shlex.split(command)[2:]
    at = words.index("--resolution") + 1
    words[at] = "64x32" if "x" in words[at] else "32"  # smaller, and otherwise as it stands
    assert shard.main([*words, "--workers", "1"]) == 0
    manifest = parse_manifest((tmp_path / words[1] / MANIFEST).read_bytes(), words[1])
    assert manifest.samples == 2


def test_all_five_sets_are_there() -> None:
    folders = {command.split()[3].split("/")[1] for command in COMMANDS}
    assert folders == {"celebahq1024", "ffhq1024", "ffhq256", "lsun-bedroom256", "cityscapes", "ade20k"}
