"""The last of nine phases, after the eight before it and in a process of its own: step time and memory.

    python scripts/bench_phases.py [--engine zero2]

A ProGAN grows from 4 to 64 pixels. Its run is copied at the end of the eighth phase, and a second process plays the
ninth from there; the two are started in turn several times. Told are the ratios of step times and of memory in use.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.distributed.runs import environment, make_shards, write_recipe  # noqa: E402

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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="ddp")
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_shards(folder, resolution=64)
        sizes = {"data__resolution": 64, "game__channels": {4: 32, 8: 32, 16: 32, 32: 16, 64: 8}}
        lengths = {"game__stabilize_kimg": 0.64, "game__fade_kimg": 0.64, "training__checkpoint_kimg": 1e6}
        pairs = []
        for number in range(given.times):
            name = f"whole{number}"
            engine = {"training__engine": given.engine, "training__log_every_steps": 10}
            recipe = write_recipe(folder / f"{name}.yaml", name=name, **sizes, **lengths, **engine)
            whole = play(folder, recipe)
            run, late = folder / "runs" / name, folder / "runs" / f"late{number}"
            shutil.copytree(run, late)
            os.remove(late / "checkpoints" / "latest")
            for path in (late / "checkpoints").iterdir():
                if int(path.name) > 8 * 640:
                    shutil.rmtree(path)
            second = write_recipe(folder / f"late{number}.yaml", name=late.name, **sizes, **lengths, **engine)
            pairs.append((whole, play(folder, second)))
        ratios = {key: [a[key] / b[key] for a, b in pairs] for key in ("step", "memory")}
        step = 1000 * statistics.median(b["step"] for _, b in pairs)
        memory = statistics.median(b["memory"] for _, b in pairs) / 1e6
        print(
            f"{given.engine}: last of nine phases (64 px, batch 16, 40 steps), after eight others / alone, "
            f"{given.times} pairs: step time {_range(ratios['step'])} of {step:.0f} ms, memory "
            f"{_range(ratios['memory'])} of "
            f"{memory:.0f} MB"
        )


def _range(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
