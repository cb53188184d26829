"""A run folder like one that training leaves, small and made up."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RESOLUTIONS = (4, 8, 16, 32, 64)
FLOORS = {4: 0.61, 8: 1.02, 16: 1.48, 32: 2.07, 64: 2.93}
UNTRAINED = {4: 96.0, 8: 142.0, 16: 180.0, 32: 214.0, 64: 251.0}
CONFIG = """\
seed: 7
note: "<script>alert('recipe')</script> & more"
data:
  shards: data/earth-64
game:
  kind: progan
"""


def phases() -> list[tuple[str, int, int, int]]:
    """(name, resolution, first nimg, last nimg) of a progressive run: fades of 40 kimg, stable phases of 60."""
    result, nimg = [], 0
    for resolution in RESOLUTIONS:
        if resolution > 4:
            result.append((f"fade {resolution}x{resolution}", resolution, nimg, nimg + 40_000))
            nimg += 40_000
        length = 60_000 if resolution < 64 else 140_000
        result.append((f"{resolution}x{resolution}", resolution, nimg, nimg + length))
        nimg += length
    return result


def make_run(folder: Path, every: int = 640) -> Path:
    """Write the run folder; a scalars record every so many images."""
    random = np.random.default_rng(0)
    (folder / "samples").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    provenance = {
        **{"commit": "0b844c3d9f", "manifest": "9a3f" * 16, "device": "cpu", "world_size": 2, "host": None},
        **{"versions": {"torch": "2.11.0", "python": "3.11.9"}, "started": "2026-03-02T10:15:00+00:00"},
    }
    (folder / "run.json").write_text(json.dumps(provenance))
    log, index, metrics, seconds, step = [], [], [], 0.0, 0
    for name, resolution, start, end in phases():
        where = {"phase": name, "resolution": resolution}
        log.append({"kind": "phase", "nimg": start, "event": "start", **where})
        for nimg in range(start + every, end + 1, every):
            step, part = step + every // 16, (nimg - start) / (end - start)
            shock = 1.6 * math.exp(-(nimg - start) / 15_000)
            values = {
                "discriminator/loss": -0.9 - shock + 0.25 * random.standard_normal(),
                "discriminator/gradient_penalty": abs(0.2 + 0.3 * shock + 0.05 * random.standard_normal()),
                "discriminator/real_score": 0.4 + 0.5 * random.standard_normal(),
                "discriminator/fake_score": -0.6 + 0.5 * random.standard_normal(),
                "generator/loss": 1.1 + 0.8 * math.sin(nimg / 90_000) + shock + 0.4 * random.standard_normal(),
                "generator/learning_rate": 1e-3,
            }
            if random.random() < 0.002:
                values["discriminator/loss"] -= 60.0
            if nimg == start + 3 * every and resolution == 16:
                values["generator/loss"] = math.nan
            fade = part if name.startswith("fade") else 1.0
            log.append({"kind": "scalars", "step": step, "nimg": nimg, "fade": fade, **where, "values": values})
            rate = 2400.0 / resolution * (1 + 0.04 * random.standard_normal())
            seconds += every / rate
            each = {"images_per_second": rate, "seconds_per_kimg": 1000 / rate, "elapsed_seconds": seconds}
            log.append({"kind": "rate", "step": step, "nimg": nimg, **where, **each})
        log.append({"kind": "phase", "nimg": end, "event": "end", **where})
        for event, nimg in (("start", start), ("end", end)):
            file = f"{nimg:09d}-{event}.png"
            index.append({"nimg": nimg, "file": file, "columns": 8, "event": event, **where})
            save_grid(folder / "samples" / file, resolution, random)
        metrics += _metrics(name, resolution, start, end)
    save_grid(folder / "samples" / "reals.png", 64, random)
    write_lines(folder / "log.jsonl", log)
    write_lines(folder / "samples" / "index.jsonl", index)
    write_lines(folder / "metrics.jsonl", metrics)
    return folder


def _metrics(name: str, resolution: int, start: int, end: int) -> list[dict]:
    protocol = {"samples": 5000, "reference_samples": 20000, "reference": "c0ffee" * 8, "resize": "bicubic"}
    protocol["extractor"] = {"name": "efficientnet_lite0", "weights_sha256": "ab12" * 16, "input": 64}
    same = {"name": "fd_lite0", "phase": name, "resolution": resolution, "checkpoint": None}
    floor, untrained = FLOORS[resolution], UNTRAINED[resolution]
    if not name.startswith("fade"):
        figures = [("end", end, floor + (untrained - floor) * 0.035 * math.log2(resolution))]
    else:
        figures = [("start", start, floor + (untrained - floor) * 0.45)]
        figures += [("end", end, floor + (untrained - floor) * 0.09 * math.log2(resolution) / 2)]
    if resolution == 4 or name.startswith("fade"):
        figures += [("floor", 0, floor), ("untrained", 0, untrained)]
    return [
        {
            **same,
            "moment": m,
            "nimg": n,
            "value": v,
            "protocol": {**protocol, **({} if m == "floor" else {"weights": "ema"})},
        }
        for m, n, v in figures
    ]


def save_grid(path: Path, resolution: int, random: np.random.Generator, columns: int = 8, rows: int = 4) -> None:
    """A grid of smooth coloured blobs."""
    y, x = np.mgrid[0:resolution, 0:resolution] / resolution
    tiles = []
    for _ in range(columns * rows):
        a, b, phase = random.uniform(-4, 4, 3), random.uniform(-4, 4, 3), random.uniform(0, 6, 3)
        tiles.append(127 + 110 * np.sin(x[..., None] * a + y[..., None] * b + phase))
    grid = np.stack(tiles).reshape(rows, columns, resolution, resolution, 3).transpose(0, 2, 1, 3, 4)
    Image.fromarray(grid.reshape(rows * resolution, columns * resolution, 3).astype(np.uint8)).save(path)


def write_lines(path: Path, records: list[dict]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests must not write into it."""
    return make_run(tmp_path_factory.mktemp("runs") / "earth-64")
