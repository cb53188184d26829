"""Time to the first batch of a set of a million samples, at its start and at nine tenths of an epoch."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from advgen.data.config import FolderImages, ShardingConfig
from advgen.data.manifest import MANIFEST, Entry, dump_index, dump_manifest, index_name, read_index
from advgen.data.places import Place
from advgen.data.shards import load_manifest, write_shards
from advgen.data.sources import open_source
from scripts.benchmarks.measure import ROOT, Report, spread

SHARDS, SAMPLES, SIZE = 1000, 1000, 64


def make_large(folder: Path) -> None:
    """Shards whose samples are all one picture, with an index of their own each: only the index is large."""
    from PIL import Image

    (folder / "image").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    Image.fromarray(noise).save(folder / "image" / "a.jpg")
    source = open_source(FolderImages(path=str(folder / "image")))
    shards = folder / "shards"
    write_shards(source, shards, resolution=SIZE, channels=3, config=ShardingConfig(levels="none"))
    manifest = load_manifest(shards)
    (first,) = manifest.shards
    (entry,) = read_index(Place(shards).read, first, "")
    tar = (shards / first.name).read_bytes()
    made = []
    for number in range(SHARDS):
        name = f"large-{number:06d}.tar"
        keys = [f"{number * SAMPLES + n:012d}" for n in range(SAMPLES)]
        index = dump_index([Entry(key, None, f"relief/tiles/{key}.jpg", entry.spans) for key in keys])
        (shards / name).write_bytes(tar)
        (shards / index_name(name)).write_bytes(index)
        made.append(
            dataclasses.replace(first, name=name, samples=SAMPLES, index_sha256=hashlib.sha256(index).hexdigest())
        )
    large = dataclasses.replace(manifest, samples=SHARDS * SAMPLES, shards=tuple(made))
    (shards / MANIFEST).write_text(dump_manifest(large))


PROGRAM = """
import sys, time
import numpy as np
from advgen.data.stream import ImageStream
start = time.perf_counter()
stream = ImageStream(sys.argv[1], seed=0, resolution=64, channels=3, mirror=True)
opened = time.perf_counter()
position = int(sys.argv[2])
assert len(stream.read(np.arange(position, position + 64)).images) == 64
print(opened - start, time.perf_counter() - opened)
"""


def large(report: Report, folder: Path, rounds: int = 5) -> None:
    """Tell seconds to open and to the first batch after opening, of several processes."""
    start = time.perf_counter()
    if not folder.is_dir():
        make_large(folder)
        report.say(f"{SHARDS * SAMPLES:,} samples made in {time.perf_counter() - start:.0f} s")
    rows, figures = [], {}
    for share in (0.0, 0.9):
        times = []
        for turn in range(rounds):
            position = str(int(share * SHARDS * SAMPLES) + 1000 * turn)
            command = [sys.executable, "-c", PROGRAM, str(folder / "shards"), position]
            told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
            times.append([float(word) for word in told.stdout.split()])
        opening, batch = zip(*times, strict=True)
        figures[str(share)] = {"opening": opening, "first_batch": batch}
        rows.append([f"{share:.0%} of an epoch", spread(opening).show(".3f"), spread(batch).show(".3f")])
    report.figures["large"] = figures
    report.table(["at", "opening, s", "first batch beyond it, s"], rows)
