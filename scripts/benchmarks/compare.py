"""How long a comparison of many runs takes, how large its page is, and when a browser first paints it.

    python scripts/bench.py compare --runs 200 --points 1000

On a busy machine the clock says more than the processor's time.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from advgen.report.compare_data import compare, places, read_runs
from advgen.report.comparison import write_comparison
from scripts.benchmarks.measure import Report, parser_of

_VALUES = ("discriminator/loss", "discriminator/real_score", "discriminator/fake_score", "discriminator/gradient_norm")
_MORE = ("generator/loss", "generator/gradient_norm", "discriminator/learning_rate", "generator/learning_rate")


def main(arguments: Sequence[str]) -> None:
    """Make runs, compare them, and tell."""
    parser = parser_of("compare", __doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--points", type=int, default=1000, help="of each logged value")
    parser.add_argument("--grids", type=int, default=10, help="of each run, of 320 x 192 pixels")
    given = parser.parse_args(arguments)
    with Report(given) as report, tempfile.TemporaryDirectory() as place:
        folder, out = Path(place) / "runs", Path(place) / "compare.html"
        make_runs(folder, given.runs, given.points, given.grids)
        began, busy = time.perf_counter(), time.process_time()
        read = read_runs(places([str(folder)]))
        known = time.perf_counter()
        write_comparison(compare(*read), out)
        done, spent = time.perf_counter(), time.process_time() - busy
        found = {"read_seconds": known - began, "write_seconds": done - known, "processor_seconds": spent}
        found |= {"megabytes": out.stat().st_size / 1e6}
        if chromium := shutil.which("chromium") or shutil.which("google-chrome"):
            found |= {f"{name}_seconds": value / 1000 for name, value in first_paint(out, chromium).items()}
        report.figures |= found
        values = len(_VALUES + _MORE)
        report.say(f"{given.runs} runs x {given.points} points of {values} values, {given.grids} grids each")
        report.table(["what", "figure"], [[name.replace("_", " "), f"{value:.2f}"] for name, value in found.items()])
        if chromium is None:
            report.say("no Chromium here: first paint not measured")


def make_runs(folder: Path, runs: int, points: int, grids: int) -> None:
    """Run folders like those that training leaves: two metrics at ten checkpoints, 50 groups."""
    random = np.random.default_rng(0)
    for number in range(runs):
        run, quality = folder / f"run-{number:03d}", random.uniform(10, 40)
        (run / "samples").mkdir(parents=True)
        rate = f"{1e-4 * (1 + number // 4):.4g}"
        config = f"name: run-{number:03d}\nseed: {number % 4}\ngame:\n  kind: gan\n  learning_rate: {rate}\n"
        (run / "config.yaml").write_text(config)
        about = {"commit": "0b844c3d9f", "device": "cuda:0", "world_size": 8, "total_nimg": 1_000_000}
        (run / "run.json").write_text(json.dumps(about))
        with (run / "log.jsonl").open("w") as log:
            values = random.standard_normal((points, len(_VALUES + _MORE)))
            for step, row in enumerate(values, start=1):
                at = {"nimg": 1_000_000 * step // points, "phase": "train", "resolution": 32}
                named = dict(zip(_VALUES + _MORE, row.tolist(), strict=True))
                log.write(json.dumps({"kind": "scalars", "step": step, **at, "values": named}) + "\n")
                speed = {"images_per_second": 900.0 + row[0], "elapsed_seconds": step * 1.1}
                log.write(json.dumps({"kind": "rate", "step": step, **at, **speed}) + "\n")
        _write_metrics(run, quality, random)
        _write_grids(run, grids, random)


def _write_metrics(run: Path, quality: float, random: np.random.Generator) -> None:
    protocol: dict[str, Any] = {"samples": 50_000, "reference": "c0ffee" * 8, "weights": "average"}
    with (run / "metrics.jsonl").open("w") as file:
        for nimg in range(100_000, 1_000_001, 100_000):
            for name, scale in (("fid", quality), ("kid", quality / 1000)):
                value = scale * (1 + 5 * math.exp(-nimg / 2e5)) + 0.01 * scale * float(random.standard_normal())
                record = {"name": name, "value": value, "nimg": nimg, "resolution": 32, "protocol": protocol}
                file.write(json.dumps({**record, "moment": "within", "phase": "train"}) + "\n")


def _write_grids(run: Path, grids: int, random: np.random.Generator) -> None:
    with (run / "samples" / "index.jsonl").open("w") as index:
        for number in range(grids):
            nimg = 1_000_000 * (number + 1) // grids
            coarse = Image.fromarray(random.integers(0, 256, (24, 40, 3), dtype=np.uint8))
            coarse.resize((320, 192), Image.Resampling.BICUBIC).save(run / "samples" / f"{nimg}.png")
            index.write(json.dumps({"nimg": nimg, "file": f"{nimg}.png", "phase": "train", "resolution": 32}) + "\n")


def first_paint(page: Path, chromium: str) -> dict[str, float]:
    """Milliseconds after navigation by the browser's own clock: first (contentful) paint, and the document's end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto(page.as_uri(), wait_until="load")
        tab.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
        paints = tab.evaluate("performance.getEntriesByType('paint').map(each => [each.name, each.startTime])")
        loaded = tab.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
        browser.close()
    return {**dict(paints), "loaded": loaded}
