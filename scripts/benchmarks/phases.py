"""The last of nine phases, after the eight before it and in a process of its own: step time and memory.

    python scripts/bench.py phases [--engine zero2]

A ProGAN grows from 4 to 64 pixels. Its run is copied at the end of the eighth phase, and a second process plays the
ninth from there, several times. Told are the ratios of step times and of memory in use, medians and least to most.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.benchmarks.measure import Report, parser_of, spread
from tests.distributed.runs import environment, make_shards, write_recipe

# Memory in use when the last phase has ended, of a process that has just trained.
PROGRAM = """
import json, sys, time
from pathlib import Path
from advgen.build import build_trainer
from advgen.config import load_recipe
from advgen.runtime.preemption import StopRequest

class Watch:
    times = []
    def resumed(self, checkpoint): pass
    def warned(self, text): print(text)
    def told(self, text): print(text)
    def step(self, status):
        if status.phase == "train 64x64":
            self.times.append(time.perf_counter())

watch = Watch()
trainer, world = build_trainer(load_recipe(Path(sys.argv[1])))
trainer.run(watch, StopRequest())
status = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]
gaps = sorted(b - a for a, b in zip(watch.times[5:], watch.times[6:]))
print(json.dumps({"step": gaps[len(gaps) // 2], "memory": int(status) * 1024}))
"""


def play(folder: Path, recipe: Path) -> dict[str, float]:
    """Train to the end in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, recipe.name]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def pair(folder: Path, number: int, engine: str) -> dict[str, dict[str, float]]:
    """The last phase after the eight before it, and alone."""
    sizes = {"data__resolution": 64, "game__channels": {4: 32, 8: 32, 16: 32, 32: 16, 64: 8}}
    settings = {**sizes, "game__stabilize_kimg": 0.64, "game__fade_kimg": 0.64, "training__checkpoint_kimg": 1e6}
    settings |= {"training__engine": engine, "training__log_every_steps": 10}
    name = f"whole{number}"
    whole = play(folder, write_recipe(folder / f"{name}.yaml", name=name, **settings))
    run, late = folder / "runs" / name, folder / "runs" / f"late{number}"
    shutil.copytree(run, late)
    os.remove(late / "checkpoints" / "latest")
    for path in (late / "checkpoints").iterdir():
        if int(path.name) > 8 * 640:
            shutil.rmtree(path)
    alone = play(folder, write_recipe(folder / f"late{number}.yaml", name=late.name, **settings))
    return {"after": whole, "alone": alone}


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = parser_of("phases", __doc__)
    parser.add_argument("--engine", default="ddp")
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args(arguments)
    with Report(given) as report, tempfile.TemporaryDirectory() as place:
        make_shards(Path(place), resolution=64)
        pairs = report.figures["pairs"] = [pair(Path(place), number, given.engine) for number in range(given.times)]
        report.say(
            f"{given.engine}: last of nine phases (64 px, batch 16, 40 steps), after the eight others / alone, "
            f"{given.times} pairs"
        )
        rows = []
        for key, factor, unit in (("step", 1000, "ms"), ("memory", 1e-6, "MB")):
            ratio = spread([each["after"][key] / each["alone"][key] for each in pairs])
            rows.append(
                [key, ratio.show(".3f"), f"{spread([p['alone'][key] for p in pairs]).show('.0f', factor)} {unit}"]
            )
        report.table(["what", "after eight phases / alone", "alone"], rows)
