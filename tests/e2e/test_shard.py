"""`advgen shard` as a person runs it, and as a batch system ends it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from advgen.build import open_stream
from advgen.config import load_recipe
from advgen.data.shards import load_manifest, verify_shards
from pipelines.__main__ import main
from tests.distributed.runs import ROOT, environment, run_advgen, write_images

FLAGS = ("--resolution", "64", "--shard-samples", "40", "--workers", "2", "--validation", "0.2")


def contents(folder: Path) -> dict[str, bytes]:
    # The plan holds when the images were written, which is no part of the result.
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if path.name != "plan.json"}


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    write_images(tmp_path / "images", count=800, resolution=96)
    whole = run_advgen(tmp_path, "shard", "images", "whole", *FLAGS)
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "pipelines", "shard", "images", "cut", *FLAGS]
    unfinished = tmp_path / "cut" / ".train.partial"
    kept: dict[Path, int] = {}
    for shards in (1, 6):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL
        )
        while len(list(unfinished.glob("*.done"))) < shards and process.poll() is None:
            time.sleep(0.005)
        assert process.poll() is None, "it ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done = [path.with_suffix("") for path in unfinished.glob("*.done")]
        assert all(path.stat().st_mtime_ns == moment for path, moment in kept.items()), "what is done is not redone"
        kept = {path: path.stat().st_mtime_ns for path in done}
        assert not (tmp_path / "cut" / "train").exists()
    assert run_advgen(tmp_path, "shard", "images", "cut", *FLAGS).returncode == 0
    assert all((tmp_path / "cut" / "train" / path.name).stat().st_mtime_ns == kept[path] for path in kept)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert (
        verify_shards(tmp_path / "cut" / "train").samples + verify_shards(tmp_path / "cut" / "validation").samples
        == 800
    )


def test_the_layout_of_ade20k(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JPEGs of various sizes, some of them grey, and maps of ids 0 to 150 in a folder of the same names."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    for part, name, sizes in (
        ("training", "train", [(90, 60), (64, 64), (50, 120), (256, 191)]),
        ("validation", "val", [(80, 64)]),
    ):
        for number, (width, height) in enumerate(sizes):
            ids = draw.integers(0, 151, (2, 2), dtype=np.uint8)
            ids[0, 0] = (0, 150)[number % 2]
            rows, columns = np.arange(height) * 2 // height, np.arange(width) * 2 // width
            for folder, pixels, ending in (
                ("images", draw.integers(0, 256, (height, width, 3)[: 2 + (number != 1)], dtype=np.uint8), "jpg"),
                ("annotations", ids[rows][:, columns], "png"),
            ):
                place = tmp_path / "ADEChallengeData2016" / folder / part
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(place / f"ADE_{name}_{number:08d}.{ending}")
    recipe = (ROOT / "pipelines/recipes/pix2pixhd-ade20k-256.yaml").read_text()
    told = re.search(r"`advgen (shard [^`]*)`", recipe)
    assert told is not None
    command = shlex.split(told.group(1).replace("#", ""))
    for part in ("training", "validation"):
        arguments = [word.replace("training", part).replace("ade20k/train", f"ade20k/{part}") for word in command]
        assert main([*arguments, "--workers", "1"]) == 0
    manifest = load_manifest(tmp_path / "data/ade20k/training")
    assert manifest.samples == 4 and manifest.parts == ("image", "label_map") and not manifest.rejected
    assert {0, 150} <= set(manifest.label_ids) and max(manifest.label_ids) == 150
    samples = open_stream(
        load_recipe(ROOT / "pipelines/recipes/pix2pixhd-ade20k-256.yaml"), "data/ade20k/training"
    ).read(np.arange(4))
    assert samples.images.shape == (4, 3, 256, 256) and samples.label_map is not None
    for found in samples.label_map:
        corners = found[[0, 0, -1, -1], [0, -1, 0, -1]].reshape(2, 2)
        assert corners[0, 0] in (0, 150)
        assert (found == corners.repeat(128, 0).repeat(128, 1)).mean() > 0.98, "the whole map, stretched"
