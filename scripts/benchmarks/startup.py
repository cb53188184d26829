"""Seconds from the start of `advgen train` to its first step, of a resume, and from phase to phase.

    python scripts/bench.py startup --rounds 5

A small ProGAN grows from 4 to 16 pixels in five phases. In each round its training is started and asked to stop at its
second step, started again (the resume) and asked again, and then trained to its end, which tells the changes of phase:
the time from the last step of a phase to the end of the first of the next, less a step of that phase. In turns with
them a script that only imports torch. Of a start are told the imports, the building of the trainer, and the
first step: with it the first checkpoint and grid of samples, or what is read of a checkpoint, and the first batch.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scripts.benchmarks.measure import Report, in_turns, parser_of, ratio_of, spread

# `advgen train` itself, with stamps of a clock that all processes of the machine share.
PROGRAM = """
import json, os, signal, sys, time
stop_after = int(sys.argv[1])
stamps = {"steps": []}
from pipelines import terminal
import advgen.build
stamps["imported"] = time.monotonic()

def build(*arguments, made=advgen.build.build_trainer):
    found = made(*arguments)
    stamps["built"] = time.monotonic()
    return found

class Bar(terminal.TrainingBar):
    def step(self, status):
        stamps["steps"].append((time.monotonic(), status.phase))
        if len(stamps["steps"]) == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        super().step(status)

advgen.build.build_trainer, terminal.TrainingBar = build, Bar
from pipelines.__main__ import main
code = main(["train", *sys.argv[2:]])
print(json.dumps({"code": code, **stamps}))
"""


def train(folder: Path, recipe: Path, name: str, stop_after: int) -> dict[str, Any]:
    """Stamps in seconds since the process was started; the training is asked to stop after so many steps, or never."""
    from tests.distributed.runs import environment

    own = [sys.executable, "-c", PROGRAM, str(stop_after), recipe.name, "--name", name]
    start = time.monotonic()
    done = subprocess.run(own, cwd=folder, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    told = json.loads(done.stdout.splitlines()[-1])
    if told["code"] != (143 if stop_after else 0):
        raise SystemExit(f"exit code {told['code']}\n{done.stdout}{done.stderr}")
    steps = [(at - start, phase) for at, phase in told["steps"]]
    return {"imported": told["imported"] - start, "built": told["built"] - start, "steps": steps}


def bare() -> float:
    """Seconds of a process that imports torch and ends."""
    start = time.monotonic()
    told = subprocess.run(
        [sys.executable, "-c", "import torch, time; print(time.monotonic())"],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(told.stdout) - start


def changes(steps: Sequence[tuple[float, str]]) -> list[float]:
    """Seconds of each change of phase, without the first step of the next."""
    found = []
    for (before, phase), (after, following) in itertools.pairwise(steps):
        if following == phase:
            continue
        times = [at for at, name in steps if name == following]
        ordinary = statistics.median(late - early for early, late in itertools.pairwise(times))
        found.append(after - before - ordinary)
    return found


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = parser_of("startup", __doc__)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    with Report(given) as report, tempfile.TemporaryDirectory() as place:
        from tests.distributed.runs import make_shards, write_recipe

        folder, names = Path(place), itertools.count()
        make_shards(folder)
        recipe = write_recipe(folder / "recipe.yaml", training__checkpoint_kimg=1e6)

        def whole() -> dict[str, dict[str, Any]]:
            name = f"run{next(names)}"
            found = {"start": train(folder, recipe, name, 2), "resume": train(folder, recipe, name, 2)}
            return {**found, "rest": train(folder, recipe, name, 0)}

        works: dict[str, Callable[[], Any]] = {"import torch": bare, "advgen": whole}
        found = in_turns(works, given.rounds)
        tell(report, found["import torch"], found["advgen"])


def tell(report: Report, torch_alone: list[float], runs: list[dict[str, dict[str, Any]]]) -> None:
    """Both tables."""
    kinds = {"start": "advgen train", "resume": "advgen train, resumed"}
    rows = [["import torch, alone", "", "", spread(torch_alone).show(".2f"), ""]]
    for kind, text in kinds.items():
        of = [run[kind] for run in runs]
        first = [each["steps"][0][0] for each in of]
        parts = [
            spread([each["imported"] for each in of]),
            spread([each["built"] - each["imported"] for each in of]),
        ]
        rows.append(
            [text, *(p.show(".2f") for p in parts), spread(first).show(".2f"), ratio_of(first, torch_alone).show()]
        )
    moved = [seconds for run in runs for seconds in changes(run["rest"]["steps"])]
    report.figures |= {"import_torch": torch_alone, "runs": runs, "phase_changes": moved}
    report.say(f"{len(runs)} rounds; seconds, medians (least to most).")
    columns = ["what", "imports", "building", "from the process's start to the first step", "times import torch (95 %)"]
    report.table(columns, rows)
    report.say(f"From phase to phase: {spread(moved).show('.3f')} s, {len(moved)} changes.")
